//! Where records go, and what happens when they cannot go there.

use std::fs;
use std::time::Duration;

use crate::harness::{LOG, Launcher, World, mode, world};

fn log_rules(world: &World, rules: &str) {
    let text = format!("caller = \"www-data\"\ndocroot = \"/var/www\"\n[log]\n{rules}\n");
    fs::write("/etc/cellwall/cellwall.toml", text).unwrap();
    world.apply();
    world.probe(&world.alice, "a.cgi");
}

#[test]
fn syslog_hears_launches_and_refusals() {
    world(Launcher::Cellwall, |world| {
        let daemon = world.syslog();
        log_rules(world, "to = \"syslog\"");
        daemon.heard();
        world.call(&world.alice, "a.cgi").unrecorded();
        world.call(&world.alice, "missing").unrecorded();
        let heard = daemon.heard();
        assert_eq!(heard.len(), 2, "{heard:?}");
        // Facility authpriv, priority info.
        assert!(
            heard.iter().all(|line| line.starts_with("<86>") && line.contains(" cellwall-suexec[")),
            "{heard:?}"
        );
        assert!(heard[0].contains(": launch ref=") && heard[1].contains(" code=V117 "), "{heard:?}");
        assert!(!fs::exists(LOG).unwrap() || fs::read(LOG).unwrap().is_empty());
    });
}

#[test]
fn where_the_file_cannot_be_written_syslog_hears_it() {
    world(Launcher::Cellwall, |world| {
        let daemon = world.syslog();
        log_rules(world, "to = \"file\"");
        drop(fs::remove_file(LOG));
        fs::create_dir(LOG).unwrap();
        daemon.heard();
        let outcome = world.call(&world.alice, "a.cgi").unrecorded();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.story());
        assert!(daemon.heard()[0].contains(": launch ref="));
    });
}

#[test]
fn where_nobody_listens_the_file_has_it() {
    world(Launcher::Cellwall, |world| {
        log_rules(world, "to = \"syslog\"");
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        assert_eq!(outcome.records.len(), 1);
    });
}

#[test]
fn a_full_disk_stops_a_strict_host_and_no_other() {
    world(Launcher::Cellwall, |world| {
        for (strict, status, ran) in [("true", Some(1), 0), ("false", Some(0), 1)] {
            log_rules(world, &format!("to = \"file\"\nstrict = {strict}"));
            drop(fs::remove_file(LOG));
            // A file system of one page, and that page is used.
            world_full("/var/log/cellwall");
            let outcome = world.call(&world.alice, "a.cgi").unrecorded();
            assert_eq!(outcome.status.code(), status, "strict = {strict}: {}", outcome.story());
            assert_eq!(outcome.marks.len(), ran, "strict = {strict}: {}", outcome.story());
            assert!(
                strict == "false" || outcome.err_text().contains("its record is lost"),
                "{}",
                outcome.story()
            );
            nix::mount::umount("/var/log/cellwall").unwrap();
        }
    });
}

fn world_full(place: &str) {
    let options = Some("size=4k,nr_inodes=10,mode=755");
    nix::mount::mount(Some("tmpfs"), place, Some("tmpfs"), nix::mount::MsFlags::empty(), options).unwrap();
    fs::write(format!("{place}/filler"), [0; 4096]).unwrap();
}

#[test]
fn a_log_daemon_that_does_not_read_holds_nobody_up() {
    world(Launcher::Cellwall, |world| {
        let _silent = world.syslog();
        log_rules(world, "to = \"syslog\"\nstrict = false");
        let slowest = (0..30).map(|_| world.call(&world.alice, "a.cgi").unrecorded()).map(|outcome| {
            assert_eq!(outcome.status.code(), Some(0), "{}", outcome.story());
            outcome.took
        });
        assert!(slowest.max().unwrap() < Duration::from_secs(1));
    });
}

#[test]
fn old_tools_find_the_lines_of_suexec() {
    world(Launcher::Cellwall, |world| {
        log_rules(world, "to = \"file\"\nformat = \"suexec\"");
        drop(fs::remove_file(LOG));
        world.call(&world.alice, "a.cgi").unrecorded();
        mode(world.alice.docroot().join("a.cgi"), 0o777);
        world.call(&world.alice, "a.cgi").unrecorded();
        let text = fs::read_to_string(LOG).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let id = world.alice.id;
        for line in &lines {
            // [YYYY-MM-DD HH:MM:SS]: …
            let (stamp, rest) = line.split_at(23);
            let shape: String =
                stamp.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
            assert_eq!(shape, "[0000-00-00 00:00:00]: ", "{line}");
            assert!(!rest.is_empty());
        }
        assert!(lines[0].ends_with(&format!("uid: ({id}/alice) gid: ({id}/alice) cmd: a.cgi")), "{text}");
        assert!(lines[2].contains("is writable by others") && lines[2].contains("V118"), "{text}");
    });
}
