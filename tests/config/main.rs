//! The administrator's files, and apply, check and policy over them: as root, each test in a mount namespace of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    missing_docs,
    reason = "tests say what is wrong by panicking"
)]

mod apply;
mod broken;
mod cage;
mod documents;
mod policy;
mod scale;
