//! The account of the pool's broker: made where the machine has none, taken away again where we made it.

use std::process::Command;

use crate::Outcome;
use crate::{run, say};

/// Without it the broker is `nobody`, as much else is, and what is `nobody` may signal and watch it.
const NAME: &str = "cellwall";
/// The file that describes it, as the manifest installs it.
const DESCRIPTION: &str = "cellwall.conf";

/// Has the machine this account?
pub(crate) fn is_there() -> bool {
    Command::new("getent").args(["passwd", NAME]).output().is_ok_and(|said| said.status.success())
}

/// Makes it, and its group.
pub(crate) fn make() -> Outcome {
    let mut command = if run::is_there("systemd-sysusers") {
        let mut command = Command::new("systemd-sysusers");
        command.arg(DESCRIPTION);
        command
    } else if run::is_there("useradd") {
        let mut command = Command::new("useradd");
        command.args(["--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell"]);
        command.args(["/usr/sbin/nologin", "--comment", "Cellwall pool broker", NAME]);
        command
    } else {
        say::notice(&format!(
            "There is no program here that makes users. Make a system user {NAME}: the broker is nobody else."
        ));
        return Ok(());
    };
    run::quietly("making the broker's account", &mut command)?;
    say::note(&format!("the broker's account: {NAME}"));
    Ok(())
}

/// Takes it away. What is left of it harms nobody, so a failure is told and the removal goes on.
pub(crate) fn remove() {
    for (database, tool) in [("passwd", "userdel"), ("group", "groupdel")] {
        let there = Command::new("getent").args([database, NAME]).output();
        if !there.is_ok_and(|said| said.status.success()) {
            continue;
        }
        match run::quietly(tool, Command::new(tool).arg(NAME)) {
            Ok(()) => say::note(&format!("removed {NAME} from {database}")),
            Err(why) => say::notice(&why),
        }
    }
}
