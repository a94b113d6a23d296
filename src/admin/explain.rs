//! `cellwall explain`: the manual of a code, or the rehearsal of a launch by the launcher's own stages. Root.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{Group, User};

use crate::config::SITES_DIRECTORY;

use super::json::Json;
use super::rehearsal::{Wish, rehearsed};
use super::{End, Stop, check, codes, mend, say};

/// Arguments of `cellwall explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A code such as V118; or USER GROUP DIRECTORY COMMAND, with ~USER for a request below a home
    #[arg(required = true, num_args = 1..=4, allow_hyphen_values = true, value_names = ["CODE or USER", "GROUP", "DIRECTORY", "COMMAND"])]
    pub words: Vec<OsString>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match args.words.as_slice() {
        [code] => manual(args, code),
        [user, group, directory, command] => rehearsal(args, [user, group, directory, command]),
        words => {
            let help = whole(words).map_or_else(String::new, |command| format!("\n  help: run: {command}"));
            say::note(format_args!("error: give a CODE, or USER GROUP DIRECTORY COMMAND{help}"));
            return ExitCode::from(2);
        }
    }
    .unwrap_or_else(Stop::said)
    .into()
}

/// What was meant by a program that was named by its whole path.
fn whole(words: &[OsString]) -> Option<String> {
    let (user, path) = (words.first()?, Path::new(words.last()?));
    let group = words.get(1).filter(|_| words.len() > 2).unwrap_or(user);
    let parts =
        [user.as_os_str(), group.as_os_str(), path.parent()?.as_os_str(), path.file_name()?].map(mend::word);
    path.is_absolute().then(|| format!("cellwall explain {}", parts.join(" ")))
}

fn manual(args: &Args, code: &OsStr) -> Result<End, Stop> {
    let code = code.to_string_lossy().to_ascii_uppercase();
    match codes::section(&code) {
        Some(section) if args.json => {
            say::out(Json::object([
                ("code", Json::text(&code)),
                ("status", codes::status(&code).map_or(Json::Null, Json::text)),
                ("means", codes::meaning(&code).map_or(Json::Null, Json::text)),
                ("text", Json::text(section)),
            ]));
            Ok(End::Good)
        }
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

/// Told as the launcher's record and `cellwall why` would.
fn rehearsal(args: &Args, [user, group, directory, command]: [&OsStr; 4]) -> Result<End, Stop> {
    let (user, group) = (user_number(&user.to_string_lossy())?, group_number(&group.to_string_lossy())?);
    let wish = Wish { user: &user, group: &group, directory: Path::new(directory), command, caller: None };
    let told = rehearsed(&wish)?;
    if args.json {
        say::out(told.json());
    } else {
        told.stages.iter().for_each(|(stage, text)| line(stage, "ok", text));
        if let Some(refused) = &told.refused {
            let [code, status, why] = ["code", "status", "why"].map(|name| refused.field(name));
            line(&refused.stage, "REFUSED", &format!("{code} (exit status {status}): {why}"));
            line("", "repair", &mend::best(&refused.entry));
            // What `check` would say first is said here.
            say::problems(
                &mend::unapplied_file(&refused.entry).map_or_else(Vec::new, |file| check::errors(&file)),
            );
        }
    }
    Ok(if told.refused.is_some() { End::Findings } else { End::Good })
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
