//! `cellwall import`: the sites that a host has today, as files of ours.
//!
//! `apache`: an Apache with suEXEC, or with a module that changes its identity. `pool`: pools of php-fpm (`fpm`), with what
//! `nginx` or Apache sends to them. What is not carried over is said, with its place; nothing is applied.

mod apache;
mod before;
mod fpm;
mod nginx;
mod pool;
mod values;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::config::ground::matches;
use crate::config::{SITES_DIRECTORY, sites};
use crate::refusal::Pasted;

use super::json::Json;
use super::{End, Stop, say};

/// Arguments of `cellwall import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the files into this directory, instead of printing them
    #[arg(long, value_name = "DIRECTORY")]
    pub to: Option<PathBuf>,
    /// Pools of php-fpm, instead of an Apache with suEXEC
    #[arg(long)]
    pub php_fpm: bool,
    /// A file of php-fpm's (`php-fpm.conf`, or one of its pools) instead of this host's
    #[arg(long, value_name = "FILE", requires = "php_fpm")]
    pub pools: Vec<PathBuf>,
    /// What nginx printed (`nginx -T`) instead of this host's
    #[arg(long, value_name = "FILE", requires = "php_fpm")]
    pub nginx: Option<PathBuf>,
    /// The docroot of a pool that no web server here asks
    #[arg(long, value_name = "POOL=DIRECTORY", requires = "php_fpm")]
    pub docroot: Vec<String>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// What Apache printed (`apache2ctl -t -D DUMP_CONFIG`, with mod_info) instead of this host's
    pub dump: Option<PathBuf>,
}

/// One site's file, and what belongs to it.
#[derive(Debug, Default)]
struct Made {
    text: String,
    /// Lines of php.ini, for a file of their own.
    values: String,
    /// What is typed when the site is applied.
    then: Vec<String>,
    /// The services that read their configuration again afterwards.
    reload: BTreeSet<&'static str>,
}

/// Directories of the host's own, where no docroot can be.
const HOSTS: [&str; 7] = ["/usr", "/etc", "/bin", "/lib", "/proc", "/dev", "/sys"];

/// The directory whose `values.ini` has a site's own lines of php.ini.
fn values_of(sites: &Path, name: &str) -> PathBuf {
    sites.parent().unwrap_or(Path::new("/etc/cellwall")).join("php").join(name)
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    import(args).unwrap_or_else(Stop::said).into()
}

fn import(args: &Args) -> Result<End, Stop> {
    let real = |to: &Path| {
        let help = || format!("mkdir -p {}", word(to));
        to.canonicalize().map_err(|error| missing(to, &error, help))
    };
    let to = args.to.as_deref().map(real).transpose()?;
    let directory = to.as_deref().unwrap_or(Path::new(SITES_DIRECTORY));
    let (sites, notes) =
        if args.php_fpm { pool::sites(args, directory)? } else { apache::sites(args, directory)? };
    // Who asked for JSON reads them in the object: that of the sites, or that of what kept them from being made.
    if !args.json || sites.is_empty() {
        // One line each, whatever a file has between quotes.
        notes.iter().for_each(|note| say::note(format_args!("left out: {}", note.replace('\n', " "))));
    }
    if sites.is_empty() {
        return Err(Stop::asked(if args.php_fpm {
            "no pool of php-fpm could be made a site"
        } else {
            "no virtual host of this Apache has a user of its own (SuexecUserGroup)"
        }));
    }
    let (mut done, there) = (Done::default(), before::docroots(directory));
    for (name, site) in &sites {
        put(args, directory, name, site, &there, &mut done)?;
    }
    if args.json {
        say::out(json(directory, &sites, &notes, done));
        return Ok(End::Good);
    }
    let next = match &args.to {
        Some(_) => "cellwall check".to_owned(),
        None => format!("{} && cellwall check", again(args)),
    };
    say::note(format_args!("{}; next: {next}", say::counted(sites.len(), "site")));
    if args.php_fpm {
        afterwards(&sites);
    }
    Ok(End::Good)
}

fn json(directory: &Path, sites: &BTreeMap<String, Made>, notes: &[String], done: Done) -> Json {
    let site = |(name, site): (&String, &Made)| {
        let values = values_of(directory, name).join("values.ini");
        Json::object([
            ("site", Json::text(name)),
            ("file", Json::text(directory.join(format!("{name}.toml")).to_string_lossy())),
            ("text", Json::text(&site.text)),
            (
                "values_file",
                if site.values.is_empty() { Json::Null } else { Json::text(values.to_string_lossy()) },
            ),
            ("values", Json::text(&site.values)),
            ("then", Json::texts(site.then.iter().cloned())),
            ("reload", Json::texts(site.reload.iter().map(|service| (*service).to_owned()))),
        ])
    };
    Json::object([
        ("sites", Json::List(sites.iter().map(site).collect())),
        ("left_out", Json::texts(notes.iter().cloned())),
        ("written", Json::texts(done.written)),
        ("stays", Json::List(done.stays)),
    ])
}

/// How the web server is pointed from php-fpm to the sites' pools.
fn afterwards(sites: &BTreeMap<String, Made>) {
    let then: BTreeSet<&String> = sites.values().flat_map(|site| &site.then).collect();
    let reload: BTreeSet<_> = sites.values().flat_map(|site| &site.reload).collect();
    say::note("then: cellwall apply && systemctl enable --now cellwalld");
    then.iter().for_each(|line| say::note(format_args!("then: {line}")));
    reload.iter().for_each(|service| say::note(format_args!("then: systemctl reload {service}")));
    say::note(
        "what a site writes (uploads, caches), and the databases, mail and fonts that it needs are in no pool's file: \
         files.write and pieces name them, and `cellwall learn SITE --traffic` finds them",
    );
}

/// One site, written or printed.
fn put(
    args: &Args,
    directory: &Path,
    name: &str,
    site: &Made,
    there: &BTreeMap<String, PathBuf>,
    done: &mut Done,
) -> Result<(), Stop> {
    let (file, values) = (directory.join(format!("{name}.toml")), values_of(directory, name));
    if args.to.is_none() && args.json {
        return Ok(());
    }
    if args.to.is_none() {
        say::out(format_args!("# {}\n{}", file.display(), site.text));
        if !site.values.is_empty() {
            say::out(format_args!("# {}/values.ini\n{}", values.display(), site.values));
        }
        return Ok(());
    }
    if !file.exists()
        && let Some((docroot, other)) =
            before::docroots_of(&site.text).iter().find_map(|docroot| there.get_key_value(docroot))
    {
        // Two files of one docroot would keep all sites from being applied.
        done.stays(args, other, &file, &format!("has docroot {docroot} already"));
        return Ok(());
    }
    if !site.values.is_empty() && !file.exists() {
        readable(&values).map_err(|error| format!("{}: {error}", values.display()))?;
        done.file(args, &values.join("values.ini"), &site.values)?;
    }
    done.file(args, &file, &site.text)
}

/// What became of the files, for who asked for JSON; people are told at once.
#[derive(Debug, Default)]
struct Done {
    written: Vec<String>,
    stays: Vec<Json>,
}

impl Done {
    /// A new file; one that is there already stays.
    fn file(&mut self, args: &Args, path: &Path, text: &str) -> Result<(), Stop> {
        if !write(path, text)? {
            self.stays(args, path, path, "is there already");
        } else if args.json {
            self.written.push(path.to_string_lossy().into_owned());
        } else {
            say::out(path.display());
        }
        Ok(())
    }

    /// `there` stays as it is, and `new`, which may be the same, is not written.
    fn stays(&mut self, args: &Args, there: &Path, new: &Path, why: &str) {
        let place = if there == new { String::new() } else { format!("{}: ", new.display()) };
        if args.json {
            self.stays.push(Json::object([
                ("file", Json::text(there.to_string_lossy())),
                ("not_written", Json::text(new.to_string_lossy())),
                ("reason", Json::text(why)),
            ]));
        } else {
            say::note(format_args!("left out: {place}{} {why}, and stays", there.display()));
        }
    }
}

/// For a shell.
fn word(path: &Path) -> String {
    Pasted(path.as_os_str().as_bytes()).to_string()
}

/// What was named cannot be read; where it is not there, `help` is the command that makes it, or finds it.
fn missing(path: &Path, error: &io::Error, help: impl FnOnce() -> String) -> Stop {
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::NotFound => Stop::asked(format!("{message}\n  help: run: {}", help())),
        _ => Stop::from(message),
    }
}

/// The same command, which writes.
fn again(args: &Args) -> String {
    let mut words = vec![format!("cellwall import --to {SITES_DIRECTORY}")];
    words.extend(args.php_fpm.then(|| "--php-fpm".to_owned()));
    words.extend(args.pools.iter().map(|file| format!("--pools {}", word(file))));
    words.extend(args.nginx.iter().map(|file| format!("--nginx {}", word(file))));
    words.extend(args.docroot.iter().map(|text| format!("--docroot {}", Pasted(text.as_bytes()))));
    words.extend(args.dump.iter().map(|file| word(file)));
    words.join(" ")
}

/// A name for a site's file: the first of these that can be one and is free, else one with a number.
fn free_name(wanted: &[&str], taken: &BTreeMap<String, Made>) -> String {
    let fits = |name: &str| sites::site_name(&format!("{name}.toml")).is_some();
    let base = wanted.iter().map(|name| name.to_ascii_lowercase()).find(|name| fits(name));
    let base = base.unwrap_or_else(|| "site".to_owned());
    let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains_key(name));
    free.unwrap_or(base)
}

/// What a program of this host prints about its configuration.
fn printed(program: &str, words: &[&str]) -> Result<String, Stop> {
    let said = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr);
        return Err(Stop::asked(format!("{program} does not take its own configuration: {}", why.trim())));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// The files that a pattern names, sorted; `*` stands in its names alone.
fn expanded(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.components().skip(1) {
        let part = part.as_os_str().to_string_lossy();
        found = found
            .iter()
            .flat_map(|above| match part.contains('*') {
                false => vec![above.join(&*part)],
                true => {
                    let entries = fs::read_dir(above).into_iter().flatten().flatten();
                    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                    names.filter(|name| matches(&part, name)).map(|name| above.join(name)).collect()
                }
            })
            .filter(|path| path.exists())
            .collect();
    }
    found.sort();
    found
}

/// A directory, and those above it that are not there. The site is to read in it, whatever root's umask is: PHP says nothing of
/// one that it may not read.
fn readable(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            readable(path.parent().ok_or(error)?)?;
            readable(path)
        }
        Err(error) => Err(error),
    }
}

/// False: there is one already.
fn write(path: &Path, text: &str) -> Result<bool, Stop> {
    let failed = |error: io::Error| Stop::from(format!("{}: {error}", path.display()));
    match OpenOptions::new().write(true).create_new(true).mode(0o644).open(path) {
        Ok(mut file) => {
            let mode = Permissions::from_mode(0o644);
            let written = file.write_all(text.as_bytes()).and_then(|()| file.set_permissions(mode));
            if written.is_err() {
                // Whoever imports again keeps what is there: nothing is better than a part.
                drop(fs::remove_file(path));
            }
            written.map(|()| true).map_err(failed)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}
