//! What the directories of a view are at this moment, what is mounted beneath them, and what their mounts forbid. A view holds what
//! was there when it was made, so one that is kept must go when something else is there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::ops::Bound;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::policy::VIEW_DIRECTORY;

/// The mounts of this host, as they were when this program first asked.
pub(super) fn here() -> &'static Mounts {
    static HERE: LazyLock<Mounts> =
        LazyLock::new(|| Mounts::of(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()));
    &HERE
}

/// Where the file system of a path is mounted.
#[must_use]
pub fn above(path: &Path) -> PathBuf {
    let mounted = path.ancestors().find(|place| here().places.contains_key(*place));
    mounted.unwrap_or(Path::new("/")).to_owned()
}

/// What this host has.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Where something is mounted.
    places: BTreeMap<PathBuf, Mounted>,
    /// Device and inode of directories that were asked about: thousands of sites have the same ones.
    directories: Mutex<HashMap<PathBuf, Option<(u64, u64)>>>,
}

/// One mount, as bytes to compare.
#[derive(Debug)]
struct Mounted {
    /// Device and directory of its file system.
    what: Vec<u8>,
    /// Those of its options that forbid something: a copy of a mount keeps them, whatever becomes of the mount.
    forbids: Vec<u8>,
}

/// The options that forbid something (mount(8)); the others are about times.
const FORBIDDING: [&[u8]; 5] = [b"ro", b"nosuid", b"nodev", b"noexec", b"nosymfollow"];

impl Mounts {
    /// By mountinfo (proc(5)). Of several at one place the last one is seen.
    fn of(mountinfo: &[u8]) -> Self {
        let mut places = BTreeMap::new();
        for line in mountinfo.split(|byte| *byte == b'\n') {
            let mut words = line.split(|byte| *byte == b' ').skip(2);
            let (Some(device), Some(root), Some(place)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let place = plain(place);
            let options = words.next().unwrap_or_default().split(|byte| *byte == b',');
            let forbids: Vec<&[u8]> = options.filter(|option| FORBIDDING.contains(option)).collect();
            // Kept views themselves: there are thousands, and no site's directory is above them.
            if !place.starts_with(VIEW_DIRECTORY) {
                let (what, forbids) = ([device, b" ", root].concat(), forbids.join(&b','));
                places.insert(place, Mounted { what, forbids });
            }
        }
        Self { places, directories: Mutex::default() }
    }

    /// Which directory it is, as bytes to compare; empty: there is none.
    pub(super) fn identity(&self, directory: &Path) -> Vec<u8> {
        let mut known = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        let found = *known.entry(directory.to_owned()).or_insert_with(|| {
            let facts = std::fs::symlink_metadata(directory).ok()?;
            Some((facts.dev(), facts.ino()))
        });
        found.map(|(device, inode)| [device.to_le_bytes(), inode.to_le_bytes()].concat()).unwrap_or_default()
    }

    /// What is mounted on `directory` and beneath it, as bytes to compare; empty: nothing is.
    pub(super) fn beneath(&self, directory: &Path) -> Vec<u8> {
        let from = (Bound::Included(directory.to_owned()), Bound::Unbounded);
        let found = self.places.range(from).take_while(|(place, _)| place.starts_with(directory));
        let one = |(place, mounted): (&PathBuf, &Mounted)| {
            [place.as_os_str().as_bytes(), b"\0", &mounted.what, b"\0", &mounted.forbids, b"\0"].concat()
        };
        found.flat_map(one).collect()
    }

    /// What the mount that `path` lies on forbids, as bytes to compare; empty: nothing.
    pub(super) fn forbidden(&self, path: &Path) -> &[u8] {
        let mounted = path.ancestors().find_map(|place| self.places.get(place));
        mounted.map_or(&[], |mounted| &mounted.forbids)
    }
}

/// Blanks and the like are written as `\040`.
fn plain(text: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"\
        22 1 254:0 / / rw - ext4 /dev/vda rw\n\
        30 22 0:40 / /srv/www/my\\040shop/up rw,nosuid,relatime,noexec shared:1 - nfs server:/up rw\n\
        31 22 8:1 /old /srv/www rw - ext4 /dev/sda1 rw\n\
        32 22 8:2 / /srv/www rw - ext4 /dev/sda2 rw\n\
        33 22 0:50 / /srv/www2 rw - tmpfs tmpfs rw\n\
        34 22 0:4 mnt:[4026532] /run/cellwall/views/0-0 rw - nsfs nsfs rw\n";

    #[test]
    fn what_is_beneath_a_directory_is_told_and_nothing_beside_it() {
        let mounts = Mounts::of(HOST);
        let beneath = |path: &str| String::from_utf8(mounts.beneath(Path::new(path))).unwrap();
        let up = "/srv/www/my shop/up\x000:40 /\0nosuid,noexec\0";
        assert_eq!(beneath("/srv/www"), format!("/srv/www\x008:2 /\0\0{up}"));
        assert_eq!(beneath("/srv/www/my shop"), up);
        assert_eq!(beneath("/srv/www/my"), "");
        assert_eq!(beneath("/run"), "");
    }

    #[test]
    fn what_the_mount_of_a_path_forbids_is_told_and_not_its_times() {
        let mounts = Mounts::of(HOST);
        assert_eq!(mounts.forbidden(Path::new("/srv/www/my shop/up/a")), b"nosuid,noexec");
        assert_eq!(mounts.forbidden(Path::new("/srv/www/my shop/upper")), b"");
        assert_eq!(mounts.forbidden(Path::new("/etc")), b"");
    }
}
