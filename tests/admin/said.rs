//! What a site's programs said, where no request was refused: PHP answers a mistake in a page with an empty 500 of its own.

use crate::harness::{CELLWALL, Launcher, everything, put, run, world};
use crate::host::{Daemon, Nginx, until};

#[test]
fn a_mistake_in_a_page_of_php_is_told_by_why() {
    world(Launcher::Cellwall, |world| {
        let pool = "[pool]\ncommand = \"/usr/bin/php-cgi\"\n";
        world.site("alice", &format!("{}{pool}", everything("host")));
        world.apply();
        put(world.alice.docroot().join("bad.php"), b"<?php echo 'x", world.alice.id, 0o644);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let told = |part: &str| {
            until(part, || {
                ["why --last alice", "why --last"].iter().all(|words| {
                    let said = world.cellwall(&words.split(' ').collect::<Vec<_>>());
                    let text = [said.stdout, said.stderr].concat();
                    String::from_utf8(text).unwrap().contains(part)
                })
            });
        };
        let answer = nginx.get("alice", "/bad.php");
        assert_eq!(answer.status, 500);
        told("PHP Parse error:  syntax error");
        // Beside the last refusal as well, where it came later.
        let id = world.alice.id;
        let call = format!(
            "cd /var/www/alice/htdocs && setpriv --reuid=33 --regid=33 --clear-groups {CELLWALL} {id} {id} none"
        );
        run(std::process::Command::new("/bin/sh").args(["-c", &call]));
        nginx.get("alice", "/bad.php");
        told("since then its programs said");
        // And of nobody else's.
        let said = world.cellwall(&["why", "--last", "bob"]);
        assert!(!String::from_utf8_lossy(&said.stderr).contains("Parse error"), "{said:?}");
    });
}
