//! Which line is behind a rule: the configuration of one site, read again, with the place of every value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::accounts::{Account, Accounts, Listed};
use super::compile::Compiler;
use super::problem::{Place, Problems};
use super::rules::Rules;
use super::sites::SiteFile;
use super::whole::{Origin, WholeHost};

/// The places of all values of one site.
#[derive(Debug, Default)]
pub struct Origins {
    all: Vec<Written>,
    modified: Option<u64>,
}

#[derive(Debug)]
struct Written {
    key: String,
    item: Option<String>,
    path: PathBuf,
    line: usize,
}

impl Origins {
    /// The places of an installed site or of a `~user` one; none when its files cannot be read any more.
    #[must_use]
    pub fn of(site: &str) -> Self {
        let Some((host, file)) = read(site) else { return Self::default() };
        let mut all = Vec::new();
        let listed = Arc::default();
        let mut compiler = Compiler::new(&host.rules, &host.cell, &listed);
        let rules = compiler.merged(&file);
        let account = compiler.account(&file, &rules);
        rules.places(|key, item, place| {
            let (path, line) = (place.path().to_owned(), place.line());
            for item in filled(item, account.as_ref(), &file.name, &rules) {
                all.push(Written { key: key.clone(), item, path: path.clone(), line });
            }
        });
        Self { all, modified: Some(file.modified) }
    }

    /// File and line of a key, or of one item of a list. The items may be as the file has them or as
    /// [`super::facts`] tells them (`read, execute /usr/lib`, `TZ=UTC`).
    #[must_use]
    pub fn place(&self, key: &str, item: Option<&str>) -> Option<(PathBuf, usize)> {
        let found = match item {
            None => self.all.iter().rev().find(|written| written.key == key),
            Some(item) => self.item(key, item),
        };
        found.map(|written| (written.path.clone(), written.line))
    }

    fn item(&self, key: &str, item: &str) -> Option<&Written> {
        let named = |name: &str| self.all.iter().find(|written| written.key == format!("{key}.{name}"));
        match key {
            "files" => self.file(item.split_once('/').map_or("", |(_, path)| path)),
            "handlers" => named(item.split(" = ").next().unwrap_or_default()),
            "environment.set" => named(item.split('=').next().unwrap_or_default()),
            _ => self
                .all
                .iter()
                .rev()
                .find(|written| written.key == key && written.item.as_deref() == Some(item)),
        }
    }

    /// The list item that names a path of a rule (without its first `/`), or the docroot.
    fn file(&self, path: &str) -> Option<&Written> {
        let keys = ["files.write", "files.execute", "files.read", "docroot", "jail.private"];
        keys.iter().find_map(|key| {
            self.all.iter().rev().filter(|written| written.key == *key).find(|written| {
                let item = written.item.as_deref().unwrap_or_default();
                item.trim_end_matches('?').split('|').any(|item| {
                    let item = item.trim_start_matches('/');
                    item == path || item.contains('*') && super::ground::matches(item, path)
                })
            })
        })
    }

    /// The modification time of the site's file, nanoseconds since 1970.
    #[must_use]
    pub fn modified(&self) -> Option<u64> {
        self.modified
    }
}

/// The host's file and the site's, as they are now.
fn read(site: &str) -> Option<(WholeHost, SiteFile)> {
    let problems = Problems::default();
    let mut accounts = Accounts::new(&Arc::<Listed>::default());
    let host = WholeHost::load(None, &mut accounts, &problems);
    let origin = match site.strip_prefix('~') {
        Some(user) => accounts.user(user).map(Origin::Userdir),
        None => Some(Origin::installed(site)),
    };
    let file = origin?.read(&host, &problems)?;
    Some((host, file))
}

/// A site's configuration as it is now, with what stands behind each path of its cell.
#[derive(Debug)]
pub struct Traced {
    /// All layers.
    pub rules: Rules,
    /// The site's file, and the modification time that it has.
    pub file: SiteFile,
    /// Where each path was asked for.
    pub reasons: BTreeMap<PathBuf, Vec<Place>>,
    /// Names of pieces in force, those that pieces name included.
    pub pieces: BTreeSet<String>,
    /// Whom it runs as, and the group; none: its file is wrong.
    pub identity: Option<(Account, (u32, String))>,
    /// Users from here on are people and sites.
    pub uid_min: u32,
}

impl Traced {
    /// Of an installed site or a `~user` one; none when its files cannot be read any more.
    #[must_use]
    pub fn of(site: &str) -> Option<Self> {
        let (host, file) = read(site)?;
        let listed = Arc::default();
        let mut compiler = Compiler::new(&host.rules, &host.cell, &listed);
        compiler.reasons = Some(BTreeMap::new());
        let rules = compiler.merged(&file);
        drop(compiler.site(&file));
        let account = compiler.account(&file, &rules);
        let identity = account.map(|account| {
            let named = rules.group.as_ref().and_then(|group| compiler.named_group(group));
            let gid = named.unwrap_or(account.gid);
            let name = compiler.accounts.group_name(gid).unwrap_or_else(|| gid.to_string());
            (account, (gid, name))
        });
        let reasons = compiler.reasons.take().unwrap_or_default();
        let pieces = rules.pieces.items.iter().map(|piece| piece.value.clone()).collect();
        Some(Self { rules, file, reasons, pieces, identity, uid_min: host.cell.uid_min })
    }

    /// An item of a list with its placeholders filled in.
    #[must_use]
    pub fn filled(&self, item: &str) -> Vec<String> {
        let account = self.identity.as_ref().map(|(account, _)| account);
        filled(Some(item.to_owned()), account, &self.file.name, &self.rules).into_iter().flatten().collect()
    }
}

/// An item with its placeholders filled in: one for each docroot that it names.
fn filled(item: Option<String>, account: Option<&Account>, site: &str, rules: &Rules) -> Vec<Option<String>> {
    let (Some(text), Some(account)) = (&item, account) else { return vec![item] };
    let home = account.home.to_string_lossy();
    let text = text.replace("{home}", &home).replace("{user}", &account.name).replace("{site}", site);
    if !text.contains("{docroot}") {
        return vec![Some(text)];
    }
    rules.docroot.items.iter().map(|docroot| Some(text.replace("{docroot}", &docroot.value))).collect()
}

/// File and line behind one key of a site: of the item of its list that is meant, where there is such a one.
#[must_use]
pub fn provenance(site: &str, key: &str, item: Option<&str>) -> Option<(PathBuf, usize)> {
    let origins = Origins::of(site);
    if let Some(found) = item.and_then(|item| origins.place(key, Some(item))) {
        return Some(found);
    }
    let any = || {
        origins
            .all
            .iter()
            .rev()
            .find(|written| written.key == key || written.key.starts_with(&format!("{key}.")))
    };
    origins.place(key, None).or_else(|| any().map(|written| (written.path.clone(), written.line)))
}
