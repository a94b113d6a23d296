//! FLT-02: system calls of the supervisor fail, one in each life of a daemon that starts, serves, reloads and ends.
//!
//! The tracer is strace(1), which changes one call of the daemon's own process; its children run undisturbed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{LOG, Launcher, World, put, world};

use super::host::{Daemon, logged, processes, until};
use super::stage::{Answer, Client, request_in};

/// Every cell, or a sample that is always the same: how often a call is made depends on the machine.
fn is_wanted(call: usize, nth: usize) -> bool {
    std::env::var_os("CELLWALL_FAULTS").is_some_and(|word| word == "all")
        || call.is_multiple_of(2) && nth == 1
}

/// In turn.
const ERRORS: [&str; 5] = ["EPERM", "ENOMEM", "EIO", "EAGAIN", "EMFILE"];
/// Calls that no kernel fails, or that are the start of the C library; a close(2) that says EIO has closed.
/// To wait without waiting has no error but that there is no child.
const NEVER: [&str; 12] = [
    "execve",
    "exit_group",
    "brk",
    "arch_prctl",
    "close",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "getpid",
    "rt_sigreturn",
    "waitid",
    "wait4",
];
const TRACE: &str = "/tmp/supervisor.calls";

const HELLO: &str = "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\r\\n\\r\\nuid=$<\\n\";\n";

const WORKER: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                      print \"Content-Type: text/plain\\r\\n\\r\\nuid=$<\\n\"; }\n";
/// What `[pool]` says, for programs that are started for each request and for workers.
const KINDS: [&str; 2] = ["kind = \"cgi\"", "command = \"/usr/local/bin/worker\""];

fn prepare(world: &World) {
    world.script(&world.alice, "hello.cgi", HELLO);
    put("/usr/local/bin/worker", WORKER.as_bytes(), 0, 0o755);
}

/// Other settings with each number, so that a reload has something to take.
fn settings(world: &World, kind: &str, number: u32) {
    world.site(
        "alice",
        &format!("profile = \"perl\"\n[pool]\n{kind}\nworkers = {{ max = {number}, idle = \"1s\" }}\n"),
    );
    world.apply();
}

fn ask(world: &World) -> Option<Answer> {
    let socket = Path::new("/run/cellwall/pool/alice.sock");
    let stream = UnixStream::connect(socket).ok()?;
    // Whoever is never answered shall know it.
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut client = Client::over(stream);
    let root = world.alice.docroot().to_str().unwrap().to_owned();
    client.ask(&request_in(&root, "/hello.cgi", &[], b"", false));
    Some(client.answer())
}

fn is_served(world: &World) -> bool {
    let told = format!("uid={}\n", world.alice.id);
    ask(world).is_some_and(|answer| answer.text().ends_with(&told))
}

/// Nobody's but the site's user ever runs its program, whatever failed.
fn is_sane(world: &World, answer: Option<&Answer>) -> Result<(), String> {
    let Some(answer) = answer else { return Ok(()) };
    let text = answer.text();
    let right = text.contains(&format!("uid={}\n", world.alice.id)) || !text.contains("uid=");
    if right { Ok(()) } else { Err(format!("the answer was {text:?}")) }
}

/// What is left of one life: the descriptors that it had when it rested, and how it ended.
struct Life {
    descriptors: Vec<String>,
    died: bool,
}

/// One life. Err: what was wrong with it.
fn live(world: &World, kind: &str, options: &str, most: Option<usize>) -> Result<Life, String> {
    fs::write(LOG, "").unwrap();
    // One that died leaves it.
    drop(fs::remove_file("/run/cellwall/status.sock"));
    settings(world, kind, 1);
    let mut daemon = Daemon::traced(world, &format!("/usr/bin/strace -DDD -o {TRACE} {options}"));
    let Some(pid) = daemon.ready() else {
        return gone(world, &[]).map(|()| Life { descriptors: Vec::new(), died: true });
    };
    is_sane(world, ask(world).as_ref())?;
    settings(world, kind, 2);
    let children = children_of(pid);
    let _ = kill(pid, Signal::SIGHUP);
    is_sane(world, ask(world).as_ref())?;
    if daemon.has_ended().is_some() {
        return gone(world, &children).map(|()| Life { descriptors: Vec::new(), died: true });
    }
    // What one fault took away, a reload gives back; the broker starts again after a while.
    let served = (0..200).any(|_| {
        let served = is_served(world);
        if !served {
            let _ = kill(pid, Signal::SIGHUP);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        served || daemon.has_ended().is_some()
    });
    if daemon.has_ended().is_some() {
        return gone(world, &children).map(|()| Life { descriptors: Vec::new(), died: true });
    }
    if !served {
        return Err(format!("the site is never served again:\n{}", logged(&[""]).join("\n")));
    }
    until("the end of its program", || processes(world.alice.id).is_empty());
    // It comes to rest after a while; nobody knows when, where it is asked for the first time.
    let seen = |times| {
        (0..times).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            descriptors(pid)
        })
    };
    let open = match most {
        None => seen(400).min_by_key(Vec::len).unwrap_or_default(),
        Some(most) => seen(3000).find(|open| open.len() <= most).unwrap_or_else(|| descriptors(pid)),
    };
    let children = [children, children_of(pid)].concat();
    let _ = kill(pid, Signal::SIGTERM);
    let status = (0..3000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        daemon.has_ended()
    });
    let Some(status) = status else {
        daemon.murder();
        return Err("it does not end".to_owned());
    };
    gone(world, &children)?;
    Ok(Life { descriptors: open, died: !status.success() })
}

/// What it holds open.
fn descriptors(pid: Pid) -> Vec<String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    all.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned())).collect()
}

/// Nothing of it runs any more.
fn gone(world: &World, children: &[i32]) -> Result<(), String> {
    for _ in 0..1000 {
        let alive = children.iter().any(|pid| {
            // A number may be somebody else's by now.
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("cellwall"))
        });
        if processes(world.alice.id).is_empty() && !alive {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(format!("it left {:?} and of {children:?} some", processes(world.alice.id)))
}

fn children_of(pid: Pid) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// How often each call is made in a life in which nothing fails.
fn calls() -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for line in fs::read_to_string(TRACE).unwrap().lines() {
        let name = line.split('(').next().unwrap_or_default();
        let plain = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if plain && !NEVER.contains(&name) {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[test]
fn flt_02_no_call_of_the_supervisor_can_fail_and_leave_half_of_it() {
    for kind in KINDS {
        world(Launcher::Cellwall, |world| {
            prepare(world);
            let ordinary = live(world, kind, "-e trace=all", None).unwrap();
            assert!(ordinary.descriptors.len() > 3, "of a daemon at rest");
            assert!(!ordinary.died, "{}", fs::read_to_string("/tmp/cellwalld.err").unwrap());
            let calls = calls();
            assert!(calls.len() > 20 && calls.contains_key("epoll_wait"), "{calls:?}");
            let names = calls.iter().enumerate();
            let cells =
                names.flat_map(|(call, (name, count))| (1..=*count).map(move |nth| (call, name, nth)));
            let (mut wrong, mut done, mut died) = (Vec::new(), 0, 0);
            for (call, name, nth) in cells.filter(|(call, _, nth)| is_wanted(*call, *nth)) {
                let error = ERRORS[(call + nth) % ERRORS.len()];
                done += 1;
                let options = format!("-e trace={name} -e inject={name}:error={error}:when={nth}");
                match live(world, kind, &options, Some(ordinary.descriptors.len())) {
                    Ok(life) if life.descriptors.len() > ordinary.descriptors.len() => {
                        let (left, usual) = (life.descriptors.join(" "), ordinary.descriptors.join(" "));
                        wrong.push(format!("{name} {nth} {error}: left are {left}\nand not only {usual}"));
                    }
                    Ok(life) => died += u32::from(life.died),
                    Err(why) => wrong.push(format!("{name} {nth} {error}: {why}")),
                }
            }
            println!("supervisor: {kind}: cells={done} ended={died} violations={}", wrong.len());
            assert!(wrong.is_empty(), "{kind}: {} of {done}:\n{}", wrong.len(), wrong.join("\n"));
        });
    }
}
