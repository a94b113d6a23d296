//! What administrators and site owners may ask of the daemon: one request and one answer of fixed size. Pure.
//!
//! On the `SOCK_SEQPACKET` socket [`SOCKET`]; who asks is known from the kernel (`SO_PEERCRED`). Root may ask for anything, the
//! user of a site for [`Wish::Deployed`] of that site.

/// Where the daemon listens.
pub const SOCKET: &str = "/run/cellwall/control.sock";
/// Bytes of a request and of an answer.
pub const FRAME: usize = 260;
/// The first byte of both.
const VERSION: u8 = 1;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Read the policy anew. No site.
    Reload,
    /// Answer a site's requests with 503, and end its workers; whichever daemon runs, until [`Wish::Start`].
    Stop,
    /// The end of [`Wish::Stop`]; answered when the site is served.
    Start,
    /// New workers for old ones, without a lost request; answered when the old ones are gone.
    Restart,
    /// As [`Wish::Restart`], after a deployment: the site's own user may ask for it.
    Deployed,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// There is no such pool.
    Unknown,
    /// Not for this user.
    Denied,
    /// It is begun, and takes longer than anybody waits.
    Slow,
    /// No request of this contract.
    Nonsense,
    /// Workers do not start; after a [`Wish::Restart`] the old ones go on.
    Failing,
    /// Not all records could be used; the pools of those that could not are as they were.
    Kept,
    /// Done, and it could not be written down: the next daemon will not know of it.
    Unwritten,
}

const WISHES: [(u8, Wish); 5] =
    [(1, Wish::Reload), (2, Wish::Stop), (3, Wish::Start), (4, Wish::Restart), (5, Wish::Deployed)];
const OUTCOMES: [(u8, Outcome); 8] = [
    (1, Outcome::Done),
    (2, Outcome::Unknown),
    (3, Outcome::Denied),
    (4, Outcome::Slow),
    (5, Outcome::Nonsense),
    (6, Outcome::Failing),
    (7, Outcome::Kept),
    (8, Outcome::Unwritten),
];

impl Wish {
    /// The request for `site`; none: the name is longer than any site's.
    #[must_use]
    pub fn encode(self, site: &[u8]) -> Option<[u8; FRAME]> {
        let number = WISHES.iter().find(|(_, wish)| *wish == self).map(|(number, _)| *number)?;
        let length = u8::try_from(site.len()).ok()?;
        let mut frame = [0; FRAME];
        let bytes = [VERSION, number, length, 0].into_iter().chain(site.iter().copied());
        frame.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Some(frame)
    }

    /// The wish and the site's name.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<(Self, &[u8])> {
        let [VERSION, number, length, 0, rest @ ..] = frame else { return None };
        let (name, zeros) = rest.split_at_checked(usize::from(*length))?;
        let plain = frame.len() == FRAME && zeros.iter().all(|byte| *byte == 0);
        let wish = WISHES.iter().find(|(one, _)| one == number).map(|(_, wish)| *wish)?;
        (plain && name.is_empty() == (wish == Self::Reload)).then_some((wish, name))
    }
}

impl Outcome {
    /// The answer.
    #[must_use]
    pub fn encode(self) -> [u8; FRAME] {
        let number = OUTCOMES.iter().find(|(_, outcome)| *outcome == self).map_or(0, |(number, _)| *number);
        let mut frame = [0; FRAME];
        frame.iter_mut().zip([VERSION, number]).for_each(|(to, from)| *to = from);
        frame
    }

    /// The outcome of an answer.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let [VERSION, number, zeros @ ..] = frame else { return None };
        let plain = frame.len() == FRAME && zeros.iter().all(|byte| *byte == 0);
        OUTCOMES.iter().find(|(one, _)| plain && one == number).map(|(_, outcome)| *outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_back_as_they_were_sent() {
        for (_, wish) in WISHES {
            let site: &[u8] = if wish == Wish::Reload { b"" } else { b"shop" };
            let frame = wish.encode(site).unwrap();
            assert_eq!(Wish::decode(&frame), Some((wish, site)));
            assert_eq!(Wish::decode(&frame[1..]), None);
        }
        for (_, outcome) in OUTCOMES {
            assert_eq!(Outcome::decode(&outcome.encode()), Some(outcome));
        }
        assert_eq!(Wish::Stop.encode(&[b'a'; 256]), None);
    }

    #[test]
    fn anything_else_is_no_request() {
        let frame = Wish::Stop.encode(b"shop").unwrap();
        for (place, value) in [(0, 2), (1, 9), (2, 255), (3, 1), (259, 1)] {
            let mut wrong = frame;
            wrong[place] = value;
            let taken = Wish::decode(&wrong);
            assert!(taken.is_none() || taken == Some((Wish::Stop, &wrong[4..259])), "{place}");
        }
        assert_eq!(Wish::decode(&Wish::Stop.encode(b"").unwrap()), None, "a stop of nothing");
        assert_eq!(Wish::decode(&Wish::Reload.encode(b"shop").unwrap()), None);
    }
}
