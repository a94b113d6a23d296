//! Runs commands, and says which.

use std::process::Command;

/// Runs a command in the foreground.
///
/// # Errors
/// When it cannot start, or ends with another status than 0.
pub fn run(program: &str, words: &[&str]) -> Result<(), String> {
    println!("xtask: {program} {}", words.join(" "));
    let status = Command::new(program).args(words).status().map_err(|why| format!("{program}: {why}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} {}: {status}", words.join(" "))) }
}

/// Are we root? The tests make users, mounts and set-id programs.
pub fn is_root() -> Result<bool, String> {
    let out = Command::new("id").arg("-u").output().map_err(|why| format!("id: {why}"))?;
    Ok(out.stdout.trim_ascii() == b"0")
}
