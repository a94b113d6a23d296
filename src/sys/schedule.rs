//! The scheduling class of a process of the pool's.

use std::ffi::c_int;

use nix::errno::Errno;

/// Whether being woken takes the processor from whoever woke this process: as usual (`SCHED_OTHER`, false), or not
/// (`SCHED_BATCH`, true). sched(7)
///
/// # Errors
/// Of sched_setscheduler(2).
pub fn let_wakers_finish(batch: bool) -> Result<(), Errno> {
    let class = if batch { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
    // The kernel's `struct sched_param` is one number, whatever the C library's is.
    let normal: c_int = 0;
    // SAFETY: pid 0 is this process; `normal` outlives the call.
    let set = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, class, &raw const normal) };
    Errno::result(set).map(drop)
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
