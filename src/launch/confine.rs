//! Root's last act: limits and capabilities; then root is gone, and proven gone.
//!
//! Refuses with C01–C03, D109, D110, D01. Jails other than `host` are refused until they can be entered: a site
//! never runs outside the jail that its policy names.

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid, setuid};

use crate::policy::{Jail, Site};
use crate::refusal::{Card, Refusal};
use crate::sys;

use super::authorize::Authorized;

/// The site's own uid, without a way back.
#[must_use]
#[derive(Debug)]
pub struct Dropped<'a> {
    pub(super) uid: u32,
    pub(super) site: &'a Site<'a>,
    pub(super) docroot: &'a [u8],
    pub(super) directory: Vec<u8>,
}

/// Root. Touches nothing of the site's.
///
/// # Errors
/// As the module says.
pub fn confine(authorized: Authorized<'_>) -> Result<Dropped<'_>, Refusal> {
    let Authorized { uid, site, docroot, directory } = authorized;
    if site.jail != Jail::Host {
        return Err(Refusal::new(&JAIL, "this version cannot enter the site's jail".to_owned()));
    }
    if site.set_id_mail || (site.limits.groups_required && !site.limits.groups.is_empty()) {
        return Err(Refusal::new(&JAIL, "this version cannot give what the policy requires".to_owned()));
    }
    set_limits(site, |number| number != NPROC)?;
    umask(Mode::from_bits_truncate(site.limits.umask.into()));
    let failed = |errno| Refusal::call(&CAPABILITIES, "prctl", errno);
    for capability in 0..=63 {
        if !sys::drop_bounding(capability).map_err(failed)? {
            break;
        }
    }
    let stubborn = |why: caps::errors::CapsError| Refusal::new(&CAPABILITIES, why.to_string());
    caps::clear(None, caps::CapSet::Ambient).map_err(stubborn)?;
    caps::clear(None, caps::CapSet::Inheritable).map_err(stubborn)?;
    drop_root(uid, site)?;
    // Counted against the site's uid; set before the drop it would make exec fail with EAGAIN.
    set_limits(site, |number| number == NPROC)?;
    Ok(Dropped { uid, site, docroot, directory })
}

/// Groups, gid, uid, in this order (CVE-2019-15901); then ask for root again: getting it is a refusal.
fn drop_root(uid: u32, site: &Site<'_>) -> Result<(), Refusal> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(site.identity.gid));
    let groups: Vec<Gid> = site.identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(|errno| Refusal::call(&SET_GROUPS, "setgroups", errno))?;
    setresgid(gid, gid, gid).map_err(|errno| Refusal::call(&SET_GROUPS, "setresgid", errno))?;
    setresuid(uid, uid, uid).map_err(|errno| Refusal::call(&SET_USER, "setresuid", errno))?;
    let not_gone = |errno: Errno| Refusal::call(&NOT_GONE, "reading the identity back", errno);
    let (uids, gids) = (getresuid().map_err(not_gone)?, getresgid().map_err(not_gone)?);
    let mut have = getgroups().map_err(not_gone)?;
    let mut want = groups;
    have.sort_unstable_by_key(|gid| gid.as_raw());
    want.sort_unstable_by_key(|gid| gid.as_raw());
    want.dedup();
    have.dedup();
    let whole = [uids.real, uids.effective, uids.saved] == [uid; 3]
        && [gids.real, gids.effective, gids.saved] == [gid; 3]
        && have == want;
    let powerless = [caps::CapSet::Effective, caps::CapSet::Permitted, caps::CapSet::Inheritable]
        .into_iter()
        .all(|set| caps::read(None, set).is_ok_and(|held| held.is_empty()));
    if whole && powerless && setuid(Uid::from_raw(0)).is_err() {
        Ok(())
    } else {
        Err(Refusal::new(&NOT_GONE, "root's rights could not be given up wholly".to_owned()))
    }
}

fn set_limits(site: &Site<'_>, wanted: impl Fn(u8) -> bool) -> Result<(), Refusal> {
    for limit in site.limits.resources.iter().filter(|limit| wanted(limit.number)) {
        sys::limit(limit.number, limit.value).map_err(|errno| {
            Refusal::new(
                &LIMIT,
                format!("limit {} cannot be {}: {}", limit.number, limit.value, errno.desc()),
            )
        })?;
    }
    Ok(())
}

/// `RLIMIT_NPROC` on every architecture that is supported.
const NPROC: u8 = 6;

static JAIL: Card = Card {
    code: "C01",
    status: 84,
    remedy: "set kind = \"host\" in the site's [jail] and run: cellwall apply",
};
static LIMIT: Card =
    Card { code: "C02", status: 84, remedy: "lower the site's [limits], or raise those of the web server" };
static CAPABILITIES: Card =
    Card { code: "C03", status: 84, remedy: "give the web server's unit CAP_SETPCAP" };
static SET_GROUPS: Card = Card { code: "D109", status: 109, remedy: "give the web server's unit CAP_SETGID" };
static SET_USER: Card = Card { code: "D110", status: 110, remedy: "give the web server's unit CAP_SETUID" };
static NOT_GONE: Card =
    Card { code: "D01", status: 85, remedy: "clear the securebits of the web server's unit" };
