//! Why a stage said no: a stable code, suEXEC's exit status where it has one, the evidence, and a remedy.

use nix::errno::Errno;

/// What stays the same for every refusal of one kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Card {
    /// Letter of the stage and number: suEXEC's number where it has one.
    pub code: &'static str,
    /// Exit status.
    pub status: u8,
    /// What to do; `{}` stands for the path that the evidence names, as one word of a shell. What is a command can be
    /// pasted whole: prose after it stands behind a `#`. No double quotes around words: the record has its own.
    pub remedy: &'static str,
}

/// One no. Nothing was run.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its kind.
    pub card: &'static Card,
    /// What was seen. Foreign bytes in it are escaped already.
    pub why: String,
    /// The remedy with the path put in.
    pub fix: String,
}

impl Refusal {
    /// A refusal about no particular path.
    #[must_use]
    pub fn new(card: &'static Card, why: String) -> Self {
        Self { card, why, fix: card.remedy.to_owned() }
    }

    /// A refusal about `path`.
    #[must_use]
    pub fn about(card: &'static Card, path: &[u8], why: &str) -> Self {
        let fix = card.remedy.replace("{}", &Pasted(path).to_string());
        // What ends the path stands nowhere in it.
        let shown = Untrusted(path).to_string().replace(": ", "\\x3a ");
        Self { card, why: format!("{shown}: {why}"), fix }
    }

    /// A system call that failed.
    #[must_use]
    pub fn call(card: &'static Card, call: &str, errno: Errno) -> Self {
        Self::new(card, format!("{call}: {}", errno.desc()))
    }
}

/// Foreign text in its coat: printable ASCII, all else as `\xNN`; a longer one is cut.
pub struct Untrusted<'a>(pub &'a [u8]);

impl Untrusted<'_> {
    /// Bytes that are shown at most.
    pub const MAX: usize = 255;
}

impl std::fmt::Display for Untrusted<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        let shown = self.0.get(..Self::MAX).unwrap_or(self.0);
        // Plain ones together, each other one alone.
        for part in shown.chunk_by(|one, next| plain(one) && plain(next)) {
            match (part, std::str::from_utf8(part)) {
                ([byte], _) if !plain(byte) => write!(out, "\\x{byte:02x}")?,
                (_, text) => out.write_str(text.unwrap_or_default())?,
            }
        }
        if self.0.len() > Self::MAX { out.write_str("[cut]") } else { Ok(()) }
    }
}

/// Foreign text as one word of a shell, whatever a site's owner named it: root pastes it. Where a record cannot hold a byte
/// the word is `$'\xNN'`, as bash, zsh and POSIX of 2024 have it; to another shell it names no file, and does nothing.
pub struct Pasted<'a>(pub &'a [u8]);

impl std::fmt::Display for Pasted<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+=,@%:".contains(byte);
        let text = Untrusted(self.0).to_string();
        if !text.is_empty() && text.bytes().all(|byte| plain(&byte)) {
            return out.write_str(&text);
        }
        if text.contains('\\') {
            return write!(out, "$'{}'", text.replace('\'', "\\x27"));
        }
        write!(out, "'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_one_word_of_a_shell() {
        for (name, word) in [
            (&b"/srv/a-b/c_d.cgi"[..], "/srv/a-b/c_d.cgi"),
            (b"/srv/a b", "'/srv/a b'"),
            (b"/srv/$(reboot)", "'/srv/$(reboot)'"),
            (b"/srv/'; reboot; '", "'/srv/'\\''; reboot; '\\'''"),
            (b"/srv/\n\"", "$'/srv/\\x0a\\x22'"),
            (b"/srv/\xc3\xbc'\\", "$'/srv/\\xc3\\xbc\\x27\\x5c'"),
            (b"", "''"),
        ] {
            assert_eq!(Pasted(name).to_string(), word);
        }
    }

    #[test]
    fn foreign_text_cannot_forge_a_line_or_steer_a_terminal() {
        assert_eq!(Untrusted(b"a\n\x1b[0m\"\xff").to_string(), "a\\x0a\\x1b[0m\\x22\\xff");
        assert!(Untrusted(&[b'a'; 300]).to_string().ends_with("a[cut]"));
    }
}
