//! What workers answer: read, taken apart, framed anew for the web server, and counted.

use nix::errno::Errno;

use crate::pool::fastcgi::back::Event;
use crate::pool::fastcgi::record::{kind, put};
use crate::pool::fastcgi::{Broken, Ending, Role};
use crate::pool::wire::{self, Up, Why};

use super::answers::{self, FOUND, Head};
use super::arena::Key;
use super::links::Link;
use super::{Broker, ROUNDS, Source, heirs};

/// What a read brought.
#[derive(Debug, Default)]
struct Heard {
    end: Option<(u32, Ending)>,
    broken: Option<Broken>,
    stdout: u64,
    status: Option<u16>,
}

impl Broker {
    pub(super) fn read_link(&mut self, key: Key) {
        // What a worker that has ended left behind is read to its end.
        let wordy = |link: &&Link| link.wordy && self.workers.contains_key(&link.worker);
        let site = self.links.get(key).filter(wordy).map(|link| link.site);
        if site.is_some_and(|site| self.holds(site, Source::Link, key)) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..ROUNDS {
            let Some(link) = self.links.get_mut(key) else { break };
            let slow =
                link.call.and_then(|call| self.calls.get(call)).is_some_and(|call| !call.pending.is_empty());
            link.readable = slow;
            if slow {
                break;
            }
            more = match link.read(&mut buffer) {
                Ok(0) => self.link_lost(key),
                Ok(length) => {
                    let short = length < buffer.len() && !link.ending;
                    self.relay(key, buffer.get(..length).unwrap_or_default());
                    !short
                }
                Err(Errno::EINTR) => true,
                Err(Errno::EAGAIN) => false,
                Err(_) => self.link_lost(key),
            };
            if !more {
                break;
            }
        }
        self.buffer = buffer;
        if more && self.links.get(key).is_some_and(|link| !link.readable) {
            self.again.push((Source::Link, key));
        }
    }

    /// Passes a piece of an answer on.
    fn relay(&mut self, key: Key, bytes: &[u8]) {
        self.gather.clear();
        let heard = self.hear(key, bytes);
        let Some(link) = self.links.get(key) else { return };
        if link.orphan.is_some() {
            if heard.broken.is_some() || heard.end.is_some() {
                self.orphan_ends(key, heard.broken.is_none());
            }
            return;
        }
        let Some(call_key) = link.call else { return self.close_link(key) };
        let Some(call) = self.calls.get_mut(call_key) else { return self.close_link(key) };
        if let Some(job) = &mut call.job {
            job.last = self.now;
            job.sent = job.sent.saturating_add(heard.stdout);
            job.status = heard.status.unwrap_or(job.status);
        }
        let silent = call.job.as_ref().is_none_or(|job| job.sent == 0);
        let refused = heard.end.is_some_and(|(_, ending)| ending != Ending::Complete);
        if heard.broken.is_some() || (refused && silent) {
            return self.garbage(key, call_key);
        }
        if silent && heard.end.is_some() {
            // The web server would make a page of its own of it, which names no reference.
            let serial = link.worker;
            self.unbind(key, call_key, serial);
            return self.failed(call_key, 502, &answers::died());
        }
        if let Some((status, _)) = heard.end {
            self.gather.end(call.codec.request().id, status);
        }
        if !self.gather.is_empty() {
            self.write_answer(call_key, bytes);
        }
        if heard.end.is_some() {
            self.finished(key, call_key);
        }
    }

    /// Takes a piece of an answer apart, into `gather`.
    fn hear(&mut self, key: Key, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        let Some(link) = self.links.get_mut(key) else { return heard };
        let call = link.call.and_then(|call| self.calls.get(call));
        let id = call.map_or(0, |call| call.codec.request().id);
        let first = call.and_then(|call| call.job.as_ref()).is_none_or(|job| job.sent == 0);
        let responds = call.is_some_and(|call| call.codec.request().role == Role::Responder);
        let mut site = self.sites.get_mut(&link.site);
        let mut input = bytes;
        link.wordy = false;
        loop {
            match link.codec.next(&mut input) {
                Ok(None) => return heard,
                Ok(Some(Event::Stdout(part))) => {
                    if first && heard.stdout == 0 {
                        let head = Head::of(part);
                        heard.status = head.status();
                        if responds && head.redirects() {
                            self.gather.copy(|out| put(out, kind::STDOUT, id, FOUND));
                        }
                    }
                    heard.stdout = heard.stdout.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
                    let end = bytes.len().saturating_sub(input.len());
                    self.gather.record(kind::STDOUT, id, part, end.saturating_sub(part.len())..end);
                }
                Ok(Some(Event::Stderr(part))) => {
                    link.wordy = true;
                    if let Some(site) = &mut site {
                        self.journal.errors(site, Some(link.worker), &link.words.whole(part), self.now);
                        if site.rules.errors_to_server {
                            let end = bytes.len().saturating_sub(input.len());
                            self.gather.record(kind::STDERR, id, part, end.saturating_sub(part.len())..end);
                        }
                    }
                }
                Ok(Some(Event::End(status, ending))) => {
                    if let Some(site) = &mut site {
                        self.journal.errors(site, Some(link.worker), &link.words.rest(), self.now);
                    }
                    heard.end = Some((status, ending));
                    // What follows it makes the connection useless, and nothing else.
                    link.deaf |= !input.is_empty();
                    return heard;
                }
                Err(broken) => {
                    heard.broken = Some(broken);
                    return heard;
                }
            }
        }
    }

    /// A worker's answer is complete.
    fn finished(&mut self, key: Key, call_key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let serial = link.worker;
        link.call = None;
        link.rests(self.now);
        let proven = link.answered > 1;
        let whole = self.calls.get(call_key).is_some_and(|call| call.codec.whole());
        if link.ending {
            self.closed_by_its_worker(key);
        }
        let good = whole && self.is_left_empty(key);
        if let Some(site) = self.calls.get(call_key).and_then(|call| self.sites.get_mut(&call.site)) {
            site.running = site.running.saturating_sub(1);
        }
        self.settle(call_key);
        self.answered(call_key);
        let Some(worker) = self.workers.get_mut(&serial) else { return self.answered_last(key) };
        if let Some(site) = self.sites.get_mut(&worker.site.0).filter(|_| proven) {
            site.has_kept();
        }
        worker.requests += 1;
        worker.busy = worker.busy.saturating_sub(1);
        worker.idle_since = self.now;
        let (site, first) = (worker.site, !std::mem::replace(&mut worker.ready, true));
        let limit = self.sites.get(&site.0).map_or(0, |site| site.rules.worker_requests());
        let waits_for_heir = self.sites.get(&site.0).is_some_and(|site| site.leaving.has(serial));
        if heirs::is_done(worker.requests, limit, waits_for_heir) && worker.draining.is_none() {
            worker.draining = Some(Why::Requests);
        }
        let (draining, old) = (worker.draining.is_some(), heirs::is_old(worker, limit));
        let warm = worker.requests >= worker.connections.into();
        if first {
            self.say(Up::Ready { site, worker: wire::Worker(serial) });
        }
        if warm {
            self.is_warm(site.0, serial);
        }
        if old {
            self.look_for_heir(site.0, limit);
        }
        match self.sites.get_mut(&site.0) {
            Some(known) if good && !draining && known.keeps() => self.keep_or_renew(site.0, key),
            _ => self.close_link(key),
        }
        if draining {
            self.drained(serial);
        }
        self.dispatch(site.0);
        self.rest(site.0, serial);
    }

    /// The answer of a worker that has ended meanwhile: it may have been its first.
    fn answered_last(&mut self, key: Key) {
        if let Some((site, worker)) = self.links.get(key).map(|link| (link.site, link.worker)) {
            self.say(Up::Ready { site: wire::Site(site), worker: wire::Worker(worker) });
        }
        self.close_link(key);
    }

    /// Counts a request that ended by itself, and writes its lines.
    pub(super) fn settle(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let (Some(job), Some(site)) = (&call.job, self.sites.get_mut(&call.site)) else { return };
        site.counters.answered(job.status);
        site.counters.bytes_out = site.counters.bytes_out.saturating_add(job.sent);
        site.counters.worked.add(self.now.saturating_sub(job.started));
        self.brief += u64::from(site.load.answered());
        let status = job.status;
        self.access_line(key, status);
    }
}
