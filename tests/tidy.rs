//! Rules of the house that a machine can keep. Each failure names the file and what to do.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests do"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cellwall::policy;

/// Files of ours with one of these endings, relative to the repository; no build results.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), "target" | ".git" | "artifacts") {
                walk(&path, found);
            } else if path.is_file() {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.retain(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
    found.sort();
    assert!(!found.is_empty(), "no file ends with {endings:?}");
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn empty(wrong: &[String], rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

#[test]
fn the_first_line_of_a_source_file_says_what_it_is() {
    let wrong: Vec<String> = files(&[".rs"])
        .into_iter()
        .filter(|path| {
            !text(path).lines().next().is_some_and(|line| line.len() > 12 && line.starts_with("//! "))
        })
        .map(|path| path.display().to_string())
        .collect();
    empty(&wrong, "the first line must be `//! ` and what the file is");
}

#[test]
fn the_setuid_program_never_mentions_the_administrators_code() {
    let below =
        ["src/sys", "src/launch", "src/policy", "src/refusal", "src/record", "src/bin/cellwall-suexec"];
    let mut wrong = Vec::new();
    for path in files(&[".rs"]).into_iter().filter(|path| below.iter().any(|part| beneath(path, part))) {
        for (number, line) in text(&path).lines().enumerate().filter(|(_, line)| !is_comment(line)) {
            for above in ["config", "admin", "pool"] {
                if line.contains(&format!("crate::{above}")) || line.contains(&format!("cellwall::{above}")) {
                    wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    empty(
        &wrong,
        "sys, launch, policy, refusal and record are the setuid program; config, admin and pool stay out",
    );
}

fn beneath(path: &Path, part: &str) -> bool {
    path.starts_with(part) || path.with_extension("") == Path::new(part)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    let word = concat!("un", "safe");
    let mut wrong = Vec::new();
    for path in
        files(&[".rs"]).into_iter().filter(|path| path.starts_with("src") && !path.starts_with("src/sys"))
    {
        for (number, line) in text(&path).lines().enumerate().filter(|(_, line)| !is_comment(line)) {
            let spoken = ["{", "fn ", "impl ", "extern "].map(|next| format!("{word} {next}"));
            if spoken.iter().any(|form| line.contains(form)) || line.contains(&format!("allow({word}_code")) {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    empty(&wrong, "a system call gets its wrapper in src/sys");
}

#[test]
fn a_child_that_was_forked_leaves_by_itself() {
    let end = concat!("process::", "exit(");
    let here = |path: &Path| {
        let lines = text(path).lines().map(str::to_owned).collect::<Vec<_>>();
        lines.iter().any(|line| !is_comment(line) && line.contains(end))
    };
    let wrong: Vec<String> = files(&[".rs"])
        .into_iter()
        // The launcher never forks, and begins without std.
        .filter(|path| path.starts_with("src") && !path.ends_with("sys/start.rs") && here(path))
        .map(|path| path.display().to_string())
        .collect();
    empty(
        &wrong,
        "std's way to the end waits for locks of threads that a child has not: sys::fork::leave, or return from main",
    );
}

#[test]
fn the_launcher_links_four_crates_and_what_they_need() {
    let allowed = "bitflags caps cellwall cfg-if cfg_aliases enumflags2 enumflags2_derive landlock libc memoffset nix \
                   proc-macro2 quote syn thiserror thiserror-impl unicode-ident";
    let allowed: BTreeSet<&str> = allowed.split_whitespace().collect();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["tree", "--offline", "--package", "cellwall", "--no-default-features", "--edges", "normal"];
    let output = Command::new(cargo)
        .args(words)
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(linked.contains("landlock"), "cargo tree shows nothing of use:\n{tree}");
    let more: Vec<String> = linked.difference(&allowed).map(|name| (*name).to_owned()).collect();
    empty(&more, "the setuid program would link these too");
}

/// The names in backticks in the table of crates are those of `cargo tree`, without what runs while compiling only.
#[test]
fn the_page_for_auditors_names_each_crate_of_the_launcher() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["tree", "--offline", "--package", "cellwall", "--no-default-features", "--prefix", "none"];
    let mut tree = Command::new(cargo);
    tree.args(words).args(["--edges", "normal,no-proc-macro", "--format", "{p}"]).current_dir(root());
    let tree = String::from_utf8(tree.output().unwrap().stdout).unwrap();
    let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(linked.contains("landlock"), "cargo tree shows nothing of use:\n{tree}");
    let page = text("docs/audit.md");
    let table = page.split("\n## Crates\n").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let named = rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        assert!(cells.len() == 5 && cells[2].trim().len() > 10, "a crate without a reason: {row}");
        let names = [cells[1], cells[3]].map(|cell| cell.split('`').skip(1).step_by(2).collect::<Vec<_>>());
        names.concat()
    });
    let named: BTreeSet<&str> = named.chain(["cellwall"]).collect();
    assert_eq!(linked, named, "docs/audit.md, the table of crates");
}

/// The source files of the setuid program; what is compiled for the administrator's command only is left out.
fn files_of_the_launcher() -> Vec<PathBuf> {
    let parts =
        ["src/sys", "src/launch", "src/policy", "src/refusal", "src/record", "src/bin/cellwall-suexec"];
    let mut files = files(&[".rs"]);
    files.retain(|path| parts.iter().any(|part| beneath(path, part)) && !path.ends_with("tests.rs"));
    files.retain(|path| !BESIDE_THE_LAUNCHER.iter().any(|other| path == Path::new(other)));
    files.push(PathBuf::from("src/lib.rs"));
    files
}

/// In its directories, and not in it.
const BESIDE_THE_LAUNCHER: [&str; 7] = [
    "src/launch/beside.rs",
    "src/launch/settled.rs",
    "src/policy/encode.rs",
    "src/sys/descriptors.rs",
    "src/sys/filter.rs",
    "src/sys/fork.rs",
    "src/sys/schedule.rs",
];

/// Each is compiled with a feature only, so the launcher has none of it; and whoever audits is told so.
#[test]
fn what_lies_beside_the_launcher_is_not_in_it_and_the_page_for_auditors_says_so() {
    let (page, mut wrong) = (text("docs/audit.md"), Vec::new());
    for file in BESIDE_THE_LAUNCHER.map(Path::new) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let parent = text(file.with_file_name("mod.rs"));
        let lines: Vec<&str> = parent.lines().collect();
        let gated = lines.windows(2).any(|two| {
            let module = two[1].strip_prefix("pub ").unwrap_or(two[1]);
            two[0].starts_with("#[cfg(feature = ") && module == format!("mod {name};")
        });
        if !gated || !page.contains(&format!("`{}`", file.display())) {
            wrong.push(file.display().to_string());
        }
    }
    empty(&wrong, "each is declared behind a feature, and named in docs/audit.md");
}

/// Lines of code: no blank lines, comments and tests.
fn code(path: &Path) -> Vec<String> {
    let text = text(path);
    let code = text.lines().take_while(|line| *line != "#[cfg(test)]");
    code.filter(|line| !line.trim().is_empty() && !is_comment(line)).map(str::to_owned).collect()
}

#[test]
fn the_launcher_stays_readable_in_an_afternoon() {
    const MOST: usize = 4000;
    let lines: usize = files_of_the_launcher().iter().map(|path| code(path).len()).sum();
    assert!(lines > 500, "only {lines} lines were found: this test looks in the wrong place");
    assert!(lines <= MOST, "{lines} lines of code in the setuid program; at most {MOST}");
}

/// `docs/audit.md` has a row `| file | lines | unsafe blocks | … |` for each file of the setuid program. Blocks are
/// counted exactly, lines may be off by a fifth: the page is to be true, not to be edited with each line of code.
#[test]
fn the_page_for_auditors_lists_each_file_of_the_launcher() {
    let page = text("docs/audit.md");
    let rows: BTreeMap<String, (usize, usize)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `src/")?.split('|').map(str::trim);
            let file = format!("src/{}", cells.next()?.trim_end_matches('`'));
            Some((file, (cells.next()?.parse().ok()?, cells.next()?.parse().ok()?)))
        })
        .collect();
    let (mut wrong, mut sum) = (Vec::new(), (0, 0));
    let block = concat!("un", "safe {");
    for path in files_of_the_launcher() {
        let code = code(&path);
        let (lines, blocks) = (code.len(), code.iter().filter(|line| line.contains(block)).count());
        sum = (sum.0 + lines, sum.1 + blocks);
        let file = path.display().to_string();
        let good = rows
            .get(&file)
            .is_some_and(|row| row.1 == blocks && row.0.abs_diff(lines) <= (lines / 5).max(10));
        if !good {
            wrong.push(format!("| `{file}` | {lines} | {blocks} | what it is |"));
        }
    }
    let gone = rows.keys().filter(|file| !root().join(file).is_file());
    wrong.extend(gone.map(|file| format!("{file} is not there any more")));
    if !page.contains(&format!("**{} unsafe blocks**", sum.1)) {
        wrong.push(format!("the sum: **{} unsafe blocks**, {} lines of code", sum.1, sum.0));
    }
    empty(&wrong, "docs/audit.md should have these rows");
}

#[test]
fn each_refusal_code_has_one_section_in_the_manual() {
    let mut codes: BTreeSet<String> = BTreeSet::new();
    for path in files(&[".rs"]).into_iter().filter(|path| path.starts_with("src")) {
        let text = text(&path);
        codes.extend(
            text.split("code: \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
        );
    }
    let manual = fs::read_to_string(root().join("docs/refusals.md")).unwrap_or_default();
    let mut sections: BTreeMap<String, usize> = BTreeMap::new();
    for heading in manual.lines().filter_map(|line| line.strip_prefix("## ")) {
        let first = heading.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if is_code(first) {
            *sections.entry(first.to_owned()).or_default() += 1;
        }
    }
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(
        codes.iter().filter(|code| !is_code(code)).map(|code| format!("{code}: a letter and digits")),
    );
    wrong.extend(
        codes.iter().filter(|code| !sections.contains_key(*code)).map(|code| format!("{code}: no section")),
    );
    wrong.extend(
        sections.keys().filter(|code| !codes.contains(*code)).map(|code| format!("{code}: not in src")),
    );
    wrong.extend(sections.iter().filter(|(_, count)| **count > 1).map(|(code, _)| format!("{code}: twice")));
    empty(&wrong, "docs/refusals.md has one section `## CODE` for each code in src");
}

fn is_code(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase())
        && word.len() >= 3
        && letters.all(|letter| letter.is_ascii_digit())
}

/// The manifest: path → (owner, group, mode, kind).
fn manifest() -> BTreeMap<String, (String, String, u32, String)> {
    let text = text("packaging/manifest");
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let mode = u32::from_str_radix(words[3], 8).unwrap();
            (words[0].to_owned(), (words[1].to_owned(), words[2].to_owned(), mode, words[4].to_owned()))
        })
        .collect()
}

#[test]
fn one_installed_program_is_set_id_and_nothing_else_is_writable_by_others() {
    let manifest = manifest();
    let launcher = ("root".to_owned(), "www-data".to_owned(), 0o4750, "program".to_owned());
    assert_eq!(manifest.get("/usr/lib/cellwall/cellwall-suexec"), Some(&launcher));
    for (path, (owner, _, mode, _)) in &manifest {
        assert_eq!(owner, "root", "{path}");
        assert_eq!(mode & 0o022, 0, "{path}: mode {mode:04o}");
        assert!(mode & 0o7000 == 0 || path.ends_with("/cellwall-suexec"), "{path}: mode {mode:04o}");
    }
}

#[test]
fn installed_modes_are_those_that_the_code_makes() {
    let manifest = manifest();
    let store = text("src/config/store.rs");
    let known = [
        ("\"/var/lib/cellwall\"", "/var/lib/cellwall"),
        ("DIRECTORY", policy::DIRECTORY),
        ("PRIVATE_DIRECTORY", policy::PRIVATE_DIRECTORY),
        ("VIEW_ROOT", policy::VIEW_ROOT),
    ];
    for (name, path) in known {
        let rest = store.split(&format!("            ({name}, 0o")).nth(1);
        let digits = rest.and_then(|rest| rest.split(')').next());
        let digits = digits.unwrap_or_else(|| panic!("src/config/store.rs makes no {name}"));
        let made = u32::from_str_radix(digits, 8).unwrap();
        let listed = manifest.get(path).unwrap_or_else(|| panic!("packaging/manifest has no {path}"));
        assert_eq!(made, listed.2, "{path}: code makes {made:04o}, the manifest says {:04o}", listed.2);
    }
    let sockets = manifest.get(cellwall::pool::settings::SOCKETS).unwrap();
    assert!(text("src/pool/listen.rs").contains(&format!("(SOCKETS, 0, 0o{:o})", sockets.2)));
    let line = format!("d {} 0{:o} root root -\n", cellwall::pool::settings::SOCKETS, sockets.2);
    assert!(
        text("packaging/tmpfiles/cellwall.conf").contains(&line),
        "packaging/tmpfiles/cellwall.conf: {line}"
    );
    assert_eq!(values("cellwalld@.socket", "DirectoryMode"), [format!("0{:o}", sockets.2)]);
    assert!(manifest.contains_key(policy::VIEW_DIRECTORY));
    assert!(manifest.contains_key(cellwall::config::HOST_FILE));
    assert!(manifest.contains_key(cellwall::config::SITES_DIRECTORY));
}

#[test]
fn all_that_the_manifest_names_is_in_the_repository() {
    let text = text("packaging/manifest");
    let rows =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect());
    let rows: Vec<Vec<&str>> = rows.collect();
    let sources = rows.iter().filter(|words| matches!(words.get(4), Some(&("file" | "config" | "tree"))));
    let missing: Vec<String> =
        sources.map(|words| words[5].to_owned()).filter(|source| !root().join(source).exists()).collect();
    empty(&missing, "packaging/manifest names these files, and they are not there");
}

/// The values that a unit has for a key.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = text(format!("packaging/systemd/{unit}"));
    let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

#[test]
fn the_daemons_unit_lets_requests_finish_as_the_manual_promises() {
    // control-group would end workers and the broker at the daemon's own first signal.
    assert_eq!(values("cellwalld.service", "KillMode"), ["mixed"]);
    assert!(text("docs/man/cellwalld.8").contains("let requests finish for 20 seconds"));
    let [patience] = &values("cellwalld.service", "TimeoutStopSec")[..] else { panic!("no TimeoutStopSec") };
    let seconds: u32 = patience.strip_suffix('s').unwrap().parse().unwrap();
    assert!(seconds > 30, "{seconds} s: the daemon needs 20, and time to end workers");
}

/// Directories are shown as they are, and change with the host; a single file is the one that was there when the view was made.
#[test]
fn the_path_unit_watches_each_file_that_a_piece_shows() {
    let directories = "alternatives crypto-policies fonts ghostscript gnutls my.cnf.d mysql perl php.d pki/tls/certs \
                       postgresql-common";
    let directories: BTreeSet<String> = directories.split(' ').map(|name| format!("/etc/{name}")).collect();
    let accounts = values("cellwall-views.path", "PathChanged");
    assert_eq!(accounts, ["/etc/passwd", "/etc/group"], "every other file is watched by a unit of its own");
    assert_eq!(values("cellwall-views@.path", "PathChanged"), ["%f"]);
    // systemd.unit(5): a path as an instance has - for / and \\x2d for -.
    let instance = |unit: String| {
        let name = unit.strip_prefix("cellwall-views@")?.strip_suffix(".path")?;
        Some(format!("/{}", name.replace('-', "/").replace("\\x2d", "-")))
    };
    let watched = values("cellwall-views.path", "Wants").into_iter().filter_map(instance);
    let watched: BTreeSet<String> = watched.chain(accounts).collect();
    let pieces = files(&[".toml"]).into_iter().filter(|path| path.starts_with("policy/pieces"));
    let texts: Vec<String> = pieces.map(text).collect();
    let shown = texts.iter().flat_map(|text| text.split('"').skip(1).step_by(2));
    let shown = shown.map(|path| path.trim_end_matches('?').to_owned());
    let shown: BTreeSet<String> = shown
        .filter(|path| path.starts_with("/etc/") && !path.contains(['*', '|']) && !path.contains("cellwall"))
        .collect();
    assert!(shown.len() > 20, "{shown:?}");
    let missing: Vec<String> =
        shown.difference(&directories).filter(|path| !watched.contains(*path)).cloned().collect();
    empty(&missing, "packaging/systemd/cellwall-views.path should watch these; or they are directories");
    // A path unit hears nothing while what it has started runs: that is done at once.
    for unit in ["cellwall-views.path", "cellwall-views@.path"] {
        assert_eq!(values(unit, "Unit"), ["cellwall-views-again.service"], "{unit}");
    }
    let again = ["/usr/bin/systemctl --no-block restart cellwall-views.service"];
    assert_eq!(values("cellwall-views-again.service", "ExecStart"), again);
    for unit in ["cellwall-views.service", "cellwall-views-again.service"] {
        assert_eq!(values(unit, "StartLimitIntervalSec"), ["0"], "{unit}");
    }
}

#[test]
fn each_program_has_a_manual_page_and_each_command_is_in_it() {
    let programs: Vec<String> =
        manifest().into_iter().filter(|(_, entry)| entry.3 == "program").map(|e| e.0).collect();
    assert_eq!(programs.len(), 3);
    for program in programs {
        let name = Path::new(&program).file_name().unwrap().to_string_lossy().into_owned();
        let page = text(format!("docs/man/{name}.8"));
        assert!(page.contains("\n.SH SYNOPSIS\n"), "docs/man/{name}.8 has no SYNOPSIS");
        assert!(
            manifest().contains_key(&format!("/usr/share/man/man8/{name}.8")),
            "{name}.8 is not installed"
        );
    }
    let page = text("docs/man/cellwall.8");
    let source = text("src/admin/mod.rs");
    let commands = source.split("enum Command {").nth(1).unwrap().split("\n}").next().unwrap();
    let variants =
        commands.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let names: Vec<String> =
        variants.filter_map(|line| line.split(['(', ',', ' ']).next()).map(str::to_lowercase).collect();
    assert!(names.contains(&"apply".to_owned()), "no commands were found in src/admin/mod.rs: {names:?}");
    let missing: Vec<String> =
        names.into_iter().filter(|name| !page.contains(&format!("\n.SS {name}"))).collect();
    empty(&missing, "docs/man/cellwall.8 needs a section (.SS) for each of these commands");
}

/// The page has each section, and each key that stands in none; what a section's keys mean is in policy/README.md.
#[test]
fn the_page_of_the_configuration_names_each_section_and_each_key_outside_of_one() {
    let (page, keys) = (text("docs/man/cellwall.toml.5"), text("policy/README.md"));
    let rows = keys.split("\n## Pieces").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next()).filter(|name| !name.contains(['/', ' ']));
    let names: BTreeSet<&str> = names.map(|name| name.split('.').next().unwrap()).collect();
    assert!(names.len() > 20, "{names:?}");
    let words: BTreeSet<&str> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing: Vec<String> =
        names.iter().filter(|name| !words.contains(*name)).map(|name| (*name).to_owned()).collect();
    empty(&missing, "docs/man/cellwall.toml.5 says nothing of these");
    assert!(!text("SECURITY.md").contains("unsafe blocks,"), "the figures are those of docs/audit.md");
}

#[test]
fn the_changelog_has_a_place_for_what_is_new() {
    let changelog = text("CHANGELOG.md");
    assert!(changelog.contains("\n## Unreleased\n"), "CHANGELOG.md: no `## Unreleased`");
}

#[test]
fn no_machine_and_no_registry_is_named() {
    let hosts = ["index.crates", "static.crates", "registry.npmjs", "pypi", "deb.debian", "proxy.golang"];
    let hosts = hosts.map(|host| format!("{host}."));
    let home = concat!("/wo", "rk/");
    let mut wrong = Vec::new();
    for path in files(&[".rs", ".md", ".toml", ".sh", "/run", ".8", ".5", ".service", ".conf", "manifest"]) {
        let text = fs::read(root().join(&path)).unwrap();
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let machine = line.split(home).next().filter(|before| before.len() < line.len());
            let machine =
                machine.is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '}'));
            if machine || hosts.iter().any(|host| line.contains(host)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    empty(&wrong, "paths of one machine, and hosts of registries, do not belong here");
}

/// One row of `tests/attacks/rows.txt`.
struct Row {
    id: String,
    place: String,
}

impl Row {
    /// `arg_01` for ARG-01.
    fn prefix(&self) -> String {
        self.id.to_lowercase().replace('-', "_")
    }
}

fn rows() -> Vec<Row> {
    let text = text("tests/attacks/rows.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        assert!(
            cells.len() == 4 && ["C", "H", "M"].contains(&cells[1]),
            "not `row | severity | where | what`: {line}"
        );
        Row { id: cells[0].to_owned(), place: cells[2].to_owned() }
    });
    rows.collect()
}

/// The names of all tests by file.
fn tests_by_file() -> Vec<(PathBuf, Vec<String>)> {
    let names = |path: &PathBuf| {
        let text = text(path);
        let after = text.split("#[test]").skip(1);
        after.filter_map(|rest| Some(rest.split("fn ").nth(1)?.split('(').next()?.to_owned())).collect()
    };
    files(&[".rs"])
        .into_iter()
        .filter(|path| path.starts_with("tests") || path.starts_with("src"))
        .map(|path| (path.clone(), names(&path)))
        .collect()
}

/// The rows that a test's name begins with: `arg_01_02_…` is ARG-01 and ARG-02.
fn rows_of(name: &str) -> Vec<String> {
    let mut words = name.split('_');
    let group = words.next().unwrap_or_default().to_uppercase();
    let number = |word: &&str| word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_digit());
    words.take_while(number).map(|number| format!("{group}-{number}")).collect()
}

#[test]
fn each_row_of_the_catalogue_is_tested_or_says_why_not() {
    let (rows, tests) = (rows(), tests_by_file());
    let mut wrong = Vec::new();
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    for row in &rows {
        let (group, number) = row.id.split_once('-').unwrap_or_default();
        let before = last.insert(group.to_owned(), number.parse().unwrap_or(0)).unwrap_or(0);
        if number.parse() != Ok(before + 1) {
            wrong.push(format!("{}: rows of a group are counted without a gap", row.id));
        }
        let is_tested = |beneath: &str, name: Option<&str>| {
            tests
                .iter()
                .filter(|(path, _)| path.starts_with(beneath))
                .flat_map(|(_, names)| names)
                .any(|test| name.map_or_else(|| rows_of(test).contains(&row.id), |name| test == name))
        };
        let good = match row.place.split_once("::") {
            _ if row.place.starts_with("not: ") => row.place.len() > 30,
            _ if row.place.starts_with("planned: ") => true,
            Some((file, name)) => is_tested(file, Some(name)),
            None => is_tested(if row.place == "attacks" { "tests/attacks" } else { &row.place }, None),
        };
        if !good {
            wrong.push(format!("{}: no test {}… in {}", row.id, row.prefix(), row.place));
        }
    }
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let attacks = tests.iter().filter(|(path, _)| path.starts_with("tests/attacks"));
    for (path, name) in attacks.flat_map(|(path, names)| names.iter().map(move |name| (path, name))) {
        for id in rows_of(name).into_iter().filter(|id| !known.contains(id.as_str())) {
            wrong.push(format!("{}: {name}: there is no row {id}", path.display()));
        }
    }
    empty(&wrong, "tests/attacks/rows.txt");
}

#[test]
fn the_threat_model_names_rows_that_exist_and_the_figures_are_counted() {
    let rows = rows();
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let page = text("docs/threat-model.md");
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let groups: BTreeSet<&str> = rows.iter().filter_map(|row| row.id.split('-').next()).collect();
    let named: BTreeSet<&str> =
        words.filter(|word| word.split_once('-').is_some_and(|(group, _)| groups.contains(group))).collect();
    assert!(named.len() > 50, "{named:?}");
    let mut wrong: Vec<String> =
        named.difference(&known).map(|id| format!("docs/threat-model.md: there is no row {id}")).collect();
    let count = |start: &str| rows.iter().filter(|row| row.place.starts_with(start)).count();
    let (not, planned) = (count("not: "), count("planned: "));
    let figures =
        format!("{} rows, {} tested, {not} not, {planned} planned", rows.len(), rows.len() - not - planned);
    if !text("SECURITY.md").contains(&figures) {
        wrong.push(format!("SECURITY.md should say: {figures}"));
    }
    empty(&wrong, "what the documents say of the catalogue");
}

/// The last cell of a row of `docs/cves.md` names tests: `file::name`, or a name alone.
#[test]
fn each_hole_of_others_has_a_test_that_exists() {
    let tests: BTreeSet<String> = tests_by_file().into_iter().flat_map(|(_, names)| names).collect();
    let page = text("docs/cves.md");
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in page.lines().filter(|line| line.starts_with("| CVE-")) {
        count += 1;
        let last = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("no test: {line}"));
        }
        wrong.extend(
            named.iter().filter(|name| !tests.contains(**name)).map(|name| format!("no such test: {name}")),
        );
    }
    assert!(count > 20, "{count} rows were found");
    empty(&wrong, "docs/cves.md");
}

/// The rows of the table under a heading of the second level, without its head: what stands between the bars.
fn table<'t>(page: &'t str, heading: &str) -> Vec<Vec<&'t str>> {
    let part = page.split("\n## ").find(|part| part.starts_with(heading)).unwrap_or_default();
    let rows = part.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|line| line.split('|').map(str::trim).collect()).collect()
}

/// The mistakes of pools: what tests/pool/mistakes.rs makes.
#[test]
fn the_page_of_mistakes_lists_what_is_made_of_pools() {
    let (page, made) = (text("docs/mistakes.md"), text("tests/pool/mistakes.rs"));
    let rows = table(&page, "Pools");
    for row in &rows {
        let made: Vec<&str> = made.split(&format!("\"{}\"", row[2])).collect();
        let cause = format!("\"{}\"", row[3].trim_matches('`'));
        assert!(
            made.len() == 2 && made[1].trim_start_matches([',', ' ', '\n']).starts_with(&cause),
            "{}",
            row[2]
        );
    }
    assert_eq!(rows.len(), made.matches("mistake(\"").count());
    let figure = format!("{0} of {0} are named and mended by pasting.", rows.len());
    assert!(page.contains(&figure), "docs/mistakes.md should say: {figure}");
}

/// `docs/mistakes.md` lists what tests/web/classic.rs makes, all of it and nothing else, with the cause that is named.
#[test]
fn the_page_of_mistakes_lists_what_is_made() {
    let (page, made) = (text("docs/mistakes.md"), text("tests/web/classic.rs"));
    let rows = table(&page, "Programs");
    assert!(rows.len() >= 30, "{} rows", rows.len());
    let launcher = "a launcher that cannot become root";
    for row in rows.iter().filter(|row| !row[2].starts_with(launcher)) {
        let quoted = format!("\"{}\"", row[2]);
        assert!(made.contains(&quoted), "no test makes: {}", row[2]);
        assert!(made.contains(&format!("\"{}\"", row[4].trim_matches('`'))), "{}: {}", row[2], row[4]);
    }
    let count = made.matches("before(\"").count()
        + made.matches("after(\"").count()
        + made.matches("name: \"").count();
    let listed = rows.iter().filter(|row| !row[2].starts_with(launcher)).count();
    assert_eq!(listed, count, "docs/mistakes.md lists {listed} of {count} mistakes");
    assert!(made.contains("fn a_launcher_that_cannot_become_root_is_named_and_mended"));
    let by_hand = rows.iter().filter(|row| row[5] == "by hand").count();
    assert_eq!(by_hand, made.matches("mended: false").count());
    let mended = rows.iter().filter(|row| row[5] == "yes").count();
    let figure = format!("{0} of {0} are named, {mended} are mended by pasting.", rows.len());
    assert!(page.contains(&figure), "docs/mistakes.md should say: {figure}");
}

/// The mistakes of all kinds by their number in `docs/mistakes.md`, and whether what is pasted mends them.
fn numbered(page: &str) -> BTreeMap<&str, bool> {
    let mut all: BTreeMap<&str, bool> = BTreeMap::new();
    all.extend(table(page, "Programs").iter().map(|row| (row[1], row[5] == "yes")));
    all.extend(["Pools", "Chroots"].iter().flat_map(|kind| table(page, kind)).map(|row| (row[1], true)));
    all
}

/// The pains and the breaks of jails: each row names mistakes and tests that are there, its last cell follows from them, and
/// the sum is told.
#[test]
fn each_pain_is_made_or_cannot_occur_or_says_why_not() {
    let page = text("docs/mistakes.md");
    let tests: BTreeSet<String> = tests_by_file().into_iter().flat_map(|(_, names)| names).collect();
    let (made, mut wrong) = (numbered(&page), Vec::new());
    for (heading, count) in [("The thirty pains", 30), ("Where jails break", 24)] {
        let rows = table(&page, heading);
        assert_eq!(rows.len(), count, "{heading}");
        for row in &rows {
            let named = row[3].split('`').skip(1).step_by(2);
            wrong.extend(
                named.filter(|name| !tests.contains(*name)).map(|name| format!("no such test: {name}")),
            );
            let words = row[3].split('`').step_by(2).flat_map(str::split_whitespace);
            let mended: Vec<Option<&bool>> = words.map(|word| made.get(word)).collect();
            let right = match row[4] {
                "mended" => !mended.is_empty() && mended.iter().all(|known| *known == Some(&true)),
                "named" => mended.iter().all(Option::is_some) && mended.contains(&Some(&false)),
                "cannot occur" | "told" => mended.is_empty() && row[3].contains('`'),
                "not here" => mended.iter().all(Option::is_none) && row[3].len() > 30,
                _ => false,
            };
            if !right {
                wrong.push(format!("{heading} {}: {:?} does not follow from {}", row[1], row[4], row[3]));
            }
        }
        let count = |here: &str| rows.iter().filter(|row| row[4] == here).count();
        let figure = format!(
            "Of the {}: {} are named, {} of them mended; {} cannot occur; {} told, {} not here.",
            rows.len(),
            count("named") + count("mended"),
            count("mended"),
            count("cannot occur"),
            count("told"),
            count("not here")
        );
        println!("{heading}: {figure}");
        if !page.contains(&figure) {
            wrong.push(format!("docs/mistakes.md should say: {figure}"));
        }
    }
    empty(&wrong, "docs/mistakes.md");
}

/// Words that are a site's name are completed by the function in `sites`, which stands before what is run.
fn in_zsh(made: &str, sites: &str) -> String {
    let asks = |line: &str| {
        let place = line.trim_start_matches(['\'', ':', '*']);
        ["site -- ", "sites -- ", "what -- A uid", "()--last=", "--site="]
            .iter()
            .any(|start| place.starts_with(start))
    };
    let named = |line: &str| {
        if asks(line) { line.replace(":_default'", ":_cellwall_sites'") } else { line.to_owned() }
    };
    let lines: String = made.lines().map(|line| named(line) + "\n").collect();
    lines.replacen("\nif [ \"$funcstack", &format!("{sites}\nif [ \"$funcstack"), 1)
}

/// They are made of the command line itself, and names of sites are added.
#[test]
fn the_shells_complete_what_the_command_takes() {
    use clap::CommandFactory as _;
    use clap_complete::{Generator, Shell, generate};
    fn made(shell: impl Generator) -> String {
        let mut out = Vec::new();
        generate(shell, &mut cellwall::admin::Cli::command(), "cellwall", &mut out);
        String::from_utf8(out).unwrap()
    }
    let sites = |file: &str| text(format!("packaging/completion/sites.{file}"));
    let wanted = [
        ("cellwall.bash", made(Shell::Bash) + &sites("bash")),
        ("_cellwall", in_zsh(&made(Shell::Zsh), &sites("zsh"))),
        ("cellwall.fish", made(Shell::Fish) + &sites("fish")),
    ];
    let fresh = root().join("target/completion");
    std::fs::create_dir_all(&fresh).unwrap();
    for (name, made) in &wanted {
        std::fs::write(fresh.join(name), made).unwrap();
    }
    for (name, made) in &wanted {
        let there =
            std::fs::read_to_string(root().join("packaging/completion").join(name)).unwrap_or_default();
        assert!(
            there == *made,
            "packaging/completion/{name} is old: cp {}/* packaging/completion/",
            fresh.display()
        );
    }
}

#[test]
fn each_code_is_mended_by_pasting_or_says_what_a_person_decides() {
    let page = text("docs/mistakes.md");
    let tests = tests_by_file();
    let known = |name: &str| tests.iter().any(|(_, names)| names.iter().any(|other| other == name));
    let manual = text("docs/refusals.md");
    let codes: Vec<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("## ")?.split(' ').next())
        .filter(|word| is_code(word))
        .collect();
    let rows = table(&page, "Every code");
    let mut wrong = Vec::new();
    let mut pasted = 0;
    for row in &rows {
        let [_, code, test, person, _] = row.as_slice() else { panic!("{row:?}") };
        let name = test.trim_matches('`');
        pasted += usize::from(!name.is_empty());
        if name.is_empty() == person.is_empty() {
            wrong.push(format!("{code}: one of the two"));
        } else if !name.is_empty() && !known(name) {
            wrong.push(format!("{code}: there is no test {name}"));
        }
    }
    let named: Vec<&str> = rows.iter().map(|row| row[1].trim_matches('`')).collect();
    wrong.extend(codes.iter().filter(|code| !named.contains(code)).map(|code| format!("{code} is missing")));
    empty(&wrong, "a refusal is mended by what is printed, or a person decides");
    assert_eq!(named.len(), codes.len());
    assert!(page.contains(&format!("\n{pasted} of {} are mended by pasting.\n", codes.len())), "{pasted}");
}

/// Root pastes what stands behind `repair`: it is a command, or it begins with `#` and a shell does nothing.
#[test]
fn what_is_pasted_of_each_code_is_a_command_or_a_comment() {
    let sources: Vec<String> = files(&[".rs"])
        .into_iter()
        .filter(|path| ["src/launch", "src/pool", "src/record.rs"].iter().any(|part| path.starts_with(part)))
        .map(text)
        .collect();
    let constants: BTreeMap<&str, String> =
        sources.iter().flat_map(|text| text.split("const ").skip(1)).filter_map(constant).collect();
    let resolved = |value: &str| match value.strip_prefix('"') {
        Some(_) => literal(value),
        None => constants.get(value.split(|c: char| !c.is_ascii_uppercase() && c != '_').next()?).cloned(),
    };
    let (mut wrong, mut told) = (Vec::new(), BTreeSet::new());
    for card in sources.iter().flat_map(|text| text.split("code: \"").skip(1)) {
        let (code, rest) = card.split_once('"').unwrap();
        let remedy = rest.split_once("remedy: ").and_then(|(_, value)| resolved(value));
        let Some(remedy) = remedy else { panic!("{code} has no remedy that this test can read") };
        told.insert(code);
        wrong.extend(no_paste(&remedy).map(|why| format!("{code}: {why}: {remedy}")));
    }
    // What a refusal has in the place of its card's.
    for value in sources.iter().flat_map(|text| text.split("fix: ").skip(1)) {
        let Some(remedy) = resolved(value) else { continue };
        wrong.extend(no_paste(&remedy).map(|why| format!("{why}: {remedy}")));
    }
    let manual = text("docs/refusals.md");
    let codes = manual.lines().filter_map(|line| line.strip_prefix("## ")?.split(' ').next());
    wrong.extend(
        codes.filter(|code| is_code(code) && !told.contains(code)).map(|code| format!("{code}: none")),
    );
    empty(&wrong, "a remedy works when it is pasted, or is a comment");
}

/// `NAME: &str = "…"`.
fn constant(text: &str) -> Option<(&str, String)> {
    let (name, rest) = text.split_once(": &str =")?;
    Some((name, literal(rest.trim_start())?))
}

/// The text of a string of Rust's that `source` begins with.
fn literal(source: &str) -> Option<String> {
    let (mut found, mut rest) = (String::new(), source.strip_prefix('"')?.chars());
    loop {
        match rest.next()? {
            '"' => return Some(found),
            '\\' => match rest.next()? {
                '\n' => rest = rest.as_str().trim_start().chars(),
                'n' => found.push('\n'),
                other => found.push(other),
            },
            other => found.push(other),
        }
    }
}

/// Why this had better not be pasted.
fn no_paste(remedy: &str) -> Option<String> {
    let text = remedy.replace("{}", "/srv/x");
    let read = Command::new("sh").args(["-n", "-c", &text]).output().unwrap();
    if !read.status.success() || text.contains('\n') {
        return Some(format!("no shell reads it: {}", String::from_utf8_lossy(&read.stderr)));
    }
    if text.starts_with('#') {
        return None;
    }
    let command = text.split_once(" #").map_or(text.as_str(), |(command, _)| command);
    let command = ["&&", "||", "$("].iter().fold(command.to_owned(), |text, word| text.replace(word, ";"));
    let mut parts = command.split([';', '|']).map(str::trim);
    let first = |part: &str| part.split(' ').next().unwrap_or_default().to_owned();
    let stranger = |part: &&str| !COMMANDS.contains(&first(part).as_str());
    parts
        .find(stranger)
        .map(|part| format!("`{}` is none of the commands that a remedy may have", first(part)))
}

/// Of these programs, and of no other, remedies are made: `make`, `install` or `write` are words of prose as well.
const COMMANDS: [&str; 15] = [
    "cellwall",
    "chmod",
    "chown",
    "df",
    "file",
    "findmnt",
    "getent",
    "grep",
    "ls",
    "mount",
    "sed",
    "setpriv",
    "ss",
    "systemctl",
    "uname",
];
