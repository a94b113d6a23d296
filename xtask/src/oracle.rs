//! `oracle`: what `cellwall explain` predicts, and what the launcher then does, over thousands of random cases.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Outcome;
use crate::{build, debian, run, say, tree};

/// Runs `--cases` cases (5000) with `--seed` (another one each time).
pub(crate) fn compare(options: &[String]) -> Outcome {
    let (mut cases, mut seed) = (5000, seconds());
    for pair in options.chunks(2) {
        match pair {
            [name, value] if name == "--cases" => cases = number(value)?,
            [name, value] if name == "--seed" => seed = number(value)?,
            [word, ..] => {
                return Err(format!("oracle does not know {word:?}; it takes --cases N and --seed N."));
            }
            [] => {}
        }
    }
    tree::need_root("oracle")?;
    debian::need(&[debian::BUILD, debian::DEMO, debian::TEST])?;
    build::programs()?;
    say::step(&format!("{cases} random policies, trees and requests, seed {seed}"));
    let mut suite = run::cargo(&["test", "--quiet", "--test", "oracle", "--", "--nocapture"]);
    suite.env("CELLWALL_ORACLE_CASES", cases.to_string()).env("CELLWALL_ORACLE_SEED", seed.to_string());
    run::aloud(&mut suite)
}

fn number(text: &str) -> Outcome<u32> {
    text.parse().map_err(|_| format!("{text:?} is no number."))
}

/// Any number will do that differs from run to run.
fn seconds() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs() % (1 << 31)).unwrap_or(0)
}
