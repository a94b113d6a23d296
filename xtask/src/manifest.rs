//! packaging/manifest: the one list of what is installed where, whose it is, and with which mode.

use std::fs;

use crate::Outcome;
use crate::tree;

/// Where the list is, in the repository.
const FILE: &str = "packaging/manifest";

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Absolute, as on the installed machine.
    pub(crate) path: String,
    pub(crate) owner: String,
    pub(crate) group: String,
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
    /// Below the repository, or below target/dist for a program.
    pub(crate) source: String,
}

/// How a line is installed, and what its removal takes along. The list's own head says it in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dir,
    State,
    Program,
    File,
    Tree,
    Config,
    Settings,
}

impl Kind {
    /// Written by people.
    pub(crate) fn is_configuration(self) -> bool {
        matches!(self, Self::Config | Self::Settings)
    }
}

/// All lines, in their order: a directory comes before what is in it.
pub(crate) fn read() -> Outcome<Vec<Entry>> {
    let path = tree::root().join(FILE);
    let text = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    parse(&text)
}

fn parse(text: &str) -> Outcome<Vec<Entry>> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry =
            entry(line).ok_or_else(|| format!("{FILE}, line {}: not understood: {line}", index + 1))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let (path, owner, group) = (words.next()?, words.next()?, words.next()?);
    let (mode, kind) = (u32::from_str_radix(words.next()?, 8).ok()?, kind(words.next()?)?);
    let source = words.next().unwrap_or_default();
    let sourceless = matches!(kind, Kind::Dir | Kind::State | Kind::Settings);
    let good = path.starts_with('/') && words.next().is_none() && source.is_empty() == sourceless;
    good.then(|| Entry {
        path: path.to_owned(),
        owner: owner.to_owned(),
        group: group.to_owned(),
        mode,
        kind,
        source: source.to_owned(),
    })
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "dir" => Kind::Dir,
        "state" => Kind::State,
        "program" => Kind::Program,
        "file" => Kind::File,
        "tree" => Kind::Tree,
        "config" => Kind::Config,
        "settings" => Kind::Settings,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Kind, parse};

    #[test]
    fn a_line_is_path_owner_group_mode_kind_source() {
        let entries = parse("# x\n\n/a root www-data 4750 program b\n/c root root 0755 state\n").unwrap();
        assert_eq!(entries[0].mode, 0o4750);
        assert_eq!((entries[0].kind, entries[0].source.as_str()), (Kind::Program, "b"));
        assert_eq!((entries[1].kind, entries[1].source.as_str()), (Kind::State, ""));
    }

    #[test]
    fn a_line_that_lacks_something_is_refused_with_its_number() {
        for wrong in [
            "/a root root 0755",
            "a root root 0755 dir",
            "/a root root 0955 dir",
            "/a root root 0755 thing",
            "/a root root 0644 file",
            "/a root root 0755 dir source",
            "/a root root 0644 file source more",
        ] {
            assert!(parse(&format!("\n{wrong}")).is_err_and(|why| why.contains("line 2")), "{wrong}");
        }
    }
}
