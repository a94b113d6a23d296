//! The shipped files: every key documented, the example right.

use cellwall::config::{host, rules};

use crate::cage::Cage;

#[test]
fn every_key_is_documented_once() {
    let manual = include_str!("../../policy/README.md");
    for (section, name) in rules::KEYS.iter().chain(host::KEYS) {
        let key = rules::dotted(section, name);
        let written = format!("`{key}`");
        let rows = manual.lines().filter(|line| line.trim_start_matches("| ").starts_with(&written)).count();
        // A site's docroot and the host's are two keys.
        let wanted = if key == "docroot" { 2 } else { 1 };
        assert_eq!(rows, wanted, "{key}");
    }
}

#[test]
fn the_shipped_host_file_is_right() {
    let cage = Cage::new();
    cage.host(include_str!("../../policy/cellwall.toml"));
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    let said = cage.cellwall(&["check"]);
    assert_eq!((said.status, said.err.as_str()), (Some(0), ""));
}

#[test]
fn the_shipped_host_file_is_right_with_every_example_taken() {
    let cage = Cage::new();
    let shown = include_str!("../../policy/cellwall.toml").lines().map(|line| {
        let example = line.strip_prefix("# ").filter(|rest| rest.starts_with('[') || rest.contains(" = "));
        example.unwrap_or(line)
    });
    let text: Vec<&str> = shown.filter(|line| !line.contains("`")).collect();
    cage.host(&text.join("\n"));
    cage.small("shop", "alice", "");
    let said = cage.cellwall(&["check"]);
    assert_eq!(said.status, Some(0), "{}", said.err);
}
