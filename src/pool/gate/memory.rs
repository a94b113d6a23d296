//! What a gate knows of the names of parameters, which are the same ones with every request.
//!
//! A table of one place for each of so many hashes: a name that shares its place with another one takes it over, so a
//! visitor who makes names up costs time, and no memory.

use std::cell::RefCell;

use crate::launch::environment::Nature;
use crate::policy::decode::checksum;

/// One name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// The site lets it pass.
    pub(super) listed: bool,
    pub(super) nature: Nature,
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

/// By the checksum of the records, eight bytes at once: bits of its middle, which all bytes have changed. Of the names that web
/// servers send no two have the same place.
fn place(name: &[u8]) -> usize {
    usize::try_from(checksum(name) >> 36).unwrap_or(0) & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_out_once_and_never_mistaken_for_another() {
        let memory = Memory::default();
        let names: Vec<Vec<u8>> =
            (0..1000_u32).map(|number| format!("HTTP_X{number}").into_bytes()).collect();
        let truth = |name: &[u8]| Known { listed: name.ends_with(b"7"), nature: Nature::of(name) };
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
}
