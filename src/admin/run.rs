//! `cellwall run SITE -- COMMAND…`: any command in a site's cell, by the launcher's own stages. Root.
//!
//! At a terminal the command gets a terminal of its own: with the administrator's it could push characters into the
//! administrator's input (CVE-2016-2779).

use std::ffi::CString;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::launch::arrival::Arrival;
use crate::launch::enter;
use crate::policy::{Record, Site};
use crate::sys::fork::{Side, copy_window_size, fork, take_terminal};
use crate::sys::{self, Root};

use super::{End, cell, say};

/// Arguments of `cellwall run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site (`shop`, `~alice`)
    pub site: String,
    /// The command and its arguments
    #[arg(last = true, required = true, num_args = 1..)]
    pub command: Vec<std::ffi::OsString>,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    inside(args).unwrap_or_else(|message| {
        say::note(format_args!("error: {message}"));
        End::Failed.into()
    })
}

fn inside(args: &Args) -> Result<ExitCode, String> {
    let words = args.command.iter().map(|word| CString::new(word.clone().into_vec()));
    let command: Vec<CString> = words.collect::<Result<_, _>>().map_err(|_| "a word has a NUL in it")?;
    enter_cell(&args.site, command)
}

/// The command in the site's cell, at a terminal of its own when we are at one.
pub(super) fn enter_cell(site: &str, command: Vec<CString>) -> Result<ExitCode, String> {
    cell::with_site(site, |record, site| {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            return at_terminal(record, site, command, cell::root()?).map_err(|errno| errno.to_string());
        }
        Ok(become_command(record, site, command, cell::root()?))
    })
}

/// Returns only when it was refused.
pub(super) fn become_command(
    record: &Record<'_>,
    site: &Site<'_>,
    command: Vec<CString>,
    root: Root,
) -> ExitCode {
    let environment = sys::process::take_environment();
    let arrival = Arrival::as_if((0, 0), environment);
    match enter(&arrival, record, site, command, root) {
        Ok(never) => match never {},
        Err(refusal) => {
            cell::say_refusal(&refusal);
            ExitCode::from(refusal.card.status)
        }
    }
}

fn at_terminal(
    record: &Record<'_>,
    site: &Site<'_>,
    command: Vec<CString>,
    root: Root,
) -> Result<ExitCode, nix::Error> {
    let pty = openpty(None, None)?;
    copy_window_size(pty.master.as_raw_fd());
    match fork()? {
        Side::Child => {
            drop(pty.master);
            dup2_stdin(&pty.slave)?;
            dup2_stdout(&pty.slave)?;
            dup2_stderr(&pty.slave)?;
            drop(pty.slave);
            take_terminal()?;
            Ok(become_command(record, site, command, root))
        }
        Side::Parent(child) => {
            drop(pty.slave);
            let before = tcgetattr(std::io::stdin())?;
            let ended = relay(&before, &pty.master, child);
            tcsetattr(std::io::stdin(), SetArg::TCSANOW, &before)?;
            ended
        }
    }
}

/// Carries bytes both ways until the child's side of the terminal is closed.
fn relay(before: &Termios, master: &OwnedFd, child: Pid) -> Result<ExitCode, nix::Error> {
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
    let mut inner = File::from(master.try_clone().map_err(|_| nix::Error::EMFILE)?);
    let (mut input, mut output) = (std::io::stdin(), std::io::stdout());
    let mut open = true;
    let mut buffer = [0; 4096];
    loop {
        let (stdin, terminal) = (std::io::stdin(), inner.as_fd());
        let mut ready = vec![PollFd::new(terminal, PollFlags::POLLIN)];
        if open {
            ready.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // The time-out notices a window that has changed its size.
        match poll(&mut ready, PollTimeout::from(250_u8)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let [from_child, from_user] =
            [0, 1].map(|place| ready.get(place).and_then(PollFd::any).unwrap_or(false));
        drop(ready);
        copy_window_size(master.as_raw_fd());
        if from_child {
            match inner.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => drop(
                    output.write_all(buffer.get(..count).unwrap_or_default()).and_then(|()| output.flush()),
                ),
            }
        }
        if from_user {
            match input.read(&mut buffer) {
                Ok(0) | Err(_) => open = false,
                Ok(count) => drop(inner.write_all(buffer.get(..count).unwrap_or_default())),
            }
        }
    }
    Ok(match waitpid(child, None)? {
        WaitStatus::Exited(_, status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        // As a shell tells it.
        WaitStatus::Signaled(_, signal, _) => ExitCode::from(signal_status(signal)),
        _ => ExitCode::FAILURE,
    })
}

fn signal_status(signal: nix::sys::signal::Signal) -> u8 {
    let number =
        (1..=31_u8).find(|number| nix::sys::signal::Signal::try_from(i32::from(*number)) == Ok(signal));
    number.unwrap_or(0).saturating_add(128)
}
