//! Watching for a while: until time is up, or Ctrl-C, after which there is something left to do.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The end of a watch.
#[derive(Debug)]
pub struct Until {
    end: Option<Instant>,
    signals: SignalFd,
}

impl Until {
    /// Ctrl-C and `kill` end the watch from here on, and not the process.
    ///
    /// # Errors
    /// Of signalfd(2).
    pub fn new(time: Option<Duration>) -> Result<Self, Errno> {
        let mut mask = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| mask.add(signal));
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { end: time.map(|time| Instant::now() + time), signals })
    }

    /// Waits until `other` has something, for `pause` at most. False: the watch is over.
    ///
    /// # Errors
    /// Of poll(2).
    pub fn goes_on(&self, other: Option<BorrowedFd<'_>>, pause: Duration) -> Result<bool, Errno> {
        let left = self.end.map_or(pause, |end| end.saturating_duration_since(Instant::now()).min(pause));
        let mut all = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        all.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut all, wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let told = all.first().and_then(PollFd::any).unwrap_or(false);
        Ok(!told && self.end.is_none_or(|end| Instant::now() < end))
    }
}
