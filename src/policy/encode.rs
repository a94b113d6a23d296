//! From policy to bytes: the mirror of [`super::decode`], field by field. Used by `cellwall apply` alone.

use super::decode::{KIND_HOST, KIND_RECORD, MAGIC, VERSION, checksum};
use super::{
    ControlGroup, Enforcement, Environment, Format, Handler, Host, Identity, Jail, Landlock, Limits, Links,
    Record, Sink, Site, Step, StepKind,
};

/// The host file.
#[must_use]
pub fn host(host: &Host<'_>) -> Vec<u8> {
    let mut body = Body::default();
    body.host(host);
    body.seal(KIND_HOST)
}

/// The file of one uid.
#[must_use]
pub fn record(record: &Record<'_>) -> Vec<u8> {
    let mut body = Body::default();
    body.host(&record.host);
    body.u32(record.uid);
    body.bytes(record.user);
    body.bool(record.listed);
    body.list(&record.sites, Body::site);
    body.seal(KIND_RECORD)
}

/// As [`super::decode`] reads it.
pub(crate) fn number(kind: StepKind) -> u8 {
    match kind {
        StepKind::Directory => 0,
        StepKind::Link => 1,
        StepKind::BindDirectory => 2,
        StepKind::BindFile => 3,
        StepKind::Memory => 4,
        StepKind::Processes => 5,
    }
}

#[derive(Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn seal(self, kind: u16) -> Vec<u8> {
        let Self(body) = self;
        let mut head = Self(MAGIC.to_vec());
        head.u16(VERSION);
        head.u16(kind);
        head.size(body.len());
        head.u64(checksum(&body));
        let Self(mut file) = head;
        file.extend(body);
        file
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    /// A record is at most 1 MiB; a length that does not fit makes one that no decoder takes.
    fn size(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.size(value.len());
        self.0.extend(value);
    }

    pub(crate) fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.size(items.len());
        for one in items {
            item(self, one);
        }
    }

    pub(crate) fn texts(&mut self, items: &[&[u8]]) {
        self.list(items, |body, text| body.bytes(text));
    }

    fn pairs(&mut self, items: &[(&[u8], &[u8])]) {
        self.list(items, |body, (name, value)| {
            body.bytes(name);
            body.bytes(value);
        });
    }

    fn ports(&mut self, ports: Option<&Vec<u16>>) {
        self.bool(ports.is_some());
        if let Some(ports) = ports {
            self.list(ports, |body, port| body.u16(*port));
        }
    }

    fn host(&mut self, host: &Host<'_>) {
        self.list(&host.callers, |body, uid| body.u32(*uid));
        self.bytes(host.caller_name);
        self.u32(host.uid_min);
        self.u32(host.gid_min);
        self.bytes(host.docroot);
        self.bytes(host.userdir);
        self.bytes(host.safe_path);
        self.u16(host.umask);
        self.u8(match host.log.sink {
            Sink::Syslog => 0,
            Sink::File => 1,
        });
        self.bytes(host.log.file);
        self.bool(host.log.strict);
        self.u8(match host.log.format {
            Format::Keys => 0,
            Format::Suexec => 1,
        });
    }

    fn site(&mut self, site: &Site<'_>) {
        self.bytes(site.name);
        self.bytes(site.source.path);
        self.u64(site.source.modified);
        self.identity(&site.identity);
        self.texts(&site.docroots);
        self.bool(site.userdir);
        self.texts(&site.programs);
        self.list(&site.handlers, |body, Handler { suffix, command }| {
            body.bytes(suffix);
            body.texts(command);
        });
        self.u8(match site.links {
            Links::Deny => 0,
            Links::OwnerMatch => 1,
        });
        self.bool(site.hard_links);
        self.texts(&site.interpreters);
        self.jail(&site.jail);
        self.landlock(&site.landlock);
        self.bytes(site.seccomp);
        self.bool(site.log_denials);
        self.bool(site.set_id_mail);
        self.limits(&site.limits);
        self.environment(&site.environment);
    }

    fn identity(&mut self, identity: &Identity<'_>) {
        self.u32(identity.gid);
        self.bytes(identity.group);
        self.list(&identity.groups, |body, gid| body.u32(*gid));
        self.bytes(identity.home);
        // No user has the largest number: for chown(2) it means nobody.
        self.u32(identity.code_owner.unwrap_or(u32::MAX));
        self.u64(identity.home_inode);
        self.u64(identity.home_born);
    }

    fn jail(&mut self, jail: &Jail<'_>) {
        match jail {
            Jail::Host => self.u8(0),
            Jail::View(view) => {
                self.u8(1);
                self.u64(view.id);
                self.list(&view.steps, Self::step);
            }
            Jail::Chroot(directory) => {
                self.u8(2);
                self.bytes(directory);
            }
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        self.u8(number(step.kind));
        self.bytes(step.source);
        self.bytes(step.target);
        self.u8(step.flags);
    }

    fn landlock(&mut self, landlock: &Landlock<'_>) {
        self.u8(match landlock.mode {
            Enforcement::Off => 0,
            Enforcement::BestEffort => 1,
            Enforcement::Required => 2,
        });
        self.u8(landlock.abi_min);
        self.list(&landlock.rules, |body, rule| {
            body.bytes(rule.path);
            body.u8(rule.rights);
        });
        self.ports(landlock.connect.as_ref());
        self.ports(landlock.bind.as_ref());
        self.bool(landlock.scoped);
    }

    fn limits(&mut self, limits: &Limits<'_>) {
        self.list(&limits.resources, |body, limit| {
            body.u8(limit.number);
            body.u64(limit.value);
        });
        self.u16(limits.umask);
        self.0.extend(limits.nice.to_le_bytes());
        self.0.extend(limits.oom_score.to_le_bytes());
        self.u32(limits.wall_seconds);
        self.list(&limits.groups, |body, ControlGroup { version, directory, settings }| {
            body.u8(*version);
            body.bytes(directory);
            body.pairs(settings);
        });
        self.bool(limits.groups_required);
    }

    fn environment(&mut self, environment: &Environment<'_>) {
        self.texts(&environment.pass);
        self.texts(&environment.pass_prefixes);
        self.bool(environment.authorization);
        self.pairs(&environment.set);
        self.u16(environment.entries_max);
        self.u32(environment.bytes_max);
    }
}
