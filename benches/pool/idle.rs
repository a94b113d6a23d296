//! Many sites that nobody asks: memory, start, reload, and CPU at rest; php-fpm beside it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Options;
use super::host::{self, Host, append, apply, fpm_program, make_directory, start, until};
use super::load;
use super::numbers::{median, verdict};

const FIRST: u32 = 300_001;
/// Of the busy site, with few sites and with many.
const SECONDS: u32 = 9;

/// Configured sites on demand.
pub(crate) fn idle(host: &mut Host, options: &Options) {
    println!("AT REST (sites with a pool on demand that nobody asks)");
    let before = busy();
    configure(options.sites);
    apply(&[]);
    let began = Instant::now();
    host.start_daemon();
    until("the last socket", || Path::new(&socket(options.sites - 1)).exists());
    let started = began.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs(2));
    let supervisor = host.daemon().pid().as_raw();
    let own = || load::processes(|one| one.pid == supervisor || one.parent == supervisor && one.uid == 990);
    let memory: u64 = own().iter().map(load::Process::pss).sum();
    let workers = load::processes(|one| one.uid >= FIRST && one.uid < FIRST + options.sites).len();
    let ticks = || own().iter().map(|one| one.ticks).sum::<u64>();
    let rest = ticks();
    thread::sleep(Duration::from_secs(5));
    let rest = ticks() - rest;
    let reloaded = reload(host, options.sites);
    let after = busy();
    let sites = options.sites;
    println!(
        "  {sites} sites, supervisor and broker: {:.1} MB, target 64: {}",
        memory as f64 / 1024.0,
        verdict(memory as f64 / 1024.0, 64.0, true)
    );
    println!("  {workers} workers; {rest} hundredths of a second of CPU in 5 s at rest");
    println!("  start {started:.2} s, target 2: {}", verdict(started, 2.0, true));
    println!("  reload of one changed site {reloaded:.2} s, target 1: {}", verdict(reloaded, 1.0, true));
    println!("  p99 of a busy site {before:.2} ms with 6 sites, {after:.2} ms with {sites}");
    for pools in [1000, 3000] {
        println!("  {}", fpm(pools));
    }
    println!();
}

/// The slowest of a hundred answers of a site, in milliseconds: the median of seconds, of which each has its own disturbances.
fn busy() -> f64 {
    let second = || load::run(8102, "/hello.php", 4, 1);
    second();
    median((0..SECONDS).map(|_| {
        let run = second();
        assert_eq!(run.bad, 0, "the busy site lost answers: {run:?}");
        run.p99
    }))
}

fn name(number: u32) -> String {
    format!("idle{number}")
}

fn socket(number: u32) -> String {
    format!("/run/cellwall/pool/{}.sock", name(number))
}

fn configure(sites: u32) {
    let (mut passwd, mut group) = (String::new(), String::new());
    for number in 0..sites {
        let (name, id) = (name(number), FIRST + number);
        writeln!(passwd, "{name}:x:{id}:{id}::/nonexistent:/bin/sh").unwrap();
        writeln!(group, "{name}:x:{id}:").unwrap();
        make_directory(format!("/srv/{name}"), id);
        fs::write(host::site_file(&name), text(&name, 4)).unwrap();
    }
    append("/etc/passwd", &passwd);
    append("/etc/group", &group);
}

fn text(name: &str, children: u32) -> String {
    format!(
        "user = \"{name}\"\ndocroot = \"/srv/{name}\"\nprofile = \"php\"\n[jail]\nkind = \"host\"\n[pool]\nkind = \"parent\"\n\
         command = \"/usr/bin/php-cgi\"\nchildren = {children}\n"
    )
}

/// One site gets another file, and one is new: until the new one's socket answers.
fn reload(host: &Host, sites: u32) -> f64 {
    fs::write(host::site_file(&name(0)), text(&name(0), 2)).unwrap();
    let fresh = name(sites);
    host::account(&fresh, FIRST + sites);
    make_directory(format!("/srv/{fresh}"), FIRST + sites);
    fs::write(host::site_file(&fresh), text(&fresh, 2)).unwrap();
    let began = Instant::now();
    apply(&[&name(0), &fresh]);
    host.daemon().send(Signal::SIGHUP);
    until("the new site's socket", || UnixStream::connect(socket(sites)).is_ok());
    began.elapsed().as_secs_f64()
}

fn fpm(pools: u32) -> String {
    let mut text = "[global]\nerror_log = /run/peers/many.log\ndaemonize = no\n".to_owned();
    for number in 0..pools {
        let name = name(number);
        write!(
            text,
            "[{name}]\nuser = {name}\ngroup = {name}\nlisten = /run/peers/{name}.sock\nlisten.owner = www-data\npm = ondemand\n\
             pm.max_children = 4\n"
        )
        .unwrap();
    }
    fs::write("/run/peers/many.conf", text).unwrap();
    drop(fs::remove_file("/run/peers/many.log"));
    let began = Instant::now();
    let limits =
        format!("ulimit -n 65536; exec {} --nodaemonize -y /run/peers/many.conf", fpm_program().display());
    let running = start(Command::new("/bin/sh").args(["-c", &limits]), "/run/peers/many.err");
    let ready = || fs::read_to_string("/run/peers/many.log").is_ok_and(|log| log.contains("ready to handle"));
    until("php-fpm", ready);
    let started = began.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs(1));
    let pid = running.pid().as_raw();
    let memory: u64 = load::processes(|one| one.pid == pid).iter().map(load::Process::pss).sum();
    format!("php-fpm with {pools} pools beside it: {:.1} MB, start {started:.2} s", memory as f64 / 1024.0)
}
