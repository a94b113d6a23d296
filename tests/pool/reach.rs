//! The web server answers 502 by itself: nothing was refused, and the administrator is told what is not there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use crate::harness::{Launcher, World, world};

use super::host::{Daemon, Nginx, until};

/// Answers with its pid.
const GOOD: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                    print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; }\n";
const SOCKET: &str = "/run/cellwall/pool/alice.sock";

fn site(world: &World, program: &str, more: &str) {
    let path = world.script(&world.alice, "app.fcgi", program);
    let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n{more}\n", path.display());
    world.site("alice", &rules);
    world.apply();
}

fn told(world: &World, words: &[&str]) -> String {
    let said = world.cellwall(words);
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

fn repaired(text: &str) {
    let repair = text.lines().find_map(|line| line.trim().strip_prefix("repair: ")).expect(text);
    assert!(Command::new("sh").args(["-c", repair]).status().unwrap().success(), "{repair}");
}

#[test]
fn a_socket_that_the_web_server_cannot_reach_is_told_and_mended() {
    world(Launcher::Cellwall, |world| {
        site(world, GOOD, "workers = { max = 2 }");
        let text = told(world, &["why", "--last", "alice"]);
        assert!(text.contains("found: cellwalld, which serves its pool, does not run"), "{text}");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
        let whole = told(world, &["status", "alice"]);
        assert!(!whole.contains("found"), "{whole}");
        // Somebody has tidied up.
        fs::remove_file(SOCKET).unwrap();
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 502);
        for words in [&["why", "--last", "alice"][..], &["status", "alice"], &["status"]] {
            let text = told(world, words);
            assert!(
                text.contains(&format!("found: {SOCKET}: No such file or directory")),
                "{words:?}: {text}"
            );
        }
        // As nginx writes it.
        let line = format!(
            "2026/11/27 08:52:01 [crit] 771#771: *1 connect() to unix:{SOCKET} failed (2: No such file or directory) while \
             connecting to upstream, client: 127.0.0.1, server: , request: \"GET /a.php HTTP/1.1\", upstream: \
             \"fastcgi://unix:{SOCKET}:\", host: \"localhost:8080\""
        );
        let text = told(world, &["why", &line]);
        assert!(text.contains(&format!("found: {SOCKET}: No such file or directory")), "{text}");
        repaired(&text);
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
        // Or another hand at it.
        for mode in [0o600, 0o660] {
            chown(SOCKET, Some(0), Some(0)).unwrap();
            fs::set_permissions(SOCKET, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 502);
            let text = told(world, &["why", "--last", "alice"]);
            assert!(
                text.contains(&format!("found: {SOCKET} has mode {mode:04o} and group 0, not 0660 and")),
                "{text}"
            );
            repaired(&text);
            assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
        }
        fs::set_permissions("/run/cellwall/pool", fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 502);
        let text = told(world, &["why", "--last", "alice"]);
        assert!(text.contains("found: /run/cellwall/pool has mode 0700"), "{text}");
        repaired(&text);
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 200);
        drop(daemon);
        let text = told(world, &["why", "--last", "alice"]);
        assert!(text.contains("found: cellwalld, which serves its pool, does not run"), "{text}");
    });
}

/// An account that is gone is refused before its site is known: the record has none.
#[test]
fn what_kept_a_worker_from_starting_is_told_though_its_record_names_no_site() {
    world(Launcher::Cellwall, |world| {
        site(world, "#!/usr/bin/perll\n", "workers = { max = 2 }");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/app.fcgi").status, 502);
        assert!(told(world, &["why", "--last", "alice"]).contains("(V11)"));
        world.script(&world.alice, "app.fcgi", GOOD);
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        fs::write("/etc/passwd", accounts.replace("\nalice:", "\nalicia:")).unwrap();
        until("the refusal", || {
            nginx.get("alice", "/app.fcgi");
            let text = told(world, &["why", "--last", "alice"]);
            text.contains("alice is not there any more (P03)")
                && text.contains("repair    cellwall check /etc/cellwall/sites.d/alice.toml ")
        });
    });
}
