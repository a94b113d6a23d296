//! `uninstall`: takes away all that `install` and the installed programs made, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::install::{ACCOUNT, MADE, absolute, beneath, fresh};
use crate::manifest::{self, Entry, Kind};
use crate::{account, alternative, run, say, service, tree};

/// Where views are pinned: each is a mount.
const RUN: &str = "/run/cellwall";

/// `uninstall [--destdir DIR] [--keep-config]`
pub(crate) fn command(words: &[String]) -> Outcome {
    let (mut destdir, mut keep) = (PathBuf::new(), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep-config" => keep = true,
            "--destdir" => match words.next() {
                Some(directory) => destdir = absolute(directory)?,
                None => return Err("--destdir needs a directory.".to_owned()),
            },
            _ => return Err(format!("uninstall does not know {word:?}. See: cargo xtask help")),
        }
    }
    tree::need_root("uninstall")?;
    everything(&destdir, keep)
}

fn everything(destdir: &Path, keep: bool) -> Outcome {
    let here = destdir.as_os_str().is_empty();
    let place = if here { "this machine".to_owned() } else { destdir.display().to_string() };
    say::step(&format!("Removing Cellwall from {place}"));
    let notes = if here { fs::read_to_string(MADE).unwrap_or_default() } else { String::new() };
    if here {
        // First: what runs uses all that is removed from here on.
        service::stop()?;
        alternative::restore(notes.lines().find_map(|line| line.strip_prefix("apache ")).unwrap_or("auto"))?;
        unmount()?;
        control_groups()?;
    }
    for entry in manifest::read()?.iter().rev() {
        if keep && entry.kind.is_configuration() {
            continue;
        }
        let path = beneath(destdir, &entry.path);
        remove(entry, &path).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    if keep {
        say::note("/etc/cellwall stays");
    }
    let made = notes.lines().filter_map(|line| line.strip_prefix("made ")).map(PathBuf::from);
    let above: BTreeSet<PathBuf> = if here { made.collect() } else { parents(destdir)? };
    for directory in above.iter().rev() {
        // Somebody else's files may have come to live there; then it is theirs.
        drop(fs::remove_dir(directory));
    }
    if here {
        if notes.lines().any(|line| line == ACCOUNT) {
            account::remove();
        }
        service::reload()?;
    }
    Ok(())
}

fn remove(entry: &Entry, path: &Path) -> io::Result<()> {
    let gone = match entry.kind {
        Kind::Program | Kind::File | Kind::Config => {
            // Of an installation that was killed.
            drop(fs::remove_file(fresh(path)));
            fs::remove_file(path)
        }
        Kind::Tree | Kind::State | Kind::Settings => fs::remove_dir_all(path),
        Kind::Dir => fs::remove_dir(path),
    };
    match gone {
        Ok(()) => say::note(&format!("removed {}", path.display())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) if why.kind() == io::ErrorKind::DirectoryNotEmpty => {
            say::notice(&format!("{} holds files that are not ours and stays", path.display()));
        }
        Err(why) => return Err(why),
    }
    Ok(())
}

/// Views stay in use by the programs that run in them; only their names go.
fn unmount() -> Outcome {
    let points = mounts(|point, _| point.starts_with(RUN))?;
    for point in points.iter().rev() {
        run::quietly("umount", Command::new("umount").arg(point))?;
    }
    if !points.is_empty() {
        say::note(&format!("unmounted {} mounts of kept views", points.len()));
    }
    Ok(())
}

/// Sites' control groups, in each hierarchy. One in which a program still runs cannot go.
fn control_groups() -> Outcome {
    for hierarchy in mounts(|_, kind| kind == "cgroup" || kind == "cgroup2")? {
        let ours = hierarchy.join("cellwall");
        let at_the_top = directories(&hierarchy).filter(|path| is_at_the_top(path));
        for group in directories(&ours).chain([ours.clone()]).chain(at_the_top) {
            match fs::remove_dir(&group) {
                Ok(()) => say::note(&format!("removed {}", group.display())),
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => say::notice(&format!("{}: {why}; a site's program still runs", group.display())),
            }
        }
    }
    Ok(())
}

fn directories(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// `cellwall-1001-shop`: a site's group where version 1 divides the processors.
fn is_at_the_top(group: &Path) -> bool {
    let name =
        group.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("cellwall-"));
    name.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// Mount points, by themselves and the kind of what is mounted there (proc_pid_mountinfo(5)).
fn mounts(wanted: impl Fn(&Path, &str) -> bool) -> Outcome<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|why| format!("mountinfo: {why}"))?;
    let mut points = Vec::new();
    for line in text.lines() {
        let point = Path::new(line.split(' ').nth(4).unwrap_or_default());
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        if wanted(point, kind) {
            points.push(point.to_owned());
        }
    }
    Ok(points)
}

/// All directories above installed paths, beneath and including the destination.
fn parents(destdir: &Path) -> Outcome<BTreeSet<PathBuf>> {
    let entries = manifest::read()?;
    let paths = entries.iter().map(|entry| beneath(destdir, &entry.path));
    let above = paths.flat_map(|path| path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>());
    Ok(above.filter(|path| path.starts_with(destdir)).collect())
}
