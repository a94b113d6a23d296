//! Samples of the policy for tests, and the decoder against records that `cellwall apply` would never write.

use super::{
    ControlGroup, Enforcement, Environment, Format, Handler, Host, Identity, Jail, Landlock, Limits, Links,
    LogRules, PathRule, Record, Resource, Sink, Site, Source, Step, StepKind, View,
};

/// Of a host.
pub(crate) fn host() -> Host<'static> {
    Host {
        callers: vec![33],
        caller_name: b"www-data",
        uid_min: 1000,
        gid_min: 1000,
        docroot: b"/",
        userdir: b"public_html",
        safe_path: b"/usr/bin:/bin",
        umask: 0o022,
        log: LogRules {
            sink: Sink::File,
            file: b"/var/log/cellwall/x.log",
            strict: true,
            format: Format::Keys,
        },
    }
}

/// Of a site in a view of its own.
#[allow(clippy::too_many_lines, reason = "one literal that names every field")]
pub(crate) fn site() -> Site<'static> {
    Site {
        name: b"shop",
        source: Source { path: b"/etc/cellwall/sites.d/shop.toml", modified: 5 },
        identity: Identity {
            gid: 1001,
            group: b"shop",
            groups: vec![1001],
            home: b"/home/shop",
            code_owner: Some(1002),
            home_inode: 7,
            home_born: 8,
        },
        docroots: vec![b"/srv/www/shop"],
        userdir: false,
        programs: vec![b"/usr/bin/php-cgi"],
        handlers: vec![Handler { suffix: b".php", command: vec![b"/usr/bin/php-cgi", b"-q"] }],
        links: Links::OwnerMatch,
        hard_links: false,
        interpreters: vec![],
        jail: Jail::View(View {
            id: 9,
            steps: vec![
                Step {
                    kind: StepKind::BindDirectory,
                    source: b"/usr",
                    target: b"/usr",
                    flags: Step::READ_ONLY,
                },
                Step { kind: StepKind::Link, source: b"usr/bin", target: b"/bin", flags: 0 },
                Step { kind: StepKind::Memory, source: b"", target: b"/dev/shm", flags: 0 },
            ],
        }),
        landlock: Landlock {
            mode: Enforcement::Required,
            abi_min: 1,
            rules: vec![PathRule { path: b"/usr", rights: PathRule::READ | PathRule::EXECUTE }],
            connect: Some(vec![25]),
            bind: None,
            scoped: true,
        },
        seccomp: &[0; 16],
        log_denials: false,
        set_id_mail: false,
        limits: Limits {
            resources: vec![Resource { number: 0, value: 30 }],
            umask: 0o027,
            nice: -3,
            oom_score: 100,
            wall_seconds: 60,
            groups: vec![ControlGroup {
                version: 2,
                directory: b"/sys/fs/cgroup/cellwall/1001",
                settings: vec![(b"memory.max", b"1")],
            }],
            groups_required: false,
        },
        environment: Environment {
            pass: vec![b"QUERY_STRING", b"TZ"],
            pass_prefixes: vec![b"HTTP_"],
            authorization: true,
            set: vec![(b"PATH", b"/usr/bin")],
            entries_max: 512,
            bytes_max: 65536,
        },
    }
}

/// Of a uid with this one site.
pub(crate) fn record() -> Record<'static> {
    Record { host: host(), uid: 1001, user: b"shop", listed: true, sites: vec![site()] }
}

#[cfg(feature = "admin")]
mod decoder {
    use super::super::decode::{
        HEADER_LENGTH, KIND_HOST, KIND_RECORD, LENGTH_MAX, MAGIC, Malformed, VERSION,
    };
    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn what_was_written_is_what_is_read() {
        assert_eq!(decode::record(&encode::record(&record())), Ok(record()));
        assert_eq!(decode::host(&encode::host(&host())), Ok(host()));
    }

    #[test]
    fn no_prefix_of_a_record_and_no_record_with_a_tail_is_one() {
        let whole = encode::record(&record());
        for length in 0..whole.len() {
            assert!(decode::record(&whole[..length]).is_err(), "{length}");
        }
        let mut longer = whole;
        longer.push(0);
        assert_eq!(decode::record(&longer), Err(decode::Malformed::Length));
    }

    #[test]
    fn a_changed_byte_is_seen() {
        let whole = encode::record(&record());
        for place in 0..whole.len() {
            let mut other = whole.clone();
            other[place] ^= 0x20;
            assert!(decode::record(&other).is_err(), "{place}");
        }
    }

    /// A record whose checksum and length are right, and whose body is this one.
    fn sealed(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        let (sum, kind) = (decode::checksum(body).to_le_bytes(), kind.to_le_bytes());
        [&MAGIC[..], &VERSION.to_le_bytes(), &kind, &length.to_le_bytes(), &sum, body].concat()
    }

    fn why(record: &[u8]) -> Option<Malformed> {
        decode::record(record).err()
    }

    #[test]
    fn a_record_is_as_long_as_it_says_and_not_longer_than_one_may_be() {
        let whole = encode::record(&record());
        assert_eq!(
            why(&[&whole[..], b"\x01"].concat()),
            Some(Malformed::Length),
            "more than the header says"
        );
        let body = [&whole[HEADER_LENGTH..], b"\0"].concat();
        assert_eq!(why(&sealed(KIND_RECORD, &body)), Some(Malformed::Length), "more than a record has");
        assert_eq!(
            why(&sealed(KIND_RECORD, &whole[HEADER_LENGTH..])),
            None,
            "the header is made as it should be"
        );
        assert_eq!(why(&sealed(KIND_HOST, &whole[HEADER_LENGTH..])), Some(Malformed::Kind));
        let mut large = record();
        let entry = (&b"N"[..], &[b'x'; 4096][..]);
        large.sites[0].environment.set = vec![entry; LENGTH_MAX / 4096];
        assert_eq!(why(&encode::record(&large)), Some(Malformed::Length), "more than 1 MiB");
    }

    /// The number stands first in the body: so many callers of four bytes each.
    #[test]
    fn no_list_is_believed_to_be_longer_than_what_is_left() {
        let mut body = encode::record(&record())[HEADER_LENGTH..].to_vec();
        body[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(why(&sealed(KIND_RECORD, &body)), Some(Malformed::Field("callers")));
    }

    #[test]
    fn yes_is_one_and_no_is_zero_and_nothing_else_is_either() {
        let (mut yes, mut no) = (record(), record());
        (yes.sites[0].hard_links, no.sites[0].hard_links) = (true, false);
        let bodies = [yes, no].map(|record| encode::record(&record)[HEADER_LENGTH..].to_vec());
        let place = bodies[0].iter().zip(&bodies[1]).position(|(yes, no)| yes != no).unwrap();
        for (byte, wrong) in [(0, None), (1, None), (2, Some(Malformed::Field("hard_links")))] {
            let mut body = bodies[0].clone();
            body[place] = byte;
            assert_eq!(why(&sealed(KIND_RECORD, &body)), wrong, "{byte}");
        }
    }

    /// A change to a good record.
    type Change = fn(&mut Record<'static>);

    fn view(record: &mut Record<'static>, step: Step<'static>) {
        record.sites[0].jail = Jail::View(View { id: 1, steps: vec![step] });
    }

    fn group(record: &mut Record<'static>, version: u8, file: &'static [u8]) {
        let directory = &b"/sys/fs/cgroup/x"[..];
        record.sites[0].limits.groups =
            vec![ControlGroup { version, directory, settings: vec![(file, b"1")] }];
    }

    fn handler(record: &mut Record<'static>, suffix: &'static [u8], program: &'static [u8]) {
        record.sites[0].handlers = vec![Handler { suffix, command: vec![program] }];
    }

    fn rule(record: &mut Record<'static>, path: &'static [u8], rights: u8) {
        record.sites[0].landlock.rules = vec![PathRule { path, rights }];
    }

    const fn step(kind: StepKind, source: &'static [u8], target: &'static [u8], flags: u8) -> Step<'static> {
        Step { kind, source, target, flags }
    }

    /// What a record must not hold, whoever wrote it: each change alone, and the field that is named for it.
    const WRONG: [(&str, Change); 29] = [
        ("caller", |record| record.host.caller_name = b"www\0data"),
        ("docroot", |record| record.host.docroot = b"srv"),
        ("umask", |record| record.host.umask = 0o1000),
        ("log.file", |record| record.host.log.file = b"/var/../etc/x"),
        ("name", |record| record.sites[0].name = b"a\0b"),
        ("home", |record| record.sites[0].identity.home = b""),
        ("docroot", |record| record.sites[0].docroots = vec![b"/srv/../etc"]),
        ("programs", |record| record.sites[0].programs = vec![b"php-cgi"]),
        ("interpreters", |record| record.sites[0].interpreters = vec![b"/usr//bin/sh"]),
        ("handlers", |record| handler(record, b".", b"/usr/bin/php-cgi")),
        ("handlers", |record| handler(record, b"php", b"/usr/bin/php-cgi")),
        ("handlers", |record| handler(record, b".a/b", b"/usr/bin/php-cgi")),
        ("handlers", |record| handler(record, b".php", b"php-cgi")),
        ("jail.directory", |record| record.sites[0].jail = Jail::Chroot(b"/srv/")),
        ("view", |record| view(record, step(StepKind::BindDirectory, b"usr", b"/usr", 0))),
        ("view", |record| view(record, step(StepKind::BindFile, b"", b"/usr", 0))),
        ("view", |record| view(record, step(StepKind::Link, b"", b"/bin", 0))),
        ("view", |record| view(record, step(StepKind::Memory, b"/x", b"/tmp", 0))),
        ("view", |record| view(record, step(StepKind::BindDirectory, b"/", b"/", 0))),
        ("view", |record| view(record, step(StepKind::Memory, b"", b"/tmp", !Step::ALL))),
        ("files", |record| rule(record, b"/", PathRule::READ)),
        ("files", |record| rule(record, b"/srv", !PathRule::ALL)),
        ("seccomp", |record| record.sites[0].seccomp = &[0; 15]),
        ("seccomp", |record| record.sites[0].seccomp = &[0; 4097 * 8]),
        ("limits", |record| record.sites[0].limits.resources = vec![Resource { number: 16, value: 1 }]),
        ("cgroup", |record| group(record, 3, b"memory.max")),
        ("cgroup", |record| group(record, 2, b"")),
        ("cgroup", |record| group(record, 2, b"../cgroup.procs")),
        ("environment.set", |record| record.sites[0].environment.set = vec![(b"A=B", b"")]),
    ];

    #[test]
    fn a_record_with_what_no_policy_may_hold_is_none() {
        for (place, (field, change)) in WRONG.iter().enumerate() {
            let mut record = record();
            change(&mut record);
            assert_eq!(why(&encode::record(&record)), Some(Malformed::Field(field)), "{place}");
        }
        for file in [&b"."[..], b".."] {
            let mut record = record();
            record.sites[0].limits.groups[0].settings = vec![(file, b"1")];
            assert_eq!(why(&encode::record(&record)), Some(Malformed::Field("cgroup")));
        }
    }

    #[test]
    fn what_lies_at_a_border_is_still_a_policy() {
        let changes: [Change; 4] = [
            |record| record.sites[0].seccomp = &[0; 4096 * 8],
            |record| record.sites[0].limits.resources = vec![Resource { number: 15, value: 1 }],
            |record| record.sites[0].limits.umask = 0o777,
            |record| record.sites[0].identity.code_owner = None,
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut changed = record();
            change(&mut changed);
            assert_eq!(decode::record(&encode::record(&changed)), Ok(changed), "{place}");
        }
    }
}
