//! A clean process, before any argument is read. Root, in a world that the caller made.
//!
//! Refuses with A01, A02 and A04, and later with A03. May not: look at arguments, open anything but the working directory.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getgid, getuid};

use crate::policy::Resource;
use crate::refusal::{Card, Refusal};
use crate::sys::clock::Moment;
use crate::sys::{self, Root};

/// What the caller handed over, and what was kept of it.
#[derive(Debug)]
pub struct Arrival<'e> {
    /// When it came.
    pub(super) since: Moment,
    /// The real uid and gid that called.
    pub(super) caller: (u32, u32),
    /// The caller's environment, entry by entry.
    pub(super) environment: Vec<&'e CStr>,
    /// The working directory, held, and its name.
    pub(super) directory: Result<(OwnedFd, Vec<u8>), Errno>,
    /// The program ends with the process that started it: the pool's daemon.
    pub(super) follows: Option<Pid>,
    /// Descriptor 0 is a listening socket: a FastCGI server is wanted, and descriptor 1 is not a visitor's.
    pub(super) fastcgi: bool,
}

impl<'e> Arrival<'e> {
    /// Cleans the process and becomes root wholly.
    ///
    /// # Errors
    /// A01: started without root's rights. A02: a call of the clean-up failed. A04: a descriptor that the program would get is
    /// a way out of its cell.
    pub fn clean() -> Result<(Self, Root), Refusal> {
        let since = Moment::now();
        let environment = sys::process::take_environment();
        let caller = (getuid().as_raw(), getgid().as_raw());
        let failed = |call: &'static str| move |errno: Errno| Refusal::call(&CLEAN_UP, call, errno);
        let Some(root) = Root::claim().map_err(failed("setresuid"))? else {
            return Err(Refusal::new(&WITHOUT_ROOT, why_without_root()));
        };
        // First of all what a refusal's own record needs.
        sys::process::quiet_signals().map_err(failed("rt_sigaction"))?;
        widen_limits().map_err(failed("prlimit"))?;
        // Whatever a file system or a log daemon does, the launcher ends; the seal turns this off again.
        sys::process::stop_timers().map_err(failed("setitimer"))?;
        sys::process::set_alarm(DEADLINE_SECONDS).map_err(failed("setitimer"))?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(failed("sigprocmask"))?;
        sys::seal::close_at_exec().map_err(failed("close_range"))?;
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        sys::process::reset_scheduling(&root)
            .map_err(|(call, errno)| Refusal::call(&CLEAN_UP, call, errno))?;
        sys::process::join_new_keyring().map_err(failed("keyctl"))?;
        if let Some(door) = sys::files::door().map_err(failed("fstat"))? {
            return Err(Refusal::new(&DOOR, format!("descriptor {door} leads to files, not to one stream")));
        }
        Ok((Self::new(since, caller, environment), root))
    }

    /// For the administrator's command, which comes without a caller of its own: as if the web server had called
    /// from the working directory with this environment.
    #[must_use]
    pub fn as_if(caller: (u32, u32), environment: Vec<&'e CStr>) -> Self {
        Self { fastcgi: false, ..Self::new(Moment::now(), caller, environment) }
    }

    /// For the pool's daemon, which calls in the place of the web server, from a child of its own that is clean already.
    /// The program ends with the daemon, `parent`.
    #[must_use]
    pub fn in_pool(caller: (u32, u32), environment: Vec<&'e CStr>, parent: Pid) -> Self {
        Self { follows: Some(parent), ..Self::new(Moment::now(), caller, environment) }
    }

    pub(super) fn new(since: Moment, caller: (u32, u32), environment: Vec<&'e CStr>) -> Self {
        let directory = sys::files::hold(AT_FDCWD, b".", nix::fcntl::ResolveFlag::empty())
            .and_then(|held| Ok((held, sys::files::working_directory()?)));
        Self { since, caller, environment, directory, follows: None, fastcgi: sys::process::stdin_listens() }
    }

    /// There is time left to go on after `stage`; and, where there is not, to say so before the alarm ends this process
    /// without a word.
    ///
    /// # Errors
    /// A03: there is none.
    pub(super) fn in_time(&self, stage: &str) -> Result<(), Refusal> {
        let passed = self.since.elapsed();
        if passed < LATE {
            return Ok(());
        }
        let why = format!(
            "{}.{} s had passed at the end of {stage}",
            passed.as_secs(),
            passed.subsec_millis() / 100
        );
        Err(Refusal::new(&TOO_LATE, why))
    }

    /// What a visitor sees of a refusal, where descriptor 1 leads to one.
    #[must_use]
    pub fn page(&self) -> Option<&'static str> {
        (!self.fastcgi).then_some(super::FAILED)
    }

    /// The real uid that called.
    #[must_use]
    pub fn caller(&self) -> u32 {
        self.caller.0
    }
}

/// As large a log and as many descriptors as may be: with the caller's limits a launch could fail, leave no record, or
/// half a line that the next record would stand behind.
///
/// # Errors
/// Of prlimit(2).
pub fn widen_limits() -> Result<(), Errno> {
    sys::process::limit_as_allowed(Resource::FILE_SIZE, u64::MAX)?;
    sys::process::limit(Resource::OPEN_FILES, sys::process::hard_limit(Resource::OPEN_FILES)?)
}

/// Several causes with one symptom; the administrator wants to know which.
fn why_without_root() -> String {
    let itself = nix::sys::statvfs::statvfs("/proc/self/exe");
    let nosuid = itself.is_ok_and(|facts| facts.flags().contains(nix::sys::statvfs::FsFlags::ST_NOSUID));
    // The initial user namespace maps every uid to itself.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mapped = !map.is_empty() && map.split_whitespace().ne(["0", "0", "4294967295"]);
    let cause = if prctl::get_no_new_privs().unwrap_or(false) {
        "the caller runs with no_new_privs (a unit with NoNewPrivileges=yes), so the set-uid bit means nothing"
    } else if mapped {
        "the caller lives in a user namespace of its own, where the set-uid bit means nothing"
    } else if nosuid {
        "the file system of the launcher is mounted nosuid"
    } else {
        "the launcher is not set-uid root"
    };
    cause.to_owned()
}

/// Seconds from start to exec at most: SIGALRM then ends the process, whatever it waits for. No handler, so no record; see
/// [`Arrival::in_time`].
pub(crate) const DEADLINE_SECONDS: u32 = 5;
/// From here on a launch is refused, which takes a moment as well where the machine is slow.
const LATE: Duration = Duration::from_secs(4);

static WITHOUT_ROOT: Card = Card {
    code: "A01",
    status: 81,
    remedy: "chown root:www-data /usr/lib/cellwall/cellwall-suexec && chmod 4750 /usr/lib/cellwall/cellwall-suexec",
};
pub(crate) static TOO_LATE: Card = Card {
    code: "A03",
    status: 81,
    remedy: "grep '' /proc/pressure/* # the machine was too slow; cellwall explain A03",
};
static DOOR: Card = Card {
    code: "A04",
    status: 81,
    remedy: "cellwall explain A04 # the web server does not do that: see what else runs as its user",
};
static CLEAN_UP: Card = Card { code: "A02", status: 81, remedy: "cellwall explain A02" };
