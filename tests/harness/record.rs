//! Reads the launcher's log back, strictly: what is not a well-formed record fails the test.

/// One line of the log.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// The whole line.
    pub(crate) line: String,
    /// RFC 3339, UTC.
    pub(crate) time: String,
    /// `launch` or `refuse`.
    pub(crate) verb: String,
    fields: Vec<(String, String)>,
}

impl Record {
    pub(crate) fn parse_all(text: &[u8]) -> Vec<Self> {
        assert!(
            text.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')),
            "the log has bytes that are not printable: {:?}",
            String::from_utf8_lossy(text)
        );
        assert!(text.is_empty() || text.ends_with(b"\n"), "the log ends in the middle of a line");
        String::from_utf8(text.to_vec()).unwrap().lines().map(Self::parse).collect()
    }

    fn parse(line: &str) -> Self {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().unwrap_or_else(|| panic!("not a record: {line}")).to_owned();
        let (time, verb, mut rest) = (next(), next(), next());
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (name, tail) = rest.split_once('=').unwrap_or_else(|| panic!("no `=`: {rest} in {line}"));
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}: {line}");
            let (value, more) = value(tail, line);
            fields.push((name.to_owned(), value));
            rest = more;
        }
        Self { line: line.to_owned(), time, verb, fields }
    }

    /// The value of a field that must be there.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("no {name}= in: {}", self.line))
    }

    /// The value of a field.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A value, quoted or not, and what follows its blank.
fn value(tail: &str, line: &str) -> (String, String) {
    let Some(quoted) = tail.strip_prefix('"') else {
        let (value, more) = tail.split_once(' ').unwrap_or((tail, ""));
        return (value.to_owned(), more.to_owned());
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next() {
            Some('"') => break,
            Some('\\') => {
                value.push('\\');
                value.extend(characters.next());
            }
            Some(other) => value.push(other),
            None => panic!("a quote is not closed: {line}"),
        }
    }
    let more = characters.as_str();
    assert!(more.is_empty() || more.starts_with(' '), "no blank after a quote: {line}");
    (value, more.trim_start().to_owned())
}
