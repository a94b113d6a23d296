//! What the program takes along: its environment, php-cgi's view of which file it runs, and the opened rule set.
//!
//! Runs as the site's own uid. Refuses with those of [`super::environment`] and [`super::landlock`].

use std::ffi::CString;

use crate::refusal::Refusal;

use super::arrival::Arrival;
use super::environment;
use super::landlock::{self, Ruleset};
use super::verify::Verified;

/// All that is needed to become the program.
#[must_use]
#[derive(Debug)]
pub struct Equipped<'a> {
    pub(super) verified: Verified<'a>,
    pub(super) environment: Vec<CString>,
    pub(super) dropped: usize,
    pub(super) ruleset: Option<Ruleset>,
    pub(super) caller: u32,
    pub(super) since: std::time::Instant,
}

impl<'a> Verified<'a> {
    /// Builds the environment and opens the rule set's paths, with the site's eyes.
    ///
    /// # Errors
    /// As the module says.
    pub fn equip(self, arrival: &Arrival) -> Result<Equipped<'a>, Refusal> {
        let forced = self
            .php
            .as_ref()
            .filter(|_| !arrival.fastcgi)
            .map_or_else(Vec::new, |script| php(script, arrival));
        let inside = self.inside;
        let rename = |path: &[u8]| inside.path(path).to_vec();
        let rebuilt = environment::rebuild(&self.site.environment, &arrival.environment, &forced, rename)?;
        // The set-id mail exception was sealed by root already.
        let ruleset = if self.site.set_id_mail { None } else { landlock::open(&self.site.landlock)? };
        let (environment, dropped) = (rebuilt.entries, rebuilt.dropped);
        let (caller, since) = (arrival.caller.0, arrival.since);
        Ok(Equipped { verified: self, environment, dropped, ruleset, caller, since })
    }
}

impl Equipped<'_> {
    /// For `explain`.
    #[must_use]
    pub fn tell(&self) -> String {
        let landlock = self.verified.site.landlock.rules.len();
        format!(
            "{} variables, {} of the caller's left out; {landlock} path rules",
            self.environment.len(),
            self.dropped
        )
    }
}

/// php-cgi runs the file that the environment names, and `PATH_TRANSLATED` instead of it when `REDIRECT_URL` is there
/// and the two differ: both are the file that was verified. `REDIRECT_STATUS` is its guard against being called
/// directly, and may say 200 because of that.
fn php<'a>(script: &[u8], arrival: &Arrival) -> Vec<(&'a [u8], Vec<u8>)> {
    let mut forced: Vec<(&[u8], Vec<u8>)> =
        vec![(b"SCRIPT_FILENAME", script.to_vec()), (b"REDIRECT_STATUS", b"200".to_vec())];
    if arrival.environment.iter().any(|entry| entry.starts_with(b"PATH_TRANSLATED=")) {
        forced.push((b"PATH_TRANSLATED", script.to_vec()));
    }
    forced
}
