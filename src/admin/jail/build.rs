//! `cellwall jail build` and `refresh`: a directory becomes a chroot in which programs work, and stays one. Root.
//!
//! What is there and came from no build is the administrator's: it is named, and left as it is.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use crate::config::{profiles, store};
use crate::refusal::Pasted;

use super::super::chroot::manifest::{self, Manifest, plain};
use super::super::chroot::place::{Is, Place};
use super::super::chroot::plan::{Plan, plan};
use super::super::chroot::{Selection, Thing};
use super::super::json::Json;
use super::super::{End, cell, policy, say};

/// Arguments of `cellwall jail build`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("wanted").args(["site", "piece", "program"]).required(true).multiple(true)))]
pub struct Args {
    /// The directory, which becomes or is the chroot
    pub directory: PathBuf,
    /// For this site: what its pieces and rules name, its account, its places to write
    #[arg(long, value_name = "SITE")]
    pub site: Vec<String>,
    /// What this piece names
    #[arg(long, value_name = "PIECE")]
    pub piece: Vec<String>,
    /// This program, with its libraries and its interpreter
    #[arg(long, value_name = "PATH")]
    pub program: Vec<PathBuf>,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cellwall jail refresh`.
#[derive(Debug, clap::Args)]
pub struct Of {
    /// A chroot that was built
    pub directory: PathBuf,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Builds, or adds to what was built.
///
/// # Errors
/// The directory is not root's alone; a site, piece or program is not there.
pub fn run(args: &Args) -> Result<End, String> {
    let _root = cell::root()?;
    let directory = directory(&args.directory)?;
    let mut before = Manifest::of(&directory)?.unwrap_or_default();
    // What is asked for now must be there; what was asked for once may be gone.
    let notes = forget(&mut before.selection)?;
    let Selection { sites, pieces, programs } = &mut before.selection;
    sites.extend(args.site.iter().cloned());
    pieces.extend(args.piece.iter().cloned());
    for program in &args.program {
        if !plain(program) {
            return Err(format!("{} is no path of a program: write it from / on", program.display()));
        }
        programs.insert(program.clone());
    }
    bring(&directory, &before, notes, How { dry: args.dry_run, json: args.json })
}

/// Brings a chroot up to date.
///
/// # Errors
/// As [`run`]; no build made the chroot.
pub fn refresh(args: &Of) -> Result<End, String> {
    let _root = cell::root()?;
    let directory = directory(&args.directory)?;
    let shown = directory.display();
    let mut before = Manifest::of(&directory)?.ok_or_else(|| {
        format!("no build made {shown}\n  help: run: cellwall jail build {shown} --site NAME")
    })?;
    let notes = forget(&mut before.selection)?;
    if before.selection == Selection::default() {
        let mut text = format!("nothing that {shown} was built for is there any more");
        notes.iter().for_each(|note| text = format!("{text}\n  note: {note}"));
        return Err(format!("{text}\n  help: run: cellwall jail build {shown} --site NAME"));
    }
    bring(&directory, &before, notes, How { dry: args.dry_run, json: args.json })
}

/// Takes out of the list what is not on this host any more: else one site that went would keep the others' copies old for
/// ever. Returns a note for each.
///
/// # Errors
/// A site has no file any more, and is still served in the chroot.
fn forget(selection: &mut Selection) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    let mut gone = |there: bool, what: &str| {
        if !there {
            notes.push(format!("{what} is not there any more: it is taken off the list"));
        }
        there
    };
    let served = |site: &&String| !is_there(site) && !store::holders(site, None).is_empty();
    if let Some(site) = selection.sites.iter().find(served) {
        let site = Pasted(site.as_bytes());
        return Err(format!(
            "site {site} has no file any more, and is still served\n  help: run: cellwall apply {site}"
        ));
    }
    selection.sites.retain(|site| gone(is_there(site), &format!("site {site}")));
    let pieces = profiles::all(profiles::Kind::Piece);
    selection.pieces.retain(|piece| gone(pieces.contains(piece), &format!("piece {piece}")));
    selection.programs.retain(|program| gone(program.exists(), &program.display().to_string()));
    Ok(notes)
}

/// A site's file, or a user's account. What cannot be told is there.
fn is_there(site: &str) -> bool {
    match site.strip_prefix('~') {
        Some(user) => !matches!(User::from_name(user), Ok(None)),
        None => policy::unknown(site).is_none(),
    }
}

/// Absolute, and none of the host's own trees.
fn directory(path: &Path) -> Result<PathBuf, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let path: PathBuf = path.components().collect();
    let host = [
        "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr",
    ];
    if !plain(&path) || host.iter().any(|tree| path.starts_with(tree)) {
        return Err(format!(
            "{} is no place for a chroot\n  help: take one like /srv/jails/NAME",
            path.display()
        ));
    }
    Ok(path)
}

/// What was done, or would be.
#[derive(Debug, Default)]
struct Done {
    made: Vec<String>,
    renewed: Vec<String>,
    removed: Vec<String>,
    same: usize,
    /// What was not done.
    wrong: Vec<String>,
    /// There is no room for more.
    full: bool,
}

/// How it is done, and told.
#[derive(Debug, Clone, Copy)]
struct How {
    /// Not at all.
    dry: bool,
    json: bool,
}

fn bring(directory: &Path, before: &Manifest, notes: Vec<String>, how: How) -> Result<End, String> {
    let How { dry, json } = how;
    let there = !dry || directory.exists();
    let place = if there { Some(Place::open(directory, !dry)?) } else { None };
    let mut wanted = plan(&before.selection, directory)?;
    wanted.notes.splice(0..0, notes);
    let mut done = Done::default();
    let mut kept = Manifest { selection: before.selection.clone(), ..Manifest::default() };
    for (path, thing) in &wanted.things {
        // Each of a thousand files would say the same.
        if !done.full && done.one(place.as_ref(), path, thing, before, dry) {
            kept.things.insert(path.clone(), thing.clone());
        } else if let Some(old) = before.things.get(path) {
            kept.things.insert(path.clone(), old.clone());
        }
    }
    // Deepest first: a directory is empty when what was in it is gone.
    let gone = before.things.iter().rev().filter(|(path, _)| !wanted.things.contains_key(*path));
    for (path, thing) in gone.filter(|(_, thing)| !matches!(thing, Thing::Own { .. })) {
        if let Some(place) = &place {
            done.gone(place, path, thing, dry);
        }
    }
    let listed = place.filter(|_| !dry).is_none_or(|place| done.listed(&place, &kept, &wanted));
    let end = match (listed, done.wrong.is_empty()) {
        (false, _) => End::Failed,
        (true, false) => End::Findings,
        (true, true) => End::Good,
    };
    if json {
        say::out(done.json(directory, &wanted, dry));
    } else {
        tell(directory, &wanted, &done, before, dry);
    }
    Ok(end)
}

impl Done {
    /// One path. False: it is not there now as it should be.
    fn one(
        &mut self,
        place: Option<&Place>,
        path: &Path,
        thing: &Thing,
        before: &Manifest,
        dry: bool,
    ) -> bool {
        let is = place.map_or(Ok(Is::Missing), |place| place.is(path, thing));
        let ours = before.things.contains_key(path);
        let list = match is {
            Ok(Is::Same) => {
                self.same += 1;
                return true;
            }
            Ok(Is::Missing) => &mut self.made,
            Ok(Is::Other) if ours => &mut self.renewed,
            Ok(Is::Other | Is::Solid) => {
                let why = "is there and came from no build: it is left as it is";
                self.wrong.push(format!("{} {why}", path.display()));
                return false;
            }
            Err(error) => return self.failed(path, &error),
        };
        if let Err(error) = place.filter(|_| !dry).map_or(Ok(()), |place| place.put(path, thing)) {
            return self.failed(path, &error);
        }
        list.push(path.display().to_string());
        true
    }

    /// Keeps the list of what was built. False: it could not be, and what is new was taken away again, for without the list it would
    /// be somebody else's.
    fn listed(&mut self, place: &Place, kept: &Manifest, wanted: &Plan) -> bool {
        let Err(error) = place.keep(manifest::NAME, &kept.encode()) else { return true };
        self.failed(Path::new(manifest::NAME), &error);
        let made: BTreeSet<String> = std::mem::take(&mut self.made).into_iter().collect();
        let is_new = |path: &Path| made.contains(&path.display().to_string());
        // Deepest first.
        for (path, thing) in wanted.things.iter().rev().filter(|(path, _)| is_new(path)) {
            if let Err(error) = place.remove(path, thing) {
                self.failed(path, &error);
            }
        }
        false
    }

    /// Something that was copied and is not needed any more.
    fn gone(&mut self, place: &Place, path: &Path, thing: &Thing, dry: bool) {
        match place.untouched(path, thing) {
            Ok(true) => {}
            Ok(false) => return self.wrong.push(format!("{} was changed: it is left", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.failed(path, &error);
                return;
            }
        }
        self.removed.push(path.display().to_string());
        if let Some(error) = (!dry).then(|| place.remove(path, thing).err()).flatten() {
            self.failed(path, &error);
        }
    }

    fn failed(&mut self, path: &Path, error: &io::Error) -> bool {
        self.full |= matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        self.wrong.push(format!("{}: {error}", path.display()));
        false
    }

    /// What is to be done about it.
    fn remedy(&self, directory: &Path) -> Option<String> {
        let shown = Pasted(directory.as_os_str().as_bytes());
        self.full.then(|| {
            format!("df -h {shown} # make room there, and run it again: what is made already is kept")
        })
    }

    fn json(self, directory: &Path, wanted: &Plan, dry: bool) -> Json {
        let (files, bytes) = copies(wanted);
        let remedy = self.remedy(directory).map_or(Json::Null, Json::text);
        Json::object([
            ("directory", Json::text(directory.display().to_string())),
            ("dry_run", Json::Bool(dry)),
            ("ok", Json::Bool(self.wrong.is_empty())),
            ("files", Json::count(files)),
            ("bytes", Json::Number(bytes)),
            ("made", Json::texts(self.made)),
            ("renewed", Json::texts(self.renewed)),
            ("removed", Json::texts(self.removed)),
            ("same", Json::count(self.same)),
            ("notes", Json::texts(wanted.notes.iter().cloned())),
            ("remedy", remedy),
            ("errors", Json::texts(self.wrong)),
        ])
    }
}

/// How many files are copied, and their bytes.
fn copies(wanted: &Plan) -> (usize, u64) {
    let sizes = wanted.things.values().filter_map(|thing| match thing {
        Thing::Copy(copied) => Some(copied.size),
        _ => None,
    });
    sizes.fold((0, 0), |(files, bytes), size| (files.saturating_add(1), bytes.saturating_add(size)))
}

fn tell(directory: &Path, wanted: &Plan, done: &Done, before: &Manifest, dry: bool) {
    let first = before.things.is_empty();
    if dry || !first {
        for (sign, paths) in [('+', &done.made), ('~', &done.renewed), ('-', &done.removed)] {
            paths.iter().for_each(|path| say::out(format_args!("{sign} {path}")));
        }
    }
    wanted.notes.iter().for_each(|note| say::note(format_args!("note: {note}")));
    done.wrong.iter().for_each(|line| say::note(format_args!("error: {line}")));
    done.remedy(directory).iter().for_each(|remedy| say::note(format_args!("  help: run: {remedy}")));
    let (files, bytes) = copies(wanted);
    let megabytes = bytes.div_ceil(1 << 20);
    let would = if dry { "would have" } else { "has" };
    say::out(format_args!(
        "{} {would} {} of {megabytes} MB: {} made, {} renewed, {} removed, {} as they were",
        directory.display(),
        say::counted(files, "file"),
        done.made.len(),
        done.renewed.len(),
        done.removed.len(),
        done.same
    ));
    let sites: BTreeSet<&String> = before.selection.sites.iter().collect();
    if first && !dry && done.wrong.is_empty() {
        sites.iter().for_each(|site| {
            say::note(format_args!("next: cellwall apply {site} && cellwall jail check {site}"))
        });
    }
}
