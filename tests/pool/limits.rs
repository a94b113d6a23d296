//! A site's control groups hold its workers and its runs: memory, processes, and its share of the processors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::harness::{Launcher, User, World, not_shown, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged, processes, until};

/// Tells its groups; asked with `?spin` it computes without end, with `?eat` it takes memory without end.
const WORKER: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                      my $query = $ENV{QUERY_STRING} // '';\nwhile ($query eq 'spin') { }\n\
                      my @all; while ($query eq 'eat') { push @all, 'x' x 1048576 }\n\
                      open my $file, '<', '/proc/self/cgroup'; local $/; my $text = <$file>;\n\
                      print \"Content-Type: text/plain\\r\\n\\r\\n$text\"; }\n";

/// A site with a worker on demand, and these limits.
fn site(world: &World, user: &User, limits: &str) {
    let path = world.script(user, "app.fcgi", WORKER);
    let rules = format!(
        "profile = \"perl\"\n[jail]\nprocesses = true\n[limits]\ncgroup = \"required\"\n{limits}\n\
         [pool]\ncommand = \"{}\"\nworkers = {{ max = 1 }}\n",
        path.display()
    );
    world.site(&user.name, &rules);
}

/// The directory of a process's group that has this controller.
pub(crate) fn group(pid: i32, controller: &str) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let words: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
    let old = words.iter().find(|one| one[2] == "cgroup" && one[3].split(',').any(|word| word == controller));
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |fits: &dyn Fn(&str) -> bool| {
        let line = groups.lines().find(|line| fits(line.split(':').nth(1).unwrap())).unwrap();
        line.splitn(3, ':').nth(2).unwrap().trim_start_matches('/').to_owned()
    };
    match old {
        Some(mount) => Path::new(mount[1]).join(of(&|names| names.split(',').any(|name| name == controller))),
        None => {
            let mount = words.iter().find(|one| one[2] == "cgroup2").unwrap()[1];
            // A worker's own group stands in the site's.
            Path::new(mount).join(of(&str::is_empty)).parent().unwrap().to_owned()
        }
    }
}

/// What stands in the first of these files that there is.
pub(crate) fn setting(group: &Path, files: [&str; 2]) -> String {
    let found = files.iter().find_map(|file| fs::read_to_string(group.join(file)).ok());
    found.unwrap_or_else(|| panic!("{} has none of {files:?}", group.display())).trim().to_owned()
}

fn host() {
    fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\ndocroot = \"/var/www\"\n").unwrap();
}

#[test]
fn a_pools_workers_are_held_by_the_sites_groups_and_a_new_limit_holds_at_once() {
    world(Launcher::Cellwall, |world| {
        host();
        site(world, &world.alice, "memory = \"200M\"\nprocesses = 40\ncpu_weight = 1000\ncpu_max = \"150%\"");
        world.script(
            &world.bob,
            "a.cgi",
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\ncat /proc/self/cgroup\n",
        );
        world.site(
            "bob",
            "profile = \"sh\"\n[jail]\nprocesses = true\n[limits]\ncgroup = \"required\"\ncpu_weight = 50\n[pool]\nkind = \"cgi\"\n",
        );
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        let answer = nginx.get("alice", "/app.fcgi");
        assert_eq!(answer.status, 200, "{}", logged(&[""]).join("\n"));
        let (pid, _) = processes(world.alice.id)[0].clone();
        let name = format!("{}-alice", world.alice.id);
        for controller in ["memory", "pids", "cpu"] {
            let group = group(pid, controller).display().to_string();
            assert!(group.ends_with(&name), "{controller}: {group}");
        }
        let (memory, pids, cpu) = (group(pid, "memory"), group(pid, "pids"), group(pid, "cpu"));
        assert_eq!(setting(&memory, ["memory.limit_in_bytes", "memory.max"]), (200 << 20).to_string());
        assert_eq!(setting(&pids, ["pids.max", "pids.max"]), "40");
        assert!(["10240", "1000"].contains(&&*setting(&cpu, ["cpu.shares", "cpu.weight"])));
        assert!(["150000", "150000 100000"].contains(&&*setting(&cpu, ["cpu.cfs_quota_us", "cpu.max"])));
        // Of the site's groups, which hold whoever is in them: the worker that runs, and the one that is to follow it.
        for (key, value) in
            [("limits.cpu_weight", "10"), ("limits.cpu_max", "70%"), ("limits.processes", "30")]
        {
            let said = world.cellwall(&["set", "alice", key, value]);
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        assert!(["102", "10"].contains(&&*setting(&cpu, ["cpu.shares", "cpu.weight"])));
        assert!(["70000", "70000 100000"].contains(&&*setting(&cpu, ["cpu.cfs_quota_us", "cpu.max"])));
        assert_eq!(setting(&pids, ["pids.max", "pids.max"]), "30");
        let shown = world.cellwall(&["policy", "alice"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("cpu_weight") && shown.contains("70%"), "{shown}");
        // A run has its own group of version 2 at most, and the site's in all others.
        let said = nginx.get("bob", "/a.cgi").text();
        let own = format!("/cellwall/{}-bob", world.bob.id);
        assert!(said.lines().any(|line| line.contains(&own)), "{said}");
        drop((nginx, daemon));
    });
}

#[test]
fn two_busy_sites_share_a_processor_by_their_weights() {
    world(Launcher::Cellwall, |world| {
        host();
        site(world, &world.alice, "cpu_weight = 1000");
        site(world, &world.bob, "cpu_weight = 100");
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        let asking = ["alice", "bob"].map(|name| nginx.begun(name, "/app.fcgi?spin"));
        let [much, little] = shares([busy(world.alice.id), busy(world.bob.id)]);
        assert!(much > 3 * little, "{much} and {little} hundredths of a second by 1000 and 100");
        for name in ["alice", "bob"] {
            assert!(world.cellwall(&["pool", "stop", name]).status.success());
        }
        drop((asking, nginx, daemon));
    });
}

/// Version 2 weighs a site against the other sites; version 1 against whatever runs on the host.
#[test]
fn a_site_alone_weighs_no_more_than_its_weight_beside_the_host() {
    world(Launcher::Cellwall, |world| {
        host();
        site(world, &world.alice, "cpu_weight = 10");
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let asking = nginx.begun("alice", "/app.fcgi?spin");
        let its = busy(world.alice.id);
        let place = group(its, "cpu");
        if place.join("cpu.weight").exists() {
            assert!(place.parent().unwrap().ends_with("cellwall"), "{}", place.display());
        } else {
            let mut other = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
            // Whoever runs the tests may be nice; the site's worker is not.
            let equal =
                Command::new("renice").args(["-n", "0", "-p", &other.id().to_string()]).output().unwrap();
            assert!(equal.status.success(), "{equal:?}");
            let [much, little] = shares([other.id().cast_signed(), its]);
            other.kill().unwrap();
            other.wait().unwrap();
            assert!(much > 3 * little, "{much} and {little} hundredths of a second by 100 and 10");
        }
        assert!(world.cellwall(&["pool", "stop", "alice"]).status.success());
        drop((asking, nginx, daemon));
    });
}

/// The worker of a site that computes.
fn busy(user: u32) -> i32 {
    let mut pid = 0;
    until("a busy worker", || {
        pid = processes(user).first().map_or(0, |one| one.0);
        pid > 0 && ticks(pid) > 20
    });
    pid
}

/// What each of two gets while they compute on the same processor, until the first has had two seconds, however long that
/// takes.
fn shares(pids: [i32; 2]) -> [u64; 2] {
    let here = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|number| here.is_set(*number).unwrap()).unwrap();
    one.set(first).unwrap();
    pids.iter().for_each(|pid| sched_setaffinity(Pid::from_raw(*pid), &one).unwrap());
    let before = pids.map(ticks);
    until("two seconds of a processor", || ticks(pids[0]) > before[0] + 200);
    [0, 1].map(|place| ticks(pids[place]) - before[place])
}

/// Processor time of a process, in hundredths of a second.
pub(crate) fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let words = stat.rsplit_once(") ").map_or("", |(_, words)| words).split(' ').skip(11).take(2);
    words.map(|word| word.parse::<u64>().unwrap()).sum()
}

#[test]
fn pool_16_a_worker_that_is_killed_for_its_memory_is_named_and_the_next_request_served() {
    world(Launcher::Cellwall, |world| {
        host();
        site(world, &world.alice, "memory = \"48M\"");
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        for round in 1..3 {
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
            let answer = nginx.get("alice", "/app.fcgi?eat");
            assert_eq!(answer.status, 502, "{}", answer.text());
            let page = answer.text();
            let reference = page.split("Reference: ").nth(1).unwrap().get(..9).unwrap().to_owned();
            until("its record", || !logged(&["refuse ", &reference]).is_empty());
            let record = logged(&["refuse ", &reference]).remove(0);
            assert!(record.contains(" site=alice ") && record.contains("app.fcgi"), "{record}");
            until("the worker's end", || {
                logged(&["pool end", "site=alice", "how=outofmemory"]).len() == round
            });
            let told = world.cellwall(&["why", &reference]);
            let text = String::from_utf8_lossy(&told.stdout).into_owned();
            let repair = "cellwall set alice limits.memory 96M";
            assert!(text.contains("for want of memory") && text.contains(repair), "{text}");
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 200, "{}", logged(&[""]).join("\n"));
        }
        drop((nginx, daemon));
    });
}

/// Nobody could end what it leaves behind.
#[test]
fn a_worker_that_gets_no_group_of_its_own_does_not_run() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let _daemon = Daemon::start(world);
        let most = world.group_of_daemon().join("cellwall-pool/cgroup.max.descendants");
        if !most.exists() {
            return not_shown("control groups of version 2 for a daemon");
        }
        fs::write(&most, "0").unwrap();
        let nginx = Nginx::start(&["alice"], "");
        let asking = nginx.begun("alice", "/a.php");
        until("a start", || !logged(&["pool start ", "site=alice"]).is_empty());
        until("its end", || {
            !logged(&["refuse ", "code=C04", "site=alice"]).is_empty()
                || !processes(world.alice.id).is_empty()
        });
        assert!(processes(world.alice.id).is_empty(), "{:?}", logged(&["site=alice"]));
        fs::write(&most, "max").unwrap();
        until("an answer", || nginx.get("alice", "/a.php").status == 200);
        drop(asking);
    });
}
