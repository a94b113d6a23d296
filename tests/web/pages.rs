//! Whose programs run: virtual hosts, user directories, and programs that are started from inside a page.

use crate::harness::{
    Apache, Ask, Kind, Launcher, Report, User, World, everything, put, virtual_host, world,
};

/// A site of the user's own and, below ~/public_html, another.
fn with_user_directories(world: &World) {
    world.host(
        "[userdir]\nenabled = true\nprofile = [\"sh\", \"perl\", \"php\"]\nfiles.write = [\"/var/marks/{user}?\"]\n",
    );
    world.sites(&everything("view"));
}

fn home_program(user: &User, name: &str, text: &str, rights: u32) {
    put(user.home().join("public_html").join(name), text.as_bytes(), user.id, rights);
}

const WHO: &str = "#!/bin/sh\necho Content-Type: text/plain\necho\necho $(id -u) $(pwd) $HOME $USER\n";

#[test]
fn each_virtual_host_runs_as_its_own_user() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            for user in [&world.alice, &world.bob, &world.carol] {
                world.script(user, "who.cgi", WHO);
            }
            // One user may have many names; the same address may mean another user.
            let more = virtual_host("shop", "alice", "/var/www/alice/htdocs", "ServerAlias www.shop.test");
            let apache = Apache::start(world, kind, &more);
            for (host, user) in [
                ("alice.test", &world.alice),
                ("bob.test", &world.bob),
                ("carol.test", &world.carol),
                ("shop.test", &world.alice),
                ("www.shop.test", &world.alice),
            ] {
                let (id, name) = (user.id, &user.name);
                let expected = format!("{id} /var/www/{name}/htdocs /home/{name} {name}\n");
                assert_eq!(
                    apache.get(host, "/who.cgi").text(),
                    expected,
                    "{host} {kind:?}\n{}",
                    apache.log()
                );
            }
        });
    }
}

/// A virtual host that names the wrong user starts nothing of either.
#[test]
fn a_virtual_host_with_another_users_docroot_runs_nothing() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        world.script(&world.bob, "who.cgi", WHO);
        let more = virtual_host("wrong", "alice", "/var/www/bob/htdocs", "");
        let apache = Apache::start(world, Kind::Event, &more);
        assert_eq!(apache.ask(&Ask::get("wrong.test", "/who.cgi")).status, 500);
        let record = world.records().pop().unwrap();
        assert_eq!((record.verb.as_str(), record.field("code")), ("refuse", "P114"));
        apache.get("bob.test", "/who.cgi");
    });
}

#[test]
fn a_user_directory_runs_as_its_owner_on_any_virtual_host() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            with_user_directories(world);
            for user in [&world.alice, &world.bob] {
                world.probe_at(user, user.home().join("public_html/a.cgi"));
                home_program(user, "who.cgi", WHO, 0o755);
                home_program(
                    user,
                    "page.php",
                    "<?php header('Content-Type: text/plain'); echo posix_getuid(), __FILE__;",
                    0o644,
                );
            }
            let handler = "<Directory /home>\nAddHandler cgi-script .php\n</Directory>\n";
            let apache = Apache::start(world, kind, handler);
            for (user, host) in [(&world.alice, "carol.test"), (&world.bob, "alice.test")] {
                let (id, name) = (user.id, &user.name);
                let report = Report::parse(&apache.get(host, &format!("/~{name}/a.cgi")).body);
                assert_eq!(report.fact("uid"), format!("{id} {id} {id}"));
                let told = apache.get(host, &format!("/~{name}/who.cgi")).text();
                assert_eq!(told, format!("{id} /home/{name}/public_html /home/{name} {name}\n"), "{kind:?}");
                let told = apache.get(host, &format!("/~{name}/page.php?x=1")).text();
                assert_eq!(told, format!("{id}/home/{name}/public_html/page.php"), "{}", apache.log());
            }
        });
    }
}

#[test]
fn a_user_directory_is_not_the_users_site_and_nothing_else_of_the_home_runs() {
    world(Launcher::Cellwall, |world| {
        with_user_directories(world);
        home_program(&world.alice, "who.cgi", WHO, 0o755);
        put(world.alice.home().join("private.cgi"), WHO.as_bytes(), world.alice.id, 0o755);
        let home = virtual_host("home", "alice", "/home/alice", "");
        let apache = Apache::start(world, Kind::Event, &home);
        apache.get("bob.test", "/~alice/who.cgi");
        // By SuexecUserGroup it is another kind of request, and no site of alice's has this docroot.
        for path in ["/public_html/who.cgi", "/private.cgi"] {
            assert_eq!(apache.ask(&Ask::get("home.test", path)).status, 500, "{path}");
            assert_eq!(world.records().pop().unwrap().field("code"), "P114", "{path}");
        }
    });
}

#[test]
fn without_user_directories_in_the_configuration_none_runs() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        home_program(&world.alice, "who.cgi", WHO, 0o755);
        let apache = Apache::start(world, Kind::Event, "");
        assert_eq!(apache.ask(&Ask::get("bob.test", "/~alice/who.cgi")).status, 500);
        assert_eq!(world.records().pop().unwrap().verb, "refuse");
    });
}

#[test]
fn an_include_runs_a_program_of_the_pages_owner() {
    for (kind, jail) in [(Kind::Event, "view"), (Kind::Prefork, "view"), (Kind::Event, "host")] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            for user in [&world.alice, &world.bob] {
                world.script(user, "who", "#!/bin/sh\nid -u\n");
                world.script(
                    user,
                    "who.cgi",
                    "#!/bin/sh\necho Content-Type: text/plain\necho\necho $(id -g) $QUERY_STRING\n",
                );
                let page = b"cmd [<!--#exec cmd=\"who\" -->] cgi [<!--#exec cgi=\"/who.cgi\" -->] \
                             virtual [<!--#include virtual=\"/who.cgi?own=1\" -->]\n";
                put(user.docroot().join("page.shtml"), page, user.id, 0o644);
            }
            let apache = Apache::start(world, kind, "");
            for user in [&world.alice, &world.bob] {
                let told = apache.get(&format!("{}.test", user.name), "/page.shtml?x=1").text();
                let id = user.id;
                let expected = format!("cmd [{id}\n] cgi [{id} x=1\n] virtual [{id} own=1\n]\n");
                assert_eq!(told, expected, "{kind:?}\n{}", apache.log());
            }
        });
    }
}

#[test]
fn an_include_in_a_user_directory_runs_as_that_user() {
    world(Launcher::Cellwall, |world| {
        with_user_directories(world);
        home_program(&world.bob, "who", "#!/bin/sh\nid -u\n", 0o755);
        home_program(&world.bob, "page.shtml", "[<!--#exec cmd=\"who\" -->]\n", 0o644);
        let apache = Apache::start(world, Kind::Event, "");
        let told = apache.get("alice.test", "/~bob/page.shtml").text();
        assert_eq!(told, format!("[{}\n]\n", world.bob.id), "{}", apache.log());
    });
}

#[test]
fn an_include_cannot_name_programs_of_the_host() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let page = b"[<!--#exec cmd=\"/usr/bin/id\" -->][<!--#exec cmd=\"id -u\" -->][<!--#exec cmd=\"id;id\" -->]\n";
        put(world.alice.docroot().join("page.shtml"), page, world.alice.id, 0o644);
        let apache = Apache::start(world, Kind::Event, "");
        let told = apache.get("alice.test", "/page.shtml").text();
        assert!(!told.contains("uid=") && !told.contains(&format!("[{}", world.alice.id)), "{told}");
        let records = world.records();
        assert!(records.len() == 3 && records.iter().all(|record| record.verb == "refuse"), "{records:?}");
    });
}
