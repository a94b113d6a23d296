//! The pipeline: one request becomes one program of a site, or nothing runs.
//!
//! Each stage is a type that only its own file can make; walking on consumes it. Root is spent in the middle, and
//! what a site owner can influence is looked at only after that.

pub mod arrival;
pub mod authorize;
pub mod confine;
pub mod environment;
pub mod exec;
pub mod request;
pub mod verify;

use std::convert::Infallible;

use crate::policy::Record;
use crate::record::Log;
use crate::refusal::Refusal;

use arrival::Arrival;
use request::Request;

/// The whole story. Returns only to refuse.
///
/// # Errors
/// [`Refusal`]: nothing was run.
pub fn launch<'a>(
    arrival: &Arrival,
    request: &Request<'_>,
    policy: &'a Record<'a>,
    log: &mut Log<'a>,
) -> Result<Infallible, Refusal> {
    let authorized = authorize::authorize(arrival, request, policy)?; // by the policy, whom to become
    log.site = Some(authorized.site.name);
    let dropped = confine::confine(authorized)?; // root's last act; root is gone, proven gone
    let verified = verify::verify(dropped, arrival, request)?; // the site's files, seen with the site's eyes
    let environment = environment::rebuild(&verified.site.environment, &arrival.environment)?;
    let sealed = exec::prepare(verified, environment)?; // the rule set, opened with the site's eyes
    log.launching(&sealed.describe())?; // no record, no run
    exec::exec(sealed) // seal, become the program
}
