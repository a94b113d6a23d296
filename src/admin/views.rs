//! Prebuilt views: each is made once, by a child, and kept as a file, so that a launch enters it with one call.
//!
//! Root. The files lie on a small file system of their own whose mounts nobody else sees propagated. A view that is not
//! kept is built at each launch: slower, and the same.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::config::store;
use crate::launch::jail;
use crate::policy::{Jail, OBJECTS, VIEW_DIRECTORY, View, decode};
use crate::sys::Root;
use crate::sys::fork::{Side, fork};

/// Most views that are kept. Each holds some twenty mounts; beyond this a host is better served by building them.
pub const KEPT_MAX: usize = 2_000;

/// What a refresh did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Built now.
    pub built: usize,
    /// Not wanted any more.
    pub removed: usize,
    /// Left to be built at each launch.
    pub left: usize,
}

/// Some uids' views alone.
#[derive(Debug, Default)]
pub struct Part {
    uids: BTreeSet<u32>,
    /// How the names of those begin that they have had: no other uid has one of them.
    had: BTreeSet<String>,
}

impl Part {
    /// To be asked before their records change.
    pub fn of(uids: BTreeSet<u32>) -> Self {
        let mut had = BTreeSet::new();
        uids.iter().for_each(|uid| each(*uid, |view| had.extend([start(view)])));
        Self { uids, had }
    }
}

/// Makes the kept views those of the records, of all uids or of some. Unwanted ones go.
///
/// # Errors
/// When a view cannot be built: its site would be refused as well. The other views are kept.
pub fn refresh(some: Option<&Part>) -> io::Result<Refreshed> {
    let root = Root::claim()?.ok_or(Errno::EPERM)?;
    let uids = some.map_or_else(|| store::uids().into_iter().collect(), |some| some.uids.clone());
    let mut done = Refreshed::default();
    let mut wanted = BTreeSet::new();
    let mut first_error = None;
    let may_go = |name: &str| some.is_none_or(|some| some.had.iter().any(|start| name.starts_with(start)));
    let others = kept().iter().filter(|name| !may_go(name)).count();
    for uid in uids {
        each(uid, |view| {
            let name = format!("{}{:016x}", start(view), jail::stamp(view));
            let file = Path::new(VIEW_DIRECTORY).join(&name);
            if !wanted.contains(&name) && !is_kept(&file) {
                if wanted.len().saturating_add(others) >= KEPT_MAX {
                    done.left += 1;
                    return;
                }
                match prepare().and_then(|()| keep(&root, view, &file)) {
                    Ok(()) => done.built += 1,
                    Err(error) => drop(first_error.get_or_insert(error)),
                }
            }
            wanted.insert(name);
        });
    }
    done.removed = drop_all_but(|name| wanted.contains(name) || !may_go(name))?;
    first_error.map_or(Ok(done), Err)
}

/// The views of a uid's record.
fn each(uid: u32, mut tell: impl FnMut(&View<'_>)) {
    let Some(bytes) = store::read(&uid.to_string()) else { return };
    let Ok(record) = decode::record(&bytes) else { return };
    for site in &record.sites {
        if let Jail::View(view) = &site.jail {
            tell(view);
        }
    }
}

/// How the name of a kept view begins.
fn start(view: &View<'_>) -> String {
    format!("{:016x}-", view.id)
}

/// Lets go of every kept view, and of the file system that they lie on. Programs that run in them are not touched.
///
/// # Errors
/// Of umount2(2).
pub fn drop_all() -> io::Result<usize> {
    let count = drop_all_but(|_| false)?;
    if is_mount_point(Path::new(VIEW_DIRECTORY)) {
        umount2(VIEW_DIRECTORY, MntFlags::MNT_DETACH)?;
    }
    Ok(count)
}

/// The names of the views that are kept.
#[must_use]
pub fn kept() -> Vec<String> {
    files().into_iter().filter(|name| !name.ends_with(OBJECTS)).collect()
}

/// Two for each view.
fn files() -> Vec<String> {
    let entries = fs::read_dir(VIEW_DIRECTORY).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The second file of a view.
fn objects(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(OBJECTS);
    name.into()
}

/// The file system for the files: mounts on it are not propagated, which the kernel asks for (mount_namespaces(7)). Nobody but
/// root opens one: who holds a namespace keeps it, and all that is mounted in it, for as long as he likes.
fn prepare() -> io::Result<()> {
    let directory = Path::new(VIEW_DIRECTORY);
    if is_mount_point(directory) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let none = None::<&str>;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some("mode=700,size=4m"))?;
    mount(none, directory, none, MsFlags::MS_PRIVATE, none)?;
    Ok(())
}

/// Keeps a view. A namespace can only be mounted in an older one (fs/namespace.c, `mnt_ns_loop`: EINVAL), and new
/// kernels (seen: 6.18) number namespaces in batches, one a processor: made on another processor than ours was, a
/// namespace can be younger and pass for older. Each processor gets its turn then.
fn keep(root: &Root, view: &View<'_>, file: &Path) -> io::Result<()> {
    let mut kept = keep_on(root, view, file, None);
    let invalid =
        |kept: &io::Result<()>| kept.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL));
    if invalid(&kept) {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut processors = (0..CpuSet::count()).filter(|number| allowed.is_set(*number) == Ok(true));
        while let (true, Some(processor)) = (invalid(&kept), processors.next()) {
            kept = keep_on(root, view, file, Some(processor));
        }
    }
    kept.map_err(|error| io::Error::new(error.kind(), format!("a view is not kept: {error}")))
}

/// A child builds the view and waits; its namespace is kept, and it ends.
fn keep_on(root: &Root, view: &View<'_>, file: &Path, processor: Option<usize>) -> io::Result<()> {
    let (told, tell) = nix::unistd::pipe()?;
    let (wait, hold) = nix::unistd::pipe()?;
    match fork()? {
        Side::Child => {
            drop((told, hold));
            build_and_wait(root, view, processor, tell, wait)
        }
        Side::Parent(child) => {
            drop((tell, wait));
            let mut answer = String::new();
            let read = File::from(told).read_to_string(&mut answer);
            let kept = match (read, answer.as_str()) {
                (Ok(_), BUILT) => pin(child, file),
                (Ok(_), why) => Err(io::Error::other(format!("it cannot be built: {why}"))),
                (Err(error), _) => Err(error),
            };
            drop(hold);
            waitpid(child, None)?;
            kept
        }
    }
}

/// The child's own affair: it ends when its view is kept.
fn stay_on(processor: usize) -> Result<(), Errno> {
    let mut alone = CpuSet::new();
    alone.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &alone)
}

fn build_and_wait(root: &Root, view: &View<'_>, processor: Option<usize>, tell: OwnedFd, wait: OwnedFd) -> ! {
    let answer = match (processor.map_or(Ok(()), stay_on), jail::build(root, view)) {
        (Ok(()), Ok(())) => BUILT.to_owned(),
        (Err(errno), _) => errno.desc().to_owned(),
        (_, Err(refusal)) => format!("{} ({})", refusal.why, refusal.card.code),
    };
    let mut tell = File::from(tell);
    let told = tell.write_all(answer.as_bytes());
    drop(tell);
    // Until the other side has kept the namespace and lets go of its end.
    let _ = File::from(wait).read(&mut [0]);
    std::process::exit(i32::from(told.is_err()))
}

/// Keeps the namespaces of a process at its two files, which lie on a mount of their own.
fn pin(child: Pid, file: &Path) -> io::Result<()> {
    let (objects, none) = (objects(file), None::<&str>);
    let both = [("ipc", objects.as_path()), ("mnt", file)];
    let pinned = both.iter().try_for_each(|(which, file)| {
        let_go(file)?;
        File::create(file)?;
        let namespace = format!("/proc/{child}/ns/{which}");
        Ok(mount(Some(namespace.as_str()), *file, none, MsFlags::MS_BIND, none)?)
    });
    if pinned.is_err() {
        both.iter().for_each(|(_, file)| drop(let_go(file)));
    }
    pinned
}

fn drop_all_but(stays: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut count = 0;
    for name in files().into_iter().filter(|name| !stays(name.trim_end_matches(OBJECTS))) {
        let_go(&Path::new(VIEW_DIRECTORY).join(&name))?;
        count += usize::from(!name.ends_with(OBJECTS));
    }
    Ok(count)
}

/// Removes a file, and what is mounted on it.
fn let_go(file: &Path) -> io::Result<()> {
    match umount2(file, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL) => Ok(fs::remove_file(file)?),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A file of this directory that no namespace is mounted on is left from a run that was killed.
fn is_kept(file: &Path) -> bool {
    let magic = nix::sys::statfs::NSFS_MAGIC;
    let is_one =
        |file: &Path| nix::sys::statfs::statfs(file).is_ok_and(|facts| facts.filesystem_type() == magic);
    is_one(file) && is_one(&objects(file))
}

fn is_mount_point(directory: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().any(|line| line.split(' ').nth(4).map(OsStr::new) == Some(directory.as_os_str()))
}

/// What a child says when all went well.
const BUILT: &str = "built";
