//! `cellwall explain`: the rehearsal says what the launch does.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Hung, Launcher, World, each_jail, make_directory, mode, put, run, small, world};

fn rehearse(world: &World) -> (Option<i32>, String) {
    let said = world.cellwall(&["explain", "alice", "alice", "/var/www/alice/htdocs", "a.cgi"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    (said.status.code(), text)
}

#[test]
fn a_rehearsal_has_a_line_for_each_stage_and_runs_nothing() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let (records, marks) = (world.records().len(), world.marks().len());
        let (status, text) = rehearse(world);
        assert_eq!(status, Some(0), "{text}");
        let stages: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(
            stages,
            ["request", "authorize", "confine", "drop", "verify", "equip", "seal", "exec"],
            "{text}"
        );
        assert_eq!((world.records().len(), world.marks().len()), (records, marks));
    });
}

#[test]
fn a_rehearsal_refuses_as_the_launch_does() {
    each_jail(|world| {
        let probe = world.probe(&world.alice, "a.cgi");
        for (rights, code, status) in [(0o777, "V118", 118), (0o4755, "V119", 119), (0o644, "V121", 121)] {
            mode(&probe, rights);
            let refused = world.call(&world.alice, "a.cgi").run().refused(code, status);
            let (ended, text) = rehearse(world);
            assert_eq!(ended, Some(1), "{text}");
            assert!(text.contains(code) && text.contains(refused.field("why")), "{text}");
            // The remedy is the one that is told of the launch.
            let why = world.cellwall(&["why", refused.field("ref")]).stdout;
            let why = String::from_utf8(why).unwrap();
            let repair = |text: &str| {
                let words = text.lines().find_map(|line| line.trim().strip_prefix("repair")).map(str::trim);
                words.unwrap_or_default().to_owned()
            };
            assert_eq!(repair(&text), repair(&why), "{text}\n{why}");
        }
    });
}

#[test]
fn a_command_that_looks_like_an_option_is_a_command() {
    each_jail(|world| {
        world.probe(&world.alice, "-a");
        world.call(&world.alice, "-a").run().ran();
        let said = world.cellwall(&["explain", "alice", "alice", "/var/www/alice/htdocs", "-a"]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    });
}

#[test]
fn the_manual_of_a_code_is_printed_and_an_unknown_one_is_answered_with_all() {
    each_jail(|world| {
        let said = world.cellwall(&["explain", "v118"]);
        assert!(said.status.success());
        assert!(String::from_utf8_lossy(&said.stdout).starts_with("V118 (status 118)"));
        let said = world.cellwall(&["explain", "V999"]);
        assert_eq!(said.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&said.stderr).contains("V118"));
    });
}

#[test]
fn a_rehearsal_that_hangs_ends_as_the_launch_does_and_shows_how_far_it_came() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        make_directory("/srv/far", 0, 0o755);
        world.sites(&format!("{}read = [\"/srv/far\"]\n", small("host")));
        let explain = || world.cellwall(&["explain", "alice", "alice", "/var/www/alice/htdocs", "a.cgi"]);
        assert!(explain().status.success());
        let _far = Hung::over("/srv/far");
        let said = explain();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(said.status.code(), Some(1), "{text}");
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        assert!(last[2].starts_with("verify     ok") && last[1].contains(" REFUSED  A03 "), "{text}");
    });
}

#[test]
fn a_site_whose_file_has_a_mistake_is_led_to_it() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profil = \"static\"\n");
        std::fs::remove_file(format!("/var/lib/cellwall/policy/{}", world.alice.id)).ok();
        let (status, text) = rehearse(world);
        assert!(status == Some(1) && text.contains("REFUSED  P121"), "{text}");
        let repair = "repair   cellwall check /etc/cellwall/sites.d/alice.toml # mend";
        assert!(text.contains(repair) && text.contains("alice.toml:3:1"), "{text}");
        assert!(text.contains("did you mean `profile`?"), "{text}");
        world.site("alice", "profile = \"static\"\n");
        let (_, text) = rehearse(world);
        assert!(text.trim_end().ends_with("repair   cellwall apply"), "{text}");
    });
}

#[test]
fn a_command_is_bytes_as_it_is_to_the_launcher() {
    each_jail(|world| {
        let name = std::ffi::OsStr::from_bytes(b"a\xff.cgi");
        put(world.alice.docroot().join(name), b"#!/bin/sh\n", world.alice.id, 0o644);
        let mut explain = std::process::Command::new("/usr/bin/cellwall");
        explain.args(["explain", "alice", "alice", "/var/www/alice/htdocs"]).arg(name);
        let said = run(&mut explain);
        let text =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(text.contains("\"a\\xff.cgi\"") && text.contains("V121"), "{text}");
    });
}

#[test]
fn a_rehearsal_that_its_site_stops_ends_too() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Its owner may send signals from the drop on; here root does it, as fast.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for pid in processes_of(world.alice.id) {
                        let _ = kill(pid, Signal::SIGSTOP);
                    }
                }
            });
            let _stop = Stop(&done);
            // It has a fraction of a millisecond in which to be met.
            let end = Instant::now() + Duration::from_secs(120);
            while !rehearse(world).1.contains(" REFUSED  A03 ") {
                assert!(Instant::now() < end, "none was ever stopped in time");
            }
        });
        assert_eq!(processes_of(world.alice.id).count(), 0, "nothing stays");
    });
}

/// Sets the flag when it goes, also when an assertion fails: the other thread is waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn processes_of(uid: u32) -> impl Iterator<Item = Pid> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw).filter(move |pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("Uid:") && line.contains(&format!("\t{uid}")))
    })
}

#[test]
fn what_is_not_there_is_no_failure_of_the_system_and_each_remedy_is_whole() {
    world(Launcher::Cellwall, |world| {
        let directory = "/var/www/alice/htdocs";
        for words in
            [["alise", "alice", directory], ["alice", "alise", directory], ["alice", "alice", "/nowhere"]]
        {
            let said = world.cellwall(&[&["explain"][..], &words, &["a.cgi"]].concat());
            assert_eq!(said.status.code(), Some(1), "{words:?}");
        }
        let said = world.cellwall(&["explain", "~alice", "alice", "/home/alice/public_html", "a.cgi"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(text.contains("P114") && text.contains("[userdir]") && !text.contains("{}"), "{text}");
    });
}
