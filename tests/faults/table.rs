//! The figures: what came of which call.

use std::collections::BTreeMap;

use crate::tracer::Change;

/// Counts of one scene.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, Row>,
    /// By call and what was wrong: the changes, and the whole story of the first.
    violations: BTreeMap<(String, String), (Vec<String>, String)>,
}

#[derive(Debug, Default)]
struct Row {
    calls: usize,
    cells: usize,
    ends: BTreeMap<String, usize>,
}

impl Table {
    /// One more call of the launch.
    pub(crate) fn call(&mut self, name: &str) {
        self.rows.entry(name.to_owned()).or_default().calls += 1;
    }

    /// One more cell, and the word of what came of it.
    pub(crate) fn cell(&mut self, name: &str, word: &str) {
        let row = self.rows.entry(name.to_owned()).or_default();
        row.cells += 1;
        *row.ends.entry(word.to_owned()).or_default() += 1;
    }

    /// One more cell, and what was not as it must be.
    pub(crate) fn violation(&mut self, name: &str, call: &str, change: Change, why: String) {
        let sort = why.lines().next().unwrap_or_default().to_owned();
        let found = self.violations.entry((call.to_owned(), sort)).or_insert((Vec::new(), why));
        found.0.push(format!("{change:?}"));
        self.cell(name, "VIOLATION");
    }

    /// How many cells there were.
    pub(crate) fn cells(&self) -> usize {
        self.rows.values().map(|row| row.cells).sum()
    }

    /// How many cells ended in this word.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.rows.values().filter_map(|row| row.ends.get(word)).sum()
    }

    /// What was not allowed, for people.
    pub(crate) fn violations(&self) -> Vec<String> {
        let all = self.violations.iter();
        all.map(|((call, _), (changes, story))| format!("{call}: {}: {story}", changes.join(" "))).collect()
    }

    /// A row for each call, and the sum in a line that programs can read.
    pub(crate) fn print(&self, scene: &str, earlier: usize) {
        let mut text = String::new();
        let (mut calls, mut cells) = (0, 0);
        for (name, row) in &self.rows {
            let ends: Vec<String> = row.ends.iter().map(|(word, count)| format!("{word} {count}")).collect();
            text += &format!(
                "  {name:<24} {:>3} calls {:>5} cells   {}\n",
                row.calls,
                row.cells,
                ends.join(", ")
            );
            calls += row.calls;
            cells += row.cells;
        }
        let narrower = self.count("narrower");
        let (ran, unrecorded, dead) = (self.count("ran"), self.count("unrecorded"), self.count("dead"));
        let (starved, violations) = (self.count("no memory"), self.count("VIOLATION"));
        let refused = cells - ran - narrower - unrecorded - starved - dead - violations;
        println!(
            "{text}faults: scene=\"{scene}\" calls={calls} cells={cells} ran={ran} narrower={narrower} refused={refused} \
             unrecorded={unrecorded} starved={starved} dead={dead} violations={violations} earlier={earlier}"
        );
    }
}
