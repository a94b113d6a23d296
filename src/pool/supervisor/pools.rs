//! Which pools there are. A reload touches only what has changed; what is wrong with one site is that site's own affair.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::refusal::{Card, Pasted, Refusal};

use super::super::journal::Journal;
use super::super::life::{Failures, Spacing};
use super::super::listen;
use super::super::outlook::Outlook;
use super::super::settings::{self, Accept, Kind, Life, Listen, Settings, Workers};
use super::super::tree;
use super::super::wire::{Down, Site};
use super::doubt::Doubt;
use super::records::{Found, RECORD};
use super::runs::Serial;
use super::{Supervisor, Timer, behind, stopped};

/// One pool.
pub(super) struct Pool {
    pub(super) name: Vec<u8>,
    pub(super) uid: u32,
    /// Its settings, as `apply` wrote them.
    pub(super) record: Rc<[u8]>,
    /// The rules that its workers were started under ([`settings::rules`]).
    pub(super) rules: u64,
    /// Counts changes of the settings, for the broker.
    pub(super) generation: u32,
    /// Counts what makes all workers old: changes of the settings, deployments, restarts.
    pub(super) epoch: u32,
    pub(super) kind: Kind,
    pub(super) accept: Accept,
    pub(super) numbers: Workers,
    pub(super) life: Life,
    /// What a request may take; 0: no limit.
    pub(super) deadline_ms: u32,
    /// The broker wants to know what each worker or run spends.
    pub(super) metered: bool,
    pub(super) socket: Public,
    /// Where it listens, to see whether that has changed.
    pub(super) place: Vec<u8>,
    /// The broker was told, and has not said yet, that it accepts here no more. Until then the socket may not block: the broker
    /// could be about to accept a connection that is gone, and would wait for the next one while all other sites wait for it.
    pub(super) yielding: bool,
    /// The broker was told, and has not said yet, that the site is not stopped any more.
    pub(super) resuming: bool,
    /// Workers that accept for themselves do not start: the broker accepts, and tells visitors so.
    pub(super) stands_in: bool,
    /// The broker could not be told of this.
    untold: bool,
    pub(super) group: u32,
    pub(super) paused: bool,
    /// What the broker wants.
    pub(super) wanted: u32,
    pub(super) failures: Failures,
    /// CPU time of all its workers and runs since it is there, in microseconds.
    pub(super) cpu_us: u64,
    /// The end of a worker that may count as a failed start.
    pub(super) doubted: Option<Doubt>,
    /// Workers were ended too early.
    pub(super) spacing: Spacing,
    /// No start before.
    pub(super) not_before: Option<Instant>,
    /// Workers of an older epoch wait for the first of this one to prove itself.
    pub(super) proving: bool,
    /// When somebody asked last for new workers and got them.
    pub(super) renewed: Option<Instant>,
    /// Somebody has asked since: they are renewed once more.
    pub(super) renewal_asked: bool,
    /// When it was told last that another daemon is in its control group.
    pub(super) taken_told: Option<Instant>,
    /// The kernel's count of kills for want of memory, when it was last looked at.
    pub(super) memory_kills: u64,
    pub(super) zygotes: Vec<Serial>,
    /// What of the host they rely on.
    pub(super) outlook: Option<Rc<Outlook>>,
}

impl Pool {
    /// A program expects that it waits, the broker that it does not.
    pub(super) fn set_blocking(&self) {
        let blocks = self.accept == Accept::Direct && !self.yielding && !self.paused && !self.stands_in;
        // Of a descriptor that is ours, with flags that the kernel knows.
        let _ = listen::set_blocking(&self.socket.listener, blocks);
    }

    /// New settings, but for where it listens.
    fn follow(&mut self, settings: &Settings<'_>, found: &Found) {
        let direct = settings.accept == Accept::Direct;
        self.socket.held |= direct;
        self.stands_in &= direct;
        (self.uid, self.group) = (found.uid, settings.group);
        (self.record, self.rules) = (Rc::clone(&found.record), found.rules);
        self.generation = self.generation.saturating_add(1);
        (self.kind, self.accept) = (settings.kind, settings.accept);
        (self.numbers, self.life) = (settings.workers, settings.worker);
        self.deadline_ms = settings.request.deadline_ms;
        self.metered = is_metered(settings);
    }

    /// The socket's path, where it has one and we made it.
    fn own_path(&self) -> Option<PathBuf> {
        path_of(&self.place).filter(|_| self.socket.ours)
    }

    /// Workers of another user than this one have the socket, and may have given it to anybody: the site needs a new one.
    fn is_anothers(&self, uid: u32) -> bool {
        self.uid != uid && self.socket.held && self.socket.ours
    }

    /// The same, and it is not for us to make one.
    fn is_the_managers(&self, uid: u32) -> bool {
        self.uid != uid && self.socket.held && !self.socket.ours
    }

    /// We made the socket, and somebody has removed its name: nobody can connect any more.
    fn is_gone(&self) -> bool {
        let facts = self.own_path().map(|path| path.symlink_metadata());
        facts.is_some_and(|facts| facts.is_err_and(|why| why.kind() == io::ErrorKind::NotFound))
    }
}

/// A public socket.
#[derive(Clone)]
pub(super) struct Public {
    pub(super) listener: Rc<OwnedFd>,
    /// We made it, and not the service manager.
    pub(super) ours: bool,
    /// Workers of its site have it, or had it and may have kept it: it is never another site's.
    pub(super) held: bool,
    /// The service manager has it by this name.
    pub(super) kept: Option<Rc<str>>,
}

impl Supervisor {
    /// Reads all records for the first time.
    pub(super) fn load(&mut self) {
        let (found, _) = self.read_all();
        for (name, found) in found {
            self.add(name, &found);
        }
        // From now on nobody waits for anything.
        self.patient = Instant::now();
        self.after(super::SECOND, super::Timer::Second);
    }

    /// SIGHUP, and `cellwall apply`: only what has changed is touched. A record that cannot be used leaves its site as it was.
    /// False: there was one.
    pub(super) fn reload(&mut self) -> bool {
        self.manager.reloading();
        let log_used = self.reopen_log();
        let (mut found, all_used) = self.read_all();
        let known: BTreeMap<Vec<u8>, Site> =
            self.pools.iter().map(|(site, pool)| (pool.name.clone(), *site)).collect();
        for (name, site) in &known {
            match found.get(name) {
                Some(found) => self.leave(*site, found),
                None => self.remove(*site),
            }
        }
        for (name, site) in known {
            if let Some(found) = found.remove(&name) {
                self.change(site, &found);
            }
        }
        for (name, found) in found {
            self.add(name, &found);
        }
        self.remove_left();
        self.manager.ready();
        self.tell_status();
        self.keep_sockets();
        log_used && all_used
    }

    /// The log, where the host's record has it by now. False: that record cannot be used, and the log is as it was.
    fn reopen_log(&mut self) -> bool {
        match Journal::open() {
            Ok(journal) => {
                self.journal = journal;
                self.welcome_again();
                true
            }
            Err(why) => {
                self.journal.refused(b"-", &Refusal::new(&RECORD, why.to_string()));
                false
            }
        }
    }

    fn add(&mut self, name: Vec<u8>, found: &Found) {
        let Ok(settings) = settings::settings(&found.record) else { return };
        let (place, group) = (place(settings.listen), settings.group);
        let paused = stopped::is(&name);
        if paused {
            self.journal.say("stopped", &name, &format!("fix=\"cellwall pool start {}\"", Pasted(&name)));
        }
        let mut socket = match self.socket(&settings, found.uid) {
            Ok(socket) => socket,
            Err(refusal) => return self.journal.refused(&name, &refusal),
        };
        socket.held |= settings.accept == Accept::Direct;
        self.grove.clear(Path::new(OsStr::from_bytes(settings.group_directory)));
        behind::free(&settings);
        self.last_site = self.last_site.saturating_add(1);
        let site = Site(self.last_site);
        let pool = Pool {
            name,
            uid: found.uid,
            record: Rc::clone(&found.record),
            rules: found.rules,
            generation: 1,
            epoch: 1,
            kind: settings.kind,
            accept: settings.accept,
            numbers: settings.workers,
            life: settings.worker,
            deadline_ms: settings.request.deadline_ms,
            metered: is_metered(&settings),
            socket,
            yielding: false,
            resuming: false,
            stands_in: false,
            untold: false,
            place,
            group,
            paused,
            wanted: 0,
            failures: Failures::default(),
            cpu_us: 0,
            doubted: None,
            spacing: Spacing::default(),
            not_before: None,
            proving: false,
            renewed: None,
            renewal_asked: false,
            taken_told: None,
            zygotes: Vec::new(),
            outlook: None,
            memory_kills: tree::kills_for_memory(Path::new(OsStr::from_bytes(settings.memory_directory))),
        };
        self.pools.insert(site, pool);
        self.settle(site);
        self.fill(site);
    }

    /// New settings. The socket stays where it stays the same; workers of the old settings are replaced one by one.
    fn change(&mut self, site: Site, found: &Found) {
        if self.pools.get(&site).is_some_and(Pool::is_gone) {
            self.listen_again(site, "the socket was gone");
            self.settle(site);
        }
        let Some(pool) = self.pools.get(&site) else { return };
        let same_rules = pool.rules == found.rules;
        if pool.record == found.record && pool.uid == found.uid && same_rules {
            // Its logs may have been put away meanwhile.
            return self.tell_lines(site);
        }
        let Ok(settings) = settings::settings(&found.record) else { return };
        let (place, group) = (place(settings.listen), settings.group);
        let moved = pool.place != place || pool.is_anothers(found.uid);
        let name = pool.name.clone();
        if pool.is_the_managers(found.uid) {
            return self.journal.refused(&name, &held(&name));
        }
        // One that was handed over has the group that whoever made it wants.
        if let Some(path) = pool.own_path().filter(|_| !moved && pool.group != group)
            && let Err(refusal) = listen::regroup(&path, group)
        {
            return self.journal.refused(&name, &refusal);
        }
        let socket = match moved.then(|| self.socket(&settings, found.uid)) {
            None => None,
            Some(Ok(socket)) => Some(socket),
            Some(Err(refusal)) => return self.stay(site, &name, &refusal),
        };
        let Some(pool) = self.pools.get_mut(&site) else { return };
        // A worker lives in the cell that it was started in.
        let same_program = same_rules && same_program(&pool.record, &found.record) && pool.uid == found.uid;
        // One that accepts for itself has its socket.
        let goes_on = same_program && !(moved && settings.accept == Accept::Direct);
        if let Some(socket) = socket {
            (pool.socket, pool.place) = (socket, place);
        }
        let accepted = pool.yielding || pool.accept == Accept::Relay;
        pool.follow(&settings, found);
        pool.yielding = accepted && pool.accept == Accept::Direct && self.broker.is_alive();
        self.journal.say("change", &name, "");
        self.settle(site);
        if goes_on { self.resize(site) } else { self.replace(site) }
    }

    fn remove(&mut self, site: Site) {
        self.tell_broker(&Down::SiteGone { site }, Vec::new());
        self.stop_workers(site);
        self.stop_runs(site);
        if let Some(pool) = self.pools.remove(&site) {
            self.journal.say("remove", &pool.name, "");
            // Another one that comes by this name has been stopped by nobody. Where that cannot be written, its log says so then.
            drop(stopped::write_down(&pool.name, false));
            self.left.insert(pool.place, pool.socket);
        }
    }

    /// Who is to listen elsewhere leaves his socket first: another site may be waiting for it.
    fn leave(&mut self, site: Site, found: &Found) {
        let Ok(settings) = settings::settings(&found.record) else { return };
        let moves = |pool: &&Pool| pool.place != place(settings.listen) || pool.is_anothers(found.uid);
        if let Some(pool) = self.pools.get(&site).filter(moves) {
            self.left.insert(pool.place.clone(), pool.socket.clone());
        }
    }

    /// It cannot listen where it should: it stays where it was, unless another site is there by now.
    fn stay(&mut self, site: Site, name: &[u8], refusal: &Refusal) {
        self.journal.refused(name, refusal);
        let place = self.pools.get(&site).map(|pool| pool.place.clone());
        if place.is_some_and(|place| self.left.remove(&place).is_none()) {
            self.remove(site);
        }
    }

    /// Names of sockets that nobody has taken.
    fn remove_left(&mut self) {
        for (place, left) in std::mem::take(&mut self.left) {
            let is_taken = self.pools.values().any(|pool| pool.place == place);
            // A name that stays leads nowhere: whoever asks there is turned away at once.
            if let Some(path) = path_of(&place).filter(|_| left.ours && !is_taken) {
                drop(std::fs::remove_file(path));
            }
        }
    }

    /// The socket for these settings: one that another site leaves, one of before, or a new one.
    fn socket(&mut self, settings: &Settings<'_>, uid: u32) -> Result<Public, Refusal> {
        let place = place(settings.listen);
        if let Some(left) = self.left.remove(&place) {
            // Else its name alone is handed on: whoever had the socket may be about to accept there.
            let whole = !left.held && settings.accept == Accept::Relay;
            match path_of(&place).filter(|_| left.ours) {
                Some(path) if whole => listen::regroup(&path, settings.group)?,
                // What is in the way of the new one is told where that is made.
                Some(path) => drop(std::fs::remove_file(path)),
                // An address is free when nobody listens there, and whoever had this socket has it still.
                None if left.ours && !whole => listen::shut(&left.listener),
                None => {}
            }
            if whole {
                return Ok(left);
            }
        }
        match self.take_over(settings, uid)? {
            Some(socket) => Ok(socket),
            None => {
                let listener =
                    listen::until(self.patient, || listen::public(settings.listen, settings.group));
                let listener = Rc::new(listener?);
                Ok(Public { listener, ours: true, held: false, kept: None })
            }
        }
    }

    /// A broker that was taken over may have shut a public socket down (shutdown(2)), which holds for all who have it: the next
    /// one gets another.
    pub(super) fn revive(&mut self, site: Site) {
        if self.pools.get(&site).is_some_and(|pool| listen::is_shut(&pool.socket.listener)) {
            self.listen_again(site, "the socket was shut down");
        }
    }

    fn listen_again(&mut self, site: Site, why: &str) {
        let Some(pool) = self.pools.get(&site) else { return };
        let (name, record, uid) = (pool.name.clone(), Rc::clone(&pool.record), pool.uid);
        let Ok(settings) = settings::settings(&record) else { return };
        let socket = match self.socket(&settings, uid) {
            Ok(made) => made,
            Err(refusal) => return self.journal.refused(&name, &refusal),
        };
        self.journal.say("listen", &name, &format!("why=\"{why}\""));
        if let Some(pool) = self.pools.get_mut(&site) {
            pool.socket = socket;
            pool.socket.held |= pool.accept == Accept::Direct;
            pool.set_blocking();
            if pool.accept == Accept::Direct {
                self.replace(site);
            }
            self.keep_sockets();
        }
    }

    /// The socket is for the broker or for the workers; the broker hears of it.
    fn settle(&mut self, site: Site) {
        if let Some(pool) = self.pools.get(&site) {
            pool.set_blocking();
        }
        self.tell_site(site);
    }

    /// The broker has these settings of a site. Where its workers accept, it does so no more.
    pub(super) fn taken(&mut self, site: Site, generation: u32) {
        let Some(pool) = self.pools.get_mut(&site).filter(|pool| pool.generation == generation) else {
            return;
        };
        pool.resuming = false;
        self.yielded(site);
        self.answer_waiting();
    }

    /// The broker is gone, and with it whatever it was about to do. The next one hears how it is now.
    pub(super) fn all_yielded(&mut self) {
        let all: Vec<Site> = self.pools.keys().copied().collect();
        all.into_iter().for_each(|site| self.yielded(site));
    }

    fn yielded(&mut self, site: Site) {
        let Some(pool) = self.pools.get_mut(&site).filter(|pool| pool.yielding) else { return };
        pool.yielding = false;
        pool.set_blocking();
        self.fill(site);
    }

    /// Workers that accept for themselves do not start, and none is left: whoever asks would wait for nothing.
    pub(super) fn stand_in(&mut self, site: Site) {
        let lives = self.workers.values().any(|one| one.site == site && one.state.serves());
        let Some(pool) = self.pools.get_mut(&site) else { return };
        if pool.accept != Accept::Direct || pool.paused || pool.stands_in || lives {
            return;
        }
        pool.stands_in = true;
        pool.set_blocking();
        self.tell_broker(&Down::StandIn { site }, Vec::new());
    }

    /// They are tried once more: the broker accepts no more before one is started.
    pub(super) fn stand_down(&mut self, site: Site) {
        let alive = self.broker.is_alive();
        let Some(pool) = self.pools.get_mut(&site) else { return };
        (pool.stands_in, pool.yielding) = (false, alive);
        pool.set_blocking();
        self.tell_broker(&Down::Resume { site }, Vec::new());
    }

    /// Tells the broker of a site, or of its new settings.
    pub(super) fn tell_site(&mut self, site: Site) {
        if !self.broker.is_alive() {
            return;
        }
        let Some(pool) = self.pools.get(&site) else { return };
        let message = Down::Site { site, generation: pool.generation };
        let (listener, record) = (Rc::clone(&pool.socket.listener), Rc::clone(&pool.record));
        let (paused, stands_in) = (pool.paused, pool.stands_in);
        let told = memory_file(&record);
        if let Some(pool) = self.pools.get_mut(&site) {
            pool.untold = told.is_err();
        }
        match told {
            Ok(file) => self.tell_broker(&message, vec![listener, Rc::new(file)]),
            Err(errno) => {
                self.journal.say("error", b"", &format!("call=memfd_create why=\"{}\"", errno.desc()));
                return self.after(AGAIN, Timer::Tell(site));
            }
        }
        if paused {
            self.tell_broker(&Down::Pause { site }, Vec::new());
        } else if stands_in {
            self.tell_broker(&Down::StandIn { site }, Vec::new());
        }
        self.tell_lines(site);
    }

    /// What the broker could not be told of a site: nobody would accept for it.
    pub(super) fn tell_timer(&mut self, site: Site) {
        if self.pools.get(&site).is_some_and(|pool| pool.untold) {
            self.tell_site(site);
            self.tell_workers(site);
        }
    }

    /// STATUS of the service manager, which `systemctl status` shows.
    pub(super) fn tell_status(&mut self) {
        let (pools, workers) = (self.pools.len(), self.workers.len());
        let state = if self.broker.is_alive() { "" } else { ", broker starts" };
        self.manager.show(format!("{pools} pools, {workers} workers{state}"));
    }

    /// At the end: public sockets that we made, but those that the next daemon gets.
    pub(super) fn remove_sockets(&self) {
        let ending = self.pools.values().filter(|pool| pool.socket.kept.is_none());
        for path in ending.filter_map(Pool::own_path) {
            drop(std::fs::remove_file(path));
        }
        drop(std::fs::remove_file(super::STATUS));
    }
}

/// A socket of the service manager's, which the site's former user has as well.
fn held(name: &[u8]) -> Refusal {
    let fix = format!(
        "systemctl stop cellwalld && systemctl restart cellwalld@{0}.socket && systemctl start cellwalld",
        Pasted(name)
    );
    let why = "processes of the user of before have its socket, which the service manager made".to_owned();
    Refusal { card: &HELD, why, fix }
}

/// Workers of the one can go on under the other: program, kind, way of accepting and children are the same.
fn same_program(one: &[u8], other: &[u8]) -> bool {
    let (Ok(one), Ok(other)) = (settings::settings(one), settings::settings(other)) else { return false };
    one.command == other.command
        && one.kind == other.kind
        && one.accept == other.accept
        && one.workers.connections == other.workers.connections
}

/// Somebody wants to know what each request spends. Those that share a worker cannot be told apart.
fn is_metered(settings: &Settings<'_>) -> bool {
    settings.kind != Kind::Parent && settings.request.cpu_ms > 0
}

/// To be compared: where a pool listens.
fn place(listen: Listen<'_>) -> Vec<u8> {
    match listen {
        Listen::Socket(name) => name.to_vec(),
        Listen::Tcp(address) => format!("/{address}").into_bytes(),
    }
}

/// Where the socket of a place is; none: it is an address.
fn path_of(place: &[u8]) -> Option<PathBuf> {
    (!place.starts_with(b"/")).then(|| listen::path(place))
}

/// What is in it is what stays in it.
pub(super) fn memory_file(bytes: &[u8]) -> Result<OwnedFd, nix::errno::Errno> {
    let file = memfd_create(c"cellwall-pool", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(bytes).map_err(|_| nix::errno::Errno::ENOSPC)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Until the broker is told again of what it could not be told.
const AGAIN: Duration = Duration::from_secs(1);

/// Its remedy names the site.
static HELD: Card = Card { code: "S14", status: 88, remedy: "cellwall explain S14" };
