//! A worker and all that it starts: kept together by a control group, and ended together.
//!
//! Root. A group of version 2 for each worker, below the site's own where it has one, so that the site's limits hold; else
//! below the daemon's own, which the service manager ends too. `cgroup.kill` (Linux 5.14) ends every process of it at once,
//! however often it forked. Where there are no such groups, the worker's process group is ended, and what left that group is found
//! among the daemon's children, which orphans become (`PR_SET_CHILD_SUBREAPER`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Where groups can be made.
#[derive(Debug)]
pub struct Grove {
    /// For sites without a group of their own.
    own: Option<PathBuf>,
}

/// The tree of one process.
#[derive(Debug, Clone)]
pub struct Tree {
    pid: Pid,
    group: Option<PathBuf>,
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

impl Grove {
    /// Finds the hierarchy, makes a place in it, and ends what a killed daemon left there.
    #[must_use]
    pub fn find() -> Self {
        let own = place().filter(|own| match fs::create_dir(own) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
        });
        let grove = Self { own };
        if let Some(own) = &grove.own {
            sweep(own);
        }
        grove
    }

    /// The group for a worker, of a site with this group of its own (empty: none). It is made by the child, or here.
    #[must_use]
    pub fn group(&self, site: &Path, serial: u32) -> Option<PathBuf> {
        let above = if site.as_os_str().is_empty() { self.own.as_deref()? } else { site };
        Some(above.join(format!("{PREFIX}{serial}")))
    }

    /// Ends what a killed daemon left in a site's own group.
    pub fn clear(&self, site: &Path) {
        if !site.as_os_str().is_empty() {
            sweep(site);
        }
    }
}

impl Tree {
    /// The tree that this process is the root of.
    #[must_use]
    pub fn new(pid: Pid, group: Option<PathBuf>) -> Self {
        Self { pid, group }
    }

    /// The root, which is not reaped yet: so the number is nobody else's.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// SIGTERM to the root alone: it knows what to do with its children.
    pub fn ask(&self) {
        let _ = kill(self.pid, Signal::SIGTERM);
    }

    /// SIGKILL to all. Call it again until it is gone: a group may still be on its way.
    pub fn destroy(&self) {
        let killed =
            self.group.as_ref().is_some_and(|group| fs::write(group.join("cgroup.kill"), "1").is_ok());
        // Before the child has entered its group, and where there is none.
        let _ = killpg(self.pid, Signal::SIGKILL);
        if !killed {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// The root has ended and is not reaped yet, so that its number still means its process group: ends the rest of it.
    pub fn end_rest(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
        if let Some(group) = &self.group {
            drop(fs::write(group.join("cgroup.kill"), "1"));
        }
    }

    /// After [`Tree::end_rest`]: removes the group. False: something of it is still on its way out.
    #[must_use]
    pub fn bury(&self) -> bool {
        let Some(group) = &self.group else { return true };
        match fs::remove_dir(group) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(_) => {
                drop(fs::write(group.join("cgroup.kill"), "1"));
                false
            }
        }
    }

    /// What it uses at the moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let Some(group) = &self.group else { return usage_of([self.pid.as_raw().to_string()]) };
        let text = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
        let processes = text("cgroup.procs");
        let mut usage = usage_of(processes.lines().map(str::to_owned));
        if let Ok(memory) = text("memory.current").trim().parse() {
            usage.memory = memory;
        }
        let cpu = text("cpu.stat");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("usage_usec "));
        usage.cpu_us = cpu.and_then(|number| number.parse().ok()).unwrap_or(usage.cpu_us);
        usage
    }
}

/// How often the kernel ended something in this group for want of memory.
#[must_use]
pub fn kills_for_memory(site: &Path) -> u64 {
    let text = fs::read_to_string(site.join("memory.events")).unwrap_or_default();
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

fn sweep(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            drop(fs::write(entry.path().join("cgroup.kill"), "1"));
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// How the groups of workers are called: `worker-<serial>`.
const PREFIX: &str = "worker-";
