//! Who connects: listening for web servers, and accepting them as long as there are descriptors.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};

use crate::pool::fastcgi::front::Front;
use crate::sys::descriptors;

use super::arena::Key;
use super::calls::{Call, State, Watched};
use super::gather::Pending;
use super::site::Site;
use super::{Broker, Source};

/// Most connections of a site that have not sent all parameters; the oldest go first.
const HEADS_MAX: usize = 256;
/// Most bytes of parameters before a gate sees them; `environment.bytes_max` may be less.
const PARAMS_MAX: usize = 64 * 1024;
/// Descriptors that connections of web servers leave for workers, logs and orders.
const RESERVE: i32 = 64;
/// A crowded broker looks again after this.
const CROWDED_US: u64 = 100_000;

impl Broker {
    /// Accepts what waits on a site's socket.
    pub(super) fn arrivals(&mut self, key: Key) {
        let Ok(number) = u32::try_from(key.0) else { return };
        for _ in 0..16 {
            let Some(site) = self.sites.get(&number) else { return };
            match descriptors::accept(&site.listener) {
                Ok(fd) if fd.as_raw_fd() >= self.descriptors_max.saturating_sub(self.reserve()) => {
                    drop(fd);
                    return self.crowd();
                }
                Ok(fd) => self.arrive(number, fd),
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => return self.crowd(),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    fn reserve(&self) -> i32 {
        RESERVE.min(self.descriptors_max / 4)
    }

    /// Too many connections: they wait in the kernel's queues for a moment instead of being accepted in vain.
    fn crowd(&mut self) {
        if self.crowded.is_some() {
            return;
        }
        let until = self.now.saturating_add(CROWDED_US);
        self.crowded = Some(until);
        self.wake_at(until);
        for number in self.sites.keys().copied().collect::<Vec<_>>() {
            self.listen_to(number, false);
        }
    }

    /// After a while without free descriptors, connections are accepted again.
    pub(super) fn crowd_passes(&mut self) -> u64 {
        if self.crowded.is_some_and(|until| until <= self.now) {
            self.crowded = None;
            for number in self.sites.keys().copied().collect::<Vec<_>>() {
                self.listen_as_told(number);
            }
        }
        self.crowded.unwrap_or(u64::MAX)
    }

    /// Watches a site's socket, or stops.
    pub(super) fn listen_to(&mut self, number: u32, wanted: bool) {
        let wanted = wanted && self.crowded.is_none() && self.quit.is_none();
        let Some(site) = self.sites.get_mut(&number) else { return };
        if site.watched == wanted {
            return;
        }
        site.watched = wanted;
        if wanted {
            return self.watch_over(Source::Listener, Key(number.into()));
        }
        // ENOENT: it was not heard yet.
        let _ = self.epoll.delete(&site.listener);
    }

    /// As its rules say.
    pub(super) fn listen_as_told(&mut self, number: u32) {
        let wanted = self.sites.get(&number).is_some_and(Site::accepts);
        self.listen_to(number, wanted);
    }

    fn arrive(&mut self, number: u32, fd: OwnedFd) {
        let Some(site) = self.sites.get_mut(&number) else { return };
        if !is_client(site, &fd) {
            return self.stranger(number);
        }
        site.counters.connections += 1;
        site.calls += 1;
        let head_us = u64::from(site.rules.request.head_ms).saturating_mul(1000);
        let params_max = PARAMS_MAX.min(site.rules.gate.names.bytes_max.saturating_add(4096));
        let key = self.calls.insert(Call {
            fd,
            site: number,
            codec: Front::new(params_max),
            state: State::Head,
            job: None,
            held: Vec::new(),
            pending: Pending::default(),
            watched: Watched::Not,
            readable: false,
            ending: false,
            ended: false,
            lost: false,
            since: self.now,
            used: false,
            wide: false,
        });
        self.read_call(key);
        let Some(call) = self.calls.get(key) else { return };
        if call.state == State::Head {
            self.queue_head(number, key);
        }
        // A whole request that is answered soon needs no watching of its web server: that saves a call for each.
        // One that waits is not read any further either: its end may be in what is held.
        let whole = |call: &Call| call.codec.whole() || call.state == State::Queued;
        let whole = self.calls.get(key).is_some_and(|call| whole(call) && call.pending.is_empty());
        if whole {
            self.unwatched.push_back((self.now, key));
        } else {
            self.watch_call(key);
        }
        if head_us > 0 {
            self.wake_at(self.now.saturating_add(head_us));
        }
    }

    /// Most connections that have not asked yet: the oldest make room (a slow-loris has many, and they are old).
    fn queue_head(&mut self, number: u32, key: Key) {
        let Some(site) = self.sites.get_mut(&number) else { return };
        site.heads.push_back(key);
        if site.heads.len() <= HEADS_MAX {
            return;
        }
        site.heads
            .retain(|key| self.calls.get(*key).is_some_and(|call| call.state == State::Head && !call.used));
        if site.heads.len() > HEADS_MAX
            && let Some(oldest) = site.heads.pop_front()
        {
            self.close_call(oldest);
        }
    }
}

/// May whoever connected? Root may look.
fn is_client(site: &Site, fd: &OwnedFd) -> bool {
    if !site.rules.local {
        return true;
    }
    let peer = getsockopt(fd, sockopt::PeerCredentials);
    peer.is_ok_and(|peer| peer.uid() == 0 || site.rules.clients.contains(&peer.uid()))
}
