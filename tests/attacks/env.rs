//! What of the caller's environment reaches a program: ENV-01 to ENV-20 of the threat catalogue.

use std::process::Command;

use crate::harness::{Launcher, each_jail, everything, make_directory, put, small, traced, world};

#[test]
fn env_02_06_17_variables_that_steer_libraries_and_interpreters_do_not_pass() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let tunables = format!("GLIBC_TUNABLES={}", "glibc.malloc.mxfast=glibc.malloc.mxfast=".repeat(100));
        let names = [
            "LD_PRELOAD=/tmp/x.so",
            "LD_AUDIT=/tmp/x.so",
            "LD_LIBRARY_PATH=/tmp",
            "LD_DEBUG=all",
            "LD_PROFILE=x",
            "GCONV_PATH=/tmp",
            "LOCPATH=/tmp",
            "NLSPATH=/tmp/%N",
            "HOSTALIASES=/tmp/h",
            "RES_OPTIONS=debug",
            "MALLOC_TRACE=/tmp/m",
            "PERL5OPT=-Mx",
            "PERL5LIB=/tmp",
            "PYTHONPATH=/tmp",
            "PYTHONINSPECT=1",
            "RUBYOPT=-rx",
            "NODE_OPTIONS=--require x",
            "BASH_ENV=/tmp/b",
            "ENV=/tmp/e",
            "PHPRC=/tmp",
            "PHP_INI_SCAN_DIR=/tmp",
            "PHP_FCGI_CHILDREN=9",
            "BASH_FUNC_ls%%=() { :; }",
            "IFS=/",
            "CDPATH=/",
            "http_proxy=x",
            "HTTP_PROXY=x",
            "HTTP_REDIRECT_STATUS=200",
            "SSL_CERT_FILE=/tmp/c",
            "SSL_CERT_DIR=/tmp",
            "SSLKEYLOGFILE=/tmp/k",
            "OPENSSL_CONF=/tmp/o",
            &tunables,
        ];
        let call = names.iter().fold(world.call(&world.alice, "a.cgi"), |call, entry| call.env(entry));
        let report = call.env("QUERY_STRING=last").run().ran();
        for entry in names {
            let name = entry.split('=').next().unwrap();
            assert_eq!(report.env(name), None, "{name} passed:\n{}", report.text());
        }
        assert_eq!(report.env("QUERY_STRING"), Some("last"));
    });
}

#[test]
fn the_variables_of_the_standard_pass() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let names = [
            "AUTH_TYPE",
            "CONTENT_LENGTH",
            "CONTENT_TYPE",
            "CONTEXT_DOCUMENT_ROOT",
            "CONTEXT_PREFIX",
            "DATE_GMT",
            "DATE_LOCAL",
            "DOCUMENT_ARGS",
            "DOCUMENT_NAME",
            "DOCUMENT_PATH_INFO",
            "DOCUMENT_ROOT",
            "DOCUMENT_URI",
            "HTTPS",
            "LAST_MODIFIED",
            "PATH_INFO",
            "PATH_TRANSLATED",
            "QUERY_STRING",
            "QUERY_STRING_UNESCAPED",
            "REMOTE_ADDR",
            "REMOTE_HOST",
            "REMOTE_IDENT",
            "REMOTE_PORT",
            "REMOTE_USER",
            "REDIRECT_ERROR_NOTES",
            "REDIRECT_HANDLER",
            "REDIRECT_QUERY_STRING",
            "REDIRECT_REMOTE_USER",
            "REDIRECT_SCRIPT_FILENAME",
            "REDIRECT_URL",
            "REQUEST_SCHEME",
            "REQUEST_URI",
            "SCRIPT_NAME",
            "SCRIPT_URI",
            "SCRIPT_URL",
            "SERVER_ADDR",
            "SERVER_ADMIN",
            "SERVER_NAME",
            "SERVER_PORT",
            "SERVER_PROTOCOL",
            "SERVER_SIGNATURE",
            "SERVER_SOFTWARE",
            "UNIQUE_ID",
            "USER_NAME",
            "HTTP_HOST",
            "HTTP_X_ANYTHING",
            "SSL_PROTOCOL",
            "SSL_CIPHER",
        ];
        let call = names
            .iter()
            .fold(world.call(&world.alice, "a.cgi"), |call, name| call.env(format!("{name}=of {name}")));
        let report = call.run().ran();
        for name in names {
            assert_eq!(report.env(name), Some(format!("of {name}").as_str()), "{name}:\n{}", report.text());
        }
        assert_eq!(report.env("REQUEST_METHOD"), Some("GET"));
    });
}

#[test]
fn env_16_the_first_variable_is_the_path_and_the_account_is_the_policys() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let report = [
            "PATH=/evil",
            "HOME=/root",
            "USER=root",
            "LOGNAME=root",
            "SHELL=/evil",
            "TMPDIR=/evil",
            "LANG=x",
        ]
        .iter()
        .fold(world.call(&world.alice, "a.cgi"), |call, entry| call.env(entry))
        .run()
        .ran();
        assert!(report.all("env")[0].starts_with("PATH="), "{}", report.text());
        assert_eq!(report.env("PATH"), Some("/usr/local/bin:/usr/bin:/bin"));
        assert_eq!(report.env("HOME"), Some("/home/alice"));
        assert_eq!((report.env("USER"), report.env("LOGNAME")), (Some("alice"), Some("alice")));
        for name in ["SHELL", "TMPDIR", "LANG"] {
            let value = report.env(name).unwrap_or_else(|| panic!("no {name}:\n{}", report.text()));
            assert!(!value.is_empty() && value != "/evil" && value != "x", "{name}={value}");
        }
    });
}

#[test]
fn env_05_function_definitions_do_not_pass() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let call = world.call(&world.alice, "a.cgi").env("HTTP_COOKIE=() { :;}; touch /var/marks/second");
        let report = call.env("HTTP_REFERER=(not) a function").run().ran();
        assert_eq!(report.env("HTTP_COOKIE"), None);
        assert_eq!(report.env("HTTP_REFERER"), Some("(not) a function"));
    });
}

#[test]
fn env_08_a_redirect_status_is_three_digits() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let long = "4".repeat(4096);
        for (value, passes) in
            [("200", true), ("404", true), ("", false), ("2 00", false), (&long, false), ("200\n", false)]
        {
            let report =
                world.call(&world.alice, "a.cgi").env(format!("REDIRECT_STATUS={value}")).run().ran();
            assert_eq!(report.env("REDIRECT_STATUS").is_some(), passes, "{value:?}:\n{}", report.text());
        }
    });
}

#[test]
fn env_15_a_time_zone_is_no_path() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for (zone, passes) in [
            (":/etc/shadow", false),
            ("/etc/shadow", false),
            ("../../x", false),
            ("a/../b", false),
            ("Europe/Paris", true),
            ("CET-1CEST", true),
        ] {
            let report = world.call(&world.alice, "a.cgi").env(format!("TZ={zone}")).run().ran();
            assert_eq!(report.env("TZ"), passes.then_some(zone), "{zone}");
        }
    });
}

#[test]
fn env_10_a_core_name_twice_is_refused() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for name in ["QUERY_STRING", "CONTENT_LENGTH", "REMOTE_USER", "SCRIPT_FILENAME"] {
            let call = world.call(&world.alice, "a.cgi").env(format!("{name}=1")).env(format!("{name}=2"));
            let refused = call.run().refused("E01", 87);
            assert!(refused.field("why").contains(name), "{}", refused.line);
        }
    });
}

#[test]
fn env_11_of_a_header_twice_the_first_counts() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let report = world.call(&world.alice, "a.cgi").env("HTTP_X=1").env("HTTP_X=2").run().ran();
        let copies: Vec<_> =
            report.all("env").into_iter().filter(|entry| entry.starts_with("HTTP_X=")).collect();
        assert_eq!(copies, ["HTTP_X=1"]);
    });
}

#[test]
fn env_12_entries_that_are_no_variables_do_not_pass() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let call =
            ["QUERY_STRING", "=x", "", "HTTP_", "HTTP_=x", "HTTP_lower=x", "HTTP_A B=x", "HTTP_\u{e9}=x"]
                .iter()
                .fold(world.call(&world.alice, "a.cgi"), |call, entry| call.env(entry));
        let report = call.run().ran();
        for entry in report.all("env") {
            let (name, _) = entry.split_once('=').unwrap_or_else(|| panic!("{entry} has no `=`"));
            let plain =
                name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(plain && !name.is_empty() && !name.ends_with('_'), "{entry}");
        }
    });
}

#[test]
fn env_13_many_headers_never_push_another_variable_out() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for count in [200, 254, 255, 400, 2000] {
            let call = (0..count).fold(world.call(&world.alice, "a.cgi"), |call, number| {
                call.env(format!("HTTP_H{number}=x"))
            });
            let outcome = call.env("QUERY_STRING=last").run();
            let Some(report) = outcome.ran_or_refused() else {
                assert!(count > 254, "Apache's own headers alone can be {count}");
                assert_eq!(outcome.records[0].field("code"), "E02");
                continue;
            };
            assert_eq!(report.env("QUERY_STRING"), Some("last"));
            assert_eq!(report.env(&format!("HTTP_H{}", count - 1)), Some("x"));
        }
    });
}

#[test]
fn env_14_a_huge_environment_is_passed_whole_or_refused_at_once() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let call = (0..8).fold(world.call(&world.alice, "a.cgi"), |call, number| {
            call.env(format!("HTTP_BIG{number}={}", "x".repeat(125_000)))
        });
        let outcome = call.run();
        outcome.at_once();
        if let Some(report) = outcome.ran_or_refused() {
            assert_eq!(report.all("env_long").len(), 8, "{}", report.text());
        }
    });
}

#[test]
fn env_14_more_bytes_than_the_site_takes_are_refused_whole() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        world.site("alice", &format!("{}[environment]\nbytes_max = 4096\n", small("host")));
        world.apply();
        let call = |bytes: usize| {
            world.call(&world.alice, "a.cgi").env(format!("HTTP_BIG={}", "x".repeat(bytes))).run()
        };
        assert!(call(100).ran().env("HTTP_BIG").is_some());
        call(5000).refused("E02", 87);
    });
}

#[test]
fn a_line_break_of_either_kind_in_a_variable_of_the_standard_is_refused() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for text in ["/a\nb", "/a\rb"] {
            let call = world.call(&world.alice, "a.cgi").env(format!("PATH_INFO={text}"));
            call.run().refused("E03", 87);
        }
    });
}

#[test]
fn env_19_authorization_passes_where_the_site_says_so() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let call = || world.call(&world.alice, "a.cgi").env("HTTP_AUTHORIZATION=Basic x");
        assert_eq!(call().run().ran().env("HTTP_AUTHORIZATION"), None);
        world.site("alice", &format!("{}[environment]\nauthorization = true\n", small("host")));
        world.apply();
        assert_eq!(call().run().ran().env("HTTP_AUTHORIZATION"), Some("Basic x"));
    });
}

#[test]
fn env_20_a_site_sets_and_passes_its_own_names() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let more = "[environment]\npass = [\"APP_*\", \"MODE\"]\nset = { APP_ENV = \"prod\", TZ = \"Europe/Athens\" }\n";
        world.site("alice", &format!("{}{more}", small("host")));
        world.apply();
        let report = ["APP_ENV=dev", "APP_KEY=1", "MODE=2", "MODELESS=3", "TZ=UTC"]
            .iter()
            .fold(world.call(&world.alice, "a.cgi"), |call, entry| call.env(entry))
            .run()
            .ran();
        assert_eq!(report.env("APP_ENV"), Some("prod"), "the site's word counts");
        assert_eq!(report.env("TZ"), Some("Europe/Athens"));
        assert_eq!((report.env("APP_KEY"), report.env("MODE")), (Some("1"), Some("2")));
        assert_eq!(report.env("MODELESS"), None);
    });
}

#[test]
fn env_18_a_site_cannot_pass_what_is_forbidden() {
    world(Launcher::Cellwall, |world| {
        for name in ["LD_PRELOAD", "LD_*", "GLIBC_TUNABLES", "*", "BASH_ENV"] {
            world.site("alice", &format!("{}[environment]\npass = [\"{name}\"]\n", small("host")));
            let said = world.cellwall(&["apply"]);
            assert!(!said.status.success(), "apply took {name}");
        }
    });
}

#[test]
fn env_01_03_no_path_of_the_callers_environment_is_ever_opened() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let trap = "/srv/trap";
        make_directory(trap, 33, 0o777);
        let names = [
            "LD_PRELOAD",
            "LD_AUDIT",
            "LD_LIBRARY_PATH",
            "LD_DEBUG_OUTPUT",
            "LD_PROFILE_OUTPUT",
            "GCONV_PATH",
            "LOCPATH",
            "NLSPATH",
            "HOSTALIASES",
            "RESOLV_HOST_CONF",
            "MALLOC_TRACE",
            "TMPDIR",
            "GETCONF_DIR",
            "TZ",
            "TZDIR",
            "HOME",
            "PATH",
            "RUST_BACKTRACE",
            "TERMINFO",
            "LANGUAGE",
            "LC_ALL",
        ];
        let call = names
            .iter()
            .fold(world.call(&world.alice, "a.cgi"), |call, name| call.env(format!("{name}={trap}/{name}")));
        let call = call.env("LD_DEBUG=all").env("LD_PROFILE=x").env("RES_OPTIONS=debug");
        let report = call.strace(&[]).run().ran();
        assert!(!report.text().contains(trap), "{}", report.text());
        for line in traced().iter().skip(1) {
            assert!(!line.contains(trap), "{line}");
        }
        assert_eq!(std::fs::read_dir(trap).unwrap().count(), 0);
        // The trap works: an ordinary program falls into it.
        let loader = ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"];
        for name in loader {
            let mut program = Command::new("strace");
            program.args(["-E", &format!("{name}={trap}/{name}"), "/bin/true"]);
            let said = program.output().unwrap().stderr;
            assert!(
                String::from_utf8_lossy(&said).contains(&format!("\"{trap}/{name}")),
                "{name} proves nothing"
            );
        }
    });
}

#[test]
fn env_04_interpreters_are_not_steered() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            let trap = "/srv/trap";
            make_directory(trap, 0, 0o755);
            put(format!("{trap}/Trap.pm"), b"print qq(trapped\\n); 1;", 0, 0o644);
            put(format!("{trap}/sitecustomize.py"), b"print('trapped')", 0, 0o644);
            put(format!("{trap}/rc"), b"echo trapped", 0, 0o644);
            put(format!("{trap}/php.ini"), b"auto_prepend_file=/srv/trap/rc", 0, 0o644);
            let steering = [
                "PERL5OPT=-MTrap",
                "PERL5LIB=/srv/trap",
                "PERLLIB=/srv/trap",
                "PYTHONPATH=/srv/trap",
                "PYTHONINSPECT=1",
                "PYTHONSTARTUP=/srv/trap/rc",
                "RUBYOPT=-r/srv/trap/rc",
                "NODE_OPTIONS=--require /srv/trap/rc",
                "BASH_ENV=/srv/trap/rc",
                "ENV=/srv/trap/rc",
                "PHPRC=/srv/trap",
                "PHP_INI_SCAN_DIR=/srv/trap",
            ];
            for (name, text) in [
                ("a.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; env\n"),
                ("a.bash", "#!/bin/bash\nprintf 'Content-Type: text/plain\\n\\n'; env\n"),
                ("a.pl", "#!/usr/bin/perl\nprint qq($_=$ENV{$_}\\n) for keys %ENV;\n"),
                (
                    "a.py",
                    "#!/usr/bin/python3\nimport os\nfor n in os.environ: print(n + '=' + os.environ[n])\n",
                ),
                ("a.php", "#!/usr/bin/php-cgi\n<?php foreach (getenv() as $n => $v) echo \"$n=$v\\n\";\n"),
            ] {
                world.script(&world.alice, name, text);
                let call =
                    steering.iter().fold(world.call(&world.alice, name), |call, entry| call.env(entry));
                let outcome = call.run();
                // The policy's own value, and no other.
                let told = outcome.out_text().replace("PHP_INI_SCAN_DIR=:/usr/share/cellwall/php\n", "");
                assert!(told.contains("REQUEST_METHOD=GET"), "{name}: {}", outcome.story());
                for word in ["trap", "PERL5", "PYTHON", "RUBY", "NODE_", "BASH_ENV", "PHPRC", "PHP_INI"] {
                    assert!(!told.contains(word), "{name}: {word}: {}", outcome.story());
                }
            }
        });
    }
}

#[test]
fn env_20_the_administrators_door_has_the_same_variables() {
    world(Launcher::Cellwall, |world| {
        let path = world.probe(&world.alice, "a.cgi");
        world.site("alice", &format!("{}[environment]\nset = {{ APP_ENV = \"prod\" }}\n", small("host")));
        world.apply();
        let said = world.cellwall(&["run", "alice", "--", path.to_str().unwrap()]);
        let door = crate::harness::Report::parse(&said.stdout);
        assert_eq!(door.env("APP_ENV"), Some("prod"), "{}", door.text());
    });
}
