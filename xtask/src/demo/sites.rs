//! What stands on the two sites, and the rules that their administrator wrote.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Outcome;
use crate::run;

use super::host::{self, USERS};

/// The TCP port that the rules list, as a database's would be, and one that they do not.
pub(crate) const LISTED_PORT: u16 = 3306;
pub(crate) const OTHER_PORT: u16 = 6379;
/// A file that an administrator left readable for all.
pub(crate) const LEFT_BEHIND: &str = "/var/backups/customers.csv";

const HELLO_PHP: &str =
    "<?php echo 'uid=', posix_geteuid(), ' gid=', posix_getegid(), ' by PHP ', PHP_VERSION;\n";
const HELLO_PERL: &str =
    "#!/usr/bin/perl\nprintf \"Content-Type: text/plain\\n\\nuid=%d gid=%d by Perl %vd\", $>, $) + 0, $^V;\n";
const GUESTBOOK: &str =
    "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\nWelcome to the guestbook.\";\n";
const PROBE: &str = include_str!("probe.pl");
/// Compiled: a program whose own start costs next to nothing.
const TINY: &str = "#include <unistd.h>\nint main(void) { return write(1, \"Content-Type: text/plain\\n\\n\", 26) != 26; }\n";

/// The two sites and what runs beside them.
pub(crate) struct Sites {
    pub(crate) rose: Site,
    pub(crate) fern: Site,
}

/// One site.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) uid: u32,
    /// A process of its owner's, outside any web server: a job that runs all day.
    pub(crate) job: Child,
}

/// Where the small program for the measurement stands: on a site of its own, which needs no interpreter.
pub(crate) const TINY_SITE: &str = "/var/www/rose/tiny";

/// Puts files in place, applies the rules, and starts what the probes look for.
pub(crate) fn plant() -> Outcome<Sites> {
    let [rose, fern] = USERS.map(|(name, uid)| site(name, uid));
    let sites = Sites { rose: rose?, fern: fern? };
    plant_tiny(&sites.rose)?;
    write(Path::new(LEFT_BEHIND), b"name,card\n", 0, 0o644)?;
    for port in [LISTED_PORT, OTHER_PORT] {
        listen(port)?;
    }
    let (good, said) = host::cellwall(&["apply"])?;
    if good { Ok(sites) } else { Err(format!("cellwall apply refused the demonstration's sites:\n{said}")) }
}

/// The site file, as an administrator would write it.
pub(crate) fn rules(name: &str) -> String {
    format!(
        "user = \"{name}\"\ndocroot = \"/var/www/{name}/htdocs\"\nprofile = [\"php\", \"perl\"]\n\n\
         [files]\nwrite = [\"/var/www/{name}/htdocs/uploads\"]\n[network]\nconnect = [{LISTED_PORT}]\n"
    )
}

fn site(name: &'static str, uid: u32) -> Outcome<Site> {
    let htdocs = Path::new("/var/www").join(name).join("htdocs");
    let uploads = htdocs.join("uploads");
    fs::create_dir_all(&uploads).map_err(|why| format!("{}: {why}", uploads.display()))?;
    for directory in htdocs.ancestors().take(2).chain([uploads.as_path()]) {
        own(directory, uid, 0o755)?;
    }
    write(&htdocs.join("hello.php"), HELLO_PHP.as_bytes(), uid, 0o644)?;
    write(&htdocs.join("hello.cgi"), HELLO_PERL.as_bytes(), uid, 0o755)?;
    write(&htdocs.join("probe.cgi"), PROBE.as_bytes(), uid, 0o755)?;
    write(&htdocs.join("guestbook.cgi"), GUESTBOOK.as_bytes(), uid, 0o755)?;
    // As every web application has one, and as readable as a default umask makes it.
    write(&htdocs.join("config.php"), b"<?php $password = 'secret';\n", uid, 0o644)?;
    write(
        &Path::new("/etc/cellwall/sites.d").join(format!("{name}.toml")),
        rules(name).as_bytes(),
        0,
        0o644,
    )?;
    let mut job = Command::new("sleep");
    job.arg("1d").uid(uid).gid(uid).stdin(Stdio::null()).current_dir("/");
    let job = job.spawn().map_err(|why| format!("cannot start a job of {name}: {why}"))?;
    Ok(Site { name, uid, job })
}

fn plant_tiny(owner: &Site) -> Outcome {
    let rules = format!(
        "user = \"{}\"\ndocroot = \"{TINY_SITE}\"\nprofile = \"static\"\n\n[network]\nconnect = [{LISTED_PORT}]\n",
        owner.name
    );
    write(&Path::new(TINY_SITE).join("tiny.cgi"), &compile()?, owner.uid, 0o755)?;
    own(Path::new(TINY_SITE), owner.uid, 0o755)?;
    write(Path::new("/etc/cellwall/sites.d/rose-tiny.toml"), rules.as_bytes(), 0, 0o644)
}

fn compile() -> Outcome<Vec<u8>> {
    let failed = |why| format!("cannot compile: {why}");
    fs::write("/run/tiny.c", TINY).map_err(failed)?;
    let words = ["-O2", "-static", "-o", "/run/tiny", "/run/tiny.c"];
    run::quietly("compiling a small program", Command::new("cc").args(words))?;
    fs::read("/run/tiny").map_err(failed)
}

fn listen(port: u16) -> Outcome {
    let socket =
        std::net::TcpListener::bind(("127.0.0.1", port)).map_err(|why| format!("port {port}: {why}"))?;
    std::thread::spawn(move || socket.incoming().for_each(drop));
    Ok(())
}

fn write(path: &Path, bytes: &[u8], uid: u32, mode: u32) -> Outcome {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).map_err(|why| format!("{}: {why}", above.display()))?;
    }
    fs::write(path, bytes).map_err(|why| format!("{}: {why}", path.display()))?;
    own(path, uid, mode)
}

fn own(path: &Path, uid: u32, mode: u32) -> Outcome {
    let failed = |why| format!("{}: {why}", path.display());
    chown(path, Some(uid), Some(uid)).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}
