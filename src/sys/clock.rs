//! Time: a monotonic start, the wall clock, the local calendar.

use std::time::Duration;

/// Seconds since 1970 and microseconds.
#[must_use]
pub fn now() -> (u64, u32) {
    let now = read(libc::CLOCK_REALTIME);
    (now.as_secs(), now.subsec_micros())
}

/// A moment of the clock that nobody sets.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(read(libc::CLOCK_MONOTONIC))
    }

    /// What has passed since.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        read(libc::CLOCK_MONOTONIC).saturating_sub(self.0)
    }
}

/// By the system call itself: a launch asks four times, and the C library's way without one (vdso(7)) first searches a table
/// and touches three pages, which costs more than the calls do.
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure outlives the call. It fails for no clock that Linux has always had; then it stays at zero.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A date and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// For example 2026.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// Hour, minute, second.
    pub time: (u32, u32, u32),
}

/// The calendar of UTC (days to a civil date, proleptic Gregorian).
#[must_use]
pub fn utc(seconds: u64) -> Calendar {
    let days = i64::try_from(seconds / 86_400).unwrap_or(0);
    let of_day = u32::try_from(seconds % 86_400).unwrap_or(0);
    // Count from 1 March of year 0, so that leap days end a year; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let small = |number: i64| u32::try_from(number).unwrap_or(0);
    let day = small(day_of_year - (153 * from_march + 2) / 5 + 1);
    Calendar { year, month: small(month), day, time: (of_day / 3600, of_day / 60 % 60, of_day % 60) }
}

/// The calendar of this host's zone: /etc/localtime, as TZ is not set any more. UTC where that fails.
#[must_use]
pub fn local(seconds: u64) -> Calendar {
    let Ok(time) = seconds.try_into() else { return utc(seconds) };
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; the environment is empty, so no zone of the caller's is read.
    let filled = unsafe { libc::localtime_r(&raw const time, parts.as_mut_ptr()) };
    if filled.is_null() {
        return utc(seconds);
    }
    // SAFETY: all-zero bytes are a valid `tm`, and localtime_r has filled it.
    let parts = unsafe { parts.assume_init() };
    let small = |number: i32| u32::try_from(number).unwrap_or(0);
    Calendar {
        year: i64::from(parts.tm_year) + 1900,
        month: small(parts.tm_mon) + 1,
        day: small(parts.tm_mday),
        time: (small(parts.tm_hour), small(parts.tm_min), small(parts.tm_sec)),
    }
}

/// Fills `bytes` with random ones. `false`: the kernel has none yet.
pub fn random(bytes: &mut [u8]) -> bool {
    // SAFETY: the pointer and the length are those of one slice.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    usize::try_from(filled) == Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_are_those_of_the_system() {
        use std::time::{SystemTime, UNIX_EPOCH};
        let begun = Moment::now();
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (seconds, micros) = now();
        let between = Duration::new(seconds, micros * 1000);
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(before <= between + Duration::from_micros(1) && between <= after);
        std::thread::sleep(Duration::from_millis(20));
        assert!((20..5000).contains(&begun.elapsed().as_millis()));
    }

    #[test]
    fn the_calendar_knows_leap_years() {
        let date = |seconds| {
            let Calendar { year, month, day, time } = utc(seconds);
            (year, month, day, time)
        };
        assert_eq!(date(0), (1970, 1, 1, (0, 0, 0)));
        assert_eq!(date(951_782_400), (2000, 2, 29, (0, 0, 0)));
        assert_eq!(date(1_735_689_599), (2024, 12, 31, (23, 59, 59)));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, (0, 0, 0)));
    }
}
