//! What a web server sends to a FastCGI socket: the docroot and the variables that it adds; and how it is pointed elsewhere.

use crate::config::lists;
use crate::policy::names::may_pass;
use crate::refusal::{Pasted, Untrusted};

/// One place of a web server's configuration that names a socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    /// As written: `unix:/run/php/shop.sock`, `127.0.0.1:9000`.
    pub(super) socket: String,
    /// Names of the host.
    pub(super) names: Vec<String>,
    pub(super) root: Option<String>,
    /// A docroot that is none: the web server fills in something at each request.
    pub(super) unknown: Option<String>,
    /// Name, value, place.
    pub(super) variables: Vec<(String, String, String)>,
    /// The file that names the socket.
    pub(super) file: String,
    /// File and line of what asks it.
    pub(super) place: String,
    pub(super) nginx: bool,
}

impl Served {
    /// It asks the socket that a pool listens on.
    pub(super) fn asks(&self, listen: &str) -> bool {
        address(&self.socket) == address(listen)
    }

    /// The command that has it ask another socket.
    pub(super) fn moved(&self, socket: &str) -> String {
        // A macro is no file; and of what a shell or sed(1) would read as more than text no command is made.
        if !self.file.starts_with('/') || !is_text(&self.socket) || !is_text(socket) {
            let [file, socket, old] =
                [&self.file, socket, &self.socket].map(|text| Untrusted(text.as_bytes()));
            return format!("# in {file}: unix:{socket} instead of {old}");
        }
        let path = self.socket.strip_prefix("unix:");
        let (old, new) = match (path, self.nginx) {
            (Some(path), _) => (path.to_owned(), socket.to_owned()),
            (None, true) => (self.socket.clone(), format!("unix:{socket}")),
            (None, false) => (format!("fcgi://{}", self.socket), format!("unix:{socket}|fcgi://localhost")),
        };
        let script = format!("s,{},{new},g", old.replace('.', "\\."));
        format!("sed -i --follow-symlinks '{script}' {}", Pasted(self.file.as_bytes()))
    }
}

/// It stands for itself in a script of sed's between quotes, but for its dots.
fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@".contains(&byte))
}

/// One spelling for one socket.
fn address(text: &str) -> String {
    let text = text.trim().trim_start_matches("unix:");
    if let Some(path) = text.strip_prefix("/var/run/") {
        return format!("/run/{path}");
    }
    if text.starts_with('/') {
        return text.trim_end_matches(':').to_owned();
    }
    let port = text.rsplit(':').next().unwrap_or(text);
    let host = text.strip_suffix(port).unwrap_or_default().trim_end_matches(':');
    let host = if matches!(host, "" | "localhost" | "0.0.0.0" | "*" | "[::]" | "[::1]") {
        "127.0.0.1"
    } else {
        host
    };
    format!("{host}:{port}")
}

/// What becomes of a variable that a web server adds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// Every site gets it.
    Known,
    /// It passes where the site's file names it.
    Named,
    /// Lines of php.ini that the site may change, or may not.
    Values {
        /// `PHP_ADMIN_VALUE`.
        locked: bool,
    },
    /// It never passes.
    Never,
}

/// Pure.
pub(super) fn variable(name: &str) -> Variable {
    let known = |word: &str| match word.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == word,
    };
    match name {
        "PHP_VALUE" => Variable::Values { locked: false },
        "PHP_ADMIN_VALUE" => Variable::Values { locked: true },
        _ if lists::environment().any(known) => Variable::Known,
        _ if may_pass(name.as_bytes()) => Variable::Named,
        _ => Variable::Never,
    }
}

/// Pure: `unix:/a.sock|fcgi://x/srv/www/$1` or `fcgi://127.0.0.1:9000/srv/www/$1`, as Apache has it behind `proxy:` or as the
/// argument of `ProxyPassMatch`: the socket, and the directory behind it.
pub(super) fn of_proxy(word: &str) -> Option<(String, Option<String>)> {
    let word = word.strip_prefix("proxy:").unwrap_or(word);
    let (socket, url) = match word.split_once('|') {
        Some((socket, url)) => (Some(socket), url),
        None => (None, word),
    };
    let rest = url.strip_prefix("fcgi://")?;
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let path = path.map(|path| path.split('$').next().unwrap_or_default().trim_end_matches('/'));
    let root = path.filter(|path| !path.is_empty()).map(|path| format!("/{path}"));
    let port = || if host.contains(':') { host.to_owned() } else { format!("{host}:9000") };
    Some((socket.map_or_else(port, str::to_owned), root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_has_many_spellings() {
        let one = |socket: &str| Served { socket: socket.to_owned(), ..Served::default() };
        for (web, pool) in [
            ("unix:/var/run/php/a.sock", "/run/php/a.sock"),
            ("unix:/run/php/a.sock:", "/run/php/a.sock"),
            ("127.0.0.1:9001", "9001"),
            ("localhost:9001", "127.0.0.1:9001"),
            ("localhost:9001", "[::1]:9001"),
        ] {
            assert!(one(web).asks(pool), "{web} {pool}");
        }
        assert!(!one("unix:/run/php/ab.sock").asks("/run/php/a.sock") && !one("127.0.0.1:90").asks("9001"));
    }

    #[test]
    fn what_a_file_calls_a_socket_becomes_no_command() {
        let moved = |socket: &str| {
            let file = "/etc/nginx/sites-enabled/shop".to_owned();
            Served { socket: socket.to_owned(), file, nginx: true, ..Served::default() }.moved("/run/a.sock")
        };
        assert_eq!(
            moved("unix:/run/php/shop.sock"),
            "sed -i --follow-symlinks 's,/run/php/shop\\.sock,/run/a.sock,g' /etc/nginx/sites-enabled/shop"
        );
        for socket in ["'; reboot; '", "a,b,e;s,c", "a\nreboot", "[a]", "a\\", "$(reboot)"] {
            let told = moved(&format!("unix:/run/{socket}"));
            assert!(told.starts_with("# in ") && !told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn apache_names_a_socket_and_perhaps_a_directory() {
        let pair = |socket: &str, root: Option<&str>| Some((socket.to_owned(), root.map(str::to_owned)));
        for (word, found) in [
            ("proxy:unix:/run/a.sock|fcgi://localhost", pair("unix:/run/a.sock", None)),
            ("proxy:unix:/run/a.sock|fcgi://localhost/", pair("unix:/run/a.sock", None)),
            ("fcgi://127.0.0.1:9001/srv/a/$1", pair("127.0.0.1:9001", Some("/srv/a"))),
            ("unix:/run/a.sock|fcgi://x:9/srv/a/", pair("unix:/run/a.sock", Some("/srv/a"))),
            ("http://127.0.0.1/", None),
        ] {
            assert_eq!(of_proxy(word), found, "{word}");
        }
    }

    #[test]
    fn a_variable_passes_or_is_named_or_never_passes() {
        for (name, what) in [
            ("DOCUMENT_ROOT", Variable::Known),
            ("HTTP_X_ONE", Variable::Known),
            ("APP_ENV", Variable::Named),
            ("LD_PRELOAD", Variable::Never),
            ("PHP_ADMIN_VALUE", Variable::Values { locked: true }),
        ] {
            assert_eq!(variable(name), what, "{name}");
        }
    }
}
