//! `cellwall jail`: what a site's cell holds, whether it works, and a shell in it. Root.

pub mod build;
pub mod check;
mod look;
mod probes;
pub mod shell;
pub mod show;

use std::process::ExitCode;

use clap::Subcommand;

use super::Stop;

/// Arguments of `cellwall jail`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print what is visible inside, as a tree, with the line behind each path
    Show(show::Args),
    /// Try inside what the site's programs need: interpreters, names, TLS, time zones, sockets, mail …
    Check(check::Args),
    /// Make a directory a chroot, by copying what sites, pieces and programs need
    Build(build::Args),
    /// Bring such a chroot up to date after the system was
    Refresh(build::Of),
    /// Start a shell, or one command, inside: for administrators, cron and ssh
    Shell(shell::Args),
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let ended = match &args.what {
        What::Show(args) => show::run(args).map(Into::into),
        What::Check(args) => check::run(args).map(Into::into),
        What::Build(args) => build::run(args).map(Into::into).map_err(Stop::from),
        What::Refresh(args) => build::refresh(args).map(Into::into).map_err(Stop::from),
        What::Shell(args) => shell::run(args),
    };
    ended.unwrap_or_else(|stop| stop.said().into())
}
