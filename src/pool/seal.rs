//! What the daemon's processes that are nobody give up for good: no new privileges, no path of the file system and no TCP
//! (Landlock), no signal to anybody, and every system call that is not on their list.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope,
};
use nix::errno::Errno;

/// All but the list of system calls.
///
/// # Errors
/// Of prctl(2), landlock_restrict_self(2): the process must not go on then.
pub fn give_up() -> Result<(), Errno> {
    nix::sys::prctl::set_no_new_privs()?;
    nix::sys::prctl::set_dumpable(false)?;
    confine().map_err(|_| Errno::EPERM)
}

/// All rights are handled and none is given, as far as the kernel knows them.
fn confine() -> Result<(), landlock::RulesetError> {
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    ruleset.restrict_self().map(drop)
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The number of a call, as a filter sees it.
#[must_use]
pub fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// A filter: another architecture ends the process; these calls pass; `rest` judges the others, with the call's number loaded.
#[must_use]
pub fn allow_only(calls: &[libc::c_long], rest: &[libc::sock_filter]) -> Vec<libc::sock_filter> {
    let mut program =
        vec![step::load(4), step::equal(1, 0, ARCHITECTURE), step::end(step::KILL), step::load(0)];
    for call in calls {
        program.extend([step::equal(0, 1, number(*call)), step::end(step::ALLOW)]);
    }
    program.extend_from_slice(rest);
    program
}

/// A filter as [`crate::sys::seal`] loads it.
#[must_use]
pub fn bytes(program: &[libc::sock_filter]) -> Vec<u8> {
    let bytes = |step: &libc::sock_filter| {
        let ([a, b], [e, f, g, h]) = (step.code.to_ne_bytes(), step.k.to_ne_bytes());
        [a, b, step.jt, step.jf, e, f, g, h]
    };
    program.iter().flat_map(bytes).collect()
}

/// Instructions of a filter (seccomp(2)).
pub mod step {
    /// The call passes.
    pub const ALLOW: u32 = 0x7fff_0000;
    /// The call fails with EPERM.
    pub const REFUSE: u32 = 0x0005_0000 | 1;
    /// The process ends.
    pub const KILL: u32 = 0x8000_0000;

    /// Loads four bytes of the call's description.
    #[must_use]
    pub const fn load(k: u32) -> libc::sock_filter {
        libc::sock_filter { code: 0x20, jt: 0, jf: 0, k }
    }

    /// Keeps these bits of what is loaded.
    #[must_use]
    pub const fn and(k: u32) -> libc::sock_filter {
        libc::sock_filter { code: 0x54, jt: 0, jf: 0, k }
    }

    /// Goes over so many instructions where what is loaded is this, and over so many where it is not.
    #[must_use]
    pub const fn equal(jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: 0x15, jt, jf, k }
    }

    /// The verdict.
    #[must_use]
    pub const fn end(k: u32) -> libc::sock_filter {
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k }
    }
}
