//! `cellwall jail shell`: the same cell for people, cron and sshd's ForceCommand as for the web.
//!
//! sshd starts a ForceCommand as the account itself, which may not enter a cell; sudo carries it over, and `--mine`
//! takes the account's site from what sudo says (sudo(8), SUDO_UID), never from words of the account's.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use crate::config::store;

use super::super::Stop;
use super::super::run::enter_cell;

/// Arguments of `cellwall jail shell`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site (`shop`, `~alice`)
    #[arg(required_unless_present = "mine")]
    pub site: Option<String>,
    /// The first site of the account that called sudo
    #[arg(long, conflicts_with = "site")]
    pub mine: bool,
    /// A command line for the shell; without one, or with an empty one, the shell reads its input
    #[arg(short)]
    pub command: Option<OsString>,
}

/// Runs the command.
///
/// # Errors
/// What keeps the shell from starting.
pub fn run(args: &Args) -> Result<ExitCode, Stop> {
    let site = match &args.site {
        Some(site) => site.clone(),
        None => mine()?,
    };
    // Any bytes: it may name a file of any name.
    let line = args.command.as_deref().map(OsStr::as_bytes).filter(|line| !line.is_empty());
    let words = match line {
        Some(line) => vec![&b"/bin/sh"[..], b"-c", line],
        None => vec![&b"/bin/sh"[..]],
    };
    let command: Result<Vec<CString>, _> = words.into_iter().map(CString::new).collect();
    enter_cell(&site, command.map_err(|_| "the command has a NUL in it")?)
}

/// The site of the account behind sudo.
#[allow(clippy::disallowed_methods, reason = "what sudo says is wanted, and only root gets here")]
fn mine() -> Result<String, String> {
    let uid = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    let uid = uid.ok_or("--mine is for sudo, which says who calls (SUDO_UID)\n  help: name the site")?;
    store::names(uid).into_iter().next().ok_or_else(|| format!("uid {uid} has no site"))
}
