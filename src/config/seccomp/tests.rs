//! Every system call gets the answer of the list, from a model of the kernel's filter machine.

use super::filter::*;
use super::syscalls::YOUNGEST;
use super::*;
use crate::sys::filter::*;

const NATIVE: u32 = ARCHITECTURE;
const I386: u32 = 0x4000_0003;

/// The kernel's filter machine, as far as a seccomp program may use it. Returns the answer and the steps it took.
fn run(program: &[u8], architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let mut data = [number.to_ne_bytes(), architecture.to_ne_bytes()].concat();
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().expect("four bytes"));
    let (mut at, mut accumulator) = (0, 0_u32);
    for steps in 1..=program.len() {
        let line: [u8; 8] = program[at * 8..at * 8 + 8].try_into().expect("eight bytes");
        let code = u16::from_ne_bytes([line[0], line[1]]);
        let value = u32::from_ne_bytes([line[4], line[5], line[6], line[7]]);
        let jump = |yes: bool| usize::from(if yes { line[2] } else { line[3] });
        at += 1;
        match code {
            0x20 => accumulator = word(usize::try_from(value).expect("small")),
            0x54 => accumulator &= value,
            0x44 => accumulator |= value,
            0x05 => at += usize::try_from(value).expect("small"),
            0x15 => at += jump(accumulator == value),
            0x35 => at += jump(accumulator >= value),
            0x06 => return (value, steps),
            other => panic!("{other:#x} is not in these programs"),
        }
    }
    panic!("no return");
}

fn answer_to(choices: Choices, number: libc::c_long, arguments: [u64; 6]) -> u32 {
    let number = u32::try_from(number).expect("small");
    run(&baseline(choices).expect("right"), NATIVE, number, arguments).0
}

const OPEN: Choices = Choices { tcp_rules: false };
const RESTRICTED: Choices = Choices { tcp_rules: true };
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// The list read by other means than the parser: (number, answer) of the lines before the argument rules.
fn listed() -> BTreeMap<u32, u32> {
    let (plain, _) = BASELINE.split_once("[arguments]").expect("a section");
    let mut answer = 0;
    let mut all = BTreeMap::new();
    for line in plain.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line {
            "[EPERM]" => answer = EPERM,
            "[ENOSYS]" => answer = ENOSYS,
            _ => {
                let name = line.split(' ').next().expect("a word");
                match syscalls::find(name) {
                    Some(Known::Number(number)) => drop(all.insert(number, answer)),
                    Some(Known::Elsewhere) => {}
                    None => panic!("{name}"),
                }
            }
        }
    }
    all
}

#[test]
fn every_number_gets_the_answer_of_the_list() {
    let listed = listed();
    assert!(listed.len() > 60);
    for choices in [OPEN, RESTRICTED] {
        let program = baseline(choices).expect("right");
        for number in 0..2000 {
            let (answer, _) = run(&program, NATIVE, number, [0; 6]);
            // Without arguments every argument rule allows, but that protocol 0 of family 0 is no plain one and
            // type 0 is no known transport.
            let socket = [libc::SYS_socket, libc::SYS_socketpair].contains(&i64::from(number));
            let expected = match number {
                _ if socket => EPERM,
                _ if number > YOUNGEST => ENOSYS,
                _ => ALLOW,
            };
            assert_eq!(answer, listed.get(&number).copied().unwrap_or(expected), "{number}");
        }
    }
}

/// A program knows a number only by comparing it with its own constants: what lies between two of them is judged alike, so
/// these stand for all that there are.
fn edges(program: &[u8]) -> std::collections::BTreeSet<u32> {
    let mut edges = std::collections::BTreeSet::from([0, u32::MAX]);
    let mut before = (0, 0);
    for [a, b, _, _, value @ ..] in program.as_chunks::<8>().0 {
        let (code, value) = (u16::from_ne_bytes([*a, *b]), u32::from_ne_bytes(*value));
        match code {
            IF_EQUAL | IF_AT_LEAST => {
                edges.extend([value.saturating_sub(1), value, value.saturating_add(1)]);
            }
            AND => assert!(before.0 == LOAD && before.1 >= ARGUMENTS_AT, "a part of a number"),
            OR => assert_eq!(value, 0, "another number"),
            _ => assert!([LOAD, JUMP, RETURN].contains(&code), "{code:#x}"),
        }
        before = (code, value);
    }
    edges
}

#[test]
fn no_number_and_no_architecture_of_all_that_there_are_is_judged_otherwise() {
    let listed = listed();
    for choices in [OPEN, RESTRICTED] {
        let program = baseline(choices).expect("right");
        let edges = edges(&program);
        for number in &edges {
            let unknown = *number > YOUNGEST;
            let socket = [libc::SYS_socket, libc::SYS_socketpair].contains(&i64::from(*number));
            let expected = match listed.get(number) {
                Some(answer) => *answer,
                None if unknown => ENOSYS,
                None if socket => EPERM,
                None => ALLOW,
            };
            assert_eq!(run(&program, NATIVE, *number, [0; 6]).0, expected, "{number:#x}");
            for architecture in edges.iter().chain(&[I386]).filter(|one| **one != NATIVE) {
                let answer = run(&program, *architecture, *number, [0; 6]).0;
                assert_eq!(answer, KILL, "{architecture:#x} {number:#x}");
            }
        }
    }
}

/// Nothing passes because nobody has thought of it.
#[test]
fn each_call_since_linux_5_1_was_judged() {
    let list = parse(BASELINE, OPEN).expect("right");
    let forgotten: Vec<u32> = (424..=YOUNGEST).filter(|number| !list.contains_key(number)).collect();
    assert_eq!(forgotten, [0; 0]);
    assert_eq!(list.keys().next_back(), Some(&YOUNGEST));
}

#[test]
fn what_the_change_of_identity_needs_is_allowed() {
    for number in [
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_prctl,
        libc::SYS_seccomp,
        libc::SYS_landlock_restrict_self,
        libc::SYS_getrandom,
    ] {
        assert_eq!(answer_to(RESTRICTED, number, [u64::MAX; 6]), ALLOW, "{number}");
    }
}

#[test]
fn foreign_architectures_die_and_x32_does_not_exist() {
    let program = baseline(OPEN).expect("right");
    for number in [0, 1, 59, 165, 400] {
        assert_eq!(run(&program, I386, number, [0; 6]).0, KILL);
        assert_eq!(run(&program, 0x4000_0028, number, [0; 6]).0, KILL);
    }
    if cfg!(target_arch = "x86_64") {
        for number in [0x4000_0000, 0x4000_0001, 0x4000_0000 + 165, 0x7fff_ffff, u32::MAX] {
            assert_eq!(run(&program, NATIVE, number, [0; 6]).0, ENOSYS, "{number:#x}");
        }
    }
}

const NEWUSER: u64 = 0x1000_0000;
const HIGH: u64 = 0xffff_ffff_0000_0000;
const UNIX: u64 = 1;
const INET: u64 = 2;
const INET6: u64 = 10;
const NETLINK: u64 = 16;
const PACKET: u64 = 17;
const ALG: u64 = 38;
const VSOCK: u64 = 40;
const SMC: u64 = 43;
const STREAM: u64 = 1;
const DATAGRAM: u64 = 2;
const SEQPACKET: u64 = 5;
const DCCP: u64 = 6;
const CLOEXEC: u64 = 0o2_000_000;

/// Every argument rule: the call, its arguments, and whether it is denied without and with TCP rules.
const CASES: &[(libc::c_long, [u64; 4], bool, bool)] = &[
    (libc::SYS_clone, [0x11, 0, 0, 0], false, false),
    (libc::SYS_clone, [0x003d_0f00, 0, 0, 0], false, false),
    (libc::SYS_clone, [0x11 | NEWUSER, 0, 0, 0], true, true),
    (libc::SYS_clone, [0x11 | NEWUSER | HIGH, 0, 0, 0], true, true),
    (libc::SYS_clone, [0x0002_0000, 0, 0, 0], true, true),
    (libc::SYS_clone, [0x0200_0000, 0, 0, 0], true, true),
    (libc::SYS_clone, [0x4000_0000, 0, 0, 0], true, true),
    (libc::SYS_ioctl, [0, 0x5401, 0, 0], false, false),
    (libc::SYS_ioctl, [0, 0x5412, 0, 0], true, true),
    (libc::SYS_ioctl, [0, 0x5412 | HIGH, 0, 0], true, true),
    (libc::SYS_ioctl, [0, 0x541c, 0, 0], true, true),
    (libc::SYS_mknodat, [0, 0, 0o010_644, 0], false, false),
    (libc::SYS_mknodat, [0, 0, 0o100_644, 0], false, false),
    (libc::SYS_mknodat, [0, 0, 0o644, 0], false, false),
    (libc::SYS_mknodat, [0, 0, 0o140_644, 0], false, false),
    (libc::SYS_mknodat, [0, 0, 0o020_644, 0], true, true),
    (libc::SYS_mknodat, [0, 0, 0o060_644, 0], true, true),
    (libc::SYS_mknodat, [0, 0, 0o060_644 | 0xf_0000, 0], true, true),
    (libc::SYS_personality, [0, 0, 0, 0], false, false),
    (libc::SYS_personality, [0xffff_ffff, 0, 0, 0], false, false),
    (libc::SYS_personality, [u64::MAX, 0, 0, 0], false, false),
    (libc::SYS_personality, [0x0040_0000, 0, 0, 0], true, true),
    (libc::SYS_socket, [UNIX, SEQPACKET, 0, 0], false, false),
    (libc::SYS_socketpair, [UNIX, STREAM, 0, 0], false, false),
    (libc::SYS_socketpair, [VSOCK, STREAM, 0, 0], true, true),
    (libc::SYS_socket, [INET, STREAM | CLOEXEC, 0, 0], false, false),
    (libc::SYS_socket, [INET6, STREAM, 6, 0], false, false),
    (libc::SYS_socket, [INET, DATAGRAM, 17, 0], false, false),
    (libc::SYS_socket, [INET, DATAGRAM, 1, 0], false, false),
    (libc::SYS_socket, [NETLINK, 3, 0, 0], false, false),
    (libc::SYS_socket, [NETLINK, 3, 12, 0], true, true),
    (libc::SYS_socket, [PACKET, 3, 0, 0], true, true),
    (libc::SYS_socket, [ALG, SEQPACKET, 0, 0], true, true),
    (libc::SYS_socket, [VSOCK, STREAM, 0, 0], true, true),
    (libc::SYS_socket, [SMC, STREAM, 0, 0], true, true),
    (libc::SYS_socket, [INET, STREAM, 262, 0], false, true),
    (libc::SYS_socket, [INET6, STREAM | CLOEXEC, 262, 0], false, true),
    (libc::SYS_socket, [INET, STREAM, 132, 0], false, true),
    (libc::SYS_socket, [INET, STREAM, 256, 0], false, true),
    (libc::SYS_socket, [INET, DCCP, 33, 0], false, true),
    (libc::SYS_socket, [INET, SEQPACKET, 0, 0], false, true),
    (libc::SYS_socket, [INET6, DCCP | CLOEXEC, 0, 0], false, true),
    (libc::SYS_sendto, [3, 0, 0, 0x4000], false, false),
    (libc::SYS_sendto, [3, 0, 0, 0x2000_4000], false, true),
    (libc::SYS_sendmsg, [3, 0, 0x4000, 0x2000_0000], false, false),
    (libc::SYS_sendmsg, [3, 0, 0x2000_0000, 0], false, true),
    (libc::SYS_sendmmsg, [3, 0, 0x2000_0000, 0], false, false),
    (libc::SYS_sendmmsg, [3, 0, 1, 0x2000_0000], false, true),
];

#[test]
fn arguments_decide() {
    for (call, [a, b, c, d], open, restricted) in CASES {
        for (choices, denied) in [(OPEN, *open), (RESTRICTED, *restricted)] {
            let answer = answer_to(choices, *call, [*a, *b, *c, *d, 7, 7]);
            let expected = if denied { EPERM } else { ALLOW };
            assert_eq!(answer, expected, "call {call} ({a:#x}, {b:#x}, {c:#x}, {d:#x}), {choices:?}");
        }
    }
    #[cfg(target_arch = "x86_64")]
    for (mode, denied) in [(0o010_644, false), (0o020_644, true), (0o060_644, true)] {
        let expected = if denied { EPERM } else { ALLOW };
        assert_eq!(answer_to(OPEN, libc::SYS_mknod, [0, mode, 0, 0, 0, 0]), expected);
    }
}

/// The kernel's trial (`seccomp_is_const_allow`): is the answer known before any call, and after how many steps?
fn trial(program: &[u8], architecture: u32, number: u32) -> (bool, usize) {
    let lines = program.as_chunks::<8>().0;
    let (mut at, mut accumulator) = (0, 0_u32);
    for steps in 1..=lines.len() {
        let [a, b, yes, no, value @ ..] = lines[at];
        let value = u32::from_ne_bytes(value);
        at += 1;
        match (u16::from_ne_bytes([a, b]), value) {
            (LOAD, NUMBER_AT) => accumulator = number,
            (LOAD, ARCHITECTURE_AT) => accumulator = architecture,
            (IF_EQUAL, _) => at += usize::from(if accumulator == value { yes } else { no }),
            (IF_AT_LEAST, _) => at += usize::from(if accumulator >= value { yes } else { no }),
            (JUMP, _) => at += usize::try_from(value).expect("small"),
            (RETURN, _) => return (value == ALLOW, steps),
            _ => return (false, steps),
        }
    }
    panic!("no return");
}

#[test]
fn the_kernel_learns_of_the_usual_calls_and_is_quickly_done_with_the_others() {
    let program = baseline(OPEN).expect("right");
    for call in [libc::SYS_read, libc::SYS_write, libc::SYS_close, libc::SYS_fstat, libc::SYS_lseek] {
        let number = u32::try_from(call).expect("small");
        assert!(trial(&program, NATIVE, number).0, "{number}");
    }
    let trials = (0..KNOWN_NUMBERS).map(|number| trial(&program, NATIVE, number));
    let (known, steps) =
        trials.fold((0, 0), |(known, all), (allowed, steps)| (known + usize::from(allowed), all + steps));
    println!("{known} numbers known, {steps} steps");
    assert!((15..=EAGER.len()).contains(&known), "{known}");
    // Where the usual ones are not the first, the others lie on two sides of them.
    let most = if EAGER.start == 0 { 4 } else { 5 };
    assert!(steps <= most * usize::try_from(KNOWN_NUMBERS).expect("small"), "{steps} steps");
    assert!((0..KNOWN_NUMBERS).all(|number| !trial(&program, I386, number).0));
}

/// The price of a filter is its length and, for every number, its depth.
#[test]
fn the_program_is_short_and_shallow() {
    for choices in [OPEN, RESTRICTED] {
        let program = baseline(choices).expect("right");
        // Argument rules come on top, for their calls alone.
        let list = parse(BASELINE, choices).expect("right");
        let plain = (0..KNOWN_NUMBERS).filter(|number| !matches!(list.get(number), Some(Verdict::Unless(_))));
        let steps: Vec<usize> = plain.map(|number| run(&program, NATIVE, number, [0; 6]).1).collect();
        let (length, total) = (program.len() / 8, steps.iter().sum::<usize>());
        println!("{length} instructions, {total} steps for {} numbers", steps.len());
        assert!(length <= 135, "{length} instructions");
        assert!(total <= 14 * steps.len(), "{total} steps");
        assert!(steps.iter().all(|steps| *steps <= 16), "{steps:?}");
    }
}

#[test]
fn jumps_over_more_than_255_instructions_arrive() {
    let list: BTreeMap<u32, Verdict> =
        (0..1500).filter(|number| number % 2 == 1).map(|number| (number, Verdict::Answer(13))).collect();
    let program: Vec<u8> = compile(&list).expect("short enough");
    assert!(program.len() / 8 > 3 * 255);
    for number in 0..1600 {
        let expected = match number {
            1500.. => ENOSYS,
            _ if number % 2 == 1 => ERRNO | 13,
            _ => ALLOW,
        };
        assert_eq!(run(&program, NATIVE, number, [0; 6]).0, expected, "{number}");
    }
}

#[test]
fn a_program_that_the_kernel_would_not_take_is_an_error() {
    let list = (0..8400).step_by(2).map(|number| (number, Verdict::Answer(1))).collect();
    assert!(matches!(compile(&list), Err(Mistake::Long(_))));
}

#[test]
fn mistakes_in_a_list_have_their_line() {
    for (text, mistake) in [
        ("mount  why", Mistake::Line(1)),
        ("[EPERM]\nmount", Mistake::Line(2)),
        ("[EPERM]\nmuont  why", Mistake::Call(2, "muont".to_owned())),
        ("[EACCES]", Mistake::Section(1, "[EACCES]".to_owned())),
        ("[arguments]\n\nioctl  no-such  why", Mistake::Rule(3, "no-such".to_owned())),
        ("[arguments]\nioctl  terminal-input", Mistake::Line(2)),
        ("[EPERM]\nmount  why\nmount  why", Mistake::Twice(3, "mount".to_owned())),
        (
            "[EPERM]\nioctl  why\n[arguments]\nioctl  terminal-input why",
            Mistake::Twice(4, "ioctl".to_owned()),
        ),
    ] {
        assert_eq!(parse(text, OPEN), Err(mistake), "{text}");
    }
}

#[test]
fn the_list_is_sorted() {
    let mut last = "";
    for line in BASELINE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = if line.starts_with('[') { "" } else { line.split(' ').next().expect("a word") };
        assert!(name.is_empty() || last < name, "{last} before {name}");
        last = name;
    }
}
