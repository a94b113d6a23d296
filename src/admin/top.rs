//! `cellwall top`: the busiest sites, again and again.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::status::{Site, ask, size, table, time};
use super::{End, say};

/// The arguments of `cellwall top`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// How many times; without it until it is interrupted
    #[arg(long)]
    count: Option<u64>,
}

/// Most sites that are shown.
const SHOWN: usize = 40;

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let mut before: Option<(Instant, HashMap<String, Site>)> = None;
    let mut left = args.count.map(|count| count.saturating_add(1));
    while left != Some(0) {
        let sites = match ask("/table") {
            Ok(text) => table(&text),
            Err(why) => {
                say::note(why);
                return End::Failed.into();
            }
        };
        let now = Instant::now();
        if let Some((then, before)) = &before {
            show(&sites, before, now.duration_since(*then));
        }
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            break;
        }
        before = Some((now, sites.into_iter().map(|site| (site.name.clone(), site)).collect()));
        std::thread::sleep(Duration::from_secs(args.every));
    }
    End::Good.into()
}

fn show(sites: &[Site], before: &HashMap<String, Site>, elapsed: Duration) {
    if std::io::stdout().is_terminal() {
        say::out("\x1b[H\x1b[J");
    }
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let grown = |site: &Site, name: &str| {
        let old = before.get(&site.name).map_or(0, |old| old.number(name));
        site.number(name).saturating_sub(old)
    };
    let mut busiest: Vec<&Site> = sites.iter().collect();
    busiest.sort_by_key(|site| std::cmp::Reverse((grown(site, "requests_total"), site.number("waiting"))));
    say::out(format_args!(
        "{:<24} {:<8} {:>9} {:>7} {:>7} {:>7} {:>9} {:>8} {:>6} {:>8}",
        "SITE", "STATE", "REQ/S", "RUNNING", "WAITING", "WORKERS", "REFUSED/S", "99 %", "CPU %", "MEMORY"
    ));
    for site in busiest.into_iter().take(SHOWN) {
        let second = |name: &str| grown(site, name).saturating_mul(1000) / ms;
        say::out(format_args!(
            "{:<24} {:<8} {:>9} {:>7} {:>7} {:>7} {:>9} {:>8} {:>6} {:>8}",
            site.name,
            site.state,
            second("requests_total"),
            site.number("running"),
            site.number("waiting"),
            site.number("workers"),
            second("refused"),
            time(site.number("work_p99_us")),
            grown(site, "cpu_microseconds_total") / 10 / ms,
            size(site.number("memory_bytes")),
        ));
    }
}
