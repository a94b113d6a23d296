//! `cellwall learn --traffic`: a site is served by its real web server, and what its programs ask for in vain is heard.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::denials::{audit_alone, in_first_network, told};
use crate::harness::{
    Answer, Apache, Ask, Kind, Launcher, World, make_directory, not_shown, put, run, spawn, world,
};
use crate::host::{Daemon, Nginx};
use crate::learn::{HAND, application};

/// A watch that hears.
struct Watch {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Watch {
    /// None: the kernel has no audit, or does not speak to a container, which was said.
    fn start() -> Option<Self> {
        let mut command = in_first_network(&["learn", "alice", "--traffic"]);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut all = String::new();
        while !all.contains("watching what fails") {
            if errors.read_line(&mut all).unwrap() == 0 {
                assert!(
                    all.contains("does not speak to a container") || all.contains("without audit"),
                    "{all}"
                );
                assert!(!child.wait().unwrap().success());
                not_shown(&format!(
                    "no audit, so what visitors ask for in vain is not heard: {}",
                    all.trim()
                ));
                return None;
            }
        }
        Some(Self { child, errors })
    }

    /// What it proposes.
    fn end(mut self) -> String {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}{errors}");
        text
    }
}

/// Watches, asks, and does what is proposed, again and again until the visitor is served. All that was proposed.
fn learn_until_served(world: &World, ask: impl Fn() -> Answer, renew: impl Fn()) -> Option<String> {
    let (mut all, end) = (String::new(), Instant::now() + Duration::from_secs(180));
    loop {
        let before = world.cellwall(&["policy", "alice"]).stdout;
        let watch = Watch::start()?;
        let answer = ask();
        if answer.status == 200 && answer.text().contains("well") {
            assert!(!all.is_empty(), "nothing was missing");
            watch.end();
            return Some(all);
        }
        let text = watch.end();
        assert!(text.contains("Nothing is applied."), "{text}");
        assert_eq!(world.cellwall(&["policy", "alice"]).stdout, before, "something was applied");
        all.push_str(&text);
        for line in text.lines().filter_map(|line| line.strip_prefix("# cellwall set ")) {
            let said = run(Command::new("/bin/sh").args(["-c", &format!("cellwall set {line}")]));
            assert!(said.status.success(), "{line}: {}", told(&said));
        }
        renew();
        assert!(Instant::now() < end, "never served:\n{all}");
    }
}

#[test]
fn what_visitors_make_a_site_ask_for_in_vain_is_proposed_and_suffices() {
    let _audit = audit_alone();
    world(Launcher::Cellwall, |world| {
        let _service = application(world);
        let apache = Apache::start(world, Kind::Event, "");
        let ask = || apache.ask(&Ask::get("alice.test", "/a.cgi"));
        let Some(all) = learn_until_served(world, ask, || ()) else { return };
        // The view does not show these: no denial, and heard all the same.
        for part in ["    \"dns\", # ", "    \"/srv/shop", "    \"/srv/shoplog\", # ", "    3307, # "] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
        assert!(all.contains("first by /usr/bin/python3"), "{all}");
        for secret in ["/etc/shadow", "/var/www/bob/htdocs/config.php", "/srv/shop/tls.key"] {
            assert!(!all.contains(&format!("    \"{secret}\", #")), "{secret}:\n{all}");
        }
        // The kernel's audit is as it was, and its rule gone.
        let said = told(&world.cellwall(&["denials", "alice"]));
        assert!(said.contains("audit is on, which is off"), "left on: {said}");
        let rules = run(&mut in_first_network(&["denials", "--switch", "off"]));
        assert!(rules.status.success(), "{}", told(&rules));
    });
}

#[test]
fn what_a_pools_worker_asks_for_in_vain_is_heard() {
    let _audit = audit_alone();
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/shop", 0, 0o755);
        put("/srv/shop/prices", b"1\n", 0, 0o644);
        let worker = "#!/usr/bin/perl\nuse FCGI; my $r = FCGI::Request(); while ($r->Accept() >= 0) {\n\
                      my $word = open(my $file, '<', '/srv/shop/prices') ? 'well' : 'no prices';\n\
                      print \"Content-Type: text/plain\\r\\n\\r\\n$word\\n\"; }\n";
        let path = world.script(&world.alice, "app.fcgi", worker);
        let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n", path.display());
        world.site("alice", &rules);
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        // A worker lives in the cell that it was started in.
        let renew = || assert!(world.cellwall(&["deployed", "alice"]).status.success());
        let ask = || nginx.get("alice", "/app.fcgi");
        let Some(all) = learn_until_served(world, ask, renew) else { return };
        assert!(all.contains("\"/srv/shop/prices\", # ") && all.contains("first by /usr/bin/perl"), "{all}");
    });
}

#[test]
fn a_program_that_leaves_its_watch_does_not_outlive_it() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", HAND);
        world.apply();
        // A daemon of the old school, and one that has a child of its own.
        let daemons = "setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & exit 0";
        let said = world.cellwall(&["learn", "alice", "--most", "3", "--", "/bin/sh", "-c", daemons]);
        assert!(said.status.success(), "{}", told(&said));
        assert_eq!(crate::host::processes(world.alice.id), Vec::new());
    });
}
