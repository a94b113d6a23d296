//! `cellwall why`: from the reference on a page to the cause and the cure.

use std::os::unix::fs::{chown, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};

use crate::harness::{CELLWALL, LOG, Launcher, World, each_jail, make_directory, mode, put, small, world};

mod mistakes;
mod records;
mod remedies;

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_reference_leads_to_the_cause_and_to_a_remedy_that_works() {
    each_jail(|world| {
        let probe = world.probe(&world.alice, "a.cgi");
        mode(&probe, 0o775);
        let refused = world.call(&world.alice, "a.cgi").run().refused("V118", 118);
        let told = world.cellwall(&["why", refused.field("ref")]);
        let text = said(&told);
        assert!(told.status.success(), "{text}");
        for part in ["V118", "alice", "is writable by others (0775)", "cellwall explain V118"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let repair = text.lines().find_map(|line| line.trim().strip_prefix("repair")).unwrap().trim();
        assert!(
            std::process::Command::new("sh").args(["-c", repair]).status().unwrap().success(),
            "{repair}"
        );
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

/// RestrictSUIDSGID= of the web server's unit: no record can be opened, and none that is written again either. Drop-ins count in
/// the order of their names, and `systemctl edit` writes override.conf.
#[test]
fn a_unit_that_takes_openat2_away_is_mended_and_not_the_record() {
    world(Launcher::Cellwall, |world| {
        let record = |why: &str| {
            let line = format!(
                "2026-01-02T03:04:05.000006Z refuse ref=AAAA-BBBB code=P01 status=83 site=- pid=1 caller=33 \
                 asked=\"1 1 a.cgi\" why=\"the policy record cannot be used: {why}\" fix=\"cellwall apply\"\n"
            );
            std::fs::write(LOG, line).unwrap();
            repair(world)
        };
        let mended = record("Function not implemented");
        assert!(mended.contains("RestrictSUIDSGID=no"), "{mended}");
        let file = mended.split(['/', ' ']).find(|word| word.ends_with(".conf")).unwrap();
        assert!(file > "override.conf", "{mended}");
        assert_eq!(record("Invalid argument"), "cellwall apply");
    });
}

#[test]
fn the_deciding_rule_is_told_with_its_file_and_line() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let refused = world.call(&world.alice, "a.cgi").run();
        refused.ran();
        std::fs::hard_link(world.alice.docroot().join("a.cgi"), "/var/www/alice/second").unwrap();
        world.site("alice", &format!("hard_links = false\n{}", crate::harness::small("host")));
        world.apply();
        world.call(&world.alice, "a.cgi").run().refused("V06", 86);
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("hard_links, /etc/cellwall/sites.d/alice.toml:3"), "{text}");
    });
}

#[test]
fn of_many_paths_the_one_that_is_meant_is_shown() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        for path in ["/srv/one", "/srv/two", "/srv/three"] {
            put(path, b"x", 0, 0o644);
        }
        let text =
            format!("{}read = [\n  \"/srv/one\",\n  \"/srv/two\",\n  \"/srv/three\",\n]\n", small("host"));
        world.site("alice", &text);
        world.apply();
        std::fs::remove_file("/srv/two").unwrap();
        world.call(&world.alice, "a.cgi").run().refused("X02", 87);
        let path = "/etc/cellwall/sites.d/alice.toml";
        let written = std::fs::read_to_string(path).unwrap();
        let line = 1 + written.lines().position(|line| line.contains("/srv/two")).unwrap();
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains(&format!("files, {path}:{line}\n")), "{text}");
    });
}

#[test]
fn a_full_file_system_a_quota_and_a_sendmail_that_is_not_there_are_named() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/up", 0, 0o755);
        mount(Some("tmpfs"), "/srv/up", Some("tmpfs"), MsFlags::empty(), Some("size=16k")).unwrap();
        chown("/srv/up", Some(world.alice.id), None).unwrap();
        drop(std::fs::remove_file("/usr/sbin/sendmail"));
        world.site("alice", "profile = [\"sh\", \"perl\"]\n[files]\nwrite = [\"/srv/up\"]\n");
        world.apply();
        for (name, does, cause, repair) in [
            // EDQUOT, as the C library says it.
            ("quota", "perl -e '$! = 122; die qq(x: $!\\n)'", "quota", "quota -s -u "),
            ("full", "cat /bin/sh > /srv/up/x", "full", "df -h /srv/up; df -i /srv/up"),
            ("mail", "/usr/sbin/sendmail -t < /dev/null", "absent", "cellwall set alice pieces mail"),
        ] {
            world.script(&world.alice, name, format!("#!/bin/sh\n{does} || exit 1\n"));
            world.call(&world.alice, name).run();
            let text = said(&world.cellwall(&["why", "--last", "alice", "--again"]));
            assert!(text.contains(&format!("cause     {cause}\n")) && text.contains(repair), "{text}");
        }
        umount2("/srv/up", MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_refusal_whose_cause_is_mended_is_told_so() {
    each_jail(|world| {
        let probe = world.probe(&world.alice, "a.cgi");
        mode(&probe, 0o775);
        let reference = world.call(&world.alice, "a.cgi").run().refused("V118", 118).field("ref").to_owned();
        let told = |part: &str| {
            let text = said(&world.cellwall(&["why", &reference]));
            assert!(text.contains(part), "{part} is not in\n{text}");
        };
        told("now       it is refused in a rehearsal as well");
        mode(&probe, 0o4755);
        told("now       something else is in the way");
        told("(V119)");
        mode(&probe, 0o755);
        told("now       it passes in a rehearsal: mended, unless");
        let json = said(&world.cellwall(&["why", "--last", "alice", "--json"]));
        assert!(json.contains("\"now\":{\"ok\":true,"), "{json}");
        // What a rehearsal cannot know it does not say: the environment is the caller's.
        let many = (0..600).map(|number| format!("HTTP_X{number}=1")).collect::<Vec<_>>();
        let call = many.iter().fold(world.call(&world.alice, "a.cgi"), |call, one| call.env(one));
        call.run().refused("E02", 87);
        let text = said(&world.cellwall(&["why", "--last", "alice"]));
        assert!(!text.contains("\n  now "), "{text}");
    });
}

#[test]
fn a_program_that_is_not_there_leads_to_the_one_with_the_nearest_name() {
    world(Launcher::Cellwall, |world| {
        let near = world.probe(&world.alice, "counter.cgi");
        let repair = |name: &str| {
            let refused = world.call(&world.alice, name).run().refused("V117", 117);
            let text = said(&world.cellwall(&["why", refused.field("ref")]));
            let line = text.lines().find_map(|line| line.trim().strip_prefix("repair "));
            line.unwrap_or_else(|| panic!("no repair in\n{text}")).trim().to_owned()
        };
        let other = format!("ls -l {} # another file, with the nearest name: was it meant?", near.display());
        assert_eq!(repair("Conter.cgi"), other);
        let place = near.parent().unwrap().display();
        let none = format!("ls -l {place} # there is no such file in it, and none with a like name");
        assert_eq!(repair("entirely-else"), none);
    });
}

/// Fedora's httpd starts a file of its own, unless its unit has the launcher mounted there.
#[test]
fn httpds_own_suexec_is_told_and_the_repair_puts_the_launcher_in_its_place() {
    world(Launcher::Cellwall, |world| {
        drop(std::fs::remove_dir_all("/etc/apache2"));
        std::fs::create_dir_all("/etc/httpd").unwrap();
        put("/usr/sbin/suexec", b"", 0, 0o755);
        let told = || said(&world.cellwall(&["why", "0000-0000"]));
        let found = "httpd starts /usr/sbin/suexec, which is its own";
        let text = told();
        assert!(text.contains(found), "{text}");
        let repair = text.lines().find_map(|line| line.trim().strip_prefix("repair: mkdir")).unwrap();
        let (repair, rest) = repair.split_once(" && systemctl").unwrap();
        assert_eq!(rest, " daemon-reload && systemctl restart httpd");
        assert!(pasted(&format!("mkdir{repair}")), "{repair}");
        let drop_in = std::fs::read_to_string("/etc/systemd/system/httpd.service.d/cellwall.conf").unwrap();
        assert_eq!(drop_in, format!("[Service]\nBindReadOnlyPaths={CELLWALL}:/usr/sbin/suexec\n"));
        assert!(!told().contains(found), "the next start of httpd has it");
        // What runs tells more than what is written.
        std::fs::copy("/bin/sleep", "/mnt/bin/httpd").unwrap();
        let mut running = std::process::Command::new("/mnt/bin/httpd").arg("60").spawn().unwrap();
        assert!(told().contains(found), "httpd was not started again");
        running.kill().unwrap();
        running.wait().unwrap();
        let mount = format!("mount --bind {CELLWALL} /usr/sbin/suexec && exec /mnt/bin/httpd 60");
        let mut running =
            std::process::Command::new("unshare").args(["--mount", "sh", "-c", &mount]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let text = told();
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(!text.contains(found), "{text}");
    });
}

/// A link of the site's that leads out of it is followed, and it is what is behind it that no rule covers.
#[test]
fn a_link_that_leads_out_of_the_docroot_is_told_by_what_is_behind_it() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/shop", 0, 0o755);
        put("/srv/shop/settings", b"well\n", 0, 0o644);
        let script =
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nread -r line < settings && echo \"$line\"\n";
        world.script(&world.alice, "a.cgi", script);
        symlink("/srv/shop/settings", world.alice.docroot().join("settings")).unwrap();
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        assert!(!world.call(&world.alice, "a.cgi").run().out_text().contains("well"));
        let text = said(&world.cellwall(&["why", "--last", "alice", "--again"]));
        let repair =
            text.lines().find_map(|line| line.trim().strip_prefix("repair ")).unwrap().trim().to_owned();
        assert_eq!(repair, "cellwall set alice files.read /srv/shop/settings", "{text}");
        let learned = said(&world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]));
        assert!(learned.contains("# cellwall set alice files.read /srv/shop/settings"), "{learned}");
        assert!(pasted(&repair), "{repair}");
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("well"), "{}", outcome.story());
    });
}

/// bash's `<(…)` is a name in /proc, which a view has only where its site wants it.
#[test]
fn a_program_that_calls_its_own_descriptors_by_name_is_told_the_key() {
    world(Launcher::Cellwall, |world| {
        let script = "#!/bin/bash\nread -r word < <(echo well) || exit 1\nprintf 'Content-Type: text/plain\\n\\n%s' \"$word\"\n";
        world.script(&world.alice, "a.cgi", script);
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        assert!(!world.call(&world.alice, "a.cgi").run().out_text().contains("well"));
        let text = said(&world.cellwall(&["why", "--last", "alice", "--again"]));
        let repair = text.lines().find_map(|line| line.trim().strip_prefix("repair "));
        let repair = repair.unwrap_or_else(|| panic!("{text}")).trim().to_owned();
        assert_eq!(repair, "cellwall set alice jail.processes true", "{text}");
        let learned = said(&world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]));
        assert!(learned.contains("\n[jail]\nprocesses = true # once, first by "), "{learned}");
        assert!(learned.contains("\n# cellwall set alice jail.processes true\n"), "{learned}");
        assert!(pasted(&repair), "{repair}");
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("well"), "{}", outcome.story());
    });
}

/// What the web server opened cannot be opened anew, with suEXEC either.
#[test]
fn a_program_that_opens_its_error_output_anew_is_told_what_to_write() {
    world(Launcher::Cellwall, |world| {
        let script = |to: &str| {
            format!("#!/bin/sh\nset -e\necho complaint {to}\nprintf 'Content-Type: text/plain\\n\\nwell'\n")
        };
        world.script(&world.alice, "a.cgi", script(">/dev/stderr"));
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        assert!(!world.call(&world.alice, "a.cgi").run().out_text().contains("well"));
        let text = said(&world.cellwall(&["why", "--last", "alice", "--again"]));
        assert!(
            text.contains("/dev/stderr: not in the site's cell") && text.contains(">&2 in its place"),
            "{text}"
        );
        world.script(&world.alice, "a.cgi", script(">&2"));
        assert!(world.call(&world.alice, "a.cgi").run().out_text().contains("well"));
    });
}

/// Below half of all picture formats a library asks where memory lies, and lives with a no: no reason to take the filter away.
#[test]
fn a_call_that_is_denied_and_lived_without_is_no_cause() {
    world(Launcher::Cellwall, |world| {
        let number = if cfg!(target_arch = "x86_64") { 238 } else { 237 };
        let script = format!(
            "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\n\", syscall({number}, 0, 0, 0), \" $!\\n\";\n"
        );
        world.script(&world.alice, "a.pl", script);
        world.site("alice", "profile = \"perl\"\n");
        world.apply();
        let outcome = world.call(&world.alice, "a.pl").run();
        assert!(outcome.out_text().contains("-1 Operation not permitted"), "{}", outcome.story());
        let text = said(&world.cellwall(&["why", "--last", "alice", "--again"]));
        assert!(
            text.contains("it ran to its end, and nothing failed") && !text.contains("seccomp off"),
            "{text}"
        );
    });
}

#[test]
fn a_key_that_decides_is_not_sought_in_a_file_that_cannot_have_it() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        std::fs::rename(world.alice.home(), "/home/old").unwrap();
        make_directory(world.alice.home(), world.alice.id, 0o755);
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("user, of the site's file") && !text.contains("cellwall.toml"), "{text}");
        world.call(&world.alice, "a.cgi").caller(1, 1, "33").run().refused("P103", 103);
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("caller, /etc/cellwall/cellwall.toml"), "{text}");
    });
}

#[test]
fn where_no_record_can_be_written_the_reason_is_told_and_mended() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let log = std::path::Path::new(LOG).parent().unwrap();
        let none = None::<&str>;
        let (bind, again) = (MsFlags::MS_BIND, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        let small = Some("mode=755,size=64k");
        let states: [(&str, &dyn Fn()); 4] = [
            ("No such file or directory", &|| std::fs::remove_dir_all(log).unwrap()),
            ("Read-only file system", &|| {
                mount(Some(log), log, none, bind, none).unwrap();
                mount(none, log, none, again, none).unwrap();
            }),
            ("its file system is full", &|| {
                mount(Some("tmpfs"), log, Some("tmpfs"), MsFlags::empty(), small).unwrap();
                std::fs::write(log.join("other"), vec![0; 1 << 20]).unwrap_err();
            }),
            ("its file system has no inode left", &|| {
                mount(Some("tmpfs"), log, Some("tmpfs"), MsFlags::empty(), Some("mode=755,nr_inodes=1"))
                    .unwrap();
            }),
        ];
        for (found, bring_about) in states {
            bring_about();
            let outcome = world.call(&world.alice, "a.cgi").unrecorded();
            outcome.refused_in_the_dark(1);
            let error = outcome.err_text();
            let reference = error.split("reference ").nth(1).unwrap().get(..9).unwrap();
            let text = said(&world.cellwall(&["why", reference]));
            assert!(text.contains(&format!("no record can be written: {}", log.display())), "{text}");
            assert!(text.contains(found), "{found} is not in\n{text}");
            let repair = text.lines().find_map(|line| line.trim().strip_prefix("repair: ")).unwrap();
            assert!(pasted(repair), "{repair}");
            drop(std::fs::remove_file(log.join("other")));
            if found.contains("inode") {
                umount(log).unwrap();
            }
            world.call(&world.alice, "a.cgi").run().ran();
        }
    });
}

#[test]
fn what_keeps_every_program_from_starting_is_told_by_check() {
    world(Launcher::Cellwall, |world| {
        assert!(!said(&world.cellwall(&["check"])).contains("no program can start"));
        mode(CELLWALL, 0o755);
        let log = std::path::Path::new(LOG).parent().unwrap();
        std::fs::remove_dir_all(log).unwrap();
        let text = said(&world.cellwall(&["check"]));
        for found in
            ["/usr/lib/cellwall/cellwall-suexec has mode 0755", "no record can be written: /var/log/cellwall"]
        {
            assert!(text.contains(&format!("no program can start: {found}")), "{found} is not in\n{text}");
        }
    });
}

/// As in a container, or under a web server whose unit takes the right.
const NO_MOUNTS: [&str; 2] = ["setpriv", "--bounding-set=-sys_admin"];

#[test]
fn where_root_may_not_mount_the_cell_is_of_another_kind() {
    world(Launcher::Cellwall, |world| {
        let bounded = |command: &str| {
            said(
                &std::process::Command::new(NO_MOUNTS[0])
                    .args([NO_MOUNTS[1], "sh", "-c", command])
                    .output()
                    .unwrap(),
            )
        };
        world.sites(&small("view"));
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").behind(&NO_MOUNTS).run().refused("C06", 84);
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("have CAP_SYS_ADMIN"), "root of this host may mount:\n{text}");
        // In a container none was ever kept.
        umount2("/run/cellwall/views", MntFlags::MNT_DETACH).unwrap();
        assert!(
            bounded("cellwall apply").contains("sites in a view are refused"),
            "{}",
            bounded("cellwall apply")
        );
        let text = bounded("cellwall why --last");
        let repair = text.lines().find_map(|line| line.trim().strip_prefix("repair ")).unwrap().trim();
        assert_eq!(repair, "cellwall set alice jail.kind host");
        assert!(bounded(repair).contains("applied"), "{}", bounded(repair));
        world.call(&world.alice, "a.cgi").behind(&NO_MOUNTS).run().ran();
    });
}

#[test]
fn a_launcher_that_could_not_get_ready_was_not_asked_by_a_pool() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let call = world.call(&world.alice, "a.cgi").strace(&["-e", "inject=keyctl:error=EPERM"]);
        call.run().refused("A02", 81);
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("not read yet") && !text.contains("of the pool"), "{text}");
    });
}

/// What `why` would have root paste for the last refusal.
fn repair(world: &World) -> String {
    let text = said(&world.cellwall(&["why", "--last"]));
    let line = text.lines().find_map(|line| line.trim().strip_prefix("repair "));
    line.unwrap_or_else(|| panic!("no repair in\n{text}")).trim().to_owned()
}

fn pasted(command: &str) -> bool {
    std::process::Command::new("sh").args(["-c", command]).status().unwrap().success()
}

#[test]
fn words_that_exclude_each_other_are_not_taken_together() {
    world(Launcher::Cellwall, |world| {
        let told = world.cellwall(&["why", "--last", "--json", "--again"]);
        assert_eq!(told.status.code(), Some(2), "{}", said(&told));
    });
}

/// `ProtectHome=` of the web server's unit: the home is another one, or none, for whoever calls, and no `apply` changes that.
#[test]
fn a_home_that_the_web_servers_unit_hides_is_told_from_one_that_changed() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let hidden =
            ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o mode=0 none /home && exec \"$@\"", "sh"];
        let refused = world.call(&world.alice, "a.cgi").behind(&hidden).run().refused("P03", 83);
        let told = said(&world.cellwall(&["why", refused.field("ref")]));
        assert!(told.contains("ProtectHome=no") && !told.contains("repair    cellwall apply"), "{told}");
        std::fs::rename(world.alice.home(), "/home/before").unwrap();
        make_directory(world.alice.home(), world.alice.id, 0o755);
        let refused = world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        let told = said(&world.cellwall(&["why", refused.field("ref")]));
        assert!(told.contains("cellwall apply") && !told.contains("ProtectHome"), "{told}");
    });
}

/// What is set already mends nothing.
#[test]
fn of_a_link_that_is_not_followed_where_links_are_no_key_is_the_remedy() {
    world(Launcher::Cellwall, |world| {
        let (base, id) = ("/var/www/alice", world.alice.id);
        make_directory(format!("{base}/releases"), id, 0o755);
        world.probe_at(&world.alice, format!("{base}/releases/a.cgi"));
        let text = format!(
            "user = \"alice\"\ndocroot = \"{base}/current\"\nsymlinks = \"owner-match\"\n{}",
            small("host")
        );
        std::fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
        symlink("releases", format!("{base}/current")).unwrap();
        let becomes =
            |owner| std::os::unix::fs::lchown(format!("{base}/current"), Some(owner), None).unwrap();
        becomes(id);
        world.apply();
        let call = || world.call(&world.alice, "a.cgi").cwd(format!("{base}/releases")).run();
        call().ran();
        becomes(world.bob.id);
        let refused = call().refused("V02", 86);
        let told = said(&world.cellwall(&["why", refused.field("ref")]));
        assert!(told.contains("make the link again") && !told.contains("cellwall set"), "{told}");
    });
}

#[test]
fn a_program_that_answers_with_an_error_of_its_own_is_named_and_its_complaint_is_what_says_it() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = [\"sh\", \"perl\"]\n");
        world.apply();
        for (script, found) in [
            (
                "#!/bin/sh\necho 'Status: 500 Oops'; echo; echo body; echo because >&2\n",
                "its own answer is \"500 Oops\"; its complaint: \"because\"",
            ),
            ("#!/bin/sh\nprintf 'X: y\\r\\nstatus:404\\r\\n\\r\\n'\n", "its own answer is \"404\""),
            ("#!/usr/bin/perl\nuse Nosuch::Module;\n", "its complaint: \"Can't locate Nosuch/Module.pm"),
        ] {
            world.script(&world.alice, "a.cgi", script);
            world.call(&world.alice, "a.cgi").run();
            let told = said(&world.cellwall(&["why", "--last", "--again"]));
            assert!(told.contains(found), "{found} is not in\n{told}");
        }
        for good in ["Status: 200 OK", "X: y\\n\\nStatus: 500", "Location: /x"] {
            world.script(&world.alice, "a.cgi", format!("#!/bin/sh\nprintf '{good}\\n\\n'\n"));
            world.call(&world.alice, "a.cgi").run();
            let told = said(&world.cellwall(&["why", "--last", "--again"]));
            assert!(told.contains("nothing failed\n"), "{good}: {told}");
        }
        world.script(&world.alice, "a.cgi", "#!/bin/sh\nnosuch\nprintf 'X: y\\n\\n'\n");
        world.call(&world.alice, "a.cgi").run();
        let told = said(&world.cellwall(&["why", "--last", "--again"]));
        assert!(told.contains("nothing failed; it said: \"a.cgi: 2: nosuch: not found\""), "{told}");
    });
}

#[test]
fn a_launch_that_is_refused_the_second_time_is_told_with_that_refusal() {
    world(Launcher::Cellwall, |world| {
        let limit = "profile = \"sh\"\n[limits]\nprocesses = 3\ncgroup = \"off\"\n";
        world.site("alice", limit);
        world.apply();
        world.script(&world.alice, "a.cgi", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nran\\n'\n");
        world.call(&world.alice, "a.cgi").run();
        let crowd: Vec<_> = (0..4).map(|_| world.outside(&world.alice, &["/usr/bin/sleep", "60"])).collect();
        let told = world.cellwall(&["why", "--last", "--again"]);
        let text = said(&told);
        for part in [
            "X255",
            "limits.processes, /etc/cellwall/sites.d/alice.toml:5",
            "repair    cellwall set alice limits.processes 6",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        drop(crowd);
    });
}

#[test]
fn the_rule_behind_a_refusal_without_a_site_is_no_key_that_the_hosts_file_has_not() {
    world(Launcher::Cellwall, |world| {
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write("/etc/passwd", accounts.replace("\nalice:", "\nalicia:")).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        let told = said(&world.cellwall(&["why", "--last"]));
        assert!(told.contains("rule      user, of the site's file\n"), "{told}");
        std::fs::write("/etc/passwd", accounts).unwrap();
        world.call(&world.alice, "a.cgi").caller(7, 33, "33").run().refused_somehow();
        let told = said(&world.cellwall(&["why", "--last"]));
        assert!(told.contains("rule      caller, /etc/cellwall/cellwall.toml"), "{told}");
    });
}

#[test]
fn an_interpreter_with_a_letter_too_many_leads_to_the_one_with_the_nearest_name() {
    world(Launcher::Cellwall, |world| {
        world.sites("profile = \"perl\"\n[jail]\nkind = \"host\"\n");
        for wrong in ["/usr/bin/perll", "/usr/bin/pelr"] {
            world.script(&world.alice, "a.cgi", format!("#!{wrong}\nprint \"Status: 200\\n\\nright\";\n"));
            world.call(&world.alice, "a.cgi").run().refused("V11", 255);
            let told = repair(world);
            assert!(told.contains("|/usr/bin/perl|"), "{told}");
            assert!(std::process::Command::new("sh").args(["-c", &told]).status().unwrap().success());
            let outcome = world.call(&world.alice, "a.cgi").run();
            assert!(outcome.out_text().contains("right"), "{}", outcome.story());
        }
    });
}

#[test]
fn records_that_the_launcher_does_not_trust_are_told_where_nothing_else_can_be() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        for (spoil, found, mend) in [
            ("chmod 777 /var/lib/cellwall", "/var/lib/cellwall is writable by others", "chmod go-w"),
            (
                "rm -r /var/lib/cellwall/policy",
                "/var/lib/cellwall/policy/host: there is none",
                "cellwall apply",
            ),
        ] {
            assert!(pasted(spoil));
            // Whoever trusts no record does not know the log.
            world.call(&world.alice, "a.cgi").unrecorded();
            for words in [&["why", "--last"][..], &["why", "--last", "alice"], &["why", "ABCD-EFGH"]] {
                let text = said(&world.cellwall(words));
                assert!(text.contains(found), "{words:?}: {text}");
            }
            let text = said(&world.cellwall(&["why", "--last"]));
            let line = text.lines().find_map(|line| line.trim().strip_prefix("repair: ")).unwrap();
            assert!(line.contains(mend), "{line}");
            if mend == "chmod go-w" {
                assert!(said(&world.cellwall(&["check"])).contains(found), "{found}");
            }
            assert!(pasted(line), "{line}");
            world.call(&world.alice, "a.cgi").run().ran();
            // And where an older refusal is found, that it may not be the last one.
            world.call(&world.alice, "missing").run().refused("V117", 117);
            assert!(pasted(spoil));
            let text = said(&world.cellwall(&["why", "--last"]));
            assert!(text.contains("V117") && text.contains("it may not be the last one"), "{text}");
            assert!(pasted(line), "{line}");
        }
    });
}

#[test]
fn what_was_left_out_of_the_environment_is_told_by_name() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let call = world.call(&world.alice, "a.cgi").env("LD_PRELOAD=/tmp/x.so").env("HTTP_PROXY=evil:1");
        let outcome = call.env("SHOP_KEY=secret").run();
        outcome.ran();
        let text = said(&world.cellwall(&["why", outcome.records[0].field("ref")]));
        let line = text.lines().find(|line| line.contains("left out")).unwrap();
        for name in ["LD_PRELOAD", "HTTP_PROXY", "SHOP_KEY"] {
            assert!(line.contains(name), "{line}");
        }
        assert!(!text.contains("secret"), "{text}");
    });
}

/// A handler's interpreter stands in the site's file and in no first line of the program.
#[test]
fn a_handler_that_has_gone_is_told_with_its_key_and_another_one() {
    world(Launcher::Cellwall, |world| {
        put("/usr/bin/answer", b"#!/bin/sh\nprintf 'Status: 200\\n\\nright'\n", 0, 0o755);
        world.site("alice", "profile = \"sh\"\n[handlers]\n\".ask\" = \"/usr/bin/answer\"\n");
        world.apply();
        let page = world.script(&world.alice, "a.ask", "a question\n");
        assert!(world.call(&world.alice, "a.ask").run().out_text().contains("right"));
        std::fs::rename("/usr/bin/answer", "/usr/bin/answer8.2").unwrap();
        world.call(&world.alice, "a.ask").run().refused_somehow();
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("handlers, /etc/cellwall/sites.d/alice.toml:"), "{text}");
        let told = repair(world);
        assert!(told.starts_with("cellwall set alice handlers..ask /usr/bin/answer8.2"), "{text}");
        assert!(pasted(&told), "{told}");
        assert_eq!(std::fs::read(page).unwrap(), b"a question\n", "nobody edits the page");
        assert!(world.call(&world.alice, "a.ask").run().out_text().contains("right"));
    });
}
