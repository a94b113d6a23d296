//! `package`: what the manifest lists, as a package of Debian's or of Fedora's, in target/package.

mod deb;
mod rpm;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::install::{self, Options};
use crate::manifest;
use crate::{build, debian, run, say, tree};

/// What both kinds do when they come and go, by the mark that stands for it in their own scripts.
const SCRIPTS: [(&str, &str); 3] = [("@APPLY@", "apply.sh"), ("@STOP@", "stop.sh"), ("@CLEAR@", "clear.sh")];

/// `package [--rpm] [--built]`
pub(crate) fn command(words: &[String]) -> Outcome {
    let (mut is_rpm, mut built) = (false, false);
    for word in words {
        match word.as_str() {
            "--rpm" => is_rpm = true,
            "--built" => built = true,
            _ => return Err(format!("package does not know {word:?}. See: cargo xtask help")),
        }
    }
    let (file, tool) = if is_rpm { (rpm(built)?, "dnf") } else { (deb(built)?, "apt") };
    say::note(&format!("sudo {tool} install {}", file.display()));
    Ok(())
}

/// Debian's, of what is built now or was before. Its files have their owners by number, so only root can make them.
pub(crate) fn deb(built: bool) -> Outcome<PathBuf> {
    tree::need_root("package")?;
    debian::need(&[debian::BUILD, debian::PACKAGE])?;
    deb::pack(&Staged::fill("deb", install::GROUP, built)?)
}

/// Fedora's. Its files have their owners by name.
fn rpm(built: bool) -> Outcome<PathBuf> {
    debian::need(&[debian::BUILD, debian::RPM])?;
    rpm::pack(&Staged::fill("rpm", rpm::GROUP, built)?)
}

/// The files of a package as they will lie on a machine, and a place for what else it needs.
struct Staged {
    place: PathBuf,
    root: PathBuf,
    /// Seconds since 1970 that no file is younger than, so that the same sources are the same package.
    time: String,
}

impl Staged {
    /// As `install` does it, but what belongs to a running machine.
    fn fill(kind: &str, group: &str, built: bool) -> Outcome<Self> {
        if !built {
            build::programs()?;
        }
        let place = tree::target().join("package").join(kind);
        // Not of a run before: what this version does not have must not be in it.
        if place.exists() {
            fs::remove_dir_all(&place).map_err(|why| format!("{}: {why}", place.display()))?;
        }
        let staged = Self { root: place.join("root"), place, time: time()? };
        let options = Options {
            destdir: staged.root.clone(),
            group: group.to_owned(),
            activate: false,
            owned: tree::is_root() && kind == "deb",
        };
        install::everything(&options)?;
        // tmpfiles.d(5) makes it, at each boot.
        fs::remove_dir_all(staged.root.join("run")).map_err(|why| why.to_string())?;
        Ok(staged)
    }

    /// As both kinds want manual pages: without the time of the moment.
    fn compress(&self, more: &[&String]) -> Outcome {
        let pages = manifest::read()?.into_iter().map(|entry| entry.path);
        let pages = pages.filter(|path| path.starts_with("/usr/share/man/"));
        let all = pages.chain(more.iter().map(|path| (*path).clone()));
        let all = all.map(|path| install::beneath(&self.root, &path));
        run::quietly("gzip", Command::new("gzip").args(["-9", "-n"]).args(all))
    }

    /// A file of the repository, where it will lie.
    fn add(&self, from: &str, to: &str) -> Outcome {
        let to = install::beneath(&self.root, to);
        let above: Vec<&Path> = to.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        above.into_iter().rev().try_for_each(directory)?;
        let from = tree::root().join(from);
        fs::copy(&from, &to).map_err(|why| format!("{}: {why}", from.display()))?;
        mode(&to, 0o644)
    }

    /// What a program says, in the root of the package.
    fn ask(&self, program: &str, words: &[&str]) -> Outcome<String> {
        run::output(Command::new(program).args(words).current_dir(&self.root))
    }

    /// The package itself, which is beside its parts so far.
    fn deliver(&self, file: &Path) -> Outcome<PathBuf> {
        let name = file.file_name().ok_or("the package has no name")?;
        let to = tree::target().join("package").join(name);
        fs::rename(file, &to).map_err(|why| format!("{}: {why}", to.display()))?;
        say::step(&format!("The package: {}", to.display()));
        Ok(to)
    }
}

/// A text of the repository, with what both kinds do in it.
fn filled(from: &str) -> Outcome<String> {
    let mut said = text(&tree::root().join(from))?;
    for (mark, name) in SCRIPTS {
        let script = text(&tree::root().join("packaging/scripts").join(name))?;
        said = said.replace(&format!("{mark}\n"), &script);
    }
    Ok(said)
}

/// When the sources were made: what the environment says (reproducible-builds.org), or their last commit.
fn time() -> Outcome<String> {
    if let Some(told) = std::env::var_os("SOURCE_DATE_EPOCH") {
        return told.into_string().map_err(|_| "SOURCE_DATE_EPOCH is no number.".to_owned());
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(tree::root());
    let said = run::output(&mut git).unwrap_or_default();
    // Sources that came as an archive have its dates.
    let of_file =
        || run::output(Command::new("stat").args(["-c", "%Y"]).arg(tree::root().join("CHANGELOG.md")));
    let said = if said.trim().is_empty() { of_file()? } else { said };
    Ok(said.trim().to_owned())
}

/// The version of the package, from its one place.
fn version() -> Outcome<String> {
    let manifest = text(&tree::root().join("Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    line.map(|value| value.trim_matches('"').to_owned())
        .ok_or_else(|| "Cargo.toml has no version.".to_owned())
}

fn text(from: &Path) -> Outcome<String> {
    fs::read_to_string(from).map_err(|why| format!("{}: {why}", from.display()))
}

/// Whatever the umask of who packs.
fn write(to: &Path, text: &str, bits: u32) -> Outcome {
    fs::write(to, text).map_err(|why| format!("{}: {why}", to.display()))?;
    mode(to, bits)
}

fn directory(at: &Path) -> Outcome {
    fs::create_dir(at).map_err(|why| format!("{}: {why}", at.display()))?;
    mode(at, 0o755)
}

fn mode(of: &Path, bits: u32) -> Outcome {
    fs::set_permissions(of, Permissions::from_mode(bits)).map_err(|why| format!("{}: {why}", of.display()))
}
