//! CGI programs: a request's body into one, its answer out of it, framed as FastCGI.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{read, write};

use crate::pool::fastcgi::record::{kind, put};
use crate::pool::wire::{self, Busy, Ended, Up, Why};

use super::answers::{self, FOUND, Head};
use super::arena::Key;
use super::calls::State;
use super::gather::Pending;
use super::{Broker, ROUNDS, Source};

/// A run of a CGI program.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) site: u32,
    /// None: the web server went away, and the program is on its way out. Until it is gone, it takes a place.
    pub(super) call: Option<Key>,
    started: bool,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    pending: Pending,
    /// What has come of the head of its answer, which goes on in one piece; none: it has gone.
    head: Option<Vec<u8>>,
    /// The body is complete.
    body_end: bool,
    readable: bool,
    /// When it closed its output.
    closed: Option<u64>,
    /// Its answer is complete, and it goes on without its visitor until then.
    until: Option<u64>,
    /// How it ended, and its status for FastCGI.
    ended: Option<(Ended, u32)>,
}

impl Run {
    /// Does it run already?
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// Its pipe of this kind, and what is heard of it.
    pub(super) fn pipe(&self, source: Source) -> Option<(BorrowedFd<'_>, EpollFlags)> {
        let (pipe, flags) = match source {
            Source::RunInput => (&self.input, INPUT),
            Source::RunOutput => (&self.output, OUTPUT),
            Source::RunErrors => (&self.errors, OUTPUT),
            Source::Supervisor
            | Source::Listener
            | Source::Call
            | Source::Link
            | Source::Pipe
            | Source::Status
            | Source::Watcher => return None,
        };
        Some((pipe.as_ref()?.as_fd(), flags))
    }

    /// Does it take more of the body?
    pub(super) fn takes(&self) -> bool {
        self.started && self.pending.is_empty()
    }

    /// Some of the body, or with no bytes its end.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.body_end = true;
        } else if self.input.is_some() {
            self.pending.put(bytes);
        }
    }
}

/// A program that has closed its output has so long to end before its answer is taken for complete.
const LEAVES_US: u64 = 100_000;

/// Bytes of a head that are waited for; a longer one goes on as it is.
const HEAD_MOST: usize = 8 * 1024;

const INPUT: EpollFlags = EpollFlags::EPOLLOUT.union(EpollFlags::EPOLLET);
const OUTPUT: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

impl Broker {
    /// Asks for a program. `false`: the kernel gives no memory file; the request waits.
    pub(super) fn begin_run(&mut self, key: Key) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return true };
        let Some(job) = &mut call.job else { return true };
        let Ok(environment) = sealed(&job.bytes) else { return false };
        job.bytes = Vec::new();
        (job.started, job.last) = (self.now, self.now);
        let number = call.site;
        let run = self.runs.insert(Run {
            site: number,
            call: Some(key),
            started: false,
            input: None,
            output: None,
            errors: None,
            pending: Pending::default(),
            head: Some(Vec::new()),
            body_end: false,
            readable: false,
            closed: None,
            until: None,
            ended: None,
        });
        call.state = State::Running(run);
        let message = Up::Run { site: wire::Site(number), token: wire::Token(run.0) };
        self.say_with(message, vec![Rc::new(environment)]);
        self.started(number, key);
        true
    }

    /// It runs.
    pub(super) fn run_started(&mut self, key: Key, with: Vec<OwnedFd>) {
        let mut with = with.into_iter();
        let (Some(input), Some(output), Some(errors)) = (with.next(), with.next(), with.next()) else {
            return;
        };
        let Some(run) = self.runs.get_mut(key) else { return };
        run.started = true;
        let call = run.call;
        (run.input, run.output, run.errors) = (Some(input), Some(output), Some(errors));
        for source in [Source::RunInput, Source::RunOutput, Source::RunErrors] {
            self.watch_over(source, key);
        }
        let Some(call) = call else { return self.end_run(key, Why::Abandoned) };
        let held = self.calls.get_mut(call).map(|call| std::mem::take(&mut call.held)).unwrap_or_default();
        self.understand(call, &held);
        if self.calls.get(call).is_some_and(|call| call.readable) {
            self.again.push((Source::Call, call));
        }
    }

    /// It does not run.
    pub(super) fn run_refused(&mut self, key: Key, why: Busy) {
        let Some(run) = self.runs.remove(key) else { return };
        self.run_is_gone(run.site);
        let Some(call) = run.call else { return self.dispatch(run.site) };
        self.part_from_run(call);
        let refusal = match why {
            Busy::Full => answers::full(),
            Busy::Stopped => answers::paused(),
            Busy::Exhausted => answers::exhausted(),
        };
        self.failed(call, 503, &refusal);
    }

    /// The body goes on, as far as the program reads. One that does not want it has closed its end: that is no error.
    pub(super) fn run_input(&mut self, key: Key) {
        let Some(run) = self.runs.get_mut(key) else { return };
        let Some(input) = &run.input else { return run.pending.clear() };
        match run.pending.write(input) {
            Ok(true) if run.body_end => run.input = None,
            Ok(true) => {
                if let Some(call) = run.call
                    && self.calls.get(call).is_some_and(|call| call.readable)
                {
                    self.again.push((Source::Call, call));
                }
            }
            Ok(false) => {}
            Err(_) => {
                run.input = None;
                run.pending.clear();
                if let Some(call) = run.call {
                    self.again.push((Source::Call, call));
                }
            }
        }
    }

    /// The web server takes more again.
    pub(super) fn run_resumes(&mut self, key: Key) {
        if self.runs.get(key).is_some_and(|run| run.readable) {
            self.again.push((Source::RunOutput, key));
        }
    }

    pub(super) fn run_output(&mut self, key: Key) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let (mut more, mut complete) = (true, false);
        for _ in 0..ROUNDS {
            let Some(run) = self.runs.get_mut(key) else { break };
            let slow =
                run.call.and_then(|call| self.calls.get(call)).is_some_and(|call| !call.pending.is_empty());
            run.readable = slow;
            let Some(output) = run.output.as_ref().filter(|_| !slow) else {
                more = false;
                break;
            };
            match read(output, &mut buffer) {
                Ok(0) => {
                    (run.output, run.closed) = (None, Some(self.now));
                    let rest = run.head.take().filter(|rest| !rest.is_empty());
                    if let (Some(rest), Some(call)) = (rest, run.call) {
                        self.relay_piece(call, &rest, true);
                    }
                    (more, complete) = (false, true);
                    break;
                }
                // A pipe's short read says nothing about its end, which makes no edge of its own.
                Ok(length) => self.relay_run(key, buffer.get(..length).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        if complete {
            self.wake_at(self.now.saturating_add(LEAVES_US));
            self.run_complete(key);
        }
        // One that is gone by now has nothing more, whatever was asked for before.
        if more && self.runs.get(key).is_some_and(|run| run.output.is_some()) {
            self.again.push((Source::RunOutput, key));
        }
    }

    /// Passes on what has come. The head is held back until it is whole: a shell writes it line by line, and only then it can be
    /// told what it lacks.
    fn relay_run(&mut self, key: Key, bytes: &[u8]) {
        let Some(run) = self.runs.get_mut(key) else { return };
        let Some(call_key) = run.call else { return };
        let Some(call) = self.calls.get_mut(call_key) else { return };
        let Some(mut held) = run.head.take() else { return self.relay_piece(call_key, bytes, false) };
        if let Some(job) = &mut call.job {
            job.last = self.now;
        }
        if held.is_empty() && Head::of(bytes).whole {
            return self.relay_piece(call_key, bytes, true);
        }
        held.extend_from_slice(bytes);
        let may_end = bytes.contains(&b'\n');
        if held.len() < HEAD_MOST && !(may_end && Head::of(&held).whole) {
            run.head = Some(held);
        } else {
            self.relay_piece(call_key, &held, true);
        }
    }

    fn relay_piece(&mut self, call_key: Key, bytes: &[u8], first: bool) {
        self.gather.clear();
        let Some(call) = self.calls.get_mut(call_key) else { return };
        if let Some(job) = &mut call.job {
            if first {
                let head = Head::of(bytes);
                job.status = head.status().unwrap_or(job.status);
                if head.redirects() {
                    let id = call.codec.request().id;
                    self.gather.copy(|out| put(out, kind::STDOUT, id, FOUND));
                }
            }
            job.last = self.now;
            job.sent = job.sent.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        self.gather.record(kind::STDOUT, call.codec.request().id, bytes, 0..bytes.len());
        self.write_answer(call_key, bytes);
    }

    /// A program said something. It is read at once, unless its site floods.
    pub(super) fn run_speaks(&mut self, key: Key) {
        let site = self.runs.get(key).map_or(u32::MAX, |run| run.site);
        if !self.holds(site, Source::RunErrors, key) {
            self.run_errors(key);
        }
    }

    fn run_errors(&mut self, key: Key) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..ROUNDS {
            let Some(run) = self.runs.get_mut(key) else { break };
            let Some(errors) = &run.errors else { break };
            more = match read(errors, &mut buffer) {
                Ok(0) => {
                    run.errors = None;
                    false
                }
                Ok(length) => {
                    if let Some(site) = self.sites.get_mut(&run.site) {
                        let bytes = buffer.get(..length).unwrap_or_default();
                        self.journal.errors(site, None, bytes, self.now);
                    }
                    true
                }
                Err(Errno::EINTR) => true,
                Err(_) => false,
            };
            if !more {
                break;
            }
        }
        self.buffer = buffer;
        if more && self.runs.get(key).is_some_and(|run| run.errors.is_some()) {
            self.again.push((Source::RunErrors, key));
        }
    }

    /// The supervisor saw its end. What it wrote may still have to be read.
    pub(super) fn run_ended(&mut self, key: Key, how: Ended, code: u32) {
        let Some(run) = self.runs.get_mut(key) else { return };
        run.ended = Some((how, code));
        self.run_complete(key);
    }

    /// Output and program have both ended: the answer is complete.
    fn run_complete(&mut self, key: Key) {
        let Some(run) = self.runs.get(key) else { return };
        let Some((how, code)) = run.ended else { return };
        if run.output.is_some() {
            return self.again.push((Source::RunOutput, key));
        }
        // Words for the log may have come together with the end.
        self.run_errors(key);
        let Some(run) = self.runs.remove(key) else { return };
        let Some(call) = run.call else {
            self.run_is_gone(run.site);
            return self.dispatch(run.site);
        };
        if self.calls.get(call).and_then(|call| call.job.as_ref()).is_none_or(|job| job.sent == 0) {
            self.run_is_gone(run.site);
            self.part_from_run(call);
            return self.failed(call, 502, &answers::died());
        }
        // A signal's number is told as a shell does, beyond 128.
        let status = if how == Ended::Exited { code } else { code.saturating_add(128) };
        self.gather.clear();
        if let Some(call) = self.calls.get(call) {
            self.gather.end(call.codec.request().id, status);
        }
        self.write_answer(call, &[]);
        self.run_is_gone(run.site);
        self.settle(call);
        self.answered(call);
        self.dispatch(run.site);
    }

    /// Programs that have closed their output and work on, as one does that lets its visitor go first: the answer is complete. What
    /// they take of the site's they keep, and of the request's time. Returns when the next one is due.
    pub(super) fn runs_due(&mut self) -> u64 {
        let (mut next, mut answered, mut over) = (u64::MAX, Vec::new(), Vec::new());
        for (key, run) in self.runs.iter().filter(|(_, run)| run.ended.is_none()) {
            let leaves = run.closed.filter(|_| run.call.is_some());
            let due = match leaves.map(|closed| closed.saturating_add(LEAVES_US)) {
                Some(due) if due <= self.now => {
                    answered.push(key);
                    continue;
                }
                None if run.until.is_some_and(|until| until <= self.now) => {
                    over.push(key);
                    continue;
                }
                Some(due) => due,
                None => run.until.unwrap_or(u64::MAX),
            };
            next = next.min(due);
        }
        for key in answered {
            next = next.min(self.run_leaves(key));
        }
        over.into_iter().for_each(|key| self.end_lonely(key, Why::Deadline));
        next
    }

    /// Returns until when it may work on. One that has said nothing may not: its visitor waits for a page that tells why.
    fn run_leaves(&mut self, key: Key) -> u64 {
        let Some(run) = self.runs.get_mut(key) else { return u64::MAX };
        let call = run.call.and_then(|call| Some((call, self.calls.get(call)?)));
        let Some((call_key, call)) = call else { return u64::MAX };
        let Some(job) = call.job.as_ref().filter(|job| job.sent > 0) else { return u64::MAX };
        let limit = self.sites.get(&run.site).map_or(0, |site| site.rules.request.deadline_ms);
        let until = match limit {
            0 => u64::MAX,
            ms => job.started.saturating_add(u64::from(ms).saturating_mul(1000)),
        };
        (run.call, run.until, run.input) = (None, Some(until), None);
        self.gather.clear();
        self.gather.end(call.codec.request().id, 0);
        self.write_answer(call_key, &[]);
        self.settle(call_key);
        self.answered(call_key);
        until
    }

    /// Ends a program that works on without its visitor.
    pub(super) fn end_lonely(&mut self, key: Key, why: Why) {
        if self.runs.get_mut(key).is_some_and(|run| run.until.take().is_some()) {
            self.end_run(key, why);
        }
    }

    /// There is room for another one.
    fn run_is_gone(&mut self, number: u32) {
        if let Some(site) = self.sites.get_mut(&number) {
            site.running = site.running.saturating_sub(1);
        }
    }

    fn part_from_run(&mut self, call: Key) {
        if let Some(call) = self.calls.get_mut(call) {
            call.state = State::Head;
        }
    }

    /// Ends a program whose request is given up.
    pub(super) fn end_run(&mut self, key: Key, why: Why) {
        let Some(run) = self.runs.get_mut(key) else { return };
        let number = run.site;
        (run.input, run.output) = (None, None);
        if let Some(call) = run.call.take() {
            self.part_from_run(call);
        }
        self.say(Up::EndRun { site: wire::Site(number), token: wire::Token(key.0), why });
    }
}

/// A memory file that nobody can change any more. Who reads it goes to its beginning.
fn sealed(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let file = memfd_create(c"cgi", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}
