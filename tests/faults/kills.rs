//! FLT-03: the launcher is killed at every one of its calls.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::calls::{Stage, stride};
use crate::done::Done;
use crate::harness::{LOG, Launcher, world};
use crate::scenes::SCENES;
use crate::tracer::{Change, Fault, Made};

#[test]
fn flt_03_a_launcher_that_is_killed_leaves_nothing_behind_and_the_next_one_works() {
    let mut kills = 0;
    for scene in &SCENES {
        let mut done = Done::of("kills", scene.name);
        world(Launcher::Cellwall, |world| {
            let stage = Stage::set(scene, world);
            let before = lasting();
            for at in (0..stage.calls.len()).step_by(stride().div_ceil(2)) {
                let cell = format!("{}: killed at call {at}, {}", scene.name, stage.calls[at].name);
                let Made { name, nth, .. } = &stage.calls[at];
                let key = format!("{name} {nth}");
                if done.met(&key).is_some() {
                    kills += 1;
                    continue;
                }
                let Some((left, seen)) = stage.hit(Fault { name, nth: *nth, change: Change::Dies }) else {
                    continue;
                };
                assert_eq!(left.outcome.status.signal(), Some(9), "{cell}: {}", left.outcome.story());
                assert!(left.outcome.marks.is_empty() && left.is_whole(), "{cell}: {}", left.outcome.story());
                assert_eq!((seen.children, seen.executed), (0, false), "{cell}");
                assert_eq!(lasting(), before, "{cell}");
                let next = stage.undisturbed().end(Some(&stage.ordinary), scene.has_visitor());
                assert_eq!(next.as_ref(), Ok(&stage.ordinary.end), "{cell}, and the next launch");
                kills += 1;
                done.add(&key, "killed");
            }
        });
    }
    println!("faults: kills={kills}");
    assert!(kills > 100, "{kills}");
}

/// What a launch must not change: our directories, and what is mounted.
fn lasting() -> Vec<String> {
    let mut all = vec![fs::read_to_string("/proc/thread-self/mountinfo").unwrap()];
    for place in ["/etc/cellwall", "/run/cellwall", "/var/lib/cellwall", "/var/log/cellwall"] {
        look(Path::new(place), &mut all);
    }
    all
}

fn look(path: &Path, all: &mut Vec<String>) {
    let Ok(facts) = fs::symlink_metadata(path) else {
        return all.push(format!("{} is not there", path.display()));
    };
    let kind = (facts.mode(), facts.uid(), facts.ino());
    // A site's own directory is the program's business.
    let changing = path == Path::new(LOG) || facts.uid() != 0;
    let content = if changing { (0, 0) } else { (facts.size(), facts.mtime_nsec()) };
    all.push(format!("{} {kind:?} {content:?}", path.display()));
    if facts.uid() == 0 && facts.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| look(entry, all));
    }
}
