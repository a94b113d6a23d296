//! A site that computes for long and takes more than its share is behind others in its control group: as long as it does, and as
//! long as it has its share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::available_parallelism;

use crate::harness::{Launcher, World, not_shown, world};

use super::host::{Daemon, Nginx, logged, until};
use super::limits::{group, setting};
use super::pulse::{GO, ask, sites};

/// The group of the site that computes is idle or not.
fn is_idle(group: &Path) -> bool {
    fs::read_to_string(group.join("cpu.idle")).unwrap().trim() == "1"
}

fn weight(group: &Path) -> String {
    setting(group, ["cpu.shares", "cpu.weight"])
}

fn weighs(world: &World, weight: u32) {
    let rules = format!(
        "profile = \"perl\"\n[limits]\ncgroup = \"required\"\ncpu_weight = {weight}\n[pool]\nkind = \"cgi\"\n"
    );
    world.site("alice", &rules);
    world.apply();
}

/// A site of the weight 10 beside one that is asked for brief things.
fn begun(world: &World) -> (Daemon, Nginx) {
    sites(world);
    weighs(world, 10);
    (Daemon::start(world), Nginx::start(&["alice", "bob"], ""))
}

/// It computes while the other one is asked, until it is behind: who asks for it, and its group. None where the kernel has no such
/// groups.
fn behind(world: &World, nginx: &Nginx) -> Option<(impl Sized + use<>, PathBuf)> {
    let hog = nginx.begun("alice", "/spin.cgi");
    let mut found = None;
    until("the program that computes", || {
        found =
            super::host::processes(world.alice.id).into_iter().find(|(_, text)| text.contains("spin.cgi"));
        found.is_some()
    });
    let group = group(found.unwrap().0, "cpu");
    if !group.join("cpu.idle").exists() {
        not_shown("a kernel older than 5.15, which has no idle control groups");
        return None;
    }
    until("the site behind others", || {
        ask(nginx);
        is_idle(&group)
    });
    Some((hog, group))
}

#[test]
fn a_site_is_behind_others_while_it_takes_more_than_its_share_and_keeps_its_weight() {
    world(Launcher::Cellwall, |world| {
        let (daemon, nginx) = begun(world);
        let Some((hog, group)) = behind(world, &nginx) else { return };
        assert_eq!(logged(&["pool behind site=alice used_ms=", " share_ms="]).len(), 1);
        until("that it is told", || {
            ask(&nginx);
            told(world, "alice", "behind") == 1
        });
        assert_eq!(told(world, "bob", "behind"), 0);

        // Another weight is taken at once, though an idle group has none; and it is behind again.
        weighs(world, 20);
        until("it is behind again", || {
            ask(&nginx);
            is_idle(&group)
        });

        fs::remove_file(GO).unwrap();
        drop(hog);
        until("it is behind nobody, with nothing that computes", || {
            ask(&nginx);
            !is_idle(&group)
        });
        until("that this is told", || told(world, "alice", "behind") == 0);
        assert!(["204", "20"].contains(&&*weight(&group)), "{}", weight(&group));
        drop((nginx, daemon));
    });
}

#[test]
fn who_has_less_than_his_share_is_behind_nobody() {
    world(Launcher::Cellwall, |world| {
        let (daemon, nginx) = begun(world);
        let Some((hog, group)) = behind(world, &nginx) else { return };
        // Programs of the host that want all processors: nothing is left for an idle group.
        let busy = Busy::start();
        until("it has its weight again", || {
            ask(&nginx);
            !is_idle(&group)
        });
        assert!(["102", "10"].contains(&&*weight(&group)), "{}", weight(&group));
        drop((busy, hog, nginx, daemon));
    });
}

#[test]
fn a_daemon_that_ends_leaves_nobody_behind_and_neither_does_the_one_after_a_killed_one() {
    world(Launcher::Cellwall, |world| {
        let (mut daemon, nginx) = begun(world);
        let Some((hog, group)) = behind(world, &nginx) else { return };
        daemon.murder();
        assert!(is_idle(&group), "nobody was there to free it");
        drop(hog);
        let daemon = Daemon::start(world);
        assert!(!is_idle(&group));
        assert!(["102", "10"].contains(&&*weight(&group)), "{}", weight(&group));

        let (hog, group) = behind(world, &nginx).unwrap();
        drop(daemon);
        assert!(!is_idle(&group));
        drop((hog, nginx));
    });
}

#[test]
fn a_site_whose_workers_have_ended_has_no_processes_and_keeps_what_it_has_used() {
    world(Launcher::Cellwall, |world| {
        sites(world);
        world.site(
            "alice",
            "profile = \"perl\"\n[pool]\nkind = \"cgi\"\nworkers = { max = 1, idle = \"1s\" }\n",
        );
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let used = || told(world, "alice", "cpu_microseconds_total");
        for _ in 0..2 {
            let before = used();
            fs::write(GO, "").unwrap();
            let hog = nginx.begun("alice", "/spin.cgi");
            until("half a second of a processor", || used() >= before + 500_000);
            let spent = used();
            assert!(told(world, "alice", "processes") > 0);
            fs::remove_file(GO).unwrap();
            drop(hog);
            until("no processes", || told(world, "alice", "processes") == 0);
            assert_eq!(told(world, "alice", "memory_bytes"), 0);
            assert!(used() >= spent, "{} after {spent}", used());
        }
        drop((nginx, daemon));
    });
}

/// A number of `cellwall status`.
fn told(world: &World, site: &str, name: &str) -> u64 {
    let said = world.cellwall(&["status", "--json", site]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let number = text.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("{name}: {text}"));
    number.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// As many programs that compute as there are processors, of the ordinary nice value.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> Self {
        let mut all = Self(Vec::new());
        for _ in 0..2 * available_parallelism().unwrap().get() {
            let one = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
            let pid = one.id().to_string();
            all.0.push(one);
            let equal = Command::new("renice").args(["-n", "0", "-p", &pid]).output().unwrap();
            assert!(equal.status.success(), "{equal:?}");
        }
        all
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for one in &mut self.0 {
            one.kill().unwrap();
            one.wait().unwrap();
        }
    }
}
