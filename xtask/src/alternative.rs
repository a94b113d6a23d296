//! Apache starts suEXEC from one compiled-in path: on Debian a link of update-alternatives(1), on Fedora a file of httpd's, in
//! whose place a drop-in of its unit mounts another one.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::{run, say, service};

/// Makes Apache use Cellwall.
pub(crate) const CHOOSE: &str = "update-alternatives --set suexec /usr/lib/cellwall/cellwall-suexec";
/// Makes Apache use Debian's own choice.
pub(crate) const GO_BACK: &str = "update-alternatives --auto suexec";

const LAUNCHER: &str = "/usr/lib/cellwall/cellwall-suexec";
const LINK: &str = "/usr/lib/apache2/suexec";
/// httpd's own, on Fedora and its relatives.
const HTTPDS: &str = "/usr/sbin/suexec";
/// What an administrator writes there to have httpd start ours; it goes with us.
pub(crate) const DROP_IN: &str = "/etc/systemd/system/httpd.service.d/cellwall.conf";
const TOOL: &str = "update-alternatives";
/// Below Debian's own (10 and 20): whoever has a suEXEC keeps it until an administrator chooses.
const PRIORITY: &str = "5";

/// The choice before, for [`restore`].
pub(crate) fn before() -> Outcome<String> {
    if run::is_there(TOOL) { choice() } else { Ok("none".to_owned()) }
}

/// Is Debian's Apache here? Without it nobody starts a suEXEC, and the link has no directory.
pub(crate) fn is_apache_here() -> bool {
    Path::new(LINK).parent().is_some_and(Path::is_dir)
}

/// Registers the launcher; with `activate` Apache uses it from now on.
pub(crate) fn register(activate: bool) -> Outcome {
    if !is_apache_here() && Path::new(HTTPDS).exists() {
        say::note(&format!(
            "httpd starts {HTTPDS}; let it start Cellwall, and go back by removing the file:"
        ));
        let example = "/usr/share/doc/cellwall/examples/httpd/cellwall.conf";
        say::note(&format!("    install -D -m 644 {example} {DROP_IN}"));
        say::note("    systemctl daemon-reload && systemctl restart httpd");
        return Ok(());
    }
    if !run::is_there(TOOL) {
        say::notice(&format!(
            "There is no {TOOL} here. Apache starts its suEXEC from the path that `apachectl -V`"
        ));
        say::note("shows as SUEXEC_BIN; put a link to the launcher there.");
        return Ok(());
    }
    if !is_apache_here() {
        say::note(
            "there is no Apache of Debian's here, so no suEXEC whose place could be taken; once there is,",
        );
        say::note("install again");
        return Ok(());
    }
    run::quietly(
        "update-alternatives",
        Command::new(TOOL).args(["--install", LINK, "suexec", LAUNCHER, PRIORITY]),
    )?;
    if activate {
        run::quietly("update-alternatives", Command::new(TOOL).args(["--set", "suexec", LAUNCHER]))?;
    }
    say::note(&format!("Apache's suEXEC: {LINK} is {}", chosen()?));
    Ok(())
}

/// Takes the registration back. `before` is what [`before`] answered.
pub(crate) fn restore(before: &str) -> Outcome {
    unmount()?;
    if !run::is_there(TOOL) || !registered()? {
        return Ok(());
    }
    run::quietly("update-alternatives", Command::new(TOOL).args(["--remove", "suexec", LAUNCHER]))?;
    let others = run::output(Command::new(TOOL).args(["--list", "suexec"]))?;
    if before.starts_with('/') && before != LAUNCHER && others.lines().any(|line| line == before) {
        run::quietly("update-alternatives", Command::new(TOOL).args(["--set", "suexec", before]))?;
    }
    say::note(&format!("Apache's suEXEC: {}", if others.is_empty() { "none".to_owned() } else { chosen()? }));
    Ok(())
}

/// httpd would not start again with a launcher in its unit that is not there.
fn unmount() -> Outcome {
    if fs::remove_file(DROP_IN).is_err() {
        return Ok(());
    }
    // Others may have words for that unit as well.
    drop(Path::new(DROP_IN).parent().map(fs::remove_dir));
    say::note(&format!("removed {DROP_IN}: httpd starts its own suEXEC"));
    service::reload()?;
    service::restart("httpd.service")
}

fn registered() -> Outcome<bool> {
    let list = run::output(Command::new(TOOL).args(["--list", "suexec"]))?;
    Ok(list.lines().any(|line| line == LAUNCHER))
}

/// `auto`, or the path that an administrator has set.
fn choice() -> Outcome<String> {
    let manual = field("Status")? == "manual";
    if manual { chosen() } else { Ok("auto".to_owned()) }
}

fn chosen() -> Outcome<String> {
    field("Value")
}

fn field(name: &str) -> Outcome<String> {
    let text = run::output(Command::new(TOOL).args(["--query", "suexec"]))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Ok(value.unwrap_or("none").to_owned())
}
