//! Opening and looking, by descriptor and one component at a time.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

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
    let mut last = Errno::EAGAIN;
    for _ in 0..4 {
        match openat2(directory.as_fd(), name, how) {
            Err(Errno::EAGAIN) => last = Errno::EAGAIN,
            other => return other,
        }
    }
    Err(last)
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

/// A link itself, held.
///
/// # Errors
/// Of openat2(2).
pub fn hold_link(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC);
    openat2(directory, name, how)
}

/// The directory that a held one was mounted into is not asked for; its name is.
///
/// # Errors
/// ENOENT: the working directory was removed.
pub fn working_directory() -> Result<Vec<u8>, Errno> {
    use std::os::unix::ffi::OsStringExt as _;
    nix::unistd::getcwd().map(|path| path.into_os_string().into_vec())
}

/// Is there an extended attribute of this name? The file must be open for reading.
#[must_use]
pub fn has_attribute(file: &OwnedFd, name: &std::ffi::CStr) -> bool {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the name ends with a NUL; with size 0 nothing is written.
    let size = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) };
    size >= 0
}
