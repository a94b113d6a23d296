//! What rotations made of a log: which files beside it are older parts of it, and what is in the packed ones.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use nix::unistd::mkstemp;

/// Endings of packed files, and what unpacks them.
const PACKED: [(&str, &str); 4] = [("gz", "gzip"), ("xz", "xz"), ("bz2", "bzip2"), ("zst", "zstd")];

/// The older parts of a log, the oldest first, then the log itself.
pub(super) fn with_older(log: &Path) -> Vec<PathBuf> {
    let name = log.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let entries = log.parent().and_then(|above| above.read_dir().ok()).into_iter().flatten().flatten();
    let older = entries.filter(|entry| {
        let found = entry.file_name();
        found.to_str().and_then(|found| found.strip_prefix(name)).is_some_and(is_rotated)
    });
    let mut all: Vec<(Option<SystemTime>, PathBuf)> =
        older.map(|entry| (entry.metadata().and_then(|facts| facts.modified()).ok(), entry.path())).collect();
    all.sort();
    all.into_iter().map(|(_, path)| path).chain([log.to_owned()]).collect()
}

/// Pure: whether logrotate(8) puts this behind a name: `.1`, with `dateext` `-20260102`, and `.gz` or its like.
fn is_rotated(end: &str) -> bool {
    let plain = match packer(Path::new(end)) {
        Some(_) => end.rsplit_once('.').map_or("", |(plain, _)| plain),
        None => end,
    };
    let number = plain.strip_prefix(['.', '-']).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// Pure: what unpacks a file of this name. None: it is not packed.
pub(super) fn packer(path: &Path) -> Option<&'static str> {
    let end = path.extension()?;
    PACKED.iter().find(|(packed, _)| end == *packed).map(|(_, by)| *by)
}

/// The text of a packed file, in one that has no name: it may be larger than the memory.
pub(super) fn unpacked(path: &Path, by: &str) -> io::Result<File> {
    let (text, name) = mkstemp("/var/tmp/cellwall-why.XXXXXX")?;
    std::fs::remove_file(name)?;
    let text = File::from(text);
    let done =
        Command::new(by).arg("-dc").arg(path).stdin(Stdio::null()).stdout(text.try_clone()?).status()?;
    if done.success() { Ok(text) } else { Err(io::Error::other(format!("{by}: {done}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_known_by_its_ending() {
        for end in [".1", ".12.gz", "-20260102", "-20260102.xz", "-20260102-1767312000.gz"] {
            assert!(is_rotated(end), "{end}");
        }
        for end in ["", ".gz", ".save", ".1.new", "-old", "2", ".1.gz.tmp", "-"] {
            assert!(!is_rotated(end), "{end}");
        }
    }
}
