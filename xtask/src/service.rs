//! The units of an installed Cellwall, and the daemon that may run without them.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::{run, say};

/// A running daemon listens there.
const STATUS: &str = "/run/cellwall/status.sock";
const DAEMON: &str = "cellwalld.service";
/// Without its site the name stands for every site's socket.
const SOCKETS: &str = "cellwalld@.socket";
/// The oldest process of this name is the daemon; the others are its children, which end with it.
const END: &str = "kill -TERM $(pgrep -o -x cellwalld)";

/// Does systemd run this machine? (sd_booted(3))
pub(crate) fn is_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Tells systemd of units that have come, changed or gone.
pub(crate) fn reload() -> Outcome {
    if !is_here() {
        return Ok(());
    }
    run::quietly("systemctl daemon-reload", &mut systemctl(&["daemon-reload"]))
}

/// Starts a service again that runs.
pub(crate) fn restart(unit: &str) -> Outcome {
    if !is_here() {
        return Ok(());
    }
    run::quietly(&format!("systemctl try-restart {unit}"), &mut systemctl(&["try-restart", unit]))
}

/// A daemon that runs goes on with the program that was there when it started; from now on it is the new one.
pub(crate) fn renew() -> Outcome {
    let active =
        || systemctl(&["is-active", "--quiet", DAEMON]).status().is_ok_and(|status| status.success());
    if is_here() && active() {
        run::quietly("systemctl try-restart cellwalld", &mut systemctl(&["try-restart", DAEMON]))?;
        say::note("cellwalld was restarted; requests that it had were finished");
    } else if answers() {
        say::notice(&format!("cellwalld still runs as it was before. Start it again after: {END}"));
    }
    Ok(())
}

/// Ends all of ours and has none of it come back; refuses while a daemon goes on that systemd does not know.
pub(crate) fn stop() -> Outcome {
    if is_here() {
        stop_units()?;
    }
    if answers() {
        return Err(format!(
            "cellwalld runs, as root, and systemd did not start it. Nothing was removed. End it first: {END}"
        ));
    }
    Ok(())
}

/// Disabling the template takes the links of every instance away; only a pattern names those that are active.
fn stop_units() -> Outcome {
    let units = ["cellwall-views.path", "cellwall-views.service", SOCKETS, DAEMON];
    let known = |unit: &&str| {
        run::output(&mut systemctl(&["list-unit-files", "--no-legend", unit]))
            .is_ok_and(|said| !said.is_empty())
    };
    let known: Vec<&str> = units.into_iter().filter(known).collect();
    if known.is_empty() {
        return Ok(());
    }
    run::quietly("systemctl disable", systemctl(&["disable"]).args(&known))?;
    let active = known.iter().map(|unit| if *unit == SOCKETS { "cellwalld@*.socket" } else { unit });
    run::quietly("systemctl stop", systemctl(&["stop"]).args(active))?;
    say::note(&format!("stopped and disabled {}", known.join(", ")));
    Ok(())
}

/// Is there a daemon? The file of a dead one may be left; connecting tells.
fn answers() -> bool {
    UnixStream::connect(STATUS).is_ok()
}

fn systemctl(words: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(words);
    command
}
