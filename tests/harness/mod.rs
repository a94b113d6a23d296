//! What end-to-end tests share: a private copy of the host, a caller that can be in any state, a real Apache, a client.
//!
//! A test is `world(Launcher::Cellwall, |world| …)`: it runs in a thread with its own mounts and its own network, so
//! nothing that it does to /etc, /usr, /var, /srv, /home, /run or a port reaches the host or another test.

mod alone;
mod apache;
mod call;
mod groups;
mod http;
mod hung;
mod programs;
mod record;
mod report;
mod shown;
mod transcript;
mod world;

pub(crate) use alone::hold;
pub(crate) use apache::{Apache, Kind, virtual_host};
pub(crate) use call::{Call, Outcome, TRACE, traced};
pub(crate) use http::{Answer, Ask, Kept};
pub(crate) use hung::Hung;
pub(crate) use programs::{flup, programs};
pub(crate) use record::Record;
pub(crate) use report::Report;
pub(crate) use shown::not_shown;
pub(crate) use transcript::as_in_the_manual;
pub(crate) use world::{
    CELLWALL, LOG, Launcher, Outside, PATIENCE, SUEXEC, Syslog, User, World, append, each_jail,
    each_kind_of_php, everything, make_directory, mode, orders, put, run, small, spawn, world,
};
