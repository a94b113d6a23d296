//! The life of one worker as a table, and the pauses between starts. Pure: no clock, no process, no I/O.
//!
//! The supervisor looks up what happened, does what the table says, and keeps the new state; there is no other place where
//! a worker's life is decided. A test enumerates the table, and the manual prints it.

use std::time::{Duration, Instant};

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Started; it has not answered a request yet.
    Starting,
    /// It has answered one. Where it accepts for itself, and nobody hears that: it has lived for a second.
    Up,
    /// It gets nothing new, and finishes what it has.
    Draining,
    /// It was told to end.
    Stopping,
    /// It is made to end, with all that it started.
    Killing,
    /// As [`State::Killing`], and it never answered: its start has failed.
    Failing,
    /// It has ended.
    Gone,
}

/// What can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its first answer, or what stands for it.
    Ready,
    /// Another one takes its place: a reload, a deployment, too much memory.
    Drain,
    /// The broker says that it is idle and gets nothing more.
    Retire,
    /// The broker says that a deadline of a request passed.
    Kill,
    /// Its site or the whole pool is stopped.
    Stop,
    /// The time that its state may last is over.
    Timer,
    /// The kernel says that it has ended.
    Exited,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Tell the broker to give it nothing new.
    AskDrain,
    /// SIGTERM to the program itself, which may finish.
    Polite,
    /// SIGKILL to the whole tree.
    Destroy,
    /// Remove what is left of it, and tell the broker.
    Bury,
    /// As [`Action::Bury`], and count a failed start.
    Blame,
}

impl State {
    /// Every state, in the order of the manual.
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Up, Self::Draining, Self::Stopping, Self::Killing, Self::Failing, Self::Gone];

    /// The next state, and what is to be done.
    #[must_use]
    pub fn after(self, event: Event) -> (Self, Action) {
        use {Action as A, Event as E, State as S};
        match (self, event) {
            (S::Starting, E::Ready) => (S::Up, A::Nothing),
            (S::Starting | S::Up, E::Drain) => (S::Draining, A::AskDrain),
            (S::Starting | S::Up | S::Draining, E::Retire | E::Stop) => (S::Stopping, A::Polite),
            (S::Draining, E::Timer) => (S::Stopping, A::Polite),
            (S::Starting, E::Kill) => (S::Failing, A::Destroy),
            (S::Up | S::Draining | S::Stopping, E::Kill) => (S::Killing, A::Destroy),
            (S::Stopping | S::Killing, E::Timer) => (S::Killing, A::Destroy),
            (S::Failing, E::Timer) => (S::Failing, A::Destroy),
            (S::Starting | S::Failing, E::Exited) => (S::Gone, A::Blame),
            (S::Up | S::Draining | S::Stopping | S::Killing, E::Exited) => (S::Gone, A::Bury),
            // A frame that crossed another one on its way, or a timer that was late.
            (S::Starting | S::Up, E::Timer)
            | (S::Up | S::Draining | S::Stopping, E::Ready)
            | (S::Draining | S::Stopping, E::Drain)
            | (S::Stopping, E::Retire | E::Stop)
            | (S::Killing | S::Failing, E::Ready | E::Drain | E::Retire | E::Stop | E::Kill)
            | (S::Gone, _) => (self, A::Nothing),
        }
    }

    /// It counts as one of the workers that a site has.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Starting | Self::Up)
    }
}

impl Event {
    /// Every event, in the order of the manual.
    pub const ALL: [Self; 7] =
        [Self::Ready, Self::Drain, Self::Retire, Self::Kill, Self::Stop, Self::Timer, Self::Exited];
}

/// So long a worker that drains may finish what it has: as long as one request may take. The broker ends it when it is idle, and
/// at the request's deadline, which the visitor is told; a broker that has not by then is not waited for. None: its requests
/// have no limit, and neither has this.
#[must_use]
pub fn drain(deadline_ms: u32) -> Option<Duration> {
    (deadline_ms > 0).then(|| Duration::from_millis(deadline_ms.into()).saturating_add(LATE))
}

/// How many starts in a row have failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures(u32);

impl Failures {
    /// One more.
    pub fn count(&mut self) {
        self.0 = self.0.saturating_add(1);
    }

    /// A worker answered.
    pub fn forget(&mut self) {
        self.0 = 0;
    }

    /// The pause before the next start: none after a success, then 0.1 s, twice as long after each failure, 30 s at most.
    /// A site whose program cannot start costs two starts a minute.
    #[must_use]
    pub fn pause(self) -> Duration {
        match self.0 {
            0 => Duration::ZERO,
            failed => FIRST.saturating_mul(1 << (failed - 1).min(16)).min(LONGEST),
        }
    }

    /// The last start was one.
    #[must_use]
    pub fn are_some(self) -> bool {
        self.0 > 0
    }

    /// It will not get better by waiting a little: the broker may answer 503 at once.
    #[must_use]
    pub fn is_loop(self) -> bool {
        self.0 >= 5
    }
}

/// When a site's workers may be started that are ended sooner than they can have been of use.
///
/// The broker asks for these ends, and a new worker comes in the place of each: a broker that was taken over would have root start
/// workers without end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spacing {
    /// Ends in a row.
    ends: u32,
    last: Option<Instant>,
    until: Option<Instant>,
}

impl Spacing {
    /// One more was ended so early.
    pub fn ended(&mut self, now: Instant) {
        let goes_on = self.last.is_some_and(|last| now.saturating_duration_since(last) < CALM);
        self.ends = if goes_on { self.ends.saturating_add(1) } else { 1 };
        self.last = Some(now);
        self.until = self.until.max(Some(now + self.pause()));
    }

    /// A worker is started. Where it goes on and on, each start has a pause of its own.
    pub fn started(&mut self, now: Instant) {
        if self.goes_on_and_on(now) {
            self.until = Some(now + self.pause());
        }
    }

    /// No start before.
    #[must_use]
    pub fn not_before(self) -> Option<Instant> {
        self.until
    }

    fn goes_on_and_on(self, now: Instant) -> bool {
        self.ends > FEW && self.last.is_some_and(|last| now.saturating_duration_since(last) < CALM)
    }

    fn pause(self) -> Duration {
        if self.ends > FEW { LONG } else { SPACE }
    }
}

/// A worker that is let go sooner cannot have had its requests: no program answers twenty thousand in a second. `requests`: after so
/// many it is let go.
#[must_use]
pub fn least_life(requests: u32) -> Duration {
    LEAST_REQUEST.saturating_mul(requests)
}

/// From a worker that was ended so early to the next start, and after [`FEW`] of them.
const SPACE: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(1);
const FEW: u32 = 10;
/// After so long without such an end, it begins anew.
const CALM: Duration = Duration::from_secs(10);
const LEAST_REQUEST: Duration = Duration::from_micros(50);

/// The broker looks at its clock, and its word comes, within this time after a deadline.
const LATE: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The table as docs/man/cellwalld.8 prints it.
    fn table() -> String {
        let mut text = String::new();
        for state in State::ALL {
            for event in Event::ALL {
                let (next, action) = state.after(event);
                if (next, action) != (state, Action::Nothing) {
                    text += &format!("{state:?}\t{event:?}\t{next:?}\t{action:?}\n");
                }
            }
        }
        text
    }

    #[test]
    fn the_manual_prints_the_table() {
        let manual = include_str!("../../docs/man/cellwalld.8");
        let table = table();
        assert!(manual.contains(&table), "docs/man/cellwalld.8 should have these rows:\n{table}");
    }

    #[test]
    fn every_life_ends_and_is_buried_once() {
        // Breadth first over all that can happen, 12 steps deep: no state is left behind but Gone, and the way into it
        // buries exactly once.
        let mut lives: BTreeSet<(u8, usize)> = BTreeSet::from([(0, 0)]);
        let place = |state: State| State::ALL.iter().position(|one| *one == state).unwrap();
        for _ in 0..12 {
            let mut next = BTreeSet::new();
            for (buried, state) in lives {
                for event in Event::ALL {
                    let (after, action) = State::ALL[state].after(event);
                    let buries = matches!(action, Action::Bury | Action::Blame);
                    assert_eq!(
                        buries,
                        event == Event::Exited && State::ALL[state] != State::Gone,
                        "{state} {event:?}"
                    );
                    next.insert((buried + u8::from(buries), place(after)));
                }
            }
            lives = next;
        }
        assert!(lives.iter().all(|(buried, state)| (*buried == 1) == (State::ALL[*state] == State::Gone)));
        assert!(lives.iter().all(|(buried, _)| *buried <= 1));
    }

    #[test]
    fn whatever_happens_a_worker_can_be_ended() {
        for state in State::ALL.into_iter().filter(|state| *state != State::Gone) {
            // Timers alone end all but those that serve; a stop and timers end all.
            let (mut now, mut destroyed) = (state.after(Event::Stop).0, false);
            for _ in 0..3 {
                let (next, action) = now.after(Event::Timer);
                destroyed |= action == Action::Destroy;
                now = next;
            }
            assert!(destroyed, "{state:?}");
            assert_eq!(now.after(Event::Exited).0, State::Gone);
        }
    }

    #[test]
    fn a_worker_never_serves_again() {
        for state in State::ALL.into_iter().filter(|state| !state.serves()) {
            assert!(Event::ALL.into_iter().all(|event| !state.after(event).0.serves()), "{state:?}");
        }
    }

    #[test]
    fn a_drain_takes_longer_than_any_request() {
        for deadline in [1, 60_000, 600_000, u32::MAX] {
            assert!(
                drain(deadline).unwrap() > Duration::from_millis(deadline.into()) + Duration::from_secs(5)
            );
        }
        assert_eq!(drain(0), None, "requests without a limit");
    }

    #[test]
    fn failed_starts_are_paused_for_ever_longer_and_cost_nothing_in_the_end() {
        let mut failures = Failures::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.push(failures.pause().as_millis());
            failures.count();
        }
        let is = |count: usize| {
            let mut failures = Failures::default();
            (0..count).for_each(|_| failures.count());
            (failures.are_some(), failures.is_loop())
        };
        assert_eq!(
            [0, 1, 4, 5, 6].map(is),
            [(false, false), (true, false), (true, false), (true, true), (true, true)]
        );
        assert_eq!(pauses[..6], [0, 100, 200, 400, 800, 1600]);
        assert!(pauses.is_sorted() && pauses[39] == 30_000);
        failures.forget();
        assert_eq!(failures.pause(), Duration::ZERO);
    }

    /// Starts within these seconds, of a site whose workers are ended as soon as they live. `at_once`: so many start at a time.
    fn starts(seconds: u64, at_once: u32) -> u32 {
        let (begin, mut spacing, mut starts) = (Instant::now(), Spacing::default(), 0);
        for now in (0..seconds * 1000).map(|ms| begin + Duration::from_millis(ms)) {
            let before = starts;
            for _ in 0..at_once {
                if spacing.not_before().is_none_or(|until| until <= now) {
                    spacing.started(now);
                    starts += 1;
                }
            }
            (before..starts).for_each(|_| spacing.ended(now));
        }
        starts
    }

    #[test]
    fn workers_that_are_ended_as_soon_as_they_live_are_started_ever_more_slowly() {
        assert!((60..75).contains(&starts(60, 1)), "{}", starts(60, 1));
        assert!((60..75).contains(&starts(60, 2)), "{}", starts(60, 2));
    }

    #[test]
    fn one_end_costs_a_tenth_of_a_second_and_holds_back_nobody_else() {
        let (now, mut spacing) = (Instant::now(), Spacing::default());
        assert_eq!(spacing.not_before(), None);
        spacing.ended(now);
        assert_eq!(spacing.not_before(), Some(now + SPACE));
        let later = now + SPACE;
        (0..8).for_each(|_| spacing.started(later));
        assert!(spacing.not_before() <= Some(later), "all the others start at once");
        // So rare ones never are many.
        let rare = (1..100).map(|number| now + CALM * number);
        rare.for_each(|then| {
            spacing.ended(then);
            assert_eq!(spacing.not_before(), Some(then + SPACE));
        });
    }

    #[test]
    fn a_worker_may_have_its_requests_as_fast_as_any_program_answers() {
        assert_eq!(least_life(1), Duration::from_micros(50));
        assert_eq!(least_life(500), Duration::from_millis(25));
    }
}
