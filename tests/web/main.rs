//! End to end: a real Apache, the launcher behind it, programs of several owners.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must say so loudly"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod classic;
mod debian;
mod errors;
mod fcgid;
#[allow(dead_code, reason = "the daemon's own tests use the rest")]
#[path = "../pool/host.rs"]
mod host;
mod languages;
mod load;
mod pages;
mod php;
mod requests;
#[allow(dead_code, reason = "that a message arrives is asked by the jail's own tests")]
#[path = "../jail/sink.rs"]
mod sink;
mod walls;
