//! `cargo xtask check`: what a machine can say about the source without running it.

use crate::shell;

/// Format, lints of every target and of the launcher alone, documentation.
///
/// # Errors
/// The first check that fails.
pub fn run() -> Result<(), String> {
    shell::run("cargo", &["fmt", "--all", "--check"])?;
    shell::run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    shell::run(
        "cargo",
        &["clippy", "--bin", "cellwall-suexec", "--no-default-features", "--", "-D", "warnings"],
    )?;
    shell::run("cargo", &["doc", "--no-deps", "--quiet"])
}
