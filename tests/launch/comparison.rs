//! The same requests to Debian's suEXEC and to ours: the same status, or a difference that is listed with its reason.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{chown, symlink};

use crate::harness::{Call, Launcher, User, World, make_directory, mode, world};

/// A request, what suEXEC answers, what we answer, and why where that differs. 0: the program ran.
type Case = (&'static str, fn(&World) -> Call<'_>, i32, i32, &'static str);

fn alice(world: &World) -> Call<'_> {
    world.call(&world.alice, "a.cgi")
}

fn file<'w>(world: &'w World, name: &str, change: impl Fn(&std::path::Path, &User)) -> Call<'w> {
    change(&world.probe(&world.alice, name), &world.alice);
    world.call(&world.alice, name)
}

fn directory<'w>(world: &'w World, name: &str, owner: u32, rights: u32) -> Call<'w> {
    let place = world.alice.docroot().join(name);
    make_directory(&place, world.alice.id, 0o755);
    world.probe(&world.alice, &format!("{name}/a.cgi"));
    chown(&place, Some(owner), Some(owner)).unwrap();
    mode(&place, rights);
    world.call(&world.alice, "a.cgi").cwd(place)
}

const CASES: &[Case] = &[
    ("an ordinary request", alice, 0, 0, ""),
    ("a request with arguments", |w| alice(w).arg("-x").arg("y"), 0, 0, ""),
    (
        "leading zeros",
        |w| alice(w).word(1, format!("0{}", w.alice.id)),
        0,
        105,
        "one number has one spelling",
    ),
    ("no words", |w| alice(w).words::<&str>(&[]), 101, 101, ""),
    ("two words", |w| alice(w).words(&["x", "1"]), 101, 101, ""),
    ("caller root", |w| alice(w).caller(0, 0, ""), 103, 103, ""),
    ("caller of the right group", |w| alice(w).caller(w.bob.id, w.bob.id, "33"), 103, 103, ""),
    ("absolute command", |w| alice(w).word(3, "/bin/ls"), 104, 104, ""),
    ("command above", |w| alice(w).word(3, "../a.cgi"), 104, 104, ""),
    ("command with a step back", |w| alice(w).word(3, "x/../a.cgi"), 104, 104, ""),
    ("user by unknown name", |w| alice(w).word(1, "nobody-here"), 105, 105, ""),
    (
        "user by name",
        |w| alice(w).word(1, "alice"),
        0,
        105,
        "no name service in the set-uid program; httpd sends numbers",
    ),
    ("user with a sign", |w| alice(w).word(1, "-1"), 105, 105, ""),
    ("unknown uid", |w| alice(w).word(1, "60000"), 121, 121, ""),
    ("group by unknown name", |w| alice(w).word(2, "nobody-here"), 106, 106, ""),
    (
        "group by name",
        |w| alice(w).word(2, "alice"),
        0,
        106,
        "no name service in the set-uid program; httpd sends numbers",
    ),
    ("unknown gid", |w| alice(w).word(2, "60000"), 106, 83, "groups are the policy's: no site has this one"),
    ("uid root", |w| alice(w).word(1, "0"), 107, 107, ""),
    (
        "uid root by name",
        |w| alice(w).word(1, "root"),
        107,
        105,
        "no name service in the set-uid program; httpd sends numbers",
    ),
    ("empty user", |w| alice(w).word(1, ""), 107, 105, "suEXEC takes nothing for 0"),
    ("a system account", |w| alice(w).word(1, "33"), 107, 107, ""),
    ("gid root", |w| alice(w).word(2, "0"), 108, 108, ""),
    ("a system group", |w| alice(w).word(2, "33"), 108, 108, ""),
    (
        "wrapped uid",
        |w| alice(w).word(1, (4_294_967_296 + u64::from(w.alice.id)).to_string()),
        0,
        105,
        "suEXEC 2.4 counts modulo 2^32",
    ),
    ("outside the docroot", |w| alice(w).cwd("/etc"), 114, 114, ""),
    (
        "another site",
        |w| {
            w.probe(&w.bob, "a.cgi");
            alice(w).cwd(w.bob.docroot())
        },
        120,
        114,
        "a site's programs are in its docroot",
    ),
    ("directory writable by its group", |w| directory(w, "g", w.alice.id, 0o775), 116, 116, ""),
    ("directory writable by all", |w| directory(w, "o", w.alice.id, 0o757), 116, 116, ""),
    ("directory of root", |w| directory(w, "r", 0, 0o755), 120, 120, ""),
    (
        "directory of another user",
        |w| directory(w, "b", w.bob.id, 0o755),
        120,
        86,
        "every directory above is looked at first",
    ),
    ("no such file", |w| alice(w).word(3, "missing"), 117, 117, ""),
    (
        "a symbolic link",
        |w| {
            symlink("a.cgi", w.alice.docroot().join("link")).unwrap();
            alice(w).word(3, "link")
        },
        117,
        117,
        "",
    ),
    ("file writable by its group", |w| file(w, "f1", |path, _| mode(path, 0o775)), 118, 118, ""),
    ("file writable by all", |w| file(w, "f2", |path, _| mode(path, 0o757)), 118, 118, ""),
    ("set-uid file", |w| file(w, "f3", |path, _| mode(path, 0o4755)), 119, 119, ""),
    ("set-gid file", |w| file(w, "f4", |path, _| mode(path, 0o2755)), 119, 119, ""),
    ("file of root", |w| file(w, "f5", |path, _| chown(path, Some(0), None).unwrap()), 120, 120, ""),
    ("file of root's group", |w| file(w, "f6", |path, _| chown(path, None, Some(0)).unwrap()), 120, 120, ""),
    ("file that is not executable", |w| file(w, "f7", |path, _| mode(path, 0o644)), 121, 121, ""),
    ("file executable by others only", |w| file(w, "f8", |path, _| mode(path, 0o655)), 121, 121, ""),
    ("empty file", |w| file(w, "f9", |path, _| fs::write(path, "").unwrap()), 255, 255, ""),
    ("no interpreter line", |w| file(w, "f10", |path, _| fs::write(path, "echo\n").unwrap()), 255, 255, ""),
    (
        "a missing interpreter",
        |w| file(w, "f11", |path, _| fs::write(path, "#!/no/such\n").unwrap()),
        255,
        255,
        "",
    ),
    (
        "a directory as command",
        |w| {
            make_directory(w.alice.docroot().join("d"), w.alice.id, 0o755);
            alice(w).word(3, "d")
        },
        255,
        86,
        "said before the start is tried",
    ),
    ("a dot as command", |w| alice(w).word(3, "."), 255, 104, "no file name"),
    (
        "a command in a sub-directory",
        |w| {
            drop(directory(w, "s", w.alice.id, 0o755));
            alice(w).word(3, "s/a.cgi")
        },
        0,
        104,
        "httpd sends no slash",
    ),
    ("a newline in the name", |w| file(w, "a\nb", |_, _| ()), 0, 104, "no control bytes in names"),
    (
        "two links",
        |w| file(w, "f12", |path, _| fs::hard_link(path, "/var/www/alice/second").unwrap()),
        0,
        86,
        "hard_links = true allows it",
    ),
    (
        "a directory above writable by all",
        |w| {
            mode("/var/www/alice", 0o777);
            alice(w)
        },
        0,
        116,
        "suEXEC looks at the last directory only",
    ),
];

#[test]
fn the_same_requests_get_the_same_status_or_a_listed_difference() {
    let mut wrong = Vec::new();
    for (name, request, stock, ours, reason) in CASES {
        assert_eq!(stock == ours, reason.is_empty(), "{name}: a difference has a reason");
        for (launcher, expected) in [(Launcher::Stock, *stock), (Launcher::Cellwall, *ours)] {
            let status = std::sync::Mutex::new(String::new());
            world(launcher, |world| {
                world.probe(&world.alice, "a.cgi");
                // Whoever calls must be able to start suEXEC; that is the mode's matter, not the program's.
                let outcome = request(world).unrecorded();
                let code = outcome.status.code().map_or(-1, |code| code);
                if code != expected || outcome.marks.is_empty() != (expected != 0) {
                    *status.lock().unwrap() = format!("{name}: {launcher:?} {code}, not {expected}");
                }
            });
            wrong.push(status.into_inner().unwrap());
        }
    }
    wrong.retain(|line| !line.is_empty());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_user_directory_is_asked_for_with_a_tilde() {
    for launcher in [Launcher::Stock, Launcher::Cellwall] {
        world(launcher, |world| {
            if launcher == Launcher::Cellwall {
                world.host("[userdir]\nenabled = true\nprofile = \"static\"\njail.kind = \"host\"\nfiles.write = [\"/var/marks/{user}?\"]\n");
                world.apply();
            }
            let place = world.alice.home().join("public_html");
            world.probe_at(&world.alice, place.join("a.cgi"));
            let tilde = format!("~{}", world.alice.id);
            let inside = world.call(&world.alice, "a.cgi").word(1, &tilde).cwd(&place).unrecorded();
            assert!(inside.out_text().contains("probe"), "{launcher:?}: {}", inside.story());
            // The two kinds of request do not stand in for each other.
            let plain = world.call(&world.alice, "a.cgi").cwd(&place).unrecorded();
            assert_eq!(plain.status.code(), Some(114), "{launcher:?}: {}", plain.story());
            let crossed = world.call(&world.alice, "a.cgi").word(1, OsStr::new(&tilde)).unrecorded();
            assert_eq!(crossed.status.code(), Some(114), "{launcher:?}: {}", crossed.story());
        });
    }
}
