//! Where the caller stands: the directory, the way to it, and its name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use crate::arguments::alice;
use crate::harness::{Call, World, make_directory, mode};
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "paths", prepare: |_| (), cases };

/// Directories of alice's, one in the other, below her docroot; the program in the last one.
pub(crate) fn below(world: &World, parts: &[&OsStr]) -> PathBuf {
    let mut place = world.alice.docroot();
    for part in parts {
        place.push(part);
        make_directory(&place, world.alice.id, 0o755);
    }
    world.probe_at(&world.alice, place.join("a.cgi"));
    place
}

/// A directory of alice's anywhere, with the program in it.
fn elsewhere<'w>(world: &'w World, place: &str) -> Call<'w> {
    drop(std::fs::remove_dir_all(place));
    make_directory(place, world.alice.id, 0o755);
    world.probe_at(&world.alice, format!("{place}/a.cgi"));
    alice(world).cwd(place)
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        case("a directory below", "ran 0", |w| alice(w).cwd(below(w, &["sub".as_ref()]))),
        case("twenty directories below", "ran 0", |w| {
            let parts: Vec<&OsStr> = std::iter::repeat_n("d".as_ref(), 20).collect();
            alice(w).cwd(below(w, &parts))
        }),
        case("a directory that is gone", "refused 111", |w| {
            let gone = w.alice.docroot().join("gone");
            make_directory(&gone, w.alice.id, 0o755);
            let gone = gone.to_str().unwrap();
            alice(w).root(&["cwd", gone]).root(&["rmdir", gone]).cwd(".")
        }),
        case("a directory whose path is too long", "refused 111", |w| {
            let docroot = w.alice.docroot();
            let call = alice(w).root(&["cwd", docroot.to_str().unwrap()]);
            call.root(&["deep", &"d".repeat(200), "30"]).cwd(".")
        }),
        case("the program's directory from a deeper one", "refused 117", |w| {
            alice(w).word(3, "b.cgi").cwd(below(w, &["sub".as_ref()]))
        }),
        case("a command in a sub-directory", "ran 0", |w| {
            below(w, &["sub".as_ref()]);
            alice(w).word(3, "sub/a.cgi")
        })
        .ours("file-name", "refused 104"),
        case("a command in a sub-directory that all may write to", "ran 0", |w| {
            mode(below(w, &["sub".as_ref()]), 0o777);
            alice(w).word(3, "sub/a.cgi")
        })
        .ours("file-name", "refused 104"),
    ];
    for name in
        ["with blank", "-x", "~", "*", "$(id)", "'", "\"", "\u{e4}", "...", "htdocs", "a\nb", "\x1b[2J"]
    {
        all.push(case(format!("a directory called {name:?}"), "ran 0", move |w| {
            alice(w).cwd(below(w, &[name.as_ref()]))
        }));
    }
    all.push(case("a directory whose name is no text", "ran 0", |w| {
        alice(w).cwd(below(w, &[OsStr::from_bytes(b"\xff\xfe")]))
    }));
    all.extend(outside());
    all.extend(links());
    all.extend(above());
    all
}

fn outside() -> Vec<Case> {
    let mut all = Vec::new();
    for place in [
        "/",
        "/etc",
        "/tmp",
        "/usr/bin",
        "/proc",
        "/proc/self/fd",
        "/var",
        "/home/alice",
        "/home/alice/public_html",
        "/srv",
    ] {
        all.push(case(format!("in {place}"), "refused 114", move |w| alice(w).cwd(place)));
    }
    for place in ["/var/www-x", "/var/wwwx", "/var/ww"] {
        all.push(case(format!("in {place}, a program of the site's"), "refused 114", move |w| {
            elsewhere(w, place)
        }));
    }
    all.push(case("in /var/www", "refused 117", |w| alice(w).cwd("/var/www")).ours("site", "refused 114"));
    all.push(
        case("in the directory above the docroot", "refused 117", |w| alice(w).cwd("/var/www/alice"))
            .ours("site", "refused 114"),
    );
    for place in ["/var/www/alice/htdocs2", "/var/www/alice/htdoc", "/var/www/alice/other", "/var/www/stray"]
    {
        all.push(
            case(format!("in {place}, a program of the site's"), "ran 0", move |w| elsewhere(w, place))
                .ours("site", "refused 114"),
        );
    }
    all.push(
        case("in another site", "refused 120", |w| {
            w.probe(&w.bob, "a.cgi");
            alice(w).cwd(w.bob.docroot())
        })
        .ours("site", "refused 114"),
    );
    all.push(
        case("in another site, a program of one's own", "refused 120", |w| {
            w.probe_at(&w.alice, w.bob.docroot().join("a.cgi"));
            alice(w).cwd(w.bob.docroot())
        })
        .ours("site", "refused 114"),
    );
    all
}

/// A symbolic link on the way.
fn links() -> Vec<Case> {
    vec![
        case("through a link inside the docroot", "ran 0", |w| {
            below(w, &["releases".as_ref()]);
            symlink("releases", w.alice.docroot().join("current")).unwrap();
            alice(w).cwd(w.alice.docroot().join("current"))
        }),
        case("through a link to another site", "refused 120", |w| {
            w.probe(&w.bob, "a.cgi");
            symlink(w.bob.docroot(), w.alice.docroot().join("bob")).unwrap();
            alice(w).cwd(w.alice.docroot().join("bob"))
        })
        .ours("site", "refused 114"),
        case("through a link out of every docroot", "refused 114", |w| {
            symlink("/etc", w.alice.docroot().join("etc")).unwrap();
            alice(w).cwd(w.alice.docroot().join("etc"))
        }),
        case("through a link into the docroot", "ran 0", |w| {
            symlink(w.alice.docroot(), w.alice.home().join("www")).unwrap();
            alice(w).cwd(w.alice.home().join("www"))
        }),
        case("a command behind a link out of the docroot", "ran 0", |w| {
            make_directory(w.alice.home().join("cgi"), w.alice.id, 0o755);
            w.probe_at(&w.alice, w.alice.home().join("cgi/a.cgi"));
            symlink(w.alice.home().join("cgi"), w.alice.docroot().join("cgi")).unwrap();
            alice(w).word(3, "cgi/a.cgi")
        })
        .ours("file-name", "refused 104"),
    ]
}

/// Owners and modes of the directories above the program's.
fn above() -> Vec<Case> {
    let mut all = Vec::new();
    for rights in [0o777, 0o775, 0o757, 0o1777, 0o2775] {
        for place in ["/var/www", "/var/www/alice"] {
            all.push(
                case(format!("{place} with mode {rights:o}"), "ran 0", move |w| {
                    mode(place, rights);
                    alice(w)
                })
                .ours("directories-above", "refused 116"),
            );
        }
        all.push(
            case(format!("the docroot with mode {rights:o}, a program below"), "ran 0", move |w| {
                let place = below(w, &["sub".as_ref()]);
                mode(w.alice.docroot(), rights);
                alice(w).cwd(place)
            })
            .ours("directories-above", "refused 116"),
        );
    }
    for place in ["/var/www", "/var/www/alice"] {
        all.push(
            case(format!("{place} of another user"), "ran 0", move |w| {
                chown(place, Some(w.bob.id), Some(w.bob.id)).unwrap();
                alice(w)
            })
            .ours("directories-above", "refused 86"),
        );
        all.push(case(format!("{place} of the site's"), "ran 0", move |w| {
            chown(place, Some(w.alice.id), Some(w.alice.id)).unwrap();
            alice(w)
        }));
        all.push(case(format!("{place} of root and another group"), "ran 0", move |w| {
            chown(place, Some(0), Some(w.bob.id)).unwrap();
            alice(w)
        }));
        let end = if place == "/var/www" { "refused 113" } else { "refused 115" };
        let closed = case(format!("{place} that the site cannot search"), end, move |w| {
            let call = alice(w).root(&["cwd", w.alice.docroot().to_str().unwrap()]);
            mode(place, 0o700);
            call.cwd(".")
        });
        all.push(if place == "/var/www" { closed.ours("unsearchable", "refused 115") } else { closed });
        all.push(case(format!("{place} that the site can search and not list"), "ran 0", move |w| {
            mode(Path::new(place), 0o711);
            alice(w)
        }));
    }
    all
}
