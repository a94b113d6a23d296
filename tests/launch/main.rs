//! The launcher alone: every wrong argument, state, path and identity, and what everybody is told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must say so loudly"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod arguments;
mod cells;
mod environment;
mod faults;
mod identity;
mod inherited;
mod paths;

mod records;
mod sinks;
