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
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::config::store;
use crate::launch::jail;
use crate::policy::{Jail, VIEW_DIRECTORY, View, decode};
use crate::sys::fork::{Side, fork};
use crate::sys::{self, Root};

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

/// Makes the kept views those of the records of `uids`; of all records without, and then unwanted ones go.
///
/// # Errors
/// When a view cannot be built: its site would be refused as well. The other views are kept.
pub fn refresh(uids: Option<&BTreeSet<u32>>) -> io::Result<Refreshed> {
    let root = Root::claim()?.ok_or(Errno::EPERM)?;
    let all = store::uids();
    let mut done = Refreshed::default();
    let mut wanted = BTreeSet::new();
    let mut first_error = None;
    for uid in uids.unwrap_or(&all.into_iter().collect()) {
        let Some(bytes) = store::read(&uid.to_string()) else { continue };
        let Ok(record) = decode::record(&bytes) else { continue };
        for site in &record.sites {
            let Jail::View(view) = &site.jail else { continue };
            let name = format!("{:016x}-{:016x}", view.id, jail::stamp(view));
            if wanted.len() >= KEPT_MAX {
                done.left += 1;
                continue;
            }
            let file = Path::new(VIEW_DIRECTORY).join(&name);
            if wanted.insert(name) && !is_kept(&file) {
                match prepare().and_then(|()| keep(&root, view, &file)) {
                    Ok(()) => done.built += 1,
                    Err(error) => drop(first_error.get_or_insert(error)),
                }
            }
        }
    }
    if uids.is_none() {
        done.removed = drop_others(&wanted)?;
    }
    first_error.map_or(Ok(done), Err)
}

/// Lets go of every kept view, and of the file system that they lie on. Programs that run in them are not touched.
///
/// # Errors
/// Of umount2(2).
pub fn drop_all() -> io::Result<usize> {
    let count = drop_others(&BTreeSet::new())?;
    if is_mount_point(Path::new(VIEW_DIRECTORY)) {
        umount2(VIEW_DIRECTORY, MntFlags::MNT_DETACH)?;
    }
    Ok(count)
}

/// The names of the views that are kept.
#[must_use]
pub fn kept() -> Vec<String> {
    let entries = fs::read_dir(VIEW_DIRECTORY).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The file system for the files: mounts on it are not propagated, which the kernel asks for (mount_namespaces(7)).
fn prepare() -> io::Result<()> {
    let directory = Path::new(VIEW_DIRECTORY);
    if is_mount_point(directory) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let none = None::<&str>;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some("mode=755,size=4m"))?;
    mount(none, directory, none, MsFlags::MS_PRIVATE, none)?;
    Ok(())
}

/// The kernel keeps no namespace whose number is below the keeper's own (`mnt_ns_loop` in its fs/namespace.c), and since
/// Linux 6.18 each CPU gives out numbers of its own. So when it says no, other CPUs are tried; the keeper's own numbers
/// came from one of them. A host whose keeper lives in the first namespace never sees this.
fn keep(root: &Root, view: &View<'_>, file: &Path) -> io::Result<()> {
    let mut kept = keep_from(None, root, view, file);
    for cpu in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        match &kept {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                kept = keep_from(Some(cpu), root, view, file);
            }
            _ => break,
        }
    }
    kept
}

/// A child, on this CPU if one is named, builds the view and waits; its namespace is kept, and it ends.
fn keep_from(cpu: Option<usize>, root: &Root, view: &View<'_>, file: &Path) -> io::Result<()> {
    let (told, tell) = nix::unistd::pipe()?;
    let (wait, hold) = nix::unistd::pipe()?;
    match fork()? {
        Side::Child => {
            drop((told, hold));
            if let Some(cpu) = cpu {
                stay_on(cpu);
            }
            build_and_wait(root, view, tell, wait)
        }
        Side::Parent(child) => {
            drop((tell, wait));
            let mut answer = String::new();
            let read = File::from(told).read_to_string(&mut answer);
            let kept = match (read, answer.as_str()) {
                (Ok(_), BUILT) => pin(root, child, file),
                (Ok(_), why) => Err(io::Error::other(format!("a view cannot be built: {why}"))),
                (Err(error), _) => Err(error),
            };
            drop(hold);
            waitpid(child, None)?;
            kept
        }
    }
}

/// Best effort: without it the child may run on the same CPU again, and the caller hears of the failure.
fn stay_on(cpu: usize) {
    let mut one = CpuSet::new();
    let _ = one.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &one));
}

fn build_and_wait(root: &Root, view: &View<'_>, tell: OwnedFd, wait: OwnedFd) -> ! {
    let answer = match jail::build(root, view) {
        Ok(()) => BUILT.to_owned(),
        Err(refusal) => format!("{} ({})", refusal.why, refusal.card.code),
    };
    let mut tell = File::from(tell);
    let told = tell.write_all(answer.as_bytes());
    drop(tell);
    // Until the other side has kept the namespace and lets go of its end.
    let _ = File::from(wait).read(&mut [0]);
    std::process::exit(i32::from(told.is_err()))
}

fn pin(root: &Root, child: Pid, file: &Path) -> io::Result<()> {
    File::create(file)?;
    sys::mount::pin(root, child.as_raw(), file).map_err(|errno| {
        drop(fs::remove_file(file));
        io::Error::from(errno)
    })
}

fn drop_others(wanted: &BTreeSet<String>) -> io::Result<usize> {
    let mut count = 0;
    for name in kept().into_iter().filter(|name| !wanted.contains(name)) {
        let file: PathBuf = Path::new(VIEW_DIRECTORY).join(name);
        match umount2(&file, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        fs::remove_file(&file)?;
        count += 1;
    }
    Ok(count)
}

/// A file of this directory that no namespace is mounted on is left from a run that was killed.
fn is_kept(file: &Path) -> bool {
    nix::sys::statfs::statfs(file).is_ok_and(|facts| facts.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn is_mount_point(directory: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().any(|line| line.split(' ').nth(4).map(OsStr::new) == Some(directory.as_os_str()))
}

/// What a child says when all went well.
const BUILT: &str = "built";
