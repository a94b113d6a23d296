//! A private copy of the host: its own mounts and network, sites with pools, and the peers beside them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Workers of every contender.
pub(crate) const WORKERS: u32 = 4;
pub(crate) const CONTROL: &str = "/run/cellwall/status.sock";
const CELLWALL: &str = "/mnt/cellwall";
const DAEMON: &str = "/mnt/cellwalld";
const SITES: &str = "/etc/cellwall/sites.d";
/// The user of the first site; the others follow.
const FIRST: u32 = 200_101;

/// A site: its name, and what stands in its file.
const POOLS: [(&str, &str); 6] = [
    (
        "php",
        "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 4\nqueue = 1000\n",
    ),
    (
        "direct",
        "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 4\naccept = \"direct\"\n",
    ),
    (
        "c",
        "profile = \"static\"\n[files]\nexecute = [\"/usr/lib\", \"/usr/lib64?\"]\nread = [\"/etc/ld.so.cache\"]\n[pool]\n\
         command = \"/srv/c/hello.fcgi\"\nworkers = { max = 4, min = 4 }\nqueue = 1000\n",
    ),
    ("cgi", "profile = [\"sh\", \"perl\"]\n[pool]\nkind = \"cgi\"\nworkers = { max = 4 }\nqueue = 1000\n"),
    (
        "recycle",
        "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 4\nrequests = 2000\nqueue = 1000\n",
    ),
    (
        "noisy",
        "profile = \"php\"\n[limits]\nprocesses = 40\ncpu_weight = 10\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 4\n\
         timeout = \"10s\"\nqueue = 200\n",
    ),
];

/// The host with all that runs on it.
pub(crate) struct Host {
    daemon: Option<Running>,
    _peers: Vec<Running>,
}

/// A process that ends with us, and all that it started: fcgiwrap leaves its children behind.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        drop(self.0.wait());
        let _ = killpg(self.pid(), Signal::SIGTERM);
    }
}

impl Host {
    pub(crate) fn make() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "run it as root: sudo cargo xtask bench pool");
        isolate();
        install();
        for (place, (name, rules)) in POOLS.iter().enumerate() {
            let uid = FIRST + u32::try_from(place).unwrap();
            account(name, uid);
            furnish(name, uid);
            let text = format!("user = \"{name}\"\ndocroot = \"/srv/{name}\"\n{rules}");
            fs::write(format!("{SITES}/{name}.toml"), text).unwrap();
        }
        apply(&[]);
        let peers = vec![fpm(), wrap(), bare_c(), bare_php(), nginx()];
        let mut host = Self { daemon: None, _peers: peers };
        host.start_daemon();
        host
    }

    /// Starts the daemon, in a control group of its own where one can be made, and waits until it answers.
    pub(crate) fn start_daemon(&mut self) {
        self.daemon = None;
        drop(fs::remove_file(CONTROL));
        let text = format!(
            "g=/sys/fs/cgroup; test -d $g/unified && g=$g/unified; g=$g/cellwall-bench\n\
             mkdir -p $g 2>/dev/null && echo $$ > $g/cgroup.procs\nulimit -n 65536; exec {DAEMON}"
        );
        self.daemon = Some(start(Command::new("/bin/sh").args(["-c", &text]), "/run/cellwalld.err"));
        until("cellwalld", || Path::new(CONTROL).exists());
    }

    pub(crate) fn daemon(&self) -> &Running {
        self.daemon.as_ref().unwrap()
    }

    /// SIGKILL, and gone: it alone.
    pub(crate) fn murder_daemon(&mut self) {
        self.daemon().send(Signal::SIGKILL);
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.0.wait());
            // What it leaves behind must end without our help.
            std::mem::forget(daemon);
        }
    }
}

/// `cellwall apply`, for some sites or all.
pub(crate) fn apply(words: &[&str]) {
    let said = Command::new(CELLWALL).arg("apply").args(words).stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "cellwall apply: {}", String::from_utf8_lossy(&said.stderr));
}

/// A directory of the private host's where a benchmark may write site files.
pub(crate) fn site_file(name: &str) -> PathBuf {
    Path::new(SITES).join(format!("{name}.toml"))
}

pub(crate) fn account(name: &str, id: u32) {
    append("/etc/passwd", &format!("{name}:x:{id}:{id}::/nonexistent:/bin/sh\n"));
    append("/etc/group", &format!("{name}:x:{id}:\n"));
}

/// Adds to a file.
pub(crate) fn append(path: &str, text: &str) {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

pub(crate) fn make_directory(path: impl AsRef<Path>, owner: u32) {
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(owner), Some(owner)).unwrap();
}

/// Waits for something.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > Duration::from_secs(60) {
            let told =
                ["/run/cellwalld.err", "/var/log/cellwall/cellwall.log", "/run/nginx/error"].map(|path| {
                    fs::read_to_string(path)
                        .unwrap_or_default()
                        .lines()
                        .rev()
                        .take(5)
                        .collect::<Vec<_>>()
                        .join("\n")
                });
            panic!("{what} did not come:\n{}", told.join("\n"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn isolate() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let memory = |place: &str| {
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=755,nr_inodes=2000000"))
            .unwrap();
    };
    memory("/mnt");
    must(Command::new("cp").args(["-a", "/etc", "/mnt/etc"]));
    mount(Some("/mnt/etc"), "/etc", none, MsFlags::MS_BIND, none).unwrap();
    for place in ["/run", "/var/lib", "/var/log", "/srv"] {
        memory(place);
    }
    must(Command::new("ip").args(["link", "set", "lo", "up"]));
}

fn install() {
    // <target>/release/deps/pool-0123456789abcdef
    let own = std::env::current_exe().unwrap();
    let dist = own.ancestors().nth(3).unwrap().join("dist");
    make_directory("/usr/lib/cellwall", 0);
    for (name, to) in [("cellwall", CELLWALL), ("cellwalld", DAEMON)] {
        let from = dist.join(name);
        fs::copy(&from, to)
            .unwrap_or_else(|why| panic!("{}: {why}; make it with: cargo xtask build", from.display()));
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    }
    drop(fs::remove_dir_all("/etc/cellwall"));
    for place in [SITES, "/var/log/cellwall", "/run/nginx", "/run/peers"] {
        make_directory(place, 0);
    }
    fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n[log]\nto = \"file\"\n").unwrap();
    account("cellwall", 990);
}

/// The same scripts for all: hello in each language, and a megabyte.
fn furnish(name: &str, uid: u32) {
    let place = format!("/srv/{name}");
    make_directory(&place, uid);
    let put = |file: &str, text: &str, rights: u32| {
        let path = format!("{place}/{file}");
        fs::write(&path, text).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(rights)).unwrap();
    };
    put("hello.php", "<?php echo 'hello';", 0o644);
    put(
        "large.php",
        "<?php $line = str_repeat('x', 8191) . \"\\n\"; for ($i = 0; $i < 128; $i++) echo $line;",
        0o644,
    );
    put("spin.php", "<?php $end = microtime(true) + 5; while (microtime(true) < $end); echo 'spun';", 0o644);
    put(
        "errors.php",
        "<?php for ($i = 0; $i < 2000; $i++) error_log(str_repeat('e', 200)); echo 'told';",
        0o644,
    );
    put(
        "fork.php",
        "<?php for ($i = 0; $i < 200; $i++) @exec('sleep 1 > /dev/null 2>&1 &'); echo 'forked';",
        0o644,
    );
    put(
        "once.php",
        "<?php file_put_contents('/tmp/told', $_SERVER['QUERY_STRING'] . \"\\n\", FILE_APPEND | LOCK_EX); usleep(2000); echo 'once';",
        0o644,
    );
    put("hello.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nhello'\n", 0o755);
    put("hello.pl", "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\r\\n\\r\\nhello\";\n", 0o755);
    compile(
        &place,
        "hello.cgi",
        uid,
        "#include <stdio.h>\nint main(void) { fputs(\"Content-Type: text/plain\\r\\n\\r\\nhello\", stdout); return 0; }\n",
        &["-static"],
    );
    let loops = "#include <fcgi_stdio.h>\nint main(void) { while (FCGI_Accept() >= 0) printf(\"Content-Type: text/plain\\r\\n\\r\\nhello\"); return 0; }\n";
    compile(&place, "hello.fcgi", uid, loops, &["-lfcgi"]);
}

fn compile(place: &str, name: &str, uid: u32, text: &str, options: &[&str]) {
    let source = format!("/mnt/{name}.c");
    let kept = format!("/mnt/{name}");
    if !Path::new(&kept).exists() {
        fs::write(&source, text).unwrap();
        must(Command::new("cc").args(["-O2", "-o", &kept, &source]).args(options));
    }
    let to = format!("{place}/{name}");
    fs::copy(kept, &to).unwrap();
    chown(to, Some(uid), Some(uid)).unwrap();
}

fn must(command: &mut Command) {
    let said = command.stdin(Stdio::null()).output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
}

/// A server in a session of its own, as an init process starts each. The kernel schedules sessions against each other
/// (sched_autogroup_enabled, sched(7)): servers that share the session of the visitors would be another machine's.
pub(crate) fn start(command: &mut Command, errors: &str) -> Running {
    let errors = fs::File::create(errors).unwrap();
    let mut leader = Command::new("/usr/bin/setsid");
    leader.arg(command.get_program()).args(command.get_args());
    let child = leader.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
    Running(child.unwrap_or_else(|why| panic!("{leader:?}: {why}")))
}

/// Two pools: as many workers as ours, always there; and ones that are renewed after 500 requests.
fn fpm() -> Running {
    let pool = |name: &str, more: &str| {
        format!(
            "[{name}]\nuser = php\ngroup = php\nlisten = /run/peers/{name}.sock\nlisten.owner = www-data\n\
             listen.backlog = 1024\npm = static\npm.max_children = {WORKERS}\n{more}\n"
        )
    };
    let text = format!(
        "[global]\nerror_log = /run/peers/fpm.log\ndaemonize = no\nprocess_control_timeout = 10\n{}{}{}",
        pool("fpm", ""),
        // Kept connections hold their workers.
        pool("fpm-kept", ""),
        pool("fpm-recycle", "pm.max_requests = 500")
    );
    fs::write("/run/peers/fpm.conf", text).unwrap();
    let program = fpm_program();
    let running = start(
        Command::new(program).args(["--nodaemonize", "-y", "/run/peers/fpm.conf"]),
        "/run/peers/fpm.err",
    );
    until("php-fpm", || Path::new("/run/peers/fpm.sock").exists());
    running
}

/// /usr/sbin/php-fpm8.2, whatever its version.
pub(crate) fn fpm_program() -> PathBuf {
    let mut all: Vec<PathBuf> = fs::read_dir("/usr/sbin")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("php-fpm")))
        .collect();
    all.sort();
    all.pop().expect("php-fpm is missing: sudo apt-get install php-fpm")
}

fn wrap() -> Running {
    let text = format!(
        "exec setpriv --reuid cgi --regid cgi --clear-groups fcgiwrap -f -c {WORKERS} -s unix:/run/peers/wrap/socket"
    );
    make_directory("/run/peers/wrap", FIRST + 3);
    let running = start(Command::new("/bin/sh").args(["-c", &text]), "/run/peers/wrap.err");
    until("fcgiwrap", || Path::new("/run/peers/wrap/socket").exists());
    fs::set_permissions("/run/peers/wrap/socket", fs::Permissions::from_mode(0o666)).unwrap();
    running
}

/// The C program with nothing around it: nginx speaks to its workers itself.
fn bare_c() -> Running {
    let text = format!(
        "umask 0; exec spawn-fcgi -n -s /run/peers/c.sock -u c -g c -M 0666 -- /usr/bin/multiwatch -f {WORKERS} -- /srv/c/hello.fcgi"
    );
    let running = start(Command::new("/bin/sh").args(["-c", &text]), "/run/peers/c.err");
    until("spawn-fcgi", || Path::new("/run/peers/c.sock").exists());
    running
}

/// php-cgi with as many children as ours and nothing around it: what a pool could reach at most.
fn bare_php() -> Running {
    let text = format!(
        "umask 0; exec env PHP_FCGI_CHILDREN={WORKERS} PHP_FCGI_MAX_REQUESTS=0 \
         spawn-fcgi -n -s /run/peers/php-cgi.sock -u php -g php -M 0666 -- /usr/bin/php-cgi"
    );
    let running = start(Command::new("/bin/sh").args(["-c", &text]), "/run/peers/php-cgi.err");
    until("php-cgi", || Path::new("/run/peers/php-cgi.sock").exists());
    running
}

/// One server for each socket.
fn nginx() -> Running {
    let shipped = include_str!("../../packaging/nginx/pool.conf");
    assert!(
        shipped.contains(&format!("keepalive {};", super::cost::SHIPPED)),
        "what is measured is not what is shipped"
    );
    let server = |port: u16, site: &str, socket: &str, kept: u32| {
        let name = format!("up{port}");
        let keep = match kept {
            0 => String::new(),
            count => format!("keepalive {count};"),
        };
        let on = if kept > 0 { "fastcgi_keep_conn on;" } else { "" };
        format!(
            "upstream {name} {{ server unix:{socket}; {keep} }}\nserver {{ listen 127.0.0.1:{port} backlog=4096; root /srv/{site};\n\
             location / {{ include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n\
             fastcgi_pass {name}; {on} }} }}\n"
        )
    };
    let servers: String =
        super::cost::SOCKETS.iter().map(|one| server(one.port, one.site, one.socket, one.kept)).collect();
    let text = format!(
        "user www-data; worker_processes 2; daemon off; pid /run/nginx/pid; error_log /run/nginx/error;\n\
         events {{ worker_connections 4096; }}\nhttp {{ access_log off; client_body_temp_path /run/nginx/body;\n\
         fastcgi_temp_path /run/nginx/fastcgi; proxy_temp_path /run/nginx/proxy; uwsgi_temp_path /run/nginx/uwsgi;\n\
         scgi_temp_path /run/nginx/scgi; keepalive_requests 100000000;\n{servers}}}\n"
    );
    fs::write("/run/nginx/nginx.conf", text).unwrap();
    let running =
        start(Command::new("/usr/sbin/nginx").args(["-c", "/run/nginx/nginx.conf"]), "/run/nginx/err");
    until("nginx", || std::net::TcpStream::connect(("127.0.0.1", super::cost::SOCKETS[0].port)).is_ok());
    running
}
