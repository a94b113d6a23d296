//! Users and groups: from names to numbers, through the name service.
//!
//! One lookup by name reads the whole of /etc/passwd: 8 ms with 100,000 accounts. So a run over many sites asks for all
//! accounts once (`getent`, which goes through the name service as well) and asks by name only for those that were
//! not listed: directory services often refuse to list.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, OsStr};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::policy::PASSWD;

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
}

/// The name service, as far as it was asked.
#[derive(Debug, Default)]
pub struct Accounts {
    listed: Arc<Listed>,
    users: HashMap<String, Option<Account>>,
    groups: HashMap<String, Option<u32>>,
    group_names: HashMap<u32, Option<String>>,
}

/// All accounts, listed once; shared by the workers of a run.
#[derive(Debug, Default)]
pub struct Listed {
    users: HashMap<String, Account>,
    groups: HashMap<String, u32>,
    group_names: HashMap<u32, String>,
    /// Supplementary groups by user; none: the service may know groups that it does not list.
    members: Option<HashMap<String, Vec<u32>>>,
    silent: bool,
    /// Names and uids of the local file, read when it is first asked for.
    local: OnceLock<HashMap<String, u32>>,
}

impl Accounts {
    /// A view of the name service that starts with what is listed.
    #[must_use]
    pub fn new(listed: &Arc<Listed>) -> Self {
        Self { listed: Arc::clone(listed), ..Self::default() }
    }

    /// A user by name.
    pub fn user(&mut self, name: &str) -> Option<Account> {
        if let Some(account) = self.listed.users.get(name) {
            return Some(account.clone());
        }
        self.users.entry(name.to_owned()).or_insert_with(|| single_user(name)).clone()
    }

    /// Why a user who was not found may be there all the same: the name service failed, or finds nobody.
    #[must_use]
    pub fn doubt(name: &str) -> Option<String> {
        // What getpwnam(3) says where there is nobody of that name, or a source is not installed.
        let absent = [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM];
        match User::from_name(name) {
            Err(errno) if !absent.contains(&errno) => {
                Some(format!("the name service failed: {}", errno.desc()))
            }
            _ if User::from_name("root").ok().flatten().is_none() => {
                Some("the name service finds nobody, not even root".to_owned())
            }
            _ => None,
        }
    }

    /// A user by number, asked for anew: the list may be a part of all.
    ///
    /// # Errors
    /// When the name service cannot say.
    pub fn user_of(&mut self, uid: u32) -> Result<Option<Account>, Errno> {
        let Some(User { name, gid, dir, .. }) = User::from_uid(Uid::from_raw(uid))? else { return Ok(None) };
        // Of two entries with one name the first one counts.
        let other = self.user(&name).is_some_and(|account| account.uid != uid);
        Ok((!other).then(|| Account { name, uid, gid: gid.as_raw(), home: dir }))
    }

    /// Whether the local file of accounts has this name with this uid: a launch reads no other source.
    pub fn is_local(&self, name: &str, uid: u32) -> bool {
        let local = self.listed.local.get_or_init(|| {
            let text = std::fs::read(PASSWD).unwrap_or_default();
            let mut all = HashMap::new();
            for account in String::from_utf8_lossy(&text).lines().filter_map(account) {
                all.entry(account.name).or_insert(account.uid);
            }
            all
        });
        local.get(name) == Some(&uid)
    }

    /// A group by name.
    pub fn group(&mut self, name: &str) -> Option<u32> {
        let listed = self.listed.groups.get(name).copied();
        listed.or_else(|| {
            *self
                .groups
                .entry(name.to_owned())
                .or_insert_with(|| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()))
        })
    }

    /// A group's name.
    pub fn group_name(&mut self, gid: u32) -> Option<String> {
        if let Some(name) = self.listed.group_names.get(&gid) {
            return Some(name.clone());
        }
        self.group_names
            .entry(gid)
            .or_insert_with(|| Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name))
            .clone()
    }

    /// The supplementary groups of a user, without its primary one.
    pub fn supplementary(&mut self, account: &Account) -> Vec<u32> {
        let all = match &self.listed.members {
            Some(members) => members.get(&account.name).cloned().unwrap_or_default(),
            None => groups_of(account),
        };
        let all: BTreeSet<u32> = all.into_iter().filter(|gid| *gid != account.gid).collect();
        all.into_iter().collect()
    }

    /// Names of all groups and users that are near to be meant by a wrong one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listed.users.keys().map(String::as_str)
    }
}

impl Listed {
    /// Asks the name service for all that it lists.
    #[must_use]
    pub fn all() -> Arc<Self> {
        let silent = || Arc::new(Self { silent: true, ..Self::default() });
        let Some(users) = getent("passwd") else { return silent() };
        let Some(groups) = getent("group") else { return silent() };
        let sources = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
        Arc::new(Self::of(&users, &groups, &sources))
    }

    /// Of both databases and nsswitch.conf(5).
    fn of(users: &str, groups: &str, sources: &str) -> Self {
        let mut all = Self { members: lists_every_group(sources).then(HashMap::new), ..Self::default() };
        for line in users.lines() {
            let Some(account) = account(line) else { continue };
            // The first of two entries with one name counts, as it does in a lookup.
            all.users.entry(account.name.clone()).or_insert(account);
        }
        for line in groups.lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(_), Some(gid)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let Ok(gid) = gid.parse::<u32>() else { continue };
            all.groups.entry(name.to_owned()).or_insert(gid);
            all.group_names.entry(gid).or_insert_with(|| name.to_owned());
            for member in fields.next().unwrap_or_default().split(',').filter(|member| !member.is_empty()) {
                if let Some(members) = &mut all.members {
                    members.entry(member.to_owned()).or_default().push(gid);
                }
            }
        }
        all
    }

    /// The name service was asked and did not answer: nothing is listed.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Every listed user.
    pub fn users(&self) -> impl Iterator<Item = &Account> {
        self.users.values()
    }
}

fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let (name, uid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
    let (gid, home) = (fields.next()?.parse().ok()?, fields.nth(1)?);
    Some(Account { name: name.to_owned(), uid, gid, home: PathBuf::from(home) })
}

/// The database as `getent` prints it; empty when the service lists nothing. None: it does not answer, and is ended: a
/// directory service that hangs must not keep the lock.
fn getent(database: &str) -> Option<String> {
    let mut command = Command::new("/usr/bin/getent");
    command.arg(database).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return Some(String::new()) };
    let (tell, told) = channel();
    if let Some(mut out) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            drop(out.read_to_end(&mut text));
            drop(tell.send(String::from_utf8_lossy(&text).into_owned()));
        });
    }
    let text = told.recv_timeout(LONGEST).ok();
    drop(child.kill());
    drop(child.wait());
    text
}

/// For all of a database: a hundred thousand accounts of a directory service take some seconds.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether every source of groups in nsswitch.conf(5) lists all that it has.
fn lists_every_group(sources: &str) -> bool {
    let databases = ["group:", "initgroups:"];
    sources
        .lines()
        .filter_map(|line| databases.iter().find_map(|name| line.trim_start().strip_prefix(name)))
        .flat_map(|sources| sources.split('#').next().unwrap_or_default().split_whitespace())
        .all(|source| matches!(source, "files" | "systemd" | "db" | "compat") || source.starts_with('['))
}

fn single_user(name: &str) -> Option<Account> {
    let User { name, uid, gid, dir, .. } = User::from_name(name).ok().flatten()?;
    Some(Account { name, uid: uid.as_raw(), gid: gid.as_raw(), home: dir })
}

fn groups_of(account: &Account) -> Vec<u32> {
    let Ok(name) = CString::new(OsStr::new(&account.name).as_bytes()) else { return Vec::new() };
    let groups = getgrouplist(&name, Gid::from_raw(account.gid)).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_an_account() {
        let alice = Account { name: "alice".into(), uid: 1001, gid: 1002, home: "/home/alice".into() };
        assert_eq!(account("alice:x:1001:1002:A,,:/home/alice:/bin/sh"), Some(alice));
        assert_eq!(account("alice:x:many:1002:A:/home/alice:/bin/sh"), None);
        assert_eq!(account("alice"), None);
    }

    #[test]
    fn listed_and_single_lookups_agree_about_root() {
        let mut one = Accounts::new(&Arc::default());
        let mut all = Accounts::new(&Listed::all());
        assert_eq!(one.user("root"), all.user("root"));
        assert_eq!(one.group("root"), all.group("root"));
        assert_eq!(one.group_name(0), all.group_name(0));
        assert_eq!(one.user("root").map(|root| root.uid), Some(0));
    }

    const USERS: &str = "alice:x:1001:1002:A:/home/alice:/bin/sh\nbob:x:1003:1003::/home/bob:/bin/sh\n\
                         alice:x:1:1:another:/:/bin/sh\n";
    const GROUPS: &str = "web:x:33:alice,bob\nalice:x:1002:alice\nempty:x:44:\nweb:x:34:\nbroken\n";

    #[test]
    fn of_two_entries_with_one_name_the_first_counts_as_in_a_lookup() {
        let listed = Arc::new(Listed::of(USERS, GROUPS, "group: files\n"));
        let mut accounts = Accounts::new(&listed);
        assert_eq!(accounts.user("alice").map(|alice| alice.uid), Some(1001));
        assert_eq!((accounts.group("web"), accounts.group_name(33)), (Some(33), Some("web".to_owned())));
        assert_eq!((listed.users().count(), listed.is_silent()), (2, false));
    }

    #[test]
    fn supplementary_groups_are_those_that_are_not_the_primary_one() {
        let listed = Arc::new(Listed::of(USERS, GROUPS, "group: files\n"));
        let mut accounts = Accounts::new(&listed);
        for (name, groups) in [("alice", vec![33]), ("bob", vec![33])] {
            let account = accounts.user(name).unwrap();
            assert_eq!(accounts.supplementary(&account), groups, "{name}");
        }
        let members = listed.members.as_ref().unwrap();
        assert_eq!(members.len(), 2, "a group without members has none: {members:?}");
    }

    /// Where one does not, each user's groups are asked for by name.
    #[test]
    fn only_sources_that_list_all_they_have_are_believed_to() {
        for (sources, all) in [
            ("group: files systemd\n", true),
            ("passwd: sss\ngroup: files # sss\n", true),
            ("group: files [SUCCESS=merge] systemd\n", true),
            ("  group: compat\ninitgroups: files\n", true),
            ("group: files sss\n", false),
            ("group: files\ninitgroups: ldap\n", false),
            ("", true),
        ] {
            assert_eq!(lists_every_group(sources), all, "{sources}");
            assert_eq!(Listed::of(USERS, GROUPS, sources).members.is_some(), all, "{sources}");
        }
    }

    /// A launch reads no other source than the file.
    #[test]
    fn an_account_is_local_by_its_name_and_its_number() {
        let accounts = Accounts::new(&Arc::default());
        assert!(accounts.is_local("root", 0));
        assert!(!accounts.is_local("root", 1) && !accounts.is_local("there-is-none", 0));
    }
}
