//! Where things are: the repository, its target directory, and who runs us.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    package.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Where `build` leaves the release programs.
pub(crate) fn dist() -> PathBuf {
    target().join("dist")
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove(directory: &Path) -> Outcome {
    if !directory.exists() {
        return Ok(());
    }
    fs::remove_dir_all(directory).map_err(|why| format!("{}: {why}", directory.display()))
}

/// Do we run as root?
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// Says which command to type when we are not root. sudo forgets where cargo and rustup live, so it names them.
pub(crate) fn need_root(command: &str) -> Outcome {
    if is_root() {
        return Ok(());
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    let place = |name: &str, default: &str| -> OsString {
        std::env::var_os(name).unwrap_or_else(|| PathBuf::from(&home).join(default).into_os_string())
    };
    let (cargo, rustup) = (place("CARGO_HOME", ".cargo"), place("RUSTUP_HOME", ".rustup"));
    Err(format!(
        "`{command}` must run as root: it makes users, namespaces and set-id programs in private copies of this \
         machine's directories. Run:\n\n    sudo env \"PATH=$PATH\" CARGO_HOME={} RUSTUP_HOME={} cargo xtask {command}",
        cargo.display(),
        rustup.display()
    ))
}
