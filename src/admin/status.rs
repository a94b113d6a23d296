//! `cellwall status`: what the pool's broker counts, asked over its local socket.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use super::{End, pool, reach, say};

/// The arguments of `cellwall status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All that is known, as JSON
    #[arg(long)]
    json: bool,
    /// One site alone
    site: Option<String>,
}

/// Where the broker answers.
pub const SOCKET: &str = "/run/cellwall/status.sock";

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let asked = if args.json { ask("/status") } else { ask("/table") };
    let text = match asked {
        Ok(text) => text,
        Err(why) => {
            say::note(why);
            return End::Failed.into();
        }
    };
    if args.json {
        let text = text.trim_end();
        return match &args.site {
            None => told(Some(text.to_owned()), "", say::out),
            Some(name) => told(alone(text, name), name, say::out),
        };
    }
    let mut sites = table(&text);
    sites.retain(|site| args.site.as_ref().is_none_or(|name| site.name == *name));
    let unknown = sites.is_empty() && args.site.is_some();
    told((!unknown).then_some(sites), args.site.as_deref().unwrap_or_default(), |sites| {
        show(&sites);
        said(&sites);
        unreached(args.site.as_deref());
    })
}

/// What a site's programs wrote to their error output, as PHP does of a page's mistake, is no refusal.
fn said(sites: &[Site]) {
    let mut all: Vec<&Site> = sites.iter().filter(|site| site.number("lines_said_total") > 0).collect();
    all.sort_by_key(|site| std::cmp::Reverse(site.number("lines_said_total")));
    if let Some(most) = all.first() {
        say::note(format_args!(
            "SAID: lines of error output, to be read with: cellwall why --last {}",
            most.name
        ));
    }
}

/// The broker knows nothing of what keeps others from it.
fn unreached(site: Option<&str>) {
    let faults =
        site.map_or_else(|| reach::faults(MOST_FAULTS), |site| reach::fault(site).into_iter().collect());
    for fault in faults {
        say::note(format_args!("found: {}\n  repair: {}", fault.found, fault.repair));
    }
}

/// Faults that are told one by one.
const MOST_FAULTS: usize = 10;

/// Says it, or that the pool has no such site.
fn told<T>(found: Option<T>, name: &str, say: impl FnOnce(T)) -> ExitCode {
    match found {
        Some(found) => {
            say(found);
            End::Good.into()
        }
        None => {
            say::note(format_args!(
                "error: the pool has no site {name}\n  help: run: cellwall status # shows all of them"
            ));
            End::Findings.into()
        }
    }
}

/// The broker's JSON, which has a line for each site, with the one alone.
fn alone(text: &str, name: &str) -> Option<String> {
    let (head, sites) = text.split_once("\"sites\":[")?;
    let start = format!("{{\"site\":\"{name}\",");
    let site = sites.strip_suffix("]}")?.split(",\n").find(|site| site.starts_with(&start))?;
    Some(format!("{head}\"sites\":[{site}]}}"))
}

/// One site's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// `up`, `stopped` or `failing`.
    pub state: String,
    numbers: HashMap<String, u64>,
}

impl Site {
    /// A number by its name; what the broker does not tell is 0.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }
}

/// Asks the broker.
///
/// # Errors
/// In words: the daemon is not there, or this is not root.
pub fn ask(path: &str) -> Result<String, String> {
    let failed = |why: std::io::Error| {
        let gone = matches!(why.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        let help = match (gone, pool::runs()) {
            (true, false) => format!("run: {}", pool::by_systemd("start")),
            (true, true) => {
                "run: cellwall status # cellwalld runs, and makes it again within a second".to_owned()
            }
            (false, _) if !nix::unistd::geteuid().is_root() => "run it again with sudo".to_owned(),
            (false, _) => format!("run: {}", pool::by_systemd("status")),
        };
        let runs = if gone && !pool::runs() { ": cellwalld does not run" } else { "" };
        format!("error: {SOCKET}: {why}{runs}\n  help: {help}")
    };
    let mut stream = UnixStream::connect(SOCKET).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).map_err(failed)?;
    let body = answer.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/1.1 200 "));
    let body = body.map(|(_, body)| body).filter(|body| is_plain(body));
    body.map(str::to_owned).ok_or_else(|| format!("error: {SOCKET} answers nothing of use"))
}

/// Nothing that steers a terminal: the broker is nobody, and one that was taken over may answer what it likes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t'))
}

/// Bytes of an answer: more than a host with a hundred thousand pools has to tell.
const LONGEST: u64 = 256 << 20;

/// The lines of `/table`.
#[must_use]
pub fn table(text: &str) -> Vec<Site> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let site = |line: &str| {
        let mut site = Site::default();
        for (name, value) in names.iter().zip(line.split('\t')) {
            match *name {
                "site" => value.clone_into(&mut site.name),
                "state" => value.clone_into(&mut site.state),
                name => drop(site.numbers.insert(name.to_owned(), value.parse().unwrap_or(0))),
            }
        }
        site
    };
    lines.map(site).collect()
}

fn show(sites: &[Site]) {
    say::out(format_args!(
        "{:<24} {:<8} {:>7} {:>7} {:>7} {:>10} {:>8} {:>6} {:>8} {:>8} {:>5} {:>8} {:>9}",
        "SITE",
        "STATE",
        "WORKERS",
        "RUNNING",
        "WAITING",
        "REQUESTS",
        "REFUSED",
        "SAID",
        "HALF",
        "99 %",
        "PROCS",
        "MEMORY",
        "CPU"
    ));
    for site in sites {
        say::out(format_args!(
            "{:<24} {:<8} {:>7} {:>7} {:>7} {:>10} {:>8} {:>6} {:>8} {:>8} {:>5} {:>8} {:>8}s",
            site.name,
            site.state,
            site.number("workers"),
            site.number("running"),
            site.number("waiting"),
            site.number("requests_total"),
            site.number("refused"),
            site.number("lines_said_total"),
            time(site.number("work_p50_us")),
            time(site.number("work_p99_us")),
            site.number("processes"),
            size(site.number("memory_bytes")),
            site.number("cpu_microseconds_total") / 1_000_000,
        ));
    }
}

/// `512us`, `33ms`, `2s`; the broker knows powers of two, so `-` is none.
pub(super) fn time(us: u64) -> String {
    match us {
        0 => "-".to_owned(),
        1..1000 => format!("{us}us"),
        1000..1_000_000 => format!("{}ms", us / 1000),
        _ => format!("{}s", us / 1_000_000),
    }
}

/// `12M`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes if bytes < 10 << 20 => format!("{}K", bytes >> 10),
        bytes if bytes < 10 << 30 => format!("{}M", bytes >> 20),
        bytes => format!("{}G", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_the_names_in_its_first_line() {
        let sites = table("site\tstate\twaiting\tnew\nshop\tup\t3\t9\nblog\tstopped\t0\tx\n");
        assert_eq!(sites.len(), 2);
        assert_eq!((sites[0].name.as_str(), sites[0].state.as_str()), ("shop", "up"));
        assert_eq!(
            (sites[0].number("waiting"), sites[0].number("new"), sites[0].number("absent")),
            (3, 9, 0)
        );
        assert_eq!(sites[1].number("new"), 0);
    }

    #[test]
    fn one_site_of_the_json_is_whole_and_alone() {
        let text =
            "{\"version\":1,\"sites\":[{\"site\":\"shop\",\"x\":[1,2]},\n{\"site\":\"sho\",\"x\":{}}]}";
        let shop = "{\"version\":1,\"sites\":[{\"site\":\"shop\",\"x\":[1,2]}]}";
        assert_eq!(alone(text, "shop").as_deref(), Some(shop));
        assert_eq!(
            alone(text, "sho").as_deref(),
            Some("{\"version\":1,\"sites\":[{\"site\":\"sho\",\"x\":{}}]}")
        );
        assert_eq!(alone(text, "nosuch"), None);
        assert_eq!(alone("{\"version\":1,\"sites\":[]}", "shop"), None);
    }

    #[test]
    fn times_and_sizes_fit_their_columns() {
        assert_eq!([0, 512, 33_000, 2_500_000].map(time), ["-", "512us", "33ms", "2s"]);
        assert_eq!([0, 5 << 20, 50 << 20, 12 << 30].map(size), ["-", "5120K", "50M", "12G"]);
    }
}
