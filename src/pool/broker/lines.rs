//! Lines: records of refusals, what workers write to their standard error output, the access and slow logs.
//!
//! One line is one write to a descriptor that the supervisor opened. What may not be written now is counted, never waited
//! for; a site that floods loses its own lines, and is told how many. Foreign bytes are escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{read, write};

use crate::policy::Format as Stamp;
use crate::pool::fastcgi::pairs::Pairs;
use crate::pool::wire::{self, Up};
use crate::record::{datagram, reference, stamp};
use crate::refusal::Untrusted;
use crate::sys::clock;

use super::allowance::Allowance;
use super::arena::Key;
use super::calls::State;
use super::site::Site;
use super::{Broker, ROUNDS, Source, answers};

/// The host's log.
#[derive(Debug, Default)]
pub(super) struct Journal {
    log: Option<OwnedFd>,
    datagrams: bool,
    /// Some site has lines that were left out, and is told then.
    pub(super) due: Option<u64>,
}

/// The reading end of a worker's standard error output.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) fd: OwnedFd,
    pub(super) site: u32,
    pub(super) worker: u32,
    /// Of a worker that accepts for itself, of which nothing else is known.
    pub(super) alone: bool,
    pub(super) lines: Splitter,
}

/// A site's allowance of lines: it may be spent at once, and grows again with time.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    lines: Allowance<BURST, PER_SECOND>,
    suppressed: u64,
}

impl Limiter {
    fn allows(&mut self, now: u64) -> bool {
        let allowed = !self.lines.is_spent(now);
        self.lines.spend(usize::from(allowed));
        self.suppressed += u64::from(!allowed);
        allowed
    }
}

/// What is heard of a worker's.
pub(super) const PIPE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
/// Lines of a site at once.
const BURST: i64 = 500;
/// Lines of a site over time.
const PER_SECOND: u64 = 50;
/// Bytes of one line; what is longer becomes several.
const LINE_MAX: usize = 1000;
/// Between two tellings of how many lines were left out.
const TELL_US: u64 = 1_000_000;

impl Journal {
    pub(super) fn open(&mut self, log: Option<OwnedFd>) {
        self.datagrams = log.as_ref().is_some_and(|log| getsockopt(log, sockopt::SockType).is_ok());
        self.log = log;
    }

    /// A line about nobody's doing.
    pub(super) fn say(&self, line: &str) {
        if let Some(log) = &self.log {
            put(log, self.datagrams, line);
        }
    }

    /// A record about a site.
    pub(super) fn record(&mut self, site: &mut Site, line: &str, now: u64) {
        if !site.limiter.allows(now) {
            return self.remember(now);
        }
        let written = self.log.as_ref().is_some_and(|log| put(log, self.datagrams, line));
        site.counters.lines_lost += u64::from(!written);
    }

    /// Words of a program, whole lines or the last one without its end.
    pub(super) fn errors(&mut self, site: &mut Site, worker: Option<u32>, bytes: &[u8], now: u64) {
        site.words.spend(bytes.len());
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if site.limiter.lines.is_spent(now) {
                // Nothing else is done with a flood, so that it costs little.
                site.limiter.suppressed += 1;
                self.remember(now);
                continue;
            }
            for part in line.chunks(LINE_MAX) {
                self.said(site, worker, part, now);
            }
        }
    }

    fn said(&mut self, site: &mut Site, worker: Option<u32>, text: &[u8], now: u64) {
        if !site.limiter.allows(now) {
            return self.remember(now);
        }
        site.counters.lines_said += 1;
        let mut line = format!("stderr site={}", site.rules.name);
        if let Some(worker) = worker {
            let _ = write!(line, " worker={worker}");
        }
        line.push_str(" line=\"");
        for part in text.strip_suffix(b"\r").unwrap_or(text).chunks(250) {
            let _ = write!(line, "{}", Untrusted(part));
        }
        line.push('"');
        let written = match &site.errors {
            Some(file) => put(file, false, &line),
            None => self.log.as_ref().is_some_and(|log| put(log, self.datagrams, &line)),
        };
        site.counters.lines_lost += u64::from(!written);
    }

    fn remember(&mut self, now: u64) {
        self.due.get_or_insert(now.saturating_add(TELL_US));
    }

    /// Tells how many lines were left out. Returns when the next telling is due.
    pub(super) fn tick(&mut self, sites: &mut BTreeMap<u32, Site>, now: u64) -> u64 {
        match self.due {
            Some(due) if due <= now => {}
            other => return other.unwrap_or(u64::MAX),
        }
        self.due = None;
        for site in sites.values_mut() {
            let count = std::mem::take(&mut site.limiter.suppressed);
            if count > 0 {
                let line = format!("suppressed site={} lines={count}", site.rules.name);
                let log = site.errors.as_ref().or(self.log.as_ref());
                let datagrams = site.errors.is_none() && self.datagrams;
                let written = log.is_some_and(|log| put(log, datagrams, &line));
                site.counters.lines_lost += if written { 0 } else { count };
            }
        }
        u64::MAX
    }
}

/// One line, one write.
fn put(log: impl AsFd, datagrams: bool, line: &str) -> bool {
    let line =
        if datagrams { datagram("cellwalld", line) } else { format!("{} {line}\n", stamp(Stamp::Keys)) };
    raw(log, line.as_bytes())
}

fn raw(log: impl AsFd, line: &[u8]) -> bool {
    write(log, line).is_ok_and(|written| written == line.len())
}

/// Puts lines together that come in pieces.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// What is left of a line whose end does not come.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// The bytes up to the last end of a line, with what was left before; the rest is kept, up to a line's length.
    pub(super) fn whole(&mut self, bytes: &[u8]) -> Vec<u8> {
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place.saturating_add(1));
        let (lines, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        let mut whole = Vec::new();
        if end > 0 {
            whole = std::mem::take(&mut self.rest);
            whole.extend_from_slice(lines);
        }
        self.rest.extend_from_slice(rest);
        if self.rest.len() > LINE_MAX {
            whole.append(&mut self.rest);
        }
        whole
    }
}

impl Broker {
    /// A worker said something. It is read at once, unless its site floods.
    pub(super) fn pipe_event(&mut self, key: Key) {
        let site = self.pipes.get(key).map_or(u32::MAX, |pipe| pipe.site);
        if self.holds(site, Source::Pipe, key) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..ROUNDS {
            let Some(pipe) = self.pipes.get_mut(key) else { break };
            let got = read(&pipe.fd, &mut buffer);
            let (number, worker) = (pipe.site, pipe.worker);
            let whole = match got {
                Ok(0) => pipe.lines.rest(),
                Ok(length) => pipe.lines.whole(buffer.get(..length).unwrap_or_default()),
                Err(Errno::EINTR) => continue,
                Err(_) => {
                    more = false;
                    break;
                }
            };
            if let Some(site) = self.sites.get_mut(&number) {
                self.journal.errors(site, Some(worker), &whole, self.now);
            }
            if got == Ok(0) {
                let alone = self.pipes.remove(key).is_some_and(|pipe| pipe.alone);
                if let Some(site) = self.sites.get_mut(&number).filter(|_| alone) {
                    site.alone = site.alone.saturating_sub(1);
                }
                more = false;
                break;
            }
        }
        self.buffer = buffer;
        if more && self.pipes.get(key).is_some() {
            self.again.push((Source::Pipe, key));
        }
    }

    /// Somebody connected who may not.
    pub(super) fn stranger(&mut self, number: u32) {
        let Some(site) = self.sites.get_mut(&number) else { return };
        let card = &answers::STRANGER;
        *site.counters.refusals.entry(card.code).or_default() += 1;
        let line = format!(
            "refuse ref={} code={} status=403 site={} why=\"a client that is not one of the site's\" fix=\"{}\"",
            reference(),
            card.code,
            site.rules.name,
            card.remedy
        );
        self.journal.record(site, &line, self.now);
    }

    /// The access log's line of a request.
    pub(super) fn access_line(&mut self, key: Key, status: u16) {
        let Some(call) = self.calls.get(key) else { return };
        let (Some(job), Some(site)) = (&call.job, self.sites.get_mut(&call.site)) else { return };
        let (Some(file), Some(format)) = (&site.access, &site.rules.access) else { return };
        let facts = Facts {
            params: &job.params,
            script: &job.script,
            site: &site.rules.name,
            status,
            worker: job.worker,
            bytes: job.sent,
            duration_us: self.now.saturating_sub(job.arrived),
        };
        let written = raw(file, format.line(&facts).as_bytes());
        site.counters.lines_lost += u64::from(!written);
    }

    /// Only the supervisor can see where the worker is: it has lines of its own for that, which follow.
    pub(super) fn ask_where(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let site = wire::Site(call.site);
        let wish = match (&call.state, &call.job) {
            (State::Running(run), _) => Up::SlowRun { site, token: wire::Token(run.0) },
            (_, Some(job)) => Up::Slow { site, worker: wire::Worker(job.worker) },
            (_, None) => return,
        };
        self.say(wish);
    }

    /// A request takes long: one line says which.
    pub(super) fn slow_line(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(site) = self.sites.get_mut(&call.site) else { return };
        let Some(job) = &mut call.job else { return };
        job.slow_told = true;
        site.counters.slow += 1;
        let value = |name: &[u8]| {
            let found = Pairs(&job.params).flatten().find(|(known, _)| *known == name);
            Untrusted(found.map_or(&b""[..], |(_, value)| value)).to_string()
        };
        let line = format!(
            "slow site={} worker={} ms={} method={} uri=\"{}\" script=\"{}\"",
            site.rules.name,
            job.worker,
            self.now.saturating_sub(job.started) / 1000,
            value(b"REQUEST_METHOD"),
            value(b"REQUEST_URI"),
            Untrusted(&job.script),
        );
        match &site.slow {
            Some(file) => site.counters.lines_lost += u64::from(!put(file, false, &line)),
            None => self.journal.record(site, &line, self.now),
        }
    }
}

/// What is known of a request at its end.
struct Facts<'a> {
    params: &'a [u8],
    script: &'a [u8],
    site: &'a str,
    status: u16,
    worker: u32,
    bytes: u64,
    duration_us: u64,
}

/// The access log's format, in php-fpm's letters.
#[derive(Debug)]
pub(super) struct Format(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    /// What stands in braces, and the letter.
    Letter(String, char),
}

impl Format {
    /// php-fpm's own default where none is given.
    pub(super) fn new(text: &[u8]) -> Self {
        let text = if text.is_empty() { b"%R - %u %t \"%m %r%Q%q\" %s" } else { text };
        let text = String::from_utf8_lossy(text);
        let (mut parts, mut letters) = (Vec::new(), text.chars());
        let mut plain = String::new();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                plain.push(letter);
                continue;
            }
            parts.push(Part::Text(std::mem::take(&mut plain)));
            let mut next = letters.next();
            let mut braces = String::new();
            if next == Some('{') {
                braces = letters.by_ref().take_while(|letter| *letter != '}').collect();
                next = letters.next();
            }
            parts.extend(next.map(|letter| Part::Letter(braces, letter)));
        }
        parts.push(Part::Text(plain));
        Self(parts)
    }

    fn line(&self, facts: &Facts<'_>) -> String {
        let mut line = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Letter(braces, letter) => facts.put(&mut line, braces, *letter),
            }
        }
        line.push('\n');
        line
    }
}

impl Facts<'_> {
    fn value(&self, name: &[u8]) -> String {
        let found = Pairs(self.params).flatten().find(|(known, _)| *known == name);
        match found {
            Some((_, value)) if !value.is_empty() => Untrusted(value).to_string(),
            _ => "-".to_owned(),
        }
    }

    /// `%C` and `%M` are a worker's own business, which a relay does not see: `-`.
    fn put(&self, line: &mut String, braces: &str, letter: char) {
        let text = match letter {
            '%' => "%".to_owned(),
            'd' | 'T' if matches!(braces, "mili" | "milliseconds" | "ms") => {
                (self.duration_us / 1000).to_string()
            }
            'd' if matches!(braces, "micro" | "microseconds" | "us") => self.duration_us.to_string(),
            'd' => format!("{}.{:03}", self.duration_us / 1_000_000, self.duration_us / 1000 % 1000),
            'e' => self.value(braces.as_bytes()),
            'f' => Untrusted(self.script).to_string(),
            'l' => self.value(b"CONTENT_LENGTH"),
            'm' => self.value(b"REQUEST_METHOD"),
            'n' => self.site.to_owned(),
            'o' => self.bytes.to_string(),
            'p' => self.worker.to_string(),
            'P' => std::process::id().to_string(),
            'q' => self.value(b"QUERY_STRING").trim_start_matches('-').to_owned(),
            'Q' if self.value(b"QUERY_STRING") == "-" => String::new(),
            'Q' => "?".to_owned(),
            'r' => self.value(b"REQUEST_URI").split('?').next().unwrap_or_default().to_owned(),
            'R' => self.value(b"REMOTE_ADDR"),
            's' => self.status.to_string(),
            't' | 'T' => common_time(),
            'u' => self.value(b"REMOTE_USER"),
            _ => "-".to_owned(),
        };
        line.push_str(&text);
    }
}

/// `14/Nov/2026:12:00:00 +0000`.
fn common_time() -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let clock::Calendar { year, month, day, time: (hour, minute, second) } = clock::utc(clock::now().0);
    let month =
        usize::try_from(month).ok().and_then(|month| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&"Jan");
    format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_come_in_pieces_are_put_together() {
        let mut lines = Splitter::default();
        assert_eq!(lines.whole(b"one\ntw"), b"one\n");
        assert_eq!(lines.whole(b"o"), b"");
        assert_eq!(lines.whole(b"\nthree\n"), b"two\nthree\n");
        assert_eq!(lines.whole(b"four"), b"");
        assert_eq!(lines.whole(b"\n"), b"four\n", "an end that comes alone");
        assert_eq!(lines.whole(&[b'x'; LINE_MAX]), b"");
        assert_eq!(lines.whole(b"y").len(), LINE_MAX + 1, "no line is kept for ever");
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut limiter = Limiter::default();
        let passed = (0..10_000).filter(|_| limiter.allows(1)).count();
        assert_eq!((passed, limiter.suppressed), (500, 9500));
        assert!(limiter.allows(1_000_000));
        let passed = (0..10_000).filter(|_| limiter.allows(1_000_000)).count();
        assert!(passed < 50, "{passed} more after a second, and one before");
    }

    #[test]
    fn the_access_log_speaks_php_fpms_letters() {
        let mut params = Vec::new();
        for (name, value) in [
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/a.php?x=\"1\""),
            ("QUERY_STRING", "x=\"1\""),
            ("REMOTE_ADDR", "192.0.2.1"),
        ] {
            crate::pool::fastcgi::pairs::put(&mut params, name.as_bytes(), value.as_bytes());
        }
        let facts = Facts {
            params: &params,
            script: b"/srv/a.php",
            site: "shop",
            status: 404,
            worker: 7,
            bytes: 12,
            duration_us: 1_234_567,
        };
        let format = Format::new(b"%R %u %m %r%Q%q %s %{mili}d %d %f %n %p %o %{REMOTE_ADDR}e %% %C");
        let expected =
            "192.0.2.1 - GET /a.php?x=\\x221\\x22 404 1234 1.234 /srv/a.php shop 7 12 192.0.2.1 % -\n";
        assert_eq!(format.line(&facts), expected);
        assert!(Format::new(b"").line(&facts).starts_with("192.0.2.1 - - "));
    }
}
