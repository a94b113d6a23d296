//! Random trees, and the walk through them: it arrives where the kernel arrives, past nobody else's directories.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use cellwall::launch::walk::{Follow, Reached, Rules, walk};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot, fchdir};

/// Whose tree it is.
const OWNER: u32 = 1001;
/// Where it stands, in mounts of this thread's own.
const PLACE: &str = "/mnt";
const NAMES: [&str; 3] = ["a", "b", "c"];
const MODES: [u32; 8] = [0o755, 0o777, 0o775, 0o700, 0o1777, 0o555, 0o757, 0o2755];
const USERS: [u32; 3] = [0, OWNER, 1002];
const TARGETS: [&str; 10] = ["a", "b", "a/b", "../a", "..", ".", "/mnt/a", "/mnt/b/c", "/", "nowhere/"];

/// The bytes are orders: what to make, whose, with which mode; the first three choose the path and the rules.
pub(crate) fn tree(data: &[u8]) {
    let [path, rules, orders @ ..] = data else { return };
    ready();
    let outside = Outside::leave();
    for order in orders.chunks_exact(2).take(24) {
        obey(order[0], order[1]);
    }
    let path = place(*path);
    let owner = if rules & 1 == 0 { OWNER } else { 0 };
    let follow = match rules >> 1 & 3 {
        0 => Follow::None,
        1 => Follow::Roots,
        2 => Follow::Owners(owner),
        _ => Follow::Match(owner),
    };
    let fence: &[u8] = if rules & 8 == 0 { b"" } else { b"/mnt/a" };
    let rules = Rules { owner, follow, fence };
    match walk(path.as_os_str().as_bytes(), rules) {
        Ok(reached) => arrived(&path, rules, &reached),
        Err(refusal) => {
            assert!(["V01", "V02", "V03", "V115", "V116"].contains(&refusal.card.code), "{refusal:?}");
            assert!(!is_sound(&path, rules), "{}: {refusal:?}", path.display());
        }
    }
    drop(outside);
}

/// The way back to the host's own root: links of the tree lead upwards too, so the tree has a root of its own.
struct Outside {
    root: File,
    directory: File,
}

impl Outside {
    fn leave() -> Self {
        let outside = Self { root: File::open("/").unwrap(), directory: File::open(".").unwrap() };
        memory(PLACE);
        chroot(PLACE).unwrap();
        chdir("/").unwrap();
        fs::create_dir(PLACE).unwrap();
        memory(PLACE);
        outside
    }
}

impl Drop for Outside {
    /// Also when an assertion failed.
    fn drop(&mut self) {
        fchdir(&self.root).unwrap();
        chroot(".").unwrap();
        fchdir(&self.directory).unwrap();
        let _ = umount2(PLACE, MntFlags::MNT_DETACH);
    }
}

fn memory(place: &str) {
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
}

/// Once in a thread: mounts that nobody else sees.
fn ready() {
    thread_local! {
        static READY: OnceCell<()> = const { OnceCell::new() };
    }
    READY.with(|ready| {
        ready.get_or_init(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("random trees need root: they are mounted");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .unwrap();
        });
    });
}

/// One to three components below the place.
fn place(choice: u8) -> PathBuf {
    let choice = usize::from(choice);
    let mut path = PathBuf::from(PLACE);
    path.push(NAMES[choice % 3]);
    for part in [choice / 3 % 4, choice / 12 % 4] {
        if let Some(name) = NAMES.get(part) {
            path.push(name);
        }
    }
    path
}

/// What cannot be done is not done: the tree is any tree.
fn obey(what: u8, choice: u8) {
    let path = place(choice);
    let more = usize::from(what / 8);
    match what % 8 {
        0 | 1 => drop(fs::create_dir_all(&path)),
        2 => drop(fs::write(&path, "")),
        3 => drop(symlink(TARGETS[more % TARGETS.len()], &path)),
        4 => drop(fs::set_permissions(&path, fs::Permissions::from_mode(MODES[more % MODES.len()]))),
        5 | 6 => drop(lchown(&path, Some(USERS[more % USERS.len()]), None)),
        _ if more % 4 == 0 => {
            let flags = MsFlags::empty();
            let _ = mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some("mode=755"));
        }
        _ => {}
    }
}

fn arrived(path: &Path, rules: Rules<'_>, reached: &Reached) {
    let real = fs::canonicalize(path).unwrap();
    // The root is called by nothing before a slash.
    let name = real.as_os_str().as_bytes().strip_suffix(b"/").unwrap_or(real.as_os_str().as_bytes());
    assert_eq!(reached.path, name, "{}", path.display());
    let facts = fs::symlink_metadata(&real).unwrap();
    assert_eq!((facts.dev(), facts.ino()), (reached.facts.st_dev, reached.facts.st_ino));
    for above in real.ancestors() {
        assert!(is_trusted(above, rules.owner), "{} was passed", above.display());
    }
    if rules.follow == Follow::None {
        assert_eq!(real, path, "a link was followed");
    }
}

/// There and an owner's; a directory is nobody else's to write.
fn is_trusted(path: &Path, owner: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|facts| {
        let writable = facts.is_dir() && facts.mode() & 0o022 != 0;
        (facts.uid() == 0 || facts.uid() == owner) && !writable
    })
}

/// Nothing on the way could be a reason for a refusal: no link, all there, everybody trusted, one file system below the
/// fence.
fn is_sound(path: &Path, rules: Rules<'_>) -> bool {
    let fence = Path::new("/mnt/a");
    let device = fs::symlink_metadata(fence).map_or(0, |facts| facts.dev());
    path.ancestors().all(|above| {
        let crossed = !rules.fence.is_empty()
            && above.as_os_str().len() > rules.fence.len()
            && fs::symlink_metadata(above).is_ok_and(|facts| facts.dev() != device);
        is_trusted(above, rules.owner) && !above.is_symlink() && !crossed
    })
}
