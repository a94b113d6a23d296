//! The files of php-fpm: its sections and directives with their places, as php-fpm takes them together.
//!
//! `php-fpm -tt` tells the same, and cuts what is longer than a line of its log: a list of `disable_functions`, say.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Stop, expanded, missing};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// `pm.max_children`, `php_value`.
    pub(super) key: String,
    /// What stands in brackets behind it.
    pub(super) name: String,
    /// As written, without the pool's name in it.
    pub(super) raw: String,
    /// File and line.
    pub(super) place: String,
}

/// One section. The last of several lines with one key counts.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) name: String,
    /// File and line.
    pub(super) place: String,
    pub(super) file: PathBuf,
    lines: Vec<Directive>,
}

impl Pool {
    pub(super) fn directives(&self) -> impl Iterator<Item = &Directive> {
        self.lines.iter()
    }

    /// The value of a key that has no brackets; none where it is empty, as php-fpm has it.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.lines.iter().find(|one| one.key == key).map(Directive::text).filter(|text| !text.is_empty())
    }
}

impl Directive {
    /// The value.
    pub(super) fn text(&self) -> String {
        text(&self.raw)
    }
}

/// Pure: a value as php.ini's reader has it, but for expressions and variables of its environment.
pub(super) fn text(raw: &str) -> String {
    let raw = raw.trim();
    if let Some(quote) = raw.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        return quoted(raw.get(1..).unwrap_or_default(), quote);
    }
    let plain = raw.split(';').next().unwrap_or_default().trim();
    match plain.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" => "1".to_owned(),
        "off" | "no" | "false" | "none" | "null" => String::new(),
        _ => plain.to_owned(),
    }
}

impl std::fmt::Display for Directive {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.place, self.key)?;
        if !self.name.is_empty() {
            write!(out, "[{}]", self.name.trim_end_matches(']'))?;
        }
        write!(out, " = {}", self.raw)
    }
}

/// All sections of a main file, or of a pool's, with what it includes: `[global]` and the pools.
pub(super) fn read(main: &Path) -> Result<(Pool, Vec<Pool>), Stop> {
    let mut all = vec![Pool { name: "global".to_owned(), ..Pool::default() }];
    let mut at = 0;
    file(main, &mut all, &mut at, DEEPEST)?;
    let global = all.remove(0);
    Ok((global, all))
}

fn file(path: &Path, all: &mut Vec<Pool>, at: &mut usize, deep: u32) -> Result<(), Stop> {
    let failed = |why: &dyn std::fmt::Display| Stop::from(format!("{}: {why}", path.display()));
    let deep = deep.checked_sub(1).ok_or_else(|| failed(&"it includes itself"))?;
    let help =
        || "ls /etc/php/*/fpm/pool.d/*.conf /etc/php-fpm.d/*.conf # where php-fpm's files are".to_owned();
    let text = fs::read(path).map_err(|error| missing(path, &error, help))?;
    for (number, line) in (1_u32..).zip(String::from_utf8_lossy(&text).lines()) {
        let (line, place) = (line.trim(), format!("{}:{number}", path.display()));
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let known = all.iter().position(|pool| pool.name == name);
            *at = known.unwrap_or(all.len());
            if known.is_none() {
                all.push(Pool { name: name.to_owned(), place, file: path.to_owned(), ..Pool::default() });
            }
            continue;
        }
        let Some((key, raw)) = line.split_once('=') else {
            return Err(failed(&format_args!("line {number} is no directive: {line}")));
        };
        let (key, name) = key.trim().split_once('[').unwrap_or((key.trim(), ""));
        let pool = all.get_mut(*at).ok_or("no section")?;
        let raw = raw.trim().replace("$pool", &pool.name);
        let name = if name == "]" { name } else { name.trim_end_matches(']') }.to_owned();
        let one = Directive { key: key.trim().to_owned(), name, raw, place };
        if one.key == "include" {
            for path in expanded(Path::new(&one.text())) {
                file(&path, all, at, deep)?;
            }
        } else {
            // The value in `access.suppress_path[]` is one of a list.
            pool.lines.retain(|known| (&known.key, &known.name) != (&one.key, &one.name) || one.name == "]");
            pool.lines.push(one);
        }
    }
    Ok(())
}

/// `\` before the quote or another `\` inside `"`; nothing is special inside `'`.
fn quoted(rest: &str, quote: char) -> String {
    let (mut out, mut letters) = (String::new(), rest.chars().peekable());
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied();
        match letter {
            _ if letter == quote => break,
            '\\' if quote == '"' && matches!(next, Some('"' | '\\')) => out.extend(letters.next()),
            _ => out.push(letter),
        }
    }
    out
}

/// Files that include one another.
const DEEPEST: u32 = 8;

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_what_php_fpm_takes_for_values() {
        for (raw, text) in [
            ("/a b ; c", "/a b"),
            ("\"a;b \\\"c\\\" \\d\" ; e", "a;b \"c\" \\d"),
            ("'a\\b'", "a\\b"),
            ("Yes", "1"),
            ("off", ""),
            ("", ""),
        ] {
            assert_eq!(super::text(raw), text, "{raw}");
        }
    }
}
