//! Does a web server reach the pools: does the daemon run, and may it connect to their sockets? One that cannot answers 502 by
//! itself; nothing is refused then, and nothing recorded.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use crate::config::store;
use crate::pool::listen::{self, RUN};
use crate::pool::settings::{Listen, SOCKETS, Settings};
use crate::refusal::Pasted;

use super::installed::{Fault, group_name};
use super::{policy, pool, pooled};

/// What keeps a web server from this site's pool. None: nothing, or it has none.
#[must_use]
pub fn fault(site: &str) -> Option<Fault> {
    let uid = policy::holder(site).ok()?;
    pooled::with_settings(uid, site.as_bytes(), |pool| of_daemon().or_else(|| of_socket(pool)))
}

/// Of all pools, and so many at most.
#[must_use]
pub fn faults(most: usize) -> Vec<Fault> {
    let mut found = Vec::new();
    let down = of_daemon();
    pooled::find(store::uids(), |pool| {
        found.extend(down.clone().or_else(|| of_socket(pool)));
        // Who does not run serves none of them.
        (down.is_some() || found.len() >= most).then_some(())
    });
    found
}

/// The site whose socket is named in a line of a web server's log (`connect() to unix:/run/… failed`).
#[must_use]
pub fn named(text: &str) -> Option<String> {
    let name = text.split_once(SOCKETS)?.1.strip_prefix('/')?.split([':', ' ', '"', '/', ')', '|']).next()?;
    let is = |pool: &Settings<'_>| pool.listen == Listen::Socket(name.as_bytes());
    pooled::find(store::uids(), |pool| is(pool).then(|| String::from_utf8_lossy(pool.name).into_owned()))
}

fn of_daemon() -> Option<Fault> {
    (!pool::is_there()).then(|| Fault {
        found: "cellwalld, which serves its pool, does not run".to_owned(),
        repair: pool::by_systemd("enable --now"),
    })
}

/// The socket as the daemon makes it, and the directories above.
fn of_socket(pool: &Settings<'_>) -> Option<Fault> {
    let Listen::Socket(name) = pool.listen else { return None };
    for (path, wanted) in [(RUN, 0o755), (SOCKETS, 0o711)] {
        let mode = fs::metadata(path).map_or(0, |facts| facts.mode() & 0o7777);
        if mode & 0o011 != 0o011 {
            let found = format!("{path} has mode {mode:04o}, not {wanted:04o}");
            return Some(Fault { found, repair: format!("chmod {wanted:o} {path}") });
        }
    }
    let path = listen::path(name);
    let word = Pasted(path.as_os_str().as_bytes());
    let Ok(facts) = fs::symlink_metadata(&path) else {
        let found = format!("{}: No such file or directory", path.display());
        return Some(Fault { found, repair: "cellwall pool reload".to_owned() });
    };
    let (mode, group) = (facts.mode() & 0o777, facts.gid());
    (mode & 0o060 != 0o060 || group != pool.group).then(|| Fault {
        found: format!(
            "{} has mode {mode:04o} and group {group}, not 0660 and {}",
            path.display(),
            pool.group
        ),
        repair: format!("chgrp {} {word} && chmod 660 {word}", group_name(pool.group)),
    })
}
