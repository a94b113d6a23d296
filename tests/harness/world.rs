//! A private copy of the host for one test.

use std::ffi::OsStr;
use std::io::{BufRead, Read};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{fs, io, mem, panic, thread};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::alone::hold;
use super::call::Call;
use super::groups;
use super::programs::programs;
use super::record::Record;

/// The file that Debian's Apache starts, whatever is behind it.
pub(crate) const SUEXEC: &str = "/usr/lib/apache2/suexec";
/// Debian's own suEXEC.
const STOCK: &str = "/usr/lib/apache2/suexec-pristine";
/// Ours, where the package puts it.
pub(crate) const CELLWALL: &str = "/usr/lib/cellwall/cellwall-suexec";
/// The log of the world's launches.
pub(crate) const LOG: &str = "/var/log/cellwall/cellwall.log";
/// Each probe that runs leaves a file here, in its user's directory.
const MARKS: &str = "/var/marks";
/// Or here.
const STRAY_MARKS: &str = "/var/stray-marks";

/// The uids of a world.
const UIDS: u32 = 20;
/// All site owners.
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Whose launcher is behind Apache's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// Apache's suEXEC as Debian ships it.
    Stock,
    /// Ours.
    Cellwall,
}

/// A site owner.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// alice, bob or carol.
    pub(crate) name: String,
    /// Uid and gid. Each world has its own, because limits and keyrings are counted by uid.
    pub(crate) id: u32,
}

impl User {
    /// Where its CGI programs are.
    pub(crate) fn docroot(&self) -> PathBuf {
        Path::new("/var/www").join(&self.name).join("htdocs")
    }

    /// Its home.
    pub(crate) fn home(&self) -> PathBuf {
        Path::new("/home").join(&self.name)
    }
}

/// The host of one test; only its thread, and what that starts, sees it.
pub(crate) struct World {
    pub(crate) launcher: Launcher,
    pub(crate) alice: User,
    pub(crate) bob: User,
    pub(crate) carol: User,
}

/// Runs `test` once for each kind of jail that any site can have, with all three sites in it.
pub(crate) fn each_jail(test: impl Fn(&World) + Sync) {
    for jail in JAILS {
        world(Launcher::Cellwall, |world| {
            world.sites(&small(jail));
            test(world);
        });
    }
}

/// As [`each_jail`], with sites that have PHP.
pub(crate) fn each_kind_of_php(test: impl Fn(&World) + Sync) {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            test(world);
        });
    }
}

/// The first of ten thousand uids that no other test program of this machine uses while this one runs: limits,
/// keyrings and control groups are the kernel's, whatever namespaces a world has of its own.
fn first_id() -> u32 {
    static FIRST: LazyLock<u32> = LazyLock::new(|| {
        // Held until this program ends.
        let free = |number: &u32| hold(&format!("cellwall-test-uids-{number}")).map(mem::forget).is_some();
        30_000 + 10_000 * (0..90).find(free).unwrap()
    });
    *FIRST
}

/// The kinds of jail that need no directory of the administrator's.
const JAILS: [&str; 2] = ["host", "view"];

/// Runs `test` in a world of its own, of which nothing is left afterwards.
pub(crate) fn world(launcher: Launcher, test: impl FnOnce(&World) + Send) {
    static MADE: AtomicU32 = AtomicU32::new(0);
    assert!(nix::unistd::geteuid().is_root(), "this test needs root; run: sudo cargo xtask test");
    programs();
    let first = first_id() + UIDS * MADE.fetch_add(1, Ordering::Relaxed);
    let ended = thread::scope(|scope| scope.spawn(|| test(&World::make(launcher, first))).join());
    let left = groups::end(&(first..first + UIDS));
    if let Err(panicked) = ended {
        panic::resume_unwind(panicked);
    }
    assert!(left.is_empty(), "the test has ended, and processes of its are left in {left:?}");
}

impl World {
    fn make(launcher: Launcher, first: u32) -> Self {
        let user = |name: &str, offset| User { name: name.to_owned(), id: first + offset };
        let world = Self { launcher, alice: user("alice", 1), bob: user("bob", 2), carol: user("carol", 3) };
        isolate();
        private_devices();
        world.install();
        for user in [&world.alice, &world.bob, &world.carol] {
            world.settle(user);
        }
        world.configure();
        world
    }

    /// The launcher behind Apache's path, the command, and the programs of tests.
    fn install(&self) {
        let all = programs();
        make_directory("/mnt/bin", 0, 0o755);
        put("/mnt/bin/call", &all.call, 0, 0o755);
        put("/mnt/bin/escape", &all.escape, 0, 0o755);
        make_directory(MARKS, 0, 0o755);
        make_directory(STRAY_MARKS, 0, 0o1777);
        // Where Debian's suEXEC logs; it comes with the package apache2, which no test needs.
        fs::create_dir_all("/var/log/apache2").unwrap();
        self.order(&["loopback"]);
        drop(fs::remove_dir_all("/usr/lib/cellwall"));
        make_directory("/usr/lib/cellwall", 0, 0o755);
        put(CELLWALL, &all.launcher, 0, 0o755);
        chown(CELLWALL, Some(0), Some(33)).unwrap();
        mode(CELLWALL, 0o4750);
        put("/usr/bin/cellwall", &all.admin, 0, 0o755);
        let target = match self.launcher {
            Launcher::Stock => STOCK,
            Launcher::Cellwall => CELLWALL,
        };
        assert!(
            Path::new(target).exists(),
            "{target} is missing; run: sudo apt-get install apache2-suexec-pristine"
        );
        relink(target, "/etc/alternatives/suexec");
        relink("/etc/alternatives/suexec", SUEXEC);
    }

    /// One more site owner, 0 to 15, whose site is still to be written.
    pub(crate) fn another(&self, name: &str, number: u32) -> User {
        assert!(number < 16, "a world has 20 ids");
        let user = User { name: name.to_owned(), id: self.carol.id + 1 + number };
        self.settle(&user);
        user
    }

    /// An account with a group of its own, a docroot and a ~/public_html.
    fn settle(&self, user: &User) {
        let User { name, id } = user;
        append("/etc/passwd", &format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n"));
        append("/etc/group", &format!("{name}:x:{id}:\n"));
        make_directory(format!("/var/www/{name}"), 0, 0o755);
        make_directory(format!("{MARKS}/{name}"), *id, 0o755);
        make_directory(user.docroot(), *id, 0o755);
        make_directory(user.home(), *id, 0o755);
        make_directory(user.home().join("public_html"), *id, 0o755);
    }

    /// A cellwall.toml, and a site for each user.
    fn configure(&self) {
        for stale in ["/etc/cellwall", "/var/lib/cellwall", "/var/log/cellwall", "/usr/share/cellwall"] {
            drop(fs::remove_dir_all(stale));
        }
        make_directory("/var/log/cellwall", 0, 0o755);
        make_directory("/etc/cellwall", 0, 0o755);
        make_directory("/etc/cellwall/sites.d", 0, 0o755);
        self.host("");
        self.sites(&small("host"));
    }

    /// Gives all three sites these rules.
    pub(crate) fn sites(&self, rules: &str) {
        for name in NAMES {
            self.site(name, rules);
        }
        self.apply();
    }

    /// Writes cellwall.toml with `more` at its end.
    pub(crate) fn host(&self, more: &str) {
        let text = format!(
            "caller = \"www-data\"\ndocroot = \"/var/www\"\n{more}\n[log]\nto = \"file\"\n\
             [defaults.limits]\ncgroup = \"off\"\n"
        );
        fs::write("/etc/cellwall/cellwall.toml", text).unwrap();
    }

    /// Has the host log by these rules of its `[log]`, and gives alice a probe.
    pub(crate) fn log_rules(&self, rules: &str) {
        let text = format!("caller = \"www-data\"\ndocroot = \"/var/www\"\n[log]\n{rules}\n");
        fs::write("/etc/cellwall/cellwall.toml", text).unwrap();
        self.apply();
        self.probe(&self.alice, "a.cgi");
    }

    /// Writes the site file of alice, bob or carol; `apply` makes it count.
    pub(crate) fn site(&self, name: &str, more: &str) {
        let text = format!("user = \"{name}\"\ndocroot = \"/var/www/{name}/htdocs\"\n{more}");
        fs::write(format!("/etc/cellwall/sites.d/{name}.toml"), text).unwrap();
    }

    /// `cellwall apply`, which must be content.
    pub(crate) fn apply(&self) {
        let said = self.cellwall(&["apply"]);
        assert!(
            said.status.success(),
            "cellwall apply: {}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
    }

    /// The program of the pool's daemon.
    pub(crate) fn daemon(&self) -> Vec<u8> {
        programs().daemon.clone()
    }

    /// Runs the administrator's command.
    pub(crate) fn cellwall(&self, words: &[&str]) -> Output {
        run(Command::new("/usr/bin/cellwall").args(words))
    }

    /// Has the caller do one thing, as root.
    pub(crate) fn order(&self, words: &[&str]) {
        let said = run(Command::new("/mnt/bin/call").arg(orders(words)));
        assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
    }

    /// A program of a user's site.
    pub(crate) fn script(&self, user: &User, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = user.docroot().join(name);
        put(&path, text.as_ref(), user.id, 0o755);
        path
    }

    /// A copy of the probe anywhere.
    pub(crate) fn probe_at(&self, user: &User, path: impl AsRef<Path>) {
        put(path, &programs().probe, user.id, 0o755);
    }

    /// A probe that says `other` where the probe says `probe`: which of two files ran can be told apart.
    pub(crate) fn other_probe(&self, owner: u32, path: &Path) {
        let (own, other) = (b"\r\nprobe\nfds", b"\r\nother\nfds");
        let mut bytes = programs().probe.clone();
        let place = bytes.windows(own.len()).position(|some| some == own).unwrap();
        bytes[place..place + own.len()].copy_from_slice(other);
        put(path, &bytes, owner, 0o755);
    }

    /// A copy of the probe in a user's site.
    pub(crate) fn probe(&self, user: &User, name: &str) -> PathBuf {
        self.script(user, name, &programs().probe)
    }

    /// A copy of the program that tries to get out, in a user's site.
    pub(crate) fn escape(&self, user: &User, name: &str) -> PathBuf {
        self.script(user, name, &programs().escape)
    }

    /// Starts a program as a user of the host, outside of all cells.
    pub(crate) fn outside(&self, user: &User, words: &[&str]) -> Outside {
        let id = user.id.to_string();
        let mut all = vec!["become", &id, &id, &id];
        for word in words {
            all.extend(["arg", *word]);
        }
        all.extend(["exec", words[0]]);
        let mut command = Command::new("/mnt/bin/call");
        command.arg(orders(&all)).stdin(Stdio::piped()).stdout(Stdio::piped());
        Outside(spawn(&mut command))
    }

    /// A launch of a user's program, as Apache would ask for it.
    pub(crate) fn call(&self, user: &User, command: impl AsRef<OsStr>) -> Call<'_> {
        Call::new(self, user, command.as_ref())
    }

    /// Everything that was recorded so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        let text = fs::read(LOG).unwrap_or_default();
        Record::parse_all(&text)
    }

    /// Removes its control groups, as a reboot does. Nothing may run in them.
    pub(crate) fn remove_groups(&self) {
        let first = self.alice.id - 1;
        let left = groups::remove(&(first..first + UIDS));
        assert!(left.is_empty(), "processes are left in {left:?}");
    }

    /// Where its daemon gets a control group of version 2.
    pub(crate) fn group_of_daemon(&self) -> PathBuf {
        groups::of_daemon(self.alice.id)
    }

    /// Starts listening on /dev/log.
    pub(crate) fn syslog(&self) -> Syslog {
        let daemon = Syslog(UnixDatagram::bind("/dev/log").unwrap());
        mode("/dev/log", 0o666);
        daemon
    }

    /// The marks that probes left.
    pub(crate) fn marks(&self) -> Vec<String> {
        let places = [STRAY_MARKS.to_owned()].into_iter().chain(NAMES.map(|name| format!("{MARKS}/{name}")));
        let entries = places.flat_map(|place| fs::read_dir(place).unwrap());
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

/// A program of a user's outside of all cells. It ends when this goes.
pub(crate) struct Outside(Child);

impl Outside {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The first line that it prints.
    pub(crate) fn first_line(&mut self) -> String {
        let mut line = String::new();
        io::BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    /// Closes its input, and returns what it printed by its end.
    pub(crate) fn end(mut self) -> String {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The rules of a site of compiled programs that leave marks.
pub(crate) fn small(jail: &str) -> String {
    format!("profile = \"static\"\n[jail]\nkind = \"{jail}\"\n[files]\nwrite = [\"/var/marks/{{user}}\"]\n")
}

/// The rules of a site with programs in all languages that leave marks.
pub(crate) fn everything(jail: &str) -> String {
    // On the host's root, opcache's lock is in the host's /tmp; a view has a /tmp of the site's own.
    let more = if jail == "host" { ", \"/tmp\"" } else { "" };
    format!(
        "profile = [\"sh\", \"perl\", \"python\", \"php\"]\n[jail]\nkind = \"{jail}\"\n\
         [files]\nwrite = [\"/var/marks/{{user}}\"{more}]\n"
    )
}

/// Private mounts and a private network for this thread.
fn isolate() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    for (place, rights) in [("/mnt", "mode=755"), ("/tmp", "mode=1777"), ("/run", "mode=755")] {
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(rights)).unwrap();
    }
    for place in ["etc", "usr", "var", "srv", "home"] {
        let (upper, work) = (format!("/mnt/{place}/upper"), format!("/mnt/{place}/work"));
        make_directory(format!("/mnt/{place}"), 0, 0o755);
        make_directory(&upper, 0, 0o755);
        make_directory(&work, 0, 0o755);
        let options = format!("lowerdir=/{place},upperdir={upper},workdir={work}");
        let target = format!("/{place}");
        mount(Some("overlay"), target.as_str(), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .unwrap();
    }
}

/// A /dev of this world's own: the host's log daemon hears nothing of a test, and a test can make one.
fn private_devices() {
    make_directory("/mnt/dev", 0, 0o755);
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
        ("fuse", 10, 229),
    ] {
        let path = format!("/mnt/dev/{name}");
        mknod(path.as_str(), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(major, minor)).unwrap();
        mode(&path, 0o666);
    }
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(format!("/proc/self/{target}"), format!("/mnt/dev/{name}")).unwrap();
    }
    for (name, rights) in [("pts", 0o755), ("shm", 0o1777)] {
        make_directory(format!("/mnt/dev/{name}"), 0, rights);
        bind(&format!("/dev/{name}"), &format!("/mnt/dev/{name}"));
    }
    symlink("pts/ptmx", "/mnt/dev/ptmx").unwrap();
    bind("/mnt/dev", "/dev");
}

fn bind(from: &str, to: &str) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, None::<&str>, flags, None::<&str>).unwrap();
}

/// A log daemon.
pub(crate) struct Syslog(UnixDatagram);

impl Syslog {
    /// What was sent so far.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.0.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 65536];
        while let Ok(length) = self.0.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        all
    }
}

/// Writes orders for the caller and returns the file.
pub(crate) fn orders(words: &[impl AsRef<[u8]>]) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = PathBuf::from(format!("/mnt/orders-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend_from_slice(word.as_ref());
        bytes.push(0);
    }
    fs::write(&path, bytes).unwrap();
    path
}

/// Makes a directory with its owner and mode, whatever the umask is.
pub(crate) fn make_directory(path: impl AsRef<Path>, owner: u32, rights: u32) {
    fs::create_dir(&path).unwrap_or_else(|why| panic!("{}: {why}", path.as_ref().display()));
    chown(&path, Some(owner), Some(owner)).unwrap();
    mode(&path, rights);
}

/// Makes a file with its owner and mode.
pub(crate) fn put(path: impl AsRef<Path>, bytes: &[u8], owner: u32, rights: u32) {
    let _alone = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    fs::write(&path, bytes).unwrap_or_else(|why| panic!("{}: {why}", path.as_ref().display()));
    chown(&path, Some(owner), Some(owner)).unwrap();
    mode(&path, rights);
}

/// chmod.
pub(crate) fn mode(path: impl AsRef<Path>, rights: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(rights)).unwrap();
}

/// Adds text at the end of a file.
pub(crate) fn append(path: &str, text: &str) {
    let mut all = fs::read_to_string(path).unwrap();
    all.push_str(text);
    fs::write(path, all).unwrap();
}

/// Replaces whatever stands at `link`.
pub(crate) fn relink(target: &str, link: &str) {
    match fs::remove_file(link) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => panic!("{link}: {why}"),
        _ => symlink(target, link).unwrap(),
    }
}

/// Starts a program.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let _together = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    // Not every test starts its programs here: a stranger's child holds its copies for a moment.
    for _ in 0..1000 {
        match command.spawn() {
            Err(why) if why.kind() == io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(5))
            }
            started => return started.unwrap_or_else(|why| panic!("{command:?}: {why}")),
        }
    }
    panic!("{command:?}: it is open for writing, for seconds");
}

/// How long anything may take that is not a launch: longer than it does on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a program to its end, and to the end of its output.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command);
    let (out, err) = (drained(child.stdout.take().unwrap()), drained(child.stderr.take().unwrap()));
    let end = Instant::now() + PATIENCE;
    let whole = |from: Receiver<Vec<u8>>| from.recv_timeout(end.saturating_duration_since(Instant::now()));
    let (Ok(stdout), Ok(stderr)) = (whole(out), whole(err)) else {
        drop(child.kill());
        panic!("{command:?} did not end in {PATIENCE:?}");
    };
    Output { status: child.wait().unwrap(), stdout, stderr }
}

/// All that comes out of a pipe, when it has ended: whoever waits for that says for how long.
pub(crate) fn drained(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        drop(sender.send(all));
    });
    receiver
}

/// A child between fork and exec holds copies of all descriptors: where one is open for writing to a program, that
/// program cannot be started (ETXTBSY). So nothing is started while a program is written.
static STARTING: RwLock<()> = RwLock::new(());
