//! The pulse: there when a site computes and others are asked meanwhile, and at no other time; nobody, and gone with its
//! supervisor.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use cellwall::sys::schedule::tick_us;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, World, not_shown, world};

use super::host::{Daemon, Nginx, account, logged, until};

const POOL: &str = "profile = \"perl\"\n[pool]\n";
/// Computes as long as there is a file beside it.
const SPIN: &str = "#!/usr/bin/perl\n1 while -e 'go';\nprint \"Content-Type: text/plain\\r\\n\\r\\nspun\";\n";
const HELLO: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                     print \"Content-Type: text/plain\\r\\n\\r\\nhello\"; }\n";
pub(crate) const GO: &str = "/var/www/alice/htdocs/go";

pub(crate) fn sites(world: &World) {
    world.script(&world.alice, "spin.cgi", SPIN);
    let hello = world.script(&world.bob, "hello.fcgi", HELLO);
    world.site("alice", &format!("{POOL}kind = \"cgi\"\n"));
    world.site("bob", &format!("{POOL}command = \"{}\"\n", hello.display()));
    world.apply();
    fs::write(GO, "").unwrap();
}

/// Several at once: a busy machine has each of them wait, and fewer than ten in a second disturb nobody.
pub(crate) fn ask(nginx: &Nginx) {
    let one = || assert_eq!(nginx.get("bob", "/hello.fcgi").status, 200, "{}", logged(&[""]).join("\n"));
    thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(one))));
}

fn ask_for(nginx: &Nginx, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        ask(nginx);
    }
}

fn tasks(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks.map(|task| task.path().display().to_string()).collect()
}

/// How often its threads have gone to sleep so far.
fn beats(pid: i32) -> u64 {
    let slept = |task: &String| {
        let status = fs::read_to_string(format!("{task}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:\t"));
        line.unwrap().parse::<u64>().unwrap()
    };
    tasks(pid).iter().map(slept).sum()
}

fn beats_within(pid: i32, time: Duration) -> u64 {
    let before = beats(pid);
    thread::sleep(time);
    beats(pid) - before
}

/// Nothing but its class is more than a broker has, and it has no socket. The seal is the last that it gets.
fn is_nobody(pid: i32) {
    let sealed =
        |task: &String| fs::read_to_string(format!("{task}/status")).unwrap().contains("Seccomp:\t2");
    until("its seal", || tasks(pid).iter().all(sealed));
    let processors = thread::available_parallelism().unwrap().get();
    let tasks = tasks(pid);
    assert_eq!(tasks.len(), processors + 1);
    let (uid, gid) = account();
    for task in tasks {
        let status = fs::read_to_string(format!("{task}/status")).unwrap();
        for line in [
            &*format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"),
            &format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}"),
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{task}: {line}\n{status}");
        }
        // proc_pid_stat(5): real-time priority and policy are words 40 and 41.
        let stat = fs::read_to_string(format!("{task}/stat")).unwrap();
        let words: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        assert_eq!(words[37..39], ["1", "1"], "SCHED_FIFO, the lowest priority");
    }
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: Vec<String> = open.map(|fd| fs::read_link(fd.path()).unwrap().display().to_string()).collect();
    assert!(open.iter().all(|to| !to.starts_with("socket:")) && open.len() == 4, "{open:?}");
    assert_ne!(fs::read_link(format!("/proc/{pid}/root")).unwrap().as_os_str(), "/");
}

#[test]
fn while_a_site_computes_and_another_is_asked_there_is_a_pulse() {
    world(Launcher::Cellwall, |world| {
        sites(world);
        let mut daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        ask_for(&nginx, Duration::from_millis(2500));
        assert_eq!(daemon.child("pulse"), None, "short requests alone");

        let hog = nginx.begun("alice", "/spin.cgi");
        thread::sleep(Duration::from_millis(2500));
        assert_eq!(daemon.child("pulse"), None, "nobody is disturbed");
        if tick_us() <= 1000 {
            ask_for(&nginx, Duration::from_millis(2500));
            assert_eq!(daemon.child("pulse"), None, "this kernel looks often enough by itself");
            not_shown("a kernel that looks a thousand times a second, so no pulse is needed");
            return;
        }
        until("the pulse", || {
            ask(&nginx);
            daemon.child("pulse").is_some()
        });
        let first = daemon.child("pulse").unwrap();
        is_nobody(first);
        until("its record", || logged(&["pool pulse state=started"]).len() == 1);
        until("a thousand beats a second", || {
            ask(&nginx);
            beats_within(first, Duration::from_millis(100)) > 100
        });

        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        until("another pulse", || {
            ask(&nginx);
            daemon.child("pulse").is_some_and(|one| one != first)
        });
        until("the record of its end", || logged(&["pool pulse state=ended signal=9"]).len() == 1);

        fs::remove_file(GO).unwrap();
        drop(hog);
        let second = daemon.child("pulse").unwrap();
        until("its rest, with nothing that computes", || {
            ask_for(&nginx, Duration::from_secs(1));
            beats_within(second, Duration::from_millis(500)) < 20
        });

        daemon.murder();
        until("the end of the pulse", || fs::metadata(format!("/proc/{second}")).is_err());
    });
}

#[test]
fn without_a_class_of_its_own_there_is_no_pulse_and_all_is_served() {
    world(Launcher::Cellwall, |world| {
        sites(world);
        // Nor could it take back what these tests were started with: a launch that cannot is refused (C02).
        let before = "renice -n 0 $$ >/dev/null;";
        let mut daemon = Daemon::given(world, "/usr/bin/setpriv --bounding-set=-sys_nice", before);
        daemon.ready().unwrap();
        let nginx = Nginx::start(&["alice", "bob"], "");
        let hog = nginx.begun("alice", "/spin.cgi");
        if tick_us() > 1000 {
            until("a word about it", || {
                ask(&nginx);
                !logged(&["pool pulse state=absent status=1"]).is_empty()
            });
        } else {
            not_shown("a kernel that looks a thousand times a second, so no pulse is missed");
        }
        ask_for(&nginx, Duration::from_millis(2500));
        assert_eq!(daemon.child("pulse"), None);
        assert!(logged(&["pool pulse state=absent"]).len() < 2, "once is enough");
        fs::remove_file(GO).unwrap();
        drop(hog);
        let ended = daemon.stop();
        assert_eq!(ended, Some(0), "{}", logged(&[""]).join("\n"));
    });
}
