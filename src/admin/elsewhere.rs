//! Where else a site's failure may stand when no refusal is recorded: the web servers' own logs, and the file that the
//! site's PHP is told to write its errors to.
//!
//! Root. Reads what root or a service writes; what the site may have written itself is named and not opened.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::store;
use crate::policy::decode;
use crate::refusal::{Pasted, Untrusted};

use super::policy;

/// Where web servers log, by their packages.
const LOGS: [&str; 6] = [
    "/var/log/apache2",
    "/var/log/httpd",
    "/var/log/nginx",
    "/var/log/lighttpd",
    "/var/log/caddy",
    "/var/log/haproxy",
];
/// Logs of one directory that are read: a large host has one for each virtual host, as ISPConfig does.
const MOST_LOGS: usize = 1000;
/// Bytes of each one's end.
const END: u64 = 64 << 10;
/// Lines that are told.
const MOST: usize = 3;

/// What to tell of a site, for people.
pub(super) fn notes(site: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for (log, line) in server_lines(&marks(site)) {
        let log = log.as_os_str().as_bytes();
        notes.push(format!("  server: \"{}\" ({})", Untrusted(line.as_bytes()), Untrusted(log)));
    }
    if let Some((file, set)) = error_log(site) {
        let word = Pasted(file.as_bytes());
        notes.push(format!(
            "  note: its PHP writes errors to {}, by {}\n  help: run: cellwall run {} -- tail -n 5 {word}",
            Untrusted(file.as_bytes()),
            set.display(),
            Pasted(site.as_bytes())
        ));
    }
    notes
}

/// What a line about this site has in it: a path below one of its docroots, or its socket.
fn marks(site: &str) -> Vec<String> {
    let docroots = || -> Option<Vec<String>> {
        let bytes = store::read(&policy::holder(site).ok()?.to_string())?;
        let record = decode::record(&bytes).ok()?;
        let site = record.sites.iter().find(|one| one.name == site.as_bytes())?;
        let text = |docroot: &&[u8]| format!("{}/", String::from_utf8_lossy(docroot).trim_end_matches('/'));
        Some(site.docroots.iter().map(text).collect())
    };
    let mut marks = docroots().unwrap_or_default();
    marks.push(format!("/pool/{site}.sock"));
    marks
}

/// The last lines with one of these marks: of each log that has any, the newest logs last.
fn server_lines(marks: &[String]) -> Vec<(PathBuf, String)> {
    let mut logs: Vec<_> = LOGS.iter().flat_map(|place| error_logs(Path::new(place))).collect();
    logs.sort_by_key(|log| fs::symlink_metadata(log).and_then(|facts| facts.modified()).ok());
    let mut found = Vec::new();
    for log in logs {
        let text = end(&log).unwrap_or_default();
        let about = text.lines().filter(|line| marks.iter().any(|mark| line.contains(mark)));
        found.extend(about.map(|line| (log.clone(), line.to_owned())));
    }
    found.split_off(found.len().saturating_sub(MOST))
}

/// Those that a rotation has not packed.
fn error_logs(place: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.contains("error") && name.ends_with("log")
    };
    let entries = fs::read_dir(place).into_iter().flatten().flatten().take(MOST_LOGS);
    entries.map(|entry| entry.path()).filter(is_one).collect()
}

/// A log's end. A link is not followed: some of these directories belong to the server's own user.
fn end(log: &Path) -> Option<String> {
    let mut file: File =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(log).ok()?;
    let facts = file.metadata().ok().filter(|facts| facts.is_file())?;
    file.seek(SeekFrom::Start(facts.len().saturating_sub(END))).ok()?;
    let mut bytes = Vec::new();
    file.take(END).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file of `error_log` in php.ini's terms, and where it is set: the site's own values before php-cgi's.
fn error_log(site: &str) -> Option<(String, PathBuf)> {
    let own = Path::new("/etc/cellwall/php").join(OsStr::from_bytes(site.as_bytes())).join("values.ini");
    let releases = fs::read_dir("/etc/php").into_iter().flatten().flatten();
    let general = releases.map(|release| release.path().join("cgi/php.ini"));
    let files = std::iter::once(own).chain(general).chain([PathBuf::from("/etc/php.ini")]);
    files.into_iter().find_map(|file| {
        let text = fs::read_to_string(&file).ok()?;
        Some((value(&text)?, file))
    })
}

/// The last `error_log` that names a file; `syslog` and a server's own are not.
fn value(text: &str) -> Option<String> {
    let mut values = text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("error_log")?.trim_start().strip_prefix('=')?.trim();
        let unquoted = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
        Some(unquoted.unwrap_or_else(|| rest.split(';').next().unwrap_or_default().trim()).to_owned())
    });
    values.next_back().filter(|value| value.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_phps_errors_is_found_and_what_is_none_is_not() {
        let is = |text: &str| value(text);
        assert_eq!(is("error_log = /srv/a/php.log ; why\n"), Some("/srv/a/php.log".to_owned()));
        assert_eq!(is("x=1\n error_log=\"/a b;c\"\n"), Some("/a b;c".to_owned()));
        assert_eq!(is("error_log = /a\nerror_log = syslog\n"), None);
        assert_eq!(is(";error_log = /a\nerror_logging = /b\n"), None);
    }
}
