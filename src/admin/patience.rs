//! How long a command waits for a file system. A file server that is gone answers nobody: without this, `apply` of ten thousand
//! sites stood still because of one, without a word.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{looks, mounts};
use crate::policy::Site;
use crate::refusal::{Pasted, Untrusted};
use crate::sys::fork::leave;

use super::{End, say};

/// Does `work`, and ends this process when one look of it takes too long: then it does `undo`, and tells `what` did not happen.
/// The thread that watches is gone afterwards: a child that is made beside another thread may find its locks taken.
pub(super) fn limited<T>(what: &str, undo: &(dyn Fn() + Sync), work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                std::thread::park_timeout(PAUSE);
                if let Some((_, path)) = looks::longest().filter(|(time, _)| *time >= MOST) {
                    undo();
                    told(what, &path);
                    // Whoever is held up may hold any lock.
                    leave(End::Failed.status())
                }
            }
        });
        let result = work();
        over.store(true, Ordering::Release);
        watch.thread().unpark();
        result
    })
}

/// For what goes on in a site's cell, in another process: its file systems answer before that begins, or this process ends and
/// tells `what` did not happen.
pub(super) fn reached(what: &str, site: &Site<'_>) {
    let paths = site.docroots.iter().copied().chain(site.landlock.rules.iter().map(|rule| rule.path));
    limited(what, &|| (), || {
        for path in paths.map(|path| Path::new(OsStr::from_bytes(path))) {
            // That it is not there is found out by who needs it.
            looks::at(path, || drop(path.metadata()));
        }
    });
}

fn told(what: &str, path: &Path) {
    let shown = |path: &Path| Untrusted(path.as_os_str().as_bytes()).to_string();
    let mount = mounts::above(path);
    let word = Pasted(mount.as_os_str().as_bytes());
    say::note(format_args!(
        "error: {what}: {} does not answer within {} s; it is on the file system mounted at {}\n  help: to do without it \
         until its server is back: umount -l {word}; meanwhile name other sites alone, as in: cellwall apply SITE",
        shown(path),
        MOST.as_secs(),
        shown(&mount)
    ));
}

/// A look takes microseconds, and some seconds where a disk or a server is busy.
const MOST: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(250);
