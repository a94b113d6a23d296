//! Values of php.ini that a site has otherwise than the host, as the file of its own that PHP reads after php.ini.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::super::glance::beginning;
use super::HOSTS;
use super::fpm;

/// Names, and what stands behind the `=` in php.ini's language.
#[derive(Debug, Default, Clone)]
pub(super) struct Values {
    /// The site may change them (`php_value`).
    free: Vec<(String, String)>,
    /// It may not (`php_admin_value`).
    locked: Vec<(String, String)>,
    /// Of a php.ini of the site's own, which PHP goes on reading: only the places that they name count here.
    elsewhere: Vec<(String, String)>,
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
        self.elsewhere.extend(other.elsewhere);
    }

    /// Remembers which places a php.ini of the site's own has PHP read and write.
    pub(super) fn look_into(&mut self, ini: &Path) {
        let text = beginning(ini, LONGEST).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((name, raw)) = line.split_once('=') else { continue };
            let (name, raw) = (name.trim(), raw.trim());
            if PLACES.contains(&name)
                && !self.elsewhere.iter().any(|(known, text)| known == name && text == raw)
            {
                self.elsewhere.push((name.to_owned(), raw.to_owned()));
            }
        }
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
        for (name, raw) in self
            .free
            .iter()
            .chain(&self.locked)
            .chain(&self.elsewhere)
            .filter(|(name, _)| PLACES.contains(&name.as_str()))
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
        // By its real name too: panels name a site's directory by a link as well, and who may write to his docroot may
        // write programs.
        let within = |path: &Path, root: &Path| {
            let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            path.starts_with(root) || real(path).starts_with(real(root))
        };
        let inside = docroots.iter().any(|root| within(about, Path::new(root)));
        let seen = ["/tmp", "/var/tmp", "/var/lib/php/sessions"].contains(&path)
            || HOSTS.iter().any(|own| about.starts_with(own));
        if seen || inside && !writes {
            return None;
        }
        match fs::metadata(about) {
            Ok(_) if docroots.iter().any(|root| within(Path::new(root), about)) => Some(
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
/// Bytes of a php.ini; Debian's has 73 KB, nearly all of it comments.
const LONGEST: u64 = 1 << 20;
/// Values that count when PHP starts, where no site can change them.
const AT_THE_START: [&str; 4] = ["disable_classes", "disable_functions", "extension", "zend_extension"];
