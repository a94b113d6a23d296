//! Children of the administrator's command and of the pool's daemon. The setuid program never forks.

use std::ffi::{c_int, c_long, c_void};
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, Pid};

/// Which side of a fork we are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The new process.
    Child,
    /// The old one, and the new one's pid.
    Parent(Pid),
}

/// Makes a child. Call it with one thread only; others may be on their way out, as `std::thread::scope` waits for what its threads
/// do and not for their ends. A child that does not become another program ends by [`leave`].
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> Result<Side, Errno> {
    // SAFETY: the C library's fork hands its own locks, those of its memory among them, to the child open. A thread that is on
    // its way out has let go of all of ours, and those of std's that it may hold the child does not take: see `leave`.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Side::Child),
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
    }
}

/// Drops descriptors while a child has them still, which ends right after: the last copies go with a process that ends. Where no
/// child can be made they stay open. Call it with one thread only.
pub fn outlived(descriptors: Vec<OwnedFd>) {
    if descriptors.is_empty() {
        return;
    }
    let pipe = std::io::pipe();
    match pipe.map(|(wait, go)| (fork(), wait, go)) {
        Ok((Ok(Side::Child), mut wait, go)) => {
            drop(go);
            drop(wait.read(&mut [0]));
            leave(0)
        }
        Ok((Ok(Side::Parent(_)), _wait, go)) => {
            drop(descriptors);
            drop(go);
        }
        Ok((Err(_), ..)) | Err(_) => std::mem::forget(descriptors),
    }
}

/// Ends a child that [`fork`] made, and does nothing else: what is in a buffer is not written. `std::process::exit` first takes a
/// lock of std's for which a thread that ends just then, in the parent, may have been the one to hold it: the child waited for ever.
pub fn leave(status: u8) -> ! {
    // SAFETY: a plain number; nothing of this process is used any more.
    unsafe { libc::_exit(status.into()) }
}

/// Makes this terminal the controlling one of a new session.
///
/// # Errors
/// EPERM, when this process leads a group already.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    nix::unistd::setsid()?;
    // SAFETY: a plain number as the argument.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Gives up the controlling terminal, open here, for this process and those that it will start; others of its session keep it,
/// unless this process leads the session (`ioctl_tty(2)`).
///
/// # Errors
/// ENOTTY: it does not control this process.
pub fn leave_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: there is no argument.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) }).map(drop)
}

/// What is started by this leads a session of its own, which has no terminal, and ends with this process: nobody would look after
/// it.
pub fn apart(command: &mut Command) -> &mut Command {
    let leave = || {
        nix::unistd::setsid()?;
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes two system calls, and touches no memory.
    unsafe { command.pre_exec(leave) }
}

/// Gives the terminal behind `to` the size of the one behind `from`.
pub fn copy_window_size(from: i32, to: i32) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` outlives the call.
    let got = unsafe { libc::ioctl(from, libc::TIOCGWINSZ, &raw mut size) };
    if got == 0 {
        // SAFETY: `size` outlives the call.
        unsafe { libc::ioctl(to, libc::TIOCSWINSZ, &raw const size) };
    }
}

/// Makes a child that is in this control group of version 2 from its first instruction on: unlike a write to its
/// cgroup.procs that waits for nobody. Call it with one thread only.
///
/// # Errors
/// EAGAIN, ENOMEM; ENODEV, when the group was removed. ENOSYS or E2BIG before Linux 5.7: see [`can_fork_into`].
pub fn fork_into(group: BorrowedFd<'_>) -> Result<Side, Errno> {
    match clone_into(group.as_raw_fd())? {
        0 => Ok(Side::Child),
        child => Ok(Side::Parent(Pid::from_raw(i32::try_from(child).map_err(|_| Errno::EOVERFLOW)?))),
    }
}

/// Whether this kernel, and what confines us, knows [`fork_into`]. No process is made.
#[must_use]
pub fn can_fork_into() -> bool {
    clone_into(RawFd::MAX) == Err(Errno::EBADF)
}

fn clone_into(group: RawFd) -> Result<c_long, Errno> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup (clone(2)).
    let mut words = [0_u64; 11];
    let [flags, _, _, _, exit_signal, .., cgroup] = &mut words;
    *flags = CLONE_INTO_CGROUP;
    *exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    *cgroup = u64::from(group.cast_unsigned());
    // SAFETY: `words` is as long as is said and outlives the call. Without CLONE_VM the child has a copy of all memory, as
    // after fork; the programs that call this have one thread, so no lock is held by another one in it.
    Errno::result(unsafe { libc::syscall(libc::SYS_clone3, words.as_ptr(), size_of_val(&words)) })
}

/// Makes a child that uses this process's memory, on a stack of its own, while this process waits until the child becomes
/// another program or ends (`CLONE_VM` and `CLONE_VFORK`, clone(2)): no page is copied. Call it with one thread only. What
/// `child` writes is seen here afterwards; what it owns when it becomes another program is never dropped. Its result is the
/// child's exit status.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork_sharing(stack: &mut [u128], child: &mut dyn FnMut() -> u8) -> Result<Pid, Errno> {
    extern "C" fn begin(child: *mut c_void) -> c_int {
        // SAFETY: it is the pointer that was given to clone below, to a closure that outlives the child's use of it.
        let child = unsafe { &mut *child.cast::<&mut dyn FnMut() -> u8>() };
        child().into()
    }
    let mut child = child;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    // SAFETY: `stack` ends at `top`, aligned to 16 bytes, and is used by nobody else; stack and closure outlive the call, which
    // returns only when the child uses this memory no more. There is no other thread.
    Errno::result(unsafe { libc::clone(begin, top, flags, (&raw mut child).cast()) }).map(Pid::from_raw)
}

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Which.
    pub child: Pid,
    /// By a signal, of which there are more than a library has names for: real-time ones end a process too.
    pub by_signal: bool,
    /// Its status, or the signal's number.
    pub code: u8,
}

/// A child that has ended and is not reaped yet: it stays so, and its number its own. None: no child has ended.
///
/// # Errors
/// ECHILD: there is no child.
pub fn look_for_end() -> Result<Option<End>, Errno> {
    wait(libc::P_ALL, 0, libc::WNOHANG | libc::WNOWAIT)
}

/// Reaps a child that has ended. None: no child has ended.
///
/// # Errors
/// ECHILD: there is no child.
pub fn reap_any() -> Result<Option<End>, Errno> {
    wait(libc::P_ALL, 0, libc::WNOHANG)
}

/// Waits for a child's end. It is not reaped yet, as in [`look_for_end`].
///
/// # Errors
/// ECHILD: there is no child. EINTR.
pub fn wait_for_end() -> Result<End, Errno> {
    wait(libc::P_ALL, 0, libc::WNOWAIT)?.ok_or(Errno::ECHILD)
}

/// Waits for this child's end, and reaps it.
///
/// # Errors
/// ECHILD: it is no child. EINTR.
pub fn reap(child: Pid) -> Result<End, Errno> {
    let number = child.as_raw().try_into().map_err(|_| Errno::EINVAL)?;
    wait(libc::P_PID, number, 0)?.ok_or(Errno::ECHILD)
}

fn wait(kind: libc::idtype_t, number: libc::id_t, how: c_int) -> Result<Option<End>, Errno> {
    let mut facts = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes one `siginfo_t`, or nothing where no child has ended.
    Errno::result(unsafe { libc::waitid(kind, number, facts.as_mut_ptr(), how | libc::WEXITED) })?;
    // SAFETY: all its fields are numbers, and zeros were there before.
    let facts = unsafe { facts.assume_init() };
    // SAFETY: waitid(2) fills this field in; zero is no child.
    let child = unsafe { facts.si_pid() };
    // SAFETY: as above.
    let code = unsafe { facts.si_status() };
    let code = u8::try_from(code).unwrap_or(u8::MAX);
    let end = End { child: Pid::from_raw(child), by_signal: facts.si_code != libc::CLD_EXITED, code };
    Ok((child != 0).then_some(end))
}

/// Holds a process, whatever its number means later (a pidfd).
///
/// # Errors
/// ESRCH: there is none.
pub fn hold(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: two plain numbers.
    let held = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let held = RawFd::try_from(held).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(held) })
}

/// Whether the process that is held ends within this time. It is not reaped.
///
/// # Errors
/// Of poll(2).
pub fn ends_within(held: &OwnedFd, time: Duration) -> Result<bool, Errno> {
    let end = Instant::now() + time;
    loop {
        // One millisecond more: what is left may be a part of one.
        let left = end.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
        let timeout = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        match poll(&mut [PollFd::new(held.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if Instant::now() < end => {}
            Ok(count) => return Ok(count > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// SIGKILL to the process that is held, and to no other.
///
/// # Errors
/// ESRCH: it has ended.
pub fn end(held: &OwnedFd) -> Result<(), Errno> {
    tell(held, libc::SIGKILL)
}

/// SIGTERM to the process that is held, and to no other.
///
/// # Errors
/// ESRCH: it has ended.
pub fn ask(held: &OwnedFd) -> Result<(), Errno> {
    tell(held, libc::SIGTERM)
}

fn tell(held: &OwnedFd, signal: c_int) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no information goes with the signal; the others are plain numbers.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held.as_raw_fd(), signal, none, 0) };
    Errno::result(sent).map(drop)
}
