//! The broker's way down: from a process of root's that has just begun to nobody in an empty directory.
//!
//! Root, for a few calls. Afterwards the process has a channel to the supervisor, its standard error output, and a root directory
//! whose sockets it may connect to. It is sealed before its first byte.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;

use nix::unistd::{chdir, chroot, dup2_stdin};

use crate::sys::{Root, descriptors};

use super::listen::WORKERS;
use super::supervisor::Account;

/// Becomes nobody in [`WORKERS`]. Descriptor 0 is the channel, which is returned under another number.
///
/// # Errors
/// When a call fails, or something of root is left.
pub fn descend(account: Account) -> io::Result<OwnedFd> {
    let Some(root) = Root::claim()? else { return Err(io::Error::other("it is started by cellwalld")) };
    let standard = descriptors::inherited(0)?;
    let channel = standard.try_clone()?;
    dup2_stdin(OpenOptions::new().read(true).write(true).open("/dev/null")?)?;
    // The call before has put /dev/null in its place, which stays open.
    std::mem::forget(standard);
    chroot(WORKERS)?;
    chdir("/")?;
    root.empty_capabilities()?;
    root.become_user(account.uid, account.gid, &[])
        .map_err(|why| io::Error::other(format!("root is not gone: {why:?}")))?;
    Ok(channel)
}
