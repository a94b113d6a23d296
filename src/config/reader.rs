//! One TOML file as a flat list of keys, taken one by one; what nobody takes is unknown, and the nearest is named.
//!
//! Pure. Every value is deserialized by itself, so that one wrong value does not hide the next one.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::problem::{Document, Located, Place, Problems};
use super::values::{AMOUNT, PROGRAM, WORKERS};

/// One `key = value`, in its section.
#[derive(Debug)]
pub struct Entry<'i> {
    /// The section; empty at the top of a file.
    pub section: String,
    /// The key inside its section.
    pub name: String,
    /// Where the key stands.
    pub key: Place,
    /// The value.
    pub value: Spanned<DeValue<'i>>,
}

/// What of a file has not been taken yet.
pub struct Reader<'i, 'p> {
    document: Arc<Document>,
    entries: Vec<Entry<'i>>,
    asked: Vec<(&'static str, &'static str)>,
    problems: &'p Problems,
}

impl<'i, 'p> Reader<'i, 'p> {
    /// All keys of `document`; the tables named in `sections` are its sections. Errors of the syntax are reported
    /// at once, all of them.
    pub fn open(document: &'i Arc<Document>, sections: &[&str], problems: &'p Problems) -> Self {
        let (table, errors) = DeTable::parse_recoverable(&document.text);
        for error in errors {
            let place = error.span().map(|span| Place::new(document, span));
            let key = error.message() == "duplicate key";
            let help = if key { "it stands twice: keep one of them" } else { "this is not TOML" };
            problems.error(place.as_ref(), error.message(), help);
        }
        Self::over(document, table.into_inner(), sections, problems)
    }

    /// The same for a table inside a document.
    pub fn over(
        document: &Arc<Document>,
        table: DeTable<'i>,
        sections: &[&str],
        problems: &'p Problems,
    ) -> Self {
        let mut entries = Vec::new();
        for (key, value) in table {
            let place = Place::new(document, key.span());
            let name = key.into_inner().into_owned();
            let inner = value.span();
            match (sections.contains(&name.as_str()), value.into_inner()) {
                (true, DeValue::Table(inside)) => {
                    entries.extend(inside.into_iter().map(|(key, value)| entry(document, &name, key, value)));
                }
                (true, other) => problems.error(
                    Some(&place),
                    format!("`{name}` is a section, not {}", kind(&other)),
                    format!("write [{name}] and its keys below it"),
                ),
                (false, other) => entries.push(Entry {
                    section: String::new(),
                    name,
                    key: place,
                    value: Spanned::new(inner, other),
                }),
            }
        }
        Self { document: Arc::clone(document), entries, asked: Vec::new(), problems }
    }

    /// Takes a key as it stands.
    pub fn take(&mut self, section: &'static str, name: &'static str) -> Option<Entry<'i>> {
        self.asked.push((section, name));
        let at = self.entries.iter().position(|entry| entry.section == section && entry.name == name)?;
        Some(self.entries.swap_remove(at))
    }

    /// Takes all that is left of a section whose keys are free.
    pub fn take_section(&mut self, section: &'static str) -> Vec<Entry<'i>> {
        let (taken, rest) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| entry.section == section);
        self.entries = rest;
        taken
    }

    /// Takes a key whose value is a table with free keys.
    pub fn table(&mut self, section: &'static str, name: &'static str) -> Vec<Entry<'i>> {
        let Some(Entry { key, value, .. }) = self.take(section, name) else { return Vec::new() };
        match value.into_inner() {
            DeValue::Table(inside) => {
                inside.into_iter().map(|(key, value)| entry(&self.document, section, key, value)).collect()
            }
            other => {
                let message = format!("`{name}` is a table, not {}", kind(&other));
                let example = match name {
                    "at" => "\"/usr/sbin/sendmail\" = \"/usr/bin/msmtp\"",
                    _ => "NAME = \"value\"",
                };
                self.problems.error(Some(&key), message, format!("write {name} = {{ {example} }}"));
                Vec::new()
            }
        }
    }

    /// Takes a key with one value.
    pub fn one<T: DeserializeOwned>(
        &mut self,
        section: &'static str,
        name: &'static str,
    ) -> Option<Located<T>> {
        let entry = self.take(section, name)?;
        self.value(entry.value)
    }

    /// Takes a key with a list, or with one value that stands for a list of one.
    pub fn many<T: DeserializeOwned>(
        &mut self,
        section: &'static str,
        name: &'static str,
    ) -> Option<Located<Vec<Located<T>>>> {
        let Entry { key, value, .. } = self.take(section, name)?;
        let span = value.span();
        let items = match value.into_inner() {
            DeValue::Array(items) => items.into_iter().filter_map(|item| self.value(item)).collect(),
            one => self.value(Spanned::new(span, one)).into_iter().collect(),
        };
        Some(Located { value: items, place: key })
    }

    /// One value.
    pub fn value<T: DeserializeOwned>(&self, value: Spanned<DeValue<'i>>) -> Option<Located<T>> {
        let whole = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(inner) => Some(Located { value: inner, place: self.place(whole) }),
            Err(error) => {
                let place = self.place(error.span().unwrap_or(whole));
                let message = error.message();
                let (message, help) =
                    message.split_once(HELP).unwrap_or_else(|| (message, help_for(message)));
                self.problems.error(Some(&place), message, help);
                None
            }
        }
    }

    /// Where problems are reported.
    #[must_use]
    pub fn problems(&self) -> &'p Problems {
        self.problems
    }

    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place::new(&self.document, span)
    }

    /// Nothing may be left.
    pub fn finish(self) {
        for (count, entry) in self.entries.iter().enumerate() {
            let shown = if entry.section.is_empty() {
                format!("`{}`", entry.name)
            } else {
                format!("`{}` in [{}]", entry.name, entry.section)
            };
            // A file with more of them is none of ours, and each is compared with every key.
            let advice = if count < ADVISED { self.advice(entry) } else { ALL_KEYS.to_owned() };
            self.problems.error(Some(&entry.key), format!("unknown key {shown}"), advice);
        }
    }

    fn advice(&self, entry: &Entry<'_>) -> String {
        let tops = |name: &str| self.asked.contains(&("", name)) && entry.section.is_empty();
        if let DeValue::Table(inside) = entry.value.get_ref()
            && inside.iter().any(|(name, _)| tops(name.get_ref()))
        {
            return format!(
                "there is no such section: write what is below [{}] at the top of the file",
                entry.name
            );
        }
        let same = |&&(section, _): &&(&str, &str)| section == entry.section;
        let names = self.asked.iter().filter(same).map(|(_, name)| *name);
        let sections = self.asked.iter().map(|(section, _)| *section).filter(|section| !section.is_empty());
        let elsewhere = self.asked.iter().find(|(_, name)| *name == entry.name);
        if let Some((section, name)) = elsewhere {
            return match *section {
                "" => format!("`{name}` belongs at the top of the file, above every [section]"),
                section => format!("`{name}` belongs in [{section}]"),
            };
        }
        if let Some(name) = nearest(&entry.name, names) {
            return format!("did you mean `{name}`?");
        }
        let table = matches!(entry.value.get_ref(), DeValue::Table(_));
        if let Some(section) = nearest(&entry.name, sections).filter(|_| table && entry.section.is_empty()) {
            return format!("did you mean [{section}]?");
        }
        let anywhere = self.asked.iter().map(|(_, name)| *name);
        let found =
            nearest(&entry.name, anywhere).and_then(|near| self.asked.iter().find(|(_, name)| *name == near));
        match found {
            Some(("", name)) => format!("did you mean `{name}`, at the top of the file?"),
            Some((section, name)) => format!("did you mean `{name}` in [{section}]?"),
            None => ALL_KEYS.to_owned(),
        }
    }
}

fn entry<'i>(
    document: &Arc<Document>,
    section: &str,
    key: Spanned<DeString<'i>>,
    value: Spanned<DeValue<'i>>,
) -> Entry<'i> {
    let place = Place::new(document, key.span());
    Entry { section: section.to_owned(), name: key.into_inner().into_owned(), key: place, value }
}

/// What to do about a wrong type, by what serde found and expected.
fn help_for(message: &str) -> &'static str {
    let several =
        ["sequence", "map"].iter().any(|kind| message.starts_with(&format!("invalid type: {kind},")));
    let helps = [
        (
            "expected a string",
            if several { "write one name or path, in quotes" } else { "write it in quotes" },
        ),
        ("expected a boolean", "write true or false, without quotes"),
        ("expected i64", "write a whole number, without quotes"),
        (AMOUNT, "no limit is \"unlimited\""),
        (PROGRAM, "write its path in quotes"),
        (WORKERS, "write workers = { max = 8 }"),
        ("expected one of `max`, `min`, `spare`, `idle`", "write workers = { max = 8 }"),
    ];
    helps.iter().find(|(expected, _)| message.ends_with(expected)).map_or("", |(_, help)| help)
}

/// Whether a document has something for a key of its top, be it below a `[section]` or with a slip in the name: that was told
/// when it was read, and what would follow from it is no second mistake. An empty list is nothing.
#[must_use]
pub fn writes(document: &Document, key: &str) -> bool {
    let (table, _) = DeTable::parse_recoverable(&document.text);
    let is = |name: &str| nearest(name, std::iter::once(key)).is_some();
    table.get_ref().iter().any(|(name, value)| match value.get_ref() {
        DeValue::Array(items) if items.is_empty() => false,
        DeValue::Table(inside) => inside.iter().any(|(name, _)| is(name.get_ref())),
        _ => is(name.get_ref()),
    })
}

/// `a string`, `an integer`.
fn kind(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    format!("{} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
}

/// Where no key is near.
const ALL_KEYS: &str = "policy/README.md lists all keys";
/// Unknown keys of one file that the nearest is looked for.
const ADVISED: usize = 100;

/// Between a message of a value and its help.
pub const HELP: &str = " :: ";

/// The name that was probably meant.
pub fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let length = wrong.chars().count();
    names
        // So many letters have to come or go at least; a file may hold a name as long as itself.
        .filter(|name| name.len().abs_diff(length) <= 1.max(name.len().max(wrong.len()) / 3))
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, name)| *distance <= 1.max(name.len().max(wrong.len()) / 3))
        .min()
        .map(|(_, name)| name)
}

/// Damerau's distance of neighbours: insert, remove, replace, swap.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) =
        (one.to_lowercase().chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    let mut left_before = None;
    for (row, left) in one.iter().enumerate() {
        let mut line = vec![row + 1];
        let mut right_before = None;
        for (column, right) in other.iter().enumerate() {
            let at = |line: &[usize], place: usize| line.get(place).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, column + 1) + 1)
                .min(at(&line, column) + 1)
                .min(at(&last, column) + usize::from(left != right));
            if left_before == Some(right) && right_before == Some(left) && column > 0 {
                best = best.min(at(&before, column - 1) + 1);
            }
            line.push(best);
            right_before = Some(right);
        }
        left_before = Some(left);
        before = std::mem::replace(&mut last, line);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["docroot", "user", "group", "profile"];
        for (wrong, right) in [
            ("docrot", Some("docroot")),
            ("documentroot", None),
            ("usr", Some("user")),
            ("gruop", Some("group")),
            ("DocRoot", Some("docroot")),
            ("x", None),
        ] {
            assert_eq!(nearest(wrong, names.into_iter()), right, "{wrong}");
        }
    }
}
