//! What a cell is made of: control groups, jails, handlers, root's programs, and the exception for mail.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, append, everything, make_directory, mode, put, run, small, spawn, world};

#[test]
fn a_chroot_above_the_site_is_entered_and_its_paths_are_renamed() {
    world(Launcher::Cellwall, |world| {
        let jail = "/var/www/jail";
        for directory in ["", "/htdocs"] {
            make_directory(format!("{jail}{directory}"), 0, 0o755);
        }
        std::os::unix::fs::chown(format!("{jail}/htdocs"), Some(world.alice.id), Some(world.alice.id))
            .unwrap();
        fs::write(
            "/etc/cellwall/sites.d/alice.toml",
            format!("user = \"alice\"\ndocroot = \"{jail}/htdocs\"\nprofile = \"static\"\n[jail]\nkind = \"chroot\"\ndirectory = \"{jail}\"\nlandlock = \"off\"\n"),
        )
        .unwrap();
        world.apply();
        world.probe_at(&world.alice, format!("{jail}/htdocs/a.cgi"));
        let call = || {
            world
                .call(&world.alice, "a.cgi")
                .cwd(format!("{jail}/htdocs"))
                .env(format!("SCRIPT_FILENAME={jail}/htdocs/a.cgi"))
                .env(format!("DOCUMENT_ROOT={jail}/htdocs"))
                .run()
        };
        let outcome = call();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.story());
        let text = outcome.out_text();
        assert!(text.contains("cwd /htdocs\n"), "{text}");
        assert!(
            text.contains("env SCRIPT_FILENAME=/htdocs/a.cgi\n")
                && text.contains("env DOCUMENT_ROOT=/htdocs\n"),
            "{text}"
        );
        assert_eq!(outcome.records[0].field("jail"), "chroot");
        for (owner, rights) in [(world.alice.id, 0o755), (0, 0o775), (0, 0o757)] {
            std::os::unix::fs::chown(jail, Some(owner), None).unwrap();
            mode(jail, rights);
            call().refused("C05", 84);
        }
    });
}

#[test]
fn an_interpreter_of_the_sites_own_is_one_where_the_site_lists_it() {
    world(Launcher::Cellwall, |world| {
        let shell = world.alice.docroot().join("own-shell");
        put(&shell, &fs::read("/bin/sh").unwrap(), world.alice.id, 0o755);
        let line = format!("#!{}\nprintf 'Content-Type: text/plain\\n\\nown\\n'\n", shell.display());
        world.script(&world.alice, "own.cgi", &line);
        world.script(&world.alice, "link.cgi", line.replace("own-shell", "link-shell"));
        symlink("/bin/sh", world.alice.docroot().join("link-shell")).unwrap();
        lchown(world.alice.docroot().join("link-shell"), Some(world.alice.id), Some(world.alice.id)).unwrap();
        world.call(&world.alice, "own.cgi").run().refused("V14", 86);
        for kind in ["host", "view"] {
            let listed = |name: &str| {
                let path = world.alice.docroot().join(name);
                let rules = small(kind).replace("[jail]", &format!("interpreters = [{path:?}]\n[jail]"));
                world.site(
                    "alice",
                    &format!("profile = \"sh\"\n{}", rules.replace("profile = \"static\"\n", "")),
                );
            };
            for name in ["own", "link"] {
                listed(&format!("{name}-shell"));
                world.apply();
                let ran = world.call(&world.alice, format!("{name}.cgi")).run();
                assert_eq!(ran.status.code(), Some(0), "{kind}: {}", ran.story());
                assert!(ran.out_text().ends_with("own\n"), "{}", ran.story());
            }
            world.call(&world.alice, "own.cgi").run().refused("V15", 86);
            // Somebody else's is none, listed or not.
            lchown(world.alice.docroot().join("own-shell"), Some(world.bob.id), None).unwrap();
            listed("own-shell");
            world.apply();
            world.call(&world.alice, "own.cgi").run().refused("V14", 86);
            put(world.bob.docroot().join("shell"), &fs::read("/bin/sh").unwrap(), world.bob.id, 0o755);
            listed("../../bob/htdocs/shell");
            assert!(!world.cellwall(&["check"]).status.success());
            listed("/var/www/bob/htdocs/shell");
            let said = String::from_utf8(world.cellwall(&["check"]).stderr).unwrap();
            assert!(said.contains("who could replace /var/www/bob/htdocs/shell"), "{said}");
            lchown(world.alice.docroot().join("own-shell"), Some(world.alice.id), None).unwrap();
        }
    });
}

#[test]
fn a_directory_that_is_another_one_in_the_cell_is_refused() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        let sub = world.alice.docroot().join("sub");
        make_directory(&sub, world.alice.id, 0o755);
        world.probe(&world.alice, "sub/a.cgi");
        let call = || world.call(&world.alice, "a.cgi").cwd(&sub).run();
        call().ran();
        // A volume that the kept view, which is older, has not.
        let options = format!("mode=755,uid={0},gid={0}", world.alice.id);
        let said = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&sub).status();
        assert!(said.unwrap().success());
        let refused = call().refused("V04", 86);
        assert!(refused.field("why").contains("is another directory inside the jail"), "{}", refused.line);
    });
}

#[test]
fn root_makes_nothing_in_a_directory_of_the_sites() {
    world(Launcher::Cellwall, |world| {
        put("/srv/settings", b"x", 0, 0o644);
        // The site may write there, so the mount would not stop root either.
        let at = "at = { \"/var/marks/alice/made/x\" = \"/srv/settings\" }\n";
        world.site("alice", &(small("view") + at));
        world.apply();
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().refused("C06", 84);
        assert!(!fs::exists("/var/marks/alice/made").unwrap(), "root has made it");
    });
}

#[test]
fn a_jail_that_is_missing_is_never_replaced_by_a_weaker_one() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        let said = Command::new("umount").arg("-l").args(glob("/run/cellwall/views")).status().unwrap();
        assert!(said.success());
        let built = world.call(&world.alice, "a.cgi").run();
        built.ran();
        assert_eq!(built.records[0].field("jail"), "view-built");
        // A part of the view that the site took over is not mounted.
        std::os::unix::fs::chown("/var/www", Some(world.alice.id), None).unwrap();
        let refused = world.call(&world.alice, "a.cgi").run().refused("C06", 84);
        assert!(refused.field("why").starts_with("/var/www:"), "{}", refused.line);
        // Nor is one that a group may write to.
        std::os::unix::fs::chown("/var/www", Some(0), None).unwrap();
        mode("/var/www", 0o775);
        let refused = world.call(&world.alice, "a.cgi").run().refused("C06", 84);
        assert!(refused.field("why").contains("writable by others than root (0775)"), "{}", refused.line);
    });
}

#[test]
fn a_view_can_be_passed_through_whatever_umask_root_applied_it_with() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        world.probe(&world.alice, "a.cgi");
        // No view of before is kept.
        assert!(
            Command::new("umount").arg("-l").args(glob("/run/cellwall/views")).status().unwrap().success()
        );
        let script = "umask 077 && exec /usr/bin/cellwall apply";
        assert!(run(Command::new("sh").args(["-c", script])).status.success());
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        assert_eq!(outcome.records[0].field("jail"), "view");
    });
}

#[test]
fn each_mount_of_a_view_gives_what_the_rules_give_and_no_more() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/data", world.alice.id, 0o755);
        world.site("alice", "profile = \"sh\"\n[jail]\nprocesses = true\n[files]\nwrite = [\"/srv/data\"]\n");
        world.apply();
        let said = world.cellwall(&["run", "alice", "--", "/bin/cat", "/proc/self/mountinfo"]);
        let text = String::from_utf8(said.stdout).unwrap();
        let writable = ["/dev/shm", "/proc", "/srv/data", "/tmp", "/var/tmp"];
        let mut seen = Vec::new();
        for line in text.lines() {
            // proc_pid_mountinfo(5): the fifth word is the place, the sixth what holds there.
            let words: Vec<&str> = line.split(' ').collect();
            let (place, rules): (&str, Vec<&str>) = (words[4], words[5].split(',').collect());
            let device = place.starts_with("/dev/") && place != "/dev/shm";
            assert!(rules.contains(&"nosuid"), "{line}");
            assert_eq!(rules.contains(&"nodev"), !device, "{line}");
            assert_eq!(rules.contains(&"rw"), writable.contains(&place), "{line}");
            if device || writable.contains(&place) || ["/", "/etc/group", "/etc/passwd"].contains(&place) {
                assert!(rules.contains(&"noexec"), "{line}");
            }
            seen.push(place);
        }
        for place in writable.iter().chain(&["/", "/dev/null", "/etc/passwd", "/usr/bin"]) {
            assert!(seen.contains(place), "{place} is not in\n{text}");
        }
        assert!(seen.contains(&world.alice.docroot().to_str().unwrap()), "{text}");
    });
}

fn glob(directory: &str) -> Vec<std::path::PathBuf> {
    let all: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in &all {
        // An empty file with the name of a kept view must not count as one.
        assert!(path.is_file());
    }
    all.into_iter().collect()
}

#[test]
fn a_handler_runs_a_file_that_is_no_program_and_gets_no_word_of_the_request() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&format!("{}[handlers]\n\".pl\" = [\"/usr/bin/perl\", \"-w\"]\n", everything(jail)));
            let path = world.alice.docroot().join("a.pl");
            put(&path, b"print \"$0 $^W @ARGV $ENV{SCRIPT_NAME}\\n\";", world.alice.id, 0o644);
            let call =
                world.call(&world.alice, "a.pl").arg("-e").arg("print 1").env("SCRIPT_NAME=/a.pl").run();
            assert_eq!(call.out_text(), format!("{} 1  /a.pl\n", path.display()), "{}", call.story());
        });
    }
}

#[test]
fn a_handlers_file_begins_in_its_own_directory() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&format!("{}[handlers]\n\".pl\" = \"/usr/bin/perl\"\n", everything(jail)));
            let sub = world.alice.docroot().join("sub");
            make_directory(&sub, world.alice.id, 0o755);
            put(sub.join("data.txt"), b"near", world.alice.id, 0o644);
            let text = b"use Cwd; open F, '<', 'data.txt'; print getcwd(), ' ', <F>;";
            put(sub.join("a.pl"), text, world.alice.id, 0o644);
            let ran = world.call(&world.alice, "a.pl").cwd(&sub).run();
            assert_eq!(ran.out_text(), format!("{} near", sub.display()), "{jail}: {}", ran.story());
        });
    }
}

/// Debian has php-cgi a second time, as `php8.2` and by links to it. `apply` may know that; the launcher does not rely on it.
#[test]
fn php_cgi_is_known_by_its_other_names_and_runs_the_file_that_was_verified() {
    for name in ["/usr/lib/cgi-bin/php", "/usr/local/bin/runs-pages"] {
        world(Launcher::Cellwall, |world| {
            let leads = |to: &str| {
                drop(fs::remove_file(name));
                symlink(to, name).unwrap();
            };
            leads("/usr/bin/perl");
            let handler = format!("[handlers]\n\".php\" = \"{name}\"\n");
            world.site("alice", &format!("{}execute = [\"{name}\"]\n{handler}", everything("host")));
            world.apply();
            leads("/usr/bin/php-cgi");
            let docroot = world.alice.docroot();
            put(
                docroot.join("a.php"),
                b"<?php echo 'right ', $_SERVER['SCRIPT_FILENAME'];",
                world.alice.id,
                0o644,
            );
            put(docroot.join("b.jpg"), b"<?php echo 'wrong';", world.alice.id, 0o666);
            let other = format!("SCRIPT_FILENAME={}/b.jpg", docroot.display());
            let ran = world.call(&world.alice, "a.php").env(&other).run();
            let page = format!("right {}/a.php", docroot.display());
            assert!(ran.out_text().ends_with(&page), "{name}: {}", ran.story());
        });
    }
}

#[test]
fn a_program_of_roots_runs_where_the_site_names_it() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            let call = || world.call(&world.alice, "env").cwd("/usr/bin").arg("-u").arg("X").run();
            world.sites(&everything(jail));
            call().refused("P114", 114);
            let rules = everything(jail);
            world.sites(&format!("programs = [\"/usr/bin/env\"]\n{rules}"));
            let ran = call();
            assert_eq!(ran.status.code(), Some(0), "{}", ran.story());
            assert!(ran.out_text().starts_with("PATH="), "{}", ran.story());
            world.call(&world.alice, "id").cwd("/usr/bin").run().refused("P114", 114);
        });
    }
}

#[test]
fn the_exception_for_mail_lets_a_set_gid_program_work_inside_the_cell_and_says_so_loudly() {
    world(Launcher::Cellwall, |world| {
        let helper = "/usr/local/lib/drop";
        let probe = world.probe(&world.alice, "p.cgi");
        fs::copy(probe, helper).unwrap();
        std::os::unix::fs::chown(helper, Some(0), Some(42)).unwrap();
        mode(helper, 0o2755);
        world.script(&world.alice, "a.cgi", "#!/bin/sh\nexec /usr/local/lib/drop\n");
        fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\nallow_dangerous = true\n").unwrap();
        for (exception, gid) in [("", world.alice.id), ("[privileges]\ndangerous_set_id_mail = true\n", 42)] {
            world.site("alice", &format!("{}{exception}", everything("host")));
            world.apply();
            let outcome = world.call(&world.alice, "a.cgi").run();
            assert_eq!(outcome.status.code(), Some(0), "{}", outcome.story());
            let text = outcome.out_text();
            let own = world.alice.id;
            assert!(text.contains(&format!("gid {own} {gid} {gid}\n")), "{text}");
            assert!(text.contains(&format!("uid {own} {own} {own}\n")), "{text}");
            let nnp = if gid == 42 { "off" } else { "on" };
            assert_eq!(outcome.records[0].field("nnp"), nnp);
            assert_ne!(outcome.records[0].field("landlock"), "0");
        }
        // What one of the site's other groups opens is opened for it as well.
        let team = world.alice.id + 15;
        append("/etc/group", &format!("team:x:{team}:alice\n"));
        make_directory("/srv/team", 0, 0o750);
        std::os::unix::fs::chown("/srv/team", Some(0), Some(team)).unwrap();
        put("/srv/team/x", b"seen", 0, 0o644);
        let rules = format!("{}read = [\"/srv/team/x\"]\n", everything("host"));
        world.site(
            "alice",
            &format!("groups = [\"team\"]\n{rules}[privileges]\ndangerous_set_id_mail = true\n"),
        );
        world.apply();
        world.script(&world.alice, "c.cgi", "#!/bin/sh\ncat /srv/team/x\n");
        let outcome = world.call(&world.alice, "c.cgi").run();
        assert_eq!(outcome.out_text(), "seen", "{}", outcome.story());
        // The set-gid program is in the cell all the same.
        world.script(
            &world.alice,
            "b.cgi",
            "#!/bin/sh\nQUERY_STRING=do=read:/var/log/dpkg.log exec /usr/local/lib/drop\n",
        );
        let outcome = world.call(&world.alice, "b.cgi").run();
        assert!(
            outcome.out_text().contains("Permission denied") || outcome.out_text().contains("EACCES"),
            "{}",
            outcome.story()
        );
    });
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
        // One below the other's docroot: the nearest counts.
        let inner = world.alice.docroot().join("inner");
        make_directory(&inner, world.alice.id, 0o755);
        let text = format!("user = \"alice\"\ndocroot = \"{}\"\n{text}", inner.display());
        fs::write("/etc/cellwall/sites.d/inner.toml", text).unwrap();
        world.apply();
        world.probe_at(&world.alice, inner.join("a.cgi"));
        for (directory, site) in [(&inner, "inner"), (&world.alice.docroot(), "alice")] {
            let ran = world.call(&world.alice, "a.cgi").cwd(directory).run();
            ran.ran();
            assert_eq!(ran.records[0].field("site"), site);
        }
    });
}

/// An empty file takes a kilobyte of the kernel's own memory, and nothing of a size.
#[test]
fn memory_that_is_a_directory_holds_no_number_of_files() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let said = world.cellwall(&["run", "alice", "--", "/usr/bin/stat", "-f", "-c", "%T %c", "/dev/shm"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let count = text.trim().strip_prefix("tmpfs ").and_then(|count| count.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count <= 16_384), "{text}{said:?}");
    });
}

/// Each change of a site's view that is applied by itself makes a new one.
#[test]
fn a_kept_view_goes_when_it_is_no_sites_any_more() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        // Two files each.
        let kept = || fs::read_dir("/run/cellwall/views").unwrap().count() / 2;
        let apply = || assert_eq!(world.cellwall(&["apply", "alice"]).status.code(), Some(0));
        assert_eq!(kept(), 3);
        world.probe(&world.alice, "a.cgi");
        for name in ["debian_version", "issue", "login.defs"] {
            world.site("alice", &format!("{}read = [\"/etc/{name}\"]\n", small("view")));
            apply();
            assert_eq!(kept(), 3);
            let outcome = world.call(&world.alice, "a.cgi").run();
            outcome.ran();
            assert_eq!(outcome.records[0].field("jail"), "view");
        }
        // The same one again; then none.
        apply();
        assert_eq!(kept(), 3);
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        apply();
        assert_eq!(kept(), 2);
    });
}

/// Whoever holds a namespace keeps it, with all that is mounted in it, long after its site is gone.
#[test]
fn nobody_but_root_takes_hold_of_a_kept_view() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        let files = glob("/run/cellwall/views");
        assert_eq!(files.len(), 6, "{files:?}");
        for file in files {
            let take = format!("(exec 3< {}) 2>/dev/null && echo held || echo denied", file.display());
            assert_eq!(world.outside(&world.bob, &["/bin/sh", "-c", &take]).end(), "denied\n");
        }
    });
}

#[test]
fn a_view_that_is_not_made_in_time_is_told_and_holds_up_nothing() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        world.probe(&world.alice, "a.cgi");
        let stopped = (0..40).any(|_| {
            umount2("/run/cellwall/views", MntFlags::MNT_DETACH).unwrap();
            let mut apply = Command::new("/usr/bin/cellwall");
            let apply = spawn(apply.arg("apply").stdout(Stdio::null()).stderr(Stdio::piped()));
            let children = format!("/proc/{0}/task/{0}/children", apply.id());
            let end = Instant::now() + Duration::from_secs(5);
            let mut child = None;
            while child.is_none() && Instant::now() < end {
                // One with mounts of its own: no program that apply asks, and none that is still to become one.
                let mounts = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
                child = fs::read_to_string(&children)
                    .ok()
                    .and_then(|text| text.split(' ').next()?.parse::<u32>().ok())
                    .filter(|pid| mounts(*pid).is_some_and(|own| Some(own) != mounts(apply.id())))
                    .filter(|pid| kill(Pid::from_raw(i32::try_from(*pid).unwrap()), Signal::SIGSTOP).is_ok());
            }
            let asked = Instant::now();
            let said = apply.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
            assert!(said.status.success(), "{text}");
            text.contains("its child did not answer")
        });
        assert!(stopped, "none was ever stopped in time");
        // Nobody waits for that view: it is built, and the next apply keeps it.
        world.call(&world.alice, "a.cgi").run().ran();
        world.apply();
        assert_eq!(glob("/run/cellwall/views").len(), 6);
    });
}

#[test]
fn a_view_that_cannot_be_made_is_told_as_a_refusal_with_its_site() {
    world(Launcher::Cellwall, |world| {
        put("/srv/settings", b"x", 0, 0o644);
        let at = "at = { \"/var/marks/alice/made/x\" = \"/srv/settings\" }\n";
        world.site("alice", &(small("view") + at));
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(text.contains("site alice: its launches are refused (C06): /var/marks/alice/made"), "{text}");
        assert!(!text.contains("built at each launch"), "{text}");
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().refused("C06", 84);
    });
}
