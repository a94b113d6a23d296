//! How the kernel schedules the broker: by how much there is to do.
//!
//! A broker that is woken takes the processor from the web server or worker that woke it. That is right as long as there is
//! little to do: an answer does not wait for a neighbour that computes. Where thousands of requests come in a second, it
//! makes two switches of each step, and a tenth of all requests: then the others finish what they are at, and the broker
//! finds more to do at each turn.

use crate::sys::schedule::let_wakers_finish;

/// Counts what there is to do.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When this count began, in microseconds since the broker did.
    since: u64,
    events: u64,
    /// What the kernel was told last.
    busy: bool,
}

impl Pace {
    /// So many events came at once.
    pub(super) fn count(&mut self, events: usize, now: u64) {
        self.events = self.events.saturating_add(u64::try_from(events).unwrap_or(u64::MAX));
        let Some(busy) = self.judge(now) else { return };
        // Only speed depends on it.
        let _ = let_wakers_finish(busy);
    }

    /// What the kernel is to be told, when that is another thing than before.
    fn judge(&mut self, now: u64) -> Option<bool> {
        let span = now.saturating_sub(self.since);
        if span < SPAN_US {
            return None;
        }
        let rate = self.events.saturating_mul(1_000_000).checked_div(span).unwrap_or(0);
        (self.since, self.events) = (now, 0);
        let busy = rate >= if self.busy { CALM } else { BUSY };
        (busy != std::mem::replace(&mut self.busy, busy)).then_some(busy)
    }
}

/// Microseconds of a count at least.
const SPAN_US: u64 = 100_000;
/// Events a second from which on the broker is busy. A request makes about two: it comes, and its worker answers.
const BUSY: u64 = 10_000;
/// Events a second below which it is not busy any more.
const CALM: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, events: u64, span: u64) -> Option<bool> {
        pace.events = events;
        let now = pace.since + span;
        pace.judge(now)
    }

    #[test]
    fn it_is_busy_from_many_events_on_and_until_there_are_few() {
        let mut pace = Pace::default();
        assert_eq!(after(&mut pace, 5_000, SPAN_US - 1), None, "too short to know");
        assert_eq!(after(&mut pace, 999, SPAN_US), None);
        assert_eq!(after(&mut pace, 1_000, SPAN_US), Some(true));
        assert_eq!(after(&mut pace, 500, SPAN_US), None, "busy already, and not calm yet");
        assert_eq!(after(&mut pace, 499, SPAN_US), Some(false));
        // A rest of an hour, then one request.
        assert_eq!(after(&mut pace, 2_000, 3_600_000_000), None);
    }
}
