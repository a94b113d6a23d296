//! The ways beside [`super::launch`], by the same stages: for the administrator's command, and not in the set-id program.
//!
//! May not: know a stage of their own.

use std::convert::Infallible;
use std::ffi::CString;

use crate::policy::{Record, Site};
use crate::refusal::Refusal;
use crate::sys::Root;

use super::arrival::Arrival;
use super::request::Request;
use super::{authorize, exec};

/// The same stages, up to the last but one; `tell` hears of each. For a process that has nothing to lose.
///
/// # Errors
/// The refusal that [`super::launch`] would give.
pub fn rehearse<'a>(
    arrival: &'a Arrival,
    request: &'a Request<'a>,
    policy: &'a Record<'a>,
    root: Root,
    tell: &mut dyn FnMut(&str, String),
) -> Result<(), Refusal> {
    let authorized = request.authorize(arrival, policy)?;
    tell("authorize", authorized.tell());
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
    arrival: &Arrival,
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
    arrival: &Arrival,
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
    arrival: &Arrival,
    policy: &'a Record<'a>,
    site: &'a Site<'a>,
    command: Vec<CString>,
    root: Root,
) -> Result<exec::Sealed<'a>, Refusal> {
    let authorized = authorize::Authorized::by_administrator(policy, site, command)?;
    let verified = authorized.confine(root)?.drop_root()?.verify(arrival)?;
    verified.equip(arrival)?.seal()
}
