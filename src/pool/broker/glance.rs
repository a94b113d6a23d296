//! Reading a short answer without waking the program that wrote it.
//!
//! Who has answered waits in read(2) for the next request. When the answer leaves the kernel's queue, its writer is told that there is
//! room (`unix_write_space` in net/unix/af_unix.c), and that wakes whoever waits at his socket, for whatever he waits: a fifth of a
//! busy broker's time went there, and each of these programs ran twice for each request. So a short answer is only looked at
//! (`MSG_PEEK`, recv(2)), and taken out of the queue when the next request is written, which has woken the program anyway.

use std::os::fd::{AsFd, AsRawFd as _};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::read;

/// What of a connection was seen already, and is still in the kernel's queue.
#[derive(Debug)]
pub(super) struct Glance {
    left: usize,
    /// The last answer was short: the next one may be.
    brief: bool,
}

impl Default for Glance {
    fn default() -> Self {
        Self { left: 0, brief: true }
    }
}

impl Glance {
    /// A look at what is there behind what was seen. None: it is not short, or was not the last time.
    ///
    /// # Errors
    /// Of recv(2).
    pub(super) fn look(&mut self, socket: impl AsFd, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        self.take(&socket);
        let Some(buffer) = buffer.get_mut(..SHORT).filter(|_| self.brief) else { return Ok(None) };
        let length = recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?;
        if length == SHORT {
            return Ok(None);
        }
        self.left = length;
        Ok(Some(length))
    }

    /// So much was read where a look was not enough.
    pub(super) fn came(&mut self, length: usize) {
        self.brief = length < SHORT;
    }

    /// Takes what was seen out of the queue. Where that fails the connection has ended, which the next read tells.
    pub(super) fn take(&mut self, socket: impl AsFd) {
        if self.left == 0 {
            return;
        }
        let mut scrap = [0; SHORT];
        while let Some(scrap) = scrap.get_mut(..self.left).filter(|scrap| !scrap.is_empty()) {
            match read(&socket, scrap) {
                Ok(0) | Err(_) => self.left = 0,
                Ok(length) => self.left = self.left.saturating_sub(length),
            }
        }
    }
}

/// Most bytes of an answer that is short. One that is copied twice costs less than a program that is woken in vain.
const SHORT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_seen_comes_once_and_is_taken_when_asked_for() {
        let (mut program, socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut glance, mut buffer) = (Glance::default(), vec![0; 2 * SHORT]);
        program.write_all(b"one").unwrap();
        assert_eq!(glance.look(&socket, &mut buffer), Ok(Some(3)));
        assert_eq!(&buffer[..3], b"one");
        // The rest of it, before anybody has taken the first part.
        program.write_all(b"two!").unwrap();
        assert_eq!(glance.look(&socket, &mut buffer), Ok(Some(4)));
        assert_eq!(&buffer[..4], b"two!");
        assert_eq!(glance.look(&socket, &mut buffer), Err(Errno::EAGAIN));
        program.write_all(b"three").unwrap();
        assert_eq!(glance.look(&socket, &mut buffer), Ok(Some(5)));
        glance.take(&socket);
        assert_eq!((&socket).read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        drop(program);
        assert_eq!(glance.look(&socket, &mut buffer), Ok(Some(0)), "its end");
    }

    #[test]
    fn a_long_answer_is_read_at_once_until_one_is_short_again() {
        let (mut program, socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut glance, mut buffer) = (Glance::default(), vec![0; 2 * SHORT]);
        program.write_all(&vec![7; SHORT]).unwrap();
        assert_eq!(glance.look(&socket, &mut buffer), Ok(None));
        glance.came(read(&socket, &mut buffer).unwrap());
        program.write_all(b"short").unwrap();
        assert_eq!(glance.look(&socket, &mut buffer), Ok(None), "the last one was long");
        glance.came(read(&socket, &mut buffer).unwrap());
        program.write_all(b"short").unwrap();
        assert_eq!(glance.look(&socket, &mut buffer), Ok(Some(5)));
    }
}
