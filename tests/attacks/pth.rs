//! What a program and its directories must be: PTH-04 to PTH-23 of the threat catalogue.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::harness::{
    Launcher, TRACE, World, each_jail, make_directory, mode, put, run, small, traced, world,
};
use crate::race::{Stop, Verdict, exchange, judge};

#[test]
fn pth_04_12_another_owners_file_is_refused_however_it_came_here() {
    each_jail(|world| {
        let (alice, bob) = (&world.alice, &world.bob);
        let foreign = world.probe(bob, "b.cgi");
        fs::hard_link(&foreign, alice.docroot().join("linked.cgi")).unwrap();
        world.call(alice, "linked.cgi").run().refused("V120", 120);
        let copy = world.probe(alice, "a.cgi");
        for (uid, gid) in
            [(bob.id, bob.id), (0, 0), (alice.id, bob.id), (alice.id, 0), (bob.id, alice.id), (0, alice.id)]
        {
            chown(&copy, Some(uid), Some(gid)).unwrap();
            let refused = world.call(alice, "a.cgi").run().refused("V120", 120);
            assert!(refused.field("why").contains(&format!("{uid}:{gid}")), "{}", refused.line);
        }
    });
}

#[test]
fn pth_12_another_owners_directory_is_refused() {
    each_jail(|world| {
        let (alice, bob) = (&world.alice, &world.bob);
        let sub = alice.docroot().join("sub");
        make_directory(&sub, alice.id, 0o755);
        let copy = world.probe(alice, "sub/a.cgi");
        world.call(alice, "a.cgi").cwd(&sub).run().ran();
        chown(&sub, Some(bob.id), Some(bob.id)).unwrap();
        let refused = world.call(alice, "a.cgi").cwd(&sub).run().refused_somehow();
        assert!(refused.field("why").contains("htdocs/sub"), "{}", refused.line);
        chown(&sub, Some(0), Some(0)).unwrap();
        world.call(alice, "a.cgi").cwd(&sub).run().refused("V120", 120);
        assert!(copy.exists());
    });
}

#[test]
fn pth_05_a_second_link_is_refused_unless_the_site_allows_it() {
    each_jail(|world| {
        let path = world.probe(&world.alice, "a.cgi");
        fs::hard_link(&path, "/var/www/alice/second").unwrap();
        world.call(&world.alice, "a.cgi").run().refused("V06", 86);
        world.site("alice", &format!("hard_links = true\n{}", small("host")));
        world.apply();
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn pth_06_a_symbolic_link_is_no_program() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for (target, name) in
            [("a.cgi", "own"), ("/bin/ls", "system"), ("nowhere", "dangling"), ("loop", "loop")]
        {
            symlink(target, world.alice.docroot().join(name)).unwrap();
            world.call(&world.alice, name).run().refused("V117", 117);
        }
    });
}

#[test]
fn pth_09_a_twin_with_the_same_beginning_is_another_place() {
    each_jail(|world| {
        for twin in ["/var/www/alice/htdocs2", "/var/www/alice/htdocs.old", "/var/www/alice/htdoc"] {
            make_directory(twin, world.alice.id, 0o755);
            world.probe_at(&world.alice, format!("{twin}/a.cgi"));
            world.call(&world.alice, "a.cgi").cwd(twin).run().refused("P114", 114);
        }
    });
}

#[test]
fn pth_10_every_directory_above_is_nobody_elses_to_change() {
    each_jail(|world| {
        make_directory(world.alice.docroot().join("sub"), world.alice.id, 0o755);
        world.probe(&world.alice, "sub/a.cgi");
        let call = || world.call(&world.alice, "a.cgi").cwd(world.alice.docroot().join("sub")).run();
        for place in ["/var/www", "/var/www/alice", "/var/www/alice/htdocs", "/var/www/alice/htdocs/sub"] {
            for rights in [0o777, 0o1777, 0o775, 0o757, 0o2775] {
                mode(place, rights);
                let refused = call().refused("V116", 116);
                assert!(refused.field("why").starts_with(&format!("{place}:")), "{}", refused.line);
                let fix = format!("cellwall fix --apply alice {place}");
                assert_eq!(refused.field("fix"), fix, "{}", refused.line);
            }
            mode(place, 0o755);
            call().ran();
        }
        chown("/var/www/alice", Some(world.bob.id), None).unwrap();
        let refused = call().refused("V01", 86);
        assert!(refused.field("why").starts_with("/var/www/alice:"), "{}", refused.line);
    });
}

#[test]
fn pth_11_13_a_remedy_works_when_it_is_pasted() {
    each_jail(|world| {
        let path = world.probe(&world.alice, "a.cgi");
        for (rights, code) in
            [(0o777, "V118"), (0o775, "V118"), (0o4755, "V119"), (0o2755, "V119"), (0o644, "V121")]
        {
            mode(&path, rights);
            let outcome = world.call(&world.alice, "a.cgi").run();
            let refused = outcome.refused_somehow();
            assert_eq!(refused.field("code"), code, "{}", refused.line);
            let fix = std::process::Command::new("sh").args(["-c", refused.field("fix")]).status().unwrap();
            assert!(fix.success(), "{}", refused.line);
            world.call(&world.alice, "a.cgi").run().ran();
        }
    });
}

#[test]
fn pth_13_a_file_with_capabilities_is_refused() {
    each_jail(|world| {
        let path = world.probe(&world.alice, "a.cgi");
        world.order(&["capability", path.to_str().unwrap()]);
        world.call(&world.alice, "a.cgi").run().refused("V07", 86);
    });
}

#[test]
fn pth_14_only_a_regular_file_is_a_program() {
    each_jail(|world| {
        let place = |name: &str| world.alice.docroot().join(name);
        mkfifo(&place("fifo"), Mode::S_IRWXU).unwrap();
        make_directory(place("directory"), world.alice.id, 0o755);
        drop(UnixListener::bind(place("socket")).unwrap());
        mknod(&place("null"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap();
        mknod(&place("ram"), SFlag::S_IFBLK, Mode::S_IRWXU, makedev(1, 0)).unwrap();
        for name in ["fifo", "directory", "socket", "null", "ram"] {
            chown(place(name), Some(world.alice.id), Some(world.alice.id)).unwrap();
            mode(place(name), 0o755);
            let outcome = world.call(&world.alice, name).run();
            outcome.refused("V05", 86);
            outcome.at_once();
        }
    });
}

#[test]
fn pth_15_16_17_each_way_of_being_no_program_has_its_own_reason() {
    each_jail(|world| {
        let mut reasons = Vec::new();
        let mut reason = |name: &str, text: &[u8]| {
            put(world.alice.docroot().join(name), text, world.alice.id, 0o755);
            let outcome = world.call(&world.alice, name).run();
            let refused = outcome.refused_somehow();
            outcome.at_once();
            reasons.push(refused.field("why").replace(name, "NAME"));
            refused
        };
        let crlf = reason("crlf", b"#!/bin/sh\r\necho\r\n");
        assert!(crlf.field("why").contains("line"), "the line ending is named: {}", crlf.line);
        let missing = reason("missing", b"#!/usr/bin/no-such-interpreter\n");
        assert!(missing.line.contains("no-such-interpreter"), "the interpreter is named: {}", missing.line);
        reason("empty", b"");
        reason("text", b"echo no first line\n");
        reason("relative", b"#!sh\n");
        reasons.sort();
        let all = reasons.len();
        reasons.dedup();
        assert_eq!(reasons.len(), all, "{reasons:#?}");
    });
}

#[test]
fn pth_17_23_a_loop_of_interpreters_and_odd_files_end_at_once() {
    each_jail(|world| {
        let path = world.script(&world.alice, "loop", "");
        fs::write(&path, format!("#!{}\n", path.display())).unwrap();
        let sparse = world.script(&world.alice, "sparse", "");
        OpenOptions::new().write(true).open(sparse).unwrap().set_len(1 << 40).unwrap();
        let mut long = b"#!/".to_vec();
        long.resize(1 << 20, b'x');
        world.script(&world.alice, "long", long);
        for name in ["loop", "sparse", "long"] {
            let outcome = world.call(&world.alice, name).run();
            outcome.refused_somehow();
            outcome.at_once();
        }
    });
}

#[test]
fn pth_18_an_interpreter_is_roots_and_listed() {
    each_jail(|world| {
        let rules = |more: &str| format!("{more}profile = \"sh\"\n[jail]\nkind = \"host\"\n");
        put("/usr/bin/cellwall-test-sh", &fs::read("/bin/sh").unwrap(), 0, 0o777);
        put("/usr/bin/cellwall-test-bob", &fs::read("/bin/sh").unwrap(), world.bob.id, 0o755);
        world.site("alice", &rules(""));
        world.apply();
        world.script(&world.alice, "open.cgi", "#!/usr/bin/cellwall-test-sh\necho ran\n");
        world.script(&world.alice, "bob.cgi", "#!/usr/bin/cellwall-test-bob\necho ran\n");
        world.script(&world.alice, "good.cgi", "#!/bin/sh\necho ran\n");
        for name in ["open.cgi", "bob.cgi"] {
            let outcome = world.call(&world.alice, name).run();
            assert!(!outcome.out_text().contains("ran"), "{name}: {}", outcome.story());
            outcome.refused_somehow();
        }
        assert_eq!(world.call(&world.alice, "good.cgi").run().out_text(), "ran\n");
        world.site("alice", &rules("interpreters = [\"/usr/bin/perl\"]\n"));
        world.apply();
        let outcome = world.call(&world.alice, "good.cgi").run();
        let refused = outcome.refused_somehow();
        assert!(refused.line.contains("/bin/sh"), "{}", refused.line);
    });
}

#[test]
fn pth_18_a_handler_or_a_program_that_others_could_change_since_is_not_started() {
    world(Launcher::Cellwall, |world| {
        let (handler, program) = ("/usr/bin/cellwall-test-handler", "/usr/bin/cellwall-test-program");
        put(handler, &fs::read("/bin/sh").unwrap(), 0, 0o755);
        put(program, b"#!/bin/sh\necho ran\n", 0, 0o755);
        world.site(
            "alice",
            &format!(
                "programs = [\"{program}\"]\nprofile = \"sh\"\n[jail]\nkind = \"host\"\n[handlers]\n\
                 \".x\" = \"{handler}\"\n"
            ),
        );
        world.apply();
        put(world.alice.docroot().join("a.x"), b"echo ran\n", world.alice.id, 0o644);
        let handled = || world.call(&world.alice, "a.x").run();
        let named = || world.call(&world.alice, "cellwall-test-program").cwd("/usr/bin").run();
        for outcome in [handled(), named()] {
            assert_eq!(outcome.out_text(), "ran\n", "{}", outcome.story());
        }
        for path in [handler, program] {
            mode(path, 0o757);
        }
        handled().refused("V14", 86);
        named().refused("V14", 86);
        for path in [handler, program] {
            mode(path, 0o755);
            chown(path, Some(world.alice.id), None).unwrap();
        }
        handled().refused("V14", 86);
        named().refused("V14", 86);
    });
}

#[test]
fn pth_18_a_link_of_a_strangers_leads_to_no_interpreter() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[jail]\nkind = \"host\"\n");
        world.apply();
        let link = "/usr/bin/cellwall-test-link";
        symlink("/bin/sh", link).unwrap();
        world.script(&world.alice, "a.cgi", format!("#!{link}\necho ran\n"));
        assert_eq!(world.call(&world.alice, "a.cgi").run().out_text(), "ran\n");
        for stranger in [world.alice.id, world.bob.id] {
            std::os::unix::fs::lchown(link, Some(stranger), None).unwrap();
            world.call(&world.alice, "a.cgi").run().refused("V14", 86);
        }
    });
}

#[test]
fn pth_19_a_file_that_is_being_written_is_refused_after_a_moment() {
    each_jail(|world| {
        let path = world.probe(&world.alice, "a.cgi");
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.refused("X26", 255);
        outcome.at_once();
        writer.write_at(b"", 0).unwrap();
        drop(writer);
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn pth_20_a_mount_without_programs_is_named() {
    world(Launcher::Cellwall, |world| {
        let docroot = world.alice.docroot();
        mount(Some("tmpfs"), &docroot, Some("tmpfs"), MsFlags::MS_NOEXEC, Some("mode=755")).unwrap();
        chown(&docroot, Some(world.alice.id), Some(world.alice.id)).unwrap();
        world.apply();
        world.probe(&world.alice, "a.cgi");
        let refused = world.call(&world.alice, "a.cgi").run().refused_somehow();
        assert!(refused.line.contains("noexec"), "the cause is named: {}", refused.line);
    });
}

#[test]
fn pth_21_another_file_system_below_the_docroot_is_not_entered() {
    each_jail(|world| {
        let sub = world.alice.docroot().join("sub");
        make_directory(&sub, world.alice.id, 0o755);
        make_directory("/srv/elsewhere", world.alice.id, 0o755);
        world.probe_at(&world.alice, "/srv/elsewhere/a.cgi");
        mount(Some("/srv/elsewhere"), &sub, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let refused = world.call(&world.alice, "a.cgi").cwd(&sub).run().refused_somehow();
        assert!(refused.field("why").contains("htdocs/sub"), "{}", refused.line);
    });
}

#[test]
fn pth_21_a_file_of_another_place_that_is_mounted_over_a_program_is_not_the_program() {
    // A view that was made before does not have the mount at all.
    world(Launcher::Cellwall, |world| {
        world.sites(&small("host"));
        let program = world.probe(&world.alice, "a.cgi");
        world.probe_at(&world.alice, "/srv/b.cgi");
        mount(Some("/srv/b.cgi"), &program, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("V117", 117);
        umount2(&program, MntFlags::MNT_DETACH).unwrap();
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn pth_07_a_link_that_goes_up_or_leads_to_too_many_others_is_not_followed() {
    world(Launcher::Cellwall, |world| {
        let (base, id) = ("/var/www/alice", Some(world.alice.id));
        chown(base, id, id).unwrap();
        make_directory(format!("{base}/releases"), world.alice.id, 0o755);
        make_directory(format!("{base}/releases/1"), world.alice.id, 0o755);
        world.probe_at(&world.alice, format!("{base}/releases/1/a.cgi"));
        let leads = |name: &str, to: &str| {
            let link = format!("{base}/{name}");
            drop(fs::remove_file(&link));
            symlink(to, &link).unwrap();
            std::os::unix::fs::lchown(&link, id, id).unwrap();
        };
        leads("current", "releases/1");
        let text = small("host");
        let site =
            format!("user = \"alice\"\ndocroot = \"{base}/current\"\nsymlinks = \"owner-match\"\n{text}");
        fs::write("/etc/cellwall/sites.d/alice.toml", site).unwrap();
        world.apply();
        let call = || world.call(&world.alice, "a.cgi").cwd(format!("{base}/releases/1")).run();
        call().ran();
        leads("current", "releases/../releases/1");
        call().refused("V02", 86);
        for (name, to) in [("current", "l1"), ("l7", "releases/1")] {
            leads(name, to);
        }
        for number in 1..7 {
            leads(&format!("l{number}"), &format!("l{}", number + 1));
        }
        call().ran();
        leads("l7", "l8");
        leads("l8", "releases/1");
        call().refused("V02", 86);
        leads("l8", "current");
        call().refused("V02", 86);
    });
}

#[test]
fn pth_07_a_linked_directory_is_seen_as_what_it_is() {
    each_jail(|world| {
        let docroot = world.alice.docroot();
        make_directory(docroot.join("releases"), world.alice.id, 0o755);
        world.probe(&world.alice, "releases/a.cgi");
        symlink("releases", docroot.join("current")).unwrap();
        symlink(world.bob.docroot(), docroot.join("bob")).unwrap();
        world.probe(&world.bob, "a.cgi");
        // The server's own chdir follows the link; the launcher asks the kernel where it is.
        world.call(&world.alice, "a.cgi").cwd(docroot.join("current")).run().ran();
        world.call(&world.alice, "a.cgi").cwd(docroot.join("bob")).run().refused("P114", 114);
    });
}

#[test]
fn pth_08_a_docroot_that_root_linked_elsewhere_works() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/data", 0, 0o755);
        make_directory("/srv/data/alice", world.alice.id, 0o755);
        symlink("/srv/data/alice", "/var/www/alice/linked").unwrap();
        world.probe_at(&world.alice, "/srv/data/alice/a.cgi");
        let text = small("host");
        fs::write(
            "/etc/cellwall/sites.d/alice.toml",
            format!("user = \"alice\"\ndocroot = \"/var/www/alice/linked\"\n{text}"),
        )
        .unwrap();
        world.apply();
        world.call(&world.alice, "a.cgi").cwd("/var/www/alice/linked").run().ran();
    });
}

#[test]
fn pth_07_releases_behind_a_link_of_the_sites_run_where_the_site_may_link() {
    world(Launcher::Cellwall, |world| {
        let base = "/var/www/alice";
        let id = Some(world.alice.id);
        std::os::unix::fs::chown(base, id, id).unwrap();
        for directory in ["releases", "releases/1", "releases/1/cgi", "elsewhere"] {
            make_directory(format!("{base}/{directory}"), world.alice.id, 0o755);
        }
        std::os::unix::fs::symlink("releases/1", format!("{base}/current")).unwrap();
        std::os::unix::fs::lchown(format!("{base}/current"), id, id).unwrap();
        world.probe_at(&world.alice, format!("{base}/releases/1/cgi/a.cgi"));
        world.probe_at(&world.alice, format!("{base}/elsewhere/a.cgi"));
        let site = |links: &str, jail: &str| {
            let text = format!(
                "user = \"alice\"\ndocroot = \"{base}/current/cgi\"\nsymlinks = \"{links}\"\n{}",
                small(jail)
            );
            fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
            world.apply();
        };
        let call =
            |directory: &str| world.call(&world.alice, "a.cgi").cwd(format!("{base}/{directory}")).run();
        for jail in ["host", "view"] {
            site("owner-match", jail);
            call("releases/1/cgi").ran();
            call("elsewhere").refused("P114", 114);
            site("deny", jail);
            call("releases/1/cgi").refused("P114", 114);
        }
        // A link of a stranger's leads nowhere.
        site("owner-match", "host");
        std::os::unix::fs::lchown(format!("{base}/current"), Some(world.bob.id), None).unwrap();
        call("releases/1/cgi").refused("V02", 86);
        // Nor one of the site's own to what is root's, whosever the program there is.
        for directory in ["/var/www/roots", "/var/www/roots/cgi"] {
            make_directory(directory, 0, 0o755);
        }
        world.probe_at(&world.alice, "/var/www/roots/cgi/a.cgi");
        fs::remove_file(format!("{base}/current")).unwrap();
        std::os::unix::fs::symlink("/var/www/roots", format!("{base}/current")).unwrap();
        std::os::unix::fs::lchown(format!("{base}/current"), id, id).unwrap();
        world.call(&world.alice, "a.cgi").cwd("/var/www/roots/cgi").run().refused("V02", 86);
    });
}

#[test]
fn pth_10_11_an_access_list_that_lets_others_write_counts() {
    each_jail(|world| {
        let path = world.probe(&world.alice, "a.cgi");
        let list = |words: &[&str], path: &Path| {
            let said = run(Command::new("setfacl").args(words).arg(path));
            assert!(said.status.success(), "{said:?}");
        };
        for (place, code, status) in [(path.as_path(), "V118", 118), (&world.alice.docroot(), "V116", 116)] {
            list(&["-m", "u:bob:rwx"], place);
            world.call(&world.alice, "a.cgi").run().refused(code, status);
            // Reading is no writing.
            list(&["-m", "u:bob:r-x,m::r-x"], place);
            world.call(&world.alice, "a.cgi").run().ran();
            list(&["-b"], place);
        }
    });
}

/// The launcher is stopped behind each of its system calls in turn; the names change places while it stands.
#[test]
fn pth_03_a_swap_behind_any_system_call_runs_the_right_program_or_none() {
    // Which of the two stands there first, and whether the program or its directory is exchanged.
    for (foreign_first, directory) in [(false, false), (true, false), (false, true)] {
        world(Launcher::Cellwall, |world| {
            let docroot = world.alice.docroot();
            let bob = world.bob.docroot();
            world.other_probe(world.bob.id, &bob.join("a.cgi"));
            make_directory(docroot.join("sub"), world.alice.id, 0o755);
            world.probe(&world.alice, "sub/a.cgi");
            let (one, two) = if directory {
                symlink(&bob, docroot.join("other")).unwrap();
                (docroot.join("sub"), docroot.join("other"))
            } else {
                symlink(bob.join("a.cgi"), docroot.join("sub/other")).unwrap();
                (docroot.join("sub/a.cgi"), docroot.join("sub/other"))
            };
            let call = || world.call(&world.alice, "a.cgi").cwd(docroot.join("sub"));
            call().strace(&[]).run().ran();
            let (mut stopped, mut ran, mut refused) = (0, 0, 0);
            let steps = steps();
            if foreign_first {
                exchange(&one, &two);
            }
            for (name, occurrence) in steps {
                let stop = format!("inject={name}:signal=STOP:when={occurrence}");
                let done = AtomicBool::new(false);
                fs::remove_file(TRACE).unwrap();
                let (outcome, stood) = thread::scope(|scope| {
                    let swapper = scope.spawn(|| swap_when_stopped(&done, &one, &two));
                    let _stop = Stop(&done);
                    let outcome = call().strace(&["-e", &stop]).run();
                    done.store(true, Ordering::Relaxed);
                    (outcome, swapper.join().unwrap())
                });
                match judge(world, &outcome) {
                    Verdict::Right(_) => ran += 1,
                    Verdict::Refused => refused += 1,
                    Verdict::Other => {
                        panic!("behind {name} {occurrence}: a foreign file ran\n{}", outcome.story())
                    }
                    Verdict::NotCalled => panic!("{}", outcome.story()),
                }
                if stood {
                    stopped += 1;
                    exchange(&one, &two);
                }
            }
            println!("steps: {stopped} swaps by hand, {ran} right, {refused} refused, 0 wrong");
            // A link that comes after the check is refused by the start itself.
            let runs = foreign_first || directory;
            assert!(
                stopped > 20 && refused > 0 && (ran > 0) == runs,
                "{foreign_first} {directory}: {stopped} stops, {ran} ran, {refused} refused"
            );
        });
    }
}

/// The launcher's system calls of the last trace that look at something or change who looks, each with its number among
/// those of its name; what the rules name of the host's is not alice's to swap.
fn steps() -> Vec<(String, usize)> {
    const LOOKS: [&str; 11] = [
        "openat2",
        "openat",
        "open",
        "fstat",
        "fchdir",
        "getcwd",
        "read",
        "write",
        "setresuid",
        "seccomp",
        "umask",
    ];
    let trace = fs::read_to_string(TRACE).unwrap();
    let name =
        |line: &str| line.split_once('(').map(|(front, _)| front.split(' ').next_back().unwrap().to_owned());
    let all: Vec<(String, &str)> = trace.lines().filter_map(|line| Some((name(line)?, line))).collect();
    let launcher = traced().iter().filter_map(|line| name(line)).count();
    let program = all.iter().rposition(|(name, _)| name == "execveat").unwrap();
    let matters = |(name, line): &(String, &str)| {
        LOOKS.contains(&name.as_str())
            && !["\"/etc", "\"/usr", "\"/proc"].iter().any(|path| line.contains(path))
    };
    (program + 1 - launcher..program)
        .filter(|at| matters(&all[*at]))
        .map(|at| (all[at].0.clone(), all[..=at].iter().filter(|(name, _)| *name == all[at].0).count()))
        .collect()
}

/// Waits for the stop that strace reports, swaps, and lets the launcher go on.
fn swap_when_stopped(done: &AtomicBool, one: &Path, two: &Path) -> bool {
    while !done.load(Ordering::Relaxed) {
        let trace = fs::read(TRACE).unwrap_or_default();
        let trace = String::from_utf8_lossy(&trace);
        if let Some(line) = trace.lines().find(|line| line.contains("--- stopped by SIGSTOP ---")) {
            exchange(one, two);
            let pid = line.split(' ').next().unwrap().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGCONT)
                .unwrap();
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Mounts a FUSE file system on alice's directory, as its owner may have it done for her, for everybody to enter.
fn mount_fuse(world: &World, place: &Path) -> fs::File {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let id = world.alice.id;
    let options = format!(
        "fd={},rootmode=40755,user_id={id},group_id={id},allow_other,default_permissions",
        device.as_raw_fd()
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("slow"), place, Some("fuse"), flags, Some(options.as_str())).unwrap();
    device
}

/// Answers what a directory of alice's must answer, until it is told to stop.
fn answer(mut device: &fs::File, owner: u32, stop: &AtomicBool) {
    use std::io::{Read, Write};
    const GETATTR: u32 = 3;
    const INIT: u32 = 26;
    let mut request = vec![0; 1 << 20];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(10_u8)).unwrap() == 0 {
            continue;
        }
        let length = device.read(&mut request).unwrap();
        assert!(length >= 40);
        let operation = u32::from_le_bytes(request[4..8].try_into().unwrap());
        // linux/fuse.h: fuse_init_out; fuse_attr_out, which is good for an hour.
        let (error, body): (i32, Vec<u32>) = match operation {
            INIT => (0, vec![7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            GETATTR => {
                let facts = [0o040_755, 2, owner, owner, 0, 4096, 0];
                (0, [&[3600, 0, 0, 0, 1, 0, 0, 0, 0, 0][..], &[0; 9], &facts].concat())
            }
            _ => (-38, Vec::new()),
        };
        let mut answer = Vec::new();
        answer.extend(u32::try_from(16 + 4 * body.len()).unwrap().to_le_bytes());
        answer.extend(error.to_le_bytes());
        answer.extend(&request[8..16]);
        answer.extend(body.iter().flat_map(|word| word.to_le_bytes()));
        device.write_all(&answer).unwrap();
    }
}

#[test]
fn pth_24_a_file_system_that_hears_nobody_holds_one_launch_for_five_seconds_and_no_other() {
    world(Launcher::Cellwall, |world| {
        let docroot = world.alice.docroot();
        let device = mount_fuse(world, &docroot);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| answer(&device, world.alice.id, &stop));
            let _stop = Stop(&stop);
            world.apply();
            fs::metadata(&docroot).unwrap();
        });
        world.probe(&world.bob, "b.cgi");
        thread::scope(|scope| {
            let held = scope.spawn(|| world.call(&world.alice, "a.cgi").unrecorded());
            for _ in 0..20 {
                world.call(&world.bob, "b.cgi").unrecorded().out_text().find("\nprobe\n").unwrap();
            }
            let held = held.join().unwrap();
            let own = format!("{}-", world.alice.id);
            // Its own alarm ends it. Nothing but the end of the process gets it out of there: so there is no page.
            assert_eq!(held.status.signal(), Some(14), "{}", held.story());
            assert!(
                held.out.is_empty() && !held.marks.iter().any(|mark| mark.starts_with(&own)),
                "{}",
                held.story()
            );
        });
        umount2(&docroot, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn pth_24_a_file_system_that_the_owner_mounted_below_her_docroot_is_refused_unseen() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let place = world.alice.docroot().join("slow");
        make_directory(&place, world.alice.id, 0o755);
        // Nobody ever serves it.
        let _device = mount_fuse(world, &place);
        let refused = world.call(&world.alice, "slow").run().refused("V117", 117);
        assert!(refused.field("why").contains("mounted here from elsewhere"), "{}", refused.line);
        world.call(&world.alice, "a.cgi").run().ran();
        umount2(&place, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
    });
}
