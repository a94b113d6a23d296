//! Children of a forking parent that end after so many requests, one at a time: what the parent has loaded stays, and the site's
//! opcode cache with it.
//!
//! A child is at the other end of one connection for as long as that is open, and the kernel says which child that is when it
//! writes. One that has had its requests keeps its connection, on which nothing comes any more, until it is ended: so it cannot
//! accept another one in that moment, and no request is lost.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::read;

use crate::pool::wire::{self, Up};
use crate::sys::descriptors::{ask_for_sender, read_with_sender};

use super::Broker;
use super::arena::Key;

/// Which child is at the other end of a connection.
#[derive(Debug, Default)]
pub(super) struct Child {
    /// The kernel was asked to tell.
    asked: bool,
    pid: Option<i32>,
    /// Requests that it has had.
    had: u32,
    /// It gets no more.
    leaves: bool,
}

/// What children of a worker have had whose connection was closed before they had all.
#[derive(Debug, Default)]
pub(super) struct Children(HashMap<i32, u32>);

impl Child {
    /// Of a new connection, where it counts.
    pub(super) fn asked(socket: &OwnedFd) -> Self {
        Self { asked: ask_for_sender(socket).is_ok(), ..Self::default() }
    }

    /// Nobody asks, or it is known by now.
    pub(super) fn is_settled(&self) -> bool {
        !self.asked || self.pid.is_some()
    }

    /// As read(2).
    pub(super) fn read(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
        if self.is_settled() {
            return read(socket, buffer);
        }
        let (length, sender) = read_with_sender(socket, buffer)?;
        self.pid = sender;
        Ok(length)
    }

    /// It is to be ended, and gets no more. None: it is another worker's business, or nobody knows it yet.
    pub(super) fn leave(&mut self) -> Option<u32> {
        let leaves = std::mem::replace(&mut self.leaves, self.pid.is_some());
        self.pid.filter(|_| !leaves).and_then(|pid| u32::try_from(pid).ok())
    }

    /// It has answered once more.
    pub(super) fn answered(&mut self) {
        self.had = self.had.saturating_add(1);
    }
}

impl Children {
    /// Its connection is closed. One that is to end is forgotten.
    pub(super) fn part(&mut self, child: &Child, most: u32) {
        let Some(pid) = child.pid.filter(|_| !child.leaves) else { return };
        if self.0.len() > usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(4) {
            // Most of them have ended in other ways.
            self.0.clear();
        }
        let had = self.0.entry(pid).or_default();
        *had = had.saturating_add(child.had);
    }
}

impl Broker {
    /// A connection has nothing to do: it waits for the next request, or its child has had all.
    pub(super) fn keep_or_renew(&mut self, number: u32, key: Key) {
        let (Some(site), Some(link)) = (self.sites.get_mut(&number), self.links.get_mut(key)) else { return };
        let limit = site.rules.child_requests;
        let (Some(pid), 1..) = (link.child.pid, limit) else { return site.idle.push(key) };
        let before = self.workers.get_mut(&link.worker).and_then(|worker| worker.children.0.remove(&pid));
        link.child.had = link.child.had.saturating_add(before.unwrap_or(0));
        if link.child.had < limit {
            return site.idle.push(key);
        }
        let serial = link.worker;
        if let Some(child) = link.child.leave() {
            self.end_child(number, serial, child);
        }
    }

    /// Has a child ended, and its parent make another one.
    pub(super) fn end_child(&mut self, number: u32, serial: u32, child: u32) {
        self.say(Up::Renew { site: wire::Site(number), worker: wire::Worker(serial), child });
    }
}
