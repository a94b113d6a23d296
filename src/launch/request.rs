//! One wish to run one program, from suEXEC's command line: `uid gid command args…`. Pure.
//!
//! Refuses with R101–R106. Numbers only: a name would need the name service.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::refusal::{Card, Refusal, Untrusted};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The user was given as `~uid`: a request below a home directory.
    pub(super) userdir: bool,
    /// Whom to become.
    pub(super) uid: u32,
    /// With which primary group.
    pub(super) gid: u32,
    /// The program's file name in the working directory.
    pub(super) command: &'a [u8],
    /// Its arguments.
    pub(super) arguments: Vec<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Reads the words after the launcher's own name.
    ///
    /// # Errors
    /// R101 too few, R104 no plain file name, R105 no uid, R106 no gid.
    pub fn parse(words: &[&'a OsStr]) -> Result<Self, Refusal> {
        let [user, group, command, arguments @ ..] = words else {
            return Err(Refusal::new(&TOO_FEW, format!("{} arguments, at least 3 are needed", words.len())));
        };
        let (user, group, command) = (user.as_bytes(), group.as_bytes(), command.as_bytes());
        if !is_file_name(command) {
            let why = format!("the command \"{}\" is no plain file name", Untrusted(command));
            return Err(Refusal::new(&COMMAND, why));
        }
        let plain = user.strip_prefix(b"~");
        Ok(Self {
            userdir: plain.is_some(),
            uid: number(plain.unwrap_or(user)).ok_or_else(|| bad(&USER, "user", user))?,
            gid: number(group).ok_or_else(|| bad(&GROUP, "group", group))?,
            command,
            arguments: arguments.iter().map(|word| word.as_bytes()).collect(),
        })
    }

    /// Whom to become.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

fn bad(card: &'static Card, what: &str, text: &[u8]) -> Refusal {
    Refusal::new(card, format!("the {what} \"{}\" is no number", Untrusted(text)))
}

/// A name of one component, without control bytes. httpd never sends a slash.
fn is_file_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= 255
        && !name.iter().any(|byte| *byte == b'/' || byte.is_ascii_control())
}

/// Strict decimal: no sign, no blank, no leading zero, below 2^32 - 1 (CVE-2019-14287: `-1` is a uid to the kernel).
fn number(text: &[u8]) -> Option<u32> {
    let whole = matches!(text, [b'1'..=b'9', ..] | b"0") && text.iter().all(u8::is_ascii_digit);
    let number: u32 = std::str::from_utf8(text).ok().filter(|_| whole)?.parse().ok()?;
    (number != u32::MAX).then_some(number)
}

static TOO_FEW: Card = Card {
    code: "R101",
    status: 101,
    remedy: "# call it as Apache does: cellwall-suexec UID GID COMMAND [ARGUMENT...]",
};
static COMMAND: Card =
    Card { code: "R104", status: 104, remedy: "# change to the program's directory and name the file alone" };
static USER: Card = Card { code: "R105", status: 105, remedy: "# give the user as a number: id -u USER" };
static GROUP: Card = Card { code: "R106", status: 106, remedy: "# give the group as a number: id -g USER" };

#[cfg(test)]
mod tests {
    use super::*;

    fn code(words: &[&[u8]]) -> &'static str {
        let words: Vec<&OsStr> = words.iter().map(|word| OsStr::from_bytes(word)).collect();
        Request::parse(&words).map_or_else(|refusal| refusal.card.code, |_| "ok")
    }

    #[test]
    fn only_the_plain_form_is_a_request() {
        assert_eq!(code(&[b"1001", b"1001", b"a.cgi"]), "ok");
        assert_eq!(code(&[b"~1001", b"1001", b"a.cgi", b"x"]), "ok");
        assert_eq!(code(&[b"1001", b"1001"]), "R101");
        for command in [&b"sub/a"[..], b"", b".", b"..", b"/abs", b"a\nb"] {
            assert_eq!(code(&[b"1001", b"1001", command]), "R104");
        }
        for user in [&b""[..], b"-1", b"+1", b"4294967295", b"4294968297", b"01", b" 1", b"shop", b"~"] {
            assert_eq!(code(&[user, b"1001", b"a"]), "R105");
            assert_eq!(code(&[b"1001", user, b"a"]), "R106");
        }
    }

    #[test]
    fn each_word_has_its_place() {
        let words = [&b"~1001"[..], b"1002", b"a.cgi", b"x", b"-y"].map(OsStr::from_bytes);
        let request = Request::parse(&words).unwrap();
        assert!(request.userdir);
        assert_eq!((request.uid(), request.gid, request.command), (1001, 1002, &b"a.cgi"[..]));
        assert_eq!(request.arguments, [&b"x"[..], b"-y"]);
        let words = [&b"0"[..], b"1002", b"a.cgi"].map(OsStr::from_bytes);
        let request = Request::parse(&words).unwrap();
        assert!(!request.userdir && request.arguments.is_empty());
        assert_eq!(request.uid(), 0, "whether root may be asked for is the policy's");
    }

    #[test]
    fn a_name_is_as_long_as_a_files_may_be() {
        assert_eq!(code(&[b"1001", b"1001", &[b'a'; 255]]), "ok");
        assert_eq!(code(&[b"1001", b"1001", &[b'a'; 256]]), "R104");
        assert_eq!(code(&[b"10x1", b"1001", b"a"]), "R105");
        assert_eq!(code(&[b"4294967294", b"1001", b"a"]), "ok");
    }
}
