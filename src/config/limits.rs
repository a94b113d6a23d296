//! `[limits]`: resource limits and the control groups of the host.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::policy::{ControlGroup, Resource};

use super::cell::{GroupCell, LimitsCell};
use super::host::LimitsMax;
use super::problem::{Located, Problems};
use super::rules::{One, Rules};
use super::values::{Groups, Umask};

/// Writes a group's settings where the group exists; what is not set any more becomes unlimited.
///
/// # Errors
/// When the kernel says no: to a limit below what is in use, for one.
pub fn renew(group: &ControlGroup<'_>) -> std::io::Result<()> {
    let place = Path::new(OsStr::from_bytes(group.directory));
    let files = [(&b"memory.max"[..], &b"max"[..]), (b"memory.limit_in_bytes", b"-1"), (b"pids.max", b"max")];
    for (file, unlimited) in files {
        let path = place.join(OsStr::from_bytes(file));
        let set = group.settings.iter().find(|(name, _)| *name == file).map_or(unlimited, |(_, value)| value);
        if path.exists() {
            std::fs::write(path, set)?;
        }
    }
    Ok(())
}

/// The hierarchies of control groups that can hold memory and processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 2 with both controllers.
    unified: Option<PathBuf>,
    /// Version 1.
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl Hierarchies {
    /// What this host has.
    #[must_use]
    pub fn here() -> Self {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::of(&text, |mount| std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default())
    }

    /// By mountinfo (proc(5)) and the controllers of a version 2 mount.
    fn of(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, kind)) = line.split_once(" - ") else { continue };
            let mount = mount.split(' ').nth(4).map(PathBuf::from);
            let mut words = kind.split(' ');
            match (words.next(), words.nth(1)) {
                (Some("cgroup2"), _) => {
                    found.unified = mount.filter(|mount| {
                        let all = controllers(mount);
                        ["memory", "pids"].iter().all(|name| all.split_whitespace().any(|have| have == *name))
                    });
                }
                (Some("cgroup"), Some(options)) => {
                    let has = |name: &str| options.split(',').any(|option| option == name);
                    if has("memory") {
                        found.memory.clone_from(&mount);
                    }
                    if has("pids") {
                        found.pids = mount;
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Root. Makes the directories above the sites' control groups; version 2 hands its controllers down only where
    /// it is told to (cgroups(7)).
    ///
    /// # Errors
    /// When the kernel says no.
    pub fn prepare(&self) -> std::io::Result<()> {
        let mounts = [&self.unified, &self.memory, &self.pids];
        for mount in mounts.into_iter().flatten() {
            let above = mount.join("cellwall");
            if !above.is_dir() {
                std::fs::create_dir(&above)?;
            }
        }
        if let Some(mount) = &self.unified {
            for directory in [mount.clone(), mount.join("cellwall")] {
                std::fs::write(directory.join("cgroup.subtree_control"), "+memory +pids")?;
            }
        }
        Ok(())
    }

    fn groups(&self, name: &str, memory: Option<u64>, processes: Option<u64>) -> Vec<GroupCell> {
        let place = |mount: &Path| mount.join("cellwall").join(name);
        let setting = |file: &str, value: u64| (file.to_owned(), value.to_string());
        if let Some(mount) = &self.unified {
            let memory = memory.map(|bytes| setting("memory.max", bytes));
            let processes = processes.map(|count| setting("pids.max", count));
            return vec![(2, place(mount), memory.into_iter().chain(processes).collect())];
        }
        let memory = self.memory.as_ref().zip(memory);
        let pids = self.pids.as_ref().zip(processes);
        let memory =
            memory.map(|(mount, bytes)| (1, place(mount), vec![setting("memory.limit_in_bytes", bytes)]));
        let pids = pids.map(|(mount, count)| (1, place(mount), vec![setting("pids.max", count)]));
        memory.into_iter().chain(pids).collect()
    }
}

/// The limits of a site whose control group is called `name`.
pub fn compile(
    rules: &Rules,
    most: &LimitsMax,
    umask: u16,
    (hierarchies, name): (&Hierarchies, &str),
    problems: &Problems,
) -> LimitsCell {
    check(rules, most, problems);
    let memory = finite(&rules.memory, |size| size.0);
    let processes = finite(&rules.processes, |count| count.0);
    let wanted = rules.cgroup.as_ref().map_or(Groups::Auto, |wanted| wanted.value);
    let asked = memory.is_some() || processes.is_some();
    let groups = if wanted == Groups::Off || !asked {
        Vec::new()
    } else {
        hierarchies.groups(name, memory, processes)
    };
    let holds =
        |what: &str| groups.iter().any(|(_, _, all)| all.iter().any(|(file, _)| file.starts_with(what)));
    if let Some(required) = rules.cgroup.as_ref().filter(|_| wanted == Groups::Required)
        && (memory.is_some() && !holds("memory") || processes.is_some() && !holds("pids"))
    {
        problems.error(
            Some(&required.place),
            "this host has no control group hierarchy with the memory and pids controllers",
            "mount one, or write cgroup = \"auto\" to fall back to resource limits",
        );
    }
    let mut resources = vec![(Resource::CORE, Some(rules.core.as_ref().map_or(0, |core| core.value.0)))];
    resources.push((Resource::CPU, value(&rules.cpu, |cpu| cpu.0)));
    resources.push((Resource::FILE_SIZE, value(&rules.file_size, |size| size.0)));
    resources.push((Resource::STACK, value(&rules.stack, |size| size.0)));
    resources.push((Resource::OPEN_FILES, value(&rules.open_files, |count| count.0)));
    // The second line of defence beside pids.max. It counts all processes of the uid.
    resources.push((Resource::PROCESSES, value(&rules.processes, |count| count.0)));
    resources
        .push((Resource::ADDRESS_SPACE, value(&rules.memory, |size| size.0).filter(|_| !holds("memory"))));
    let mut resources: Vec<Resource> = resources
        .into_iter()
        .filter_map(|(number, value)| value.map(|value| Resource { number, value }))
        .collect();
    resources.sort_by_key(|limit| limit.number);
    LimitsCell {
        resources,
        umask: rules.umask.as_ref().map_or(umask, |Located { value: Umask(mask), .. }| *mask),
        nice: rules.nice.as_ref().map_or(0, |nice| nice.value.0),
        oom_score: rules.oom_score.as_ref().map_or(0, |score| score.value.0),
        wall_seconds: finite(&rules.wall, |wall| wall.0)
            .map_or(0, |wall| u32::try_from(wall).unwrap_or(u32::MAX)),
        groups,
        groups_required: wanted == Groups::Required && asked,
    }
}

fn check(rules: &Rules, most: &LimitsMax, problems: &Problems) {
    at_most("memory", &rules.memory, &most.memory, problems);
    at_most("processes", &rules.processes, &most.processes, problems);
    at_most("cpu", &rules.cpu, &most.cpu, problems);
    at_most("wall", &rules.wall, &most.wall, problems);
    at_most("open_files", &rules.open_files, &most.open_files, problems);
    at_most("file_size", &rules.file_size, &most.file_size, problems);
    let zero = [("memory", rules.memory.as_ref().map(|one| (one.value.0, &one.place)))];
    let more = [
        ("processes", rules.processes.as_ref().map(|one| (one.value.0, &one.place))),
        ("cpu", rules.cpu.as_ref().map(|one| (one.value.0, &one.place))),
        ("open_files", rules.open_files.as_ref().map(|one| (one.value.0, &one.place))),
        ("stack", rules.stack.as_ref().map(|one| (one.value.0, &one.place))),
    ];
    for (name, found) in zero.into_iter().chain(more) {
        if let Some((0, place)) = found {
            problems.error(
                Some(place),
                format!("with {name} = 0 nothing can run"),
                "write \"unlimited\" for no limit",
            );
        }
    }
}

fn at_most<T: Ord>(name: &str, written: &One<T>, most: &One<T>, problems: &Problems) {
    if let (Some(written), Some(most)) = (written, most)
        && written.value > most.value
    {
        problems.error(
            Some(&written.place),
            format!("limits.{name} is above limits_max.{name} of {}", most.place),
            "lower it, or raise limits_max",
        );
    }
}

fn value<T>(one: &One<T>, number: impl Fn(&T) -> u64) -> Option<u64> {
    one.as_ref().map(|one| number(&one.value))
}

fn finite<T>(one: &One<T>, number: impl Fn(&T) -> u64) -> Option<u64> {
    value(one, number).filter(|number| *number != u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_host_has_version_1_and_a_modern_one_version_2() {
        let hybrid = Hierarchies::of(HYBRID, |_| String::new());
        assert_eq!(hybrid.unified, None);
        assert_eq!(hybrid.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory")));
        let modern = Hierarchies::of("1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", |_| {
            "cpuset cpu io memory pids\n".to_owned()
        });
        let groups = modern.groups("1001-shop", Some(5), Some(7));
        let settings =
            vec![("memory.max".to_owned(), "5".to_owned()), ("pids.max".to_owned(), "7".to_owned())];
        assert_eq!(groups, [(2, PathBuf::from("/sys/fs/cgroup/cellwall/1001-shop"), settings)]);
    }

    #[test]
    fn without_control_groups_memory_is_a_resource_limit() {
        use super::super::problem::{Document, Place};
        use super::super::values::Size;
        let place = Place::new(&Document::new(Path::new("/x"), String::new()), 0..0);
        let rules = Rules { memory: Some(Located { value: Size(77), place }), ..Rules::default() };
        let problems = Problems::default();
        let none = Hierarchies::default();
        let limits = compile(&rules, &LimitsMax::default(), 0o022, (&none, "x"), &problems);
        assert!(limits.resources.contains(&Resource { number: Resource::ADDRESS_SPACE, value: 77 }));
        let hybrid = Hierarchies::of(HYBRID, |_| String::new());
        let limits = compile(&rules, &LimitsMax::default(), 0o022, (&hybrid, "x"), &problems);
        assert!(!limits.resources.iter().any(|limit| limit.number == Resource::ADDRESS_SPACE));
        assert_eq!(limits.groups.len(), 1);
    }
}
