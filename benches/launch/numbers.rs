//! Medians, and how numbers are shown.

/// Nanoseconds of one program in each round.
pub(crate) type Times = Vec<u64>;

/// The median of something.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    part(values, 0.5)
}

/// The value that `share` of all values do not exceed.
pub(crate) fn part(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut all: Vec<f64> = values.into_iter().collect();
    all.sort_by(f64::total_cmp);
    assert!(!all.is_empty(), "nothing was measured");
    all[((all.len() - 1) as f64 * share).round() as usize]
}

/// Microseconds of all rounds.
pub(crate) fn micros(times: &Times) -> impl Iterator<Item = f64> {
    times.iter().map(|nanos| *nanos as f64 / 1000.0)
}

/// Round by round, how much longer `long` took than `short`.
pub(crate) fn added(long: &Times, short: &Times) -> Vec<f64> {
    micros(long).zip(micros(short)).map(|(long, short)| long - short).collect()
}

/// A measured ratio beside its target.
pub(crate) fn verdict(measured: f64, target: f64, at_most: bool) -> &'static str {
    if (measured <= target) == at_most || measured == target { "reached" } else { "MISSED" }
}
