//! The gate: what of a request may reach a site's worker, and which file it is about. Pure: bytes in, bytes out. Fuzzed.
//!
//! The same sieve as the launcher's ([`crate::launch::environment`]) decides about names and values. Paths are made
//! plain and must lie beneath the site's docroots; then they are called as inside the jail. What is wrong is refused
//! with G01–G07, never mended in silence. A refusal is a fixed page with a reference.
//!
//! May not: open a file, ask anybody, or know which web server it was.

mod memory;
mod paths;
mod seen;

use crate::launch::authorize::is_beneath;
use crate::launch::environment::{Nature, Sieve, has_prefix, on_one_line};
use crate::launch::jail::Inside;
use crate::refusal::{Card, Refusal};

use super::fastcgi::pairs::{Encoded, Pairs, Writer};
use super::fastcgi::record::put_begin;
use super::fastcgi::{Role, back};
pub use memory::Memory;

use memory::{About, Known};
use paths::{Lost, Said, Script};
use seen::Seen;

/// What one site lets pass. Names that no site may have are taken out by the sieve all the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Names {
    /// Exact names, sorted by bytes.
    pub pass: Vec<Box<[u8]>>,
    /// Beginnings of names.
    pub prefixes: Vec<Box<[u8]>>,
    /// Credentials pass.
    pub authorization: bool,
    /// Most parameters.
    pub entries_max: usize,
    /// Most bytes of them together.
    pub bytes_max: usize,
}

/// One site's gate. Many sites let the same names pass; they share one list.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Which parameters pass.
    pub names: std::rc::Rc<Names>,
    /// Scripts are beneath one of these, in the host's own view.
    pub docroots: Vec<Vec<u8>>,
    /// The part of the host's paths that is not there inside the jail; empty: paths are the same.
    pub jail: Vec<u8>,
    /// Endings that a script has; none: any.
    pub endings: Vec<Vec<u8>>,
    /// The program is php-cgi, which is told its URL in a way of its own.
    pub php: bool,
    /// Programs that are asked by their own path, wherever they lie: the one that answers everything, or root's that the site
    /// names. What is behind them in a path is theirs.
    pub programs: Vec<Vec<u8>>,
    /// Most bytes of a body.
    pub body_max: u64,
    /// What is known of names that were asked about before.
    pub memory: Memory,
}

/// A refusal and the HTTP status that the visitor sees.
#[derive(Debug)]
pub struct No {
    /// 400, 403, 404, 413 or 431.
    pub http: u16,
    /// For the record.
    pub refusal: Refusal,
}

/// A request that may pass.
#[derive(Debug)]
pub struct Passed {
    /// What the program gets: records for a worker, or `NAME=value` entries with a NUL behind each.
    pub bytes: Vec<u8>,
    /// The file, in the host's view.
    pub script: Vec<u8>,
    /// How many parameters were left out.
    pub dropped: usize,
    /// A body of some length is to follow.
    pub announces_body: bool,
}

/// What the program wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// BEGIN_REQUEST, PARAMS and their end, all in one; and whether the connection is to be kept afterwards.
    Records(Role, bool),
    /// An environment.
    Environment,
}

impl Gate {
    /// Lets a request's parameters through, or says why not.
    ///
    /// # Errors
    /// G01–G07, and E01–E03 of the sieve.
    pub fn judge(&self, params: &[u8], form: Form) -> Result<Passed, No> {
        let seen = Seen::of(params, self)?;
        if let Some(length) = seen.content_length {
            self.measure(length)?;
        }
        let alone = match form {
            Form::Records(..) if self.endings.is_empty() => self.programs.first().map(Vec::as_slice),
            Form::Records(..) | Form::Environment => None,
        };
        let script = paths::understand(&seen.said, &self.docroots, &self.endings, &self.programs, alone);
        let script = script.map_err(|lost| no_script(lost, &seen.said))?;
        let mut bytes = Vec::with_capacity(params.len().saturating_add(ROOM));
        let dropped = match form {
            Form::Records(role, keep) => {
                put_begin(&mut bytes, back::ID, role, keep);
                let mut writer = Writer::new(&mut bytes, back::ID);
                let dropped = self.sift(&seen, &script, &mut writer)?;
                writer.finish();
                dropped
            }
            Form::Environment => self.sift(&seen, &script, &mut bytes)?,
        };
        let announces_body = seen.content_length.is_some_and(|length| length > 0);
        Ok(Passed { bytes, script: script.file, dropped, announces_body })
    }

    /// A body of so many bytes, claimed or counted.
    ///
    /// # Errors
    /// G07.
    pub fn measure(&self, bytes: u64) -> Result<(), No> {
        if bytes <= self.body_max {
            return Ok(());
        }
        Err(no(413, &BODY, format!("a body of {bytes} bytes or more; {} may be sent", self.body_max)))
    }

    /// Every parameter once through the sieve; those about the script are ours. Returns how many were left out.
    fn sift(&self, seen: &Seen<'_>, script: &Script, out: &mut impl Out) -> Result<usize, No> {
        let bad = |refusal| No { http: 400, refusal };
        let fits = |done: bool| match done {
            true => Ok(()),
            false => Err(no(431, &LONG, "a parameter is longer than a record can hold".to_owned())),
        };
        let url = (self.php && !script.info.is_empty()).then(|| [&script.name[..], &script.info].concat());
        let mut sieve = Sieve::new(self.names.authorization, seen.pairs.len().saturating_add(8));
        for (variable, name, value) in self.ours(seen.said.document_root, script, url.as_deref()) {
            sieve.decide(variable);
            let Some(value) = value.filter(|_| self.know(variable).listed) else { continue };
            on_one_line(variable, value).map_err(bad)?;
            fits(out.put(name, value))?;
        }
        if !script.info.is_empty() {
            // With it php-cgi takes PATH_INFO for the script's path (see launch/equip.rs).
            sieve.decide(b"REDIRECT_URL");
        }
        sieve.seal();
        let mut kept = 0_usize;
        for (pair, known) in &seen.pairs {
            let (name, value, _) = *pair;
            let claimed = match known.about {
                // nginx writes empty ones for a request without a body; Caddy -1 for one of unknown length.
                About::ContentLength => seen.content_length.is_none(),
                // nginx has one for every visitor who types a name, whether or not it has looked at a password.
                About::RemoteUser => !seen.proven,
                _ => false,
            };
            if claimed || !known.listed || !sieve.admits(known.nature, name, value).map_err(bad)? {
                continue;
            }
            if known.nature.path {
                let Some(path) = self.root(value) else { continue };
                fits(out.put(name, self.inside(path)))?;
            } else {
                fits(out.copy(*pair))?;
            }
            kept = kept.saturating_add(1);
        }
        Ok(seen.pairs.len().saturating_sub(kept))
    }

    /// What is said of the script: a variable, how it is called, and its value. `url`: the whole one, for php-cgi.
    fn ours<'a>(&'a self, root: &'a [u8], script: &'a Script, url: Option<&'a [u8]>) -> [Ours<'a>; 6] {
        let docroot = self.docroots.get(script.docroot).or(self.docroots.first());
        let docroot = docroot.map_or(&b"/"[..], Vec::as_slice);
        let [name, info] = if url.is_some() { URL_OF_PHP } else { URL };
        let behind = Some(&*script.info).filter(|info| !info.is_empty());
        [
            (b"SCRIPT_FILENAME", b"SCRIPT_FILENAME", Some(self.inside(&script.file))),
            (b"SCRIPT_NAME", name, Some(&script.name)),
            (b"PATH_INFO", info, behind),
            (b"SCRIPT_NAME", b"SCRIPT_NAME", url),
            (b"DOCUMENT_ROOT", b"DOCUMENT_ROOT", Some(self.inside(self.root(root).unwrap_or(docroot)))),
            // Its file is another one than the script; php-cgi would run it (see launch/equip.rs).
            (b"PATH_TRANSLATED", b"PATH_TRANSLATED", None),
        ]
    }

    fn know(&self, name: &[u8]) -> Known {
        let find = || Known { listed: self.lists(name), nature: Nature::of(name), about: About::of(name) };
        self.memory.recall(name, find)
    }

    fn lists(&self, name: &[u8]) -> bool {
        self.names.pass.binary_search_by(|listed| (**listed).cmp(name)).is_ok()
            || self.names.prefixes.iter().any(|prefix| has_prefix(name, prefix))
    }

    /// A directory that is one of the docroots, or beneath one; as it came, without a slash at its end.
    fn root<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let plain = paths::plain(path).is_some_and(|plain| plain == path);
        (plain && self.docroots.iter().any(|root| is_beneath(path, root))).then_some(path)
    }

    /// A path of the host's, as it is called inside the jail.
    fn inside<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        Inside::new("pool", &self.jail).path(path)
    }
}

/// A variable, how it is called, and its value; none: it is left out.
type Ours<'a> = (&'static [u8], &'static [u8], Option<&'a [u8]>);

/// The script's URL, and what stands behind it.
const URL: [&[u8]; 2] = [b"SCRIPT_NAME", b"PATH_INFO"];

/// The same for php-cgi, where something stands behind it. It is told to look for no file in a path
/// (`cgi.fix_pathinfo=0`), and then it makes `PHP_SELF` of `PATH_INFO` alone, where there is one (PHP's sapi/cgi/cgi_main.c,
/// init_request_info): pages send their forms there, and `/a.php//host/x` would send them to another host. So it gets the whole
/// URL as `SCRIPT_NAME` and no `PATH_INFO`; in `$_SERVER`, where PHP makes underscores of dots (main/php_variables.c) and the
/// first of a name wins, both are the standard's.
const URL_OF_PHP: [&[u8]; 2] = [b"SCRIPT.NAME", b"PATH.INFO"];

/// Where what passes is written. `false`: it is longer than can be said.
trait Out {
    /// One that is ours, or was changed.
    fn put(&mut self, name: &[u8], value: &[u8]) -> bool;
    /// One as it came.
    fn copy(&mut self, pair: Encoded<'_>) -> bool;
}

/// A worker's: records.
impl Out for Writer<'_> {
    fn put(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.push(name, value)
    }

    fn copy(&mut self, pair: Encoded<'_>) -> bool {
        Writer::copy(self, pair)
    }
}

/// A program's own: an environment.
impl Out for Vec<u8> {
    fn put(&mut self, name: &[u8], value: &[u8]) -> bool {
        for part in [name, b"=", value, b"\0"] {
            self.extend_from_slice(part);
        }
        true
    }

    fn copy(&mut self, (name, value, _): Encoded<'_>) -> bool {
        self.put(name, value)
    }
}

/// Bytes that what is ours may take beyond what came.
const ROOM: usize = 256;

/// The URL of a request, plain, for the status and ping pages; none where there is no such thing.
#[must_use]
pub fn url(params: &[u8]) -> Option<Vec<u8>> {
    let mut pairs = Pairs(params).flatten();
    pairs.find(|(name, _)| *name == b"SCRIPT_NAME").and_then(|(_, value)| paths::url(value))
}

fn no_script(lost: Lost, said: &Said<'_>) -> No {
    let path = if said.script_filename.is_empty() { said.script_name } else { said.script_filename };
    let about = |http, card, why| No { http, refusal: Refusal::about(card, path, why) };
    match lost {
        Lost::Unnamed => about(404, &UNNAMED, "no file is named"),
        Lost::Impossible => about(403, &IMPOSSIBLE, "is no path that can be"),
        Lost::Outside => {
            about(403, &OUTSIDE, "is beneath none of the site's docroots, and none of its programs")
        }
        Lost::Ending => about(403, &ENDING, "is no file of a kind that the site runs"),
    }
}

fn no(http: u16, card: &'static Card, why: String) -> No {
    No { http, refusal: Refusal::new(card, why) }
}

static PARAMETERS: Card = Card {
    code: "G01",
    status: 0,
    remedy: "# nothing to mend on this side: the web server or the visitor sent what no request can be",
};
static MANY: Card = Card {
    code: "G02",
    status: 0,
    remedy: "# raise entries_max or bytes_max in the site's [environment], then: cellwall apply",
};
static UNNAMED: Card = Card {
    code: "G03",
    status: 0,
    remedy: "# have the web server send SCRIPT_FILENAME with the path of the script (see packaging/nginx, packaging/apache)",
};
static IMPOSSIBLE: Card = Card {
    code: "G04",
    status: 0,
    remedy: "# nothing to mend: a visitor tried a path that leads out of the site",
};
static OUTSIDE: Card = Card {
    code: "G05",
    status: 0,
    remedy: "# point the web server at the socket of the site that owns the file, or name it in the site's file, its directory under docroot, or with kind = 'cgi' a program of root's under programs, then: cellwall apply",
};
static ENDING: Card = Card {
    code: "G06",
    status: 0,
    remedy: "# have the web server send only files with an ending of the site's [handlers] to the pool, or add the ending there",
};
static BODY: Card =
    Card { code: "G07", status: 0, remedy: "# raise body_max in the site's [pool], then: cellwall apply" };
static LONG: Card = Card {
    code: "G08",
    status: 0,
    remedy: "# nothing to mend: php-cgi and its like take no parameter beyond 65,535 bytes",
};

#[cfg(test)]
mod tests;
