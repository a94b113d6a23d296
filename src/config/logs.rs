//! Logs that root opens by their paths: whoever could put another file or a link on the way would have root write there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cell::HostCell;
use super::compile::{Compiler, pasted};
use super::ground::{Found, Ground, Kind, is_everybodys};
use super::problem::{Place, Problems};
use super::store;

/// `log.file`. Its directory is made by `apply` where there is none.
pub(super) fn host(host: &HostCell, place: Option<&Place>, problems: &Problems) {
    let way = way(&mut Ground::default(), &host.log_file);
    if let Some((what, help)) = astray(&way, host.gid_min).or_else(|| unfit(&host.log_file)) {
        problems.error(place, format!("log.file: {what}"), help);
    }
}

/// A log of a pool, which the daemon opens.
pub(super) fn pool(compiler: &mut Compiler<'_>, path: &Path, place: &Place, key: &str) {
    let way = way(&mut compiler.ground, path);
    let problems = &compiler.problems;
    if let Some((what, help)) = astray(&way, compiler.host.gid_min).or_else(|| unfit(path)) {
        problems.error(Some(place), format!("{key}: {what}"), help);
    } else if way.kind == Kind::Missing {
        let message = format!("{key}: {} does not exist, and nothing is written", way.real.display());
        let help = format!("make it: install -d -o root -g adm -m 0750 {}", pasted(&way.real));
        problems.warning(Some(place), message, help);
    }
}

fn way(ground: &mut Ground, file: &Path) -> std::sync::Arc<Found> {
    ground.find(Path::new("/"), file.parent().unwrap_or(Path::new("/")))
}

/// What is wrong with the way to a log, and what to do about it.
fn astray(way: &Found, gid_min: u32) -> Option<(String, String)> {
    let other = "name a file that only root can reach, as /var/log/cellwall/cellwall.log is";
    if let Some((top, owner)) = &way.foreign {
        let what = format!("{} belongs to uid {owner}, who could lead it elsewhere", top.display());
        // What is a site's is no place for a log, and stays its.
        let help = match store::is_known(*owner) || *owner >= gid_min {
            true => other.to_owned(),
            false => format!("run: chown root {} # or {other}", pasted(top)),
        };
        return Some((what, help));
    }
    if !matches!(way.kind, Kind::Directory | Kind::Missing | Kind::Hidden) {
        return Some((format!("{} is no directory", way.real.display()), "name another file".to_owned()));
    }
    let links = way.links.iter().filter_map(|(link, _)| link.parent());
    let (directory, mode) =
        links.chain([way.real.as_path()]).flat_map(Path::ancestors).find_map(|above| open(above, gid_min))?;
    let what = format!(
        "others than root may write to {} (mode {mode:04o}) and lead it elsewhere",
        directory.display()
    );
    let help = match is_everybodys(&directory) {
        true => other.to_owned(),
        false => format!("run: chmod go-w {} # or {other}", pasted(&directory)),
    };
    Some((what, help))
}

/// A directory that others may write to, and its mode. A group of the host's own, such as Ubuntu's syslog in /var/log, is no
/// site's.
fn open(directory: &Path, gid_min: u32) -> Option<(PathBuf, u32)> {
    let facts = std::fs::symlink_metadata(directory).ok()?;
    let group = facts.mode() & 0o020 != 0 && facts.gid() >= gid_min;
    (group || facts.mode() & 0o002 != 0).then(|| (directory.to_owned(), facts.mode() & 0o7777))
}

/// What stands in the place of a log and is none.
fn unfit(file: &Path) -> Option<(String, String)> {
    let facts = std::fs::symlink_metadata(file).ok()?;
    if facts.is_dir() {
        return Some((format!("{} is a directory", file.display()), "name a file in it".to_owned()));
    }
    (!facts.is_file() || facts.uid() != 0).then(|| {
        let what = format!("{} is no plain file of root's, and nothing is written to it", file.display());
        (what, format!("move it away: mv {0} {0}.old", pasted(file)))
    })
}
