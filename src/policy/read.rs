//! Opens one record by number and distrusts it: who may have written it, what it is, how long it is.
//!
//! Root. Opens only names made of digits in a directory that root owns, all the way up.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::{FileStat, fstat};

use super::decode::LENGTH_MAX;
use super::{DIRECTORY, HOST_FILE};
use crate::sys::files::{hold_root, open_plain};

/// Why there is no record to decode.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// There is none.
    Missing,
    /// It may be somebody else's work, or is no file; what is wrong.
    Unsafe(&'static str),
    /// A directory on the way to it may be changed by others than root, or is none: which, and what is wrong.
    Way(String, &'static str),
    /// The kernel said no.
    Failed(Errno),
}

impl Unreadable {
    /// The same of a directory, `path`, above.
    fn on(self, path: &str) -> Self {
        match self {
            Self::Unsafe(what) => Self::Way(path.to_owned(), what),
            other => other,
        }
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => out.write_str("there is none"),
            Self::Unsafe(what) => write!(out, "it {what}"),
            Self::Way(path, what) => write!(out, "{path} {what}"),
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

/// Every directory on the way is looked at as well: whoever can write to one can put another directory of root's, an
/// older one say, in the place of the records.
fn file(name: &str) -> Result<Vec<u8>, Unreadable> {
    let directory = directory()?;
    let file = open(&directory, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let facts = stat(&file)?;
    trust(&facts, libc::S_IFREG)?;
    let length = usize::try_from(facts.st_size).ok().filter(|length| *length <= LENGTH_MAX);
    let mut bytes = vec![0; length.ok_or(Unreadable::Unsafe("is larger than 1 MiB"))?];
    // Records are replaced, never written to: what is read is as long as it was said to be, or is refused.
    let count = nix::unistd::read(&file, &mut bytes).map_err(Unreadable::Failed)?;
    if count == bytes.len() { Ok(bytes) } else { Err(Unreadable::Unsafe("became shorter")) }
}

/// From the root down, each held before the next is opened in it.
fn directory() -> Result<OwnedFd, Unreadable> {
    let mut here = hold_root().map_err(Unreadable::Failed)?;
    let mut way = String::from("/");
    trust(&stat(&here)?, libc::S_IFDIR).map_err(|why| why.on(&way))?;
    for part in DIRECTORY.split('/').filter(|part| !part.is_empty()) {
        way.push_str(part);
        here = open(&here, part, OFlag::O_PATH).map_err(|why| why.on(&way))?;
        trust(&stat(&here)?, libc::S_IFDIR).map_err(|why| why.on(&way))?;
        way.push('/');
    }
    Ok(here)
}

fn open(directory: impl AsFd, path: &str, flags: OFlag) -> Result<OwnedFd, Unreadable> {
    open_plain(directory, path.as_bytes(), flags, ResolveFlag::empty()).map_err(|errno| match errno {
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
