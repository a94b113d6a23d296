//! `cellwall why`: from the reference on a page to the cause and the cure.

use std::os::unix::fs::{MetadataExt as _, chown, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};

use crate::harness::{CELLWALL, LOG, Launcher, World, each_jail, make_directory, mode, put, small, world};

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

/// One that was taken over appends what it likes to the log, and answers what it likes.
#[test]
fn what_a_broker_says_steers_no_terminal() {
    world(Launcher::Cellwall, |world| {
        let record =
            "refuse ref=AAAA-BBBB code=P01 status=83 site=- pid=1 why=\"x\x1b[2J\" fix=\"cellwall apply\"";
        let lines = format!(
            "2026-01-02T03:04:05.000006Z {record}\n2026-01-02T03:04:05.\x1b[2J {}\n",
            record.replace("AAAA", "CCCC").replace('\x1b', "")
        );
        std::fs::write(LOG, lines).unwrap();
        make_directory("/run/cellwall", 0, 0o755);
        let broker = std::os::unix::net::UnixListener::bind("/run/cellwall/status.sock").unwrap();
        std::thread::spawn(move || {
            for client in broker.incoming() {
                let answer = b"HTTP/1.1 200 OK\r\n\r\nsite\tstate\n\x1b[2Jalice\tup\n";
                drop(std::io::Write::write_all(&mut client.unwrap(), answer));
            }
        });
        for words in [
            &["why", "AAAA-BBBB"][..],
            &["why", "CCCC-BBBB"],
            &["why", "--last"],
            &["status"],
            &["status", "--json"],
            &["top", "--count", "1", "--every", "1"],
        ] {
            let text = said(&world.cellwall(words));
            let begins = if words.contains(&"--json") { "{\"ok\":false," } else { "error: " };
            assert!(!text.contains('\x1b') && text.starts_with(begins), "{words:?}: {text:?}");
        }
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
fn the_last_refusal_of_a_site_is_found_without_its_reference() {
    world(Launcher::Cellwall, |world| {
        world.call(&world.alice, "first").run().refused("V117", 117);
        world.call(&world.bob, "second").run().refused("V117", 117);
        assert!(said(&world.cellwall(&["why", "--last"])).contains("htdocs/second"));
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("htdocs/first"));
        let json = said(&world.cellwall(&["why", "--last", "alice", "--json"]));
        assert!(json.contains("\"code\"") && json.contains("\"V117\""), "{json}");
        let none = world.cellwall(&["why", "0000-0000"]);
        assert_eq!(none.status.code(), Some(1));
        assert!(said(&none).contains("/var/log/cellwall/cellwall.log"), "{}", said(&none));
    });
}

#[test]
fn a_request_that_was_refused_before_its_site_was_known_is_the_sites_users() {
    world(Launcher::Cellwall, |world| {
        let other = world.bob.id.to_string();
        world.call(&world.alice, "a.cgi").word(2, &other).run().refused("P02", 83);
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("P02, exit status 83"));
        assert_eq!(world.cellwall(&["why", "--last", "bob"]).status.code(), Some(1));
    });
}

/// Apache passes numbers; who calls the launcher by hand passes names.
#[test]
fn a_request_with_names_in_the_place_of_numbers_is_found_by_its_site() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").word(1, "alice").run().refused("R105", 105);
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("R105, exit status 105"));
        assert_eq!(world.cellwall(&["why", "--last", "bob"]).status.code(), Some(1));
        // One that nobody is named by belongs to no site, and is told beside the site's last one.
        world.call(&world.bob, "nothing").run().refused("V117", 117);
        let nameless = world.call(&world.alice, "a.cgi").word(1, "nobodyhere").run().refused("R105", 105);
        let command = format!("cellwall why {}", nameless.field("ref"));
        for site in ["alice", "bob"] {
            let text = said(&world.cellwall(&["why", "--last", site]));
            assert!(text.contains("named no site (R105)") && text.contains(&command), "{text}");
        }
        // One for alice's is not told to bob.
        world.call(&world.bob, "nothing").run().refused("V117", 117);
        world.call(&world.alice, "a.cgi").word(1, "alice").run().refused("R105", 105);
        let text = said(&world.cellwall(&["why", "--last", "bob"]));
        assert!(!text.contains("named no site"), "{text}");
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
fn a_launch_can_be_asked_about_too() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        let text = said(&world.cellwall(&["why", outcome.records[0].field("ref")]));
        assert!(text.contains("was launched") && text.contains("landlock="), "{text}");
    });
}

#[test]
fn syslog_is_asked_where_records_go_there() {
    world(Launcher::Cellwall, |world| {
        let daemon = world.syslog();
        std::fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n[log]\nto = \"syslog\"\n")
            .unwrap();
        world.apply();
        daemon.heard();
        world.call(&world.alice, "missing").unrecorded();
        let heard = daemon.heard();
        // As rsyslog writes it on Debian.
        let line = heard[0].trim_start_matches("<86>").replacen(" cellwall", " host cellwall", 1);
        std::fs::write("/var/log/auth.log", format!("{line}\n")).unwrap();
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("V117") && text.contains("htdocs/missing"), "{text}");
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

#[test]
fn a_reference_without_a_record_leads_to_the_launcher_itself() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let repaired = |kind: &str, reference: &str| {
            let told = said(&world.cellwall(&["why", reference]));
            assert!(told.contains(kind), "{kind} is not in\n{told}");
            let repair =
                told.lines().find_map(|line| line.trim().strip_prefix("repair: ")).unwrap().to_owned();
            let done = std::process::Command::new("sh").args(["-c", &repair]).status().unwrap();
            assert!(done.success(), "{repair}");
        };
        // Who has no right to write the record cannot leave one.
        mode(CELLWALL, 0o755);
        let refused = world.call(&world.alice, "a.cgi").unrecorded();
        let page = refused.err_text();
        let reference = page.split("reference ").nth(1).unwrap().split([' ', '\n']).next().unwrap();
        repaired("has mode 0755 and owner 0, not 4750 and root", reference);
        world.call(&world.alice, "a.cgi").run().ran();
        chown(CELLWALL, None, Some(world.bob.id)).unwrap();
        mode(CELLWALL, 0o4750);
        repaired("www-data is not in its group", "0000-0000");
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

/// Nothing was refused: then nothing is wrong with how the launcher is installed, and what was launched is what there is to ask about.
#[test]
fn of_a_site_that_nothing_was_refused_of_the_last_launch_is_shown() {
    world(Launcher::Cellwall, |world| {
        std::fs::create_dir_all("/etc/apache2/mods-enabled").unwrap();
        drop(std::fs::remove_file("/etc/apache2/mods-enabled/suexec.load"));
        world.probe(&world.alice, "a.cgi");
        let told = |words: &[&str]| said(&world.cellwall(words));
        let text = told(&["why", "--last", "alice"]);
        assert!(text.contains("Apache's module suexec is not enabled"), "{text}");
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        let text = told(&["why", "--last", "alice"]);
        assert!(text.contains("no refusal of site `alice` is recorded"), "{text}");
        assert!(!text.contains("found: "), "{text}");
        assert!(text.contains("its last launch: cellwall why --last alice --again"), "{text}");
        assert!(told(&["why", "--last", "bob"]).contains("found: "), "bob's programs were never asked for");
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
fn what_is_no_reference_and_what_is_no_site_is_told_so() {
    world(Launcher::Cellwall, |world| {
        let told = |words: &[&str]| said(&world.cellwall(words));
        assert!(told(&["why", "nonsense"]).contains("one looks like 7F3K-92QX"));
        assert!(told(&["why", "OOOO-IIII"]).contains("there is no record 0000-1111"));
        assert!(told(&["why", "--last", "alcie"]).contains("did you mean `alice`?"));
        assert!(told(&["policy", "nosuch"]).contains("its file would be /etc/cellwall/sites.d/nosuch.toml"));
        assert!(told(&["set", "alcie", "limits.memory", "1G"]).contains("did you mean `alice`?"));
        assert!(told(&["run", "alice", "--", "nosuchprogram"]).contains("name it in `execute`"));
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
fn a_first_line_opens_nothing_that_is_no_program_of_roots() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", &small("view"));
        world.apply();
        let own = world.alice.home().join("own");
        put(&own, b"#!/bin/sh\n", world.alice.id, 0o755);
        put("/srv/data", b"x", 0, 0o644);
        put("/srv/other", b"x", world.bob.id, 0o755);
        for name in ["/home", "/etc", "/srv/data", "/srv/other", "/root", own.to_str().unwrap()] {
            world.script(&world.alice, "a.cgi", format!("#!{name}\n"));
            let refused = world.call(&world.alice, "a.cgi").run().refused_somehow();
            assert!(["V11", "V14"].contains(&refused.field("code")), "{}", refused.line);
            let repair = repair(world);
            for word in ["cellwall set", "chown", "chmod"] {
                assert!(!repair.contains(word), "{name}: {repair}");
            }
        }
        make_directory("/srv/tool", 0, 0o755);
        put("/srv/tool/run", b"#!/bin/sh\n", 0, 0o755);
        world.script(&world.alice, "a.cgi", "#!/srv/tool/run\n");
        world.call(&world.alice, "a.cgi").run().refused("V11", 255);
        assert_eq!(repair(world), "cellwall set alice files.execute /srv/tool/run");
        world.site("alice", &format!("interpreters = \"/usr/bin/perl\"\n{}", small("view")));
        world.apply();
        for (name, mended) in [(own.to_str().unwrap(), false), ("/bin/sh", true)] {
            world.script(&world.alice, "a.cgi", format!("#!{name}\n"));
            world.call(&world.alice, "a.cgi").run().refused("V15", 86);
            assert_eq!(repair(world).starts_with("cellwall set alice interpreters "), mended, "{name}");
        }
    });
}

#[test]
fn a_link_in_a_programs_place_widens_no_rule() {
    world(Launcher::Cellwall, |world| {
        let target = world.probe(&world.alice, "target.cgi");
        symlink(target, world.alice.docroot().join("a.cgi")).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("V117", 117);
        let repair = repair(world);
        assert!(repair.starts_with("# ") && !repair.contains("cellwall set"), "{repair}");
    });
}

/// Between the record and root's paste the owner has all the time in the world.
#[test]
fn a_remedy_changes_nothing_behind_a_link_that_was_put_there_since() {
    world(Launcher::Cellwall, |world| {
        let top = world.alice.docroot();
        let sub = top.join("sub");
        make_directory(&sub, world.alice.id, 0o755);
        make_directory("/srv/precious", 0, 0o777);
        let facts = |path: &str| {
            let facts = std::fs::metadata(path).unwrap();
            (facts.uid(), facts.gid(), facts.mode() & 0o7777)
        };
        for (code, owner, rights) in
            [("V118", 1, 0o777), ("V119", 1, 0o4755), ("V121", 1, 0o644), ("V120", 0, 0o755)]
        {
            let spoiled = || {
                let path = world.probe(&world.alice, "sub/a.cgi");
                chown(&path, Some(owner * world.alice.id), Some(owner * world.alice.id)).unwrap();
                mode(&path, rights);
                assert_eq!(
                    world.call(&world.alice, "a.cgi").cwd(&sub).run().refused_somehow().field("code"),
                    code
                );
                (path, repair(world))
            };
            let (path, repair) = spoiled();
            // The program itself, then the directory that it is in, is exchanged for a link.
            put("/srv/precious/a.cgi", b"x", owner * world.alice.id, rights);
            let before = facts("/srv/precious/a.cgi");
            std::fs::remove_file(&path).unwrap();
            symlink("/srv/precious/a.cgi", &path).unwrap();
            pasted(&repair);
            assert_eq!(facts("/srv/precious/a.cgi"), before, "{repair}");
            std::fs::rename(&sub, top.join("before")).unwrap();
            symlink("/srv/precious", &sub).unwrap();
            pasted(&repair);
            assert_eq!(facts("/srv/precious/a.cgi"), before, "{repair}");
            assert_eq!(facts("/srv/precious"), (0, 0, 0o777), "{repair}");
            std::fs::remove_file(&sub).unwrap();
            std::fs::rename(top.join("before"), &sub).unwrap();
            std::fs::remove_file(&path).unwrap();
            // Where nobody did anything, it mends.
            let (_, repair) = spoiled();
            assert!(pasted(&repair), "{repair}");
            world.call(&world.alice, "a.cgi").cwd(&sub).run().ran();
        }
        for (code, owner, rights) in [("V116", world.alice.id, 0o777), ("V01", world.bob.id, 0o755)] {
            chown(&sub, Some(owner), None).unwrap();
            mode(&sub, rights);
            assert_eq!(
                world.call(&world.alice, "a.cgi").cwd(&sub).run().refused_somehow().field("code"),
                code
            );
            let repair = repair(world);
            std::fs::rename(&sub, top.join("before")).unwrap();
            symlink("/srv/precious", &sub).unwrap();
            pasted(&repair);
            assert_eq!(facts("/srv/precious"), (0, 0, 0o777), "{repair}");
            std::fs::remove_file(&sub).unwrap();
            std::fs::rename(top.join("before"), &sub).unwrap();
            assert!(pasted(&repair), "{repair}");
            world.call(&world.alice, "a.cgi").cwd(&sub).run().ran();
        }
    });
}

/// The launcher's own remedy is the same one: records are read without `why`, too.
#[test]
fn a_second_name_is_taken_away_whatever_stands_beside_it() {
    world(Launcher::Cellwall, |world| {
        let top = world.alice.docroot();
        let sub = top.join("sub");
        make_directory(&sub, world.alice.id, 0o755);
        make_directory("/var/www/precious", 0, 0o755);
        let path = world.probe(&world.alice, "sub/a.cgi");
        std::fs::hard_link(&path, top.join("second")).unwrap();
        for name in ["a.cgi.new", ".cellwall-a"] {
            symlink("/var/www/precious", sub.join(name)).unwrap();
        }
        let refused = world.call(&world.alice, "a.cgi").cwd(&sub).run().refused("V06", 86);
        let fix = format!("cellwall fix --apply alice {}", path.display());
        assert_eq!(repair(world), fix);
        assert!(refused.field("fix").starts_with(&fix), "{}", refused.line);
        std::fs::rename(&sub, top.join("before")).unwrap();
        symlink("/var/www/precious", &sub).unwrap();
        std::fs::hard_link(top.join("second"), "/var/www/precious/a.cgi").unwrap();
        assert!(!pasted(&fix));
        assert_eq!(std::fs::metadata("/var/www/precious/a.cgi").unwrap().nlink(), 3);
        std::fs::remove_file("/var/www/precious/a.cgi").unwrap();
        std::fs::remove_file(&sub).unwrap();
        std::fs::rename(top.join("before"), &sub).unwrap();
        let facts = |path: &std::path::Path| {
            let facts = std::fs::metadata(path).unwrap();
            (facts.uid(), facts.gid(), facts.mode(), facts.mtime(), facts.mtime_nsec(), facts.size())
        };
        let before = facts(&path);
        assert!(pasted(refused.field("fix")), "{}", refused.line);
        world.call(&world.alice, "a.cgi").cwd(&sub).run().ran();
        assert_eq!(facts(&path), before);
        assert_eq!(facts(&top.join("second")), before);
        assert_eq!(std::fs::metadata(&path).unwrap().nlink(), 1);
        assert_eq!(std::fs::read_dir("/var/www/precious").unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(&sub).unwrap().count(), 3, "nothing is left beside it");
        // No file of another owner is given a copy, nor one that is not named.
        put("/var/www/bobs", b"secret", world.bob.id, 0o600);
        std::fs::hard_link("/var/www/bobs", top.join("theirs")).unwrap();
        std::fs::hard_link(&path, top.join("third")).unwrap();
        for words in [vec!["theirs"], vec![]] {
            let paths = words.iter().map(|name| top.join(name).display().to_string());
            let words: Vec<String> =
                ["fix", "--apply", "alice"].map(str::to_owned).into_iter().chain(paths).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(world.cellwall(&words).status.code(), Some(1));
        }
        assert_eq!(std::fs::metadata("/var/www/bobs").unwrap().nlink(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().nlink(), 2);
    });
}

#[test]
fn capabilities_are_taken_from_what_is_held() {
    world(Launcher::Cellwall, |world| {
        let path = world.probe(&world.alice, "a.cgi");
        let capable = |path: &str| pasted(&format!("setcap cap_net_raw+ep {path}"));
        assert!(capable(path.to_str().unwrap()));
        let refused = world.call(&world.alice, "a.cgi").run().refused("V07", 86);
        put("/srv/tool", b"x", 0, 0o755);
        assert!(capable("/srv/tool"));
        let before = world.alice.docroot().join("before");
        std::fs::rename(&path, &before).unwrap();
        symlink("/srv/tool", &path).unwrap();
        pasted(refused.field("fix"));
        assert!(pasted("getcap /srv/tool | grep -q cap_net_raw"), "{}", refused.line);
        std::fs::rename(&before, &path).unwrap();
        assert!(pasted(refused.field("fix")), "{}", refused.line);
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn a_script_is_edited_with_its_owners_rights() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let top = world.alice.docroot();
        let sub = top.join("sub");
        make_directory(&sub, world.alice.id, 0o755);
        make_directory("/srv/precious", 0, 0o755);
        let answer = "printf 'Content-Type: text/plain\\n\\nran\\n'\n";
        let hand = format!("setpriv --reuid={0} --regid={0} --clear-groups sed -i ", world.alice.id);
        world.script(&world.alice, "a.cgi", format!("#!/usr/local/bin/sh\n{answer}"));
        world.call(&world.alice, "a.cgi").run().refused("V11", 255);
        let command = repair(world);
        assert!(command.starts_with(&hand) && pasted(&command), "{command}");
        assert!(world.call(&world.alice, "a.cgi").run().out_text().contains("ran"), "{command}");
        for (code, first) in [("V10", "#!/bin/sh\r\n"), ("V12", "")] {
            let text = format!("{first}{answer}");
            world.script(&world.alice, "sub/a.sh", &text);
            put("/srv/precious/a.sh", text.as_bytes(), 0, 0o644);
            let refused = world.call(&world.alice, "a.sh").cwd(&sub).run().refused_somehow();
            assert_eq!(refused.field("code"), code, "{}", refused.line);
            let repair = repair(world);
            assert!(repair.starts_with(&hand), "{repair}");
            if code == "V10" {
                assert_eq!(refused.field("fix"), repair);
            }
            std::fs::rename(&sub, top.join("before")).unwrap();
            symlink("/srv/precious", &sub).unwrap();
            assert!(!pasted(&repair), "{repair}");
            assert_eq!(std::fs::read("/srv/precious/a.sh").unwrap(), text.as_bytes(), "{repair}");
            std::fs::remove_file(&sub).unwrap();
            std::fs::rename(top.join("before"), &sub).unwrap();
            assert!(pasted(&repair), "{repair}");
            let ran = world.call(&world.alice, "a.sh").cwd(&sub).run();
            assert!(ran.out_text().contains("ran"), "{}", ran.story());
        }
    });
}

#[test]
fn a_closed_directory_is_opened_with_its_owners_rights() {
    world(Launcher::Cellwall, |world| {
        let top = world.alice.docroot();
        let sub = top.join("sub");
        make_directory(&sub, world.alice.id, 0o755);
        make_directory("/srv/precious", 0, 0o700);
        let precious = || std::fs::metadata("/srv/precious").unwrap().mode() & 0o7777;
        world.probe(&world.alice, "sub/a.cgi");
        for rights in [0o655, 0o644] {
            mode(&sub, rights);
            let code = world.call(&world.alice, "a.cgi").cwd(&sub).run().refused_somehow();
            assert!(["V111", "V115", "V117"].contains(&code.field("code")), "{}", code.line);
            let repair = repair(world);
            assert!(repair.starts_with(&format!("setpriv --reuid={} ", world.alice.id)), "{repair}");
            std::fs::rename(&sub, top.join("before")).unwrap();
            symlink("/srv/precious", &sub).unwrap();
            assert!(!pasted(&repair) && precious() == 0o700, "{repair}");
            std::fs::remove_file(&sub).unwrap();
            std::fs::rename(top.join("before"), &sub).unwrap();
            assert!(pasted(&repair), "{repair}");
            world.call(&world.alice, "a.cgi").cwd(&sub).run().ran();
        }
    });
}

#[test]
fn what_another_one_put_into_the_home_is_not_given_away_by_its_path() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[files]\nread = [\"/home/alice\"]\n");
        world.apply();
        let sub = world.alice.home().join("sub");
        make_directory(&sub, world.alice.id, 0o755);
        put(sub.join("x"), b"x", world.bob.id, 0o600);
        let again = |text: &str| {
            world.script(&world.alice, "a.cgi", text);
            world.call(&world.alice, "a.cgi").run();
            said(&world.cellwall(&["why", "--last", "--again"]))
        };
        let told = again(&format!("#!/bin/sh\nread line <{}\n", sub.join("x").display()));
        assert!(told.contains("denied by the modes of /home/alice/sub/x"), "{told}");
        assert!(!told.contains("chown") && told.contains("# it belongs to uid"), "{told}");
        let told = again("#!/bin/sh\necho hello\n");
        let hand = format!("setpriv --reuid={0} --regid={0} --clear-groups sed -i '1a ", world.alice.id);
        assert!(told.contains(&hand), "{told}");
    });
}

/// A year of a large host: what is asked for is found, in a fraction of the memory that its log would take.
#[test]
fn a_log_that_is_larger_than_the_memory_is_searched() {
    world(Launcher::Cellwall, |world| {
        let refused = world.call(&world.alice, "first").run().refused("V117", 117);
        let line =
            "2026-01-02T03:04:05.000006Z launch ref=AAAA-AAAA site=bob pid=7 dir=\"/srv\" script=\"x\"\n";
        let mut log = std::fs::File::options().append(true).open(LOG).unwrap();
        let block = line.repeat(10_000);
        while log.metadata().unwrap().len() < 72 << 20 {
            std::io::Write::write_all(&mut log, block.as_bytes()).unwrap();
        }
        world.call(&world.bob, "second").run().refused("V117", 117);
        for words in [vec![refused.field("ref")], vec!["--last", "alice"], vec!["--last"]] {
            // The program and its libraries take 10 MB of it.
            let text = format!("ulimit -v 60000; exec cellwall why {}", words.join(" "));
            let told = crate::harness::run(std::process::Command::new("sh").args(["-c", &text]));
            let name = if words == ["--last"] { "htdocs/second" } else { "htdocs/first" };
            assert!(told.status.success() && said(&told).contains(name), "{words:?}: {}", said(&told));
        }
    });
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

/// An umlaut in a directory's name: a record holds it escaped, and what is pasted names the file all the same.
#[test]
fn a_name_of_any_bytes_is_told_mended_and_run_once_more() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let sub = world.alice.docroot().join("m\u{fc}ll \"er's\"");
        make_directory(&sub, world.alice.id, 0o755);
        let put =
            |name: &str, text: &str, rights| put(sub.join(name), text.as_bytes(), world.alice.id, rights);
        let bash = |command: &str| {
            let said = crate::harness::run(std::process::Command::new("bash").args(["-c", command]));
            assert!(said.status.success(), "{command}: {}", String::from_utf8_lossy(&said.stderr));
        };
        let answer = "printf 'Content-Type: text/plain\\n\\nran\\n'\n";
        let call = |name: &str| world.call(&world.alice, name).cwd(&sub).run();
        for (code, text, rights) in [
            ("V118", format!("#!/bin/sh\n{answer}"), 0o775),
            ("V121", format!("#!/bin/sh\n{answer}"), 0o644),
            ("V10", format!("#!/bin/sh\r\n{answer}"), 0o755),
            ("V12", answer.to_owned(), 0o755),
        ] {
            put("a.sh", &text, rights);
            assert_eq!(call("a.sh").refused_somehow().field("code"), code);
            let repair = repair(world);
            // This one, and not all of the site.
            assert!(repair.contains("\\xc3\\xbc"), "{repair}");
            bash(&repair);
            assert!(call("a.sh").out_text().contains("ran"), "{repair}");
        }
        put("a.sh", "#!/bin/sh\necho hello\n", 0o755);
        call("a.sh");
        let told = said(&world.cellwall(&["why", "--last", "--again"]));
        let repair = told
            .lines()
            .find_map(|line| line.trim().strip_prefix("repair"))
            .unwrap_or_else(|| panic!("{told}"));
        bash(repair);
        assert!(call("a.sh").out_text().contains("\n\n"), "{repair}");
        mode(sub.join("a.sh"), 0o775);
        let told = said(&world.cellwall(&["fix", "alice"]));
        bash(told.lines().find_map(|line| line.strip_prefix("  ")).unwrap());
        assert_eq!(world.cellwall(&["fix", "alice"]).status.code(), Some(0));
    });
}

#[test]
fn a_rotated_log_is_read_whatever_its_name_is_and_packed_or_not() {
    world(Launcher::Cellwall, |world| {
        let rotations: [(&str, &[&str]); 5] = [
            (".3.gz", &["gzip"]),
            (".2", &[]),
            ("-20260102", &[]),
            ("-20260103.gz", &["gzip"]),
            (".1.xz", &["xz"]),
        ];
        let mut references = Vec::new();
        for (end, packer) in rotations {
            let refused = world.call(&world.alice, end).run().refused("V117", 117);
            references.push((refused.field("ref").to_owned(), end));
            let (plain, _) = end.split_once(".gz").or(end.split_once(".xz")).unwrap_or((end, ""));
            let rotated = format!("{LOG}{plain}");
            std::fs::rename(LOG, &rotated).unwrap();
            for packer in packer {
                let packed = crate::harness::run(std::process::Command::new(packer).arg(&rotated));
                assert!(packed.status.success(), "{packer}");
            }
        }
        put(format!("{LOG}.save"), b"an editor's", 0, 0o600);
        world.call(&world.bob, "last").run().refused("V117", 117);
        for (reference, end) in references {
            let told = world.cellwall(&["why", &reference]);
            assert!(
                told.status.success() && said(&told).contains(&format!("htdocs/{end}:")),
                "{}",
                said(&told)
            );
        }
        // The youngest first.
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("htdocs/.1.xz:"));
        let none = said(&world.cellwall(&["why", "0000-0000"]));
        assert!(none.contains("cellwall.log-20260103.gz") && !none.contains(".save"), "{none}");
    });
}

#[test]
fn a_reference_in_suexecs_form_of_the_log_is_found_and_what_is_lacking_told() {
    world(Launcher::Cellwall, |world| {
        world.log_rules("format = \"suexec\"");
        world.call(&world.alice, "missing").unrecorded();
        let log = std::fs::read_to_string(LOG).unwrap();
        let reference = log.split("(reference ").last().unwrap().get(..9).unwrap().to_owned();
        let told = world.cellwall(&["why", &reference]);
        let text = said(&told);
        assert!(told.status.success(), "{text}");
        for part in [
            "htdocs/missing: No such file",
            "V117",
            "ls -l /var/www/alice/htdocs",
            "format = \"suexec\" holds no more",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("of the pool"), "{text}");
        assert!(said(&world.cellwall(&["why", "--last"])).contains(&reference));
        // What a pool's program says stands in the same file, and is none.
        let mut file = std::fs::File::options().append(true).open(LOG).unwrap();
        for line in [
            "stderr site=bob worker=1 line=\"x (reference AAAA-AAAA, V118)\"",
            "x (reference BBBB-BBBB, V999)",
        ] {
            std::io::Write::write_all(&mut file, format!("[2026-01-02 03:04:05]: {line}\n").as_bytes())
                .unwrap();
        }
        for reference in ["AAAA-AAAA", "BBBB-BBBB"] {
            assert_eq!(world.cellwall(&["why", reference]).status.code(), Some(1), "{reference}");
        }
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

fn forget_views() {
    umount2("/run/cellwall/views", MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_directory_of_roots_that_others_may_write_to_is_closed_by_the_remedy_unless_it_is_everybodys() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        world.probe(&world.alice, "a.cgi");
        mode("/var/www", 0o777);
        forget_views();
        world.call(&world.alice, "a.cgi").run().refused("C06", 84);
        let told = repair(world);
        assert_eq!(told, "chmod go-w /var/www && cellwall apply");
        assert!(std::process::Command::new("sh").args(["-c", &told]).status().unwrap().success());
        world.call(&world.alice, "a.cgi").run().ran();
        // One of those that are for all, as somebody has mistaken it for another.
        mode("/tmp", 0o755);
        put("/tmp/settings", b"x", 0, 0o644);
        world.site("alice", &format!("{}read = [\"/tmp/settings\"]\n", small("view")));
        world.apply();
        mode("/tmp", 0o1777);
        forget_views();
        world.call(&world.alice, "a.cgi").run().refused("C06", 84);
        let told = repair(world);
        assert!(!told.contains("chmod") && told.contains("/tmp"), "{told}");
        assert!(std::process::Command::new("sh").args(["-c", &told]).status().unwrap().success(), "{told}");
    });
}

#[test]
fn a_directory_above_the_records_is_closed_by_the_remedy_whatever_its_mode() {
    world(Launcher::Cellwall, |world| {
        for wrong in [0o777, 0o1777, 0o775] {
            mode("/var/lib", wrong);
            // A launch cannot trust the host's record either, and tells the system's log.
            let line = format!(
                "2026-01-02T03:04:05.000006Z refuse ref=AAAA-AAAA code=P04 status=83 site=- pid=7 caller=33 \
                 asked=\"{0} {0} a.cgi\" why=\"/var/lib: is writable by others ({wrong:04o})\" fix=\"chown root /var/lib && chmod go-w /var/lib\"\n",
                world.alice.id
            );
            std::fs::write(LOG, line).unwrap();
            let told = repair(world);
            assert!(told.starts_with("chown root /var/lib && chmod go-w /var/lib"), "{wrong:o}: {told}");
            assert!(pasted(&told));
            let now = std::fs::metadata("/var/lib").unwrap().mode() & 0o022;
            assert_eq!(now, 0, "{wrong:o}: {told}");
        }
    });
}

#[test]
fn a_site_that_there_is_not_is_no_reason_to_look_at_the_installation() {
    world(Launcher::Cellwall, |world| {
        mode(CELLWALL, 0o755);
        let text = said(&world.cellwall(&["why", "--last", "alise"]));
        assert!(text.contains("did you mean `alice`?") && !text.contains("found:"), "{text}");
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("found:"));
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
fn a_record_in_suexecs_form_has_the_status_of_its_code() {
    world(Launcher::Cellwall, |world| {
        world.log_rules("format = \"suexec\"");
        mode(world.alice.docroot().join("a.cgi"), 0o777);
        world.call(&world.alice, "a.cgi").unrecorded();
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("\n  V118, exit status 118. More:"), "{text}");
        let json = said(&world.cellwall(&["why", "--last", "--json"]));
        assert!(json.contains("\"status\":\"118\""), "{json}");
    });
}

#[test]
fn a_path_with_a_colon_in_it_is_told_whole_and_no_other_file_is_mended() {
    each_jail(|world| {
        let other = world.probe(&world.alice, "x");
        mode(&other, 0o644);
        let odd = world.alice.docroot().join("x: y");
        make_directory(&odd, world.alice.id, 0o755);
        let program = odd.join("a.cgi");
        world.probe_at(&world.alice, &program);
        mode(&program, 0o777);
        world.call(&world.alice, "a.cgi").cwd(&odd).run().refused("V118", 118);
        let told = repair(world);
        assert!(std::process::Command::new("sh").args(["-c", &told]).status().unwrap().success(), "{told}");
        assert_eq!(program.metadata().unwrap().mode() & 0o777, 0o755, "{told}");
        assert_eq!(other.metadata().unwrap().mode() & 0o777, 0o644, "{told}");
    });
}

#[test]
fn a_site_without_a_record_is_found_by_the_user_that_its_file_names() {
    world(Launcher::Cellwall, |world| {
        let dave = world.another("dave", 0);
        world.probe(&dave, "a.cgi");
        world.site("dave", &small("host"));
        // Written, and never applied.
        world.call(&dave, "a.cgi").run().refused("P121", 121);
        let text = said(&world.cellwall(&["why", "--last", "dave"]));
        assert!(text.contains("P121, exit status 121"), "{text}");
        assert!(pasted(&repair(world)));
        world.call(&dave, "a.cgi").run().ran();
        put(format!("/var/lib/cellwall/policy/{}", dave.id), b"nonsense", 0, 0o600);
        world.call(&dave, "a.cgi").run().refused("P01", 83);
        let text = said(&world.cellwall(&["why", "--last", "dave"]));
        assert!(text.contains("P01, exit status 83"), "{text}");
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

/// People paste what they have: the page's sentence, a line of the web server's error log, a field of the record.
#[test]
fn a_reference_is_found_in_what_was_pasted_around_it() {
    world(Launcher::Cellwall, |world| {
        let refused = world.call(&world.alice, "nosuch.cgi").run().refused("V117", 117);
        let reference = refused.field("ref");
        let small = reference.to_lowercase();
        for text in [
            format!("Reference: {reference}"),
            format!("The server could not answer this request. Reference: {small}"),
            format!("cellwall: refused, reference {reference}"),
            format!("ref={reference}"),
            format!(
                "[Fri Nov 27 08:45:38 2026] [cgid:error] stderr from /srv/www-data/a.cgi: cellwall: refused, reference {reference}\n"
            ),
        ] {
            let told = world.cellwall(&["why", &text]);
            assert!(told.status.success(), "{text}: {}", said(&told));
            assert!(said(&told).starts_with(reference), "{text}: {}", said(&told));
        }
        let none = said(&world.cellwall(&["why", "Reference: A-B"]));
        assert!(none.starts_with("error: `Reference: A-B` is no reference\n"), "{none}");
        let odd = std::process::Command::new("cellwall").args(["why"]).arg(not_utf8("A")).output().unwrap();
        assert_eq!(odd.status.code(), Some(1), "{}", said(&odd));
        assert!(said(&odd).contains("is no reference"), "{}", said(&odd));
    });
}

fn not_utf8(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec([text.as_bytes(), b"\xfc"].concat())
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

#[test]
fn a_page_of_phps_without_a_handler_gets_one_and_no_x_bit() {
    world(Launcher::Cellwall, |world| {
        world.sites("profile = \"perl\"\n");
        for rights in [0o644, 0o755] {
            let page = world.alice.docroot().join("a.php");
            put(&page, b"<?php echo 'a page';\n", world.alice.id, rights);
            world.call(&world.alice, "a.php").run().refused(
                if rights == 0o644 { "V121" } else { "V12" },
                if rights == 0o644 { 121 } else { 255 },
            );
            let told = repair(world);
            assert_eq!(told, "cellwall set alice handlers..php /usr/bin/php-cgi");
            assert!(pasted(&told));
            let outcome = world.call(&world.alice, "a.php").run();
            assert!(outcome.out_text().contains("a page"), "{}", outcome.story());
            world.sites("profile = \"perl\"\n");
        }
        // A program that happens to have that ending keeps its own way.
        put(world.alice.docroot().join("b.php"), b"#!/bin/sh\n", world.alice.id, 0o644);
        world.call(&world.alice, "b.php").run().refused("V121", 121);
        assert!(repair(world).starts_with("cellwall fix --apply alice "));
    });
}

/// Nobody sees it, and the kernel does not look behind it.
#[test]
fn a_byte_order_mark_before_the_first_line_is_taken_out() {
    world(Launcher::Cellwall, |world| {
        world.sites("profile = \"perl\"\n[jail]\nkind = \"host\"\n");
        world.script(&world.alice, "a.cgi", "\u{feff}#!/usr/bin/perl\nprint \"Status: 200\\n\\nright\";\n");
        world.call(&world.alice, "a.cgi").run().refused("V12", 255);
        let told = repair(world);
        assert!(told.contains("# takes the byte order mark out"), "{told}");
        assert!(pasted(&told));
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("right"), "{}", outcome.story());
    });
}

#[test]
fn a_group_that_the_web_server_names_wrongly_is_told_beside_the_sites_own() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").word(2, "33").run().refused("P108", 108);
        let told = repair(world);
        assert_eq!(
            told,
            "# the web server asks for group www-data, and the site's is alice: write SuexecUserGroup alice alice in its virtual host"
        );
    });
}

#[test]
fn an_account_that_is_gone_leads_to_the_file_that_names_it() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write("/etc/passwd", accounts.replace("\nalice:", "\nalyce:")).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        let told = repair(world);
        assert_eq!(
            told,
            "cellwall check /etc/cellwall/sites.d/alice.toml # mend what it says, then: cellwall apply"
        );
        let checked = crate::harness::run(std::process::Command::new("sh").args(["-c", &told]));
        assert!(said(&checked).contains("is `alyce` now"), "{}", said(&checked));
    });
}

/// What failed without any refusal stands in the web server's log, or where PHP was told to write.
#[test]
fn without_a_refusal_the_web_servers_log_and_phps_own_are_told() {
    world(Launcher::Cellwall, |world| {
        std::fs::create_dir_all("/var/log/apache2").unwrap();
        let lines = "[cgid:error] AH01215: first: /var/www/alice/htdocs/a.cgi\n[cgid:error] of bob: /var/www/bob/htdocs/a.cgi\n\
                     [cgid:error] odd \u{1b}[2J: /var/www/alice/htdocs/a.cgi\n";
        put("/var/log/apache2/error.log", lines.as_bytes(), 0, 0o640);
        put("/srv/other", b"secret: /var/www/alice/htdocs/\n", 0, 0o600);
        symlink("/srv/other", "/var/log/apache2/linked-error.log").unwrap();
        make_directory("/etc/cellwall/php", 0, 0o755);
        make_directory("/etc/cellwall/php/alice", 0, 0o755);
        put("/etc/cellwall/php/alice/values.ini", b"error_log = /var/www/alice/htdocs/php.log\n", 0, 0o644);
        let text = said(&world.cellwall(&["why", "--last", "alice"]));
        for part in [
            "server: \"[cgid:error] AH01215: first: /var/www/alice/htdocs/a.cgi\" (/var/log/apache2/error.log)",
            "odd \\x1b[2J",
            "its PHP writes errors to /var/www/alice/htdocs/php.log, by /etc/cellwall/php/alice/values.ini",
            "run: cellwall run alice -- tail -n 5 /var/www/alice/htdocs/php.log",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("of bob") && !text.contains("secret"), "{text}");
        let text = said(&world.cellwall(&["why", "--last", "bob"]));
        assert!(text.contains("of bob") && !text.contains("its PHP"), "{text}");
    });
}

/// A directory service that is down must not have the files of all sites removed.
#[test]
fn while_the_name_service_finds_nobody_no_file_is_said_to_be_superfluous() {
    world(Launcher::Cellwall, |world| {
        let gone = std::fs::read_to_string("/etc/passwd").unwrap().replace("\nalice:x:", "\n#alice:x:");
        std::fs::write("/etc/passwd", gone).unwrap();
        let told = said(&world.cellwall(&["check"]));
        assert!(told.contains("rm /etc/cellwall/sites.d/alice.toml"), "{told}");
        std::fs::write("/etc/nsswitch.conf", "passwd: nothing\ngroup: files\n").unwrap();
        let told = said(&world.cellwall(&["check"]));
        assert!(told.contains("the name service finds nobody, not even root"), "{told}");
        assert!(!told.contains("rm /etc/cellwall"), "{told}");
    });
}
