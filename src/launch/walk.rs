//! A walk from the root, one component at a time, that decides on what it holds.
//!
//! Runs as the site's own uid. Refuses with V01–V03, V115, V116. Fuzzed over random trees.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, ResolveFlag, readlinkat};
use nix::sys::stat::{FileStat, fstat, fstatat};

use crate::refusal::{Card, Pasted, Refusal, Untrusted};
use crate::sys::files;

/// Which links a walk follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// None.
    None,
    /// Root's own: only root can make another of them.
    Roots,
    /// Root's and this uid's.
    Owners(u32),
    /// The same; but where one leads that this uid made, or could have put there, must be this uid's as well.
    Match(u32),
}

/// Whose directories a walk passes through.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Besides root; 0: root alone.
    pub owner: u32,
    /// Which links are followed.
    pub follow: Follow,
    /// Below this path no other mount is crossed; empty: everywhere.
    pub fence: &'a [u8],
}

/// Where a walk ended.
#[derive(Debug)]
pub struct Reached {
    /// The end itself, held.
    pub held: OwnedFd,
    /// What it was when it was reached.
    pub facts: FileStat,
    /// The way without links.
    pub path: Vec<u8>,
}

/// To `path`, absolute. Every directory on the way is an owner's and nobody else can write it; so is the end, if it is a
/// directory.
///
/// # Errors
/// V01 a stranger's, V02 a link, V03 another mount, V115 not there, V116 writable by others.
pub fn walk(path: &[u8], rules: Rules<'_>) -> Result<Reached, Refusal> {
    let mut rest: VecDeque<Vec<u8>> = parts(path).collect();
    let mut here = start(rules)?;
    let (mut links, mut owners) = (0, false);
    while let Some(part) = rest.pop_front() {
        let fence = !rules.fence.is_empty() && here.path.len() >= rules.fence.len();
        let more = if fence { ResolveFlag::RESOLVE_NO_XDEV } else { ResolveFlag::empty() };
        let path = [&here.path, &b"/"[..], &part].concat();
        match files::hold(&here.held, &part, more) {
            Ok(held) => here = passed(held, path, rules)?,
            Err(Errno::ELOOP) => {
                links += 1;
                let (text, owner) = follow(&here.held, &part, &path, rules.follow, links)?;
                // Whoever has the directory can put any link of root's there that he may rename.
                owners |= owner != 0 || here.facts.st_uid != 0;
                if text.starts_with(b"/") {
                    here = start(rules)?;
                }
                rest = parts(&text).chain(rest).collect();
            }
            Err(Errno::EXDEV) => {
                return Err(Refusal::about(&MOUNT, &path, "is another file system below the docroot"));
            }
            // What is asked for permission is the directory that is searched.
            Err(Errno::EACCES) => {
                return Err(Refusal::about(&MISSING, called(&here.path), Errno::EACCES.desc()));
            }
            Err(errno) => return Err(Refusal::about(&MISSING, &path, errno.desc())),
        }
    }
    match rules.follow {
        Follow::Match(uid) if owners && here.facts.st_uid != uid => Err(not_its_own(path, &here)),
        _ => Ok(here),
    }
}

/// A link of the site's to `/` would make of a rule about one directory a rule about everything.
fn not_its_own(path: &[u8], reached: &Reached) -> Refusal {
    let (end, owner) = (called(&reached.path), reached.facts.st_uid);
    let why =
        format!("leads through a link of the site's to {}, which belongs to uid {owner}", Untrusted(end));
    Refusal { fix: ITSELF.replace("{}", &Pasted(end).to_string()), ..Refusal::about(&LINK, path, &why) }
}

/// From a held directory up to the root that it was opened under, by `..`: a view makes the directories above the site
/// anew, and their owners and modes outside count as well.
///
/// # Errors
/// V01, V115, V116, as [`walk`].
pub(super) fn climb(held: &OwnedFd, path: &[u8], owner: u32) -> Result<(), Refusal> {
    let mut name = path;
    let mut way = Vec::with_capacity(path.len());
    while let Some(slash) = name.iter().rposition(|byte| *byte == b'/').filter(|_| name != b"/") {
        let below = name;
        name = name.get(..slash.max(1)).unwrap_or(b"/");
        way.extend_from_slice(if way.is_empty() { b".." } else { b"/.." });
        // What is asked for permission is the directory that `..` stands in. No link can be called so.
        let facts = fstatat(held, way.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| Refusal::about(&MISSING, below, errno.desc()))?;
        judge(&facts, name, owner)?;
    }
    Ok(())
}

fn start(rules: Rules<'_>) -> Result<Reached, Refusal> {
    let root = files::hold_root().map_err(|errno| Refusal::about(&MISSING, b"/", errno.desc()))?;
    passed(root, Vec::new(), rules)
}

fn passed(held: OwnedFd, path: Vec<u8>, rules: Rules<'_>) -> Result<Reached, Refusal> {
    let name = called(&path);
    let facts = fstat(&held).map_err(|errno| Refusal::about(&MISSING, name, errno.desc()))?;
    judge(&facts, name, rules.owner)?;
    Ok(Reached { held, facts, path })
}

/// Is it an owner's, and nobody else's to write? `owner`: besides root.
fn judge(facts: &FileStat, name: &[u8], owner: u32) -> Result<(), Refusal> {
    if facts.st_uid != 0 && facts.st_uid != owner {
        return Err(Refusal::about(&FOREIGN, name, &format!("belongs to uid {}", facts.st_uid)));
    }
    // With an access list the group bits are its mask: a right that a list gives to a stranger shows here as well.
    if facts.st_mode & libc::S_IFMT == libc::S_IFDIR && facts.st_mode & 0o022 != 0 {
        let why = format!("is writable by others ({:04o})", facts.st_mode & 0o7777);
        return Err(Refusal::about(&WRITABLE, name, &why));
    }
    Ok(())
}

/// The way to the root is an empty one.
fn called(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"/" } else { path }
}

/// The text of a link that the rules let pass, and whose it is.
fn follow(
    directory: &OwnedFd,
    part: &[u8],
    path: &[u8],
    rule: Follow,
    links: u32,
) -> Result<(Vec<u8>, u32), Refusal> {
    use std::os::unix::ffi::OsStringExt as _;
    let failed = |errno: Errno| Refusal::about(&MISSING, path, errno.desc());
    let link = files::hold_link(directory, part).map_err(failed)?;
    let owner = fstat(&link).map_err(failed)?.st_uid;
    let allowed = match rule {
        Follow::None => false,
        Follow::Roots => owner == 0,
        Follow::Owners(uid) | Follow::Match(uid) => owner == 0 || owner == uid,
    };
    if !allowed || links > LINKS_MAX {
        return Err(Refusal::about(&LINK, path, &format!("is a symbolic link of uid {owner}")));
    }
    let text = readlinkat(&link, c"").map_err(failed)?.into_vec();
    // `..` would lead out of what was checked; releases are linked as `releases/42`.
    if parts(&text).any(|part| part == b"..") {
        return Err(Refusal::about(&LINK, path, "is a symbolic link with `..` in it"));
    }
    Ok((text, owner))
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

/// For owners, modes and names: it judges what it holds. A `chmod` of a path, pasted later, would change what the site's owner
/// has put there meanwhile: a link to /dev/log.
pub(super) const MEND: &str = "cellwall fix --apply SITE {}";

/// As many as the web server's own `current -> releases/42` needs, and a few of the system's.
const LINKS_MAX: u32 = 8;

pub(super) static MISSING: Card = Card { code: "V115", status: 115, remedy: "ls -ld {}" };
static WRITABLE: Card = Card { code: "V116", status: 116, remedy: MEND };
static FOREIGN: Card = Card { code: "V01", status: 86, remedy: MEND };
static LINK: Card = Card {
    code: "V02",
    status: 86,
    remedy: "# name the real directory behind {} as docroot, or set symlinks = \"owner-match\" in the site's file, then: cellwall apply",
};
/// The remedy where the end of a link is somebody else's.
const ITSELF: &str = "# name {} itself in the site's file, if the site may have it, then: cellwall apply";
static MOUNT: Card = Card {
    code: "V03",
    status: 86,
    remedy: "# name {} as a `docroot` of the site of its own, then: cellwall apply",
};

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;
    use nix::fcntl::AT_FDCWD;

    /// /tmp is everybody's to write: a view that begins below it shows nothing of that, and the way up does.
    #[test]
    fn the_way_up_is_judged_as_the_way_down() {
        let place = std::path::Path::new("/tmp").join(format!("cellwall-climb-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let code = |path: &[u8]| {
            let held = files::hold(AT_FDCWD, path, ResolveFlag::empty()).unwrap();
            climb(&held, path, nix::unistd::getuid().as_raw()).err().map(|refusal| refusal.card.code)
        };
        let below = code(place.as_os_str().as_bytes());
        std::fs::remove_dir(&place).unwrap();
        assert_eq!((below, code(b"/usr/bin"), code(b"/")), (Some("V116"), None, None));
    }
}
