//! Values of php.ini that a site has otherwise than the host, as the file of its own that PHP reads after php.ini.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::HOSTS;
use super::fpm;

/// Names, and what stands behind the `=` in php.ini's language.
#[derive(Debug, Default, Clone)]
pub(super) struct Values {
    /// The site may change them (`php_value`).
    free: Vec<(String, String)>,
    /// It may not (`php_admin_value`).
    locked: Vec<(String, String)>,
}

/// What the values need of the site's cell.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) read: BTreeSet<String>,
    pub(super) write: BTreeSet<String>,
    pub(super) left: Vec<String>,
}

impl Values {
    /// One more; the last of a name counts.
    pub(super) fn add(&mut self, locked: bool, name: &str, raw: &str) {
        let list = if locked { &mut self.locked } else { &mut self.free };
        list.retain(|(known, _)| known != name);
        list.push((name.to_owned(), raw.to_owned()));
    }

    /// As [`Self::add`] where there is no other value of this name.
    pub(super) fn adds(&mut self, locked: bool, name: &str, raw: &str) -> bool {
        let list = if locked { &self.locked } else { &self.free };
        let fits = list.iter().all(|(known, text)| known != name || text == raw);
        if fits {
            self.add(locked, name, raw);
        }
        fits
    }

    /// A switch: php-fpm and mod_php make a number of it.
    pub(super) fn switch(&mut self, locked: bool, name: &str, raw: &str) {
        let on = matches!(fpm::text(raw).to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true");
        self.add(locked, name, if on { "1" } else { "0" });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty() && self.locked.is_empty()
    }

    /// Those of the same site behind another port.
    pub(super) fn join(&mut self, other: Self) {
        other.free.iter().for_each(|(name, raw)| self.add(false, name, raw));
        other.locked.iter().for_each(|(name, raw)| self.add(true, name, raw));
    }

    /// The file. PHP takes a section for what no script changes, where it lies on the way to the script.
    pub(super) fn text(&self, from: &str, docroots: &[String]) -> String {
        if self.is_empty() {
            return String::new();
        }
        let all = |list: &[(String, String)], keep: &dyn Fn(&str) -> bool| -> String {
            list.iter()
                .filter(|(name, _)| keep(name))
                .map(|(name, raw)| format!("{name} = {raw}\n"))
                .collect()
        };
        let other = |name: &str| !self.locked.iter().any(|(known, _)| known == name);
        let mut text =
            format!("; Imported from {from}\n{}{}", all(&self.free, &other), all(&self.locked, &|_| true));
        let lasting = all(&self.locked, &|name| !AT_THE_START.contains(&name));
        if !lasting.is_empty() {
            text.push_str("; php_admin_value: what the site may not change.\n");
            tops(docroots).iter().for_each(|top| text.push_str(&format!("[PATH={top}]\n{lasting}")));
        }
        text
    }

    /// The places where they have PHP read and write.
    pub(super) fn needs(&self, user: &str, docroots: &[String], place: &str) -> Needs {
        let uid = User::from_name(user).ok().flatten().map(|user| user.uid.as_raw());
        let mut needs = Needs::default();
        for (name, raw) in
            self.free.iter().chain(&self.locked).filter(|(name, _)| PLACES.contains(&name.as_str()))
        {
            let text = fpm::text(raw);
            // `5;0600;/path` is a directory with its depth and mode.
            let paths = text.split(if name == "open_basedir" { ':' } else { ';' });
            for path in paths.map(|path| path.trim_end_matches('/')).filter(|path| path.starts_with('/')) {
                let told = needs.place(name, path, docroots, uid);
                needs.left.extend(told.map(|why| format!("{place}: {name} = {path}: {why}")));
            }
        }
        needs
    }
}

impl Needs {
    /// Why the path is in neither list.
    fn place(&mut self, name: &str, path: &str, docroots: &[String], uid: Option<u32>) -> Option<String> {
        let about = Path::new(path);
        let writes = name != "open_basedir";
        let inside = docroots.iter().any(|root| about.starts_with(root));
        let seen = ["/tmp", "/var/tmp", "/var/lib/php/sessions"].contains(&path)
            || HOSTS.iter().any(|own| about.starts_with(own));
        if seen || inside && !writes {
            return None;
        }
        match fs::metadata(about) {
            Ok(_) if docroots.iter().any(|root| Path::new(root).starts_with(about)) => Some(
                "a docroot is in it: what else the site needs there goes into files.read or files.write"
                    .to_owned(),
            ),
            Ok(facts) if Some(facts.uid()) == uid => {
                self.write.insert(path.to_owned());
                None
            }
            Ok(facts) if facts.uid() == 0 && !writes => {
                self.read.insert(path.to_owned());
                None
            }
            Ok(_) => Some("it does not belong to the site's user, who is to use it".to_owned()),
            Err(error) => Some(error.kind().to_string()),
        }
    }
}

/// A text that is none of php.ini's language, in it.
pub(super) fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:,".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else if text.contains('\'') {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("'{text}'")
    }
}

/// The first directories of docroots, as they are written and as they are: they lie on the way to each script, links of the
/// site's or not.
fn tops(docroots: &[String]) -> BTreeSet<String> {
    let real = docroots.iter().filter_map(|root| fs::canonicalize(root).ok());
    let all = docroots.iter().map(PathBuf::from).chain(real);
    all.filter_map(|root| Some(format!("/{}", root.components().nth(1)?.as_os_str().to_string_lossy())))
        .collect()
}

/// Values that are paths: PHP writes there, or below `open_basedir` reads too.
const PLACES: [&str; 6] = [
    "open_basedir",
    "session.save_path",
    "upload_tmp_dir",
    "sys_temp_dir",
    "error_log",
    "soap.wsdl_cache_dir",
];
/// Values that count when PHP starts, where no site can change them.
const AT_THE_START: [&str; 4] = ["disable_classes", "disable_functions", "extension", "zend_extension"];
