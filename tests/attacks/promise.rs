//! What docs/threat-model.md promises of a cell, on the kernel that the tests run on: an older Landlock keeps less back.

use std::fs;
use std::path::Path;

use cellwall::sys::seal::landlock_version;

use crate::harness::World;

/// The kinds of jail, in the order of the tables' columns.
pub(crate) const JAILS: [&str; 2] = ["host", "view"];

/// The attempts in the order of the document, and in which kinds of jail each is possible.
pub(crate) fn documented() -> Vec<(String, [bool; 2])> {
    let kernel = landlock_version();
    let mut all: Vec<_> =
        table("What Landlock does not stop").into_iter().map(|row| (row[0].clone(), jails(&row))).collect();
    assert!(all.len() >= 20, "{all:?}");
    for row in table("What an older Landlock does not stop") {
        let since: u8 = row[3].split(' ').next().unwrap().parse().unwrap();
        let known = all.iter_mut().find(|(name, _)| *name == row[0]).unwrap();
        if kernel < since {
            known.1 = jails(&row);
        }
    }
    all
}

/// Is `attempt` possible from inside a cell of alice's? What the document does not name is not.
pub(crate) fn is_possible(world: &World, attempt: &str) -> bool {
    let column = JAILS.iter().position(|jail| *jail == jail_of_alice(world)).unwrap();
    documented().iter().any(|(name, possible)| name == attempt && possible[column])
}

/// The kind of her jail.
pub(crate) fn jail_of_alice(_: &World) -> &'static str {
    let rules = fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
    JAILS.into_iter().find(|jail| rules.contains(&format!("kind = \"{jail}\""))).unwrap()
}

/// The rows "| `NAME` … | CELL | CELL … |" of a section, with the bare name first.
fn table(section: &str) -> Vec<Vec<String>> {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threat-model.md")).unwrap();
    let text = page.split(&format!("\n## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells = line.trim_matches('|').split('|').skip(1).map(|cell| cell.trim().to_owned());
        std::iter::once(line.split('`').nth(1).unwrap().to_owned()).chain(cells).collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    assert!(!rows.is_empty(), "{section}");
    rows
}

fn jails(row: &[String]) -> [bool; 2] {
    [&row[1], &row[2]].map(|cell| match cell.as_str() {
        "possible" => true,
        "no" => false,
        other => panic!("neither `possible` nor `no`: {other} in {row:?}"),
    })
}
