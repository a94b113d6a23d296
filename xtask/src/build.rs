//! `build`: the three release programs in target/dist, the launcher without any shared library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::machine::Machine;
use crate::reproduce::cargo_home;
use crate::{debian, run, say, tree};

/// The setuid launcher.
pub(crate) const LAUNCHER: &str = "cellwall-suexec";
const OTHERS: [&str; 2] = ["cellwall", "cellwalld"];

/// Builds all three, and shows what cargo says.
pub(crate) fn programs() -> Outcome {
    debian::need(&[debian::BUILD])?;
    let machine = Machine::own()?;
    let musl = machine.musl();
    need_target(&musl)?;
    fetch(&musl)?;
    say::step("Building the launcher: static, without the administrator's code");
    run::aloud(&mut launcher(&musl, &tree::root(), &cargo_home()))?;
    say::step("Building the command and the daemon");
    run::aloud(&mut others(machine, &tree::root(), &cargo_home()))?;
    say::step(&format!("The programs, in {}", tree::dist().display()));
    for program in collect(machine)? {
        say::note(&program);
    }
    Ok(())
}

/// The same, in one line.
pub(crate) fn programs_quietly() -> Outcome {
    debian::need(&[debian::BUILD])?;
    let machine = Machine::own()?;
    let musl = machine.musl();
    need_target(&musl)?;
    say::step("Building the three programs");
    fetch(&musl)?;
    run::quietly("building the launcher", &mut launcher(&musl, &tree::root(), &cargo_home()))?;
    run::quietly("building the command and the daemon", &mut others(machine, &tree::root(), &cargo_home()))?;
    collect(machine).map(drop)
}

/// All crates are there before the names of their directories are looked at.
pub(crate) fn fetch(musl: &str) -> Outcome {
    run::quietly("cargo fetch", &mut run::cargo(&["fetch", "--locked", "--target", musl]))
}

/// The build of the launcher in `root`.
pub(crate) fn launcher(musl: &str, root: &Path, cargo_home: &Path) -> Command {
    let words = ["--profile", "launcher", "--bin", LAUNCHER, "--no-default-features", "--target", musl];
    let mut command = run::cargo(&["build", "--locked"]);
    anywhere(command.args(words), root, cargo_home);
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", root.join("xtask/static-pie.sh"));
    command
}

/// The build of the command and the daemon in `root`. Its profile has a directory of its own, for what else cargo builds of the
/// release is built with other flags.
fn others(machine: &Machine, root: &Path, cargo_home: &Path) -> Command {
    let mut command = machine.cargo(&["build", "--locked"]);
    command.args(["--profile", "programs", "--bin", OTHERS[0], "--bin", OTHERS[1]]);
    anywhere(&mut command, root, cargo_home);
    command
}

/// Where `root` stands, and where cargo keeps crates, is not in the program: so it is the same bits for whoever builds it
/// (`cargo xtask reproduce`), and tells nothing of the machine.
fn anywhere(command: &mut Command, root: &Path, cargo_home: &Path) {
    let rename = |place: &Path, name: &str| format!("--remap-path-prefix={}={name}", place.display());
    let mut flags = vec![rename(cargo_home, "/cargo"), rename(root, "/cellwall")];
    // Each registry, and each mirror of one, has a directory of its own; sources that bring their crates along have one, too.
    let registries = fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten();
    flags.extend(registries.filter_map(|entry| Some(rename(&entry.ok()?.path(), "/crates"))));
    flags.push(rename(&root.join("vendor"), "/crates"));
    // What is in RUSTFLAGS does not count: it would make another program.
    let flags = flags.join("\u{1f}");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags).current_dir(root);
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

/// Where cargo leaves the three for a machine. The launcher, first, is what it must be.
fn made(machine: &Machine) -> Outcome<[(&'static str, PathBuf); 3]> {
    let target = tree::target();
    let launcher = target.join(machine.musl()).join("launcher").join(LAUNCHER);
    has_no_loader_and_no_fixed_addresses(&launcher)?;
    let others = if machine.is_own() { target } else { target.join(machine.gnu()) };
    let [command, daemon] = OTHERS.map(|name| (name, others.join("programs").join(name)));
    Ok([(LAUNCHER, launcher), command, daemon])
}

/// Puts them where they are looked for; answers a line on each.
fn collect(machine: &Machine) -> Outcome<Vec<String>> {
    let dist = tree::dist();
    fs::create_dir_all(&dist).map_err(|why| format!("cannot make {}: {why}", dist.display()))?;
    let remark = |name| if name == LAUNCHER { "static" } else { "" };
    made(machine)?.into_iter().map(|(name, path)| take(&path, &dist, name, remark(name))).collect()
}

/// The three for another kind of machine, in the directory `to`.
pub(crate) fn programs_for(machine: &Machine, to: &Path) -> Outcome {
    let musl = machine.musl();
    need_target(&musl)?;
    need_target(&machine.gnu())?;
    say::step(&format!("Building the three programs for {}", machine.debian));
    fetch(&musl)?;
    run::quietly("building the launcher", &mut launcher(&musl, &tree::root(), &cargo_home()))?;
    run::quietly("building the command and the daemon", &mut others(machine, &tree::root(), &cargo_home()))?;
    for (name, path) in made(machine)? {
        take(&path, to, name, "")?;
    }
    Ok(())
}

/// Copies by renaming, so that a program that runs right now is replaced and not overwritten.
fn take(from: &Path, dist: &Path, name: &str, remark: &str) -> Outcome<String> {
    let (fresh, to) = (dist.join(format!(".{name}")), dist.join(name));
    let bytes = fs::copy(from, &fresh).map_err(|why| format!("cannot copy {}: {why}", from.display()))?;
    fs::rename(&fresh, &to).map_err(|why| format!("cannot write {}: {why}", to.display()))?;
    Ok(format!("{name:16} {:7} KiB  {remark}", bytes.div_ceil(1024)).trim_end().to_owned())
}

/// A program without a `PT_INTERP` header is loaded by the kernel alone, and one of the type `ET_DYN` anywhere (elf(5)).
fn has_no_loader_and_no_fixed_addresses(program: &Path) -> Outcome {
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
    const ET_DYN: usize = 3;
    let headers = headers().ok_or_else(|| format!("{} is not a 64-bit program.", program.display()))?;
    if headers.contains(&PT_INTERP) {
        return Err(format!("{} asks for a dynamic loader; it must not.", program.display()));
    }
    if number(16, 2) != Some(ET_DYN) {
        return Err(format!("{} has fixed addresses; it must not.", program.display()));
    }
    Ok(())
}
