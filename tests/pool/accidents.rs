//! Accidents of the host while pools run: a disk that is full, ten thousand visitors who say nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::harness::{Hung, LOG, Launcher, everything, make_directory, put, run, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, account, logged, many_descriptors, processes, until};
use super::limits::ticks;
use super::rows::broker;

const LOGS: &str = "/var/log/cellwall";

/// What the broker counts, by the name of a metric and its site.
fn counted(metric: &str, site: &str) -> u64 {
    use std::io::Read as _;
    let mut stream = UnixStream::connect("/run/cellwall/status.sock").unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.contains(metric) && line.contains(&format!("site=\"{site}\"")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {metric}: {text}"))
}

#[test]
fn on_a_full_disk_what_runs_goes_on_and_what_is_lost_is_counted() {
    world(Launcher::Cellwall, |world| {
        fs::create_dir_all(LOGS).unwrap();
        let options = Some("size=256k,nr_inodes=20,mode=755");
        mount(Some("tmpfs"), LOGS, Some("tmpfs"), MsFlags::empty(), options).unwrap();
        relayed(
            world,
            "children = 1\naccess_log = \"/var/log/cellwall/access.log\"\nworkers = { min = 1, max = 1 }",
        );
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let mut filler = fs::File::create(format!("{LOGS}/filler")).unwrap();
        while filler.write_all(&[0; 512]).is_ok() {}
        // The pages that the logs have already are not full to the last byte.
        until("a line that was lost", || {
            assert_eq!(nginx.get("alice", "/a.php").status, 200, "a worker that runs needs no disk");
            counted("lines_lost_total", "alice") > 0
        });
        let answer = nginx.get("alice", "/a.php");
        assert!(matches!(answer.status, 200 | 502 | 503), "{}", answer.status);
        assert_eq!(nginx.get("bob", "/a.php").status, 200, "the neighbour's worker runs");
        drop(filler);
        fs::remove_file(format!("{LOGS}/filler")).unwrap();
        until("alice's next worker", || nginx.get("alice", "/a.php").status == 200);
        let lines = || fs::read_to_string(format!("{LOGS}/access.log")).unwrap().lines().count();
        let before = lines();
        until("lines again", || {
            assert_eq!(nginx.get("alice", "/a.php").status, 200);
            lines() > before
        });
    });
}

/// Logrotate itself, with the file that is installed: whoever holds a log open is told of each rotation.
#[test]
fn after_each_rotation_lines_go_to_the_new_files() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\naccess_log = \"/var/log/cellwall/access.log\"\n");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let rules = "/etc/logrotate.d/cellwall";
        fs::create_dir_all("/etc/logrotate.d").unwrap();
        put(rules, include_bytes!("../../packaging/logrotate/cellwall"), 0, 0o644);
        let accessed = || fs::read_to_string(format!("{LOGS}/access.log")).unwrap().lines().count();
        let asked = |round: u32| {
            let answer = nginx.get("alice", "/a.php");
            assert_eq!(answer.status, 200, "round {round}: {}", logged(&[""]).join("\n"));
            until(&format!("the access log's line in round {round}"), || accessed() > 0);
            for (wish, status) in [("stop", 503), ("start", 200)] {
                assert!(world.cellwall(&["pool", wish, "alice"]).status.success());
                until(wish, || nginx.get("alice", "/a.php").status == status);
                let stopped = || status == 200 || processes(world.alice.id).is_empty();
                until("the end of the workers", stopped);
            }
            until(&format!("the refusal in round {round}"), || !logged(&["refuse ", "code=B04"]).is_empty());
        };
        asked(0);
        for round in 1..=3 {
            let words = ["--force", "--state", "/tmp/rotated", rules];
            let said = run(Command::new("/usr/sbin/logrotate").args(words));
            assert!(
                said.status.success() && said.stderr.is_empty(),
                "{}",
                String::from_utf8_lossy(&said.stderr)
            );
            assert!(accessed() == 0 && logged(&["refuse "]).is_empty(), "nothing was rotated");
            asked(round);
        }
        assert!(fs::metadata(format!("{LOGS}/access.log.2.gz")).is_ok());
    });
}

const OPEN: &str = "is not in a directory that only root can write";

#[test]
fn a_log_that_cannot_be_opened_is_told_with_a_command_that_mends_it() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/logs", 0, 0o755);
        for (path, why, at, spoiled) in [
            ("/var/log/nosuch/a.log", "its directory is not there", "/var/log/nosuch/a.log", "/srv/logs"),
            ("/srv/logs/a.log", OPEN, "/var/log/cellwall/alice-access.log", "/srv/logs"),
            ("/srv/logs/no/a.log", OPEN, "/var/log/cellwall/alice-access.log", "/srv/logs"),
            ("/var/log/cellwall/a.log", OPEN, "/var/log/cellwall/a.log", "/var/log/cellwall"),
        ] {
            drop(fs::remove_file(LOG));
            drop(fs::remove_file(at));
            chown("/srv/logs", Some(0), None).unwrap();
            relayed(world, &format!("children = 1\naccess_log = \"{path}\""));
            // `apply` would refuse it; the daemon looks for itself.
            chown(spoiled, Some(world.alice.id), None).unwrap();
            let _daemon = Daemon::start(world);
            let nginx = Nginx::start(&["alice"], "");
            until("the refusal of the log", || !logged(&["code=S10", "site=alice"]).is_empty());
            let line = logged(&["code=S10", "site=alice"]).remove(0);
            assert!(line.contains(&format!("why=\"{path}: {why}")), "{line}");
            let fix = line.split(" fix=\"").nth(1).unwrap().trim_end_matches('"');
            let said = run(Command::new("sh").args(["-c", fix]));
            assert!(said.status.success(), "{fix}: {}", String::from_utf8_lossy(&said.stderr));
            until("a line of the access log", || {
                assert_eq!(nginx.get("alice", "/a.php").status, 200);
                fs::read_to_string(at).is_ok_and(|text| !text.is_empty())
            });
        }
    });
}

#[test]
fn pool_11_ten_thousand_half_open_connections_keep_nobody_out() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2\nworkers = { min = 1, max = 1 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        many_descriptors(11_000);
        let mut crowd = Vec::new();
        for number in 0..10_000 {
            // The beginning of a BEGIN_REQUEST, and nothing more.
            let mut stream = UnixStream::connect("/run/cellwall/pool/alice.sock").unwrap();
            // The oldest may be gone by now.
            let _ = stream.write_all(&[1, 1, 0, 1]);
            crowd.push(stream);
            if number % 1000 == 999 {
                for site in ["alice", "bob"] {
                    let answer = nginx.get(site, "/a.php");
                    assert_eq!(
                        answer.status,
                        200,
                        "{site} after {number}: {}",
                        logged(&["refuse "]).join("\n")
                    );
                }
            }
        }
        drop(crowd);
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
    });
}

/// The numbers of a process's descriptors that are open.
fn descriptors(pid: i32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn pool_14_a_broker_without_a_descriptor_waits_for_one_and_serves_everybody_again() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 1, max = 1 }");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        for site in ["alice", "bob"] {
            assert_eq!(nginx.get(site, "/a.php").status, 200, "{site}");
        }
        let pid = broker(&daemon);
        let most = descriptors(pid).into_iter().max().unwrap() + 21;
        let limit = format!("--nofile={most}");
        // As its own user: root of a container may not change another's.
        let words = ["--pid", &pid.to_string(), &limit];
        let (uid, gid) = account();
        let said = run(Command::new("prlimit").uid(uid).gid(gid).args(words));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        // More than there is room for say the beginning of a request to alice, and nothing more: ten seconds each.
        let room = usize::try_from(most).unwrap() - descriptors(pid).len();
        let mut crowd = Vec::new();
        for _ in 0..room + 10 {
            let mut stream = UnixStream::connect("/run/cellwall/pool/alice.sock").unwrap();
            stream.write_all(&[1, 1, 0, 1]).unwrap();
            crowd.push(stream);
        }
        let all = usize::try_from(most).unwrap();
        until("the last descriptor", || descriptors(pid).len() == all);
        let (before, started) = (ticks(pid), Instant::now());
        assert_eq!(nginx.get("bob", "/a.php").status, 200, "{}", logged(&[""]).join("\n"));
        let waited = started.elapsed();
        assert!(waited > Duration::from_secs(1), "bob had to wait for a descriptor, but {waited:?} only");
        assert!(waited < Duration::from_secs(30), "{waited:?}");
        let spent = ticks(pid) - before;
        assert!(
            spent < 200,
            "{spent} hundredths of a second of the processor in {waited:?}: it waits busily"
        );
        drop(crowd);
        for site in ["alice", "bob"] {
            assert_eq!(nginx.get(site, "/a.php").status, 200, "{site}: {}", logged(&[""]).join("\n"));
        }
        assert_eq!(broker(&daemon), pid, "the same broker");
    });
}

/// Real-time signals have no names, and end a process like any other.
#[test]
fn a_process_that_is_ended_by_any_signal_is_buried_like_all_others() {
    world(Launcher::Cellwall, |world| {
        let dies = "#!/usr/bin/perl\n$| = 1; print \"Content-Type: text/plain\\r\\n\\r\\nfine\"; kill $ENV{QUERY_STRING} || 64, $$;\n";
        world.script(&world.bob, "dies.cgi", dies);
        world.site("bob", "profile = \"perl\"\n[pool]\nkind = \"cgi\"\nworkers = { max = 2 }\n");
        let worker = world.script(&world.alice, "worker.fcgi", "#!/usr/bin/perl\nkill 40, $$;\n");
        let text = format!(
            "profile = \"perl\"\n[pool]\ncommand = \"{}\"\nworkers = {{ min = 1 }}\n",
            worker.display()
        );
        world.site("alice", &text);
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["bob"], "");
        until("the end of a worker", || {
            !logged(&["pool end ", "site=alice", "how=signalled code=40"]).is_empty()
        });
        for signal in 34..=64 {
            let answer = nginx.get("bob", &format!("/dies.cgi?{signal}"));
            assert_eq!(
                (answer.status, answer.text()),
                (200, "fine".to_owned()),
                "{signal}: {}",
                logged(&[""]).join("\n")
            );
        }
    });
}

/// The supervisor goes on a tenth of a second after its children, as on a crowded machine: their time runs before its own.
const HELD_UP: &str =
    "/usr/bin/strace -DDD -o /dev/null -e trace=clone,clone3 -e inject=clone,clone3:delay_exit=100000";

#[test]
fn a_site_whose_files_do_not_answer_is_told_so_and_its_neighbour_is_served() {
    for kind in ["fastcgi", "cgi"] {
        world(Launcher::Cellwall, |world| {
            make_directory("/srv/far", 0, 0o755);
            let pool = match kind {
                "cgi" => "kind = \"cgi\"".to_owned(),
                _ => "command = \"/usr/bin/php-cgi\"".to_owned(),
            };
            for user in [&world.alice, &world.bob] {
                put(user.docroot().join("a.php"), b"<?php echo 'served';", user.id, 0o644);
                let read = if user.name == "alice" { "read = [\"/srv/far\"]\n" } else { "" };
                world.site(&user.name, &format!("{}{read}[pool]\n{pool}\n", everything("host")));
            }
            world.apply();
            let _daemon = Daemon::traced(world, HELD_UP).up();
            let nginx = Nginx::start(&["alice", "bob"], "");
            let far = Hung::over("/srv/far");
            thread::scope(|scope| {
                let stands = scope.spawn(|| nginx.get("alice", "/a.php"));
                for _ in 0..20 {
                    let answer = nginx.get("bob", "/a.php");
                    assert_eq!(answer.text(), "served", "{}", logged(&[""]).join("\n"));
                }
                let late = || logged(&["refuse ", "code=A03", "site=alice"]);
                until("a record of the launch that hangs", || !late().is_empty());
                drop(far);
                let status = stands.join().unwrap().status;
                assert!([200, 500, 502, 503].contains(&status), "{status}\n{}", logged(&[""]).join("\n"));
                assert!(late()[0].contains("did not end within 5 s"), "{late:?}", late = late());
            });
            let said = world.cellwall(&["why", "--last", "alice"]);
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(text.contains("A03"), "{text}");
            until("alice's next worker", || nginx.get("alice", "/a.php").text() == "served");
        });
    }
}
