//! What was set up wrongly: each mistake's remedy is pasted, and what was asked for then comes.

use crate::harness::{Launcher, put, small, world};

use super::{pasted, repair, said};

#[test]
fn a_page_of_phps_without_a_handler_gets_one_and_no_x_bit() {
    world(Launcher::Cellwall, |world| {
        for rules in ["profile = \"perl\"\n", &small("view"), "profile = \"sh\"\npieces = [\"tz\"]\n"] {
            for (rights, code, status) in [(0o644, "V121", 121), (0o755, "V12", 255)] {
                world.sites(rules);
                let page = world.alice.docroot().join("a.php");
                put(&page, b"<?php echo 'a page';\n", world.alice.id, rights);
                world.call(&world.alice, "a.php").run().refused(code, status);
                let told = repair(world);
                assert_eq!(told, "cellwall set alice pieces php");
                assert!(pasted(&told));
                let outcome = world.call(&world.alice, "a.php").run();
                assert!(outcome.out_text().contains("a page"), "{rules}: {}", outcome.story());
            }
        }
        // A program that happens to have that ending keeps its own way.
        put(world.alice.docroot().join("b.php"), b"#!/bin/sh\n", world.alice.id, 0o644);
        world.sites("profile = \"perl\"\n");
        world.call(&world.alice, "b.php").run().refused("V121", 121);
        assert!(repair(world).starts_with("cellwall fix --apply alice "));
    });
}

/// Nobody sees it, and the kernel does not look behind it.
#[test]
fn a_byte_order_mark_before_the_first_line_is_taken_out() {
    world(Launcher::Cellwall, |world| {
        world.sites("profile = \"perl\"\n[jail]\nkind = \"host\"\n");
        world.script(&world.alice, "a.cgi", "\u{feff}#!/usr/bin/perl\nprint \"Status: 200\\n\\nright\";\n");
        world.call(&world.alice, "a.cgi").run().refused("V12", 255);
        let told = repair(world);
        assert!(told.contains("# takes the byte order mark out"), "{told}");
        assert!(pasted(&told));
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("right"), "{}", outcome.story());
    });
}

#[test]
fn a_group_that_the_web_server_names_wrongly_is_told_beside_the_sites_own() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").word(2, "33").run().refused("P108", 108);
        let told = repair(world);
        assert_eq!(
            told,
            "# the web server asks for group www-data, and the site's is alice: write SuexecUserGroup alice alice in its virtual host"
        );
    });
}

#[test]
fn an_account_that_is_gone_leads_to_the_file_that_names_it() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write("/etc/passwd", accounts.replace("\nalice:", "\nalyce:")).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P03", 83);
        let told = repair(world);
        assert_eq!(
            told,
            "cellwall check /etc/cellwall/sites.d/alice.toml # mend what it says, then: cellwall apply"
        );
        let checked = crate::harness::run(std::process::Command::new("sh").args(["-c", &told]));
        assert!(said(&checked).contains("is `alyce` now"), "{}", said(&checked));
    });
}

/// No file names a ~user: with the account its record goes, and the next visitor is told that there is no such site.
#[test]
fn of_a_user_who_is_gone_the_record_goes_and_no_file_is_named() {
    world(Launcher::Cellwall, |world| {
        std::fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        world.host("[userdir]\nenabled = true\n");
        world.apply();
        let place = world.alice.home().join("public_html");
        world.probe_at(&world.alice, place.join("a.cgi"));
        let user = format!("~{}", world.alice.id);
        let ask = || world.call(&world.alice, "a.cgi").word(1, &user).cwd(&place).run();
        ask().ran();
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write("/etc/passwd", accounts.replace("\nalice:", "\nalyce:")).unwrap();
        ask().refused("P03", 83);
        let told = repair(world);
        assert_eq!(told, "cellwall apply");
        assert!(pasted(&told));
        // The name of today has the site: alyce's, who has the uid and the directory.
        ask().ran();
    });
}

/// A directory service that is down must not have the files of all sites removed.
#[test]
fn while_the_name_service_finds_nobody_no_file_is_said_to_be_superfluous() {
    world(Launcher::Cellwall, |world| {
        let gone = std::fs::read_to_string("/etc/passwd").unwrap().replace("\nalice:x:", "\n#alice:x:");
        std::fs::write("/etc/passwd", gone).unwrap();
        let told = said(&world.cellwall(&["check"]));
        assert!(told.contains("rm /etc/cellwall/sites.d/alice.toml"), "{told}");
        std::fs::write("/etc/nsswitch.conf", "passwd: nothing\ngroup: files\n").unwrap();
        let told = said(&world.cellwall(&["check"]));
        assert!(told.contains("the name service finds nobody, not even root"), "{told}");
        assert!(!told.contains("rm /etc/cellwall"), "{told}");
    });
}
