//! The kernel. The only unsafe code of the crate: one wrapper a call, one operation a block.
#![allow(unsafe_code, reason = "this is the one place for it")]

use std::ffi::{CStr, c_char, c_int, c_ulong};

use nix::errno::Errno;

/// A copy of the caller's environment, entry by entry, malformed ones included. The environment of this process is
/// empty afterwards, so that no library can act on it. Call it before anything else, and once.
#[must_use]
pub fn take_environment() -> Vec<Vec<u8>> {
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
        // SAFETY: the kernel ends each entry with a NUL; the strings live as long as the process.
        entries.push(unsafe { CStr::from_ptr(entry) }.to_bytes().to_vec());
        // SAFETY: the array ends with a null, which has not been reached.
        place = unsafe { place.add(1) };
    }
}

/// Every signal gets its default action. Real-time signals included; those that cannot be changed stay.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no handler, so nothing of ours can run in signal context.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Stops the three interval timers, which survive exec.
pub fn stop_timers() {
    for timer in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        set_timer(timer, 0);
    }
}

/// Starts the real-time timer: SIGALRM after `seconds` (0: none).
pub fn set_alarm(seconds: u32) {
    set_timer(libc::ITIMER_REAL, seconds);
}

fn set_timer(timer: c_int, seconds: u32) {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let value = libc::itimerval {
        it_interval: never,
        it_value: libc::timeval { tv_sec: i64::from(seconds), tv_usec: 0 },
    };
    // SAFETY: `value` outlives the call; no old value is asked for. The call fails only for bad arguments.
    unsafe {
        libc::syscall(libc::SYS_setitimer, timer, &raw const value, std::ptr::null::<libc::itimerval>())
    };
}

/// Every descriptor from 3 up is closed at exec.
///
/// # Errors
/// ENOSYS before Linux 5.11.
pub fn close_at_exec() -> Result<(), Errno> {
    // SAFETY: three numbers; no descriptor is closed now.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// A fresh session keyring: keys of the caller's are not readable any more.
///
/// # Errors
/// ENOSYS where the kernel has no keyrings; EDQUOT.
pub fn join_new_keyring() -> Result<(), Errno> {
    // KEYCTL_JOIN_SESSION_KEYRING is 1. SAFETY: a null name asks for an anonymous keyring.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, 1, std::ptr::null::<c_char>()) }).map(drop)
}

/// One capability leaves the bounding set. `false`: the kernel knows no such number.
///
/// # Errors
/// EPERM without `CAP_SETPCAP`.
pub fn drop_bounding(capability: c_ulong) -> Result<bool, Errno> {
    // SAFETY: plain numbers.
    match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A resource limit, soft and hard alike.
///
/// # Errors
/// EPERM, where the caller's hard limit is lower and `CAP_SYS_RESOURCE` is missing.
pub fn limit(resource: u8, value: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    let old = std::ptr::null_mut::<libc::rlimit>();
    // SAFETY: `limit` outlives the call; pid 0 is this process; no old value is asked for.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, c_int::from(resource), &raw const limit, old)
    })
    .map(drop)
}

/// Loads a seccomp program; `log` also writes denials to the kernel log.
///
/// # Errors
/// EINVAL for a program that the kernel refuses; EACCES without `no_new_privs`.
pub fn load_seccomp(program: &[libc::sock_filter], log: bool) -> Result<(), Errno> {
    let mut program = program.to_vec();
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let flags = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    // SAFETY: `filter` and the program behind it outlive the call; the kernel copies both.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
    })
    .map(drop)
}
