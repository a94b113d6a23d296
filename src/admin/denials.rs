//! `cellwall denials SITE`: what the kernel denied the site's programs, as far as the kernel tells. Root.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::values::Seconds;
use crate::policy::{Record, Site};

use super::audit::{self, Hearing, Stream};
use super::cell::with_site;
use super::json::Json;
use super::kernel::{Denial, What, parse, read};
use super::until::Until;
use super::{End, Stop, say};

/// Arguments of `cellwall denials`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site (`shop`, `~alice`)
    #[arg(required_unless_present = "switch")]
    pub site: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Tell what is denied from now on, for so long or until Ctrl-C; the kernel's audit is on meanwhile
    #[arg(long, value_name = "TIME", num_args = 0..=1, conflicts_with = "json")]
    pub watch: Option<Option<Seconds>>,
    /// Switch the kernel's audit on or off, which tells denied paths and ports of all sites that log denials
    #[arg(long, value_name = "ON|OFF", conflicts_with_all = ["site", "json", "watch"])]
    pub switch: Option<Switch>,
}

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// The kernel tells.
    On,
    /// The kernel tells nothing but denied system calls.
    Off,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        say::note("error: only root can read the kernel's log\n  help: run it again with sudo");
        return End::Failed.into();
    }
    let ended = match (&args.site, args.switch) {
        (_, Some(position)) => switch(position).map_err(Stop::from),
        (Some(site), None) => with_site(site, |record, site| {
            let told = match args.watch {
                Some(time) => watch(record, site, time),
                None => show(args, record, site),
            };
            told.map_err(Stop::from)
        }),
        (None, None) => Err(Stop::asked("name a site")),
    };
    ended.unwrap_or_else(Stop::said).into()
}

fn switch(position: Switch) -> Result<End, String> {
    audit::switch(position == Switch::On)?;
    let daemon = audit::state()?.daemon;
    match (position, daemon) {
        (Switch::Off, _) => say::out("denied paths and ports are not told"),
        (Switch::On, 0) => {
            say::out("denied paths and ports are in the kernel's log, ten lines in five seconds at most")
        }
        (Switch::On, _) => say::out("denied paths and ports are in the audit daemon's log"),
    }
    say::note("note: until the next boot; audit=1 on the kernel's command line makes it last");
    Ok(End::Good)
}

/// Line by line as it happens, and the kernel's audit as it was before.
fn watch(record: &Record<'_>, site: &Site<'_>, time: Option<Seconds>) -> Result<End, String> {
    let failed = |errno: nix::errno::Errno| errno.desc().to_owned();
    let until = Until::new(time.map(|time| Duration::from_secs(time.0))).map_err(failed)?;
    logged(site).into_iter().for_each(say::note);
    let hearing = Hearing::start(None)?;
    say::note("watching: end it with Ctrl-C");
    let count = listen(&until, hearing.stream(), record.uid).map_err(failed)?;
    drop(hearing);
    say::note(format_args!("{} told", say::counted(count, "denial")));
    Ok(End::Good)
}

fn listen(until: &Until, stream: &Stream, uid: u32) -> Result<usize, nix::errno::Errno> {
    let (mut domains, mut event, mut count) = (String::new(), String::new(), 0);
    while until.goes_on(Some(stream.as_fd()), Duration::from_secs(1))? {
        while let Some(told) = stream.line() {
            let Ok(line) = told else {
                say::note("note: the kernel told more than could be heard");
                continue;
            };
            let (kind, rest) = line.split_once(' ').unwrap_or((&line, ""));
            event.push_str(&format!("{line}\n"));
            if kind == "type=1424" && domains.len() < DOMAINS_MOST {
                domains.push_str(&format!("{kind} {rest}\n"));
            }
            // The end of an event; a denied system call is one line without it.
            if !matches!(kind, "type=1320" | "type=1326") {
                continue;
            }
            for denial in parse(&format!("{domains}{event}")) {
                if denial.uid == Some(uid) {
                    say::out(format_args!("{}: {}", denial.program, denial.what));
                    count += 1;
                }
            }
            event.clear();
        }
    }
    Ok(count)
}

/// Cells that were told of, in bytes of their lines: a day's watch of a busy host does not fill the memory.
const DOMAINS_MOST: usize = 16 << 20;

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

/// Does the site log at all?
fn logged(site: &Site<'_>) -> Option<String> {
    let name = String::from_utf8_lossy(site.name);
    (!site.log_denials).then(|| {
        format!(
            "note: this site's denials are not logged, but for what ends a program\n  help: cellwall set {name} \
             jail.log_denials true"
        )
    })
}

/// What the kernel does not write down here.
fn blind(site: &Site<'_>, sites: usize) -> Vec<String> {
    let mut all: Vec<String> = logged(site).into_iter().collect();
    let name = String::from_utf8_lossy(site.name);
    if crate::sys::seal::landlock_version() < 7 {
        all.push("note: this kernel tells no denied paths and ports (Linux 6.15 does)".to_owned());
    } else {
        match audit::state() {
            Ok(state) if !state.on => all.push(format!(
                "note: denied paths and ports are told while the kernel's audit is on, which is off\n  help: cellwall \
                 denials --switch on, or for a while: cellwall denials {name} --watch 60s"
            )),
            Ok(state) if state.daemon == 0 => all.push(format!(
                "note: without an audit daemon the kernel writes ten lines in five seconds at most\n  help: all of \
                 them: cellwall denials {name} --watch 60s"
            )),
            Ok(_) => {}
            Err(why) => all.push(format!("note: no denied paths and ports are told: {why}")),
        }
    }
    if !matches!(site.jail, crate::policy::Jail::Host) {
        all.push(format!(
            "note: what the cell does not show is no denial to the kernel: the path is not there\n  help: cellwall \
             learn {name} --traffic, or cellwall why --again, find it"
        ));
    }
    if sites > 1 {
        all.push(format!("note: {sites} sites share this user; the kernel cannot tell them apart"));
    }
    all
}
