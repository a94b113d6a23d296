//! The relay itself: requests, queues, deadlines, ends; with workers that the test plays.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cellwall::pool::fastcgi::record::{Header, kind, put, put_begin};
use cellwall::pool::fastcgi::{Ending, Role};
use cellwall::pool::settings::{Kind, Queue, Request, Settings, Workers};
use cellwall::pool::wire::{Ended, Up, Why};

use crate::host::many_descriptors;
use crate::stage::{Client, DOCROOT, Stage, answer, example, play, request};

mod bodies;
mod heirs;
mod kept;
mod words;

const HELLO: &[u8] = b"Content-Type: text/plain\r\n\r\nhello";

#[test]
fn a_request_reaches_a_worker_and_its_answer_comes_back() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |heard, stream| {
        let text =
            format!("Status: 201 Created\r\n\r\n{} {}", heard.get("SCRIPT_FILENAME"), heard.body.len());
        answer(stream, text.as_bytes());
    });
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], &[b'x'; 200_000], true));
    let got = client.answer();
    assert_eq!(got.text(), format!("Status: 201 Created\r\n\r\n{DOCROOT}/a.php 200000"));
    assert_eq!(got.end, Some((0, Ending::Complete)));
    assert!(matches!(stage.wait(|up| matches!(up, Up::Ready { .. })), Up::Ready { .. }));
    // The same connection serves the next request, and the same connection to the worker.
    assert!(client.get("/b.php").text().contains("/b.php 0"));
    client.ask(&request("/c.php", &[], b"", false));
    assert!(client.answer().text().contains("/c.php"));
    assert!(client.is_closed(), "the web server did not ask to keep it");
}

#[test]
fn ids_of_web_servers_are_their_own() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |_, stream| answer(stream, HELLO));
    let mut stream = std::os::unix::net::UnixStream::connect(stage.public(1)).unwrap();
    let mut bytes = request("/a.php", &[], b"body", true);
    // Each header's id, in place.
    let mut place = 0;
    while place < bytes.len() {
        let header = Header::decode(bytes[place..place + 8].try_into().unwrap()).unwrap();
        bytes[place + 2..place + 4].copy_from_slice(&0xabcd_u16.to_be_bytes());
        place += 8 + usize::from(header.content) + usize::from(header.padding);
    }
    stream.write_all(&bytes).unwrap();
    let mut got = vec![0; 8];
    stream.read_exact(&mut got).unwrap();
    let header = Header::decode(got[..8].try_into().unwrap()).unwrap();
    assert_eq!((header.kind, header.id), (kind::STDOUT, 0xabcd));
}

#[test]
fn workers_are_wanted_as_requests_come_and_requests_wait_for_them() {
    let mut stage = Stage::new(&example());
    let mut clients: Vec<Client> = (0..3).map(|_| stage.client()).collect();
    for client in &mut clients {
        client.ask(&request("/a.php", &[], b"", true));
    }
    stage.wait(|up| matches!(up, Up::Want { count: 2, .. }));
    assert!(!stage.heard().iter().any(|up| matches!(up, Up::Want { count: 3.., .. })), "two is the most");
    stage.wait_for_status("\"waiting\":3");
    stage.actor(1, |_, stream| answer(stream, HELLO));
    for client in &mut clients {
        assert_eq!(client.answer().out, HELLO);
    }
    stage.wait_for_status("\"waiting\":0");
}

#[test]
fn pool_25_a_full_queue_is_that_sites_own_and_says_when_to_come_again() {
    let queue = Queue { length: 1, deadline_ms: 60_000 };
    let workers = Workers { max: 1, ..example().workers };
    let mut stage = Stage::new(&Settings { queue, workers, ..example() });
    stage.site(2, &Settings { name: b"other", ..example() });
    let (listener, other) = {
        let (_, listener, errors) = stage.worker_of(2, 1);
        (listener, errors)
    };
    play(listener, other, |_, stream| answer(stream, HELLO));
    // One could be worked on, one may wait.
    let mut waiting: Vec<Client> = (0..2).map(|_| stage.client()).collect();
    for client in &mut waiting {
        client.ask(&request("/a.php", &[], b"", true));
    }
    stage.wait_for_status("\"waiting\":2");
    let refused = stage.client().get("/a.php");
    assert!(refused.text().starts_with("Status: 503 Service Unavailable\r\n"), "{}", refused.text());
    assert!(refused.text().contains("\r\nRetry-After: "));
    assert_eq!(refused.end, Some((0, Ending::Complete)));
    assert_eq!(Client::new(&stage.public(2)).get("/a.php").out, HELLO, "the neighbour notices nothing");
    let log = stage.wait_for_log("code=B02");
    assert!(log.contains("status=503 site=stage"), "{log}");
    stage.actor(1, |_, stream| answer(stream, HELLO));
    for client in &mut waiting {
        assert_eq!(client.answer().out, HELLO);
    }
}

#[test]
fn who_waits_too_long_is_told_so() {
    let queue = Queue { length: 10, deadline_ms: 200 };
    let stage = Stage::new(&Settings { queue, ..example() });
    let mut client = stage.client();
    assert!(client.get("/a.php").text().starts_with("Status: 503"));
    stage.wait_for_log("code=B03");
    // The connection is kept.
    assert!(client.get("/ping").text().ends_with("pong"));
}

#[test]
fn pool_06_a_neighbours_script_is_refused_before_any_worker_hears_of_it() {
    let mut stage = Stage::new(&example());
    let (_, listener, _errors) = stage.worker(1);
    listener.set_nonblocking(true).unwrap();
    for script in ["/../other/a.php", "/%2e%2e/x"] {
        let mut client = stage.client();
        let file =
            if script.starts_with("/..") { "/srv/other/a.php" } else { "proxy:fcgi://x/srv/stage/%2e%2e/y" };
        let mut bytes = Vec::new();
        put_begin(&mut bytes, 1, Role::Responder, true);
        let mut writer = cellwall::pool::fastcgi::pairs::Writer::new(&mut bytes, 1);
        assert!(writer.push(b"SCRIPT_FILENAME", file.as_bytes()));
        writer.finish();
        put(&mut bytes, kind::STDIN, 1, &[]);
        client.ask(&bytes);
        let got = client.answer();
        assert!(got.text().starts_with("Status: 403 Forbidden\r\n"), "{}", got.text());
        assert!(!got.text().contains("srv"), "the visitor learns nothing");
    }
    assert!(listener.accept().is_err(), "no worker was called");
    stage.wait_for_log("code=G05");
    stage.wait_for_log("code=G04");
}

#[test]
fn pool_07_parameters_that_configure_programs_do_not_arrive() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |heard, stream| {
        let names: Vec<&str> = heard.params.iter().map(|(name, _)| name.as_str()).collect();
        answer(stream, names.join(" ").as_bytes());
    });
    let more = [
        ("PHP_VALUE", "auto_prepend_file=/tmp/x"),
        ("PHP_ADMIN_VALUE", "x"),
        ("LD_PRELOAD", "/tmp/x.so"),
        ("PATH", "/tmp"),
        ("HTTP_PROXY", "evil"),
        ("HTTP_COOKIE", "a=b"),
        ("FCGI_ROLE", "x"),
    ];
    let mut client = stage.client();
    client.ask(&request("/a.php", &more, b"", true));
    let text = client.answer().text();
    let expected = "SCRIPT_FILENAME SCRIPT_NAME DOCUMENT_ROOT REQUEST_METHOD REQUEST_URI HTTP_COOKIE";
    assert_eq!(text, expected);
}

#[test]
fn pool_11_the_slow_hold_nobody_up() {
    let request_rules = Request { head_ms: 1000, ..example().request };
    let mut stage = Stage::new(&Settings { request: request_rules, ..example() });
    stage.actor(1, |_, stream| answer(stream, HELLO));
    let whole = request("/a.php", &[], b"", true);
    many_descriptors(4000);
    let mut slow: Vec<Client> = (0..1000).map(|_| stage.client()).collect();
    for client in &mut slow {
        // Those that were there too long may be closed already.
        let _ = client.stream.write_all(&whole[..20]);
    }
    for _ in 0..20 {
        assert_eq!(stage.client().get("/a.php").out, HELLO);
    }
    for client in &mut slow {
        assert!(client.is_closed(), "its head never came");
    }
    stage.wait_for_status("\"running\":0");
}

#[test]
fn pool_12_a_stuck_worker_is_ended_and_the_visitor_answered() {
    let request_rules = Request { deadline_ms: 300, ..example().request };
    let mut stage = Stage::new(&Settings { request: request_rules, ..example() });
    let (worker, _listener, _errors) = stage.worker(1);
    let got = stage.client().get("/a.php");
    assert!(got.text().starts_with("Status: 504 Gateway Timeout\r\n"), "{}", got.text());
    let kill = stage.wait(|up| matches!(up, Up::Kill { .. }));
    assert!(
        matches!(kill, Up::Kill { worker: killed, why: Why::Deadline, .. } if killed == worker),
        "{kill:?}"
    );
    stage.wait_for_log("code=B08");
}

#[test]
fn an_answer_that_stands_still_is_cut_where_the_web_server_sees_it() {
    let request_rules = Request { silence_ms: 300, ..example().request };
    let mut stage = Stage::new(&Settings { request: request_rules, ..example() });
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    stage.actor(1, move |_, stream| {
        let mut out = Vec::new();
        put(&mut out, kind::STDOUT, 1, HELLO);
        stream.write_all(&out).unwrap();
        // It says no more, and does not end.
        let _ = held.lock().unwrap().recv();
    });
    let got = stage.client().get("/a.php");
    assert_eq!((got.out.as_slice(), got.end), (HELLO, None), "cut, and no end that would make it look whole");
    stage.wait(|up| matches!(up, Up::Kill { why: Why::Silent, .. }));
    drop(hold);
}

#[test]
fn a_worker_that_dies_is_a_502_and_one_that_lies_is_ended() {
    let mut stage = Stage::new(&example());
    let (worker, listener, errors) = stage.worker(1);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut some = [0; 100];
        let _ = stream.read(&mut some).unwrap();
        drop((stream, errors, listener));
    });
    assert!(stage.client().get("/a.php").text().starts_with("Status: 502 Bad Gateway\r\n"));
    stage.wait_for_log("code=B06");
    stage.gone(worker, Ended::Exited);
    let liar = stage.actor(1, |_, stream| stream.write_all(b"Content-Type: text/html\r\n\r\nhello").unwrap());
    assert!(stage.client().get("/a.php").text().starts_with("Status: 502 Bad Gateway\r\n"));
    let kill = stage.wait(|up| matches!(up, Up::Kill { why: Why::Garbage, .. }));
    assert!(matches!(kill, Up::Kill { worker, .. } if worker == liar));
}

#[test]
fn a_worker_serves_as_many_connections_as_it_has_children() {
    let workers = Workers { max: 1, connections: 3, ..example().workers };
    let mut stage = Stage::new(&Settings { workers, ..example() });
    let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, count) = (Arc::clone(&most), Arc::clone(&now));
    stage.actor(3, move |_, stream| {
        seen.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        count.fetch_sub(1, Ordering::SeqCst);
        answer(stream, HELLO);
    });
    let mut clients: Vec<Client> = (0..12).map(|_| stage.client()).collect();
    for client in &mut clients {
        client.ask(&request("/a.php", &[], b"", true));
    }
    for client in &mut clients {
        assert_eq!(client.answer().out, HELLO);
    }
    assert!(most.load(Ordering::SeqCst) <= 3, "never more than it has children");
}

#[test]
fn pool_26_a_web_server_that_goes_away_takes_its_work_along() {
    let mut stage = Stage::new(&example());
    let (_, listener, _errors) = stage.worker(1);
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], b"", true));
    let (mut worker, _) = listener.accept().unwrap();
    let mut some = [0; 4096];
    assert!(worker.read(&mut some).unwrap() > 0);
    let mut waiting = stage.client();
    waiting.ask(&request("/b.php", &[], b"", true));
    stage.wait_for_status("\"waiting\":1");
    drop((client, waiting));
    stage.wait(|up| matches!(up, Up::Kill { why: Why::Abandoned, .. }));
    assert_eq!(worker.read(&mut some).unwrap_or(0), 0, "the worker sees it too");
    stage.wait_for_status("\"waiting\":0,\"running\":0");
    assert!(stage.status("/status").contains("\"abandoned_total\":2"));
}

#[test]
fn work_that_a_site_wants_finished_keeps_its_worker_busy() {
    let request_rules = Request { abandon: false, ..example().request };
    let workers = Workers { max: 1, ..example().workers };
    let mut stage = Stage::new(&Settings { request: request_rules, workers, ..example() });
    let (_, listener, _errors) = stage.worker(1);
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], b"", true));
    let (mut worker, _) = listener.accept().unwrap();
    let mut some = [0; 4096];
    assert!(worker.read(&mut some).unwrap() > 0);
    drop(client);
    stage.wait_for_status("\"abandoned_total\":1");
    let mut next = stage.client();
    next.ask(&request("/b.php", &[], b"", true));
    stage.wait_for_status("\"waiting\":1,\"running\":1");
    answer(&mut worker, b"nobody reads this");
    // The same connection gets the next request.
    assert!(worker.read(&mut some).unwrap() > 0);
    answer(&mut worker, HELLO);
    assert_eq!(next.answer().out, HELLO);
    assert!(!stage.heard().iter().any(|up| matches!(up, Up::Kill { .. })));
}

#[test]
fn an_abort_ends_the_request_and_keeps_the_connection() {
    let mut stage = Stage::new(&example());
    let (worker, _listener, _errors) = stage.worker(1);
    let mut client = stage.client();
    let mut bytes = request("/a.php", &[], b"", true);
    put(&mut bytes, kind::ABORT, 1, &[]);
    client.ask(&bytes);
    let got = client.answer();
    assert_eq!((got.out.len(), got.end), (0, Some((0, Ending::Complete))));
    stage.gone(worker, Ended::Stopped);
    assert!(client.get("/ping").text().ends_with("pong"));
}

#[test]
fn pool_09_a_hostile_stream_ends_its_own_connection_alone() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |_, stream| answer(stream, HELLO));
    let mut good = stage.client();
    for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0; 64], &[1, 4, 0, 0, 255, 255, 0, 0, 1], &[255; 3000]] {
        let mut bad = stage.client();
        let _ = bad.stream.write_all(bytes);
        assert!(bad.is_closed());
        assert_eq!(good.get("/a.php").out, HELLO);
    }
}

#[test]
fn status_and_ping_answer_when_every_worker_is_stuck() {
    let mut stage = Stage::new(&example());
    let kept: Vec<_> = (0..2).map(|_| stage.worker(1)).collect();
    let mut stuck: Vec<Client> = (0..5).map(|_| stage.client()).collect();
    for client in &mut stuck {
        client.ask(&request("/a.php", &[], b"", true));
    }
    stage.wait_for_status("\"waiting\":3,\"running\":2");
    let mut client = stage.client();
    assert_eq!(client.get("/ping").text().rsplit("\r\n").next(), Some("pong"));
    let mut page = |query: &str| {
        client.ask(&request("/status", &[("QUERY_STRING", query)], b"", true));
        client.answer().text()
    };
    let text = page("");
    for line in ["pool:                 stage", "listen queue:         3", "active processes:     2"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(page("json").contains("\"listen queue\":3"));
    assert!(page("json&full").contains("\"processes\":[{\"pid\":"));
    assert!(page("xml").contains("<listen-queue>3</listen-queue>"));
    assert!(page("html").contains("<td>3</td>"));
    assert!(page("openmetrics").contains("phpfpm_listen_queue 3\n"));
    assert!(stage.status("/metrics").contains("cellwall_waiting{site=\"stage\"} 3\n"));
    drop(kept);
}

#[test]
fn pool_11_two_thousand_that_say_nothing_hold_nobody_up() {
    let mut stage = Stage::new(&example());
    stage.actor(1, |_, stream| answer(stream, HELLO));
    many_descriptors(4000);
    // More than the limit of heads: the oldest go.
    let crowd: Vec<Client> = (0..2000).map(|_| stage.client()).collect();
    assert_eq!(stage.client().get("/a.php").out, HELLO);
    drop(crowd);
    assert_eq!(stage.client().get("/a.php").out, HELLO);
}

#[test]
fn a_cgi_program_gets_its_environment_sealed_and_its_answer_framed() {
    let settings = Settings { kind: Kind::Cgi, command: Vec::new(), ..example() };
    let mut stage = Stage::new(&settings);
    let mut client = stage.client();
    client.ask(&request("/a.cgi", &[("HTTP_PROXY", "x"), ("QUERY_STRING", "q=1")], b"the body", true));
    let (token, file) = stage.run();
    let mut environment = String::new();
    let mut read = std::fs::File::from(file.try_clone().unwrap());
    // Its reader begins at its beginning: the broker may not move in a file.
    std::io::Seek::rewind(&mut read).unwrap();
    read.read_to_string(&mut environment).unwrap();
    let entries: Vec<&str> = environment.split_terminator('\0').collect();
    assert!(entries.contains(&"SCRIPT_FILENAME=/srv/stage/a.cgi") && entries.contains(&"QUERY_STRING=q=1"));
    assert!(!environment.contains("HTTP_PROXY"), "{environment}");
    assert!(std::fs::File::from(file).write_all(b"x").is_err(), "it is sealed");
    let (input_reader, input) = std::io::pipe().unwrap();
    let (output, mut output_writer) = std::io::pipe().unwrap();
    let (errors, mut errors_writer) = std::io::pipe().unwrap();
    let site = cellwall::pool::wire::Site(1);
    let started = cellwall::pool::wire::Down::Started { token, site };
    stage.send(started, vec![input.into(), output.into(), errors.into()]);
    let mut body = String::new();
    let mut input_reader = input_reader;
    input_reader.read_to_string(&mut body).unwrap();
    assert_eq!(body, "the body");
    output_writer.write_all(b"Status: 202 Accepted\r\n\r\n").unwrap();
    output_writer.write_all(b"done").unwrap();
    errors_writer.write_all(b"a warning\n").unwrap();
    drop((output_writer, errors_writer));
    let ended = cellwall::pool::wire::Down::RunEnded { token, site, how: Ended::Exited, code: 3 };
    stage.send(ended, Vec::new());
    let got = client.answer();
    assert_eq!(
        (got.text().as_str(), got.end),
        ("Status: 202 Accepted\r\n\r\ndone", Some((3, Ending::Complete)))
    );
    stage.wait_for_log("stderr site=stage line=\"a warning\"");
    assert!(client.get("/ping").text().ends_with("pong"), "the connection is kept");
}

/// The next one would be refused by the supervisor, who counts the one that is still ending.
#[test]
fn a_cgi_program_takes_its_place_until_it_is_gone() {
    let settings = Settings {
        kind: Kind::Cgi,
        command: Vec::new(),
        workers: Workers { max: 1, ..example().workers },
        ..example()
    };
    let mut stage = Stage::new(&settings);
    let mut left = stage.client();
    left.ask(&request("/a.cgi", &[], b"", true));
    let (first, _) = stage.run();
    drop(left);
    stage.wait(|up| matches!(up, Up::EndRun { token, .. } if *token == first));
    let mut next = stage.client();
    next.ask(&request("/b.cgi", &[], b"", true));
    stage.wait_for_status("\"waiting\":1");
    assert!(!stage.heard().iter().any(|up| matches!(up, Up::Run { .. })), "it waits for the first one's end");
    let site = cellwall::pool::wire::Site(1);
    let ended = cellwall::pool::wire::Down::RunEnded { token: first, site, how: Ended::Stopped, code: 9 };
    stage.send(ended, Vec::new());
    let (second, _) = stage.run();
    assert_ne!(first, second);
}

/// RFC 3875, 6.2.3: a shell says it line by line, and Apache, asking a pool, passes it on with the status 200.
#[test]
fn a_redirection_of_a_programs_gets_its_status_however_it_comes() {
    let settings = Settings { kind: Kind::Cgi, command: Vec::new(), ..example() };
    let mut stage = Stage::new(&settings);
    let found = "Status: 302 Found\r\n";
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    for (pieces, before) in [
        (&["Location: http://elsewhere.test/\r\n", "\r\n"][..], found),
        (&["L", "ocation: /b\n", "\n", "and more"], found),
        (&["Location: /b\r\n", "Status: 307 Temporary Redirect\r\n\r\n"], ""),
        (&["Content-Type: text/plain\r\n\r\nLocation: /b\r\n\r\n"], ""),
        // No head at all: for the web server to complain about.
        (&["Location: /b\r\n"], ""),
        // Longer than anybody waits for.
        (&[&long, "Location: /b\r\n\r\n"], ""),
    ] {
        let mut client = stage.client();
        client.ask(&request("/a.cgi", &[], b"", true));
        let (token, _) = stage.run();
        let (_input_reader, input) = std::io::pipe().unwrap();
        let (output, mut writer) = std::io::pipe().unwrap();
        let (errors, errors_writer) = std::io::pipe().unwrap();
        let site = cellwall::pool::wire::Site(1);
        let started = cellwall::pool::wire::Down::Started { token, site };
        stage.send(started, vec![input.into(), output.into(), errors.into()]);
        for piece in pieces {
            writer.write_all(piece.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        drop((writer, errors_writer));
        let ended = cellwall::pool::wire::Down::RunEnded { token, site, how: Ended::Exited, code: 0 };
        stage.send(ended, Vec::new());
        assert_eq!(client.answer().text(), format!("{before}{}", pieces.concat()));
    }
}
