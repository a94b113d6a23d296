//! Attacks on the supervisor and accidents of its children; a test's name begins with its rows of the catalogue.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Ask, Launcher, World, put, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged, processes, until};
use super::rows::broker;

/// A worker that never speaks: it starts what shall outlive it, and waits.
const FORKS: &str = "#!/usr/bin/perl\nuse POSIX;\nfor (1..3) { if (!fork) { setsid; if (!fork) { setsid; \
                     $SIG{TERM} = 'IGNORE'; sleep 600; } exit 0 } }\n$SIG{TERM} = 'IGNORE'; sleep 600;\n";

fn worker(world: &World, program: &str, more: &str) {
    let path = world.script(&world.alice, "worker.fcgi", program);
    world.site(
        "alice",
        &format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\nstop_timeout = 1\n{more}", path.display()),
    );
    world.apply();
}

#[test]
fn pool_02_23_a_worker_has_its_three_descriptors_and_the_policys_environment() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 1 }");
        let _daemon = Daemon::start(world);
        // It has its child when it has read its libraries.
        until("a worker that is ready", || processes(world.alice.id).len() == 2);
        for (pid, _) in processes(world.alice.id) {
            let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
            assert!(!environment.contains("HOSTILE"), "{environment}");
            assert!(environment.contains("PHP_FCGI_CHILDREN=1"), "{environment}");
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            for descriptor in descriptors {
                // It may be closed by now.
                let Ok(target) = fs::read_link(descriptor.path()) else { continue };
                let target = target.to_string_lossy().into_owned();
                let own = ["socket:", "/dev/null", "pipe:", "/tmp/.Zend", "/dev/zero", "/dev/urandom"];
                assert!(own.iter().any(|one| target.starts_with(one)), "{pid} has {target}");
            }
        }
    });
}

/// Says on the broker's own channel, for two seconds and as often as it can, that a program is slow.
const ASKS: &str = "
import ctypes, os, socket, struct, sys, time
pid, call = int(sys.argv[1]), ctypes.CDLL(None).syscall
process = call(434, pid, 0)
links = ((int(name), os.readlink(f'/proc/{pid}/fd/{name}')) for name in os.listdir(f'/proc/{pid}/fd'))
all = [socket.socket(fileno=call(438, process, fd, 0)) for fd, link in links if link.startswith('socket:')]
channel = [one for one in all if one.type & 15 == socket.SOCK_SEQPACKET][0]
end = time.time() + 2
while time.time() < end:
    for token in range(8):
        try: channel.send(struct.pack('<BBHIIIQQ', 139, 0, 0, 1, 0, 0, token, 0), socket.MSG_DONTWAIT)
        except BlockingIOError: time.sleep(0.001)
";

#[test]
fn a_broker_that_was_taken_over_does_not_have_root_fill_the_disk() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        world.script(&world.alice, "slow.cgi", "#!/bin/sh\nsleep 30\n");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let _asked = nginx.begun("alice", "/slow.cgi");
        let sleeps = |all: Vec<(i32, String)>| all.iter().any(|(_, command)| command.starts_with("sleep"));
        until("a slow program", || sleeps(processes(world.alice.id)));
        let said = Command::new("python3").args(["-c", ASKS, &broker(&daemon).to_string()]).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        let told = logged(&["pool where site=alice "]).len();
        assert!((1..2000).contains(&told), "{told} lines");
    });
}

/// Stops the broker, takes its channel to the supervisor, and has it for two seconds.
const CHANNEL: &str = "
import ctypes, os, signal, socket, struct, sys, time
pid, call = int(sys.argv[1]), ctypes.CDLL(None).syscall
process = call(434, pid, 0)
os.kill(pid, signal.SIGSTOP)
links = ((int(name), os.readlink(f'/proc/{pid}/fd/{name}')) for name in os.listdir(f'/proc/{pid}/fd'))
all = [socket.socket(fileno=call(438, process, fd, 0)) for fd, link in links if link.startswith('socket:')]
channel = [one for one in all if one.type & 15 == socket.SOCK_SEQPACKET][0]
end = time.time() + 2
";

/// Does in the broker's stead what these lines of Python say, which follow [`CHANNEL`].
pub(super) fn in_the_brokers_stead(broker: i32, lines: &str) -> Output {
    start_in_the_brokers_stead(broker, lines).wait_with_output().unwrap()
}

/// The same, and does not wait for its end.
pub(super) fn start_in_the_brokers_stead(broker: i32, lines: &str) -> Child {
    let program = [CHANNEL, lines].concat();
    let mut command = Command::new("python3");
    command.args(["-c", &program, &broker.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Says that a child of each worker has had its requests; it is none of theirs.
const RENEWS: &str = "
while time.time() < end:
    for worker in range(1, 200):
        try: channel.send(struct.pack('<BBHIIIQQ', 141, 0, 0, 1, worker, 0, 1, 0), socket.MSG_DONTWAIT)
        except BlockingIOError: time.sleep(0.001)
";

#[test]
fn a_broker_that_was_taken_over_gets_no_crowd_of_workers() {
    world(Launcher::Cellwall, |world| {
        worker(world, "#!/usr/bin/perl\nsleep 600;\n", "workers = { min = 1, max = 1 }\n");
        let daemon = Daemon::start(world);
        until("a worker", || processes(world.alice.id).len() == 1);
        let said = in_the_brokers_stead(broker(&daemon), RENEWS);
        assert!(said.status.success(), "{said:?}");
        thread::sleep(Duration::from_secs(2));
        let all = processes(world.alice.id).len();
        assert!((1..10).contains(&all), "{all} workers of a site that may have one: {:?}", logged(&[""]));
    });
}

/// Says of each worker that it has had its requests, as soon as there is one.
const RETIRES: &str = "
while time.time() < end:
    for worker in range(1, 3000):
        try: channel.send(struct.pack('<BBHIIIQQ', 133, 1, 0, 1, worker, 0, 0, 0), socket.MSG_DONTWAIT)
        except BlockingIOError: time.sleep(0.001)
";

/// A program need not hear SIGTERM, and has its time to end.
#[test]
fn a_broker_that_was_taken_over_gets_no_crowd_of_workers_that_are_to_end() {
    world(Launcher::Cellwall, |world| {
        let program = "#!/usr/bin/perl\n$SIG{TERM} = 'IGNORE';\nsleep 600;\n";
        let path = world.script(&world.alice, "worker.fcgi", program);
        let rules = "profile = \"perl\"\nlimits.processes = 4000\n[pool]\nworkers = { min = 1, max = 1 }\n";
        world.site("alice", &format!("{rules}command = \"{}\"\nstop_timeout = 60\n", path.display()));
        world.apply();
        let daemon = Daemon::start(world);
        until("a worker", || processes(world.alice.id).len() == 1);
        let said = in_the_brokers_stead(broker(&daemon), RETIRES);
        assert!(said.status.success(), "{said:?}");
        let all = processes(world.alice.id).len();
        assert!(all < 10, "{all} workers of a site that may have one");
        // The last one may have been killed in this very moment.
        until("a worker after all of it", || !processes(world.alice.id).is_empty());
    });
}

/// Zygotes write their records as the site, into a log that was opened before: the room is taken by root.
#[test]
fn the_log_has_room_for_those_who_opened_it_long_ago() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let _daemon = Daemon::start(world);
        let log = fs::OpenOptions::new().write(true).open(crate::harness::LOG).unwrap();
        // As a rotation does that copies and truncates.
        log.set_len(0).unwrap();
        until("room behind the end of the log", || {
            let facts = log.metadata().unwrap();
            std::os::unix::fs::MetadataExt::blocks(&facts) * 512 >= facts.len() + (2 << 20)
        });
    });
}

#[test]
fn the_supervisor_has_given_up_what_nobody_needs() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let filters = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let of = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
            };
            (of("Seccomp:"), of("Seccomp_filters:").parse::<u32>().unwrap(), of("NoNewPrivs:"))
        };
        let own = filters(std::process::id().try_into().unwrap()).1;
        assert_eq!(filters(daemon.pid().as_raw()), ("2".to_owned(), own + 1, "0".to_owned()));
        let (worker, _) = processes(world.alice.id)[0].clone();
        assert_eq!(filters(worker), ("2".to_owned(), own + 2, "1".to_owned()), "the site's own comes on top");
        assert_eq!(
            filters(broker(&daemon)),
            ("2".to_owned(), own + 2, "1".to_owned()),
            "so does the broker's"
        );
    });
}

#[test]
fn rules_that_are_tightened_hold_for_workers_that_run() {
    world(Launcher::Cellwall, |world| {
        fs::create_dir_all("/srv/data").unwrap();
        put("/srv/data/note", b"the note", world.alice.id, 0o644);
        world.script(&world.alice, "a.php", "<?php echo @file_get_contents('/srv/data/note') ?: 'nothing';");
        let pool = "[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 1\nworkers = { min = 1 }\n";
        let rules = |files: &str| {
            world.site("alice", &format!("profile = \"php\"\n{files}{pool}"));
            world.apply();
        };
        rules("[files]\nread = [\"/srv/data\"]\n");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").body, b"the note");
        rules("");
        let mut answer = nginx.get("alice", "/a.php");
        until("a worker in the new cell", || {
            answer = nginx.get("alice", "/a.php");
            answer.body == b"nothing"
        });
        assert_eq!(answer.status, 200);
        rules("[files]\nread = [\"/srv/data\"]\n");
        until("a worker that may again", || nginx.get("alice", "/a.php").body == b"the note");
    });
}

#[test]
fn pool_04_what_stands_in_the_sockets_place_is_left_as_it_is() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        fs::create_dir_all("/run/cellwall/pool").unwrap();
        let place = "/run/cellwall/pool/alice.sock";
        let passwd = fs::read("/etc/passwd").unwrap();
        for stands in ["file", "link", "directory", "socket"] {
            let mut listener = None;
            match stands {
                "file" => fs::write(place, "mine").unwrap(),
                "link" => symlink("/etc/passwd", place).unwrap(),
                "directory" => fs::create_dir(place).unwrap(),
                _ => listener = Some(UnixListener::bind(place).unwrap()),
            }
            let before = logged(&["refuse ", "site=alice"]).len();
            let daemon = Daemon::start(world);
            until("the refusal", || logged(&["refuse ", "site=alice"]).len() > before);
            let code = if stands == "socket" { "code=S06" } else { "code=S07" };
            assert!(logged(&["refuse ", "site=alice"])[before].contains(code), "{stands}");
            let nginx = Nginx::start(&["bob"], "");
            assert_eq!(nginx.get("bob", "/a.php").status, 200, "the neighbour is served: {stands}");
            drop((nginx, daemon));
            assert!(fs::symlink_metadata(place).is_ok(), "{stands} is still there");
            drop(listener);
            fs::remove_file(place).or_else(|_| fs::remove_dir(place)).unwrap();
        }
        assert!(
            fs::read("/etc/passwd").unwrap().starts_with(&passwd),
            "/etc/passwd is what it was, and the broker's account"
        );
    });
}

#[test]
fn pool_12_13_a_stopped_site_leaves_no_grandchild_behind() {
    world(Launcher::Cellwall, |world| {
        worker(world, FORKS, "workers = { min = 1, max = 1 }\n");
        let _daemon = Daemon::start(world);
        until("three grandchildren", || processes(world.alice.id).len() >= 4);
        let said = world.cellwall(&["pool", "stop", "alice"]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        until("the end of all of them", || processes(world.alice.id).is_empty());
        assert_eq!(logged(&["pool end", "site=alice", "how=stopped"]).len(), 1);
        let said = world.cellwall(&["pool", "start", "alice"]);
        assert!(said.status.success());
        until("new ones", || processes(world.alice.id).len() >= 4);
    });
}

/// Without control groups, and with all of the kernel's calls: root of a user namespace of its own, it leaves the namespace that
/// marks it as its worker's.
const SHEDS: &str = "#!/bin/sh\n(setsid unshare -U -u sh -c 'trap \"\" TERM; (setsid sleep 600 &); sleep 600' &)\nsleep 600\n";

#[test]
fn pool_12_13_what_sheds_its_mark_ends_with_its_worker() {
    world(Launcher::Cellwall, |world| {
        super::host::without_groups();
        let path = world.script(&world.alice, "worker.fcgi", SHEDS);
        world.site(
            "alice",
            &format!(
                "profile = \"sh\"\n[files]\nexecute = [\"/usr/bin/setsid\", \"/usr/bin/unshare\"]\n\
                 [jail]\nseccomp = \"off\"\n[pool]\ncommand = \"{}\"\nstop_timeout = 1\nworkers = {{ min = 1, max = 1 }}\n",
                path.display()
            ),
        );
        world.apply();
        let _daemon = Daemon::start(world);
        let mark = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/uts")).ok();
        until("a worker, and one without its mark", || {
            let marks: Vec<_> = processes(world.alice.id).iter().map(|(pid, _)| mark(*pid)).collect();
            marks.len() == 5 && marks.iter().any(|other| *other != marks[0])
        });
        let said = world.cellwall(&["pool", "stop", "alice"]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        until("the end of all of them", || processes(world.alice.id).is_empty());
    });
}

#[test]
fn a_worker_that_has_had_its_requests_is_replaced_before_it_ends() {
    world(Launcher::Cellwall, |world| {
        put(world.alice.docroot().join("pid.php"), b"<?php echo getmypid();", world.alice.id, 0o644);
        world.site(
            "alice",
            "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\nrequests = 32\nworkers = { max = 1, min = 1 }\n",
        );
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let ask = |count: usize| -> Vec<String> {
            (0..count).map(|_| nginx.get("alice", "/pid.php").text()).collect()
        };
        let first = ask(30);
        assert!(first.iter().all(|pid| *pid == first[0]), "{first:?}");
        until("its heir", || processes(world.alice.id).len() == 2);
        // It gets a visitor as soon as it has said that it is up, and the first one may go then.
        until("its answer", || ask(1) != first[..1]);
        until("the end of the first", || processes(world.alice.id).len() == 1);
        let heir = processes(world.alice.id)[0].0.to_string();
        assert_eq!(ask(3), [heir.clone(), heir.clone(), heir]);
        drop((daemon, nginx));
    });
}

#[test]
fn children_end_after_their_requests_and_their_parent_stays() {
    world(Launcher::Cellwall, |world| {
        put(world.alice.docroot().join("pid.php"), b"<?php echo getmypid();", world.alice.id, 0o644);
        // A visitor who goes away: what the child has had is not forgotten.
        put(
            world.alice.docroot().join("slow.php"),
            b"<?php usleep(300000); echo getmypid();",
            world.alice.id,
            0o644,
        );
        let text = "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 2\nrequests = 20\n";
        world.site("alice", text);
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let mut had: BTreeMap<String, u32> = BTreeMap::new();
        for round in 0..60 {
            if round == 25 {
                drop(nginx.begun("alice", "/slow.php"));
            }
            let answer = nginx.get("alice", "/pid.php");
            assert_eq!(answer.status, 200, "{}", logged(&[""]).join("\n"));
            *had.entry(answer.text()).or_default() += 1;
        }
        assert!(had.len() >= 6 && had.values().all(|count| *count <= 10), "{had:?}");
        let parent = processes(world.alice.id)[0].0;
        let count = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..60 {
                        let answer = nginx.get("alice", "/pid.php");
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 360);
        assert_eq!(processes(world.alice.id)[0].0, parent);
        assert_eq!(logged(&["pool start ", "site=alice"]).len(), 1, "{}", logged(&["pool "]).join("\n"));
    });
}

#[test]
fn a_site_that_goes_again_has_workers_when_there_is_work() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 0, max = 1 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        for word in ["stop", "start"] {
            assert!(world.cellwall(&["pool", word, "alice"]).status.success());
            until("no worker", || processes(world.alice.id).is_empty());
        }
        // Long enough for one that nobody asked for to be there.
        thread::sleep(Duration::from_millis(500));
        assert_eq!(logged(&["launch ", "site=alice"]).len(), 1);
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        assert_eq!(logged(&["launch ", "site=alice"]).len(), 2);
    });
}

#[test]
fn a_worker_on_demand_ends_without_work_and_none_comes_in_its_place() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { max = 2, idle = 1 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        for round in 1..3 {
            assert_eq!(nginx.get("alice", "/a.php").status, 200);
            until("its end", || logged(&["pool end", "site=alice", "why=idle"]).len() == round);
            until("an empty site", || processes(world.alice.id).is_empty());
            // Long enough for one that nobody asked for to be there.
            thread::sleep(Duration::from_millis(500));
            assert_eq!(logged(&["pool start ", "site=alice"]).len(), round);
        }
    });
}

#[test]
fn what_the_daemons_starter_left_open_reaches_nobody() {
    world(Launcher::Cellwall, |world| {
        let daemon = Daemon::start(world);
        let broker = broker(&daemon);
        let open = |pid: i32| -> Vec<String> {
            let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            all.filter_map(|one| Some(fs::read_link(one.path()).ok()?.display().to_string())).collect()
        };
        // Daemon::start leaves them to the daemon.
        assert!(open(daemon.pid().as_raw()).contains(&"/etc/shadow".to_owned()), "nothing was left open");
        for path in open(broker) {
            assert!(!["/etc/shadow", "/tmp/hostile"].contains(&path.as_str()), "the broker holds {path}");
        }
    });
}

#[test]
fn signals_that_the_daemons_starter_ignored_or_blocked_are_heard() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "a.cgi", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nfine'\n");
        let rules = |max: u32| {
            world.site(
                "alice",
                &format!("profile = \"sh\"\n[pool]\nkind = \"cgi\"\nworkers = {{ max = {max} }}\n"),
            );
            world.apply();
        };
        rules(1);
        let mut daemon = Daemon::traced(world, "/usr/bin/env --ignore-signal --block-signal");
        let pid = daemon.ready().unwrap();
        let nginx = Nginx::start(&["alice"], "");
        // With one place each of them needs the one before to be reaped.
        for _ in 0..5 {
            assert_eq!(nginx.get("alice", "/a.cgi").text(), "fine");
        }
        rules(7);
        kill(pid, Signal::SIGHUP).unwrap();
        until("the new rules", || !logged(&["change ", "alice"]).is_empty());
        kill(pid, Signal::SIGTERM).unwrap();
        until("its end", || daemon.has_ended().is_some());
        drop(nginx);
    });
}

#[test]
fn pool_15_a_program_that_cannot_start_costs_nothing_and_harms_nobody() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        worker(world, "#!/usr/bin/perl\nexit 3;\n", "workers = { min = 1 }\n");
        let start = Instant::now();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        until("the crash loop", || !logged(&["pool fail", "site=alice", "state=crash-loop"]).is_empty());
        assert_eq!(nginx.get("bob", "/a.php").status, 200);
        // 502 where a program began and ended just then, 503 where none is tried for a while.
        let status = nginx.get("alice", "/a.php").status;
        assert!(matches!(status, 502 | 503), "{status}");
        // 0.1 + 0.2 + 0.4 + … seconds: n starts take at least 0.1 (2^(n-1) - 1) seconds.
        let starts = logged(&["pool start", "site=alice"]).len();
        let elapsed = start.elapsed().as_secs_f64();
        assert!(
            starts < 20 && 0.1 * (2_f64.powi(i32::try_from(starts).unwrap() - 1) - 1.0) <= elapsed,
            "{starts} in {elapsed}"
        );
        assert!(logged(&["pool end", "site=alice", "how=exited", "code=3"]).len() >= 5);
    });
}

#[test]
fn pool_15_a_program_that_never_serves_is_ended_and_its_visitor_told() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        // One that is no FastCGI program, with children that shall outlive it.
        worker(world, FORKS, "start_timeout = \"1s\"\nworkers = { min = 1, max = 1 }\n");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        until("three grandchildren", || processes(world.alice.id).len() >= 4);
        assert_eq!(logged(&["code=S11"]).len(), 0, "nobody has asked it for anything");
        let old = processes(world.alice.id);
        let status = nginx.get("alice", "/a.php").status;
        assert!(matches!(status, 502 | 503), "{status}");
        let refused = logged(&["refuse ", "code=S11", "site=alice"]);
        assert!(refused[0].contains("fix=\"cellwall set alice pool.start_timeout 2s\""), "{refused:?}");
        until("its end", || !logged(&["pool end", "site=alice", "how=unready", "why=unready"]).is_empty());
        until("that it counts", || !logged(&["pool fail", "site=alice", "state=back-off"]).is_empty());
        until("the end of all of it", || {
            let now = processes(world.alice.id);
            old.iter().all(|one| !now.contains(one))
        });
        assert_eq!(nginx.get("bob", "/a.php").status, 200);
        // One that comes and takes its time for the answer has started.
        put(world.alice.docroot().join("slow.php"), b"<?php sleep(3); echo 'slow';", world.alice.id, 0o644);
        world.site(
            "alice",
            "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\nstart_timeout = \"1s\"\n",
        );
        world.apply();
        until("the new program", || nginx.get("alice", "/slow.php").text() == "slow");
        let old = logged(&["code=S11"]).len();
        assert_eq!(nginx.get("alice", "/slow.php").text(), "slow");
        assert_eq!(logged(&["code=S11"]).len(), old);
    });
}

#[test]
fn pool_17_nothing_survives_the_supervisor_and_the_next_one_serves() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2\nworkers = { min = 1 }");
        let mut daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let old = processes(world.alice.id);
        daemon.murder();
        let daemon = Daemon::start(world);
        until("the end of the old workers", || {
            let now = processes(world.alice.id);
            old.iter().all(|one| !now.contains(one))
        });
        // The old one's sockets are still there: the new one begins when it has taken their place.
        until("an answer", || nginx.get("alice", "/a.php").status == 200);
        drop(daemon);
    });
}

#[test]
fn a_killed_broker_is_replaced_and_no_listening_socket_is_lost() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        for round in 1..4 {
            // Others' brokers run at the same time.
            kill(Pid::from_raw(broker(&daemon)), Signal::SIGKILL).unwrap();
            // Its listening socket is open all the time: a request waits for the next broker.
            assert_eq!(nginx.get("alice", "/a.php").status, 200, "round {round}");
        }
        assert_eq!(logged(&["launch ", "site=alice"]).len(), 1, "the worker lives on");
    });
}

#[test]
fn pool_18_no_request_is_lost_while_workers_are_replaced() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let (good, end) = (AtomicU32::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !end.load(Ordering::Relaxed) {
                        let answer = nginx.ask(&Ask::get("alice.test", "/a.php"));
                        assert_eq!(answer.status, 200, "{} {:#?}", answer.head, logged(&["alice"]));
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // Without a worker there is none to replace.
            until("a first answer", || good.load(Ordering::Relaxed) > 0);
            for round in 0..5 {
                let before = good.load(Ordering::Relaxed);
                let said = world.cellwall(&["pool", "restart", "alice"]);
                assert!(said.status.success(), "{round}: {}", String::from_utf8_lossy(&said.stderr));
                until("requests after the restart", || good.load(Ordering::Relaxed) > before + 20);
            }
            end.store(true, Ordering::Relaxed);
        });
        assert_eq!(logged(&["launch ", "site=alice"]).len(), 6, "one worker, replaced five times");
    });
}

#[test]
fn pool_19_28_a_site_comes_changes_and_goes_and_its_neighbour_does_not_notice() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob", "carol"], "");
        let pid = |site: &str| {
            let text = nginx.get(site, "/a.php").text();
            text.split("pid=").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned())
        };
        let bob = pid("bob").expect("bob is served");
        // A new one: apply tells the daemon.
        put(
            world.carol.docroot().join("a.php"),
            &fs::read(world.bob.docroot().join("a.php")).unwrap(),
            world.carol.id,
            0o644,
        );
        world.site("carol", "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\n");
        world.apply();
        until("carol's socket", || fs::exists("/run/cellwall/pool/carol.sock").unwrap());
        assert!(pid("carol").is_some());
        // A policy that is wrong changes nothing.
        fs::write("/etc/cellwall/sites.d/alice.toml", "user = \"alice\"\n[pool]\nkind = \"cgj\"\n").unwrap();
        assert!(!world.cellwall(&["apply"]).status.success());
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let record = format!("/var/lib/cellwall/policy/{}.pool", world.alice.id);
        let good = fs::read(&record).unwrap();
        fs::write(&record, &good[..good.len() - 1]).unwrap();
        daemon.reload();
        until("the record of the bad record", || !logged(&["refuse ", "code=S09"]).is_empty());
        assert_eq!(nginx.get("alice", "/a.php").status, 200, "the old settings hold");
        // As a daemon that is older than the command finds it: whoever applies hears of it, though not of his own site.
        for words in [&["pool", "reload"][..], &["apply", "bob"]] {
            let said = world.cellwall(words);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(text.contains("cannot use all records") && text.contains("restart cellwalld"), "{text}");
        }
        let told = String::from_utf8(world.cellwall(&["why", "--last"]).stdout).unwrap();
        assert!(
            told.contains("cellwall apply && systemctl restart cellwalld") && told.contains("by nobody"),
            "{told}"
        );
        // One goes.
        world.site("alice", "profile = \"php\"\n");
        world.apply();
        until("the end of alice's pool", || {
            processes(world.alice.id).is_empty() && !fs::exists("/run/cellwall/pool/alice.sock").unwrap()
        });
        assert_eq!(pid("bob"), Some(bob), "bob's worker is the same all the time");
    });
}

/// Where the log is stands in the host's record: a reload that could not read it has not done what it was asked for.
#[test]
fn a_reload_says_that_the_hosts_record_cannot_be_used() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let daemon = Daemon::start(world);
        let record = "/var/lib/cellwall/policy/host";
        let good = fs::read(record).unwrap();
        fs::write(record, &good[..good.len() - 1]).unwrap();
        daemon.reload();
        until("its record", || !logged(&["refuse ", "code=S09", record]).is_empty());
        let said = world.cellwall(&["pool", "reload"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(text.contains("cannot use all records"), "{text}");
        fs::write(record, &good).unwrap();
        assert!(world.cellwall(&["pool", "reload"]).status.success());
    });
}

#[test]
fn a_sites_own_user_may_say_that_it_was_deployed_and_nobody_elses_may() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 1 }");
        let _daemon = Daemon::start(world);
        until("a worker", || !logged(&["launch ", "site=alice"]).is_empty());
        let ask = |user: u32, words: &[&str]| {
            let id = user.to_string();
            let said = crate::harness::run(
                Command::new("/usr/bin/setpriv")
                    .args(["--reuid", &id, "--regid", &id, "--clear-groups", "/usr/bin/cellwall"])
                    .args(words),
            );
            said.status.code()
        };
        assert_eq!(ask(world.alice.id, &["deployed", "alice"]), Some(0));
        until("the new worker", || logged(&["launch ", "site=alice"]).len() == 2);
        assert_eq!(ask(world.bob.id, &["deployed", "alice"]), Some(3));
        assert_eq!(ask(world.alice.id, &["pool", "stop", "alice"]), Some(3));
        assert_eq!(ask(world.alice.id, &["pool", "reload"]), Some(3));
        assert_eq!(ask(0, &["deployed", "nobody"]), Some(1));
        assert_eq!(logged(&["launch ", "site=alice"]).len(), 2);
    });
}

/// A launch says no by itself (P03); these were launched before.
#[test]
fn workers_of_an_account_that_is_somebody_elses_by_now_are_ended() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 1 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let before = fs::read_to_string("/etc/passwd").unwrap();
        // Other accounts may come and go.
        fs::write("/etc/passwd", format!("{before}dave:x:30055:30055::/home/dave:/bin/sh\n")).unwrap();
        thread::sleep(Duration::from_secs(4));
        let own = processes(world.alice.id);
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        assert_eq!(processes(world.alice.id), own, "the same ones");
        fs::write("/etc/passwd", before.replace("\nalice:", "\nmallory:")).unwrap();
        until("the end of her workers", || processes(world.alice.id).is_empty());
        assert_ne!(nginx.get("alice", "/a.php").status, 200);
        until("a launch that says why", || !logged(&["refuse ", "code=P03", "alice"]).is_empty());
        fs::write("/etc/passwd", before).unwrap();
        until("her workers again", || nginx.get("alice", "/a.php").status == 200);
    });
}

#[test]
fn a_crowd_at_the_control_socket_keeps_nobody_from_it() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 1 }");
        let _daemon = Daemon::start(world);
        until("a worker", || !logged(&["launch ", "site=alice"]).is_empty());
        // None is older than four seconds.
        let text = "use Socket; my @all; sub one { socket(my $s, PF_UNIX, SOCK_SEQPACKET, 0); \
                    connect($s, pack_sockaddr_un('/run/cellwall/control.sock')) or die; return $s }\n\
                    push @all, one() for 1 .. 64; $| = 1; print \"there\\n\";\n\
                    while (1) { for my $i (0 .. 63) { $all[$i] = one(); select undef, undef, undef, 0.06; } }";
        let mut crowd = Command::new("/usr/bin/perl");
        std::os::unix::process::CommandExt::uid(&mut crowd, world.bob.id);
        let mut crowd = crate::harness::spawn(crowd.args(["-e", text]).stdout(std::process::Stdio::piped()));
        let mut line = String::new();
        BufReader::new(crowd.stdout.take().unwrap()).read_line(&mut line).unwrap();
        for words in [["pool", "reload"].as_slice(), &["pool", "restart", "alice"], &["pool", "reload"]] {
            let said = world.cellwall(words);
            assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
        }
        let id = world.alice.id.to_string();
        let said = crate::harness::run(Command::new("/usr/bin/setpriv").args([
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
            "/usr/bin/cellwall",
            "deployed",
            "alice",
        ]));
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
        crowd.kill().unwrap();
        crowd.wait().unwrap();
    });
}
