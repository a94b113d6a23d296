//! What is wrong with the administrator's files: where, what, and what to do; shown with the line itself.
//!
//! Pure. A [`Place`] keeps its whole document alive, so that line and column are counted only when one is shown. What one
//! costs does not grow with the document: it may hold as many mistakes as bytes, and all of them in one line.

use std::cell::{Cell, RefCell};
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
    /// Where its lines begin, counted when the first is asked for.
    lines: OnceLock<Vec<usize>>,
    /// How many characters are before each block, counted then as well.
    blocks: OnceLock<Vec<usize>>,
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
        Arc::new(Self { path: path.to_owned(), text, lines: OnceLock::new(), blocks: OnceLock::new() })
    }

    fn lines(&self) -> &[usize] {
        let ends = || self.text.match_indices('\n').map(|(end, _)| end + 1);
        self.lines.get_or_init(|| std::iter::once(0).chain(ends()).collect())
    }

    /// How many characters begin before a byte.
    fn characters_before(&self, byte: usize) -> usize {
        let count = || {
            let counts = self.text.as_bytes().chunks(BLOCK).map(characters);
            let sums = counts.scan(0, |sum, count| Some(std::mem::replace(sum, *sum + count)));
            sums.collect()
        };
        let block = byte / BLOCK;
        let before = self.blocks.get_or_init(count).get(block).copied().unwrap_or(0);
        before + characters(self.text.as_bytes().get(block * BLOCK..byte).unwrap_or_default())
    }

    /// The nearest end of a character at or before a byte.
    fn boundary(&self, byte: usize) -> usize {
        (0..=byte).rev().find(|byte| self.text.is_char_boundary(*byte)).unwrap_or(0)
    }
}

/// How many characters begin in these bytes (RFC 3629: all bytes of a character but the first are `10xxxxxx`).
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
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
        let before = |byte| self.document.characters_before(byte);
        before(self.span.start) - before(self.whole_line().start) + 1
    }

    fn whole_line(&self) -> Range<usize> {
        let (lines, number) = (self.document.lines(), self.line());
        let begin = lines.get(number - 1).copied().unwrap_or(0);
        let end = lines.get(number).map_or(self.document.text.len(), |next| next - 1);
        begin..end.max(begin)
    }

    /// So much of its line as is shown, and where in it the place begins and ends.
    fn excerpt(&self) -> Excerpt<'_> {
        let line = self.whole_line();
        let (start, end) = (self.span.start.min(line.end), self.span.end.min(line.end));
        let mut shown = line.clone();
        if line.len() > SHOWN {
            shown.start = self.document.boundary(line.start.max(start.saturating_sub(BEFORE)));
            shown.end = self.document.boundary(line.end.min(shown.start + SHOWN));
        }
        let part = |range: Range<usize>| self.document.text.get(range).unwrap_or_default();
        Excerpt {
            before: part(shown.start..start),
            text: part(shown.clone()).trim_end_matches('\r'),
            covered: part(start..end.min(shown.end)),
            cut: (shown.start > line.start, shown.end < line.end),
        }
    }
}

/// Part of a line.
struct Excerpt<'a> {
    before: &'a str,
    text: &'a str,
    covered: &'a str,
    /// More of the line is before it, and after it.
    cut: (bool, bool),
}

impl Excerpt<'_> {
    /// The line, and the line that points at it; the margin before both is `margin` blanks wide.
    fn write(&self, out: &mut Formatter<'_>, line: usize, margin: &str) -> fmt::Result {
        let dots = |cut| if cut { DOTS } else { "" };
        let (before, after) = (dots(self.cut.0), dots(self.cut.1));
        let indent = before.len() + self.before.chars().count();
        write!(out, "\n{margin} |\n{line} | {before}{}{after}", Printable(self.text))?;
        let carets = "^".repeat(self.covered.chars().count().max(1));
        write!(out, "\n{margin} | {}{carets}", " ".repeat(indent))
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
            place.excerpt().write(out, line, &margin)?;
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
    /// How many errors are among them: asked before and after each site.
    errors: Cell<usize>,
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
            self.errors.set(self.errors.get() + usize::from(weight == Weight::Error));
            self.list.borrow_mut().push(Problem { weight, place: place.cloned(), message, help });
        }
    }

    /// Whether an error is among them.
    #[must_use]
    pub fn any_error(&self) -> bool {
        self.errors() > 0
    }

    /// How many errors are among them.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors.get()
    }

    /// All of them, ordered by file and line; those without a place last. Each once: workers that compile beside each other
    /// find the same ones in what all sites share.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        let mut said = HashSet::new();
        list.retain(|problem| {
            let at = problem.place.as_ref().map(|place| (place.path().to_owned(), place.span.start));
            said.insert((problem.message.clone(), at))
        });
        list.sort_by_cached_key(|problem| {
            let place = problem.place.as_ref();
            (place.is_none(), place.map(|place| (place.path().to_owned(), place.span.start)))
        });
        list
    }

    /// Adds what another worker found.
    pub fn extend(&self, other: Vec<Problem>) {
        let errors = other.iter().filter(|problem| problem.weight == Weight::Error).count();
        self.errors.set(self.errors.get() + errors);
        self.list.borrow_mut().extend(other);
    }
}

/// Bytes; a column is counted from the beginning of one of these.
const BLOCK: usize = 4096;
/// Bytes of a line that are shown at most, of a longer one those around the place.
const SHOWN: usize = 160;
/// Bytes of a longer one that are shown before the place.
const BEFORE: usize = 40;
/// For what is not shown.
const DOTS: &str = "...";

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
    fn of_a_long_line_the_part_around_the_mistake_is_shown() {
        let text = format!("# é\nx = [{}7, {}]\r\n", "é, ".repeat(9_000), "8, ".repeat(9_000));
        let seven = text.find('7').unwrap();
        let document = Document::new(Path::new("/etc/x.toml"), text);
        let problem = |span| Problem {
            weight: Weight::Error,
            place: Some(Place::new(&document, span)),
            message: "no".to_owned(),
            help: Some("yes".to_owned()),
        };
        let shown = problem(seven..seven + 1).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], format!(" --> /etc/x.toml:2:{}", 5 + 3 * 9_000 + 1));
        assert!(lines[3].starts_with("2 | ...") && lines[3].ends_with("..."), "{shown}");
        assert!(lines.iter().all(|line| line.len() < 300), "{shown}");
        let column = lines[3].chars().position(|letter| letter == '7').unwrap();
        assert_eq!(lines[4].chars().position(|letter| letter == '^'), Some(column), "{shown}");
        assert!(lines[4].ends_with("^ yes"), "{shown}");
        // All of the line, from its first byte to its last.
        let whole = problem(5..document.text.len()).to_string();
        assert!(whole.lines().all(|line| line.len() < 300), "{whole}");
    }

    #[test]
    fn places_at_the_ends_of_a_file_have_a_line_and_a_column() {
        for (text, span, place) in [
            ("", 0..0, "1:1"),
            ("a\n", 2..2, "2:1"),
            ("a\r\nb", 1..2, "1:2"),
            ("aé", 3..3, "1:3"),
            ("a", 0..9, "1:1"),
        ] {
            let document = Document::new(Path::new("/x"), text.to_owned());
            let place_of = Place::new(&document, span);
            assert_eq!(format!("{}:{}", place_of.line(), place_of.column()), place, "{text:?}");
            let problem = Problem {
                weight: Weight::Warning,
                place: Some(place_of),
                message: String::new(),
                help: None,
            };
            assert!(problem.to_string().ends_with('^'), "{problem}");
        }
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        let problems = Problems::default();
        problems.error(None, "bad \u{1b}[31m", "");
        let shown = problems.into_sorted().first().map(ToString::to_string).unwrap_or_default();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}
