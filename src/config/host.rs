//! `cellwall.toml`: what holds for the whole host.

use std::sync::Arc;

use toml::de::DeValue;

use super::problem::{Document, Place, Problems};
use super::reader::Reader;
use super::rules::{Many, One, Rules, SECTIONS};
use super::values::{Count, LogFormat, LogTo, MinimumId, Seconds, Size, Umask};

/// All keys of `cellwall.toml`.
#[derive(Debug, Clone, Default)]
pub struct HostRules {
    /// `caller`: users that may call the launcher.
    pub caller: Many<String>,
    /// `docroot`: every docroot of every site lies beneath it.
    pub docroot: One<String>,
    /// `minimum_uid`.
    pub minimum_uid: One<MinimumId>,
    /// `minimum_gid`.
    pub minimum_gid: One<MinimumId>,
    /// `path`: PATH of every program.
    pub path: One<String>,
    /// `umask`.
    pub umask: One<Umask>,
    /// `allow_dangerous`: a site may use keys that begin with `dangerous_`.
    pub allow_dangerous: One<bool>,
    /// `log.to`.
    pub log_to: One<LogTo>,
    /// `log.file`.
    pub log_file: One<String>,
    /// `log.strict`.
    pub log_strict: One<bool>,
    /// `log.format`.
    pub log_format: One<LogFormat>,
    /// `userdir.enabled`.
    pub userdir_enabled: One<bool>,
    /// `userdir.suffix`.
    pub userdir_suffix: One<String>,
    /// `userdir.users`.
    pub userdir_users: Many<String>,
    /// The rest of `[userdir]`.
    pub userdir: Rules,
    /// `[defaults]`.
    pub defaults: Rules,
    /// `[limits_max]`.
    pub limits_max: LimitsMax,
    /// The document, for a site that came from it.
    pub document: Option<Arc<Document>>,
}

/// What no site may exceed.
#[derive(Debug, Clone, Default)]
pub struct LimitsMax {
    /// `limits_max.memory`.
    pub memory: One<Size>,
    /// `limits_max.processes`.
    pub processes: One<Count>,
    /// `limits_max.cpu`.
    pub cpu: One<Seconds>,
    /// `limits_max.wall`.
    pub wall: One<Seconds>,
    /// `limits_max.open_files`.
    pub open_files: One<Count>,
    /// `limits_max.file_size`.
    pub file_size: One<Size>,
}

/// Section and name of every key that `cellwall.toml` has beside the rules of sites.
pub const KEYS: &[(&str, &str)] = &[
    ("", "caller"),
    ("", "docroot"),
    ("", "minimum_uid"),
    ("", "minimum_gid"),
    ("", "path"),
    ("", "umask"),
    ("", "allow_dangerous"),
    ("log", "to"),
    ("log", "file"),
    ("log", "strict"),
    ("log", "format"),
    ("userdir", "enabled"),
    ("userdir", "suffix"),
    ("userdir", "users"),
    ("limits_max", "memory"),
    ("limits_max", "processes"),
    ("limits_max", "cpu"),
    ("limits_max", "wall"),
    ("limits_max", "open_files"),
    ("limits_max", "file_size"),
];

/// Whether `cellwall.toml` has such a key or section beside the rules of sites.
#[must_use]
pub fn has(name: &str) -> bool {
    KEYS.iter().any(|(section, key)| *section == name || section.is_empty() && *key == name)
}

impl HostRules {
    /// Reads the document; every problem of it is reported.
    #[must_use]
    pub fn read(document: &Arc<Document>, problems: &Problems) -> Self {
        let mut reader = Reader::open(document, &["log", "limits_max"], problems);
        let mut host = Self { document: Some(Arc::clone(document)), ..Self::of_top(&mut reader) };
        if let Some(entry) = reader.take("", "defaults")
            && let Some(mut inside) = layer(document, entry.key, entry.value.into_inner(), problems)
        {
            host.defaults = shared(&mut inside, "[defaults]");
            inside.finish();
        }
        if let Some(entry) = reader.take("", "userdir")
            && let Some(mut inside) = layer(document, entry.key, entry.value.into_inner(), problems)
        {
            host.userdir_enabled = inside.one("", "enabled");
            host.userdir_suffix = inside.one("", "suffix");
            host.userdir_users = many(&mut inside, "", "users");
            host.userdir = shared(&mut inside, "[userdir]");
            inside.finish();
        }
        reader.finish();
        host
    }

    fn of_top(reader: &mut Reader<'_, '_>) -> Self {
        Self {
            caller: many(reader, "", "caller"),
            docroot: reader.one("", "docroot"),
            minimum_uid: reader.one("", "minimum_uid"),
            minimum_gid: reader.one("", "minimum_gid"),
            path: reader.one("", "path"),
            umask: reader.one("", "umask"),
            allow_dangerous: reader.one("", "allow_dangerous"),
            log_to: reader.one("log", "to"),
            log_file: reader.one("log", "file"),
            log_strict: reader.one("log", "strict"),
            log_format: reader.one("log", "format"),
            limits_max: LimitsMax {
                memory: reader.one("limits_max", "memory"),
                processes: reader.one("limits_max", "processes"),
                cpu: reader.one("limits_max", "cpu"),
                wall: reader.one("limits_max", "wall"),
                open_files: reader.one("limits_max", "open_files"),
                file_size: reader.one("limits_max", "file_size"),
            },
            ..Self::default()
        }
    }

    /// Whether a site may use what is dangerous.
    #[must_use]
    pub fn allows_dangerous(&self) -> bool {
        self.allow_dangerous.as_ref().is_some_and(|allow| allow.value)
    }
}

fn layer<'i, 'p>(
    document: &Arc<Document>,
    key: Place,
    value: DeValue<'i>,
    problems: &'p Problems,
) -> Option<Reader<'i, 'p>> {
    if let DeValue::Table(table) = value {
        return Some(Reader::over(document, table, SECTIONS, problems));
    }
    problems.error(
        Some(&key),
        format!("this is a section, not a {}", value.type_str()),
        "write it as [section]",
    );
    None
}

fn many(reader: &mut Reader<'_, '_>, section: &'static str, name: &'static str) -> Many<String> {
    reader
        .many(section, name)
        .map_or_else(Many::default, |found| Many { key: Some(found.place), items: found.value })
}

/// Rules that hold for many sites name no site's identity.
pub fn shared(reader: &mut Reader<'_, '_>, whose: &str) -> Rules {
    let mut rules = Rules::read(reader);
    let user = rules.user.take().map(|user| ("user", user.place));
    let group = rules.group.take().map(|group| ("group", group.place));
    let docroot = rules.docroot.key.take().map(|key| ("docroot", key));
    rules.docroot.items.clear();
    for (name, place) in [user, group, docroot].into_iter().flatten() {
        reader.problems().error(
            Some(&place),
            format!("`{name}` may not stand in {whose}"),
            format!("`{name}` belongs in the file of one site"),
        );
    }
    rules
}
