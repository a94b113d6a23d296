//! Which record `cellwall why` finds: by a reference, a site or a user, in whichever log and form it was written.

use std::os::unix::fs::{chown, symlink};

use crate::harness::{CELLWALL, LOG, Launcher, each_jail, make_directory, mode, put, small, world};

use super::{pasted, repair, said};

/// One that was taken over appends what it likes to the log, and answers what it likes.
#[test]
fn what_a_broker_says_steers_no_terminal() {
    world(Launcher::Cellwall, |world| {
        let record =
            "refuse ref=AAAA-BBBB code=P01 status=83 site=- pid=1 why=\"x\x1b[2J\" fix=\"cellwall apply\"";
        let lines = format!(
            "2026-01-02T03:04:05.000006Z {record}\n2026-01-02T03:04:05.\x1b[2J {}\n",
            record.replace("AAAA", "CCCC").replace('\x1b', "")
        );
        std::fs::write(LOG, lines).unwrap();
        make_directory("/run/cellwall", 0, 0o755);
        let broker = std::os::unix::net::UnixListener::bind("/run/cellwall/status.sock").unwrap();
        std::thread::spawn(move || {
            for client in broker.incoming() {
                let answer = b"HTTP/1.1 200 OK\r\n\r\nsite\tstate\n\x1b[2Jalice\tup\n";
                drop(std::io::Write::write_all(&mut client.unwrap(), answer));
            }
        });
        for words in [
            &["why", "AAAA-BBBB"][..],
            &["why", "CCCC-BBBB"],
            &["why", "--last"],
            &["status"],
            &["status", "--json"],
            &["top", "--count", "1", "--every", "1"],
        ] {
            let text = said(&world.cellwall(words));
            let begins = if words.contains(&"--json") { "{\"ok\":false," } else { "error: " };
            assert!(!text.contains('\x1b') && text.starts_with(begins), "{words:?}: {text:?}");
        }
    });
}

#[test]
fn the_last_refusal_of_a_site_is_found_without_its_reference() {
    world(Launcher::Cellwall, |world| {
        world.call(&world.alice, "first").run().refused("V117", 117);
        world.call(&world.bob, "second").run().refused("V117", 117);
        assert!(said(&world.cellwall(&["why", "--last"])).contains("htdocs/second"));
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("htdocs/first"));
        let json = said(&world.cellwall(&["why", "--last", "alice", "--json"]));
        assert!(json.contains("\"code\"") && json.contains("\"V117\""), "{json}");
        let none = world.cellwall(&["why", "0000-0000"]);
        assert_eq!(none.status.code(), Some(1));
        assert!(said(&none).contains("/var/log/cellwall/cellwall.log"), "{}", said(&none));
    });
}

#[test]
fn a_request_that_was_refused_before_its_site_was_known_is_the_sites_users() {
    world(Launcher::Cellwall, |world| {
        let other = world.bob.id.to_string();
        world.call(&world.alice, "a.cgi").word(2, &other).run().refused("P02", 83);
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("P02, exit status 83"));
        assert_eq!(world.cellwall(&["why", "--last", "bob"]).status.code(), Some(1));
    });
}

/// Apache passes numbers; who calls the launcher by hand passes names.
#[test]
fn a_request_with_names_in_the_place_of_numbers_is_found_by_its_site() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").word(1, "alice").run().refused("R105", 105);
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("R105, exit status 105"));
        assert_eq!(world.cellwall(&["why", "--last", "bob"]).status.code(), Some(1));
        // One that nobody is named by belongs to no site, and is told beside the site's last one.
        world.call(&world.bob, "nothing").run().refused("V117", 117);
        let nameless = world.call(&world.alice, "a.cgi").word(1, "nobodyhere").run().refused("R105", 105);
        let command = format!("cellwall why {}", nameless.field("ref"));
        for site in ["alice", "bob"] {
            let text = said(&world.cellwall(&["why", "--last", site]));
            assert!(text.contains("named no site (R105)") && text.contains(&command), "{text}");
        }
        // One for alice's is not told to bob.
        world.call(&world.bob, "nothing").run().refused("V117", 117);
        world.call(&world.alice, "a.cgi").word(1, "alice").run().refused("R105", 105);
        let text = said(&world.cellwall(&["why", "--last", "bob"]));
        assert!(!text.contains("named no site"), "{text}");
    });
}

#[test]
fn a_launch_can_be_asked_about_too() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        let text = said(&world.cellwall(&["why", outcome.records[0].field("ref")]));
        assert!(text.contains("was launched") && text.contains("landlock="), "{text}");
    });
}

#[test]
fn syslog_is_asked_where_records_go_there() {
    world(Launcher::Cellwall, |world| {
        let daemon = world.syslog();
        std::fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n[log]\nto = \"syslog\"\n")
            .unwrap();
        world.apply();
        daemon.heard();
        world.call(&world.alice, "missing").unrecorded();
        let heard = daemon.heard();
        // As rsyslog writes it on Debian.
        let line = heard[0].trim_start_matches("<86>").replacen(" cellwall", " host cellwall", 1);
        std::fs::write("/var/log/auth.log", format!("{line}\n")).unwrap();
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("V117") && text.contains("htdocs/missing"), "{text}");
    });
}

#[test]
fn a_reference_without_a_record_leads_to_the_launcher_itself() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let repaired = |kind: &str, reference: &str| {
            let told = said(&world.cellwall(&["why", reference]));
            assert!(told.contains(kind), "{kind} is not in\n{told}");
            let repair =
                told.lines().find_map(|line| line.trim().strip_prefix("repair: ")).unwrap().to_owned();
            let done = std::process::Command::new("sh").args(["-c", &repair]).status().unwrap();
            assert!(done.success(), "{repair}");
        };
        // Who has no right to write the record cannot leave one.
        mode(CELLWALL, 0o755);
        let refused = world.call(&world.alice, "a.cgi").unrecorded();
        let page = refused.err_text();
        let reference = page.split("reference ").nth(1).unwrap().split([' ', '\n']).next().unwrap();
        repaired("has mode 0755 and owner 0, not 4750 and root", reference);
        world.call(&world.alice, "a.cgi").run().ran();
        chown(CELLWALL, None, Some(world.bob.id)).unwrap();
        mode(CELLWALL, 0o4750);
        repaired("www-data is not in its group", "0000-0000");
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

/// Nothing was refused: then nothing is wrong with how the launcher is installed, and what was launched is what there is to ask about.
#[test]
fn of_a_site_that_nothing_was_refused_of_the_last_launch_is_shown() {
    world(Launcher::Cellwall, |world| {
        std::fs::create_dir_all("/etc/apache2/mods-enabled").unwrap();
        drop(std::fs::remove_file("/etc/apache2/mods-enabled/suexec.load"));
        world.probe(&world.alice, "a.cgi");
        let told = |words: &[&str]| said(&world.cellwall(words));
        let text = told(&["why", "--last", "alice"]);
        assert!(text.contains("Apache's module suexec is not enabled"), "{text}");
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        let text = told(&["why", "--last", "alice"]);
        assert!(text.contains("no refusal of site `alice` is recorded"), "{text}");
        assert!(!text.contains("found: "), "{text}");
        assert!(text.contains("its last launch: cellwall why --last alice --again"), "{text}");
        assert!(told(&["why", "--last", "bob"]).contains("found: "), "bob's programs were never asked for");
    });
}

#[test]
fn what_is_no_reference_and_what_is_no_site_is_told_so() {
    world(Launcher::Cellwall, |world| {
        let told = |words: &[&str]| said(&world.cellwall(words));
        assert!(told(&["why", "nonsense"]).contains("one looks like 7F3K-92QX"));
        assert!(told(&["why", "OOOO-IIII"]).contains("there is no record 0000-1111"));
        assert!(told(&["why", "--last", "alcie"]).contains("did you mean `alice`?"));
        assert!(told(&["policy", "nosuch"]).contains("its file would be /etc/cellwall/sites.d/nosuch.toml"));
        assert!(told(&["set", "alcie", "limits.memory", "1G"]).contains("did you mean `alice`?"));
        assert!(told(&["run", "alice", "--", "nosuchprogram"]).contains("name it in `execute`"));
    });
}

/// A year of a large host: what is asked for is found, in a fraction of the memory that its log would take.
#[test]
fn a_log_that_is_larger_than_the_memory_is_searched() {
    world(Launcher::Cellwall, |world| {
        let refused = world.call(&world.alice, "first").run().refused("V117", 117);
        let line =
            "2026-01-02T03:04:05.000006Z launch ref=AAAA-AAAA site=bob pid=7 dir=\"/srv\" script=\"x\"\n";
        let mut log = std::fs::File::options().append(true).open(LOG).unwrap();
        let block = line.repeat(10_000);
        while log.metadata().unwrap().len() < 72 << 20 {
            std::io::Write::write_all(&mut log, block.as_bytes()).unwrap();
        }
        world.call(&world.bob, "second").run().refused("V117", 117);
        for words in [vec![refused.field("ref")], vec!["--last", "alice"], vec!["--last"]] {
            // The program and its libraries take 10 MB of it.
            let text = format!("ulimit -v 60000; exec cellwall why {}", words.join(" "));
            let told = crate::harness::run(std::process::Command::new("sh").args(["-c", &text]));
            let name = if words == ["--last"] { "htdocs/second" } else { "htdocs/first" };
            assert!(told.status.success() && said(&told).contains(name), "{words:?}: {}", said(&told));
        }
    });
}

#[test]
fn a_rotated_log_is_read_whatever_its_name_is_and_packed_or_not() {
    world(Launcher::Cellwall, |world| {
        let rotations: [(&str, &[&str]); 5] = [
            (".3.gz", &["gzip"]),
            (".2", &[]),
            ("-20260102", &[]),
            ("-20260103.gz", &["gzip"]),
            (".1.xz", &["xz"]),
        ];
        let mut references = Vec::new();
        for (end, packer) in rotations {
            let refused = world.call(&world.alice, end).run().refused("V117", 117);
            references.push((refused.field("ref").to_owned(), end));
            let (plain, _) = end.split_once(".gz").or(end.split_once(".xz")).unwrap_or((end, ""));
            let rotated = format!("{LOG}{plain}");
            std::fs::rename(LOG, &rotated).unwrap();
            for packer in packer {
                let packed = crate::harness::run(std::process::Command::new(packer).arg(&rotated));
                assert!(packed.status.success(), "{packer}");
            }
        }
        put(format!("{LOG}.save"), b"an editor's", 0, 0o600);
        world.call(&world.bob, "last").run().refused("V117", 117);
        for (reference, end) in references {
            let told = world.cellwall(&["why", &reference]);
            assert!(
                told.status.success() && said(&told).contains(&format!("htdocs/{end}:")),
                "{}",
                said(&told)
            );
        }
        // The youngest first.
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("htdocs/.1.xz:"));
        let none = said(&world.cellwall(&["why", "0000-0000"]));
        assert!(none.contains("cellwall.log-20260103.gz") && !none.contains(".save"), "{none}");
    });
}

#[test]
fn a_reference_in_suexecs_form_of_the_log_is_found_and_what_is_lacking_told() {
    world(Launcher::Cellwall, |world| {
        world.log_rules("format = \"suexec\"");
        world.call(&world.alice, "missing").unrecorded();
        let log = std::fs::read_to_string(LOG).unwrap();
        let reference = log.split("(reference ").last().unwrap().get(..9).unwrap().to_owned();
        let told = world.cellwall(&["why", &reference]);
        let text = said(&told);
        assert!(told.status.success(), "{text}");
        for part in [
            "htdocs/missing: No such file",
            "V117",
            "ls -l /var/www/alice/htdocs",
            "format = \"suexec\" holds no more",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("of the pool"), "{text}");
        assert!(said(&world.cellwall(&["why", "--last"])).contains(&reference));
        // What a pool's program says stands in the same file, and is none.
        let mut file = std::fs::File::options().append(true).open(LOG).unwrap();
        for line in [
            "stderr site=bob worker=1 line=\"x (reference AAAA-AAAA, V118)\"",
            "x (reference BBBB-BBBB, V999)",
        ] {
            std::io::Write::write_all(&mut file, format!("[2026-01-02 03:04:05]: {line}\n").as_bytes())
                .unwrap();
        }
        for reference in ["AAAA-AAAA", "BBBB-BBBB"] {
            assert_eq!(world.cellwall(&["why", reference]).status.code(), Some(1), "{reference}");
        }
    });
}

#[test]
fn a_site_that_there_is_not_is_no_reason_to_look_at_the_installation() {
    world(Launcher::Cellwall, |world| {
        mode(CELLWALL, 0o755);
        let text = said(&world.cellwall(&["why", "--last", "alise"]));
        assert!(text.contains("did you mean `alice`?") && !text.contains("found:"), "{text}");
        assert!(said(&world.cellwall(&["why", "--last", "alice"])).contains("found:"));
    });
}

#[test]
fn a_record_in_suexecs_form_has_the_status_of_its_code() {
    world(Launcher::Cellwall, |world| {
        world.log_rules("format = \"suexec\"");
        mode(world.alice.docroot().join("a.cgi"), 0o777);
        world.call(&world.alice, "a.cgi").unrecorded();
        let text = said(&world.cellwall(&["why", "--last"]));
        assert!(text.contains("\n  V118, exit status 118. More:"), "{text}");
        let json = said(&world.cellwall(&["why", "--last", "--json"]));
        assert!(json.contains("\"status\":\"118\""), "{json}");
    });
}

#[test]
fn a_site_without_a_record_is_found_by_the_user_that_its_file_names() {
    world(Launcher::Cellwall, |world| {
        let dave = world.another("dave", 0);
        world.probe(&dave, "a.cgi");
        world.site("dave", &small("host"));
        // Written, and never applied.
        world.call(&dave, "a.cgi").run().refused("P121", 121);
        let text = said(&world.cellwall(&["why", "--last", "dave"]));
        assert!(text.contains("P121, exit status 121"), "{text}");
        assert!(pasted(&repair(world)));
        world.call(&dave, "a.cgi").run().ran();
        put(format!("/var/lib/cellwall/policy/{}", dave.id), b"nonsense", 0, 0o600);
        world.call(&dave, "a.cgi").run().refused("P01", 83);
        let text = said(&world.cellwall(&["why", "--last", "dave"]));
        assert!(text.contains("P01, exit status 83"), "{text}");
    });
}

/// People paste what they have: the page's sentence, a line of the web server's error log, a field of the record.
#[test]
fn a_reference_is_found_in_what_was_pasted_around_it() {
    world(Launcher::Cellwall, |world| {
        let refused = world.call(&world.alice, "nosuch.cgi").run().refused("V117", 117);
        let reference = refused.field("ref");
        let small = reference.to_lowercase();
        for text in [
            format!("Reference: {reference}"),
            format!("The server could not answer this request. Reference: {small}"),
            format!("cellwall: refused, reference {reference}"),
            format!("ref={reference}"),
            format!(
                "[Fri Nov 27 08:45:38 2026] [cgid:error] stderr from /srv/www-data/a.cgi: cellwall: refused, reference {reference}\n"
            ),
        ] {
            let told = world.cellwall(&["why", &text]);
            assert!(told.status.success(), "{text}: {}", said(&told));
            assert!(said(&told).starts_with(reference), "{text}: {}", said(&told));
        }
        let none = said(&world.cellwall(&["why", "Reference: A-B"]));
        assert!(none.starts_with("error: `Reference: A-B` is no reference\n"), "{none}");
        let odd = std::process::Command::new("cellwall").args(["why"]).arg(not_utf8("A")).output().unwrap();
        assert_eq!(odd.status.code(), Some(1), "{}", said(&odd));
        assert!(said(&odd).contains("is no reference"), "{}", said(&odd));
    });
}

fn not_utf8(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec([text.as_bytes(), b"\xfc"].concat())
}

/// What failed without any refusal stands in the web server's log, or where PHP was told to write.
#[test]
fn without_a_refusal_the_web_servers_log_and_phps_own_are_told() {
    world(Launcher::Cellwall, |world| {
        std::fs::create_dir_all("/var/log/apache2").unwrap();
        let lines = "[cgid:error] AH01215: first: /var/www/alice/htdocs/a.cgi\n[cgid:error] of bob: /var/www/bob/htdocs/a.cgi\n\
                     [cgid:error] odd \u{1b}[2J: /var/www/alice/htdocs/a.cgi\n";
        put("/var/log/apache2/error.log", lines.as_bytes(), 0, 0o640);
        put("/srv/other", b"secret: /var/www/alice/htdocs/\n", 0, 0o600);
        symlink("/srv/other", "/var/log/apache2/linked-error.log").unwrap();
        make_directory("/etc/cellwall/php", 0, 0o755);
        make_directory("/etc/cellwall/php/alice", 0, 0o755);
        put("/etc/cellwall/php/alice/values.ini", b"error_log = /var/www/alice/htdocs/php.log\n", 0, 0o644);
        let text = said(&world.cellwall(&["why", "--last", "alice"]));
        for part in [
            "server: \"[cgid:error] AH01215: first: /var/www/alice/htdocs/a.cgi\" (/var/log/apache2/error.log)",
            "odd \\x1b[2J",
            "its PHP writes errors to /var/www/alice/htdocs/php.log, by /etc/cellwall/php/alice/values.ini",
            "run: cellwall run alice -- tail -n 5 /var/www/alice/htdocs/php.log",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("of bob") && !text.contains("secret"), "{text}");
        let text = said(&world.cellwall(&["why", "--last", "bob"]));
        assert!(text.contains("of bob") && !text.contains("its PHP"), "{text}");
    });
}
