//! What strace(1) wrote about a run, read back: which call of which program failed on what, and how each process ended.
//!
//! Pure. The run was a site's, so every byte of it is hostile: what is not understood is left out.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

/// The story of one run, all processes together, in the order of time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Story {
    /// Calls.
    pub events: Vec<Event>,
    /// Ends.
    pub ends: Vec<Ended>,
    /// There were more calls than are kept.
    pub full: bool,
}

/// One system call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Microseconds since 1970.
    pub at: u64,
    /// The program that made it.
    pub program: PathBuf,
    /// Its name.
    pub call: String,
    /// Paths that it names, absolute, as the program sees them.
    pub paths: Vec<PathBuf>,
    /// The TCP port that it names.
    pub port: Option<u16>,
    /// It would change something, or is to.
    pub write: bool,
    /// The kernel's answer: an error's name; none for success.
    pub error: Option<String>,
    /// The answer never came.
    pub waits: bool,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The program in it.
    pub program: PathBuf,
    /// The exit status, or the signal's name.
    pub how: Result<u8, String>,
    /// The kernel itself sent the signal (a timer, a limit), not a process.
    pub kernel: bool,
    /// How long it ran, in microseconds.
    pub took: u64,
    /// It is the one that the web server started.
    pub first: bool,
}

impl Story {
    /// Adds the file of one process. What `launcher` did before it became the program is left out.
    pub fn add(&mut self, lines: impl IntoIterator<Item = String>, launcher: &Path) {
        let mut lines = lines.into_iter().peekable();
        let mut here = PathBuf::from("/");
        let first = lines.peek().and_then(|line| event(line, Path::new(""), &here)).is_some_and(|event| {
            event.call == "execve" && event.paths.first().is_some_and(|path| path == launcher)
        });
        let mut program = PathBuf::new();
        let mut started = if first { 2_u8 } else { 0 };
        let (mut begin, mut sent_by_kernel) = (None, false);
        for line in lines {
            let line = line.as_str();
            let at = time(line);
            if let Some((held, _)) = line.split_once("AT_FDCWD<").and_then(|(_, rest)| rest.split_once('>')) {
                here = PathBuf::from(OsString::from_vec(plain(held)));
            }
            if let Some(event) = event(line, &program, &here) {
                if let ("chdir", None, Some(to)) = (&*event.call, &event.error, event.paths.first()) {
                    here.clone_from(to);
                }
                let became = event.call.starts_with("execve") && event.error.is_none() && !event.waits;
                if became {
                    program = event.paths.first().cloned().unwrap_or_default();
                    started = started.saturating_sub(1);
                    begin = at;
                }
                if started == 0 {
                    begin = begin.or(at);
                    self.keep(Event { program: program.clone(), ..event });
                }
            } else if line.contains(" --- SIG") {
                sent_by_kernel = line.contains("si_code=SI_KERNEL");
            } else if let (0, Some(how)) = (started, end(line)) {
                let took = at.unwrap_or(0).saturating_sub(begin.unwrap_or(0));
                // SIGKILL has no line of its own: who sent it is not told.
                let kernel = sent_by_kernel;
                self.ends.push(Ended { program: program.clone(), how, kernel, took, first });
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() < EVENTS_MOST {
            self.events.push(event);
        } else {
            self.full = true;
        }
    }

    /// By time, when all files were added.
    pub fn in_order(&mut self) {
        self.events.sort_by_key(|event| event.at);
    }
}

/// A program can call as often as it likes, and does not fill the memory with it.
const EVENTS_MOST: usize = 200_000;

fn time(line: &str) -> Option<u64> {
    let (seconds, micros) = line.split(' ').next()?.split_once('.')?;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)
}

/// `+++ exited with 1 +++` or `+++ killed by SIGXCPU (core dumped) +++`.
fn end(line: &str) -> Option<Result<u8, String>> {
    let what = line.split_once(" +++ ")?.1;
    if let Some(status) = what.strip_prefix("exited with ") {
        return status.split(' ').next()?.parse().ok().map(Ok);
    }
    what.strip_prefix("killed by ")?.split(' ').next().map(|signal| Err(signal.to_owned()))
}

fn event(line: &str, program: &Path, here: &Path) -> Option<Event> {
    let at = time(line)?;
    let rest = line.split_once(' ')?.1;
    let (call, rest) = rest.split_once('(')?;
    if call.is_empty() || !call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let (arguments, answer) = match rest.rfind(") ").map(|place| rest.split_at(place)) {
        Some((arguments, answer)) if answer.trim_start_matches([')', ' ']).starts_with("= ") => {
            (arguments, Some(answer.trim_start_matches([')', ' ', '='])))
        }
        _ => (rest, None),
    };
    let error = answer.and_then(|answer| answer.strip_prefix("-1 ")?.split(' ').next().map(str::to_owned));
    // Whoever asks for huge pages does well without: most hosts have none.
    let error = error.filter(|_| !arguments.contains("MAP_HUGETLB"));
    let write = ["O_WRONLY", "O_RDWR", "O_CREAT", "W_OK"].iter().any(|flag| arguments.contains(flag))
        || changes(call);
    let paths = words(arguments, if call.starts_with("execve") { 1 } else { 2 }, here);
    let port = arguments.split_once("port=htons(").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    Some(Event {
        at,
        program: program.to_owned(),
        call: call.to_owned(),
        paths,
        port,
        write,
        error,
        waits: answer.is_none(),
    })
}

/// Does this call change the file system whatever its flags are?
pub(super) fn changes(call: &str) -> bool {
    let plain = call.trim_end_matches('2');
    [plain, plain.trim_end_matches("at")].iter().any(|name| CHANGES.contains(name))
}

const CHANGES: [&str; 13] = [
    "mkdir", "rmdir", "unlink", "rename", "link", "symlink", "mknod", "chmod", "fchmod", "chown", "truncate",
    "creat", "utimens",
];

/// The first quoted words of a call, each made absolute by the directory that stands before it in angle brackets
/// (`openat(5</srv>, "a")`), or by that of the process (`access("a")`), which its calls before have told.
fn words(arguments: &str, most: usize, here: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut base = here.to_owned();
    let mut rest = arguments;
    while found.len() < most {
        let Some(place) = rest.find(['"', '<']) else { break };
        let (kind, after) =
            (rest.get(place..=place), rest.get(place.saturating_add(1)..).unwrap_or_default());
        if kind == Some("<") {
            let (held, after) = after.split_once('>').unwrap_or((after, ""));
            if held.starts_with('/') {
                base = PathBuf::from(OsString::from_vec(plain(held)));
            }
            rest = after;
            continue;
        }
        let end = closing(after);
        let bytes = plain(after.get(..end).unwrap_or_default());
        // A socket's abstract name is written with an @ before its quote, and is no path.
        let named = !rest.get(..place).unwrap_or_default().ends_with('@') && !bytes.is_empty();
        if named {
            found.push(absolute(&base, Path::new(std::ffi::OsStr::from_bytes(&bytes))));
        }
        rest = after.get(end.saturating_add(1)..).unwrap_or_default();
    }
    found
}

/// Where a quoted word ends.
fn closing(text: &str) -> usize {
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return place,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// C's escapes undone.
fn plain(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let Some(letter) = rest.next() else { break };
        let meant = match letter {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 11,
            b'f' => 12,
            b'0'..=b'7' => {
                let mut number = u32::from(letter - b'0');
                for _ in 0..2 {
                    let Some(digit) = rest.next_if(|next| matches!(next, b'0'..=b'7')) else { break };
                    number = number * 8 + u32::from(digit - b'0');
                }
                u8::try_from(number & 255).unwrap_or(0)
            }
            other => other,
        };
        bytes.push(meant);
    }
    bytes
}

/// Joined, and without `.`, `..` and doubled slashes.
pub(super) fn absolute(base: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::from("/");
    for part in base.join(path).components() {
        match part {
            Component::Normal(name) => whole.push(name),
            Component::ParentDir => drop(whole.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAUNCHER: &str = "1.000000 execve(\"/usr/lib/cellwall/cellwall-suexec\", [\"x\"], 0x1 /* 3 vars */) = 0\n\
        1.000100 openat(AT_FDCWD</>, \"/etc/none\", O_RDONLY) = -1 ENOENT (No such file or directory)\n\
        1.000200 execve(\"/srv/a.cgi\", [\"a.cgi\"], 0x1 /* 3 vars */) = 0\n";

    fn story(more: &str) -> Story {
        let mut story = Story::default();
        let text = format!("{LAUNCHER}{more}");
        story.add(text.lines().map(str::to_owned), Path::new("/usr/lib/cellwall/cellwall-suexec"));
        story
    }

    #[test]
    fn calls_are_read_with_their_paths_ports_and_answers() {
        let story = story(
            "2.000000 openat(5</srv/x>, \"../d\\n\\\"\\303\\244\", O_WRONLY|O_CREAT, 0666) = -1 EROFS (Read-only file system)\n\
             2.000001 connect(3<socket:[1]>, {sa_family=AF_INET6, sin6_port=htons(99), inet_pton(AF_INET6, \"::1\", &x)}, 28) = -1 EACCES (Permission denied)\n\
             2.000002 connect(3<socket:[1]>, {sa_family=AF_UNIX, sun_path=\"/run/a.sock\"}, 13) = -1 ENOENT (No such file)\n\
             2.000003 rename(\"/a\", \"b\") = 0\n\
             3.500200 --- SIGALRM {si_signo=SIGALRM, si_code=SI_KERNEL} ---\n\
             3.500200 +++ killed by SIGALRM +++\n",
        );
        assert_eq!(story.events.len(), 5, "{story:#?}");
        let [start, open, port, socket, rename] = story.events.as_slice() else { panic!() };
        assert_eq!((start.call.as_str(), start.paths.len()), ("execve", 1));
        assert_eq!(open.paths, [Path::new("/srv/d\n\"ä")]);
        assert!(open.write && open.error.as_deref() == Some("EROFS"));
        assert_eq!((port.port, port.error.as_deref()), (Some(99), Some("EACCES")));
        assert_eq!(socket.paths, [Path::new("/run/a.sock")]);
        assert_eq!((rename.paths.len(), rename.error.as_deref(), rename.write), (2, None, true));
        let [ended] = story.ends.as_slice() else { panic!() };
        assert_eq!(ended.how, Err("SIGALRM".to_owned()));
        assert!(ended.kernel && ended.first && ended.took == 2_500_000);
        assert_eq!(ended.program, Path::new("/srv/a.cgi"));
    }

    #[test]
    fn a_name_alone_is_one_in_the_directory_of_the_process() {
        let story = story(
            "2.000000 access(\"a\", F_OK) = -1 ENOENT (No such file or directory)\n\
             2.000001 chdir(\"/srv/x\") = 0\n2.000002 chdir(\"none\") = -1 ENOENT (No such file or directory)\n\
             2.000003 access(\"a\", F_OK) = -1 ENOENT (No such file or directory)\n\
             2.000004 openat(AT_FDCWD</srv/y>, \"a\", O_RDONLY) = -1 ENOENT (No such file or directory)\n\
             2.000005 access(\"../a\", F_OK) = -1 ENOENT (No such file or directory)\n",
        );
        let asked: Vec<&Path> = story.events.iter().skip(1).map(|event| event.paths[0].as_path()).collect();
        assert_eq!(asked, ["/a", "/srv/x", "/srv/x/none", "/srv/x/a", "/srv/y/a", "/srv/a"].map(Path::new));
    }

    #[test]
    fn of_calls_without_end_the_first_are_kept() {
        let mut story = Story::default();
        let call = "1.000000 openat(AT_FDCWD</>, \"/a\", O_RDONLY) = 3".to_owned();
        story.add(std::iter::repeat_n(call, EVENTS_MOST + 1), Path::new("/x"));
        assert_eq!((story.events.len(), story.full), (EVENTS_MOST, true));
    }

    #[test]
    fn an_answer_that_never_came_and_noise_do_no_harm() {
        let story =
            story("2.0 connect(3<s>, {sin_port=htons(3306)}, 16\n2.1 )(\n\n2.2 +++ exited with 255 +++\nx\n");
        assert!(story.events.last().is_some_and(|event| event.waits && event.port == Some(3306)));
        assert_eq!(story.ends.first().map(|ended| ended.how.clone()), Some(Ok(255)));
    }
}
