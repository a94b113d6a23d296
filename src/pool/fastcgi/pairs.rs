//! Name-value pairs: read from a whole buffer, written so that no pair lies in two records. Pure.

use super::Broken;
use super::record::{CONTENT_MAX, Header, kind};

/// The pairs of a buffer that is complete. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Pairs<'a>(pub &'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let pair = self.pair().ok_or(Broken::Pair);
        if pair.is_err() {
            self.0 = &[];
        }
        Some(pair)
    }
}

impl<'a> Pairs<'a> {
    fn pair(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (name, value) = (self.length()?, self.length()?);
        Some((self.bytes(name)?, self.bytes(value)?))
    }

    /// One byte below 128, or four with the top bit set.
    fn length(&mut self) -> Option<usize> {
        let (length, rest) = match self.0 {
            [a @ 0..=127, rest @ ..] => (u32::from(*a), rest),
            [a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a & 127, *b, *c, *d]), rest),
            _ => return None,
        };
        self.0 = rest;
        usize::try_from(length).ok()
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (some, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(some)
    }
}

/// A pair, and the bytes that it was read from.
pub type Encoded<'a> = (&'a [u8], &'a [u8], &'a [u8]);

impl<'a> Pairs<'a> {
    /// The next pair, with the bytes that say it: whoever passes it on unchanged copies them at once. `None`: there is no more.
    ///
    /// # Errors
    /// As the iterator's.
    pub fn next_encoded(&mut self) -> Result<Option<Encoded<'a>>, Broken> {
        let before = self.0;
        let Some((name, value)) = self.next().transpose()? else { return Ok(None) };
        let length = before.len().saturating_sub(self.0.len());
        Ok(Some((name, value, before.get(..length).unwrap_or_default())))
    }
}

/// Writes PARAMS records of whole pairs: php-cgi closes a connection on which a pair lies in two.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    id: u16,
    /// Where the open record's header is in `out`.
    head: usize,
    length: usize,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, id: u16) -> Self {
        let head = out.len();
        out.extend_from_slice(&[0; 8]);
        Self { out, id, head, length: 0 }
    }

    /// Appends one pair. `false`: it is longer than a record and was left out.
    #[must_use]
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> bool {
        let fits = self.make_room(encoded_length(name, value));
        if fits {
            put(self.out, name, value);
        }
        fits
    }

    /// Appends one pair as it was read; in the shortest form, where it was not.
    #[must_use]
    pub fn copy(&mut self, (name, value, bytes): Encoded<'_>) -> bool {
        if bytes.len() != encoded_length(name, value) {
            return self.push(name, value);
        }
        let fits = self.make_room(bytes.len());
        if fits {
            self.out.extend_from_slice(bytes);
        }
        fits
    }

    /// In the open record, or in a new one. `false`: there is none that holds so much.
    fn make_room(&mut self, length: usize) -> bool {
        if length > CONTENT_MAX {
            return false;
        }
        if self.length.saturating_add(length) > CONTENT_MAX {
            self.close();
            (self.head, self.length) = (self.out.len(), 0);
            self.out.extend_from_slice(&[0; 8]);
        }
        self.length = self.length.saturating_add(length);
        true
    }

    /// The stream's end: the open record gets its length, and an empty one follows.
    pub fn finish(mut self) {
        self.close();
        if self.length > 0 {
            self.out.extend_from_slice(&Header::new(kind::PARAMS, self.id, 0).encode());
        }
    }

    fn close(&mut self) {
        let length = u16::try_from(self.length).unwrap_or(u16::MAX);
        let header = Header::new(kind::PARAMS, self.id, length).encode();
        for (place, byte) in self.out.iter_mut().skip(self.head).zip(header) {
            *place = byte;
        }
    }
}

/// Appends one pair.
pub fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_length(out, name.len());
    put_length(out, value.len());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..=127) => out.push(short),
        _ => {
            let long = u32::try_from(length).unwrap_or(u32::MAX) | 1 << 31;
            out.extend_from_slice(&long.to_be_bytes());
        }
    }
}

/// Of a pair in the shortest form.
fn encoded_length(name: &[u8], value: &[u8]) -> usize {
    let length = |bytes: &[u8]| bytes.len().saturating_add(if bytes.len() < 128 { 1 } else { 4 });
    length(name).saturating_add(length(value))
}
