//! Fedora's package. What it is and does is in packaging/rpm/cellwall.spec; its files are the manifest's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Staged, filled, version, write};
use crate::Outcome;
use crate::manifest::{self, Entry, Kind};
use crate::run;
use crate::{alternative, install};

/// The group of Fedora's web servers.
pub(super) const GROUP: &str = "apache";
const SPEC: &str = "packaging/rpm/cellwall.spec";
const LICENCES: &str = "/usr/share/licenses/cellwall";
/// Where zsh looks, on Debian and here.
const ZSH: [&str; 2] = ["/usr/share/zsh/vendor-completions", "/usr/share/zsh/site-functions"];

pub(super) fn pack(staged: &Staged) -> Outcome<PathBuf> {
    let [from, to] = ZSH.map(|path| install::beneath(&staged.root, path));
    fs::rename(&from, &to).map_err(|why| format!("{}: {why}", from.display()))?;
    for (from, to) in texts() {
        staged.add(from, &to)?;
    }
    staged.compress(&[])?;
    let spec = filled(SPEC)?
        .replace("@VERSION@", &version()?)
        .replace("@ROOT@", &staged.root.display().to_string())
        .replace("@DROPIN@", alternative::DROP_IN)
        .replace("@FILES@", &files(&staged.root)?);
    let place = staged.place.join("cellwall.spec");
    write(&place, &spec, 0o644)?;
    let mut command = Command::new("rpmbuild");
    command.env("SOURCE_DATE_EPOCH", &staged.time).arg("-bb").arg("--define");
    command.arg(format!("_topdir {}", staged.place.display()));
    // The same sources are the same package, whoever builds it, and where.
    for same in
        ["_buildhost cellwall", "use_source_date_epoch_as_buildtime 1", "clamp_mtime_to_source_date_epoch 1"]
    {
        command.args(["--define", same]);
    }
    run::quietly("rpmbuild", command.arg(&place))?;
    let made = staged.place.join("RPMS");
    let mut kinds = fs::read_dir(&made).into_iter().flatten().flatten();
    let file = kinds.find_map(|kind| Some(fs::read_dir(kind.path()).ok()?.next()?.ok()?.path()));
    staged.deliver(&file.ok_or_else(|| "rpmbuild has made no package.".to_owned())?)
}

/// What the manifest does not list: where it is in the repository, and where it will lie.
fn texts() -> [(&'static str, String); 3] {
    let licence = |name| (name, format!("{LICENCES}/{name}"));
    let changes = "CHANGELOG.md";
    [
        licence("LICENSE-APACHE"),
        licence("LICENSE-MIT"),
        (changes, format!("/usr/share/doc/cellwall/{changes}")),
    ]
}

/// The section %files: each file with its mode and owners, whatever they are where it was built.
fn files(root: &Path) -> Outcome<String> {
    let mut lines = BTreeMap::new();
    let entries = manifest::read()?;
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Tree) {
        beneath(root, &entry.path, &mut lines)?;
    }
    for entry in entries.iter().filter(|entry| !entry.path.starts_with("/run/")) {
        let path = entry.path.replace(ZSH[0], ZSH[1]);
        let path = if path.starts_with("/usr/share/man/") { format!("{path}.gz") } else { path };
        lines.insert(path.clone(), line(entry, &path));
    }
    lines.insert(LICENCES.to_owned(), format!("%dir %attr(0755, root, root) {LICENCES}"));
    for (_, to) in texts() {
        let kind = if to.starts_with(LICENCES) { "%license " } else { "" };
        lines.insert(to.clone(), format!("{kind}%attr(0644, root, root) {to}"));
    }
    Ok(lines.into_values().collect::<Vec<_>>().join("\n"))
}

fn line(entry: &Entry, path: &str) -> String {
    let kind = match entry.kind {
        Kind::Dir | Kind::State | Kind::Settings | Kind::Tree => "%dir ",
        Kind::Config => "%config(noreplace) ",
        Kind::Program | Kind::File => "",
    };
    let group = if entry.group == install::GROUP { GROUP } else { &entry.group };
    format!("{kind}%attr({:04o}, {}, {group}) {path}", entry.mode, entry.owner)
}

/// All that is below a tree of the manifest, as the manifest's head says: files 0644, directories 0755.
fn beneath(root: &Path, path: &str, lines: &mut BTreeMap<String, String>) -> Outcome {
    let here = install::beneath(root, path);
    for entry in fs::read_dir(&here).map_err(|why| format!("{}: {why}", here.display()))? {
        let entry = entry.map_err(|why| format!("{}: {why}", here.display()))?;
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            lines.insert(path.clone(), format!("%dir %attr(0755, root, root) {path}"));
            beneath(root, &path, lines)?;
        } else {
            lines.insert(path.clone(), format!("%attr(0644, root, root) {path}"));
        }
    }
    Ok(())
}
