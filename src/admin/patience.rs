//! How long a command waits for a file system. A file server that is gone answers nobody: without this, `apply` of ten thousand
//! sites stood still because of one, without a word.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
            let mut still = Still::default();
            while !over.load(Ordering::Acquire) {
                let before = Instant::now();
                std::thread::park_timeout(PAUSE);
                let longest = looks::longest();
                let taken = longest.as_ref().map_or(Duration::ZERO, |(time, _)| *time);
                if let Some((_, path)) = longest.filter(|_| still.waited(taken, before.elapsed()) >= MOST) {
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

/// How long this process itself stood still while a look went on, as one that was stopped at its terminal: no file system is late
/// by that.
#[derive(Debug, Default)]
struct Still(Duration);

impl Still {
    /// How long a look was waited for that was begun so long ago. `round`: what a pause took just now.
    fn waited(&mut self, taken: Duration, round: Duration) -> Duration {
        // One that was begun since has nothing to do with what was before.
        let known = if taken < self.0 { Duration::ZERO } else { self.0 };
        self.0 = known.saturating_add(round.saturating_sub(LONG_PAUSE)).min(taken);
        taken.saturating_sub(self.0)
    }
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
/// A pause that takes longer was none of this process's.
const LONG_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_not_late_for_the_time_that_its_process_stood_still() {
        let ms = Duration::from_millis;
        let mut still = Still::default();
        assert_eq!(still.waited(ms(500), ms(250)), ms(500));
        assert_eq!(still.waited(ms(60_500), ms(60_000)), ms(1500), "it was stopped for a minute");
        assert_eq!(still.waited(ms(60_750), ms(250)), ms(1750), "which counts as long as that look goes on");
        assert_eq!(still.waited(ms(250), ms(250)), ms(250), "another look");
        assert_eq!(still.waited(ms(10_250), ms(900)), ms(10_250), "a crowded machine is patient by itself");
        assert_eq!(still.waited(ms(100), ms(90_000)), Duration::ZERO, "it was begun at the end");
    }
}
