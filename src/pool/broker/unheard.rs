//! What the kernel does not tell of, because it has no memory or no watches left for it (epoll_ctl(2): ENOMEM, ENOSPC): recorded, and
//! asked for again. Unheard it would stay so for ever: a site that nobody can connect to, an answer that never comes.
//!
//! Here is what cannot be done without. A connection that cannot be watched is closed instead: whoever made it comes again.

use std::os::fd::{AsFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::arena::Key;
use super::lines::PIPE;
use super::{Broker, Source};

/// What waits to be heard, and when that was told last.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    all: Vec<(Source, Key)>,
    told: Option<u64>,
}

impl Broker {
    /// Has the kernel tell of this, now or as soon as it can.
    pub(super) fn watch_over(&mut self, source: Source, key: Key) {
        if let Err(errno) = self.ask_kernel(source, key) {
            self.unheard.all.push((source, key));
            self.wake_at(self.now.saturating_add(AGAIN_US));
            self.tell_unheard(source, key, errno);
        }
    }

    /// The clock's look. Returns when the next one is due.
    pub(super) fn hear_again(&mut self) -> u64 {
        for (source, key) in std::mem::take(&mut self.unheard.all) {
            if let Err(errno) = self.ask_kernel(source, key) {
                self.unheard.all.push((source, key));
                self.tell_unheard(source, key, errno);
            }
        }
        if self.unheard.all.is_empty() { u64::MAX } else { self.now.saturating_add(AGAIN_US) }
    }

    /// What is gone, or is not to be heard any more, needs nothing.
    fn ask_kernel(&self, source: Source, key: Key) -> Result<(), Errno> {
        let Some((descriptor, flags)) = self.descriptor(source, key) else { return Ok(()) };
        match self.epoll.add(descriptor, EpollEvent::new(flags, source.token(key))) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    fn descriptor(&self, source: Source, key: Key) -> Option<(BorrowedFd<'_>, EpollFlags)> {
        match source {
            Source::Listener => {
                let site = self.sites.get(&u32::try_from(key.0).ok()?).filter(|site| site.watched)?;
                Some((site.listener.as_fd(), EpollFlags::EPOLLIN))
            }
            Source::Status => Some((self.status.as_ref()?.as_fd(), EpollFlags::EPOLLIN)),
            Source::Pipe => Some((self.pipes.get(key)?.fd.as_fd(), PIPE)),
            Source::RunInput | Source::RunOutput | Source::RunErrors => self.runs.get(key)?.pipe(source),
            Source::Supervisor | Source::Call | Source::Link | Source::Watcher => None,
        }
    }

    /// One line a second, however much is not heard.
    pub(super) fn tell_unheard(&mut self, source: Source, key: Key, errno: Errno) {
        if self.unheard.told.is_some_and(|told| self.now < told.saturating_add(TELL_US)) {
            return;
        }
        self.unheard.told = Some(self.now);
        let number = match source {
            Source::Listener => u32::try_from(key.0).ok(),
            Source::Pipe => self.pipes.get(key).map(|pipe| pipe.site),
            Source::RunInput | Source::RunOutput | Source::RunErrors => {
                self.runs.get(key).map(|run| run.site)
            }
            Source::Call => self.calls.get(key).map(|call| call.site),
            Source::Supervisor | Source::Link | Source::Status | Source::Watcher => None,
        };
        let site = number.and_then(|number| self.sites.get(&number));
        let site = site.map(|site| format!(" site={}", site.rules.name)).unwrap_or_default();
        let (what, count) = (format!("{source:?}").to_lowercase(), self.unheard.all.len());
        let why = errno.desc();
        self.journal.say(&format!("pool error{site} call=epoll_ctl of={what} waiting={count} why=\"{why}\""));
    }
}

/// From one try to the next.
const AGAIN_US: u64 = 100_000;
/// From one line to the next.
const TELL_US: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Write as _, pipe};
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::pool::broker::lines::{Pipe, Splitter};
    use crate::pool::channel::Channel;

    /// A kernel that has no watches left is not to be had for one test alone: a plain file cannot be watched either (EPERM).
    #[test]
    fn what_cannot_be_watched_is_told_and_heard_as_soon_as_it_can() {
        let (_supervisor, own) = Channel::pair().unwrap();
        let mut broker = Broker::new(own).unwrap();
        let (mut said, log) = pipe().unwrap();
        broker.journal.open(Some(log.into()));
        let plain: OwnedFd = File::open("/proc/self/exe").unwrap().into();
        let pipe_of = |fd| Pipe { fd, site: 1, worker: 1, alone: true, lines: Splitter::default() };
        let key = broker.pipes.insert(pipe_of(plain));
        broker.watch_over(Source::Pipe, key);
        broker.look_at_the_clock();
        assert_eq!(broker.unheard.all, [(Source::Pipe, key)]);
        assert!(broker.tick <= AGAIN_US, "it is asked again");
        let (reader, mut writer) = pipe().unwrap();
        broker.pipes.get_mut(key).unwrap().fd = reader.into();
        writer.write_all(b"before anybody heard\n").unwrap();
        broker.now = AGAIN_US;
        broker.look_at_the_clock();
        assert!(broker.unheard.all.is_empty());
        let mut events = [EpollEvent::empty(); 2];
        assert_eq!(broker.epoll.wait(&mut events, 0_u8), Ok(1));
        assert_eq!(events[0].data(), Source::Pipe.token(key));
        // One line, though it was tried twice.
        broker.journal.open(None);
        let text = std::io::read_to_string(&mut said).unwrap();
        assert_eq!(text.matches("call=epoll_ctl of=pipe waiting=1 ").count(), 1, "{text}");
    }
}
