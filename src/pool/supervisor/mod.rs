//! The supervisor: root, one thread, one loop. It starts workers and ends them, keeps the listening sockets, and keeps the
//! broker alive.
//!
//! * `pools`: which pools there are: start and reload.
//! * `records`: what the policy says of them.
//! * `kept`: sockets that outlive the daemon.
//! * `logs`: a site's own logs, which the broker writes.
//! * `workers`: a site's workers: as many as are wanted, each by the table of `life`.
//! * `doubt`: workers that ended before their first answer was heard of.
//! * `renewal`: new workers in the place of old ones.
//! * `usage`: what sites use.
//! * `runs`: CGI programs, one for each request, and the zygotes that start them.
//! * `slow`: where the worker of a slow request is.
//! * `broker`: the other side of the wire.
//! * `pulse`: what makes the kernel look more often at who is to run.
//! * `behind`: sites that compute for long, and others that have less to do.
//! * `seal`: what is given up at the start.
//! * `control`: what administrators and site owners ask for.
//! * `run`: what somebody has removed from /run.
//! * `accounts`: whose uid is somebody else's by now.
//! * `stopped`: which sites are to stay stopped.
//!
//! What it believes: the records that root wrote, the kernel, and nobody else. Frames of the broker are wishes with a number in
//! them; a number that means nothing is ignored, and each wish is one that any site could be granted at any time.
//!
//! May not: read a byte that came from a web server or a worker (of a zygote, which is of the site's uid, three bytes: any three
//! harm nobody else); open a path that it did not make or that the policy does not
//! name; wait for anything but its loop.

mod accounts;
mod behind;
mod broker;
mod control;
mod doubt;
mod kept;
mod logs;
mod pools;
mod pulse;
mod records;
mod renewal;
mod run;
mod runs;
pub mod seal;
mod slow;
mod stopped;
mod usage;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::policy::Resource;

use crate::sys::fork;

use super::journal::Journal;
use super::notify::Manager;
use super::tree::{Grove, Tree};
use super::wire::{Site, Token, Worker};

pub use broker::Account;

/// How the daemon was started.
#[derive(Debug)]
pub struct Setup {
    /// Who the broker is.
    pub account: Account,
    /// The environment that was taken at the start.
    pub environment: Vec<&'static CStr>,
}

/// All that the supervisor knows.
pub struct Supervisor {
    epoll: Epoll,
    signals: SignalFd,
    manager: Manager,
    journal: Journal,
    grove: Grove,
    pools: BTreeMap<Site, pools::Pool>,
    workers: BTreeMap<Worker, workers::Living>,
    runs: BTreeMap<Token, runs::Run>,
    zygotes: BTreeMap<runs::Serial, runs::Zygote>,
    processes: HashMap<Pid, Process>,
    /// All that had ended by then has been reaped.
    reaped: Instant,
    /// So long a killed daemon's children are waited for.
    patient: Instant,
    graves: Vec<Tree>,
    timers: BTreeSet<(Instant, Timer)>,
    broker: broker::Broker,
    pulse: pulse::Pulse,
    behind: behind::Behind,
    control: control::Control,
    kept: kept::Kept,
    own: run::Own,
    accounts: accounts::Accounts,
    /// Public sockets by place, during a reload.
    left: BTreeMap<Vec<u8>, pools::Public>,
    null: Rc<OwnedFd>,
    status: Rc<OwnedFd>,
    last_site: u32,
    last_worker: u32,
    last_zygote: u32,
    /// Slow requests that were asked about in this second.
    places_told: u32,
    quit_at: Option<Instant>,
}

/// What a child of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Worker(Worker),
    Zygote(runs::Serial),
    Broker,
    Pulse,
}

/// What a time was set for. A late or double one finds nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A worker's state has lasted as long as it may.
    Worker(Worker),
    /// A worker has been asked for the first time long enough ago.
    Unready(Worker),
    /// A worker that accepts for itself has lived long enough to be up.
    Settled(Worker),
    /// A worker that has ended did not answer before, or it would have been heard of.
    Doubt(Site),
    /// A run is ended again.
    Run(Token),
    /// The broker is told of a site again.
    Tell(Site),
    /// A site may start workers again.
    Site(Site),
    /// A site's workers may be renewed again.
    Renew(Site),
    /// The first worker of new settings has lived long enough to be believed.
    Vanguard(Site),
    /// The service manager is told again of what it could not be told.
    Keep,
    /// The broker may be started again.
    Broker,
    /// Once a second while there are workers: usage, watchdog, what is left to bury.
    Second,
    /// The end, whatever still runs.
    Quit,
}

/// What the loop hears.
const SIGNALS: u64 = 0;
const BROKER: u64 = 1;
const CONTROL: u64 = 2;
/// Control connections are above it, by descriptor.
const CLIENTS: u64 = 1 << 32;
/// Sockets of workers that have not answered yet are above it, by serial number.
const WORKERS: u64 = 1 << 33;
/// Channels of zygotes are above it, by serial number.
const ZYGOTES: u64 = 1 << 34;

impl Supervisor {
    /// Root. Makes the sockets, starts the broker, and serves until it is told to end.
    ///
    /// # Errors
    /// What kept it from starting. Afterwards nothing ends it but a signal.
    pub fn run(setup: Setup) -> io::Result<()> {
        // What whoever started the daemon left open is nobody's below it; listening sockets are handed on by name.
        crate::sys::seal::close_at_exec()?;
        let mut supervisor = Self::new(setup)?;
        seal::seal().map_err(|errno| {
            io::Error::other(format!(
                "it cannot give up system calls, which takes CAP_SYS_ADMIN: {}",
                errno.desc()
            ))
        })?;
        supervisor.load();
        supervisor.start_broker();
        supervisor.manager.ready();
        supervisor.tell_status();
        supervisor.close_strangers();
        while supervisor.turn()? {}
        supervisor.end();
        Ok(())
    }

    /// One round: hears what there is, and does what is due. False: it is over.
    fn turn(&mut self) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); 64];
        let timeout = match self.timers.first() {
            Some((due, _)) => {
                let left = due.saturating_duration_since(Instant::now()).as_millis();
                EpollTimeout::from(u16::try_from(left.saturating_add(1)).unwrap_or(u16::MAX))
            }
            None => EpollTimeout::NONE,
        };
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        for event in events.iter().take(count) {
            match event.data() {
                SIGNALS => self.hear_signals(),
                BROKER => self.hear_broker(event.events()),
                CONTROL => self.accept_client(),
                worker if worker & WORKERS != 0 => {
                    self.worker_asked(Worker(u32::try_from(worker & !WORKERS).unwrap_or(u32::MAX)));
                }
                zygote if zygote & ZYGOTES != 0 => {
                    self.hear_zygote(runs::Serial(u32::try_from(zygote & !ZYGOTES).unwrap_or(u32::MAX)));
                }
                client => self.hear_client(client),
            }
        }
        self.tick();
        Ok(!self.is_over())
    }

    /// Does what is due. Whoever had ended by then is known to have: a timer may mean that somebody has lived for so long.
    fn tick(&mut self) {
        let now = Instant::now();
        if self.timers.first().is_none_or(|(due, _)| *due > now) {
            return;
        }
        self.reap();
        self.reaped = now;
        while let Some((due, timer)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, timer));
            match timer {
                Timer::Worker(worker) => self.worker_timer(worker, now),
                Timer::Unready(worker) => self.unready_timer(worker),
                Timer::Settled(worker) => self.settled_timer(worker),
                Timer::Doubt(site) => self.doubt_timer(site, now),
                Timer::Run(token) => self.run_timer(token),
                Timer::Tell(site) => self.tell_timer(site),
                Timer::Site(site) => self.fill(site),
                Timer::Renew(site) => self.renew_timer(site),
                Timer::Vanguard(site) => self.vanguard_timer(site),
                Timer::Keep => self.tell_kept(),
                Timer::Broker => self.start_broker(),
                Timer::Second => self.second(),
                Timer::Quit => {}
            }
        }
    }

    fn at(&mut self, due: Instant, timer: Timer) {
        self.timers.insert((due, timer));
    }

    fn after(&mut self, pause: Duration, timer: Timer) {
        self.at(Instant::now() + pause, timer);
    }

    fn hear_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => self.reap(),
                Some(signal) if RELOAD.contains(&signal) => {
                    self.reload();
                }
                Some(signal) if END.contains(&signal) => self.quit(),
                _ => {}
            }
        }
    }

    /// Every child that has ended. It is looked at before it is reaped: until then its number means its process group.
    fn reap(&mut self) {
        while let Ok(Some(end)) = fork::look_for_end() {
            let process = self.processes.remove(&end.child);
            if let Some(process) = process {
                self.before_reaping(process);
            }
            let Ok(end) = fork::reap(end.child) else { return };
            match process {
                Some(Process::Worker(worker)) => self.worker_exited(worker, end),
                Some(Process::Zygote(zygote)) => self.zygote_exited(zygote, end),
                Some(Process::Broker) => self.broker_exited(end),
                Some(Process::Pulse) => self.pulse_exited(end),
                // An orphan of some worker's, which became ours.
                None => {}
            }
        }
    }

    fn before_reaping(&self, process: Process) {
        let tree = match process {
            Process::Worker(worker) => self.workers.get(&worker).map(|living| &living.tree),
            Process::Zygote(zygote) => self.zygotes.get(&zygote).map(|zygote| &zygote.tree),
            Process::Broker | Process::Pulse => None,
        };
        if let Some(tree) = tree {
            tree.end_rest();
        }
    }

    /// SIGTERM: nothing new; what runs may finish, for a while.
    fn quit(&mut self) {
        if self.quit_at.is_some() {
            return;
        }
        self.manager.tell("STOPPING=1");
        self.quit_at = Some(Instant::now() + QUIT);
        self.after(QUIT, Timer::Quit);
        self.tell_broker(&super::wire::Down::Quit { within_ms: QUIT_MS }, Vec::new());
        if !self.broker.is_alive() {
            self.stop_all();
        }
    }

    /// Nobody's request needs anything new any more. Before, while the broker finishes what it has, there may be need of a worker.
    fn is_ending(&self) -> bool {
        self.quit_at.is_some() && !self.broker.is_alive()
    }

    fn is_over(&self) -> bool {
        self.quit_at.is_some_and(|end| {
            Instant::now() >= end
                || (!self.broker.is_alive() && self.workers.is_empty() && self.runs.is_empty())
        })
    }

    /// This program once more, as one of its other processes: nobody's descriptors, environment or directory.
    fn ourselves(&self, role: &str) -> Command {
        let Account { uid, gid } = self.broker.account;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("cellwalld: {role}"));
        command.args([format!("--{role}"), uid.to_string(), gid.to_string()]);
        command.env_clear().current_dir("/").stdout(Stdio::null());
        command
    }

    /// Nothing of ours stays.
    fn end(&mut self) {
        self.workers.values().for_each(|living| living.tree.destroy());
        self.zygotes.values().for_each(|zygote| zygote.tree.destroy());
        self.broker.kill();
        self.broker.let_go(&self.epoll);
        self.pulse.kill();
        self.behind.free_all();
        self.control.dismiss_all();
        self.remove_sockets();
    }

    fn watch(&self, what: &impl std::os::fd::AsFd, data: u64, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(what, EpollEvent::new(flags, data))?)
    }

    /// A free child slot's new process is known by its number.
    fn know(&mut self, pid: Pid, process: Process) {
        self.processes.insert(pid, process);
    }

    /// Once a second, as long as there is something to look after.
    fn second(&mut self) {
        for tree in std::mem::take(&mut self.graves) {
            self.bury(tree);
        }
        let trees = self.workers.values().map(|living| &living.tree);
        let trees = trees.chain(self.zygotes.values().map(|zygote| &zygote.tree)).chain(&self.graves);
        self.grove.end_strays(|pid| self.processes.contains_key(&pid), trees);
        self.dismiss_idle();
        self.hear_clients_again();
        self.restore();
        self.look_at_accounts();
        self.grove.tidy();
        self.usage();
        self.ask_broker();
        self.tell_status();
        self.answer_waiting();
        self.journal.make_room();
        self.places_told = 0;
        self.after(SECOND, Timer::Second);
    }

    /// Lets go of a tree whose root is gone, now or as soon as the rest is.
    fn bury(&mut self, tree: Tree) {
        if tree.bury() { self.grove.take_back(tree) } else { self.graves.push(tree) }
    }

    fn new(setup: Setup) -> io::Result<Self> {
        let Setup { account, environment } = setup;
        let mut mask = SigSet::empty();
        let heard = [Signal::SIGCHLD, Signal::SIGPIPE].into_iter().chain(RELOAD).chain(END);
        heard.for_each(|signal| mask.add(signal));
        // Whoever started us may have had SIGCHLD ignored, and no child's end would ever be told (wait(2)).
        crate::sys::process::default_signals()?;
        crate::sys::process::quiet_signals()?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        many_descriptors()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let journal = Journal::open()?;
        let patient = Instant::now() + PATIENCE;
        super::listen::directories(account.gid)?;
        let control = control::Control::open(patient)?;
        super::listen::sweep()?;
        let status = super::listen::until(patient, || super::listen::named(std::path::Path::new(STATUS), 0))
            .map_err(|refusal| io::Error::other(refusal.why))?;
        super::listen::set_blocking(&status, false)?;
        super::listen::set_blocking(&control, false)?;
        let supervisor = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            signals,
            manager: Manager::of(&environment),
            journal,
            grove: Grove::find(patient.max(Instant::now() + SECOND))?,
            pools: BTreeMap::new(),
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            zygotes: BTreeMap::new(),
            processes: HashMap::new(),
            reaped: Instant::now(),
            patient,
            graves: Vec::new(),
            timers: BTreeSet::new(),
            broker: broker::Broker::new(account),
            pulse: pulse::Pulse::new(),
            behind: behind::Behind::new(),
            control,
            kept: kept::Kept::of(&environment),
            own: run::Own::now(),
            accounts: accounts::Accounts::default(),
            left: BTreeMap::new(),
            null: Rc::new(std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into()),
            status: Rc::new(status),
            last_site: 0,
            last_worker: 0,
            last_zygote: 0,
            places_told: 0,
            quit_at: None,
        };
        supervisor.watch(&supervisor.signals, SIGNALS, EpollFlags::EPOLLIN)?;
        supervisor.watch(&supervisor.control, CONTROL, EpollFlags::EPOLLIN)?;
        Ok(supervisor)
    }
}

/// A socket for each site and some for each worker: as many as the kernel lets root have, or as many as there are. The broker
/// inherits it; workers get their site's own limit.
fn many_descriptors() -> io::Result<()> {
    if crate::sys::process::limit(Resource::OPEN_FILES, 1 << 20).is_err() {
        crate::sys::process::limit(
            Resource::OPEN_FILES,
            crate::sys::process::hard_limit(Resource::OPEN_FILES)?,
        )?;
    }
    Ok(())
}

/// All that a signal can ask for, whatever a daemon of the kind calls it: who is used to php-fpm sends SIGUSR1 to have logs opened
/// anew, SIGUSR2 to have everything read anew, and SIGQUIT to have requests finished.
const RELOAD: [Signal; 3] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
const END: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
/// The status service of the broker: root's alone.
pub const STATUS: &str = "/run/cellwall/status.sock";
const SECOND: Duration = Duration::from_secs(1);
/// What a killed daemon's children hold is waited for at the start: a child closes it first of all, when it gets the processor.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what runs may go on after SIGTERM.
const QUIT: Duration = Duration::from_secs(25);
const QUIT_MS: u64 = 20_000;
