//! CGI programs in pools: zygotes that stay between requests must give each program what a launch of its own would, and nothing
//! of the one before; and nobody may take what a zygote has, or live on in it after a rule has changed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, Report, World, each_jail, make_directory, put, small, world};

use super::host::{Daemon, Nginx, logged, processes, until};

const POOL: &str = "[pool]\nkind = \"cgi\"\nworkers = { max = 2 }\n";
/// On a busy machine a test takes longer than a zygote waits for work by itself: the neighbour's stays.
const NEIGHBOUR: &str =
    "profile = \"perl\"\n[pool]\nkind = \"cgi\"\nworkers = { max = 2, idle = \"600s\" }\n";
/// Tells its own number and that of the process that started it.
const WHO: &str = "#!/usr/bin/perl\nuse POSIX;\nprint \"Content-Type: text/plain\\r\\n\\r\\n\", getppid(), ' ', $$, ' ', ($ENV{HTTP_X_MARK} || '-'), \
                   ' ', getpgrp();\n";

fn site(world: &World, more: &str) {
    site_with(world, more, POOL);
}

/// One zygote and never a second one: a visitor has the whole answer before a zygote has told that its program has ended, and who asks
/// at that moment would get another zygote.
fn site_of_one(world: &World, more: &str) {
    site_with(world, more, &POOL.replace("max = 2", "max = 1"));
}

fn site_with(world: &World, more: &str, pool: &str) {
    world.site("alice", &format!("profile = [\"perl\", \"sh\"]\n{more}{pool}"));
    world.apply();
}

/// The numbers of alice's zygotes.
fn zygotes(world: &World) -> Vec<i32> {
    let all = processes(world.alice.id).into_iter();
    all.filter(|(_, command)| command.starts_with("cellwalld: cgi alice ")).map(|(pid, _)| pid).collect()
}

/// One that has ended may still be on its way out.
fn the_zygote(world: &World) -> i32 {
    let mut all = Vec::new();
    until("one zygote alone", || {
        all = zygotes(world);
        all.len() == 1
    });
    all[0]
}

fn who(nginx: &Nginx) -> Vec<String> {
    let answer = nginx.get("alice", "/who.cgi");
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), logged(&[""]).join("\n"));
    answer.text().split(' ').map(str::to_owned).collect()
}

/// What differs from launch to launch, or because a web server or a daemon called.
const OWN: [&str; 14] = [
    "pid",
    "parent",
    "group",
    "session",
    "env",
    "entries",
    "entry_bytes",
    "death_signal",
    "limit_nproc",
    "started",
    "session_keyring",
    "marker",
    "Content-Type:",
    "timer_real",
];

#[test]
fn what_a_program_finds_is_what_a_launch_of_its_own_gives_it() {
    each_jail(|world| {
        let jail = fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
        let jail = if jail.contains("kind = \"view\"") { "view" } else { "host" };
        world.site(
            "alice",
            &format!("{}[limits]\nprocesses = 40\ncpu = 7\nopen_files = 99\n{POOL}", small(jail)),
        );
        world.apply();
        world.probe(&world.alice, "probe.cgi");
        let launched = world.call(&world.alice, "probe.cgi").run().ran();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        // The first program of a zygote and the third.
        for _ in 0..3 {
            let answer = nginx.get("alice", "/probe.cgi");
            assert_eq!(answer.status, 200, "{}", logged(&[""]).join("\n"));
            let pooled = Report::parse(answer.text().as_bytes());
            let facts = |report: &Report| -> Vec<String> {
                let lines = report.text().lines().filter(|line| {
                    let name = line.split(' ').next().unwrap_or_default();
                    !name.is_empty() && !OWN.contains(&name)
                });
                lines.map(str::to_owned).collect()
            };
            assert!(facts(&launched).len() > 30, "{}", launched.text());
            assert_eq!(facts(&pooled), facts(&launched), "{jail}");
            // The zygote is none of the site's processes.
            assert_eq!(pooled.fact("limit_nproc"), "41 41");
            // It leads a session, and ends with its zygote.
            assert_eq!(pooled.fact("pid"), pooled.fact("session"));
            assert_eq!(
                (pooled.fact("parent"), pooled.fact("death_signal")),
                (the_zygote(world).to_string().as_str(), "9")
            );
            // What the policy sets, and nothing of the daemon's.
            for name in ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"] {
                assert_eq!(pooled.env(name), launched.env(name), "{name}");
            }
        }
    });
}

#[test]
fn a_zygote_starts_one_program_after_another_and_ends_without_work() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "who.cgi", WHO);
        site(world, "");
        let text = fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
        fs::write("/etc/cellwall/sites.d/alice.toml", text.replace("max = 2", "max = 2, idle = \"3s\""))
            .unwrap();
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(zygotes(world).len(), 0, "none before there is work");
        let first = who(&nginx);
        let zygote = the_zygote(world).to_string();
        assert_eq!(first[0], zygote);
        let marked = nginx.ask(&crate::harness::Ask::get("alice.test", "/who.cgi").header("X-Mark: mine"));
        assert!(marked.text().contains(" mine "), "{}", marked.text());
        let second = who(&nginx);
        assert_eq!(
            (second[0].as_str(), second[2].as_str()),
            (zygote.as_str(), "-"),
            "nothing of the last one's environment"
        );
        assert_ne!(first[1], second[1], "a process of its own");
        for one in [&first, &second] {
            assert_eq!(one[1], one[3], "a group of its own");
        }
        until("its end without work", || zygotes(world).is_empty());
        assert_ne!(who(&nginx)[0], zygote);
    });
}

#[test]
fn what_has_changed_since_a_zygote_entered_its_cell_ends_it() {
    world(Launcher::Cellwall, |world| {
        let script = world.script(&world.alice, "who.cgi", WHO);
        let writes = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'; echo written > data/new && cat data/new\n";
        world.script(&world.alice, "write.cgi", writes);
        let data = world.alice.docroot().join("data");
        make_directory(&data, world.alice.id, 0o755);
        site_of_one(world, &format!("[files]\nwrite = [\"{}\"]\n", data.display()));
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let mut last = who(&nginx)[0].clone();
        let mut replaced = |what: &str| {
            let now = who(&nginx)[0].clone();
            assert_ne!(now, last, "{what}");
            last = now.clone();
            assert_eq!(who(&nginx)[0], now, "{what}: and the next one stays");
        };
        // A directory that a rule names is another one: a deployment.
        fs::rename(&data, data.with_extension("old")).unwrap();
        make_directory(&data, world.alice.id, 0o755);
        assert_eq!(nginx.get("alice", "/write.cgi").text(), "written\n", "{}", logged(&[""]).join("\n"));
        replaced("a directory of the rules");
        // As logrotate does.
        fs::rename("/var/log/cellwall/cellwall.log", "/var/log/cellwall/old").unwrap();
        put("/var/log/cellwall/cellwall.log", b"", 0, 0o640);
        replaced("the log");
        assert!(!logged(&["launch ", "site=alice"]).is_empty(), "the new log has the records");
        fs::write("/etc/hosts", fs::read("/etc/hosts").unwrap()).unwrap();
        fs::copy("/etc/hosts", "/etc/hosts.new").unwrap();
        fs::rename("/etc/hosts.new", "/etc/hosts").unwrap();
        replaced("a file of the view");
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        fs::write("/etc/passwd", &passwd).unwrap();
        replaced("the accounts");
        fs::write("/etc/cellwall/sites.d/alice.toml", fs::read("/etc/cellwall/sites.d/alice.toml").unwrap())
            .unwrap();
        replaced("the site's file");
        assert!(logged(&["launch ", "site=alice"]).last().unwrap().contains(" stale=yes"));
        world.apply();
        replaced("the policy");
        // What is refused is refused at once, and served again at once.
        let id = world.alice.id;
        fs::write("/etc/passwd", passwd.replace(&format!(":{id}:{id}:"), &format!(":{}:{id}:", id + 5000)))
            .unwrap();
        assert_eq!(nginx.get("alice", "/who.cgi").status, 500);
        assert_eq!(logged(&["refuse ", "code=P03"]).len(), 1);
        fs::write("/etc/passwd", &passwd).unwrap();
        replaced("whose uid it is");
        let mode = |path: &Path, mode: &str| {
            assert!(Command::new("chmod").arg(mode).arg(path).status().unwrap().success())
        };
        mode(Path::new("/var/www/alice"), "0777");
        assert_eq!(nginx.get("alice", "/who.cgi").status, 500);
        assert_eq!(logged(&["refuse ", "code=V116"]).len(), 1, "{}", logged(&[""]).join("\n"));
        mode(Path::new("/var/www/alice"), "0755");
        replaced("the way to the docroot");
        // The program itself is looked at each time, by the same zygote.
        mode(&script, "0775");
        assert_eq!(nginx.get("alice", "/who.cgi").status, 500);
        assert_eq!(logged(&["refuse ", "code=V118"]).len(), 1);
        mode(&script, "0755");
        assert_eq!(who(&nginx)[0], last);
    });
}

/// Tries what one process can do to another of the same uid: first to one of its own, then to its zygote.
const PRIES: &str = r#"#!/usr/bin/perl
print "Content-Type: text/plain\r\n\r\n";
my $child = fork // die; if (!$child) { sleep 60; exit }
for my $z ($child, getppid()) {
    my @doors = map { ["$_", "/proc/$z/$_"] } 'mem', 'environ', 'maps', 'auxv';
    print "$$_[0] ", (open(my $f, '<', $$_[1]) ? 1 : 0), "\n" for @doors;
    print "$_ ", (readlink("/proc/$z/$_") ? 1 : 0), "\n" for 'root', 'cwd', 'fd/0';
    my $pidfd = syscall(434, $z + 0, 0);
    print 'getfd ', (syscall(438, $pidfd + 0, 0, 0) >= 0 ? 1 : 0), "\n";
    print 'seize ', (syscall(101, 0x4206, $z + 0, 0, 0) == 0 ? 1 : 0), "\n";
    print 'score ', (open(my $o, '>', "/proc/$z/oom_score_adj") ? 1 : 0), "\n";
}
kill 'KILL', $child; waitpid($child, 0);
"#;

#[test]
fn a_program_cannot_look_into_its_zygote() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "pries.cgi", PRIES);
        world.script(&world.alice, "who.cgi", WHO);
        // Without the walls of the cell, which keep most of this out by themselves.
        site(world, "[jail]\nkind = \"host\"\nseccomp = \"off\"\nlandlock = \"off\"\n");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let zygote = who(&nginx)[0].clone();
        let answer = nginx.get("alice", "/pries.cgi");
        let told = answer.text();
        let doors = |end: &str| told.lines().filter(|line| line.ends_with(end)).count();
        assert_eq!(told.lines().count(), 20, "{told}");
        // Of its own child all doors are open.
        assert_eq!((doors(" 1"), doors(" 0")), (10, 10), "{told}");
        assert!(told.lines().skip(10).all(|line| line.ends_with(" 0")), "{told}");
        assert_eq!(who(&nginx)[0], zygote, "it goes on");
    });
}

/// Speaks to the supervisor in a zygote's place, as one that was taken over could: takes each of its sockets, and sends
/// what nobody understands.
const LIES: &str = r#"
import ctypes, os, random, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
zygote, seed = int(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
holder = os.pidfd_open(zygote)
for number in range(3, 10):
    copy = libc.syscall(438, holder, number, 0)
    if copy < 0:
        continue
    try:
        channel = socket.socket(fileno=copy)
        if channel.family != socket.AF_UNIX or channel.type != socket.SOCK_SEQPACKET:
            continue
    except OSError:
        continue
    channel.setblocking(False)
    for _ in range(50):
        length = random.choice([0, 1, 2, 3, 3, 3, 4, 5, 100, 4096])
        told = bytes(random.randrange(256) for _ in range(length))
        given = [0] * random.choice([0, 0, 1, 4])
        try:
            socket.send_fds(channel, [told], given)
        except OSError:
            break
    print('lied')
"#;

#[test]
fn pool_01_a_zygote_that_lies_is_replaced_and_harms_nobody() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "who.cgi", WHO);
        world.script(
            &world.alice,
            "waits.cgi",
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'; sleep 1; echo done\n",
        );
        world.script(&world.bob, "who.cgi", WHO);
        site(world, "");
        world.site("bob", NEIGHBOUR);
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        let neighbour = nginx.get("bob", "/who.cgi").text();
        let open = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        who(&nginx);
        let before = open();
        let lies = |zygote: i32, seed: u32| {
            let output = Command::new("/usr/bin/python3")
                .args(["-c", LIES, &zygote.to_string(), &seed.to_string()])
                .output()
                .unwrap();
            assert_eq!(output.stdout, b"lied\n", "{}", String::from_utf8_lossy(&output.stderr));
        };
        for seed in 0..20 {
            until("a zygote that serves", || {
                nginx.get("alice", "/who.cgi").status == 200 && zygotes(world).len() == 1
            });
            let zygote = the_zygote(world);
            // While it has nothing to do, and while a program of its own runs.
            let busy = (seed % 2 == 1).then(|| nginx.begun("alice", "/waits.cgi"));
            if busy.is_some() {
                until("its program", || processes(world.alice.id).len() >= 2);
            }
            lies(zygote, seed);
            until("its end", || !zygotes(world).contains(&zygote));
        }
        until("what it left", || open() <= before);
        who(&nginx);
        let now = nginx.get("bob", "/who.cgi").text();
        assert_eq!(now.split(' ').next(), neighbour.split(' ').next(), "the neighbour's is the same");
    });
}

#[test]
fn a_zygote_that_is_ended_or_stopped_by_its_programs_harms_its_own_site_alone() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "who.cgi", WHO);
        let kills = "#!/usr/bin/perl\n$| = 1; print \"Content-Type: text/plain\\r\\n\\r\\nso far\"; kill $ENV{QUERY_STRING}, getppid(); sleep 30;\n";
        world.script(&world.alice, "kills.cgi", kills);
        let text = format!("profile = \"perl\"\n{POOL}timeout = \"3s\"\n");
        world.site("alice", &text);
        world.site("bob", NEIGHBOUR);
        world.script(&world.bob, "who.cgi", WHO);
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        let neighbour = nginx.get("bob", "/who.cgi").text().to_owned();
        for signal in ["KILL", "STOP"] {
            let before = who(&nginx)[0].clone();
            let _ = nginx.get("alice", &format!("/kills.cgi?{signal}"));
            assert_ne!(who(&nginx)[0], before, "{signal}");
            until("the end of the program as well", || processes(world.alice.id).len() == 1);
        }
        // While it has nothing to do: the next request is another zygote's, and nobody notices.
        for round in 0..20 {
            let zygote = Pid::from_raw(the_zygote(world));
            kill(zygote, if round % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM }).unwrap();
            assert_ne!(who(&nginx)[0], zygote.to_string());
        }
        let now = nginx.get("bob", "/who.cgi").text().to_owned();
        assert_eq!(now.split(' ').next(), neighbour.split(' ').next(), "the neighbour's is the same");
    });
}

#[test]
fn a_program_that_cannot_start_is_refused_and_the_next_one_runs() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "who.cgi", WHO);
        world.script(&world.alice, "nowhere.cgi", "#!/usr/bin/perl-of-nowhere\n");
        world.script(&world.alice, "garbage.cgi", [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 200]].concat());
        site(world, "");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let zygote = who(&nginx)[0].clone();
        for (name, code) in [("nowhere", "V11"), ("garbage", "V13")] {
            let answer = nginx.get("alice", &format!("/{name}.cgi"));
            assert_eq!(answer.status, 500, "{name}");
            let refusals = logged(&["refuse ", "site=alice", &format!("{name}.cgi")]);
            let last = refusals.last().unwrap_or_else(|| panic!("{name}: {}", logged(&[""]).join("\n")));
            assert!(last.contains(&format!("code={code} ")), "{last}");
            let reference = last.split("ref=").nth(1).unwrap().split(' ').next().unwrap();
            assert!(answer.text().contains(reference), "the visitor has the reference: {}", answer.text());
        }
        assert_eq!(who(&nginx)[0], zygote);
        // Each has a reference of its own.
        let all = logged(&[" ref="]);
        let mut references: Vec<&str> =
            all.iter().filter_map(|line| line.split(" ref=").nth(1)?.split(' ').next()).collect();
        references.sort_unstable();
        references.dedup();
        assert_eq!(references.len(), all.len());
    });
}

#[test]
fn in_a_chroot_programs_are_found_by_the_hosts_names() {
    world(Launcher::Cellwall, |world| {
        let (root, id) = ("/var/www/alice/root", world.alice.id);
        for (place, owner) in [("", 0), ("/htdocs", id), ("/htdocs/deep", id)] {
            make_directory(format!("{root}{place}"), owner, 0o755);
        }
        for place in ["htdocs", "htdocs/deep"] {
            world.probe_at(&world.alice, format!("{root}/{place}/probe.cgi"));
        }
        symlink("deep", format!("{root}/htdocs/link")).unwrap();
        let text = format!(
            "user = \"alice\"\ndocroot = \"{root}/htdocs\"\nprofile = \"static\"\n[jail]\nkind = \"chroot\"\n\
             directory = \"{root}\"\nlandlock = \"off\"\n{POOL}"
        );
        fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
        world.apply();
        let _daemon = Daemon::start(world);
        for (script, directory) in [
            (format!("{root}/htdocs/probe.cgi"), "/htdocs"),
            (format!("{root}/htdocs/deep/probe.cgi"), "/htdocs/deep"),
        ] {
            let report = asked(&script);
            assert_eq!(report.fact("cwd"), directory, "{}", logged(&[""]).join("\n"));
            assert_eq!(report.fact("uid"), format!("{id} {id} {id}"));
            assert_eq!(report.env("SCRIPT_FILENAME"), Some(format!("{directory}/probe.cgi").as_str()));
        }
        assert_eq!(logged(&["launch ", "jail=chroot"]).len(), 2);
    });
}

/// The probe's report, as a web server without any root directory gets it.
fn asked(script: &str) -> Report {
    use std::os::unix::process::CommandExt as _;
    let output = Command::new("/usr/bin/cgi-fcgi")
        .args(["-bind", "-connect", "/run/cellwall/pool/alice.sock"])
        .env_clear()
        .env("SCRIPT_FILENAME", script)
        .env("REQUEST_METHOD", "GET")
        .uid(33)
        .gid(33)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    Report::parse(&output.stdout)
}

#[test]
fn a_docroot_may_lead_through_links_that_change() {
    world(Launcher::Cellwall, |world| {
        let id = world.alice.id;
        let home = Path::new("/var/www/alice/sites");
        make_directory(home, id, 0o755);
        for release in ["one", "two"] {
            make_directory(home.join(release), id, 0o755);
            let text = format!("#!/usr/bin/perl\nprint \"Content-Type: text/plain\\r\\n\\r\\n{release}\";\n");
            put(home.join(release).join("a.cgi"), text.as_bytes(), id, 0o755);
        }
        let switch = |release: &str| {
            symlink(release, home.join("new")).unwrap();
            nix::unistd::fchownat(
                nix::fcntl::AT_FDCWD,
                &home.join("new"),
                Some(id.into()),
                Some(id.into()),
                nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .unwrap();
            fs::rename(home.join("new"), home.join("current")).unwrap();
        };
        switch("one");
        let text = format!(
            "user = \"alice\"\ndocroot = \"/var/www/alice/sites/current\"\nsymlinks = \"owner-match\"\nprofile = \"perl\"\n\
             [files]\nread = [\"/var/www/alice/sites\"]\nexecute = [\"/var/www/alice/sites\"]\n{POOL}"
        );
        fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
        world.apply();
        let _daemon = Daemon::start(world);
        let text = |answer: &Report| answer.text().rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
        for release in ["one", "two", "one"] {
            switch(release);
            assert_eq!(
                text(&asked("/var/www/alice/sites/current/a.cgi")),
                release,
                "{}",
                logged(&[""]).join("\n")
            );
        }
    });
}

const TRACE: &str = "/tmp/zygote.calls";

/// Traces a zygote and the children that it makes, with these options more.
struct Traced(std::process::Child);

impl Traced {
    fn new(zygote: i32, options: &[&str]) -> Self {
        let strace = Command::new("/usr/bin/strace")
            .args(["-f", "-q", "-o", TRACE, "-p", &zygote.to_string()])
            .args(options)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let traced = || {
            let status = fs::read_to_string(format!("/proc/{zygote}/status")).unwrap_or_default();
            !status.contains("TracerPid:\t0")
        };
        until("the tracer", traced);
        Self(strace)
    }

    /// What was called before the program began, by zygote and child; with the kernel's answers.
    fn end(mut self) -> Vec<String> {
        let _ = kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = self.0.wait();
        let (mut lines, mut began) = (Vec::new(), Vec::new());
        for line in fs::read_to_string(TRACE).unwrap_or_default().lines() {
            let Some((pid, call)) = line.split_once(' ') else { continue };
            if !began.contains(&pid.to_owned()) {
                lines.push(call.trim_start().to_owned());
            }
            if call.trim_start().starts_with("execve") {
                began.push(pid.to_owned());
            }
        }
        lines
    }
}

/// The names of calls.
fn names(lines: &[String]) -> BTreeSet<String> {
    let name = |line: &String| line.split('(').next().unwrap_or_default().to_owned();
    let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // What the C library does by itself, and what the kernel never refuses.
    let own = [
        "",
        "brk",
        "mmap",
        "munmap",
        "mremap",
        "exit",
        "exit_group",
        "getpid",
        "getppid",
        "close",
        "restart_syscall",
    ];
    lines.iter().map(name).filter(is_name).filter(|name| !own.contains(&name.as_str())).collect()
}

/// What may fail without harm: another zygote takes the order then; the program has ended; a file's extended attribute, its
/// file system's flags and a reference's random bytes are known otherwise or not needed; where the log's end cannot be read, no
/// half a line is thought to be there.
const HARMLESS: [&str; 16] = [
    "chdir 2",
    "clock_gettime",
    "fgetxattr",
    "fstatfs",
    "getcwd",
    "getrandom",
    "getsockopt",
    "kill",
    "newfstatat",
    "pread64",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "setitimer",
    "statx",
    "waitid",
];

fn is_harmless(call: &str, nth: usize) -> bool {
    HARMLESS.contains(&call) || HARMLESS.contains(&format!("{call} {nth}").as_str())
}

/// FLT-02: each call that a zygote and its child make for a request fails once.
#[test]
fn flt_02_a_call_of_a_zygote_that_fails_runs_nothing_or_what_was_asked_for() {
    world(Launcher::Cellwall, |world| {
        let tells = "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\r\\n\\r\\nuid=$< $> $( \", getppid(), \"\\n\";\n";
        world.script(&world.alice, "tells.cgi", tells);
        site_of_one(world, "[limits]\nprocesses = 30\ncpu = 9\n");
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let id = world.alice.id;
        let right = format!("uid={id} {id} {id} {id} ");
        let ask = || nginx.get("alice", "/tells.cgi");
        assert!(ask().text().starts_with(&right));
        let traced = Traced::new(the_zygote(world), &[]);
        assert_eq!(ask().status, 200);
        let calls = names(&traced.end());
        assert!(calls.len() > 20, "{calls:?}");
        let mut wrong = Vec::new();
        for call in &calls {
            let mut failed = 0;
            // The zygote's own first one, and its next ones or its child's.
            for nth in [1, 1, 1, 2, 3] {
                // A zygote may end by itself before it is asked.
                if nth == 1 && failed > 0 {
                    continue;
                }
                until("a zygote that serves", || ask().status == 200 && zygotes(world).len() == 1);
                let traced =
                    Traced::new(the_zygote(world), &["-e", &format!("inject={call}:error=EIO:when={nth}")]);
                let answer = ask();
                let was_tried = traced.end().iter().any(|line| line.contains("(INJECTED)"));
                failed += u32::from(was_tried);
                let text = answer.text();
                assert!(text.starts_with(&right) || !text.contains("uid="), "{call} {nth}: {text}");
                match answer.status {
                    200 if was_tried && !is_harmless(call, nth) => wrong.push(format!("{call} {nth}")),
                    200 | 500 | 502 => {}
                    other => panic!("{call} {nth}: {other}"),
                }
            }
            assert!(failed > 0, "{call} was never tried");
        }
        assert!(wrong.is_empty(), "answered although {wrong:?} failed; of {calls:?}");
    });
}

#[test]
fn a_daemon_that_has_no_descriptor_left_says_so() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        world.script(&world.alice, "a.cgi", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nfine'\n");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.cgi").text(), "fine");
        let limit = |most: usize| {
            let (pid, most) = (daemon.pid().to_string(), format!("--nofile={most}:"));
            let set = Command::new("/usr/bin/prlimit").args(["--pid", &pid, &most]).status().unwrap();
            assert!(set.success());
        };
        limit(fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() + 2);
        assert_eq!(nginx.get("alice", "/a.cgi").status, 503);
        assert_eq!(logged(&["refuse ", "code=B12", "site=alice"]).len(), 1, "{:?}", logged(&["refuse "]));
        limit(1000);
        assert_eq!(nginx.get("alice", "/a.cgi").text(), "fine");
    });
}
