//! Where pools listen: no two of a host on one socket or address.
//!
//! The daemon opens what comes first, and the other site's visitors would be served by a stranger's programs.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::DIRECTORY;
use crate::pool::settings::{self, Listen, SUFFIX};

use super::cell::Cell;
use super::problem::{Place, Problem, Problems};
use super::store;
use super::whole::{Group, Origin, WholeHost};

/// One pool.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    uid: u32,
    site: String,
    address: String,
    /// The line behind it; none: it is a record's.
    place: Option<Place>,
}

/// The pools among the sites of one uid.
pub(super) fn of(uid: u32, cells: &[Cell]) -> Vec<Listener> {
    let one = |cell: &Cell| {
        let pool = cell.pool.as_ref()?;
        Some(Listener { place: Some(pool.place.clone()), ..listener(uid, &pool.record)? })
    };
    cells.iter().filter_map(one).collect()
}

fn listener(uid: u32, record: &[u8]) -> Option<Listener> {
    let settings = settings::settings(record).ok()?;
    let address = match settings.listen {
        Listen::Socket(name) => String::from_utf8_lossy(name).into_owned(),
        Listen::Tcp(address) => address.to_string(),
    };
    let site = String::from_utf8_lossy(settings.name).into_owned();
    Some(Listener { uid, site, address, place: None })
}

/// Reports each socket and address that several of `new` have. `gone`: beside these there are the installed sites, but
/// those of the uids in it; none: these are all.
pub(super) fn check(
    host: &WholeHost,
    groups: &[Group],
    mut new: Vec<Listener>,
    gone: Option<&BTreeSet<u32>>,
) -> Vec<Problem> {
    if let Some(gone) = gone {
        let mut left: BTreeSet<u32> = groups.iter().filter_map(|(uid, _)| *uid).collect();
        left.extend(gone);
        new.extend(others(&new, &left));
    }
    // An installed one first: the line that is new is the one that is shown.
    new.sort_by_cached_key(|one| (one.place.is_some(), one.site.clone()));
    let mut by_address: BTreeMap<&str, Vec<&Listener>> = BTreeMap::new();
    for one in &new {
        by_address.entry(&one.address).or_default().push(one);
    }
    let problems = Problems::default();
    for (address, all) in by_address {
        if let [first, .., last] = all.as_slice()
            && last.place.is_some()
        {
            report(host, address, (first, last), all.len(), &problems);
        }
    }
    problems.into_sorted()
}

fn report(
    host: &WholeHost,
    address: &str,
    (first, last): (&Listener, &Listener),
    count: usize,
    problems: &Problems,
) {
    let more = if count > 2 { format!(", and {} more", count - 2) } else { String::new() };
    let message = format!("`{}` listens on {address}, and so does `{}`{more}", last.site, first.site);
    let there = first.place.clone().or_else(|| line_of(host, &first.site));
    let there = there.map_or_else(|| "in its record".to_owned(), |place| place.to_string());
    let help = format!("`{}`: {there}; without listen each site has a socket of its own", first.site);
    problems.error(last.place.as_ref(), message, help);
}

/// Installed pools of other users. Asked only where a site listens elsewhere than it did: to read all is slow with many.
fn others(new: &[Listener], left: &BTreeSet<u32>) -> Vec<Listener> {
    let moved = |one: &&Listener| !installed(one.uid).iter().any(|old| same(old, one));
    let moved: Vec<&Listener> = new.iter().filter(moved).collect();
    if moved.is_empty() {
        return Vec::new();
    }
    let entries = std::fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let uids = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(SUFFIX)?.parse().ok());
    let all = uids.filter(|uid| !left.contains(uid)).flat_map(installed);
    // A site that has moved to another user is not its own rival.
    let rival = |old: &Listener| {
        moved.iter().any(|one| one.address == old.address) && new.iter().all(|one| one.site != old.site)
    };
    all.filter(rival).collect()
}

fn same(one: &Listener, other: &Listener) -> bool {
    (&one.site, &one.address) == (&other.site, &other.address)
}

fn installed(uid: u32) -> Vec<Listener> {
    let bytes = store::read(&store::pool_name(uid)).unwrap_or_default();
    let file = settings::file(&bytes).ok();
    file.iter().flat_map(|file| &file.pools).filter_map(|record| listener(uid, record)).collect()
}

/// What gives an installed site its pool, as its file is today.
fn line_of(host: &WholeHost, site: &str) -> Option<Place> {
    let rules = Origin::installed(site).read(host, &Problems::default())?.rules;
    let listen = rules.pool_listen.map(|one| one.place);
    listen.or(rules.pool_kind.map(|one| one.place)).or(rules.pool_command.map(|one| one.place))
}
