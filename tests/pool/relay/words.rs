//! What workers say to the log, and what the logs say of requests.

use std::io::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cellwall::pool::fastcgi::record::{kind, put};
use cellwall::pool::settings::{Seen, Settings};
use cellwall::pool::wire::Ended;

use crate::stage::{Client, Stage, answer, example, play, request, until};

use super::HELLO;

/// How many of these lines the log has, written down or counted.
fn lines_told(log: &str, line: &str) -> usize {
    let counted = log.lines().filter_map(|one| one.split_once(" suppressed site=stage lines="));
    let counted: usize = counted.map(|(_, count)| count.parse::<usize>().unwrap()).sum();
    counted + log.lines().filter(|one| one.contains(line)).count()
}

#[test]
fn pool_20_a_flood_of_words_is_cut_and_told_and_waits_for_itself() {
    let mut stage = Stage::new(&example());
    let (_, _listener, mut errors) = stage.worker(1);
    errors.write_all(b"one\ntwo \x1b[31m\"x\"\n").unwrap();
    let log = stage.wait_for_log("line=\"two");
    assert!(log.contains("stderr site=stage worker=1 line=\"one\"\n"), "{log}");
    assert!(log.contains("line=\"two \\x1b[31m\\x22x\\x22\""), "{log}");

    stage.site(2, &Settings { name: b"other", ..example() });
    let (_, listener, others) = stage.worker_of(2, 1);
    play(listener, others, |_, stream| answer(stream, HELLO));
    // 10.5 MB: 4 at once, the rest at 2 a second.
    let flood = "all work and no play\n".repeat(50_000);
    let begun = Instant::now();
    let writer = thread::spawn(move || {
        (0..10).for_each(|_| errors.write_all(flood.as_bytes()).unwrap());
        begun.elapsed()
    });
    let mut neighbour = Client::new(&stage.public(2));
    while !writer.is_finished() {
        assert_eq!(neighbour.get("/a.php").out, HELLO);
    }
    let took = writer.join().unwrap();
    assert!(took > Duration::from_secs(3), "{took:?}");
    let told = || Some(()).filter(|()| lines_told(&stage.log(), "all work and no play") == 500_000);
    until(told, "every line, written down or counted");
    assert!(stage.log().len() < 1 << 20, "{} bytes", stage.log().len());
}

#[test]
fn pool_20_words_that_come_with_answers_wait_as_well_and_none_is_lost() {
    let mut stage = Stage::new(&example());
    stage.actor(3, |_, stream| {
        let mut words = Vec::new();
        put(&mut words, kind::STDERR, 1, "all play and no work\n".repeat(3000).as_bytes());
        // 3 MB.
        (0..50).for_each(|_| stream.write_all(&words).unwrap());
        let mut half = Vec::new();
        put(&mut half, kind::STDERR, 1, b"a line without its end");
        stream.write_all(&half).unwrap();
        answer(stream, HELLO);
    });
    let begun = Instant::now();
    let mut clients: Vec<Client> = (0..3).map(|_| stage.client()).collect();
    for client in &mut clients {
        client.ask(&request("/a.php", &[], b"", true));
    }
    for client in &mut clients {
        assert_eq!(client.answer().out, HELLO);
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(2), "{took:?}");
    let told = || Some(()).filter(|()| lines_told(&stage.log(), " line=\"a") == 450_003);
    until(told, "every line, written down or counted");
}

#[test]
fn pool_20_the_words_of_a_worker_that_has_ended_are_told() {
    let mut stage = Stage::new(&example());
    let (done, written) = mpsc::channel();
    let worker = stage.actor(1, move |_, stream| {
        let mut words = Vec::new();
        put(&mut words, kind::STDERR, 1, "all told and no more\n".repeat(3000).as_bytes());
        // 4.4 MB: the last of it is left where it is for now.
        (0..70).for_each(|_| stream.write_all(&words).unwrap());
        answer(stream, HELLO);
        done.send(()).unwrap();
    });
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], b"", true));
    written.recv().unwrap();
    stage.gone(worker, Ended::Exited);
    assert_eq!(client.answer().out, HELLO);
    let told = || Some(()).filter(|()| lines_told(&stage.log(), "all told and no more") == 210_000);
    until(told, "every line, written down or counted");
}

#[test]
fn the_access_and_slow_logs_say_what_happened() {
    let seen = Seen {
        access_log: b"/x",
        access_format: b"%m %r %s %o %{HTTP_COOKIE}e",
        slow_ms: 50,
        ..example().seen
    };
    let mut stage = Stage::new(&Settings { seen, ..example() });
    let file = std::fs::File::options().append(true).create(true).open(stage.place.join("access")).unwrap();
    let sink = cellwall::pool::wire::Sink::Access;
    stage.send(
        cellwall::pool::wire::Down::Lines { site: cellwall::pool::wire::Site(1), sink },
        vec![file.into()],
    );
    stage.actor(1, |heard, stream| {
        if heard.get("SCRIPT_NAME") == "/slow.php" {
            std::thread::sleep(Duration::from_millis(300));
        }
        answer(stream, b"Status: 404 Not Found\r\n\r\nnothing");
    });
    let mut client = stage.client();
    client.ask(&request("/a.php", &[("HTTP_COOKIE", "a=\"b\"\n")], b"", true));
    client.answer();
    client.get("/slow.php");
    let log = until(
        || {
            Some(std::fs::read_to_string(stage.place.join("access")).unwrap())
                .filter(|log| log.contains("slow"))
        },
        "the access log's second line",
    );
    assert_eq!(log, "GET /a.php 404 32 a=\\x22b\\x22\\x0a\nGET /slow.php 404 32 -\n");
    let slow = stage.wait_for_log("slow site=stage");
    assert!(slow.contains("uri=\"/slow.php\"") && slow.contains("method=GET"), "{slow}");
}
