//! The whole configuration: the host's part, all sites grouped by uid, and the record of each uid.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

use crate::policy::names::is_plain_path;
use crate::policy::{Format, Record, Sink, Site, decode, encode};
use crate::pool::settings;

use super::accounts::{Account, Accounts, Listed};
use super::cell::{Cell, HostCell};
use super::compile::Compiler;
use super::ground::matches;
use super::host::HostRules;
use super::problem::{Document, Located, Place, Problem, Problems};
use super::profiles::Kind;
use super::reader::{nearest, writes};
use super::values::{LogFormat, LogTo};
use super::{DEFAULT_CALLER, HOST_FILE, SITES_DIRECTORY, listeners, logs, sites, store};

/// `cellwall.toml`, read and compiled.
#[derive(Debug)]
pub struct WholeHost {
    /// Its keys.
    pub rules: HostRules,
    /// Its part of the policy.
    pub cell: HostCell,
    /// Its modification time, nanoseconds since 1970.
    pub modified: u64,
}

impl WholeHost {
    /// Reads the host's file, or `candidate` in its place.
    pub fn load(candidate: Option<&Path>, accounts: &mut Accounts, problems: &Problems) -> Self {
        let path = candidate.unwrap_or(Path::new(HOST_FILE));
        // The records' own directory is made, and mended, by `store`; the launcher distrusts all above as well.
        let presets = [Kind::Profile, Kind::Piece].map(Kind::directories);
        sites::trusted(&[&[SITES_DIRECTORY, "/var/lib"], presets.as_flattened()].concat(), problems);
        let read = if candidate.is_none() && !sites::is_taken(path) {
            let help = "the defaults hold; policy/cellwall.toml is the commented example";
            problems.warning(None, format!("there is no {HOST_FILE}"), help);
            None
        } else {
            sites::read_file(path, candidate.is_none(), problems)
        };
        let (rules, modified) = match read {
            Some((text, modified)) => (HostRules::read(&Document::new(path, text), problems), modified),
            None => (HostRules::default(), 0),
        };
        let cell = host_cell(&rules, accounts, problems);
        logs::host(&cell, rules.log_file.as_ref().map(|file| &file.place), problems);
        Self { rules, cell, modified }
    }
}

fn host_cell(rules: &HostRules, accounts: &mut Accounts, problems: &Problems) -> HostCell {
    let callers = callers(rules, accounts, problems);
    let path = |one: &Option<Located<String>>, name: &str, default: &str| {
        let plain = one.as_ref().filter(|one| {
            let plain = is_plain_path(one.value.as_bytes());
            if !plain {
                let help = "begin with / and write no `.`, no `..`, no `//` and no / at the end";
                problems.error(
                    Some(&one.place),
                    format!("{name}: `{}` is no plain absolute path", one.value),
                    help,
                );
            }
            plain
        });
        PathBuf::from(plain.map_or(default, |one| one.value.as_str()))
    };
    let safe_path = rules.path.as_ref().map_or("/usr/local/bin:/usr/bin:/bin", |path| path.value.as_str());
    if let Some(written) = &rules.path
        && !safe_path.split(':').all(|part| is_plain_path(part.as_bytes()))
    {
        let help = "write absolute directories with `:` between them";
        problems.error(Some(&written.place), "path holds something else than absolute directories", help);
    }
    let userdir = userdir_suffix(rules, problems);
    HostCell {
        caller_name: callers.first().map(|(name, _)| name.clone()).unwrap_or_default(),
        callers: callers.into_iter().map(|(_, uid)| uid).collect(),
        uid_min: rules.minimum_uid.as_ref().map_or(1000, |least| least.value.0),
        gid_min: rules.minimum_gid.as_ref().map_or(1000, |least| least.value.0),
        docroot: path(&rules.docroot, "docroot", "/"),
        userdir,
        safe_path: safe_path.to_owned(),
        umask: rules.umask.as_ref().map_or(0o022, |mask| mask.value.0),
        sink: match rules.log_to.as_ref().map(|to| to.value) {
            Some(LogTo::Syslog) => Sink::Syslog,
            Some(LogTo::File) | None => Sink::File,
        },
        log_file: path(&rules.log_file, "log.file", "/var/log/cellwall/cellwall.log"),
        strict: rules.log_strict.as_ref().is_none_or(|strict| strict.value),
        format: match rules.log_format.as_ref().map(|format| format.value) {
            Some(LogFormat::Suexec) => Format::Suexec,
            Some(LogFormat::Cellwall) | None => Format::Keys,
        },
    }
}

fn callers(rules: &HostRules, accounts: &mut Accounts, problems: &Problems) -> Vec<(String, u32)> {
    let written = &rules.caller;
    let mut all = Vec::new();
    let line = format!("caller = \"{}\"", apache_here(accounts));
    let names = written.items.iter().map(|item| (item.value.as_str(), Some(&item.place)));
    let default = DEFAULT_CALLER.iter().map(|name| (*name, None)).filter(|_| written.key.is_none());
    for (name, place) in names.chain(default) {
        match accounts.user(name) {
            Some(Account { uid: 0, .. }) => {
                problems.error(place, "root is no caller", format!("name the web server's user: {line}"));
            }
            Some(account) => all.push((account.name, account.uid)),
            None => {
                let help = || format!("name the web server's user in cellwall.toml: {line}");
                let help = Accounts::doubt(name).unwrap_or_else(help);
                problems.error(place, format!("there is no user `{name}`, who may call the launcher"), help);
            }
        }
    }
    let told = rules.document.as_ref().is_some_and(|document| writes(document, "caller"));
    if written.items.is_empty() && written.key.is_some() && !told {
        problems.error(written.key.as_ref(), "nobody may call the launcher", format!("write {line}"));
    }
    all
}

/// The account of Apache on this host, which each distribution calls otherwise: Debian, Fedora, Arch, SUSE.
fn apache_here(accounts: &mut Accounts) -> &'static str {
    let names = ["www-data", "apache", "http", "wwwrun"];
    names.into_iter().find(|name| accounts.user(name).is_some()).unwrap_or(DEFAULT_CALLER[0])
}

fn userdir_suffix(rules: &HostRules, problems: &Problems) -> String {
    if !rules.userdir_enabled.as_ref().is_some_and(|enabled| enabled.value) {
        return String::new();
    }
    let Some(suffix) = &rules.userdir_suffix else { return "public_html".to_owned() };
    if !is_plain_path(format!("/{}", suffix.value).as_bytes()) || suffix.value.is_empty() {
        let message = format!("userdir.suffix: `{}` is no plain relative path", suffix.value);
        problems.error(Some(&suffix.place), message, "write suffix = \"public_html\"");
        // Once, and not for each user again.
        return "public_html".to_owned();
    }
    suffix.value.clone()
}

/// Where a site comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file; not trusted: a candidate that is not installed.
    File {
        /// The site's name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Must belong to root.
        trusted: bool,
    },
    /// The rule of `[userdir]`.
    Userdir(Account),
}

impl Origin {
    /// An installed site.
    #[must_use]
    pub fn installed(name: &str) -> Self {
        let path = Path::new(SITES_DIRECTORY).join(format!("{name}.toml"));
        Self::File { name: name.to_owned(), path, trusted: true }
    }

    /// The site's name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File { name, .. } => name.clone(),
            Self::Userdir(account) => format!("~{}", account.name),
        }
    }

    /// Whether its file is there, be it a link that leads nowhere; a user's site has no file of its own.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self {
            Self::File { path, .. } => sites::is_taken(path),
            Self::Userdir(_) => true,
        }
    }

    /// Its text and rules.
    pub fn read(&self, host: &WholeHost, problems: &Problems) -> Option<sites::SiteFile> {
        match self {
            Self::File { name, path, trusted } => sites::read(name, path, *trusted, problems),
            Self::Userdir(account) => sites::userdir(&host.rules, account, host.cell.uid_min, host.modified),
        }
    }

    /// The uid that its file names, without any message: that is the compiler's business.
    pub fn uid(&self, host: &WholeHost, accounts: &mut Accounts) -> Option<u32> {
        match self {
            Self::Userdir(account) => Some(account.uid),
            Self::File { .. } => {
                let file = self.read(host, &Problems::default())?;
                accounts.user(&file.rules.user?.value).map(|account| account.uid)
            }
        }
    }
}

/// The record of one uid, ready to be written.
#[derive(Debug)]
pub struct Ready {
    /// The uid.
    pub uid: u32,
    /// The record.
    pub bytes: Vec<u8>,
    /// The record of its pools; none: it has no pool.
    pub pools: Option<Vec<u8>>,
    /// Its sites.
    pub cells: Vec<Cell>,
}

/// Sites of one uid; no uid: their files do not say whose they are, which is an error when they are compiled.
pub type Group = (Option<u32>, Vec<Origin>);

/// Groups sites by the uid that their files name.
#[must_use]
pub fn group(host: &WholeHost, listed: &Arc<Listed>, origins: Vec<Origin>) -> Vec<Group> {
    let found = Mutex::new(BTreeMap::<Option<u32>, Vec<Origin>>::new());
    let chunk = origins.len().div_ceil(workers()).max(1);
    let results = &found;
    std::thread::scope(|scope| {
        for part in origins.chunks(chunk) {
            scope.spawn(move || {
                let mut accounts = Accounts::new(listed);
                for origin in part {
                    let uid = origin.uid(host, &mut accounts);
                    let mut found = results.lock().unwrap_or_else(PoisonError::into_inner);
                    found.entry(uid).or_default().push(origin.clone());
                }
            });
        }
    });
    let mut groups: Vec<Group> =
        found.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
    // The workers come in any order; what is told and written must not.
    groups.iter_mut().for_each(|(_, origins)| origins.sort_by_cached_key(Origin::name));
    groups
}

/// Compiles all groups, on all processors. `ready` gets each record as it is done; `done` counts groups. `gone`: there are
/// installed sites beside these, but those of the uids in it; none: these are all.
pub fn compile(
    host: &WholeHost,
    listed: &Arc<Listed>,
    groups: &[Group],
    gone: Option<&BTreeSet<u32>>,
    done: &AtomicUsize,
    ready: impl Fn(Ready, &Problems) + Sync,
) -> Vec<Problem> {
    let next = AtomicUsize::new(0);
    let (all, pools) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers().min(groups.len()) {
            scope.spawn(|| {
                let mut compiler = Compiler::new(&host.rules, &host.cell, listed);
                while let Some((uid, origins)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(record) = record(&mut compiler, host, *uid, origins) {
                        let mut pools = pools.lock().unwrap_or_else(PoisonError::into_inner);
                        pools.extend(listeners::of(record.uid, &record.cells));
                        drop(pools);
                        ready(record, &compiler.problems);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(compiler.problems.into_sorted());
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let pools = pools.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.extend(listeners::check(host, groups, pools, gone));
    all
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The record of one uid.
pub fn record(
    compiler: &mut Compiler<'_>,
    host: &WholeHost,
    uid: Option<u32>,
    origins: &[Origin],
) -> Option<Ready> {
    let errors = compiler.problems.errors();
    let mut cells: Vec<(Account, Cell, Place)> = Vec::new();
    for origin in origins {
        let Some(file) = origin.read(host, &compiler.problems) else { continue };
        let place = file.rules.docroot.key.clone().unwrap_or_else(|| file.place());
        let Some((account, cell)) = compiler.site(&file) else { continue };
        if Some(account.uid) == uid {
            cells.push((account, cell, place));
        } else {
            let message = format!("{} was changed while it was read", file.path.display());
            compiler.problems.error(Some(&place), message, "run the command again");
        }
    }
    let overlap: Vec<_> = cells
        .iter()
        .map(|(_, cell, place)| (cell.name.clone(), cell.docroots.clone(), cell.userdir, place.clone()))
        .collect();
    sites::overlapping(&overlap, &compiler.problems);
    cells.sort_by(|(_, one, _), (_, other, _)| {
        other.longest_docroot().cmp(&one.longest_docroot()).then_with(|| one.name.cmp(&other.name))
    });
    let (account, _, place) = cells.first()?;
    let (uid, user, place) = (account.uid, account.name.clone(), place.clone());
    let cells: Vec<Cell> = cells.into_iter().map(|(_, cell, _)| cell).collect();
    let sites: Vec<_> = cells.iter().map(Cell::site).collect();
    let pool = |(cell, site): (&Cell, &Site<'_>)| {
        Some((cell.pool.as_ref()?.record.clone(), settings::rules(user.as_bytes(), site)))
    };
    let pools: Vec<(Vec<u8>, u64)> = cells.iter().zip(&sites).filter_map(pool).collect();
    let bytes = encode::record(&Record {
        host: host.cell.host(),
        uid,
        user: user.as_bytes(),
        listed: compiler.accounts.is_local(&user, uid),
        sites,
    });
    // The launcher's own reader has the last word: what it would refuse is never written.
    if let Err(error) = decode::record(&bytes) {
        let message = format!("the record of uid {uid} is not one that the launcher takes: {error}");
        compiler.problems.error(Some(&place), message, "divide its sites among several users, or report it");
    }
    let pools = (!pools.is_empty()).then(|| settings::encode_file(uid, &pools));
    (compiler.problems.errors() == errors).then_some(Ready { uid, bytes, pools, cells })
}

/// All sites of the host: the files, and the users of `[userdir]`.
pub fn everything(host: &WholeHost, listed: &Arc<Listed>, problems: &Problems) -> Vec<Origin> {
    let names = sites::list(Path::new(SITES_DIRECTORY), problems);
    let files = names.iter().map(|name| Origin::installed(name));
    if listed.is_silent() {
        let help = "run: getent passwd # until it answers, each user is asked for by name";
        problems.warning(None, "the name service does not list its accounts within a minute", help);
    }
    if let Some(enabled) = host.rules.userdir_enabled.as_ref().filter(|enabled| enabled.value)
        && listed.users().next().is_none()
    {
        let help = "run: getent passwd; without a list nobody would have a ~user site";
        problems.error(Some(&enabled.place), "the name service lists no users", help);
    }
    nobody(host, listed, problems);
    let users = userdirs(host, listed.users());
    let unlisted = unlisted(host, listed, &users, problems);
    files.chain(users).chain(unlisted).collect()
}

/// Names and patterns of `[userdir]` that no account has, and rules there that are for nobody: both look as if they did something.
fn nobody(host: &WholeHost, listed: &Arc<Listed>, problems: &Problems) {
    let (rules, users) = (&host.rules, &host.rules.userdir_users);
    match &rules.userdir_enabled {
        None => {
            if let Some(place) = &users.key {
                let message = "in [userdir] `enabled` is not true, so nobody has a ~user site";
                problems.warning(
                    Some(place),
                    message,
                    "write enabled = true there, or enabled = false if that is meant",
                );
            }
            return;
        }
        Some(enabled) if !enabled.value || listed.is_silent() => return,
        Some(_) => {}
    }
    let mut accounts = Accounts::new(listed);
    for pattern in &users.items {
        let name = &pattern.value;
        if name.contains('*') {
            if !listed.users().any(|account| matches(name, &account.name)) {
                let message = format!("no user's name is like `{name}`");
                problems.warning(
                    Some(&pattern.place),
                    message,
                    "run: getent passwd # these are the names that there are",
                );
            }
        } else if accounts.user(name).is_none() {
            let near = nearest(name, listed.users().map(|account| account.name.as_str()));
            let help = near.map_or_else(
                || "make it, or take the name out".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            problems.warning(Some(&pattern.place), format!("there is no user `{name}`"), help);
        }
    }
}

/// The users who have a site and are not among those that the name service lists: directory services often list a part of
/// all. A site goes when its account is gone, and for that each is asked for by its number.
fn unlisted(host: &WholeHost, listed: &Arc<Listed>, users: &[Origin], problems: &Problems) -> Vec<Origin> {
    // That nobody is listed is an error by then, and nothing is removed.
    if listed.is_silent() || !host.rules.userdir_enabled.as_ref().is_some_and(|enabled| enabled.value) {
        return Vec::new();
    }
    let mut left = store::uids();
    for origin in users {
        if let Origin::Userdir(account) = origin {
            left.remove(&account.uid);
        }
    }
    left.retain(|uid| store::names(*uid).iter().any(|name| name.starts_with('~')));
    let mut accounts = Accounts::new(listed);
    let mut found = Vec::new();
    for uid in left {
        match user_of(uid, &mut accounts, problems) {
            Ok(account) => found.extend(userdirs(host, account.iter())),
            // It fails for the others as well, and each may take its time.
            Err(_) => break,
        }
    }
    found
}

/// A user by number; that nobody can say whether there is one is reported, and then nothing is removed.
///
/// # Errors
/// When the name service cannot say.
pub fn user_of(uid: u32, accounts: &mut Accounts, problems: &Problems) -> Result<Option<Account>, Errno> {
    accounts.user_of(uid).inspect_err(|errno| {
        let message =
            format!("the name service does not say whether uid {uid} is still there: {}", errno.desc());
        let help = format!("run: getent passwd {uid} # when it answers, again: cellwall apply");
        problems.error(None, message, help);
    })
}

/// Those of `users` that `[userdir]` makes a site of.
pub fn userdirs<'u>(host: &WholeHost, users: impl Iterator<Item = &'u Account>) -> Vec<Origin> {
    let mut wanted: Vec<&Account> = users
        .filter(|account| is_plain_path(account.home.as_os_str().as_bytes()))
        .filter(|account| !host.cell.callers.contains(&account.uid))
        .filter(|account| sites::userdir(&host.rules, account, host.cell.uid_min, host.modified).is_some())
        .collect();
    wanted.sort_by_key(|account| account.uid);
    wanted.into_iter().cloned().map(Origin::Userdir).collect()
}
