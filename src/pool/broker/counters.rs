//! What is counted for each site. Pure.

use std::collections::BTreeMap;

/// Since the broker's start.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) since: u64,
    pub(super) connections: u64,
    pub(super) requests: u64,
    /// Answers by the first digit of their status: 2xx is at place 2.
    pub(super) statuses: [u64; 6],
    /// Lines of its programs' error output.
    pub(super) lines_said: u64,
    /// Refusals by code.
    pub(super) refusals: BTreeMap<&'static str, u64>,
    pub(super) slow: u64,
    pub(super) abandoned: u64,
    pub(super) queue_most: u32,
    pub(super) running_most: u32,
    pub(super) places_full: u64,
    pub(super) bytes_out: u64,
    pub(super) lines_lost: u64,
    /// From the whole parameters to a worker.
    pub(super) waited: Histogram,
    /// From a worker to the last byte.
    pub(super) worked: Histogram,
}

impl Counters {
    pub(super) fn new(since: u64) -> Self {
        Self {
            since,
            connections: 0,
            requests: 0,
            statuses: [0; 6],
            refusals: BTreeMap::new(),
            slow: 0,
            abandoned: 0,
            queue_most: 0,
            running_most: 0,
            places_full: 0,
            bytes_out: 0,
            lines_said: 0,
            lines_lost: 0,
            waited: Histogram::default(),
            worked: Histogram::default(),
        }
    }

    pub(super) fn answered(&mut self, status: u16) {
        if let Some(count) = self.statuses.get_mut(usize::from(status / 100)) {
            *count += 1;
        }
    }
}

/// Times by powers of two: the first place counts those below 128 µs, the last those beyond 64 s.
#[derive(Debug, Default, Clone)]
pub(super) struct Histogram {
    pub(super) places: [u64; PLACES],
    pub(super) sum_us: u64,
    pub(super) count: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, us: u64) {
        let bits = u64::BITS.saturating_sub(us.leading_zeros()).saturating_sub(7);
        let place = usize::try_from(bits).unwrap_or(0).min(PLACES.saturating_sub(1));
        if let Some(count) = self.places.get_mut(place) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(us);
        self.count += 1;
    }

    /// The upper ends of the places in microseconds, and how many lie below each; the last has no end.
    pub(super) fn below(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let mut sum = 0;
        self.places.iter().enumerate().map(move |(place, count)| {
            sum += count;
            let end = (place + 1 < PLACES).then(|| 128_u64 << place);
            (end, sum)
        })
    }

    /// The upper end of the place where this share of all times lies, in microseconds.
    pub(super) fn quantile(&self, percent: u64) -> u64 {
        let rank = self.count.saturating_mul(percent).div_ceil(100).max(1);
        let found = self.below().find(|(_, sum)| *sum >= rank);
        found.map_or(0, |(end, _)| end.unwrap_or(128 << PLACES))
    }
}

const PLACES: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_powers_of_two() {
        let mut histogram = Histogram::default();
        for us in [0, 1, 127, 128, 255, 256, 1_000_000, u64::MAX / 2] {
            histogram.add(us);
        }
        assert_eq!((histogram.places[0], histogram.places[1], histogram.places[2]), (3, 2, 1));
        assert_eq!(histogram.places[PLACES - 1], 1);
        assert_eq!((histogram.quantile(50), histogram.quantile(90)), (256, 128 << PLACES));
        assert_eq!(histogram.below().last(), Some((None, 8)));
    }

    #[test]
    fn of_few_times_each_counts() {
        let of = |times: &[u64], percent| {
            let mut histogram = Histogram::default();
            times.iter().for_each(|us| histogram.add(*us));
            assert_eq!(
                (histogram.count, histogram.sum_us),
                (u64::try_from(times.len()).unwrap(), times.iter().sum())
            );
            histogram.quantile(percent)
        };
        assert_eq!(of(&[], 50), 0, "nothing is known");
        assert_eq!([0, 1, 50, 99, 100].map(|percent| of(&[200], percent)), [256; 5]);
        assert_eq!([50, 51, 99].map(|percent| of(&[100, 200], percent)), [128, 256, 256]);
    }

    #[test]
    fn answers_are_counted_by_the_first_digit_of_their_status() {
        let mut counters = Counters::new(7);
        for status in [200, 204, 299, 503, 100, 599, 600, 0, 65_535] {
            counters.answered(status);
        }
        assert_eq!(counters.statuses, [1, 1, 3, 0, 0, 2]);
    }
}
