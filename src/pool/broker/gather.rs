//! What goes out: pieces that are written in one call, and what the other side did not take yet.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::uio::writev;
use nix::unistd::write;

use crate::pool::fastcgi::Ending;
use crate::pool::fastcgi::record::{CONTENT_MAX, HEADER, Header, put, put_end};

/// Records of an answer: headers of ours, and contents that lie in the buffer they were read into.
#[derive(Debug, Default)]
pub(super) struct Gather {
    ours: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Ours(Range<usize>),
    Read(Range<usize>),
}

impl Gather {
    pub(super) fn clear(&mut self) {
        self.ours.clear();
        self.parts.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// A record around `content`, which lies at `place` of the buffer. Small ones are copied: one piece is one `write`.
    pub(super) fn record(&mut self, kind: u8, id: u16, content: &[u8], place: Range<usize>) {
        if content.len() <= COPIED {
            return self.copy(|out| put(out, kind, id, content));
        }
        let mut start = place.start;
        for part in content.chunks(CONTENT_MAX) {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            self.copy(|out| out.extend_from_slice(&Header::new(kind, id, length).encode()));
            let end = start.saturating_add(part.len());
            self.parts.push(Part::Read(start..end));
            start = end;
        }
    }

    pub(super) fn end(&mut self, id: u16, status: u32) {
        self.copy(|out| put_end(out, id, status, Ending::Complete));
    }

    /// Appends bytes of our own.
    pub(super) fn copy(&mut self, add: impl FnOnce(&mut Vec<u8>)) {
        let start = self.ours.len();
        add(&mut self.ours);
        let end = self.ours.len();
        match self.parts.last_mut() {
            Some(Part::Ours(last)) => last.end = end,
            _ => self.parts.push(Part::Ours(start..end)),
        }
    }

    /// Writes it all, or as much as goes; the rest is kept in `pending`, which was empty, or is in it behind what waits already.
    pub(super) fn write(
        &self,
        to: impl AsFd,
        read: &[u8],
        pending: &mut Pending,
        spares: &mut Spares,
    ) -> Result<(), Errno> {
        let bytes = |part: &Part| match part {
            Part::Ours(place) => self.ours.get(place.clone()).unwrap_or_default(),
            Part::Read(place) => read.get(place.clone()).unwrap_or_default(),
        };
        let mut written = 0;
        if pending.is_empty() {
            written = match self.parts.as_slice() {
                [] => return Ok(()),
                [only] => taken(write(to, bytes(only)))?,
                all => {
                    let slices: Vec<IoSlice<'_>> =
                        all.iter().take(PIECES).map(|part| IoSlice::new(bytes(part))).collect();
                    taken(writev(to, &slices))?
                }
            };
        }
        let whole: usize = self.parts.iter().map(|part| bytes(part).len()).sum();
        if whole > written {
            spares.lend(pending, whole.saturating_sub(written));
        }
        for part in &self.parts {
            let part = bytes(part);
            pending.put(part.get(written..).unwrap_or_default());
            written = written.saturating_sub(part.len());
        }
        Ok(())
    }
}

/// Bytes that could not be written yet, or are being collected for one write.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    start: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    /// How many bytes.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    /// Some of it is written, and not all.
    pub(super) fn begun(&self) -> bool {
        self.start > 0
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends by another's hand.
    pub(super) fn with(&mut self, add: impl FnOnce(&mut Vec<u8>)) {
        add(&mut self.bytes);
    }

    pub(super) fn clear(&mut self) {
        (self.bytes, self.start) = (Vec::new(), 0);
    }

    /// Writes as much as goes. `true`: nothing is left.
    pub(super) fn write(&mut self, to: impl AsFd) -> Result<bool, Errno> {
        let done = self.flush(to)?;
        if done {
            self.bytes.shrink_to(KEPT);
        }
        Ok(done)
    }

    /// The same of what [`Gather::write`] left.
    pub(super) fn write_lent(&mut self, to: impl AsFd, spares: &mut Spares) -> Result<bool, Errno> {
        let done = self.flush(to)?;
        if done {
            spares.take_back(self);
        }
        Ok(done)
    }

    fn flush(&mut self, to: impl AsFd) -> Result<bool, Errno> {
        while let Some(rest) = self.bytes.get(self.start..).filter(|rest| !rest.is_empty()) {
            let written = taken(write(to.as_fd(), rest))?;
            if written == 0 {
                return Ok(false);
            }
            self.start = self.start.saturating_add(written);
        }
        self.start = 0;
        self.bytes.clear();
        Ok(true)
    }
}

/// Large buffers for what waits, which go from one connection to the next: each one made anew is a mapping of the kernel's, and a
/// fault for each of its pages.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Vec<u8>>);

impl Spares {
    /// Room for so many bytes more.
    fn lend(&mut self, pending: &mut Pending, more: usize) {
        if pending.is_empty() && (KEPT..=LARGE).contains(&more) {
            pending.bytes = self.0.pop().unwrap_or_else(|| Vec::with_capacity(LARGE));
        }
        pending.bytes.reserve(more);
    }

    /// Nothing waits any more in what was lent.
    fn take_back(&mut self, pending: &mut Pending) {
        if pending.bytes.capacity() == LARGE && self.0.len() < SPARES {
            self.0.push(std::mem::take(&mut pending.bytes));
        }
        pending.bytes.shrink_to(KEPT);
    }
}

/// A write that would have to wait has written nothing.
fn taken(written: Result<usize, Errno>) -> Result<usize, Errno> {
    match written {
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        other => other,
    }
}

/// Contents up to this size are copied beside their header.
const COPIED: usize = 4096;
/// Most pieces of one call (`IOV_MAX` is 1,024).
const PIECES: usize = 512;
/// The most that one read leaves over, with the headers around it, and how many buffers of that size are kept.
const LARGE: usize = super::BUFFER + 4096;
const SPARES: usize = 16;
/// Most bytes of an empty buffer that a connection keeps.
const KEPT: usize = 16 * 1024 + HEADER;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn pieces_arrive_in_order_and_what_is_not_taken_is_kept() {
        let (one, mut other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let read: Vec<u8> = (0..700_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
        let mut gather = Gather::default();
        gather.record(6, 1, &read[..10], 0..10);
        gather.record(6, 1, &read[10..], 10..read.len());
        gather.end(1, 7);
        let mut pending = Pending::default();
        let mut spares = Spares::default();
        gather.write(&one, &read, &mut pending, &mut spares).unwrap();
        assert!(!pending.is_empty(), "more than a socket holds");
        let mut expected = Vec::new();
        put(&mut expected, 6, 1, &read[..10]);
        put(&mut expected, 6, 1, &read[10..]);
        put_end(&mut expected, 1, 7, Ending::Complete);
        let mut got = Vec::new();
        let mut buffer = vec![0; 50_000];
        while got.len() < expected.len() {
            let length = other.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..length]);
            assert_eq!(
                pending.write_lent(&one, &mut spares).unwrap(),
                pending.is_empty(),
                "it tells whether something is left"
            );
        }
        assert!(got == expected && pending.is_empty());
    }
}
