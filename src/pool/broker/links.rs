//! Connections to workers: choosing one, passing a request on. [`super::replies`] is what comes back, [`super::partings`] what
//! becomes of the two where that does not come.
//!
//! A connection is used again only where nothing of its last request can be left in it. libfcgi, which is beneath most
//! programs that are not PHP, reads 8 KiB at a time, and when the program has not read its standard input to the end, it
//! forgets what it has read and takes what it has not for the next request: a breach of the protocol, on which it closes
//! the connection, with whatever request is in it by then. So a request that was not written in one piece of that size
//! has its connection to itself; and the end of a body that there is not, which Apache sends in a packet of its own, is
//! waited for.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::epoll::EpollEvent;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::pool::fastcgi::back::{Back, ID};
use crate::pool::fastcgi::record::{kind, put};
use crate::pool::settings::Kind;
use crate::pool::wire::{self, Up, Why};
use crate::sys::descriptors::take_none;

use super::answers;
use super::arena::Key;
use super::calls::{Call, State};
use super::children::Child;
use super::gather::Pending;
use super::glance::Glance;
use super::lines::Splitter;
use super::site::{Habit, TRIAL_US};
use super::ticks::PATIENCE_MS;
use super::{Broker, COMES, Said, Source, edges};

/// The buffer of libfcgi (`NewReader` in fcgiapp.c).
const ONE_READ: usize = 8192;

/// A connection to a worker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) fd: OwnedFd,
    pub(super) site: u32,
    pub(super) worker: u32,
    pub(super) codec: Back,
    pub(super) call: Option<Key>,
    /// Its web server went away, and the request is let run: at most until then.
    pub(super) orphan: Option<u64>,
    /// What the worker has not taken of the request yet.
    pub(super) pending: Pending,
    /// The kernel tells when it takes more.
    waits: bool,
    pub(super) readable: bool,
    pub(super) ending: bool,
    /// What its worker had spent, in microseconds of CPU time, when that was first told of this request.
    pub(super) spent: Option<u64>,
    /// How often it has answered: the worker may have closed it meanwhile.
    pub(super) answered: u32,
    /// When it did so last.
    pub(super) rested: u64,
    /// The worker does not read any more.
    pub(super) deaf: bool,
    /// Something of the request was written to it.
    pub(super) told: bool,
    /// The worker had closed before anything was.
    pub(super) refused: bool,
    /// All of it was, in one piece that the worker takes with one read.
    pub(super) at_once: bool,
    /// No request is for it: the worker was asked whether it is up.
    pub(super) knock: bool,
    /// What it said last was for the log.
    pub(super) wordy: bool,
    pub(super) words: Splitter,
    /// Which child of the worker's is at its other end, where that counts.
    pub(super) child: Child,
    /// What of its last answer is still in the kernel's queue.
    pub(super) glance: Glance,
}

/// A program whose connection ends with something unread takes it for an error (ECONNRESET).
impl Drop for Link {
    fn drop(&mut self) {
        self.glance.take(&self.fd);
    }
}

impl Link {
    /// As read(2); an answer that may be a short one is left in the kernel's queue.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if self.call.is_some() && !self.ending && self.child.is_settled() {
            if let Some(length) = self.glance.look(&self.fd, buffer)? {
                return Ok(length);
            }
        } else {
            self.glance.take(&self.fd);
        }
        let length = self.child.read(&self.fd, buffer)?;
        self.glance.came(length);
        Ok(length)
    }

    /// It has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.call.is_none() && self.orphan.is_none()
    }

    /// Some of its request is with the worker.
    pub(super) fn has_begun(&self) -> bool {
        self.told || self.pending.begun()
    }

    /// Its answer is complete.
    pub(super) fn rests(&mut self, now: u64) {
        (self.answered, self.rested) = (self.answered.saturating_add(1), now);
        self.child.answered();
    }
}

impl Broker {
    /// A request is ready: to a worker, or into the queue, or refused.
    pub(super) fn place(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let number = call.site;
        let Some(site) = self.sites.get_mut(&number) else { return self.close_call(key) };
        if site.waiting == 0 && self.start(key) {
            return self.want(number);
        }
        let Some(site) = self.sites.get_mut(&number) else { return };
        if site.workers.is_empty() && site.stalled_until > self.now.saturating_add(PATIENCE_MS * 1000) {
            return answers::refuse(self, key, 503, &answers::unstarted());
        }
        if !site.may_wait() {
            return answers::refuse(self, key, 503, &answers::full());
        }
        site.waiting += 1;
        site.counters.queue_most = site.counters.queue_most.max(site.waiting);
        site.queue.push_back(key);
        let deadline = u64::from(site.rules.queue.deadline_ms).saturating_mul(1000);
        let served = !site.workers.is_empty();
        if let Some(call) = self.calls.get_mut(key) {
            call.state = State::Queued;
        }
        if deadline > 0 {
            self.wake_at(self.now.saturating_add(deadline));
        }
        if served {
            self.wake_at(self.now.saturating_add(super::ticks::RESOLUTION_US));
        }
        self.want(number);
    }

    /// Gives a request to a worker or a program of its own. `false`: there is none free.
    fn start(&mut self, key: Key) -> bool {
        let Some(number) = self.calls.get(key).map(|call| call.site) else { return true };
        let Some(site) = self.sites.get(&number) else { return false };
        if site.rules.kind == Kind::Cgi {
            return site.running < site.rules.places() && self.begin_run(key);
        }
        let Some(chosen) = self.free_link(number) else { return false };
        let (Some(call), Some(link)) = (self.calls.get_mut(key), self.links.get_mut(chosen)) else {
            return false;
        };
        let Some(job) = &mut call.job else { return true };
        call.state = State::Linked(chosen);
        link.call = Some(key);
        link.spent = None;
        link.codec.ask();
        (link.told, link.refused, link.at_once) = (false, false, false);
        link.pending.put(&job.bytes);
        if job.retries > 0 {
            // It had no body, whose end must be told once more.
            link.pending.with(|out| put(out, kind::STDIN, ID, &[]));
        }
        (job.started, job.last, job.worker) = (self.now, self.now, link.worker);
        if let Some(worker) = self.workers.get_mut(&link.worker) {
            worker.busy += 1;
        }
        self.started(number, key);
        true
    }

    /// Counts a request that is worked on from now.
    pub(super) fn started(&mut self, number: u32, key: Key) {
        let (Some(site), Some(call)) = (self.sites.get_mut(&number), self.calls.get(key)) else { return };
        site.running += 1;
        site.counters.running_most = site.counters.running_most.max(site.running);
        if site.running == site.rules.places() {
            site.counters.places_full += 1;
        }
        let Some(job) = &call.job else { return };
        site.counters.waited.add(self.now.saturating_sub(job.arrived));
        let request = &site.rules.request;
        let limits = [request.deadline_ms, request.silence_ms].map(|ms| u64::from(ms).saturating_mul(1000));
        for limit in limits.into_iter().chain([site.rules.slow_us]).filter(|limit| *limit > 0) {
            self.wake_at(self.now.saturating_add(limit));
        }
    }

    /// A connection to a worker with nothing to do; the last used is warm, and the others may end for want of work.
    fn free_link(&mut self, number: u32) -> Option<Key> {
        if let Some(key) = self.new_heir(number).or_else(|| self.kept_link(number)) {
            return Some(key);
        }
        let site = self.sites.get(&number)?;
        let free = |one: &wire::Worker| {
            let worker = self.workers.get(&one.0);
            worker.is_some_and(|worker| {
                worker.draining.is_none() && worker.open < worker.connections && !worker.knocked
            })
        };
        // One that has answered before is sure to be there.
        let ready = |one: &wire::Worker| self.workers.get(&one.0).is_some_and(|worker| worker.ready);
        let mut all: Vec<wire::Worker> = site.workers.iter().copied().filter(free).collect();
        all.sort_by_key(|one| !ready(one));
        all.into_iter().find_map(|one| self.connect(number, one))
    }

    /// A kept connection that is sure to be there, as far as one can know.
    fn kept_link(&mut self, number: u32) -> Option<Key> {
        let site = self.sites.get_mut(&number)?;
        if site.habit == Habit::Closes {
            // One that began its trial before this was known may be closing at this moment.
            for key in std::mem::take(&mut site.idle) {
                self.close_link(key);
            }
            return None;
        }
        let (mut found, mut on_trial) = (None, Vec::new());
        while let Some(key) = site.idle.pop() {
            let Some(link) = self.links.get(key).filter(|link| link.is_idle() && !link.ending) else {
                continue;
            };
            if site.habit == Habit::Keeps || link.rested.saturating_add(TRIAL_US) <= self.now {
                found = Some(key);
                break;
            }
            on_trial.push(key);
        }
        if !on_trial.is_empty() {
            site.idle.extend(on_trial.into_iter().rev());
            self.wake_at(self.now.saturating_add(TRIAL_US));
        }
        found
    }

    /// Connects to a worker's socket, whose name is all that the broker has of it.
    pub(super) fn connect(&mut self, number: u32, one: wire::Worker) -> Option<Key> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
        // Before Linux 6.16 a worker's can hold the broker up, until the supervisor finds it stuck.
        let _ = take_none(&fd);
        let name = wire::socket_name(wire::Site(number), one);
        let address = UnixAddr::new(name.as_str()).ok()?;
        let tells = self.sites.get(&number).is_some_and(|site| site.rules.makes_children);
        let worker = self.workers.get_mut(&one.0)?;
        match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address) {
            Ok(()) => {}
            // It is not there any more, or does not listen.
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => {
                worker.draining = Some(Why::Garbage);
                self.say(Up::Kill { site: wire::Site(number), worker: one, why: Why::Unready });
                return None;
            }
            // As many wait as may; or the kernel cannot at this moment, which is no fault of the worker's.
            Err(_) => return None,
        }
        let child = if tells { Child::asked(&fd) } else { Child::default() };
        worker.open += 1;
        let key = self.links.insert(Link {
            fd,
            site: number,
            worker: one.0,
            codec: Back::default(),
            call: None,
            orphan: None,
            spent: None,
            pending: Pending::default(),
            waits: false,
            readable: false,
            ending: false,
            answered: 0,
            rested: 0,
            deaf: false,
            told: false,
            refused: false,
            at_once: false,
            wordy: false,
            words: Splitter::default(),
            knock: false,
            child,
            glance: Glance::default(),
        });
        let watched = self.links.get(key).is_some_and(|link| self.watch(&link.fd, Source::Link, key, COMES));
        if watched {
            return Some(key);
        }
        self.close_link(key);
        None
    }

    /// The next ones of the queue, as long as there are workers.
    pub(super) fn dispatch(&mut self, number: u32) {
        while let Some(site) = self.sites.get_mut(&number) {
            let Some(key) = site.queue.pop_front() else { return };
            if !self.calls.get(key).is_some_and(|call| call.state == State::Queued) {
                continue;
            }
            site.waiting = site.waiting.saturating_sub(1);
            if !self.start(key) {
                let Some(site) = self.sites.get_mut(&number) else { return };
                site.queue.push_front(key);
                site.waiting += 1;
                return;
            }
            let held = self.calls.get_mut(key).map(|call| std::mem::take(&mut call.held)).unwrap_or_default();
            self.understand(key, &held);
            if self.calls.get(key).is_some_and(|call| !call.codec.whole()) {
                self.watch_call(key);
            }
            if self.calls.get(key).is_some_and(|call| call.readable) {
                self.again.push((Source::Call, key));
            }
        }
    }

    pub(super) fn link_event(&mut self, key: Key, said: Said) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.ending |= said.ending;
        if said.writable && !link.pending.is_empty() {
            self.write_link(key);
        }
        let knock = self.links.get(key).is_some_and(|link| link.knock);
        match said.readable {
            true if knock => self.opened(key),
            true => self.read_link(key),
            false => {}
        }
    }

    /// Writes what waits for a worker. When all is written, the web server is heard again.
    pub(super) fn write_link(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.deaf {
            link.pending.clear();
        }
        if !link.pending.is_empty() {
            let whole = link.call.and_then(|call| self.calls.get(call)).is_some_and(Call::is_whole);
            link.at_once = whole && !link.told && link.pending.left() <= ONE_READ;
        }
        match link.pending.write(&link.fd) {
            Ok(false) => link.told |= link.pending.begun(),
            Ok(true) => {
                link.told = true;
                link.glance.take(&link.fd);
                if let Some(call) = link.call
                    && self.calls.get(call).is_some_and(|call| call.readable)
                {
                    self.again.push((Source::Call, call));
                }
            }
            Err(_) => {
                // What it said before it stopped reading is still to be read.
                link.deaf = true;
                link.refused = !link.told && !link.pending.begun();
                link.pending.clear();
                self.again.push((Source::Link, key));
            }
        }
        self.watch_link(key);
    }

    /// Has the kernel tell when a worker takes more, where something waits for it.
    fn watch_link(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let waits = !link.pending.is_empty();
        if std::mem::replace(&mut link.waits, waits) == waits {
            return;
        }
        let mut event = EpollEvent::new(edges(waits), Source::Link.token(key));
        if self.epoll.modify(&link.fd, &mut event).is_err() {
            // Nothing would be heard of it any more.
            self.link_lost(key);
        }
    }

    /// The web server takes more again.
    pub(super) fn link_resumes(&mut self, key: Key) {
        if self.links.get(key).is_some_and(|link| link.readable) {
            self.again.push((Source::Link, key));
        }
    }

    /// A worker with nothing to do: the clock will look whether it is needed.
    pub(super) fn rest(&mut self, number: u32, serial: u32) {
        let idle = self.workers.get(&serial).is_some_and(|worker| worker.busy == 0);
        let Some(site) = self.sites.get(&number) else { return };
        if idle && site.waiting == 0 {
            self.wake_at(self.now.saturating_add(u64::from(site.rules.workers.idle_ms).saturating_mul(1000)));
        }
    }

    /// Nothing of the last request and its answer is left in a connection, and it is open.
    pub(super) fn is_left_empty(&self, key: Key) -> bool {
        let Some(link) = self.links.get(key) else { return false };
        let reads_all = || self.sites.get(&link.site).is_some_and(|site| site.rules.reads_all);
        let taken = link.pending.is_empty() && (link.at_once || reads_all());
        taken && link.codec.clean() && !link.deaf && !link.ending
    }

    /// Closes a worker's connections that have nothing to do.
    pub(super) fn close_idle(&mut self, serial: u32) {
        let idle = |(key, link): (Key, &Link)| (link.worker == serial && link.is_idle()).then_some(key);
        for key in self.links.iter().filter_map(idle).collect::<Vec<_>>() {
            self.close_link(key);
        }
    }

    pub(super) fn close_link(&mut self, key: Key) {
        let Some(mut link) = self.links.remove(key) else { return };
        if let Some(site) = self.sites.get_mut(&link.site) {
            site.idle.retain(|idle| *idle != key);
            self.journal.errors(site, Some(link.worker), &link.words.rest(), self.now);
        }
        let Some(worker) = self.workers.get_mut(&link.worker) else { return };
        worker.open = worker.open.saturating_sub(1);
        worker.children.part(&link.child, worker.connections);
        worker.knocked &= !link.knock;
    }

    /// Asks for as many workers as the work needs. Fewer are never asked for here: those with nothing to do are
    /// dismissed one by one.
    pub(super) fn want(&mut self, number: u32) {
        let Some(site) = self.sites.get_mut(&number) else { return };
        if site.rules.kind == Kind::Cgi || site.paused {
            return;
        }
        // The supervisor counts them among those that serve until it is told otherwise; what it drains itself it does not.
        let leaving = |one: &&wire::Worker| {
            self.workers.get(&one.0).is_some_and(|worker| {
                !worker.dismissed && worker.draining.is_some_and(|why| why != Why::Drained)
            })
        };
        let leaving = u32::try_from(site.workers.iter().filter(leaving).count()).unwrap_or(u32::MAX);
        let count = site.needed().saturating_add(leaving);
        if count > site.wanted {
            site.wanted = count;
            self.say(Up::Want { site: wire::Site(number), count });
        }
    }
}
