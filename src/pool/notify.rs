//! The service manager: what it is told (sd_notify(3)), what it keeps for the next daemon (sd_pid_notify_with_fds(3)) and what it
//! hands over (sd_listen_fds(3)). Without one, all of this does nothing.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::UnixAddr;

use crate::sys::descriptors::{inherited, send_to};

/// What of the environment concerns the service manager.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<(UnixDatagram, UnixAddr)>,
    /// It wants a sign of life at least as often.
    pub watchdog: Option<Duration>,
    /// What it shows of us.
    status: String,
    /// It has not heard yet that we are up.
    unready: bool,
}

impl Manager {
    /// Reads `NOTIFY_SOCKET` and `WATCHDOG_USEC` of the environment that was taken at the start.
    #[must_use]
    pub fn of(environment: &[&CStr]) -> Self {
        let watchdog = number(environment, b"WATCHDOG_USEC=").filter(|time| *time > 0);
        let meant = number(environment, b"WATCHDOG_PID=").is_none_or(|pid| pid == std::process::id().into());
        Self {
            socket: value(environment, b"NOTIFY_SOCKET=").and_then(open),
            watchdog: watchdog.filter(|_| meant).map(Duration::from_micros),
            status: String::new(),
            unready: false,
        }
    }

    /// All is up, or up again after [`Manager::reloading`].
    pub fn ready(&mut self) {
        self.unready = true;
        // It may have no room at the moment, which whoever tells it again finds out.
        let _ = self.tell_ready();
    }

    /// That all is up, where it has not heard it yet: a service that never says so is ended when its time to start is over.
    ///
    /// # Errors
    /// As [`Manager::keep`].
    pub fn tell_ready(&mut self) -> Result<(), Errno> {
        if self.unready {
            self.send("READY=1", &[])?;
            self.unready = false;
        }
        Ok(())
    }

    /// One or more assignments, a line each, without which nothing goes wrong: a lost one is lost.
    pub fn tell(&self, text: &str) {
        let _ = self.send(text, &[]);
    }

    /// What it is to show of us; nothing where it shows that already. A lost one is told again.
    pub fn show(&mut self, status: String) {
        if self.status != status && self.send(&format!("STATUS={status}"), &[]).is_ok() {
            self.status = status;
        }
    }

    /// Has it keep a descriptor by this name, and hand it to the next daemon.
    ///
    /// # Errors
    /// EAGAIN: it has too much to hear at the moment. Others of sendmsg(2): it is not there.
    pub fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        self.send(&format!("FDSTORE=1\nFDNAME={name}"), &[descriptor])
    }

    /// It need not keep what it has by this name.
    ///
    /// # Errors
    /// As [`Manager::keep`].
    pub fn forget(&self, name: &str) -> Result<(), Errno> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// There is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    fn send(&self, text: &str, with: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let Some((socket, address)) = &self.socket else { return Ok(()) };
        match send_to(socket, Some(address), text.as_bytes(), with) {
            // As many descriptors, or bytes, are on their way as may be.
            Err(Errno::ENOBUFS | Errno::ETOOMANYREFS) => Err(Errno::EAGAIN),
            sent => sent,
        }
    }

    /// A reload begins; the time is that of `CLOCK_MONOTONIC`.
    pub fn reloading(&self) {
        if let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
            let now = Duration::from(now).as_micros();
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
        }
    }
}

/// The listening sockets that were handed over, by name; a second one of a name is closed.
#[must_use]
pub fn handed_over(environment: &[&CStr]) -> BTreeMap<Vec<u8>, OwnedFd> {
    let mut found = BTreeMap::new();
    if number(environment, b"LISTEN_PID=") != Some(std::process::id().into()) {
        return found;
    }
    let count = number(environment, b"LISTEN_FDS=").unwrap_or(0).min(1 << 16);
    let mut names = value(environment, b"LISTEN_FDNAMES=").unwrap_or_default().split(|byte| *byte == b':');
    for place in 0..count {
        let number = i32::try_from(place).ok().and_then(|place| place.checked_add(3));
        let name = names.next().unwrap_or_default().to_vec();
        if let Some(Ok(socket)) = number.map(inherited) {
            found.entry(name).or_insert(socket);
        }
    }
    found
}

fn value<'a>(environment: &[&'a CStr], name: &[u8]) -> Option<&'a [u8]> {
    environment.iter().find_map(|entry| entry.to_bytes().strip_prefix(name))
}

fn number(environment: &[&CStr], name: &[u8]) -> Option<u64> {
    std::str::from_utf8(value(environment, name)?).ok()?.parse().ok()
}

/// A path, or an abstract name that is written with `@`.
fn open(name: &[u8]) -> Option<(UnixDatagram, UnixAddr)> {
    let address = match name.split_first()? {
        (b'@', rest) => UnixAddr::new_abstract(rest).ok()?,
        (b'/', _) => UnixAddr::new(name).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    use super::*;

    #[test]
    fn nothing_is_said_where_nobody_listens() {
        let manager = Manager::of(&[]);
        manager.tell("READY=1");
        assert!(manager.socket.is_none() && manager.watchdog.is_none());
        assert!(Manager::of(&[c"NOTIFY_SOCKET=relative"]).socket.is_none());
    }

    #[test]
    fn the_service_manager_hears() {
        let name = format!("cellwall-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let hears = UnixDatagram::bind_addr(&address).unwrap();
        let socket = CString::new(format!("NOTIFY_SOCKET=@{name}")).unwrap();
        let manager = Manager::of(&[&socket, c"WATCHDOG_USEC=30000000", c"WATCHDOG_PID=1"]);
        assert!(manager.watchdog.is_none(), "meant for another process");
        manager.tell("READY=1");
        manager.reloading();
        let mut buffer = [0; 100];
        let length = hears.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        let length = hears.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"RELOADING=1\nMONOTONIC_USEC="));
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        assert!(handed_over(&[c"LISTEN_PID=1", c"LISTEN_FDS=3"]).is_empty());
    }
}
