//! `bench`: builds, installs what is measured against, and runs one benchmark.

use std::process::Command;

use crate::Outcome;
use crate::{build, debian, run, say, tree};

/// Runs `cargo bench --bench NAME`; the words after NAME go to the benchmark.
pub(crate) fn run(options: &[String]) -> Outcome {
    let (name, more) = match options.split_first() {
        Some((name, more)) => (name.as_str(), more),
        None => ("launch", options),
    };
    if !tree::root().join("benches").join(format!("{name}.rs")).is_file() {
        return Err(format!("There is no benchmark {name:?}; `ls benches` shows them."));
    }
    tree::need_root(&format!("bench {name}"))?;
    let peers: &[&str] = if name == "pool" { debian::BENCH } else { &[] };
    debian::need(&[debian::BUILD, debian::DEMO, debian::TEST, peers])?;
    build::programs()?;
    say::step(&format!("Measuring: {name}"));
    run::aloud(alone(&run::cargo(&["bench", "--bench", name])).arg("--").args(more))
}

/// The command in a space of process numbers of its own (pid_namespaces(7)): an interrupt ends cargo in it, which is its first
/// process, and the kernel ends the web servers and daemons with that, though they have sessions of their own.
fn alone(command: &Command) -> Command {
    let mut alone = Command::new("unshare");
    alone.args(["--mount", "--mount-proc", "--pid", "--fork", "--kill-child", "--"]);
    alone.arg(command.get_program()).args(command.get_args()).current_dir(tree::root());
    alone
}
