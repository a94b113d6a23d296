//! Where records go, and what happens when they cannot go there.

use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::harness::{LOG, Launcher, mode, run, small, world};

#[test]
fn syslog_hears_launches_and_refusals() {
    world(Launcher::Cellwall, |world| {
        let daemon = world.syslog();
        world.log_rules("to = \"syslog\"");
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
        world.log_rules("to = \"file\"");
        drop(fs::remove_file(LOG));
        fs::create_dir(LOG).unwrap();
        daemon.heard();
        let outcome = world.call(&world.alice, "a.cgi").unrecorded();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.story());
        assert!(daemon.heard()[0].contains(": launch ref="));
    });
}

#[test]
fn an_apply_is_told_to_the_system_log_and_waits_for_no_daemon_of_it() {
    world(Launcher::Cellwall, |world| {
        let daemon = world.syslog();
        world.apply();
        let heard = daemon.heard();
        assert!(heard.len() == 1 && heard[0].contains(" cellwall["), "{heard:?}");
        assert!(heard[0].contains("]: apply by uid 0: 0 written, 0 removed, "), "{heard:?}");
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"<86>x", "/dev/log").is_ok() {}
        let said = run(Command::new("timeout").args(["20", "cellwall", "apply"]));
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && text.contains("the system log was not told"), "{said:?}");
    });
}

#[test]
fn old_tools_find_the_lines_of_suexec() {
    world(Launcher::Cellwall, |world| {
        world.log_rules("to = \"file\"\nformat = \"suexec\"");
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

/// Inside a cell there may be another zone, or none.
#[test]
fn all_lines_of_suexec_have_the_hosts_time() {
    world(Launcher::Cellwall, |world| {
        drop(fs::remove_file("/etc/localtime"));
        std::os::unix::fs::symlink("/usr/share/zoneinfo/Asia/Tokyo", "/etc/localtime").unwrap();
        world.log_rules("to = \"file\"\nformat = \"suexec\"");
        world.script(&world.alice, "a.cgi", "#!/bin/sh\n");
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        drop(fs::remove_file(LOG));
        world.call(&world.alice, "a.cgi").unrecorded();
        world.call(&world.alice, "missing").unrecorded();
        let text = fs::read_to_string(LOG).unwrap();
        let hours: Vec<&str> = text.lines().filter_map(|line| line.get(12..14)).collect();
        let now = Command::new("date").arg("+%H").env("TZ", "Asia/Tokyo").output().unwrap();
        let now = String::from_utf8(now.stdout).unwrap();
        assert_eq!(hours, [now.trim(); 3], "{text}");
    });
}

/// The site's own limit is in force when its program cannot be started; the log is older, and larger than the limit.
#[test]
fn a_start_that_fails_is_recorded_though_the_log_is_larger_than_the_sites_files_may_be() {
    world(Launcher::Cellwall, |world| {
        let daemon = world.syslog();
        for jail in ["host", "view"] {
            world.sites(&format!("{}[limits]\nfile_size = \"16K\"\n", small(jail)));
            let program = world.probe(&world.alice, "a.cgi");
            world.call(&world.alice, "missing").run().refused("V117", 117);
            let line = fs::read(LOG).unwrap();
            let last = line.split_inclusive(|byte| *byte == b'\n').next_back().unwrap();
            fs::write(LOG, last.repeat(32 * 1024 / last.len())).unwrap();
            // What the administrator's command said of its own.
            daemon.heard();
            world.call(&world.alice, "a.cgi").run().ran();
            assert!(daemon.heard().is_empty());
            let writer = OpenOptions::new().append(true).open(&program).unwrap();
            let outcome = world.call(&world.alice, "a.cgi").run();
            drop(writer);
            let story = outcome.story();
            assert_eq!(outcome.status.code(), Some(255), "{story}");
            let heard = daemon.heard();
            let reference = outcome.records[0].field("ref");
            assert!(
                heard.len() == 1 && heard[0].contains(&format!("refuse ref={reference} code=X26 ")),
                "{heard:?} {story}"
            );
            assert!(!outcome.err_text().contains("lost"), "{story}");
        }
    });
}
