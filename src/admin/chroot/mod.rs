//! A classic chroot: what belongs in it, what is in it, and how the one becomes the other.
//!
//! * [`plan`]: from sites, pieces and programs to a list of paths, by the host as it is now.
//! * [`loader`]: which libraries a program needs, and where the dynamic loader would find them.
//! * [`manifest`]: what was copied, and from what, in a file inside the chroot.
//! * [`place`]: the chroot's directory, written to without following a link.

pub mod loader;
pub mod manifest;
pub mod place;
pub mod plan;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::ground::{Ground, Kind};
use crate::config::problem::Problems;
use crate::policy::names::is_plain_path;
use crate::refusal::Pasted;

use loader::{Loader, Needs, needs};
use manifest::Manifest;

/// What a chroot is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Sites: their pieces, their rules' own paths, their accounts.
    pub sites: BTreeSet<String>,
    /// Pieces besides.
    pub pieces: BTreeSet<String>,
    /// Programs besides.
    pub programs: BTreeSet<PathBuf>,
}

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A directory of root's.
    Directory,
    /// A symbolic link with this text.
    Link(PathBuf),
    /// A copy of a file of the host's.
    Copy(Copied),
    /// A device with these numbers, which everybody may use.
    Device(u64),
    /// A file with this text.
    Text(String),
    /// A directory that the site writes to. What is in it is nobody else's business.
    Own {
        /// Whose.
        uid: u32,
        /// And whose group.
        gid: u32,
        /// Its mode.
        mode: u32,
    },
}

/// A file of the host's as it was when it was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970, as the copy has it too.
    pub modified: i64,
    /// 0755 or 0644.
    pub mode: u32,
}

/// The command that brings a chroot up to date.
#[must_use]
pub fn remedy(directory: &Path) -> String {
    format!("cellwall jail refresh {}", Pasted(directory.as_os_str().as_encoded_bytes()))
}

/// In one sentence, what of a chroot's copies is not as the system has it. None: all is, or no build made the chroot.
///
/// # Errors
/// Its list cannot be read.
pub fn staleness(directory: &Path) -> Result<Option<String>, String> {
    let Some(manifest) = Manifest::of(directory)? else { return Ok(None) };
    let stale = manifest.stale(directory);
    Ok(stale.first().map(|(path, how)| {
        let more = stale.len().saturating_sub(1);
        let more =
            if more == 0 { String::new() } else { format!(", and {more} more are not as they should be") };
        format!("{} in {} {how}{more}", path.display(), directory.display())
    }))
}

/// Warns of each chroot whose copies are not as the system has them.
pub fn warn(directories: &BTreeSet<PathBuf>, problems: &Problems) {
    for directory in directories {
        // Who may not read the list is told by another run, as root.
        if let Ok(Some(text)) = staleness(directory) {
            problems.warning(None, text, format!("run: {}", remedy(directory)));
        }
    }
}

/// Libraries and dynamic loaders that files in a chroot need and that are not in it, each with the file that needs it.
#[must_use]
pub fn lacking(directory: &Path, files: Vec<PathBuf>) -> Vec<(String, PathBuf)> {
    let (mut ground, loader) = (Ground::default(), Loader::of(directory));
    let (mut seen, mut missing) = (BTreeSet::new(), Vec::new());
    let mut rest = files;
    while let Some(path) = rest.pop() {
        let real = ground.find(directory, &path).real.clone();
        if !is_plain_path(real.as_os_str().as_encoded_bytes()) || !seen.insert(real.clone()) {
            continue;
        }
        let Ok(Needs::Machine(machine)) = needs(&directory.join(real.strip_prefix("/").unwrap_or(&real)))
        else {
            continue;
        };
        let origin = real.parent().unwrap_or(Path::new("/"));
        for library in &machine.libraries {
            let found = loader.find(library, &machine, origin, &mut ground);
            if found.is_empty() {
                missing.push((library.clone(), real.clone()));
            }
            rest.extend(found);
        }
        let absent = |path: &&PathBuf| ground.find(directory, path).kind == Kind::Missing;
        if let Some(interpreter) = machine.interpreter.as_ref().filter(absent) {
            missing.push((interpreter.display().to_string(), real));
        }
    }
    missing
}
