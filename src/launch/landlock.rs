//! The rule set of the kernel's Landlock (Documentation/userspace-api/landlock.rst).
//!
//! Paths are opened without following links: a write path that its owner turned into a link must not widen the cell.
//! Refuses with X01 to X03.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, ResolveFlag};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::policy::{Enforcement, Landlock, Links, PathRule, Site};
use crate::refusal::{Card, Refusal};
use crate::sys::{self, Root, files};

use super::exec::SEAL;
use super::verify::named;
use super::walk::{Follow, Rules, walk};

/// An opened rule set that is not in force yet.
#[derive(Debug)]
pub struct Ruleset {
    created: RulesetCreated,
    version: u8,
    log: bool,
}

/// Opens every path of the rules. None: there is nothing to enforce, by the policy's own word.
///
/// # Errors
/// X02: a path cannot be opened. X03: the kernel has less than the policy requires.
pub(super) fn open(uid: u32, site: &Site<'_>) -> Result<Option<Ruleset>, Refusal> {
    let rules = &site.landlock;
    let version = match rules.mode {
        Enforcement::Off => return Ok(None),
        Enforcement::BestEffort | Enforcement::Required => sys::seal::landlock_version(),
    };
    if rules.mode == Enforcement::Required && version < rules.abi_min.max(1) {
        let why = format!(
            "the kernel has Landlock version {version}, the policy requires {}",
            rules.abi_min.max(1)
        );
        return Err(Refusal::new(&TOO_OLD, why));
    }
    if version == 0 {
        return Ok(None);
    }
    let mut created = empty(rules).map_err(|why| failed(&why))?;
    for rule in &rules.rules {
        if let Some(path) = hold(uid, site, rule)? {
            created = created
                .add_rule(PathBeneath::new(path, access(rule.rights)))
                .map_err(|why| Refusal::about(&PATH, rule.path, &why.to_string()))?;
        }
    }
    let connect = rules.connect.iter().flatten().map(|port| (*port, AccessNet::ConnectTcp));
    let bind = rules.bind.iter().flatten().map(|port| (*port, AccessNet::BindTcp));
    for (port, access) in connect.chain(bind) {
        created = created.add_rule(NetPort::new(port, access)).map_err(|why| failed(&why))?;
    }
    Ok(Some(Ruleset { created, version: version.min(NEWEST), log: site.log_denials }))
}

impl Ruleset {
    /// From here on. The version that is in force.
    ///
    /// # Errors
    /// X03.
    pub(super) fn enforce(self) -> Result<u8, Refusal> {
        // no_new_privs is the seal's business, or, for set-id mail, knowingly absent.
        let created = self.created.no_new_privs(false).log_new_exec(self.log).map_err(|why| failed(&why))?;
        let status = created.restrict_self().map_err(|why| failed(&why))?;
        match status.ruleset {
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(self.version),
            _ => Err(Refusal::new(&TOO_OLD, "the kernel did not enforce the rule set".to_owned())),
        }
    }
}

/// Root. For the set-id mail exception: Landlock and the system call filter without `no_new_privs`, which only root may.
/// Paths are opened with the file system identity of the site, so that nothing is opened that the site could not open.
pub(super) fn seal_as_root(root: &Root, uid: u32, site: &Site<'_>) -> Result<u8, Refusal> {
    let groups = root.with_groups(&site.identity.groups);
    groups.map_err(|errno| Refusal::call(&SEAL, "setgroups", errno))?;
    look_as(uid, site.identity.gid)?;
    let opened = open(uid, site);
    look_as(0, 0)?;
    let version = opened?.map_or(Ok(0), Ruleset::enforce)?;
    if !site.seccomp.is_empty() {
        sys::seal::load_seccomp(site.seccomp, site.log_denials)
            .map_err(|errno| Refusal::call(&TOO_OLD, "seccomp", errno))?;
    }
    Ok(version)
}

/// With whose eyes files are opened. The calls say what was before and never that they failed (setfsuid(2)): a second one
/// tells what is.
fn look_as(uid: u32, gid: u32) -> Result<(), Refusal> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(gid);
    setfsuid(uid);
    if setfsgid(gid) == gid && setfsuid(uid) == uid {
        return Ok(());
    }
    Err(Refusal::new(&SEAL, format!("files cannot be opened as uid {uid}")))
}

/// Every right that this program knows is handled, as far as the kernel has it: the version was compared before.
fn empty(rules: &Landlock<'_>) -> Result<RulesetCreated, RulesetError> {
    let mut set = landlock::Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?;
    if rules.connect.is_some() {
        set = set.handle_access(AccessNet::ConnectTcp)?;
    }
    if rules.bind.is_some() {
        set = set.handle_access(AccessNet::BindTcp)?;
    }
    if rules.scoped {
        set = set.scope(Scope::from_all(ABI::V6))?;
    }
    set.create()
}

/// None: nothing to rule about. Where the site may link, its links are followed as on the way to its programs.
fn hold(uid: u32, site: &Site<'_>, rule: &PathRule<'_>) -> Result<Option<OwnedFd>, Refusal> {
    match files::hold(AT_FDCWD, rule.path, ResolveFlag::empty()) {
        Ok(path) => Ok(Some(path)),
        Err(Errno::ENOENT | Errno::ENOTDIR) if rule.rights & PathRule::OPTIONAL != 0 => Ok(None),
        // What the site may not reach needs no rule: it stays denied.
        Err(Errno::EACCES) => Ok(None),
        Err(Errno::ELOOP) if site.links == Links::OwnerMatch => {
            // The code owner's links lead to code; what the site writes to is its own.
            let owner = if rule.rights & PathRule::WRITE != 0 { uid } else { site.owner(uid) };
            let rules = Rules { owner, follow: Follow::Match(owner), fence: b"" };
            walk(rule.path, rules)
                .map(|reached| Some(reached.held))
                .map_err(|refusal| named(refusal, uid, site))
        }
        Err(errno) => Err(Refusal::about(&PATH, rule.path, errno.desc())),
    }
}

fn access(rights: u8) -> BitFlags<AccessFs> {
    let mut access = BitFlags::empty();
    if rights & PathRule::READ != 0 {
        access |= AccessFs::ReadFile | AccessFs::ReadDir;
    }
    if rights & PathRule::EXECUTE != 0 {
        access |= AccessFs::Execute | AccessFs::ReadFile;
    }
    if rights & PathRule::WRITE != 0 {
        access |= AccessFs::from_write(ABI::V3) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    }
    if rights & PathRule::CONTROL != 0 {
        access |= AccessFs::IoctlDev;
    }
    access
}

fn failed(why: &RulesetError) -> Refusal {
    Refusal::new(&TOO_OLD, why.to_string())
}

/// The newest version whose rights are used here.
const NEWEST: u8 = 7;

static PATH: Card = Card {
    code: "X02",
    status: 87,
    remedy: "# make {} again, or take it out of the site's [files], then: cellwall apply",
};
static TOO_OLD: Card = Card {
    code: "X03",
    status: 87,
    remedy: "# set landlock = \"best-effort\" in the site's [jail], or run a kernel that has it, then: cellwall apply",
};
