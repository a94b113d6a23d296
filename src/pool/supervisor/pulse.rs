//! The process that makes the kernel look more often at who is to run: started when it is needed for the first time, told each
//! second that it still is, and gone with the pipe that it is told through.

use std::io::{PipeWriter, Write as _, pipe};
use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::fork::End;
use crate::sys::schedule::tick_us;

use super::{Process, Supervisor};

/// What the supervisor knows of it.
pub(super) enum Pulse {
    /// It was not needed so far, or has ended.
    Off,
    On(Pid, PipeWriter),
    /// It is of no use here, or cannot be had.
    Never,
}

impl Pulse {
    pub(super) fn new() -> Self {
        // A kernel that looks often enough by itself.
        if Duration::from_micros(tick_us()) <= OFTEN { Self::Never } else { Self::Off }
    }

    /// It is ours until it is reaped, so its number is nobody else's.
    pub(super) fn kill(&self) {
        if let Self::On(pid, _) = self {
            let _ = kill(*pid, Signal::SIGKILL);
        }
    }
}

impl Supervisor {
    /// Some site computes, and others are asked in between.
    pub(super) fn pulse(&mut self) {
        if matches!(self.pulse, Pulse::Off)
            && self.quit_at.is_none()
            && let Err(why) = self.start_pulse()
        {
            self.no_pulse(&format!("why=\"{why}\""));
        }
        if let Pulse::On(_, orders) = &mut self.pulse {
            // Full: it was told often enough. Closed: its end is heard of elsewhere.
            let _ = orders.write(b".");
        }
    }

    fn start_pulse(&mut self) -> std::io::Result<()> {
        let (its, ours) = pipe()?;
        fcntl(ours.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let child = self.ourselves("pulse").stdin(Stdio::from(its)).spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
        self.know(pid, Process::Pulse);
        self.pulse = Pulse::On(pid, ours);
        self.journal.say("pulse", b"", &format!("state=started pid={pid}"));
        Ok(())
    }

    /// One that was killed is started again when it is needed; one that ended by itself said why, and would again.
    pub(super) fn pulse_exited(&mut self, end: End) {
        self.pulse = Pulse::Off;
        if end.by_signal {
            self.journal.say("pulse", b"", &format!("state=ended signal={}", end.code));
        } else if self.quit_at.is_none() {
            self.no_pulse(&format!("status={}", end.code));
        }
    }

    fn no_pulse(&mut self, how: &str) {
        self.pulse = Pulse::Never;
        self.journal.say("pulse", b"", &format!("state=absent {how} see=\"cellwalld(8), PULSE\""));
    }
}

/// A tick that is short enough for everybody.
const OFTEN: Duration = Duration::from_millis(1);
