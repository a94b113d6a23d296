//! Records: the eight bytes before each, and a stream of bytes taken apart into them. Pure.

use super::{Broken, Ending, Role};

/// Bytes of a header.
pub const HEADER: usize = 8;
/// Most bytes of content in one record. With padding it must stay below this sum for php-cgi, so none is sent.
pub const CONTENT_MAX: usize = 65_535;

/// Record types (FastCGI 1.0, 8).
pub mod kind {
    /// A request begins.
    pub const BEGIN: u8 = 1;
    /// The web server wants no answer any more.
    pub const ABORT: u8 = 2;
    /// A request is over.
    pub const END: u8 = 3;
    /// Parameters.
    pub const PARAMS: u8 = 4;
    /// The request's body.
    pub const STDIN: u8 = 5;
    /// The answer.
    pub const STDOUT: u8 = 6;
    /// Words for the log.
    pub const STDERR: u8 = 7;
    /// The filter role's second body.
    pub const DATA: u8 = 8;
    /// What can you do?
    pub const GET_VALUES: u8 = 9;
    /// This I can do.
    pub const GET_VALUES_RESULT: u8 = 10;
    /// This I do not know.
    pub const UNKNOWN_TYPE: u8 = 11;
}

/// The eight bytes before a record's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// One of [`kind`], or unknown.
    pub kind: u8,
    /// The request; 0: about the connection.
    pub id: u16,
    /// Bytes of content.
    pub content: u16,
    /// Bytes to skip after it.
    pub padding: u8,
}

impl Header {
    /// A header without padding.
    #[must_use]
    pub fn new(kind: u8, id: u16, content: u16) -> Self {
        Self { kind, id, content, padding: 0 }
    }

    /// # Errors
    /// [`Broken::Version`].
    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, Broken> {
        let [1, kind, i, d, c, l, padding, _] = bytes else { return Err(Broken::Version) };
        Ok(Self { kind, id: u16::from_be_bytes([i, d]), content: u16::from_be_bytes([c, l]), padding })
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER] {
        let ([i, d], [c, l]) = (self.id.to_be_bytes(), self.content.to_be_bytes());
        [1, self.kind, i, d, c, l, self.padding, 0]
    }
}

/// A part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A record begins.
    Head(Header),
    /// Some of its content, never empty.
    Content(&'a [u8]),
    /// Its content is complete. Padding may still follow, and is skipped.
    End,
}

/// Takes a stream apart. Holds at most a header.
#[derive(Debug, Default)]
pub struct Records {
    head: [u8; HEADER],
    have: usize,
    content: u16,
    padding: u8,
    inside: bool,
}

impl Records {
    /// The next piece of `input`, which is cut at the front; none: more bytes are needed.
    ///
    /// # Errors
    /// [`Broken::Version`].
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Broken> {
        if self.inside {
            return Ok(self.content(input));
        }
        let padding = take(input, self.padding.into()).len();
        self.padding = self.padding.saturating_sub(u8::try_from(padding).unwrap_or(u8::MAX));
        if self.padding > 0 {
            return Ok(None);
        }
        let Some(head) = self.head(input) else { return Ok(None) };
        let header = Header::decode(head)?;
        (self.have, self.content, self.padding, self.inside) = (0, header.content, header.padding, true);
        Ok(Some(Piece::Head(header)))
    }

    /// The next header, which lies in one piece but for where a read ended.
    fn head(&mut self, input: &mut &[u8]) -> Option<[u8; HEADER]> {
        if self.have == 0
            && let Some((head, rest)) = input.split_first_chunk()
        {
            *input = rest;
            return Some(*head);
        }
        let more = take(input, HEADER.saturating_sub(self.have));
        for (place, byte) in self.head.iter_mut().skip(self.have).zip(more) {
            *place = *byte;
        }
        self.have = self.have.saturating_add(more.len());
        (self.have == HEADER).then_some(self.head)
    }

    /// Not in the middle of a record, and not in its padding.
    #[must_use]
    pub fn between(&self) -> bool {
        !self.inside && self.have == 0 && self.padding == 0
    }

    fn content<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        if self.content == 0 {
            self.inside = false;
            return Some(Piece::End);
        }
        let some = take(input, self.content.into());
        self.content = self.content.saturating_sub(u16::try_from(some.len()).unwrap_or(u16::MAX));
        (!some.is_empty()).then_some(Piece::Content(some))
    }
}

/// Cuts at most `most` bytes off the front.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (some, rest) = input.split_at_checked(most).unwrap_or((input, &[]));
    *input = rest;
    some
}

/// Appends records to `out`, as many as `content` needs. An empty content is one empty record: the stream's end.
pub fn put(out: &mut Vec<u8>, kind: u8, id: u16, content: &[u8]) {
    if content.is_empty() {
        out.extend_from_slice(&Header::new(kind, id, 0).encode());
    }
    for part in content.chunks(CONTENT_MAX) {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&Header::new(kind, id, length).encode());
        out.extend_from_slice(part);
    }
}

/// Appends BEGIN_REQUEST.
pub fn put_begin(out: &mut Vec<u8>, id: u16, role: Role, keep: bool) {
    put(out, kind::BEGIN, id, &[0, role.number(), u8::from(keep), 0, 0, 0, 0, 0]);
}

/// Appends END_REQUEST. `status`: the program's own, as it would exit.
pub fn put_end(out: &mut Vec<u8>, id: u16, status: u32, ending: Ending) {
    let [a, b, c, d] = status.to_be_bytes();
    put(out, kind::END, id, &[a, b, c, d, ending.number(), 0, 0, 0]);
}
