//! Public sockets that change their place, their site, or are gone.

use std::fs;
use std::io::Read as _;
use std::thread;
use std::time::Duration;

use crate::harness::{Launcher, World, world};

use super::host::{Daemon, Nginx, logged, mode_of, processes, until};
use super::stage::{Client, request_in};

/// Answers with its user's number, after the time of its query.
const WHO: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                   select undef, undef, undef, $1 if ($ENV{QUERY_STRING} || '') =~ /([0-9.]+)/;\n\
                   print \"Content-Type: text/plain\\r\\n\\r\\n$<\"; }\n";

fn site(world: &World, name: &str, more: &str) {
    let user = if name == "alice" { &world.alice } else { &world.bob };
    let path = world.script(user, "app.fcgi", WHO);
    let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n{more}\n", path.display());
    world.site(name, &rules);
}

fn socket(name: &str) -> String {
    format!("/run/cellwall/pool/{name}.sock")
}

fn answer(nginx: &Nginx, host: &str) -> (u16, String) {
    let answer = nginx.get(host, "/app.fcgi");
    (answer.status, answer.text())
}

#[test]
fn sites_exchange_their_sockets_in_one_apply() {
    world(Launcher::Cellwall, |world| {
        let (alice, bob) = (world.alice.id.to_string(), world.bob.id.to_string());
        site(world, "alice", "listen = \"alice.sock\"");
        site(world, "bob", "listen = \"bob.sock\"\nsocket_group = \"users\"");
        world.apply();
        let _daemon = Daemon::start(world);
        until("both", || ["alice", "bob"].iter().all(|name| fs::exists(socket(name)).unwrap()));
        let own = mode_of(socket("alice"));
        site(world, "alice", "listen = \"bob.sock\"");
        site(world, "bob", "listen = \"alice.sock\"");
        world.apply();
        assert_eq!(logged(&["refuse ", "code=S0"]), Vec::<String>::new());
        assert_eq!(mode_of(socket("bob")), own, "the group goes with the site");
        // Scripts must be beneath the docroot of whoever serves. The broker hears of it a moment after the apply.
        let serves = |name: &str, user: &str, id: &str| {
            until("the other site", || {
                let mut client = Client::new(socket(name).as_ref());
                let request = request_in(&format!("/var/www/{user}/htdocs"), "/app.fcgi", &[], b"", false);
                client.ask(&request);
                client.answer().out.ends_with(format!("\r\n{id}").as_bytes())
            });
        };
        serves("bob", "alice", &alice);
        serves("alice", "bob", &bob);
        // One goes, and the other one takes its place.
        fs::remove_file("/etc/cellwall/sites.d/bob.toml").unwrap();
        site(world, "alice", "listen = \"alice.sock\"");
        world.apply();
        assert_eq!(logged(&["refuse ", "code=S0"]), Vec::<String>::new());
        serves("alice", "alice", &alice);
        assert!(!fs::exists(socket("bob")).unwrap());
    });
}

#[test]
fn a_request_under_way_survives_another_listen() {
    world(Launcher::Cellwall, |world| {
        site(world, "alice", "workers = { max = 2 }");
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let mut slow = nginx.begun("alice", "/app.fcgi?2");
        // Started because of the request, which the pool has by then.
        until("its worker", || !logged(&["launch ", "site=alice"]).is_empty());
        site(world, "alice", "workers = { max = 2 }\nlisten = \"other.sock\"");
        world.apply();
        assert!(!fs::exists(socket("alice")).unwrap());
        let mut text = String::new();
        slow.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with(&world.alice.id.to_string()), "{text}");
        let mut client = Client::new(socket("other").as_ref());
        client.ask(&request_in("/var/www/alice/htdocs", "/app.fcgi", &[], b"", false));
        assert!(client.answer().out.ends_with(world.alice.id.to_string().as_bytes()));
        assert_eq!(logged(&["pool start ", "site=alice"]).len(), 1, "its worker is the same");
    });
}

#[test]
fn workers_that_accept_for_themselves_do_so_at_another_listen() {
    world(Launcher::Cellwall, |world| {
        site(world, "alice", "accept = \"direct\"\nworkers = { max = 1 }\nlisten = \"other.sock\"");
        world.apply();
        let _daemon = Daemon::start(world);
        until("a worker", || !logged(&["launch ", "site=alice"]).is_empty());
        thread::sleep(Duration::from_millis(1200));
        site(world, "alice", "accept = \"direct\"\nworkers = { max = 1 }");
        world.apply();
        let nginx = Nginx::start(&["alice"], "fastcgi_read_timeout 5s;");
        assert_eq!(answer(&nginx, "alice"), (200, world.alice.id.to_string()));
    });
}

#[test]
fn a_socket_that_is_gone_is_made_anew_by_a_reload() {
    world(Launcher::Cellwall, |world| {
        site(world, "alice", "workers = { max = 1 }");
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(answer(&nginx, "alice").0, 200);
        fs::remove_file(socket("alice")).unwrap();
        assert_eq!(answer(&nginx, "alice").0, 502);
        assert!(world.cellwall(&["pool", "reload"]).status.success());
        assert_eq!(answer(&nginx, "alice"), (200, world.alice.id.to_string()));
    });
}

#[test]
fn what_somebody_has_removed_of_run_comes_back_by_itself() {
    world(Launcher::Cellwall, |world| {
        site(world, "alice", "workers = { max = 1 }");
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(answer(&nginx, "alice").0, 200);
        for own in ["control.sock", "status.sock"] {
            fs::remove_file(format!("/run/cellwall/{own}")).unwrap();
        }
        // Where it cannot be heard it still runs, and that is what is said.
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!text.contains("does not run"), "{text}");
        let good = |words: &[&str]| world.cellwall(words).status.success();
        until("the control socket", || good(&["pool", "reload"]));
        until("the status socket", || good(&["status"]));
        // All of it, as by a hand that meant another directory.
        for own in ["control.sock", "status.sock"] {
            fs::remove_file(format!("/run/cellwall/{own}")).unwrap();
        }
        fs::remove_dir_all("/run/cellwall/pool").unwrap();
        fs::remove_dir_all("/run/cellwall/broker").unwrap();
        until("the control socket", || good(&["apply"]) && good(&["pool", "reload"]));
        until("the status socket", || good(&["status"]));
        assert_eq!(answer(&nginx, "alice"), (200, world.alice.id.to_string()));
        // A stranger's file in its place is not touched, nor is another daemon's socket.
        fs::remove_file("/run/cellwall/control.sock").unwrap();
        fs::write("/run/cellwall/control.sock", "x").unwrap();
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(fs::read("/run/cellwall/control.sock").unwrap(), b"x");
        assert_eq!(logged(&["refuse ", "code=S07", "control.sock"]).len(), 1, "said once");
        fs::remove_file("/run/cellwall/control.sock").unwrap();
        until("the control socket", || good(&["pool", "reload"]));
        drop(daemon);
    });
}

#[test]
fn no_socket_that_another_sites_workers_hold_is_handed_on() {
    world(Launcher::Cellwall, |world| {
        // It does not end when it is asked to, and goes on accepting.
        let stays = WHO.replace("use FCGI;\n", "use FCGI;\n$SIG{TERM} = 'IGNORE';\n");
        let path = world.script(&world.alice, "stays.fcgi", stays);
        let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n", path.display());
        world.site("alice", &format!("{rules}accept = \"direct\"\nstop_timeout = \"30s\"\n"));
        site(world, "bob", "workers = { max = 1 }");
        world.apply();
        let _daemon = Daemon::start(world);
        until("alice's workers", || processes(world.alice.id).len() == 8);
        thread::sleep(Duration::from_millis(1200));
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        site(world, "bob", "workers = { max = 1 }\nlisten = \"alice.sock\"");
        world.apply();
        assert_eq!(logged(&["refuse ", "code=S0"]), Vec::<String>::new());
        for _ in 0..30 {
            let mut client = Client::new(socket("alice").as_ref());
            client.ask(&request_in("/var/www/bob/htdocs", "/app.fcgi", &[], b"", false));
            let answer = String::from_utf8(client.answer().out).unwrap();
            assert!(!answer.ends_with(&world.alice.id.to_string()), "a stranger's program answered");
        }
        assert!(!processes(world.alice.id).is_empty(), "they are there still");
    });
}

#[test]
fn a_port_goes_from_one_site_to_another_in_one_apply() {
    let ports = ["127.0.0.1:9101", "127.0.0.1:9102"];
    for (before, after) in
        [("relay", "relay"), ("direct", "relay"), ("relay", "direct"), ("direct", "direct")]
    {
        world(Launcher::Cellwall, |world| {
            let rules = |accept: &str, port: &str| {
                format!("accept = \"{accept}\"\nworkers = {{ max = 1 }}\nlisten = \"{port}\"")
            };
            let answers = |user: &str, port: &str| {
                let file = format!("/var/www/{user}/htdocs/app.fcgi");
                let mut command = std::process::Command::new("/usr/bin/cgi-fcgi");
                command.args(["-bind", "-connect", port]).env_clear().stdin(std::process::Stdio::null());
                command.env("SCRIPT_FILENAME", file).env("REQUEST_METHOD", "GET");
                String::from_utf8(command.output().unwrap().stdout).unwrap()
            };
            let serves = |user: &str, id: u32, port: &str| {
                until(&format!("{user} at {port}"), || answers(user, port).ends_with(&format!("\n{id}")));
            };
            site(world, "alice", &rules(before, ports[0]));
            site(world, "bob", &rules(before, ports[1]));
            world.apply();
            let _daemon = Daemon::start(world);
            serves("alice", world.alice.id, ports[0]);
            serves("bob", world.bob.id, ports[1]);
            thread::sleep(Duration::from_millis(1200));
            site(world, "alice", &rules(after, ports[1]));
            site(world, "bob", &rules(after, ports[0]));
            world.apply();
            assert_eq!(logged(&["refuse ", "code=S0"]), Vec::<String>::new(), "{before}, {after}");
            serves("alice", world.alice.id, ports[1]);
            serves("bob", world.bob.id, ports[0]);
        });
    }
}

/// Its workers of before have the socket, and may have given it to anybody.
#[test]
fn a_site_of_another_user_has_another_socket() {
    world(Launcher::Cellwall, |world| {
        // It does not end when it is asked to, and goes on accepting.
        let stays = WHO.replace("use FCGI;\n", "use FCGI;\n$SIG{TERM} = 'IGNORE';\n");
        let path = world.script(&world.alice, "app.fcgi", stays);
        fs::remove_file("/etc/cellwall/sites.d/bob.toml").unwrap();
        let rules = |user: &str, command: &std::path::Path| {
            let text = format!(
                "user = \"{user}\"\ndocroot = \"/var/www/{user}/htdocs\"\nprofile = \"perl\"\n[pool]\ncommand = \"{}\"\n\
                 accept = \"direct\"\nstop_timeout = \"30s\"\nworkers = {{ max = 1 }}\n",
                command.display()
            );
            fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
            world.apply();
        };
        rules("alice", &path);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "fastcgi_read_timeout 5s;");
        assert_eq!(answer(&nginx, "alice"), (200, world.alice.id.to_string()));
        thread::sleep(Duration::from_millis(1200));
        rules("bob", &world.script(&world.bob, "app.fcgi", WHO));
        until("the other user", || answer(&nginx, "alice").1 == world.bob.id.to_string());
        for _ in 0..30 {
            assert_eq!(
                answer(&nginx, "alice"),
                (200, world.bob.id.to_string()),
                "a stranger's program answered"
            );
        }
        assert!(!processes(world.alice.id).is_empty(), "it is there still");
    });
}
