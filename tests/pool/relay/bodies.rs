//! Bodies of any length, of requests and answers: they pass without being kept, up to what the site allows.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cellwall::pool::fastcgi::back::{self, Back};
use cellwall::pool::fastcgi::front::{self, Front};
use cellwall::pool::fastcgi::record::{kind, put, put_begin, put_end};
use cellwall::pool::fastcgi::{Ending, Role};
use cellwall::pool::settings::{Request, Settings};

use crate::stage::{DOCROOT, Stage, answer, example, request};

use super::HELLO;

/// Beyond what 32 bits count.
const GIGABYTES: usize = (4 << 30) + (1 << 20);

const PIECE: usize = 1 << 20;

#[test]
fn pool_27_an_answer_of_gigabytes_passes_without_being_kept() {
    let mut stage = Stage::new(&example());
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    stage.actor(1, move |_, stream| {
        let mut out = Vec::new();
        put(&mut out, kind::STDOUT, 1, &vec![b'y'; PIECE]);
        for _ in 0..GIGABYTES / PIECE {
            stream.write_all(&out).unwrap();
            counter.fetch_add(PIECE, Ordering::Relaxed);
        }
        out.clear();
        put_end(&mut out, 1, 0, Ending::Complete);
        stream.write_all(&out).unwrap();
    });
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], b"", true));
    // Nobody reads for a while: the worker must wait, and the broker keep little.
    thread::sleep(Duration::from_millis(500));
    let kept = taken.load(Ordering::Relaxed);
    assert!(kept < 20 << 20, "{kept} bytes are taken while nobody reads {GIGABYTES}");
    let (mut codec, mut buffer) = (Back::default(), vec![0; PIECE]);
    codec.ask();
    let (mut got, mut end) = (0, None);
    while end.is_none() {
        let length = client.stream.read(&mut buffer).unwrap();
        assert!(length > 0, "cut after {got} bytes");
        let mut input = &buffer[..length];
        while let Some(event) = codec.next(&mut input).unwrap() {
            match event {
                back::Event::Stdout(bytes) => got += bytes.len(),
                back::Event::Stderr(bytes) => panic!("{}", String::from_utf8_lossy(bytes)),
                back::Event::End(status, ending) => end = Some((status, ending)),
            }
        }
    }
    assert_eq!((got, end), (GIGABYTES, Some((0, Ending::Complete))));
}

#[test]
fn pool_27_a_body_of_gigabytes_passes_without_being_kept() {
    let mut stage = Stage::new(&example());
    let (_, listener, errors) = stage.worker(1);
    let (begin, begun) = mpsc::channel();
    thread::spawn(move || {
        let _errors = errors;
        let (mut stream, _) = listener.accept().unwrap();
        begun.recv().unwrap();
        let count = body_of(&mut stream);
        answer(&mut stream, count.to_string().as_bytes());
    });
    let mut client = stage.client();
    let mut writer = client.stream.try_clone().unwrap();
    client.ask(&head_of(GIGABYTES));
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let writes = thread::spawn(move || {
        let mut out = Vec::new();
        put(&mut out, kind::STDIN, 1, &vec![b'x'; PIECE]);
        for _ in 0..GIGABYTES / PIECE {
            writer.write_all(&out).unwrap();
            counter.fetch_add(PIECE, Ordering::Relaxed);
        }
        out.clear();
        put(&mut out, kind::STDIN, 1, &[]);
        writer.write_all(&out).unwrap();
    });
    // The worker does not read for a while: the web server must wait, and the broker keep little.
    thread::sleep(Duration::from_millis(500));
    let kept = sent.load(Ordering::Relaxed);
    assert!(kept < 20 << 20, "{kept} bytes are taken while nobody reads {GIGABYTES}");
    begin.send(()).unwrap();
    writes.join().unwrap();
    assert_eq!(client.answer().text(), GIGABYTES.to_string(), "{}", stage.log());
}

/// The beginning of a request with a body of this length.
fn head_of(length: usize) -> Vec<u8> {
    let (mut out, file, length) = (Vec::new(), format!("{DOCROOT}/a.php"), length.to_string());
    put_begin(&mut out, 1, Role::Responder, true);
    let mut writer = cellwall::pool::fastcgi::pairs::Writer::new(&mut out, 1);
    for (name, value) in [
        ("SCRIPT_FILENAME", file.as_str()),
        ("SCRIPT_NAME", "/a.php"),
        ("REQUEST_METHOD", "POST"),
        ("CONTENT_LENGTH", length.as_str()),
    ] {
        assert!(writer.push(name.as_bytes(), value.as_bytes()));
    }
    writer.finish();
    out
}

/// How long the body of the next request is.
fn body_of(stream: &mut UnixStream) -> usize {
    let (mut codec, mut buffer, mut count) = (Front::new(1 << 20), vec![0; PIECE], 0);
    loop {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "cut after {count} bytes");
        let mut input = &buffer[..length];
        while let Some(event) = codec.next(&mut input).unwrap() {
            match event {
                front::Event::Request => {}
                front::Event::Body(bytes) => count += bytes.len(),
                front::Event::BodyEnd => return count,
                other => panic!("a worker heard {other:?}"),
            }
        }
    }
}

#[test]
fn pool_27_a_body_beyond_the_limit_is_a_413() {
    let request_rules = Request { body_max: 1000, ..example().request };
    let mut stage = Stage::new(&Settings { request: request_rules, ..example() });
    stage.actor(1, |_, stream| answer(stream, HELLO));
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], &[b'x'; 1001], true));
    assert!(client.answer().text().starts_with("Status: 413"), "it was claimed");
    // Not claimed, but sent.
    let mut client = stage.client();
    let mut bytes = request("/a.php", &[], b"", true);
    bytes.truncate(bytes.len() - 8);
    put(&mut bytes, kind::STDIN, 1, &[b'x'; 1001]);
    put(&mut bytes, kind::STDIN, 1, &[]);
    client.ask(&bytes);
    assert!(client.answer().text().starts_with("Status: 413"));
    let log = stage.wait_for_log("code=G07");
    assert!(log.contains("status=413"), "{log}");
}

/// As much as waits for a web server at once, where it reads now and then.
fn largest_gulp(stage: &Stage) -> usize {
    let mut client = stage.client();
    client.ask(&request("/a.php", &[], b"", true));
    let (mut buffer, mut got, mut most) = (vec![0; 2 * PIECE], 0, 0);
    while got < 4 * PIECE {
        thread::sleep(Duration::from_millis(20));
        let length = client.stream.read(&mut buffer).unwrap();
        assert!(length > 0, "cut after {got} bytes");
        (got, most) = (got + length, most.max(length));
    }
    most
}

#[test]
fn a_web_server_that_is_slower_than_its_program_gets_more_at_a_time() {
    let usual = {
        let (one, _other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let piece = [0; 1 << 16];
        (0_u32..).map_while(|_| (&one).write(&piece).ok()).sum::<usize>()
    };
    let mut stage = Stage::new(&example());
    stage.actor(1, |_, stream| answer(stream, &vec![b'y'; 4 * PIECE]));
    let most = largest_gulp(&stage);
    assert!(most > usual + usual / 2, "{most} bytes, and {usual} wait in any socket");
}
