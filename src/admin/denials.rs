//! `cellwall denials SITE`: what the kernel denied the site's programs, as far as the kernel tells. Root.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use crate::policy::{Record, Site};

use super::cell::with_site;
use super::json::Json;
use super::kernel::{Denial, What, read};
use super::{End, say};

/// Arguments of `cellwall denials`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site (`shop`, `~alice`)
    pub site: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        say::note("error: only root can read the kernel's log\n  help: run it again with sudo");
        return End::Failed.into();
    }
    with_site(&args.site, |record, site| show(args, record, site))
        .unwrap_or_else(|message| {
            say::note(format_args!("error: {message}"));
            End::Failed
        })
        .into()
}

fn show(args: &Args, record: &Record<'_>, site: &Site<'_>) -> Result<End, String> {
    let of_site = |denial: &Denial| denial.uid == Some(record.uid);
    let mut counts: BTreeMap<(String, What), (usize, String)> = BTreeMap::new();
    for Denial { at, program, what, .. } in read()?.into_iter().filter(of_site) {
        let count = counts.entry((program, what)).or_default();
        *count = (count.0.saturating_add(1), at);
    }
    if args.json {
        let one = |((program, what), (count, at)): (&(String, What), &(usize, String))| {
            Json::object([
                ("program", Json::text(program)),
                ("denied", Json::text(what.to_string())),
                ("count", Json::count(*count)),
                ("last", Json::text(at)),
            ])
        };
        say::out(Json::List(counts.iter().map(one).collect()));
        return Ok(End::Good);
    }
    for ((program, what), (count, _)) in &counts {
        say::out(format_args!("{count:>5} x  {program}: {what}"));
    }
    if counts.is_empty() {
        say::out("the kernel wrote down no denial of this site");
    }
    blind(site, record.sites.len()).into_iter().for_each(say::note);
    Ok(End::Good)
}

/// What the kernel does not write down here.
fn blind(site: &Site<'_>, sites: usize) -> Vec<String> {
    let mut all = Vec::new();
    let name = String::from_utf8_lossy(site.name);
    if !site.log_denials {
        all.push(format!(
            "note: this site's denials are not logged, but for what ends a program\n  help: cellwall set {name} \
             jail.log_denials true"
        ));
    }
    if crate::sys::seal::landlock_version() < 7 {
        all.push("note: this kernel tells no denied paths and ports (Linux 6.15 does)".to_owned());
    } else if audit() != Some(true) {
        let known = if audit().is_none() { "cannot be seen without auditctl" } else { "is off" };
        all.push(format!(
            "note: denied paths and ports are told while the kernel's audit is on, which {known}\n  help: apt-get \
             install -y auditd; auditctl -e 1"
        ));
    }
    if !matches!(site.jail, crate::policy::Jail::Host) {
        all.push(format!(
            "note: what the cell does not show is no denial to the kernel: the path is not there\n  help: cellwall \
             learn {name}, or cellwall why --again, find it"
        ));
    }
    if sites > 1 {
        all.push(format!("note: {sites} sites share this user; the kernel cannot tell them apart"));
    }
    all
}

/// Is the kernel's audit on? None: nobody can say.
fn audit() -> Option<bool> {
    let said = ["/sbin/auditctl", "/usr/sbin/auditctl"]
        .iter()
        .find_map(|program| Command::new(program).arg("-s").output().ok())?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let enabled = text.lines().find_map(|line| line.strip_prefix("enabled "))?;
    Some(enabled.trim() != "0")
}
