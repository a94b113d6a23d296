//! Debian's own way to another suEXEC: the alternatives.

use std::fs;
use std::process::Command;

use crate::harness::{Apache, CELLWALL, Kind, Launcher, everything, run, world};

const SUEXEC: &str = "/usr/lib/apache2/suexec";

fn alternatives(words: &[&str]) {
    let said = run(Command::new("/usr/bin/update-alternatives").args(words));
    assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
}

fn behind() -> String {
    fs::canonicalize(SUEXEC).unwrap().to_string_lossy().into_owned()
}

#[test]
fn the_alternatives_put_the_launcher_in_and_take_it_out_again() {
    world(Launcher::Stock, |world| {
        world.sites(&everything("view"));
        world.script(&world.alice, "a.cgi", "#!/bin/sh\necho Content-Type: text/plain\necho\nid -u\n");
        let before = behind();
        assert!(before.starts_with("/usr/lib/apache2/suexec-"), "{before}");
        alternatives(&["--install", SUEXEC, "suexec", CELLWALL, "50"]);
        alternatives(&["--set", "suexec", CELLWALL]);
        assert_eq!(behind(), CELLWALL);
        {
            let apache = Apache::start(world, Kind::Event, "");
            assert_eq!(apache.get("alice.test", "/a.cgi").text(), format!("{}\n", world.alice.id));
            assert_eq!(world.records().len(), 1);
        }
        alternatives(&["--remove", "suexec", CELLWALL]);
        assert_eq!(behind(), before);
        fs::remove_dir_all("/tmp/apache").unwrap();
        let apache = Apache::start(world, Kind::Event, "");
        assert_eq!(apache.get("alice.test", "/a.cgi").text(), format!("{}\n", world.alice.id));
        assert_eq!(world.records().len(), 1, "stock suEXEC is back");
    });
}
