//! A request's parameters, taken apart once, with what they say about the request as a whole. Pure.

use crate::launch::environment::has_controls;
use crate::pool::fastcgi::pairs::{Encoded, Pairs};
use crate::refusal::Untrusted;

use super::memory::{About, Known};
use super::paths::Said;
use super::{Gate, MANY, No, PARAMETERS, no};

/// All parameters, and what they say together.
pub(super) struct Seen<'a> {
    pub(super) said: Said<'a>,
    /// Each as it came, and what is known of its name.
    pub(super) pairs: Vec<(Encoded<'a>, Known)>,
    pub(super) content_length: Option<u64>,
    /// The web server says how the visitor has proved who he is: there is an AUTH_TYPE.
    pub(super) proven: bool,
}

impl<'a> Seen<'a> {
    pub(super) fn of(params: &'a [u8], gate: &Gate) -> Result<Self, No> {
        let (said, pairs) = (Said::default(), Vec::with_capacity(USUAL));
        let mut seen = Self { said, pairs, content_length: None, proven: false };
        let most = &gate.names;
        let mut bytes = 0_usize;
        let mut pairs = Pairs(params);
        while let Some(pair) =
            pairs.next_encoded().map_err(|broken| no(400, &PARAMETERS, broken.to_string()))?
        {
            let (name, value, _) = pair;
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
            if seen.pairs.len() >= most.entries_max || bytes > most.bytes_max {
                let most = format!("more than {} of {} bytes", most.entries_max, most.bytes_max);
                return Err(no(431, &MANY, most));
            }
            if has_controls(value) && value.contains(&0) {
                return Err(no(400, &PARAMETERS, format!("{} has a NUL in it", Untrusted(name))));
            }
            let known = gate.know(name);
            seen.note(known.about, name, value)?;
            seen.pairs.push((pair, known));
        }
        Ok(seen)
    }

    fn note(&mut self, about: About, name: &[u8], value: &'a [u8]) -> Result<(), No> {
        let place = match about {
            About::Nothing | About::RemoteUser => return Ok(()),
            About::ScriptFilename => &mut self.said.script_filename,
            About::ScriptName => &mut self.said.script_name,
            About::PathInfo => &mut self.said.path_info,
            About::DocumentRoot => &mut self.said.document_root,
            About::AuthType => {
                self.proven |= !value.is_empty();
                return Ok(());
            }
            About::ContentLength if matches!(value, b"" | b"-1") => return Ok(()),
            About::ContentLength => {
                let digits = std::str::from_utf8(value).ok().filter(|_| value.iter().all(u8::is_ascii_digit));
                let Some(length) = digits.and_then(|digits| digits.parse().ok()) else {
                    return Err(no(400, &PARAMETERS, format!("CONTENT_LENGTH is \"{}\"", Untrusted(value))));
                };
                if self.content_length.replace(length).is_some() {
                    return Err(no(400, &PARAMETERS, "CONTENT_LENGTH stands twice".to_owned()));
                }
                return Ok(());
            }
        };
        if !std::mem::replace(place, value).is_empty() {
            return Err(no(400, &PARAMETERS, format!("{} stands twice", Untrusted(name))));
        }
        Ok(())
    }
}

/// Parameters that there is room for at once; web servers send some thirty.
const USUAL: usize = 48;
