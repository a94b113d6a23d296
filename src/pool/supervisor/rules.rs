//! The rules that a site's workers were started under, to be told from those of today.
//!
//! A worker lives in the cell that it was started in: whatever the policy says of its site differently makes it old. The
//! policy's record of a uid is written anew when anything about any of its sites has changed, be it a comment; so what is
//! compared is what the record says of the one site, without the time of its file, which is there for launches.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::policy::{DIRECTORY, Record, Site, Source, decode, read};

/// The rules of one site: a digest of them, and the writing of the record that they were read from. Root alone writes the
/// records: nobody looks for two with one digest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    writing: Writing,
    digest: u64,
}

/// Which writing of a uid's record it is: `apply` puts another file in its place when anything has changed, and leaves it alone
/// otherwise. Inode and time of its last change.
type Writing = (u64, i64, i64);

impl Rules {
    /// A worker that was started under the one can go on under the other.
    pub(super) fn are_those(self, other: Self) -> bool {
        self.digest == other.digest
    }
}

/// What the record of one uid says today. It is read when it is needed: 10,000 of them take a while.
pub(super) struct Today {
    uid: u32,
    writing: Option<Writing>,
    digests: Option<BTreeMap<Vec<u8>, u64>>,
}

impl Today {
    pub(super) fn of(uid: u32) -> Self {
        let facts = std::fs::metadata(Path::new(DIRECTORY).join(uid.to_string()));
        let writing = facts.ok().map(|facts| (facts.ino(), facts.ctime(), facts.ctime_nsec()));
        Self { uid, writing, digests: None }
    }

    /// The rules of this site, which were `known` before. None: there are none, or none that can be read.
    pub(super) fn rules(&mut self, site: &[u8], known: Option<Rules>) -> Option<Rules> {
        let writing = self.writing?;
        if let Some(known) = known.filter(|known| known.writing == writing) {
            return Some(known);
        }
        let uid = self.uid;
        let digests = self.digests.get_or_insert_with(|| read_digests(uid));
        digests.get(site).map(|digest| Rules { writing, digest: *digest })
    }
}

fn read_digests(uid: u32) -> BTreeMap<Vec<u8>, u64> {
    let Ok(bytes) = read::record(uid) else { return BTreeMap::new() };
    let Ok(policy) = decode::record(&bytes) else { return BTreeMap::new() };
    policy.sites.iter().map(|site| (site.name.to_vec(), digest(&policy, site))).collect()
}

fn digest(policy: &Record<'_>, site: &Site<'_>) -> u64 {
    let source = Source { modified: 0, ..site.source };
    let mut hasher = DefaultHasher::new();
    (policy.user, Site { source, ..site.clone() }).hash(&mut hasher);
    hasher.finish()
}
