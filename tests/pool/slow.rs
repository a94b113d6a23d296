//! The slow log: which request takes long, and where its worker is at that moment.

use std::fs;

use crate::harness::{Launcher, not_shown, put, world};

use super::host::{Daemon, Nginx, logged, until};

const FILE: &str = "/var/log/cellwall/slow.log";

/// Lines of the slow log that have all these words.
fn told(words: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    text.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
}

#[test]
fn a_slow_request_is_told_with_the_call_that_its_worker_waits_in() {
    world(Launcher::Cellwall, |world| {
        fs::create_dir_all("/var/log/cellwall").unwrap();
        let sleeps = b"<?php sleep(4); echo 'slept';";
        let waits = b"<?php $file = fopen('/tmp/lock', 'c'); flock($file, LOCK_EX); \
                      if ($_SERVER['QUERY_STRING'] === 'keep') sleep(6); echo 'had it';";
        put(world.alice.docroot().join("sleeps.php"), sleeps, world.alice.id, 0o644);
        put(world.alice.docroot().join("waits.php"), waits, world.alice.id, 0o644);
        world.site(
            "alice",
            &format!(
                "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\nslow = \"1s\"\nslow_log = \"{FILE}\"\n"
            ),
        );
        let socket = "#!/usr/bin/perl\nuse Socket; socketpair(my $one, my $other, AF_UNIX, SOCK_STREAM, PF_UNSPEC);\n\
                      if (!fork) { sleep 4; syswrite $other, 'x'; exit } close $other; sysread $one, my $text, 1;\n\
                      print \"Content-Type: text/plain\\r\\n\\r\\n$text\";\n";
        world.script(&world.bob, "socket.cgi", socket);
        world.site("bob", "profile = \"perl\"\n[pool]\nkind = \"cgi\"\nslow = \"1s\"\n");
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        assert_eq!(nginx.get("alice", "/sleeps.php").text(), "slept");
        let slow = told(&["slow site=alice ", "script=\"/var/www/alice/htdocs/sleeps.php\""]);
        assert_eq!(slow.len(), 1, "once for each request: {slow:?}");
        let place = told(&["pool where site=alice worker=", " age=", "(clock_nanosleep)"]);
        assert_eq!(place.len(), 1, "{:?}", told(&[]));
        // What this kernel tells of a stack and of what is waited for it tells of anybody's.
        if fs::read_to_string("/proc/self/stack").is_ok_and(|stack| !stack.is_empty()) {
            assert!(place[0].contains("nanosleep") && place[0].contains(" < "), "{place:?}");
        } else {
            not_shown("a kernel that tells no stacks, so none is in the slow log");
        }
        std::thread::scope(|scope| {
            let keeps = scope.spawn(|| nginx.get("alice", "/waits.php?keep").text());
            until("one that has the lock", || told(&["script=", "waits.php"]).len() == 1);
            assert_eq!(nginx.get("alice", "/waits.php").text(), "had it");
            assert_eq!(keeps.join().unwrap(), "had it");
        });
        assert_eq!(told(&["pool where site=alice", "(flock)"]).len(), 1, "{:?}", told(&[]));
        // A run, in the host's log: its process and the one that it started.
        assert_eq!(nginx.get("bob", "/socket.cgi").text(), "x");
        let all = logged(&["pool where site=bob "]);
        assert!(all.iter().any(|line| line.contains("(read)")), "{all:?}");
        assert!(all.iter().any(|line| line.contains("nanosleep)")), "{all:?}");
    });
}
