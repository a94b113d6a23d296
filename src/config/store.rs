//! Records on disk. Root. One writer at a time; all or nothing.
//!
//! New records are written into a directory that no launcher opens, made durable with one syncfs(2), and only then
//! renamed. A kill at any moment leaves each uid with its old record or its new one, never with a part.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};

use crate::policy::{
    ACCOUNTS_STAMP, DIRECTORY, HOST_FILE, PASSWD, PRIVATE_DIRECTORY, Sink, VIEW_ROOT, decode,
};

use super::aside::Owner;
use super::cell::{Cell, HostCell};

/// Held by whoever writes.
pub const LOCK: &str = "/var/lib/cellwall/apply.lock";

/// The right to write records; given back when it is dropped.
#[derive(Debug)]
pub struct Store {
    _lock: Flock<File>,
}

impl Store {
    /// Makes the directories, waits for other writers, and removes what a killed one left.
    ///
    /// # Errors
    /// When the caller is not root, or the file system says no.
    pub fn open(waiting: impl FnOnce(Option<&Holder>)) -> io::Result<Self> {
        for (path, mode) in [
            ("/var/lib/cellwall", 0o755),
            (DIRECTORY, 0o700),
            (STAGED, 0o700),
            (PRIVATE_DIRECTORY, 0o711),
            (VIEW_ROOT, 0o755),
        ] {
            directory(Path::new(path), mode)?;
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(LOCK);
        let lock = match Flock::lock(file.map_err(at(Path::new(LOCK)))?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                waiting(Holder::of(&file).as_ref());
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?
            }
            Err((_, error)) => return Err(error.into()),
        };
        let store = Self { _lock: lock };
        store.discard()?;
        Ok(store)
    }

    /// Writes a record where no launcher looks. False: it is the old one, byte for byte, and nothing was written.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn stage(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        if read(name).is_some_and(|old| old == bytes) {
            return Ok(false);
        }
        let path = Path::new(STAGED).join(name);
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(at(&path))?;
        Ok(true)
    }

    /// Puts the staged records in place and removes others.
    ///
    /// # Errors
    /// When the file system says no; what was renamed until then stays, each record whole.
    pub fn commit(&self, changed: &BTreeSet<String>, removed: &BTreeSet<String>) -> io::Result<()> {
        let policy = File::open(DIRECTORY)?;
        nix::unistd::syncfs(&policy)?;
        for name in changed {
            let path = Path::new(DIRECTORY).join(name);
            fs::rename(Path::new(STAGED).join(name), &path).map_err(at(&path))?;
        }
        for name in removed {
            let path = Path::new(DIRECTORY).join(name);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        policy.sync_all()
    }

    /// Leaves behind which state of the local accounts all records were made from.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn stamp_accounts(&self, changed: SystemTime) -> io::Result<()> {
        let path = Path::new(ACCOUNTS_STAMP);
        if path.metadata().and_then(|known| known.modified()).is_ok_and(|known| known == changed) {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
        file.and_then(|file| file.set_modified(changed)).map_err(at(path))
    }

    /// Removes all staged records.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn discard(&self) -> io::Result<()> {
        for entry in fs::read_dir(STAGED).map_err(at(Path::new(STAGED)))? {
            let path = entry?.path();
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Makes what a site's record refers to: its private directories and the accounts that its view shows.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn private(&self, private: &Private) -> io::Result<()> {
        let above = Path::new(PRIVATE_DIRECTORY).join(private.uid.to_string());
        let own = above.join(&private.site);
        directory(&above, 0o711)?;
        directory(&own, 0o711)?;
        for name in &private.names {
            owned(&own.join(name), private.uid, private.gid)?;
        }
        if let Some((passwd, group)) = &private.accounts {
            let etc = own.join(".etc");
            directory(&etc, 0o755)?;
            for (name, text) in [("passwd", passwd), ("group", group)] {
                let path = etc.join(name);
                file(&path, text).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

/// Who has a lock that others wait for.
#[derive(Debug)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its command line.
    pub words: Vec<u8>,
}

impl Holder {
    /// By the kernel's list of locks (proc_locks(5)). None: it lets go of it just now, or is in another container.
    fn of(file: &File) -> Option<Self> {
        let inode = format!(":{}", file.metadata().ok()?.ino());
        let text = fs::read_to_string("/proc/locks").ok()?;
        let mut locks = text.lines().map(|line| line.split_ascii_whitespace().skip(1).collect::<Vec<_>>());
        let pid = locks.find_map(|words| match words.as_slice() {
            ["FLOCK", _, "WRITE", pid, place, ..] if place.ends_with(&inode) => pid.parse().ok(),
            _ => None,
        })?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = words.strip_suffix(&[0]).unwrap_or(&words);
        let words = words.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
        Some(Self { pid, words })
    }
}

/// What of a site must exist before its record does.
#[derive(Debug, Clone)]
pub struct Private {
    uid: u32,
    gid: u32,
    site: String,
    home: (u64, u64),
    names: Vec<String>,
    accounts: Option<(String, String)>,
    /// It has a control group.
    pub grouped: bool,
    /// And runs in no other way.
    requires_group: bool,
}

impl Private {
    /// What `cell` needs.
    #[must_use]
    pub fn of(uid: u32, cell: &Cell) -> Self {
        Self {
            uid,
            gid: cell.group.0,
            site: cell.name.clone(),
            home: cell.home.1,
            names: cell.private.clone(),
            accounts: cell.accounts.clone(),
            grouped: !cell.limits.groups.is_empty(),
            requires_group: cell.limits.groups_required,
        }
    }
}

impl Private {
    /// The site, where it runs in a control group or not at all.
    #[must_use]
    pub fn requires_group(&self) -> Option<&str> {
        self.requires_group.then_some(&self.site)
    }

    /// Whose they are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, site: self.site.clone(), home: self.home }
    }
}

/// Where new records wait, on the same file system as the old ones.
const STAGED: &str = "/var/lib/cellwall/staged";

/// An existing record.
#[must_use]
pub fn read(name: &str) -> Option<Vec<u8>> {
    fs::read(Path::new(DIRECTORY).join(name)).ok()
}

/// When the local accounts were last changed (ctime); none: that cannot be told, or not yet: within the same tick of the
/// kernel's clock they could be changed once more and look the same.
#[must_use]
pub fn accounts_changed() -> Option<SystemTime> {
    for _ in 0..10 {
        let facts = fs::metadata(PASSWD).ok()?;
        let (seconds, part) = (u64::try_from(facts.ctime()).ok()?, u32::try_from(facts.ctime_nsec()).ok()?);
        let changed = UNIX_EPOCH.checked_add(Duration::new(seconds, part))?;
        if changed.elapsed().ok()? > TICK {
            return Some(changed);
        }
        std::thread::sleep(TICK);
    }
    None
}

/// Longer than any tick of a kernel.
const TICK: Duration = Duration::from_millis(20);

/// Makes the directory of the log file when there is none: without it a strict host refuses every run.
///
/// # Errors
/// When the file system says no.
pub fn log_directory(host: &HostCell) -> io::Result<()> {
    match host.log_file.parent() {
        Some(above) if host.sink == Sink::File && !above.exists() => directory(above, 0o750),
        _ => Ok(()),
    }
}

/// The uids that have a record.
#[must_use]
pub fn uids() -> BTreeSet<u32> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a uid has sites, as far as the caller may know.
#[must_use]
pub fn is_known(uid: u32) -> bool {
    Path::new(DIRECTORY).join(uid.to_string()).exists()
}

/// The names of the sites in the record of a uid.
#[must_use]
pub fn names(uid: u32) -> BTreeSet<String> {
    let bytes = read(&uid.to_string()).unwrap_or_default();
    let record = decode::record(&bytes).map(|record| record.sites).unwrap_or_default();
    record.iter().map(|site| String::from_utf8_lossy(site.name).into_owned()).collect()
}

/// The uids whose record names `site`; `likely` is asked first, for to ask all is slow with many sites.
#[must_use]
pub fn holders(site: &str, likely: Option<u32>) -> BTreeSet<u32> {
    if let Some(uid) = likely.filter(|uid| names(*uid).contains(site)) {
        return BTreeSet::from([uid]);
    }
    // Every uid that has ever had a site of this name has a private directory for it.
    let entries = fs::read_dir(PRIVATE_DIRECTORY).into_iter().flatten().flatten();
    let had = entries.filter(|entry| entry.path().join(site).symlink_metadata().is_ok());
    had.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|uid| names(*uid).contains(site))
        .collect()
}

/// The name of the host's own record.
#[must_use]
pub fn host_name() -> String {
    HOST_FILE.to_owned()
}

/// The name of the record of a uid's pools.
#[must_use]
pub fn pool_name(uid: u32) -> String {
    format!("{uid}{}", crate::pool::settings::SUFFIX)
}

/// An error that names the path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A directory of root's.
pub(super) fn directory(path: &Path, mode: u32) -> io::Result<()> {
    made(path, mode).map_err(at(path))
}

fn made(path: &Path, mode: u32) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() && found.uid() == 0 && found.mode() & 0o7777 == mode => return Ok(()),
        Ok(found) if found.is_dir() => std::os::unix::fs::lchown(path, Some(0), Some(0))?,
        Ok(_) => return Err(io::Error::other("it is no directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(mode).create(path)?;
        }
        Err(error) => return Err(error),
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A directory of the site's, below directories of root's.
fn owned(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    given(path, uid, gid).map_err(at(path))
}

fn given(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() && found.uid() == uid && found.gid() == gid => return Ok(()),
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(io::Error::other("it is no directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).create(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o700))?;
        }
        Err(error) => return Err(error),
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}

/// A small file of root's that all may read, replaced as a whole.
fn file(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside: PathBuf = path.with_file_name(name);
    let mut new = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(&beside)?;
    new.write_all(text.as_bytes())?;
    new.set_permissions(Permissions::from_mode(0o644))?;
    fs::rename(beside, path)
}
