//! A site's program once more, in its cell, under strace(1): what no record can hold, because it happens after the
//! launcher has become the program. Root.
//!
//! strace and not code of ours: it decodes every call on every machine, and is no part of anything privileged.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, mkdtemp};

use crate::config::seccomp::BASELINE;
use crate::sys::fork::apart;

use super::trace::Story;

/// What a traced run left.
#[derive(Debug)]
pub struct Run {
    /// Calls and ends.
    pub story: Story,
    /// The beginning of what it printed.
    pub out: Vec<u8>,
    /// The beginning of what it complained of.
    pub err: String,
    /// It was ended after this time.
    pub cut: Option<Duration>,
    /// It was ended because it did too much to be watched, or its beginning is all that was read.
    pub full: bool,
}

impl Run {
    /// What must be said of a run of which not all is known.
    #[must_use]
    pub fn limit(&self) -> Option<String> {
        let most = MOST >> 20;
        self.full
            .then(|| format!("it was cut off: it did or printed more than {most} MiB of a trace can tell"))
    }
}

/// A run that is being put together.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What strace starts, and its words.
    pub command: Vec<OsString>,
    /// The user to start it as; none: root.
    pub user: Option<&'a str>,
    /// The working directory.
    pub directory: &'a Path,
    /// The environment, whole.
    pub environment: Vec<(OsString, OsString)>,
    /// It is ended after this time.
    pub most: Duration,
}

impl Plan<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// strace is not installed, or may not trace.
    pub fn run(&self) -> Result<Run, String> {
        // Whoever leaves its parent becomes a child of this process, and not of the first one of the host.
        set_child_subreaper(true).map_err(|errno| errno.to_string())?;
        let place = mkdtemp("/tmp/cellwall-why.XXXXXX").map_err(|errno| errno.to_string())?;
        let ended = self.traced(&place);
        end_all();
        drop(fs::remove_dir_all(&place));
        ended
    }

    fn traced(&self, place: &Path) -> Result<Run, String> {
        let failed = |error: std::io::Error| error.to_string();
        let strace = STRACE.iter().map(Path::new).find(|path| path.exists());
        let strace = strace.ok_or("strace is not installed\n  help: run: apt-get install -y strace")?;
        let mut command = Command::new(strace);
        command
            .args(["-ff", "-ttt", "-y", "-q", "-s", "4096", "-e", &calls(), "-o"])
            .arg(place.join("trace"));
        if let Some(user) = self.user {
            command.args(["-u", user]);
        }
        let (out, err) = (place.join("out"), place.join("err"));
        // The site's program could open the administrator's terminal and read what is typed there.
        let mut child = apart(&mut command)
            .arg("--")
            .args(&self.command)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(File::create(&out).map_err(failed)?)
            .stderr(File::create(&err).map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let started = Instant::now();
        let (mut cut, mut full) = (None, false);
        for round in 0_u32.. {
            if child.try_wait().map_err(failed)?.is_some() {
                break;
            }
            full |= round.is_multiple_of(LOOKS) && size(place) > MOST;
            if full || started.elapsed() > self.most {
                cut = (!full).then_some(self.most);
                let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
                // Not even a hung program is left behind; strace ends with its last one.
                killpg(group, Signal::SIGKILL).ok();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let (story, whole) = self.story(place);
        if story.events.is_empty() && story.ends.is_empty() {
            let said = String::from_utf8_lossy(&beginning(&err)).trim().to_owned();
            return Err(format!("the program did not start: {said}"));
        }
        Ok(Run {
            story,
            out: beginning(&out),
            err: String::from_utf8_lossy(&beginning(&err)).into_owned(),
            cut,
            full: full || !whole,
        })
    }

    /// What the traces tell, as far as they are read; false: there is more.
    fn story(&self, place: &Path) -> (Story, bool) {
        let launcher = self.command.first().map(PathBuf::from).unwrap_or_default();
        let (mut story, mut left) = (Story::default(), MOST);
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(b"trace.") {
                continue;
            }
            let Ok(file) = File::open(entry.path()) else { continue };
            let mut text = BufReader::new(file.take(left));
            story.add(lines(&mut text), &launcher);
            left = text.get_ref().limit();
        }
        story.in_order();
        let whole = left > 0 && !story.full;
        (story, whole)
    }
}

/// The lines of a trace, one at a time.
fn lines(text: &mut impl BufRead) -> impl Iterator<Item = String> + '_ {
    text.split(b'\n').map_while(Result::ok).map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// Bytes of all files of a run, each counted with the block that it takes at least.
fn size(place: &Path) -> u64 {
    let files = fs::read_dir(place).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok()).map(|facts| facts.len().max(BLOCK));
    sizes.fold(0, u64::saturating_add)
}

/// What the files of a run take at most: a program can make calls, print and start others without end.
const MOST: u64 = 64 << 20;
const BLOCK: u64 = 4096;

/// Rounds of waiting for each look at the size.
const LOOKS: u32 = 5;

/// Ends what left the run: a program that made a session or a daemon of itself is nobody's, and would live on unwatched.
fn end_all() {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let children = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let children = children.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        for pid in
            children.flat_map(|pids| pids.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        // A killed one hands its own children over: until there are none.
        if waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// What a request has at least, for a program in this place.
#[must_use]
pub fn request(directory: &Path, script: &OsStr, query: &str) -> Vec<(OsString, OsString)> {
    let mut all: Vec<(OsString, OsString)> = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", "cellwall"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_METHOD", "GET"),
        ("REDIRECT_STATUS", "200"),
        ("QUERY_STRING", query),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .to_vec();
    let address = Path::new("/").join(script);
    all.push(("SCRIPT_FILENAME".into(), directory.join(script).into()));
    all.push(("SCRIPT_NAME".into(), address.clone().into()));
    all.push(("REQUEST_URI".into(), address.into()));
    all.push(("DOCUMENT_ROOT".into(), directory.into()));
    all
}

/// Files, sockets, processes, memory, and what the list of denied calls names.
fn calls() -> String {
    let denied = BASELINE.lines().take_while(|line| !line.starts_with("[arguments]"));
    let denied =
        denied.filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_'));
    let names: Vec<String> =
        denied.filter_map(|line| line.split(' ').next()).map(|name| format!("?{name}")).collect();
    format!("trace=%file,%network,%process,mmap,brk,mremap,ftruncate,dup,pipe2,?pipe,{}", names.join(","))
}

fn beginning(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(65_536).read_to_end(&mut bytes));
    read.map_or_else(|_| Vec::new(), |_| bytes)
}

const STRACE: [&str; 2] = ["/usr/bin/strace", "/usr/local/bin/strace"];
