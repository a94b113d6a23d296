//! `cellwall apply`: the configuration becomes policy records, all of it or nothing. Root.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::accounts::{Account, Accounts, Listed};
use crate::config::aside::{self, GONE, Owner};
use crate::config::limits::{self, Hierarchies};
use crate::config::problem::{Problem, Problems, Weight};
use crate::config::store::{self, Holder, Private, Store};
use crate::config::whole::{self, Group, Origin, Ready, WholeHost};
use crate::config::{HOST_FILE, facts};
use crate::policy::{decode, encode};
use crate::refusal::Untrusted;

use super::json::Json;
use super::views::{Failed, Failure};
use super::{End, check, chroot, mend, patience, policy, pool, say, views};

/// Arguments of `cellwall apply`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these sites and those that share their user (`shop`, `~alice`); all without one
    pub sites: Vec<String>,
    /// A site that is named and is gone is no error: its record is removed, or was
    #[arg(long, requires = "sites")]
    pub ignore_missing: bool,
    /// Tell what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        say::note("error: only root can write policy records\n  help: run: sudo cellwall apply");
        return End::Failed.into();
    }
    match Store::open(waiting) {
        Ok(store) => under(&store, args, &|| ()),
        Err(error) => not_applied(&error),
    }
}

/// Somebody else has the lock.
pub(super) fn waiting(holder: Option<&Holder>) {
    match holder {
        Some(Holder { pid, words }) => say::note(format_args!(
            "waiting for `{}` (process {pid}), which has the lock of the policy…",
            Untrusted(words)
        )),
        None => say::note("waiting for another cellwall apply to end…"),
    }
}

/// As [`run`], under a lock that the caller holds. `undo` comes before the end where a file system does not answer.
pub(super) fn under(store: &Store, args: &Args, undo: &(dyn Fn() + Sync)) -> ExitCode {
    let done = match (Run { store, dry: args.dry_run, gone: args.ignore_missing, undo }).all(&args.sites) {
        Ok(done) => done,
        Err(error) => return not_applied(&error),
    };
    let wrong = done.problems.iter().any(|problem| problem.weight == Weight::Error);
    let end = if wrong { End::Findings } else { End::Good };
    if end == End::Good && !args.dry_run {
        audit(&done);
        pool::reload_if_running();
    }
    report(args, &done, end);
    end.into()
}

fn not_applied(error: &io::Error) -> ExitCode {
    say::note(format_args!("error: nothing was applied: {error}"));
    End::Failed.into()
}

/// What one run did, or would do.
#[derive(Debug, Default)]
pub struct Done {
    /// Records written.
    pub written: BTreeSet<String>,
    /// Records removed.
    pub removed: BTreeSet<String>,
    /// Records of pools written, and removed.
    pub pools: (BTreeSet<String>, BTreeSet<String>),
    /// Records that were as they should be.
    pub unchanged: usize,
    /// Sites in all these records.
    pub sites: usize,
    /// What must exist before the records do.
    private: Vec<Private>,
    /// Directories of chroots.
    chroots: BTreeSet<PathBuf>,
    /// The difference, in words; only for a dry run.
    pub changes: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// One run under the lock.
struct Run<'s> {
    store: &'s Store,
    dry: bool,
    /// A site that is named may be gone.
    gone: bool,
    undo: &'s (dyn Fn() + Sync),
}

impl Run<'_> {
    fn all(&self, sites: &[String]) -> io::Result<Done> {
        let problems = Problems::default();
        // Before any account is asked for: a later change is then a change to every launch.
        let accounts = if sites.is_empty() && !self.dry { store::accounts_changed() } else { None };
        let listed = if sites.is_empty() { Listed::all() } else { Arc::default() };
        let host = WholeHost::load(None, &mut Accounts::new(&listed), &problems);
        let (groups, gone) = if sites.is_empty() {
            let origins = whole::everything(&host, &listed, &problems);
            let groups = whole::group(&host, &listed, origins);
            let wanted: BTreeSet<u32> = groups.iter().filter_map(|(uid, _)| *uid).collect();
            let gone = store::uids().into_iter().filter(|uid| !wanted.contains(uid)).collect();
            (groups, gone)
        } else {
            some(&host, sites, self.gone, &problems)
        };
        let host_changed = self.host(&host, sites.is_empty(), &problems)?;
        let beside = (!sites.is_empty()).then_some(&gone);
        let mut done = patience::limited("nothing was applied", self.undo, || {
            self.groups(&host, &listed, &groups, beside)
        })?;
        done.removed = gone.iter().map(ToString::to_string).collect();
        if host_changed {
            done.written.insert(store::host_name());
        }
        if self.dry {
            done.changes.extend(gone.iter().flat_map(|uid| gone_words(*uid)));
        }
        problems.extend(std::mem::take(&mut done.problems));
        chroot::warn(&done.chroots, &problems);
        if !self.dry {
            // With a mistake in one site as well: at boot, the records that are there rely on it.
            prepare_groups(&done.private, &problems);
        }
        let wrong = problems.any_error();
        done.problems = problems.into_sorted();
        if self.dry || wrong {
            self.store.discard()?;
            if wrong {
                // Nothing of it was done.
                (done.written, done.removed) = Default::default();
            }
        } else {
            let uids = groups.iter().filter_map(|(uid, _)| *uid).chain(gone.iter().copied());
            let uids: Option<BTreeSet<u32>> = (!sites.is_empty()).then(|| uids.collect());
            let owners: BTreeSet<Owner> = done.private.iter().map(Private::owner).collect();
            aside::give_back(&owners)?;
            self.private(&done.private)?;
            store::log_directory(&host.cell)?;
            let leaving = aside::leaving(&owners, uids.as_ref());
            let part = uids.map(views::Part::of);
            let gone = gone.iter().map(|uid| store::pool_name(*uid));
            done.pools.1.extend(gone.filter(|name| store::read(name).is_some()));
            // A pool's launches need the policy: it comes first.
            self.store.commit(&done.written, &done.removed)?;
            self.store.commit(&done.pools.0, &done.pools.1)?;
            if let Some(changed) = accounts {
                self.store.stamp_accounts(changed)?;
            }
            done.written.iter().for_each(|name| renew_groups(name));
            views(part.as_ref());
            put_aside(&leaving);
        }
        Ok(done)
    }

    /// Stages the host's own record. A run over some sites leaves it alone unless there is none.
    fn host(&self, host: &WholeHost, all: bool, problems: &Problems) -> io::Result<bool> {
        let bytes = encode::host(&host.cell.host());
        let name = store::host_name();
        let old = store::read(&name);
        if !all && old.as_ref().is_some_and(|old| *old != bytes) {
            let message = format!("{HOST_FILE} has changed since all sites were applied");
            problems.warning(None, message, "run: cellwall apply");
            return Ok(false);
        }
        if self.dry { Ok(old.is_none_or(|old| old != bytes)) } else { self.store.stage(&name, &bytes) }
    }

    fn groups(
        &self,
        host: &WholeHost,
        listed: &Arc<Listed>,
        groups: &[Group],
        gone: Option<&BTreeSet<u32>>,
    ) -> io::Result<Done> {
        let counter = AtomicUsize::new(0);
        let shared = Mutex::new((Done::default(), None::<io::Error>));
        let problems = say::with_progress("compiling", groups.len(), &counter, || {
            whole::compile(host, listed, groups, gone, &counter, |ready, _| {
                let result = self.one(&ready);
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(One { changed, pools, words }) => {
                        match pools {
                            Pools::Same => {}
                            Pools::Written => drop(shared.0.pools.0.insert(store::pool_name(ready.uid))),
                            Pools::Removed => drop(shared.0.pools.1.insert(store::pool_name(ready.uid))),
                        }
                        shared.0.sites += ready.cells.len();
                        shared.0.chroots.extend(check::chroots_of(&ready));
                        shared.0.private.extend(ready.cells.iter().map(|cell| Private::of(ready.uid, cell)));
                        shared.0.changes.extend(words);
                        if changed {
                            shared.0.written.insert(ready.uid.to_string());
                        } else {
                            shared.0.unchanged += 1;
                        }
                    }
                    Err(error) => drop(shared.1.get_or_insert(error)),
                }
            })
        });
        let (mut done, failed) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.problems = problems;
        done.changes.sort();
        match failed {
            Some(error) => {
                self.store.discard()?;
                Err(error)
            }
            None => Ok(done),
        }
    }

    /// Makes what the records refer to, before they are in place.
    fn private(&self, all: &[Private]) -> io::Result<()> {
        let counter = AtomicUsize::new(0);
        let failed = Mutex::new(None::<io::Error>);
        let half = all.len().div_ceil(2).max(1);
        let (counter, failures) = (&counter, &failed);
        say::with_progress("private directories", all.len(), counter, || {
            std::thread::scope(|scope| {
                for part in all.chunks(half) {
                    scope.spawn(move || {
                        for private in part {
                            if let Err(error) = self.store.private(private) {
                                failures.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                                return;
                            }
                            counter.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn one(&self, ready: &Ready) -> io::Result<One> {
        let name = ready.uid.to_string();
        if self.dry {
            let old = store::read(&name);
            let changed = old.as_ref().is_none_or(|old| *old != ready.bytes);
            let before = old.as_deref().and_then(|old| decode::record(old).ok());
            let after = decode::record(&ready.bytes).ok();
            let pools = store::read(&store::pool_name(ready.uid));
            let (pools, new_pools) = (pools.as_deref(), ready.pools.as_deref());
            let words = facts::difference(before.as_ref(), after.as_ref(), pools, new_pools);
            return Ok(One { changed, pools: Pools::Same, words });
        }
        let changed = self.store.stage(&name, &ready.bytes)?;
        let name = store::pool_name(ready.uid);
        let pools = match &ready.pools {
            Some(bytes) if self.store.stage(&name, bytes)? => Pools::Written,
            None if store::read(&name).is_some() => Pools::Removed,
            Some(_) | None => Pools::Same,
        };
        Ok(One { changed, pools, words: Vec::new() })
    }
}

/// Sites that only prefer a control group run without; each launch of those that require one would be refused (C04).
fn prepare_groups(all: &[Private], problems: &Problems) {
    if !all.iter().any(|private| private.grouped) {
        return;
    }
    let Err(why) = Hierarchies::here().prepare() else { return };
    let message = format!("control groups cannot be prepared: {why}");
    match all.iter().find_map(Private::requires_group) {
        None => problems.warning(None, message, "sites run without, under the limits of single processes"),
        Some(site) => {
            let count = all.iter().filter_map(Private::requires_group).count();
            let whose = match count {
                1 => format!("site {site} requires"),
                count => format!("{}, {site} among them, require", say::counted(count, "site")),
            };
            let help = "have the kernel and the container allow it; or write cgroup = \"auto\" in [limits], to fall back to limits of \
                        single processes";
            problems.error(None, format!("{message}: {whose} one"), help);
        }
    }
}

/// A control group that is there already follows its record; the launcher only sets what it makes.
fn renew_groups(name: &str) {
    let Some(bytes) = store::read(name) else { return };
    let Ok(record) = decode::record(&bytes) else { return };
    for group in record.sites.iter().flat_map(|site| &site.limits.groups) {
        if let Err(error) = limits::renew(group) {
            let place = String::from_utf8_lossy(group.directory);
            say::note(format_args!("warning: {place} keeps its old limits: {error}"));
        }
    }
}

/// What a site leaves behind is no other's, whoever gets its uid and its name.
fn put_aside(leaving: &[Owner]) {
    match aside::put(leaving) {
        Ok(()) if leaving.is_empty() => {}
        Ok(()) => say::note(format_args!(
            "note: private directories of {} that are gone are kept in {GONE}",
            say::counted(leaving.len(), "site")
        )),
        Err(error) => {
            say::note(format_args!("warning: private directories of a site that is gone stay: {error}"))
        }
    }
}

/// The kept views follow the records. A view that cannot be made is a warning here and a refusal at its site's launch.
fn views(part: Option<&views::Part>) {
    let done = match views::refresh(part) {
        Ok(done) => done,
        Err(error) => return say::note(format_args!("warning: the kept views are not up to date: {error}")),
    };
    let may_not = |why: &Failure| matches!(why, Failure::Unkept(error) if error.kind() == io::ErrorKind::PermissionDenied);
    let (barred, failed): (Vec<_>, Vec<_>) = done.failed.iter().partition(|failed| may_not(&failed.why));
    if let Some(Failed { why: Failure::Unkept(error), .. }) = barred.first() {
        say::note(format_args!(
            "warning: root may not mount here ({error}): sites in a view are refused (C06)"
        ));
        say::note("  help: set jail.kind = \"host\" in their files; see also: cellwall explain C06");
    }
    for Failed { site, why } in failed.iter().take(MOST_VIEWS) {
        match why {
            Failure::Refused(why) => {
                say::note(format_args!("warning: site {site}: its launches are refused (C06): {why}"));
                if mend::is_no_mount_point(why) {
                    say::note(format_args!("  help: {}", mend::NO_MOUNT_POINT.trim_start_matches("# ")));
                    continue;
                }
                say::note(format_args!(
                    "  help: correct its file, or what is there, then: cellwall apply {site}"
                ));
            }
            Failure::Unkept(error) => say::note(format_args!(
                "warning: site {site}: its view is not kept, and is built at each launch: {error}"
            )),
        }
    }
    if failed.len() > MOST_VIEWS {
        say::note(format_args!("and {} more", say::counted(failed.len() - MOST_VIEWS, "view")));
    }
    if done.in_chroot && done.left > 0 && failed.is_empty() {
        say::note(format_args!(
            "note: {} are built at each launch: this is a chroot, and no view can be kept in one",
            say::counted(done.left, "view")
        ));
    } else if done.left > 0 {
        let late = if failed.is_empty() { "" } else { "; cellwall apply tries again" };
        say::note(format_args!(
            "note: {} are built at each launch: {} are kept at most{late}",
            say::counted(done.left, "view"),
            views::KEPT_MAX
        ));
    }
}

/// Views that are told one by one.
const MOST_VIEWS: usize = 10;

struct One {
    changed: bool,
    pools: Pools,
    words: Vec<String>,
}

/// What becomes of the record of a uid's pools.
enum Pools {
    Same,
    Written,
    Removed,
}

fn gone_words(uid: u32) -> Vec<String> {
    let old = store::read(&uid.to_string());
    facts::difference(old.as_deref().and_then(|old| decode::record(old).ok()).as_ref(), None, None, None)
}

/// The groups of the named sites and of those that share a uid with them, and the uids that have no site any more.
fn some(
    host: &WholeHost,
    sites: &[String],
    may_be_gone: bool,
    problems: &Problems,
) -> (Vec<Group>, BTreeSet<u32>) {
    let mut accounts = Accounts::new(&Arc::default());
    let mut groups: BTreeMap<Option<u32>, Vec<Origin>> = BTreeMap::new();
    let mut waiting: BTreeSet<u32> = BTreeSet::new();
    for name in sites {
        let origin = match name.strip_prefix('~') {
            Some(user) => accounts.user(user).map(Origin::Userdir),
            None => Some(Origin::installed(name)).filter(Origin::exists),
        };
        let uid = origin.as_ref().and_then(|origin| origin.uid(host, &mut accounts));
        let holders = store::holders(name, uid);
        if holders.is_empty()
            && !may_be_gone
            && let Some(help) = unknown(host, name, origin.as_ref())
        {
            problems.error(None, format!("there is no site `{name}`"), help);
        }
        waiting.extend(holders.into_iter().chain(uid));
        // A user's own site is found with its uid; a file is named here, for no record may know it yet.
        if let Some(origin @ Origin::File { .. }) = origin {
            groups.entry(uid).or_default().push(origin);
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(uid) = waiting.pop_first() {
        if !seen.insert(uid) {
            continue;
        }
        for (owner, origin) in neighbours(host, uid, &mut accounts, problems) {
            let group = groups.entry(owner).or_default();
            if !group.contains(&origin) {
                group.push(origin);
            }
            waiting.extend(owner.filter(|owner| !seen.contains(owner)));
        }
    }
    let gone = seen.into_iter().filter(|uid| !groups.contains_key(&Some(*uid))).collect();
    (groups.into_iter().collect(), gone)
}

/// What to do where there is no site of this name. None: there is one.
fn unknown(host: &WholeHost, name: &str, origin: Option<&Origin>) -> Option<String> {
    match (origin, name.strip_prefix('~')) {
        (None, Some(user)) => Some(format!("there is no user `{user}`")),
        (None, None) => Some(policy::meant(name)),
        (Some(Origin::Userdir(account)), _) if whole::userdirs(host, [account].into_iter()).is_empty() => {
            Some(format!("[userdir] of {HOST_FILE} decides who has one: enabled, users, and minimum_uid"))
        }
        (Some(_), _) => None,
    }
}

/// What the record of a uid names, as it is today, and the `~user` site of the uid. A file that does not say whose it is, or
/// cannot be read, is among them: it is an error, and no reason to drop its site.
fn neighbours(
    host: &WholeHost,
    uid: u32,
    accounts: &mut Accounts,
    problems: &Problems,
) -> Vec<(Option<u32>, Origin)> {
    let names = store::names(uid);
    let files = names.iter().filter(|name| !name.starts_with('~')).map(|name| Origin::installed(name));
    let mut all: Vec<(Option<u32>, Origin)> =
        files.filter(Origin::exists).map(|origin| (origin.uid(host, accounts), origin)).collect();
    let account: Option<Account> = whole::user_of(uid, accounts, problems).ok().flatten();
    all.extend(whole::userdirs(host, account.iter()).into_iter().map(|origin| (Some(uid), origin)));
    all
}

/// One line to the system log: who changed the policy. A log daemon that has stopped does not stop this.
fn audit(done: &Done) {
    let who = std::env::var_os("SUDO_USER").map_or_else(
        || format!("uid {}", nix::unistd::getuid()),
        |name| format!("{:?} by sudo", name.to_string_lossy()),
    );
    let line = format!(
        "apply by {who}: {} written, {} removed, {} unchanged",
        done.written.len(),
        done.removed.len(),
        done.unchanged
    );
    if let Err(why) = tell_system_log(&line) {
        say::note(format_args!("warning: the system log was not told of this apply: {why}"));
    }
}

/// The crate's own way to the socket waits for ever where the daemon behind it has stopped.
fn tell_system_log(line: &str) -> Result<(), String> {
    let socket = UnixDatagram::unbound().and_then(|socket| {
        socket.set_write_timeout(Some(LOG_WAIT))?;
        socket.connect("/dev/log")?;
        Ok(socket)
    });
    let socket = socket.map_err(|why| format!("/dev/log: {why}"))?;
    let formatter = syslog::Formatter3164 {
        facility: syslog::Facility::LOG_AUTHPRIV,
        hostname: None,
        process: "cellwall".to_owned(),
        pid: std::process::id(),
    };
    let mut log = syslog::Logger::new(syslog::LoggerBackend::Unix(socket), formatter);
    log.notice(line).map_err(|_| "nobody reads from /dev/log".to_owned())
}

/// As long as the launcher waits.
const LOG_WAIT: Duration = Duration::from_millis(50);

fn report(args: &Args, done: &Done, end: End) {
    if args.json {
        say::out(Json::object([
            ("ok", Json::Bool(end == End::Good)),
            ("dry_run", Json::Bool(args.dry_run)),
            ("written", Json::texts(done.written.iter().cloned())),
            ("removed", Json::texts(done.removed.iter().cloned())),
            ("unchanged", Json::count(done.unchanged)),
            ("sites", Json::count(done.sites)),
            ("changes", Json::texts(done.changes.iter().cloned())),
            ("problems", say::problems_json(&done.problems)),
        ]));
        return;
    }
    say::problems(&done.problems);
    done.changes.iter().for_each(say::out);
    let numbers = format!(
        "{}, {} unchanged, {} removed",
        say::counted(done.written.len(), "record"),
        done.unchanged,
        done.removed.len()
    );
    match (end, args.dry_run) {
        (End::Good, false) => {
            say::out(format_args!("applied {}: {numbers}", say::counted(done.sites, "site")))
        }
        (End::Good, true) => {
            say::out(format_args!("would apply {}: {numbers}", say::counted(done.sites, "site")))
        }
        _ => say::note("nothing was changed"),
    }
}
