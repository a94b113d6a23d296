//! The broker's last act before its first byte: from here on it can do what a relay does, and nothing else.
//!
//! No new privileges, no path of the file system (Landlock), no TCP, no signal to anybody, and a list of system calls.
//! Workers' sockets are still connected to by name: Landlock does not judge that, and the root directory holds nothing
//! else.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope,
};
use nix::errno::Errno;

use crate::sys::seal::load_seccomp;

/// Seals this process for good. Call it in the broker's root directory, as its own uid.
///
/// # Errors
/// Of prctl(2), landlock_restrict_self(2), seccomp(2): the broker must not run then.
pub fn seal() -> Result<(), Errno> {
    nix::sys::prctl::set_no_new_privs()?;
    nix::sys::prctl::set_dumpable(false)?;
    confine().map_err(|_| Errno::EPERM)?;
    load_seccomp(&program(), false)
}

/// All rights are handled and none is given, as far as the kernel knows them.
fn confine() -> Result<(), landlock::RulesetError> {
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    ruleset.restrict_self().map(drop)
}

/// What a relay does, and what the allocator and a clean end need.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_accept4,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_ctl,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    // The system log.
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // A connection to a worker: see also the check of the family below.
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_fcntl,
    libc::SYS_lseek,
    // The environment of a CGI program.
    libc::SYS_memfd_create,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    // Its own class, as far as anybody may choose that.
    libc::SYS_sched_setscheduler,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_futex,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Another architecture, or a call beyond the list, ends the process; `socket` makes Unix sockets alone, and `setsockopt` asks
/// for a sender's number alone.
fn program() -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const UNSUPPORTED: u32 = 0x0005_0000 | 97; // EAFNOSUPPORT
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut program = vec![
        step(LOAD, 0, 0, 4),
        step(EQUAL, 1, 0, ARCHITECTURE),
        step(RETURN, 0, 0, KILL),
        step(LOAD, 0, 0, 0),
    ];
    for call in CALLS {
        program.push(step(EQUAL, 0, 1, number(*call)));
        program.push(step(RETURN, 0, 0, ALLOW));
    }
    program.extend([
        // Who it is that answers: nothing else of a socket is set.
        step(EQUAL, 0, 5, number(libc::SYS_setsockopt)),
        // The second and the third argument's lower halves.
        step(LOAD, 0, 0, 24),
        step(EQUAL, 0, 4, libc::SOL_SOCKET.cast_unsigned()),
        step(LOAD, 0, 0, 32),
        step(EQUAL, 0, 2, libc::SO_PASSCRED.cast_unsigned()),
        step(RETURN, 0, 0, ALLOW),
        step(EQUAL, 1, 0, number(libc::SYS_socket)),
        step(RETURN, 0, 0, KILL),
        // The first argument's lower half.
        step(LOAD, 0, 0, 16),
        step(EQUAL, 0, 1, libc::AF_UNIX.cast_unsigned()),
        step(RETURN, 0, 0, ALLOW),
        step(RETURN, 0, 0, UNSUPPORTED),
    ]);
    program
}
