//! The same requests to Debian's suEXEC and to ours, each on fresh users and trees: the same end and the same things
//! seen, or a difference that is listed in docs/differences.md and named by the case.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must say so loudly"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;

mod arguments;
mod differences;
mod environment;
mod identities;
mod inherited;
mod owners;
mod paths;
mod programs;
mod random;
mod seen;
mod suite;
mod userdir;

use std::collections::BTreeSet;

use suite::{Group, compare};

const GROUPS: [Group; 8] = [
    arguments::GROUP,
    identities::GROUP,
    paths::GROUP,
    owners::GROUP,
    programs::GROUP,
    environment::GROUP,
    inherited::GROUP,
    userdir::GROUP,
];

#[test]
fn arguments_are_taken_alike() {
    compare(&arguments::GROUP);
}

#[test]
fn identities_are_given_alike() {
    compare(&identities::GROUP);
}

#[test]
fn paths_are_walked_alike() {
    compare(&paths::GROUP);
}

#[test]
fn owners_and_modes_are_judged_alike() {
    compare(&owners::GROUP);
}

#[test]
fn programs_are_started_alike() {
    compare(&programs::GROUP);
}

#[test]
fn environments_are_filtered_alike() {
    compare(&environment::GROUP);
}

#[test]
fn what_is_inherited_arrives_alike() {
    compare(&inherited::GROUP);
}

#[test]
fn user_directories_are_served_alike() {
    compare(&userdir::GROUP);
}

#[test]
fn there_are_enough_cases_and_each_has_its_own_name() {
    let names: Vec<String> = GROUPS.iter().flat_map(|group| (group.cases)()).map(|case| case.name).collect();
    let different: BTreeSet<&String> = names.iter().collect();
    assert!(names.len() >= 250, "{} cases", names.len());
    let twice: Vec<&String> = different
        .iter()
        .filter(|name| names.iter().filter(|own| own == *name).count() > 1)
        .copied()
        .collect();
    assert!(twice.is_empty(), "these names stand twice: {twice:?}");
}

#[test]
fn each_listed_difference_is_shown_by_a_case_and_each_shown_one_is_listed() {
    let listed: BTreeSet<String> = differences::listed().into_keys().collect();
    let always = suite::ALWAYS.iter().map(|(_, difference)| difference.0.to_owned());
    let of_cases = GROUPS.iter().flat_map(|group| (group.cases)()).flat_map(|case| case.identifiers());
    let shown: BTreeSet<String> = always.chain(of_cases).collect();
    let unused: Vec<&String> = listed.difference(&shown).collect();
    let unlisted: Vec<&String> = shown.difference(&listed).collect();
    assert!(unused.is_empty(), "docs/differences.md lists what no case shows: {unused:?}");
    assert!(unlisted.is_empty(), "docs/differences.md does not list: {unlisted:?}");
}
