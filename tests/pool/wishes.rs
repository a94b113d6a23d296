//! What administrators and site owners ask the daemon for: often, in vain, or by a signal.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cellwall::pool::control::{SOCKET, Wish};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};
use nix::unistd::Pid;

use crate::harness::{Launcher, World, world};

use super::host::{Daemon, Nginx, logged, processes, until};
use super::stage::{Client, request_in};

/// Answers with its pid.
const GOOD: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                    print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; }\n";

fn site(world: &World, program: &str, more: &str) {
    let path = world.script(&world.alice, "app.fcgi", program);
    let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n{more}\n", path.display());
    world.site("alice", &rules);
    world.apply();
}

/// Says it and does not wait for the answer.
fn say(wish: Wish, site: &str) {
    let frame = wish.encode(site.as_bytes()).unwrap();
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).unwrap();
    connect(socket.as_raw_fd(), &UnixAddr::new(SOCKET).unwrap()).unwrap();
    send(socket.as_raw_fd(), &frame, MsgFlags::MSG_NOSIGNAL).unwrap();
}

#[test]
fn a_site_that_is_deployed_without_end_is_renewed_once_a_second() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 2, min = 1 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let before = nginx.get("alice", "/app.fcgi").text();
        let started = Instant::now();
        for _ in 0..400 {
            say(Wish::Deployed, "alice");
        }
        // The last of them counts as the first does.
        say(Wish::Deployed, "alice");
        until("the second renewal", || logged(&["pool start ", "site=alice"]).len() >= 3);
        let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
        let starts = logged(&["pool start ", "site=alice"]).len();
        assert!(starts <= 2 * (seconds + 2), "{starts} starts in {seconds} s");
        let asked = logged(&["pool asked ", "site=alice"]).len();
        assert!((1..=seconds + 2).contains(&asked), "{asked} lines in {seconds} s");
        until("one worker", || processes(world.alice.id).len() == 1);
        let answer = nginx.get("alice", "/app.fcgi");
        assert_eq!(answer.status, 200);
        assert_ne!(answer.text(), before);
        // Where nothing runs there is nothing to renew, and as little to write.
        site(world, GOOD, "workers = { max = 2, idle = \"0\" }");
        until("no worker", || processes(world.alice.id).is_empty());
        let asked = logged(&["pool asked ", "site=alice"]).len();
        (0..200).for_each(|_| say(Wish::Deployed, "alice"));
        assert!(world.cellwall(&["deployed", "alice"]).status.success());
        let more = logged(&["pool asked ", "site=alice"]).len() - asked;
        assert!((1..5).contains(&more), "{more}");
    });
}

#[test]
fn who_deploys_a_program_that_does_not_start_is_told() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 2, min = 1 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let before = nginx.get("alice", "/app.fcgi").text();
        world.script(&world.alice, "app.fcgi", "#!/usr/bin/perl\ndie 'a mistake';\n");
        let started = Instant::now();
        let said = world.cellwall(&["deployed", "alice"]);
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{words}");
        assert!(words.contains("error: the new workers of `alice` do not start"), "{words}");
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        assert_eq!(nginx.get("alice", "/app.fcgi").text(), before, "the old one goes on");
        // Mended and deployed: at once, and not after the pause of the starts that failed.
        world.script(&world.alice, "app.fcgi", GOOD);
        let said = world.cellwall(&["deployed", "alice"]);
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
        assert_ne!(nginx.get("alice", "/app.fcgi").text(), before);
    });
}

#[test]
fn who_starts_a_site_whose_program_does_not_start_is_told() {
    world(Launcher::Cellwall, |world| {
        for keys in ["workers = { max = 1, min = 1 }", "accept = \"direct\"\nworkers = { max = 1 }"] {
            site(world, GOOD, keys);
            let _daemon = Daemon::start(world);
            let nginx = Nginx::start(&["alice"], "");
            until("its worker", || nginx.get("alice", "/app.fcgi").status == 200);
            assert!(world.cellwall(&["pool", "stop", "alice"]).status.success());
            world.script(&world.alice, "app.fcgi", "#!/usr/bin/perl\ndie 'a mistake';\n");
            let said = world.cellwall(&["pool", "start", "alice"]);
            let words = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(said.status.code(), Some(1), "{words}");
            assert!(words.contains("error: `alice` is started, and its workers do not start"), "{words}");
        }
    });
}

/// Without `min` nobody starts a second one in vain, and who deploys is not left waiting for it.
#[test]
fn who_deploys_what_does_not_start_is_told_though_none_has_to_run() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 2 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let before = nginx.get("alice", "/app.fcgi").text();
        world.script(&world.alice, "app.fcgi", "#!/usr/bin/perll\n");
        let started = Instant::now();
        let said = world.cellwall(&["pool", "restart", "alice"]);
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(started.elapsed() < Duration::from_secs(30), "{:?} {words}", started.elapsed());
        assert_eq!(said.status.code(), Some(1), "{words}");
        assert!(words.contains("error: the new workers of `alice` do not start"), "{words}");
        assert_eq!(nginx.get("alice", "/app.fcgi").text(), before, "the old one goes on");
    });
}

/// Nothing proves that the new workers of a site that is stopped can be started, and nobody waits for it.
#[test]
fn who_waits_for_new_workers_is_answered_when_somebody_stops_the_site() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 1, min = 1 }");
        let _daemon = Daemon::start(world);
        until("its worker", || processes(world.alice.id).len() == 1);
        world.script(&world.alice, "app.fcgi", "#!/usr/bin/perl\ndie 'a mistake';\n");
        let started = Instant::now();
        let mut restart = Command::new("cellwall").args(["pool", "restart", "alice"]).spawn().unwrap();
        until("a failed start", || !logged(&["pool fail ", "site=alice"]).is_empty());
        assert!(world.cellwall(&["pool", "stop", "alice"]).status.success());
        let ended = restart.wait().unwrap();
        assert!(started.elapsed() < Duration::from_secs(45), "{:?} {ended}", started.elapsed());
        assert!(processes(world.alice.id).is_empty());
    });
}

#[test]
fn signals_of_other_daemons_of_the_kind_do_what_they_do_there() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 1 }\naccess_log = \"/var/log/cellwall/access.log\"");
        let mut daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        for (round, signal) in [Signal::SIGUSR1, Signal::SIGUSR2].into_iter().enumerate() {
            fs::rename("/var/log/cellwall/access.log", format!("/var/log/cellwall/access.{round}")).ok();
            kill(daemon.pid(), signal).unwrap();
            until("another file", || {
                assert!(daemon.has_ended().is_none(), "{signal} ended it");
                fs::exists("/var/log/cellwall/access.log").unwrap()
            });
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
        }
        kill(daemon.pid(), Signal::SIGQUIT).unwrap();
        until("its end", || daemon.has_ended().is_some());
        assert_eq!(daemon.has_ended().unwrap().code(), Some(0));
        assert!(processes(world.alice.id).is_empty());
    });
}

#[test]
fn fewer_workers_that_accept_for_themselves_are_fewer() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "accept = \"direct\"\nworkers = { max = 4 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        until("four", || processes(world.alice.id).len() == 4);
        let counted = |count: u32| {
            let json = world.cellwall(&["status", "--json", "alice"]).stdout;
            String::from_utf8(json).unwrap().contains(&format!("\"workers\":{count},"))
        };
        until("four to be told of", || counted(4));
        // They are up, and are not old.
        thread::sleep(Duration::from_millis(1500));
        site(world, GOOD, "accept = \"direct\"\nworkers = { max = 1 }");
        until("one", || processes(world.alice.id).len() == 1);
        until("one to be told of", || counted(1));
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
        assert_eq!(logged(&["pool end ", "site=alice", "how=stopped"]).len(), 3);
        assert_eq!(logged(&["pool start ", "site=alice"]).len(), 4);
    });
}

#[test]
fn the_control_socket_costs_nothing_where_nobody_can_be_accepted() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 1 }");
        let daemon = Daemon::start(world);
        let pid = daemon.pid().to_string();
        // The soft limit alone: the other one cannot be raised again everywhere.
        let limit = |most: u64| {
            let words = ["--pid", &pid, &format!("--nofile={most}:")].map(str::to_owned);
            assert!(crate::harness::run(Command::new("/usr/bin/prlimit").args(words)).status.success());
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        limit(open.try_into().unwrap());
        let spent = || {
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let words: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
            words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
        };
        let before = spent();
        say(Wish::Reload, "");
        thread::sleep(Duration::from_secs(3));
        assert!(spent() - before < 30, "{} hundredths of a second in three", spent() - before);
        limit(1000);
        assert!(world.cellwall(&["pool", "restart", "alice"]).status.success());
    });
}

#[test]
fn a_stopped_site_whose_workers_accept_for_themselves_is_answered_for() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "accept = \"direct\"\nworkers = { max = 1 }");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "fastcgi_read_timeout 5s;");
        for _ in 0..2 {
            until("its worker", || nginx.get("alice", "/app.fcgi").status == 200);
            assert!(world.cellwall(&["pool", "stop", "alice"]).status.success());
            until("no worker", || processes(world.alice.id).is_empty());
            let before = logged(&["refuse ", "code=B04", "site=alice"]).len();
            let mut kept = Client::new("/run/cellwall/pool/alice.sock".as_ref());
            kept.ask(&request_in("/var/www/alice/htdocs", "/app.fcgi", &[], b"", true));
            assert!(kept.answer().out.starts_with(b"Status: 503 "));
            assert_eq!(
                kept.stream.read(&mut [0; 1]).unwrap(),
                0,
                "nothing more comes to the broker by this one"
            );
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 503);
            assert_eq!(logged(&["refuse ", "code=B04", "site=alice"]).len(), before + 2);
            // It is not stopped for good.
            let early = UnixStream::connect("/run/cellwall/pool/alice.sock").unwrap();
            assert!(world.cellwall(&["pool", "start", "alice"]).status.success());
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
            drop(early);
        }
        assert!(daemon.child("broker").is_some());
        assert_eq!(logged(&["pool broker state=started"]).len(), 1, "it never waited at that socket");
    });
}

#[test]
fn a_kept_connection_is_given_up_when_workers_accept_for_themselves() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 1 }");
        let _daemon = Daemon::start(world);
        until("its socket", || fs::exists("/run/cellwall/pool/alice.sock").unwrap());
        let mut kept = Client::new("/run/cellwall/pool/alice.sock".as_ref());
        kept.ask(&request_in("/var/www/alice/htdocs", "/app.fcgi", &[], b"", true));
        assert!(kept.answer().out.starts_with(b"Content-Type"));
        site(world, GOOD, "accept = \"direct\"\nworkers = { max = 1 }");
        assert_eq!(kept.stream.read(&mut [0; 1]).unwrap(), 0, "its web server makes a new one");
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
    });
}

#[test]
fn visitors_of_workers_that_accept_for_themselves_and_do_not_start_are_told() {
    world(Launcher::Cellwall, |world| {
        site(world, "#!/bin/false\n", "accept = \"direct\"\nworkers = { max = 2 }");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "fastcgi_read_timeout 5s;");
        until("a crash loop", || !logged(&["pool fail ", "state=crash-loop"]).is_empty());
        let asked = Instant::now();
        let answer = nginx.get("alice", "/app.fcgi");
        assert_eq!((answer.status, asked.elapsed().as_secs()), (503, 0), "{}", answer.text());
        assert!(answer.header("Retry-After").is_some(), "{}", answer.head);
        assert_eq!(logged(&["refuse ", "code=B05", "site=alice"]).len(), 1);
        let said = world.cellwall(&["status", "alice"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("failing"), "{said}");
        // A broker that comes meanwhile hears of it.
        kill(Pid::from_raw(daemon.child("broker").unwrap()), Signal::SIGKILL).unwrap();
        until("the next broker", || logged(&["pool broker state=started"]).len() == 2);
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 503);
        world.script(&world.alice, "app.fcgi", GOOD);
        assert!(world.cellwall(&["pool", "restart", "alice"]).status.success());
        until("workers", || nginx.get("alice", "/app.fcgi").status == 200);
        let refused = logged(&["refuse ", "site=alice"]).len();
        for _ in 0..20 {
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
        }
        assert_eq!(logged(&["refuse ", "site=alice"]).len(), refused, "the broker accepts here no more");
    });
}
