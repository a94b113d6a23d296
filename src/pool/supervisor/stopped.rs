//! Sites that an administrator has stopped. They stay so until he starts them again, whichever daemon runs: one file for each, of the
//! site's name.
//!
//! Root. In a directory of root's alone.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Where the files are.
const DIRECTORY: &str = "/var/lib/cellwall/stopped";

/// Whether this site is.
pub(super) fn is(site: &[u8]) -> bool {
    path(site).is_some_and(|path| path.symlink_metadata().is_ok())
}

/// It is from now on, or no more.
///
/// # Errors
/// When the file system says no: the next daemon will not know.
pub(super) fn write_down(site: &[u8], stopped: bool) -> io::Result<()> {
    let path = path(site).ok_or(io::ErrorKind::InvalidInput)?;
    if !stopped {
        return match fs::remove_file(path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        };
    }
    match DirBuilder::new().mode(0o700).create(DIRECTORY) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        _ => File::create(path).map(drop),
    }
}

/// None: it is no name of a site's.
fn path(site: &[u8]) -> Option<PathBuf> {
    let plain = !site.starts_with(b".") && !site.is_empty() && !site.contains(&b'/');
    plain.then(|| Path::new(DIRECTORY).join(OsStr::from_bytes(site)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_directory() {
        assert_eq!(path(b"shop"), Some(PathBuf::from("/var/lib/cellwall/stopped/shop")));
        for name in [&b""[..], b"..", b".", b"../policy/host", b"a/b"] {
            assert!(path(name).is_none() && write_down(name, true).is_err() && !is(name));
        }
    }
}
