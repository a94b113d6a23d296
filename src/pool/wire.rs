//! The contract between the supervisor (root) and the broker (nobody): every message that there is. Pure.
//!
//! One message is one frame of 32 bytes on a `SOCK_SEQPACKET` pair, with as many descriptors (`SCM_RIGHTS`) as its
//! kind says and never another number:
//!
//! ```text
//! kind u8 · detail u8 · 0 u16 · site u32 · worker u32 · 0 u32 · number u64 · other u64        (little-endian)
//! ```
//! A field that a kind does not use is zero. Anything else is [`Nonsense`], and the side that receives nonsense ends
//! the other one: the supervisor kills the broker and starts a new one, the broker exits.
//!
//! The broker names a site by the number that it was told, a worker by its serial number, and a run by a token of its
//! own making; never a uid, a path or a command. Numbers are not used twice in the life of a supervisor, except tokens,
//! which are the broker's own. Nothing that came from a web server or from a worker is in a frame: the environment of
//! a CGI request travels in a sealed memory file that the supervisor does not open.
//!
//! Order: the supervisor's first frame is [`Down::Welcome`], the broker's [`Up::Hello`]. A site is told
//! ([`Down::Site`]) before its workers. The broker answers what it no longer knows (a worker that ended while a frame was
//! on its way) with silence; so does the supervisor.
//!
//! The broker's root directory is the directory of the workers' sockets: it may connect to [`socket_name`] there, and
//! change nothing. So no descriptor of a worker's socket has to travel, /proc is not needed, and a new broker finds
//! every living worker again.
//!
//! May not: know descriptors themselves, do I/O, hold anything but the contract.

/// Both sides must speak this version: they are one program, started by each other.
pub const VERSION: u32 = 4;
/// Bytes of every frame.
pub const FRAME: usize = 32;

/// A site, by the number that the supervisor gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(pub u32);

/// A worker, by its serial number; not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worker(pub u32);

/// A run of a CGI program, by the number that the broker gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// From the supervisor to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// The first frame. Descriptors: the log (append-only file or connected datagram socket; one write is one line),
    /// and the listening socket of the status service.
    Welcome {
        /// [`VERSION`].
        version: u32,
    },
    /// A site that is new, or has new settings. Descriptors: its listening socket, and a sealed memory file with its
    /// settings ([`super::settings`]). It does not block, unless the site's
    /// workers accept on it themselves. For a site that is known the socket is the one that the broker has already; it
    /// closes one of the two.
    Site {
        /// Which.
        site: Site,
        /// Counts the settings of this site, from 1.
        generation: u32,
    },
    /// A site that is no more: close its listening socket, answer what is queued with 503.
    SiteGone {
        /// Which.
        site: Site,
    },
    /// Stopped by the administrator: every request is answered with 503, and no worker wanted.
    Pause {
        /// Which.
        site: Site,
    },
    /// Workers that accept for themselves do not start: every request is answered with 503, and nobody waits for nothing.
    StandIn {
        /// Of which site.
        site: Site,
    },
    /// The end of [`Down::Pause`] and of [`Down::StandIn`].
    Resume {
        /// Which.
        site: Site,
    },
    /// A place for lines of one site. Descriptor: an append-only file. Until then, and where no such frame comes,
    /// the log of [`Down::Welcome`] is the place for [`Sink::Errors`] and [`Sink::Slow`], and there is no access log.
    Lines {
        /// Which site.
        site: Site,
        /// Which lines.
        sink: Sink,
    },
    /// A worker was started: its listening socket is [`socket_name`]. Descriptor: the reading end of its standard error
    /// output, whose lines the broker labels and logs.
    Worker {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
        /// Of which settings ([`Down::Site`]).
        generation: u32,
        /// At most so many connections at a time: children, or threads, or one.
        connections: u32,
    },
    /// A worker was started that accepts for itself, so that nothing else of it is the broker's. Descriptor: the reading end of
    /// its standard error output.
    Errors {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
    },
    /// Give this worker nothing new; when it is idle, answer [`Up::Retire`].
    Drain {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
    },
    /// A worker has ended.
    WorkerGone {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
        /// How.
        how: Ended,
        /// Exit status or signal.
        code: u32,
    },
    /// No worker could be started. Requests that wait may wait on, or be answered with 503 and this time.
    StartFailed {
        /// Of which site.
        site: Site,
        /// How the last one ended.
        how: Ended,
        /// The next try, in milliseconds.
        retry_after_ms: u64,
    },
    /// A CGI program runs. Descriptors: the writing end of its standard input, the reading ends of its standard output
    /// and standard error output.
    Started {
        /// Which run.
        token: Token,
        /// Of which site.
        site: Site,
    },
    /// A CGI program does not run.
    NotStarted {
        /// Which run.
        token: Token,
        /// Of which site.
        site: Site,
        /// Why.
        why: Busy,
    },
    /// A CGI program has ended.
    RunEnded {
        /// Which run.
        token: Token,
        /// Of which site.
        site: Site,
        /// How.
        how: Ended,
        /// Exit status or signal.
        code: u32,
    },
    /// What a site uses at the moment, for the status service. Sent now and then for sites with workers.
    Usage {
        /// Which.
        site: Site,
        /// Processes.
        processes: u32,
        /// Bytes of memory.
        memory: u64,
        /// Microseconds of CPU time since the site's first worker.
        cpu_us: u64,
    },
    /// The CPU time of a worker's whole tree so far, where the site limits that of a request. Sent once a second.
    Spent {
        /// Whose.
        site: Site,
        /// Which.
        worker: Worker,
        /// Microseconds.
        cpu_us: u64,
    },
    /// The CPU time of a run's whole tree so far, where the site limits that of a request. Sent once a second.
    RunSpent {
        /// Which run.
        token: Token,
        /// Of which site.
        site: Site,
        /// Microseconds.
        cpu_us: u64,
    },
    /// Answer with [`Up::Beat`]: a broker that does not is stuck, and is replaced.
    Ask {
        /// To be given back.
        number: u64,
    },
    /// Accept nothing new, finish what runs, then exit; after `within_ms` the supervisor ends what is left.
    Quit {
        /// Milliseconds.
        within_ms: u64,
    },
}

/// From the broker to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Up {
    /// The first frame.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// The site's new settings are in use. Where its workers accept, the broker does so no more: the socket blocks from then on
    /// only.
    Taken {
        /// Which site.
        site: Site,
        /// Which settings.
        generation: u32,
    },
    /// So many workers are needed altogether, living ones included. Holds until the next such frame; a burst gets its
    /// workers at once. The supervisor keeps the site's minimum and maximum, and backs off where starts fail.
    Want {
        /// Of which site.
        site: Site,
        /// Workers.
        count: u32,
    },
    /// A worker's first whole answer.
    Ready {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
    },
    /// A worker has nearly had its requests: start the one that takes its place, while it still serves.
    Heir {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
    },
    /// A child of a worker's has had its requests, and waits for nothing but the end of its connection: end it, its parent makes
    /// another one.
    Renew {
        /// Of which site.
        site: Site,
        /// Whose child.
        worker: Worker,
        /// Its number, as the kernel told the broker.
        child: u32,
    },
    /// A worker is drained: end it gracefully.
    Retire {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
        /// Why.
        why: Why,
    },
    /// End a worker and all that it started, now.
    Kill {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
        /// Why.
        why: Why,
    },
    /// Run the site's CGI program that the environment names. Descriptor: a sealed memory file, `NAME=value` entries
    /// with a NUL behind each, as the gate let them pass.
    Run {
        /// Of which site.
        site: Site,
        /// For the answer.
        token: Token,
    },
    /// End a run and all that it started.
    EndRun {
        /// Of which site.
        site: Site,
        /// Which.
        token: Token,
        /// Why.
        why: Why,
    },
    /// A request takes long: write down where its worker is at this moment.
    Slow {
        /// Of which site.
        site: Site,
        /// Which.
        worker: Worker,
    },
    /// As [`Up::Slow`], of a run.
    SlowRun {
        /// Of which site.
        site: Site,
        /// Which.
        token: Token,
    },
    /// The answer to [`Down::Ask`].
    Beat {
        /// What was asked with.
        number: u64,
    },
    /// A site computes, and others want the processors in between: for two seconds from now on the kernel is to look more often at
    /// who is to run.
    Pulse,
}

macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            fn number(self) -> u8 {
                match self { $(Self::$variant => $number,)+ }
            }

            fn of(number: u8) -> Result<Self, Nonsense> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    _ => Err(Nonsense),
                }
            }
        }
    };
}

numbered! {
    /// How a process came to its end.
    Ended {
        /// By itself; the code is its exit status.
        Exited = 1,
        /// By a signal that nobody here sent; the code is its number.
        Signalled = 2,
        /// For want of memory.
        OutOfMemory = 3,
        /// The launcher refused it; the code is the status of the refusal (see docs/refusals.md).
        Refused = 4,
        /// It was told to, or made to.
        Stopped = 5,
        /// It did not answer before its start deadline.
        Unready = 6,
    }
}

numbered! {
    /// Why the broker wants something ended.
    Why {
        /// It answered as many requests as it may.
        Requests = 1,
        /// It has had nothing to do for long enough.
        Idle = 2,
        /// [`Down::Drain`] asked for it.
        Drained = 3,
        /// A request's deadline passed.
        Deadline = 4,
        /// A request's output stood still for too long.
        Silent = 5,
        /// It spoke what is not FastCGI.
        Garbage = 6,
        /// The web server went away, and the site wants its work ended.
        Abandoned = 7,
        /// It did not answer its first request in time.
        Unready = 8,
        /// It used more CPU time than a request may.
        Cpu = 9,
    }
}

numbered! {
    /// Why a CGI program does not run.
    Busy {
        /// As many run as may.
        Full = 1,
        /// The kernel has no process, memory or descriptor left.
        Exhausted = 2,
        /// The site is stopped, going, or not of this kind.
        Stopped = 3,
    }
}

numbered! {
    /// Lines of a site.
    Sink {
        /// One for each request.
        Access = 1,
        /// One for each slow request.
        Slow = 2,
        /// What workers write to their standard error output.
        Errors = 3,
    }
}

/// What is no frame of this contract. The other side is at fault, or is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonsense;

/// The name of a worker's socket in the broker's root directory.
#[must_use]
pub fn socket_name(site: Site, worker: Worker) -> String {
    format!("{}.{}", site.0, worker.0)
}

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
            Self::SiteGone { site } => Fields { kind: 3, site: site.0, ..none },
            Self::Pause { site } => Fields { kind: 4, site: site.0, ..none },
            Self::Resume { site } => Fields { kind: 5, site: site.0, ..none },
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
            Self::Usage { site, processes, memory, cpu_us } => {
                Fields { kind: 14, site: site.0, worker: processes, number: memory, other: cpu_us, ..none }
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
            Self::StandIn { site } => Fields { kind: 20, site: site.0, ..none },
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
            14 => Self::Usage { site, processes: worker.0, memory: number, cpu_us: other },
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
            Self::Pulse => Fields { kind: 142, ..none },
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
            142 => Self::Pulse,
            _ => return Err(Nonsense),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn downs() -> Vec<Down> {
        let (site, worker, token) = (Site(7), Worker(u32::MAX), Token(u64::MAX));
        let mut all = vec![
            Down::Welcome { version: VERSION },
            Down::Site { site, generation: 3 },
            Down::SiteGone { site },
            Down::Pause { site },
            Down::StandIn { site },
            Down::Resume { site },
            Down::Worker { site, worker, generation: 3, connections: 4 },
            Down::Errors { site, worker },
            Down::Drain { site, worker },
            Down::Started { token, site },
            Down::Usage { site, processes: 9, memory: 1 << 40, cpu_us: u64::MAX },
            Down::Spent { site, worker, cpu_us: u64::MAX },
            Down::RunSpent { token, site, cpu_us: u64::MAX },
            Down::Ask { number: 1 },
            Down::Quit { within_ms: 30_000 },
        ];
        for how in Ended::ALL.iter().copied() {
            all.push(Down::WorkerGone { site, worker, how, code: 255 });
            all.push(Down::StartFailed { site, how, retry_after_ms: 100 });
            all.push(Down::RunEnded { token, site, how, code: 9 });
        }
        all.extend(Busy::ALL.iter().map(|why| Down::NotStarted { token, site, why: *why }));
        all.extend(Sink::ALL.iter().map(|sink| Down::Lines { site, sink: *sink }));
        all
    }

    fn ups() -> Vec<Up> {
        let (site, worker, token) = (Site(7), Worker(1), Token(2));
        let mut all = vec![
            Up::Hello { version: VERSION },
            Up::Taken { site, generation: 1 },
            Up::Want { site, count: 8 },
            Up::Ready { site, worker },
            Up::Run { site, token },
            Up::Slow { site, worker },
            Up::SlowRun { site, token },
            Up::Beat { number: u64::MAX },
            Up::Heir { site, worker },
            Up::Renew { site, worker, child: 7 },
            Up::Pulse,
        ];
        for why in Why::ALL.iter().copied() {
            all.push(Up::Retire { site, worker, why });
            all.push(Up::Kill { site, worker, why });
            all.push(Up::EndRun { site, token, why });
        }
        all
    }

    #[test]
    fn every_message_comes_back_as_it_was_sent() {
        for message in downs() {
            let frame = message.encode();
            assert_eq!(Down::decode(&frame, message.descriptors()), Ok(message));
            assert_eq!(Up::decode(&frame, message.descriptors()), Err(Nonsense), "the other direction");
        }
        for message in ups() {
            let frame = message.encode();
            assert_eq!(Up::decode(&frame, message.descriptors()), Ok(message));
            assert_eq!(Down::decode(&frame, message.descriptors()), Err(Nonsense), "the other direction");
        }
    }

    /// As the contract says them, message by message: what is sent with one and taken with another is lost.
    #[test]
    fn each_message_has_the_descriptors_that_its_description_names() {
        for message in downs() {
            let told = match message {
                // Log and status; listening socket and settings.
                Down::Welcome { .. } | Down::Site { .. } => 2,
                // A file, or a standard error output.
                Down::Lines { .. } | Down::Worker { .. } | Down::Errors { .. } => 1,
                // Three standard streams.
                Down::Started { .. } => 3,
                _ => 0,
            };
            assert_eq!(message.descriptors(), told, "{message:?}");
        }
        for message in ups() {
            // An environment.
            let told = usize::from(matches!(message, Up::Run { .. }));
            assert_eq!(message.descriptors(), told, "{message:?}");
        }
    }

    #[test]
    fn one_descriptor_more_or_less_is_nonsense() {
        for message in downs() {
            for count in (0..=4).filter(|count| *count != message.descriptors()) {
                assert_eq!(Down::decode(&message.encode(), count), Err(Nonsense), "{message:?}");
            }
        }
        for message in ups() {
            for count in (0..=4).filter(|count| *count != message.descriptors()) {
                assert_eq!(Up::decode(&message.encode(), count), Err(Nonsense), "{message:?}");
            }
        }
    }

    /// Every byte of every message, set to every value: what is taken encodes to the same bytes again.
    #[test]
    fn no_two_frames_are_the_same_message() {
        for message in ups() {
            for place in 0..FRAME {
                for value in 0..=255 {
                    let mut frame = message.encode();
                    frame[place] = value;
                    if let Ok(taken) = Up::decode(&frame, message.descriptors()) {
                        assert_eq!(taken.encode(), frame, "{message:?} at {place}");
                    }
                }
            }
        }
        for length in [0, 1, FRAME - 1, FRAME + 1] {
            assert_eq!(Up::decode(&vec![0; length], 0), Err(Nonsense));
        }
    }

    /// The broker connects by it, and the supervisor makes it.
    #[test]
    fn a_socket_is_called_by_site_and_worker() {
        assert_eq!(socket_name(Site(7), Worker(12)), "7.12");
    }
}
