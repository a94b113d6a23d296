//! One start of the launcher, in any state that a caller can be in; and what came of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use super::record::Record;
use super::report::Report;
use super::world::{CELLWALL, Launcher, SUEXEC, User, World, drained, orders, spawn};

/// A launch that is being put together.
pub(crate) struct Call<'w> {
    world: &'w World,
    program: String,
    identity: [String; 3],
    directory: OsString,
    words: Vec<OsString>,
    environment: Vec<Vec<u8>>,
    watcher: Vec<String>,
    before: Vec<Vec<u8>>,
    after: Vec<Vec<u8>>,
    input: Vec<u8>,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    /// What was recorded meanwhile.
    pub(crate) records: Vec<Record>,
    /// Probes that ran meanwhile.
    pub(crate) marks: Vec<String>,
    pub(crate) took: Duration,
    /// Of the process that was the caller, then the launcher, then the program.
    pub(crate) pid: u32,
}

impl<'w> Call<'w> {
    pub(crate) fn new(world: &'w World, user: &User, command: &OsStr) -> Self {
        let program = match world.launcher {
            Launcher::Stock => SUEXEC,
            Launcher::Cellwall => CELLWALL,
        };
        let id = user.id.to_string();
        Self {
            world,
            program: program.to_owned(),
            identity: ["33", "33", "33"].map(str::to_owned),
            directory: user.docroot().into(),
            words: vec![program.into(), id.clone().into(), id.into(), command.to_owned()],
            environment: vec![b"REQUEST_METHOD=GET".into(), b"GATEWAY_INTERFACE=CGI/1.1".into()],
            watcher: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            input: Vec::new(),
        }
    }

    /// The whole argument list, the program's name included.
    pub(crate) fn words<T: AsRef<OsStr>>(mut self, words: &[T]) -> Self {
        self.words = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Replaces one word of the argument list: 1 is the user, 2 the group, 3 the command.
    pub(crate) fn word(mut self, place: usize, text: impl AsRef<OsStr>) -> Self {
        self.words[place] = text.as_ref().to_owned();
        self
    }

    /// One more argument.
    pub(crate) fn arg(mut self, text: impl AsRef<OsStr>) -> Self {
        self.words.push(text.as_ref().to_owned());
        self
    }

    /// Asks the probe for one of its deeds.
    pub(crate) fn deed(self, wish: &str) -> Self {
        self.env(format!("QUERY_STRING=do={wish}"))
    }

    /// One more entry of the environment, whole.
    pub(crate) fn env(mut self, entry: impl AsRef<[u8]>) -> Self {
        self.environment.push(entry.as_ref().to_vec());
        self
    }

    /// The current directory.
    pub(crate) fn cwd(mut self, directory: impl AsRef<OsStr>) -> Self {
        self.directory = directory.as_ref().to_owned();
        self
    }

    /// An order obeyed as root, before the identity is changed.
    pub(crate) fn root(mut self, words: &[&str]) -> Self {
        self.before.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// An order obeyed as the caller, last of all.
    pub(crate) fn order(mut self, words: &[&str]) -> Self {
        self.after.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// Who calls: uid, gid, groups separated by commas.
    pub(crate) fn caller(mut self, uid: u32, gid: u32, groups: &str) -> Self {
        self.identity = [uid.to_string(), gid.to_string(), groups.to_owned()];
        self
    }

    /// Under strace, which writes what these options ask for to a file; see [`traced`].
    pub(crate) fn strace(mut self, options: &[&str]) -> Self {
        drop(fs::remove_file(TRACE));
        self.watcher = ["strace", "-f", "-qq", "-o", TRACE]
            .iter()
            .chain(options)
            .map(|word| (*word).to_owned())
            .collect();
        self
    }

    /// Started by these words, which get the caller's own behind them.
    pub(crate) fn behind(mut self, words: &[&str]) -> Self {
        self.watcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    fn starter(&self) -> Command {
        let words = [self.watcher.clone(), vec!["/mnt/bin/call".to_owned()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(orders(&self.orders()));
        command
    }

    /// Another launcher file.
    pub(crate) fn program(mut self, path: &str) -> Self {
        self.program = path.to_owned();
        self
    }

    /// What comes in on descriptor 0.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    fn orders(&self) -> Vec<Vec<u8>> {
        let mut all = self.before.clone();
        let mut order = |words: &[&[u8]]| all.extend(words.iter().map(|word| word.to_vec()));
        order(&[b"cwd", self.directory.as_bytes()]);
        let [uid, gid, groups] = &self.identity;
        order(&[b"become", uid.as_bytes(), gid.as_bytes(), groups.as_bytes()]);
        for word in &self.words {
            order(&[b"arg", word.as_bytes()]);
        }
        for entry in &self.environment {
            order(&[b"env", entry]);
        }
        all.extend(self.after.clone());
        all.extend([b"exec".to_vec(), self.program.as_bytes().to_vec()]);
        all
    }

    /// Starts it, and returns the pid after a while; it goes on by itself.
    pub(crate) fn watch(self, pause: Duration) -> u32 {
        let mut child = spawn(
            self.starter().env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        );
        let pid = child.id();
        // Somebody has to ask how it ended, whenever that is.
        thread::spawn(move || drop(child.wait()));
        thread::sleep(pause);
        pid
    }

    /// Starts it and waits for the end of the program and of its output, 20 seconds at most.
    pub(crate) fn run(self) -> Outcome {
        let world = self.world;
        let before = world.records().len();
        let mut outcome = self.unrecorded();
        outcome.records = world.records().split_off(before);
        outcome
    }

    /// As [`Self::run`], where the log cannot be read.
    pub(crate) fn unrecorded(self) -> Outcome {
        self.attended(|_| None)
    }

    /// As [`Self::unrecorded`]; `attend` gets the process as soon as there is one, in the thread that started it, and
    /// says how it ended if it has waited for that. With `root(&["traced"])` it is that thread's to trace.
    pub(crate) fn attended(self, attend: impl FnOnce(u32) -> Option<ExitStatus>) -> Outcome {
        let marks = self.world.marks();
        let started = Instant::now();
        let mut child = spawn(
            self.starter().env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()),
        );
        let pid = child.id();
        let (mut to, input) = (child.stdin.take().unwrap(), self.input);
        // Each pipe has its reader: none may fill up while another is awaited.
        let feed = thread::spawn(move || drop(to.write_all(&input)));
        let (out, err) = (drained(child.stdout.take().unwrap()), drained(child.stderr.take().unwrap()));
        let attended = attend(child.id());
        let status = loop {
            if let Some(status) = attended {
                break status;
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("the launch did not end in 20 seconds");
            }
            thread::sleep(Duration::from_micros(300));
        };
        let took = started.elapsed();
        // What it left behind may hold its output.
        let end = started + Duration::from_secs(20);
        let whole = |from: Receiver<Vec<u8>>| {
            let rest = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(5));
            from.recv_timeout(rest)
                .unwrap_or_else(|_| panic!("the launch's output did not end in 20 seconds"))
        };
        let (out, err) = (whole(out), whole(err));
        feed.join().unwrap();
        Outcome {
            status,
            out,
            err,
            records: Vec::new(),
            marks: self.world.marks().into_iter().filter(|mark| !marks.contains(mark)).collect(),
            took,
            pid,
        }
    }
}

/// The system calls of the launcher that [`Call::strace`] saw, one a line, without those of the caller before and of
/// the program after it.
pub(crate) fn traced() -> Vec<String> {
    let text = fs::read(TRACE).unwrap();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().skip_while(|line| !line.contains(&format!("execve(\"{CELLWALL}\"")));
    let first = lines.next().unwrap_or_else(|| panic!("strace saw no launcher:\n{text}"));
    let launcher = lines.take_while(|line| !line.contains(" execveat(") || line.contains(" = -1 "));
    std::iter::once(first).chain(launcher).map(str::to_owned).collect()
}

/// Where strace writes.
pub(crate) const TRACE: &str = "/mnt/trace";

impl Outcome {
    /// The probe ran: its report, with exactly one record.
    pub(crate) fn ran(&self) -> Report {
        assert!(self.out_text().contains("probe"), "the program did not run:\n{}", self.story());
        assert_eq!(self.records.len(), 1, "one record is expected:\n{}", self.story());
        assert_eq!(self.records[0].verb, "launch", "{}", self.story());
        Report::parse(&self.out)
    }

    /// Nothing ran, and everybody was told what is due to them.
    pub(crate) fn refused(&self, code: &str, status: i32) -> Record {
        let record = self.refused_somehow();
        assert_eq!(record.field("code"), code, "{}", self.story());
        assert_eq!(self.status.code(), Some(status), "exit status of {code}:\n{}", self.story());
        record
    }

    /// As [`Self::refused`], where several stages may be the one that says no.
    pub(crate) fn refused_somehow(&self) -> Record {
        let story = self.story();
        assert!(self.marks.is_empty(), "a program ran:\n{story}");
        // "No record, no run": what the kernel refuses to start was recorded as a launch, with the same reference.
        let record = match self.records.as_slice() {
            [refuse] => refuse.clone(),
            [launch, refuse] if refuse.field("code").starts_with('X') => {
                assert_eq!(
                    (launch.verb.as_str(), launch.field("ref")),
                    ("launch", refuse.field("ref")),
                    "{story}"
                );
                refuse.clone()
            }
            _ => panic!("one record is expected:\n{story}"),
        };
        assert_eq!(record.verb, "refuse", "{story}");
        assert_eq!(
            self.status.code().map(|code| code.to_string()).as_deref(),
            record.get("status"),
            "{story}"
        );
        assert!(!record.field("why").is_empty() && !record.field("fix").is_empty(), "{story}");
        self.page_of(record.field("ref"));
        assert_eq!(
            self.err_text(),
            format!("cellwall: refused, reference {}\n", record.field("ref")),
            "the server's error log gets one line:\n{story}"
        );
        record
    }

    /// Nothing ran, and there was no way to the log: the page and the error log carry the reference all the same.
    pub(crate) fn refused_in_the_dark(&self, status: i32) {
        let story = self.story();
        assert_eq!(self.status.code(), Some(status), "{story}");
        assert!(self.marks.is_empty() && self.records.is_empty(), "{story}");
        let error = self.err_text();
        let reference = error.strip_prefix("cellwall: refused, reference ").and_then(|rest| rest.get(..9));
        self.page_of(reference.unwrap_or_else(|| panic!("no reference:\n{story}")));
    }

    /// It waited for nothing: one that hangs goes on to the launcher's own deadline, 4 s, on an idle machine as on a busy one.
    pub(crate) fn at_once(&self) {
        assert!(self.took < Duration::from_secs(4), "{}", self.story());
    }

    /// Either it ran with its full identity and a record, or nothing ran and there is a record.
    pub(crate) fn ran_or_refused(&self) -> Option<Report> {
        if self.out_text().contains("probe") {
            Some(self.ran())
        } else {
            self.refused_somehow();
            None
        }
    }

    /// As [`Self::ran_or_refused`]; or the caller could not even enter the directory.
    pub(crate) fn ran_or_refused_or_not_called(&self) -> Option<Report> {
        if self.status.code() == Some(250) { None } else { self.ran_or_refused() }
    }

    /// The visitor's page: the same bytes for all refusals but the reference.
    fn page_of(&self, reference: &str) {
        let page = self.out_text();
        let story = self.story();
        assert!(page.starts_with("Status: 500 "), "{story}");
        assert_eq!(page.matches(reference).count(), 1, "the page names its reference once:\n{story}");
        assert!(!page.contains('/') || !page.contains("/var"), "the page tells a path:\n{story}");
    }

    /// The page with the reference taken out.
    pub(crate) fn page(&self) -> String {
        let reference = self.records.last().unwrap().field("ref");
        self.out_text().replace(reference, "REFERENCE")
    }

    pub(crate) fn out_text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn err_text(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    /// Everything, for a failed assertion.
    pub(crate) fn story(&self) -> String {
        let ended = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("status {code}"),
            (None, signal) => format!("signal {signal:?}"),
        };
        let records: Vec<_> = self.records.iter().map(|record| record.line.clone()).collect();
        format!(
            "{ended}, {:?}\nout: {}\nerr: {}\nrecords: {}\nmarks: {:?}",
            self.took,
            self.out_text().chars().take(2000).collect::<String>(),
            self.err_text().chars().take(2000).collect::<String>(),
            records.join("\n"),
            self.marks
        )
    }
}
