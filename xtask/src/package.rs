//! `package`: what the manifest lists, as a package of Debian's in target/package. What a package does when it comes and goes
//! is in packaging/debian.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::install::{self, Options};
use crate::manifest::{self, Kind};
use crate::{build, debian, run, say, tree};

/// In the repository: control with marks to be filled in, the scripts, the licences.
const PARTS: &str = "packaging/debian";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// `package [--built]`
pub(crate) fn command(words: &[String]) -> Outcome {
    let file = make(words)?;
    say::note(&format!("sudo apt install {}", file.display()));
    Ok(())
}

/// The file, of what is built now or, with --built, was before.
pub(crate) fn make(words: &[String]) -> Outcome<PathBuf> {
    let built = match words {
        [] => false,
        [word] if word == "--built" => true,
        _ => return Err(format!("The only option is --built, and got {words:?}.")),
    };
    tree::need_root("package")?;
    debian::need(&[debian::BUILD, debian::PACKAGE])?;
    if !built {
        build::programs()?;
    }
    let place = tree::target().join("package");
    let staged = Staged { root: place.join("root") };
    staged.fill(&place).map_err(|why| format!("{}: {why}", place.display()))?;
    let file = staged.pack(&place)?;
    say::step(&format!("The package: {}", file.display()));
    Ok(file)
}

/// The files of the package, as they will lie on a machine, and its own part beside them.
struct Staged {
    root: PathBuf,
}

impl Staged {
    /// As `install` does it, but what belongs to a running machine; and what Debian wants of a package.
    fn fill(&self, place: &Path) -> Outcome {
        // Not of a run before: what this version does not have must not be in it.
        if place.exists() {
            fs::remove_dir_all(place).map_err(|why| why.to_string())?;
        }
        let options =
            Options { destdir: self.root.clone(), group: install::GROUP.to_owned(), activate: false };
        install::everything(&options)?;
        // tmpfiles.d(5) makes it, at each boot.
        fs::remove_dir_all(self.root.join("run")).map_err(|why| why.to_string())?;
        self.document()?;
        self.describe(place)
    }

    /// The licence and the history, and all of it compressed as Debian's policy (12.1, 12.7) wants it.
    fn document(&self) -> Outcome {
        let docs = self.root.join("usr/share/doc/cellwall");
        copy(&tree::root().join(PARTS).join("copyright"), &docs.join("copyright"), 0o644)?;
        copy(&tree::root().join("CHANGELOG.md"), &docs.join("changelog"), 0o644)?;
        let pages = manifest::read()?.into_iter().map(|entry| entry.path);
        let pages = pages.filter(|path| path.starts_with("/usr/share/man/"));
        let pages = pages.map(|path| install::beneath(&self.root, &path));
        // Without the time of the moment, so that the same version is the same package.
        run::quietly("gzip", Command::new("gzip").args(["-9", "-n"]).args(pages).arg(docs.join("changelog")))
    }

    /// What dpkg itself reads.
    fn describe(&self, place: &Path) -> Outcome {
        let (parts, to) = (tree::root().join(PARTS), self.root.join("DEBIAN"));
        fs::create_dir(&to).map_err(|why| why.to_string())?;
        for script in SCRIPTS {
            copy(&parts.join(script), &to.join(script), 0o755)?;
        }
        copy(&parts.join("triggers"), &to.join("triggers"), 0o644)?;
        // What people change; the directories beside them are theirs as well.
        let kept: String = manifest::read()?
            .iter()
            .filter(|entry| entry.kind == Kind::Config)
            .map(|entry| format!("{}\n", entry.path))
            .collect();
        write(&to.join("conffiles"), &kept)?;
        let sums =
            "find . -path ./DEBIAN -prune -o -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 md5sum";
        write(&to.join("md5sums"), &self.ask("sh", &["-c", sums])?)?;
        let control = text(&parts.join("control"))?
            .replace("@VERSION@", &version()?)
            .replace("@ARCHITECTURE@", self.ask("dpkg", &["--print-architecture"])?.trim())
            .replace("@DEPENDS@", &self.libraries(place)?)
            .replace("@SIZE@", self.ask("sh", &["-c", "du -sk --exclude=DEBIAN . | cut -f1"])?.trim());
        write(&to.join("control"), &control)
    }

    /// The libraries of the two programs that have some, with the versions that they need (dpkg-shlibdeps(1)).
    fn libraries(&self, place: &Path) -> Outcome<String> {
        fs::create_dir(place.join("debian")).map_err(|why| why.to_string())?;
        write(&place.join("debian/control"), "Source: cellwall\n\nPackage: cellwall\nArchitecture: any\n")?;
        let programs = ["usr/bin/cellwall", "usr/sbin/cellwalld"].map(|path| self.root.join(path));
        let mut command = Command::new("dpkg-shlibdeps");
        command.arg("-O").args(programs).current_dir(place);
        let said = run::output(&mut command)?;
        let said = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        said.map(str::to_owned)
            .ok_or_else(|| "dpkg-shlibdeps does not tell what the programs need.".to_owned())
    }

    fn pack(&self, place: &Path) -> Outcome<PathBuf> {
        run::quietly("dpkg-deb", Command::new("dpkg-deb").arg("--build").arg(&self.root).arg(place))?;
        let mut files = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        files
            .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
            .ok_or_else(|| "dpkg-deb has made no package.".to_owned())
    }

    /// What a program says, in the root of the package.
    fn ask(&self, program: &str, words: &[&str]) -> Outcome<String> {
        run::output(Command::new(program).args(words).current_dir(&self.root))
    }
}

/// The version of the package, from its one place.
fn version() -> Outcome<String> {
    let manifest = text(&tree::root().join("Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    line.map(|value| value.trim_matches('"').to_owned())
        .ok_or_else(|| "Cargo.toml has no version.".to_owned())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Outcome {
    fs::copy(from, to).map_err(|why| format!("{}: {why}", from.display()))?;
    fs::set_permissions(to, Permissions::from_mode(mode)).map_err(|why| format!("{}: {why}", to.display()))
}

fn text(from: &Path) -> Outcome<String> {
    fs::read_to_string(from).map_err(|why| format!("{}: {why}", from.display()))
}

fn write(to: &Path, text: &str) -> Outcome {
    fs::write(to, text).map_err(|why| format!("{}: {why}", to.display()))?;
    // Whatever the umask of who packs.
    fs::set_permissions(to, Permissions::from_mode(0o644)).map_err(|why| format!("{}: {why}", to.display()))
}
