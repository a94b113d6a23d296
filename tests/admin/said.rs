//! What a site's programs said, where no request was refused: PHP answers a mistake in a page with an empty 500 of its own.

use crate::harness::{CELLWALL, LOG, Launcher, append, everything, mode, put, run, world};
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

#[test]
fn what_programs_said_is_told_of_the_site_in_question_and_as_far_back_as_is_asked() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "a.cgi", "#!/bin/sh\n");
        world.sites(&everything("host"));
        world.call(&world.alice, "none.cgi").run().refused("V117", 117);
        let log = "/var/log/cellwall/cellwall.log";
        let line = |site: &str, number: u32| {
            append(
                log,
                &format!(
                    "2026-01-02T03:04:05.000006Z stderr site={site} worker=1 line=\"word {number} of {site}\"\n"
                ),
            );
        };
        (0..9).for_each(|number| line("alice", number));
        (0..9).for_each(|number| line("bob", number));
        let count = |words: &[&str], site: &str| {
            let said = world.cellwall(words);
            let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
            text.matches(&format!(" of {site}\"")).count()
        };
        for words in [&["why", "--last"][..], &["why", "--last", "alice"]] {
            assert_eq!((count(words, "alice"), count(words, "bob")), (5, 0), "{words:?}");
        }
        assert_eq!(count(&["why", "--last", "alice", "--said", "8"], "alice"), 8);
        assert_eq!(count(&["why", "--last", "--said", "100"], "alice"), 9);
        assert_eq!(count(&["why", "--last", "bob", "--said", "100"], "bob"), 9);
    });
}

/// The launcher's own sentence, with the reference of its record, is what Apache reads as well: a program of kind `cgi` has its error
/// output from it.
#[test]
fn what_the_launcher_refused_is_told_as_a_refusal_and_not_as_the_words_of_a_program() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", &format!("{}[pool]\nkind = \"cgi\"\n", everything("host")));
        world.apply();
        world.script(
            &world.alice,
            "a.cgi",
            "#!/bin/sh\necho spoken >&2\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n",
        );
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let logged = |part: &str| {
            until(part, || std::fs::read_to_string(LOG).unwrap_or_default().contains(part));
        };
        let why = |words: &str| {
            let said = world.cellwall(&words.split(' ').collect::<Vec<_>>());
            String::from_utf8([said.stdout, said.stderr].concat()).unwrap()
        };
        assert_eq!(nginx.get("alice", "/a.cgi").status, 200);
        logged("line=\"spoken\"");
        mode(world.alice.docroot().join("a.cgi"), 0o775);
        assert_eq!(nginx.get("alice", "/a.cgi").status, 500);
        logged("line=\"cellwall: refused, reference ");
        for words in ["why --last alice", "why --last", "why --last alice --json"] {
            let text = why(words);
            assert!(text.contains("V118") && !text.contains("cellwall: refused"), "{words}: {text}");
            assert!(!text.contains("since then"), "{words}: {text}");
        }
        // Which is refused once more by that, under another reference.
        let log = std::fs::read_to_string(LOG).unwrap();
        let reference = log.rsplit_once(" refuse ref=").unwrap().1.get(..9).unwrap();
        let launched = why("why --last alice --again");
        assert!(launched.contains(&format!("(V118): cellwall why {reference}")), "{launched}");
        assert!(launched.contains("\"spoken\"") && !launched.contains("\"cellwall: refused"), "{launched}");
        // No record has this reference: a program may say what it likes.
        let forged = "cellwall: refused, reference AAAA-AAAA";
        append(LOG, &format!("2026-01-02T03:04:05.000006Z stderr site=alice line=\"{forged}\"\n"));
        assert!(why("why --last alice").contains(&format!("\"{forged}\"")));
    });
}

/// A record in suEXEC's form names no site: the launcher's sentence among the site's words does.
#[test]
fn a_refusal_in_suexecs_form_is_told_of_the_site_whose_launcher_spoke() {
    world(Launcher::Cellwall, |world| {
        world.log_rules("to = \"file\"\nformat = \"suexec\"");
        world.call(&world.alice, "none.cgi").unrecorded();
        let log = std::fs::read_to_string(LOG).unwrap();
        let reference = log.rsplit_once("(reference ").unwrap().1.get(..9).unwrap();
        append(
            LOG,
            &format!(
                "[2026-01-02 03:04:05]: stderr site=alice line=\"cellwall: refused, reference {reference}\"\n"
            ),
        );
        let said = world.cellwall(&["why", "--last", "alice"]);
        let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
        assert!(text.contains(&format!("(V117): cellwall why {reference}")), "{text}");
        assert!(!text.contains("cellwall: refused"), "{text}");
        let said = world.cellwall(&["why", "--last", "bob"]);
        assert!(!String::from_utf8_lossy(&said.stderr).contains(reference), "{said:?}");
    });
}
