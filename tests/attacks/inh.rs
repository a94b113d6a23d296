//! What a caller can leave in the process: INH-01 to INH-25 of the threat catalogue.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;

use crate::harness::{
    CELLWALL, Call, Launcher, Outcome, Report, World, each_jail, everything, make_directory, mode, not_shown,
    put, run, small, traced, world,
};

/// Facts that no caller may change.
pub(crate) const FACTS: [&str; 41] = [
    "fds",
    "uid",
    "gid",
    "groups",
    "cap_effective",
    "cap_permitted",
    "cap_inheritable",
    "cap_bounding",
    "cap_ambient",
    "no_new_privs",
    "securebits",
    "seccomp",
    "limit_cpu",
    "limit_fsize",
    "limit_data",
    "limit_stack",
    "limit_core",
    "limit_rss",
    "limit_nproc",
    "limit_nofile",
    "limit_memlock",
    "limit_as",
    "limit_locks",
    "limit_sigpending",
    "limit_msgqueue",
    "limit_nice",
    "limit_rtprio",
    "limit_rttime",
    "blocked",
    "ignored",
    "timer_virtual",
    "timer_prof",
    "nice",
    "scheduler",
    "io_priority",
    "timer_slack",
    "personality",
    "huge_pages_off",
    "memory_policy",
    "death_signal",
    "umask",
];

/// The launch with an order and without it must look the same from inside.
fn same(world: &World, orders: impl Fn(Call<'_>) -> Call<'_>) -> Report {
    world.probe(&world.alice, "a.cgi");
    let ordinary = world.call(&world.alice, "a.cgi").run().ran();
    let report = orders(world.call(&world.alice, "a.cgi")).run().ran();
    let mut different = Vec::new();
    for fact in FACTS.into_iter().chain(["cpus", "env", "timer_real"]) {
        assert!(!ordinary.all(fact).is_empty(), "{fact} is not told:\n{}", ordinary.text());
        if report.all(fact) != ordinary.all(fact) {
            different.push(format!("{fact}: {:?}, ordinarily {:?}", report.all(fact), ordinary.all(fact)));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    report
}

#[test]
fn inh_01_descriptors_above_two_are_closed() {
    each_jail(|world| {
        let kinds = ["read", "directory", "path", "socket", "pipe", "memory", "epoll"];
        let report = same(world, |call| {
            (3..41).fold(call, |call, number| {
                let kind = kinds[number % kinds.len()];
                let path = if kind == "directory" { "/" } else { "/etc/passwd" };
                call.root(&["fd", &number.to_string(), kind, path])
            })
        });
        assert_eq!(report.fact("fds"), "0 1 2");
    });
}

/// The program gets these three; a directory of the host's among them would be a way out of its cell.
#[test]
fn inh_01_a_standard_descriptor_is_no_way_out() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for (kind, path) in [("directory", "/"), ("path", "/"), ("path", "/etc/passwd")] {
            world.call(&world.alice, "a.cgi").root(&["fd", "0", kind, path]).run().refused("A04", 81);
            for number in ["1", "2"] {
                let outcome =
                    world.call(&world.alice, "a.cgi").root(&["fd", number, kind, path]).unrecorded();
                assert_eq!(outcome.status.code(), Some(81), "{number}: {}", outcome.story());
                assert_eq!(world.records().last().unwrap().field("code"), "A04", "{number}");
                assert!(outcome.marks.is_empty(), "{number}: {}", outcome.story());
            }
        }
        for kind in ["read", "socket", "pipe", "memory"] {
            world.call(&world.alice, "a.cgi").root(&["fd", "0", kind, "/etc/passwd"]).run().ran();
        }
    });
}

#[test]
fn inh_02_a_high_descriptor_is_closed_without_counting_up_to_it() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        // As high as this machine's root may go.
        let most = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1.min(1_048_576);
        let (limit, high) = if may_raise_limits() { (1_048_576, 900_000) } else { (most, most - 1) };
        let call = || {
            world
                .call(&world.alice, "a.cgi")
                .root(&["limit", "7", &limit.to_string(), &limit.to_string()])
                .root(&["fd", &high.to_string(), "directory", "/"])
        };
        assert_eq!(call().env("QUERY_STRING=high").run().ran().fact("fds"), "0 1 2");
        call().strace(&[]).run().ran();
        // A loop up to it would take a tenth of a second, and a call for each number.
        let closes = traced().iter().filter(|line| line.contains(" close")).count();
        assert!((1..200).contains(&closes), "{closes} calls to close descriptors");
    });
}

#[test]
fn inh_03_closed_standard_descriptors_never_mix() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for mask in 1..8 {
            let call = (0..3)
                .filter(|fd| mask & (1 << fd) != 0)
                .fold(world.call(&world.alice, "a.cgi").deed("say"), |call, fd| {
                    call.order(&["close", &fd.to_string()])
                });
            let outcome = call.run();
            let (out, err) = (outcome.out_text(), outcome.err_text());
            assert!(
                !out.contains("word-err") && !err.contains("word-out"),
                "{mask:03b}: {}",
                outcome.story()
            );
            assert!(!out.contains("word-in") && !err.contains("word-in"), "{mask:03b}: {}", outcome.story());
            let log = fs::read_to_string(crate::harness::LOG).unwrap();
            assert!(
                !log.contains("word-") && !log.contains("probe"),
                "{mask:03b}: the log has the program's text"
            );
            assert_eq!(outcome.records.len(), 1, "{mask:03b}: {}", outcome.story());
            if mask & 2 == 0 && outcome.records[0].verb == "launch" {
                assert_eq!(outcome.ran().fact("fds"), "0 1 2", "all three are there, {mask:03b}");
            }
        }
    });
}

#[test]
fn inh_04_a_working_directory_that_is_gone_is_refused() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let gone = world.alice.docroot().join("gone");
        make_directory(&gone, world.alice.id, 0o755);
        let path = gone.to_str().unwrap();
        let call = world.call(&world.alice, "a.cgi").root(&["cwd", path]).root(&["rmdir", path]);
        call.cwd(".").run().refused("P111", 111);
    });
}

#[test]
fn inh_05_a_working_directory_outside_the_site_is_refused() {
    each_jail(|world| {
        world.probe(&world.bob, "a.cgi");
        make_directory("/var/www/alice/htdocs-twin", world.alice.id, 0o755);
        let places = [
            "/",
            "/proc/self/fd",
            "/var/www",
            "/var/www/bob/htdocs",
            "/var/www/alice",
            "/var/www/alice/htdocs-twin",
        ];
        for place in places {
            world.call(&world.alice, "a.cgi").cwd(place).run().refused("P114", 114);
        }
    });
}

#[test]
fn inh_06_a_working_directory_with_a_very_long_path_is_refused() {
    each_jail(|world| {
        let docroot = world.alice.docroot();
        let call = world.call(&world.alice, "a.cgi").root(&["cwd", docroot.to_str().unwrap()]);
        let outcome = call.root(&["deep", &"d".repeat(200), "30"]).cwd(".").run();
        outcome.refused("P111", 111);
    });
}

#[test]
fn inh_07_the_umask_is_the_policys() {
    each_jail(|world| {
        for umask in ["0", "0777"] {
            let report = same(world, |call| call.order(&["umask", umask]));
            assert_eq!(report.fact("umask"), "022");
        }
    });
}

#[test]
fn inh_08_09_a_file_size_limit_of_zero_hides_no_launch() {
    each_jail(|world| {
        let soft = ["limit", "1", "0", &u64::MAX.to_string()];
        same(world, |call| call.order(&soft));
        same(world, |call| call.order(&["ignore", "25"]).order(&soft));
        // The same for refusals: the record is written all the same.
        let refused = world.call(&world.alice, "missing").order(&["ignore", "25"]).order(&soft).run();
        refused.refused("V117", 117);
        // Only a root with CAP_SYS_RESOURCE can undo a hard limit. Without, no record is possible: so no run.
        for call in
            [world.call(&world.alice, "a.cgi"), world.call(&world.alice, "a.cgi").order(&["ignore", "25"])]
        {
            let outcome = call.order(&["limit", "1", "0", "0"]).run();
            if may_raise_limits() {
                outcome.ran();
            } else {
                refused_visibly(&outcome);
            }
        }
    });
}

#[test]
fn inh_10_few_descriptors_are_enough_or_refused_visibly() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        for most in ["3", "4", "5", "8"] {
            world.call(&world.alice, "a.cgi").order(&["limit", "7", most, "4096"]).run().ran();
            let outcome = world.call(&world.alice, "a.cgi").order(&["limit", "7", most, most]).run();
            if outcome.records.is_empty() {
                refused_visibly(&outcome);
            } else {
                outcome.ran_or_refused();
            }
        }
    });
}

/// Nothing ran, and the server's error log says so.
fn refused_visibly(outcome: &Outcome) {
    assert!(outcome.marks.is_empty(), "{}", outcome.story());
    assert!(outcome.status.code().is_some_and(|code| code != 0), "{}", outcome.story());
    assert!(outcome.err_text().starts_with("cellwall: refused, reference"), "{}", outcome.story());
}

/// Containers often take CAP_SYS_RESOURCE from root: then nobody can raise a hard limit.
fn may_raise_limits() -> bool {
    let may = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap();
    if !may {
        not_shown("root without CAP_SYS_RESOURCE, so a hard limit is not undone but refused");
    }
    may
}

#[test]
fn inh_12_resource_limits_are_the_policys() {
    each_jail(|world| {
        let unlimited = u64::MAX.to_string();
        // core, cpu, memlock, sigpending, stack, locks, message queues, real-time CPU, processes
        let hostile = [
            ("4", unlimited.as_str()),
            ("0", "1"),
            ("8", "0"),
            ("11", "0"),
            ("3", "262144"),
            ("10", "0"),
            ("12", "0"),
            ("15", "100000"),
            // The machine's own web server, and other worlds', are this user's as well.
            ("6", "5000"),
        ];
        let soft = |number: &str, value: &str| ["limit", number, value, &unlimited].map(str::to_owned);
        for order in [soft("3", "262144"), soft("0", "1"), soft("3", &unlimited)] {
            same(world, |call| call.root(&order.each_ref().map(String::as_str)));
        }
        fn hard<'w>(call: Call<'w>, order: &(&str, &str)) -> Call<'w> {
            call.root(&["limit", order.0, order.1, order.1])
        }
        if may_raise_limits() {
            same(world, |call| hostile.iter().fold(call, hard));
        } else {
            hostile.iter().fold(world.call(&world.alice, "a.cgi"), hard).run().ran_or_refused();
        }
    });
}

#[test]
fn inh_11_little_memory_never_gives_half_a_launch() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        // A hard limit is one that not every root can undo: then it is refused, with all the memory that there is.
        for bytes in ["300000", "600000", "1000000", "2000000", "4000000", "8000000", "16000000"] {
            for order in [&["soft", "9", bytes][..], &["limit", "9", bytes, bytes]] {
                let outcome = world.call(&world.alice, "a.cgi").order(order).run();
                // The kernel may be unable to start the launcher, or the program, in so little.
                if outcome.out_text().contains("probe") {
                    outcome.ran();
                    assert_ne!(bytes, "300000", "so little is enough: {}", outcome.story());
                } else {
                    assert!(outcome.marks.is_empty() || !outcome.records.is_empty(), "{}", outcome.story());
                    assert_ne!((order[0], bytes), ("soft", "16000000"), "{}", outcome.story());
                }
            }
        }
    });
}

#[test]
fn inh_13_signals_are_neither_ignored_nor_blocked() {
    each_jail(|world| {
        let report = same(world, |call| call.order(&["ignore", "all"]).order(&["block", "all"]));
        assert_eq!((report.fact("blocked"), report.fact("ignored")), ("", ""));
    });
}

#[test]
fn inh_14_timers_do_not_go_off_in_the_program() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let call = ["real", "virtual", "prof"]
            .iter()
            .fold(world.call(&world.alice, "a.cgi"), |call, kind| call.order(&["timer", kind, "300"]));
        let outcome = call.deed("burn").run();
        outcome.ran();
        assert!(outcome.status.success() && outcome.took > Duration::from_millis(900), "{}", outcome.story());
        assert!(outcome.out_text().ends_with("end\n"), "{}", outcome.story());
    });
}

#[test]
fn inh_15_priorities_are_the_policys() {
    each_jail(|world| {
        let report = same(world, |call| {
            call.root(&["nice", "15"])
                .root(&["batch", "5"])
                .root(&["cpus", "1"])
                .root(&["io", "24583"])
                .root(&["slack", "1000000000"])
                .root(&["death", "9"])
                .root(&["personality", "8"])
                .root(&["huge_pages_off", "1"])
                .root(&["memory_policy", "2"])
                .root(&["write", "/proc/self/oom_score_adj", "900"])
        });
        assert_eq!(
            (report.fact("nice"), report.fact("scheduler"), report.fact("timer_slack")),
            ("0", "0", "50000")
        );
        assert_eq!(report.fact("cpus"), every_processor().to_string());
    });
}

/// As many as a process may have that asks for all.
fn every_processor() -> usize {
    let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut all = CpuSet::new();
    (0..CpuSet::count()).for_each(|number| all.set(number).unwrap());
    sched_setaffinity(Pid::from_raw(0), &all).unwrap();
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    sched_setaffinity(Pid::from_raw(0), &own).unwrap();
    (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap()).count()
}

#[test]
fn inh_15_the_oom_score_is_the_policys() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let score = |call: Call<'_>| {
            let outcome = call.env("QUERY_STRING=do=sleep:1");
            let child = outcome.watch(Duration::from_millis(400));
            fs::read_to_string(format!("/proc/{child}/oom_score_adj")).unwrap().trim().to_owned()
        };
        let ordinary = score(world.call(&world.alice, "a.cgi"));
        let hostile =
            score(world.call(&world.alice, "a.cgi").root(&["write", "/proc/self/oom_score_adj", "900"]));
        assert_eq!(ordinary, hostile);
    });
}

#[test]
fn inh_16_the_callers_keyring_is_left_behind() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        the_caller_has_the_key(world);
        let report = world.call(&world.alice, "a.cgi").root(&["keyring"]).run().ran();
        assert_ne!(report.fact("session_key"), "found", "{}", report.text());
    });
}

/// The same caller starts the same program without the launcher: there the key is found.
fn the_caller_has_the_key(world: &World) {
    let program = world.alice.docroot().join("a.cgi");
    let call = world.call(&world.alice, "a.cgi").root(&["keyring"]).program(program.to_str().unwrap());
    let free = call.unrecorded();
    assert_eq!(Report::parse(&free.out).fact("session_key"), "found", "{}", free.story());
}

/// The filter keeps programs from looking at all; without it there is nothing to see either.
#[test]
fn inh_16_without_the_filter_the_callers_key_is_not_to_be_found_either() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.probe(&world.alice, "a.cgi");
            world.site("alice", &small(jail).replace("[files]", "seccomp = \"off\"\n[files]"));
            world.apply();
            the_caller_has_the_key(world);
            let report = world.call(&world.alice, "a.cgi").root(&["keyring"]).run().ran();
            assert_eq!(report.fact("session_key"), "ENOKEY", "{}", report.text());
        });
    }
}

#[test]
fn inh_24_the_program_outlives_whoever_started_the_caller() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let outcome =
            world.call(&world.alice, "a.cgi").order(&["orphan"]).order(&["death", "9"]).deed("burn").run();
        assert!(outcome.out_text().ends_with("end\n"), "{}", outcome.story());
    });
}

#[test]
fn an_ended_program_passes_its_status_and_signal_on() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        assert_eq!(world.call(&world.alice, "a.cgi").deed("exit:7").run().status.code(), Some(7));
        assert_eq!(world.call(&world.alice, "a.cgi").deed("kill:9").run().status.signal(), Some(9));
    });
}

#[test]
fn a_launch_leaves_no_core_and_no_other_file() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        chown(world.alice.docroot(), Some(world.alice.id), Some(world.alice.id)).unwrap();
        let list = || {
            let mut all: Vec<_> =
                fs::read_dir(world.alice.docroot()).unwrap().map(|one| one.unwrap().file_name()).collect();
            all.sort();
            all
        };
        let before = list();
        let call = || {
            let call = world.call(&world.alice, "a.cgi").deed("kill:6");
            call.root(&["limit", "4", "1000000000", "1000000000"])
        };
        let ended = call().run();
        assert_eq!(ended.status.signal(), Some(6), "{}", ended.story());
        assert_eq!(list(), before);
        // The same program leaves one where no launcher starts it, if this machine keeps any there.
        if fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap().starts_with(['|', '/']) {
            return not_shown("cores go elsewhere (core_pattern): that a free program leaves one");
        }
        let id = world.alice.id;
        let program = world.alice.docroot().join("a.cgi");
        call().caller(id, id, "").program(program.to_str().unwrap()).unrecorded();
        assert_ne!(list(), before, "no core at all");
    });
}

/// Without root's rights there is no way to the log file; the log daemon hears of it.
fn without_root(world: &World, prepare: impl Fn(Call<'_>) -> Call<'_>, hint: &str) {
    world.probe(&world.alice, "a.cgi");
    let daemon = world.syslog();
    let outcome = prepare(world.call(&world.alice, "a.cgi")).run();
    outcome.refused_in_the_dark(81);
    let heard = daemon.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(
        heard[0].contains("code=A01") && heard[0].contains(hint),
        "the hint names the cause ({hint}): {heard:?}"
    );
}

#[test]
fn inh_17_18_without_its_set_uid_bit_it_says_so() {
    world(Launcher::Cellwall, |world| {
        without_root(world, |call| call.order(&["no_new_privs"]), "no_new_privs");
    });
    world(Launcher::Cellwall, |world| {
        mode(CELLWALL, 0o755);
        without_root(world, |call| call, "set-uid");
    });
}

#[test]
fn inh_18_a_copy_on_a_nosuid_mount_says_so() {
    world(Launcher::Cellwall, |world| {
        let flags = nix::mount::MsFlags::MS_NOSUID;
        make_directory("/srv/copy", 0, 0o755);
        nix::mount::mount(Some("tmpfs"), "/srv/copy", Some("tmpfs"), flags, None::<&str>).unwrap();
        put("/srv/copy/launcher", &fs::read(CELLWALL).unwrap(), 0, 0o4755);
        without_root(world, |call| call.program("/srv/copy/launcher"), "nosuid");
    });
}

#[test]
fn inh_19_the_root_of_a_user_namespace_is_not_root() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").order(&["userns"]).run();
        assert!(outcome.marks.is_empty() && !outcome.out_text().contains("probe"), "{}", outcome.story());
        assert!(matches!(outcome.status.code(), Some(81..=87 | 101..=126)), "{}", outcome.story());
    });
}

#[test]
fn inh_20_securebits_and_missing_capabilities_never_give_half_an_identity() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let ordinary = world.call(&world.alice, "a.cgi").run().ran();
        // Without these two no identity can be changed at all.
        for capability in ["6", "7"] {
            world.call(&world.alice, "a.cgi").root(&["bound", capability]).run().refused_somehow();
        }
        // no-setuid-fixup; keep-caps with its lock; no-root; all of them.
        for bits in ["0x4", "0x10", "0x30", "0x1", "0x15"] {
            let outcome = world.call(&world.alice, "a.cgi").root(&["securebits", bits]).run();
            same_or_nothing(&outcome, &ordinary);
        }
        // CHOWN, SETGID, SETUID, SETPCAP, SYS_ADMIN, SYS_CHROOT, SYS_RESOURCE, DAC_OVERRIDE, DAC_READ_SEARCH
        for capability in ["0", "6", "7", "8", "21", "18", "24", "1", "2"] {
            let outcome = world.call(&world.alice, "a.cgi").root(&["bound", capability]).run();
            same_or_nothing(&outcome, &ordinary);
        }
    });
}

/// A unit with AmbientCapabilities= starts its web server with an inheritable set, which stays when root is gone.
#[test]
fn inh_20_what_the_web_server_may_inherit_its_sites_may_not() {
    each_jail(|world| {
        // CAP_NET_BIND_SERVICE, CAP_DAC_READ_SEARCH
        let report = same(world, |call| call.root(&["inherit", "10"]).root(&["inherit", "2"]));
        assert_eq!(report.fact("cap_inheritable"), "0000000000000000");
    });
}

fn same_or_nothing(outcome: &Outcome, ordinary: &Report) {
    if outcome.out_text().contains("\nprobe\n") {
        let report = outcome.ran();
        for fact in
            ["uid", "gid", "groups", "cap_effective", "cap_permitted", "cap_inheritable", "cap_ambient"]
        {
            assert_eq!(report.fact(fact), ordinary.fact(fact), "{}", outcome.story());
        }
        assert_eq!(report.fact("no_new_privs"), "1");
    } else {
        assert!(outcome.marks.is_empty(), "{}", outcome.story());
        assert!(matches!(outcome.status.code(), Some(81..=87 | 101..=126)), "{}", outcome.story());
    }
}

const GROUPS: &str = "/sys/fs/cgroup/memory/cellwall";

/// The control group of a process, by hierarchy.
fn group_of(report: &str, hierarchy: &str) -> String {
    let line = report.lines().find(|line| line.split(':').nth(1) == Some(hierarchy));
    line.and_then(|line| line.rsplit(':').next()).unwrap_or_default().to_owned()
}

#[test]
fn inh_25_a_site_with_a_memory_limit_runs_in_its_own_control_group() {
    world(Launcher::Cellwall, |world| {
        fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n").unwrap();
        let rules = "profile = \"sh\"\n[jail]\nkind = \"host\"\nlandlock = \"off\"\n[limits]\nmemory = \"48M\"\nprocesses = 20\ncgroup = \"required\"\n";
        world.site("alice", rules);
        world.apply();
        world.script(&world.alice, "a.cgi", "#!/bin/sh\ncat /proc/self/cgroup\n");
        let outcome = world.call(&world.alice, "a.cgi").run();
        let text = outcome.out_text();
        let name = format!("/cellwall/{}-alice", world.alice.id);
        let version = outcome.records[0].field("cgroup").to_owned();
        if Path::new(GROUPS).exists() {
            assert_eq!(version, "v1");
            assert_eq!(group_of(&text, "memory"), name, "{text}");
            assert_eq!(group_of(&text, "pids"), name, "{text}");
        } else {
            assert_eq!(version, "v2");
            assert!(text.contains(&name), "{text}");
        }
        // A hog is ended in its own group, and the launcher's caller is not.
        world.script(&world.alice, "hog.cgi", "#!/bin/sh\nx=aaaaaaaaaaaaaaaa\nwhile :; do x=$x$x; done\n");
        let hog = world.call(&world.alice, "hog.cgi").run();
        ended_at_its_limit(world, &hog, 48 << 20);
    });
}

/// The kernel ended it when its group had all that it may have: a hog without a limit ends as well, but later, by another
/// signal or by an error of its own.
fn ended_at_its_limit(world: &World, hog: &Outcome, limit: u64) {
    assert_eq!(hog.status.signal(), Some(nix::libc::SIGKILL), "{}", hog.story());
    assert!(hog.took < Duration::from_secs(10), "{}", hog.story());
    let (mount, files) = if Path::new(GROUPS).exists() {
        ("/sys/fs/cgroup/memory", ["memory.max_usage_in_bytes", "memory.limit_in_bytes"])
    } else {
        ("/sys/fs/cgroup", ["memory.peak", "memory.max"])
    };
    let [peak, most] = files.map(|file| {
        let path = format!("{mount}/cellwall/{}-alice/{file}", world.alice.id);
        let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
        text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{path}: {text}"))
    });
    assert_eq!(most, limit, "the group's limit");
    assert!((limit / 6 * 5..=limit).contains(&peak), "the group held {peak} of {limit} bytes at most");
}

#[test]
fn inh_25_a_control_group_that_is_gone_is_made_again_at_the_next_launch() {
    world(Launcher::Cellwall, |world| {
        fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n").unwrap();
        world.site("alice", &format!("{}[limits]\nmemory = \"64M\"\ncgroup = \"required\"\n", small("host")));
        world.apply();
        world.remove_groups();
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").run();
        outcome.ran();
        assert!(outcome.records[0].field("cgroup").starts_with('v'));
    });
}

/// The hierarchy that limits how many processes there are, and alice's group in it.
fn group_of_processes(world: &World) -> PathBuf {
    let old = Path::new("/sys/fs/cgroup/pids");
    let mount = if old.exists() { old } else { Path::new("/sys/fs/cgroup") };
    mount.join(format!("cellwall/{}-alice", world.alice.id))
}

#[test]
fn inh_25_a_group_that_somebody_left_half_made_is_set_before_it_is_entered() {
    world(Launcher::Cellwall, |world| {
        fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n").unwrap();
        world.probe(&world.alice, "a.cgi");
        let most = group_of_processes(world).join("pids.max");
        let read = || fs::read_to_string(&most).unwrap().trim().to_owned();
        for (wanted, refused) in [("required", true), ("auto", false)] {
            let limits = format!("[limits]\nmemory = \"64M\"\nprocesses = 20\ncgroup = \"{wanted}\"\n");
            world.site("alice", &format!("{}{limits}", small("host")));
            world.apply();
            // A launch that was ended between making the group and setting it.
            world.remove_groups();
            fs::create_dir(most.parent().unwrap()).unwrap();
            assert_eq!(read(), "max");
            let outcome = world.call(&world.alice, "a.cgi").run();
            outcome.ran();
            assert_eq!(read(), "20", "{wanted}: {}", outcome.story());
            // One that cannot set it.
            world.remove_groups();
            let call = || world.call(&world.alice, "a.cgi");
            let path = most.display().to_string();
            let denied = call().strace(&["-P", &path, "-e", "inject=open,openat:error=ENOENT"]).run();
            if refused {
                denied.refused("C04", 84);
            } else {
                denied.ran();
                assert_eq!(denied.records[0].field("lost"), "pids", "{}", denied.records[0].line);
            }
            assert_eq!(read(), "max", "{wanted}: {}", denied.story());
            let next = call().run();
            next.ran();
            assert_eq!(read(), "20", "{wanted}: {}", next.story());
            assert!(!next.records[0].line.contains("lost="), "{}", next.records[0].line);
        }
    });
}

#[test]
fn inh_25_without_its_group_each_process_has_the_sites_memory_at_most() {
    world(Launcher::Cellwall, |world| {
        fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n").unwrap();
        world.site("alice", &format!("{}[limits]\nmemory = \"64M\"\n", small("host")));
        world.apply();
        world.probe(&world.alice, "a.cgi");
        let grouped = world.call(&world.alice, "a.cgi").run();
        assert_eq!(grouped.ran().fact("limit_as"), format!("{0} {0}", u64::MAX), "{}", grouped.story());
        world.remove_groups();
        let denied = ["-e", "inject=mkdir,mkdirat:error=EROFS"];
        let alone = world.call(&world.alice, "a.cgi").strace(&denied).run();
        assert_eq!(alone.ran().fact("limit_as"), "67108864 67108864", "{}", alone.story());
        let record = &alone.records[0];
        assert_eq!(
            (record.field("cgroup"), record.field("lost")),
            ("none", "memory,pids"),
            "{}",
            record.line
        );
    });
}

#[test]
fn a_site_that_has_as_many_processes_as_it_may_starts_no_more() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", &format!("{}[limits]\nprocesses = 3\n", everything("host")));
        world.apply();
        world.script(&world.alice, "waits.cgi", "#!/bin/sh\nexec sleep 30\n");
        let running = |world: &World| {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let owner =
                |entry: &fs::DirEntry| entry.metadata().is_ok_and(|facts| facts.uid() == world.alice.id);
            all.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
                .filter(owner)
                .count()
        };
        let all: Vec<u32> =
            (0..4).map(|_| world.call(&world.alice, "waits.cgi").watch(Duration::from_millis(200))).collect();
        assert_eq!(running(world), 4, "the kernel lets one more start");
        world.probe(&world.alice, "a.cgi");
        let outcome = world.call(&world.alice, "a.cgi").run();
        let refused = outcome.refused("X255", 255);
        assert!(refused.field("why").contains("as many processes as it may have"), "{}", refused.line);
        for pid in all {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
}

#[test]
fn inh_21_the_callers_groups_do_not_follow() {
    each_jail(|world| {
        let report = same(world, |call| call.caller(33, 33, "33,4,20,24,27,42,1000"));
        let own = world.alice.id.to_string();
        assert!(["", own.as_str()].contains(&report.fact("groups")), "{}", report.fact("groups"));
    });
}

/// Many launches while a process of the same user grasps at each of them, from the drop of root to the start.
#[test]
fn inh_22_the_launcher_is_never_in_its_users_hands() {
    each_jail(|world| {
        world.probe(&world.alice, "victim.cgi");
        let hunters: Vec<_> = (0..2)
            .map(|_| {
                world.outside(&world.alice, &["/mnt/bin/escape", "hunt", "cellwall-suexec", "victim.cgi"])
            })
            .collect();
        let started = std::time::Instant::now();
        let (mut launches, mut late) = (0, 0);
        while started.elapsed() < crate::race::length() {
            for deed in std::iter::once("burn").chain([""; 20]) {
                launches += 1;
                let outcome = world.call(&world.alice, "victim.cgi").deed(deed).run();
                if outcome.ran_or_refused().is_none() {
                    // The hunters leave a slow machine no time, and the launcher's deadline holds there, too.
                    outcome.refused("A03", 81);
                    late += 1;
                }
            }
        }
        assert!(late < launches / 2, "{late} of {launches} launches were too late");
        let (mut tried, mut own) = (0, 0);
        for hunter in hunters {
            let told = hunter.end();
            assert!(!told.contains("breach"), "{told}");
            let report = Report::parse(told.as_bytes());
            tried += report.fact("tried").parse::<u64>().unwrap();
            own += report.fact("own").parse::<u64>().unwrap();
        }
        println!(
            "hunt: {launches} launches, {tried} launchers grasped at, 0 caught, {own} programs of the user's own"
        );
        assert!(tried > 10 && own > 0, "{tried} launchers and {own} programs were met");
    });
}

#[test]
fn inh_23_nothing_is_typed_into_the_callers_terminal() {
    each_jail(|world| {
        let path = world.probe(&world.alice, "a.cgi");
        let on = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").map_or(true, |on| on.trim() == "1");
        // The launcher, and the administrator's door: both at a terminal that is theirs.
        for (words, variable) in [
            (vec!["/mnt/bin/call", &web_order(world)], ""),
            (vec!["/usr/bin/cellwall", "run", "alice", "--", path.to_str().unwrap()], "do=push"),
        ] {
            let told = at_a_terminal(&words, variable);
            assert!(told.contains("try push EPERM"), "{words:?}: {told}");
            assert!(told.contains("end"), "{words:?}: {told}");
        }
        // The same call works for a process that is in no cell, where the kernel has it.
        if on {
            let free = at_a_terminal(&[path.to_str().unwrap()], "do=push");
            assert!(free.contains("try push done"), "{free}");
        } else {
            not_shown(
                "a kernel in which nobody types into a terminal (legacy_tiocsti): that a free program can",
            );
        }
    });
}

/// Orders for a launch of alice's probe that pushes.
fn web_order(world: &World) -> String {
    let id = world.alice.id.to_string();
    let docroot = world.alice.docroot();
    let words = [
        "cwd",
        docroot.to_str().unwrap(),
        "become",
        "33",
        "33",
        "33",
        "arg",
        CELLWALL,
        "arg",
        &id,
        "arg",
        &id,
        "arg",
        "a.cgi",
        "env",
        "REQUEST_METHOD=GET",
        "env",
        "QUERY_STRING=do=push",
        "exec",
        CELLWALL,
    ];
    crate::harness::orders(&words).to_str().unwrap().to_owned()
}

/// What a program prints whose controlling terminal is a new one; script(1) makes it.
fn at_a_terminal(words: &[&str], query: &str) -> String {
    let said = run(std::process::Command::new("script")
        .args(["-qec", &words.join(" "), "/dev/null"])
        .env("QUERY_STRING", query));
    String::from_utf8_lossy(&said.stdout).into_owned()
}
