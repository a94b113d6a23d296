//! The jail of a site: its kind, its paths, its devices, its private directories, and the rules that go with them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::launch::interpreter::is_php_cgi;
use crate::policy::names::is_plain_path;
use crate::policy::{PRIVATE_DIRECTORY, PathRule, Step, StepKind};

use super::accounts::Account;
use super::cell::{Handlers, JailCell};
use super::closed;
use super::compile::{Compiler, Php, Site, directory_made, pasted, value};
use super::fold;
use super::ground::{Found, Kind, closing, near};
use super::problem::{Located, Place};
use super::profiles::PHP_SETTINGS;
use super::rules::Keyed;
use super::values::{JailKind, Words};
use super::view::{Plan, id};

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

struct Work<'c, 'h, 's> {
    compiler: &'c mut Compiler<'h>,
    site: &'c Site<'s>,
    /// Where paths begin: the chroot's directory, or `/`.
    root: PathBuf,
    plan: Plan,
}

impl Work<'_, '_, '_> {
    fn docroots(&mut self) {
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

    fn listed(&mut self) {
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
    fn sockets(&mut self) {
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
    fn at(&mut self) {
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
    fn install(&self, place: &Place) -> Option<String> {
        match self.site.kind() {
            JailKind::Chroot => Some(format!(
                "run: cellwall jail build {} --site {}",
                pasted(&self.root),
                self.site.file.name
            )),
            JailKind::View | JailKind::Host => self.compiler.presets.install(place),
        }
    }

    /// Programs, interpreters and handlers: root's files, which the site may start.
    fn programs(&mut self) -> (Vec<PathBuf>, Vec<PathBuf>, Handlers) {
        let rules = self.site.rules;
        let (mut programs, mut interpreters) = (Vec::new(), Vec::new());
        for item in &rules.programs.items {
            programs.extend(self.named(item));
        }
        for item in &rules.interpreters.items {
            if self.own_interpreter(item) {
                interpreters.push(PathBuf::from(&item.value));
            } else {
                interpreters.extend(self.named(item));
            }
        }
        let mut handlers = Vec::new();
        for (suffix, Keyed { key, found: Located { value: Words(words), place } }) in &rules.handlers.0 {
            if suffix.len() < 2 || !suffix.starts_with('.') || suffix.contains('/') {
                let help = "write \".php\" = \"/usr/bin/php-cgi\"";
                let message = format!("`{suffix}` is no ending of a file name");
                self.compiler.problems.error(Some(key), message, help);
            }
            match words.first() {
                Some(program) if self.program(program, place) => {
                    self.named_php(program, place);
                    self.serving_php(program, place);
                    self.lost_words(words, place);
                    handlers.push((suffix.clone(), words.clone()));
                }
                Some(_) => {}
                None => self.compiler.problems.error(
                    Some(place),
                    "the handler names no program",
                    "write its path",
                ),
            }
        }
        self.pool();
        (programs, interpreters, handlers)
    }

    /// The programs of an item: one, or all of root's that a pattern fits.
    fn named(&mut self, item: &Located<String>) -> Vec<PathBuf> {
        let Located { value, place } = item;
        if !value.contains('*') {
            return self.program(value, place).then(|| PathBuf::from(value)).into_iter().collect();
        }
        if !self.compiler.plain(Path::new(value), place, "program") {
            return Vec::new();
        }
        let mut all = self.compiler.ground.expand(Path::new(value));
        all.retain(|path| self.is_program(path));
        if all.is_empty() {
            let message = format!("nothing on this host is {value}");
            let help = "correct it: no program of root's has such a name";
            self.compiler.problems.error(Some(place), message, help);
        }
        all.retain(|path| path.to_str().is_some_and(|text| self.program(text, place)));
        all
    }

    /// A directory may hold other files as well.
    fn is_program(&mut self, path: &Path) -> bool {
        let found = self.compiler.ground.find(&self.root, path);
        let real = self.root.join(found.real.strip_prefix("/").unwrap_or(&found.real));
        let mode = std::fs::symlink_metadata(&real).map_or(0, |facts| facts.mode());
        found.kind == Kind::File && found.foreign.is_none() && found.open.is_none() && mode & 0o111 != 0
    }

    /// A Python environment's, say: the launcher takes one of the site's own where it is listed by name.
    fn own_interpreter(&mut self, item: &Located<String>) -> bool {
        let path = Path::new(&item.value);
        if !is_plain_path(item.value.as_bytes()) {
            return false;
        }
        let found = self.compiler.ground.find(&self.root, path);
        let owner = self.compiler.code_owner.unwrap_or(self.site.account.uid);
        let own = found.foreign.as_ref().is_some_and(|(_, uid)| *uid == owner);
        // What a link of the site's leads to has a rule of its own.
        if own && found.kind == Kind::File {
            self.plan.path(&found, EXECUTE, &item.place);
        }
        own && matches!(found.kind, Kind::File | Kind::Link)
    }

    /// The pool's program: root's, or one below a docroot, which the launcher looks at.
    fn pool(&mut self) {
        let rules = self.site.rules;
        if let Some(Located { value: Words(words), place }) = &rules.pool_command {
            let program = words.first().map_or("", String::as_str);
            let own = self.site.docroots.iter().any(|(docroot, _)| Path::new(program).starts_with(docroot));
            if own && self.compiler.plain(Path::new(program), place, "pool.command") {
                self.own_program(Path::new(program), place);
            } else if self.program(program, place) {
                self.named_php(program, place);
            }
        }
    }

    /// The site's own business, and worth a word. In a docroot that is not there either, that has been said.
    fn own_program(&mut self, program: &Path, place: &Place) {
        let found = self.compiler.ground.find(Path::new("/"), program);
        let above = self.site.docroots.iter().any(|(docroot, _)| found.nearest.starts_with(docroot));
        if self.site.kind() != JailKind::Chroot && found.kind == Kind::Missing && above {
            let message = format!("{} does not exist; {} does", program.display(), found.nearest.display());
            let help = "put the program there, or correct the path: until then the pool cannot start";
            self.compiler.problems.warning(Some(place), message, help);
        }
    }

    /// PHP's program for CGI runs what the environment names. The launcher knows it by its name, and puts the file there that
    /// was verified; Debian has it as /usr/lib/cgi-bin/php as well.
    fn named_php(&mut self, text: &str, place: &Place) {
        if is_php_cgi(text.as_bytes()) || self.php(text) != Some(Php::Cgi) {
            return;
        }
        let message = format!("{text} is PHP's program for CGI under a name that does not say so");
        let help = "write /usr/bin/php-cgi, or make a link to it that is called php-cgi and name that";
        self.compiler.problems.error(Some(place), message, help);
    }

    /// The one for the command line is asked for pages by mistake; a script that prints its own headers may want it.
    fn serving_php(&mut self, text: &str, place: &Place) {
        if self.php(text) == Some(Php::CommandLine) {
            let message = format!("{text} is PHP's program for the command line: its pages have no headers");
            let help = "write /usr/bin/php-cgi, which comes with the package php-cgi";
            self.compiler.problems.warning(Some(place), message, help);
        }
    }

    /// As a CGI program PHP takes no word of its command line where the query begins with a hyphen (its guard since
    /// CVE-2012-1823): a visitor decides whether they hold.
    fn lost_words(&mut self, words: &[String], place: &Place) {
        let Some((program, [_, ..])) = words.split_first() else { return };
        if self.php(program) != Some(Php::Cgi) {
            return;
        }
        let directory = format!("/etc/cellwall/php/{}", self.site.file.name);
        let message = format!("a query that begins with `-` takes all words from {program}");
        let help = format!(
            "write {program:?} alone, and the values into {directory}/values.ini; then run: cellwall set {0} files.read \
             {directory} && cellwall set {0} environment.set.PHP_INI_SCAN_DIR :{PHP_SETTINGS}:{directory}",
            self.site.file.name
        );
        self.compiler.problems.error(Some(place), message, help);
    }

    fn php(&mut self, text: &str) -> Option<Php> {
        let found = self.compiler.ground.find(&self.root, Path::new(text));
        let real = self.root.join(found.real.strip_prefix("/").unwrap_or(&found.real));
        (found.kind == Kind::File).then(|| self.compiler.php(&real)).flatten()
    }

    /// What was probably meant by a program that is not there.
    fn nearby(&self, path: &Path) -> String {
        let near = || {
            let place = self.root.join(path.parent()?.strip_prefix("/").ok()?);
            Some(path.with_file_name(near(&place, path.file_name()?.to_str()?)?.file_name()?))
        };
        match near() {
            Some(near) => format!("did you mean {}? else install it", near.display()),
            None => "install it, or correct the path".to_owned(),
        }
    }

    fn program(&mut self, text: &str, place: &Place) -> bool {
        let path = Path::new(text);
        if !self.compiler.plain(path, place, "program") {
            return false;
        }
        let found = self.compiler.ground.find(&self.root, path);
        let problems = &self.compiler.problems;
        if found.kind == Kind::Missing && found.foreign.is_none() {
            let message =
                format!("{text} does not exist; the deepest that does is {}", found.nearest.display());
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            let first = words
                .first()
                .filter(|first| words.len() > 1 && self.root.join(first.trim_start_matches('/')).exists());
            let help = match first {
                Some(_) => format!("write {words:?}: each word by itself"),
                None => self.install(place).unwrap_or_else(|| self.nearby(path)),
            };
            problems.error(Some(place), message, help);
            return false;
        }
        if let Some((top, owner)) = &found.foreign {
            let message = format!("{} belongs to uid {owner}, who could replace {text}", top.display());
            problems.error(Some(place), message, format!("run: chown -h root {}", pasted(top)));
            return false;
        }
        if !matches!(found.kind, Kind::File | Kind::Hidden) || found.open.is_some() {
            let help = match found.kind {
                Kind::Directory => format!("name a file of root's, or all of them: {text}/*"),
                _ => "name a file of root's".to_owned(),
            };
            problems.error(Some(place), format!("{text} is no program that is root's all the way"), help);
            return false;
        }
        let real = self.root.join(found.real.strip_prefix("/").unwrap_or(&found.real));
        let mode = std::fs::symlink_metadata(&real).map_or(0o777, |facts| facts.mode() & 0o7777);
        if mode & 0o111 == 0 {
            let message = format!("{text} is not executable ({mode:04o})");
            problems.error(Some(place), message, format!("run: chmod a+x {}", pasted(&real)));
            return false;
        }
        self.plan.path(&found, EXECUTE, place);
        true
    }

    fn devices(&mut self) {
        let view = self.site.kind() == JailKind::View;
        let default = ["null", "zero", "full", "random", "urandom"].map(|name| (name.to_owned(), None));
        let written = &self.site.rules.devices;
        let items: Vec<(String, Option<Place>)> = match written.key {
            None => default.into(),
            Some(_) => {
                written.items.iter().map(|item| (item.value.clone(), Some(item.place.clone()))).collect()
            }
        };
        for (name, place) in items {
            let path = Path::new("/dev").join(name.strip_prefix("/dev/").unwrap_or(&name));
            let found = self.compiler.ground.find(&self.root, &path);
            if found.kind != Kind::Device || found.real != path {
                // Those that were not asked for by name may be missing, in a container for example.
                if place.is_some() {
                    let help = "there are null, zero, full, random, urandom, tty and what else is in /dev";
                    self.compiler.problems.error(
                        place.as_ref(),
                        format!("{} is no device", path.display()),
                        help,
                    );
                }
                continue;
            }
            let rights = match path.to_str() {
                Some("/dev/random" | "/dev/urandom") => READ,
                Some("/dev/null" | "/dev/zero" | "/dev/full") => WRITE,
                _ => WRITE | PathRule::CONTROL,
            };
            self.plan.rule(&path, rights);
            if view {
                self.plan.step(
                    StepKind::BindFile,
                    &path,
                    &path,
                    Step::READ_ONLY | Step::NO_EXEC | Step::NO_SET_ID,
                );
            }
        }
        if view {
            let flags = Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID;
            self.plan.step(StepKind::Memory, "", "/dev/shm", flags);
            self.plan.rule(Path::new("/dev/shm"), WRITE);
        }
    }

    /// The site's own /tmp and its like. A chroot has those that its administrator made.
    fn private(&mut self) -> (String, Vec<String>) {
        let written = &self.site.rules.private;
        let mut targets: Vec<PathBuf> = Vec::new();
        for item in &written.items {
            let path = PathBuf::from(&item.value);
            if path == Path::new("/") {
                let help = "name directories below it, such as \"/tmp\" and \"/var/tmp\"";
                self.compiler.problems.error(Some(&item.place), "/ cannot be private", help);
            } else if self.compiler.plain(&path, &item.place, "jail.private") && !targets.contains(&path) {
                self.plan.because(&path, &item.place);
                targets.push(path);
            }
        }
        if written.key.is_none() {
            targets = ["/tmp", "/var/tmp"].map(PathBuf::from).into();
        }
        if self.site.kind() == JailKind::Chroot {
            targets.iter().for_each(|target| self.plan.rule(target, WRITE | PathRule::OPTIONAL));
            return (
                targets.first().map_or_else(|| "/tmp".to_owned(), |path| path.display().to_string()),
                Vec::new(),
            );
        }
        let mut names = Vec::new();
        let mut temporary = None;
        for target in &targets {
            let name = target.to_string_lossy().trim_start_matches('/').replace('/', "-");
            let directory = self.own_directory().join(&name);
            let inside = match self.site.kind() {
                JailKind::View => {
                    let flags = Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID | Step::SITE;
                    self.plan.step(StepKind::BindDirectory, &directory, target, flags);
                    target.clone()
                }
                JailKind::Host | JailKind::Chroot => directory,
            };
            self.plan.rule(&inside, WRITE);
            temporary.get_or_insert_with(|| inside.display().to_string());
            names.push(name);
        }
        (temporary.unwrap_or_else(|| "/tmp".to_owned()), names)
    }

    /// A private directory is empty at first: nothing that the site's rules name can be seen beneath it, and a view in which
    /// it should be cannot be made.
    fn hidden(&self) {
        for item in &self.site.rules.private.items {
            let target = Path::new(&item.value);
            let docroot = self.site.docroots.iter().find(|(docroot, _)| docroot == target);
            let link = self.compiler.root_links.iter().find(|(link, _)| link == target);
            let equal = docroot.map(|(path, _)| path.clone()).or_else(|| link.map(|(path, _)| path.clone()));
            if let Some(hidden) = equal.or_else(|| self.plan.beneath(target)) {
                let (target, hidden) = (target.display(), hidden.display());
                let message = format!("a private {target} would hide {hidden}, which the site's rules name");
                let help = "name what lies beneath it and is to be private, or another directory";
                self.compiler.problems.error(Some(&item.place), message, help);
            }
        }
    }

    fn own_directory(&self) -> PathBuf {
        Path::new(PRIVATE_DIRECTORY).join(self.site.account.uid.to_string()).join(&self.site.file.name)
    }

    fn processes(&mut self) {
        self.plan.rule(Path::new("/proc"), READ);
        if self.site.kind() != JailKind::View {
            return;
        }
        let flags = Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID;
        self.plan.step(StepKind::Processes, "", "/proc", flags);
        // Shells use them for process substitution.
        for (name, text) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            let text = Path::new("/proc/self").join(text);
            self.plan.step(StepKind::Link, text, Path::new("/dev").join(name), 0);
        }
    }

    /// A view has its own.
    fn accounts(&mut self) -> (String, String) {
        for name in ["passwd", "group"] {
            let source = self.own_directory().join(".etc").join(name);
            let target = Path::new("/etc").join(name);
            let flags = Step::READ_ONLY | Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID;
            self.plan.rule(&target, READ);
            self.plan.step(StepKind::BindFile, source, target, flags);
        }
        accounts(&[(self.site.account, self.site.group)])
    }
}

/// /etc/passwd and /etc/group with these accounts, each with its group, and no neighbours.
#[must_use]
pub fn accounts(all: &[(&Account, &(u32, String))]) -> (String, String) {
    let mut passwd = "root:x:0:0:root:/root:/usr/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        .to_owned();
    let mut groups = "root:x:0:\nnogroup:x:65534:\n".to_owned();
    for (account, (gid, group)) in all {
        let Account { name, uid, home, .. } = account;
        passwd.push_str(&format!("{name}:x:{uid}:{gid}::{}:/bin/sh\n", home.display()));
        groups.push_str(&format!("{group}:x:{gid}:\n"));
    }
    (passwd, groups)
}
