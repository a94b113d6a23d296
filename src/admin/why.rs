//! `cellwall why`: the story of one record: what was asked, which rule decided, the evidence, the remedy.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::unistd::{Uid, User};

use crate::config::provenance::provenance;
use crate::config::{host, store};
use crate::policy::{Record, Site, decode};
use crate::refusal::Untrusted;

use super::cause::{Cause, causes, complaint};
use super::ground::Ground;
use super::installed::Fault;
use super::journal::{self, Entry, Journal, Last};
use super::json::Json;
use super::now::{self, Now};
use super::pooled::Again;
use super::{End, again, codes, elsewhere, installed, kernel, mend, policy, pooled, reach, say};

/// Arguments of `cellwall why`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").args(["reference", "last"]).required(true)))]
pub struct Args {
    /// The reference on the visitor's page, such as 8F3C-21QX; or a line with it, or with a pool's socket, of a web server's log
    pub reference: Option<OsString>,
    /// The last refusal or, with --again, launch instead; with a site's name, its last
    #[arg(long, value_name = "SITE", num_args = 0..=1, default_missing_value = "", conflicts_with = "reference")]
    pub last: Option<String>,
    /// So many lines at most of what programs wrote to their error output
    #[arg(long, value_name = "LINES", default_value_t = MOST_OTHERS)]
    pub said: usize,
    /// Run the program once more in its cell, as a GET request, and watch what it fails on
    #[arg(long)]
    pub again: bool,
    /// The script of that request, where the record is the start of a pool's worker
    #[arg(long, value_name = "PATH", requires = "again")]
    pub request: Option<PathBuf>,
    /// The query of that request
    #[arg(long, value_name = "QUERY", default_value = "", requires = "again")]
    pub query: String,
    /// That run is ended after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "again")]
    pub most: u64,
    /// Print it as JSON
    #[arg(long, conflicts_with = "again")]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        say::note("error: only root can read the records\n  help: run it again with sudo");
        return End::Failed.into();
    }
    let mut journal = Journal::open();
    let mut last = find(args, &journal);
    if last.entry.is_none() && journal.also_system() {
        last = find(args, &journal);
    }
    let Some(entry) = last.entry.take() else {
        nothing(args, &journal, &last);
        return End::Findings.into();
    };
    let now = now::of(&entry);
    if args.json {
        say::out(json(&entry, now.as_ref(), &last));
        return End::Good.into();
    }
    tell(&entry, now.as_ref());
    since(args, &entry, &journal, &last);
    // Without records the launcher knows no log: there may be later ones that stand nowhere.
    if let Some(Fault { found, repair }) = args.last.as_ref().and_then(|site| unheard(site, &entry)) {
        say::note(format_args!("note: it may not be the last one: {found}\n  repair: {repair}"));
    }
    if let Err(message) = more(args, &entry, &journal) {
        say::note(format_args!("error: {message}"));
        return End::Failed.into();
    }
    End::Good.into()
}

/// Why a later request may have left no record.
fn unheard(site: &str, entry: &Entry) -> Option<Fault> {
    let another = || installed::another().filter(|_| !pooled::is_brokers(entry));
    installed::records().or_else(|| reach::fault(site)).or_else(another)
}

/// What else is known of it, by its kind.
fn more(args: &Args, entry: &Entry, journal: &Journal) -> Result<(), String> {
    let brokers = pooled::is_brokers(entry);
    if brokers {
        pools(args, entry, journal);
    } else if !entry.refused && !args.again {
        return traces(entry);
    }
    if args.again && (brokers || !entry.refused) { once_more(args, entry) } else { Ok(()) }
}

/// A refusal of a pool's: the program's own words, and the launch that failed before it.
fn pools(args: &Args, entry: &Entry, journal: &Journal) {
    // What the gate refuses, the program never hears of; and what a launch said of its refusal is told by its record.
    let heard = !entry.field("code").is_some_and(|code| code.starts_with('G'));
    for said in
        journal.said(entry, args.said).iter().filter(|said| heard && !said.starts_with(journal::LAUNCHERS))
    {
        line("said", &format!("\"{said}\""));
    }
    let code = entry.field("code").unwrap_or_default();
    let ended = || {
        format!(
            "\n  {code}, HTTP status {}. More: cellwall explain {code}",
            entry.field("status").unwrap_or("-")
        )
    };
    if !pooled::is_the_programs(entry) {
        line("repair", &mend::best(entry));
        return say::out(ended());
    }
    if journal.lacked_memory(entry) {
        line("because", "the kernel ended its worker for want of memory");
        line("repair", &pooled::more_memory(entry).unwrap_or_else(|| "cellwall explain B06".to_owned()));
        return say::out(ended());
    }
    // No start has succeeded since that refusal.
    let site = entry.field("site").unwrap_or_default();
    let uid = policy::holder(site).ok();
    let is_its = |older: &Entry| !pooled::is_brokers(older) && is_about(older, site, uid);
    let launch = journal.before(entry).find(is_its);
    match launch.filter(|older| older.refused) {
        Some(refused) => {
            let field = |name: &str| refused.field(name).unwrap_or("-");
            line("because", &format!("{} ({})", field("why"), field("code")));
            line("repair", &mend::best(&refused));
        }
        None if args.again => return,
        None => {
            let reference = entry.field("ref").unwrap_or("-");
            line(
                "repair",
                &format!("cellwall why {reference} --again # runs it once more, and names what it fails on"),
            );
        }
    }
    say::out(ended());
}

fn find(args: &Args, journal: &Journal) -> Last {
    match (&args.reference, &args.last) {
        (Some(_), _) => Last { entry: journal.entry(&spelled(&args.pasted())), ..Last::default() },
        (None, site) => last(site.as_deref().unwrap_or_default(), !args.again, args.said, journal),
    }
}

/// The last refusal or launch, of a site or of all.
fn last(site: &str, refused: bool, most: usize, journal: &Journal) -> Last {
    let uid =
        (!site.is_empty()).then(|| policy::holder(site).ok().or_else(|| policy::meant_user(site))).flatten();
    let about = |entry: &Entry| site.is_empty() || is_about(entry, site, uid);
    let mut last = journal.last(site, most, |entry| entry.refused == refused && about(entry));
    // Whoever asks of all sites is told of one: what others' programs said has nothing to do with it.
    if let Some(entry) = last.entry.as_ref().filter(|_| site.is_empty())
        && let Some(own) = entry.field("site").filter(|name| *name != "-")
    {
        let its = journal.last(own, most, |other| other.field("ref") == entry.field("ref"));
        (last.said, last.later) = (its.said, its.later);
    }
    // One that was for another site's user is that site's.
    last.nameless = last.nameless.filter(|entry| asked_user(entry).is_none_or(|uid| !store::is_known(uid)));
    last
}

/// A request that was refused before its site was known (another group than the site's, or a name in the place of a number)
/// was for this site's user.
fn is_about(entry: &Entry, site: &str, uid: Option<u32>) -> bool {
    match entry.field("site") {
        Some("-") => uid.is_some() && asked_user(entry) == uid,
        named => named == Some(site),
    }
}

/// The user that was asked for, by number or by name.
fn asked_user(entry: &Entry) -> Option<u32> {
    let word = entry.field("asked")?.split(' ').next()?.trim_start_matches('~');
    let named = || User::from_name(word).ok().flatten().map(|user| user.uid.as_raw());
    word.parse().ok().or_else(named)
}

/// What the log has behind the last refusal: the site's programs may have failed since, and a request that named no site may
/// have been for it.
fn since(args: &Args, entry: &Entry, journal: &Journal, last: &Last) {
    let told = if pooled::is_brokers(entry) { journal.said(entry, args.said) } else { Vec::new() };
    let new: Vec<_> = last.said.iter().filter(|(.., words)| !told.contains(words)).collect();
    if !new.is_empty() {
        say::out("\n  since then its programs said:");
    }
    new.iter().for_each(|said| line("said", &words(said)));
    later(last);
}

/// Refusals behind what was found.
fn later(last: &Last) {
    if let Some(entry) = &last.later {
        let [code, reference] = ["code", "ref"].map(|name| entry.field(name).unwrap_or("-"));
        say::note(format_args!(
            "note: later a request of the site was refused ({code}): cellwall why {reference}"
        ));
    }
    if let Some(entry) = &last.nameless {
        let [code, reference] = ["code", "ref"].map(|name| entry.field(name).unwrap_or("-"));
        say::note(format_args!(
            "note: later a request was refused that named no site ({code}): cellwall why {reference}"
        ));
    }
}

fn words((time, site, words): &(String, String, String)) -> String {
    format!("\"{words}\" ({site}, {time})")
}

impl Args {
    /// What stands in the reference's place.
    fn pasted(&self) -> String {
        self.reference.as_ref().map_or_else(String::new, |text| text.to_string_lossy().into_owned())
    }
}

/// The reference alone, also of a page's sentence or of a line of a log that has words around it. As it was written: people
/// read a 0 for an O, and a 1 for an I or L (Crockford's base 32).
fn spelled(pasted: &str) -> String {
    let plain = |text: &str| text.to_ascii_uppercase().replace('O', "0").replace(['I', 'L'], "1");
    let small = pasted.to_ascii_lowercase();
    let behind = |word: &str| {
        let ends =
            small.match_indices(word).map(|(start, _)| start.saturating_add(word.len())).collect::<Vec<_>>();
        let mut texts =
            ends.into_iter().filter_map(|end| pasted.get(end..)?.trim_start_matches([':', ' ']).get(..9));
        texts.find(|text| journal::is_reference(text)).map(plain)
    };
    behind("reference").or_else(|| behind("ref=")).unwrap_or_else(|| plain(pasted.trim()))
}

/// No record: what was looked for and where; and what keeps a launcher from writing one.
fn nothing(args: &Args, journal: &Journal, found: &Last) {
    let site = args.last.as_deref().filter(|site| !site.is_empty());
    let kind = if args.again { "launch" } else { "refusal" };
    let text = args.pasted();
    let what = match (&args.reference, site) {
        (Some(_), _) if !journal::is_reference(&spelled(&text)) => {
            return match reach::named(&text) {
                Some(site) => unreached(&site),
                None if policy::unknown(&text).is_none() => say::note(format_args!(
                    "error: `{text}` is no reference, but a site\n  help: run: cellwall why --last {}",
                    mend::word(&text)
                )),
                None => say::note(format_args!(
                    "error: `{}` is no reference\n  help: one looks like 7F3K-92QX; the last refusal: cellwall why --last",
                    Untrusted(text.as_bytes())
                )),
            };
        }
        (Some(_), _) => format!("there is no record {}", spelled(&text)),
        // That there is no such site says nothing of the launcher.
        (None, Some(site)) if policy::unknown(site).is_some() => {
            return say::note(format_args!("error: {}", policy::unknown(site).unwrap_or_default()));
        }
        (None, Some(site)) => format!("no {kind} of site `{site}` is recorded"),
        (None, None) => format!("no {kind} is recorded"),
    };
    say::note(format_args!("error: {what}\n  note: looked at {}", journal.places.join(", ")));
    found.said.iter().for_each(|said| say::note(format_args!("  said: {}", words(said))));
    later(found);
    if let Some(site) = site {
        elsewhere::notes(site).into_iter().for_each(say::note);
    }
    let reach =
        site.map_or_else(|| reach::faults(MOST_OTHERS), |site| reach::fault(site).into_iter().collect());
    for Fault { found, repair } in reach {
        say::note(format_args!("  found: {found}\n  repair: {repair}"));
    }
    // Where the launcher has written something else, nothing keeps it from writing.
    if args.reference.is_none()
        && last(site.unwrap_or_default(), args.again, args.said, journal).entry.is_some()
    {
        if !args.again {
            let last = site.map_or_else(String::new, |site| format!(" {site}"));
            say::note(format_args!("  help: its last launch: cellwall why --last{last} --again"));
        }
        return;
    }
    for Fault { found, repair } in installed::faults() {
        say::note(format_args!("  found: {found}\n  repair: {repair}"));
    }
}

/// A web server's word that it could not connect to this site's pool.
fn unreached(site: &str) {
    let word = Untrusted(site.as_bytes());
    match reach::fault(site) {
        Some(Fault { found, repair }) => {
            say::note(format_args!(
                "the pool of site {word} cannot be reached\n  found: {found}\n  repair: {repair}"
            ));
        }
        None => say::note(format_args!(
            "the pool of site {word} can be reached by now\n  help: its last refusal: cellwall why --last {word}"
        )),
    }
}

fn line(name: &str, text: &str) {
    say::out(format_args!("  {name:<9} {text}"));
}

/// What the kernel says of the launch.
fn traces(entry: &Entry) -> Result<(), String> {
    for said in kernel::of_launch(entry) {
        line("kernel", &said);
    }
    let reference = entry.field("ref").unwrap_or("-");
    say::out(format_args!(
        "\n  It was started. What it failed on, if it did: cellwall why {reference} --again\n  (that runs it once more)"
    ));
    Ok(())
}

/// The same program in its cell, watched.
fn once_more(args: &Args, entry: &Entry) -> Result<(), String> {
    let field = |name: &str| entry.field(name).ok_or_else(|| format!("the record has no {name}"));
    let path = |name: &str| {
        journal::path(field(name)?)
            .ok_or_else(|| "the record does not hold the program's whole name".to_owned())
    };
    let whole = if entry.refused { path("script")? } else { path("dir")?.join(path("script")?) };
    let name = field("site")?;
    let uid = match entry.field("uid") {
        Some(uid) => uid.parse().map_err(|_| "the record has no uid")?,
        None => policy::holder(name)?,
    };
    let bytes =
        store::read(&uid.to_string()).ok_or("its policy record is gone\n  help: run: cellwall apply")?;
    let record = decode::record(&bytes).map_err(|why| format!("the record of uid {uid}: {why}"))?;
    let site = record.sites.iter().find(|site| site.name == name.as_bytes());
    let site = site.ok_or_else(|| format!("there is no site {name} any more"))?;
    let run = match watched(args, entry, &whole, &record, site) {
        Ok(run) => run,
        Err(message) => return refused_now(message),
    };
    if let Some(limit) = run.limit() {
        line("again", &limit);
    }
    let found = causes(&run, &Ground { site, uid, uid_min: record.host.uid_min });
    found.first().map_or_else(
        || say::out(format_args!("\n  again     it ran to its end, and nothing failed{}", said(&run.err))),
        |first| told(first, found.get(1..)),
    );
    Ok(())
}

/// What it complained of, if it did.
fn said(words: &str) -> String {
    match complaint(words) {
        "" => String::new(),
        line => format!("; it said: \"{}\"", Untrusted(line.as_bytes())),
    }
}

/// The second time the launch itself was refused: that record tells why.
fn refused_now(message: String) -> Result<(), String> {
    let reference = message.split_once(journal::LAUNCHERS).and_then(|(_, rest)| rest.get(..9));
    let mut journal = Journal::open();
    let find = |journal: &Journal| reference.and_then(|reference| journal.entry(reference));
    let mut found = find(&journal);
    if found.is_none() && journal.also_system() {
        found = find(&journal);
    }
    let Some(entry) = found else { return Err(message) };
    say::out("\n  again     this time the launch itself was refused:\n");
    tell(&entry, None);
    Ok(())
}

/// Runs it: by the launcher; or, where it is a pool's worker, its program for this one request.
fn watched(
    args: &Args,
    entry: &Entry,
    whole: &Path,
    record: &Record<'_>,
    site: &Site<'_>,
) -> Result<again::Run, String> {
    let uid = record.uid;
    let worker = !entry.refused && pooled::is_worker(uid, site, whole);
    let script = match (&args.request, worker) {
        (Some(request), true) => std::path::absolute(request).map_err(|error| error.to_string())?,
        (None, true) => {
            return Err("this is a worker of the site's pool, which serves one request after another\n  help: name a \
                        script that fails: --request /the/script"
                .to_owned());
        }
        (Some(_), false) => return Err("the record itself names the program: leave --request out".to_owned()),
        (None, false) => whole.to_owned(),
    };
    let again = if entry.refused || worker { pooled::again(uid, site, &script) } else { None };
    let (command, user, path) = match again {
        Some(Again::Worker(words, inside)) => {
            let this = std::env::current_exe().map_err(|error| error.to_string())?;
            let mut command =
                vec![this.into(), "run".into(), OsStr::from_bytes(site.name).into(), "--".into()];
            command.extend(words);
            (command, None, inside)
        }
        Some(Again::Launch(path)) => (launch(&path, entry, record, site), Some(caller(entry, record)?), path),
        None => (launch(whole, entry, record, site), Some(caller(entry, record)?), whole.to_owned()),
    };
    let (directory, name) = parted(&path);
    let plan = again::Plan {
        command,
        user: user.as_deref(),
        directory: if user.is_some() { directory } else { Path::new("/") },
        environment: again::request(directory, name, &args.query),
        most: Duration::from_secs(args.most),
    };
    plan.run()
}

/// What Apache would start.
fn launch(path: &Path, entry: &Entry, record: &Record<'_>, site: &Site<'_>) -> Vec<OsString> {
    let user = format!("{}{}", if site.userdir { "~" } else { "" }, record.uid);
    let group = entry.field("gid").map_or_else(|| site.identity.gid.to_string(), str::to_owned);
    let words = [mend::LAUNCHER.into(), user.into(), group.into(), parted(path).1.to_owned()];
    words.to_vec()
}

fn parted(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default())
}

/// Who called, or may.
fn caller(entry: &Entry, record: &Record<'_>) -> Result<String, String> {
    let named = entry.field("caller").and_then(|uid| uid.parse().ok());
    let uid = named.or_else(|| record.host.callers.first().copied()).ok_or("nobody may call")?;
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map(|user| user.name).ok_or_else(|| "the caller has no name".to_owned())
}

fn told(first: &Cause, others: Option<&[Cause]>) {
    say::out("");
    line("cause", first.name);
    line("found", &first.found);
    line("means", &first.means);
    line("repair", first.repair.as_deref().unwrap_or("# no command that a machine could know"));
    for other in others.unwrap_or_default().iter().take(MOST_OTHERS) {
        line("also", &format!("{} ({})", other.found, other.name));
    }
}

/// How many less likely causes are told.
const MOST_OTHERS: usize = 5;

/// Of a record in suEXEC's form.
const SHORT: &str = "[log] format = \"suexec\" holds no more than this; with \"cellwall\" the site, the rule and more remedies are told";

fn tell(entry: &Entry, now: Option<&Now>) {
    let field = |name: &str| entry.field(name).unwrap_or("-");
    let verdict = if entry.refused { "refused" } else { "launched" };
    say::out(format_args!("{} was {verdict}, {}\n", field("ref"), entry.time));
    let site = field("site");
    if !entry.refused {
        line("program", &format!("{}/{}", field("dir").trim_end_matches('/'), field("script")));
        line("site", site);
        line(
            "identity",
            &format!("uid {}, gid {}, called by uid {}", field("uid"), field("gid"), field("caller")),
        );
        let cell =
            ["jail", "landlock", "seccomp", "nnp", "cgroup"].map(|name| format!("{name}={}", field(name)));
        line("cell", &cell.join(" "));
        if let Some(dropped) = entry.field("dropped") {
            let names = entry.field("left").unwrap_or("-").replace(',', ", ");
            let most = if names.split(", ").count().to_string() == dropped { "" } else { " and others" };
            let what = format!("{dropped} variables of the caller's ({names}{most})");
            line("left out", &format!("{what}: see [environment] of the site's file"));
        }
        if entry.field("stale").is_some() {
            line("stale", &format!("the site's file is younger than the policy; run: cellwall apply {site}"));
        }
        return;
    }
    let code = field("code");
    match (entry.field("site"), entry.field("asked")) {
        (None, _) => line("note", SHORT),
        (_, Some(asked)) => {
            line("asked", &format!("\"{asked}\" (uid, gid, command), by uid {}", field("caller")));
        }
        (Some("-"), None) if code.starts_with('A') => {
            line("asked", "not read yet: the launcher was still getting ready");
        }
        (Some("-"), None) => line("asked", "by nobody: cellwalld read its policy"),
        (_, None) => {
            let script = entry.field("script").filter(|script| !script.is_empty());
            line("asked", &format!("of the pool, for {}", script.unwrap_or("its program")))
        }
    }
    if entry.field("site").is_some() {
        line("site", if site == "-" { "none" } else { site });
        line("rule", &decided(entry));
    }
    line("found", field("why"));
    line("means", &codes::meaning(code).unwrap_or_default());
    if pooled::is_brokers(entry) {
        return;
    }
    line("repair", &mend::best(entry));
    if let Some(now) = now {
        line("now", &now.words());
    }
    let status = status(entry).unwrap_or("-");
    say::out(format_args!("\n  {code}, exit status {status}. More: cellwall explain {code}"));
}

/// The exit status, which suEXEC's form of a record leaves out: that of its code.
fn status(entry: &Entry) -> Option<&str> {
    entry.field("status").or_else(|| codes::status(entry.field("code")?))
}

/// As [`rule`], but for a page whose handler has gone.
fn decided(entry: &Entry) -> String {
    let (site, field) = (entry.field("site").unwrap_or("-"), |name: &str| entry.field(name).unwrap_or("-"));
    match mend::handler(entry).and_then(|ending| provenance(site, "handlers", Some(ending.as_str()))) {
        Some((path, line)) => format!("handlers, {}:{line}", path.display()),
        None => rule(field("code"), site, field("why")),
    }
}

/// The key that decided, with its file and line; or that it is no key.
fn rule(code: &str, site: &str, evidence: &str) -> String {
    let Some(key) = codes::key(code, evidence) else {
        return "the launcher's own, which no key changes".to_owned();
    };
    // A path of the cell stands in one of many lines.
    let item = evidence.split(": ").next().filter(|path| key == "files" && path.starts_with('/'));
    match provenance(site, key, item) {
        Some((path, line)) => format!("{key}, {}:{line}", path.display()),
        None if site == "-" && host::has(key) => format!("{key}, {}", crate::config::HOST_FILE),
        None if site == "-" => format!("{key}, of the site's file"),
        None => format!("{key}, at its default (the site's file does not name it)"),
    }
}

fn json(entry: &Entry, now: Option<&Now>, last: &Last) -> Json {
    let field = |name: &str| entry.field(name).map_or(Json::Null, Json::text);
    let behind = |entry: &Option<Entry>| {
        entry.as_ref().and_then(|entry| entry.field("ref")).map_or(Json::Null, Json::text)
    };
    let code = entry.field("code").unwrap_or_default();
    Json::object([
        ("verdict", Json::text(if entry.refused { "refused" } else { "launched" })),
        ("time", Json::text(&entry.time)),
        ("ref", field("ref")),
        ("site", field("site")),
        ("code", field("code")),
        ("status", status(entry).map_or(Json::Null, Json::text)),
        ("caller", field("caller")),
        ("asked", field("asked")),
        ("left", field("left")),
        ("dir", field("dir")),
        ("script", field("script")),
        ("why", field("why")),
        ("fix", Json::text(mend::best(entry))),
        ("rule", Json::text(decided(entry))),
        ("means", codes::meaning(code).map_or(Json::Null, Json::text)),
        ("now", now.map_or(Json::Null, Now::json)),
        ("said", Json::texts(last.said.iter().map(words))),
        ("later", behind(&last.later)),
        ("nameless", behind(&last.nameless)),
    ])
}
