//! What is looked at in the file system at this moment: a file server that is gone answers nobody, and whoever waits for it is to
//! know for which path.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Since when a thread looks, and where.
type Look = Mutex<Option<(Instant, PathBuf)>>;

static ALL: Mutex<Vec<Weak<Look>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: Arc<Look> = {
        let own = Arc::new(Look::default());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|look| look.strong_count() > 0);
        all.push(Arc::downgrade(&own));
        own
    };
}

/// Does `look`, which may wait for the file system of `path`.
pub fn at<T>(path: &Path, look: impl FnOnce() -> T) -> T {
    let note = |what| OWN.with(|own| *own.lock().unwrap_or_else(PoisonError::into_inner) = what);
    note(Some((Instant::now(), path.to_owned())));
    let found = look();
    note(None);
    found
}

/// The look of this process that takes longest, and how long it has taken by now.
#[must_use]
pub fn longest() -> Option<(Duration, PathBuf)> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let looks = all.iter().filter_map(Weak::upgrade).filter_map(|look| {
        let look = look.lock().unwrap_or_else(PoisonError::into_inner);
        look.as_ref().map(|(since, path)| (since.elapsed(), path.clone()))
    });
    looks.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_takes_its_time_is_named_until_it_is_over() {
        let [slow, quick] = ["/slow", "/quick"].map(Path::new);
        at(slow, || {
            std::thread::sleep(Duration::from_millis(20));
            std::thread::scope(|scope| {
                let other = scope.spawn(|| at(quick, longest));
                let (time, path) = other.join().unwrap().unwrap();
                assert_eq!(path, slow);
                assert!(time >= Duration::from_millis(20), "{time:?}");
            });
        });
        assert!(longest().is_none_or(|(_, path)| path != slow));
    }
}
