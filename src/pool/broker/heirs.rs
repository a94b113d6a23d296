//! Workers that end after so many requests: the one that takes a worker's place starts while that one still serves.
//!
//! Nobody waits for a start then. One at a time for each site, so that a site has at most one worker too many; and where
//! several are old at once, as those that were started together, the first goes early enough for all of them to go in turn.

use super::super::wire::{self, Up, Why};
use super::Broker;
use super::site::Worker;

/// Has had half of its requests: worth a closer look.
pub(super) fn is_old(worker: &Worker, limit: u64) -> bool {
    limit > 0 && worker.requests >= limit.div_ceil(2) && worker.draining.is_none()
}

/// So many requests a worker has had when the next one is started: an eighth of them is left for each that is old.
fn enough(limit: u64, old: u64) -> u64 {
    limit.saturating_sub((limit / 8).saturating_mul(old))
}

impl Broker {
    /// The oldest worker's heir is asked for, when it is time.
    pub(super) fn look_for_heir(&mut self, number: u32, limit: u64) {
        let Some(site) = self.sites.get_mut(&number).filter(|site| site.leaves.is_none() && !site.paused)
        else {
            return;
        };
        let known = site.workers.iter().filter_map(|one| Some((*one, self.workers.get(&one.0)?)));
        let (mut old, mut oldest) = (0, None);
        for (one, worker) in known.filter(|(_, worker)| is_old(worker, limit)) {
            old += 1;
            oldest = oldest.max(Some((worker.requests, one.0)));
        }
        let Some((requests, serial)) = oldest.filter(|_| limit >= 8) else { return };
        if requests >= enough(limit, old) {
            site.leaves = Some(serial);
            self.say(Up::Heir { site: wire::Site(number), worker: wire::Worker(serial) });
        }
    }

    /// A worker has answered for the first time: whose place it takes may go.
    pub(super) fn heir_is_there(&mut self, number: u32, heir: u32) {
        let leaves = self.sites.get(&number).and_then(|site| site.leaves).filter(|leaves| *leaves != heir);
        if let Some(serial) = leaves {
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
}

#[cfg(test)]
mod tests {
    use super::enough;

    #[test]
    fn workers_that_began_together_go_one_after_the_other() {
        let all: Vec<u64> = (0..6).map(|old| enough(500, old)).collect();
        assert_eq!(all, [500, 438, 376, 314, 252, 190]);
        // However many are old, none goes before half of its requests: only those are looked at.
        assert_eq!(enough(500, 100), 0);
        assert_eq!(enough(7, 4), 7, "too few for an heir");
    }
}
