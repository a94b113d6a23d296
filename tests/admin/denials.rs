//! `cellwall denials`: denied paths and ports, told by the kernel's audit with no audit daemon.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, Outcome, World, hold, not_shown, put, run, spawn, world};

/// The kernel's audit is one for all tests of this machine: held, it is this test's.
pub(crate) fn audit_alone() -> UnixDatagram {
    loop {
        if let Some(held) = hold("cellwall-test-audit") {
            return held;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The kernel tells its first network namespace alone. A world's thread has another one, but not the first thread.
pub(crate) fn in_first_network(words: &[&str]) -> Command {
    let first = format!("--net=/proc/{}/ns/net", std::process::id());
    let mut command = Command::new("nsenter");
    command.args([first.as_str(), "cellwall"]).args(words);
    command
}

pub(crate) fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const RULES: &str = "[files]\nexecute = [\"/usr/bin\", \"/usr/lib\", \"/usr/lib64?\"]\nread = [\"/etc/ld.so.cache?\", \
                     \"/etc/alternatives?\"]\n[network]\nconnect = [25]\n[jail]\nkind = \"host\"\nlog_denials = true\n";

/// A file and a port that no rule lists; the file by a child.
const SCRIPT: &str = "#!/usr/bin/perl\nuse Socket;\nif (fork() == 0) { open(my $file, '<', '/srv/prices'); exit 0 }\nwait;\n\
    socket(my $socket, PF_INET, SOCK_STREAM, 0);\nconnect($socket, sockaddr_in(3307, inet_aton('127.0.0.1')));\n\
    print \"Content-Type: text/plain\\n\\nended\\n\";\n";

const DENIED: [&str; 2] =
    ["/usr/bin/perl: fs.read_file of /srv/prices", "/usr/bin/perl: net.connect_tcp 3307"];

fn tried(world: &World) -> Outcome {
    let outcome = world.call(&world.alice, "a.cgi").run();
    assert!(outcome.out_text().contains("ended"), "{}", outcome.story());
    outcome
}

/// Starts `denials --watch` and has the site's program denied until both lines are there.
fn watched(world: &World) {
    let mut command = in_first_network(&["denials", "alice", "--watch"]);
    let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let lines: Vec<String> =
        errors.by_ref().map_while(Result::ok).take_while(|line| !line.starts_with("watching")).collect();
    assert!(lines.is_empty(), "{lines:?}");
    let (sender, receiver) = mpsc::channel();
    let output = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    tried(world);
    let mut missing: Vec<&str> = DENIED.to_vec();
    let end = Instant::now() + Duration::from_secs(60);
    while !missing.is_empty() {
        let line = receiver.recv_timeout(end.saturating_duration_since(Instant::now()));
        let line = line.unwrap_or_else(|_| panic!("never told: {missing:?}"));
        missing.retain(|part| !line.contains(part));
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(errors.any(|line| line.unwrap().ends_with(" told")));
}

#[test]
fn denied_paths_and_ports_are_told_without_an_audit_daemon() {
    let _audit = audit_alone();
    world(Launcher::Cellwall, |world| {
        put("/srv/prices", b"1\n", 0, 0o644);
        world.script(&world.alice, "a.cgi", SCRIPT);
        world.site("alice", RULES);
        world.apply();
        let switched = world.cellwall(&["denials", "--switch", "off"]);
        let said = told(&world.cellwall(&["denials", "alice"]));
        if !switched.status.success() {
            // A kernel without audit, or a container: it is said, and no denial is promised.
            let why =
                said.lines().find_map(|line| line.strip_prefix("note: no denied paths and ports are told: "));
            let why = why.unwrap_or_else(|| panic!("no note in {said}"));
            not_shown(&format!("no audit, so denied paths and ports are not told: {why}"));
            return;
        }
        assert!(said.contains("audit is on, which is off") && said.contains("--switch on"), "{said}");
        watched(world);
        let said = told(&world.cellwall(&["denials", "alice"]));
        assert!(said.contains("audit is on, which is off"), "left on: {said}");
        // The remedy, pasted. The kernel's log takes ten lines in five seconds: again, until it had room.
        let help = said.lines().find_map(|line| line.split_once("help: ")?.1.split(", or ").next());
        let switch = run(Command::new("sh").args(["-c", help.unwrap()]));
        assert!(switch.status.success(), "{}", told(&switch));
        let end = Instant::now() + Duration::from_secs(90);
        let story = loop {
            let reference = tried(world).records[0].field("ref").to_owned();
            let said = told(&world.cellwall(&["denials", "alice"]));
            let story = told(&world.cellwall(&["why", &reference]));
            let all = DENIED.iter().all(|part| said.contains(part));
            if all && story.contains("kernel    net.connect_tcp 3307") {
                assert!(said.contains("ten lines in five seconds"), "{said}");
                break story;
            }
            assert!(Instant::now() < end, "{said}\n{story}");
            std::thread::sleep(Duration::from_secs(2));
        };
        assert!(!told(&world.cellwall(&["denials", "bob"])).contains("prices"), "{story}");
        let switch = world.cellwall(&["denials", "--switch", "off"]);
        assert!(switch.status.success(), "{}", told(&switch));
    });
}
