//! The child between fork and exec: it becomes a worker by the launch pipeline, or refuses.
//!
//! Root until the pipeline's drop. It is what `cellwall-suexec` is to Apache: the same clean-up, the same stages, the same
//! records. The request is made of the policy and of numbers of the supervisor.
//!
//! May not: return into the supervisor.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Pid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getppid, setegid, seteuid, setgroups, setsid,
};

use crate::launch::arrival::Arrival;
use crate::launch::authorize::{bad_policy, unreadable};
use crate::launch::interpreter::is_php_cgi;
use crate::launch::request::Request;
use crate::launch::{launch, refuse};
use crate::policy::{ControlGroup, Record, Resource, Site, decode, read};
use crate::record::Log;
use crate::refusal::{Card, Refusal, Untrusted};
use crate::sys::Root;
use crate::sys::descriptors::keep_only;
use crate::sys::fork::leave;

use super::settings::{Kind, Settings};

/// What the supervisor wants started.
#[derive(Debug)]
pub struct Order<'a> {
    /// Whom it runs as.
    pub uid: u32,
    /// The pool that it belongs to.
    pub settings: &'a Settings<'a>,
    /// Descriptors 0 to 2.
    pub standard: [OwnedFd; 3],
    /// The control group that holds its whole tree, which it is not in yet.
    pub tree: Option<Vec<u8>>,
    /// Where a refusal is reported; closed by exec.
    pub report: OwnedFd,
}

/// Becomes the program. The status is the refusal's.
pub fn become_program(order: Order<'_>) -> ! {
    let status = match begin(&order) {
        Ok(()) => go(&order),
        Err(_) => BROKEN,
    };
    let Order { report, .. } = order;
    // It is the exit status as well.
    drop(File::from(report).write_all(&[status]));
    leave(status)
}

/// A session of its own, and its three descriptors. The supervisor has a listening socket for each site: they would fill the
/// numbers that the site's own limit of open files leaves, and nothing could be opened any more.
fn begin(order: &Order<'_>) -> Result<(), Errno> {
    setsid()?;
    let [input, output, errors] = &order.standard;
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(errors)?;
    keep_only(&[order.report.as_fd()])
}

fn go(order: &Order<'_>) -> u8 {
    let parent = getppid();
    let refused = |refusal: Refusal| refuse(&refusal, &mut Log::open(None), None);
    let (root, bytes) = match arrive(order.uid) {
        Ok(arrived) => arrived,
        Err(refusal) => return refused(refusal),
    };
    let policy = match decode::record(&bytes) {
        Ok(policy) => policy,
        Err(why) => return refused(bad_policy(&why)),
    };
    in_cell(order, &policy, parent, root).unwrap_or_else(|refusal| {
        let mut log = Log::open(Some(&policy.host.log));
        if let Some(site) = policy.sites.iter().find(|site| site.name == order.settings.name) {
            log.about(site);
        }
        refuse(&refusal, &mut log, None)
    })
}

/// A clean process that is root, and the uid's policy record, which is not decoded yet. The environment is empty before; this is
/// for signals, limits, scheduling, keyring and the deadline.
pub(super) fn arrive(uid: u32) -> Result<(Root, Vec<u8>), Refusal> {
    let (_, root) = Arrival::clean()?;
    Ok((root, read::record(uid).map_err(|why| unreadable(&why))?))
}

/// The status of the launch's refusal.
///
/// # Errors
/// A refusal before the launch.
fn in_cell(order: &Order<'_>, policy: &Record<'_>, parent: Pid, root: Root) -> Result<u8, Refusal> {
    let settings = order.settings;
    let site = site_of(policy, settings.name)?;
    let (program, words) = settings.command.split_first().ok_or_else(|| missing(policy, settings.name))?;
    let command = with_eyes_of(site, policy.uid, || enter(program, words))?;
    let children = settings.workers.connections.to_string();
    let cell = cell(settings, order.tree.as_deref(), children.as_bytes(), policy, site);
    let (uid, gid) = numbers(policy.uid, site);
    let mut words = vec![OsStr::new(&uid), OsStr::new(&gid)];
    words.extend(command.iter().map(|word| OsStr::from_bytes(word)));
    let caller = policy.host.callers.first().copied().unwrap_or(u32::MAX);
    let arrival = Arrival::in_pool((caller, caller), Vec::new(), parent);
    let request = Request::parse(&words)?;
    let mut log = Log::open(Some(&cell.host.log));
    log.asked(caller, &words);
    let Err(refusal) = launch(&arrival, &request, &cell, root, &mut log);
    Ok(refuse(&refusal, &mut log, None))
}

/// The site of this name.
pub(super) fn site_of<'p, 'a>(policy: &'p Record<'a>, name: &[u8]) -> Result<&'p Site<'a>, Refusal> {
    policy.sites.iter().find(|site| site.name == name).ok_or_else(|| missing(policy, name))
}

fn missing(policy: &Record<'_>, name: &[u8]) -> Refusal {
    Refusal::new(&NO_SITE, format!("the policy of uid {} has no site \"{}\"", policy.uid, Untrusted(name)))
}

/// The first two words of a command line: whom to become.
pub(super) fn numbers(uid: u32, site: &Site<'_>) -> (String, String) {
    let uid = if site.userdir { format!("~{uid}") } else { uid.to_string() };
    (uid, site.identity.gid.to_string())
}

/// The policy as far as a worker is concerned: this site alone; its program, which root's configuration names; and what
/// belongs to one CGI program taken away, which lives shorter. `tree`: the group that it is to enter.
fn cell<'a>(
    settings: &Settings<'a>,
    tree: Option<&'a [u8]>,
    children: &'a [u8],
    policy: &Record<'a>,
    site: &Site<'a>,
) -> Record<'a> {
    let mut site = site.clone();
    site.limits.groups.extend(tree.map(group));
    site.limits.wall_seconds = 0;
    site.limits.resources.retain(|limit| limit.number != Resource::CPU);
    // One below a docroot is a script of the site's, and is looked at as one.
    site.programs.extend(settings.command.first());
    site.environment.pass.clear();
    site.environment.pass_prefixes.clear();
    if settings.kind == Kind::Parent {
        // Its children are not to end by themselves in the middle of everything: the broker counts requests.
        site.environment.set.push((b"PHP_FCGI_CHILDREN", children));
        site.environment.set.push((b"PHP_FCGI_MAX_REQUESTS", b"0"));
    }
    Record { sites: vec![site], ..policy.clone() }
}

/// The group of a tree, without limits of its own.
pub(super) fn group(tree: &[u8]) -> ControlGroup<'_> {
    ControlGroup { version: 2, directory: tree, settings: Vec::new() }
}

/// A site's directories are looked at with the site's rights and never with root's: root would reach what the site may
/// not, and wait where a file system of the site's makes it wait.
pub(super) fn with_eyes_of<T>(
    site: &Site<'_>,
    uid: u32,
    look: impl FnOnce() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let failed = |errno: Errno| Refusal::call(&EYES, "seteuid", errno);
    let groups: Vec<Gid> = site.identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(failed)?;
    setegid(Gid::from_raw(site.identity.gid)).map_err(failed)?;
    seteuid(Uid::from_raw(uid)).map_err(failed)?;
    let seen = look();
    seteuid(Uid::from_raw(0)).map_err(failed)?;
    setegid(Gid::from_raw(0)).map_err(failed)?;
    seen
}

/// Changes to the program's directory; the words of its command line, as Apache would write them.
pub(super) fn enter(program: &[u8], words: &[&[u8]]) -> Result<Vec<Vec<u8>>, Refusal> {
    let (directory, name) = divide(program);
    chdir(OsStr::from_bytes(directory))
        .map_err(|errno| Refusal::about(&DIRECTORY, directory, errno.desc()))?;
    // The gate has split the path; php-cgi must not look for another file in it. Later words may say otherwise.
    let php: &[&[u8]] = if is_php_cgi(program) { &[b"-d", b"cgi.fix_pathinfo=0"] } else { &[] };
    Ok([name].iter().chain(php).chain(words).map(|word| word.to_vec()).collect())
}

/// The directory and the file's name.
pub(super) fn divide(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (b"/", path.get(1..).unwrap_or_default()),
        Some(end) => {
            (path.get(..end).unwrap_or_default(), path.get(end.saturating_add(1)..).unwrap_or_default())
        }
        None => (b"/", path),
    }
}

/// No refusal could be written down.
const BROKEN: u8 = 81;

static NO_SITE: Card = Card { code: "S01", status: 88, remedy: "cellwall apply" };
static EYES: Card = Card {
    code: "S02",
    status: 88,
    remedy: "# add CAP_SETUID and CAP_SETGID to CapabilityBoundingSet of cellwalld's unit",
};
static DIRECTORY: Card = Card { code: "S03", status: 88, remedy: "ls -ld {}" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        assert_eq!(divide(b"/usr/bin/php-cgi"), (&b"/usr/bin"[..], &b"php-cgi"[..]));
        assert_eq!(divide(b"/init"), (&b"/"[..], &b"init"[..]));
    }
}
