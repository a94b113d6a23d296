//! The command line: how many words, and what the command may be called.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::harness::{CELLWALL, Call, Launcher, SUEXEC, World};
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "arguments", prepare: |_| (), cases };

pub(crate) fn alice(world: &World) -> Call<'_> {
    world.call(&world.alice, "a.cgi")
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        case("an ordinary request", "ran 0", alice),
        case("a hundred arguments", "ran 0", |w| alice(w).order(&["args", "100", "x"])),
        case("20,000 arguments", "ran 0", |w| alice(w).order(&["args", "20000", "xyz"])),
        case("an argument of 120,000 bytes", "ran 0", |w| alice(w).arg("y".repeat(120_000))),
        case("an argument that is no text", "ran 0", |w| alice(w).arg(OsStr::from_bytes(b"\xff\xfe\x01"))),
        case("a command that is no text", "ran 0", |w| {
            let name = OsStr::from_bytes(b"\xff\xfe.cgi");
            std::fs::rename(w.alice.docroot().join("a.cgi"), w.alice.docroot().join(name)).unwrap();
            w.call(&w.alice, name)
        }),
        case("no words", "refused 101", |w| alice(w).words::<&str>(&[])),
    ];
    for words in [&["x"][..], &["x", "30001"], &["x", "30001", "30001"], &["", "", ""]] {
        all.push(case(format!("the words {words:?}"), "refused 101", |w| alice(w).words(words)));
    }
    for argument in [
        "",
        "-x",
        "--",
        "-d+allow_url_include=1",
        "a b",
        "a\nb",
        "\x1b[2J",
        "$(id)",
        "`id`",
        "'",
        "\"",
        "*",
        "\\",
        "=",
        "a=b",
        "\u{e4}",
    ] {
        all.push(case(format!("the argument {argument:?}"), "ran 0", move |w| {
            alice(w).arg("1").arg(argument)
        }));
    }
    for own in ["suexec", "", "/", "x/../y", "-V"] {
        all.push(case(format!("the launcher called {own:?}"), "ran 0", move |w| alice(w).word(0, own)));
    }
    all.extend(commands());
    all.extend(settings());
    all
}

/// What no part of a request gives a meaning to.
const ODD_NAMES: [&str; 17] = [
    "with blank",
    "-x",
    "--",
    "~",
    "~1",
    "*",
    "$(id)",
    "'",
    "\u{e4}.cgi",
    "...",
    "..a",
    "a..",
    "a.cgi ",
    "A.CGI",
    "a.cgi.bak",
    "%2e",
    "a:b",
];

/// What the command is called.
fn commands() -> Vec<Case> {
    let mut all = Vec::new();
    for name in ODD_NAMES {
        all.push(case(format!("the command {name:?}"), "ran 0", move |w| {
            w.probe(&w.alice, name);
            w.call(&w.alice, name)
        }));
        all.push(case(format!("the command {name:?}, not there"), "refused 117", move |w| {
            w.call(&w.alice, name)
        }));
    }
    for name in
        ["/", "/bin/ls", "/var/www/alice/htdocs/a.cgi", "../a.cgi", "../htdocs/a.cgi", "x/../a.cgi", "../"]
    {
        all.push(case(format!("the command {name:?}"), "refused 104", move |w| w.call(&w.alice, name)));
    }
    for (name, end) in [
        (".", "refused 255"),
        ("..", "refused 120"),
        ("./a.cgi", "ran 0"),
        (".//a.cgi", "ran 0"),
        ("", "refused 117"),
        ("a.cgi/", "refused 117"),
        ("x/..", "refused 117"),
    ] {
        all.push(
            case(format!("the command {name:?}"), end, move |w| w.call(&w.alice, name))
                .ours("file-name", "refused 104"),
        );
    }
    for name in ["a\nb", "a\rb", "a\tb", "a\x1b[0m", "\x7f", "\x01"] {
        all.push(
            case(format!("the command {name:?}"), "ran 0", move |w| {
                w.probe(&w.alice, name);
                w.call(&w.alice, name)
            })
            .ours("control-bytes", "refused 104"),
        );
    }
    all.push(case("a command of 255 bytes", "ran 0", |w| {
        let name = "x".repeat(255);
        w.probe(&w.alice, &name);
        w.call(&w.alice, &name)
    }));
    for length in [256, 5000] {
        all.push(
            case(format!("a command of {length} bytes"), "refused 117", move |w| {
                w.call(&w.alice, "x".repeat(length))
            })
            .ours("file-name", "refused 104"),
        );
    }
    all
}

/// `-V`.
fn settings() -> Vec<Case> {
    fn ask<'w>(world: &'w World, words: &[&str]) -> Call<'w> {
        let own = if world.launcher == Launcher::Stock { SUEXEC } else { CELLWALL };
        let words: Vec<&str> = std::iter::once(own).chain(words.iter().copied()).collect();
        alice(world).words(&words)
    }
    vec![
        case("-V by the web server", "ended 0", |w| ask(w, &["-V"])).but(
            "settings",
            "settings",
            "",
            "AP_SUEXEC_UMASK",
        ),
        case("-V by root", "ended 0", |w| ask(w, &["-V"]).caller(0, 0, "0")).but(
            "settings",
            "settings",
            "",
            "AP_SUEXEC_UMASK",
        ),
        case("-V by another user", "refused 101", |w| ask(w, &["-V"]).caller(w.bob.id, w.bob.id, "33")),
        case("-V and more by another user", "refused 103", |w| {
            ask(w, &["-V", "1", "x"]).caller(w.bob.id, w.bob.id, "33")
        }),
        case("-V and more", "ended 0", |w| ask(w, &["-V", "x", "y"])).ours("settings-alone", "refused 105"),
        case("-V and one more", "ended 0", |w| ask(w, &["-V", "x"])).ours("settings-alone", "refused 101"),
        case("-v", "refused 101", |w| ask(w, &["-v"])),
        case("--version", "refused 101", |w| ask(w, &["--version"])),
    ]
}
