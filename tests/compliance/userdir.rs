//! Requests for `~user`: mod_userdir's way.

use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;

use crate::arguments::alice;
use crate::harness::{Call, Launcher, World, make_directory, mode};
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "user directories", prepare, cases };

fn prepare(world: &World) {
    if world.launcher == Launcher::Cellwall {
        world.host(
            "[userdir]\nenabled = true\nprofile = \"static\"\njail.kind = \"host\"\n\
             files.write = [\"/var/marks/{user}?\"]\n",
        );
        world.apply();
    }
}

fn place(world: &World) -> PathBuf {
    world.alice.home().join("public_html")
}

/// The program in ~/public_html.
fn home(world: &World) -> Call<'_> {
    world.probe_at(&world.alice, place(world).join("a.cgi"));
    alice(world).word(1, format!("~{}", world.alice.id)).cwd(place(world))
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        case("a program in public_html", "ran 0", home),
        case("a program in public_html, with arguments", "ran 0", |w| home(w).arg("-x").arg("y")),
        case("a program below public_html", "ran 0", |w| {
            let below = place(w).join("sub");
            make_directory(&below, w.alice.id, 0o755);
            w.probe_at(&w.alice, below.join("a.cgi"));
            home(w).cwd(below)
        }),
        case("public_html without a tilde", "refused 114", |w| home(w).word(1, w.alice.id.to_string())),
        case("the docroot with a tilde", "refused 114", |w| home(w).cwd(w.alice.docroot())),
        case("the home itself", "refused 114", |w| home(w).cwd(w.alice.home())),
        case("another user's public_html", "refused 114", |w| {
            w.probe_at(&w.bob, w.bob.home().join("public_html/a.cgi"));
            home(w).cwd(w.bob.home().join("public_html"))
        }),
        case("another user's public_html for that user", "ran 0", |w| {
            w.probe_at(&w.bob, w.bob.home().join("public_html/a.cgi"));
            w.call(&w.bob, "a.cgi").word(1, format!("~{}", w.bob.id)).cwd(w.bob.home().join("public_html"))
        })
        .but("account-variables", "$HOME", "", "/home/bob")
        .but("account-variables", "$LOGNAME", "", "bob")
        .but("account-variables", "$USER", "", "bob"),
        case("a directory whose name only begins so", "refused 114", |w| {
            let twin = w.alice.home().join("public_html2");
            make_directory(&twin, w.alice.id, 0o755);
            w.probe_at(&w.alice, twin.join("a.cgi"));
            home(w).cwd(twin)
        }),
        case("a missing program", "refused 117", |w| home(w).word(3, "missing")),
    ];
    all.extend(words());
    all.extend(homes());
    all
}

/// How the user is written.
fn words() -> Vec<Case> {
    vec![
        case("two tildes", "refused 105", |w| home(w).word(1, format!("~~{}", w.alice.id))),
        case("a tilde and a name", "ran 0", |w| home(w).word(1, "~alice")).ours("numbers", "refused 105"),
        case("a tilde and an unknown name", "refused 105", |w| home(w).word(1, "~nobody-here")),
        case("a tilde and an unknown number", "refused 121", |w| home(w).word(1, "~60000")),
        case("a tilde and root", "refused 107", |w| home(w).word(1, "~0")),
        case("a tilde for the group", "refused 106", |w| home(w).word(2, format!("~{}", w.alice.id))),
    ]
}

/// What the home and its directory are.
fn homes() -> Vec<Case> {
    let mut all = vec![
        case("a home of another user's", "ran 0", |w| {
            let call = home(w);
            chown(w.alice.home(), Some(w.bob.id), None).unwrap();
            call
        })
        .ours("directories-above", "refused 86"),
        case("a home of root's", "ran 0", |w| {
            let call = home(w);
            chown(w.alice.home(), Some(0), Some(0)).unwrap();
            call
        }),
        case("no public_html", "refused 112", |w| {
            let call = home(w).cwd(w.alice.home());
            std::fs::remove_dir_all(place(w)).unwrap();
            call
        })
        .ours("userdir-missing", "refused 114"),
        case("public_html that is a link to elsewhere in the home", "ran 0", |w| {
            std::fs::remove_dir_all(place(w)).unwrap();
            make_directory(w.alice.home().join("www"), w.alice.id, 0o755);
            symlink("www", place(w)).unwrap();
            home(w)
        })
        .ours("userdir-link", "refused 114"),
        case("public_html that is a link to the root", "refused 117", |w| {
            std::fs::remove_dir_all(place(w)).unwrap();
            symlink("/", place(w)).unwrap();
            alice(w).word(1, format!("~{}", w.alice.id)).cwd("/")
        })
        .ours("userdir-link", "refused 114"),
    ];
    for rights in [0o777, 0o775, 0o1777] {
        all.push(
            case(format!("a home with mode {rights:o}"), "ran 0", move |w| {
                let call = home(w);
                mode(w.alice.home(), rights);
                call
            })
            .ours("directories-above", "refused 116"),
        );
        all.push(case(format!("public_html with mode {rights:o}"), "refused 116", move |w| {
            let call = home(w);
            mode(place(w), rights);
            call
        }));
    }
    for rights in [0o711, 0o750, 0o700] {
        all.push(case(format!("a home with mode {rights:o}"), "ran 0", move |w| {
            let call = home(w).root(&["cwd", place(w).to_str().unwrap()]).cwd(".");
            mode(w.alice.home(), rights);
            call
        }));
    }
    all
}
