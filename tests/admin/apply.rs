//! `cellwall apply` on a host that does not answer, and `check` of what is around the sites.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{Hung, Launcher, SUEXEC, everything, make_directory, put, small, world};

#[test]
fn a_name_service_that_does_not_answer_holds_up_no_site_of_a_local_account() {
    world(Launcher::Cellwall, |world| {
        // As with a directory service that is gone, and no time limit of its own.
        put("/usr/bin/getent", b"#!/bin/sh\nexec sleep 1000\n", 0, 0o755);
        world.site("alice", &small("host"));
        let asked = Instant::now();
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && asked.elapsed() < Duration::from_secs(90), "{text}");
        assert!(text.contains("the name service does not list its accounts"), "{text}");
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        // Who has a ~user site is not known then: none is removed.
        world.host("[userdir]\nenabled = true\n");
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code() == Some(1) && text.contains("the name service lists no users"), "{text}");
    });
}

/// A file server that is gone: whoever asks for one file of it waits for ever.
#[test]
fn a_file_system_that_does_not_answer_is_named_and_nothing_changes() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", &small("host"));
        world.apply();
        make_directory("/srv/far", 0, 0o755);
        let file = "/etc/cellwall/sites.d/bob.toml";
        world.site("bob", &format!("{}read = [\"/srv/far/data\"]\n", small("host")));
        let written = fs::read_to_string(file).unwrap();
        let _far = Hung::over("/srv/far");
        for words in
            [&["check"][..], &["apply"], &["apply", "--json", "bob"], &["set", "bob", "limits.memory", "1G"]]
        {
            let asked = Instant::now();
            let said = world.cellwall(words);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(said.status.code(), Some(3), "{words:?}: {text}");
            assert!(asked.elapsed() < Duration::from_secs(60), "{words:?}");
            assert!(
                text.contains("/srv/far does not answer") && text.contains("mounted at /srv/far"),
                "{text}"
            );
        }
        assert_eq!(fs::read_to_string(file).unwrap(), written);
        // The others are not held up.
        assert!(world.cellwall(&["apply", "alice"]).status.success());
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

/// As above, for whoever looks at one site.
#[test]
fn a_site_on_a_file_system_that_does_not_answer_keeps_nobody_waiting() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", &everything("view"));
        world.apply();
        let _far = Hung::over(world.alice.docroot());
        for words in [
            &["fix", "alice"][..],
            &["fix", "--apply", "alice"],
            &["jail", "check", "alice"],
            &["learn", "alice", "--", "/bin/true"],
        ] {
            let asked = Instant::now();
            let said = world.cellwall(words);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(said.status.code(), Some(3), "{words:?}: {text}");
            assert!(asked.elapsed() < Duration::from_secs(60), "{words:?}");
            assert!(text.contains("mounted at /var/www/alice/htdocs"), "{words:?}: {text}");
        }
    });
}

/// A limit that a site requires is none where the kernel does not take it.
#[test]
fn groups_that_a_site_requires_and_that_cannot_be_made_are_an_error() {
    world(Launcher::Cellwall, |world| {
        let site = |cgroup: &str| {
            let limits = format!("[limits]\ncgroup = \"{cgroup}\"\nmemory = \"256M\"\n");
            world.site("alice", &(small("host") + &limits));
        };
        site("required");
        world.apply();
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        let (mount_point, entrance, setting) = memory_groups();
        let over = |flags: MsFlags| {
            mount(Some("tmpfs"), &mount_point, Some("tmpfs"), flags, Some("mode=755")).unwrap();
        };
        over(MsFlags::MS_RDONLY);
        let apply = || {
            let said = world.cellwall(&["apply"]);
            (said.status.code(), String::from_utf8_lossy(&said.stderr).into_owned())
        };
        let (status, text) = apply();
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains("control groups cannot be prepared: /sys/fs/cgroup/"), "{text}");
        assert!(text.contains("site alice requires one") && text.contains("nothing was changed"), "{text}");
        site("auto");
        let (status, text) = apply();
        assert!(status == Some(0) && text.contains("warning: control groups cannot be prepared"), "{text}");
        // A group that lacks the file of a limit: the refusal names the file.
        umount2(&mount_point, MntFlags::MNT_DETACH).unwrap();
        site("required");
        world.apply();
        over(MsFlags::empty());
        let group = mount_point.join(format!("cellwall/{}-alice", world.alice.id));
        fs::create_dir_all(&group).unwrap();
        put(group.join(entrance), b"", 0, 0o644);
        let refused = world.call(&world.alice, "a.cgi").run().refused("C04", 84);
        let file = group.join(setting);
        let wanted = format!("{}: No such file or directory", file.display());
        assert_eq!(refused.field("why"), wanted);
    });
}

/// Where this host has the control groups that limit memory, the file by which one is entered, and that of the limit.
fn memory_groups() -> (PathBuf, &'static str, &'static str) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = text.lines().filter_map(|line| line.split_once(" - "));
    let place = |mount: &str| PathBuf::from(mount.split(' ').nth(4).unwrap());
    let all: Vec<_> = mounts.map(|(mount, kind)| (place(mount), kind)).collect();
    let old = all.iter().find(|(_, kind)| {
        kind.starts_with("cgroup ") && kind.rsplit(' ').next().unwrap().split(',').any(|one| one == "memory")
    });
    match old {
        Some((place, _)) => (place.clone(), "tasks", "memory.limit_in_bytes"),
        None => {
            let (place, _) = all.iter().find(|(_, kind)| kind.starts_with("cgroup2 ")).unwrap();
            (place.clone(), "cgroup.procs", "memory.max")
        }
    }
}

/// Two jobs of a panel: one removes a site, the other one applies all in between.
#[test]
fn a_site_that_is_gone_already_is_no_error_where_that_is_said() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", &small("host"));
        world.site("bob", &small("host"));
        world.apply();
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        let apply = |words: &[&str]| {
            let said = world.cellwall(&[&["apply", "--json"][..], words].concat());
            (said.status.code(), String::from_utf8(said.stdout).unwrap())
        };
        let (status, text) = apply(&["--ignore-missing", "alice"]);
        assert!(
            status == Some(0) && text.contains(&format!("\"removed\":[\"{}\"]", world.alice.id)),
            "{text}"
        );
        let (status, text) = apply(&["--ignore-missing", "alice"]);
        assert!(status == Some(0) && text.contains("\"removed\":[]"), "{text}");
        let (status, text) = apply(&["alice"]);
        assert!(status == Some(1) && text.contains("there is no site `alice`"), "{text}");
        // What was not done is not told as done.
        world.site("carol", "profil = \"static\"\n");
        fs::remove_file("/etc/cellwall/sites.d/bob.toml").unwrap();
        let (status, text) = apply(&[]);
        assert!(status == Some(1) && text.contains("\"written\":[],\"removed\":[]"), "{text}");
    });
}

#[test]
fn a_check_of_all_names_what_keeps_right_sites_from_their_cells() {
    world(Launcher::Cellwall, |world| {
        let told = |part: &str| {
            let said = world.cellwall(&["check"]);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.status.success(), "{text}");
            assert_eq!(text.contains("warning: "), !part.is_empty(), "{part}: {text}");
            assert!(text.contains(part), "{part} is not in\n{text}");
        };
        // Written and never applied.
        fs::remove_dir_all("/var/lib/cellwall").ok();
        told("nothing was applied yet: no program of these sites runs");
        world.apply();
        told("");
        chown("/var/lib/cellwall", Some(33), None).unwrap();
        told("chown root /var/lib/cellwall");
        chown("/var/lib/cellwall", Some(0), None).unwrap();
        // Only where Apache has its module does it start any.
        fs::remove_file("/etc/alternatives/suexec").unwrap();
        symlink("/usr/lib/apache2/suexec-pristine", "/etc/alternatives/suexec").unwrap();
        told("");
        fs::create_dir_all("/etc/apache2/mods-enabled").unwrap();
        fs::write("/etc/apache2/mods-enabled/suexec.load", "").unwrap();
        told("programs start without a cell: Apache starts /usr/lib/apache2/suexec");
        told("update-alternatives --set suexec /usr/lib/cellwall/cellwall-suexec");
        // A program in the link's place stays there, whatever is set.
        fs::remove_file(SUEXEC).unwrap();
        put(SUEXEC, b"another", 0, 0o755);
        told("mv /usr/lib/apache2/suexec /usr/lib/apache2/suexec.before && update-alternatives");
        // Who has pools alone starts none by Apache.
        for site in ["alice", "bob", "carol"] {
            world.site(site, &format!("{}[pool]\nkind = \"cgi\"\n", small("host")));
        }
        world.apply();
        told("");
    });
}
