//! What the supervisor says.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::uio::pread;

use crate::pool::channel::Lost;
use crate::pool::settings::{self, Accept};
use crate::pool::wire::{self, Down, Sink, Up, Why};

use super::arena::Key;
use super::calls::{Call, State};
use super::lines::{Pipe, Splitter};
use super::load::Told;
use super::site::{Habit, Rules, Site, Usage, Worker};
use super::{Broker, Said, Source};

/// A web server that has connected says what it wants at once; one that has not by then is not waited for at the end.
const SPEAKS_US: u64 = 2_000_000;
/// Most bytes of a site's settings.
const SETTINGS_MAX: usize = 1 << 20;

impl Broker {
    pub(super) fn orders(&mut self, said: Said) -> Result<(), Lost> {
        if said.writable {
            self.supervisor.flush()?;
        }
        while let Some((message, with)) = self.supervisor.receive::<Down>()? {
            self.order(message, with)?;
        }
        Ok(())
    }

    /// What is about something that is gone meanwhile is passed over.
    fn order(&mut self, message: Down, with: Vec<OwnedFd>) -> Result<(), Lost> {
        let mut with = with.into_iter();
        match message {
            Down::Welcome { version } if version != wire::VERSION => return Err(Lost::Nonsense),
            Down::Welcome { .. } => self.welcome(with.next(), with.next()),
            Down::Site { site, generation } => {
                let (Some(listener), Some(file)) = (with.next(), with.next()) else {
                    return Err(Lost::Nonsense);
                };
                self.site(site, generation, listener, &file)?;
            }
            Down::SiteGone { site } => self.site_gone(site.0),
            Down::Pause { site } => self.pause(site.0, true),
            Down::StandIn { site } => self.stand_in(site.0),
            Down::Resume { site } => self.pause(site.0, false),
            Down::Lines { site, sink } => {
                let Some(site) = self.sites.get_mut(&site.0) else { return Ok(()) };
                match sink {
                    Sink::Access => site.access = with.next(),
                    Sink::Slow => site.slow = with.next(),
                    Sink::Errors => site.errors = with.next(),
                }
            }
            Down::Worker { site, worker, connections, .. } => {
                self.worker(site, worker, connections, with.next());
            }
            Down::Errors { site, worker } => {
                if let Some(fd) = with.next() {
                    self.errors(site, worker, fd);
                }
            }
            Down::Drain { worker, .. } => self.drain(worker.0),
            Down::WorkerGone { site, worker, .. } => self.worker_gone(site.0, worker.0),
            Down::StartFailed { site, retry_after_ms, .. } => self.start_failed(site.0, retry_after_ms),
            Down::Started { token, .. } => self.run_started(Key(token.0), with.collect()),
            Down::NotStarted { token, why, .. } => self.run_refused(Key(token.0), why),
            Down::RunEnded { token, how, code, .. } => self.run_ended(Key(token.0), how, code),
            Down::Usage { site, processes, memory, cpu_us, behind } => {
                self.usage(site.0, Usage { processes, memory, cpu_us, behind })?;
            }
            Down::Spent { worker, cpu_us, .. } => self.spent(worker.0, cpu_us),
            Down::RunSpent { token, cpu_us, .. } => self.run_spent(Key(token.0), cpu_us),
            Down::Ask { number } => self.tell(Up::Beat { number })?,
            Down::Quit { within_ms } => self.leave(within_ms),
        }
        Ok(())
    }

    fn usage(&mut self, number: u32, usage: Usage) -> Result<(), Lost> {
        let Some(site) = self.sites.get_mut(&number) else { return Ok(()) };
        site.usage = usage;
        // Of one that accepts for itself nobody knows how many requests it was.
        let counted = site.rules.accept == Accept::Relay;
        let disturbs = site.load.disturbs(Told {
            at: self.now,
            cpu_us: usage.cpu_us,
            requests: site.counters.worked.count,
            brief: self.brief,
        });
        if counted && disturbs { self.tell(Up::Disturbs { site: wire::Site(number) }) } else { Ok(()) }
    }

    fn welcome(&mut self, log: Option<OwnedFd>, status: Option<OwnedFd>) {
        self.journal.open(log);
        self.status = status;
        self.watch_over(Source::Status, Key(0));
    }

    fn site(
        &mut self,
        number: wire::Site,
        generation: u32,
        listener: OwnedFd,
        file: &OwnedFd,
    ) -> Result<(), Lost> {
        let mut bytes = Vec::new();
        read_all(file, &mut bytes).map_err(Lost::Failed)?;
        let settings = settings::settings(&bytes).map_err(|_| Lost::Nonsense)?;
        let rules = Rules::new(&settings, &mut self.known);
        self.leave_socket(number.0);
        match self.sites.get_mut(&number.0) {
            Some(site) => {
                (site.habit, site.generation) = (Habit::of(rules.kind), generation);
                site.stands_in &= rules.accept == Accept::Direct;
                (site.rules, site.listener) = (rules, listener);
                // Those that there are still come next.
                (site.access, site.slow, site.errors) = (None, None, None);
                // Who waits may be served, or refused, by the new numbers.
                self.dispatch(number.0);
                self.want(number.0);
            }
            None => {
                let site = Site::new(rules, generation, listener, self.now);
                self.sites.insert(number.0, site);
                self.want(number.0);
            }
        }
        self.yields(number.0);
        self.listen_as_told(number.0);
        self.tell(Up::Taken { site: number, generation })
    }

    /// A site that is known already may have another socket from now on: who waits at the one that it had is let in first.
    fn leave_socket(&mut self, number: u32) {
        if self.sites.get(&number).is_some_and(|site| site.watched) {
            self.arrivals(Key(number.into()));
            self.listen_to(number, false);
        }
    }

    /// Where workers accept, the next request is to come to them, and not by a connection that is here.
    fn yields(&mut self, number: u32) {
        if self.sites.get(&number).is_some_and(|site| site.rules.accept == Accept::Direct) {
            self.close_heads(|call| call.site == number && call.codec.silent());
        }
    }

    fn site_gone(&mut self, number: u32) {
        self.pause(number, true);
        self.listen_to(number, false);
        let calls = self.calls.iter().filter(|(_, call)| call.site == number);
        for key in calls.map(|(key, _)| key).collect::<Vec<_>>() {
            self.abandoned(key);
        }
        let Some(site) = self.sites.remove(&number) else { return };
        for worker in site.workers {
            self.close_all(worker.0);
            self.workers.remove(&worker.0);
        }
    }

    /// Its workers accept for themselves, and do not start.
    fn stand_in(&mut self, number: u32) {
        if let Some(site) = self.sites.get_mut(&number) {
            site.stands_in = true;
        }
        self.listen_as_told(number);
    }

    /// Stopped, or going again. Who waits is told at once.
    fn pause(&mut self, number: u32, paused: bool) {
        let Some(site) = self.sites.get_mut(&number) else { return };
        (site.paused, site.stands_in) = (paused, false);
        let generation = site.generation;
        self.listen_as_told(number);
        if !paused {
            if let Some(site) = self.sites.get_mut(&number) {
                site.stalled_until = 0;
            }
            self.yields(number);
            self.say(Up::Taken { site: wire::Site(number), generation });
            return self.want(number);
        }
        let Some(site) = self.sites.get_mut(&number) else { return };
        site.wanted = 0;
        let waiting = std::mem::take(&mut site.queue);
        for key in waiting {
            if self.calls.get(key).is_some_and(|call| call.state == State::Queued) {
                self.let_go(key, Why::Abandoned);
                super::answers::refuse(self, key, 503, &super::answers::paused());
            }
        }
    }

    fn worker(&mut self, site: wire::Site, worker: wire::Worker, connections: u32, errors: Option<OwnedFd>) {
        let Some(known) = self.sites.get_mut(&site.0) else { return };
        known.workers.push(worker);
        known.stalled_until = 0;
        self.workers.insert(
            worker.0,
            Worker {
                site,
                connections: connections.max(1),
                open: 0,
                busy: 0,
                stuck: 0,
                requests: 0,
                children: super::children::Children::default(),
                ready: false,
                knocked: false,
                heir: false,
                draining: None,
                dismissed: false,
                since: self.now,
                idle_since: self.now,
            },
        );
        let idle = u64::from(known.rules.workers.idle_ms).saturating_mul(1000);
        let heir = !known.leaving.is_empty();
        self.wake_at(self.now.saturating_add(idle));
        if let Some(fd) = errors {
            self.errors(site, worker, fd);
        }
        if heir {
            self.knock(site.0, worker);
        }
        self.dispatch(site.0);
    }

    /// Reads what a worker says, from now on.
    fn errors(&mut self, site: wire::Site, worker: wire::Worker, fd: OwnedFd) {
        let alone = !self.workers.contains_key(&worker.0);
        if let Some(known) = self.sites.get_mut(&site.0).filter(|_| alone) {
            known.alone = known.alone.saturating_add(1);
        }
        let pipe = Pipe { fd, site: site.0, worker: worker.0, alone, lines: Splitter::default() };
        let key = self.pipes.insert(pipe);
        self.watch_over(Source::Pipe, key);
    }

    fn drain(&mut self, serial: u32) {
        let Some(worker) = self.workers.get_mut(&serial) else { return };
        worker.draining.get_or_insert(Why::Drained);
        self.close_idle(serial);
        self.drained(serial);
    }

    /// Its connections end by themselves: what it wrote before its end is still to be read.
    fn worker_gone(&mut self, number: u32, serial: u32) {
        self.close_idle(serial);
        // Of one that was dismissed this has been done.
        if self.workers.remove(&serial).is_some_and(|worker| !worker.dismissed) {
            self.knock_no_more(number, serial);
        }
        let Some(site) = self.sites.get_mut(&number) else { return };
        site.workers.retain(|worker| worker.0 != serial);
        site.leaving.forget(serial);
        let count = site.needed();
        if count < site.wanted && !site.paused {
            site.wanted = count;
            self.say(Up::Want { site: wire::Site(number), count });
        } else {
            self.want(number);
        }
        for (key, link) in self.links.iter() {
            if link.worker == serial {
                self.again.push((Source::Link, key));
            }
        }
    }

    /// Workers do not start. Who waits is told when to come again, instead of waiting for nothing.
    fn start_failed(&mut self, number: u32, retry_after_ms: u64) {
        let Some(site) = self.sites.get_mut(&number) else { return };
        site.stalled_until = self.now.saturating_add(retry_after_ms.saturating_mul(1000));
        if !site.workers.is_empty() || retry_after_ms < super::ticks::PATIENCE_MS {
            return;
        }
        for key in std::mem::take(&mut site.queue) {
            if self.calls.get(key).is_some_and(|call| call.state == State::Queued) {
                self.let_go(key, Why::Abandoned);
                super::answers::refuse(self, key, 503, &super::answers::unstarted());
            }
        }
    }

    /// Who is at the sockets from now on waits for the next broker. Whoever was let in is served: only between two requests of
    /// his a connection is closed, when nothing has come on it.
    fn leave(&mut self, within_ms: u64) {
        let until = self.now.saturating_add(within_ms.saturating_mul(1000));
        self.quit = Some(until);
        self.speaks_until = self.now.saturating_add(SPEAKS_US).min(until);
        self.wake_at(self.speaks_until);
        for number in self.sites.keys().copied().collect::<Vec<_>>() {
            self.listen_to(number, false);
        }
        let heads = self.calls.iter().filter(|(_, call)| call.state == State::Head);
        for key in heads.map(|(key, _)| key).collect::<Vec<_>>() {
            self.read_call(key);
        }
        self.close_heads(|call| call.used && call.codec.silent());
    }

    /// Closes connections of web servers on which no whole request is.
    fn close_heads(&mut self, which: impl Fn(&Call) -> bool) {
        let all = self.calls.iter().filter(|(_, call)| call.state == State::Head && which(call));
        for key in all.map(|(key, _)| key).collect::<Vec<_>>() {
            self.close_call(key);
        }
    }

    fn close_all(&mut self, serial: u32) {
        let all = self.links.iter().filter(|(_, link)| link.worker == serial);
        for key in all.map(|(key, _)| key).collect::<Vec<_>>() {
            self.close_link(key);
        }
    }
}

/// A memory file, whoever else reads it.
fn read_all(file: &OwnedFd, bytes: &mut Vec<u8>) -> Result<(), Errno> {
    let mut part = [0; 8192];
    while bytes.len() <= SETTINGS_MAX {
        let offset = i64::try_from(bytes.len()).map_err(|_| Errno::EFBIG)?;
        match pread(file, &mut part, offset)? {
            0 => return Ok(()),
            length => bytes.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
    }
    Err(Errno::EFBIG)
}
