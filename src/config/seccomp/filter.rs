//! What becomes of each system call, as a program for the kernel's filter machine.
//!
//! The kernel runs a new filter once for every system call number to learn which calls it always allows, so a
//! filter's price is its depth and, as it is translated each time, its length: a list of comparisons costs 70–600 µs at
//! each launch; the cheapest tree by both takes four fifths of a balanced one's time (73 to 91 µs where a filter of one
//! instruction takes 21). What the kernel has learnt saves 25 ns of each call. A launch pays for hundreds of numbers
//! that its program never calls, so the kernel is let to learn of those alone that all programs call most
//! (`EAGER`): a fifth off (35 to 28 µs, without a launch's cold caches). The answers are the same.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::syscalls::YOUNGEST;
use crate::sys::filter::{
    self, ALLOW, ARCHITECTURE, ARCHITECTURE_AT, ERRNO, IF_AT_LEAST, IF_EQUAL, Instruction, JUMP, KILL,
    NUMBER_AT, OR,
};

use super::{ALL, Clause, Condition, Mistake, Verdict};

/// The program for these verdicts: `struct sock_filter`s in the machine's byte order.
pub(super) fn compile(list: &BTreeMap<u32, Verdict>) -> Result<Vec<u8>, Mistake> {
    let mut assembly = Assembly::default();
    let calls = assembly.calls(&intervals(list))?;
    assembly.before(calls, filter::load(NUMBER_AT))?;
    if assembly.backwards.len() > MOST_INSTRUCTIONS {
        return Err(Mistake::Long(assembly.backwards.len()));
    }
    Ok(filter::bytes(assembly.backwards.iter().rev()))
}

/// The offset of the arguments' lower halves in `struct seccomp_data`.
pub(super) const ARGUMENTS_AT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
/// BPF_MAXINSNS.
pub(super) const MOST_INSTRUCTIONS: usize = 4096;

/// The calls that the kernel is to know beforehand: read, write, open, close, stat, poll, lseek, mmap, brk, signals.
#[cfg(target_arch = "x86_64")]
pub(super) const EAGER: Range<u32> = 0..22;
/// openat, close, getdents64, lseek, read, write and their kin, ppoll, newfstatat, fstat.
#[cfg(target_arch = "aarch64")]
pub(super) const EAGER: Range<u32> = 56..81;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "src/config/seccomp/filter.rs and syscalls.rs know the numbers of x86_64 and aarch64 only: add yours"
);

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

/// All numbers from 0 on, neighbours with the same verdict joined. Those that nobody has judged do not exist; nor does the x32
/// interface, which shares the architecture word and has all calls a second time, from 0x40000000 on.
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
    let last = list.keys().next_back().copied().unwrap_or_default().max(YOUNGEST);
    push(last.saturating_add(1), Verdict::Answer(libc::ENOSYS));
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
pub(super) const KNOWN_NUMBERS: u32 = 480;
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
        self.before(native, filter::plain(OR, 0))
    }

    /// The architecture is looked at on every way, behind the number: so two steps of each trial are saved.
    fn native(&mut self, intervals: &[Interval]) -> Result<Place, Mistake> {
        let tree = self.tree(intervals)?;
        let native = self.before(tree, filter::load(NUMBER_AT))?;
        let foreign = self.leave(KILL)?;
        let check = self.branch(IF_EQUAL, ARCHITECTURE, native, foreign)?;
        self.before(check, filter::load(ARCHITECTURE_AT))
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
            Verdict::Allow => self.leave(ALLOW),
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
        let mut next = self.leave(ALLOW)?;
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
                first = self.before(first, filter::and(condition.mask))?;
            }
            let load = filter::load(ARGUMENTS_AT + 8 * condition.argument);
            when_true = self.before(first, load)?;
        }
        Ok(when_true)
    }

    /// A return within reach of the next instruction.
    fn leave(&mut self, value: u32) -> Result<Place, Mistake> {
        match self.returns.get(&value) {
            Some(place) if self.distance(*place)? < FAR => Ok(*place),
            _ => {
                let place = self.push(filter::end(value));
                self.returns.insert(value, place);
                Ok(place)
            }
        }
    }

    fn branch(&mut self, code: u16, value: u32, yes: Place, no: Place) -> Result<Place, Mistake> {
        let (yes, no) = (self.within_reach(yes)?, self.within_reach(no)?);
        let reach = |distance: u32| u8::try_from(distance).map_err(|_| Mistake::Long(self.backwards.len()));
        let (jt, jf) = (reach(self.distance(yes)?)?, reach(self.distance(no)?)?);
        Ok(self.push(Instruction { code, jt, jf, k: value }))
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
        Ok(self.push(filter::plain(JUMP, distance)))
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
    ERRNO | errno.unsigned_abs()
}

/// From this distance on a jump gets help; a few instructions may still come between.
const FAR: u32 = 240;
