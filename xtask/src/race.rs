//! `race`: the attack suite's races for as long as is wanted, with their figures.

use crate::Outcome;
use crate::{build, debian, run, say, tree};

/// Races in tests/attacks that run one after the other, each in both kinds of jail, and the hunt.
const RACES: u64 = 16;

/// `--minutes N`: all of them together.
pub(crate) fn run(options: &[String]) -> Outcome {
    let minutes: u64 = match options {
        [] => 10,
        [word, number] if word == "--minutes" => {
            number.parse().map_err(|_| format!("--minutes takes a number, and got {number:?}."))?
        }
        _ => return Err("race takes --minutes N and nothing else.".to_owned()),
    };
    tree::need_root("race")?;
    debian::need(&[debian::BUILD, debian::DEMO, debian::TEST])?;
    build::programs()?;
    let seconds = (minutes * 60 / RACES).max(2);
    say::step(&format!("{RACES} races of {seconds} seconds each"));
    let words = ["test", "--test", "attacks", "--", "--nocapture", "--test-threads=1", "race::", "inh_22"];
    run::aloud(run::cargo(&words).env("CELLWALL_RACE_SECONDS", seconds.to_string()))
}
