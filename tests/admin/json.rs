//! `--json` of the commands that panels call.

use std::fs;

use crate::harness::{Launcher, World, everything, make_directory, mode, put, small, world};
use crate::host::{Daemon, until};

/// One line of JSON as Perl reads it, printed with its names in order; and the status.
fn json(world: &World, words: &[&str]) -> (String, Option<i32>) {
    let said = world.cellwall(words);
    let text = String::from_utf8(said.stdout).unwrap();
    put("/tmp/said.json", text.as_bytes(), 0, 0o644);
    let read = "use JSON::PP; local $/; open F, '/tmp/said.json'; print JSON::PP->new->canonical->encode(decode_json(<F>))";
    let again = crate::harness::run(std::process::Command::new("/usr/bin/perl").args(["-e", read]));
    assert!(again.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&again.stderr));
    (String::from_utf8(again.stdout).unwrap(), said.status.code())
}

fn has(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "{part} is not in\n{text}"));
}

#[test]
fn explain_tells_a_code_and_each_stage_of_a_rehearsal() {
    world(Launcher::Cellwall, |world| {
        let (text, status) = json(world, &["explain", "--json", "v118"]);
        assert_eq!(status, Some(0));
        has(
            &text,
            &["\"code\":\"V118\"", "\"status\":\"118\"", "\"means\":\"The program is writable by others.\""],
        );
        let probe = world.probe(&world.alice, "a.cgi");
        let words = ["explain", "--json", "alice", "alice", "/var/www/alice/htdocs", "a.cgi"];
        let (text, status) = json(world, &words);
        assert_eq!(status, Some(0));
        has(&text, &["\"ok\":true", "\"refused\":null", "\"stage\":\"request\"", "\"stage\":\"exec\""]);
        mode(&probe, 0o775);
        let (text, status) = json(world, &words);
        assert_eq!(status, Some(1));
        has(
            &text,
            &["\"ok\":false", "\"code\":\"V118\"", "\"stage\":\"verify\"", "cellwall fix --apply alice"],
        );
    });
}

#[test]
fn set_tells_what_apply_did_and_what_is_wrong() {
    world(Launcher::Cellwall, |world| {
        let (text, status) = json(world, &["set", "--json", "alice", "limits.memory", "300M"]);
        assert_eq!(status, Some(0), "{text}");
        has(&text, &["\"ok\":true", "\"problems\":[]", "\"dry_run\":false"]);
        let (text, status) = json(world, &["set", "alice", "limits.memory", "3 parsecs", "--json"]);
        assert_eq!(status, Some(1), "{text}");
        has(&text, &["\"ok\":false", "`3 parsecs` is no size"]);
    });
}

#[test]
fn pool_tells_its_outcome_in_one_word_and_top_all_sites_in_one_line() {
    world(Launcher::Cellwall, |world| {
        let (text, status) = json(world, &["pool", "--json", "restart", "alice"]);
        assert_eq!(status, Some(3), "{text}");
        has(&text, &["\"ok\":false", "\"outcome\":\"silent\"", "\"site\":\"alice\""]);
        world.site("alice", &format!("{}[pool]\ncommand = \"/usr/bin/php-cgi\"\n", everything("host")));
        world.apply();
        let _daemon = Daemon::start(world);
        let (text, status) = json(world, &["pool", "restart", "alice", "--json"]);
        assert_eq!(
            (text.as_str(), status),
            ("{\"help\":null,\"message\":null,\"ok\":true,\"outcome\":\"done\",\"site\":\"alice\"}", Some(0))
        );
        let (text, status) = json(world, &["deployed", "bob", "--json"]);
        assert_eq!(status, Some(1), "{text}");
        has(&text, &["\"outcome\":\"unknown\"", "the daemon serves no pool `bob`", "cellwall apply"]);
        until("the site's name", || {
            let (text, status) = json(world, &["top", "--json", "--count", "1", "--every", "1"]);
            assert_eq!(status, Some(0), "{text}");
            has(&text, &["\"milliseconds\":", "\"sites\":["]);
            text.contains("\"requests_per_second\":0") && text.contains("\"site\":\"alice\"")
        });
    });
}

#[test]
fn learn_tells_what_it_proposes_and_what_not_and_the_commands() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        make_directory("/srv/data", 0, 0o755);
        put("/srv/data/one", b"x", 0, 0o644);
        let (text, status) =
            json(world, &["learn", "--json", "alice", "--", "/bin/cat", "/srv/data/one", "/etc/shadow"]);
        assert_eq!(status, Some(0), "{text}");
        has(&text, &["\"key\":\"files.read\"", "\"item\":\"/srv/data/one\"", "\"site\":\"alice\""]);
        has(
            &text,
            &[
                "\"commands\":[\"cellwall set alice ",
                "\"notes\":[",
                "status 1: what comes after that is not known",
            ],
        );
    });
}

#[test]
fn import_tells_each_sites_file_and_what_it_wrote() {
    world(Launcher::Cellwall, |world| {
        let dump = "<VirtualHost *:80>\n  ServerName rose.example\n  DocumentRoot /var/www/alice/htdocs\n  SuexecUserGroup alice alice\n</VirtualHost>\n";
        put("/tmp/dump", dump.as_bytes(), 0, 0o644);
        let (text, status) = json(world, &["import", "--json", "/tmp/dump"]);
        assert_eq!(status, Some(0), "{text}");
        has(
            &text,
            &[
                "\"file\":\"/etc/cellwall/sites.d/rose.example.toml\"",
                "user = \\\"alice\\\"",
                "\"written\":[]",
            ],
        );
        fs::create_dir("/tmp/sites").unwrap();
        let (text, status) = json(world, &["import", "--json", "--to", "/tmp/sites", "/tmp/dump"]);
        assert_eq!(status, Some(0), "{text}");
        has(&text, &["\"written\":[\"/tmp/sites/rose.example.toml\"]", "\"left_out\":["]);
        assert!(fs::read_to_string("/tmp/sites/rose.example.toml").unwrap().contains("alice"));
    });
}

/// Who imports again, or where a site's file has another name, learns it without a word of stderr.
#[test]
fn import_tells_what_stays_as_it_is_and_what_left_no_site_over() {
    world(Launcher::Cellwall, |world| {
        let host = |name: &str, user: &str| {
            format!(
                "<VirtualHost *:80>\n  ServerName {name}.example\n  DocumentRoot /var/www/{user}/htdocs\n  \
                 SuexecUserGroup {user} {user}\n</VirtualHost>\n"
            )
        };
        put("/tmp/dump", (host("rose", "alice") + &host("fern", "bob")).as_bytes(), 0, 0o644);
        fs::create_dir("/tmp/sites").unwrap();
        put("/tmp/sites/garden.toml", b"user = \"bob\"\ndocroot = \"/var/www/bob/htdocs\"\n", 0, 0o644);
        let words = ["import", "--json", "--to", "/tmp/sites", "/tmp/dump"];
        let garden = "{\"file\":\"/tmp/sites/garden.toml\",\"not_written\":\"/tmp/sites/fern.example.toml\",\
                      \"reason\":\"has docroot /var/www/bob/htdocs already\"}";
        let rose = "{\"file\":\"/tmp/sites/rose.example.toml\",\"not_written\":\"/tmp/sites/rose.example.toml\",\
                    \"reason\":\"is there already\"}";
        for (stays, written) in [
            (format!("\"stays\":[{garden}]"), "\"written\":[\"/tmp/sites/rose.example.toml\"]"),
            (format!("\"stays\":[{garden},{rose}]"), "\"written\":[]"),
        ] {
            let (text, status) = json(world, &words);
            assert_eq!(status, Some(0), "{text}");
            has(&text, &[&stays, written]);
            assert_eq!(String::from_utf8(world.cellwall(&words).stderr).unwrap(), "");
            fs::remove_file("/tmp/sites/rose.example.toml").unwrap();
            world.cellwall(&["import", "--to", "/tmp/sites", "/tmp/dump"]);
        }
        // None is left: why, is the evidence.
        put(
            "/tmp/dump",
            host("old", "nobodyhere").replace("SuexecUserGroup", "Options").as_bytes(),
            0,
            0o644,
        );
        let (text, status) = json(world, &["import", "--json", "/tmp/dump"]);
        assert_eq!(status, Some(1), "{text}");
        has(&text, &["\"evidence\":[\"left out: ", "old.example"]);
    });
}

/// A panel reads one object from stdout, whatever went wrong, and needs no word of stderr.
#[test]
fn what_keeps_a_command_from_its_work_is_an_object_with_code_evidence_and_remedy() {
    world(Launcher::Cellwall, |world| {
        let wrong: [(&[&str], i32, &str, &str); 8] = [
            (&["policy", "alise"], 1, "\"code\":\"asked\"", "# did you mean `alice`?"),
            (&["why", "--last", "alise"], 1, "there is no site `alise`", "# did you mean `alice`?"),
            (&["why", "ZZZZ-ZZZZ"], 1, "there is no record ZZZZ-ZZZZ", "\"remedy\":"),
            (&["fix", "alise"], 1, "there is no site `alise`", "# did you mean"),
            (&["jail", "check", "alise"], 1, "there is no site `alise`", "# did you mean"),
            (&["jail", "show", "alise"], 1, "there is no site `alise`", "# did you mean"),
            (&["status"], 3, "\"code\":\"failed\"", "cellwalld"),
            (&["why", "--no-such-thing"], 2, "\"code\":\"usage\"", "\"remedy\":\"cellwall why --help\""),
        ];
        for (words, status, part, remedy) in wrong {
            let (text, ended) = json(world, &[words, &["--json"][..]].concat());
            assert_eq!(ended, Some(status), "{words:?}: {text}");
            has(&text, &["\"ok\":false", "\"message\":\"", "\"evidence\":[", part, remedy]);
        }
        mode("/usr/bin/cellwall", 0o755);
        let said = crate::harness::run(std::process::Command::new("setpriv").args([
            "--reuid=33",
            "--regid=33",
            "--clear-groups",
            "cellwall",
            "why",
            "--last",
            "a b",
            "--json",
        ]));
        let text = String::from_utf8(said.stdout).unwrap();
        assert_eq!(said.status.code(), Some(3), "{text}");
        has(
            &text,
            &["\"remedy\":\"sudo cellwall why --last 'a b' --json\"", "only root can read the records"],
        );
    });
}

/// A command of several words has its own help, and what it lacks stands in the message itself.
#[test]
fn an_incomplete_command_of_several_words_is_told_what_it_lacks_and_its_own_help() {
    world(Launcher::Cellwall, |world| {
        let wrong: [(&[&str], &str, &str); 4] = [
            (
                &["jail", "build", "/srv/jails/a"],
                "not provided: <--site <SITE>|--piece <PIECE>|--program <PATH>>\"",
                "cellwall jail build --help",
            ),
            (&["jail", "check"], "not provided: <SITE>\"", "cellwall jail check --help"),
            (&["pool", "restart"], "not provided: <SITE>\"", "cellwall pool restart --help"),
            (&["jail", "mend", "alice"], "unrecognized subcommand 'mend'\"", "cellwall jail --help"),
        ];
        for (words, message, help) in wrong {
            let (text, status) = json(world, &[words, &["--json"][..]].concat());
            assert_eq!(status, Some(2), "{words:?}: {text}");
            has(&text, &[message, &format!("\"remedy\":\"{help}\"")]);
            let words: Vec<&str> = help.split(' ').skip(1).collect();
            assert!(world.cellwall(&words).status.success(), "{help}");
        }
    });
}

/// What can be asked in several ways names them all, and one that works; people read the same.
#[test]
fn of_a_command_that_can_be_asked_in_several_ways_one_that_works_is_told() {
    world(Launcher::Cellwall, |world| {
        world.call(&world.alice, "missing").run().refused("V117", 117);
        let learn = "cellwall learn alice --traffic 1m";
        let wrong: [(&[&str], &str, &str); 4] = [
            (&["why"], "<REFERENCE|--last [<SITE>]>", "cellwall why --last"),
            (&["why", "--again"], "<REFERENCE|--last [<SITE>]>", "cellwall why --last"),
            (&["learn"], "<--request <PATH>|--traffic [<TIME>]|COMMAND>", learn),
            (
                &["learn", "bob"],
                "<--request <PATH>|--traffic [<TIME>]|COMMAND>",
                "cellwall learn bob --traffic 1m",
            ),
        ];
        for (words, lacking, command) in wrong {
            let said = world.cellwall(words);
            let told = String::from_utf8(said.stderr).unwrap();
            assert_eq!(said.status.code(), Some(2), "{told}");
            assert!(told.contains(lacking), "{words:?}: {told}");
            assert!(told.contains(&format!("\nhelp: run: {command} # ")), "{words:?}: {told}");
            // `--again` has no object.
            if !words.contains(&"--again") {
                let (text, status) = json(world, &[words, &["--json"][..]].concat());
                assert_eq!(status, Some(2), "{text}");
                has(&text, &[lacking, &format!("\"remedy\":\"{command} # ")]);
            }
        }
        // As it is pasted.
        let pasted =
            |command: &str| crate::harness::run(std::process::Command::new("sh").args(["-c", command]));
        assert!(pasted("cellwall why --last # the last refusal").status.success());
        for words in
            [&["why", "AAAA-BBBB", "--last"][..], &["learn", "alice", "--traffic", "1s", "--request", "/x"]]
        {
            assert_eq!(world.cellwall(words).status.code(), Some(2), "{words:?}");
        }
    });
}

/// Words that people take for the right ones are told with those that are.
#[test]
fn words_in_another_order_are_told_with_the_command_that_was_meant() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "missing").run().refused("V117", 117);
        let path = "/var/www/alice/htdocs/a.cgi";
        let wrong: [(&[&str], i32, &str); 5] = [
            (&["explain", "alice", path], 2, "cellwall explain alice alice /var/www/alice/htdocs a.cgi"),
            (
                &["explain", "alice", "alice", path],
                2,
                "cellwall explain alice alice /var/www/alice/htdocs a.cgi",
            ),
            (&["why", "alice"], 1, "cellwall why --last alice"),
            (&["fix", path], 1, "ls /etc/cellwall/sites.d #"),
            (&["policy", "sites.d/nothing"], 1, "ls /etc/cellwall/sites.d #"),
        ];
        for (words, status, command) in wrong {
            let said = world.cellwall(words);
            let told = String::from_utf8(said.stderr).unwrap();
            assert_eq!(said.status.code(), Some(status), "{words:?}: {told}");
            let help = told.lines().find_map(|line| line.trim().strip_prefix("help: run: "));
            let help = help.unwrap_or_else(|| panic!("{words:?}: {told}"));
            assert!(help.starts_with(command), "{words:?}: {told}");
            let done = crate::harness::run(std::process::Command::new("sh").args(["-c", help]));
            assert!(done.status.success(), "{help}: {done:?}");
        }
        // No path, no guess.
        let told = String::from_utf8(world.cellwall(&["explain", "alice", "a.cgi"]).stderr).unwrap();
        assert!(!told.contains("help"), "{told}");
    });
}

/// Each file that import is to read, and the directory that it is to write to, may not be there.
#[test]
fn what_import_does_not_find_is_told_with_the_command_that_makes_it() {
    world(Launcher::Cellwall, |world| {
        let dump = "<VirtualHost *:80>\n  ServerName rose.example\n  DocumentRoot /var/www/alice/htdocs\n  SuexecUserGroup alice alice\n</VirtualHost>\n";
        put("/tmp/dump", dump.as_bytes(), 0, 0o644);
        put("/tmp/pools.conf", b"[alice]\nuser = alice\nlisten = /run/a.sock\npm = static\n", 0, 0o644);
        let wrong: [(&[&str], &str); 4] = [
            (&["/tmp/my dump"], "-t -DDUMP_CONFIG > '/tmp/my dump'"),
            (&["--php-fpm", "--pools", "/tmp/no.conf"], "ls /etc/php/*/fpm/pool.d/*.conf"),
            (&["--php-fpm", "--pools", "/tmp/pools.conf", "--nginx", "/tmp/no"], "nginx -T > /tmp/no"),
            (&["--to", "/srv/new sites", "/tmp/dump"], "mkdir -p '/srv/new sites'"),
        ];
        for (words, remedy) in wrong {
            let (text, status) = json(world, &[&["import", "--json"], words].concat());
            assert_eq!(status, Some(1), "{words:?}: {text}");
            has(&text, &["\"code\":\"asked\"", "No such file or directory", remedy]);
        }
        // The last one's, as it is pasted.
        let again = "mkdir -p '/srv/new sites' && cellwall import --to '/srv/new sites' /tmp/dump";
        assert!(crate::harness::run(std::process::Command::new("sh").args(["-c", again])).status.success());
        for name in ["/usr/sbin/apache2ctl", "/usr/sbin/httpd"] {
            drop(fs::remove_file(name));
        }
        let (text, status) = json(world, &["import", "--json"]);
        assert_eq!(status, Some(1), "{text}");
        has(&text, &["there is no Apache on this host", "cellwall import FILE"]);
    });
}
