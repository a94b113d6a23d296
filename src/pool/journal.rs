//! The supervisor's own lines in the host's log, and what it knows of the host: who the broker is.
//!
//! A line is `pool EVENT key=value…`, written as the launcher writes its own. Names of accounts are looked up in /etc/passwd
//! alone: the broker's is an account of this host, and root asks no name service.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;

use nix::sys::stat::fstat;

use crate::policy::{DIRECTORY, HOST_FILE, decode, read};
use crate::record::{Log, make_room, reference};
use crate::refusal::{Refusal, Untrusted};

/// Where the supervisor writes.
pub struct Journal {
    log: Log<'static>,
}

impl Journal {
    /// Opens the log that the policy of the host names; without one, the system log.
    ///
    /// # Errors
    /// When the host's policy is there and cannot be used.
    pub fn open() -> io::Result<Self> {
        let bytes = match read::host() {
            Ok(bytes) => bytes,
            Err(read::Unreadable::Missing) => {
                return Ok(Self { log: Log::open(None) });
            }
            Err(why) => return Err(unusable(&why)),
        };
        let host = decode::host(&bytes).map_err(|why| unusable(&why))?;
        Ok(Self { log: Log::open(Some(&host.log)) })
    }

    /// One line: what happened, to which site, and more `key=value`.
    pub fn say(&mut self, event: &str, site: &[u8], more: &str) {
        let site = if site.is_empty() { String::new() } else { format!(" site={}", Untrusted(site)) };
        let space = if more.is_empty() { "" } else { " " };
        self.log.note(&format!("pool {event}{site}{space}{more}"));
    }

    /// A refusal of the supervisor's own, about a site.
    pub fn refused(&mut self, site: &[u8], refusal: &Refusal) {
        let Refusal { card, why, fix } = refusal;
        let (why, fix) = (why.replace('"', "'"), fix.replace('"', "'"));
        let (site, reference) = (Untrusted(site), reference());
        self.log.note(&format!(
            "refuse ref={reference} code={} status={} site={site} why=\"{why}\" fix=\"{fix}\"",
            card.code, card.status
        ));
    }

    /// Zygotes have opened the log long ago: their records have room as well.
    pub fn make_room(&self) {
        if let Some((log, facts)) = self.log.sink().and_then(|log| Some((log, fstat(log).ok()?))) {
            make_room(log, &facts);
        }
    }

    /// The log itself, for the broker: an append-only file, or a datagram socket.
    #[must_use]
    pub fn sink(&self) -> Option<Rc<OwnedFd>> {
        let sink = self.log.sink()?;
        // Opened anew: the broker has no business reading it. A socket cannot be.
        let anew = OpenOptions::new().append(true).open(format!("/proc/self/fd/{}", sink.as_raw_fd()));
        anew.map(OwnedFd::from).or_else(|_| sink.try_clone_to_owned()).ok().map(Rc::new)
    }
}

fn unusable(why: &dyn Display) -> io::Error {
    io::Error::other(format!("the host's policy, {DIRECTORY}/{HOST_FILE}: {why}"))
}

/// Uid and gid of the first account of /etc/passwd that is meant.
#[must_use]
pub fn account(meant: impl Fn(&str, u32) -> bool) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        meant(name, uid).then_some((uid, gid))
    })
}
