//! `build`: the three release programs in target/dist, the launcher without any shared library.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::reproduce::cargo_home;
use crate::{debian, run, say, tree};

/// The setuid launcher.
pub(crate) const LAUNCHER: &str = "cellwall-suexec";
const OTHERS: [&str; 2] = ["cellwall", "cellwalld"];

/// Builds all three, and shows what cargo says.
pub(crate) fn programs() -> Outcome {
    debian::need(&[debian::BUILD])?;
    let musl = tree::musl();
    need_target(&musl)?;
    fetch(&musl)?;
    say::step("Building the launcher: static, without the administrator's code");
    run::aloud(&mut launcher(&musl, &tree::root(), &cargo_home()))?;
    say::step("Building the command and the daemon");
    run::aloud(&mut others(&tree::root(), &cargo_home()))?;
    say::step(&format!("The programs, in {}", tree::dist().display()));
    for program in collect(&musl)? {
        say::note(&program);
    }
    Ok(())
}

/// The same, in one line.
pub(crate) fn programs_quietly() -> Outcome {
    debian::need(&[debian::BUILD])?;
    let musl = tree::musl();
    need_target(&musl)?;
    say::step("Building the three programs");
    fetch(&musl)?;
    run::quietly("building the launcher", &mut launcher(&musl, &tree::root(), &cargo_home()))?;
    run::quietly("building the command and the daemon", &mut others(&tree::root(), &cargo_home()))?;
    collect(&musl).map(drop)
}

/// All crates are there before the names of their directories are looked at.
pub(crate) fn fetch(musl: &str) -> Outcome {
    run::quietly("cargo fetch", &mut run::cargo(&["fetch", "--locked", "--target", musl]))
}

/// The build of the launcher in `root`.
pub(crate) fn launcher(musl: &str, root: &Path, cargo_home: &Path) -> Command {
    let words = ["--profile", "launcher", "--bin", LAUNCHER, "--no-default-features", "--target", musl];
    anywhere(&words, root, cargo_home)
}

/// The build of the command and the daemon in `root`. Its profile has a directory of its own, for what else cargo builds of the
/// release is built with other flags.
fn others(root: &Path, cargo_home: &Path) -> Command {
    let words = ["--profile", "programs", "--bin", OTHERS[0], "--bin", OTHERS[1]];
    anywhere(&words, root, cargo_home)
}

/// Where `root` stands, and where cargo keeps crates, is not in the program: so it is the same bits for whoever builds it
/// (`cargo xtask reproduce`), and tells nothing of the machine.
fn anywhere(words: &[&str], root: &Path, cargo_home: &Path) -> Command {
    let mut command = run::cargo(&["build", "--locked"]);
    command.args(words);
    let rename = |place: &Path, name: &str| format!("--remap-path-prefix={}={name}", place.display());
    let mut flags = vec![rename(cargo_home, "/cargo"), rename(root, "/cellwall")];
    // Each registry, and each mirror of one, has a directory of its own; sources that bring their crates along have one, too.
    let registries = fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten();
    flags.extend(registries.filter_map(|entry| Some(rename(&entry.ok()?.path(), "/crates"))));
    flags.push(rename(&root.join("vendor"), "/crates"));
    // What is in RUSTFLAGS does not count: it would make another program.
    let flags = flags.join("\u{1f}");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags).current_dir(root);
    command
}

/// The launcher needs the target's standard library. With rustup that is one command, and we run it.
pub(crate) fn need_target(musl: &str) -> Outcome {
    let libraries = run::output(Command::new("rustc").args(["--print", "target-libdir", "--target", musl]))?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    say::step(&format!(
        "The Rust target {musl} is missing; the command that adds it: rustup target add {musl}"
    ));
    if !run::is_there("rustup") {
        return Err(format!(
            "rustup is not here, so the target cannot be added. Install your distribution's Rust library for {musl}, \
             or Rust from https://rustup.rs and then: rustup target add {musl}"
        ));
    }
    run::quietly("rustup target add", Command::new("rustup").args(["target", "add", musl]))
}

/// Puts them where they are looked for; answers a line on each.
fn collect(musl: &str) -> Outcome<Vec<String>> {
    let (target, dist) = (tree::target(), tree::dist());
    fs::create_dir_all(&dist).map_err(|why| format!("cannot make {}: {why}", dist.display()))?;
    let launcher = target.join(musl).join("launcher").join(LAUNCHER);
    if !is_static(&launcher)? {
        return Err(format!("{} asks for a dynamic loader; it must not.", launcher.display()));
    }
    let mut said = vec![take(&launcher, &dist, LAUNCHER, "static")?];
    for name in OTHERS {
        said.push(take(&target.join("programs").join(name), &dist, name, "")?);
    }
    Ok(said)
}

/// Copies by renaming, so that a program that runs right now is replaced and not overwritten.
fn take(from: &Path, dist: &Path, name: &str, remark: &str) -> Outcome<String> {
    let (fresh, to) = (dist.join(format!(".{name}")), dist.join(name));
    let bytes = fs::copy(from, &fresh).map_err(|why| format!("cannot copy {}: {why}", from.display()))?;
    fs::rename(&fresh, &to).map_err(|why| format!("cannot write {}: {why}", to.display()))?;
    Ok(format!("{name:16} {:7} KiB  {remark}", bytes.div_ceil(1024)).trim_end().to_owned())
}

/// A program without a `PT_INTERP` header is loaded by the kernel alone (elf(5)).
fn is_static(program: &Path) -> Outcome<bool> {
    let bytes = fs::read(program).map_err(|why| format!("cannot read {}: {why}", program.display()))?;
    let number = |at: usize, size: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        field.iter().rev().try_fold(0_usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)))
    };
    let headers = || -> Option<Vec<usize>> {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count).map(|index| number(table + index * size, 4)).collect()
    };
    const PT_INTERP: usize = 3;
    let headers = headers().ok_or_else(|| format!("{} is not a 64-bit program.", program.display()))?;
    Ok(!headers.contains(&PT_INTERP))
}
