//! Starts programs: aloud (they show their own progress) or quietly (a log, and a sign of life).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::Outcome;
use crate::say::{self, Pulse};
use crate::tree;

/// The cargo that runs us, in the root of the repository.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(tree::root());
    command
}

/// Runs it with our own standard streams.
pub(crate) fn aloud(command: &mut Command) -> Outcome {
    say::note(&format!("$ {}", words(command)));
    let status = command.status().map_err(|why| not_started(command, &why))?;
    verdict(command, status, None)
}

/// Runs it with its output in a log; shows the log's end when it fails.
pub(crate) fn quietly(what: &str, command: &mut Command) -> Outcome {
    let log = log_file(what)?;
    let file = File::create(&log).map_err(|why| format!("cannot write {}: {why}", log.display()))?;
    let twin = file.try_clone().map_err(|why| format!("cannot write {}: {why}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(twin);
    let mut child = command.spawn().map_err(|why| not_started(command, &why))?;
    let mut pulse = Pulse::new(what);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(why) => return Err(format!("cannot wait for {}: {why}", words(command))),
        }
        pulse.beat(None);
    };
    pulse.end();
    verdict(command, status, Some(&log))
}

/// Its standard output, whatever its status was.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(Stdio::null()).output().map_err(|why| not_started(command, &why))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Is there such a program on PATH?
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).any(|directory| directory.join(program).is_file())
}

/// The command as a person would type it.
pub(crate) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let all = std::iter::once(program).chain(command.get_args());
    all.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn verdict(command: &Command, status: ExitStatus, log: Option<&Path>) -> Outcome {
    if status.success() {
        return Ok(());
    }
    let mut why = format!("`{}` failed ({status}).", words(command));
    if let Some(log) = log {
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n");
        why = format!("{why} The end of {}:\n{tail}", log.display());
    }
    Err(why)
}

fn not_started(command: &Command, why: &io::Error) -> String {
    format!("cannot start `{}`: {why}", words(command))
}

fn log_file(what: &str) -> Outcome<PathBuf> {
    let directory = tree::target().join("xtask");
    fs::create_dir_all(&directory).map_err(|why| format!("cannot make {}: {why}", directory.display()))?;
    let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(directory.join(format!("{name}.log")))
}
