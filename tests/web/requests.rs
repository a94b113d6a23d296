//! What a program sees of a request, and what a visitor sees of its answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Apache, Ask, Kind, Launcher, Report, everything, mode, world};

#[test]
fn a_program_sees_its_request() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            world.probe(&world.alice, "a.cgi");
            let apache = Apache::start(world, kind, "");
            let ask = Ask::get("alice.test", "/a.cgi/extra/path?q=1&r=a+b%20c")
                .header("X-Own: yes")
                .header("Proxy: http://evil.test")
                .header("Authorization: Basic eA==")
                .header("Redirect-Status: 200")
                .header("Cookie: () { :;}; touch /var/marks/cookie");
            let report = Report::parse(&apache.ask(&ask).body);
            let docroot = world.alice.docroot();
            let docroot = docroot.to_str().unwrap();
            for (name, value) in [
                ("REQUEST_METHOD", "GET"),
                ("QUERY_STRING", "q=1&r=a+b%20c"),
                ("PATH_INFO", "/extra/path"),
                ("SCRIPT_NAME", "/a.cgi"),
                ("SCRIPT_FILENAME", &format!("{docroot}/a.cgi")),
                ("DOCUMENT_ROOT", docroot),
                ("HTTP_X_OWN", "yes"),
                ("SERVER_NAME", "alice.test"),
                ("GATEWAY_INTERFACE", "CGI/1.1"),
                ("REMOTE_ADDR", "127.0.0.1"),
                ("USER", "alice"),
                ("HOME", "/home/alice"),
            ] {
                assert_eq!(report.env(name), Some(value), "{name}:\n{}", report.text());
            }
            for name in ["HTTP_PROXY", "HTTP_AUTHORIZATION", "HTTP_REDIRECT_STATUS", "HTTP_COOKIE"] {
                assert_eq!(report.env(name), None, "{name}");
            }
            assert_eq!(report.fact("cwd"), docroot);
            assert_eq!(report.fact("fds"), "0 1 2");
            assert_eq!((report.fact("blocked"), report.fact("ignored")), ("", ""), "{kind:?}");
            assert!(!world.marks().contains(&"cookie".to_owned()));
        });
    }
}

/// CVE-2024-38476: an Apache before 2.4.60 takes the `Content-Type:` that stands beside a `Location:` for the handler of what that leads
/// to.
#[test]
fn no_answer_of_a_programs_has_apache_start_another_file_or_ask_a_pool() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let redirect = "#!/bin/sh\nprintf 'Content-Type: %s\\r\\nLocation: %s\\r\\n\\r\\n' \
                        \"${QUERY_STRING%%,*}\" \"${QUERY_STRING##*,}\"\n";
        let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nran\\n'\n";
        world.script(&world.alice, "r.cgi", redirect);
        world.script(&world.alice, "a.cgi", text);
        world.script(&world.alice, "a.txt", text);
        let neighbour = UnixListener::bind("/tmp/bob.sock").unwrap();
        mode("/tmp/bob.sock", 0o666);
        neighbour.set_nonblocking(true).unwrap();
        let modules = ["proxy", "proxy_fcgi"]
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
        let apache = Apache::start(world, Kind::Event, &modules.concat());
        let asked =
            |kind: &str, file: &str| apache.get("alice.test", &format!("/r.cgi?{kind},{file}")).text();
        assert_eq!(asked("text/html", "/a.cgi"), "ran\n", "{}", apache.log());
        for kind in [
            "text/html",
            "cgi-script",
            "fcgid-script",
            "proxy:unix:/tmp/bob.sock|fcgi://bob/",
            "proxy:http://127.0.0.1:8080/",
        ] {
            assert_eq!(asked(kind, "/a.txt"), text, "{kind}: {}", apache.log());
        }
        assert_eq!(neighbour.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// mod_mime looks at every ending of a name, so that AddHandler has a picture started that came with the x bit.
#[test]
fn a_picture_with_a_programs_ending_in_the_middle_of_its_name_is_a_picture() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let shipped = include_str!("../../packaging/apache/cellwall.conf");
        let rule = shipped
            .split("# by the last one alone.\n")
            .nth(1)
            .and_then(|rest| rest.split("</Directory>").next());
        let rule = format!(
            "<Directory /var/www>\nRemoveHandler .cgi .pl .py .sh\n</Directory>\n<Directory /var/www/alice>\n{}</Directory>\n",
            rule.unwrap()
        );
        let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nran\\n'\n";
        let apache = Apache::start(world, Kind::Event, &rule);
        for (name, told) in
            [("a.cgi", "ran\n"), ("a.jpg.cgi", "ran\n"), ("a.cgi.jpg", text), ("a.php.jpg", text)]
        {
            world.script(&world.alice, name, text);
            assert_eq!(
                apache.get("alice.test", &format!("/{name}")).text(),
                told,
                "{name}: {}",
                apache.log()
            );
        }
        assert_eq!(apache.get("alice.test", "/a.cgi/x.jpg").text(), "ran\n");
    });
}

#[test]
fn words_of_the_query_are_arguments_of_a_program_that_wants_them() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            world.probe(&world.alice, "a.cgi");
            let apache = Apache::start(world, kind, "");
            for (query, words) in [
                ("", &["a.cgi"][..]),
                ("?one+two%20words+%2d-x", &["a.cgi", "one", "two words", "--x"]),
                ("?$(id)+;id+`id`", &["a.cgi", "$(id)", ";id", "`id`"]),
                ("?a=1+b", &["a.cgi"]),
            ] {
                let report = Report::parse(&apache.get("alice.test", &format!("/a.cgi{query}")).body);
                let plain: Vec<_> = report.all("arg").iter().map(|word| word.replace("\\x5c", "")).collect();
                assert_eq!(plain, words, "{query}: {kind:?}\n{}", report.text());
            }
        });
    }
}

/// Name by name and in order: what the policy sets, then what the server says, as it said it.
#[test]
fn the_environment_is_exactly_this() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&format!("{}[environment]\nset = {{ APP_MODE = \"prod\" }}\n", everything("view")));
            world.probe(&world.alice, "a.cgi");
            let own = "SetEnv LD_PRELOAD /tmp/x.so\nSetEnv LD_LIBRARY_PATH /tmp\nSetEnv HTTP_PROXY evil\n\
                       SetEnv http_proxy evil\nSetEnv PERL5OPT -Mevil\nSetEnv PYTHONPATH /tmp\nSetEnv PHPRC /tmp\n\
                       SetEnv BASH_ENV /tmp/x\nSetEnv IFS x\nSetEnv PATH /tmp\nSetEnv HOME /root\nSetEnv APP_MODE no\n\
                       SetEnv TZ :/etc/passwd\n";
            let apache = Apache::start(world, kind, own);
            let report = Report::parse(&apache.get("alice.test", "/a.cgi/info?x=1").body);
            let names: Vec<_> =
                report.all("env").iter().map(|entry| entry.split('=').next().unwrap()).collect();
            assert_eq!(names, EXPECTED, "{kind:?}\n{}", report.text());
            assert_eq!(report.env("APP_MODE"), Some("prod"));
            assert_eq!(report.env("HOME"), Some("/home/alice"));
            assert!(!report.env("PATH").unwrap().contains("tmp"), "{}", report.text());
        });
    }
}

const EXPECTED: [&str; 31] = [
    "PATH",
    "APP_MODE",
    "HOME",
    "LANG",
    "LOGNAME",
    "PHP_INI_SCAN_DIR",
    "SHELL",
    "TMPDIR",
    "USER",
    "HTTP_HOST",
    "SERVER_SIGNATURE",
    "SERVER_SOFTWARE",
    "SERVER_NAME",
    "SERVER_ADDR",
    "SERVER_PORT",
    "REMOTE_ADDR",
    "DOCUMENT_ROOT",
    "REQUEST_SCHEME",
    "CONTEXT_PREFIX",
    "CONTEXT_DOCUMENT_ROOT",
    "SERVER_ADMIN",
    "SCRIPT_FILENAME",
    "REMOTE_PORT",
    "GATEWAY_INTERFACE",
    "SERVER_PROTOCOL",
    "REQUEST_METHOD",
    "QUERY_STRING",
    "REQUEST_URI",
    "SCRIPT_NAME",
    "PATH_INFO",
    "PATH_TRANSLATED",
];

#[test]
fn head_is_answered_without_a_body_and_other_methods_reach_the_program() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\nX-Method: %s\\r\\n\\r\\nbody\\n' \
                        \"$REQUEST_METHOD\"\n";
            world.script(&world.alice, "m.cgi", text);
            let apache = Apache::start(world, kind, "");
            for (method, body) in [("GET", "body\n"), ("HEAD", ""), ("PUT", "body\n"), ("DELETE", "body\n")] {
                let answer = apache.ask(&Ask::with(method, "alice.test", "/m.cgi"));
                assert_eq!(
                    (answer.status, answer.header("X-Method"), answer.text().as_str()),
                    (200, Some(method), body)
                );
            }
            assert_eq!(world.records().len(), 4);
        });
    }
}

/// What is written is sent when it is written, and a pause ends nothing.
#[test]
fn slow_output_arrives_as_it_is_written() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            let text = "#!/usr/bin/perl\n$| = 1; print \"Content-Type: text/plain\\n\\n\";\n\
                        for (1..4) { print \"part $_\\n\"; select undef, undef, undef, 0.5; }\nprint \"end\\n\";\n";
            world.script(&world.alice, "slow.pl", text);
            let apache = Apache::start(world, kind, "");
            let mut stream = TcpStream::connect(("127.0.0.1", apache.port())).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let started = Instant::now();
            stream.write_all(b"GET /slow.pl HTTP/1.0\r\nHost: alice.test\r\n\r\n").unwrap();
            let mut told = String::new();
            let mut buffer = [0; 4096];
            let mut first = None;
            loop {
                let count = stream.read(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                told.push_str(&String::from_utf8_lossy(&buffer[..count]));
                if told.contains("part 1") {
                    first.get_or_insert_with(|| started.elapsed());
                }
            }
            let took = started.elapsed();
            assert!(told.ends_with("part 1\npart 2\npart 3\npart 4\nend\n"), "{told}\n{}", apache.log());
            assert!(took >= Duration::from_secs(2), "{took:?}");
            let first = first.unwrap();
            assert!(
                first + Duration::from_secs(1) < took,
                "{kind:?}: the first part came after {first:?} of {took:?}"
            );
        });
    }
}

#[test]
fn sixty_four_requests_at_once_are_each_answered_by_their_own_user() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            let users = [&world.alice, &world.bob, &world.carol];
            // All are there at the same time: each waits half a second.
            let text = "#!/usr/bin/perl\nselect undef, undef, undef, 0.5;\n\
                        print \"Content-Type: text/plain\\n\\n$< $( $ENV{QUERY_STRING}\\n\";\n";
            for user in users {
                world.script(user, "a.pl", text);
            }
            let apache = Apache::start(world, kind, "");
            thread::scope(|scope| {
                for visitor in 0..64 {
                    let apache = &apache;
                    scope.spawn(move || {
                        let user = users[visitor % 3];
                        let answer = apache
                            .ask(&Ask::get(&format!("{}.test", user.name), &format!("/a.pl?v={visitor}")));
                        let expected = format!("{0} {0} {0} v={visitor}\n", user.id);
                        assert_eq!((answer.status, answer.text()), (200, expected), "{}", apache.log());
                    });
                }
            });
            let records = world.records();
            assert!(
                records.len() == 64 && records.iter().all(|record| record.verb == "launch"),
                "{records:?}"
            );
        });
    }
}

#[test]
fn large_bodies_and_large_answers_pass_whole() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            world.script(
                &world.alice,
                "large.pl",
                "#!/usr/bin/perl\nprint \"Content-Type: application/octet-stream\\n\\n\"; print 'abcdefghij' x 102400 for 1..20;\n",
            );
            world.script(
                &world.alice,
                "echo.py",
                "#!/usr/bin/python3\nimport os, sys\nbody = sys.stdin.buffer.read(int(os.environ['CONTENT_LENGTH']))\n\
                 sys.stdout.buffer.write(b'Content-Type: application/octet-stream\\n\\n' + body)\n",
            );
            let apache = Apache::start(world, kind, "");
            let body = apache.get("alice.test", "/large.pl").body;
            assert_eq!(body.len(), 20_480_000);
            assert!(body.chunks_exact(10).all(|ten| ten == b"abcdefghij"));
            let sent: Vec<u8> = (0..1_048_576_u32).flat_map(|number| number.to_le_bytes()).collect();
            assert_eq!(apache.ask(&Ask::post("alice.test", "/echo.py", sent.clone())).body, sent);
        });
    }
}

#[test]
fn the_programs_own_status_and_headers_pass() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        world.script(
            &world.alice,
            "status.cgi",
            "#!/bin/sh\nprintf 'Status: 418 Teapot\\r\\nX-Tea: green\\r\\nContent-Type: text/plain\\r\\n\\r\\nshort\\n'\n\
             echo complaint >&2\nexit 3\n",
        );
        let apache = Apache::start(world, Kind::Event, "");
        let answer = apache.ask(&Ask::get("alice.test", "/status.cgi"));
        assert_eq!(
            (answer.status, answer.header("X-Tea"), answer.text().as_str()),
            (418, Some("green"), "short\n")
        );
        assert!(apache.log().contains("complaint"), "{}", apache.log());
    });
}

#[test]
fn an_answer_that_breaks_off_is_told_with_what_had_arrived_and_why() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let told = |answer: &'static str, reset: bool| {
        let asked =
            thread::spawn(move || std::panic::catch_unwind(|| Ask::post("a.test", "/b", "c").send(port)));
        let (mut stream, _) = server.accept().unwrap();
        let mut asks = [0; 1024];
        // What is unread when a socket is closed makes its end a reset.
        let mut length = 0;
        while !reset && !asks[..length].ends_with(b"\r\n\r\nc") {
            length += stream.read(&mut asks[length..]).unwrap();
        }
        stream.write_all(answer.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(if reset { 200 } else { 0 }));
        drop(stream);
        let panic = asked.join().unwrap().expect_err("an answer");
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let parts = |text: &str, all: &[&str]| all.iter().for_each(|part| assert!(text.contains(part), "{text}"));
    let reset = told("HTTP/1.0 200 OK\r\n\r\nhalf", true);
    parts(
        &reset,
        &["POST a.test/b: ", "the answer breaks off", "read: Connection reset", "23 bytes arrived", "half"],
    );
    let short = told("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhalf", false);
    parts(&short, &["the answer breaks off ([])", "Content-Length: 9", "half"]);
    parts(&told("", false), &["no HTTP answer ([])", "0 bytes arrived"]);
}
