//! By the policy: may this caller have this identity, here? Root; looks at nothing but the account and the
//! site file's age.
//!
//! Refuses with P01–P04, P103–P121, in suEXEC's order.

use std::ffi::CString;

use crate::policy::read::Unreadable;
use crate::policy::{Links, Record, Site};
use crate::refusal::{Card, Refusal, Untrusted};

use super::account;
use super::arrival::Arrival;
use super::request::Request;

/// A request that the policy allows.
#[must_use]
#[derive(Debug)]
pub struct Authorized<'a> {
    pub(super) uid: u32,
    pub(super) site: &'a Site<'a>,
    pub(super) target: Target<'a>,
    /// The site's file is younger than its record.
    pub(super) stale: bool,
}

/// What is to be started.
#[derive(Debug)]
pub(super) enum Target<'a> {
    /// A file of the site's in the working directory, beneath this docroot.
    Script { docroot: &'a [u8], request: &'a Request<'a> },
    /// A program of root's that the policy names, in the working directory.
    Program { request: &'a Request<'a> },
    /// A command of the administrator's.
    Command(Vec<CString>),
}

impl<'a> Request<'a> {
    /// In suEXEC's order: caller, uid, gid, directory.
    ///
    /// # Errors
    /// As the module says.
    pub fn authorize(
        &'a self,
        arrival: &Arrival<'_>,
        policy: &'a Record<'a>,
    ) -> Result<Authorized<'a>, Refusal> {
        let (site, target) = self.target(arrival, policy)?;
        account::same(policy, site)?;
        Ok(Authorized { uid: policy.uid, site, target, stale: is_stale(site) })
    }

    /// By the policy alone: by whose rules, and what is to be started.
    pub(super) fn target(
        &'a self,
        arrival: &Arrival<'_>,
        policy: &'a Record<'a>,
    ) -> Result<(&'a Site<'a>, Target<'a>), Refusal> {
        let host = &policy.host;
        if !host.callers.contains(&arrival.caller.0) {
            return Err(Refusal::new(&CALLER, format!("uid {} is not the web server's", arrival.caller.0)));
        }
        if self.uid != policy.uid {
            return Err(bad_policy(&format!("it is for uid {}", policy.uid)));
        }
        if self.uid == 0 || self.uid < host.uid_min {
            return Err(Refusal::new(&UID, format!("uid {} is root's or below {}", self.uid, host.uid_min)));
        }
        if self.gid == 0 || self.gid < host.gid_min {
            return Err(Refusal::new(&GID, format!("gid {} is root's or below {}", self.gid, host.gid_min)));
        }
        let directory = match &arrival.directory {
            Ok((_, path)) => path.as_slice(),
            Err(errno) => return Err(Refusal::call(&DIRECTORY, "the working directory", *errno)),
        };
        let mut sites = policy.sites.iter().filter(|site| site.userdir == self.userdir).peekable();
        if sites.peek().is_none() {
            let fix = if self.userdir { NO_USERDIR } else { NO_FILE };
            let why = format!("uid {} has no site for this kind of request", self.uid);
            return Err(Refusal { fix: fix.to_owned(), ..Refusal::new(&OUTSIDE, why) });
        }
        let mut sites = sites.filter(|site| site.identity.gid == self.gid).peekable();
        if sites.peek().is_none() {
            return Err(Refusal::new(&PAIR, format!("no site of uid {} has gid {}", self.uid, self.gid)));
        }
        self.choose(sites, directory)
    }

    /// The site with a docroot above the directory; or one that names the program itself; or, where a docroot leads
    /// through links of the site's, the one that shares the longest way: the walk will prove it.
    fn choose(
        &'a self,
        sites: impl Iterator<Item = &'a Site<'a>> + Clone,
        directory: &[u8],
    ) -> Result<(&'a Site<'a>, Target<'a>), Refusal> {
        let roots = || sites.clone().flat_map(|site| site.docroots.iter().map(move |root| (site, *root)));
        let script =
            |(site, docroot): (&'a Site<'a>, &'a [u8])| (site, Target::Script { docroot, request: self });
        if let Some(found) =
            roots().filter(|(_, root)| is_beneath(directory, root)).max_by_key(|(_, root)| root.len())
        {
            return Ok(script(found));
        }
        let program = [directory, b"/", self.command].concat();
        if let Some(site) = sites.clone().find(|site| site.programs.iter().any(|named| *named == program)) {
            return Ok((site, Target::Program { request: self }));
        }
        let linked = roots().filter(|(site, _)| site.links == Links::OwnerMatch);
        if let Some(found) = linked.max_by_key(|(_, root)| shared_components(directory, root)) {
            return Ok(script(found));
        }
        Err(outside(directory, self.uid))
    }
}

impl<'a> Authorized<'a> {
    /// The administrator may have any site's cell, for any command.
    ///
    /// # Errors
    /// P03.
    pub fn by_administrator(
        policy: &'a Record<'a>,
        site: &'a Site<'a>,
        command: Vec<CString>,
    ) -> Result<Self, Refusal> {
        account::same(policy, site)?;
        let stale = is_stale(site);
        Ok(Self { uid: policy.uid, site, target: Target::Command(command), stale })
    }

    /// By whose rules.
    #[must_use]
    pub fn site(&self) -> &'a Site<'a> {
        self.site
    }
}

/// By component, never as text: `/srv/ab` is not beneath `/srv/a` (CVE-2007-1742).
pub(crate) fn is_beneath(path: &[u8], root: &[u8]) -> bool {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn shared_components(one: &[u8], other: &[u8]) -> usize {
    let parts = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    parts(one).zip(parts(other)).take_while(|(one, other)| one == other).count()
}

pub(super) fn outside(directory: &[u8], uid: u32) -> Refusal {
    Refusal::about(&OUTSIDE, directory, &format!("no site of uid {uid} has a docroot here"))
}

fn is_stale(site: &Site<'_>) -> bool {
    let path = site.source.path;
    if path.is_empty() {
        return false;
    }
    nix::sys::stat::stat(path).map_or(true, |facts| {
        let seconds = u64::try_from(facts.st_mtime).unwrap_or(0);
        let part = u64::try_from(facts.st_mtime_nsec).unwrap_or(0);
        seconds.wrapping_mul(1_000_000_000).wrapping_add(part) != site.source.modified
    })
}

/// No record for a uid that was asked for. `minimum`: the smallest that could have one.
#[must_use]
pub fn no_policy(uid: u32, minimum: u32) -> Refusal {
    if uid == 0 || uid < minimum {
        return Refusal::new(&UID, format!("uid {uid} is root's or below {minimum}"));
    }
    Refusal::new(&NO_POLICY, format!("no policy names uid {uid}"))
}

/// A record that is there and cannot be read, or is not to be trusted.
#[must_use]
pub fn unreadable(why: &Unreadable) -> Refusal {
    match why {
        Unreadable::Way(path, what) => Refusal::about(&OPEN_WAY, path.as_bytes(), what),
        other => bad_policy(other),
    }
}

/// A record that was read and says nothing that can be used.
#[must_use]
pub fn bad_policy(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        &BAD_POLICY,
        format!("the policy record cannot be used: {}", Untrusted(why.to_string().as_bytes())),
    )
}

/// A caller whom the host file does not name, where no record says more.
#[must_use]
pub fn wrong_caller(caller: u32) -> Refusal {
    Refusal::new(&CALLER, format!("uid {caller} is not the web server's"))
}

static CALLER: Card = Card {
    code: "P103",
    status: 103,
    remedy: "# name the web server's user as `caller` in /etc/cellwall/cellwall.toml, then: cellwall apply",
};
static UID: Card = Card { code: "P107", status: 107, remedy: "# run the site as an ordinary user" };
static GID: Card = Card { code: "P108", status: 108, remedy: "# give the site an ordinary group" };
static DIRECTORY: Card = Card { code: "P111", status: 111, remedy: "# make the program's directory again" };
static OUTSIDE: Card = Card {
    code: "P114",
    status: 114,
    remedy: "# name {} as `docroot` of a site in /etc/cellwall/sites.d, then: cellwall apply",
};
/// The remedy where the user has sites of the other kind alone.
const NO_USERDIR: &str =
    "# write enabled = true in [userdir] of /etc/cellwall/cellwall.toml, then: cellwall apply";
const NO_FILE: &str = "# write a site file in /etc/cellwall/sites.d for this user, then: cellwall apply";
static NO_POLICY: Card = Card { code: "P121", status: 121, remedy: NO_FILE };
static BAD_POLICY: Card = Card { code: "P01", status: 83, remedy: "cellwall apply" };
static OPEN_WAY: Card = Card { code: "P04", status: 83, remedy: "chown root {} && chmod go-w {}" };
static PAIR: Card = Card {
    code: "P02",
    status: 83,
    remedy: "# make `group` of the site and SuexecUserGroup of its virtual host the same, then: cellwall apply",
};

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;
    use crate::policy::tests;

    #[test]
    fn a_sibling_directory_with_the_same_prefix_is_outside() {
        assert!(is_beneath(b"/srv/a/b", b"/srv/a"));
        assert!(is_beneath(b"/srv/a", b"/srv/a"));
        assert!(is_beneath(b"/srv/a", b"/"));
        assert!(!is_beneath(b"/srv/ab", b"/srv/a"));
        assert!(!is_beneath(b"/srv", b"/srv/a"));
    }

    #[test]
    fn ways_are_compared_by_component() {
        assert_eq!(shared_components(b"/srv/shop/releases/1", b"/srv/shop/current"), 3);
        assert_eq!(shared_components(b"/srv/shopping", b"/srv/shop"), 2);
    }

    /// Two sites of one uid, the second one beneath the first, and a third one of another kind.
    fn policy() -> Record<'static> {
        let mut policy = tests::record();
        let mut inner = tests::site();
        (inner.name, inner.docroots) = (b"inner", vec![&b"/srv/www/shop/inner"[..]]);
        inner.links = Links::Deny;
        let mut home = tests::site();
        (home.name, home.docroots, home.userdir) = (b"home", vec![&b"/home/shop/public_html"[..]], true);
        let mut other = tests::site();
        (other.name, other.docroots, other.identity.gid) = (b"other", vec![&b"/srv/www/other"[..]], 1005);
        (other.programs, other.links) = (vec![], Links::Deny);
        policy.sites.extend([inner, home, other]);
        policy
    }

    /// The site whose rules count and what is started, or the code of the refusal.
    fn chosen(policy: &Record<'_>, caller: u32, words: [&str; 3], directory: &[u8]) -> String {
        let words = words.map(|word| OsStr::from_bytes(word.as_bytes()));
        let request = Request::parse(&words).unwrap();
        let mut arrival = Arrival::as_if((caller, caller), Vec::new());
        arrival.directory = arrival.directory.map(|(held, _)| (held, directory.to_vec()));
        match request.target(&arrival, policy) {
            Ok((site, Target::Script { docroot, .. })) => {
                format!("{} {}", String::from_utf8_lossy(site.name), String::from_utf8_lossy(docroot))
            }
            Ok((site, _)) => format!("{} program", String::from_utf8_lossy(site.name)),
            Err(refusal) => refusal.card.code.to_owned(),
        }
    }

    #[test]
    fn who_calls_for_whom_and_where_decides_by_whose_rules() {
        let policy = policy();
        let own = ["1001", "1001", "a.cgi"];
        for (caller, words, directory, told) in [
            (33, own, "/srv/www/shop/cgi", "shop /srv/www/shop"),
            (33, own, "/srv/www/shop/inner/cgi", "inner /srv/www/shop/inner"),
            (33, own, "/srv/www/shop/innermost", "shop /srv/www/shop"),
            (33, ["~1001", "1001", "a.cgi"], "/home/shop/public_html", "home /home/shop/public_html"),
            (33, ["1001", "1005", "a.cgi"], "/srv/www/other/cgi", "other /srv/www/other"),
            (33, ["1001", "1005", "a.cgi"], "/srv/www/shop", "P114"),
            (33, ["1001", "1001", "php-cgi"], "/usr/bin", "shop program"),
            (33, own, "/srv/www/releases/42", "shop /srv/www/shop"),
            (33, ["1001", "1006", "a.cgi"], "/srv/www/shop", "P02"),
            (34, own, "/srv/www/shop", "P103"),
            (33, ["1002", "1001", "a.cgi"], "/srv/www/shop", "P01"),
            (33, ["1001", "0", "a.cgi"], "/srv/www/shop", "P108"),
            (33, ["1001", "999", "a.cgi"], "/srv/www/shop", "P108"),
        ] {
            let seen = chosen(&policy, caller, words, directory.as_bytes());
            assert_eq!(seen, told, "{caller} {words:?} {directory}");
        }
        let mut kindless = policy.clone();
        kindless.sites.retain(|site| !site.userdir);
        assert_eq!(chosen(&kindless, 33, ["~1001", "1001", "a"], b"/srv/www/shop"), "P114");
    }

    /// Whatever a record says of the smallest numbers.
    #[test]
    fn root_is_never_whom_to_become() {
        for (uid, gid, least, told) in [
            ("0", "1001", 0, "P107"),
            ("999", "1001", 1000, "P107"),
            ("1000", "1001", 1000, "shop /srv/www/shop"),
            ("1000", "0", 0, "P108"),
        ] {
            let mut policy = policy();
            policy.uid = uid.parse().unwrap();
            (policy.host.uid_min, policy.host.gid_min) = (least, least);
            assert_eq!(chosen(&policy, 33, [uid, gid, "a.cgi"], b"/srv/www/shop"), told, "{uid}:{gid}");
        }
        for (uid, least, told) in [(0, 0, "P107"), (999, 1000, "P107"), (1000, 1000, "P121")] {
            assert_eq!(no_policy(uid, least).card.code, told);
        }
    }

    #[test]
    fn a_site_is_stale_when_its_file_is_another_than_the_one_that_was_read() {
        let facts = nix::sys::stat::stat("/etc/passwd").unwrap();
        let seconds = u64::try_from(facts.st_mtime).unwrap() * 1_000_000_000;
        let modified = seconds + u64::try_from(facts.st_mtime_nsec).unwrap();
        for (path, modified, stale) in [
            (&b"/etc/passwd"[..], modified, false),
            (b"/etc/passwd", modified + 1, true),
            (b"/there/is/none", modified, true),
            (b"", modified, false),
        ] {
            let site = Site { source: crate::policy::Source { path, modified }, ..tests::site() };
            assert_eq!(is_stale(&site), stale, "{path:?}");
        }
    }
}
