//! Python packages that tests need and Debian has not.

use std::process::Command;

use crate::Outcome;
use crate::{debian, run, say, tree};

/// Installs what xtask/python.txt names, by version and hash, beneath the target directory; nothing else changes.
pub(crate) fn need() -> Outcome {
    let (place, list) = (tree::target().join("python"), tree::root().join("xtask/python.txt"));
    if place.join("flup-1.0.3.dist-info").is_dir() {
        return Ok(());
    }
    debian::need(&[&["python3-pip"]])?;
    say::step("Installing a FastCGI server for Python from PyPI");
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--target"]);
    run::quietly("pip install", pip.arg(place).arg("--requirement").arg(list))
}
