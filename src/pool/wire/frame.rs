//! How the messages of the contract lie in a frame: fields, and their bytes. Pure.

use super::{Busy, Down, Ended, FRAME, Nonsense, Sink, Site, Token, Up, Why, Worker};

/// The messages of one direction.
pub trait Message: Sized {
    /// How many descriptors come with it.
    fn descriptors(&self) -> usize;

    /// What it says.
    fn fields(&self) -> Fields;

    /// What says this.
    ///
    /// # Errors
    /// [`Nonsense`]: another kind or detail than this direction has, or a number that is too large for it.
    fn of(fields: Fields) -> Result<Self, Nonsense>;

    /// The frame.
    fn encode(&self) -> [u8; FRAME] {
        self.fields().encode()
    }

    /// The message of a frame that came with so many descriptors.
    ///
    /// # Errors
    /// [`Nonsense`]: another length, kind, detail or number of descriptors than this contract has, or a field in use
    /// that is not.
    fn decode(frame: &[u8], descriptors: usize) -> Result<Self, Nonsense> {
        let fields = Fields::decode(frame)?;
        let message = Self::of(fields)?;
        // What encodes to the same bytes has no field in use that it does not know.
        let exact = message.fields() == fields && message.descriptors() == descriptors;
        if exact { Ok(message) } else { Err(Nonsense) }
    }
}

/// All fields of a frame; those that a kind does not use are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields {
    kind: u8,
    detail: u8,
    site: u32,
    worker: u32,
    number: u64,
    other: u64,
}

impl Fields {
    fn encode(self) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        let parts = [
            (0, &[self.kind, self.detail][..]),
            (4, &self.site.to_le_bytes()),
            (8, &self.worker.to_le_bytes()),
            (16, &self.number.to_le_bytes()),
            (24, &self.other.to_le_bytes()),
        ];
        for (place, bytes) in parts {
            frame.iter_mut().skip(place).zip(bytes).for_each(|(to, from)| *to = *from);
        }
        frame
    }

    fn decode(frame: &[u8]) -> Result<Self, Nonsense> {
        let frame: &[u8; FRAME] = frame.try_into().map_err(|_| Nonsense)?;
        let [kind, detail, 0, 0, rest @ ..] = frame else { return Err(Nonsense) };
        let (site, rest) = rest.split_first_chunk().ok_or(Nonsense)?;
        let (worker, rest) = rest.split_first_chunk().ok_or(Nonsense)?;
        let ([0, 0, 0, 0], rest) = rest.split_first_chunk().ok_or(Nonsense)? else { return Err(Nonsense) };
        let (number, rest) = rest.split_first_chunk().ok_or(Nonsense)?;
        let (other, _) = rest.split_first_chunk().ok_or(Nonsense)?;
        Ok(Self {
            kind: *kind,
            detail: *detail,
            site: u32::from_le_bytes(*site),
            worker: u32::from_le_bytes(*worker),
            number: u64::from_le_bytes(*number),
            other: u64::from_le_bytes(*other),
        })
    }
}

/// A number that must fit a smaller field.
fn small(number: u64) -> Result<u32, Nonsense> {
    u32::try_from(number).map_err(|_| Nonsense)
}

/// Of a message that says nothing but whom it is about.
fn of_site(kind: u8, site: Site) -> Fields {
    Fields { kind, site: site.0, ..Fields::default() }
}

impl Message for Down {
    fn descriptors(&self) -> usize {
        match self {
            Self::Welcome { .. } | Self::Site { .. } => 2,
            Self::Lines { .. } | Self::Worker { .. } | Self::Errors { .. } => 1,
            Self::Started { .. } => 3,
            Self::SiteGone { .. }
            | Self::Pause { .. }
            | Self::StandIn { .. }
            | Self::Resume { .. }
            | Self::Drain { .. }
            | Self::WorkerGone { .. }
            | Self::StartFailed { .. }
            | Self::NotStarted { .. }
            | Self::RunEnded { .. }
            | Self::Usage { .. }
            | Self::Spent { .. }
            | Self::RunSpent { .. }
            | Self::Ask { .. }
            | Self::Quit { .. } => 0,
        }
    }

    fn fields(&self) -> Fields {
        let none = Fields::default();
        match *self {
            Self::Welcome { version } => Fields { kind: 1, number: version.into(), ..none },
            Self::Site { site, generation } => {
                Fields { kind: 2, site: site.0, number: generation.into(), ..none }
            }
            Self::SiteGone { site } => of_site(3, site),
            Self::Pause { site } => of_site(4, site),
            Self::Resume { site } => of_site(5, site),
            Self::Lines { site, sink } => Fields { kind: 6, detail: sink.number(), site: site.0, ..none },
            Self::Worker { site, worker, generation, connections } => Fields {
                kind: 7,
                site: site.0,
                worker: worker.0,
                number: generation.into(),
                other: connections.into(),
                ..none
            },
            Self::Drain { site, worker } => Fields { kind: 8, site: site.0, worker: worker.0, ..none },
            Self::WorkerGone { site, worker, how, code } => Fields {
                kind: 9,
                detail: how.number(),
                site: site.0,
                worker: worker.0,
                number: code.into(),
                ..none
            },
            Self::StartFailed { site, how, retry_after_ms } => {
                Fields { kind: 10, detail: how.number(), site: site.0, number: retry_after_ms, ..none }
            }
            Self::Started { token, site } => Fields { kind: 11, site: site.0, number: token.0, ..none },
            Self::NotStarted { token, site, why } => {
                Fields { kind: 12, detail: why.number(), site: site.0, number: token.0, ..none }
            }
            Self::RunEnded { token, site, how, code } => Fields {
                kind: 13,
                detail: how.number(),
                site: site.0,
                number: token.0,
                other: code.into(),
                ..none
            },
            Self::Usage { site, processes, memory, cpu_us, behind } => {
                let fields = Fields { detail: behind.into(), worker: processes, ..of_site(14, site) };
                Fields { number: memory, other: cpu_us, ..fields }
            }
            Self::Ask { number } => Fields { kind: 15, number, ..none },
            Self::Quit { within_ms } => Fields { kind: 16, number: within_ms, ..none },
            Self::Spent { site, worker, cpu_us } => {
                Fields { kind: 17, site: site.0, worker: worker.0, number: cpu_us, ..none }
            }
            Self::RunSpent { token, site, cpu_us } => {
                Fields { kind: 18, site: site.0, number: token.0, other: cpu_us, ..none }
            }
            Self::Errors { site, worker } => Fields { kind: 19, site: site.0, worker: worker.0, ..none },
            Self::StandIn { site } => of_site(20, site),
        }
    }

    fn of(fields: Fields) -> Result<Self, Nonsense> {
        let Fields { kind, detail, site, worker, number, other } = fields;
        let (site, worker, token) = (Site(site), Worker(worker), Token(number));
        Ok(match kind {
            1 => Self::Welcome { version: small(number)? },
            2 => Self::Site { site, generation: small(number)? },
            3 => Self::SiteGone { site },
            4 => Self::Pause { site },
            5 => Self::Resume { site },
            6 => Self::Lines { site, sink: Sink::of(detail)? },
            7 => Self::Worker { site, worker, generation: small(number)?, connections: small(other)? },
            8 => Self::Drain { site, worker },
            9 => Self::WorkerGone { site, worker, how: Ended::of(detail)?, code: small(number)? },
            10 => Self::StartFailed { site, how: Ended::of(detail)?, retry_after_ms: number },
            11 => Self::Started { token, site },
            12 => Self::NotStarted { token, site, why: Busy::of(detail)? },
            13 => Self::RunEnded { token, site, how: Ended::of(detail)?, code: small(other)? },
            14 => Self::Usage {
                site,
                processes: worker.0,
                memory: number,
                cpu_us: other,
                behind: match detail {
                    0 => false,
                    1 => true,
                    _ => return Err(Nonsense),
                },
            },
            15 => Self::Ask { number },
            16 => Self::Quit { within_ms: number },
            17 => Self::Spent { site, worker, cpu_us: number },
            18 => Self::RunSpent { token, site, cpu_us: other },
            19 => Self::Errors { site, worker },
            20 => Self::StandIn { site },
            _ => return Err(Nonsense),
        })
    }
}

impl Message for Up {
    fn descriptors(&self) -> usize {
        usize::from(matches!(self, Self::Run { .. }))
    }

    fn fields(&self) -> Fields {
        let none = Fields::default();
        match *self {
            Self::Hello { version } => Fields { kind: 129, number: version.into(), ..none },
            Self::Taken { site, generation } => {
                Fields { kind: 130, site: site.0, number: generation.into(), ..none }
            }
            Self::Want { site, count } => Fields { kind: 131, site: site.0, number: count.into(), ..none },
            Self::Ready { site, worker } => Fields { kind: 132, site: site.0, worker: worker.0, ..none },
            Self::Retire { site, worker, why } => {
                Fields { kind: 133, detail: why.number(), site: site.0, worker: worker.0, ..none }
            }
            Self::Kill { site, worker, why } => {
                Fields { kind: 134, detail: why.number(), site: site.0, worker: worker.0, ..none }
            }
            Self::Run { site, token } => Fields { kind: 135, site: site.0, number: token.0, ..none },
            Self::EndRun { site, token, why } => {
                Fields { kind: 136, detail: why.number(), site: site.0, number: token.0, ..none }
            }
            Self::Beat { number } => Fields { kind: 137, number, ..none },
            Self::Slow { site, worker } => Fields { kind: 138, site: site.0, worker: worker.0, ..none },
            Self::SlowRun { site, token } => Fields { kind: 139, site: site.0, number: token.0, ..none },
            Self::Heir { site, worker } => Fields { kind: 140, site: site.0, worker: worker.0, ..none },
            Self::Renew { site, worker, child } => {
                Fields { kind: 141, site: site.0, worker: worker.0, number: child.into(), ..none }
            }
            Self::Disturbs { site } => of_site(142, site),
        }
    }

    fn of(fields: Fields) -> Result<Self, Nonsense> {
        let Fields { kind, detail, site, worker, number, .. } = fields;
        let (site, worker, token) = (Site(site), Worker(worker), Token(number));
        Ok(match kind {
            129 => Self::Hello { version: small(number)? },
            130 => Self::Taken { site, generation: small(number)? },
            131 => Self::Want { site, count: small(number)? },
            132 => Self::Ready { site, worker },
            133 => Self::Retire { site, worker, why: Why::of(detail)? },
            134 => Self::Kill { site, worker, why: Why::of(detail)? },
            135 => Self::Run { site, token },
            136 => Self::EndRun { site, token, why: Why::of(detail)? },
            137 => Self::Beat { number },
            138 => Self::Slow { site, worker },
            139 => Self::SlowRun { site, token },
            140 => Self::Heir { site, worker },
            141 => Self::Renew { site, worker, child: small(number)? },
            142 => Self::Disturbs { site },
            _ => return Err(Nonsense),
        })
    }
}
