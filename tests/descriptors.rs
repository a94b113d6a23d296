//! Descriptors that come with a message: more than may come are an error, and none of them stays open in who received it.
#![cfg(feature = "pool")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so loudly")]

use std::io::{PipeReader, Read as _, pipe};
use std::os::fd::{AsFd as _, BorrowedFd};

use cellwall::pool::channel::Channel;
use cellwall::sys::descriptors::{receive, send};
use nix::errno::Errno;

/// Whether nobody has the other end any more. Asked with poll(2), as a read would wait.
fn is_closed(end: &mut PipeReader) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let ready = poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap();
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
                assert!(!is_closed(&mut kept));
                drop(descriptors);
            }
            other => assert!(count > 4 && matches!(other, Err(Errno::EMSGSIZE)), "{count}: {other:?}"),
        }
        assert!(is_closed(&mut kept), "of {count} some are open");
    }
}

#[test]
fn what_came_with_too_long_a_message_is_closed() {
    let (one, other) = Channel::pair().unwrap();
    let (mut kept, given) = pipe().unwrap();
    send(&one, b"words", &[given.as_fd()]).unwrap();
    drop(given);
    assert_eq!(receive(&other, &mut [0; 4]).unwrap_err(), Errno::EMSGSIZE);
    assert!(is_closed(&mut kept));
}
