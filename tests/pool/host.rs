//! A host with the daemon and an nginx before it.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cellwall::admin::status::ask;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::harness::{Answer, Ask, Kept, LOG, PATIENCE, World, append, put, spawn};

/// Uid and gid of the broker's account, which is made where this machine has none.
pub(crate) fn account() -> (u32, u32) {
    let text = fs::read_to_string("/etc/passwd").unwrap();
    let known = text.lines().find_map(|line| {
        let mut words = line.strip_prefix("cellwall:")?.split(':').skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    known.unwrap_or_else(|| {
        append("/etc/passwd", "cellwall:x:990:990::/nonexistent:/usr/sbin/nologin\n");
        append("/etc/group", "cellwall:x:990:\n");
        (990, 990)
    })
}

/// The daemon, in a control group of its own: other worlds have theirs.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it, with the broker's account, and waits until it serves.
    pub(crate) fn start(world: &World) -> Self {
        Self::traced(world, "").up()
    }

    /// Itself, when its broker answers: by then each site has its socket.
    pub(crate) fn up(mut self) -> Self {
        until("the broker's answer", || self.has_ended().is_some() || ask("/table").is_ok());
        if self.has_ended().is_some() {
            panic!("cellwalld ended: {}", fs::read_to_string("/tmp/cellwalld.err").unwrap());
        }
        self
    }

    /// The pid, when it answers. None: it has ended.
    pub(crate) fn ready(&mut self) -> Option<Pid> {
        until("the daemon's control socket", || {
            self.has_ended().is_some() || Path::new("/run/cellwall/status.sock").exists()
        });
        self.has_ended().is_none().then(|| self.pid())
    }

    /// Its status, if it has ended.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The same below `tracer`, which goes on in the same process; nothing is waited for.
    pub(crate) fn traced(world: &World, tracer: &str) -> Self {
        Self::given(world, tracer, "")
    }

    /// The same after `before`, words of a shell; without any, it leaves some files open.
    pub(crate) fn given(world: &World, tracer: &str, before: &str) -> Self {
        account();
        // Not written over: another one may run, or be ending.
        drop(fs::remove_file("/usr/sbin/cellwalld"));
        put("/usr/sbin/cellwalld", &world.daemon(), 0, 0o755);
        let before = if before.is_empty() { "exec 7</etc/shadow 8>/tmp/hostile;" } else { before };
        // A group for each world; where none can be made, the daemon does without as well.
        let start = format!(
            "g={}; test -e ${{g%/*}}/cgroup.procs && mkdir -p $g 2>/dev/null && echo $$ > $g/cgroup.procs\n\
             {before} exec {tracer} /usr/sbin/cellwalld",
            world.group_of_daemon().display()
        );
        let child = spawn(
            Command::new("/bin/bash")
                .args(["-c", start.as_str()])
                .env_clear()
                .env("HOSTILE", "1")
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create("/tmp/cellwalld.err").unwrap()),
        );
        Self { child }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Its process of this role, which has the broker's account: other worlds have theirs.
    pub(crate) fn child(&self, role: &str) -> Option<i32> {
        let own = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains(&format!("\nPPid:\t{}\n", self.pid()))
        };
        let title = format!("cellwalld: {role} ");
        let all = processes(account().0)
            .into_iter()
            .filter(|(pid, command)| command.starts_with(&title) && own(*pid));
        let all: Vec<i32> = all.map(|(pid, _)| pid).collect();
        assert!(all.len() < 2, "{all:?}");
        all.first().copied()
    }

    /// SIGHUP.
    pub(crate) fn reload(&self) {
        kill(self.pid(), Signal::SIGHUP).unwrap();
    }

    /// SIGTERM, and its status.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        until("the daemon's end", || self.has_ended().is_some());
        self.has_ended().unwrap().code()
    }

    /// SIGKILL.
    pub(crate) fn murder(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        let started = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if started.elapsed() > PATIENCE {
                drop(self.child.kill());
                assert!(thread::panicking(), "the daemon does not end");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A real nginx on port 8080: the host NAME.test is passed to the pool of the site NAME.
pub(crate) struct Nginx {
    child: Child,
}

impl Nginx {
    /// Starts it for these sites; `more` stands in each server.
    pub(crate) fn start(sites: &[&str], more: &str) -> Self {
        Self::serving(&sites.iter().map(|site| server(site, more)).collect::<String>())
    }

    /// The same with connections that are kept, as packaging/nginx has it.
    pub(crate) fn keeping(sites: &[&str]) -> Self {
        let kept = |site: &&str| {
            let socket = format!("unix:/run/cellwall/pool/{site}.sock");
            let pass = format!("fastcgi_keep_conn on; fastcgi_pass kept-{site};");
            let server = server(site, "").replace(&format!("fastcgi_pass {socket};"), &pass);
            format!("upstream kept-{site} {{ server {socket}; keepalive 8; }}\n{server}")
        };
        Self::serving(&sites.iter().map(kept).collect::<String>())
    }

    fn serving(servers: &str) -> Self {
        fs::create_dir_all("/tmp/nginx").unwrap();
        let text = format!(
            "user www-data; worker_processes 2; daemon off; pid /tmp/nginx/pid; error_log /tmp/nginx/error;\n\
             events {{ worker_connections 512; }}\nhttp {{ access_log off; client_body_temp_path /tmp/nginx/body;\n\
             fastcgi_temp_path /tmp/nginx/fastcgi; proxy_temp_path /tmp/nginx/proxy; uwsgi_temp_path /tmp/nginx/uwsgi;\n\
             scgi_temp_path /tmp/nginx/scgi; client_max_body_size 0;\n{servers}}}\n"
        );
        fs::write("/tmp/nginx/nginx.conf", text).unwrap();
        let child = spawn(
            Command::new("/usr/sbin/nginx")
                .args(["-c", "/tmp/nginx/nginx.conf"])
                .env_clear()
                .process_group_of_its_own()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let nginx = Self { child };
        until("nginx", || TcpStream::connect(("127.0.0.1", PORT)).is_ok());
        nginx
    }

    pub(crate) fn get(&self, site: &str, path: &str) -> Answer {
        Ask::get(&format!("{site}.test"), path).send(PORT)
    }

    /// A request whose answer nobody has read yet; dropped, its client is gone.
    pub(crate) fn begun(&self, site: &str, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {site}.test\r\n\r\n").as_bytes()).unwrap();
        stream
    }

    pub(crate) fn ask(&self, ask: &Ask) -> Answer {
        ask.send(PORT)
    }

    pub(crate) fn kept(&self) -> Kept {
        Kept::to(PORT)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGKILL);
        drop(self.child.wait());
    }
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

fn server(site: &str, more: &str) -> String {
    format!(
        "server {{ listen 127.0.0.1:{PORT}; server_name {site}.test; root /var/www/{site}/htdocs; {more}\n\
         location / {{ include /etc/nginx/fastcgi_params; fastcgi_param HTTP_PROXY '';\n\
         fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; fastcgi_read_timeout 60s;\n\
         fastcgi_pass unix:/run/cellwall/pool/{site}.sock; }} }}\n"
    )
}

/// From here on this world has no control groups of version 2, as a container may have none.
pub(crate) fn without_groups() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for mount in mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2")) {
        let place = mount.split(' ').nth(1).unwrap();
        nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// This process, and what it starts from here on, may have as many descriptors as root lets it have: a thousand are not enough
/// for a crowd.
pub(crate) fn many_descriptors(needed: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= needed,
        "{hard} descriptors at most, and this test needs {needed}; run: ulimit -Hn {needed}"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// Waits for something, as long as a loaded machine may need for it.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < PATIENCE,
            "{what} did not come; the log:\n{}\n{}",
            fs::read_to_string(LOG).unwrap_or_default(),
            fs::read_to_string("/tmp/nginx/error").unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Lines of the log that have all these words.
pub(crate) fn logged(words: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let wanted = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    wanted.map(str::to_owned).collect()
}

/// Processes of this uid, the oldest first: pid and command line.
pub(crate) fn processes(uid: u32) -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut all: Vec<(u64, i32, String)> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let own = status.lines().find_map(|line| line.strip_prefix("Uid:\t"))?;
            let own = own.split('\t').next()?.parse() == Ok(uid);
            let alive = !status.contains("State:\tZ");
            let command = fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
            // The 22nd field (proc_pid_stat(5)), the 20th behind the name, which may hold anything.
            let facts = fs::read_to_string(entry.path().join("stat")).ok()?;
            let began = facts.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
            (own && alive).then_some((began, pid, command))
        })
        .collect();
    // Numbers begin anew after the last one: a child's may be smaller than its parent's.
    all.sort();
    all.into_iter().map(|(_, pid, command)| (pid, command)).collect()
}

/// A socket's mode and owner.
pub(crate) fn mode_of(path: impl AsRef<Path>) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.permissions().mode() & 0o7777, facts.uid(), facts.gid())
}

const PORT: u16 = 8080;
