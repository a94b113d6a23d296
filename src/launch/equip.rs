//! What the program takes along: its environment, php-cgi's view of which file it runs, and the opened rule set.
//!
//! Runs as the site's own uid. Refuses with E04, A03 and those of [`super::environment`] and [`super::landlock`].

use std::borrow::Cow;
use std::ffi::CStr;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::refusal::{Card, Refusal};
use crate::sys::clock::Moment;

use super::arrival::Arrival;
use super::environment::{self, Forced};
use super::landlock::{self, Ruleset};
use super::verify::Verified;

/// All that is needed to become the program.
#[must_use]
#[derive(Debug)]
pub struct Equipped<'a> {
    pub(super) verified: Verified<'a>,
    pub(super) environment: Vec<Cow<'a, CStr>>,
    pub(super) dropped: (usize, String),
    pub(super) ruleset: Option<Ruleset>,
    pub(super) caller: u32,
    pub(super) since: Moment,
}

impl<'a> Verified<'a> {
    /// Builds the environment and opens the rule set's paths, with the site's eyes.
    ///
    /// # Errors
    /// As the module says.
    pub fn equip(self, arrival: &Arrival<'a>) -> Result<Equipped<'a>, Refusal> {
        arrival.in_time("verify")?;
        if let Some(parent) = arrival.follows {
            follow(parent)?;
        }
        let forced = match &self.php {
            Some(script) if !arrival.fastcgi => php(script, arrival),
            _ if self.by_administrator => terminal(arrival),
            _ => Vec::new(),
        };
        let rename = |path| self.inside.path(path);
        let rebuilt = environment::rebuild(&self.site.environment, &arrival.environment, &forced, rename)?;
        // The set-id mail exception was sealed by root already.
        let is_sealed = self.site.set_id_mail || self.facts.settled;
        let ruleset = if is_sealed { None } else { landlock::open(self.uid, self.site)? };
        let (environment, dropped) = (rebuilt.entries, (rebuilt.dropped, rebuilt.left));
        arrival.in_time("equip")?;
        let (caller, since) = (arrival.caller.0, arrival.since);
        Ok(Equipped { verified: self, environment, dropped, ruleset, caller, since })
    }
}

/// Only now: a change of the identity undoes it (prctl(2)).
pub(super) fn follow(parent: Pid) -> Result<(), Refusal> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| Refusal::call(&ORPHAN, "prctl", errno))?;
    // It may have ended before.
    if getppid() == parent {
        Ok(())
    } else {
        Err(Refusal::new(&ORPHAN, "the pool's daemon has ended".to_owned()))
    }
}

/// php-cgi runs the file that the environment names, and `PATH_TRANSLATED` instead of it when `REDIRECT_URL` is there
/// and the two differ: both are the file that was verified. `REDIRECT_STATUS` is its guard against being called
/// directly, and may say 200 because of that. With `REDIRECT_URL` it also takes `PATH_INFO` for the path of the script
/// (that is how Apache's `Action` hands it over): a script that was rewritten to and has a path behind it keeps that path.
fn php<'a>(script: &[u8], arrival: &Arrival<'_>) -> Vec<Forced<'a>> {
    let has = |name: &[u8]| arrival.environment.iter().any(|entry| entry.to_bytes().starts_with(name));
    let mut forced: Vec<Forced<'a>> =
        vec![(b"SCRIPT_FILENAME", Some(script.to_vec())), (b"REDIRECT_STATUS", Some(b"200".to_vec()))];
    if has(b"PATH_TRANSLATED=") {
        forced.push((b"PATH_TRANSLATED", Some(script.to_vec())));
    }
    if has(b"PATH_INFO=") {
        forced.push((b"REDIRECT_URL", None));
    }
    forced
}

/// A shell of the administrator's wants to know its terminal; the name is a plain word or is not passed.
fn terminal<'a>(arrival: &Arrival<'_>) -> Vec<Forced<'a>> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+');
    let term = arrival.environment.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"TERM="));
    let term = term.filter(|term| !term.is_empty() && term.len() < 64 && term.iter().all(plain));
    term.map(|term| (&b"TERM"[..], Some(term.to_vec()))).into_iter().collect()
}

static ORPHAN: Card = Card { code: "E04", status: 87, remedy: "systemctl restart cellwalld" };
