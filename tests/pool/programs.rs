//! Real FastCGI programs behind the relay.

use std::io::Write as _;
use std::ops::Deref;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use cellwall::pool::settings::{Gate, Kind, Settings, Workers};

use crate::stage::{Client, DOCROOT, Stage, example, request_in};

/// A directory of this test's own, which goes with it.
struct Docroot(PathBuf);

impl Docroot {
    /// With these files.
    fn of(name: &str, files: &[(&str, &str)]) -> Self {
        let place = std::env::temp_dir().join(format!("cellwall-programs-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&place));
        std::fs::create_dir(&place).unwrap();
        for (name, text) in files {
            std::fs::write(place.join(name), text).unwrap();
        }
        Self(place)
    }
}

impl Deref for Docroot {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Docroot {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Ends a program of a process group of its own with all its children.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// A parent and its children on a stage, and the docroot of its scripts.
fn php(name: &str, children: u32, scripts: &[(&str, &str)]) -> (Stage, Ended, Docroot) {
    let place = Docroot::of(name, scripts);
    let root = place.to_str().unwrap().to_owned();
    let settings = Settings {
        kind: Kind::Parent,
        command: vec![b"/usr/bin/php-cgi"],
        workers: Workers { max: 1, connections: children, ..example().workers },
        gate: Gate { docroots: vec![root.as_bytes()], suffixes: vec![b".php"], ..example().gate },
        ..example()
    };
    let mut stage = Stage::new(&settings);
    let mut php = Command::new("/usr/bin/php-cgi");
    php.args(["-d", "cgi.fix_pathinfo=0"])
        .env("PHP_FCGI_CHILDREN", children.to_string())
        .env("PHP_FCGI_MAX_REQUESTS", "0");
    let (_, child) = stage.program(children, php.process_group(0));
    (stage, Ended(child), place)
}

/// 30 rounds of 6 web servers.
#[test]
fn php_cgi_with_its_own_children_serves_many_at_once_and_bodies_of_any_size() {
    let script = "<?php echo strlen(file_get_contents('php://input')), ' ', $_SERVER['PATH_INFO'] ?? '-';";
    let (stage, _ended, place) = php("bodies", 3, &[("a.php", script)]);
    let mut clients: Vec<Client> = (0..6).map(|_| stage.client()).collect();
    for round in 0..30 {
        let body = vec![b'x'; round * 10_000];
        let more = [("QUERY_STRING", "q"), ("HTTP_COOKIE", &"c".repeat(3000))];
        for client in &mut clients {
            client.ask(&request_in(place.to_str().unwrap(), "/a.php", &more, &body, true));
        }
        for client in &mut clients {
            let text = client.answer().text();
            assert!(text.ends_with(&format!("\r\n\r\n{} -", body.len())), "{round}: {text}\n{}", stage.log());
        }
    }
}

/// A program that dies in the middle of its work may not have read the last record of its request: the kernel says the same
/// as of a connection that nobody read from. It has run, and must not run again.
#[test]
fn a_request_in_which_php_cgi_dies_is_not_run_again() {
    let dies = "<?php file_put_contents(__DIR__ . '/ran', 'x', FILE_APPEND); posix_kill(getmypid(), 9);";
    let scripts = [("a.php", "<?php usleep(50000); echo 'fine';"), ("dies.php", dies)];
    let (stage, _ended, place) = php("dies", 3, &scripts);
    let root = place.to_str().unwrap();
    let mut clients: Vec<Client> = (0..3).map(|_| stage.client()).collect();
    for client in &mut clients {
        client.ask(&request_in(root, "/a.php", &[], b"", true));
    }
    for client in &mut clients {
        assert!(client.answer().text().ends_with("fine"));
    }
    clients[0].ask(&request_in(root, "/dies.php", &[], b"", true));
    assert!(clients[0].answer().text().starts_with("Status: 502"));
    assert_eq!(std::fs::read(place.join("ran")).unwrap(), b"x", "it ran once; {}", stage.log());
}

/// Three web servers want the only process, so that each request follows the last one at once. In a packet of its own comes the
/// end of a body that there is not, as from Apache; the whole body; its second half.
fn each_is_answered(stage: &Stage, root: &str, script: &str) {
    let ways = [(0, 8), (100_000, 100_000), (6_000, 3_000)];
    thread::scope(|scope| {
        for (length, last) in ways {
            let mut client = stage.client();
            scope.spawn(move || {
                for round in 0..60 {
                    let round = round.to_string();
                    let more = [("QUERY_STRING", round.as_str())];
                    let whole = request_in(root, script, &more, &vec![b'x'; length], true);
                    let (first, second) = whole.split_at(whole.len() - last);
                    client.ask(first);
                    thread::sleep(Duration::from_micros(500));
                    client.stream.write_all(second).unwrap();
                    let text = client.answer().text();
                    assert!(text.ends_with(&format!("\r\n\r\n{round}")), "{length}: {text}");
                }
            });
        }
    });
}

#[test]
fn what_a_program_of_libfcgi_leaves_unread_is_not_taken_for_the_next_request() {
    let mut stage = Stage::new(&example());
    let script = "use FCGI; my $request = FCGI::Request(); while ($request->Accept() >= 0) {\n\
                  select(undef, undef, undef, 0.003); print \"A: b\\r\\n\\r\\n$ENV{QUERY_STRING}\" }";
    let mut perl = Command::new("/usr/bin/perl");
    let (_, child) = stage.program(1, perl.args(["-e", script]).process_group(0));
    let _ended = Ended(child);
    each_is_answered(&stage, DOCROOT, "/a.pl");
}

/// PHP reads it itself, and its connections are kept all the same.
#[test]
fn what_a_script_of_php_leaves_unread_is_not_taken_for_the_next_request() {
    let script = "<?php usleep(3000); echo $_SERVER['QUERY_STRING'];";
    let (stage, _ended, place) = php("unread", 1, &[("a.php", script)]);
    each_is_answered(&stage, place.to_str().unwrap(), "/a.php");
}
