//! The environment, rebuilt by allow list. Pure: bytes in, bytes out.
//!
//! Refuses with E01 and E02. What the policy sets comes first and wins; a caller's name stands at most once.

use std::ffi::CString;

use crate::policy::Environment;
use crate::policy::names::may_pass;
use crate::refusal::{Card, Refusal, Untrusted};

/// The program's environment.
///
/// # Errors
/// E01: a name of the CGI standard twice. E02: more than the policy's `entries_max` or `bytes_max`; cutting would let
/// a visitor's headers push other variables out.
pub fn rebuild(rules: &Environment<'_>, caller: &[Vec<u8>]) -> Result<Vec<CString>, Refusal> {
    let bytes: usize = caller.iter().map(Vec::len).sum();
    if caller.len() > rules.entries_max.into()
        || u32::try_from(bytes).map_or(true, |bytes| bytes > rules.bytes_max)
    {
        return Err(Refusal::new(&TOO_MUCH, format!("{} entries of {bytes} bytes", caller.len())));
    }
    let mut seen: Vec<&[u8]> = rules.set.iter().map(|(name, _)| *name).collect();
    let set_by_policy = seen.len();
    let mut entries: Vec<CString> = Vec::with_capacity(caller.len() + set_by_policy);
    entries.extend(
        rules.set.iter().filter_map(|(name, value)| CString::new([name, &b"="[..], value].concat()).ok()),
    );
    for entry in caller {
        let Some(equals) = entry.iter().position(|byte| *byte == b'=') else { continue };
        let (Some(name), Some(value)) = (entry.get(..equals), entry.get(equals.saturating_add(1)..)) else {
            continue;
        };
        if !passes(rules, name, value) {
            continue;
        }
        match seen.iter().position(|known| *known == name) {
            None => {}
            Some(place) if place < set_by_policy || name.starts_with(b"HTTP_") => continue,
            Some(_) => return Err(Refusal::new(&TWICE, format!("{} stands twice", Untrusted(name)))),
        }
        seen.push(name);
        entries.extend(CString::new(entry.as_slice()).ok());
    }
    Ok(entries)
}

fn passes(rules: &Environment<'_>, name: &[u8], value: &[u8]) -> bool {
    let listed = rules.pass.binary_search(&name).is_ok()
        || rules.pass_prefixes.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    let authorization = matches!(name, b"HTTP_AUTHORIZATION" | b"HTTP_PROXY_AUTHORIZATION");
    // httpd writes header names in capitals; anything else did not come from a header.
    let header = !name.starts_with(b"HTTP_") || !name.iter().any(u8::is_ascii_lowercase);
    listed && may_pass(name) && header && (!authorization || rules.authorization) && value_passes(name, value)
}

/// `()`: old shells make functions of it (CVE-2014-6271). TZ is a path to some libraries (CVE-2014-9680).
fn value_passes(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"TZ" => {
            !value.starts_with(b":") && !value.starts_with(b"/") && !value.windows(2).any(|two| two == b"..")
        }
        b"REDIRECT_STATUS" => value.len() == 3 && value.iter().all(u8::is_ascii_digit),
        _ => !value.starts_with(b"()"),
    }
}

static TWICE: Card = Card {
    code: "E01",
    status: 87,
    remedy: "find what sets the variable twice in the web server's configuration",
};
static TOO_MUCH: Card = Card {
    code: "E02",
    status: 87,
    remedy: "raise `entries_max` or `bytes_max` in the site's [environment] and run: cellwall apply",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(caller: &[&str]) -> Result<Vec<String>, &'static str> {
        let rules = Environment {
            pass: vec![b"QUERY_STRING", b"REDIRECT_STATUS", b"TZ"],
            pass_prefixes: vec![b"HTTP_"],
            authorization: false,
            set: vec![(b"PATH", b"/usr/bin")],
            entries_max: 8,
            bytes_max: 1000,
        };
        let caller: Vec<Vec<u8>> = caller.iter().map(|entry| entry.as_bytes().to_vec()).collect();
        let entries = rebuild(&rules, &caller).map_err(|refusal| refusal.card.code)?;
        Ok(entries.into_iter().map(|entry| entry.into_string().unwrap()).collect())
    }

    #[test]
    fn only_what_is_listed_passes_and_the_policy_comes_first() {
        let caller =
            ["PATH=.", "LD_PRELOAD=x", "QUERY_STRING=a=b", "HTTP_A=1", "HTTP_PROXY=x", "HTTP_b=1", "IFS=/"];
        assert_eq!(filtered(&caller).unwrap(), ["PATH=/usr/bin", "QUERY_STRING=a=b", "HTTP_A=1"]);
    }

    #[test]
    fn values_that_libraries_interpret_do_not_pass() {
        let caller =
            ["HTTP_C=() { :;}", "TZ=:/etc/shadow", "REDIRECT_STATUS=2 00", "QUERY_STRING", "=x", "HTTP_=y"];
        assert_eq!(filtered(&caller).unwrap(), ["PATH=/usr/bin"]);
        assert_eq!(filtered(&["TZ=Europe/Paris"]).unwrap(), ["PATH=/usr/bin", "TZ=Europe/Paris"]);
        assert_eq!(filtered(&["HTTP_AUTHORIZATION=x"]).unwrap(), ["PATH=/usr/bin"]);
    }

    #[test]
    fn doubles_and_floods_are_refused_not_cut() {
        assert_eq!(filtered(&["QUERY_STRING=a", "QUERY_STRING=b"]), Err("E01"));
        assert_eq!(filtered(&["HTTP_X=1", "HTTP_X=2"]).unwrap(), ["PATH=/usr/bin", "HTTP_X=1"]);
        assert_eq!(filtered(&["A=1"; 9]), Err("E02"));
    }
}
