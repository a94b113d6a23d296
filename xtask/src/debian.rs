//! Installs the Debian packages that a command needs, and only those that are missing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::machine::Machine;
use crate::{run, say, tree};

/// A compiler and what links with it.
pub(crate) const BUILD: &[&str] = &["gcc", "libc6-dev"];
/// What the checks start: the manual pages are read by the formatter that will show them.
pub(crate) const CHECK: &[&str] = &["groff-base"];
/// What the demonstration starts. `apache2-bin` and not `apache2`: its installation starts no server.
pub(crate) const DEMO: &[&str] = &[
    "apache2-bin",
    "apache2-suexec-pristine",
    "ca-certificates",
    "curl",
    "iproute2",
    "media-types",
    "perl",
    "php-cgi",
    "tzdata",
    "util-linux",
];
/// What the tests start beyond that.
pub(crate) const TEST: &[&str] = &[
    "acl",
    "apache2-utils",
    "apparmor",
    "attr",
    "awstats",
    "caddy",
    "cgi-mapserver",
    "curl",
    "dokuwiki",
    "fontconfig-config",
    "fonts-dejavu-core",
    "git",
    "gitweb",
    "haproxy",
    "libapache2-mod-fcgid",
    "libcap2-bin",
    "libfcgi-bin",
    "libfcgi-dev",
    "libfcgi-perl",
    "libmojolicious-perl",
    "lighttpd",
    "lintian",
    "logrotate",
    "lua5.4",
    "mariadb-server",
    "msmtp",
    "nodejs",
    "nginx-light",
    "openssl",
    "php-cli",
    "php-fpm",
    "php-gd",
    "php-mysql",
    "procps",
    "python3",
    "python3-django",
    "redis-server",
    "ruby",
    "ruby-fcgi",
    "secilc",
    "libnss-extrausers",
    "strace",
    "systemd",
    "tcl",
    "wordpress",
];

/// What finds out which libraries a package needs.
pub(crate) const PACKAGE: &[&str] = &["dpkg-dev"];

/// What makes a package for Fedora.
pub(crate) const RPM: &[&str] = &["rpm"];

/// What makes a Debian that systemd boots, and boots it.
pub(crate) const SYSTEMD: &[&str] = &["debootstrap", "iproute2", "util-linux"];

/// What boots a kernel of its own.
pub(crate) const KERNEL: &[&str] = &["binutils", "e2fsprogs"];

/// What pools are measured beside.
pub(crate) const BENCH: &[&str] =
    &["fcgiwrap", "libfcgi-dev", "multiwatch", "nginx-light", "php-fpm", "spawn-fcgi", "wrk"];

/// What libFuzzer is compiled with.
pub(crate) const FUZZ: &[&str] = &["g++"];

/// Makes sure that the packages are there.
pub(crate) fn need(lists: &[&[&str]]) -> Outcome {
    let wanted: BTreeSet<&str> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    if !run::is_there("dpkg-query") || !run::is_there("apt-get") {
        let all = wanted.into_iter().collect::<Vec<_>>().join(" ");
        say::notice(&format!("This is not Debian. What these Debian packages hold is needed: {all}"));
        return Ok(());
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !tree::is_root() {
        return Err(format!(
            "These Debian packages are missing. Run:\n\n    sudo apt-get install --no-install-recommends {list}"
        ));
    }
    say::step(&format!("Installing Debian packages: {list}"));
    // A fresh machine has no lists, an old one has stale lists: both fail at once, and then lists are fetched.
    if install(&missing).is_err() {
        run::quietly("apt-get update", apt(&["update"]).arg("-q"))?;
        install(&missing)?;
    }
    Ok(())
}

fn missing(wanted: &BTreeSet<&str>) -> Outcome<Vec<String>> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).args(wanted);
    let installed = run::output(&mut query)?;
    let installed: BTreeSet<&str> =
        installed.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.difference(&installed).map(|name| (*name).to_owned()).collect())
}

fn install(packages: &[String]) -> Outcome {
    run::quietly("apt-get install", apt(&["install", "-q", "-y", "--no-install-recommends"]).args(packages))
}

fn apt(words: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // A fresh machine may be updating itself at this very moment.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(words);
    command
}

/// The name of this machine's release.
fn this_release() -> Outcome<String> {
    let said = run::output(Command::new("sh").args(["-c", ". /etc/os-release && echo $VERSION_CODENAME"]))?;
    Ok(said.trim().to_owned())
}

/// A Debian: its release, and the kind of machine that it is for.
#[derive(Clone)]
pub(crate) struct Debian {
    pub(crate) release: String,
    pub(crate) machine: &'static Machine,
}

impl Debian {
    /// A directory's name.
    pub(crate) fn name(&self) -> String {
        let Self { release, machine } = self;
        if machine.is_own() { release.clone() } else { format!("{release}-{}", machine.debian) }
    }

    /// Its programs run on this machine's kernel.
    pub(crate) fn runs_here(&self) -> Outcome {
        let other = "Another kind of machine has a kernel of its own: cargo xtask kernel --arch ARCH";
        if self.machine.is_own() { Ok(()) } else { Err(other.to_owned()) }
    }
}

/// What the laboratories are told at the head of their words: `[--debian RELEASE] [--arch ARCH] [--built]`.
pub(crate) struct Options<'a> {
    /// This machine's unless another one is named.
    pub(crate) debian: Debian,
    /// What target/dist holds is taken as it is.
    pub(crate) built: bool,
    pub(crate) rest: &'a [String],
}

pub(crate) fn options(mut words: &[String]) -> Outcome<Options<'_>> {
    let (mut release, mut machine, mut built) = (None, None, false);
    loop {
        words = match words {
            [option, named, rest @ ..] if option == "--debian" => {
                release = Some(named.clone());
                rest
            }
            [option, named, rest @ ..] if option == "--arch" => {
                machine = Some(Machine::named(named)?);
                rest
            }
            [option, rest @ ..] if option == "--built" => {
                built = true;
                rest
            }
            rest => {
                let release = release.map_or_else(this_release, Ok)?;
                let machine = machine.map_or_else(Machine::own, Ok)?;
                return Ok(Options { debian: Debian { release, machine }, built, rest });
            }
        };
    }
}

/// Makes the system at `base` once, and again where making it was interrupted: the directory `mark` comes last.
pub(crate) fn once(base: &Path, mark: &str, what: &str, make: impl FnOnce() -> Outcome) -> Outcome {
    let whole = base.join(mark);
    if whole.exists() {
        return Ok(());
    }
    say::step(&format!("{what}; once, it takes some minutes"));
    tree::remove(base)?;
    make()?;
    let made = fs::create_dir(&whole);
    // Others than root look into it, whatever the mask.
    let made = made.and_then(|()| fs::set_permissions(&whole, fs::Permissions::from_mode(0o755)));
    made.map_err(|why| format!("{}: {why}", whole.display()))
}

/// Makes that Debian in `base`, with these packages beyond what is essential.
pub(crate) fn bootstrap(base: &Path, debian: &Debian, packages: &str) -> Outcome {
    let mut command = Command::new("debootstrap");
    command.arg(format!("--arch={}", debian.machine.debian));
    command.args(["--variant=minbase", &format!("--include={packages}"), &debian.release]).arg(base);
    run::quietly("debootstrap", &mut command)
}
