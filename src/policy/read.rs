//! Opens one record by number and distrusts it: who may have written it, what it is, how long it is.
//!
//! Root. Opens only names made of digits in a directory that root owns, all the way up.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, fstat};

use super::decode::LENGTH_MAX;
use super::{DIRECTORY, HOST_FILE};

/// Why there is no record to decode.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// There is none.
    Missing,
    /// It may be somebody else's work, or is no file; what is wrong.
    Unsafe(&'static str),
    /// The kernel said no.
    Failed(Errno),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => out.write_str("there is none"),
            Self::Unsafe(what) => write!(out, "it {what}"),
            Self::Failed(errno) => out.write_str(errno.desc()),
        }
    }
}

/// The bytes of one uid's record.
///
/// # Errors
/// [`Unreadable`].
pub fn record(uid: u32) -> Result<Vec<u8>, Unreadable> {
    file(&uid.to_string())
}

/// The bytes of the host file.
///
/// # Errors
/// [`Unreadable`].
pub fn host() -> Result<Vec<u8>, Unreadable> {
    file(HOST_FILE)
}

fn file(name: &str) -> Result<Vec<u8>, Unreadable> {
    let directory = open(AT_FDCWD, DIRECTORY, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    trust(&stat(&directory)?, libc::S_IFDIR)?;
    let file = open(&directory, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let facts = stat(&file)?;
    trust(&facts, libc::S_IFREG)?;
    let length = usize::try_from(facts.st_size).ok().filter(|length| *length <= LENGTH_MAX);
    let length = length.ok_or(Unreadable::Unsafe("is larger than 1 MiB"))?;
    let mut bytes = Vec::with_capacity(length.saturating_add(1));
    let limit = u64::try_from(LENGTH_MAX).unwrap_or(u64::MAX);
    File::from(file)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|why| Unreadable::Failed(Errno::from_raw(why.raw_os_error().unwrap_or(libc::EIO))))?;
    Ok(bytes)
}

fn open(directory: impl std::os::fd::AsFd, path: &str, flags: OFlag) -> Result<OwnedFd, Unreadable> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(directory, path, how).map_err(|errno| match errno {
        Errno::ENOENT => Unreadable::Missing,
        Errno::ELOOP => Unreadable::Unsafe("is a symbolic link"),
        other => Unreadable::Failed(other),
    })
}

fn stat(file: &OwnedFd) -> Result<FileStat, Unreadable> {
    fstat(file).map_err(Unreadable::Failed)
}

fn trust(facts: &FileStat, kind: libc::mode_t) -> Result<(), Unreadable> {
    if facts.st_mode & libc::S_IFMT != kind {
        return Err(Unreadable::Unsafe("is of the wrong kind"));
    }
    if facts.st_uid != 0 {
        return Err(Unreadable::Unsafe("is not root's"));
    }
    if facts.st_mode & 0o022 != 0 {
        return Err(Unreadable::Unsafe("is writable by others"));
    }
    Ok(())
}
