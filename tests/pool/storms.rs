//! Anything at any time: processes that die, administrators who change their minds, and a broker that was taken over. After each
//! storm there is what there would be without it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Launcher, User, World, world};

use super::host::{Daemon, Nginx, processes, until};
use super::supervisor::in_the_brokers_stead;

/// Answers with the settings that it was started under.
const WORKER: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $age = $ENV{AGE};\nmy $request = FCGI::Request();\n\
                      while ($request->Accept() >= 0) { print \"Content-Type: text/plain\\r\\n\\r\\n$age\"; }\n";
const PROGRAM: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s' \"$AGE\"\n";

/// Every kind of frame that a broker may send, of any site, worker and run; now and then one that is none.
const FRAMES: &str = "
import random
random.seed(SEED)
for _ in range(200):
    kind = random.choice(range(130, 143))
    detail = random.randrange(1, 10) if kind in (133, 134, 136) else 0
    site, worker, number = random.randrange(5), random.randrange(60), random.choice([0, 1, 2, 3, 4, pid, 2**32 - 1])
    if kind in (130, 131, 135, 136, 137, 139, 142): worker = 0
    if kind in (132, 133, 134, 138, 140, 142): number = 0
    if kind in (137, 142): site = 0
    if random.random() < 0.002: detail += 17
    frame, files = struct.pack('<BBHIIIQQ', kind, detail, 0, site, worker, 0, number, 0), []
    if kind == 135:
        files = [os.memfd_create('run')]
        os.write(files[0], random.choice([b'', b'A', b'SCRIPT_FILENAME=/var/www/bob/htdocs/a.cgi\\0', bytes(4096)]))
    try: socket.send_fds(channel, [frame], files, socket.MSG_DONTWAIT)
    except BlockingIOError: time.sleep(0.01)
    except OSError: break
    for one in files: os.close(one)
os.kill(pid, signal.SIGKILL)
";

/// A site, and what is promised of it at this moment.
struct Site {
    user: User,
    path: &'static str,
    rules: &'static str,
    /// The settings that it has.
    age: u32,
    stopped: bool,
    /// Its socket.
    place: (u64, u64),
}

impl Site {
    fn socket(&self) -> String {
        format!("/run/cellwall/pool/{}.sock", self.user.name)
    }

    fn write(&self, world: &World) {
        let command = self.user.docroot().join("app.fcgi");
        let rules = self.rules.replace("COMMAND", &format!("command = \"{}\"", command.display()));
        let set = format!("[environment]\nset = {{ AGE = \"{}\" }}\n", self.age);
        world.site(&self.user.name, &format!("{rules}\n{set}"));
    }
}

/// Numbers that are the same in each run of a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        // Knuth's MMIX; the upper bits are the better ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

struct Storm<'w> {
    world: &'w World,
    daemon: Daemon,
    nginx: Nginx,
    sites: Vec<Site>,
    told: Vec<String>,
}

impl Storm<'_> {
    /// One thing happens, and the next one comes before its end.
    fn happen(&mut self, chance: &mut Chance) {
        let (what, which) = (chance.below(10), chance.below(self.sites.len()));
        let name = self.sites[which].user.name.clone();
        let broker = self.daemon.child("broker");
        self.told.push(format!("{what} {name}"));
        match what {
            0 => broker.into_iter().for_each(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or(())),
            1 | 2 => {
                let all = processes(self.sites[which].user.id);
                if !all.is_empty() {
                    let _ = kill(Pid::from_raw(all[chance.below(all.len())].0), Signal::SIGKILL);
                }
            }
            3 | 4 => {
                self.sites[which].age += 1;
                self.sites[which].write(self.world);
                self.world.apply();
            }
            5 => self.wish("stop", which),
            6 | 7 => self.wish("start", which),
            8 => drop(self.world.cellwall(&["deployed", &name])),
            _ => {
                let seed = chance.below(1 << 20);
                broker.into_iter().for_each(|pid| {
                    drop(in_the_brokers_stead(pid, &FRAMES.replace("SEED", &seed.to_string())))
                });
            }
        }
        for site in &self.sites {
            UnixStream::connect(site.socket())
                .unwrap_or_else(|why| panic!("{}: {why}; {:?}", site.socket(), self.told));
        }
    }

    fn wish(&mut self, wish: &str, which: usize) {
        let said = self.world.cellwall(&["pool", wish, &self.sites[which].user.name]);
        assert!(said.status.success(), "{}; {:?}", String::from_utf8_lossy(&said.stderr), self.told);
        self.sites[which].stopped = wish == "stop";
    }

    /// What holds whatever happened.
    fn calm(&mut self) {
        assert!(self.daemon.has_ended().is_none(), "the supervisor has ended: {:?}", self.told);
        until("one broker", || self.daemon.child("broker").is_some());
        for site in &self.sites {
            let Site { user: User { name, id }, path, age, stopped, .. } = site;
            let story = format!("{name} at {age}, stopped: {stopped}; {:?}", self.told);
            let wanted = if *stopped { (503, String::new()) } else { (200, age.to_string()) };
            let answer = || {
                let answer = self.nginx.get(name, path);
                (answer.status, if *stopped { String::new() } else { answer.text() })
            };
            until(&story, || answer() == wanted);
            until(&story, || self.belong(site));
            (0..4).for_each(|_| assert_eq!(answer(), wanted, "{story}"));
            let facts = fs::symlink_metadata(site.socket()).unwrap();
            assert_eq!((facts.dev(), facts.ino()), site.place, "another socket: {story}");
            assert!(processes(*id).len() <= 4, "{story}: {:?}", processes(*id));
        }
    }

    /// Each process of a site is the supervisor's, or a child of such a one, and of today's settings; a stopped site has none.
    fn belong(&self, site: &Site) -> bool {
        let all: BTreeMap<i32, Option<i32>> =
            processes(site.user.id).into_iter().map(|(pid, _)| (pid, parent(pid))).collect();
        let supervisor = self.daemon.pid().as_raw();
        let owned = all.values().flatten().all(|parent| *parent == supervisor || all.contains_key(parent));
        let today = format!("AGE={}\0", site.age);
        let of_today = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            // A zygote has none.
            environment.is_empty() || String::from_utf8_lossy(&environment).contains(&today)
        };
        owned && all.keys().all(of_today) && (all.is_empty() || !site.stopped)
    }
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:\t"))?.parse().ok()
}

fn storm(seed: u64) {
    world(Launcher::Cellwall, |world| {
        for user in [&world.alice, &world.carol] {
            world.script(user, "app.fcgi", WORKER);
        }
        world.script(&world.bob, "a.cgi", PROGRAM);
        let site = |user: &User, path, rules| Site {
            user: user.clone(),
            path,
            rules,
            age: 1,
            stopped: false,
            place: (0, 0),
        };
        let mut sites = vec![
            site(
                &world.alice,
                "/app.fcgi",
                "profile = \"perl\"\n[pool]\nCOMMAND\nworkers = { min = 1, max = 2 }",
            ),
            site(&world.bob, "/a.cgi", "profile = \"sh\"\n[pool]\nkind = \"cgi\""),
            site(
                &world.carol,
                "/app.fcgi",
                "profile = \"perl\"\n[pool]\nCOMMAND\naccept = \"direct\"\nworkers = { max = 2 }",
            ),
        ];
        sites.iter().for_each(|site| site.write(world));
        world.apply();
        let daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob", "carol"], "");
        for site in &mut sites {
            let facts = fs::symlink_metadata(site.socket()).unwrap();
            site.place = (facts.dev(), facts.ino());
        }
        let mut storm = Storm { world, daemon, nginx, sites, told: Vec::new() };
        let mut chance = Chance(seed);
        storm.calm();
        for _ in 0..ROUNDS {
            (0..=chance.below(5)).for_each(|_| storm.happen(&mut chance));
            storm.calm();
        }
    });
}

/// Each takes some seconds.
const ROUNDS: usize = 8;

#[test]
fn after_a_storm_all_is_as_without_it() {
    storm(1);
}

#[test]
fn after_another_storm_it_is_so_as_well() {
    storm(2);
}
