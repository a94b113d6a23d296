//! A site's cell for the commands that go into it: its record, a program in it with its output, a look around. Root.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe, pipe2, setsid};

use crate::config::ground::{Ground, Kind};
use crate::config::store;
use crate::launch::arrival::Arrival;
use crate::launch::{enter, visit};
use crate::policy::names::may_pass;
use crate::policy::{Jail, Record, Site, decode};
use crate::refusal::Refusal;
use crate::sys::fork::{Side, fork, leave};
use crate::sys::{self, Root};

use super::{Stop, mend, policy, say};

/// What a program said in the cell.
#[derive(Debug)]
pub(super) struct Said {
    /// Its status; none: a signal ended it, or it took too long.
    pub(super) status: Option<i32>,
    /// Output and errors, as they came: whatever ran there may have written them.
    pub(super) text: String,
    /// The launcher's own no, and what mends it, by a way that nothing in the cell can write to.
    pub(super) refused: Option<(String, String)>,
}

/// The right to enter, or what is lacking.
pub(super) fn root() -> Result<Root, String> {
    let root = Root::claim().map_err(|errno| errno.to_string())?;
    root.ok_or_else(|| "only root can enter a cell\n  help: run it again with sudo".to_owned())
}

/// Does `work` with the record of a site.
pub(super) fn with_site<T>(
    name: &str,
    work: impl FnOnce(&Record<'_>, &Site<'_>) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let _root = root()?;
    let uid = policy::holder(name).map_err(Stop::asked)?;
    let bytes = store::read(&uid.to_string()).ok_or("its record is gone\n  help: run: cellwall apply")?;
    let record = decode::record(&bytes).map_err(|why| format!("the record of uid {uid}: {why}"))?;
    let site = record.sites.iter().find(|site| site.name == name.as_bytes());
    work(&record, site.ok_or("its record is gone\n  help: run: cellwall apply")?)
}

/// A refusal, for people.
pub(super) fn say_refusal(refusal: &Refusal) {
    let code = refusal.card.code;
    say::note(format_args!("error: {} ({code})\n  help: {}", refusal.why, mend::from_inside(refusal)));
}

/// The site for a program of the host's that is asked about its cell: nothing of the site's owner may answer in its place.
/// It starts in `/`, for in a docroot may lie a php.ini, or a module that a script imports; and without the variables that
/// lead interpreters to code, but for the directories of PHP's settings where they are root's.
pub(super) fn probed<'a>(record: &Record<'a>, site: &Site<'a>) -> Site<'a> {
    let mut probed = site.clone();
    probed.docroots.clear();
    let set = &mut probed.environment.set;
    let settings =
        |(name, value): &(&[u8], &[u8])| *name == b"PHP_INI_SCAN_DIR" && are_roots(value, &site.jail);
    set.retain(|one| may_pass(one.0) || one.0 == b"TMPDIR" || one.0.starts_with(b"LC_") || settings(one));
    set.push((b"PATH", record.host.safe_path));
    probed
}

/// These directories of PHP's settings, with `:` between them, are root's alone: what they lead to is no code of the site's.
fn are_roots(directories: &[u8], jail: &Jail<'_>) -> bool {
    let is_roots = |path: &[u8]| {
        let found = Ground::default().find(Path::new("/"), Path::new(OsStr::from_bytes(path)));
        path.is_empty() || found.kind == Kind::Directory && found.foreign.is_none() && found.open.is_none()
    };
    !matches!(jail, Jail::Chroot(_)) && directories.split(|byte| *byte == b':').all(is_roots)
}

/// Runs a program in the cell, with `input` on its standard input: a script of some pages at most.
pub(super) fn program(
    record: &Record<'_>,
    site: &Site<'_>,
    words: &[&str],
    input: &str,
) -> Result<Said, String> {
    let command: Vec<CString> = words
        .iter()
        .map(|word| CString::new(*word))
        .collect::<Result<_, _>>()
        .map_err(|why| why.to_string())?;
    child(input, |arrival, root| enter(arrival, record, site, command, root).map(|never| match never {}))
}

/// Looks around in the cell; `look` writes its findings to standard output.
pub(super) fn look(record: &Record<'_>, site: &Site<'_>, look: impl FnOnce()) -> Result<Said, String> {
    child("", |arrival, root| visit(arrival, record, site, root, look))
}

fn child(input: &str, work: impl FnOnce(&Arrival<'_>, Root) -> Result<(), Refusal>) -> Result<Said, String> {
    let failed = |errno: Errno| errno.to_string();
    let (from_us, to_child) = pipe().map_err(failed)?;
    let (from_child, to_us) = pipe().map_err(failed)?;
    // Closed when the program starts: what comes here is the launcher's.
    let (refusal, to_refuse) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    match fork().map_err(failed)? {
        Side::Child => {
            drop((to_child, from_child, refusal));
            // The administrator's terminal stays behind, too.
            let ready = setsid().and(dup2_stdin(&from_us)).and(dup2_stdout(&to_us)).and(dup2_stderr(&to_us));
            drop((from_us, to_us));
            // The child has nothing to clean up.
            leave(if ready.is_ok() && entered(to_refuse, work) { 0 } else { REFUSED })
        }
        Side::Parent(pid) => {
            drop((from_us, to_us, to_refuse));
            drop(File::from(to_child).write_all(input.as_bytes()));
            let (text, in_time) = gather(from_child);
            if !in_time {
                let _ = kill(pid, Signal::SIGKILL);
            }
            let status = ended(pid).map_err(failed)?.filter(|_| in_time);
            Ok(Said { status, text, refused: refused(refusal) })
        }
    }
}

/// In the child: into the cell, or the refusal to those who wait for it.
fn entered(to_refuse: OwnedFd, work: impl FnOnce(&Arrival<'_>, Root) -> Result<(), Refusal>) -> bool {
    let Ok(root) = root() else { return false };
    let arrival = Arrival::as_if((0, 0), sys::process::take_environment());
    let Err(refusal) = work(&arrival, root) else { return true };
    let said = format!("{} ({})\n{}", refusal.why, refusal.card.code, mend::from_inside(&refusal));
    drop(File::from(to_refuse).write_all(said.as_bytes()));
    false
}

fn refused(from: OwnedFd) -> Option<(String, String)> {
    let mut text = String::new();
    File::from(from).read_to_string(&mut text).ok()?;
    text.split_once('\n').map(|(why, fix)| (why.to_owned(), fix.to_owned()))
}

/// All that comes until the end, or until time is up.
fn gather(from: OwnedFd) -> (String, bool) {
    let until = Instant::now() + PATIENCE;
    let mut file = File::from(from);
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left =
            u16::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u16::MAX);
        let ready = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], PollTimeout::from(left));
        match ready {
            Err(Errno::EINTR) => continue,
            Ok(0) | Err(_) => return (String::from_utf8_lossy(&all).into_owned(), false),
            Ok(_) => {}
        }
        match file.read(&mut buffer) {
            Ok(0) | Err(_) => return (String::from_utf8_lossy(&all).into_owned(), true),
            Ok(count) if all.len() < MOST => all.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Ok(_) => {}
        }
    }
}

fn ended(pid: Pid) -> Result<Option<i32>, Errno> {
    Ok(match waitpid(pid, None)? {
        WaitStatus::Exited(_, status) => Some(status),
        _ => None,
    })
}

/// A program in a cell may wait for a name server or a mail server; not for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are kept of what a program says.
const MOST: usize = 1 << 18;

/// The status of a child that did not get into the cell.
const REFUSED: u8 = 99;
