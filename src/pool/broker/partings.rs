//! Requests and workers that part before an answer is complete: because a worker, a web server or its time is gone.

use nix::sys::socket::{Shutdown, shutdown};

use crate::pool::wire::{self, Up, Why};

use super::answers;
use super::arena::Key;
use super::calls::State;
use super::links::Link;
use super::site::Habit;
use super::{Broker, Source};

/// So often a request is given to another worker: each of a pool may be ending at the same time.
const AGAIN_MOST: u8 = 4;
/// A program that is to end with its web server's interest, and has not got the whole request yet, has so long to find out that
/// no more of it comes.
const FINDS_OUT_US: u64 = 2_000_000;

impl Broker {
    /// A worker closed its connection, or the kernel did. Always `false`: there is nothing more to read.
    pub(super) fn link_lost(&mut self, key: Key) -> bool {
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
    pub(super) fn closed_by_its_worker(&mut self, key: Key) {
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
        let untouched = job.is_some_and(|job| job.retries < AGAIN_MOST && job.sent == 0 && job.body == 0);
        self.unbind(key, call_key, serial);
        if untouched {
            if let Some(job) = self.calls.get_mut(call_key).and_then(|call| call.job.as_mut()) {
                job.retries = job.retries.saturating_add(1);
            }
            self.place(call_key);
            self.understand(call_key, &[]);
        } else {
            self.failed(call_key, 502, &answers::died());
        }
    }

    /// A worker that speaks no FastCGI is ended.
    pub(super) fn garbage(&mut self, key: Key, call_key: Key) {
        let Some(serial) = self.links.get(key).map(|link| link.worker) else { return };
        self.unbind(key, call_key, serial);
        self.kill(serial, Why::Garbage);
        self.failed(call_key, 502, &answers::garbage());
    }

    /// Parts a request from its worker, whose connection is closed.
    pub(super) fn unbind(&mut self, key: Key, call_key: Key, serial: u32) {
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
}
