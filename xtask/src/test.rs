//! `test`: everything, on a bare machine, as root.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::{build, debian, left, python, run, say, tree};

/// Runs every test of the workspace; further words go to cargo.
pub(crate) fn everything(options: &[String]) -> Outcome {
    tree::need_root("test")?;
    debian::need(&[debian::BUILD, debian::PACKAGE, debian::RPM, debian::DEMO, debian::TEST])?;
    python::need()?;
    build::programs()?;
    say::step("Compiling the tests");
    run::aloud(run::cargo(&["test", "--workspace", "--no-run"]).args(options))?;
    say::step("Running the tests");
    let before = left::behind();
    let mut tally = count(run::cargo(&["test", "--workspace", "--no-fail-fast"]).args(options))?;
    tally.left = left::behind().difference(&before).map(|path| path.display().to_string()).collect();
    tally.report()
}

/// What all test programs said together.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    names: Vec<String>,
    /// What failed tests said, with their names.
    said: Vec<String>,
    /// So many lines that come are still those of a failed test.
    room: usize,
    /// What stays behind of a test or of its program.
    left: Vec<String>,
    good_end: bool,
}

impl Tally {
    /// Adds one line of a test program's output.
    fn add(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.names.push(name.to_owned());
        }
        self.listen(line);
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.1.split(';') {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Keeps what a failed test said, which is thousands of lines above the end by then: without the way its program took there.
    fn listen(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.room = MOST;
        } else if ["stack backtrace:", "failures:", "test result: "].iter().any(|word| line.starts_with(word))
        {
            self.room = 0;
        }
        if self.room > 0 && !line.trim().is_empty() {
            self.room -= 1;
            self.said.push(line.to_owned());
        }
    }

    /// The last lines: what failed, and why, and the sum alone on a line.
    fn report(mut self) -> Outcome {
        say::step("Result");
        for name in &self.names {
            say::note(&format!("failed: {name}"));
        }
        for line in &self.said {
            say::note(line);
        }
        if !self.good_end && self.failed == 0 {
            say::notice("A test program died, or did not compile; see above. It counts as one failure.");
            self.failed = 1;
        }
        for path in &self.left {
            say::note(&format!("left behind: {path}"));
        }
        if !self.left.is_empty() {
            say::notice("The tests should leave nothing behind. It counts as one failure.");
            self.failed += 1;
        }
        if self.passed + self.failed == 0 {
            say::notice("No test ran.");
            self.failed = 1;
        }
        if self.ignored > 0 {
            say::notice(&format!("{} tests are marked as ignored and did not run.", self.ignored));
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 { Ok(()) } else { Err("There are failures.".to_owned()) }
    }
}

/// Lines of one test that the end repeats.
const MOST: usize = 40;

fn count(command: &mut Command) -> Outcome<Tally> {
    say::note(&format!("$ {}", run::words(command)));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start cargo: {why}"))?;
    let mut tally = Tally::default();
    let stdout = child.stdout.take().ok_or("cargo has no output")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.map_err(|why| format!("cannot read what cargo says: {why}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait().map_err(|why| format!("cannot wait for cargo: {why}"))?;
    tally.good_end = status.success();
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_sum_is_over_all_test_programs() {
        let mut tally = Tally::default();
        for line in [
            "test a ... ok",
            "test b::c ... FAILED",
            "failures:",
            "---- b::c stdout ----",
            "",
            "thread 'b::c' (7) panicked at tests/b.rs:1:1:",
            "it is not so",
            "stack backtrace:",
            "   0: somewhere",
            "failures:",
            "    b::c",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            tally.add(line);
        }
        assert_eq!((tally.passed, tally.failed, tally.ignored), (42, 1, 2));
        assert_eq!(tally.names, ["b::c"]);
        let said = ["---- b::c stdout ----", "thread 'b::c' (7) panicked at tests/b.rs:1:1:", "it is not so"];
        assert_eq!(tally.said, said);
    }

    #[test]
    fn what_stays_behind_is_a_failure() {
        let tally = |left| Tally { passed: 5, good_end: true, left, ..Tally::default() };
        assert!(tally(Vec::new()).report().is_ok());
        assert!(tally(vec!["/tmp/x".to_owned()]).report().is_err());
    }

    #[test]
    fn a_test_program_that_dies_is_a_failure() {
        let tally = Tally { passed: 5, ..Tally::default() };
        assert!(tally.report().is_err());
    }
}
