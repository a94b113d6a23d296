//! What must not be lost: requests while workers are renewed, pools reloaded, and processes killed; and the neighbour's
//! peace.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as signal};
use nix::unistd::Pid;

use super::Options;
use super::host::{Host, until};
use super::load::{self, Run};
use super::numbers::{part, verdict};
use super::visitors::{self, Seen};

/// At least so many requests.
const RECYCLED: u64 = 100_000;
const RELOADED: u64 = 50_000;
const RELOADS: u32 = 20;

/// Workers that end after 500 requests each.
pub(crate) fn recycle(_: &mut Host, _: &Options) {
    println!("RENEWED WORKERS (64 connections, each worker ends after 500 requests)");
    let mut runs = Vec::new();
    for (what, port) in [("php-fpm", 8110), ("relay", 8111)] {
        let run = at_least(port, "/hello.php", 64, RECYCLED);
        println!(
            "  {what:8} {:8} answers, {} bad, p99 {:.1} ms, {:.0} a second",
            run.answers, run.bad, run.p99, run.rate
        );
        runs.push(run);
    }
    let ratio = runs[1].p99 / runs[0].p99;
    println!("  p99 {ratio:.2} of php-fpm's, target at most 2: {}\n", verdict(ratio, 2.0, true));
    assert_eq!(runs[1].bad, 0, "answers were lost");
}

/// Runs of ten seconds until there are so many answers; rates and p99 of the worst.
fn at_least(port: u16, path: &str, connections: u32, answers: u64) -> Run {
    let mut all = Run::default();
    while all.answers < answers {
        let run = load::run(port, path, connections, 10);
        all.answers += run.answers;
        all.bad += run.bad;
        all.p99 = all.p99.max(run.p99);
        all.rate = run.rate;
    }
    all
}

/// Twenty reloads while requests go on.
pub(crate) fn reload(host: &mut Host, _: &Options) {
    println!("RELOADS ({RELOADS} while 16 connections ask)");
    let mut done = 0;
    let mut all = Run::default();
    while all.answers < RELOADED || done < RELOADS {
        let mut going = load::begin(8102, "/hello.php", 16, 10);
        while !going.is_over() {
            thread::sleep(Duration::from_millis(450));
            host.daemon().send(Signal::SIGHUP);
            done += 1;
        }
        let run = going.end();
        all = Run { answers: all.answers + run.answers, bad: all.bad + run.bad, ..run };
    }
    println!("  {} answers during {done} reloads, {} bad\n", all.answers, all.bad);
    assert_eq!(all.bad, 0, "answers were lost");
}

/// The broker, then the supervisor, killed while requests are under way. Each request tells its number once.
pub(crate) fn kill(host: &mut Host, _: &Options) {
    println!("KILLED (SIGKILL with requests under way)");
    let told = "/var/lib/cellwall/private/200101/php/tmp/told";
    for victim in ["broker", "supervisor"] {
        drop(fs::remove_file(told));
        let asking: Vec<_> = (0..8).map(|client| thread::spawn(move || ask_for_a_while(client))).collect();
        thread::sleep(Duration::from_millis(700));
        let supervisor = host.daemon().pid();
        let struck = Instant::now();
        if victim == "broker" {
            let broker = load::processes(|one| one.parent == supervisor.as_raw() && one.broker);
            assert_eq!(broker.len(), 1, "one broker: {broker:?}");
            signal(Pid::from_raw(broker[0].pid), Signal::SIGKILL).unwrap();
        } else {
            host.murder_daemon();
            host.start_daemon();
        }
        until("an answer", || {
            load::ask(8102, "/hello.php").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        let back = struck.elapsed().as_secs_f64();
        let (mut good, mut lost) = (0, 0);
        for client in asking {
            let (answered, failed) = client.join().unwrap();
            good += answered;
            lost += failed;
        }
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for line in fs::read_to_string(told).unwrap_or_default().lines() {
            *times.entry(line.to_owned()).or_default() += 1;
        }
        let twice = times.values().filter(|count| **count > 1).count();
        println!(
            "  {victim:10} back after {back:.2} s (target 1: {}), {good} answers, {lost} lost with it, {twice} executed twice",
            verdict(back, 1.0, true)
        );
        assert_eq!(twice, 0, "a request was executed twice");
        let orphans = || load::processes(|one| one.uid == 200_101 && one.parent == 1);
        until("the end of orphans", || orphans().is_empty());
    }
    println!();
}

/// One request after another for two seconds, each with a number of its own.
fn ask_for_a_while(client: u32) -> (u32, u32) {
    let (mut good, mut lost) = (0, 0);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let path = format!("/once.php?{client}-{}", good + lost);
        match load::ask(8102, &path) {
            Some(answer) if answer.starts_with("HTTP/1.1 200") => good += 1,
            _ => {
                lost += 1;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    (good, lost)
}

/// One site in trouble; the other's p99. Calm and trouble take turns, some seconds each, and each second is one run: what disturbs
/// this machine for a moment, or for minutes, does both alike. The quartiles tell how far a run can be believed.
pub(crate) fn neighbour(_: &mut Host, options: &Options) {
    println!("THE NEIGHBOUR (a site with 4 visitors who ask without pause, while another one misbehaves)");
    for (what, path) in
        [("overloaded", "/spin.php"), ("forks", "/fork.php"), ("stderr", "/errors.php"), ("slow", "")]
    {
        if options.trouble.as_deref().is_some_and(|only| only != what) {
            continue;
        }
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            alone.extend(turn());
            let trouble = match path {
                "" => Trouble::Slow((0..200).filter_map(|_| half_a_request(8112)).collect()),
                path => Trouble::Load(load::begin(8112, path, 100, TURN + SETTLES + 2)),
            };
            beside.extend(turn());
            match trouble {
                Trouble::Load(going) => drop(going.end()),
                Trouble::Slow(held) => drop(held),
            }
            // What the other one left behind ends.
            thread::sleep(Duration::from_secs(6));
        }
        let middle = |runs: &[Seen], of: fn(&Seen) -> f64| part(runs.iter().map(of), 0.5);
        let rate = |runs: &[Seen]| middle(runs, |run| run.rate);
        println!("  {what:14} {:6.0} answers a second alone, {:.0} beside it", rate(&alone), rate(&beside));
        compare("p99", &alone, &beside, |run| run.p99);
        compare("p99 as wrk has it", &alone, &beside, |run| run.by_time);
        assert!(beside.iter().all(|run| run.bad == 0), "the neighbour lost answers");
    }
    println!();
}

/// One measure of both, in milliseconds: medians, and between which values half of the seconds lie.
fn compare(what: &str, alone: &[Seen], beside: &[Seen], of: fn(&Seen) -> f64) {
    let quartiles = |runs: &[Seen]| [0.25, 0.5, 0.75].map(|share| part(runs.iter().map(of), share));
    let ([low, calm, high], [least, troubled, most]) = (quartiles(alone), quartiles(beside));
    let ratio = troubled / calm;
    println!(
        "    {what:18} {calm:6.2} ms ({low:.2} to {high:.2}) alone; {troubled:6.2} ms ({least:.2} to {most:.2}) beside it: {ratio:.2}, target at most 1.20: {}",
        verdict(ratio, 1.2, true),
    );
}

/// Seconds before it counts: what the daemon does about trouble, it does when it has seen it for a second or two.
const SETTLES: u32 = 3;
/// Seconds of a turn that count, each a run of its own.
const TURN: u32 = 4;

fn turn() -> Vec<Seen> {
    let asking = |seconds: u32| visitors::ask(8102, "/hello.php", 4, Duration::from_secs(seconds.into()));
    asking(SETTLES);
    (0..TURN).map(|_| asking(1)).collect()
}

enum Trouble {
    Load(load::Going),
    Slow(Vec<TcpStream>),
}

fn half_a_request(port: u16) -> Option<TcpStream> {
    use std::io::Write as _;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"POST /hello.php HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc").ok()?;
    Some(stream)
}
