//! What the modes keep from a site although its own file gives it. PHP, for one, says nothing of a directory of settings that it
//! may not read, and goes on without them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::policy::PathRule;

use super::compile::pasted;
use super::ground::{Found, Kind};

/// What is wrong with a path of root's, and what to do. `way`: the directories above count as well, which a view makes anew.
pub(super) fn told(found: &Found, rights: u8, user: &str, way: bool) -> Option<(String, String)> {
    if found.foreign.is_some() || !matches!(found.kind, Kind::Directory | Kind::File) {
        return None;
    }
    let (path, directory) = (&found.real, found.kind == Kind::Directory);
    let above = path.ancestors().skip(1).filter(|_| way);
    for closed in above.collect::<Vec<_>>().into_iter().rev() {
        if let Some(mode) = kept(closed, 1) {
            let message = format!("{} is closed ({mode:04o}), and {user} is to come by", closed.display());
            return Some((message, format!("run: chmod o+x {}", pasted(closed))));
        }
    }
    if rights & PathRule::WRITE != 0 {
        let mode = kept(path, 2)?;
        let message = format!("{} is root's ({mode:04o}): {user} may not write to it", path.display());
        return Some((message, format!("run: chown {user} {}", pasted(path))));
    }
    let mode = kept(path, if directory { 5 } else { 4 })?;
    let message = format!("{} is root's alone ({mode:04o}): {user} may not read it", path.display());
    Some((message, format!("run: chmod o+{} {}", if directory { "rx" } else { "r" }, pasted(path))))
}

/// The first file of settings that PHP would pass over in `directories`, the value of its PHP_INI_SCAN_DIR, and what to do.
pub(super) fn settings(directories: &str, user: &str) -> Option<(String, String)> {
    let directories = directories.split(':').map(Path::new).filter(|directory| directory.is_absolute());
    let entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let files =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "ini"));
    let (path, mode) = files.filter_map(|path| kept(&path, 4).map(|mode| (path, mode))).min()?;
    let message = format!(
        "{} is root's alone ({mode:04o}): {user}'s PHP goes on without it, and says nothing",
        path.display()
    );
    Some((message, format!("run: chmod o+r {}", pasted(&path))))
}

/// The mode of what is root's, and gives these bits neither to its group nor to others.
fn kept(path: &Path, want: u32) -> Option<u32> {
    let facts = std::fs::metadata(path).ok().filter(|facts| facts.uid() == 0)?;
    let mode = facts.mode() & 0o7777;
    (mode >> 3 & want != want && mode & want != want).then_some(mode)
}
