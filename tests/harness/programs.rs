//! The programs that tests start: ours from target/dist, and the small C programs beside this directory.
//!
//! All are read into memory before the first private world is made, so a world may hide the places that they came from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;
use std::{env, fs};

/// The programs of one run.
pub(crate) struct Programs {
    /// The setuid launcher.
    pub(crate) launcher: Vec<u8>,
    /// The administrator's command.
    pub(crate) admin: Vec<u8>,
    /// The pool's daemon.
    pub(crate) daemon: Vec<u8>,
    /// tests/programs/call.c.
    pub(crate) call: Vec<u8>,
    /// tests/programs/escape.c.
    pub(crate) escape: Vec<u8>,
    /// tests/programs/probe.c.
    pub(crate) probe: Vec<u8>,
}

/// Reads and compiles once in a test binary.
pub(crate) fn programs() -> &'static Programs {
    static READY: OnceLock<Programs> = OnceLock::new();
    READY.get_or_init(|| Programs {
        launcher: fs::read(dist("cellwall-suexec")).unwrap(),
        admin: fs::read(dist("cellwall")).unwrap(),
        daemon: fs::read(dist("cellwalld")).unwrap(),
        call: compiled("call"),
        escape: compiled("escape"),
        probe: compiled("probe"),
    })
}

/// The source of a test program.
pub(crate) fn source(name: &str) -> Vec<u8> {
    fs::read(root().join("tests/programs").join(name)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program that `cargo xtask build` made, and that is not older than what it was made from.
fn dist(name: &str) -> PathBuf {
    let path = target().join("dist").join(name);
    let made = fs::metadata(&path).and_then(|facts| facts.modified()).unwrap_or_else(|why| {
        panic!("{} cannot be tested: {why}; make it with: cargo xtask build", path.display())
    });
    let (changed, file) = youngest(&root().join("src"));
    assert!(
        made >= changed,
        "{} is older than {}; make it again with: cargo xtask build",
        path.display(),
        file.display()
    );
    path
}

/// A FastCGI server for Python, which comes from PyPI.
pub(crate) fn flup() -> PathBuf {
    let place = target().join("python/flup");
    assert!(
        place.is_dir(),
        "{} is missing; cargo xtask test installs it (xtask/src/python.rs)",
        place.display()
    );
    place
}

fn target() -> PathBuf {
    // <target>/debug/deps/web-0123456789abcdef
    let this = env::current_exe().unwrap();
    this.ancestors().nth(3).unwrap().to_owned()
}

fn youngest(directory: &Path) -> (SystemTime, PathBuf) {
    let mut found = (SystemTime::UNIX_EPOCH, directory.to_owned());
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let here = if path.is_dir() {
            youngest(&path)
        } else {
            (fs::metadata(&path).unwrap().modified().unwrap(), path)
        };
        if here.0 > found.0 {
            found = here;
        }
    }
    found
}

/// Compiles tests/programs/NAME.c as a static program. The text decides its name, so two test binaries at once are safe.
fn compiled(name: &str) -> Vec<u8> {
    let text = root().join("tests/programs").join(format!("{name}.c"));
    let made = target().join(format!("{name}-{}", std::process::id()));
    let said = Command::new("cc")
        .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&made, &text])
        .output()
        .unwrap_or_else(|why| panic!("cc: {why}; install it with: sudo apt-get install gcc libc6-dev"));
    assert!(said.status.success(), "cc {}: {}", text.display(), String::from_utf8_lossy(&said.stderr));
    let bytes = fs::read(&made).unwrap();
    fs::remove_file(&made).unwrap();
    bytes
}
