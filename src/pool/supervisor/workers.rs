//! A site's workers: as many as are wanted, each by the table of its life.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::unistd::{Pid, pipe2};

use crate::launch::arrival::{DEADLINE_SECONDS, TOO_LATE};
use crate::refusal::{Card, Pasted, Refusal};
use crate::sys::fork::{End, Side};

use super::super::child::{self, Order};
use super::super::life::{Action, Event, State, drain, least_life};
use super::super::listen;
use super::super::settings::{self, Accept, Kind};
use super::super::tree::{self, Tree};
use super::super::wire::{Down, Ended, Site, Why, Worker, socket_name};
use super::pools::Pool;
use super::{Process, Supervisor, Timer, WORKERS};

/// A worker that has not been buried.
pub(super) struct Living {
    pub(super) site: Site,
    pub(super) state: State,
    pub(super) epoch: u32,
    generation: u32,
    connections: u32,
    /// Who accepts for it; its site may be of another mind by now.
    pub(super) accept: Accept,
    pub(super) tree: Tree,
    /// Just before it was there: no clock of its own is ahead of this one.
    pub(super) since: Instant,
    /// When its state's time is over; a timer for another time is stale.
    due: Option<Instant>,
    /// It was told to finish what it has.
    drains: Option<Instant>,
    grace: Duration,
    /// Its private socket, until it has answered: the kernel tells whether somebody waits there in vain.
    listener: Option<OwnedFd>,
    /// The name of that socket; none: it has the public one.
    name: Option<Name>,
    /// Said by the launch pipeline, when it refused; its end when the program begins.
    pub(super) report: OwnedFd,
    /// Its program was seen to have begun.
    pub(super) begun: bool,
    /// The reading end of its standard error output, for the next broker.
    errors: Rc<OwnedFd>,
    /// Another one takes its place while it still serves.
    leaves: bool,
    /// We sent a signal: it did not end by itself.
    signalled: bool,
    why: Option<Why>,
}

impl Living {
    /// One of a site as it is now, with what the supervisor keeps of its descriptors.
    fn started(
        (site, pool): (Site, &Pool),
        (since, tree): (Instant, Tree),
        (listener, name): (Option<OwnedFd>, Option<Name>),
        report: OwnedFd,
        errors: OwnedFd,
    ) -> Self {
        Self {
            site,
            state: State::Starting,
            epoch: pool.epoch,
            generation: pool.generation,
            connections: pool.numbers.connections,
            accept: pool.accept,
            tree,
            since,
            due: None,
            drains: None,
            grace: Duration::from_millis(pool.life.grace_ms.into()),
            listener,
            name,
            report,
            begun: false,
            errors: Rc::new(errors),
            leaves: false,
            signalled: false,
            why: None,
        }
    }
}

impl Supervisor {
    /// Starts as many workers as are wanted and may be.
    pub(super) fn fill(&mut self, site: Site) {
        loop {
            let Some(pool) = self.pools.get(&site) else { return };
            let serving = self.serving(site, pool.epoch);
            if self.is_ending() || pool.yielding || serving >= target(pool) {
                return;
            }
            let now = Instant::now();
            let not_before = pool.not_before.max(pool.spacing.not_before());
            if let Some(not_before) = not_before.filter(|not_before| *not_before > now) {
                return self.at(not_before, Timer::Site(site));
            }
            if pool.stands_in {
                self.stand_down(site);
                continue;
            }
            if let Some(pool) = self.pools.get_mut(&site) {
                pool.spacing.started(now);
            }
            if let Err(errno) = self.start(site) {
                self.start_failed(site, Ended::Exited, &format!("why=\"{}\"", errno.desc()));
            }
        }
    }

    /// Other numbers: more workers are started. Fewer the broker asks for, of those without work; of those that accept for
    /// themselves the last ones are asked to end, and finish what they have.
    pub(super) fn resize(&mut self, site: Site) {
        self.fill(site);
        let Some(pool) = self.pools.get(&site).filter(|pool| pool.accept == Accept::Direct) else { return };
        let most = usize::try_from(target(pool)).unwrap_or(usize::MAX);
        let own = self.workers.iter().filter(|(_, one)| one.site == site && one.epoch == pool.epoch);
        let serving = own.filter(|(_, one)| one.state.serves()).map(|(worker, _)| *worker);
        for worker in serving.skip(most).collect::<Vec<_>>() {
            self.happen(worker, Event::Stop);
        }
    }

    fn serving(&self, site: Site, epoch: u32) -> u32 {
        let of_site = self.workers.values().filter(|one| one.site == site && one.epoch == epoch);
        let serving = of_site.filter(|one| one.state.serves() && !one.leaves);
        u32::try_from(serving.count()).unwrap_or(u32::MAX)
    }

    fn start(&mut self, site: Site) -> Result<(), Errno> {
        let Some(pool) = self.pools.get(&site) else { return Ok(()) };
        let Ok(settings) = settings::settings(&pool.record) else { return Err(Errno::EBADMSG) };
        // A number whose start fails is not used again.
        self.last_worker = self.last_worker.saturating_add(1);
        let worker = Worker(self.last_worker);
        let Sockets { listener, watched, name } = sockets(pool, site, worker).map_err(errno)?;
        if let Some(listener) = &watched {
            // Without it nobody would know of one that never comes.
            let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
            self.watch(listener, WORKERS | u64::from(worker.0), once).map_err(errno)?;
        }
        let (errors, errors_in) = pipe2(OFlag::O_CLOEXEC)?;
        // The broker reads it, and may change nothing of a descriptor.
        listen::set_blocking(&errors, false)?;
        let (report, report_in) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let output = self.null.try_clone().map_err(errno)?;
        let above = Path::new(std::ffi::OsStr::from_bytes(settings.group_directory));
        let Ok(ground) = self.grove.worker(above, worker.0) else { return Err(self.refuse_taken(site)) };
        let enter = ground.to_enter().map(|(group, _)| group.as_os_str().as_bytes().to_vec());
        let since = Instant::now();
        let (Side::Parent(pid), Some(tree)) = self.grove.plant(ground)? else {
            child::become_program(Order {
                uid: pool.uid,
                settings: &settings,
                standard: [listener, output, errors_in],
                tree: enter,
                report: report_in,
            })
        };
        let living = Living::started((site, pool), (since, tree), (watched, name), report, errors);
        let accepts = living.accept == Accept::Direct;
        self.workers.insert(worker, living);
        self.know(pid, Process::Worker(worker));
        if accepts {
            self.after(SHORT, Timer::Settled(worker));
        }
        self.tell_worker(worker);
        let name = self.name(site);
        self.journal.say("start", &name, &format!("worker={} pid={pid}", worker.0));
        Ok(())
    }

    /// Tells the broker of a worker; of one that accepts for itself only where its words come.
    fn tell_worker(&mut self, worker: Worker) {
        let Some(living) = self.workers.get(&worker) else { return };
        let site = living.site;
        let message = match living.accept {
            Accept::Relay => {
                Down::Worker { site, worker, generation: living.generation, connections: living.connections }
            }
            Accept::Direct => Down::Errors { site, worker },
        };
        let errors = vec![Rc::clone(&living.errors)];
        self.tell_broker(&message, errors);
    }

    /// All workers of a site, to a broker that knows none of them.
    pub(super) fn tell_workers(&mut self, site: Site) {
        let all: Vec<Worker> =
            self.workers.iter().filter(|(_, one)| one.site == site).map(|(worker, _)| *worker).collect();
        for worker in all {
            self.tell_worker(worker);
            match self.workers.get(&worker) {
                Some(one) if one.state == State::Draining => {
                    self.tell_broker(&Down::Drain { site, worker }, Vec::new());
                }
                // Its place is taken, and this broker counts its requests from none.
                Some(one) if one.leaves => self.happen(worker, Event::Drain),
                _ => {}
            }
        }
    }

    /// Something happened to a worker: the table says what to do.
    pub(super) fn happen(&mut self, worker: Worker, event: Event) {
        let Some(living) = self.workers.get_mut(&worker) else { return };
        let site = living.site;
        let (next, action) = living.state.after(event);
        let before = std::mem::replace(&mut living.state, next);
        let (grace, epoch, relayed) = (living.grace, living.epoch, living.accept == Accept::Relay);
        match action {
            Action::Nothing => {}
            Action::AskDrain => {
                living.drains = Some(Instant::now());
                let deadline_ms = self.pools.get(&site).map_or(0, |pool| pool.deadline_ms);
                if let Some(time) = drain(deadline_ms) {
                    self.set_timer(worker, time);
                }
                self.tell_broker(&Down::Drain { site, worker }, Vec::new());
            }
            Action::Polite => {
                living.signalled = true;
                if relayed && event == Event::Stop {
                    // Its site may go again before it is gone.
                    self.tell_broker(&Down::Drain { site, worker }, Vec::new());
                }
                let Some(living) = self.workers.get_mut(&worker) else { return };
                living.tree.ask();
                self.set_timer(worker, grace);
            }
            Action::Destroy => {
                living.signalled = true;
                living.tree.destroy();
                self.set_timer(worker, AGAIN);
            }
            // Done by worker_exited, which knows how it ended.
            Action::Bury | Action::Blame => {}
        }
        if event == Event::Ready {
            self.watch_no_more(worker);
        }
        // One of an older epoch, whose first request this was, proves nothing about the program of today.
        let current = self.pools.get(&site).is_some_and(|pool| pool.epoch == epoch);
        if event == Event::Ready && before == State::Starting && current {
            self.proven(site);
        }
    }

    /// The kernel goes on telling of a socket that somebody else has open, unless it is told not to.
    fn watch_no_more(&mut self, worker: Worker) {
        let listener = self.workers.get_mut(&worker).and_then(|living| living.listener.take());
        if let Some(listener) = listener {
            let _ = self.epoll.delete(&listener);
        }
    }

    /// Somebody waits at the socket of a worker that has not answered yet: it has so long to come.
    pub(super) fn worker_asked(&mut self, worker: Worker) {
        let Some(living) = self.workers.get(&worker) else { return };
        let most = self.pools.get(&living.site).map_or(0, |pool| pool.life.start_ms);
        if most > 0 {
            self.after(Duration::from_millis(most.into()), Timer::Unready(worker));
        }
    }

    /// The time to come is over. One that took its first request is started, however long the answer takes.
    pub(super) fn unready_timer(&mut self, worker: Worker) {
        let Some(living) = self.workers.get(&worker) else { return };
        if !living.listener.as_ref().is_some_and(is_waited_at) {
            return;
        }
        let site = living.site;
        self.refuse_unready(site, worker);
        self.end_worker(site, worker, Event::Kill, Why::Unready);
    }

    /// Nobody hears the answers of a worker that accepts for itself: one whose program has begun, and that lives so long, is up.
    pub(super) fn settled_timer(&mut self, worker: Worker) {
        let Some(living) = self.workers.get_mut(&worker) else { return };
        living.begun = living.begun || is_over(&living.report);
        if living.begun {
            self.happen(worker, Event::Ready);
        } else {
            self.after(SHORT, Timer::Settled(worker));
        }
    }

    fn set_timer(&mut self, worker: Worker, time: Duration) {
        let due = Instant::now() + time;
        if let Some(living) = self.workers.get_mut(&worker) {
            living.due = Some(due);
        }
        self.at(due, Timer::Worker(worker));
    }

    pub(super) fn worker_timer(&mut self, worker: Worker, now: Instant) {
        let Some(living) = self.workers.get(&worker) else { return };
        if living.due.is_none_or(|due| due > now) {
            return;
        }
        // Its requests may take longer by now than they could when it was told to finish them.
        let deadline_ms = self.pools.get(&living.site).map_or(0, |pool| pool.deadline_ms);
        match living
            .drains
            .filter(|_| living.state == State::Draining)
            .map(|since| (since, drain(deadline_ms)))
        {
            Some((since, Some(time))) if since + time > now => self.set_timer(worker, since + time - now),
            Some((_, None)) => {}
            _ => self.happen(worker, Event::Timer),
        }
    }

    /// Another daemon has processes in the site's own control group. This is tried again as any start that failed, and told less often.
    pub(super) fn refuse_taken(&mut self, site: Site) -> Errno {
        let Some(pool) = self.pools.get_mut(&site) else { return Errno::EBUSY };
        if pool.taken_told.is_none_or(|told| told.elapsed() > TELL) {
            pool.taken_told = Some(Instant::now());
            let settings = settings::settings(&pool.record);
            let group = settings.as_ref().map_or(&b""[..], |settings| settings.group_directory);
            let refusal =
                Refusal::about(&TAKEN, group, "another cellwalld keeps processes of the site there");
            self.journal.refused(&pool.name, &refusal);
        }
        Errno::EBUSY
    }

    fn refuse_unready(&mut self, site: Site, worker: Worker) {
        let Some(pool) = self.pools.get(&site) else { return };
        let seconds = pool.life.start_ms.div_ceil(1000);
        let why = format!("worker {} did not take its first request within {seconds} s", worker.0);
        let twice = seconds.saturating_mul(2);
        let fix = format!("cellwall set {} pool.start_timeout {twice}s", Pasted(&pool.name));
        let name = pool.name.clone();
        self.journal.refused(&name, &Refusal { card: &UNREADY, why, fix });
    }

    /// A worker has nearly had its requests. A site never has more than [`settings::Workers::heirs`] too many for that, and one whose
    /// workers are not replaced after so many has none.
    pub(super) fn start_heir(&mut self, site: Site, worker: Worker) {
        if self.pools.get(&site).is_none_or(|pool| pool.life.requests == 0) {
            return;
        }
        let leaving =
            self.workers.values().filter(|one| one.site == site && one.leaves && one.state.serves());
        let most = self.pools.get(&site).map_or(0, |pool| pool.numbers.heirs());
        if leaving.count() >= usize::try_from(most).unwrap_or(usize::MAX) {
            return;
        }
        if let Some(living) = self.workers.get_mut(&worker).filter(|living| living.site == site) {
            living.leaves = true;
            self.fill(site);
        }
    }

    /// A child of a worker's has had its requests. Whose child it is the kernel knows; where it is another one's, the whole
    /// worker is replaced.
    pub(super) fn renew_child(&mut self, site: Site, worker: Worker, child: u32) {
        let Some(living) = self.workers.get(&worker).filter(|living| living.site == site) else { return };
        let ended = i32::try_from(child).is_ok_and(|child| living.tree.end_child(Pid::from_raw(child)));
        // Nobody but the broker says when one that drains is idle: one that was taken over would never, and want the next.
        let drain =
            self.workers.values().filter(|one| one.site == site && one.state == State::Draining).count();
        let most = self.pools.get(&site).map_or(0, |pool| pool.numbers.max);
        if !ended && drain < usize::try_from(most).unwrap_or(usize::MAX) {
            self.end_worker(site, worker, Event::Drain, Why::Requests);
        }
    }

    /// The broker wants a worker ended, and says why.
    pub(super) fn end_worker(&mut self, site: Site, worker: Worker, event: Event, why: Why) {
        let least = self.least_life(site);
        let event = if event == Event::Retire && self.has_a_crowd(site) { Event::Kill } else { event };
        if let Some(living) = self.workers.get_mut(&worker).filter(|living| living.site == site) {
            living.why = Some(why);
            let brief = match event {
                Event::Kill => living.state == State::Up && living.since.elapsed() < SHORT,
                Event::Retire => living.state.serves() && living.since.elapsed() < least.min(SHORT),
                _ => false,
            };
            self.happen(worker, event);
            if brief {
                self.space_starts(site);
            }
            // In its place comes a new one at once, unless the broker has said that it wants fewer: of those without work.
            self.fill(site);
        }
    }

    /// So long a worker has been idle before it is let go for that alone; or it has had its requests, and nobody here knows how long
    /// they took.
    fn least_life(&self, site: Site) -> Duration {
        let Some(pool) = self.pools.get(&site) else { return Duration::ZERO };
        let idle = Duration::from_millis(pool.numbers.idle_ms.into());
        if pool.life.requests == 0 { idle } else { idle.min(least_life(pool.life.requests)) }
    }

    /// So many of a site's workers take their time to end that no more of them get any: each has another one in its place, and a
    /// broker that was taken over would want them all ended, one after another.
    fn has_a_crowd(&self, site: Site) -> bool {
        let ending = self.workers.values().filter(|one| one.site == site && one.state == State::Stopping);
        let most =
            self.pools.get(&site).map_or(0, |pool| pool.numbers.max.saturating_add(pool.numbers.heirs()));
        u32::try_from(ending.count()).unwrap_or(u32::MAX) >= most
    }

    /// A worker was ended sooner than it could have been of use. Where that goes on, each one costs its start and no more.
    fn space_starts(&mut self, site: Site) {
        if let Some(pool) = self.pools.get_mut(&site) {
            pool.spacing.ended(Instant::now());
        }
    }

    /// A site's worker has answered for the first time.
    pub(super) fn worker_ready(&mut self, site: Site, worker: Worker) {
        match self.workers.get(&worker) {
            Some(living) if living.site == site => self.happen(worker, Event::Ready),
            Some(_) => {}
            None => self.has_answered(site, worker),
        }
    }

    pub(super) fn worker_exited(&mut self, worker: Worker, end: End) {
        let Some(living) = self.workers.get(&worker) else { return };
        let (_, action) = living.state.after(Event::Exited);
        self.watch_no_more(worker);
        let Some(mut living) = self.workers.remove(&worker) else { return };
        let (ended, code) = self.how_it_ended(&living, end);
        let site = living.site;
        if living.accept == Accept::Relay {
            drop(living.name.take());
            self.tell_broker(&Down::WorkerGone { site, worker, how: ended, code }, Vec::new());
        }
        let name = self.name(site);
        let lived = living.since.elapsed();
        if !living.begun && is_too_late(end, lived) {
            self.refuse_late(site, &format!("worker {}", worker.0));
        }
        let why = living.why.map(|why| format!(" why={why:?}").to_lowercase()).unwrap_or_default();
        let line = format!(
            "worker={} how={} code={code}{why} seconds={}",
            worker.0,
            format!("{ended:?}").to_lowercase(),
            lived.as_secs()
        );
        self.journal.say("end", &name, &line);
        let Living { epoch, signalled, state, tree, accept, .. } = living;
        self.bury(tree);
        let current = self.pools.get(&site).is_some_and(|pool| pool.epoch == epoch);
        // One that ends by itself within its first second would be started again without end.
        let short = !signalled && lived < SHORT;
        if current && (action == Action::Blame || short) && !(signalled && state != State::Failing) {
            let may_have_answered =
                accept == Accept::Relay && state == State::Starting && ended != Ended::Refused;
            if may_have_answered && !short {
                self.doubt(site, worker, ended, line);
            } else {
                self.start_failed(site, ended, &line);
            }
        }
        self.fill(site);
        self.answer_waiting();
    }

    /// A launch was ended by its own alarm, and could not say so itself.
    pub(super) fn refuse_late(&mut self, site: Site, whose: &str) {
        let why = format!("the launch of {whose} did not end within {DEADLINE_SECONDS} s, and was ended");
        let name = self.name(site);
        self.journal.refused(&name, &Refusal::new(&TOO_LATE, why));
    }

    fn how_it_ended(&mut self, living: &Living, end: End) -> (Ended, u32) {
        let mut report = [0; 1];
        if let Ok(report_file) = living.report.try_clone()
            && File::from(report_file).read(&mut report).is_ok_and(|length| length == 1)
        {
            return (Ended::Refused, report.first().copied().unwrap_or_default().into());
        }
        let ended = match (living.state, end.by_signal) {
            (State::Failing, _) => Ended::Unready,
            _ if living.signalled => Ended::Stopped,
            (_, true) if self.ran_out_of_memory(living.site, end.code.into()) => Ended::OutOfMemory,
            (_, true) => Ended::Signalled,
            (_, false) => Ended::Exited,
        };
        (ended, end.code.into())
    }

    /// SIGKILL that we did not send, and the kernel has counted one more kill in the site's group.
    fn ran_out_of_memory(&mut self, site: Site, signal: u32) -> bool {
        let Some(pool) = self.pools.get_mut(&site) else { return false };
        let Ok(settings) = settings::settings(&pool.record) else { return false };
        let group = Path::new(std::ffi::OsStr::from_bytes(settings.memory_directory));
        let kills = tree::kills_for_memory(group);
        let more = kills > std::mem::replace(&mut pool.memory_kills, kills);
        more && signal == KILL
    }

    /// Counts a failed start: the next one is later, and the broker is told.
    pub(super) fn start_failed(&mut self, site: Site, how: Ended, line: &str) {
        let Some(pool) = self.pools.get_mut(&site) else { return };
        pool.failures.count();
        let pause = pool.failures.pause();
        pool.not_before = Some(Instant::now() + pause);
        let looping = pool.failures.is_loop();
        let retry_after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.tell_broker(&Down::StartFailed { site, how, retry_after_ms }, Vec::new());
        let name = self.name(site);
        let state = if looping { "crash-loop" } else { "back-off" };
        self.journal.say("fail", &name, &format!("state={state} retry_ms={retry_after_ms} {line}"));
        if looping {
            self.stand_in(site);
        }
    }

    /// Ends a site's workers, gracefully first.
    pub(super) fn stop_workers(&mut self, site: Site) {
        let all: Vec<Worker> =
            self.workers.iter().filter(|(_, one)| one.site == site).map(|(worker, _)| *worker).collect();
        all.into_iter().for_each(|worker| self.happen(worker, Event::Stop));
    }

    /// Ends all workers and runs, gracefully first.
    pub(super) fn stop_all(&mut self) {
        let all: Vec<Worker> = self.workers.keys().copied().collect();
        all.into_iter().for_each(|worker| self.happen(worker, Event::Stop));
        self.zygotes.values().for_each(|zygote| zygote.tree.destroy());
    }

    pub(super) fn name(&self, site: Site) -> Vec<u8> {
        self.pools.get(&site).map(|pool| pool.name.clone()).unwrap_or_else(|| b"-".to_vec())
    }
}

/// The name of a worker's socket. It goes with its worker, or with a start that has failed.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Where a worker listens; and the same once more to look at, and its name, where it is its own.
struct Sockets {
    listener: OwnedFd,
    watched: Option<OwnedFd>,
    name: Option<Name>,
}

fn sockets(pool: &Pool, site: Site, worker: Worker) -> std::io::Result<Sockets> {
    match pool.accept {
        Accept::Relay => {
            let called = socket_name(site, worker);
            let name = Some(Name(Path::new(listen::WORKERS).join(&called)));
            let listener = listen::private(&called)?;
            let watched = Some(listener.try_clone()?);
            Ok(Sockets { listener, watched, name })
        }
        Accept::Direct => {
            Ok(Sockets { listener: pool.socket.listener.try_clone()?, watched: None, name: None })
        }
    }
}

/// So many workers a site should have now.
pub(super) fn target(pool: &Pool) -> u32 {
    if pool.paused || pool.kind == Kind::Cgi {
        return 0;
    }
    // Without the broker nobody says what is wanted.
    let wanted = (pool.accept == Accept::Relay).then_some(pool.wanted);
    bounded(pool.numbers, wanted, pool.proving)
}

/// What the broker wants, within what the site may have; all that, where nobody says. The first of a new epoch alone, until it is
/// believed.
fn bounded(numbers: settings::Workers, wanted: Option<u32>, proving: bool) -> u32 {
    let most = if proving { numbers.max.min(1) } else { numbers.max };
    wanted.unwrap_or(numbers.max).max(numbers.min).min(most)
}

/// A connection is there that nobody has accepted.
fn is_waited_at(listener: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// By the alarm of a launch, as far as a signal and a time can tell.
pub(super) fn is_too_late(end: End, lived: Duration) -> bool {
    end.by_signal && i32::from(end.code) == libc::SIGALRM && lived.as_secs() >= DEADLINE_SECONDS.into()
}

/// A pipe has no writing end any more.
pub(super) fn is_over(pipe: &OwnedFd) -> bool {
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

pub(super) fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Its remedy names the site.
static UNREADY: Card = Card { code: "S11", status: 88, remedy: "cellwall explain S11" };

static TAKEN: Card = Card {
    code: "S15",
    status: 88,
    remedy: "grep -lsx cellwalld /proc/[0-9]*/comm # stop the one that is not to serve the site, or give it a hierarchy of control groups of its own",
};

const KILL: u32 = 9;
/// Between two records of the same, however often it is tried.
const TELL: Duration = Duration::from_secs(30);
/// From one SIGKILL to the next.
const AGAIN: Duration = Duration::from_secs(1);
/// Whoever ends by itself before has not started.
const SHORT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_has_as_many_workers_as_are_wanted_within_its_bounds() {
        let numbers = |min, max| settings::Workers { max, min, spare: 0, idle_ms: 0, connections: 1 };
        for (min, max, wanted, proving, workers) in [
            (0, 8, Some(0), false, 0),
            (2, 8, Some(0), false, 2),
            (2, 8, Some(5), false, 5),
            (2, 8, Some(9), false, 8),
            (2, 8, None, false, 8),
            (2, 8, Some(5), true, 1),
            (2, 8, None, true, 1),
            (0, 8, Some(0), true, 0),
            (0, 0, Some(5), true, 0),
            (4, 2, Some(0), false, 2),
        ] {
            assert_eq!(
                bounded(numbers(min, max), wanted, proving),
                workers,
                "{min} {max} {wanted:?} {proving}"
            );
        }
    }

    #[test]
    fn a_launch_was_too_late_when_its_own_alarm_ended_it() {
        let alarm = u8::try_from(libc::SIGALRM).unwrap();
        let deadline = u64::from(DEADLINE_SECONDS);
        for (by_signal, code, seconds, late) in [
            (true, alarm, deadline, true),
            (true, alarm, deadline + 1, true),
            (true, alarm, deadline - 1, false),
            (true, 9, deadline, false),
            (false, alarm, deadline, false),
        ] {
            let end = End { child: Pid::from_raw(1), by_signal, code };
            assert_eq!(is_too_late(end, Duration::from_secs(seconds)), late, "{by_signal} {code} {seconds}");
        }
    }
}
