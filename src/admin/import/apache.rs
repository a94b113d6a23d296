//! The sites of an Apache with suEXEC, or with a module that changes its identity; and what an Apache sends to FastCGI sockets.
//!
//! Apache itself tells what it has read (mod_info's DUMP_CONFIG): files included, macros filled in, conditions decided.
//! Nothing of its language is understood a second time. What is not carried over is said; nothing is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, value};

use crate::config::profiles::PHP_SETTINGS;
use crate::refusal::Untrusted;

use super::super::glance::beginning;
use super::values::{self, Values};
use super::web::{self, Served};
use super::{Args, HOSTS, Made, Stop, before, free_name, missing, printed, values_of, word};

/// The sites by name, and what of the configuration is in none of them.
pub(super) fn sites(args: &Args, directory: &Path) -> Result<(BTreeMap<String, Made>, Vec<String>), Stop> {
    let (sites, mut notes) = sites_of(&dump(args)?, directory);
    if args.dump.is_none() {
        notes.extend(before::custom(Path::new(before::CUSTOM)));
    }
    Ok((sites, notes))
}

/// What an Apache has read.
pub(super) fn dump(args: &Args) -> Result<String, Stop> {
    match &args.dump {
        Some(file) => fs::read_to_string(file).map_err(|error| {
            missing(file, &error, || format!("{DUMP} > {} # where that Apache is", word(file)))
        }),
        None => dumped(),
    }
}

/// What has Debian's Apache tell its configuration.
const DUMP: &str =
    "apache2ctl -C 'LoadModule info_module /usr/lib/apache2/modules/mod_info.so' -t -DDUMP_CONFIG";

/// What this host's Apache has read. Its own start script knows the variables that its files name.
fn dumped() -> Result<String, Stop> {
    let present = |paths: [&'static str; 2]| paths.into_iter().find(|path| Path::new(path).exists());
    let apache = present(["/usr/sbin/apache2ctl", "/usr/sbin/httpd"]).ok_or_else(|| {
        let help = "of another host's: cellwall import FILE, which has what that one prints by";
        Stop::asked(format!("there is no Apache on this host\n  help: {help}: {DUMP}"))
    })?;
    let info = present(["/usr/lib/apache2/modules/mod_info.so", "/usr/lib64/httpd/modules/mod_info.so"]);
    let info = info.ok_or("there is no mod_info, by which Apache tells its configuration")?;
    printed(apache, &["-C", &format!("LoadModule info_module {info}"), "-t", "-DDUMP_CONFIG"])
}

/// File, line and text of each line.
fn lines(dump: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let (mut file, mut line) = ("", "");
    dump.lines().map(str::trim).filter_map(move |text| {
        if let Some(name) = text.strip_prefix("# In file: ") {
            file = name;
        } else if let Some(number) = text.strip_prefix('#') {
            line = number.trim().trim_end_matches(':');
        } else {
            return Some((file, line, text));
        }
        None
    })
}

/// Pure: what each virtual host sends to which FastCGI socket. One that names none has those that stand outside of all.
pub(super) fn served(dump: &str) -> Vec<Served> {
    let (mut all, mut everywhere, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
    let mut outside = Served::default();
    let mut host: Option<(Served, Vec<Served>)> = None;
    for (file, line, text) in lines(dump) {
        let place = || format!("{file}:{line}");
        if text.starts_with("<VirtualHost") {
            host = Some((Served { place: place(), ..Served::default() }, Vec::new()));
        } else if text == "</VirtualHost>" {
            hosts.extend(host.take());
        } else if !text.starts_with('<') {
            let words = words(text);
            let (about, asked) =
                host.as_mut().map_or((&mut outside, &mut everywhere), |(about, asked)| (about, asked));
            about.told(&words, &place());
            asked.extend(socket(&words).map(|(socket, root)| Served {
                socket,
                root,
                file: file.to_owned(),
                place: place(),
                ..Served::default()
            }));
        }
    }
    hosts.push((outside, Vec::new()));
    for (about, asked) in hosts {
        let asked = if asked.is_empty() { &everywhere } else { &asked };
        all.extend(asked.iter().map(|one| Served {
            root: one.root.clone().or_else(|| about.root.clone()),
            names: about.names.clone(),
            variables: about.variables.clone(),
            ..one.clone()
        }));
    }
    all
}

impl Served {
    /// What a line says of its virtual host.
    fn told(&mut self, words: &[String], place: &str) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = words.first().copied().unwrap_or_default().to_ascii_lowercase();
        let mut variable = |name: &str, value: &str| {
            self.variables.push((name.to_owned(), value.to_owned(), place.to_owned()));
        };
        match (name.as_str(), words.get(1..).unwrap_or_default()) {
            ("documentroot", [path]) => self.root = Some(plain(path)),
            ("servername", [name, ..]) => self.names.push((*name).to_owned()),
            ("setenv", [name, value]) | ("proxyfcgisetenvif", [_, name, value]) => variable(name, value),
            ("setenv", [name]) => variable(name, ""),
            _ => {}
        }
    }
}

/// The socket that a line names, and the directory that it puts before what is asked for.
fn socket(words: &[String]) -> Option<(String, Option<String>)> {
    let name = words.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    if name == "fastcgiexternalserver" {
        let behind = |option: &str| words.iter().skip_while(|word| *word != option).nth(1);
        let path = behind("-socket").map(|path| format!("unix:{path}"));
        return path.or_else(|| behind("-host").cloned()).map(|socket| (socket, None));
    }
    let asks = ["sethandler", "addhandler", "forcetype", "proxypass", "proxypassmatch", "rewriterule"];
    words.iter().skip(1).find_map(|word| asks.contains(&name.as_str()).then(|| web::of_proxy(word))?)
}

/// One virtual host, or several of one user with one document root.
#[derive(Debug, Default)]
struct Site {
    /// Where it was written.
    place: String,
    names: Vec<String>,
    user: Option<(String, String)>,
    docroots: Vec<String>,
    programs: Vec<String>,
    /// Profiles beyond those that the first lines of its programs name.
    profiles: BTreeSet<&'static str>,
    limits: BTreeMap<&'static str, String>,
    pass: BTreeSet<String>,
    values: Values,
    /// Places outside of its docroots that a starter names.
    read: BTreeSet<String>,
    left: Vec<String>,
}

/// Pure but for accounts and owners: the sites by name, and what of the configuration is in none of them.
fn sites_of(dump: &str, directory: &Path) -> (BTreeMap<String, Made>, Vec<String>) {
    let (mut found, mut notes) = (Vec::<Site>::new(), Vec::new());
    let mut host: Option<Site> = None;
    let mut outside = Outside::default();
    for (file, line, text) in lines(dump) {
        if text.starts_with("<VirtualHost") {
            host = Some(Site { place: format!("{file}:{line}"), ..Site::default() });
        } else if text == "</VirtualHost>" {
            found.extend(host.take());
        } else if let Some(site) = &mut host {
            site.directive(&words(text), &format!("{file}:{line}"));
        } else if !outside.takes(text, &format!("{file}:{line}")) && text.starts_with("UserDir") {
            notes.push(format!("{file}:{line}: {text}: [userdir] of cellwall.toml is its like; without it requests for /~USER/ are refused (P114)"));
        } else if text.starts_with("SuexecUserGroup") {
            notes.push(format!("{file}:{line}: {text}: it stands outside of all virtual hosts"));
        }
    }
    notes.append(&mut outside.everywhere.left);
    let mut all = Vec::<Site>::new();
    for mut site in found {
        site.inherit(&outside.everywhere);
        notes.append(&mut site.left);
        if site.user.is_none() {
            let name = site.names.first().map_or("a virtual host", String::as_str);
            notes.push(format!("{}: {name} has no user of its own", site.place));
            continue;
        }
        if site.docroots.is_empty() {
            let name = site.names.first().map_or("a virtual host", String::as_str);
            notes.push(format!(
                "{}: {name} has no DocumentRoot of its own: write its file by hand",
                site.place
            ));
            continue;
        }
        // One docroot is one site's alone: hosts of one user that share one are one site.
        let shares = |other: &Site| {
            other.user == site.user && other.docroots.iter().any(|path| site.docroots.contains(path))
        };
        let (same, others): (Vec<Site>, Vec<Site>) = all.into_iter().partition(shares);
        all = others;
        let whole = same.into_iter().chain([site]).reduce(|mut one, other| {
            one.join(other);
            one
        });
        all.extend(whole);
    }
    let mut sites = BTreeMap::new();
    for mut site in all {
        let user = site.user.as_ref().map_or("", |(user, _)| user);
        let name = free_name(&[site.names.first().map_or("", String::as_str), user], &sites);
        let made = site.made(&values_of(directory, &name), &mut notes);
        sites.insert(name, made);
    }
    (sites, notes)
}

/// What stands outside of all virtual hosts.
#[derive(Debug, Default)]
struct Outside {
    /// What every virtual host has of it.
    everywhere: Site,
    /// Sections that are open: what stands in them is for some places alone.
    sections: usize,
}

impl Outside {
    /// Variables, limits and values that hold for all hosts. False: the line is something else.
    fn takes(&mut self, text: &str, place: &str) -> bool {
        let section = text.trim_start_matches(['<', '/']).to_ascii_lowercase();
        if text.starts_with('<') {
            if !["ifmodule", "ifdefine", "ifversion"].iter().any(|condition| section.starts_with(condition)) {
                let deeper = !text.starts_with("</");
                self.sections =
                    if deeper { self.sections.saturating_add(1) } else { self.sections.saturating_sub(1) };
            }
            return true;
        }
        let words = words(text);
        let name = words.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
        if !INHERITED.contains(&name.as_str()) {
            return false;
        }
        if self.sections == 0 {
            self.everywhere.directive(&words, place);
        } else {
            let why = "it stands in a section outside of all virtual hosts: what a site needs of it goes into its file";
            self.everywhere.left.push(format!("{place}: {text}: {why}"));
        }
        true
    }
}

/// Directives of programs that virtual hosts have from the server's own configuration.
const INHERITED: [&str; 11] = [
    "defaultinitenv",
    "fcgidinitialenv",
    "passenv",
    "php_admin_flag",
    "php_admin_value",
    "php_flag",
    "php_value",
    "rlimitcpu",
    "rlimitmem",
    "rlimitnproc",
    "setenv",
];

impl Site {
    /// What holds for all hosts, where this one says nothing else.
    fn inherit(&mut self, everywhere: &Self) {
        self.pass.extend(everywhere.pass.iter().cloned());
        for (key, most) in &everywhere.limits {
            self.limits.entry(key).or_insert_with(|| most.clone());
        }
        let own = std::mem::replace(&mut self.values, everywhere.values.clone());
        self.values.join(own);
    }

    /// One line of a virtual host, in whatever section of it.
    fn directive(&mut self, words: &[String], place: &str) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = words.first().copied().unwrap_or_default().to_ascii_lowercase();
        match (name.as_str(), words.get(1..).unwrap_or_default()) {
            ("servername", [name, ..]) => {
                let name = name.rsplit("//").next().unwrap_or(name);
                self.names.push(name.split(':').next().unwrap_or(name).to_owned());
            }
            ("documentroot", [path]) => self.docroots.insert(0, plain(path)),
            ("scriptalias", [_, path])
                if HOSTS.iter().any(|own| Path::new(path).starts_with(own)) && Path::new(path).is_dir() =>
            {
                self.left.push(format!(
                    "{place}: {}: name each program that the site uses of it in `programs`",
                    words.join(" ")
                ));
            }
            ("scriptalias", [_, path]) if path.ends_with('/') || Path::new(path).is_dir() => {
                self.docroot(&plain(path));
            }
            ("scriptalias", [_, path]) => self.program(path),
            (
                "suexecusergroup" | "assignuserid" | "ruidgid" | "suphp_usergroup" | "lsapi_user_group",
                [user, group, ..],
            ) => {
                self.user = Some((account(user), group_of(group)));
                if name != "suexecusergroup" {
                    self.left.push(format!(
                        "{place}: {}: it is for PHP that is not started by suEXEC: SuexecUserGroup {user} {group} and AddHandler \
                         cgi-script .php, or a [pool], have it run in the cell",
                        words.join(" ")
                    ));
                }
            }
            // Panels still write the name that mod_fcgid had for it at first.
            ("fcgidwrapper" | "fcgiwrapper", [program, ..]) => {
                // What such a wrapper starts stands in its last line.
                self.profiles.extend(words.iter().any(|word| word.contains("php")).then_some("php"));
                let program = program.split(' ').next().unwrap_or(program);
                self.starter(program, place);
                self.program(program);
            }
            ("rlimitcpu", [.., most]) => self.limit("cpu", most),
            ("rlimitnproc", [.., most]) => self.limit("processes", most),
            ("setenv" | "fcgidinitialenv" | "defaultinitenv", [name, ..]) => {
                self.pass.insert((*name).to_owned());
            }
            ("passenv", names) => self.pass.extend(names.iter().map(|name| (*name).to_owned())),
            ("php_value" | "php_admin_value", [key, text]) => {
                self.values.add(name == "php_admin_value", key, &values::quoted(text));
            }
            ("php_flag" | "php_admin_flag", [key, text]) => {
                self.values.switch(name == "php_admin_flag", key, text)
            }
            _ => {
                let why = lost(&name, &words).map(|why| format!("{place}: {}: {why}", words.join(" ")));
                self.left.extend(why);
            }
        }
    }

    /// What a starter of PHP's sets before it: without its php.ini PHP would run on, and nothing would be said.
    fn starter(&mut self, path: &str, place: &str) {
        let text = beginning(Path::new(path), LONGEST).unwrap_or_default();
        for line in
            String::from_utf8_lossy(&text).lines().map(|line| line.trim().trim_start_matches("export "))
        {
            let ini = line
                .strip_prefix("PHPRC=")
                .map(|ini| ini.split(';').next().unwrap_or_default().trim_matches(['"', '\'', ' ']));
            let Some(ini) = ini else { continue };
            match rooted(ini, Path::new(path)) {
                Some(directory) => {
                    self.values.look_into(&Path::new(&directory).join("php.ini"));
                    self.read.insert(directory);
                }
                None => self.left.push(format!(
                    "{place}: {path} has PHPRC={}: a shell alone knows that path: name its directory in files.read",
                    Untrusted(ini.as_bytes())
                )),
            }
        }
    }

    fn docroot(&mut self, path: &str) {
        if !self.docroots.iter().any(|known| Path::new(path).starts_with(known)) {
            self.docroots.push(path.to_owned());
        }
    }

    /// Root's as it stands; one of the site's own by its directory.
    fn program(&mut self, path: &str) {
        match Path::new(path).parent().and_then(Path::to_str) {
            Some(above) if fs::metadata(path).is_ok_and(|facts| facts.uid() != 0) => self.docroot(above),
            _ => self.programs.push(path.to_owned()),
        }
    }

    fn limit(&mut self, key: &'static str, most: &str) {
        if most.parse::<u64>().is_ok_and(|most| most > 0) {
            self.limits.insert(key, most.to_owned());
        }
    }

    /// The same site behind another port, or by another name.
    fn join(&mut self, other: Self) {
        other.docroots.iter().for_each(|path| self.docroot(path));
        self.programs.extend(other.programs);
        self.profiles.extend(other.profiles);
        self.limits.extend(other.limits);
        self.pass.extend(other.pass);
        self.values.join(other.values);
        self.read.extend(other.read);
    }

    /// Its file, and the one of its values.
    fn made(&mut self, directory: &Path, notes: &mut Vec<String>) -> Made {
        let user = self.user.as_ref().map(|(user, _)| user.clone()).unwrap_or_default();
        let needs = self.values.needs(&user, &self.docroots, &self.place);
        notes.extend(needs.left);
        self.read.extend(needs.read);
        if !self.values.is_empty() {
            self.profiles.insert("php");
            self.read.insert(directory.to_string_lossy().into_owned());
        }
        let text = self.text(&needs.write, directory);
        Made { text, values: self.values.text(&self.place, &self.docroots), ..Made::default() }
    }

    /// The profiles of its programs, by their first lines; PHP's pages have none.
    fn languages(&self) -> BTreeSet<&'static str> {
        let mut found = self.profiles.clone();
        let mut waiting: Vec<(PathBuf, u32)> =
            self.docroots.iter().map(|path| (PathBuf::from(path), 0)).collect();
        let mut left = LOOKED_AT;
        while let Some((directory, depth)) = waiting.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten().take(left) {
                left = left.saturating_sub(1);
                match entry.metadata() {
                    Ok(facts) if facts.is_dir() && depth < DEEPEST => waiting.push((entry.path(), depth + 1)),
                    Ok(facts)
                        if facts.is_file()
                            && entry.path().extension().is_some_and(|ending| ending == "php") =>
                    {
                        found.insert("php");
                    }
                    Ok(facts) if facts.is_file() && facts.mode() & 0o111 != 0 => {
                        found.extend(language(&entry.path()));
                    }
                    _ => {}
                }
            }
        }
        if found.is_empty() { BTreeSet::from(["static"]) } else { found }
    }

    /// Its file.
    fn text(&self, write: &BTreeSet<String>, directory: &Path) -> String {
        let mut document = DocumentMut::new();
        let (user, group) = self.user.clone().unwrap_or_default();
        document.insert("user", value(user));
        document.insert("group", value(group));
        let list = |all: &[String]| value(all.iter().collect::<Array>());
        document.insert("docroot", list(&self.docroots));
        document.insert("profile", value(self.languages().into_iter().collect::<Array>()));
        if !self.programs.is_empty() {
            let all: BTreeSet<&String> = self.programs.iter().collect();
            document.insert("programs", value(all.into_iter().collect::<Array>()));
        }
        if !self.limits.is_empty() {
            let mut table = Table::new();
            for (key, most) in &self.limits {
                table.insert(key, most.parse::<i64>().map_or_else(|_| value(most), value));
            }
            document.insert("limits", Item::Table(table));
        }
        let mut environment = Table::new();
        if !self.pass.is_empty() {
            environment.insert("pass", value(self.pass.iter().collect::<Array>()));
        }
        if !self.values.is_empty() {
            let mut set = InlineTable::new();
            set.insert("PHP_INI_SCAN_DIR", format!(":{PHP_SETTINGS}:{}", directory.display()).into());
            environment.insert("set", value(set));
        }
        let mut files = Table::new();
        for (key, all) in
            [("read", &self.read), ("write", write)].into_iter().filter(|(_, all)| !all.is_empty())
        {
            files.insert(key, value(all.iter().collect::<Array>()));
        }
        for (name, table) in [("environment", environment), ("files", files)] {
            if !table.is_empty() {
                document.insert(name, Item::Table(table));
            }
        }
        format!("# Imported from {}\n{document}", self.place.replace('\n', " "))
    }
}

/// Why a line that has to do with programs is in no key of a site's file; none: it has nothing to do with them.
fn lost(name: &str, words: &[&str]) -> Option<&'static str> {
    let served = |word: &&str| word.contains("fcgi://") || word.starts_with("proxy:");
    Some(match name {
        "action" => {
            "the program that it names runs by its own rules; what is needed more goes into [handlers]"
        }
        "assignuseridexpr" => "each request could have another user: each site has one here",
        "nicevalue" => "limits.nice is its like",
        "rgroups" => "`groups` of the site's file is its like",
        "rlimitmem" => "it is of each process, and limits.memory of all together",
        "scriptaliasmatch" => "name the directories that it leads to in `docroot`",
        "virtualdocumentroot" | "virtualscriptalias" => {
            "each name has another directory: each site has its own file here"
        }
        "rmode" => "the site's file decides whom its programs become",
        _ if name.starts_with("fcgid") || OLD_FCGID.contains(&name) => {
            "mod_fcgid's own setting stays with Apache; [limits] are the site's"
        }
        _ if name.starts_with("fastcgi") => {
            "a [pool] takes its place, or `cellwall import --php-fpm` where php-fpm is asked"
        }
        _ if name.starts_with("suphp_") || name.starts_with("lsapi_") => {
            "its module is not what starts PHP any more"
        }
        _ if name.starts_with("php_") => "it is no value of php.ini",
        "proxypassmatch" | "sethandler" | "addhandler" | "proxypass" if words.iter().any(served) => {
            "it is for php-fpm's pools: cellwall import --php-fpm"
        }
        _ => return None,
    })
}

/// Pure: the words of a line. Apache takes `"` and `'` around one, and `\` before a quote inside.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut letters) = (Vec::new(), line.trim().chars().peekable());
    while let Some(first) = letters.next() {
        let quote = Some(first).filter(|first| matches!(first, '"' | '\''));
        let mut word: String = if quote.is_some() { String::new() } else { first.to_string() };
        while let Some(letter) = letters.next() {
            match quote {
                Some(quote) if letter == quote => break,
                Some(quote) if letter == '\\' && letters.peek() == Some(&quote) => {
                    word.extend(letters.next())
                }
                None if letter.is_whitespace() => break,
                _ => word.push(letter),
            }
        }
        all.push(word);
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
    }
    all
}

/// The directory that a starter names: `$PWD` is its own, where mod_fcgid starts it.
fn rooted(ini: &str, starter: &Path) -> Option<String> {
    let rest = ini.strip_prefix("$PWD/").or_else(|| ini.strip_prefix("${PWD}/"));
    let whole = rest.map_or_else(|| PathBuf::from(ini), |rest| starter.with_file_name(rest));
    let mut real = PathBuf::from("/");
    for part in whole.components() {
        match part {
            Component::ParentDir => drop(real.pop()),
            Component::Normal(name) => real.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let text = real.to_str().map(str::to_owned);
    text.filter(|text| whole.is_absolute() && !text.contains(['$', '`']))
}

/// Without what a docroot may not have at its end.
pub(super) fn plain(path: &str) -> String {
    let cut = path.trim_end_matches('/');
    if cut.is_empty() { "/".to_owned() } else { cut.to_owned() }
}

/// `#1001` is a number.
pub(super) fn account(name: &str) -> String {
    let number = name.strip_prefix('#').and_then(|number| number.parse().ok());
    let found = number.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    found.map_or_else(|| name.to_owned(), |user| user.name)
}

pub(super) fn group_of(name: &str) -> String {
    let number = name.strip_prefix('#').and_then(|number| number.parse().ok());
    let found = number.and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten());
    found.map_or_else(|| name.to_owned(), |group| group.name)
}

fn language(program: &Path) -> Option<&'static str> {
    let mut text = Vec::new();
    // The site's owner may have put anything there since: nothing is followed or waited for.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(program).ok()?;
    file.take(256).read_to_end(&mut text).ok()?;
    let first = text.split(|byte| *byte == b'\n').next()?.strip_prefix(b"#!")?;
    let first = std::str::from_utf8(first).ok()?;
    let mut words = first.split_ascii_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let program = words.find(|word| *word != "env" && !word.starts_with('-'))?;
    let known = ["perl", "python", "ruby", "node", "php", "sh"];
    known.into_iter().find(|known| program.starts_with(known) || *known == "sh" && program.ends_with("sh"))
}

/// What mod_fcgid's directives were called at first, and panels still write.
const OLD_FCGID: [&str; 19] = [
    "busyscaninterval",
    "busytimeout",
    "defaultmaxclassprocesscount",
    "defaultminclassprocesscount",
    "errorscaninterval",
    "idlescaninterval",
    "idletimeout",
    "ipccommtimeout",
    "ipcconnecttimeout",
    "maxprocesscount",
    "maxrequestinmem",
    "maxrequestlen",
    "maxrequestsperprocess",
    "outputbuffersize",
    "passheader",
    "php_fix_pathinfo_enable",
    "processlifetime",
    "spawnscoreuplimit",
    "zombiescaninterval",
];

/// Bytes of a starter: a script of a few lines.
const LONGEST: u64 = 65_536;
/// Entries of a site's docroots, and directories below one another.
const LOOKED_AT: usize = 5000;
const DEEPEST: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starters_own_directory_is_what_it_calls_pwd() {
        let is = |ini: &str| rooted(ini, Path::new("/home/vm1/fcgi-bin/php8.2.fcgi"));
        assert_eq!(is("$PWD/../etc/php8.2").as_deref(), Some("/home/vm1/etc/php8.2"));
        assert_eq!(is("${PWD}/../../../../etc").as_deref(), Some("/etc"));
        assert_eq!(is("/var/www/conf/web1/").as_deref(), Some("/var/www/conf/web1"));
        for unknown in ["$HOME/etc", "etc", "$PWD/$X", "/a/`id`", ""] {
            assert_eq!(is(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_stands_outside_of_all_hosts_is_every_hosts_and_in_a_section_it_is_told() {
        let mut outside = Outside::default();
        for (place, line) in [
            "<IfModule mod_env.c>",
            "SetEnv A 1",
            "</IfModule>",
            "RLimitCPU 9",
            "FcgidInitialEnv B 2",
            "<Directory /home/*/public_html>",
            "php_admin_flag engine Off",
            "</Directory>",
            "php_value c 3",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(outside.takes(line, &format!("f:{place}")), "{line}");
        }
        assert!(!outside.takes("Listen 80", "f:99"));
        let mut site = Site { limits: BTreeMap::from([("cpu", "5".to_owned())]), ..Site::default() };
        site.inherit(&outside.everywhere);
        assert_eq!(site.pass, BTreeSet::from(["A".to_owned(), "B".to_owned()]));
        assert_eq!(site.limits["cpu"], "5");
        assert_eq!(site.values.text("f", &[]), "; Imported from f\nc = 3\n");
        assert_eq!(outside.everywhere.left.len(), 1);
        assert!(
            outside.everywhere.left[0].starts_with("f:6: php_admin_flag engine Off: it stands in a section")
        );
    }

    #[test]
    fn words_are_what_apache_takes_for_words() {
        for (line, all) in [
            ("DocumentRoot /srv/www", &["DocumentRoot", "/srv/www"][..]),
            ("A \"b c\"  'd \"e'", &["A", "b c", "d \"e"]),
            (r#"A "b \"c\" \d""#, &["A", "b \"c\" \\d"]),
            ("A \"\" b", &["A", "", "b"]),
        ] {
            assert_eq!(words(line), all, "{line}");
        }
    }
}
