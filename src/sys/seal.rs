//! What cannot be taken back: descriptors, the system call filter, the version of Landlock.

use std::ffi::c_long;

use nix::errno::Errno;

/// Every descriptor from 3 up is closed at exec.
///
/// # Errors
/// ENOSYS before Linux 5.11.
pub fn close_at_exec() -> Result<(), Errno> {
    // SAFETY: three numbers; no descriptor is closed now.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Loads a seccomp program: `struct sock_filter`s in the machine's byte order. `log` also writes denials to the kernel log.
///
/// # Errors
/// EINVAL for a program that the kernel refuses; EACCES without `no_new_privs` and `CAP_SYS_ADMIN`.
pub fn load_seccomp(program: &[u8], log: bool) -> Result<(), Errno> {
    load(program, if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 })
}

/// Loads a seccomp program for every thread of this process.
///
/// # Errors
/// As [`load_seccomp`]; ESRCH: a thread has a filter that this one has not.
#[cfg(feature = "pool")]
pub fn load_seccomp_everywhere(program: &[u8]) -> Result<(), Errno> {
    load(program, libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH)
}

fn load(program: &[u8], flags: libc::c_ulong) -> Result<(), Errno> {
    let count = program.len() / size_of::<libc::sock_filter>();
    let length = u16::try_from(count).map_err(|_| Errno::EINVAL)?;
    // The kernel copies the instructions, wherever they stand, and writes to none.
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` and the program behind it, which has as many instructions, outlive the call.
    let loaded =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    Errno::result(loaded).map(drop)
}

/// The kernel's version of Landlock; 0: none, or switched off.
#[must_use]
pub fn landlock_version() -> u8 {
    const VERSION: c_long = 1;
    // SAFETY: no rule set is made when the version is asked for.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) };
    u8::try_from(version).unwrap_or(0)
}
