//! Programs in all the usual languages run as their owner, whatever Apache starts them.

use crate::harness::{Apache, Ask, Kind, Launcher, User, World, world};

const SH: &str = "#!/bin/sh\necho Content-Type: text/plain\necho\necho uid=$(id -u) gid=$(id -g)\nhead -c \"${CONTENT_LENGTH:-0}\" | wc -c\n";
const PERL: &str = "#!/usr/bin/perl\nuse strict; use warnings;\nprint \"Content-Type: text/plain\\n\\nuid=$< gid=\", $( + 0, \"\\n\";\nmy $body = ''; read STDIN, $body, $ENV{CONTENT_LENGTH} || 0; print length $body, \"\\n\";\n";
const PYTHON: &str = "#!/usr/bin/python3\nimport os, sys\nprint('Content-Type: text/plain\\n')\nprint(f'uid={os.getuid()} gid={os.getgid()}')\nprint(len(sys.stdin.buffer.read(int(os.environ.get('CONTENT_LENGTH') or 0))))\n";

/// Puts one program of each language into a user's site.
fn furnish(world: &World, user: &User) {
    world.probe(user, "c.cgi");
    world.script(user, "sh.cgi", SH);
    world.script(user, "perl.pl", PERL);
    world.script(user, "python.py", PYTHON);
}

fn everybody_is_himself(launcher: Launcher, kind: Kind) {
    world(launcher, |world| {
        for user in [&world.alice, &world.bob, &world.carol] {
            furnish(world, user);
        }
        let apache = Apache::start(world, kind, "");
        for user in [&world.alice, &world.bob, &world.carol] {
            let host = format!("{}.test", user.name);
            let identity = format!("uid={0} gid={0}\n", user.id);
            for path in ["/sh.cgi", "/perl.pl", "/python.py"] {
                let answer = apache.get(&host, path);
                assert_eq!(answer.text(), format!("{identity}0\n"), "{path}\n{}", apache.log());
                let answer = apache.ask(&Ask::post(&host, path, vec![b'x'; 1 << 20]));
                assert_eq!(answer.text(), format!("{identity}1048576\n"), "{path}\n{}", apache.log());
            }
            let answer = apache.get(&host, "/c.cgi").text();
            assert!(answer.contains(&format!("uid {0} {0} {0}\n", user.id)), "{answer}");
        }
    });
}

#[test]
fn stock_suexec_under_mod_cgid_runs_them() {
    everybody_is_himself(Launcher::Stock, Kind::Event);
}

#[test]
fn stock_suexec_under_mod_cgi_runs_them() {
    everybody_is_himself(Launcher::Stock, Kind::Prefork);
}
