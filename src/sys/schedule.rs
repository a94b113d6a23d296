//! How the kernel schedules the pool's processes.

use std::ffi::c_int;

use nix::errno::Errno;

/// Whether being woken takes the processor from whoever woke this process: as usual (`SCHED_OTHER`, false), or not
/// (`SCHED_BATCH`, true). sched(7)
///
/// # Errors
/// Of sched_setscheduler(2).
pub fn let_wakers_finish(batch: bool) -> Result<(), Errno> {
    choose(if batch { libc::SCHED_BATCH } else { libc::SCHED_OTHER }, 0)
}

/// This thread, and those that it starts, run at once when they wake up, before every process of the usual classes
/// (`SCHED_FIFO`, the lowest priority of it). sched(7)
///
/// # Errors
/// EPERM: without `CAP_SYS_NICE`, or in a control group that has no time for this class.
pub fn run_at_once() -> Result<(), Errno> {
    choose(libc::SCHED_FIFO, 1)
}

fn choose(class: c_int, priority: c_int) -> Result<(), Errno> {
    // The kernel's `struct sched_param` is one number, whatever the C library's is.
    // SAFETY: pid 0 is this thread; `priority` outlives the call.
    let set = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, class, &raw const priority) };
    Errno::result(set).map(drop)
}

/// How often the kernel looks at who is to run: the time between two of its ticks, in microseconds (`CLOCK_MONOTONIC_COARSE`,
/// clock_getres(2)). 0: not known.
#[must_use]
pub fn tick_us() -> u64 {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `tick` outlives the call.
    let told = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut tick) };
    let part = |seconds: i64, times: u64| u64::try_from(seconds).unwrap_or(0).saturating_mul(times);
    if told == 0 { part(tick.tv_sec, 1_000_000).saturating_add(part(tick.tv_nsec, 1) / 1000) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// proc_pid_stat(5): the policy is word 41, the 39th behind the name.
    fn class() -> String {
        let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let words = text.rsplit_once(") ").unwrap().1;
        words.split(' ').nth(38).unwrap().to_owned()
    }

    #[test]
    fn the_class_is_changed_and_changed_back() {
        let_wakers_finish(true).unwrap();
        assert_eq!(class(), libc::SCHED_BATCH.to_string());
        let_wakers_finish(false).unwrap();
        assert_eq!(class(), libc::SCHED_OTHER.to_string());
    }
}
