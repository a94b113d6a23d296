//! What administrators and site owners ask for: [`super::super::control`], by the kernel's word on who they are.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, sockopt::PeerCredentials};

use crate::sys::descriptors::{self, Waiting};
use crate::sys::fork;

use super::super::control::{FRAME, Outcome, SOCKET, Wish};
use super::super::listen;
use super::super::settings::Accept;
use super::super::wire::{Down, Site};
use super::pools::Pool;
use super::workers::target;
use super::{CLIENTS, CONTROL, Supervisor, stopped};

/// The listening socket and who is connected to it.
pub(super) struct Control {
    listener: OwnedFd,
    clients: BTreeMap<u64, Client>,
    /// Those that brought descriptors along: a child closes all of a second's, so that a crowd of them costs no crowd of children.
    doomed: Vec<OwnedFd>,
    /// Nobody could be accepted for want of descriptors or memory, and whoever knocks is not heard until the next second.
    deaf: bool,
}

struct Client {
    socket: OwnedFd,
    uid: u32,
    waits: Option<Waits>,
    since: Instant,
}

/// What it waits for.
#[derive(Debug, Clone, Copy)]
enum Waits {
    /// The workers of this site are all of this epoch.
    Renewal(Site, u32),
    /// This site's requests are served.
    Service(Site),
}

impl Control {
    pub(super) fn open(end: Instant) -> io::Result<Self> {
        let listener = listen::until(end, || listen::control(Path::new(SOCKET)));
        let listener = listener.map_err(|refusal| io::Error::other(refusal.why))?;
        Ok(Self { listener, clients: BTreeMap::new(), doomed: Vec::new(), deaf: false })
    }

    /// Another listening socket; who is connected stays so.
    pub(super) fn replace(&mut self, listener: OwnedFd) {
        self.listener = listener;
        self.deaf = false;
    }

    /// Not just closed: it is a stranger's, who sends what he likes.
    fn let_go(&mut self, socket: OwnedFd) {
        self.doomed.extend(descriptors::let_go(socket));
        if self.doomed.len() >= DOOMED_MAX {
            self.bury();
        }
    }

    fn bury(&mut self) {
        fork::outlived(std::mem::take(&mut self.doomed));
    }

    fn dismiss(&mut self, client: u64) {
        if let Some(Client { socket, .. }) = self.clients.remove(&client) {
            self.let_go(socket);
        }
    }

    fn dismiss_those(&mut self, which: impl Fn(&Client) -> bool) {
        let all = self.clients.iter().filter(|(_, client)| which(client)).map(|(number, _)| *number);
        all.collect::<Vec<_>>().into_iter().for_each(|number| self.dismiss(number));
    }

    /// At the end.
    pub(super) fn dismiss_all(&mut self) {
        self.dismiss_those(|_| true);
        self.bury();
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Supervisor {
    pub(super) fn accept_client(&mut self) {
        let socket = match descriptors::accept(&self.control) {
            Ok(socket) => socket,
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                self.control.deaf = self.epoll.delete(&self.control).is_ok();
                return;
            }
            Err(_) => return,
        };
        let Ok(()) = descriptors::ask_for_sender(&socket) else { return self.control.let_go(socket) };
        let Ok(peer) = getsockopt(&socket, PeerCredentials) else { return self.control.let_go(socket) };
        let number = u64::from(socket.as_raw_fd().unsigned_abs());
        // Anybody may connect: nobody may keep others from it.
        self.control.dismiss_those(|client| client.waits.is_none() && client.since.elapsed() >= PATIENCE);
        let known = self.control.clients.iter();
        let known: Vec<_> = known.map(|(number, client)| (client.since, *number, client.uid)).collect();
        match room(&known, peer.uid()) {
            Room::Is => {}
            Room::Of(oldest) => self.control.dismiss(oldest),
            Room::No => return self.control.let_go(socket),
        }
        if self.watch(&socket, CLIENTS | number, EpollFlags::EPOLLIN).is_err() {
            return self.control.let_go(socket);
        }
        let client = Client { socket, uid: peer.uid(), waits: None, since: Instant::now() };
        self.control.clients.insert(number, client);
    }

    /// Once a second.
    pub(super) fn hear_clients_again(&mut self) {
        self.control.bury();
        if self.control.deaf {
            self.control.deaf = self.watch(&self.control, CONTROL, EpollFlags::EPOLLIN).is_err();
        }
    }

    pub(super) fn hear_client(&mut self, data: u64) {
        let number = data & !CLIENTS;
        let mut frame = [0; FRAME + 1];
        let Some(client) = self.control.clients.get(&number) else { return };
        // Even to drop them could take for ever.
        if descriptors::waiting(&client.socket) == Waiting::Descriptors {
            return self.control.dismiss(number);
        }
        let length = match recv(client.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => return,
            Ok(0) | Err(_) => return self.control.dismiss(number),
            Ok(length) => length,
        };
        let uid = client.uid;
        let answer = match frame.get(..length).and_then(Wish::decode) {
            Some((wish, site)) => self.grant(number, uid, wish, site),
            None => Some(Outcome::Nonsense),
        };
        if let Some(outcome) = answer {
            self.answer(number, outcome);
        }
    }

    /// None: the answer comes later.
    fn grant(&mut self, client: u64, uid: u32, wish: Wish, name: &[u8]) -> Option<Outcome> {
        let found = self.pools.iter().find(|(_, pool)| pool.name == name);
        let found = found.map(|(site, pool)| (*site, pool.uid));
        let allowed = uid == 0 || wish == Wish::Deployed && found.is_some_and(|(_, owner)| owner == uid);
        if !allowed {
            return Some(Outcome::Denied);
        }
        if wish == Wish::Reload {
            return Some(if self.reload() { Outcome::Done } else { Outcome::Kept });
        }
        let Some((site, _)) = found else { return Some(Outcome::Unknown) };
        let renews = matches!(wish, Wish::Restart | Wish::Deployed);
        // Whoever asks without end fills no log.
        if !(renews && self.is_to_be_renewed(site)) {
            let what = format!("{wish:?}").to_lowercase();
            self.journal.say("asked", name, &format!("caller={uid} for={what}"));
        }
        match wish {
            Wish::Stop => {
                self.pause(site, true);
                self.stop_workers(site);
                self.stop_runs(site);
                return Some(self.write_down(name, true));
            }
            Wish::Start => {
                self.pause(site, false);
                self.fill(site);
                let written = self.write_down(name, false);
                if written != Outcome::Done {
                    return Some(written);
                }
                return self.wait(client, Waits::Service(site));
            }
            Wish::Restart | Wish::Deployed => {
                let epoch = self.renew(site);
                return self.wait(client, Waits::Renewal(site, epoch));
            }
            Wish::Reload => {}
        }
        Some(Outcome::Done)
    }

    /// The answer comes when it is so, or cannot be so.
    fn wait(&mut self, client: u64, what: Waits) -> Option<Outcome> {
        if let Some(client) = self.control.clients.get_mut(&client) {
            client.waits = Some(what);
            client.since = Instant::now();
        }
        self.answer_waiting();
        None
    }

    /// For the next daemon.
    fn write_down(&mut self, name: &[u8], stopped: bool) -> Outcome {
        match stopped::write_down(name, stopped) {
            Ok(()) => Outcome::Done,
            Err(why) => {
                self.journal.say("error", name, &format!("call=stopped why=\"{why}\""));
                Outcome::Unwritten
            }
        }
    }

    fn pause(&mut self, site: Site, paused: bool) {
        let alive = self.broker.is_alive();
        let Some(pool) = self.pools.get_mut(&site) else { return };
        pool.resuming = !paused;
        // While workers that accept for themselves are stopped or do not start, the broker does so and answers: it ends that first.
        let yields = pool.accept == Accept::Direct && (pool.paused || pool.stands_in) && !paused;
        pool.yielding = (pool.yielding || yields) && alive;
        // The broker forgets what it wanted as well, and asks anew when there is work.
        (pool.paused, pool.stands_in, pool.wanted) = (paused, false, 0);
        (pool.failures, pool.not_before, pool.doubted) =
            (super::super::life::Failures::default(), None, None);
        pool.set_blocking();
        let message = if paused { Down::Pause { site } } else { Down::Resume { site } };
        self.tell_broker(&message, Vec::new());
        if paused {
            // None starts any more that could prove anything: whoever waits for that would wait in vain.
            self.proven(site);
        }
    }

    /// Whose wish has come true or cannot, and who has waited long enough.
    pub(super) fn answer_waiting(&mut self) {
        let outcome = |client: &Client| match client.waits? {
            Waits::Renewal(site, epoch) => {
                self.renewed(site, epoch).or_else(|| (client.since.elapsed() > WAIT).then_some(Outcome::Slow))
            }
            Waits::Service(site) => {
                self.served(site).or_else(|| (client.since.elapsed() > SOON).then_some(Outcome::Slow))
            }
        };
        let clients = self.control.clients.iter();
        let done: Vec<_> = clients.filter_map(|(number, client)| Some((*number, outcome(client)?))).collect();
        done.into_iter().for_each(|(number, outcome)| self.answer(number, outcome));
    }

    /// All old workers of a site are gone, or no new one starts.
    fn renewed(&self, site: Site, epoch: u32) -> Option<Outcome> {
        let pool = self.pools.get(&site);
        let old = self.workers.values().any(|one| one.site == site && one.epoch < epoch)
            || pool.is_some_and(|pool| pool.proving || pool.epoch < epoch);
        if !old {
            return Some(Outcome::Done);
        }
        // Where none has to run, nobody starts a second one: the broker wants none after the first one's failure.
        let fails = |pool: &&Pool| {
            pool.proving
                && pool.epoch >= epoch
                && (pool.failures.is_loop() || pool.failures.are_some() && target(pool) == 0)
        };
        pool.filter(fails).map(|_| Outcome::Failing)
    }

    /// The broker has heard that a site is not stopped any more, and a worker lives where one has to; or none starts.
    fn served(&self, site: Site) -> Option<Outcome> {
        // Somebody has stopped or removed it again.
        let Some(pool) = self.pools.get(&site).filter(|pool| !pool.paused) else {
            return Some(Outcome::Done);
        };
        if pool.failures.is_loop() {
            return Some(Outcome::Failing);
        }
        let lives = target(pool) == 0 || self.has_proven(site, pool.epoch);
        (lives && !pool.resuming && !pool.yielding).then_some(Outcome::Done)
    }

    fn answer(&mut self, number: u64, outcome: Outcome) {
        if let Some(client) = self.control.clients.get(&number) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(client.socket.as_raw_fd(), &outcome.encode(), flags);
        }
        self.control.dismiss(number);
    }
}

/// Whether there is room for one more.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Is,
    /// This one goes for it.
    Of(u64),
    No,
}

/// Room for a connection of this uid, among those that are known: since when, which, whose. A user who has too many gives up
/// his own oldest one, so that he takes nothing from others; root has room as long as not all are root's.
fn room(known: &[(Instant, u64, u32)], uid: u32) -> Room {
    let own = known.iter().filter(|(.., whose)| *whose == uid);
    let go = if uid != 0 && own.clone().count() >= USERS_MAX {
        own.min()
    } else if known.len() >= CLIENTS_MAX {
        known.iter().filter(|(.., whose)| *whose != 0).min()
    } else {
        return Room::Is;
    };
    go.map_or(Room::No, |(_, number, _)| Room::Of(*number))
}

/// So many connections wait for a child that closes them.
const DOOMED_MAX: usize = 512;
const CLIENTS_MAX: usize = 64;
/// Of them a user who is not root has so many.
const USERS_MAX: usize = 8;
/// A connection without a request is closed after so long, when others come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a site to be served: longer than it takes to see that its program does not start.
const SOON: Duration = Duration::from_secs(20);
/// Longest wait for old workers.
const WAIT: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections of these users, the oldest first, numbered from 0.
    fn known(users: &[u32]) -> Vec<(Instant, u64, u32)> {
        let start = Instant::now();
        (0..).zip(users).map(|(number, uid)| (start + Duration::from_millis(number), number, *uid)).collect()
    }

    #[test]
    fn a_crowd_takes_room_from_itself_and_never_from_root() {
        assert_eq!(room(&known(&[]), 1), Room::Is);
        assert_eq!(room(&known(&[0, 1, 1, 1, 1, 1, 1, 1]), 1), Room::Is);
        assert_eq!(room(&known(&[0, 2, 1, 1, 1, 1, 1, 1, 1, 1]), 1), Room::Of(2), "his own oldest");
        assert_eq!(room(&known(&[0, 2, 1, 1, 1, 1, 1, 1, 1, 1]), 2), Room::Is);
        // Many users who are one: whoever has a range of uids of his own.
        let crowd: Vec<u32> = (0..64).collect();
        assert_eq!(room(&known(&crowd), 0), Room::Of(1));
        assert_eq!(room(&known(&crowd), 1000), Room::Of(1));
        assert_eq!(room(&known(&[0; 64]), 0), Room::No);
        assert_eq!(room(&known(&[0; 64]), 1), Room::No);
    }
}
