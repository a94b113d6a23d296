//! `cellwall import`: the sites of an Apache with suEXEC, or with a module that changes its identity, as files of ours.
//!
//! Apache itself tells what it has read (mod_info's DUMP_CONFIG): files included, macros filled in, conditions decided.
//! Nothing of its language is understood a second time. What is not carried over is said; nothing is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::{Gid, Group, Uid, User};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::config::{SITES_DIRECTORY, sites};
use crate::refusal::Pasted;

use super::{End, Stop, say};

/// Arguments of `cellwall import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the files into this directory, instead of printing them
    #[arg(long, value_name = "DIRECTORY")]
    pub to: Option<PathBuf>,
    /// What Apache printed (`apache2ctl -t -D DUMP_CONFIG`, with mod_info) instead of this host's
    pub dump: Option<PathBuf>,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    import(args).unwrap_or_else(Stop::said).into()
}

fn import(args: &Args) -> Result<End, Stop> {
    let dump = match &args.dump {
        Some(file) => fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?,
        None => dumped()?,
    };
    let (sites, notes) = sites_of(&dump);
    notes.iter().for_each(|note| say::note(format_args!("left out: {note}")));
    if sites.is_empty() {
        return Err(Stop::asked("no virtual host of this Apache has a user of its own (SuexecUserGroup)"));
    }
    for (name, site) in &sites {
        match &args.to {
            Some(directory) => write(&directory.join(format!("{name}.toml")), &site.text())?,
            None => say::out(format_args!("# {SITES_DIRECTORY}/{name}.toml\n{}", site.text())),
        }
    }
    let next = match &args.to {
        Some(_) => "cellwall check".to_owned(),
        None => {
            let dump = args.dump.as_ref().map(|dump| format!(" {}", Pasted(dump.as_os_str().as_bytes())));
            format!("cellwall import --to {SITES_DIRECTORY}{} && cellwall check", dump.unwrap_or_default())
        }
    };
    say::note(format_args!("{}; next: {next}", say::counted(sites.len(), "site")));
    Ok(End::Good)
}

/// What this host's Apache has read. Its own start script knows the variables that its files name.
fn dumped() -> Result<String, Stop> {
    let present = |paths: [&'static str; 2]| paths.into_iter().find(|path| Path::new(path).exists());
    let apache =
        present(["/usr/sbin/apache2ctl", "/usr/sbin/httpd"]).ok_or("there is no Apache on this host")?;
    let info = present(["/usr/lib/apache2/modules/mod_info.so", "/usr/lib64/httpd/modules/mod_info.so"]);
    let info = info.ok_or("there is no mod_info, by which Apache tells its configuration")?;
    let said = Command::new(apache)
        .args(["-C", &format!("LoadModule info_module {info}"), "-t", "-DDUMP_CONFIG"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{apache}: {error}"))?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr);
        return Err(Stop::asked(format!("Apache does not take its own configuration: {}", why.trim())));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// One virtual host, or several of one user with one document root.
#[derive(Debug, Default)]
struct Site {
    /// Where it was written.
    place: String,
    names: Vec<String>,
    user: Option<(String, String)>,
    docroots: Vec<String>,
    programs: Vec<String>,
    /// Profiles beyond those that the first lines of its programs name.
    profiles: BTreeSet<&'static str>,
    limits: BTreeMap<&'static str, String>,
    pass: BTreeSet<String>,
    left: Vec<String>,
}

/// Pure but for accounts and owners: the sites by name, and what of the configuration is in none of them.
fn sites_of(dump: &str) -> (BTreeMap<String, Site>, Vec<String>) {
    let (mut found, mut notes) = (Vec::<Site>::new(), Vec::new());
    let (mut file, mut line) = ("", "");
    let mut host: Option<Site> = None;
    for text in dump.lines().map(str::trim) {
        if let Some(name) = text.strip_prefix("# In file: ") {
            file = name;
        } else if let Some(number) = text.strip_prefix('#') {
            line = number.trim().trim_end_matches(':');
        } else if text.starts_with("<VirtualHost") {
            host = Some(Site { place: format!("{file}:{line}"), ..Site::default() });
        } else if text == "</VirtualHost>" {
            found.extend(host.take());
        } else if let Some(site) = &mut host {
            site.directive(&words(text), &format!("{file}:{line}"));
        } else if text.starts_with("UserDir") {
            notes.push(format!("{file}:{line}: {text}: [userdir] of cellwall.toml is its like"));
        } else if text.starts_with("SuexecUserGroup") {
            notes.push(format!("{file}:{line}: {text}: it stands outside of all virtual hosts"));
        }
    }
    let mut sites = BTreeMap::<String, Site>::new();
    for mut site in found {
        notes.append(&mut site.left);
        let Some((user, _)) = site.user.clone() else {
            let name = site.names.first().map_or("a virtual host", String::as_str);
            notes.push(format!("{}: {name} has no user of its own", site.place));
            continue;
        };
        let same =
            |other: &&mut Site| other.user == site.user && other.docroots.first() == site.docroots.first();
        if let Some(other) = sites.values_mut().find(same) {
            other.join(site);
            continue;
        }
        let named = site.names.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
        let fits = |name: &str| sites::site_name(&format!("{name}.toml")).is_some();
        let base = [named, user.to_ascii_lowercase()].into_iter().find(|name| fits(name));
        let base = base.unwrap_or_else(|| "site".to_owned());
        let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|name| !sites.contains_key(name));
        sites.insert(free.unwrap_or(base), site);
    }
    (sites, notes)
}

impl Site {
    /// One line of a virtual host, in whatever section of it.
    fn directive(&mut self, words: &[String], place: &str) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = words.first().copied().unwrap_or_default().to_ascii_lowercase();
        match (name.as_str(), words.get(1..).unwrap_or_default()) {
            ("servername", [name, ..]) => {
                let name = name.rsplit("//").next().unwrap_or(name);
                self.names.push(name.split(':').next().unwrap_or(name).to_owned());
            }
            ("documentroot", [path]) => self.docroots.insert(0, plain(path)),
            ("scriptalias", [_, path]) if path.ends_with('/') || Path::new(path).is_dir() => {
                self.docroot(&plain(path));
            }
            ("scriptalias", [_, path]) => self.program(path),
            ("suexecusergroup" | "assignuserid" | "ruidgid", [user, group, ..]) => {
                self.user = Some((account(user), group_of(group)));
            }
            ("fcgidwrapper", [program, ..]) => {
                // What such a wrapper starts stands in its last line.
                self.profiles.extend(words.iter().any(|word| word.contains("php")).then_some("php"));
                self.program(program.split(' ').next().unwrap_or(program));
            }
            ("rlimitcpu", [.., most]) => self.limit("cpu", most),
            ("rlimitnproc", [.., most]) => self.limit("processes", most),
            ("setenv", [name, ..]) => drop(self.pass.insert((*name).to_owned())),
            ("passenv", names) => self.pass.extend(names.iter().map(|name| (*name).to_owned())),
            _ if lost(&name, &words) => self.left.push(format!("{place}: {}", words.join(" "))),
            _ => {}
        }
    }

    fn docroot(&mut self, path: &str) {
        if !self.docroots.iter().any(|known| Path::new(path).starts_with(known)) {
            self.docroots.push(path.to_owned());
        }
    }

    /// Root's as it stands; one of the site's own by its directory.
    fn program(&mut self, path: &str) {
        match Path::new(path).parent().and_then(Path::to_str) {
            Some(above) if fs::metadata(path).is_ok_and(|facts| facts.uid() != 0) => self.docroot(above),
            _ => self.programs.push(path.to_owned()),
        }
    }

    fn limit(&mut self, key: &'static str, most: &str) {
        if most.parse::<u64>().is_ok_and(|most| most > 0) {
            self.limits.insert(key, most.to_owned());
        }
    }

    /// The same site behind another port, or by another name.
    fn join(&mut self, other: Self) {
        other.docroots.iter().for_each(|path| self.docroot(path));
        self.programs.extend(other.programs);
        self.profiles.extend(other.profiles);
        self.limits.extend(other.limits);
        self.pass.extend(other.pass);
    }

    /// The profiles of its programs, by their first lines.
    fn languages(&self) -> BTreeSet<&'static str> {
        let mut found = self.profiles.clone();
        let mut waiting: Vec<(PathBuf, u32)> =
            self.docroots.iter().map(|path| (PathBuf::from(path), 0)).collect();
        let mut left = LOOKED_AT;
        while let Some((directory, depth)) = waiting.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten().take(left) {
                left = left.saturating_sub(1);
                match entry.metadata() {
                    Ok(facts) if facts.is_dir() && depth < DEEPEST => waiting.push((entry.path(), depth + 1)),
                    Ok(facts) if facts.is_file() && facts.mode() & 0o111 != 0 => {
                        found.extend(language(&entry.path()));
                    }
                    _ => {}
                }
            }
        }
        if found.is_empty() { BTreeSet::from(["static"]) } else { found }
    }

    /// Its file.
    fn text(&self) -> String {
        let mut document = DocumentMut::new();
        let (user, group) = self.user.clone().unwrap_or_default();
        document.insert("user", value(user));
        document.insert("group", value(group));
        let list = |all: &[String]| value(all.iter().collect::<Array>());
        document.insert("docroot", list(&self.docroots));
        document.insert("profile", value(self.languages().into_iter().collect::<Array>()));
        if !self.programs.is_empty() {
            let all: BTreeSet<&String> = self.programs.iter().collect();
            document.insert("programs", value(all.into_iter().collect::<Array>()));
        }
        if !self.limits.is_empty() {
            let mut table = Table::new();
            for (key, most) in &self.limits {
                table.insert(key, most.parse::<i64>().map_or_else(|_| value(most), value));
            }
            document.insert("limits", Item::Table(table));
        }
        if !self.pass.is_empty() {
            let mut table = Table::new();
            table.insert("pass", value(self.pass.iter().collect::<Array>()));
            document.insert("environment", Item::Table(table));
        }
        format!("# Imported from {}\n{document}", self.place.replace('\n', " "))
    }
}

/// What has to do with programs and is in no key of a site's file.
fn lost(name: &str, words: &[&str]) -> bool {
    // RLimitMEM is of each process, `limits.memory` of all together.
    let elsewhere = [
        "action",
        "assignuseridexpr",
        "nicevalue",
        "proxypassmatch",
        "rgroups",
        "rlimitmem",
        "rmode",
        "scriptaliasmatch",
    ];
    let served = |word: &&str| word.contains("fcgi") || word.starts_with("proxy:");
    name.starts_with("php_")
        || name.starts_with("fcgid")
        || name.starts_with("fastcgi")
        || elsewhere.contains(&name)
        || name == "sethandler" && words.iter().any(served)
}

/// Pure: the words of a line. Apache takes `"` and `'` around one, and `\` before a quote inside.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut letters) = (Vec::new(), line.trim().chars().peekable());
    while let Some(first) = letters.next() {
        let quote = Some(first).filter(|first| matches!(first, '"' | '\''));
        let mut word: String = if quote.is_some() { String::new() } else { first.to_string() };
        while let Some(letter) = letters.next() {
            match quote {
                Some(quote) if letter == quote => break,
                Some(quote) if letter == '\\' && letters.peek() == Some(&quote) => {
                    word.extend(letters.next())
                }
                None if letter.is_whitespace() => break,
                _ => word.push(letter),
            }
        }
        all.push(word);
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
    }
    all
}

/// Without what a docroot may not have at its end.
fn plain(path: &str) -> String {
    let cut = path.trim_end_matches('/');
    if cut.is_empty() { "/".to_owned() } else { cut.to_owned() }
}

/// `#1001` is a number.
fn account(name: &str) -> String {
    let number = name.strip_prefix('#').and_then(|number| number.parse().ok());
    let found = number.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    found.map_or_else(|| name.to_owned(), |user| user.name)
}

fn group_of(name: &str) -> String {
    let number = name.strip_prefix('#').and_then(|number| number.parse().ok());
    let found = number.and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten());
    found.map_or_else(|| name.to_owned(), |group| group.name)
}

fn language(program: &Path) -> Option<&'static str> {
    let mut text = Vec::new();
    // The site's owner may have put anything there since: nothing is followed or waited for.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(program).ok()?;
    file.take(256).read_to_end(&mut text).ok()?;
    let first = text.split(|byte| *byte == b'\n').next()?.strip_prefix(b"#!")?;
    let first = std::str::from_utf8(first).ok()?;
    let mut words = first.split_ascii_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let program = words.find(|word| *word != "env" && !word.starts_with('-'))?;
    let known = ["perl", "python", "ruby", "node", "php", "sh"];
    known.into_iter().find(|known| program.starts_with(known) || *known == "sh" && program.ends_with("sh"))
}

/// Entries of a site's docroots, and directories below one another.
const LOOKED_AT: usize = 5000;
const DEEPEST: u32 = 3;

/// A new file; one that is there already stays.
fn write(path: &Path, text: &str) -> Result<(), Stop> {
    let failed = |error: std::io::Error| Stop::from(format!("{}: {error}", path.display()));
    match OpenOptions::new().write(true).create_new(true).mode(0o644).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).map_err(failed)?;
            file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
            say::out(path.display());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            say::note(format_args!("left out: {} is there already, and stays", path.display()));
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_apache_takes_for_words() {
        for (line, all) in [
            ("DocumentRoot /srv/www", &["DocumentRoot", "/srv/www"][..]),
            ("A \"b c\"  'd \"e'", &["A", "b c", "d \"e"]),
            (r#"A "b \"c\" \d""#, &["A", "b \"c\" \\d"]),
            ("A \"\" b", &["A", "", "b"]),
        ] {
            assert_eq!(words(line), all, "{line}");
        }
    }
}
