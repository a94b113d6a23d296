//! How much of something a site may have over time.

/// So much at once, and so much more each second. What is taken may be more than is left: the debt is waited for.
#[derive(Debug)]
pub(super) struct Allowance<const AT_ONCE: i64, const PER_SECOND: u64> {
    left: i64,
    /// When it last grew, in microseconds.
    since: u64,
}

impl<const AT_ONCE: i64, const PER_SECOND: u64> Default for Allowance<AT_ONCE, PER_SECOND> {
    fn default() -> Self {
        Self { left: AT_ONCE, since: 0 }
    }
}

impl<const AT_ONCE: i64, const PER_SECOND: u64> Allowance<AT_ONCE, PER_SECOND> {
    /// Takes so much of it.
    pub(super) fn spend(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(i64::try_from(amount).unwrap_or(i64::MAX));
    }

    /// Nothing is left of it.
    pub(super) fn is_spent(&mut self, now: u64) -> bool {
        let grown = now.saturating_sub(self.since).saturating_mul(PER_SECOND) / 1_000_000;
        if grown > 0 {
            let left = self.left.saturating_add(i64::try_from(grown).unwrap_or(i64::MAX));
            (self.left, self.since) = (left.min(AT_ONCE), now);
        }
        self.left <= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_spent_at_once_and_grows_with_time_up_to_its_size() {
        let mut allowance = Allowance::<10, 5>::default();
        allowance.spend(9);
        assert!(!allowance.is_spent(0));
        allowance.spend(3);
        assert!(allowance.is_spent(0) && allowance.is_spent(400_000), "a debt of two");
        assert!(!allowance.is_spent(600_000));
        assert!(!allowance.is_spent(3_600_000_000));
        allowance.spend(10);
        assert!(allowance.is_spent(3_600_000_000), "it had not grown beyond its size");
    }

    #[test]
    fn who_asks_often_gets_as_much_as_who_asks_seldom() {
        let mut allowance = Allowance::<10, 5>::default();
        allowance.spend(11);
        let first = (0..100_u64).find(|tenth| !allowance.is_spent(tenth * 100_000));
        assert_eq!(first, Some(4), "two in four tenths of a second, of five in one");
    }
}
