//! The shipped seccomp list in a real kernel: loaded into a forked child, which then tries things.
#![cfg(feature = "admin")]
#![allow(
    unsafe_code,
    reason = "raw system calls are what is tested; the crate's own wrappers cannot make wrong ones"
)]
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::Error;

use cellwall::config::seccomp::{BASELINE, Choices, baseline};
use cellwall::config::syscalls::{self, Known};
use libc::{EBADF, EINVAL, ENOSYS, EPERM, c_int, c_long};

const MPTCP: c_long = 262;
const FAST_OPEN: c_long = 0x2000_0000;

/// One call with its arguments, and the error that it ends with; 0: none.
struct Try(&'static str, c_long, [c_long; 4], c_int);

fn word(number: c_int) -> c_long {
    c_long::from(number)
}

#[test]
fn the_kernel_denies_what_the_list_denies() {
    let user_namespace = word(libc::CLONE_NEWUSER);
    run(
        Choices { tcp_rules: false },
        &[
            Try("unshare", libc::SYS_unshare, [user_namespace, 0, 0, 0], EPERM),
            Try("clone", libc::SYS_clone, [user_namespace | word(libc::SIGCHLD), 0, 0, 0], EPERM),
            Try("clone3", libc::SYS_clone3, [0, 0, 0, 0], ENOSYS),
            Try("mount", libc::SYS_mount, [0, 0, 0, 0], EPERM),
            Try("umount2", libc::SYS_umount2, [0, 0, 0, 0], EPERM),
            Try("ptrace", libc::SYS_ptrace, [word(-1), 0, 0, 0], EPERM),
            Try("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0], EPERM),
            Try("keyctl", libc::SYS_keyctl, [0, word(-3), 0, 0], EPERM),
            Try("bpf", libc::SYS_bpf, [0, 0, 0, 0], EPERM),
            Try("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0], EPERM),
            Try("TIOCSTI", libc::SYS_ioctl, [0, 0x5412, 0, 0], EPERM),
            Try("TIOCLINUX", libc::SYS_ioctl, [0, 0x541c, 0, 0], EPERM),
            Try("no ASLR", libc::SYS_personality, [0x0004_0000, 0, 0, 0], EPERM),
            Try("AF_PACKET", libc::SYS_socket, [17, 3, 0, 0], EPERM),
            Try("AF_ALG", libc::SYS_socket, [38, 5, 0, 0], EPERM),
            Try("AF_VSOCK", libc::SYS_socket, [40, 1, 0, 0], EPERM),
            Try("netlink audit", libc::SYS_socket, [16, 3, 9, 0], EPERM),
            Try("AF_TIPC pair", libc::SYS_socketpair, [30, 1, 0, 0], EPERM),
            Try("a device", libc::SYS_mknodat, [word(-100), 0, 0o020_600, 0x103], EPERM),
        ],
    );
}

/// Also a test of the test: each of these reaches the kernel, which answers with its own error or with none.
#[test]
fn the_kernel_still_does_what_programs_need() {
    run(
        Choices { tcp_rules: false },
        &[
            Try("getppid", libc::SYS_getppid, [0; 4], 0),
            Try("personality query", libc::SYS_personality, [0xffff_ffff, 0, 0, 0], 0),
            Try("TCP", libc::SYS_socket, [2, 1, 6, 0], 0),
            Try("UDP", libc::SYS_socket, [2, 2, 0, 0], 0),
            Try("Unix", libc::SYS_socket, [1, 5, 0, 0], 0),
            Try("routing", libc::SYS_socket, [16, 3, 0, 0], 0),
            Try("no type", libc::SYS_socket, [10, 77, 0, 0], EINVAL),
            Try("clone of nothing", libc::SYS_clone, [0x0001_0000, 0, 0, 0], EINVAL),
            Try("other ioctl", libc::SYS_ioctl, [word(-1), 0x5401, 0, 0], EBADF),
            Try("a pipe", libc::SYS_mknodat, [word(-1), 0, 0o010_600, 0], libc::EFAULT),
            Try("send", libc::SYS_sendto, [word(-1), 0, 0, FAST_OPEN], EBADF),
            Try("setresuid", libc::SYS_setresuid, [word(-1), word(-1), word(-1), 0], 0),
            Try("prctl", libc::SYS_prctl, [39, 0, 0, 0], 0),
        ],
    );
}

#[test]
fn ways_around_tcp_rules_are_closed_where_there_are_tcp_rules() {
    run(
        Choices { tcp_rules: true },
        &[
            Try("MPTCP", libc::SYS_socket, [2, 1, MPTCP, 0], EPERM),
            Try("MPTCP over IPv6", libc::SYS_socket, [10, 1, MPTCP, 0], EPERM),
            Try("SCTP", libc::SYS_socket, [2, 1, 132, 0], EPERM),
            Try("SCTP by type", libc::SYS_socket, [2, 5, 0, 0], EPERM),
            Try("SMC", libc::SYS_socket, [2, 1, 256, 0], EPERM),
            Try("SMC as a family", libc::SYS_socket, [43, 1, 0, 0], EPERM),
            Try("fast open", libc::SYS_sendto, [word(-1), 0, 0, FAST_OPEN], EPERM),
            Try("fast open", libc::SYS_sendmsg, [word(-1), 0, FAST_OPEN, 0], EPERM),
            Try("fast open", libc::SYS_sendmmsg, [word(-1), 0, 0, FAST_OPEN], EPERM),
            Try("plain send", libc::SYS_sendto, [word(-1), 0, 0, 0], EBADF),
            Try("TCP", libc::SYS_socket, [2, 1, 0, 0], 0),
            Try("UDP", libc::SYS_socket, [2, 2, 17, 0], 0),
            Try("Unix", libc::SYS_socket, [1, 1, 0, 0], 0),
            Try("a Unix protocol that is none", libc::SYS_socket, [1, 1, 77, 0], libc::EPROTONOSUPPORT),
        ],
    );
}

/// Of two filters that answer with an error the one that was loaded last is heard (kernel/seccomp.c, `seccomp_run_filters`): the
/// first one lets nothing happen, so that the second one can be asked about every number, by the kernel itself.
#[test]
fn the_kernel_reads_every_number_as_the_list_has_it() {
    const NOTHING_HAPPENS: c_int = 77;
    // uretprobe and uprobe: the kernel's own trampolines make them, no filter is asked (kernel/seccomp.c,
    // `seccomp_uprobe_exception`), and whoever calls them from elsewhere ends by SIGILL.
    const NEVER_ASKED: [c_int; 2] = [335, 336];
    let needed = [libc::SYS_seccomp, libc::SYS_prctl, libc::SYS_exit_group, libc::SYS_exit];
    let nothing = nothing_happens(&needed, NOTHING_HAPPENS.unsigned_abs());
    let listed = listed();
    assert!(listed.len() > 60);
    let near = || -2048..2048_i32;
    let all =
        near().chain(near().map(|number| number.wrapping_add(0x4000_0000))).chain([c_int::MIN, c_int::MAX]);
    let expected = |number: c_int| {
        // Without arguments a socket is of no family that is plain.
        let socket = [libc::SYS_socket, libc::SYS_socketpair].contains(&c_long::from(number));
        // Numbers that nobody has judged, and those of x32.
        let unknown = u32::try_from(number).is_err() || number.unsigned_abs() > syscalls::YOUNGEST;
        let other = if socket { EPERM } else { NOTHING_HAPPENS };
        listed.get(&number).copied().unwrap_or(if unknown { ENOSYS } else { other })
    };
    let all: Vec<(c_int, c_int)> = all
        .filter(|number| !needed.contains(&c_long::from(*number)) && !NEVER_ASKED.contains(number))
        .map(|number| (number, expected(number)))
        .collect();
    for choices in [Choices { tcp_rules: false }, Choices { tcp_rules: true }] {
        let program = baseline(choices).expect("the list is right");
        for some in all.chunks(150) {
            let status = in_child(|| {
                load(&nothing);
                load(&program);
                let wrong = some.iter().position(|(number, expected)| answer(*number) != *expected);
                wrong.map_or(0, |place| c_int::try_from(place + 1).unwrap_or(255))
            });
            assert!(libc::WIFEXITED(status), "killed: {status:#x}");
            match libc::WEXITSTATUS(status) {
                0 => {}
                200 => panic!("a filter was not loaded"),
                place => panic!("not as listed: {:?}", some[usize::try_from(place - 1).expect("small")]),
            }
        }
    }
}

/// A filter that answers every call with this error, but these.
fn nothing_happens(needed: &[c_long], errno: u32) -> Vec<u8> {
    use cellwall::sys::filter::{self as step, number};
    let mut program = vec![step::load(step::NUMBER_AT)];
    for call in needed {
        program.extend([step::equal(0, 1, number(*call)), step::end(step::ALLOW)]);
    }
    program.push(step::end(step::ERRNO | errno));
    step::bytes(&program)
}

/// The error that a call of this number without arguments ends with; 0: none.
fn answer(number: c_int) -> c_int {
    // SAFETY: all arguments are null; the filter that is loaded lets no call happen.
    let result = unsafe { libc::syscall(c_long::from(number), 0, 0, 0, 0, 0, 0) };
    if result == -1 { Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

/// The calls of the list that are denied whatever their arguments are, and the error of each.
fn listed() -> BTreeMap<c_int, c_int> {
    let (plain, _) = BASELINE.split_once("[arguments]").expect("a section");
    let mut errno = 0;
    let mut all = BTreeMap::new();
    for line in plain.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line {
            "[EPERM]" => errno = EPERM,
            "[ENOSYS]" => errno = ENOSYS,
            _ => {
                let name = line.split(' ').next().expect("a word");
                if let Some(Known::Number(number)) = syscalls::find(name) {
                    all.insert(c_int::try_from(number).expect("small"), errno);
                }
            }
        }
    }
    all
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_32_bit_door_kills() {
    let program = baseline(Choices::default()).expect("the list is right");
    let status = in_child(|| {
        load(&program);
        // SAFETY: system call 20 of i386 is getpid: no memory is touched. rax is the only result.
        unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _, options(nostack)) };
        0
    });
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS, "{status:#x}");
}

/// As root, who may do all of it otherwise: by the machine's numbers, and by those of 32-bit programs.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_the_pools_supervisor_gives_up_is_refused_by_either_number() {
    use cellwall::pool::supervisor::seal;
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::geteuid() }, 0, "this test needs root; run: sudo cargo xtask test");
    let program = seal::program();
    let length = u16::try_from(program.len()).expect("short");
    let seal = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let (_, compat) = seal::COMPAT;
    // Each with arguments that are wrong: no pointer is good, no number is one that it knows.
    let plain = |call: c_long| {
        // SAFETY: pointers among the arguments are null or -1, which the kernel answers with an error at most.
        let result = unsafe { libc::syscall(call, 0, word(-1), word(-1), word(-1), 0, 0) };
        result == -1 && Error::last_os_error().raw_os_error() == Some(EPERM)
    };
    for sealed in [false, true] {
        let status = in_child(|| {
            if sealed {
                // SAFETY: `seal` and what it points to outlive the call; the kernel copies and checks them.
                let loaded = unsafe {
                    libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const seal)
                };
                if loaded != 0 {
                    return 200;
                }
            }
            let refused = seal::CALLS.iter().filter(|call| plain(**call)).count();
            let foreign = compat.iter().filter(|call| by_32_bits(**call) == -i64::from(EPERM)).count();
            // getpid, which everybody may.
            let works = by_32_bits(20) > 0 && !plain(libc::SYS_getpid);
            if !works {
                return 201;
            }
            // So many that only the filter can have refused; all of them where it is loaded.
            match sealed {
                true => c_int::from(refused < seal::CALLS.len()) + 2 * c_int::from(foreign < compat.len()),
                false => {
                    c_int::from(refused > seal::CALLS.len() / 2) + 2 * c_int::from(foreign > compat.len() / 2)
                }
            }
        });
        assert!(libc::WIFEXITED(status), "killed: {status:#x}");
        assert_eq!(libc::WEXITSTATUS(status), 0, "sealed: {sealed}");
    }
}

/// A system call of i386: what the kernel returned.
#[cfg(target_arch = "x86_64")]
fn by_32_bits(call: c_long) -> i64 {
    let mut answer: i64 = call;
    // SAFETY: as above, the pointers are null or -1. rbx is LLVM's own and is put back; the kernel's 32-bit entry leaves all
    // registers but rax and, on old kernels, r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {none}", "int 0x80", "xchg rbx, {none}",
            none = inout(reg) 0_i64 => _,
            inout("rax") answer,
            in("rcx") -1_i64, in("rdx") -1_i64, in("rsi") -1_i64, in("rdi") 0_i64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack)
        );
    }
    answer
}

/// The child loads the filter and makes all calls; its exit status is the number of the first that ended otherwise.
fn run(choices: Choices, tries: &[Try]) {
    let program = baseline(choices).expect("the list is right");
    let status = in_child(|| {
        load(&program);
        let wrong = tries.iter().position(|Try(_, call, [a, b, c, d], expected)| {
            // SAFETY: pointers among the arguments are null, which the kernel answers with an error at most.
            let result = unsafe { libc::syscall(*call, *a, *b, *c, *d, 0, 0) };
            let errno = if result == -1 { Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 };
            errno != *expected
        });
        wrong.map_or(0, |index| c_int::try_from(index + 1).unwrap_or(255))
    });
    assert!(libc::WIFEXITED(status), "killed: {status:#x}");
    match libc::WEXITSTATUS(status) {
        0 => {}
        200 => panic!("the filter was not loaded"),
        number => {
            let Try(name, _, arguments, expected) = &tries[usize::try_from(number - 1).expect("small")];
            panic!("{name} {arguments:?} did not end with error {expected}");
        }
    }
}

/// Runs `work` in a forked child and returns the wait status.
fn in_child(work: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the child makes plain system calls and leaves by _exit; it takes no lock that another thread may hold.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", Error::last_os_error());
    if child == 0 {
        let code = work();
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// no_new_privs, then the filter. Leaves with 200 when the kernel refuses.
fn load(program: &[u8]) {
    let length = u16::try_from(program.len() / 8).unwrap_or(0);
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: no pointers.
    let sealed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `program` and what it points to outlive the call; the kernel copies and checks them.
    let loaded =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if sealed != 0 || loaded != 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(200) };
    }
}
