//! A path of the host as a site meets it: does a rule cover it, would the modes allow it, may it be proposed, and which
//! named piece has it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::ground as host;
use crate::config::problem::Problems;
use crate::config::profiles::{Kind, all, load};
use crate::config::store;
use crate::policy::{Jail, PathRule, Site, StepKind, decode};
use crate::refusal::{Pasted, Untrusted};

/// A site, as far as paths matter to it.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Its rules.
    pub site: &'a Site<'a>,
    /// Whom it runs as.
    pub uid: u32,
    /// Users from here on are people and sites.
    pub uid_min: u32,
}

impl Ground<'_> {
    /// Some rule gives these rights ([`PathRule`]) beneath `path`, by one of its two names.
    #[must_use]
    pub fn covers(&self, path: &Path, rights: u8) -> bool {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.site.landlock.rules.iter().any(|rule| {
            let place = Path::new(OsStr::from_bytes(rule.path));
            rule.rights & rights == rights && (path.starts_with(place) || real.starts_with(place))
        }) && (self.visible(path) || self.visible(&real))
    }

    /// The name that a rule must cover: of what a link in a place of a rule's leads out of it to, its own. That link is there in
    /// the cell, and leads nowhere.
    #[must_use]
    pub fn meant(&self, path: &Path) -> PathBuf {
        let Some(real) = fs::canonicalize(path).ok().filter(|_| self.visible(path)) else {
            return path.to_owned();
        };
        let leads_out = |place: &Path| {
            let inside = path != place && path.starts_with(place);
            inside && fs::canonicalize(place).is_ok_and(|place| !real.starts_with(place))
        };
        let mut places = self.site.landlock.rules.iter().map(|rule| Path::new(OsStr::from_bytes(rule.path)));
        if places.any(leads_out) { real } else { path.to_owned() }
    }

    /// The command that gives the site a place to write which a service has: `apply` takes none that is neither root's nor the
    /// site's. None: it is theirs, or nobody's to give away by its name.
    #[must_use]
    pub fn given(&self, place: &Path) -> Option<String> {
        let owner = fs::symlink_metadata(place).ok()?.uid();
        let foreign = owner != 0 && owner != self.uid && owner < self.uid_min;
        let safe = self.hand(place.parent()?).is_some_and(|hand| hand.is_empty());
        let (user, group, word) = (self.uid, self.site.identity.gid, Pasted(place.as_os_str().as_bytes()));
        (foreign && safe).then(|| format!("chown -h --from={owner} {user}:{group} {word}"))
    }

    /// Is it there at all? A rule of a view may stand for a directory that has but some of the host's files in it.
    fn visible(&self, path: &Path) -> bool {
        let Jail::View(view) = &self.site.jail else { return true };
        // A link shows nothing by itself: what is behind it has a name of its own.
        view.steps.iter().filter(|step| step.kind != StepKind::Link).any(|step| {
            let target = Path::new(OsStr::from_bytes(step.target));
            path.starts_with(target) || target.starts_with(path)
        })
    }

    /// Beneath something of the site's own in that place (`jail.private`, memory), which is not the host's.
    #[must_use]
    pub fn private(&self, path: &Path) -> bool {
        let Jail::View(view) = &self.site.jail else { return false };
        view.steps.iter().any(|step| {
            let own = step.kind == StepKind::Memory
                || matches!(step.kind, StepKind::BindDirectory | StepKind::BindFile)
                    && step.source != step.target;
            own && path.starts_with(OsStr::from_bytes(step.target))
        })
    }

    /// One of a program's own descriptors by a name that a view has only beside /proc: bash's `<(…)`.
    #[must_use]
    pub fn names_descriptor(&self, path: &Path) -> bool {
        let Jail::View(view) = &self.site.jail else { return false };
        let shown = view.steps.iter().any(|step| step.kind == StepKind::Processes);
        !shown && path.starts_with("/dev/fd")
    }

    /// The cell has it, be it as a directory on the way to something else.
    #[must_use]
    pub fn shows(&self, path: &Path) -> bool {
        let mut rules = self.site.landlock.rules.iter().map(|rule| Path::new(OsStr::from_bytes(rule.path)));
        rules.any(|rule| path.starts_with(rule) || rule.starts_with(path)) || self.visible(path)
    }

    /// Beneath a docroot or the home.
    #[must_use]
    pub fn own(&self, path: &Path) -> bool {
        let home = self.site.identity.home;
        let places = self.site.docroots.iter().copied().chain((!home.is_empty()).then_some(home));
        places.into_iter().any(|place| path.starts_with(OsStr::from_bytes(place)))
    }

    /// The first directory or file on the way that the modes close to the site's user, and whether it is the way
    /// (a directory that it may not search) or the end. Access lists are not looked at.
    #[must_use]
    pub fn closed(&self, path: &Path, want: u32) -> Option<(PathBuf, bool)> {
        let mut way: Vec<&Path> = path.ancestors().skip(1).collect();
        way.reverse();
        let search = way.into_iter().find(|directory| self.lacks(directory, 1));
        search
            .map(|directory| (directory.to_owned(), true))
            .or_else(|| self.lacks(path, want).then(|| (path.to_owned(), false)))
    }

    /// The modes do not give these bits (4 read, 2 write, 1 execute).
    fn lacks(&self, path: &Path, want: u32) -> bool {
        let Ok(facts) = fs::metadata(path) else { return false };
        facts.mode() >> self.class(&facts).0 & want != want
    }

    /// Which bits of a mode are the site's: how far they are shifted, and their letter for chmod(1).
    fn class(&self, facts: &fs::Metadata) -> (u32, char) {
        let identity = &self.site.identity;
        if facts.uid() == self.uid {
            (6, 'u')
        } else if facts.gid() == identity.gid || identity.groups.contains(&facts.gid()) {
            (3, 'g')
        } else {
            (0, 'o')
        }
    }

    /// The command that lets the site search a directory.
    #[must_use]
    pub fn searchable(&self, directory: &Path) -> Option<String> {
        let (_, letter) = self.class(&fs::metadata(directory).ok()?);
        let word = Pasted(directory.as_os_str().as_bytes());
        Some(format!("{}chmod {letter}+x {word}", self.hand(directory)?))
    }

    /// With what a command begins that changes `path`: where somebody else than root could put a link in its place, or in that
    /// of a directory above, it is done with the site's own rights. None: it is root's in such a place, or a third one's, who
    /// has more of the kind elsewhere.
    #[must_use]
    pub fn hand(&self, path: &Path) -> Option<String> {
        let found = host::Ground::default().find(Path::new("/"), path);
        if found.foreign.is_none() && found.open.is_none() {
            return Some(String::new());
        }
        let uid = fs::symlink_metadata(path).ok()?.uid();
        let gid = self.site.identity.gid;
        (uid == self.uid).then(|| format!("setpriv --reuid={uid} --regid={gid} --clear-groups "))
    }

    /// Why nobody should open this for a site by a pasted command. None: nothing speaks against it.
    #[must_use]
    pub fn dangerous(&self, path: &Path) -> Option<String> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        for name in [path, real.as_path()] {
            if let Some((_, reason)) = SECRETS.iter().find(|(secret, _)| name.starts_with(secret)) {
                return Some((*reason).to_owned());
            }
            let whole = |parent| ["/", "/var"].contains(&parent) && name != Path::new("/var/www");
            if name.parent().is_none_or(|parent| parent.to_str().is_some_and(whole)) {
                return Some("a whole tree of the host would be opened".to_owned());
            }
            if let Some(reason) = self.holds(name) {
                return Some(reason);
            }
            let ending = name.extension().and_then(OsStr::to_str).unwrap_or_default();
            if matches!(ending, "key" | "p12" | "pfx" | "keytab") {
                return Some("it has the name of a key".to_owned());
            }
        }
        let stranger = real.ancestors().find_map(|above| {
            let owner = fs::symlink_metadata(above).ok()?.uid();
            (owner >= self.uid_min && owner != self.uid && owner != NOBODY).then_some((above, owner))
        });
        stranger
            .map(|(above, owner)| format!("{} belongs to uid {owner}, another site or person", shown(above)))
    }

    /// Why nobody should open this directory: by what is in it. A site's program can ask for any directory, and a rule opens
    /// all beneath.
    fn holds(&self, directory: &Path) -> Option<String> {
        if let Some((secret, reason)) =
            SECRETS.iter().find(|(secret, _)| Path::new(secret).starts_with(directory))
        {
            return Some(format!("{secret} is in it: {reason}"));
        }
        let own = |other: &Other| other.uid == self.uid && other.site.as_bytes() == self.site.name;
        let home = Path::new(OsStr::from_bytes(self.site.identity.home));
        let foreign =
            |other: &&Other| !own(other) && other.place != home && other.place.starts_with(directory);
        if let Some(other) = others().iter().find(foreign) {
            return Some(format!("{} is in it, which is site {}'s", shown(&other.place), other.site));
        }
        let entries = fs::read_dir(directory).ok()?.flatten().take(LOOKED_AT);
        let mut owners = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.uid())));
        let stranger =
            owners.find(|(_, owner)| *owner >= self.uid_min && *owner != self.uid && *owner != NOBODY);
        stranger.map(|(path, owner)| {
            format!("{} is in it, which belongs to uid {owner}, another site or person", shown(&path))
        })
    }
}

/// Any user may have named it.
fn shown(path: &Path) -> String {
    Untrusted(path.as_os_str().as_bytes()).to_string()
}

/// A place of some site's.
#[derive(Debug)]
struct Other {
    uid: u32,
    site: String,
    place: PathBuf,
}

/// The docroots and homes of all sites, where they are and where their links lead. Read once: there may be thousands.
fn others() -> &'static [Other] {
    static ALL: OnceLock<Vec<Other>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::new();
        for uid in store::uids() {
            let bytes = store::read(&uid.to_string()).unwrap_or_default();
            let Ok(record) = decode::record(&bytes) else { continue };
            for site in &record.sites {
                let name = String::from_utf8_lossy(site.name).into_owned();
                for place in site.docroots.iter().copied().chain([site.identity.home]) {
                    let place = Path::new(OsStr::from_bytes(place));
                    let real = fs::canonicalize(place).ok().filter(|real| real != place);
                    let places = [Some(place.to_owned()), real].into_iter().flatten();
                    let other = |place| Other { uid, site: name.clone(), place };
                    all.extend(places.filter(|place| place.is_absolute()).map(other));
                }
            }
        }
        all
    })
}

/// Entries of a directory that are looked at.
const LOOKED_AT: usize = 10_000;

/// Whose nobody's files are.
const NOBODY: u32 = 65534;

/// A program that root put there, and that nobody else can exchange.
#[must_use]
pub fn is_roots_program(path: &Path) -> bool {
    let found = host::Ground::default().find(Path::new("/"), path);
    let runs = |mode: u32| mode & 0o111 != 0 && mode & 0o022 == 0;
    found.kind == host::Kind::File
        && found.foreign.is_none()
        && found.open.is_none()
        && fs::metadata(&found.real).is_ok_and(|facts| runs(facts.mode()))
}

/// The named piece that lists this path, the smallest one; `base` never, which every profile has. With the package that
/// brings it to Debian, when the piece cannot do without the path and the host has it not.
#[must_use]
pub fn piece(path: &Path) -> Option<(String, Option<String>)> {
    let problems = Problems::default();
    let mut found: Vec<(usize, String, Option<String>)> = Vec::new();
    for name in all(Kind::Piece).into_iter().filter(|name| name != "base") {
        let Some(piece) = load(Kind::Piece, &name, &problems) else { continue };
        let rules = &piece.rules;
        let items: Vec<&str> = [&rules.read, &rules.execute, &rules.write, &rules.sockets]
            .into_iter()
            .flat_map(|list| list.items.iter().map(|item| item.value.as_str()))
            .collect();
        let hit = items.iter().find(|item| lists(item, path));
        if let Some(item) = hit {
            let needed = !item.ends_with('?') && !item.split('|').any(|one| Path::new(one).exists());
            let package = needed.then(|| piece.packages.get("debian").cloned()).flatten();
            found.push((items.len(), name, package));
        }
    }
    found.sort();
    found.into_iter().next().map(|(_, name, package)| (name, package))
}

/// `"/a|/b?"`: one of these, or nothing.
fn lists(item: &str, path: &Path) -> bool {
    item.trim_end_matches('?').split('|').any(|one| match one.split_once('*') {
        // A name with a star is a beginning here: which of its matches are there was `apply`'s business.
        Some((beginning, _)) => path.to_str().is_some_and(|path| path.starts_with(beginning)),
        None => path.starts_with(one),
    })
}

/// What no proposal names, and why.
const SECRETS: [(&str, &str); 27] = [
    ("/etc/shadow", "it holds everybody's password hashes"),
    ("/etc/gshadow", "it holds password hashes"),
    ("/etc/shadow-", "it holds everybody's password hashes"),
    ("/etc/sudoers", "it says who may become root"),
    ("/etc/sudoers.d", "it says who may become root"),
    ("/etc/ssh", "it holds the host's keys"),
    ("/etc/ssl/private", "it holds private keys"),
    ("/etc/letsencrypt", "it holds private keys"),
    ("/etc/pki/tls/private", "it holds private keys"),
    ("/etc/cellwall", "it holds the rules of all sites"),
    ("/etc/apache2", "it names every site of the host"),
    ("/etc/httpd", "it names every site of the host"),
    ("/etc/nginx", "it names every site of the host"),
    ("/etc/mysql/debian.cnf", "it holds a password of the database's"),
    ("/var/lib/cellwall", "it holds the rules and private files of all sites"),
    ("/run/cellwall", "it holds the cells and sockets of all sites"),
    ("/var/log", "it holds what other sites and visitors did"),
    ("/var/backups", "it holds copies of accounts"),
    ("/var/spool", "it holds mail and jobs of others"),
    ("/var/mail", "it holds mail of others"),
    ("/root", "it is root's home"),
    ("/boot", "no site needs it"),
    ("/sys", "no site needs the kernel's view of the host"),
    ("/proc", "it shows the host's processes; `jail.processes = true` shows the site its own"),
    ("/dev", "a device is named in `jail.devices`"),
    ("/run/docker.sock", "whoever may use it is root"),
    ("/run/dbus", "it leads to the host's services"),
];

/// What a right is called in `[files]`.
#[must_use]
pub fn list_of(rights: u8) -> &'static str {
    if rights & PathRule::WRITE != 0 {
        "files.write"
    } else if rights & PathRule::EXECUTE != 0 {
        "files.execute"
    } else {
        "files.read"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_by_what_they_list() {
        let name = |path: &str| piece(Path::new(path)).map(|(name, _)| name);
        assert_eq!(name("/usr/share/zoneinfo/Europe/Athens").as_deref(), Some("tz"));
        assert_eq!(name("/etc/resolv.conf").as_deref(), Some("dns"));
        assert_eq!(name("/run/mysqld/mysqld.sock").as_deref(), Some("mysql"));
        assert_eq!(name("/srv/of/nobody"), None);
    }
}
