//! Two accounts, one that deploys and one that runs; and releases behind a link: the example of policy/README.md.

use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Launcher, World, make_directory, mode, put, run, world};

const TOP: &str = "/var/www/shop";

/// A release of bob's with a script that says which one it is, and writes where it may and where it must not.
fn release(world: &World, number: u32) -> PathBuf {
    let place = Path::new(TOP).join(format!("releases/{number}/htdocs"));
    for directory in [place.parent().unwrap(), &place] {
        make_directory(directory, world.bob.id, 0o755);
        chown(directory, Some(world.bob.id), Some(world.alice.id)).unwrap();
    }
    let script = format!(
        "#!/bin/sh\necho Content-Type: text/plain; echo\necho release {number} of $(id -un)\n\
         (echo x > ../../../uploads/x) 2>/dev/null && echo uploads\n(echo x > a.cgi) 2>/dev/null && echo CODE\n\
         (echo x > new) 2>/dev/null && echo CODE\nexit 0\n"
    );
    put(place.join("a.cgi"), script.as_bytes(), world.bob.id, 0o750);
    chown(place.join("a.cgi"), Some(world.bob.id), Some(world.alice.id)).unwrap();
    place
}

/// As a deploy tool does it: one rename.
fn link(world: &World, number: u32) {
    let next = format!("{TOP}/next");
    symlink(format!("releases/{number}"), &next).unwrap();
    lchown(&next, Some(world.bob.id), Some(world.alice.id)).unwrap();
    let said = run(Command::new("mv").args(["-T", &next, &format!("{TOP}/current")]));
    assert!(said.status.success());
}

#[test]
fn one_account_deploys_and_another_runs_and_a_release_is_one_rename() {
    for jail in ["view", "host"] {
        world(Launcher::Cellwall, |world| {
            for directory in [TOP.to_owned(), format!("{TOP}/releases")] {
                make_directory(&directory, world.bob.id, 0o755);
                chown(&directory, Some(world.bob.id), Some(world.alice.id)).unwrap();
            }
            make_directory(format!("{TOP}/uploads"), world.alice.id, 0o750);
            let first = release(world, 41);
            link(world, 41);
            let rules = |more: &str| {
                let text = format!(
                    "user = \"alice\"\ndocroot = \"{TOP}/current/htdocs\"\nsymlinks = \"owner-match\"\nprofile = \"sh\"\n{more}\n\
                     [files]\nwrite = [\"{TOP}/uploads\"]\n[jail]\nkind = \"{jail}\"\n"
                );
                fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
            };
            // Without the word the launcher takes nothing of bob's.
            rules("");
            let said = world.cellwall(&["apply"]);
            assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stderr));
            rules("code_owner = \"bob\"");
            world.apply();
            let ask = |place: &Path| world.call(&world.alice, "a.cgi").cwd(place).run();
            let outcome = ask(&first);
            let text = outcome.out_text();
            assert!(text.contains("release 41 of alice") && text.contains("uploads"), "{}", outcome.story());
            assert!(!text.contains("CODE"), "the running program changed its code: {}", outcome.story());
            // The next release, with nothing applied.
            let second = release(world, 42);
            link(world, 42);
            assert!(ask(&second).out_text().contains("release 42 of alice"), "{}", ask(&second).story());
            // The old one is outside now.
            assert!(!ask(&first).out_text().contains("release"), "{}", ask(&first).story());
            assert_eq!(world.cellwall(&["fix", "alice"]).status.code(), Some(0));
            // A program of the running account's own is refused: it could have written it.
            chown(second.join("a.cgi"), Some(world.alice.id), Some(world.alice.id)).unwrap();
            ask(&second).refused("V120", 120);
            let said = world.cellwall(&["fix", "--apply", "alice"]);
            assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stdout));
            assert!(ask(&second).out_text().contains("release 42"), "{}", ask(&second).story());
            // Executable for its owner alone: the one that runs it is another.
            mode(second.join("a.cgi"), 0o740);
            let record = ask(&second).refused("V121", 121);
            let pasted = run(std::process::Command::new("sh").args(["-c", record.field("fix")]));
            assert!(pasted.status.success(), "{record:?}: {pasted:?}");
            assert!(ask(&second).out_text().contains("release 42"), "{}", ask(&second).story());
            // What the site writes to is its own: a link of the code owner's in that place leads to code.
            let uploads = format!("{TOP}/uploads");
            fs::remove_dir_all(&uploads).unwrap();
            symlink("releases", &uploads).unwrap();
            lchown(&uploads, Some(world.bob.id), Some(world.alice.id)).unwrap();
            ask(&second).refused("V01", 86);
            fs::remove_file(&uploads).unwrap();
            make_directory(&uploads, world.alice.id, 0o750);
            assert!(ask(&second).out_text().contains("release 42"), "{}", ask(&second).story());
            // A link of the running account's is no way to a release.
            lchown(format!("{TOP}/current"), Some(world.alice.id), Some(world.alice.id)).unwrap();
            mode(second.join("a.cgi"), 0o750);
            ask(&second).refused_somehow();
        });
    }
}
