//! Is an outcome one of those that are allowed?

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::{LOG, Outcome, Record, Report, Syslog};

/// What may come of a launch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The whole, right run, with its record.
    Ran,
    /// The program was started in its cell and recorded as ever; a path that the policy lets it see was out of its reach.
    Narrower,
    /// Nothing ran, and the record, the page and the server's error log say so; the code.
    Refused(String),
    /// Nothing ran, and no way led to a log; the server's error log says so.
    Unrecorded,
    /// Nothing ran, there was no memory, and the server's error log says so.
    NoMemory,
    /// Nothing ran: the process ended before it was ours, and nothing was told to anybody.
    Dead,
}

impl End {
    /// In the tables.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Ran => "ran",
            Self::Narrower => "narrower",
            Self::Refused(code) => code,
            Self::Unrecorded => "unrecorded",
            Self::NoMemory => "no memory",
            Self::Dead => "dead",
        }
    }
}

/// What the undisturbed launch is like.
#[derive(Debug)]
pub(crate) struct Ordinary {
    pub(crate) end: End,
    facts: Vec<String>,
    record: Vec<String>,
}

/// All that one launch left behind.
pub(crate) struct Left {
    pub(crate) outcome: Outcome,
    records: Vec<Record>,
    /// Lines in suEXEC's words.
    old: Vec<String>,
    torn: Vec<String>,
    /// The descriptor on which nothing could be said.
    pub(crate) muted: Option<u64>,
}

impl Left {
    /// Reads file and socket.
    pub(crate) fn gather(outcome: Outcome, syslog: Option<&Syslog>) -> Self {
        let mut left = Self { outcome, records: Vec::new(), old: Vec::new(), torn: Vec::new(), muted: None };
        let file = fs::read(LOG).unwrap_or_default();
        let mut rest = file.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            left.line(&String::from_utf8_lossy(&rest[..end]));
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            left.torn.push(String::from_utf8_lossy(rest).into_owned());
        }
        for datagram in syslog.map(Syslog::heard).unwrap_or_default() {
            // As a daemon writes it: its own time, then the message.
            let message = datagram.split_once("]: ").map_or("", |parts| parts.1);
            left.line(&format!("time {message}"));
        }
        left
    }

    fn line(&mut self, line: &str) {
        if line.contains("uid: (") || line.contains("(reference ") {
            return self.old.push(line.to_owned());
        }
        let form = line.split(' ').nth(1).is_some_and(|verb| matches!(verb, "launch" | "refuse"));
        if form && line.matches(" ref=").count() == 1 && line.contains(" pid=") {
            self.records.extend(Record::parse_all(format!("{line}\n").as_bytes()));
        } else {
            self.torn.push(line.to_owned());
        }
    }

    /// No line of the log is torn.
    pub(crate) fn is_whole(&self) -> bool {
        self.torn.is_empty()
    }

    fn story(&self) -> String {
        let records: Vec<&str> = self.records.iter().map(|record| record.line.as_str()).collect();
        format!(
            "{}\nlog: {}\n{}\ntorn: {:?}",
            self.outcome.story(),
            records.join("\n"),
            self.old.join("\n"),
            self.torn
        )
    }

    /// The undisturbed launch, which must be what it is meant to be.
    pub(crate) fn ordinary(&self, refused: Option<&str>, visitor: bool) -> Ordinary {
        let empty = Ordinary { end: End::Dead, facts: Vec::new(), record: Vec::new() };
        let end = self.end(None, visitor).unwrap_or_else(|why| panic!("{why}"));
        let wanted = refused.map_or(End::Ran, |code| End::Refused(code.to_owned()));
        assert_eq!(end, wanted, "{}", self.story());
        if refused.is_some() {
            return Ordinary { end, ..empty };
        }
        let facts = facts(&self.outcome);
        for sign in [
            "cap_bounding 0000000000000000",
            "cap_effective 0000000000000000",
            "seccomp 2",
            "fds 0 1 2",
            "session_key EPERM",
        ] {
            assert!(facts.iter().any(|fact| fact.starts_with(sign)), "{sign}: {}", self.story());
        }
        let wall = facts.iter().any(|fact| matches!(fact.as_str(), "try open EACCES" | "try open ENOENT"));
        assert!(wall, "the program may read what it may not: {}", self.story());
        Ordinary { end, facts, record: self.record() }
    }

    /// What came of it; or why that is not allowed. `ordinary`: what the undisturbed launch was like.
    pub(crate) fn end(&self, ordinary: Option<&Ordinary>, visitor: bool) -> Result<End, String> {
        let wrong = |what: &str| Err(format!("{what}:\n{}", self.story()));
        let text = self.outcome.out_text();
        for word in ["panicked", "memory allocation", "RUST_BACKTRACE", "fatal runtime", "unwrap"] {
            if self.outcome.err_text().contains(word) || text.contains(word) {
                return wrong("it says what only its makers understand");
            }
        }
        if !self.torn.is_empty() {
            return wrong("a torn line is in the log");
        }
        if text.contains("\nprobe\n") {
            return self.ran(ordinary);
        }
        if !self.outcome.marks.is_empty() {
            return wrong("something ran");
        }
        if self.outcome.err.is_empty() && text.is_empty() && self.records.is_empty() && self.old.is_empty() {
            return Ok(End::Dead);
        }
        // The caller could not even start the launcher.
        if self.outcome.status.code() == Some(250) && self.outcome.err_text().starts_with("call: ") {
            return Ok(End::Dead);
        }
        if self.outcome.err_text() == "cellwall: refused, no memory\n"
            && self.outcome.status.code() == Some(81)
        {
            return Ok(End::NoMemory);
        }
        self.refused(visitor)
    }

    fn ran(&self, ordinary: Option<&Ordinary>) -> Result<End, String> {
        let launches: Vec<&Record> = self.records.iter().filter(|record| record.verb == "launch").collect();
        if (launches.len(), self.records.len(), self.old.len()) != (1, 1, 0) {
            return Err(format!("it ran without one record:\n{}", self.story()));
        }
        if let Some(ordinary) = ordinary {
            if ordinary.end != End::Ran {
                return Err(format!("it ran and is to be refused:\n{}", self.story()));
            }
            let (facts, record) = (facts(&self.outcome), self.record());
            for (have, want) in [(&facts, &ordinary.facts), (&record, &ordinary.record)] {
                if have != want {
                    let differ = |one: &Vec<String>, other: &Vec<String>| {
                        one.iter()
                            .filter(|fact| !other.contains(fact))
                            .cloned()
                            .collect::<Vec<_>>()
                            .join(", ")
                    };
                    let (more, less) = (differ(have, want), differ(want, have));
                    return Err(format!(
                        "it ran with \"{more}\" and not with \"{less}\"\n{}",
                        launches[0].line
                    ));
                }
            }
        }
        Ok(End::Ran)
    }

    /// Is the launch recorded as the undisturbed one, and no refusal?
    pub(crate) fn is_recorded_as(&self, ordinary: &Ordinary) -> bool {
        ordinary.end == End::Ran && self.records.len() == 1 && self.record() == ordinary.record
    }

    fn refused(&self, visitor: bool) -> Result<End, String> {
        let wrong = |what: &str| Err(format!("{what}:\n{}", self.story()));
        let mut error = self.outcome.err_text();
        if error.is_empty() && self.muted == Some(2) {
            error = self
                .page_reference()
                .map(|said| format!("cellwall: refused, reference {said}\n"))
                .unwrap_or_default();
        }
        let Some((reference, lost)) = error
            .strip_prefix("cellwall: refused, reference ")
            .and_then(|rest| rest.strip_suffix('\n'))
            .map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        else {
            return wrong("neither run nor refused");
        };
        let page = self.outcome.out_text();
        let bland = page.is_empty()
            || page.starts_with("Status: 500 ")
                && page.matches(reference).count() == 1
                && page.len() < 400
                && !page.contains("/var");
        if !bland && self.muted != Some(1) || page.is_empty() && visitor && self.muted != Some(1) {
            return wrong("the visitor's page is not the one");
        }
        let Some(status) = self.outcome.status.code().filter(|code| *code != 0) else {
            return wrong("a refusal without a status");
        };
        if lost == "(its record is lost)" {
            let told = self.records.iter().any(|record| record.verb == "refuse");
            return if told { wrong("a record that is there is lost") } else { Ok(End::Unrecorded) };
        }
        let code = match (self.records.as_slice(), self.old.as_slice()) {
            ([refuse], []) if refuse.verb == "refuse" && refuse.field("status") == status.to_string() => {
                (refuse.field("ref") == reference).then(|| refuse.field("code").to_owned())
            }
            // The kernel refused to start what was recorded as a launch.
            ([launch, refuse], [])
                if launch.verb == "launch" && refuse.field("ref") == launch.field("ref") =>
            {
                let late = refuse.field("code").starts_with(['X', 'C']);
                (refuse.field("ref") == reference && late).then(|| refuse.field("code").to_owned())
            }
            // Two lines, and each may have gone to the one or the other log.
            ([], old) => old.iter().find_map(|line| {
                let rest = line.split_once(&format!("(reference {reference}, "))?.1;
                Some(rest.trim_end_matches(')').to_owned())
            }),
            _ => None,
        };
        code.map_or_else(|| wrong("a refusal without its record"), |code| Ok(End::Refused(code)))
    }

    fn page_reference(&self) -> Option<String> {
        self.outcome.out_text().split_once("Reference: ")?.1.get(..9).map(str::to_owned)
    }

    /// The launch's record without what differs between any two launches.
    fn record(&self) -> Vec<String> {
        let names = [
            "uid", "gid", "caller", "dir", "script", "landlock", "seccomp", "nnp", "cgroup", "dropped",
            "left",
        ];
        let Some(record) = self.records.first() else { return Vec::new() };
        names.iter().map(|name| format!("{name}={}", record.get(name).unwrap_or("-"))).collect()
    }
}

/// What the probe told, without what differs between any two processes.
fn facts(outcome: &Outcome) -> Vec<String> {
    const OWN: [&str; 5] = ["pid", "parent", "marker", "session_keyring", "fds_probe"];
    let report = Report::parse(&outcome.out);
    let lines =
        report.text().lines().filter(|line| !OWN.iter().any(|own| line.split(' ').next() == Some(own)));
    lines.map(normal).collect()
}

fn normal(line: &str) -> String {
    if let Some(left) = line.strip_prefix("timer_real ") {
        let seconds: f64 = left.parse().unwrap();
        let which = if seconds == 0.0 {
            "none"
        } else if seconds > 60.0 {
            "the site's"
        } else {
            "the launcher's"
        };
        return format!("timer_real {which}");
    }
    if let Some(root) = line.strip_prefix("root ") {
        // A view that is built has a device of its own.
        let host = fs::metadata("/").unwrap();
        let own = root == format!("{}:{}", host.dev(), host.ino());
        return format!("root {}", if own { "the host's" } else { root.rsplit(':').next().unwrap() });
    }
    line.to_owned()
}
