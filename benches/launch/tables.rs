//! The tables: what is measured, and how it is shown.

use std::hint::black_box;
use std::time::Instant;

use super::USAGE;
use super::host::{Host, OTHER, OURS, STOCK, Switch, Variant};
use super::meter::{self, Start};
use super::numbers::{Times, added, median, micros, part, verdict};
use super::payloads::{self, PERL, PHP, TINY};

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) sites: u32,
    pub(crate) seconds: u32,
    /// Runs on the benchmark's host instead of it.
    pub(crate) run: Option<String>,
    /// Another build of the launcher, measured beside this one.
    pub(crate) beside: Option<String>,
    only: Option<String>,
}

impl Options {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { rounds: 300, sites: 100_000, seconds: 2, run: None, beside: None, only: None };
        // cargo adds `--bench`.
        let mut words = words.filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u32>().map_err(|_| format!("{word} {value}: no number"));
            match word.as_str() {
                "--rounds" => options.rounds = usize::try_from(number()?.max(10)).unwrap_or(300),
                "--sites" => options.sites = number()?,
                "--seconds" => options.seconds = number()?.max(1),
                "--run" => options.run = Some(value),
                "--beside" => options.beside = Some(value),
                "--only" if USAGE.contains(&value) => options.only = Some(value),
                _ => return Err(format!("there is no option {word} {value}")),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, table: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == table)
    }
}

/// What the machine itself takes.
pub(crate) fn limits(host: &Host) {
    println!("THE MACHINE");
    if let Some(nanos) = cpuid() {
        println!(
            "  one cpuid instruction                 {:8.2}   (a glibc program executes 68 before main)",
            nanos / 1000.0
        );
    }
    let tiny = host.direct(Variant::Nothing, TINY);
    match meter::floor(&tiny, 500) {
        Ok(times) => println!("  the floor: vfork, exec, exit, wait    {:8.1}\n", median(micros(&times))),
        Err(why) => println!("  the floor was not measured: {why}\n"),
    }
}

/// Every program: directly, through stock, through ours with everything on.
pub(crate) fn launch(host: &Host, options: &Options, switch: Switch, target: f64) {
    println!(
        "LAUNCH, stock with `passwd: {}`; ours with everything on ({} rules for Landlock; php its profile's {})",
        switch.word(),
        host.rules(host.whole),
        host.rules(Variant::Php)
    );
    println!(
        "  {:18} {:>8} {:>8} {:>8} | added: {:>8} {:>8} {:>6}   10 %..90 % of ours",
        "program", "direct", "stock", "ours", "stock", "ours", "ratio"
    );
    for payload in payloads::ALL {
        let variant = if payload == PHP { Variant::Php } else { host.whole };
        let starts = [
            host.direct(variant, payload),
            host.through(STOCK, variant, payload),
            host.through(OURS, variant, payload),
        ];
        let rounds = options.rounds / payload.slowness;
        let [direct, stock, ours] = match measured(&starts, rounds) {
            Ok(times) => times,
            Err(why) => {
                println!("  {:18} not measured: {why}", payload.what);
                continue;
            }
        };
        let (theirs, own) = (added(&stock, &direct), added(&ours, &direct));
        let ratio = median(own.clone()) / median(theirs.clone());
        let remark = if matches!(payload, TINY | PERL) {
            format!("   target {target:.2}: {}", verdict(ratio, target, true))
        } else {
            String::new()
        };
        println!(
            "  {:18} {:8.0} {:8.0} {:8.0} |        {:8.0} {:8.0} {:6.2}   {:.0}..{:.0}{remark}",
            payload.what,
            median(micros(&direct)),
            median(micros(&stock)),
            median(micros(&ours)),
            median(theirs),
            median(own.clone()),
            ratio,
            part(own.clone(), 0.1),
            part(own, 0.9),
        );
    }
    println!();
}

/// Another build of the launcher beside this one, start by start.
pub(crate) fn beside(host: &Host, options: &Options, other: &str) {
    println!("BESIDE {other}");
    println!("  {:18} | added: {:>8} {:>8} {:>6}", "program", "other", "this", "ratio");
    for payload in [TINY, PERL] {
        let starts = [
            host.direct(host.whole, payload),
            host.through(OTHER, host.whole, payload),
            host.through(OURS, host.whole, payload),
        ];
        match measured(&starts, options.rounds) {
            Ok([direct, other, this]) => {
                let (other, this) = (median(added(&other, &direct)), median(added(&this, &direct)));
                println!("  {:18} |        {other:8.0} {this:8.0} {:6.3}", payload.what, this / other);
            }
            Err(why) => println!("  {:18} not measured: {why}", payload.what),
        }
    }
    println!();
}

/// Each protection by what a launch gains without it, and each kind of jail.
pub(crate) fn stages(host: &Host, options: &Options) {
    let rows: [(Variant, &str); 8] = [
        (Variant::HostJail, "host jail instead of a view"),
        (Variant::Chroot, "chroot jail instead of a view"),
        (Variant::NoLandlock, "without Landlock"),
        (Variant::NoSeccomp, "without seccomp"),
        (Variant::NoLimits, "without the site's limits"),
        (Variant::Nothing, "host jail without all of these"),
        (Variant::TcpRules, "with TCP rules too"),
        (Variant::ControlGroups, "with control groups too"),
    ];
    let mut starts = vec![
        host.direct(host.whole, TINY),
        host.exec_only(host.whole, TINY),
        host.through(OURS, host.whole, TINY),
    ];
    let mut shown = Vec::new();
    println!("STAGES (tiny; what everything costs, and what it costs otherwise)");
    for (variant, what) in rows {
        let start = host.through(OURS, variant, TINY);
        match meter::try_once(&start) {
            Ok(()) => {
                starts.push(start);
                shown.push(what);
            }
            Err(why) => println!("  {what:34} not measured: {why}"),
        }
    }
    let times = match measured_all(&starts, options.rounds) {
        Ok(times) => times,
        Err(why) => return println!("  not measured: {why}\n"),
    };
    let everything = added(&times[2], &times[0]);
    println!("  {:34} {:>8} {:>14}", "", "added", "of everything");
    let row = |what: &str, times_of: &Times, whole: bool| {
        let own = median(added(times_of, &times[0]));
        let share = median(added(times_of, &times[2]));
        let share = if whole { String::new() } else { format!("{share:+14.0}") };
        println!("  {what:34} {own:8.0} {share}");
    };
    row("a second exec and nothing else", &times[1], true);
    println!("  {:34} {:8.0}", "everything on", median(everything));
    for (what, one) in shown.iter().zip(&times[3..]) {
        row(what, one, false);
    }
    println!();
}

/// A small host and a large one, in turn.
pub(crate) fn sites(host: &Host, options: &Options) {
    println!("SITES AND ACCOUNTS ({} more; the launched ones stand last in passwd)", options.sites);
    let start = Instant::now();
    host.grow(options.sites);
    println!("  made and applied in {:.0} s", start.elapsed().as_secs_f64());
    let direct = || host.direct(host.whole, TINY);
    let ours = || host.through(OURS, host.whole, TINY);
    let beside = [direct(), host.through(STOCK, host.whole, TINY), ours()];
    // Stock reads megabytes of accounts, after which the processor's caches hold nothing else: no host has both.
    let alone = [direct(), ours()];
    let mut all: [[Times; 5]; 2] = Default::default();
    let blocks = 6;
    for block in 0..blocks {
        let large = block % 2;
        let rounds = (options.rounds / blocks * 2).max(10);
        let times = measured(&alone, rounds).and_then(|[direct, ours]| {
            let [first, stock, second] = measured(&beside, rounds)?;
            Ok([direct, ours, first, stock, second])
        });
        match times {
            Ok(times) => {
                for (kept, times) in all[large].iter_mut().zip(times) {
                    kept.extend(times);
                }
            }
            Err(why) => return println!("  not measured: {why}\n"),
        }
        let (from, to) = if large == 0 { ("small", "large") } else { ("large", "small") };
        host.exchange(from, to);
    }
    let cost =
        |size: usize, which: usize, direct: usize| median(added(&all[size][which], &all[size][direct]));
    for (which, direct, name) in [(3, 2, "stock"), (4, 2, "ours, each after one of stock"), (1, 0, "ours")] {
        let (small, large) = (cost(0, which, direct), cost(1, which, direct));
        let ratio = large / small;
        let remark = if which == 1 {
            format!("   target 1.10: {}", verdict(ratio, 1.10, true))
        } else {
            String::new()
        };
        println!("  {name:30} added {small:8.0} -> {large:8.0}   {ratio:6.2} times{remark}");
    }
    println!();
}

fn measured<const N: usize>(starts: &[Start; N], rounds: usize) -> Result<[Times; N], String> {
    let times = measured_all(starts, rounds)?;
    times.try_into().map_err(|_| "a program has no times".to_owned())
}

fn measured_all(starts: &[Start], rounds: usize) -> Result<Vec<Times>, String> {
    starts.iter().try_for_each(meter::try_once)?;
    meter::measure(starts, rounds)
}

/// Nanoseconds of one `cpuid`, which traps in every virtual machine.
#[cfg(target_arch = "x86_64")]
fn cpuid() -> Option<f64> {
    const TIMES: u32 = 2000;
    let start = Instant::now();
    for _ in 0..TIMES {
        black_box(std::arch::x86_64::__cpuid(black_box(0)));
    }
    Some(start.elapsed().as_nanos() as f64 / f64::from(TIMES))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpuid() -> Option<f64> {
    None
}
