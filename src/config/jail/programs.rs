//! What a site may start: programs, interpreters, handlers and its pool's command, all of root's.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::launch::interpreter::is_php_cgi;
use crate::policy::names::is_plain_path;

use super::{EXECUTE, Work};
use crate::config::cell::Handlers;
use crate::config::compile::{Php, pasted};
use crate::config::ground::{Kind, near};
use crate::config::problem::{Located, Place};
use crate::config::profiles::PHP_SETTINGS;
use crate::config::rules::Keyed;
use crate::config::values::{JailKind, Words};

impl Work<'_, '_, '_> {
    /// Programs, interpreters and handlers: root's files, which the site may start.
    pub(super) fn programs(&mut self) -> (Vec<PathBuf>, Vec<PathBuf>, Handlers) {
        let rules = self.site.rules;
        let (mut programs, mut interpreters) = (Vec::new(), Vec::new());
        for item in &rules.programs.items {
            programs.extend(self.named(item));
        }
        for item in &rules.interpreters.items {
            if self.own_interpreter(item) {
                interpreters.push(PathBuf::from(&item.value));
            } else {
                interpreters.extend(self.named(item));
            }
        }
        let mut handlers = Vec::new();
        for (suffix, Keyed { key, found: Located { value: Words(words), place } }) in &rules.handlers.0 {
            if suffix.len() < 2 || !suffix.starts_with('.') || suffix.contains('/') {
                let help = "write \".php\" = \"/usr/bin/php-cgi\"";
                let message = format!("`{suffix}` is no ending of a file name");
                self.compiler.problems.error(Some(key), message, help);
            }
            match words.first() {
                Some(program) if self.program(program, place) => {
                    self.named_php(program, place);
                    self.serving_php(program, place);
                    self.lost_words(words, place);
                    handlers.push((suffix.clone(), words.clone()));
                }
                Some(_) => {}
                None => self.compiler.problems.error(
                    Some(place),
                    "the handler names no program",
                    "write its path",
                ),
            }
        }
        self.pool();
        (programs, interpreters, handlers)
    }

    /// The programs of an item: one, or all of root's that a pattern fits.
    fn named(&mut self, item: &Located<String>) -> Vec<PathBuf> {
        let Located { value, place } = item;
        if !value.contains('*') {
            return self.program(value, place).then(|| PathBuf::from(value)).into_iter().collect();
        }
        if !self.compiler.plain(Path::new(value), place, "program") {
            return Vec::new();
        }
        let mut all = self.compiler.ground.expand(Path::new(value));
        all.retain(|path| self.is_program(path));
        if all.is_empty() {
            let message = format!("nothing on this host is {value}");
            let help = "correct it: no program of root's has such a name";
            self.compiler.problems.error(Some(place), message, help);
        }
        all.retain(|path| path.to_str().is_some_and(|text| self.program(text, place)));
        all
    }

    /// A directory may hold other files as well.
    fn is_program(&mut self, path: &Path) -> bool {
        let found = self.compiler.ground.find(&self.root, path);
        let real = self.root.join(found.real.strip_prefix("/").unwrap_or(&found.real));
        let mode = std::fs::symlink_metadata(&real).map_or(0, |facts| facts.mode());
        found.kind == Kind::File && found.foreign.is_none() && found.open.is_none() && mode & 0o111 != 0
    }

    /// A Python environment's, say: the launcher takes one of the site's own where it is listed by name.
    fn own_interpreter(&mut self, item: &Located<String>) -> bool {
        let path = Path::new(&item.value);
        if !is_plain_path(item.value.as_bytes()) {
            return false;
        }
        let found = self.compiler.ground.find(&self.root, path);
        let owner = self.compiler.code_owner.unwrap_or(self.site.account.uid);
        let own = found.foreign.as_ref().is_some_and(|(_, uid)| *uid == owner);
        // What a link of the site's leads to has a rule of its own.
        if own && found.kind == Kind::File {
            self.plan.path(&found, EXECUTE, &item.place);
        }
        own && matches!(found.kind, Kind::File | Kind::Link)
    }

    /// The pool's program: root's, or one below a docroot, which the launcher looks at.
    fn pool(&mut self) {
        let rules = self.site.rules;
        if let Some(Located { value: Words(words), place }) = &rules.pool_command {
            let program = words.first().map_or("", String::as_str);
            let own = self.site.docroots.iter().any(|(docroot, _)| Path::new(program).starts_with(docroot));
            if own && self.compiler.plain(Path::new(program), place, "pool.command") {
                self.own_program(Path::new(program), place);
            } else if self.program(program, place) {
                self.named_php(program, place);
            }
        }
    }

    /// The site's own business, and worth a word. In a docroot that is not there either, that has been said.
    fn own_program(&mut self, program: &Path, place: &Place) {
        let found = self.compiler.ground.find(Path::new("/"), program);
        let above = self.site.docroots.iter().any(|(docroot, _)| found.nearest.starts_with(docroot));
        if self.site.kind() != JailKind::Chroot && found.kind == Kind::Missing && above {
            let message = format!("{} does not exist; {} does", program.display(), found.nearest.display());
            let help = "put the program there, or correct the path: until then the pool cannot start";
            self.compiler.problems.warning(Some(place), message, help);
        }
    }

    /// PHP's program for CGI runs what the environment names. The launcher knows it by its name, and puts the file there that
    /// was verified; Debian has it as /usr/lib/cgi-bin/php as well.
    fn named_php(&mut self, text: &str, place: &Place) {
        if is_php_cgi(text.as_bytes()) || self.php(text) != Some(Php::Cgi) {
            return;
        }
        let message = format!("{text} is PHP's program for CGI under a name that does not say so");
        let help = "write /usr/bin/php-cgi, or make a link to it that is called php-cgi and name that";
        self.compiler.problems.error(Some(place), message, help);
    }

    /// The one for the command line is asked for pages by mistake; a script that prints its own headers may want it.
    fn serving_php(&mut self, text: &str, place: &Place) {
        if self.php(text) == Some(Php::CommandLine) {
            let message = format!("{text} is PHP's program for the command line: its pages have no headers");
            let help = "write /usr/bin/php-cgi, which comes with the package php-cgi";
            self.compiler.problems.warning(Some(place), message, help);
        }
    }

    /// As a CGI program PHP takes no word of its command line where the query begins with a hyphen (its guard since
    /// CVE-2012-1823): a visitor decides whether they hold.
    fn lost_words(&mut self, words: &[String], place: &Place) {
        let Some((program, [_, ..])) = words.split_first() else { return };
        if self.php(program) != Some(Php::Cgi) {
            return;
        }
        let directory = format!("/etc/cellwall/php/{}", self.site.file.name);
        let message = format!("a query that begins with `-` takes all words from {program}");
        let help = format!(
            "write {program:?} alone, and the values into {directory}/values.ini; then run: cellwall set {0} files.read \
             {directory} && cellwall set {0} environment.set.PHP_INI_SCAN_DIR :{PHP_SETTINGS}:{directory}",
            self.site.file.name
        );
        self.compiler.problems.error(Some(place), message, help);
    }

    fn php(&mut self, text: &str) -> Option<Php> {
        let found = self.compiler.ground.find(&self.root, Path::new(text));
        let real = self.root.join(found.real.strip_prefix("/").unwrap_or(&found.real));
        (found.kind == Kind::File).then(|| self.compiler.php(&real)).flatten()
    }

    /// What was probably meant by a program that is not there.
    fn nearby(&self, path: &Path) -> String {
        let near = || {
            let place = self.root.join(path.parent()?.strip_prefix("/").ok()?);
            Some(path.with_file_name(near(&place, path.file_name()?.to_str()?)?.file_name()?))
        };
        match near() {
            Some(near) => format!("did you mean {}? else install it", near.display()),
            None => "install it, or correct the path".to_owned(),
        }
    }

    fn program(&mut self, text: &str, place: &Place) -> bool {
        let path = Path::new(text);
        if !self.compiler.plain(path, place, "program") {
            return false;
        }
        let found = self.compiler.ground.find(&self.root, path);
        let problems = &self.compiler.problems;
        if found.kind == Kind::Missing && found.foreign.is_none() {
            let message =
                format!("{text} does not exist; the deepest that does is {}", found.nearest.display());
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            let first = words
                .first()
                .filter(|first| words.len() > 1 && self.root.join(first.trim_start_matches('/')).exists());
            let help = match first {
                Some(_) => format!("write {words:?}: each word by itself"),
                None => self.install(place).unwrap_or_else(|| self.nearby(path)),
            };
            problems.error(Some(place), message, help);
            return false;
        }
        if let Some((top, owner)) = &found.foreign {
            let message = format!("{} belongs to uid {owner}, who could replace {text}", top.display());
            problems.error(Some(place), message, format!("run: chown -h root {}", pasted(top)));
            return false;
        }
        if !matches!(found.kind, Kind::File | Kind::Hidden) || found.open.is_some() {
            let help = match found.kind {
                Kind::Directory => format!("name a file of root's, or all of them: {text}/*"),
                _ => "name a file of root's".to_owned(),
            };
            problems.error(Some(place), format!("{text} is no program that is root's all the way"), help);
            return false;
        }
        let real = self.root.join(found.real.strip_prefix("/").unwrap_or(&found.real));
        let mode = std::fs::symlink_metadata(&real).map_or(0o777, |facts| facts.mode() & 0o7777);
        if mode & 0o111 == 0 {
            let message = format!("{text} is not executable ({mode:04o})");
            problems.error(Some(place), message, format!("run: chmod a+x {}", pasted(&real)));
            return false;
        }
        self.plan.path(&found, EXECUTE, place);
        true
    }
}
