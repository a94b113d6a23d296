//! What the command itself tries inside a cell, with no program of the site's or the host's.
//!
//! Runs sealed, as the site's user. Each finding is a line on standard output, `state TAB name TAB text TAB piece`: the
//! form that the scripts of [`super::probes`] use as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::super::say;

/// What to look for.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Directories that the site writes to.
    pub(super) private: Vec<String>,
    /// Its docroots, as they are called inside.
    pub(super) docroots: Vec<String>,
    /// Sockets of services, each with the piece that names it.
    pub(super) sockets: Vec<(String, String)>,
    /// Names of hosts.
    pub(super) names: Vec<String>,
    /// What must not be reached.
    pub(super) walls: Vec<String>,
    /// Fonts are asked for.
    pub(super) fonts: bool,
}

/// Looks at all of it.
pub(super) fn look(asks: &Asks) {
    let user = User::from_uid(geteuid()).ok().flatten();
    tell(
        "account",
        user.map(|user| user.name).ok_or("the uid has no name in /etc/passwd".to_owned()),
        "base",
    );
    for docroot in &asks.docroots {
        tell(
            "docroot",
            fs::read_dir(docroot).map(|_| format!("{docroot} can be read")).map_err(at(docroot)),
            "",
        );
    }
    for directory in &asks.private {
        let name = if directory.contains("sess") { "sessions" } else { "temporary files" };
        tell(
            name,
            written(directory).map(|()| format!("{directory} can be written")).map_err(at(directory)),
            "",
        );
    }
    tell("devices", devices(), "");
    tell("time zones", filled("/usr/share/zoneinfo/Europe/Athens"), "tz");
    tell("certificates", certificates(), "tls");
    for name in &asks.names {
        let found = (name.as_str(), 80).to_socket_addrs().map(|mut all| all.next());
        let found = found.map_err(|why| format!("{name}: {why}"));
        let shown = found
            .and_then(|one| one.map(|one| format!("{name} is {}", one.ip())).ok_or_else(|| name.clone()));
        tell("names of hosts", shown, "dns");
    }
    for (socket, piece) in &asks.sockets {
        let open = UnixStream::connect(socket).map(|_| format!("{socket} answers")).map_err(at(socket));
        tell(&format!("socket ({piece})"), open, piece);
    }
    if asks.fonts {
        let font = first_file(Path::new("/usr/share/fonts"), 4);
        let font = font.ok_or_else(|| "no file below /usr/share/fonts".to_owned());
        tell("fonts", font.map(|font| font.display().to_string()), "fonts");
    }
    let open: Vec<&str> = asks.walls.iter().map(String::as_str).filter(|path| opens(path)).collect();
    let walls = if open.is_empty() {
        Ok(format!("{} places of others cannot be opened", asks.walls.len()))
    } else {
        Err(format!("these can be opened: {}", open.join(" ")))
    };
    tell("walls", walls, "");
}

/// One finding.
fn tell(name: &str, found: Result<String, String>, piece: &str) {
    let (state, text) = match found {
        Ok(text) => ("good", text),
        Err(text) => ("bad", text),
    };
    say::out(format_args!("{state}\t{name}\t{}\t{piece}", text.replace(['\t', '\n'], " ")));
}

fn at(path: &str) -> impl FnOnce(io::Error) -> String + '_ {
    move |why| format!("{path}: {why}")
}

fn written(directory: &str) -> io::Result<()> {
    let path = Path::new(directory).join(".cellwall-check");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    file.write_all(b"x")?;
    fs::remove_file(path)
}

fn devices() -> Result<String, String> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.and_then(|mut null| null.write_all(b"x")).map_err(at("/dev/null"))?;
    for path in ["/dev/zero", "/dev/urandom"] {
        File::open(path).and_then(|mut file| file.read_exact(&mut [0])).map_err(at(path))?;
    }
    Ok("null, zero, urandom".to_owned())
}

fn filled(path: &str) -> Result<String, String> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Err(format!("{path} is empty")),
        Ok(_) => Ok(format!("{path} can be read")),
        Err(why) => Err(format!("{path}: {why}")),
    }
}

/// Debian's bundle, or RHEL's.
fn certificates() -> Result<String, String> {
    let bundles = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
    let read = bundles.iter().find_map(|path| Some((path, fs::read_to_string(path).ok()?)));
    let (path, text) = read.ok_or_else(|| format!("neither {} can be read", bundles.join(" nor ")))?;
    match text.matches("BEGIN CERTIFICATE").count() {
        0 => Err(format!("{path} holds no certificate")),
        count => Ok(format!("{count} in {path}")),
    }
}

fn first_file(directory: &Path, depth: u8) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    entries.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            return first_file(&path, depth - 1);
        }
        File::open(&path).ok().filter(|_| path.is_file()).map(|_| path)
    })
}

fn opens(path: &str) -> bool {
    fs::read_dir(path).is_ok() || Path::new(path).is_file() && File::open(path).is_ok()
}
