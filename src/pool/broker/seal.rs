//! The broker's last act before its first byte: from here on it can do what a relay does, and nothing else.
//!
//! What every process of the daemon's that is nobody gives up ([`give_up`]), and a list of system calls. Workers' sockets are still
//! connected to by name: Landlock does not judge that, and the root directory holds nothing else.

use nix::errno::Errno;

use crate::pool::seal::{allow_only, give_up};
use crate::sys::descriptors::SO_PASSRIGHTS;
use crate::sys::filter::{self as step, Instruction, bytes, number};
use crate::sys::seal::load_seccomp;

/// Seals this process for good. Call it in the broker's root directory, as its own uid.
///
/// # Errors
/// Of prctl(2), landlock_restrict_self(2), seccomp(2): the broker must not run then.
pub fn seal() -> Result<(), Errno> {
    give_up()?;
    load_seccomp(&bytes(&program()), false)
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
    // A look at what stays in the kernel's queue.
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    // The system log.
    libc::SYS_sendto,
    libc::SYS_shutdown,
    // A connection to a worker: see also the check of the family below.
    libc::SYS_connect,
    libc::SYS_getsockopt,
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

/// Beyond the list, `socket` makes Unix sockets alone, `setsockopt` asks for a sender's number, refuses descriptors and makes room alone, and
/// `fcntl` seals memory files and copies descriptors: O_APPEND stays on a log that is the supervisor's as well.
fn program() -> Vec<Instruction> {
    const UNSUPPORTED: u32 = step::ERRNO | 97; // EAFNOSUPPORT
    let rest = [
        step::equal(0, 6, number(libc::SYS_fcntl)),
        // The second argument's lower half.
        step::load(24),
        step::equal(3, 0, libc::F_ADD_SEALS.cast_unsigned()),
        step::equal(2, 0, libc::F_GETFD.cast_unsigned()),
        step::equal(1, 0, libc::F_DUPFD_CLOEXEC.cast_unsigned()),
        step::end(step::REFUSE),
        step::end(step::ALLOW),
        // Who it is that answers, that no descriptors come along, and how much waits in it: nothing else of a socket is set.
        step::equal(0, 7, number(libc::SYS_setsockopt)),
        // The second and the third argument's lower halves.
        step::load(24),
        step::equal(0, 6, libc::SOL_SOCKET.cast_unsigned()),
        step::load(32),
        step::equal(2, 0, libc::SO_SNDBUF.cast_unsigned()),
        step::equal(1, 0, SO_PASSRIGHTS.cast_unsigned()),
        step::equal(0, 2, libc::SO_PASSCRED.cast_unsigned()),
        step::end(step::ALLOW),
        step::equal(1, 0, number(libc::SYS_socket)),
        step::end(step::KILL),
        // The first argument's lower half.
        step::load(16),
        step::equal(0, 1, libc::AF_UNIX.cast_unsigned()),
        step::end(step::ALLOW),
        step::end(UNSUPPORTED),
    ];
    allow_only(CALLS, &rest)
}
