//! Private directories of sites that are gone: put aside, where nobody but root gets at them, until the same account has the
//! same site again.
//!
//! Root. By renaming alone: what is in them is not looked at, and nothing is lost.
//! May not: give a directory back where the home is not the one that it was.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::policy::{PRIVATE_DIRECTORY, decode};

use super::store;

/// Whose private directories they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Its uid.
    pub uid: u32,
    /// The site's name.
    pub site: String,
    /// The home's inode, and when it was made: a uid is given to somebody else, a home is made anew. Zeros: none, or not known.
    pub home: (u64, u64),
}

/// What lies in [`PRIVATE_DIRECTORY`] for who is gone.
pub const GONE: &str = "/var/lib/cellwall/private/.gone";

impl Owner {
    /// Where they are while the site is there.
    fn place(&self) -> PathBuf {
        Path::new(PRIVATE_DIRECTORY).join(self.uid.to_string()).join(&self.site)
    }

    /// Where they wait.
    fn aside(&self) -> PathBuf {
        let Self { uid, site, home: (inode, born) } = self;
        Path::new(GONE).join(format!("{site}-{uid}-{inode}-{born}"))
    }
}

/// Gives those back that wait for one of these.
///
/// # Errors
/// When the file system says no.
pub fn give_back(owners: &BTreeSet<Owner>) -> io::Result<()> {
    if !Path::new(GONE).exists() {
        return Ok(());
    }
    // Without the time a new home may have an old one's number.
    for owner in owners.iter().filter(|owner| owner.home.0 != 0 && owner.home.1 != 0) {
        let (place, aside) = (owner.place(), owner.aside());
        if aside.exists() && !place.exists() {
            store::directory(place.parent().unwrap_or(Path::new(PRIVATE_DIRECTORY)), 0o711)?;
            fs::rename(aside, place)?;
        }
    }
    Ok(())
}

/// Whose directories are there, of these uids or of all, and who has no such site any more. To be asked while the old records
/// are there, which know the homes.
#[must_use]
pub fn leaving(staying: &BTreeSet<Owner>, uids: Option<&BTreeSet<u32>>) -> Vec<Owner> {
    let stays: BTreeSet<(u32, &str)> = staying.iter().map(|owner| (owner.uid, owner.site.as_str())).collect();
    let mut all = Vec::new();
    for (name, uid) in
        names(Path::new(PRIVATE_DIRECTORY)).filter_map(|name| Some((name.clone(), name.parse().ok()?)))
    {
        if uids.is_some_and(|uids| !uids.contains(&uid)) {
            continue;
        }
        for site in names(&Path::new(PRIVATE_DIRECTORY).join(name)) {
            if !stays.contains(&(uid, site.as_str())) {
                let home = home(uid, &site);
                all.push(Owner { uid, site, home });
            }
        }
    }
    all
}

/// Puts them aside.
///
/// # Errors
/// When the file system says no.
pub fn put(leaving: &[Owner]) -> io::Result<()> {
    if leaving.is_empty() {
        return Ok(());
    }
    store::directory(Path::new(GONE), 0o700)?;
    for owner in leaving {
        let (place, aside) = (owner.place(), owner.aside());
        // One that nobody came back for, and that cannot be told from this one.
        let free = (1_u32..).map(|number| if number == 1 { aside.clone() } else { beside(&aside, number) });
        let Some(free) = free.into_iter().find(|aside| !aside.exists()) else { continue };
        fs::rename(&place, free)?;
        // Its other sites may be there.
        let _ = place.parent().map(fs::remove_dir);
    }
    Ok(())
}

fn beside(aside: &Path, number: u32) -> PathBuf {
    let mut name = aside.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// By the record that is still there.
fn home(uid: u32, site: &str) -> (u64, u64) {
    let bytes = store::read(&uid.to_string()).unwrap_or_default();
    let record = decode::record(&bytes).ok();
    let sites = record.iter().flat_map(|record| &record.sites);
    let mut homes = sites.filter(|known| known.name == site.as_bytes()).map(|known| &known.identity);
    homes.next().map_or((0, 0), |identity| (identity.home_inode, identity.home_born))
}
