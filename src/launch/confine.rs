//! Root's last act: control groups, jail, limits, capabilities; then root is gone, and proven gone.
//!
//! Root. Uses only paths that the policy names and that root owns, ancestor by ancestor.
//! Refuses with C02, C03, D109, D110, D01 and those of `groups` and [`super::jail`].

use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};

use crate::policy::{Resource, Site};
use crate::refusal::{Card, Refusal, Untrusted};
use crate::sys::identity::NotDropped;
use crate::sys::{self, Root};

use super::authorize::{Authorized, Target};
use super::groups::{self, Groups};
use super::jail::{self, Inside};
use super::landlock;

/// A process in its cell that is still root.
#[must_use]
#[derive(Debug)]
pub struct Confined<'a> {
    root: Root,
    pub(super) rest: Dropped<'a>,
}

/// The site's own uid, without a way back.
#[must_use]
#[derive(Debug)]
pub struct Dropped<'a> {
    pub(super) uid: u32,
    pub(super) site: &'a Site<'a>,
    pub(super) target: Target<'a>,
    pub(super) inside: Inside<'a>,
    pub(super) facts: Facts,
}

/// What was done, for the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) stale: bool,
    /// The control groups that were entered.
    pub(super) groups: Groups,
    /// The version of Landlock that is in force; 0: none. Set by the seal.
    pub(super) landlock: u8,
    /// The seal is on already, from before the program was known ([`super::settled`]).
    pub(super) settled: bool,
}

impl<'a> Authorized<'a> {
    /// Into the cell, as root.
    ///
    /// # Errors
    /// As the module says.
    pub fn confine(self, root: Root) -> Result<Confined<'a>, Refusal> {
        let Self { uid, site, target, stale, .. } = self;
        let groups = groups::enter(site)?;
        set_oom_score(site.limits.oom_score)?;
        let inside = jail::enter(&root, &site.jail)?;
        umask(Mode::from_bits_truncate(site.limits.umask.into()));
        sys::process::set_nice(&root, site.limits.nice)
            .map_err(|errno| Refusal::call(&LIMIT, "setpriority", errno))?;
        set_limits(site, groups)?;
        root.empty_capabilities().map_err(|errno| Refusal::call(&CAPABILITIES, "prctl", errno))?;
        let mut facts = Facts { stale, groups, landlock: 0, settled: false };
        if site.set_id_mail {
            // Without no_new_privs only root may seal: a set-id mail program keeps its rights, and stays in the cell.
            facts.landlock = landlock::seal_as_root(&root, uid, site)?;
        }
        Ok(Confined { root, rest: Dropped { uid, site, target, inside, facts } })
    }
}

impl<'a> Confined<'a> {
    /// Groups, gid, uid; then proof.
    ///
    /// # Errors
    /// D109, D110, D01.
    pub fn drop_root(self) -> Result<Dropped<'a>, Refusal> {
        let Self { root, rest } = self;
        let identity = &rest.site.identity;
        root.become_user(rest.uid, identity.gid, &identity.groups).map_err(|why| match why {
            NotDropped::Groups(errno) => Refusal::call(&SET_GROUPS, "setgroups, setresgid", errno),
            NotDropped::User(errno) => Refusal::call(&SET_USER, "setresuid", errno),
            NotDropped::Left(what) => Refusal::new(&NOT_GONE, what.to_owned()),
        })?;
        // Whatever fs.suid_dumpable says: this process still holds the log, and its uid is the site's (ptrace(2)). The program
        // has its own again.
        prctl::set_dumpable(false).map_err(|errno| Refusal::call(&NOT_GONE, "prctl", errno))?;
        Ok(rest)
    }
}

/// What this process inherited from the web server is not what a site's program shall have.
fn set_oom_score(score: i16) -> Result<(), Refusal> {
    sys::files::write(b"/proc/self/oom_score_adj", score.to_string().as_bytes())
        .map_err(|errno| Refusal::call(&LIMIT, "/proc/self/oom_score_adj", errno))
}

/// The policy's limits; what it does not name gets this program's own table, as far as the inherited hard limit allows.
/// Limits that would stop the launcher itself (a log larger than `file_size`) are only made possible here:
/// [`limit_self`] sets them, last. The limit of processes is in force when the identity changes: execve(2) fails with EAGAIN
/// then for a user who has more already (setrlimit(2)), and this program makes none.
fn set_limits(site: &Site<'_>, groups: Groups) -> Result<(), Refusal> {
    for limit in named(site, groups) {
        if is_late(limit.number) { make_possible(*limit)? } else { set_limit(*limit)? }
    }
    for (number, value) in
        UNNAMED.iter().filter(|(number, _)| !named(site, groups).any(|limit| limit.number == *number))
    {
        set_as_far_as_allowed(*number, *value)?;
    }
    Ok(())
}

/// The limits that were left for the end. Lowering needs no right.
pub(super) fn limit_self(site: &Site<'_>, groups: Groups) -> Result<(), Refusal> {
    named(site, groups).filter(|limit| is_late(limit.number)).try_for_each(|limit| set_limit(*limit))
}

/// A limit of each process's addresses stands in for one of the memory of all together.
fn named<'s>(site: &'s Site<'_>, groups: Groups) -> impl Iterator<Item = &'s Resource> {
    let stands_in = |limit: &Resource| limit.number == Resource::ADDRESS_SPACE;
    site.limits.resources.iter().filter(move |limit| !(groups.hold_memory() && stands_in(limit)))
}

fn is_late(number: u8) -> bool {
    [Resource::FILE_SIZE, Resource::DATA, Resource::OPEN_FILES, Resource::ADDRESS_SPACE].contains(&number)
}

fn make_possible(limit: Resource) -> Result<(), Refusal> {
    // The kernel allows no unlimited number of open files (fs.nr_open).
    let most = if limit.number == Resource::OPEN_FILES { limit.value.max(64) } else { u64::MAX };
    if set_as_far_as_allowed(limit.number, most)? >= limit.value { Ok(()) } else { set_limit(limit) }
}

/// Returns the limit as it is now.
fn set_as_far_as_allowed(number: u8, value: u64) -> Result<u64, Refusal> {
    sys::process::limit_as_allowed(number, value).map_err(|errno| Refusal::call(&LIMIT, "prlimit", errno))
}

fn set_limit(limit: Resource) -> Result<(), Refusal> {
    sys::process::limit(limit.number, limit.value).map_err(|errno| {
        let name = NAMES.split(',').nth(limit.number.into()).unwrap_or("?");
        Refusal::new(
            &LIMIT,
            format!("the limit of {name} cannot be {}: {}", limit.value, Untrusted(errno.desc().as_bytes())),
        )
    })
}

/// Limits that the caller could have left behind, and their values where the policy says nothing.
const UNNAMED: [(u8, u64); 16] = [
    (0, u64::MAX),
    (1, u64::MAX),
    (2, u64::MAX),
    (3, 8 << 20),
    (4, 0),
    (5, u64::MAX),
    (6, u64::MAX),
    (7, 1024),
    (8, 64 << 10),
    (9, u64::MAX),
    (10, u64::MAX),
    (11, 4096),
    (12, 819_200),
    (13, 0),
    (14, 0),
    (15, u64::MAX),
];

/// Names by number, for people; one text, as a table of texts is a page of addresses that each launch fills in.
const NAMES: &str = "CPU seconds,file size,data,stack,core size,resident memory,processes,open files,locked memory,\
                     address space,locks,pending signals,message queues,nice,real-time priority,real-time CPU";

static LIMIT: Card = Card {
    code: "C02",
    status: 84,
    remedy: "# lower the site's [limits], or raise those of the web server's unit, then: cellwall apply",
};
static CAPABILITIES: Card = Card {
    code: "C03",
    status: 84,
    remedy: "# add CAP_SETPCAP to CapabilityBoundingSet of the web server's unit",
};
static SET_GROUPS: Card = Card {
    code: "D109",
    status: 109,
    remedy: "# add CAP_SETGID to CapabilityBoundingSet of the web server's unit",
};
static SET_USER: Card = Card {
    code: "D110",
    status: 110,
    remedy: "# add CAP_SETUID to CapabilityBoundingSet of the web server's unit",
};
static NOT_GONE: Card = Card { code: "D01", status: 85, remedy: "# clear SecureBits of the server's unit" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::site;

    #[test]
    fn each_limit_has_its_name() {
        let names: Vec<&str> = NAMES.split(',').collect();
        assert_eq!((names.len(), names[6], names[9]), (UNNAMED.len(), "processes", "address space"));
    }

    /// Each of them could stop the launcher itself before its record is written.
    #[test]
    fn what_would_stop_the_launcher_is_limited_last() {
        let late: Vec<u8> = (0..16).filter(|number| is_late(*number)).collect();
        assert_eq!(late, [1, 2, 7, 9], "file size, data, open files, address space (getrlimit(2))");
    }

    #[test]
    fn addresses_are_limited_where_no_group_holds_the_memory() {
        let mut site = site();
        let limits = [Resource::CPU, Resource::DATA, Resource::ADDRESS_SPACE];
        site.limits.resources = limits.map(|number| Resource { number, value: 1 }).to_vec();
        let numbers = |groups| named(&site, groups).map(|limit| limit.number).collect::<Vec<_>>();
        assert_eq!(numbers(Groups::default()), limits);
        assert_eq!(numbers(Groups::holding("pids")), limits);
        assert_eq!(numbers(Groups::holding("memory")), limits[..2]);
    }
}
