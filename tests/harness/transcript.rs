//! What a page of the manual shows of a command is what the command says.

use std::path::Path;

/// Compares what was said with the block of `docs/jails.md` that begins with `# command`. Figures may differ, and words
/// that count.
pub(crate) fn as_in_the_manual(command: &str, said: &str) {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/jails.md")).unwrap();
    let shown = page.split("```\n").find_map(|block| block.strip_prefix(&format!("# {command}\n")));
    let shown = shown.unwrap_or_else(|| panic!("docs/jails.md shows no `# {command}`; it says:\n{said}"));
    assert!(
        masked(shown) == masked(said),
        "docs/jails.md shows\n{shown}\nof `{command}`, which says\n{said}"
    );
}

/// Each number is 0, a pause between columns is a blank, and what a probe found well is the host's own business.
fn masked(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let line = if line.starts_with("pass  ") { line.get(..26).unwrap_or(line) } else { line };
        let mut all = String::new();
        for word in line.replace("once,", "1 times,").split_whitespace() {
            let mut digits = false;
            for character in word.chars() {
                if !(digits && character.is_ascii_digit()) {
                    all.push(if character.is_ascii_digit() { '0' } else { character });
                }
                digits = character.is_ascii_digit();
            }
            all.push(' ');
        }
        all
    };
    text.trim_end().lines().map(line).collect()
}
