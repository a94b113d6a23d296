//! `[files]` and the docroots: what the site's rules list of the host's files.

use std::path::{Path, PathBuf};

use crate::policy::{PathRule, Step, StepKind};

use super::{EXECUTE, READ, WRITE, Work};
use crate::config::closed;
use crate::config::compile::{Site, directory_made, pasted, value};
use crate::config::ground::{Found, Kind, closing};
use crate::config::problem::{Located, Place};
use crate::config::rules::Keyed;
use crate::config::values::JailKind;

/// The item without its `?`, and whether it had one.
fn optional(text: &str) -> (&str, bool) {
    text.strip_suffix('?').map_or((text, false), |text| (text, true))
}

/// What stands between the `|` of an item, and whether there may be none of it.
#[must_use]
pub fn alternatives(item: &Located<String>) -> (Vec<Located<String>>, bool) {
    let (text, optional) = optional(&item.value);
    let one = |text: &str| Located { value: text.trim().to_owned(), place: item.place.clone() };
    (text.split('|').map(one).collect(), optional)
}

impl Work<'_, '_, '_> {
    pub(super) fn docroots(&mut self) {
        let place = self.site.rules.docroot.key.clone().unwrap_or_else(|| self.site.file.place());
        for (path, found) in self.site.docroots {
            if self.root == Path::new("/") {
                let missing = if found.kind == Kind::Missing { PathRule::OPTIONAL } else { 0 };
                self.plan.path(found, EXECUTE | missing, &place);
                continue;
            }
            match found.real.strip_prefix(&self.root) {
                Ok(inside) if !inside.as_os_str().is_empty() => {
                    self.plan.rule(&Path::new("/").join(inside), EXECUTE)
                }
                _ => {
                    let message = format!("docroot {} is not below {}", path.display(), self.root.display());
                    let help = "a chroot's sites lie below jail.directory";
                    self.compiler.problems.error(Some(&place), message, help);
                }
            }
        }
    }

    pub(super) fn listed(&mut self) {
        let rules = self.site.rules;
        for (list, rights) in [(&rules.read, READ), (&rules.execute, EXECUTE), (&rules.write, WRITE)] {
            for item in &list.items {
                self.item(item, rights);
            }
        }
    }

    /// One item: a path, a pattern, or several of them with `|` between, of which one must be there.
    fn item(&mut self, item: &Located<String>, rights: u8) {
        let (alternatives, optional) = alternatives(item);
        let [single] = alternatives.as_slice() else {
            let mut any = false;
            for alternative in &alternatives {
                let Some(paths) = self.paths(alternative) else { return };
                for path in paths {
                    any |= self.one(&path, item, rights, true);
                }
            }
            if !any && !optional {
                self.nothing(item);
            }
            return;
        };
        let Some(paths) = self.paths(single) else { return };
        if paths.is_empty() && !optional && !self.site.docroots.is_empty() {
            self.nothing(item);
        }
        for path in paths {
            self.one(&path, item, rights, optional);
        }
    }

    /// The item's paths: placeholders filled in, `*` expanded. None: what is wrong with it was told.
    fn paths(&mut self, item: &Located<String>) -> Option<Vec<PathBuf>> {
        let errors = self.compiler.problems.errors();
        let path = self.compiler.filled(item, self.site.account, self.site.file);
        if self.compiler.problems.errors() > errors {
            return None;
        }
        let text = path.to_str()?.to_owned();
        let filled: Vec<PathBuf> = if text.contains("{docroot}") {
            let docroots = self.site.docroots.iter().map(|(path, _)| path.to_string_lossy());
            docroots.map(|docroot| PathBuf::from(text.replace("{docroot}", &docroot))).collect()
        } else {
            vec![path]
        };
        let (patterns, mut plain): (Vec<_>, Vec<_>) =
            filled.into_iter().partition(|path| path.to_string_lossy().contains('*'));
        for pattern in patterns {
            if !self.compiler.plain(&pattern, &item.place, "files") {
                return None;
            }
            plain.extend(self.compiler.ground.expand(&pattern));
        }
        Some(plain)
    }

    /// Beneath the /proc of a view's own, in which nothing can be shown besides: each launch would be refused (C06).
    fn in_own_processes(&mut self, path: &Path, place: &Place) -> bool {
        let own =
            self.site.kind() == JailKind::View && value(&self.site.rules.jail_processes).unwrap_or(false);
        let within = own && path != Path::new("/proc") && path.starts_with("/proc");
        if within {
            let message =
                format!("{} is not in a view's /proc, which has the site's processes alone", path.display());
            let help = "leave it out, or processes = true of [jail]: each works without the other";
            self.compiler.problems.error(Some(place), message, help);
        }
        within
    }

    /// Takes one path into the plan. False: it is not there, and may be missing.
    fn one(&mut self, path: &Path, item: &Located<String>, rights: u8, optional: bool) -> bool {
        let place = &item.place;
        if !self.compiler.plain(path, place, "files") {
            return true;
        }
        if path == Path::new("/") {
            let help = "name the directories that the site needs";
            self.compiler.problems.error(Some(place), "a rule for / would be no wall at all", help);
            return true;
        }
        if self.in_own_processes(path, place) {
            return true;
        }
        let found = self.compiler.ground.find(&self.root, path);
        if let Some((directory, mode)) = found.open.as_ref().filter(|_| optional && found.foreign.is_none()) {
            // Debian gives parts of /usr/local to its group staff. The launcher would refuse the whole cell.
            let message =
                format!("{} is left out: others than root may write to it ({mode:04o})", path.display());
            self.compiler.problems.warning(Some(place), message, closing(directory));
            return true;
        }
        if let Some(shared) = self.unshown(&found).filter(|_| found.kind != Kind::Missing || !optional) {
            let (path, shared) = (path.display(), shared.display());
            let message =
                format!("{path} is below {shared}, where everybody may put things: no view shows it");
            self.compiler.problems.error(Some(place), message, "name what only root can replace");
            return true;
        }
        if !self.services(&found, rights) && !self.compiler.owned(&found, place, self.site.account) {
            return true;
        }
        if found.kind == Kind::Missing && found.foreign.is_none() {
            // A docroot that is still to be made, or something below it, has had its warning.
            let announced = self.site.docroots.iter().any(|(docroot, _)| path.starts_with(docroot));
            if !optional && !announced {
                self.missing(path, &found, place);
            }
            if announced {
                self.plan.path(&found, rights | PathRule::OPTIONAL, place);
            }
            return announced;
        }
        if found.kind == Kind::Missing && !optional {
            self.not_yet(path, &found, place, rights);
        }
        self.closed(&found, place, rights);
        let optional = if optional && found.foreign.is_some() { PathRule::OPTIONAL } else { 0 };
        self.plan.path(&found, rights | optional, place);
        true
    }

    /// What the site's own file gives it, and the modes do not.
    fn closed(&mut self, found: &Found, place: &Place, rights: u8) {
        let Site { file, account, .. } = self.site;
        let way = self.site.kind() == JailKind::Host;
        if place.path() == file.path
            && self.root == Path::new("/")
            && let Some((message, help)) = closed::told(found, rights, &account.name, way)
        {
            self.compiler.problems.warning(Some(place), message, help);
        }
    }

    /// The directory for all above it, in a view: a launch would refuse to build on it.
    fn unshown(&mut self, found: &Found) -> Option<PathBuf> {
        let view = self.site.kind() == JailKind::View;
        view.then(|| self.compiler.ground.shared_above(&found.real)).flatten()
    }

    /// Something of the site's own that is still to be made.
    fn not_yet(&mut self, path: &Path, found: &Found, place: &Place, rights: u8) {
        let message = format!("{} does not exist; {} does", path.display(), found.nearest.display());
        let (account, rules) = (self.site.account, self.site.rules);
        let help = if rights & PathRule::WRITE == 0 {
            "until it does, the site is refused; `?` at its end makes it optional".to_owned()
        } else {
            let made = directory_made(found, &account.name, account, rules);
            format!("make it: {made} # until then the site is refused; `?` at its end makes it optional")
        };
        self.compiler.problems.warning(Some(place), message, help);
    }

    /// Sockets of the host's services. A service makes its socket anew at each start, and perhaps its directory: the
    /// directory is what is seen, and it may be missing while the service is down.
    pub(super) fn sockets(&mut self) {
        let rules = self.site.rules;
        for item in &rules.sockets.items {
            let (alternatives, optional) = alternatives(item);
            let mut any = false;
            for alternative in &alternatives {
                match self.paths(alternative) {
                    Some(paths) => paths.iter().for_each(|path| any |= self.socket(path, &item.place)),
                    None => any = true,
                }
            }
            if !any && !optional {
                let message = format!("no service listens at {}", item.value);
                let install = self.install(&item.place);
                let install = install.map_or_else(String::new, |how| format!("; if it is not there, {how}"));
                let help = format!("start the service{install}");
                self.compiler.problems.warning(Some(&item.place), message, help);
            }
        }
    }

    fn socket(&mut self, path: &Path, place: &Place) -> bool {
        if !self.compiler.plain(path, place, "files.sockets") {
            return true;
        }
        let kind = self.compiler.ground.find(&self.root, path).kind;
        if matches!(kind, Kind::Directory | Kind::File | Kind::Device) {
            let message = format!("{} is no socket", path.display());
            self.compiler.problems.error(Some(place), message, "name the socket itself");
            return true;
        }
        let there = kind != Kind::Missing;
        // Only below /run, where a service's directory holds what others may reach; /var/lib/mysql holds all data.
        let own = |above: &&Path| {
            above.parent() == Some(Path::new("/run")) || above.parent() == Some(Path::new("/var/run"))
        };
        let above = path.parent().filter(own);
        let found = self.compiler.ground.find(&self.root, above.unwrap_or(path));
        if self.services(&found, READ) || self.compiler.owned(&found, place, self.site.account) {
            self.plan.path(&found, READ | PathRule::OPTIONAL, place);
        }
        there
    }

    /// Files and directories of root's that stand at another place inside.
    pub(super) fn at(&mut self) {
        let rules = self.site.rules;
        for (target, Keyed { key, found: Located { value: source, place } }) in &rules.at.0 {
            let (text, optional) = optional(source);
            let (target, source) = (Path::new(target), Path::new(text));
            if !self.compiler.plain(target, key, "files.at")
                || !self.compiler.plain(source, place, "files.at")
            {
                continue;
            }
            if !self.below_root((source, place), (target, key)) {
                continue;
            }
            if self.site.kind() != JailKind::View {
                self.at_already(source, target, place);
                continue;
            }
            let found = self.compiler.ground.find(&self.root, source);
            match found.kind {
                Kind::Missing if optional => {}
                Kind::Missing => self.missing(source, &found, place),
                _ if !self.roots(&found, place) => {}
                kind => {
                    let directory = matches!(kind, Kind::Directory);
                    let kind = if directory { StepKind::BindDirectory } else { StepKind::BindFile };
                    let flags = Step::READ_ONLY | Step::NO_DEVICES | Step::NO_SET_ID;
                    self.plan.because(target, key);
                    self.plan.step(kind, &found.real, target, flags);
                    self.plan.rule(target, EXECUTE);
                }
            }
        }
    }

    /// Neither is `/` itself.
    fn below_root(&self, (source, place): (&Path, &Place), (target, key): (&Path, &Place)) -> bool {
        let (root, problems) = (Path::new("/"), &self.compiler.problems);
        if source == root {
            let help = "name the file or directory that is wanted";
            problems.error(Some(place), "a rule for / would be no wall at all", help);
        }
        if target == root {
            problems.error(Some(key), "nothing can stand in the place of /", "name a path below it");
        }
        source != root && target != root
    }

    /// `cellwall jail build` has put it there, in a chroot; the host's own root stays as it is.
    fn at_already(&mut self, source: &Path, target: &Path, place: &Place) {
        let found = self.compiler.ground.find(&self.root, target);
        let there = self.site.kind() == JailKind::Chroot && found.kind != Kind::Missing;
        if there && self.roots(&found, place) {
            self.plan.path(&found, EXECUTE, place);
        } else if !there {
            let message = format!("{} is not at {} in this jail", source.display(), target.display());
            let help = "a view has it, and so has a chroot that cellwall jail build makes";
            self.compiler.problems.warning(Some(place), message, help);
        }
    }

    /// Root's all the way, or an error.
    fn roots(&self, found: &Found, place: &Place) -> bool {
        let good = found.foreign.is_none() && found.open.is_none() && !found.goes_round();
        if !good {
            let message = format!("{} is not root's all the way", found.real.display());
            self.compiler.problems.error(Some(place), message, "name a file of root's");
        }
        good
    }

    /// What a service of the host offers to read (resolv.conf of systemd-resolved, a database's socket): its owner is
    /// an account below every site's, and nothing of it is written to or started.
    fn services(&self, found: &Found, rights: u8) -> bool {
        let service = found.foreign.as_ref().is_some_and(|(_, owner)| *owner < self.compiler.host.uid_min);
        service && rights == READ && found.open.is_none()
    }

    fn missing(&self, path: &Path, found: &Found, place: &Place) {
        let message = format!(
            "{} does not exist; the deepest that does is {}",
            path.display(),
            found.nearest.display()
        );
        self.lacking(message, "correct it, or write `?` at its end when it may be missing", place);
    }

    /// A pattern, or a list of alternatives, that nothing on this host is.
    fn nothing(&self, item: &Located<String>) {
        let message = format!("nothing on this host is {}", item.value);
        self.lacking(message, "correct it, or write `?` at its end when it may match nothing", &item.place);
    }

    /// In a chroot a piece asks for more than every site needs, and nothing is opened by what is not there.
    fn lacking(&self, message: String, help: &str, place: &Place) {
        let problems = &self.compiler.problems;
        match self.compiler.presets.behind(place) {
            Some(_) if self.site.kind() == JailKind::Chroot => {
                let message = format!("in {}: {message}", self.root.display());
                problems.warning(Some(place), message, self.install(place).unwrap_or_default());
            }
            _ => problems.error(Some(place), message, self.install(place).unwrap_or_else(|| help.to_owned())),
        }
    }

    /// What brings it: a package to the host, a copy to a chroot.
    pub(super) fn install(&self, place: &Place) -> Option<String> {
        match self.site.kind() {
            JailKind::Chroot => Some(format!(
                "run: cellwall jail build {} --site {}",
                pasted(&self.root),
                self.site.file.name
            )),
            JailKind::View | JailKind::Host => self.compiler.presets.install(place),
        }
    }
}
