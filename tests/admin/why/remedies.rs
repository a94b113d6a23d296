//! What `cellwall why` would have root paste, where the site has put something else in the place of what it names.

use std::os::unix::fs::{MetadataExt as _, chown, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{LOG, Launcher, each_jail, make_directory, mode, put, small, world};

use super::{pasted, repair, said};

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

/// A view that is kept has the mount as it was.
#[test]
fn the_remedy_for_a_mount_that_forbids_programs_mends_a_kept_view_too() {
    each_jail(|world| {
        let docroot = world.alice.docroot();
        let flags = MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &docroot, Some("tmpfs"), flags, Some("mode=755")).unwrap();
        chown(&docroot, Some(world.alice.id), Some(world.alice.id)).unwrap();
        world.probe(&world.alice, "a.cgi");
        world.apply();
        world.call(&world.alice, "a.cgi").run().refused("V16", 255);
        let repair = repair(world);
        assert!(pasted(&repair), "{repair}");
        world.call(&world.alice, "a.cgi").run().ran();
    });
}
