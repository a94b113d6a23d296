//! `bench`: builds, installs what is measured against, and runs one benchmark.

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
    run::aloud(run::cargo(&["bench", "--bench", name]).arg("--").args(more))
}
