//! `cellwall why`: the story of one record: what was asked, which rule decided, the evidence, the remedy.

use std::process::ExitCode;

use crate::config::provenance::provenance;

use super::journal::{Entry, Journal};
use super::json::Json;
use super::{End, codes, say};

/// Arguments of `cellwall why`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The reference on the visitor's page, such as 8F3C-21QX
    #[arg(required_unless_present = "last")]
    pub reference: Option<String>,
    /// The last refusal instead; with a site's name, its last
    #[arg(long, value_name = "SITE", num_args = 0..=1, default_missing_value = "", conflicts_with = "reference")]
    pub last: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        say::note("error: only root can read the records\n  help: run it again with sudo");
        return End::Failed.into();
    }
    let journal = Journal::open();
    let found = match (&args.reference, &args.last) {
        (Some(reference), _) => {
            let reference = reference.trim().to_ascii_uppercase();
            journal.entries().rev().find(|entry| entry.field("ref") == Some(reference.as_str()))
        }
        (None, site) => {
            let site = site.as_deref().unwrap_or_default();
            journal
                .entries()
                .rev()
                .find(|entry| entry.refused && (site.is_empty() || entry.field("site") == Some(site)))
        }
    };
    let Some(entry) = found else {
        say::note(format_args!(
            "error: there is no such record\n  note: looked at {}",
            journal.places.join(", ")
        ));
        return End::Findings.into();
    };
    if args.json {
        say::out(json(&entry))
    } else {
        tell(&entry)
    }
    End::Good.into()
}

fn tell(entry: &Entry) {
    let field = |name: &str| entry.field(name).unwrap_or("-");
    let line = |name: &str, text: &str| say::out(format_args!("  {name:<9} {text}"));
    let verdict = if entry.refused { "refused" } else { "launched" };
    say::out(format_args!("{} was {verdict}, {}\n", field("ref"), entry.time));
    let site = field("site");
    if !entry.refused {
        line("program", &format!("{}/{}", field("dir").trim_end_matches('/'), field("script")));
        line("site", site);
        line(
            "identity",
            &format!("uid {}, gid {}, called by uid {}", field("uid"), field("gid"), field("caller")),
        );
        let cell =
            ["jail", "landlock", "seccomp", "nnp", "cgroup"].map(|name| format!("{name}={}", field(name)));
        line("cell", &cell.join(" "));
        if let Some(dropped) = entry.field("dropped") {
            line(
                "left out",
                &format!("{dropped} variables of the caller's: see [environment] of the site's file"),
            );
        }
        if entry.field("stale").is_some() {
            line("stale", &format!("the site's file is younger than the policy; run: cellwall apply {site}"));
        }
        return;
    }
    let code = field("code");
    line("asked", &format!("\"{}\" (uid, gid, command), by uid {}", field("asked"), field("caller")));
    line("site", if site == "-" { "none" } else { site });
    line("rule", &rule(code, site));
    line("found", field("why"));
    line("means", &codes::meaning(code).unwrap_or_default());
    line("repair", field("fix"));
    say::out(format_args!("\n  {code}, exit status {}. More: cellwall explain {code}", field("status")));
}

/// The key that decided, with its file and line; or that it is no key.
fn rule(code: &str, site: &str) -> String {
    let Some(key) = codes::key(code) else { return "the launcher's own, which no key changes".to_owned() };
    match provenance(site, key) {
        Some((path, line)) => format!("{key}, {}:{line}", path.display()),
        None if site == "-" => format!("{key}, {}", crate::config::HOST_FILE),
        None => format!("{key}, at its default (the site's file does not name it)"),
    }
}

fn json(entry: &Entry) -> Json {
    let field = |name: &str| entry.field(name).map_or(Json::Null, Json::text);
    let code = entry.field("code").unwrap_or_default();
    Json::object([
        ("verdict", Json::text(if entry.refused { "refused" } else { "launched" })),
        ("time", Json::text(&entry.time)),
        ("ref", field("ref")),
        ("site", field("site")),
        ("code", field("code")),
        ("status", field("status")),
        ("caller", field("caller")),
        ("asked", field("asked")),
        ("dir", field("dir")),
        ("script", field("script")),
        ("why", field("why")),
        ("fix", field("fix")),
        ("rule", Json::text(rule(code, entry.field("site").unwrap_or("-")))),
        ("means", codes::meaning(code).map_or(Json::Null, Json::text)),
    ])
}
