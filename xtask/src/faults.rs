//! `faults`: every system call of every kind of launch fails once, in every way that fits it; and what came of it, by
//! call and by the stage that said no. A run that was stopped is gone on with: tests/faults/done.rs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::Outcome;
use crate::{build, debian, run, say, tree};

/// Runs all cells and shows the table.
pub(crate) fn all() -> Outcome {
    tree::need_root("faults")?;
    debian::need(&[debian::BUILD, debian::DEMO, debian::TEST])?;
    build::programs()?;
    say::step(
        "Every system call of a launch fails once, in every way: an hour or more. It may be stopped; the next run goes on",
    );
    let mut suite = run::cargo(&["test", "--quiet", "--test", "faults", "--", "--nocapture"]);
    suite.args(["--test-threads", "4"]).env("CELLWALL_FAULTS", "all");
    let mut child = suite
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start cargo: {why}"))?;
    let mut table = Table::default();
    let stdout = child.stdout.take().ok_or("cargo has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|why| format!("cannot read what the suite says: {why}"))?;
        if let Some(place) = line.find("faults: ") {
            say::note(&line[place..]);
        }
        table.add(&line);
    }
    let status = child.wait().map_err(|why| format!("cannot wait for the suite: {why}"))?;
    print!("{}", table.show());
    if status.success() {
        Ok(())
    } else {
        Err("There are violations, or the suite failed; see above.".to_owned())
    }
}

/// What the suite told of all scenes.
#[derive(Default)]
struct Table {
    /// By call: how often each outcome was seen.
    calls: BTreeMap<String, BTreeMap<&'static str, u64>>,
    sums: BTreeMap<String, u64>,
}

/// The outcomes, in the order of a launch.
const COLUMNS: [&str; 10] =
    ["dead", "arrival", "policy", "confine", "drop", "verify", "equip+seal", "log", "ran", "violation"];

impl Table {
    fn add(&mut self, line: &str) {
        if let Some((_, words)) = line.split_once("faults: ") {
            for (name, number) in words.split(' ').filter_map(|word| word.split_once('=')) {
                *self.sums.entry(name.to_owned()).or_default() += number.parse().unwrap_or(0);
            }
        }
        let Some((name, rest)) = line.rsplit_once(" calls ").and_then(|(before, rest)| {
            let before = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
            Some((before.split(' ').next_back()?.to_owned(), rest))
        }) else {
            return;
        };
        let ends = rest.split_once(" cells ").map_or("", |parts| parts.1);
        let row = self.calls.entry(name).or_default();
        for (word, count) in ends.split(',').filter_map(|end| end.trim().rsplit_once(' ')) {
            *row.entry(column(word)).or_default() += count.parse().unwrap_or(0);
        }
    }

    fn show(&self) -> String {
        let mut text = format!("\n    {:<24}", "call");
        let line = |name: &str, row: &BTreeMap<&'static str, u64>| {
            let numbers = COLUMNS.map(|column| row.get(column).map_or("·".to_owned(), u64::to_string));
            let numbers: Vec<String> =
                numbers.iter().zip(COLUMNS).map(|(number, column)| pad(number, column)).collect();
            format!("    {name:<24}{}\n", numbers.concat())
        };
        text.push_str(&COLUMNS.map(|column| pad(column, column)).concat());
        text.push('\n');
        let mut together: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (name, row) in self.calls.iter().filter(|(_, row)| !row.is_empty()) {
            text.push_str(&line(name, row));
            row.iter().for_each(|(column, count)| *together.entry(column).or_default() += count);
        }
        text.push_str(&line("together", &together));
        let sum = |name: &str| self.sums.get(name).copied().unwrap_or(0);
        text.push_str(&format!(
            "\n{} cells ({} of them in an earlier run) over {} calls, {} violations; killed at {} calls; {} launches without memory\n",
            sum("cells"),
            sum("earlier"),
            sum("calls"),
            sum("violations"),
            sum("kills"),
            sum("starved_from") + sum("limits")
        ));
        text
    }
}

fn pad(text: &str, column: &str) -> String {
    let width = column.len().max(6) + 2;
    format!("{text:>width$}")
}

/// The letter of a code is that of its stage.
fn column(word: &str) -> &'static str {
    match word {
        "ran" | "narrower" => "ran",
        "dead" | "no memory" => "dead",
        "unrecorded" => "log",
        "VIOLATION" => "violation",
        code => match code.as_bytes().first() {
            Some(b'A' | b'R') => "arrival",
            Some(b'P') => "policy",
            Some(b'C') => "confine",
            Some(b'D') => "drop",
            Some(b'V') => "verify",
            Some(b'L') => "log",
            _ => "equip+seal",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn scenes_are_summed_up_by_call_and_stage() {
        let mut table = Table::default();
        for line in [
            "test a ...   capget    2 calls    16 cells   C03 8, D01 8",
            "  capget    2 calls    17 cells   C03 8, ran 9",
            "faults: scene=\"host\" calls=4 cells=33 ran=9 violations=0 earlier=7",
        ] {
            table.add(line);
        }
        let shown = table.show();
        let row = shown.lines().find(|line| line.trim().starts_with("capget")).unwrap_or_default();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["capget", "·", "·", "·", "16", "8", "·", "·", "·", "9", "·"], "{shown}");
        assert!(
            shown.contains("\n33 cells (7 of them in an earlier run) over 4 calls, 0 violations;"),
            "{shown}"
        );
    }
}
