//! What a gate knows of the names of parameters, which are the same ones with every request.
//!
//! A table of one place for each of so many hashes: a name that shares its place with another one takes it over, so a
//! visitor who makes names up costs time, and no memory.

use std::cell::RefCell;

use crate::launch::environment::Nature;

/// One name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// The site lets it pass.
    pub(super) listed: bool,
    pub(super) nature: Nature,
    pub(super) about: About,
}

/// Names that tell the gate itself something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    AuthType,
    ContentLength,
    DocumentRoot,
    PathInfo,
    RemoteUser,
    ScriptFilename,
    ScriptName,
    Nothing,
}

impl About {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"AUTH_TYPE" => Self::AuthType,
            b"CONTENT_LENGTH" => Self::ContentLength,
            b"DOCUMENT_ROOT" => Self::DocumentRoot,
            b"PATH_INFO" => Self::PathInfo,
            b"REMOTE_USER" => Self::RemoteUser,
            b"SCRIPT_FILENAME" => Self::ScriptFilename,
            b"SCRIPT_NAME" => Self::ScriptName,
            _ => Self::Nothing,
        }
    }
}

/// Empty until the first request: ten thousand sites may have a gate that nobody asks.
#[derive(Debug, Clone, Default)]
pub struct Memory(RefCell<Vec<Place>>);

/// The name that was last asked for here.
type Place = Option<(Box<[u8]>, Known)>;

/// Places; a power of two.
const PLACES: usize = 256;
/// Longer names are found out each time.
const LONGEST: usize = 64;

impl Memory {
    /// What is known of a name, or what `find` says of it.
    pub(super) fn recall(&self, name: &[u8], find: impl FnOnce() -> Known) -> Known {
        if name.len() > LONGEST {
            return find();
        }
        let Ok(mut places) = self.0.try_borrow_mut() else { return find() };
        if places.is_empty() {
            places.resize(PLACES, None);
        }
        let Some(place) = places.get_mut(place(name)) else { return find() };
        match place {
            Some((known, what)) if **known == *name => *what,
            other => {
                let what = find();
                *other = Some((name.into(), what));
                what
            }
        }
    }
}

/// By a name's length and both its ends, eight bytes each. Of the names that web servers send no two have the same place.
fn place(name: &[u8]) -> usize {
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let short = || name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let begin = name.first_chunk().map_or_else(short, |first| word(Some(first)));
    let both = begin.rotate_left(27) ^ word(name.last_chunk()) ^ u64::try_from(name.len()).unwrap_or(0);
    usize::try_from(both.wrapping_mul(0xbe20_47db_f677_3551) >> 56).unwrap_or(0) & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_out_once_and_never_mistaken_for_another() {
        let memory = Memory::default();
        let names: Vec<Vec<u8>> =
            (0..1000_u32).map(|number| format!("HTTP_X{number}").into_bytes()).collect();
        let truth = |name: &[u8]| Known {
            listed: name.ends_with(b"7"),
            nature: Nature::of(name),
            about: About::of(name),
        };
        for _ in 0..3 {
            for name in &names {
                assert_eq!(memory.recall(name, || truth(name)), truth(name));
            }
        }
        let mut asked = 0;
        for _ in 0..3 {
            memory.recall(b"QUERY_STRING", || {
                asked += 1;
                truth(b"QUERY_STRING")
            });
        }
        assert_eq!(asked, 1);
    }

    /// Of which two shared a place, each would be found out anew with every request.
    #[test]
    fn the_names_that_web_servers_send_have_places_of_their_own() {
        let names = "QUERY_STRING REQUEST_METHOD CONTENT_TYPE CONTENT_LENGTH SCRIPT_NAME REQUEST_URI DOCUMENT_URI \
            DOCUMENT_ROOT SERVER_PROTOCOL REQUEST_SCHEME HTTPS GATEWAY_INTERFACE SERVER_SOFTWARE REMOTE_ADDR REMOTE_PORT \
            REMOTE_USER SERVER_ADDR SERVER_PORT SERVER_NAME REDIRECT_STATUS SCRIPT_FILENAME PATH_INFO PATH_TRANSLATED \
            AUTH_TYPE CONTEXT_DOCUMENT_ROOT CONTEXT_PREFIX SERVER_ADMIN SERVER_SIGNATURE HTTP_HOST HTTP_USER_AGENT \
            HTTP_ACCEPT HTTP_ACCEPT_LANGUAGE HTTP_ACCEPT_ENCODING HTTP_CONNECTION HTTP_COOKIE HTTP_REFERER \
            HTTP_CACHE_CONTROL HTTP_UPGRADE_INSECURE_REQUESTS HTTP_SEC_FETCH_DEST HTTP_SEC_FETCH_MODE \
            HTTP_SEC_FETCH_SITE HTTP_SEC_FETCH_USER HTTP_IF_NONE_MATCH HTTP_IF_MODIFIED_SINCE HTTP_X_FORWARDED_FOR \
            HTTP_X_FORWARDED_PROTO HTTP_X_REAL_IP HTTP_X_REQUESTED_WITH HTTP_ORIGIN HTTP_PRIORITY";
        let names: Vec<&str> = names.split_whitespace().collect();
        let places: std::collections::BTreeSet<usize> =
            names.iter().map(|name| place(name.as_bytes())).collect();
        assert_eq!(places.len(), names.len());
    }
}
