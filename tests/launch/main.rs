//! The launcher for real: a setuid program, a policy made by `cellwall apply`, a caller with the web server's uid.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    missing_docs,
    dead_code,
    reason = "tests say what is wrong by panicking; the cage is shared with other tests"
)]

#[path = "../config/cage.rs"]
mod cage;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use cage::{Cage, Said, said};

const LAUNCHER: &str = "/srv/cellwall-suexec";
const DOCROOT: &str = "/srv/www/alice";
const LOG: &str = "/srv/log/cellwall.log";

/// One at a time: a fork of another test would hold the program open for writing, and exec would say ETXTBSY.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn host_with_alice() -> Cage {
    let cage = Cage::new();
    fs::create_dir("/srv/log").unwrap();
    cage.host(&format!("caller = \"www-data\"\n[log]\nfile = \"{LOG}\"\n"));
    let files =
        "[files]\nexecute = [\"/usr/bin\", \"/usr/lib\", \"/lib64?\"]\nread = [\"/etc/ld.so.cache\"]\n";
    cage.small("alice", "alice", &format!("[jail]\nkind = \"host\"\n{files}"));
    script("a.cgi", 0o755);
    cage.good(&["apply"]);
    fs::copy(env!("CARGO_BIN_EXE_cellwall-suexec"), LAUNCHER).unwrap();
    chown(LAUNCHER, Some(0), Some(33)).unwrap();
    fs::set_permissions(LAUNCHER, fs::Permissions::from_mode(0o4750)).unwrap();
    cage
}

fn script(name: &str, mode: u32) {
    let path = format!("{DOCROOT}/{name}");
    fs::write(
        &path,
        "#!/bin/sh\nid -u; id -G; echo \"q=$QUERY_STRING p=$LD_PRELOAD\"; cat /etc/hostname; exit 0\n",
    )
    .unwrap();
    chown(&path, Some(20001), Some(20001)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn launch(words: &[&str]) -> Said {
    let mut command = Command::new(LAUNCHER);
    command.args(words).current_dir(DOCROOT).env_clear().env("QUERY_STRING", "x").env("LD_PRELOAD", "y");
    said(&command.uid(33).gid(33).output().unwrap())
}

#[test]
fn a_script_runs_as_its_owner_with_what_the_policy_passes_and_reads_nothing_else() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _cage = host_with_alice();
    let ran = launch(&["20001", "20001", "a.cgi"]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), "20001\n20001\nq=x p=\n"), "{}", ran.err);
    assert!(ran.err.contains("/etc/hostname"), "Landlock let the script read: {}", ran.err);
    let log = fs::read_to_string(LOG).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains(" launch ref=") && log.contains("site=alice") && log.contains("uid=20001"), "{log}");
}

#[test]
fn each_refusal_has_its_status_one_record_and_the_same_page() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _cage = host_with_alice();
    script("writable.cgi", 0o777);
    script("plain.cgi", 0o644);
    script("set-id.cgi", 0o4755);
    std::os::unix::fs::symlink("a.cgi", format!("{DOCROOT}/link.cgi")).unwrap();
    let cases: [(&[&str], i32, &str); 11] = [
        (&["20001", "20001"], 101, "R101"),
        (&["20001", "20001", "../a"], 104, "R104"),
        (&["alice", "20001", "a.cgi"], 105, "R105"),
        (&["20001", "-1", "a.cgi"], 106, "R106"),
        (&["20002", "20002", "a.cgi"], 121, "P121"),
        (&["20001", "20002", "a.cgi"], 83, "P02"),
        (&["20001", "20001", "none.cgi"], 117, "V117"),
        (&["20001", "20001", "link.cgi"], 117, "V117"),
        (&["20001", "20001", "writable.cgi"], 118, "V118"),
        (&["20001", "20001", "set-id.cgi"], 119, "V119"),
        (&["20001", "20001", "plain.cgi"], 121, "V121"),
    ];
    let mut pages = Vec::new();
    for (number, (words, status, code)) in cases.into_iter().enumerate() {
        let refused = launch(words);
        assert_eq!(refused.status, Some(status), "{words:?}: {}{}", refused.out, refused.err);
        let log = fs::read_to_string(LOG).unwrap();
        assert_eq!(log.lines().count(), number + 1, "{words:?}: {log}");
        let record = log.lines().last().unwrap();
        assert!(record.contains(&format!(" code={code} status={status} ")), "{words:?}: {record}");
        let reference = record.split("ref=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        assert!(refused.out.contains(&reference) && refused.err.contains(&reference), "{}", refused.out);
        pages.push(refused.out.replace(&reference, "REF"));
    }
    pages.dedup();
    assert_eq!(pages.len(), 1, "visitors can tell refusals apart: {pages:?}");
}
