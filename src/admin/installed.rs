//! Is the launcher where the web server starts it, and can it become root? Asked where a page has a reference and no record:
//! a launcher that is no root's cannot write one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

use crate::config::store;
use crate::policy::{HOST_FILE, decode};

use super::mend::LAUNCHER;

/// What is wrong, and the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What was seen.
    pub found: String,
    /// A command.
    pub repair: String,
}

/// Everything that is wrong here.
#[must_use]
pub fn faults() -> Vec<Fault> {
    [launcher(), link(), module()].into_iter().flatten().collect()
}

/// The file itself: root's, set-uid, and its group the web server's.
fn launcher() -> Option<Fault> {
    let facts = match fs::metadata(LAUNCHER) {
        Ok(facts) => facts,
        Err(why) => {
            let found = format!("{LAUNCHER}: {why}");
            return Some(Fault { found, repair: "cargo xtask install".to_owned() });
        }
    };
    let (owner, mode) = (facts.uid(), facts.mode() & 0o7777);
    let stranger = stranger(facts.gid());
    if (owner, mode) == (0, 0o4750) && stranger.is_none() {
        return None;
    }
    let (why, group) = match stranger {
        Some((user, group)) => (format!("; {user} is not in its group"), group),
        None => (String::new(), group_name(facts.gid())),
    };
    let found = format!("{LAUNCHER} has mode {mode:04o} and owner {owner}, not 4750 and root{why}");
    Some(Fault { found, repair: format!("chown root:{group} {LAUNCHER} && chmod 4750 {LAUNCHER}") })
}

/// Where Debian's Apache looks. A host may have another web server.
fn link() -> Option<Fault> {
    let real = fs::canonicalize(DEBIANS).or_else(|_| fs::read_link(DEBIANS)).ok()?;
    (real != Path::new(LAUNCHER)).then(|| Fault {
        found: format!("Apache starts {DEBIANS}, which is {}", real.display()),
        repair: format!("update-alternatives --set suexec {LAUNCHER}"),
    })
}

/// Without it Apache knows no `SuexecUserGroup`.
fn module() -> Option<Fault> {
    let modules = Path::new(MODULES);
    (modules.is_dir() && !modules.join("suexec.load").exists()).then(|| Fault {
        found: "Apache's module suexec is not enabled".to_owned(),
        repair: "a2enmod suexec && systemctl restart apache2".to_owned(),
    })
}

/// A caller of the host's rules who may not execute a file of this group, and the group that he has.
fn stranger(gid: u32) -> Option<(String, String)> {
    let bytes = store::read(HOST_FILE)?;
    let host = decode::host(&bytes).ok()?;
    let users = host.callers.iter().filter_map(|uid| User::from_uid(Uid::from_raw(*uid)).ok().flatten());
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let member = |user: &User| group.as_ref().is_some_and(|group| group.mem.contains(&user.name));
    let mut strangers = users.filter(|user| !user.uid.is_root() && user.gid.as_raw() != gid && !member(user));
    strangers.next().map(|user| (user.name, group_name(user.gid.as_raw())))
}

fn group_name(gid: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    found.map_or_else(|| gid.to_string(), |group| group.name)
}

/// The path that Debian's Apache starts.
const DEBIANS: &str = "/usr/lib/apache2/suexec";
/// Modules that Debian's Apache loads.
const MODULES: &str = "/etc/apache2/mods-enabled";
