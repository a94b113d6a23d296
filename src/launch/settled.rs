//! A cell that was entered and sealed before its programs are known: many launches, one after another, by one process.
//!
//! ```text
//!           root             │          the site's own uid, sealed
//!  Authorized ▶ Confined ───▶│ Dropped ▶ Settled ──▶ Verified ▶ Equipped ▶ Sealed ▶ (recorded) ▶ exec
//!                            │              ◀── the next one
//! ```
//! What is looked at for each program is the same as in [`super::launch`], by the same code. What was looked at before it is
//! the starter's to watch: that account, policy and view are still those of the host; and its own: [`Settled::is_fresh`].
//!
//! Refuses with X01 to X03 and those of the stages. May not: run on where something has changed.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::prctl;
use nix::sys::stat::fstatat;
use nix::unistd::{Pid, chdir, setsid};

use crate::policy::{Record, Resource, Site};
use crate::record::Log;
use crate::refusal::Refusal;
use crate::sys::clock::Moment;
use crate::sys::{self, Root};

use super::arrival::Arrival;
use super::authorize::{Authorized, Target};
use super::confine::{Dropped, Facts};
use super::equip::follow;
use super::exec::{SEAL, Sealed, filter_calls};
use super::jail::Inside;
use super::landlock;
use super::request::Request;
use super::verify::named;
use super::walk::{MISSING, climb};

/// A process in its cell that can do nothing any more that the site's programs may not.
#[must_use]
#[derive(Debug)]
pub struct Settled<'a> {
    policy: &'a Record<'a>,
    site: &'a Site<'a>,
    inside: Inside<'a>,
    facts: Facts,
    ways: Ways<'a>,
    /// What stood at the paths of the rule set when they were opened.
    seen: Vec<Seen>,
}

/// For each docroot: are the directories above it, outside of the cell, as they should be?
pub type Ways<'a> = Vec<(&'a [u8], Result<(), Refusal>)>;

/// Device and inode; none: nothing is there.
type Seen = Option<(libc::dev_t, libc::ino_t)>;

/// Looks at the ways to a site's docroots. To be called outside of the cell, with the site's eyes; changes the working directory.
#[must_use]
pub fn ways<'a>(uid: u32, site: &Site<'a>) -> Ways<'a> {
    let looked = |docroot| way(site.owner(uid), docroot).map_err(|refusal| named(refusal, uid, site));
    site.docroots.iter().map(|docroot| (*docroot, looked(docroot))).collect()
}

fn way(owner: u32, docroot: &[u8]) -> Result<(), Refusal> {
    chdir(docroot).map_err(|errno| Refusal::about(&MISSING, docroot, errno.desc()))?;
    match Arrival::new(Moment::now(), (0, 0), Vec::new()).directory {
        Ok((held, path)) => climb(&held, &path, owner),
        Err(errno) => Err(Refusal::call(&SEAL, "getcwd", errno)),
    }
}

/// Enters the cell of the policy's one site and seals it. `daemon`: with whom the process ends.
///
/// # Errors
/// As the module says.
pub fn settle<'a>(
    policy: &'a Record<'a>,
    site: &'a Site<'a>,
    ways: Ways<'a>,
    daemon: Pid,
    root: Root,
) -> Result<Settled<'a>, Refusal> {
    let authorized = Authorized::by_administrator(policy, site, Vec::new())?;
    let Dropped { inside, mut facts, .. } = authorized.confine(root)?.drop_root()?;
    let failed = |call: &'static str| move |errno: Errno| Refusal::call(&SEAL, call, errno);
    follow(daemon)?;
    prctl::set_child_subreaper(true).map_err(failed("PR_SET_CHILD_SUBREAPER"))?;
    let seen = look(site);
    if !site.set_id_mail {
        let ruleset = landlock::open(policy.uid, site)?;
        prctl::set_no_new_privs().map_err(failed("no_new_privs"))?;
        if let Some(ruleset) = ruleset {
            facts.landlock = ruleset.enforce()?;
        }
        filter_calls(site)?;
    }
    facts.settled = true;
    Ok(Settled { policy, site, inside: inside.settle(), facts, ways, seen })
}

impl<'a> Settled<'a> {
    /// The rule set is about what stands at its paths today. Where a site has put something else there, a new process is needed.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        look(self.site) == self.seen
    }

    /// A path of the host's, as it is called in here.
    #[must_use]
    pub fn path<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        self.inside.path(path)
    }

    /// A request with this environment from the working directory, by this caller (uid and gid).
    #[must_use]
    pub fn arrival<'r>(&self, caller: u32, environment: Vec<&'r CStr>) -> Arrival<'r> {
        let mut arrival = Arrival::new(Moment::now(), (caller, caller), environment);
        if let Ok((_, path)) = &mut arrival.directory {
            *path = self.inside.outside(path);
        }
        arrival
    }

    /// All stages from the request to the seal, which is on already.
    ///
    /// # Errors
    /// As [`super::launch`].
    pub fn prepare<'r>(
        &'r self,
        arrival: &Arrival<'r>,
        request: &'r Request<'r>,
    ) -> Result<Sealed<'r>, Refusal> {
        let (site, target) = request.target(arrival, self.policy)?;
        if let Target::Script { docroot, .. } = &target {
            self.is_open(docroot)?;
        }
        let dropped = Dropped { uid: self.policy.uid, site, target, inside: self.inside, facts: self.facts };
        dropped.verify(arrival)?.equip(arrival)?.seal()
    }

    fn is_open(&self, docroot: &[u8]) -> Result<(), Refusal> {
        let way = self.ways.iter().find(|(known, _)| *known == docroot);
        way.map_or(Ok(()), |(_, outcome)| outcome.clone())
    }
}

/// The child's part, in a child of `parent`, which shares its memory: nothing is owned here when the program begins. `own`:
/// limits that would have held for `parent` as well.
///
/// # Errors
/// E04, L01, C02 and those of [`Sealed::exec`].
pub fn begin(
    sealed: &Sealed<'_>,
    own: &[Resource],
    parent: Pid,
    log: &mut Log<'_>,
) -> Result<Infallible, Refusal> {
    setsid().map_err(|errno| Refusal::call(&SEAL, "setsid", errno))?;
    follow(parent)?;
    log.launching(sealed)?; // no record, no run
    for limit in own {
        sys::process::limit(limit.number, limit.value)
            .map_err(|errno| Refusal::call(&SEAL, "prlimit", errno))?;
    }
    sealed.exec()
}

fn look(site: &Site<'_>) -> Vec<Seen> {
    let facts = |path: &[u8]| fstatat(AT_FDCWD.as_fd(), path, AtFlags::AT_NO_AUTOMOUNT).ok();
    let rules = site.landlock.rules.iter();
    rules.map(|rule| facts(rule.path).map(|facts| (facts.st_dev, facts.st_ino))).collect()
}
