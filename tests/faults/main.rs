//! One thing goes wrong: a system call fails, is cut short or never returns, or there is no memory. Whatever it is, a
//! launch is whole or nothing runs.
#![cfg(all(feature = "admin", target_arch = "x86_64"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    reason = "a test that cannot go on must say so loudly, and its figures are what it is for"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod calls;
mod done;
mod errors;
mod judge;
mod kills;
mod memory;
mod scenes;
mod table;
mod tracer;
