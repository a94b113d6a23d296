//! Paths as web servers write them, made plain. Pure text: whether a file is there, its worker will see.

use crate::launch::authorize::is_beneath;

/// Which file runs, and what the URL has behind it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// Absolute, plain, in the host's view.
    pub(super) file: Vec<u8>,
    /// The docroot that it is beneath, by its place in the list; of a program outside of all of them there is none at it.
    pub(super) docroot: usize,
    /// The URL of the file.
    pub(super) name: Vec<u8>,
    /// What stands behind the file in the URL; empty: nothing.
    pub(super) info: Vec<u8>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The web server names no file, or a directory.
    Unnamed,
    /// A path that leads up, or has control bytes in it.
    Impossible,
    /// Beneath none of the docroots, and none of the programs.
    Outside,
    /// Not one of the endings that the site runs.
    Ending,
}

/// What the web server said about the script.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) script_filename: &'a [u8],
    pub(super) script_name: &'a [u8],
    pub(super) path_info: &'a [u8],
    pub(super) document_root: &'a [u8],
}

/// nginx: a file, with a doubled slash where the root ends in one; the path behind it split off or not. Apache: see
/// [`local`]; with `ProxyPassMatch` it is a URL, encoded, the path behind it not split off. lighttpd, Caddy, HAProxy:
/// docroot and script. fcgiwrap's rule where no file is named: `DOCUMENT_ROOT` and `SCRIPT_NAME`.
///
/// `alone`: the site's one program, which is asked whatever the URL is: also where that names no file (`/`, `/news/`).
pub(super) fn understand(
    said: &Said<'_>,
    docroots: &[Vec<u8>],
    endings: &[Vec<u8>],
    programs: &[Vec<u8>],
    alone: Option<&[u8]>,
) -> Result<Script, Lost> {
    let (file, info) = match (file(said, docroots, endings, programs, alone.is_none()), alone) {
        (Err(Lost::Unnamed), Some(program)) => (program.to_vec(), said_info(said)?),
        (other, _) => other?,
    };
    // Not the docroot itself: that is no file. The longest one counts, as in the launcher.
    let above = docroots.iter().enumerate().filter(|(_, root)| file != **root && is_beneath(&file, root));
    let named = programs.contains(&file).then_some(docroots.len());
    let docroot = above.max_by_key(|(_, root)| root.len()).map(|(place, _)| place);
    let docroot = docroot.or(named).ok_or(Lost::Outside)?;
    let name = said.script_name.strip_suffix(&*info).unwrap_or(said.script_name).to_vec();
    Ok(Script { file, docroot, name, info })
}

/// The file, and what is behind it. `many`: each request may be about another one.
fn file(
    said: &Said<'_>,
    docroots: &[Vec<u8>],
    endings: &[Vec<u8>],
    programs: &[Vec<u8>],
    many: bool,
) -> Result<(Vec<u8>, Vec<u8>), Lost> {
    let (named, proxied) = local(said.script_filename);
    let named = if proxied { without_query(named, said.script_name)? } else { named };
    let mut path = match named {
        b"" if said.document_root.is_empty() || said.script_name.is_empty() => return Err(Lost::Unnamed),
        b"" => plain(&[said.document_root, b"/", said.script_name].concat()),
        named => plain(named),
    }
    .ok_or(Lost::Impossible)?;
    if proxied && path.contains(&b'%') && is_encoded(&path, said.script_name, docroots)? {
        path = decoded(&path).and_then(|path| plain(&path)).ok_or(Lost::Impossible)?;
    }
    let (file, info) = split(path, said_info(said)?, endings, programs)?;
    match file.strip_suffix(b"/") {
        None => Ok((file, info)),
        // Whether it is a program, with a slash behind it, is seen where there are files.
        Some(before)
            if many
                && endings.is_empty()
                && !before.is_empty()
                && !docroots.iter().any(|root| root == before) =>
        {
            Ok((before.to_vec(), [b"/", info.as_slice()].concat()))
        }
        Some(_) => Err(Lost::Unnamed),
    }
}

fn said_info(said: &Said<'_>) -> Result<Vec<u8>, Lost> {
    if said.path_info.is_empty() { Ok(Vec::new()) } else { rooted(said.path_info) }
}

/// A request for the status or ping page names no file of the site's.
pub(super) fn url(script_name: &[u8]) -> Option<Vec<u8>> {
    plain(script_name)
}

/// Where the file ends and the path behind it begins. The web server's own split is believed; where it made none, the
/// first component with a known ending is the file, or a program that is named: what stands behind it never names another
/// one.
fn split(
    path: Vec<u8>,
    info: Vec<u8>,
    endings: &[Vec<u8>],
    programs: &[Vec<u8>],
) -> Result<(Vec<u8>, Vec<u8>), Lost> {
    let known = |file: &[u8]| endings.is_empty() || endings.iter().any(|ending| ends(file, ending));
    if !info.is_empty() {
        let file = path.strip_suffix(&*info).filter(|file| known(file) && !file.is_empty());
        let file = file.map_or_else(|| path.clone(), <[u8]>::to_vec);
        return if known(&file) { Ok((file, info)) } else { Err(Lost::Ending) };
    }
    if endings.is_empty() {
        let behind = |program: &Vec<u8>| {
            let info = path.strip_prefix(&**program).filter(|rest| rest.starts_with(b"/"))?;
            Some((program.clone(), info.to_vec()))
        };
        return Ok(programs.iter().find_map(behind).unwrap_or((path, info)));
    }
    let borders = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
    let found = borders.chain([path.len()]).find_map(|place| {
        let (file, rest) = path.split_at_checked(place)?;
        known(file).then(|| (file.to_vec(), rest.to_vec()))
    });
    found.ok_or(Lost::Ending)
}

/// `.php` alone is no file with that ending.
fn ends(file: &[u8], ending: &[u8]) -> bool {
    let name = file.rsplit(|byte| *byte == b'/').next().unwrap_or(file);
    name.len() > ending.len() && name.ends_with(ending)
}

/// Without what mod_proxy_fcgi puts in front (`proxy:fcgi://host`, `proxy:balancer://name`, with the socket's path and
/// `|` between or not). Second: it was such a URL.
pub(super) fn local(name: &[u8]) -> (&[u8], bool) {
    let url = name.strip_prefix(b"proxy:").unwrap_or(name);
    let url = match url.iter().position(|byte| *byte == b'|') {
        Some(bar) if url.starts_with(b"unix:") => url.get(bar.saturating_add(1)..).unwrap_or_default(),
        _ => url,
    };
    let Some(rest) = url.strip_prefix(b"fcgi://").or_else(|| url.strip_prefix(b"balancer://")) else {
        return (name, false);
    };
    let slash = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    (rest.get(slash..).unwrap_or_default(), true)
}

/// Without the query that mod_proxy_fcgi leaves behind. Where the URL's path has a `?` of its own (`/admin.php%3fx.php`), what stands
/// behind it may be a part of the name that Apache has looked at: `admin.php` was not what its rules were asked about. Apache turns
/// such a URL away itself since 2.4.60 (CVE-2024-38474).
fn without_query<'a>(path: &'a [u8], url: &[u8]) -> Result<&'a [u8], Lost> {
    match path.iter().position(|byte| *byte == b'?') {
        Some(_) if url.contains(&b'?') => Err(Lost::Impossible),
        end => Ok(path.get(..end.unwrap_or(path.len())).unwrap_or_default()),
    }
}

/// An absolute path of plain components: doubled slashes and `.` are taken out, a slash at the end stays. It may be longer than a
/// file's: what stands behind a script is text.
pub(super) fn plain(path: &[u8]) -> Option<Vec<u8>> {
    let absolute = path.starts_with(b"/") && !path.iter().any(u8::is_ascii_control);
    let mut made = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            return None;
        }
        made.push(b'/');
        made.extend_from_slice(part);
    }
    if made.is_empty() || path.ends_with(b"/") {
        made.push(b'/');
    }
    absolute.then_some(made)
}

/// A path behind the script is text for the program, so only what would mislead a file system is refused.
fn rooted(info: &[u8]) -> Result<Vec<u8>, Lost> {
    let up = info.split(|byte| *byte == b'/').any(|part| part == b"..");
    let good = info.starts_with(b"/") && !up && !info.iter().any(u8::is_ascii_control);
    if good { Ok(info.to_vec()) } else { Err(Lost::Impossible) }
}

/// `ProxyPassMatch` gives a URL, encoded; `SetHandler` a file's name, which may have a `%` of its own. The URL, which is decoded, tells
/// which it is: each part that has a `%` stands there in the one way or the other. A name that was decoded once more would be another
/// file than the one that Apache has looked at: behind an `Alias`, `/x/%2561.php` is `%61.php`, and no rule about `a.php` is for it.
fn is_encoded(path: &[u8], url: &[u8], docroots: &[Vec<u8>]) -> Result<bool, Lost> {
    let url = plain(url).unwrap_or_default();
    let above = docroots.iter().filter(|root| is_beneath(path, root)).map(Vec::len).max();
    let own = path.get(above.unwrap_or_default()..).unwrap_or_default();
    let mut asked = url.rsplit(|byte| *byte == b'/');
    let (mut name, mut encoded) = (false, false);
    for part in own.rsplit(|byte| *byte == b'/') {
        let (asked, means) = (asked.next(), decoded(part));
        if means.as_deref() == Some(part) {
            continue;
        }
        match asked {
            Some(asked) if asked == part => name = true,
            Some(asked) if means.as_deref() == Some(asked) => encoded = true,
            _ => return Err(Lost::Impossible),
        }
    }
    if name && encoded { Err(Lost::Impossible) } else { Ok(encoded) }
}

/// `%2e` and its like as bytes; a slash or NUL that was encoded is none (RFC 3875, 3.2).
fn decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut made = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        let [high, low, after @ ..] = rest else {
            made.push(*byte);
            continue;
        };
        if *byte != b'%' {
            made.push(*byte);
            continue;
        }
        let digits = [*high, *low];
        let text = std::str::from_utf8(&digits).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?;
        match u8::from_str_radix(text, 16).ok()? {
            b'/' | 0 => return None,
            byte => made.push(byte),
        }
        rest = after;
    }
    Some(made)
}
