//! Names that change places at full speed while launches go on. `cargo xtask race --minutes N` is the long form.
//!
//! Every launch ends in one of these: the right program ran as its owner; the file that its owner put in its place ran
//! as the same owner, where docs/proof-check-then-exec.md allows that; a refusal with its record and page; or the
//! caller could not enter the directory. Anything else is a failure. Each race prints its figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};

use crate::harness::{
    Call, LOG, Launcher, Outcome, Report, World, each_jail, make_directory, mode, put, small, world,
};

/// Whether the other file may run: as the same owner, and because that owner put it there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Never,
    AsItsOwnerWishes,
}

/// What came of one race.
#[derive(Default)]
struct Tally {
    launches: u64,
    right: u64,
    other: u64,
    refused: u64,
    not_called: u64,
    codes: BTreeMap<String, u64>,
}

/// How long one race lasts.
pub(crate) fn length() -> Duration {
    let seconds =
        std::env::var_os("CELLWALL_RACE_SECONDS").map_or(2, |text| text.to_str().unwrap().parse().unwrap());
    Duration::from_secs(seconds)
}

/// Launches while `change` goes on in another thread, as fast as it can.
fn race<'w>(
    world: &'w World,
    name: &str,
    other: Other,
    change: impl Fn() + Sync,
    launch: impl Fn() -> Call<'w>,
    right: impl Fn(&Report),
) -> Tally {
    let (done, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                change();
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Also when an assertion fails: the other thread is waited for.
        let _stop = Stop(&done);
        while started.elapsed() < length() {
            batch(world, other, &launch, &right, &mut tally);
        }
    });
    let changes = changes.load(Ordering::Relaxed);
    let Tally { launches, right, other, refused, not_called, codes } = &tally;
    let jail = if fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap().contains("\"view\"") {
        "view"
    } else {
        "host"
    };
    println!(
        "race {name} ({jail}): {changes} changes, {launches} launches in {} s: {right} right, {other} other, \
         {refused} refused {codes:?}, {not_called} not called, 0 wrong",
        started.elapsed().as_secs()
    );
    assert!(changes > 500 && *launches > 20, "too little happened to mean anything");
    tally
}

/// A hundred launches and their records, which are then forgotten: a long race fills no disk.
fn batch<'w>(
    world: &'w World,
    other: Other,
    launch: &impl Fn() -> Call<'w>,
    right: &impl Fn(&Report),
    tally: &mut Tally,
) {
    let (mut called, mut ran) = (0, 0);
    for _ in 0..100 {
        let outcome = launch().unrecorded();
        tally.launches += 1;
        match judge(world, &outcome) {
            Verdict::Right(report) => {
                right(&report);
                tally.right += 1;
                ran += 1;
            }
            Verdict::Other => {
                assert!(other == Other::AsItsOwnerWishes, "a foreign file ran:\n{}", outcome.story());
                tally.other += 1;
                ran += 1;
            }
            Verdict::Refused => tally.refused += 1,
            Verdict::NotCalled => {
                tally.not_called += 1;
                continue;
            }
        }
        called += 1;
    }
    let records = world.records();
    let references: BTreeSet<&str> = records.iter().map(|record| record.field("ref")).collect();
    assert_eq!(references.len(), called, "one decision a launch");
    let launched = records.iter().filter(|record| record.verb == "launch").count();
    let refused: Vec<_> = records.iter().filter(|record| record.verb == "refuse").collect();
    for record in &refused {
        *tally.codes.entry(record.field("code").to_owned()).or_default() += 1;
    }
    let refused_by_kernel = refused.iter().filter(|record| record.field("code").starts_with('X')).count();
    assert_eq!(launched, ran + refused_by_kernel, "what runs is recorded, and what is recorded runs");
    fs::write(LOG, "").unwrap();
    let owner = format!("{}-", world.alice.id);
    for mark in world.marks() {
        assert!(mark.starts_with(&owner), "a program ran as somebody else: {mark}");
        drop(fs::remove_file(format!("/var/marks/alice/{mark}")));
    }
}

pub(crate) enum Verdict {
    Right(Report),
    Other,
    Refused,
    NotCalled,
}

pub(crate) fn judge(world: &World, outcome: &Outcome) -> Verdict {
    let (out, id) = (outcome.out_text(), world.alice.id);
    if outcome.status.code() == Some(250) {
        return Verdict::NotCalled;
    }
    let right = out.contains("\nprobe\n");
    if right || out.contains("\nother\n") {
        let report = Report::parse(&outcome.out);
        for fact in ["uid", "gid"] {
            assert_eq!(report.fact(fact), format!("{id} {id} {id}"), "{}", outcome.story());
        }
        for set in ["effective", "permitted", "inheritable", "bounding", "ambient"] {
            assert_eq!(report.fact(&format!("cap_{set}")), "0000000000000000", "{}", outcome.story());
        }
        assert_eq!(
            (report.fact("no_new_privs"), report.fact("seccomp"), report.fact("fds")),
            ("1", "2", "0 1 2")
        );
        return if right { Verdict::Right(report) } else { Verdict::Other };
    }
    assert!(
        outcome.err_text().starts_with("cellwall: refused, reference ")
            && out.starts_with("Status: 500 ")
            && outcome.status.code().is_some_and(|code| code != 0),
        "neither a right run nor a refusal:\n{}",
        outcome.story()
    );
    Verdict::Refused
}

/// Sets the flag when it goes.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Alice's docroot on a file system that is fast at renaming.
fn fast(world: &World) -> PathBuf {
    let docroot = world.alice.docroot();
    mount(Some("tmpfs"), &docroot, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
    chown(&docroot, Some(world.alice.id), Some(world.alice.id)).unwrap();
    world.apply();
    docroot
}

pub(crate) fn exchange(one: &Path, two: &Path) {
    renameat2(AT_FDCWD, one, AT_FDCWD, two, RenameFlags::RENAME_EXCHANGE).unwrap();
}

fn both_happened(tally: &Tally) {
    assert!(tally.right > 0 && tally.refused > 0, "the race was always won by the same side");
}

#[test]
fn pth_01_a_program_exchanged_for_a_link_to_a_foreign_one_never_runs_the_foreign_one() {
    each_jail(|world| {
        let docroot = fast(world);
        let bob = world.bob.docroot().join("b.cgi");
        world.other_probe(world.bob.id, &bob);
        let (own, other) = (world.probe(&world.alice, "a.cgi"), docroot.join("other"));
        symlink(&bob, &other).unwrap();
        let call = || world.call(&world.alice, "a.cgi");
        both_happened(&race(world, "program, link", Other::Never, || exchange(&own, &other), call, |_| ()));
    });
}

#[test]
fn pth_01_a_program_exchanged_for_a_foreign_file_runs_as_its_owner_or_not_at_all() {
    each_jail(|world| {
        let docroot = fast(world);
        let (own, other) = (world.probe(&world.alice, "a.cgi"), docroot.join("other"));
        world.other_probe(world.bob.id, &other);
        let call = || world.call(&world.alice, "a.cgi");
        let change = || exchange(&own, &other);
        both_happened(&race(world, "program, foreign file", Other::AsItsOwnerWishes, change, call, |_| ()));
    });
}

#[test]
fn pth_01_a_program_exchanged_for_one_of_another_mode_runs_as_its_owner_or_not_at_all() {
    each_jail(|world| {
        let docroot = fast(world);
        let (own, other) = (world.probe(&world.alice, "a.cgi"), docroot.join("other"));
        world.other_probe(0, &other);
        // Set-uid root: the best that a swap could win, if no_new_privs were not there.
        mode(&other, 0o6777);
        let call = || world.call(&world.alice, "a.cgi");
        let change = || exchange(&own, &other);
        both_happened(&race(world, "program, set-uid root", Other::AsItsOwnerWishes, change, call, |_| ()));
    });
}

#[test]
fn pth_02_a_directory_exchanged_for_a_link_is_never_left() {
    each_jail(|world| {
        let docroot = fast(world);
        world.other_probe(world.bob.id, &world.bob.docroot().join("a.cgi"));
        let (sub, other) = (docroot.join("sub"), docroot.join("other"));
        make_directory(&sub, world.alice.id, 0o755);
        world.probe(&world.alice, "sub/a.cgi");
        symlink(world.bob.docroot(), &other).unwrap();
        let call = || world.call(&world.alice, "a.cgi").cwd(&sub);
        both_happened(&race(world, "directory, link", Other::Never, || exchange(&sub, &other), call, |_| ()));
    });
}

#[test]
fn pth_02_a_directory_exchanged_while_the_caller_stands_in_it_is_the_same_directory_or_refused() {
    each_jail(|world| {
        let docroot = fast(world);
        let (sub, twin) = (docroot.join("sub"), docroot.join("twin"));
        for place in [&sub, &twin] {
            make_directory(place, world.alice.id, 0o755);
        }
        world.probe(&world.alice, "sub/a.cgi");
        world.other_probe(world.alice.id, &twin.join("a.cgi"));
        mode(&twin, 0o777);
        let call = || world.call(&world.alice, "a.cgi").cwd(&sub);
        both_happened(&race(
            world,
            "directory, open one",
            Other::Never,
            || exchange(&sub, &twin),
            call,
            |_| (),
        ));
    });
}

#[test]
fn pth_22_a_program_that_is_removed_and_written_again_runs_whole_or_not_at_all() {
    each_jail(|world| {
        let docroot = fast(world);
        let own = world.probe(&world.alice, "a.cgi");
        let (bytes, id) = (fs::read(&own).unwrap(), world.alice.id);
        let change = || {
            fs::remove_file(docroot.join("a.cgi")).unwrap();
            put(docroot.join("a.cgi"), &bytes, id, 0o755);
        };
        let call = || world.call(&world.alice, "a.cgi");
        race(world, "program, written again", Other::Never, change, call, |_| ());
    });
}

#[test]
fn pol_09_a_policy_that_is_replaced_while_it_is_read_counts_wholly_or_not_at_all() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.probe(&world.alice, "a.cgi");
            let record = PathBuf::from(format!("/var/lib/cellwall/policy/{}", world.alice.id));
            let spare = |name: &str| PathBuf::from(format!("/var/lib/cellwall/policy/{name}"));
            for (number, umask, word) in [(1, "022", "one"), (2, "027", "two")] {
                let rules = small(jail);
                let more = format!(
                    "[limits]\numask = \"{umask}\"\n[environment]\nset = {{ VERSION = \"{word}\", FILLER = \"{}\" }}\n",
                    word.repeat(20_000)
                );
                world.site("alice", &format!("{rules}{more}"));
                world.apply();
                fs::copy(&record, spare(&format!("version-{number}"))).unwrap();
            }
            let half = fs::read(&record).unwrap();
            fs::write(spare("half"), &half[..half.len() / 2]).unwrap();
            let change = || {
                for name in ["version-1", "half", "version-2"] {
                    exchange(&record, &spare(name));
                }
            };
            let versions = std::sync::Mutex::new(BTreeMap::<String, u64>::new());
            let right = |report: &Report| {
                let version = (report.env("VERSION").unwrap(), report.fact("umask"));
                assert!([("one", "022"), ("two", "027")].contains(&version), "half a policy: {version:?}");
                *versions.lock().unwrap().entry(version.0.to_owned()).or_default() += 1;
            };
            let tally =
                race(world, "policy", Other::Never, change, || world.call(&world.alice, "a.cgi"), right);
            both_happened(&tally);
            assert!(tally.codes.keys().all(|code| code == "P01"), "{:?}", tally.codes);
            assert_eq!(versions.lock().unwrap().len(), 2, "both versions were met");
        });
    }
}
