//! One record a launch, and the same page for every visitor.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use crate::harness::{LOG, Launcher, each_jail, mode, world};

#[test]
fn a_launch_is_recorded_with_all_its_facts() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").run();
        let report = outcome.ran();
        let record = &outcome.records[0];
        let id = world.alice.id.to_string();
        for (name, value) in [
            ("site", "alice"),
            ("uid", &id),
            ("gid", &id),
            ("caller", "33"),
            ("dir", "/var/www/alice/htdocs"),
            ("script", "a.cgi"),
            ("pid", report.fact("pid")),
            ("seccomp", "on"),
        ] {
            assert_eq!(record.field(name), value, "{}", record.line);
        }
        assert!(["host", "view", "chroot"].contains(&record.field("jail")), "{}", record.line);
        let level: u32 =
            record.field("landlock").parse().unwrap_or_else(|_| panic!("no level: {}", record.line));
        assert!(level >= 1, "{}", record.line);
        let spent: u64 = record.field("us").parse().unwrap();
        assert!(spent < 5_000_000, "{}", record.line);
    });
}

#[test]
fn the_time_of_a_record_is_utc() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").env("TZ=Asia/Tokyo").run();
        let time = &outcome.records[0].time;
        let said = std::process::Command::new("date").args(["-u", "-d", time, "+%s"]).output().unwrap();
        let told: u64 =
            String::from_utf8_lossy(&said.stdout).trim().parse().unwrap_or_else(|_| panic!("{time}"));
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T' && now.abs_diff(told) < 60, "{time}");
    });
}

#[test]
fn every_refusal_shows_the_visitor_the_same_page() {
    world(Launcher::Cellwall, |world| {
        let probe = world.probe(&world.alice, "a.cgi");
        mode(&probe, 0o777);
        let call = || world.call(&world.alice, "a.cgi");
        let refusals = [
            call().run(),
            call().words(&["x"]).run(),
            call().word(1, "0").run(),
            call().word(1, "65534").run(),
            call().word(2, "0").run(),
            call().word(1, "root").run(),
            call().word(3, "missing").run(),
            call().word(3, "../x").run(),
            call().cwd("/").run(),
            call().caller(0, 0, "").run(),
            call().env("QUERY_STRING=1").env("QUERY_STRING=2").run(),
        ];
        let pages: BTreeSet<_> = refusals
            .iter()
            .map(|one| {
                one.refused_somehow();
                one.page()
            })
            .collect();
        assert_eq!(pages.len(), 1, "{pages:#?}");
        let page = pages.first().unwrap();
        for word in ["alice", "/var", "cellwall", "a.cgi", "suexec", "30001"] {
            assert!(!page.contains(word), "the page tells {word}:\n{page}");
        }
    });
}

#[test]
fn a_listening_socket_gets_no_page() {
    world(Launcher::Cellwall, |world| {
        let call = world.call(&world.alice, "missing.cgi").order(&["fd", "0", "listen", "/tmp/socket"]);
        let outcome = call.root(&["cwd", "/tmp"]).run();
        assert!(outcome.out.is_empty(), "a FastCGI server's stdout is its error log:\n{}", outcome.story());
        assert_eq!(outcome.status.code(), Some(117), "{}", outcome.story());
        assert_eq!(outcome.records.len(), 1, "{}", outcome.story());
    });
}

#[test]
fn references_are_never_the_same() {
    world(Launcher::Cellwall, |world| {
        let all: BTreeSet<_> = (0..200)
            .map(|_| world.call(&world.alice, "missing").run().refused("V117", 117).field("ref").to_owned())
            .collect();
        assert_eq!(all.len(), 200);
    });
}

#[test]
fn records_of_parallel_launches_are_whole_lines() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let before = world.records().len();
        thread::scope(|scope| {
            for _ in 0..8 {
                // The log is read when all is over: a line that is being written is no torn line.
                scope.spawn(|| (0..25).for_each(|_| drop(world.call(&world.alice, "a.cgi").unrecorded())));
            }
        });
        let records = world.records().split_off(before);
        assert_eq!(records.len(), 200);
        assert!(records.iter().all(|record| record.verb == "launch"));
    });
}

#[test]
fn names_cannot_forge_a_record() {
    world(Launcher::Cellwall, |world| {
        for name in ["x\" code=V000 why=\"", "%s%n%s", "a b=c", "ref=1234", "\\x22"] {
            let refused = world.call(&world.alice, name).run().refused("V117", 117);
            assert!(refused.get("why").unwrap().contains("htdocs"), "{}", refused.line);
        }
    });
}

#[test]
fn a_log_that_is_not_a_plain_file_of_roots_is_not_written() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let other = "/srv/other";
        fs::write(other, "untouched").unwrap();
        for kind in ["symlink", "hard link", "fifo", "foreign"] {
            drop(fs::remove_file(LOG));
            match kind {
                "symlink" => std::os::unix::fs::symlink(other, LOG).unwrap(),
                "fifo" => nix::unistd::mkfifo(LOG, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap(),
                "hard link" => {
                    fs::write("/var/log/cellwall/first", "untouched").unwrap();
                    fs::hard_link("/var/log/cellwall/first", LOG).unwrap();
                }
                _ => {
                    fs::write(LOG, "").unwrap();
                    std::os::unix::fs::chown(LOG, Some(world.bob.id), None).unwrap();
                }
            }
            let call = world.call(&world.alice, "a.cgi").unrecorded();
            assert!(call.took < std::time::Duration::from_secs(2), "{kind}: {:?}", call.took);
            assert_eq!(fs::read(other).unwrap(), b"untouched", "{kind}");
            if kind == "hard link" {
                assert_eq!(fs::read(LOG).unwrap(), b"untouched", "{kind}");
            }
            if kind == "foreign" {
                assert_eq!(fs::read(LOG).unwrap(), b"", "{kind}");
            }
            // There is no /dev/log in a world: the record is lost, and strict is the default.
            assert_eq!(call.status.code(), Some(1), "{kind}: {}", call.story());
            assert!(call.marks.is_empty(), "{kind}: {}", call.story());
        }
    });
}
