//! What a pool costs, beside php-fpm, fcgiwrap and bare FastCGI programs in the same run: `cargo xtask bench pool`.
//!
//! One nginx, one load generator, the same scripts; only the socket behind nginx differs. Contenders take turns, round by
//! round, so that what disturbs the machine disturbs all alike. Nothing here fails on a time: the tables have the targets
//! beside what was measured. What is counted (bad answers, processes left behind) does fail.
#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark ends by panicking when it cannot measure"
)]

#[path = "pool/cost.rs"]
mod cost;
#[path = "pool/host.rs"]
mod host;
#[path = "pool/idle.rs"]
mod idle;
#[path = "pool/load.rs"]
mod load;
#[path = "launch/numbers.rs"]
#[allow(dead_code, reason = "the other benchmark needs more of it")]
mod numbers;
#[path = "pool/trouble.rs"]
mod trouble;
#[path = "pool/visitors.rs"]
mod visitors;

use host::Host;

const USAGE: &str = "\
cargo xtask bench pool [OPTIONS]
  --rounds N    runs of each contender (default 3)
  --seconds N   of each run (default 2)
  --sites N     configured sites that nobody asks (default 10000)
  --only NAME   one table: hello, large, cgi, recycle, reload, kill, neighbour or idle
  --trouble T   of the neighbour's table one line: overloaded, forks, stderr or slow
  --run TEXT    instead of tables: a command of the shell's on the benchmark's host";

/// The words of the command line.
struct Options {
    rounds: usize,
    seconds: u32,
    sites: u32,
    only: Option<String>,
    trouble: Option<String>,
    run: Option<String>,
}

impl Options {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { rounds: 3, seconds: 2, sites: 10_000, only: None, trouble: None, run: None };
        let mut words = words.filter(|word| word != "--bench");
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} needs a value."))?;
            let number = || value.parse::<u32>().map_err(|_| format!("{name} needs a number."));
            match name.as_str() {
                "--rounds" => options.rounds = number()?.max(1) as usize,
                "--seconds" => options.seconds = number()?.max(1),
                "--sites" => options.sites = number()?,
                "--only" => options.only = Some(value),
                "--trouble" => options.trouble = Some(value),
                "--run" => options.run = Some(value),
                _ => return Err(format!("{name} is no option.")),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

fn main() {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let options = match Options::read(words) {
        Ok(options) => options,
        Err(why) => {
            println!("{why}\n\n{USAGE}");
            std::process::exit(2);
        }
    };
    let mut host = Host::make();
    if let Some(text) = &options.run {
        let ended = std::process::Command::new("/bin/sh").args(["-c", text]).status().unwrap();
        drop(host);
        std::process::exit(ended.code().unwrap_or(1));
    }
    for (name, table) in TABLES {
        if options.wants(name) {
            table(&mut host, &options);
        }
    }
}

type Table = fn(&mut Host, &Options);

const TABLES: [(&str, Table); 8] = [
    ("hello", cost::hello),
    ("large", cost::large),
    ("cgi", cost::cgi),
    ("recycle", trouble::recycle),
    ("reload", trouble::reload),
    ("kill", trouble::kill),
    ("neighbour", trouble::neighbour),
    ("idle", idle::idle),
];
