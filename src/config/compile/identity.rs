//! Whom a site runs as: its account, groups and home, and whose its programs are.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{AUTOFS_SUPER_MAGIC, statfs};

use crate::config::accounts::{Account, Accounts};
use crate::config::ground::Kind;
use crate::config::problem::Located;
use crate::config::reader::{nearest, writes};
use crate::config::rules::Rules;
use crate::config::sites::SiteFile;
use crate::config::{SITES_DIRECTORY, looks, store};
use crate::policy::names::is_plain_path;
use crate::sys::files;

use super::{Compiler, pasted};

impl Compiler<'_> {
    /// Whom the site runs as.
    pub fn account(&mut self, file: &SiteFile, rules: &Rules) -> Option<Account> {
        if let Some(account) = &file.userdir {
            return Some(account.clone());
        }
        let Some(user) = &rules.user else {
            // Of one that is no text it was told where it was read.
            if !writes(&file.document, "user") {
                let help = "write user = \"NAME\" as its first line";
                self.problems.error(Some(&file.place()), "the site names no user", help);
            }
            return None;
        };
        let Some(account) = self.accounts.user(&user.value) else {
            let renamed = self.renamed(&file.name);
            let help = match (renamed, nearest(&user.value, self.accounts.names())) {
                (Some((name, uid)), _) => {
                    format!(
                        "uid {uid}, which has this site, is `{name}` now: write that if it is the same person"
                    )
                }
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => self.account_gone(&file.name, &user.value),
            };
            self.problems.error(Some(&user.place), format!("there is no user `{}`", user.value), help);
            return None;
        };
        if account.uid == 0 {
            self.problems.error(Some(&user.place), "no site runs as root", "give the site a user of its own");
        } else if account.uid == u32::MAX {
            let message = format!(
                "uid {} of `{}` is no user's: the kernel takes it for \"leave it\"",
                account.uid, account.name
            );
            self.problems.error(Some(&user.place), message, "give the account another uid: usermod -u");
        } else if account.uid < self.host.uid_min {
            let message = format!(
                "uid {} of `{}` is below minimum_uid {}",
                account.uid, account.name, self.host.uid_min
            );
            let help = "take another user, or lower minimum_uid in cellwall.toml";
            self.problems.error(Some(&user.place), message, help);
        } else if self.host.callers.contains(&account.uid) {
            let message = format!("`{}` is the web server, which calls the launcher", account.name);
            self.problems.error(Some(&user.place), message, "give the site a user of its own");
        }
        Some(account)
    }

    /// Whose the installed site is, where that account is still there.
    fn renamed(&mut self, site: &str) -> Option<(String, u32)> {
        let uid = store::holders(site, None).pop_first()?;
        let account = self.accounts.user_of(uid).ok().flatten()?;
        Some((account.name, uid))
    }

    /// As [`Self::account_made`]; of a site that was served the account may have gone for good, or has to be the same again.
    fn account_gone(&self, site: &str, name: &str) -> String {
        // Nobody is told to remove the files of all sites because a directory service is down.
        if let Some(doubt) = Accounts::doubt(name) {
            return format!(
                "{doubt}: see /etc/nsswitch.conf, and what this says: getent passwd root {}",
                pasted(Path::new(name))
            );
        }
        let made = self.account_made(name);
        match store::holders(site, None).pop_first() {
            Some(uid) if may_be_name(name) => {
                let file = Path::new(SITES_DIRECTORY).join(format!("{site}.toml"));
                let made = made.replace(" --user-group", &format!(" --uid {uid} --user-group"));
                format!("if it has gone: rm {} # if not, {made}", pasted(&file))
            }
            _ => made,
        }
    }

    /// How to make an account that may have a site. Not a system account: its uid is below `minimum_uid`.
    fn account_made(&self, name: &str) -> String {
        if !may_be_name(name) {
            return "no user can have that name: write one that there is".to_owned();
        }
        let numbers = match self.host.uid_min {
            0..=1000 => String::new(),
            minimum => format!(" -K UID_MIN={minimum} -K GID_MIN={minimum}"),
        };
        format!("make it: useradd --create-home --user-group --shell /usr/sbin/nologin{numbers} {name}")
    }

    pub(super) fn groups(
        &mut self,
        file: &SiteFile,
        account: &Account,
        rules: &Rules,
    ) -> ((u32, String), Vec<u32>) {
        let place = rules.group.as_ref().or(rules.user.as_ref()).map(|one| one.place.clone());
        let gid = match &rules.group {
            Some(group) => self.named_group(group).unwrap_or(account.gid),
            None => account.gid,
        };
        if gid == 0 || gid < self.host.gid_min || self.dangerous.contains(&gid) {
            let message = if gid < self.host.gid_min {
                format!("gid {gid} is below minimum_gid {}", self.host.gid_min)
            } else {
                format!("group {gid} opens more than a site may have")
            };
            let place = place.clone().unwrap_or_else(|| file.place());
            let help = "write group = \"NAME\" with the site's own group".to_owned();
            self.complain(&place, format!("`{}`: {message}", account.name), help);
        }
        let mut all = BTreeSet::from([gid]);
        for item in &rules.groups.items {
            let Some(found) = self.named_group(item) else { continue };
            if found == 0 || self.dangerous.contains(&found) && !self.rules.allows_dangerous() {
                let message = format!("group `{}` opens more than a site may have", item.value);
                let help = "remove it; allow_dangerous = true in cellwall.toml permits all but root's";
                self.problems.error(Some(&item.place), message, help);
            } else {
                all.insert(found);
            }
        }
        for extra in self.accounts.supplementary(account) {
            if all.contains(&extra) {
                continue;
            }
            let dangerous = self.dangerous.contains(&extra);
            if self.one_of_many && (dangerous || extra < self.host.gid_min) {
                continue;
            }
            if dangerous || extra < self.host.gid_min {
                let name = self.accounts.group_name(extra).unwrap_or_else(|| extra.to_string());
                let why =
                    if dangerous { "it opens more than a site may have" } else { "it is below minimum_gid" };
                let message = format!("`{}` leaves out group `{name}`: {why}", account.name);
                let help = if dangerous {
                    String::new()
                } else {
                    format!("groups = [\"{name}\"] keeps it, groups = [] leaves it out without a word")
                };
                // Who names the groups has decided.
                if dangerous || rules.groups.key.is_none() {
                    self.problems.warning(place.as_ref(), message, help);
                }
            } else {
                all.insert(extra);
            }
        }
        let name = self.accounts.group_name(gid).unwrap_or_else(|| gid.to_string());
        ((gid, name), all.into_iter().collect())
    }

    /// Whose files the site's programs are, if not its own.
    pub(super) fn code_owner(&mut self, account: &Account, rules: &Rules) -> Option<u32> {
        let Located { value: name, place } = rules.code_owner.as_ref()?;
        let found = self.accounts.user(name);
        match &found {
            None => {
                let help = self.account_made(name);
                self.problems.error(Some(place), format!("there is no user `{name}`"), help);
            }
            Some(owner) if owner.uid == account.uid => {
                let message =
                    format!("`{name}` is the user of the site itself, who could change its programs");
                self.problems.error(Some(place), message, "name the account that deploys, or leave it out");
            }
            Some(owner) if self.host.callers.contains(&owner.uid) => {
                let message = format!("`{name}` is the web server, which asks for programs and owns none");
                self.problems.error(Some(place), message, "name the account that deploys");
            }
            Some(_) => {}
        }
        found.map(|owner| owner.uid)
    }

    pub(in crate::config) fn named_group(&mut self, group: &Located<String>) -> Option<u32> {
        let found = self.accounts.group(&group.value);
        if found.is_none() {
            let help = match may_be_name(&group.value) {
                true => format!("make it: groupadd {}", group.value),
                false => "no group can have that name: write one that there is".to_owned(),
            };
            self.problems.error(Some(&group.place), format!("there is no group `{}`", group.value), help);
        }
        found
    }

    pub(super) fn home(&mut self, account: &Account) -> (PathBuf, (u64, u64)) {
        if !is_plain_path(account.home.as_os_str().as_bytes()) {
            return (PathBuf::from("/"), (0, 0));
        }
        // The inode says whose home it is only where nobody but root can put another one there.
        let above = account.home.parent().map(|parent| self.ground.find(Path::new("/"), parent));
        let bound = above.is_some_and(|found| {
            // An automounter shows an empty place at one time, and the home at another.
            let shown = statfs(&found.real).is_ok_and(|facts| facts.filesystem_type() == AUTOFS_SUPER_MAGIC);
            found.kind == Kind::Directory && found.foreign.is_none() && !shown
        });
        let home = looks::at(&account.home, || std::fs::symlink_metadata(&account.home));
        let home = home.ok().filter(|home| bound && home.is_dir());
        let born = home.and_then(|_| files::birth(account.home.as_os_str().as_bytes()).ok());
        (account.home.clone(), born.unwrap_or_default())
    }
}

/// Whether useradd(8) and groupadd(8) take it for a name: what they make is pasted.
fn may_be_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let rest = |byte: u8| plain(byte) || byte.is_ascii_digit() || byte == b'-';
    name.bytes().next().is_some_and(plain) && name.bytes().all(rest) && name.len() <= 32
}

/// Supplementary groups that are as good as root, or that open the host's own data.
pub(super) const DANGEROUS_GROUPS: &[&str] = &[
    "root",
    "shadow",
    "disk",
    "docker",
    "sudo",
    "wheel",
    "adm",
    "kmem",
    "lxd",
    "libvirt",
    "kvm",
    "staff",
    "systemd-journal",
];
