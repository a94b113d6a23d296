//! What a visitor sees when something is wrong: the same page, a reference, and nothing else. What the administrator
//! sees: the reason, and a remedy that mends the site when it is pasted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::process::Command;

use crate::harness::{
    Answer, Apache, Ask, Kind, Launcher, World, everything, make_directory, mode, put, run, world,
};

const GOOD: &str = "#!/bin/sh\necho Content-Type: text/plain\necho\necho mended\n";

/// One mistake: the URL that shows it, how it is made, and the code that the administrator finds.
struct Mistake {
    url: &'static str,
    code: &'static str,
    make: fn(&World),
}

const fn mistake(url: &'static str, code: &'static str, make: fn(&World)) -> Mistake {
    Mistake { url, code, make }
}

fn good(world: &World, name: &str) -> std::path::PathBuf {
    world.script(&world.alice, name, GOOD)
}

fn folder(world: &World, name: &str, owner: u32, rights: u32) {
    let path = world.alice.docroot().join(name);
    make_directory(&path, world.alice.id, rights);
    good(world, &format!("{name}/a.cgi"));
    chown(path, Some(owner), None).unwrap();
}

/// Mistakes of files.
const FILES: [Mistake; 22] = [
    mistake("/others.cgi", "V118", |world| mode(good(world, "others.cgi"), 0o777)),
    mistake("/group.cgi", "V118", |world| mode(good(world, "group.cgi"), 0o775)),
    mistake("/plain.cgi", "V121", |world| mode(good(world, "plain.cgi"), 0o644)),
    mistake("/uid.cgi", "V119", |world| mode(good(world, "uid.cgi"), 0o4755)),
    mistake("/gid.cgi", "V119", |world| mode(good(world, "gid.cgi"), 0o2755)),
    mistake("/bobs.cgi", "V120", |world| chown(good(world, "bobs.cgi"), Some(world.bob.id), None).unwrap()),
    mistake("/roots.cgi", "V120", |world| chown(good(world, "roots.cgi"), Some(0), Some(0)).unwrap()),
    mistake("/bobsgroup.cgi", "V120", |world| {
        chown(good(world, "bobsgroup.cgi"), None, Some(world.bob.id)).unwrap();
    }),
    mistake("/twice.cgi", "V06", |world| {
        fs::hard_link(good(world, "twice.cgi"), "/var/www/alice/second").unwrap();
    }),
    mistake("/windows.cgi", "V10", |world| {
        drop(world.script(&world.alice, "windows.cgi", GOOD.replace('\n', "\r\n")));
    }),
    mistake("/empty.cgi", "V17", |world| drop(world.script(&world.alice, "empty.cgi", ""))),
    mistake("/text.cgi", "V12", |world| drop(world.script(&world.alice, "text.cgi", "hello\n"))),
    mistake("/noname.cgi", "V12", |world| drop(world.script(&world.alice, "noname.cgi", "#!\nid\n"))),
    mistake("/relative.cgi", "V12", |world| drop(world.script(&world.alice, "relative.cgi", "#!sh\nid\n"))),
    mistake("/nothing.cgi", "V11", |world| {
        drop(world.script(&world.alice, "nothing.cgi", "#!/no/such/interpreter\nid\n"));
    }),
    mistake("/own.cgi", "V14", |world| {
        put("/var/www/alice/htdocs/sh", &fs::read("/bin/sh").unwrap(), world.alice.id, 0o755);
        world.script(&world.alice, "own.cgi", "#!/var/www/alice/htdocs/sh\nid\n");
    }),
    mistake("/machine.cgi", "V13", |world| {
        let mut other = fs::read("/usr/bin/true").unwrap();
        other[18] = 243; // EM_RISCV
        world.script(&world.alice, "machine.cgi", other);
    }),
    mistake("/link.cgi", "V117", |world| {
        symlink(good(world, "target.cgi"), world.alice.docroot().join("link.cgi")).unwrap();
    }),
    mistake("/wide/a.cgi", "V116", |world| folder(world, "wide", world.alice.id, 0o777)),
    mistake("/team/a.cgi", "V116", |world| folder(world, "team", world.alice.id, 0o775)),
    mistake("/bobs/a.cgi", "V01", |world| folder(world, "bobs", world.bob.id, 0o755)),
    mistake("/roots/a.cgi", "V120", |world| folder(world, "roots", 0, 0o755)),
];

/// Mistakes of requests and of the configuration. Each is made when those before have been asked for.
const STATES: [Mistake; 9] = [
    mistake("/good.cgi?x=1", "E02", |world| {
        good(world, "good.cgi");
        again(world, "[environment]\nentries_max = 5\n");
    }),
    mistake("/good.cgi", "V15", |world| interpreters(world, "[\"/usr/bin/perl\"]")),
    mistake("/page.php", "V14", |world| {
        put(world.alice.docroot().join("page.php"), b"<?php", world.alice.id, 0o644);
        put("/usr/local/bin/own-php", b"", 0, 0o755);
        again(world, "[handlers]\n\".php\" = \"/usr/local/bin/own-php\"\n");
        chown("/usr/local/bin/own-php", Some(world.bob.id), None).unwrap();
    }),
    mistake("/page.php", "V11", |_| fs::remove_file("/usr/local/bin/own-php").unwrap()),
    mistake("/good.cgi", "P114", |world| {
        again(world, "");
        make_directory("/var/www/alice/other", world.alice.id, 0o755);
        let text = fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
        let moved = text.replace("/var/www/alice/htdocs", "/var/www/alice/other");
        fs::write("/etc/cellwall/sites.d/alice.toml", moved).unwrap();
        world.apply();
    }),
    mistake("/good.cgi", "P03", |world| {
        again(world, "");
        fs::rename(world.alice.home(), "/home/before").unwrap();
        make_directory(world.alice.home(), world.alice.id, 0o755);
    }),
    mistake("/good.cgi", "P01", |world| {
        world.apply();
        fs::write(format!("/var/lib/cellwall/policy/{}", world.alice.id), "torn").unwrap();
    }),
    mistake("/good.cgi", "P121", |world| {
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        world.apply();
    }),
    mistake("/good.cgi", "P103", |world| {
        again(world, "");
        let text = fs::read_to_string("/etc/cellwall/cellwall.toml").unwrap();
        fs::write("/etc/cellwall/cellwall.toml", text.replace("www-data", "daemon")).unwrap();
        world.apply();
    }),
];

/// alice's site file anew.
fn again(world: &World, more: &str) {
    world.site("alice", &format!("{}{more}", everything("view")));
    world.apply();
}

fn interpreters(world: &World, list: &str) {
    world.site("alice", &format!("interpreters = {list}\n{}", everything("view")));
    world.apply();
}

/// The answer without what differs from request to request by the server's own doing.
fn shown(answer: &Answer, reference: &str) -> String {
    assert_eq!(answer.text().matches(reference).count(), 1, "{}", answer.text());
    // Apache counts a body that ended before it looked.
    let own = |line: &&str| !line.starts_with("Date:") && !line.starts_with("Content-Length:");
    let head: Vec<_> = answer.head.lines().filter(own).collect();
    format!("{}\n\n{}", head.join("\n"), answer.text().replace(reference, "REFERENCE"))
}

/// Asks, and checks what everybody learns of it. Returns what the visitor sees.
fn visit(world: &World, apache: &Apache, mistake: &Mistake) -> String {
    let before = world.records().len();
    let answer = apache.ask(&Ask::get("alice.test", mistake.url));
    let url = mistake.url;
    assert_eq!(answer.status, 500, "{url}: {}\n{}", answer.text(), apache.log());
    let records = world.records().split_off(before);
    assert_eq!(records.len(), 1, "{url}: {records:?}");
    let record = &records[0];
    let reference = record.field("ref");
    assert_eq!(
        (record.verb.as_str(), record.field("code")),
        ("refuse", mistake.code),
        "{url}: {}",
        record.line
    );
    assert!(
        apache.says(&format!("cellwall: refused, reference {reference}")),
        "{url}:
{}",
        apache.log()
    );
    let said = world.cellwall(&["why", reference]);
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && told.contains(mistake.code), "{url}: {told}");
    // The launcher's remedy, or one that is made of the site's own file.
    let known = ["  repair    cellwall ", "  repair    # "].iter().any(|start| told.contains(start));
    let mended = told.contains(record.field("fix")) || known;
    assert!(mended, "{url}: {told}");
    shown(&answer, reference)
}

fn the_same_page_for_all(mistakes: &[Mistake], kind: Kind, jail: &str) {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything(jail));
        let apache =
            Apache::start(world, kind, "<Directory /var/www>\nAddHandler cgi-script .php\n</Directory>\n");
        let mut pages = BTreeSet::new();
        for mistake in mistakes {
            (mistake.make)(world);
            pages.insert(visit(world, &apache, mistake));
        }
        assert_eq!(pages.len(), 1, "visitors can tell mistakes apart: {pages:#?}");
        let page = pages.first().unwrap().to_lowercase();
        let id = world.alice.id.to_string();
        for word in
            ["alice", "/var", "htdocs", "cellwall", "suexec", ".cgi", "permission", "chmod", "0.1.0", &id]
        {
            assert!(!page.contains(word), "the page tells {word}:\n{page}");
        }
    });
}

#[test]
fn mistakes_of_files_all_give_the_same_page_in_a_view() {
    the_same_page_for_all(&FILES, Kind::Event, "view");
}

#[test]
fn mistakes_of_files_all_give_the_same_page_on_the_hosts_root() {
    the_same_page_for_all(&FILES, Kind::Prefork, "host");
}

#[test]
fn mistakes_of_the_configuration_all_give_the_same_page() {
    the_same_page_for_all(&STATES, Kind::Event, "view");
}

#[test]
fn remedies_that_are_pasted_mend_the_site() {
    // What no command can mend: a program must be written, installed, compiled or configured by somebody.
    let by_hand = ["V11", "V12", "V13", "V14", "V17", "V117"];
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let apache = Apache::start(world, Kind::Event, "");
        let mut mended = BTreeSet::new();
        for mistake in FILES.iter().filter(|mistake| !by_hand.contains(&mistake.code)) {
            (mistake.make)(world);
            mend(world, &apache, mistake.url);
            mended.insert(mistake.code);
        }
        assert_eq!(
            mended.into_iter().collect::<Vec<_>>(),
            ["V01", "V06", "V10", "V116", "V118", "V119", "V120", "V121"]
        );
    });
}

/// Asks, pastes, and asks again, until it runs; each time another reason, three at most.
fn mend(world: &World, apache: &Apache, url: &str) {
    let mut pasted = Vec::new();
    for _ in 0..4 {
        let answer = apache.ask(&Ask::get("alice.test", url));
        if answer.status == 200 {
            assert_eq!(answer.text(), "mended\n", "{url}");
            assert!(!pasted.is_empty(), "{url} was no mistake");
            return;
        }
        let told = String::from_utf8_lossy(&world.cellwall(&["why", "--last", "alice"]).stdout).into_owned();
        let fix = told.lines().find_map(|line| line.trim().strip_prefix("repair"));
        let fix = fix.unwrap_or_else(|| panic!("{url}: no remedy in\n{told}")).trim().to_owned();
        let said = run(Command::new("/bin/sh").args(["-c", &fix]));
        assert!(said.status.success(), "{url}: {fix}: {}", String::from_utf8_lossy(&said.stderr));
        pasted.push(fix);
    }
    panic!("{url} is not mended by {pasted:#?}");
}

/// The owner chooses names, and root pastes.
#[test]
fn no_file_name_becomes_a_command_of_the_administrators() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let apache = Apache::start(world, Kind::Event, "");
        let names = [
            "$(touch ${HOME}hacked).cgi",
            "`touch hacked`.cgi",
            "a;touch hacked;.cgi",
            "a b.cgi",
            "'; touch hacked; '.cgi",
            "a\"; touch hacked; \".cgi",
            "a\\.cgi",
            "#.cgi",
            "ä\n.cgi",
        ];
        for name in names {
            let url: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let path = good(world, name);
            mode(&path, 0o777);
            let outcome = world.call(&world.alice, name).run();
            // Names with control bytes are no names to the launcher at all.
            let record = outcome.refused_somehow();
            let here = "/tmp/pasted";
            drop(fs::remove_dir_all(here));
            make_directory(here, 0, 0o755);
            let fix = record.field("fix");
            run(Command::new("/bin/sh").args(["-c", fix]).current_dir(here).env("HOME", "./"));
            assert_eq!(fs::read_dir(here).unwrap().count(), 0, "{name:?} became a command in: {fix}");
            if name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte)) {
                let answer = apache.ask(&Ask::get("alice.test", &format!("/{url}")));
                assert_eq!(answer.text(), "mended\n", "{name:?}: {fix}\n{}", apache.log());
            }
        }
    });
}

/// By the time that root pastes, the owner may have put something else there.
#[test]
fn a_remedy_gives_no_foreign_file_away() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let owner = |path: &str| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
        let path = good(world, "a.cgi");
        chown(&path, Some(world.bob.id), None).unwrap();
        let fix = world.call(&world.alice, "a.cgi").run().refused("V120", 120).field("fix").to_owned();
        fs::rename(&path, world.alice.docroot().join("before")).unwrap();
        symlink("/etc/shadow", &path).unwrap();
        run(Command::new("/bin/sh").args(["-c", &fix]));
        assert_eq!(owner("/etc/shadow"), 0, "{fix}");
        fs::remove_file(&path).unwrap();

        good(world, "b.cgi");
        fs::hard_link(world.alice.docroot().join("b.cgi"), "/var/www/alice/second").unwrap();
        let fix = world.call(&world.alice, "b.cgi").run().refused("V06", 86).field("fix").to_owned();
        put("/srv/precious", b"precious", 0, 0o644);
        symlink("/srv/precious", world.alice.docroot().join("b.cgi.new")).unwrap();
        run(Command::new("/bin/sh").args(["-c", &fix]));
        assert_eq!(fs::read("/srv/precious").unwrap(), b"precious", "{fix}");
        world.call(&world.alice, "b.cgi").run();
        assert_eq!(world.records().pop().unwrap().verb, "launch", "{fix}");
    });
}

#[test]
fn a_site_that_is_not_configured_is_refused_and_others_go_on() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let text = "#!/bin/sh\necho Content-Type: text/plain\necho\nid -u\n";
        world.script(&world.alice, "a.cgi", text);
        world.script(&world.bob, "a.cgi", text);
        let apache = Apache::start(world, Kind::Event, "");
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        world.apply();
        assert_eq!(apache.ask(&Ask::get("alice.test", "/a.cgi")).status, 500);
        assert_eq!(world.records().last().unwrap().field("code"), "P121");
        assert_eq!(apache.get("bob.test", "/a.cgi").text(), format!("{}\n", world.bob.id));
    });
}

/// mod_cgid hands over one socket for both directions: closed with something unread, Apache reads no end and sends nothing.
#[test]
fn whoever_posts_to_a_refused_program_sees_the_page_and_its_reference_too() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            mode(world.script(&world.alice, "a.cgi", GOOD), 0o775);
            let apache = Apache::start(world, kind, "");
            for length in [1, 100, 20_000, 200_000, 2_000_000].repeat(5) {
                let answer = apache.ask(&Ask::post("alice.test", "/a.cgi", vec![b'x'; length]));
                let record = world.records().pop().unwrap();
                assert_eq!((answer.status, record.field("code")), (500, "V118"), "{length} bytes, {kind:?}");
                assert!(answer.text().contains(record.field("ref")), "{}", answer.text());
            }
        });
    }
}
