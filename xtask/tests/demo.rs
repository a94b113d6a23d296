//! The demonstration, from outside: what it shows, and what it leaves behind. Root.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

fn demo() -> Command {
    let uid = fs::metadata("/proc/self").unwrap().uid();
    assert_eq!(uid, 0, "this test needs root; run: sudo cargo xtask test");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let mark = mark();
    command.envs(mark.split_once('=')).arg("demo").stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Processes that a demonstration of ours has left: all of them inherit its environment.
fn left_running() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let ours = processes.filter(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark().as_bytes())
    });
    ours.filter_map(|process| fs::read_to_string(process.join("comm")).ok()).collect()
}

fn mark() -> String {
    format!("DEMO_OF={}", std::process::id())
}

/// What a demonstration would have changed if it were not private.
fn host() -> Vec<String> {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let link = fs::read_link("/etc/alternatives/suexec").map(|to| to.display().to_string());
    let mounts = file("/proc/self/mountinfo");
    let ours = mounts.lines().filter(|line| line.contains("cellwall") || line.contains("/mnt"));
    let mut all: Vec<String> = ours.map(str::to_owned).collect();
    all.extend([file("/etc/passwd"), file("/etc/group"), link.unwrap_or_default()]);
    all.push(format!("{:?}", fs::metadata("/var/www/rose").is_ok()));
    all
}

#[test]
fn control_c_ends_the_demonstration_with_all_that_it_started() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = host();
    let mut child = demo().process_group(0).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("1. Each site answers")));
    assert!(left_running().iter().any(|name| name.starts_with("apache2")), "{:?}", left_running());
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !left_running().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(left_running(), Vec::<String>::new());
    assert_eq!(before, host());
}

#[test]
fn it_shows_what_it_promises_and_leaves_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = host();
    let output = demo().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "200 uid=60101 gid=60101 by PHP",
        "200 uid=60102 gid=60102 by Perl",
        "read          denied        denied",
        "connected     connected     connected",
        "more: cellwall explain v118",
        "the remedy, pasted: cellwall fix --apply rose /var/www/rose/htdocs/guestbook.cgi; a visitor sees: 200",
        "ratio ",
        "jail=view landlock=",
        "Everything is as promised.",
    ] {
        assert!(said.to_lowercase().contains(&line.to_lowercase()), "{line}\n{said}");
    }
    assert!(!said.contains("NO!") && !said.contains("1 mended"), "{said}");
    assert_eq!(left_running(), Vec::<String>::new());
    assert_eq!(before, host());
}

/// Each test looks for processes that the other one may have.
static ALONE: Mutex<()> = Mutex::new(());
