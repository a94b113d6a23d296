//! System calls that neither the supervisor nor anything that it starts ever needs, given up for good.
//!
//! Root, once, at the start. Everything that it starts inherits the filter, so it denies only what a site's process can never
//! be permitted: what needs a capability of root's that no site has. It is loaded by `CAP_SYS_ADMIN`, without no_new_privs,
//! which would take set-id mail programs from the sites that may have them. See docs/decisions/0022.

use nix::errno::Errno;

use crate::sys::filter::{self as step, Instruction, bytes, number};
use crate::sys::seal::load_seccomp;

/// Seals this process, and all that it starts from now on.
///
/// # Errors
/// Of seccomp(2).
pub(super) fn seal() -> Result<(), Errno> {
    load_seccomp(&bytes(&program()), false)
}

/// Modules, other kernels, programs inside the kernel, swap, clocks, ports, and files by number.
pub const CALLS: &[libc::c_long] = &[
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_open_by_handle_at,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    // kexec_load of the x32 ABI.
    #[cfg(target_arch = "x86_64")]
    528,
];

/// The same calls by the numbers of 32-bit programs, which a site may run (asm/unistd_32.h): the architecture and the numbers.
#[cfg(target_arch = "x86_64")]
pub const COMPAT: (u32, &[libc::c_long]) =
    (0x4000_0003, &[128, 350, 129, 283, 357, 336, 87, 115, 88, 51, 79, 25, 264, 404, 74, 121, 342, 110, 101]);
/// See above.
#[cfg(target_arch = "aarch64")]
pub const COMPAT: (u32, &[libc::c_long]) =
    (0x4000_0028, &[128, 379, 129, 347, 401, 386, 364, 87, 115, 88, 51, 79, 262, 404, 74, 121, 371]);

/// The calls of the two architectures are refused with EPERM; everything else passes.
#[must_use]
pub fn program() -> Vec<Instruction> {
    let part = |calls: &[libc::c_long]| {
        // Without the bit of x32, whose other numbers are the same.
        let mut part = vec![step::load(step::NUMBER_AT), step::and(0xbfff_ffff)];
        for call in calls {
            part.extend([step::equal(0, 1, number(*call)), step::end(step::REFUSE)]);
        }
        part.push(step::end(step::ALLOW));
        part
    };
    let (architecture, compat) = COMPAT;
    let compat = part(compat);
    let over = u8::try_from(compat.len()).unwrap_or(u8::MAX);
    let mut program = vec![step::load(step::ARCHITECTURE_AT), step::equal(0, over, architecture)];
    program.extend(compat);
    program.extend(part(CALLS));
    program
}
