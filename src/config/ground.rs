//! The file system under a policy: what a path really is, and where on its way it stops being root's.
//!
//! Answers are kept: thousands of sites name the same system paths. Links that root made are followed as the kernel
//! would follow them; nothing is followed below the first component that is not root's, for its owner may change it
//! at any time.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::compile::pasted;
use super::looks;
use super::reader::nearest;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A character or block device.
    Device,
    /// A socket or a pipe.
    Channel,
    /// A symbolic link that was not followed, because it is not root's or goes round in circles.
    Link,
    /// Nothing.
    Missing,
    /// The caller, who is not root, may not look.
    Hidden,
}

/// A path after its walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path without links, as far as they were followed.
    pub real: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Links that were followed: where each stands, and its text.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// The first component that is not root's, and its owner.
    pub foreign: Option<(PathBuf, u32)>,
    /// The deepest directory that exists.
    pub nearest: PathBuf,
    /// The first of root's directories on the way that others may write to, and its mode.
    pub open: Option<(PathBuf, u32)>,
}

impl Found {
    /// Root's links lead back to themselves: nothing is there, and a launch follows none.
    #[must_use]
    pub fn goes_round(&self) -> bool {
        self.kind == Kind::Link && self.foreign.is_none()
    }
}

/// What was looked at so far.
#[derive(Debug, Default)]
pub struct Ground {
    // By bytes: a path is hashed component by component, which is slow.
    found: HashMap<OsString, Arc<Found>>,
    looked: HashMap<OsString, Look>,
}

#[derive(Debug, Clone)]
struct Look {
    kind: Kind,
    owner: u32,
    mode: u32,
    text: Option<PathBuf>,
}

impl Ground {
    /// Walks to `path`, which is absolute, below `root` (`/` for the host itself).
    pub fn find(&mut self, root: &Path, path: &Path) -> Arc<Found> {
        let inside = root != Path::new("/");
        let key = if inside { root.join(relative(path)).into_os_string() } else { OsString::new() };
        let key = if inside { key.as_os_str() } else { path.as_os_str() };
        if let Some(found) = self.found.get(key) {
            return Arc::clone(found);
        }
        let found = Arc::new(self.walk(root, path));
        // What lies in a site's own tree is asked for once and would only fill the memory.
        if found.foreign.is_none() {
            self.found.insert(key.to_owned(), Arc::clone(&found));
        }
        found
    }

    fn walk(&mut self, root: &Path, path: &Path) -> Found {
        let mut rest: VecDeque<OsString> = parts(path).collect();
        let mut found = Found {
            real: PathBuf::from("/"),
            kind: Kind::Directory,
            links: Vec::new(),
            foreign: None,
            nearest: PathBuf::from("/"),
            open: None,
        };
        while let Some(part) = rest.pop_front() {
            let next = found.real.join(&part);
            let Some(look) = self.look(&root.join(relative(&next))) else {
                found.kind = Kind::Missing;
                found.nearest.clone_from(&found.real);
                found.real = next;
                found.real.extend(rest);
                return found;
            };
            if look.owner != 0 {
                found.foreign = Some((next.clone(), look.owner));
                return within(root, found, next, rest);
            }
            if let Some(text) = look.text {
                if found.links.len() == 40 {
                    return Found { kind: Kind::Link, real: next, ..found };
                }
                let target = plain(&found.real.join(&text));
                found.links.push((next, text));
                found.real = PathBuf::from("/");
                rest = parts(&target).chain(rest).collect();
                continue;
            }
            if look.kind == Kind::Directory && look.mode & 0o1000 == 0 && look.mode & 0o022 != 0 {
                found.open.get_or_insert((next.clone(), look.mode & 0o7777));
            }
            found.kind = look.kind;
            found.real = next;
            if look.kind == Kind::Hidden {
                found.real.extend(rest);
                found.nearest.clone_from(&found.real);
                return found;
            }
            if !rest.is_empty() && look.kind != Kind::Directory {
                found.kind = Kind::Missing;
                found.nearest = found.real.parent().unwrap_or(Path::new("/")).to_owned();
                found.real.extend(rest);
                return found;
            }
        }
        found.nearest.clone_from(&found.real);
        found
    }

    /// The first directory above a path that is there for all to write to: what lies in it may be anybody's.
    pub fn shared_above(&mut self, path: &Path) -> Option<PathBuf> {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for directory in above.into_iter().rev() {
            let look = self.look(directory)?;
            if look.kind == Kind::Directory && look.mode & 0o1002 == 0o1002 {
                return Some(directory.to_owned());
            }
            if look.owner != 0 {
                return None;
            }
        }
        None
    }

    fn look(&mut self, path: &Path) -> Option<Look> {
        if let Some(look) = self.looked.get(path.as_os_str()) {
            return Some(look.clone());
        }
        let look = looked_at(path);
        // A foreign directory is asked for once, its root-owned parents again and again.
        if let Some(look) = look.as_ref().filter(|look| look.owner == 0) {
            self.looked.insert(path.into(), look.clone());
        }
        look
    }

    /// All paths that match `pattern`, whose components may hold `*`. Only root's directories are listed.
    pub fn expand(&mut self, pattern: &Path) -> Vec<PathBuf> {
        let mut matches = vec![PathBuf::from("/")];
        let mut any = false;
        for part in parts(pattern) {
            let Some(text) = part.to_str().filter(|text| text.contains('*')) else {
                matches.iter_mut().for_each(|path| path.push(&part));
                continue;
            };
            any = true;
            matches = matches.iter().flat_map(|directory| self.children(directory, text)).collect();
        }
        // What follows a pattern need not be in each directory that it fits.
        matches.retain(|path| {
            let found = self.find(Path::new("/"), path);
            !any || found.kind != Kind::Missing
        });
        matches.sort();
        matches
    }

    fn children(&mut self, directory: &Path, pattern: &str) -> Vec<PathBuf> {
        let found = self.find(Path::new("/"), directory);
        if found.foreign.is_some() || found.kind != Kind::Directory {
            return Vec::new();
        }
        let entries = std::fs::read_dir(&found.real).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| matches(pattern, name)).map(|name| directory.join(name)).collect()
    }
}

/// What has the nearest name in a directory.
#[must_use]
pub fn near(place: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(place).ok()?.flatten().take(LOOKED_AT);
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    nearest(name, names.iter().map(String::as_str)).map(|name| place.join(name))
}

/// Names of a directory that are looked at.
pub const LOOKED_AT: usize = 5000;

/// Whether a directory is there for all to write to, as /tmp is: nobody is told to take that away.
#[must_use]
pub fn is_everybodys(directory: &Path) -> bool {
    let known = ["/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/lock"];
    let sticky = |facts: Metadata| facts.mode() & 0o1002 == 0o1002;
    known.iter().any(|known| directory == Path::new(known)) || directory.symlink_metadata().is_ok_and(sticky)
}

/// What to do about a directory that others than root may write to.
#[must_use]
pub fn closing(directory: &Path) -> String {
    if is_everybodys(directory) {
        let shown = directory.display();
        return format!(
            "{shown} is there for everybody to write to: name no other directory than one of root's"
        );
    }
    format!("run: chmod go-w {}", pasted(directory))
}

/// Whether `name` is `pattern`, where `*` stands for any text; a leading dot must be written.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut pieces = pattern.split('*');
    let Some(rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Removes `.` and `..` from an absolute path whose parents are no links.
#[must_use]
pub fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => drop(out.pop()),
            Component::Normal(part) => out.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        _ => None,
    })
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// From the first foreign component on nothing is followed.
fn within(root: &Path, mut found: Found, first: PathBuf, rest: VecDeque<OsString>) -> Found {
    found.real = first;
    found.real.extend(rest);
    found.nearest.clone_from(&found.real);
    while looked_at(&root.join(relative(&found.nearest))).is_none() && found.nearest.pop() {}
    found.kind = if found.nearest == found.real {
        looked_at(&root.join(relative(&found.real))).map_or(Kind::Missing, |look| look.kind)
    } else {
        Kind::Missing
    };
    found
}

fn looked_at(path: &Path) -> Option<Look> {
    let metadata = match looks::at(path, || std::fs::symlink_metadata(path)) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Some(Look { kind: Kind::Hidden, owner: 0, mode: 0, text: None });
        }
        Err(_) => return None,
    };
    let kind = kind(&metadata);
    let text = if kind == Kind::Link { std::fs::read_link(path).ok() } else { None };
    Some(Look { kind, owner: metadata.uid(), mode: metadata.mode(), text })
}

fn kind(metadata: &Metadata) -> Kind {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        Kind::File
    } else if kind.is_symlink() {
        Kind::Link
    } else if kind.is_char_device() || kind.is_block_device() {
        Kind::Device
    } else {
        Kind::Channel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_but_a_leading_dot() {
        for (pattern, name, fits) in [
            ("python3*", "python3.11", true),
            ("*", "x", true),
            ("*", ".hidden", false),
            ("a*b*c", "a-b-c", true),
            ("a*b", "ab", true),
            ("a*b", "abx", false),
            ("ab", "abc", false),
            ("*.toml", "x.toml.bak", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_path_through_a_link_names_the_link_and_the_real_place() {
        let found = Ground::default().find(Path::new("/"), Path::new("/proc/self/mounts"));
        assert!(
            found.links.iter().any(|(place, text)| place == Path::new("/proc/self") && text.is_relative())
        );
        assert_eq!(Ground::default().find(Path::new("/"), Path::new("/no/such")).nearest, Path::new("/"));
    }
}
