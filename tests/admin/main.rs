//! The administrator's questions: why, explain, run, fix, import.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must say so loudly"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod apply;
mod denials;
mod examples;
mod explain;
mod fix;
#[allow(dead_code, reason = "the daemon's own tests use the rest")]
#[path = "../pool/host.rs"]
mod host;
mod import;
mod json;
mod learn;
mod pools;
mod run;
mod said;
mod traffic;
mod why;
