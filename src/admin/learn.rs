//! `cellwall learn SITE`: runs a program of the site's with its identity and limits, but without its walls, or hears what
//! its real programs ask for in vain, and proposes the smallest additions to its rules. Nothing is applied. Root.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::values::Seconds;
use crate::policy::{Enforcement, Jail, PathRule, Record, Site};
use crate::refusal::{Pasted, Untrusted};

use super::again::{Plan, request};
use super::cause::is_noise;
use super::cell::{root, with_site};
use super::ground::{Ground, list_of, piece};
use super::json::Json;
use super::run::become_command;
use super::trace::Event;
use super::{End, Stop, patience, say, traffic};

/// Arguments of `cellwall learn`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("watched").args(["request", "traffic", "command"]).required(true)))]
pub struct Args {
    /// The site (`shop`, `~alice`)
    pub site: String,
    /// A program of the site's, run as for a GET request
    #[arg(long, value_name = "PATH", conflicts_with = "command")]
    pub request: Option<PathBuf>,
    /// The query of that request
    #[arg(long, value_name = "QUERY", default_value = "", requires = "request")]
    pub query: String,
    /// It is ended after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub most: u64,
    /// Run nothing: hear what the site's programs ask for in vain while they are served, for so long or until Ctrl-C
    #[arg(long, value_name = "TIME", num_args = 0..=1, conflicts_with_all = ["request", "command"])]
    pub traffic: Option<Option<Seconds>>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// This process is the one that is watched
    #[arg(long, hide = true, requires = "command")]
    pub inside: bool,
    /// A command and its arguments instead
    #[arg(last = true, num_args = 1..)]
    pub command: Vec<OsString>,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    watch(args).unwrap_or_else(|stop| stop.said().into())
}

fn watch(args: &Args) -> Result<ExitCode, Stop> {
    with_site(&args.site, |record, site| {
        if matches!(site.jail, Jail::Chroot(_)) {
            return Err(
                "in a chroot jail every path is another one; nothing can be learned outside of it".into()
            );
        }
        if !args.inside {
            // Who becomes the program is watched already, and each thread of his as well.
            patience::reached("nothing was watched", site);
        }
        let watched = match args.traffic {
            Some(time) => heard(args, record, site, time),
            None if args.inside => inside(args, record, site),
            None => outside(args, record, site),
        };
        watched.map_err(Stop::from)
    })
}

/// Becomes the command that is watched.
fn inside(args: &Args, record: &Record<'_>, site: &Site<'_>) -> Result<ExitCode, String> {
    let words = args.command.iter().map(|word| CString::new(word.clone().into_vec()));
    let command: Vec<CString> = words.collect::<Result<_, _>>().map_err(|_| "a word has a NUL in it")?;
    Ok(become_command(record, &open(site), command, root()?))
}

/// Watches another process of this program, which becomes the command.
fn outside(args: &Args, record: &Record<'_>, site: &Site<'_>) -> Result<ExitCode, String> {
    let watched = std::env::current_exe().map_err(|error| error.to_string())?;
    let (directory, words) = what(args, site)?;
    let mut command: Vec<OsString> = vec![watched.into(), "learn".into(), args.site.clone().into()];
    command.extend(["--inside".into(), "--".into()]);
    command.extend(words);
    let script = args.request.as_deref().and_then(Path::file_name).unwrap_or(OsStr::new(""));
    let plan = Plan {
        command,
        user: None,
        directory: &directory,
        environment: request(&directory, script, &args.query),
        most: Duration::from_secs(args.most),
    };
    let ran = plan.run()?;
    let events = &ran.story.events;
    let calls = say::counted(events.len(), "call");
    let mut notes = vec![format!("{calls} of {} were watched", programs(events))];
    notes.extend(ran.limit().map(|limit| format!("It is not all known: {limit}.")));
    for ended in ran.story.ends.iter().filter(|ended| ended.first && ended.how != Ok(0)) {
        let how = ended.how.as_ref().map_or_else(Clone::clone, |status| format!("status {status}"));
        notes.push(format!("It ended with {how}: what comes after that is not known."));
    }
    let learned = learned(events.iter().map(|event| (event, 1)), &ground(record, site));
    told(args, record, &notes, &learned);
    Ok(End::Good.into())
}

/// Hears the site's own programs, which somebody else starts.
fn heard(
    args: &Args,
    record: &Record<'_>,
    site: &Site<'_>,
    time: Option<Seconds>,
) -> Result<ExitCode, String> {
    let heard = traffic::listen(record, site, time.map(|time| Duration::from_secs(time.0)))?;
    let calls = say::counted(heard.count, "call");
    let took = heard.took.as_secs();
    let mut notes = vec![format!("in {took} s {calls} of {} failed", programs(heard.calls.keys()))];
    notes.extend(traffic::notes(&heard, record, site));
    let calls = heard.calls.iter().map(|(event, count)| (event, *count));
    told(args, record, &notes, &learned(calls, &ground(record, site)));
    Ok(End::Good.into())
}

fn ground<'a>(record: &Record<'_>, site: &'a Site<'a>) -> Ground<'a> {
    Ground { site, uid: record.uid, uid_min: record.host.uid_min }
}

fn programs<'a>(events: impl IntoIterator<Item = &'a Event>) -> String {
    let all: BTreeSet<&Path> = events.into_iter().map(|event| event.program.as_path()).collect();
    say::counted(all.len(), "program")
}

/// The same site with identity, limits and environment, and without walls.
fn open<'a>(site: &Site<'a>) -> Site<'a> {
    let mut open = site.clone();
    open.jail = Jail::Host;
    open.landlock.mode = Enforcement::Off;
    open
}

/// Where, and what: the program as the launcher would start it, or the command.
fn what(args: &Args, site: &Site<'_>) -> Result<(PathBuf, Vec<OsString>), String> {
    let Some(path) = &args.request else {
        let place = site.docroots.first().map_or(Path::new("/"), |place| Path::new(OsStr::from_bytes(place)));
        return Ok((place.to_owned(), args.command.clone()));
    };
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let name = path.as_os_str().as_bytes();
    let named = site.programs.contains(&name);
    if !named && !site.docroots.iter().any(|place| path.starts_with(OsStr::from_bytes(place))) {
        let path = path.display();
        return Err(format!("{path} is in none of the site's docroots, and none of its programs"));
    }
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let handler = site.handlers.iter().find(|handler| !named && name.ends_with(handler.suffix));
    let words = match handler {
        Some(handler) => handler.command.iter().map(|word| OsStr::from_bytes(word).to_owned()).collect(),
        None => vec![path.into_os_string()],
    };
    Ok((directory, words))
}

/// Something that would be added, or that is not proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// How often it was used.
    pub count: usize,
    /// By which program first.
    pub program: PathBuf,
    /// One path of those behind it.
    pub example: String,
    /// Why it is not proposed.
    pub reason: Option<String>,
}

/// What to add: the key and the item, with the use behind it.
pub type Learned = BTreeMap<(&'static str, String), Use>;

/// What the site's rules do not cover of these calls, each with how often it was made, folded into pieces and
/// directories.
#[must_use]
pub fn learned<'a>(calls: impl IntoIterator<Item = (&'a Event, usize)>, ground: &Ground<'_>) -> Learned {
    let mut wanted: BTreeMap<(PathBuf, u8), (usize, PathBuf)> = BTreeMap::new();
    let mut only_asked: BTreeMap<PathBuf, (usize, PathBuf)> = BTreeMap::new();
    let mut all = Learned::new();
    for (event, often) in calls {
        let program = || event.program.clone();
        if let Some((key, port)) = port(event, ground) {
            add(&mut all, (key, port.to_string()), often, program(), format!("port {port}"), None);
        }
        for path in event.paths.iter().filter(|path| ground.names_descriptor(path)) {
            let example = path.display().to_string();
            add(&mut all, ("jail.processes", "true".to_owned()), often, program(), example, None);
        }
        for path in asked(event, ground) {
            let entry = only_asked.entry(path.to_owned()).or_insert_with(|| (0, program()));
            entry.0 = entry.0.saturating_add(often);
        }
        for (path, rights) in uses(event, ground) {
            let entry = wanted.entry((path, rights)).or_insert_with(|| (0, program()));
            entry.0 = entry.0.saturating_add(often);
        }
    }
    for (path, (count, program)) in only_asked {
        // It is there as soon as something in it is.
        if !wanted.keys().any(|(used, _)| used.starts_with(&path)) {
            let name = path.display().to_string();
            add(&mut all, ("", name.clone()), count, program, name, Some(ASKED.to_owned()));
        }
    }
    let paths: BTreeSet<PathBuf> = wanted.keys().map(|(path, _)| path.clone()).collect();
    for ((path, rights), (count, program)) in wanted {
        let socket = path.metadata().is_ok_and(|facts| facts.file_type().is_socket());
        let named = if rights & PathRule::WRITE == 0 || socket { piece(&path) } else { None };
        let (key, item, reason) = match (named, ground.dangerous(&path)) {
            _ if path.to_str().is_none() => {
                let place = path.ancestors().find_map(Path::to_str).unwrap_or("/");
                ("", place.to_owned(), Some(NOT_UTF8.to_owned()))
            }
            (Some((piece, _)), _) => ("pieces", piece, None),
            (None, Some(reason)) => ("", path.display().to_string(), Some(reason)),
            (None, None) if socket => ("files.sockets", path.display().to_string(), None),
            (None, None) => {
                let folded = fold(&path, rights, &paths, ground);
                let given = ground.given(&folded).filter(|_| rights & PathRule::WRITE != 0);
                let reason =
                    given.map(|command| format!("it is a service's; if the site is to have it: {command}"));
                let key = if reason.is_some() { "" } else { list_of(rights) };
                (key, folded.display().to_string(), reason)
            }
        };
        let example = path.to_str().map_or_else(|| item.clone(), str::to_owned);
        add(&mut all, (key, item), count, program, example, reason);
    }
    topmost(all)
}

/// Without what is proposed as well for more, or lies in such a directory.
fn topmost(all: Learned) -> Learned {
    let lists = ["files.read", "files.execute", "files.write"];
    let beneath = |(key, item): &(&str, String), (other, above): &(&str, String)| {
        let more = *other == *key || *key == "files.read" && lists.contains(other);
        let same = (key, item) == (other, above);
        lists.contains(key) && more && !same && Path::new(item).starts_with(above)
    };
    let mut top = all.clone();
    top.retain(|what, _| !all.keys().any(|other| beneath(what, other)));
    for (what, used) in &all {
        if let Some((_, above)) = top.iter_mut().find(|(other, _)| beneath(what, other)) {
            above.count = above.count.saturating_add(used.count);
        }
    }
    top
}

fn add(
    all: &mut Learned,
    what: (&'static str, String),
    count: usize,
    program: PathBuf,
    example: String,
    reason: Option<String>,
) {
    let known = all.entry(what).or_insert(Use { count: 0, program, example, reason });
    known.count = known.count.saturating_add(count);
}

/// The port of a call, where the site's rules restrict ports and do not list it.
fn port(event: &Event, ground: &Ground<'_>) -> Option<(&'static str, u16)> {
    let port = event.port?;
    let (key, list) = match event.call.as_str() {
        "connect" => ("network.connect", ground.site.landlock.connect.as_ref()),
        "bind" => ("network.bind", ground.site.landlock.bind.as_ref()),
        _ => return None,
    };
    (!list?.contains(&port)).then_some((key, port))
}

/// Paths of a call that are there and that no rule covers, with the rights that it needs.
fn uses(event: &Event, ground: &Ground<'_>) -> Vec<(PathBuf, u8)> {
    let call = event.call.as_str();
    let starts = call.starts_with("execve");
    let opens = call.starts_with("open") || starts || call == "connect" || event.write;
    // A program that asks whether a file is there wants to know; a directory on the way is asked by everybody.
    let asks = ASKS.contains(&call);
    let mut found = Vec::new();
    for path in event.paths.iter().filter(|_| opens || asks) {
        let there =
            if event.write { path.ancestors().find(|above| above.exists()) } else { Some(path.as_path()) };
        let Some(place) = there.filter(|place| place.exists()).map(|place| ground.meant(place)) else {
            continue;
        };
        let rights = match (event.write, starts) {
            (true, _) => PathRule::READ | PathRule::WRITE,
            (_, true) => PathRule::READ | PathRule::EXECUTE,
            _ if call != "connect" && is_library(&place) => PathRule::READ | PathRule::EXECUTE,
            _ => PathRule::READ,
        };
        let idle = asks && place.is_dir();
        if !idle && !ground.covers(&place, rights) && !ground.private(&place) && !is_noise(&place) {
            found.push((place, rights));
        }
    }
    found
}

/// Directories that a program only asked for, and that the cell has not: where it would stop at the answer, it has not used what is
/// in them either.
fn asked<'a>(event: &'a Event, ground: &'a Ground<'_>) -> impl Iterator<Item = &'a Path> {
    let asks = ASKS.contains(&event.call.as_str());
    let paths = event.paths.iter().map(PathBuf::as_path).filter(move |_| asks);
    paths.filter(|path| {
        path.is_dir()
            && !ground.shows(path)
            && !ground.private(path)
            && !is_noise(path)
            && ground.dangerous(path).is_none()
    })
}

/// Why a path is not proposed that no site's file can hold.
const NOT_UTF8: &str = "a name in it is not UTF-8, as a site's file is: the directory can be listed";

/// Why a directory is not proposed that was only asked for.
const ASKED: &str = "it was only asked whether it is there, which in the cell it is not; where that matters it is the site's files.read";

/// Calls that ask whether something is there.
const ASKS: [&str; 8] =
    ["stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink"];

/// A library is mapped for execution.
fn is_library(path: &Path) -> bool {
    path.file_name()
        .and_then(OsStr::to_str)
        .is_some_and(|name| name != "ld.so.cache" && (name.contains(".so.") || name.ends_with(".so")))
}

/// The file alone, or its directory when several files of it are used, or when something is written.
fn fold(path: &Path, rights: u8, all: &BTreeSet<PathBuf>, ground: &Ground<'_>) -> PathBuf {
    let Some(directory) = path.parent().filter(|_| !path.is_dir()) else { return path.to_owned() };
    let several = all.iter().filter(|other| other.parent() == Some(directory)).count() > 1;
    let wide = several || rights & PathRule::WRITE != 0 || is_library(path);
    if wide && directory.components().count() > 2 && ground.dangerous(directory).is_none() {
        directory.to_owned()
    } else {
        path.to_owned()
    }
}

/// The first note is what the others are about.
fn told(args: &Args, record: &Record<'_>, notes: &[String], all: &Learned) {
    let user = Untrusted(record.user);
    if args.json {
        return say::out(json(&args.site, &user.to_string(), notes, all));
    }
    let [first, others @ ..] = notes else { return };
    say::out(format_args!("# {}: {first}, as {user}. Nothing is applied.", args.site));
    others.iter().for_each(|note| say::out(format_args!("# {note}")));
    propose(&args.site, all);
}

fn json(name: &str, user: &str, notes: &[String], all: &Learned) -> Json {
    let one = |((key, item), used): (&(&str, String), &Use)| {
        Json::object([
            ("key", if key.is_empty() { Json::Null } else { Json::text(*key) }),
            ("item", Json::text(shown(item))),
            ("count", Json::count(used.count)),
            ("program", Json::text(Untrusted(used.program.as_os_str().as_bytes()).to_string())),
            ("example", Json::text(shown(&used.example))),
            ("reason", used.reason.as_ref().map_or(Json::Null, Json::text)),
        ])
    };
    let list = |proposed: bool| {
        Json::List(all.iter().filter(|((key, _), _)| key.is_empty() != proposed).map(one).collect())
    };
    Json::object([
        ("site", Json::text(name)),
        ("user", Json::text(user)),
        ("notes", Json::texts(notes.iter().cloned())),
        ("proposed", list(true)),
        ("not_proposed", list(false)),
        ("commands", Json::texts(commands(name, all))),
    ])
}

fn propose(name: &str, all: &Learned) {
    if all.keys().all(|(key, _)| key.is_empty()) {
        say::out("# The site's rules cover all that it used.");
    }
    let keys: BTreeSet<&str> = all.keys().map(|(key, _)| *key).filter(|key| !key.is_empty()).collect();
    // Keys without a section stand first, as TOML wants it.
    let mut last = "";
    for key in keys.iter().filter(|key| !key.contains('.')).chain(keys.iter().filter(|key| key.contains('.')))
    {
        last = lines(key, all, last);
    }
    for ((_, path), used) in all.iter().filter(|((key, _), _)| key.is_empty()) {
        let reason = used.reason.as_deref().unwrap_or("");
        say::out(format_args!("# NOT proposed: {} ({}): {reason}", shown(path), seen(used)));
    }
    commands(name, all).iter().for_each(|command| say::out(format_args!("# {command}")));
}

/// What adds it all, a command for each key.
fn commands(name: &str, all: &Learned) -> Vec<String> {
    let keys: BTreeSet<&str> = all.keys().map(|(key, _)| *key).filter(|key| !key.is_empty()).collect();
    let words = |key: &str| {
        items(key, all).map(|(item, _)| format!(" {}", Pasted(item.as_bytes()))).collect::<String>()
    };
    keys.into_iter().map(|key| format!("cellwall set {name} {key}{}", words(key))).collect()
}

fn items<'a>(key: &'a str, all: &'a Learned) -> impl Iterator<Item = (&'a String, &'a Use)> {
    all.iter().filter(move |((own, _), _)| *own == key).map(|((_, item), used)| (item, used))
}

/// Lines to add to one list, below its section. Returns the section.
fn lines<'a>(key: &'a str, all: &Learned, last: &str) -> &'a str {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    if section != last {
        say::out(format_args!("[{section}]"));
    }
    if key == "jail.processes" {
        for (item, used) in items(key, all) {
            say::out(format_args!("{name} = {item} # {}", seen(used)));
        }
        return section;
    }
    say::out(format_args!("{name} = ["));
    for (item, used) in items(key, all) {
        let number = section == "network";
        let item = if number { item.clone() } else { format!("\"{}\"", shown(item)) };
        say::out(format_args!("    {item}, # {}", seen(used)));
    }
    say::out("]");
    section
}

fn seen(used: &Use) -> String {
    let often = if used.count == 1 { "once".to_owned() } else { format!("{} times", used.count) };
    format!("{often}, first by {}: {}", Untrusted(used.program.as_os_str().as_bytes()), shown(&used.example))
}

fn shown(text: &str) -> String {
    Untrusted(text.as_bytes()).to_string()
}
