//! Real FastCGI programs behind the relay.

use std::path::PathBuf;
use std::process::{Child, Command};

use cellwall::pool::settings::{Gate, Kind, Settings, Workers};

use crate::stage::{Client, Stage, example, request_in};

/// A directory of this test's own, with these files.
fn docroot(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let place = std::env::temp_dir().join(format!("cellwall-programs-{name}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&place));
    std::fs::create_dir(&place).unwrap();
    for (name, text) in files {
        std::fs::write(place.join(name), text).unwrap();
    }
    place
}

/// Ends a program with all its children.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn php_cgi_with_its_own_children_serves_many_at_once_and_bodies_of_any_size() {
    php("bodies", "0", |round| vec![b'x'; round * 10_000]);
}

/// A child closes its connection a moment after its last answer. What was sent to it meanwhile is given to another, as
/// nothing of it was read. (A request with a body cannot be given twice: the broker's own `requests` limit has no such
/// moment.)
#[test]
fn php_cgi_that_ends_its_children_by_itself_loses_no_request() {
    php("ends", "7", |_| Vec::new());
}

/// 30 rounds of 6 web servers at a parent with 3 children.
fn php(name: &str, most: &str, body: impl Fn(usize) -> Vec<u8>) {
    let script = "<?php echo strlen(file_get_contents('php://input')), ' ', $_SERVER['PATH_INFO'] ?? '-';";
    let place = docroot(name, &[("a.php", script)]);
    let root = place.to_str().unwrap().to_owned();
    let settings = Settings {
        kind: Kind::Parent,
        workers: Workers { max: 1, connections: 3, ..example().workers },
        gate: Gate { docroots: vec![root.as_bytes()], suffixes: vec![b".php"], ..example().gate },
        ..example()
    };
    let mut stage = Stage::new(&settings);
    let mut php = Command::new("/usr/bin/php-cgi");
    php.args(["-d", "cgi.fix_pathinfo=0"]);
    php.env("PHP_FCGI_CHILDREN", "3").env("PHP_FCGI_MAX_REQUESTS", most);
    let (_, child) = stage.program(3, &mut php);
    let _ended = Ended(child);
    let mut clients: Vec<Client> = (0..6).map(|_| stage.client()).collect();
    for round in 0..30 {
        let body = body(round);
        let more = [("QUERY_STRING", "q"), ("HTTP_COOKIE", &"c".repeat(3000))];
        for client in &mut clients {
            client.ask(&request_in(&root, "/a.php", &more, &body, true));
        }
        for client in &mut clients {
            let text = client.answer().text();
            assert!(text.ends_with(&format!("\r\n\r\n{} -", body.len())), "{round}: {text}\n{}", stage.log());
        }
    }
}
