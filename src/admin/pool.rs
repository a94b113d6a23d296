//! `cellwall pool` and `cellwall deployed`: what the pool's daemon is asked for.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::config::store;
use crate::pool::control::{FRAME, Outcome, SOCKET, Wish};

use super::{End, say};

/// Arguments of `cellwall pool`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub what: What,
}

/// What to do with a pool.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Answer all requests of a site with 503, and end its workers, until it is started again
    Stop(Of),
    /// Serve a stopped site again
    Start(Of),
    /// Put new workers in the place of a site's old ones, without a lost request
    Restart(Of),
    /// Have the daemon read the policy again; apply does it too
    Reload,
}

/// Which site.
#[derive(Debug, clap::Args)]
pub struct Of {
    /// The site's name
    pub site: String,
}

/// Runs `cellwall pool`.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match &args.what {
        What::Stop(of) => tell(Wish::Stop, &of.site),
        What::Start(of) => tell(Wish::Start, &of.site),
        What::Restart(of) => tell(Wish::Restart, &of.site),
        What::Reload => tell(Wish::Reload, ""),
    }
}

/// Runs `cellwall deployed`.
#[must_use]
pub fn deployed(of: &Of) -> ExitCode {
    tell(Wish::Deployed, &of.site)
}

fn tell(wish: Wish, site: &str) -> ExitCode {
    let end = match ask(wish, site) {
        Ok(Outcome::Done) => return End::Good.into(),
        Ok(Outcome::Unknown) => {
            say::note(format_args!("error: the daemon serves no pool `{site}`"));
            say::note("  help: write [pool] in the site's file, then: cellwall apply");
            End::Findings
        }
        Ok(Outcome::Denied) => {
            say::note(
                "error: only root may ask for that; `cellwall deployed` is for the site's own user too",
            );
            End::Failed
        }
        Ok(Outcome::Slow) => {
            say::note("note: old workers still finish their requests; new requests go to the new ones");
            return End::Good.into();
        }
        Ok(Outcome::Failing) => {
            say::note(format_args!("error: the new workers of `{site}` do not start; old ones go on"));
            say::note(format_args!(
                "  help: what ended them is in the log, in the last lines of site={site}; where they wrote, in those with stderr"
            ));
            End::Findings
        }
        Ok(Outcome::Nonsense) => {
            say::note("error: the daemon is of another version\n  help: systemctl restart cellwalld");
            End::Failed
        }
        Ok(Outcome::Kept) => {
            say::note(format_args!("error: {KEPT}"));
            End::Findings
        }
        Ok(Outcome::Unwritten) => {
            say::note(format_args!(
                "error: it is done for `{site}`, and could not be written down: the daemon's next start undoes it"
            ));
            say::note(
                "  help: see what keeps root from writing there: df /var/lib/cellwall; ls -ld /var/lib/cellwall/stopped",
            );
            End::Findings
        }
        Err(errno) => {
            say::note(format_args!("error: the daemon does not answer at {SOCKET}: {}", errno.desc()));
            say::note(format_args!("  help: {}", by_systemd("start")));
            End::Failed
        }
    };
    end.into()
}

/// After `apply`: the daemon, if there is one, reads what was written.
pub fn reload_if_running() {
    match ask(Wish::Reload, "") {
        Ok(Outcome::Done) => {}
        Ok(Outcome::Kept) => say::note(format_args!("warning: {KEPT}")),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => absent(),
        Ok(_) => {
            say::note("warning: the pool's daemon did not take the new policy: systemctl reload cellwalld")
        }
        Err(errno) => {
            say::note(format_args!(
                "warning: the pool's daemon was not told of the new policy: {}",
                errno.desc()
            ));
        }
    }
}

/// Nobody has to run the daemon, but who has written `[pool]` meant it; his web server answers 502 until then.
fn absent() {
    // Its own lock is the socket, and that is what is gone.
    if runs() {
        return say::note(format_args!(
            "warning: cellwalld runs, and {SOCKET} is gone: it makes it again within a second\n  help: cellwall pool reload"
        ));
    }
    let has_pools = |uid: &u32| store::read(&store::pool_name(*uid)).is_some();
    match store::uids().iter().filter(|uid| has_pools(uid)).count() {
        0 => {}
        count => {
            let users = say::counted(count, "user");
            say::note(format_args!(
                "note: sites of {users} have a pool, and cellwalld, which serves it, does not run"
            ));
            say::note(format_args!("  help: {}", by_systemd("enable --now")));
        }
    }
}

/// Whether the daemon answers, or is about to.
pub(super) fn is_there() -> bool {
    let heard = || -> Result<(), Errno> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(SOCKET)?)
    };
    heard().is_ok() || runs()
}

/// Whether a daemon is among the processes: a supervisor of root's, whose name is the program's alone.
pub(super) fn runs() -> bool {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mounts = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = mounts("self");
    all.filter_map(|entry| entry.file_name().into_string().ok()).any(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = words.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = first.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        // One of a container is not ours.
        name == b"cellwalld" && mounts(&pid) == own
    })
}

/// How the daemon is started here: a container has no systemd, most often (`sd_booted(3)`).
pub(super) fn by_systemd(words: &str) -> String {
    if Path::new("/run/systemd/system").is_dir() {
        format!("systemctl {words} cellwalld")
    } else {
        "cellwalld # as root; it needs no options and stays in the foreground".to_owned()
    }
}

/// Asks the daemon, and waits for its answer.
///
/// # Errors
/// ENOENT, ECONNREFUSED: it does not run. Others of connect(2), send(2), recv(2).
fn ask(wish: Wish, site: &str) -> Result<Outcome, Errno> {
    let frame = wish.encode(site.as_bytes()).ok_or(Errno::ENAMETOOLONG)?;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(LONGEST))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(SOCKET)?)?;
    send(socket.as_raw_fd(), &frame, MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = [0; FRAME];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.get(..length).and_then(Outcome::decode).ok_or(Errno::EPROTO)
}

/// What the daemon says of a record that it cannot use: most often it still is the program from before an upgrade.
const KEPT: &str = "the pool's daemon cannot use all records, and serves some sites as before (S09)\n  help: cellwall why --last; \
                    where the daemon is older than this command: systemctl restart cellwalld";

/// Seconds; the daemon answers a restart after 90 at most.
const LONGEST: i64 = 100;
