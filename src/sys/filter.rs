//! Instructions of the kernel's filter machine (seccomp(2)), for those who make filters. The launcher only loads them.

pub use libc::sock_filter as Instruction;

// linux/bpf_common.h, as sums of class, size, mode and operation.
/// Loads four bytes of the call's description.
pub const LOAD: u16 = 0x20;
/// Keeps some bits of what is loaded.
pub const AND: u16 = 0x54;
/// Sets some bits of what is loaded.
pub const OR: u16 = 0x44;
/// Goes over so many instructions.
pub const JUMP: u16 = 0x05;
/// Goes over so many where what is loaded is this, and over so many where it is not.
pub const IF_EQUAL: u16 = 0x15;
/// The same, where it is this or more.
pub const IF_AT_LEAST: u16 = 0x35;
/// Ends with a verdict.
pub const RETURN: u16 = 0x06;

// linux/seccomp.h
/// The call passes.
pub const ALLOW: u32 = 0x7fff_0000;
/// The call fails with the error number in the lower bits.
pub const ERRNO: u32 = 0x0005_0000;
/// The call fails with EPERM.
pub const REFUSE: u32 = ERRNO | 1;
/// The process ends.
pub const KILL: u32 = 0x8000_0000;

// Offsets in `struct seccomp_data`.
/// Of the call's number.
pub const NUMBER_AT: u32 = 0;
/// Of the architecture.
pub const ARCHITECTURE_AT: u32 = 4;

/// AUDIT_ARCH_X86_64.
#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: u32 = 0xc000_003e;
/// AUDIT_ARCH_AARCH64.
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: u32 = 0xc000_00b7;

/// The number of a call, as a filter sees it.
#[must_use]
pub fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// An instruction that goes nowhere but on.
#[must_use]
pub const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// [`LOAD`].
#[must_use]
pub const fn load(k: u32) -> Instruction {
    plain(LOAD, k)
}

/// [`AND`].
#[must_use]
pub const fn and(k: u32) -> Instruction {
    plain(AND, k)
}

/// [`IF_EQUAL`].
#[must_use]
pub const fn equal(jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code: IF_EQUAL, jt, jf, k }
}

/// [`RETURN`].
#[must_use]
pub const fn end(verdict: u32) -> Instruction {
    plain(RETURN, verdict)
}

/// A program as [`super::seal::load_seccomp`] takes it: in the machine's byte order.
#[must_use]
pub fn bytes<'a>(program: impl IntoIterator<Item = &'a Instruction>) -> Vec<u8> {
    let bytes = |step: &Instruction| {
        let ([a, b], [e, f, g, h]) = (step.code.to_ne_bytes(), step.k.to_ne_bytes());
        [a, b, step.jt, step.jf, e, f, g, h]
    };
    program.into_iter().flat_map(bytes).collect()
}
