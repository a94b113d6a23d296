//! Does a web server reach the pools: does the daemon run, and may it connect to their sockets? One that cannot answers 502 by
//! itself; nothing is refused then, and nothing recorded.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use crate::config::store;
use crate::pool::listen::{self, RUN};
use crate::pool::settings::{self, Listen, SOCKETS, Settings};
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
    for uid in store::uids() {
        let bytes = store::read(&store::pool_name(uid)).unwrap_or_default();
        let Ok(file) = settings::file(&bytes) else { continue };
        // Who does not run serves none of them.
        if found.is_empty()
            && let Some(fault) = of_daemon()
        {
            return vec![fault];
        }
        let pools = file.pools.iter().filter_map(|pool| settings::settings(pool).ok());
        found.extend(pools.filter_map(|pool| of_socket(&pool)));
        if found.len() >= most {
            break;
        }
    }
    found.truncate(most);
    found
}

/// The site whose socket is named in a line of a web server's log (`connect() to unix:/run/… failed`).
#[must_use]
pub fn named(text: &str) -> Option<String> {
    let name = text.split_once(SOCKETS)?.1.strip_prefix('/')?.split([':', ' ', '"', '/', ')', '|']).next()?;
    let is = |pool: &Settings<'_>| pool.listen == Listen::Socket(name.as_bytes());
    store::uids().into_iter().find_map(|uid| {
        let bytes = store::read(&store::pool_name(uid))?;
        let file = settings::file(&bytes).ok()?;
        let mut pools = file.pools.iter().filter_map(|pool| settings::settings(pool).ok());
        pools.find(is).map(|pool| String::from_utf8_lossy(pool.name).into_owned())
    })
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
    let facts = match fs::symlink_metadata(&path) {
        Ok(facts) => facts,
        Err(_) => {
            let found = format!("{}: No such file or directory", path.display());
            return Some(Fault { found, repair: "cellwall pool reload".to_owned() });
        }
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
