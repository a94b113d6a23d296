//! `cellwall run SITE -- COMMAND…`: any command in a site's cell, by the launcher's own stages. Root.
//!
//! Where one of our descriptors is a terminal, the command gets a terminal of its own in its place: with the administrator's
//! it could push characters into the administrator's input (CVE-2016-2779), or read what is typed. Where none is, it has none.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::stat::fstat;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, getpgrp, getpid, getsid, tcgetpgrp};

use crate::launch::arrival::Arrival;
use crate::launch::enter;
use crate::policy::{Record, Site};
use crate::sys::fork::{Side, copy_window_size, fork, hold, leave_terminal, take_terminal};
use crate::sys::{self, Root};

use super::{Stop, cell};

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
    inside(args).unwrap_or_else(|stop| stop.said().into())
}

fn inside(args: &Args) -> Result<ExitCode, Stop> {
    let words = args.command.iter().map(|word| CString::new(word.clone().into_vec()));
    let command: Vec<CString> = words.collect::<Result<_, _>>().map_err(|_| "a word has a NUL in it")?;
    enter_cell(&args.site, command)
}

/// The command in the site's cell, at a terminal of its own in the place of ours.
pub(super) fn enter_cell(site: &str, command: Vec<CString>) -> Result<ExitCode, Stop> {
    cell::with_site(site, |record, site| {
        let failed = |error: io::Error| Stop::from(error.to_string());
        let root = cell::root()?;
        let ours = Ours::look().map_err(failed)?;
        let become_it = || become_command(record, site, command, root);
        match ours.screen().map_err(failed)? {
            Some(screen) => at_terminal(&ours, &screen, become_it),
            None => alone(become_it),
        }
        .map_err(failed)
    })
}

/// Which of our descriptors are the administrator's terminal.
#[derive(Debug, Clone, Copy)]
struct Ours {
    input: bool,
    output: bool,
    errors: bool,
}

impl Ours {
    /// What is typed is not the command's where another program of a pipeline may be waiting for it, or we are in the
    /// background: its input is empty then.
    fn look() -> io::Result<Self> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let mut ours = Self {
            input: stdin.is_terminal(),
            output: stdout.is_terminal(),
            errors: io::stderr().is_terminal(),
        };
        let kind = fstat(&stdout)?.st_mode & libc::S_IFMT;
        // Of a terminal that does not control us nobody is in front.
        let front = || tcgetpgrp(&stdin).map_or(true, |group| group == getpgrp());
        if ours.input && (kind == libc::S_IFIFO || !front()) {
            dup2_stdin(File::open("/dev/null")?)?;
            ours.input = false;
        }
        Ok(ours)
    }

    /// Where the administrator sees what the command's terminal shows. None: no descriptor is a terminal.
    fn screen(self) -> io::Result<Option<File>> {
        let held = if self.output {
            io::stdout().as_fd().try_clone_to_owned()?
        } else if self.errors {
            io::stderr().as_fd().try_clone_to_owned()?
        } else if self.input {
            io::stdin().as_fd().try_clone_to_owned()?
        } else {
            return Ok(None);
        };
        Ok(Some(File::from(held)))
    }
}

/// Without a terminal among its descriptors; and without the one that controls us, which it could open.
fn alone(become_it: impl FnOnce() -> ExitCode) -> io::Result<ExitCode> {
    let options = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).clone();
    let terminal = match options.open("/dev/tty") {
        Ok(terminal) => terminal,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT)) => {
            return Ok(become_it());
        }
        Err(error) => return Err(error),
    };
    // Whoever leads a session takes the terminal from all of it.
    if getsid(None)? == getpid()
        && let Side::Parent(child) = fork()?
    {
        return Ok(ended(child)?);
    }
    leave_terminal(terminal.as_fd())?;
    drop(terminal);
    Ok(become_it())
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

fn at_terminal(ours: &Ours, screen: &File, become_it: impl FnOnce() -> ExitCode) -> io::Result<ExitCode> {
    let pty = openpty(None, None)?;
    copy_window_size(screen.as_raw_fd(), pty.master.as_raw_fd());
    match fork()? {
        Side::Child => {
            drop(pty.master);
            take_terminal(pty.slave.as_fd())?;
            if ours.input {
                dup2_stdin(&pty.slave)?;
            }
            if ours.output {
                dup2_stdout(&pty.slave)?;
            }
            if ours.errors {
                dup2_stderr(&pty.slave)?;
            }
            drop(pty.slave);
            Ok(become_it())
        }
        Side::Parent(child) => {
            drop(pty.slave);
            let before = if ours.input { Some(tcgetattr(io::stdin())?) } else { None };
            if let Some(before) = &before {
                let mut raw = before.clone();
                cfmakeraw(&mut raw);
                tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
            }
            let relayed = hold(child).map(|held| relay(ours.input, screen, &pty.master, &held));
            if let Some(before) = &before {
                tcsetattr(io::stdin(), SetArg::TCSANOW, before)?;
            }
            relayed??;
            Ok(ended(child)?)
        }
    }
}

/// Carries bytes both ways until the child has ended, and all that it wrote is here: what it left behind gets nothing that is
/// typed from then on.
fn relay(typed: bool, mut screen: &File, master: &OwnedFd, child: &OwnedFd) -> io::Result<()> {
    let mut inner = File::from(master.try_clone()?);
    let mut input = io::stdin();
    let (mut open, mut rest) = (typed, REST);
    let mut buffer = [0; 4096];
    loop {
        let (stdin, terminal) = (io::stdin(), inner.as_fd());
        let mut ready =
            vec![PollFd::new(terminal, PollFlags::POLLIN), PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        if open && rest == REST {
            ready.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // The time-out notices a window that has changed its size.
        match poll(&mut ready, PollTimeout::from(250_u8)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [from_child, over, from_user] =
            [0, 1, 2].map(|place| ready.get(place).and_then(PollFd::any).unwrap_or(false));
        drop(ready);
        copy_window_size(screen.as_raw_fd(), master.as_raw_fd());
        if from_child {
            match inner.read(&mut buffer) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => drop(screen.write_all(buffer.get(..count).unwrap_or_default())),
            }
        }
        rest -= usize::from(over);
        if over && !from_child || rest == 0 {
            return Ok(());
        }
        if from_user && !over {
            match input.read(&mut buffer) {
                Ok(0) | Err(_) => open = false,
                Ok(count) => drop(inner.write_all(buffer.get(..count).unwrap_or_default())),
            }
        }
    }
}

/// Blocks that are still read when the child has ended: more than a terminal holds.
const REST: usize = 64;

/// Waits for the command, and tells its end as a shell does.
fn ended(child: Pid) -> nix::Result<ExitCode> {
    Ok(match waitpid(child, None)? {
        WaitStatus::Exited(_, status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        WaitStatus::Signaled(_, signal, _) => ExitCode::from(signal_status(signal)),
        _ => ExitCode::FAILURE,
    })
}

fn signal_status(signal: nix::sys::signal::Signal) -> u8 {
    let number =
        (1..=31_u8).find(|number| nix::sys::signal::Signal::try_from(i32::from(*number)) == Ok(signal));
    number.unwrap_or(0).saturating_add(128)
}
