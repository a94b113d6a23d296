//! More rows of the catalogue: what workers say, leave behind and share, and what idle sites cost.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Apache, Ask, Kind, Launcher, append, make_directory, put, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged, many_descriptors, processes, until};
use super::limits::ticks;
use super::web::{self, Host, Server};

/// The broker: a child of the daemon's with the account of its own, as soon as there is one.
pub(crate) fn broker(daemon: &Daemon) -> i32 {
    let mut own = None;
    until("a broker", || {
        own = daemon.child("broker");
        own.is_some()
    });
    own.unwrap()
}

#[test]
fn pool_01_what_a_worker_writes_to_its_descriptors_harms_nobody() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let noise = "#!/usr/bin/perl\nmy $noise = join '', map { chr int rand 256 } 1 .. 4096;\n\
                     for my $round (1 .. 50) { for my $fd (0 .. 63) { if (open my $to, '>&=', $fd) { syswrite $to, $noise } } }\n\
                     sleep 1;\n";
        let path = world.script(&world.alice, "noise.fcgi", noise);
        world.site(
            "alice",
            &format!(
                "profile = \"perl\"\n[pool]\ncommand = \"{}\"\nworkers = {{ min = 1 }}\n",
                path.display()
            ),
        );
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        assert_eq!(nginx.get("bob", "/a.php").status, 200);
        let before = broker(&daemon);
        until("three noisy workers", || logged(&["pool start ", "site=alice"]).len() >= 3);
        assert_eq!(broker(&daemon), before, "the broker goes on");
        assert_eq!(nginx.get("bob", "/a.php").status, 200);
        // What came on descriptor 2 is in the log as lines of that site, printable, and not without end.
        let log = fs::read(crate::harness::LOG).unwrap();
        assert!(log.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')));
        assert!(log.len() < 2 << 20, "{} bytes", log.len());
    });
}

#[test]
fn pool_05_a_socket_is_only_ever_made_in_roots_directory() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        for listen in [
            "/var/www/alice/htdocs/x.sock",
            "../../tmp/x.sock",
            "a/b.sock",
            ".hidden",
            "",
            "0.0.0.0:9000",
            "192.0.2.1:9000",
        ] {
            world.site(
                "alice",
                &format!(
                    "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\nlisten = \"{listen}\"\n"
                ),
            );
            let said = world.cellwall(&["apply"]);
            let told = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(!said.status.success() && told.contains("alice.toml:6:"), "{listen}: {told}");
        }
        relayed(world, "children = 1");
        let _daemon = Daemon::start(world);
        let (rights, owner, _) = super::host::mode_of("/run/cellwall/pool");
        assert_eq!((rights & 0o022, owner), (0, 0), "nobody else can put a socket there");
    });
}

/// A web server with a group of its own reaches the pool that names it, and nobody else does: neither the group of the others
/// nor a neighbour.
#[test]
fn pool_08_a_socket_group_decides_who_connects() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nclients = [\"haproxy\"]\nsocket_group = \"haproxy\"");
        let _daemon = Daemon::start(world);
        let place = Path::new("/tmp/server");
        make_directory(place, 0, 0o777);
        let host = Host {
            site: "alice".to_owned(),
            name: "alice.test".to_owned(),
            port: 9001,
            docroot: world.alice.docroot(),
            socket: "/run/cellwall/pool/alice.sock".into(),
            ending: ".php",
        };
        let server = Server::start(web::haproxy_as_itself, place, &[host]);
        let answer = Ask::get("alice.test", "/a.php").send(9001);
        assert_eq!(answer.status, 200, "{} {}", answer.text(), server.words());
        assert_eq!(super::host::mode_of("/run/cellwall/pool"), (0o711, 0, 0));
        for uid in [33, world.bob.id] {
            let mut tool = Command::new("/usr/bin/cgi-fcgi");
            tool.args(["-bind", "-connect", "/run/cellwall/pool/alice.sock"]).env_clear();
            tool.env("SCRIPT_NAME", "/ping").env("REQUEST_METHOD", "GET").stdin(Stdio::null());
            let output = tool.uid(uid).gid(uid).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.stdout.is_empty() && said.contains("Could not connect"), "{uid}: {said}");
            let mut list = Command::new("/bin/ls");
            assert!(!list.arg("/run/cellwall/pool").uid(uid).gid(uid).output().unwrap().status.success());
        }
    });
}

/// A root of a site's own, in which its script has the same path as its neighbour's.
fn chroot(name: &str, id: u32) {
    let root = format!("/var/www/{name}/root");
    make_directory(&root, 0, 0o755);
    for place in ["usr", "etc", "dev", "tmp", "htdocs"] {
        make_directory(
            format!("{root}/{place}"),
            if matches!(place, "htdocs" | "tmp") { id } else { 0 },
            0o755,
        );
    }
    for link in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), format!("{root}/{link}")).unwrap();
    }
    let run = |words: &[&str]| {
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{words:?}")
    };
    run(&["mount", "--bind", "/usr", &format!("{root}/usr")]);
    run(&["mount", "--bind", "/dev", &format!("{root}/dev")]);
    run(&["cp", "-a", "/etc/ld.so.cache", "/etc/php", "/etc/alternatives", &format!("{root}/etc")]);
    put(format!("{root}/htdocs/same.php"), format!("<?php echo 'code of {name}';").as_bytes(), id, 0o644);
    let text = format!(
        "user = \"{name}\"\ndocroot = \"{root}/htdocs\"\nprofile = \"static\"\n[jail]\nkind = \"chroot\"\n\
         directory = \"{root}\"\nlandlock = \"off\"\n[limits]\ncgroup = \"off\"\n[pool]\nkind = \"parent\"\n\
         command = \"/usr/bin/php-cgi\"\nchildren = 2\n"
    );
    fs::write(format!("/etc/cellwall/sites.d/{name}.toml"), text).unwrap();
}

#[test]
fn pool_21_equal_paths_in_two_cells_are_two_scripts() {
    world(Launcher::Cellwall, |world| {
        chroot("alice", world.alice.id);
        chroot("bob", world.bob.id);
        fs::remove_file("/etc/cellwall/sites.d/carol.toml").unwrap();
        world.apply();
        let _daemon = Daemon::start(world);
        // As a web server that knows nothing of the other one: the same path inside, by its own socket.
        let ask = |name: &str| {
            let output = Command::new("/usr/bin/cgi-fcgi")
                .args(["-bind", "-connect", &format!("/run/cellwall/pool/{name}.sock")])
                .env_clear()
                .env("SCRIPT_FILENAME", format!("/var/www/{name}/root/htdocs/same.php"))
                .env("SCRIPT_NAME", "/same.php")
                .env("REQUEST_METHOD", "GET")
                .uid_of_the_web_server()
                .output()
                .unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        for round in 0..100 {
            for name in ["alice", "bob"] {
                let answer = ask(name);
                assert!(
                    answer.ends_with(&format!("code of {name}")),
                    "{round} {name}: {answer}{}",
                    logged(&[""]).join("\n")
                );
            }
        }
    });
}

trait WebServer {
    fn uid_of_the_web_server(&mut self) -> &mut Self;
}

impl WebServer for Command {
    fn uid_of_the_web_server(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt as _;
        self.uid(33).gid(33).stdin(std::process::Stdio::null())
    }
}

/// What a script can change about its process, and what it finds.
const CHANGES: &str = "<?php header('Content-Type: text/plain'); echo json_encode([getmypid(), umask(), getcwd(), getenv('LEFT') ?: '-', \
    ini_get('memory_limit'), setlocale(LC_ALL, 0), error_reporting(), isset($GLOBALS['left'])]); if ($_SERVER['QUERY_STRING'] === 'change') { \
    umask(0777); chdir('/'); putenv('LEFT=behind'); ini_set('memory_limit', '77M'); setlocale(LC_ALL, 'C.UTF-8'); error_reporting(0); \
    $GLOBALS['left'] = 1; set_time_limit(1); }";

#[test]
fn pool_22_what_one_request_changes_the_next_does_not_find() {
    world(Launcher::Cellwall, |world| {
        // A worker for each request: nothing at all is left. A lasting one: PHP puts back what is PHP's.
        for (more, lasting) in [("requests = 1", false), ("", true)] {
            put(world.alice.docroot().join("c.php"), CHANGES.as_bytes(), world.alice.id, 0o644);
            world.site("alice", &format!("profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\nworkers = {{ max = 1 }}\n{more}\n"));
            world.apply();
            let mut daemon = Daemon::start(world);
            let nginx = Nginx::start(&["alice"], "");
            let told = |query: &str| {
                let answer = nginx.get("alice", &format!("/c.php?{query}"));
                assert_eq!(answer.status, 200, "{}", answer.text());
                let text = answer.text();
                let (pid, rest) = text.trim_start_matches('[').split_once(',').unwrap();
                (pid.to_owned(), rest.to_owned())
            };
            let (first, fresh) = told("look");
            told("change");
            let (last, after) = told("look");
            assert_eq!(first == last, lasting, "{more}");
            let without_umask = |text: &str| text.split_once(',').unwrap().1.to_owned();
            if lasting {
                assert_eq!(
                    without_umask(&after),
                    without_umask(&fresh),
                    "all but the umask, which is the process's"
                );
            } else {
                assert_eq!(after, fresh);
            }
            daemon.stop();
        }
    });
}

/// Sites whose workers nobody asks for; the first one's uid is `first`.
pub(crate) fn idle_sites(count: usize, first: u32) {
    let (mut passwd, mut group) = (String::new(), String::new());
    for number in 0..count {
        let (name, id) = (format!("idle{number}"), first + u32::try_from(number).unwrap());
        passwd += &format!("{name}:x:{id}:{id}::/nonexistent:/bin/sh\n");
        group += &format!("{name}:x:{id}:\n");
        make_directory(format!("/var/www/{name}"), id, 0o755);
        let text = format!(
            "user = \"{name}\"\ndocroot = \"/var/www/{name}\"\nprofile = \"php\"\n[jail]\nkind = \"host\"\n[pool]\n\
             kind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\n"
        );
        fs::write(format!("/etc/cellwall/sites.d/{name}.toml"), text).unwrap();
    }
    append("/etc/passwd", &passwd);
    append("/etc/group", &group);
}

#[test]
fn pool_24_idle_sites_cost_a_socket_each_and_nothing_else() {
    const SITES: usize = 10_000;
    // Beyond all uids of worlds.
    const FIRST: u32 = 2_000_000;
    many_descriptors(12_000);
    world(Launcher::Cellwall, |world| {
        idle_sites(SITES, FIRST);
        world.script(
            &world.alice,
            "a.cgi",
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nserved\\n'\n",
        );
        world.site("alice", "profile = \"sh\"\n[limits]\nopen_files = 64\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        let daemon = Daemon::start(world);
        until("all sockets", || Path::new(&format!("/run/cellwall/pool/idle{}.sock", SITES - 1)).exists());
        let own = [daemon.pid().as_raw(), broker(&daemon)];
        let memory = |pid: i32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        // The broker hears of one site after the other.
        let spent = || own.map(ticks).iter().sum::<u64>();
        // Whoever has work and gets no processor rests as well, but does not sleep.
        let sleeps = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") S ");
        let sleep = || own.iter().all(sleeps);
        until("rest after the start", || {
            let (before, asleep) = (spent(), sleep());
            thread::sleep(Duration::from_millis(500));
            asleep && sleep() && spent() == before
        });
        let used: u64 = own.map(memory).iter().sum();
        assert!(used < 64 << 10, "{used} KiB for {SITES} sites");
        let before = spent();
        thread::sleep(Duration::from_secs(2));
        let after = spent();
        assert!(after - before <= 2, "{} hundredths of a second in two seconds", after - before);
        assert!(
            (0..SITES).step_by(50).all(|site| processes(FIRST + u32::try_from(site).unwrap()).is_empty())
        );
        // A program gets none of their sockets, and so may open as many files as its site allows.
        let nginx = Nginx::start(&["alice"], "");
        let answer = nginx.get("alice", "/a.cgi");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "served\n"),
            "{}",
            logged(&[""]).join("\n")
        );
    });
}

#[test]
fn leak_05_the_pools_errors_tell_the_reference_and_nothing_else() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\ntimeout = \"1s\"");
        put(world.alice.docroot().join("slow.php"), b"<?php sleep(30);", world.alice.id, 0o644);
        let dead = world.script(&world.bob, "dead.fcgi", "#!/usr/bin/perl\nexit 3;\n");
        world.site(
            "bob",
            &format!(
                "profile = \"perl\"\n[pool]\ncommand = \"{}\"\nqueue_timeout = \"1s\"\n",
                dead.display()
            ),
        );
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob", "carol"], "");
        for (site, path, statuses) in [
            ("alice", "/slow.php", &[504][..]),
            ("alice", "/none.txt", &[403, 404]),
            ("alice", "/..%2f..%2fbob/htdocs/a.php", &[400, 403, 404]),
            ("bob", "/x", &[502, 503]),
        ] {
            let answer = nginx.ask(&Ask::get(&format!("{site}.test"), path));
            assert!(statuses.contains(&answer.status), "{site}{path}: {}", answer.status);
            // nginx has pages of its own for what it refuses itself.
            let text = answer.text();
            let ours = text.split_once("Reference: ");
            let Some((_, rest)) = ours else {
                assert!(text.contains("nginx") && answer.status == 400, "{text}");
                continue;
            };
            let (reference, end) = rest.split_at(9);
            let name = text.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
            let title = name.split_once(' ').unwrap().1;
            assert_eq!(
                text,
                format!(
                    "<!DOCTYPE html>\n<title>{} {title}</title>\n<h1>{title}</h1>\n\
                     <p>The server could not answer this request. Reference: {reference}</p>\n",
                    answer.status
                )
            );
            assert_eq!(end, "</p>\n");
            until("its record", || {
                !logged(&[&format!("ref={reference}"), &format!("site={site}")]).is_empty()
            });
        }
    });
}

#[test]
fn pool_12_a_request_that_only_computes_is_ended_by_its_share_of_the_processor() {
    world(Launcher::Cellwall, |world| {
        put(
            world.alice.docroot().join("spin.php"),
            b"<?php set_time_limit(0); while (true);",
            world.alice.id,
            0o644,
        );
        put(world.alice.docroot().join("sleep.php"), b"<?php sleep(4); echo 'slept';", world.alice.id, 0o644);
        world.site("alice", "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\nworkers = { max = 2 }\ncpu_timeout = \"1s\"\n");
        world.script(&world.bob, "spin.cgi", "#!/usr/bin/perl\nwhile (1) { }\n");
        world.site("bob", "profile = \"perl\"\n[pool]\nkind = \"cgi\"\ncpu_timeout = \"1s\"\n");
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        // Time that passes is none that is spent.
        assert_eq!(nginx.get("alice", "/sleep.php").text(), "slept");
        let answer = nginx.get("alice", "/spin.php");
        assert_eq!(answer.status, 504, "{}\n{}", answer.text(), logged(&[""]).join("\n"));
        assert_eq!(logged(&["code=B11", "site=alice"]).len(), 1, "{:?}", logged(&[""]));
        let spinning = || processes(world.alice.id).len();
        until("the end of the worker", || spinning() <= 1);
        let answer = nginx.get("alice", "/sleep.php");
        assert_eq!(answer.text(), "slept", "{}", logged(&[""]).join("\n"));
        let answer = nginx.get("bob", "/spin.cgi");
        assert_eq!(answer.status, 504, "{}\n{}", answer.text(), logged(&[""]).join("\n"));
        until("the end of the program", || processes(world.bob.id).is_empty());
        // Children of one parent are measured together: there it cannot be had, and apply says so.
        world.site("alice", "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\ncpu_timeout = \"1s\"\n");
        let said = world.cellwall(&["check"]);
        assert!(String::from_utf8_lossy(&said.stderr).contains("cannot be told apart"), "{said:?}");
        // Where nobody knows when a request begins it cannot be had either.
        world.site("alice", "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\naccept = \"direct\"\ncpu_timeout = \"1s\"\n");
        let said = world.cellwall(&["check"]);
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(told.contains("alice.toml:7:") && told.contains("accept for themselves"), "{told}");
    });
}

/// It leaves its session, its process group and its parent, and stays: asked with `?spin` it computes there; with any query the
/// program itself stays as well.
const LEAVES: &str = "#!/usr/bin/perl\nuse POSIX;\nfor (1..2) { if (!fork) { setsid; if (!fork) { setsid; $SIG{TERM} = 'IGNORE';\n\
                      close STDOUT; close STDERR; close STDIN; if ($ENV{QUERY_STRING} eq 'spin') { while (1) { } } sleep 600; } exit 0 } }\n\
                      $| = 1; print \"Content-Type: text/plain\\r\\n\\r\\nfine\"; sleep 600 if $ENV{QUERY_STRING};\n";

/// The whole tree of a run ends with its request, whoever ends that.
fn runs_end_whole(groups: bool) {
    world(Launcher::Cellwall, |world| {
        if !groups {
            super::host::without_groups();
        }
        world.script(&world.bob, "leaves.cgi", LEAVES);
        world.script(&world.bob, "mute.cgi", LEAVES.replace("$| = 1; print", "my $none ="));
        world.site(
            "bob",
            "profile = \"perl\"\n[pool]\nkind = \"cgi\"\ncpu_timeout = \"1s\"\ntimeout = \"5s\"\nworkers = { max = 2 }\n",
        );
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["bob"], "");
        let none = |what: &str| until(what, || processes(world.bob.id).is_empty());
        for _ in 0..3 {
            assert_eq!(nginx.get("bob", "/leaves.cgi").text(), "fine");
            none("the end of what an answered request left");
        }
        let answer = nginx.get("bob", "/mute.cgi?spin");
        assert_eq!(answer.status, 504, "{}\n{}", answer.text(), logged(&[""]).join("\n"));
        assert_eq!(logged(&["code=B11", "site=bob"]).len(), 1, "{:?}", logged(&[""]));
        none("the end of what computed out of sight");
        let answer = nginx.get("bob", "/mute.cgi?hang");
        assert_eq!(answer.status, 504, "{}", logged(&[""]).join("\n"));
        assert_eq!(logged(&["code=B08", "site=bob"]).len(), 1, "{:?}", logged(&[""]));
        none("the end of what took too long");
        let gone = nginx.begun("bob", "/mute.cgi?hang");
        until("a zygote, its run and the two of that", || processes(world.bob.id).len() == 4);
        drop(gone);
        none("the end of what nobody waits for");
        let kept = nginx.begun("bob", "/mute.cgi?hang");
        until("a zygote, its run and the two of that", || processes(world.bob.id).len() == 4);
        kill(Pid::from_raw(broker(&daemon)), Signal::SIGKILL).unwrap();
        none("the end of what a broker left");
        drop(kept);
        assert_eq!(nginx.get("bob", "/leaves.cgi").text(), "fine");
    });
}

#[test]
fn pool_13_a_run_that_leaves_its_session_ends_with_its_request() {
    runs_end_whole(true);
}

#[test]
fn pool_13_so_it_does_without_control_groups() {
    runs_end_whole(false);
}

/// One key takes a site from CGI to a pool and back: the same program, user, jail and environment, and the same records.
#[test]
fn one_key_takes_a_site_to_a_pool_and_back() {
    world(Launcher::Cellwall, |world| {
        let text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nid -u; id -G; pwd; cat /proc/self/attr/current 2>/dev/null\n\
                    grep -E '^(NoNewPrivs|Seccomp|CapBnd)' /proc/self/status 2>/dev/null; ls / | tr '\\n' ' '; echo; umask\n\
                    echo \"$HOME $USER $SCRIPT_FILENAME $SCRIPT_NAME $QUERY_STRING $REQUEST_METHOD $PATH\"\n";
        world.site("alice", "profile = \"sh\"\n");
        world.script(&world.alice, "a.cgi", text);
        world.apply();
        let _daemon = Daemon::start(world);
        let order = |words: &[&str]| {
            let said = world.cellwall(words);
            assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
        };
        // One after the other: both listen on the same port.
        let free = || until("a free port", || std::net::TcpStream::connect(("127.0.0.1", 8080)).is_err());
        let by_apache = || {
            drop(fs::remove_dir_all("/tmp/apache"));
            free();
            Apache::start(world, Kind::Event, "").ask(&Ask::get("alice.test", "/a.cgi?x=1"))
        };
        let by_nginx = || {
            free();
            Nginx::start(&["alice"], "").get("alice", "/a.cgi?x=1")
        };
        let socket = Path::new("/run/cellwall/pool/alice.sock");
        let first = by_apache();
        assert_eq!((first.status, socket.exists()), (200, false), "{}", first.text());
        for _ in 0..2 {
            order(&["set", "alice", "pool.kind", "cgi"]);
            until("the socket", || socket.exists());
            let answer = by_nginx();
            assert_eq!((answer.status, answer.text()), (200, first.text()), "the pool");
            order(&["set", "alice", "pool.kind", "--remove"]);
            until("the end of the socket", || !socket.exists());
            assert_eq!(by_nginx().status, 502);
            let answer = by_apache();
            assert_eq!((answer.status, answer.text()), (200, first.text()), "suEXEC again");
        }
        let records = logged(&["launch ", "site=alice"]);
        let facts = |line: &String| {
            let words = line.split(' ').filter(|word| {
                ["uid=", "gid=", "dir=", "script=", "jail=", "landlock=", "seccomp="]
                    .iter()
                    .any(|name| word.starts_with(name))
            });
            words.map(str::to_owned).collect::<Vec<String>>()
        };
        assert_eq!(records.len(), 5);
        assert!(records.iter().all(|record| facts(record) == facts(&records[0])), "{records:?}");
    });
}
