//! What one test has for itself, of all test programs of this machine.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Holds a name as long as it is kept; it leaves nothing behind, whatever ends its process. None: somebody else has the name.
/// Names are those of the first thread's network: call it outside of a world.
pub(crate) fn hold(name: &str) -> Option<UnixDatagram> {
    match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()) {
        Ok(held) => Some(held),
        Err(why) if why.kind() == io::ErrorKind::AddrInUse => None,
        Err(why) => panic!("{name}: {why}"),
    }
}
