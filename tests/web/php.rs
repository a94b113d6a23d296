//! PHP in all the ways that people run it.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use crate::harness::{
    Apache, Ask, Kind, Launcher, Report, User, World, each_kind_of_php, everything, make_directory, mode,
    put, run, world,
};

/// Tells how it was started.
const TELL: &str = "<?php header('Content-Type: text/plain'); echo json_encode([\n\
    'sapi' => PHP_SAPI, 'uid' => posix_getuid(), 'argv' => $argv ?? null, 'file' => __FILE__,\n\
    'script' => $_SERVER['SCRIPT_FILENAME'] ?? null, 'name' => $_SERVER['SCRIPT_NAME'] ?? null,\n\
    'info' => $_SERVER['PATH_INFO'] ?? null, 'translated' => $_SERVER['PATH_TRANSLATED'] ?? null,\n\
    'status' => getenv('REDIRECT_STATUS'), 'get' => $_GET, 'include' => (int) ini_get('allow_url_include'),\n\
    'ini' => md5(serialize(ini_get_all(null, false))), 'length' => strlen(file_get_contents('php://input')), 'self' => $_SERVER['PHP_SELF'] ?? null],\n\
    JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE), \"\\n\";\n";

/// A PHP file as people upload it: neither executable nor with a first line of its own.
fn page(user: &User, name: &str, text: &str) {
    put(user.docroot().join(name), text.as_bytes(), user.id, 0o644);
}

const HANDLER: &str = "<Directory /var/www>\nAddHandler cgi-script .php .phtml .inc\n</Directory>\n";

fn php_world(test: impl Fn(&World, &Apache) + Sync) {
    for (kind, jail) in [(Kind::Event, "view"), (Kind::Prefork, "host")] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            page(&world.alice, "tell.php", TELL);
            let apache = Apache::start(world, kind, HANDLER);
            test(world, &apache);
        });
    }
}

#[test]
fn a_page_needs_no_first_line_no_x_bit_and_no_wrapper() {
    php_world(|world, apache| {
        let told = apache.get("alice.test", "/tell.php?a=1&b=2").text();
        for part in [
            "\"sapi\":\"cgi-fcgi\"",
            &format!("\"uid\":{}", world.alice.id),
            "\"script\":\"/var/www/alice/htdocs/tell.php\"",
            "\"file\":\"/var/www/alice/htdocs/tell.php\"",
            "\"name\":\"/tell.php\"",
            "\"status\":\"200\"",
            "\"get\":{\"a\":\"1\",\"b\":\"2\"}",
            "\"include\":0",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}\n{}", apache.log());
        }
        let posted = apache.ask(&Ask::post("alice.test", "/tell.php", vec![b'x'; 1 << 20])).text();
        assert!(posted.contains("\"length\":1048576"), "{posted}\n{}", apache.log());
    });
}

#[test]
fn a_query_is_never_a_switch_of_the_interpreter() {
    php_world(|_, apache| {
        let ordinary = apache.get("alice.test", "/tell.php").text();
        for query in [
            "-s",
            "-d+allow_url_include%3d1",
            "-d+allow_url_include%3don+-d+auto_prepend_file%3dphp://input",
            "%AD-s",
            "%ADs",
            "%20-s",
            "-h",
            "-i",
            "-n+-c+/tmp",
            "--",
            "-a+-b",
        ] {
            let answer = apache.get("alice.test", &format!("/tell.php?{query}"));
            let told = answer.text();
            assert!(told.starts_with("{\"sapi\":\"cgi-fcgi\""), "{query}: {told}");
            assert!(!told.contains("<?php") && told.contains("\"include\":0"), "{query}: {told}");
            assert_eq!(
                told.split("\"get\"").next().map(|start| start.replace(query, "")),
                ordinary.split("\"get\"").next().map(str::to_owned),
                "{query} changes what PHP was started with"
            );
        }
    });
}

#[test]
fn values_of_the_administrators_hold_whatever_a_visitor_or_the_site_says() {
    const VALUES: [(&str, &str); 4] = [
        ("open_basedir", "/var/www/alice:/tmp"),
        ("upload_max_filesize", "3M"),
        ("memory_limit", "64M"),
        ("session.name", "theirs"),
    ];
    each_kind_of_php(|world| {
        let values: String = VALUES.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        fs::create_dir_all("/etc/cellwall/php/alice").unwrap();
        let text = format!("{values}disable_functions = exec\n[PATH=/var]\n{values}");
        fs::write("/etc/cellwall/php/alice/values.ini", text).unwrap();
        for words in [
            ["files.read", "/etc/cellwall/php/alice"],
            ["environment.set.PHP_INI_SCAN_DIR", ":/usr/share/cellwall/php:/etc/cellwall/php/alice"],
        ] {
            let said = world.cellwall(&["set", "alice", words[0], words[1]]);
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        let docroot = world.alice.docroot();
        let own = "upload_max_filesize = 99M\nmemory_limit = 1G\n";
        put(docroot.join(".user.ini"), own.as_bytes(), world.alice.id, 0o644);
        page(
            &world.alice,
            "values.php",
            "<?php foreach (['open_basedir' => '/', 'memory_limit' => '2G', 'session.name' => 'mine', 'upload_max_filesize' => '9M']\n\
             as $name => $value) { @ini_set($name, $value); ini_restore($name); echo $name, '=', ini_get($name), \"\\n\"; }\n\
             echo 'exec=', (int) function_exists('exec'), \"\\n\";\n",
        );
        let apache = Apache::start(world, Kind::Event, HANDLER);
        for query in ["", "?a=1", "?-a", "?%2Dd+memory_limit", "?%20-n"] {
            let told = apache.get("alice.test", &format!("/values.php{query}")).text();
            for (name, value) in VALUES {
                assert!(told.contains(&format!("{name}={value}\n")), "{query}: {name}\n{told}");
            }
            assert!(told.ends_with("exec=0\n"), "{query}: {told}");
        }
    });
}

#[test]
fn words_that_a_query_takes_from_a_handler_are_an_error() {
    world(Launcher::Cellwall, |world| {
        // What becomes of them without it.
        let page =
            world.script(&world.alice, "a.php", "<?php echo function_exists('exec') ? 'lost' : 'held';");
        for (query, became) in [("a=1", "held"), ("-a", "lost"), ("%2da", "lost")] {
            let mut php = Command::new("/usr/bin/php-cgi");
            php.args(["-q", "-d", "disable_functions=exec"]).env("QUERY_STRING", query);
            php.env("REDIRECT_STATUS", "200").env("REQUEST_METHOD", "GET").env("SCRIPT_FILENAME", &page);
            let told = run(&mut php);
            assert!(String::from_utf8_lossy(&told.stdout).ends_with(became), "{query}: {told:?}");
        }
        let handler = "profile = \"php\"\n[handlers]\n\".php\" = [\"/usr/bin/php-cgi\", \"-d\", \"disable_functions=exec\"]\n";
        world.site("alice", handler);
        let said = world.cellwall(&["check"]);
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && text.contains("a query that begins with `-`"), "{text}");
        // What is said can be pasted.
        world.site(
            "alice",
            &handler.replace(
                "[\"/usr/bin/php-cgi\", \"-d\", \"disable_functions=exec\"]",
                "\"/usr/bin/php-cgi\"",
            ),
        );
        let remedy = text.split_once("run: ").unwrap().1.lines().next().unwrap();
        let script = format!(
            "mkdir -p /etc/cellwall/php/alice && echo 'disable_functions = exec' > /etc/cellwall/php/alice/values.ini && {remedy}"
        );
        let done = run(Command::new("sh").args(["-c", &script]));
        assert!(done.status.success(), "{remedy}: {}", String::from_utf8_lossy(&done.stderr));
        for query in ["a=1", "-a", "%2da"] {
            let ran = world.call(&world.alice, "a.php").env(format!("QUERY_STRING={query}")).run();
            assert!(ran.out_text().ends_with("held"), "{query}: {}", ran.story());
        }
    });
}

#[test]
fn what_follows_a_page_in_the_url_is_no_file() {
    php_world(|world, apache| {
        page(&world.alice, "other.php", "<?php echo 'other ran';");
        page(&world.alice, "image.jpg", "<?php echo 'image ran';");
        for info in ["/other.php", "/../other.php", "/image.jpg", "/x/y.php", "//", "/%2e%2e/other.php"] {
            let answer = apache.ask(&Ask::get("alice.test", &format!("/tell.php{info}")));
            let told = answer.text();
            assert!(!told.contains("image ran"), "{info}: {told}");
            // With dots the URL is the other page's, and no path behind this one: Apache says so before anybody is asked.
            if !info.contains("..") && !info.contains("%2e") {
                let file = "\"file\":\"/var/www/alice/htdocs/tell.php\"";
                assert!(answer.status == 200 && told.contains(file), "{info}: {} {told}", answer.status);
                assert!(!told.contains("other ran"), "{info}: {told}");
            }
        }
        let told = apache.get("alice.test", "/tell.php/extra/b.php").text();
        assert!(told.contains("\"info\":\"/extra/b.php\""), "{told}");
        // The image is a file, not a directory with a page in it.
        let answer = apache.ask(&Ask::get("alice.test", "/image.jpg/a.php"));
        assert!(!answer.text().contains("image ran"), "{}", answer.text());
    });
}

/// Apache sets REDIRECT_URL and PATH_TRANSLATED then, by which php-cgi would choose another file.
#[test]
fn a_rewritten_url_runs_the_page_that_was_verified() {
    for (kind, jail) in [(Kind::Event, "view"), (Kind::Prefork, "host")] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            page(&world.alice, "tell.php", TELL);
            page(&world.alice, "other.php", "<?php echo 'other ran';");
            world.script(&world.alice, "named.cgi", format!("#!/usr/bin/php-cgi\n{TELL}"));
            let rewrite = format!(
                "{HANDLER}<Directory /var/www/alice/htdocs>\nRewriteEngine On\nRewriteRule ^nice/(.*)$ tell.php/$1 [L]\n\
                 RewriteRule ^named/(.*)$ named.cgi/$1 [L]\nRewriteRule ^plain$ tell.php [L]\n</Directory>\n"
            );
            let apache = Apache::start(world, kind, &rewrite);
            for (url, file, info) in [
                ("/nice/other.php", "tell.php", "\"/other.php\""),
                ("/nice/no/such.php", "tell.php", "\"/no/such.php\""),
                ("/nice/tell.php/other.php", "tell.php", "\"/tell.php/other.php\""),
                ("/named/other.php", "named.cgi", "\"/other.php\""),
                ("/plain", "tell.php", "null"),
            ] {
                let told = apache.get("alice.test", url).text();
                for part in [
                    format!("\"file\":\"/var/www/alice/htdocs/{file}\""),
                    format!("\"script\":\"/var/www/alice/htdocs/{file}\""),
                    format!("\"info\":{info}"),
                ] {
                    assert!(told.contains(&part), "{url}: {part} is not in\n{told}\n{}", apache.log());
                }
            }
        });
    }
}

#[test]
fn headers_cannot_speak_for_the_server() {
    php_world(|world, apache| {
        page(
            &world.alice,
            "env.php",
            "<?php header('Content-Type: text/plain'); echo getenv('REDIRECT_STATUS'), ' ', \
             json_encode(array_filter(array_keys(getenv()), fn ($name) => \
             preg_match('/PROXY|HTTP_REDIRECT_STATUS|HTTP_AUTH|^(LD|PHP(?!_INI_SCAN_DIR$))/i', $name))), ' ', http_response_code();",
        );
        let ask = Ask::get("alice.test", "/env.php")
            .header("Proxy: http://evil.test")
            .header("Redirect-Status: 404")
            .header("Redirect-Url: /other.php")
            .header("Php-Value: auto_prepend_file=/etc/passwd")
            .header("Authorization: Basic eA==");
        let answer = apache.ask(&ask);
        assert_eq!((answer.status, answer.text().as_str()), (200, "200 [] 200"), "{}", apache.log());
    });
}

#[test]
fn uploads_arrive_as_files_of_the_owners() {
    php_world(|world, apache| {
        page(
            &world.alice,
            "up.php",
            "<?php header('Content-Type: text/plain'); $file = $_FILES['photo']; \
             echo $file['error'], ' ', $file['name'], ' ', $file['size'], ' ', md5_file($file['tmp_name']), ' ', \
             fileowner($file['tmp_name']), ' ', decoct(fileperms($file['tmp_name']) & 07777), ' ', \
             $_POST['note'], \"\\n\"; file_put_contents('/var/marks/alice/tmp', $file['tmp_name']);",
        );
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut body = b"--cut\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--cut\r\n\
                         Content-Disposition: form-data; name=\"photo\"; filename=\"p.bin\"\r\n\r\n"
            .to_vec();
        body.extend(&content);
        body.extend(b"\r\n--cut--\r\n");
        let ask = Ask::post("alice.test", "/up.php", body)
            .header("Content-Type: multipart/form-data; boundary=cut");
        let put_there = world.alice.docroot().join("expected");
        put(&put_there, &content, world.alice.id, 0o644);
        let sum = run(Command::new("/usr/bin/md5sum").arg(put_there)).stdout;
        let sum = String::from_utf8_lossy(&sum[..32]).into_owned();
        let told = apache.ask(&ask).text();
        assert_eq!(told, format!("0 p.bin 400000 {sum} {} 600 hello\n", world.alice.id), "{}", apache.log());
        let kept = fs::read_to_string("/var/marks/alice/tmp").unwrap();
        assert!(!fs::exists(kept).unwrap(), "an upload that nobody took stays in the host's /tmp");
    });
}

#[test]
fn sessions_last_and_are_the_sites_own() {
    for jail in ["view", "host"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            // A host jail has no place of its own where Debian's PHP keeps sessions (see the profile).
            let place = if jail == "host" { "session_save_path(getenv('TMPDIR'));" } else { "" };
            let text = format!(
                "<?php header('Content-Type: text/plain'); {place} session_start(); \
                 $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo $_SESSION['n'];"
            );
            for user in [&world.alice, &world.bob] {
                page(user, "count.php", &text);
            }
            let apache = Apache::start(world, Kind::Event, HANDLER);
            let cookie = "Cookie: PHPSESSID=0123456789abcdef0123456789";
            let count = |host: &str| apache.ask(&Ask::get(host, "/count.php").header(cookie)).text();
            for turn in ["1", "2", "3"] {
                assert_eq!(count("alice.test"), turn, "{jail}: {}", apache.log());
            }
            assert_eq!(count("bob.test"), "1", "{jail}: bob's site continues a session of alice's");
        });
    }
}

/// Debian's php.ini leaves that to a job, which looks where the host's sessions are.
#[test]
fn old_sessions_of_a_cell_are_deleted() {
    world(Launcher::Cellwall, |world| {
        // What `cargo xtask install` puts there.
        fs::create_dir_all("/usr/share/cellwall/php").unwrap();
        let settings = include_str!("../../policy/php/sessions.ini");
        fs::write("/usr/share/cellwall/php/sessions.ini", settings).unwrap();
        world.sites(&everything("view"));
        let text = "<?php ini_set('session.gc_divisor', '1'); ini_set('session.gc_maxlifetime', '100');\n\
                    if (isset($_GET['old'])) { touch(session_save_path() . '/sess_old', time() - 1000); }\n\
                    session_start(); echo file_exists(session_save_path() . '/sess_old') ? 'kept' : 'deleted';";
        page(&world.alice, "old.php", text);
        let apache = Apache::start(world, Kind::Event, HANDLER);
        assert_eq!(apache.get("alice.test", "/old.php?old").text(), "deleted", "{}", apache.log());
        // The host's own settings are read as before.
        page(
            &world.alice,
            "ini.php",
            "<?php echo ini_get('session.gc_divisor'), ' ', php_ini_scanned_files();",
        );
        let read = apache.get("alice.test", "/ini.php").text();
        assert!(
            read.starts_with("1000 ") && read.contains("/etc/php/") && read.contains("sessions.ini"),
            "{read}"
        );
    });
}

#[test]
fn a_page_that_names_php_cgi_in_its_first_line_runs() {
    php_world(|world, apache| {
        world.script(&world.alice, "named.cgi", format!("#!/usr/bin/php-cgi\n{TELL}"));
        let told = apache.get("alice.test", "/named.cgi?x=1").text();
        for part in
            ["\"sapi\":\"cgi-fcgi\"", "\"file\":\"/var/www/alice/htdocs/named.cgi\"", "\"get\":{\"x\":\"1\"}"]
        {
            assert!(told.contains(part), "{part} is not in\n{told}\n{}", apache.log());
        }
        let told = apache.get("alice.test", "/named.cgi?-s").text();
        assert!(told.starts_with("{\"sapi\"") && !told.contains("<?php"), "{told}");
    });
}

#[test]
fn the_command_line_php_is_a_cgi_like_any_other_program() {
    php_world(|world, apache| {
        let text = "#!/usr/bin/php\nContent-Type: text/plain\n\n<?php echo PHP_SAPI, ' ', posix_getuid(), ' ', \
                    getenv('QUERY_STRING'), ' ', getenv('REDIRECT_STATUS') ?: 'none', \"\\n\";\n";
        world.script(&world.alice, "cli.cgi", text);
        let told = apache.get("alice.test", "/cli.cgi?x=1").text();
        assert_eq!(told, format!("cli {} x=1 none\n", world.alice.id), "{}", apache.log());
    });
}

#[test]
fn another_owners_page_is_never_the_script() {
    each_kind_of_php(|world| {
        page(&world.alice, "tell.php", TELL);
        page(&world.bob, "secret.php", "<?php echo 'secret of bob';");
        let secret = world.bob.docroot().join("secret.php");
        let secret = secret.to_str().unwrap();
        for name in ["SCRIPT_FILENAME", "PATH_TRANSLATED"] {
            let outcome = world
                .call(&world.alice, "tell.php")
                .env(format!("{name}={secret}"))
                .env("REDIRECT_URL=/x.php")
                .env("SERVER_NAME=x")
                .run();
            let told = outcome.out_text();
            assert!(!told.contains("secret of bob"), "{name}: {}", outcome.story());
            assert!(
                told.contains("\"file\":\"/var/www/alice/htdocs/tell.php\""),
                "{name}: {}",
                outcome.story()
            );
        }
    });
}

/// `env` looks for php-cgi and starts it: the script is still the file that was verified, not the one behind it in the path.
#[test]
fn a_script_whose_first_line_looks_for_php_is_the_one_that_runs() {
    each_kind_of_php(|world| {
        make_directory(world.alice.docroot().join("up"), world.alice.id, 0o755);
        put(world.alice.docroot().join("up/evil.jpg"), b"<?php echo 'an upload ran';", world.alice.id, 0o644);
        for line in ["/usr/bin/php-cgi", "/usr/bin/env php-cgi", "/usr/bin/env -S php-cgi -q"] {
            world.script(&world.alice, "front.cgi", format!("#!{line}\n<?php echo 'the script ran';"));
            let outcome = world
                .call(&world.alice, "front.cgi")
                .env("SCRIPT_FILENAME=/var/www/alice/htdocs/front.cgi")
                .env("PATH_INFO=/up/evil.jpg")
                .env("PATH_TRANSLATED=/var/www/alice/htdocs/up/evil.jpg")
                .env("REDIRECT_URL=/nice/up/evil.jpg")
                .env("REDIRECT_STATUS=200")
                .env("SERVER_NAME=x")
                .run();
            let told = outcome.out_text();
            assert!(
                told.contains("the script ran") && !told.contains("upload"),
                "{line}: {}",
                outcome.story()
            );
        }
    });
}

#[test]
fn only_the_launchers_own_word_satisfies_phps_guard() {
    each_kind_of_php(|world| {
        page(&world.alice, "tell.php", TELL);
        for entry in ["HTTP_REDIRECT_STATUS=200", "REDIRECT_STATUS=404", "REDIRECT_STATUS="] {
            let outcome = world.call(&world.alice, "tell.php").env(entry).run();
            assert!(outcome.out_text().contains("\"status\":\"200\""), "{entry}: {}", outcome.story());
        }
        // Started by hand in a script, without the launcher's word, the guard holds.
        world.script(
            &world.alice,
            "sly.cgi",
            "#!/bin/sh\nunset REDIRECT_STATUS\nSCRIPT_FILENAME=$PWD/tell.php exec /usr/bin/php-cgi\n",
        );
        let outcome = world.call(&world.alice, "sly.cgi").env("HTTP_REDIRECT_STATUS=200").run();
        assert!(!outcome.out_text().contains("\"sapi\""), "{}", outcome.story());
    });
}

/// The case of 2003: a command that a web module runs, with the web's variables around it, is a command.
#[test]
fn a_command_with_web_variables_around_it_is_a_command() {
    let text = "#!/usr/bin/php\n<?php echo PHP_SAPI, ' ', implode(',', array_slice($argv, 1)), ' ', \
                strlen(stream_get_contents(STDIN)), \"\\n\";\n";
    each_kind_of_php(|world| {
        world.script(&world.alice, "tool", text);
        world.script(&world.alice, "tool.cgi", text);
        for name in ["tool", "tool.cgi"] {
            let web = [
                "SCRIPT_FILENAME=/var/www/alice/htdocs/page.shtml",
                "PATH_TRANSLATED=/var/www/alice/htdocs/page.shtml",
                "SERVER_SOFTWARE=Apache",
                "SERVER_NAME=alice.test",
                "REDIRECT_STATUS=200",
                "REDIRECT_URL=/page.shtml",
                "QUERY_STRING=-s",
                "CONTENT_LENGTH=5",
            ];
            let call = web.iter().fold(world.call(&world.alice, name), |call, entry| call.env(entry));
            let outcome = call.arg("one").arg("-s").arg("two words").input("hello").run();
            assert_eq!(outcome.out_text(), "cli one,-s,two words 5\n", "{name}: {}", outcome.story());
        }
    });
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        world.script(&world.alice, "tool", text);
        // Apache gives an include's command no words (its suEXEC gets the whole text as one name).
        page(&world.alice, "page.shtml", "[<!--#exec cmd=\"./tool\" -->][<!--#exec cmd=\"tool\" -->]\n");
        for kind in [Kind::Event, Kind::Prefork] {
            drop(fs::remove_dir_all("/tmp/apache"));
            let apache = Apache::start(world, kind, "");
            let told = apache.get("alice.test", "/page.shtml?-s").text();
            assert_eq!(told, "[cli  0\n][cli  0\n]\n", "{kind:?}\n{}", apache.log());
        }
    });
}

#[test]
fn a_handler_may_be_any_interpreter() {
    for (kind, jail) in [(Kind::Event, "view"), (Kind::Prefork, "host")] {
        world(Launcher::Cellwall, |world| {
            let rules = format!(
                "{}[handlers]\n\".phtml\" = \"/usr/bin/php-cgi\"\n\".pl\" = [\"/usr/bin/perl\", \"-T\"]\n\
                 \".py\" = [\"/usr/bin/python3\", \"-I\", \"-X\", \"utf8\"]\n\".sh\" = \"/bin/sh\"\n",
                everything(jail)
            );
            world.sites(&rules);
            page(&world.alice, "a.phtml", TELL);
            let head = "Content-Type: text/plain\\n\\n";
            page(&world.alice, "b.pl", &format!("print \"{head}${{^TAINT}} $0 (@ARGV) $<\\n\";\n"));
            page(
                &world.alice,
                "c.py",
                &format!(
                    "import os, sys\nprint('{head}', sys.flags.isolated, sys.flags.utf8_mode, sys.argv, os.getuid())\n"
                ),
            );
            page(&world.alice, "d.sh", &format!("printf '{head}'; echo $# $0; id -u\n"));
            let apache = Apache::start(world, kind, HANDLER);
            let (id, docroot) = (world.alice.id, "/var/www/alice/htdocs");
            let told = apache.get("alice.test", "/a.phtml").text();
            assert!(told.contains(&format!("\"file\":\"{docroot}/a.phtml\"")), "{told}\n{}", apache.log());
            for query in ["", "?-e+print(7)", "?one+two", "?-c+id"] {
                for (name, expected) in [
                    ("b.pl", format!("1 {docroot}/b.pl () {id}\n")),
                    ("c.py", format!(" 1 1 ['{docroot}/c.py'] {id}\n")),
                    ("d.sh", format!("0 {docroot}/d.sh\n{id}\n")),
                ] {
                    let told = apache.get("alice.test", &format!("/{name}{query}")).text();
                    assert_eq!(told, expected, "{name}{query}\n{}", apache.log());
                }
            }
        });
    }
}

/// A copy of the probe stands for php-cgi, and tells which words it got.
#[test]
fn an_action_may_name_php_cgi_itself_and_visitors_words_are_not_its_options() {
    world(Launcher::Cellwall, |world| {
        world.probe_at(&User { name: "root".to_owned(), id: 0 }, "/usr/local/bin/php-cgi");
        let programs = "programs = [\"/usr/bin/php-cgi\", \"/usr/local/bin/php-cgi\"]\n";
        world.sites(&format!("{programs}{}", everything("view")));
        page(&world.alice, "tell.php6", TELL);
        let more = "ScriptAlias /bin/ /usr/bin/\nScriptAlias /own/ /usr/local/bin/\n\
                    <Directory /usr/bin>\n<Files php-cgi>\nRequire all granted\n</Files>\n</Directory>\n\
                    <Directory /usr/local/bin>\n<Files php-cgi>\nRequire all granted\n</Files>\n</Directory>\n\
                    <Directory /var/www/alice>\nAddHandler own-php .php6\n\
                    Action own-php /bin/php-cgi\n</Directory>\n";
        let apache = Apache::start(world, Kind::Event, more);
        for query in ["", "?-s", "?x=1", "?%ADd+allow_url_include%3d1"] {
            let told = apache.get("alice.test", &format!("/tell.php6{query}")).text();
            assert!(
                told.contains("\"file\":\"/var/www/alice/htdocs/tell.php6\"")
                    && told.contains("\"include\":0"),
                "{query}: {told}\n{}",
                apache.log()
            );
        }
        let answer = apache.ask(&Ask::get("alice.test", "/bin/php-cgi?-s"));
        assert!(!answer.text().contains("phpinfo"), "{}", answer.text());
        let report = apache.get("alice.test", "/own/php-cgi?-s+-d+x");
        assert_eq!(Report::parse(&report.body).all("arg"), ["php-cgi"], "{}", report.text());
    });
}

#[test]
fn an_action_runs_the_owners_own_wrapper() {
    for jail in ["view", "host"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            make_directory(world.alice.docroot().join("bin"), world.alice.id, 0o755);
            world.script(
                &world.alice,
                "bin/wrapper",
                "#!/bin/sh\nexport PHP_OWN=yes\nexec /usr/bin/php-cgi\n",
            );
            page(&world.alice, "tell.php5", &TELL.replace("'sapi'", "'own' => getenv('PHP_OWN'), 'sapi'"));
            let more = "ScriptAlias /bin/ /var/www/alice/htdocs/bin/\n<Directory /var/www/alice>\n\
                        AddHandler own-php .php5\nAction own-php /bin/wrapper\n</Directory>\n";
            let apache = Apache::start(world, Kind::Event, more);
            let told = apache.get("alice.test", "/tell.php5?x=1").text();
            for part in
                ["\"own\":\"yes\"", "\"file\":\"/var/www/alice/htdocs/tell.php5\"", "\"get\":{\"x\":\"1\"}"]
            {
                assert!(told.contains(part), "{part} is not in\n{told}\n{}", apache.log());
            }
        });
    }
}

#[test]
fn a_page_that_others_may_write_or_that_is_not_the_owners_is_refused() {
    php_world(|world, apache| {
        let path = world.alice.docroot().join("tell.php");
        mode(&path, 0o666);
        assert_eq!(apache.ask(&Ask::get("alice.test", "/tell.php")).status, 500);
        assert_eq!(world.records().last().unwrap().field("code"), "V118");
        mode(&path, 0o644);
        chown(&path, Some(world.bob.id), None).unwrap();
        assert_eq!(apache.ask(&Ask::get("alice.test", "/tell.php")).status, 500);
        assert_eq!(world.records().last().unwrap().field("code"), "V120");
        chown(&path, Some(world.alice.id), None).unwrap();
        apache.get("alice.test", "/tell.php");
    });
}
