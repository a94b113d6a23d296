//! CGI programs: one for each request, started by the site's zygotes.
//!
//! An order that a zygote has not taken is still in its socket, of which both ends are held here: when the zygote ends, another
//! one gets it. One that was taken is never given again.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{getpid, pipe2};

use crate::sys::descriptors;
use crate::sys::fork::{End, Side, leave};

use super::super::channel::Channel;
use super::super::listen::set_blocking;
use super::super::outlook::Outlook;
use super::super::settings::{self, Kind};
use super::super::tree::{Census, Tree};
use super::super::wire::{Busy, Down, Ended, Site, Token};
use super::super::zygote::{Birth, How, Report, hatch};
use super::pools::memory_file;
use super::workers::{errno, is_too_late};
use super::{Process, Supervisor, Timer, ZYGOTES};

/// A program that runs, or waits for its zygote.
pub(super) struct Run {
    pub(super) site: Site,
    pub(super) zygote: Serial,
    /// Before its zygote had heard of it: no clock of that one's is ahead of this one.
    pub(super) since: Instant,
    /// What its zygote's tree had used before, in microseconds.
    pub(super) cpu_us: u64,
    told: bool,
    /// So many zygotes have ended before they took it.
    spurned: u32,
}

/// A zygote's serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serial(pub(super) u32);

/// A process that starts programs in a site's cell.
pub(super) struct Zygote {
    pub(super) site: Site,
    pub(super) tree: Tree,
    /// What the host was when it entered the cell. None: nothing to rely on.
    outlook: Option<Rc<Outlook>>,
    epoch: u32,
    channel: OwnedFd,
    /// Its own end.
    other: OwnedFd,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle(Instant),
    Busy(Token),
    /// It was told to end.
    Leaving,
}

type Order = [OwnedFd; 4];

impl Zygote {
    /// What it is busy with.
    pub(super) fn token(&self) -> Option<Token> {
        if let State::Busy(token) = self.state { Some(token) } else { None }
    }
}

impl Supervisor {
    /// The broker wants a request's program run; `environment` is not looked at here.
    pub(super) fn run_program(&mut self, site: Site, token: Token, environment: OwnedFd) {
        if self.runs.contains_key(&token) {
            return;
        }
        let answer = match self.start_run(site, token, environment) {
            Ok(ends) => (Down::Started { token, site }, ends),
            Err(why) => (Down::NotStarted { token, site, why }, Vec::new()),
        };
        self.tell_broker(&answer.0, answer.1);
    }

    fn start_run(
        &mut self,
        site: Site,
        token: Token,
        environment: OwnedFd,
    ) -> Result<Vec<Rc<OwnedFd>>, Busy> {
        let pool = self.pools.get(&site).filter(|pool| pool.kind == Kind::Cgi && !pool.paused);
        let pool = pool.filter(|_| !self.is_ending()).ok_or(Busy::Stopped)?;
        let is_busy =
            |serial: &&Serial| self.zygotes.get(serial).is_some_and(|zygote| zygote.token().is_some());
        let running = pool.zygotes.iter().filter(is_busy).count();
        if u32::try_from(running).map_or(true, |running| running >= pool.numbers.max) {
            return Err(Busy::Full);
        }
        let exhausted = |_: Errno| Busy::Exhausted;
        let (input, input_in) = pipe2(OFlag::O_CLOEXEC).map_err(exhausted)?;
        let (output, output_in) = pipe2(OFlag::O_CLOEXEC).map_err(exhausted)?;
        let (errors, errors_in) = pipe2(OFlag::O_CLOEXEC).map_err(exhausted)?;
        for ours in [&input_in, &output, &errors] {
            set_blocking(ours, false).map_err(exhausted)?;
        }
        self.give(site, token, &[environment, input, output_in, errors_in], 0)?;
        Ok([input_in, output, errors].map(Rc::new).to_vec())
    }

    /// Gives an order to a zygote that has nothing to do, or to a new one.
    fn give(&mut self, site: Site, token: Token, order: &Order, spurned: u32) -> Result<(), Busy> {
        let since = Instant::now();
        let serial = match self.idle_zygote(site) {
            Some(serial) => serial,
            None => self.start_zygote(site).map_err(|_| Busy::Exhausted)?,
        };
        let pool = self.pools.get(&site);
        let metered = pool.is_some_and(|pool| pool.metered);
        let zygotes = pool.map_or(0, |pool| pool.zygotes.len());
        let zygotes = [u8::try_from(zygotes).unwrap_or(u8::MAX)];
        let Some(zygote) = self.zygotes.get_mut(&serial) else { return Err(Busy::Exhausted) };
        let order: Vec<_> = order.iter().map(OwnedFd::as_fd).collect();
        descriptors::send(&zygote.channel, &zygotes, &order).map_err(|_| Busy::Exhausted)?;
        zygote.state = State::Busy(token);
        let census = if metered && zygote.tree.is_marked() { Census::now() } else { Census::default() };
        let cpu_us = if metered { zygote.tree.usage(&census).cpu_us } else { 0 };
        let run = Run { site, zygote: serial, since, cpu_us, told: false, spurned };
        self.runs.insert(token, run);
        Ok(())
    }

    /// The last one that had something to do; those that were started under another outlook are let go.
    fn idle_zygote(&mut self, site: Site) -> Option<Serial> {
        let pool = self.pools.get_mut(&site)?;
        if !pool.outlook.as_ref().is_some_and(|outlook| outlook.holds()) {
            pool.outlook = None;
        }
        let (epoch, outlook) = (pool.epoch, pool.outlook.clone());
        let is_good = |zygote: &Zygote| {
            let same = zygote.outlook.iter().zip(&outlook).any(|(one, other)| Rc::ptr_eq(one, other));
            same && zygote.epoch == epoch
        };
        let mut idle: Vec<(Instant, Serial, bool)> = Vec::new();
        for serial in &pool.zygotes {
            if let Some(zygote) = self.zygotes.get(serial)
                && let State::Idle(since) = zygote.state
            {
                idle.push((since, *serial, is_good(zygote)));
            }
        }
        idle.iter().filter(|(.., good)| !good).for_each(|(_, serial, _)| self.dismiss(*serial));
        idle.into_iter().filter(|(.., good)| *good).max().map(|(_, serial, _)| serial)
    }

    fn start_zygote(&mut self, site: Site) -> Result<Serial, Errno> {
        let Some(pool) = self.pools.get_mut(&site) else { return Err(Errno::ESRCH) };
        let record = Rc::clone(&pool.record);
        let settings = settings::settings(&record).map_err(|_| Errno::EBADMSG)?;
        if pool.outlook.is_none() {
            pool.outlook = Outlook::of(pool.uid, &pool.name).map(Rc::new);
        }
        let (uid, epoch, outlook) = (pool.uid, pool.epoch, pool.outlook.clone());
        let file = memory_file(&record)?;
        let (channel, other) = Channel::pair()?;
        let serial = Serial(self.last_zygote.wrapping_add(1));
        self.watch(&channel, ZYGOTES | u64::from(serial.0), EpollFlags::EPOLLIN).map_err(errno)?;
        let above = Path::new(OsStr::from_bytes(settings.group_directory));
        let Ok(ground) = self.grove.run(above) else { return Err(self.refuse_taken(site)) };
        let (enter, prepared) = ground.to_enter().unwrap_or((Path::new(""), false));
        let tree = enter.as_os_str().as_bytes().to_vec();
        let birth = Birth { uid, daemon: getpid(), tree, prepared };
        let (Side::Parent(pid), Some(tree)) = self.grove.plant(ground)? else {
            // The child has no log: its end is told of as that of the program it was to start.
            let _ = hatch(&birth, settings.name, &other, &file);
            leave(1)
        };
        self.last_zygote = serial.0;
        if let Some(pool) = self.pools.get_mut(&site) {
            pool.zygotes.push(serial);
        }
        let state = State::Idle(Instant::now());
        self.zygotes.insert(serial, Zygote { site, tree, outlook, epoch, channel, other, state });
        self.know(pid, Process::Zygote(serial));
        Ok(serial)
    }

    /// Ends one that has nothing to do.
    fn dismiss(&mut self, serial: Serial) {
        if let Some(zygote) = self.zygotes.get_mut(&serial) {
            zygote.state = State::Leaving;
            let _ = kill(zygote.tree.pid(), Signal::SIGKILL);
        }
    }

    /// Once a second: those that nobody needs any more.
    pub(super) fn dismiss_idle(&mut self) {
        let needed = |site: Site, epoch: u32, since: Instant| {
            self.pools.get(&site).is_some_and(|pool| {
                let most = Duration::from_millis(pool.numbers.idle_ms.into());
                !pool.paused && pool.epoch == epoch && since.elapsed() <= most
            })
        };
        let mut all: Vec<Serial> = Vec::new();
        for (serial, zygote) in &self.zygotes {
            let goes = match zygote.state {
                State::Idle(since) => !needed(zygote.site, zygote.epoch, since),
                State::Busy(_) => false,
                // It was told before, and has not heard.
                State::Leaving => true,
            };
            if goes {
                all.push(*serial);
            }
        }
        all.into_iter().for_each(|serial| self.dismiss(serial));
    }

    /// A zygote says how its program has ended.
    pub(super) fn hear_zygote(&mut self, serial: Serial) {
        let Some(zygote) = self.zygotes.get_mut(&serial) else { return };
        let mut frame = [0; 4];
        let report = match descriptors::receive(&zygote.channel, &mut frame) {
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Ok((length, with)) if with.is_empty() => Report::decode(frame.get(..length).unwrap_or_default()),
            _ => None,
        };
        let State::Busy(token) = zygote.state else { return self.dismiss(serial) };
        let Some(Report { how, code, rest }) = report else { return zygote.tree.destroy() };
        zygote.state = State::Idle(Instant::now());
        if rest {
            zygote.state = State::Leaving;
            zygote.tree.destroy();
        }
        let how = match how {
            How::Exited => Ended::Exited,
            How::Signalled => Ended::Signalled,
            How::Refused => Ended::Refused,
        };
        self.run_ended(token, how, code.into());
    }

    fn run_ended(&mut self, token: Token, how: Ended, code: u32) {
        let Some(run) = self.runs.remove(&token) else { return };
        if run.told
            && let Some(zygote) = self.zygotes.get_mut(&run.zygote)
        {
            zygote.state = State::Leaving;
        }
        let how = if run.told && how != Ended::Refused { Ended::Stopped } else { how };
        self.tell_broker(&Down::RunEnded { token, site: run.site, how, code }, Vec::new());
    }

    /// The broker wants a run ended.
    pub(super) fn end_run(&mut self, site: Site, token: Token) {
        if let Some(run) = self.runs.get_mut(&token).filter(|run| run.site == site) {
            run.told = true;
            self.run_timer(token);
        }
    }

    /// A site is stopped: its programs are asked to end, and have as long for it as its workers would. Zygotes without one are let
    /// go by [`Supervisor::dismiss_idle`].
    pub(super) fn stop_runs(&mut self, site: Site) {
        let grace = self.pools.get(&site).map_or(0, |pool| pool.life.grace_ms);
        let mut asked = Vec::new();
        for (token, run) in self.runs.iter_mut().filter(|(_, run)| run.site == site && !run.told) {
            run.told = true;
            if let Some(zygote) = self.zygotes.get(&run.zygote) {
                zygote.tree.ask_children();
            }
            asked.push(*token);
        }
        for token in asked {
            self.after(Duration::from_millis(grace.into()), Timer::Run(token));
        }
    }

    pub(super) fn run_timer(&mut self, token: Token) {
        let Some(run) = self.runs.get(&token).filter(|run| run.told) else { return };
        if let Some(zygote) = self.zygotes.get(&run.zygote) {
            zygote.tree.destroy();
            self.after(AGAIN, Timer::Run(token));
        }
    }

    pub(super) fn zygote_exited(&mut self, serial: Serial, end: End) {
        // Its last word.
        self.hear_zygote(serial);
        let Some(zygote) = self.zygotes.remove(&serial) else { return };
        let Zygote { site, tree, other, state, .. } = zygote;
        if let Some(pool) = self.pools.get_mut(&site) {
            pool.zygotes.retain(|known| *known != serial);
        }
        self.bury(tree);
        let State::Busy(token) = state else { return };
        if self.runs.get(&token).is_some_and(|run| is_too_late(end, run.since.elapsed())) {
            self.refuse_late(site, "a program");
        }
        let left =
            descriptors::receive(&other, &mut [0; 1]).ok().and_then(|(_, order)| order.try_into().ok());
        let run = self.runs.get(&token).filter(|run| !run.told && run.spurned < PATIENCE);
        if let (Some(order), Some(run)) = (left, run) {
            let spurned = run.spurned.saturating_add(1);
            self.runs.remove(&token);
            // Others that wait in this site's cell would not take it either.
            if let Some(pool) = self.pools.get_mut(&site) {
                pool.outlook = None;
            }
            if self.give(site, token, &order, spurned).is_ok() {
                return;
            }
            let (how, code) = (Ended::Signalled, end.code.into());
            return self.tell_broker(&Down::RunEnded { token, site, how, code }, Vec::new());
        }
        self.run_ended(token, if end.by_signal { Ended::Signalled } else { Ended::Exited }, end.code.into());
    }

    /// A broker has ended, and with it whoever waits for these programs. The next one may give the same tokens.
    pub(super) fn end_all_runs(&mut self) {
        for run in std::mem::take(&mut self.runs).into_values() {
            if let Some(zygote) = self.zygotes.get_mut(&run.zygote) {
                zygote.state = State::Leaving;
                zygote.tree.destroy();
            }
        }
    }
}

/// From one SIGKILL to the next.
const AGAIN: Duration = Duration::from_secs(1);
/// So many zygotes may end before they take an order.
const PATIENCE: u32 = 3;
