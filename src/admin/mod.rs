//! The administrator's command: one file for each subcommand, each with `Args` and `run`.

pub mod again;
mod alone;
pub mod apache;
pub mod apply;
pub mod audit;
mod backwards;
pub mod cause;
mod cell;
pub mod check;
pub mod chroot;
pub mod codes;
pub mod denials;
mod elsewhere;
pub mod explain;
pub mod fix;
mod glance;
pub mod ground;
pub mod import;
pub mod installed;
pub mod jail;
pub mod journal;
pub mod json;
pub mod kernel;
pub mod learn;
pub mod mend;
mod now;
mod patience;
pub mod policy;
pub mod pool;
pub mod pooled;
pub mod reach;
pub mod rehearsal;
mod rotated;
pub mod run;
pub mod say;
pub mod set;
pub mod status;
pub mod top;
pub mod trace;
pub mod traffic;
mod trouble;
pub mod until;
pub mod views;
pub mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::store;

/// Every site of a shared web server in its own cell.
#[derive(Debug, Parser)]
#[command(name = "cellwall", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile the configuration to policy records
    Apply(apply::Args),
    /// Check the configuration, or a file of it, and write nothing
    Check(check::Args),
    /// Print a policy record, with the line behind each rule
    Policy(policy::Args),
    /// Tell why a request was refused, by the reference on the visitor's page
    Why(why::Args),
    /// Tell what the kernel denied a site's programs
    Denials(denials::Args),
    /// Rehearse a launch stage by stage, or print the manual of a code
    Explain(explain::Args),
    /// Watch a program of a site's and propose what its rules lack
    Learn(learn::Args),
    /// Run a command in a site's cell
    Run(run::Args),
    /// Show, check and enter a site's cell
    Jail(jail::Args),
    /// Show the sites of the pool: workers, queue, requests, times
    Status(status::Args),
    /// Show them again and again, with what happened in between
    Top(top::Args),
    /// Stop, start or restart the FastCGI pool of one site
    Pool(pool::Args),
    /// Tell the pool that a site was deployed: new workers, and no lost request
    Deployed(pool::Deployed),
    /// List owners and modes that the launcher refuses, or mend them
    Fix(fix::Args),
    /// Change one key of a site's file, and apply it
    Set(set::Args),
    /// Make files of sites of an Apache with suEXEC, or of php-fpm's pools
    Import(import::Args),
}

/// Reads the command line and does what it says. Wrong arguments end with status 2.
#[must_use]
pub fn run() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let ended = match Cli::try_parse_from(&words) {
        Ok(cli) => done(cli.command),
        Err(wrong) => misspelt(&wrong, &words),
    };
    if let Some(status) = FAILURES.into_iter().find(|status| ended == ExitCode::from(*status))
        && asks_for_json(&words)
    {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        say::unanswered(status, &words);
    }
    if say::lost() { End::Failed.into() } else { ended }
}

/// The statuses of what did not go well.
const FAILURES: [u8; 3] = [1, WRONG_WORDS, 3];

/// The command line is wrong.
const WRONG_WORDS: u8 = 2;

/// As clap says it; `--help` and `--version` come this way too.
fn misspelt(wrong: &clap::Error, words: &[OsString]) -> ExitCode {
    drop(wrong.print());
    if !wrong.use_stderr() {
        return End::Good.into();
    }
    let text = wrong.to_string();
    // What is missing stands on lines of its own beneath the sentence.
    let (message, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    say::keep(message.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    let said = rest.lines().filter(|line| !line.starts_with("For more information"));
    say::keep(said.collect::<Vec<_>>().join("\n"));
    let begun = begun(words);
    if wrong.kind() == ErrorKind::MissingRequiredArgument
        && let Some(example) = example(&begun, words)
    {
        say::note(format_args!("help: run: {example}"));
    }
    say::keep(format!("help: run: {begun} --help"));
    WRONG_WORDS.into()
}

/// One that works, of a command that can be asked in several ways.
fn example(begun: &str, words: &[OsString]) -> Option<String> {
    match begun {
        "cellwall why" => Some(
            "cellwall why --last # the last refusal; the reference on a visitor's page in its place: that one".to_owned(),
        ),
        "cellwall learn" => {
            let site = words.get(2).and_then(|word| word.to_str()).filter(|word| !word.starts_with('-'));
            let known = || store::uids().into_iter().find_map(|uid| store::names(uid).pop_first());
            let site = mend::word(site.map(str::to_owned).or_else(known)?);
            Some(format!(
                "cellwall learn {site} --traffic 1m # hears what is served; --request PATH runs a script, -- COMMAND a command"
            ))
        }
        _ => None,
    }
}

/// The command with which the words begin, as far as there is one of that name (`cellwall jail build`).
fn begun(words: &[OsString]) -> String {
    let (mut command, mut named) = (Cli::command(), "cellwall".to_owned());
    let names = words.iter().skip(1).filter_map(|word| word.to_str()).filter(|word| !word.starts_with('-'));
    for name in names {
        let Some(next) = command.find_subcommand(name).cloned() else { break };
        (command, named) = (next, format!("{named} {name}"));
    }
    named
}

/// The words behind `--` are another program's.
fn asks_for_json(words: &[OsString]) -> bool {
    words.iter().take_while(|word| *word != "--").any(|word| word == "--json")
}

fn done(command: Command) -> ExitCode {
    match command {
        Command::Apply(args) => apply::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Denials(args) => denials::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Learn(args) => learn::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Jail(args) => jail::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Pool(args) => pool::run(&args),
        Command::Deployed(args) => pool::deployed(&args),
        Command::Fix(args) => fix::run(&args),
        Command::Set(args) => set::run(&args),
        Command::Import(args) => import::run(&args),
    }
}

/// How a command ends; the numbers are the same for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing is wrong.
    Good,
    /// The configuration is wrong, or what was asked for is not there.
    Findings,
    /// Not permitted, or the system failed.
    Failed,
}

impl End {
    /// The exit status.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Findings => 1,
            Self::Failed => 3,
        }
    }
}

/// Why nothing was done, and how the command ends.
#[derive(Debug)]
pub struct Stop {
    message: String,
    end: End,
}

impl Stop {
    /// What was asked for is wrong, or is not there.
    fn asked(message: impl Into<String>) -> Self {
        Self { message: message.into(), end: End::Findings }
    }

    /// Whoever asked is to ask otherwise; nothing failed.
    fn is_asked(&self) -> bool {
        self.end == End::Findings
    }

    /// Says it.
    fn said(self) -> End {
        say::note(format_args!("error: {}", self.message));
        self.end
    }
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self { message, end: End::Failed }
    }
}

impl From<&str> for Stop {
    fn from(message: &str) -> Self {
        Self::from(message.to_owned())
    }
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(end.status())
    }
}
