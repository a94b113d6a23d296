//! Opens one record by number and distrusts it: who may have written it, what it is, how long it is.
//!
//! Root. Opens only names made of digits in a directory that root owns, all the way up.

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, ResolveFlag};
use nix::sys::stat::{FileStat, fstat, fstatat};

use super::decode::LENGTH_MAX;
use super::{DIRECTORY, HOST_FILE};
use crate::sys::files::open_plain;

/// Why there is no record to decode.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// There is none.
    Missing,
    /// It may be somebody else's work, or is no file; what is wrong.
    Unsafe(&'static str),
    /// A directory on the way to it may be changed by others than root, or is none: which, and what is wrong.
    Way(&'static str, &'static str),
    /// The kernel said no.
    Failed(Errno),
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
    look_at_the_way()?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let path = [DIRECTORY, "/", name].concat();
    let file = open_plain(AT_FDCWD, path.as_bytes(), flags, ResolveFlag::empty()).map_err(why)?;
    let facts = fstat(&file).map_err(Unreadable::Failed)?;
    trust(&facts, libc::S_IFREG).map_err(Unreadable::Unsafe)?;
    let length = usize::try_from(facts.st_size).ok().filter(|length| *length <= LENGTH_MAX);
    let mut bytes = vec![0; length.ok_or(Unreadable::Unsafe("is larger than 1 MiB"))?];
    // Records are replaced, never written to: what is read is as long as it was said to be, or is refused.
    let count = nix::unistd::read(&file, &mut bytes).map_err(Unreadable::Failed)?;
    if count == bytes.len() { Ok(bytes) } else { Err(Unreadable::Unsafe("became shorter")) }
}

/// From the root down, by path: only who may write to a directory that was looked at could change which one is next,
/// and that is root.
fn look_at_the_way() -> Result<(), Unreadable> {
    let ends = DIRECTORY.match_indices('/').map(|(end, _)| end.max(1)).chain([DIRECTORY.len()]);
    for directory in ends.filter_map(|end| DIRECTORY.get(..end)) {
        let facts = fstatat(AT_FDCWD, directory, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(why)?;
        trust(&facts, libc::S_IFDIR).map_err(|what| Unreadable::Way(directory, what))?;
    }
    Ok(())
}

fn why(errno: Errno) -> Unreadable {
    match errno {
        Errno::ENOENT => Unreadable::Missing,
        Errno::ELOOP => Unreadable::Unsafe("is a symbolic link"),
        other => Unreadable::Failed(other),
    }
}

fn trust(facts: &FileStat, kind: libc::mode_t) -> Result<(), &'static str> {
    if facts.st_mode & libc::S_IFMT != kind {
        return Err("is of the wrong kind");
    }
    if facts.st_uid != 0 {
        return Err("is not root's");
    }
    if facts.st_mode & 0o022 != 0 {
        return Err("is writable by others");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_than_root_could_have_written_is_not_trusted() {
        let mut facts = fstatat(AT_FDCWD, "/", AtFlags::empty()).unwrap();
        let mut judge = |kind, uid, mode| {
            (facts.st_mode, facts.st_uid) = (kind | mode, uid);
            trust(&facts, libc::S_IFREG)
        };
        for mode in [0o600, 0o644, 0o755] {
            assert_eq!(judge(libc::S_IFREG, 0, mode), Ok(()), "{mode:o}");
        }
        for (kind, uid, mode, why) in [
            (libc::S_IFDIR, 0, 0o644, "is of the wrong kind"),
            (libc::S_IFIFO, 0, 0o644, "is of the wrong kind"),
            (libc::S_IFREG, 1000, 0o644, "is not root's"),
            (libc::S_IFREG, 0, 0o664, "is writable by others"),
            (libc::S_IFREG, 0, 0o646, "is writable by others"),
        ] {
            assert_eq!(judge(kind, uid, mode), Err(why), "{uid} {mode:o}");
        }
    }

    #[test]
    fn a_record_that_is_not_there_is_told_from_one_that_cannot_be_read() {
        assert_eq!(why(Errno::ENOENT), Unreadable::Missing);
        assert_eq!(why(Errno::ELOOP), Unreadable::Unsafe("is a symbolic link"));
        assert_eq!(why(Errno::EIO), Unreadable::Failed(Errno::EIO));
    }
}
