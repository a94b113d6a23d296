//! Workers that are replaced, and starts that fail: what serves goes on until something better does.

use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, World, world};

use super::host::{Daemon, Nginx, logged, until};

/// Answers with its pid.
const GOOD: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                    print \"Content-Type: text/plain\\r\\n\\r\\n$$\"; }\n";

/// alice's site: this program of hers, and more of `[pool]`.
fn fastcgi(world: &World, name: &str, text: &str, more: &str) {
    let path = world.script(&world.alice, name, text);
    let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n{more}", path.display());
    world.site("alice", &rules);
    world.apply();
}

/// strace(1), which changes calls of the supervisor's as long as it is there.
struct Tracer(Child);

impl Tracer {
    fn on(daemon: &Daemon, words: &[&str]) -> Self {
        let pid = daemon.pid().to_string();
        let mut tracer = Command::new("/usr/bin/strace");
        tracer.args(["-o", "/tmp/tracer"]).args(words).args(["-p", &pid]);
        let tracer = Self(crate::harness::spawn(&mut tracer));
        until("the tracer", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            !status.contains("TracerPid:\t0\n")
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGINT);
        drop(self.0.wait());
    }
}

const FORKS: &str = "clone,clone3,fork,vfork";

#[test]
fn after_a_fork_that_failed_the_next_start_succeeds() {
    world(Launcher::Cellwall, |world| {
        fastcgi(world, "good.fcgi", GOOD, "workers = { max = 1 }\n");
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let tracer = Tracer::on(
            &daemon,
            &["-e", &format!("trace={FORKS}"), "-e", &format!("inject={FORKS}:error=EAGAIN:when=1")],
        );
        drop(nginx.begun("alice", "/good.fcgi"));
        until("the failed start", || !logged(&["pool fail", "site=alice"]).is_empty());
        drop(tracer);
        until("an answer", || nginx.get("alice", "/good.fcgi").status == 200);
        assert_eq!(logged(&["pool fail", "site=alice"]).len(), 1, "{}", logged(&["pool "]).join("\n"));
        let names = std::fs::read_dir("/run/cellwall/broker").unwrap();
        assert_eq!(names.count(), 1, "the failed one's socket is gone");
    });
}
