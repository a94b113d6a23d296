//! `cellwall explain`: the rehearsal says what the launch does.

use crate::harness::{Hung, Launcher, World, each_jail, make_directory, mode, small, world};

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
            assert!(
                text.contains(code)
                    && text.contains(refused.field("why"))
                    && text.contains(refused.field("fix")),
                "{text}"
            );
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
