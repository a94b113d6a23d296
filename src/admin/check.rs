//! `cellwall check`: apply without writing, as far as the caller may look.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::accounts::{Accounts, Listed};
use crate::config::cell::JailCell;
use crate::config::problem::{Problem, Problems, Weight};
use crate::config::whole::{self, Origin, Ready, WholeHost};
use crate::config::{SITES_DIRECTORY, profiles, sites};

use super::json::Json;
use super::{End, chroot, installed, patience, say};

/// Arguments of `cellwall check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files to check, installed or not; the whole configuration without one
    pub files: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let (count, problems) = patience::limited("not all was checked", &|| (), || check(&args.files));
    let wrong = problems.iter().any(|problem| problem.weight == Weight::Error);
    if args.json {
        say::out(Json::object([
            ("ok", Json::Bool(!wrong)),
            ("sites", Json::count(count)),
            ("problems", say::problems_json(&problems)),
        ]));
    } else {
        say::problems(&problems);
        if !wrong {
            say::out(format_args!("{} checked: no errors", say::counted(count, "site")));
        }
    }
    if wrong { End::Findings.into() } else { End::Good.into() }
}

/// What keeps a site's file from being applied.
pub(super) fn errors(file: &Path) -> Vec<Problem> {
    let (_, mut problems) = check(&[file.to_owned()]);
    problems.retain(|problem| problem.weight == Weight::Error);
    problems
}

/// How many sites were checked, and what is wrong.
fn check(files: &[PathBuf]) -> (usize, Vec<Problem>) {
    let problems = Problems::default();
    let kind = |path: &&PathBuf, name: &str| path.file_name().is_some_and(|file| file == name);
    let host_file = files.iter().find(|path| kind(path, "cellwall.toml"));
    let listed = if files.len() == 1 && host_file.is_none() { Arc::default() } else { Listed::all() };
    let host = WholeHost::load(host_file.map(PathBuf::as_path), &mut Accounts::new(&listed), &problems);
    let origins = if files.is_empty() {
        whole::everything(&host, &listed, &problems)
    } else {
        files
            .iter()
            .filter(|path| !kind(path, "cellwall.toml"))
            .filter_map(|path| candidate(path, &problems))
            .collect()
    };
    let groups = whole::group(&host, &listed, origins);
    let beside = (!files.is_empty()).then(BTreeSet::new);
    let counter = AtomicUsize::new(0);
    let count = Mutex::new(0);
    let chroots = Mutex::new(BTreeSet::new());
    let by_suexec = AtomicBool::new(false);
    let found = say::with_progress("checking", groups.len(), &counter, || {
        whole::compile(&host, &listed, &groups, beside.as_ref(), &counter, |ready, _| {
            *count.lock().unwrap_or_else(PoisonError::into_inner) += ready.cells.len();
            chroots.lock().unwrap_or_else(PoisonError::into_inner).extend(chroots_of(&ready));
            by_suexec.fetch_or(ready.cells.iter().any(|cell| cell.pool.is_none()), Ordering::Relaxed);
        })
    });
    problems.extend(found);
    let count = count.into_inner().unwrap_or_else(PoisonError::into_inner);
    if files.is_empty() {
        // What cannot be applied yet is told by its errors alone.
        let ready = count > 0 && !problems.any_error();
        around(ready, by_suexec.into_inner(), &problems);
    }
    chroot::warn(&chroots.into_inner().unwrap_or_else(PoisonError::into_inner), &problems);
    (count, problems.into_sorted())
}

/// What keeps the programs of right sites from starting, or lets them start without a cell.
fn around(ready: bool, by_suexec: bool, problems: &Problems) {
    if ready && installed::never_applied() {
        problems.warning(None, "nothing was applied yet: no program of these sites runs", "cellwall apply");
    }
    for fault in installed::faults_of_all() {
        problems.warning(None, format!("no program can start: {}", fault.found), fault.repair);
    }
    if let Some(fault) = installed::another().filter(|_| by_suexec) {
        problems.warning(None, format!("programs start without a cell: {}", fault.found), fault.repair);
    }
}

/// The directories of chroots among the sites of one user.
pub(super) fn chroots_of(ready: &Ready) -> impl Iterator<Item = PathBuf> {
    ready.cells.iter().filter_map(|cell| match &cell.jail {
        JailCell::Chroot(directory) => Some(directory.clone()),
        JailCell::View(..) | JailCell::Host => None,
    })
}

/// A file as the site that it would be; a profile or a piece is read and is no site.
fn candidate(path: &Path, problems: &Problems) -> Option<Origin> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let above: BTreeSet<String> = absolute
        .parent()
        .into_iter()
        .filter_map(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    for (directory, kind) in [("profiles", profiles::Kind::Profile), ("pieces", profiles::Kind::Piece)] {
        if above.contains(directory) {
            let (text, _) = sites::read_file(&absolute, false, problems)?;
            profiles::read(kind, &absolute, text, problems);
            return None;
        }
    }
    let Some(name) = sites::site_name(&file) else {
        let installed = Path::new(SITES_DIRECTORY).join(format!("{file}.toml"));
        let help = if installed.exists() {
            format!("run: cellwall check {}", installed.display())
        } else {
            "a site's file is named like shop.toml: small letters, digits, `_`, `-`, `.`".to_owned()
        };
        problems.error(None, format!("{} is no name of a site's file", path.display()), help);
        return None;
    };
    Some(Origin::File { name: name.to_owned(), path: absolute, trusted: false })
}
