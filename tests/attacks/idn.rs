//! Whom a launch may become: IDN-01 to IDN-12 of the threat catalogue.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use cellwall::policy::{DIRECTORY, decode, encode};
use nix::mount::{MsFlags, mount};

use crate::harness::{Launcher, append, each_jail, everything, make_directory, not_shown, traced, world};

/// What is set is read back and asked for again, by the launcher itself: no kernel of ours leaves anything to be found.
#[test]
fn idn_07_that_root_is_gone_is_proven_before_anything_of_the_sites_is_looked_at() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").strace(&[]).run().ran();
        let calls = traced();
        let position = |from: usize, word: &str| {
            let found = calls.iter().skip(from).position(|call| call.contains(word));
            from + found.unwrap_or_else(|| panic!("no {word} in\n{}", calls.join("\n")))
        };
        let drop = position(0, &format!(" setresuid({}", world.alice.id));
        let mut last = drop;
        for word in ["getresuid", "getresgid", "getgroups", " setresuid(0, 0, 0)", "capget"] {
            last = position(last, word);
            assert!(!word.contains('(') || calls[last].contains("EPERM"), "{}", calls[last]);
        }
        let looked = position(drop, "openat2");
        assert!(last < looked, "{}", calls[drop..=looked].join("\n"));
    });
}

#[test]
fn idn_07_the_program_has_its_owners_identity_and_nothing_else() {
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
fn idn_07_there_is_no_way_back() {
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
fn idn_01_03_04_root_and_system_accounts_are_no_targets() {
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
fn idn_06_a_group_that_the_site_does_not_name_is_refused() {
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
fn idn_05_powerful_groups_do_not_follow() {
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
        world.apply();
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
fn idn_09_only_the_web_server_may_call() {
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
fn idn_11_a_uid_that_was_given_to_somebody_else_is_refused() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        // Her number is another's, her home and her files are there still: nothing but the name tells.
        let (before, uid) = (accounts(), world.alice.id);
        for others in [
            before.replace("\nalice:", "\ncarol:"),
            before.replace("\nalice:", "\nalicia:"),
            format!("{}alice:x:30077:30077::/home/alice:/bin/sh\n", before.replace("\nalice:", "\ncarol:")),
            before.replace(&format!("\nalice:x:{uid}:"), "\nalice:x::"),
        ] {
            fs::write("/etc/passwd", &others).unwrap();
            let refused = world.call(&world.alice, "a.cgi").run().refused("P03", 83);
            assert!(refused.field("why").contains("alice"), "{}", refused.line);
        }
        // The policy is not renewed as long as her site is hers by name.
        assert!(!world.cellwall(&["apply"]).status.success());
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        fs::write("/etc/passwd", before).unwrap();
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn idn_11_a_home_that_is_another_one_is_refused() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        let home = world.alice.home();
        fs::rename(&home, "/home/alice-is-gone").unwrap();
        make_directory(&home, world.alice.id, 0o755);
        let refused = world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        assert!(refused.field("why").contains("/home/alice"), "{}", refused.line);
        world.apply();
        world.call(&world.alice, "a.cgi").run().ran();
        // One that was given the number of the old one was born at another time.
        let file = format!("{DIRECTORY}/{}", world.alice.id);
        let bytes = fs::read(&file).unwrap();
        let mut record = decode::record(&bytes).unwrap();
        record.sites[0].identity.home_born += 1;
        fs::write(&file, encode::record(&record)).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
    });
}

/// Whoever gets an old uid and calls a site as its last owner did; and whoever comes back, or moves to another disk.
#[test]
fn idn_11_what_a_site_leaves_behind_is_no_other_owners() {
    world(Launcher::Cellwall, |world| {
        let rules = everything("view");
        world.sites(&rules);
        let inside = |command: &str| {
            let said = world.cellwall(&["run", "alice", "--", "/bin/sh", "-c", command]);
            String::from_utf8_lossy(&said.stdout).into_owned()
        };
        let goes = || {
            fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
            world.apply();
        };
        let comes = || {
            world.site("alice", &rules);
            world.apply();
        };
        let moves = |aside: &str| {
            fs::rename(world.alice.home(), aside).unwrap();
            make_directory(world.alice.home(), world.alice.id, 0o755);
        };
        assert_eq!(inside("echo old > /tmp/file; cat /tmp/file"), "old\n");
        // The home is on another disk: who applies that says that it is the same account.
        moves("/home/first");
        world.apply();
        assert_eq!(inside("cat /tmp/file"), "old\n");
        goes();
        let own = format!("/var/lib/cellwall/private/{}", world.alice.id);
        assert!(!fs::exists(own).unwrap());
        let gone = "/var/lib/cellwall/private/.gone";
        assert_eq!(fs::metadata(gone).unwrap().mode() & 0o7777, 0o700);
        comes();
        assert_eq!(inside("cat /tmp/file"), "old\n");
        goes();
        moves("/home/second");
        comes();
        assert_eq!(inside("cat /tmp/file || echo nothing"), "nothing\n");
        assert_eq!(fs::read_dir(gone).unwrap().count(), 1);
    });
}

/// It was not mounted when the policy was applied.
#[test]
fn idn_11_a_home_of_an_automounters_is_whichever_is_there() {
    world(Launcher::Cellwall, |world| {
        make_directory("/mnt/auto", 0, 0o755);
        let (_pipe, end) = nix::unistd::pipe().unwrap();
        // Processes of this group are the automounter itself to the kernel, and wait for nobody.
        let (end, group) = (end.as_raw_fd(), nix::unistd::getpgrp());
        let options = format!("fd={end},pgrp={group},minproto=5,maxproto=5,indirect");
        let mounted =
            mount(Some("auto"), "/mnt/auto", Some("autofs"), MsFlags::empty(), Some(options.as_str()));
        if mounted.is_err() {
            return not_shown("homes of an automounter: this kernel has no autofs");
        }
        make_directory("/mnt/auto/alice", 0, 0o755);
        let homes = accounts().replace(":/home/alice:", ":/mnt/auto/alice:");
        fs::write("/etc/passwd", homes).unwrap();
        world.apply();
        world.probe(&world.alice, "a.cgi");
        mount(Some("none"), "/mnt/auto/alice", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn idn_11_other_accounts_may_come_and_go() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let before = accounts();
        let many: String = (0..20_000).fold(String::new(), |all, n| {
            all + &format!(
                "customer{n}:x:{}:{}:Customer number {n}:/home/customer{n}:/bin/sh\n",
                100_000 + n,
                100_000 + n
            )
        });
        let (first, rest) = before.split_once('\n').unwrap();
        for others in [
            format!("{before}dave:x:30055:30055::/home/dave:/bin/sh\n"),
            // A name of which hers is a part; a second line of hers, which no lookup finds; a line without an end.
            format!("malice:x:1:1::/:/bin/sh\nalice2:x:2:2::/:/bin/sh\n{before}alice:x:5:5::/:/bin/sh"),
            // So many that her line is read in another piece of the file.
            format!("{first}\n{many}{rest}"),
        ] {
            fs::write("/etc/passwd", others).unwrap();
            world.call(&world.alice, "a.cgi").run().ran();
        }
        let longer = world.call(&world.alice, "a.cgi").strace(&[]).run();
        longer.ran();
        assert!(traced().iter().any(|call| call.contains("open") && call.contains("\"/etc/passwd\"")));
        // Once all sites have been applied the file is looked at, and not read.
        world.apply();
        world.call(&world.alice, "a.cgi").strace(&[]).run().ran();
        assert!(!traced().iter().any(|call| call.contains("open") && call.contains("\"/etc/passwd\"")));
    });
}

#[test]
fn idn_10_a_user_who_is_gone_is_refused() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let before = accounts();
        let others: String = before
            .lines()
            .filter(|line| !line.starts_with("alice:"))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write("/etc/passwd", others).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        fs::remove_file("/etc/passwd").unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        fs::write("/etc/passwd", before).unwrap();
        world.call(&world.alice, "a.cgi").run().ran();
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        world.apply();
        world.call(&world.alice, "a.cgi").run().refused("P121", 121);
    });
}

#[test]
fn idn_10_an_account_of_a_directory_service_is_bound_to_its_home() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let (before, uid) = (accounts(), world.alice.id);
        let (hers, others): (Vec<&str>, Vec<&str>) =
            before.lines().partition(|line| line.starts_with("alice:"));
        // The name service has a second source, as with LDAP or SSSD; libnss-extrausers reads it from a file.
        fs::create_dir_all("/var/lib/extrausers").unwrap();
        fs::write("/var/lib/extrausers/passwd", hers.join("\n") + "\n").unwrap();
        fs::write("/etc/nsswitch.conf", "passwd: files extrausers\ngroup: files\n").unwrap();
        fs::write("/etc/passwd", others.join("\n") + "\n").unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        world.apply();
        let report = world.call(&world.alice, "a.cgi").run().ran();
        assert_eq!(report.fact("uid"), format!("{uid} {uid} {uid}"));
        append("/etc/passwd", "dave:x:30055:30055::/home/dave:/bin/sh\n");
        world.call(&world.alice, "a.cgi").run().ran();
        fs::rename(world.alice.home(), "/home/alice-is-gone").unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
    });
}

fn accounts() -> String {
    fs::read_to_string("/etc/passwd").unwrap()
}

#[test]
fn idn_02_the_number_that_is_no_user_is_refused_and_never_run() {
    world(Launcher::Cellwall, |world| {
        append("/etc/passwd", "wrap:x:4294967295:4294967295::/home/wrap:/bin/sh\n");
        append("/etc/group", "wrap:x:4294967295:\nclub:x:77777:wrap\n");
        world.probe(&world.alice, "a.cgi");
        for word in ["4294967295", "-1", "wrap", "~4294967295"] {
            world.call(&world.alice, "a.cgi").word(1, word).run().refused("R105", 105);
        }
        make_directory("/var/www/wrap", 0, 0o755);
        make_directory("/home/wrap", 0, 0o755);
        let text = "user = \"wrap\"\ngroup = \"club\"\ndocroot = \"/var/www/wrap\"\nprofile = \"static\"\n";
        fs::write("/etc/cellwall/sites.d/wrap.toml", text).unwrap();
        // For the kernel it means "leave it as it is": who set it and did not look would still be root.
        let applied = world.cellwall(&["apply"]);
        let why = String::from_utf8_lossy(&applied.stderr).into_owned();
        assert!(!applied.status.success() && why.contains("uid 4294967295 of `wrap` is no user's"), "{why}");
        let said = world.cellwall(&["run", "wrap", "--", "/usr/bin/id"]);
        let told = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(!said.status.success() && !told.contains("uid="), "{told}");
    });
}

#[test]
fn idn_03_04_no_site_is_configured_for_a_system_account() {
    world(Launcher::Cellwall, |world| {
        append("/etc/passwd", "toor:x:0:0::/root:/bin/sh\nlow:x:999:30001::/home/low:/bin/sh\n");
        // Each has its own message, and not one about the docroot, which is alice's.
        for (user, group, why) in [
            ("root", "", "no site runs as root"),
            ("toor", "", "no site runs as root"),
            ("low", "", "uid 999 of `low` is below"),
            ("www-data", "", "uid 33 of `www-data` is below"),
            ("alice", "group = \"root\"\n", "gid 0 is below"),
            ("alice", "group = \"shadow\"\n", "gid 42 is below"),
        ] {
            let text = format!(
                "user = \"{user}\"\n{group}docroot = \"/var/www/alice/htdocs\"\nprofile = \"static\"\n"
            );
            fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
            let said = world.cellwall(&["check"]);
            let told = String::from_utf8_lossy(&said.stderr);
            assert!(!said.status.success() && told.contains(why), "{user} {group}: {told}");
        }
    });
}

#[test]
fn idn_12_no_name_service_is_asked() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        // Whoever asks would wait for a module that is not there, and then for a file that is not there.
        fs::write("/etc/nsswitch.conf", "passwd: sleeps files\ngroup: sleeps files\n").unwrap();
        fs::remove_file("/etc/group").unwrap();
        world.call(&world.alice, "a.cgi").strace(&[]).run().ran();
        for call in traced() {
            for word in ["libnss", "/etc/group", "nscd", "AF_INET", ".so"] {
                assert!(!call.contains(word), "a launch asks: {call}");
            }
            // When it was changed is looked at.
            assert!(!call.contains("open") || !call.contains("/etc/passwd"), "a launch reads: {call}");
        }
    });
}
