//! Deadlines: all of them are looked at together, not more often than ten times a second, and not at all at rest.

use crate::pool::settings::Kind;
use crate::pool::wire::{self, Up, Why};

use super::answers;
use super::arena::Key;
use super::calls::{Call, State, Watched};
use super::site::{Rules, Site};
use super::{Broker, UNWATCHED_US};

/// Between two looks.
pub(super) const RESOLUTION_US: u64 = 100_000;
/// A kept connection without a request is closed after so long; nginx closes its own after 60 s.
pub(super) const IDLE_US: u64 = 75_000_000;
/// Workers that will be tried again within this time are waited for.
pub(super) const PATIENCE_MS: u64 = 2_000;

/// What a deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The web server is too slow, or was idle for too long.
    Close,
    /// It waited too long for a worker.
    Waited,
    /// It takes too long.
    Deadline,
    /// It takes too much of the processor.
    Spent,
    /// Its answer stands still.
    Silent,
    /// It is slow, which is only told.
    Slow,
}

impl Broker {
    /// Does what is due, and finds out when the next thing will be.
    pub(super) fn look_at_the_clock(&mut self) {
        (self.last_tick, self.tick) = (self.now, u64::MAX);
        let mut next = self.quit.unwrap_or(u64::MAX);
        next = next.min(self.crowd_passes());
        next = next.min(self.hear_again());
        next = next.min(self.calls_due());
        next = next.min(self.orphans_due());
        next = next.min(self.runs_due());
        next = next.min(self.let_speak());
        next = next.min(self.try_the_waiting());
        next = next.min(self.rest_and_retire());
        next = next.min(self.journal.tick(&mut self.sites, self.now));
        self.wake_at(next);
    }

    /// Does for each connection what is due first.
    fn calls_due(&mut self) -> u64 {
        let (mut next, mut due) = (u64::MAX, Vec::new());
        for (key, call) in self.calls.iter() {
            let Some(site) = self.sites.get(&call.site) else { continue };
            let at_the_end = (call.state == State::Head).then_some((self.speaks_until, Due::Close));
            let first =
                deadline(call, &site.rules).into_iter().chain(at_the_end).min_by_key(|(when, _)| *when);
            if let Some((when, what)) = first {
                if when <= self.now { due.push((key, what)) } else { next = next.min(when) }
            }
        }
        for (key, what) in due {
            next = next.min(self.due(key, what));
        }
        next
    }

    /// Whole requests that take a while are watched for their web server's going away.
    pub(super) fn watch_the_slow(&mut self) {
        while let Some((since, key)) = self.unwatched.front().copied() {
            let done = self.calls.get(key).is_none_or(|call| call.watched != Watched::Not);
            if !done && since.saturating_add(UNWATCHED_US) > self.now {
                return;
            }
            self.unwatched.pop_front();
            if !done {
                self.watch_call(key);
            }
        }
    }

    /// What a worker's tree has spent so far. Its one request is measured from the first time that this is told while it is
    /// under way: what the one before spent is not its own.
    pub(super) fn spent(&mut self, serial: u32, cpu_us: u64) {
        let Some(worker) = self.workers.get(&serial).filter(|worker| worker.connections == 1) else { return };
        let Some(site) = self.sites.get(&worker.site.0) else { return };
        let most = u64::from(site.rules.request.cpu_ms).saturating_mul(1000);
        let asked = self.links.iter().find(|(_, link)| link.worker == serial && link.call.is_some());
        let Some((key, call)) = asked.and_then(|(key, link)| Some((key, link.call?))) else { return };
        let Some(link) = self.links.get_mut(key) else { return };
        let before = *link.spent.get_or_insert(cpu_us);
        if most > 0 && cpu_us.saturating_sub(before) > most {
            self.due(call, Due::Spent);
        }
    }

    /// What a run's tree has spent so far: all of it for its one request.
    pub(super) fn run_spent(&mut self, key: Key, cpu_us: u64) {
        let Some(run) = self.runs.get(key) else { return };
        let (call, Some(site)) = (run.call, self.sites.get(&run.site)) else { return };
        let most = u64::from(site.rules.request.cpu_ms).saturating_mul(1000);
        if most == 0 || cpu_us <= most {
            return;
        }
        match call {
            Some(call) => {
                self.due(call, Due::Spent);
            }
            None => self.end_lonely(key, Why::Deadline),
        }
    }

    /// Returns when the next thing of this request is due.
    fn due(&mut self, key: Key, what: Due) -> u64 {
        match what {
            Due::Close => self.close_call(key),
            Due::Waited => {
                self.let_go(key, Why::Abandoned);
                answers::refuse(self, key, 503, &answers::waited());
            }
            Due::Deadline => {
                self.let_go(key, Why::Deadline);
                self.failed(key, 504, &answers::deadline());
            }
            Due::Spent => {
                self.let_go(key, Why::Deadline);
                self.failed(key, 504, &answers::spent());
            }
            Due::Silent => {
                self.let_go(key, Why::Silent);
                self.failed(key, 504, &answers::silent());
            }
            Due::Slow => {
                self.slow_line(key);
                self.ask_where(key);
                return self.now;
            }
        }
        u64::MAX
    }

    /// A worker's own queue may have been full, which nobody tells us when it ends.
    fn try_the_waiting(&mut self) -> u64 {
        let waits = |site: &Site| site.waiting > 0 && !site.workers.is_empty();
        let waiting = self.sites.iter().filter(|(_, site)| waits(site)).map(|(number, _)| *number);
        let waiting: Vec<u32> = waiting.collect();
        let next = if waiting.is_empty() { u64::MAX } else { self.now.saturating_add(RESOLUTION_US) };
        for number in waiting {
            self.dispatch(number);
        }
        next
    }

    /// Requests that are let run have a deadline all the same.
    fn orphans_due(&mut self) -> u64 {
        let (mut next, mut due) = (u64::MAX, Vec::new());
        for (key, link) in self.links.iter() {
            match link.orphan {
                Some(until) if until <= self.now => due.push((key, link.worker, link.site)),
                Some(until) => next = next.min(until),
                None => {}
            }
        }
        for (key, serial, number) in due {
            let abandon = self.sites.get(&number).is_some_and(|site| site.rules.request.abandon);
            let child = self.links.get_mut(key).and_then(|link| link.child.leave());
            if let Some(worker) = self.workers.get_mut(&serial).filter(|_| child.is_none()) {
                worker.stuck += 1;
            }
            self.orphan_ends(key, false);
            match child {
                Some(child) => self.end_child(number, serial, child),
                None => self.end_worker(serial, if abandon { Why::Abandoned } else { Why::Deadline }),
            }
        }
        next
    }

    /// Workers with nothing to do for long enough are dismissed.
    fn rest_and_retire(&mut self) -> u64 {
        let next = self.dismiss().min(self.retire());
        let idle =
            self.workers.iter().filter(|(_, worker)| worker.draining == Some(Why::Idle) && !worker.dismissed);
        for serial in idle.map(|(serial, _)| *serial).collect::<Vec<_>>() {
            self.drained(serial);
        }
        next
    }

    /// Of each site that has more workers than it needs, one at a time gets nothing new.
    fn dismiss(&mut self) -> u64 {
        let (mut next, mut wishes) = (u64::MAX, Vec::new());
        for (number, site) in self.sites.iter_mut().filter(|(_, site)| site.rules.kind != Kind::Cgi) {
            let needed = site.needed();
            // The place of the one that leaves is another's already.
            let living = |one: &&wire::Worker| {
                let worker = self.workers.get(&one.0);
                !site.leaving.has(one.0) && worker.is_some_and(|worker| worker.draining.is_none())
            };
            let count = u32::try_from(site.workers.iter().filter(living).count()).unwrap_or(u32::MAX);
            if count <= needed {
                continue;
            }
            let Some((serial, since)) = idlest(site, &self.workers) else { continue };
            let when = since.saturating_add(idle_us(&site.rules));
            if when > self.now {
                next = next.min(when);
                continue;
            }
            next = self.now;
            site.wanted = count.saturating_sub(1);
            wishes.push(Up::Want { site: wire::Site(*number), count: site.wanted });
            if let Some(worker) = self.workers.get_mut(&serial) {
                worker.draining = Some(Why::Idle);
            }
        }
        for wish in wishes {
            self.say(wish);
        }
        next
    }

    /// Those whose place is taken already need not wait for their last requests.
    fn retire(&mut self) -> u64 {
        let (mut next, mut replaced) = (u64::MAX, Vec::new());
        for site in self.sites.values().filter(|site| site.rules.kind != Kind::Cgi) {
            let leaving = site.workers.iter().filter(|one| site.leaving.has(one.0));
            let leaving = leaving.filter_map(|one| Some((one.0, self.workers.get(&one.0)?)));
            for (serial, worker) in leaving.filter(|(_, worker)| worker.busy == 0) {
                let when = worker.idle_since.saturating_add(idle_us(&site.rules));
                if when > self.now {
                    next = next.min(when);
                } else {
                    replaced.push(serial);
                }
            }
        }
        for serial in replaced {
            self.leave_to_heir(serial);
        }
        next
    }
}

/// How long a worker may have nothing to do, in microseconds.
fn idle_us(rules: &Rules) -> u64 {
    u64::from(rules.workers.idle_ms).saturating_mul(1000)
}

/// The worker that has had nothing to do for the longest time.
fn idlest(site: &Site, workers: &std::collections::BTreeMap<u32, super::site::Worker>) -> Option<(u32, u64)> {
    let known = site.workers.iter().filter_map(|one| Some((one.0, workers.get(&one.0)?)));
    let known = known.filter(|(serial, _)| !site.leaving.has(*serial));
    let idle = known.filter(|(_, worker)| worker.busy == 0 && worker.draining.is_none());
    idle.map(|(serial, worker)| (serial, worker.idle_since)).min_by_key(|(_, since)| *since)
}

/// What of this connection is due first.
fn deadline(call: &Call, rules: &Rules) -> Option<(u64, Due)> {
    let after =
        |since: u64, ms: u32| (ms > 0).then(|| since.saturating_add(u64::from(ms).saturating_mul(1000)));
    let request = &rules.request;
    match call.state {
        State::Head if call.codec.silent() && call.used => {
            Some((call.since.saturating_add(IDLE_US), Due::Close))
        }
        State::Head => Some((after(call.since, request.head_ms)?, Due::Close)),
        State::Lingering(until) => Some((until, Due::Close)),
        // An answer that nobody reads stands still as one that nobody writes.
        State::Closing => Some((call.since.saturating_add(IDLE_US), Due::Close)),
        State::Queued => Some((after(call.job.as_ref()?.arrived, rules.queue.deadline_ms)?, Due::Waited)),
        State::Linked(_) | State::Running(_) => {
            let job = call.job.as_ref()?;
            let slow =
                (rules.slow_us > 0 && !job.slow_told).then(|| job.started.saturating_add(rules.slow_us));
            // A worker that may not write because the web server does not read is not silent.
            let silent =
                after(job.last, request.silence_ms).filter(|_| call.pending.is_empty() && call.codec.whole());
            let all = [
                after(job.started, request.deadline_ms).map(|when| (when, Due::Deadline)),
                silent.map(|when| (when, Due::Silent)),
                slow.map(|when| (when, Due::Slow)),
            ];
            all.into_iter().flatten().min_by_key(|(when, _)| *when)
        }
    }
}
