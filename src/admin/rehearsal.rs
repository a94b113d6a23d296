//! A launch, rehearsed by the launcher's own stages, in a child that the launch's own alarm ends: what hangs there hangs here.
//! Root.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdout, pipe2};

use crate::launch::arrival::{Arrival, DEADLINE_SECONDS, TOO_LATE};
use crate::launch::authorize::{bad_policy, no_policy, unreadable};
use crate::launch::rehearse;
use crate::launch::request::Request;
use crate::policy::read::Unreadable;
use crate::policy::{decode, read};
use crate::refusal::{Refusal, Untrusted};
use crate::sys::fork::{self, Side, fork};
use crate::sys::{Root, process};

use super::journal::Entry;
use super::json::Json;
use super::{Stop, mend};

/// What is rehearsed: the launcher's own words, and where it would be called.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'w> {
    /// The user's number, with `~` for a request below a home.
    pub user: &'w str,
    /// The group's number.
    pub group: &'w str,
    /// The program's directory.
    pub directory: &'w Path,
    /// The program's name.
    pub command: &'w OsStr,
    /// Who calls; none: the first who may.
    pub caller: Option<u32>,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Rehearsed {
    /// Each stage that was passed, with its words.
    pub stages: Vec<(String, String)>,
    /// Where it ended. None: the program would have started.
    pub refused: Option<Refused>,
}

/// The stage that said no.
#[derive(Debug)]
pub struct Refused {
    /// The stage.
    pub stage: String,
    /// What was said, as its record would have it.
    pub entry: Entry,
}

impl Refused {
    /// A part of it: `code`, `status`, `why`.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.entry.field(name).unwrap_or("-")
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        Json::object([
            ("stage", Json::text(&self.stage)),
            ("code", Json::text(self.field("code"))),
            ("status", Json::text(self.field("status"))),
            ("why", Json::text(self.field("why"))),
            ("fix", Json::text(mend::best(&self.entry))),
        ])
    }
}

impl Rehearsed {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Json {
        let stage = |(stage, text): &(String, String)| {
            Json::object([("stage", Json::text(stage)), ("text", Json::text(text))])
        };
        Json::object([
            ("ok", Json::Bool(self.refused.is_none())),
            ("stages", Json::List(self.stages.iter().map(stage).collect())),
            ("refused", self.refused.as_ref().map_or(Json::Null, Refused::json)),
        ])
    }
}

/// Rehearses it.
///
/// # Errors
/// The caller is not root, the directory is not there, or the system failed.
pub fn rehearsed(wish: &Wish<'_>) -> Result<Rehearsed, Stop> {
    let failed = |errno: Errno| errno.to_string();
    let root = Root::claim().map_err(failed)?;
    let root = root.ok_or("only root can rehearse a launch\n  help: run it again with sudo")?;
    // Nobody waits for it: what has ended has said all.
    let (from_child, to_us) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed)?;
    let pid = match fork().map_err(failed)? {
        Side::Parent(pid) => pid,
        Side::Child => {
            // The seal leaves descriptors 0 to 2 alone open.
            let ready = dup2_stdout(&to_us).and_then(|()| process::quiet_signals());
            let ready = ready.and_then(|()| process::set_alarm(DEADLINE_SECONDS));
            let told = ready.map_err(|errno| Stop::from(failed(errno))).and_then(|()| inside(wish, root));
            match told {
                Ok(None) => {}
                Ok(Some((stage, refusal))) => no(stage, &refusal),
                Err(stop) => tell(&["stop", if stop.is_asked() { "asked" } else { "failed" }, &stop.message]),
            }
            fork::leave(0)
        }
    };
    drop(to_us);
    let in_time = ended(pid).map_err(failed)?;
    let mut told = heard(from_child, wish)?;
    match waitpid(pid, None).map_err(failed)? {
        WaitStatus::Exited(..) => Ok(told),
        WaitStatus::Signaled(_, signal, _) if signal == Signal::SIGALRM || !in_time => {
            let why =
                format!("it did not end within {DEADLINE_SECONDS} s, and a launch would have been ended");
            let Refusal { card, why, fix } = Refusal::new(&TOO_LATE, why);
            told.refuse("the next", wish, [card.code, &card.status.to_string(), &why, &fix]);
            Ok(told)
        }
        other => Err(format!("the rehearsal has ended: {other:?}").into()),
    }
}

/// Waits for it a little longer than its own alarm, which does not end what was stopped: from the drop on the site's user
/// may send it signals. False: it was ended here.
fn ended(pid: Pid) -> Result<bool, Errno> {
    let held = fork::hold(pid)?;
    let in_time = fork::ends_within(&held, Duration::from_secs(u64::from(DEADLINE_SECONDS) + 1))?;
    if !in_time {
        fork::end(&held)?;
    }
    Ok(in_time)
}

/// What the child told, in order.
fn heard(from_child: OwnedFd, wish: &Wish<'_>) -> Result<Rehearsed, Stop> {
    let mut said = Vec::new();
    // Where something else still holds the other end, all that was said is here as well.
    drop(File::from(from_child).read_to_end(&mut said));
    let mut told = Rehearsed::default();
    for line in String::from_utf8_lossy(&said).split_terminator(END) {
        match line.split(FIELD).collect::<Vec<_>>().as_slice() {
            ["ok", stage, text] => told.stages.push(((*stage).to_owned(), (*text).to_owned())),
            ["no", stage, parts @ ..] => {
                let parts = <[&str; 4]>::try_from(parts).map_err(|_| "the rehearsal was not understood")?;
                told.refuse(stage, wish, parts);
            }
            ["stop", "asked", message] => return Err(Stop::asked(*message)),
            ["stop", _, message] => return Err(Stop::from(*message)),
            _ => return Err("the rehearsal was not understood".into()),
        }
    }
    Ok(told)
}

impl Rehearsed {
    fn refuse(&mut self, stage: &str, wish: &Wish<'_>, [code, status, why, fix]: [&str; 4]) {
        // The stage names the site first.
        let authorized = self.stages.iter().find(|(stage, _)| stage == "authorize");
        let site = authorized.and_then(|(_, text)| text.strip_prefix("site ")?.split(' ').next());
        let asked = format!("{} {} {}", wish.user, wish.group, Untrusted(wish.command.as_bytes()));
        let fields = [
            ("code", code),
            ("status", status),
            ("site", site.unwrap_or("-")),
            ("asked", &asked),
            ("why", why),
            ("fix", fix),
        ];
        self.refused = Some(Refused { stage: stage.to_owned(), entry: Entry::refusal(fields) });
    }
}

/// In the child. Some: the stage that said no.
fn inside(wish: &Wish<'_>, root: Root) -> Result<Option<(&'static str, Refusal)>, Stop> {
    let words = [OsStr::new(wish.user), OsStr::new(wish.group), wish.command];
    let request = match Request::parse(&words) {
        Ok(request) => request,
        Err(refusal) => return Ok(Some(("request", refusal))),
    };
    let bytes = match read::record(request.uid()) {
        Ok(bytes) => bytes,
        Err(Unreadable::Missing) => {
            let host = read::host().unwrap_or_default();
            let minimum = decode::host(&host).map_or(0, |host| host.uid_min);
            return Ok(Some(("policy", no_policy(request.uid(), minimum))));
        }
        Err(why) => return Ok(Some(("policy", unreadable(&why)))),
    };
    let policy = match decode::record(&bytes) {
        Ok(policy) => policy,
        Err(why) => return Ok(Some(("policy", bad_policy(&why)))),
    };
    let place = Untrusted(wish.directory.as_os_str().as_bytes());
    std::env::set_current_dir(wish.directory)
        .map_err(|error| Stop::asked(format!("{place}: {error}\n  help: give the program's directory")))?;
    let caller = wish.caller.or_else(|| policy.host.callers.first().copied()).unwrap_or(0);
    let arrival = Arrival::as_if((caller, caller), sample());
    let (command, uid, gid) = (Untrusted(wish.command.as_bytes()), wish.user, wish.group);
    tell(&["ok", "request", &format!("\"{command}\" in {place} for uid {uid}, gid {gid}")]);
    let mut next = "authorize";
    let ended = rehearse(&arrival, &request, &policy, root, &mut |stage, text| {
        next = match stage {
            "authorize" => "confine",
            "confine" => "drop",
            "drop" => "verify",
            "verify" => "equip",
            _ => "seal",
        };
        tell(&["ok", stage, &text]);
    });
    if ended.is_ok() {
        tell(&["ok", "exec", "would be next; a rehearsal stops here"]);
    }
    Ok(ended.err().map(|refusal| (next, refusal)))
}

/// What a request has at least, so that the environment's rules have something to work on.
fn sample() -> Vec<&'static CStr> {
    vec![c"GATEWAY_INTERFACE=CGI/1.1", c"REQUEST_METHOD=GET", c"QUERY_STRING=", c"SERVER_PROTOCOL=HTTP/1.1"]
}

fn no(stage: &str, refusal: &Refusal) {
    tell(&["no", stage, refusal.card.code, &refusal.card.status.to_string(), &refusal.why, &refusal.fix]);
}

/// One message to the parent; foreign text in it is escaped already.
fn tell(words: &[&str]) {
    let mut to = std::io::stdout();
    drop(to.write_all((words.join(FIELD) + END).as_bytes()).and_then(|()| to.flush()));
}

/// Between the parts of a message, and behind it (ASCII's unit and record separators).
const FIELD: &str = "\x1f";
const END: &str = "\x1e";
