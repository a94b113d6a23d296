//! `reproduce`: the launcher built twice, as different people would, and compared bit for bit.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::machine::Machine;
use crate::{build, debian, run, say, tree};

/// Copies the sources to two places, builds in each, and compares.
pub(crate) fn launcher() -> Outcome {
    debian::need(&[debian::BUILD])?;
    let musl = Machine::own()?.musl();
    build::need_target(&musl)?;
    build::fetch(&musl)?;
    let place = tree::target().join("reproduce");
    drop(fs::remove_dir_all(&place));
    say::step(
        "Building the launcher twice: other directories, another home of cargo, another time zone, language and umask",
    );
    let first = Builder { root: place.join("one"), elsewhere: false }.build(&musl)?;
    let second =
        Builder { root: place.join("a longer way/to another place"), elsewhere: true }.build(&musl)?;
    let (one, other) = (read(&first)?, read(&second)?);
    say::step("The two programs");
    print!("{}", run::output(Command::new("sha256sum").args([&first, &second]))?);
    if one == other {
        println!("identical, bit for bit: {} bytes", one.len());
        return leaks(&one, &[&place, &tree::root(), &cargo_home()]);
    }
    let place =
        one.iter().zip(&other).position(|(one, other)| one != other).unwrap_or(one.len().min(other.len()));
    Err(format!(
        "They differ, at byte {place} for the first time ({} and {} bytes). See: cmp -l '{}' '{}'",
        one.len(),
        other.len(),
        first.display(),
        second.display()
    ))
}

/// One who builds.
struct Builder {
    root: PathBuf,
    /// With other surroundings than the first.
    elsewhere: bool,
}

impl Builder {
    fn build(&self, musl: &str) -> Outcome<PathBuf> {
        let sources = self.root.join("sources");
        make(&sources)?;
        for name in ["Cargo.toml", "Cargo.lock", "src", "policy", "docs", "xtask", "benches", "tests"] {
            run::quietly(
                &format!("copying {name}"),
                Command::new("cp").arg("-r").arg(tree::root().join(name)).arg(&sources),
            )?;
        }
        let target = self.root.join("target");
        let mut command = if self.elsewhere {
            let home = self.root.join("home of cargo");
            make(&home)?;
            let registry = cargo_home().join("registry");
            symlink(&registry, home.join("registry"))
                .map_err(|why| format!("cannot link {}: {why}", registry.display()))?;
            let mut command = Command::new("sh");
            let cargo = build::launcher(musl, &sources, &home);
            command
                .args(["-c", "umask 077; exec \"$@\"", "sh"])
                .arg(cargo.get_program())
                .args(cargo.get_args());
            command.envs(cargo.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command
                .env("CARGO_HOME", &home)
                .env("TZ", "Pacific/Auckland")
                .env("LC_ALL", "C")
                .env("CARGO_INCREMENTAL", "0");
            command
        } else {
            build::launcher(musl, &sources, &cargo_home())
        };
        command.current_dir(&sources).env("CARGO_TARGET_DIR", &target);
        run::quietly(if self.elsewhere { "the second build" } else { "the first build" }, &mut command)?;
        Ok(target.join(musl).join("launcher").join(build::LAUNCHER))
    }
}

/// A program that names the directories of who built it tells more than it should.
fn leaks(program: &[u8], places: &[&PathBuf]) -> Outcome {
    let named = |place: &Path| {
        let place = place.as_os_str().as_encoded_bytes();
        program.windows(place.len()).any(|part| part == place)
    };
    match places.iter().find(|place| named(place)) {
        Some(place) => Err(format!("The program names {}.", place.display())),
        None => Ok(()),
    }
}

/// Where cargo keeps the sources of crates.
pub(crate) fn cargo_home() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    std::env::var_os("CARGO_HOME").map_or_else(|| PathBuf::from(home).join(".cargo"), PathBuf::from)
}

fn make(directory: &Path) -> Outcome {
    fs::create_dir_all(directory).map_err(|why| format!("cannot make {}: {why}", directory.display()))
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|why| format!("cannot read {}: {why}", path.display()))
}
