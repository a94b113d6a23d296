//! The seccomp list: from `policy/seccomp.baseline` to a program for the kernel's filter machine.
//!
//! Pure. The kernel runs a new filter once for every system call number to learn which calls it always allows, so a
//! filter's price is its depth and, as it is translated each time, its length: a list of comparisons costs 70–600 µs at
//! each launch; the cheapest tree by both takes four fifths of a balanced one's time (73 to 91 µs where a filter of one
//! instruction takes 21). What the kernel has learnt saves 25 ns of each call. A launch pays for hundreds of numbers
//! that its program never calls, so the kernel is let to learn of those alone that all programs call most
//! (`EAGER`): a fifth off (35 to 28 µs, without a launch's cold caches). The answers are the same.
//! May not: load anything, or know a site.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::syscalls::{self, Known};

/// What about a site changes its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choices {
    /// The site's TCP ports are restricted: the ways around Landlock's rules are closed too.
    pub tcp_rules: bool,
}

/// Why a list is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// A line outside of any section, with a missing word, or without a reason.
    Line(usize),
    /// A system call that no supported architecture has.
    Call(usize, String),
    /// An argument rule that does not exist.
    Rule(usize, String),
    /// A section that does not exist.
    Section(usize, String),
    /// A call in two sections that exclude each other.
    Twice(usize, String),
    /// More instructions than the kernel takes.
    Long(usize),
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, "line {line}: expected a name and a reason"),
            Self::Call(line, name) => write!(out, "line {line}: `{name}` is no system call"),
            Self::Rule(line, name) => write!(out, "line {line}: `{name}` is no argument rule"),
            Self::Section(line, name) => write!(out, "line {line}: `{name}` is no section"),
            Self::Twice(line, name) => write!(out, "line {line}: `{name}` was denied before"),
            Self::Long(length) => {
                write!(out, "{length} instructions are more than the kernel takes ({MOST_INSTRUCTIONS})")
            }
        }
    }
}

impl std::error::Error for Mistake {}

/// The shipped list's program: `struct sock_filter`s in the machine's byte order.
///
/// # Errors
/// When the list that is compiled in is wrong, which the tests exclude.
pub fn baseline(choices: Choices) -> Result<Vec<u8>, Mistake> {
    let program = compile(&parse(BASELINE, choices)?)?;
    Ok(program.iter().flat_map(Instruction::bytes).collect())
}

/// [`baseline`], compiled once for all sites of a run.
///
/// # Errors
/// As [`baseline`].
pub fn shared(choices: Choices) -> Result<Arc<[u8]>, Mistake> {
    static PLAIN: OnceLock<Result<Arc<[u8]>, Mistake>> = OnceLock::new();
    static WITH_TCP_RULES: OnceLock<Result<Arc<[u8]>, Mistake>> = OnceLock::new();
    let program = if choices.tcp_rules { &WITH_TCP_RULES } else { &PLAIN };
    program.get_or_init(|| baseline(choices).map(Arc::from)).clone()
}

/// The list, as text.
pub const BASELINE: &str = include_str!("../../policy/seccomp.baseline");

/// What becomes of one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Allow,
    Answer(i32),
    /// Allowed unless one of the clauses is true.
    Unless(Vec<Clause>),
}

/// True when all its conditions are; then the call is answered with EPERM.
type Clause = &'static [Condition];

/// `(argument & mask)` is one of the values, or is none of them. The kernel looks at 32 bits of all arguments that
/// appear here; a filter that compares 64 is walked around with the upper half (CVE-2019-10063).
#[derive(Debug, PartialEq, Eq)]
struct Condition {
    argument: u32,
    mask: u32,
    values: &'static [u32],
    is_one: bool,
}

fn parse(text: &str, choices: Choices) -> Result<BTreeMap<u32, Verdict>, Mistake> {
    let mut list = BTreeMap::new();
    let mut section = Section::None;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            section = Section::named(line).ok_or_else(|| Mistake::Section(number, line.to_owned()))?;
            continue;
        }
        let (name, rest) = line.split_once(' ').ok_or(Mistake::Line(number))?;
        let call = syscalls::find(name).ok_or_else(|| Mistake::Call(number, name.to_owned()))?;
        let verdict = section.verdict(rest.trim(), number)?;
        let Known::Number(call) = call else { continue };
        if section == Section::ArgumentsWithTcpRules && !choices.tcp_rules {
            continue;
        }
        match (list.get_mut(&call), verdict) {
            (None, verdict) => drop(list.insert(call, verdict)),
            (Some(Verdict::Unless(clauses)), Verdict::Unless(more)) => clauses.extend(more),
            (Some(_), _) => return Err(Mistake::Twice(number, name.to_owned())),
        }
    }
    Ok(list)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    None,
    Answer(i32),
    Arguments,
    ArgumentsWithTcpRules,
}

impl Section {
    fn named(line: &str) -> Option<Self> {
        match line {
            "[EPERM]" => Some(Self::Answer(libc::EPERM)),
            "[ENOSYS]" => Some(Self::Answer(libc::ENOSYS)),
            "[arguments]" => Some(Self::Arguments),
            "[arguments with tcp rules]" => Some(Self::ArgumentsWithTcpRules),
            _ => None,
        }
    }

    /// Reads what stands behind the name: a reason, or a rule and a reason.
    fn verdict(self, rest: &str, line: usize) -> Result<Verdict, Mistake> {
        match self {
            Self::None => Err(Mistake::Line(line)),
            Self::Answer(_) if rest.is_empty() => Err(Mistake::Line(line)),
            Self::Answer(errno) => Ok(Verdict::Answer(errno)),
            Self::Arguments | Self::ArgumentsWithTcpRules => {
                let (rule, reason) = rest.split_once(' ').ok_or(Mistake::Line(line))?;
                let found = RULES.iter().find(|(name, _)| *name == rule);
                match found {
                    Some((_, clauses)) if !reason.trim().is_empty() => Ok(Verdict::Unless(clauses.to_vec())),
                    Some(_) => Err(Mistake::Line(line)),
                    None => Err(Mistake::Rule(line, rule.to_owned())),
                }
            }
        }
    }
}

/// The argument rules by name: the call is denied when one of the clauses is true.
const RULES: &[(&str, &[Clause])] = &[
    ("new-namespaces", &[&[not_one_of(0, NEW_NAMESPACES, &[0])]]),
    // TIOCSTI and TIOCLINUX.
    ("terminal-input", &[&[one_of(1, ALL, &[0x5412, 0x541c])]]),
    ("device-by-second", &[&[one_of(1, FILE_TYPE, DEVICES)]]),
    ("device-by-third", &[&[one_of(2, FILE_TYPE, DEVICES)]]),
    // 0xffffffff asks; 0 is what every program has.
    ("no-change", &[&[not_one_of(0, ALL, &[0, 0xffff_ffff])]]),
    (
        "plain-families",
        &[
            // AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.
            &[not_one_of(0, ALL, &[1, 2, 10, 16])],
            // getaddrinfo and getifaddrs ask for addresses: NETLINK_ROUTE.
            &[one_of(0, ALL, &[16]), not_one_of(2, ALL, &[0])],
        ],
    ),
    (
        "known-transports",
        &[
            // The default, TCP, UDP, ICMP, ICMPv6 and UDP-Lite; so neither 33 (DCCP), 132 (SCTP), 256 (SMC) nor 262 (MPTCP).
            &[INTERNET, not_one_of(2, ALL, &[0, 6, 17, 1, 58, 136])],
            // With protocol 0, SOCK_SEQPACKET is SCTP and SOCK_DCCP is DCCP. Stream, datagram and raw remain.
            &[INTERNET, not_one_of(1, SOCKET_TYPE, &[1, 2, 3])],
        ],
    ),
    ("fast-open-third", &[&[not_one_of(2, FAST_OPEN, &[0])]]),
    ("fast-open-fourth", &[&[not_one_of(3, FAST_OPEN, &[0])]]),
];

const ALL: u32 = u32::MAX;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. CLONE_NEWTIME is no flag of clone(2).
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// S_IFMT. The kernel cuts the mode to 16 bits.
const FILE_TYPE: u32 = 0xf000;
/// S_IFCHR and S_IFBLK.
const DEVICES: &[u32] = &[0x2000, 0x6000];
/// SOCK_TYPE_MASK.
const SOCKET_TYPE: u32 = 0xf;
/// MSG_FASTOPEN.
const FAST_OPEN: u32 = 0x2000_0000;
const INTERNET: Condition = one_of(0, ALL, &[2, 10]);

const fn one_of(argument: u32, mask: u32, values: &'static [u32]) -> Condition {
    Condition { argument, mask, values, is_one: true }
}

const fn not_one_of(argument: u32, mask: u32, values: &'static [u32]) -> Condition {
    Condition { argument, mask, values, is_one: false }
}

/// One `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

impl Instruction {
    const fn plain(code: u16, value: u32) -> Self {
        Self { code, if_true: 0, if_false: 0, value }
    }

    fn bytes(&self) -> [u8; 8] {
        let [a, b] = self.code.to_ne_bytes();
        let [e, f, g, h] = self.value.to_ne_bytes();
        [a, b, self.if_true, self.if_false, e, f, g, h]
    }
}

// linux/bpf_common.h, as sums of class, size, mode and operation.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const OR: u16 = 0x44;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

// linux/seccomp.h
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;
/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
/// BPF_MAXINSNS.
const MOST_INSTRUCTIONS: usize = 4096;

/// The calls that the kernel is to know beforehand: read, write, open, close, stat, poll, lseek, mmap, brk, signals.
#[cfg(target_arch = "x86_64")]
const EAGER: Range<u32> = 0..22;
/// openat, close, getdents64, lseek, read, write and their kin, ppoll, newfstatat, fstat.
#[cfg(target_arch = "aarch64")]
const EAGER: Range<u32> = 56..81;

/// AUDIT_ARCH_X86_64.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_003e;
/// The first number of the x32 interface, which shares the architecture word and has all calls a second time.
#[cfg(target_arch = "x86_64")]
const FOREIGN_FROM: Option<u32> = Some(0x4000_0000);

/// AUDIT_ARCH_AARCH64.
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "aarch64")]
const FOREIGN_FROM: Option<u32> = None;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "src/config/seccomp.rs and syscalls.rs know the numbers of x86_64 and aarch64 only: add yours"
);

fn compile(list: &BTreeMap<u32, Verdict>) -> Result<Vec<Instruction>, Mistake> {
    let mut assembly = Assembly::default();
    let calls = assembly.calls(&intervals(list))?;
    assembly.before(calls, Instruction::plain(LOAD, NUMBER_AT))?;
    if assembly.backwards.len() > MOST_INSTRUCTIONS {
        return Err(Mistake::Long(assembly.backwards.len()));
    }
    Ok(assembly.backwards.into_iter().rev().collect())
}

/// From this number on, to the next interval's, this is the verdict.
struct Interval {
    from: u32,
    next: u32,
    verdict: Verdict,
}

impl Interval {
    fn is_one_number(&self) -> bool {
        self.next - self.from == 1
    }
}

/// All numbers from 0 on, neighbours with the same verdict joined.
fn intervals(list: &BTreeMap<u32, Verdict>) -> Vec<Interval> {
    let mut all = vec![Interval { from: 0, next: u32::MAX, verdict: Verdict::Allow }];
    let mut push = |from: u32, verdict: Verdict| match all.last_mut() {
        Some(last) if last.verdict == verdict => {}
        Some(last) if last.from == from => last.verdict = verdict,
        last => {
            if let Some(last) = last {
                last.next = from;
            }
            all.push(Interval { from, next: u32::MAX, verdict });
        }
    };
    for (number, verdict) in list {
        push(*number, verdict.clone());
        if !list.contains_key(&(number.saturating_add(1))) {
            push(number.saturating_add(1), Verdict::Allow);
        }
    }
    if let Some(from) = FOREIGN_FROM {
        push(from, Verdict::Answer(libc::ENOSYS));
    }
    all
}

/// Those below a number, and those from it on; an interval that has both becomes two.
fn split_at(intervals: &[Interval], number: u32) -> [Vec<Interval>; 2] {
    let cut = |from: u32, next: u32| {
        let parts = intervals.iter().map(|one| (one.from.max(from), one.next.min(next), &one.verdict));
        let parts = parts.filter(|(from, next, _)| from < next);
        parts.map(|(from, next, verdict)| Interval { from, next, verdict: verdict.clone() }).collect()
    };
    [cut(0, number), cut(number, u32::MAX)]
}

/// What each part of the intervals becomes: the cheapest of all trees.
///
/// The kernel translates every instruction, and runs the program once for every number it has. So the price of a part is
/// that of its instructions and, for each number in it, of the steps to its verdict. Optimal alphabetic trees in Knuth's
/// way (The Art of Computer Programming, volume 3, section 6.2.2), with one more kind of leaf: a run.
#[derive(Debug)]
struct Shape {
    /// By the length of a part, then its first interval: price and kind.
    parts: Vec<Vec<Option<(u32, Part)>>>,
}

/// What a part of the intervals becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// One verdict for all but single numbers, which are compared one after the other.
    Run,
    /// Two parts; the first one has so many intervals.
    Split(usize),
}

impl Shape {
    fn cheapest(intervals: &[Interval]) -> Self {
        let mut shape = Self { parts: Vec::new() };
        for length in 1..=intervals.len() {
            let cheapest = |(first, part)| {
                let run = price_of_run(part).map(|price| (price, Part::Run));
                let splits = (1..length).filter_map(|below| {
                    let above = shape.of(first + below, length - below)?.0;
                    let price = shape.of(first, below)?.0.saturating_add(above);
                    Some((price.saturating_add(INSTRUCTION + numbers(part)), Part::Split(below)))
                });
                run.into_iter().chain(splits).min_by_key(|(price, _)| *price)
            };
            let parts = intervals.windows(length).enumerate().map(cheapest).collect();
            shape.parts.push(parts);
        }
        shape
    }

    fn of(&self, first: usize, length: usize) -> Option<(u32, Part)> {
        *self.parts.get(length.checked_sub(1)?)?.get(first)?
    }
}

/// The price of an instruction, in steps of the kernel's first run through the program (measured: 0.2 to 0.3 µs, and 5 ns).
const INSTRUCTION: u32 = 50;
/// About as many numbers as the kernel has (NR_syscalls); those above have no price.
const KNOWN_NUMBERS: u32 = 480;
/// The work grows with the third power: a longer list is halved first.
const MOST_AT_ONCE: usize = 128;

/// How many of the kernel's numbers a part has.
fn numbers(part: &[Interval]) -> u32 {
    let (first, last) = (part.first(), part.last());
    let end = last.map_or(0, |last| last.next.min(KNOWN_NUMBERS));
    end.saturating_sub(first.map_or(0, |first| first.from))
}

/// None: it is no run.
fn price_of_run(part: &[Interval]) -> Option<u32> {
    let usual = usual(part)?;
    let exceptions = part.iter().filter(|one| one.verdict != *usual).count();
    Some(u32::try_from(exceptions).ok()?.saturating_mul(INSTRUCTION + numbers(part)))
}

/// The verdict of all intervals of a run that are more than one number; of a run without such, the last one's.
fn usual(part: &[Interval]) -> Option<&Verdict> {
    let mut wide = part.iter().filter(|one| !one.is_one_number());
    let usual = &wide.next().or(part.last())?.verdict;
    wide.all(|one| one.verdict == *usual).then_some(usual)
}

/// A program under construction, its end first: jumps go forward only, so what they go to is there already.
///
/// The kernel translates each instruction at each launch, so all ways out share their returns.
#[derive(Debug, Default)]
struct Assembly {
    backwards: Vec<Instruction>,
    /// The return that was written last, by its value.
    returns: BTreeMap<u32, Place>,
    /// Argument rules that were written.
    rules: Vec<(Vec<Clause>, Place)>,
}

/// An instruction, counted from the program's end.
type Place = usize;

impl Assembly {
    /// The number is in the accumulator; every way through ends with a return.
    fn calls(&mut self, intervals: &[Interval]) -> Result<Place, Mistake> {
        let [below, rest] = split_at(intervals, EAGER.start);
        let [eager, above] = split_at(&rest, EAGER.end);
        let (above, eager) = (self.lazy(&above)?, self.native(&eager)?);
        let place = self.branch(IF_AT_LEAST, EAGER.end, above, eager)?;
        if below.is_empty() {
            return Ok(place);
        }
        let below = self.lazy(&below)?;
        self.branch(IF_AT_LEAST, EAGER.start, place, below)
    }

    /// Of these numbers the kernel learns nothing beforehand: it gives up at an instruction that its trial
    /// (`seccomp_is_const_allow`, kernel/seccomp.c) does not know. This one changes nothing.
    fn lazy(&mut self, intervals: &[Interval]) -> Result<Place, Mistake> {
        let native = self.native(intervals)?;
        self.before(native, Instruction::plain(OR, 0))
    }

    /// The architecture is looked at on every way, behind the number: so two steps of each trial are saved.
    fn native(&mut self, intervals: &[Interval]) -> Result<Place, Mistake> {
        let tree = self.tree(intervals)?;
        let native = self.before(tree, Instruction::plain(LOAD, NUMBER_AT))?;
        let foreign = self.leave(RETURN_KILL_PROCESS)?;
        let check = self.branch(IF_EQUAL, ARCHITECTURE, native, foreign)?;
        self.before(check, Instruction::plain(LOAD, ARCHITECTURE_AT))
    }

    fn tree(&mut self, intervals: &[Interval]) -> Result<Place, Mistake> {
        let (below, above) = intervals.split_at(intervals.len() / 2);
        match above {
            [middle, ..] if intervals.len() > MOST_AT_ONCE => {
                let (above, below) = (self.tree(above)?, self.tree(below)?);
                self.branch(IF_AT_LEAST, middle.from, above, below)
            }
            _ => self.part(intervals, &Shape::cheapest(intervals), 0),
        }
    }

    /// A part of the shape: these intervals, the first of which is the shape's interval number `first`.
    fn part(&mut self, part: &[Interval], shape: &Shape, first: usize) -> Result<Place, Mistake> {
        let Some((_, Part::Split(middle))) = shape.of(first, part.len()) else { return self.run(part) };
        let (below, above) = part.split_at(middle);
        let from = above.first().map_or(0, |middle| middle.from);
        let (above, below) = (self.part(above, shape, first + middle)?, self.part(below, shape, first)?);
        self.branch(IF_AT_LEAST, from, above, below)
    }

    fn run(&mut self, part: &[Interval]) -> Result<Place, Mistake> {
        let usual = usual(part).unwrap_or(&Verdict::Allow);
        let mut next = self.verdict(usual)?;
        for one in part.iter().rev().filter(|one| one.verdict != *usual) {
            let verdict = self.verdict(&one.verdict)?;
            next = self.branch(IF_EQUAL, one.from, verdict, next)?;
        }
        Ok(next)
    }

    fn verdict(&mut self, verdict: &Verdict) -> Result<Place, Mistake> {
        match verdict {
            Verdict::Allow => self.leave(RETURN_ALLOW),
            Verdict::Answer(errno) => self.leave(answer(*errno)),
            Verdict::Unless(clauses) => self.clauses(clauses),
        }
    }

    /// Two calls with the same rules (socket and socketpair) have them once.
    fn clauses(&mut self, clauses: &[Clause]) -> Result<Place, Mistake> {
        if let Some((_, place)) = self.rules.iter().rev().find(|(known, _)| known == clauses)
            && self.distance(*place)? < FAR
        {
            return Ok(*place);
        }
        let mut next = self.leave(RETURN_ALLOW)?;
        for clause in clauses.iter().rev() {
            next = self.denial(clause, next)?;
        }
        self.rules.push((clauses.to_vec(), next));
        Ok(next)
    }

    /// Returns EPERM when the clause is true, and goes to `otherwise` when not.
    fn denial(&mut self, clause: &[Condition], otherwise: Place) -> Result<Place, Mistake> {
        let mut when_true = self.leave(answer(libc::EPERM))?;
        for condition in clause.iter().rev() {
            let (found, missed) =
                if condition.is_one { (when_true, otherwise) } else { (otherwise, when_true) };
            let mut first = missed;
            for value in condition.values.iter().rev() {
                first = self.branch(IF_EQUAL, *value, found, first)?;
            }
            if condition.mask != ALL {
                first = self.before(first, Instruction::plain(AND, condition.mask))?;
            }
            let load = Instruction::plain(LOAD, ARGUMENTS_AT + 8 * condition.argument);
            when_true = self.before(first, load)?;
        }
        Ok(when_true)
    }

    /// A return within reach of the next instruction.
    fn leave(&mut self, value: u32) -> Result<Place, Mistake> {
        match self.returns.get(&value) {
            Some(place) if self.distance(*place)? < FAR => Ok(*place),
            _ => {
                let place = self.push(Instruction::plain(RETURN, value));
                self.returns.insert(value, place);
                Ok(place)
            }
        }
    }

    fn branch(&mut self, code: u16, value: u32, yes: Place, no: Place) -> Result<Place, Mistake> {
        let (yes, no) = (self.within_reach(yes)?, self.within_reach(no)?);
        let reach = |distance: u32| u8::try_from(distance).map_err(|_| Mistake::Long(self.backwards.len()));
        let (if_true, if_false) = (reach(self.distance(yes)?)?, reach(self.distance(no)?)?);
        Ok(self.push(Instruction { code, if_true, if_false, value }))
    }

    /// An instruction that goes on to `next`.
    fn before(&mut self, next: Place, instruction: Instruction) -> Result<Place, Mistake> {
        if self.distance(next)? != 0 {
            self.jump(next)?;
        }
        Ok(self.push(instruction))
    }

    /// Conditional jumps reach 255 instructions far, the plain one any number.
    fn within_reach(&mut self, place: Place) -> Result<Place, Mistake> {
        if self.distance(place)? < FAR { Ok(place) } else { self.jump(place) }
    }

    fn jump(&mut self, place: Place) -> Result<Place, Mistake> {
        let distance = self.distance(place)?;
        Ok(self.push(Instruction::plain(JUMP, distance)))
    }

    /// How many instructions lie between the next one and `place`.
    fn distance(&self, place: Place) -> Result<u32, Mistake> {
        let between = self.backwards.len().checked_sub(place + 1);
        between.and_then(|count| u32::try_from(count).ok()).ok_or(Mistake::Long(place))
    }

    fn push(&mut self, instruction: Instruction) -> Place {
        self.backwards.push(instruction);
        self.backwards.len() - 1
    }
}

fn answer(errno: i32) -> u32 {
    RETURN_ERRNO | errno.unsigned_abs()
}

/// From this distance on a jump gets help; a few instructions may still come between.
const FAR: u32 = 240;

#[cfg(test)]
mod tests {
    use super::*;

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
    const EPERM: u32 = RETURN_ERRNO | 1;
    const ENOSYS: u32 = RETURN_ERRNO | 38;

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
                let expected = if socket { EPERM } else { RETURN_ALLOW };
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
                let foreign = FOREIGN_FROM.is_some_and(|from| *number >= from);
                let socket = [libc::SYS_socket, libc::SYS_socketpair].contains(&i64::from(*number));
                let expected = match listed.get(number) {
                    Some(answer) => *answer,
                    None if foreign => ENOSYS,
                    None if socket => EPERM,
                    None => RETURN_ALLOW,
                };
                assert_eq!(run(&program, NATIVE, *number, [0; 6]).0, expected, "{number:#x}");
                for architecture in edges.iter().chain(&[I386]).filter(|one| **one != NATIVE) {
                    let answer = run(&program, *architecture, *number, [0; 6]).0;
                    assert_eq!(answer, RETURN_KILL_PROCESS, "{architecture:#x} {number:#x}");
                }
            }
        }
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
            assert_eq!(answer_to(RESTRICTED, number, [u64::MAX; 6]), RETURN_ALLOW, "{number}");
        }
    }

    #[test]
    fn foreign_architectures_die_and_x32_does_not_exist() {
        let program = baseline(OPEN).expect("right");
        for number in [0, 1, 59, 165, 400] {
            assert_eq!(run(&program, I386, number, [0; 6]).0, RETURN_KILL_PROCESS);
            assert_eq!(run(&program, 0x4000_0028, number, [0; 6]).0, RETURN_KILL_PROCESS);
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
                let expected = if denied { EPERM } else { RETURN_ALLOW };
                assert_eq!(answer, expected, "call {call} ({a:#x}, {b:#x}, {c:#x}, {d:#x}), {choices:?}");
            }
        }
        #[cfg(target_arch = "x86_64")]
        for (mode, denied) in [(0o010_644, false), (0o020_644, true), (0o060_644, true)] {
            let expected = if denied { EPERM } else { RETURN_ALLOW };
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
                (RETURN, _) => return (value == RETURN_ALLOW, steps),
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
        assert!(steps <= 4 * usize::try_from(KNOWN_NUMBERS).expect("small"), "{steps} steps");
        assert!((0..KNOWN_NUMBERS).all(|number| !trial(&program, I386, number).0));
    }

    /// The price of a filter is its length and, for every number, its depth.
    #[test]
    fn the_program_is_short_and_shallow() {
        for choices in [OPEN, RESTRICTED] {
            let program = baseline(choices).expect("right");
            // Argument rules come on top, for their calls alone.
            let list = parse(BASELINE, choices).expect("right");
            let plain =
                (0..KNOWN_NUMBERS).filter(|number| !matches!(list.get(number), Some(Verdict::Unless(_))));
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
        let program: Vec<u8> =
            compile(&list).expect("short enough").iter().flat_map(Instruction::bytes).collect();
        assert!(program.len() / 8 > 3 * 255);
        for number in 0..1600 {
            let expected = if number < 1500 && number % 2 == 1 { RETURN_ERRNO | 13 } else { RETURN_ALLOW };
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
}
