//! Descriptors that come with a message: more than may come are an error, and none of them stays open in who received it.
#![cfg(feature = "pool")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so loudly")]

use std::io::{PipeReader, Read as _, pipe};
use std::os::fd::{AsFd as _, BorrowedFd};

use cellwall::pool::channel::Channel;
use cellwall::sys::descriptors::{ask_for_sender, let_go, receive, send};
use cellwall::sys::fork::outlived;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether nobody has the other end any more, or within this time: a child drops what was not asked for.
fn is_closed(end: &mut PipeReader, within: impl Into<PollTimeout>) -> bool {
    let ready = poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLIN)], within.into()).unwrap();
    ready == 1 && end.read(&mut [0]).unwrap() == 0
}

#[test]
fn too_many_are_an_error_and_closed() {
    // As many as the kernel lets come at once (SCM_MAX_FD, unix(7)).
    for count in [1, 4, 5, 6, 20, 253] {
        let (one, other) = Channel::pair().unwrap();
        let (mut kept, given) = pipe().unwrap();
        let all: Vec<BorrowedFd<'_>> = (0..count).map(|_| given.as_fd()).collect();
        send(&one, b"word", &all).unwrap();
        let received = receive(&other, &mut [0; 4]);
        drop(given);
        match received {
            Ok((4, descriptors)) => {
                assert!(count <= 4 && descriptors.len() == count, "{} of {count}", descriptors.len());
                assert!(!is_closed(&mut kept, PollTimeout::ZERO));
                drop(descriptors);
            }
            other => assert!(count > 4 && matches!(other, Err(Errno::EMSGSIZE)), "{count}: {other:?}"),
        }
        assert!(is_closed(&mut kept, LONG), "of {count} some are open");
    }
}

#[test]
fn what_came_with_too_long_a_message_is_closed() {
    let (one, other) = Channel::pair().unwrap();
    let (mut kept, given) = pipe().unwrap();
    send(&one, b"words", &[given.as_fd()]).unwrap();
    drop(given);
    assert_eq!(receive(&other, &mut [0; 4]).unwrap_err(), Errno::EMSGSIZE);
    assert!(is_closed(&mut kept, LONG));
}

#[test]
fn what_a_crowd_sends_is_closed_by_one_child() {
    let (mut kept, given) = pipe().unwrap();
    let mut doomed = Vec::new();
    for count in 1..=20 {
        let (ours, its) = Channel::pair().unwrap();
        ask_for_sender(&ours).unwrap();
        send(&its, b"word", &[]).unwrap();
        send(&its, b"word", &[given.as_fd()]).unwrap();
        doomed.extend(let_go(ours));
        assert_eq!(doomed.len(), count, "it is still open");
    }
    drop(given);
    assert!(!is_closed(&mut kept, PollTimeout::ZERO));
    outlived(doomed);
    assert!(is_closed(&mut kept, LONG));
}

#[test]
fn what_brings_nothing_along_is_closed_at_once() {
    let (ours, its) = Channel::pair().unwrap();
    ask_for_sender(&ours).unwrap();
    send(&its, b"word", &[]).unwrap();
    assert!(let_go(ours).is_none());
    assert_eq!(send(&its, b"word", &[]), Err(Errno::EPIPE));
}

/// Milliseconds, for a child on a loaded machine.
const LONG: u16 = 30_000;
