//! Numbers of the system calls that the shipped seccomp list names.
//!
//! Pure. Holds denied calls, those with argument rules, and the younger ones that are allowed; nothing else.

use libc::c_long;

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The machine's architecture has it.
    Number(u32),
    /// Another architecture has it.
    Elsewhere,
}

/// Looks a name up. None: no supported architecture has it.
#[must_use]
pub fn find(name: &str) -> Option<Known> {
    let here = [SHARED, OWN].into_iter().flatten().find(|(known, _)| *known == name);
    match here {
        Some((_, number)) => u32::try_from(*number).ok().map(Known::Number),
        None => ELSEWHERE.contains(&name).then_some(Known::Elsewhere),
    }
}

/// The youngest call that the list has judged, listns of Linux 6.19. The numbers are given in turn.
pub const YOUNGEST: u32 = 470;

/// Calls of every supported architecture. From 424 on the numbers are the same everywhere; those that stand here as
/// plain numbers are younger than the libc crate (include/uapi/asm-generic/unistd.h).
const SHARED: &[(&str, c_long)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("adjtimex", libc::SYS_adjtimex),
    ("bpf", libc::SYS_bpf),
    ("cachestat", 451),
    ("chroot", libc::SYS_chroot),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("clock_settime", libc::SYS_clock_settime),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("close_range", libc::SYS_close_range),
    ("delete_module", libc::SYS_delete_module),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
    ("faccessat2", libc::SYS_faccessat2),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("fchmodat2", 452),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("finit_module", libc::SYS_finit_module),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("futex_requeue", 456),
    ("futex_wait", 455),
    ("futex_waitv", libc::SYS_futex_waitv),
    ("futex_wake", 454),
    ("getxattrat", 464),
    ("init_module", libc::SYS_init_module),
    ("io_setup", libc::SYS_io_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("ioctl", libc::SYS_ioctl),
    ("kcmp", libc::SYS_kcmp),
    ("kexec_file_load", KEXEC_FILE_LOAD),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("landlock_add_rule", libc::SYS_landlock_add_rule),
    ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset),
    ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
    ("listmount", 458),
    ("listns", 470),
    ("listxattrat", 465),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    ("lsm_get_self_attr", 459),
    ("lsm_list_modules", 461),
    ("lsm_set_self_attr", 460),
    ("map_shadow_stack", 453),
    ("mbind", libc::SYS_mbind),
    ("memfd_secret", 447),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("mknodat", libc::SYS_mknodat),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("move_pages", libc::SYS_move_pages),
    ("mq_open", libc::SYS_mq_open),
    ("mq_unlink", libc::SYS_mq_unlink),
    ("mseal", 462),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("nfsservctl", libc::SYS_nfsservctl),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("open_tree_attr", 467),
    ("openat2", libc::SYS_openat2),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("personality", libc::SYS_personality),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("pivot_root", libc::SYS_pivot_root),
    ("process_madvise", libc::SYS_process_madvise),
    ("process_mrelease", libc::SYS_process_mrelease),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd),
    ("reboot", libc::SYS_reboot),
    ("remap_file_pages", libc::SYS_remap_file_pages),
    ("removexattrat", 466),
    ("request_key", libc::SYS_request_key),
    ("sendmmsg", libc::SYS_sendmmsg),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendto", libc::SYS_sendto),
    ("set_mempolicy", libc::SYS_set_mempolicy),
    ("set_mempolicy_home_node", libc::SYS_set_mempolicy_home_node),
    ("setdomainname", libc::SYS_setdomainname),
    ("sethostname", libc::SYS_sethostname),
    ("setns", libc::SYS_setns),
    ("settimeofday", libc::SYS_settimeofday),
    ("setxattrat", 463),
    ("socket", libc::SYS_socket),
    ("socketpair", libc::SYS_socketpair),
    ("statmount", 457),
    ("swapoff", libc::SYS_swapoff),
    ("swapon", libc::SYS_swapon),
    ("syslog", libc::SYS_syslog),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("vhangup", libc::SYS_vhangup),
    ("vmsplice", libc::SYS_vmsplice),
];

/// arch/x86/entry/syscalls/syscall_64.tbl; the crate has no name for the removed ones and the probes.
#[cfg(target_arch = "x86_64")]
const OWN: &[(&str, c_long)] = &[
    ("_sysctl", libc::SYS__sysctl),
    ("afs_syscall", libc::SYS_afs_syscall),
    ("create_module", 174),
    ("epoll_ctl_old", libc::SYS_epoll_ctl_old),
    ("epoll_wait_old", libc::SYS_epoll_wait_old),
    ("get_kernel_syms", 177),
    ("getpmsg", libc::SYS_getpmsg),
    ("ioperm", libc::SYS_ioperm),
    ("iopl", libc::SYS_iopl),
    ("mknod", libc::SYS_mknod),
    ("modify_ldt", libc::SYS_modify_ldt),
    ("putpmsg", libc::SYS_putpmsg),
    ("query_module", 178),
    ("security", libc::SYS_security),
    ("sysfs", libc::SYS_sysfs),
    ("tuxcall", libc::SYS_tuxcall),
    ("uprobe", 336),
    ("uretprobe", 335),
    ("uselib", libc::SYS_uselib),
    ("ustat", libc::SYS_ustat),
    ("vserver", libc::SYS_vserver),
];
#[cfg(target_arch = "x86_64")]
const ELSEWHERE: &[&str] = &[];
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: c_long = 320;

#[cfg(target_arch = "aarch64")]
const OWN: &[(&str, c_long)] = &[];
#[cfg(target_arch = "aarch64")]
const ELSEWHERE: &[&str] = &[
    "_sysctl",
    "afs_syscall",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "getpmsg",
    "ioperm",
    "iopl",
    "mknod",
    "modify_ldt",
    "putpmsg",
    "query_module",
    "security",
    "sysfs",
    "tuxcall",
    "uprobe",
    "uretprobe",
    "uselib",
    "ustat",
    "vserver",
];
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: c_long = 294;
