//! Load: DOS-01 to DOS-09 of the threat catalogue.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::jail::tries;

use crate::harness::{Hung, Launcher, World, everything, make_directory, small, world};

#[test]
fn dos_04_five_hundred_launches_at_once_all_end() {
    // Each has three pipes.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            // By its own rules a site has fewer processes than that.
            world.site("alice", &format!("{}[limits]\nprocesses = 1000\n", small(jail)));
            world.apply();
            world.probe(&world.alice, "a.cgi");
            let before = world.records().len();
            let start = Barrier::new(500);
            thread::scope(|scope| {
                for _ in 0..500 {
                    scope.spawn(|| {
                        start.wait();
                        let outcome = world.call(&world.alice, "a.cgi").unrecorded();
                        assert!(outcome.out_text().contains("\nprobe\n"), "{}", outcome.story());
                    });
                }
            });
            let records = world.records().split_off(before);
            let launches = records.iter().filter(|record| record.verb == "launch").count();
            assert_eq!((launches, records.len()), (500, 500), "in a {jail} jail");
        });
    }
}

#[test]
fn dos_01_a_fork_bomb_ends_at_its_sites_limit_and_the_neighbour_runs() {
    world(Launcher::Cellwall, |world| {
        let rules = everything("view");
        world.site("alice", &format!("{rules}[limits]\nprocesses = 30\n"));
        world.apply();
        // It ends by itself, where this test is ended before it: a bomb that goes on slows down the machine for ever.
        let bomb = "#!/usr/bin/perl\nmy $end = time + 120; fork while time < $end;\n";
        world.script(&world.alice, "bomb.cgi", bomb);
        world.probe(&world.bob, "a.cgi");
        let _bomb = world.call(&world.alice, "bomb.cgi").watch(Duration::from_millis(300));
        let mut most = 0;
        for _ in 0..30 {
            world.call(&world.bob, "a.cgi").run().ran();
            most = most.max(processes(world.alice.id).len());
        }
        assert!(most <= 30, "{most} processes");
        assert!(most > 3, "only {most}: no bomb");
        // What is left is one user's, and goes when it is told to: newer ones cannot be made faster.
        let started = std::time::Instant::now();
        while !processes(world.alice.id).is_empty() {
            for process in processes(world.alice.id) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(process),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            assert!(started.elapsed() < Duration::from_secs(20), "the bomb goes on");
        }
    });
}

/// All live processes of a user.
fn processes(uid: u32) -> Vec<i32> {
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("\nUid:\t{uid}\t")) && !status.contains("State:\tZ")
    })
    .collect()
}

#[test]
fn dos_05_a_storm_of_refusals_disturbs_no_neighbour() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.bob, "a.cgi");
        let (done, blows) = (AtomicBool::new(false), AtomicBool::new(false));
        let before = world.records().len();
        let (mut quiet, mut disturbed) = (Vec::new(), Vec::new());
        let refusals = thread::scope(|scope| {
            let storm: Vec<_> = (0..4).map(|_| scope.spawn(|| storm(world, &done, &blows))).collect();
            let _stop = crate::race::Stop(&done);
            // In turn, so that whatever else this machine does slows both down.
            for _ in 0..15 {
                for (wind, times) in [(false, &mut quiet), (true, &mut disturbed)] {
                    blows.store(wind, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(20));
                    times.extend((0..10).map(|_| neighbour(world)));
                }
            }
            done.store(true, Ordering::Relaxed);
            storm.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
        });
        let records = world.records().split_off(before);
        let of = |verb: &str| records.iter().filter(|record| record.verb == verb).count();
        assert_eq!((of("refuse"), of("launch")), (refusals, 300));
        assert!(refusals > 300, "{refusals} refusals are no storm");
        // He shares the processors with four of them; much more than that would be something that all wait for.
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let (quiet, disturbed) = (median(&mut quiet), median(&mut disturbed));
        assert!(disturbed < 20 * quiet, "a launch takes {disturbed:?} in the storm, {quiet:?} without");
    });
}

/// Refusals, one after the other, as long as it blows. How many.
fn storm(world: &World, done: &AtomicBool, blows: &AtomicBool) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        if !blows.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let outcome = world.call(&world.alice, "missing").unrecorded();
        assert_eq!(outcome.status.code(), Some(117), "{}", outcome.story());
        count += 1;
    }
    count
}

/// How long a launch of the neighbour's takes.
fn neighbour(world: &World) -> Duration {
    let outcome = world.call(&world.bob, "a.cgi").unrecorded();
    assert!(outcome.out_text().contains("\nprobe\n"), "{}", outcome.story());
    outcome.took
}

#[test]
fn dos_06_a_policy_of_a_megabyte_is_read_and_used_or_refused_at_once() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let set: Vec<String> =
            (0..9).map(|number| format!("A{number} = \"{}\"", "x".repeat(100_000))).collect();
        world.site("alice", &format!("{}[environment]\nset = {{ {} }}\n", small("host"), set.join(", ")));
        world.apply();
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert_eq!(outcome.ran().all("env_long").len(), 9);
        assert!(outcome.took < Duration::from_secs(2), "{:?}", outcome.took);
        // One byte more than a record may have is refused when it is written, not when it is read.
        world.site(
            "alice",
            &format!(
                "{}[environment]\nset = {{ {}, Y = \"{2}\", Z = \"{2}\" }}\n",
                small("host"),
                set.join(", "),
                "x".repeat(130_000)
            ),
        );
        assert!(!world.cellwall(&["apply"]).status.success());
    });
}

/// What each stage is held up in.
const HELD_UP: [(&str, &str); 3] =
    [("confine", "capset"), ("verify", "fgetxattr"), ("equip", "landlock_create_ruleset")];

#[test]
fn a_launch_that_is_late_is_refused_and_says_in_which_stage() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        world.sites(&small("host"));
        for (stage, call) in HELD_UP {
            let held = format!("inject={call}:delay_enter=4000000:when=1");
            let launch = || world.call(&world.alice, "a.cgi").strace(&["-e", &held]).run();
            // A second is left then until the kernel ends it, which a loaded machine may take for the rest.
            let ended = (0..5).map(|_| launch()).find(|outcome| outcome.status.signal().is_none());
            let refused = ended.expect("it was too late five times").refused("A03", 81);
            let why = format!(" s had passed at the end of {stage}");
            assert!(refused.field("why").ends_with(&why), "{}", refused.line);
        }
    });
}

#[test]
fn a_launch_that_hangs_is_ended_by_the_kernel_and_runs_nothing() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        make_directory("/srv/far", 0, 0o755);
        world.sites(&format!("{}read = [\"/srv/far\"]\n", small("host")));
        world.call(&world.alice, "a.cgi").run().ran();
        let _far = Hung::over("/srv/far");
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert_eq!(outcome.status.signal(), Some(nix::libc::SIGALRM), "{}", outcome.story());
        assert!(outcome.out.is_empty() && outcome.marks.is_empty(), "{}", outcome.story());
        let took = outcome.took.as_secs();
        assert!((5..7).contains(&took), "{took} s");
    });
}

/// In a view a site has its own; where it shares the host's, it gets none of those that a database waits for.
#[test]
fn dos_08_what_the_host_has_for_all_is_not_one_sites_to_use_up() {
    let wishes = |all: &[&str]| all.iter().map(|wish| (*wish).to_owned()).collect::<Vec<_>>();
    let objects = || ["shm", "sem", "msg"].map(|kind| fs::read(format!("/proc/sysvipc/{kind}")).unwrap());
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&small(jail));
            for user in [&world.alice, &world.bob] {
                world.escape(user, "a.cgi");
            }
            let report = tries(world.call(&world.alice, "a.cgi"), &wishes(&["queue:q", "aio:65536"]));
            assert_eq!(
                (report.attempt("queue"), report.attempt("aio")),
                ("EPERM", "ENOSYS"),
                "{}",
                report.text()
            );
            if jail == "host" {
                return;
            }
            let before = objects();
            let all = ["segment:4096", "semaphores:1", "messages:1"];
            let report = tries(world.call(&world.alice, "a.cgi"), &wishes(&all));
            for name in all.map(|wish| wish.split(':').next().unwrap()) {
                assert_eq!(report.attempt(name), "done", "{name}: {}", report.text());
            }
            // Not more than a /dev/shm: it would stay.
            let report = tries(world.call(&world.alice, "a.cgi"), &wishes(&["segment:67108864"]));
            assert_eq!(report.attempt("segment"), "ENOSPC", "{}", report.text());
            assert!(objects() == before, "they are the host's");
            // The first of a namespace: its own programs find it again, and no others.
            let attached =
                |user| tries(world.call(user, "a.cgi"), &wishes(&["shm:0"])).attempt("shm").to_owned();
            assert_eq!(
                (attached(&world.alice), attached(&world.bob)),
                ("done".to_owned(), "EINVAL".to_owned())
            );
        });
    }
}

/// A record is written by the site's user, for whom a file system keeps nothing: the room for it is taken before, by root.
#[test]
fn dos_09_a_site_that_fills_the_disk_of_the_log_stops_no_other() {
    world(Launcher::Cellwall, |world| {
        let (kind, options) = (Some("tmpfs"), Some("size=8m,mode=755"));
        mount(kind, "/var/log/cellwall", kind, MsFlags::empty(), options).unwrap();
        world.probe(&world.bob, "a.cgi");
        world.call(&world.bob, "a.cgi").run().ran();
        let mut filler = fs::File::create("/var/log/cellwall/filler").unwrap();
        while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
        // More records than the log's last page holds.
        for _ in 0..40 {
            world.call(&world.bob, "a.cgi").run().ran();
        }
    });
}
