//! `systemd`: the package on a Debian that a real systemd has booted, in namespaces of its own. What is checked there is in
//! tests/systemd/checks.sh.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::debian::{self, Debian, Options};
use crate::{package, run, say, tree};

/// What the Debian has beyond what is essential.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,apache2,apache2-suexec-pristine,nginx-light,php-cgi,curl,procps,ca-certificates";
/// Seconds that one boot with its checks may take. It takes about two minutes.
const LIMIT: &str = "1800";

/// `systemd [--debian RELEASE] [--built] [--before FILE]`
pub(crate) fn command(words: &[String]) -> Outcome {
    tree::need_root("systemd")?;
    debian::need(&[debian::SYSTEMD])?;
    let Options { debian, built, rest } = debian::options(words)?;
    debian.runs_here()?;
    let before = match rest {
        [] => None,
        [option, file] if option == "--before" => Some(Path::new(file)),
        _ => return Err(format!("systemd does not know {rest:?}. See: cargo xtask help")),
    };
    let package = package::deb(built)?;
    let place = tree::target().join("systemd").join(debian.name());
    let lab = Lab { debian, base: place.join("base"), root: place.join("root"), group: Group::make()? };
    lab.debian()?;
    lab.furnish(&package, before)?;
    lab.boot("first boot")?;
    lab.boot("second boot")?;
    fs::remove_dir_all(&lab.root).map_err(|why| format!("{}: {why}", lab.root.display()))
}

/// A Debian that is kept, and the copy of it that is booted.
struct Lab {
    debian: Debian,
    base: PathBuf,
    root: PathBuf,
    group: Group,
}

impl Lab {
    fn debian(&self) -> Outcome {
        debian::once(&self.base, "checks", "Making a Debian to boot", || {
            debian::bootstrap(&self.base, &self.debian, PACKAGES)
        })
    }

    /// A fresh copy, with the package, the one that is to be there before it, and the checks.
    fn furnish(&self, package: &Path, before: Option<&Path>) -> Outcome {
        tree::remove(&self.root)?;
        run::quietly("cp", Command::new("cp").arg("-a").arg(&self.base).arg(&self.root))?;
        let (from, checks) = (tree::root().join("tests/systemd"), self.root.join("checks"));
        let units = self.root.join("etc/systemd/system");
        let wanted = units.join("multi-user.target.wants/checks.service");
        let mut files = vec![
            (package.to_owned(), checks.join("cellwall.deb")),
            (from.join("checks.sh"), checks.join("checks.sh")),
            (from.join("checks.service"), units.join("checks.service")),
        ];
        files.extend(before.map(|before| (before.to_owned(), checks.join("before.deb"))));
        for (from, to) in files {
            fs::copy(&from, &to).map_err(|why| format!("{}: {why}", from.display()))?;
        }
        // Nobody loads modules here, and the list of Debian 13's is a link that leads nowhere without kmod: no unit may fail for that.
        let modules = units.join("systemd-modules-load.service");
        for (to, link) in [("../checks.service", &wanted), ("/dev/null", &modules)] {
            symlink(to, link).map_err(|why| format!("{}: {why}", link.display()))?;
        }
        Ok(())
    }

    /// Until the checks end it.
    fn boot(&self, what: &str) -> Outcome {
        say::step(&format!("The {what}"));
        let said = self.root.join("checks/said");
        drop(fs::remove_file(&said));
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.group.0);
        command.args([
            "timeout",
            "--kill-after=10",
            LIMIT,
            "unshare",
            "--kill-child",
            "--fork",
            "--pid",
            "--mount",
        ]);
        command.args(["--net", "--ipc", "--uts", "--cgroup", "sh"]);
        command.arg(tree::root().join("tests/systemd/boot.sh")).arg(&self.root);
        // A PID 1 that powers its namespace off is ended by a signal: what was said counts.
        let ended = run::quietly(what, &mut command);
        let said = fs::read_to_string(&said).unwrap_or_default();
        print!("{said}");
        if said.lines().last() != Some("end") {
            let errors = fs::read_to_string(self.root.join("checks/errors")).unwrap_or_default();
            let why = ended.err().unwrap_or_default();
            return Err(format!("The {what} did not come to its end. {why}\n{errors}"));
        }
        match said.lines().filter(|line| line.starts_with("FAILED")).count() {
            0 => Ok(()),
            count => Err(format!("{count} checks failed; all of it is in {}", self.root.display())),
        }
    }
}

/// A control group of version 2, the root of what the booted systemd sees.
struct Group(PathBuf);

impl Group {
    fn make() -> Outcome<Self> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(|why| format!("/proc/mounts: {why}"))?;
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let at = mounts.find_map(|mut words| words.nth(1).filter(|_| words.next() == Some("cgroup2")));
        let at = at.ok_or(
            "No cgroup2 is mounted, and systemd boots in none but that. Run: mount -t cgroup2 none /mnt",
        )?;
        let group = Self(Path::new(at).join(format!("cellwall-systemd-{}", std::process::id())));
        fs::create_dir(&group.0).map_err(|why| format!("{}: {why}", group.0.display()))?;
        Ok(group)
    }
}

/// Whatever a boot that was ended has left.
impl Drop for Group {
    fn drop(&mut self) {
        drop(fs::write(self.0.join("cgroup.kill"), "1"));
        let clear = "sleep 0.5; find \"$0\" -depth -type d -exec rmdir {} +";
        drop(run::quietly("rmdir", Command::new("sh").args(["-c", clear]).arg(&self.0)));
    }
}
