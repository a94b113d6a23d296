//! The daemon of this version says in words that there is none, and fails; its relay works already.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests do"
)]

mod programs;
mod relay;
mod stage;

use std::process::Command;

#[test]
fn the_daemon_says_that_it_is_not_there_and_what_to_use() {
    let output = Command::new(env!("CARGO_BIN_EXE_cellwalld")).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words.contains("nothing was started") && words.contains("FcgidWrapper"), "{words}");
}
