//! `[limits]`: resource limits and the control groups of the host.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::policy::{ControlGroup, Resource};

use super::cell::{GroupCell, LimitsCell};
use super::host::LimitsMax;
use super::pool::zygotes;
use super::problem::{Located, Problems};
use super::rules::{One, Rules};
use super::values::{Count, Groups, Seconds, Size, Umask};

/// Writes a group's settings where the group exists; what is not set any more becomes unlimited.
///
/// # Errors
/// When the kernel says no: to a limit below what is in use, for one.
pub fn renew(group: &ControlGroup<'_>) -> std::io::Result<()> {
    let place = Path::new(OsStr::from_bytes(group.directory));
    let files = [
        // An idle one takes no weight (`cellwalld` says again that it is, as long as there is a reason).
        (&b"cpu.idle"[..], &b"0"[..]),
        (b"memory.max", b"max"),
        (b"memory.limit_in_bytes", b"-1"),
        (b"pids.max", b"max"),
        (b"cpu.weight", b"100"),
        (b"cpu.max", b"max"),
        (b"cpu.shares", b"1024"),
        (b"cpu.cfs_quota_us", b"-1"),
    ];
    for (file, unlimited) in files {
        let path = place.join(OsStr::from_bytes(file));
        let set = group.settings.iter().find(|(name, _)| *name == file).map_or(unlimited, |(_, value)| value);
        if path.exists() {
            std::fs::write(path, set)?;
        }
    }
    Ok(())
}

/// The hierarchies of control groups that can hold memory, processes and time of processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 2 with the controllers of memory and processes.
    unified: Option<PathBuf>,
    /// It has the one of processors as well.
    unified_cpu: bool,
    /// Version 1.
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

/// What is asked of control groups.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    memory: Option<u64>,
    processes: Option<u64>,
    cpu_weight: Option<u64>,
    /// Per cent of one processor.
    cpu_max: Option<u64>,
}

impl Asked {
    fn of(rules: &Rules) -> Self {
        Self {
            memory: finite(&rules.memory, |size| size.0),
            processes: finite(&rules.processes, |count| count.0.saturating_add(zygotes(rules))),
            cpu_weight: finite(&rules.cpu_weight, |weight| weight.0.into()),
            cpu_max: finite(&rules.cpu_max, |percent| percent.0),
        }
    }

    fn cpu(&self) -> bool {
        self.cpu_weight.is_some() || self.cpu_max.is_some()
    }

    fn any(&self) -> bool {
        self.memory.is_some() || self.processes.is_some() || self.cpu()
    }
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
                    let all = mount.as_deref().map(&controllers).unwrap_or_default();
                    let has = |name: &str| all.split_whitespace().any(|have| have == name);
                    found.unified = mount.filter(|_| has("memory") && has("pids"));
                    found.unified_cpu = has("cpu");
                }
                (Some("cgroup"), Some(options)) => {
                    let has = |name: &str| options.split(',').any(|option| option == name);
                    if has("memory") {
                        found.memory.clone_from(&mount);
                    }
                    if has("cpu") {
                        found.cpu.clone_from(&mount);
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
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |why: std::io::Error| std::io::Error::new(why.kind(), format!("{path}: {why}"))
        };
        let mounts = [&self.unified, &self.memory, &self.pids, &self.cpu];
        for mount in mounts.into_iter().flatten() {
            let group = self.place(mount, "any");
            if let Some(above) = group.parent().filter(|above| !above.is_dir()) {
                std::fs::create_dir(above).map_err(at(above))?;
            }
        }
        if let Some(mount) = &self.unified {
            for directory in [mount.clone(), mount.join("cellwall")] {
                let controllers = if self.unified_cpu { "+memory +pids +cpu" } else { "+memory +pids" };
                let file = directory.join("cgroup.subtree_control");
                std::fs::write(&file, controllers).map_err(at(&file))?;
            }
        }
        Ok(())
    }

    /// Where a site's group stands in one of the hierarchies: below `cellwall`, but at the top where version 1 divides the
    /// processors. All sites below one directory would weigh there what a single process beside them weighs, and one of them
    /// alone all of that, whatever its own weight (Documentation/scheduler/sched-design-CFS.rst, section 7).
    fn place(&self, mount: &Path, name: &str) -> PathBuf {
        if self.cpu.as_deref() == Some(mount) {
            mount.join(format!("cellwall-{name}"))
        } else {
            mount.join("cellwall").join(name)
        }
    }

    /// A group for each hierarchy that something is asked of: what is mounted together is one.
    fn groups(&self, name: &str, asked: &Asked) -> Vec<GroupCell> {
        let mut groups: Vec<GroupCell> = Vec::new();
        let mut put = |version: u8, mount: &Option<PathBuf>, file: &str, value: Option<String>| {
            let (Some(mount), Some(value)) = (mount, value) else { return };
            let (place, setting) = (self.place(mount, name), (file.to_owned(), value));
            match groups.iter_mut().find(|(_, known, _)| *known == place) {
                Some((_, _, settings)) => settings.push(setting),
                None => groups.push((version, place, vec![setting])),
            }
        };
        let (memory, processes) =
            (asked.memory.map(|bytes| bytes.to_string()), asked.processes.map(|count| count.to_string()));
        // Of 100 ms; cgroups(7), Documentation/scheduler/sched-bwc.rst.
        let quota = asked.cpu_max.map(|percent| percent.saturating_mul(1000));
        if self.unified.is_some() {
            put(2, &self.unified, "memory.max", memory);
            put(2, &self.unified, "pids.max", processes);
        } else {
            put(1, &self.memory, "memory.limit_in_bytes", memory);
            put(1, &self.pids, "pids.max", processes);
        }
        if self.unified.is_some() && self.unified_cpu {
            put(2, &self.unified, "cpu.weight", asked.cpu_weight.map(|weight| weight.to_string()));
            put(2, &self.unified, "cpu.max", quota.map(|quota| format!("{quota} 100000")));
        } else {
            // 1024 is what everybody has there, and 2 the least.
            let shares = asked.cpu_weight.map(|weight| (weight.saturating_mul(1024) / 100).max(2));
            put(1, &self.cpu, "cpu.shares", shares.map(|shares| shares.to_string()));
            put(1, &self.cpu, "cpu.cfs_quota_us", quota.map(|quota| quota.to_string()));
        }
        // Version 2 last: it is the one that the record names.
        groups.sort_by_key(|(version, ..)| *version);
        groups
    }
}

/// Where a site writes no limit, the largest that the host allows is the site's.
#[must_use]
pub fn bounded(rules: Rules, most: &LimitsMax) -> Rules {
    Rules {
        memory: or_most(rules.memory, &most.memory, Size(u64::MAX)),
        processes: or_most(rules.processes, &most.processes, Count(u64::MAX)),
        cpu: or_most(rules.cpu, &most.cpu, Seconds(u64::MAX)),
        wall: or_most(rules.wall, &most.wall, Seconds(u64::MAX)),
        open_files: or_most(rules.open_files, &most.open_files, Count(u64::MAX)),
        file_size: or_most(rules.file_size, &most.file_size, Size(u64::MAX)),
        ..rules
    }
}

fn or_most<T: Clone + PartialEq>(written: One<T>, most: &One<T>, unlimited: T) -> One<T> {
    written.or_else(|| most.clone().filter(|most| most.value != unlimited))
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
    let asked = Asked::of(rules);
    let wanted = rules.cgroup.as_ref().map_or(Groups::Auto, |wanted| wanted.value);
    let groups = if wanted == Groups::Off { Vec::new() } else { hierarchies.groups(name, &asked) };
    let holds =
        |what: &str| groups.iter().any(|(_, _, all)| all.iter().any(|(file, _)| file.starts_with(what)));
    let lacking =
        [("memory", asked.memory.is_some()), ("pids", asked.processes.is_some()), ("cpu", asked.cpu())]
            .into_iter()
            .find(|(controller, asked)| *asked && !holds(controller));
    lacks(rules, wanted, lacking.map(|(controller, _)| controller), problems);
    let mut resources = vec![(Resource::CORE, Some(rules.core.as_ref().map_or(0, |core| core.value.0)))];
    resources.push((Resource::CPU, value(&rules.cpu, |cpu| cpu.0)));
    resources.push((Resource::FILE_SIZE, value(&rules.file_size, |size| size.0)));
    resources.push((Resource::STACK, value(&rules.stack, |size| size.0)));
    resources.push((Resource::OPEN_FILES, value(&rules.open_files, |count| count.0)));
    // The second line of defence beside pids.max. It counts all processes of the uid.
    resources.push((Resource::PROCESSES, value(&rules.processes, |count| count.0)));
    // In force where no control group holds the memory.
    resources.push((Resource::ADDRESS_SPACE, value(&rules.memory, |size| size.0)));
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
        groups_required: wanted == Groups::Required && asked.any(),
    }
}

/// A controller that is asked for and not there. For memory and processes there are resource limits as well; for a share of
/// the processors there is nothing else.
fn lacks(rules: &Rules, wanted: Groups, controller: Option<&str>, problems: &Problems) {
    let Some(controller) = controller else { return };
    if let Some(required) = rules.cgroup.as_ref().filter(|_| wanted == Groups::Required) {
        problems.error(
            Some(&required.place),
            format!("this host has no control group hierarchy with the {controller} controller"),
            "mount one, or write cgroup = \"auto\" to fall back to resource limits",
        );
    } else if controller == "cpu" {
        let place = rules.cpu_weight.as_ref().map(|one| &one.place);
        let place = place.or(rules.cpu_max.as_ref().map(|one| &one.place));
        let message = "this has no effect without a control group with the cpu controller";
        problems.warning(place, message, "mount one, and do not write cgroup = \"off\"");
    }
}

fn check(rules: &Rules, most: &LimitsMax, problems: &Problems) {
    at_most("memory", &rules.memory, &most.memory, problems);
    at_most("processes", &rules.processes, &most.processes, problems);
    at_most("cpu", &rules.cpu, &most.cpu, problems);
    at_most("wall", &rules.wall, &most.wall, problems);
    at_most("open_files", &rules.open_files, &most.open_files, problems);
    at_most("file_size", &rules.file_size, &most.file_size, problems);
    let amounts = [
        ("memory", value(&rules.memory, |size| size.0), rules.memory.as_ref().map(|one| &one.place)),
        (
            "processes",
            value(&rules.processes, |count| count.0),
            rules.processes.as_ref().map(|one| &one.place),
        ),
        ("cpu", value(&rules.cpu, |cpu| cpu.0), rules.cpu.as_ref().map(|one| &one.place)),
        ("wall", value(&rules.wall, |wall| wall.0), rules.wall.as_ref().map(|one| &one.place)),
        (
            "open_files",
            value(&rules.open_files, |count| count.0),
            rules.open_files.as_ref().map(|one| &one.place),
        ),
        ("stack", value(&rules.stack, |size| size.0), rules.stack.as_ref().map(|one| &one.place)),
    ];
    if let Some(written) = rules.file_size.as_ref().filter(|size| size.value.0 == 0) {
        let message = "with file_size = 0 nothing can be written";
        problems.error(Some(&written.place), message, "write \"unlimited\" for no limit");
    }
    small(rules, problems);
    for (name, _, place) in amounts.into_iter().filter(|(_, amount, _)| *amount == Some(0)) {
        let message = format!("with {name} = 0 nothing can run");
        problems.error(place, message, "write \"unlimited\" for no limit");
    }
}

/// A number without a unit is a number of bytes, and so many were hardly meant.
fn small(rules: &Rules, problems: &Problems) {
    let few = |one: &One<Size>| one.clone().filter(|size| (1..1 << 20).contains(&size.value.0));
    if let Some(Located { value: Size(bytes), place }) = few(&rules.memory) {
        let message = format!("with {bytes} bytes of memory nothing can run");
        problems.error(Some(&place), message, "a number alone is bytes: write a unit, as in \"512M\"");
    }
    if let Some(Located { value: Size(bytes), place }) = few(&rules.stack) {
        let message = format!("few programs run with a stack of {bytes} bytes");
        problems.warning(Some(&place), message, "a number alone is bytes: write a unit, as in \"8M\"");
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
    use super::super::values::Percent;
    use super::*;

    const HYBRID: &str = "\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n\
        40 31 0:37 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_host_has_version_1_and_a_modern_one_version_2() {
        let hybrid = Hierarchies::of(HYBRID, |_| String::new());
        assert_eq!(hybrid.unified, None);
        assert_eq!(hybrid.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory")));
        let modern = Hierarchies::of("1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", |_| {
            "cpuset cpu io memory pids\n".to_owned()
        });
        let asked = Asked { memory: Some(5), processes: Some(7), cpu_weight: Some(50), cpu_max: Some(150) };
        let set = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
        };
        let both =
            [("memory.max", "5"), ("pids.max", "7"), ("cpu.weight", "50"), ("cpu.max", "150000 100000")];
        let place = PathBuf::from("/sys/fs/cgroup/cellwall/1001-shop");
        assert_eq!(modern.groups("1001-shop", &asked), [(2, place, set(&both))]);
        let place = |path: &str| Path::new("/sys/fs/cgroup").join(path);
        assert_eq!(
            hybrid.groups("x", &asked),
            [
                (1, place("memory/cellwall/x"), set(&[("memory.limit_in_bytes", "5")])),
                (1, place("pids/cellwall/x"), set(&[("pids.max", "7")])),
                (1, place("cpu/cellwall-x"), set(&[("cpu.shares", "512"), ("cpu.cfs_quota_us", "150000")])),
            ]
        );
        // Processors may still be of version 1, and hierarchies of version 1 be mounted together.
        let mixed = format!("{HYBRID}1 2 0:3 / /g rw - cgroup2 cgroup2 rw\n");
        let mixed = Hierarchies::of(&mixed, |_| "memory pids".to_owned());
        let versions: Vec<u8> = mixed.groups("x", &asked).iter().map(|(version, ..)| *version).collect();
        assert_eq!(versions, [1, 2]);
        let together =
            Hierarchies::of("1 2 0:3 / /g rw - cgroup cgroup rw,memory,pids,cpu", |_| String::new());
        assert_eq!(together.groups("x", &asked).len(), 1);
    }

    #[test]
    fn what_is_above_the_groups_is_made_and_hands_its_controllers_down() {
        let top = std::env::temp_dir().join(format!("cellwall-hierarchies-{}", std::process::id()));
        let (unified, cpu) = (top.join("unified"), top.join("cpu"));
        for mount in [&unified, &cpu] {
            std::fs::create_dir_all(mount).unwrap();
        }
        let here =
            Hierarchies { unified: Some(unified.clone()), cpu: Some(cpu.clone()), ..Hierarchies::default() };
        here.prepare().unwrap();
        here.prepare().unwrap();
        for directory in [unified.clone(), unified.join("cellwall")] {
            let told = std::fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap();
            assert_eq!(told, "+memory +pids");
        }
        assert!(!cpu.join("cellwall").exists());
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn memory_is_a_resource_limit_too_for_launches_without_the_control_group() {
        use super::super::problem::{Document, Place};
        let place = Place::new(&Document::new(Path::new("/x"), String::new()), 0..0);
        let rules = Rules { memory: Some(Located { value: Size(77), place }), ..Rules::default() };
        let problems = Problems::default();
        let none = Hierarchies::default();
        let limits = compile(&rules, &LimitsMax::default(), 0o022, (&none, "x"), &problems);
        let addresses = Resource { number: Resource::ADDRESS_SPACE, value: 77 };
        assert!(limits.resources.contains(&addresses));
        let hybrid = Hierarchies::of(HYBRID, |_| String::new());
        let limits = compile(&rules, &LimitsMax::default(), 0o022, (&hybrid, "x"), &problems);
        assert!(limits.resources.contains(&addresses));
        assert_eq!(limits.groups.len(), 1);
    }

    fn written<T>(value: T) -> One<T> {
        use super::super::problem::{Document, Place};
        Some(Located { value, place: Place::new(&Document::new(Path::new("/x"), "x".to_owned()), 0..1) })
    }

    /// What a host without any control groups makes of these rules, and what it says of them.
    fn compiled(rules: &Rules, most: &LimitsMax, hierarchies: &Hierarchies) -> (LimitsCell, Vec<String>) {
        let problems = Problems::default();
        let cell = compile(rules, most, 0o022, (hierarchies, "x"), &problems);
        (cell, problems.into_sorted().into_iter().map(|problem| problem.message.to_string()).collect())
    }

    #[test]
    fn what_nothing_could_run_with_is_a_mistake() {
        let none = Hierarchies::default();
        let said = |rules: Rules| compiled(&rules, &LimitsMax::default(), &none).1.join("; ");
        let rules = Rules::default;
        assert_eq!(
            said(Rules { file_size: written(Size(0)), ..rules() }),
            "with file_size = 0 nothing can be written"
        );
        assert_eq!(said(Rules { wall: written(Seconds(0)), ..rules() }), "with wall = 0 nothing can run");
        assert_eq!(
            said(Rules { open_files: written(Count(0)), ..rules() }),
            "with open_files = 0 nothing can run"
        );
        assert!(
            said(Rules { memory: written(Size((1 << 20) - 1)), ..rules() })
                .contains("of memory nothing can run")
        );
        assert_eq!(said(Rules { memory: written(Size(1 << 20)), ..rules() }), "");
    }

    #[test]
    fn a_site_may_have_as_much_as_the_host_allows_and_has_it_where_it_writes_nothing() {
        let most = LimitsMax {
            memory: written(Size(1 << 30)),
            cpu: written(Seconds(u64::MAX)),
            ..LimitsMax::default()
        };
        let none = Hierarchies::default();
        let asks = |bytes| Rules { memory: written(Size(bytes)), ..Rules::default() };
        assert!(compiled(&asks(1 << 30), &most, &none).1.is_empty());
        let said = compiled(&asks((1 << 30) + 1), &most, &none).1.join("; ");
        assert!(said.contains("limits.memory is above limits_max.memory"), "{said}");
        let rules = bounded(Rules::default(), &most);
        assert_eq!(rules.memory.map(|memory| memory.value), Some(Size(1 << 30)));
        assert!(rules.cpu.is_none(), "no limit of the host's is none of the site's");
    }

    #[test]
    fn a_group_is_required_where_it_is_written_and_something_is_asked_of_it() {
        let hybrid = Hierarchies::of(HYBRID, |_| String::new());
        for (wanted, memory, required, groups) in [
            (Groups::Required, written(Size(1 << 30)), true, 1),
            (Groups::Required, None, false, 0),
            (Groups::Auto, written(Size(1 << 30)), false, 1),
            (Groups::Off, written(Size(1 << 30)), false, 0),
        ] {
            let rules = Rules { cgroup: written(wanted), memory, ..Rules::default() };
            let (cell, said) = compiled(&rules, &LimitsMax::default(), &hybrid);
            assert_eq!(
                (cell.groups_required, cell.groups.len(), said),
                (required, groups, vec![]),
                "{wanted:?}"
            );
            let numbers: Vec<u8> = cell.resources.iter().map(|limit| limit.number).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
        }
    }

    #[test]
    fn a_controller_that_is_not_there_is_missed_where_nothing_stands_in_for_it() {
        let none = Hierarchies::default();
        let said = |wanted, memory, cpu_max| {
            let rules = Rules { cgroup: written(wanted), memory, cpu_max, ..Rules::default() };
            compiled(&rules, &LimitsMax::default(), &none).1.join("; ")
        };
        let (memory, share) = (written(Size(1 << 30)), written(Percent(50)));
        assert!(said(Groups::Required, memory.clone(), None).contains("with the memory controller"));
        assert_eq!(said(Groups::Auto, memory, None), "", "a limit of addresses stands in");
        assert!(said(Groups::Auto, None, share).contains("no effect without a control group with the cpu"));
    }

    /// Version 2 takes a site's memory and processes only where it has both; the kernel takes no share below 2.
    #[test]
    fn halves_of_a_hierarchy_are_none_and_a_share_has_a_least() {
        let modern = "1 2 0:3 / /g rw - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchies::of(modern, |_| "cpu memory".to_owned()).unified, None);
        assert!(Hierarchies::of(modern, |_| "memory pids".to_owned()).unified.is_some());
        let hybrid = Hierarchies::of(HYBRID, |_| String::new());
        let shares = |weight| {
            let groups = hybrid.groups("x", &Asked { cpu_weight: Some(weight), ..Asked::default() });
            groups[0].2[0].1.clone()
        };
        assert_eq!([shares(1), shares(100)], ["10", "1024"]);
        assert_eq!(shares(0), "2");
    }
}
