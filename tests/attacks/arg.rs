//! The command line: ARG-01 to ARG-11 of the threat catalogue.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::harness::{CELLWALL, Launcher, User, each_jail, small, world};

#[test]
fn arg_01_02_too_few_words_are_no_request() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let id = world.alice.id.to_string();
        for words in [vec![], vec![CELLWALL], vec![CELLWALL, &id], vec![CELLWALL, &id, &id]] {
            world.call(&world.alice, "a.cgi").words(&words).run().refused("R101", 101);
        }
    });
}

#[test]
fn arg_03_07_09_10_a_command_is_one_plain_file_name() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let long = "x".repeat(5000);
        let commands = [
            "",
            ".",
            "..",
            "/a.cgi",
            "./a.cgi",
            "../htdocs/a.cgi",
            "sub/a.cgi",
            "a.cgi/",
            "sub/../a.cgi",
            "a\ncgi",
            "a\rcgi",
            "a\x1b[2Jcgi",
            "a\x7fcgi",
            &long,
        ];
        for command in commands {
            let refused = world.call(&world.alice, command).run().refused("R104", 104);
            assert!(refused.line.len() <= 1024, "a long line: {}", refused.line);
        }
    });
}

#[test]
fn arg_06_a_name_in_any_encoding_is_a_name() {
    each_jail(|world| {
        let name = OsStr::from_bytes(b"\xff\xfe.cgi");
        let refused = world.call(&world.alice, name).run().refused("V117", 117);
        assert!(refused.line.contains("\\xff\\xfe.cgi"), "{}", refused.line);
        let made = world.probe(&world.alice, "plain");
        std::fs::rename(&made, world.alice.docroot().join(name)).unwrap();
        world.call(&world.alice, name).run().ran();
    });
}

#[test]
fn arg_06_08_users_and_groups_are_plain_numbers() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let id = world.alice.id;
        let wrapped = (u64::from(u32::MAX) + 1 + u64::from(id)).to_string();
        let padded = format!("0{id}");
        let hexadecimal = format!("{id:#x}");
        let texts: [&[u8]; 14] = [
            b"",
            b"alice",
            b"-1",
            b"+30001",
            b" 30001",
            b"30001 ",
            b"30001x",
            b"#30001",
            b"4294967295",
            b"4294967296",
            wrapped.as_bytes(),
            padded.as_bytes(),
            hexadecimal.as_bytes(),
            b"\xff\xfe",
        ];
        for text in texts {
            let text = OsStr::from_bytes(text);
            world.call(&world.alice, "a.cgi").word(1, text).run().refused("R105", 105);
            world.call(&world.alice, "a.cgi").word(2, text).run().refused("R106", 106);
        }
        world.call(&world.alice, "a.cgi").word(1, "~").run().refused("R105", 105);
        world.call(&world.alice, "a.cgi").word(2, "--").run().refused("R106", 106);
        world.call(&world.alice, "-d").run().refused("V117", 117);
    });
}

#[test]
fn arg_04_arguments_arrive_whole() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let report = world.call(&world.alice, "a.cgi").arg("one").arg("").arg("a b\n").run().ran();
        assert_eq!(report.all("arg"), ["a.cgi", "one", "", "a b\\x0a"]);
        let long = world.call(&world.alice, "a.cgi").arg("y".repeat(120_000)).run().ran();
        assert_eq!(long.fact("argument_bytes"), (120_001 + 6).to_string());
    });
}

/// A probe stands for php-cgi and tells its words: the kernel's, which begin with the script, and no visitor's behind them.
#[test]
fn arg_12_a_visitors_words_are_no_options_of_a_scripts_own_php_cgi() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            let root = User { name: "root".to_owned(), id: 0 };
            world.probe_at(&root, "/usr/local/bin/php-cgi");
            world.probe_at(&root, "/usr/local/bin/other");
            world.site("alice", &format!("{}execute = [\"/usr/local/bin\"]\n", small(jail)));
            world.apply();
            let asked = ["-s", "-dallow_url_include=1"];
            for (name, words) in [("php-cgi", &[][..]), ("other", &asked)] {
                let interpreter = format!("/usr/local/bin/{name}");
                world.script(&world.alice, "a.cgi", format!("#!{interpreter}\n"));
                let report = world.call(&world.alice, "a.cgi").arg(asked[0]).arg(asked[1]).run().ran();
                let want = [&[interpreter.as_str(), "a.cgi"], words].concat();
                assert_eq!(report.all("arg"), want, "{}", report.text());
            }
        });
    }
}

#[test]
fn arg_05_a_hundred_thousand_arguments_arrive() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let many = world.call(&world.alice, "a.cgi").order(&["args", "100000", "x"]).run();
        assert_eq!(many.ran().fact("arguments"), "100001");
    });
}

#[test]
fn arg_11_settings_are_told_in_the_old_format_to_root_and_the_web_server() {
    world(Launcher::Cellwall, |world| {
        let web = world.call(&world.alice, "x").words(&[CELLWALL, "-V"]).run();
        let root = world.call(&world.alice, "x").words(&[CELLWALL, "-V"]).caller(0, 0, "0").run();
        let told = web.err_text();
        for one in [&web, &root] {
            assert_eq!((one.status.code(), one.err_text()), (Some(0), told.clone()), "{}", one.story());
            assert!(one.out.is_empty() && one.records.is_empty(), "{}", one.story());
        }
        for line in
            [" -D AP_DOC_ROOT=\"/var/www\"", " -D AP_HTTPD_USER=\"www-data\"", " -D AP_USERDIR_SUFFIX=\""]
        {
            assert!(told.lines().any(|own| own.starts_with(line)), "{line} is not in\n{told}");
        }
        for name in ["AP_GID_MIN=", "AP_UID_MIN=", "AP_SAFE_PATH=\""] {
            assert!(
                told.lines().any(|own| own.starts_with(&format!(" -D {name}"))),
                "{name} is not in\n{told}"
            );
        }
        let names: Vec<_> =
            told.lines().map(|line| line.trim_start_matches(" -D ").split('=').next().unwrap()).collect();
        assert!(names.is_sorted(), "suEXEC prints them in alphabetical order: {names:?}");
    });
}

#[test]
fn arg_11_settings_are_not_told_to_others() {
    world(Launcher::Cellwall, |world| {
        let bob = world.bob.id;
        let call = || world.call(&world.alice, "x").caller(bob, bob, "33");
        let few = call().words(&[CELLWALL, "-V"]).run();
        assert!(!few.err_text().contains("AP_DOC_ROOT"), "{}", few.story());
        few.refused("R101", 101);
        let many = call().words(&[CELLWALL, "-V", "1", "x"]).run();
        assert!(!many.err_text().contains("AP_DOC_ROOT"), "{}", many.story());
        many.refused_somehow();
    });
}
