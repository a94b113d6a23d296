//! Answers of the broker's own: one fixed page for each HTTP status, with a reference and nothing else.

use crate::pool::fastcgi::record::kind;
use crate::pool::fastcgi::record::put;
use crate::record::reference;
use crate::refusal::{Card, Refusal, Untrusted};

use super::Broker;
use super::arena::Key;

/// Refuses a request: a line, a page, and the connection goes on where it may.
pub(super) fn refuse(broker: &mut Broker, key: Key, http: u16, refusal: &Refusal) {
    let reference = note(broker, key, http, refusal);
    broker.access_line(key, http);
    let after = broker
        .calls
        .get(key)
        .and_then(|call| broker.sites.get(&call.site))
        .map_or(1, |site| site.stalled_until.saturating_sub(broker.now).div_ceil(1_000_000).max(1));
    page(broker, key, &text(http, after, &reference));
}

/// An answer that is ready.
pub(super) fn page(broker: &mut Broker, key: Key, text: &str) {
    let Some(call) = broker.calls.get(key) else { return };
    let id = call.codec.request().id;
    broker.gather.clear();
    for part in text.as_bytes().chunks(4096) {
        broker.gather.copy(|out| put(out, kind::STDOUT, id, part));
    }
    broker.gather.end(id, 0);
    broker.write_answer(key, &[]);
    broker.answered(key);
}

/// Counts and records a refusal; returns its reference.
pub(super) fn note(broker: &mut Broker, key: Key, http: u16, refusal: &Refusal) -> String {
    let reference = reference();
    let Some(call) = broker.calls.get(key) else { return reference };
    let Some(site) = broker.sites.get_mut(&call.site) else { return reference };
    site.counters.answered(http);
    *site.counters.refusals.entry(refusal.card.code).or_default() += 1;
    let script = call.job.as_ref().map_or(&b""[..], |job| &job.script);
    let (why, fix) = (refusal.why.replace('"', "'"), refusal.fix.replace('"', "'"));
    let line = format!(
        "refuse ref={reference} code={} status={http} site={} script=\"{}\" why=\"{why}\" fix=\"{fix}\"",
        refusal.card.code,
        site.rules.name,
        Untrusted(script),
    );
    broker.journal.record(site, &line, broker.now);
    reference
}

fn text(http: u16, retry_after: u64, reference: &str) -> String {
    let name = match http {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    };
    let retry = if http == 503 { format!("Retry-After: {retry_after}\r\n") } else { String::new() };
    format!(
        "Status: {http} {name}\r\nContent-Type: text/html; charset=us-ascii\r\nCache-Control: no-store\r\n{retry}\r\n\
         <!DOCTYPE html>\n<title>{http} {name}</title>\n<h1>{name}</h1>\n\
         <p>The server could not answer this request. Reference: {reference}</p>\n"
    )
}

/// What of the head of a CGI answer counts here, as far as it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The status (RFC 3875, 6.3.3); none: 200, or what [`Head::redirects`] says.
    status: Option<u16>,
    /// Some line is one of a status, whatever it says.
    says_status: bool,
    location: bool,
    /// The empty line behind it was seen.
    pub(super) whole: bool,
}

/// What goes before a head that [`Head::redirects`].
pub(super) const FOUND: &[u8] = b"Status: 302 Found\r\n";

impl Head {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut head = Self::default();
        let mut lines = bytes.split(|byte| *byte == b'\n').take(LINES_MOST).peekable();
        while let Some(line) = lines.next() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if lines.peek().is_none() {
                // Its end has not come, or it is one too many.
                return head;
            }
            if line.is_empty() {
                return Self { whole: true, ..head };
            }
            if let Some(value) = value(line, b"Status:") {
                head.says_status = true;
                let digits = value.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
                let status = digits.and_then(|digits| digits.parse().ok());
                head.status = head.status.or(status.filter(|status| (100..600).contains(status)));
            }
            head.says_status |= line.starts_with(b"HTTP/");
            head.location |= value(line, b"Location:").is_some_and(|place| !place.is_empty());
        }
        head
    }

    /// It sends the visitor elsewhere and says no status: RFC 3875, 6.2.2 and 6.2.3. nginx, lighttpd and HAProxy take that for 302
    /// by themselves; Apache and Caddy, asking by FastCGI, for 200.
    pub(super) fn redirects(self) -> bool {
        self.whole && self.location && !self.says_status
    }

    /// None: 200.
    pub(super) fn status(self) -> Option<u16> {
        self.status.or((self.location && !self.says_status).then_some(302))
    }
}

/// What a header line of this name says.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (own, value) = line.split_at_checked(name.len())?;
    own.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Lines of a head that are looked at.
const LINES_MOST: usize = 128;

pub(super) fn large() -> Refusal {
    Refusal::new(&LARGE, "more than 64 KiB of parameters".to_owned())
}

pub(super) fn full() -> Refusal {
    Refusal::new(&FULL, "all workers are busy, and as many requests wait as may".to_owned())
}

pub(super) fn waited() -> Refusal {
    Refusal::new(&WAITED, "no worker came free before the queue's deadline".to_owned())
}

pub(super) fn paused() -> Refusal {
    Refusal::new(&PAUSED, "the site is stopped".to_owned())
}

pub(super) fn unstarted() -> Refusal {
    Refusal::new(&UNSTARTED, "no worker starts".to_owned())
}

pub(super) fn exhausted() -> Refusal {
    Refusal::new(&EXHAUSTED, "the kernel has no process, descriptor or memory for its program".to_owned())
}

pub(super) fn died() -> Refusal {
    Refusal::new(&DIED, "the program ended before its answer was complete".to_owned())
}

pub(super) fn garbage() -> Refusal {
    Refusal::new(&GARBAGE, "the program answered what is not FastCGI".to_owned())
}

pub(super) fn deadline() -> Refusal {
    Refusal::new(&DEADLINE, "the request took longer than it may".to_owned())
}

pub(super) fn silent() -> Refusal {
    Refusal::new(&SILENT, "the answer stood still for longer than it may".to_owned())
}

pub(super) fn spent() -> Refusal {
    Refusal::new(&SPENT, "the request took more of the processor than it may".to_owned())
}

static LARGE: Card = Card {
    code: "B01",
    status: 0,
    remedy: "# nothing to mend: no web server sends that much by itself; see large_client_header_buffers, LimitRequestFieldSize",
};
static FULL: Card = Card {
    code: "B02",
    status: 0,
    remedy: "cellwall status # then raise workers.max or queue in the site's [pool], or find out why it is slow",
};
static WAITED: Card = Card {
    code: "B03",
    status: 0,
    remedy: "cellwall status # then raise workers.max or queue_timeout in the site's [pool], or find out why it is slow",
};
static PAUSED: Card = Card { code: "B04", status: 0, remedy: "cellwall pool start SITE" };
static UNSTARTED: Card = Card {
    code: "B05",
    status: 0,
    remedy: "# look at what the program said before it ended: the lines of this site with stderr in the log",
};
static DIED: Card = Card {
    code: "B06",
    status: 0,
    remedy: "# look at what the program said before it ended: the lines of this site with stderr in the log",
};
static GARBAGE: Card = Card {
    code: "B07",
    status: 0,
    remedy: "# command in the site's [pool] must name a FastCGI program; for a CGI program use kind = 'cgi'",
};
static DEADLINE: Card = Card {
    code: "B08",
    status: 0,
    remedy: "# raise timeout in the site's [pool], or make the script faster",
};
static SILENT: Card = Card {
    code: "B09",
    status: 0,
    remedy: "# raise output_timeout in the site's [pool], or have the script write sooner",
};
static SPENT: Card = Card {
    code: "B11",
    status: 0,
    remedy: "# raise cpu_timeout in the site's [pool], or have the script do less",
};
static EXHAUSTED: Card = Card {
    code: "B12",
    status: 0,
    remedy: "systemctl show cellwalld -p LimitNOFILE -p TasksMax -p TasksCurrent # what it may have, and has",
};
pub(super) static STRANGER: Card = Card {
    code: "B10",
    status: 0,
    remedy: "# add the web server's user to clients in the site's [pool], then: cellwall apply",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_answer_is_in_its_head() {
        for (head, status, redirects) in [
            (&b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\n"[..], Some(404), false),
            (b"Content-type: text/html\nstatus:503\n\n", Some(503), false),
            (b"Location: /x\r\n\r\n", Some(302), true),
            (b"location:http://x\nX: y\n\nbody", Some(302), true),
            (b"Location: http://x\r\nStatus: 303 See Other\r\n\r\n", Some(303), false),
            (b"Status: 201 Created\r\nLocation: /x\r\n\r\n", Some(201), false),
            (b"HTTP/1.0 301 Moved\r\nLocation: /x\r\n\r\n", None, false),
            (b"Location:\r\n\r\n", None, false),
            (b"Location: /x\r\n", Some(302), false),
            (b"Location: /x\r\nStat", Some(302), false),
            (b"Content-Type: text/html\r\n\r\nStatus: 500\r\nLocation: /x\r\n\r\n", None, false),
            (b"Status: 9999\r\n\r\n", Some(999).filter(|_| false), false),
            (b"Status: x\r\nLocation: /x\r\n\r\n", None, false),
            (b"", None, false),
        ] {
            let found = Head::of(head);
            assert_eq!(
                (found.status(), found.redirects()),
                (status, redirects),
                "{}",
                String::from_utf8_lossy(head)
            );
        }
        let long = [&b"X: y\r\n".repeat(LINES_MOST)[..], b"Location: /x\r\n\r\n"].concat();
        assert_eq!(Head::of(&long), Head::default(), "too many lines to look at");
    }

    #[test]
    fn a_page_has_a_reference_and_nothing_else() {
        let page = text(503, 7, "ABCD-1234");
        assert!(
            page.starts_with("Status: 503 Service Unavailable\r\n")
                && page.contains("\r\nRetry-After: 7\r\n")
        );
        assert!(!text(502, 7, "ABCD-1234").contains("Retry-After"));
    }
}
