//! The beginning of a file whose owner is a site's, and may have put anything there by now: nothing is waited for, and no more is
//! read than somebody has use for.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// At most so many bytes of it. None: it is no file, or cannot be read.
pub(super) fn beginning(path: &Path, most: u64) -> Option<Vec<u8>> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    let mut bytes = Vec::new();
    (file.metadata().ok()?.is_file() && file.take(most).read_to_end(&mut bytes).is_ok()).then_some(bytes)
}
