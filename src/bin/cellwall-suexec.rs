//! The setuid launcher: suEXEC's command line, Cellwall's pipeline.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::ExitCode;

use cellwall::launch::{arrival, authorize, launch, request};
use cellwall::policy::read::Unreadable;
use cellwall::policy::{decode, read};
use cellwall::record::Log;
use cellwall::refusal::Refusal;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    let arrival = match arrival::arrive() {
        Ok(arrival) => arrival,
        Err(refusal) => return refuse(&refusal, &mut Log::open(None)),
    };
    let bytes = match request::parse(&words) {
        Ok(request) => read::record(request.uid).map_err(|why| unreadable(request.uid, &why)),
        Err(refusal) => Err(refusal),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(refusal) => return refuse_by_host(&refusal),
    };
    let policy = match decode::record(&bytes) {
        Ok(policy) => policy,
        Err(why) => return refuse_by_host(&authorize::bad_policy(&why)),
    };
    let mut log = Log::open(Some(&policy.host.log));
    let ended = request::parse(&words).and_then(|request| launch(&arrival, &request, &policy, &mut log));
    match ended {
        Ok(never) => match never {},
        Err(refusal) => refuse(&refusal, &mut log),
    }
}

fn unreadable(uid: u32, why: &Unreadable) -> Refusal {
    match why {
        Unreadable::Missing => authorize::no_policy(uid),
        Unreadable::Unsafe(what) => authorize::bad_policy(what),
        Unreadable::Failed(errno) => authorize::bad_policy(&errno.desc()),
    }
}

/// There is no record of the uid's: the host file says where the refusal is written.
fn refuse_by_host(refusal: &Refusal) -> ExitCode {
    let bytes = read::host().unwrap_or_default();
    let host = decode::host(&bytes).ok();
    refuse(refusal, &mut Log::open(host.as_ref().map(|host| &host.log)))
}

/// One record, the same page for every visitor, and suEXEC's status.
fn refuse(refusal: &Refusal, log: &mut Log<'_>) -> ExitCode {
    let lost = if log.refused(refusal) { "" } else { " (its record is lost)" };
    let reference = log.reference();
    // A failed write changes nothing: the status says it all.
    let _ = writeln!(std::io::stderr(), "cellwall: refused, reference {reference}{lost}");
    let _ = write!(
        std::io::stdout(),
        "Status: 500 Internal Server Error\r\nContent-Type: text/html\r\n\r\n<!DOCTYPE html>\n<title>500 Internal \
         Server Error</title>\n<p>The server could not answer. Reference: {reference}</p>\n"
    );
    ExitCode::from(refusal.card.status)
}
