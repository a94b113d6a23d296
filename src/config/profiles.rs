//! Profiles: shipped presets, the administrator's own ones, and the copies inside this program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::host::shared;
use super::problem::{Document, Located, Problems};
use super::reader::{Reader, nearest};
use super::rules::{Rules, SECTIONS};

/// Where profiles are looked for; the first that has one wins.
pub const DIRECTORIES: &[&str] = &["/etc/cellwall/profiles", "/usr/share/cellwall/profiles"];

/// Profiles by name, each read once.
#[derive(Debug, Default)]
pub struct Profiles {
    known: BTreeMap<String, Rules>,
    /// Names that were asked for and are nowhere: reported at each place that asks.
    missing: BTreeSet<String>,
}

impl Profiles {
    /// The merged rules of `names`, a later one upon an earlier one.
    pub fn merged(&mut self, names: &[Located<String>], problems: &Problems) -> Rules {
        let mut merged = Rules::default();
        for name in names {
            if let Some(rules) = self.one(name, problems) {
                merged = rules.clone().over(merged);
            }
        }
        merged
    }

    fn one(&mut self, name: &Located<String>, problems: &Problems) -> Option<&Rules> {
        let Located { value, place } = name;
        if !self.known.contains_key(value) && !self.missing.contains(value) {
            match load(value, problems) {
                Some(rules) => drop(self.known.insert(value.clone(), rules)),
                None => drop(self.missing.insert(value.clone())),
            }
        }
        let found = self.known.get(value);
        if found.is_none() {
            let names = all();
            let list = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let help = match nearest(value, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {list}"),
            };
            problems.error(Some(place), format!("there is no profile `{value}`"), help);
        }
        found
    }
}

/// The names of all profiles.
#[must_use]
pub fn all() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = COMPILED_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    for directory in DIRECTORIES {
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let stems = files.filter_map(|file| file.file_name().into_string().ok());
        names.extend(
            stems
                .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
                .filter(|name| is_name(name)),
        );
    }
    names
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
}

fn load(name: &str, problems: &Problems) -> Option<Rules> {
    if !is_name(name) {
        return None;
    }
    let file = |directory: &&str| {
        let path: PathBuf = Path::new(directory).join(format!("{name}.toml"));
        std::fs::read_to_string(&path).ok().map(|text| (path, text))
    };
    let compiled_in = || {
        let (_, text) = COMPILED_IN.iter().find(|(known, _)| *known == name)?;
        Some((PathBuf::from(format!("(built in) policy/profiles/{name}.toml")), (*text).to_owned()))
    };
    let (path, text) = DIRECTORIES.iter().find_map(file).or_else(compiled_in)?;
    Some(read(&path, text, problems))
}

/// The rules of one profile's text.
pub fn read(path: &Path, text: String, problems: &Problems) -> Rules {
    let document = Document::new(path, text);
    let mut reader = Reader::open(&document, SECTIONS, problems);
    let described = reader.one::<String>("", "description");
    if described.is_none() {
        let place = super::problem::Place::new(&document, 0..0);
        problems.error(Some(&place), "the profile has no description", "write: description = \"…\"");
    }
    let rules = shared(&mut reader, "a profile");
    reader.finish();
    rules
}

/// So that the command works where nothing is installed.
const COMPILED_IN: &[(&str, &str)] = &[
    ("perl", include_str!("../../policy/profiles/perl.toml")),
    ("php", include_str!("../../policy/profiles/php.toml")),
    ("python", include_str!("../../policy/profiles/python.toml")),
    ("sh", include_str!("../../policy/profiles/sh.toml")),
    ("static", include_str!("../../policy/profiles/static.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_is_compiled_in_is_right() {
        for (name, text) in COMPILED_IN {
            let problems = Problems::default();
            read(Path::new(name), (*text).to_owned(), &problems);
            assert_eq!(problems.into_sorted(), vec![], "{name}");
        }
    }
}
