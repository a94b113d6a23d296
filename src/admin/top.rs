//! `cellwall top`: the busiest sites, again and again.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::json::Json;
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
    /// A line of JSON for each look, with all sites
    #[arg(long)]
    json: bool,
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
            let look = Look { sites: busiest(&sites, before), elapsed: now.duration_since(*then), before };
            if args.json { say::out(look.json()) } else { look.show() }
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

/// One look at all sites, the busiest first.
struct Look<'l> {
    sites: Vec<&'l Site>,
    before: &'l HashMap<String, Site>,
    elapsed: Duration,
}

/// What a number has grown by.
fn grown(site: &Site, before: &HashMap<String, Site>, name: &str) -> u64 {
    let old = before.get(&site.name).map_or(0, |old| old.number(name));
    site.number(name).saturating_sub(old)
}

fn busiest<'s>(sites: &'s [Site], before: &HashMap<String, Site>) -> Vec<&'s Site> {
    let mut busiest: Vec<&Site> = sites.iter().collect();
    busiest.sort_by_key(|site| {
        std::cmp::Reverse((grown(site, before, "requests_total"), site.number("waiting")))
    });
    busiest
}

impl Look<'_> {
    fn ms(&self) -> u64 {
        u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn second(&self, site: &Site, name: &str) -> u64 {
        grown(site, self.before, name).saturating_mul(1000) / self.ms()
    }

    fn cpu_percent(&self, site: &Site) -> u64 {
        grown(site, self.before, "cpu_microseconds_total") / 10 / self.ms()
    }

    fn show(&self) {
        if std::io::stdout().is_terminal() {
            say::out("\x1b[H\x1b[J");
        }
        say::out(format_args!(
            "{:<24} {:<8} {:>9} {:>7} {:>7} {:>7} {:>9} {:>8} {:>6} {:>8}",
            "SITE", "STATE", "REQ/S", "RUNNING", "WAITING", "WORKERS", "REFUSED/S", "99 %", "CPU %", "MEMORY"
        ));
        for site in self.sites.iter().take(SHOWN) {
            say::out(format_args!(
                "{:<24} {:<8} {:>9} {:>7} {:>7} {:>7} {:>9} {:>8} {:>6} {:>8}",
                site.name,
                site.state,
                self.second(site, "requests_total"),
                site.number("running"),
                site.number("waiting"),
                site.number("workers"),
                self.second(site, "refused"),
                time(site.number("work_p99_us")),
                self.cpu_percent(site),
                size(site.number("memory_bytes")),
            ));
        }
    }

    fn json(&self) -> Json {
        let number = Json::Number;
        let site = |site: &&Site| {
            Json::object([
                ("site", Json::text(&site.name)),
                ("state", Json::text(&site.state)),
                ("requests_per_second", number(self.second(site, "requests_total"))),
                ("running", number(site.number("running"))),
                ("waiting", number(site.number("waiting"))),
                ("workers", number(site.number("workers"))),
                ("refused_per_second", number(self.second(site, "refused"))),
                ("work_p99_us", number(site.number("work_p99_us"))),
                ("cpu_percent", number(self.cpu_percent(site))),
                ("memory_bytes", number(site.number("memory_bytes"))),
            ])
        };
        Json::object([
            ("milliseconds", number(self.ms())),
            ("sites", Json::List(self.sites.iter().map(site).collect())),
        ])
    }
}
