//! The setuid launcher: suEXEC's command line, Cellwall's pipeline.
#![no_main]

use std::ffi::OsStr;
use std::io::Write as _;

use cellwall::launch::arrival::{Arrival, widen_limits};
use cellwall::launch::authorize::{bad_policy, no_policy, unreadable, wrong_caller};
use cellwall::launch::request::Request;
use cellwall::launch::{FAILED, launch, refuse};
use cellwall::policy::read::Unreadable;
use cellwall::policy::{Host, Sink, decode, read};
use cellwall::record::Log;
use cellwall::refusal::Refusal;
use cellwall::sys::Root;
use cellwall::sys::memory::Memory;

#[global_allocator]
static MEMORY: Memory = Memory::new();

cellwall::start!(run);

/// The exit status.
fn run(words: &[&OsStr]) -> u8 {
    match Arrival::clean() {
        Ok((arrival, root)) => answer(&arrival, words, root),
        Err(refusal) => {
            // With a limit of the caller's, a file could end in the middle of a line.
            let bytes = widen_limits().ok().and_then(|()| read::host().ok()).unwrap_or_default();
            let host = decode::host(&bytes).ok();
            refuse(&refusal, &mut Log::open(host.as_ref().map(|host| &host.log)), Some(FAILED))
        }
    }
}

fn answer(arrival: &Arrival<'_>, words: &[&OsStr], root: Root) -> u8 {
    let request = match Request::parse(words) {
        Ok(request) => request,
        Err(refusal) => return without_record(arrival, words, &|_| refusal.clone()),
    };
    let uid = request.uid();
    let bytes = match read::record(uid) {
        Ok(bytes) => bytes,
        Err(Unreadable::Missing) => {
            return without_record(arrival, words, &|host| {
                no_policy(uid, host.map_or(0, |host| host.uid_min))
            });
        }
        Err(why) => return without_record(arrival, words, &|_| unreadable(&why)),
    };
    let policy = match decode::record(&bytes) {
        Ok(policy) => policy,
        Err(why) => return without_record(arrival, words, &|_| bad_policy(&why)),
    };
    let mut log = Log::open(Some(&policy.host.log));
    log.asked(arrival.caller(), words);
    match launch(arrival, &request, &policy, root, &mut log) {
        Ok(never) => match never {},
        Err(refusal) => refuse(&refusal, &mut log, arrival.page()),
    }
}

/// No record answers: the host's file says who may call at all, and where the refusal is written.
fn without_record(
    arrival: &Arrival<'_>,
    words: &[&OsStr],
    refusal: &dyn Fn(Option<&Host<'_>>) -> Refusal,
) -> u8 {
    let bytes = read::host().unwrap_or_default();
    let host = decode::host(&bytes).ok();
    let caller = arrival.caller();
    let known = host.as_ref().is_none_or(|host| host.callers.contains(&caller));
    if let (Some(host), true) = (&host, words == ["-V"] && (known || caller == 0)) {
        return show_settings(host);
    }
    let mut log = Log::open(host.as_ref().map(|host| &host.log));
    log.asked(caller, words);
    let refusal = refusal(host.as_ref());
    // As in suEXEC: too few arguments are told to anybody, all else only to the web server.
    let refusal = if known || refusal.card.status == 101 { refusal } else { wrong_caller(caller) };
    refuse(&refusal, &mut log, arrival.page())
}

/// `-V`, in the format of suEXEC, which panels read.
fn show_settings(host: &Host<'_>) -> u8 {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let log = match host.log.sink {
        Sink::File => format!("AP_LOG_EXEC=\"{}\"", text(host.log.file)),
        Sink::Syslog => "AP_LOG_SYSLOG".to_owned(),
    };
    let settings = [
        format!("AP_DOC_ROOT=\"{}\"", text(host.docroot)),
        format!("AP_GID_MIN={}", host.gid_min),
        format!("AP_HTTPD_USER=\"{}\"", text(host.caller_name)),
        log,
        format!("AP_SAFE_PATH=\"{}\"", text(host.safe_path)),
        format!("AP_SUEXEC_UMASK={:03o}", host.umask),
        format!("AP_UID_MIN={}", host.uid_min),
        format!("AP_USERDIR_SUFFIX=\"{}\"", text(host.userdir)),
    ];
    for setting in settings {
        let _ = writeln!(std::io::stderr(), " -D {setting}");
    }
    0
}
