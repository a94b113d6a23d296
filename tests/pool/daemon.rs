//! The daemon end to end: a real nginx before it, real workers behind it.

use std::fs;
use std::time::Instant;

use crate::harness::{Launcher, World, put, world};

use super::host::{Daemon, Nginx, logged, mode_of, processes, until};

/// A script that tells who it is and what it was asked.
const PHP: &str = "<?php header('Content-Type: text/plain'); echo 'uid=', posix_getuid(), ' pid=', getmypid(), \
                   ' query=', $_SERVER['QUERY_STRING'], ' script=', $_SERVER['SCRIPT_FILENAME'], \"\\n\";";

fn php(world: &World, name: &str) {
    let user = match name {
        "alice" => &world.alice,
        "bob" => &world.bob,
        _ => &world.carol,
    };
    put(user.docroot().join("a.php"), PHP.as_bytes(), user.id, 0o644);
}

#[test]
fn direct_workers_answer_as_the_sites_user() {
    world(Launcher::Cellwall, |world| {
        php(world, "alice");
        world.site(
            "alice",
            "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 2\n\
             accept = \"direct\"\n",
        );
        world.apply();
        let mut daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let answer = nginx.get("alice", "/a.php?x=1");
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.text().contains(&format!("uid={} ", world.alice.id)), "{}", answer.text());
        assert!(answer.text().contains(" query=x=1 "), "{}", answer.text());
        assert_eq!(mode_of("/run/cellwall/pool/alice.sock"), (0o660, 0, 33));
        until("two children and their parent", || processes(world.alice.id).len() == 3);
        assert_eq!(logged(&["launch ", "site=alice", "script=\"php-cgi\"", "jail=view"]).len(), 1);
        assert_eq!(daemon.stop(), Some(0));
        until("the end of all that the site had", || processes(world.alice.id).is_empty());
        assert!(!fs::exists("/run/cellwall/pool/alice.sock").unwrap());
    });
}

#[test]
fn direct_workers_are_heard_and_leave_the_relay_as_they_came() {
    world(Launcher::Cellwall, |world| {
        // More than a pipe holds: unheard, it would wait for ever.
        let text = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                    open my $log, '>&=', 2; syswrite $log, 'x' x 999 . \"\\n\" for 1 .. 100; syswrite $log, \"the end\\n\";\n\
                    print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; }\n";
        let path = world.script(&world.alice, "app.fcgi", text);
        let site = |accept: &str| {
            let rules = format!(
                "profile = \"perl\"\n[pool]\ncommand = \"{}\"\naccept = \"{accept}\"\n",
                path.display()
            );
            world.site(
                "alice",
                &format!("{rules}workers = {{ max = 1 }}\nerror_log = \"/var/log/cellwall/said.log\"\n"),
            );
            world.apply();
        };
        fs::create_dir_all("/var/log/cellwall").unwrap();
        site("relay");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let mut pids = Vec::new();
        for (round, accept) in ["relay", "direct", "relay"].into_iter().enumerate() {
            if round > 0 {
                site(accept);
                until("the old worker's end", || logged(&["pool end ", "site=alice"]).len() == round);
            }
            let answer = nginx.get("alice", "/app.fcgi");
            assert_eq!(answer.status, 200, "{accept}: {}\n{}", answer.text(), logged(&[""]).join("\n"));
            until("its last word", || {
                let said = fs::read_to_string("/var/log/cellwall/said.log").unwrap_or_default();
                said.matches("line=\"the end\"").count() == round + 1
            });
            let private = fs::read_dir("/run/cellwall/broker").unwrap().count();
            assert_eq!(private, usize::from(accept == "relay"), "{accept}");
            pids.push(answer.text());
        }
        pids.dedup();
        assert_eq!(pids.len(), 3, "each way of accepting has a worker of its own");
    });
}

/// A site with a pool of php-cgi's children behind the broker.
pub(crate) fn relayed(world: &World, more: &str) {
    for name in ["alice", "bob"] {
        php(world, name);
        world.site(
            name,
            &format!(
                "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\n{more}\n"
            ),
        );
    }
    world.apply();
}

#[test]
fn relayed_workers_answer_as_the_sites_user() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2");
        let mut daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        assert_eq!(processes(world.alice.id), vec![], "on demand: nothing runs before the first request");
        for (name, user) in [("alice", &world.alice), ("bob", &world.bob)] {
            for round in 0..3 {
                let answer = nginx.get(name, &format!("/a.php?round={round}"));
                assert_eq!(answer.status, 200, "{} {:?}", answer.head, logged(&[""]));
                assert!(answer.text().contains(&format!("uid={} ", user.id)), "{}", answer.text());
                assert!(answer.text().contains(&format!("query=round={round} ")), "{}", answer.text());
            }
        }
        assert_eq!(
            logged(&["launch ", "site=alice", "script=\"php-cgi\""]).len(),
            1,
            "one parent serves all"
        );
        let status = |site: &str| {
            let said = world.cellwall(&["status", "--json", site]);
            (String::from_utf8_lossy(&said.stdout).into_owned(), said.status.code())
        };
        let (json, end) = status("alice");
        assert!(json.contains("\"site\":\"alice\"") && !json.contains("\"site\":\"bob\""), "{json}");
        assert_eq!((end, json.trim_end().ends_with("}]}")), (Some(0), true), "{json}");
        let (json, end) = status("nosuch");
        assert_eq!((end, json.starts_with("{\"ok\":false,")), (Some(1), true), "{json}");
        assert_eq!(daemon.stop(), Some(0));
        until("the end of all that the site had", || processes(world.alice.id).is_empty());
    });
}

#[test]
fn the_path_behind_a_script_never_makes_php_run_another_file() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2");
        world.script(&world.alice, "evil.jpg", "<?php echo 'evil ran';");
        world.script(&world.alice, "info.php", "<?php echo 'info=', $_SERVER['PATH_INFO'] ?? '-';");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let answer = nginx.get("alice", "/info.php/a/b.php");
        assert!(answer.text().ends_with("info=/a/b.php"), "{}", answer.text());
        for path in ["/evil.jpg/x.php", "/evil.jpg", "/evil.jpg/", "/info.jpg/info.php"] {
            let answer = nginx.get("alice", path);
            assert!(matches!(answer.status, 403 | 404), "{path}: {}", answer.status);
            assert!(!answer.text().contains("evil"), "{path}: {}", answer.text());
        }
    });
}

/// Forms are sent to `PHP_SELF`; php-cgi alone takes the path behind the script for it, and that may be `//another.host`.
#[test]
fn a_page_of_php_has_the_url_that_it_was_called_by_in_each_kind_of_pool() {
    let page =
        "<?php foreach (['PHP_SELF', 'SCRIPT_NAME', 'PATH_INFO'] as $name) echo $_SERVER[$name] ?? '-', ' ';";
    for pool in [
        "kind = \"cgi\"",
        "kind = \"fastcgi\"\ncommand = \"/usr/bin/php-cgi\"",
        "kind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"",
    ] {
        world(Launcher::Cellwall, |world| {
            world.site("alice", &format!("profile = \"php\"\n[pool]\n{pool}\n"));
            world.apply();
            put(world.alice.docroot().join("a.php"), page.as_bytes(), world.alice.id, 0o644);
            let _daemon = Daemon::start(world);
            let nginx = Nginx::start(&["alice"], "");
            for (path, expected) in [
                ("/a.php", "/a.php /a.php - "),
                ("/a.php/b/c.php?x=/d", "/a.php/b/c.php /a.php /b/c.php "),
                ("/a.php//another.test/x", "/a.php/another.test/x /a.php /another.test/x "),
            ] {
                assert_eq!(nginx.get("alice", path).text(), expected, "{pool}: {path}");
            }
        });
    }
}

/// cgit, git's smart HTTP, Nagios: their packages put programs of root's outside of all docroots.
#[test]
fn a_pool_of_cgi_programs_runs_those_of_root_that_the_site_names() {
    world(Launcher::Cellwall, |world| {
        let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n\
                    echo \"uid=$(id -u) info=$PATH_INFO name=$SCRIPT_NAME root=$DOCUMENT_ROOT\"\n";
        crate::harness::make_directory("/usr/lib/tool", 0, 0o755);
        put("/usr/lib/tool/named", text.as_bytes(), 0, 0o755);
        put("/usr/lib/tool/other", text.as_bytes(), 0, 0o755);
        world.site(
            "alice",
            "profile = \"sh\"\nprograms = [\"/usr/lib/tool/named\"]\n[pool]\nkind = \"cgi\"\n",
        );
        world.apply();
        let _daemon = Daemon::start(world);
        let more = "location /tool/ { fastcgi_param REQUEST_METHOD $request_method; fastcgi_split_path_info ^(/tool)(/.*)$;\n\
                    fastcgi_param PATH_INFO $fastcgi_path_info; fastcgi_param SCRIPT_NAME /tool;\n\
                    fastcgi_param SCRIPT_FILENAME /usr/lib/tool/named; fastcgi_pass unix:/run/cellwall/pool/alice.sock; }\n\
                    location /whole/ { include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME /usr/lib/tool/named$uri;\n\
                    fastcgi_pass unix:/run/cellwall/pool/alice.sock; }\n\
                    location /other/ { include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME /usr/lib/tool/other;\n\
                    fastcgi_pass unix:/run/cellwall/pool/alice.sock; }";
        let nginx = Nginx::start(&["alice"], more);
        let (id, root) = (world.alice.id, "/var/www/alice/htdocs");
        let answer = nginx.get("alice", "/tool/a/b");
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("uid={id} info=/a/b name=/tool root={root}\n"))
        );
        assert!(
            nginx.get("alice", "/whole/x").text().contains("info=/whole/x "),
            "{:?}",
            logged(&["refuse "])
        );
        assert_eq!(nginx.get("alice", "/other/a").status, 403);
        assert_eq!(logged(&["refuse ", "code=G05", "site=alice"]).len(), 1);
        assert_eq!(logged(&["launch ", "site=alice", "script=\"named\""]).len(), 2);
    });
}

/// docs/applications.md: the package's files stay root's, and the site's group reads its settings.
#[test]
fn an_application_of_php_runs_in_a_pool_from_where_its_package_put_it() {
    world(Launcher::Cellwall, |world| {
        for place in ["/usr/share/tool", "/etc/tool", "/var/lib/tool"] {
            crate::harness::make_directory(place, 0, 0o755);
        }
        crate::harness::make_directory("/var/lib/tool/tmp", world.alice.id, 0o755);
        let page = "<?php require '/etc/tool/config.php'; file_put_contents('/var/lib/tool/tmp/x', $word);\n\
                    echo file_get_contents('/var/lib/tool/tmp/x'), file_put_contents(__FILE__, '') === false ? '' : ' changed';";
        put("/usr/share/tool/index.php", page.as_bytes(), 0, 0o644);
        put("/etc/tool/config.php", b"<?php $word = 'cork';", 0, 0o640);
        std::os::unix::fs::chown("/etc/tool/config.php", None, Some(world.alice.id)).unwrap();
        let site = "user = \"alice\"\ndocroot = \"/usr/share/tool\"\nprofile = \"php\"\n[files]\nread = [\"/etc/tool\"]\n\
                    write = [\"/var/lib/tool/tmp\"]\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\n";
        fs::write("/etc/cellwall/sites.d/alice.toml", site).unwrap();
        let host = fs::read_to_string("/etc/cellwall/cellwall.toml").unwrap();
        fs::write("/etc/cellwall/cellwall.toml", host.replace("docroot = \"/var/www\"\n", "")).unwrap();
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(
            &["alice"],
            "location /tool/ { include /etc/nginx/fastcgi_params; \
            fastcgi_param SCRIPT_FILENAME /usr/share$uri; fastcgi_pass unix:/run/cellwall/pool/alice.sock; }",
        );
        let answer = nginx.get("alice", "/tool/index.php");
        assert!(answer.text().ends_with("cork") && !answer.text().contains("changed"), "{}", answer.text());
    });
}

#[test]
fn plain_cgi_programs_run_behind_nginx_by_the_whole_pipeline() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n\
                    echo \"uid=$(id -u) query=$QUERY_STRING info=$PATH_INFO name=$SCRIPT_NAME\"\ncat\n";
        world.script(&world.alice, "a.cgi", text);
        world.script(&world.alice, "open.cgi", text);
        crate::harness::mode(world.alice.docroot().join("open.cgi"), 0o777);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let id = world.alice.id;
        let answer = nginx.get("alice", "/a.cgi?x=1");
        assert_eq!((answer.status, answer.text()), (200, format!("uid={id} query=x=1 info= name=/a.cgi\n")));
        let body = "b".repeat(100_000);
        let answer = nginx.ask(&crate::harness::Ask::post("alice.test", "/a.cgi", body.clone()));
        assert_eq!(answer.status, 200);
        assert!(answer.text().ends_with(&body), "the whole body arrives: {}", answer.body.len());
        let answer = nginx.get("alice", "/a.cgi/more/path");
        assert_eq!(answer.text(), format!("uid={id} query= info=/more/path name=/a.cgi\n"));
        // Checked for each request: writable by others is no program.
        let answer = nginx.get("alice", "/open.cgi");
        assert_eq!(answer.status, 500, "{}", answer.text());
        let refused = logged(&["refuse ", "code=V118", "site=alice"]);
        assert_eq!(refused.len(), 1, "{refused:?}");
        let reference = refused[0].split("ref=").nth(1).unwrap().split(' ').next().unwrap();
        assert!(answer.text().contains(reference), "{} {reference}", answer.text());
        assert_eq!(logged(&["launch ", "site=alice", "script=\"a.cgi\""]).len(), 3);
    });
}

/// As behind Apache, where the end of the output is the end of the answer.
#[test]
fn a_program_that_has_closed_its_output_lets_its_visitor_go_and_works_on() {
    world(Launcher::Cellwall, |world| {
        let rules = "profile = \"sh\"\n[files]\nwrite = [\"/var/marks/alice\"]\n[pool]\nkind = \"cgi\"\n\
                     timeout = 5\nworkers = { max = 1 }\n";
        world.site("alice", rules);
        world.apply();
        let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nthanks'\nexec >&- 2>&-\n\
                    sleep \"$QUERY_STRING\"\necho done > /var/marks/alice/work\n";
        world.script(&world.alice, "work.cgi", text);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let ask = |seconds: &str| {
            let started = Instant::now();
            let answer = nginx.get("alice", &format!("/work.cgi?{seconds}"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "thanks"));
            started.elapsed().as_millis()
        };
        assert!(ask("2") < 1500, "its visitor does not wait for its work");
        assert!(!fs::exists("/var/marks/alice/work").unwrap());
        assert!(ask("0") > 1000, "it takes its place meanwhile");
        assert_eq!(fs::read_to_string("/var/marks/alice/work").unwrap(), "done\n");
        fs::remove_file("/var/marks/alice/work").unwrap();
        // It has the time of its request, and no more.
        assert!(ask("60") < 1500);
        assert!((3500..8000).contains(&ask("0")));
        assert_eq!(logged(&["refuse "]), Vec::<String>::new(), "nobody was refused");
    });
}

/// A site has both: scripts that a handler runs, and programs of their own.
#[test]
fn a_pool_of_cgi_programs_runs_what_the_launcher_takes_for_one() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = [\"sh\", \"php\"]\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        world.script(
            &world.alice,
            "a.cgi",
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nshell'\n",
        );
        let docroot = world.alice.docroot();
        let php = "<?php echo 'php ', $_SERVER['PATH_INFO'] ?? '-';";
        put(docroot.join("a.php"), php.as_bytes(), world.alice.id, 0o644);
        put(docroot.join("evil.jpg"), b"<?php echo 'evil ran';", world.alice.id, 0o644);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.cgi").text(), "shell");
        assert_eq!(nginx.get("alice", "/a.php").text(), "php -");
        assert_eq!(nginx.get("alice", "/a.php/b/c.php").text(), "php /b/c.php");
        for path in ["/evil.jpg/x.php", "/evil.jpg", "/evil.jpg/a.php"] {
            let answer = nginx.get("alice", path);
            assert_eq!(answer.status, 500, "{path}: {}", answer.text());
            assert!(!answer.text().contains("evil"), "{path}: {}", answer.text());
        }
        assert_eq!(logged(&["refuse ", "code=V121", "site=alice"]).len(), 3);
    });
}

#[test]
fn a_daemon_that_cannot_begin_says_what_it_lacks() {
    world(Launcher::Cellwall, |world| {
        let mut daemon = Daemon::traced(world, "setpriv --bounding-set=-sys_admin");
        until("its end", || daemon.has_ended().is_some());
        let text = fs::read_to_string("/tmp/cellwalld.err").unwrap();
        assert!(text.contains("it cannot give up system calls, which takes CAP_SYS_ADMIN"), "{text}");
    });
}
