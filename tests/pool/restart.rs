//! A daemon that is replaced: what the service manager keeps for the next one, and what it hands over.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cellwall::pool::listen;
use cellwall::sys::descriptors;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::harness::{Ask, Launcher, World, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged, many_descriptors, processes, until};
use super::rows::idle_sites;

/// As much of a service manager as sd_pid_notify_with_fds(3) tells of: it keeps descriptors by name, and has them open at the
/// next start, from 3 up.
struct Manager {
    kept: Arc<Mutex<Vec<Kept>>>,
    words: Arc<Mutex<Vec<String>>>,
    end: Arc<AtomicBool>,
}

/// A name, a descriptor, and which socket it is.
type Kept = (String, OwnedFd, u64);

const NOTIFY: &str = "/tmp/notify";

impl Manager {
    fn new() -> Self {
        let socket = UnixDatagram::bind(NOTIFY).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = Self { kept: Arc::default(), words: Arc::default(), end: Arc::default() };
        let (kept, words) = (Arc::clone(&manager.kept), Arc::clone(&manager.words));
        let end = Arc::clone(&manager.end);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                match descriptors::receive(&socket, &mut buffer) {
                    Ok((length, with)) => {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        obey(&mut kept.lock().unwrap(), &text, with);
                        words.lock().unwrap().push(text);
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        manager
    }

    /// Starts the daemon with what is kept.
    fn start(&self, world: &World) -> Daemon {
        self.start_with(world, &[])
    }

    /// Starts it with `more` as well.
    fn start_with(&self, world: &World, more: &[(&str, OwnedFd)]) -> Daemon {
        let kept = self.kept.lock().unwrap();
        let all: Vec<(&str, &OwnedFd)> = kept.iter().map(|(name, fd, _)| (name.as_str(), fd)).collect();
        let all: Vec<(&str, &OwnedFd)> =
            all.into_iter().chain(more.iter().map(|(name, fd)| (*name, fd))).collect();
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        // Left open for whom this starts; moved to their places by its shell, through numbers that are nobody's.
        for (_, fd) in &all {
            fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        }
        let beyond = if all.len() > 100 { 10_000 } else { 500 };
        let away = |(place, (_, fd)): (usize, &(&str, &OwnedFd))| {
            format!("exec {}<&{} {1}<&-\n", beyond + place, fd.as_raw_fd())
        };
        let there = |place: usize| format!("exec {}<&{} {1}<&-\n", 3 + place, beyond + place);
        let moves = all.iter().enumerate().map(away).chain((0..all.len()).map(there));
        fs::write("/tmp/moves", moves.collect::<String>()).unwrap();
        let tracer = format!(
            "env NOTIFY_SOCKET={NOTIFY} LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}",
            all.len(),
            names.join(":")
        );
        let tracer = if all.is_empty() { format!("env NOTIFY_SOCKET={NOTIFY}") } else { tracer };
        let told = self.words.lock().unwrap().len();
        let mut daemon = Daemon::given(world, &tracer, ". /tmp/moves;");
        for (_, fd) in &all {
            fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        drop(kept);
        until("READY=1", || {
            let words = self.words.lock().unwrap();
            daemon.has_ended().is_some() || words.iter().skip(told).any(|text| text.contains("READY=1"))
        });
        assert!(daemon.has_ended().is_none(), "{}", fs::read_to_string("/tmp/cellwalld.err").unwrap());
        daemon
    }

    /// Names of what is kept.
    fn names(&self) -> Vec<String> {
        self.kept.lock().unwrap().iter().map(|(name, ..)| name.clone()).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// As systemd does (service_notify_message in service.c).
fn obey(kept: &mut Vec<Kept>, text: &str, with: Vec<OwnedFd>) {
    let has = |line: &str| text.lines().any(|one| one == line);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    if has("FDSTOREREMOVE=1") {
        let name = name.expect("a name");
        kept.retain(|(known, ..)| known != name);
    }
    if has("FDSTORE=1") {
        let plain = |name: &str| name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b':');
        let name = name.filter(|name| plain(name) && name.len() <= 255).expect("a name");
        for fd in with {
            // The same one is not kept twice.
            let socket = socket_of(&fd);
            if !kept.iter().any(|(.., known)| *known == socket) {
                kept.push((name.to_owned(), fd, socket));
            }
        }
    }
}

/// kcmp(2) would tell of the description; a socket has one.
fn socket_of(fd: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(fd).unwrap().st_ino
}

/// `systemctl status` shows what is, and not what was when the daemon had just started.
#[test]
fn the_service_manager_is_told_how_many_workers_there_are() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2");
        let manager = Manager::new();
        let _daemon = manager.start(world);
        let said = |status: &str| manager.words.lock().unwrap().iter().filter(|text| *text == status).count();
        until("the pools", || said("STATUS=2 pools, 0 workers") == 1);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        until("the worker", || said("STATUS=2 pools, 1 workers") == 1);
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(said("STATUS=2 pools, 1 workers"), 1, "what has not changed is not told again");
    });
}

/// One that all services of a host speak to at once has no room for a word at times. One that never hears that the daemon is up
/// ends it when its time to start is over.
#[test]
fn a_service_manager_without_room_hears_later_that_the_daemon_is_up() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 2");
        let (manager, others) = (UnixDatagram::bind(NOTIFY).unwrap(), UnixDatagram::unbound().unwrap());
        manager.set_nonblocking(true).unwrap();
        others.set_nonblocking(true).unwrap();
        while others.send_to(b"STATUS=another service", NOTIFY).is_ok() {}
        let mut daemon = Daemon::traced(world, &format!("env NOTIFY_SOCKET={NOTIFY}"));
        assert!(daemon.ready().is_some());
        until("the broker's answer", || cellwall::admin::status::ask("/table").is_ok());
        let mut words = Vec::new();
        until("READY=1", || {
            let mut word = [0; 4096];
            while let Ok(length) = manager.recv(&mut word) {
                words.push(String::from_utf8_lossy(&word[..length]).into_owned());
            }
            words.iter().any(|word| word == "READY=1")
        });
    });
}

/// Answers that were not 200, of clients who ask without end while `doing`.
fn asked_while(nginx: &Nginx, sites: &[&str], path: &str, doing: impl FnOnce(&AtomicU32)) -> Vec<String> {
    let (good, end) = (AtomicU32::new(0), AtomicBool::new(false));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for site in sites.iter().cycle().take(6) {
            let (good, end, wrong) = (&good, &end, &wrong);
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let answer = nginx.ask(&Ask::get(&format!("{site}.test"), path));
                    if answer.status == 200 {
                        good.fetch_add(1, Ordering::Relaxed);
                    } else {
                        wrong.lock().unwrap().push(format!("{site}: {}", answer.status));
                    }
                }
            });
        }
        let _end = AtLast(&end);
        doing(&good);
    });
    wrong.into_inner().unwrap()
}

/// Sets it, whatever happens.
struct AtLast<'a>(&'a AtomicBool);

impl Drop for AtLast<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn more_than(good: &AtomicU32, more: u32) {
    let before = good.load(Ordering::Relaxed);
    until("answers", || good.load(Ordering::Relaxed) > before + more);
}

#[test]
fn no_request_is_lost_while_the_daemon_is_replaced() {
    for keeps in [false, true] {
        world(Launcher::Cellwall, |world| {
            relayed(world, "children = 2");
            let manager = Manager::new();
            let mut daemon = manager.start(world);
            let sites = ["alice", "bob"];
            let nginx = if keeps { Nginx::keeping(&sites) } else { Nginx::start(&sites, "") };
            let wrong = asked_while(&nginx, &sites, "/a.php", |good| {
                for _ in 0..4 {
                    more_than(good, 100);
                    assert_eq!(daemon.stop(), Some(0));
                    // As RestartSec= has it.
                    thread::sleep(Duration::from_millis(500));
                    daemon = manager.start(world);
                }
                more_than(good, 100);
            });
            assert_eq!(wrong, Vec::<String>::new(), "keeps: {keeps}; {}", logged(&["refuse"]).join("\n"));
            assert_eq!(manager.names().len(), 2, "each socket once: {:?}", manager.names());
        });
    }
}

#[test]
fn programs_of_their_own_lose_no_visitor_while_the_daemon_is_replaced() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        let text = "#!/bin/sh\nsleep 0.02; printf 'Content-Type: text/plain\\r\\n\\r\\nhello'\n";
        world.script(&world.alice, "a.cgi", text);
        let manager = Manager::new();
        let mut daemon = manager.start(world);
        let nginx = Nginx::start(&["alice"], "");
        let wrong = asked_while(&nginx, &["alice"], "/a.cgi", |good| {
            for _ in 0..3 {
                more_than(good, 30);
                assert_eq!(daemon.stop(), Some(0));
                daemon = manager.start(world);
            }
            more_than(good, 30);
        });
        assert_eq!(wrong, Vec::<String>::new(), "{}", logged(&["refuse"]).join("\n"));
    });
}

#[test]
fn visitors_wait_for_the_next_daemon_where_workers_accept_and_where_one_was_killed() {
    world(Launcher::Cellwall, |world| {
        let app = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                   print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; }\n";
        let path = world.script(&world.alice, "app.fcgi", app);
        world.site(
            "alice",
            &format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\naccept = \"direct\"\n", path.display()),
        );
        world.apply();
        let manager = Manager::new();
        let mut daemon = manager.start(world);
        let nginx = Nginx::start(&["alice"], "");
        until("a worker", || nginx.get("alice", "/app.fcgi").status == 200);
        for kills in [false, true] {
            if kills {
                daemon.murder();
            } else {
                assert_eq!(daemon.stop(), Some(0));
            }
            until("its workers' end", || processes(world.alice.id).is_empty());
            thread::scope(|scope| {
                let waits = scope.spawn(|| nginx.get("alice", "/app.fcgi").status);
                thread::sleep(Duration::from_millis(300));
                daemon = manager.start(world);
                assert_eq!(waits.join().unwrap(), 200, "killed: {kills}");
            });
        }
        assert_eq!(manager.names().len(), 1, "{:?}", manager.names());
    });
}

/// What is handed over is believed nothing but its name, and where it listens the kernel says.
#[test]
fn a_socket_that_is_not_a_sites_own_is_not_used() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        fs::create_dir_all("/run/cellwall/pool").unwrap();
        let at = |path: &str| OwnedFd::from(UnixListener::bind(path).unwrap());
        let manager = Manager::new();
        let keep = |name: &str, fd: OwnedFd| {
            // Else it waits where this test looks whether somebody came.
            listen::set_blocking(&fd, false).unwrap();
            let looks = UnixListener::from(fd.try_clone().unwrap());
            let socket = socket_of(&fd);
            manager.kept.lock().unwrap().push((name.to_owned(), fd, socket));
            looks
        };
        // Of a site that is gone; of one whose workers of then were another user's; of a file that is not there any more.
        keep("@7", at("/run/cellwall/pool/gone.sock"));
        manager.kept.lock().unwrap().push((
            "@8".to_owned(),
            fs::File::open("/etc/shadow").unwrap().into(),
            0,
        ));
        let foreign = keep(&format!("@3.{}", world.bob.id), at("/run/cellwall/pool/alice.sock"));
        let orphan = keep("@4", at("/run/cellwall/pool/bob.sock"));
        fs::remove_file("/run/cellwall/pool/bob.sock").unwrap();
        let elsewhere = at("/tmp/elsewhere.sock");
        let looks = UnixListener::from(elsewhere.try_clone().unwrap());
        looks.set_nonblocking(true).unwrap();
        let more = [
            ("nosuch", at("/tmp/nosuch.sock")),
            ("alice", elsewhere),
            ("bob", UnixDatagram::unbound().unwrap().into()),
            ("@01", at("/tmp/strange.sock")),
        ];
        let _daemon = manager.start_with(world, &more);
        let nginx = Nginx::start(&["alice", "bob"], "");
        for site in ["alice", "bob"] {
            assert_eq!(nginx.get(site, "/a.php").status, 200, "{}", logged(&["refuse"]).join("\n"));
        }
        for nobodys in [foreign, orphan, looks] {
            assert!(nobodys.accept().is_err(), "a visitor came there");
        }
        assert!(!fs::exists("/run/cellwall/pool/gone.sock").unwrap());
        for (site, name) in [("alice", "alice"), ("bob", "bob"), ("-", "nosuch"), ("-", "@01"), ("-", "@8")] {
            let site = format!("site={site} ");
            assert_eq!(logged(&["code=S13", &site, &format!("why=\"{name}: ")]).len(), 1, "{name}");
        }
        until("what is kept from now on", || {
            let names = manager.names();
            names.len() == 2
                && names.iter().all(|name| !["@7", "@3", "@4", "@8"].iter().any(|old| name.starts_with(old)))
        });
    });
}

#[test]
fn a_socket_of_a_unit_of_its_own_is_the_sites() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        fs::create_dir_all("/run/cellwall/pool").unwrap();
        let unit = UnixListener::bind("/run/cellwall/pool/alice.sock").unwrap();
        std::os::unix::fs::chown("/run/cellwall/pool/alice.sock", Some(0), Some(33)).unwrap();
        fs::set_permissions("/run/cellwall/pool/alice.sock", fs::Permissions::from_mode(0o660)).unwrap();
        let manager = Manager::new();
        let mut daemon = manager.start_with(world, &[("alice", unit.try_clone().unwrap().into())]);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200, "{}", logged(&["refuse"]).join("\n"));
        assert_eq!(manager.names().len(), 1, "bob's alone: the other one the manager has");
        assert_eq!(daemon.stop(), Some(0));
        assert!(fs::exists("/run/cellwall/pool/alice.sock").unwrap(), "it is not ours to remove");
    });
}

/// A site that comes, goes, or is another user's while the daemon runs.
#[test]
fn what_is_kept_is_what_there_is() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let manager = Manager::new();
        let mut daemon = manager.start(world);
        until("two", || manager.names().len() == 2);
        fs::remove_file("/etc/cellwall/sites.d/bob.toml").unwrap();
        world.apply();
        until("one", || manager.names().len() == 1);
        let relayed = manager.names();
        let direct = "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 1\naccept = \"direct\"\n";
        world.site("alice", direct);
        world.apply();
        let holder = format!(".{}", world.alice.id);
        until("a name that tells who has it", || {
            let names = manager.names();
            names.len() == 1 && names != relayed && names[0].ends_with(&holder)
        });
        let names = manager.names();
        assert_eq!(daemon.stop(), Some(0));
        let _daemon = manager.start(world);
        let nginx = Nginx::start(&["alice"], "");
        until("a worker", || nginx.get("alice", "/a.php").status == 200);
        assert_eq!(manager.names(), names, "the same socket by the same name");
    });
}

#[test]
fn a_stopped_site_is_stopped_after_the_daemon_was_replaced() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let mut daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        let status = |site: &str| nginx.get(site, "/a.php").status;
        assert_eq!((status("alice"), status("bob")), (200, 200));
        assert!(world.cellwall(&["pool", "stop", "alice"]).status.success());
        for kills in [false, true] {
            if kills {
                daemon.murder();
            } else {
                assert_eq!(daemon.stop(), Some(0));
            }
            daemon = Daemon::start(world);
            until("bob", || status("bob") == 200);
            assert_eq!(status("alice"), 503, "killed: {kills}");
            let said = world.cellwall(&["status", "alice"]);
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(said.contains("stopped"), "{said}");
            assert_eq!(logged(&["pool stopped", "site=alice"]).len(), 1 + usize::from(kills), "it is told");
        }
        assert!(world.cellwall(&["pool", "start", "alice"]).status.success());
        assert_eq!(daemon.stop(), Some(0));
        let _daemon = Daemon::start(world);
        until("alice", || status("alice") == 200);
    });
}

#[test]
fn a_stop_that_cannot_be_written_down_holds_and_is_told() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        // As a disk that is full.
        drop(fs::remove_dir_all("/var/lib/cellwall/stopped"));
        fs::write("/var/lib/cellwall/stopped", "").unwrap();
        let said = world.cellwall(&["pool", "stop", "alice"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code() == Some(1) && text.contains("could not be written down"), "{text}");
        assert_eq!(nginx.get("alice", "/a.php").status, 503);
        fs::remove_file("/var/lib/cellwall/stopped").unwrap();
        assert!(world.cellwall(&["pool", "stop", "alice"]).status.success());
        assert!(fs::exists("/var/lib/cellwall/stopped/alice").unwrap());
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        world.apply();
        assert!(!fs::exists("/var/lib/cellwall/stopped/alice").unwrap(), "it goes with its site");
    });
}

/// One variable names them all, and no program can be started with more than 128 KiB in one.
#[test]
fn two_thousand_sites_have_their_sockets_kept() {
    const SITES: usize = 2_000;
    many_descriptors(20_000);
    world(Launcher::Cellwall, |world| {
        idle_sites(SITES, 3_000_000);
        world.apply();
        let manager = Manager::new();
        let started = std::time::Instant::now();
        let mut daemon = manager.start(world);
        println!("ready after {:?}", started.elapsed());
        until("all of them", || manager.names().len() >= SITES);
        println!("kept after {:?}", started.elapsed());
        let names: usize = manager.names().iter().map(|name| name.len() + 1).sum();
        let all = manager.names().len();
        println!("{all} names of {names} bytes");
        assert!(names < 100_000);
        let started = std::time::Instant::now();
        assert_eq!(daemon.stop(), Some(0));
        println!("stopped after {:?}", started.elapsed());
        let started = std::time::Instant::now();
        let daemon = manager.start(world);
        println!("again after {:?}", started.elapsed());
        thread::sleep(Duration::from_secs(1));
        assert_eq!(manager.names().len(), all);
        let words = manager.words.lock().unwrap().len();
        daemon.reload();
        until("a reload", || manager.words.lock().unwrap().len() > words + 1);
        println!("reloaded after {:?}", started.elapsed());
        assert_eq!(logged(&["refuse "]), Vec::<String>::new());
    });
}

/// Its old user's processes have it, and it is not for the daemon to make another one.
#[test]
fn a_site_of_another_user_at_a_units_socket_is_as_before() {
    world(Launcher::Cellwall, |world| {
        fs::create_dir_all("/run/cellwall/pool").unwrap();
        fs::remove_file("/etc/cellwall/sites.d/bob.toml").unwrap();
        let unit = UnixListener::bind("/run/cellwall/pool/alice.sock").unwrap();
        std::os::unix::fs::chown("/run/cellwall/pool/alice.sock", Some(0), Some(33)).unwrap();
        fs::set_permissions("/run/cellwall/pool/alice.sock", fs::Permissions::from_mode(0o660)).unwrap();
        let text = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                    print \"Content-Type: text/plain\\r\\n\\r\\n$<\"; }\n";
        let user = |user: &crate::harness::User| {
            let path = world.script(user, "app.fcgi", text);
            let rules = format!(
                "user = \"{0}\"\ndocroot = \"/var/www/{0}/htdocs\"\nprofile = \"perl\"\n[pool]\ncommand = \"{1}\"\n\
                 accept = \"direct\"\nworkers = {{ max = 1 }}\n",
                user.name,
                path.display()
            );
            fs::write("/etc/cellwall/sites.d/alice.toml", rules).unwrap();
            world.apply();
        };
        user(&world.alice);
        let manager = Manager::new();
        let _daemon = manager.start_with(world, &[("alice", unit.try_clone().unwrap().into())]);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/app.fcgi").text(), world.alice.id.to_string());
        user(&world.bob);
        until("a refusal", || {
            logged(&["code=S14", "site=alice", "restart cellwalld@alice.socket"]).len() == 1
        });
        assert_eq!(nginx.get("alice", "/app.fcgi").text(), world.alice.id.to_string());
    });
}
