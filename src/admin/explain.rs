//! `cellwall explain`: the manual of a code, or the rehearsal of a launch by the launcher's own stages. Root.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Group, Pid, User};

use crate::config::SITES_DIRECTORY;
use crate::launch::arrival::{Arrival, DEADLINE_SECONDS, TOO_LATE};
use crate::launch::authorize::{bad_policy, no_policy, unreadable};
use crate::launch::rehearse;
use crate::launch::request::Request;
use crate::policy::read::Unreadable;
use crate::policy::{decode, read};
use crate::refusal::{Refusal, Untrusted};
use crate::sys::fork::{self, Side, fork};
use crate::sys::{Root, process};

use super::{End, Stop, codes, say};

/// Arguments of `cellwall explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A code such as V118; or USER GROUP DIRECTORY COMMAND, with ~USER for a request below a home
    #[arg(required = true, num_args = 1..=4, allow_hyphen_values = true, value_names = ["CODE or USER", "GROUP", "DIRECTORY", "COMMAND"])]
    pub words: Vec<OsString>,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match args.words.as_slice() {
        [code] => manual(code),
        [user, group, directory, command] => rehearsal(user, group, Path::new(directory), command),
        _ => {
            say::note("error: give a CODE, or USER GROUP DIRECTORY COMMAND");
            return ExitCode::from(2);
        }
    }
    .unwrap_or_else(Stop::said)
    .into()
}

fn manual(code: &OsStr) -> Result<End, Stop> {
    let code = code.to_string_lossy().to_ascii_uppercase();
    match codes::section(&code) {
        Some(section) => {
            say::out(section.trim_start_matches("## "));
            Ok(End::Good)
        }
        None => {
            let all: Vec<&str> = codes::all().collect();
            say::note(format_args!(
                "error: there is no code {code}\n  help: the codes are {}",
                all.join(" ")
            ));
            Ok(End::Findings)
        }
    }
}

/// In a child, which the launch's own alarm ends: what hangs there hangs here.
fn rehearsal(user: &OsStr, group: &OsStr, directory: &Path, command: &OsStr) -> Result<End, Stop> {
    let failed = |errno: Errno| errno.to_string();
    let root = Root::claim().map_err(failed)?;
    let root = root.ok_or("only root can rehearse a launch\n  help: run it again with sudo")?;
    let (uid, gid) = (user_number(&user.to_string_lossy())?, group_number(&group.to_string_lossy())?);
    let pid = match fork().map_err(failed)? {
        Side::Parent(pid) => pid,
        Side::Child => {
            let alarmed = process::quiet_signals().and_then(|()| process::set_alarm(DEADLINE_SECONDS));
            let ended = alarmed
                .map_err(|errno| Stop::from(failed(errno)))
                .and_then(|()| rehearsed((&uid, &gid), directory, command, root));
            fork::leave(ended.unwrap_or_else(Stop::said).status())
        }
    };
    let in_time = ended(pid).map_err(failed)?;
    match waitpid(pid, None).map_err(failed)? {
        WaitStatus::Exited(_, status) => {
            let all = [End::Good, End::Findings];
            Ok(all.into_iter().find(|end| i32::from(end.status()) == status).unwrap_or(End::Failed))
        }
        WaitStatus::Signaled(_, signal, _) if signal == Signal::SIGALRM || !in_time => {
            let why =
                format!("it did not end within {DEADLINE_SECONDS} s, and a launch would have been ended");
            Ok(verdict("the next", &Refusal::new(&TOO_LATE, why)))
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

fn rehearsed((uid, gid): (&str, &str), directory: &Path, command: &OsStr, root: Root) -> Result<End, Stop> {
    let words = [OsStr::new(uid), OsStr::new(gid), command];
    let request = match Request::parse(&words) {
        Ok(request) => request,
        Err(refusal) => return Ok(verdict("request", &refusal)),
    };
    let bytes = match read::record(request.uid()) {
        Ok(bytes) => bytes,
        Err(Unreadable::Missing) => {
            let host = read::host().unwrap_or_default();
            let minimum = decode::host(&host).map_or(0, |host| host.uid_min);
            return Ok(verdict("policy", &no_policy(request.uid(), minimum)));
        }
        Err(why) => return Ok(verdict("policy", &unreadable(&why))),
    };
    let policy = match decode::record(&bytes) {
        Ok(policy) => policy,
        Err(why) => return Ok(verdict("policy", &bad_policy(&why))),
    };
    std::env::set_current_dir(directory).map_err(|error| {
        Stop::asked(format!("{}: {error}\n  help: give the program's directory", directory.display()))
    })?;
    let caller = policy.host.callers.first().copied().unwrap_or(0);
    let arrival = Arrival::as_if((caller, caller), sample());
    let (command, place) = (Untrusted(command.as_bytes()), directory.display());
    line("request", "ok", &format!("\"{command}\" in {place} for uid {uid}, gid {gid}"));
    let mut last = "request";
    let ended = rehearse(&arrival, &request, &policy, root, &mut |stage, text| {
        last = match stage {
            "authorize" => "confine",
            "confine" => "drop",
            "drop" => "verify",
            "verify" => "equip",
            _ => "seal",
        };
        line(stage, "ok", &text);
    });
    let first = if last == "request" { "authorize" } else { last };
    Ok(match ended {
        Ok(()) => {
            line("exec", "ok", "would be next; a rehearsal stops here");
            End::Good
        }
        Err(refusal) => verdict(first, &refusal),
    })
}

/// What a request has at least, so that the environment's rules have something to work on.
fn sample() -> Vec<&'static CStr> {
    vec![c"GATEWAY_INTERFACE=CGI/1.1", c"REQUEST_METHOD=GET", c"QUERY_STRING=", c"SERVER_PROTOCOL=HTTP/1.1"]
}

fn verdict(stage: &str, refusal: &Refusal) -> End {
    line(
        stage,
        "REFUSED",
        &format!("{} (exit status {}): {}", refusal.card.code, refusal.card.status, refusal.why),
    );
    line("", "repair", &refusal.fix);
    End::Findings
}

fn line(stage: &str, state: &str, text: &str) {
    say::out(format_args!("{stage:<10} {state:<8} {text}"));
}

/// Apache passes numbers; people know names.
fn user_number(user: &str) -> Result<String, Stop> {
    let (tilde, name) = user.strip_prefix('~').map_or(("", user), |name| ("~", name));
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(user.to_owned());
    }
    let found = User::from_name(name).map_err(|errno| errno.to_string())?;
    found.map(|user| format!("{tilde}{}", user.uid)).ok_or_else(|| {
        Stop::asked(format!("there is no user {name}\n  help: the user of a site is in its file: grep -H user {SITES_DIRECTORY}/*.toml"))
    })
}

fn group_number(group: &str) -> Result<String, Stop> {
    if group.as_bytes().iter().all(u8::is_ascii_digit) {
        return Ok(group.to_owned());
    }
    let found = Group::from_name(group).map_err(|errno| errno.to_string())?;
    found.map(|group| group.gid.to_string()).ok_or_else(|| {
        Stop::asked(format!("there is no group {group}\n  help: the user's own, most often: id -gn USER"))
    })
}
