//! What a web server sends: requests one after another on one connection. Pure.
//!
//! Everything legal is taken: any id, pairs over borders of records, any padding, kept connections or not. Only one
//! request at a time is served; a second is told so, and the first goes on (FastCGI 1.0, 5.5).

use super::pairs::{self, Pairs};
use super::record::{Header, Piece, Records, kind, put, put_end};
use super::{Broken, Ending, Role};

/// Something that the web server wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// All parameters are here: [`Front::params`], [`Front::request`].
    Request,
    /// More parameters than are kept: to be refused. Those that follow are skipped.
    TooLarge,
    /// Some of the body, never empty.
    Body(&'a [u8]),
    /// The body is complete.
    BodyEnd,
    /// No answer is wanted any more.
    Abort,
    /// To be answered as it is, at once.
    Reply(Reply),
}

/// What the protocol itself answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// GET_VALUES: which of FCGI_MAX_CONNS, FCGI_MAX_REQS and FCGI_MPXS_CONNS were asked for.
    Values([bool; 3]),
    /// A record about the connection of a type that is not known.
    UnknownType(u8),
    /// This request is not served.
    End(u16, Ending),
}

impl Reply {
    /// Appends it. `most`: how many connections the web server may make.
    pub fn put(self, out: &mut Vec<u8>, most: u32) {
        match self {
            Self::Values(asked) => {
                let most = most.to_string();
                let values = [most.as_bytes(), most.as_bytes(), b"0"];
                let mut content = Vec::new();
                for ((name, value), asked) in NAMES.iter().zip(values).zip(asked) {
                    if asked {
                        pairs::put(&mut content, name, value);
                    }
                }
                put(out, kind::GET_VALUES_RESULT, 0, &content);
            }
            Self::UnknownType(number) => put(out, kind::UNKNOWN_TYPE, 0, &[number, 0, 0, 0, 0, 0, 0, 0]),
            Self::End(id, ending) => put_end(out, id, 0, ending),
        }
    }
}

/// What BEGIN_REQUEST said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The web server's number for it.
    pub id: u16,
    /// What is asked of the program.
    pub role: Role,
    /// The web server keeps the connection after the answer.
    pub keep: bool,
}

/// The reader of one connection.
#[derive(Debug)]
pub struct Front {
    records: Records,
    record: Header,
    phase: Phase,
    begin: Begin,
    params: Vec<u8>,
    params_max: usize,
    /// The content of a small record.
    small: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No request.
    Idle,
    /// Parameters are arriving.
    Params,
    /// Too many did, or the request is answered: its rest is skipped, and the next one may begin in its place.
    Skip,
    /// The body is arriving.
    Body,
    /// All has arrived.
    Whole,
}

impl Front {
    /// `params_max`: most bytes of parameters of a request.
    #[must_use]
    pub fn new(params_max: usize) -> Self {
        Self {
            records: Records::default(),
            record: Header::new(0, 0, 0),
            phase: Phase::Idle,
            begin: Begin { id: 0, role: Role::Responder, keep: false },
            params: Vec::new(),
            params_max,
            small: Vec::new(),
        }
    }

    /// The next event of `input`, which is cut at the front; none: more bytes are needed.
    ///
    /// # Errors
    /// The connection must end.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Broken> {
        while let Some(piece) = self.records.next(input)? {
            let event = match piece {
                Piece::Head(header) => {
                    self.record = header;
                    self.small.clear();
                    self.check()?;
                    None
                }
                Piece::Content(bytes) => self.content(bytes),
                Piece::End => self.end()?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// The request that is being served or read.
    #[must_use]
    pub fn request(&self) -> Begin {
        self.begin
    }

    /// Its parameters, raw.
    #[must_use]
    pub fn params(&self) -> &[u8] {
        &self.params
    }

    /// The parameters are not needed any more.
    pub fn forget_params(&mut self) {
        self.params = Vec::new();
    }

    /// Is a request being served or read?
    #[must_use]
    pub fn active(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// Neither a request nor the beginning of a record is here.
    #[must_use]
    pub fn silent(&self) -> bool {
        self.phase == Phase::Idle && self.records.between()
    }

    /// Has all of the request arrived?
    #[must_use]
    pub fn whole(&self) -> bool {
        self.phase == Phase::Whole
    }

    /// The answer is complete; the next request may come. What is left of this one is skipped.
    pub fn finish(&mut self) {
        self.phase = Phase::Idle;
    }

    /// The answer is complete, and not all of the request has arrived. Some servers send the rest, others (Apache) the next
    /// request at once, whose number is the same.
    pub fn skip(&mut self) {
        self.phase = Phase::Skip;
    }

    /// The parameters of a request are arriving.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.phase == Phase::Params
    }

    /// The web server has taken it back: nothing more of it is to come.
    pub fn take_back(&mut self) {
        self.phase = Phase::Whole;
    }

    fn mine(&self) -> bool {
        self.phase != Phase::Idle && self.record.id == self.begin.id
    }

    /// May this record come now? Its length is known before its content.
    fn check(&self) -> Result<(), Broken> {
        let Header { kind, id, content, .. } = self.record;
        match (kind, id) {
            (kind::GET_VALUES, 0) if usize::from(content) > SMALL => Err(Broken::Length),
            (_, 0) if content > 0 && (kind::BEGIN..=kind::STDERR).contains(&kind) => Err(Broken::Id),
            (_, 0) => Ok(()),
            (kind::BEGIN, _) if content != 8 => Err(Broken::Length),
            (kind::BEGIN, _) if self.mine() && self.phase != Phase::Skip => Err(Broken::Order),
            (kind::BEGIN | kind::ABORT | kind::DATA, _) => Ok(()),
            (kind::PARAMS, _) if self.mine() && !matches!(self.phase, Phase::Params | Phase::Skip) => {
                Err(Broken::Order)
            }
            (kind::STDIN, _) if self.mine() => match self.phase {
                Phase::Body | Phase::Skip => Ok(()),
                // Some servers close the body of an authorizer, which has none.
                Phase::Whole if content == 0 && self.begin.role == Role::Authorizer => Ok(()),
                Phase::Idle | Phase::Params | Phase::Whole => Err(Broken::Order),
            },
            (kind::PARAMS | kind::STDIN, _) => Ok(()),
            _ => Err(Broken::Kind),
        }
    }

    fn content<'a>(&mut self, bytes: &'a [u8]) -> Option<Event<'a>> {
        match (self.record.kind, self.record.id) {
            (kind::GET_VALUES, 0) => self.small.extend_from_slice(bytes),
            (kind::BEGIN, _) => self.small.extend_from_slice(bytes),
            (kind::PARAMS, _) if self.mine() && self.phase == Phase::Params => {
                if self.params.len().saturating_add(bytes.len()) > self.params_max {
                    self.phase = Phase::Skip;
                    self.params = Vec::new();
                    return Some(Event::TooLarge);
                }
                self.params.extend_from_slice(bytes);
            }
            (kind::STDIN, _) if self.mine() && self.phase == Phase::Body => return Some(Event::Body(bytes)),
            _ => {}
        }
        None
    }

    fn end(&mut self) -> Result<Option<Event<'static>>, Broken> {
        let Header { kind, id, content, .. } = self.record;
        let event = match (kind, id) {
            (kind::GET_VALUES, 0) => Some(Event::Reply(Reply::Values(asked(&self.small)?))),
            (_, 0) => Some(Event::Reply(Reply::UnknownType(kind))),
            (kind::BEGIN, _) => self.begin(),
            (kind::ABORT, _) if self.mine() => Some(Event::Abort),
            (kind::PARAMS, _) if content == 0 && self.mine() => self.params_end(),
            (kind::STDIN, _) if content == 0 && self.mine() && self.phase != Phase::Whole => {
                self.phase = Phase::Whole;
                Some(Event::BodyEnd)
            }
            _ => None,
        };
        Ok(event)
    }

    fn params_end(&mut self) -> Option<Event<'static>> {
        match (self.phase, self.begin.role) {
            (Phase::Params, Role::Responder) => self.phase = Phase::Body,
            (Phase::Params, Role::Authorizer) => self.phase = Phase::Whole,
            // Of one that is refused already only its end counts.
            (Phase::Skip, Role::Authorizer) => {
                self.phase = Phase::Whole;
                return Some(Event::BodyEnd);
            }
            _ => return None,
        }
        Some(Event::Request)
    }

    fn begin(&mut self) -> Option<Event<'static>> {
        let id = self.record.id;
        let &[role, number, flags, ..] = self.small.as_slice() else { return None };
        if !matches!(self.phase, Phase::Idle | Phase::Skip) {
            return Some(Event::Reply(Reply::End(id, Ending::CannotMultiplex)));
        }
        let Some(role) = Role::from_number(u16::from_be_bytes([role, number])) else {
            return Some(Event::Reply(Reply::End(id, Ending::UnknownRole)));
        };
        self.begin = Begin { id, role, keep: flags & 1 == 1 };
        self.phase = Phase::Params;
        self.params.clear();
        None
    }
}

fn asked(content: &[u8]) -> Result<[bool; 3], Broken> {
    let mut asked = [false; 3];
    for pair in Pairs(content) {
        let (name, _) = pair?;
        for (asked, known) in asked.iter_mut().zip(NAMES) {
            *asked |= name == known;
        }
    }
    Ok(asked)
}

const NAMES: [&[u8]; 3] = [b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS"];
/// Most bytes of a GET_VALUES record; the three names that exist need 50.
const SMALL: usize = 1024;
