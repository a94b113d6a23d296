//! Whom a launch may become: IDN-01 to IDN-11 of the threat catalogue.

use std::fs;

use crate::harness::{
    CELLWALL, Call, Launcher, Outcome, Report, World, append, each_jail, make_directory, mode, put, small,
    world,
};

#[test]
fn the_program_has_its_owners_identity_and_nothing_else() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let id = world.alice.id;
        // The caller's own groups must not follow.
        let report = world.call(&world.alice, "a.cgi").caller(33, 33, "33,4,20,24,27,1000").run().ran();
        assert_eq!(report.fact("uid"), format!("{id} {id} {id}"));
        assert_eq!(report.fact("gid"), format!("{id} {id} {id}"));
        assert!(["", &id.to_string()].contains(&report.fact("groups")), "{}", report.fact("groups"));
        for set in ["effective", "permitted", "inheritable", "bounding", "ambient"] {
            assert_eq!(report.fact(&format!("cap_{set}")), "0000000000000000", "{set}");
        }
        assert_eq!(report.fact("no_new_privs"), "1");
        assert_eq!(report.fact("seccomp"), "2", "a filter is loaded");
    });
}

#[test]
fn there_is_no_way_back() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let report = world.call(&world.alice, "a.cgi").deed("escalate").run().ran();
        let ways = [
            "setuid",
            "setresuid",
            "setgid",
            "setresgid",
            "setgroups",
            "setfsuid",
            "capset",
            "chroot",
            "userns",
            "www_data",
            "nice",
        ];
        for way in ways {
            assert_ne!(report.attempt(way), "done", "{way}:\n{}", report.text());
        }
    });
}

#[test]
fn root_and_system_accounts_are_no_targets() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        for uid in ["0", "1", "33", "99"] {
            world.call(&world.alice, "a.cgi").word(1, uid).run().refused("P107", 107);
            world.call(&world.alice, "a.cgi").word(1, format!("~{uid}")).run().refused("P107", 107);
        }
        for gid in ["0", "4", "33", "42"] {
            world.call(&world.alice, "a.cgi").word(2, gid).run().refused("P108", 108);
        }
    });
}

#[test]
fn a_uid_without_a_site_is_no_target() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        for uid in ["65534", "29999", "4294967294"] {
            world.call(&world.alice, "a.cgi").word(1, uid).run().refused("P121", 121);
        }
    });
}

#[test]
fn a_group_that_the_site_does_not_name_is_refused() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let bob = world.bob.id.to_string();
        // Even when the files match: suEXEC runs this one.
        let id = Some(world.bob.id);
        std::os::unix::fs::chown(world.alice.docroot().join("a.cgi"), None, id).unwrap();
        std::os::unix::fs::chown(world.alice.docroot(), None, id).unwrap();
        world.call(&world.alice, "a.cgi").word(2, bob).run().refused("P02", 83);
    });
}

#[test]
fn powerful_groups_do_not_follow() {
    each_jail(|world| {
        for name in ["shadow", "disk", "adm", "docker", "sudo"] {
            let all = fs::read_to_string("/etc/group").unwrap();
            let found = all.lines().find(|line| line.starts_with(&format!("{name}:"))).map(str::to_owned);
            let line = found.unwrap_or_else(|| format!("{name}:x:900:"));
            let joined = format!("{line}{}alice", if line.ends_with(':') { "" } else { "," });
            fs::write("/etc/group", all.replace(&format!("{line}\n"), "")).unwrap();
            append("/etc/group", &format!("{joined}\n"));
        }
        append("/etc/group", &format!("club:x:{}:alice\n", world.alice.id + 500_000));
        world.probe(&world.alice, "a.cgi");
        let said = world.cellwall(&["apply"]);
        if !said.status.success() {
            let told = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(told.contains("shadow"), "apply may refuse it, but must name the group: {told}");
            return;
        }
        let report = world.call(&world.alice, "a.cgi").run().ran();
        for group in report.fact("groups").split(' ') {
            let number: u32 = group.parse().unwrap();
            assert!(number >= 1000, "group {number} followed:\n{}", report.text());
        }
        let club = (world.alice.id + 500_000).to_string();
        assert!(report.fact("groups").split(' ').any(|group| group == club), "{}", report.fact("groups"));
    });
}

#[test]
fn only_the_web_server_may_call() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let bob = world.bob.id;
        for (uid, gid) in [(bob, bob), (0, 0), (65534, 65534), (world.alice.id, 33)] {
            world.call(&world.alice, "a.cgi").caller(uid, gid, "33").run().refused("P103", 103);
        }
        // The mode of the file alone keeps everybody else from starting it.
        let stopped = world.call(&world.alice, "a.cgi").caller(bob, bob, "").run();
        assert_eq!(stopped.status.code(), Some(250), "{}", stopped.story());
        assert!(stopped.err_text().contains("Permission denied"), "{}", stopped.story());
    });
}

#[test]
fn a_uid_that_was_given_to_somebody_else_is_refused() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        let home = world.alice.home();
        fs::rename(&home, "/home/alice-is-gone").unwrap();
        make_directory(&home, world.alice.id, 0o755);
        let refused = world.call(&world.alice, "a.cgi").run().refused_somehow();
        assert!(refused.field("why").contains("/home/alice"), "{}", refused.line);
        world.apply();
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn a_user_who_is_gone_runs_until_the_policy_is_applied_and_not_after() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let others: String = fs::read_to_string("/etc/passwd")
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with("alice:"))
            .fold(String::new(), |all, line| all + line + "\n");
        fs::write("/etc/passwd", others).unwrap();
        // The policy holds numbers: no name service is asked at a launch.
        world.call(&world.alice, "a.cgi").run().ran();
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        world.apply();
        world.call(&world.alice, "a.cgi").run().refused("P121", 121);
    });
}

/// Without root's rights there is no way to the log file; the log daemon hears of it.
fn without_root(world: &World, prepare: impl Fn(Call<'_>) -> Call<'_>, hint: &str) {
    world.probe(&world.alice, "a.cgi");
    let daemon = world.syslog();
    let outcome = prepare(world.call(&world.alice, "a.cgi")).run();
    outcome.refused_in_the_dark(81);
    let heard = daemon.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(
        heard[0].contains("code=A01") && heard[0].contains(hint),
        "the hint names the cause ({hint}): {heard:?}"
    );
}

#[test]
fn without_its_set_uid_bit_it_says_so() {
    world(Launcher::Cellwall, |world| {
        without_root(world, |call| call.order(&["no_new_privs"]), "no_new_privs");
    });
    world(Launcher::Cellwall, |world| {
        mode(CELLWALL, 0o755);
        without_root(world, |call| call, "set-uid");
    });
}

#[test]
fn a_copy_on_a_nosuid_mount_says_so() {
    world(Launcher::Cellwall, |world| {
        let flags = nix::mount::MsFlags::MS_NOSUID;
        make_directory("/srv/copy", 0, 0o755);
        nix::mount::mount(Some("tmpfs"), "/srv/copy", Some("tmpfs"), flags, None::<&str>).unwrap();
        put("/srv/copy/launcher", &fs::read(CELLWALL).unwrap(), 0, 0o4755);
        without_root(world, |call| call.program("/srv/copy/launcher"), "nosuid");
    });
}

#[test]
fn the_root_of_a_user_namespace_is_not_root() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").order(&["userns"]).run();
        assert!(outcome.marks.is_empty() && !outcome.out_text().contains("probe"), "{}", outcome.story());
        assert!(matches!(outcome.status.code(), Some(81..=87 | 101..=126)), "{}", outcome.story());
    });
}

#[test]
fn securebits_and_missing_capabilities_never_give_half_an_identity() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let ordinary = world.call(&world.alice, "a.cgi").run().ran();
        // no-setuid-fixup; keep-caps with its lock; no-root; all of them.
        for bits in ["0x4", "0x10", "0x30", "0x1", "0x15"] {
            let outcome = world.call(&world.alice, "a.cgi").root(&["securebits", bits]).run();
            same_or_nothing(&outcome, &ordinary);
        }
        // CHOWN, SETGID, SETUID, SETPCAP, SYS_ADMIN, SYS_CHROOT, SYS_RESOURCE, DAC_OVERRIDE, DAC_READ_SEARCH
        for capability in ["0", "6", "7", "8", "21", "18", "24", "1", "2"] {
            let outcome = world.call(&world.alice, "a.cgi").root(&["bound", capability]).run();
            same_or_nothing(&outcome, &ordinary);
        }
    });
}

fn same_or_nothing(outcome: &Outcome, ordinary: &Report) {
    if outcome.out_text().contains("\nprobe\n") {
        let report = outcome.ran();
        for fact in
            ["uid", "gid", "groups", "cap_effective", "cap_permitted", "cap_inheritable", "cap_ambient"]
        {
            assert_eq!(report.fact(fact), ordinary.fact(fact), "{}", outcome.story());
        }
        assert_eq!(report.fact("no_new_privs"), "1");
    } else {
        assert!(outcome.marks.is_empty(), "{}", outcome.story());
        assert!(matches!(outcome.status.code(), Some(81..=87 | 101..=126)), "{}", outcome.story());
    }
}

#[test]
fn sites_of_one_user_are_told_apart_by_their_place() {
    world(Launcher::Cellwall, |world| {
        make_directory("/var/www/alice/second", world.alice.id, 0o755);
        let text = small("host");
        fs::write(
            "/etc/cellwall/sites.d/second.toml",
            format!("user = \"alice\"\ndocroot = \"/var/www/alice/second\"\n{text}"),
        )
        .unwrap();
        world.apply();
        world.probe(&world.alice, "a.cgi");
        world.probe_at(&world.alice, "/var/www/alice/second/a.cgi");
        let first = world.call(&world.alice, "a.cgi").run();
        let second = world.call(&world.alice, "a.cgi").cwd("/var/www/alice/second").run();
        first.ran();
        second.ran();
        assert_eq!((first.records[0].field("site"), second.records[0].field("site")), ("alice", "second"));
    });
}
