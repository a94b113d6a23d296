//! `cellwall apply` on a host that does not answer, and `check` of what is around the sites.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::time::{Duration, Instant};

use crate::harness::{Hung, Launcher, SUEXEC, make_directory, put, small, world};

#[test]
fn a_name_service_that_does_not_answer_holds_up_no_site_of_a_local_account() {
    world(Launcher::Cellwall, |world| {
        // As with a directory service that is gone, and no time limit of its own.
        put("/usr/bin/getent", b"#!/bin/sh\nexec sleep 1000\n", 0, 0o755);
        world.site("alice", &small("host"));
        let asked = Instant::now();
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && asked.elapsed() < Duration::from_secs(90), "{text}");
        assert!(text.contains("the name service does not list its accounts"), "{text}");
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        // Who has a ~user site is not known then: none is removed.
        world.host("[userdir]\nenabled = true\n");
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code() == Some(1) && text.contains("the name service lists no users"), "{text}");
    });
}

/// A file server that is gone: whoever asks for one file of it waits for ever.
#[test]
fn a_file_system_that_does_not_answer_is_named_and_nothing_changes() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", &small("host"));
        world.apply();
        make_directory("/srv/far", 0, 0o755);
        let file = "/etc/cellwall/sites.d/bob.toml";
        world.site("bob", &format!("{}read = [\"/srv/far/data\"]\n", small("host")));
        let written = fs::read_to_string(file).unwrap();
        let _far = Hung::over("/srv/far");
        for words in
            [&["check"][..], &["apply"], &["apply", "--json", "bob"], &["set", "bob", "limits.memory", "1G"]]
        {
            let asked = Instant::now();
            let said = world.cellwall(words);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(said.status.code(), Some(3), "{words:?}: {text}");
            assert!(asked.elapsed() < Duration::from_secs(60), "{words:?}");
            assert!(
                text.contains("/srv/far does not answer") && text.contains("mounted at /srv/far"),
                "{text}"
            );
        }
        assert_eq!(fs::read_to_string(file).unwrap(), written);
        // The others are not held up.
        assert!(world.cellwall(&["apply", "alice"]).status.success());
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn a_check_of_all_names_what_keeps_right_sites_from_their_cells() {
    world(Launcher::Cellwall, |world| {
        let told = |part: &str| {
            let said = world.cellwall(&["check"]);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.status.success(), "{text}");
            assert_eq!(text.contains("warning: "), !part.is_empty(), "{part}: {text}");
            assert!(text.contains(part), "{part} is not in\n{text}");
        };
        // Written and never applied.
        fs::remove_dir_all("/var/lib/cellwall").ok();
        told("nothing was applied yet: no program of these sites runs");
        world.apply();
        told("");
        chown("/var/lib/cellwall", Some(33), None).unwrap();
        told("chown root /var/lib/cellwall");
        chown("/var/lib/cellwall", Some(0), None).unwrap();
        // Only where Apache has its module does it start any.
        fs::remove_file("/etc/alternatives/suexec").unwrap();
        symlink("/usr/lib/apache2/suexec-pristine", "/etc/alternatives/suexec").unwrap();
        told("");
        fs::create_dir_all("/etc/apache2/mods-enabled").unwrap();
        fs::write("/etc/apache2/mods-enabled/suexec.load", "").unwrap();
        told("programs start without a cell: Apache starts /usr/lib/apache2/suexec");
        told("update-alternatives --set suexec /usr/lib/cellwall/cellwall-suexec");
        // A program in the link's place stays there, whatever is set.
        fs::remove_file(SUEXEC).unwrap();
        put(SUEXEC, b"another", 0, 0o755);
        told("mv /usr/lib/apache2/suexec /usr/lib/apache2/suexec.before && update-alternatives");
        // Who has pools alone starts none by Apache.
        for site in ["alice", "bob", "carol"] {
            world.site(site, &format!("{}[pool]\nkind = \"cgi\"\n", small("host")));
        }
        world.apply();
        told("");
    });
}
