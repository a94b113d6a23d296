//! What the daemon decides where it gets the processor late, or hears of two things in the unusual order.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged, until};
use super::renewal::{GOOD, Tracer, fastcgi};
use super::rows::broker;

/// A process goes on so many microseconds after the kernel has told it of what there is.
fn deaf_for(us: u32) -> Vec<String> {
    let calls = "?epoll_wait,?epoll_pwait";
    ["-e".to_owned(), format!("trace={calls}"), "-e".to_owned(), format!("inject={calls}:delay_exit={us}")]
        .into()
}

#[test]
fn a_new_program_that_has_ended_is_not_believed_however_late_that_is_heard() {
    for more in ["workers = { min = 1, max = 1 }\n", "accept = \"direct\"\nworkers = { max = 1 }\n"] {
        world(Launcher::Cellwall, |world| {
            fastcgi(world, "good.fcgi", GOOD, more);
            let daemon = Daemon::start(world);
            let nginx = Nginx::start(&["alice"], "");
            let old = nginx.get("alice", "/good.fcgi").text();
            let tracer = Tracer::on(daemon.pid(), &deaf_for(700_000));
            fastcgi(world, "bad.fcgi", "#!/usr/bin/perl\nselect undef, undef, undef, 0.2; exit 3;\n", more);
            until("failed starts", || logged(&["pool fail", "site=alice"]).len() >= 3);
            drop(tracer);
            let said = || logged(&["pool "]).join("\n");
            assert_eq!(nginx.get("alice", "/good.fcgi").text(), old, "{more}: {}", said());
            assert!(logged(&["pool end", "site=alice", "how=stopped"]).is_empty(), "{more}: {}", said());
        });
    }
}

#[test]
fn a_worker_that_ends_after_its_first_answer_has_started() {
    world(Launcher::Cellwall, |world| {
        let once = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\n$request->Accept();\n\
                    print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; $request->Finish();\n";
        fastcgi(world, "once.fcgi", once, "workers = { min = 1, max = 1 }\n");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        // The end of the worker is known before its answer is read.
        let _tracer = Tracer::on(Pid::from_raw(broker(&daemon)), &deaf_for(50_000));
        for round in 1..=3 {
            until("a worker", || logged(&["launch ", "site=alice"]).len() >= round);
            // Longer than a start that fails.
            thread::sleep(Duration::from_millis(1200));
            let answer = nginx.get("alice", "/once.fcgi");
            assert_eq!(answer.status, 200, "{round}: {}", logged(&["pool "]).join("\n"));
        }
        until("the last end", || logged(&["pool end", "site=alice"]).len() == 3);
        let failed = logged(&["pool fail", "site=alice"]);
        assert!(failed.is_empty(), "{failed:?}");
    });
}

#[test]
fn a_broker_that_stood_still_together_with_the_supervisor_is_not_stuck() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let daemon = Daemon::start(world);
        let pid = broker(&daemon);
        // As a container that is paused, or a machine: for longer than an answer of the broker's is waited for.
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        thread::sleep(Duration::from_millis(1500));
        kill(daemon.pid(), Signal::SIGSTOP).unwrap();
        thread::sleep(Duration::from_secs(16));
        kill(daemon.pid(), Signal::SIGCONT).unwrap();
        thread::sleep(Duration::from_millis(500));
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200, "{}", logged(&["pool "]).join("\n"));
        assert_eq!(broker(&daemon), pid, "{}", logged(&["pool broker"]).join("\n"));
    });
}

/// A child of the supervisor's goes on three seconds after its first instruction, with all that it has of its parent's.
const SLOW_CHILDREN: &str =
    "/usr/bin/strace -f -DDD -o /dev/null -e trace=setsid -e inject=setsid:delay_enter=3000000";

#[test]
fn a_daemon_is_not_kept_out_by_a_child_that_a_killed_one_has_just_made() {
    world(Launcher::Cellwall, |world| {
        fastcgi(world, "good.fcgi", GOOD, "workers = { min = 1, max = 1 }\n");
        let mut killed = Daemon::traced(world, SLOW_CHILDREN).up();
        killed.murder();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        until("an answer", || nginx.get("alice", "/good.fcgi").status == 200);
    });
}
