//! What the daemon's processes that are nobody give up for good: no new privileges, no path of the file system and no TCP
//! (Landlock), no signal to anybody, and every system call that is not on their list.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope,
};
use nix::errno::Errno;

use crate::sys::filter::{self as step, Instruction, number};

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

/// A filter: another architecture ends the process; these calls pass; `rest` judges the others, with the call's number loaded.
#[must_use]
pub fn allow_only(calls: &[libc::c_long], rest: &[Instruction]) -> Vec<Instruction> {
    let mut program = vec![
        step::load(step::ARCHITECTURE_AT),
        step::equal(1, 0, step::ARCHITECTURE),
        step::end(step::KILL),
        step::load(step::NUMBER_AT),
    ];
    for call in calls {
        program.extend([step::equal(0, 1, number(*call)), step::end(step::ALLOW)]);
    }
    program.extend_from_slice(rest);
    program
}
