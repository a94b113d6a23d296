//! Mounts by descriptor: what is mounted was looked at first, and where it goes was opened first.
//!
//! Root. Works only inside namespaces of its own.

use std::ffi::{CStr, c_char};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::Root;

/// A private copy of all mounts: nothing that is mounted from here on is seen outside. And no object of System V and no message
/// queue that anybody else has (ipc_namespaces(7)).
///
/// # Errors
/// EPERM without `CAP_SYS_ADMIN`.
pub fn leave_host(_: &Root) -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)?;
    mount(None::<&CStr>, "/", None::<&CStr>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&CStr>)
}

/// Enters the namespace behind `namespace`: its mounts, or its objects of System V.
///
/// # Errors
/// EINVAL when it is none of that kind; EPERM.
pub fn enter(_: &Root, namespace: &OwnedFd, kind: CloneFlags) -> Result<(), Errno> {
    setns(namespace, kind)
}

/// An empty file system in memory.
///
/// # Errors
/// Of mount(2).
pub fn memory(_: &Root, target: &CStr, options: &CStr, flags: MsFlags) -> Result<(), Errno> {
    mount(
        Some(c"tmpfs"),
        target,
        Some(c"tmpfs"),
        flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options),
    )
}

/// A process file system that shows the reader's own processes only (proc(5), `hidepid`, Linux 5.8).
///
/// # Errors
/// Of mount(2).
pub fn processes(_: &Root, target: &CStr) -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(c"proc"), target, Some(c"proc"), flags, Some(c"hidepid=2,subset=pid"))
}

/// A detached copy of the mount below `source`, with what is mounted in it.
///
/// # Errors
/// Of open_tree(2).
pub fn copy(_: &Root, source: &OwnedFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | libc::AT_EMPTY_PATH.cast_unsigned();
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: the path is empty and static; the descriptor is open.
    let copied = unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), flags) };
    let copied = i32::try_from(Errno::result(copied)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copied) })
}

/// Takes rights away from a detached mount. `attributes`: MOUNT_ATTR_* of mount_setattr(2).
///
/// # Errors
/// Of mount_setattr(2).
pub fn restrict(_: &Root, mounted: &OwnedFd, attributes: u64, recursive: bool) -> Result<(), Errno> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH.cast_unsigned() | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the size is that of `change`, which outlives the call; the path is empty and static.
    let changed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mounted.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(changed).map(drop)
}

/// Puts a detached mount on the directory or file behind `target`.
///
/// # Errors
/// Of move_mount(2).
pub fn attach(_: &Root, mounted: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    const FROM_EMPTY: u32 = 0x04;
    const TO_EMPTY: u32 = 0x40;
    let empty: *const c_char = c"".as_ptr();
    // SAFETY: both paths are empty and static; both descriptors are open.
    let moved = unsafe {
        let (from, to) = (mounted.as_raw_fd(), target.as_raw_fd());
        libc::syscall(libc::SYS_move_mount, from, empty, to, empty, FROM_EMPTY | TO_EMPTY)
    };
    Errno::result(moved).map(drop)
}

/// Makes the working directory the root and lets go of the old one, with everything that was mounted there.
///
/// # Errors
/// Of pivot_root(2), umount2(2), chdir(2).
pub fn change_root_here(_: &Root) -> Result<(), Errno> {
    nix::unistd::pivot_root(c".", c".")?;
    // The old root lies on the new one now; without it there is no way back.
    umount2(c".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir(c"/")
}

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
