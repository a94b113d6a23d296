//! System calls that fail: whatever the kernel says, a launch is whole or it is refused.

use crate::harness::{Launcher, Outcome, Report, world};

/// Numbers on x86_64 of the calls that a launch makes, and of those that it might make.
#[cfg(target_arch = "x86_64")]
const CALLS: [(&str, i64); 43] = [
    ("read", 0),
    ("fstat", 5),
    ("lseek", 8),
    ("mmap", 9),
    ("rt_sigaction", 13),
    ("rt_sigprocmask", 14),
    ("pread64", 17),
    ("setitimer", 38),
    ("socket", 41),
    ("fcntl", 72),
    ("getcwd", 79),
    ("chdir", 80),
    ("fchdir", 81),
    ("getrlimit", 97),
    ("getuid", 102),
    ("setuid", 105),
    ("getgroups", 115),
    ("setgroups", 116),
    ("setresuid", 117),
    ("getresuid", 118),
    ("setresgid", 119),
    ("getresgid", 120),
    ("capget", 125),
    ("capset", 126),
    ("sigaltstack", 131),
    ("setpriority", 141),
    ("sched_setscheduler", 144),
    ("prctl", 157),
    ("setrlimit", 160),
    ("chroot", 161),
    ("mount", 165),
    ("keyctl", 250),
    ("ioprio_set", 251),
    ("openat", 257),
    ("newfstatat", 262),
    ("unshare", 272),
    ("prlimit64", 302),
    ("setns", 308),
    ("seccomp", 317),
    ("execveat", 322),
    ("close_range", 436),
    ("openat2", 437),
    ("landlock_restrict_self", 446),
];
const ERRORS: [(&str, i32); 4] = [("EPERM", 1), ("ENOMEM", 12), ("EINVAL", 22), ("ENOSYS", 38)];

#[test]
fn a_failing_system_call_never_gives_half_a_launch() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let ordinary = world.call(&world.alice, "a.cgi").run().ran();
        let (mut ran, mut refused) = (0, 0);
        for (name, number) in CALLS {
            for (error, errno) in ERRORS {
                let outcome = world.call(&world.alice, "a.cgi").failing(number, errno).run();
                if whole(&outcome, &ordinary, &format!("{name} fails with {error}")) {
                    ran += 1
                } else {
                    refused += 1
                }
            }
        }
        assert!(ran > 0 && refused > 0, "{ran} ran, {refused} refused");
    });
}

/// Every cell is a whole launch or a refusal with its own status; a record where a record can be written.
fn whole(outcome: &Outcome, ordinary: &Report, cell: &str) -> bool {
    let launched = outcome.records.iter().filter(|record| record.verb == "launch").count();
    let report = Report::parse(&outcome.out);
    if outcome.out_text().contains("\nprobe\n") {
        assert_eq!(launched, 1, "{cell}: {}", outcome.story());
        for fact in ["uid", "gid", "groups", "cap_bounding", "fds"] {
            // The probe runs under the same filter: what it cannot see, it cannot tell.
            let (seen, usual) = (report.all(fact), ordinary.all(fact));
            let blind = seen.iter().any(|value| value.contains("4294967295") || value.is_empty());
            assert!(seen == usual || seen.is_empty() || blind, "{cell}: {fact} {seen:?}, not {usual:?}");
        }
        return true;
    }
    assert!(outcome.marks.is_empty(), "{cell}: {}", outcome.story());
    match outcome.status.code() {
        // A start of the program that failed in the program itself.
        _ if launched == 1 => true,
        Some(1 | 81..=87 | 101..=126 | 255) => false,
        // Without memory, and before `main`, there is nothing to refuse with.
        None if cell.starts_with("mmap") || cell.starts_with("rt_sigaction") => false,
        _ => panic!("{cell}: neither run nor refused: {}", outcome.story()),
    }
}
