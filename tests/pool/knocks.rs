//! Messages that bring descriptors along to where none is expected. Whoever does not take one drops it, and a TCP socket that
//! lingers (`SO_LINGER`, socket(7)) holds up who drops its last copy until its peer has read all, which it never does.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cellwall::policy::DIRECTORY;
use cellwall::pool::settings::{self, SUFFIX, Settings};
use nix::sys::signal::{Signal, kill};

use crate::harness::{Launcher, World, world};

use super::daemon::relayed;
use super::host::{Daemon, Nginx, logged, processes, until};
use super::rows::broker;
use super::supervisor::{in_the_brokers_stead, start_in_the_brokers_stead};

/// `s` lingers for ever, with data that its peer does not read.
const LINGERS: &str = "
import socket, struct, sys, threading, time
a = socket.create_server(('127.0.0.1', 0))
s = socket.create_connection(a.getsockname())
b, _ = a.accept()
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 30000))
s.setblocking(False)
try:
    while True: s.send(bytes(65536))
except BlockingIOError: pass
";

/// Sends it to the daemon's control socket: as the first message, behind another one, or in a crowd that goes away at once.
const KNOCKS: &str = "
def knock(messages):
    c = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    c.connect('/run/cellwall/control.sock')
    try:
        for number in range(messages - 1): c.send(bytes(260 * number))
        socket.send_fds(c, [bytes(260)], [s.fileno()])
    except OSError: pass
    return c
how = sys.argv[1]
knocks = [knock({'first': 1, 'behind': 3, 'crowd': 1}[how]) for number in range({'first': 1, 'behind': 20, 'crowd': 200}[how])]
if how == 'crowd': knocks.clear()
# Where the last copy is this one, to drop it takes as long.
threading.Thread(target=s.close, daemon=True).start()
time.sleep(0.5)
print('sent', flush=True)
time.sleep(600)
";

/// Starts the program that follows as on a kernel before 6.16: to refuse descriptors (`SO_PASSRIGHTS`) is an unknown wish.
const OLD: &str = "
import ctypes, os, platform, struct, sys
setsockopt = {'x86_64': 54, 'aarch64': 208}[platform.machine()]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 5, setsockopt), (LOAD, 0, 0, 24), (EQUAL, 0, 3, 1), (LOAD, 0, 0, 32), (EQUAL, 0, 1, 83),
         (RETURN, 0, 0, 0x50000 | 92), (RETURN, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
filter = ctypes.create_string_buffer(struct.pack('H6xQ', len(steps), ctypes.addressof(program)))
assert ctypes.CDLL(None).prctl(22, 2, filter, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn pool_29_no_local_users_message_holds_the_daemon_up() {
    no_message_holds_it_up(Daemon::start);
}

#[test]
fn pool_29_nor_does_it_before_the_kernel_refuses_descriptors() {
    no_message_holds_it_up(|world| {
        fs::write("/tmp/old.py", OLD).unwrap();
        let mut daemon = Daemon::traced(world, "/usr/bin/python3 /tmp/old.py");
        assert!(daemon.ready().is_some());
        daemon
    });
}

/// On a kernel that refuses descriptors it is the sender who hears of it, and nobody looks at anything.
#[test]
fn pool_29_a_kernel_that_can_refuses_descriptors_for_the_daemon() {
    if !knows_passrights() {
        return;
    }
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let _daemon = Daemon::start(world);
        let script = "import socket\nc = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
                      c.connect('/run/cellwall/control.sock')\n\
                      try: socket.send_fds(c, [bytes(260)], [0]); print('sent')\n\
                      except PermissionError: print('refused')";
        let mut sender = world.outside(&world.carol, &["/usr/bin/python3", "-c", script]);
        assert_eq!(sender.first_line(), "refused\n");
    });
}

fn no_message_holds_it_up(start: impl Fn(&World) -> Daemon + Sync) {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let _daemon = start(world);
        for how in ["first", "behind", "crowd"] {
            let script = format!("{LINGERS}{KNOCKS}");
            let mut knocker = world.outside(&world.carol, &["/usr/bin/python3", "-c", &script, how]);
            assert_eq!(knocker.first_line(), "sent\n", "{how}");
            for _ in 0..3 {
                let said =
                    Command::new("timeout").args(["30", "cellwall", "pool", "reload"]).status().unwrap();
                assert!(said.success(), "{how}: {said}");
            }
        }
        assert_eq!(logged(&["pool broker state=started"]).len(), 1, "nobody was stuck");
    });
}

/// Answers its first request with a byte that brings it along; the next ones with what the kernel said to that.
const WORKER: &str = "
listener, said = socket.socket(fileno=0), 'sent'
def record(kind, body): return struct.pack('>BBHHBB', 1, kind, 1, len(body), 0, 0) + body
while True:
    link, _ = listener.accept()
    link.recv(65536)
    try:
        socket.send_fds(link, [b'x'], [s.fileno()])
        s.close()
    except OSError as error: said = error.strerror
    body = b'Content-Type: text/plain\\r\\n\\r\\n' + said.encode()
    try: link.sendall(record(6, body) + record(6, b'') + record(3, bytes(8)))
    except OSError: pass
    link.close()
";

/// Linux 6.16 has a word against descriptors in messages; before, the supervisor ends a broker that is held up.
#[test]
fn pool_29_no_workers_message_holds_the_broker_up() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1");
        let path = world.script(&world.alice, "app.fcgi", format!("#!/usr/bin/python3\n{LINGERS}{WORKER}"));
        let rules =
            format!("profile = \"python\"\n[pool]\ncommand = {path:?}\nworkers = {{ min = 1, max = 1 }}\n");
        world.site("alice", &rules);
        world.apply();
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice", "bob"], "");
        assert_eq!(nginx.get("bob", "/a.php").status, 200);
        let asked = nginx.begun("alice", "/app.fcgi");
        thread::sleep(Duration::from_millis(500));
        let started = Instant::now();
        until("the neighbour's answer", || nginx.get("bob", "/a.php").status == 200);
        if knows_passrights() {
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
            assert_eq!(nginx.get("alice", "/app.fcgi").text(), "Operation not permitted");
            assert_eq!(logged(&["pool broker state=started"]).len(), 1, "nobody was stuck");
        }
        drop(asked);
    });
}

/// `SO_PASSRIGHTS`.
fn knows_passrights() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 16)
}

/// What a worker gave to a broker that was taken over, which gives it on: as an environment (135), with a frame that brings nothing
/// along (132), too often for one, with no word at all, and behind nonsense, so that nobody reads it.
const GIVES: &str = "
how = HOW
if how == 'alone': socket.send_fds(channel, [struct.pack('<BBHIIIQQ', 135, 0, 0, 1, 0, 0, 7, 0)], [s.fileno()])
if how == 'unasked': socket.send_fds(channel, [struct.pack('<BBHIIIQQ', 132, 0, 0, 1, 1, 0, 0, 0)], [s.fileno()])
if how == 'many': socket.send_fds(channel, [struct.pack('<BBHIIIQQ', 135, 0, 0, 1, 0, 0, 7, 0)], [s.fileno()] * 20)
if how == 'mute': socket.send_fds(channel, [b''], [s.fileno()])
if how == 'behind':
    for word in (b'nonsense', b'nonsense', b'nonsense'): socket.send_fds(channel, [word], [s.fileno()])
# The supervisor stands still meanwhile: so the copies that are on their way are the last ones.
s.close()
print('sent', flush=True)
time.sleep(600)
";

#[test]
fn pool_29_no_brokers_message_holds_the_supervisor_up() {
    for how in ["alone", "unasked", "many", "mute", "behind"] {
        world(Launcher::Cellwall, |world| {
            relayed(world, "children = 1");
            let daemon = Daemon::start(world);
            let gives = GIVES.replace("HOW", &format!("{how:?}"));
            let taken_over = broker(&daemon);
            kill(daemon.pid(), Signal::SIGSTOP).unwrap();
            let mut giver = OnItsWay(start_in_the_brokers_stead(taken_over, &[LINGERS, &gives].concat()));
            let mut line = String::new();
            BufReader::new(giver.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "sent\n", "{how}");
            kill(daemon.pid(), Signal::SIGCONT).unwrap();
            let said = Command::new("timeout").args(["30", "cellwall", "pool", "reload"]).status().unwrap();
            assert!(said.success(), "{how}: {said}");
            until("an end of that broker", || logged(&["pool broker state=ended"]).len() == 1);
            until("another broker", || daemon.child("broker").is_some_and(|now| now != taken_over));
        });
    }
}

/// Ends with its test.
struct OnItsWay(std::process::Child);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Says that each worker is up, and then this.
const STARTS: &str = "
while time.time() < end:
    for worker in range(1, 400):
        for kind, why in ((132, 0), THEN):
            try: channel.send(struct.pack('<BBHIIIQQ', kind, why, 0, 1, worker, 0, 0, 0), socket.MSG_DONTWAIT)
            except BlockingIOError: time.sleep(0.001)
";

#[test]
fn a_broker_that_was_taken_over_does_not_have_root_start_workers_without_end() {
    // It has had its requests, at once or when another one has taken its place; it must be killed, it is idle, it is to be replaced.
    let many = "requests = 10000\n";
    for (then, keys) in [
        ("(133, 1)", many),
        ("(140, 0), (133, 1)", many),
        ("(134, 1)", ""),
        ("(133, 1)", ""),
        ("(140, 0), (133, 1)", ""),
    ] {
        // Ten a second for a while, each with an heir perhaps, and then one a second.
        let most = if keys.is_empty() { 20 } else { 30 };
        world(Launcher::Cellwall, |world| {
            let path = world.script(&world.alice, "worker.fcgi", "#!/usr/bin/perl\nsleep 600;\n");
            let rules = format!(
                "profile = \"perl\"\n[pool]\ncommand = {path:?}\n{keys}workers = {{ min = 1, max = 1 }}\n"
            );
            world.site("alice", &rules);
            world.apply();
            let daemon = Daemon::start(world);
            until("a worker", || processes(world.alice.id).len() == 1);
            let said = in_the_brokers_stead(broker(&daemon), &STARTS.replace("THEN", then));
            assert!(said.status.success(), "{said:?}");
            let started = logged(&["pool start ", "site=alice"]).len();
            assert!((2..most).contains(&started), "{then} {keys}: {started} starts in two seconds");
        });
    }
}

/// Another one, with a /run of its own, as in a container that shares the groups.
const ELSEWHERE: &str = "unshare -m sh -c 'mount -t tmpfs -o mode=755 run /run && exec \"$0\"'";

#[test]
fn pool_30_a_second_daemon_in_the_same_control_group_ends_nobodys_workers() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 1 }");
        let _daemon = Daemon::start(world);
        until("a worker with its child", || processes(world.alice.id).len() == 2);
        let before = processes(world.alice.id);
        let mut second = Daemon::given(world, ELSEWHERE, "true;");
        let ended = ends_soon(&mut second);
        assert_eq!(processes(world.alice.id), before, "{:?}", logged(&["pool end "]));
        let said = fs::read_to_string("/tmp/cellwalld.err").unwrap();
        assert!(ended && said.contains("/cellwall-pool: another cellwalld"), "{said}");
    });
}

#[test]
fn pool_31_two_daemons_that_share_a_sites_own_group_take_turns() {
    world(Launcher::Cellwall, |world| {
        relayed(world, "children = 1\nworkers = { min = 1 }");
        let group = with_a_group_of_its_own(world);
        let mut first = Daemon::start(world);
        until("a worker with its child", || processes(world.alice.id).len() == 2);
        let before = processes(world.alice.id);
        // In a control group of its own, as in another container.
        let own = world.group_of_daemon().with_extension("second");
        let mut second = Daemon::given(
            world,
            ELSEWHERE,
            &format!("mkdir -p {0} && echo $$ > {0}/cgroup.procs;", own.display()),
        );
        let told = format!("why=\"{}: another cellwalld keeps processes", group.display());
        let says = || !logged(&["code=S15", "site=alice", &told]).is_empty();
        until("its word", || second.has_ended().is_some() || says() || processes(world.alice.id) != before);
        // It has tried again meanwhile.
        thread::sleep(Duration::from_secs(1));
        assert_eq!(processes(world.alice.id), before, "{:?}", logged(&["pool end "]));
        assert!(says() && second.has_ended().is_none(), "other sites are served");
        assert_eq!(first.stop(), Some(0));
        until("workers of the one that is left", || {
            let now = processes(world.alice.id);
            now.len() == 2 && now.iter().all(|(pid, _)| !before.iter().any(|(one, _)| one == pid))
        });
    });
}

/// As on a host where version 2 has the controllers: the group of alice's workers is below the site's.
fn with_a_group_of_its_own(world: &World) -> PathBuf {
    let above = world.group_of_daemon().with_file_name("cellwall");
    drop(fs::create_dir(&above));
    let group = above.join(format!("{}-alice", world.alice.id));
    let path = format!("{DIRECTORY}/{}{SUFFIX}", world.alice.id);
    let bytes = fs::read(&path).unwrap();
    let file = settings::file(&bytes).unwrap();
    let group_directory = group.as_os_str().as_encoded_bytes();
    let pools = file.settings().map(|pool| settings::encode(&Settings { group_directory, ..pool }));
    let pools: Vec<_> = pools.zip(file.rules.iter().copied()).collect();
    fs::write(path, settings::encode_file(world.alice.id, &pools)).unwrap();
    group
}

fn ends_soon(daemon: &mut Daemon) -> bool {
    let started = Instant::now();
    while daemon.has_ended().is_none() && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
    }
    daemon.has_ended().is_some()
}
