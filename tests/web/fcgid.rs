//! mod_fcgid starts php-cgi through the launcher and keeps it for many requests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Apache, Ask, Kept, Kind, Launcher, World, everything, put, virtual_host, world};

/// A page that tells which process answers; its answer has a length, so that a connection can be kept.
const WHO: &str = "<?php $told = getmypid() . ' ' . posix_getuid(); header('Content-Type: text/plain'); \
                   header('Content-Length: ' . strlen($told)); echo $told;";

/// carol's site is served by PHP processes that stay.
fn fcgid_world(jail: &str, set: &str, fcgid: &str, test: impl Fn(&World, &mut Apache) + Sync) {
    world(Launcher::Cellwall, |world| {
        // Root keys stand before the sections.
        let rules = everything(jail);
        world.sites(&format!("programs = [\"/usr/bin/php-cgi\"]\n{rules}[environment]\nset = {{ {set} }}\n"));
        let mut apache = Apache::start(world, Kind::Event, &host("/usr/bin/php-cgi", fcgid));
        test(world, &mut apache);
    });
}

/// A virtual host fcgid.test of carol's with `wrapper` for PHP.
fn host(wrapper: &str, more: &str) -> String {
    let handler = format!(
        "{more}\n<Directory /var/www/carol>\nAddHandler fcgid-script .php\nFcgidWrapper {wrapper} .php\n</Directory>\n"
    );
    virtual_host("fcgid", "carol", "/var/www/carol/htdocs", &handler)
}

fn page(world: &World, name: &str, text: &str) {
    put(world.carol.docroot().join(name), text.as_bytes(), world.carol.id, 0o644);
}

/// How many processes a uid has.
fn processes(uid: u32) -> usize {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    // A process that has ended and was not yet waited for belongs to its parent, and is none of the uid's.
    let ended = |text: &str| text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    all.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|entry| entry.metadata().is_ok_and(|facts| facts.uid() == uid))
        .filter(|entry| fs::read_to_string(entry.path().join("stat")).is_ok_and(|text| !ended(&text)))
        .count()
}

fn wait_for_processes(uid: u32, count: usize, story: impl Fn() -> String) {
    let started = Instant::now();
    while processes(uid) != count {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{} processes instead of {count}\n{}",
            processes(uid),
            story()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks `count` times on 8 kept connections. Returns how often each process answered, and what went wrong.
fn many(apache: &Apache, count: usize) -> (BTreeMap<u32, usize>, Vec<String>) {
    let client = || {
        let mut kept = None;
        (0..count / 8).map(|_| ask(apache, &mut kept)).collect::<Vec<_>>()
    };
    let parts: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let (mut workers, mut failures) = (BTreeMap::new(), Vec::new());
    for answer in parts {
        match answer {
            Ok(pid) => *workers.entry(pid).or_insert(0) += 1,
            Err(why) => failures.push(why),
        }
    }
    (workers, failures)
}

fn ask(apache: &Apache, kept: &mut Option<Kept>) -> Result<u32, String> {
    let answer = kept.get_or_insert_with(|| Kept::to(apache.port())).get("fcgid.test", "/who.php");
    let pid = answer.and_then(|answer| match (answer.status, answer.text().split_once(' ')) {
        (200, Some((pid, _))) => pid.parse().map_err(|_| answer.text()),
        (status, _) => Err(format!("{status} {}", answer.text())),
    });
    if pid.is_err() {
        *kept = None;
    }
    pid
}

#[test]
fn a_worker_runs_as_the_owner_with_the_policys_environment() {
    for jail in ["view", "host"] {
        fcgid_world(jail, "PHP_FCGI_MAX_REQUESTS = \"1234\", APP_MODE = \"prod\"", "", |world, apache| {
            page(
                world,
                "a.php",
                "<?php header('Content-Type: text/plain'); echo posix_getuid(), ' ', PHP_SAPI, ' ', \
                 getenv('PHP_FCGI_MAX_REQUESTS'), ' ', getenv('APP_MODE'), ' ', $_SERVER['SCRIPT_FILENAME'], ' ', \
                 strlen(file_get_contents('php://input')), \"\\n\";",
            );
            let expected = |length: usize| {
                format!("{} cgi-fcgi 1234 prod /var/www/carol/htdocs/a.php {length}\n", world.carol.id)
            };
            assert_eq!(apache.get("fcgid.test", "/a.php").text(), expected(0), "{}", apache.log());
            let posted = apache.ask(&Ask::post("fcgid.test", "/a.php", vec![b'x'; 100_000]));
            assert_eq!(posted.text(), expected(100_000), "{}", apache.log());
            let records = world.records();
            assert_eq!(records.len(), 1, "one worker served both: {records:?}");
            assert_eq!((records[0].verb.as_str(), records[0].field("site")), ("launch", "carol"));
        });
    }
}

#[test]
fn the_servers_own_start_environment_arrives_where_the_site_passes_it() {
    let initial = "FcgidInitialEnv PHP_FCGI_MAX_REQUESTS 77\nFcgidInitialEnv LD_PRELOAD /tmp/x.so\n\
                   FcgidInitialEnv PHPRC /tmp\nFcgidInitialEnv OTHER x\n";
    fcgid_world("view", "APP_MODE = \"prod\"", initial, |world, apache| {
        page(
            world,
            "a.php",
            "<?php header('Content-Type: text/plain'); \
             foreach (['PHP_FCGI_MAX_REQUESTS', 'LD_PRELOAD', 'PHPRC', 'OTHER', 'APP_MODE'] as $name) \
             echo getenv($name) ?: 'none', ' ';",
        );
        assert_eq!(apache.get("fcgid.test", "/a.php").text(), "77 none none none prod ", "{}", apache.log());
    });
}

#[test]
fn phps_own_children_are_as_many_as_either_side_says_and_end_with_the_server() {
    for (set, initial, jail) in [
        ("PHP_FCGI_CHILDREN = \"3\"", "", "view"),
        ("APP_MODE = \"prod\"", "FcgidInitialEnv PHP_FCGI_CHILDREN 3\n", "host"),
    ] {
        fcgid_world(jail, set, initial, |world, apache| {
            page(world, "who.php", WHO);
            let told = apache.get("fcgid.test", "/who.php").text();
            assert!(told.ends_with(&format!(" {}", world.carol.id)), "{told}");
            wait_for_processes(world.carol.id, 4, || apache.log());
            let parent = world.records().pop().unwrap().field("pid").to_owned();
            assert_ne!(told.split(' ').next(), Some(parent.as_str()), "a child answers, not their parent");
            apache.stop();
            wait_for_processes(world.carol.id, 0, || apache.log());
        });
    }
}

#[test]
fn idle_workers_end_and_others_start() {
    let idle = "FcgidMinProcessesPerClass 0\n";
    let global = "FcgidIdleTimeout 1\nFcgidIdleScanInterval 1\nFcgidErrorScanInterval 1\n";
    world(Launcher::Cellwall, |world| {
        world.sites(&format!("programs = [\"/usr/bin/php-cgi\"]\n{}", everything("view")));
        let apache =
            Apache::start(world, Kind::Event, &format!("{global}{}", host("/usr/bin/php-cgi", idle)));
        page(world, "who.php", WHO);
        let first = apache.get("fcgid.test", "/who.php").text();
        wait_for_processes(world.carol.id, 0, || apache.log());
        assert_ne!(apache.get("fcgid.test", "/who.php").text(), first);
        assert_eq!(world.records().len(), 2);
    });
}

#[test]
fn twenty_thousand_requests_with_recycling_have_no_failure() {
    let recycling = "FcgidMaxRequestsPerProcess 500\nFcgidMaxProcessesPerClass 16\n";
    fcgid_world("view", "PHP_FCGI_MAX_REQUESTS = \"500\"", recycling, |world, apache| {
        page(world, "who.php", WHO);
        let started = Instant::now();
        let (workers, failures) = many(apache, 20_000);
        let took = started.elapsed();
        assert!(failures.is_empty(), "{} failures: {:?}\n{}", failures.len(), failures.first(), apache.log());
        assert_eq!(workers.values().sum::<usize>(), 20_000);
        assert!(workers.len() >= 40, "20,000 requests at 500 a worker, and only {} workers", workers.len());
        let most = workers.values().max().unwrap();
        assert!(*most <= 500, "a worker answered {most} times");
        let records = world.records();
        let launched: BTreeSet<u32> =
            records.iter().map(|record| record.field("pid").parse().unwrap()).collect();
        assert!(records.iter().all(|record| record.verb == "launch"), "{records:?}");
        assert!(workers.keys().all(|pid| launched.contains(pid)), "a worker was not launched by us");
        println!("20,000 requests, {} workers, {took:?}", workers.len());
        apache.stop();
        wait_for_processes(world.carol.id, 0, || apache.log());
    });
}

/// The same server, the same wrapper in the docroot; only the launcher differs.
#[test]
fn stock_suexec_loses_the_limit_and_requests_with_it() {
    for launcher in [Launcher::Stock, Launcher::Cellwall] {
        world(launcher, |world| {
            world.sites(&everything("host"));
            let more = "FcgidMaxRequestsPerProcess 5000\nFcgidMaxProcessesPerClass 4\n\
                        FcgidInitialEnv PHP_FCGI_MAX_REQUESTS 5000\n";
            world.script(&world.carol, "php-fcgi", "#!/bin/sh\nexec /usr/bin/php-cgi\n");
            page(world, "who.php", WHO);
            let apache = Apache::start(world, Kind::Event, &host("/var/www/carol/htdocs/php-fcgi", more));
            let (workers, failures) = many(&apache, 8_000);
            println!("{launcher:?}: {} failures, {} workers", failures.len(), workers.len());
            let most = workers.values().max().unwrap();
            if launcher == Launcher::Stock {
                assert!(*most <= 500, "stock suEXEC lets the limit pass: {most}");
                assert!(!failures.is_empty(), "stock suEXEC loses no requests any more");
            } else {
                assert!(failures.is_empty(), "{failures:?}\n{}", apache.log());
                assert!(*most > 500, "the limit did not arrive: no worker answered more than {most} times");
            }
        });
    }
}

#[test]
fn a_program_that_the_site_does_not_name_is_not_started() {
    fcgid_world("view", "APP_MODE = \"prod\"", "", |world, apache| {
        page(world, "a.php", "<?php echo 'ran';");
        world.site("carol", &everything("view"));
        world.apply();
        let answer = apache.ask(&Ask::get("fcgid.test", "/a.php"));
        assert!(answer.status >= 500 && !answer.text().contains("ran"), "{}", answer.text());
        let records = world.records();
        assert!(!records.is_empty() && records.iter().all(|record| record.verb == "refuse"), "{records:?}");
        let log = apache.log();
        assert!(!log.contains("Status: 500"), "a page for visitors is in the server's log:\n{log}");
        assert_eq!(processes(world.carol.id), 0);
    });
}
