//! The kernel's audit, asked by netlink: is it on, switch it, and hear what it tells. Root.
//!
//! Landlock tells of a denied path or port through audit alone. Without an audit daemon the kernel writes these lines to its
//! own log, ten in five seconds at most; who listens here hears all of them (audit_netlink, `AUDIT_NLGRP_READLOG`).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// How the kernel's audit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// It tells.
    pub on: bool,
    /// It cannot be switched until the next boot.
    pub locked: bool,
    /// The audit daemon's pid; 0: there is none, and the kernel's log has the lines.
    pub daemon: u32,
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
    let (enabled, daemon) = word(4).zip(word(12)).ok_or("the kernel's audit gave no answer")?;
    Ok(State { on: enabled != 0, locked: enabled == LOCKED, daemon })
}

/// Switches it on or off. Processes that were started before it was on for the first time are told of without their
/// user; their cell's domain tells it.
///
/// # Errors
/// As [`state`]; it is locked.
pub fn switch(on: bool) -> Result<(), String> {
    let status = [MASK_ENABLED, u32::from(on), 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes: Vec<u8> = status.iter().flat_map(|word| word.to_ne_bytes()).collect();
    ask(&open(0)?, SET, &bytes).map(drop)
}

/// What the kernel tells from here on.
#[derive(Debug)]
pub struct Stream(OwnedFd);

impl Stream {
    /// Starts to listen.
    ///
    /// # Errors
    /// As [`state`].
    pub fn open() -> Result<Self, String> {
        open(READERS).map(Self)
    }

    /// One line, in the form of the kernel's log: `type=1423 audit(…): …`. None: nothing is there, or it is none.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let mut buffer = vec![0; LARGEST];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).ok()?;
        let (kind, text) = message(buffer.get(..length)?)?;
        let text = String::from_utf8_lossy(text);
        Some(format!("type={kind} {}", text.trim_end_matches(['\0', '\n'])))
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
