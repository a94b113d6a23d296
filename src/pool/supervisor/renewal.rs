//! New workers in the place of old ones: one first, and when it is believed, the others.

use std::time::{Duration, Instant};

use super::super::life::{Event, Failures};
use super::super::settings::Accept;
use super::super::wire::{Site, Worker};
use super::workers::target;
use super::{Supervisor, Timer};

impl Supervisor {
    /// Somebody wants new workers, as often as he likes: a site gets them once a second, and then as they are by then. Returns
    /// the epoch that is his.
    pub(super) fn renew(&mut self, site: Site) -> u32 {
        let Some(pool) = self.pools.get_mut(&site) else { return 0 };
        let next = pool.epoch.saturating_add(1);
        match pool.renewed.map(|last| last + RENEWAL).filter(|due| *due > Instant::now()) {
            Some(due) => {
                pool.renewal_asked = true;
                self.at(due, Timer::Renew(site));
            }
            None => {
                pool.renewed = Some(Instant::now());
                self.replace(site);
            }
        }
        next
    }

    pub(super) fn is_to_be_renewed(&self, site: Site) -> bool {
        self.pools.get(&site).is_some_and(|pool| pool.renewal_asked)
    }

    pub(super) fn renew_timer(&mut self, site: Site) {
        if self.pools.get_mut(&site).is_some_and(|pool| std::mem::take(&mut pool.renewal_asked)) {
            self.renew(site);
        }
    }

    /// Replaces all workers of a site: one new one first; when it is believed, the others, and the old ones drain.
    pub(super) fn replace(&mut self, site: Site) {
        let Some(pool) = self.pools.get_mut(&site) else { return };
        pool.epoch = pool.epoch.saturating_add(1);
        (pool.not_before, pool.failures) = (None, Failures::default());
        let watched = std::mem::replace(&mut pool.proving, true);
        if target(pool) == 0 {
            // None is wanted at the moment: nothing proves anything.
            return self.proven(site);
        }
        self.fill(site);
        if !watched {
            self.after(PROBATION, Timer::Vanguard(site));
        }
    }

    /// A worker of this epoch has lived long enough to be believed: as far as is known, which may be less than it seems by the clock.
    pub(super) fn has_proven(&self, site: Site, epoch: u32) -> bool {
        let probation = self.reaped.checked_sub(PROBATION);
        self.workers.values().any(|one| {
            one.site == site
                && one.epoch == epoch
                && one.state.serves()
                && probation.is_none_or(|probation| one.since <= probation)
        })
    }

    /// The first worker of a new epoch lives still.
    pub(super) fn vanguard_timer(&mut self, site: Site) {
        let Some(pool) = self.pools.get(&site).filter(|pool| pool.proving) else { return };
        if self.has_proven(site, pool.epoch) {
            self.proven(site);
        } else {
            self.after(PROBATION, Timer::Vanguard(site));
        }
    }

    /// Workers of this epoch can be started and live: the site's failures are forgotten, older workers drain.
    pub(super) fn proven(&mut self, site: Site) {
        let Some(pool) = self.pools.get_mut(&site) else { return };
        pool.failures.forget();
        pool.not_before = None;
        if !std::mem::take(&mut pool.proving) {
            return;
        }
        let epoch = pool.epoch;
        self.fill(site);
        let old: Vec<(Worker, Accept)> = self
            .workers
            .iter()
            .filter(|(_, one)| one.site == site && one.epoch < epoch)
            .map(|(worker, one)| (*worker, one.accept))
            .collect();
        for (worker, accept) in old {
            // Nobody can tell when one that accepts for itself is idle: it is asked to end, and finishes what it has.
            self.happen(worker, if accept == Accept::Direct { Event::Stop } else { Event::Drain });
        }
    }
}

/// From one renewal of a site's workers that somebody asked for to the next: longer than [`PROBATION`].
const RENEWAL: Duration = Duration::from_secs(1);
/// The first worker of new settings is believed when it lives so long without an answer.
const PROBATION: Duration = Duration::from_millis(500);
