//! What this machine cannot show: it is said, and `.ci/run` counts it at its end.

use std::io::{Write as _, stdout};

/// Says that a part of a test was left out, and why. Not by `println!`, of which nobody hears when the test passes.
pub(crate) fn not_shown(what: &str) {
    stdout().write_all(format!("\nnot shown here: {what}\n").as_bytes()).unwrap();
}
