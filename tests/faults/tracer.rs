//! Follows one launch from call to call, and changes what one of them does or says.
//!
//! Who asks to be traced while it is root is traced with root's right, and then a set-uid program keeps its own
//! (execve(2), kernel/ptrace.c). The registers are those of x86_64. The launcher has no part in this.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::harness::{Call, Outcome};

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is not made, and this is its error.
    Fails(Errno),
    /// It is not made, and says that it went well.
    Lies,
    /// It is asked for this many bytes: a short result.
    Shortened(u64),
    /// It is made, and this is its result.
    Says(i64),
    /// The process is killed as it makes it.
    Dies,
    /// From this one on there is no memory to be had.
    Starves,
}

/// One call is changed. It is found by its name and its number among those of its name: where memory lies differs from
/// launch to launch, and with it, now and then, how often the kernel is asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault<'a> {
    pub(crate) name: &'a str,
    pub(crate) nth: usize,
    pub(crate) change: Change,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// As in the kernel's header.
    pub(crate) name: String,
    /// How many of this name came before.
    pub(crate) nth: usize,
    /// Its first three arguments.
    pub(crate) arguments: [u64; 3],
    /// What it returned; none: it did not return.
    pub(crate) result: Option<i64>,
}

/// What was seen of a launch.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Up to the fault, or all.
    pub(crate) calls: Vec<Made>,
    /// The call that was to be changed was made.
    pub(crate) hit: bool,
    /// Calls for memory that were made in vain.
    pub(crate) starved: usize,
    /// Processes and threads that it made.
    pub(crate) children: usize,
    /// It became another program.
    pub(crate) executed: bool,
    /// It did not end by itself.
    pub(crate) stuck: bool,
}

/// Runs `call` with one fault, or with none.
pub(crate) fn traced(call: Call<'_>, fault: Option<Fault<'_>>) -> (Outcome, Seen) {
    let mut seen = Seen::default();
    let outcome = call.root(&["traced"]).attended(|pid| {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        let (done, waiting) = channel::<()>();
        let watch = thread::spawn(move || {
            let late = waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = kill(pid, Signal::SIGKILL);
            }
            late
        });
        let ended = follow(pid, fault, &mut seen);
        drop(done);
        seen.stuck = watch.join().unwrap();
        ended
    });
    (outcome, seen)
}

/// None: it became the program, and nobody follows that.
fn follow(pid: Pid, fault: Option<Fault<'_>>, seen: &mut Seen) -> Option<ExitStatus> {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    let mut now = waitpid(pid, None).unwrap();
    if let WaitStatus::Stopped(_, Signal::SIGSTOP) = now {
        ptrace::setoptions(pid, options).unwrap();
        now = onward(pid, false, None);
    }
    // None: the caller is still preparing.
    let mut inside: Option<bool> = None;
    let mut counting = true;
    let mut expected: Option<i64> = None;
    loop {
        now = match now {
            WaitStatus::Exited(_, code) => return Some(ExitStatus::from_raw(code << 8)),
            WaitStatus::Signaled(_, signal, _) => return Some(ExitStatus::from_raw(signal as i32)),
            WaitStatus::PtraceEvent(_, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                if inside.is_some() {
                    seen.executed = true;
                    ptrace::detach(pid, None).unwrap();
                    return None;
                }
                // The next stop is the end of this execve.
                inside = Some(true);
                expected = None;
                onward(pid, true, None)
            }
            WaitStatus::PtraceEvent(..) => {
                seen.children += 1;
                onward(pid, counting, None)
            }
            // The caller's signals are its own.
            WaitStatus::Stopped(_, signal) if inside.is_none() => onward(pid, false, Some(signal)),
            WaitStatus::PtraceSyscall(_) => {
                match inside {
                    None => {}
                    Some(false) => {
                        inside = Some(true);
                        expected = enter(pid, fault, seen);
                    }
                    Some(true) => {
                        inside = Some(false);
                        leave(pid, expected, seen);
                        // Nothing is counted after the fault.
                        counting = !seen.hit || fault.is_some_and(|fault| fault.change == Change::Starves);
                    }
                }
                onward(pid, counting, None)
            }
            WaitStatus::Stopped(_, signal) => onward(pid, counting, Some(signal)),
            other => panic!("the tracer does not know {other:?}"),
        };
    }
}

/// To the next stop. The process may be gone already.
fn onward(pid: Pid, counting: bool, signal: Option<Signal>) -> WaitStatus {
    let went = if counting { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
    assert!(matches!(went, Ok(()) | Err(Errno::ESRCH)), "{went:?}");
    waitpid(pid, None).unwrap()
}

/// At the beginning of a call. What it is to return, where that is ours to say.
fn enter(pid: Pid, fault: Option<Fault<'_>>, seen: &mut Seen) -> Option<i64> {
    let Ok(mut registers) = ptrace::getregs(pid) else { return None };
    let arguments = [registers.rdi, registers.rsi, registers.rdx];
    let name = name_of(registers.orig_rax);
    let nth = seen.calls.iter().filter(|made| made.name == name).count();
    let here = fault.filter(|fault| fault.name == name && fault.nth == nth);
    seen.hit |= here.is_some();
    let change = match fault {
        Some(Fault { change: Change::Starves, .. }) => {
            let starves = seen.hit && MEMORY.contains(&name.as_str());
            seen.starved += usize::from(starves);
            starves.then_some(Change::Fails(Errno::ENOMEM))
        }
        _ => here.map(|fault| fault.change),
    };
    let at_length = if name == "getrandom" { &mut registers.rsi } else { &mut registers.rdx };
    let expected = match change {
        None => None,
        Some(Change::Says(result)) => Some(result),
        Some(Change::Starves) => None,
        Some(Change::Dies) => {
            let _ = kill(pid, Signal::SIGKILL);
            None
        }
        Some(Change::Shortened(length)) => {
            *at_length = length;
            None
        }
        Some(Change::Fails(errno)) => Some(-i64::from(errno as i32)),
        Some(Change::Lies) => Some(0),
    };
    if matches!(change, Some(Change::Fails(_) | Change::Lies)) {
        // No call has this number: the kernel makes none.
        registers.orig_rax = u64::MAX;
    }
    if change.is_some_and(|change| change != Change::Dies) {
        ptrace::setregs(pid, registers).unwrap();
    }
    seen.calls.push(Made { name, nth, arguments, result: None });
    expected
}

/// At the end of a call.
fn leave(pid: Pid, expected: Option<i64>, seen: &mut Seen) {
    let Ok(mut registers) = ptrace::getregs(pid) else { return };
    if let Some(result) = expected {
        registers.rax = result.cast_unsigned();
        ptrace::setregs(pid, registers).unwrap();
    }
    if let Some(made) = seen.calls.last_mut() {
        made.result = Some(registers.rax.cast_signed());
    }
}

/// From the kernel's own header, so that no table of ours grows old.
fn name_of(number: u64) -> String {
    static NAMES: OnceLock<HashMap<u64, String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let text = fs::read_to_string(HEADER)
            .unwrap_or_else(|why| panic!("{HEADER}: {why}; install it with: sudo apt-get install libc6-dev"));
        let pairs = text.lines().filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '));
        pairs.filter_map(|(name, number)| Some((number.trim().parse().ok()?, name.to_owned()))).collect()
    });
    names.get(&number).cloned().unwrap_or_else(|| format!("call-{number}"))
}

/// The calls by which a program gets memory.
pub(crate) const MEMORY: [&str; 3] = ["mmap", "brk", "mremap"];

const HEADER: &str = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

/// The launcher's own deadline is 5 seconds, and one fault may take that away.
const PATIENCE: Duration = Duration::from_secs(20);
