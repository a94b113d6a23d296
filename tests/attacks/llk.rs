//! Landlock and the filter of system calls: LLK-01 to LLK-09 of the threat catalogue.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use cellwall::sys::seal::landlock_version;

use crate::harness::{Launcher, World, each_jail, make_directory, mode, not_shown, put, run, small, world};
use crate::jail::{helper, tries};
use crate::promise::{JAILS, documented, is_possible, jail_of_alice};

/// A directory of alice's own outside of her cell: file modes permit her everything there.
fn outside(world: &World) {
    make_directory("/srv/alice", world.alice.id, 0o755);
    for name in ["file", "other"] {
        put(format!("/srv/alice/{name}"), b"own", world.alice.id, 0o644);
    }
    symlink("file", "/srv/alice/link").unwrap();
    world.escape(&world.alice, "a.cgi");
}

#[test]
fn llk_01_files_outside_are_neither_read_nor_changed() {
    each_jail(|world| {
        outside(world);
        put("/srv/alice/program", &fs::read("/mnt/bin/escape").unwrap(), world.alice.id, 0o755);
        // Each of them can be done after those before it.
        let ways: Vec<String> = [
            "open:file",
            "write:file",
            "list:.",
            "execute:program",
            "create:new",
            "mkdir:newdir",
            "symlink:newlink",
            "link:file",
            "truncate:file",
            "rename:file",
            "unlink:other",
        ]
        .iter()
        .map(|way| way.replace(':', ":/srv/alice/"))
        .collect();
        let names = || {
            let entries = fs::read_dir("/srv/alice").unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        let before = names();
        let report = tries(world.call(&world.alice, "a.cgi"), &ways);
        for way in &ways {
            let name = way.split(':').next().unwrap();
            if is_possible(world, name) {
                assert_eq!(report.attempt(name), "done", "{way}:\n{}", report.text());
                continue;
            }
            let denied = ["EACCES", "ENOENT", "EXDEV", "EROFS"].contains(&report.attempt(name));
            assert!(denied, "{way}:\n{}", report.text());
        }
        let expected: &[u8] = if is_possible(world, "truncate") { b"" } else { b"own" };
        assert_eq!(fs::read("/srv/alice/file").unwrap(), expected);
        assert_eq!(names(), before);
        // Outside of the cell the same user does all of it.
        let free = crate::jail::outside(&world.alice, Path::new("/"), &ways);
        for way in &ways {
            assert_eq!(free.attempt(way.split(':').next().unwrap()), "done", "{way}:\n{}", free.text());
        }
        assert_ne!(names(), before);
    });
}

/// The number of a segment of System V memory that anybody may attach.
fn segment() -> String {
    let said = run(Command::new("ipcmk").args(["--shmem", "4096", "--mode", "0666"]));
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.rsplit_once(": ").unwrap_or_else(|| panic!("{said:?}")).1.trim().to_owned()
}

#[test]
fn llk_02_09_what_is_possible_outside_is_what_the_document_says() {
    for (column, jail) in JAILS.into_iter().enumerate() {
        world(Launcher::Cellwall, |world| {
            world.sites(&small(jail));
            outside(world);
            let helper = helper(world, &world.alice);
            let segment = segment();
            let value = |name: &str| match name {
                "shm" => segment.clone(),
                "aio" => "1".to_owned(),
                "queue" => "name".to_owned(),
                "abstract" => "helper".to_owned(),
                "connect" => "/srv/open/socket".to_owned(),
                "signal" | "ptrace" => helper.pid().to_string(),
                "udp" => "9".to_owned(),
                "readlink" => "/srv/alice/link".to_owned(),
                "chdir" | "list" => "/srv/alice".to_owned(),
                "mkdir" => "/srv/alice/new".to_owned(),
                _ => "/srv/alice/file".to_owned(),
            };
            let documented = possible_here(world);
            let ways: Vec<_> = documented.iter().map(|(name, _)| format!("{name}:{}", value(name))).collect();
            let report = tries(world.call(&world.alice, "a.cgi"), &ways);
            let wrong: Vec<_> = documented
                .iter()
                .filter(|(name, expected)| (report.attempt(name) == "done") != expected[column])
                .map(|(name, _)| format!("{name} in a {jail} jail: {}", report.attempt(name)))
                .collect();
            assert!(wrong.is_empty(), "docs/threat-model.md says otherwise:\n{}", wrong.join("\n"));
        });
    }
}

/// What the document says, but for what no program can do in this world's file system: tmpfs has attributes since Linux 6.6.
fn possible_here(world: &World) -> Vec<(String, [bool; 2])> {
    let mut all = documented();
    let way = ["xattr:/srv/alice/file".to_owned()];
    if crate::jail::outside(&world.alice, Path::new("/"), &way).attempt("xattr") == "EOPNOTSUPP" {
        not_shown(
            "a file system with attributes (tmpfs before Linux 6.6): that an own file can be given one",
        );
        all.retain(|(name, _)| name != "xattr");
    }
    all
}

#[test]
fn llk_03_abstract_sockets_and_signals_end_at_the_cell() {
    each_jail(|world| {
        outside(world);
        let helper = helper(world, &world.alice);
        let ways = ["abstract:helper".to_owned(), format!("signal:{}", helper.pid())];
        let report = tries(world.call(&world.alice, "a.cgi"), &ways);
        for (name, denied) in [("abstract", ["EPERM"].as_slice()), ("signal", &["EPERM", "ESRCH"])] {
            let expected = if is_possible(world, name) { &["done"] } else { denied };
            assert!(expected.contains(&report.attempt(name)), "{name}: {expected:?}\n{}", report.text());
        }
    });
}

/// What kernels answer that have no Landlock, or have it switched off.
const ABSENT: [&str; 2] = ["ENOSYS", "EOPNOTSUPP"];

#[test]
fn llk_04_05_without_landlock_the_policys_word_decides() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.probe(&world.alice, "a.cgi");
            world.sites(&small(jail));
            for errno in ABSENT {
                let absent = format!("inject=landlock_create_ruleset:error={errno}");
                world.call(&world.alice, "a.cgi").strace(&["-e", &absent]).run().refused("X03", 87);
            }
            world.sites(&small(jail).replace("[jail]", "[jail]\nlandlock = \"best-effort\""));
            for errno in ABSENT {
                let absent = format!("inject=landlock_create_ruleset:error={errno}");
                let outcome = world.call(&world.alice, "a.cgi").strace(&["-e", &absent]).run();
                outcome.ran();
                assert_eq!(outcome.records[0].field("landlock"), "0", "{}", outcome.records[0].line);
            }
        });
    }
}

#[test]
fn llk_06_an_older_landlock_than_required_is_refused() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let kernel = landlock_version();
        let requires = |version: u8| {
            world.sites(&small("host").replace("[jail]", &format!("[jail]\nlandlock_abi = {version}")));
        };
        // The kernel itself: what it has, and more than that.
        requires(kernel);
        world.call(&world.alice, "a.cgi").run().ran();
        requires(kernel + 1);
        world.call(&world.alice, "a.cgi").run().refused("X03", 87);
        let required = kernel.min(4);
        requires(required);
        for version in 1..kernel.min(7) {
            // The launcher asks, and then its library asks: both hear of the older kernel.
            let older = format!("inject=landlock_create_ruleset:retval={version}:when=1..2");
            let outcome = world.call(&world.alice, "a.cgi").strace(&["-e", &older]).run();
            if version < required {
                outcome.refused("X03", 87);
            } else {
                outcome.ran();
                assert_eq!(outcome.records[0].field("landlock"), version.to_string());
            }
        }
    });
}

#[test]
fn llk_07_a_path_of_the_rules_that_is_missing_is_no_wider_rule() {
    each_jail(|world| {
        let jail = jail_of_alice(world);
        world.probe(&world.alice, "a.cgi");
        put("/srv/listed", b"x", 0, 0o644);
        world.site("alice", &format!("{}read = [\"/srv/listed\"]\n", small(jail)));
        world.apply();
        world.call(&world.alice, "a.cgi").run().ran();
        fs::remove_file("/srv/listed").unwrap();
        let refused = world.call(&world.alice, "a.cgi").run().refused_somehow();
        assert!(["X02", "C06"].contains(&refused.field("code")), "{}", refused.line);
        assert!(refused.field("why").contains("/srv/listed"), "{}", refused.line);
        let said = world.cellwall(&["check"]);
        assert!(
            !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("/srv/listed"),
            "{said:?}"
        );
    });
}

/// The host's own root: in a view the directories above are the view's.
#[test]
fn llk_07_a_path_that_the_site_may_not_reach_is_no_rule_and_stops_nothing() {
    world(Launcher::Cellwall, |world| {
        world.escape(&world.alice, "a.cgi");
        make_directory("/srv/closed", 0, 0o700);
        put("/srv/closed/file", b"root's", 0, 0o644);
        world.site("alice", &format!("{}read = [\"/srv/closed/file\"]\n", small("host")));
        world.apply();
        let opens = || {
            let ways = ["open:/srv/closed/file".to_owned()];
            tries(world.call(&world.alice, "a.cgi"), &ways).attempt("open").to_owned()
        };
        assert_eq!(opens(), "EACCES");
        // Each launch looks for itself.
        mode("/srv/closed", 0o755);
        assert_eq!(opens(), "done");
    });
}

/// Where a site may link, what it may read or write to is still a part of its own.
#[test]
fn llk_07_a_link_of_the_sites_makes_no_rule_wider() {
    each_jail(|world| {
        let (base, id) = ("/var/www/alice", world.alice.id);
        outside(world);
        chown(base, Some(id), Some(id)).unwrap();
        for name in ["data", "real"] {
            make_directory(format!("{base}/{name}"), id, 0o755);
        }
        let text = fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
        let text = text.replace("write = [", &format!("read = [\"{base}/data\"]\nwrite = ["));
        fs::write("/etc/cellwall/sites.d/alice.toml", format!("symlinks = \"owner-match\"\n{text}")).unwrap();
        world.apply();
        let leads = |to: &str, owner: u32| {
            let link = format!("{base}/data");
            drop(fs::remove_dir(&link));
            drop(fs::remove_file(&link));
            symlink(to, &link).unwrap();
            lchown(&link, Some(owner), None).unwrap();
        };
        let opens = || {
            let ways = ["open:/srv/alice/file".to_owned()];
            tries(world.call(&world.alice, "a.cgi"), &ways).attempt("open") == "done"
        };
        assert!(!opens());
        leads("real", id);
        assert!(!opens());
        for (to, owner) in [("/", id), ("/usr", id), ("/usr", 0)] {
            leads(to, owner);
            world.call(&world.alice, "a.cgi").run().refused("V02", 86);
        }
        // Root's own link in root's own directory may.
        chown(base, Some(0), Some(0)).unwrap();
        assert!(!opens());
    });
}

/// The machine has none on 64-bit ARM, as long as its kernel runs no 32-bit programs.
#[cfg(target_arch = "x86_64")]
#[test]
fn llk_08_doors_of_other_architectures_are_walled_up() {
    each_jail(|world| {
        world.escape(&world.alice, "a.cgi");
        let report = tries(world.call(&world.alice, "a.cgi"), &["foreign:i386".to_owned()]);
        assert_eq!(report.attempt("foreign"), "killed 31", "{}", report.text());
        // A kernel without x32 has the same answer as the filter. What tells them apart is a listener that the program puts
        // behind the cell's filter: it hears of the call, and answers EXDEV, where nothing stands before it.
        let x32 = ["foreign:x32".to_owned()];
        let report = tries(world.call(&world.alice, "a.cgi"), &x32);
        assert_eq!(report.attempt("foreign"), "ENOSYS", "{}", report.text());
        let free = crate::jail::outside(&world.alice, Path::new("/"), &x32);
        assert_eq!(free.attempt("foreign"), "EXDEV", "{}", free.text());
    });
}
