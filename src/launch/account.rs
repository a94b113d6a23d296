//! Is the uid still the account that the policy was made for? Root; reads only what is root's, and asks no name service.
//!
//! An account that stood in /etc/passwd when the policy was applied must stand there, with its uid. To read the whole
//! file at each launch would cost milliseconds where there are 100,000 accounts; so `apply` leaves the time of the file's
//! last change behind, and only another time makes a launch read it. Accounts of a directory service are in no file:
//! of them, as of all, the home must be the one that it was.
//!
//! Refuses with P03.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Error, Read as _};
use std::os::fd::AsFd as _;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::fstatat;

use crate::policy::{ACCOUNTS_STAMP, Identity, PASSWD, Record, Site};
use crate::refusal::{Card, Pasted, Refusal, Untrusted};
use crate::sys::files;

/// A uid that was given to somebody else inherits nothing.
///
/// # Errors
/// As the module says.
pub(super) fn same(policy: &Record<'_>, site: &Site<'_>) -> Result<(), Refusal> {
    if policy.listed && !changed_at(PASSWD, ACCOUNTS_STAMP) {
        let why = match uid_of(policy.user) {
            Ok(Some(uid)) if uid == policy.uid => None,
            Ok(Some(uid)) => Some(format!("has uid {uid} now")),
            Ok(None) => Some("is not there any more".to_owned()),
            Err(error) => Some(format!("cannot be looked up: {}", Untrusted(error.to_string().as_bytes()))),
        };
        if let Some(why) = why {
            return Err(drift(policy, format!("{PASSWD}: {} {why}", Untrusted(policy.user))));
        }
    }
    same_home(policy, &site.identity)
}

/// The entry of a home is in a directory of root's: the site cannot change what is looked at. No device is compared: the
/// kernel numbers disks as it finds them.
fn same_home(policy: &Record<'_>, identity: &Identity<'_>) -> Result<(), Refusal> {
    if identity.home_inode == 0 {
        return Ok(());
    }
    let why = match files::birth(identity.home) {
        Ok(seen) if seen == (identity.home_inode, identity.home_born) => return Ok(()),
        Ok(_) => "is another directory than when the policy was applied",
        Err(errno) => errno.desc(),
    };
    Err(drift(policy, format!("{}: {why}", Untrusted(identity.home))))
}

/// The file was last changed at the time of this stamp: it is the one that a whole `apply` has seen. What cannot be told is
/// another time.
fn changed_at(file: &str, stamp: &str) -> bool {
    let facts = |path| fstatat(AT_FDCWD.as_fd(), path, AtFlags::AT_NO_AUTOMOUNT);
    match (facts(file), facts(stamp)) {
        (Ok(now), Ok(seen)) => (now.st_ctime, now.st_ctime_nsec) == (seen.st_mtime, seen.st_mtime_nsec),
        _ => false,
    }
}

/// The uid of the first line of this name, as a lookup would find it.
fn uid_of(user: &[u8]) -> Result<Option<u32>, Error> {
    let mut lines = BufReader::with_capacity(BUFFER, File::open(PASSWD)?.take(LENGTH_MAX));
    let mut line = Vec::with_capacity(BUFFER);
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Some(uid) = uid_in(&line, user) {
            return Ok(uid);
        }
        line.clear();
    }
    Ok(None)
}

/// None: it is the line of another. passwd(5): name, password, uid.
fn uid_in(line: &[u8], user: &[u8]) -> Option<Option<u32>> {
    let rest = line.strip_prefix(user)?.strip_prefix(b":")?;
    let uid = rest.split(|byte| *byte == b':').nth(1);
    Some(uid.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()))
}

fn drift(policy: &Record<'_>, why: String) -> Refusal {
    let fix = DRIFT.remedy.replace("{}", &Pasted(policy.user).to_string());
    Refusal { card: &DRIFT, why, fix }
}

static DRIFT: Card = Card {
    code: "P03",
    status: 83,
    // Of an account that is gone nothing is printed: then the configuration is what must change, and `apply` says where.
    remedy: "getent passwd {} || cellwall apply # an account that is shown, and still the same: cellwall apply",
};

/// Bytes that are read at once.
const BUFFER: usize = 16 << 10;
/// Bytes of /etc/passwd that are looked at: a million accounts.
const LENGTH_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests;

    #[test]
    fn a_line_is_somebodys_only_by_the_whole_name() {
        let line = b"alice:x:1001:1002:Alice,,:/home/alice:/bin/sh\n";
        assert_eq!(uid_in(line, b"alice"), Some(Some(1001)));
        assert_eq!(uid_in(line, b"alic"), None);
        assert_eq!(uid_in(line, b""), None);
        assert_eq!(uid_in(b"alice2:x:1:1::/:/bin/sh\n", b"alice"), None);
    }

    #[test]
    fn a_line_without_a_uid_is_nobodys_number() {
        for line in [
            &b"alice:x:\n"[..],
            b"alice:x:-1:1::/:\n",
            b"alice:x:many:1::/:\n",
            b"alice:\n",
            b"alice:x:4294967296:",
        ] {
            assert_eq!(uid_in(line, b"alice"), Some(None), "{line:?}");
        }
    }

    #[test]
    fn an_account_is_looked_for_to_the_end_of_the_file() {
        let text = std::fs::read_to_string(PASSWD).unwrap();
        let last = text.lines().last().unwrap();
        let mut fields = last.split(':');
        let (name, uid) = (fields.next().unwrap(), fields.nth(1).unwrap().parse().unwrap());
        assert!(text.lines().count() > 1, "one that is not the first is looked for");
        assert_eq!(uid_of(name.as_bytes()).unwrap(), Some(uid));
        assert_eq!(uid_of(b"there-is-none").unwrap(), None);
    }

    /// As long as the file is the one that `apply` has seen, nobody asks what is in it.
    #[test]
    fn a_name_that_has_another_uid_now_is_another_account() {
        let mut policy = tests::record();
        (policy.user, policy.uid) = (b"root", 1);
        policy.sites[0].identity.home_inode = 0;
        let seen = changed_at(PASSWD, ACCOUNTS_STAMP);
        assert_eq!(same(&policy, &policy.sites[0]).is_ok(), seen);
        policy.listed = false;
        assert!(same(&policy, &policy.sites[0]).is_ok(), "in no file, so in no file to be missed");
        (policy.listed, policy.uid) = (true, 0);
        assert!(same(&policy, &policy.sites[0]).is_ok());
    }

    #[test]
    fn a_home_that_is_another_directory_is_another_account() {
        let (mut policy, home) = (tests::record(), &b"/etc"[..]);
        policy.listed = false;
        let (inode, born) = files::birth(home).unwrap();
        for (home, inode, born, code) in [
            (home, inode, born, None),
            (home, inode + 1, born, Some("P03")),
            (home, inode, born + 1, Some("P03")),
            (b"/there/is/none", inode, born, Some("P03")),
            (b"/there/is/none", 0, 0, None),
        ] {
            let identity = &mut policy.sites[0].identity;
            (identity.home, identity.home_inode, identity.home_born) = (home, inode, born);
            let seen = same(&policy, &policy.sites[0]).err().map(|refusal| refusal.card.code);
            assert_eq!(seen, code, "{inode} {born}");
        }
    }

    #[test]
    fn a_file_that_was_changed_a_nanosecond_after_its_stamp_is_another_one() {
        let stamp = std::env::temp_dir().join(format!("cellwall-stamp-{}", std::process::id()));
        let made = File::create(&stamp).unwrap();
        let changed = fstatat(AT_FDCWD, PASSWD, AtFlags::empty()).unwrap();
        let part = u32::try_from(changed.st_ctime_nsec).unwrap();
        let told = |seconds: i64, part: u32| {
            let since = std::time::Duration::new(u64::try_from(changed.st_ctime + seconds).unwrap(), part);
            made.set_modified(std::time::UNIX_EPOCH + since).unwrap();
            changed_at(PASSWD, stamp.to_str().unwrap())
        };
        let seen = (told(0, part), told(0, part ^ 1), told(1, part), told(-1, part));
        std::fs::remove_file(&stamp).unwrap();
        assert_eq!(seen, (true, false, false, false));
        assert!(!changed_at(PASSWD, "/there/is/none") && !changed_at("/there/is/none", PASSWD));
    }
}
