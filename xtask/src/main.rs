//! The front door of the repository: `cargo xtask test|check`. It needs nothing but cargo.

mod check;
mod shell;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let word = std::env::args_os().nth(1);
    let done = match word.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("test") => test::run(),
        Some("check") => check::run(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str = "usage: cargo xtask test     every test, as root
       cargo xtask check    format, lints, documentation";
