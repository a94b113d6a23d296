//! Accounts that are somebody else's by now. A launch sees that by itself (P03); a worker may have been launched long ago.
//!
//! Looks at /etc/passwd when it has changed, and asks no name service: of an account that stood in no file nothing is known here.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::policy::{PASSWD, decode, read};

use super::super::wire::Site;
use super::Supervisor;

/// The file: which one, and when it was changed.
type Stamp = Option<(u64, i64, i64)>;

/// The file as it was when it was last looked at, and when accounts were last looked for in it.
#[derive(Default)]
pub(super) struct Accounts {
    last: Stamp,
    judged: Stamp,
}

impl Supervisor {
    /// Once a second: workers of a user who is gone, or has another uid, are ended. The next launch says why none comes.
    pub(super) fn look_at_accounts(&mut self) {
        let facts = fs::metadata(PASSWD).ok();
        let now = facts.map(|facts| (facts.ino(), facts.ctime(), facts.ctime_nsec()));
        // Whoever writes it in its place may be in the middle of it.
        let is_settled = std::mem::replace(&mut self.accounts.last, now) == now;
        if !is_settled || std::mem::replace(&mut self.accounts.judged, now) == now {
            return;
        }
        let Ok(text) = fs::read(PASSWD) else { return };
        let known = uids(&text);
        let mut gone: Vec<Site> = self.workers.values().map(|living| living.site).collect();
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|site| self.pools.get(site).is_some_and(|pool| is_gone(pool.uid, &known)));
        for site in gone {
            let name = self.name(site);
            self.journal.say("account", &name, "state=gone fix=\"cellwall check\"");
            self.stop_workers(site);
        }
    }
}

/// The first line of a name counts, as in a lookup.
fn uids(text: &[u8]) -> HashMap<&[u8], Option<u32>> {
    let mut all = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b':');
        let (Some(name), Some(uid)) = (words.next(), words.nth(1)) else { continue };
        all.entry(name).or_insert_with(|| std::str::from_utf8(uid).ok()?.parse().ok());
    }
    all
}

/// Whether the policy of this uid was made for an account of the file's that is not there any more, or has another uid.
fn is_gone(uid: u32, known: &HashMap<&[u8], Option<u32>>) -> bool {
    let Ok(bytes) = read::record(uid) else { return false };
    decode::record(&bytes).is_ok_and(|policy| policy.listed && known.get(policy.user) != Some(&Some(uid)))
}
