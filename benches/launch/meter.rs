//! The process that starts programs and takes the time: the web server's user, itself at a real-time priority where
//! permitted.

use std::ffi::{CString, c_char};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Instant;

use super::host;
use super::numbers::Times;

/// One program, as it is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    directory: CString,
    program: CString,
    words: Vec<CString>,
    environment: Vec<CString>,
}

impl Start {
    pub(crate) fn new(directory: &Path, program: &Path, words: &[&str], environment: &[String]) -> Self {
        let text = |bytes: &[u8]| CString::new(bytes).unwrap();
        let program = text(program.as_os_str().as_bytes());
        let mut all = vec![program.clone()];
        all.extend(words.iter().map(|word| text(word.as_bytes())));
        Self {
            directory: text(directory.as_os_str().as_bytes()),
            program,
            words: all,
            environment: environment.iter().map(|entry| text(entry.as_bytes())).collect(),
        }
    }
}

/// The web server's user and group on Debian.
pub(crate) const CALLER: u32 = 33;
const WARM_UP: usize = 5;

/// Starts all of them `rounds` times, interleaved. Each must end well and print something.
pub(crate) fn measure(starts: &[Start], rounds: usize) -> Result<Vec<Times>, String> {
    let bytes = in_child(|to| {
        let mut all = vec![Vec::with_capacity(rounds); starts.len()];
        for round in 0..rounds + WARM_UP {
            for place in 0..starts.len() {
                let which = (place + round) % starts.len();
                let nanos = starts[which].once()?;
                if round >= WARM_UP {
                    all[which].push(nanos);
                }
            }
        }
        for nanos in all.iter().flatten() {
            to.write_all(&nanos.to_ne_bytes()).map_err(|why| why.to_string())?;
        }
        Ok(())
    })?;
    let mut numbers = bytes.chunks_exact(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap()));
    Ok(starts.iter().map(|_| numbers.by_ref().take(rounds).collect()).collect())
}

/// One start, to see whether it can be measured at all.
pub(crate) fn try_once(start: &Start) -> Result<(), String> {
    in_child(|_| start.once().map(drop)).map(drop).map_err(|why| match host::last_refusal() {
        Some(record) if start.program.to_bytes() == host::OURS.as_bytes() => record,
        _ => why,
    })
}

/// posix_spawn, exec, exit, wait: without a pipe and without reading.
pub(crate) fn floor(start: &Start, rounds: usize) -> Result<Times, String> {
    let bytes = in_child(|to| {
        start.enter()?;
        for _ in 0..rounds {
            let started = Instant::now();
            let child = start.spawn(None)?;
            wait(child)?;
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap();
            to.write_all(&nanos.to_ne_bytes()).map_err(|why| why.to_string())?;
        }
        Ok(())
    })?;
    Ok(bytes.chunks_exact(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap())).collect())
}

impl Start {
    /// The time from before the start until the output has ended and the program was waited for.
    fn once(&self) -> Result<u64, String> {
        self.enter()?;
        let mut buffer = [0; 16384];
        let started = Instant::now();
        let (from, to) = pipe()?;
        let child = self.spawn(Some(&to))?;
        drop(to);
        let mut from = File::from(from);
        let mut printed = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => printed += count,
                Err(why) => return Err(why.to_string()),
            }
        }
        let status = wait(child)?;
        let took = started.elapsed();
        if status != 0 || printed == 0 {
            let words = self.words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
            return Err(format!("{words} ended with wait status {status:#x}"));
        }
        Ok(u64::try_from(took.as_nanos()).unwrap())
    }

    fn enter(&self) -> Result<(), String> {
        // SAFETY: the text ends with a zero byte and outlives the call.
        check("chdir", unsafe { libc::chdir(self.directory.as_ptr()) }).map(drop)
    }

    fn spawn(&self, output: Option<&OwnedFd>) -> Result<libc::pid_t, String> {
        let pointers = |all: &[CString]| -> Vec<*mut c_char> {
            all.iter().map(|text| text.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
        };
        let (words, environment) = (pointers(&self.words), pointers(&self.environment));
        let mut actions = MaybeUninit::uninit();
        // SAFETY: `actions` is valid for writing; the call initialises it.
        check("file actions", unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        if let Some(output) = output {
            // SAFETY: initialised above; the descriptor is open until the spawn has returned.
            let added = unsafe {
                libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), output.as_raw_fd(), 1)
            };
            check("file actions", added)?;
        }
        let mut child = 0;
        // SAFETY: all texts end with zero bytes, both lists with null pointers, and everything outlives the call.
        let failed = unsafe {
            libc::posix_spawn(
                &raw mut child,
                self.program.as_ptr(),
                actions.as_ptr(),
                ptr::null(),
                words.as_ptr(),
                environment.as_ptr(),
            )
        };
        // SAFETY: initialised above and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr()) };
        match failed {
            0 => Ok(child),
            errno => Err(format!(
                "{}: {}",
                self.program.to_string_lossy(),
                std::io::Error::from_raw_os_error(errno)
            )),
        }
    }
}

/// Forks, becomes the web server's user, works, and returns what the work wrote.
fn in_child(work: impl FnOnce(&mut File) -> Result<(), String>) -> Result<Vec<u8>, String> {
    std::io::stdout().flush().unwrap();
    let (from, to) = pipe()?;
    // SAFETY: this process has one thread, so the child may do whatever a process may do.
    let child = check("fork", unsafe { libc::fork() })?;
    if child == 0 {
        drop(from);
        let mut to = File::from(to);
        let ended = become_caller().and_then(|()| work(&mut to));
        let code = match ended {
            Ok(()) => 0,
            Err(why) => {
                drop(to.write_all(why.as_bytes()));
                1
            }
        };
        // SAFETY: ends the child; nothing of the parent's is flushed twice.
        unsafe { libc::_exit(code) };
    }
    drop(to);
    let mut bytes = Vec::new();
    File::from(from).read_to_end(&mut bytes).unwrap();
    match wait(child)? {
        0 => Ok(bytes),
        256 => Err(String::from_utf8_lossy(&bytes).into_owned()),
        status => Err(format!("the measuring process ended with {status:#x}")),
    }
}

fn become_caller() -> Result<(), String> {
    let priority = libc::sched_param { sched_priority: 5 };
    // What is started runs as anything else does, whichever it is: the launcher gives an inherited priority back, and
    // stock keeps it.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: plain numbers and one structure that outlives the call. Where it is forbidden the normal priority stays.
    unsafe { libc::sched_setscheduler(0, policy, &raw const priority) };
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|why| why.to_string())?;
    for standard in [0, 1, 2] {
        // SAFETY: both descriptors are open.
        check("dup2", unsafe { libc::dup2(null.as_raw_fd(), standard) })?;
    }
    let groups = [CALLER];
    // SAFETY: one group, and a pointer to one.
    check("setgroups", unsafe { libc::setgroups(1, groups.as_ptr()) })?;
    // SAFETY: plain numbers.
    check("setresgid", unsafe { libc::setresgid(CALLER, CALLER, CALLER) })?;
    // SAFETY: plain numbers.
    check("setresuid", unsafe { libc::setresuid(CALLER, CALLER, CALLER) })?;
    // It must not go on at its priority when the benchmark is interrupted. The change of identity clears the wish.
    // SAFETY: plain numbers.
    check("prctl", unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    let mut both = [0; 2];
    // SAFETY: room for two descriptors.
    check("pipe", unsafe { libc::pipe2(both.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: just made, and owned by nobody else.
    Ok((unsafe { OwnedFd::from_raw_fd(both[0]) }, unsafe { OwnedFd::from_raw_fd(both[1]) }))
}

fn wait(child: libc::pid_t) -> Result<i32, String> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    check("waitpid", unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    Ok(status)
}

fn check(what: &str, result: i32) -> Result<i32, String> {
    if result >= 0 { Ok(result) } else { Err(format!("{what}: {}", std::io::Error::last_os_error())) }
}
