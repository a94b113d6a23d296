//! Would what was refused be refused today? A rehearsal tells, where the record holds what it needs. Root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::config::store;
use crate::policy::{Jail, Record, Site, decode};

use super::journal::{self, Entry};
use super::json::Json;
use super::mend;
use super::policy::holder;
use super::rehearsal::{Rehearsed, Wish, rehearsed};

/// The same request once more.
#[derive(Debug)]
pub(super) struct Now {
    told: Rehearsed,
    same: bool,
}

impl Now {
    /// One sentence, and a command where another thing is in the way.
    #[must_use]
    pub(super) fn words(&self) -> String {
        match &self.told.refused {
            // A rehearsal sees what root sees here.
            None => "it passes in a rehearsal: mended, unless the web server's unit shows it another host"
                .to_owned(),
            Some(_) if self.same => "it is refused in a rehearsal as well".to_owned(),
            Some(refused) => format!(
                "something else is in the way: {} ({})\n  repair    {}",
                refused.field("why"),
                refused.field("code"),
                mend::best(&refused.entry)
            ),
        }
    }

    /// For programs.
    #[must_use]
    pub(super) fn json(&self) -> Json {
        self.told.json()
    }
}

/// Rehearses what a record refused. None: it came of what no rehearsal has (the caller's process and environment, the log, the
/// last step), or its record does not say where it was asked for.
#[must_use]
pub(super) fn of(entry: &Entry) -> Option<Now> {
    let code = entry.field("code").filter(|_| entry.refused)?;
    if !code.starts_with(['P', 'C', 'V']) && !["X02", "X03"].contains(&code) {
        return None;
    }
    let (user, group, path) = asked(entry)?;
    let (directory, command) = (path.parent()?, path.file_name()?);
    let caller = entry.field("caller").and_then(|uid| uid.parse().ok());
    let told = rehearsed(&Wish { user: &user, group: &group, directory, command, caller }).ok()?;
    let is = |name| told.refused.as_ref().map(|refused| refused.field(name)) == entry.field(name);
    let same = is("code") && is("why");
    Some(Now { told, same })
}

/// Who was asked for, and the program as the host sees it.
fn asked(entry: &Entry) -> Option<(String, String, PathBuf)> {
    if let Some(asked) = entry.field("asked") {
        let mut words = asked.splitn(3, ' ');
        let (user, group, command) = (words.next()?, words.next()?, journal::path(words.next()?)?);
        let uid = user.trim_start_matches('~').parse().ok()?;
        let path = with_record(uid, |record| place(entry, record, &command));
        return Some((user.to_owned(), group.to_owned(), path?));
    }
    // A pool's, for a program of the site's.
    let (name, path) = (entry.field("site")?, journal::path(entry.field("script")?)?);
    let uid = holder(name).ok()?;
    let gid = with_record(uid, |record| {
        let site = record.sites.iter().find(|site| site.name == name.as_bytes())?;
        Some(site.identity.gid)
    })?;
    Some((uid.to_string(), gid.to_string(), path))
}

fn with_record<T>(uid: u32, ask: impl FnOnce(&Record<'_>) -> Option<T>) -> Option<T> {
    let bytes = store::read(&uid.to_string())?;
    ask(&decode::record(&bytes).ok()?)
}

/// A record holds no directory: it is in the evidence, most often; else one docroot alone may have such a file.
fn place(entry: &Entry, record: &Record<'_>, command: &Path) -> Option<PathBuf> {
    let evidence = entry.field("why").and_then(|why| journal::path(why.split(": ").next()?));
    let evidence = evidence.filter(|path| path.is_absolute());
    let named = |path: &Path| match path.file_name() == command.file_name() {
        true => Some(path.to_owned()),
        false => Some(path.join(command)).filter(|path| path.exists()),
    };
    let outside = |path: &Path| record.sites.iter().find_map(|site| named(&in_chroot(site, path)?));
    let told = evidence.and_then(|path| outside(&path).or_else(|| named(&path)));
    let there = |path: &PathBuf| path.parent().is_some_and(Path::is_dir);
    told.filter(there).or_else(|| {
        let docroots = record.sites.iter().flat_map(|site| &site.docroots);
        let files = docroots.map(|docroot| Path::new(OsStr::from_bytes(docroot)).join(command));
        let mut found = files.filter(|path| path.exists());
        found.next().filter(|_| found.next().is_none())
    })
}

/// In a chroot the evidence has the path that the program would see.
fn in_chroot(site: &Site<'_>, path: &Path) -> Option<PathBuf> {
    match &site.jail {
        Jail::Chroot(directory) => {
            Some(Path::new(OsStr::from_bytes(directory)).join(path.strip_prefix("/").ok()?))
                .filter(|path| path.parent().is_some_and(Path::is_dir))
        }
        Jail::View(_) | Jail::Host => None,
    }
}
