//! `cellwall fix`: owners and modes below a site's docroots that the launcher refuses, and the commands that mend them; and,
//! of a program that is named, a second name or capabilities. Root.
//!
//! The site's owner may change the tree while root walks through it. So nothing is followed: each entry is opened in its
//! held directory without links (openat2), judged by what is held, and changed on that descriptor. A file of another
//! owner with several names is not touched: one of the names may be /etc/shadow; nor is one whose names change meanwhile, as its only
//! one may have been the owner's for a moment. Where a link of the owner's leads, only what
//! is the owner's is looked at, and the way there is left as it is. A command that names a path to chmod or chown would meet
//! whatever the owner has put there by the time it is pasted: each command is this one again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::dir::{Dir, Entry};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, ResolveFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, unlinkat};

use crate::config::ground::is_everybodys;
use crate::config::{looks, store};
use crate::policy::{Jail, Links, PathRule, Record, Site, decode};
use crate::record::reference;
use crate::refusal::{Pasted, Untrusted};
use crate::sys::files;

use super::json::Json;
use super::{End, Stop, cell, patience, say};

/// Arguments of `cellwall fix`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site (`shop`, `~alice`)
    pub site: String,
    /// Only these files and directories; a file that is named is a program, and must be executable
    pub paths: Vec<PathBuf>,
    /// Do it, instead of printing the commands
    #[arg(long)]
    pub apply: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// One entry that is not as it must be.
#[derive(Debug)]
struct Deviation {
    path: PathBuf,
    why: String,
    /// What mends it; none: somebody must look.
    command: Option<String>,
    mended: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let ended = cell::with_site(&args.site, |record, site| {
        apart(record.uid, site).map_err(Stop::asked)?;
        let what = if args.apply { "not all was mended" } else { "not all was looked at" };
        let found = patience::limited(what, &|| (), || deviations(record, site, args))?;
        let open = found.iter().filter(|one| !one.mended).count();
        if args.json {
            say::out(json(&args.site, &found));
        } else {
            print(&args.site, &found, args.apply);
        }
        Ok(if open == 0 { End::Good } else { End::Findings })
    });
    ended.unwrap_or_else(Stop::said).into()
}

/// The command for some entries of a site's; for all where none is named, or one has a name that is shown cut.
pub(super) fn command(site: &[u8], paths: &[&Path]) -> String {
    let names = || paths.iter().map(|path| path.as_os_str().as_bytes());
    let whole = names().all(|name| name.len() <= Untrusted::MAX);
    let tail: String = names().filter(|_| whole).map(|name| format!(" {}", Pasted(name))).collect();
    format!("cellwall fix --apply {}{tail}", Pasted(site))
}

fn deviations(record: &Record<'_>, site: &Site<'_>, args: &Args) -> Result<Vec<Deviation>, String> {
    let own = (record.uid, site.identity.gid);
    let code = (site.owner(record.uid), site.identity.gid);
    let cut = match &site.jail {
        Jail::Chroot(directory) => String::from_utf8_lossy(directory).into_owned(),
        Jail::View(_) | Jail::Host => String::new(),
    };
    let written = site.landlock.rules.iter().filter(|rule| rule.rights & PathRule::WRITE != 0);
    let written = written.map(|rule| PathBuf::from(cut.clone() + &String::from_utf8_lossy(rule.path)));
    let asked = args.paths.iter().map(|path| Ok(outside(site, std::path::absolute(path)?)));
    let only: BTreeSet<PathBuf> = asked.collect::<std::io::Result<_>>().map_err(|error| error.to_string())?;
    let mut walk = Walk {
        site,
        uid: record.uid,
        only: only.into_iter().collect(),
        met: BTreeSet::new(),
        wants: written.map(|path| (path, own)).collect(),
        apply: args.apply,
        waited: false,
        found: Vec::new(),
    };
    for docroot in &site.docroots {
        let path = Path::new(OsStr::from_bytes(docroot));
        if let Err((path, errno)) = walk.docroot(path, code, Way::default()) {
            walk.note(&path, errno.desc().to_owned());
        }
    }
    let lost: Vec<PathBuf> = walk.only.iter().filter(|path| !walk.met.contains(*path)).cloned().collect();
    for path in lost {
        walk.note(&path, "is not there, or not below a docroot of the site".to_owned());
    }
    Ok(walk.found)
}

/// No docroot of another user lies beneath one of the site's: whose what is in it is could not be told.
fn apart(uid: u32, site: &Site<'_>) -> Result<(), String> {
    let path = |docroot: &[u8]| PathBuf::from(OsStr::from_bytes(docroot));
    let ours: Vec<PathBuf> = site.docroots.iter().map(|docroot| path(docroot)).collect();
    for other in store::uids().into_iter().filter(|other| *other != uid) {
        let bytes = store::read(&other.to_string()).unwrap_or_default();
        let Ok(record) = decode::record(&bytes) else { continue };
        for (site, docroot) in
            record.sites.iter().flat_map(|site| site.docroots.iter().map(move |one| (site, one)))
        {
            let docroot = path(docroot);
            if let Some(above) = ours.iter().find(|above| docroot.starts_with(above) && docroot != **above) {
                let (above, docroot, name) = (above.display(), docroot.display(), Untrusted(site.name));
                return Err(format!(
                    "{above} holds {docroot}, a docroot of site `{name}`: nothing in it was looked at\n  \
                     help: name a directory of its own in the site's file"
                ));
            }
        }
    }
    Ok(())
}

/// A path as a record of a chroot has it, outside of the chroot.
fn outside(site: &Site<'_>, path: PathBuf) -> PathBuf {
    let Jail::Chroot(directory) = &site.jail else { return path };
    let near = |path: &Path| {
        let docroots = site.docroots.iter().map(|docroot| Path::new(OsStr::from_bytes(docroot)));
        docroots.into_iter().any(|docroot| path.starts_with(docroot) || docroot.starts_with(path))
    };
    let outside = Path::new(OsStr::from_bytes(directory)).join(path.strip_prefix("/").unwrap_or(&path));
    if !near(&path) && near(&outside) { outside } else { path }
}

struct Walk<'a> {
    site: &'a Site<'a>,
    uid: u32,
    /// What was asked for; empty: all.
    only: Vec<PathBuf>,
    /// What of it was met.
    met: BTreeSet<PathBuf>,
    /// Below these paths other owners are right.
    wants: BTreeMap<PathBuf, (u32, u32)>,
    apply: bool,
    /// Time was let pass once, so that what was changed before this is past.
    waited: bool,
    found: Vec<Deviation>,
}

/// The links on the way to a docroot.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    hops: u8,
    /// One of them is the site's owner's, who says where it leads.
    owners: bool,
}

/// What is to change.
#[derive(Debug, Default)]
struct Wrong {
    owner: Option<(u32, u32)>,
    /// Mode bits to take away.
    off: u32,
    /// Mode bits to give.
    on: u32,
    /// It has more names than this one.
    linked: bool,
    /// It has file capabilities.
    capable: bool,
}

impl Wrong {
    /// The mode that it gets.
    fn mode(&self, facts: &FileStat) -> Mode {
        Mode::from_bits_truncate(facts.st_mode & 0o7777 & !self.off | self.on)
    }

    fn is_nothing(&self) -> bool {
        self.owner.is_none() && self.off | self.on == 0 && !self.linked && !self.capable
    }
}

/// The name of an entry, and the directory that it is in, held.
type Name<'a> = Option<(&'a OwnedFd, &'a [u8])>;

impl Walk<'_> {
    /// Is it, or does it lead to, what was asked for?
    fn towards(&self, path: &Path) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one.starts_with(path))
    }

    fn asked(&mut self, path: &Path) -> bool {
        let named = self.only.iter().any(|one| one == path);
        if named {
            self.met.insert(path.to_owned());
        }
        named || self.only.is_empty()
    }

    /// The way to a docroot, then all that is in it.
    fn docroot(&mut self, docroot: &Path, owner: (u32, u32), way: Way) -> Result<(), (PathBuf, Errno)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |errno| (path, errno)
        };
        let mut here = files::hold_root().map_err(at(Path::new("/")))?;
        let mut path = PathBuf::from("/");
        let parts: Vec<_> = docroot.iter().skip(1).collect();
        for (number, part) in parts.iter().enumerate() {
            path.push(part);
            let next = looks::at(&path, || files::hold(&here, part.as_bytes(), ResolveFlag::empty()));
            // Links of root's and the owner's on the way to a docroot are followed, as the launcher does.
            let links = self.site.links == Links::OwnerMatch;
            if matches!(next, Err(Errno::ELOOP)) && links && way.hops < 8 {
                let (mut target, own) = target(&here, part.as_bytes(), &path, owner.0).map_err(at(&path))?;
                target.extend(parts.iter().skip(number + 1));
                let way = Way { hops: way.hops + 1, owners: way.owners || own };
                return self.docroot(&target, owner, way);
            }
            here = next.map_err(at(&path))?;
            let facts = looks::at(&path, || fstat(&here)).map_err(at(&path))?;
            if number + 1 < parts.len() {
                self.above(&here, &path, &facts, owner.0, way.owners);
            }
        }
        let end = fstat(&here).map_err(at(&path))?.st_uid;
        if way.owners && end != owner.0 {
            self.note(&path, format!("belongs to uid {end}, and a link of the site's leads to it"));
        } else {
            self.entry(&here, None, &path, owner, 0);
        }
        Ok(())
    }

    /// A directory above the docroot: root's or the owner's, and nobody else may write to it. `led`: the owner chose it.
    fn above(&mut self, held: &OwnedFd, path: &Path, facts: &FileStat, owner: u32, led: bool) {
        let foreign = facts.st_uid != 0 && facts.st_uid != owner;
        let owner = foreign.then_some((0, facts.st_gid));
        let wrong = Wrong { owner, off: facts.st_mode & 0o022, ..Wrong::default() };
        if led && !wrong.is_nothing() {
            self.note(path, "may be changed by others, and a link of the site's leads through it".to_owned());
        } else if is_everybodys(path) {
            let why = "is there for everybody to write to: move the docroot to a place of root's";
            self.note(path, why.to_owned());
        } else {
            self.judge(held, None, path, facts, wrong);
        }
    }

    fn entry(&mut self, held: &OwnedFd, name: Name<'_>, path: &Path, owner: (u32, u32), depth: u32) {
        let owner = self.wants.get(path).copied().unwrap_or(owner);
        let Ok(facts) = looks::at(path, || fstat(held)) else { return };
        let mode = facts.st_mode;
        let wrong = |off| Wrong {
            owner: ((facts.st_uid, facts.st_gid) != owner).then_some(owner),
            off: mode & off,
            ..Wrong::default()
        };
        let kind = mode & libc::S_IFMT;
        if matches!(kind, libc::S_IFREG | libc::S_IFLNK)
            && wrong(0).owner.is_some()
            && let Some(why) = self.shared(held, name, path, &facts)
        {
            return self.note(path, why);
        }
        match kind {
            libc::S_IFDIR => {
                self.judge(held, None, path, &facts, wrong(0o022));
                self.children(held, path, owner, depth);
            }
            libc::S_IFREG => {
                let on = self.lacks(path, mode, owner.0);
                // Of a site's other files these are nobody's concern, and a copy takes room.
                let named = self.only.iter().any(|one| one == path);
                let linked = named && facts.st_nlink > 1 && !self.site.hard_links;
                let capable = named && opened(held).is_ok_and(|file| files::has_attribute(&file, CAPABILITY));
                self.judge(held, name, path, &facts, Wrong { on, linked, capable, ..wrong(0o6022) });
            }
            libc::S_IFLNK => self.judge(held, None, path, &facts, wrong(0)),
            _ => self.note(path, "is no file, directory or link: no site needs it".to_owned()),
        }
    }

    /// Why a file of another owner's may not only be the tree's.
    fn shared(&mut self, held: &OwnedFd, name: Name<'_>, path: &Path, facts: &FileStat) -> Option<String> {
        let (uid, gid, names) = (facts.st_uid, facts.st_gid, facts.st_nlink);
        if names > 1 {
            return Some(format!(
                "belongs to {uid}:{gid} and has {names} names: find the others with find / -samefile before you change it"
            ));
        }
        let asked = self.only.is_empty() || self.only.iter().any(|one| one == path);
        if self.apply && asked && !std::mem::replace(&mut self.waited, true) {
            // For all that was put there just now: see is_only_name().
            std::thread::sleep(TICK);
        }
        let unsure = self.apply && asked && is_only_name(held, name) != Ok(true);
        unsure.then(|| {
            format!(
                "belongs to {uid}:{gid} and got or lost names meanwhile: see who does that, then do it again"
            )
        })
    }

    /// The bits that a program lacks to be run as one. Which files of a site are programs only people know: those that are
    /// named, where no handler has their ending.
    fn lacks(&self, path: &Path, mode: u32, owner: u32) -> u32 {
        let handled = |suffix: &[u8]| path.as_os_str().as_bytes().ends_with(suffix);
        let program = self.only.iter().any(|one| one == path)
            && !self.site.handlers.iter().any(|handler| handled(handler.suffix));
        // A code owner's program is run by its group.
        let (bit, on) = if owner == self.uid { (0o100, 0o100) } else { (0o010, 0o110) };
        if program && mode & bit == 0 { on } else { 0 }
    }

    fn children(&mut self, held: &OwnedFd, path: &Path, owner: (u32, u32), depth: u32) {
        if depth == DEEPEST {
            return self
                .note(path, format!("is {DEEPEST} directories deep: what is in it was not looked at"));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let name = |entry: Entry| entry.file_name().to_bytes().to_vec();
        let listed = looks::at(path, || {
            let mut directory = Dir::openat(held, ".", flags, Mode::empty())?;
            Ok::<Vec<_>, Errno>(directory.iter().flatten().map(name).collect())
        });
        let mut names = match listed {
            Ok(names) => names,
            Err(errno) => return self.note(path, errno.desc().to_owned()),
        };
        names.retain(|name| !matches!(name.as_slice(), b"." | b".."));
        names.sort();
        for name in names {
            let path = path.join(OsStr::from_bytes(&name));
            if !self.towards(&path) {
                continue;
            }
            let hold = || match files::hold(held, &name, ResolveFlag::RESOLVE_NO_XDEV) {
                Err(Errno::ELOOP) => files::hold_link(held, &name),
                other => other,
            };
            let opened = looks::at(&path, hold);
            match opened {
                Ok(child) => self.entry(&child, Some((held, &name)), &path, owner, depth + 1),
                Err(Errno::EXDEV) => {
                    self.note(&path, "is another file system: name it as a docroot".to_owned())
                }
                // Gone meanwhile.
                Err(Errno::ENOENT) => {}
                Err(errno) => self.note(&path, errno.desc().to_owned()),
            }
        }
    }

    /// What is held has the owner and the right mode, or it deviates.
    fn judge(&mut self, held: &OwnedFd, name: Name<'_>, path: &Path, facts: &FileStat, wrong: Wrong) {
        if !self.asked(path) || wrong.is_nothing() {
            return;
        }
        let mode = facts.st_mode & 0o7777;
        let mut whys = Vec::new();
        if let Some((uid, gid)) = wrong.owner {
            whys.push(format!("belongs to {}:{}, not to {uid}:{gid}", facts.st_uid, facts.st_gid));
        }
        for (bits, what) in [
            (wrong.off & 0o022, "is writable by others"),
            (wrong.off & 0o6000, "has a set-id bit"),
            (wrong.on, "is not executable"),
        ] {
            whys.extend((bits != 0).then(|| format!("{what} ({mode:04o})")));
        }
        whys.extend(wrong.linked.then(|| format!("has {} hard links", facts.st_nlink)));
        whys.extend(wrong.capable.then(|| "has file capabilities".to_owned()));
        let mend = || match name.filter(|_| wrong.linked) {
            Some((above, name)) => copy(held, above, name, facts, &wrong),
            None => mend(held, facts, &wrong).map_err(std::io::Error::from),
        };
        let ended = if self.apply { Some(mend()) } else { None };
        let mended = matches!(ended, Some(Ok(())));
        if let Some(Err(error)) = ended {
            whys.push(format!("and that stays: {error}"));
        }
        let command = Some(command(self.site.name, &[path]));
        self.found.push(Deviation { path: path.to_owned(), why: whys.join(", "), command, mended });
    }

    fn note(&mut self, path: &Path, why: String) {
        if self.asked(path) {
            self.found.push(Deviation { path: path.to_owned(), why, command: None, mended: false });
        }
    }
}

/// Where a link of root's or the owner's leads; true: it is the owner's, or in a directory of the owner's.
fn target(held: &OwnedFd, name: &[u8], path: &Path, owner: u32) -> Result<(PathBuf, bool), Errno> {
    let link = files::hold_link(held, name)?;
    let facts = fstat(&link)?;
    let text = PathBuf::from(readlinkat(&link, c"")?);
    let plain = text.components().all(|part| !matches!(part, Component::ParentDir));
    let good = plain && (facts.st_uid == 0 || facts.st_uid == owner);
    let target = path.parent().unwrap_or(Path::new("/")).join(text);
    let owners = facts.st_uid != 0 || fstat(held)?.st_uid != 0;
    if good { Ok((target, owners)) } else { Err(Errno::ELOOP) }
}

/// Whether what is held has this name and no other. Two looks at the number of names have one at the name itself between them; each name
/// that comes or goes changes ctime (inode(7)), so that nothing came or went where it is the same and was past before: a clock that
/// ticks slowly tells two changes of one tick not apart.
fn is_only_name(held: &OwnedFd, name: Name<'_>) -> Result<bool, Errno> {
    let Some((above, name)) = name else { return Ok(false) };
    let before = fstat(held)?;
    let changed = UNIX_EPOCH + Duration::from_secs(before.st_ctime.try_into().unwrap_or(u64::MAX >> 1));
    let past = SystemTime::now().duration_since(changed).is_ok_and(|since| since >= TICK);
    let here = match files::hold(above, name, ResolveFlag::RESOLVE_NO_XDEV) {
        Err(Errno::ELOOP) => files::hold_link(above, name),
        other => other,
    };
    let (here, after) = (fstat(&here?)?, fstat(held)?);
    let same = (here.st_dev, here.st_ino) == (before.st_dev, before.st_ino);
    let still = (before.st_ctime, before.st_ctime_nsec) == (after.st_ctime, after.st_ctime_nsec);
    Ok(past && same && still && (before.st_nlink, after.st_nlink) == (1, 1))
}

/// Longer than any file system's clock takes for a step, which is a second at most where files have owners; and one more, as what is
/// compared is whole seconds.
const TICK: Duration = Duration::from_secs(2);

/// Changes what is held, and nothing else. The mode first: between the two nobody gets a right that he had not.
fn mend(held: &OwnedFd, facts: &FileStat, wrong: &Wrong) -> Result<(), Errno> {
    if wrong.off | wrong.on != 0 {
        // fchmod(2) wants more than an O_PATH descriptor.
        fchmod(&opened(held)?, wrong.mode(facts))?;
    }
    // Capabilities go with each change of the owner, also to the same one (chown(2)).
    if let Some((uid, gid)) = wrong.owner.or(wrong.capable.then_some((facts.st_uid, facts.st_gid))) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(held.as_fd(), c"", uid, gid, AtFlags::AT_EMPTY_PATH)?;
    }
    Ok(())
}

/// What is held, opened anew through /proc for reading: the same inode.
fn opened(held: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path.as_str(), flags, Mode::empty())
}

/// Puts a copy of what is held in the place of this name of its. The copy is the owner's already when it gets the name: whatever
/// the owner does to the directory meanwhile, it could have put such a file there itself.
fn copy(held: &OwnedFd, above: &OwnedFd, name: &[u8], facts: &FileStat, wrong: &Wrong) -> io::Result<()> {
    let from = opened(held)?;
    if files::has_attribute(&from, c"system.posix_acl_access") {
        return Err(io::Error::other("it has an access list: copy it yourself"));
    }
    let beside = format!(".cellwall-{}", reference());
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let to = openat(above, beside.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let copied = filled(File::from(from), File::from(to), facts, wrong);
    let named = copied.and_then(|()| Ok(renameat(above, beside.as_str(), above, OsStr::from_bytes(name))?));
    if named.is_err() {
        let _ = unlinkat(above, beside.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    named
}

/// Bytes, times, owner and mode.
fn filled(from: File, mut to: File, facts: &FileStat, wrong: &Wrong) -> io::Result<()> {
    if io::copy(&mut from.take(LARGEST + 1), &mut to)? > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB: copy it yourself", LARGEST >> 20)));
    }
    fchown(&to, Some(Uid::from_raw(facts.st_uid)), Some(Gid::from_raw(facts.st_gid)))?;
    fchmod(&to, wrong.mode(facts))?;
    let (read, written) = ((facts.st_atime, facts.st_atime_nsec), (facts.st_mtime, facts.st_mtime_nsec));
    let [read, written] = [read, written].map(|(seconds, rest)| TimeSpec::new(seconds, rest));
    Ok(futimens(&to, &read, &written)?)
}

/// No program is larger; a file of holes would fill the disk.
const LARGEST: u64 = 256 << 20;

const CAPABILITY: &CStr = c"security.capability";

fn print(site: &str, found: &[Deviation], apply: bool) {
    for one in found {
        say::out(format_args!("{} {}", Untrusted(one.path.as_os_str().as_bytes()), one.why));
        match &one.command {
            Some(_) if one.mended => say::out("  done"),
            Some(_) if apply => say::out("  failed"),
            Some(command) => say::out(format_args!("  {command}")),
            None => {}
        }
    }
    let mended = found.iter().filter(|one| one.mended).count();
    let able = found.iter().filter(|one| one.command.is_some()).count();
    say::out(match (found.len(), apply) {
        (0, _) => format!("{site}: owners and modes are right"),
        (_, true) => format!("{site}: {mended} mended, {} left", found.len() - mended),
        (count, false) => {
            let wrong =
                format!("{site}: {} wrong", say::counted(count, "entry").replace("entrys", "entries"));
            match able {
                0 => wrong,
                _ => format!("{wrong}; to mend {able} of them: cellwall fix --apply {site}"),
            }
        }
    });
}

fn json(site: &str, found: &[Deviation]) -> Json {
    let one = |one: &Deviation| {
        Json::object([
            ("path", Json::text(one.path.to_string_lossy())),
            ("why", Json::text(&one.why)),
            ("fix", one.command.as_ref().map_or(Json::Null, Json::text)),
            ("mended", Json::Bool(one.mended)),
        ])
    };
    Json::object([("site", Json::text(site)), ("found", Json::List(found.iter().map(one).collect()))])
}

/// Deeper trees are told and left alone: each level holds a descriptor.
const DEEPEST: u32 = 200;
