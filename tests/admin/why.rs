//! `cellwall why`: from the reference on a page to the cause and the cure.

use std::os::unix::fs::{MetadataExt as _, chown, symlink};

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
        assert_eq!(repair("Conter.cgi"), format!("ls -l {}", near.display()));
        assert_eq!(repair("entirely-else"), format!("ls -l {}", near.parent().unwrap().display()));
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
