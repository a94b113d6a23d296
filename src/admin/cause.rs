//! What a traced run failed on: the story of calls and ends, held against the site's rules and the host, becomes causes,
//! each with its remedy, the likeliest first.
//!
//! What a program misses is found by difference: a call that failed in the cell and would not have failed outside of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

use crate::config::seccomp::BASELINE;
use crate::policy::{PathRule, Resource};
use crate::refusal::{Pasted, Untrusted};

use super::again::Run;
use super::fix;
use super::glance::beginning;
use super::ground::{Ground, list_of, piece};
use super::trace::{Ended, Event};

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// How decisive it is: small is much.
    weight: u8,
    /// Which of several of the same weight; the last thing that happened first.
    place: usize,
    /// A short name that stays the same: `limit`, `hidden`, `mode` …
    pub name: &'static str,
    /// What was seen.
    pub found: String,
    /// What that means.
    pub means: String,
    /// A command. None: there is none that a machine could know.
    pub repair: Option<String>,
}

/// Causes, the likeliest first.
#[must_use]
pub fn causes(run: &Run, ground: &Ground<'_>) -> Vec<Cause> {
    let mut found: Vec<Cause> = run.story.ends.iter().filter_map(|ended| killed(ended, ground)).collect();
    for (place, event) in run.story.events.iter().rev().enumerate() {
        found.extend(failed(event, ground).map(|cause| Cause { place, ..cause }));
    }
    found.extend(waits(run));
    found.extend(set_id(run, ground));
    found.extend(full(run, ground));
    found.extend(answer(run, ground));
    found.sort();
    let mut seen = BTreeSet::new();
    found.retain(|cause| seen.insert(cause.repair.clone().unwrap_or_else(|| cause.found.clone())));
    found
}

fn cause(
    weight: u8,
    name: &'static str,
    found: String,
    means: impl Into<String>,
    repair: Option<String>,
) -> Cause {
    Cause { weight, place: 0, name, found, means: means.into(), repair }
}

fn shown(path: &Path) -> String {
    Untrusted(path.as_os_str().as_bytes()).to_string()
}

fn pasted(path: &Path) -> String {
    Pasted(path.as_os_str().as_bytes()).to_string()
}

fn set(ground: &Ground<'_>, key: &str, value: &str) -> String {
    format!("cellwall set {} {key} {value}", Pasted(ground.site.name))
}

/// A signal that the kernel sent by a limit of the site's.
fn killed(ended: &Ended, ground: &Ground<'_>) -> Option<Cause> {
    let signal = ended.how.as_ref().err()?;
    let limits = &ground.site.limits;
    let program = shown(&ended.program);
    let seconds = ended.took / 1_000_000;
    let cpu = limit(ground, Resource::CPU);
    let found = format!("{program} was ended by {signal} after {seconds} s");
    Some(match (signal.as_str(), cpu) {
        ("SIGALRM", _) if ended.kernel && limits.wall_seconds > 0 => {
            let wall = limits.wall_seconds;
            let repair = set(ground, "limits.wall", &format!("{}s", u64::from(wall) * 2));
            cause(
                0,
                "wall",
                found,
                format!("`limits.wall` is {wall} s, and that time was over"),
                Some(repair),
            )
        }
        ("SIGXCPU", Some(cpu)) => cpu_time(ground, found, cpu),
        ("SIGKILL", Some(cpu)) if seconds >= cpu => cpu_time(ground, found, cpu),
        ("SIGXFSZ", _) => {
            let size = limit(ground, Resource::FILE_SIZE).unwrap_or(1 << 30);
            let repair = set(ground, "limits.file_size", &size_of(size.saturating_mul(2)));
            cause(
                0,
                "file-size",
                found,
                format!("`limits.file_size` is {}, and a file grew beyond it", size_of(size)),
                Some(repair),
            )
        }
        ("SIGSYS", _) => cause(
            0,
            "seccomp",
            found,
            "it made a system call of another architecture, or one that the filter kills for",
            Some(
                set(ground, "jail.seccomp", "off")
                    + " # every system call of the kernel is then open to the site",
            ),
        ),
        ("SIGKILL", _) if memory(ground).is_some() => {
            let size = memory(ground).unwrap_or(0);
            let repair = set(ground, "limits.memory", &size_of(size.saturating_mul(2)));
            cause(
                0,
                "memory",
                found,
                format!("`limits.memory` is {}; the kernel ends who exceeds it", size_of(size)),
                Some(repair),
            )
        }
        _ => cause(7, "signal", found, "a fault of the program, or somebody ended it", None),
    })
}

fn cpu_time(ground: &Ground<'_>, found: String, cpu: u64) -> Cause {
    let repair = set(ground, "limits.cpu", &format!("{}s", cpu.saturating_mul(2)));
    cause(
        0,
        "cpu",
        found,
        format!("`limits.cpu` is {cpu} s, and that much processor time was used"),
        Some(repair),
    )
}

/// One call that failed where it would not have failed outside of the cell.
fn failed(event: &Event, ground: &Ground<'_>) -> Option<Cause> {
    let error = event.error.as_deref()?;
    let call = event.call.as_str();
    match (call, error) {
        ("mmap" | "mremap" | "brk", "ENOMEM") => {
            let size = limit(ground, Resource::ADDRESS_SPACE)?;
            let repair = set(ground, "limits.memory", &size_of(size.saturating_mul(2)));
            let found = format!("{} asked for memory and got none", shown(&event.program));
            Some(cause(1, "memory", found, format!("`limits.memory` is {}", size_of(size)), Some(repair)))
        }
        // At execve(2) the kernel says so of a program that is not the first.
        ("clone" | "fork" | "vfork" | "execve" | "execveat", "EAGAIN") => {
            let most = limit(ground, Resource::PROCESSES)?;
            let repair = set(ground, "limits.processes", &most.saturating_mul(2).to_string());
            let found = format!("{} could not start a process", shown(&event.program));
            Some(cause(
                1,
                "processes",
                found,
                format!("`limits.processes` is {most}, all of the user's together"),
                Some(repair),
            ))
        }
        (_, "EMFILE") => {
            let most = limit(ground, Resource::OPEN_FILES).unwrap_or(1024);
            let repair = set(ground, "limits.open_files", &most.saturating_mul(2).to_string());
            let found = format!("{} could not open another file", shown(&event.program));
            Some(cause(1, "open-files", found, format!("`limits.open_files` is {most}"), Some(repair)))
        }
        ("connect" | "bind", "EACCES") if event.port.is_some() => {
            let (port, key) = (event.port.unwrap_or(0), format!("network.{call}"));
            let found = format!("{}: {call} to TCP port {port}: denied", shown(&event.program));
            let repair = set(ground, &key, &port.to_string());
            Some(cause(2, "port", found, format!("the port is not in the site's `{key}`"), Some(repair)))
        }
        ("connect", "ECONNREFUSED") if event.port.is_some() => {
            let port = event.port.unwrap_or(0);
            let found = format!("{}: nothing listens on TCP port {port}", shown(&event.program));
            Some(cause(
                3,
                "service",
                found,
                "the service is not running; the site's rules do not stop it",
                None,
            ))
        }
        (_, "EPERM") if denied_call(call).is_some() => {
            let reason = denied_call(call).unwrap_or_default();
            let found = format!("{}: {call}: denied by the list of system calls", shown(&event.program));
            let repair = set(ground, "jail.seccomp", "off")
                + " # every system call of the kernel is then open to the site";
            // Libraries ask where memory lies (libnuma, at its start, below half of all picture formats) and live with a no.
            let matters = !reason.starts_with("placement of memory");
            (matters && !ground.site.seccomp.is_empty())
                .then(|| cause(4, "seccomp", found, format!("the list denies it: {reason}"), Some(repair)))
        }
        (_, "ENOENT" | "EACCES" | "EROFS" | "EPERM" | "EXDEV") => {
            event.paths.iter().find_map(|path| missed(event, path, error, ground))
        }
        _ => None,
    }
}

/// A path that the host has, or that the host's modes close.
fn missed(event: &Event, path: &Path, error: &str, ground: &Ground<'_>) -> Option<Cause> {
    let descriptor = |means: &str, repair| {
        let found = format!("{}: {}: not in the site's cell", shown(&event.program), shown(path));
        Some(cause(3, "descriptors", found, means, repair))
    };
    if ground.names_descriptor(path) {
        let means = "the names of a program's own descriptors lead through /proc, which this cell has not";
        return descriptor(means, Some(set(ground, "jail.processes", "true")));
    }
    if ["/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name)) {
        let means = "it belongs to the web server, and the site's user may not open it anew, with suEXEC either: >&2 in its place \
                     (and >&1, <&0) is the descriptor itself";
        return descriptor(means, None);
    }
    if ground.private(path) || is_noise(path) {
        return None;
    }
    let (program, name) = (shown(&event.program), shown(path));
    let place = ground.meant(&if event.write { existing(path) } else { path.to_owned() });
    if !place.exists() {
        return absent(event, path, ground);
    }
    let starts = event.call.starts_with("execve");
    let rights = match (event.write, starts) {
        (true, _) => PathRule::READ | PathRule::WRITE,
        (_, true) => PathRule::READ | PathRule::EXECUTE,
        _ => PathRule::READ,
    };
    if !ground.covers(&place, rights) {
        return Some(hidden(event, &place, rights, ground));
    }
    let want = if event.write {
        if place == path { 2 } else { 3 }
    } else if starts {
        1
    } else {
        4
    };
    let (closed, way) = (error == "EACCES").then(|| ground.closed(&place, want)).flatten()?;
    let found = format!("{program}: {name}: denied by the modes of {}", shown(&closed));
    let means = "the site's user may not use it, in the cell or outside of it";
    let weight = if event.write { 3 } else { 5 };
    Some(cause(weight, "mode", found, means, open_up(&closed, way, want, ground)))
}

/// The nearest that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|above| above.exists()).unwrap_or(path).to_owned()
}

fn hidden(event: &Event, place: &Path, rights: u8, ground: &Ground<'_>) -> Cause {
    let (program, name) = (shown(&event.program), shown(place));
    let verb = if event.write { "write to" } else { "use" };
    let found = format!("{program}: {} of {name}: not in the site's cell", event.call);
    let means = format!("the host has it; no rule of the site's lets it {verb} it");
    if let Some(reason) = ground.dangerous(place) {
        return cause(7, "secret", found, format!("{means}, and none is proposed: {reason}"), None);
    }
    let socket = fs::metadata(place).is_ok_and(|facts| facts.mode() & libc::S_IFMT == libc::S_IFSOCK);
    if let Some((piece, _)) = piece(place).filter(|_| !event.write || socket) {
        let weight = if socket { 2 } else { 5 };
        let means = format!("{means}; the piece `{piece}` has it");
        return cause(weight, "hidden", found, means, Some(set(ground, "pieces", &piece)));
    }
    let key = if socket { "files.sockets" } else { list_of(rights) };
    let weight = if socket {
        2
    } else if event.write {
        3
    } else {
        6
    };
    // What is looked up by a directory's name is used by the names in it.
    let library = event.paths.iter().any(|path| shown(path).contains(".so"));
    let wide = |directory: &&Path| library && ground.dangerous(directory).is_none();
    let (key, place) = match place.parent().filter(wide) {
        Some(directory) => ("files.execute", directory),
        None => (key, place),
    };
    let given = ground.given(place).filter(|_| event.write);
    let first = given.map_or_else(String::new, |command| format!("{command} && "));
    cause(weight, "hidden", found, means, Some(first + &set(ground, key, &pasted(place))))
}

/// There is no room where it writes: of the calls that write none is watched, and so its own words tell.
fn full(run: &Run, ground: &Ground<'_>) -> Option<Cause> {
    let says = |words: &str| run.err.lines().find(|line| line.contains(words));
    let found = |line: &str| format!("its complaint: \"{}\"", Untrusted(line.as_bytes()));
    if let Some(line) = says(QUOTA) {
        let means = "the quota of the site's user is used up on the file system that it writes to";
        return Some(cause(1, "quota", found(line), means, Some(format!("quota -s -u {}", ground.uid))));
    }
    let line = says(Errno::ENOSPC.desc())?;
    let places = ground.site.landlock.rules.iter().filter(|rule| rule.rights & PathRule::WRITE != 0);
    let mut places = places.map(|rule| Path::new(OsStr::from_bytes(rule.path)));
    let none_left = |place: &&Path| {
        statvfs(*place).is_ok_and(|facts| {
            facts.blocks_available() == 0 || facts.files() > 0 && facts.files_available() == 0
        })
    };
    let place = places.find(none_left);
    let means = match place {
        Some(place) => format!("the file system of {} is full", shown(place)),
        None => "a file system that it writes to is full, or was then".to_owned(),
    };
    let room = |place| format!("df -h {0}; df -i {0} # make room there", pasted(place));
    Some(cause(1, "full", found(line), means, place.map(room)))
}

/// What C libraries of GNU call EDQUOT; the crate's own words for it are others.
const QUOTA: &str = "Disk quota exceeded";

/// Not even the host has it: only what a named piece cannot do without is a cause.
fn absent(event: &Event, path: &Path, ground: &Ground<'_>) -> Option<Cause> {
    let who = if event.program.as_os_str().is_empty() { "it".to_owned() } else { shown(&event.program) };
    let found = format!("{who}: {} is not there, on the whole host", shown(path));
    if path == Path::new("/usr/sbin/sendmail") {
        let means = "no mail program is installed; the piece `mail` has one, which hands over to a mail server on this host";
        let install = if Path::new("/usr/bin/msmtp").exists() { "" } else { "apt-get install -y msmtp && " };
        return Some(cause(
            2,
            "absent",
            found,
            means,
            Some(install.to_owned() + &set(ground, "pieces", "mail")),
        ));
    }
    let (name, package) = piece(path)?;
    let package = package?;
    let means = format!("the piece `{name}` needs the Debian package {package}");
    Some(cause(5, "absent", found, means, Some(format!("apt-get install -y --reinstall {package}"))))
}

/// The command that opens what the modes close; none for what may be closed on purpose.
fn open_up(closed: &Path, way: bool, want: u32, ground: &Ground<'_>) -> Option<String> {
    let facts = fs::symlink_metadata(closed).ok()?;
    let (user, word) = (ground.uid, pasted(closed));
    if ground.own(closed) {
        let owner = facts.uid();
        let group = ground.site.identity.gid;
        let mut docroots = ground.site.docroots.iter();
        let deployed = docroots.any(|docroot| closed.starts_with(OsStr::from_bytes(docroot)));
        return Some(if owner == user {
            format!("{}chmod u+rwX {word}", ground.hand(closed)?)
        } else if deployed {
            fix::command(ground.site.name, &[closed])
        } else if closed.parent().and_then(|above| ground.hand(above)).is_some_and(|hand| hand.is_empty()) {
            format!("chown -h --from={owner} {user}:{group} {word}")
        } else {
            // What stands there when it is pasted may be another one's file.
            format!(
                "# it belongs to uid {owner}: whoever put it there takes it away, and the site writes its own"
            )
        });
    }
    let roots = ground.hand(closed).is_some_and(|hand| hand.is_empty());
    if ground.dangerous(closed).is_some() || !roots || want & 2 != 0 {
        return None;
    }
    Some(if way { format!("chmod o+x {word}") } else { format!("chmod o+r {word}") })
}

/// Set-id programs mean nothing in a cell; sendmail's helpers are the ones that people miss.
fn set_id(run: &Run, ground: &Ground<'_>) -> Option<Cause> {
    let events =
        run.story.events.iter().filter(|event| event.call.starts_with("execve") && event.error.is_none());
    let mut started = events.filter_map(|event| event.paths.first());
    let program = started.find(|path| {
        fs::metadata(path)
            .is_ok_and(|facts| facts.mode() & 0o6000 != 0 && facts.mode() & libc::S_IFMT == libc::S_IFREG)
    })?;
    let failed = run.story.ends.iter().any(|ended| ended.program == *program && ended.how != Ok(0));
    let found = format!("{} has a set-id bit, which means nothing in a cell", shown(program));
    let means = "mail programs with set-id bits cannot reach their queue from a cell; the piece `mail` has one that needs none";
    (failed && !ground.site.set_id_mail)
        .then(|| cause(2, "set-id", found, means, Some(set(ground, "pieces", "mail"))))
}

/// It was still at work when its time here was over.
fn waits(run: &Run) -> Option<Cause> {
    let cut = run.cut?;
    let last = run.story.events.iter().rev().find(|event| event.waits);
    let what = last.map_or_else(
        || "computes".to_owned(),
        |event| {
            let port = event.port.map_or_else(String::new, |port| format!(" to TCP port {port}"));
            format!("waits in {}{port}", event.call)
        },
    );
    let found = format!("after {} s it had not ended: it {what}", cut.as_secs());
    Some(cause(
        1,
        "hangs",
        found,
        "`limits.wall` ends such programs; what it waits for is outside of the cell",
        None,
    ))
}

/// "Premature end of script headers", and what ended with a complaint.
fn answer(run: &Run, ground: &Ground<'_>) -> Option<Cause> {
    let head = run.out.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header = head.contains(&b':') && run.out.windows(2).any(|two| two == b"\n\n" || two == b"\n\r");
    let first = run.story.ends.iter().find(|ended| ended.first)?;
    let complaint = Untrusted(complaint(&run.err).as_bytes()).to_string();
    if !header {
        if run.out.is_empty() {
            let found = format!("it printed nothing; its complaint: \"{complaint}\"");
            return Some(cause(8, "answer", found, "the web server got no answer", None));
        }
        let found = format!("its answer begins with \"{}\", and not with a header", Untrusted(head));
        let means =
            "an answer begins with lines such as Content-Type: text/html, and an empty line after them";
        let repair = if first.how == Ok(0) { print_header(&first.program, head, ground) } else { None };
        return Some(cause(8, "answer", found, means, repair));
    }
    if first.how != Ok(0) {
        let found = format!("it ended with {}; its complaint: \"{complaint}\"", told(&first.how));
        return Some(cause(8, "status", found, "the program itself says that it failed", None));
    }
    let found = format!("its own answer is \"{}\"; its complaint: \"{complaint}\"", own_status(&run.out)?);
    Some(cause(8, "status", found, "the program itself answers so", None))
}

/// The status in an answer's head, where it is one of failure (RFC 3875, 6.3.3).
fn own_status(out: &[u8]) -> Option<String> {
    let mut head =
        out.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).take_while(|line| !line.is_empty());
    let value = head.find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        name.eq_ignore_ascii_case(b"status").then(|| value.trim_ascii())
    })?;
    matches!(value.first(), Some(b'4' | b'5')).then(|| Untrusted(value).to_string())
}

/// The line that says what is wrong: the last one that is not where it came from (Python has that above, Ruby, Node.js and
/// PHP below), nor that Perl's compiling ended with it.
#[must_use]
pub fn complaint(words: &str) -> &str {
    let around = ["BEGIN failed--", "Stack trace:", "#", "}", "Node.js v"];
    let says = |line: &&str| {
        !line.trim().is_empty()
            && !line.starts_with([' ', '\t'])
            && !around.iter().any(|begin| line.starts_with(begin))
    };
    words.lines().rfind(says).or_else(|| words.lines().next_back()).unwrap_or_default()
}

/// A line behind the first one of a script, which prints the header that its whole answer lacks.
fn print_header(script: &Path, head: &[u8], ground: &Ground<'_>) -> Option<String> {
    if head.contains(&b':') || !ground.own(script) {
        return None;
    }
    let text = beginning(script, LINE)?;
    let first = std::str::from_utf8(text.split(|byte| *byte == b'\n').next()?).ok()?;
    let interpreter = first.strip_prefix("#!")?.split_ascii_whitespace().next()?.rsplit('/').next()?;
    let kind = if head.starts_with(b"<") { "html" } else { "plain" };
    let line = match interpreter.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "sh" | "dash" | "bash" => format!(r#"printf "Content-Type: text/{kind}\\n\\n""#),
        "perl" => format!(r#"$| = 1; print "Content-Type: text/{kind}\\n\\n";"#),
        "python" => format!(r#"print("Content-Type: text/{kind}\\n", flush=True)"#),
        _ => return None,
    };
    Some(format!("{}sed -i '1a {line}' {}", ground.hand(script)?, pasted(script)))
}

/// Bytes of a first line: more than the kernel takes (execve(2)).
const LINE: u64 = 4096;

fn told(how: &Result<u8, String>) -> String {
    match how {
        Ok(status) => format!("status {status}"),
        Err(signal) => signal.clone(),
    }
}

/// The reason on the list, for a call that is denied whatever its arguments are.
fn denied_call(call: &str) -> Option<&'static str> {
    let (plain, _) = BASELINE.split_once("[arguments]")?;
    plain.lines().find_map(|line| {
        let (name, reason) = line.split_once(' ')?;
        (name == call).then(|| reason.trim())
    })
}

fn limit(ground: &Ground<'_>, number: u8) -> Option<u64> {
    let named = ground.site.limits.resources.iter().find(|limit| limit.number == number);
    named.map(|limit| limit.value).filter(|value| *value != u64::MAX)
}

/// The size that memory is limited to, by control group or by process.
fn memory(ground: &Ground<'_>) -> Option<u64> {
    let settings = ground.site.limits.groups.iter().flat_map(|group| &group.settings);
    let named = settings.filter(|(file, _)| matches!(*file, b"memory.max" | b"memory.limit_in_bytes"));
    let sizes = named.filter_map(|(_, value)| std::str::from_utf8(value).ok()?.trim().parse().ok());
    sizes.min().or_else(|| limit(ground, Resource::ADDRESS_SPACE))
}

/// As people write it.
fn size_of(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// What programs look for everywhere, and do well without?
#[must_use]
pub fn is_noise(path: &Path) -> bool {
    NOISE.iter().any(|noise| path.starts_with(noise))
}

/// What programs look for everywhere, and do well without.
const NOISE: [&str; 10] = [
    "/proc",
    "/sys",
    "/etc/ld.so.preload",
    "/run/nscd",
    "/var/run/nscd",
    "/run/systemd",
    "/var/lib/nscd",
    "/dev/tty",
    "/etc/selinux",
    "/root",
];
