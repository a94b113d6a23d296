//! Views: scripts that use what scripts use, in a cell that holds nothing but what its profile and pieces list.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must say so loudly"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod check;
mod chroot;
mod deploy;
mod entries;
mod outer;
mod pieces;
mod profiles;
mod sink;
mod volumes;
