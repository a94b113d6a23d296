//! Keys of `[pool]` that would do nothing for this kind of pool: said, instead of silently taken.
//!
//! Pure. Only what stands in the site's own file is an error: a key of `[defaults]` or of a profile holds for the sites
//! where it means something.

use std::collections::BTreeMap;

use crate::pool::settings::{Accept, Kind, Listen};

use super::problem::{Place, Problems};
use super::rules::Rules;

/// What decides which keys mean something.
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) accept: Accept,
    /// It listens on an address.
    pub(super) tcp: bool,
}

impl Shape {
    pub(super) fn new(kind: Kind, accept: Accept, listen: Listen<'_>) -> Self {
        Self { kind, accept, tcp: matches!(listen, Listen::Tcp(_)) }
    }
}

/// Reports each key of `own`, the site's file, that means nothing to a pool of this shape; `rules` has all layers.
pub(super) fn check(shape: &Shape, own: &Rules, rules: &Rules, problems: &Problems) {
    let mut written: BTreeMap<String, Place> = BTreeMap::new();
    own.places(|key, _, place| {
        written.entry(key).or_insert_with(|| place.clone());
    });
    for (key, place) in &written {
        let Some(name) = key.strip_prefix("pool.") else { continue };
        if let Some((message, help)) = of_kind(name, shape, own).or_else(|| of_key(name, shape, rules)) {
            problems.error(Some(place), format!("{key} does nothing here: {message}"), help);
        }
    }
}

type Told = (&'static str, &'static str);

/// What the kind, or who accepts, makes meaningless.
fn of_kind(name: &str, shape: &Shape, own: &Rules) -> Option<Told> {
    let written = own.pool_workers.as_ref().map(|one| one.value);
    let ready = written.is_some_and(|all| all.min.is_some() || all.spare.is_some());
    let sizing = ready || written.is_some_and(|all| all.idle.is_some());
    let direct = shape.accept == Accept::Direct && shape.kind != Kind::Cgi;
    match name {
        "children" if shape.kind != Kind::Parent => Some((
            "only a pool of kind \"parent\" has children",
            "write kind = \"parent\" for a program that forks children of its own, or remove the line",
        )),
        "concurrency" if shape.kind != Kind::Fastcgi => Some((
            "only kind \"fastcgi\" has threads",
            "remove the line; the children of kind \"parent\" are counted by `children`",
        )),
        "requests" | "memory" | "start_timeout" if shape.kind == Kind::Cgi => Some((
            "a pool of kind \"cgi\" has no workers, each request is a start of its own",
            "remove the line",
        )),
        "workers" if shape.kind == Kind::Cgi && ready => Some((
            "of a pool of kind \"cgi\" only `max` and `idle` count: how many run at a time, and how long what starts them waits for work",
            "remove the others",
        )),
        "workers" if direct && sizing => Some((
            "workers that accept for themselves all run, always",
            "write max alone, or remove accept = \"direct\"",
        )),
        "concurrency" | "requests" | "memory" | "queue" | "queue_timeout" | "timeout" | "output_timeout"
        | "start_timeout" | "body_max" | "abandon" | "status" | "ping" | "ping_answer" | "access_log"
        | "access_format" | "slow_log" | "slow" | "errors_to_server" | "clients"
            if direct =>
        {
            Some((
                "workers that accept for themselves are seen by nobody",
                "remove the line, or accept = \"direct\"",
            ))
        }
        _ => None,
    }
}

/// What means nothing without another key, or beside it.
fn of_key(name: &str, shape: &Shape, rules: &Rules) -> Option<Told> {
    match name {
        "socket_group" | "clients" if shape.tcp => Some((
            "an address has no group, and whoever connects to it no credentials",
            "remove the line, or listen on a socket",
        )),
        "ping_answer" if rules.pool_ping.is_none() => {
            Some(("there is no ping page", "write ping = \"/ping\" beside it, or remove the line"))
        }
        "access_format" if rules.pool_access_log.is_none() => {
            Some(("there is no access log", "write access_log beside it, or remove the line"))
        }
        "slow_log" if rules.pool_slow.is_none() => {
            Some(("no request is slow", "write slow = \"5s\" beside it, or remove the line"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::problem::Document;
    use super::super::reader::Reader;
    use super::super::rules::{KEYS, SECTIONS};
    use super::*;

    /// Every key of `[pool]`, some value each.
    fn everything() -> Rules {
        let value = |name: &str| match name {
            "kind" => "\"fastcgi\"",
            "accept" => "\"relay\"",
            "workers" => "{ min = 1, idle = 5 }",
            "abandon" | "errors_to_server" => "true",
            "children" | "concurrency" | "requests" | "memory" | "queue" | "queue_timeout" | "timeout"
            | "output_timeout" | "cpu_timeout" | "start_timeout" | "stop_timeout" | "body_max" | "slow" => {
                "5"
            }
            _ => "\"x\"",
        };
        let keys = KEYS.iter().filter(|(section, _)| *section == "pool");
        let lines: String = keys.map(|(_, name)| format!("{name} = {}\n", value(name))).collect();
        let document = Document::new(Path::new("/x.toml"), format!("[pool]\n{lines}"));
        let problems = Problems::default();
        let mut reader = Reader::open(&document, SECTIONS, &problems);
        let rules = Rules::read(&mut reader);
        assert_eq!(problems.into_sorted(), vec![]);
        rules
    }

    fn told(shape: &Shape, rules: &Rules) -> Vec<String> {
        let problems = Problems::default();
        check(shape, &everything(), rules, &problems);
        let mut names: Vec<String> = problems
            .into_sorted()
            .iter()
            .map(|one| one.message.split(' ').next().unwrap().trim_start_matches("pool.").to_owned())
            .collect();
        names.sort();
        names
    }

    /// The keys of one row, but those that are judged elsewhere.
    fn row(begin: &str) -> Vec<String> {
        let text = include_str!("../../policy/README.md");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("| {begin} | "))).unwrap();
        let line =
            line.split("and `").next().unwrap().replace("of `workers` all but `max`, `idle`", "`workers`");
        let line = line.replace("of `workers` all but `max`", "`workers`");
        let mut names: Vec<String> = line.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        names.sort();
        names
    }

    #[test]
    fn the_manual_names_the_keys_that_do_nothing() {
        let all = everything();
        let shape = |kind, accept, tcp| Shape { kind, accept, tcp };
        for (begin, kind) in [("fastcgi", Kind::Fastcgi), ("parent", Kind::Parent), ("cgi", Kind::Cgi)] {
            let named = row(&format!("`kind = \"{begin}\"`"));
            assert_eq!(told(&shape(kind, Accept::Relay, false), &all), named, "{begin}");
        }
        let direct = told(&shape(Kind::Fastcgi, Accept::Direct, false), &all);
        let without: Vec<String> = direct.into_iter().filter(|name| name != "children").collect();
        assert_eq!(without, row("`accept = \"direct\"`"));
        let address = told(&shape(Kind::Fastcgi, Accept::Relay, true), &all);
        let without: Vec<String> = address.into_iter().filter(|name| name != "children").collect();
        assert_eq!(without, row("`listen` is an address"));
        for (begin, rules) in [
            ("no `ping`", Rules { pool_ping: None, ..all.clone() }),
            ("no `access_log`", Rules { pool_access_log: None, ..all.clone() }),
            ("no `slow`", Rules { pool_slow: None, ..all.clone() }),
        ] {
            let told = told(&shape(Kind::Fastcgi, Accept::Relay, false), &rules);
            let without: Vec<String> = told.into_iter().filter(|name| name != "children").collect();
            assert_eq!(without, row(begin));
        }
    }
}
