//! What others build on: exit codes, and an upgrade while launches go on (CMP-02 to CMP-04 of the threat catalogue).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::{CELLWALL, Launcher, each_jail, mode, put, run, world};

/// Code and status of every card in the sources of the launcher.
fn cards(directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cards(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for card in text.split("code: \"").skip(1) {
            let code = card.split('"').next().unwrap().to_owned();
            let status = card.split("status: ").nth(1).unwrap();
            let status = status.split(|letter: char| !letter.is_ascii_digit()).next().unwrap();
            // What the pools say to visitors has HTTP statuses of its own.
            if status == "0" {
                continue;
            }
            assert_eq!(found.insert(code.clone(), status.to_owned()), None, "{code} stands twice");
        }
    }
}

#[test]
fn cmp_02_every_code_has_the_exit_status_that_the_manual_tells() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut made = BTreeMap::new();
    cards(&root.join("src"), &mut made);
    let manual = fs::read_to_string(root.join("docs/refusals.md")).unwrap();
    let told: BTreeMap<String, String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("## ")?.strip_suffix(')')?.split_once(" (status "))
        .map(|(code, status)| (code.to_owned(), status.to_owned()))
        .collect();
    assert!(told.len() > 40, "{told:?}");
    assert_eq!(made, told);
    // A panic of the runtime would end with 101, which is suEXEC's status for too few words: the launcher is built to
    // abort instead, so no refusal and no panic share a status.
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(manifest.split("[profile.release]").nth(1).unwrap().contains("panic = \"abort\""));
}

#[test]
fn cmp_03_the_launcher_is_static_hardened_and_carries_no_names() {
    world(Launcher::Cellwall, |_| {
        let said = run(Command::new("readelf").args(["-W", "-h", "-l", "-d", "-S", CELLWALL]));
        let told = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{said:?}");
        for needed in ["DYN (", "GNU_RELRO", "GNU_STACK"] {
            assert!(told.contains(needed), "{needed} is not in\n{told}");
        }
        // No loader, no library, nowhere to look for one, no symbols, no memory that is written and run.
        for word in ["INTERP", "(NEEDED)", "RPATH", "RUNPATH", ".symtab", " RWE "] {
            assert!(!told.contains(word), "{word} is in\n{told}");
        }
        let bytes = fs::read(CELLWALL).unwrap();
        let root = env!("CARGO_MANIFEST_DIR").as_bytes();
        assert!(!bytes.windows(root.len()).any(|some| some == root), "the place where it was built is in it");
    });
}

#[test]
fn cmp_04_no_launch_fails_while_the_launcher_and_the_policy_are_replaced() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let bytes = fs::read(CELLWALL).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let upgrades = scope.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    // As dpkg does it: the new file beside the old one, its owner and mode, and then its name.
                    let new = format!("{CELLWALL}.dpkg-new");
                    put(&new, &bytes, 0, 0o755);
                    std::os::unix::fs::chown(&new, Some(0), Some(33)).unwrap();
                    mode(&new, 0o4750);
                    fs::rename(&new, CELLWALL).unwrap();
                    world.apply();
                    count += 1;
                }
                count
            });
            let _stop = crate::race::Stop(&done);
            for _ in 0..100 {
                world.call(&world.alice, "a.cgi").run().ran();
            }
            done.store(true, Ordering::Relaxed);
            assert!(upgrades.join().unwrap() > 2);
        });
    });
}
