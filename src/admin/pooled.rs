//! What `cellwall why` knows of pools: the key that a refusal of the broker's is about, with a better value, and the
//! program that the request was for, run once more as for a CGI request. Root.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::store;
use crate::launch::interpreter::is_php_cgi;
use crate::policy::{Site, decode};
use crate::pool::settings::{self, Kind, Settings};
use crate::refusal::Pasted;

use super::journal::Entry;
use super::policy;

/// A refusal of the broker's own, or of its gate: its status is HTTP's.
#[must_use]
pub fn is_brokers(entry: &Entry) -> bool {
    entry.refused && entry.field("code").is_some_and(|code| code.starts_with(['B', 'G']))
}

/// The program ended, or never started: what it failed on is seen when it runs once more.
#[must_use]
pub fn is_the_programs(entry: &Entry) -> bool {
    matches!(entry.field("code"), Some("B05" | "B06" | "B07"))
}

/// The first answer that `ask` has to the settings of a pool, of those that are installed for these uids. None: it has none.
pub fn find<T>(
    uids: impl IntoIterator<Item = u32>,
    mut ask: impl FnMut(&Settings<'_>) -> Option<T>,
) -> Option<T> {
    uids.into_iter().find_map(|uid| {
        let bytes = store::read(&store::pool_name(uid))?;
        settings::file(&bytes).ok()?.settings().find_map(|pool| ask(&pool))
    })
}

/// Does `ask` with the settings of a site's pool. None: it has none.
pub fn with_settings<T>(uid: u32, site: &[u8], ask: impl Fn(&Settings<'_>) -> Option<T>) -> Option<T> {
    find([uid], |pool| (pool.name == site).then(|| ask(pool))).flatten()
}

/// A command for a refusal that a key of the site's decides. None: there is none that a machine could know.
#[must_use]
pub fn remedy(entry: &Entry) -> Option<String> {
    let (code, name) = (entry.field("code")?, entry.field("site")?);
    let site = Pasted(name.as_bytes()).to_string();
    if code == "B04" {
        return Some(format!("cellwall pool start {site}"));
    }
    let uid = policy::holder(name).ok()?;
    if code == "G05" {
        let directory = own_directory(entry.field("why")?, uid)?;
        return Some(format!("cellwall set {site} docroot {directory}"));
    }
    let set = |key: &str, value: String| format!("cellwall set {site} {key} {value}");
    with_settings(uid, name.as_bytes(), |settings| {
        let Settings { queue, request, gate, .. } = settings;
        Some(match code {
            "B02" => set("pool.queue", queue.length.saturating_mul(2).max(1).to_string()),
            "B03" => set("pool.queue_timeout", twice(queue.deadline_ms)),
            "B08" => set("pool.timeout", twice(request.deadline_ms)),
            "B09" => set("pool.output_timeout", twice(request.silence_ms)),
            "B11" => set("pool.cpu_timeout", twice(request.cpu_ms)),
            "G02" => {
                let (entries, bytes) = (gate.entries_max.saturating_mul(2), gate.bytes_max.saturating_mul(2));
                let entries = set("environment.entries_max", entries.to_string());
                format!("{entries} && {}", set("environment.bytes_max", bytes.min(BYTES_MOST).to_string()))
            }
            "G07" => set("pool.body_max", request.body_max.saturating_mul(2).to_string()),
            _ => return None,
        })
    })
}

/// Twice as much memory for the entry's site. None: none is set.
#[must_use]
pub fn more_memory(entry: &Entry) -> Option<String> {
    let name = entry.field("site")?;
    let bytes = store::read(&policy::holder(name).ok()?.to_string())?;
    let record = decode::record(&bytes).ok()?;
    let site = record.sites.iter().find(|site| site.name == name.as_bytes())?;
    let mut settings = site.limits.groups.iter().flat_map(|group| &group.settings);
    let memory = settings.find(|(file, _)| [&b"memory.max"[..], b"memory.limit_in_bytes"].contains(file))?.1;
    let bytes: u64 = std::str::from_utf8(memory).ok()?.parse().ok()?;
    let mebibytes = bytes.saturating_mul(2).div_ceil(1 << 20);
    Some(format!("cellwall set {} limits.memory {mebibytes}M", Pasted(name.as_bytes())))
}

/// `environment.bytes_max` has no more.
const BYTES_MOST: u32 = 1 << 20;

/// A time of the settings, doubled, in whole seconds.
fn twice(ms: u32) -> String {
    format!("{}s", ms.saturating_mul(2).div_ceil(1000).max(1))
}

/// The directory of the file that a request named, where it is the site's user's.
fn own_directory(why: &str, uid: u32) -> Option<Pasted<'_>> {
    let path = why.split(": ").next().filter(|path| path.starts_with('/') && !path.contains("\\x"))?;
    let directory = Path::new(path).parent()?;
    let owner = std::fs::symlink_metadata(directory).ok().filter(std::fs::Metadata::is_dir)?.uid();
    (owner == uid).then(|| Pasted(directory.as_os_str().as_bytes()))
}

/// How a pool's program is started once more.
#[derive(Debug)]
pub enum Again {
    /// The request's own program, by the launcher.
    Launch(PathBuf),
    /// The worker's program, by `cellwall run`, for a script of this name in this place, as the program sees it.
    Worker(Vec<OsString>, PathBuf),
}

/// The program behind a request for `script`, which is a path of the host's. None: the site has no pool.
#[must_use]
pub fn again(uid: u32, site: &Site<'_>, script: &Path) -> Option<Again> {
    with_settings(uid, site.name, |settings| {
        let Some((program, words)) = settings.command.split_first() else {
            return Some(Again::Launch(script.to_owned()));
        };
        let owned = |word: &[u8]| OsString::from_vec(word.to_vec());
        let mut command = vec![owned(program)];
        // As the supervisor starts it.
        if is_php_cgi(program) {
            command.extend(["-d", "cgi.fix_pathinfo=0"].map(OsString::from));
        }
        command.extend(words.iter().map(|word| owned(word)));
        let inside = script.strip_prefix(OsStr::from_bytes(settings.gate.jail));
        Some(Again::Worker(command, Path::new("/").join(inside.unwrap_or(script))))
    })
}

/// Is the program of this launch a worker, which serves one request after another?
#[must_use]
pub fn is_worker(uid: u32, site: &Site<'_>, program: &Path) -> bool {
    let worker = |settings: &Settings<'_>| {
        let first = settings.command.first().map(|first| Path::new(OsStr::from_bytes(first)));
        (settings.kind != Kind::Cgi && first == Some(program)).then_some(())
    };
    with_settings(uid, site.name, worker).is_some()
}
