//! A private copy of the host: its own /etc, /var and /run, accounts and sites, both launchers. Gone with the process.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use cellwall::policy::{DIRECTORY, decode};

use super::meter::{self, CALLER, Start};
use super::payloads::{self, Payload, TINY};

/// Where everything that the benchmark makes lies before it is put in place.
const SCRATCH: &str = "/mnt";
/// Ours; root's, set-uid, for the web server's group.
pub(crate) const OURS: &str = "/mnt/cellwall-suexec";
/// Another build of ours, which is measured beside it.
pub(crate) const OTHER: &str = "/mnt/other-suexec";
/// Debian's own.
pub(crate) const STOCK: &str = "/usr/lib/apache2/suexec-pristine";
/// Does nothing but become the program that it is told: what a second exec costs.
pub(crate) const EXEC_ONLY: &str = "/mnt/exec-only";
const CONFIGURATION: &str = "/etc/cellwall";
const STATE: &str = "/var/lib/cellwall";
/// Numbers of the accounts that only make the host large.
const FIRST_OTHER: u32 = 300_000;

/// How stock's name service is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    /// As Debian does it with libnss-systemd.
    FilesSystemd,
    /// The quickest that there is.
    Files,
}

impl Switch {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::FilesSystemd => "files systemd",
            Self::Files => "files",
        }
    }
}

/// A site, with everything on but what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Everything,
    HostJail,
    Chroot,
    NoLandlock,
    NoSeccomp,
    NoLimits,
    TcpRules,
    ControlGroups,
    Nothing,
    /// The shipped profile.
    Php,
}

pub(crate) const VARIANTS: [(Variant, &str); 10] = [
    (Variant::Everything, "everything"),
    (Variant::HostJail, "host"),
    (Variant::Chroot, "chroot"),
    (Variant::NoLandlock, "nolandlock"),
    (Variant::NoSeccomp, "noseccomp"),
    (Variant::NoLimits, "nolimits"),
    (Variant::TcpRules, "tcp"),
    (Variant::ControlGroups, "cgroups"),
    (Variant::Nothing, "nothing"),
    (Variant::Php, "php"),
];

impl Variant {
    fn place(self) -> (u32, &'static str) {
        let place = VARIANTS.iter().position(|(variant, _)| *variant == self).unwrap();
        (200_001 + u32::try_from(place).unwrap(), VARIANTS[place].1)
    }

    fn uid(self) -> u32 {
        self.place().0
    }

    pub(crate) fn user(self) -> &'static str {
        self.place().1
    }

    pub(crate) fn docroot(self) -> PathBuf {
        let below = if self == Self::Chroot { "/var/www/jail" } else { "/var/www" };
        Path::new(below).join(self.user())
    }

    /// Ten rules for Landlock, with those that each kind of jail has by itself.
    fn site(self) -> String {
        let mut text = format!("user = \"{}\"\ndocroot = \"{}\"\n", self.user(), self.docroot().display());
        if self == Self::Php {
            return text + "profile = \"php\"\n[limits]\ncgroup = \"off\"\n";
        }
        let kind = match self {
            Self::HostJail | Self::Nothing => "host",
            Self::Chroot => "chroot",
            _ => "view",
        };
        let more = match kind {
            "view" => "",
            _ => ", \"/etc/passwd\", \"/etc/group\", \"/usr/share/zoneinfo\"",
        };
        let off = |variant| if self == variant || self == Self::Nothing { "off" } else { "" };
        writeln!(text, "[jail]\nkind = \"{kind}\"\nprivate = [\"/tmp\"]\ndevices = [\"null\"]").unwrap();
        if self == Self::Chroot {
            text += "directory = \"/var/www/jail\"\n";
        }
        for (key, state) in [("landlock", off(Self::NoLandlock)), ("seccomp", off(Self::NoSeccomp))] {
            if !state.is_empty() {
                writeln!(text, "{key} = \"{state}\"").unwrap();
            }
        }
        writeln!(
            text,
            "[files]\nexecute = [\"/usr/bin\", \"/usr/lib\", \"/usr/lib64?\"]\nread = [\"/etc/ld.so.cache\"{more}]"
        )
        .unwrap();
        if self == Self::TcpRules {
            text += "[network]\nconnect = [25, 3306]\n";
        }
        if !matches!(self, Self::NoLimits | Self::Nothing) {
            let groups = if self == Self::ControlGroups { "auto" } else { "off" };
            write!(
                text,
                "[limits]\nmemory = \"512M\"\nprocesses = 64\ncpu = \"60s\"\nopen_files = 1024\nfile_size = \"1G\"\n\
                 stack = \"8M\"\numask = \"022\"\ncgroup = \"{groups}\"\n"
            )
            .unwrap();
        }
        text
    }
}

/// The host of the benchmark.
pub(crate) struct Host {
    /// The variant with everything on.
    pub(crate) whole: Variant,
}

impl Host {
    pub(crate) fn make() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "run it as root: sudo cargo xtask bench launch");
        assert!(
            Path::new(STOCK).exists(),
            "{STOCK} is missing: sudo apt-get install apache2-suexec-pristine"
        );
        isolate();
        install();
        fs::create_dir(format!("{SCRATCH}/payloads")).unwrap();
        payloads::make(Path::new(&format!("{SCRATCH}/payloads")));
        make_directory("/var/www/jail", 0, 0o755);
        furnish_chroot();
        for (variant, name) in VARIANTS {
            account(name, variant.uid());
            make_directory(variant.docroot(), variant.uid(), 0o755);
            payloads::furnish(Path::new("/mnt/payloads"), &variant.docroot(), variant.uid());
            fs::write(format!("{CONFIGURATION}/sites.d/{name}.toml"), variant.site()).unwrap();
        }
        apply();
        let mut host = Self { whole: Variant::Everything };
        if let Err(why) = meter::try_once(&host.through(OURS, Variant::Everything, TINY)) {
            println!("A view cannot be measured: {why}\nThe host jail stands in for it.\n");
            host.whole = Variant::HostJail;
        }
        host
    }

    /// What the numbers depend on.
    pub(crate) fn machine(&self) -> String {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let model = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = model.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": ")).map_or("", |(_, text)| text).to_owned()
        };
        let count = model.lines().filter(|line| line.starts_with("processor")).count();
        let kind = if field("flags").split(' ').any(|flag| flag == "hypervisor") {
            "virtual machine"
        } else {
            "bare metal"
        };
        format!(
            "{count} x {}, {kind}, Linux {}",
            field("model name"),
            read("/proc/sys/kernel/osrelease").trim()
        )
    }

    /// The program of a site started directly, as the web server's user.
    pub(crate) fn direct(&self, variant: Variant, payload: Payload) -> Start {
        let program = variant.docroot().join(payload.file);
        Start::new(&variant.docroot(), &program, &[], &environment(variant, payload))
    }

    /// The same through an exec-er that checks nothing.
    pub(crate) fn exec_only(&self, variant: Variant, payload: Payload) -> Start {
        self.through(EXEC_ONLY, variant, payload)
    }

    /// The same through a suEXEC.
    pub(crate) fn through(&self, launcher: &str, variant: Variant, payload: Payload) -> Start {
        let id = variant.uid().to_string();
        let words = [id.as_str(), id.as_str(), payload.file];
        Start::new(&variant.docroot(), Path::new(launcher), &words, &environment(variant, payload))
    }

    /// How many rules Landlock has for a site.
    pub(crate) fn rules(&self, variant: Variant) -> usize {
        let bytes = fs::read(format!("{}/{}", DIRECTORY, variant.uid())).unwrap();
        decode::record(&bytes)
            .map_or(0, |record| record.sites.first().map_or(0, |site| site.landlock.rules.len()))
    }

    pub(crate) fn name_service(&self, switch: Switch) {
        let text = fs::read_to_string("/etc/nsswitch.conf").unwrap();
        let lines = text.lines().map(|line| match line.split_once(':') {
            Some((name @ ("passwd" | "group"), _)) => format!("{name}: {}\n", switch.word()),
            _ => format!("{line}\n"),
        });
        fs::write("/etc/nsswitch.conf", lines.collect::<String>()).unwrap();
    }

    /// Makes a second state of the host, with `count` more accounts and sites. The first one stays in place.
    pub(crate) fn grow(&self, count: u32) {
        // Views are pinned by what they hold, so both states use the same ones.
        let sites = format!("{CONFIGURATION}/sites.d");
        for kept in [STATE, &sites] {
            let copied = Command::new("cp").args(["-a", kept, &format!("{kept}.large")]).status().unwrap();
            assert!(copied.success(), "cp ended with {copied}");
        }
        for file in ["passwd", "group"] {
            fs::copy(format!("/etc/{file}"), format!("/etc/{file}.small")).unwrap();
        }
        let (mut passwd, mut group) = (String::new(), String::new());
        for number in 0..count {
            let (name, id) = (format!("other{number}"), FIRST_OTHER + number);
            writeln!(passwd, "{name}:x:{id}:{id}::/nonexistent:/bin/sh").unwrap();
            writeln!(group, "{name}:x:{id}:").unwrap();
            make_directory(format!("/var/www/{name}"), id, 0o755);
            // What they look like does not matter, only that they are there: the smallest kind.
            let site = format!(
                "user = \"{name}\"\ndocroot = \"/var/www/{name}\"\n[jail]\nkind = \"host\"\nprivate = [\"/tmp\"]\n"
            );
            fs::write(format!("{sites}.large/{name}.toml"), site).unwrap();
        }
        // Those who are launched come last, where a reader of the whole file finds them last.
        for (file, more) in [("passwd", passwd), ("group", group)] {
            let own = fs::read_to_string(format!("/etc/{file}.small")).unwrap();
            fs::write(format!("/etc/{file}.large"), format!("{more}{own}")).unwrap();
        }
        self.exchange("small", "large");
        self.exchange("large", "small");
    }

    /// Goes from one state to the other, as an administrator would leave it: applied.
    pub(crate) fn exchange(&self, from: &str, to: &str) {
        for kept in [STATE, &format!("{CONFIGURATION}/sites.d")] {
            fs::rename(kept, format!("{kept}.{from}")).unwrap();
            fs::rename(format!("{kept}.{to}"), kept).unwrap();
        }
        self.accounts(to);
        apply();
    }

    fn accounts(&self, state: &str) {
        for file in ["passwd", "group"] {
            let fresh = format!("/etc/{file}.fresh");
            fs::copy(format!("/etc/{file}.{state}"), &fresh).unwrap();
            fs::rename(fresh, format!("/etc/{file}")).unwrap();
        }
    }

    /// Another build of the launcher takes its place.
    pub(crate) fn add_launcher(&self, program: &str) {
        put(Path::new(program), OTHER, 0o4750);
    }

    /// What Apache starts.
    pub(crate) fn apache_starts(&self, launcher: &str) {
        relink(launcher, "/etc/alternatives/suexec");
    }
}

/// What ours said last, when that was a refusal.
pub(crate) fn last_refusal() -> Option<String> {
    let log = fs::read_to_string("/var/log/cellwall/cellwall.log").ok()?;
    let line = log.lines().last()?;
    let refusal = line.find("refuse ").and_then(|start| line.get(start..));
    refusal.map(str::to_owned)
}

/// What Apache hands over for a plain request of a browser.
fn environment(variant: Variant, payload: Payload) -> Vec<String> {
    let path = variant.docroot().join(payload.file);
    let mut all: Vec<String> = [
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "GATEWAY_INTERFACE=CGI/1.1",
        "REQUEST_METHOD=GET",
        "REDIRECT_STATUS=200",
        "QUERY_STRING=",
        "SERVER_PROTOCOL=HTTP/1.1",
        "SERVER_SOFTWARE=Apache",
        "SERVER_NAME=localhost",
        "SERVER_ADDR=127.0.0.1",
        "SERVER_PORT=80",
        "SERVER_ADMIN=webmaster@localhost",
        "REMOTE_ADDR=127.0.0.1",
        "REMOTE_PORT=40000",
        "REQUEST_SCHEME=http",
        "HTTP_HOST=localhost",
        "HTTP_ACCEPT=text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE=en-US,en;q=0.5",
        "HTTP_USER_AGENT=Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "UNIQUE_ID=aSOpQ38AAQEAAAvBkTgAAABA",
    ]
    .map(str::to_owned)
    .into();
    all.push(format!("SCRIPT_FILENAME={}", path.display()));
    all.push(format!("SCRIPT_NAME=/{}", payload.file));
    all.push(format!("REQUEST_URI=/{}", payload.file));
    all.push(format!("DOCUMENT_ROOT={}", variant.docroot().display()));
    all
}

/// Private mounts. /run is empty, which spares stock the daemons behind libnss-systemd.
fn isolate() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let memory = |place: &str, rights: &str| {
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(rights)).unwrap();
    };
    memory(SCRATCH, "mode=755");
    // A copy, not an overlay, which would make each lookup dearer for whoever looks more.
    let copied = Command::new("cp").args(["-a", "/etc", "/mnt/etc"]).status().unwrap();
    assert!(copied.success(), "cp ended with {copied}");
    mount(Some("/mnt/etc"), "/etc", none, MsFlags::MS_BIND, none).unwrap();
    for place in ["/run", "/var/lib", "/var/log"] {
        memory(place, "mode=755");
    }
    make_directory("/var/www", 0, 0o755);
    memory("/var/www", "mode=755,nr_inodes=2000000");
}

fn install() {
    let place = std::env::current_exe().unwrap();
    // <target>/release/deps/launch-0123456789abcdef
    let dist = place.ancestors().nth(3).unwrap().join("dist");
    put(&dist.join("cellwall-suexec"), OURS, 0o4750);
    put(&dist.join("cellwall"), "/mnt/cellwall", 0o755);
    compile_exec_only();
    for stale in [CONFIGURATION, STATE] {
        drop(fs::remove_dir_all(stale));
    }
    for (place, rights) in [
        (CONFIGURATION, 0o755),
        ("/etc/cellwall/sites.d", 0o755),
        ("/var/log/apache2", 0o755),
        ("/var/log/cellwall", 0o755),
    ] {
        make_directory(place, 0, rights);
    }
    let host = "caller = \"www-data\"\ndocroot = \"/var/www\"\n[log]\nto = \"file\"\n";
    fs::write(format!("{CONFIGURATION}/cellwall.toml"), host).unwrap();
}

/// A copy of a program, for the web server's group, on the disk as stock's is: what lies in memory (tmpfs) is mapped page by
/// page, which makes a launch about 4 % dearer. The name on the disk is gone once the copy is mounted.
fn put(from: &Path, to: &str, rights: u32) {
    let copy = from.with_extension("bench");
    fs::copy(from, &copy)
        .unwrap_or_else(|why| panic!("{}: {why}; make it with: cargo xtask build", from.display()));
    chown(&copy, Some(0), Some(CALLER)).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(rights)).unwrap();
    fs::write(to, "").unwrap();
    let none = None::<&str>;
    mount(Some(&copy), to, none, MsFlags::MS_BIND, none).unwrap();
    fs::remove_file(&copy).unwrap();
}

/// Without a library, whose start would cost more than what is measured.
fn compile_exec_only() {
    let source = "/mnt/exec-only.s";
    let text = if cfg!(target_arch = "x86_64") { EXEC_ONLY_X86_64 } else { EXEC_ONLY_AARCH64 };
    fs::write(source, text).unwrap();
    let said = Command::new("cc").args(["-nostdlib", "-static", "-o", EXEC_ONLY, source]).output().unwrap();
    assert!(said.status.success(), "cc: {}", String::from_utf8_lossy(&said.stderr));
}

/// execve(argv[3], argv + 3, environ). At the start the stack holds argc, argv, a null, and the environment.
pub(crate) const EXEC_ONLY_X86_64: &str = "\
    .globl _start
_start:
    mov 32(%rsp), %rdi
    lea 32(%rsp), %rsi
    mov (%rsp), %rdx
    lea 16(%rsp,%rdx,8), %rdx
    mov $59, %eax
    syscall
    mov $231, %eax
    mov $1, %edi
    syscall
";
pub(crate) const EXEC_ONLY_AARCH64: &str = "\
    .globl _start
_start:
    ldr x0, [sp, #32]
    add x1, sp, #32
    ldr x2, [sp]
    add x2, sp, x2, lsl #3
    add x2, x2, #16
    mov x8, #221
    svc #0
    mov x0, #1
    mov x8, #94
    svc #0
";

/// The host's own /usr inside, and what a program needs beside it.
fn furnish_chroot() {
    let inside = |path: &str| format!("/var/www/jail{path}");
    for place in ["/usr", "/etc", "/dev", "/tmp", "/var", "/var/www"] {
        make_directory(inside(place), 0, 0o755);
    }
    fs::set_permissions(inside("/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in ["/bin", "/lib", "/lib64"] {
        if let Ok(text) = fs::read_link(name) {
            symlink(text, inside(name)).unwrap();
        }
    }
    for file in ["/etc/ld.so.cache", "/etc/passwd", "/etc/group"] {
        fs::copy(file, inside(file)).unwrap();
    }
    let none = None::<&str>;
    mount(Some("/usr"), inside("/usr").as_str(), none, MsFlags::MS_BIND, none).unwrap();
    fs::write(inside("/dev/null"), "").unwrap();
    mount(Some("/dev/null"), inside("/dev/null").as_str(), none, MsFlags::MS_BIND, none).unwrap();
}

/// `cellwall apply`, which tells its progress itself.
fn apply() {
    let said = Command::new("/mnt/cellwall").arg("apply").stdout(Stdio::piped()).output().unwrap();
    assert!(
        said.status.success(),
        "cellwall apply: {}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
}

fn account(name: &str, id: u32) {
    for (file, line) in [
        ("/etc/passwd", format!("{name}:x:{id}:{id}::/nonexistent:/bin/sh\n")),
        ("/etc/group", format!("{name}:x:{id}:\n")),
    ] {
        let mut text = fs::read_to_string(file).unwrap();
        text.push_str(&line);
        fs::write(file, text).unwrap();
    }
}

fn make_directory(path: impl AsRef<Path>, owner: u32, rights: u32) {
    match fs::create_dir(&path) {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => panic!("{}: {why}", path.as_ref().display()),
        _ => {}
    }
    chown(&path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(rights)).unwrap();
}

fn relink(target: &str, link: &str) {
    drop(fs::remove_file(link));
    symlink(target, link).unwrap();
}
