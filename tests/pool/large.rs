//! A hundred megabytes through real web servers, visitors that are slow, and visitors that go away.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Answer, Ask, Launcher, User, World, make_directory, run, world};

use super::host::{Daemon, account, logged, processes, until};
use super::web::{self, Host, Server};

const PIECE: usize = 65_536;
const PIECES: usize = 1600;
const LENGTH: usize = PIECE * PIECES;
/// The broker may grow by so much while all this passes: buffers of 256 KiB for those who are slow.
const GROWTH_KIB: u64 = 8 * 1024;

/// Answers a body with its length and MD5, and a request without one with `LENGTH` bytes.
const PERL: &str = "#!/usr/bin/perl\nuse strict; use warnings; use FCGI; use Digest::MD5;\n\
    my $piece = pack('C*', 0 .. 255) x 256; my $request = FCGI::Request();\n\
    while ($request->Accept() >= 0) {\n  print \"Content-Type: application/octet-stream\\r\\n\\r\\n\";\n\
    \x20 if ($ENV{REQUEST_METHOD} eq 'GET') { for (1 .. ($ENV{QUERY_STRING} || 1600)) { print $piece or last } next }\n\
    \x20 my ($digest, $length, $part) = (Digest::MD5->new, 0);\n\
    \x20 while (my $got = read(STDIN, $part, 65536)) { $digest->add($part); $length += $got }\n\
    \x20 print \"$length \", $digest->hexdigest;\n}\n";
/// The same. nginx without buffers sends no more of a body once the answer has begun, so that comes first.
const SHELL: &str = "#!/bin/sh\ntest \"$REQUEST_METHOD\" = GET || sum=$(md5sum)\n\
    printf 'Content-Type: application/octet-stream\\r\\n\\r\\n'\n\
    if test -n \"$sum\"; then printf '%s' \"$CONTENT_LENGTH ${sum%% *}\"; exit; fi\n\
    i=0; while test $i -lt ${QUERY_STRING:-1600}; do cat ./piece || exit; i=$((i+1)); done\n";

/// Two sites: a FastCGI program with two workers, and plain CGI with two runs at a time.
fn settle(world: &World) -> [(User, &'static str); 2] {
    world.script(&world.alice, "a.fcgi", PERL);
    world.site(
        "alice",
        "profile = \"perl\"\n[pool]\ncommand = \"/var/www/alice/htdocs/a.fcgi\"\nworkers = { max = 2 }\n",
    );
    world.script(&world.bob, "a.cgi", SHELL);
    world.script(&world.bob, "piece", piece());
    world.site("bob", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\nworkers = { max = 2 }\n");
    world.apply();
    [(world.alice.clone(), "a.fcgi"), (world.bob.clone(), "a.cgi")]
}

fn piece() -> Vec<u8> {
    (0..=255_u8).cycle().take(PIECE).collect()
}

fn hosts(sites: &[(User, &'static str)], first: u16) -> Vec<Host> {
    let host = |((user, file), port): (&(User, &'static str), u16)| Host {
        site: user.name.clone(),
        name: format!("{}.test", user.name),
        port,
        docroot: user.docroot(),
        socket: format!("/run/cellwall/pool/{}.sock", user.name).into(),
        ending: &file[1..],
    };
    sites.iter().zip(first..).map(host).collect()
}

/// nginx that passes everything on as it comes, however much it is.
fn unbuffered(place: &Path, hosts: &[Host]) -> Command {
    let off = "fastcgi_request_buffering off; fastcgi_buffering off; fastcgi_keep_conn on";
    let change = |text: String| {
        text.replace("fastcgi_keep_conn on", off)
            .replace("client_max_body_size 64m", "client_max_body_size 0")
    };
    web::nginx_with(place, hosts, change)
}

#[test]
fn a_hundred_megabytes_pass_both_ways_and_the_broker_keeps_little_of_them() {
    world(Launcher::Cellwall, |world| {
        let sites = settle(world);
        let daemon = Daemon::start(world);
        let body: Vec<u8> =
            (0..LENGTH).map(|place| (place.wrapping_mul(place) >> 9).to_le_bytes()[0]).collect();
        let sum = md5(&body);
        let mut before = None;
        let servers: [(web::Start, u16); 2] = [(unbuffered, 9001), (web::apache_by_handler, 9011)];
        for (start, port) in servers {
            let place = Path::new("/tmp/server");
            make_directory(place, 0, 0o777);
            let hosts = hosts(&sites, port);
            let _server = Server::start(start, place, &hosts);
            for (host, (_, file)) in hosts.iter().zip(&sites) {
                let path = format!("/{file}");
                is_right(&Ask::get(&host.name, &format!("{path}?1")).send(host.port), 1);
                let before = *before.get_or_insert_with(|| peak(&daemon));
                let answer = Ask::post(&host.name, &path, body.clone()).send(host.port);
                assert_eq!((answer.status, answer.text()), (200, format!("{LENGTH} {sum}")), "{}", host.name);
                is_right(&Ask::get(&host.name, &path).send(host.port), PIECES);
                slow_visitors_hold_nobody_up(host, &path);
                visitors_who_go_away_leave_nothing(host, &path, world);
                let grown = peak(&daemon) - before;
                assert!(grown < GROWTH_KIB, "{grown} KiB more for {}", host.name);
                println!("{}: the broker's peak grew by {grown} KiB", host.name);
            }
        }
    });
}

fn is_right(answer: &Answer, pieces: usize) {
    assert_eq!(answer.status, 200, "{}\n{}", answer.head, logged(&[""]).join("\n"));
    assert_eq!(answer.body.len(), pieces * PIECE);
    assert!(answer.body.chunks(PIECE).all(|part| part == piece()), "other bytes than were sent");
}

/// One takes its answer and one sends its body slowly; meanwhile others are served, and in the end they are as well.
fn slow_visitors_hold_nobody_up(host: &Host, path: &str) {
    let (mut reader, first) = begun(host, path);
    is_right(&Ask::get(&host.name, &format!("{path}?1")).send(host.port), 1);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    let head = first.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(first.len() - head + rest.len(), LENGTH, "{}", host.name);

    let mut writer = request(host, &format!("POST {path}"), 2 * PIECE);
    writer.write_all(&piece()).unwrap();
    is_right(&Ask::get(&host.name, &format!("{path}?1")).send(host.port), 1);
    writer.write_all(&piece()).unwrap();
    let mut answer = String::new();
    writer.read_to_string(&mut answer).unwrap();
    let right = format!("{} {}", 2 * PIECE, md5(&[piece(), piece()].concat()));
    assert!(answer.ends_with(&right), "{answer}");
}

/// More of them than there are workers, in the middle of an answer and of a body.
fn visitors_who_go_away_leave_nothing(host: &Host, path: &str, world: &World) {
    for _ in 0..4 {
        drop(begun(host, path));
        let mut writer = request(host, &format!("POST {path}"), LENGTH);
        writer.write_all(&piece()).unwrap();
    }
    is_right(&Ask::get(&host.name, &format!("{path}?1")).send(host.port), 1);
    if path.ends_with(".cgi") {
        until("the end of programs that nobody waits for", || processes(world.bob.id).is_empty());
    } else {
        assert!(processes(world.alice.id).len() <= 2);
    }
}

/// A visitor who has the first 4096 bytes of a long answer.
fn begun(host: &Host, path: &str) -> (TcpStream, Vec<u8>) {
    let mut reader = request(host, &format!("GET {path}"), 0);
    let mut first = Vec::new();
    (&mut reader).take(4096).read_to_end(&mut first).unwrap();
    let whole = first.len() == 4096 && first.starts_with(b"HTTP/1.1 200 ");
    assert!(whole, "{}\n{}", String::from_utf8_lossy(&first), logged(&[""]).join("\n"));
    (reader, first)
}

fn request(host: &Host, what: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", host.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = if length > 0 { format!("Content-Length: {length}\r\n") } else { String::new() };
    write!(stream, "{what} HTTP/1.0\r\nHost: {}\r\n{length}\r\n", host.name).unwrap();
    stream
}

fn md5(bytes: &[u8]) -> String {
    fs::write("/mnt/body", bytes).unwrap();
    let said = run(Command::new("md5sum").arg("/mnt/body"));
    String::from_utf8(said.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// The most memory that the broker ever had, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let brokers = processes(account().0);
    let is_its = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            parent == Some(daemon.pid().to_string().as_str())
        })
    };
    let pid = brokers.iter().map(|(pid, _)| *pid).find(|pid| is_its(*pid)).expect("a broker");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
