//! The one line that says what was done or refused, its reference, and its way out.
//!
//! A line is written with a single append or datagram, and nothing is waited for longer than 50 ms. The first choice
//! failing, the other is tried; both failing, descriptor 2 says so, and a strict policy runs nothing.

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, FallocateFlags, OFlag, fallocate, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statvfs::fstatvfs;

use crate::launch::exec::Sealed;
use crate::policy::{Format, LogRules, Resource, Sink, Site};
use crate::refusal::{Card, Refusal, Untrusted};
use crate::sys::clock;

/// The way to the record: opened as root, used up to the end.
#[derive(Debug)]
pub struct Log<'a> {
    site: Option<&'a Site<'a>>,
    /// The caller and the words; put into a text only for a refusal.
    asked: Option<(u32, Vec<Vec<u8>>)>,
    reference: String,
    strict: bool,
    format: Format,
    file: Option<File>,
    /// Of the file, when it was opened; bytes.
    length: u64,
    socket: Option<UnixDatagram>,
}

impl<'a> Log<'a> {
    /// Opens the sink that `rules` name, and the other one where that fails; without rules, syslog. A file that cannot be
    /// written after all is replaced by syslog then.
    #[must_use]
    pub fn open(rules: Option<&LogRules<'_>>) -> Self {
        let (mut file, mut socket) = (None, None);
        match rules {
            Some(rules) if rules.sink == Sink::File => {
                file = open_file(rules.file);
                if file.is_none() {
                    socket = open_syslog();
                }
            }
            Some(rules) => {
                socket = open_syslog();
                if socket.is_none() {
                    file = open_file(rules.file);
                }
            }
            None => socket = open_syslog(),
        }
        let strict = rules.is_none_or(|rules| rules.strict);
        let format = rules.map_or(Format::Keys, |rules| rules.format);
        if format == Format::Suexec {
            // The C library keeps the host's zone from here on; inside a cell there may be another one, or none.
            let _ = clock::local(0);
        }
        let (file, length) = file.unzip();
        let (reference, length) = (reference(), length.unwrap_or(0));
        Self { site: None, asked: None, reference, strict, format, file, length, socket }
    }

    /// The next launch by the same process has a reference of its own.
    #[cfg(feature = "pool")]
    pub fn renew(&mut self) {
        self.reference = reference();
        self.asked = None;
    }

    /// What was asked for, in the caller's words, and by whom.
    pub fn asked(&mut self, caller: u32, words: &[&std::ffi::OsStr]) {
        self.asked = Some((caller, words.iter().take(3).map(|word| word.as_bytes().to_vec()).collect()));
    }

    fn asked_text(&self) -> String {
        let Some((caller, words)) = &self.asked else { return String::new() };
        let word = |place: usize| Untrusted(words.get(place).map_or(b"", Vec::as_slice)).to_string();
        let (user, group, command) = (word(0), word(1), word(2));
        match self.format {
            Format::Keys => {
                format!(" caller={caller} asked=\"{}\"", within(&format!("{user} {group} {command}"), 300))
            }
            Format::Suexec => {
                format!("uid: ({}) gid: ({}) cmd: {command}", within(&user, 64), within(&group, 64))
            }
        }
    }

    /// Which site it is about. Its limit of file sizes is in force when its program cannot be started: a file that is larger
    /// takes no record then, and the way to syslog, which is none any more inside, is opened now.
    pub fn about(&mut self, site: &'a Site<'a>) {
        self.site = Some(site);
        let limit = site.limits.resources.iter().find(|limit| limit.number == Resource::FILE_SIZE);
        let room = limit.map_or(u64::MAX, |limit| limit.value.saturating_sub(ROOM));
        if self.socket.is_none() && self.length > room {
            self.socket = open_syslog();
        }
    }

    /// What the visitor is told, and nothing else.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The record of a launch.
    ///
    /// # Errors
    /// L01 when it is lost and the policy is strict.
    pub fn launching(&mut self, sealed: &Sealed<'_>) -> Result<(), Refusal> {
        let what = sealed.describe();
        let line = match self.format {
            Format::Keys => format!(
                "launch ref={} site={} pid={} {what}",
                self.reference,
                self.site_name(),
                std::process::id()
            ),
            Format::Suexec => {
                let (uid, gid, command) = what.suexec();
                let group = Untrusted(self.site.map_or(&b""[..], |site| site.identity.group)).to_string();
                format!("uid: ({uid}/{}) gid: ({gid}/{group}) cmd: {}", self.site_name(), Untrusted(command))
            }
        };
        if self.write(&line) || !self.strict {
            Ok(())
        } else {
            Err(Refusal::new(&LOST, "the record could not be written".to_owned()))
        }
    }

    /// The record of a refusal. `false`: it is lost.
    pub fn refused(&mut self, refusal: &Refusal) -> bool {
        let Refusal { card: Card { code, status, .. }, why, fix } = refusal;
        match self.format {
            Format::Keys => {
                let (reference, site, pid) = (&self.reference, self.site_name(), std::process::id());
                let head = format!(
                    "refuse ref={reference} code={code} status={status} site={site} pid={pid}{} why=\"",
                    self.asked_text()
                );
                let (why, mut fix) = (why.replace('"', "'"), fix.replace('"', "'"));
                let room = |fix: &str| LINE_MAX.saturating_sub(head.len() + "\" fix=\"\"".len() + fix.len());
                if room(&fix) < WHY_LEAST.min(why.len()) {
                    // Whole or not at all: half of a remedy names another file.
                    fix = format!("cellwall explain {code}");
                }
                let why = within(&why, room(&fix));
                self.write(&format!("{head}{why}\" fix=\"{fix}\""))
            }
            Format::Suexec => {
                let end = format!(" (reference {}, {code})", self.reference);
                let line = format!("{}{end}", within(why, LINE_MAX.saturating_sub(end.len())));
                let asked = self.asked_text();
                (asked.is_empty() || self.write(&asked)) && self.write(&line)
            }
        }
    }

    /// A line of the pool's daemon. `false`: it is lost.
    pub fn note(&mut self, line: &str) -> bool {
        self.write(line)
    }

    /// Where lines go: the file, or the system log's socket.
    #[must_use]
    pub fn sink(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd).or_else(|| self.socket.as_ref().map(AsFd::as_fd))
    }

    fn site_name(&self) -> String {
        within(&Untrusted(self.site.map_or(&b"-"[..], |site| site.name)).to_string(), 128)
    }

    fn write(&mut self, line: &str) -> bool {
        let line = cut(line);
        if let Some(file) = &mut self.file {
            // What another one is writing at this moment is whole a moment later.
            let torn = is_torn(file) && {
                std::thread::sleep(MOMENT);
                is_torn(file)
            };
            let begin = if torn { "\n" } else { "" };
            let line = format!("{begin}{} {line}\n", stamp(self.format));
            if append(file, line.as_bytes()) {
                return true;
            }
        }
        if self.socket.is_none() {
            self.socket = open_syslog();
        }
        self.socket.as_ref().is_some_and(|socket| send(socket, line))
    }
}

/// It ends in the middle of a line, whosever: a disk that was full took a part, or a site's owner lowered the limit of file
/// sizes of a launch of his (prlimit(2) asks for no more than the uid). What is written behind that would be nobody's record.
fn is_torn(file: &File) -> bool {
    let end = file.metadata().map_or(0, |facts| facts.len());
    let mut last = *b"\n";
    end.checked_sub(1).is_some_and(|place| file.read_at(&mut last, place).is_ok()) && last != *b"\n"
}

/// `true`: the whole line. A disk that is just full takes a part.
fn append(file: &mut File, mut line: &[u8]) -> bool {
    while let Ok(written @ 1..) = file.write(line) {
        line = line.get(written..).unwrap_or_default();
        if line.is_empty() {
            return true;
        }
    }
    false
}

/// A daemon that does not read for 50 ms does not get it.
fn send(socket: &UnixDatagram, line: &str) -> bool {
    let line = datagram("cellwall-suexec", line);
    for _ in 0..5 {
        match socket.send(line.as_bytes()) {
            Ok(_) => return true,
            Err(why) if why.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return false,
        }
    }
    false
}

/// A datagram of RFC 3164, 4.1: facility authpriv (10), priority info (6).
pub(crate) fn datagram(program: &str, line: &str) -> String {
    let (seconds, _) = clock::now();
    let clock::Calendar { month, day, time: (hour, minute, second), .. } = clock::utc(seconds);
    let month = MONTHS.split(' ').nth(usize::try_from(month).unwrap_or(1)).unwrap_or("Jan");
    let pid = std::process::id();
    format!("<86>{month} {day:>2} {hour:02}:{minute:02}:{second:02} {program}[{pid}]: {line}")
}

/// The time in front of a line of a file.
pub(crate) fn stamp(format: Format) -> impl Display {
    let (seconds, micros) = clock::now();
    match format {
        Format::Keys => {
            let clock::Calendar { year, month, day, time: (hour, minute, second) } = clock::utc(seconds);
            // RFC 3339.
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
        }
        Format::Suexec => {
            let clock::Calendar { year, month, day, time: (hour, minute, second) } = clock::local(seconds);
            format!("[{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}]:")
        }
    }
}

/// Text of a field, so short that all fields of a record have room: a quote that is cut off would open the line for what
/// the caller or a site's owner named. All text is ASCII: foreign bytes wear their coat.
pub(crate) fn within(text: &str, most: usize) -> String {
    match text.get(..most.saturating_sub(CUT.len())) {
        Some(start) if text.len() > most => [start, CUT].concat(),
        _ => text.to_owned(),
    }
}

/// A record is at most 1 KiB, so that it is one datagram and one untorn append.
fn cut(line: &str) -> &str {
    // All text is ASCII: foreign bytes wear their coat.
    line.get(..LINE_MAX).unwrap_or(line)
}

/// Root. The policy names the path; only a regular file of root's with one link is written to, and nothing is waited
/// for (CVE-2016-1247, CVE-2025-23395).
fn open_file(path: &[u8]) -> Option<(File, u64)> {
    let lasting = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC;
    let careful = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(openat(AT_FDCWD, path, lasting | careful, Mode::from_bits_truncate(0o640)).ok()?);
    let facts = fstat(&file).ok()?;
    let good = facts.st_mode & libc::S_IFMT == libc::S_IFREG && facts.st_uid == 0 && facts.st_nlink == 1;
    good.then(|| make_room(&file, &facts))?;
    Some((file, facts.st_size.try_into().ok()?))
}

/// Root. The record is written by the site's own user, and what a file system keeps for root is not for him: a site that fills
/// the disk of the log would stop all others. So root takes room behind the log's end before: plenty of it; but of what is kept
/// for root little, for programs that say much write there as well. Where none can be had, the write will tell.
pub(crate) fn make_room(log: impl AsFd + Copy, facts: &FileStat) {
    let end = facts.st_size;
    let room = facts.st_blocks.saturating_mul(BLOCK).saturating_sub(end);
    if room < AHEAD / 2 {
        let is_full = fstatvfs(log).is_ok_and(|disk| disk.blocks_available() == 0);
        let ahead = if is_full { SOME } else { AHEAD };
        if room < ahead / 2 {
            let _ = fallocate(log, FallocateFlags::FALLOC_FL_KEEP_SIZE, end, ahead);
        }
    }
}

fn open_syslog() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect("/dev/log").ok()?;
    Some(socket)
}

/// `XXXX-XXXX` of Crockford's base 32: 40 bits, random, or of time and process where the kernel has no random ones yet.
pub(crate) fn reference() -> String {
    let mut bytes = [0_u8; 8];
    if !clock::random(&mut bytes) {
        let (seconds, micros) = clock::now();
        let number = (seconds << 20 | u64::from(micros)) ^ u64::from(std::process::id()) << 24;
        bytes = std::array::from_fn(|place| {
            number.to_le_bytes().get(place % 5).map_or(0, |byte| byte >> (place / 5))
        });
    }
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte & 31)).copied().map_or('0', char::from);
    let mut reference: String = bytes.iter().map(letter).collect();
    reference.insert(4, '-');
    reference
}

/// Longer than a line takes.
const MOMENT: Duration = Duration::from_millis(1);
/// Bytes that others may append to the log while this launch goes on.
const ROOM: u64 = 1 << 20;
/// Bytes behind the end of the log that are taken at once: some thousand records; and some, where the disk is full.
const AHEAD: i64 = 4 << 20;
const SOME: i64 = 8 << 10;
/// The unit of a file's blocks (stat(3type)).
const BLOCK: i64 = 512;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// By number, from 1.
const MONTHS: &str = " Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
const LINE_MAX: usize = 1024;
/// What stands where text was cut, and how much evidence a remedy must leave room for.
const CUT: &str = "[cut]";
const WHY_LEAST: usize = 200;

static LOST: Card = Card {
    code: "L01",
    status: 1,
    remedy: "df -h /var/log # make room for the log; or set strict = false under [log] in /etc/cellwall/cellwall.toml, then: cellwall apply",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_counted_from_one() {
        let months: Vec<&str> = MONTHS.split(' ').collect();
        assert_eq!((months.len(), months[1], months[12]), (13, "Jan", "Dec"));
    }

    #[test]
    fn references_are_short_and_differ() {
        let (one, other) = (reference(), reference());
        assert_eq!((one.len(), one.as_bytes()[4]), (9, b'-'));
        assert_ne!(one, other);
    }
}
