//! `check`: all that is not a test: format, lints, licences and advisories, rules of the house, documentation.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::machine::Machine;
use crate::{build, debian, run, say, tree};

/// The version that deny.toml is written for.
const DENY: &str = "0.20.2";

/// Every check, in the order of their speed. The first one that fails ends it.
pub(crate) fn everything() -> Outcome {
    debian::need(&[debian::BUILD, debian::CHECK])?;
    say::step("Format");
    run::aloud(&mut run::cargo(&["fmt", "--all", "--check"]))?;
    say::step("Lints: everything");
    let strict = ["--", "-D", "warnings"];
    run::aloud(run::cargo(&["clippy", "--workspace", "--all-targets"]).args(strict))?;
    say::step("Lints: the launcher alone, as it is built for installation");
    let musl = Machine::own()?.musl();
    build::need_target(&musl)?;
    let launcher = ["clippy", "--no-default-features", "--bin", build::LAUNCHER, "--target", &musl];
    run::aloud(run::cargo(&launcher).args(strict))?;
    say::step("Rules of the house");
    run::aloud(&mut run::cargo(&["test", "--quiet", "--test", "tidy"]))?;
    say::step("Manual pages");
    manual()?;
    say::step("Documentation");
    run::aloud(run::cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    let left_out = dependencies()?;
    say::step("Result");
    if let Some(what) = left_out {
        say::notice(&what);
    }
    println!("all checks passed");
    Ok(())
}

/// What groff has to say about the pages, which must be nothing.
fn manual() -> Outcome {
    let directory = tree::root().join("docs/man");
    let pages = fs::read_dir(&directory).map_err(|why| format!("{}: {why}", directory.display()))?;
    let pages: Vec<PathBuf> = pages.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let mut groff = Command::new("groff");
    groff.args(["-man", "-ww", "-z"]).args(&pages).stdin(Stdio::null());
    say::note(&format!("$ groff -man -ww -z {}/*", directory.display()));
    let output = groff.output().map_err(|why| format!("cannot start groff: {why}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.is_empty() { Ok(()) } else { Err(format!("groff has remarks:\n{said}")) }
}

/// cargo-deny. Answers what could not be checked, if anything.
fn dependencies() -> Outcome<Option<String>> {
    if !is_deny_there() {
        say::step(&format!(
            "cargo-deny is missing; building it takes some minutes: cargo install cargo-deny {DENY}"
        ));
        let words = ["install", "cargo-deny", "--locked", "--no-default-features", "--version", DENY];
        let mut install = run::cargo(&words);
        // It runs for seconds: a build without optimisation is ready in a third of the time.
        for (name, value) in [("LTO", "off"), ("OPT_LEVEL", "0"), ("CODEGEN_UNITS", "256"), ("DEBUG", "0")] {
            install.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
        }
        run::quietly("cargo install cargo-deny", &mut install)?;
    }
    say::step("Dependencies: licences, bans, sources");
    run::aloud(&mut run::cargo(&["deny", "--workspace", "check", "licenses", "bans", "sources"]))?;
    say::step("Dependencies: advisories");
    if let Err(why) = run::quietly("cargo deny fetch", &mut run::cargo(&["deny", "fetch", "db"])) {
        say::note(&why);
        let advice = "Advisories were NOT checked: their database could not be fetched (github.com). \
                      With a network, run: cargo deny check advisories";
        return Ok(Some(advice.to_owned()));
    }
    run::aloud(&mut run::cargo(&["deny", "--workspace", "check", "advisories"]))?;
    Ok(None)
}

fn is_deny_there() -> bool {
    let mut command: Command = run::cargo(&["deny", "--version"]);
    run::output(&mut command).is_ok_and(|said| said.starts_with("cargo-deny"))
}
