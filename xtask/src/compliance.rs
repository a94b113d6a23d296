//! `compliance`: the same requests to Debian's suEXEC and to ours, as a table.

use std::collections::BTreeMap;
use std::process::Stdio;

use crate::Outcome;
use crate::{build, debian, run, say, tree};

/// Runs the suite and shows the cases by group, and each difference with its number of cases and its reason.
pub(crate) fn table() -> Outcome {
    tree::need_root("compliance")?;
    debian::need(&[debian::BUILD, debian::DEMO, debian::TEST])?;
    build::programs_quietly()?;
    say::step("The same requests to stock suEXEC and to Cellwall, each on fresh users and trees");
    let mut suite = run::cargo(&["test", "--quiet", "--test", "compliance", "--", "--nocapture"]);
    let output = suite.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|why| format!("cannot start cargo: {why}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("A difference is not listed, or a listed one is gone:\n{said}"));
    }
    let table = Table::read(&said);
    if table.groups.is_empty() {
        return Err("The suite told of no group.".to_owned());
    }
    print!("{}", table.show());
    Ok(())
}

/// What the groups of cases told.
#[derive(Default)]
struct Table {
    /// Name, cases, cases with a difference of their own.
    groups: BTreeMap<String, (usize, usize)>,
    /// Identifier; cases that show it, and its reason.
    differences: BTreeMap<String, (usize, String)>,
    /// Identifier and reason of what differs in every run or in every refusal.
    always: BTreeMap<String, String>,
}

impl Table {
    fn read(said: &str) -> Self {
        let mut table = Self::default();
        for line in said.lines().filter_map(|line| line.strip_prefix("compliance ")) {
            let words: Vec<&str> = line.split(';').collect();
            let number = |word: &str| word.parse::<usize>().unwrap_or(0);
            match words.as_slice() {
                ["group", name, cases, different] => {
                    table.groups.insert((*name).to_owned(), (number(cases), number(different)));
                }
                ["difference", name, count, reason] => {
                    let known = table.differences.entry((*name).to_owned()).or_default();
                    *known = (known.0 + number(count), (*reason).to_owned());
                }
                ["always", name, reason] => {
                    table.always.insert((*name).to_owned(), (*reason).to_owned());
                }
                _ => {}
            }
        }
        table
    }

    fn show(&self) -> String {
        let mut text = format!("    {:<22} {:>6} {:>6} {:>10}\n", "group", "cases", "same", "different");
        let (mut cases, mut different) = (0, 0);
        for (name, (all, own)) in &self.groups {
            text.push_str(&format!("    {name:<22} {all:>6} {:>6} {own:>10}\n", all - own));
            (cases, different) = (cases + all, different + own);
        }
        text.push_str(&format!(
            "    {:<22} {cases:>6} {:>6} {different:>10}\n",
            "together",
            cases - different
        ));
        text.push_str("\n    cases  difference              reason (docs/differences.md has more)\n");
        for (name, (count, reason)) in &self.differences {
            text.push_str(&format!("    {count:>5}  {name:<23} {reason}\n"));
        }
        for (name, reason) in self.always.iter().filter(|(name, _)| !self.differences.contains_key(*name)) {
            text.push_str(&format!("      all  {name:<23} {reason}\n"));
        }
        text.push_str("\nEvery difference is listed, and each listed one was seen.\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn groups_and_differences_are_summed_up() {
        let table = Table::read(
            "test x ... \ncompliance group;paths;10;2\ncompliance group;programs;5;1\n\
             compliance difference;site;2;why\ncompliance difference;site;1;why\ncompliance always;page;because\n",
        );
        let shown = table.show();
        assert!(shown.contains("together                   15     12          3\n"), "{shown}");
        assert!(shown.contains("    3  site                    why\n"), "{shown}");
        assert!(shown.contains("  all  page                    because\n"), "{shown}");
    }
}
