//! Records on disk. Root. One writer at a time; all or nothing.
//!
//! New records are written beside the old ones under names that no launcher opens, made durable with one syncfs(2), and
//! only then renamed. A kill at any moment leaves each uid with its old record or its new one, never with a part.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::policy::{DIRECTORY, HOST_FILE, PRIVATE_DIRECTORY, VIEW_ROOT};

use super::cell::Cell;

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
    pub fn open(waiting: impl FnOnce()) -> io::Result<Self> {
        for (path, mode) in
            [("/var/lib/cellwall", 0o755), (DIRECTORY, 0o700), (PRIVATE_DIRECTORY, 0o711), (VIEW_ROOT, 0o755)]
        {
            directory(Path::new(path), mode)?;
        }
        let file = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(LOCK);
        let lock = match Flock::lock(file()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                waiting();
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?
            }
            Err((_, error)) => return Err(error.into()),
        };
        let store = Self { _lock: lock };
        store.discard()?;
        Ok(store)
    }

    /// Writes a record beside the old one. False: it is the old one, byte for byte, and nothing was written.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn stage(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        if read(name).is_some_and(|old| old == bytes) {
            return Ok(false);
        }
        let path = Path::new(DIRECTORY).join(staged(name));
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?.write_all(bytes)?;
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
            fs::rename(Path::new(DIRECTORY).join(staged(name)), Path::new(DIRECTORY).join(name))?;
        }
        for name in removed {
            fs::remove_file(Path::new(DIRECTORY).join(name))?;
        }
        policy.sync_all()
    }

    /// Removes all staged records.
    ///
    /// # Errors
    /// When the file system says no.
    pub fn discard(&self) -> io::Result<()> {
        for entry in fs::read_dir(DIRECTORY)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(STAGED) {
                fs::remove_file(entry.path())?;
            }
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
            file(&etc.join("passwd"), passwd)?;
            file(&etc.join("group"), group)?;
        }
        Ok(())
    }
}

/// What of a site must exist before its record does.
#[derive(Debug, Clone)]
pub struct Private {
    uid: u32,
    gid: u32,
    site: String,
    names: Vec<String>,
    accounts: Option<(String, String)>,
}

impl Private {
    /// What `cell` needs.
    #[must_use]
    pub fn of(uid: u32, cell: &Cell) -> Self {
        Self {
            uid,
            gid: cell.group.0,
            site: cell.name.clone(),
            names: cell.private.clone(),
            accounts: cell.accounts.clone(),
        }
    }
}

const STAGED: &str = ".new-";

fn staged(name: &str) -> String {
    format!("{STAGED}{name}")
}

/// An existing record.
#[must_use]
pub fn read(name: &str) -> Option<Vec<u8>> {
    fs::read(Path::new(DIRECTORY).join(name)).ok()
}

/// The uids that have a record.
#[must_use]
pub fn uids() -> BTreeSet<u32> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The uids that have had a site of this name: their private directories say so.
#[must_use]
pub fn uids_of(site: &str) -> BTreeSet<u32> {
    let entries = fs::read_dir(PRIVATE_DIRECTORY).into_iter().flatten().flatten();
    let holders = entries.filter(|entry| entry.path().join(site).symlink_metadata().is_ok());
    holders.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The name of the host's own record.
#[must_use]
pub fn host_name() -> String {
    HOST_FILE.to_owned()
}

/// A directory of root's.
fn directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() && found.uid() == 0 && found.mode() & 0o7777 == mode => return Ok(()),
        Ok(found) if found.is_dir() => std::os::unix::fs::lchown(path, Some(0), Some(0))?,
        Ok(_) => return Err(io::Error::other(format!("{} is no directory", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(mode).create(path)?;
        }
        Err(error) => return Err(error),
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A directory of the site's, below directories of root's.
fn owned(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() && found.uid() == uid && found.gid() == gid => return Ok(()),
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(io::Error::other(format!("{} is no directory", path.display()))),
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
