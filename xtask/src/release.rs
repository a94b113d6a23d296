//! `release`: tests on a Debian of its own, another release if one is named, with its servers and interpreters; on this machine's
//! kernel.

use std::process::Command;

use crate::Outcome;
use crate::lab::Lab;
use crate::{debian, run, say, tree};

/// What runs unless something is named: all that starts programs of the distribution's.
const USUAL: [&str; 8] = ["launch", "jail", "attacks", "seccomp", "apps", "web", "admin", "pool"];

/// `release [--debian RELEASE] [--built] [TEST [WORDS]]`
pub(crate) fn command(words: &[String]) -> Outcome {
    tree::need_root("release")?;
    let options = debian::options(words)?;
    options.debian.runs_here()?;
    let lab = Lab::of(&options, &USUAL)?;
    say::step("The tests, on that Debian");
    let mut command = Command::new("unshare");
    command.args(["--kill-child", "--fork", "--pid", "--mount", "--uts", "--ipc", "sh"]);
    command.arg(tree::root().join("tests/kernel/enter.sh")).args([&lab.base, &lab.said]);
    run::quietly("the tests", &mut command)?;
    lab.report()
}
