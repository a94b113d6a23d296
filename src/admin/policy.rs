//! `cellwall policy`: a record in words, with the line behind each rule. Root, for the records are root's.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use nix::unistd::User;

use crate::config::accounts::Accounts;
use crate::config::problem::Problems;
use crate::config::provenance::Origins;
use crate::config::reader::nearest;
use crate::config::sites::{self, list, site_name};
use crate::config::whole::{Origin, WholeHost};
use crate::config::{SITES_DIRECTORY, facts, store};
use crate::policy::{HOST_FILE, Record, Site, decode};

use super::json::Json;
use super::{End, pooled, say};

/// Arguments of `cellwall policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A uid, a site (`shop`, `~alice`), or `host`
    pub what: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        say::note(format_args!(
            "error: only root can read policy records\n  help: run: sudo cellwall policy {}",
            args.what
        ));
        return End::Failed.into();
    }
    show(args)
        .unwrap_or_else(|message| {
            say::note(format_args!("error: {message}"));
            End::Findings
        })
        .into()
}

fn show(args: &Args) -> Result<End, String> {
    if args.what == HOST_FILE {
        let bytes = store::read(HOST_FILE).ok_or("there is no record yet\n  help: run: cellwall apply")?;
        let host = decode::host(&bytes).map_err(|error| error.to_string())?;
        let told = facts::host(&host);
        if args.json {
            say::out(facts_json(&told, None))
        } else {
            facts_text(&told, None)
        }
        return Ok(End::Good);
    }
    let (uid, only) = match args.what.parse::<u32>() {
        Ok(uid) => (uid, None),
        Err(_) => (holder(&args.what)?, Some(args.what.as_bytes())),
    };
    let bytes = store::read(&uid.to_string()).ok_or_else(|| {
        format!("uid {uid} has no record: none of its programs runs\n  help: run: cellwall apply")
    })?;
    let record = decode::record(&bytes).map_err(|error| format!("the record of uid {uid}: {error}"))?;
    let sites: Vec<&Site<'_>> =
        record.sites.iter().filter(|site| only.is_none_or(|only| site.name == only)).collect();
    if args.json {
        say::out(json(&record, &sites))
    } else {
        text(&record, &sites)
    }
    Ok(End::Good)
}

/// The uid whose record has the site.
pub(super) fn holder(site: &str) -> Result<u32, String> {
    let mut accounts = Accounts::new(&Arc::default());
    let host = WholeHost::load(None, &mut accounts, &Problems::default());
    let origin = match site.strip_prefix('~') {
        Some(user) => accounts.user(user).map(Origin::Userdir),
        None => Some(Origin::installed(site)),
    };
    let likely = origin.and_then(|origin| origin.uid(&host, &mut accounts));
    let mut holders = store::holders(site, likely);
    holders.pop_first().ok_or_else(|| {
        unknown(site)
            .unwrap_or_else(|| format!("no record names a site `{site}`\n  help: run: cellwall apply {site}"))
    })
}

/// What to say where no file is the site's. None: there is one.
pub(super) fn unknown(site: &str) -> Option<String> {
    let file = Path::new(SITES_DIRECTORY).join(format!("{site}.toml"));
    if site.starts_with('~') || file.exists() {
        return None;
    }
    Some(format!("there is no site `{site}`\n  help: {}", meant(site)))
}

/// The uid of the user that a site's file names, which may never have been applied.
pub(super) fn meant_user(site: &str) -> Option<u32> {
    let path = Path::new(SITES_DIRECTORY).join(format!("{site}.toml"));
    let file = sites::read(site, &path, true, &Problems::default())?;
    User::from_name(&file.rules.user?.value).ok()?.map(|user| user.uid.as_raw())
}

/// The site that was probably meant, be it by its file; or where its file would be.
pub(super) fn meant(site: &str) -> String {
    let names = list(Path::new(SITES_DIRECTORY), &Problems::default());
    let by_file = Path::new(site).file_name().and_then(|file| site_name(file.to_str()?));
    let by_file = by_file.filter(|name| names.iter().any(|known| known == name));
    // `import` names a site as its host is named, and people say the user.
    let longer = names.iter().map(String::as_str).find(|name| name.starts_with(&format!("{site}.")));
    match by_file.or(longer).or_else(|| nearest(site, names.iter().map(String::as_str))) {
        Some(near) => format!("did you mean `{near}`?"),
        None if site.contains('/') => {
            format!(
                "run: ls {SITES_DIRECTORY} # a site is named as its file, without .toml and its directory"
            )
        }
        None => format!("its file would be {SITES_DIRECTORY}/{site}.toml"),
    }
}

fn text(record: &Record<'_>, sites: &[&Site<'_>]) {
    say::out(format_args!("uid {} ({})", record.uid, String::from_utf8_lossy(record.user)));
    for site in sites {
        let name = String::from_utf8_lossy(site.name);
        let source = PathBuf::from(String::from_utf8_lossy(site.source.path).into_owned());
        let origins = Origins::of(&name);
        say::out(format_args!("\nsite {name}  ({})", source.display()));
        if origins.modified() != Some(site.source.modified) {
            say::note(format_args!(
                "warning: {} has changed since: run: cellwall apply {name}",
                source.display()
            ));
        }
        facts_text(&told(record.uid, site), Some(&origins));
    }
}

/// What the site's part says, and the settings of its pool where it has one.
fn told(uid: u32, site: &Site<'_>) -> Vec<facts::Fact> {
    let mut all = facts::site(site);
    let pool = pooled::with_settings(uid, site.name, |settings| Some(facts::pool(settings)));
    all.extend(pool.unwrap_or_default());
    all
}

fn facts_text(told: &[facts::Fact], origins: Option<&Origins>) {
    let behind = |key: &str, item: Option<&str>| {
        let place = origins.and_then(|origins| origins.place(key, item));
        place.map(|(path, line)| format!("   # {}:{line}", path.display())).unwrap_or_default()
    };
    for fact in told {
        match &fact.value {
            facts::Value::Many(items) if !items.is_empty() => {
                say::out(format_args!("  {}:", fact.key));
                for item in items {
                    say::out(format_args!("    {item}{}", behind(fact.key, Some(item))));
                }
            }
            value => {
                say::out(format_args!("  {}: {}{}", fact.key, facts::shown(value), behind(fact.key, None)))
            }
        }
    }
}

fn json(record: &Record<'_>, sites: &[&Site<'_>]) -> Json {
    let site = |site: &&Site<'_>| {
        let name = String::from_utf8_lossy(site.name);
        Json::object([
            ("site", Json::text(name.clone())),
            ("source", Json::text(String::from_utf8_lossy(site.source.path))),
            ("rules", facts_json(&told(record.uid, site), Some(&Origins::of(&name)))),
        ])
    };
    Json::object([
        ("uid", Json::Number(record.uid.into())),
        ("user", Json::text(String::from_utf8_lossy(record.user))),
        ("sites", Json::List(sites.iter().map(site).collect())),
        ("host", facts_json(&facts::host(&record.host), None)),
    ])
}

fn facts_json(told: &[facts::Fact], origins: Option<&Origins>) -> Json {
    let place = |key: &str, item: Option<&str>| {
        let place = origins.and_then(|origins| origins.place(key, item));
        place.map_or(Json::Null, |(path, line)| Json::text(format!("{}:{line}", path.display())))
    };
    let one = |fact: &facts::Fact| match &fact.value {
        facts::Value::One(value) => Json::object([
            ("key", Json::text(fact.key)),
            ("value", Json::text(value)),
            ("from", place(fact.key, None)),
        ]),
        facts::Value::Many(items) => Json::object([
            ("key", Json::text(fact.key)),
            ("value", Json::texts(items.iter().cloned())),
            ("from", Json::List(items.iter().map(|item| place(fact.key, Some(item))).collect())),
        ]),
    };
    Json::List(told.iter().map(one).collect())
}
