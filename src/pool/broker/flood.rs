//! Programs that say so much to the log that their site has to wait: it waits for itself, where others would wait for it.
//!
//! Reading a flood costs the broker about as much as writing it costs the site, and everybody's answers pass through the broker. So
//! of what a site writes to its standard error outputs only so much is read in a second; then the kernel's buffers fill, and
//! the program that floods waits in its own write. Nothing is lost by it.

use std::collections::BTreeSet;

use super::arena::Key;
use super::{Broker, Source};

/// What a site's programs may still say. It may be spent at once, and grows again with time.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes; below zero after a piece that was larger.
    left: i64,
    /// When it last grew, in microseconds.
    since: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: BURST, since: 0 }
    }
}

impl Allowance {
    /// So many bytes were read.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Nothing is left of it.
    fn is_spent(&mut self, now: u64) -> bool {
        let grown = now.saturating_sub(self.since).saturating_mul(PER_SECOND) / 1_000_000;
        if grown > 0 {
            let left = self.left.saturating_add(i64::try_from(grown).unwrap_or(i64::MAX));
            (self.left, self.since) = (left.min(BURST), now);
        }
        self.left <= 0
    }
}

/// Bytes of a site over time: 20,000 lines, where 50 are written down.
const PER_SECOND: u64 = 2_000_000;
/// Bytes of a site at once.
const BURST: i64 = 4_000_000;

impl Broker {
    /// What says something for this site is read later, because the site has said too much.
    pub(super) fn holds(&mut self, site: u32, source: Source, key: Key) -> bool {
        let held = self.has_said_too_much(site);
        if held && !self.held.iter().any(|(_, what, which)| (*what, *which) == (source, key)) {
            self.held.push((site, source, key));
            self.wake_at(self.now);
        }
        held
    }

    fn has_said_too_much(&mut self, site: u32) -> bool {
        self.sites.get_mut(&site).is_some_and(|site| site.allowance.is_spent(self.now))
    }

    /// Hears those again whose site may say something: of each site the one that has waited longest, so that many of them are
    /// not heard in one turn, which would take long. Returns when to look again.
    pub(super) fn let_speak(&mut self) -> u64 {
        let mut heard = BTreeSet::new();
        for (site, source, key) in std::mem::take(&mut self.held) {
            if heard.contains(&site) || self.has_said_too_much(site) {
                self.held.push((site, source, key));
            } else {
                heard.insert(site);
                self.again.push((source, key));
            }
        }
        if self.held.is_empty() { u64::MAX } else { self.now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_spent_and_grows_again() {
        let mut allowance = Allowance::default();
        assert!(!allowance.is_spent(0));
        allowance.spend(5_000_000);
        assert!(allowance.is_spent(0), "a piece may be larger");
        assert!(allowance.is_spent(500_000));
        assert!(!allowance.is_spent(500_001), "two million a second");
        assert!(!allowance.is_spent(3_600_000_000));
        allowance.spend(4_000_000);
        assert!(allowance.is_spent(3_600_000_000), "it does not grow beyond that");
    }
}
