//! What a launch costs, beside Apache's suEXEC in the same run: `cargo xtask bench launch`.
//!
//! The measure is *added time*: a program started through the wrapper, less the same program started directly, pair by
//! pair, by a process of the web server's user, until its output ends and it is waited for. Starts are interleaved and
//! change places in each round, so that what disturbs the machine disturbs all alike. Nothing here fails on a time:
//! the table has the targets beside what was measured.
#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unsafe_code,
    reason = "a benchmark ends by panicking when it cannot measure"
)]

#[path = "launch/host.rs"]
mod host;
#[path = "launch/meter.rs"]
mod meter;
#[path = "launch/numbers.rs"]
mod numbers;
#[path = "launch/payloads.rs"]
mod payloads;
#[path = "launch/tables.rs"]
mod tables;
#[path = "launch/web.rs"]
mod web;

use host::{Host, Switch};
use tables::Options;

const USAGE: &str = "\
cargo xtask bench launch [OPTIONS]
  --rounds N    starts of each program (default 300; php and the host with many sites have fewer)
  --sites N     sites and accounts of the large host (default 100000)
  --seconds N   of each run through Apache (default 2)
  --only NAME   one table: limits, launch, stages, sites or apache
  --beside FILE instead of tables: another build of the launcher beside target/dist's
  --run TEXT    instead of tables: a command of the shell's on the benchmark's host (strace, perf)";

fn main() {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let options = match Options::read(words) {
        Ok(options) => options,
        Err(why) => {
            println!("{why}\n\n{USAGE}");
            std::process::exit(2);
        }
    };
    let host = Host::make();
    if let Some(text) = &options.run {
        let ended = std::process::Command::new("/bin/sh").args(["-c", text]).status().unwrap();
        std::process::exit(ended.code().unwrap_or(1));
    }
    println!("added time of a launch, in microseconds; {}\n", host.machine());
    if let Some(other) = &options.beside {
        host.add_launcher(other);
        return tables::beside(&host, &options, other);
    }
    if options.wants("limits") {
        tables::limits(&host);
    }
    if options.wants("launch") {
        for (switch, target) in [(Switch::FilesSystemd, 0.30), (Switch::Files, 0.45)] {
            host.name_service(switch);
            tables::launch(&host, &options, switch, target);
        }
        host.name_service(Switch::FilesSystemd);
    }
    if options.wants("stages") {
        tables::stages(&host, &options);
    }
    if options.wants("apache") {
        web::compare(&host, &options);
    }
    if options.wants("sites") {
        tables::sites(&host, &options);
    }
}
