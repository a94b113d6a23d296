//! From one site's file to its cell: merges the layers, asks the name service and the file system, checks, and writes
//! nothing.
//!
//! What only root can change and is wrong is an error. What the site's owner can change is at most a warning: no owner
//! may keep the administrator from applying the others' policies.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy::names::is_plain_path;
use crate::policy::{Enforcement, Links};
use crate::refusal::Pasted;

use super::accounts::{Account, Accounts, Listed};
use super::cell::{Cell, HostCell};
use super::ground::{Found, Ground, closing};
use super::host::HostRules;
use super::limits::Hierarchies;
use super::problem::{Located, Place, Problems};
use super::profiles::Presets;
use super::rules::{Many, Rules};
use super::sites::SiteFile;
use super::values::{Enforce, JailKind, Seccomp, Symlinks};
use super::{environment, jail, limits, pool, seccomp, store};

pub(super) use docroots::directory_made;
use identity::DANGEROUS_GROUPS;

mod docroots;
mod identity;

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
