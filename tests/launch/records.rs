//! One record a launch, and the same page for every visitor.

use crate::harness::{Launcher, each_jail, make_directory, mode, small, world};

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
        let rules = std::fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
        let jail = if rules.contains("kind = \"view\"") { "view" } else { "host" };
        assert_eq!(record.field("jail"), jail, "{}", record.line);
        let level: u32 =
            record.field("landlock").parse().unwrap_or_else(|_| panic!("no level: {}", record.line));
        assert!(level >= 1, "{}", record.line);
        let spent: u64 = record.field("us").parse().unwrap();
        assert!(spent < 5_000_000, "{}", record.line);
    });
}

#[test]
fn long_names_push_no_fact_out_of_a_record() {
    each_jail(|world| {
        // Two bytes a letter, four characters a byte: what does not fit is cut inside its own quotes.
        let name = "\u{3b1}".repeat(120);
        let place = world.alice.docroot().join(&name);
        make_directory(&place, world.alice.id, 0o755);
        world.probe_at(&world.alice, place.join(&name));
        let outcome = world.call(&world.alice, &name).cwd(&place).run();
        outcome.ran();
        let record = &outcome.records[0];
        assert!(record.field("us").parse::<u64>().is_ok(), "{}", record.line);
        assert!(record.field("script").ends_with("[cut]"), "{}", record.line);
        mode(place.join(&name), 0o777);
        let refused = world.call(&world.alice, &name).cwd(&place).run().refused("V118", 118);
        assert!(refused.line.len() <= 1100, "{}", refused.line);
        // A remedy is whole, or it is the way to the manual.
        let fix = refused.field("fix");
        assert!(fix == "cellwall explain V118" || fix == "cellwall fix --apply alice", "{}", refused.line);
        assert!(!fix.contains("[cut]") && !fix.contains("\\x"), "{}", refused.line);
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
fn the_evidence_names_the_directory_that_is_closed() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&small(jail));
            world.probe(&world.alice, "a.cgi");
            world.call(&world.alice, "a.cgi").run().ran();
            // The web server gets through, the site does not.
            std::os::unix::fs::chown("/var/www/alice", None, Some(33)).unwrap();
            mode("/var/www/alice", 0o710);
            let outcome = world.call(&world.alice, "a.cgi").run();
            let record = outcome.refused("V115", 115);
            assert!(
                record.field("why").starts_with("/var/www/alice: Permission denied"),
                "{}",
                outcome.story()
            );
        });
    }
}
