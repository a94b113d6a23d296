//! What a CGI request is about: its environment as the broker sent it, and the program that is named there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::sys::stat::{fstat, stat};

use crate::launch::settled::Settled;
use crate::policy::names::is_plain_path;
use crate::refusal::{Card, Refusal};

use super::child::{divide, enter};

/// What a visitor sees who asked for what is not there: the same as from a web server that looks for the file itself.
const ABSENT: &str = "404 Not Found";

/// Enters the directory of a request's program, and gives its command line. Some web servers send a path with more behind the
/// script's name: what is behind the first regular file on the way is the path information (RFC 3875, 4.1.5).
///
/// # Errors
/// S03, S04.
pub fn script(
    environment: &mut Vec<Vec<u8>>,
    cell: &Settled<'_>,
    page: &mut &str,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let no_script =
        || Refusal::new(&NO_SCRIPT, "the request's SCRIPT_FILENAME is no plain absolute path".to_owned());
    let path = environment.iter().find_map(|entry| entry.strip_prefix(b"SCRIPT_FILENAME="));
    let path = path.ok_or_else(no_script)?.to_vec();
    let look =
        |path: &[u8]| stat(OsStr::from_bytes(cell.path(path))).map(|facts| facts.st_mode & libc::S_IFMT);
    let mut file = path.as_slice();
    while look(file) != Ok(libc::S_IFREG) && file.len() > 1 {
        file = divide(file).0;
    }
    if file.len() <= 1 {
        file = &path;
        if matches!(look(file), Ok(libc::S_IFDIR) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG))
        {
            *page = ABSENT;
        }
    }
    // What is behind it may be longer than a path can be.
    if !is_plain_path(file) {
        return Err(no_script());
    }
    let behind = path.get(file.len()..).unwrap_or_default();
    if !behind.is_empty() {
        divided(environment, file, behind);
    }
    enter(cell.path(file), &[])
}

/// Puts right the variables of a request whose script is not where the web server thought.
fn divided(environment: &mut Vec<Vec<u8>>, file: &[u8], behind: &[u8]) {
    let known = environment.iter().any(|entry| entry.starts_with(b"PATH_INFO="));
    for entry in environment.iter_mut() {
        if entry.starts_with(b"SCRIPT_FILENAME=") {
            *entry = [b"SCRIPT_FILENAME=", file].concat();
        } else if entry.starts_with(b"SCRIPT_NAME=") && entry.ends_with(behind) {
            entry.truncate(entry.len().saturating_sub(behind.len()));
        } else if let Some(more) = entry.strip_prefix(b"PATH_INFO=") {
            *entry = [b"PATH_INFO=", behind, more].concat();
        }
    }
    if !known {
        environment.push([b"PATH_INFO=", behind].concat());
    }
}

/// `NAME=value`, a NUL behind each.
///
/// # Errors
/// S05.
pub fn entries(file: &OwnedFd) -> Result<Vec<Vec<u8>>, Refusal> {
    let failed = |errno: Errno| Refusal::call(&ENVIRONMENT, "the request's environment", errno);
    let size = fstat(file).map_err(failed)?.st_size;
    if !(0..=ENVIRONMENT_MAX).contains(&size) {
        return Err(Refusal::new(&ENVIRONMENT, format!("the request's environment has {size} bytes")));
    }
    let mut file = File::from(file.as_fd().try_clone_to_owned().map_err(|_| failed(Errno::EMFILE))?);
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).map_err(|_| failed(Errno::ESPIPE))?;
    let limit = u64::try_from(ENVIRONMENT_MAX).unwrap_or(0);
    file.take(limit).read_to_end(&mut bytes).map_err(|_| failed(Errno::EIO))?;
    Ok(bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Bytes; the policy's own limit is checked by the pipeline.
const ENVIRONMENT_MAX: i64 = 1 << 20;

static NO_SCRIPT: Card =
    Card { code: "S04", status: 88, remedy: "# set SCRIPT_FILENAME in the web server's FastCGI parameters" };
static ENVIRONMENT: Card = Card { code: "S05", status: 88, remedy: "cellwall explain S05" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_script_is_its_path_information() {
        let mut environment =
            [&b"SCRIPT_FILENAME=/srv/a.cgi/x/y"[..], b"SCRIPT_NAME=/cgi/a.cgi/x/y", b"QUERY_STRING=/x/y"]
                .map(<[u8]>::to_vec)
                .to_vec();
        divided(&mut environment, b"/srv/a.cgi", b"/x/y");
        let want: [&[u8]; 4] = [
            b"SCRIPT_FILENAME=/srv/a.cgi",
            b"SCRIPT_NAME=/cgi/a.cgi",
            b"QUERY_STRING=/x/y",
            b"PATH_INFO=/x/y",
        ];
        assert_eq!(environment, want);
    }

    #[test]
    fn a_slash_at_the_end_stays_there() {
        let mut environment = [&b"SCRIPT_FILENAME=/srv/a.cgi/x"[..], b"SCRIPT_NAME=/a.cgi/x", b"PATH_INFO=/"]
            .map(<[u8]>::to_vec)
            .to_vec();
        divided(&mut environment, b"/srv/a.cgi", b"/x");
        let want: [&[u8]; 3] = [b"SCRIPT_FILENAME=/srv/a.cgi", b"SCRIPT_NAME=/a.cgi", b"PATH_INFO=/x/"];
        assert_eq!(environment, want);
    }
}
