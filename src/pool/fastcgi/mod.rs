//! FastCGI 1.0 as a pure codec: bytes in, events out, and back. No I/O, no clock. Fuzzed.
//!
//! [`front`] reads what web servers send, [`back`] what workers answer; both are hostile. Bytes may arrive in any
//! fragments. Nothing is allocated because a header claims it: only what has arrived is kept, up to a limit. A stream
//! that breaks a rule is [`Broken`], which ends its connection and nothing else.
//!
//! May not: know sites, sockets or which parameters are good.

pub mod back;
pub mod front;
pub mod pairs;
pub mod record;

use std::fmt;

/// Which rule a stream broke. The connection ends; there is nothing to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A record of another protocol version than 1.
    Version,
    /// A record with a body of a length that its type cannot have.
    Length,
    /// A record that may not come now: STDIN before the parameters' end, PARAMS after it, a second BEGIN.
    Order,
    /// A record type that only the other side may send, or that nobody knows.
    Kind,
    /// A request id that nobody asked for.
    Id,
    /// A name-value pair that is longer than what holds it.
    Pair,
    /// Bytes from a worker that has nothing to answer.
    Unasked,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Version => "a record of an unknown protocol version",
            Self::Length => "a record of an impossible length",
            Self::Order => "a record at the wrong time",
            Self::Kind => "a record of the wrong type",
            Self::Id => "a record of another request",
            Self::Pair => "a name-value pair beyond its end",
            Self::Unasked => "an answer that nobody asked for",
        })
    }
}

/// What the program is to the web server (FastCGI 1.0, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers a request.
    Responder,
    /// Says whether a request may go on; gets no body.
    Authorizer,
}

impl Role {
    /// The number in BEGIN_REQUEST. The filter role (3) is not offered.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Responder),
            2 => Some(Self::Authorizer),
            _ => None,
        }
    }

    /// The number in BEGIN_REQUEST.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Responder => 1,
            Self::Authorizer => 2,
        }
    }
}

/// How a request ended for the protocol (FastCGI 1.0, 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Complete,
    /// A second request on a busy connection.
    CannotMultiplex,
    /// No room. Most web servers make a 502 of it, so it is never sent; workers may.
    Overloaded,
    /// A role that is not offered.
    UnknownRole,
}

impl Ending {
    /// The number in END_REQUEST.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::CannotMultiplex => 1,
            Self::Overloaded => 2,
            Self::UnknownRole => 3,
        }
    }

    /// What a worker said; all that is unknown counts as overloaded.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Complete,
            1 => Self::CannotMultiplex,
            3 => Self::UnknownRole,
            _ => Self::Overloaded,
        }
    }
}

#[cfg(test)]
mod tests;
