//! From bytes to policy. Distrusts every byte: a record is used whole or not at all.
//!
//! ```text
//! "CELLWALL"  version u16  kind u16  length u32  checksum u64  body
//! ```
//! Numbers are little-endian. Byte fields and lists carry their length (u32) before them. The checksum is FNV-1a of the
//! body, by words: it finds torn and rotten files; who may write the file is the reader's business.
//!
//! Pure: no I/O, no panic, no allocation beyond the lists. Fuzzed.

use super::names::{is_plain_path, is_variable};
use super::{
    ControlGroup, Enforcement, Environment, Format, Handler, Host, Identity, Jail, Landlock, Limits, Links,
    LogRules, PathRule, Record, Resource, Sink, Site, Source, Step, StepKind, View,
};

/// First bytes of every record.
pub const MAGIC: &[u8; 8] = b"CELLWALL";
/// The layout that this program reads and writes.
pub const VERSION: u16 = 3;
/// [`Host`] alone.
pub const KIND_HOST: u16 = 1;
/// A whole [`Record`].
pub const KIND_RECORD: u16 = 2;
/// Bytes before the body.
pub const HEADER_LENGTH: usize = 24;
/// Largest record, in bytes.
pub const LENGTH_MAX: usize = 1024 * 1024;

/// Why bytes are no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not a record of this program.
    Magic,
    /// A record of another version.
    Version(u16),
    /// The other kind of record.
    Kind,
    /// Shorter or longer than it says.
    Length,
    /// The body is not what was written.
    Checksum,
    /// A field holds what no policy may hold; the field's name.
    Field(&'static str),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Magic => out.write_str("it is not a policy record"),
            Self::Version(version) => write!(out, "its version is {version}, this program reads {VERSION}"),
            Self::Kind => out.write_str("it is a record of another kind"),
            Self::Length => out.write_str("its length is wrong"),
            Self::Checksum => out.write_str("its checksum is wrong"),
            Self::Field(name) => write!(out, "its field {name} is wrong"),
        }
    }
}

/// The host's part of `bytes`, which may be a host file or a whole record.
///
/// # Errors
/// [`Malformed`], when any byte of it is not as `apply` writes it.
pub fn host(bytes: &[u8]) -> Result<Host<'_>, Malformed> {
    let mut body = body(bytes, KIND_HOST)?;
    let host = body.host()?;
    body.end()?;
    Ok(host)
}

/// A whole record.
///
/// # Errors
/// [`Malformed`], when any byte of it is not as `apply` writes it.
pub fn record(bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    let mut body = body(bytes, KIND_RECORD)?;
    let record = Record {
        host: body.host()?,
        uid: body.u32()?,
        user: body.text("user")?,
        listed: body.bool("user")?,
        sites: body.list("sites", |body| body.site())?,
    };
    body.end()?;
    Ok(record)
}

/// FNV-1a (draft-eastlake-fnv) over words of eight bytes, the last one filled up with zeros: byte by byte it would be one of
/// a launch's larger costs. The length stands beside it, so that the filling is not mistaken for bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let all = words.iter().chain(std::iter::once(&last));
    all.fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        let mixed = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3);
        // The product alone carries nothing downwards: without this a change in a word's high bits would stay there.
        mixed ^ (mixed >> 32)
    })
}

pub(crate) fn body(bytes: &[u8], kind: u16) -> Result<Body<'_>, Malformed> {
    if bytes.len() > LENGTH_MAX {
        return Err(Malformed::Length);
    }
    let mut header = Body(bytes);
    if header.take(8)? != MAGIC {
        return Err(Malformed::Magic);
    }
    match header.u16()? {
        VERSION => {}
        other => return Err(Malformed::Version(other)),
    }
    let found_kind = header.u16()?;
    let length = header.size()?;
    let sum = header.u64()?;
    let Body(rest) = header;
    if rest.len() != length {
        return Err(Malformed::Length);
    }
    if checksum(rest) != sum {
        return Err(Malformed::Checksum);
    }
    if found_kind != kind {
        return Err(Malformed::Kind);
    }
    Ok(Body(rest))
}

/// What has not been read yet.
pub(crate) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Length)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u32()?).map_err(|_| Malformed::Length)
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Field(field)),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.size()?;
        self.take(count)
    }

    /// Bytes that become a C string.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let bytes = self.bytes()?;
        if bytes.contains(&0) { Err(Malformed::Field(field)) } else { Ok(bytes) }
    }

    pub(crate) fn path(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let bytes = self.bytes()?;
        if is_plain_path(bytes) { Ok(bytes) } else { Err(Malformed::Field(field)) }
    }

    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.size()?;
        // An item is at least one byte: a count beyond what is left is a lie, and is not allocated for.
        if count > self.0.len() {
            return Err(Malformed::Field(field));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn option<T>(
        &mut self,
        field: &'static str,
        item: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool(field)? { item(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Length) }
    }

    fn host(&mut self) -> Result<Host<'a>, Malformed> {
        Ok(Host {
            callers: self.list("callers", |body| body.u32())?,
            caller_name: self.text("caller")?,
            uid_min: self.u32()?,
            gid_min: self.u32()?,
            docroot: self.path("docroot")?,
            userdir: self.text("userdir")?,
            safe_path: self.text("path")?,
            umask: self.umask()?,
            log: LogRules {
                sink: match self.u8()? {
                    0 => Sink::Syslog,
                    1 => Sink::File,
                    _ => return Err(Malformed::Field("log.to")),
                },
                file: self.path("log.file")?,
                strict: self.bool("log.strict")?,
                format: match self.u8()? {
                    0 => Format::Keys,
                    1 => Format::Suexec,
                    _ => return Err(Malformed::Field("log.format")),
                },
            },
        })
    }

    fn site(&mut self) -> Result<Site<'a>, Malformed> {
        Ok(Site {
            name: self.text("name")?,
            source: Source { path: self.text("source")?, modified: self.u64()? },
            identity: self.identity()?,
            docroots: self.list("docroot", |body| body.path("docroot"))?,
            userdir: self.bool("userdir")?,
            programs: self.list("programs", |body| body.path("programs"))?,
            handlers: self.list("handlers", |body| body.handler())?,
            links: match self.u8()? {
                0 => Links::Deny,
                1 => Links::OwnerMatch,
                _ => return Err(Malformed::Field("symlinks")),
            },
            hard_links: self.bool("hard_links")?,
            interpreters: self.list("interpreters", |body| body.path("interpreters"))?,
            jail: self.jail()?,
            landlock: self.landlock()?,
            seccomp: self.seccomp()?,
            log_denials: self.bool("log_denials")?,
            set_id_mail: self.bool("set_id_mail")?,
            limits: self.limits()?,
            environment: self.environment()?,
        })
    }

    fn identity(&mut self) -> Result<Identity<'a>, Malformed> {
        Ok(Identity {
            gid: self.u32()?,
            group: self.text("group")?,
            groups: self.list("groups", |body| body.u32())?,
            home: self.path("home")?,
            code_owner: Some(self.u32()?).filter(|uid| *uid != u32::MAX),
            home_inode: self.u64()?,
            home_born: self.u64()?,
        })
    }

    fn handler(&mut self) -> Result<Handler<'a>, Malformed> {
        let suffix = self.text("handlers")?;
        let command = self.list("handlers", |body| body.text("handlers"))?;
        let whole = suffix.len() > 1 && suffix.starts_with(b".") && !suffix.contains(&b'/');
        if whole && command.first().is_some_and(|program| is_plain_path(program)) {
            Ok(Handler { suffix, command })
        } else {
            Err(Malformed::Field("handlers"))
        }
    }

    fn jail(&mut self) -> Result<Jail<'a>, Malformed> {
        match self.u8()? {
            0 => Ok(Jail::Host),
            1 => Ok(Jail::View(View { id: self.u64()?, steps: self.list("view", |body| body.step())? })),
            2 => Ok(Jail::Chroot(self.path("jail.directory")?)),
            _ => Err(Malformed::Field("jail.kind")),
        }
    }

    fn step(&mut self) -> Result<Step<'a>, Malformed> {
        let kind = match self.u8()? {
            0 => StepKind::Directory,
            1 => StepKind::Link,
            2 => StepKind::BindDirectory,
            3 => StepKind::BindFile,
            4 => StepKind::Memory,
            5 => StepKind::Processes,
            _ => return Err(Malformed::Field("view")),
        };
        let step = Step { kind, source: self.text("view")?, target: self.path("view")?, flags: self.u8()? };
        let source_fits = match kind {
            StepKind::BindDirectory | StepKind::BindFile => is_plain_path(step.source),
            StepKind::Link => !step.source.is_empty(),
            StepKind::Directory | StepKind::Memory | StepKind::Processes => step.source.is_empty(),
        };
        if source_fits && step.target != b"/" && step.flags & !Step::ALL == 0 {
            Ok(step)
        } else {
            Err(Malformed::Field("view"))
        }
    }

    fn landlock(&mut self) -> Result<Landlock<'a>, Malformed> {
        Ok(Landlock {
            mode: match self.u8()? {
                0 => Enforcement::Off,
                1 => Enforcement::BestEffort,
                2 => Enforcement::Required,
                _ => return Err(Malformed::Field("landlock")),
            },
            abi_min: self.u8()?,
            rules: self.list("files", |body| {
                let rule = PathRule { path: body.path("files")?, rights: body.u8()? };
                // A rule for the root would be no rule set at all.
                let whole = rule.rights & !PathRule::ALL == 0 && rule.path != b"/";
                if whole { Ok(rule) } else { Err(Malformed::Field("files")) }
            })?,
            connect: self.option("network", |body| body.list("network", |body| body.u16()))?,
            bind: self.option("network", |body| body.list("network", |body| body.u16()))?,
            scoped: self.bool("landlock")?,
        })
    }

    fn seccomp(&mut self) -> Result<&'a [u8], Malformed> {
        let program = self.bytes()?;
        // BPF_MAXINSNS is 4,096; an instruction is 8 bytes.
        if program.len() % 8 == 0 && program.len() <= 4096 * 8 {
            Ok(program)
        } else {
            Err(Malformed::Field("seccomp"))
        }
    }

    fn umask(&mut self) -> Result<u16, Malformed> {
        let mask = self.u16()?;
        if mask <= 0o777 { Ok(mask) } else { Err(Malformed::Field("umask")) }
    }

    fn limits(&mut self) -> Result<Limits<'a>, Malformed> {
        Ok(Limits {
            resources: self.list("limits", |body| {
                let limit = Resource { number: body.u8()?, value: body.u64()? };
                if limit.number < 16 { Ok(limit) } else { Err(Malformed::Field("limits")) }
            })?,
            umask: self.umask()?,
            nice: self.array().map(i8::from_le_bytes)?,
            oom_score: self.array().map(i16::from_le_bytes)?,
            wall_seconds: self.u32()?,
            groups: self.list("cgroup", |body| {
                let version = body.u8()?;
                let directory = body.path("cgroup")?;
                let settings = body.list("cgroup", |body| {
                    let file = body.text("cgroup")?;
                    let plain = !file.is_empty() && !file.contains(&b'/') && file != b"." && file != b"..";
                    let value = body.text("cgroup")?;
                    if plain { Ok((file, value)) } else { Err(Malformed::Field("cgroup")) }
                })?;
                if matches!(version, 1 | 2) {
                    Ok(ControlGroup { version, directory, settings })
                } else {
                    Err(Malformed::Field("cgroup"))
                }
            })?,
            groups_required: self.bool("cgroup")?,
        })
    }

    fn environment(&mut self) -> Result<Environment<'a>, Malformed> {
        // What a name may never do is asked for each of the caller's (`launch::environment`), not for all that are listed.
        let pass = self.list("environment.pass", |body| body.bytes())?;
        let pass_prefixes = self.list("environment.pass", |body| body.bytes())?;
        let authorization = self.bool("environment.authorization")?;
        let set = self.list("environment.set", |body| {
            let (name, value) = (body.bytes()?, body.text("environment.set")?);
            if is_variable(name) { Ok((name, value)) } else { Err(Malformed::Field("environment.set")) }
        })?;
        let (entries_max, bytes_max) = (self.u16()?, self.u32()?);
        Ok(Environment { pass, pass_prefixes, authorization, set, entries_max, bytes_max })
    }
}
