//! Workers that are replaced, and starts that fail: what serves goes on until something better does.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, World, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged, mode_of, processes, until};
use super::rows::broker;
use super::stage::{Client, request_in};

/// Answers with its pid.
pub(crate) const GOOD: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                    print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; }\n";

/// alice's site: this program of hers, and more of `[pool]`.
pub(crate) fn fastcgi(world: &World, name: &str, text: &str, more: &str) {
    let path = world.script(&world.alice, name, text);
    let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n{more}", path.display());
    world.site("alice", &rules);
    world.apply();
}

/// strace(1), which changes calls of a process's as long as it is there.
pub(crate) struct Tracer(Child);

impl Tracer {
    pub(crate) fn on(process: Pid, words: &[impl AsRef<OsStr>]) -> Self {
        let pid = process.to_string();
        let mut tracer = Command::new("/usr/bin/strace");
        tracer.args(["-o", "/tmp/tracer"]).args(words).args(["-p", &pid]);
        let tracer = Self(crate::harness::spawn(&mut tracer));
        until("the tracer", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            !status.contains("TracerPid:\t0\n")
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGINT);
        drop(self.0.wait());
    }
}

const FORKS: &str = "clone,clone3,fork,vfork";

#[test]
fn after_a_fork_that_failed_the_next_start_succeeds() {
    world(Launcher::Cellwall, |world| {
        fastcgi(world, "good.fcgi", GOOD, "workers = { max = 1 }\n");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let tracer = Tracer::on(
            daemon.pid(),
            &["-e", &format!("trace={FORKS}"), "-e", &format!("inject={FORKS}:error=EAGAIN:when=1")],
        );
        drop(nginx.begun("alice", "/good.fcgi"));
        until("the failed start", || !logged(&["pool fail", "site=alice"]).is_empty());
        drop(tracer);
        until("an answer", || nginx.get("alice", "/good.fcgi").status == 200);
        assert_eq!(logged(&["pool fail", "site=alice"]).len(), 1, "{}", logged(&["pool "]).join("\n"));
        let names = fs::read_dir("/run/cellwall/broker").unwrap();
        assert_eq!(names.count(), 1, "the failed one's socket is gone");
    });
}

#[test]
fn where_no_new_worker_can_be_made_the_old_ones_go_on() {
    world(Launcher::Cellwall, |world| {
        let workers = "workers = { min = 1, max = 1 }\n";
        fastcgi(world, "good.fcgi", GOOD, workers);
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let old = nginx.get("alice", "/good.fcgi").text();
        let words = ["-e", &format!("trace={FORKS}"), "-e", &format!("inject={FORKS}:error=EAGAIN")];
        let tracer = Tracer::on(daemon.pid(), &words);
        fastcgi(world, "better.fcgi", GOOD, workers);
        until("three failed starts", || logged(&["pool fail", "site=alice"]).len() >= 3);
        assert_eq!(nginx.get("alice", "/good.fcgi").text(), old);
        assert!(logged(&["pool end", "site=alice"]).is_empty(), "{}", logged(&["pool "]).join("\n"));
        drop(tracer);
        until("the new one", || nginx.get("alice", "/good.fcgi").text() != old);
        until("the end of the old one", || logged(&["pool end", "site=alice"]).len() == 1);
    });
}

#[test]
fn an_answer_of_an_old_worker_is_no_proof_of_a_new_program() {
    world(Launcher::Cellwall, |world| {
        let workers = "workers = { min = 2, max = 2 }\n";
        fastcgi(world, "good.fcgi", GOOD, workers);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        until("two workers", || logged(&["launch ", "site=alice"]).len() == 2);
        // They have never been asked: their first answers come while the new program fails.
        fastcgi(world, "bad.fcgi", "#!/usr/bin/perl\nexit 3;\n", workers);
        until("a failed start", || !logged(&["pool fail", "site=alice"]).is_empty());
        for round in 0..6 {
            let answer = nginx.get("alice", "/good.fcgi");
            assert_eq!(answer.status, 200, "{round}: {}", logged(&["pool "]).join("\n"));
            thread::sleep(Duration::from_millis(100));
        }
        assert!(logged(&["pool end", "site=alice", "how=stopped"]).is_empty());
        let starts = logged(&["pool start", "site=alice"]).len();
        assert!(starts < 10, "its failures are not forgotten: {starts}");
    });
}

#[test]
fn a_reload_that_cannot_read_the_policys_directory_changes_nothing() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        for (round, call) in ["openat", "getdents64"].into_iter().enumerate() {
            let inject = format!("inject={call}:error=EMFILE");
            let words = ["-P", "/var/lib/cellwall/policy", "-e", &format!("trace={call}"), "-e", &inject];
            let tracer = Tracer::on(daemon.pid(), &words);
            daemon.reload();
            until("its record", || logged(&["refuse ", "code=S09"]).len() > round);
            drop(tracer);
        }
        for site in ["alice", "bob"] {
            assert_eq!(nginx.get(site, "/a.php").status, 200, "{}", logged(&["pool "]).join("\n"));
        }
        assert!(logged(&["pool remove"]).is_empty());
        daemon.reload();
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
    });
}

#[test]
fn what_is_no_rule_of_a_site_leaves_its_workers_alone() {
    world(Launcher::Cellwall, |world| {
        let settings = |queue: u32, more: &str| {
            let pool = format!("workers = {{ min = 1, max = 1 }}\nqueue = {queue}\n{more}");
            fastcgi(world, "good.fcgi", GOOD, &pool);
        };
        settings(10, "");
        let file = "/etc/cellwall/sites.d/alice.toml";
        let other = "/etc/cellwall/sites.d/other.toml";
        let own = fs::read_to_string(file).unwrap();
        // Another site of the same user: both are in one record.
        crate::harness::make_directory("/var/www/alice/other", world.alice.id, 0o755);
        let text = own.split("[pool]").next().unwrap().replace("/htdocs", "/other");
        fs::write(other, &text).unwrap();
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let pid = nginx.get("alice", "/good.fcgi").text();
        let is_same = |what: &str| {
            // As long as a new one would need to prove itself, and more.
            thread::sleep(Duration::from_millis(1500));
            let now = nginx.get("alice", "/good.fcgi").text();
            assert_eq!(now, pid, "{what}: {}", logged(&["pool "]).join("\n"));
        };
        fs::write(other, format!("{text}# a comment\n")).unwrap();
        world.apply();
        is_same("a comment in another site's file");
        assert!(logged(&["pool change"]).is_empty());
        fs::write(file, format!("{own}# a comment\n")).unwrap();
        world.apply();
        is_same("a comment in its own");
        settings(20, "");
        is_same("another number");
        assert_eq!(logged(&["pool change", "site=alice"]).len(), 1);
        settings(20, "[environment]\nset = { A = \"b\" }\n");
        until("a worker under the new rules", || nginx.get("alice", "/good.fcgi").text() != pid);
    });
}

#[test]
fn direct_workers_that_end_after_their_requests_have_started() {
    world(Launcher::Cellwall, |world| {
        // One request each, and longer than a start that fails.
        let text = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nselect undef, undef, undef, 1.2;\n\
                    $request->Accept(); print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; $request->Finish();\n";
        fastcgi(world, "app.fcgi", text, "accept = \"direct\"\nworkers = { max = 1 }\n");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        for round in 0..6 {
            let answer = nginx.get("alice", "/app.fcgi");
            assert_eq!(answer.status, 200, "{round}: {}", logged(&["pool "]).join("\n"));
        }
        let failed = logged(&["pool fail", "site=alice"]);
        assert!(failed.is_empty(), "{failed:?}");
        // One that does not last is none.
        fastcgi(world, "bad.fcgi", "#!/usr/bin/perl\nexit 3;\n", "accept = \"direct\"\n");
        until("the crash loop", || !logged(&["pool fail", "site=alice", "state=crash-loop"]).is_empty());
    });
}

#[test]
fn a_broker_that_is_late_does_not_accept_where_workers_do() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        for site in ["alice", "bob"] {
            assert_eq!(nginx.get(site, "/a.php").status, 200);
        }
        // It hears of a connection and of the new settings at once, and accepts as long as there is one.
        let pid = broker(&daemon);
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        let caller = UnixStream::connect("/run/cellwall/pool/alice.sock").unwrap();
        let rules =
            "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 1\n";
        world.site("alice", &format!("{rules}accept = \"direct\"\n"));
        world.apply();
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
        assert_eq!(nginx.get("bob", "/a.php").status, 200);
        assert_eq!(nginx.get("alice", "/a.php").status, 200, "{}", logged(&["pool "]).join("\n"));
        assert_eq!(broker(&daemon), pid, "it was not stuck: {}", logged(&["pool broker"]).join("\n"));
        drop(caller);
        // One that never says that it has heard: the next one knows from the start.
        relayed(world, "children = 1");
        until("the relay", || !logged(&["pool end", "site=alice", "how=stopped"]).is_empty());
        let launches = logged(&["launch ", "site=alice"]).len();
        kill(Pid::from_raw(broker(&daemon)), Signal::SIGSTOP).unwrap();
        world.site("alice", &format!("{rules}accept = \"direct\"\n"));
        world.apply();
        kill(Pid::from_raw(broker(&daemon)), Signal::SIGKILL).unwrap();
        until("a worker", || logged(&["launch ", "site=alice"]).len() > launches);
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
    });
}

#[test]
fn a_reload_opens_the_logs_of_a_site_that_has_not_changed() {
    world(Launcher::Cellwall, |world| {
        let (log, old) = ("/var/log/cellwall/access.log", "/var/log/cellwall/access.log.1");
        fs::create_dir_all("/var/log/cellwall").unwrap();
        relayed(world, &format!("children = 1\naccess_log = \"{log}\""));
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        until("its line", || fs::read_to_string(log).is_ok_and(|text| text.lines().count() == 1));
        fs::rename(log, old).unwrap();
        daemon.reload();
        until("a new file", || fs::exists(log).unwrap());
        until("its line", || {
            assert_eq!(nginx.get("alice", "/a.php").status, 200);
            fs::read_to_string(log).is_ok_and(|text| !text.is_empty())
        });
        assert_eq!(fs::read_to_string(old).unwrap().lines().count(), 1);
    });
}

#[test]
fn a_stop_ends_the_programs_of_a_site_politely_first() {
    world(Launcher::Cellwall, |world| {
        let head = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n";
        world.script(&world.alice, "plain.cgi", format!("{head}sleep 300\n"));
        let last = "trap 'echo the last word; exit 0' TERM\nsleep 300 &\nwait\n";
        world.script(&world.alice, "polite.cgi", format!("{head}{last}"));
        world.site(
            "alice",
            "profile = \"sh\"\n[pool]\nkind = \"cgi\"\ntimeout = \"1h\"\nworkers = { max = 2 }\n",
        );
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let mut begun = ["/plain.cgi", "/polite.cgi"].map(|path| nginx.begun("alice", path));
        let sleep = |(_, command): &(i32, String)| command.starts_with("sleep");
        until("both programs", || processes(world.alice.id).iter().filter(|one| sleep(one)).count() == 2);
        // Of the script its trap is set by then.
        thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        assert!(world.cellwall(&["pool", "stop", "alice"]).status.success());
        until("the end of all of them, zygotes too", || processes(world.alice.id).is_empty());
        assert!(start.elapsed() < Duration::from_secs(8), "before it was made to: {:?}", start.elapsed());
        let mut text = String::new();
        begun[1].read_to_string(&mut text).unwrap();
        assert!(text.ends_with("the last word\n"), "{text}");
        assert_eq!(nginx.get("alice", "/plain.cgi").status, 503);
        assert!(world.cellwall(&["pool", "start", "alice"]).status.success());
        // One that does not listen is made to.
        let deaf = "trap '' TERM\nsleep 300\n";
        world.script(&world.alice, "deaf.cgi", format!("{head}{deaf}"));
        let _kept = nginx.begun("alice", "/deaf.cgi");
        until("its program", || processes(world.alice.id).iter().any(sleep));
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        until("the end of a site that is gone", || processes(world.alice.id).is_empty());
    });
}

#[test]
fn a_request_may_take_longer_from_the_time_on_that_says_so() {
    world(Launcher::Cellwall, |world| {
        let slow = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                    if ($ENV{QUERY_STRING}) { $SIG{TERM} = 'IGNORE'; sleep 20; } print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; }\n";
        let rules = |timeout: u32| {
            let more = format!("timeout = {timeout}\nstop_timeout = 1\nworkers = {{ max = 2 }}\n");
            fastcgi(world, "app.fcgi", slow, &more);
        };
        rules(5);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let old = nginx.get("alice", "/app.fcgi").text();
        let mut slow = nginx.begun("alice", "/app.fcgi?1");
        thread::sleep(Duration::from_millis(500));
        // Its worker is to finish within fifteen seconds, as its requests are by then; and then they have more.
        let mut restart =
            Command::new("/usr/bin/cellwall").args(["pool", "restart", "alice"]).spawn().unwrap();
        until("the new one", || logged(&["pool start ", "site=alice"]).len() == 2);
        // It is believed after half a second, and the old one told.
        thread::sleep(Duration::from_millis(1500));
        rules(60);
        let mut answer = String::new();
        slow.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&old), "{answer}");
        assert!(restart.wait().unwrap().success());
    });
}

#[test]
fn a_socket_gets_another_group_and_its_site_the_rest_of_the_settings() {
    world(Launcher::Cellwall, |world| {
        let socket = "/run/cellwall/pool/alice.sock";
        relayed(world, "children = 1\nworkers = { min = 1 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let kept = UnixStream::connect(socket).unwrap();
        assert_eq!(mode_of(socket), (0o660, 0, 33));
        relayed(world, "children = 1\nworkers = { min = 1 }\nsocket_group = \"nogroup\"\nbody_max = 10");
        until("the change", || !logged(&["pool change", "site=alice"]).is_empty());
        assert_eq!(mode_of(socket), (0o660, 0, 65534));
        // Those that are connected stay so.
        let mut client = Client::over(kept);
        let root = world.alice.docroot().to_str().unwrap().to_owned();
        client.ask(&request_in(&root, "/a.php", &[], b"more than ten bytes", true));
        assert!(client.answer().text().starts_with("Status: 413"), "the other new setting");
        client.ask(&request_in(&root, "/a.php", &[], b"", false));
        assert!(client.answer().text().contains("uid="));
        assert_eq!(nginx.get("alice", "/a.php").status, 502, "the web server is not of that group");
        relayed(world, "children = 1\nworkers = { min = 1 }");
        until("an answer", || nginx.get("alice", "/a.php").status == 200);
        assert_eq!(mode_of(socket), (0o660, 0, 33));
        assert!(logged(&["refuse ", "code=S06"]).is_empty(), "{}", logged(&["refuse "]).join("\n"));
        assert_eq!(logged(&["launch ", "site=alice"]).len(), 1, "its worker goes on");
    });
}

#[test]
fn a_site_that_goes_again_at_once_gives_nothing_to_workers_that_end() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        for round in 0..8 {
            assert_eq!(nginx.get("alice", "/a.php").status, 200, "{round}: {}", logged(&[""]).join("\n"));
            for word in ["stop", "start"] {
                assert!(world.cellwall(&["pool", word, "alice"]).status.success());
            }
        }
    });
}

/// Shuts each listening socket of a process down, as whoever runs in it could.
const SHUTS: &str = "\
import ctypes, os, socket, sys
pid = int(sys.argv[1])
held = os.pidfd_open(pid)
for name in os.listdir(f'/proc/{pid}/fd'):
    fd = ctypes.CDLL(None).syscall(438, held, int(name), 0)
    try:
        one = socket.socket(fileno=fd)
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN): one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
";

#[test]
fn what_a_broker_has_shut_down_the_next_one_gets_anew() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let pid = broker(&daemon);
        let shut = Command::new("/usr/bin/python3").args(["-c", SHUTS, &pid.to_string()]).status().unwrap();
        assert!(shut.success());
        until("sockets that are shut", || nginx.get("alice", "/a.php").status == 502);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        for site in ["alice", "bob"] {
            until("its new socket", || nginx.get(site, "/a.php").status == 200);
            assert_eq!(logged(&["pool listen ", &format!("site={site} ")]).len(), 1);
        }
    });
}

#[test]
fn a_child_of_phps_that_is_stuck_is_ended_alone() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2\ntimeout = 2");
        let text = "<?php sleep((int) ($_GET['s'] ?? 0)); echo posix_getppid();";
        world.script(&world.alice, "a.php", text);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let parent = nginx.get("alice", "/a.php").text();
        for _ in 0..2 {
            until("both children", || processes(world.alice.id).len() == 3);
            let children = processes(world.alice.id);
            assert_eq!(nginx.get("alice", "/a.php?s=30").status, 504);
            let others = || processes(world.alice.id).iter().filter(|one| !children.contains(one)).count();
            until("another child", || others() == 1 && processes(world.alice.id).len() == 3);
            let answer = nginx.get("alice", "/a.php");
            assert_eq!((answer.status, answer.text()), (200, parent.clone()), "what it has loaded stays");
        }
        assert_eq!(logged(&["pool start ", "site=alice"]).len(), 1);
    });
}
