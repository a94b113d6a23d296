//! The settings of one pool as plain data, and their record: written by `cellwall apply`, read by the supervisor, and
//! given to the broker as they are. Pure.
//!
//! A file `<uid>.pool` beside the policy of that uid holds the settings of all its sites that have a pool; each is a
//! record of its own, so that the supervisor can hand exactly one to the broker in a sealed memory file. Names are
//! resolved to numbers, times are milliseconds, sizes are bytes; 0 is "none" or "no limit" where a field says so.
//!
//! Distrusted as the policy is: a record is used whole or not at all. May not: know TOML, or a path that is not plain.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};

use crate::launch::interpreter::is_php_cgi;
use crate::policy::decode::{Body, Malformed, body};
use crate::policy::names::{is_plain_path, may_pass, may_pass_prefix};
use crate::policy::{Site, Source};

/// A `<uid>.pool` file. (1 and 2 are kinds of the policy.)
pub const KIND_FILE: u16 = 3;
/// The settings of one site.
pub const KIND_SETTINGS: u16 = 4;
/// The end of the name of a file of [`KIND_FILE`], beside the policy's `<uid>`.
pub const SUFFIX: &str = ".pool";
/// Where the public sockets are.
pub const SOCKETS: &str = "/run/cellwall/pool";
/// Most workers of one site, and most children or threads of one worker.
pub const WORKERS_MAX: u32 = 4096;

/// All pools of one uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File<'a> {
    /// Whom the sites run as.
    pub uid: u32,
    /// One record of [`KIND_SETTINGS`] for each site.
    pub pools: Vec<&'a [u8]>,
    /// For each of them a digest of what the policy says of its site: see [`rules`].
    pub rules: Vec<u64>,
}

impl<'a> File<'a> {
    /// The settings of each pool; [`file()`] has found them well-formed.
    pub fn settings(&self) -> impl Iterator<Item = Settings<'a>> + use<'a, '_> {
        self.pools.iter().filter_map(|record| settings(record).ok())
    }
}

/// A digest of what the policy says of a site, without the time of its file: a worker lives in the cell that it was started in, so
/// a site's workers are old when this has changed, and not when a comment, or another site of the same user, has. Root alone writes
/// policies: nobody looks for two with one digest.
#[must_use]
pub fn rules(user: &[u8], site: &Site<'_>) -> u64 {
    let source = Source { modified: 0, ..site.source };
    let mut hasher = DefaultHasher::new();
    (user, Site { source, ..site.clone() }).hash(&mut hasher);
    hasher.finish()
}

/// What one pool is and may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings<'a> {
    /// The site's name, as in the policy.
    pub name: &'a [u8],
    /// What a worker is.
    pub kind: Kind,
    /// Who accepts on the public socket.
    pub accept: Accept,
    /// The public socket.
    pub listen: Listen<'a>,
    /// The group that may connect to the public socket (mode 0660, root's).
    pub group: u32,
    /// Uids that may connect, by `SO_PEERCRED`; for a TCP socket, where there is no such thing, it is not looked at.
    pub clients: Vec<u32>,
    /// The program and its words; empty for [`Kind::Cgi`].
    pub command: Vec<&'a [u8]>,
    /// How many workers.
    pub workers: Workers,
    /// What waits.
    pub queue: Queue,
    /// What a request may take.
    pub request: Request,
    /// When a worker ends.
    pub worker: Life,
    /// The site's own control group of version 2; empty: it has none.
    pub group_directory: &'a [u8],
    /// The control group, of either version, that limits the site's memory; empty: none does.
    pub memory_directory: &'a [u8],
    /// The control group, of either version, that divides the processors among sites; empty: none does.
    pub cpu_directory: &'a [u8],
    /// What the site weighs there, as version 2 counts: 100 is what everybody does.
    pub cpu_weight: u32,
    /// What the gate lets pass.
    pub gate: Gate<'a>,
    /// What can be seen.
    pub seen: Seen<'a>,
}

/// What a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One FastCGI program on a private listening socket.
    Fastcgi,
    /// One that forks children of its own on that socket (php-cgi).
    Parent,
    /// None: each request runs the site's own program through the launch pipeline.
    Cgi,
}

/// Who accepts on the public socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// The broker.
    Relay,
    /// The workers themselves: nothing is gated, counted, queued or timed.
    Direct,
}

/// The public socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen<'a> {
    /// A name in [`SOCKETS`].
    Socket(&'a [u8]),
    /// A TCP address of this host alone.
    Tcp(SocketAddr),
}

/// How many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// At most, at a time. For [`Kind::Cgi`]: runs.
    pub max: u32,
    /// At least, from the start on (`min = max`: a static pool; 0: on demand).
    pub min: u32,
    /// So many without work are kept ready above those that work.
    pub spare: u32,
    /// A worker above `min` that has nothing to do for so long ends.
    pub idle_ms: u32,
    /// Connections that one worker serves at a time: its children or threads.
    pub connections: u32,
}

impl Workers {
    /// So many more than `max` a site may have while those that have nearly had their requests are replaced.
    #[must_use]
    pub fn heirs(&self) -> u32 {
        (self.max / 4).saturating_add(1)
    }

    /// So many as this many requests at a time need, and some to spare.
    #[must_use]
    pub fn needed(&self, requests: u32) -> u32 {
        let needed = requests.div_ceil(self.connections.max(1));
        let spare = if requests == 0 && self.min == 0 { 0 } else { self.spare };
        needed.saturating_add(spare).clamp(self.min, self.max)
    }
}

impl Settings<'_> {
    /// After so many requests a child is ended, and its parent makes another one; 0: they are not renewed by themselves. That
    /// php-cgi does so is known; of another program's children nobody knows what their parent does.
    #[must_use]
    pub fn child_requests(&self) -> u32 {
        let php = self.command.first().is_some_and(|program| is_php_cgi(program));
        if self.kind != Kind::Parent || !php || self.worker.requests == 0 {
            return 0;
        }
        (self.worker.requests / self.workers.connections.max(1)).max(1)
    }
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait at most; more are answered with 503.
    pub length: u32,
    /// A request that waited so long is answered with 503. 0: no limit.
    pub deadline_ms: u32,
}

/// What a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// From its worker's choice to its last byte; then the worker ends. 0: no limit.
    pub deadline_ms: u32,
    /// Between two pieces of its answer. 0: no limit.
    pub silence_ms: u32,
    /// CPU time of its worker meanwhile. 0: no limit.
    pub cpu_ms: u32,
    /// Bytes of its body. `u64::MAX`: no limit.
    pub body_max: u64,
    /// The web server must have sent all parameters after so long.
    pub head_ms: u32,
    /// Its work ends when the web server goes away; otherwise it is let run.
    pub abandon: bool,
}

/// When a worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// After so many requests. 0: no limit.
    pub requests: u32,
    /// When it is idle and uses more bytes. 0: no limit.
    pub memory: u64,
    /// A worker that has not taken its first request after so long is ended. 0: no limit.
    pub start_ms: u32,
    /// From the polite signal to the other one.
    pub grace_ms: u32,
}

/// What the gate lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate<'a> {
    /// Scripts must be beneath one of these, in the host's own view.
    pub docroots: Vec<&'a [u8]>,
    /// The part of a path of the host's that is not there inside the jail; empty: paths are the same.
    pub jail: &'a [u8],
    /// Programs that are asked by their own path, wherever they lie.
    pub programs: Vec<&'a [u8]>,
    /// Endings that a script must have; none: any.
    pub suffixes: Vec<&'a [u8]>,
    /// Parameters that pass: exact names, sorted by bytes.
    pub pass: Vec<&'a [u8]>,
    /// Beginnings of names that pass.
    pub pass_prefixes: Vec<&'a [u8]>,
    /// `HTTP_AUTHORIZATION` and `HTTP_PROXY_AUTHORIZATION` pass.
    pub authorization: bool,
    /// Most parameters.
    pub entries_max: u16,
    /// Most bytes of them together.
    pub bytes_max: u32,
}

/// What can be seen. Empty texts: off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The status page, as the request's `SCRIPT_NAME`.
    pub status_path: &'a [u8],
    /// The ping page.
    pub ping_path: &'a [u8],
    /// What it answers.
    pub ping_answer: &'a [u8],
    /// The access log's file.
    pub access_log: &'a [u8],
    /// Its format, in php-fpm's letters.
    pub access_format: &'a [u8],
    /// The slow log's file.
    pub slow_log: &'a [u8],
    /// A request that takes longer is slow. 0: none is.
    pub slow_ms: u32,
    /// The file of what workers write to their standard error output; empty: the host's log.
    pub error_log: &'a [u8],
    /// FastCGI's error stream goes to the web server as well.
    pub errors_to_server: bool,
}

/// The bytes of a `<uid>.pool` file.
///
/// # Errors
/// [`Malformed`].
pub fn file(bytes: &[u8]) -> Result<File<'_>, Malformed> {
    let mut body = body(bytes, KIND_FILE)?;
    let (uid, pools) = (body.u32()?, body.list("pools", Body::bytes)?);
    let file = File { uid, pools, rules: body.list("rules", Body::u64)? };
    body.end()?;
    if file.rules.len() != file.pools.len() {
        return Err(Malformed::Field("rules"));
    }
    for pool in &file.pools {
        settings(pool)?;
    }
    Ok(file)
}

/// The settings of one site.
///
/// # Errors
/// [`Malformed`].
pub fn settings(bytes: &[u8]) -> Result<Settings<'_>, Malformed> {
    let mut body = body(bytes, KIND_SETTINGS)?;
    let settings = read(&mut body)?;
    body.end()?;
    let command = matches!(settings.kind, Kind::Cgi) == settings.command.is_empty();
    if !command {
        return Err(Malformed::Field("pool.command"));
    }
    if settings.kind == Kind::Cgi && settings.accept == Accept::Direct {
        return Err(Malformed::Field("pool.accept"));
    }
    Ok(settings)
}

fn read<'a>(body: &mut Body<'a>) -> Result<Settings<'a>, Malformed> {
    Ok(Settings {
        name: body.text("name").and_then(|name| plain_name(name, "name"))?,
        kind: match body.u8()? {
            0 => Kind::Fastcgi,
            1 => Kind::Parent,
            2 => Kind::Cgi,
            _ => return Err(Malformed::Field("pool.kind")),
        },
        accept: match body.u8()? {
            0 => Accept::Relay,
            1 => Accept::Direct,
            _ => return Err(Malformed::Field("pool.accept")),
        },
        listen: listen(body)?,
        group: body.u32()?,
        clients: body.list("pool.clients", Body::u32)?,
        command: body.list("pool.command", |body| body.text("pool.command"))?,
        workers: workers(body)?,
        queue: Queue { length: body.u32()?, deadline_ms: body.u32()? },
        request: Request {
            deadline_ms: body.u32()?,
            silence_ms: body.u32()?,
            cpu_ms: body.u32()?,
            body_max: body.u64()?,
            head_ms: body.u32()?,
            abandon: body.bool("pool.abandon")?,
        },
        worker: Life {
            requests: body.u32()?,
            memory: body.u64()?,
            start_ms: body.u32()?,
            grace_ms: body.u32()?,
        },
        group_directory: log(body, "cgroup")?,
        memory_directory: log(body, "cgroup")?,
        cpu_directory: log(body, "cgroup")?,
        cpu_weight: body.u32()?,
        gate: gate(body)?,
        seen: Seen {
            status_path: body.text("pool.status")?,
            ping_path: body.text("pool.ping")?,
            ping_answer: body.text("pool.ping_answer")?,
            access_log: log(body, "pool.access_log")?,
            access_format: body.text("pool.access_format")?,
            slow_log: log(body, "pool.slow_log")?,
            slow_ms: body.u32()?,
            error_log: log(body, "pool.error_log")?,
            errors_to_server: body.bool("pool.errors_to_server")?,
        },
    })
}

fn plain_name<'a>(name: &'a [u8], field: &'static str) -> Result<&'a [u8], Malformed> {
    let plain = !matches!(name, b"" | b"." | b"..")
        && name.len() <= 255
        && !name.iter().any(|byte| *byte == b'/' || byte.is_ascii_control());
    if plain { Ok(name) } else { Err(Malformed::Field(field)) }
}

fn listen<'a>(body: &mut Body<'a>) -> Result<Listen<'a>, Malformed> {
    const FIELD: &str = "pool.listen";
    let address: IpAddr = match body.u8()? {
        // The address of a Unix socket holds 107 bytes.
        0 => {
            let name = body.text(FIELD).and_then(|name| plain_name(name, FIELD))?;
            let fits = name.len() < 107_usize.saturating_sub(SOCKETS.len()) && !name.starts_with(b".");
            return if fits { Ok(Listen::Socket(name)) } else { Err(Malformed::Field(FIELD)) };
        }
        4 => body.array::<4>()?.into(),
        6 => body.array::<16>()?.into(),
        _ => return Err(Malformed::Field(FIELD)),
    };
    let port = body.u16()?;
    let local = address.is_loopback() && port != 0;
    if local { Ok(Listen::Tcp((address, port).into())) } else { Err(Malformed::Field(FIELD)) }
}

fn workers(body: &mut Body<'_>) -> Result<Workers, Malformed> {
    let workers = Workers {
        max: body.u32()?,
        min: body.u32()?,
        spare: body.u32()?,
        idle_ms: body.u32()?,
        connections: body.u32()?,
    };
    let Workers { max, min, spare, connections, .. } = workers;
    let range = 1..=WORKERS_MAX;
    if range.contains(&max) && min <= max && spare <= max && range.contains(&connections) {
        Ok(workers)
    } else {
        Err(Malformed::Field("pool.workers"))
    }
}

fn gate<'a>(body: &mut Body<'a>) -> Result<Gate<'a>, Malformed> {
    const FIELD: &str = "environment.pass";
    let gate = Gate {
        docroots: body.list("docroot", |body| body.path("docroot"))?,
        jail: log(body, "jail.directory")?,
        programs: body.list("programs", |body| body.path("programs"))?,
        suffixes: body.list("handlers", |body| body.text("handlers"))?,
        pass: body.list(FIELD, |body| {
            let name = body.bytes()?;
            if may_pass(name) { Ok(name) } else { Err(Malformed::Field(FIELD)) }
        })?,
        pass_prefixes: body.list(FIELD, |body| {
            let prefix = body.bytes()?;
            if may_pass_prefix(prefix) { Ok(prefix) } else { Err(Malformed::Field(FIELD)) }
        })?,
        authorization: body.bool("environment.authorization")?,
        entries_max: body.u16()?,
        bytes_max: body.u32()?,
    };
    if gate.pass.is_sorted() { Ok(gate) } else { Err(Malformed::Field(FIELD)) }
}

/// A plain path, or nothing.
fn log<'a>(body: &mut Body<'a>, field: &'static str) -> Result<&'a [u8], Malformed> {
    let path = body.bytes()?;
    if path.is_empty() || is_plain_path(path) { Ok(path) } else { Err(Malformed::Field(field)) }
}

#[cfg(feature = "admin")]
pub use encoding::{encode, encode_file};

/// The mirror of the above, for `cellwall apply`.
#[cfg(feature = "admin")]
mod encoding {
    use super::*;
    use crate::policy::encode::Body;

    /// The record of one site.
    #[must_use]
    pub fn encode(settings: &Settings<'_>) -> Vec<u8> {
        let mut body = Body::default();
        write(&mut body, settings);
        body.seal(KIND_SETTINGS)
    }

    /// The file of one uid.
    #[must_use]
    pub fn encode_file(uid: u32, pools: &[(Vec<u8>, u64)]) -> Vec<u8> {
        let mut body = Body::default();
        body.u32(uid);
        body.list(pools, |body, (pool, _)| body.bytes(pool));
        body.list(pools, |body, (_, rules)| body.u64(*rules));
        body.seal(KIND_FILE)
    }

    fn write(body: &mut Body, settings: &Settings<'_>) {
        body.bytes(settings.name);
        body.u8(match settings.kind {
            Kind::Fastcgi => 0,
            Kind::Parent => 1,
            Kind::Cgi => 2,
        });
        body.u8(match settings.accept {
            Accept::Relay => 0,
            Accept::Direct => 1,
        });
        listen(body, settings.listen);
        body.u32(settings.group);
        body.list(&settings.clients, |body, uid| body.u32(*uid));
        body.texts(&settings.command);
        let Workers { max, min, spare, idle_ms, connections } = settings.workers;
        for number in [max, min, spare, idle_ms, connections] {
            body.u32(number);
        }
        body.u32(settings.queue.length);
        body.u32(settings.queue.deadline_ms);
        let Request { deadline_ms, silence_ms, cpu_ms, body_max, head_ms, abandon } = settings.request;
        for number in [deadline_ms, silence_ms, cpu_ms] {
            body.u32(number);
        }
        body.u64(body_max);
        body.u32(head_ms);
        body.bool(abandon);
        body.u32(settings.worker.requests);
        body.u64(settings.worker.memory);
        body.u32(settings.worker.start_ms);
        body.u32(settings.worker.grace_ms);
        body.bytes(settings.group_directory);
        body.bytes(settings.memory_directory);
        body.bytes(settings.cpu_directory);
        body.u32(settings.cpu_weight);
        let gate = &settings.gate;
        body.texts(&gate.docroots);
        body.bytes(gate.jail);
        body.texts(&gate.programs);
        body.texts(&gate.suffixes);
        body.texts(&gate.pass);
        body.texts(&gate.pass_prefixes);
        body.bool(gate.authorization);
        body.u16(gate.entries_max);
        body.u32(gate.bytes_max);
        seen(body, &settings.seen);
    }

    fn listen(body: &mut Body, listen: Listen<'_>) {
        match listen {
            Listen::Socket(name) => {
                body.u8(0);
                body.bytes(name);
            }
            Listen::Tcp(address) => {
                match address.ip() {
                    IpAddr::V4(ip) => {
                        body.u8(4);
                        ip.octets().into_iter().for_each(|octet| body.u8(octet));
                    }
                    IpAddr::V6(ip) => {
                        body.u8(6);
                        ip.octets().into_iter().for_each(|octet| body.u8(octet));
                    }
                }
                body.u16(address.port());
            }
        }
    }

    fn seen(body: &mut Body, seen: &Seen<'_>) {
        let texts = [
            seen.status_path,
            seen.ping_path,
            seen.ping_answer,
            seen.access_log,
            seen.access_format,
            seen.slow_log,
        ];
        texts.into_iter().for_each(|text| body.bytes(text));
        body.u32(seen.slow_ms);
        body.bytes(seen.error_log);
        body.bool(seen.errors_to_server);
    }
}

#[cfg(all(test, feature = "admin"))]
mod tests {
    use super::*;

    fn example() -> Settings<'static> {
        Settings {
            name: b"shop",
            kind: Kind::Parent,
            accept: Accept::Relay,
            listen: Listen::Socket(b"shop.sock"),
            group: 33,
            clients: vec![33],
            command: vec![b"/usr/bin/php-cgi"],
            workers: Workers { max: 8, min: 1, spare: 1, idle_ms: 30_000, connections: 4 },
            queue: Queue { length: 64, deadline_ms: 10_000 },
            request: Request {
                deadline_ms: 60_000,
                silence_ms: 0,
                cpu_ms: 30_000,
                body_max: u64::MAX,
                head_ms: 10_000,
                abandon: true,
            },
            worker: Life { requests: 500, memory: 1 << 28, start_ms: 10_000, grace_ms: 10_000 },
            group_directory: b"/sys/fs/cgroup/cellwall/1001-shop",
            memory_directory: b"/sys/fs/cgroup/memory/cellwall/1001-shop",
            cpu_directory: b"/sys/fs/cgroup/cpu/cellwall-1001-shop",
            cpu_weight: 50,
            gate: Gate {
                docroots: vec![b"/srv/shop"],
                jail: b"",
                programs: vec![b"/usr/lib/cgit/cgit.cgi"],
                suffixes: vec![b".php"],
                pass: vec![b"CONTENT_LENGTH", b"QUERY_STRING"],
                pass_prefixes: vec![b"HTTP_"],
                authorization: false,
                entries_max: 512,
                bytes_max: 262_144,
            },
            seen: Seen {
                status_path: b"/status",
                ping_path: b"/ping",
                ping_answer: b"pong",
                access_log: b"/var/log/cellwall/shop.log",
                access_format: b"%R %m %r",
                slow_log: b"",
                slow_ms: 1000,
                error_log: b"",
                errors_to_server: false,
            },
        }
    }

    #[test]
    fn settings_come_back_as_they_were_written() {
        let addresses = ["127.0.0.1:9000", "[::1]:9000"].map(|text| text.parse().unwrap());
        let listens = [Listen::Socket(b"x"), Listen::Tcp(addresses[0]), Listen::Tcp(addresses[1])];
        for listen in listens {
            let one = Settings { listen, ..example() };
            let bytes = encode(&one);
            assert_eq!(settings(&bytes), Ok(one));
            let whole = encode_file(1001, &[(bytes.clone(), 7), (bytes.clone(), u64::MAX)]);
            let read = File { uid: 1001, pools: vec![&bytes[..]; 2], rules: vec![7, u64::MAX] };
            assert_eq!(file(&whole), Ok(read));
        }
    }

    #[test]
    fn workers_are_as_many_as_the_work_needs_within_their_bounds() {
        let bounds = (1..=5)
            .flat_map(|max| (0..=max).flat_map(move |min| (0..=max).map(move |spare| (max, min, spare))));
        for ((max, min, spare), connections) in bounds.flat_map(|all| (1..=3).map(move |each| (all, each))) {
            let workers = Workers { max, min, spare, idle_ms: 0, connections };
            let idle = workers.needed(0);
            assert_eq!(idle, if min == 0 { 0 } else { spare.max(min) }, "{workers:?}");
            for requests in 1..=20 {
                let needed = workers.needed(requests);
                assert!(
                    (min..=max).contains(&needed) && needed >= workers.needed(requests - 1),
                    "{workers:?}"
                );
                // All have a place, and those to spare have nothing to do, as far as there may be so many.
                let places = |workers: u32| workers * connections;
                assert!(needed == max || places(needed - spare) >= requests, "{requests}: {workers:?}");
                // One less would not do.
                assert!(
                    needed <= min.max(spare + 1) || places(needed - spare - 1) < requests,
                    "{requests}: {workers:?}"
                );
            }
            assert_eq!(workers.needed(u32::MAX), max);
        }
    }

    #[test]
    fn what_apply_never_writes_is_not_taken() {
        let wrong = [
            Settings { command: Vec::new(), ..example() },
            Settings { kind: Kind::Cgi, ..example() },
            Settings { kind: Kind::Cgi, command: Vec::new(), accept: Accept::Direct, ..example() },
            Settings { listen: Listen::Socket(b"../x"), ..example() },
            Settings { listen: Listen::Socket(b".x"), ..example() },
            Settings { listen: Listen::Tcp("192.0.2.1:9000".parse().unwrap()), ..example() },
            Settings { listen: Listen::Tcp("127.0.0.1:0".parse().unwrap()), ..example() },
            Settings { workers: Workers { max: 0, ..example().workers }, ..example() },
            Settings { workers: Workers { min: 9, ..example().workers }, ..example() },
            Settings { workers: Workers { spare: 9, ..example().workers }, ..example() },
            Settings { workers: Workers { connections: 0, ..example().workers }, ..example() },
            Settings { gate: Gate { pass: vec![b"LD_PRELOAD"], ..example().gate }, ..example() },
            Settings { gate: Gate { pass: vec![b"B", b"A"], ..example().gate }, ..example() },
            Settings { seen: Seen { slow_log: b"../x", ..example().seen }, ..example() },
        ];
        for one in wrong {
            assert!(settings(&encode(&one)).is_err(), "{one:?}");
        }
        let bytes = encode(&example());
        for length in 0..bytes.len() {
            assert!(settings(&bytes[..length]).is_err());
        }
    }
}
