//! The load generator, and what a process has cost so far.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What one run of wrk came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Milliseconds that 99 of 100 answers took at most.
    pub(crate) p99: f64,
    /// Answers.
    pub(crate) answers: u64,
    /// Answers that are no 2xx or 3xx, and connections that failed.
    pub(crate) bad: u64,
}

/// A run that goes on in the background.
pub(crate) struct Going(Child);

/// Starts wrk: one thread, as many connections, so many seconds.
pub(crate) fn begin(port: u16, path: &str, connections: u32, seconds: u32) -> Going {
    let child = Command::new("/usr/bin/wrk")
        .args(["-t1", "--latency", "--timeout", "20s"])
        .args([format!("-c{connections}"), format!("-d{seconds}s"), format!("http://127.0.0.1:{port}{path}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    Going(child.unwrap_or_else(|why| panic!("wrk: {why}; sudo apt-get install wrk")))
}

impl Going {
    pub(crate) fn is_over(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    pub(crate) fn end(self) -> Run {
        let said = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        read(&text).unwrap_or_else(|| panic!("wrk said: {text}{}", String::from_utf8_lossy(&said.stderr)))
    }
}

/// [`begin`] and its end.
pub(crate) fn run(port: u16, path: &str, connections: u32, seconds: u32) -> Run {
    begin(port, path, connections, seconds).end()
}

fn read(text: &str) -> Option<Run> {
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    let bad = after("Non-2xx or 3xx responses:").map_or(0, |rest| rest.trim().parse().unwrap_or(u64::MAX));
    let broken = after("Socket errors:").map_or(0, |rest| {
        rest.split(|letter: char| !letter.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok()).sum()
    });
    let answers = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())?;
    Some(Run {
        rate: after("Requests/sec:")?.trim().parse().ok()?,
        p99: millis(after("99%")?.trim())?,
        answers,
        bad: bad + broken,
    })
}

fn millis(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

/// One request, and its whole answer; none when the connection broke.
pub(crate) fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Processes whose command line begins with `name`, or that are the children of `parent`.
pub(crate) fn processes(chosen: impl Fn(&Process) -> bool) -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let rest: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let uid = status
                .lines()
                .find_map(|line| line.strip_prefix("Uid:\t"))?
                .split('\t')
                .next()?
                .parse()
                .ok()?;
            let process = Process {
                pid,
                parent: rest.get(1)?.parse().ok()?,
                uid,
                broker: stat.contains("(cellwall-broker) "),
                ticks: rest.get(11)?.parse::<u64>().ok()? + rest.get(12)?.parse::<u64>().ok()?,
            };
            (rest.first() != Some(&"Z") && chosen(&process)).then_some(process)
        })
        .collect()
}

/// A process as /proc tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) uid: u32,
    pub(crate) broker: bool,
    /// Hundredths of a second of CPU time.
    pub(crate) ticks: u64,
}

impl Process {
    /// Proportional share of memory in KiB.
    pub(crate) fn pss(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }
}
