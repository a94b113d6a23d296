//! By the policy: may this caller have this identity, here? Root, and touches no file.
//!
//! Refuses with P103–P122.

use std::os::unix::ffi::OsStrExt as _;

use crate::policy::{Record, Site};
use crate::refusal::{Card, Refusal, Untrusted};

use super::arrival::Arrival;
use super::request::Request;

/// A request that the policy allows.
#[must_use]
#[derive(Debug)]
pub struct Authorized<'a> {
    /// Whom it becomes.
    pub(super) uid: u32,
    /// By which rules.
    pub site: &'a Site<'a>,
    /// The docroot that holds the working directory.
    pub(super) docroot: &'a [u8],
    /// The working directory, as the kernel names it.
    pub(super) directory: Vec<u8>,
}

/// In suEXEC's order: caller, uid, gid, directory.
///
/// # Errors
/// P103 caller, P107 uid, P108 gid, P111 no working directory, P114 no site here.
pub fn authorize<'a>(
    arrival: &Arrival,
    request: &Request<'_>,
    policy: &'a Record<'a>,
) -> Result<Authorized<'a>, Refusal> {
    let host = &policy.host;
    if !host.callers.contains(&arrival.caller) {
        return Err(Refusal::new(&CALLER, format!("uid {} is not the web server's", arrival.caller)));
    }
    if request.uid == 0 || request.uid < host.uid_min || request.uid != policy.uid {
        return Err(Refusal::new(&UID, format!("uid {} is below {} or root", request.uid, host.uid_min)));
    }
    if request.gid == 0 || request.gid < host.gid_min {
        return Err(Refusal::new(&GID, format!("gid {} is below {} or root's", request.gid, host.gid_min)));
    }
    let directory = nix::unistd::getcwd().map_err(|errno| Refusal::call(&DIRECTORY, "getcwd", errno))?;
    let directory = directory.as_os_str().as_bytes();
    let (site, docroot) = policy
        .sites
        .iter()
        .filter(|site| site.identity.gid == request.gid && site.userdir == request.userdir)
        .find_map(|site| {
            site.docroots.iter().find(|root| is_beneath(directory, root)).map(|root| (site, *root))
        })
        .ok_or_else(|| {
            let (uid, gid) = (request.uid, request.gid);
            Refusal::about(
                &OUTSIDE,
                directory,
                &format!("no site of uid {uid} with gid {gid} has a docroot here"),
            )
        })?;
    Ok(Authorized { uid: policy.uid, site, docroot, directory: directory.to_vec() })
}

/// By component, never as text: `/srv/ab` is not beneath `/srv/a` (CVE-2007-1742).
fn is_beneath(path: &[u8], root: &[u8]) -> bool {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// No record for a uid that was asked for; before there is anything to authorize by.
#[must_use]
pub fn no_policy(uid: u32) -> Refusal {
    Refusal::new(&NO_POLICY, format!("no policy names uid {uid}"))
}

/// A record that is there and cannot be used.
#[must_use]
pub fn bad_policy(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        &BAD_POLICY,
        format!("the policy record cannot be used: {}", Untrusted(why.to_string().as_bytes())),
    )
}

static CALLER: Card = Card {
    code: "P103",
    status: 103,
    remedy: "set `caller` in /etc/cellwall/cellwall.toml and run: cellwall apply",
};
static UID: Card = Card { code: "P107", status: 107, remedy: "run the site as an ordinary user" };
static GID: Card = Card { code: "P108", status: 108, remedy: "give the site an ordinary group" };
static DIRECTORY: Card = Card { code: "P111", status: 111, remedy: "make the program's directory again" };
static OUTSIDE: Card = Card {
    code: "P114",
    status: 114,
    remedy: "add {} to a site's `docroot` in /etc/cellwall/sites.d and run: cellwall apply",
};
static NO_POLICY: Card = Card {
    code: "P121",
    status: 121,
    remedy: "write a site file in /etc/cellwall/sites.d and run: cellwall apply",
};
static BAD_POLICY: Card = Card { code: "P01", status: 83, remedy: "cellwall apply" };

#[cfg(test)]
mod tests {
    use super::is_beneath;

    #[test]
    fn a_sibling_directory_with_the_same_prefix_is_outside() {
        assert!(is_beneath(b"/srv/a/b", b"/srv/a"));
        assert!(is_beneath(b"/srv/a", b"/srv/a"));
        assert!(!is_beneath(b"/srv/ab", b"/srv/a"));
        assert!(!is_beneath(b"/srv", b"/srv/a"));
    }
}
