//! Seal, then become the program. Runs as the site's own uid.
//!
//! Refuses with X01 and X255. Order: no_new_privs, Landlock, descriptors, system calls last.

use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::CStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::prctl;
use nix::unistd::{execve, execveat, fchdir};

use crate::policy::Site;
use crate::refusal::{Card, Refusal};
use crate::sys;
use crate::sys::clock::Moment;

use super::confine::limit_self;
use super::equip::Equipped;
use super::verify::{Start, Verified};

/// A process that can do nothing any more that the program may not.
#[must_use]
#[derive(Debug)]
pub struct Sealed<'a> {
    pub(super) verified: Verified<'a>,
    environment: Vec<Cow<'a, CStr>>,
    dropped: (usize, String),
    caller: u32,
    since: Moment,
}

impl<'a> Equipped<'a> {
    /// Puts the cell's rules in force.
    ///
    /// # Errors
    /// X01, X03.
    pub fn seal(self) -> Result<Sealed<'a>, Refusal> {
        let Self { mut verified, environment, dropped, ruleset, caller, since } = self;
        let failed = |call: &'static str| move |errno: Errno| Refusal::call(&SEAL, call, errno);
        if let Some(directory) = &verified.directory {
            fchdir(directory).map_err(failed("fchdir"))?;
        }
        let site = verified.site;
        let is_sealed = site.set_id_mail || verified.facts.settled;
        if !is_sealed {
            prctl::set_no_new_privs().map_err(failed("no_new_privs"))?;
            if let Some(ruleset) = ruleset {
                verified.facts.landlock = ruleset.enforce()?;
            }
        }
        sys::seal::close_at_exec().map_err(failed("close_range"))?;
        if !is_sealed {
            filter_calls(site)?;
        }
        Ok(Sealed { verified, environment, dropped, caller, since })
    }
}

impl Sealed<'_> {
    /// Returns only to refuse.
    ///
    /// # Errors
    /// X255, X26, X01, C02.
    pub fn exec(&self) -> Result<Infallible, Refusal> {
        let Self { verified, environment, .. } = self;
        let failed = |call: &'static str| move |errno: Errno| Refusal::call(&SEAL, call, errno);
        limit_self(verified.site, verified.facts.groups)?;
        sys::process::default_signals().map_err(failed("rt_sigaction"))?;
        sys::process::set_alarm(verified.site.limits.wall_seconds).map_err(failed("setitimer"))?;
        let mut errno = start(verified, environment);
        if errno == Errno::ETXTBSY {
            // Somebody is writing it at this moment: an upload, most often.
            std::thread::sleep(BUSY_WAIT);
            errno = start(verified, environment);
        }
        // A log that is larger than the site's files may be must not end us without a record.
        sys::process::quiet_signals().map_err(failed("rt_sigaction"))?;
        let (directory, name) = &verified.shown;
        let full = [directory, &b"/"[..], name].concat();
        let refusal = Refusal::about(if errno == Errno::ETXTBSY { &BUSY } else { &EXEC }, &full, why(errno));
        Err(if errno == Errno::EAGAIN { Refusal { fix: FEWER.to_owned(), ..refusal } } else { refusal })
    }

    /// What the record says of it: names and values, foreign text in its coat.
    #[must_use]
    pub fn describe(&self) -> Description<'_> {
        let Self { verified, dropped, caller, since, .. } = self;
        Description { verified, dropped, caller: *caller, us: since.elapsed().as_micros() }
    }
}

/// Facts of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Description<'a> {
    verified: &'a Verified<'a>,
    dropped: &'a (usize, String),
    caller: u32,
    us: u128,
}

impl std::fmt::Display for Description<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::{record::within, refusal::Untrusted};
        let Self { verified, dropped, caller, us } = self;
        let (site, facts) = (verified.site, verified.facts);
        let (directory, name) = (Untrusted(&verified.shown.0), Untrusted(&verified.shown.1));
        let (directory, name) = (within(&directory.to_string(), 350), within(&name.to_string(), 300));
        write!(
            out,
            "uid={} gid={} caller={caller} dir=\"{directory}\" script=\"{name}\"",
            verified.uid, site.identity.gid
        )?;
        let seccomp = if site.seccomp.is_empty() { "off" } else { "on" };
        let nnp = if site.set_id_mail { "off" } else { "on" };
        write!(
            out,
            " jail={} landlock={} seccomp={seccomp} nnp={nnp}",
            verified.inside.name(),
            facts.landlock
        )?;
        write!(out, " cgroup={}", facts.groups)?;
        let (count, names) = dropped;
        if *count > 0 {
            write!(out, " dropped={count}")?;
        }
        if facts.stale {
            write!(out, " stale=yes")?;
        }
        write!(out, " us={us}")?;
        // Last: where the line is cut, this is what it can do without.
        if names.is_empty() { Ok(()) } else { write!(out, " left=\"{names}\"") }
    }
}

impl Description<'_> {
    /// uid, gid, and the command: the fields of suEXEC's own line.
    #[must_use]
    pub fn suexec(&self) -> (u32, u32, &[u8]) {
        (self.verified.uid, self.verified.site.identity.gid, &self.verified.shown.1)
    }
}

/// The site's filter of system calls, from here on.
pub(super) fn filter_calls(site: &Site<'_>) -> Result<(), Refusal> {
    if site.seccomp.is_empty() {
        return Ok(());
    }
    sys::seal::load_seccomp(site.seccomp, site.log_denials)
        .map_err(|errno| Refusal::call(&SEAL, "seccomp", errno))
}

fn start(verified: &Verified<'_>, environment: &[Cow<'_, CStr>]) -> Errno {
    let words = &verified.words;
    let Err(errno) = match &verified.start {
        // By one-component name in the held directory: by descriptor, a `#!` script would not start.
        Start::Name(name) => execveat(AT_FDCWD, name, words, environment, AtFlags::AT_SYMLINK_NOFOLLOW),
        Start::Path(path) => execve(path, words, environment),
    };
    errno
}

/// What the errno of execve(2) means to an administrator.
fn why(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => {
            "cannot start: it, its interpreter, or the loader that it names is not there inside the cell"
        }
        Errno::ENOEXEC => "cannot start: it is no program for this kernel",
        Errno::EACCES => "cannot start: it or its interpreter may not be executed inside the cell",
        Errno::ETXTBSY => "cannot start: somebody has it open for writing",
        Errno::E2BIG => "cannot start: its arguments and environment are too large together",
        Errno::ENOMEM => "cannot start: the site's memory limit is too small for it",
        Errno::EAGAIN => "cannot start: the site has as many processes as it may have",
        other => other.desc(),
    }
}

/// Once, before a program that is being written is refused.
const BUSY_WAIT: Duration = Duration::from_millis(20);

pub(super) static SEAL: Card = Card { code: "X01", status: 87, remedy: "cellwall explain X01" };
static EXEC: Card = Card {
    code: "X255",
    status: 255,
    remedy: "# see that {} and its interpreter are named in `execute` of the site's [files]",
};
/// The remedy where the user has as many processes as it may have.
const FEWER: &str = "# raise processes in the site's [limits] (cellwall apply), or see what does not end";
static BUSY: Card = Card { code: "X26", status: 255, remedy: "# ask again when the upload of {} has ended" };
