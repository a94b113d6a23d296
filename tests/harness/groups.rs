//! The control groups of a world. They are the kernel's: a world has none of its own, and none of its stays when it ends.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The group of version 2 for the daemon of the world whose first user has this uid.
pub(crate) fn of_daemon(first: u32) -> PathBuf {
    let (all, unified) = (Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/unified"));
    let above = if unified.is_dir() { unified } else { all };
    above.join(format!("{DAEMON}{first}"))
}

/// Removes the groups of these users' daemons and sites as soon as nothing is in them any more. What is left: a process stays.
pub(crate) fn remove(uids: &Range<u32>) -> Vec<PathBuf> {
    remove_after(uids, |_| {})
}

/// The same, and ends all that is in them, as workers of a daemon that was killed are.
pub(crate) fn end(uids: &Range<u32>) -> Vec<PathBuf> {
    remove_after(uids, |group| {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // 0 is a process of another PID namespace, and means this one's whole group to kill(2).
        for pid in text.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 0) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    })
}

fn remove_after(uids: &Range<u32>, act: impl Fn(&Path) + Copy) -> Vec<PathBuf> {
    let start = Instant::now();
    loop {
        let mut left = groups(uids);
        left.retain(|group| !is_removed(group, act));
        if left.is_empty() || start.elapsed() > ENDING {
            return left;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// In each hierarchy, which is all of `/sys/fs/cgroup` or a directory there.
fn groups(uids: &Range<u32>) -> Vec<PathBuf> {
    let all = Path::new("/sys/fs/cgroup");
    let hierarchies = [vec![all.to_owned()], directories(all)].concat();
    // `UID-SITE`, `cellwall-UID-SITE` and `cellwall-test-UID`.
    let is_ours = |name: &str| {
        let name = name.strip_prefix(DAEMON).or_else(|| name.strip_prefix("cellwall-")).unwrap_or(name);
        let uid = name.split('-').next().and_then(|uid| uid.parse().ok());
        uid.is_some_and(|uid| uids.contains(&uid))
    };
    let places = hierarchies.iter().flat_map(|one| [one.clone(), one.join("cellwall")]);
    let found = places.flat_map(|place| directories(&place));
    found.filter(|group| group.file_name().is_some_and(|name| is_ours(&name.to_string_lossy()))).collect()
}

/// With those beneath it.
fn is_removed(group: &Path, act: impl Fn(&Path) + Copy) -> bool {
    act(group);
    // `all` would end at the first that stays.
    let left = directories(group).iter().filter(|beneath| !is_removed(beneath, act)).count();
    left == 0 && (fs::remove_dir(group).is_ok() || !group.exists())
}

fn directories(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

const DAEMON: &str = "cellwall-test-";
/// As long as a process that was ended may take on a loaded machine.
const ENDING: Duration = Duration::from_secs(30);
