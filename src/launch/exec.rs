//! Seal, become the program. Runs as the site's own uid.
//!
//! Refuses with X01 and X255. Order: no_new_privs, Landlock, descriptors, seccomp last.

use std::convert::Infallible;
use std::ffi::CString;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::prctl;
use nix::unistd::{execveat, fchdir};

use crate::policy::{Enforcement, Landlock, PathRule};
use crate::refusal::{Card, Refusal, Untrusted};
use crate::sys;

use super::verify::Verified;

/// All that is needed to become the program.
#[must_use]
#[derive(Debug)]
pub struct Prepared<'a> {
    verified: Verified<'a>,
    environment: Vec<CString>,
    ruleset: Option<RulesetCreated>,
}

impl Prepared<'_> {
    /// The record's fields after the site.
    #[must_use]
    pub fn describe(&self) -> String {
        let Verified { site, uid, caller, path, program, .. } = &self.verified;
        let (gid, path, program) = (site.identity.gid, Untrusted(path), Untrusted(program.as_bytes()));
        let landlock = if self.ruleset.is_some() { "on" } else { "off" };
        let seccomp = if site.seccomp.is_empty() { "off" } else { "on" };
        format!(
            "uid={uid} gid={gid} caller={caller} dir=\"{path}\" script=\"{program}\" jail=host landlock={landlock} seccomp={seccomp}"
        )
    }
}

/// Opens the rule set's paths with the site's eyes.
///
/// # Errors
/// X01.
pub fn prepare(verified: Verified<'_>, environment: Vec<CString>) -> Result<Prepared<'_>, Refusal> {
    let ruleset = match verified.site.landlock.mode {
        Enforcement::Off => None,
        Enforcement::BestEffort | Enforcement::Required => Some(ruleset(&verified.site.landlock)?),
    };
    Ok(Prepared { verified, environment, ruleset })
}

/// Returns only to refuse.
///
/// # Errors
/// X01 when a seal fails, X255 when the kernel will not start the program.
pub fn exec(prepared: Prepared<'_>) -> Result<Infallible, Refusal> {
    let Prepared { verified, environment, ruleset } = prepared;
    let failed = |call: &'static str| move |errno: Errno| Refusal::call(&SEAL, call, errno);
    fchdir(&verified.directory).map_err(failed("fchdir"))?;
    prctl::set_no_new_privs().map_err(failed("prctl"))?;
    if let Some(ruleset) = ruleset {
        let status = ruleset.restrict_self().map_err(|why| Refusal::new(&SEAL, why.to_string()))?;
        let nothing = status.ruleset == RulesetStatus::NotEnforced;
        if nothing && verified.site.landlock.mode == Enforcement::Required {
            return Err(Refusal::new(
                &SEAL,
                "the kernel has no Landlock, and the policy requires it".to_owned(),
            ));
        }
    }
    sys::set_alarm(verified.site.limits.wall_seconds);
    sys::close_at_exec().map_err(failed("close_range"))?;
    if !verified.site.seccomp.is_empty() {
        sys::load_seccomp(&instructions(verified.site.seccomp), verified.site.seccomp_log)
            .map_err(failed("seccomp"))?;
    }
    let mut words = vec![verified.program.clone()];
    words.extend(verified.arguments);
    // By one-component name in the held directory: by descriptor, a `#!` script would not start.
    let Err(errno) =
        execveat(AT_FDCWD, &verified.program, &words, &environment, AtFlags::AT_SYMLINK_NOFOLLOW);
    let full = [&verified.path, &b"/"[..], verified.program.as_bytes()].concat();
    Err(Refusal::about(&EXEC, &full, errno.desc()))
}

fn ruleset(rules: &Landlock<'_>) -> Result<RulesetCreated, Refusal> {
    let failed = |why: landlock::RulesetError| Refusal::new(&SEAL, why.to_string());
    let level = match rules.mode {
        Enforcement::Required => CompatLevel::HardRequirement,
        Enforcement::BestEffort | Enforcement::Off => CompatLevel::BestEffort,
    };
    let mut set = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(failed)?;
    set = set
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .map_err(failed)?;
    if rules.connect.is_some() {
        set = set.handle_access(AccessNet::ConnectTcp).map_err(failed)?;
    }
    if rules.bind.is_some() {
        set = set.handle_access(AccessNet::BindTcp).map_err(failed)?;
    }
    if rules.scoped {
        set = set.scope(Scope::from_all(ABI::V6)).map_err(failed)?;
    }
    let mut created = set.create().map_err(failed)?;
    for rule in &rules.rules {
        created = add_path(created, rule)?;
    }
    let ports = |list: &Option<Vec<u16>>| list.clone().unwrap_or_default();
    for (port, access) in ports(&rules.connect)
        .into_iter()
        .map(|port| (port, AccessNet::ConnectTcp))
        .chain(ports(&rules.bind).into_iter().map(|port| (port, AccessNet::BindTcp)))
    {
        created = created.add_rule(NetPort::new(port, access)).map_err(failed)?;
    }
    Ok(created)
}

/// No links: a write path that its owner turned into a link must not widen the cell.
fn add_path(set: RulesetCreated, rule: &PathRule<'_>) -> Result<RulesetCreated, Refusal> {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = match openat2(AT_FDCWD, rule.path, how) {
        Ok(file) => file,
        Err(Errno::ENOENT | Errno::EACCES) if rule.rights & PathRule::OPTIONAL != 0 => return Ok(set),
        Err(errno) => return Err(Refusal::about(&RULE, rule.path, errno.desc())),
    };
    let facts =
        nix::sys::stat::fstat(&file).map_err(|errno| Refusal::about(&RULE, rule.path, errno.desc()))?;
    let mut access = access(rule.rights);
    if facts.st_mode & libc::S_IFMT != libc::S_IFDIR {
        access &= AccessFs::from_file(ABI::V5);
    }
    set.add_rule(PathBeneath::new(file, access))
        .map_err(|why| Refusal::about(&RULE, rule.path, &why.to_string()))
}

fn access(rights: u8) -> BitFlags<AccessFs> {
    let mut access = BitFlags::empty();
    if rights & PathRule::READ != 0 {
        access |= AccessFs::ReadFile | AccessFs::ReadDir;
    }
    if rights & PathRule::EXECUTE != 0 {
        access |= AccessFs::Execute;
    }
    if rights & PathRule::WRITE != 0 {
        access |= AccessFs::from_write(ABI::V3) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    }
    if rights & PathRule::CONTROL != 0 {
        access |= AccessFs::IoctlDev;
    }
    access
}

/// The decoder has seen that the length is a multiple of 8.
fn instructions(program: &[u8]) -> Vec<libc::sock_filter> {
    let instruction = |bytes: &[u8]| match *bytes {
        [a, b, jt, jf, c, d, e, f] => Some(libc::sock_filter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([c, d, e, f]),
        }),
        _ => None,
    };
    program.chunks_exact(8).filter_map(instruction).collect()
}

static SEAL: Card = Card {
    code: "X01",
    status: 87,
    remedy: "see why; or set landlock = \"best-effort\" in the site's [jail] and run: cellwall apply",
};
static RULE: Card = Card {
    code: "X02",
    status: 87,
    remedy: "make {} readable for the site, or take it out of its [files], and run: cellwall apply",
};
static EXEC: Card = Card {
    code: "X255",
    status: 255,
    remedy: "check the first line of {}, and that its interpreter is there",
};
