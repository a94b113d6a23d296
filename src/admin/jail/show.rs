//! `cellwall jail show`: the cell of a site as a tree, with the line of the configuration behind each path.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::config::facts;
use crate::config::problem::Place;
use crate::config::provenance::Traced;
use crate::policy::{Jail, Site, Step, StepKind};

use super::super::json::Json;
use super::super::{End, Stop, cell, say};

/// Arguments of `cellwall jail show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site (`shop`, `~alice`)
    pub site: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// One path of a cell.
struct Entry {
    path: PathBuf,
    what: String,
    /// Lines of the configuration; or why every cell has it.
    why: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// The site is not there.
pub fn run(args: &Args) -> Result<End, Stop> {
    cell::with_site(&args.site, |_, site| {
        let traced = Traced::of(&args.site);
        if traced.as_ref().is_none_or(|traced| traced.file.modified != site.source.modified) {
            say::note(format_args!("warning: its file has changed since: run: cellwall apply {}", args.site));
        }
        let reasons = traced.map(|traced| traced.reasons).unwrap_or_default();
        let entries = entries(site, &reasons);
        if args.json {
            say::out(json(&args.site, site, &entries));
        } else {
            say::out(title(&args.site, site));
            tree(&entries);
        }
        Ok(End::Good)
    })
}

fn title(name: &str, site: &Site<'_>) -> String {
    match &site.jail {
        Jail::View(view) => {
            format!("{name}: a view of {} places; nothing else of the host is there", view.steps.len())
        }
        Jail::Host => format!("{name}: the host's own files; names are visible, and these may be opened"),
        Jail::Chroot(directory) => {
            format!("{name}: the chroot {}; of it these may be opened", String::from_utf8_lossy(directory))
        }
    }
}

fn entries(site: &Site<'_>, reasons: &BTreeMap<PathBuf, Vec<Place>>) -> Vec<Entry> {
    let mut all: Vec<Entry> = match &site.jail {
        Jail::View(view) => view.steps.iter().map(|step| entry(step, reasons)).collect(),
        Jail::Host | Jail::Chroot(_) => site
            .landlock
            .rules
            .iter()
            .map(|rule| {
                let path = PathBuf::from(text(rule.path));
                let why = why(&path, reasons);
                Entry { what: facts::rights(rule), path, why }
            })
            .collect(),
    };
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all
}

fn entry(step: &Step<'_>, reasons: &BTreeMap<PathBuf, Vec<Place>>) -> Entry {
    let (path, source) = (PathBuf::from(text(step.target)), text(step.source));
    let has = |flag| step.flags & flag != 0;
    let from = if source == text(step.target) || has(Step::DEEPER) {
        String::new()
    } else {
        format!(", which is {source}")
    };
    let what = match step.kind {
        StepKind::Link => format!("-> {source}"),
        StepKind::Directory => "empty".to_owned(),
        StepKind::Memory => "in memory, written by the site".to_owned(),
        StepKind::Processes => "the site's own processes".to_owned(),
        StepKind::BindFile if path.starts_with("/dev") => "device".to_owned(),
        StepKind::BindDirectory | StepKind::BindFile => {
            let programs = if has(Step::NO_EXEC) { ", no programs" } else { "" };
            let may_miss = if has(Step::OPTIONAL) { ", may be missing" } else { "" };
            let right = if has(Step::READ_ONLY) { "read" } else { "written" };
            format!("{right}{programs}{may_miss}{from}")
        }
    };
    let why = why(&path, reasons);
    Entry { path, what, why }
}

/// The lines that asked for a path; for a place that was bound higher up, those that asked for what is in it.
fn why(path: &Path, reasons: &BTreeMap<PathBuf, Vec<Place>>) -> Vec<String> {
    let below = || reasons.iter().filter(|(asked, _)| asked.starts_with(path)).flat_map(|(_, places)| places);
    if matches!(path.to_str(), Some("/etc/passwd" | "/etc/group")) && !reasons.is_empty() {
        return vec!["every view: root, nobody and the site".to_owned()];
    }
    let mut lines: Vec<String> = match reasons.get(path) {
        Some(places) => places.iter().map(ToString::to_string).collect(),
        None => below().map(ToString::to_string).collect(),
    };
    lines.dedup();
    if lines.is_empty() {
        let always = match path.to_str() {
            Some("/tmp" | "/var/tmp") => "jail.private, by default",
            Some("/proc") => "jail.processes",
            _ if path.starts_with("/dev") => "jail.devices",
            _ => "every view: as on the host",
        };
        lines.push(always.to_owned());
    }
    lines
}

fn tree(entries: &[Entry]) {
    say::out("/");
    let mut open: Vec<String> = Vec::new();
    for entry in entries {
        let parts: Vec<String> = entry
            .path
            .components()
            .filter_map(|part| match part {
                Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
                _ => None,
            })
            .collect();
        let shared = open.iter().zip(&parts).take_while(|(one, other)| one == other).count();
        for (depth, part) in parts.iter().enumerate().skip(shared) {
            let name = format!("{}{part}", "  ".repeat(depth + 1));
            if depth + 1 < parts.len() {
                say::out(format_args!("{name}/"));
            } else {
                let why = entry.why.first().map(String::as_str).unwrap_or_default();
                let more = entry.why.len().saturating_sub(1);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                say::out(format_args!("{:<30} {:<32} # {why}{more}", name, entry.what));
            }
        }
        open = parts;
    }
}

fn json(name: &str, site: &Site<'_>, entries: &[Entry]) -> Json {
    let kind = match &site.jail {
        Jail::View(_) => "view",
        Jail::Host => "host",
        Jail::Chroot(_) => "chroot",
    };
    let one = |entry: &Entry| {
        Json::object([
            ("path", Json::text(entry.path.to_string_lossy())),
            ("what", Json::text(&entry.what)),
            ("from", Json::texts(entry.why.iter().cloned())),
        ])
    };
    Json::object([
        ("site", Json::text(name)),
        ("kind", Json::text(kind)),
        ("paths", Json::List(entries.iter().map(one).collect())),
    ])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
