//! What the commands print: answers to stdout, everything else to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one file of the commands that prints")]

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::problem::{Problem, Weight};

use super::json::Json;
use super::trouble;

/// An answer.
pub fn out(line: impl std::fmt::Display) {
    ANSWERED.store(true, Ordering::Relaxed);
    kept(writeln!(std::io::stdout(), "{line}"));
}

/// Remembers that an answer could not be written. A closed pipe (`cellwall policy shop | head`) is no reason to complain.
fn kept(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        note(format_args!("error: the answer could not be written: {error}"));
    }
}

/// Part of the answer could not be written, which was said.
#[must_use]
pub fn lost() -> bool {
    kept(std::io::stdout().flush());
    LOST.load(Ordering::Relaxed)
}

static LOST: AtomicBool = AtomicBool::new(false);

/// Something was answered.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Something to know. What it has of a foreign file steers no terminal.
pub fn note(line: impl std::fmt::Display) {
    // In one piece: stderr has no buffer, and a problem is written letter by letter.
    let line = printable(&line.to_string()) + "\n";
    drop(std::io::stderr().write_all(line.as_bytes()));
    keep(line);
}

/// Something to know that was said otherwise.
pub fn keep(line: String) {
    if let Ok(mut kept) = KEPT.lock()
        && kept.len() < MOST_KEPT
    {
        kept.push(line);
    }
}

/// What was to know so far, for `unanswered`.
static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Most of it: a command that watches may tell a line for each denial.
const MOST_KEPT: usize = 100;

/// A program that asked for JSON and got no answer gets what kept the command from one.
pub fn unanswered(status: u8, words: &[String]) {
    if !ANSWERED.load(Ordering::Relaxed) {
        let notes = KEPT.lock().map(|kept| kept.clone()).unwrap_or_default();
        out(trouble::object(status, &notes, words));
    }
}

/// Without control characters but the ends of lines and tabs.
fn printable(text: &str) -> String {
    let plain = |one: &char| !one.is_control() || matches!(one, '\n' | '\t');
    text.chars().map(|one| if plain(&one) { one } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Most problems that are printed for people.
const SHOWN: usize = 100;

/// Problems, then how many there are.
pub fn problems(problems: &[Problem]) {
    // Errors first when there are many: a page of warnings must not hide one.
    let many = problems.len() > SHOWN;
    let shown = problems.iter().filter(|problem| !many || problem.weight == Weight::Error);
    for problem in
        shown.chain(problems.iter().filter(|problem| many && problem.weight == Weight::Warning)).take(SHOWN)
    {
        note(format_args!("{problem}\n"));
    }
    if many {
        note(format_args!("and {} more: --json prints them all\n", problems.len() - SHOWN));
    }
    let errors = problems.iter().filter(|problem| problem.weight == Weight::Error).count();
    let warnings = problems.len() - errors;
    if !problems.is_empty() {
        note(format_args!("{}, {}", counted(errors, "error"), counted(warnings, "warning")));
    }
}

/// `1 site`, `2 sites`.
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Problems for programs.
#[must_use]
pub fn problems_json(problems: &[Problem]) -> Json {
    let one = |problem: &Problem| {
        let place = problem.place.as_ref();
        Json::object([
            ("weight", Json::text(if problem.weight == Weight::Error { "error" } else { "warning" })),
            ("file", place.map_or(Json::Null, |place| Json::text(place.path().to_string_lossy()))),
            ("line", place.map_or(Json::Null, |place| Json::count(place.line()))),
            ("column", place.map_or(Json::Null, |place| Json::count(place.column()))),
            ("message", Json::text(&problem.message)),
            ("help", problem.help.as_ref().map_or(Json::Null, Json::text)),
        ])
    };
    Json::List(problems.iter().map(one).collect())
}

/// Draws a bar on a terminal's stderr while `work` counts up to `total`; nothing for what is quick.
pub fn with_progress<T>(what: &str, total: usize, done: &AtomicUsize, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bar = scope.spawn(|| draw(what, total, done, &ended));
        let result = work();
        ended.store(true, Ordering::Release);
        bar.thread().unpark();
        result
    })
}

fn draw(what: &str, total: usize, done: &AtomicUsize, ended: &AtomicBool) {
    const WIDTH: usize = 40;
    let start = Instant::now();
    let mut drawn = false;
    while !ended.load(Ordering::Acquire) {
        std::thread::park_timeout(Duration::from_millis(100));
        if start.elapsed() < Duration::from_millis(500) {
            continue;
        }
        let count = done.load(Ordering::Relaxed).min(total);
        let full = count * WIDTH / total.max(1);
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
        drop(write!(std::io::stderr(), "\r{what} [{bar}] {count}/{total}"));
        drawn = true;
    }
    if drawn {
        drop(write!(std::io::stderr(), "\r\u{1b}[K"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_steers_no_terminal() {
        assert_eq!(
            printable("a\n\tb \u{1b}]0;x\u{7}\r\u{9b}2J ü"),
            "a\n\tb \u{fffd}]0;x\u{fffd}\u{fffd}\u{fffd}2J ü"
        );
    }
}
