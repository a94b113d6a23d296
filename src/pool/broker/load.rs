//! Which site computes for long while others want the processors for a moment. Pure.

/// What is known of a site's work.
#[derive(Debug, Default)]
pub(super) struct Load {
    last: Option<Told>,
    /// Its requests took more of a processor, when it was last told about, than a tick is long.
    slow: bool,
    /// Answered requests that were not of that kind.
    brief: u64,
}

/// What is known of a site, about once a second as long as it has workers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// When, in microseconds.
    pub(super) at: u64,
    /// Its CPU time so far, in microseconds.
    pub(super) cpu_us: u64,
    /// Its requests that were answered so far.
    pub(super) requests: u64,
    /// Brief requests of all sites that were answered so far.
    pub(super) brief: u64,
}

impl Load {
    /// A request was answered. True: as far as is known it was a brief one.
    pub(super) fn answered(&mut self) -> bool {
        self.brief = self.brief.saturating_add(u64::from(!self.slow));
        !self.slow
    }

    /// True: it has computed for long at a time since the last telling, and others were asked for something brief meanwhile.
    ///
    /// A busy site of short requests is not meant, however much it uses: it goes to sleep after each. And where all compute for
    /// long, nobody notices a few milliseconds more.
    pub(super) fn disturbs(&mut self, told: Told) -> bool {
        // What others were asked.
        let told = Told { brief: told.brief.saturating_sub(self.brief), ..told };
        let Some(last) = self.last.replace(told) else { return false };
        // A worker that has ended took its time with it: nothing is known of such a second.
        let spent = told.cpu_us.saturating_sub(last.cpu_us);
        let asked = told.requests.saturating_sub(last.requests).max(1);
        let each = spent.checked_div(asked).unwrap_or(0);
        let much = spent >= MUCH_US;
        self.slow = much && each >= TICK_US;
        let lately = told.at.saturating_sub(last.at) <= LATELY_US;
        much && each >= LONG_US && lately && told.brief.saturating_sub(last.brief) >= ASKED
    }
}

/// The last telling is about the time before this one, and not about an earlier life of the site's.
const LATELY_US: u64 = 3_000_000;
/// CPU time of a second, in microseconds, that others notice: a twentieth of one processor.
const MUCH_US: u64 = 50_000;
/// CPU time of one request, in microseconds, that is long for those that take a tenth of it.
const LONG_US: u64 = 1_000;
/// CPU time of one request, in microseconds, beside which a tick of the kernel's (4 ms, where it is not shorter) is nothing.
const TICK_US: u64 = 4_000;
/// Brief requests of other sites in a second.
const ASKED: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// After a telling of nothing at all.
    fn told(cpu_us: u64, requests: u64, brief: u64) -> bool {
        let none = Told { at: SECOND, cpu_us: 0, requests: 0, brief: 0 };
        let mut load = Load::default();
        assert!(!load.disturbs(none));
        load.disturbs(Told { at: 2 * SECOND, cpu_us, requests, brief })
    }

    #[test]
    fn a_site_disturbs_that_computes_for_long_while_others_are_asked() {
        assert!(told(MUCH_US, 0, ASKED), "a request that goes on");
        assert!(told(MUCH_US, MUCH_US / LONG_US, ASKED));
        assert!(!told(MUCH_US, MUCH_US / LONG_US + 1, ASKED), "short requests");
        assert!(!told(MUCH_US - 1, 0, ASKED), "little");
        assert!(!told(MUCH_US, 0, ASKED - 1), "nobody else");
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut load = Load::default();
        let mut told = |at, cpu_us, requests, brief| {
            load.disturbs(Told { at: at * SECOND, cpu_us: cpu_us * MUCH_US, requests, brief })
        };
        assert!(!told(1, 10, 5, 1000), "the first telling is about any time before");
        assert!(!told(2, 10, 5, 2000), "it rests");
        assert!(!told(3, 11, 5, 2000), "the others do");
        assert!(told(4, 12, 6, 2010));
        assert!(!told(5, 0, 6, 3000), "its workers have ended");
        assert!(!told(9, 5, 6, 4000), "long ago");
    }

    #[test]
    fn where_all_compute_for_long_nobody_is_disturbed() {
        let mut load = Load::default();
        assert!(load.answered(), "nothing is known yet");
        let told = |at, cpu_us, brief| Told { at: at * SECOND, cpu_us, requests: 0, brief };
        assert!(!load.disturbs(told(1, 0, 1 + ASKED)));
        assert!(load.disturbs(told(2, MUCH_US, 1 + 2 * ASKED)));
        assert!(!load.answered(), "its own are no brief ones any more");
        assert!(!load.disturbs(told(3, 2 * MUCH_US, 1 + 2 * ASKED)));
        assert!(!load.disturbs(told(4, 2 * MUCH_US, 1 + 2 * ASKED)));
        assert!(load.answered(), "it rests");
    }

    #[test]
    fn its_own_requests_are_nobody_elses_and_a_request_of_a_tick_is_none_that_is_brief() {
        let mut load = Load::default();
        let mut at = 0;
        let mut told = |load: &mut Load, cpu_us, requests, brief| {
            at += SECOND;
            load.disturbs(Told { at, cpu_us, requests, brief })
        };
        assert!(!told(&mut load, 0, 0, 0));
        // Ten answers, and no other site's: all that is told of them is its own.
        (0..ASKED).for_each(|_| assert!(load.answered()));
        assert!(!told(&mut load, MUCH_US, MUCH_US / TICK_US, ASKED));
        assert!(!load.answered(), "a tick each");
        // Its slow ones are in nobody's count, so they are not taken off the others'.
        assert!(told(&mut load, 2 * MUCH_US, MUCH_US / TICK_US + 1, 2 * ASKED));
    }
}
