//! What `cellwall explain` predicts is what the launcher then does, over randomly made policies, trees and requests.
//!
//! `CELLWALL_ORACLE_CASES` says how many (300), `CELLWALL_ORACLE_SEED` with which seed (1): a failure names both and
//! shows the smallest case that was found.
#![cfg(feature = "admin")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on must say so loudly, and its figures are what it is for"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod cases;

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use cases::{Case, Request, cases};
use harness::{Launcher, Record, World, world};

/// What is said, or done.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It runs, as far as it is ours to say.
    Runs,
    /// Code, status, evidence, remedy.
    Refused([String; 4]),
}

#[test]
fn what_is_predicted_is_what_happens() {
    let number = |name, otherwise| {
        std::env::var_os(name).map_or(otherwise, |text| text.to_string_lossy().parse().unwrap())
    };
    let (count, seed): (u32, u32) = (number("CELLWALL_ORACLE_CASES", 300), number("CELLWALL_ORACLE_SEED", 1));
    let tally: Mutex<BTreeMap<String, u32>> = Mutex::default();
    world(Launcher::Cellwall, |world| {
        let config =
            Config { cases: count, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let ended = TestRunner::new_with_rng(config, random).run(&cases(), |case| {
            let came = compare(world, &case)?;
            *tally.lock().unwrap().entry(came).or_default() += 1;
            Ok(())
        });
        if let Err(why) = ended {
            panic!("seed {seed}, {count} cases: {why}");
        }
    });
    let tally = tally.into_inner().unwrap();
    let all: Vec<String> = tally.iter().map(|(code, count)| format!("{code} {count}")).collect();
    println!("oracle: seed={seed} cases={count} differences=0: {}", all.join(", "));
    assert!(tally.len() > 10, "the cases are all alike: {tally:?}");
    assert!(tally.get("run").is_some_and(|runs| *runs > count / 20), "hardly anything runs: {tally:?}");
}

/// What came of it, for both alike.
fn compare(world: &World, case: &Case) -> Result<String, TestCaseError> {
    case.make(world);
    let predicted = predict(world, &case.request);
    let happened = launch(world, &case.request);
    match (predicted, happened) {
        // "would be next; a rehearsal stops here": only exec knows.
        (Answer::Runs, Answer::Refused([code, ..])) if code == "X255" => Ok(code),
        (predicted, happened) if predicted != happened => {
            Err(TestCaseError::fail(format!("predicted {predicted:?}, and then {happened:?}")))
        }
        (Answer::Runs, _) => Ok("run".to_owned()),
        (Answer::Refused([code, ..]), _) => Ok(code),
    }
}

fn predict(world: &World, request: &Request) -> Answer {
    let [user, group] = request.identity(world);
    let (place, command) = (request.place(), request.command.as_str());
    let said = world.cellwall(&["explain", &user, &group, place, command]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    if said.status.success() {
        return Answer::Runs;
    }
    let refused = text.lines().find_map(|line| line.split_once(" REFUSED "));
    let repair = text.lines().find_map(|line| line.split_once(" repair "));
    let parts = refused.and_then(|(_, rest)| {
        let (code, rest) = rest.trim_start().split_once(" (exit status ")?;
        let (status, why) = rest.split_once("): ")?;
        Some([code, status, why, repair?.1.trim_start()].map(|part| part.replace('"', "'")))
    });
    Answer::Refused(parts.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&said.stderr))))
}

fn launch(world: &World, request: &Request) -> Answer {
    let [user, group] = request.identity(world);
    let call = world.call(&world.alice, &request.command).word(1, user).word(2, group);
    let outcome = call.cwd(request.place()).env("QUERY_STRING=").env("SERVER_PROTOCOL=HTTP/1.1").run();
    let refuse: Vec<&Record> = outcome.records.iter().filter(|record| record.verb == "refuse").collect();
    match refuse.as_slice() {
        [] => {
            assert_eq!(outcome.records.len(), 1, "{}", outcome.story());
            Answer::Runs
        }
        [refuse] => {
            let [code, status, why] = ["code", "status", "why"].map(|name| refuse.field(name).to_owned());
            Answer::Refused([code, status, why, remedy(world, refuse.field("ref"))])
        }
        _ => panic!("{}", outcome.story()),
    }
}

/// What `cellwall why` has pasted against it, which may be better than what the launcher itself could know.
fn remedy(world: &World, reference: &str) -> String {
    let said = world.cellwall(&["why", reference]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let repair = text.lines().find_map(|line| line.strip_prefix("  repair "));
    repair.unwrap_or_else(|| panic!("{text}")).trim_start().replace('"', "'")
}
