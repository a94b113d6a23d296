//! What test programs have left behind: control groups, and what they made in `/tmp`. A world of theirs hides everything else.

use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// All that is there and that no test program which still runs has made.
pub(crate) fn behind() -> BTreeSet<PathBuf> {
    let groups = Path::new("/sys/fs/cgroup");
    let hierarchies = entries(groups).into_iter().chain([groups.to_owned()]);
    let places = hierarchies.flat_map(|one| [one.join("cellwall"), one]);
    let groups = places.flat_map(|place| entries(&place)).filter(|path| is_group_left(path));
    groups.chain(entries(Path::new("/tmp")).into_iter().filter(|path| is_file_left(path))).collect()
}

fn entries(place: &Path) -> Vec<PathBuf> {
    fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// `cellwall-test-UID`, `cellwall-UID-SITE` and `cellwall/UID-SITE`, of uids that no test program has at the moment.
fn is_group_left(path: &Path) -> bool {
    let among_sites = path.parent().is_some_and(|above| name(above) == "cellwall");
    let rest = name(path).strip_prefix("cellwall-").or_else(|| among_sites.then(|| name(path)));
    let uid = rest.and_then(|rest| rest.strip_prefix("test-").unwrap_or(rest).split('-').next());
    let number = uid.and_then(|uid| uid.parse::<u32>().ok()?.checked_sub(30_000));
    number.is_some_and(|number| is_free(number / 10_000))
}

/// As the tests' harness holds ten thousand uids (tests/harness/world.rs).
fn is_free(number: u32) -> bool {
    let name = SocketAddr::from_abstract_name(format!("cellwall-test-uids-{number}"));
    name.and_then(|name| UnixDatagram::bind_addr(&name)).is_ok()
}

/// `/tmp/cellwall-WHAT-PID` and `/tmp/cellwall-WHAT-PID-NUMBER`, of processes that are gone, and what has no process's number.
fn is_file_left(path: &Path) -> bool {
    let ours = name(path).starts_with("cellwall-");
    let mut numbers = name(path).split('-').filter_map(|word| word.parse::<u32>().ok());
    ours && !numbers.any(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_that_is_gone_has_made_is_left() {
        // Above every number of a process (kernel.pid_max).
        let gone = 5_000_000;
        let own = std::process::id();
        for (name, left) in [
            (format!("cellwall-stage-{gone}-0"), true),
            (format!("cellwall-stage-{own}-0"), false),
            (format!("cellwall-server-php-{gone}"), true),
            ("cellwall-test-audit".to_owned(), true),
            (format!("somebody-{gone}"), false),
        ] {
            assert_eq!(is_file_left(&Path::new("/tmp").join(&name)), left, "{name}");
        }
    }

    #[test]
    fn groups_of_uids_that_a_test_program_has_are_not_left() {
        // No test program has so many.
        let number = 800;
        let uid = 30_000 + 10_000 * number + 41;
        let groups = ["cellwall-test-{}", "cellwall-{}-alice", "cellwall/{}-alice"];
        let groups = groups.map(|name| name.replace("{}", &uid.to_string()));
        let left =
            || groups.iter().filter(|name| is_group_left(&Path::new("/sys/fs/cgroup").join(name))).count();
        assert_eq!(left(), 3);
        let name = SocketAddr::from_abstract_name(format!("cellwall-test-uids-{number}")).unwrap();
        let held = UnixDatagram::bind_addr(&name).unwrap();
        assert_eq!(left(), 0);
        drop(held);
        for other in ["cellwall/1001-shop", "cellwall-pool", "user.slice", "lxc/30041-x"] {
            assert!(!is_group_left(&Path::new("/sys/fs/cgroup").join(other)), "{other}");
        }
    }
}
