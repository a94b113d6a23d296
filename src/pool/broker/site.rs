//! One site, as the broker knows it: its settings, who waits, who works, and what was counted.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::launch::interpreter::is_php_cgi;
use crate::pool::gate::{Gate, Memory, Names};
use crate::pool::settings::{Accept, Kind, Life, Queue, Request, Settings, Workers};
use crate::pool::wire;
use crate::refusal::Untrusted;

use super::arena::Key;
use super::children::Children;
use super::counters::Counters;
use super::flood::Words;
use super::heirs::Leaving;
use super::lines::{Format, Limiter};
use super::load::Load;

/// Settings that come from the administrator.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) accept: Accept,
    pub(super) clients: Vec<u32>,
    /// A TCP socket has no peer to look at.
    pub(super) local: bool,
    pub(super) workers: Workers,
    pub(super) queue: Queue,
    pub(super) request: Request,
    pub(super) life: Life,
    /// See [`Settings::child_requests`].
    pub(super) child_requests: u32,
    /// Its program forks children and makes another one when one has ended, as PHP does: a stuck one can be ended alone.
    pub(super) makes_children: bool,
    /// Its program is PHP, which reads what its script did not, and skips the end of a body before the next request
    /// (`fcgi_read_request` in main/fastcgi.c).
    pub(super) reads_all: bool,
    pub(super) gate: Gate,
    pub(super) pages: Pages,
    pub(super) access: Option<Format>,
    pub(super) slow_us: u64,
    pub(super) errors_to_server: bool,
}

/// Pages that the broker answers itself. Empty: off.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) status: Vec<u8>,
    pub(super) ping: Vec<u8>,
    pub(super) pong: Vec<u8>,
}

impl Rules {
    pub(super) fn new(settings: &Settings<'_>, known: &mut HashSet<Rc<Names>>) -> Self {
        let seen = &settings.seen;
        let is_php = settings.command.first().is_some_and(|program| is_php_cgi(program));
        Self {
            name: Untrusted(settings.name).to_string(),
            kind: settings.kind,
            accept: settings.accept,
            clients: settings.clients.clone(),
            local: matches!(settings.listen, crate::pool::settings::Listen::Socket(_)),
            workers: settings.workers,
            queue: settings.queue,
            request: settings.request,
            life: settings.worker,
            child_requests: settings.child_requests(),
            makes_children: settings.kind == Kind::Parent && is_php,
            reads_all: is_php,
            gate: gate(settings, known),
            pages: Pages {
                status: seen.status_path.to_vec(),
                ping: seen.ping_path.to_vec(),
                pong: seen.ping_answer.to_vec(),
            },
            access: (!seen.access_log.is_empty()).then(|| Format::new(seen.access_format)),
            slow_us: u64::from(seen.slow_ms).saturating_mul(1000),
            errors_to_server: seen.errors_to_server,
        }
    }

    /// After so many requests a worker is replaced. 0: only its children are, or nothing is.
    pub(super) fn worker_requests(&self) -> u64 {
        if self.child_requests > 0 { 0 } else { self.life.requests.into() }
    }

    /// Requests that can be worked on at a time.
    pub(super) fn places(&self) -> u32 {
        self.workers.max.saturating_mul(self.workers.connections)
    }
}

/// Ten thousand sites with the same list share one.
fn gate(settings: &Settings<'_>, known: &mut HashSet<Rc<Names>>) -> Gate {
    let gate = &settings.gate;
    let boxed = |names: &[&[u8]]| names.iter().map(|name| Box::from(*name)).collect();
    let names = Names {
        pass: boxed(&gate.pass),
        prefixes: boxed(&gate.pass_prefixes),
        authorization: gate.authorization,
        entries_max: gate.entries_max.into(),
        bytes_max: usize::try_from(gate.bytes_max).unwrap_or(usize::MAX),
    };
    let names = match known.get(&names) {
        Some(shared) => Rc::clone(shared),
        None => {
            known.retain(|one| Rc::strong_count(one) > 1);
            let names = Rc::new(names);
            known.insert(Rc::clone(&names));
            names
        }
    };
    let owned = |list: &[&[u8]]| list.iter().map(|one| one.to_vec()).collect();
    Gate {
        names,
        docroots: owned(&gate.docroots),
        jail: gate.jail.to_vec(),
        endings: owned(&gate.suffixes),
        php: settings.command.first().is_some_and(|program| is_php_cgi(program)),
        programs: owned(&gate.programs),
        body_max: settings.request.body_max,
        memory: Memory::default(),
    }
}

/// What a site's program does with a connection that it was asked to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Nobody knows yet: after its first answer a connection is left alone for [`TRIAL_US`].
    Unknown,
    Keeps,
    /// It closes it all the same, as Ruby's FastCGI does. A request sent at that moment would be lost, and it must not be
    /// sent twice; so each gets a connection of its own.
    Closes,
}

impl Habit {
    /// A parent's children keep them, as far as there are such programs.
    pub(super) fn of(kind: Kind) -> Self {
        if kind == Kind::Parent { Self::Keeps } else { Self::Unknown }
    }
}

/// A program that will close its connection after the answer has done so by then, also on a machine with much to do.
pub(super) const TRIAL_US: u64 = 100_000;

/// One site.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) rules: Rules,
    pub(super) generation: u32,
    pub(super) listener: OwnedFd,
    /// The kernel is to tell about new connections.
    pub(super) watched: bool,
    pub(super) access: Option<OwnedFd>,
    pub(super) slow: Option<OwnedFd>,
    pub(super) errors: Option<OwnedFd>,
    pub(super) paused: bool,
    /// Its workers accept for themselves, and do not start: somebody has to answer.
    pub(super) stands_in: bool,
    /// Connections of web servers.
    pub(super) calls: u32,
    /// Those that have not sent all parameters, oldest first; some may be gone or further by now.
    pub(super) heads: VecDeque<Key>,
    /// Requests that wait, oldest first; some may be gone by now.
    pub(super) queue: VecDeque<Key>,
    /// How many of the queue are there.
    pub(super) waiting: u32,
    /// Requests that are worked on.
    pub(super) running: u32,
    /// Connections to workers that have nothing to do, the last used last.
    pub(super) idle: Vec<Key>,
    pub(super) workers: Vec<wire::Worker>,
    /// Those that accept for themselves, as far as their words are heard.
    pub(super) alone: u32,
    pub(super) leaving: Leaving,
    /// What [`wire::Up::Want`] said last.
    pub(super) wanted: u32,
    pub(super) habit: Habit,
    /// Workers do not start: the next try is then.
    pub(super) stalled_until: u64,
    pub(super) usage: Usage,
    pub(super) load: Load,
    pub(super) counters: Counters,
    pub(super) limiter: Limiter,
    pub(super) words: Words,
}

/// What [`wire::Down::Usage`] said last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) processes: u32,
    pub(super) memory: u64,
    pub(super) cpu_us: u64,
    pub(super) behind: bool,
}

impl Site {
    pub(super) fn new(rules: Rules, generation: u32, listener: OwnedFd, now: u64) -> Self {
        Self {
            habit: Habit::of(rules.kind),
            rules,
            generation,
            listener,
            watched: false,
            access: None,
            slow: None,
            errors: None,
            paused: false,
            stands_in: false,
            calls: 0,
            heads: VecDeque::new(),
            queue: VecDeque::new(),
            waiting: 0,
            running: 0,
            idle: Vec::new(),
            workers: Vec::new(),
            alone: 0,
            leaving: Leaving::default(),
            wanted: 0,
            stalled_until: 0,
            usage: Usage::default(),
            load: Load::default(),
            counters: Counters::new(now),
            limiter: Limiter::default(),
            words: Words::default(),
        }
    }

    /// Does the broker accept for it? Where workers do so, it does while they are stopped, or do not start: somebody has to
    /// answer.
    pub(super) fn accepts(&self) -> bool {
        self.rules.accept == Accept::Relay || self.paused || self.stands_in
    }

    /// May a connection to a worker be used again? Programs with threads hold a lock while one of them waits for the next
    /// request, as libfcgi's own example does: on a kept connection the lock would keep the other threads from all new
    /// ones.
    pub(super) fn keeps(&self) -> bool {
        let threads = self.rules.kind == Kind::Fastcgi && self.rules.workers.connections > 1;
        !threads && self.habit != Habit::Closes
    }

    /// A connection was used again, and answered on.
    pub(super) fn has_kept(&mut self) {
        if self.habit == Habit::Unknown {
            self.habit = Habit::Keeps;
        }
    }

    /// May one more wait? What workers could take at once does not count: they may be on their way.
    pub(super) fn may_wait(&self) -> bool {
        let room = self.rules.places().saturating_sub(self.running).saturating_add(self.rules.queue.length);
        self.waiting < room
    }

    /// Workers that all this work needs, and some to spare.
    pub(super) fn needed(&self) -> u32 {
        self.rules.workers.needed(self.running.saturating_add(self.waiting))
    }
}

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) site: wire::Site,
    /// Most connections at a time.
    pub(super) connections: u32,
    pub(super) open: u32,
    pub(super) busy: u32,
    /// Requests whose connection was closed while it worked on them.
    pub(super) stuck: u32,
    pub(super) requests: u64,
    /// What children have had whose connection was closed before they had all.
    pub(super) children: Children,
    pub(super) ready: bool,
    /// It was asked whether it is up, and gets no request before it has answered.
    pub(super) knocked: bool,
    /// It takes another one's place as soon as it is warm.
    pub(super) heir: bool,
    /// Gets nothing new, because of this.
    pub(super) draining: Option<wire::Why>,
    /// The supervisor was asked to end it.
    pub(super) dismissed: bool,
    pub(super) since: u64,
    pub(super) idle_since: u64,
}
