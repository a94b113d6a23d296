//! What a hacked site reaches: its own, what its rules list, and nothing else.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Apache, Ask, Kind, Launcher, Report, World, everything, make_directory, mode, put, virtual_host, world,
};

/// Tries each line of the body, and tells how it went.
const TRY: &str = r#"#!/usr/bin/perl
use strict; use warnings; use Errno; use Socket;
sub name { for (sort keys %!) { return $_ if $!{$_} } return 'unknown' }
my ($file, $text, $directory, $s);
my %try = (
    stat => sub { stat $_[0] },
    read => sub { open($file, '<', $_[0]) && defined(read $file, $text, 1) },
    write => sub { open($file, '>>', $_[0]) && close $file },
    list => sub { opendir $directory, $_[0] },
    make => sub { mkdir $_[0] },
    kill => sub { kill 0, $_[0] },
    connect => sub { socket($s, PF_INET, SOCK_STREAM, 0) && connect $s, pack_sockaddr_in($_[0], INADDR_LOOPBACK) },
    bind => sub { socket($s, PF_INET, SOCK_STREAM, 0) && bind $s, pack_sockaddr_in($_[0], INADDR_LOOPBACK) },
    raw => sub { socket($s, PF_INET, SOCK_RAW, 1) },
    packet => sub { socket($s, 17, SOCK_RAW, 0) },
    unix => sub { socket($s, PF_UNIX, SOCK_STREAM, 0) && connect $s, pack_sockaddr_un($_[0]) },
);
print "Content-Type: text/plain\n\n";
while (my $line = <STDIN>) {
    my ($how, $what) = $line =~ /^(\w+) (.*)$/ or next;
    print "$how $what: ", ($try{$how}->($what) ? 'ok' : name()), "\n";
}
"#;

/// What came of the lines.
fn attempts(apache: &Apache, host: &str, lines: &[String]) -> Vec<(String, String)> {
    let answer = apache.ask(&Ask::post(host, "/try.pl", lines.join("\n") + "\n"));
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), apache.log());
    let told = answer.text();
    let all: Vec<_> = told.lines().map(|line| line.rsplit_once(": ").unwrap()).collect();
    assert_eq!(all.len(), lines.len(), "{told}\n{}", apache.log());
    all.into_iter().map(|(what, how)| (what.to_owned(), how.to_owned())).collect()
}

fn all_are(apache: &Apache, host: &str, expected: &str, lines: &[String]) {
    for (what, how) in attempts(apache, host, lines) {
        assert_eq!(how, expected, "{what} at {host}\n{}", apache.log());
    }
}

fn lines(how: &str, what: &[&str]) -> Vec<String> {
    what.iter().map(|what| format!("{how} {what}")).collect()
}

/// Things of others that anybody on the host could read.
const FOREIGN: [&str; 14] = [
    "/var/www/bob/htdocs/config.php",
    "/var/www/bob",
    "/home/bob/notes",
    "/home/bob",
    "/home",
    "/root",
    "/var/log",
    "/var/log/cellwall/cellwall.log",
    "/tmp/apache/error.log",
    "/etc/shadow",
    "/etc/login.defs",
    "/etc/cellwall/cellwall.toml",
    "/var/lib/cellwall/policy",
    "/usr/sbin/apache2",
];

fn furnish(world: &World) {
    for name in ["config.php", "own.txt"] {
        put(world.bob.docroot().join(name), b"secret of bob", world.bob.id, 0o644);
    }
    put(world.bob.home().join("notes"), b"secret of bob", world.bob.id, 0o644);
    for user in [&world.alice, &world.bob] {
        world.script(user, "try.pl", TRY);
    }
}

#[test]
fn what_is_not_listed_does_not_exist_in_a_view() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            furnish(world);
            let apache = Apache::start(world, kind, "");
            for how in ["stat", "read"] {
                all_are(&apache, "alice.test", "ENOENT", &lines(how, &FOREIGN));
            }
            all_are(
                &apache,
                "alice.test",
                "ENOENT",
                &lines("stat", &["/proc", "/sys", "/run", "/srv", "/boot", "/mnt"]),
            );
            // The same lines see all of it where nothing stands between: the test looks at the right places.
            for path in FOREIGN {
                assert!(fs::exists(path).unwrap(), "{path}");
            }
            all_are(&apache, "bob.test", "ok", &lines("read", &["/var/www/bob/htdocs/config.php"]));
            all_are(
                &apache,
                "alice.test",
                "ok",
                &lines("read", &["/var/www/alice/htdocs/try.pl", "/etc/passwd"]),
            );
        });
    }
}

#[test]
fn a_view_has_a_tmp_of_its_own_and_nothing_else_to_write_to() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        furnish(world);
        let apache = Apache::start(world, Kind::Event, "");
        all_are(
            &apache,
            "alice.test",
            "ok",
            &lines("write", &["/tmp/mine", "/var/tmp/mine", "/var/marks/alice/x"]),
        );
        assert!(!fs::exists("/tmp/mine").unwrap(), "it is the host's /tmp");
        all_are(&apache, "alice.test", "ok", &lines("stat", &["/tmp/mine", "/var/tmp/mine"]));
        all_are(&apache, "bob.test", "ENOENT", &lines("stat", &["/tmp/mine", "/var/tmp/mine"]));
        for (what, how) in attempts(
            &apache,
            "alice.test",
            &lines(
                "write",
                &[
                    "/var/www/alice/htdocs/try.pl",
                    "/etc/passwd",
                    "/usr/bin/perl",
                    "/new",
                    "/usr/bin/new",
                    "/dev/new",
                ],
            ),
        ) {
            assert!(["EACCES", "EROFS", "EPERM"].contains(&how.as_str()), "{what}: {how}");
        }
    });
}

#[test]
fn names_of_other_users_are_not_told_in_a_view() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let text = "#!/bin/sh\necho Content-Type: text/plain\necho\ncat /etc/passwd /etc/group\nid bob 2>&1\nid -un\n\
                    ls / /dev /var 2>&1\n";
        world.script(&world.alice, "a.cgi", text);
        let apache = Apache::start(world, Kind::Event, "");
        let told = apache.get("alice.test", "/a.cgi").text();
        assert!(told.contains("alice:x:") && told.contains("\nalice\n"), "{told}");
        for word in ["bob:", "carol", "www-data", "mem", "sda", "kmsg", "log\n"] {
            assert!(!told.contains(word), "{word} is in\n{told}");
        }
    });
}

#[test]
fn other_processes_are_out_of_sight_and_reach() {
    world(Launcher::Cellwall, |world| {
        world.site("bob", &everything("view"));
        world.site("carol", &everything("view"));
        world.site("alice", &everything("view").replace("[files]", "processes = true\n[files]"));
        world.apply();
        furnish(world);
        let text = "#!/usr/bin/perl\n$| = 1; print \"Content-Type: text/plain\\n\\n$$\\n\"; sleep 6;\n";
        world.script(&world.bob, "long.pl", text);
        world.script(
            &world.alice,
            "ps.cgi",
            "#!/bin/sh\necho Content-Type: text/plain\necho\nfor p in /proc/[0-9]*; do stat -c '%u %n' $p; done\n",
        );
        let apache = Apache::start(world, Kind::Event, "");
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", apache.port())).unwrap();
        stream.write_all(b"GET /long.pl HTTP/1.0\r\nHost: bob.test\r\n\r\n").unwrap();
        let asked = Instant::now();
        while world.records().is_empty() {
            assert!(
                asked.elapsed() < Duration::from_secs(20),
                "bob's program is not started\n{}",
                apache.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
        let pid = world.records()[0].field("pid").to_owned();
        let told = apache.get("alice.test", "/ps.cgi").text();
        assert!(told.lines().count() >= 1, "{told}\n{}", apache.log());
        for line in told.lines() {
            assert!(line.starts_with(&format!("{} /proc/", world.alice.id)), "{told}");
            assert!(!line.ends_with(&format!("/{pid}")), "{told}");
        }
        let server = fs::read_to_string("/tmp/apache/pid").unwrap();
        for (what, how) in attempts(
            &apache,
            "alice.test",
            &[
                format!("kill {pid}"),
                format!("kill {}", server.trim()),
                format!("read /proc/{pid}/cmdline"),
                format!("read /proc/{}/environ", server.trim()),
                "read /proc/1/environ".to_owned(),
            ],
        ) {
            assert!(["EPERM", "ESRCH", "ENOENT", "EACCES"].contains(&how.as_str()), "{what}: {how}");
        }
        assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "bob's program ended before it was looked for");
    });
}

#[test]
fn only_listed_ports_are_reached() {
    for jail in ["view", "host"] {
        world(Launcher::Cellwall, |world| {
            let listed = TcpListener::bind("127.0.0.1:7001").unwrap();
            let other = TcpListener::bind("127.0.0.1:7002").unwrap();
            world.sites(&format!("{}[network]\nconnect = [7001]\nbind = [7005]\n", everything(jail)));
            world.site("bob", &format!("{}[network]\nconnect = []\nbind = []\n", everything(jail)));
            world.site("carol", &everything(jail));
            world.apply();
            furnish(world);
            world.script(&world.carol, "try.pl", TRY);
            let apache = Apache::start(world, Kind::Event, "");
            all_are(&apache, "alice.test", "ok", &lines("connect", &["7001"]));
            all_are(&apache, "alice.test", "ok", &lines("bind", &["7005"]));
            for (host, ways) in [
                ("alice.test", &["connect 7002", "connect 8080", "connect 80", "bind 7006"][..]),
                ("bob.test", &["connect 7001", "connect 7002", "connect 8080", "bind 7005"]),
            ] {
                let ways: Vec<_> = ways.iter().map(|way| (*way).to_owned()).collect();
                all_are(&apache, host, "EACCES", &ways);
            }
            // Nothing named, nothing restricted: so the document says.
            all_are(&apache, "carol.test", "ok", &lines("connect", &["7001", "7002", "8080"]));
            for host in ["alice.test", "bob.test", "carol.test"] {
                for (what, how) in attempts(&apache, host, &["raw -".to_owned(), "packet -".to_owned()]) {
                    assert!(["EPERM", "EACCES", "EAFNOSUPPORT"].contains(&how.as_str()), "{what}: {how}");
                }
            }
            drop((listed, other));
        });
    }
}

#[test]
fn on_the_hosts_root_what_is_not_listed_can_be_named_and_not_opened() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("host"));
        furnish(world);
        let apache = Apache::start(world, Kind::Event, "");
        let open = [
            "/var/www/bob/htdocs/config.php",
            "/home/bob/notes",
            "/etc/login.defs",
            "/etc/cellwall/cellwall.toml",
            "/etc/shadow",
        ];
        all_are(&apache, "alice.test", "EACCES", &lines("read", &open));
        all_are(
            &apache,
            "alice.test",
            "EACCES",
            &lines("list", &["/var/www/bob/htdocs", "/home", "/root", "/proc"]),
        );
        all_are(
            &apache,
            "alice.test",
            "EACCES",
            &lines("write", &["/var/www/alice/htdocs/new", "/srv/new", "/home/alice/new"]),
        );
        all_are(&apache, "alice.test", "ok", &lines("stat", &["/var/www/bob/htdocs/config.php"]));
        all_are(
            &apache,
            "alice.test",
            "ok",
            &lines("read", &["/var/www/alice/htdocs/try.pl", "/etc/passwd"]),
        );
        all_are(&apache, "alice.test", "ok", &lines("write", &["/var/marks/alice/x"]));
    });
}

#[test]
fn in_a_chroot_there_is_what_its_keeper_put_there() {
    world(Launcher::Cellwall, |world| {
        let jail = "/var/www/jail";
        for directory in ["", "/htdocs", "/data"] {
            make_directory(format!("{jail}{directory}"), 0, 0o755);
        }
        std::os::unix::fs::chown(format!("{jail}/htdocs"), Some(world.alice.id), Some(world.alice.id))
            .unwrap();
        for name in ["listed", "other"] {
            put(format!("{jail}/data/{name}"), name.as_bytes(), 0, 0o644);
        }
        let rules = format!(
            "user = \"alice\"\ndocroot = \"{jail}/htdocs\"\nprofile = \"static\"\n[jail]\nkind = \"chroot\"\n\
             directory = \"{jail}\"\n[files]\nread = [\"/data/listed\"]\n"
        );
        fs::write("/etc/cellwall/sites.d/alice.toml", rules).unwrap();
        world.apply();
        world.probe_at(&world.alice, format!("{jail}/htdocs/a.cgi"));
        furnish(world);
        let more = virtual_host("jail", "alice", &format!("{jail}/htdocs"), "");
        let apache = Apache::start(world, Kind::Event, &more);
        let told =
            |path: &str| Report::parse(&apache.get("jail.test", &format!("/a.cgi?do=read:{path}")).body);
        let report = told("/data/listed");
        assert_eq!((report.attempt("open"), report.fact("content")), ("done", "listed"), "{}", report.text());
        assert_eq!(report.fact("cwd"), "/htdocs");
        assert_eq!(report.env("SCRIPT_FILENAME"), Some("/htdocs/a.cgi"));
        // Landlock holds inside the chroot too.
        assert_eq!(told("/data/other").attempt("open"), "EACCES");
        for path in
            ["/var/www/bob/htdocs/config.php", "/etc/passwd", "/home/bob/notes", "/../../../etc/passwd"]
        {
            assert_eq!(told(path).attempt("open"), "ENOENT", "{path}");
        }
        mode(jail, 0o755);
    });
}
