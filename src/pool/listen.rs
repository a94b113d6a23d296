//! Listening sockets, made by root where only root can make anything, with their final mode before anybody can connect.
//!
//! A public socket is bound under a name that nobody may open, gets its group and mode, and only then its own name. What
//! is there already is never removed, unless it is a socket of root's that nobody listens on: what a killed daemon left.
//! A program expects that its descriptor 0 blocks, the broker that its sockets do not: see [`set_blocking`].
//! Refuses with S06 (somebody listens there), S07 (it is something else), S08 (the kernel said no).

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, shutdown,
    socket, sockopt,
};
use nix::sys::stat::{Mode, fstat, umask};

use crate::refusal::{Card, Refusal};
use crate::sys::descriptors::{bound_file, take_none};

use super::settings::{Listen, SOCKETS};

/// Above [`SOCKETS`] and [`WORKERS`].
pub const RUN: &str = "/run/cellwall";
/// The broker's root directory, with the workers' sockets. Its group is the broker's: it may pass through.
pub const WORKERS: &str = "/run/cellwall/broker";

/// Makes the directories, all root's. Anybody may pass through the one with public sockets, and list nothing: each socket says
/// itself who may connect (`pool.socket_group`), and web servers have more than one group. `broker` may pass its own.
///
/// # Errors
/// When the file system says no, or something else is there.
pub fn directories(broker: u32) -> io::Result<()> {
    for (path, group, mode) in [(RUN, 0, 0o755), (SOCKETS, 0, 0o711), (WORKERS, broker, 0o710)] {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let facts = fs::symlink_metadata(path)?;
        if !facts.is_dir() || facts.uid() != 0 {
            return Err(io::Error::other(format!("{path} is not a directory of root's")));
        }
        std::os::unix::fs::lchown(path, Some(0), Some(group))?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Sockets of workers that a killed daemon left. The control socket is ours by then, so no other daemon runs.
///
/// # Errors
/// When the file system says no.
pub fn sweep() -> io::Result<()> {
    fs::read_dir(WORKERS)?.try_for_each(|entry| fs::remove_file(entry?.path()))
}

/// Tries once more until `end`, as long as somebody listens there: a child that a killed daemon has just made has all of its
/// sockets, until it closes what it does not need.
///
/// # Errors
/// Of `make`.
pub fn until<T>(end: Instant, make: impl Fn() -> Result<T, Refusal>) -> Result<T, Refusal> {
    loop {
        match make() {
            Err(refusal) if refusal.card.code == TAKEN.code && Instant::now() < end => {
                std::thread::sleep(LOOK);
            }
            made => return made,
        }
    }
}

/// A public socket.
///
/// # Errors
/// S06, S07, S08.
pub fn public(address: Listen<'_>, group: u32) -> Result<OwnedFd, Refusal> {
    match address {
        Listen::Socket(name) => named(&path(name), group),
        Listen::Tcp(address) => {
            let failed = |why: &io::Error| Refusal::new(&FAILED, format!("{address}: {why}"));
            let listener = TcpListener::bind(address).map_err(|why| match why.kind() {
                io::ErrorKind::AddrInUse => {
                    Refusal::new(&TAKEN, format!("{address}: somebody listens there"))
                }
                _ => failed(&why),
            })?;
            Ok(listener.into())
        }
    }
}

/// Whether accept(2), read(2) and write(2) wait. It is the same for all who hold the socket, or the same end of the pipe.
///
/// # Errors
/// Of fcntl(2).
pub fn set_blocking(socket: impl AsFd, blocks: bool) -> Result<(), Errno> {
    let flags = OFlag::from_bits_truncate(fcntl(socket.as_fd(), FcntlArg::F_GETFL)?);
    let flags = if blocks { flags - OFlag::O_NONBLOCK } else { flags | OFlag::O_NONBLOCK };
    fcntl(socket.as_fd(), FcntlArg::F_SETFL(flags)).map(drop)
}

/// A place where somebody can listen: which file, or which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spot {
    /// Device and number.
    File(u64, u64),
    /// TCP.
    Address(SocketAddr),
}

/// Where a listening socket of streams is, by the kernel's word. None: it does not listen, or was shut down, or its file cannot be
/// told (see [`bound_file`]).
#[must_use]
pub fn spot(socket: &OwnedFd) -> Option<Spot> {
    if !listens(socket) {
        return None;
    }
    match address(socket) {
        Some(address) => Some(Spot::Address(address)),
        None => {
            let facts = fstat(bound_file(socket).ok()?).ok()?;
            Some(Spot::File(facts.st_dev, facts.st_ino))
        }
    }
}

/// Where a public socket would be. None: there is nothing by its name yet.
#[must_use]
pub fn spot_of(listen: Listen<'_>) -> Option<Spot> {
    match listen {
        Listen::Tcp(address) => Some(Spot::Address(address)),
        Listen::Socket(name) => {
            let facts = fs::symlink_metadata(path(name)).ok()?;
            facts.file_type().is_socket().then(|| Spot::File(facts.dev(), facts.ino()))
        }
    }
}

/// Whether a socket listens, and under this name or address: what whoever made it says, and not what the name means by now.
#[must_use]
pub fn is_at(socket: &OwnedFd, listen: Listen<'_>) -> bool {
    let named = |name: &[u8]| {
        let own = UnixListener::from(socket.try_clone().ok()?).local_addr().ok()?;
        Some(own.as_pathname()? == path(name))
    };
    listens(socket)
        && match listen {
            Listen::Tcp(meant) => address(socket) == Some(meant),
            Listen::Socket(name) => named(name) == Some(true),
        }
}

fn listens(socket: &OwnedFd) -> bool {
    let is_stream = getsockopt(socket, sockopt::SockType) == Ok(SockType::Stream);
    is_stream && getsockopt(socket, sockopt::AcceptConn) == Ok(true) && !is_shut(socket)
}

fn address(socket: &OwnedFd) -> Option<SocketAddr> {
    TcpListener::from(socket.try_clone().ok()?).local_addr().ok()
}

/// Nobody listens there any more, whoever else has the socket: its address is free.
pub fn shut(socket: &OwnedFd) {
    let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(socket), Shutdown::Both);
}

/// Whether somebody has shut a listening socket down: nobody can connect any more.
#[must_use]
pub fn is_shut(socket: impl AsFd) -> bool {
    let shut = PollFlags::from_bits_retain(libc::POLLRDHUP) | PollFlags::POLLHUP;
    let mut asked = [PollFd::new(socket.as_fd(), shut)];
    let _ = poll(&mut asked, PollTimeout::ZERO);
    let [asked] = asked;
    // None: a flag that the library has no name for, which is POLLRDHUP.
    asked.revents().is_none_or(|found| found.intersects(shut))
}

/// Where a public socket of this name is.
#[must_use]
pub fn path(name: &[u8]) -> PathBuf {
    Path::new(SOCKETS).join(std::ffi::OsStr::from_bytes(name))
}

/// A socket in a directory of root's, mode 0660 for `group`.
///
/// # Errors
/// S06, S07, S08.
pub fn named(path: &Path, group: u32) -> Result<OwnedFd, Refusal> {
    free(path)?;
    let bytes = path.as_os_str().as_bytes();
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let hidden = path.with_file_name(hidden);
    let failed = |why: io::Error| Refusal::about(&FAILED, bytes, &why.to_string());
    drop(fs::remove_file(&hidden));
    let listener = bound(&hidden, 0o777, SockType::Stream).map_err(failed)?;
    // A web server sends none. Linux has a word for that from 6.16 on.
    let _ = take_none(&listener);
    std::os::unix::fs::lchown(&hidden, Some(0), Some(group)).map_err(failed)?;
    fs::set_permissions(&hidden, Permissions::from_mode(0o660)).map_err(failed)?;
    fs::rename(&hidden, path).map_err(failed)?;
    Ok(listener)
}

/// Gives a public socket of ours to another group. Nobody but root can put anything else in its place.
///
/// # Errors
/// S07, S08.
pub fn regroup(path: &Path, group: u32) -> Result<(), Refusal> {
    let bytes = path.as_os_str().as_bytes();
    let failed = |why: io::Error| Refusal::about(&FAILED, bytes, &why.to_string());
    let facts = fs::symlink_metadata(path).map_err(failed)?;
    if !facts.file_type().is_socket() || facts.uid() != 0 {
        return Err(Refusal::about(&FOREIGN, bytes, "is not a socket of root's"));
    }
    std::os::unix::fs::lchown(path, None, Some(group)).map_err(failed)
}

/// A worker's own socket: whoever gets into [`WORKERS`] may connect, and that is the broker.
///
/// # Errors
/// Of socket(2), bind(2), listen(2).
pub fn private(name: &str) -> io::Result<OwnedFd> {
    bound(&Path::new(WORKERS).join(name), 0, SockType::Stream)
}

/// The control socket: anybody may connect, and is asked who it is.
///
/// # Errors
/// S06, S07, S08.
pub fn control(path: &Path) -> Result<OwnedFd, Refusal> {
    free(path)?;
    drop(fs::remove_file(path));
    let listener = bound(path, 0o111, SockType::SeqPacket)
        .map_err(|why| Refusal::about(&FAILED, path.as_os_str().as_bytes(), &why.to_string()))?;
    // No wish has any. Linux has a word for that from 6.16 on.
    let _ = take_none(&listener);
    Ok(listener)
}

/// Binds and listens; mode bits in `mask` are not there from the first moment on.
fn bound(path: &Path, mask: u32, kind: SockType) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let old = umask(Mode::from_bits_truncate(mask));
    let bound = bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?);
    umask(old);
    bound?;
    listen(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket)
}

/// Nothing is there, or a socket of root's that nobody listens on.
fn free(path: &Path) -> Result<(), Refusal> {
    let bytes = path.as_os_str().as_bytes();
    let facts = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Refusal::about(&FAILED, bytes, &error.to_string())),
        Ok(facts) => facts,
    };
    if !facts.file_type().is_socket() || facts.uid() != 0 {
        return Err(Refusal::about(&FOREIGN, bytes, "is not a socket of root's"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(Refusal::about(&TAKEN, bytes, "somebody listens there")),
    }
}

/// Between two tries.
const LOOK: Duration = Duration::from_millis(50);

static TAKEN: Card = Card { code: "S06", status: 88, remedy: "ss -lxp; ss -ltp # see who listens there" };
static FOREIGN: Card = Card { code: "S07", status: 88, remedy: "ls -l {} # then move it away" };
static FAILED: Card = Card { code: "S08", status: 88, remedy: "cellwall explain S08" };
