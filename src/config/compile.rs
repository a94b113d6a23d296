//! From one site's file to its cell: merges the layers, asks the name service and the file system, checks, and writes
//! nothing.
//!
//! What only root can change and is wrong is an error. What the site's owner can change is at most a warning: no owner
//! may keep the administrator from applying the others' policies.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statfs::{AUTOFS_SUPER_MAGIC, statfs};

use crate::policy::names::is_plain_path;
use crate::policy::{Enforcement, Links};
use crate::refusal::Pasted;
use crate::sys::files;

use super::accounts::{Account, Accounts, Listed};
use super::cell::{Cell, HostCell};
use super::ground::{Found, Ground, Kind, closing};
use super::host::HostRules;
use super::limits::Hierarchies;
use super::problem::{Located, Place, Problems};
use super::profiles::Presets;
use super::reader::writes;
use super::rules::{Many, Rules};
use super::sites::SiteFile;
use super::values::{Enforce, JailKind, Seccomp, Symlinks};
use super::{SITES_DIRECTORY, environment, jail, limits, looks, pool, seccomp, store};

/// Supplementary groups that are as good as root, or that open the host's own data.
const DANGEROUS_GROUPS: &[&str] = &[
    "root",
    "shadow",
    "disk",
    "docker",
    "sudo",
    "wheel",
    "adm",
    "kmem",
    "lxd",
    "libvirt",
    "kvm",
    "staff",
    "systemd-journal",
];

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

/// Only PHP's program for CGI has this variable's name in it (sapi/cgi/cgi_main.c), not the one for the command line.
const PHPS: &[u8] = b"PHP_FCGI_CHILDREN\0";
/// And only that one has this (sapi/cli/php_cli_server.c).
const PHPS_CLI: &[u8] = b"PHP_CLI_SERVER_WORKERS\0";
/// Bytes of a program that is looked into: PHP's with all that can be compiled in is a third of it.
const PROGRAM_MAX: u64 = 64 << 20;

/// What compiling needs, and what it remembers between sites.
pub struct Compiler<'h> {
    /// `cellwall.toml`.
    pub rules: &'h HostRules,
    /// The host's part of every record.
    pub host: &'h HostCell,
    /// The name service.
    pub accounts: Accounts,
    /// The file system.
    pub ground: Ground,
    /// What is wrong so far.
    pub problems: Problems,
    pub(super) presets: Presets,
    hierarchies: Hierarchies,
    dangerous: BTreeSet<u32>,
    pub(super) root_links: Vec<(PathBuf, PathBuf)>,
    /// Programs of root's that were looked into.
    php: BTreeMap<PathBuf, Option<Php>>,
    /// The site is one of `[userdir]`: a user whose account or home is odd gets no site, and stops nobody else.
    one_of_many: bool,
    left_out: bool,
    /// Of the site in work.
    pub(super) code_owner: Option<u32>,
    /// Where each path of the site that was compiled last was asked for; none: nobody wants to know.
    pub reasons: Option<BTreeMap<PathBuf, Vec<Place>>>,
}

impl<'h> Compiler<'h> {
    /// A compiler for one host.
    #[must_use]
    pub fn new(rules: &'h HostRules, host: &'h HostCell, listed: &Arc<Listed>) -> Self {
        let mut accounts = Accounts::new(listed);
        let mut dangerous: BTreeSet<u32> =
            DANGEROUS_GROUPS.iter().filter_map(|name| accounts.group(name)).collect();
        dangerous.insert(0);
        for caller in
            rules.caller.items.iter().map(|caller| caller.value.as_str()).chain(super::DEFAULT_CALLER)
        {
            dangerous.extend(accounts.user(caller).map(|caller| caller.gid));
        }
        Self {
            rules,
            host,
            accounts,
            ground: Ground::default(),
            problems: Problems::default(),
            presets: Presets::default(),
            hierarchies: Hierarchies::here(),
            dangerous,
            root_links: jail::root_links(),
            php: BTreeMap::new(),
            one_of_many: false,
            left_out: false,
            code_owner: None,
            reasons: None,
        }
    }

    /// The rules of a site with all layers below them.
    pub fn merged(&mut self, file: &SiteFile) -> Rules {
        let written =
            [&file.rules, &self.rules.defaults].into_iter().find(|rules| rules.profile.key.is_some());
        let names = written.map(|rules| rules.profile.items.clone()).unwrap_or_default();
        let profile = self.presets.profiles(&names, &self.problems);
        let upper = file.rules.clone().over(self.rules.defaults.clone()).over(profile);
        let mut pieces = self.presets.pieces(&upper.pieces.items, &self.problems);
        // A piece says which ports its program needs; it is the site that says whether ports are restricted.
        for (ports, own) in [(&mut pieces.connect, &upper.connect), (&mut pieces.bind, &upper.bind)] {
            if own.key.is_none() {
                *ports = Many::default();
            }
        }
        limits::bounded(upper.over(pieces), &self.rules.limits_max)
    }

    /// Compiles one site. None: an error was reported.
    pub fn site(&mut self, file: &SiteFile) -> Option<(Account, Cell)> {
        let errors = self.problems.errors();
        (self.one_of_many, self.left_out) = (file.userdir.is_some(), false);
        let rules = self.merged(file);
        let account = self.account(file, &rules)?;
        let (group, groups) = self.groups(file, &account, &rules);
        self.code_owner = self.code_owner(&account, &rules);
        let docroots = self.docroots(file, &account, &rules);
        self.dangerous_keys(&rules);
        let (home, born) = self.home(&account);
        let place = Site { file, rules: &rules, account: &account, group: &group, docroots: &docroots };
        let jail = jail::compile(self, &place);
        let basic = self.basic(&account, &home, &jail.temporary);
        let set = environment::set(&rules, &basic, &self.problems);
        let group_name = format!("{}-{}", account.uid, file.name);
        let limits = limits::compile(
            &rules,
            &self.rules.limits_max,
            self.host.umask,
            (&self.hierarchies, &group_name),
            &self.problems,
        );
        let pass = environment::pass(&rules, &self.problems);
        let authorization = value(&rules.authorization).unwrap_or(false);
        let environment_max = environment_max(&rules);
        let beside =
            pool::Beside { jail: &jail, pass: &pass, authorization, environment_max, limits: &limits };
        let pool = pool::compile(self, &place, &beside);
        let cell = Cell {
            name: file.name.clone(),
            source: (file.path.clone(), file.modified),
            group,
            groups,
            code_owner: self.code_owner,
            home: (home, born),
            docroots: docroots.iter().map(|(_, found)| found.real.clone()).collect(),
            userdir: file.userdir.is_some(),
            programs: jail.programs,
            handlers: jail.handlers,
            links: links(&rules),
            hard_links: value(&rules.hard_links).unwrap_or(false),
            interpreters: jail.interpreters,
            jail: jail.jail,
            landlock: (enforcement(&rules), rules.landlock_abi.as_ref().map_or(1, |abi| abi.value.0)),
            rules: jail.rules,
            ports: (ports(&rules.connect), ports(&rules.bind)),
            seccomp: self.seccomp(&rules),
            log_denials: value(&rules.log_denials).unwrap_or(false),
            set_id_mail: value(&rules.set_id_mail).unwrap_or(false),
            limits,
            pass,
            authorization,
            set,
            environment_max,
            private: jail.private,
            accounts: jail.accounts,
            pool,
        };
        (self.problems.errors() == errors && !self.left_out).then_some((account, cell))
    }

    /// The variables that every program has.
    fn basic<'b>(
        &'b self,
        account: &'b Account,
        home: &'b Path,
        temporary: &'b str,
    ) -> [(&'static str, &'b str); 7] {
        [
            ("PATH", &self.host.safe_path),
            ("HOME", home.to_str().unwrap_or("/")),
            ("USER", &account.name),
            ("LOGNAME", &account.name),
            ("SHELL", "/bin/sh"),
            ("TMPDIR", temporary),
            ("LANG", "C"),
        ]
    }

    /// Whom the site runs as.
    pub fn account(&mut self, file: &SiteFile, rules: &Rules) -> Option<Account> {
        if let Some(account) = &file.userdir {
            return Some(account.clone());
        }
        let Some(user) = &rules.user else {
            // Of one that is no text it was told where it was read.
            if !writes(&file.document, "user") {
                let help = "write user = \"NAME\" as its first line";
                self.problems.error(Some(&file.place()), "the site names no user", help);
            }
            return None;
        };
        let Some(account) = self.accounts.user(&user.value) else {
            let renamed = self.renamed(&file.name);
            let help = match (renamed, super::reader::nearest(&user.value, self.accounts.names())) {
                (Some((name, uid)), _) => {
                    format!(
                        "uid {uid}, which has this site, is `{name}` now: write that if it is the same person"
                    )
                }
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => self.account_gone(&file.name, &user.value),
            };
            self.problems.error(Some(&user.place), format!("there is no user `{}`", user.value), help);
            return None;
        };
        if account.uid == 0 {
            self.problems.error(Some(&user.place), "no site runs as root", "give the site a user of its own");
        } else if account.uid == u32::MAX {
            let message = format!(
                "uid {} of `{}` is no user's: the kernel takes it for \"leave it\"",
                account.uid, account.name
            );
            self.problems.error(Some(&user.place), message, "give the account another uid: usermod -u");
        } else if account.uid < self.host.uid_min {
            let message = format!(
                "uid {} of `{}` is below minimum_uid {}",
                account.uid, account.name, self.host.uid_min
            );
            let help = "take another user, or lower minimum_uid in cellwall.toml";
            self.problems.error(Some(&user.place), message, help);
        } else if self.host.callers.contains(&account.uid) {
            let message = format!("`{}` is the web server, which calls the launcher", account.name);
            self.problems.error(Some(&user.place), message, "give the site a user of its own");
        }
        Some(account)
    }

    /// Whose the installed site is, where that account is still there.
    fn renamed(&mut self, site: &str) -> Option<(String, u32)> {
        let uid = store::holders(site, None).pop_first()?;
        let account = self.accounts.user_of(uid).ok().flatten()?;
        Some((account.name, uid))
    }

    /// As [`Self::account_made`]; of a site that was served the account may have gone for good, or has to be the same again.
    fn account_gone(&self, site: &str, name: &str) -> String {
        let made = self.account_made(name);
        match store::holders(site, None).pop_first() {
            Some(uid) if may_be_name(name) => {
                let file = Path::new(SITES_DIRECTORY).join(format!("{site}.toml"));
                let made = made.replace(" --user-group", &format!(" --uid {uid} --user-group"));
                format!("if it has gone: rm {} # if not, {made}", pasted(&file))
            }
            _ => made,
        }
    }

    /// How to make an account that may have a site. Not a system account: its uid is below `minimum_uid`.
    fn account_made(&self, name: &str) -> String {
        if !may_be_name(name) {
            return "no user can have that name: write one that there is".to_owned();
        }
        let numbers = match self.host.uid_min {
            0..=1000 => String::new(),
            minimum => format!(" -K UID_MIN={minimum} -K GID_MIN={minimum}"),
        };
        format!("make it: useradd --create-home --user-group --shell /usr/sbin/nologin{numbers} {name}")
    }

    fn groups(&mut self, file: &SiteFile, account: &Account, rules: &Rules) -> ((u32, String), Vec<u32>) {
        let place = rules.group.as_ref().or(rules.user.as_ref()).map(|one| one.place.clone());
        let gid = match &rules.group {
            Some(group) => self.named_group(group).unwrap_or(account.gid),
            None => account.gid,
        };
        if gid == 0 || gid < self.host.gid_min || self.dangerous.contains(&gid) {
            let message = if gid < self.host.gid_min {
                format!("gid {gid} is below minimum_gid {}", self.host.gid_min)
            } else {
                format!("group {gid} opens more than a site may have")
            };
            let place = place.clone().unwrap_or_else(|| file.place());
            let help = "write group = \"NAME\" with the site's own group".to_owned();
            self.complain(&place, format!("`{}`: {message}", account.name), help);
        }
        let mut all = BTreeSet::from([gid]);
        for item in &rules.groups.items {
            let Some(found) = self.named_group(item) else { continue };
            if found == 0 || self.dangerous.contains(&found) && !self.rules.allows_dangerous() {
                let message = format!("group `{}` opens more than a site may have", item.value);
                let help = "remove it; allow_dangerous = true in cellwall.toml permits all but root's";
                self.problems.error(Some(&item.place), message, help);
            } else {
                all.insert(found);
            }
        }
        for extra in self.accounts.supplementary(account) {
            if all.contains(&extra) {
                continue;
            }
            let dangerous = self.dangerous.contains(&extra);
            if self.one_of_many && (dangerous || extra < self.host.gid_min) {
                continue;
            }
            if dangerous || extra < self.host.gid_min {
                let name = self.accounts.group_name(extra).unwrap_or_else(|| extra.to_string());
                let why =
                    if dangerous { "it opens more than a site may have" } else { "it is below minimum_gid" };
                let message = format!("`{}` leaves out group `{name}`: {why}", account.name);
                let help = if dangerous {
                    String::new()
                } else {
                    format!("groups = [\"{name}\"] keeps it, groups = [] leaves it out without a word")
                };
                // Who names the groups has decided.
                if dangerous || rules.groups.key.is_none() {
                    self.problems.warning(place.as_ref(), message, help);
                }
            } else {
                all.insert(extra);
            }
        }
        let name = self.accounts.group_name(gid).unwrap_or_else(|| gid.to_string());
        ((gid, name), all.into_iter().collect())
    }

    /// Whose files the site's programs are, if not its own.
    fn code_owner(&mut self, account: &Account, rules: &Rules) -> Option<u32> {
        let Located { value: name, place } = rules.code_owner.as_ref()?;
        let found = self.accounts.user(name);
        match &found {
            None => {
                let help = self.account_made(name);
                self.problems.error(Some(place), format!("there is no user `{name}`"), help);
            }
            Some(owner) if owner.uid == account.uid => {
                let message =
                    format!("`{name}` is the user of the site itself, who could change its programs");
                self.problems.error(Some(place), message, "name the account that deploys, or leave it out");
            }
            Some(owner) if self.host.callers.contains(&owner.uid) => {
                let message = format!("`{name}` is the web server, which asks for programs and owns none");
                self.problems.error(Some(place), message, "name the account that deploys");
            }
            Some(_) => {}
        }
        found.map(|owner| owner.uid)
    }

    pub(super) fn named_group(&mut self, group: &Located<String>) -> Option<u32> {
        let found = self.accounts.group(&group.value);
        if found.is_none() {
            let help = match may_be_name(&group.value) {
                true => format!("make it: groupadd {}", group.value),
                false => "no group can have that name: write one that there is".to_owned(),
            };
            self.problems.error(Some(&group.place), format!("there is no group `{}`", group.value), help);
        }
        found
    }

    fn home(&mut self, account: &Account) -> (PathBuf, (u64, u64)) {
        if !is_plain_path(account.home.as_os_str().as_bytes()) {
            return (PathBuf::from("/"), (0, 0));
        }
        // The inode says whose home it is only where nobody but root can put another one there.
        let above = account.home.parent().map(|parent| self.ground.find(Path::new("/"), parent));
        let bound = above.is_some_and(|found| {
            // An automounter shows an empty place at one time, and the home at another.
            let shown = statfs(&found.real).is_ok_and(|facts| facts.filesystem_type() == AUTOFS_SUPER_MAGIC);
            found.kind == Kind::Directory && found.foreign.is_none() && !shown
        });
        let home = looks::at(&account.home, || std::fs::symlink_metadata(&account.home));
        let home = home.ok().filter(|home| bound && home.is_dir());
        let born = home.and_then(|_| files::birth(account.home.as_os_str().as_bytes()).ok());
        (account.home.clone(), born.unwrap_or_default())
    }

    fn docroots(&mut self, file: &SiteFile, account: &Account, rules: &Rules) -> Vec<(PathBuf, Arc<Found>)> {
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

    /// Something about one account or its home: an error for a site's file, which names it; for a rule about many
    /// users a reason to leave this one out.
    pub(super) fn complain(&mut self, place: &Place, message: String, help: String) {
        if self.one_of_many {
            self.left_out = true;
            self.problems.warning(Some(place), format!("no ~user site for this one: {message}"), help);
        } else {
            self.problems.error(Some(place), message, help);
        }
    }

    /// A path that others could replace is not one that root may build a cell on.
    pub(super) fn owned(&mut self, found: &Found, place: &Place, account: &Account) -> bool {
        if let Some((directory, mode)) = &found.open {
            let message = format!("others than root may write to {} (mode {mode:04o})", directory.display());
            self.complain(place, message, closing(directory));
            return false;
        }
        if found.goes_round() {
            let message = format!("the links at {} lead round in circles", found.real.display());
            self.complain(place, message, format!("see where they lead: namei {}", pasted(&found.real)));
            return false;
        }
        match &found.foreign {
            Some((top, owner)) if *owner != account.uid && Some(*owner) != self.code_owner => {
                let message = format!("{} belongs to uid {owner}, who could replace it", top.display());
                // A command that takes it away would end their sites.
                let help = if store::is_known(*owner) {
                    format!(
                        "name a path of {}'s or of root's: uid {owner} is whose sites these are",
                        account.name
                    )
                } else {
                    format!("run: chown -h root {0} # or: chown -h {1} {0}", pasted(top), account.name)
                };
                self.complain(place, message, help);
                false
            }
            _ => true,
        }
    }

    /// Absolute, and without anything that two programs could read in two ways.
    pub(super) fn plain(&self, path: &Path, place: &Place, what: &str) -> bool {
        let plain = is_plain_path(path.as_os_str().as_bytes());
        if !plain {
            let message = format!("{what}: `{}` is no plain absolute path", path.display());
            let text = path.to_string_lossy();
            let home = ["~", "$HOME", "${HOME}"].iter().find_map(|home| text.strip_prefix(home));
            let help = match home.filter(|_| what.starts_with("files") || what == "docroot") {
                Some(rest) => format!("the home of the site's user is {{home}}: write {{home}}{rest}"),
                None => "begin with / and write no `.`, no `..`, no `//` and no / at the end".to_owned(),
            };
            self.problems.error(Some(place), message, help);
        }
        plain
    }

    /// Which of PHP's programs one of root's is, whatever it is called.
    pub(super) fn php(&mut self, program: &Path) -> Option<Php> {
        if let Some(known) = self.php.get(program) {
            return *known;
        }
        let small = std::fs::metadata(program).is_ok_and(|facts| facts.len() <= PROGRAM_MAX);
        let bytes = small.then(|| std::fs::read(program).ok()).flatten().unwrap_or_default();
        let has = |mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
        let kinds = [(PHPS, Php::Cgi), (PHPS_CLI, Php::CommandLine)];
        let elf = bytes.starts_with(b"\x7fELF");
        let found = kinds.into_iter().find(|(mark, _)| elf && has(mark)).map(|(_, kind)| kind);
        self.php.insert(program.to_owned(), found);
        found
    }

    /// The item with {home}, {user} and {site} filled in.
    pub(super) fn filled(&self, item: &Located<String>, account: &Account, file: &SiteFile) -> PathBuf {
        let home = account.home.to_string_lossy();
        let text = item
            .value
            .replace("{home}", &home)
            .replace("{user}", &account.name)
            .replace("{site}", &file.name);
        if let Some((_, rest)) = text.split_once('{') {
            let name = rest.split('}').next().unwrap_or_default();
            if name != "docroot" {
                let message = format!("`{{{name}}}` stands for nothing");
                self.problems.error(Some(&item.place), message, "there are {home} {docroot} {user} {site}");
            }
        }
        PathBuf::from(OsStr::new(&text))
    }

    fn seccomp(&self, rules: &Rules) -> Arc<[u8]> {
        let tcp_rules = rules.connect.key.is_some() || rules.bind.key.is_some();
        let program = match value(&rules.seccomp) {
            Some(Seccomp::Off) => return Arc::from([]),
            Some(Seccomp::Baseline) | None => seccomp::shared(seccomp::Choices { tcp_rules }),
        };
        program.unwrap_or_else(|mistake| {
            let message = format!("the list of system calls in this program: {mistake}");
            self.problems.error(None, message, "this is an error of Cellwall's: report it");
            Arc::from([])
        })
    }

    fn dangerous_keys(&self, rules: &Rules) {
        let Some(mail) = rules.set_id_mail.as_ref().filter(|mail| mail.value) else { return };
        if !self.rules.allows_dangerous() {
            self.problems.error(
                Some(&mail.place),
                "dangerous_set_id_mail is not permitted on this host",
                "write allow_dangerous = true in cellwall.toml if the site must run set-id mail programs",
            );
        }
    }
}

/// One of PHP's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Php {
    /// php-cgi.
    Cgi,
    /// php.
    CommandLine,
}

/// A site on its way through the compiler.
pub(super) struct Site<'a> {
    pub(super) file: &'a SiteFile,
    pub(super) rules: &'a Rules,
    pub(super) account: &'a Account,
    pub(super) group: &'a (u32, String),
    pub(super) docroots: &'a [(PathBuf, Arc<Found>)],
}

impl Site<'_> {
    pub(super) fn kind(&self) -> JailKind {
        value(&self.rules.jail_kind).unwrap_or(JailKind::View)
    }
}

/// The command that makes a directory of a site's; the launcher wants its group as well.
pub(super) fn directory_made(found: &Found, owner: &str, account: &Account, rules: &Rules) -> String {
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

/// Whether useradd(8) and groupadd(8) take it for a name: what they make is pasted.
fn may_be_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let rest = |byte: u8| plain(byte) || byte.is_ascii_digit() || byte == b'-';
    name.bytes().next().is_some_and(plain) && name.bytes().all(rest) && name.len() <= 32
}

/// A path as one word of a shell.
pub(super) fn pasted(path: &Path) -> Pasted<'_> {
    Pasted(path.as_os_str().as_bytes())
}

/// The value without its place.
pub(super) fn value<T: Copy>(one: &Option<Located<T>>) -> Option<T> {
    one.as_ref().map(|one| one.value)
}

/// Most variables, and most bytes of them.
fn environment_max(rules: &Rules) -> (u16, u32) {
    let entries = rules.entries_max.as_ref().map_or(512, |most| most.value.0);
    (entries, rules.bytes_max.as_ref().map_or(262_144, |most| most.value.0))
}

fn enforcement(rules: &Rules) -> Enforcement {
    match value(&rules.landlock) {
        Some(Enforce::Required) | None => Enforcement::Required,
        Some(Enforce::BestEffort) => Enforcement::BestEffort,
        Some(Enforce::Off) => Enforcement::Off,
    }
}

fn links(rules: &Rules) -> Links {
    match value(&rules.symlinks) {
        Some(Symlinks::OwnerMatch) => Links::OwnerMatch,
        Some(Symlinks::Deny) | None => Links::Deny,
    }
}

fn ports(list: &super::rules::Many<super::values::Port>) -> Option<Vec<u16>> {
    let all: BTreeSet<u16> = list.items.iter().map(|port| port.value.0).collect();
    list.key.as_ref().map(|_| all.into_iter().collect())
}
