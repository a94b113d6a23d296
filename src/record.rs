//! The one line that says what was done or refused, and its reference.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::policy::{LogRules, Sink};
use crate::refusal::{Card, Refusal, Untrusted};

/// The way to the record: opened as root, used up to the end.
#[derive(Debug)]
pub struct Log<'a> {
    /// Which site the record is about, once that is known.
    pub site: Option<&'a [u8]>,
    reference: String,
    strict: bool,
    file: Option<File>,
    socket: Option<UnixDatagram>,
}

impl<'a> Log<'a> {
    /// Opens the sink that `rules` name; without rules, and where that fails, syslog.
    #[must_use]
    pub fn open(rules: Option<&LogRules<'_>>) -> Self {
        let file = rules.filter(|rules| rules.sink == Sink::File).and_then(|rules| open_file(rules.file));
        let socket = if file.is_none() { open_syslog() } else { None };
        Self {
            site: None,
            reference: reference(),
            strict: rules.is_none_or(|rules| rules.strict),
            file,
            socket,
        }
    }

    /// What the visitor is told, and nothing else.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// # Errors
    /// L01 when the record is lost and the policy is strict.
    pub fn launching(&mut self, what: &str) -> Result<(), Refusal> {
        if self.write("launch", what) || !self.strict {
            Ok(())
        } else {
            Err(Refusal::new(&LOST, "the record could not be written".to_owned()))
        }
    }

    /// The record of a refusal. `false`: it is lost.
    pub fn refused(&mut self, refusal: &Refusal) -> bool {
        let Refusal { card: Card { code, status, .. }, why, fix } = refusal;
        let (why, fix) = (why.replace('"', "'"), fix.replace('"', "'"));
        self.write("refuse", &format!("code={code} status={status} why=\"{why}\" fix=\"{fix}\""))
    }

    fn write(&mut self, verb: &str, what: &str) -> bool {
        let site = Untrusted(self.site.unwrap_or(b"-"));
        let (reference, pid) = (&self.reference, std::process::id());
        let line = format!("{verb} ref={reference} site={site} pid={pid} {what}");
        if let Some(file) = &mut self.file {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let line = format!("{}.{:06} {line}\n", now.as_secs(), now.subsec_micros());
            return file.write(line.as_bytes()).is_ok_and(|written| written == line.len());
        }
        // Facility authpriv (10), priority info (6): RFC 3164, 4.1.1.
        let line = format!("<86>cellwall-suexec[{pid}]: {line}");
        self.socket.as_ref().is_some_and(|socket| socket.send(line.as_bytes()).is_ok())
    }
}

/// Root. The policy names the path; only a regular file of root's with one link is written to, and nothing is waited
/// for (CVE-2016-1247, CVE-2025-23395).
fn open_file(path: &[u8]) -> Option<File> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::OsStr::from_bytes(path);
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    let file =
        OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path).ok()?;
    let facts = file.metadata().ok()?;
    (facts.is_file() && facts.uid() == 0 && facts.nlink() == 1).then_some(file)
}

fn open_syslog() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect("/dev/log").ok()?;
    Some(socket)
}

/// `XXXX-XXXX` of Crockford's base 32: 40 random bits.
fn reference() -> String {
    let mut bytes = [0_u8; 8];
    let random =
        File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    if random.is_err() {
        bytes = [b'?'; 8];
    }
    let mut text: String = bytes
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)))
        .copied()
        .map(char::from)
        .collect();
    text.insert(4, '-');
    text
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static LOST: Card = Card {
    code: "L01",
    status: 1,
    remedy: "make room for the log, or set strict = false under [log] and run: cellwall apply",
};
