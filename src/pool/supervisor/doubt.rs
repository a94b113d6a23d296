//! Workers that ended before their first answer was heard of, though it may have been given: the kernel tells of an end at once, and
//! the broker of an answer when it has read it.
//!
//! The end counts as a failed start a little later, unless the broker says meanwhile that there was an answer. Starts wait no
//! longer for that than after any failed one.

use std::time::{Duration, Instant};

use super::super::wire::{Ended, Site, Worker};
use super::{Supervisor, Timer};

/// Who ended so, and what is to be recorded of it.
pub(super) struct Doubt {
    worker: Worker,
    /// Of older ones nobody wants to know any more.
    epoch: u32,
    how: Ended,
    line: String,
    until: Instant,
    /// No start before, if it is one that failed.
    not_before: Instant,
}

impl Supervisor {
    /// A worker has ended that may have answered.
    pub(super) fn doubt(&mut self, site: Site, worker: Worker, how: Ended, line: String) {
        // The one before had its time.
        self.convict(site);
        let now = Instant::now();
        let until = now + HEARD;
        if let Some(pool) = self.pools.get_mut(&site) {
            let mut failures = pool.failures;
            failures.count();
            let (epoch, not_before) = (pool.epoch, now + failures.pause());
            pool.not_before = Some(not_before);
            pool.doubted = Some(Doubt { worker, epoch, how, line, until, not_before });
            self.at(until, Timer::Doubt(site));
        }
    }

    /// The broker has read an answer of a worker that is gone.
    pub(super) fn has_answered(&mut self, site: Site, worker: Worker) {
        let Some(pool) = self.pools.get_mut(&site) else { return };
        let epoch = pool.epoch;
        if pool.doubted.take_if(|doubt| doubt.worker == worker).is_some_and(|doubt| doubt.epoch == epoch) {
            self.proven(site);
            self.fill(site);
        }
    }

    pub(super) fn doubt_timer(&mut self, site: Site, now: Instant) {
        let doubted = self.pools.get(&site).and_then(|pool| pool.doubted.as_ref());
        if doubted.is_some_and(|doubt| doubt.until <= now) {
            self.convict(site);
        }
    }

    /// It did not answer: its start has failed.
    fn convict(&mut self, site: Site) {
        let Some(pool) = self.pools.get_mut(&site) else { return };
        let epoch = pool.epoch;
        let Some(doubt) = pool.doubted.take().filter(|doubt| doubt.epoch == epoch) else { return };
        self.start_failed(site, doubt.how, &doubt.line);
        if let Some(pool) = self.pools.get_mut(&site) {
            pool.not_before = Some(doubt.not_before);
        }
    }
}

/// After a worker's end the broker has so long to tell of its answer: it has read it long before, unless it got no processor.
const HEARD: Duration = Duration::from_secs(1);
