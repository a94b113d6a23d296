//! What the kernel wrote down: denied accesses (Landlock's audit records), denied system calls (seccomp), and programs that
//! were ended because memory was short. Root.
//!
//! The parser is pure. Names of programs and paths in it are a site's: they are hostile.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::config::seccomp::BASELINE;
use crate::config::syscalls::{Known, find};
use crate::refusal::Untrusted;

use super::journal::Entry;

/// One line of the kernel's about a program of some user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denial {
    /// Seconds since 1970, as written; empty where the kernel gives none.
    pub at: String,
    /// Whose process it was. None: the kernel did not say.
    pub uid: Option<u32>,
    /// Its pid.
    pub pid: Option<u32>,
    /// The process that its cell began with.
    pub cell: Option<u32>,
    /// Its program.
    pub program: String,
    /// What was denied.
    pub what: What,
}

/// What was denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Landlock: rights, and the path or port.
    Access {
        /// `fs.read_file`, `net.connect_tcp`; several are separated by commas.
        rights: String,
        /// For paths.
        path: Option<String>,
        /// For ports.
        port: Option<u16>,
    },
    /// seccomp: a system call by name or number; ended for it, or answered with an error.
    Call {
        /// Its name, where the shipped list has it.
        name: String,
        /// The process was ended.
        ended: bool,
    },
    /// Ended because the memory of its control group was used up.
    Memory,
}

/// What the kernel says of the process of a launch.
#[must_use]
pub fn of_launch(entry: &Entry) -> Vec<String> {
    let number = |name: &str| entry.field(name).and_then(|text| text.parse::<u32>().ok());
    let (uid, pid) = (number("uid"), number("pid"));
    let mut all = read().unwrap_or_default();
    all.retain(|denial| (denial.pid == pid || denial.cell == pid) && denial.uid == uid);
    let mut told: Vec<String> = all.iter().map(|denial| denial.what.to_string()).collect();
    told.dedup();
    told
}

/// Everything that the kernel's own buffer and the audit daemon's file hold.
///
/// # Errors
/// Neither can be read.
pub fn read() -> Result<Vec<Denial>, String> {
    let said = Command::new("dmesg").arg("-S").output();
    let mut text = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let file = fs::read(AUDIT_LOG).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if text.is_empty() && file.is_err() {
        return Err(format!("neither the kernel's log (dmesg) nor {AUDIT_LOG} can be read"));
    }
    text.push('\n');
    text.push_str(&file.unwrap_or_default());
    Ok(parse(&text))
}

/// Where the audit daemon writes.
const AUDIT_LOG: &str = "/var/log/audit/audit.log";

/// Pure: the denials in a text of either kind.
#[must_use]
pub fn parse(text: &str) -> Vec<Denial> {
    let lines: Vec<Line<'_>> = text.lines().filter_map(line).collect();
    // One event is several lines with one serial number; the line about the system call says whose it was. The kernel
    // leaves it out for old processes; a cell's domain is told once, with the process that made it.
    let mut whose = Whose::default();
    for line in &lines {
        match line.kind {
            SYSCALL => drop(whose.callers.insert(line.serial, line.who())),
            DOMAIN => drop(line.field("domain").map(|domain| whose.domains.insert(domain, line.who()))),
            _ => {}
        }
    }
    let mut all: Vec<Denial> = lines.iter().filter_map(|line| denial(line, &whose)).collect();
    all.extend(text.lines().filter_map(killed));
    all
}

/// Uid, pid, program.
type Who = (Option<u32>, Option<u32>, String);

#[derive(Default)]
struct Whose<'a> {
    /// By serial number.
    callers: BTreeMap<&'a str, Who>,
    /// By domain.
    domains: BTreeMap<String, Who>,
}

/// A line of the audit system: `type=1326 audit(1795624080.842:5): auid=…`, or the daemon's way of writing it.
pub(super) struct Line<'a> {
    /// `AUDIT_SYSCALL` and the like.
    pub(super) kind: u32,
    at: &'a str,
    /// The same for all lines of one event.
    pub(super) serial: &'a str,
    rest: &'a str,
}

/// A system call, and who made it.
pub(super) const SYSCALL: u32 = 1300;
/// A path that it named.
pub(super) const NAME: u32 = 1302;
/// An address that it named.
pub(super) const SOCKET: u32 = 1306;
/// Where its process stands.
pub(super) const CWD: u32 = 1307;
const SECCOMP: u32 = 1326;
const ACCESS: u32 = 1423;
const DOMAIN: u32 = 1424;

/// Pure: one line, taken apart.
pub(super) fn line(text: &str) -> Option<Line<'_>> {
    let (before, stamp) = text.split_once("audit(")?;
    let kind = before.rsplit_once("type=")?.1.split(' ').next()?;
    let kind = match kind {
        "SYSCALL" => SYSCALL,
        "SECCOMP" => SECCOMP,
        "LANDLOCK_ACCESS" => ACCESS,
        "LANDLOCK_DOMAIN" => DOMAIN,
        other => other.trim_start_matches("UNKNOWN[").trim_end_matches(']').parse().ok()?,
    };
    let (stamp, rest) = stamp.split_once("):")?;
    let (at, serial) = stamp.split_once(':')?;
    Some(Line { kind, at, serial, rest })
}

impl Line<'_> {
    /// The value of a field. The kernel writes names that hold quotes or blanks in hexadecimal digits.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let start = format!(" {name}=");
        let rest = self.rest.split_once(&start)?.1;
        if let Some(quoted) = rest.strip_prefix('"') {
            return quoted.split_once('"').map(|(value, _)| value.to_owned());
        }
        let value = rest.split(' ').next()?;
        let named = matches!(name, "path" | "exe" | "comm" | "name" | "cwd");
        Some(if named { unhex(value).unwrap_or_else(|| value.to_owned()) } else { value.to_owned() })
    }

    /// A value in decimal digits.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.field(name)?.parse().ok()
    }

    /// A value in hexadecimal digits.
    pub(super) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        bytes(&self.field(name)?)
    }

    fn who(&self) -> Who {
        let program = self.field("exe").or_else(|| self.field("comm")).unwrap_or_default();
        (self.number("uid"), self.number("pid"), Untrusted(program.as_bytes()).to_string())
    }
}

fn unhex(text: &str) -> Option<String> {
    bytes(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits =
        text.len() > 1 && text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pair = |place: usize| u8::from_str_radix(text.get(place..place + 2)?, 16).ok();
    digits.then(|| (0..text.len()).step_by(2).map_while(pair).collect())
}

fn denial(line: &Line<'_>, whose: &Whose<'_>) -> Option<Denial> {
    let (what, (uid, pid, program), cell) = match line.kind {
        SECCOMP => {
            let number = line.number("syscall")?;
            let foreign = line.field("compat").as_deref() == Some("1");
            // The action of a filter stands in the upper half: SECCOMP_RET_ERRNO is 0x0005.
            let ended = line.field("code").is_none_or(|code| !code.starts_with("0x5"));
            let name =
                if foreign { format!("call {number} of another architecture") } else { call_name(number) };
            (What::Call { name, ended }, line.who(), None)
        }
        ACCESS => {
            let path = line.field("path").map(|path| Untrusted(path.as_bytes()).to_string());
            let port = line.field("daddr_port").or_else(|| line.field("dest")).or_else(|| line.field("src"));
            let port = port.and_then(|port| port.parse().ok());
            let rights = line.field("blockers")?;
            let domain = line.field("domain").and_then(|domain| whose.domains.get(&domain));
            let who = whose.callers.get(line.serial).or(domain).cloned().unwrap_or_default();
            (What::Access { rights, path, port }, who, domain.and_then(|(_, pid, _)| *pid))
        }
        _ => return None,
    };
    Some(Denial { at: line.at.to_owned(), uid, pid, cell, program, what })
}

/// `Memory cgroup out of memory: Killed process 9839 (hog.cgi) … UID:30621 …`
fn killed(line: &str) -> Option<Denial> {
    let rest = line.split_once("emory: Killed process ")?.1;
    let (pid, rest) = rest.split_once(" (")?;
    // The name is the site's, and may hold a parenthesis; what follows it is the kernel's.
    let (name, rest) = rest.rsplit_once(") total-vm:")?;
    let uid = rest.split_once("UID:")?.1.split(' ').next()?.parse().ok();
    let program = Untrusted(name.as_bytes()).to_string();
    Some(Denial { at: String::new(), uid, pid: pid.parse().ok(), cell: None, program, what: What::Memory })
}

fn call_name(number: u32) -> String {
    let names = BASELINE.lines().filter_map(|line| line.split(' ').next());
    let mut named = names.filter(|name| find(name) == Some(Known::Number(number)));
    named.next().map_or_else(|| format!("number {number}"), str::to_owned)
}

impl std::fmt::Display for What {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Access { rights, path: Some(path), .. } => write!(out, "{rights} of {path}"),
            Self::Access { rights, port: Some(port), .. } => write!(out, "{rights} {port}"),
            Self::Access { rights, .. } => out.write_str(rights),
            Self::Call { name, ended: true } => write!(out, "system call {name}, and ended"),
            Self::Call { name, ended: false } => write!(out, "system call {name}"),
            Self::Memory => out.write_str("memory was used up, and ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_become_denials() {
        let text = "[ 1.0] audit: type=1326 audit(1795.842:5): auid=1 uid=301 gid=301 ses=4 pid=11 comm=\"a.cgi\" exe=\"/srv/a.cgi\" sig=31 arch=40000003 syscall=20 compat=1 ip=0x4 code=0x80000000\n\
            [ 2.0] audit: type=1326 audit(1795.900:6): auid=1 uid=301 gid=301 ses=4 pid=12 comm=\"a\" exe=2F612062 sig=0 arch=HERE syscall=KEYCTL compat=0 ip=0x4 code=0x50001\n\
            [ 3.0] audit: type=1423 audit(1796.001:7): domain=195ba459b blockers=fs.read_file path=\"/etc/x\" dev=\"vda\" ino=3\n\
            [ 3.0] audit: type=1300 audit(1796.001:7): arch=c000003e syscall=257 success=no exit=-13 a0=1 items=0 ppid=1 pid=13 auid=1 uid=301 gid=301 comm=\"php\" exe=\"/usr/bin/php\" key=(null)\n\
            type=UNKNOWN[1423] msg=audit(1796.002:8): domain=1 blockers=net.connect_tcp daddr=127.0.0.1 dest=3307\n\
            [ 3.1] audit: type=1423 audit(1796.003:9): domain=2 blockers=fs.read_dir path=\"/srv\" dev=\"vda\" ino=3\n\
            [ 3.1] audit: type=1424 audit(1796.003:9): domain=2 status=allocated mode=enforcing pid=14 uid=301 exe=\"/usr/lib/cellwall/cellwall-suexec\" comm=\"cellwall-suexec\"\n\
            [ 4.0] Memory cgroup out of memory: Killed process 98 (x) total-vm:1) total-vm:92kB, shmem-rss:0kB, UID:302 pgtables:1kB oom_score_adj:0\n\
            [ 5.0] something else\n";
        let own = format!("{:x}", crate::sys::filter::ARCHITECTURE);
        let all = parse(&text.replace("HERE", &own).replace("KEYCTL", &libc::SYS_keyctl.to_string()));
        let told: Vec<String> = all
            .iter()
            .map(|one| format!("{:?} {:?} {} {}", one.uid, one.pid, one.program, one.what))
            .collect();
        assert_eq!(
            told,
            [
                "Some(301) Some(11) /srv/a.cgi system call call 20 of another architecture, and ended",
                "Some(301) Some(12) /a b system call keyctl",
                "Some(301) Some(13) /usr/bin/php fs.read_file of /etc/x",
                "None None  net.connect_tcp 3307",
                "Some(301) Some(14) /usr/lib/cellwall/cellwall-suexec fs.read_dir of /srv",
                "Some(302) Some(98) x) total-vm:1 memory was used up, and ended",
            ]
        );
    }
}
