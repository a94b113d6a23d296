//! Where a site's programs are: directories that can be its docroots, and how one that is missing or odd is mended.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::accounts::Account;
use crate::config::ground::{Found, Kind};
use crate::config::problem::Place;
use crate::config::reader::writes;
use crate::config::rules::Rules;
use crate::config::sites::SiteFile;
use crate::policy::Links;

use super::{Compiler, links, pasted};

impl Compiler<'_> {
    pub(super) fn docroots(
        &mut self,
        file: &SiteFile,
        account: &Account,
        rules: &Rules,
    ) -> Vec<(PathBuf, Arc<Found>)> {
        let from_rule = |suffix: &Path| (account.home.join(suffix), file.place());
        let wanted: Vec<(PathBuf, Place)> = match &file.userdir {
            Some(_) => vec![from_rule(Path::new(&self.host.userdir))],
            None => rules
                .docroot
                .items
                .iter()
                .map(|item| (self.filled(item, account, file), item.place.clone()))
                .collect(),
        };
        if wanted.is_empty() && !writes(&file.document, "docroot") {
            let help = "write docroot = \"/srv/www/NAME\": only programs below it run";
            self.problems.error(Some(&file.place()), "the site names no docroot", help);
        }
        let mut all = Vec::new();
        for (path, place) in wanted {
            if let Some(found) = self.docroot(&path, &place, (account, rules)) {
                all.push((path, found));
            }
        }
        all
    }

    fn docroot(
        &mut self,
        path: &Path,
        place: &Place,
        (account, rules): (&Account, &Rules),
    ) -> Option<Arc<Found>> {
        if !self.plain(path, place, "docroot") {
            return None;
        }
        // suEXEC's document root does not bind ~user requests either: theirs is the home.
        let beneath = self.one_of_many || path.starts_with(&self.host.docroot);
        if path == Path::new("/") || !beneath {
            let message =
                format!("docroot {} is not beneath {}", path.display(), self.host.docroot.display());
            self.complain(place, message, "cellwall.toml's docroot is the base of all sites".to_owned());
            return None;
        }
        let found = self.ground.find(Path::new("/"), path);
        if is_hosts_own(&found) {
            let message = format!("docroot {} is the host's own", path.display());
            self.complain(place, message, "name a directory of its own, as /srv/www/NAME".to_owned());
            return None;
        }
        if let Some(shared) = self.ground.shared_above(&found.real) {
            let message = format!(
                "docroot {} is below {}, where everybody may put things: no program of it runs",
                path.display(),
                shared.display()
            );
            self.complain(place, message, "take a directory like /srv/www/NAME".to_owned());
            return None;
        }
        if found.kind == Kind::Missing && !self.one_of_many {
            let message =
                format!("docroot {} does not exist; {} does", path.display(), found.nearest.display());
            if path.as_os_str().as_bytes().contains(&b'*') {
                self.problems.error(
                    Some(place),
                    message,
                    "no pattern is filled in here: name each directory",
                );
                return None;
            }
            let (owner, _) = owners(self.code_owner, account, rules);
            let help = format!("make it: {}", directory_made(&found, &owner, account, rules));
            self.problems.warning(Some(place), message, help);
        }
        let owned = self.owned(&found, place, account);
        if owned && !self.one_of_many {
            self.odd_docroot(&found, place, (account, rules));
        }
        owned.then_some(found)
    }

    /// A docroot that is there, and in which no program would run.
    fn odd_docroot(&self, found: &Found, place: &Place, (account, rules): (&Account, &Rules)) {
        let path = found.real.display();
        let link = own_link(found).filter(|_| links(rules) == Links::Deny);
        let (message, help) = match (link, found.kind) {
            (Some(link), _) => (
                format!("docroot {path}: {} is a link of the site's, and none is followed", link.display()),
                "write symlinks = \"owner-match\", or name the directory that it leads to".to_owned(),
            ),
            // A FastCGI program reads what it may read; one that is started belongs to its site, and so does its directory.
            (None, Kind::Directory) if found.foreign.is_none() && rules.pool_command.is_none() => {
                let (owner, group) = owners(self.code_owner, account, rules);
                let help = if holds_others(&found.real, self.code_owner.unwrap_or(account.uid)) {
                    format!("name the directory of the site's own: what lies in it is not {owner}'s")
                } else {
                    format!("run: chown {owner}:{group} {}", pasted(&found.real))
                };
                (
                    format!("docroot {path} is root's: a program that lies in it itself is refused (V120)"),
                    help,
                )
            }
            (None, Kind::File | Kind::Device | Kind::Channel) => {
                (format!("docroot {path} is no directory"), "name the directory that it lies in".to_owned())
            }
            (None, Kind::Directory | Kind::Link | Kind::Missing | Kind::Hidden) => return,
        };
        self.problems.warning(Some(place), message, help);
    }
}

/// The command that makes a directory of a site's; the launcher wants its group as well.
pub(in crate::config) fn directory_made(
    found: &Found,
    owner: &str,
    account: &Account,
    rules: &Rules,
) -> String {
    let ((_, group), path) = (owners(None, account, rules), pasted(&found.real));
    let own = |above: &Path| above.symlink_metadata().is_ok_and(|facts| facts.uid() == account.uid);
    if !found.nearest.ancestors().any(own) {
        return format!("install -d -o {owner} -g {group} {path}");
    }
    // The site could put a link there before root makes anything: it is made with no more rights.
    format!("setpriv --reuid={owner} --regid={group} --clear-groups mkdir -p -m 755 {path}")
}

/// Whose the programs of a site and their directories are, and their group.
fn owners(code_owner: Option<u32>, account: &Account, rules: &Rules) -> (String, String) {
    let group = rules.group.as_ref().map_or_else(|| account.gid.to_string(), |group| group.value.clone());
    (code_owner.map_or_else(|| account.name.clone(), |uid| uid.to_string()), group)
}

/// A directory that no site can have, whatever is in it.
fn is_hosts_own(found: &Found) -> bool {
    let own = HOSTS_OWN.iter().any(|own| found.real.starts_with(own));
    let shared = HOSTS_SHARED.iter().any(|shared| found.real == Path::new(shared));
    found.foreign.is_none() && (own || shared)
}

/// Whether anything in a directory is another one's: whoever gets the directory may replace it.
fn holds_others(directory: &Path, owner: u32) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.take(MOST_LOOKED_AT).any(|entry| !entry.metadata().is_ok_and(|facts| facts.uid() == owner))
}

/// Entries of one directory.
const MOST_LOOKED_AT: usize = 1000;

/// The first link on the way to a path of the site's own.
fn own_link(found: &Found) -> Option<&Path> {
    let (top, _) = found.foreign.as_ref()?;
    let own: Vec<&Path> = found.real.ancestors().take_while(|path| path.starts_with(top)).collect();
    own.into_iter().rev().find(|path| path.is_symlink())
}

/// Directories of the host's own, in and below which no site has its programs.
const HOSTS_OWN: &[&str] =
    &["/boot", "/dev", "/etc", "/proc", "/root", "/sys", "/var/lib/cellwall", "/var/log/cellwall"];
/// And such in which none has, but below them one may.
const HOSTS_SHARED: &[&str] = &[
    "/bin",
    "/lib",
    "/lib64",
    "/run",
    "/sbin",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/var",
    "/var/lib",
];
