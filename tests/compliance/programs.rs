//! What the program is: a compiled one, a script, or something else.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::arguments::alice;
use crate::harness::{Call, World, make_directory, mode, put};
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "programs", prepare, cases };

fn prepare(world: &World) {
    world.sites(&crate::harness::everything("host"));
}

fn script<'w>(world: &'w World, text: impl AsRef<[u8]>) -> Call<'w> {
    world.script(&world.alice, "b.cgi", text);
    alice(world).word(3, "b.cgi")
}

/// The sites have the profile `php` among others.
fn of_php(case: Case) -> Case {
    case.but("profile-variables", "$PHP_INI_SCAN_DIR", "", ":/usr/share/cellwall/php")
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, text) in [
        ("of a shell", "#!/bin/sh\nexec ./a.cgi \"$@\"\n"),
        ("of a shell with an option", "#!/bin/sh -e\nexec ./a.cgi \"$@\"\n"),
        ("with a blank before its interpreter", "#! /bin/sh\nexec ./a.cgi \"$@\"\n"),
        ("with tabs around its interpreter", "#!\t/bin/sh\t\nexec ./a.cgi \"$@\"\n"),
        ("found by env", "#!/usr/bin/env sh\nexec ./a.cgi \"$@\"\n"),
        ("of Perl", "#!/usr/bin/perl\nexec './a.cgi', @ARGV;\n"),
        ("of Python", "#!/usr/bin/python3\nimport os, sys\nos.execv('./a.cgi', ['a.cgi'] + sys.argv[1:])\n"),
    ] {
        let script =
            case(format!("a script {name}"), "ran 0", move |w| script(w, text).arg("one").arg("two words"));
        all.push(of_php(script));
    }
    for (name, text) in [
        ("that is empty", &b""[..]),
        ("of text", b"echo hello\n"),
        ("that names a missing interpreter", b"#!/no/such\n"),
        ("with a line ending of Windows", b"#!/bin/sh\r\necho\n"),
        ("that names no interpreter", b"#!\n"),
        ("of blanks behind its mark", b"#!   \n"),
        ("that names a directory", b"#!/usr/bin\n"),
        ("that names a file without x", b"#!/etc/passwd\n"),
        ("of PHP without a line", b"<?php echo 1;\n"),
        ("compiled for another class", b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0"),
        ("cut short", b"\x7fELF"),
        ("with a byte order mark", b"\xef\xbb\xbf#!/bin/sh\necho\n"),
    ] {
        all.push(case(format!("a file {name}"), "refused 255", move |w| script(w, text)));
    }
    all.push(case("a file that names a relative interpreter", "refused 255", |w| script(w, "#!sh\necho\n")));
    all.push(
        case("a script whose interpreter is itself", "refused 255", |w| {
            script(w, "#!/var/www/alice/htdocs/b.cgi\n")
        })
        .ours("interpreter", "refused 86"),
    );
    all.push(
        case("a file whose interpreter's name has a zero byte", "ended 0", |w| {
            script(w, "#!/bin/sh\0x\necho\n")
        })
        .ours("zero-byte", "refused 255"),
    );
    all.extend(kinds());
    all.extend(interpreters());
    all
}

/// What is no regular file.
fn kinds() -> Vec<Case> {
    fn special(world: &World, make: impl Fn(&std::path::Path)) -> Call<'_> {
        let path = world.alice.docroot().join("b.cgi");
        make(&path);
        chown(&path, Some(world.alice.id), Some(world.alice.id)).unwrap();
        mode(&path, 0o755);
        alice(world).word(3, "b.cgi")
    }
    fn link<'w>(world: &'w World, target: &str) -> Call<'w> {
        symlink(target, world.alice.docroot().join("b.cgi")).unwrap();
        alice(world).word(3, "b.cgi")
    }
    let mut all = vec![
        case("a directory", "refused 255", |w| special(w, |path| make_directory(path, 0, 0o755))),
        case("a pipe", "refused 255", |w| special(w, |path| mkfifo(path, Mode::S_IRWXU).unwrap())),
        case("a socket", "refused 255", |w| special(w, |path| drop(UnixListener::bind(path).unwrap()))),
        case("a device", "refused 255", |w| {
            special(w, |path| mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap())
        }),
        case("a disk", "refused 255", |w| {
            special(w, |path| mknod(path, SFlag::S_IFBLK, Mode::S_IRWXU, makedev(1, 0)).unwrap())
        }),
    ];
    all = all.into_iter().map(|case| case.ours("regular-file", "refused 86")).collect();
    for target in ["a.cgi", "/bin/ls", "nowhere", "b.cgi", "../htdocs/a.cgi"] {
        all.push(case(format!("a link to {target}"), "refused 117", move |w| link(w, target)));
    }
    all
}

/// Who may change the interpreter.
fn interpreters() -> Vec<Case> {
    fn with(world: &World, owner: u32, rights: u32) -> Call<'_> {
        drop(fs::remove_file("/usr/bin/cellwall-test-sh"));
        put("/usr/bin/cellwall-test-sh", &fs::read("/bin/sh").unwrap(), owner, rights);
        script(world, "#!/usr/bin/cellwall-test-sh\nexec ./a.cgi\n")
    }
    vec![
        of_php(case("an interpreter of root's", "ran 0", |w| with(w, 0, 0o755))),
        case("an interpreter that all may write to", "ran 0", |w| with(w, 0, 0o777))
            .ours("interpreter", "refused 86"),
        case("an interpreter of another user's", "ran 0", |w| with(w, w.bob.id, 0o755))
            .ours("interpreter", "refused 86"),
        case("an interpreter of the site's", "ran 0", |w| {
            put(w.alice.docroot().join("sh"), &fs::read("/bin/sh").unwrap(), w.alice.id, 0o755);
            script(w, "#!/var/www/alice/htdocs/sh\nexec ./a.cgi\n")
        })
        .ours("interpreter", "refused 86"),
        case("an interpreter that the site may not execute", "refused 255", |w| with(w, 0, 0o700)),
    ]
}
