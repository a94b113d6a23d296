//! Connections to workers: choosing one, passing a request on, relaying its answer.
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
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, shutdown, socket};

use crate::pool::fastcgi::back::{Back, Event, ID};
use crate::pool::fastcgi::record::{kind, put};
use crate::pool::fastcgi::{Broken, Ending, Role};
use crate::pool::settings::Kind;
use crate::pool::wire::{self, Up, Why};

use super::answers::{self, FOUND, Head};
use super::arena::Key;
use super::calls::{Call, State};
use super::children::Child;
use super::gather::Pending;
use super::heirs;
use super::lines::Splitter;
use super::site::{Habit, TRIAL_US};
use super::ticks::PATIENCE_MS;
use super::{Broker, COMES, ROUNDS, Said, Source, edges};

/// So often a request is given to another worker: each of a pool may be ending at the same time.
const AGAIN_MOST: u8 = 4;
/// A program that is to end with its web server's interest, and has not got the whole request yet, has so long to find out that
/// no more of it comes.
const FINDS_OUT_US: u64 = 2_000_000;
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
    answered: u32,
    /// When it did so last.
    rested: u64,
    /// The worker does not read any more.
    deaf: bool,
    /// Something of the request was written to it.
    told: bool,
    /// The worker had closed before anything was.
    refused: bool,
    /// All of it was, in one piece that the worker takes with one read.
    at_once: bool,
    /// No request is for it: the worker was asked whether it is up.
    pub(super) knock: bool,
    /// What it said last was for the log.
    wordy: bool,
    words: Splitter,
    /// Which child of the worker's is at its other end, where that counts.
    pub(super) child: Child,
}

impl Link {
    /// It has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.call.is_none() && self.orphan.is_none()
    }

    /// Some of its request is with the worker.
    fn has_begun(&self) -> bool {
        self.told || self.pending.begun()
    }

    /// Its answer is complete.
    fn rests(&mut self, now: u64) {
        (self.answered, self.rested) = (self.answered.saturating_add(1), now);
        self.child.answered();
    }
}

/// What a read brought.
#[derive(Debug, Default)]
struct Heard {
    end: Option<(u32, Ending)>,
    broken: Option<Broken>,
    stdout: u64,
    status: Option<u16>,
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
        if job.again > 0 {
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
        let free = |one: &&wire::Worker| {
            let worker = self.workers.get(&one.0);
            worker.is_some_and(|worker| {
                worker.draining.is_none() && worker.open < worker.connections && !worker.knocked
            })
        };
        // One that has answered before is sure to be there.
        let ready = |one: &&wire::Worker| self.workers.get(&one.0).is_some_and(|worker| worker.ready);
        let all = site.workers.clone();
        let mut all: Vec<&wire::Worker> = all.iter().filter(free).collect();
        all.sort_by_key(|one| !ready(one));
        all.into_iter().find_map(|one| self.connect(number, *one))
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

    fn read_link(&mut self, key: Key) {
        // What a worker that has ended left behind is read to its end.
        let wordy = |link: &&Link| link.wordy && self.workers.contains_key(&link.worker);
        let site = self.links.get(key).filter(wordy).map(|link| link.site);
        if site.is_some_and(|site| self.holds(site, Source::Link, key)) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..ROUNDS {
            let Some(link) = self.links.get_mut(key) else { break };
            let slow =
                link.call.and_then(|call| self.calls.get(call)).is_some_and(|call| !call.pending.is_empty());
            link.readable = slow;
            if slow {
                break;
            }
            more = match link.child.read(&link.fd, &mut buffer) {
                Ok(0) => self.link_lost(key),
                Ok(length) => {
                    let short = length < buffer.len() && !link.ending;
                    self.relay(key, buffer.get(..length).unwrap_or_default());
                    !short
                }
                Err(Errno::EINTR) => true,
                Err(Errno::EAGAIN) => false,
                Err(_) => self.link_lost(key),
            };
            if !more {
                break;
            }
        }
        self.buffer = buffer;
        if more && self.links.get(key).is_some_and(|link| !link.readable) {
            self.again.push((Source::Link, key));
        }
    }

    /// Passes a piece of an answer on.
    fn relay(&mut self, key: Key, bytes: &[u8]) {
        self.gather.clear();
        let heard = self.hear(key, bytes);
        let Some(link) = self.links.get(key) else { return };
        if link.orphan.is_some() {
            if heard.broken.is_some() || heard.end.is_some() {
                self.orphan_ends(key, heard.broken.is_none());
            }
            return;
        }
        let Some(call_key) = link.call else { return self.close_link(key) };
        let Some(call) = self.calls.get_mut(call_key) else { return self.close_link(key) };
        if let Some(job) = &mut call.job {
            job.last = self.now;
            job.sent = job.sent.saturating_add(heard.stdout);
            job.status = heard.status.unwrap_or(job.status);
        }
        let silent = call.job.as_ref().is_none_or(|job| job.sent == 0);
        let refused = heard.end.is_some_and(|(_, ending)| ending != Ending::Complete);
        if heard.broken.is_some() || (refused && silent) {
            return self.garbage(key, call_key);
        }
        if silent && heard.end.is_some() {
            // The web server would make a page of its own of it, which names no reference.
            let serial = link.worker;
            self.unbind(key, call_key, serial);
            return self.failed(call_key, 502, &answers::died());
        }
        if let Some((status, _)) = heard.end {
            self.gather.end(call.codec.request().id, status);
        }
        if !self.gather.is_empty() {
            self.write_answer(call_key, bytes);
        }
        if heard.end.is_some() {
            self.finished(key, call_key);
        }
    }

    /// Takes a piece of an answer apart, into `gather`.
    fn hear(&mut self, key: Key, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        let Some(link) = self.links.get_mut(key) else { return heard };
        let call = link.call.and_then(|call| self.calls.get(call));
        let id = call.map_or(0, |call| call.codec.request().id);
        let first = call.and_then(|call| call.job.as_ref()).is_none_or(|job| job.sent == 0);
        let responds = call.is_some_and(|call| call.codec.request().role == Role::Responder);
        let mut site = self.sites.get_mut(&link.site);
        let mut input = bytes;
        link.wordy = false;
        loop {
            match link.codec.next(&mut input) {
                Ok(None) => return heard,
                Ok(Some(Event::Stdout(part))) => {
                    if first && heard.stdout == 0 {
                        let head = Head::of(part);
                        heard.status = head.status();
                        if responds && head.redirects() {
                            self.gather.copy(|out| put(out, kind::STDOUT, id, FOUND));
                        }
                    }
                    heard.stdout = heard.stdout.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
                    let end = bytes.len().saturating_sub(input.len());
                    self.gather.record(kind::STDOUT, id, part, end.saturating_sub(part.len())..end);
                }
                Ok(Some(Event::Stderr(part))) => {
                    link.wordy = true;
                    if let Some(site) = &mut site {
                        self.journal.errors(site, Some(link.worker), &link.words.whole(part), self.now);
                        if site.rules.errors_to_server {
                            let end = bytes.len().saturating_sub(input.len());
                            self.gather.record(kind::STDERR, id, part, end.saturating_sub(part.len())..end);
                        }
                    }
                }
                Ok(Some(Event::End(status, ending))) => {
                    if let Some(site) = &mut site {
                        self.journal.errors(site, Some(link.worker), &link.words.rest(), self.now);
                    }
                    heard.end = Some((status, ending));
                    // What follows it makes the connection useless, and nothing else.
                    link.deaf |= !input.is_empty();
                    return heard;
                }
                Err(broken) => {
                    heard.broken = Some(broken);
                    return heard;
                }
            }
        }
    }

    /// A worker's answer is complete.
    fn finished(&mut self, key: Key, call_key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let serial = link.worker;
        link.call = None;
        link.rests(self.now);
        let proven = link.answered > 1;
        let whole = self.calls.get(call_key).is_some_and(|call| call.codec.whole());
        if link.ending {
            self.closed_by_its_worker(key);
        }
        let good = whole && self.is_left_empty(key);
        if let Some(site) = self.calls.get(call_key).and_then(|call| self.sites.get_mut(&call.site)) {
            site.running = site.running.saturating_sub(1);
        }
        self.settle(call_key);
        self.answered(call_key);
        let Some(worker) = self.workers.get_mut(&serial) else { return self.close_link(key) };
        if let Some(site) = self.sites.get_mut(&worker.site.0).filter(|_| proven) {
            site.has_kept();
        }
        worker.requests += 1;
        worker.busy = worker.busy.saturating_sub(1);
        worker.idle_since = self.now;
        let (site, first) = (worker.site, !std::mem::replace(&mut worker.ready, true));
        let limit = self.sites.get(&site.0).map_or(0, |site| site.rules.worker_requests());
        let waits_for_heir = self.sites.get(&site.0).is_some_and(|site| site.leaving.has(serial));
        if heirs::is_done(worker.requests, limit, waits_for_heir) && worker.draining.is_none() {
            worker.draining = Some(Why::Requests);
        }
        let (draining, old) = (worker.draining.is_some(), heirs::is_old(worker, limit));
        let warm = worker.requests >= worker.connections.into();
        if first {
            self.say(Up::Ready { site, worker: wire::Worker(serial) });
        }
        if warm {
            self.is_warm(site.0, serial);
        }
        if old {
            self.look_for_heir(site.0, limit);
        }
        match self.sites.get_mut(&site.0) {
            Some(known) if good && !draining && known.keeps() => self.keep_or_renew(site.0, key),
            _ => self.close_link(key),
        }
        if draining {
            self.drained(serial);
        }
        self.dispatch(site.0);
        self.rest(site.0, serial);
    }

    /// Counts a request that ended by itself, and writes its lines.
    pub(super) fn settle(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let (Some(job), Some(site)) = (&call.job, self.sites.get_mut(&call.site)) else { return };
        site.counters.answered(job.status);
        site.counters.bytes_out = site.counters.bytes_out.saturating_add(job.sent);
        site.counters.worked.add(self.now.saturating_sub(job.started));
        self.brief += u64::from(site.load.answered());
        let status = job.status;
        self.access_line(key, status);
    }

    /// A worker with nothing to do: the clock will look whether it is needed.
    fn rest(&mut self, number: u32, serial: u32) {
        let idle = self.workers.get(&serial).is_some_and(|worker| worker.busy == 0);
        let Some(site) = self.sites.get(&number) else { return };
        if idle && site.waiting == 0 {
            self.wake_at(self.now.saturating_add(u64::from(site.rules.workers.idle_ms).saturating_mul(1000)));
        }
    }

    /// Nothing of the last request and its answer is left in a connection, and it is open.
    fn is_left_empty(&self, key: Key) -> bool {
        let Some(link) = self.links.get(key) else { return false };
        let reads_all = || self.sites.get(&link.site).is_some_and(|site| site.rules.reads_all);
        let taken = link.pending.is_empty() && (link.at_once || reads_all());
        taken && link.codec.clean() && !link.deaf && !link.ending
    }

    /// A worker closed its connection, or the kernel did. Always `false`: there is nothing more to read.
    fn link_lost(&mut self, key: Key) -> bool {
        let Some(link) = self.links.get(key) else { return false };
        let number = self.workers.get(&link.worker).map(|worker| worker.site.0);
        match link.call {
            Some(call) => self.bound_link_lost(key, call),
            None if link.orphan.is_some() => self.orphan_ends(key, false),
            None => {
                self.closed_by_its_worker(key);
                self.close_link(key);
            }
        }
        // There is room for another connection to its worker.
        if let Some(number) = number {
            self.dispatch(number);
        }
        false
    }

    /// After its first answer, though nothing was left in it: the program may do so after each.
    fn closed_by_its_worker(&mut self, key: Key) {
        let first = |link: &&Link| link.answered == 1 && link.at_once;
        let Some(link) = self.links.get(key).filter(first) else { return };
        let Some(worker) = self.workers.get(&link.worker).filter(|worker| worker.draining.is_none()) else {
            return;
        };
        let Some(site) = self.sites.get_mut(&worker.site.0) else { return };
        site.habit = match site.habit {
            Habit::Keeps => Habit::Unknown,
            Habit::Unknown | Habit::Closes => Habit::Closes,
        };
    }

    fn bound_link_lost(&mut self, key: Key, call_key: Key) {
        let Some(link) = self.links.get(key) else { return };
        let (serial, reused) = (link.worker, link.answered > 0 && link.refused);
        // Only what was never written is sure not to have run. A reset tells that not all was read, as of a program that died
        // at work before it read the last record.
        let call = self.calls.get(call_key).filter(|call| reused && call.codec.whole());
        let job = call.and_then(|call| call.job.as_ref());
        let untouched = job.is_some_and(|job| job.again < AGAIN_MOST && job.sent == 0 && job.body == 0);
        self.unbind(key, call_key, serial);
        if untouched {
            if let Some(job) = self.calls.get_mut(call_key).and_then(|call| call.job.as_mut()) {
                job.again = job.again.saturating_add(1);
            }
            self.place(call_key);
            self.understand(call_key, &[]);
        } else {
            self.failed(call_key, 502, &answers::died());
        }
    }

    /// A worker that speaks no FastCGI is ended.
    fn garbage(&mut self, key: Key, call_key: Key) {
        let Some(serial) = self.links.get(key).map(|link| link.worker) else { return };
        self.unbind(key, call_key, serial);
        self.kill(serial, Why::Garbage);
        self.failed(call_key, 502, &answers::garbage());
    }

    /// Parts a request from its worker, whose connection is closed.
    fn unbind(&mut self, key: Key, call_key: Key, serial: u32) {
        self.close_link(key);
        if let Some(worker) = self.workers.get_mut(&serial) {
            worker.busy = worker.busy.saturating_sub(1);
            worker.idle_since = self.now;
        }
        if let Some(call) = self.calls.get_mut(call_key) {
            call.state = State::Head;
            if let Some(site) = self.sites.get_mut(&call.site) {
                site.running = site.running.saturating_sub(1);
            }
        }
        self.drained(serial);
    }

    /// No answer comes any more: a page where nothing was sent; otherwise the cut must be seen.
    pub(super) fn failed(&mut self, key: Key, http: u16, refusal: &crate::refusal::Refusal) {
        let Some(call) = self.calls.get(key) else { return };
        let number = call.site;
        if call.job.as_ref().is_none_or(|job| job.sent == 0) {
            answers::refuse(self, key, http, refusal);
        } else {
            answers::note(self, key, http, refusal);
            self.close_call(key);
        }
        self.dispatch(number);
    }

    /// The web server lost its interest, or a deadline passed: who works on the request is parted from it.
    pub(super) fn let_go(&mut self, key: Key, why: Why) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let number = call.site;
        match call.state {
            State::Queued => {
                call.state = State::Head;
                if let Some(site) = self.sites.get_mut(&number) {
                    site.waiting = site.waiting.saturating_sub(1);
                }
            }
            State::Linked(link) => {
                let Some((serial, begun)) = self.links.get(link).map(|link| (link.worker, link.has_begun()))
                else {
                    return;
                };
                if why == Why::Abandoned && self.let_run(key, link) {
                    return;
                }
                let child = self.links.get_mut(link).filter(|_| begun).and_then(|link| link.child.leave());
                if let Some(worker) = self.workers.get_mut(&serial).filter(|_| begun && child.is_none()) {
                    worker.stuck += 1;
                }
                self.unbind(link, key, serial);
                match child {
                    Some(child) => self.end_child(number, serial, child),
                    None if why != Why::Abandoned || begun => self.end_worker(serial, why),
                    None => {}
                }
                self.dispatch(number);
            }
            State::Running(run) => {
                call.state = State::Head;
                self.end_run(run, why);
            }
            State::Head | State::Closing | State::Lingering(_) => {}
        }
    }

    /// A worker that has a request stays busy though nobody waits for its answer, which is thrown away: because its site wants
    /// its work finished, or because it must first find out that no more of the request comes. `false`: it has nothing of it, or
    /// is to be ended.
    fn let_run(&mut self, key: Key, link_key: Key) -> bool {
        let (Some(call), Some(link)) = (self.calls.get_mut(key), self.links.get_mut(link_key)) else {
            return false;
        };
        let Some(request) = self.sites.get(&call.site).map(|site| &site.rules.request) else { return false };
        let has_all = call.codec.whole() && link.pending.is_empty();
        if !link.has_begun() || (request.abandon && has_all) {
            return false;
        }
        let started = call.job.as_ref().map_or(self.now, |job| job.started);
        let until = match request.deadline_ms {
            _ if request.abandon => self.now.saturating_add(FINDS_OUT_US),
            0 => u64::MAX,
            ms => started.saturating_add(u64::from(ms).saturating_mul(1000)),
        };
        if !has_all {
            link.deaf = true;
            link.pending.clear();
            let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&link.fd), Shutdown::Write);
        }
        call.state = State::Head;
        (link.call, link.orphan) = (None, Some(until));
        // What waited for the web server to read is read now.
        if link.readable {
            self.again.push((Source::Link, link_key));
        }
        self.wake_at(until);
        true
    }

    /// The end of a request that nobody waited for. `good`: its connection can be used again.
    pub(super) fn orphan_ends(&mut self, key: Key, good: bool) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.orphan = None;
        link.rests(self.now);
        let serial = link.worker;
        let clean = good && self.is_left_empty(key);
        let Some(worker) = self.workers.get_mut(&serial) else { return self.close_link(key) };
        worker.requests += u64::from(good);
        worker.busy = worker.busy.saturating_sub(1);
        worker.idle_since = self.now;
        let (number, draining) = (worker.site.0, worker.draining.is_some());
        if let Some(site) = self.sites.get_mut(&number) {
            site.running = site.running.saturating_sub(1);
            if clean && !draining && site.keeps() {
                self.keep_or_renew(number, key);
            } else {
                self.close_link(key);
            }
        }
        self.drained(serial);
        self.dispatch(number);
    }

    /// A worker that is stuck: at once where it has nothing else to do, otherwise as soon as the others are done. Meanwhile
    /// another one serves, for it may be the site's only one.
    pub(super) fn end_worker(&mut self, serial: u32, why: Why) {
        let Some(worker) = self.workers.get_mut(&serial) else { return };
        if worker.busy == 0 {
            return self.kill(serial, why);
        }
        if worker.draining.is_none() {
            worker.draining = Some(why);
            let site = worker.site;
            self.say(Up::Heir { site, worker: wire::Worker(serial) });
        }
    }

    /// Ends a worker with all that it started.
    pub(super) fn kill(&mut self, serial: u32, why: Why) {
        let Some(worker) = self.workers.get_mut(&serial) else { return };
        let site = worker.site;
        worker.draining.get_or_insert(why);
        if !std::mem::replace(&mut worker.dismissed, true) {
            self.knock_no_more(site.0, serial);
            self.say(Up::Kill { site, worker: wire::Worker(serial), why });
        }
        self.close_idle(serial);
    }

    /// A worker that gets nothing new is dismissed when it is done.
    pub(super) fn drained(&mut self, serial: u32) {
        let Some(worker) = self.workers.get_mut(&serial) else { return };
        let (Some(why), 0, false) = (worker.draining, worker.busy, worker.dismissed) else { return };
        if worker.stuck > 0 && matches!(why, Why::Deadline | Why::Silent | Why::Abandoned | Why::Cpu) {
            return self.kill(serial, why);
        }
        worker.dismissed = true;
        let site = worker.site;
        self.close_idle(serial);
        self.knock_no_more(site.0, serial);
        self.say(Up::Retire { site, worker: wire::Worker(serial), why });
        self.want(site.0);
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
