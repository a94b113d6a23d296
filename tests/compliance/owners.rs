//! Owners and modes of the program and of its directory.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use crate::arguments::alice;
use crate::harness::{Call, World, mode, run};
use crate::paths::below;
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "owners and modes", prepare: |_| (), cases };

fn file(world: &World, rights: u32) -> Call<'_> {
    mode(world.alice.docroot().join("a.cgi"), rights);
    alice(world)
}

fn directory(world: &World, rights: u32) -> Call<'_> {
    let place = below(world, &["sub".as_ref()]);
    mode(&place, rights);
    // The web server must be able to go there; whether it is, is not what is asked here.
    alice(world).root(&["cwd", place.to_str().unwrap()]).cwd(".")
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for rights in [
        0o755, 0o700, 0o500, 0o555, 0o511, 0o711, 0o100, 0o101, 0o110, 0o111, 0o750, 0o751, 0o744, 0o740,
        0o704, 0o544, 0o1755, 0o1700,
    ] {
        all.push(case(format!("a file with mode {rights:o}"), "ran 0", move |w| file(w, rights)));
    }
    for rights in
        [0o777, 0o775, 0o757, 0o722, 0o720, 0o702, 0o770, 0o707, 0o666, 0o020, 0o002, 0o4777, 0o2775, 0o6757]
    {
        all.push(case(format!("a file with mode {rights:o}"), "refused 118", move |w| file(w, rights)));
    }
    for rights in [0o4755, 0o2755, 0o6755, 0o4700, 0o2700, 0o4600, 0o2644, 0o5755] {
        all.push(case(format!("a file with mode {rights:o}"), "refused 119", move |w| file(w, rights)));
    }
    for rights in [0o644, 0o600, 0o655, 0o455, 0o000, 0o444, 0o055, 0o011, 0o604, 0o1644] {
        all.push(case(format!("a file with mode {rights:o}"), "refused 121", move |w| file(w, rights)));
    }
    for rights in [0o755, 0o700, 0o555, 0o500, 0o750, 0o705, 0o1755, 0o2755, 0o4755, 0o6755, 0o544, 0o710] {
        all.push(case(format!("a directory with mode {rights:o}"), "ran 0", move |w| directory(w, rights)));
    }
    for rights in [0o775, 0o757, 0o777, 0o1777, 0o2775, 0o770, 0o707, 0o720, 0o702, 0o722] {
        all.push(case(format!("a directory with mode {rights:o}"), "refused 116", move |w| {
            directory(w, rights)
        }));
    }
    for rights in [0o300, 0o311, 0o100, 0o111] {
        all.push(
            case(format!("a directory with mode {rights:o}"), "refused 111", move |w| directory(w, rights))
                .ours("unreadable-directory", "ran 0"),
        );
    }
    for rights in [0o600, 0o400, 0o000] {
        all.push(
            case(format!("a directory with mode {rights:o}"), "refused 111", move |w| directory(w, rights))
                .ours("unsearchable", "refused 117"),
        );
    }
    all.extend(owners());
    all.extend(more());
    all
}

/// Every pair of owner and group.
fn owners() -> Vec<Case> {
    let mut all = Vec::new();
    let who = |world: &World, name: &str| match name {
        "alice" => world.alice.id,
        "bob" => world.bob.id,
        _ => 0,
    };
    for user in ["alice", "bob", "root"] {
        for group in ["alice", "bob", "root"] {
            let end = if (user, group) == ("alice", "alice") { "ran 0" } else { "refused 120" };
            all.push(case(format!("a file of {user}:{group}"), end, move |w| {
                chown(w.alice.docroot().join("a.cgi"), Some(who(w, user)), Some(who(w, group))).unwrap();
                alice(w)
            }));
            let directory = case(format!("a directory of {user}:{group}"), end, move |w| {
                let place = below(w, &["sub".as_ref()]);
                chown(&place, Some(who(w, user)), Some(who(w, group))).unwrap();
                alice(w).cwd(place)
            });
            all.push(if user == "bob" {
                directory.ours("directories-above", "refused 86")
            } else {
                directory
            });
        }
    }
    all
}

fn more() -> Vec<Case> {
    vec![
        case("a file with two links", "ran 0", |w| {
            fs::hard_link(w.alice.docroot().join("a.cgi"), "/var/www/alice/second").unwrap();
            alice(w)
        })
        .ours("hard-links", "refused 86"),
        case("a link to another site's file", "refused 120", |w| {
            let foreign = w.probe(&w.bob, "b.cgi");
            fs::hard_link(foreign, w.alice.docroot().join("b.cgi")).unwrap();
            alice(w).word(3, "b.cgi")
        }),
        case("a file with capabilities", "ran 0", |w| {
            w.order(&["capability", w.alice.docroot().join("a.cgi").to_str().unwrap()]);
            alice(w)
        })
        .ours("file-capabilities", "refused 86"),
        case("a file with an access list for another user's writing", "refused 118", |w| {
            access_list(&format!("u:{}:rwx", w.bob.id), &w.alice.docroot().join("a.cgi"));
            alice(w)
        }),
        case("a file with an access list for another user's reading", "ran 0", |w| {
            access_list(&format!("u:{}:r-x", w.bob.id), &w.alice.docroot().join("a.cgi"));
            alice(w)
        }),
        case("a directory with an access list for another user's writing", "refused 116", |w| {
            let place = below(w, &["sub".as_ref()]);
            access_list(&format!("u:{}:rwx", w.bob.id), &place);
            alice(w).cwd(place)
        }),
        case("a writable file in a writable directory", "refused 116", |w| {
            file(w, 0o777);
            mode(w.alice.docroot(), 0o777);
            alice(w)
        }),
        case("another's set-id file that all may write to", "refused 118", |w| {
            let path = w.alice.docroot().join("a.cgi");
            chown(&path, Some(w.bob.id), Some(w.bob.id)).unwrap();
            file(w, 0o4777)
        }),
        case("another's set-id file", "refused 119", |w| {
            let path = w.alice.docroot().join("a.cgi");
            chown(&path, Some(w.bob.id), Some(w.bob.id)).unwrap();
            file(w, 0o4755)
        }),
        case("another's file that cannot be executed", "refused 120", |w| {
            let path = w.alice.docroot().join("a.cgi");
            chown(&path, Some(w.bob.id), Some(w.bob.id)).unwrap();
            file(w, 0o644)
        }),
    ]
}

fn access_list(entry: &str, path: &std::path::Path) {
    let said = run(Command::new("setfacl").args(["-m", entry]).arg(path));
    assert!(
        said.status.success(),
        "setfacl: {}; install it with: sudo apt-get install acl",
        String::from_utf8_lossy(&said.stderr)
    );
}
