//! Connections of web servers: reading requests, writing answers.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollEvent;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use nix::unistd::read;

use crate::pool::fastcgi::front::{Event, Front};
use crate::pool::fastcgi::record::{kind, put};
use crate::pool::fastcgi::{Role, back};
use crate::pool::gate::{self, Form};
use crate::pool::settings::{Accept, Kind};
use crate::pool::wire;

use super::arena::Key;
use super::gather::Pending;
use super::{Broker, ROUNDS, Said, Source, answers, edges};

/// A connection of a web server.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) fd: OwnedFd,
    pub(super) site: u32,
    pub(super) codec: Front,
    pub(super) state: State,
    pub(super) job: Option<Box<Job>>,
    /// Read, but not to be understood before there is a worker.
    pub(super) held: Vec<u8>,
    pub(super) pending: Pending,
    pub(super) watched: Watched,
    pub(super) readable: bool,
    /// The kernel says that the web server closed its writing end: read up to there.
    pub(super) ending: bool,
    /// That has been read.
    pub(super) ended: bool,
    /// A part of an answer could not be written: nothing that follows may be.
    pub(super) lost: bool,
    /// The connection began, or the last request ended.
    pub(super) since: u64,
    /// It has asked before: what is waited for is a later request.
    pub(super) used: bool,
    /// The kernel was asked for more room.
    pub(super) wide: bool,
}

impl Call {
    /// An answer was larger than what the kernel keeps for a web server that is slower than its program. With twice as much the
    /// two, and the broker, take half as many turns.
    fn widen(&mut self) {
        if !std::mem::replace(&mut self.wide, true) {
            // The kernel gives what may be (`net.core.wmem_max`, socket(7)); without it the answer takes longer.
            let _ = setsockopt(&self.fd, sockopt::SndBuf, &WIDE);
        }
    }

    /// Nothing that its program would read is to come.
    pub(super) fn is_whole(&self) -> bool {
        self.codec.whole() || self.codec.request().role == Role::Authorizer
    }

    /// A worker gets a request without a body in one piece: see [`super::links`].
    pub(super) fn is_held_back(&self) -> bool {
        let nothing_yet = || self.job.as_ref().is_some_and(|job| job.bodiless && job.body == 0);
        matches!(self.state, State::Linked(_)) && !self.is_whole() && nothing_yet()
    }
}

/// What is being done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The next request's parameters are read.
    Head,
    /// A request waits for a worker.
    Queued,
    /// A worker has it.
    Linked(Key),
    /// A CGI program has it.
    Running(Key),
    /// All is written once `pending` is; then it is closed.
    Closing,
    /// Answered before all was read: the rest is thrown away until the web server closes, or until then.
    Lingering(u64),
}

/// What the kernel tells of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Not,
    /// What comes; and, where `true`, that there is room again.
    For(bool),
}

/// A request from its whole parameters to its last byte.
#[derive(Debug)]
pub(super) struct Job {
    /// What the program gets.
    pub(super) bytes: Vec<u8>,
    /// As they came, where a log wants them.
    pub(super) params: Vec<u8>,
    pub(super) script: Vec<u8>,
    pub(super) arrived: u64,
    /// A worker has it since.
    pub(super) started: u64,
    /// Only the end of its body is expected, which every web server sends at once.
    pub(super) bodiless: bool,
    /// The last sign of life of its answer.
    pub(super) last: u64,
    pub(super) body: u64,
    pub(super) sent: u64,
    pub(super) status: u16,
    pub(super) slow_told: bool,
    /// How often it was given to another worker.
    pub(super) retries: u8,
    pub(super) worker: u32,
}

/// Bytes that the kernel is to keep for a web server.
const WIDE: usize = 1 << 20;
/// Most bytes that wait for a web server before no more of its own is read. One piece of an answer is smaller: what grows beyond
/// are replies to questions about the connection, from a peer that does not read them.
const UNREAD_MOST: usize = 1 << 20;
/// A body that nobody wants is read for so long.
const LINGER_US: u64 = 2_000_000;

impl Broker {
    /// Has the kernel tell what comes from a web server, and where something waits for it, when it takes more.
    pub(super) fn watch_call(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let waits = !call.pending.is_empty();
        let before = std::mem::replace(&mut call.watched, Watched::For(waits));
        let mut event = EpollEvent::new(edges(waits), Source::Call.token(key));
        let done = match before {
            Watched::Not => self.epoll.add(&call.fd, event),
            Watched::For(same) if same == waits => Ok(()),
            Watched::For(_) => self.epoll.modify(&call.fd, &mut event),
        };
        if let Err(errno) = done {
            // Nothing would be heard of it any more: it ends as soon as nobody is at work on it here.
            (call.lost, call.watched) = (true, before);
            call.pending.clear();
            self.again.push((Source::Call, key));
            self.tell_unheard(Source::Call, key, errno);
        }
    }

    pub(super) fn call_event(&mut self, key: Key, said: Said) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.ending |= said.ending;
        if said.gone && call.state != State::Head {
            // Both directions are closed: nobody reads an answer.
            return self.abandoned(key);
        }
        if said.writable && !call.pending.is_empty() {
            self.write_call(key);
        }
        if said.readable {
            self.read_call(key);
        }
    }

    /// Reads while there is something and somebody takes it.
    pub(super) fn read_call(&mut self, key: Key) {
        if self.calls.get(key).is_some_and(|call| call.lost) {
            return self.abandoned(key);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..ROUNDS {
            let takes = self.takes(key);
            let Some(call) = self.calls.get_mut(key) else { break };
            call.readable = !takes;
            if !takes {
                break;
            }
            if call.state == State::Head && call.codec.silent() {
                call.since = self.now;
            }
            match read(&call.fd, &mut buffer) {
                Ok(0) => {
                    self.hung_up(key);
                    break;
                }
                Ok(length) => {
                    let short = length < buffer.len() && !call.ending;
                    self.understand(key, buffer.get(..length).unwrap_or_default());
                    if short {
                        break;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    self.abandoned(key);
                    break;
                }
            }
        }
        self.buffer = buffer;
        let more = self.calls.get(key).is_some_and(|call| call.ending && !call.readable) && self.takes(key);
        if more {
            self.again.push((Source::Call, key));
        }
    }

    /// Is there somebody who takes what the web server sends?
    fn takes(&self, key: Key) -> bool {
        let Some(call) = self.calls.get(key).filter(|call| !call.ended) else { return false };
        if call.pending.left() > UNREAD_MOST {
            return false;
        }
        match call.state {
            State::Head | State::Lingering(_) => true,
            State::Queued | State::Closing => false,
            State::Linked(link) => {
                call.is_held_back() || self.links.get(link).is_some_and(|link| link.pending.is_empty())
            }
            State::Running(run) => self.runs.get(run).is_some_and(super::runs::Run::takes),
        }
    }

    /// Takes bytes of a web server apart, and passes on what there is.
    pub(super) fn understand(&mut self, key: Key, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(call) = self.calls.get_mut(key) {
            match call.state {
                State::Closing => return,
                State::Lingering(_) if !call.codec.request().keep => return,
                State::Queued => return call.held.extend_from_slice(input),
                State::Running(run) if !self.runs.get(run).is_some_and(super::runs::Run::started) => {
                    return call.held.extend_from_slice(input);
                }
                State::Head | State::Linked(_) | State::Running(_) | State::Lingering(_) => {}
            }
            let event = call.codec.next(&mut input);
            if matches!(call.state, State::Lingering(_)) && call.codec.begun() {
                // Nothing more of the old request is to come: Apache sends the rest of no body that is answered.
                (call.state, call.since) = (State::Head, self.now);
            }
            match event {
                Ok(Some(event)) => self.heard(key, &event),
                Ok(None) => break,
                Err(_) => return self.abandoned(key),
            }
        }
        match self.calls.get(key).filter(|call| !call.is_held_back()).map(|call| call.state) {
            Some(State::Linked(link)) => self.write_link(link),
            Some(State::Running(run)) => self.run_input(run),
            _ => {}
        }
    }

    fn heard(&mut self, key: Key, event: &Event<'_>) {
        match event {
            Event::Request => self.request(key),
            Event::TooLarge => answers::refuse(self, key, 431, &answers::large()),
            Event::Body(bytes) => self.body(key, bytes),
            Event::BodyEnd => self.body(key, &[]),
            Event::Abort => self.aborted(key),
            Event::Reply(reply) => {
                let Some(call) = self.calls.get_mut(key) else { return };
                let most = self.sites.get(&call.site).map_or(1, |site| site.rules.places());
                call.pending.with(|out| reply.put(out, most));
                self.write_call(key);
            }
        }
    }

    /// All parameters are here.
    fn request(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(site) = self.sites.get_mut(&call.site) else { return self.close_call(key) };
        site.counters.requests += 1;
        call.used = true;
        let pages = &site.rules.pages;
        if !(pages.status.is_empty() && pages.ping.is_empty())
            && let Some(url) = gate::url(call.codec.params())
            && (url == pages.status || url == pages.ping)
        {
            return self.own_page(key, &url);
        }
        if site.stands_in {
            return answers::refuse(self, key, 503, &answers::unstarted());
        }
        if site.paused || site.rules.accept == Accept::Direct {
            return answers::refuse(self, key, 503, &answers::paused());
        }
        let form = match site.rules.kind {
            Kind::Cgi => Form::Environment,
            Kind::Fastcgi | Kind::Parent => Form::Records(call.codec.request().role, site.keeps()),
        };
        match site.rules.gate.judge(call.codec.params(), form) {
            Err(no) => answers::refuse(self, key, no.http, &no.refusal),
            Ok(passed) => {
                let logged = site.access.is_some() || site.rules.slow_us > 0;
                call.job = Some(Box::new(Job {
                    bytes: passed.bytes,
                    params: if logged { call.codec.params().to_vec() } else { Vec::new() },
                    script: passed.script,
                    arrived: self.now,
                    started: 0,
                    bodiless: !passed.announces_body,
                    last: self.now,
                    body: 0,
                    sent: 0,
                    status: 200,
                    slow_told: false,
                    retries: 0,
                    worker: 0,
                }));
                call.codec.forget_params();
                self.place(key);
            }
        }
    }

    /// Some of the body, or with no bytes its end.
    fn body(&mut self, key: Key, bytes: &[u8]) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let (State::Lingering(_), true) = (call.state, bytes.is_empty()) {
            call.codec.finish();
            (call.state, call.since) = (State::Head, self.now);
            return;
        }
        let Some(job) = &mut call.job else { return };
        job.body = job.body.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let most = self.sites.get(&call.site).map(|site| &site.rules.gate);
        if let Some(Err(no)) = most.map(|gate| gate.measure(job.body)) {
            self.let_go(key, wire::Why::Abandoned);
            return answers::refuse(self, key, no.http, &no.refusal);
        }
        match call.state {
            State::Linked(link) => {
                let authorizer = call.codec.request().role == Role::Authorizer;
                if let Some(link) = self.links.get_mut(link).filter(|_| !authorizer) {
                    link.pending.with(|out| put(out, kind::STDIN, back::ID, bytes));
                }
            }
            State::Running(run) => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.feed(bytes);
                }
            }
            _ => {}
        }
        if bytes.is_empty() {
            self.expects(key);
        }
    }

    /// From now on the program is to speak, and its silence counts.
    fn expects(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let (State::Linked(_) | State::Running(_), Some(job)) = (call.state, &mut call.job) else { return };
        job.last = self.now;
        let silence = self.sites.get(&call.site).map_or(0, |site| site.rules.request.silence_ms);
        if silence > 0 {
            self.wake_at(self.now.saturating_add(u64::from(silence).saturating_mul(1000)));
        }
    }

    /// ABORT_REQUEST: no answer is wanted, but the connection goes on where the web server keeps it.
    fn aborted(&mut self, key: Key) {
        self.forget(key);
        self.let_go(key, wire::Why::Abandoned);
        self.gather.clear();
        let Some(call) = self.calls.get_mut(key) else { return };
        call.codec.take_back();
        self.gather.end(call.codec.request().id, 0);
        self.write_answer(key, &[]);
        self.answered(key);
    }

    /// The web server closed its writing end. Where a whole request is being answered, it may still read.
    fn hung_up(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        (call.ending, call.ended) = (true, true);
        match call.state {
            State::Head | State::Lingering(_) => self.close_call(key),
            State::Closing => {}
            State::Queued | State::Linked(_) | State::Running(_) => {
                if !call.codec.whole() {
                    self.abandoned(key);
                } else {
                    self.watch_call(key);
                }
            }
        }
    }

    /// The web server is gone, or speaks no FastCGI.
    pub(super) fn abandoned(&mut self, key: Key) {
        self.forget(key);
        self.let_go(key, wire::Why::Abandoned);
        self.close_call(key);
    }

    /// Counts a request that nobody waits for any more.
    fn forget(&mut self, key: Key) {
        let Some(call) = self.calls.get(key).filter(|call| call.job.is_some()) else { return };
        if let Some(site) = self.sites.get_mut(&call.site) {
            site.counters.abandoned += 1;
        }
        self.access_line(key, 499);
    }

    /// Writes what `gather` holds; contents lie in `read`.
    pub(super) fn write_answer(&mut self, key: Key, read: &[u8]) {
        let Some(call) = self.calls.get_mut(key).filter(|call| !call.lost) else { return };
        if self.gather.write(&call.fd, read, &mut call.pending, &mut self.spares).is_err() {
            call.pending.clear();
            call.lost = true;
            return self.again.push((Source::Call, key));
        }
        if !call.pending.is_empty() {
            call.widen();
            self.watch_call(key);
        }
    }

    /// Writes what waits. When all is written, the worker is heard again, or the connection closed.
    pub(super) fn write_call(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        match call.pending.write_lent(&call.fd, &mut self.spares) {
            Ok(true) => {}
            Ok(false) => return self.watch_call(key),
            Err(_) => return self.abandoned(key),
        }
        if call.readable {
            self.again.push((Source::Call, key));
        }
        self.expects(key);
        let Some(call) = self.calls.get(key) else { return };
        match call.state {
            State::Closing => self.part(key),
            State::Linked(link) => self.link_resumes(link),
            State::Running(run) => self.run_resumes(run),
            State::Head | State::Queued | State::Lingering(_) => {}
        }
    }

    /// The answer is complete: the connection waits for the next request, or ends.
    pub(super) fn answered(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.job = None;
        call.since = self.now;
        // It may hold the end of a body that waited with its request.
        let held = std::mem::take(&mut call.held);
        let mut rest = held.as_slice();
        while let Ok(Some(event)) = call.codec.next(&mut rest) {
            if event == Event::BodyEnd {
                break;
            }
        }
        let stays = self.sites.get(&call.site).is_some_and(|site| site.rules.accept == Accept::Relay);
        if !call.codec.request().keep || call.ending || self.quit.is_some() || !stays {
            call.state = State::Closing;
            self.wake_at(self.now.saturating_add(super::ticks::IDLE_US));
            if self.calls.get(key).is_some_and(|call| call.pending.is_empty()) {
                self.part(key);
            }
            return;
        }
        if !call.codec.whole() {
            // The rest of a body that nobody wants may come before the next request, or nothing for as long as the web server
            // has none: it must not find the connection closed then.
            call.codec.skip();
            let until = self.now.saturating_add(super::ticks::IDLE_US);
            call.state = State::Lingering(until);
            self.wake_at(until);
            self.watch_call(key);
            return self.again.push((Source::Call, key));
        }
        call.codec.finish();
        (call.state, call.since) = (State::Head, self.now);
        self.wake_at(self.now.saturating_add(super::ticks::IDLE_US));
        self.watch_call(key);
        if self.calls.get(key).is_some_and(|call| call.readable) {
            self.again.push((Source::Call, key));
        }
    }

    /// All is written. A body that was not read would make the kernel throw the answer away, so it is read first.
    fn part(&mut self, key: Key) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if call.codec.whole() || call.ending || !call.codec.active() {
            return self.close_call(key);
        }
        let _ = shutdown(call.fd.as_raw_fd(), Shutdown::Write);
        call.state = State::Lingering(self.now.saturating_add(LINGER_US));
        self.wake_at(self.now.saturating_add(LINGER_US));
        self.watch_call(key);
        self.again.push((Source::Call, key));
    }

    pub(super) fn close_call(&mut self, key: Key) {
        let Some(call) = self.calls.remove(key) else { return };
        if let Some(site) = self.sites.get_mut(&call.site) {
            site.calls = site.calls.saturating_sub(1);
            if call.state == State::Queued {
                site.waiting = site.waiting.saturating_sub(1);
            }
        }
    }
}
