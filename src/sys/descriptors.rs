//! Descriptors that travel: over a socket pair, or from whoever started the daemon. The setuid program has neither.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, UnixAddr, recv, recvmsg, sendmsg, shutdown,
};

use super::fork;

/// Sends one message with its descriptors, without waiting.
///
/// # Errors
/// EAGAIN: the other side has not read enough yet. EPIPE, ECONNRESET: it is gone. Others of sendmsg(2).
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_to(socket, None, message, descriptors)
}

/// As [`send`], on a socket that is not connected.
///
/// # Errors
/// As [`send`]; ECONNREFUSED, ENOENT: nobody is there.
pub fn send_to(
    socket: impl AsFd,
    address: Option<&UnixAddr>,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let raw: Vec<RawFd> = descriptors.iter().map(|one| one.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg(socket.as_fd().as_raw_fd(), &[IoSlice::new(message)], rights, flags, address)?;
    if sent == message.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

/// Closes every descriptor from 3 up but these: for a child that goes on with what it was given, and whose owned descriptors
/// of the parent's are never dropped.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn keep_only(kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|one| u32::try_from(one.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = 3_u32;
    for one in kept.into_iter().filter(|one| *one >= 3) {
        close_range(first, one.saturating_sub(1))?;
        first = one.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    // SAFETY: three numbers. Who calls `keep_only` uses none of these descriptors again.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Receives one message of at most `buffer` bytes and at most 4 descriptors, without waiting. Length 0: the other side
/// is gone.
///
/// # Errors
/// EAGAIN: there is none. EMSGSIZE: it was larger, or had more descriptors; those that came are closed. Others of
/// recvmsg(2).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!([RawFd; CARRIED_MAX]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for message in got.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            descriptors.extend(raw.into_iter().map(|one| unsafe { OwnedFd::from_raw_fd(one) }));
        }
    }
    if descriptors.len() > TAKEN_MAX || got.flags.contains(MsgFlags::MSG_TRUNC) {
        fork::outlived(descriptors);
        return Err(Errno::EMSGSIZE);
    }
    Ok((got.bytes, descriptors))
}

/// Most that one message may bring us.
const TAKEN_MAX: usize = 4;
/// Most that the kernel lets one message bring (`SCM_MAX_FD`, unix(7)): there is room for all, since of those that are cut short the
/// first ones are open all the same, and nobody would know which.
const CARRIED_MAX: usize = 253;

/// From now on what is sent to this socket brings its sender's number along (`SO_PASSCRED`, unix(7)).
///
/// # Errors
/// Of setsockopt(2).
pub fn ask_for_sender(socket: impl AsFd) -> Result<(), Errno> {
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true)
}

/// As read(2), and which process wrote it, as the kernel says: after [`ask_for_sender`].
///
/// # Errors
/// Of recvmsg(2).
pub fn read_with_sender(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<i32>), Errno> {
    let mut space = nix::cmsg_space!(libc::ucred);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let sender = got.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
        _ => None,
    });
    Ok((got.bytes, sender))
}

/// From now on whoever sends a descriptor to this socket gets EPERM (`SO_PASSRIGHTS`): to drop one that nobody asked for may take
/// as long as its sender likes ([`let_go`]). Connections that are accepted on it inherit this.
///
/// # Errors
/// ENOPROTOOPT before Linux 6.16.
pub fn take_none(socket: impl AsFd) -> Result<(), Errno> {
    let (none, size) = (0_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap_or_default());
    let raw = socket.as_fd().as_raw_fd();
    // SAFETY: the option's value is one number, which outlives the call.
    let set =
        unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const none).cast(), size) };
    Errno::result(set).map(drop)
}

/// asm-generic/socket.h.
pub const SO_PASSRIGHTS: i32 = 83;

/// What waits to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing.
    Nothing,
    /// A message.
    Message,
    /// One that brings descriptors along: to read it is to take them, or to drop them.
    Descriptors,
}

/// Looks at the first message, which stays there. After [`ask_for_sender`], which makes a message without a byte another thing than
/// none.
#[must_use]
pub fn waiting(socket: impl AsFd) -> Waiting {
    let mut space = nix::cmsg_space!(libc::ucred);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
        Ok(got) if got.flags.contains(MsgFlags::MSG_CTRUNC) => Waiting::Descriptors,
        Ok(got) if got.cmsgs().is_ok_and(|mut all| all.next().is_some()) => Waiting::Message,
        Ok(_) | Err(_) => Waiting::Nothing,
    }
}

/// Closes a connection of a stranger's, of which [`waiting`] can be asked. What he sent and nobody read goes with it; and whoever drops the
/// last copy of a socket that lingers waits for it, unless he is about to end (net/ipv4/af_inet.c, inet_release). Some: it brings such
/// a message along, and is still open: for [`fork::outlived`].
#[must_use]
pub fn let_go(socket: OwnedFd) -> Option<OwnedFd> {
    let raw = socket.as_raw_fd();
    let _ = shutdown(raw, Shutdown::Read);
    loop {
        match waiting(&socket) {
            Waiting::Nothing => return None,
            Waiting::Message => drop(recv(raw, &mut [0], MsgFlags::MSG_DONTWAIT)),
            Waiting::Descriptors => return Some(socket),
        }
    }
}

/// Whether this is memory, as of memfd_create(2): to drop it waits for nobody.
#[must_use]
pub fn is_memory(descriptor: impl AsFd) -> bool {
    fcntl(descriptor, FcntlArg::F_GET_SEALS).is_ok()
}

/// Accepts a connection, without waiting for one; reading and writing on it do not wait either.
///
/// # Errors
/// EAGAIN: there is none. Others of accept4(2).
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let none = std::ptr::null_mut::<libc::sockaddr>();
    // SAFETY: no address is asked for, so nothing is written.
    let accepted = unsafe { libc::accept4(listener.as_fd().as_raw_fd(), none, std::ptr::null_mut(), flags) };
    let accepted = Errno::result(accepted)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted) })
}

/// The file that a unix socket is bound to, whatever it is called by now: held, not opened. Takes `CAP_NET_ADMIN`.
///
/// # Errors
/// EPERM: without it. ENOENT: it is bound to no file. ENOTTY: it is no unix socket.
pub fn bound_file(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes no argument, and reads nothing of ours.
    let file = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCUNIXFILE, 0) };
    let file = Errno::result(file)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// The first of the calls that each protocol has for itself: linux/un.h.
const SIOCUNIXFILE: libc::Ioctl = 0x89e0;

/// Takes a descriptor that whoever started this program left open, and closes it at exec from now on. Call it once for
/// each number, before anything else opens descriptors.
///
/// # Errors
/// EBADF: there is none.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: a plain number; the call fails where nothing is open.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and this is the one place that takes ownership of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
