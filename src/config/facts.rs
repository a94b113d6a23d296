//! A record in words: what `cellwall policy` prints, and the difference that `apply --dry-run` tells.
//!
//! Pure. Both are made from the same facts, so that nothing can change without being told.

use std::collections::BTreeMap;

use crate::policy::{
    ControlGroup, Enforcement, Environment, Format, Host, Identity, Jail, Landlock, Limits, Links, PathRule,
    Record, Resource, Sink, Site, Step, StepKind,
};
use crate::pool::settings::{self, Accept, Kind, Life, Listen, Queue, Request, Seen, Settings, Workers};

/// One thing that a record says, under the name of the key that decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The key, `limits.memory`.
    pub key: &'static str,
    /// What it is set to.
    pub value: Value,
}

/// One value, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A scalar.
    One(String),
    /// A list.
    Many(Vec<String>),
}

fn one(key: &'static str, value: impl Into<String>) -> Fact {
    Fact { key, value: Value::One(value.into()) }
}

fn many(key: &'static str, values: impl IntoIterator<Item = String>) -> Fact {
    Fact { key, value: Value::Many(values.into_iter().collect()) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn texts(list: &[&[u8]]) -> Vec<String> {
    list.iter().map(|bytes| text(bytes)).collect()
}

fn numbers<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn yes(on: bool) -> &'static str {
    if on { "true" } else { "false" }
}

/// What the host's part says.
#[must_use]
pub fn host(host: &Host<'_>) -> Vec<Fact> {
    vec![
        one("caller", format!("{} (uid {})", text(host.caller_name), numbers(&host.callers).join(", "))),
        one("docroot", text(host.docroot)),
        one("minimum_uid", host.uid_min.to_string()),
        one("minimum_gid", host.gid_min.to_string()),
        one("path", text(host.safe_path)),
        one("umask", format!("{:03o}", host.umask)),
        one("userdir.suffix", text(host.userdir)),
        one(
            "log.to",
            match host.log.sink {
                Sink::Syslog => "syslog",
                Sink::File => "file",
            },
        ),
        one("log.file", text(host.log.file)),
        one("log.strict", yes(host.log.strict)),
        one(
            "log.format",
            match host.log.format {
                Format::Keys => "cellwall",
                Format::Suexec => "suexec",
            },
        ),
    ]
}

fn home(identity: &Identity<'_>) -> String {
    let place = text(identity.home);
    match identity.home_inode {
        0 => format!("{place}, whichever it is"),
        inode => format!("{place}, the one with inode {inode}, made at {}", identity.home_born),
    }
}

fn account(record: &Record<'_>) -> String {
    let whose = if record.listed { "of /etc/passwd" } else { "of a directory service" };
    format!("{} {whose}", text(record.user))
}

/// What one site's part says.
#[must_use]
pub fn site(site: &Site<'_>) -> Vec<Fact> {
    let mut all = vec![
        one("group", format!("{} (gid {})", text(site.identity.group), site.identity.gid)),
        many("groups", numbers(&site.identity.groups)),
        one(
            "code_owner",
            site.identity.code_owner.map_or_else(|| "the site's user".to_owned(), |uid| format!("uid {uid}")),
        ),
        one("home", home(&site.identity)),
        many("docroot", texts(&site.docroots)),
        one(
            "symlinks",
            match site.links {
                Links::Deny => "deny",
                Links::OwnerMatch => "owner-match",
            },
        ),
        one("hard_links", yes(site.hard_links)),
        many("programs", texts(&site.programs)),
        many("interpreters", texts(&site.interpreters)),
        many(
            "handlers",
            site.handlers
                .iter()
                .map(|handler| format!("{} = {}", text(handler.suffix), texts(&handler.command).join(" "))),
        ),
    ];
    all.extend(jail(&site.jail));
    all.extend(landlock(&site.landlock));
    all.push(one("jail.seccomp", seccomp(site.seccomp)));
    all.push(one("jail.log_denials", yes(site.log_denials)));
    all.push(one("privileges.dangerous_set_id_mail", yes(site.set_id_mail)));
    all.extend(limits(&site.limits));
    all.extend(environment(&site.environment));
    all
}

fn jail(jail: &Jail<'_>) -> Vec<Fact> {
    match jail {
        Jail::Host => vec![one("jail.kind", "host")],
        Jail::Chroot(directory) => vec![one("jail.kind", "chroot"), one("jail.directory", text(directory))],
        Jail::View(view) => vec![one("jail.kind", "view"), many("jail.view", view.steps.iter().map(step))],
    }
}

fn step(step: &Step<'_>) -> String {
    let (source, target) = (text(step.source), text(step.target));
    let place = match step.kind {
        StepKind::Directory => format!("{target} (empty)"),
        StepKind::Link => return format!("{target} -> {source}"),
        StepKind::BindDirectory | StepKind::BindFile
            if source == target || step.flags & Step::DEEPER != 0 =>
        {
            target
        }
        StepKind::BindDirectory | StepKind::BindFile => format!("{target} (from {source})"),
        StepKind::Memory => format!("{target} (memory)"),
        StepKind::Processes => format!("{target} (own processes)"),
    };
    let words = [
        (Step::READ_ONLY, "read-only"),
        (Step::NO_DEVICES, "nodev"),
        (Step::NO_EXEC, "noexec"),
        (Step::NO_SET_ID, "nosuid"),
        (Step::OPTIONAL, "optional"),
        (Step::SITE, "the site's"),
        (Step::DEEPER, "from where it is not root's"),
    ];
    let flags: Vec<&str> =
        words.iter().filter(|(flag, _)| step.flags & flag != 0).map(|(_, word)| *word).collect();
    format!("{place}: {}", flags.join(" "))
}

fn landlock(landlock: &Landlock<'_>) -> Vec<Fact> {
    let mode = match landlock.mode {
        Enforcement::Off => "off",
        Enforcement::BestEffort => "best-effort",
        Enforcement::Required => "required",
    };
    let mut all = vec![
        one("jail.landlock", mode),
        one("jail.landlock_abi", landlock.abi_min.to_string()),
        many("files", landlock.rules.iter().map(rule)),
    ];
    for (key, ports) in [("network.connect", &landlock.connect), ("network.bind", &landlock.bind)] {
        all.push(match ports {
            None => one(key, "any port"),
            Some(ports) => many(key, numbers(ports)),
        });
    }
    all
}

fn rule(rule: &PathRule<'_>) -> String {
    format!("{} {}", rights(rule), text(rule.path))
}

/// What a rule permits, in words.
#[must_use]
pub fn rights(rule: &PathRule<'_>) -> String {
    let words = [
        (PathRule::READ, "read"),
        (PathRule::EXECUTE, "execute"),
        (PathRule::WRITE, "write"),
        (PathRule::CONTROL, "control"),
        (PathRule::OPTIONAL, "if it exists"),
    ];
    let rights: Vec<&str> =
        words.iter().filter(|(right, _)| rule.rights & right != 0).map(|(_, word)| *word).collect();
    rights.join(", ")
}

fn seccomp(program: &[u8]) -> String {
    match program.len() / 8 {
        0 => "off".to_owned(),
        count => {
            format!("baseline ({count} instructions, {:016x})", crate::policy::decode::checksum(program))
        }
    }
}

fn limits(limits: &Limits<'_>) -> Vec<Fact> {
    let mut all = Vec::new();
    // The size of a group's memory is told below, and is the same.
    let grouped = limits.groups.iter().any(ControlGroup::holds_memory);
    for limit in limits.resources.iter().filter(|limit| !(grouped && limit.number == Resource::ADDRESS_SPACE))
    {
        let (key, shown) = match limit.number {
            Resource::CPU => ("limits.cpu", seconds(limit.value)),
            Resource::FILE_SIZE => ("limits.file_size", size(limit.value)),
            Resource::STACK => ("limits.stack", size(limit.value)),
            Resource::CORE => ("limits.core", size(limit.value)),
            Resource::PROCESSES => ("limits.processes", count(limit.value)),
            Resource::OPEN_FILES => ("limits.open_files", count(limit.value)),
            Resource::ADDRESS_SPACE => ("limits.memory", size(limit.value)),
            _ => ("limits", format!("{}: {}", limit.number, limit.value)),
        };
        all.push(one(key, shown));
    }
    for group in &limits.groups {
        for (file, value) in &group.settings {
            if file.starts_with(b"memory") {
                let bytes = text(value).parse().map_or_else(|_| text(value), size);
                all.push(one("limits.memory", bytes));
            }
            all.extend(share(file, &text(value)));
        }
    }
    all.push(one(
        "limits.wall",
        if limits.wall_seconds == 0 { "unlimited".into() } else { seconds(limits.wall_seconds.into()) },
    ));
    all.push(one("limits.umask", format!("{:03o}", limits.umask)));
    all.push(one("limits.nice", limits.nice.to_string()));
    all.push(one("limits.oom_score", limits.oom_score.to_string()));
    // Their settings are told above, as memory and processes.
    let group = |group: &ControlGroup<'_>| format!("{} (version {})", text(group.directory), group.version);
    all.push(many("limits.cgroup", limits.groups.iter().map(group)));
    if limits.groups_required {
        all.push(one("limits.cgroup_required", "true"));
    }
    all
}

/// A share of the processors, as it was written.
fn share(file: &[u8], value: &str) -> Option<Fact> {
    let number = value.split(' ').next().and_then(|word| word.parse::<u64>().ok())?;
    match file {
        b"cpu.weight" => Some(one("limits.cpu_weight", value)),
        b"cpu.shares" => {
            Some(one("limits.cpu_weight", number.saturating_mul(100).div_ceil(1024).to_string()))
        }
        b"cpu.max" | b"cpu.cfs_quota_us" => Some(one("limits.cpu_max", format!("{}%", number / 1000))),
        _ => None,
    }
}

fn environment(environment: &Environment<'_>) -> Vec<Fact> {
    let prefixes = environment.pass_prefixes.iter().map(|prefix| format!("{}*", text(prefix)));
    vec![
        many("environment.pass", texts(&environment.pass).into_iter().chain(prefixes)),
        many(
            "environment.set",
            environment.set.iter().map(|(name, value)| format!("{}={}", text(name), text(value))),
        ),
        one("environment.authorization", yes(environment.authorization)),
        one("environment.entries_max", environment.entries_max.to_string()),
        one("environment.bytes_max", environment.bytes_max.to_string()),
    ]
}

/// What one pool's settings say; what its kind does nothing with is left out, and so is what the site's part says already.
#[must_use]
pub fn pool(settings: &Settings<'_>) -> Vec<Fact> {
    let (kind, relayed) = (settings.kind, settings.accept == Accept::Relay);
    let mut all = vec![
        one(
            "pool.kind",
            match kind {
                Kind::Fastcgi => "fastcgi",
                Kind::Parent => "parent",
                Kind::Cgi => "cgi",
            },
        ),
        one("pool.accept", if relayed { "relay" } else { "direct" }),
    ];
    match settings.listen {
        Listen::Tcp(address) => all.push(one("pool.listen", address.to_string())),
        Listen::Socket(name) => {
            all.push(one("pool.listen", text(name)));
            all.push(one("pool.socket_group", format!("gid {}", settings.group)));
            let clients = settings.clients.iter().map(|uid| format!("uid {uid}"));
            all.extend(relayed.then(|| many("pool.clients", clients)));
        }
    }
    if kind != Kind::Cgi {
        all.push(one("pool.command", texts(&settings.command).join(" ")));
    }
    all.extend(pool_workers(settings, relayed));
    if relayed {
        all.extend(pool_requests(settings));
    }
    all.extend(pool_seen(&settings.seen, relayed));
    all
}

fn pool_workers(settings: &Settings<'_>, relayed: bool) -> Vec<Fact> {
    let Workers { max, min, spare, idle_ms, connections } = settings.workers;
    let Life { requests, memory, start_ms, grace_ms } = settings.worker;
    let program = settings.kind != Kind::Cgi;
    let numbers = match (program, relayed) {
        (true, true) => format!("max = {max}, min = {min}, spare = {spare}, idle = {}", time(idle_ms)),
        (true, false) => format!("max = {max}"),
        (false, _) => format!("max = {max}, idle = {}", time(idle_ms)),
    };
    let mut all = vec![one("pool.workers", numbers)];
    if settings.kind == Kind::Parent {
        all.push(one("pool.children", connections.to_string()));
    }
    if program && relayed {
        if settings.kind == Kind::Fastcgi {
            all.push(one("pool.concurrency", connections.to_string()));
        }
        all.push(one("pool.requests", most(requests)));
        all.push(one("pool.memory", if memory == 0 { "unlimited".to_owned() } else { size(memory) }));
        all.push(one("pool.start_timeout", time(start_ms)));
    }
    if program {
        all.push(one("pool.stop_timeout", time(grace_ms)));
    }
    all
}

fn pool_requests(settings: &Settings<'_>) -> Vec<Fact> {
    let Queue { length, deadline_ms: queued } = settings.queue;
    let Request { deadline_ms, silence_ms, cpu_ms, body_max, abandon, .. } = settings.request;
    vec![
        one("pool.queue", length.to_string()),
        one("pool.queue_timeout", time(queued)),
        one("pool.timeout", time(deadline_ms)),
        one("pool.output_timeout", time(silence_ms)),
        one("pool.cpu_timeout", time(cpu_ms)),
        one("pool.body_max", size(body_max)),
        one("pool.abandon", yes(abandon)),
    ]
}

fn pool_seen(seen: &Seen<'_>, relayed: bool) -> Vec<Fact> {
    let mut all = vec![one("pool.error_log", text(seen.error_log))];
    if !relayed {
        return all;
    }
    all.push(one("pool.status", text(seen.status_path)));
    all.push(one("pool.ping", text(seen.ping_path)));
    if !seen.ping_path.is_empty() {
        all.push(one("pool.ping_answer", text(seen.ping_answer)));
    }
    all.push(one("pool.access_log", text(seen.access_log)));
    if !seen.access_log.is_empty() {
        all.push(one("pool.access_format", text(seen.access_format)));
    }
    all.push(one("pool.slow", if seen.slow_ms == 0 { "none is".to_owned() } else { time(seen.slow_ms) }));
    if seen.slow_ms != 0 {
        all.push(one("pool.slow_log", text(seen.slow_log)));
    }
    all.push(one("pool.errors_to_server", yes(seen.errors_to_server)));
    all
}

/// Milliseconds of a pool's settings, where 0 is no limit.
fn time(ms: u32) -> String {
    match ms {
        0 => "unlimited".to_owned(),
        ms if ms % 1000 == 0 => seconds(u64::from(ms / 1000)),
        ms => format!("{ms}ms"),
    }
}

fn most(value: u32) -> String {
    if value == 0 { "unlimited".to_owned() } else { value.to_string() }
}

fn count(value: u64) -> String {
    if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() }
}

fn seconds(value: u64) -> String {
    if value == u64::MAX { "unlimited".to_owned() } else { format!("{value}s") }
}

/// Bytes in the largest unit that divides them.
#[must_use]
pub fn size(value: u64) -> String {
    if value == u64::MAX {
        return "unlimited".to_owned();
    }
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let whole = units.iter().find(|(_, bits)| value != 0 && value.is_multiple_of(1 << bits));
    whole.map_or_else(|| value.to_string(), |(unit, bits)| format!("{}{unit}", value >> bits))
}

/// What changes from one record of a uid to another, and from its pools' records, a sentence each.
#[must_use]
pub fn difference(
    old: Option<&Record<'_>>,
    new: Option<&Record<'_>>,
    old_pools: Option<&[u8]>,
    new_pools: Option<&[u8]>,
) -> Vec<String> {
    let sites = |record: Option<&Record<'_>>| -> BTreeMap<String, Vec<Fact>> {
        let sites = record.map(|record| record.sites.as_slice()).unwrap_or_default();
        sites.iter().map(|one| (text(one.name), site(one))).collect()
    };
    let (before, after) = (sites(old), sites(new));
    let (pools_before, pools_after) = (pools(old_pools), pools(new_pools));
    let uid = new.or(old).map_or(0, |record| record.uid);
    let mut told = Vec::new();
    for (name, facts) in &after {
        match before.get(name) {
            None => told.push(format!("new site {name} (uid {uid})")),
            Some(old) => {
                let mut all = changes(old, facts);
                all.extend(pool_changes(pools_before.get(name), pools_after.get(name)));
                told.extend(all.into_iter().map(|change| format!("site {name}: {change}")));
            }
        }
    }
    told.extend(
        before
            .keys()
            .filter(|name| !after.contains_key(*name))
            .map(|name| format!("site {name} is removed (uid {uid})")),
    );
    if let (Some(old), Some(new)) = (old, new) {
        let changed = changes(&host(&old.host), &host(&new.host));
        told.extend(changed.into_iter().map(|change| format!("uid {uid}, the host's part: {change}")));
        if account(old) != account(new) {
            told.push(format!("uid {uid} is {} instead of {}", account(new), account(old)));
        }
        if told.is_empty() && old != new {
            told.push(format!("uid {uid}: only dates of files or the order of sites"));
        }
    }
    told
}

/// The facts of each pool of a `<uid>.pool` file, by its site.
fn pools(bytes: Option<&[u8]>) -> BTreeMap<String, Vec<Fact>> {
    let file = bytes.and_then(|bytes| settings::file(bytes).ok());
    let all = file.iter().flat_map(settings::File::settings);
    all.map(|settings| (text(settings.name), pool(&settings))).collect()
}

fn pool_changes(old: Option<&Vec<Fact>>, new: Option<&Vec<Fact>>) -> Vec<String> {
    match (old, new) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec!["has no pool any more".to_owned()],
        (Some(old), Some(new)) => changes(old, new),
        (None, Some(new)) => {
            let mut told = vec!["has a pool now".to_owned()];
            told.extend(changes(&[], new));
            told
        }
    }
}

/// What changes in the host's own record.
#[must_use]
pub fn host_difference(old: Option<&Host<'_>>, new: &Host<'_>) -> Vec<String> {
    match old {
        None => vec!["the host's own record is new".to_owned()],
        Some(old) => {
            changes(&host(old), &host(new)).into_iter().map(|change| format!("host: {change}")).collect()
        }
    }
}

fn changes(old: &[Fact], new: &[Fact]) -> Vec<String> {
    let mut told = Vec::new();
    let value =
        |facts: &[Fact], key: &str| facts.iter().find(|fact| fact.key == key).map(|fact| fact.value.clone());
    for fact in new {
        match (value(old, fact.key), &fact.value) {
            (Some(Value::Many(before)), Value::Many(after)) => {
                told.extend(list_changes(fact.key, &before, after))
            }
            (Some(before), after) if before == *after => {}
            (Some(before), after) => {
                told.push(format!("{} {} -> {}", spoken(fact.key), shown(&before), shown(after)))
            }
            (None, after) => told.push(format!("{} is now {}", spoken(fact.key), shown(after))),
        }
    }
    for fact in old.iter().filter(|fact| value(new, fact.key).is_none()) {
        told.push(format!("{} is no longer set", spoken(fact.key)));
    }
    told
}

fn list_changes(key: &str, before: &[String], after: &[String]) -> Vec<String> {
    let (now, no_longer) = match key {
        "files" => ("may now ".to_owned(), "may no longer ".to_owned()),
        _ => (format!("{} now has ", spoken(key)), format!("{} no longer has ", spoken(key))),
    };
    let mut told: Vec<String> =
        after.iter().filter(|item| !before.contains(item)).map(|item| format!("{now}{item}")).collect();
    told.extend(before.iter().filter(|item| !after.contains(item)).map(|item| format!("{no_longer}{item}")));
    if told.is_empty() && before != after {
        told.push(format!("{} is in another order", spoken(key)));
    }
    told
}

fn spoken(key: &str) -> &str {
    key.strip_prefix("limits.").unwrap_or(key)
}

/// A value on one line.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::One(one) if one.is_empty() => "none".to_owned(),
        Value::One(one) => one.clone(),
        Value::Many(many) if many.is_empty() => "none".to_owned(),
        Value::Many(many) => many.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_their_largest_unit() {
        for (bytes, shown) in [(0, "0"), (1024, "1K"), (256 << 20, "256M"), (1 << 30, "1G"), (1500, "1500")] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let old = [
            one("limits.memory", "128M"),
            many("files", ["read /usr/lib".to_owned()]),
            one("limits.cpu", "3s"),
        ];
        let new = [
            one("limits.memory", "256M"),
            many("files", ["read /usr/lib".to_owned(), "read /usr/share/x".to_owned()]),
            one("limits.wall", "9s"),
        ];
        assert_eq!(
            changes(&old, &new),
            ["memory 128M -> 256M", "may now read /usr/share/x", "wall is now 9s", "cpu is no longer set"]
        );
        assert_eq!(changes(&old, &old), Vec::<String>::new());
    }
}
