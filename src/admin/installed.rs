//! Is the launcher where the web server starts it, can it become root, and can it write a record? Asked where a page has a
//! reference and no record.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Group, Uid, User};

use crate::config::store;
use crate::policy::read::{self, Unreadable};
use crate::policy::{DIRECTORY, HOST_FILE, Sink, decode};
use crate::refusal::Pasted;

use super::apache;
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
    [records(), log(), launcher(), apache::suexec(), apache::module()].into_iter().flatten().collect()
}

/// What of it stops every launch of a host that has the launcher.
#[must_use]
pub fn faults_of_all() -> Vec<Fault> {
    let there = Path::new(LAUNCHER).exists();
    // Before the first apply there is none; and who is not root may not look.
    let records = records().filter(|_| nix::unistd::geteuid().is_root() && !never_applied());
    [records, log(), launcher().filter(|_| there)].into_iter().flatten().collect()
}

/// Nothing was applied yet, or all of it has gone.
#[must_use]
pub fn never_applied() -> bool {
    !Path::new(DIRECTORY).exists()
}

/// The launcher's own look at the records: where it trusts none it refuses every launch, and does not know the log.
#[must_use]
pub fn records() -> Option<Fault> {
    let (found, repair) = match read::host() {
        Ok(_) => return None,
        Err(Unreadable::Way(path, what)) => {
            (format!("{path} {what}"), format!("chown root {path} && chmod go-w {path}"))
        }
        Err(why) => (format!("{DIRECTORY}/{HOST_FILE}: {why}"), "cellwall apply".to_owned()),
    };
    Some(Fault { found: format!("no policy record is used: {found}"), repair })
}

/// The file of the records: where it cannot grow, and no log daemon takes them instead, a strict host runs nothing.
fn log() -> Option<Fault> {
    let bytes = store::read(HOST_FILE)?;
    let log = decode::host(&bytes).ok()?.log;
    let heard = || UnixDatagram::unbound().is_ok_and(|socket| socket.connect("/dev/log").is_ok());
    if log.sink == Sink::Syslog && heard() {
        return None;
    }
    let file = Path::new(OsStr::from_bytes(log.file));
    let (path, why, repair) = unwritable(file)?;
    let word = Pasted(path.as_os_str().as_bytes());
    Some(Fault {
        found: format!("no record can be written: {}: {why}", path.display()),
        repair: repair.replace("{}", &word.to_string()),
    })
}

/// What keeps this file from a line more: which path, why, and the command. Nothing stays of what is tried.
fn unwritable(file: &Path) -> Option<(&Path, String, &'static str)> {
    let above = file.parent()?;
    let is_new = match OpenOptions::new().append(true).open(file) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Some((file, error.to_string(), way_free(error.raw_os_error()))),
    };
    let facts = match statvfs(above) {
        Ok(facts) => facts,
        Err(errno) => return Some((above, errno.desc().to_owned(), "install -d -o root -g adm -m 0750 {}")),
    };
    // The last blocks are kept for root, and who writes a launch's record is the site's user already.
    if facts.blocks_available() == 0 {
        Some((above, "its file system is full".to_owned(), "df -h {} # make room there"))
    } else if is_new && facts.flags().contains(FsFlags::ST_RDONLY) {
        Some((above, Errno::EROFS.desc().to_owned(), REMOUNT))
    } else if is_new && facts.files() > 0 && facts.files_available() == 0 {
        Some((above, "its file system has no inode left".to_owned(), "df -i {} # remove files there"))
    } else {
        let why = no_block(above)?;
        Some((above, why.to_string(), "df -h {} # make room there, or raise its quota"))
    }
}

/// What keeps a block more from this directory, where that is seen: a quota is no number of the file system's. The file has no name
/// (open(2), `O_TMPFILE`).
fn no_block(directory: &Path) -> Option<io::Error> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(directory);
    let why = file.and_then(|mut file| file.write_all(&[0; 4096])).err()?;
    // Not every file system has such files.
    [libc::EDQUOT, libc::ENOSPC].contains(&why.raw_os_error()?).then_some(why)
}

/// What lets root append to a file that is there.
fn way_free(errno: Option<i32>) -> &'static str {
    match errno.map(Errno::from_raw) {
        Some(Errno::EROFS) => REMOUNT,
        // An immutable one (ioctl_iflags(2)).
        Some(Errno::EPERM) => "chattr -i {}",
        _ => "ls -ld {}",
    }
}

const REMOUNT: &str = "mount -o remount,rw $(findmnt -n -o TARGET --target {})";

/// The file itself: root's, set-uid, and its group the web server's.
pub(super) fn launcher() -> Option<Fault> {
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

/// Apache starts another one: then what it started wrote no record.
#[must_use]
pub fn another() -> Option<Fault> {
    apache::started()
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

pub(super) fn group_name(gid: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    found.map_or_else(|| gid.to_string(), |group| group.name)
}
