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

mod frame;

pub use frame::{Fields, Message};

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
    /// What a site uses at the moment, for the status service. Sent once a second for sites with workers, and once when they are gone.
    Usage {
        /// Which.
        site: Site,
        /// Processes.
        processes: u32,
        /// Bytes of memory.
        memory: u64,
        /// Microseconds of CPU time since the site's first worker.
        cpu_us: u64,
        /// It takes more than its share of the processors, and is behind other sites.
        behind: bool,
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
    /// who is to run, and the site is behind others where it has more than its share.
    Disturbs {
        /// Which.
        site: Site,
    },
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

#[cfg(test)]
mod tests;
