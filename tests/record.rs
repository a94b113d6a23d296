//! What single fields of a policy record may not be: each makes the whole record none. `cellwall apply` writes no such thing, and the
//! launcher does not rely on that.
#![cfg(feature = "admin")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on must say so loudly"
)]

use std::fs;
use std::path::Path;

use cellwall::policy::names::{is_plain_path, is_variable, may_pass_prefix};
use cellwall::policy::{
    ControlGroup, Handler, Jail, PathRule, Record, Resource, Step, StepKind, decode, encode,
};

/// A whole record whose site has a view, with one change.
fn is_taken(change: impl FnOnce(&mut Record<'_>)) -> bool {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/policy_record/view");
    let bytes = fs::read(seed).unwrap();
    let mut record = decode::record(&bytes).unwrap();
    change(&mut record);
    decode::record(&encode::record(&record)).is_ok()
}

#[test]
fn a_step_of_a_view_has_a_source_of_its_kind_and_a_target_below_the_root() {
    let taken = |kind, source, target, flags| {
        is_taken(|record| {
            let Jail::View(view) = &mut record.sites[0].jail else { panic!("no view") };
            view.steps.push(Step { kind, source, target, flags });
        })
    };
    let (bind, link, empty) = (StepKind::BindFile, StepKind::Link, StepKind::Directory);
    assert!(taken(bind, b"/srv/a", b"/srv/a", Step::ALL));
    assert!(taken(link, b"../a", b"/srv/a", 0) && taken(empty, b"", b"/srv/a", 0));
    for (kind, source) in
        [(bind, &b"/srv/a"[..]), (StepKind::BindDirectory, b"/srv"), (link, b"a"), (empty, b"")]
    {
        assert!(!taken(kind, source, b"/", 0), "{kind:?} on the root");
        assert!(!taken(kind, source, b"srv", 0) && !taken(kind, source, b"/srv/../etc", 0), "{kind:?}");
        assert!(!taken(kind, source, b"/srv", 128), "{kind:?} with a flag that there is not");
    }
    for kind in [bind, StepKind::BindDirectory] {
        for source in [&b""[..], b"srv/a", b"/srv/../etc", b"/srv/", b"/srv\0"] {
            assert!(!taken(kind, source, b"/srv/a", 0), "{kind:?} of {source:?}");
        }
    }
    assert!(!taken(link, b"", b"/srv/a", 0));
    for kind in [empty, StepKind::Memory, StepKind::Processes] {
        assert!(!taken(kind, b"/srv/a", b"/srv/a", 0), "{kind:?} has no source");
    }
}

#[test]
fn a_file_of_a_control_group_lies_in_it() {
    let taken = |version, directory, file| {
        is_taken(|record| {
            let settings = vec![(file, &b"1"[..])];
            record.sites[0].limits.groups.push(ControlGroup { version, directory, settings });
        })
    };
    assert!(taken(1, b"/sys/fs/cgroup/a", b"pids.max") && taken(2, b"/sys/fs/cgroup/a", b"pids.max"));
    for file in [&b""[..], b".", b"..", b"a/b", b"/a", b"pids.max\0"] {
        assert!(!taken(2, b"/sys/fs/cgroup/a", file), "{file:?}");
    }
    assert!(!taken(0, b"/sys/fs/cgroup/a", b"pids.max") && !taken(3, b"/sys/fs/cgroup/a", b"pids.max"));
    assert!(!taken(2, b"a", b"pids.max") && !taken(2, b"/sys/../etc", b"pids.max"));
}

#[test]
fn a_handler_has_an_ending_and_an_absolute_program() {
    let taken = |suffix, program| {
        is_taken(|record| record.sites[0].handlers = vec![Handler { suffix, command: vec![program] }])
    };
    assert!(taken(b".p", b"/usr/bin/x"));
    for suffix in [&b""[..], b".", b"p", b".p/x", b".\0"] {
        assert!(!taken(suffix, b"/usr/bin/x"), "{suffix:?}");
    }
    assert!(!taken(b".p", b"x") && !taken(b".p", b"/usr/../x"));
    assert!(!is_taken(
        |record| record.sites[0].handlers = vec![Handler { suffix: b".p", command: Vec::new() }]
    ));
}

#[test]
fn numbers_and_lengths_have_their_bounds() {
    let program = |length| vec![0; length];
    for (length, taken) in [(0, true), (8, true), (9, false), (7, false), (4096 * 8, true), (4097 * 8, false)]
    {
        let program = program(length);
        let bytes =
            fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/policy_record/view")).unwrap();
        let mut record = decode::record(&bytes).unwrap();
        record.sites[0].seccomp = &program;
        assert_eq!(decode::record(&encode::record(&record)).is_ok(), taken, "a filter of {length} bytes");
    }
    let masked = |umask| is_taken(|record| record.sites[0].limits.umask = umask);
    assert!(masked(0o777) && !masked(0o1000));
    let limited =
        |number| is_taken(|record| record.sites[0].limits.resources.push(Resource { number, value: 1 }));
    assert!(limited(15) && !limited(16));
    let ruled =
        |path, rights| is_taken(|record| record.sites[0].landlock.rules.push(PathRule { path, rights }));
    assert!(ruled(b"/srv", PathRule::ALL) && !ruled(b"/srv", 32) && !ruled(b"/", PathRule::READ));
    assert!(!ruled(b"srv", PathRule::READ) && !ruled(b"/srv/..", PathRule::READ));
}

#[test]
fn nothing_stands_behind_a_record() {
    for (name, kind) in [("view-body", decode::KIND_RECORD), ("host-body", decode::KIND_HOST)] {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/policy_record").join(name);
        let mut body = fs::read(place).unwrap();
        for more in [false, true] {
            if more {
                body.push(0);
            }
            let length = u32::try_from(body.len()).unwrap().to_le_bytes();
            let file = [
                &decode::MAGIC[..],
                &decode::VERSION.to_le_bytes(),
                &kind.to_le_bytes(),
                &length,
                &decode::checksum(&body).to_le_bytes(),
                &body,
            ]
            .concat();
            let taken = if kind == decode::KIND_HOST {
                decode::host(&file).is_ok()
            } else {
                decode::record(&file).is_ok()
            };
            assert_eq!(taken, !more, "{name}");
        }
    }
}

#[test]
fn names_and_paths_have_their_lengths() {
    assert!(is_variable(&[b'A'; 255]) && !is_variable(&[b'A'; 256]));
    assert!(may_pass_prefix(b"ABC") && !may_pass_prefix(b"AB") && !may_pass_prefix(b"AB-"));
    let part = |length| [&b"/"[..], &vec![b'a'; length]].concat();
    assert!(is_plain_path(&part(255)) && !is_plain_path(&part(256)));
    let path = |length: usize| [part(255).repeat(15), part(length - 15 * 256 - 1)].concat();
    assert!(is_plain_path(&path(4095)) && !is_plain_path(&path(4096)));
}

#[test]
fn a_group_holds_memory_by_any_of_its_files() {
    let group = |files: &[&'static [u8]]| {
        let settings = files.iter().map(|file| (*file, &b"1"[..])).collect();
        ControlGroup { version: 2, directory: b"/sys/fs/cgroup/a", settings }.holds_memory()
    };
    assert!(group(&[b"pids.max", b"memory.max"]) && group(&[b"memory.max"]));
    assert!(!group(&[]) && !group(&[b"pids.max", b"x.memory."]));
}
