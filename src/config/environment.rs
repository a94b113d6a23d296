//! `[environment]`: what passes from the caller, and what is set.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::names::{is_variable, may_pass, may_pass_prefix};

use super::closed;
use super::lists;
use super::problem::Problems;
use super::rules::{Keyed, Rules};

/// Names and beginnings that pass, sorted.
pub fn pass(rules: &Rules, problems: &Problems) -> (Vec<String>, Vec<String>) {
    let (mut names, mut prefixes): (BTreeSet<String>, BTreeSet<String>) = (BTreeSet::new(), BTreeSet::new());
    for word in lists::environment() {
        match word.strip_suffix('*') {
            Some(prefix) => prefixes.insert(prefix.to_owned()),
            None => names.insert(word.to_owned()),
        };
    }
    for item in &rules.pass.items {
        let (word, place) = (item.value.as_str(), Some(&item.place));
        match word.strip_suffix('*') {
            Some(prefix) if may_pass_prefix(prefix.as_bytes()) => drop(prefixes.insert(prefix.to_owned())),
            Some(prefix) => problems.error(
                place,
                format!("`{word}` could match a name that never passes"),
                if prefix.len() < 3 {
                    "write at least three letters before the `*`"
                } else {
                    "name the variables one by one"
                },
            ),
            None if matches!(word, "HTTP_AUTHORIZATION" | "HTTP_PROXY_AUTHORIZATION") => problems.error(
                place,
                format!("`{word}` has its own key"),
                "write authorization = true in [environment]",
            ),
            None if may_pass(word.as_bytes()) => drop(names.insert(word.to_owned())),
            None if !is_variable(word.as_bytes()) => {
                problems.error(
                    place,
                    format!("`{word}` is no name of a variable"),
                    "letters, digits and _, not a digit first",
                );
            }
            None => problems.error(
                place,
                format!("`{word}` steers programs and is never taken from a web server"),
                format!("give it a fixed value: set = {{ {word} = \"…\" }} in [environment]"),
            ),
        }
    }
    let covered = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
    (names.into_iter().filter(|name| !covered(name)).collect(), prefixes.into_iter().collect())
}

/// What is set: the basic names, then the administrator's.
pub fn set(rules: &Rules, basic: &[(&str, &str)], problems: &Problems) -> Vec<(String, String)> {
    let user = basic.iter().find(|(name, _)| *name == "USER").map_or("the site", |(_, user)| user);
    let mut all: BTreeMap<String, String> =
        basic.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for (name, Keyed { key, found: value }) in &rules.set.0 {
        if !is_variable(name.as_bytes()) {
            let help = "letters, digits and _, not a digit first";
            problems.error(Some(key), format!("`{name}` is no name of a variable"), help);
        } else if value.value.contains('\0') {
            problems.error(Some(&value.place), format!("the value of {name} holds a zero byte"), "remove it");
        } else {
            if name == "PHP_INI_SCAN_DIR"
                && let Some((message, help)) = closed::settings(&value.value, user)
            {
                problems.warning(Some(&value.place), message, help);
            }
            all.insert(name.clone(), value.value.clone());
        }
    }
    // As in suEXEC, PATH stands first.
    let mut all: Vec<(String, String)> = all.into_iter().collect();
    all.sort_by_key(|(name, _)| name != "PATH");
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::problem::Document;
    use super::super::reader::Reader;
    use super::super::rules::SECTIONS;
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let document = Document::new(Path::new("/x.toml"), text.to_owned());
        let problems = Problems::default();
        let rules = Rules::read(&mut Reader::open(&document, SECTIONS, &problems));
        pass(&rules, &problems);
        set(&rules, &[], &problems);
        problems.into_sorted().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn names_that_never_pass_are_explained() {
        let found = problems_of(
            "[environment]\npass = [\"LD_PRELOAD\", \"HTTP_X_*\", \"L*\", \"A-B\", \"HTTP_AUTHORIZATION\"]\nset = { \"1\" = \"x\" }\n",
        );
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn the_administrator_overrides_what_is_set() {
        let document = Document::new(Path::new("/x"), "[environment]\nset = { LANG = \"C\" }\n".to_owned());
        let problems = Problems::default();
        let rules = Rules::read(&mut Reader::open(&document, SECTIONS, &problems));
        let all = set(&rules, &[("LANG", "C.UTF-8"), ("HOME", "/h")], &problems);
        assert_eq!(all, [("HOME".to_owned(), "/h".to_owned()), ("LANG".to_owned(), "C".to_owned())]);
    }
}
