//! One end of the pair between supervisor and broker: frames of [`super::wire`] with their descriptors.
//!
//! Never waits. What the other side does not read stays in a queue here, in order; a side that lets more than
//! [`QUEUE_MAX`] frames pile up is treated as gone.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::sys::{descriptors, fork};

use super::wire::{FRAME, Message, Nonsense};

/// Frames that may wait. A start with 10,000 sites is 10,000 frames.
pub const QUEUE_MAX: usize = 1 << 18;

/// Why the other side is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It closed its end.
    Gone,
    /// It sent what is not in the contract.
    Nonsense,
    /// It does not read.
    Deaf,
    /// The kernel said no.
    Failed(Errno),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => out.write_str("it closed its end"),
            Self::Nonsense => out.write_str("it sent what the contract does not have"),
            Self::Deaf => out.write_str("it does not read"),
            Self::Failed(errno) => out.write_str(errno.desc()),
        }
    }
}

/// One end of the pair.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    waiting: VecDeque<([u8; FRAME], Vec<Rc<OwnedFd>>)>,
}

impl Channel {
    /// Both ends. Closed at exec.
    ///
    /// # Errors
    /// Of socketpair(2).
    pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
    }

    /// This end.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new() }
    }

    /// Sends, or queues what cannot be sent now.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn send(&mut self, message: &impl Message, with: Vec<Rc<OwnedFd>>) -> Result<(), Lost> {
        if self.waiting.len() >= QUEUE_MAX {
            return Err(Lost::Deaf);
        }
        self.waiting.push_back((message.encode(), with));
        self.flush()
    }

    /// Sends what is queued, as far as the other side reads.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn flush(&mut self) -> Result<(), Lost> {
        while let Some((frame, with)) = self.waiting.front() {
            let with: Vec<BorrowedFd<'_>> = with.iter().map(|one| one.as_fd()).collect();
            match descriptors::send(&self.socket, frame, &with) {
                Ok(()) => drop(self.waiting.pop_front()),
                // ETOOMANYREFS: as many descriptors are on their way as may be.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ETOOMANYREFS) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(Lost::Gone),
                Err(errno) => return Err(Lost::Failed(errno)),
            }
        }
        Ok(())
    }

    /// Closes this end. What the other side sent and nobody read goes with it.
    pub fn let_go(self) {
        fork::outlived(vec![self.socket]);
    }

    /// Something is queued: ask the kernel to say when the socket can be written.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn receive<M: Message>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, Lost> {
        let mut frame = [0; FRAME];
        loop {
            return match descriptors::receive(&self.socket, &mut frame) {
                Err(Errno::ECONNRESET) => Err(Lost::Gone),
                Ok((length, with)) => {
                    match M::decode(frame.get(..length).unwrap_or_default(), with.len()) {
                        Ok(message) => Ok(Some((message, with))),
                        Err(Nonsense) => {
                            // Nobody knows what they are, nor how long it takes to drop them.
                            fork::outlived(with);
                            Err(if length == 0 { Lost::Gone } else { Lost::Nonsense })
                        }
                    }
                }
                Err(Errno::EMSGSIZE) => Err(Lost::Nonsense),
                Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(Lost::Failed(errno)),
            };
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Site, Token, Up};
    use super::*;

    #[test]
    fn messages_arrive_in_order_with_their_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let (mut one, other) = (Channel::new(one), Channel::new(other));
        let file = Rc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        for number in 0..2000 {
            let run = Up::Run { site: Site(number), token: Token(1) };
            one.send(&run, vec![Rc::clone(&file)]).unwrap();
            one.send(&Up::Beat { number: number.into() }, Vec::new()).unwrap();
        }
        assert!(one.is_waiting(), "more than the socket holds");
        for number in 0..2000 {
            one.flush().unwrap();
            let (run, with) = other.receive::<Up>().unwrap().unwrap();
            assert_eq!((run, with.len()), (Up::Run { site: Site(number), token: Token(1) }, 1));
            let (beat, with) = other.receive::<Up>().unwrap().unwrap();
            assert_eq!((beat, with.len()), (Up::Beat { number: number.into() }, 0));
        }
        assert!(other.receive::<Up>().unwrap().is_none());
        drop(one);
        assert_eq!(other.receive::<Up>().unwrap_err(), Lost::Gone);
    }

    #[test]
    fn anything_else_is_nonsense() {
        let (one, other) = Channel::pair().unwrap();
        let other = Channel::new(other);
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = file.as_fd();
        let beat = Up::Beat { number: 1 }.encode();
        let messages: [(&[u8], &[BorrowedFd<'_>]); 6] = [
            (b"x", &[]),
            (&[0; FRAME], &[]),
            (&[0; FRAME + 1], &[]),
            (&beat, &[fd]),
            (&beat, &[fd, fd, fd, fd]),
            (&Up::Run { site: Site(1), token: Token(1) }.encode(), &[]),
        ];
        for (message, with) in messages {
            descriptors::send(&one, message, with).unwrap();
            assert_eq!(other.receive::<Up>().unwrap_err(), Lost::Nonsense);
        }
    }
}
