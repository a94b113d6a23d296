//! Programs that say so much to the log that their site has to wait: it waits for itself, where others would wait for it.
//!
//! Reading a flood costs the broker about as much as writing it costs the site, and everybody's answers pass through the broker. So
//! of what a site writes to its standard error outputs only so much is read in a second; then the kernel's buffers fill, and
//! the program that floods waits in its own write. Nothing is lost by it.

use std::collections::BTreeSet;

use super::allowance::Allowance;
use super::arena::Key;
use super::{Broker, Source};

/// What a site's programs may still say, in bytes.
pub(super) type Words = Allowance<BURST, PER_SECOND>;

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
        self.sites.get_mut(&site).is_some_and(|site| site.words.is_spent(self.now))
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
