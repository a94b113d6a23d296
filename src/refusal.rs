//! Why a stage said no: a stable code, suEXEC's exit status where it has one, the evidence, and a remedy.

use std::fmt::Write as _;

use nix::errno::Errno;

/// What stays the same for every refusal of one kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Card {
    /// Letter of the stage and number: suEXEC's number where it has one.
    pub code: &'static str,
    /// Exit status.
    pub status: u8,
    /// What to do; `{}` stands for the path that the evidence names.
    pub remedy: &'static str,
}

/// One no. Nothing was run.
#[derive(Debug)]
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
        Self {
            card,
            why: format!("{}: {why}", Untrusted(path)),
            fix: card.remedy.replace("{}", &quoted(path)),
        }
    }

    /// A system call that failed.
    #[must_use]
    pub fn call(card: &'static Card, call: &str, errno: Errno) -> Self {
        Self::new(card, format!("{call}: {}", errno.desc()))
    }
}

/// A path as a shell takes it for one word. A name with bytes that do not print cannot be pasted, and is shown only.
#[must_use]
pub fn quoted(path: &[u8]) -> String {
    let text = Untrusted(path).to_string();
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte)) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Foreign text in its coat: printable ASCII, all else as `\xNN`, at most 255 bytes of the original.
pub struct Untrusted<'a>(pub &'a [u8]);

impl std::fmt::Display for Untrusted<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0.iter().take(255) {
            match byte {
                b'"' | b'\\' => write!(out, "\\x{byte:02x}")?,
                0x20..=0x7e => out.write_char(char::from(*byte))?,
                _ => write!(out, "\\x{byte:02x}")?,
            }
        }
        if self.0.len() > 255 { out.write_str("[cut]") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        assert_eq!(quoted(b"/srv/a.cgi"), "/srv/a.cgi");
        assert_eq!(quoted(b"/srv/it's $(x).cgi"), "'/srv/it'\\''s $(x).cgi'");
    }

    #[test]
    fn foreign_text_cannot_forge_a_line_or_steer_a_terminal() {
        assert_eq!(Untrusted(b"a\n\x1b[0m\"\xff").to_string(), "a\\x0a\\x1b[0m\\x22\\xff");
        assert!(Untrusted(&[b'a'; 300]).to_string().ends_with("a[cut]"));
    }
}
