//! What came of one request, in words that two launchers can be compared by.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;

use crate::harness::{Call, LOG, Launcher, Outcome, World};

/// Where Debian's suEXEC writes.
const STOCK_LOG: &str = "/var/log/apache2/suexec.log";

/// Facts by name; a fact may have several values.
pub(crate) type Facts = BTreeMap<String, Vec<String>>;

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Seen {
    /// `ran 0`, `ran signal 9`, `refused 117`, `ended 0` (and no probe ran), `not called`.
    pub(crate) end: String,
    /// What the launcher told, or what the program saw.
    pub(crate) facts: Facts,
}

/// Facts that depend on the machine, or on what the caller changed: compared with those of an ordinary request.
const RELATIVE: [&str; 3] = ["cpus", "nice", "scheduler"];
/// The names of all variables, in order.
pub(crate) const ORDER: &str = "order of the environment";
/// Facts that are their own for each process, or are told by another fact; and the score for running out of memory, which
/// a program cannot see inside its cell (`tests/launch/inherited.rs` looks from outside).
const LEFT_OUT: [&str; 9] = [
    "marker",
    "session_keyring",
    "entries",
    "entry_bytes",
    "pid",
    "probe",
    "end",
    "Content-Type:",
    "oom_score",
];

/// Makes the request and looks.
pub(crate) fn look(world: &World, call: Call<'_>, ordinary: Option<&Seen>) -> Seen {
    let logged = log_size(world);
    let outcome = call.unrecorded();
    let mut facts = if has_run(&outcome) { of_program(world, &outcome) } else { of_launcher(&outcome) };
    let recorded = if log_size(world) > logged { "yes" } else { "no" };
    facts.insert("recorded".to_owned(), vec![recorded.to_owned()]);
    if let Some(ordinary) = ordinary {
        relate(&mut facts, &ordinary.facts);
    }
    Seen { end: end(&outcome), facts }
}

fn log_size(world: &World) -> u64 {
    let path = match world.launcher {
        Launcher::Stock => STOCK_LOG,
        Launcher::Cellwall => LOG,
    };
    fs::metadata(path).map_or(0, |facts| facts.len())
}

fn has_run(outcome: &Outcome) -> bool {
    outcome.out_text().lines().any(|line| line == "probe")
}

fn end(outcome: &Outcome) -> String {
    let ran = has_run(outcome) || !outcome.marks.is_empty();
    match (ran, outcome.status.code(), outcome.status.signal()) {
        (true, Some(code), _) => format!("ran {code}"),
        (true, None, signal) => format!("ran signal {}", signal.unwrap_or(0)),
        // The launcher itself, or the test's caller, could not be started.
        (false, Some(250), _) => "not called".to_owned(),
        (false, Some(0), _) => "ended 0".to_owned(),
        (false, Some(code), _) => format!("refused {code}"),
        (false, None, signal) => format!("died of signal {}", signal.unwrap_or(0)),
    }
}

/// What the probe told, without what is its own for each process.
fn of_program(world: &World, outcome: &Outcome) -> Facts {
    let mut facts = Facts::new();
    let text = outcome.out_text();
    for (name, value) in text.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))) {
        if LEFT_OUT.contains(&name) || name.trim().is_empty() {
            continue;
        }
        let value = by_name(world, value);
        if name.starts_with("timer_") && name != "timer_slack" {
            let state = if value == "0.000000" { "stands" } else { "runs" };
            facts.insert(name.to_owned(), vec![state.to_owned()]);
        } else if name == "env" {
            let (variable, value) = value.split_once('=').unwrap_or((&value, "(no value)"));
            let own = value.starts_with("/var/lib/cellwall/private/");
            let value = if own { "a directory of the site's own" } else { value };
            facts.entry(format!("${variable}")).or_default().push(value.to_owned());
            facts.entry(ORDER.to_owned()).or_default().push(variable.to_owned());
        } else {
            facts.entry(name.to_owned()).or_default().push(value);
        }
    }
    if let Some(bounding) = facts.get_mut("cap_bounding") {
        // What is in it depends on the machine.
        let empty = bounding.iter().all(|set| set.bytes().all(|digit| digit == b'0'));
        *bounding = vec![if empty { "empty" } else { "the caller's" }.to_owned()];
    }
    let pid = text.lines().find_map(|line| line.strip_prefix("pid "));
    let same = pid == Some(outcome.pid.to_string().as_str());
    facts.insert("pid".to_owned(), vec![if same { "the caller's" } else { "another" }.to_owned()]);
    let (limits, mut facts): (Facts, Facts) =
        facts.into_iter().partition(|(name, _)| name.starts_with("limit_"));
    // Soft limits: who may raise a hard one depends on the machine.
    let soft = |values: &[String]| values.concat().split(' ').next().map(str::to_owned).unwrap_or_default();
    let limits = limits.into_iter().map(|(name, values)| format!("{name} {}", soft(&values)));
    facts.insert("limits".to_owned(), limits.collect());
    facts.insert("said".to_owned(), vec![by_name(world, &outcome.err_text())]);
    facts
}

/// What the visitor and the error log of the server were told.
fn of_launcher(outcome: &Outcome) -> Facts {
    let visitor = if outcome.out.is_empty() { "nothing" } else { "a page" };
    let settings = outcome.err_text();
    let settings = settings.lines().filter_map(|line| line.strip_prefix(" -D ")?.split('=').next());
    Facts::from([
        ("visitor".to_owned(), vec![visitor.to_owned()]),
        ("settings".to_owned(), settings.map(str::to_owned).collect()),
        ("error log".to_owned(), vec![if outcome.err.is_empty() { "nothing" } else { "told" }.to_owned()]),
    ])
}

/// Each world has its own numbers: names stand for them.
fn by_name(world: &World, value: &str) -> String {
    [&world.alice, &world.bob, &world.carol].iter().fold(value.to_owned(), |text, user| {
        text.replace(&user.id.to_string(), &format!("{{{}}}", user.name))
    })
}

/// What is as in an ordinary request becomes the word for it.
fn relate(facts: &mut Facts, ordinary: &Facts) {
    for name in RELATIVE.into_iter().chain(["limits"]) {
        if let (Some(own), Some(usual)) = (facts.get_mut(name), ordinary.get(name)) {
            own.retain(|value| !usual.contains(value));
            if own.is_empty() {
                own.push("ordinary".to_owned());
            }
        }
    }
}
