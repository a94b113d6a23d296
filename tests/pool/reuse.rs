//! Numbers of processes that are used again at once: whatever ends, nobody else's process is hit.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, World, put, spawn, world};

use super::host::{Nginx, account, logged, until, without_groups};

/// In a PID namespace whose next number is 301 again and again, so that a number that is free is given at once: bystanders that
/// stay, bystanders that come and go, and the daemon. Whoever of them is hit by a signal is written down.
const SCENE: &str = "\
    mount -t proc proc /proc || exit 9\n\
    (while echo 300 > /proc/sys/kernel/ns_last_pid; do :; done; echo 'the wheel stands' >> /tmp/harm) &\n\
    for one in 1 2 3 4 5 6; do (/bin/sleep 100000; echo \"one that stays: $?\" >> /tmp/harm) & done\n\
    for one in 1 2 3 4 5 6; do (while /bin/sleep 0.05; do :; done; echo \"one that goes: $?\" >> /tmp/harm) & done\n\
    test -e ${g%/*}/cgroup.procs && mkdir -p $g\n\
    (test -d $g && sh -c 'echo $PPID' > $g/cgroup.procs; exec /usr/sbin/cellwalld) &\n\
    echo ready > /tmp/scene; wait\n";

/// Ends with all that is in it.
struct Scene(Child);

impl Drop for Scene {
    fn drop(&mut self) {
        // unshare's child is the first process of the namespace: with it everything there ends.
        let first = format!("/proc/{}/task/{}/children", self.0.id(), self.0.id());
        let first = fs::read_to_string(first).unwrap_or_default();
        for pid in first.split_whitespace() {
            let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(world: &World) -> Scene {
    account();
    put("/usr/sbin/cellwalld", &world.daemon(), 0, 0o755);
    let scene = spawn(
        Command::new("/usr/bin/unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount", "/bin/sh", "-c", SCENE])
            .env_clear()
            .env("g", world.group_of_daemon())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create("/tmp/scene.err").unwrap()),
    );
    let scene = Scene(scene);
    until("the daemon", || fs::exists("/run/cellwall/status.sock").unwrap());
    scene
}

/// Leaves what its end must end: out of its session, deaf to the polite signal.
const RUN: &str = "#!/bin/sh\n(trap '' TERM; setsid sleep 600 & ) >/dev/null 2>&1 </dev/null\n\
                   printf 'Content-Type: text/plain\\r\\n\\r\\nfine'\n";
const SHORT: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\n\
                     while ($request->Accept() >= 0) { print \"Content-Type: text/plain\\r\\n\\r\\nfine\"; }\n";

fn nobody_else_is_hit(groups: bool) {
    world(Launcher::Cellwall, |world| {
        if !groups {
            without_groups();
        }
        let path = world.script(&world.alice, "app.fcgi", SHORT);
        world.site(
            "alice",
            &format!(
                "profile = \"perl\"\n[pool]\ncommand = \"{}\"\nrequests = 1\nworkers = {{ max = 2 }}\n",
                path.display()
            ),
        );
        world.script(&world.bob, "a.cgi", RUN);
        world.site("bob", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\nworkers = { max = 2 }\n");
        world.apply();
        let scene = start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        let ask = |site: &str, path: &str, count: usize| {
            for _ in 0..count {
                // Where all numbers are in use no process can be made for a moment.
                let mut told = String::new();
                until("an answer", || {
                    let answer = nginx.get(site, path);
                    told = answer.text();
                    answer.status == 200
                });
                assert_eq!(told, "fine");
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| ask("alice", "/app.fcgi", 40));
            scope.spawn(|| ask("bob", "/a.cgi", 80));
        });
        // The numbers of ended workers came again, or nothing was tried here.
        let mut pids: Vec<String> = logged(&["launch "])
            .iter()
            .filter_map(|line| Some(line.split(" pid=").nth(1)?.split(' ').next()?.to_owned()))
            .collect();
        let all = pids.len();
        pids.sort();
        pids.dedup();
        assert!(all >= 120 && pids.len() < all, "{all} starts, {} numbers", pids.len());
        assert!(!fs::exists("/tmp/harm").unwrap(), "{}", fs::read_to_string("/tmp/harm").unwrap());
        drop((nginx, scene));
    });
}

#[test]
fn pool_03_a_number_that_is_used_again_is_nobodys_death() {
    nobody_else_is_hit(true);
}

#[test]
fn pool_03_nor_is_it_without_control_groups() {
    nobody_else_is_hit(false);
}
