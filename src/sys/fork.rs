//! Children of the administrator's command and of the pool's daemon. The setuid program never forks.

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

/// Which side of a fork we are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The new process.
    Child,
    /// The old one, and the new one's pid.
    Parent(Pid),
}

/// Makes a child. Call it with one thread only.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> Result<Side, Errno> {
    // SAFETY: the programs that call this have one thread, so no lock is held by another one in the child.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Side::Child),
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
    }
}

/// Makes the terminal behind descriptor 0 the controlling one of a new session.
///
/// # Errors
/// EPERM, when this process leads a group already.
pub fn take_terminal() -> Result<(), Errno> {
    nix::unistd::setsid()?;
    // SAFETY: a plain number as the argument.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)
}

/// Gives the terminal behind `to` the size of the one behind descriptor 0.
pub fn copy_window_size(to: i32) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` outlives the call.
    let got = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    if got == 0 {
        // SAFETY: `size` outlives the call.
        unsafe { libc::ioctl(to, libc::TIOCSWINSZ, &raw const size) };
    }
}
