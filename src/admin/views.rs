//! Prebuilt views: each is made once, by a child, and kept as a file, so that a launch enters it with one call.
//!
//! Root. The files lie on a small file system of their own whose mounts nobody else sees propagated. A view that is not
//! kept is built at each launch: slower, and the same.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::stat::{Mode, fstat};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::config::store;
use crate::launch::jail;
use crate::policy::{Jail, OBJECTS, VIEW_DIRECTORY, View, decode};
use crate::refusal::Untrusted;
use crate::sys::fork::{self, Side, fork};
use crate::sys::{self, Root};

/// Most views that are kept. Each holds some twenty mounts; beyond this a host is better served by building them.
pub const KEPT_MAX: usize = 2_000;

/// What a refresh did.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// Built now.
    pub built: usize,
    /// Not wanted any more.
    pub removed: usize,
    /// Left to be built at each launch.
    pub left: usize,
    /// None can be kept in a chroot.
    pub in_chroot: bool,
    /// Views that could not be kept.
    pub failed: Vec<Failed>,
}

/// A view that could not be kept.
#[derive(Debug)]
pub struct Failed {
    /// The site that it is of.
    pub site: String,
    /// Why.
    pub why: Failure,
}

/// Why a view could not be kept.
#[derive(Debug)]
pub enum Failure {
    /// It cannot be built, and neither can a launch.
    Refused(String),
    /// It can be built, as far as is known, and not be kept.
    Unkept(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unkept(error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Unkept(errno.into())
    }
}

impl Failure {
    fn is(&self, kind: io::ErrorKind) -> bool {
        matches!(self, Self::Unkept(error) if error.kind() == kind)
    }
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
        uids.iter().for_each(|uid| each(*uid, |_, view| had.extend([start(view)])));
        Self { uids, had }
    }
}

/// Makes the kept views those of the records, of all uids or of some. Unwanted ones go.
///
/// # Errors
/// When what is not wanted cannot be removed. A view that cannot be kept is told in the result, and the others are.
pub fn refresh(some: Option<&Part>) -> io::Result<Refreshed> {
    let root = Root::claim()?.ok_or(Errno::EPERM)?;
    let uids = some.map_or_else(|| store::uids().into_iter().collect(), |some| some.uids.clone());
    let mut done = Refreshed { in_chroot: !is_at_top(&root)?, ..Refreshed::default() };
    let mut wanted = BTreeSet::new();
    let may_go = |name: &str| some.is_none_or(|some| some.had.iter().any(|start| name.starts_with(start)));
    let others = kept().iter().filter(|name| !may_go(name)).count();
    for uid in uids {
        each(uid, |site, view| {
            if done.in_chroot {
                // The first one tells whether a launch can build any.
                let built = if done.left == 0 { keep_on(&root, view, None, None) } else { Ok(()) };
                done.failed.extend(built.err().map(|why| Failed { site: Untrusted(site).to_string(), why }));
                done.left += 1;
                return;
            }
            let name = format!("{}{:016x}", start(view), jail::stamp(view));
            let file = Path::new(VIEW_DIRECTORY).join(&name);
            if !wanted.contains(&name) && !is_kept(&file) {
                // Whatever one waited for, the next one may wait for as well.
                let late = done.failed.last().is_some_and(|last| last.why.is(io::ErrorKind::TimedOut));
                if late || wanted.len().saturating_add(others) >= KEPT_MAX {
                    done.left += 1;
                    return;
                }
                match prepare().map_err(Failure::from).and_then(|()| keep(&root, view, &file)) {
                    Ok(()) => done.built += 1,
                    Err(why) => done.failed.push(Failed { site: Untrusted(site).to_string(), why }),
                }
            }
            wanted.insert(name);
        });
    }
    done.removed = drop_all_but(|name| wanted.contains(name) || !may_go(name))?;
    Ok(done)
}

/// The sites of a uid's record that have a view, and their views.
fn each(uid: u32, mut tell: impl FnMut(&[u8], &View<'_>)) {
    let Some(bytes) = store::read(&uid.to_string()) else { return };
    let Ok(record) = decode::record(&bytes) else { return };
    for site in &record.sites {
        if let Jail::View(view) = &site.jail {
            tell(site.name, view);
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

/// Whether our root is that of our namespace. It is not in a chroot, and there the same holds of a view: its root is what the
/// builder changed, and whoever enters its namespace comes out at the namespace's own, which is the outer host's (setns(2)).
fn is_at_top(root: &Root) -> io::Result<bool> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let (ours, processes) =
        (open("/", flags, Mode::empty())?, open("/proc", flags | OFlag::O_DIRECTORY, Mode::empty())?);
    let namespace = open("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // Equal numbers of files say nothing: the chroot may be a bind mount of the same directory.
    let mount_of = |held: &OwnedFd| -> io::Result<Option<String>> {
        let path = format!("self/fdinfo/{}", held.as_raw_fd());
        let mut text = String::new();
        File::from(openat(&processes, path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
            .read_to_string(&mut text)?;
        Ok(text.lines().find(|line| line.starts_with("mnt_id:")).map(str::to_owned))
    };
    let is_same = || -> io::Result<bool> {
        sys::mount::enter(root, &namespace, CloneFlags::CLONE_NEWNS)?;
        let top = open("/", flags, Mode::empty())?;
        let same = fstat(&ours)?.st_ino == fstat(&top)?.st_ino;
        Ok(same && mount_of(&ours)?.is_some_and(|ours| mount_of(&top).ok().flatten() == Some(ours)))
    };
    let (told, tell) = nix::unistd::pipe()?;
    match fork()? {
        Side::Child => {
            // Who may enter no namespace may make none either, and is told so.
            let top = is_same().unwrap_or_else(|error| error.kind() == io::ErrorKind::PermissionDenied);
            let told = File::from(tell).write_all(if top { TOP } else { BELOW }.as_bytes());
            fork::leave(told.is_err().into())
        }
        Side::Parent(child) => {
            drop(tell);
            let top = answer(told, child)? == TOP;
            end(child)?;
            Ok(top)
        }
    }
}

/// What the child of [`is_at_top`] says.
const TOP: &str = "top";
const BELOW: &str = "below";

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
fn keep(root: &Root, view: &View<'_>, file: &Path) -> Result<(), Failure> {
    let mut kept = keep_on(root, view, Some(file), None);
    let invalid =
        |kept: &Result<(), Failure>| kept.as_ref().is_err_and(|why| why.is(io::ErrorKind::InvalidInput));
    if invalid(&kept) {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut processors = (0..CpuSet::count()).filter(|number| allowed.is_set(*number) == Ok(true));
        while let (true, Some(processor)) = (invalid(&kept), processors.next()) {
            kept = keep_on(root, view, Some(file), Some(processor));
        }
    }
    kept
}

/// A child builds the view and waits; its namespace is kept, if it is to be, and it ends.
fn keep_on(
    root: &Root,
    view: &View<'_>,
    file: Option<&Path>,
    processor: Option<usize>,
) -> Result<(), Failure> {
    let (told, tell) = nix::unistd::pipe()?;
    let (wait, hold) = nix::unistd::pipe()?;
    match fork()? {
        Side::Child => {
            drop((told, hold));
            build_and_wait(root, view, processor, tell, wait)
        }
        Side::Parent(child) => {
            drop((tell, wait));
            let kept = match answer(told, child)?.as_str() {
                BUILT => file.map_or(Ok(()), |file| pin(child, file)).map_err(Failure::from),
                why => Err(why.strip_prefix(UNBUILT).map_or_else(
                    || Failure::Refused(why.to_owned()),
                    |why| Failure::Unkept(io::Error::other(why.to_owned())),
                )),
            };
            drop(hold);
            end(child)?;
            kept
        }
    }
}

/// What the child says, which is at most a line. It looks at paths of the host, and a file system that does not answer, or a
/// hand that stops it, must not hold up all sites: then it is ended, and who waits for it is told.
fn answer(told: OwnedFd, child: Pid) -> io::Result<String> {
    let (end_at, mut answer) = (Instant::now() + LONGEST, String::new());
    loop {
        let left = end_at.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        match poll(&mut [PollFd::new(told.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(0) => break,
            // All that it says comes in one piece, and then the end.
            Ok(_) => {
                File::from(told).read_to_string(&mut answer)?;
                return Ok(answer);
            }
        }
    }
    let message = format!("its child did not answer within {} s: {}", LONGEST.as_secs(), state(child));
    let held = fork::hold(child)?;
    fork::end(&held)?;
    end(child)?;
    Err(io::Error::new(io::ErrorKind::TimedOut, message))
}

/// What a process that does not answer is at, for whoever has to find out why.
fn state(child: Pid) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{child}/{name}")).unwrap_or_default();
    let status = read("status");
    let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("-").trim();
    let waits = read("wchan");
    format!("state {state}, waiting in {}", if waits.len() > 1 { waits.as_str() } else { "nothing" })
}

/// Reaps the child, which has nothing more to do; one that does not end is ended, and one that even so stays is left to
/// init.
fn end(child: Pid) -> Result<(), Errno> {
    let held = fork::hold(child)?;
    if !fork::ends_within(&held, Duration::from_secs(1))? {
        fork::end(&held)?;
        fork::ends_within(&held, Duration::from_secs(1))?;
    }
    waitpid(child, Some(WaitPidFlag::WNOHANG)).map(drop)
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
        (Err(errno), _) => format!("{UNBUILT}{}", errno.desc()),
        (_, Err(refusal)) => refusal.why,
    };
    let mut tell = File::from(tell);
    let told = tell.write_all(answer.as_bytes());
    drop(tell);
    // Until the other side has kept the namespace and lets go of its end.
    let _ = File::from(wait).read(&mut [0]);
    fork::leave(told.is_err().into())
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
/// How what it says begins when a launch, which begins otherwise, would not be refused.
const UNBUILT: &str = "unbuilt: ";
/// A view takes some milliseconds, and a launch that builds one has five seconds.
const LONGEST: Duration = Duration::from_secs(10);
