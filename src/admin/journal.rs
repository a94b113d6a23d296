//! Records, read back: from the log file, from what rotations made of older ones, and from the system's log.
//!
//! From the end, line by line, and as far as needed: a year of a large host does not fit into the memory.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::Cursor;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::store;
use crate::policy::{HOST_FILE, Sink, decode};

use super::backwards::Backwards;
use super::{codes, rotated};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, as the line says.
    pub time: String,
    /// It is a refusal.
    pub refused: bool,
    fields: BTreeMap<String, String>,
}

impl Entry {
    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// A refusal that stands in no log.
    #[must_use]
    pub fn refusal<const N: usize>(fields: [(&str, &str); N]) -> Self {
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { time: String::new(), refused: true, fields }
    }

    /// Is this line its own? Reading a line costs more than looking for a text in it.
    fn is(&self, line: &str) -> bool {
        let reference = self.field("ref").unwrap_or_default();
        line.contains(&format!(" ref={reference} "))
            && Self::parse(line).is_some_and(|other| other.field("ref") == Some(reference))
    }

    /// Reads a line. None: it is no record.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (time, text) = told(line)?;
        let refused = text.starts_with("refuse ref=");
        if !refused && !text.starts_with("launch ref=") {
            return Self::of_suexec(time, text);
        }
        let mut fields = BTreeMap::new();
        let mut rest = text.split_once(' ')?.1;
        while let Some((name, more)) = rest.split_once('=') {
            let (value, left) = match more.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => more.split_once(' ').unwrap_or((more, "")),
            };
            // What the launcher itself says comes before what others named.
            fields.entry(name.trim().to_owned()).or_insert_with(|| value.to_owned());
            rest = left.trim_start();
        }
        Some(Self { time: time.to_owned(), refused, fields })
    }

    /// A refusal in suEXEC's form of the log, which has no more: `WHY (reference REF, CODE)`. A site's owner names commands,
    /// and a pool's program says what it likes: their lines begin otherwise.
    fn of_suexec(time: &str, text: &str) -> Option<Self> {
        let (why, end) = text.strip_suffix(')')?.rsplit_once(" (reference ")?;
        let (reference, code) = end.split_once(", ")?;
        let others = ["uid: (", "launch ", "refuse ", "pool ", "slow ", "stderr "];
        if others.iter().any(|other| why.starts_with(other)) || !is_reference(reference) {
            return None;
        }
        codes::section(code)?;
        let fields = [("ref", reference), ("code", code), ("why", why)];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Some(Self { time: time.to_owned(), refused: true, fields })
    }
}

/// `XXXX-XXXX`.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let part = |part: &str| part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.split_once('-').is_some_and(|(one, other)| part(one) && part(other))
}

/// The path behind a record's word for it, in which `\xNN` stands for a byte that no record holds. None: it is cut.
#[must_use]
pub fn path(shown: &str) -> Option<PathBuf> {
    let mut parts = shown.split("\\x");
    let mut bytes = parts.next().filter(|_| !shown.ends_with("[cut]"))?.as_bytes().to_vec();
    for part in parts {
        let (number, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(number, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(OsString::from_vec(bytes).into())
}

/// Pure: the head of a line, with its time, and what the launcher or the daemon wrote behind it.
///
/// Behind the head of our own file (`2026-01-02T03:04:05.000006Z`) or of the system's log (`Jan  2 03:04:05 host
/// cellwall-suexec[7]:`, or with the other kind of time) the text begins at once, with a word of ours. A site's programs
/// write into the same log (`stderr site=shop worker=1 line="…"`), and visitors name paths there: what looks like a head
/// or a record further behind is theirs.
///
/// A line with any other byte than those of plain text is not ours: whoever else got it into the log would steer the terminal of
/// whoever asks.
fn told(line: &str) -> Option<(&str, &str)> {
    let line = Some(line).filter(|line| line.bytes().all(|byte| matches!(byte, b' '..=b'~')))?;
    let (time, text) = line.split_at_checked(stamp(line)?)?;
    let text = text.strip_prefix(' ')?;
    if time.starts_with('[') {
        return Some((time, text));
    }
    let mut rest = text;
    // The host's name; busybox puts the facility behind it.
    for _ in 0..3 {
        let Some((word, more)) = rest.split_once(' ') else { break };
        if is_ours(word) {
            let head = line.get(..line.len().saturating_sub(rest.len()))?;
            return Some((head.trim_end(), more));
        }
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
        if !plain || word.ends_with(':') {
            break;
        }
        rest = more;
    }
    // The other kind of time never stands in a file of ours.
    time.starts_with(|first: char| first.is_ascii_digit()).then_some((time, text))
}

/// How long the time is with which a line begins.
fn stamp(line: &str) -> Option<usize> {
    let begins = |form: &str| {
        let fits = |(byte, wanted): (u8, u8)| match wanted {
            b'0' => byte.is_ascii_digit() || byte == b' ',
            b'A' => byte.is_ascii_alphabetic(),
            other => byte == other,
        };
        line.len() > form.len() && line.bytes().zip(form.bytes()).all(fits)
    };
    // suEXEC's own form, the system's, and RFC 3339 with as many digits as its writer likes.
    let known = ["[0000-00-00 00:00:00]:", "AAA 00 00:00:00"].into_iter().find(|form| begins(form));
    known.map(str::len).or_else(|| line.find(' ').filter(|_| begins("0000-00-00T00:00:00")))
}

/// `cellwall-suexec[7]:`, the word with which the system's log names who wrote a line.
fn is_ours(word: &str) -> bool {
    let pid = word.strip_suffix("]:").and_then(|word| word.split_once('['));
    pid.is_some_and(|(name, pid)| {
        ["cellwall-suexec", "cellwalld"].contains(&name) && pid.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// What a search from the end of the log came by.
#[derive(Debug, Default)]
pub struct Last {
    /// What was looked for.
    pub entry: Option<Entry>,
    /// Behind it, the youngest refusal that names no site.
    pub nameless: Option<Entry>,
    /// Behind it, the youngest refusal of the site that was asked about.
    pub later: Option<Entry>,
    /// Behind it, what programs wrote to their error output: time, site, words; the last lines.
    pub said: Vec<(String, String, String)>,
}

impl Last {
    /// A launcher that refuses says so to the program's error output as well, with the reference of its record: those are no words of
    /// the site's programs. False: this is not the record of any.
    fn explained_by(&mut self, entry: &Entry) -> bool {
        let before = self.said.len();
        if entry.refused {
            let reference = entry.field("ref");
            // Which site it was stands in no record of suEXEC's form.
            let its = |name: &str| entry.field("site").is_none_or(|site| site == name);
            self.said.retain(|(_, name, words)| {
                !its(name) || reference.is_none() || refusal_in(words) != reference
            });
        }
        self.said.len() < before
    }
}

/// How a launcher's own words begin.
pub const LAUNCHERS: &str = "cellwall: refused, reference ";

/// So many lines more are kept as may be the launcher's: its records stand further up.
const LAUNCHERS_MOST: usize = 100;

/// The reference in a launcher's own words.
fn refusal_in(words: &str) -> Option<&str> {
    words.strip_prefix(LAUNCHERS)?.get(..9)
}

/// Where records are, and what was found there.
#[derive(Debug)]
pub struct Journal {
    /// The places that were looked at, for the message that nothing was found.
    pub places: Vec<String>,
    /// The oldest first.
    sources: Vec<Source>,
    system_read: bool,
}

/// Something with lines.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    /// One that a rotation packed, and what unpacks it.
    Packed(PathBuf, &'static str),
    /// What a program said.
    Text(Vec<u8>),
}

impl Source {
    fn lines(&self) -> Box<dyn Iterator<Item = String> + '_> {
        match self {
            Self::File(path) => Box::new(File::open(path).and_then(Backwards::new).into_iter().flatten()),
            Self::Packed(path, by) => {
                Box::new(rotated::unpacked(path, by).and_then(Backwards::new).into_iter().flatten())
            }
            Self::Text(bytes) => Box::new(Backwards::new(Cursor::new(bytes)).into_iter().flatten()),
        }
    }
}

impl Journal {
    /// Every place where records may be.
    #[must_use]
    pub fn open() -> Self {
        let mut journal = Self { places: Vec::new(), sources: Vec::new(), system_read: false };
        let bytes = store::read(HOST_FILE).unwrap_or_default();
        let rules = decode::host(&bytes).ok().map(|host| (host.log.sink, text(host.log.file)));
        let file = rules
            .as_ref()
            .map_or_else(|| "/var/log/cellwall/cellwall.log".to_owned(), |rules| rules.1.clone());
        for path in rotated::with_older(Path::new(&file)) {
            journal.file(&path);
        }
        // Also the fallback of a log file that could not be written.
        let system = journal.sources.is_empty() || rules.is_some_and(|(sink, _)| sink == Sink::Syslog);
        if system {
            journal.system();
        }
        journal
    }

    /// Reads the system's log as well, where a launcher that cannot reach its file writes. False: it was read already.
    pub fn also_system(&mut self) -> bool {
        let before = self.places.len();
        if !self.system_read {
            self.system();
        }
        self.places.len() > before
    }

    /// All lines, the youngest first.
    fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.sources.iter().rev().flat_map(Source::lines)
    }

    /// Every record, the youngest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.lines().filter_map(|line| Entry::parse(&line))
    }

    /// The record with this reference.
    #[must_use]
    pub fn entry(&self, reference: &str) -> Option<Entry> {
        let mut lines = self.lines().filter(|line| line.contains(reference));
        lines.find_map(|line| Entry::parse(&line).filter(|entry| entry.field("ref") == Some(reference)))
    }

    /// The youngest record that is `wanted`, of one site or (``) of all, and what stands in the log behind it.
    pub fn last(&self, site: &str, most: usize, wanted: impl Fn(&Entry) -> bool) -> Last {
        let (mut last, room) = (Last::default(), most.saturating_add(LAUNCHERS_MOST));
        for line in self.lines() {
            if let Some((name, words)) = stderr(&line) {
                if last.said.len() < room && (site.is_empty() || name == site) {
                    let time = told(&line).map_or("", |(time, _)| time);
                    last.said.push((time.to_owned(), name.to_owned(), words.to_owned()));
                }
            } else if let Some(entry) = Entry::parse(&line) {
                let its = last.explained_by(&entry) || entry.field("site").is_some_and(|name| name == site);
                if wanted(&entry) {
                    last.entry = Some(entry);
                    break;
                }
                if entry.refused && its && !site.is_empty() && last.later.is_none() {
                    last.later = Some(entry);
                    continue;
                }
                let nameless = entry.refused && entry.field("site") == Some("-");
                if nameless && last.nameless.is_none() {
                    last.nameless = Some(entry);
                }
            }
        }
        last.said.truncate(most);
        last.said.reverse();
        last
    }

    /// Records before this one, the youngest first.
    pub fn before<'j>(&'j self, entry: &'j Entry) -> impl Iterator<Item = Entry> + 'j {
        let older = self.lines().skip_while(|line| !entry.is(line)).skip(1);
        older.filter_map(|line| Entry::parse(&line))
    }

    /// The kernel ended a worker of its site for want of memory at that time. The broker tells of the request and the supervisor of
    /// the worker: one launch of the next worker may stand between.
    #[must_use]
    pub fn lacked_memory(&self, entry: &Entry) -> bool {
        let site = entry.field("site").unwrap_or_default();
        let end = format!("pool end site={site} ");
        let lacked = |line: &str| {
            told(line).is_some_and(|(_, text)| text.starts_with(&end) && text.contains(" how=outofmemory "))
        };
        // True: such an end; false: a launch; none: another refusal. Two on either side, the nearest first.
        let (mut before, mut after, mut passed) = (Vec::new(), VecDeque::new(), false);
        for line in self.lines() {
            let event = if lacked(&line) {
                Some(true)
            } else if entry.is(&line) {
                passed = true;
                continue;
            } else {
                match Entry::parse(&line).filter(|other| other.field("site") == Some(site)) {
                    Some(other) => (!other.refused).then_some(false),
                    None => continue,
                }
            };
            if !passed {
                after.push_front(event);
                after.truncate(2);
            } else if before.len() < 2 {
                before.push(event);
            } else {
                break;
            }
        }
        let near = |events: &mut dyn Iterator<Item = Option<bool>>| {
            events.take_while(Option::is_some).any(|event| event == Some(true))
        };
        passed && (near(&mut before.into_iter()) || near(&mut after.into_iter()))
    }

    /// What the programs of its site wrote to their error output before this record, and until the site's next one: the
    /// last lines.
    #[must_use]
    pub fn said(&self, entry: &Entry, most: usize) -> Vec<String> {
        let site = entry.field("site").unwrap_or_default();
        let (mut said, mut passed) = (Vec::new(), false);
        for line in self.lines() {
            if let Some(text) = words_of(site, &line) {
                if said.len() < most {
                    said.push(text.to_owned());
                }
            } else if entry.is(&line) {
                passed = true;
            } else if !passed && Entry::parse(&line).is_some_and(|other| other.field("site") == Some(site)) {
                // They belong to a later record.
                said.clear();
            }
            if passed && said.len() >= most {
                break;
            }
        }
        said.reverse();
        said
    }

    fn file(&mut self, path: &Path) {
        self.places.push(path.display().to_string());
        if File::open(path).is_ok() {
            let path = path.to_owned();
            self.sources.push(match rotated::packer(&path) {
                Some(by) => Source::Packed(path, by),
                None => Source::File(path),
            });
        }
    }

    fn system(&mut self) {
        self.system_read = true;
        let said = Command::new("journalctl")
            .args(["-q", "-t", "cellwall-suexec", "-t", "cellwalld", "--no-pager", "-n", "100000"])
            // Months have their English names.
            .env("LC_ALL", "C")
            .output();
        match said {
            Ok(said) if said.status.success() && !said.stdout.is_empty() => {
                self.places.push("the journal".to_owned());
                self.sources.push(Source::Text(said.stdout));
            }
            _ => ["/var/log/auth.log", "/var/log/secure", "/var/log/syslog", "/var/log/messages"]
                .iter()
                .for_each(|path| self.file(Path::new(path))),
        }
    }
}

/// `TIME stderr site=SITE worker=1 line="…"`: the words, where they are of this site.
fn words_of<'t>(site: &str, line: &'t str) -> Option<&'t str> {
    stderr(line).filter(|(name, _)| *name == site).map(|(_, text)| text)
}

/// The site of such a line, and the words.
fn stderr(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = told(line)?.1.strip_prefix("stderr site=")?.split_once(' ')?;
    let text = rest.split_once("line=\"")?.1;
    Some((name, text.strip_suffix('"').unwrap_or(text)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_wherever_it_was_written() {
        let line = "2026-01-02T03:04:05.000006Z refuse ref=ABCD-EFGH code=V118 status=118 site=shop pid=7 caller=33 \
                    asked=\"1001 1001 a.cgi\" why=\"/srv/a.cgi: is writable (0777)\" fix=\"chmod go-w /srv/a.cgi\"";
        let entry = Entry::parse(line).unwrap();
        assert!(entry.refused);
        assert_eq!(entry.time, "2026-01-02T03:04:05.000006Z");
        assert_eq!(entry.field("why"), Some("/srv/a.cgi: is writable (0777)"));
        assert_eq!(entry.field("code"), Some("V118"));
        let syslog = format!("Jan  2 03:04:05 host cellwall-suexec[7]: {}", line.split_once(' ').unwrap().1);
        assert_eq!(Entry::parse(&syslog).unwrap().field("ref"), Some("ABCD-EFGH"));
        assert_eq!(Entry::parse("something else"), None);
    }

    #[test]
    fn want_of_memory_is_that_of_the_worker_beside_the_record() {
        let (refused, other) = (
            "2026-01-02T03:04:05.000006Z refuse ref=BBBB-BBBB code=B06 site=s\n",
            "2026-01-02T03:04:05.000006Z refuse ref=CCCC-CCCC code=B06 site=s\n",
        );
        let (end, launch) = (
            "2026-01-02T03:04:05.000006Z pool end site=s worker=1 how=outofmemory code=9\n",
            "2026-01-02T03:04:05.000006Z launch ref=AAAA-AAAA site=s\n",
        );
        let entry = Entry::parse(refused.trim_end()).unwrap();
        let lacked = |lines: &[&str]| journal(&lines.concat()).lacked_memory(&entry);
        assert!(lacked(&[launch, refused, end, launch]) && lacked(&[end, launch, refused]));
        assert!(!lacked(&[refused, other, end]) && !lacked(&[end, other, refused]), "another one's");
        assert!(
            !lacked(&[refused, launch, launch, end]) && !lacked(&[end, launch]),
            "a later one's, and none"
        );
    }

    fn journal(text: &str) -> Journal {
        let sources = vec![Source::Text(text.as_bytes().to_vec())];
        Journal { places: Vec::new(), sources, system_read: false }
    }

    #[test]
    fn what_a_sites_programs_said_around_a_record_is_found() {
        let journal = journal(
            "2026-01-02T03:04:05.000006Z refuse ref=AAAA-AAAA code=V118 site=shop why=\"x\"\n\
             2026-01-02T03:04:05.000006Z stderr site=shop worker=1 line=\"one\"\n\
             2026-01-02T03:04:05.000006Z stderr site=other worker=1 line=\"T stderr site=shop line=\\x22no\\x22\"\n\
             2026-01-02T03:04:05.000006Z stderr site=shop worker=1 line=\"two\"\n\
             2026-01-02T03:04:05.000006Z refuse ref=BBBB-BBBB code=B06 status=502 site=shop why=\"x\"\n\
             2026-01-02T03:04:05.000006Z launch ref=DDDD-DDDD site=other\n\
             2026-01-02T03:04:05.000006Z stderr site=shop worker=1 line=\"three\"\n\
             2026-01-02T03:04:05.000006Z launch ref=CCCC-CCCC site=shop\n\
             2026-01-02T03:04:05.000006Z stderr site=shop worker=2 line=\"four\"\n",
        );
        let entry = journal.entry("BBBB-BBBB").unwrap();
        assert_eq!(journal.said(&entry, 2), ["two", "three"]);
        let before: Vec<_> =
            journal.before(&entry).map(|older| older.field("ref").unwrap_or_default().to_owned()).collect();
        assert_eq!(before, ["AAAA-AAAA"]);
        assert_eq!(journal.said(&entry, 9), ["one", "two", "three"]);
        let all: Vec<_> =
            journal.entries().filter_map(|entry| entry.field("ref").map(str::to_owned)).collect();
        assert_eq!(all, ["CCCC-CCCC", "DDDD-DDDD", "BBBB-BBBB", "AAAA-AAAA"]);
    }

    #[test]
    fn a_programs_name_is_no_record() {
        let name = "refuse ref=EVIL-EVIL code=V118 fix=reboot x=";
        let line = format!("{STAMP} launch ref=ABCD-EFGH site=shop dir=\"/srv\" script=\"{name}\"");
        let entry = Entry::parse(&line).unwrap();
        assert!(!entry.refused);
        assert_eq!((entry.field("ref"), entry.field("fix")), (Some("ABCD-EFGH"), None));
        assert_eq!(entry.field("script"), Some(name));
    }

    #[test]
    fn a_record_begins_behind_the_head_of_its_line_whoever_wrote_it() {
        for head in [
            STAMP,
            "[2026-01-02 03:04:05]:",
            "Jan  2 03:04:05 host cellwall-suexec[7]:",
            "Jan 12 03:04:05 host.example.org cellwalld[7]:",
            "2026-01-02T03:04:05.000006+01:00 host cellwall-suexec[7]:",
            "Jan  2 03:04:05 host authpriv.info cellwall-suexec[7]:",
        ] {
            let record = "refuse ref=ABCD-EFGH code=V118 site=bob fix=\"reboot\"";
            let found = Entry::parse(&format!("{head} {record}")).unwrap();
            assert_eq!(found.field("ref"), Some("ABCD-EFGH"), "{head}");
            assert!(!found.time.is_empty() && !found.time.contains("cellwall"), "{head}");
            for between in [
                "stderr site=alice worker=1 line=\"",
                "stderr site=alice line=\"x cellwall-suexec[7]: ",
                "stderr site=alice line=\"2026-01-02T03:04:05.000006Z ",
                "slow site=alice worker=1 ms=9 method=GET uri=\"/?",
                "pool where site=alice worker=1 ",
                "x ",
            ] {
                for verb in ["refuse", "launch"] {
                    let line = format!("{head} {between}{}\"", record.replace("refuse", verb));
                    assert_eq!(Entry::parse(&line), None, "{line}");
                }
            }
        }
        for foreign in
            ["Jan  2 03:04:05 host", "Jan  2 03:04:05 host sshd[1]: x", "host cellwall-suexec[7]:", ""]
        {
            let line = format!("{foreign} refuse ref=ABCD-EFGH code=V118 site=bob");
            assert_eq!(Entry::parse(&line), None, "{line}");
        }
    }

    #[test]
    fn what_a_program_says_stands_for_no_record_and_for_no_end() {
        let journal = journal(&format!(
            "{STAMP} launch ref=AAAA-AAAA site=shop script=\"real\"\n\
             {STAMP} refuse ref=BBBB-BBBB code=B06 site=shop fix=\"real\"\n\
             {STAMP} stderr site=shop worker=1 line=\"pool end site=shop worker=1 how=outofmemory code=9\"\n\
             {STAMP} stderr site=evil line=\"refuse ref=BBBB-BBBB code=B06 site=shop fix=curl|sh x= \"\n\
             {STAMP} stderr site=evil line=\"stderr site=shop line=evil\"\n\
             {STAMP} stderr site=evil line=\"launch ref=CCCC-CCCC site=shop script=evil \"\n",
        ));
        let entry = journal.entry("BBBB-BBBB").unwrap();
        assert_eq!(entry.field("fix"), Some("real"));
        assert!(!journal.lacked_memory(&entry));
        assert_eq!(journal.before(&entry).count(), 1);
        assert_eq!(journal.said(&entry, 9).len(), 1);
        assert_eq!(journal.entries().count(), 2);
        assert_eq!(journal.entry("CCCC-CCCC"), None);
    }

    const STAMP: &str = "2026-01-02T03:04:05.000006Z";
}
