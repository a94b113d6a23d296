//! One at a time: locks that only root can hold.
//!
//! Whoever may open a file or a directory, if only for reading, may lock it (flock(2)) and keep root out for as long as he likes. So
//! what is locked is a file that only root opens, and in it one byte for each thing that is worked at.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The right to work at something; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Alone(#[expect(dead_code, reason = "the lock is the open file's")] File);

impl Alone {
    /// Takes the lock on this byte of a file of root's. None: somebody else has it.
    ///
    /// # Errors
    /// Of open(2), fcntl(2).
    pub(super) fn at(path: &str, byte: u64) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let wanted = libc::flock {
            l_type: libc::F_WRLCK.try_into().map_err(io::Error::other)?,
            l_whence: libc::SEEK_SET.try_into().map_err(io::Error::other)?,
            l_start: i64::try_from(byte).unwrap_or(i64::MAX - 1),
            l_len: 1,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&wanted)) {
            Ok(_) => Ok(Some(Self(file))),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}
