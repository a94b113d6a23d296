//! Where processes are at this moment: what the kernel says of them in /proc.
//!
//! Root. Read once, and perhaps of the moment after. What a process writes itself, as its name, is not looked at.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;

/// One line for each thread of these processes, as far as there is room for them: `pid=… state=… syscall=… wchan=… stack="…"`.
#[must_use]
pub fn of(processes: &[Pid]) -> Vec<String> {
    let mut all = Vec::new();
    for pid in processes {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            if all.len() == MOST {
                return all;
            }
            all.extend(thread_at(&thread.path()));
        }
    }
    all
}

/// None: it has ended meanwhile.
fn thread_at(place: &Path) -> Option<String> {
    let text = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    let number = place.file_name()?.to_str()?;
    // proc_pid_stat(5): the state stands behind the name, which may hold anything.
    let stat = fs::read_to_string(place.join("stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next().filter(char::is_ascii_alphabetic)?;
    let (wchan, stack) = (symbol(&text("wchan")), stack(&text("stack")));
    Some(format!(
        "pid={number} state={state} syscall={} wchan={wchan} stack=\"{stack}\"",
        call(&text("syscall"))
    ))
}

/// `7(poll)` of proc_pid_syscall(5)'s line, `running` where it is in no call, `-` where the kernel does not tell.
fn call(text: &str) -> String {
    match text.split_whitespace().next() {
        Some("running" | "-1") => "running".to_owned(),
        Some(number) => match number.parse::<libc::c_long>() {
            Ok(number) => {
                let name = CALLS.iter().find(|(known, _)| *known == number);
                name.map_or_else(|| number.to_string(), |(_, name)| format!("{number}({name})"))
            }
            Err(_) => "-".to_owned(),
        },
        None => "-".to_owned(),
    }
}

/// The functions of proc_pid_stack(5), innermost first.
fn stack(text: &str) -> String {
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    let names = names.map(|name| symbol(name.split('+').next().unwrap_or_default()));
    names.take(DEPTH).collect::<Vec<String>>().join(" < ")
}

/// A function of the kernel's; `-`: none.
fn symbol(text: &str) -> String {
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.');
    let name: String = text.chars().take_while(plain).take(100).collect();
    if matches!(name.as_str(), "" | "0") { "-".to_owned() } else { name }
}

/// Lines for one request.
const MOST: usize = 8;
/// Functions of a stack.
const DEPTH: usize = 12;

/// What programs wait in; of others the number is told.
const CALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_read, "read"),
    (libc::SYS_write, "write"),
    (libc::SYS_readv, "readv"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_close, "close"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_sendfile, "sendfile"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_pselect6, "pselect6"),
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_accept, "accept"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_semtimedop, "semtimedop"),
    (libc::SYS_semop, "semop"),
    (libc::SYS_msgrcv, "msgrcv"),
    (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_rt_sigsuspend, "rt_sigsuspend"),
    (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
    (libc::SYS_restart_syscall, "restart_syscall"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "pause"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_put_in_a_line() {
        let number = libc::SYS_flock;
        assert_eq!(
            call(&format!("{number} 0x4 0x2 0x0 0x0 0x0 0x0 0x7ffe 0x7f1c\n")),
            format!("{number}(flock)")
        );
        assert_eq!(
            [call("running\n"), call("-1 0x7ffe 0x7f1c\n"), call(""), call("99999 0x1\n")],
            ["running", "running", "-", "99999"]
        );
        let text = "[<0>] flock_lock_inode_wait+0x1a/0x2c0\n[<0>] do_syscall_64+0x55/0x80\n";
        assert_eq!(stack(text), "flock_lock_inode_wait < do_syscall_64");
        assert_eq!(
            [symbol("0"), symbol(""), symbol("do_poll.constprop.0"), symbol("a\" b")],
            ["-", "-", "do_poll.constprop.0", "a"]
        );
    }

    #[test]
    fn this_process_is_somewhere() {
        let all = of(&[Pid::this()]);
        assert!(!all.is_empty() && all.iter().all(|line| line.contains(" state=")), "{all:?}");
        assert_eq!(of(&[Pid::from_raw(i32::MAX)]), Vec::<String>::new());
    }
}
