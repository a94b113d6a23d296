//! `cellwall learn` and `cellwall denials`: what a site's rules lack, and what the kernel denied.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::harness::{Launcher, World, as_in_the_manual, make_directory, put, run, world};

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) const HAND: &str = "[files]\nexecute = [\"/usr/bin\", \"/usr/lib\", \"/usr/lib64?\"]\nread = [\"/etc/ld.so.cache?\", \
                    \"/etc/alternatives?\"]\n";

/// An application that no profile knows: settings, a catalogue, a log, names, a port; and something that it should not do.
const APPLICATION: &str = "#!/usr/bin/python3 -ISB\nimport socket\n\
    open('/srv/shop/settings'); open('/srv/shop/prices'); open('/srv/shoplog/log', 'a').write('x')\n\
    socket.getaddrinfo('database.test', 80)\nsocket.socket().connect(('127.0.0.1', 3307))\n\
    for secret in ('/etc/shadow', '/var/www/bob/htdocs/config.php', '/srv/shop/tls.key'):\n    try: open(secret)\n    except OSError: pass\n\
    print('Content-Type: text/plain\\n\\nwell')\n";

pub(crate) fn application(world: &World) -> TcpListener {
    std::fs::write("/etc/hosts", "127.0.0.1 localhost database.test\n").unwrap();
    make_directory("/srv/shop", 0, 0o755);
    for name in ["settings", "prices", "tls.key"] {
        put(format!("/srv/shop/{name}"), b"1\n", 0, 0o644);
    }
    make_directory("/srv/shoplog", world.alice.id, 0o755);
    put(world.bob.docroot().join("config.php"), b"secret\n", world.bob.id, 0o644);
    world.script(&world.alice, "a.cgi", APPLICATION);
    world.site("alice", &format!("{HAND}[network]\nconnect = [25]\n"));
    world.apply();
    TcpListener::bind("127.0.0.1:3307").unwrap()
}

#[test]
fn what_an_unknown_application_needs_is_proposed_and_suffices() {
    world(Launcher::Cellwall, |world| {
        let _service = application(world);
        assert!(!world.call(&world.alice, "a.cgi").run().out_text().contains("well"));
        let before = std::fs::read("/etc/cellwall/sites.d/alice.toml").unwrap();
        let said = world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]);
        let text = told(&said);
        assert!(said.status.success(), "{text}");
        for part in [
            "pieces = [\n    \"dns\", # ",
            "    \"/srv/shop\", # ",
            "    \"/srv/shoplog\", # ",
            "    3307, # ",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        as_in_the_manual("cellwall learn alice --request /var/www/alice/htdocs/a.cgi", &text);
        for secret in ["/etc/shadow", "/var/www/bob/htdocs/config.php", "/srv/shop/tls.key"] {
            assert!(text.contains(&format!("# NOT proposed: {secret} (")), "{secret}:\n{text}");
            assert!(!text.contains(&format!("    \"{secret}\", #")), "{secret}:\n{text}");
        }
        assert_eq!(
            std::fs::read("/etc/cellwall/sites.d/alice.toml").unwrap(),
            before,
            "something was applied"
        );
        for line in text.lines().filter_map(|line| line.strip_prefix("# cellwall set ")) {
            let said = run(Command::new("/bin/sh").args(["-c", &format!("cellwall set {line}")]));
            assert!(said.status.success(), "{line}: {}", told(&said));
        }
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("well"), "{}\n{text}", outcome.story());
        let again = told(&world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]));
        assert!(again.contains("cover all that it used"), "{again}");
    });
}

/// Another user names a directory, and the site's program asks for it: the administrator reads the name.
#[test]
fn a_name_that_a_stranger_chose_forges_no_line_and_steers_no_terminal() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", HAND);
        world.apply();
        let name = "/srv/open/x\x1b[2J\n# cellwall set alice files.read ";
        make_directory("/srv/open", 0, 0o755);
        make_directory(name, world.bob.id, 0o755);
        make_directory(format!("{name}/root"), world.bob.id, 0o755);
        let said = world.cellwall(&["learn", "alice", "--", "/bin/sh", "-c", "ls -R /srv/open"]);
        let text = told(&said);
        assert!(said.status.success() && text.contains("another site or person"), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
        let lines = text.lines().filter(|line| line.starts_with("# cellwall set ")).collect::<Vec<_>>();
        assert!(lines.is_empty(), "{lines:?}");
    });
}

/// A program can ask for any directory; what it opens would be opened beneath, too.
#[test]
fn no_directory_is_proposed_that_holds_what_is_another_sites_or_secret() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", HAND);
        world.site("bob", HAND);
        world.apply();
        make_directory("/srv/homes", 0, 0o755);
        make_directory("/srv/homes/carol", world.carol.id, 0o755);
        make_directory("/srv/open", 0, 0o755);
        put("/srv/open/a", b"x", 0, 0o644);
        // Beneath the first one bob's docroot lies, beneath the second the records; where a link leads counts as well.
        std::os::unix::fs::symlink("/var/www", "/srv/open/link").unwrap();
        let asked = "ls /var/www /var/lib /var/cache /etc/ssl /srv/homes /srv/open/link/ /srv/open >/dev/null\n\
             touch /srv/homes/new /var/www/new /var/lib/new\n";
        world.script(
            &world.alice,
            "a.cgi",
            format!("#!/bin/sh\n{asked}printf 'Content-Type: text/plain\\n\\n'\n"),
        );
        for place in ["/var/cache", "/etc/ssl"] {
            std::fs::create_dir_all(place).unwrap();
        }
        let said = world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]);
        let text = told(&said);
        let proposed: Vec<&str> =
            text.lines().filter(|line| line.contains("cellwall set alice files")).collect();
        assert_eq!(proposed, ["# cellwall set alice files.read /srv/open"], "{text}");
        for (path, reason) in [
            ("/var/www", "which is site bob's"),
            ("/var/lib", "a whole tree"),
            ("/etc/ssl", "/etc/ssl/private is in it"),
            ("/srv/homes", "belongs to uid"),
            ("/srv/open/link", "which is site bob's"),
        ] {
            let is =
                |line: &&str| line.starts_with(&format!("# NOT proposed: {path} (")) && line.contains(reason);
            assert!(text.lines().any(|line| is(&line)), "{path}, {reason}:\n{text}");
        }
        // A script of the site's, called from above all sites, makes no docroot of that.
        world.call(&world.alice, "a.cgi").cwd("/var/www").run().refused_somehow();
        let told = told(&world.cellwall(&["why", "--last"]));
        assert!(!told.contains("docroot /var/www"), "{told}");
    });
}

#[test]
fn a_program_that_calls_and_prints_without_end_is_cut_off_and_told() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", HAND);
        world.apply();
        for code in ["1 while !-e '/none' x 600", "print 'x' x 65536 while 1"] {
            let started = Instant::now();
            // The address space of the command itself: it holds neither the trace nor the output.
            let line = format!(
                "ulimit -v 400000; exec cellwall learn alice --most 200 -- /usr/bin/perl -e \"{code}\""
            );
            let said = run(Command::new("/bin/sh").args(["-c", &line]));
            let text = told(&said);
            assert!(
                said.status.success() && text.contains("# It is not all known: it was cut off"),
                "{text}"
            );
            assert!(started.elapsed() < Duration::from_secs(150), "{:?}", started.elapsed());
        }
    });
}

/// Where a directory is proposed, what is in it is not proposed as well: an application has hundreds of files.
#[test]
fn of_an_applications_tree_the_top_is_proposed_alone() {
    world(Launcher::Cellwall, |world| {
        for directory in ["/srv/app", "/srv/app/lib", "/srv/app/lib/deep", "/srv/apply"] {
            make_directory(directory, 0, 0o755);
        }
        make_directory("/srv/app/out", world.alice.id, 0o755);
        for file in ["app/one", "app/two", "app/lib/one", "app/lib/deep/one", "app/lib/deep/two", "apply/one"]
        {
            put(format!("/srv/{file}"), b"1\n", 0, 0o644);
        }
        let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n\
                      cat /srv/app/one /srv/app/two /srv/app/lib/one /srv/app/lib/deep/one /srv/app/lib/deep/two /srv/apply/one\n\
                      echo 1 > /srv/app/out/log && echo well\n";
        world.script(&world.alice, "a.cgi", script);
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let text = told(&world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]));
        let sets: Vec<&str> = text.lines().filter(|line| line.contains("cellwall set alice files")).collect();
        let expected = [
            "# cellwall set alice files.read /srv/app /srv/apply/one",
            "# cellwall set alice files.write /srv/app/out",
        ];
        assert_eq!(sets, expected, "{text}");
        assert!(text.contains("\"/srv/app\", # 5 times, first by "), "{text}");
        for line in sets {
            let said = run(Command::new("/bin/sh").args(["-c", line.trim_start_matches("# ")]));
            assert!(said.status.success(), "{line}: {}", told(&said));
        }
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("well"), "{}\n{text}", outcome.story());
    });
}

/// Debian's packages put programs of root's outside of all docroots, and the site names them.
#[test]
fn a_program_of_roots_that_the_site_names_is_learned_from() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/shop", 0, 0o755);
        put("/srv/shop/settings", b"1\n", 0, 0o644);
        let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\ncat /srv/shop/settings\n";
        make_directory("/usr/lib/tool", 0, 0o755);
        put("/usr/lib/tool/named", script.as_bytes(), 0, 0o755);
        put("/usr/lib/tool/other", script.as_bytes(), 0, 0o755);
        world.site("alice", "profile = \"sh\"\nprograms = [\"/usr/lib/tool/named\"]\n");
        world.apply();
        let learned = |program: &str| told(&world.cellwall(&["learn", "alice", "--request", program]));
        let text = learned("/usr/lib/tool/named");
        assert!(text.contains("# cellwall set alice files.read /srv/shop/settings"), "{text}");
        let text = learned("/usr/lib/tool/other");
        assert!(text.contains("is in none of the site's docroots, and none of its programs"), "{text}");
    });
}

/// A program that stops where a directory is missing has used nothing in it: that it asked is told.
#[test]
fn a_directory_that_was_only_asked_for_is_told() {
    world(Launcher::Cellwall, |world| {
        for place in ["/srv/shop", "/srv/shop/pictures", "/srv/shop/used"] {
            make_directory(place, 0, 0o755);
        }
        put("/srv/shop/used/one", b"1\n", 0, 0o644);
        let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\ntest -d /srv/shop/used && cat /srv/shop/used/one\n\
                      test -d /srv/shop/pictures || { echo 'no pictures'; exit 1; }\ntest -d /usr/lib && test -d /var/www && echo well\n";
        world.script(&world.alice, "a.cgi", script);
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        assert!(world.call(&world.alice, "a.cgi").run().out_text().contains("no pictures"));
        let text = told(&world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]));
        assert!(text.contains("# NOT proposed: /srv/shop/pictures (once, "), "{text}");
        assert_eq!(text.matches("NOT proposed").count(), 1, "{text}");
    });
}

/// A place to write that is a service's: `apply` refuses it, so what is proposed begins with whose it becomes.
#[test]
fn a_services_directory_is_not_proposed_to_be_written_as_it_is() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/tmp", 33, 0o755);
        let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\necho 1 > /srv/tmp/x && echo well\n";
        world.script(&world.alice, "a.cgi", script);
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let id = world.alice.id;
        let chown = format!("chown -h --from=33 {id}:{id} /srv/tmp");
        let text = told(&world.cellwall(&["learn", "alice", "--request", "/var/www/alice/htdocs/a.cgi"]));
        assert!(text.contains("# NOT proposed: /srv/tmp (") && text.contains(&chown), "{text}");
        assert!(!text.contains("cellwall set"), "{text}");
        assert!(!world.call(&world.alice, "a.cgi").run().out_text().contains("well"));
        let text = told(&world.cellwall(&["why", "--last", "alice", "--again"]));
        let repair = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("repair "))
            .unwrap_or_else(|| panic!("{text}"));
        assert_eq!(repair.trim(), format!("{chown} && cellwall set alice files.write /srv/tmp"));
        let said = run(Command::new("/bin/sh").args(["-c", repair]));
        assert!(said.status.success(), "{repair}: {}", told(&said));
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("well"), "{}", outcome.story());
    });
}

#[test]
fn a_command_can_be_watched_and_runs_as_the_site() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", HAND);
        world.apply();
        make_directory("/srv/out", world.alice.id, 0o755);
        let said = world.cellwall(&["learn", "alice", "--", "/bin/sh", "-c", "/usr/bin/id -u > /srv/out/id"]);
        assert!(told(&said).contains("write = [\n    \"/srv/out\", # "), "{}", told(&said));
        let id = std::fs::read_to_string("/srv/out/id").unwrap();
        assert_eq!(id.trim(), world.alice.id.to_string());
    });
}

#[test]
fn a_denied_system_call_is_told_where_the_site_logs_denials() {
    world(Launcher::Cellwall, |world| {
        let number = if cfg!(target_arch = "x86_64") { 250 } else { 219 };
        let script = format!(
            "#!/usr/bin/perl\nsyscall({number}, 0, -3, 1);\nprint \"Content-Type: text/plain\\n\\nended\\n\";\n"
        );
        world.script(&world.alice, "a.cgi", script);
        world.site("alice", &format!("{HAND}[jail]\nlog_denials = true\n"));
        world.apply();
        // The kernel's log takes ten lines in five seconds, from all tests together: again, until it had room.
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let outcome = world.call(&world.alice, "a.cgi").run();
            assert!(outcome.out_text().contains("ended"), "{}", outcome.story());
            let text = told(&world.cellwall(&["denials", "alice"]));
            let reference = outcome.records[0].field("ref").to_owned();
            let story = told(&world.cellwall(&["why", &reference]));
            let all = text.contains("/usr/bin/perl: system call keyctl")
                && story.contains("kernel    system call keyctl");
            if all {
                break;
            }
            assert!(Instant::now() < end, "{text}\n{story}");
            std::thread::sleep(Duration::from_secs(2));
        }
        assert!(!told(&world.cellwall(&["denials", "bob"])).contains("keyctl"));
    });
}

/// An interpreter reads what the kernel started; and older files have names that no file of TOML can hold.
#[test]
fn what_is_executed_and_read_is_proposed_once_and_a_name_that_no_file_holds_by_its_directory() {
    use std::os::unix::ffi::OsStringExt as _;
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/tool", 0, 0o755);
        put("/srv/tool/run", b"#!/bin/sh\necho ran\n", 0, 0o755);
        make_directory("/srv/old", 0, 0o755);
        put(std::ffi::OsString::from_vec(b"/srv/old/pr\xfcfung".to_vec()), b"x\n", 0, 0o644);
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let script = "/srv/tool/run; cat /srv/old/pr*fung";
        let text = told(&world.cellwall(&["learn", "alice", "--", "/bin/sh", "-c", script]));
        assert_eq!(text.matches("\"/srv/tool/run\", #").count(), 1, "{text}");
        assert!(text.contains("# cellwall set alice files.execute /srv/tool/run\n"), "{text}");
        assert!(
            text.contains("# NOT proposed: /srv/old (once, first by /usr/bin/cat: /srv/old): ")
                && text.contains("is not UTF-8"),
            "{text}"
        );
        assert!(!text.contains("xef\\xbf"), "{text}");
        assert!(world.cellwall(&["set", "alice", "files.execute", "/srv/tool/run"]).status.success());
        let said = world.cellwall(&["run", "alice", "--", "/srv/tool/run"]);
        assert_eq!(said.stdout, b"ran\n");
        let path = std::ffi::OsString::from_vec(b"/srv/old/pr\xfcfung".to_vec());
        let said = run(Command::new("cellwall").args(["set", "alice", "files.read"]).arg(path));
        assert_eq!(said.status.code(), Some(1), "{}", told(&said));
        assert!(told(&said).contains("name the directory that it is in"), "{}", told(&said));
    });
}
