//! What a worker answers on a connection of ours: one request at a time, always of id 1. Pure.

use super::record::{Header, Piece, Records, kind};
use super::{Broken, Ending};

/// The only request id that is sent to workers.
pub const ID: u16 = 1;

/// Something that the worker said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Some of the answer, never empty.
    Stdout(&'a [u8]),
    /// Words for the log, never empty.
    Stderr(&'a [u8]),
    /// The request is over: the program's status, and the protocol's.
    End(u32, Ending),
}

/// The reader of one connection to a worker.
#[derive(Debug)]
pub struct Back {
    records: Records,
    record: Header,
    asked: bool,
    end: [u8; 8],
    have: usize,
}

impl Default for Back {
    fn default() -> Self {
        let record = Header::new(0, 0, 0);
        Self { records: Records::default(), record, asked: false, end: [0; 8], have: 0 }
    }
}

impl Back {
    /// A request is sent: an answer may come.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// An answer is being waited for.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked
    }

    /// Nothing half said is left: the connection may be used again.
    #[must_use]
    pub fn clean(&self) -> bool {
        !self.asked && self.records.between()
    }

    /// The next event of `input`, which is cut at the front; none: more bytes are needed.
    ///
    /// # Errors
    /// The connection must end.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Broken> {
        while let Some(piece) = self.records.next(input)? {
            match piece {
                Piece::Head(header) => {
                    self.record = header;
                    self.have = 0;
                    self.check()?;
                }
                Piece::Content(bytes) => match self.record.kind {
                    kind::STDOUT => return Ok(Some(Event::Stdout(bytes))),
                    kind::STDERR => return Ok(Some(Event::Stderr(bytes))),
                    kind::END => self.collect(bytes),
                    _ => {}
                },
                Piece::End if self.record.kind == kind::END => {
                    self.asked = false;
                    let [a, b, c, d, ending, ..] = self.end;
                    let status = u32::from_be_bytes([a, b, c, d]);
                    return Ok(Some(Event::End(status, Ending::from_number(ending))));
                }
                Piece::End => {}
            }
        }
        Ok(None)
    }

    fn check(&self) -> Result<(), Broken> {
        let Header { kind, id, content, .. } = self.record;
        match (kind, id) {
            _ if !self.asked => Err(Broken::Unasked),
            (kind::GET_VALUES_RESULT | kind::UNKNOWN_TYPE, 0) => Ok(()),
            (kind::STDOUT | kind::STDERR, ID) => Ok(()),
            (kind::END, ID) if content == 8 => Ok(()),
            (kind::END, ID) => Err(Broken::Length),
            (kind::STDOUT | kind::STDERR | kind::END, _) => Err(Broken::Id),
            _ => Err(Broken::Kind),
        }
    }

    fn collect(&mut self, bytes: &[u8]) {
        for (place, byte) in self.end.iter_mut().skip(self.have).zip(bytes) {
            *place = *byte;
        }
        self.have = self.have.saturating_add(bytes.len());
    }
}
