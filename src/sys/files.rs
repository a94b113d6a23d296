//! Opening and looking, by descriptor and one component at a time.

use std::ffi::{CStr, CString, c_int, c_uint};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Opens without following any link.
///
/// # Errors
/// ELOOP: a link stands in the way. EXDEV: with `RESOLVE_NO_XDEV`, another mount does. Others of openat2(2). EAGAIN, a
/// rename at the same time, is tried again a few times.
pub fn open_plain(
    directory: impl AsFd,
    name: &[u8],
    flags: OFlag,
    more: ResolveFlag,
) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
    patiently(|| openat2(directory.as_fd(), name, how))
}

/// EAGAIN may mean that somebody renamed or mounted something at the same time.
fn patiently(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..3 {
        match open() {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
    open()
}

/// A descriptor that names the file and nothing more: it is neither read, written nor waited for.
///
/// # Errors
/// As [`open_plain`].
pub fn hold(directory: impl AsFd, name: &[u8], more: ResolveFlag) -> Result<OwnedFd, Errno> {
    open_plain(directory, name, OFlag::O_PATH, more)
}

/// The root directory, held.
///
/// # Errors
/// Of openat2(2).
pub fn hold_root() -> Result<OwnedFd, Errno> {
    hold(AT_FDCWD, b"/", ResolveFlag::empty())
}

/// A link itself, held. Few ways have one: the room for its name, a kilobyte of the stack, is no part of the walk's own.
///
/// # Errors
/// Of openat2(2).
#[inline(never)]
pub fn hold_link(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC);
    openat2(directory, name, how)
}

/// A file of the kernel's, such as those of /proc and of control groups, to be written; a link is none.
///
/// # Errors
/// Of open(2).
pub fn open_to_write(path: &[u8]) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
}

/// To a file of the kernel's, which takes all of it or nothing.
///
/// # Errors
/// Of open(2) and write(2).
pub fn write(path: &[u8], text: &[u8]) -> Result<(), Errno> {
    nix::unistd::write(open_to_write(path)?, text).map(drop)
}

/// The directory that a held one was mounted into is not asked for; its name is.
///
/// # Errors
/// ENOENT: the working directory was removed.
pub fn working_directory() -> Result<Vec<u8>, Errno> {
    use std::os::unix::ffi::OsStringExt as _;
    nix::unistd::getcwd().map(|path| path.into_os_string().into_vec())
}

/// The inode of what stands at an absolute path, and when it was made, in nanoseconds since 1970; 0: the file system does
/// not tell. A link is not followed, and nothing is mounted (statx(2)).
///
/// # Errors
/// Of statx(2); EINVAL: the path has a NUL in it.
pub fn birth(path: &[u8]) -> Result<(u64, u64), Errno> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let facts = statx(libc::AT_FDCWD, &path, flags, libc::STATX_INO | libc::STATX_BTIME)?;
    Ok((facts.stx_ino, born(&facts)))
}

fn statx(directory: RawFd, path: &CStr, flags: c_int, wanted: c_uint) -> Result<libc::statx, Errno> {
    let mut facts = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path ends with a NUL; the kernel writes one `statx`.
    Errno::result(unsafe { libc::statx(directory, path.as_ptr(), flags, wanted, facts.as_mut_ptr()) })?;
    // SAFETY: all its fields are numbers, and zeros were there before.
    Ok(unsafe { facts.assume_init() })
}

/// Nanoseconds since 1970; 0: the file system does not tell.
fn born(facts: &libc::statx) -> u64 {
    let told = facts.stx_mask & libc::STATX_BTIME != 0;
    let seconds = u64::try_from(facts.stx_btime.tv_sec).unwrap_or(0);
    let born = seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::from(facts.stx_btime.tv_nsec));
    if told { born } else { 0 }
}

/// What stands at an absolute path, as far as the kernel knows it without asking a disk or a server: inode, device, owner with
/// group, mode, and when it was made. Waits for nothing (`RESOLVE_CACHED`, openat2(2), Linux 5.12). Links are followed.
///
/// # Errors
/// EAGAIN: the kernel would have to ask. EINVAL: it cannot do without. Others of openat2(2) and statx(2).
#[cfg(feature = "pool")]
pub fn glance(path: &CStr) -> Result<[u64; 5], Errno> {
    use std::os::fd::AsRawFd as _;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED));
    let held = patiently(|| openat2(AT_FDCWD, path, how))?;
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let facts = statx(held.as_raw_fd(), c"", flags, libc::STATX_BASIC_STATS | libc::STATX_BTIME)?;
    let device = u64::from(facts.stx_dev_major) << 32 | u64::from(facts.stx_dev_minor);
    let owner = u64::from(facts.stx_uid) << 32 | u64::from(facts.stx_gid);
    Ok([facts.stx_ino, device, owner, facts.stx_mode.into(), born(&facts)])
}

/// Which of descriptors 0 to 2 names a place in the file system: a directory, or whatever was opened with O_PATH. Beneath it a
/// program could reach what its own root does not show. None: no one does.
///
/// # Errors
/// Of fcntl(2) and statx(2).
pub fn door() -> Result<Option<RawFd>, Errno> {
    for standard in 0..=2 {
        // SAFETY: plain numbers.
        let opened = Errno::result(unsafe { libc::fcntl(standard, libc::F_GETFL) })?;
        // A caller's file may lie on a server that does not answer.
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        let facts = statx(standard, c"", flags, libc::STATX_TYPE)?;
        let is_directory = u32::from(facts.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
        if is_directory || opened & libc::O_PATH == libc::O_PATH {
            return Ok(Some(standard));
        }
    }
    Ok(None)
}

/// Is there an extended attribute of this name? The file must be open for reading.
#[must_use]
pub fn has_attribute(file: &OwnedFd, name: &std::ffi::CStr) -> bool {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the name ends with a NUL; with size 0 nothing is written.
    let size = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) };
    size >= 0
}
