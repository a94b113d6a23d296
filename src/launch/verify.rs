//! Is the program what it should be? Runs as the site's own uid.
//!
//! Decides on descriptors, in suEXEC's order, then looks at what the kernel would say at exec.
//! Refuses with V04–V07, V111–V121, A03, and with those of [`super::walk`] and [`super::interpreter`].
//! May not: keep a path as proof; wait for anything.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::{AccessFlags, access, chdir};

use crate::policy::{Handler, Links, Site};
use crate::refusal::{Card, Pasted, Refusal};
use crate::sys::files;

use super::arrival::Arrival;
use super::authorize::{Target, is_beneath, outside};
use super::confine::{Dropped, Facts};
use super::interpreter::{self, First, OWNERS};
use super::jail::Inside;
use super::request::Request;
use super::walk::{Follow, MEND, Reached, Rules, climb, walk};

/// A program that passed.
#[must_use]
#[derive(Debug)]
pub struct Verified<'a> {
    pub(super) uid: u32,
    pub(super) site: &'a Site<'a>,
    pub(super) inside: Inside<'a>,
    pub(super) facts: Facts,
    /// The script's directory, held; none: the working directory stays.
    pub(super) directory: Option<OwnedFd>,
    pub(super) start: Start,
    /// The words of the new program, its own name first.
    pub(super) words: Vec<CString>,
    /// The directory and the file's name, for the record.
    pub(super) shown: (Vec<u8>, Vec<u8>),
    /// The file that php-cgi is to run, where php-cgi it is.
    pub(super) php: Option<Vec<u8>>,
    /// A command of the administrator's, at a terminal perhaps.
    pub(super) by_administrator: bool,
}

/// What execve gets.
#[derive(Debug)]
pub(super) enum Start {
    /// A name of one component in [`Verified::directory`], whose entries only its owner and root can change.
    Name(CString),
    /// A path on which root owns everything.
    Path(CString),
}

/// What a look at the program found.
struct Found {
    directory: Option<OwnedFd>,
    start: Start,
    words: Vec<CString>,
    shown: (Vec<u8>, Vec<u8>),
    php: Option<Vec<u8>>,
}

impl<'a> Dropped<'a> {
    /// Looks at the program with the site's eyes.
    ///
    /// # Errors
    /// As the module says.
    pub fn verify(self, arrival: &Arrival<'_>) -> Result<Verified<'a>, Refusal> {
        arrival.in_time("confine")?;
        let Self { uid, site, target, inside, facts } = self;
        let by_administrator = matches!(target, Target::Command(_));
        let found = match target {
            Target::Script { docroot, request } => script((uid, site), &inside, docroot, request, arrival),
            Target::Program { request } => program(&inside, request, arrival),
            Target::Command(words) => command(site, &inside, words),
        };
        let Found { directory, start, words, shown, php } =
            found.map_err(|refusal| named(refusal, uid, site))?;
        Ok(Verified { uid, site, inside, facts, directory, start, words, shown, php, by_administrator })
    }
}

/// A remedy for the site's tree names the site, or whose files they are.
pub(super) fn named(refusal: Refusal, uid: u32, site: &Site<'_>) -> Refusal {
    let Refusal { fix, .. } = &refusal;
    let fix = if fix.starts_with(TREE) {
        // A path that a record cannot hold is found with all others.
        let lost = fix.contains("\\x") || fix.contains("[cut]");
        let fix = if lost { TREE } else { fix };
        fix.replacen("SITE", &Pasted(site.name).to_string(), 1)
    } else if let Some(command) = fix.strip_prefix(OWNERS) {
        let (uid, gid) = (site.owner(uid).to_string(), site.identity.gid.to_string());
        OWNERS.replace("UID", &uid).replace("GID", &gid) + command
    } else {
        return refusal;
    };
    Refusal { fix, ..refusal }
}

/// How [`MEND`] begins.
const TREE: &str = "cellwall fix --apply SITE";

fn script(
    (uid, site): (u32, &Site<'_>),
    inside: &Inside<'_>,
    docroot: &[u8],
    request: &Request<'_>,
    arrival: &Arrival<'_>,
) -> Result<Found, Refusal> {
    let reached = working_directory(arrival, inside, (uid, site), inside.path(docroot))?;
    let full = [&reached.path, &b"/"[..], request.command].concat();
    let (held, file) = file(&reached, request.command, &full)?;
    check(&file, &reached.facts, (uid, site), &full)?;
    let shown = (reached.path.clone(), request.command.to_vec());
    let handler = site.handlers.iter().find(|handler| request.command.ends_with(handler.suffix));
    let (start, words, php) = match handler {
        Some(handler) => handled(handler, full)?,
        None => {
            executable(&file, uid, &full)?;
            drop(held);
            native((uid, site), &reached, request, arrival, full)?
        }
    };
    Ok(Found { directory: Some(reached.held), start, words, shown, php })
}

/// What is started, its words, and the file that php-cgi is to run.
type Run = (Start, Vec<CString>, Option<Vec<u8>>);

/// An interpreter of the policy's. It gets the path that was verified, and no word of the request: words of the query
/// string would be options to it (CVE-2012-1823).
fn handled(handler: &Handler<'_>, full: Vec<u8>) -> Result<Run, Refusal> {
    let Some((program, fixed)) = handler.command.split_first() else {
        return Err(Refusal::about(&PROGRAM, handler.suffix, "has an empty handler"));
    };
    let php = interpreter::trusted(program, &[], 0)?;
    let words = std::iter::once(program).chain(fixed).map(|word| text(word));
    let mut words = words.collect::<Result<Vec<_>, _>>()?;
    if !php {
        words.push(text(&full)?);
    }
    Ok((Start::Path(text(program)?), words, php.then_some(full)))
}

/// The file itself: compiled, or with a `#!` line that the kernel reads.
fn native(
    (uid, site): (u32, &Site<'_>),
    reached: &Reached,
    request: &Request<'_>,
    arrival: &Arrival<'_>,
    full: Vec<u8>,
) -> Result<Run, Refusal> {
    let first = interpreter::look(&reached.held, request.command, &full)?;
    let php = match first {
        First::Script(program, php) => {
            interpreter::trusted(&program, &site.interpreters, site.owner(uid))? || php
        }
        _ => false,
    };
    // What php-cgi finds among its words are options; mod_fcgid's words are not the visitor's.
    let words = words(request, !php || arrival.fastcgi)?;
    Ok((Start::Name(text(request.command)?), words, php.then_some(full)))
}

/// The program's name, and the request's words where it is to have them.
fn words(request: &Request<'_>, all: bool) -> Result<Vec<CString>, Refusal> {
    let arguments = request.arguments.iter().filter(|_| all);
    std::iter::once(&request.command).chain(arguments).map(|word| text(word)).collect()
}

/// A program of root's, named by the policy, all the way up root's.
fn program(inside: &Inside<'_>, request: &Request<'_>, arrival: &Arrival<'_>) -> Result<Found, Refusal> {
    let (_, directory) = held(arrival)?;
    let full = [inside.path(directory), b"/", request.command].concat();
    let php = interpreter::trusted(&full, &[], 0)?;
    Ok(Found {
        directory: None,
        start: Start::Path(text(&full)?),
        // A visitor's words are options to php-cgi (CVE-2012-1823); mod_fcgid's words are the administrator's.
        words: words(request, !php || arrival.fastcgi)?,
        shown: (inside.path(directory).to_vec(), request.command.to_vec()),
        php: None,
    })
}

/// The administrator's own words, started from the site's first docroot.
fn command(site: &Site<'_>, inside: &Inside<'_>, words: Vec<CString>) -> Result<Found, Refusal> {
    let home = site.docroots.first().map_or(&b"/"[..], |docroot| inside.path(docroot));
    if chdir(home).is_err() {
        chdir(c"/").map_err(|errno| Refusal::call(&CWD, "chdir", errno))?;
    }
    let name = words.first().map(|word| word.as_bytes().to_vec()).unwrap_or_default();
    let path = find(site, &name).ok_or_else(|| Refusal {
        fix: "# install it, or name it in `execute` of the site's [files], then: cellwall apply".to_owned(),
        ..Refusal::about(&PROGRAM, &name, "is not there, inside the cell")
    })?;
    let shown = path.strip_prefix(b"/").map_or((home.to_vec(), name), |whole| (Vec::new(), whole.to_vec()));
    Ok(Found { directory: None, start: Start::Path(text(&path)?), words, shown, php: None })
}

/// By the site's own PATH, as its shell would.
fn find(site: &Site<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let runs = |path: &[u8]| access(path, AccessFlags::X_OK).is_ok();
    if name.contains(&b'/') {
        return runs(name).then(|| name.to_vec());
    }
    let path = site
        .environment
        .set
        .iter()
        .find(|(variable, _)| *variable == b"PATH")
        .map_or(&b"/usr/bin"[..], |set| set.1);
    path.split(|byte| *byte == b':').map(|directory| [directory, b"/", name].concat()).find(|full| runs(full))
}

/// The working directory, walked to from the root of the cell and found to be the same one that was held on arrival.
fn working_directory(
    arrival: &Arrival<'_>,
    inside: &Inside<'_>,
    (uid, site): (u32, &Site<'_>),
    docroot: &[u8],
) -> Result<Reached, Refusal> {
    let (outer, path) = held(arrival)?;
    let owner = site.owner(uid);
    if inside.hides_host() {
        climb(outer, path, owner)?;
    }
    let path = inside.path(path);
    let mut fence = docroot.to_vec();
    if !is_beneath(path, docroot) {
        // The docroot leads through links of the site's: where it ends is where the site is today.
        let follow = if site.links == Links::OwnerMatch { Follow::Match(owner) } else { Follow::None };
        fence = walk(docroot, Rules { owner, follow, fence: b"" })?.path;
        if !is_beneath(path, &fence) {
            return Err(outside(path, uid));
        }
    }
    let reached = walk(path, Rules { owner, follow: Follow::None, fence: &fence })?;
    let before = fstat(outer).map_err(|errno| Refusal::call(&CWD, "fstat", errno))?;
    if (before.st_dev, before.st_ino) == (reached.facts.st_dev, reached.facts.st_ino) {
        Ok(reached)
    } else {
        Err(Refusal::about(&MOVED, path, "is another directory inside the jail than outside"))
    }
}

fn held<'a>(arrival: &'a Arrival<'_>) -> Result<(&'a OwnedFd, &'a [u8]), Refusal> {
    match &arrival.directory {
        Ok((held, path)) => Ok((held, path)),
        Err(errno) => Err(Refusal::call(&CWD, "getcwd", *errno)),
    }
}

fn file(directory: &Reached, name: &[u8], full: &[u8]) -> Result<(OwnedFd, FileStat), Refusal> {
    let held =
        files::hold(&directory.held, name, ResolveFlag::RESOLVE_NO_XDEV).map_err(|errno| match errno {
            Errno::ELOOP => Refusal::about(&PROGRAM, full, "is a symbolic link"),
            Errno::EXDEV => Refusal::about(&PROGRAM, full, "is mounted here from elsewhere"),
            other => Refusal::about(&PROGRAM, full, other.desc()),
        })?;
    let facts = fstat(&held).map_err(|errno| Refusal::about(&PROGRAM, full, errno.desc()))?;
    Ok((held, facts))
}

/// V118 to V120 as suEXEC has them, and V05, V06 where suEXEC does not look.
fn check(
    file: &FileStat,
    folder: &FileStat,
    (uid, site): (u32, &Site<'_>),
    full: &[u8],
) -> Result<(), Refusal> {
    let refuse =
        |card, why: &str| Err(Refusal::about(card, full, &format!("{why} ({:04o})", file.st_mode & 0o7777)));
    if file.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Refusal::about(&KIND, full, "is no regular file"));
    }
    if file.st_mode & 0o022 != 0 {
        return refuse(&FILE_WRITABLE, "is writable by others");
    }
    if file.st_mode & 0o6000 != 0 {
        return refuse(&SET_ID, "has a set-id bit");
    }
    belongs(file, folder, (site.owner(uid), site.identity.gid), full)?;
    if file.st_nlink > 1 && !site.hard_links {
        return Err(Refusal::about(&HARD_LINKS, full, &format!("has {} hard links", file.st_nlink)));
    }
    Ok(())
}

/// V121. The owner's bit counts for a program of the site's own, the group's for one of its code owner.
fn executable(file: &FileStat, uid: u32, full: &[u8]) -> Result<(), Refusal> {
    let bit = if file.st_uid == uid { 0o100 } else { 0o010 };
    if file.st_mode & bit != 0 {
        return Ok(());
    }
    let why = format!("is not executable ({:04o})", file.st_mode & 0o7777);
    Err(Refusal::about(&EXECUTABLE, full, &why))
}

/// V120.
fn belongs(file: &FileStat, folder: &FileStat, want: (u32, u32), full: &[u8]) -> Result<(), Refusal> {
    let above = full.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
    let (mut whys, mut words) = (Vec::new(), Vec::new());
    for (what, path, facts) in [("the file", full, file), ("its directory", above, folder)] {
        let have = (facts.st_uid, facts.st_gid);
        if have != want {
            whys.push(format!("{what} belongs to {}:{}", have.0, have.1));
            words.push(Pasted(path).to_string());
        }
    }
    if whys.is_empty() {
        return Ok(());
    }
    let why = format!("{}, not to {}:{}", whys.join(", "), want.0, want.1);
    Err(Refusal { fix: MEND.replace("{}", &words.join(" ")), ..Refusal::about(&OWNER, full, &why) })
}

/// A request's bytes have no NUL in them: they were C strings.
pub(super) fn text(bytes: &[u8]) -> Result<CString, Refusal> {
    CString::new(bytes).map_err(|_| Refusal::about(&PROGRAM, bytes, "has a NUL in it"))
}

/// Opens a regular file of the site's for reading, without waiting for anything.
pub(super) fn open_for_reading(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    files::open_plain(
        directory,
        name,
        OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        ResolveFlag::empty(),
    )
}

static CWD: Card = Card {
    code: "V111",
    status: 111,
    remedy: "# let the site's user search every directory above the program",
};
static PROGRAM: Card = Card { code: "V117", status: 117, remedy: "ls -l {}" };
static FILE_WRITABLE: Card = Card { code: "V118", status: 118, remedy: MEND };
static SET_ID: Card = Card { code: "V119", status: 119, remedy: MEND };
static OWNER: Card = Card { code: "V120", status: 120, remedy: MEND };
static EXECUTABLE: Card = Card { code: "V121", status: 121, remedy: MEND };
static MOVED: Card = Card { code: "V04", status: 86, remedy: "cellwall apply" };
static KIND: Card = Card { code: "V05", status: 86, remedy: "# put a regular file at {}" };
static HARD_LINKS: Card = Card {
    code: "V06",
    status: 86,
    remedy: "cellwall fix --apply SITE {} # or set hard_links = true in the site's file",
};

#[cfg(test)]
mod tests {
    use nix::sys::stat::stat;

    use super::*;
    use crate::policy::tests::site;

    const UID: u32 = 1001;
    const DEPLOYS: u32 = 1002;
    const GID: u32 = 1001;

    fn facts(uid: u32, gid: u32, mode: u32, links: u64) -> FileStat {
        let mut facts = stat("/").unwrap();
        (facts.st_uid, facts.st_gid, facts.st_mode, facts.st_nlink) = (uid, gid, mode, links);
        facts
    }

    fn code<T>(result: Result<T, Refusal>) -> &'static str {
        result.map_or_else(|refusal| refusal.card.code, |_| "ok")
    }

    /// Each alone: what is wrong with a file, and what is said of it.
    #[test]
    fn a_file_that_others_could_have_made_what_it_is_is_refused() {
        let mut own = site();
        own.identity.code_owner = None;
        let folder = facts(UID, GID, libc::S_IFDIR | 0o755, 2);
        for (uid, gid, mode, links, told) in [
            (UID, GID, libc::S_IFREG | 0o755, 1, "ok"),
            (UID, GID, libc::S_IFREG | 0o400, 1, "ok"),
            (UID, GID, libc::S_IFDIR | 0o755, 1, "V05"),
            (UID, GID, libc::S_IFIFO | 0o755, 1, "V05"),
            (UID, GID, libc::S_IFREG | 0o775, 1, "V118"),
            (UID, GID, libc::S_IFREG | 0o757, 1, "V118"),
            (UID, GID, libc::S_IFREG | 0o4755, 1, "V119"),
            (UID, GID, libc::S_IFREG | 0o2755, 1, "V119"),
            (0, GID, libc::S_IFREG | 0o755, 1, "V120"),
            (UID, 0, libc::S_IFREG | 0o755, 1, "V120"),
            (UID, GID, libc::S_IFREG | 0o755, 2, "V06"),
        ] {
            let file = facts(uid, gid, mode, links);
            let seen = check(&file, &folder, (UID, &own), b"/srv/www/shop/a.cgi");
            assert_eq!(code(seen), told, "{uid}:{gid} {mode:o} {links}");
        }
        own.hard_links = true;
        let file = facts(UID, GID, libc::S_IFREG | 0o755, 2);
        assert_eq!(code(check(&file, &folder, (UID, &own), b"/srv/a")), "ok", "the site's file permits it");
    }

    #[test]
    fn a_directory_counts_as_its_program_does_and_the_remedy_names_what_is_wrong() {
        let good = facts(UID, GID, libc::S_IFREG | 0o755, 1);
        for (uid, gid) in [(0, GID), (UID, 0)] {
            let refusal = belongs(&good, &facts(uid, gid, 0, 1), (UID, GID), b"/srv/a/b.cgi").unwrap_err();
            assert_eq!(refusal.card.code, "V120");
            assert_eq!(refusal.fix, "cellwall fix --apply SITE /srv/a");
            assert!(
                refusal.why.contains(&format!("its directory belongs to {uid}:{gid}")),
                "{}",
                refusal.why
            );
        }
    }

    /// One account deploys, another runs (`code_owner`): of a program of the former's the group's bit counts.
    #[test]
    fn a_deployed_program_is_the_deployers_and_is_run_by_its_group() {
        let deployed = site();
        let folder = facts(DEPLOYS, GID, libc::S_IFDIR | 0o755, 2);
        for (uid, told) in [(DEPLOYS, "ok"), (UID, "V120")] {
            let file = facts(uid, GID, libc::S_IFREG | 0o755, 1);
            assert_eq!(code(check(&file, &folder, (UID, &deployed), b"/srv/a")), told, "{uid}");
        }
        for (uid, mode, told) in [
            (UID, 0o700, "ok"),
            (UID, 0o610, "V121"),
            (UID, 0o601, "V121"),
            (DEPLOYS, 0o710, "ok"),
            (DEPLOYS, 0o610, "ok"),
            (DEPLOYS, 0o700, "V121"),
        ] {
            let file = facts(uid, GID, libc::S_IFREG | mode, 1);
            assert_eq!(code(executable(&file, UID, b"/srv/a")), told, "{uid} {mode:o}");
        }
    }

    #[test]
    fn a_visitors_words_are_left_out_where_they_would_be_options() {
        let texts = [&b"1001"[..], b"1001", b"a.php", b"-d", b"x=y"].map(|word| {
            use std::os::unix::ffi::OsStrExt as _;
            std::ffi::OsStr::from_bytes(word)
        });
        let request = Request::parse(&texts).unwrap();
        assert_eq!(words(&request, true).unwrap(), [c"a.php", c"-d", c"x=y"]);
        assert_eq!(words(&request, false).unwrap(), [c"a.php"]);
    }
}
