//! `cellwall jail check`: does the cell work? Real programs and real calls inside it, by the launcher's own stages.
//!
//! A fault is told with what is missing and the line or the command that brings it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;

use crate::config::problem::Problems;
use crate::config::profiles::{self, Kind};
use crate::config::provenance::Traced;
use crate::config::store;
use crate::policy::{Jail, Record, Site, Step, StepKind, decode};
use crate::refusal::{Pasted, Untrusted};

use super::super::chroot::manifest::Manifest;
use super::super::chroot::{self, Thing};
use super::super::json::Json;
use super::super::{End, Stop, cell, patience, say};
use super::look::{Asks, look};
use super::probes::{PROBES, Probe};

/// Arguments of `cellwall jail check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site (`shop`, `~alice`)
    pub site: String,
    /// Names of hosts to look up inside, besides localhost
    #[arg(long, value_name = "HOST")]
    pub name: Vec<String>,
    /// A TLS server to connect to from inside
    #[arg(long, value_name = "HOST:PORT")]
    pub tls: Option<String>,
    /// Send a message to this address from inside
    #[arg(long, value_name = "ADDRESS")]
    pub mail: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    good: bool,
    name: String,
    text: String,
    /// What mends it; of a good one nothing.
    cure: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The site is not there, or an argument is no host or address.
pub fn run(args: &Args) -> Result<End, Stop> {
    let server = args.tls.as_deref().map(server).transpose()?;
    if let Some(wrong) = args.mail.as_ref().filter(|to| to.starts_with('-') || !to.contains('@')) {
        return Err(Stop::asked(format!("{wrong} is no address")));
    }
    cell::with_site(&args.site, |record, site| {
        patience::reached("nothing was checked", site);
        let traced = Traced::of(&args.site).ok_or("its file cannot be read\n  help: run: cellwall check")?;
        let desk = Desk { record, site, probed: cell::probed(record, site), traced, name: &args.site };
        let findings = desk.all(args, server)?;
        let good = findings.iter().all(|finding| finding.good);
        if args.json {
            say::out(json(&args.site, good, &findings));
        } else {
            print(&args.site, &findings);
        }
        Ok(if good { End::Good } else { End::Findings })
    })
}

/// A host and a port, in letters that no script takes for anything else.
fn server(text: &str) -> Result<(&str, &str), String> {
    let plain = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    text.rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && plain(host) && port.parse::<u16>().is_ok())
        .ok_or_else(|| format!("{text} is no HOST:PORT"))
}

struct Desk<'a> {
    record: &'a Record<'a>,
    site: &'a Site<'a>,
    /// As programs of the host's are asked about it.
    probed: Site<'a>,
    traced: Traced,
    name: &'a str,
}

impl Desk<'_> {
    fn all(&self, args: &Args, server: Option<(&str, &str)>) -> Result<Vec<Finding>, String> {
        let asks = self.asks(args);
        let seen = cell::look(self.record, self.site, || look(&asks))?;
        let mut findings = self.copies();
        findings.extend(self.findings("cell", &seen, "walls"));
        if seen.status != Some(0) {
            return Ok(findings);
        }
        let here = |piece: &str| self.traced.pieces.contains(piece);
        for probe in PROBES.iter().filter(|probe| here(probe.piece)) {
            let said = cell::program(self.record, &self.probed, probe.words, probe.script)?;
            findings.extend(self.findings(probe.piece, &said, probe.piece));
        }
        if let Some(server) = server {
            findings.push(self.tls(server)?);
        }
        if here("mail") || args.mail.is_some() {
            findings.push(self.mail(args.mail.as_deref())?);
        }
        Ok(findings)
    }

    /// In a chroot: the copies are as the system has them, and nothing lacks a library.
    fn copies(&self) -> Vec<Finding> {
        let Jail::Chroot(directory) = &self.site.jail else { return Vec::new() };
        let directory = Path::new(OsStr::from_bytes(directory));
        let built = Manifest::of(directory).unwrap_or_default();
        let stale = chroot::staleness(directory).transpose();
        let cure = built.as_ref().map(|_| chroot::remedy(directory));
        let good = match built.as_ref().map(|built| built.things.len()) {
            Some(count) => format!("{} of {} are as the system has them", count, directory.display()),
            None => format!("{} was made by no build: nobody knows how old it is", directory.display()),
        };
        let programs = self.site.handlers.iter().filter_map(|handler| handler.command.first());
        let programs = programs.chain(&self.site.interpreters).chain(&self.site.programs);
        let mut files: Vec<PathBuf> = programs.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
        let copies = built.iter().flat_map(|built| &built.things);
        files.extend(
            copies.filter(|(_, thing)| matches!(thing, Thing::Copy(_))).map(|(path, _)| path.clone()),
        );
        let lacking = chroot::lacking(directory, files);
        let needed = lacking.first().map(|(library, by)| {
            let more = lacking.len().saturating_sub(1);
            format!("{library}, which {} needs, is not in the jail; {more} more", by.display())
        });
        let finding = |name: &str, bad: Option<String>, good: String| Finding {
            good: bad.is_none(),
            name: name.to_owned(),
            cure: bad.as_ref().and_then(|_| cure.clone()),
            text: bad.unwrap_or(good),
        };
        let stale = stale.map(|stale| stale.unwrap_or_else(|error| error));
        vec![
            finding("copies", stale, good),
            finding("libraries", needed, "each program's are there".to_owned()),
        ]
    }

    fn asks(&self, args: &Args) -> Asks {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let sockets = self.traced.rules.sockets.items.iter();
        let socket = |item: &crate::config::problem::Located<String>| {
            // One of several is there; those that may be missing are not asked.
            let text = item.value.strip_suffix('?').map_or(Some(item.value.as_str()), |_| None)?;
            let there = |path: &&str| std::path::Path::new(path).exists();
            let path = text.split('|').map(str::trim).find(there).or(text.split('|').next())?;
            let piece = item.place.path().file_stem()?.to_string_lossy().into_owned();
            Some((path.to_owned(), piece))
        };
        let cut = match &self.site.jail {
            Jail::Chroot(directory) => shown(directory),
            Jail::View(_) | Jail::Host => String::new(),
        };
        let docroots = self.site.docroots.iter().map(|docroot| shown(docroot));
        Asks {
            private: self.private(),
            docroots: docroots
                .map(|path| path.strip_prefix(&cut).map_or(path.clone(), str::to_owned))
                .collect(),
            sockets: sockets.filter_map(socket).collect(),
            names: std::iter::once("localhost".to_owned()).chain(args.name.clone()).collect(),
            walls: self.walls(),
            fonts: self.traced.pieces.contains("fonts"),
        }
    }

    /// Where the site writes: its private directories, and TMPDIR.
    fn private(&self) -> Vec<String> {
        let mut all = BTreeSet::new();
        if let Jail::View(view) = &self.site.jail {
            let own = view.steps.iter().filter(|step| {
                step.kind == StepKind::BindDirectory
                    && step.flags & (Step::SITE | Step::READ_ONLY | Step::NO_EXEC)
                        == Step::SITE | Step::NO_EXEC
            });
            all.extend(own.map(|step| String::from_utf8_lossy(step.target).into_owned()));
        }
        let set = self.site.environment.set.iter().find(|(name, _)| *name == b"TMPDIR");
        all.extend(set.map(|(_, value)| String::from_utf8_lossy(value).into_owned()));
        all.into_iter().collect()
    }

    /// What no site may open: root's own, the log, the policy, and docroots of other users.
    fn walls(&self) -> Vec<String> {
        let log = String::from_utf8_lossy(self.record.host.log.file).into_owned();
        let mut all =
            vec!["/root".to_owned(), "/etc/shadow".to_owned(), crate::policy::DIRECTORY.to_owned(), log];
        let others = store::uids().into_iter().filter(|uid| *uid != self.record.uid).take(20);
        for bytes in others.filter_map(|uid| store::read(&uid.to_string())) {
            let sites = decode::record(&bytes).map(|record| record.sites).unwrap_or_default();
            let docroots = sites.iter().flat_map(|site| &site.docroots);
            all.extend(docroots.map(|docroot| String::from_utf8_lossy(docroot).into_owned()));
        }
        all
    }

    /// The findings in what a probe said. `last` names the one that it ends with.
    fn findings(&self, who: &str, said: &cell::Said, last: &str) -> Vec<Finding> {
        let mut all = Vec::new();
        let mut other = Vec::new();
        for line in said.text.lines() {
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                [state @ ("good" | "bad"), name, text, piece] => {
                    let good = *state == "good";
                    let cure = if good { None } else { self.cure(text, piece) };
                    all.push(Finding { good, name: shown(name), text: shown(text), cure });
                }
                _ => other.push(line.trim()),
            }
        }
        let complaint = other.iter().rev().find(|line| line.contains("cannot open shared object file"));
        if let Some(refused) = refused(who, said) {
            all.push(refused);
        } else if let Some(line) = complaint {
            let (name, cure) = (format!("{who} libraries"), self.cure(line, who));
            all.push(Finding { good: false, name, text: shown(line), cure });
        } else if !all.iter().any(|finding| finding.name == last) {
            let text = other.iter().find(|line| !line.is_empty()).map_or("it said nothing", |line| *line);
            let text = text.strip_prefix("error: ").unwrap_or(text);
            all.push(Finding {
                good: false,
                name: who.to_owned(),
                text: shown(text),
                cure: self.cure(text, who),
            });
        }
        all
    }

    fn tls(&self, (host, port): (&str, &str)) -> Result<Finding, String> {
        let able = |probe: &&Probe| !probe.tls.is_empty() && self.traced.pieces.contains(probe.piece);
        let Some(probe) = PROBES.iter().find(able) else {
            let text = "no program of this cell speaks TLS for certain: php, python or sh".to_owned();
            return Ok(Finding { good: false, name: "TLS".to_owned(), text, cure: self.cure("", "sh") });
        };
        let script = probe.tls.replace("@HOST@", host).replace("@PORT@", port);
        let said = cell::program(self.record, &self.probed, probe.words, &script)?;
        let last = said.text.split('\t').nth(1).unwrap_or("TLS").to_owned();
        Ok(self.findings("TLS", &said, &last).pop().unwrap_or_else(|| nothing("TLS")))
    }

    /// A session with the mail server, or a whole message.
    fn mail(&self, to: Option<&str>) -> Result<Finding, String> {
        let sendmail = "/usr/sbin/sendmail";
        let message =
            to.map(|to| format!("To: {to}\nSubject: cellwall jail check {}\n\nIt works.\n", self.name));
        let said = match to {
            Some(to) => {
                let message = message.unwrap_or_default();
                cell::program(self.record, &self.probed, &[sendmail, "-i", to], &message)?
            }
            None => cell::program(self.record, &self.probed, &[sendmail, "--serverinfo"], "")?,
        };
        if let Some(refused) = refused("mail", &said) {
            return Ok(Finding { cure: self.cure("", "mail"), ..refused });
        }
        let first = said.text.lines().next().unwrap_or_default().trim().to_owned();
        let good = said.status == Some(0);
        let text = match (good, to) {
            (true, Some(to)) => format!("a message to {to} was taken"),
            (true, None) => first,
            (false, _) => first.strip_prefix("error: ").unwrap_or(&first).to_owned(),
        };
        let down = text.contains("cannot connect");
        let cure = if good {
            None
        } else if down {
            Some("start the host's mail server, and let it listen on localhost, port 25".to_owned())
        } else {
            self.cure(&text, "mail")
        };
        Ok(Finding { good, name: "mail".to_owned(), text: shown(&text), cure })
    }

    /// What mends a fault: a library by its own name; a piece that is not named by the line to add; one that is named by
    /// the package to install.
    fn cure(&self, text: &str, piece: &str) -> Option<String> {
        if let Some(library) = library(text) {
            return Some(found_library(library, self.name));
        }
        if text.contains(Errno::ENOSPC.desc()) {
            let place = self.private().into_iter().find(|place| text.starts_with(&format!("{place}: ")));
            return place
                .map(|place| format!("df -h {0}; df -i {0} # make room there", Pasted(place.as_bytes())));
        }
        if text.contains("Timezone database") && piece != "tz" {
            return self.cure("", "tz");
        }
        if unresolved(text) && piece != "dns" {
            return self.cure(text, "dns");
        }
        if piece.is_empty() {
            return Some(format!("cellwall apply {0} && cellwall jail show {0}", self.name));
        }
        if !profiles::all(Kind::Piece).contains(piece) {
            return None;
        }
        if !self.traced.pieces.contains(piece) {
            let file = self.traced.file.path.display();
            let key = self.traced.file.rules.pieces.key.as_ref();
            let line = match key {
                Some(key) => format!("in {file} line {}, add \"{piece}\" to pieces", key.line()),
                None => format!("in {file}, above every [section]: pieces = [\"{piece}\"]"),
            };
            return Some(format!("{line}; then: cellwall apply {}", self.name));
        }
        if unresolved(text) {
            let host = "cat /etc/resolv.conf # do these name servers answer the host itself? if so";
            return Some(format!("{host}: cellwall apply {}", self.name));
        }
        let install =
            profiles::load(Kind::Piece, piece, &Problems::default()).and_then(|piece| piece.install());
        install.or_else(|| Some(format!("cellwall apply {}", self.name)))
    }
}

/// Nobody got into the cell: the launcher's own words, and the only ones whose remedy is taken from what was said.
fn refused(who: &str, said: &cell::Said) -> Option<Finding> {
    let (text, cure) = said.refused.clone()?;
    Some(Finding { good: false, name: who.to_owned(), text, cure: Some(cure) })
}

/// What came out of the cell, for root's terminal; lists of extensions are long.
fn shown(text: &str) -> String {
    text.as_bytes().chunks(255).map(|part| Untrusted(part).to_string()).collect()
}

fn nothing(name: &str) -> Finding {
    Finding { good: false, name: name.to_owned(), text: "it said nothing".to_owned(), cure: None }
}

/// The name of a host was not found, in the C library's words (gai_strerror(3)).
fn unresolved(text: &str) -> bool {
    ["name resolution", "Name or service not known", "No address associated with hostname"]
        .iter()
        .any(|said| text.contains(said))
}

/// The library in `libx.so.4: cannot open shared object file`.
fn library(text: &str) -> Option<&str> {
    let before =
        text.split(": cannot open shared object file").next().filter(|before| before.len() < text.len())?;
    let plain = |name: &&str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
    };
    before.rsplit([' ', '(', '/']).next().filter(plain)
}

/// Where the host has it, by its cache.
fn found_library(library: &str, site: &str) -> String {
    let cache = Command::new("/sbin/ldconfig").arg("-p").output().map(|said| said.stdout).unwrap_or_default();
    let cache = String::from_utf8_lossy(&cache).into_owned();
    let lines = cache.lines().filter(|line| line.trim_start().starts_with(library));
    let mut paths = lines.filter_map(|line| line.rsplit(" => ").next());
    // The cache may be older than the file system.
    match paths.find(|path| std::path::Path::new(path).exists()).and_then(|path| path.rsplit_once('/')) {
        Some((directory, _)) => format!(
            "in the site's file, below [files]: execute = [\"{directory}\"]; then: cellwall apply {site}"
        ),
        None => {
            format!("{library} is not on this host: reinstall the package that brings it, then: ldconfig")
        }
    }
}

fn print(site: &str, findings: &[Finding]) {
    for finding in findings {
        let state = if finding.good { "pass" } else { "FAIL" };
        say::out(format_args!("{state}  {:<20} {}", finding.name, finding.text));
        if let Some(cure) = &finding.cure {
            say::out(format_args!("      {:<20} {cure}", "-> to mend it"));
        }
    }
    let bad = findings.iter().filter(|finding| !finding.good).count();
    let passed = findings.len() - bad;
    say::out(format_args!("{site}: {passed} passed, {bad} failed"));
}

fn json(site: &str, good: bool, findings: &[Finding]) -> Json {
    let one = |finding: &Finding| {
        Json::object([
            ("name", Json::text(&finding.name)),
            ("ok", Json::Bool(finding.good)),
            ("text", Json::text(&finding.text)),
            ("fix", finding.cure.as_ref().map_or(Json::Null, Json::text)),
        ])
    };
    Json::object([
        ("site", Json::text(site)),
        ("ok", Json::Bool(good)),
        ("checks", Json::List(findings.iter().map(one).collect())),
    ])
}

#[cfg(test)]
mod tests {
    use super::{library, server};

    #[test]
    fn a_missing_library_is_read_from_what_the_loader_says() {
        let php = "PHP Warning:  PHP Startup: Unable to load dynamic library 'curl.so' (tried: /usr/lib/php/20220829/curl.so \
                   (libcurl.so.4: cannot open shared object file: No such file or directory)) in Unknown on line 0";
        assert_eq!(library(php), Some("libcurl.so.4"));
        let loader = "/usr/bin/x: error while loading shared libraries: libx.so.1: cannot open shared object file: No such file";
        assert_eq!(library(loader), Some("libx.so.1"));
        assert_eq!(library("nothing of the kind"), None);
        assert_eq!(library("x;reboot;.so: cannot open shared object file"), None);
    }

    #[test]
    fn a_server_is_a_host_and_a_port_and_nothing_that_a_script_would_read() {
        assert_eq!(server("shop.test:443"), Ok(("shop.test", "443")));
        for wrong in ["shop.test", ":443", "a'b:443", "a b:443", "shop.test:x", "$(id):1"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }
}
