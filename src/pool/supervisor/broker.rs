//! The other side of the wire: started, heard, and replaced when it ends or is not what it should be.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::descriptors;
use crate::sys::fork::{self, End};

use super::super::channel::{Channel, Lost};
use super::super::life::{Event, Failures};
use super::super::wire::{Down, Site, Up, VERSION};
use super::{BROKER, Process, Supervisor, Timer};

/// Who the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Its uid, which is nobody else's.
    pub uid: u32,
    /// Its gid, which may pass through the directory of workers' sockets.
    pub gid: u32,
}

/// What the supervisor knows of it.
pub(super) struct Broker {
    pub(super) account: Account,
    pid: Option<Pid>,
    channel: Option<Channel>,
    /// The channel is watched for room to write.
    flushing: bool,
    greeted: bool,
    since: Instant,
    failures: Failures,
    /// The number that it was last asked with, and for how many of our own seconds that was not answered. Not a time: where the whole
    /// machine stood still, nobody was late.
    asked: u64,
    waiting: Option<u32>,
}

impl Broker {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            pid: None,
            channel: None,
            flushing: false,
            greeted: false,
            since: Instant::now(),
            failures: Failures::default(),
            asked: 0,
            waiting: None,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.channel.is_some()
    }

    /// True: it was there.
    pub(super) fn let_go(&mut self, epoll: &Epoll) -> bool {
        let Some(channel) = self.channel.take() else { return false };
        let _ = epoll.delete(channel.as_fd());
        channel.let_go();
        true
    }

    /// It is ours until it is reaped, so its number is nobody else's.
    pub(super) fn kill(&self) {
        if let Some(pid) = self.pid {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

impl Supervisor {
    /// Starts a broker and tells it all there is.
    pub(super) fn start_broker(&mut self) {
        if self.broker.pid.is_some() || self.quit_at.is_some() {
            return;
        }
        match self.spawn_broker() {
            Ok((pid, socket)) => {
                self.broker.pid = Some(pid);
                self.broker.channel = Some(Channel::new(socket));
                (self.broker.greeted, self.broker.flushing) = (false, false);
                (self.broker.since, self.broker.waiting) = (Instant::now(), None);
                self.know(pid, Process::Broker);
                self.journal.say("broker", b"", &format!("state=started pid={pid}"));
                self.tell_everything();
            }
            Err(why) => {
                self.journal.say("broker", b"", &format!("state=failed why=\"{why}\""));
                self.retry_broker();
            }
        }
    }

    fn spawn_broker(&mut self) -> std::io::Result<(Pid, OwnedFd)> {
        let (ours, its) = Channel::pair()?;
        let child = self.ourselves("broker").stdin(Stdio::from(its)).spawn()?;
        self.watch(&ours, BROKER, EpollFlags::EPOLLIN)?;
        let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
        Ok((Pid::from_raw(pid), ours))
    }

    fn tell_everything(&mut self) {
        self.welcome_again();
        let all: Vec<Site> = self.pools.keys().copied().collect();
        for site in all {
            self.revive(site);
            self.tell_site(site);
            self.tell_workers(site);
        }
    }

    /// The log, which may be another file now.
    pub(super) fn welcome_again(&mut self) {
        let log = self.journal.sink().unwrap_or_else(|| Rc::clone(&self.null));
        let status = Rc::clone(&self.status);
        self.tell_broker(&Down::Welcome { version: VERSION }, vec![log, status]);
    }

    pub(super) fn tell_broker(&mut self, message: &Down, with: Vec<Rc<OwnedFd>>) {
        let Some(channel) = &mut self.broker.channel else { return };
        match channel.send(message, with) {
            Ok(()) => self.watch_writing(),
            Err(lost) => self.lose_broker(lost),
        }
    }

    fn watch_writing(&mut self) {
        let Some(channel) = &self.broker.channel else { return };
        let waiting = channel.is_waiting();
        if waiting == self.broker.flushing {
            return;
        }
        let flags = if waiting { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        if self.epoll.modify(channel.as_fd(), &mut EpollEvent::new(flags, BROKER)).is_ok() {
            self.broker.flushing = waiting;
        }
    }

    pub(super) fn hear_broker(&mut self, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT)
            && let Some(channel) = &mut self.broker.channel
        {
            match channel.flush() {
                Ok(()) => self.watch_writing(),
                Err(lost) => return self.lose_broker(lost),
            }
        }
        // A fair share: a broker that talks without end does not keep the loop from the rest.
        for _ in 0..SHARE {
            let Some(channel) = &self.broker.channel else { return };
            match channel.receive::<Up>() {
                // It could be anything that some worker gave it.
                Ok(Some((_, with))) if !with.iter().all(descriptors::is_memory) => {
                    fork::outlived(with);
                    return self.lose_broker(Lost::Nonsense);
                }
                Ok(Some((message, with))) => self.obey(message, with),
                Ok(None) => return,
                Err(lost) => return self.lose_broker(lost),
            }
        }
    }

    /// A wish of the broker's. Numbers that mean nothing (any more) are passed over.
    fn obey(&mut self, message: Up, with: Vec<OwnedFd>) {
        let first = !std::mem::replace(&mut self.broker.greeted, true);
        match message {
            Up::Hello { version } if first && version == VERSION => {}
            Up::Hello { .. } => self.lose_broker(Lost::Nonsense),
            _ if first => self.lose_broker(Lost::Nonsense),
            Up::Taken { site, generation } => self.taken(site, generation),
            Up::Want { site, count } => {
                if let Some(pool) = self.pools.get_mut(&site) {
                    pool.wanted = count;
                    self.fill(site);
                }
            }
            Up::Ready { site, worker } => self.worker_ready(site, worker),
            Up::Heir { site, worker } => self.start_heir(site, worker),
            Up::Renew { site, worker, child } => self.renew_child(site, worker, child),
            Up::Retire { site, worker, why } => self.end_worker(site, worker, Event::Retire, why),
            Up::Kill { site, worker, why } => self.end_worker(site, worker, Event::Kill, why),
            Up::Run { site, token } => {
                for environment in with {
                    self.run_program(site, token, environment);
                }
            }
            Up::EndRun { site, token, .. } => self.end_run(site, token),
            Up::Slow { site, worker } => self.tell_where_worker(site, worker),
            Up::SlowRun { site, token } => self.tell_where_run(site, token),
            Up::Disturbs { site } => self.disturbs(site),
            Up::Beat { number } => {
                if number == self.broker.asked {
                    self.broker.waiting = None;
                }
            }
        }
    }

    /// It is no partner any more: the pair is closed, the process killed; the next one starts when it is reaped.
    pub(super) fn lose_broker(&mut self, lost: Lost) {
        if self.broker.let_go(&self.epoll) {
            self.journal.say("broker", b"", &format!("state=lost why=\"{lost}\""));
            self.broker.kill();
            self.end_all_runs();
            self.all_yielded();
        }
    }

    pub(super) fn broker_exited(&mut self, end: End) {
        self.lose_broker(Lost::Gone);
        self.broker.pid = None;
        let how = if end.by_signal { "signal" } else { "status" };
        self.journal.say("broker", b"", &format!("state=ended {how}={}", end.code));
        if self.quit_at.is_some() {
            return self.stop_all();
        }
        self.retry_broker();
    }

    /// At once, unless it keeps ending.
    fn retry_broker(&mut self) {
        if self.broker.since.elapsed() > STEADY {
            self.broker.failures.forget();
        }
        let pause = self.broker.failures.pause();
        self.broker.failures.count();
        if pause.is_zero() { self.start_broker() } else { self.after(pause, Timer::Broker) }
    }

    /// Once a second: is it there? A stuck broker is replaced; a supervisor that gets this far is alive itself.
    pub(super) fn ask_broker(&mut self) {
        if self.manager.watchdog.is_some() {
            self.manager.tell("WATCHDOG=1");
        }
        match self.broker.waiting.map(|seconds| seconds.saturating_add(1)) {
            Some(seconds) if seconds >= STUCK => self.lose_broker(Lost::Deaf),
            Some(seconds) => self.broker.waiting = Some(seconds),
            None if self.broker.is_alive() => {
                self.broker.asked = self.broker.asked.wrapping_add(1);
                self.broker.waiting = Some(0);
                self.tell_broker(&Down::Ask { number: self.broker.asked }, Vec::new());
            }
            None => {}
        }
    }
}

/// Frames that are heard in one round.
const SHARE: usize = 256;
/// A broker that lived so long has not failed to start.
const STEADY: Duration = Duration::from_secs(10);
/// A broker that does not answer for so many seconds is stuck.
const STUCK: u32 = 15;
