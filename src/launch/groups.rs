//! The site's control groups: entered with all their settings in force, and made first where a reboot took them away.
//!
//! Root. Refuses with C04. Uses only directories that the policy names.
//! May not: count a controller as held whose setting is not known to be in force.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::mkdir;

use crate::policy::{ControlGroup, Site};
use crate::refusal::{Card, Refusal};
use crate::sys::files;

/// What was entered, and what was not: for the limits of processes, which stand in for it, and for the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Version of the last one that was entered; 0: none.
    version: u8,
    /// A bit for each of [`CONTROLLERS`].
    held: u8,
    /// Asked for, and not held.
    lost: u8,
}

impl Groups {
    /// A limit of the memory of all the site's processes together is in force.
    pub(super) fn hold_memory(self) -> bool {
        self.held & MEMORY != 0
    }
}

impl std::fmt::Display for Groups {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.version {
            0 => out.write_str("none")?,
            version => write!(out, "v{version}")?,
        }
        let lost = CONTROLLERS.iter().enumerate().filter(|(bit, _)| self.lost & (1 << bit) != 0);
        for (place, (_, name)) in lost.enumerate() {
            write!(out, "{}{name}", if place == 0 { " lost=" } else { "," })?;
        }
        Ok(())
    }
}

/// Enters all groups of a site. A limit that cannot be had is a refusal only where the policy requires it.
///
/// # Errors
/// C04.
pub(super) fn enter(site: &Site<'_>) -> Result<Groups, Refusal> {
    let mut done = Groups::default();
    for group in &site.limits.groups {
        // One without settings is a pool's, and keeps together what is to end together: outside of it nobody could end it.
        let required = site.limits.groups_required || group.settings.is_empty();
        let asked = controllers(group);
        match enter_one(group, required) {
            Ok(lost) => {
                done.version = group.version;
                done.held |= asked & !lost;
                done.lost |= lost;
            }
            Err((path, errno)) if required => return Err(Refusal::about(&GROUP, &path, errno.desc())),
            Err(_) => done.lost |= asked,
        }
    }
    Ok(done)
}

/// The path at which the kernel said no, and how.
type Failed = (Vec<u8>, Errno);

/// Writes "0", this process, to the group. Which of its controllers it does not have.
///
/// The kernel holds up all forks and exits for a write to `cgroup.procs`, which takes it some ten milliseconds; this program
/// has one thread, and moving one alone holds up nobody. Version 2 has no file for that in a group like ours (cgroups(7)).
fn enter_one(group: &ControlGroup<'_>, required: bool) -> Result<u8, Failed> {
    let file: &[u8] = if group.version == 1 { b"/tasks" } else { b"/cgroup.procs" };
    let path = [group.directory, file].concat();
    let at = |errno| (path.clone(), errno);
    let entrance = match files::open_to_write(&path) {
        Err(Errno::ENOENT) => {
            make(group.directory)?;
            files::open_to_write(&path).map_err(at)?
        }
        other => other.map_err(at)?,
    };
    let lost = if is_set(group, &entrance).map_err(at)? { 0 } else { set(group, &entrance, required)? };
    nix::unistd::write(&entrance, b"0").map_err(at)?;
    Ok(lost)
}

/// Makes a site's group, and the one that all of them are in. It has no limits yet.
pub(crate) fn make(directory: &[u8]) -> Result<(), Failed> {
    let end = directory.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
    for directory in [directory.get(..end).unwrap_or_default(), directory] {
        match mkdir(directory, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err((directory.to_vec(), errno)),
        }
    }
    Ok(())
}

/// Whoever made the group may have been ended before it had all its limits: it has this mark only afterwards.
fn is_set(group: &ControlGroup<'_>, entrance: &OwnedFd) -> Result<bool, Errno> {
    Ok(group.settings.is_empty() || fstat(entrance)?.st_mode & ControlGroup::IS_SET != 0)
}

/// Which settings could not be made.
fn set(group: &ControlGroup<'_>, entrance: &OwnedFd, required: bool) -> Result<u8, Failed> {
    let mut lost = 0;
    for (file, value) in &group.settings {
        let path = [group.directory, b"/", file].concat();
        match files::write(&path, value) {
            Err(errno) if required => return Err((path, errno)),
            Err(_) => lost |= bit(file),
            Ok(()) => {}
        }
    }
    if lost == 0 {
        // Where that is not permitted, the next launch sets all again.
        let _ = fchmod(entrance, Mode::from_bits_truncate(0o644 | ControlGroup::IS_SET));
    }
    Ok(lost)
}

fn controllers(group: &ControlGroup<'_>) -> u8 {
    group.settings.iter().fold(0, |all, (file, _)| all | bit(file))
}

fn bit(file: &[u8]) -> u8 {
    let name = file.split(|byte| *byte == b'.').next();
    let controller = CONTROLLERS.iter().position(|controller| Some(controller.as_bytes()) == name);
    controller.map_or(0, |place| 1 << place)
}

/// Their names, which those of their files begin with, up to a dot.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
const MEMORY: u8 = 1;

static GROUP: Card = Card {
    code: "C04",
    status: 84,
    remedy: "cellwall apply # prepares the groups; or set cgroup = \"auto\" in the site's [limits] before",
};

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::policy::tests::site;

    impl Groups {
        /// For tests of what asks.
        pub(in super::super) fn holding(controller: &str) -> Self {
            Self { version: 2, held: bit(controller.as_bytes()), lost: 0 }
        }
    }

    /// A directory of these files in the place of a control group, removed with it.
    struct Ground(PathBuf);

    impl Ground {
        fn new(name: &str, files: &[&str]) -> Self {
            let place = std::env::temp_dir().join(format!("cellwall-groups-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&place).unwrap();
            files.iter().for_each(|file| std::fs::write(place.join(file), "").unwrap());
            Self(place)
        }

        fn holds(&self, file: &str) -> String {
            std::fs::read_to_string(self.0.join(file)).unwrap_or_default()
        }

        /// Enters it, as the group of a site that asks for memory, processes and processors.
        fn enter(&self, version: u8, required: bool) -> Result<Groups, &'static str> {
            use std::os::unix::ffi::OsStrExt as _;
            let directory = self.0.as_os_str().as_bytes();
            let settings = [(&b"memory.max"[..], &b"5"[..]), (b"pids.max", b"7"), (b"cpu.weight", b"50")];
            let mut site = site();
            site.limits.groups = vec![ControlGroup { version, directory, settings: settings.to_vec() }];
            site.limits.groups_required = required;
            enter(&site).map_err(|refusal| refusal.card.code)
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn is_marked(file: &Path) -> bool {
        std::fs::metadata(file).unwrap().permissions().mode() & ControlGroup::IS_SET != 0
    }

    #[test]
    fn a_group_is_set_whole_marked_and_entered() {
        for (version, name, door) in [(1, "one", "tasks"), (2, "two", "cgroup.procs")] {
            let ground = Ground::new(name, &[door, "memory.max", "pids.max", "cpu.weight"]);
            assert_eq!(ground.enter(version, true), Ok(Groups { version, held: 7, lost: 0 }));
            let told = [door, "memory.max", "pids.max", "cpu.weight"].map(|file| ground.holds(file));
            assert_eq!(told, ["0", "5", "7", "50"], "version {version}");
            assert!(is_marked(&ground.0.join(door)));
        }
    }

    #[test]
    fn a_controller_that_is_not_set_is_lost_and_the_group_is_not_marked() {
        let ground = Ground::new("lost", &["cgroup.procs", "memory.max", "cpu.weight"]);
        assert_eq!(ground.enter(2, true), Err("C04"));
        assert_eq!(ground.holds("cgroup.procs"), "", "who is refused is not in it");
        let done = ground.enter(2, false).unwrap();
        assert_eq!((done.held, done.to_string()), (5, "v2 lost=pids".to_owned()));
        assert_eq!(ground.holds("cgroup.procs"), "0");
        assert!(!is_marked(&ground.0.join("cgroup.procs")), "the next launch sets all again");
        assert!(done.hold_memory() && !Groups::holding("pids").hold_memory());
    }

    /// Somebody else has set it: what its files say now is not looked at.
    #[test]
    fn a_group_with_the_mark_is_entered_as_it_is() {
        let ground = Ground::new("marked", &["cgroup.procs", "memory.max"]);
        let mode = std::fs::Permissions::from_mode(0o644 | ControlGroup::IS_SET);
        std::fs::set_permissions(ground.0.join("cgroup.procs"), mode).unwrap();
        assert_eq!(ground.enter(2, true), Ok(Groups { version: 2, held: 7, lost: 0 }));
        assert_eq!((ground.holds("memory.max"), ground.holds("cgroup.procs")), (String::new(), "0".into()));
    }

    #[test]
    fn a_group_that_cannot_be_entered_is_missed_or_refused() {
        let ground = Ground::new("no-door", &["memory.max"]);
        assert_eq!(ground.enter(2, true), Err("C04"));
        assert_eq!(ground.enter(2, false), Ok(Groups { version: 0, held: 0, lost: 7 }));
    }

    #[test]
    fn a_record_names_what_is_not_held() {
        for (groups, text) in [
            (Groups::default(), "none"),
            (Groups { version: 2, held: 7, lost: 0 }, "v2"),
            (Groups { version: 1, held: 2, lost: 5 }, "v1 lost=memory,cpu"),
            (Groups { version: 0, held: 0, lost: 2 }, "none lost=pids"),
        ] {
            assert_eq!(groups.to_string(), text);
        }
    }
}
