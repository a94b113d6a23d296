//! Workers that end after so many requests: the one that takes a worker's place starts while that one still serves.
//!
//! Nobody waits for a start then: the new one is asked whether it is up, and has no visitor before it says so. How early it must be
//! asked for is learned from the starts before: several may be old at once, as those are that were started together, and each has
//! to wait for its turn. A site has as many workers too many meanwhile as [`super::super::settings::Workers::heirs`] says.

use super::super::fastcgi::record::{kind, put};
use super::super::wire::{self, Up, Why};
use super::Broker;
use super::arena::Key;
use super::site::Worker;

/// A site's workers whose place another one takes while they still serve.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The one whose heir was asked for first is the first.
    all: Vec<u32>,
    /// What a start takes, in microseconds, as far as is known.
    start_us: u64,
}

impl Leaving {
    pub(super) fn has(&self, serial: u32) -> bool {
        self.all.contains(&serial)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn forget(&mut self, serial: u32) {
        self.all.retain(|leaves| *leaves != serial);
    }

    fn learn(&mut self, took_us: u64) {
        self.start_us = match self.start_us {
            0 => took_us,
            known => known.saturating_mul(3).saturating_add(took_us) / 4,
        };
    }
}

/// Has had half of its requests: worth a closer look.
pub(super) fn is_old(worker: &Worker, limit: u64) -> bool {
    limit > 0 && worker.requests >= limit.div_ceil(2) && worker.draining.is_none()
}

/// Has had all its requests; one whose heir is on its way may have an eighth more, so that nobody waits.
pub(super) fn is_done(requests: u64, limit: u64, waits_for_heir: bool) -> bool {
    let more = if waits_for_heir { limit / 8 } else { 0 };
    limit > 0 && requests >= limit.saturating_add(more)
}

/// Is it time for one more start? `old`: requests and age, in microseconds, of those that have had half of them. Each must be
/// replaced before its last request, and `at_once` of them can be.
fn is_due(limit: u64, start_us: u64, at_once: u64, old: &mut [(u64, u64)]) -> bool {
    old.sort_unstable_by(|one, other| other.cmp(one));
    old.iter().zip(1_u64..).any(|(&(had, age), place)| {
        // One start takes twice as long as another: both compete with requests for the processors.
        let until = start_us.saturating_mul(2).saturating_mul(place.div_ceil(at_once.max(1)));
        let meanwhile = had.saturating_mul(until) / age.max(1);
        had.saturating_add(meanwhile.max(limit / 16)) >= limit
    })
}

impl Broker {
    /// The oldest worker's heir is asked for, when it is time.
    pub(super) fn look_for_heir(&mut self, number: u32, limit: u64) {
        let Some(site) = self.sites.get_mut(&number).filter(|site| !site.paused) else { return };
        let at_once = site.rules.workers.heirs();
        if site.leaving.all.len() >= usize::try_from(at_once).unwrap_or(usize::MAX) {
            return;
        }
        let known = site.workers.iter().filter_map(|one| Some((one.0, self.workers.get(&one.0)?)));
        let known = known.filter(|(serial, worker)| is_old(worker, limit) && !site.leaving.has(*serial));
        let (mut old, mut oldest) = (Vec::new(), None);
        for (serial, worker) in known {
            old.push((worker.requests, self.now.saturating_sub(worker.since)));
            oldest = oldest.max(Some((worker.requests, serial)));
        }
        let due = is_due(limit, site.leaving.start_us, at_once.into(), &mut old);
        let Some((_, serial)) = oldest.filter(|_| due) else { return };
        site.leaving.all.push(serial);
        self.say(Up::Heir { site: wire::Site(number), worker: wire::Worker(serial) });
    }

    /// Asks a new worker for what every FastCGI program can tell of itself (FastCGI 1.0, 4.1).
    pub(super) fn knock(&mut self, number: u32, one: wire::Worker) {
        let Some(key) = self.connect(number, one) else { return };
        if let Some(link) = self.links.get_mut(key) {
            link.knock = true;
            link.pending.with(|out| put(out, kind::GET_VALUES, 0, MAX_CONNS));
        }
        if let Some(worker) = self.workers.get_mut(&one.0) {
            (worker.knocked, worker.heir) = (true, true);
        }
        self.write_link(key);
    }

    /// Whatever it says, and that it closes the connection without a word, shows that it is up.
    pub(super) fn opened(&mut self, key: Key) {
        let Some(serial) = self.links.get(key).map(|link| link.worker) else { return };
        self.close_link(key);
        if let Some(number) = self.workers.get(&serial).map(|worker| worker.site.0) {
            self.dispatch(number);
        }
    }

    /// A connection to an heir that is up and not warm yet: the sooner it is, the sooner there is one worker less.
    pub(super) fn new_heir(&mut self, number: u32) -> Option<Key> {
        let site = self.sites.get(&number).filter(|site| !site.leaving.is_empty())?;
        let cold = |one: &&wire::Worker| {
            let worker = self.workers.get(&one.0).filter(|worker| worker.heir && !worker.knocked);
            worker.is_some_and(|worker| worker.draining.is_none() && worker.open < worker.connections)
        };
        let heir = site.workers.iter().find(cold).copied()?;
        self.connect(number, heir)
    }

    /// A worker has answered as many requests as it serves at a time; what is slow about a first one is over. If it is an heir,
    /// the one whose place it takes may go.
    pub(super) fn is_warm(&mut self, number: u32, serial: u32) {
        let Some(worker) = self.workers.get_mut(&serial).filter(|worker| worker.heir) else { return };
        worker.heir = false;
        let took = self.now.saturating_sub(worker.since);
        let Some(site) = self.sites.get_mut(&number) else { return };
        site.leaving.learn(took);
        let gone = |serial: u32| self.workers.get(&serial).is_none_or(|worker| worker.draining.is_some());
        let first = site.leaving.all.iter().copied().find(|serial| !gone(*serial));
        if let Some(serial) = first {
            self.leave_to_heir(serial);
        }
    }

    /// It gets nothing more.
    pub(super) fn leave_to_heir(&mut self, serial: u32) {
        let Some(worker) = self.workers.get_mut(&serial) else { return };
        worker.draining.get_or_insert(Why::Requests);
        self.close_idle(serial);
        self.drained(serial);
    }

    /// One that left is gone: a new one must serve, up or not.
    pub(super) fn knock_no_more(&mut self, number: u32, left: u32) {
        if !self.sites.get(&number).is_some_and(|site| site.leaving.has(left)) {
            return;
        }
        let of_site = |worker: u32| self.workers.get(&worker).is_some_and(|worker| worker.site.0 == number);
        let mut links = self.links.iter();
        let knock = links.find_map(|(key, link)| (link.knock && of_site(link.worker)).then_some(key));
        drop(links);
        if let Some(key) = knock {
            self.close_link(key);
        }
    }
}

/// FCGI_MAX_CONNS, without a value.
const MAX_CONNS: &[u8] = b"\x0e\0FCGI_MAX_CONNS";

#[cfg(test)]
mod tests {
    use super::{Leaving, is_done, is_due};

    #[test]
    fn a_start_begins_when_the_last_request_would_come_before_its_end() {
        // 100 requests a second; a start takes half a second, and twice as long is counted with.
        let due = |had: u64| is_due(1000, 500_000, 1, &mut [(had, had * 10_000)]);
        assert!(!due(899) && due(900));
        // Nothing is known: a sixteenth is left.
        let unknown = |had: u64| is_due(1000, 0, 1, &mut [(had, had * 10_000)]);
        assert!(!unknown(937) && unknown(938));
    }

    #[test]
    fn a_worker_waits_for_its_heir_only_so_long() {
        assert!(!is_done(99, 100, false) && is_done(100, 100, false));
        assert!(!is_done(111, 100, true) && is_done(112, 100, true));
        assert!(is_done(7, 7, true), "few are counted exactly");
        assert!(!is_done(0, 1, false) && is_done(1, 1, false), "one request each");
        assert!(!is_done(u64::MAX, 0, false), "unlimited");
    }

    #[test]
    fn workers_that_began_together_go_in_turn() {
        let due = |had: u64, at_once: u64| is_due(1000, 500_000, at_once, &mut [(had, had * 10_000); 4]);
        assert!(!due(599, 1) && due(600, 1), "the fourth begins its start three later");
        assert!(!due(799, 2) && due(800, 2));
        assert!(!is_due(1000, u64::MAX, 1, &mut []), "none is old");
    }

    #[test]
    fn the_one_with_most_requests_is_the_first_whose_place_is_taken() {
        // A start takes half a second: of the two the old one is due at once, and the young one would be long after it.
        let due = |old: &mut [(u64, u64)]| is_due(1000, 500_000, 1, old);
        assert!(due(&mut [(500, 50_000_000), (900, 9_000_000)]));
        assert!(!due(&mut [(890, 8_900_000), (500, 50_000_000)]));
    }

    #[test]
    fn what_a_start_takes_is_learned_slowly() {
        let mut leaving = Leaving::default();
        for (took, known) in [(400, 400), (800, 500), (500, 500), (0, 375)] {
            leaving.learn(took);
            assert_eq!(leaving.start_us, known);
        }
    }
}
