//! What a visitor learns: LEAK-01 to LEAK-05 of the threat catalogue.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::{Launcher, mode, world};

#[test]
fn leak_01_02_every_refusal_shows_the_visitor_the_same_page() {
    world(Launcher::Cellwall, |world| {
        let probe = world.probe(&world.alice, "a.cgi");
        mode(&probe, 0o777);
        let call = || world.call(&world.alice, "a.cgi");
        let refusals = [
            call().run(),
            call().words(&["x"]).run(),
            call().word(1, "0").run(),
            call().word(1, "65534").run(),
            call().word(2, "0").run(),
            call().word(1, "root").run(),
            call().word(3, "missing").run(),
            call().word(3, "../x").run(),
            call().cwd("/").run(),
            call().caller(0, 0, "").run(),
            call().env("QUERY_STRING=1").env("QUERY_STRING=2").run(),
        ];
        let pages: BTreeSet<_> = refusals
            .iter()
            .map(|one| {
                one.refused_somehow();
                one.page()
            })
            .collect();
        assert_eq!(pages.len(), 1, "{pages:#?}");
        let page = pages.first().unwrap();
        for word in ["alice", "/var", "cellwall", "a.cgi", "suexec", "30001"] {
            assert!(!page.contains(word), "the page tells {word}:\n{page}");
        }
    });
}

#[test]
fn leak_03_without_memory_nothing_is_said_but_the_page() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let before = fs::read_dir(world.alice.docroot()).unwrap().count();
        let (mut ran, mut starved) = (0, 0);
        for kilobytes in (500..2500).step_by(50) {
            let bytes = (kilobytes * 1024).to_string();
            let unlimited = u64::MAX.to_string();
            // Dumps of memory are permitted, as far as the caller can permit them.
            let call = world.call(&world.alice, "a.cgi").root(&["limit", "4", &unlimited, &unlimited]);
            let outcome = call.order(&["soft", "9", &bytes]).unrecorded();
            let (out, err) = (outcome.out_text(), outcome.err_text());
            if out.contains("\nprobe\n") {
                ran += 1;
                continue;
            }
            starved += 1;
            assert!(outcome.marks.is_empty(), "{}", outcome.story());
            assert!(out.is_empty() || out.starts_with("Status: 500 "), "{kilobytes}: {}", outcome.story());
            for word in ["panicked", "src/", ".rs", "/var", "alice"] {
                assert!(!out.contains(word) && !err.contains(word), "{kilobytes}: {}", outcome.story());
            }
        }
        assert!(starved > 5 && ran > 5, "{starved} had too little, {ran} enough: one of both is not tested");
        assert_eq!(fs::read_dir(world.alice.docroot()).unwrap().count(), before, "a core was left");
    });
}
