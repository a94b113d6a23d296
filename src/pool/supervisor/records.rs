//! The records of all pools, as they are on disk: read by root, and believed where only root can have written them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::policy::DIRECTORY;
use crate::refusal::{Card, Refusal};

use super::super::settings::{self, SUFFIX};
use super::Supervisor;
use super::pools::Pool;

/// A site as the records on disk have it.
pub(super) struct Found {
    pub(super) uid: u32,
    pub(super) record: Rc<[u8]>,
    pub(super) rules: u64,
}

impl Supervisor {
    /// Every pool of every `<uid>.pool`, and whether all could be read. What cannot counts as it was before, and is recorded.
    pub(super) fn read_all(&mut self) -> (BTreeMap<Vec<u8>, Found>, bool) {
        let files = match files() {
            Ok(files) => files,
            Err(why) => {
                self.journal.refused(b"-", &Refusal::about(&RECORD, DIRECTORY.as_bytes(), &why.to_string()));
                return (self.as_before(|_| true), false);
            }
        };
        let (mut all, mut all_used) = (BTreeMap::new(), true);
        for (uid, path) in files {
            if let Err(why) = read_file(&path, uid, &mut all) {
                let refusal = Refusal::about(&RECORD, path.as_os_str().as_encoded_bytes(), &why);
                self.journal.refused(b"-", &refusal);
                all.extend(self.as_before(|pool| pool.uid == uid));
                all_used = false;
            }
        }
        (all, all_used)
    }

    /// What is known of these.
    fn as_before(&self, which: impl Fn(&Pool) -> bool) -> BTreeMap<Vec<u8>, Found> {
        let kept = self.pools.values().filter(|pool| which(pool));
        let found = |pool: &Pool| Found { uid: pool.uid, record: Rc::clone(&pool.record), rules: pool.rules };
        kept.map(|pool| (pool.name.clone(), found(pool))).collect()
    }
}

/// Every `<uid>.pool`, or none at all: a part of them would look as if the other sites were gone.
fn files() -> std::io::Result<Vec<(u32, PathBuf)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(DIRECTORY)? {
        let entry = entry?;
        let name = entry.file_name();
        let uid = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(uid) = uid.and_then(|uid| uid.parse().ok()) {
            all.push((uid, entry.path()));
        }
    }
    Ok(all)
}

fn read_file(path: &Path, uid: u32, all: &mut BTreeMap<Vec<u8>, Found>) -> Result<(), String> {
    let mut file = File::open(path).map_err(|why| why.to_string())?;
    let facts = file.metadata().map_err(|why| why.to_string())?;
    if !facts.is_file() || facts.uid() != 0 || facts.mode() & 0o022 != 0 {
        return Err("is not a file that only root can write".to_owned());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|why| why.to_string())?;
    let whole = settings::file(&bytes).map_err(|why| why.to_string())?;
    if whole.uid != uid {
        return Err(format!("is for uid {}", whole.uid));
    }
    for (record, rules) in whole.pools.into_iter().zip(whole.rules) {
        let name = settings::settings(record).map_err(|why| why.to_string())?.name.to_vec();
        all.insert(name, Found { uid, record: Rc::from(record), rules });
    }
    Ok(())
}

/// A daemon that is older than the command that wrote the record reads it no better the second time.
pub(super) static RECORD: Card =
    Card { code: "S09", status: 88, remedy: "cellwall apply && systemctl restart cellwalld" };
