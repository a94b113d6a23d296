//! `cargo xtask test`: every test, as root.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::shell::is_root;

/// Runs the whole suite and prints the sum of all test binaries as the last line.
///
/// # Errors
/// When not root, when a test fails, when no test ran.
pub fn run() -> Result<(), String> {
    if !is_root()? {
        return Err(
            "the tests make users, mounts and set-id programs: run `sudo cargo xtask test`".to_owned()
        );
    }
    println!("xtask: cargo test --workspace --no-fail-fast");
    let mut cargo = Command::new("cargo")
        .args(["test", "--workspace", "--no-fail-fast"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cargo: {why}"))?;
    let (mut passed, mut failed) = (0, 0);
    if let Some(out) = cargo.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            println!("{line}");
            passed += count(&line, " passed");
            failed += count(&line, " failed");
        }
    }
    let status = cargo.wait().map_err(|why| format!("cargo: {why}"))?;
    println!("{passed} passed, {failed} failed");
    if status.success() && passed > 0 { Ok(()) } else { Err("the tests did not pass".to_owned()) }
}

/// The number before `word` in a line `test result: ok. 7 passed; 0 failed; …`.
fn count(line: &str, word: &str) -> u32 {
    if !line.starts_with("test result:") {
        return 0;
    }
    line.split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(word.trim()))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}
