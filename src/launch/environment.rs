//! The environment, rebuilt by allow list. Pure: bytes in, bytes out. Fuzzed.
//!
//! Order: what the policy sets, what the launcher itself knows better, then the caller's, as it came. A name stands at
//! most once. Refuses with E01–E03; what merely may not pass is left out and counted.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use crate::policy::Environment;
use crate::policy::names::{is_among, is_same, may_pass};
use crate::refusal::{Card, Refusal, Untrusted};

/// A new environment, and how many of the caller's entries are not in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rebuilt<'a> {
    /// `NAME=value`; the caller's own, where it is unchanged.
    pub entries: Vec<Cow<'a, CStr>>,
    /// Left out.
    pub dropped: usize,
    /// Their names, with a comma between; not all of many.
    pub left: String,
}

/// One more name for the record, where that has room for it.
fn tell(left: &mut String, name: &[u8]) {
    let shown = Untrusted(name).to_string();
    if left.len().saturating_add(shown.len()) < LEFT_MAX {
        left.extend([if left.is_empty() { "" } else { "," }, &shown]);
    }
}

/// Bytes of names in a record.
const LEFT_MAX: usize = 96;

/// A name that the launcher decides about, whatever the caller said: its value, or none to leave it out.
pub type Forced<'a> = (&'a [u8], Option<Vec<u8>>);

/// The program's environment. `rename`: a path of the host's as it is called inside the jail.
///
/// # Errors
/// E01: a name of the CGI standard twice. E02: more than the policy's `entries_max` or `bytes_max`; cutting would let
/// a visitor's headers push other variables out. E03: a line break in a variable of the CGI standard.
pub fn rebuild<'a>(
    rules: &Environment<'a>,
    caller: &[&'a CStr],
    forced: &[Forced<'a>],
    rename: impl Fn(&'a [u8]) -> &'a [u8],
) -> Result<Rebuilt<'a>, Refusal> {
    let bytes: usize = caller.iter().map(|entry| entry.count_bytes()).sum();
    if caller.len() > rules.entries_max.into()
        || u32::try_from(bytes).map_or(true, |bytes| bytes > rules.bytes_max)
    {
        return Err(Refusal::new(&TOO_MUCH, format!("{} entries of {bytes} bytes together", caller.len())));
    }
    let room = caller.len().saturating_add(rules.set.len()).saturating_add(forced.len());
    let mut new = New { sieve: Sieve::new(rules.authorization, room), entries: Vec::with_capacity(room) };
    for (name, value) in &rules.set {
        new.push(name, value);
    }
    for (name, value) in forced {
        match value {
            Some(value) => new.push(name, value),
            None => new.sieve.decide(name),
        }
    }
    new.sieve.seal();
    let set = new.entries.len();
    let mut left = String::new();
    for entry in caller {
        let Some((name, value)) = split(entry.to_bytes()) else { continue };
        let listed =
            is_among(name, &rules.pass) || rules.pass_prefixes.iter().any(|prefix| has_prefix(name, prefix));
        let nature = Nature::of(name);
        if listed && new.sieve.admits(nature, name, value)? {
            match nature.path.then(|| rename(value)) {
                Some(inside) if inside != value => new.entry(name, inside),
                _ => new.entries.push(Cow::Borrowed(entry)),
            }
        } else {
            tell(&mut left, name);
        }
    }
    let kept = new.entries.len().saturating_sub(set);
    Ok(Rebuilt { entries: new.entries, dropped: caller.len().saturating_sub(kept), left })
}

/// Which of the caller's variables pass, one after another: those that are no danger, and each name once. The launcher
/// and the pool's gate ask the same one; whether a name is listed they know themselves.
#[derive(Debug)]
pub struct Sieve<'a> {
    names: Vec<&'a [u8]>,
    /// The traces that names have left: a name whose own is not there is not among them, and need not be looked for.
    traces: [bool; 256],
    fixed: usize,
    authorization: bool,
}

impl<'a> Sieve<'a> {
    /// `authorization`: a visitor's credentials pass. `room`: how many names are expected.
    #[must_use]
    pub fn new(authorization: bool, room: usize) -> Self {
        Self { names: Vec::with_capacity(room), traces: [false; 256], fixed: 0, authorization }
    }

    /// A name that is decided, whatever the caller says.
    pub fn decide(&mut self, name: &'a [u8]) {
        self.note(name, trace(name));
    }

    fn note(&mut self, name: &'a [u8], trace: u8) {
        self.names.push(name);
        if let Some(left) = self.traces.get_mut(usize::from(trace)) {
            *left = true;
        }
    }

    /// From here on the caller speaks.
    pub fn seal(&mut self) {
        self.fixed = self.names.len();
    }

    /// Does this one, of this nature, pass?
    ///
    /// # Errors
    /// E01, E03.
    pub fn admits(&mut self, nature: Nature, name: &'a [u8], value: &[u8]) -> Result<bool, Refusal> {
        let Nature { passes, secret, core, trace, .. } = nature;
        if !passes || secret && !self.authorization || !value_passes(name, value) {
            return Ok(false);
        }
        match self.place(name, trace) {
            Some(place) if core && place >= self.fixed => {
                return Err(Refusal::new(&TWICE, format!("{} stands twice", Untrusted(name))));
            }
            Some(_) => return Ok(false),
            None => {}
        }
        if core {
            on_one_line(name, value)?;
        }
        self.note(name, trace);
        Ok(true)
    }

    /// Where a name stands already.
    fn place(&self, name: &[u8], trace: u8) -> Option<usize> {
        let known = self.traces.get(usize::from(trace)).is_some_and(|left| *left);
        known.then(|| self.names.iter().position(|known| is_same(name, known)))?
    }
}

/// One of 256 for a name, by its length and its last two letters.
fn trace(name: &[u8]) -> u8 {
    let last = if let [.., one, last] = name { one.wrapping_mul(5).wrapping_add(*last) } else { 0 };
    last.wrapping_add(name.len().to_le_bytes()[0].wrapping_mul(37))
}

/// Of a variable of the CGI standard.
///
/// # Errors
/// E03.
pub fn on_one_line(name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    if has_controls(value) && value.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(Refusal::new(&LINE_BREAK, format!("{} has a line break in it", Untrusted(name))));
    }
    Ok(())
}

/// Is there a byte below 14 in it, as NUL and line breaks are? Eight at once: nearly every value has none.
#[must_use]
pub fn has_controls(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let low = |word: u64| word.wrapping_sub(u64::from_ne_bytes([14; 8])) & !word;
    let found = |word: &[u8; 8]| low(u64::from_ne_bytes(*word)) & u64::from_ne_bytes([128; 8]) != 0;
    words.iter().any(found) || rest.iter().any(|byte| *byte < 14)
}

/// What a name is by itself, whatever its value: worth keeping where the same ones come again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// It is no danger.
    passes: bool,
    /// A visitor's credentials.
    secret: bool,
    /// Of the CGI standard or its common additions: one value each.
    core: bool,
    /// One of 256, by which it is soon seen that it has not been there yet.
    trace: u8,
    /// Its value is a path of the host's.
    pub path: bool,
}

impl Nature {
    /// Of this name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // httpd writes header names in capitals; anything else did not come from a header.
        let header = !name.starts_with(b"HTTP_") || !name.iter().any(u8::is_ascii_lowercase);
        Self {
            passes: header && may_pass(name),
            secret: matches!(name, b"HTTP_AUTHORIZATION" | b"HTTP_PROXY_AUTHORIZATION"),
            core: is_core(name),
            trace: trace(name),
            path: is_path(name),
        }
    }
}

/// Does a listed beginning of names cover this one?
#[must_use]
pub fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    name.len() > prefix.len() && name.starts_with(prefix)
}

struct New<'a> {
    sieve: Sieve<'a>,
    entries: Vec<Cow<'a, CStr>>,
}

impl<'a> New<'a> {
    fn push(&mut self, name: &'a [u8], value: &[u8]) {
        self.sieve.decide(name);
        self.entry(name, value);
    }

    /// The caller's entries were C strings, and the decoder refuses a NUL in the policy's.
    fn entry(&mut self, name: &[u8], value: &[u8]) {
        // Room for all of it: to be made longer would mean to be copied.
        let mut entry = Vec::with_capacity(name.len().saturating_add(value.len()).saturating_add(2));
        for part in [name, b"=", value, b"\0"] {
            entry.extend_from_slice(part);
        }
        self.entries.extend(CString::from_vec_with_nul(entry).map(Cow::Owned));
    }
}

fn split(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = entry.iter().position(|byte| *byte == b'=')?;
    Some((entry.get(..equals)?, entry.get(equals.saturating_add(1)..)?))
}

/// `()`: old shells make functions of it (CVE-2014-6271). TZ is a path to some libraries (CVE-2014-9680).
fn value_passes(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"TZ" => {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_+-,.:<>".contains(byte);
            let path = value.starts_with(b":")
                || value.starts_with(b"/")
                || value.windows(2).any(|two| two == b"..");
            !path && value.len() <= 64 && value.iter().all(plain)
        }
        b"REDIRECT_STATUS" => value.len() == 3 && value.iter().all(u8::is_ascii_digit),
        b"PHP_FCGI_CHILDREN" | b"PHP_FCGI_MAX_REQUESTS" => {
            value.len() <= 9 && value.iter().all(u8::is_ascii_digit)
        }
        _ => !value.starts_with(b"()"),
    }
}

/// Variables of the CGI standard (RFC 3875, 4.1) and of its common additions, by which programs decide: one value each.
fn is_core(name: &[u8]) -> bool {
    matches!(
        name,
        b"AUTH_TYPE"
            | b"CONTENT_LENGTH"
            | b"CONTENT_TYPE"
            | b"CONTEXT_DOCUMENT_ROOT"
            | b"DOCUMENT_ROOT"
            | b"DOCUMENT_URI"
            | b"GATEWAY_INTERFACE"
            | b"HTTPS"
            | b"PATH_INFO"
            | b"PATH_TRANSLATED"
            | b"QUERY_STRING"
            | b"REDIRECT_STATUS"
            | b"REDIRECT_URL"
            | b"REMOTE_ADDR"
            | b"REMOTE_HOST"
            | b"REMOTE_PORT"
            | b"REMOTE_USER"
            | b"REQUEST_METHOD"
            | b"REQUEST_SCHEME"
            | b"REQUEST_URI"
            | b"SCRIPT_FILENAME"
            | b"SCRIPT_NAME"
            | b"SERVER_NAME"
            | b"SERVER_PORT"
            | b"SERVER_PROTOCOL"
            | b"SERVER_SOFTWARE"
    )
}

/// Variables that hold a path of the host's. All change together where the jail calls paths otherwise.
fn is_path(name: &[u8]) -> bool {
    matches!(
        name,
        b"CONTEXT_DOCUMENT_ROOT"
            | b"DOCUMENT_ROOT"
            | b"PATH_TRANSLATED"
            | b"REDIRECT_SCRIPT_FILENAME"
            | b"SCRIPT_FILENAME"
    )
}

static TWICE: Card = Card {
    code: "E01",
    status: 87,
    remedy: "# find what sets the variable a second time in the web server's configuration (SetEnv, PassEnv, RewriteRule)",
};
static TOO_MUCH: Card = Card {
    code: "E02",
    status: 87,
    remedy: "# raise entries_max or bytes_max in the site's [environment], then: cellwall apply",
};
static LINE_BREAK: Card = Card {
    code: "E03",
    status: 87,
    remedy: "# nothing to mend: a visitor asked for a path with a line break in it",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Environment<'static> {
        Environment {
            pass: vec![b"DOCUMENT_ROOT", b"PATH_INFO", b"QUERY_STRING", b"REDIRECT_STATUS", b"TZ"],
            pass_prefixes: vec![b"HTTP_"],
            authorization: false,
            set: vec![(b"PATH", b"/usr/bin")],
            entries_max: 8,
            bytes_max: 1000,
        }
    }

    fn filtered(caller: &[&str]) -> Result<Vec<String>, &'static str> {
        let caller: Vec<CString> = caller.iter().map(|entry| CString::new(*entry).unwrap()).collect();
        let caller: Vec<&CStr> = caller.iter().map(CString::as_c_str).collect();
        let rules = rules();
        let rebuilt = rebuild(&rules, &caller, &[], |path| path.strip_prefix(b"/jail").unwrap_or(path))
            .map_err(|refusal| refusal.card.code)?;
        Ok(rebuilt.entries.iter().map(|entry| entry.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn only_what_is_listed_passes_and_the_policy_comes_first() {
        let caller =
            ["PATH=.", "LD_PRELOAD=x", "QUERY_STRING=a=b", "HTTP_A=1", "HTTP_PROXY=x", "HTTP_b=1", "IFS=/"];
        assert_eq!(filtered(&caller).unwrap(), ["PATH=/usr/bin", "QUERY_STRING=a=b", "HTTP_A=1"]);
    }

    /// A record that was made by other means than `cellwall apply` gets no further.
    #[test]
    fn what_steers_programs_does_not_pass_even_where_a_policy_lists_it() {
        let mut rules = rules();
        rules.pass = vec![b"A", b"HTTP_PROXY", b"LD_PRELOAD", b"PHPRC", b"\xff"];
        rules.pass_prefixes = vec![b"", b"LD_", b"PERL"];
        let caller = [c"LD_PRELOAD=x", c"HTTP_PROXY=x", c"LD_AUDIT=x", c"PERL5OPT=x", c"PHPRC=x", c"A=1"];
        let rebuilt = rebuild(&rules, &caller, &[], |path| path).unwrap();
        assert_eq!(rebuilt.entries, [c"PATH=/usr/bin", c"A=1"]);
    }

    #[test]
    fn values_that_libraries_interpret_do_not_pass() {
        let caller =
            ["HTTP_C=() { :;}", "TZ=:/etc/shadow", "REDIRECT_STATUS=2 00", "QUERY_STRING", "=x", "HTTP_=y"];
        assert_eq!(filtered(&caller).unwrap(), ["PATH=/usr/bin"]);
        for zone in ["Europe/Paris", "CET-1CEST", "<+03>-3"] {
            assert_eq!(filtered(&[&format!("TZ={zone}")]).unwrap().len(), 2, "{zone}");
        }
        for zone in ["/etc/x", "../../x", ":x", "a b"] {
            assert_eq!(filtered(&[&format!("TZ={zone}")]).unwrap().len(), 1, "{zone}");
        }
        assert_eq!(filtered(&["HTTP_AUTHORIZATION=x"]).unwrap(), ["PATH=/usr/bin"]);
    }

    #[test]
    fn doubles_and_floods_are_refused_not_cut() {
        assert_eq!(filtered(&["QUERY_STRING=a", "QUERY_STRING=b"]), Err("E01"));
        assert_eq!(filtered(&["HTTP_X=1", "HTTP_X=2"]).unwrap(), ["PATH=/usr/bin", "HTTP_X=1"]);
        assert_eq!(filtered(&["A=1"; 9]), Err("E02"));
        assert_eq!(filtered(&["PATH_INFO=/a\nb"]), Err("E03"));
    }

    #[test]
    fn each_byte_below_14_is_seen_at_each_place() {
        for length in 0..20 {
            let text = vec![b' '; length];
            assert!(
                !has_controls(&text)
                    && !has_controls(&vec![0xff; length])
                    && !has_controls(&vec![14; length])
            );
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = text.clone();
                    text[place] = byte;
                    assert_eq!(has_controls(&text), byte < 14, "{byte} at {place} of {length}");
                }
            }
        }
    }

    #[test]
    fn paths_are_called_as_inside_the_jail() {
        assert_eq!(
            filtered(&["DOCUMENT_ROOT=/jail/w", "QUERY_STRING=/jail/w"]).unwrap()[1..],
            ["DOCUMENT_ROOT=/w", "QUERY_STRING=/jail/w"]
        );
    }

    #[test]
    fn what_the_launcher_knows_better_replaces_what_the_caller_says() {
        let (rules, caller) = (rules(), [c"REDIRECT_STATUS=404", c"QUERY_STRING=x"]);
        let forced: [Forced<'_>; 2] = [(b"REDIRECT_STATUS", Some(b"200".to_vec())), (b"QUERY_STRING", None)];
        let rebuilt = rebuild(&rules, &caller, &forced, |path| path).unwrap();
        assert_eq!(rebuilt.entries, [c"PATH=/usr/bin", c"REDIRECT_STATUS=200"]);
        assert_eq!(rebuilt.dropped, 2);
        assert_eq!(rebuilt.left, "REDIRECT_STATUS,QUERY_STRING");
    }

    #[test]
    fn of_what_is_left_out_so_many_names_are_told_as_a_record_has_room_for() {
        let long = format!("{}=x", "N".repeat(100));
        let mut caller = ["LD_PRELOAD=x", "A\"B=x", "QUERY_STRING=x", &long].map(str::to_owned).to_vec();
        caller.extend((0..20).map(|number| format!("NAME_{number}=x")));
        let caller: Vec<CString> = caller.into_iter().flat_map(CString::new).collect();
        let caller: Vec<&CStr> = caller.iter().map(CString::as_c_str).collect();
        let rules = Environment { entries_max: 100, bytes_max: 10_000, ..rules() };
        let rebuilt = rebuild(&rules, &caller, &[], |path| path).unwrap();
        assert!(rebuilt.left.starts_with("LD_PRELOAD,A\\x22B,NAME_0,NAME_1,"), "{}", rebuilt.left);
        assert!(rebuilt.left.len() <= 96 && rebuilt.dropped == 23, "{rebuilt:?}");
    }

    #[test]
    fn as_much_as_may_be_passes_and_not_a_byte_more() {
        assert_eq!(filtered(&["A=1"; 8]).unwrap(), ["PATH=/usr/bin"], "eight entries");
        let value = |bytes: usize| format!("QUERY_STRING={}", "x".repeat(bytes - "QUERY_STRING=".len()));
        assert_eq!(filtered(&[&value(1000)]).unwrap().len(), 2, "a thousand bytes");
        assert_eq!(filtered(&[&value(1001)]), Err("E02"));
        let zone = |bytes: usize| format!("TZ={}", "x".repeat(bytes));
        assert_eq!(filtered(&[&zone(64)]).unwrap().len(), 2);
        assert_eq!(filtered(&[&zone(65)]).unwrap().len(), 1);
    }

    #[test]
    fn numbers_that_php_believes_have_their_form() {
        for (name, value, passes) in [
            ("REDIRECT_STATUS", "200", true),
            ("REDIRECT_STATUS", "2000", false),
            ("REDIRECT_STATUS", "20", false),
            ("PHP_FCGI_CHILDREN", "999999999", true),
            ("PHP_FCGI_CHILDREN", "9999999999", false),
            ("PHP_FCGI_MAX_REQUESTS", "5x", false),
        ] {
            assert_eq!(value_passes(name.as_bytes(), value.as_bytes()), passes, "{name}={value}");
        }
    }

    #[test]
    fn a_line_ends_with_either_byte() {
        for value in ["/a\nb", "/a\rb"] {
            assert_eq!(filtered(&[&format!("PATH_INFO={value}")]), Err("E03"), "{value:?}");
        }
        assert_eq!(filtered(&["PATH_INFO=/a\tb"]).unwrap().len(), 2, "a tab ends none");
    }

    /// What the policy sets is decided, also where it lets the caller's pass.
    #[test]
    fn what_is_set_is_not_set_again_and_credentials_pass_where_they_may() {
        let mut rules = rules();
        rules.set.push((b"HTTP_A", b"ours"));
        let caller = [c"HTTP_A=theirs", c"HTTP_AUTHORIZATION=x", c"HTTP_PROXY_AUTHORIZATION=x"];
        let names = |rules: &Environment<'_>| {
            rebuild(rules, &caller, &[], |path| path)
                .unwrap()
                .entries
                .iter()
                .map(|one| one.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&rules), ["PATH=/usr/bin", "HTTP_A=ours"]);
        rules.authorization = true;
        assert_eq!(
            names(&rules),
            ["PATH=/usr/bin", "HTTP_A=ours", "HTTP_AUTHORIZATION=x", "HTTP_PROXY_AUTHORIZATION=x"]
        );
    }
}
