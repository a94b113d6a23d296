//! Public sockets that the service manager keeps while the daemon is replaced: visitors who come meanwhile wait.
//!
//! It is told of each socket that we made, by a name that is short, because it hands all names over in one variable of at most
//! 128 KiB: `@NUMBER`, and with `.UID` behind where processes of that user have the socket as well. What comes back under such a
//! name is believed nothing but that. Whose it is the kernel says: a socket belongs to the site that is to listen at its very
//! file or address, and one that others have to a site of that user alone. What is nobody's is closed, and its file removed.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use crate::refusal::{Card, Refusal};
use crate::sys::descriptors::bound_file;

use super::super::listen::{self, Spot};
use super::super::notify::handed_over;
use super::super::settings::{Listen, SOCKETS, Settings};
use super::super::wire::Site;
use super::pools::Public;
use super::{Supervisor, Timer};

/// What was handed over, until a site takes it; and what the service manager has.
#[derive(Default)]
pub(super) struct Kept {
    /// From units of its own, by their names.
    named: Vec<(Vec<u8>, OwnedFd)>,
    found: HashMap<Spot, Found>,
    /// What it has by now.
    names: BTreeSet<Rc<str>>,
    last: u32,
    /// What it has not heard yet: to keep these no more, and sockets of these from now on.
    leaving: Vec<Rc<str>>,
    coming: Vec<Site>,
}

struct Found {
    name: Rc<str>,
    socket: OwnedFd,
    /// Processes of this user may have it.
    holder: Option<u32>,
}

impl Kept {
    /// Takes what the environment tells of.
    pub(super) fn of(environment: &[&CStr]) -> Self {
        let mut kept = Self::default();
        for (name, socket) in handed_over(environment) {
            let Some((name, number, holder)) = parse(&name) else {
                kept.named.push((name, socket));
                continue;
            };
            kept.last = kept.last.max(number);
            // Until a site has it: what is not in use is forgotten.
            kept.names.insert(Rc::clone(&name));
            match listen::spot(&socket) {
                Some(spot) => drop(kept.found.insert(spot, Found { name, socket, holder })),
                None => kept.named.push((name.as_bytes().to_vec(), socket)),
            }
        }
        kept
    }
}

impl Supervisor {
    /// A socket of before for these settings.
    pub(super) fn take_over(&mut self, settings: &Settings<'_>, uid: u32) -> Result<Option<Public>, Refusal> {
        if let Some(found) = listen::spot_of(settings.listen).and_then(|spot| self.kept.found.remove(&spot)) {
            let path = match settings.listen {
                Listen::Socket(name) => Some(listen::path(name)),
                Listen::Tcp(_) => None,
            };
            if found.holder.is_none_or(|holder| holder == uid) {
                path.map_or(Ok(()), |path| listen::regroup(&path, settings.group))?;
                return Ok(Some(Public {
                    listener: Rc::new(found.socket),
                    ours: true,
                    held: found.holder.is_some(),
                    kept: Some(found.name),
                }));
            }
            listen::shut(&found.socket);
            path.map(std::fs::remove_file);
        }
        Ok(self.take_named(settings))
    }

    /// A socket of a unit's. One that is elsewhere is not used: the web server would ask where nobody listens, or the world where
    /// only this host may.
    fn take_named(&mut self, settings: &Settings<'_>) -> Option<Public> {
        let own = |name: &[u8]| {
            name == settings.name || matches!(settings.listen, Listen::Socket(one) if one == name)
        };
        let place = self.kept.named.iter().position(|(name, _)| own(name))?;
        let (name, socket) = self.kept.named.swap_remove(place);
        if listen::is_at(&socket, settings.listen) {
            return Some(Public { listener: Rc::new(socket), ours: false, held: false, kept: None });
        }
        let why = "was handed over and does not listen where the site's record says";
        self.journal.refused(settings.name, &Refusal::about(&STRANGE, &name, why));
        None
    }

    /// All sites have what is theirs: the rest is closed.
    pub(super) fn close_strangers(&mut self) {
        for (name, _) in std::mem::take(&mut self.kept.named) {
            let why = "was handed over and is no site's";
            self.journal.refused(b"-", &Refusal::about(&STRANGE, &name, why));
        }
        for (_, found) in std::mem::take(&mut self.kept.found) {
            // Else its name would lead nowhere for good.
            if let Some(path) = own_path(&found.socket) {
                self.journal.say("remove", b"", &format!("socket={}", path.display()));
                drop(std::fs::remove_file(path));
            }
            listen::shut(&found.socket);
        }
        self.keep_sockets();
    }

    /// Tells the service manager what to keep, and what no more.
    pub(super) fn keep_sockets(&mut self) {
        if !self.manager.is_there() {
            return;
        }
        let used = self.pools.values().filter(|pool| label_fits(&pool.socket, pool.uid));
        let used: BTreeSet<Rc<str>> = used.filter_map(|pool| pool.socket.kept.clone()).collect();
        self.kept.leaving = self.kept.names.difference(&used).cloned().collect();
        self.kept.coming.clear();
        for (site, pool) in self.pools.iter_mut().filter(|(_, pool)| pool.socket.ours) {
            if !pool.socket.kept.as_ref().is_some_and(|name| used.contains(name)) {
                pool.socket.kept = None;
                self.kept.coming.push(*site);
            }
        }
        self.tell_kept();
    }

    /// As much of it as the service manager hears at the moment, and first of all that we are up. One that is not there keeps nothing, and comes by no waiting.
    pub(super) fn tell_kept(&mut self) {
        if self.tell_some() == Err(Errno::EAGAIN) {
            self.after(SOON, Timer::Keep);
        }
    }

    fn tell_some(&mut self) -> Result<(), Errno> {
        self.manager.tell_ready()?;
        while let Some(name) = self.kept.leaving.last() {
            self.manager.forget(name)?;
            self.kept.names.remove(name);
            self.kept.leaving.pop();
        }
        let mut length: usize = self.kept.names.iter().map(|name| name.len() + 1).sum();
        while let Some(site) = self.kept.coming.last() {
            // One that the next daemon could not tell is not for it.
            if let Some(pool) = self.pools.get_mut(site)
                && length < NAMES_MOST
                && listen::spot(&pool.socket.listener).is_some()
            {
                let number = self.kept.last.wrapping_add(1);
                let name: Rc<str> = label(number, pool.socket.held.then_some(pool.uid)).into();
                self.manager.keep(&name, pool.socket.listener.as_fd())?;
                length += name.len() + 1;
                self.kept.last = number;
                self.kept.names.insert(Rc::clone(&name));
                pool.socket.kept = Some(name);
            }
            self.kept.coming.pop();
        }
        Ok(())
    }
}

fn label(number: u32, holder: Option<u32>) -> String {
    let holder = holder.map(|uid| format!(".{uid}")).unwrap_or_default();
    format!("@{number}{holder}")
}

fn parse(name: &[u8]) -> Option<(Rc<str>, u32, Option<u32>)> {
    let name = std::str::from_utf8(name).ok()?;
    let rest = name.strip_prefix('@')?;
    let (number, holder) = match rest.split_once('.') {
        Some((number, holder)) => (number.parse().ok()?, Some(holder.parse().ok()?)),
        None => (rest.parse().ok()?, None),
    };
    // As we write it, and not otherwise.
    (label(number, holder) == name).then(|| (Rc::from(name), number, holder))
}

/// Its name tells who has it.
fn label_fits(socket: &Public, uid: u32) -> bool {
    let told = socket.kept.as_ref().and_then(|name| parse(name.as_bytes()));
    told.is_some_and(|(_, _, holder)| holder == socket.held.then_some(uid))
}

/// Where its file is, if that is where we make them.
fn own_path(socket: &OwnedFd) -> Option<PathBuf> {
    let file = bound_file(socket).ok()?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    (path.parent() == Some(Path::new(SOCKETS))).then_some(path)
}

/// Names and what separates them, in bytes: the variable that holds them may have 128 KiB (`MAX_ARG_STRLEN` in linux/binfmts.h), or
/// the next daemon cannot be started at all.
const NAMES_MOST: usize = 100_000;
/// It has too much to hear: again, a little later.
const SOON: Duration = Duration::from_millis(10);

static STRANGE: Card = Card {
    code: "S13",
    status: 88,
    remedy: "systemctl list-sockets --all | grep cellwalld # then mend ListenStream= and FileDescriptorName= of its unit, or pool.listen of the site",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_nothing_else_is_one() {
        for (number, holder, name) in [(1, None, "@1"), (70_000, Some(1001), "@70000.1001")] {
            assert_eq!(label(number, holder), name);
            assert_eq!(parse(name.as_bytes()), Some((Rc::from(name), number, holder)));
        }
        for name in ["", "@", "shop", "@01", "@1.", "@1.x", "@-1", "@1.2.3", "@4294967296", "1", "@+1"] {
            assert_eq!(parse(name.as_bytes()), None, "{name}");
        }
    }
}
