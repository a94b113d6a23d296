//! What of ours in /run somebody may have removed, by a hand that meant another directory: looked at once a second, and made
//! again. What stands there and is not ours is left alone, and told once.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;

use nix::sys::epoll::EpollFlags;

use super::super::control::SOCKET;
use super::super::listen::{self, WORKERS};
use super::super::settings::SOCKETS;
use super::super::wire::Site;
use super::{CONTROL, STATUS, Supervisor};

/// Our two sockets, as they were made.
#[derive(Debug)]
pub(super) struct Own {
    control: Option<Place>,
    status: Option<Place>,
    /// A stranger's thing in the place of one was told.
    told: bool,
}

/// Device and inode.
type Place = (u64, u64);

/// How something of ours is.
#[derive(Debug, PartialEq, Eq)]
enum Is {
    Ours,
    Gone,
    Foreign,
}

impl Own {
    /// Right after they were made.
    pub(super) fn now() -> Self {
        Self { control: place(SOCKET), status: place(STATUS), told: false }
    }
}

fn place(path: &str) -> Option<Place> {
    fs::symlink_metadata(path).ok().map(|facts| (facts.dev(), facts.ino()))
}

fn is(path: &str, ours: Option<Place>) -> Is {
    match fs::symlink_metadata(path) {
        Ok(facts) if Some((facts.dev(), facts.ino())) == ours => Is::Ours,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Is::Gone,
        Ok(_) | Err(_) => Is::Foreign,
    }
}

impl Supervisor {
    /// Once a second.
    pub(super) fn restore(&mut self) {
        let (control, status) = (is(SOCKET, self.own.control), is(STATUS, self.own.status));
        let public = !Path::new(SOCKETS).exists();
        let workers = !Path::new(WORKERS).exists();
        if public || workers || control == Is::Gone || status == Is::Gone {
            // What keeps them from being made is told by what is made in them.
            drop(listen::directories(self.broker.account.gid));
        }
        self.restore_socket(SOCKET, &control);
        self.restore_socket(STATUS, &status);
        if workers {
            self.restore_workers();
        }
        if public {
            self.journal.say("run", b"", &format!("path={SOCKETS} why=\"it was gone\""));
            self.reload();
        }
    }

    fn restore_socket(&mut self, path: &'static str, how: &Is) {
        let made = match how {
            Is::Ours => return,
            Is::Foreign if self.own.told => return,
            // Whatever it is, the same is said as at a start.
            Is::Gone | Is::Foreign if path == SOCKET => listen::control(Path::new(path)),
            Is::Gone | Is::Foreign => listen::named(Path::new(path), 0),
        };
        let socket = match made {
            Ok(socket) => socket,
            Err(refusal) => {
                if !self.own.told {
                    self.journal.refused(b"-", &refusal);
                }
                self.own.told = true;
                return;
            }
        };
        self.own.told = false;
        let _ = listen::set_blocking(&socket, false);
        self.journal.say("run", b"", &format!("path={path} why=\"it was gone\""));
        if path == SOCKET {
            let _ = self.epoll.delete(&self.control);
            self.control.replace(socket);
            if let Err(why) = self.watch(&self.control, CONTROL, EpollFlags::EPOLLIN) {
                self.journal.say("error", b"", &format!("call=epoll_ctl path={path} why=\"{why}\""));
            }
            self.own.control = place(path);
        } else {
            self.status = Rc::new(socket);
            self.own.status = place(path);
            self.welcome_again();
        }
    }

    /// The broker's root was removed under it, with the sockets of all workers: another broker, and other workers.
    fn restore_workers(&mut self) {
        self.journal.say("run", b"", &format!("path={WORKERS} why=\"it was gone\""));
        self.broker.kill();
        let all: Vec<Site> = self.pools.keys().copied().collect();
        for site in all {
            self.renew(site);
        }
    }
}
