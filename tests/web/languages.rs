//! Programs in all the usual languages run as their owner, whatever Apache starts them.

use crate::harness::{Apache, Ask, Kind, Launcher, User, World, everything, world};

const SH: &str = "#!/bin/sh\necho Content-Type: text/plain\necho\necho uid=$(id -u) gid=$(id -g)\n\
                  head -c \"${CONTENT_LENGTH:-0}\" | wc -c\n";
const PERL: &str = "#!/usr/bin/perl\nuse strict; use warnings;\n\
                    print \"Content-Type: text/plain\\n\\nuid=$< gid=\", $( + 0, \"\\n\";\n\
                    my $body = ''; read STDIN, $body, $ENV{CONTENT_LENGTH} || 0; print length $body, \"\\n\";\n";
const PYTHON: &str = "#!/usr/bin/python3\nimport os, sys\nprint('Content-Type: text/plain\\n')\n\
                      print(f'uid={os.getuid()} gid={os.getgid()}')\n\
                      print(len(sys.stdin.buffer.read(int(os.environ.get('CONTENT_LENGTH') or 0))))\n";
const PHP: &str = "#!/usr/bin/php\nContent-Type: text/plain\n\n\
                   <?php $me = file_get_contents('php://stdin', false, null, 0, (int) getenv('CONTENT_LENGTH'));\n\
                   passthru('echo uid=$(id -u) gid=$(id -g)'); echo strlen($me), \"\\n\";\n";

/// Puts one program of each language into a user's site.
fn furnish(world: &World, user: &User) {
    world.probe(user, "c.cgi");
    world.script(user, "sh.cgi", SH);
    world.script(user, "perl.pl", PERL);
    world.script(user, "python.py", PYTHON);
    world.script(user, "php.cgi", PHP);
}

fn everybody_is_himself(launcher: Launcher, kind: Kind, jail: &str) {
    world(launcher, |world| {
        world.sites(&everything(jail));
        for user in [&world.alice, &world.bob, &world.carol] {
            furnish(world, user);
        }
        let apache = Apache::start(world, kind, "");
        for user in [&world.alice, &world.bob, &world.carol] {
            let host = format!("{}.test", user.name);
            let identity = format!("uid={0} gid={0}\n", user.id);
            for path in ["/sh.cgi", "/perl.pl", "/python.py", "/php.cgi"] {
                let answer = apache.get(&host, path);
                assert_eq!(answer.text(), format!("{identity}0\n"), "{path}\n{}", apache.log());
                let answer = apache.ask(&Ask::post(&host, path, vec![b'x'; 1 << 20]));
                assert_eq!(answer.text(), format!("{identity}1048576\n"), "{path}\n{}", apache.log());
            }
            let answer = apache.get(&host, "/c.cgi").text();
            assert!(answer.contains(&format!("uid {0} {0} {0}\n", user.id)), "{answer}");
        }
        if launcher == Launcher::Cellwall {
            let records = world.records();
            assert_eq!(records.len(), 27, "3 owners, 9 requests each");
            for record in &records {
                assert!(record.verb == "launch" && record.field("jail") == jail, "{}", record.line);
            }
        }
    });
}

#[test]
fn stock_suexec_under_mod_cgid_runs_them() {
    everybody_is_himself(Launcher::Stock, Kind::Event, "host");
}

#[test]
fn stock_suexec_under_mod_cgi_runs_them() {
    everybody_is_himself(Launcher::Stock, Kind::Prefork, "host");
}

#[test]
fn under_mod_cgid_in_a_view() {
    everybody_is_himself(Launcher::Cellwall, Kind::Event, "view");
}

#[test]
fn under_mod_cgi_in_a_view() {
    everybody_is_himself(Launcher::Cellwall, Kind::Prefork, "view");
}

#[test]
fn under_mod_cgid_on_the_hosts_root() {
    everybody_is_himself(Launcher::Cellwall, Kind::Event, "host");
}

#[test]
fn under_mod_cgi_on_the_hosts_root() {
    everybody_is_himself(Launcher::Cellwall, Kind::Prefork, "host");
}
