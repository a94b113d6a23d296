//! What can go wrong with a call: the errors that its manual page has, and then some.

use nix::errno::Errno;

use crate::tracer::{Change, Made};

/// Every change that one call is put through. `datagrams`: the launcher's sockets.
pub(crate) fn changes(made: &Made, datagrams: &[u64]) -> Vec<Change> {
    let name = made.name.as_str();
    // No kernel fails these.
    if matches!(name, "exit_group" | "exit" | "umask") {
        return Vec::new();
    }
    let more: [(&[Errno], &[&str]); 6] = [
        (&DESCRIPTORS, &["open", "socket", "dup", "fcntl", "landlock_create", "epoll", "memfd", "fsopen"]),
        (
            &PATHS,
            &["open", "stat", "access", "readlink", "mkdir", "symlink", "mount", "chdir", "chroot", "exec"],
        ),
        (&SPACE, &["open", "write", "mkdir", "symlink", "mount"]),
        (&WRITING, &["write", "send", "connect"]),
        (&STARTING, &["exec"]),
        (&LOOKING, &["openat2", "getcwd", "setns", "keyctl", "pivot_root", "umount"]),
    ];
    // It has no others (getrandom(2)); the last one only where it is asked not to wait.
    let waits = made.arguments[2] & 1 == 0;
    let mut errors = match name {
        "getrandom" if waits => RANDOM[..4].to_vec(),
        "getrandom" => RANDOM.to_vec(),
        _ => EVERYWHERE.to_vec(),
    };
    for (group, names) in more {
        if names.iter().any(|part| name.contains(part)) {
            errors.extend(group.iter().filter(|errno| !EVERYWHERE.contains(errno)));
        }
    }
    errors.sort_unstable_by_key(|errno| *errno as i32);
    errors.dedup();
    errors.into_iter().map(Change::Fails).chain(short(made, datagrams)).chain(lies(name)).collect()
}

/// Half, one byte, nothing; where the kernel may do that.
fn short(made: &Made, datagrams: &[u64]) -> Vec<Change> {
    let Some(count) = made.result.and_then(|result| u64::try_from(result).ok()) else { return Vec::new() };
    match made.name.as_str() {
        // The kernel takes a datagram whole or not at all (unix(7)).
        "write" if datagrams.contains(&made.arguments[0]) => Vec::new(),
        "read" | "pread64" | "write" | "getrandom" | "getdents64" => {
            let lengths = [count / 2, 1, 0].into_iter().filter(|length| *length < count);
            lengths.map(Change::Shortened).collect()
        }
        // Another process's clone cannot change ours; the list may still be read wrong.
        "getgroups" if count > 0 => vec![Change::Says(made.result.unwrap_or(0) - 1), Change::Says(0)],
        _ => Vec::new(),
    }
}

/// The change of identity is proven, so it may even be made a fool of.
fn lies(name: &str) -> Option<Change> {
    matches!(name, "setgroups" | "setresgid" | "setresuid" | "setgid" | "setuid" | "setreuid" | "setregid")
        .then_some(Change::Lies)
}

const EVERYWHERE: [Errno; 8] = [
    Errno::EPERM,
    Errno::EACCES,
    Errno::ENOMEM,
    Errno::EINVAL,
    Errno::ENOSYS,
    Errno::EINTR,
    Errno::EAGAIN,
    Errno::EIO,
];
const RANDOM: [Errno; 5] = [Errno::EPERM, Errno::EINVAL, Errno::ENOSYS, Errno::EINTR, Errno::EAGAIN];
const DESCRIPTORS: [Errno; 2] = [Errno::EMFILE, Errno::ENFILE];
const PATHS: [Errno; 4] = [Errno::ENOENT, Errno::ELOOP, Errno::ENOTDIR, Errno::ESTALE];
const SPACE: [Errno; 3] = [Errno::ENOSPC, Errno::EROFS, Errno::EDQUOT];
const WRITING: [Errno; 4] = [Errno::EFBIG, Errno::EPIPE, Errno::ENOBUFS, Errno::ECONNREFUSED];
const STARTING: [Errno; 3] = [Errno::E2BIG, Errno::ENOEXEC, Errno::ETXTBSY];
const LOOKING: [Errno; 4] = [Errno::EXDEV, Errno::ERANGE, Errno::EBUSY, Errno::EDQUOT];
