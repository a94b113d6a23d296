//! The jail of a site: its kind, its paths, its devices, its private directories, and the rules that go with them.

use std::path::{Path, PathBuf};

use crate::policy::PathRule;

use super::cell::{Handlers, JailCell};
use super::compile::{Compiler, Site, pasted, value};
use super::fold;
use super::ground::Kind;
use super::values::JailKind;
use super::view::{Plan, id};

pub use files::alternatives;
pub use own::accounts;

mod files;
mod own;
mod programs;

const READ: u8 = PathRule::READ;
const EXECUTE: u8 = PathRule::READ | PathRule::EXECUTE;
const WRITE: u8 = PathRule::READ | PathRule::WRITE;

/// The parts of a cell that have to do with its place.
#[derive(Debug)]
pub struct Compiled {
    /// The jail.
    pub jail: JailCell,
    /// Landlock's rules.
    pub rules: Vec<(PathBuf, u8)>,
    /// `programs`.
    pub programs: Vec<PathBuf>,
    /// `interpreters`.
    pub interpreters: Vec<PathBuf>,
    /// `[handlers]`.
    pub handlers: Handlers,
    /// TMPDIR.
    pub temporary: String,
    /// Names of private directories.
    pub private: Vec<String>,
    /// /etc/passwd and /etc/group of a view.
    pub accounts: Option<(String, String)>,
}

/// Root's links that every view has: /bin and its like on hosts that merged them into /usr.
#[must_use]
pub fn root_links() -> Vec<(PathBuf, PathBuf)> {
    let names = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"].map(PathBuf::from);
    names.into_iter().filter_map(|name| std::fs::read_link(&name).ok().map(|text| (name, text))).collect()
}

/// Compiles the jail of a site.
pub(super) fn compile(compiler: &mut Compiler<'_>, site: &Site<'_>) -> Compiled {
    let directory = directory(compiler, site);
    let plan = if compiler.reasons.is_some() { Plan::with_reasons() } else { Plan::default() };
    let mut work = Work { compiler, site, root: directory.clone().unwrap_or_else(|| "/".into()), plan };
    work.docroots();
    work.listed();
    work.sockets();
    work.at();
    let (programs, interpreters, handlers) = work.programs();
    work.devices();
    let (temporary, private) = work.private();
    if value(&site.rules.jail_processes).unwrap_or(false) {
        work.processes();
    }
    let accounts = (site.kind() == JailKind::View).then(|| work.accounts());
    if site.kind() == JailKind::View {
        work.hidden();
    }
    let Work { compiler, mut plan, .. } = work;
    if let Some(reasons) = &mut compiler.reasons {
        *reasons = plan.take_reasons();
    }
    let mut rules = plan.rules();
    let jail = match (site.kind(), directory) {
        (JailKind::Chroot, Some(directory)) => JailCell::Chroot(directory),
        (JailKind::View, _) => {
            plan.links(&compiler.root_links);
            let steps = plan.steps(value(&site.rules.set_id_mail).unwrap_or(false));
            rules = fold::folded(rules, &steps);
            JailCell::View(id(site.account.uid, &steps), steps)
        }
        (JailKind::Host | JailKind::Chroot, _) => JailCell::Host,
    };
    Compiled { jail, rules, programs, interpreters, handlers, temporary, private, accounts }
}

/// `jail.directory`, for the one kind that has it.
fn directory(compiler: &mut Compiler<'_>, site: &Site<'_>) -> Option<PathBuf> {
    match (site.kind(), &site.rules.jail_directory) {
        (JailKind::Chroot, Some(directory)) => {
            let path = compiler.filled(directory, site.account, site.file);
            let place = &directory.place;
            if !compiler.plain(&path, place, "jail.directory") || path == Path::new("/") {
                return None;
            }
            let found = compiler.ground.find(Path::new("/"), &path);
            if !matches!(found.kind, Kind::Directory | Kind::Hidden)
                || found.foreign.is_some()
                || found.open.is_some()
            {
                let message = format!("{} is no directory that is root's all the way", path.display());
                let help = format!("run: cellwall jail build {} --site {}", pasted(&path), site.file.name);
                compiler.problems.error(Some(place), message, help);
            }
            Some(found.real.clone())
        }
        (JailKind::Chroot, None) => {
            let place = site.rules.jail_kind.as_ref().map(|kind| &kind.place);
            let help = "write directory = \"/srv/jails/NAME\" below it";
            compiler.problems.error(place, "kind = \"chroot\" needs a directory", help);
            None
        }
        (JailKind::View | JailKind::Host, Some(directory)) => {
            let help = "remove it, or write kind = \"chroot\"";
            compiler.problems.error(
                Some(&directory.place),
                "jail.directory is for kind = \"chroot\" alone",
                help,
            );
            None
        }
        (JailKind::View | JailKind::Host, None) => None,
    }
}

struct Work<'c, 'h, 's> {
    compiler: &'c mut Compiler<'h>,
    site: &'c Site<'s>,
    /// Where paths begin: the chroot's directory, or `/`.
    root: PathBuf,
    plan: Plan,
}
