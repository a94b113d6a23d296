//! The administrator's configuration: from TOML to policy records.
//!
//! * [`problem`], [`reader`], [`values`]: one file, its keys, and messages with line and column.
//! * [`rules`], [`host`], [`profiles`], [`sites`]: the layers, and how they merge.
//! * [`accounts`], [`ground`]: what the name service and the file system say.
//! * [`compile`], [`jail`], [`view`], [`fold`], [`limits`], [`environment`]: one site becomes a [`cell`].
//! * [`pool`]: `[pool]` of a site becomes the settings of its pool; `listeners`: no two have one socket.
//! * `closed`: what modes keep from a site although its rules give it.
//! * [`looks`]: what is looked at just now, in case it never answers.
//! * `logs`: the way to each file that root writes records to.
//! * [`seccomp`], [`syscalls`], [`lists`]: the shipped lists.
//! * [`whole`]: all sites, grouped by uid, and their records.
//! * [`store`]: records on disk: one writer at a time, all or nothing.
//! * [`facts`]: a record in words, and the difference of two.

pub mod accounts;
pub mod aside;
pub mod cell;
mod closed;
pub mod compile;
pub mod environment;
pub mod facts;
pub mod fold;
pub mod ground;
pub mod host;
pub mod jail;
pub mod limits;
mod listeners;
pub mod lists;
mod logs;
pub mod looks;
pub mod mounts;
pub mod pool;
pub mod problem;
pub mod profiles;
pub mod provenance;
pub mod reader;
pub mod rules;
pub mod seccomp;
pub mod sites;
pub mod store;
pub mod syscalls;
mod unused;
pub mod values;
pub mod view;
pub mod whole;

/// The host's file.
pub const HOST_FILE: &str = "/etc/cellwall/cellwall.toml";
/// The sites' directory.
pub const SITES_DIRECTORY: &str = "/etc/cellwall/sites.d";
/// Who calls the launcher when `caller` is not written.
pub const DEFAULT_CALLER: [&str; 1] = ["www-data"];
