//! A worker or a run and all that it starts: kept together by a control group, and ended together.
//!
//! Root. A group of version 2 for each worker, below the site's own where it has one, so that the site's limits hold; else
//! below the daemon's own, which the service manager ends too. `cgroup.kill` (Linux 5.14) ends every process of it at once,
//! however often it forked. A site's own group may be another daemon's as well, as in two containers that share the hierarchy: who
//! has trees there holds its lock ([`Lock`]). Runs of CGI programs take turns in groups that stay: to make and remove one costs more than a
//! small run.
//!
//! Where there are no such groups, each tree has a UTS namespace of its own, which is only its mark: every descendant has it,
//! whatever its parent, session and process group are, and cannot leave it without `CAP_SYS_ADMIN` (namespaces(7)). What
//! has the mark is found in /proc and ended by a pidfd, so that no number is taken for another process's. A site that may make
//! user namespaces has `CAP_SYS_ADMIN` there, and with it a mark of its own ([`Grove::end_strays`]).

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid};

use crate::launch::groups;
use crate::policy::ControlGroup;
use crate::sys::fork::{self, Side};

/// Where trees can be kept.
#[derive(Debug)]
pub struct Grove {
    /// For sites without a group of their own.
    own: Option<PathBuf>,
    /// Says to other daemons that this one keeps trees there.
    _held: Option<Flock<File>>,
    /// The same of sites' own groups, as long as there are trees in them.
    locks: BTreeMap<PathBuf, Rc<Lock>>,
    /// Groups for runs that nothing is in, by the directory above.
    free: BTreeMap<PathBuf, Vec<Plot>>,
    last: u32,
    /// The kernel makes a child in a group.
    into: bool,
    /// Without groups: the namespace that the daemon itself is in.
    home: Option<File>,
}

/// A site's own group is this daemon's, as long as one of these is there. It is the directory's, which no other directory by its name
/// has: whoever may remove the group removes the lock with it.
#[derive(Debug)]
pub struct Lock(Flock<File>);

/// A group that others are made in, and its lock, where it is a site's own.
type Above = (PathBuf, Option<Rc<Lock>>);

/// Another daemon keeps trees in the site's own group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken;

/// Where a tree is kept.
#[derive(Debug)]
pub enum Ground {
    /// A worker's group. The launch makes and enters it.
    Group(PathBuf, Option<Rc<Lock>>),
    /// A run's group.
    Plot(Plot),
    /// A namespace that is made with the process.
    Mark,
}

/// A group for one run after another.
#[derive(Debug)]
pub struct Plot {
    path: PathBuf,
    /// It is there: a child can be made in it.
    directory: Option<OwnedFd>,
    /// It is below a site's own group, which the launch enters and sets.
    of_site: bool,
    _lock: Option<Rc<Lock>>,
    /// It was told to end all that is in it. Linux 6.18 (no other was tried) then also ends what is made in it later: a fork into
    /// another group is held against the wrong count of kills (kernel/cgroup/cgroup.c, `cgroup_css_set_fork`).
    spoiled: Cell<bool>,
    /// What earlier runs have used.
    cpu_us: u64,
    since: Instant,
    /// Opened once: they are read for each run.
    events: OnceCell<File>,
    cpu: OnceCell<File>,
}

/// The tree of one process.
#[derive(Debug)]
pub struct Tree {
    pid: Pid,
    ground: Ground,
    mark: Option<Mark>,
}

/// A namespace, held: as long as it is, its number is not given to another one.
#[derive(Debug)]
struct Mark {
    number: u64,
    _held: File,
}

/// What a tree uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes.
    pub processes: u32,
    /// Bytes.
    pub memory: u64,
    /// Microseconds.
    pub cpu_us: u64,
}

/// Processes by the mark that they have, at one moment.
#[derive(Debug, Default)]
pub struct Census(HashMap<u64, Vec<i32>>);

impl Grove {
    /// Finds the hierarchy, makes a place in it, and ends what a killed daemon left there.
    ///
    /// # Errors
    /// Another daemon is in the same control group, at `end` still: each would end the other's workers.
    pub fn find(end: Instant) -> io::Result<Self> {
        let own = place().filter(|own| match fs::create_dir(own) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
        });
        let home = if own.is_none() { File::open(UTS).ok() } else { None };
        let held = own.as_deref().map(|own| alone(own, end)).transpose()?.flatten();
        let (free, into) = (BTreeMap::new(), fork::can_fork_into());
        if let Some(own) = &own {
            sweep(own);
        }
        Ok(Self { own, _held: held, locks: BTreeMap::new(), free, last: 0, into, home })
    }

    /// For a worker of a site with this group of its own (empty: none).
    ///
    /// # Errors
    /// [`Taken`].
    pub fn worker(&mut self, site: &Path, serial: u32) -> Result<Ground, Taken> {
        Ok(match self.above(site)? {
            Some((above, lock)) => Ground::Group(above.join(format!("{WORKER}{serial}")), lock),
            None => Ground::Mark,
        })
    }

    /// For a run of a site with this group of its own (empty: none).
    ///
    /// # Errors
    /// [`Taken`].
    pub fn run(&mut self, site: &Path) -> Result<Ground, Taken> {
        let Some((above, lock)) = self.above(site)? else { return Ok(Ground::Mark) };
        if let Some(mut plot) = self.free.get_mut(&above).and_then(Vec::pop) {
            plot.open(self.into);
            plot.cpu_us = plot.cpu_us_so_far().unwrap_or(0);
            return Ok(Ground::Plot(plot));
        }
        let (path, made) = self.fresh(&above);
        let of_site = !site.as_os_str().is_empty();
        let (spoiled, since) = (Cell::new(false), Instant::now());
        let (events, cpu) = (OnceCell::new(), OnceCell::new());
        let mut plot =
            Plot { path, directory: None, of_site, _lock: lock, spoiled, cpu_us: 0, since, events, cpu };
        // A site's own group may not have its limits yet: the launch sets them, and makes this one where that could not be.
        if made {
            plot.open(self.into);
        }
        Ok(Ground::Plot(plot))
    }

    /// A name that none has, and whether the group could be made. One that is there was left by a killed daemon, and could
    /// not be removed because its last process was still on its way out: it is spoiled ([`Plot::spoiled`]).
    fn fresh(&mut self, above: &Path) -> (PathBuf, bool) {
        loop {
            self.last = self.last.wrapping_add(1);
            let path = above.join(format!("{RUN}{}", self.last));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return (path, made.is_ok()),
            }
        }
    }

    /// The group that a tree's own is made in: the site's, or where it has none, or none that could be made, the daemon's.
    fn above(&mut self, site: &Path) -> Result<Option<Above>, Taken> {
        let lock = if site.as_os_str().is_empty() { None } else { self.lock(site)? };
        let above = if lock.is_some() { Some(site.to_owned()) } else { self.own.clone() };
        Ok(above.map(|above| (above, lock)))
    }

    /// A site's own group is this daemon's from now on, and what a killed daemon left there is ended. None: there is no such group.
    fn lock(&mut self, site: &Path) -> Result<Option<Rc<Lock>>, Taken> {
        if let Some(lock) = self.locks.get(site).filter(|lock| lock.is_of(site)) {
            return Ok(Some(Rc::clone(lock)));
        }
        let made = groups::make(site.as_os_str().as_bytes()).is_ok();
        let Some(directory) = File::open(site).ok().filter(|_| made) else { return Ok(None) };
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Rc::new(Lock(held)),
            Err(_) => return Err(Taken),
        };
        // Somebody may have removed it just before.
        if !lock.is_of(site) {
            return Err(Taken);
        }
        sweep(site);
        self.locks.insert(site.to_owned(), Rc::clone(&lock));
        Ok(Some(lock))
    }

    /// Takes back what a tree stood on, after [`Tree::bury`].
    pub fn take_back(&mut self, tree: Tree) {
        let Ground::Plot(mut plot) = tree.ground else { return };
        let above = plot.path.parent().filter(|_| !plot.spoiled.get()).map(Path::to_owned);
        let Some(above) = above else { return drop(fs::remove_dir(&plot.path)) };
        plot.since = Instant::now();
        self.free.entry(above).or_default().push(plot);
    }

    /// Removes groups that no run has needed for a while, and leaves sites' own groups to others where nothing is in them.
    pub fn tidy(&mut self) {
        self.free.retain(|_, plots| {
            plots.retain(|plot| {
                let old = plot.since.elapsed() > UNUSED;
                if old {
                    drop(fs::remove_dir(&plot.path));
                }
                !old
            });
            !plots.is_empty()
        });
        // A child that drops its copy of a tree's lock undoes none: this one is there, and goes here alone.
        self.locks.retain(|_, lock| Rc::strong_count(lock) > 1);
    }

    /// Ends what a killed daemon left in a site's own group, unless another one has it.
    pub fn clear(&mut self, site: &Path) {
        let lock = if site.is_dir() { self.lock(site) } else { Ok(None) };
        // Held no longer than that: ten thousand sites would have ten thousand descriptors at a start.
        if lock.is_ok_and(|lock| lock.is_some_and(|lock| Rc::strong_count(&lock) == 2)) {
            self.locks.remove(site);
        }
    }

    /// Ends what has left its mark behind. Whatever it did, when its ancestors have ended it is a child of this process, which is
    /// the reaper of all that it starts (`PR_SET_CHILD_SUBREAPER`); then its own children are. `is_known`: what this process has
    /// started; `trees`: all that live.
    pub fn end_strays<'t>(&self, is_known: impl Fn(Pid) -> bool, trees: impl Iterator<Item = &'t Tree>) {
        let Some(home) = self.home.as_ref().and_then(|home| home.metadata().ok()) else { return };
        let mut marks: Vec<u64> =
            trees.filter_map(|tree| tree.mark.as_ref()).map(|mark| mark.number).collect();
        marks.push(home.ino());
        let is_stray = |pid: Pid| {
            mark_of(pid).is_some_and(|mark| !marks.contains(&mark)) && parent_of(pid) == Some(getpid())
        };
        for _ in 0..ROUNDS {
            let all = Census::now().0.into_iter().filter(|(mark, _)| !marks.contains(mark));
            let all = all.flat_map(|(_, all)| all).map(Pid::from_raw).filter(|pid| !is_known(*pid));
            let ended = all
                .filter(|pid| fork::hold(*pid).is_ok_and(|held| is_stray(*pid) && fork::end(&held).is_ok()));
            if ended.count() == 0 {
                return;
            }
        }
    }

    /// Makes the process that becomes the root of a tree.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM.
    pub fn plant(&self, ground: Ground) -> Result<(Side, Option<Tree>), Errno> {
        let (side, mark) = match &ground {
            // In it from its first instruction on. A write to cgroup.procs waits for all processors.
            Ground::Plot(Plot { directory: Some(directory), of_site: false, .. }) => {
                (fork::fork_into(directory.as_fd())?, None)
            }
            Ground::Plot(_) | Ground::Group(..) => (fork::fork()?, None),
            Ground::Mark => self.marked()?,
        };
        let tree = match side {
            Side::Parent(pid) => Some(Tree { pid, ground, mark }),
            Side::Child => None,
        };
        Ok((side, tree))
    }

    /// A child in a namespace of its own; this process comes back to its own one.
    fn marked(&self) -> Result<(Side, Option<Mark>), Errno> {
        let Some(home) = &self.home else { return Ok((fork::fork()?, None)) };
        let mark = match unshare(CloneFlags::CLONE_NEWUTS) {
            Ok(()) => Mark::own(),
            // A container may not permit it: the process group is all that is left then.
            Err(_) => return Ok((fork::fork()?, None)),
        };
        let side = fork::fork();
        if side != Ok(Side::Child)
            && let Err(errno) = setns(home, CloneFlags::CLONE_NEWUTS)
        {
            if let Ok(Side::Parent(pid)) = side {
                let _ = kill(pid, Signal::SIGKILL);
            }
            return Err(errno);
        }
        Ok((side?, mark))
    }
}

impl Ground {
    /// The directory of a group that the launch is to enter, or to make. True: it is there, and so is the site's own group
    /// above it, with its limits: that one need not be entered first.
    #[must_use]
    pub fn to_enter(&self) -> Option<(&Path, bool)> {
        match self {
            Self::Group(path, _) => Some((path, false)),
            Self::Plot(Plot { path, directory, of_site, .. }) => {
                (*of_site || directory.is_none()).then_some((path.as_path(), directory.is_some()))
            }
            Self::Mark => None,
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Group(path, _) => Some(path),
            Self::Plot(plot) => Some(&plot.path),
            Self::Mark => None,
        }
    }
}

impl Lock {
    /// What is by this name is what is locked.
    fn is_of(&self, site: &Path) -> bool {
        let place = |facts: io::Result<fs::Metadata>| facts.ok().map(|facts| (facts.dev(), facts.ino()));
        place(self.0.metadata()).is_some_and(|own| place(fs::metadata(site)) == Some(own))
    }
}

impl Plot {
    /// A launch goes through a site's own group first where that may not have its limits yet.
    fn open(&mut self, into: bool) {
        let has_limits = || !self.of_site || self.path.parent().is_some_and(is_set);
        if into && self.directory.is_none() && has_limits() {
            self.directory = File::open(&self.path).ok().map(OwnedFd::from);
        }
    }

    /// Nothing lives in this group, or there is none.
    fn is_empty(&self) -> bool {
        self.read(&self.events, "cgroup.events").map_or_else(
            |error| error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV),
            |text| text.lines().any(|line| line == "populated 0"),
        )
    }

    fn cpu_us_so_far(&self) -> Option<u64> {
        cpu_us(&self.read(&self.cpu, "cpu.stat").ok()?)
    }

    /// The beginning of a file of the group's, as it is now. ENODEV: the group was removed.
    fn read(&self, kept: &OnceCell<File>, name: &str) -> io::Result<String> {
        let file = match kept.get() {
            Some(file) => file,
            None => {
                let opened = File::open(self.path.join(name))?;
                kept.get_or_init(|| opened)
            }
        };
        let mut bytes = [0; 128];
        let length = file.read_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
    }
}

fn is_set(group: &Path) -> bool {
    let facts = fs::metadata(group.join("cgroup.procs"));
    facts.is_ok_and(|facts| facts.mode() & ControlGroup::IS_SET != 0)
}

impl Tree {
    /// The root, which is not reaped yet: so the number is nobody else's.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// SIGTERM to the root alone: it knows what to do with its children.
    pub fn ask(&self) {
        let _ = kill(self.pid, Signal::SIGTERM);
    }

    /// SIGTERM to the root's children, of a zygote the program: each knows what to do with its own.
    pub fn ask_children(&self) {
        for child in self.processes() {
            // The number may mean another process by now: what is held is looked at, and that one is asked.
            if let Ok(held) = fork::hold(child)
                && parent_of(child) == Some(self.pid)
            {
                let _ = fork::ask(&held);
            }
        }
    }

    /// SIGKILL to all. Call it again until it is gone: a group may still be on its way.
    pub fn destroy(&self) {
        // Before the child has entered its group, and where there is none.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = kill(self.pid, Signal::SIGKILL);
        self.kill_all();
    }

    /// SIGKILL to a child of the root's, and to nobody else: what is held is looked at before it is ended. False: it is none.
    #[must_use]
    pub fn end_child(&self, child: Pid) -> bool {
        match fork::hold(child) {
            Ok(held) => parent_of(child) == Some(self.pid) && fork::end(&held) != Err(Errno::EPERM),
            Err(errno) => errno == Errno::ESRCH,
        }
    }

    /// The root has ended and is not reaped yet, so that its number still means its process group: ends the rest of it.
    pub fn end_rest(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
        self.kill_all();
    }

    fn kill_all(&self) {
        if let Some(mark) = &self.mark {
            end_marked(mark.number);
        }
        match &self.ground {
            Ground::Group(path, _) => drop(fs::write(path.join("cgroup.kill"), "1")),
            // Most runs leave nothing behind.
            Ground::Plot(plot) if !plot.is_empty() => {
                plot.spoiled.set(true);
                drop(fs::write(plot.path.join("cgroup.kill"), "1"));
            }
            Ground::Plot(_) | Ground::Mark => {}
        }
    }

    /// After [`Tree::end_rest`]: nothing of it is left. False: something is still on its way out, and told again.
    #[must_use]
    pub fn bury(&self) -> bool {
        let done = match &self.ground {
            Ground::Mark => self.mark.as_ref().is_none_or(|mark| !Census::now().0.contains_key(&mark.number)),
            Ground::Group(path, _) => match fs::remove_dir(path) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            },
            Ground::Plot(plot) => plot.is_empty(),
        };
        if !done {
            self.kill_all();
        }
        done
    }

    /// Whether a census is needed to know what it uses.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.mark.is_some()
    }

    /// Its processes at the moment.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let text = |group: &Path| fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let all: Vec<i32> = match (self.ground.directory(), &self.mark) {
            (Some(group), _) => text(group).lines().filter_map(|line| line.parse().ok()).collect(),
            (None, Some(mark)) => Census::now().0.remove(&mark.number).unwrap_or_default(),
            (None, None) => vec![self.pid.as_raw()],
        };
        all.into_iter().map(Pid::from_raw).collect()
    }

    /// What it uses at the moment.
    #[must_use]
    pub fn usage(&self, census: &Census) -> Usage {
        let Some(group) = self.ground.directory() else {
            let all = self.mark.as_ref().and_then(|mark| census.0.get(&mark.number));
            return match all {
                Some(all) => usage_of(all.iter().map(i32::to_string)),
                None => usage_of([self.pid.as_raw().to_string()]),
            };
        };
        let text = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
        let processes = text("cgroup.procs");
        let mut usage = usage_of(processes.lines().map(str::to_owned));
        if let Ok(memory) = text("memory.current").trim().parse() {
            usage.memory = memory;
        }
        let used = match &self.ground {
            Ground::Plot(plot) => plot.cpu_us_so_far().map(|now| now.saturating_sub(plot.cpu_us)),
            Ground::Group(..) | Ground::Mark => cpu_us(&text("cpu.stat")),
        };
        usage.cpu_us = used.unwrap_or(usage.cpu_us);
        usage
    }
}

impl Mark {
    /// The one that this process has now.
    fn own() -> Option<Self> {
        let held = File::open(UTS).ok()?;
        let number = held.metadata().ok()?.ino();
        Some(Self { number, _held: held })
    }
}

impl Usage {
    /// What another tree uses as well.
    pub fn add(&mut self, other: Self) {
        self.processes = self.processes.saturating_add(other.processes);
        self.memory = self.memory.saturating_add(other.memory);
        self.cpu_us = self.cpu_us.saturating_add(other.cpu_us);
    }
}

impl Census {
    /// Who has which mark.
    #[must_use]
    pub fn now() -> Self {
        let mut all: HashMap<u64, Vec<i32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // A process that has ended and is not reaped has none.
            if let Some(mark) = mark_of(pid) {
                all.entry(mark).or_default().push(pid);
            }
        }
        Self(all)
    }
}

fn mark_of(process: impl std::fmt::Display) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/uts")).ok().map(|facts| facts.ino())
}

/// proc_pid_stat(5): after the name, which may hold anything, the state and the parent.
fn parent_of(process: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let words = String::from_utf8_lossy(stat.get(behind..)?).into_owned();
    words.split(' ').nth(2)?.parse().ok().map(Pid::from_raw)
}

/// SIGKILL to all with this mark, again until none is found: some fork meanwhile.
fn end_marked(mark: u64) {
    for _ in 0..ROUNDS {
        let Some(found) = Census::now().0.remove(&mark) else { return };
        for pid in found {
            // The number may mean another process by now: what is held is looked at once more, and that one is ended.
            if let Ok(held) = fork::hold(Pid::from_raw(pid))
                && mark_of(pid) == Some(mark)
            {
                let _ = fork::end(&held);
            }
        }
    }
}

/// What `cpu.stat` says.
fn cpu_us(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()
}

/// How often the kernel ended something in this group, of either version, for want of memory.
#[must_use]
pub fn kills_for_memory(group: &Path) -> u64 {
    let text = |file: &str| fs::read_to_string(group.join(file));
    let text = text("memory.events").or_else(|_| text("memory.oom_control")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Memory that is its own (resident without shared), in bytes, and CPU time. On the machines that are supported /proc/PID/statm
/// counts pages of 4,096 bytes, and /proc/PID/stat hundredths of a second.
fn usage_of(processes: impl IntoIterator<Item = String>) -> Usage {
    let mut usage = Usage::default();
    for process in processes {
        usage.processes = usage.processes.saturating_add(1);
        let statm = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
        let mut pages = statm.split(' ').skip(1).map(|number| number.trim().parse::<u64>().unwrap_or(0));
        let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
        usage.memory = usage.memory.saturating_add(resident.saturating_sub(shared).saturating_mul(4096));
        // proc_pid_stat(5): after the name, which may hold anything, utime, stime, cutime and cstime are words 12 to 15.
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let words = stat.rsplit_once(") ").map_or("", |(_, words)| words).split(' ').skip(11).take(4);
        let ticks = words.fold(0_u64, |sum, word| sum.saturating_add(word.parse().unwrap_or(0)));
        usage.cpu_us = usage.cpu_us.saturating_add(ticks.saturating_mul(10_000));
    }
    usage
}

/// `<mount of version 2><this process's group>/cellwall-pool`.
fn place() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount =
        mount.filter(|words| words.get(2) == Some(&"cgroup2")).find_map(|words| words.get(1).copied());
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount?).join(own).join("cellwall-pool"))
}

/// Locks the directory of trees, which nobody but root may open. A child has the lock, until it closes what it does not need: one that a
/// killed daemon has just made is waited for. None: there are no locks here.
fn alone(own: &Path, end: Instant) -> io::Result<Option<Flock<File>>> {
    drop(fs::set_permissions(own, fs::Permissions::from_mode(0o700)));
    let mut directory = File::open(own)?;
    loop {
        directory = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Some(held)),
            Err((directory, Errno::EWOULDBLOCK)) => directory,
            Err(_) => return Ok(None),
        };
        if Instant::now() >= end {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let own = own.display();
    Err(io::Error::other(format!(
        "{own}: another cellwalld keeps its workers there: start this one in a control group of its own, as systemd does"
    )))
}

fn sweep(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if [WORKER, RUN].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            drop(fs::write(entry.path().join("cgroup.kill"), "1"));
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// How the groups of workers are called, and those of runs: with a number behind.
const WORKER: &str = "worker-";
const RUN: &str = "run-";
/// This process's UTS namespace.
const UTS: &str = "/proc/self/ns/uts";
/// Looks for what forks while it is ended; the next ones come a second later.
const ROUNDS: usize = 8;
/// Between two tries of the lock.
const LOOK: Duration = Duration::from_millis(50);
/// A group for runs is kept so long without one.
const UNUSED: Duration = Duration::from_secs(30);
