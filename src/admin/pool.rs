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

use super::json::Json;
use super::{End, say};

/// Arguments of `cellwall pool`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub what: What,
    /// Print the outcome as JSON
    #[arg(long, global = true)]
    pub json: bool,
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

/// Arguments of `cellwall deployed`.
#[derive(Debug, clap::Args)]
pub struct Deployed {
    #[command(flatten)]
    of: Of,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `cellwall pool`.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let (wish, site) = match &args.what {
        What::Stop(of) => (Wish::Stop, of.site.as_str()),
        What::Start(of) => (Wish::Start, of.site.as_str()),
        What::Restart(of) => (Wish::Restart, of.site.as_str()),
        What::Reload => (Wish::Reload, ""),
    };
    tell(wish, site, args.json)
}

/// Runs `cellwall deployed`.
#[must_use]
pub fn deployed(args: &Deployed) -> ExitCode {
    tell(Wish::Deployed, &args.of.site, args.json)
}

/// What became of a wish.
struct Answer {
    end: End,
    /// The outcome in one word.
    word: &'static str,
    /// What to know of it, and what to do; empty: nothing.
    message: String,
    help: String,
}

fn tell(wish: Wish, site: &str, json: bool) -> ExitCode {
    let Answer { end, word, message, help } = answer(ask(wish, site), wish, site);
    if json {
        let text = |text: &str| if text.is_empty() { Json::Null } else { Json::text(text) };
        say::out(Json::object([
            ("ok", Json::Bool(end == End::Good)),
            ("site", text(site)),
            ("outcome", Json::text(word)),
            ("message", text(&message)),
            ("help", text(&help)),
        ]));
    } else if !message.is_empty() {
        let weight = if end == End::Good { "note" } else { "error" };
        let help = if help.is_empty() { help } else { format!("\n  help: {help}") };
        say::note(format_args!("{weight}: {message}{help}"));
    }
    end.into()
}

fn answer(outcome: Result<Outcome, Errno>, wish: Wish, site: &str) -> Answer {
    let said = |end, word, message: String, help: &str| Answer { end, word, message, help: help.to_owned() };
    match outcome {
        Ok(Outcome::Done) => said(End::Good, "done", String::new(), ""),
        Ok(Outcome::Unknown) => said(
            End::Findings,
            "unknown",
            format!("the daemon serves no pool `{site}`"),
            "write [pool] in the site's file, then: cellwall apply",
        ),
        Ok(Outcome::Denied) => said(
            End::Failed,
            "denied",
            "only root may ask for that; `cellwall deployed` is for the site's own user too".to_owned(),
            "",
        ),
        Ok(Outcome::Slow) if wish == Wish::Start => said(
            End::Findings,
            "slow",
            format!("`{site}` is started, and is not served yet"),
            &format!("cellwall status {site}; cellwall why --last {site}"),
        ),
        Ok(Outcome::Slow) => said(
            End::Good,
            "slow",
            "old workers still finish their requests; new requests go to the new ones".to_owned(),
            "",
        ),
        Ok(Outcome::Failing) => said(
            End::Findings,
            "failing",
            failing(wish, site),
            &format!(
                "what ended them is in the log, in the last lines of site={site}; where they wrote, in those with stderr"
            ),
        ),
        Ok(Outcome::Nonsense) => said(
            End::Failed,
            "nonsense",
            "the daemon is of another version".to_owned(),
            "systemctl restart cellwalld",
        ),
        Ok(Outcome::Kept) => said(End::Findings, "kept", KEPT.to_owned(), KEPT_HELP),
        Ok(Outcome::Unwritten) => said(
            End::Findings,
            "unwritten",
            format!(
                "it is done for `{site}`, and could not be written down: the daemon's next start undoes it"
            ),
            "see what keeps root from writing there: df /var/lib/cellwall; ls -ld /var/lib/cellwall/stopped",
        ),
        Err(errno) => said(
            End::Failed,
            "silent",
            format!("the daemon does not answer at {SOCKET}: {}", errno.desc()),
            &by_systemd("start"),
        ),
    }
}

/// Workers that do not start.
fn failing(wish: Wish, site: &str) -> String {
    match wish {
        Wish::Start => format!("`{site}` is started, and its workers do not start: visitors see a 503"),
        _ => format!("the new workers of `{site}` do not start; old ones go on"),
    }
}

/// After `apply`: the daemon, if there is one, reads what was written.
pub fn reload_if_running() {
    match ask(Wish::Reload, "") {
        Ok(Outcome::Done) => {}
        Ok(Outcome::Kept) => say::note(format_args!("warning: {KEPT}\n  help: {KEPT_HELP}")),
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
const KEPT: &str = "the pool's daemon cannot use all records, and serves some sites as before (S09)";
const KEPT_HELP: &str =
    "cellwall why --last; where the daemon is older than this command: systemctl restart cellwalld";

/// Seconds; the daemon answers a restart after 90 at most.
const LONGEST: i64 = 100;
