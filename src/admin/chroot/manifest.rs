//! What was copied into a chroot, and from what: a file of root's inside it, one line a path, fields parted by tabs.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Copied, Selection, Thing};

/// Its name in the chroot.
pub const NAME: &str = ".cellwall-jail";

const FIRST_LINE: &str = "cellwall-jail 1";

/// One chroot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What it is for.
    pub selection: Selection,
    /// What is in it. The text of a [`Thing::Text`] is not kept.
    pub things: BTreeMap<PathBuf, Thing>,
}

impl Manifest {
    /// Of a chroot; none: no build made it.
    ///
    /// # Errors
    /// It cannot be read, is not root's alone, or is none.
    pub fn of(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join(NAME);
        let facts = match fs::symlink_metadata(&path) {
            Ok(facts) => facts,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        if !facts.is_file() || facts.uid() != 0 || facts.mode() & 0o022 != 0 {
            return Err(format!("{} is no file of root's alone", path.display()));
        }
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::decode(&text).map(Some).map_err(|line| format!("{}:{line}: is no such line", path.display()))
    }

    /// As text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        let Selection { sites, pieces, programs } = &self.selection;
        sites.iter().for_each(|site| text.push_str(&format!("site\t{site}\n")));
        pieces.iter().for_each(|piece| text.push_str(&format!("piece\t{piece}\n")));
        programs.iter().for_each(|program| text.push_str(&format!("program\t{}\n", program.display())));
        for (path, thing) in &self.things {
            let path = path.display();
            text.push_str(&match thing {
                Thing::Directory => format!("directory\t{path}\n"),
                Thing::Link(target) => format!("link\t{path}\t{}\n", target.display()),
                Thing::Copy(Copied { source, size, modified, mode }) => {
                    format!("copy\t{path}\t{size}\t{modified}\t{mode:o}\t{}\n", source.display())
                }
                Thing::Device(number) => format!("device\t{path}\t{number}\n"),
                Thing::Text(_) => format!("text\t{path}\n"),
                Thing::Own { uid, gid, mode } => format!("own\t{path}\t{uid}\t{gid}\t{mode:o}\n"),
            });
        }
        text
    }

    /// From text.
    ///
    /// # Errors
    /// The number of a line that is none.
    pub fn decode(text: &str) -> Result<Self, usize> {
        let mut lines = text.lines().zip(1_usize..);
        if lines.next().is_none_or(|(line, _)| line != FIRST_LINE) {
            return Err(1);
        }
        let mut manifest = Self::default();
        for (line, number) in lines {
            manifest.line(line).ok_or(number)?;
        }
        Ok(manifest)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        let thing = match fields.as_slice() {
            ["site", name] => {
                self.selection.sites.insert((*name).to_owned());
                return Some(());
            }
            ["piece", name] => {
                self.selection.pieces.insert((*name).to_owned());
                return Some(());
            }
            ["program", path] => {
                self.selection.programs.insert(PathBuf::from(path));
                return Some(());
            }
            ["directory", _] => Thing::Directory,
            ["link", _, target] => Thing::Link(PathBuf::from(target)),
            ["copy", _, size, modified, mode, source] => Thing::Copy(Copied {
                source: PathBuf::from(source),
                size: size.parse().ok()?,
                modified: modified.parse().ok()?,
                mode: u32::from_str_radix(mode, 8).ok()?,
            }),
            ["device", _, number] => Thing::Device(number.parse().ok()?),
            ["text", _] => Thing::Text(String::new()),
            ["own", _, uid, gid, mode] => Thing::Own {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                mode: u32::from_str_radix(mode, 8).ok()?,
            },
            _ => return None,
        };
        let path = PathBuf::from(fields.get(1)?);
        plain(&path).then(|| drop(self.things.insert(path, thing)))
    }

    /// What is no longer as it was when it was copied, on either side: the path inside, and how it differs. Looks at
    /// sizes, times and modes, and opens nothing.
    #[must_use]
    pub fn stale(&self, directory: &Path) -> Vec<(PathBuf, &'static str)> {
        let differs = |(path, thing): (&PathBuf, &Thing)| {
            let inside = directory.join(path.strip_prefix("/").ok()?);
            let why = match thing {
                Thing::Copy(copied) => copied.differs(&inside),
                Thing::Link(text) => {
                    let now = |path: &Path| fs::read_link(path).ok();
                    // A link of the host that is gone is none of the chroot's: its target is told.
                    let host = now(path).is_some_and(|now| now != *text);
                    match now(&inside) {
                        None => Some(GONE),
                        Some(now) if now != *text => Some(CHANGED),
                        Some(_) => host.then_some(OLDER),
                    }
                }
                Thing::Device(_) | Thing::Text(_) | Thing::Directory | Thing::Own { .. } => {
                    fs::symlink_metadata(&inside).is_err().then_some(GONE)
                }
            };
            why.map(|why| (path.clone(), why))
        };
        self.things.iter().filter_map(differs).collect()
    }
}

impl Copied {
    /// As the file is on the host now; none: not a file.
    #[must_use]
    pub fn now(source: &Path, facts: &Metadata) -> Option<Self> {
        let mode = if facts.mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        facts.is_file().then(|| Self {
            source: source.to_owned(),
            size: facts.size(),
            modified: modified(facts),
            mode,
        })
    }

    fn differs(&self, inside: &Path) -> Option<&'static str> {
        let same = |facts: &Metadata| {
            facts.is_file() && facts.size() == self.size && modified(facts) == self.modified
        };
        let Ok(copy) = fs::symlink_metadata(inside) else { return Some(GONE) };
        if !same(&copy) || copy.uid() != 0 || copy.mode() & 0o7777 != self.mode {
            return Some(CHANGED);
        }
        match fs::symlink_metadata(&self.source) {
            Err(_) => Some("is no longer on the system"),
            Ok(host) if !same(&host) => Some(if modified(&host) < self.modified { OTHER } else { OLDER }),
            Ok(_) => None,
        }
    }
}

/// Nanoseconds since 1970.
fn modified(facts: &Metadata) -> i64 {
    facts.mtime().saturating_mul(1_000_000_000).saturating_add(facts.mtime_nsec())
}

/// What the list can hold, and what leads nowhere else: absolute, in letters, without `..` and line breaks.
#[must_use]
pub fn plain(path: &Path) -> bool {
    let text = path.to_str().unwrap_or("");
    text.len() > 1
        && text.starts_with('/')
        && !text.contains(['\t', '\n', '\r'])
        && text.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
}

const OLDER: &str = "is older than the system's";
const OTHER: &str = "is not the system's";
const CHANGED: &str = "was changed in the jail";
const GONE: &str = "is gone from the jail";

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Manifest {
        let mut manifest = Manifest::default();
        manifest.selection.sites.insert("shop".to_owned());
        manifest.selection.pieces.insert("tz".to_owned());
        manifest.selection.programs.insert("/usr/bin/x y".into());
        let copied = Copied { source: "/usr/bin/msmtp".into(), size: 7, modified: -5, mode: 0o755 };
        let things = [
            ("/bin", Thing::Link("usr/bin".into())),
            ("/dev/null", Thing::Device(259)),
            ("/etc/passwd", Thing::Text(String::new())),
            ("/tmp", Thing::Own { uid: 0, gid: 0, mode: 0o1777 }),
            ("/usr", Thing::Directory),
            ("/usr/sbin/sendmail", Thing::Copy(copied)),
        ];
        manifest.things.extend(things.map(|(path, thing)| (path.into(), thing)));
        manifest
    }

    #[test]
    fn what_was_written_is_read_back() {
        assert_eq!(Manifest::decode(&whole().encode()), Ok(whole()));
    }

    #[test]
    fn a_line_that_is_none_is_told_and_a_path_may_not_lead_out() {
        for line in
            ["", "copy\t/x", "directory\t../etc", "directory\t/a/../../etc", "link\tx\ty", "own\t/x\t0\t0\t9"]
        {
            assert_eq!(Manifest::decode(&format!("{FIRST_LINE}\nsite\ta\n{line}\n")), Err(3), "{line}");
        }
        assert_eq!(Manifest::decode("cellwall-jail 2\n"), Err(1));
    }
}
