//! Reads docs/differences.md: each difference has a section `## identifier: reason`, which begins with its kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What a difference may be.
const KINDS: [&str; 3] = ["A stricter rule.", "A fixed defect.", "An addition."];

/// Identifier and reason.
pub(crate) fn listed() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/differences.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut all = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once("\n\n").unwrap_or((section, ""));
        let (name, reason) = heading
            .split_once(": ")
            .unwrap_or_else(|| panic!("docs/differences.md: `## {heading}` is no `## identifier: reason`"));
        assert!(
            KINDS.iter().any(|kind| body.starts_with(kind)),
            "docs/differences.md: {name} begins with none of {KINDS:?}"
        );
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "docs/differences.md: `{name}` is no short identifier"
        );
        let twice = all.insert(name.to_owned(), reason.to_owned());
        assert!(twice.is_none(), "docs/differences.md: {name} stands twice");
    }
    all
}
