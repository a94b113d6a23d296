//! Where this host's Apache is, Debian's or Fedora's: its unit, and the suEXEC that it starts.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::installed::Fault;
use super::mend::LAUNCHER;

/// The path that Debian's Apache starts: a link, which `update-alternatives` keeps.
const DEBIANS: &str = "/usr/lib/apache2/suexec";
/// Modules that Debian's Apache loads.
const MODULES: &str = "/etc/apache2/mods-enabled";
/// The path that httpd of Fedora and its relatives starts: a file of its own, in whose place its unit may mount another.
const HTTPDS: &str = "/usr/sbin/suexec";
/// What of the unit's settings does that.
const DROP_IN: &str = "/etc/systemd/system/httpd.service.d";
const OURS: &str = "cellwall.conf";

/// The name of its unit.
#[must_use]
pub fn unit() -> &'static str {
    if is_httpd() { "httpd" } else { "apache2" }
}

/// Fedora's name for it. A host may have neither.
fn is_httpd() -> bool {
    Path::new("/etc/httpd").is_dir() && !Path::new("/etc/apache2").is_dir()
}

/// It starts another suEXEC than ours.
pub(super) fn suexec() -> Option<Fault> {
    if is_httpd() { httpds() } else { debians() }
}

/// As [`suexec`], where Apache starts a suEXEC at all.
pub(super) fn started() -> Option<Fault> {
    suexec().filter(|_| is_httpd() || Path::new(MODULES).join("suexec.load").exists())
}

/// Without it Apache knows no `SuexecUserGroup`. Fedora's loads it unless somebody has changed that.
pub(super) fn module() -> Option<Fault> {
    let modules = Path::new(MODULES);
    (modules.is_dir() && !modules.join("suexec.load").exists()).then(|| Fault {
        found: "Apache's module suexec is not enabled".to_owned(),
        repair: "a2enmod suexec && systemctl restart apache2".to_owned(),
    })
}

fn debians() -> Option<Fault> {
    let real = fs::canonicalize(DEBIANS).or_else(|_| fs::read_link(DEBIANS)).ok()?;
    let set = format!("update-alternatives --set suexec {LAUNCHER}");
    // What is no link stays where it is, and `--set` says so and ends well.
    let own = fs::symlink_metadata(DEBIANS).is_ok_and(|facts| facts.is_file());
    let found =
        if own { "which is a program of its own".to_owned() } else { format!("which is {}", real.display()) };
    (real != Path::new(LAUNCHER)).then(|| Fault {
        found: format!("Apache starts {DEBIANS}, {found}"),
        repair: if own { format!("mv {DEBIANS} {DEBIANS}.before && {set}") } else { set },
    })
}

fn httpds() -> Option<Fault> {
    let ours = file(Path::new(LAUNCHER));
    let running = running();
    let is_ours = |root: &PathBuf| file(&root.join(HTTPDS.trim_start_matches('/'))) == ours;
    let chosen =
        if running.is_empty() { Path::new(DROP_IN).join(OURS).exists() } else { running.iter().all(is_ours) };
    (Path::new(HTTPDS).exists() && !chosen).then(|| Fault {
        found: format!("httpd starts {HTTPDS}, which is its own"),
        repair: format!(
            "mkdir -p {DROP_IN} && printf '[Service]\\nBindReadOnlyPaths={LAUNCHER}:{HTTPDS}\\n' > {DROP_IN}/{OURS} && \
             systemctl daemon-reload && systemctl restart httpd"
        ),
    })
}

/// The roots of the processes of httpd that run: their unit has mounts of its own.
fn running() -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let are_httpd = |process: &PathBuf| fs::read(process.join("comm")).is_ok_and(|name| name == b"httpd\n");
    processes.filter(are_httpd).map(|process| process.join("root")).collect()
}

/// Which file a path leads to.
fn file(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()))
}
