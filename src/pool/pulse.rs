//! A look at who is to run, more often than the kernel has it: one thread on each processor that wakes up, does nothing, and
//! sleeps again, as long as a site computes that others have to get past.
//!
//! A process that has just used a processor and is woken again a moment later may have had a little more than its share. Then the
//! kernel lets whoever computes there go on, and looks again at its next tick: 4 ms later where there are 250 a second (Debian),
//! though the debt is paid after a few microseconds. A request makes seven such steps. A thread of a better class that wakes up in
//! between makes the kernel look then. See docs/decisions/0026.
//!
//! Nobody: as sealed as the broker, and with less to do. It reads one pipe, whose bytes mean nothing but "now"; it ends with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::sys::filter::{self as step, bytes};
use crate::sys::schedule::run_at_once;
use crate::sys::seal::load_seccomp_everywhere;

use super::descent::descend;
use super::seal::{allow_only, give_up};
use super::supervisor::Account;

/// Serves until the pipe at descriptor 0 is closed.
///
/// # Errors
/// When the kernel gives it no class of its own, or it cannot become nobody.
pub fn serve(account: Account) -> io::Result<()> {
    run_at_once()?;
    let mut orders = File::from(descend(account)?);
    give_up()?;
    let beats = Arc::new(Beats::default());
    start(&beats)?;
    load_seccomp_everywhere(&bytes(&allow_only(CALLS, &[step::end(step::KILL)])))?;
    let mut order = [0; 64];
    while orders.read(&mut order)? > 0 {
        beats.go_on();
    }
    Ok(())
}

/// A thread on each processor that this process may use; all of them are there when it returns.
fn start(beats: &Arc<Beats>) -> io::Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let processors: Vec<usize> =
        (0..CpuSet::count()).filter(|one| allowed.is_set(*one).unwrap_or(false)).collect();
    let ready = Arc::new(Barrier::new(processors.len().saturating_add(1)));
    for processor in processors {
        let (beats, ready) = (Arc::clone(beats), Arc::clone(&ready));
        thread::Builder::new().stack_size(STACK).spawn(move || {
            let mut alone = CpuSet::new();
            let there = alone.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &alone));
            ready.wait();
            // Without its processor, which may have been taken out, it is of no use.
            if there.is_ok() {
                beats.beat()
            }
        })?;
    }
    ready.wait();
    Ok(())
}

/// Until when there are beats.
struct Beats {
    until: Mutex<Instant>,
    begun: Condvar,
}

impl Default for Beats {
    fn default() -> Self {
        Self { until: Mutex::new(Instant::now()), begun: Condvar::new() }
    }
}

impl Beats {
    fn until(&self) -> MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_on(&self) {
        *self.until() = Instant::now() + LASTS;
        self.begun.notify_all();
    }

    fn beat(&self) -> ! {
        loop {
            let resting = |until: &mut Instant| *until <= Instant::now();
            let until = *self.begun.wait_while(self.until(), resting).unwrap_or_else(PoisonError::into_inner);
            while Instant::now() < until {
                thread::sleep(EVERY);
            }
        }
    }
}

/// Between two looks: a request makes seven steps within a millisecond.
const EVERY: Duration = Duration::from_micros(250);
/// After an order. The next one comes a second later, as long as there is a reason.
const LASTS: Duration = Duration::from_secs(2);
/// Bytes: a thread calls two functions.
const STACK: usize = 64 * 1024;

/// What a wait for a pipe and for the clock needs, and a clean end.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_madvise,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
