//! From `[pool]` of a site to the settings of its pool.
//!
//! A site has a pool when `pool.command` or `pool.kind` is written. What the site's owner can change is not looked at: the
//! launcher does that at each start.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::launch::interpreter::is_php_cgi;
use crate::policy::names::is_plain_path;
use crate::pool::settings::{
    self, Accept, Gate, Kind, Life, Listen, Queue, Request, SOCKETS, Seen, Settings, WORKERS_MAX, Workers,
};

use super::cell::{GroupCell, LimitsCell, PoolCell};
use super::compile::{Compiler, Site, value};
use super::problem::{Located, Place, Problems};
use super::rules::{One, Rules};
use super::unused::{self, Shape};
use super::values::{self, Count, PoolKind, Seconds, Size, Words};
use super::{jail, logs};

/// What else of the site the settings hold.
pub(super) struct Beside<'a> {
    /// The jail, with the handlers.
    pub(super) jail: &'a jail::Compiled,
    /// Names and beginnings of names that pass.
    pub(super) pass: &'a (Vec<String>, Vec<String>),
    /// `HTTP_AUTHORIZATION` passes.
    pub(super) authorization: bool,
    /// Most entries, most bytes.
    pub(super) environment_max: (u16, u32),
    /// Its limits, with its control groups.
    pub(super) limits: &'a LimitsCell,
}

impl Beside<'_> {
    /// The first of its control groups that is so; empty: none is.
    fn group(&self, is: impl Fn(&&GroupCell) -> bool) -> &[u8] {
        self.limits.groups.iter().find(is).map_or(&b""[..], |(_, place, _)| bytes(place))
    }
}

/// The record of the site's pool; none: it has no pool, or an error was reported.
pub(super) fn compile(compiler: &mut Compiler<'_>, site: &Site<'_>, beside: &Beside<'_>) -> Option<PoolCell> {
    let rules = site.rules;
    extremes(rules, &compiler.problems);
    let place = match (&rules.pool_kind, &rules.pool_command) {
        (Some(kind), _) => kind.place.clone(),
        (None, Some(command)) => command.place.clone(),
        (None, None) => {
            // What a profile or [defaults] says of pools is checked all the same.
            workers(compiler, rules, Kind::Fastcgi);
            return None;
        }
    };
    let errors = compiler.problems.errors();
    let kind = kind(compiler, rules, &place);
    let command = program(compiler, rules, kind, &place);
    let name = format!("{}.sock", site.file.name);
    // As written and as it is: a web server may know the one or the other.
    let mut docroots: Vec<&[u8]> =
        site.docroots.iter().flat_map(|(path, found)| [bytes(path), bytes(&found.real)]).collect();
    docroots.sort_unstable();
    docroots.dedup();
    let (group, clients) = (group(compiler, rules), clients(compiler, rules));
    let (accept, listen) = (accept(compiler, rules, kind), listen(compiler, rules, &name, &place));
    unused::check(&Shape::new(kind, accept, listen), &site.file.rules, rules, &compiler.problems);
    let settings = Settings {
        name: site.file.name.as_bytes(),
        kind,
        accept,
        listen,
        group,
        clients,
        command: command.iter().map(String::as_bytes).collect(),
        workers: workers(compiler, rules, kind),
        queue: Queue {
            length: count(&rules.pool_queue, 128),
            deadline_ms: time(&rules.pool_queue_timeout, Seconds(30)),
        },
        request: request(rules, &compiler.rules.limits_max.wall),
        worker: Life {
            requests: count(&rules.pool_requests, 0),
            memory: value(&rules.pool_memory).map_or(0, |Size(most)| limited(most)),
            start_ms: time(&rules.pool_start_timeout, Seconds(30)),
            grace_ms: time(&rules.pool_stop_timeout, Seconds(10)),
        },
        group_directory: beside.group(|(version, ..)| *version == 2),
        memory_directory: beside.group(|(.., all)| all.iter().any(|(file, _)| file.starts_with("memory"))),
        // Version 2 divides them among all its groups, weight or none; version 1 where something is asked of it.
        cpu_directory: beside
            .group(|(version, _, all)| *version == 2 || all.iter().any(|(file, _)| file.starts_with("cpu."))),
        cpu_weight: rules.cpu_weight.as_ref().map_or(100, |weight| weight.value.0.into()),
        gate: gate(&docroots, command.first().map(String::as_bytes), beside),
        seen: seen(compiler, rules),
    };
    let record = settings::encode(&settings);
    // Of a command that is no path it was told already, where the cell was made.
    let named = command.first().map_or(kind == Kind::Cgi, |program| is_plain_path(program.as_bytes()));
    // The daemon's own reader has the last word.
    if named
        && compiler.problems.errors() == errors
        && let Err(error) = settings::settings(&record)
    {
        let message = format!("the pool's record is not one that the daemon takes: {error}");
        compiler.problems.error(Some(&place), message, "report it");
    }
    let place = rules.pool_listen.as_ref().map_or(place, |listen| listen.place.clone());
    (compiler.problems.errors() == errors).then_some(PoolCell { record, place })
}

fn kind(compiler: &Compiler<'_>, rules: &Rules, place: &Place) -> Kind {
    let kind = match value(&rules.pool_kind) {
        Some(PoolKind::Parent) => Kind::Parent,
        Some(PoolKind::Cgi) => Kind::Cgi,
        Some(PoolKind::Fastcgi) | None => Kind::Fastcgi,
    };
    let problems = &compiler.problems;
    if rules.pool_command.is_none() && kind != Kind::Cgi {
        let help = "write command = \"/usr/bin/php-cgi\", or kind = \"cgi\" to run the site's CGI programs";
        problems.error(Some(place), "this pool has no program", help);
    }
    let shared =
        kind == Kind::Parent || rules.pool_concurrency.as_ref().is_some_and(|number| number.value.0 > 1);
    if let Some(cpu) = rules.pool_cpu_timeout.as_ref().filter(|time| shared && limited(time.value.0) > 0) {
        let help = "use timeout, or kind \"fastcgi\" with one request at a time; remove the line";
        problems.error(
            Some(&cpu.place),
            "the CPU time of requests that share a worker cannot be told apart",
            help,
        );
    }
    kind
}

fn program(compiler: &Compiler<'_>, rules: &Rules, kind: Kind, place: &Place) -> Vec<String> {
    match &rules.pool_command {
        Some(Located { value: Words(words), .. }) if kind != Kind::Cgi => words.clone(),
        Some(_) => {
            let help =
                "remove command: each request names its own program; handlers run files by their ending";
            compiler.problems.error(Some(place), "a pool of kind \"cgi\" has no command", help);
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn accept(compiler: &Compiler<'_>, rules: &Rules, kind: Kind) -> Accept {
    match &rules.pool_accept {
        Some(Located { value: values::Accept::Direct, place }) => {
            if let Some(cpu) = rules.pool_cpu_timeout.as_ref().filter(|time| limited(time.value.0) > 0) {
                let message = "workers that accept for themselves do not tell when a request begins";
                let help = "remove the line, or accept = \"direct\"";
                compiler.problems.error(Some(&cpu.place), message, help);
            }
            if kind == Kind::Cgi {
                let help = "remove accept: without the broker nobody speaks FastCGI for a CGI program";
                compiler.problems.error(Some(place), "a pool of kind \"cgi\" cannot be direct", help);
            }
            Accept::Direct
        }
        Some(Located { value: values::Accept::Relay, .. }) | None => Accept::Relay,
    }
}

fn listen<'a>(compiler: &Compiler<'_>, rules: &'a Rules, default: &'a str, pool: &Place) -> Listen<'a> {
    let Some(Located { value: text, place }) = &rules.pool_listen else {
        if default.len() > NAME_MAX {
            let message = format!(
                "the pool's socket would have a name of {} letters, {default}: {NAME_MAX} are possible",
                default.len()
            );
            compiler.problems.error(
                Some(pool),
                message,
                "write a shorter one in [pool]: listen = \"NAME.sock\"",
            );
        }
        return Listen::Socket(default.as_bytes());
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        if !address.ip().is_loopback() || address.port() == 0 {
            let help = "use 127.0.0.1:PORT or [::1]:PORT; whoever can connect can run the site's programs";
            compiler.problems.error(
                Some(place),
                format!("{address} is reachable from outside, or is no port"),
                help,
            );
        }
        return Listen::Tcp(address);
    }
    let name = Path::new(text).strip_prefix(SOCKETS).unwrap_or(Path::new(text));
    let name = name.to_str().unwrap_or_default();
    let plain = is_plain_path(format!("/{name}").as_bytes()) && !name.contains('/') && !name.starts_with('.');
    if !plain || name.is_empty() || name.len() > NAME_MAX {
        let help = format!("write a file name, which is made in {SOCKETS}, or 127.0.0.1:PORT");
        compiler.problems.error(
            Some(place),
            format!("`{text}` is no socket below {SOCKETS} and no address"),
            help,
        );
    }
    Listen::Socket(name.as_bytes())
}

/// Letters of a socket's name, which stands below [`SOCKETS`]: the address of a Unix socket holds 107 bytes.
const NAME_MAX: usize = 107 - SOCKETS.len() - 2;

/// Who may open the socket: the web server's own group where nothing else is said.
fn group(compiler: &mut Compiler<'_>, rules: &Rules) -> u32 {
    match &rules.pool_socket_group {
        Some(group) => compiler.named_group(group).unwrap_or_default(),
        None => compiler.accounts.user(&compiler.host.caller_name).map_or(0, |caller| caller.gid),
    }
}

fn clients(compiler: &mut Compiler<'_>, rules: &Rules) -> Vec<u32> {
    let mut all = Vec::new();
    for client in &rules.pool_clients.items {
        match compiler.accounts.user(&client.value) {
            Some(account) => all.push(account.uid),
            None => {
                let message = format!("there is no user `{}`", client.value);
                compiler.problems.error(Some(&client.place), message, "name the web server's user");
            }
        }
    }
    if rules.pool_clients.items.is_empty() {
        all.clone_from(&compiler.host.callers);
    }
    // Root may see whether a pool answers.
    all.push(0);
    all.sort_unstable();
    all.dedup();
    all
}

/// What reads like the opposite of what it would do: 0 where that is no limit, and no limit where there must be one.
fn extremes(rules: &Rules, problems: &Problems) {
    let numbers = [
        ("requests", place_of(&rules.pool_requests, |count| count.0 == 0)),
        ("memory", place_of(&rules.pool_memory, |size| size.0 == 0)),
        ("queue_timeout", place_of(&rules.pool_queue_timeout, |time| time.0 == 0)),
        ("timeout", place_of(&rules.pool_timeout, |time| time.0 == 0)),
        ("output_timeout", place_of(&rules.pool_output_timeout, |time| time.0 == 0)),
        ("cpu_timeout", place_of(&rules.pool_cpu_timeout, |time| time.0 == 0)),
        ("start_timeout", place_of(&rules.pool_start_timeout, |time| time.0 == 0)),
        ("slow", place_of(&rules.pool_slow, |time| time.0 == 0)),
    ];
    for (name, place) in numbers.into_iter().filter(|(_, place)| place.is_some()) {
        let message = format!("pool.{name} = 0 would mean no limit");
        problems.error(place, message, "write \"unlimited\" if that is meant");
    }
    if let Some(place) = place_of(&rules.pool_memory, |size| (1..1 << 20).contains(&size.0)) {
        let bytes = value(&rules.pool_memory).map_or(0, |size| size.0);
        let message = format!("with {bytes} bytes of memory no worker serves a second request");
        problems.error(Some(place), message, "a number alone is bytes: write a unit, as in \"512M\"");
    }
    if let Some(place) = place_of(&rules.pool_queue, |count| count.0 == u64::MAX) {
        let message =
            "pool.queue cannot be unlimited: each request that waits has a connection of cellwalld's";
        problems.error(Some(place), message, "write how many may wait: queue = 1000");
    }
    if let Some(place) = place_of(&rules.pool_stop_timeout, |time| time.0 == u64::MAX) {
        let message =
            "pool.stop_timeout cannot be unlimited: a program that does not end when it is told would stay";
        problems.error(Some(place), message, "write a time: stop_timeout = \"10m\"");
    }
}

/// Where a value stands that is so.
fn place_of<T>(one: &One<T>, is: impl Fn(&T) -> bool) -> Option<&Place> {
    one.as_ref().filter(|one| is(&one.value)).map(|one| &one.place)
}

/// How many processes of the site's uid at most are none of its own: what starts its CGI programs.
pub(super) fn zygotes(rules: &Rules) -> u64 {
    let max = value(&rules.pool_workers).and_then(|all| all.max).map_or(MAX.into(), |Count(count)| count);
    if value(&rules.pool_kind) == Some(PoolKind::Cgi) { max } else { 0 }
}

/// Workers at most, where nothing else is said.
const MAX: u32 = 8;

fn workers(compiler: &Compiler<'_>, rules: &Rules, kind: Kind) -> Workers {
    let written = value(&rules.pool_workers);
    let number = |one: fn(&values::Workers) -> Option<Count>, default: u32| {
        written
            .as_ref()
            .and_then(one)
            .map_or(default, |Count(count)| u32::try_from(count).unwrap_or(u32::MAX))
    };
    let max = number(|all| all.max, if kind == Kind::Parent { 1 } else { MAX });
    let min = number(|all| all.min, 0);
    let spare = number(|all| all.spare, 0);
    let connections = match kind {
        Kind::Parent => count(&rules.pool_children, 4),
        Kind::Fastcgi | Kind::Cgi => count(&rules.pool_concurrency, 1),
    };
    if !(1..=WORKERS_MAX).contains(&max) || min > max || spare > max {
        let place = rules.pool_workers.as_ref().map(|workers| &workers.place);
        let help = format!("max is 1 to {WORKERS_MAX}; min and spare are at most max");
        compiler.problems.error(place, "a pool of so many workers cannot be", help);
    }
    if !(1..=WORKERS_MAX).contains(&connections) {
        let place = rules.pool_children.as_ref().or(rules.pool_concurrency.as_ref()).map(|one| &one.place);
        let help = format!("write 1 to {WORKERS_MAX}");
        compiler.problems.error(place, "so many at a time cannot be", help);
    }
    let idle = written.and_then(|all| all.idle).unwrap_or(Seconds(30));
    // 0 is at once there: no limit is the longest time that the record can hold, 49 days.
    let idle_ms = if idle.0 == u64::MAX { u32::MAX } else { milliseconds(idle) };
    Workers { max, min, spare, idle_ms, connections }
}

fn request(rules: &Rules, most: &One<Seconds>) -> Request {
    let wall = match &rules.wall {
        // The host's largest is no wish of the site's for more than others have.
        Some(wall) if most.as_ref().is_some_and(|most| most.place == wall.place) => {
            wall.value.min(Seconds(60))
        }
        Some(wall) => wall.value,
        None => Seconds(60),
    };
    Request {
        deadline_ms: time(&rules.pool_timeout, wall),
        silence_ms: time(&rules.pool_output_timeout, Seconds(0)),
        cpu_ms: time(&rules.pool_cpu_timeout, Seconds(0)),
        body_max: value(&rules.pool_body_max).map_or(u64::MAX, |Size(most)| most),
        head_ms: 10_000,
        abandon: value(&rules.pool_abandon).unwrap_or(false),
    }
}

/// php-cgi runs whatever it is told to: where a site says nothing else, only what is named as PHP, as php-fpm does. Where each
/// request runs a program of its own, the launcher looks whether it is one: beside what its handlers run there may be others.
fn endings<'a>(program: Option<&[u8]>, beside: &Beside<'a>) -> Vec<&'a [u8]> {
    let Some(program) = program else { return Vec::new() };
    if is_php_cgi(program) && beside.jail.handlers.is_empty() {
        return vec![b".php", b".phar"];
    }
    beside.jail.handlers.iter().map(|(suffix, _)| suffix.as_bytes()).collect()
}

/// The pool's one program, which knows what it is asked for; or, where each request runs a program of its own, those of root's that
/// the launcher takes as they stand.
fn programs<'a>(program: Option<&'a [u8]>, beside: &Beside<'a>) -> Vec<&'a [u8]> {
    match program {
        Some(program) if is_php_cgi(program) => Vec::new(),
        Some(program) => vec![program],
        None => beside.jail.programs.iter().map(|program| bytes(program)).collect(),
    }
}

fn gate<'a>(docroots: &[&'a [u8]], program: Option<&'a [u8]>, beside: &Beside<'a>) -> Gate<'a> {
    let texts = |list: &'a [String]| list.iter().map(String::as_bytes).collect::<Vec<&[u8]>>();
    Gate {
        docroots: docroots.to_vec(),
        jail: beside.jail.jail.hidden(),
        programs: programs(program, beside),
        suffixes: endings(program, beside),
        pass: texts(&beside.pass.0),
        pass_prefixes: texts(&beside.pass.1),
        authorization: beside.authorization,
        entries_max: beside.environment_max.0,
        bytes_max: beside.environment_max.1,
    }
}

fn seen<'a>(compiler: &mut Compiler<'_>, rules: &'a Rules) -> Seen<'a> {
    let text = |one: &'a One<String>| one.as_ref().map_or(&b""[..], |one| one.value.as_bytes());
    for (name, one, log) in [
        ("status", &rules.pool_status, false),
        ("ping", &rules.pool_ping, false),
        ("access_log", &rules.pool_access_log, true),
        ("slow_log", &rules.pool_slow_log, true),
        ("error_log", &rules.pool_error_log, true),
    ] {
        let Some(Located { value: path, place }) = one else { continue };
        let (path, key) = (Path::new(path), format!("pool.{name}"));
        if compiler.plain(path, place, &key) && log {
            logs::pool(compiler, path, place, &key);
        }
    }
    let ping_answer = text(&rules.pool_ping_answer);
    let format = text(&rules.pool_access_format);
    Seen {
        status_path: text(&rules.pool_status),
        ping_path: text(&rules.pool_ping),
        ping_answer: if ping_answer.is_empty() { b"pong" } else { ping_answer },
        access_log: text(&rules.pool_access_log),
        access_format: if format.is_empty() { b"%R - %u %t \"%m %r%Q%q\" %s" } else { format },
        slow_log: text(&rules.pool_slow_log),
        slow_ms: time(&rules.pool_slow, Seconds(0)),
        error_log: text(&rules.pool_error_log),
        errors_to_server: value(&rules.pool_errors_to_server).unwrap_or(false),
    }
}

/// A count; `unlimited` is 0 where 0 means that.
fn count(one: &One<Count>, default: u64) -> u32 {
    let Count(count) = value(one).unwrap_or(Count(default));
    u32::try_from(limited(count)).unwrap_or(u32::MAX)
}

fn time(one: &One<Seconds>, default: Seconds) -> u32 {
    milliseconds(value(one).unwrap_or(default))
}

fn milliseconds(Seconds(seconds): Seconds) -> u32 {
    u32::try_from(limited(seconds).saturating_mul(1000)).unwrap_or(u32::MAX)
}

fn limited(number: u64) -> u64 {
    if number == u64::MAX { 0 } else { number }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
