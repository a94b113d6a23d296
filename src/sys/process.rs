//! What a process inherits: environment, signals, timers, scheduling, limits, keyring.

use std::ffi::{CStr, c_char, c_int, c_long};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};

use super::Root;

/// The caller's environment, entry by entry, malformed ones included, where the kernel has put it. The environment of this
/// process is empty afterwards, so that no library can act on it. Call it before anything else, and once.
#[must_use]
pub fn take_environment() -> Vec<&'static CStr> {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: one thread, before any other code: nobody writes `environ` meanwhile.
    let mut place = unsafe { environ };
    // SAFETY: as above.
    unsafe { environ = std::ptr::null() };
    if place.is_null() {
        return entries;
    }
    loop {
        // SAFETY: `place` walks the kernel's array up to its null and not beyond.
        let entry = unsafe { *place };
        if entry.is_null() {
            return entries;
        }
        // SAFETY: the kernel ends each entry with a NUL; nobody writes to the strings, which live as long as the process.
        entries.push(unsafe { CStr::from_ptr(entry) });
        // SAFETY: the array ends with a null, which has not been reached.
        place = unsafe { place.add(1) };
    }
}

/// The deadline works, and neither a broken pipe nor a file size limit ends us without a record. Before exec,
/// [`default_signals`] ends this.
///
/// # Errors
/// Of rt_sigaction(2).
pub fn quiet_signals() -> Result<(), Errno> {
    set_action(libc::SIGALRM, libc::SIG_DFL)?;
    set_action(libc::SIGPIPE, libc::SIG_IGN)?;
    set_action(libc::SIGXFSZ, libc::SIG_IGN)
}

/// Every signal gets its default action, the C library's own included.
///
/// # Errors
/// Of rt_sigaction(2).
pub fn default_signals() -> Result<(), Errno> {
    // These two have no other action.
    let fixed = [libc::SIGKILL, libc::SIGSTOP];
    (1..=64).filter(|signal| !fixed.contains(signal)).try_for_each(|signal| set_action(signal, libc::SIG_DFL))
}

/// SIG_DFL or SIG_IGN: no handler, so nothing of ours ever runs in signal context (CVE-2024-6387).
fn set_action(signal: c_int, action: libc::sighandler_t) -> Result<(), Errno> {
    // The kernel's own structure begins with the handler; flags, restorer and mask are none.
    let action: [usize; 4] = [action, 0, 0, 0];
    let old = std::ptr::null_mut::<usize>();
    // SAFETY: `action` is as large as the kernel's structure with a mask of 8 bytes, and outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), old, 8) }).map(drop)
}

/// Stops the two interval timers that count processor time; all three survive exec.
///
/// # Errors
/// Of setitimer(2).
pub fn stop_timers() -> Result<(), Errno> {
    [libc::ITIMER_VIRTUAL, libc::ITIMER_PROF].iter().try_for_each(|timer| set_timer(*timer, 0))
}

/// Starts the real-time timer anew: SIGALRM after `seconds` (0: none).
///
/// # Errors
/// Of setitimer(2).
pub fn set_alarm(seconds: u32) -> Result<(), Errno> {
    set_timer(libc::ITIMER_REAL, seconds)
}

fn set_timer(timer: c_int, seconds: u32) -> Result<(), Errno> {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let value = libc::itimerval {
        it_interval: never,
        it_value: libc::timeval { tv_sec: i64::from(seconds), tv_usec: 0 },
    };
    let old = std::ptr::null::<libc::itimerval>();
    // SAFETY: `value` outlives the call; no old value is asked for.
    Errno::result(unsafe { libc::syscall(libc::SYS_setitimer, timer, &raw const value, old) }).map(drop)
}

/// A fresh session keyring: keys of the caller's are not readable any more.
///
/// # Errors
/// EDQUOT. A kernel without keyrings has none to leave.
pub fn join_new_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) };
    match Errno::result(joined) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Normal scheduling class, every CPU, no I/O class of its own; default timer slack, personality (personality(2)), placement
/// of memory on nodes (set_mempolicy(2)) and use of huge pages; no signal when the caller ends.
///
/// # Errors
/// Of any of the calls, by name.
pub fn reset_scheduling(_: &Root) -> Result<(), (&'static str, Errno)> {
    // The kernel's `struct sched_param` is one number, whatever the C library's is.
    let normal: c_int = 0;
    let checked = |name, value: c_long| Errno::result(value).map(drop).map_err(|errno| (name, errno));
    // Nearly all have the normal class, and to set it takes twenty times as long as to ask.
    // SAFETY: plain numbers; 0 is this process.
    if unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) } != c_long::from(libc::SCHED_OTHER) {
        // SAFETY: pid 0 is this process; `normal` outlives the call.
        let class =
            unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const normal) };
        checked("sched_setscheduler", class)?;
    }
    let every = [u64::MAX; 16];
    // SAFETY: the length is that of the array, which outlives the call; the kernel takes away what it has not.
    let cpus = unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, std::mem::size_of_val(&every), every.as_ptr())
    };
    // A cpuset of the administrator's narrows this by itself.
    checked("sched_setaffinity", cpus)?;
    const PROCESS: c_int = 1;
    // SAFETY: plain numbers; 0 is "no class of its own".
    checked("ioprio_set", unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, 0) })?;
    // SAFETY: plain numbers; 0 is the default slack.
    checked("prctl", c_long::from(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 0, 0, 0, 0) }))?;
    // SAFETY: plain numbers; 0 is PR_SET_PDEATHSIG off.
    checked("prctl", c_long::from(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0) }))?;
    // SAFETY: plain numbers; 0 is "as the system has it".
    checked("prctl", c_long::from(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) }))?;
    // SAFETY: a plain number; 0 is PER_LINUX without any flag.
    checked("personality", c_long::from(unsafe { libc::personality(0) }))?;
    let nodes = std::ptr::null::<libc::c_ulong>();
    // SAFETY: plain numbers and no list of nodes; 0 is MPOL_DEFAULT.
    match checked("set_mempolicy", unsafe { libc::syscall(libc::SYS_set_mempolicy, 0, nodes, 0) }) {
        // Built without nodes.
        Err((_, Errno::ENOSYS)) => Ok(()),
        other => other,
    }
}

/// Scheduling priority, -20 to 19.
///
/// # Errors
/// EACCES without `CAP_SYS_NICE` for a value below the caller's.
pub fn set_nice(_: &Root, nice: i8) -> Result<(), Errno> {
    // SAFETY: plain numbers; 0 is this process.
    Errno::result(unsafe { libc::syscall(libc::SYS_setpriority, 0, 0, c_int::from(nice)) }).map(drop)
}

/// A resource limit, soft and hard alike.
///
/// # Errors
/// EPERM, where the hard limit that was inherited is lower and `CAP_SYS_RESOURCE` is missing.
pub fn limit(resource: u8, value: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    let old = std::ptr::null_mut::<libc::rlimit>();
    // SAFETY: `limit` outlives the call; pid 0 is this process; no old value is asked for.
    let set = unsafe { libc::syscall(libc::SYS_prlimit64, 0, c_int::from(resource), &raw const limit, old) };
    Errno::result(set).map(drop)
}

/// As [`limit`]; but without `CAP_SYS_RESOURCE` (a container) the inherited hard limit is as far as it goes. Returns the
/// limit as it is now.
///
/// # Errors
/// Of prlimit(2).
pub fn limit_as_allowed(resource: u8, value: u64) -> Result<u64, Errno> {
    match limit(resource, value) {
        Err(Errno::EPERM) => {
            let value = value.min(hard_limit(resource)?);
            limit(resource, value).map(|()| value)
        }
        other => other.map(|()| value),
    }
}

/// The hard limit that was inherited.
///
/// # Errors
/// EINVAL for a resource that the kernel does not know.
pub fn hard_limit(resource: u8) -> Result<u64, Errno> {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null::<libc::rlimit>();
    // SAFETY: `old` outlives the call; pid 0 is this process; nothing is set.
    let got = unsafe { libc::syscall(libc::SYS_prlimit64, 0, c_int::from(resource), none, &raw mut old) };
    Errno::result(got).map(|_| old.rlim_max)
}

/// Takes what has come of the caller's request off descriptor 0, and lets no more come, for a process that ends without
/// having read it.
///
/// mod_cgid hands over one socket for both directions. Where one is closed with something unread, whoever reads at its other
/// end gets ECONNRESET in the place of the end (`unix_release_sock` of Linux), and Apache throws the whole answer away
/// (AH00574): the visitor sees nothing. After the shutdown nothing can arrive behind the last look. A listening socket, which
/// others accept from as well, and what is no socket are left alone.
pub fn forsake_request() {
    if stdin_listens() || shutdown(0, Shutdown::Read).is_err() {
        return;
    }
    let mut taken = [0; 16 << 10];
    // Of a stream from another host more may come: it ends all the same.
    for _ in 0..4096 {
        if !recv(0, &mut taken, MsgFlags::MSG_DONTWAIT).is_ok_and(|length| length > 0) {
            return;
        }
    }
}

/// Is descriptor 0 a listening socket, as mod_fcgid hands over?
#[must_use]
pub fn stdin_listens() -> bool {
    let mut listens: c_int = 0;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the value is a C int, whose size `length` says; both outlive the call.
    let got = unsafe {
        libc::getsockopt(0, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut listens).cast(), &raw mut length)
    };
    got == 0 && listens != 0
}
