//! What was judged already: the whole suite takes an hour or more, may be stopped at any time, and goes on where it was.
//!
//! A list belongs to one launcher, one suite and one kernel; when one of them changes, another list begins. What was not
//! as it must be is in no list: it is shown again until it is mended.

use std::collections::HashMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::calls::stride;
use crate::harness::programs;

/// The list of one scene; a line for each cell, and what came of it.
pub(crate) struct Done {
    known: HashMap<String, String>,
    file: Option<File>,
    /// How many cells were found in it.
    pub(crate) met: usize,
}

impl Done {
    /// As an earlier run left it. A sample has none: it takes minutes.
    pub(crate) fn of(suite: &str, scene: &str) -> Self {
        if stride() > 1 {
            return Self { known: HashMap::new(), file: None, met: 0 };
        }
        let directory = place();
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{suite} {scene}"));
        let known = read(&fs::read_to_string(&path).unwrap_or_default());
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        Self { known, file: Some(file), met: 0 }
    }

    /// What came of this cell in an earlier run.
    pub(crate) fn met(&mut self, cell: &str) -> Option<String> {
        let word = self.known.get(cell)?.clone();
        self.met += 1;
        Some(word)
    }

    /// One more, and nothing is wrong with it.
    pub(crate) fn add(&mut self, cell: &str, word: &str) {
        if let Some(file) = &mut self.file {
            file.write_all(format!("{cell}\t{word}\n").as_bytes()).unwrap();
        }
    }
}

/// A last line without its end is of a run that was killed while it wrote.
fn read(text: &str) -> HashMap<String, String> {
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    whole.filter_map(|line| line.split_once('\t')).map(|(cell, word)| (cell.into(), word.into())).collect()
}

/// `<target>/faults/`, and what the lists in it belong to.
fn place() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    programs().launcher.hash(&mut hasher);
    fs::read("/proc/version").unwrap().hash(&mut hasher);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    ["faults", "programs"].iter().for_each(|part| hash(&tests.join(part), &mut hasher));
    // <target>/debug/deps/faults-0123456789abcdef
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().join("faults");
    target.join(format!("{:016x}", hasher.finish()))
}

fn hash(directory: &Path, hasher: &mut DefaultHasher) {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() { hash(&path, hasher) } else { fs::read(&path).unwrap().hash(hasher) }
    }
}

#[test]
fn a_line_that_was_cut_is_judged_again() {
    let known = read("openat2 3 Fails(EIO)\tP04\nopenat2 4 Fails(EIO)\tP0");
    assert_eq!(known.len(), 1, "{known:?}");
    assert_eq!(known["openat2 3 Fails(EIO)"], "P04");
}
