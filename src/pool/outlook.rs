//! What of the host a site's cell was entered under, to be told from what it is today.
//!
//! A zygote ([`super::zygote`]) is in its cell already and cannot look: the supervisor does, before it gives it a request. What
//! is listed here is what a launch looks at before it enters the cell: the site's policy, its account and home, the way to its
//! docroots, what a kept view has bound, and the log.
//!
//! Root. Looks at files of the host's by path; at a site's directories only as far as the kernel knows them without asking
//! anybody, so that no file server makes the supervisor wait. What it does not know is a change: the next zygote looks itself.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::fstatat;

use crate::launch::jail::stamped;
use crate::policy::{ACCOUNTS_STAMP, DIRECTORY, Jail, PASSWD, Record, Site, Step, decode, read};
use crate::sys::files;

/// What there was.
#[derive(Debug)]
pub struct Outlook(Vec<(Sight, Option<Facts>)>);

type Facts = [u64; 5];

/// A path, and what about it counts.
#[derive(Debug)]
enum Sight {
    /// A file of the host's: which one, and when it was last changed.
    Text(CString),
    /// A file of the host's: which one.
    File(CString),
    /// A directory: which one, whose, with what group and mode.
    Directory(CString),
}

impl Outlook {
    /// For the site of this name and uid. None: there is no such policy, or none that can be read; a launch will say why.
    #[must_use]
    pub fn of(uid: u32, name: &[u8]) -> Option<Self> {
        let own = Path::new(DIRECTORY).join(uid.to_string());
        let own = Sight::Text(text(own.as_os_str().as_bytes())?);
        // First: what is changed while the rest is read is seen by the next look.
        let known = own.look();
        let bytes = read::record(uid).ok()?;
        let policy = decode::record(&bytes).ok()?;
        let site = policy.sites.iter().find(|site| site.name == name)?;
        let all = sights(&policy, site).into_iter().map(|sight| {
            let seen = sight.look();
            (sight, seen)
        });
        Some(Self(std::iter::once((own, known)).chain(all).collect()))
    }

    /// It is all as it was.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.iter().all(|(sight, seen)| seen.is_some() && sight.look() == *seen)
    }
}

fn sights(policy: &Record<'_>, site: &Site<'_>) -> Vec<Sight> {
    let texts = [PASSWD.as_bytes(), ACCOUNTS_STAMP.as_bytes(), site.source.path];
    let texts = texts.into_iter().filter(|path| !path.is_empty());
    let mut all: Vec<Sight> = texts.filter_map(|path| text(path).map(Sight::Text)).collect();
    let log = [&b"/dev/log"[..], policy.host.log.file];
    all.extend(log.into_iter().filter_map(|path| text(path).map(Sight::File)));
    let mut directories: Vec<&[u8]> = site.docroots.iter().flat_map(|docroot| roots(docroot)).collect();
    if site.identity.home_inode != 0 {
        directories.push(site.identity.home);
    }
    if let Jail::View(view) = &site.jail {
        for step in stamped(view) {
            // Everybody's /run is memory, which makes nobody wait, and forgets what is not there.
            if step.flags & Step::SITE != 0 && !step.source.starts_with(b"/run/") {
                directories.push(step.source);
            } else {
                all.extend(text(step.source).map(Sight::File));
            }
        }
    }
    directories.sort_unstable();
    directories.dedup();
    all.extend(directories.into_iter().filter_map(|path| text(path).map(Sight::Directory)));
    all
}

/// The directories above a docroot, from the top as far as they are root's, and the first that is not: what is in that one is
/// the site's own, and looked at from inside.
fn roots(docroot: &[u8]) -> Vec<&[u8]> {
    let all: Vec<&Path> = Path::new(OsStr::from_bytes(docroot)).ancestors().skip(1).collect();
    let mut roots = Vec::new();
    for path in all.into_iter().rev() {
        roots.push(path.as_os_str().as_bytes());
        if std::fs::symlink_metadata(path).map_or(true, |facts| facts.uid() != 0) {
            break;
        }
    }
    roots
}

impl Sight {
    /// None: the kernel would have to ask somebody.
    fn look(&self) -> Option<Facts> {
        let number = |number: i64| number.cast_unsigned();
        let file = |path: &CString| fstatat(AT_FDCWD.as_fd(), path.as_c_str(), AtFlags::AT_NO_AUTOMOUNT).ok();
        let seen = match self {
            Self::Text(path) => file(path).map(|facts| {
                [facts.st_dev, facts.st_ino, number(facts.st_ctime), number(facts.st_ctime_nsec), 0]
            }),
            Self::File(path) => file(path).map(|facts| [facts.st_dev, facts.st_ino, 0, 0, 0]),
            Self::Directory(path) => match files::glance(path) {
                Ok(facts) => Some(facts),
                Err(Errno::ENOENT | Errno::ENOTDIR) => None,
                Err(_) => return None,
            },
        };
        Some(seen.unwrap_or(ABSENT))
    }
}

/// Paths of a policy have no NUL.
fn text(path: &[u8]) -> Option<CString> {
    CString::new(path).ok()
}

const ABSENT: Facts = [u64::MAX; 5];
