//! Attacks on the launcher, one file for each group of the catalogue in rows.txt; a test's name begins with its rows.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on must say so loudly, and a race tells its figures"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod arg;
mod cmp;
mod dos;
mod env;
#[allow(dead_code, reason = "the daemon's own tests use the rest")]
#[path = "../pool/host.rs"]
mod host;
mod idn;
mod inh;
mod jail;
mod leak;
mod llk;
mod log;
mod pol;
mod promise;
mod pth;
mod race;
