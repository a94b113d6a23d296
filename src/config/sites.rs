//! The files of sites.d: which count, whose they are, and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::accounts::Account;
use super::compile::pasted;
use super::ground::{Ground, closing, is_everybodys, matches};
use super::host::HostRules;
use super::problem::{Document, Place, Problems};
use super::reader::Reader;
use super::rules::{Rules, SECTIONS};

/// One site as it was written, or as the rule of `[userdir]` makes it.
#[derive(Debug, Clone)]
pub struct SiteFile {
    /// The file without `.toml`, or `~user`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its modification time, nanoseconds since 1970.
    pub modified: u64,
    /// Its text.
    pub document: Arc<Document>,
    /// Its keys.
    pub rules: Rules,
    /// The user of a `~user` site.
    pub userdir: Option<Account>,
}

impl SiteFile {
    /// The beginning of its file, for what has no better place.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::new(&self.document, 0..0)
    }
}

/// Whether a file name in sites.d is one of a site: `[a-z0-9_][a-z0-9_.-]*.toml`.
#[must_use]
pub fn site_name(file: &str) -> Option<&str> {
    let name = file.strip_suffix(".toml")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let first = name.bytes().next().is_some_and(plain);
    let rest = name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'-'));
    (first && rest && name.len() <= 128).then_some(name)
}

/// Whether anything has this name: a link that leads nowhere does, and so does what may not be looked at.
#[must_use]
pub fn is_taken(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// A directory of the configuration is one that only root can change, and so are those above it: who can write to one
/// can put another in its place.
pub fn trusted(directories: &[&str], problems: &Problems) {
    for (message, help) in directories.iter().filter_map(|path| led(Path::new(path))) {
        problems.error(None, message, help);
    }
    // A link is followed here: what counts is where it leads.
    let real: Vec<PathBuf> =
        directories.iter().filter_map(|path| Path::new(path).canonicalize().ok()).collect();
    let all: BTreeSet<&Path> = real.iter().flat_map(|path| path.ancestors()).collect();
    for directory in all {
        let Ok(metadata) = std::fs::metadata(directory) else { continue };
        if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            let message = format!("others than root may change {}", directory.display());
            let help = match is_everybodys(directory) {
                true => closing(directory),
                false => format!("run: chown root {0} && chmod go-w {0}", pasted(directory)),
            };
            problems.error(None, message, help);
        }
    }
}

/// What is wrong with the links on the way to a path, and what to do: who can change one has it lead elsewhere.
fn led(path: &Path) -> Option<(String, String)> {
    let found = Ground::default().find(Path::new("/"), path);
    if found.links.is_empty() && !found.real.is_symlink() {
        return None;
    }
    if let Some((top, owner)) = &found.foreign {
        let message = format!("{} leads through {}, which is uid {owner}'s", path.display(), top.display());
        return Some((message, format!("run: chown -h root {}", pasted(top))));
    }
    let (open, mode) = found.open.as_ref()?;
    let message =
        format!("{} leads through {}, to which others write ({mode:04o})", path.display(), open.display());
    Some((message, closing(open)))
}

/// The names of all site files in `directory`, sorted; what else lies there is said once.
pub fn list(directory: &Path, problems: &Problems) -> Vec<String> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let help = format!("make it: install -d {}", pasted(directory));
            problems.error(None, format!("cannot list {}: {error}", directory.display()), help);
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = match entry {
            Ok(entry) => entry.file_name(),
            Err(error) => {
                // A site that is not listed would lose its record.
                problems.error(None, format!("cannot list {}: {error}", directory.display()), "");
                break;
            }
        };
        match file.to_str().and_then(site_name) {
            Some(name) => names.push(name.to_owned()),
            None => {
                let message = format!("{} is ignored", directory.join(&file).display());
                let help = "a site's file is named like shop.toml: small letters, digits, `_`, `-`, `.`";
                problems.warning(None, message, help);
            }
        }
    }
    names.sort();
    names
}

/// Reads one site's file.
pub fn read(name: &str, path: &Path, trusted: bool, problems: &Problems) -> Option<SiteFile> {
    let (text, modified) = read_file(path, trusted, problems)?;
    let document = Document::new(path, text);
    let mut reader = Reader::open(&document, SECTIONS, problems);
    let rules = Rules::read(&mut reader);
    reader.finish();
    Some(SiteFile { name: name.to_owned(), path: path.to_owned(), modified, document, rules, userdir: None })
}

/// A file's text and modification time. `trusted`: it must be one that only root can change.
pub fn read_file(path: &Path, trusted: bool, problems: &Problems) -> Option<(String, u64)> {
    let failed = |error: &dyn std::fmt::Display, help: &str| {
        problems.error(None, format!("cannot read {}: {error}", path.display()), help);
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            failed(&error, "");
            return None;
        }
    };
    if !metadata.is_file() {
        failed(&"it is no regular file", "a site is one file");
        return None;
    }
    if metadata.len() > 1 << 20 {
        failed(&"it is larger than 1 MiB", "a site's file is a page of text");
        return None;
    }
    if trusted && (metadata.uid() != 0 || metadata.mode() & 0o022 != 0) {
        let message = format!("others than root may change {}", path.display());
        problems.error(None, message, format!("run: chown root {0} && chmod go-w {0}", pasted(path)));
        return None;
    }
    if trusted
        && path.is_symlink()
        && let Some((message, help)) = led(path)
    {
        problems.error(None, message, help);
        return None;
    }
    match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => {
            let nanoseconds =
                metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
            Some((text, u64::try_from(nanoseconds).unwrap_or(0)))
        }
        Ok(Err(error)) => {
            let line = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = line.iter().filter(|byte| **byte == b'\n').count() + 1;
            failed(&format!("line {line} is not UTF-8"), "save it as UTF-8");
            None
        }
        Err(error) => {
            failed(&error, "");
            None
        }
    }
}

/// The site that `[userdir]` makes of an account, if it makes one.
#[must_use]
pub fn userdir(host: &HostRules, account: &Account, minimum: u32, modified: u64) -> Option<SiteFile> {
    let enabled = host.userdir_enabled.as_ref().is_some_and(|enabled| enabled.value);
    let patterns = &host.userdir_users;
    let all = patterns.key.is_none();
    let wanted = all || patterns.items.iter().any(|pattern| matches(&pattern.value, &account.name));
    let document = host.document.as_ref()?;
    // 65534 is nobody on every system that the launcher is built for.
    if !enabled || !wanted || account.uid < minimum || account.uid == 65534 {
        return None;
    }
    Some(SiteFile {
        name: format!("~{}", account.name),
        path: document.path.clone(),
        modified,
        document: Arc::clone(document),
        rules: host.userdir.clone(),
        userdir: Some(account.clone()),
    })
}

/// Two sites of one uid that could both answer one request.
pub fn overlapping(sites: &[(String, Vec<PathBuf>, bool, Place)], problems: &Problems) {
    let mut seen: BTreeMap<(&Path, bool), (&str, &Place)> = BTreeMap::new();
    for (name, docroots, userdir, place) in sites {
        for docroot in docroots {
            if let Some((other, there)) = seen.insert((docroot, *userdir), (name, place)) {
                if other == name {
                    continue;
                }
                let message = format!("docroot {} is site `{other}`'s already", docroot.display());
                problems.error(
                    Some(place),
                    message,
                    format!("it is named in {there} for the same user: keep one"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_droppings_of_editors_are_no_sites() {
        for file in ["shop.toml", "www.shop-1.example.toml", "_x.toml", "1.toml"] {
            assert!(site_name(file).is_some(), "{file}");
        }
        for file in [
            ".shop.toml.swp",
            ".#shop.toml",
            "#shop.toml#",
            "shop.toml~",
            "shop.toml.bak",
            "shop.toml.dpkg-old",
            "Shop.toml",
            "-x.toml",
            ".toml",
            "~alice.toml",
            "a b.toml",
            "shop.tml",
        ] {
            assert!(site_name(file).is_none(), "{file}");
        }
    }
}
