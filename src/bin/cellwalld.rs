//! `cellwalld`: will be the supervisor of FastCGI pools; in this version it says that it is not there.
#![allow(clippy::print_stderr, reason = "whoever starts the daemon must see why it ends")]

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("{}", cellwall::pool::ABSENT);
    ExitCode::FAILURE
}
