//! `cellwall learn SITE --traffic`: what the site's programs ask for in vain while its web server serves it. Root.
//!
//! The kernel's audit tells each system call of the site's user that fails, with the paths and addresses that it named: a
//! path that the cell does not show as well as one that it denies. No rule of the site's is changed meanwhile, and no
//! process of its is touched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libc::c_long;

use crate::policy::{Record, Site};

use super::audit::{Hearing, Stream};
use super::kernel::{CWD, Line, NAME, SOCKET, SYSCALL, line};
use super::mend::LAUNCHER;
use super::say;
use super::trace::{Event, absolute, changes};
use super::until::Until;

/// What was heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// Calls that failed, each with how often; the time in them is nothing.
    pub calls: BTreeMap<Event, usize>,
    /// How many there were.
    pub count: usize,
    /// Calls of more kinds than are kept.
    pub unkept: usize,
    /// The kernel told more than was heard.
    pub lost: bool,
    /// How long it was listened.
    pub took: Duration,
}

/// Listens for a while.
///
/// # Errors
/// The kernel has no audit or does not speak to this place, or is being listened to by another of these commands.
pub fn listen(record: &Record<'_>, site: &Site<'_>, time: Option<Duration>) -> Result<Heard, String> {
    let failed = |errno: nix::errno::Errno| errno.desc().to_owned();
    let until = Until::new(time).map_err(failed)?;
    let before = older(record.uid);
    let numbers: Vec<u32> = calls().map(|(_, number)| number).collect();
    let hearing = Hearing::start(Some((record.uid, &numbers)))?;
    let name = String::from_utf8_lossy(site.name);
    if before > 0 {
        say::note(format_args!(
            "note: this user has {before} processes already; the kernel is silent about those that are older than its \
             audit's first use\n  help: cellwall deployed {name} renews the workers of a pool"
        ));
    }
    say::note("watching what fails: let the site be used, and end it with Ctrl-C");
    let started = Instant::now();
    let mut heard = Heard::default();
    let mut open = Open::default();
    while until.goes_on(Some(hearing.stream().as_fd()), Duration::from_secs(1)).map_err(failed)? {
        drain(hearing.stream(), &mut open, &mut heard);
    }
    // What was on its way.
    drain(hearing.stream(), &mut open, &mut heard);
    heard.lost |= hearing.lost();
    heard.took = started.elapsed();
    Ok(heard)
}

/// Events whose lines have not all come, by serial number.
type Open = BTreeMap<String, Vec<String>>;

fn drain(stream: &Stream, open: &mut Open, heard: &mut Heard) {
    while let Some(told) = stream.line() {
        let Ok(text) = told else {
            heard.lost = true;
            continue;
        };
        let Some(whole) = collect(open, text) else { continue };
        let lines: Vec<Line<'_>> = whole.iter().filter_map(|text| line(text)).collect();
        let Some(event) = call(&lines) else { continue };
        heard.count = heard.count.saturating_add(1);
        if heard.calls.len() < KINDS_MOST || heard.calls.contains_key(&event) {
            let count = heard.calls.entry(event).or_default();
            *count = count.saturating_add(1);
        } else {
            heard.unkept = heard.unkept.saturating_add(1);
        }
    }
}

/// A site can name as many files as it likes, and does not fill the memory with it.
const KINDS_MOST: usize = 50_000;

/// Puts a line to its event's; all of them when it was the last.
fn collect(open: &mut Open, text: String) -> Option<Vec<String>> {
    let parsed = line(&text)?;
    let (serial, last) = (parsed.serial.to_owned(), parsed.kind == END);
    if last {
        return open.remove(&serial);
    }
    if open.len() >= OPEN_MOST {
        open.pop_first();
    }
    open.entry(serial).or_default().push(text);
    None
}

/// The end of an event, `AUDIT_EOE`.
const END: u32 = 1320;
const OPEN_MOST: usize = 1000;

/// Pure: the call that an event's lines tell of.
fn call(lines: &[Line<'_>]) -> Option<Event> {
    let main = lines.iter().find(|line| line.kind == SYSCALL)?;
    let number = main.number("syscall")?;
    let mut known = calls();
    let (call, _) = known.find(|(_, known)| *known == number)?;
    let program = PathBuf::from(main.field("exe").unwrap_or_default());
    if program == Path::new(LAUNCHER) {
        return None;
    }
    let of_kind = |kind: u32| lines.iter().filter(move |line| line.kind == kind);
    let address = of_kind(SOCKET).next().and_then(|line| line.bytes("saddr")).unwrap_or_default();
    let flags = |place: &str| {
        main.field(place).and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or_default()
    };
    let write = match call {
        "open" => flags("a1") & WRITING != 0,
        "openat" => flags("a2") & WRITING != 0,
        "access" => flags("a1") & 2 != 0,
        "faccessat" | "faccessat2" => flags("a2") & 2 != 0,
        other => changes(other),
    };
    let from_here =
        FROM_HERE.iter().chain(OLD).any(|(name, _)| *name == call) || flags("a0") & 0xffff_ffff == HERE;
    let base = of_kind(CWD).next().and_then(|line| line.field("cwd")).filter(|_| from_here);
    let mut paths: Vec<PathBuf> = of_kind(NAME).filter_map(|line| named(line, base.as_deref())).collect();
    paths.extend(socket(&address));
    let answer = main.field("exit").and_then(|text| text.parse::<i32>().ok()).unwrap_or_default();
    Some(Event {
        at: 0,
        program,
        call: call.to_owned(),
        paths,
        port: port(&address),
        write,
        error: Some(format!("{:?}", nix::errno::Errno::from_raw(answer.saturating_neg()))),
        waits: false,
    })
}

/// A path as it was named, made absolute. None: it is one of the directory above, or from a directory that nobody tells.
fn named(line: &Line<'_>, base: Option<&str>) -> Option<PathBuf> {
    let name = PathBuf::from(line.field("name").filter(|name| name != "(null)")?);
    if line.field("nametype").as_deref() == Some("PARENT") {
        return None;
    }
    if name.is_absolute() {
        return Some(absolute(Path::new("/"), &name));
    }
    Some(absolute(Path::new(base?), &name))
}

/// The path in an address of `AF_UNIX`.
fn socket(address: &[u8]) -> Option<PathBuf> {
    let path = address.strip_prefix(&1_u16.to_ne_bytes())?;
    let path = path.split(|byte| *byte == 0).next().filter(|path| path.starts_with(b"/"))?;
    Some(absolute(Path::new("/"), Path::new(&OsString::from_vec(path.to_vec()))))
}

/// The port in an address of the internet.
fn port(address: &[u8]) -> Option<u16> {
    let internet = [2_u16, 10].iter().any(|family| address.starts_with(&family.to_ne_bytes()));
    let [high, low] = address.get(2..4)?.try_into().ok()?;
    internet.then(|| u16::from_be_bytes([high, low]))
}

/// `O_WRONLY`, `O_RDWR`, `O_CREAT`.
const WRITING: u64 = 0o103;
/// `AT_FDCWD`, as audit writes it.
const HERE: u64 = 0xffff_ff9c;

/// Calls that name files, sockets and ports.
fn calls() -> impl Iterator<Item = (&'static str, u32)> {
    let all = FROM_HERE.iter().chain(OLD).chain(FROM_ANYWHERE);
    all.filter_map(|(name, number)| Some((*name, u32::try_from(*number).ok()?)))
}

/// Calls that name a file by the working directory, or an address.
const FROM_HERE: &[(&str, c_long)] = &[
    ("bind", libc::SYS_bind),
    ("chdir", libc::SYS_chdir),
    ("connect", libc::SYS_connect),
    ("execve", libc::SYS_execve),
    ("truncate", libc::SYS_truncate),
];
/// And those that younger machines do without.
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(&str, c_long)] = &[];
#[cfg(target_arch = "x86_64")]
const OLD: &[(&str, c_long)] = &[
    ("access", libc::SYS_access),
    ("creat", libc::SYS_creat),
    ("link", libc::SYS_link),
    ("lstat", libc::SYS_lstat),
    ("mkdir", libc::SYS_mkdir),
    ("open", libc::SYS_open),
    ("readlink", libc::SYS_readlink),
    ("rename", libc::SYS_rename),
    ("rmdir", libc::SYS_rmdir),
    ("stat", libc::SYS_stat),
    ("symlink", libc::SYS_symlink),
    ("unlink", libc::SYS_unlink),
];
/// Calls that name it by a directory that they hold.
const FROM_ANYWHERE: &[(&str, c_long)] = &[
    ("execveat", libc::SYS_execveat),
    ("faccessat", libc::SYS_faccessat),
    ("faccessat2", libc::SYS_faccessat2),
    ("linkat", libc::SYS_linkat),
    ("mkdirat", libc::SYS_mkdirat),
    ("mknodat", libc::SYS_mknodat),
    ("newfstatat", libc::SYS_newfstatat),
    ("openat", libc::SYS_openat),
    ("openat2", libc::SYS_openat2),
    ("readlinkat", libc::SYS_readlinkat),
    ("renameat2", libc::SYS_renameat2),
    ("statx", libc::SYS_statx),
    ("symlinkat", libc::SYS_symlinkat),
    ("unlinkat", libc::SYS_unlinkat),
];

/// How many processes this user has.
fn older(uid: u32) -> usize {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|entry| std::fs::metadata(entry.path()).ok())
        .filter(|facts| std::os::unix::fs::MetadataExt::uid(facts) == uid)
        .count()
}

/// What else must be said of what was heard, a line each.
#[must_use]
pub fn notes(heard: &Heard, record: &Record<'_>, site: &Site<'_>) -> Vec<String> {
    let mut all = Vec::new();
    if heard.lost {
        all.push("The kernel told more than could be heard: some calls are missing here.".to_owned());
    }
    if heard.unkept > 0 {
        all.push(format!(
            "{} of more kinds than are kept are missing here.",
            say::counted(heard.unkept, "call")
        ));
    }
    if record.sites.len() > 1 {
        all.push(format!("{} sites share this user; the kernel cannot tell them apart.", record.sites.len()));
    }
    if !site.seccomp.is_empty() {
        all.push("Denied system calls are not in this: cellwall denials has them.".to_owned());
    }
    all.push(
        "A program that stops at the first thing that it misses shows the next one after that is added."
            .to_owned(),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Option<Event> {
        let (mut open, mut whole) = (Open::new(), None);
        for text in text.lines() {
            whole = whole.or(collect(&mut open, text.to_owned()));
        }
        let whole = whole?;
        call(&whole.iter().filter_map(|text| line(text)).collect::<Vec<_>>())
    }

    fn number(name: &str) -> u32 {
        calls().find(|(known, _)| *known == name).map_or(9999, |(_, number)| number)
    }

    fn told(call: &str, more: &str) -> String {
        format!(
            "type=1300 audit(1.2:9): arch=c000003e syscall={} success=no exit=-2 {more}\ntype=1320 audit(1.2:8): \n\
             type=1320 audit(1.2:9): \n",
            number(call)
        )
    }

    #[test]
    fn a_path_that_is_not_there_is_told_from_where_the_program_stands() {
        let lines = "a0=ffffff9c a1=1 a2=80042 a3=0 items=1 pid=7 uid=301 exe=\"/usr/bin/perl\"\n\
            type=1307 audit(1.2:9): cwd=\"/srv/shop\"\n\
            type=1302 audit(1.2:9): item=0 name=\"../a\" nametype=UNKNOWN";
        let event = event(&told("openat", lines)).unwrap();
        assert_eq!((event.paths, event.write), (vec![PathBuf::from("/srv/a")], true));
        assert_eq!((event.program.to_str(), event.error.as_deref()), (Some("/usr/bin/perl"), Some("ENOENT")));
    }

    #[test]
    fn a_name_below_a_held_directory_is_nobodys_and_a_quoted_one_is_read() {
        let lines = "a0=5 a1=1 a2=0 exe=2F7372762F6120622E636769\n\
            type=1307 audit(1.2:9): cwd=\"/srv\"\n\
            type=1302 audit(1.2:9): item=0 name=\"a\" nametype=UNKNOWN\n\
            type=1302 audit(1.2:9): item=1 name=2F612062 nametype=NORMAL\n\
            type=1302 audit(1.2:9): item=2 name=(null) nametype=UNKNOWN";
        let event = event(&told("openat", lines)).unwrap();
        assert_eq!((event.paths, event.write), (vec![PathBuf::from("/a b")], false));
        assert_eq!(event.program.to_str(), Some("/srv/a b.cgi"));
    }

    #[test]
    fn no_call_stands_twice() {
        let mut all: Vec<_> = calls().map(|(_, number)| number).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn addresses_are_paths_and_ports() {
        let of = |address: &str| {
            event(&told("connect", &format!("a0=3\ntype=1306 audit(1.2:9): saddr={address}")))
        };
        assert_eq!(of("02000CEB7F0000010000000000000000").unwrap().port, Some(3307));
        assert_eq!(of("01002F72756E2F612E736F636B0000").unwrap().paths, [PathBuf::from("/run/a.sock")]);
        assert_eq!(of("0100002F72756E").unwrap().paths, Vec::<PathBuf>::new());
        assert_eq!(of("0").unwrap().port, None);
    }

    #[test]
    fn lines_without_their_call_and_other_calls_are_left_out() {
        assert_eq!(event("type=1302 audit(1.2:9): item=0 name=\"a\"\ntype=1320 audit(1.2:9): \n"), None);
        assert_eq!(event(&told("getpid", "a0=0")), None);
        assert_eq!(event(")(\ntype=1320 audit(1.2:9): \n"), None);
    }
}
