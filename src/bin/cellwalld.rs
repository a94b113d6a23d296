//! `cellwalld`: the supervisor of FastCGI pools and, started by it, their broker, the zygotes of CGI pools, and the pulse.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "whoever starts the daemon must see why it ends"
)]

use std::ffi::{CStr, OsString};
use std::process::ExitCode;

use cellwall::pool::broker::serve_sealed;
use cellwall::pool::descent::descend;
use cellwall::pool::journal::account;
use cellwall::pool::pulse;
use cellwall::pool::supervisor::{Account, Setup, Supervisor};
use cellwall::pool::zygote::{self, Birth};
use nix::sys::prctl::set_name;
use nix::unistd::Pid;

fn main() -> ExitCode {
    // First: no library acts on it.
    let environment = cellwall::sys::process::take_environment();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or("?")).collect();
    match words[..] {
        [] => supervise(environment),
        [role @ ("--broker" | "--pulse"), uid, gid] => match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) if role == "--broker" => relay(Account { uid, gid }),
            (Ok(uid), Ok(gid)) => beat(Account { uid, gid }),
            _ => usage(),
        },
        ["--zygote", uid, daemon, prepared, tree] => match (uid.parse(), daemon.parse()) {
            (Ok(uid), Ok(daemon)) if tree.is_empty() || tree.starts_with('/') => zygote::serve(&Birth {
                uid,
                daemon: Pid::from_raw(daemon),
                tree: tree.as_bytes().to_vec(),
                prepared: prepared == "1",
            }),
            _ => usage(),
        },
        ["--version" | "-V"] => {
            println!("cellwalld {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn supervise(environment: Vec<&'static CStr>) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("cellwalld: only root can start it: systemctl start cellwalld");
        return ExitCode::FAILURE;
    }
    // This account is the broker's alone, or else nobody's.
    let found = account(|name, _| name == "cellwall").or_else(|| account(|name, _| name == "nobody"));
    let (uid, gid) = found.filter(|(uid, _)| *uid != 0).unwrap_or((65_534, 65_534));
    match Supervisor::run(Setup { account: Account { uid, gid }, environment }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cellwalld: {why}");
            ExitCode::FAILURE
        }
    }
}

fn relay(account: Account) -> ExitCode {
    // For top(1): what is started by /proc/self/exe is called so otherwise.
    let _ = set_name(c"cellwall-broker");
    let channel = match descend(account) {
        Ok(channel) => channel,
        Err(why) => {
            eprintln!("cellwalld: the broker cannot begin: {why}");
            return ExitCode::FAILURE;
        }
    };
    match serve_sealed(channel) {
        Ok(()) => ExitCode::SUCCESS,
        // Its supervisor writes it down, or is gone.
        Err(_) => ExitCode::FAILURE,
    }
}

fn beat(account: Account) -> ExitCode {
    let _ = set_name(c"cellwall-pulse");
    match pulse::serve(account) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cellwalld: the pulse cannot begin: {why}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: cellwalld [--version]\nIt takes no options: see cellwalld(8), and [pool] in cellwall.toml(5)."
    );
    ExitCode::from(2)
}
