//! Remedies that the launcher cannot know: they need the site's file, other programs of the host, or a second look.
//! Root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::errno::Errno;

use crate::config::ground::{LOOKED_AT, is_everybodys, near};
use crate::config::problem::Problems;
use crate::config::sites::list;
use crate::config::{SITES_DIRECTORY, store};
use crate::policy::{Jail, Links, Record, Resource, VIEW_ROOT, decode};
use crate::refusal::{Pasted, Refusal, Untrusted};
use crate::sys::files::birth;

use super::ground::{Ground, is_roots_program};
use super::installed::group_name;
use super::journal::{self, Entry};
use super::{apache, check, fix, glance, installed, policy, pooled};

/// What mends it: the launcher's own remedy, or a better one.
#[must_use]
pub fn best(entry: &Entry) -> String {
    let better = remedy(entry).or_else(|| plain_remedy(entry)).or_else(|| pooled::remedy(entry));
    let own = || entry.field("fix").map(str::to_owned);
    better.or_else(own).unwrap_or_else(|| format!("cellwall explain {}", entry.field("code").unwrap_or("-")))
}

/// As [`best`], where root is gone and the host cannot be seen any more.
#[must_use]
pub fn from_inside(refusal: &Refusal) -> &str {
    match refusal.card.code {
        "C06" if is_no_mount_point(&refusal.why) => NO_MOUNT_POINT.trim_start_matches("# "),
        _ => refusal.fix.trim_start_matches("# "),
    }
}

/// A command for this refusal. None: the launcher's own remedy is the best that there is.
#[must_use]
pub fn remedy(entry: &Entry) -> Option<String> {
    let (code, why) = (entry.field("code")?, entry.field("why")?);
    let path = &journal::path(why.split(": ").next()?).filter(|path| path.is_absolute())?;
    let word = word(path);
    let site = site(entry);
    let set = |key: &str, value: &str| site.as_ref().map(|site| format!("cellwall set {site} {key} {value}"));
    match code {
        "V117" if why.contains("is a symbolic link") => Some(NO_LINK.to_owned()),
        "V02" if !why.contains("is a symbolic link") => None,
        "V02" if follows_links(entry) => Some(OTHER_LINK.to_owned()),
        "V02" => set("symlinks", "owner-match"),
        "V117" if why.contains("No such file") => beside(path),
        "V117" if why.contains("ermission denied") => search(path.parent()?, entry),
        "V03" | "P114" => harmless(path, entry).and_then(|()| set("docroot", &word)),
        "V08" => None,
        "V11" if handler(entry).is_some() => rehandled(path, entry),
        "V11" => interpreter(path, entry).or_else(|| {
            is_roots_program(path).then_some(())?;
            harmless(path, entry).and_then(|()| set("files.execute", &word))
        }),
        // Its handler alone would leave it without its libraries and php.ini.
        "V12" | "V121" if is_page(path) => set("pieces", "php"),
        "V12" if why.contains("begins neither") => first_line(path, &word, entry),
        "V15" if is_roots_program(path) => set("interpreters", &word),
        "V14" | "V15" => Some(NOT_ROOTS.to_owned()),
        "V01" | "V116" if is_everybodys(path) => Some(format!(
            "# {word} is there for everybody to write to: move the docroot to a place like /srv/www/NAME"
        )),
        "V01" | "V06" | "V07" | "V116" | "V118" | "V119" | "V121" => fixed(&[path], entry),
        "V120" => fixed(&[path.parent()?, path], entry),
        "V111" | "V115" | "S03" if why.contains("ermission denied") => {
            search(path, entry).or_else(|| closed_docroot(uid(entry)?))
        }
        "X02" => missing(path, &word, entry),
        "X255" if why.contains("as many processes") => more_processes(entry),
        "C06" if why.ends_with(Errno::EPERM.desc()) && !may_mount() => set("jail.kind", "host"),
        "C06" if is_no_mount_point(why) => Some(NO_MOUNT_POINT.to_owned()),
        "C05" | "C06" | "P04" if why.contains("is writable by others") => Some(closed(path, &word, code)),
        _ => None,
    }
}

/// As [`remedy`], for refusals whose evidence names no path.
#[must_use]
pub fn plain_remedy(entry: &Entry) -> Option<String> {
    let why = entry.field("why")?;
    match entry.field("code")? {
        "A01" if why.contains("nosuid") => {
            Some(format!("mount -o remount,bind,suid $(findmnt -n -o TARGET --target {LAUNCHER})"))
        }
        "A01" if why.contains("no_new_privs") => Some(without("NoNewPrivileges")),
        // The web server's group has another name on each distribution.
        "A01" => installed::launcher().map(|fault| fault.repair),
        "E02" => {
            let count: u32 = why.split(' ').next()?.parse().ok()?;
            Some(format!("cellwall set {} environment.entries_max {}", site(entry)?, count.saturating_mul(2)))
        }
        "P121" => unapplied(entry),
        "P03" if is_hidden(why, uid(entry)?) => Some(without("ProtectHome")),
        // openat2(2), which a filter cannot look into, is what systemd takes away for it.
        "P01" if why.ends_with(Errno::ENOSYS.desc()) => Some(without("RestrictSUIDSGID")),
        // Of a ~user no file names it: its record goes.
        "P03" if why.ends_with("is not there any more") && !is_users(entry) => Some(format!(
            "cellwall check {SITES_DIRECTORY}/{}.toml # mend what it says, then: cellwall apply",
            site(entry)?
        )),
        "P03" | "P01" => Some("cellwall apply".to_owned()),
        "P108" => other_group(entry),
        "V111" => closed_docroot(uid(entry)?),
        _ => None,
    }
}

/// A directory of root's that others may write to is taken from them, unless it is there for all. Those above the policy
/// records (P04) never are: one that looks so, with mode 1777, is the mistake.
fn closed(path: &Path, word: &str, code: &str) -> String {
    let owner = if code == "C06" { String::new() } else { format!("chown root {word} && ") };
    match code != "P04" && is_everybodys(path) {
        true => format!("# {word} is there for everybody to write to: have nothing of a cell's below it"),
        false => format!("{owner}chmod go-w {word} && cellwall apply"),
    }
}

/// Whether root of this host, which a container may be, makes views. The web server's unit may still not.
fn may_mount() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(true)
}

/// Whether this refusal of a view came of pivot_root(2), which wants the root to be one; that of a host is.
#[must_use]
pub fn is_no_mount_point(why: &str) -> bool {
    why.strip_prefix(VIEW_ROOT).is_some_and(|rest| rest.ends_with(Errno::EINVAL.desc()))
}

/// What makes a mount point of it.
pub const NO_MOUNT_POINT: &str = "# this root is no mount point, as that of a plain chroot: outside of it, before it is entered: \
                                  mount --rbind DIRECTORY DIRECTORY; or set jail.kind = \"host\"";

/// No key lets the launcher run one.
const NO_LINK: &str =
    "# put the program itself in the link's place: a link is never run, whatever `symlinks` says";

/// Where links are followed already.
const OTHER_LINK: &str =
    "# make the link again as the site's user or root, without `..` in it, and at most eight links deep";

/// The site's owner wrote the path into a first line: no command that takes its word for it.
const NOT_ROOTS: &str = "# let the first line name a program of root's; an interpreter of the site's own is named in \
                         `interpreters` of its file, where somebody has looked at it (policy/README.md)";

/// Where the package puts it.
pub const LAUNCHER: &str = "/usr/lib/cellwall/cellwall-suexec";

/// A unit's own word is undone by a file beside it, and so is that of `systemctl edit`: the last name counts (systemd.unit(5)).
fn without(option: &str) -> String {
    let apache = apache::unit();
    let unit = format!("/etc/systemd/system/{apache}.service.d");
    format!(
        "mkdir -p {unit} && printf '[Service]\\n{option}=no\\n' > {unit}/zz-cellwall-{option}.conf && \
         systemctl daemon-reload && systemctl restart {apache}"
    )
}

/// A home that was another one, or none, is from here the one that it was: whoever called sees something else there.
fn is_hidden(why: &str, uid: u32) -> bool {
    let same = |record: &Record<'_>| {
        record.sites.iter().map(|site| &site.identity).find_map(|identity| {
            let told = why.starts_with(&format!("{}: ", Untrusted(identity.home)));
            (told && birth(identity.home) == Ok((identity.home_inode, identity.home_born))).then_some(())
        })
    };
    with_record(uid, same).is_some()
}

/// One word, as a shell takes it.
pub(super) fn word(text: impl AsRef<OsStr>) -> String {
    Pasted(text.as_ref().as_bytes()).to_string()
}

/// The record's site; where it has none, the only one of the user that was asked for.
fn site(entry: &Entry) -> Option<String> {
    if let Some(site) = entry.field("site").filter(|site| *site != "-") {
        return Some(word(site));
    }
    let mut names = store::names(uid(entry)?).into_iter();
    let only = names.next()?;
    names.next().is_none().then(|| word(&only))
}

/// A site of `[userdir]`, which has no file.
fn is_users(entry: &Entry) -> bool {
    // As a word of a shell, which may be quoted.
    site(entry).is_some_and(|site| site.trim_start_matches('\'').starts_with('~'))
}

/// The user that was asked for; where no words asked, the site's.
fn uid(entry: &Entry) -> Option<u32> {
    match entry.field("asked") {
        Some(asked) => asked.split(' ').next()?.trim_start_matches('~').parse().ok(),
        None => policy::holder(entry.field("site")?).ok(),
    }
}

/// Nothing speaks against opening it: whoever has the site may have chosen the path.
fn harmless(path: &Path, entry: &Entry) -> Option<()> {
    with_ground(uid(entry)?, |ground| ground.dangerous(path).is_none().then_some(()))
}

/// Entries of the site's tree, mended on held descriptors: by the time that root pastes, other files may stand there. None
/// where they are not the tree's.
fn fixed(paths: &[&Path], entry: &Entry) -> Option<String> {
    let name = entry.field("site")?.as_bytes();
    with_record(uid(entry)?, |record| {
        let site = record.sites.iter().find(|site| site.name == name)?;
        let near = |path: &Path| {
            site.docroots.iter().any(|docroot| {
                let docroot = Path::new(OsStr::from_bytes(docroot));
                let real = fs::canonicalize(docroot).unwrap_or_else(|_| docroot.to_owned());
                [docroot, &real].iter().any(|docroot| path.starts_with(docroot) || docroot.starts_with(path))
            })
        };
        // In a chroot the evidence has the path that the program would see.
        let cut = match &site.jail {
            Jail::Chroot(directory) => OsStr::from_bytes(directory),
            Jail::View(_) | Jail::Host => OsStr::new(""),
        };
        let outside = |path: &&Path| {
            if near(path) {
                return Some(path.to_path_buf());
            }
            Some(Path::new(cut).join(path.strip_prefix("/").ok()?)).filter(|path| near(path))
        };
        let all: Vec<PathBuf> = paths.iter().map(outside).collect::<Option<_>>()?;
        Some(fix::command(name, &all.iter().map(PathBuf::as_path).collect::<Vec<_>>()))
    })
}

/// A program that is nowhere: the one with the nearest name, or what there is in its place. None where the host has no such
/// directory: a chroot's paths are its own.
fn beside(path: &Path) -> Option<String> {
    let place = path.parent().filter(|place| place.is_dir() && !path.exists())?;
    Some(match near(place, path.file_name()?.to_str()?) {
        Some(other) => format!("ls -l {} # another file, with the nearest name: was it meant?", word(other)),
        None => format!("ls -l {} # there is no such file in it, and none with a like name", word(place)),
    })
}

/// The ending of the page that was asked for, where a handler of the site's is what could not be started.
pub fn handler(entry: &Entry) -> Option<String> {
    let (path, name) = (entry.field("why")?.split(": ").next()?, asked(entry)?);
    if entry.field("code") != Some("V11") {
        return None;
    }
    let site = entry.field("site")?.as_bytes();
    with_record(uid(entry)?, |record| {
        let site = record.sites.iter().find(|one| one.name == site)?;
        let ends = |ending: &[u8]| name.as_os_str().as_bytes().ends_with(ending);
        let handler = site.handlers.iter().find(|handler| ends(handler.suffix))?;
        let is_its = handler.command.first().is_some_and(|first| *first == path.as_bytes());
        is_its.then(|| String::from_utf8_lossy(handler.suffix).into_owned())
    })
}

/// A handler's program that has gone: another version of it beside it, with the words that the old one had.
fn rehandled(path: &Path, entry: &Entry) -> Option<String> {
    let (place, name) = (path.parent()?, path.file_name()?.to_str()?);
    if path.exists() {
        return None;
    }
    let entries = fs::read_dir(place).ok()?.flatten().take(LOOKED_AT);
    let versions = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|other| {
        other
            .strip_prefix(name)
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    });
    let found = versions.map(|other| place.join(other)).filter(|path| is_roots_program(path)).max()?;
    let (ending, name) = (handler(entry)?, entry.field("site")?);
    with_record(uid(entry)?, |record| {
        let site = record.sites.iter().find(|site| site.name == name.as_bytes())?;
        let handler = site.handlers.iter().find(|handler| handler.suffix == ending.as_bytes())?;
        let words =
            handler.command.iter().skip(1).map(|word| format!(" {}", Pasted(word))).collect::<String>();
        Some(format!("cellwall set {} handlers.{} {}{words}", word(name), word(&ending), word(&found)))
    })
}

/// The program names an interpreter that is nowhere: the host may have it by another name or in another place.
fn interpreter(path: &Path, entry: &Entry) -> Option<String> {
    if path.exists() {
        return None;
    }
    let name = path.file_name()?.to_str()?;
    let versions = [
        name.to_owned(),
        format!("{name}3"),
        name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').to_owned(),
    ];
    let places = ["/usr/bin", "/usr/local/bin", "/bin"];
    let found = versions
        .iter()
        .flat_map(|name| places.map(|place| Path::new(place).join(name)))
        .find(|path| path.is_file())
        .or_else(|| near(Path::new("/usr/bin"), name))?;
    let script = script(entry)?;
    let (old, new) = (path.to_str()?, found.to_str()?);
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    let hand = with_ground(uid(entry)?, |ground| ground.hand(&script))?;
    (plain(old) && plain(new))
        .then(|| format!("{hand}sed -i '1s|{}|{new}|' {}", old.replace('.', "\\."), word(&script)))
}

/// What the policy record of a user says, for as long as `ask` looks at it.
fn with_record<T>(uid: u32, ask: impl FnOnce(&Record<'_>) -> Option<T>) -> Option<T> {
    let bytes = store::read(&uid.to_string())?;
    ask(&decode::record(&bytes).ok()?)
}

fn follows_links(entry: &Entry) -> bool {
    let follows = |record: &Record<'_>| {
        let site =
            record.sites.iter().find(|site| entry.field("site").map(str::as_bytes) == Some(site.name))?;
        (site.links == Links::OwnerMatch).then_some(())
    };
    uid(entry).and_then(|uid| with_record(uid, follows)).is_some()
}

/// The ground of a user's first site.
fn with_ground<T>(uid: u32, ask: impl FnOnce(&Ground<'_>) -> Option<T>) -> Option<T> {
    with_record(uid, |record| {
        let site = record.sites.first()?;
        ask(&Ground { site, uid, uid_min: record.host.uid_min })
    })
}

/// The command that was asked for.
fn asked(entry: &Entry) -> Option<PathBuf> {
    journal::path(entry.field("asked")?.splitn(3, ' ').nth(2)?)
}

/// The program that was asked for, where the record does not name it: in the first docroot that has it.
fn script(entry: &Entry) -> Option<PathBuf> {
    let name = asked(entry)?;
    with_record(uid(entry)?, |record| {
        let places = record.sites.iter().flat_map(|site| site.docroots.iter());
        places.map(|place| Path::new(OsStr::from_bytes(place)).join(&name)).find(|path| path.is_file())
    })
}

/// A page of PHP's, which is no program by itself: it has no first line, and needs no x bit.
fn is_page(path: &Path) -> bool {
    let php = path.extension().is_some_and(|ending| ending == "php");
    php && Path::new(PHP_CGI).exists() && glance::beginning(path, 2).is_some_and(|first| first != b"#!")
}

/// Debian's and Fedora's name of it.
const PHP_CGI: &str = "/usr/bin/php-cgi";

/// The web server asks for another group than the site's: that one is right.
fn other_group(entry: &Entry) -> Option<String> {
    let asked: u32 = entry.field("asked")?.split(' ').nth(1)?.parse().ok()?;
    with_record(uid(entry)?, |record| {
        let identity = &record.sites.first()?.identity;
        let (user, own) = (String::from_utf8_lossy(record.user).into_owned(), group_name(identity.gid));
        (identity.gid != asked).then(|| {
            format!(
                "# the web server asks for group {}, and the site's is {}: write SuexecUserGroup {} {} in its virtual host",
                word(group_name(asked)),
                word(&own),
                word(&user),
                word(&own)
            )
        })
    })
}

/// A script without `#!`: its ending tells what it is. Or with a mark that an editor put before it, and nobody sees.
fn first_line(path: &Path, word: &str, entry: &Entry) -> Option<String> {
    if glance::beginning(path, 5)? == b"\xef\xbb\xbf#!" {
        let hand = with_ground(uid(entry)?, |ground| ground.hand(path))?;
        return Some(format!("{hand}sed -i '1s/^\\xef\\xbb\\xbf//' {word} # takes the byte order mark out"));
    }
    let interpreter = match path.extension()?.to_str()? {
        "pl" => "/usr/bin/perl",
        "py" => "/usr/bin/python3",
        "rb" => "/usr/bin/ruby",
        "sh" => "/bin/sh",
        _ => return None,
    };
    let hand = with_ground(uid(entry)?, |ground| ground.hand(path))?;
    Path::new(interpreter).exists().then(|| format!("{hand}sed -i '1i #!{interpreter}' {word}"))
}

/// The first directory on the way that the site's user may not search.
fn search(path: &Path, entry: &Entry) -> Option<String> {
    with_ground(uid(entry)?, |ground| {
        let (closed, way) = ground.closed(&path.join("x"), 1)?;
        if way && ground.dangerous(&closed).is_none() { ground.searchable(&closed) } else { None }
    })
}

/// The working directory has no readable name for the site: some directory above a docroot is closed.
fn closed_docroot(uid: u32) -> Option<String> {
    with_record(uid, |record| {
        let uid_min = record.host.uid_min;
        record.sites.iter().find_map(|site| {
            let ground = Ground { site, uid, uid_min };
            let mut docroots = site.docroots.iter();
            let closed = docroots
                .find_map(|place| ground.closed(&Path::new(std::str::from_utf8(place).ok()?).join("x"), 1));
            closed.and_then(|(closed, _)| ground.searchable(&closed))
        })
    })
}

/// A directory of the site's own that its rules name and that is gone.
fn missing(path: &Path, word: &str, entry: &Entry) -> Option<String> {
    let uid = uid(entry)?;
    with_ground(uid, |ground| {
        (!path.exists() && ground.own(path)).then_some(())?;
        let hand = ground.hand(path.ancestors().find(|above| above.exists())?)?;
        Some(if hand.is_empty() {
            format!("install -d -m 755 -o {uid} -g {} {word}", ground.site.identity.gid)
        } else {
            format!("{hand}mkdir -p -m 755 {word}")
        })
    })
}

/// Twice as many.
fn more_processes(entry: &Entry) -> Option<String> {
    let name = entry.field("site")?.as_bytes();
    with_record(uid(entry)?, |record| {
        let site = record.sites.iter().find(|site| site.name == name)?;
        let limit = site.limits.resources.iter().find(|limit| limit.number == Resource::PROCESSES)?;
        let twice = limit.value.saturating_mul(2);
        Some(format!("cellwall set {} limits.processes {twice}", Pasted(name)))
    })
}

/// A site's file is there for this user, and was never applied: or it could not be.
fn unapplied(entry: &Entry) -> Option<String> {
    let file = unapplied_file(entry)?;
    Some(match check::errors(&file).is_empty() {
        true => "cellwall apply".to_owned(),
        false => format!("cellwall check {} # mend what it says, then: cellwall apply", word(&file)),
    })
}

/// The file of a site of the user whom no policy names.
pub(super) fn unapplied_file(entry: &Entry) -> Option<PathBuf> {
    let uid = uid(entry).filter(|_| entry.field("code") == Some("P121"))?;
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??.name;
    let names = list(Path::new(SITES_DIRECTORY), &Problems::default());
    let mut files = names.iter().map(|name| Path::new(SITES_DIRECTORY).join(format!("{name}.toml")));
    files
        .find(|file| fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| is_user(line, &user))))
}

/// `user = "NAME"`, also where no parser of TOML would take it.
fn is_user(line: &str, user: &str) -> bool {
    let value = line.trim_start().strip_prefix("user").and_then(|rest| rest.trim_start().strip_prefix('='));
    let value = value.map(|value| value.split('#').next().unwrap_or_default().trim());
    value.is_some_and(|value| value.trim_matches(['"', '\'']) == user)
}
