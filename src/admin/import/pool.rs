//! A pool of php-fpm as a site with a `[pool]`: php-cgi and its children, which share an opcode cache as php-fpm's do.
//!
//! Each directive is carried over, or named with the reason why not. The docroots are those that a web server sends to the
//! pool's socket.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::config::profiles::PHP_SETTINGS;
use crate::pool::settings::SOCKETS;
use crate::refusal::Pasted;

use super::fpm::{self, Directive, Pool};
use super::values::Values;
use super::web::{Served, Variable, variable};
use super::{Args, HOSTS, Made, Stop, apache, expanded, free_name, missing, nginx, printed, values_of, word};

type Told = (BTreeMap<String, Made>, Vec<String>);

/// The sites by name, and what of the pools is in none of them.
pub(super) fn sites(args: &Args, directory: &Path) -> Result<Told, Stop> {
    let files = if args.pools.is_empty() {
        ["/etc/php/*/fpm/php-fpm.conf", "/etc/php-fpm.conf"]
            .iter()
            .flat_map(|path| expanded(Path::new(path)))
            .collect()
    } else {
        args.pools.clone()
    };
    if files.is_empty() {
        let help = "of another host's, name its files: cellwall import --php-fpm --pools FILE";
        return Err(Stop::asked(format!("there is no php-fpm on this host\n  help: {help}")));
    }
    let (served, mut notes) = served(args)?;
    let (mut sites, mut taken) = (BTreeMap::new(), BTreeMap::new());
    for file in files {
        let (global, pools) = fpm::read(&file)?;
        for pool in &pools {
            let named =
                args.docroot.iter().filter_map(|text| text.strip_prefix(&pool.name)?.strip_prefix('='));
            let name = free_name(&[&pool.name, &pool.text("user").unwrap_or_default()], &sites);
            let mut site = Site::new(pool, name, directory);
            let made = site.make(&global, &served, &named.map(str::to_owned).collect::<Vec<_>>());
            match made.and_then(|()| site.alone(&mut taken)) {
                Ok(()) => {
                    notes.append(&mut site.left);
                    sites.insert(site.name.clone(), site.made());
                }
                Err(why) => notes.push(format!("{}: pool {}: {why}", pool.place, pool.name)),
            }
        }
    }
    Ok((sites, notes))
}

/// What the web servers of this host send where, or those whose words are given; and why one could not be asked.
fn served(args: &Args) -> Result<(Vec<Served>, Vec<String>), Stop> {
    let (mut all, mut left) = (Vec::new(), Vec::new());
    if let Some(file) = &args.nginx {
        let help = || format!("nginx -T > {} # where that nginx is", word(file));
        let text = fs::read_to_string(file).map_err(|error| missing(file, &error, help))?;
        all.extend(nginx::served(&text));
    }
    if args.dump.is_some() {
        all.extend(apache::served(&apache::dump(args)?));
    }
    if args.nginx.is_none() && args.dump.is_none() {
        let there = |paths: &[&str]| paths.iter().any(|path| Path::new(path).exists());
        let nginx = there(&["/usr/sbin/nginx"]).then(|| printed("/usr/sbin/nginx", &["-T"]));
        let apache = there(&["/usr/sbin/apache2ctl", "/usr/sbin/httpd"]).then(|| apache::dump(args));
        let read = [
            nginx.map(|said| said.map(|text| nginx::served(&text))),
            apache.map(|said| said.map(|text| apache::served(&text))),
        ];
        for one in read.into_iter().flatten() {
            match one {
                Ok(served) => all.extend(served),
                Err(stop) => left.push(stop.message),
            }
        }
    }
    Ok((all, left))
}

struct Site<'a> {
    pool: &'a Pool,
    name: String,
    /// Where its values go.
    directory: PathBuf,
    user: String,
    docroots: Vec<String>,
    /// Keys of each section.
    sections: BTreeMap<&'static str, BTreeMap<String, Value>>,
    read: BTreeSet<String>,
    write: BTreeSet<String>,
    pass: BTreeSet<String>,
    set: BTreeMap<String, String>,
    values: Values,
    /// Those that a web server sends with each request, which win over the pool's.
    asked: Values,
    left: Vec<String>,
    then: Vec<String>,
    reload: BTreeSet<&'static str>,
}

impl<'a> Site<'a> {
    fn new(pool: &'a Pool, name: String, sites: &Path) -> Self {
        Self {
            pool,
            directory: values_of(sites, &name),
            name,
            user: pool.text("user").map(|user| apache::account(&user)).unwrap_or_default(),
            docroots: Vec::new(),
            sections: BTreeMap::new(),
            read: BTreeSet::new(),
            write: BTreeSet::new(),
            pass: BTreeSet::new(),
            set: BTreeMap::new(),
            values: Values::default(),
            asked: Values::default(),
            left: Vec::new(),
            then: Vec::new(),
            reload: BTreeSet::new(),
        }
    }

    /// All of it, or why not.
    fn make(&mut self, global: &Pool, served: &[Served], named: &[String]) -> Result<(), String> {
        if self.user.is_empty() {
            return Err("it names no user".to_owned());
        }
        if WEB_SERVERS.contains(&self.user.as_str()) {
            return Err(format!(
                "it runs as {}, as the web server does: give the site a user of its own, that user its files, and its name to the pool",
                self.user
            ));
        }
        self.served(served, named)?;
        let place = self.pool.file.components().filter_map(|part| part.as_os_str().to_str());
        let version = place
            .skip_while(|part| *part != "php")
            .nth(1)
            .filter(|part| part.contains('.'))
            .map(str::to_owned);
        self.program(version.as_deref());
        for one in self.pool.directives() {
            self.directive(one);
        }
        self.workers();
        self.timeout();
        for (section, key, line) in
            [("limits", "nice", "process.priority"), ("limits", "open_files", "rlimit_files")]
        {
            if let Some(text) = self.pool.text(line).or_else(|| global.text(line)).filter(|text| text != "0")
            {
                self.number(section, key, &text);
            }
        }
        self.values.join(std::mem::take(&mut self.asked));
        let needs = self.values.needs(&self.user, &self.docroots, &self.pool.place);
        self.read.extend(needs.read);
        self.write.extend(needs.write);
        self.left.extend(needs.left);
        Ok(())
    }

    /// One docroot of a user's is one site's alone.
    fn alone(&self, taken: &mut BTreeMap<(String, String), String>) -> Result<(), String> {
        for root in &self.docroots {
            if let Some(other) = taken.get(&(self.user.clone(), root.clone())) {
                return Err(format!("{root} is pool {other}'s already, which runs as {} too", self.user));
            }
        }
        let own =
            self.docroots.iter().map(|root| ((self.user.clone(), root.clone()), self.pool.name.clone()));
        taken.extend(own);
        Ok(())
    }

    /// The docroots, what their web server adds, and how it is pointed to this pool.
    fn served(&mut self, served: &[Served], named: &[String]) -> Result<(), String> {
        named.iter().for_each(|path| self.docroot(&apache::plain(path)));
        let listen = self.pool.text("listen").unwrap_or_default();
        let socket = format!("{SOCKETS}/{}.sock", self.name);
        for one in served.iter().filter(|one| one.asks(&listen)) {
            let host = one.names.first().map_or("a host", String::as_str);
            match (&one.root, &one.unknown) {
                (Some(root), _) if HOSTS.iter().any(|own| Path::new(root).starts_with(own)) => {
                    self.left.push(format!(
                        "{}: {root}: no docroot can be in a directory of the host's own",
                        one.place
                    ));
                }
                (Some(root), _) => self.docroot(&apache::plain(root)),
                (None, unknown) => self.left.push(format!(
                    "{}: {host} has no one docroot{}: name it by --docroot {}=DIRECTORY",
                    one.place,
                    unknown.as_ref().map(|text| format!(" ({text})")).unwrap_or_default(),
                    Pasted(self.pool.name.as_bytes())
                )),
            }
            one.variables.iter().for_each(|(name, value, place)| self.variable(name, value, place));
            self.then.push(one.moved(&socket));
            self.reload.insert(if one.nginx { "nginx" } else { crate::admin::apache::unit() });
        }
        if self.docroots.is_empty() {
            return Err(format!(
                "no web server here sends a docroot's scripts to {listen}: name it by --docroot {}=DIRECTORY",
                Pasted(self.pool.name.as_bytes())
            ));
        }
        Ok(())
    }

    fn docroot(&mut self, path: &str) {
        if !self.docroots.iter().any(|known| Path::new(path).starts_with(known)) {
            self.docroots.retain(|known| !Path::new(known).starts_with(path));
            self.docroots.push(path.to_owned());
        }
    }

    fn variable(&mut self, name: &str, text: &str, place: &str) {
        match variable(name) {
            Variable::Known => {}
            Variable::Named => drop(self.pass.insert(name.to_owned())),
            Variable::Never => self.left.push(format!(
                "{place}: {name}: it steers programs and never passes; [environment] set has fixed values"
            )),
            Variable::Values { .. } if text.contains('$') || text.contains("%{") => {
                self.left.push(format!("{place}: {name} = {text}: it is another one at each request"));
            }
            Variable::Values { locked } => {
                for (name, text) in text.lines().filter_map(|line| line.split_once('=')) {
                    if !self.asked.adds(locked, name.trim(), text.trim()) {
                        self.left.push(format!(
                            "{place}: {name} = {text}: another host of this pool has another value"
                        ));
                    }
                }
            }
        }
    }

    /// php-cgi of the pool's version, with php-fpm's own php.ini where that is another one than php-cgi's.
    fn program(&mut self, version: Option<&str>) {
        let program = version.map(|version| format!("/usr/bin/php-cgi{version}"));
        let program = program.unwrap_or_else(|| "/usr/bin/php-cgi".to_owned());
        if version.is_none() {
            self.left.push(format!(
                "{}: its PHP: {program} is taken; another one goes into pool.command",
                self.pool.place
            ));
        }
        if !Path::new(&program).exists() {
            let package = version.map_or("php-cgi".to_owned(), |version| format!("php{version}-cgi"));
            self.left.push(format!("{}: {program} is not there: apt-get install {package}", self.pool.place));
        }
        self.key("pool", "kind", "parent");
        self.key("pool", "command", program.as_str());
        self.key("handlers", ".php", program.as_str());
        let mut scan = String::new();
        if let Some(version) = version {
            let (ours, theirs) = (format!("/etc/php/{version}/fpm"), format!("/etc/php/{version}/cgi"));
            if Path::new(&ours).join("php.ini").exists() && settings(&ours) != settings(&theirs) {
                self.set.insert("PHPRC".to_owned(), ours.clone());
                self.read.insert(format!("{ours}/php.ini"));
                scan = format!("{ours}/conf.d");
            }
        }
        self.set.insert("PHP_INI_SCAN_DIR".to_owned(), scan);
    }

    fn directive(&mut self, one: &Directive) {
        let text = one.text();
        match one.key.as_str() {
            "user"
            | "listen"
            | "pm"
            | "pm.max_children"
            | "pm.max_requests"
            | "pm.process_idle_timeout"
            | "request_terminate_timeout"
            | "process.priority"
            | "rlimit_files" => {}
            _ if one.raw.is_empty() && !one.key.starts_with("php_") => {}
            "group" => self.top("group", &apache::group_of(&text)),
            "listen.group" if !WEB_SERVERS.contains(&text.as_str()) => self.key("pool", "socket_group", text),
            "listen.owner" if WEB_SERVERS.contains(&text.as_str()) || text == "root" => {}
            "listen.group" => {}
            "listen.mode" if text.ends_with('0') => {}
            "rlimit_core" if text == "unlimited" => self.key("limits", "core", "unlimited"),
            "rlimit_core" => self.number("limits", "core", &text),
            "pm.status_path" => self.key("pool", "status", text),
            "ping.path" => self.key("pool", "ping", text),
            "ping.response" if self.pool.text("ping.path").is_some() => self.key("pool", "ping_answer", text),
            "access.log" if text.starts_with('/') => self.key("pool", "access_log", text),
            "access.format" if self.pool.text("access.log").is_some() => {
                self.key("pool", "access_format", text)
            }
            "slowlog" if text.starts_with('/') && self.slow().is_some() => self.key("pool", "slow_log", text),
            "request_slowlog_timeout" => {
                if let Some(time) = self.slow() {
                    self.key("pool", "slow", time);
                }
            }
            "catch_workers_output" | "clear_env" | "decorate_workers_output" if text == "1" => {}
            "security.limit_extensions" if !text.is_empty() => {
                let program = self.sections.get("pool").and_then(|keys| keys.get("command")).cloned();
                self.sections.remove("handlers");
                let program = program.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                text.split_whitespace().for_each(|ending| self.key("handlers", ending, program.as_str()));
            }
            "env" if !text.starts_with('$') => drop(self.set.insert(one.name.clone(), text)),
            "php_value" | "php_admin_value" => {
                let raw =
                    if one.name == "disable_functions" { self.forbidden(&one.raw) } else { one.raw.clone() };
                self.values.add(one.key == "php_admin_value", &one.name, &raw);
            }
            "php_flag" | "php_admin_flag" => {
                self.values.switch(one.key == "php_admin_flag", &one.name, &one.raw)
            }
            key => self.left.push(format!("{one}: {}", why(key))),
        }
    }

    fn slow(&self) -> Option<String> {
        self.pool.text("request_slowlog_timeout").and_then(|text| time(&text))
    }

    /// All of a pool's children are there from the start, as a static pool's are; they share what they have not changed.
    fn workers(&mut self) {
        let children = self.pool.text("pm.max_children").unwrap_or_default();
        self.number("pool", "children", &children);
        let (least, idle) = match self.pool.text("pm").as_deref() {
            Some("ondemand") => {
                (0, self.pool.text("pm.process_idle_timeout").unwrap_or_else(|| "10s".to_owned()))
            }
            _ => (1, String::new()),
        };
        let mut workers = InlineTable::new();
        workers.insert("max", 1.into());
        workers.insert("min", least.into());
        if let Some(idle) = time(&idle) {
            workers.insert("idle", idle.into());
        }
        self.key("pool", "workers", workers);
        let each = self.pool.text("pm.max_requests").and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        if each > 0 {
            self.key("pool", "requests", each.saturating_mul(children.parse().unwrap_or(1)));
        }
    }

    /// php-fpm has none where nothing else is written.
    fn timeout(&mut self) {
        let text = self.pool.text("request_terminate_timeout").and_then(|text| time(&text));
        self.key("pool", "timeout", text.unwrap_or_else(|| "unlimited".to_owned()));
    }

    /// php-fpm forbids what php.ini does as well.
    fn forbidden(&self, raw: &str) -> String {
        let file = self
            .pool
            .file
            .ancestors()
            .find(|above| above.ends_with("fpm"))
            .map(|above| above.join("php.ini"));
        let all = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let known = all
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix("disable_functions")?.trim().strip_prefix('='));
        match known.map(fpm::text).filter(|known| !known.is_empty()) {
            Some(known) => format!("\"{known},{}\"", fpm::text(raw)),
            None => raw.to_owned(),
        }
    }

    fn top(&mut self, key: &str, text: &str) {
        self.key("", key, text);
    }

    fn key(&mut self, section: &'static str, key: &str, value: impl Into<Value>) {
        self.sections.entry(section).or_default().insert(key.to_owned(), value.into());
    }

    fn number(&mut self, section: &'static str, key: &str, text: &str) {
        match text.parse::<i64>() {
            Ok(number) => self.key(section, key, number),
            Err(_) => self.left.push(format!("{}: {key}: {text} is no number", self.pool.place)),
        }
    }

    fn made(mut self) -> Made {
        let values =
            self.values.text(&format!("{}, pool {}", self.pool.place, self.pool.name), &self.docroots);
        let directory = self.directory.to_string_lossy().into_owned();
        if let Some(scan) = self.set.get_mut("PHP_INI_SCAN_DIR") {
            if !values.is_empty() {
                *scan = format!("{scan}:{PHP_SETTINGS}:{directory}");
                self.read.insert(directory);
            } else if scan.is_empty() {
                self.set.remove("PHP_INI_SCAN_DIR");
            } else {
                *scan = format!("{scan}:{PHP_SETTINGS}");
            }
        }
        Made { text: self.text(), values, then: self.then, reload: self.reload }
    }

    fn text(&self) -> String {
        let mut document = DocumentMut::new();
        document.insert("user", value(&self.user));
        for (key, one) in self.sections.get("").into_iter().flatten() {
            document.insert(key, Item::Value(one.clone()));
        }
        let list = |all: &mut dyn Iterator<Item = &String>| value(all.collect::<Array>());
        document.insert("docroot", list(&mut self.docroots.iter()));
        document.insert("profile", value("php"));
        let mut files = Table::new();
        for (key, all) in [("read", &self.read), ("write", &self.write)] {
            if !all.is_empty() {
                files.insert(key, list(&mut all.iter()));
            }
        }
        let mut environment = Table::new();
        if !self.pass.is_empty() {
            environment.insert("pass", list(&mut self.pass.iter()));
        }
        if !self.set.is_empty() {
            let mut set = Table::new();
            for (name, text) in &self.set {
                set.insert(name, value(text));
            }
            environment.insert("set", Item::Table(set));
        }
        let mut tables = vec![("files", files), ("environment", environment)];
        for (section, keys) in self.sections.iter().filter(|(section, _)| !section.is_empty()) {
            let mut table = Table::new();
            for (key, one) in keys {
                table.insert(key, Item::Value(one.clone()));
            }
            tables.push((section, table));
        }
        for (name, table) in tables.into_iter().filter(|(_, table)| !table.is_empty()) {
            document.insert(name, Item::Table(table));
        }
        format!("# Imported from {}, pool {}\n{document}", self.pool.place, self.pool.name)
    }
}

/// Pure: php-fpm's time in a form of ours; none: no limit.
fn time(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().ok().filter(|number| *number > 0)?;
    match text.get(digits.len()..).unwrap_or_default() {
        "m" => Some(format!("{number}m")),
        "h" => Some(format!("{number}h")),
        "d" => Some(format!("{}h", number.saturating_mul(24))),
        _ => Some(format!("{number}s")),
    }
}

/// php.ini without comments, and the names of what is read beside it.
fn settings(directory: &str) -> (Vec<String>, Vec<PathBuf>) {
    let text = fs::read(Path::new(directory).join("php.ini")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(';'));
    let beside = expanded(&Path::new(directory).join("conf.d/*.ini"));
    (
        lines.map(str::to_owned).collect(),
        beside.iter().filter_map(|path| path.file_name().map(PathBuf::from)).collect(),
    )
}

/// Why a directive has no key, or none with this value.
fn why(key: &str) -> &'static str {
    match key {
        "access.log" | "slowlog" => {
            "write a whole path, in a directory of root's; and pool.slow for what is slow"
        }
        "access.format" => "there is no access log",
        "access.suppress_path" => "the access log has each request",
        "apparmor_hat" => "the site's cell takes its place",
        "catch_workers_output" => "what workers write is always logged (pool.error_log)",
        "chdir" => "PHP works in the directory of each script, here as there",
        "chroot" => "the site's view takes its place, with all paths as they are outside; see jail.kind",
        "clear_env" => {
            "nothing of the daemon's environment passes: name what is needed under [environment] set"
        }
        "decorate_workers_output" => "a line of the log has the site's name before it",
        "env" => "it is the daemon's own variable: give it a value under [environment] set",
        "listen.acl_groups" | "listen.acl_users" | "listen.mode" | "listen.owner" => {
            "the socket is root's, its group's and nobody else's: pool.socket_group, and pool.clients for who may connect"
        }
        "listen.allowed_clients" => "a socket has no addresses: pool.clients names users",
        "listen.backlog" => "requests wait in the pool's own queue: pool.queue",
        "ping.response" => "there is no ping page",
        "pm.max_spare_servers" | "pm.max_spawn_rate" | "pm.min_spare_servers" | "pm.start_servers" => {
            "all children are there from the start"
        }
        "pm.status_listen" => "the status page is on the pool's socket, and `cellwall status` shows it",
        "prefix" => "write whole paths",
        "process.dumpable" => "a worker is never dumpable; limits.core is the size of a core",
        "request_slowlog_trace_depth" => "the slow log has the kernel's view of the worker",
        "request_terminate_timeout_track_finished" => "pool.timeout counts until the end of the answer",
        "security.limit_extensions" => "a pool runs what ends as [handlers] says, and nothing else",
        _ => "no key is its like",
    }
}

/// Accounts of web servers.
const WEB_SERVERS: [&str; 5] = ["www-data", "apache", "nginx", "http", "nobody"];
