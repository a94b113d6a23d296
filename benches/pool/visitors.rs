//! Visitors who ask without pause, and how long each answer took.
//!
//! wrk tells how long 99 of 100 answers took, but not of the answers that it got: where one takes longer than two usual ones, it
//! adds those that a visitor with a clock would have asked for meanwhile (`stats_correct` in its source, against "coordinated
//! omission"). Four of its answers that wait for 10 ms once a second are then a hundred, and all of the slowest hundredth. Both
//! measures are worth having: what a visitor sees, and how much of the time is bad. So the answers are timed here, and counted
//! both ways.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::numbers::part;

/// What a run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Milliseconds that 99 of 100 answers took at most.
    pub(crate) p99: f64,
    /// The same with the answers that wrk adds for those that took long.
    pub(crate) by_time: f64,
    /// Answers that were no 200, and connections that ended without one.
    pub(crate) bad: u64,
}

/// So many visitors, one thread, for so long.
pub(crate) fn ask(port: u16, path: &str, visitors: usize, lasts: Duration) -> Seen {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut all: Vec<Visitor> = (0..visitors).map(|_| Visitor::begin(port, &request)).collect();
    let (mut took, mut bad) = (Vec::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        for place in ready(&all) {
            let visitor = &mut all[place];
            match visitor.listen() {
                Told::Part => {}
                Told::Whole(true) => {
                    took.push(visitor.asked.elapsed().as_secs_f64() * 1000.0);
                    visitor.ask(&request);
                }
                Told::Whole(false) | Told::Gone => {
                    bad += 1;
                    *visitor = Visitor::begin(port, &request);
                }
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let answers = took.len() as f64;
    let usual = seconds * 1000.0 * visitors as f64 / answers;
    Seen {
        rate: answers / seconds,
        p99: part(took.iter().copied(), 0.99),
        by_time: part(took.iter().flat_map(|one| with_those_not_asked(*one, usual)), 0.99),
        bad,
    }
}

/// The visitors for whom there is something to read.
fn ready(all: &[Visitor]) -> Vec<usize> {
    let mut watched: Vec<PollFd> =
        all.iter().map(|one| PollFd::new(one.stream.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut watched, PollTimeout::from(1000_u16)).unwrap();
    let is_ready = |one: &PollFd| one.any() == Some(true);
    watched.iter().enumerate().filter(|(_, one)| is_ready(one)).map(|(place, _)| place).collect()
}

/// An answer's time, and those of the ones that somebody who asks every `usual` milliseconds would have waited for meanwhile: as
/// wrk 4 counts.
fn with_those_not_asked(took: f64, usual: f64) -> Vec<f64> {
    let mut all = vec![took];
    if took > usual * 2.0 {
        let mut rest = took - usual;
        while rest > usual {
            all.push(rest);
            rest -= usual;
        }
    }
    all
}

struct Visitor {
    stream: TcpStream,
    asked: Instant,
    heard: Vec<u8>,
}

enum Told {
    Part,
    /// Whether it was a 200.
    Whole(bool),
    Gone,
}

impl Visitor {
    fn begin(port: u16, request: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut visitor = Self { stream, asked: Instant::now(), heard: Vec::with_capacity(4096) };
        visitor.ask(request);
        visitor
    }

    fn ask(&mut self, request: &str) {
        self.heard.clear();
        self.asked = Instant::now();
        // A connection that broke says so where its answer is read.
        drop(self.stream.write_all(request.as_bytes()));
    }

    /// Reads what is there.
    fn listen(&mut self) -> Told {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => return Told::Gone,
            Ok(length) => self.heard.extend_from_slice(&piece[..length]),
            Err(why) if why.kind() == ErrorKind::Interrupted => return Told::Part,
            Err(_) => return Told::Gone,
        }
        if is_whole(&self.heard) { Told::Whole(self.heard.starts_with(b"HTTP/1.1 200")) } else { Told::Part }
    }
}

/// Whether the body is there to its end: counted, or in chunks.
fn is_whole(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    match head.lines().find_map(|line| line.strip_prefix("Content-Length: ")) {
        Some(length) => body.len() >= length.parse::<usize>().unwrap(),
        None => body.ends_with("0\r\n\r\n"),
    }
}
