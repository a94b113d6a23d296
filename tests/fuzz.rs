//! The entry points of fuzz/, in the ordinary tests: every seed of the corpus, and what proptest makes of seeds and of
//! nothing. `cargo xtask fuzz` runs the same for minutes with libFuzzer, `cargo xtask miri` some of it under Miri.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on must say so loudly"
)]

#[path = "../fuzz/entries.rs"]
mod entries;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cellwall::policy::decode;
use cellwall::pool::wire::{Down, FRAME, Message as _, Up};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

/// How many inputs each target gets; Miri is some hundred times slower.
const CASES: u32 = if cfg!(miri) { 8 } else { 2000 };

fn directory(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(directory("corpus").join(name))
        .unwrap_or_else(|why| panic!("fuzz/corpus/{name}: {why}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "fuzz/corpus/{name} has no seed");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Bytes of nothing but chance; or a seed in which some bytes are others, more or fewer.
fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), 0..3_u8, any::<u8>());
    let changed = (select(seeds), vec(change, 1..6)).prop_map(|(mut bytes, changes)| {
        for (place, what, byte) in changes {
            let place = place.index(bytes.len() + 1);
            match what {
                0 => bytes.insert(place, byte),
                1 => bytes.truncate(place),
                _ if place < bytes.len() => bytes[place] = byte,
                _ => {}
            }
        }
        bytes
    });
    proptest::prop_oneof![1 => vec(any::<u8>(), 0..300), 3 => changed]
}

fn holds(name: &str, cases: u32) {
    let seeds = seeds(name);
    seeds.iter().for_each(|seed| entries::run(name, seed));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&inputs(seeds), |bytes| {
        entries::run(name, &bytes);
        Ok(())
    });
    result.unwrap_or_else(|why| panic!("{name}: {why}"));
}

#[test]
fn a_policy_record_is_read_whole_or_not_at_all() {
    holds("policy_record", CASES);
}

/// Seeds of an older layout would exercise nothing behind the header. `cellwall apply` leaves new ones behind.
#[test]
fn the_seeds_of_the_policy_are_whole() {
    let seed = |name: &str| fs::read(directory("corpus/policy_record").join(name)).unwrap();
    for name in ["static-host", "view"] {
        let (whole, body) = (seed(name), seed(&format!("{name}-body")));
        decode::record(&whole).unwrap_or_else(|why| panic!("fuzz/corpus/policy_record/{name}: {why}"));
        assert_eq!(whole[decode::HEADER_LENGTH..], body);
    }
    decode::host(&seed("host")).unwrap();
}

#[test]
fn every_mistake_in_a_configuration_is_said_with_its_place() {
    holds("configuration", CASES);
}

#[test]
fn words_and_variables_pass_only_as_listed() {
    holds("request", CASES);
}

#[test]
fn a_first_line_names_a_path_or_nothing() {
    holds("first_line", CASES);
}

#[test]
fn foreign_text_is_printable_and_one_word() {
    holds("escaping", CASES);
}

#[test]
fn a_decision_is_one_record_and_is_read_back() {
    holds("log_lines", CASES);
}

#[test]
fn a_walk_arrives_where_the_kernel_does_past_nobody_elses_directories() {
    holds("path_walk", CASES / 2);
}

#[test]
fn a_stream_says_the_same_however_it_is_cut() {
    holds("fastcgi", CASES);
}

#[test]
fn what_passes_the_gate_is_listed_and_a_file_of_the_sites() {
    holds("gate", CASES);
}

#[test]
fn a_frame_is_one_message_or_nonsense() {
    holds("wire", CASES);
}

/// A message that no seed says is found by chance only.
#[test]
fn each_message_of_the_wire_has_a_seed() {
    let is_message =
        |frame: &[u8], count| Down::decode(frame, count).is_ok() || Up::decode(frame, count).is_ok();
    let seeds = seeds("wire");
    for seed in &seeds {
        assert!(is_message(&seed[1..], seed[0].into()), "{seed:?}");
    }
    let kinds = (0..=u8::MAX).filter(|kind| {
        (0..8).any(|choice| {
            let mut frame = [0; FRAME];
            (frame[0], frame[1]) = (*kind, u8::from(choice >= 4));
            is_message(&frame, choice % 4)
        })
    });
    let (said, kinds): (BTreeSet<u8>, BTreeSet<u8>) =
        (seeds.iter().map(|seed| seed[1]).collect(), kinds.collect());
    assert_eq!(said, kinds);
    assert!(kinds.len() > 20, "{kinds:?}");
}

#[test]
fn each_target_has_its_file_its_seeds_and_its_test() {
    let manifest = fs::read_to_string(directory("Cargo.toml")).unwrap();
    let own = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file!())).unwrap();
    let names: BTreeSet<&str> = entries::ALL.iter().map(|(name, _)| *name).collect();
    for name in &names {
        let file = directory("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        assert!(text.contains(&format!("entries::run(\"{name}\", data)")), "{}", file.display());
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml has no {name}");
        assert!(own.contains(&format!("holds(\"{name}\"")), "no test holds {name}");
        assert!(!seeds(name).is_empty());
    }
    assert_eq!(manifest.matches("[[bin]]").count(), names.len(), "fuzz/Cargo.toml has more than the entries");
}
