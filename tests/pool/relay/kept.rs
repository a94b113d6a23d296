//! Connections to workers that are kept for the next request: what is lost when one is closed, and when none is.

use std::io::{PipeWriter, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cellwall::pool::fastcgi::Ending;
use cellwall::pool::settings::{Settings, Workers};
use cellwall::pool::wire::{Down, Site};

use crate::stage::{Stage, answer, example, request};

use super::HELLO;

/// A worker that gives each connection one answer, and closes it after a pause.
fn answer_once_each(listener: UnixListener, errors: PipeWriter, body: &'static [u8], pause: Duration) {
    thread::spawn(move || {
        let _errors = errors;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut some = [0; 4096];
            let _ = stream.read(&mut some).unwrap();
            answer(&mut stream, body);
            thread::sleep(pause);
        }
    });
}

#[test]
fn the_end_of_a_stream_that_comes_with_the_answer_loses_nothing() {
    let mut stage = Stage::new(&Settings { workers: Workers { max: 8, ..example().workers }, ..example() });
    for _ in 0..8 {
        let (_, listener, errors) = stage.worker(1);
        // Closed at once, as old FastCGI programs do.
        answer_once_each(listener, errors, &[b'x'; 100_000], Duration::ZERO);
    }
    let mut client = stage.client();
    for _ in 0..200 {
        let got = client.get("/a.php");
        assert_eq!((got.out.len(), got.end), (100_000, Some((0, Ending::Complete))));
    }
}

#[test]
fn a_request_on_a_kept_connection_that_the_worker_closes_is_answered_and_never_run_again() {
    let mut stage = Stage::new(&example());
    let (_, listener, errors) = stage.worker(1);
    // As php-cgi at its last request: it closes a little after its answer.
    answer_once_each(listener, errors, HELLO, Duration::from_millis(1));
    // Written to a connection that is closing, it may have been read: then the visitor is told, and nothing runs twice.
    let mut client = stage.client();
    let mut good = 0;
    for _ in 0..500 {
        let answer = client.get("/a.php");
        assert!(
            answer.out == HELLO || answer.out.starts_with(b"Status: 502"),
            "{}",
            String::from_utf8_lossy(&answer.out)
        );
        good += u32::from(answer.out == HELLO);
    }
    assert!(good >= 200, "{good} of 500");
}

/// Ruby's FastCGI does so. What is sent to it between its answer and its closing would be lost, and must not be sent twice.
#[test]
fn a_program_that_closes_what_it_was_asked_to_keep_loses_no_request() {
    let mut stage = Stage::new(&example());
    let (told, closed) = mpsc::channel();
    stage.actor(1, move |heard, stream| {
        answer(stream, format!("\r\n{}", heard.get("QUERY_STRING")).as_bytes());
        std::thread::sleep(Duration::from_millis(5));
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        told.send(()).unwrap();
    });
    let mut client = stage.client();
    assert!(client.get("/a.php").text().ends_with("\r\n"));
    closed.recv().unwrap();
    for round in 0..20 {
        let round = round.to_string();
        client.ask(&request("/a.php", &[("QUERY_STRING", &round)], b"body", true));
        assert_eq!(client.answer().text(), format!("\r\n{round}"), "{}", stage.log());
    }
}

/// The first worker is slow to close, and the second one shows that they do.
#[test]
fn a_connection_that_is_slow_to_close_is_not_used_when_others_are_seen_to_close() {
    let mut stage = Stage::new(&example());
    let asked = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let asked = Arc::clone(&asked);
        stage.actor(1, move |_, stream| {
            answer(stream, HELLO);
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                thread::sleep(Duration::from_millis(300));
            }
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
    }
    let mut client = stage.client();
    for _ in 0..20 {
        assert_eq!(client.get("/a.php").out, HELLO, "{}", stage.log());
    }
}

/// What libfcgi had not read of one request it would take for the next.
#[test]
fn a_connection_is_used_again_where_nothing_can_be_left_in_it() {
    let mut stage = Stage::new(&example());
    let (told, opened) = mpsc::channel();
    stage.actor(1, move |_, stream| {
        let fd = std::os::fd::AsRawFd::as_raw_fd(stream);
        told.send(std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap()).unwrap();
        answer(stream, b"\r\n");
    });
    let mut client = stage.client();
    let mut ask = |more: &[(&str, &str)], body: usize, last: usize| {
        let whole = request("/a.php", more, &vec![b'x'; body], true);
        let (first, second) = whole.split_at(whole.len() - last);
        client.ask(first);
        thread::sleep(Duration::from_millis(5));
        client.stream.write_all(second).unwrap();
        assert_eq!(client.answer().out, b"\r\n", "{}", stage.log());
        opened.recv().unwrap()
    };
    // The end of a body that there is not is waited for; otherwise one packet is what counts, and its size.
    let first = ask(&[], 0, 8);
    assert_eq!(ask(&[], 0, 8), first);
    assert_eq!(ask(&[], 5_000, 0), first);
    assert_eq!(ask(&[], 5_000, 8), first, "it had nothing left in it before");
    let second = ask(&[], 0, 0);
    assert_ne!(second, first);
    assert_eq!(ask(&[("HTTP_COOKIE", &"c".repeat(9_000))], 0, 0), second);
    assert_ne!(ask(&[], 0, 0), second);
}

/// How often this thread has waited.
fn waited() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

/// Whoever waits at a socket is woken by whatever happens to it: also when somebody takes from the kernel what he has written.
#[test]
fn a_program_that_waits_for_its_next_request_is_woken_by_that_alone_and_ends_in_peace() {
    let mut stage = Stage::new(&example());
    let (worker, listener, errors) = stage.worker(1);
    let (told, heard) = mpsc::channel();
    thread::spawn(move || {
        let _errors = errors;
        let (mut stream, _) = listener.accept().unwrap();
        let (mut some, mut asked, before) = ([0; 4096], 0, waited());
        let end = loop {
            match stream.read(&mut some) {
                Ok(0) => break "the end".to_owned(),
                Ok(_) => {
                    // No program is ready before the broker has done with the request.
                    let since = Instant::now();
                    while since.elapsed() < Duration::from_micros(200) {}
                    answer(&mut stream, HELLO);
                }
                Err(why) => break why.to_string(),
            }
            asked += 1;
        };
        told.send((asked, waited() - before, end)).unwrap();
    });
    let mut client = stage.client();
    for _ in 0..400 {
        assert_eq!(client.get("/a.php").out, HELLO, "{}", stage.log());
    }
    stage.send(Down::Drain { site: Site(1), worker }, Vec::new());
    let (asked, waited, end) = heard.recv().unwrap();
    assert_eq!((asked, end.as_str()), (400, "the end"));
    assert!(waited < 600, "it waited {waited} times for 400 requests");
}
