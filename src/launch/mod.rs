//! The pipeline: one request becomes one program of a site, or nothing runs.
//!
//! ```text
//!             root                                     │          the site's own uid
//!  Arrival ▶ Request ▶ Authorized ▶ Confined ─────────▶│ Dropped ▶ Verified ▶ Equipped ▶ Sealed ▶ (recorded) ▶ exec
//! ```
//! Each stage is a type that only its own file can make; walking on consumes it. Root is a value that is spent in the
//! middle, and everything that a site's owner can influence is looked at only after that.
//!
//! May not: know a second way to start a program of a site. [`rehearse`] walks the same stages and stops before the
//! last; [`enter`] starts a command of the administrator's in the same cell, and `visit` looks around in it. For a pool of
//! CGI programs `settled` goes as far as the seal once, and walks the rest for each request.

mod account;
pub mod arrival;
pub mod authorize;
#[cfg(feature = "admin")]
mod beside;
pub mod confine;
pub mod environment;
pub mod equip;
pub mod exec;
pub(crate) mod groups;
pub mod interpreter;
pub mod jail;
pub mod landlock;
pub mod request;
#[cfg(feature = "pool")]
pub mod settled;
pub mod verify;
pub mod walk;

use std::convert::Infallible;
use std::io::Write as _;

use crate::policy::Record;
use crate::record::Log;
use crate::refusal::Refusal;
use crate::sys::{self, Root};

use arrival::Arrival;
use request::Request;

#[cfg(feature = "admin")]
pub use beside::{enter, rehearse, visit};

/// The whole story. Returns only to refuse.
///
/// # Errors
/// [`Refusal`]: nothing was run.
pub fn launch<'a>(
    arrival: &'a Arrival<'a>,
    request: &'a Request<'a>,
    policy: &'a Record<'a>,
    root: Root,
    log: &mut Log<'a>,
) -> Result<Infallible, Refusal> {
    let authorized = request.authorize(arrival, policy)?; // by the policy, whom to become
    log.about(authorized.site());
    let confined = authorized.confine(root)?; // root's last act
    let dropped = confined.drop_root()?; // root is gone, proven gone
    let verified = dropped.verify(arrival)?; // the site's files, seen with the site's eyes
    let equipped = verified.equip(arrival)?; // the environment, by allow list
    let sealed = equipped.seal()?; // no_new_privs, Landlock, descriptors, system calls
    log.launching(&sealed)?; // no record, no run
    sealed.exec() // become the program
}

/// What the visitor of a refused launch sees, whatever the refusal is: the page's status.
pub const FAILED: &str = "500 Internal Server Error";

/// The end of a refused launch: one record, a page for the visitor, where there is one, and suEXEC's status.
pub fn refuse(refusal: &Refusal, log: &mut Log<'_>, page: Option<&str>) -> u8 {
    let lost = if log.refused(refusal) { "" } else { " (its record is lost)" };
    let reference = log.reference();
    // Takes memory, which may not be there: before anything is told to anybody.
    let mut visitor = std::io::stdout();
    // In one write, or a server that reads meanwhile makes two lines of it. A failed one changes nothing: the status
    // says it all.
    let line = format!("cellwall: refused, reference {reference}{lost}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(title) = page {
        let name = title.get(4..).unwrap_or_default();
        let _ = write!(
            visitor,
            "Status: {title}\r\nContent-Type: text/html; charset=us-ascii\r\n\r\n\
             <!DOCTYPE html>\n<title>{title}</title>\n<h1>{name}</h1>\n\
             <p>The server could not answer this request. Reference: {reference}</p>\n"
        );
        sys::process::forsake_request();
    }
    refusal.card.status
}
