//! A chroot's directory, held: everything in it is reached from there without a link and without leaving it. Root.
//!
//! The directory is root's all the way, but parts of what is in it are the site's, which may rename and link while root
//! works. A file is written beside its place and renamed into it: who runs the old one keeps it whole.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, ResolveFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, futimens, mkdirat, mknodat, umask};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat};

use crate::config::ground::is_everybodys;
use crate::launch::walk::{Follow, Rules, walk};
use crate::sys::files;

use super::super::alone::Alone;
use super::{Copied, Thing};

/// A chroot, held and locked.
#[derive(Debug)]
pub struct Place {
    top: OwnedFd,
    _alone: Alone,
}

/// How something that is there compares with what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// Nothing is there.
    Missing,
    /// It is what is wanted.
    Same,
    /// It is something else that can be replaced.
    Other,
    /// It is a directory where none is wanted, or one of somebody's where root's is wanted.
    Solid,
}

/// A byte of it for each chroot that is worked at.
const ALONE: &str = "/run/cellwall-jail.lock";

const ROOTS: Rules<'_> = Rules { owner: 0, follow: Follow::None, fence: b"" };

/// The directory that new files have until they are whole; only root's directories ever have one.
const HALF: &str = ".cellwall-half";

impl Place {
    /// Holds a directory that is root's alone, all the way; `make`: it is made if only its last part is missing.
    ///
    /// # Errors
    /// It is not there, not root's alone, or somebody else is at work.
    pub fn open(directory: &Path, make: bool) -> Result<Self, String> {
        let bytes = directory.as_os_str().as_bytes();
        let refused = |refusal: crate::refusal::Refusal| {
            // No site's tree: only root can put another directory in the place of the first one that is not right.
            let own = refusal.fix.strip_prefix("cellwall fix --apply SITE ");
            let open = directory.ancestors().find(|above| is_everybodys(above));
            let help = match open {
                Some(open) => {
                    Some(format!("take one like /srv/jails/NAME: all may write to {}", open.display()))
                }
                None => own.map(|path| format!("run: chown -h root {path} && chmod go-w {path}")),
            };
            format!("{}\n  help: {}", refusal.why, help.unwrap_or(refusal.fix))
        };
        let failed = |errno: Errno| format!("{}: {}", directory.display(), errno.desc());
        // Modes are as they are written here.
        umask(Mode::empty());
        if make {
            let above = directory.parent().unwrap_or(Path::new("/"));
            let held = walk(above.as_os_str().as_bytes(), ROOTS).map_err(refused)?.held;
            match mkdirat(&held, directory.file_name().unwrap_or_default(), mode(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        let top = walk(bytes, ROOTS).map_err(refused)?.held;
        let alone = Alone::at(ALONE, fstat(&top).map_err(failed)?.st_ino);
        let alone = alone.map_err(|why| format!("{ALONE}: {why}"))?;
        let alone = alone.ok_or_else(|| format!("somebody else is at work in {}", directory.display()))?;
        Ok(Self { top, _alone: alone })
    }

    /// What stands at a path, beside what should.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn is(&self, path: &Path, wanted: &Thing) -> io::Result<Is> {
        let Some((above, name)) = self.above(path)? else { return Ok(Is::Missing) };
        let facts = match fstatat(&above, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(facts) => facts,
            Err(Errno::ENOENT) => return Ok(Is::Missing),
            Err(errno) => return Err(errno.into()),
        };
        let kind = facts.st_mode & libc::S_IFMT;
        let roots = facts.st_uid == 0 && facts.st_mode & 0o022 == 0;
        let same = match wanted {
            Thing::Own { .. } => kind == libc::S_IFDIR,
            Thing::Directory if kind == libc::S_IFDIR => return Ok(if roots { Is::Same } else { Is::Solid }),
            Thing::Directory => false,
            Thing::Link(text) => kind == libc::S_IFLNK && readlinkat(&above, name)? == *text.as_os_str(),
            Thing::Device(number) => {
                kind == libc::S_IFCHR && facts.st_rdev == *number && facts.st_mode & 0o7777 == 0o666
            }
            Thing::Text(text) => roots && self.reads(&above, name, text.as_bytes(), &facts)?,
            Thing::Copy(copied) => same_facts(&facts, copied) && self.equals(&above, name, &copied.source)?,
        };
        Ok(match (same, kind) {
            (true, _) => Is::Same,
            (false, libc::S_IFDIR) => Is::Solid,
            (false, _) => Is::Other,
        })
    }

    /// The same size and time as when it was copied: nobody has written to it since.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn untouched(&self, path: &Path, thing: &Thing) -> io::Result<bool> {
        let Some((above, name)) = self.above(path)? else { return Ok(false) };
        let facts = fstatat(&above, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(match thing {
            Thing::Copy(copied) => same_facts(&facts, copied),
            Thing::Link(text) => readlinkat(&above, name).is_ok_and(|now| now == *text.as_os_str()),
            Thing::Directory | Thing::Device(_) | Thing::Text(_) => facts.st_uid == 0,
            Thing::Own { .. } => false,
        })
    }

    /// Makes it, in the place of what was there.
    ///
    /// # Errors
    /// Of the file system; what was there is there still.
    pub fn put(&self, path: &Path, thing: &Thing) -> io::Result<()> {
        let gone = || io::Error::from_raw_os_error(libc::ENOENT);
        let (above, name) = self.above(path)?.ok_or_else(gone)?;
        match thing {
            Thing::Directory => mkdirat(&above, name, mode(0o755))?,
            Thing::Own { uid, gid, mode: rights } => {
                mkdirat(&above, name, mode(0o700))?;
                let open = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                let made = files::open_plain(&above, name.as_bytes(), open, ResolveFlag::RESOLVE_BENEATH)?;
                fchown(&made, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
                File::from(made).set_permissions(Permissions::from_mode(*rights))?;
            }
            Thing::Link(text) => whole(&above, name, || Ok(symlinkat(text.as_path(), &above, HALF)?))?,
            Thing::Device(number) => {
                whole(&above, name, || Ok(mknodat(&above, HALF, SFlag::S_IFCHR, mode(0o666), *number)?))?;
            }
            Thing::Text(text) => write(&above, name, &mut text.as_bytes(), 0o644, None)?,
            Thing::Copy(copied) => {
                let mut source = open_source(&copied.source)?;
                let facts = source.metadata()?;
                if Copied::now(&copied.source, &facts).as_ref() != Some(copied) {
                    return Err(io::Error::other("it changed meanwhile; run it again"));
                }
                write(&above, name, &mut source, copied.mode, Some(copied.modified))?;
            }
        }
        Ok(())
    }

    /// Writes a file of root's.
    ///
    /// # Errors
    /// Of the file system.
    pub fn keep(&self, name: &str, text: &str) -> io::Result<()> {
        write(&self.top, name.as_ref(), &mut text.as_bytes(), 0o600, None)
    }

    /// Removes it. A directory that is not empty stays.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remove(&self, path: &Path, thing: &Thing) -> io::Result<()> {
        let Some((above, name)) = self.above(path)? else { return Ok(()) };
        let flag = match thing {
            Thing::Directory | Thing::Own { .. } => UnlinkatFlags::RemoveDir,
            _ => UnlinkatFlags::NoRemoveDir,
        };
        match unlinkat(&above, name, flag) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EBUSY) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The directory that a path is in, and its name there. None: that directory is not there.
    fn above<'p>(&self, path: &'p Path) -> io::Result<Option<(OwnedFd, &'p std::ffi::OsStr)>> {
        let wrong = || io::Error::from_raw_os_error(libc::EINVAL);
        let name = path.file_name().ok_or_else(wrong)?;
        let above = path.parent().and_then(|above| above.strip_prefix("/").ok()).ok_or_else(wrong)?;
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match files::hold(&self.top, above.as_os_str().as_bytes(), ResolveFlag::RESOLVE_BENEATH) {
            Ok(held) => Ok(Some((held, name))),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP) => Err(io::Error::other("a link stands in the way to it")),
            Err(errno) => Err(errno.into()),
        }
    }

    fn reads(
        &self,
        above: &OwnedFd,
        name: &std::ffi::OsStr,
        text: &[u8],
        facts: &FileStat,
    ) -> io::Result<bool> {
        if facts.st_mode & libc::S_IFMT != libc::S_IFREG
            || facts.st_size != i64::try_from(text.len()).unwrap_or(0)
        {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        open_file(above, name)?.read_to_end(&mut bytes)?;
        Ok(bytes == text)
    }

    /// Byte by byte: a copy that was tampered with has whatever size and time it likes.
    fn equals(&self, above: &OwnedFd, name: &std::ffi::OsStr, source: &Path) -> io::Result<bool> {
        let (mut one, mut other) = (open_file(above, name)?, open_source(source)?);
        let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
        loop {
            let (here, there) = (fill(&mut one, &mut left)?, fill(&mut other, &mut right)?);
            if left.get(..here) != right.get(..there) {
                return Ok(false);
            }
            if here == 0 {
                return Ok(true);
            }
        }
    }
}

/// Under another name first: what has this one is whole.
fn write(
    above: &OwnedFd,
    name: &std::ffi::OsStr,
    from: &mut impl Read,
    rights: u32,
    modified: Option<i64>,
) -> io::Result<()> {
    whole(above, name, || {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(above, HALF, flags, mode(0o600))?);
        io::copy(from, &mut file)?;
        file.flush()?;
        file.set_permissions(Permissions::from_mode(rights))?;
        if let Some(modified) = modified {
            let (seconds, rest) = (modified.div_euclid(1_000_000_000), modified.rem_euclid(1_000_000_000));
            let time = TimeSpec::new(seconds, rest);
            futimens(&file, &time, &time)?;
        }
        Ok(())
    })
}

/// Makes it under the other name, then gives it this one. What could not be made whole is taken away: on a full disk it would have
/// the room that whoever comes next needs.
fn whole(above: &OwnedFd, name: &std::ffi::OsStr, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    half(above)?;
    let made = make().and_then(|()| Ok(renameat(above, HALF, above, name)?));
    if made.is_err() {
        drop(half(above));
    }
    made
}

/// A file of the copy's own.
fn open_file(above: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    Ok(File::from(files::open_plain(above, name.as_bytes(), flags, ResolveFlag::RESOLVE_BENEATH)?))
}

/// A file of the host's, by its path without links.
fn open_source(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    Ok(File::from(files::open_plain(AT_FDCWD, path.as_os_str().as_bytes(), flags, ResolveFlag::empty())?))
}

const BLOCK: usize = 65_536;

fn fill(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut full = 0;
    while let Some(rest) = block.get_mut(full..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => full += count,
        }
    }
    Ok(full)
}

fn same_facts(facts: &FileStat, copied: &Copied) -> bool {
    let modified = facts.st_mtime.saturating_mul(1_000_000_000).saturating_add(facts.st_mtime_nsec);
    facts.st_mode == libc::S_IFREG | copied.mode
        && facts.st_uid == 0
        && u64::try_from(facts.st_size) == Ok(copied.size)
        && modified == copied.modified
}

/// Removes what a run that was ended left.
fn half(above: &OwnedFd) -> io::Result<()> {
    match unlinkat(above.as_fd(), HALF, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}
