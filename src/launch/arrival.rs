//! A clean process, before any argument is read. Root, in a world that the caller made.
//!
//! Refuses with A01–A03. May not: look at arguments, open anything that the policy does not name.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Gid, Uid, geteuid, getuid, setresgid, setresuid};

use crate::refusal::{Card, Refusal};
use crate::sys;

/// What the caller handed over, and what was kept of it.
#[derive(Debug)]
pub struct Arrival {
    /// The real uid that called.
    pub caller: u32,
    /// The caller's environment, entry by entry.
    pub environment: Vec<Vec<u8>>,
}

/// Cleans the process and becomes root wholly, which ends the caller's right to signal us.
///
/// # Errors
/// A01: started without root's rights. A02: a call of the clean-up failed.
pub fn arrive() -> Result<Arrival, Refusal> {
    let environment = sys::take_environment();
    let caller = getuid().as_raw();
    if !geteuid().is_root() {
        return Err(Refusal::new(&WITHOUT_ROOT, why_without_root().to_owned()));
    }
    let failed = |call: &'static str| move |errno: Errno| Refusal::call(&CLEAN_UP, call, errno);
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).map_err(failed("setresgid"))?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).map_err(failed("setresuid"))?;
    sys::close_at_exec().map_err(failed("close_range"))?;
    sys::stop_timers();
    sys::reset_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(failed("sigprocmask"))?;
    // Whatever a file system or a log daemon does, the launcher ends; exec turns this off again.
    sys::set_alarm(DEADLINE_SECONDS);
    prctl::set_timerslack(0).map_err(failed("prctl"))?;
    match sys::join_new_keyring() {
        Ok(()) | Err(Errno::ENOSYS) => {}
        Err(errno) => return Err(Refusal::call(&CLEAN_UP, "keyctl", errno)),
    }
    Ok(Arrival { caller, environment })
}

/// Four causes with one symptom; the administrator wants to know which.
fn why_without_root() -> &'static str {
    if prctl::get_no_new_privs().unwrap_or(false) {
        "the caller runs with no_new_privs, so the set-uid bit means nothing"
    } else {
        "the set-uid bit had no effect: it is missing, or the file system is mounted nosuid"
    }
}

/// Seconds from start to exec at most.
const DEADLINE_SECONDS: u32 = 5;

static WITHOUT_ROOT: Card = Card {
    code: "A01",
    status: 81,
    remedy: "chown root:www-data /usr/lib/cellwall/cellwall-suexec && chmod 4750 /usr/lib/cellwall/cellwall-suexec",
};
static CLEAN_UP: Card =
    Card { code: "A02", status: 81, remedy: "the kernel refused a call that needs root; see why" };
