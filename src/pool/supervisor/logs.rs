//! A site's own logs: opened by root, written by the broker.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;

use crate::refusal::{Card, Pasted, Refusal};

use super::super::settings;
use super::super::wire::{Down, Sink, Site};
use super::Supervisor;

impl Supervisor {
    /// The broker gets a site's own logs, opened anew: after a rotation there is another file by the same name.
    pub(super) fn tell_lines(&mut self, site: Site) {
        let Some(pool) = self.pools.get(&site).filter(|_| self.broker.is_alive()) else { return };
        for (sink, path) in sinks(&Rc::clone(&pool.record)) {
            match open_log(&path) {
                Ok(file) => self.tell_broker(&Down::Lines { site, sink }, vec![Rc::new(file)]),
                Err(Unfit { why, fix }) => {
                    let name = self.pools.get(&site).map(|pool| pool.name.clone()).unwrap_or_default();
                    let fix = fix.unwrap_or_else(|| elsewhere(&name, sink));
                    self.journal.refused(&name, &Refusal { fix, ..Refusal::about(&LOG, &path, &why) });
                }
            }
        }
    }
}

fn sinks(record: &[u8]) -> Vec<(Sink, Vec<u8>)> {
    let Ok(settings) = settings::settings(record) else { return Vec::new() };
    let seen = settings.seen;
    [(Sink::Access, seen.access_log), (Sink::Slow, seen.slow_log), (Sink::Errors, seen.error_log)]
        .into_iter()
        .filter(|(_, path)| !path.is_empty())
        .map(|(sink, path)| (sink, path.to_vec()))
        .collect()
}

/// Why a file is no log.
#[derive(Debug)]
pub(super) struct Unfit {
    why: String,
    /// What mends it where it is; none: it must be elsewhere.
    fix: Option<String>,
}

/// A log that only root can have put there (CVE-2016-1247).
pub(super) fn open_log(path: &[u8]) -> Result<OwnedFd, Unfit> {
    let path = Path::new(OsStr::from_bytes(path));
    let word = |path: &Path| Pasted(path.as_os_str().as_bytes()).to_string();
    let above = path.parent().unwrap_or(Path::new("/"));
    if !roots_alone(above) {
        let missing = above.symlink_metadata().is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
        let nearest = above.ancestors().find(|above| above.symlink_metadata().is_ok());
        if missing && nearest.is_some_and(|nearest| nearest.ancestors().all(roots_alone)) {
            let make = format!("install -d -o root -g adm -m 0750 {} && cellwall pool reload", word(above));
            return Err(Unfit { why: "its directory is not there".to_owned(), fix: Some(make) });
        }
        // There is no better place than this one.
        let mend = |logs| format!("chown root {logs} && chmod go-w {logs} && cellwall pool reload");
        let fix = Some(LOGS).filter(|logs| above == Path::new(logs)).map(mend);
        return Err(Unfit { why: "is not in a directory that only root can write".to_owned(), fix });
    }
    let look = || Some(format!("ls -l {} # when it is mended: cellwall pool reload", word(path)));
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o640).custom_flags(flags);
    let file = options.open(path).map_err(|why| Unfit { why: why.to_string(), fix: look() })?;
    let facts = file.metadata().map_err(|why| Unfit { why: why.to_string(), fix: look() })?;
    let good = facts.is_file() && facts.uid() == 0 && facts.nlink() == 1;
    let unfit = || Unfit { why: "is not a plain file of root's".to_owned(), fix: look() };
    if good { Ok(file.into()) } else { Err(unfit()) }
}

fn roots_alone(directory: &Path) -> bool {
    let facts = directory.symlink_metadata();
    facts.is_ok_and(|facts| facts.is_dir() && facts.uid() == 0 && facts.mode() & 0o022 == 0)
}

/// The command that names a place where logs are.
fn elsewhere(site: &[u8], sink: Sink) -> String {
    let (key, what) = match sink {
        Sink::Access => ("access_log", "access"),
        Sink::Slow => ("slow_log", "slow"),
        Sink::Errors => ("error_log", "error"),
    };
    let file = [LOGS.as_bytes(), b"/", site, b"-", what.as_bytes(), b".log"].concat();
    format!("cellwall set {} pool.{key} {}", Pasted(site), Pasted(&file))
}

/// Where the package keeps logs.
const LOGS: &str = "/var/log/cellwall";

static LOG: Card = Card { code: "S10", status: 88, remedy: "ls -l {}" };
