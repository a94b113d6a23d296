//! What a host has before an import: files of sites, and those of Debian's suexec-custom.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Value};

use crate::config::sites::site_name;

/// Where suexec-custom has a file for each user who may call it (suexec-custom(8)).
pub(super) const CUSTOM: &str = "/etc/apache2/suexec";

/// The docroots that files of this directory name, and which file does.
pub(super) fn docroots(directory: &Path) -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_site = |path: &PathBuf| path.file_name().and_then(|name| site_name(name.to_str()?)).is_some();
    let mut all = BTreeMap::new();
    for path in entries.filter(is_site) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        all.extend(docroots_of(&text).into_iter().map(|docroot| (docroot, path.clone())));
    }
    all
}

/// Pure: the docroots of a site's file, as it writes them.
pub(super) fn docroots_of(text: &str) -> Vec<String> {
    let Ok(file) = text.parse::<DocumentMut>() else { return Vec::new() };
    let one = |value: &Value| value.as_str().map(|text| text.trim_end_matches('/').to_owned());
    match file.get("docroot").and_then(|item| item.as_value()) {
        Some(Value::Array(several)) => several.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// What suexec-custom was told, which is the host's and no site's.
pub(super) fn custom(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().flat_map(|path| told(path, &fs::read_to_string(path).unwrap_or_default())).collect()
}

/// Pure: one of its files. A line that begins with `#` has that kind of request refused.
fn told(path: &Path, text: &str) -> Vec<String> {
    let (shown, mut lines) = (path.display(), text.lines().map(str::trim));
    let (docroot, suffix) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let is_on = |line: &str| !line.is_empty() && !line.starts_with('#');
    let mut all = Vec::new();
    let caller = path.file_name().unwrap_or_default().to_string_lossy();
    if caller != "www-data" {
        all.push(format!("{shown}: {caller} may call suEXEC: `caller` of cellwall.toml names who may"));
    }
    all.push(if is_on(docroot) {
        format!("{shown}:1: {docroot}: docroot = \"{docroot}\" of cellwall.toml is its like")
    } else {
        format!("{shown}:1: suEXEC refused the programs of virtual hosts, and these files have them started")
    });
    if is_on(suffix) {
        all.push(format!(
            "{shown}:2: {suffix}: suffix = \"{suffix}\" below [userdir] of cellwall.toml is its like, with enabled = true"
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_suexec_custom_was_told_is_named_with_its_like() {
        let said = told(Path::new("/c/www-data"), "/srv/web\npublic_html/cgi-bin\n# more\n");
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with("/c/www-data:1: /srv/web: docroot = \"/srv/web\" "), "{said:?}");
        assert!(said[1].contains(":2: ") && said[1].contains("suffix = \"public_html/cgi-bin\""), "{said:?}");
        let said = told(Path::new("/c/lighttpd"), "#/srv/web\n#public_html\n");
        assert!(said.len() == 2 && said[0].contains("lighttpd may call") && said[1].contains("refused"));
    }

    #[test]
    fn docroots_are_one_or_several_and_a_file_that_cannot_be_read_has_none() {
        assert_eq!(docroots_of("docroot = \"/srv/a/\"\n"), ["/srv/a"]);
        assert_eq!(
            docroots_of("user = \"a\"\ndocroot = [\"/srv/a\", \"/srv/b\"]\n[pool]\n"),
            ["/srv/a", "/srv/b"]
        );
        assert!(docroots_of("docroot = \n").is_empty() && docroots_of("user = 1").is_empty());
    }
}
