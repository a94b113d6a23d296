//! The child between fork and exec: it becomes a worker or a CGI program by the launch pipeline, or refuses.
//!
//! Root until the pipeline's drop. It is what `cellwall-suexec` is to Apache: the same clean-up, the same stages, the same
//! records. The request is made of the policy and of numbers of the supervisor; for a CGI run the script's path comes from the
//! environment that the gate let pass, and everything about it is checked by the pipeline, for each request anew.
//!
//! May not: return into the supervisor. The environment of a request is read here and not in the supervisor.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::sys::stat::{fstat, stat};
use nix::unistd::{
    Gid, Pid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getppid, setegid, seteuid, setgroups, setsid,
};

use crate::launch::arrival::Arrival;
use crate::launch::authorize::{bad_policy, unreadable};
use crate::launch::interpreter::is_php_cgi;
use crate::launch::request::Request;
use crate::launch::{launch, refuse};
use crate::policy::names::is_plain_path;
use crate::policy::{ControlGroup, Record, Resource, Site, decode, read};
use crate::record::Log;
use crate::refusal::{Card, Refusal, Untrusted};
use crate::sys::Root;
use crate::sys::descriptors::keep_only;

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
    /// For a CGI run: the environment, as the broker sent it.
    pub environment: Option<OwnedFd>,
    /// The control group that holds its whole tree, which it is not in yet.
    pub tree: Option<Vec<u8>>,
    /// That group is there, and the site's own one above it with the site's limits.
    pub prepared: bool,
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
    drop(File::from(report).write_all(&[status]));
    std::process::exit(status.into())
}

/// A session of its own, and its three descriptors. The supervisor has a listening socket for each site: they would fill the
/// numbers that the site's own limit of open files leaves, and nothing could be opened any more.
fn begin(order: &Order<'_>) -> Result<(), Errno> {
    setsid()?;
    let [input, output, errors] = &order.standard;
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(errors)?;
    let kept = [Some(&order.report), order.environment.as_ref()];
    keep_only(&kept.into_iter().flatten().map(AsFd::as_fd).collect::<Vec<_>>())
}

fn go(order: &Order<'_>) -> u8 {
    let parent = getppid();
    let visitor = order.environment.is_some();
    let refused = |refusal: Refusal| refuse(&refusal, &mut Log::open(None), visitor);
    // The supervisor's own environment is empty; this is for signals, limits, scheduling, keyring and the deadline.
    let (_, root) = match Arrival::clean() {
        Ok(clean) => clean,
        Err(refusal) => return refused(refusal),
    };
    let bytes = match read::record(order.uid) {
        Ok(bytes) => bytes,
        Err(why) => return refused(unreadable(&why)),
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
        refuse(&refusal, &mut log, visitor)
    })
}

/// The status of the launch's refusal.
///
/// # Errors
/// A refusal before the launch.
fn in_cell(order: &Order<'_>, policy: &Record<'_>, parent: Pid, root: Root) -> Result<u8, Refusal> {
    let site = policy.sites.iter().find(|site| site.name == order.settings.name);
    let site = site.ok_or_else(|| Refusal::new(&NO_SITE, missing(order)))?;
    let mut environment = match &order.environment {
        Some(file) => entries(file)?,
        None => Vec::new(),
    };
    let command = match order.settings.command.split_first() {
        Some((program, words)) => {
            // The gate has split the path; php-cgi must not look for another file in it. Later words may say otherwise.
            let php = is_php_cgi(program).then_some([b"-d".to_vec(), b"cgi.fix_pathinfo=0".to_vec()]);
            let words = php.into_iter().flatten().chain(words.iter().map(|word| word.to_vec())).collect();
            with_eyes_of(site, policy.uid, || enter(program, words))?
        }
        None => with_eyes_of(site, policy.uid, || script(&mut environment))?,
    };
    let children = order.settings.workers.connections.to_string();
    let cell = cell(order, children.as_bytes(), policy, site);
    let (uid, gid) = (policy.uid.to_string(), site.identity.gid.to_string());
    let uid = if site.userdir { format!("~{uid}") } else { uid };
    let mut words = vec![OsStr::new(&uid), OsStr::new(&gid)];
    words.extend(command.iter().map(|word| OsStr::from_bytes(word)));
    let caller = policy.host.callers.first().copied().unwrap_or(u32::MAX);
    let arrival = Arrival::in_pool((caller, caller), environment, parent);
    let request = Request::parse(&words)?;
    let mut log = Log::open(Some(&cell.host.log));
    log.asked(caller, &words);
    let Err(refusal) = launch(&arrival, &request, &cell, root, &mut log);
    Ok(refuse(&refusal, &mut log, order.environment.is_some()))
}

fn missing(order: &Order<'_>) -> String {
    format!("the policy of uid {} has no site \"{}\"", order.uid, Untrusted(order.settings.name))
}

/// The policy as far as this pool is concerned: this site alone; its program, which root's configuration names; and what
/// belongs to one run of a CGI program taken away from a worker, which lives longer.
fn cell<'a>(order: &'a Order<'_>, children: &'a [u8], policy: &Record<'a>, site: &Site<'a>) -> Record<'a> {
    let mut site = site.clone();
    if let Some(tree) = &order.tree {
        if order.prepared {
            site.limits.groups.retain(|group| group.version != 2);
        }
        site.limits.groups.push(ControlGroup { version: 2, directory: tree, settings: Vec::new() });
    }
    let settings = order.settings;
    if settings.kind == Kind::Cgi && settings.request.cpu_ms > 0 {
        // The whole tree is measured by the supervisor, once a second. The kernel does it for each process, in whole seconds,
        // and a little later, so that the visitor is told why.
        let seconds = u64::from(settings.request.cpu_ms.div_ceil(1000)).saturating_add(KERNELS_SECONDS);
        let narrower =
            site.limits.resources.iter().any(|limit| limit.number == Resource::CPU && limit.value <= seconds);
        if !narrower {
            site.limits.resources.retain(|limit| limit.number != Resource::CPU);
            site.limits.resources.push(Resource { number: Resource::CPU, value: seconds });
        }
    }
    if settings.kind != Kind::Cgi {
        site.limits.wall_seconds = 0;
        site.limits.resources.retain(|limit| limit.number != Resource::CPU);
        // One below a docroot is a script of the site's, and is looked at as one.
        site.programs.extend(settings.command.first());
        site.environment.pass.clear();
        site.environment.pass_prefixes.clear();
    }
    if settings.kind == Kind::Parent {
        // Its children are not to end by themselves in the middle of everything: the broker counts requests.
        site.environment.set.push((b"PHP_FCGI_CHILDREN", children));
        site.environment.set.push((b"PHP_FCGI_MAX_REQUESTS", b"0"));
    }
    Record { sites: vec![site], ..policy.clone() }
}

/// A site's directories are looked at with the site's rights and never with root's: root would reach what the site may
/// not, and wait where a file system of the site's makes it wait.
fn with_eyes_of<T>(
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
fn enter(program: &[u8], words: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Refusal> {
    let (directory, name) = divide(program);
    chdir(OsStr::from_bytes(directory))
        .map_err(|errno| Refusal::about(&DIRECTORY, directory, errno.desc()))?;
    Ok(std::iter::once(name.to_vec()).chain(words).collect())
}

/// The directory and the file's name.
fn divide(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (b"/", path.get(1..).unwrap_or_default()),
        Some(end) => {
            (path.get(..end).unwrap_or_default(), path.get(end.saturating_add(1)..).unwrap_or_default())
        }
        None => (b"/", path),
    }
}

/// The program of a CGI request. Some web servers send a path with more behind the script's name: what is behind the first
/// regular file on the way is the path information (RFC 3875, 4.1.5).
fn script(environment: &mut Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Refusal> {
    let path = environment.iter().find_map(|entry| entry.strip_prefix(b"SCRIPT_FILENAME="));
    let path = path.filter(|path| is_plain_path(path)).map(<[u8]>::to_vec);
    let path = path.ok_or_else(|| {
        Refusal::new(&NO_SCRIPT, "the request's SCRIPT_FILENAME is no plain absolute path".to_owned())
    })?;
    let is_file = |path: &[u8]| {
        stat(OsStr::from_bytes(path)).is_ok_and(|facts| facts.st_mode & libc::S_IFMT == libc::S_IFREG)
    };
    let mut file = path.as_slice();
    while !is_file(file) && file.len() > 1 {
        file = divide(file).0;
    }
    let file = if file.len() > 1 { file } else { &path };
    let behind = path.get(file.len()..).unwrap_or_default();
    if !behind.is_empty() {
        divided(environment, file, behind);
    }
    enter(file, Vec::new())
}

/// Puts right the variables of a request whose script is not where the web server thought.
fn divided(environment: &mut Vec<Vec<u8>>, file: &[u8], behind: &[u8]) {
    let known = environment.iter().any(|entry| entry.starts_with(b"PATH_INFO="));
    for entry in environment.iter_mut() {
        if entry.starts_with(b"SCRIPT_FILENAME=") {
            *entry = [b"SCRIPT_FILENAME=", file].concat();
        } else if entry.starts_with(b"SCRIPT_NAME=") && entry.ends_with(behind) {
            entry.truncate(entry.len().saturating_sub(behind.len()));
        } else if entry.starts_with(b"PATH_INFO=") {
            *entry = [b"PATH_INFO=", behind].concat();
        }
    }
    if !known {
        environment.push([b"PATH_INFO=", behind].concat());
    }
}

/// `NAME=value`, a NUL behind each. The alarm of the clean-up ends this where the file makes it wait.
fn entries(file: &OwnedFd) -> Result<Vec<Vec<u8>>, Refusal> {
    let failed = |errno: Errno| Refusal::call(&ENVIRONMENT, "the request's environment", errno);
    let size = fstat(file).map_err(failed)?.st_size;
    if !(0..=ENVIRONMENT_MAX).contains(&size) {
        return Err(Refusal::new(&ENVIRONMENT, format!("the request's environment has {size} bytes")));
    }
    let mut file = File::from(file.as_fd().try_clone_to_owned().map_err(|_| failed(Errno::EMFILE))?);
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).map_err(|_| failed(Errno::ESPIPE))?;
    let limit = u64::try_from(ENVIRONMENT_MAX).unwrap_or(0);
    file.take(limit).read_to_end(&mut bytes).map_err(|_| failed(Errno::EIO))?;
    Ok(bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The kernel's limit is so much larger than the measured one.
const KERNELS_SECONDS: u64 = 3;
/// Bytes; the policy's own limit is checked by the pipeline.
const ENVIRONMENT_MAX: i64 = 1 << 20;
/// No refusal could be written down.
const BROKEN: u8 = 81;

static NO_SITE: Card = Card { code: "S01", status: 88, remedy: "cellwall apply" };
static EYES: Card = Card {
    code: "S02",
    status: 88,
    remedy: "add CAP_SETUID and CAP_SETGID to CapabilityBoundingSet of cellwalld's unit",
};
static DIRECTORY: Card = Card { code: "S03", status: 88, remedy: "ls -ld {}" };
static NO_SCRIPT: Card =
    Card { code: "S04", status: 88, remedy: "set SCRIPT_FILENAME in the web server's FastCGI parameters" };
static ENVIRONMENT: Card = Card { code: "S05", status: 88, remedy: "cellwall explain S05" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        assert_eq!(divide(b"/usr/bin/php-cgi"), (&b"/usr/bin"[..], &b"php-cgi"[..]));
        assert_eq!(divide(b"/init"), (&b"/"[..], &b"init"[..]));
    }

    #[test]
    fn what_is_behind_the_script_is_its_path_information() {
        let mut environment =
            [&b"SCRIPT_FILENAME=/srv/a.cgi/x/y"[..], b"SCRIPT_NAME=/cgi/a.cgi/x/y", b"QUERY_STRING=/x/y"]
                .map(<[u8]>::to_vec)
                .to_vec();
        divided(&mut environment, b"/srv/a.cgi", b"/x/y");
        let want: [&[u8]; 4] = [
            b"SCRIPT_FILENAME=/srv/a.cgi",
            b"SCRIPT_NAME=/cgi/a.cgi",
            b"QUERY_STRING=/x/y",
            b"PATH_INFO=/x/y",
        ];
        assert_eq!(environment, want);
    }
}
