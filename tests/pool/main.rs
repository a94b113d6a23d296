//! The pool: the relay on a stage, and the daemon with real web servers and real workers.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests do"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod accidents;
mod authorizer;
mod behind;
mod clients;
mod daemon;
mod edges;
mod faults;
#[allow(dead_code, reason = "shared by the tests of this binary")]
mod host;
mod knocks;
mod large;
mod late;
mod limits;
mod mistakes;
mod moves;
mod programs;
mod pulse;
mod reach;
mod relay;
mod renewal;
mod restart;
mod reuse;
mod rows;
mod servers;
mod slow;
mod stage;
mod storms;
mod supervisor;
mod urls;
mod web;
mod wishes;
mod workers;
mod zygotes;
