//! `cellwall set SITE KEY VALUE…`: one key of a site's file, comments and order left alone, then applied. Root.
//!
//! What remedies and proposals are made of: a list gains the values, any other key gets the value. A file that does not
//! compile afterwards is put back as it was. All of it under the lock of `apply`: of two at once each keeps the other's change.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use crate::config::ground::Ground;
use crate::config::provenance::Traced;
use crate::config::reader::nearest;
use crate::config::rules::{KEYS, is_list};
use crate::config::store::Store;
use crate::config::values::{Count, Seconds, Workers};
use crate::config::{SITES_DIRECTORY, sites};
use crate::policy::names::{is_plain_path, is_variable};
use crate::refusal::Pasted;

use super::{End, Stop, apply, policy, say};

/// Arguments of `cellwall set`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site
    pub site: String,
    /// The key with its section (`files.read`, `limits.memory`, `symlinks`, `pool.workers.max`)
    pub key: String,
    /// The value; for a list, what is added
    #[arg(required_unless_present = "remove", num_args = 1.., allow_negative_numbers = true)]
    pub values: Vec<OsString>,
    /// Take the key out of the file, with its section where that is empty then
    #[arg(long, conflicts_with = "values")]
    pub remove: bool,
    /// Print what apply did as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        say::note("error: only root can change a site's file\n  help: run it again with sudo");
        return End::Failed.into();
    }
    change(args).unwrap_or_else(|stop| stop.said().into())
}

fn change(args: &Args) -> Result<ExitCode, Stop> {
    let values =
        args.values.iter().map(|value| text(value)).collect::<Result<Vec<_>, _>>().map_err(Stop::asked)?;
    let named = file(&args.site).map_err(Stop::asked)?;
    let store = Store::open(apply::waiting).map_err(|error| format!("nothing was changed: {error}"))?;
    let path = real(&named).map_err(Stop::asked)?;
    let shown = |error: std::io::Error| format!("{}: {error}", path.display());
    let before = fs::read_to_string(&path).map_err(shown)?;
    let facts = fs::metadata(&path).map_err(shown)?;
    let after = if args.remove {
        without(&before, &args.key)
    } else {
        with_lower(&before, args).and_then(|text| edited(&text, &args.key, &values))
    };
    let after = after.map_err(Stop::asked)?;
    replace(&path, &after, &facts, None).map_err(shown)?;
    let sites = vec![args.site.clone()];
    // With its time: the policy was made of it.
    let put_back = || replace(&path, &before, &facts, facts.modified().ok());
    let as_before = || say::note(format_args!("{} is as it was before", path.display()));
    let undo = || put_back().map_or_else(|error| say::note(shown(error)), |()| as_before());
    let applied = apply::Args { sites, ignore_missing: false, dry_run: false, json: args.json };
    let ended = apply::under(&store, &applied, &undo);
    if ended != ExitCode::SUCCESS {
        // An editor asks for no lock.
        if fs::read_to_string(&path).map_err(shown)? == after {
            put_back().map_err(shown)?;
            as_before();
        } else {
            say::note(format_args!("{} was changed meanwhile: it is left as it is now", path.display()));
        }
    }
    Ok(ended)
}

/// The text with what a lower layer says of the other values under the name: all of them are one key, and the site's own
/// wins wholly.
fn with_lower(text: &str, args: &Args) -> Result<String, String> {
    let below = args.key.starts_with("pool.workers.").then(|| Traced::of(&args.site)).flatten();
    let below = below.filter(|traced| traced.file.rules.pool_workers.is_none());
    let Some(workers) = below.and_then(|traced| traced.rules.pool_workers) else {
        return Ok(text.to_owned());
    };
    let number = |Count(number)| if number == u64::MAX { "unlimited".to_owned() } else { number.to_string() };
    let Workers { max, min, spare, idle } = workers.value;
    let numbers = [("max", max), ("min", min), ("spare", spare)].map(|(name, one)| (name, one.map(number)));
    let idle = ("idle", idle.map(|Seconds(idle)| number(Count(idle))));
    numbers.into_iter().chain([idle]).try_fold(text.to_owned(), |text, (name, value)| match value {
        Some(value) => edited(&text, &format!("pool.workers.{name}"), &[value]),
        None => Ok(text),
    })
}

/// The file itself: a link to it (a configuration that is kept in git) stays one. Nobody but root may put another there.
fn real(named: &Path) -> Result<PathBuf, String> {
    let path = fs::canonicalize(named).map_err(|error| format!("{}: {error}", named.display()))?;
    let found = Ground::default().find(Path::new("/"), &path);
    let others =
        found.foreign.as_ref().map(|(place, _)| place).or(found.open.as_ref().map(|(place, _)| place));
    match others {
        None => Ok(path),
        Some(place) => {
            let place = place.display();
            Err(format!(
                "{} is behind {place}, which others than root may change\n  help: see it with: ls -ld {place}",
                named.display()
            ))
        }
    }
}

/// A value as a file of TOML can hold it.
fn text(value: &OsStr) -> Result<String, String> {
    value.to_str().map(str::to_owned).ok_or_else(|| {
        format!(
            "a site's file is UTF-8, and {} is not\n  help: name the directory that it is in",
            Pasted(value.as_bytes())
        )
    })
}

fn file(site: &str) -> Result<PathBuf, String> {
    if site.starts_with('~') {
        return Err(format!(
            "{site} has no file of its own\n  help: its rules are in [userdir] of the host's file"
        ));
    }
    let name = format!("{site}.toml");
    sites::site_name(&name).ok_or_else(|| format!("{site} is no name of a site"))?;
    policy::unknown(site).map_or(Ok(()), Err)?;
    Ok(Path::new(SITES_DIRECTORY).join(name))
}

/// A key of the site's file, by its parts.
#[derive(Debug, Clone, Copy)]
struct Key<'k> {
    section: &'k str,
    name: &'k str,
    /// One of several values under that name.
    part: Option<&'k str>,
    list: bool,
}

/// `.php`.
fn is_ending(text: &str) -> bool {
    text.len() > 1 && text.starts_with('.') && !text.contains('/')
}

/// Keys that hold values by name.
const PARTS: [(&str, &str, &[&str]); 1] = [("pool", "workers", &["max", "min", "spare", "idle"])];

impl<'k> Key<'k> {
    fn of(key: &'k str) -> Option<Self> {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let by_name = [("files", "at"), ("environment", "set"), ("handlers", "")].contains(&(section, name));
        if let Some(list) = is_list(section, name).filter(|_| !by_name) {
            return Some(Self { section, name, part: None, list });
        }
        // An ending begins with the dot that its key has before it as well, which may be left out.
        if section == "handlers" {
            let part = key.strip_prefix("handlers.").filter(|ending| is_ending(ending))?;
            return Some(Self { section, name: "", part: Some(part), list: false });
        }
        let (name, part) = name.split_once('.')?;
        let known = |(one, other, parts): &(&str, &str, &[&str])| {
            (*one, *other) == (section, name) && parts.contains(&part)
        };
        let free = match (section, name) {
            ("environment", "set") => is_variable(part.as_bytes()),
            ("files", "at") => is_plain_path(part.as_bytes()),
            _ => false,
        };
        (free || PARTS.iter().any(known)).then_some(Self { section, name, part: Some(part), list: false })
    }
}

/// Pure: the text with the key changed.
///
/// # Errors
/// No such key, or no TOML.
pub fn edited(text: &str, key: &str, values: &[String]) -> Result<String, String> {
    let Key { section, name, part, list } = Key::of(key)
        .ok_or_else(|| format!("there is no key {key} that holds values\n  help: {}", meant(key)))?;
    let mut document: DocumentMut = text.parse().map_err(|error| format!("the site's file: {error}"))?;
    let table: &mut dyn TableLike = if section.is_empty() {
        document.as_table_mut()
    } else {
        let item = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
        item.as_table_like_mut().ok_or_else(|| format!("`{section}` is no section of the site's file"))?
    };
    match (part, values) {
        (Some(ending), values) if name.is_empty() => put(table, ending, words(values)),
        (None, values) if list => add(table, name, values)?,
        (None, [one]) => put(table, name, scalar(one)),
        (Some(part), [one]) => {
            let several = || Item::Value(Value::InlineTable(InlineTable::new()));
            let item = table.entry(name).or_insert_with(several);
            let all = item.as_table_like_mut();
            let all = all.ok_or_else(|| format!("`{section}.{name}` holds one value in the site's file"))?;
            // A variable is text, whatever it looks like, and so is a path.
            let number = section == "pool";
            put(all, part, if number { scalar(one) } else { Value::from(one.as_str()) });
            item.as_inline_table_mut().into_iter().for_each(InlineTable::fmt);
        }
        _ => return Err(format!("{key} holds one value")),
    }
    Ok(document.to_string())
}

/// The key that was probably meant.
fn meant(key: &str) -> String {
    let own = |shown: &str| format!("name one by its own key, such as {shown}");
    match key.split('.').take(2).collect::<Vec<_>>().as_slice() {
        ["handlers", ..] => return own("handlers..php"),
        ["files", "at"] => return own("files.at./usr/sbin/sendmail"),
        ["environment", "set"] => return own("environment.set.TZ"),
        ["pool", "workers"] => return own("pool.workers.max"),
        _ => {}
    }
    let whole = |(section, name): &(&str, &str)| match *section {
        "" => (*name).to_owned(),
        section => format!("{section}.{name}"),
    };
    let parts = PARTS
        .iter()
        .flat_map(|(section, name, parts)| parts.iter().map(move |part| format!("{section}.{name}.{part}")));
    let keys: Vec<String> = KEYS.iter().map(whole).chain(parts).collect();
    let near = nearest(key, keys.iter().map(String::as_str));
    let elsewhere = || keys.iter().find(|whole| whole.rsplit('.').next() == Some(key)).map(String::as_str);
    match near.or_else(elsewhere) {
        Some(near) => format!("did you mean {near}?"),
        None => "every key is in policy/README.md".to_owned(),
    }
}

/// Pure: the text without the key.
///
/// # Errors
/// It is not there, or no TOML.
pub fn without(text: &str, key: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error| format!("the site's file: {error}"))?;
    let way: Vec<&str> = match Key::of(key) {
        Some(Key { section: "", name, .. }) => vec![name],
        Some(Key { section, name: "", part: Some(part), .. }) => vec![section, part],
        Some(Key { section, name, part, .. }) => [section, name].into_iter().chain(part).collect(),
        None => key.splitn(2, '.').collect(),
    };
    match taken(document.as_table_mut(), &way) {
        true => Ok(document.to_string()),
        false => Err(format!("the site's file has no key {key}")),
    }
}

/// Takes out what is at the end of the way, and what is empty then. False: it is not there.
fn taken(table: &mut dyn TableLike, way: &[&str]) -> bool {
    match way {
        [] => false,
        [last] => table.remove(last).is_some(),
        [first, rest @ ..] => {
            let Some(inner) = table.get_mut(first).and_then(Item::as_table_like_mut) else { return false };
            let done = taken(inner, rest);
            if done && inner.is_empty() {
                table.remove(first);
            }
            done
        }
    }
}

fn add(table: &mut dyn TableLike, name: &str, values: &[String]) -> Result<(), String> {
    let mut array = match table.get(name).and_then(Item::as_value) {
        Some(Value::Array(array)) => array.clone(),
        // A list with one item may be written as the item alone.
        Some(one) => Array::from_iter([one.clone().decorated("", "")]),
        None => Array::new(),
    };
    for one in values.iter().map(|text| scalar(text)) {
        if !array.iter().any(|old| same(old, &one)) {
            array.push(one);
        }
    }
    put(table, name, Value::Array(array));
    Ok(())
}

/// In its old place, with the comment behind it.
fn put(table: &mut dyn TableLike, name: &str, mut new: Value) {
    if let Some(old) = table.get(name).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    match table.get_mut(name) {
        Some(item) => *item = Item::Value(new),
        None => drop(table.insert(name, value(new))),
    }
}

fn same(one: &Value, other: &Value) -> bool {
    one.as_str() == other.as_str()
        && one.as_integer() == other.as_integer()
        && one.as_bool() == other.as_bool()
}

/// A program, or a list of it and its words.
fn words(values: &[String]) -> Value {
    match values {
        [one] => Value::from(one.as_str()),
        several => Value::Array(several.iter().map(String::as_str).collect()),
    }
}

/// A number, a word of truth, or text.
fn scalar(text: &str) -> Value {
    let plain = text == "0" || !text.starts_with('0');
    match (text, text.parse::<i64>()) {
        ("true", _) => Value::from(true),
        ("false", _) => Value::from(false),
        (_, Ok(number)) if plain => Value::from(number),
        _ => Value::from(text),
    }
}

/// Another text in the file's place, with its owner, group and mode.
fn replace(path: &Path, text: &str, old: &Metadata, modified: Option<SystemTime>) -> std::io::Result<()> {
    let new = path.with_extension("toml.new");
    drop(fs::remove_file(&new));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let replaced = filled(file, text, old, modified).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        drop(fs::remove_file(&new));
    }
    replaced
}

fn filled(mut file: File, text: &str, old: &Metadata, modified: Option<SystemTime>) -> std::io::Result<()> {
    file.write_all(text.as_bytes())?;
    fchown(&file, Some(old.uid()), Some(old.gid()))?;
    file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
    modified.map_or(Ok(()), |modified| file.set_modified(modified))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, key: &str, values: &[&str]) -> String {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        edited(text, key, &values).unwrap()
    }

    #[test]
    fn a_key_goes_and_its_section_with_it_where_that_is_empty() {
        let text = "user = \"shop\"\n\n[limits]\nmemory = \"1G\"\ncpu = 7\n\n[pool]\nkind = \"cgi\"\n";
        let text = without(text, "pool.kind").unwrap();
        assert!(text.ends_with("[limits]\nmemory = \"1G\"\ncpu = 7\n"), "{text}");
        let text = without(&text, "limits.cpu").unwrap();
        assert_eq!(text, "user = \"shop\"\n\n[limits]\nmemory = \"1G\"\n");
        for (wrong, right) in
            [("limits.memroy", "limits.memory"), ("memory", "limits.memory"), ("docrot", "docroot")]
        {
            let said = edited(&text, wrong, &[]).unwrap_err();
            assert!(said.ends_with(&format!("did you mean {right}?")), "{said}");
        }
        for key in ["limits.cpu", "pool.kind", "nothing"] {
            assert!(without(&text, key).unwrap_err().contains(key), "{key}");
        }
    }

    #[test]
    fn a_list_gains_and_a_scalar_changes_and_comments_stay() {
        let text = "user = \"shop\" # who\nprofile = \"php\"   # what\n\n[limits]\nmemory = \"1G\" # much\n";
        let text = set(text, "profile", &["mysql"]);
        assert!(text.contains("profile = [\"php\", \"mysql\"]   # what\n"), "{text}");
        let text = set(&text, "limits.memory", &["2G"]);
        assert!(text.contains("memory = \"2G\" # much\n"), "{text}");
        let text = set(&text, "network.connect", &["3306", "25"]);
        assert!(text.ends_with("[network]\nconnect = [3306, 25]\n"), "{text}");
        assert_eq!(set(&text, "network.connect", &["25"]), text);
        let text = set(&text, "symlinks", &["owner-match"]);
        assert!(text.contains("\nsymlinks = \"owner-match\"\n"), "{text}");
        assert!(set(&text, "limits.umask", &["022"]).contains("umask = \"022\""));
    }

    #[test]
    fn one_of_several_values_under_a_name_is_set_and_taken_out() {
        let text = "user = \"shop\"\n\n[pool]\nkind = \"cgi\"\n";
        let wide = set(text, "pool.workers.max", &["4"]);
        assert!(wide.ends_with("[pool]\nkind = \"cgi\"\nworkers = { max = 4 }\n"), "{wide}");
        let idle = set(&wide, "pool.workers.idle", &["9s"]);
        assert!(idle.ends_with("workers = { max = 4, idle = \"9s\" }\n"), "{idle}");
        assert_eq!(without(&without(&idle, "pool.workers.max").unwrap(), "pool.workers.idle").unwrap(), text);
        for text in
            ["[pool]\nworkers.max = 2\n", "[pool.workers]\nmax = 2\n", "pool = { workers = { max = 2 } }\n"]
        {
            assert_eq!(set(text, "pool.workers.max", &["4"]), text.replace('2', "4"));
        }
        assert!(set("", "environment.set.TZ", &["UTC"]).ends_with("[environment]\nset = { TZ = \"UTC\" }\n"));
        // A variable is text, whatever it looks like.
        for value in ["1", "true", "-5", "022", "a\"b"] {
            let text = set("", "environment.set.DEBUG", &[value]);
            let read: DocumentMut = text.parse().unwrap();
            assert_eq!(read["environment"]["set"]["DEBUG"].as_str(), Some(value), "{text}");
        }
        let said = edited(text, "pool.workers.mx", &["4".to_owned()]).unwrap_err();
        assert!(said.ends_with("such as pool.workers.max"), "{said}");
        assert_eq!(set("", "limits.nice", &["-5"]), "[limits]\nnice = -5\n");
    }

    #[test]
    fn a_handler_and_a_file_at_another_place_are_set_by_their_own_keys() {
        let text = set("user = \"shop\"\n", "handlers..php", &["/usr/bin/php-cgi"]);
        assert_eq!(text, "user = \"shop\"\n\n[handlers]\n\".php\" = \"/usr/bin/php-cgi\"\n");
        let words = set(&text, "handlers..php", &["/usr/bin/php-cgi", "-d", "expose_php=0"]);
        assert!(words.ends_with("\".php\" = [\"/usr/bin/php-cgi\", \"-d\", \"expose_php=0\"]\n"), "{words}");
        let text = without(&text, "handlers..php").unwrap();
        assert_eq!(text, "user = \"shop\"\n");
        let at = set(&text, "files.at./usr/sbin/sendmail", &["/usr/bin/msmtp"]);
        assert!(at.ends_with("[files]\nat = { \"/usr/sbin/sendmail\" = \"/usr/bin/msmtp\" }\n"), "{at}");
        let dotted = set(&at, "files.at./etc/a.conf", &["7"]);
        let read: DocumentMut = dotted.parse().unwrap();
        assert_eq!(read["files"]["at"]["/etc/a.conf"].as_str(), Some("7"), "{dotted}");
        let one = without(&dotted, "files.at./etc/a.conf").unwrap();
        assert_eq!(without(&one, "files.at./usr/sbin/sendmail").unwrap(), text);
        for key in [
            "handlers",
            "handlers.",
            "handlers.php",
            "handlers..",
            "files.at",
            "files.at.x",
            "environment.set",
        ] {
            let said = edited(&text, key, &["/x".to_owned()]).unwrap_err();
            assert!(said.contains("such as "), "{key}: {said}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for (key, values) in
            [("files.raed", &["/a"][..]), ("limits.memory", &["1G", "2G"]), ("environment.set", &["a"])]
        {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            assert!(key == "environment.set" || edited("user = \"a\"\n", key, &values).is_err(), "{key}");
        }
    }
}
