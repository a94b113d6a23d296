//! `fuzz` and `miri`: the entry points of fuzz/ with libFuzzer, and some of them under Miri. Both need a nightly compiler.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::{debian, run, say, tree};

/// The processor alone: what Miri takes in a minute. The others start no system call that Miri does not know, but take long.
const UNDER_MIRI: [&str; 4] = ["a_policy_record", "words_and_variables", "a_first_line", "foreign_text"];

/// `--minutes N` for all targets together.
pub(crate) fn command(options: &[String]) -> Outcome {
    let minutes: u64 = match options {
        [] => 5,
        [name, number] if name == "--minutes" => {
            number.parse().map_err(|_| format!("--minutes needs a number, and got {number:?}."))?
        }
        _ => return Err("fuzz takes --minutes N, for all targets together.".to_owned()),
    };
    tree::need_root("fuzz")?;
    debian::need(&[debian::BUILD, debian::FUZZ])?;
    need_tools()?;
    say::step("Building the targets");
    run::aloud(&mut fuzz("build"))?;
    let targets = targets()?;
    let count = u64::try_from(targets.len()).unwrap_or(1).max(1);
    let seconds = (minutes.saturating_mul(60) / count).max(1);
    say::step(&format!("{count} targets, {seconds} s each"));
    let mut crashes = 0;
    for target in &targets {
        let end = one(target, seconds)?;
        crashes += end.crashes.len();
        println!("    {target:<16} {:>12} executions {:>4} crashes", end.executions, end.crashes.len());
        for crash in &end.crashes {
            say::note(&format!("{}; again: cargo +nightly fuzz run {target} {0}", crash.display()));
        }
    }
    if crashes == 0 { Ok(()) } else { Err(format!("{crashes} inputs break what must hold.")) }
}

/// The decoder, the environment and what else is pure, with every access to memory checked.
pub(crate) fn miri() -> Outcome {
    let is_there = nightly(&["miri", "--version"]).output().is_ok_and(|said| said.status.success());
    if !is_there {
        return Err(
            "Miri is missing. Run: rustup toolchain install nightly --component miri,rust-src".to_owned()
        );
    }
    say::step("Miri: seeds and a few changed ones");
    let mut test = nightly(&["miri", "test", "--test", "fuzz", "--"]);
    test.args(UNDER_MIRI)
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("CARGO_TARGET_DIR", tree::target().join("miri"));
    run::aloud(&mut test)
}

/// How a target ended.
struct End {
    executions: u64,
    crashes: Vec<PathBuf>,
}

/// Runs a target. What it finds on its way grows a corpus in target/, the seeds stay as they are.
fn one(target: &str, seconds: u64) -> Outcome<End> {
    let place = tree::target().join("fuzz").join(target);
    let (found, crashes) = (place.join("corpus"), place.join("crashes"));
    drop(fs::remove_dir_all(&crashes));
    for directory in [&found, &crashes] {
        fs::create_dir_all(directory).map_err(|why| format!("cannot make {}: {why}", directory.display()))?;
    }
    let log = place.join("log");
    let file = File::create(&log).map_err(|why| format!("cannot write {}: {why}", log.display()))?;
    let mut command = fuzz("run");
    command.arg(target).arg(&found).arg(tree::root().join("fuzz/corpus").join(target)).arg("--");
    command.arg(format!("-max_total_time={seconds}")).args(["-print_final_stats=1", "-timeout=20"]);
    command.arg(format!("-artifact_prefix={}/", crashes.display()));
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).status();
    let status = status.map_err(|why| format!("cannot start cargo fuzz: {why}"))?;
    let said = fs::read(&log).unwrap_or_default();
    let executions = executions(&String::from_utf8_lossy(&said));
    let crashes: Vec<PathBuf> = fs::read_dir(&crashes)
        .map_err(|why| format!("{}: {why}", crashes.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    if executions == 0 || !status.success() && crashes.is_empty() {
        return Err(format!("{target} did not run to its end ({status}); see {}", log.display()));
    }
    Ok(End { executions, crashes })
}

/// What libFuzzer counts.
fn executions(said: &str) -> u64 {
    let number = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    said.lines().find_map(number).unwrap_or(0)
}

/// The files of fuzz/fuzz_targets.
fn targets() -> Outcome<Vec<String>> {
    let directory = tree::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).map_err(|why| format!("{}: {why}", directory.display()))?;
    let names =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".rs")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// Says which command brings what is missing.
fn need_tools() -> Outcome {
    let libraries = run::output(nightly_program("rustc").args(["--print", "target-libdir"]))?;
    if libraries.trim().is_empty() {
        return Err("A nightly compiler is needed. Run: rustup toolchain install nightly --profile minimal"
            .to_owned());
    }
    let sanitizer = |name: &str| name.contains("rt.asan");
    let names =
        fs::read_dir(Path::new(libraries.trim())).map_err(|why| format!("{}: {why}", libraries.trim()))?;
    if !names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).any(|name| sanitizer(&name)) {
        return Err(format!(
            "The nightly compiler has no AddressSanitizer for this machine ({}). Run: rustup toolchain install nightly \
             --profile minimal",
            libraries.trim()
        ));
    }
    if nightly(&["fuzz", "--version"]).output().is_ok_and(|said| said.status.success()) {
        return Ok(());
    }
    Err("cargo-fuzz is missing. Run: cargo install cargo-fuzz --locked".to_owned())
}

fn fuzz(verb: &str) -> Command {
    let mut command = nightly(&["fuzz", verb, "--fuzz-dir"]);
    command.arg(tree::root().join("fuzz"));
    command
}

fn nightly(words: &[&str]) -> Command {
    let mut command = nightly_program("cargo");
    command.args(words);
    command
}

/// A program of the nightly toolchain. What the outer cargo says of itself is not for the inner one.
fn nightly_program(name: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", name]).current_dir(tree::root());
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::executions;

    #[test]
    fn executions_are_libfuzzers_own_count() {
        let said = "#2 INITED\nstat::number_of_executed_units: 12222\nstat::average_exec_per_sec:     90\n";
        assert_eq!(executions(said), 12222);
        assert_eq!(executions("error: no such target"), 0);
    }
}
