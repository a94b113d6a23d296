//! The broker: between web servers and workers, as nobody, with no files.
//!
//! One thread, one epoll, nothing that waits. A connection of a web server is a `Call`, one to a worker a
//! `Link`, a CGI program a `Run`. Requests are read whole up to their body before a worker is chosen,
//! so a slow visitor holds nobody; connections to workers are kept and used again; answers are framed anew, so that
//! requests can be counted, timed and ended.
//!
//! Descriptors are watched edge by edge: what was not read because the other side is slow is remembered as readable.
//! A short read has emptied the socket, except at its end, which the kernel tells with `EPOLLRDHUP`.
//!
//! May not: open a file, know a uid, path or command of a worker (of a child it knows the number, which the kernel tells), wait
//! for anything but epoll, share memory.

mod allowance;
mod answers;
mod arena;
mod arrivals;
mod calls;
mod children;
mod counters;
mod flood;
mod gather;
mod glance;
mod heirs;
mod lines;
mod links;
mod load;
mod metrics;
mod orders;
mod pace;
mod partings;
mod replies;
mod runs;
pub mod seal;
mod site;
mod status;
mod ticks;
mod unheard;
mod watchers;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::channel::{Channel, Lost};
use super::gate::Names;
use super::wire::{self, Up};
use arena::{Arena, Key};
use calls::Call;
use gather::{Gather, Spares};
use lines::{Journal, Pipe};
use links::Link;
use pace::Pace;
use runs::Run;
use site::{Site, Worker};
use unheard::Unheard;
use watchers::Watcher;

/// Serves until the supervisor says [`wire::Down::Quit`] and all is done.
///
/// # Errors
/// [`Lost`]: the supervisor is gone or is not what it should be; or the kernel has no epoll.
pub fn serve(supervisor: OwnedFd) -> Result<(), Lost> {
    let mut broker = Broker::new(supervisor).map_err(Lost::Failed)?;
    broker.tell(Up::Hello { version: wire::VERSION })?;
    broker.run()
}

/// As [`serve`], sealed before the first byte: what is needed once is done by then.
///
/// # Errors
/// As [`serve`], and those of [`seal::seal`].
pub fn serve_sealed(supervisor: OwnedFd) -> Result<(), Lost> {
    let mut broker = Broker::new(supervisor).map_err(Lost::Failed)?;
    seal::seal().map_err(Lost::Failed)?;
    broker.tell(Up::Hello { version: wire::VERSION })?;
    broker.run()
}

/// All that the broker knows.
struct Broker {
    epoll: Epoll,
    supervisor: Channel,
    /// The supervisor's socket is watched for writing.
    flushing: bool,
    began: Instant,
    /// Microseconds since then, at the last look.
    now: u64,
    /// The next look at deadlines.
    tick: u64,
    last_tick: u64,
    pace: Pace,
    /// Brief requests of all sites that were answered.
    brief: u64,
    sites: BTreeMap<u32, Site>,
    workers: BTreeMap<u32, Worker>,
    calls: Arena<Call>,
    links: Arena<Link>,
    runs: Arena<Run>,
    pipes: Arena<Pipe>,
    watchers: Arena<Watcher>,
    known: HashSet<Rc<Names>>,
    journal: Journal,
    status: Option<OwnedFd>,
    unheard: Unheard,
    /// What is read, and what is written of it.
    buffer: Vec<u8>,
    gather: Gather,
    spares: Spares,
    /// Had more to read than their turn allowed.
    again: Vec<(Source, Key)>,
    /// What is not read before its site may say something again.
    held: Vec<(u32, Source, Key)>,
    /// Whole requests whose web server is not watched yet, oldest first.
    unwatched: VecDeque<(u64, Key)>,
    /// Listening sockets that are not watched for want of descriptors, until then.
    crowded: Option<u64>,
    descriptors_max: i32,
    quit: Option<u64>,
    /// As long as that lasts: who has connected and asked for nothing may still do so.
    speaks_until: u64,
    lost: Option<Lost>,
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Supervisor,
    Listener,
    Call,
    Link,
    RunInput,
    RunOutput,
    RunErrors,
    Pipe,
    Status,
    Watcher,
}

impl Source {
    const ALL: [Self; 10] = [
        Self::Supervisor,
        Self::Listener,
        Self::Call,
        Self::Link,
        Self::RunInput,
        Self::RunOutput,
        Self::RunErrors,
        Self::Pipe,
        Self::Status,
        Self::Watcher,
    ];

    /// Four bits above the key's.
    fn token(self, key: Key) -> u64 {
        let number =
            Self::ALL.iter().position(|one| *one == self).and_then(|place| u64::try_from(place).ok());
        (number.unwrap_or(15) << 60) | key.0
    }

    fn of(token: u64) -> Option<(Self, Key)> {
        let number = usize::try_from(token >> 60).ok()?;
        Some((*Self::ALL.get(number)?, Key(token & ((1 << 60) - 1))))
    }
}

/// What the kernel said about a descriptor.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    readable: bool,
    writable: bool,
    /// The other side closed its writing end, or all.
    ending: bool,
    /// The other side is gone.
    gone: bool,
}

impl Said {
    fn of(flags: EpollFlags) -> Self {
        let gone = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let ending = gone || flags.contains(EpollFlags::EPOLLRDHUP);
        Self {
            readable: ending || flags.contains(EpollFlags::EPOLLIN),
            writable: gone || flags.contains(EpollFlags::EPOLLOUT),
            ending,
            gone,
        }
    }
}

/// What comes, edge by edge.
const COMES: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);
/// Both directions. Only while something waits to be written: the kernel tells of room each time that the other side has
/// read something, which would wake us twice more for each request.
const BOTH: EpollFlags = COMES.union(EpollFlags::EPOLLOUT);

/// Which edges of a descriptor.
fn edges(waits: bool) -> EpollFlags {
    if waits { BOTH } else { COMES }
}
/// Bytes of one read. 1 MB answers want it large; it is one for all.
const BUFFER: usize = 256 * 1024;
/// Most reads of one descriptor in its turn.
const ROUNDS: usize = 4;
/// Most events of one wait.
const EVENTS: usize = 256;
/// A whole request whose answer takes longer than this is watched for its web server's going away.
const UNWATCHED_US: u64 = 10_000;

impl Broker {
    fn new(supervisor: OwnedFd) -> Result<Self, Errno> {
        crate::sys::process::quiet_signals()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Supervisor.token(Key(0)));
        epoll.add(&supervisor, event)?;
        Ok(Self {
            epoll,
            supervisor: Channel::new(supervisor),
            flushing: false,
            began: Instant::now(),
            now: 0,
            tick: u64::MAX,
            last_tick: 0,
            pace: Pace::default(),
            brief: 0,
            sites: BTreeMap::new(),
            workers: BTreeMap::new(),
            calls: Arena::default(),
            links: Arena::default(),
            runs: Arena::default(),
            pipes: Arena::default(),
            watchers: Arena::default(),
            known: HashSet::new(),
            journal: Journal::default(),
            status: None,
            unheard: Unheard::default(),
            buffer: vec![0; BUFFER],
            gather: Gather::default(),
            spares: Spares::default(),
            again: Vec::new(),
            held: Vec::new(),
            unwatched: VecDeque::new(),
            crowded: None,
            descriptors_max: descriptors_max(),
            quit: None,
            speaks_until: u64::MAX,
            lost: None,
        })
    }

    /// Wait, do what is to be done, look at the clock; again.
    fn run(&mut self) -> Result<(), Lost> {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        while !self.is_done() {
            let ready = match self.epoll.wait(&mut events, self.patience()) {
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(Lost::Failed(errno)),
                Ok(ready) => ready,
            };
            self.now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.pace.count(ready, self.now);
            for event in events.iter().take(ready) {
                self.event(event)?;
            }
            for (source, key) in std::mem::take(&mut self.again) {
                self.act(source, key, Said { readable: true, ..Said::default() })?;
            }
            self.watch_the_slow();
            if let Some(due) = self.journal.due {
                self.wake_at(due);
            }
            if self.now >= self.tick {
                self.look_at_the_clock();
            }
            self.flush()?;
        }
        Ok(())
    }

    /// How long to wait.
    fn patience(&self) -> EpollTimeout {
        if !self.again.is_empty() {
            return EpollTimeout::ZERO;
        }
        let unwatched = self.unwatched.front().map_or(u64::MAX, |(since, _)| since + UNWATCHED_US);
        let next = self.tick.min(unwatched);
        if next == u64::MAX {
            return EpollTimeout::NONE;
        }
        // One millisecond more than less: a deadline that is looked at too early is looked at twice.
        let ms = next.saturating_sub(self.now).div_ceil(1000).saturating_add(1).min(60_000);
        u16::try_from(ms).map_or(EpollTimeout::ZERO, EpollTimeout::from)
    }

    fn event(&mut self, event: &EpollEvent) -> Result<(), Lost> {
        match Source::of(event.data()) {
            Some((source, key)) => self.act(source, key, Said::of(event.events())),
            None => Ok(()),
        }
    }

    fn act(&mut self, source: Source, key: Key, said: Said) -> Result<(), Lost> {
        match source {
            Source::Supervisor => return self.orders(said),
            Source::Listener => self.arrivals(key),
            Source::Call => self.call_event(key, said),
            Source::Link => self.link_event(key, said),
            Source::RunInput => self.run_input(key),
            Source::RunOutput => self.run_output(key),
            Source::RunErrors => self.run_speaks(key),
            Source::Pipe => self.pipe_event(key),
            Source::Status => self.watcher_arrives(),
            Source::Watcher => self.watcher_event(key, said),
        }
        Ok(())
    }

    fn tell(&mut self, message: Up) -> Result<(), Lost> {
        self.supervisor.send(&message, Vec::new())
    }

    /// A message whose failing ends the loop at the next [`Broker::flush`].
    fn say(&mut self, message: Up) {
        self.say_with(message, Vec::new());
    }

    fn say_with(&mut self, message: Up, with: Vec<Rc<OwnedFd>>) {
        if let Err(lost) = self.supervisor.send(&message, with) {
            self.lost.get_or_insert(lost);
        }
    }

    /// Sends what waits for the supervisor, and has the kernel say when more goes.
    fn flush(&mut self) -> Result<(), Lost> {
        if let Some(lost) = self.lost {
            return Err(lost);
        }
        if self.supervisor.is_waiting() {
            self.supervisor.flush()?;
        }
        let waiting = self.supervisor.is_waiting();
        if waiting != self.flushing {
            let flags =
                if waiting { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            let mut event = EpollEvent::new(flags, Source::Supervisor.token(Key(0)));
            self.epoll.modify(self.supervisor.as_fd(), &mut event).map_err(Lost::Failed)?;
            self.flushing = waiting;
        }
        Ok(())
    }

    /// A deadline: the clock is looked at then, or a little later.
    fn wake_at(&mut self, when: u64) {
        self.tick = self.tick.min(when.max(self.last_tick.saturating_add(ticks::RESOLUTION_US)));
    }

    fn watch(&self, descriptor: impl AsFd, source: Source, key: Key, flags: EpollFlags) -> bool {
        self.epoll.add(descriptor, EpollEvent::new(flags, source.token(key))).is_ok()
    }

    fn is_done(&self) -> bool {
        self.quit.is_some_and(|within| self.now >= within || (self.calls.len() == 0 && self.runs.len() == 0))
    }
}

/// As many descriptors as this process may have.
fn descriptors_max() -> i32 {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.ok().and_then(|(soft, _)| i32::try_from(soft).ok()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_leaves_nothing_to_do() {
        let (_supervisor, own) = Channel::pair().unwrap();
        let mut broker = Broker::new(own).unwrap();
        let all = Said { readable: true, writable: true, ending: true, gone: true };
        for source in Source::ALL {
            broker.act(source, Key(1), all).unwrap();
            assert!(broker.again.is_empty(), "{source:?} would be looked at for ever");
        }
    }
}
