//! Debian's package. What it does when it comes and goes is in packaging/debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Staged, directory, filled, text, write};
use crate::Outcome;
use crate::install;
use crate::manifest::{self, Kind};
use crate::{run, tree};

/// In the repository: control with marks to be filled in, the scripts, the licences.
const PARTS: &str = "packaging/debian";
const DOCS: &str = "/usr/share/doc/cellwall";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

pub(super) fn pack(staged: &Staged) -> Outcome<PathBuf> {
    document(staged)?;
    describe(staged)?;
    let mut command = Command::new("dpkg-deb");
    command.env("SOURCE_DATE_EPOCH", &staged.time).arg("--build").arg(&staged.root).arg(&staged.place);
    run::quietly("dpkg-deb", &mut command)?;
    let mut files = fs::read_dir(&staged.place).into_iter().flatten().flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|kind| kind == "deb"));
    staged.deliver(&file.ok_or_else(|| "dpkg-deb has made no package.".to_owned())?)
}

/// The licence, the history of the sources and of the package, compressed as Debian's policy (12.1, 12.7) wants it; and what
/// lintian(1) is not to warn of.
fn document(staged: &Staged) -> Outcome {
    let [of_sources, of_package] = ["changelog", "changelog.Debian"].map(|name| format!("{DOCS}/{name}"));
    staged.add(&format!("{PARTS}/copyright"), &format!("{DOCS}/copyright"))?;
    staged.add(&format!("{PARTS}/lintian-overrides"), "/usr/share/lintian/overrides/cellwall")?;
    staged.add("CHANGELOG.md", &of_sources)?;
    let date = staged.ask("date", &["--utc", "--rfc-email", "--date", &format!("@{}", staged.time)])?;
    let history = text(&tree::root().join(PARTS).join("changelog"))?
        .replace("@VERSION@", &version()?)
        .replace("@DATE@", date.trim());
    write(&install::beneath(&staged.root, &of_package), &history, 0o644)?;
    staged.compress(&[&of_sources, &of_package])
}

/// The version of the sources, and the first package of it.
fn version() -> Outcome<String> {
    Ok(format!("{}-1", super::version()?))
}

/// What dpkg itself reads.
fn describe(staged: &Staged) -> Outcome {
    let to = staged.root.join("DEBIAN");
    directory(&to)?;
    for script in SCRIPTS {
        write(&to.join(script), &filled(&format!("{PARTS}/{script}"))?, 0o755)?;
    }
    write(&to.join("triggers"), &filled(&format!("{PARTS}/triggers"))?, 0o644)?;
    // What people change; the directories beside them are theirs as well.
    let kept: String = manifest::read()?
        .iter()
        .filter(|entry| entry.kind == Kind::Config)
        .map(|entry| format!("{}\n", entry.path))
        .collect();
    write(&to.join("conffiles"), &kept, 0o644)?;
    let sums = "find . -path ./DEBIAN -prune -o -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 md5sum";
    write(&to.join("md5sums"), &staged.ask("sh", &["-c", sums])?, 0o644)?;
    // Not `du`: the blocks of a directory are the file system's own affair.
    let size = "find . -path ./DEBIAN -prune -o -type f -printf '%s\\n' -o -printf '1024\\n' | \
                awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }'";
    let control = text(&tree::root().join(PARTS).join("control"))?
        .replace("@VERSION@", &version()?)
        .replace("@ARCHITECTURE@", staged.ask("dpkg", &["--print-architecture"])?.trim())
        .replace("@DEPENDS@", &libraries(staged)?)
        .replace("@SIZE@", staged.ask("sh", &["-c", size])?.trim());
    write(&to.join("control"), &control, 0o644)
}

/// The libraries of the two programs that have some, with the versions that they need (dpkg-shlibdeps(1)).
fn libraries(staged: &Staged) -> Outcome<String> {
    let (place, about) = (&staged.place, "Source: cellwall\n\nPackage: cellwall\nArchitecture: any\n");
    directory(&place.join("debian"))?;
    write(&place.join("debian/control"), about, 0o644)?;
    let programs =
        ["usr/bin/cellwall", "usr/sbin/cellwalld"].map(|path: &str| staged.root.join(Path::new(path)));
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").args(programs).current_dir(place);
    let said = run::output(&mut command)?;
    let said = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    said.map(str::to_owned).ok_or_else(|| "dpkg-shlibdeps does not tell what the programs need.".to_owned())
}
