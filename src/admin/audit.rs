//! The kernel's audit, asked by netlink: is it on, switch it, and hear what it tells. Root.
//!
//! Landlock tells of a denied path or port through audit alone. Without an audit daemon the kernel writes these lines to its
//! own log, ten in five seconds at most; who listens here hears all of them (audit_netlink, `AUDIT_NLGRP_READLOG`).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};

use crate::sys::filter::ARCHITECTURE;

use super::alone::Alone;
use super::say;

/// How the kernel's audit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// It tells.
    pub on: bool,
    /// It cannot be switched until the next boot.
    pub locked: bool,
    /// The audit daemon's pid; 0: there is none, and the kernel's log has the lines.
    pub daemon: u32,
    /// How many lines may wait.
    backlog: u32,
    /// For how long, in ticks, it holds a process up whose lines find no place.
    patience: u32,
    /// How many lines found none.
    lost: u32,
}

/// Asks how it stands.
///
/// # Errors
/// The kernel has no audit, or does not speak to this place (a container).
pub fn state() -> Result<State, String> {
    let socket = open(0)?;
    let answer = ask(&socket, GET, &[])?;
    let word = |place: usize| {
        answer.get(place..place + 4).and_then(|four| Some(u32::from_ne_bytes(four.try_into().ok()?)))
    };
    let told = || {
        let (enabled, daemon, backlog) = (word(4)?, word(12)?, word(20)?);
        let (patience, lost) = (word(36)?, word(24)?);
        Some(State { on: enabled != 0, locked: enabled == LOCKED, daemon, backlog, patience, lost })
    };
    told().ok_or_else(|| "the kernel's audit gave no answer".to_owned())
}

/// Switches it on or off. Processes that were started before it was on for the first time are told of without their
/// user; their cell's domain tells it.
///
/// # Errors
/// As [`state`]; it is locked.
pub fn switch(on: bool) -> Result<(), String> {
    set([MASK_ENABLED, u32::from(on), 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// How many lines may wait, and how long a process is held up for them.
fn queue(backlog: u32, patience: u32) -> Result<(), String> {
    set([MASK_QUEUE, 0, 0, 0, 0, backlog, 0, 0, 0, patience, 0])
}

/// `struct audit_status` of linux/audit.h.
fn set(status: [u32; 11]) -> Result<(), String> {
    ask(&open(0)?, SET, &bytes(&status)).map(drop)
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// For as long as it lives the kernel tells; then its audit is as it was.
#[derive(Debug)]
pub struct Hearing {
    stream: Stream,
    before: State,
    rule: Option<Vec<u8>>,
    /// Nobody else listens and then switches it off.
    _alone: Alone,
}

impl Hearing {
    /// Starts to listen. `failures`: a user, and system calls; the kernel tells of each of these calls of the user's that
    /// fails.
    ///
    /// # Errors
    /// As [`state`]; somebody listens already, or it is locked.
    pub fn start(failures: Option<(u32, &[u32])>) -> Result<Self, String> {
        let alone = Alone::at(ALONE, 0).map_err(|why| format!("{ALONE}: {why}"))?.ok_or_else(|| {
            "another cellwall command watches the kernel's audit\n  help: end that one first".to_owned()
        })?;
        let (stream, before) = (Stream::open()?, state()?);
        if before.locked {
            return Err("the kernel's audit is locked until the next boot".to_owned());
        }
        // From here on whatever was begun is undone.
        let mut hearing = Self { stream, before, rule: None, _alone: alone };
        if before.daemon == 0 {
            queue(before.backlog.max(QUEUE), 0)?;
        }
        if !before.on {
            switch(true)?;
        }
        if let Some((uid, calls)) = failures {
            let rule = rule(uid, calls);
            hearing.rule = Some(rule.clone());
            match ask(&open(0)?, ADD_RULE, &rule) {
                Err(why) if !why.ends_with(Errno::EEXIST.desc()) => return Err(why),
                _ => {}
            }
        }
        Ok(hearing)
    }

    /// What it tells.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Lines were lost in the kernel.
    #[must_use]
    pub fn lost(&self) -> bool {
        state().is_ok_and(|now| now.lost != self.before.lost)
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let rule = self
            .rule
            .as_deref()
            .map(|rule| open(0).and_then(|socket| ask(&socket, DELETE_RULE, rule).map(drop)));
        let off = (!self.before.on).then(|| switch(false));
        let queue = (self.before.daemon == 0).then(|| queue(self.before.backlog, self.before.patience));
        for undone in [rule, off, queue] {
            if let Some(Err(why)) = undone {
                say::note(format_args!(
                    "warning: the kernel's audit is not as it was: {why}\n  help: auditctl -s and auditctl -l show what is left"
                ));
            }
        }
    }
}

/// Pure: `struct audit_rule_data` of linux/audit.h: at a call's end, always, these calls of a user's that fail.
fn rule(uid: u32, calls: &[u32]) -> Vec<u8> {
    let mut mask = [0_u32; 64];
    for call in calls {
        let word = usize::try_from(call / 32).ok().and_then(|place| mask.get_mut(place));
        word.into_iter().for_each(|word| *word |= 1 << (call % 32));
    }
    let fields = [(FIELD_ARCHITECTURE, ARCHITECTURE), (FIELD_UID, uid), (FIELD_SUCCESS, 0)];
    let column = |pick: fn(&(u32, u32)) -> u32| {
        let mut all = [0_u32; 64];
        all.iter_mut().zip(&fields).for_each(|(place, field)| *place = pick(field));
        all
    };
    let count = u32::try_from(fields.len()).unwrap_or(0);
    let parts: [&[u32]; 6] = [
        &[LIST_EXIT, ALWAYS, count],
        &mask,
        &column(|field| field.0),
        &column(|field| field.1),
        &column(|_| EQUAL),
        &[0],
    ];
    bytes(&parts.concat())
}

/// Lines came faster than they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// What the kernel tells from here on.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Starts to listen.
    ///
    /// # Errors
    /// As [`state`].
    pub fn open() -> Result<Self, String> {
        let socket = open(READERS)?;
        // Best effort: with less, lines are lost earlier, which is told.
        let _ = setsockopt(&socket, RcvBufForce, &ROOM);
        Ok(Self(socket))
    }

    /// One line, in the form of the kernel's log: `type=1423 audit(…): …`. None: nothing is there.
    ///
    /// # Errors
    /// Some were lost here.
    pub fn line(&self) -> Option<Result<String, Lost>> {
        let mut buffer = vec![0; LARGEST];
        let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(Errno::ENOBUFS) => return Some(Err(Lost)),
            Err(_) => return None,
        };
        let (kind, text) = message(buffer.get(..length)?)?;
        let text = String::from_utf8_lossy(text);
        Some(Ok(format!("type={kind} {}", text.trim_end_matches(['\0', '\n']))))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(groups: u32) -> Result<OwnedFd, String> {
    let told = |errno: Errno| match errno {
        Errno::EPROTONOSUPPORT => "this kernel was built without audit".to_owned(),
        Errno::EPERM | Errno::ECONNREFUSED => "the kernel's audit does not speak to a container".to_owned(),
        errno => format!("the kernel's audit: {}", errno.desc()),
    };
    let protocol = SockProtocol::NetlinkAudit;
    let made =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(told)?;
    bind(made.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(told)?;
    Ok(made)
}

/// One question, and what it is answered with (netlink(7)).
fn ask(socket: &OwnedFd, kind: u16, data: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |errno: Errno| format!("the kernel's audit: {}", errno.desc());
    let length = u32::try_from(HEADER.saturating_add(data.len())).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(data);
    send(socket.as_raw_fd(), &request, MsgFlags::empty()).map_err(failed)?;
    // A question has two answers, in either order: the acknowledgement, and what was asked for.
    let (mut answer, mut acknowledged) = (Vec::new(), false);
    while !acknowledged || kind == GET && answer.is_empty() {
        let ready = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::from(2000_u16));
        if ready.map_err(failed)? == 0 {
            return Err("the kernel's audit gave no answer".to_owned());
        }
        let mut buffer = vec![0; LARGEST];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(failed)?;
        match message(buffer.get(..length).unwrap_or_default()) {
            Some((ERROR, code)) => {
                let code = code.get(..4).and_then(|four| four.try_into().ok()).map_or(0, i32::from_ne_bytes);
                match Errno::from_raw(code.saturating_neg()) {
                    Errno::UnknownErrno if code == 0 => acknowledged = true,
                    Errno::ECONNREFUSED | Errno::EPERM if kind == GET => {
                        return Err("the kernel's audit does not speak to a container".to_owned());
                    }
                    errno => return Err(failed(errno)),
                }
            }
            Some((told, text)) if told == kind => answer = text.to_vec(),
            Some(_) | None => {}
        }
    }
    Ok(answer)
}

/// Pure: kind and content of a message. The kernel's own length counts the header for some kinds, and not for others.
fn message(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    Some((kind, bytes.get(HEADER..)?))
}

const GET: u16 = 1000;
const SET: u16 = 1001;
const ERROR: u16 = 2;
const REQUEST_AND_ACKNOWLEDGE: u16 = 5;
const HEADER: usize = 16;
/// Of a line of audit (MAX_AUDIT_MESSAGE_LENGTH), and its header.
const LARGEST: usize = 8970 + HEADER;
const MASK_ENABLED: u32 = 1;
/// `AUDIT_STATUS_BACKLOG_LIMIT` and `AUDIT_STATUS_BACKLOG_WAIT_TIME`.
const MASK_QUEUE: u32 = 0x30;
/// Lines that may wait meanwhile: 64 are the kernel's default, and a process whose lines find no place would wait a
/// minute.
const QUEUE: u32 = 8192;
/// Of the socket, in bytes.
const ROOM: usize = 32 << 20;
const ALONE: &str = "/run/cellwall-audit.lock";
const ADD_RULE: u16 = 1011;
const DELETE_RULE: u16 = 1012;
const LIST_EXIT: u32 = 4;
const ALWAYS: u32 = 2;
const FIELD_ARCHITECTURE: u32 = 11;
const FIELD_UID: u32 = 1;
const FIELD_SUCCESS: u32 = 104;
const EQUAL: u32 = 0x4000_0000;
const LOCKED: u32 = 2;
const READERS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_apart_and_a_short_one_is_none() {
        let mut bytes = 24_u32.to_ne_bytes().to_vec();
        bytes.extend(1423_u16.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(b"audit(1");
        assert_eq!(message(&bytes), Some((1423, &b"audit(1"[..])));
        assert!((0..HEADER).all(|length| message(&bytes[..length]).is_none()));
    }
}
