//! Is the program what it should be? Runs as the site's own uid.
//!
//! Walks from the root one component at a time and decides on descriptors, in suEXEC's order.
//! Refuses with V01–V06, V111–V121. May not: keep a path as proof, open anything but O_PATH.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, fstat, stat};

use crate::policy::Site;
use crate::refusal::{Card, Refusal};

use super::arrival::Arrival;
use super::confine::Dropped;
use super::request::Request;

/// A program that passed, in a directory that is held.
#[must_use]
#[derive(Debug)]
pub struct Verified<'a> {
    pub(super) site: &'a Site<'a>,
    pub(super) uid: u32,
    pub(super) caller: u32,
    /// The directory; its owner and root alone can change what is in it.
    pub(super) directory: OwnedFd,
    pub(super) path: Vec<u8>,
    /// One component.
    pub(super) program: CString,
    pub(super) arguments: Vec<CString>,
}

/// # Errors
/// As the module says.
pub fn verify<'a>(
    dropped: Dropped<'a>,
    arrival: &Arrival,
    request: &Request<'_>,
) -> Result<Verified<'a>, Refusal> {
    let Dropped { uid, site, docroot, directory: path } = dropped;
    let held = stat(".").map_err(|errno| Refusal::call(&CWD, "stat(\".\")", errno))?;
    let (directory, facts) = walk(&path, docroot, uid)?;
    if (facts.st_dev, facts.st_ino) != (held.st_dev, held.st_ino) {
        return Err(Refusal::about(&MOVED, &path, "is another directory than the working directory"));
    }
    program(&directory, &path, request.command, (uid, site), &facts)?;
    let text = |text: &OsStr| {
        CString::new(text.as_bytes()).map_err(|_| Refusal::call(&CWD, "argument", Errno::EINVAL))
    };
    Ok(Verified {
        site,
        uid,
        caller: arrival.caller,
        directory,
        path,
        program: text(request.command)?,
        arguments: request.arguments.iter().map(|word| text(word)).collect::<Result<_, _>>()?,
    })
}

/// From `/` to `path`. Every directory is root's or the site's, and nobody else can write it; a mount below the
/// docroot is not crossed.
fn walk(path: &[u8], docroot: &[u8], uid: u32) -> Result<(OwnedFd, FileStat), Refusal> {
    let mut here = open(AT_FDCWD, b"/", ResolveFlag::empty())
        .map_err(|errno| Refusal::about(&STAT_DIRECTORY, b"/", errno.desc()))?;
    let mut so_far: Vec<u8> = Vec::new();
    let mut facts = check_directory(&here, b"/", uid)?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let inside = so_far.len() >= docroot.len();
        so_far.push(b'/');
        so_far.extend(part);
        let fence = if inside { ResolveFlag::RESOLVE_NO_XDEV } else { ResolveFlag::empty() };
        here = open(&here, part, fence).map_err(|errno| match errno {
            Errno::ELOOP => Refusal::about(&LINK, &so_far, "is a symbolic link"),
            Errno::EXDEV => Refusal::about(&MOUNT, &so_far, "is another file system below the docroot"),
            other => Refusal::about(&STAT_DIRECTORY, &so_far, other.desc()),
        })?;
        facts = check_directory(&here, &so_far, uid)?;
    }
    Ok((here, facts))
}

fn check_directory(directory: &OwnedFd, path: &[u8], uid: u32) -> Result<FileStat, Refusal> {
    let facts = fstat(directory).map_err(|errno| Refusal::about(&STAT_DIRECTORY, path, errno.desc()))?;
    if facts.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(Refusal::about(&STAT_DIRECTORY, path, "is no directory"));
    }
    if facts.st_uid != 0 && facts.st_uid != uid {
        return Err(Refusal::about(&FOREIGN, path, &format!("belongs to uid {}", facts.st_uid)));
    }
    if facts.st_mode & 0o022 != 0 {
        let why = format!("is writable by others ({:04o})", facts.st_mode & 0o7777);
        return Err(Refusal::about(&DIRECTORY_WRITABLE, path, &why));
    }
    Ok(facts)
}

/// The file itself, in suEXEC's order: V117 to V121, with V05 and V06 where suEXEC does not look.
fn program(
    directory: &OwnedFd,
    path: &[u8],
    name: &OsStr,
    (uid, site): (u32, &Site<'_>),
    folder: &FileStat,
) -> Result<(), Refusal> {
    let full = [path, b"/", name.as_bytes()].concat();
    let file = open(directory, name.as_bytes(), ResolveFlag::RESOLVE_NO_XDEV).map_err(|errno| {
        Refusal::about(
            &PROGRAM,
            &full,
            if errno == Errno::ELOOP { "is a symbolic link" } else { errno.desc() },
        )
    })?;
    let facts = fstat(&file).map_err(|errno| Refusal::about(&PROGRAM, &full, errno.desc()))?;
    let mode = format!("({:04o})", facts.st_mode & 0o7777);
    if facts.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Refusal::about(&KIND, &full, "is no regular file"));
    }
    if facts.st_mode & 0o022 != 0 {
        return Err(Refusal::about(&WRITABLE, &full, &format!("is writable by others {mode}")));
    }
    if facts.st_mode & 0o6000 != 0 {
        return Err(Refusal::about(&SET_ID, &full, &format!("has a set-id bit {mode}")));
    }
    let owners = [(facts.st_uid, facts.st_gid), (folder.st_uid, folder.st_gid)];
    if owners != [(uid, site.identity.gid); 2] {
        let why = format!(
            "owners are {}:{} (file) and {}:{} (directory), not {uid}:{}",
            facts.st_uid, facts.st_gid, folder.st_uid, folder.st_gid, site.identity.gid
        );
        return Err(Refusal::about(&OWNER, &full, &why));
    }
    if facts.st_nlink > 1 && !site.hard_links {
        return Err(Refusal::about(&LINKS, &full, "has more than one hard link"));
    }
    if facts.st_mode & 0o100 == 0 {
        return Err(Refusal::about(&EXECUTABLE, &full, &format!("is not executable {mode}")));
    }
    Ok(())
}

fn open(directory: impl std::os::fd::AsFd, name: &[u8], more: ResolveFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
    openat2(directory, name, how)
}

static CWD: Card = Card {
    code: "V111",
    status: 111,
    remedy: "let the site's user search every directory above the program",
};
static STAT_DIRECTORY: Card = Card { code: "V115", status: 115, remedy: "ls -ld {}" };
static DIRECTORY_WRITABLE: Card = Card { code: "V116", status: 116, remedy: "chmod go-w {}" };
static PROGRAM: Card = Card { code: "V117", status: 117, remedy: "ls -l {}" };
static WRITABLE: Card = Card { code: "V118", status: 118, remedy: "chmod go-w {}" };
static SET_ID: Card = Card { code: "V119", status: 119, remedy: "chmod ug-s {}" };
static OWNER: Card = Card {
    code: "V120",
    status: 120,
    remedy: "chown the file and its directory to the site's user and group: {}",
};
static EXECUTABLE: Card = Card { code: "V121", status: 121, remedy: "chmod u+x {}" };
static FOREIGN: Card = Card { code: "V01", status: 86, remedy: "chown root {}" };
static LINK: Card =
    Card { code: "V02", status: 86, remedy: "name the real directory as docroot instead of {}" };
static MOUNT: Card =
    Card { code: "V03", status: 86, remedy: "add {} to the site's `docroot` and run: cellwall apply" };
static MOVED: Card = Card { code: "V04", status: 86, remedy: "ask again: {} changed while it was looked at" };
static KIND: Card = Card { code: "V05", status: 86, remedy: "put a regular file at {}" };
static LINKS: Card =
    Card { code: "V06", status: 86, remedy: "cp -p {0} {0}.new && mv {0}.new {0}, where {0} is {}" };
