//! A site's cell for the commands that go into it: its record, a program in it with its output, a look around. Root.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe};

use crate::config::store;
use crate::launch::arrival::Arrival;
use crate::launch::visit;
use crate::policy::{Record, Site, decode};
use crate::refusal::Refusal;
use crate::sys::fork::{Side, fork};
use crate::sys::{self, Root};

use super::{policy, run, say};

/// What a program said in the cell.
#[derive(Debug)]
pub(super) struct Said {
    /// Its status; none: a signal ended it, or it took too long.
    pub(super) status: Option<i32>,
    /// Output and errors, as they came.
    pub(super) text: String,
}

/// The right to enter, or what is lacking.
pub(super) fn root() -> Result<Root, String> {
    let root = Root::claim().map_err(|errno| errno.to_string())?;
    root.ok_or_else(|| "only root can enter a cell\n  help: run it again with sudo".to_owned())
}

/// Does `work` with the record of a site.
pub(super) fn with_site<T>(
    name: &str,
    work: impl FnOnce(&Record<'_>, &Site<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let _root = root()?;
    let uid = policy::holder(name)?;
    let bytes = store::read(&uid.to_string()).ok_or("its record is gone\n  help: run: cellwall apply")?;
    let record = decode::record(&bytes).map_err(|why| format!("the record of uid {uid}: {why}"))?;
    let site = record.sites.iter().find(|site| site.name == name.as_bytes());
    work(&record, site.ok_or("its record is gone\n  help: run: cellwall apply")?)
}

/// A refusal, for people.
pub(super) fn say_refusal(refusal: &Refusal) {
    let code = refusal.card.code;
    say::note(format_args!("error: {} ({code})\n  help: {}", refusal.why, refusal.fix));
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
    child(input, || match root() {
        Ok(root) => run::become_command(record, site, command, root),
        Err(_) => ExitCode::FAILURE,
    })
}

/// Looks around in the cell; `look` writes its findings to standard output.
pub(super) fn look(record: &Record<'_>, site: &Site<'_>, look: impl FnOnce()) -> Result<Said, String> {
    child("", || {
        let arrival = Arrival::as_if((0, 0), sys::process::take_environment());
        let seen = root().map(|root| visit(&arrival, record, site, root, look));
        match seen {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(refusal)) => {
                say_refusal(&refusal);
                ExitCode::from(refusal.card.status)
            }
            Err(_) => ExitCode::FAILURE,
        }
    })
}

fn child(input: &str, work: impl FnOnce() -> ExitCode) -> Result<Said, String> {
    let failed = |errno: Errno| errno.to_string();
    let (from_us, to_child) = pipe().map_err(failed)?;
    let (from_child, to_us) = pipe().map_err(failed)?;
    match fork().map_err(failed)? {
        Side::Child => {
            drop((to_child, from_child));
            let ready = dup2_stdin(&from_us).and(dup2_stdout(&to_us)).and(dup2_stderr(&to_us));
            drop((from_us, to_us));
            let code = if ready.is_ok() { work() } else { ExitCode::FAILURE };
            // `ExitCode` has no number; the child has nothing to clean up.
            std::process::exit(if code == ExitCode::SUCCESS { 0 } else { REFUSED });
        }
        Side::Parent(pid) => {
            drop((from_us, to_us));
            drop(File::from(to_child).write_all(input.as_bytes()));
            let (text, in_time) = gather(from_child);
            if !in_time {
                let _ = kill(pid, Signal::SIGKILL);
            }
            Ok(Said { status: ended(pid).map_err(failed)?.filter(|_| in_time), text })
        }
    }
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
            Ok(count) => all.extend_from_slice(buffer.get(..count).unwrap_or_default()),
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

/// The status of a child that did not get into the cell.
pub(super) const REFUSED: i32 = 99;
