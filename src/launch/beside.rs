//! The ways beside [`super::launch`], by the same stages: for the administrator's command, and not in the set-id program.
//!
//! What each stage tells in a rehearsal stands here as well. May not: know a stage of their own.

use std::convert::Infallible;
use std::ffi::CString;

use crate::policy::{Record, Site};
use crate::refusal::{Refusal, Untrusted};
use crate::sys::Root;

use super::arrival::Arrival;
use super::authorize::{Authorized, Target};
use super::confine::{Confined, Dropped};
use super::equip::Equipped;
use super::exec::Sealed;
use super::request::Request;
use super::verify::{Start, Verified};

/// The same stages, up to the last but one; `tell` hears of each. For a process that has nothing to lose.
///
/// # Errors
/// The refusal that [`super::launch`] would give.
pub fn rehearse<'a>(
    arrival: &'a Arrival<'a>,
    request: &'a Request<'a>,
    policy: &'a Record<'a>,
    root: Root,
    tell: &mut dyn FnMut(&str, String),
) -> Result<(), Refusal> {
    let authorized = request.authorize(arrival, policy)?;
    tell("authorize", authorized.tell(policy.user));
    let confined = authorized.confine(root)?;
    tell("confine", confined.tell());
    let dropped = confined.drop_root()?;
    tell("drop", dropped.tell());
    let verified = dropped.verify(arrival)?;
    tell("verify", verified.tell());
    let equipped = verified.equip(arrival)?;
    tell("equip", equipped.tell());
    let sealed = equipped.seal()?;
    tell("seal", sealed.tell());
    Ok(())
}

/// A command of the administrator's in a site's cell: the same confinement, no file of the site's to verify.
///
/// # Errors
/// [`Refusal`]: nothing was run.
pub fn enter(
    arrival: &Arrival<'_>,
    policy: &Record<'_>,
    site: &Site<'_>,
    command: Vec<CString>,
    root: Root,
) -> Result<Infallible, Refusal> {
    sealed(arrival, policy, site, command, root)?.exec()
}

/// The administrator's command itself looks around in the same cell. For a child that ends afterwards.
///
/// # Errors
/// [`Refusal`]: the cell cannot be entered.
pub fn visit<T>(
    arrival: &Arrival<'_>,
    policy: &Record<'_>,
    site: &Site<'_>,
    root: Root,
    look: impl FnOnce() -> T,
) -> Result<T, Refusal> {
    // Every cell has a root directory; nothing is started.
    let _sealed = sealed(arrival, policy, site, vec![c"/".to_owned()], root)?;
    Ok(look())
}

fn sealed<'a>(
    arrival: &Arrival<'a>,
    policy: &'a Record<'a>,
    site: &'a Site<'a>,
    command: Vec<CString>,
    root: Root,
) -> Result<Sealed<'a>, Refusal> {
    let authorized = Authorized::by_administrator(policy, site, command)?;
    let verified = authorized.confine(root)?.drop_root()?.verify(arrival)?;
    verified.equip(arrival)?.seal()
}

impl Authorized<'_> {
    fn tell(&self, user: &[u8]) -> String {
        let (site, user) = (Untrusted(self.site.name), Untrusted(user));
        let what = match &self.target {
            Target::Script { docroot, .. } => format!("docroot {}", Untrusted(docroot)),
            Target::Program { request } => format!("program {} of root's", Untrusted(request.command)),
            Target::Command(_) => "a command of the administrator's".to_owned(),
        };
        let stale =
            if self.stale { "; the site's file is younger than the policy: run cellwall apply" } else { "" };
        format!("site {site} as {user} (uid {}, gid {}), {what}{stale}", self.uid, self.site.identity.gid)
    }
}

impl Confined<'_> {
    fn tell(&self) -> String {
        let (inside, groups) = (self.rest.inside.name(), self.rest.facts.groups);
        format!("jail {inside}, control group {groups}, {} limits", self.rest.site.limits.resources.len())
    }
}

impl Dropped<'_> {
    fn tell(&self) -> String {
        let identity = &self.site.identity;
        let groups: Vec<String> = identity.groups.iter().map(u32::to_string).collect();
        format!(
            "uid {}, gid {}, groups {}, no capability, no way back",
            self.uid,
            identity.gid,
            groups.join(",")
        )
    }
}

impl Verified<'_> {
    fn tell(&self) -> String {
        let (directory, name) = (Untrusted(&self.shown.0), Untrusted(&self.shown.1));
        let how = match (&self.start, &self.php) {
            (Start::Path(path), _) => format!(", started by {}", Untrusted(path.as_bytes())),
            (Start::Name(_), Some(_)) => ", which php-cgi runs".to_owned(),
            (Start::Name(_), None) => String::new(),
        };
        format!("{directory}/{name}: owner, modes and every directory above it are right{how}")
    }
}

impl Equipped<'_> {
    fn tell(&self) -> String {
        let landlock = self.verified.site.landlock.rules.len();
        let (count, names) = &self.dropped;
        let names = if names.is_empty() { String::new() } else { format!(" ({names})") };
        let kept = self.environment.len();
        format!("{kept} variables, {count} of the caller's left out{names}; {landlock} path rules")
    }
}

impl Sealed<'_> {
    fn tell(&self) -> String {
        let site = self.verified.site;
        let landlock = match self.verified.facts.landlock {
            0 => "no Landlock".to_owned(),
            version => format!("Landlock {version}"),
        };
        let filter = if site.seccomp.is_empty() { "no system call filter" } else { "system calls filtered" };
        let privileges =
            if site.set_id_mail { "SET-ID PROGRAMS WORK (mail exception)" } else { "no_new_privs" };
        format!("{privileges}, {landlock}, {filter}, descriptors 0 to 2 alone stay open")
    }
}
