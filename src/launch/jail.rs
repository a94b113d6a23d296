//! Into the site's private part of the file system.
//!
//! Root. What is mounted is held by descriptor after a walk in which every directory was root's; only the last component
//! may be the site's. The place where it goes is opened beneath the new root, and made only on the view's own, empty
//! file system. After the root has changed nothing is opened any more before the drop.
//!
//! Refuses with C05 (chroot) and C06 (view).

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, ResolveFlag};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, mkdirat};
use nix::unistd::{chroot, fchdir, symlinkat};

use crate::policy::decode::checksum;
use crate::policy::{Jail, MEMORY, OBJECTS, Step, StepKind, VIEW_DIRECTORY, VIEW_ROOT, View};
use crate::refusal::{Card, Refusal};
use crate::sys::{Root, files, mount};

use super::authorize::is_beneath;

/// Where we are now.
#[derive(Debug, Clone, Copy)]
pub struct Inside<'a> {
    kind: &'static str,
    /// What was cut from the host's paths; empty: nothing.
    cut: &'a [u8],
    /// It was entered before the program was known: nothing of the host is held any more.
    settled: bool,
}

impl<'a> Inside<'a> {
    /// For the record.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind
    }

    /// A path of the host's, as it is called in here. A chroot either holds the site at the same path (a bind mount of
    /// the administrator's) or is a directory above the site; the walk proves which.
    #[must_use]
    pub fn path<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        if self.cut.is_empty() || !is_beneath(path, self.cut) {
            return path;
        }
        match path.get(self.cut.len()..) {
            Some([]) | None => b"/",
            Some(rest) => rest,
        }
    }

    /// The directories above the site are not those of the host, whose working directory is still held.
    #[must_use]
    pub fn hides_host(&self) -> bool {
        self.kind != HOST && !self.settled
    }

    /// From now on requests come from inside.
    #[cfg(feature = "pool")]
    pub(super) fn settle(self) -> Self {
        Self { settled: true, ..self }
    }

    /// A path in here, as the host calls it, where the host's has more in front: the other way of [`Self::path`].
    #[cfg(feature = "pool")]
    pub(super) fn outside(&self, path: &[u8]) -> Vec<u8> {
        let path = if path == b"/" { b"" } else { path };
        [self.cut, path].concat()
    }

    /// `cut`: what the host's paths have in front and the jail's have not; empty: nothing.
    pub(crate) fn new(kind: &'static str, cut: &'a [u8]) -> Self {
        Self { kind, cut, settled: false }
    }
}

/// Enters the jail of a site.
///
/// # Errors
/// As the module says. Never a weaker jail instead.
pub fn enter<'a>(root: &Root, jail: &Jail<'a>) -> Result<Inside<'a>, Refusal> {
    match jail {
        Jail::Host => Ok(Inside::new(HOST, b"")),
        Jail::Chroot(directory) => enter_chroot(directory).map(|()| Inside::new("chroot", directory)),
        Jail::View(view) => {
            enter_view(root, view).map(|pinned| Inside::new(if pinned { "view" } else { "view-built" }, b""))
        }
    }
}

/// The directory and all above it are root's, and nobody else can write them (CVE-2025-32463; vsftpd refuses a writable
/// root as well).
fn enter_chroot(directory: &[u8]) -> Result<(), Refusal> {
    let refuse = |why: &str| Refusal::about(&CHROOT, directory, why);
    let (held, _) = hold_roots(directory, 0).map_err(|(path, why)| Refusal::about(&CHROOT, &path, &why))?;
    fchdir(&held).map_err(|errno| refuse(errno.desc()))?;
    chroot(c".").map_err(|errno| refuse(errno.desc()))?;
    nix::unistd::chdir(c"/").map_err(|errno| refuse(errno.desc()))
}

/// `true`: a pinned view was entered; `false`: it was built here and now.
fn enter_view(root: &Root, view: &View<'_>) -> Result<bool, Refusal> {
    let name = format!("{VIEW_DIRECTORY}/{:016x}-{:016x}", view.id, stamp(view));
    match enter_kept(root, AT_FDCWD, &name, ResolveFlag::empty()) {
        Ok(()) => Ok(true),
        // Not kept, no namespace, or the host has changed since: the view is built, which costs time and nothing else.
        Err(Errno::ENOENT | Errno::EINVAL) if enter_hosts(root, &name) => Ok(true),
        Err(Errno::ENOENT | Errno::EINVAL) => build(root, view).map(|()| false),
        Err(errno) => Err(step_failed(name.as_bytes(), errno)),
    }
}

/// A web server whose unit has mounts of its own (Debian's: `PrivateTmp=yes`) has no file of a kept view: the kernel copies none
/// into another namespace. The first process is in the one that `cellwall apply` ran in. Whatever fails, the view is built.
fn enter_hosts(root: &Root, name: &str) -> bool {
    let Some(name) = name.strip_prefix('/') else { return false };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(host) = nix::fcntl::open(c"/proc/1/root", flags, Mode::empty()) else { return false };
    enter_kept(root, &host, name, ResolveFlag::RESOLVE_BENEATH).is_ok()
}

/// Both namespaces of a kept view: its mounts, and its objects of System V and message queues, of which the host has so many for
/// all: in the host's own, one site could use up what the databases need, and it would stay so.
fn enter_kept(root: &Root, place: impl AsFd + Copy, name: &str, more: ResolveFlag) -> Result<(), Errno> {
    let open = |name: &str| files::open_plain(place, name.as_bytes(), OFlag::O_RDONLY, more);
    let (mounts, objects) = (open(name)?, open(&[name, OBJECTS].concat())?);
    mount::enter(root, &objects, CloneFlags::CLONE_NEWIPC)?;
    mount::enter(root, &mounts, CloneFlags::CLONE_NEWNS)
}

/// Tells a kept view whose files have been replaced on the host since, as editors and packages do: a bind mount keeps the
/// old inode. What is in a bound directory is always today's; the directory itself may be another one, where a service
/// makes it at each start (/run/mysqld), a deploy a new docroot, or the administrator mounts another volume there. Looks only at
/// entries of root's directories. Numbers are enough: what a kept view has bound is held by it, so that no new file is given its
/// number on that device, nor another volume the device's.
#[must_use]
pub fn stamp(view: &View<'_>) -> u64 {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
    let mut numbers = Vec::new();
    for step in stamped(view) {
        let facts = fstatat(AT_FDCWD.as_fd(), step.source, flags);
        let (device, inode) = facts.map_or((0, 0), |facts| (facts.st_dev, facts.st_ino));
        numbers.extend_from_slice(&device.to_le_bytes());
        numbers.extend_from_slice(&inode.to_le_bytes());
    }
    checksum(&numbers)
}

/// The steps whose sources [`stamp`] looks at.
pub fn stamped<'v>(view: &'v View<'_>) -> impl Iterator<Item = &'v Step<'v>> {
    view.steps.iter().filter(|step| {
        let changeable = step.flags & (Step::SITE | Step::OPTIONAL) != 0;
        // A device is its numbers, wherever its node lies.
        let device = step.flags & Step::NO_DEVICES == 0;
        step.kind == StepKind::BindFile && !device || step.kind == StepKind::BindDirectory && changeable
    })
}

/// Makes the view in namespaces of this process's own, and enters it.
///
/// # Errors
/// C06.
pub fn build(root: &Root, view: &View<'_>) -> Result<(), Refusal> {
    let failed = |errno| step_failed(VIEW_ROOT.as_bytes(), errno);
    mount::leave_host(root).map_err(failed)?;
    for (file, most) in OBJECTS_MOST {
        // Where a unit or a container has no /proc/sys the kernel's own limits hold, for this view alone.
        let _ = files::write(file, most);
    }
    hold_roots(VIEW_ROOT.as_bytes(), 0).map_err(|(path, why)| Refusal::about(&VIEW, &path, &why))?;
    let place = CString::new(VIEW_ROOT).map_err(|_| failed(Errno::EINVAL))?;
    mount::memory(root, &place, c"mode=755,size=1m", MsFlags::MS_NOEXEC).map_err(failed)?;
    let top = files::hold(AT_FDCWD, VIEW_ROOT.as_bytes(), ResolveFlag::empty()).map_err(failed)?;
    let builder = Builder { root, device: fstat(&top).map_err(failed)?.st_dev, top };
    for step in &view.steps {
        match builder.step(step) {
            Err(Halt(_, why)) if why.is_missing && step.flags & Step::OPTIONAL != 0 => {}
            Err(Halt(path, why)) => return Err(Refusal::about(&VIEW, &path, &why.text)),
            Ok(()) => {}
        }
    }
    fchdir(&builder.top).map_err(failed)?;
    mount::change_root_here(root).map_err(failed)?;
    // Only now: until here its directories were being made.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC;
    mount::memory(root, c"/", c"mode=755,size=1m", flags).map_err(failed)
}

/// A view under construction.
struct Builder<'a> {
    root: &'a Root,
    top: OwnedFd,
    /// The device of the view's own file system: only there something may be made.
    device: libc::dev_t,
}

/// What stopped a step: the path, and why.
struct Halt(Vec<u8>, Why);

struct Why {
    text: String,
    is_missing: bool,
}

impl Halt {
    fn errno(path: &[u8], errno: Errno) -> Self {
        Self(path.to_vec(), Why { text: errno.desc().to_owned(), is_missing: errno == Errno::ENOENT })
    }
}

impl Builder<'_> {
    fn step(&self, step: &Step<'_>) -> Result<(), Halt> {
        let target = step.target;
        let at = |errno| Halt::errno(target, errno);
        match step.kind {
            StepKind::Directory => self.directory(target).map(drop),
            StepKind::Link => {
                let (parent, name) = self.parent(target)?;
                symlinkat(step.source, &parent, name).map_err(at)
            }
            StepKind::Memory => {
                self.directory(target)?;
                let flags =
                    if step.flags & Step::NO_EXEC == 0 { MsFlags::empty() } else { MsFlags::MS_NOEXEC };
                mount::memory(self.root, &outside(target)?, MEMORY, flags).map_err(at)
            }
            StepKind::Processes => {
                self.directory(target)?;
                mount::processes(self.root, &outside(target)?).map_err(at)
            }
            StepKind::BindDirectory | StepKind::BindFile => self.bind(step),
        }
    }

    fn bind(&self, step: &Step<'_>) -> Result<(), Halt> {
        let deeper = step.flags & Step::DEEPER != 0;
        let wanted = if deeper { step.target } else { step.source };
        let (source, reached) = hold_roots(wanted, step.flags).map_err(|(path, text)| {
            let is_missing = text == Errno::ENOENT.desc();
            Halt(path, Why { text, is_missing })
        })?;
        let at = |errno| Halt::errno(step.source, errno);
        let is_directory = fstat(&source).map_err(at)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let target = if deeper { &reached } else { step.target };
        let target = if is_directory { self.directory(target)? } else { self.file(target)? };
        let copied = mount::copy(self.root, &source, is_directory).map_err(at)?;
        mount::restrict(self.root, &copied, attributes(step.flags), is_directory).map_err(at)?;
        mount::attach(self.root, &copied, &target).map_err(|errno| Halt::errno(step.target, errno))
    }

    /// The directory at `path` of the view, made where it is missing.
    fn directory(&self, path: &[u8]) -> Result<OwnedFd, Halt> {
        let mut here = self.top.try_clone().map_err(|_| Halt::errno(path, Errno::EMFILE))?;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            here = match files::hold(&here, part, ResolveFlag::RESOLVE_BENEATH) {
                Err(Errno::ENOENT) => {
                    self.own(&here, path)?;
                    mkdirat(&here, part, Mode::from_bits_truncate(0o755))
                        .map_err(|errno| Halt::errno(path, errno))?;
                    files::hold(&here, part, ResolveFlag::RESOLVE_BENEATH)
                }
                other => other,
            }
            .map_err(|errno| Halt::errno(path, errno))?;
        }
        Ok(here)
    }

    /// An empty file at `path` of the view, to mount on.
    fn file(&self, path: &[u8]) -> Result<OwnedFd, Halt> {
        let (parent, name) = self.parent(path)?;
        let at = |errno| Halt::errno(path, errno);
        match files::hold(&parent, name, ResolveFlag::RESOLVE_BENEATH) {
            Err(Errno::ENOENT) => {
                self.own(&parent, path)?;
                let flags =
                    OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
                nix::fcntl::openat(&parent, name, flags, Mode::from_bits_truncate(0o444))
                    .map(drop)
                    .map_err(at)?;
                files::hold(&parent, name, ResolveFlag::RESOLVE_BENEATH).map_err(at)
            }
            other => other.map_err(at),
        }
    }

    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), Halt> {
        let (parent, name) = split(path).ok_or_else(|| Halt::errno(path, Errno::EINVAL))?;
        Ok((self.directory(parent)?, name))
    }

    /// Nothing is made in a directory that was mounted: it may be the site's.
    fn own(&self, directory: &OwnedFd, path: &[u8]) -> Result<(), Halt> {
        let facts = fstat(directory).map_err(|errno| Halt::errno(path, errno))?;
        if facts.st_dev == self.device { Ok(()) } else { Err(Halt::errno(path, Errno::ENOENT)) }
    }
}

/// How a target is called before the root changes. Its parents are the view's own.
fn outside(target: &[u8]) -> Result<CString, Halt> {
    CString::new([VIEW_ROOT.as_bytes(), target].concat()).map_err(|_| Halt::errno(target, Errno::EINVAL))
}

fn attributes(flags: u8) -> u64 {
    let pairs = [
        (Step::READ_ONLY, libc::MOUNT_ATTR_RDONLY),
        (Step::NO_DEVICES, libc::MOUNT_ATTR_NODEV),
        (Step::NO_EXEC, libc::MOUNT_ATTR_NOEXEC),
        (Step::NO_SET_ID, libc::MOUNT_ATTR_NOSUID),
    ];
    pairs.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, attribute)| all | attribute)
}

/// Walks to `path` over directories of root's that nobody else can write. `flags`: with [`Step::SITE`] the last component may be
/// anybody's, but no link, and with [`Step::DEEPER`] the walk ends at the first that is not root's. Second: how far it went. On
/// failure the path that stopped it, and why.
fn hold_roots(path: &[u8], flags: u8) -> Result<(OwnedFd, Vec<u8>), (Vec<u8>, String)> {
    let mut so_far: Vec<u8> = Vec::with_capacity(path.len());
    let mut here = files::hold_root().map_err(|errno| (b"/".to_vec(), errno.desc().to_owned()))?;
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        so_far.push(b'/');
        so_far.extend(part);
        here = files::hold(&here, part, ResolveFlag::empty())
            .map_err(|errno| (so_far.clone(), errno.desc().to_owned()))?;
        let facts = fstat(&here).map_err(|errno| (so_far.clone(), errno.desc().to_owned()))?;
        if flags & Step::DEEPER != 0 && facts.st_uid != 0 {
            break;
        }
        if parts.peek().is_some() || flags & Step::SITE == 0 {
            roots_alone(&facts).map_err(|why| (so_far.clone(), why))?;
        }
    }
    Ok((here, so_far))
}

/// A sticky directory of root's (/tmp) is no exception: what lies in it may be anybody's. A device may be written by all.
fn roots_alone(facts: &FileStat) -> Result<(), String> {
    let kind = facts.st_mode & libc::S_IFMT;
    if facts.st_uid != 0 {
        return Err(format!("belongs to uid {}, not to root", facts.st_uid));
    }
    if facts.st_mode & 0o022 != 0 && matches!(kind, libc::S_IFDIR | libc::S_IFREG) {
        return Err(format!("is writable by others than root ({:04o})", facts.st_mode & 0o7777));
    }
    Ok(())
}

fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((path.get(..slash)?, path.get(slash.saturating_add(1)..)?))
}

fn step_failed(path: &[u8], errno: Errno) -> Refusal {
    let refusal = Refusal::about(&VIEW, path, errno.desc());
    if errno == Errno::EPERM { Refusal { fix: MOUNTS.to_owned(), ..refusal } } else { refusal }
}

/// The remedy where root may not mount, nor enter other mounts.
const MOUNTS: &str = "# let the web server's unit, or the container, have CAP_SYS_ADMIN and make namespaces; or set jail.kind = \
                      \"host\" in the site's file, then: cellwall apply";
/// Objects of System V in a view: as much memory as a /dev/shm has, and of the others what no page needs; the kernel's own limits
/// are gigabytes of its memory, which would stay (proc_sys_kernel(5)).
const OBJECTS_MOST: [(&[u8], &[u8]); 3] = [
    (b"/proc/sys/kernel/shmall", b"16384"),
    (b"/proc/sys/kernel/msgmni", b"64"),
    (b"/proc/sys/kernel/sem", b"500 8192 500 128"),
];
/// The kind of jail that leaves the root where it is.
const HOST: &str = "host";

static CHROOT: Card = Card { code: "C05", status: 84, remedy: "chown root {} && chmod go-w {}" };
static VIEW: Card = Card {
    code: "C06",
    status: 84,
    remedy: "ls -ld {} && cellwall apply # it is to be there, and root's alone",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chroot_above_the_site_shortens_its_paths_and_no_others() {
        let inside = Inside::new("chroot", b"/srv/jail");
        assert_eq!(inside.path(b"/srv/jail/htdocs"), b"/htdocs");
        assert_eq!(inside.path(b"/srv/jail"), b"/");
        assert_eq!(inside.path(b"/srv/jailer/x"), b"/srv/jailer/x");
        assert_eq!(Inside::new("view", b"").path(b"/srv/x"), b"/srv/x");
    }
}
