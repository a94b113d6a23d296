//! Presets: profiles and the pieces that they are made of; shipped ones, the administrator's own, and the copies inside
//! this program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::host::shared;
use super::problem::{Document, Located, Place, Problems};
use super::reader::{Entry, Reader, nearest};
use super::rules::{Many, Rules, SECTIONS};
use super::sites;

/// Where PHP in a cell finds settings after the host's own, as the piece `php` says; a site's own come behind.
pub const PHP_SETTINGS: &str = "/usr/share/cellwall/php";

/// A kind of preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What a site is: a composition of pieces and a few rules.
    Profile,
    /// What one program or service needs of the host.
    Piece,
}

impl Kind {
    /// As it is called in messages.
    const fn word(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Piece => "piece",
        }
    }

    /// Where it is looked for; the first directory that has one wins.
    pub(super) const fn directories(self) -> [&'static str; 2] {
        match self {
            Self::Profile => ["/etc/cellwall/profiles", "/usr/share/cellwall/profiles"],
            Self::Piece => ["/etc/cellwall/pieces", "/usr/share/cellwall/pieces"],
        }
    }

    /// So that the command works where nothing is installed.
    const fn compiled_in(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Profile => PROFILES,
            Self::Piece => PIECES,
        }
    }
}

/// One preset, read.
#[derive(Debug, Clone, Default)]
pub struct Preset {
    /// Its keys.
    pub rules: Rules,
    /// What it is for.
    pub description: String,
    /// By distribution (`debian`, `fedora`), the packages that hold what it lists.
    pub packages: BTreeMap<String, String>,
    /// What `cellwall jail build` copies of the host's trees besides its lists.
    pub copied: Vec<Located<String>>,
    /// Whole trees of the host's in its lists, which are not copied.
    pub left: Vec<Located<String>>,
    /// Its file.
    pub path: PathBuf,
}

impl Preset {
    /// The command that installs what it lists, on this host.
    #[must_use]
    pub fn install(&self) -> Option<String> {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        install(&self.packages, &release)
    }
}

/// Presets by name, each read once.
#[derive(Debug, Default)]
pub struct Presets {
    /// None: asked for, and nowhere; reported at each place that asks.
    known: BTreeMap<(&'static str, String), Option<Preset>>,
    /// By the names that were asked for: most sites of a host name the same ones.
    composed: BTreeMap<Vec<String>, Rules>,
}

impl Presets {
    /// The merged rules of some profiles, a later one upon an earlier one.
    pub fn profiles(&mut self, names: &[Located<String>], problems: &Problems) -> Rules {
        let mut merged = Rules::default();
        for name in names {
            if let Some(profile) = self.one(Kind::Profile, name, problems) {
                merged = profile.rules.clone().over(merged);
            }
        }
        merged
    }

    /// The rules of some pieces and of those that they name, beside each other.
    pub fn pieces(&mut self, names: &[Located<String>], problems: &Problems) -> Rules {
        let key: Vec<String> = names.iter().map(|name| name.value.clone()).collect();
        if let Some(known) = self.composed.get(&key) {
            return known.clone();
        }
        let mut merged = Rules::default();
        let (mut seen, mut whole) = (BTreeSet::new(), true);
        let mut wanted: Vec<Located<String>> = names.iter().rev().cloned().collect();
        while let Some(name) = wanted.pop() {
            if !seen.insert(name.value.clone()) {
                continue;
            }
            match self.one(Kind::Piece, &name, problems) {
                Some(piece) => {
                    wanted.extend(piece.rules.pieces.items.iter().rev().cloned());
                    merged = merged.beside(piece.rules.clone());
                }
                None => whole = false,
            }
        }
        if whole {
            self.composed.insert(key, merged.clone());
        }
        merged
    }

    /// The command that installs what the preset behind `place` lists, on this host.
    #[must_use]
    pub fn install(&self, place: &Place) -> Option<String> {
        self.behind(place)?.install()
    }

    /// The preset that a line belongs to.
    #[must_use]
    pub fn behind(&self, place: &Place) -> Option<&Preset> {
        self.known.values().flatten().find(|preset| preset.path == place.path())
    }

    fn one(&mut self, kind: Kind, name: &Located<String>, problems: &Problems) -> Option<&Preset> {
        let Located { value, place } = name;
        let key = (kind.word(), value.clone());
        let found = self.known.entry(key).or_insert_with(|| load(kind, value, problems)).as_ref();
        if found.is_none() {
            let names = all(kind);
            let list = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let help = match nearest(value, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {list}"),
            };
            problems.error(Some(place), format!("there is no {} `{value}`", kind.word()), help);
        }
        found
    }
}

/// By /etc/os-release, whose ID_LIKE names the family.
fn install(packages: &BTreeMap<String, String>, release: &str) -> Option<String> {
    let ids = release.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    let ids: Vec<&str> = ids.flat_map(|ids| ids.trim_matches('"').split(' ')).collect();
    let (family, tool) = [("debian", "apt-get install"), ("fedora", "dnf install")]
        .into_iter()
        .find(|(family, _)| ids.iter().any(|id| id == family))?;
    Some(format!("run: {tool} {}", packages.get(family)?))
}

/// The names of all presets of a kind.
#[must_use]
pub fn all(kind: Kind) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = kind.compiled_in().iter().map(|(name, _)| (*name).to_owned()).collect();
    for directory in kind.directories() {
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

/// One preset by its name.
#[must_use]
pub fn load(kind: Kind, name: &str, problems: &Problems) -> Option<Preset> {
    if !is_name(name) {
        return None;
    }
    let files = kind.directories().map(|directory| Path::new(directory).join(format!("{name}.toml")));
    let Some(path) = files.into_iter().find(|path| sites::is_taken(path)) else {
        let (_, text) = kind.compiled_in().iter().find(|(known, _)| *known == name)?;
        let path = format!("(built in) policy/{}s/{name}.toml", kind.word());
        return Some(read(kind, Path::new(&path), (*text).to_owned(), problems));
    };
    // What cannot be read, or is not root's alone, has been reported: another one of its name may be looser, and does
    // not take its place.
    let Some((text, _)) = sites::read_file(&path, true, problems) else {
        return Some(Preset { path, ..Preset::default() });
    };
    Some(read(kind, &path, text, problems))
}

/// One preset's text.
pub fn read(kind: Kind, path: &Path, text: String, problems: &Problems) -> Preset {
    let document = Document::new(path, text);
    let mut sections = SECTIONS.to_vec();
    sections.extend(["package", "chroot"]);
    let mut reader = Reader::open(&document, &sections, problems);
    let description = reader.one::<String>("", "description");
    if description.is_none() {
        let place = Place::new(&document, 0..0);
        let message = format!("the {} has no description", kind.word());
        problems.error(Some(&place), message, "write: description = \"…\"");
    }
    let package = |reader: &Reader<'_, '_>, entry: Entry<'_>| {
        reader.value::<String>(entry.value).map(|found| (entry.name, found.value))
    };
    let packages = reader.take_section("package");
    let packages = packages.into_iter().filter_map(|entry| package(&reader, entry)).collect();
    let mut listed = |name| reader.many("chroot", name).map(|found| found.value).unwrap_or_default();
    let (copied, left) = (listed("copy"), listed("leave"));
    let rules = no_layers(kind, shared(&mut reader, &format!("a {}", kind.word())), problems);
    reader.finish();
    let description = description.map(|found| found.value).unwrap_or_default();
    Preset { rules, description, packages, copied, left, path: path.to_owned() }
}

/// A profile names pieces, and a piece other pieces; neither names profiles.
fn no_layers(kind: Kind, mut rules: Rules, problems: &Problems) -> Rules {
    if let Many { key: Some(key), .. } = std::mem::take(&mut rules.profile) {
        let message = format!("`profile` may not stand in a {}", kind.word());
        problems.error(Some(&key), message, "name pieces: pieces = [\"…\"]");
    }
    rules
}

macro_rules! shipped {
    ($directory:literal: $($name:literal)+) => {
        &[$(($name, include_str!(concat!("../../policy/", $directory, "/", $name, ".toml")))),+]
    };
}

const PROFILES: &[(&str, &str)] = shipped!("profiles": "node" "perl" "php" "python" "ruby" "sh" "static");

const PIECES: &[(&str, &str)] = shipped!("pieces":
    "base" "composer" "dns" "fonts" "git" "images" "javascript" "locale" "lua" "mail" "memcached" "mysql" "node" "perl"
    "php" "postgresql" "python" "redis" "ruby" "sh" "tcl" "tls" "tz");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_that_is_compiled_in_is_right_and_names_pieces_that_are_there() {
        for kind in [Kind::Profile, Kind::Piece] {
            for (name, text) in kind.compiled_in() {
                let problems = Problems::default();
                let preset = read(kind, Path::new(name), (*text).to_owned(), &problems);
                Presets::default().pieces(&preset.rules.pieces.items, &problems);
                assert_eq!(problems.into_sorted(), vec![], "{name}");
            }
        }
    }

    #[test]
    fn every_file_of_policy_is_compiled_in() {
        for kind in [Kind::Profile, Kind::Piece] {
            let directory = format!("{}/policy/{}s", env!("CARGO_MANIFEST_DIR"), kind.word());
            let files = std::fs::read_dir(&directory).expect("the repository has it");
            let mut names: Vec<String> =
                files.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect();
            names.sort();
            let known: Vec<String> =
                kind.compiled_in().iter().map(|(name, _)| format!("{name}.toml")).collect();
            assert_eq!(names, known, "{directory}");
        }
    }

    #[test]
    fn of_two_pieces_the_larger_limit_holds_whatever_their_order() {
        let memory = |order: [&str; 2]| {
            let names: Vec<Located<String>> = order
                .iter()
                .map(|name| Located {
                    value: (*name).to_owned(),
                    place: Place::new(&Document::new(Path::new("x"), String::new()), 0..0),
                })
                .collect();
            let rules = Presets::default().pieces(&names, &Problems::default());
            rules.memory.map(|memory| memory.value.0)
        };
        assert_eq!(memory(["sh", "php"]), memory(["php", "sh"]));
        assert_eq!(memory(["sh", "php"]), Some(1 << 30));
    }

    #[test]
    fn the_package_is_named_for_the_distribution() {
        let packages = BTreeMap::from([("debian".to_owned(), "php-cgi".to_owned())]);
        let ubuntu = "ID=ubuntu\nID_LIKE=debian\n";
        assert_eq!(install(&packages, ubuntu).as_deref(), Some("run: apt-get install php-cgi"));
        assert_eq!(install(&packages, "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), None);
    }
}
