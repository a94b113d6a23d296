//! Requests a second beside the peer.

use super::Options;
use super::host::{Host, WORKERS};
use super::load::{self, Run};
use super::numbers::{median, verdict};

/// A server of nginx's, and what is behind it.
pub(crate) struct Socket {
    pub(crate) port: u16,
    pub(crate) site: &'static str,
    pub(crate) socket: &'static str,
    /// Connections that each nginx worker keeps to it; 0: a new one for each request, as nginx does by default.
    pub(crate) kept: u32,
}

const fn socket(port: u16, site: &'static str, socket: &'static str, kept: u32) -> Socket {
    Socket { port, site, socket, kept }
}

/// `keepalive` of packaging/nginx/pool.conf.
pub(crate) const SHIPPED: u32 = 8;

pub(crate) const SOCKETS: [Socket; 14] = [
    socket(8101, "php", "/run/peers/fpm.sock", 0),
    socket(8102, "php", "/run/cellwall/pool/php.sock", 0),
    socket(8103, "direct", "/run/cellwall/pool/direct.sock", 0),
    socket(8104, "php", "/run/peers/fpm-kept.sock", 2),
    socket(8105, "php", "/run/cellwall/pool/php.sock", SHIPPED),
    socket(8106, "c", "/run/peers/c.sock", 2),
    socket(8107, "c", "/run/cellwall/pool/c.sock", 32),
    socket(8108, "cgi", "/run/peers/wrap/socket", 0),
    socket(8109, "cgi", "/run/cellwall/pool/cgi.sock", 0),
    socket(8110, "php", "/run/peers/fpm-recycle.sock", 0),
    socket(8111, "recycle", "/run/cellwall/pool/recycle.sock", 0),
    socket(8113, "c", "/run/peers/c.sock", 0),
    socket(8114, "php", "/run/peers/php-cgi.sock", 0),
    socket(8112, "noisy", "/run/cellwall/pool/noisy.sock", 0),
];

/// Two contenders, the peer first.
struct Pair {
    what: &'static str,
    path: &'static str,
    connections: u32,
    ports: [u16; 2],
    target: f64,
}

/// PHP and C hello through nginx.
pub(crate) fn hello(_: &mut Host, options: &Options) {
    println!("HELLO (nginx, {WORKERS} workers each, requests a second)");
    let pair = |what, connections, peer, own, target| Pair {
        what,
        path: "/hello.php",
        connections,
        ports: [peer, own],
        target,
    };
    compare(
        options,
        &[
            pair("php-fpm static : relay", 8, 8101, 8102, 0.93),
            pair("php-fpm static : relay", 64, 8101, 8102, 0.93),
            pair("both with kept connections", 8, 8104, 8105, 0.93),
            pair("fpm new, relay kept: as shipped", 8, 8101, 8105, 0.93),
            pair("fpm new, relay kept: as shipped", 64, 8101, 8105, 0.93),
            pair("php-fpm static : direct", 8, 8101, 8103, 1.0),
            pair("php-fpm static : direct", 64, 8101, 8103, 1.0),
            pair("php-fpm static : bare php-cgi", 8, 8101, 8114, 1.0),
            pair("php-fpm static : bare php-cgi", 64, 8101, 8114, 1.0),
            pair("bare php-cgi : direct", 8, 8114, 8103, 1.0),
            pair("bare php-cgi : direct", 64, 8114, 8103, 1.0),
            Pair { path: "/hello.fcgi", ..pair("C, nginx to it : relay, kept", 8, 8113, 8107, 1.0) },
            Pair { path: "/hello.fcgi", ..pair("C, nginx to it : relay, kept", 64, 8113, 8107, 1.0) },
            Pair { path: "/hello.fcgi", ..pair("C, both kept", 8, 8106, 8107, 1.0) },
        ],
    );
}

/// Answers of a megabyte.
pub(crate) fn large(_: &mut Host, options: &Options) {
    println!("ONE MEGABYTE (nginx, {WORKERS} workers each, requests a second)");
    let pair = |connections| Pair {
        what: "php-fpm static : relay",
        path: "/large.php",
        connections,
        ports: [8101, 8102],
        target: 0.80,
    };
    compare(options, &[pair(8), pair(64)]);
}

/// Plain CGI: the whole pipeline for each request, beside fcgiwrap with nothing.
pub(crate) fn cgi(_: &mut Host, options: &Options) {
    println!(
        "PLAIN CGI (nginx, fcgiwrap with nothing on : kind = \"cgi\" with everything, requests a second)"
    );
    let pair = |what, path, target| Pair { what, path, connections: 8, ports: [8108, 8109], target };
    compare(
        options,
        &[
            pair("C, static", "/hello.cgi", 0.85),
            pair("sh", "/hello.sh", 0.85),
            pair("perl", "/hello.pl", 0.95),
        ],
    );
}

fn compare(options: &Options, pairs: &[Pair]) {
    for pair in pairs {
        let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
        for port in pair.ports {
            let answer = load::ask(port, pair.path).unwrap_or_default();
            assert!(answer.starts_with("HTTP/1.1 200"), "{} on port {port}: {answer}", pair.what);
            load::run(port, pair.path, pair.connections, 1);
        }
        for round in 0..options.rounds {
            for place in 0..2 {
                let which = (place + round) % 2;
                let run = load::run(pair.ports[which], pair.path, pair.connections, options.seconds);
                assert_eq!(run.bad, 0, "{} on port {}: {run:?}", pair.what, pair.ports[which]);
                runs[which].push(run);
            }
        }
        let ratio = median(runs[0].iter().zip(&runs[1]).map(|(peer, own)| own.rate / peer.rate));
        let rate = |which: usize| median(runs[which].iter().map(|run| run.rate));
        let p99 = |which: usize| median(runs[which].iter().map(|run| run.p99));
        println!(
            "  {:32} c={:<3} {:7.0} : {:7.0}   {ratio:5.2}   target {:4.2}: {}   (p99 {:.1} : {:.1} ms)",
            pair.what,
            pair.connections,
            rate(0),
            rate(1),
            pair.target,
            verdict(ratio, pair.target, false),
            p99(0),
            p99(1)
        );
    }
    println!();
}
