//! What is wrong with the administrator's files: where, what, and what to do; shown with the line itself.
//!
//! Pure. A [`Place`] keeps its whole document alive, so that line and column are counted only when one is shown.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// One file of the administrator, as it was read.
#[derive(Debug)]
pub struct Document {
    /// Where it was read from.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
    /// Where its lines begin, counted when the first is asked for: a file may hold as many mistakes as lines.
    lines: OnceLock<Vec<usize>>,
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.text) == (&other.path, &other.text)
    }
}

impl Eq for Document {}

impl Document {
    /// A document that was read from `path`.
    #[must_use]
    pub fn new(path: &Path, text: String) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), text, lines: OnceLock::new() })
    }

    fn lines(&self) -> &[usize] {
        let ends = || self.text.match_indices('\n').map(|(end, _)| end + 1);
        self.lines.get_or_init(|| std::iter::once(0).chain(ends()).collect())
    }
}

/// Some bytes of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    document: Arc<Document>,
    span: Range<usize>,
}

impl Place {
    /// The bytes `span` of `document`.
    #[must_use]
    pub fn new(document: &Arc<Document>, span: Range<usize>) -> Self {
        Self { document: Arc::clone(document), span }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.document.path
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.document.lines().partition_point(|begin| *begin <= self.span.start)
    }

    /// The column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        let before = self.document.text.get(self.begin()..self.span.start);
        before.unwrap_or_default().chars().count() + 1
    }

    fn begin(&self) -> usize {
        self.document.lines().get(self.line() - 1).copied().unwrap_or(0)
    }

    fn line_text(&self) -> &str {
        let rest = self.document.text.get(self.begin()..).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }

    /// How many characters of its line it covers, at least one.
    fn width(&self) -> usize {
        let text = self.document.text.get(self.span.clone()).unwrap_or_default();
        text.lines().next().unwrap_or_default().chars().count().max(1)
    }
}

impl Display for Place {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.path().display(), self.line())
    }
}

/// A value and the place that it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nothing is applied.
    Error,
    /// Applied, and said.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub weight: Weight,
    /// Where, when it is about something that was written.
    pub place: Option<Place>,
    /// What.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Display for Problem {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let word = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        write!(out, "{word}: {}", Printable(&self.message))?;
        if let Some(place) = &self.place {
            let (line, column) = (place.line(), place.column());
            let margin = " ".repeat(line.to_string().len());
            write!(out, "\n{margin}--> {}:{line}:{column}", Printable(&place.path().to_string_lossy()))?;
            write!(out, "\n{margin} |\n{line} | {}", Printable(place.line_text()))?;
            let indent = " ".repeat(column - 1);
            write!(out, "\n{margin} | {indent}{}", "^".repeat(place.width()))?;
        }
        match (&self.help, &self.place) {
            (Some(help), Some(_)) => write!(out, " {}", Printable(help)),
            (Some(help), None) => write!(out, "\n  help: {}", Printable(help)),
            (None, _) => Ok(()),
        }
    }
}

/// Text of a file on its way to a terminal: no control characters (a tab stays one column wide).
struct Printable<'a>(&'a str);

impl Display for Printable<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\n' => out.write_str("\n  ")?,
                '\t' => out.write_str(" ")?,
                other if other.is_control() => out.write_str("\u{fffd}")?,
                other => write!(out, "{other}")?,
            }
        }
        Ok(())
    }
}

/// A file and a byte of it.
type Offset = (PathBuf, usize);

/// Everything found so far. Finding goes on after a problem: one run shows them all.
#[derive(Debug, Default)]
pub struct Problems {
    list: RefCell<Vec<Problem>>,
    /// What was said, so that it is said once.
    said: RefCell<HashSet<(String, Option<Offset>)>>,
}

impl Problems {
    /// Something is wrong at `place`.
    pub fn error(&self, place: Option<&Place>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Weight::Error, place, message.into(), help.into());
    }

    /// Something is odd at `place`.
    pub fn warning(&self, place: Option<&Place>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Weight::Warning, place, message.into(), help.into());
    }

    fn push(&self, weight: Weight, place: Option<&Place>, message: String, help: String) {
        let help = Some(help).filter(|help| !help.is_empty());
        let at = place.map(|place| (place.path().to_owned(), place.span.start));
        if self.said.borrow_mut().insert((message.clone(), at)) {
            self.list.borrow_mut().push(Problem { weight, place: place.cloned(), message, help });
        }
    }

    /// Whether an error is among them.
    #[must_use]
    pub fn any_error(&self) -> bool {
        self.list.borrow().iter().any(|problem| problem.weight == Weight::Error)
    }

    /// How many errors are among them.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.borrow().iter().filter(|problem| problem.weight == Weight::Error).count()
    }

    /// All of them, ordered by file and line; those without a place last.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort_by_cached_key(|problem| {
            let place = problem.place.as_ref();
            (place.is_none(), place.map(|place| (place.path().to_owned(), place.span.start)))
        });
        list
    }

    /// Adds what another worker found.
    pub fn extend(&self, other: Vec<Problem>) {
        self.list.borrow_mut().extend(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_file_line_column_the_line_and_a_caret() {
        let document = Document::new(Path::new("/etc/x.toml"), "user = \"a\"\n  docrot = 1\n".to_owned());
        let problems = Problems::default();
        problems.error(
            Some(&Place::new(&document, 13..19)),
            "unknown key `docrot`",
            "did you mean `docroot`?",
        );
        let shown = problems.into_sorted().first().map(ToString::to_string).unwrap_or_default();
        assert_eq!(
            shown,
            "error: unknown key `docrot`\n --> /etc/x.toml:2:3\n  |\n2 |   docrot = 1\n  |   ^^^^^^ did you mean `docroot`?"
        );
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        let problems = Problems::default();
        problems.error(None, "bad \u{1b}[31m", "");
        let shown = problems.into_sorted().first().map(ToString::to_string).unwrap_or_default();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}
