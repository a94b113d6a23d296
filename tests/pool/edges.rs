//! Requests that end in the middle of something: refused, taken back, not read, not heard. What comes after them on the same
//! connection, at the same worker and in the same broker is served as if they had not been.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use cellwall::pool::fastcgi::Role;
use cellwall::pool::fastcgi::pairs::Writer;
use cellwall::pool::fastcgi::record::{Header, kind, put, put_begin};
use cellwall::pool::settings::{Request, Settings};
use cellwall::pool::wire::{Down, Ended, Sink, Site};

use crate::harness::{self, Launcher, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged};
use crate::stage::{Client, PATIENCE, Stage, answer, example, request};

const HELLO: &[u8] = b"Content-Type: text/plain\r\n\r\nhello";

/// A site that lets its workers finish what nobody waits for any more.
fn patient() -> Settings<'static> {
    Settings { request: Request { abandon: false, ..example().request }, ..example() }
}

/// A request whose body has begun and goes on.
fn begun(script: &str) -> Vec<u8> {
    let mut bytes = request(script, &[("HTTP_X", "y")], b"", true);
    bytes.truncate(bytes.len() - 8);
    put(&mut bytes, kind::STDIN, 1, b"part");
    bytes
}

/// All records of `bytes` as those of another request.
fn renumbered(mut bytes: Vec<u8>, id: u16) -> Vec<u8> {
    let mut place = 0;
    while place < bytes.len() {
        let header = Header::decode(bytes[place..place + 8].try_into().unwrap()).unwrap();
        bytes[place + 2..place + 4].copy_from_slice(&id.to_be_bytes());
        place += 8 + usize::from(header.content) + usize::from(header.padding);
    }
    bytes
}

fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn after_headers_that_are_too_large_the_next_request_of_the_connection_is_answered() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |_, stream| answer(stream, HELLO));
    let big = "x".repeat(30_000);
    for body in [&b""[..], b"a body"] {
        let mut client = stage.client();
        assert_eq!(client.get("/a.php").out, HELLO);
        client.ask(&request("/a.php", &[("HTTP_A", &big), ("HTTP_B", &big), ("HTTP_C", &big)], body, true));
        assert!(client.answer().text().starts_with("Status: 431 "));
        for _ in 0..3 {
            assert_eq!(client.get("/b.php").out, HELLO, "on the same connection");
        }
    }
}

#[test]
fn after_an_abort_in_the_middle_of_a_body_the_next_request_is_answered_whatever_its_number() {
    for next in [1, 3] {
        let mut stage = Stage::new(&patient());
        stage.actor(1, |_, stream| answer(stream, HELLO));
        stage.actor(1, |_, stream| answer(stream, HELLO));
        let mut client = stage.client();
        client.ask(&begun("/a.php"));
        thread::sleep(Duration::from_millis(100));
        let mut abort = Vec::new();
        put(&mut abort, kind::ABORT, 1, &[]);
        client.ask(&abort);
        assert!(client.answer().end.is_some());
        client.stream.write_all(&renumbered(request("/b.php", &[], b"", true), next)).unwrap();
        let mut got = vec![0; 4096];
        let length = client.stream.read(&mut got).unwrap();
        assert!(String::from_utf8_lossy(&got[..length]).contains("hello"), "number {next}");
    }
}

#[test]
fn replies_that_nobody_reads_do_not_pile_up() {
    let stage = Stage::new(&example());
    let mut client = stage.client();
    // Each is answered by one of twice its size.
    let questions = Header::new(100, 0, 0).encode().repeat(8192);
    let before = memory();
    client.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let sent: usize = (0..2000).map_while(|_| client.stream.write(&questions).ok()).sum();
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    let grown = memory().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    // Who reads them gets all, and is served then.
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut all, mut buffer) = (0, vec![0; 1 << 16]);
    while all / 16 < sent / 8 {
        match client.stream.read(&mut buffer) {
            Ok(length @ 1..) => all += length,
            other => panic!("{other:?} after {all} bytes of {}", 2 * sent),
        }
    }
    assert_eq!(all / 16, sent / 8);
}

#[test]
fn a_web_server_that_reads_no_more_costs_nothing_and_its_request_is_let_run() {
    let mut stage = Stage::new(&patient());
    stage.actor(1, |_, stream| {
        let mut out = Vec::new();
        put(&mut out, kind::STDOUT, 1, b"Content-Type: text/plain\r\n\r\nfirst");
        stream.write_all(&out).unwrap();
        thread::sleep(Duration::from_secs(3));
        answer(stream, b"second");
    });
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], b"", true));
    client.stream.shutdown(Shutdown::Read).unwrap();
    thread::sleep(Duration::from_millis(500));
    let before = stage.spent();
    thread::sleep(Duration::from_secs(2));
    let took = stage.spent() - before;
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn an_answer_that_stands_still_after_a_slow_upload_is_ended_in_time() {
    let mut stage =
        Stage::new(&Settings { request: Request { silence_ms: 1000, ..example().request }, ..example() });
    stage.actor(1, |_, _| thread::sleep(Duration::from_secs(600)));
    let mut client = stage.client();
    client.ask(&begun("/a.php"));
    thread::sleep(Duration::from_millis(1500));
    let mut rest = Vec::new();
    put(&mut rest, kind::STDIN, 1, b"rest");
    put(&mut rest, kind::STDIN, 1, &[]);
    client.ask(&rest);
    let start = Instant::now();
    assert!(client.answer().text().starts_with("Status: 504 "));
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[test]
fn a_worker_whose_upload_was_cut_off_is_not_free_before_it_has_found_out() {
    let mut stage = Stage::new(&patient());
    // It notices nothing, and works on; one request at a time.
    let (_, listener, errors) = stage.worker(1);
    thread::spawn(move || {
        let _errors = errors;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = vec![0; 65_536];
            let length = stream.read(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..length]).contains("/slow.php") {
                thread::sleep(Duration::from_secs(600));
            } else {
                answer(&mut stream, HELLO);
            }
        }
    });
    let mut gone = stage.client();
    gone.ask(&begun("/slow.php"));
    thread::sleep(Duration::from_millis(200));
    drop(gone);
    thread::sleep(Duration::from_millis(200));
    let mut client = stage.client();
    client.ask(&request("/b.php", &[], b"", true));
    thread::sleep(Duration::from_millis(300));
    // It waits in the site's queue, and gets the next worker that is free.
    stage.actor(1, |_, stream| answer(stream, HELLO));
    assert_eq!(client.answer().out, HELLO);
}

#[test]
fn a_worker_that_works_on_for_a_cut_off_upload_is_ended_where_the_site_wants_that() {
    let mut stage = Stage::new(&example());
    let (worker, listener, _errors) = stage.worker(1);
    // It neither reads nor ends.
    thread::spawn(move || {
        let _one = listener.accept();
        thread::sleep(Duration::from_secs(600));
    });
    let mut gone = stage.client();
    gone.ask(&begun("/slow.php"));
    thread::sleep(Duration::from_millis(200));
    drop(gone);
    let start = Instant::now();
    stage.wait(|up| matches!(up, cellwall::pool::wire::Up::Kill { worker: ended, .. } if *ended == worker));
    assert!(start.elapsed() > Duration::from_secs(1), "it has some time to find out by itself");
}

/// As where the kernel has no watches left, which no test can have for itself alone: a plain file cannot be watched at all.
#[test]
fn a_site_whose_socket_cannot_be_watched_is_told_and_its_neighbours_are_served() {
    let mut stage = Stage::new(&example());
    let deaf = Settings { name: b"deaf", ..example() };
    stage.site_at(2, &deaf, File::open("/proc/self/exe").unwrap().into());
    stage.wait_for_log("pool error site=deaf call=epoll_ctl of=listener waiting=1 why=");
    assert!(stage.client().get("/ping").text().ends_with("pong"));
    stage.site(2, &deaf);
    assert!(Client::new(&stage.public(2)).get("/ping").text().ends_with("pong"));
}

#[test]
fn who_comes_while_no_worker_can_be_started_is_told_at_once() {
    let mut stage = Stage::new(&example());
    stage.send(Down::StartFailed { site: Site(1), how: Ended::Exited, retry_after_ms: 30_000 }, Vec::new());
    thread::sleep(Duration::from_millis(200));
    let mut client = stage.client();
    client.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let page = client.get("/b.php");
    assert!(page.text().starts_with("Status: 503 ") && page.text().contains("\r\nRetry-After: "), "{page:?}");
    assert!(stage.log().contains("code=B05 "), "{}", stage.log());
    // One that is there after all serves; the broker may hear of it after the visitor has come.
    stage.actor(1, |_, stream| answer(stream, HELLO));
    crate::stage::until(|| (client.get("/b.php").out == HELLO).then_some(()), "an answer of the worker's");
}

#[test]
fn a_log_that_is_not_configured_any_more_gets_no_lines() {
    let settings = example();
    let mut stage = Stage::new(&settings);
    let path = stage.place.join("errors");
    let file = File::options().append(true).create(true).open(&path).unwrap();
    stage.send(Down::Lines { site: Site(1), sink: Sink::Errors }, vec![file.into()]);
    let (_, _listener, mut errors) = stage.worker(1);
    errors.write_all(b"first\n").unwrap();
    let written = || std::fs::read_to_string(&path).unwrap();
    crate::stage::until(|| written().contains("first").then_some(()), "the site's own log");
    stage.site(1, &settings);
    errors.write_all(b"second\n").unwrap();
    stage.wait_for_log("second");
    assert!(!written().contains("second"), "{}", written());
}

#[test]
fn a_line_break_in_the_scripts_name_reaches_no_program() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |_, stream| answer(stream, HELLO));
    let mut out = Vec::new();
    put_begin(&mut out, 1, Role::Responder, true);
    let mut writer = Writer::new(&mut out, 1);
    for (name, value) in
        [("SCRIPT_FILENAME", "/srv/stage/index.php"), ("SCRIPT_NAME", "/a\nb"), ("REQUEST_METHOD", "GET")]
    {
        assert!(writer.push(name.as_bytes(), value.as_bytes()));
    }
    writer.finish();
    put(&mut out, kind::STDIN, 1, &[]);
    let mut client = stage.client();
    client.ask(&out);
    assert!(client.answer().text().starts_with("Status: 400 "));
    assert!(stage.log().contains("code=E03 "), "{}", stage.log());
}

#[test]
fn a_request_that_is_late_does_not_take_its_sites_only_worker_from_the_others() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 4\ntimeout = 6");
        let text = b"<?php usleep(1000 * (int)$_GET['ms']); echo 'done';";
        harness::put(world.alice.docroot().join("s.php"), text, world.alice.id, 0o644);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        let _late = nginx.begun("alice", "/s.php?ms=100000");
        thread::sleep(Duration::from_millis(5500));
        let other = nginx.begun("alice", "/s.php?ms=5800");
        // The first is over its time now, the second is served still, by the same worker.
        thread::sleep(Duration::from_millis(1000));
        assert_eq!(nginx.get("alice", "/a.php").status, 200);
        other.set_nonblocking(true).unwrap();
        let answered = (&other).read(&mut [0]).map_err(|why| why.kind());
        assert_eq!(answered, Err(ErrorKind::WouldBlock), "{}", logged(&[""]).join("\n"));
    });
}

/// nginx connects and then writes: between the two the broker may be told to end.
#[test]
fn who_was_let_in_is_served_at_the_end() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |_, stream| answer(stream, b"\r\nyes"));
    let (mut kept, mut early) = (stage.client(), stage.client());
    assert_eq!(kept.get("/a.php").text(), "\r\nyes");
    stage.send(Down::Quit { within_ms: 10_000 }, Vec::new());
    assert!(kept.is_closed(), "nothing was under way there");
    assert_eq!(early.get("/a.php").text(), "\r\nyes", "{}", stage.log());
    assert!(early.is_closed());
}
