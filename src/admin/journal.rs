//! Records, read back: from the log file, from older ones beside it, and from the system's log.
//!
//! From the end, line by line, and as far as needed: a year of a large host does not fit into the memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::store;
use crate::policy::{HOST_FILE, Sink, decode};

use super::backwards::Backwards;

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

    /// What its line holds and no other record's does.
    fn mark(&self) -> String {
        format!(" ref={} ", self.field("ref").unwrap_or_default())
    }

    /// Reads a line. None: it is no record.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // The verb is what comes first: behind it, a file's name could be the other one.
        let start = ["refuse ref=", "launch ref="].into_iter().filter_map(|verb| line.find(verb)).min()?;
        let refused = line.get(start..)?.starts_with("refuse");
        let time = line.get(..start)?.split(" cellwall-suexec[").next().unwrap_or_default().trim().to_owned();
        let mut fields = BTreeMap::new();
        let mut rest = line.get(start..)?.split_once(' ')?.1;
        while let Some((name, more)) = rest.split_once('=') {
            let (value, left) = match more.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => more.split_once(' ').unwrap_or((more, "")),
            };
            fields.insert(name.trim().to_owned(), value.to_owned());
            rest = left.trim_start();
        }
        Some(Self { time, refused, fields })
    }
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
    /// What a program said.
    Text(Vec<u8>),
}

impl Source {
    fn lines(&self) -> Box<dyn Iterator<Item = String> + '_> {
        match self {
            Self::File(path) => Box::new(File::open(path).and_then(Backwards::new).into_iter().flatten()),
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
        for path in with_older(Path::new(&file)) {
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
        let mark = format!("ref={reference}");
        let mut lines = self.lines().filter(|line| line.contains(&mark));
        lines.find_map(|line| Entry::parse(&line).filter(|entry| entry.field("ref") == Some(reference)))
    }

    /// Records of the same site before this one, the youngest first.
    pub fn before<'j>(&'j self, entry: &'j Entry) -> impl Iterator<Item = Entry> + 'j {
        let mark = entry.mark();
        let older = self.lines().skip_while(move |line| !line.contains(&mark)).skip(1);
        let older = older.filter_map(|line| Entry::parse(&line));
        older.filter(|other| other.field("site") == entry.field("site"))
    }

    /// The kernel ended a worker of its site for want of memory at that time. The broker tells of the request and the supervisor of
    /// the worker: one launch of the next worker may stand between.
    #[must_use]
    pub fn lacked_memory(&self, entry: &Entry) -> bool {
        let (mark, site) = (entry.mark(), entry.field("site").unwrap_or_default());
        let end = format!("pool end site={site} ");
        // True: such an end; false: a launch; none: another refusal. Two on either side, the nearest first.
        let (mut before, mut after, mut passed) = (Vec::new(), VecDeque::new(), false);
        for line in self.lines() {
            let event = if line.contains(&end) && line.contains(" how=outofmemory ") {
                Some(true)
            } else if line.contains(&mark) {
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
        let (mark, site) = (entry.mark(), entry.field("site").unwrap_or_default());
        let (mut said, mut passed) = (Vec::new(), false);
        for line in self.lines() {
            if let Some(text) = words_of(site, &line) {
                if said.len() < most {
                    said.push(text.to_owned());
                }
            } else if line.contains(&mark) {
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
            self.sources.push(Source::File(path.to_owned()));
        }
    }

    fn system(&mut self) {
        self.system_read = true;
        let said = Command::new("journalctl")
            .args(["-q", "-t", "cellwall-suexec", "--no-pager", "-n", "100000"])
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
    let (before, rest) = line.split_once("stderr site=")?;
    let (name, rest) = rest.split_once(' ')?;
    // A program's words hold what it wants; nothing with a `=` stands before the beginning.
    let text = rest.split_once("line=\"")?.1;
    (name == site && !before.contains('=')).then(|| text.strip_suffix('"').unwrap_or(text))
}

/// logrotate's `.1` first, then the file itself.
fn with_older(file: &Path) -> Vec<PathBuf> {
    let older = PathBuf::from(format!("{}.1", file.display()));
    if older.exists() { vec![older, file.to_owned()] } else { vec![file.to_owned()] }
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
        let (refused, other) =
            ("T refuse ref=BBBB-BBBB code=B06 site=s\n", "T refuse ref=CCCC-CCCC code=B06 site=s\n");
        let (end, launch) =
            ("T pool end site=s worker=1 how=outofmemory code=9\n", "T launch ref=AAAA-AAAA site=s\n");
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
            "T refuse ref=AAAA-AAAA code=V118 site=shop why=\"x\"\n\
             T stderr site=shop worker=1 line=\"one\"\n\
             T stderr site=other worker=1 line=\"T stderr site=shop line=\\x22no\\x22\"\n\
             T stderr site=shop worker=1 line=\"two\"\n\
             T refuse ref=BBBB-BBBB code=B06 status=502 site=shop why=\"x\"\n\
             T launch ref=DDDD-DDDD site=other\n\
             T stderr site=shop worker=1 line=\"three\"\n\
             T launch ref=CCCC-CCCC site=shop\n\
             T stderr site=shop worker=2 line=\"four\"\n",
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
        let line =
            format!("2026-01-02T03:04:05Z launch ref=ABCD-EFGH site=shop dir=\"/srv\" script=\"{name}\"");
        let entry = Entry::parse(&line).unwrap();
        assert!(!entry.refused);
        assert_eq!((entry.field("ref"), entry.field("fix")), (Some("ABCD-EFGH"), None));
        assert_eq!(entry.field("script"), Some(name));
    }
}
