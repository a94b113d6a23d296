//! What is fuzzed: one function for each target, and what must hold whatever the bytes are.
//!
//! libFuzzer comes here through fuzz_targets/, proptest and Miri through tests/fuzz.rs. A new target is a function here, a
//! line in [`ALL`], a file in fuzz_targets/ with its [[bin]], and a seed in corpus/.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cellwall::config::host::HostRules;
use cellwall::config::problem::{Document, Problems};
use cellwall::config::profiles;
use cellwall::config::reader::Reader;
use cellwall::config::rules::{Rules, SECTIONS};
use cellwall::launch::environment::rebuild;
use cellwall::launch::interpreter::{First, is_php_cgi, parse};
use cellwall::launch::request::Request;
use cellwall::policy::names::{is_plain_path, is_variable, may_pass};
use cellwall::policy::{Environment, decode, encode};
use cellwall::refusal::{Pasted, Untrusted};

#[path = "entries/log.rs"]
mod log;
#[path = "entries/pool.rs"]
mod pool;
#[path = "entries/walk.rs"]
mod walk;

/// One target.
pub(crate) type Entry = fn(&[u8]);

/// All targets, by the names of their files.
pub(crate) const ALL: [(&str, Entry); 10] = [
    ("policy_record", policy_record),
    ("configuration", configuration),
    ("request", request),
    ("first_line", first_line),
    ("escaping", escaping),
    ("log_lines", log::lines),
    ("path_walk", walk::tree),
    ("fastcgi", pool::fastcgi),
    ("gate", pool::gate),
    ("wire", pool::wire),
];

/// Calls the entry of this name.
pub(crate) fn run(name: &str, data: &[u8]) {
    let (_, entry) = ALL.iter().find(|(own, _)| *own == name).unwrap();
    entry(data);
}

/// A record is read whole or not at all, and what is read is what would be written. The bytes as they are, then as the
/// body of a record with a right checksum, so that the fields are reached.
pub(crate) fn policy_record(data: &[u8]) {
    for file in [data.to_vec(), sealed(decode::KIND_HOST, data), sealed(decode::KIND_RECORD, data)] {
        if let Ok(host) = decode::host(&file) {
            assert_eq!(encode::host(&host), file);
        }
        let Ok(record) = decode::record(&file) else { continue };
        assert_eq!(encode::record(&record), file);
        for site in &record.sites {
            assert!(site.docroots.iter().all(|docroot| is_plain_path(docroot)));
            assert!(site.environment.set.iter().all(|(name, _)| is_variable(name)));
        }
    }
}

fn sealed(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [
        &decode::MAGIC[..],
        &decode::VERSION.to_le_bytes(),
        &kind.to_le_bytes(),
        &length.to_le_bytes(),
        &decode::checksum(body).to_le_bytes(),
        body,
    ]
    .concat()
}

/// Every mistake of the administrator's is said with its place, and nothing in a file can steer a terminal. The first byte
/// decides which kind of file it is.
pub(crate) fn configuration(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let problems = Problems::default();
    let path = Path::new("/etc/cellwall/x.toml");
    let document = Document::new(path, text.to_owned());
    match kind % 3 {
        0 => drop(HostRules::read(&document, &problems)),
        1 => {
            let mut reader = Reader::open(&document, SECTIONS, &problems);
            drop(Rules::read(&mut reader));
            reader.finish();
        }
        _ => drop(profiles::read(profiles::Kind::Piece, path, text.to_owned(), &problems)),
    }
    let lines = text.lines().count().max(1);
    for problem in problems.into_sorted() {
        let told = problem.to_string();
        assert!(told.chars().all(|character| character == '\n' || !character.is_control()), "{told:?}");
        let line = problem.place.as_ref().map_or(1, |place| place.line());
        assert!(line <= lines + 1, "line {line} of {lines}: {told}");
    }
}

/// Words and variables together: the first byte says how many of the pieces between zero bytes are words.
pub(crate) fn request(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let mut pieces = rest.split(|byte| *byte == 0);
    let words: Vec<&OsStr> = pieces.by_ref().take(usize::from(count % 8)).map(OsStr::from_bytes).collect();
    let caller: Vec<CString> = pieces.flat_map(CString::new).collect();
    let caller: Vec<&CStr> = caller.iter().map(CString::as_c_str).collect();
    if let Ok(request) = Request::parse(&words) {
        let user = words[0].as_bytes();
        let uid = user.strip_prefix(b"~").unwrap_or(user);
        assert_eq!(request.uid().to_string().as_bytes(), uid, "one number has one spelling");
        assert!(request.uid() != u32::MAX);
        let command = words[2].as_bytes();
        assert!(!matches!(command, b"" | b"." | b"..") && !command.contains(&b'/') && command.len() <= 255);
        assert!(!command.iter().any(u8::is_ascii_control));
    }
    environment(&caller);
}

/// What passes is listed, stands once and comes behind what is set; and filtering it again changes nothing.
fn environment(caller: &[&CStr]) {
    let rules = Environment {
        pass: vec![b"PATH_INFO", b"QUERY_STRING", b"REDIRECT_STATUS", b"SCRIPT_FILENAME", b"TZ"],
        pass_prefixes: vec![b"HTTP_", b"SSL_CLIENT_"],
        authorization: false,
        set: vec![(b"PATH", b"/usr/bin"), (b"HOME", b"/home/shop")],
        entries_max: 64,
        bytes_max: 4096,
    };
    let forced: [(&[u8], Option<Vec<u8>>); 2] =
        [(b"SCRIPT_FILENAME", Some(b"/srv/a".to_vec())), (b"HTTP_X", None)];
    let Ok(rebuilt) = rebuild(&rules, caller, &forced, |path| path) else { return };
    let entries: Vec<&[u8]> = rebuilt.entries.iter().map(|entry| entry.to_bytes()).collect();
    assert!(entries.starts_with(&[b"PATH=/usr/bin", b"HOME=/home/shop", b"SCRIPT_FILENAME=/srv/a"]));
    assert_eq!(entries.len() - 3 + rebuilt.dropped, caller.len());
    let mut names = BTreeSet::new();
    for entry in &entries {
        let place = entry.iter().position(|byte| *byte == b'=').unwrap();
        let (name, value) = (&entry[..place], &entry[place + 1..]);
        assert!(names.insert(name), "{} stands twice", Untrusted(name));
        let set = rules.set.iter().any(|(own, _)| *own == name) || name == b"SCRIPT_FILENAME";
        let listed =
            rules.pass.contains(&name) || rules.pass_prefixes.iter().any(|prefix| name.starts_with(prefix));
        assert!(set || listed && may_pass(name) && !value.starts_with(b"()"), "{} passed", Untrusted(entry));
        assert!(
            !matches!(name, b"HTTP_X" | b"HTTP_PROXY" | b"HTTP_AUTHORIZATION"),
            "{} passed",
            Untrusted(entry)
        );
    }
    let passed: Vec<&CStr> = rebuilt.entries[3..].iter().map(AsRef::as_ref).collect();
    let again = rebuild(&rules, &passed, &forced, |path| path).unwrap();
    assert_eq!((&again.entries, again.dropped), (&rebuilt.entries, 0));
}

/// The `#!` line: what is found stands in it, and is a path that a system call can take.
pub(crate) fn first_line(data: &[u8]) {
    match parse(data) {
        Ok(First::Script(program, php)) => {
            assert!(data.starts_with(b"#!") && program.starts_with(b"/"));
            assert!(!program.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r' | b' ' | b'\t')));
            assert!(data.windows(program.len()).any(|part| part == program));
            assert!(php || !is_php_cgi(&program));
        }
        Ok(First::Compiled) => assert!(data.starts_with(b"\x7fELF")),
        Ok(First::Unreadable) => panic!("bytes were read"),
        Err(_) => {}
    }
}

/// Foreign text in a record is printable, bounded and cannot close a quote; in a remedy it is one word of a shell.
pub(crate) fn escaping(data: &[u8]) {
    let told = Untrusted(data).to_string();
    assert!(told.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'), "{told:?}");
    assert!(told.len() <= 255 * 4 + "[cut]".len());
    let pasted = Pasted(data).to_string();
    let words = words_of_shell(&pasted);
    if pasted.starts_with('$') {
        // The shell undoes `\xNN` and nothing else: a quote is one of them, and a backslash begins nothing but one.
        assert_eq!(words, [told.replace('\'', "\\x27")]);
        assert!(words[0].split('\\').skip(1).all(|escape| escape.starts_with('x')), "{pasted:?}");
    } else {
        assert_eq!(words, [told]);
    }
}

/// What a POSIX shell makes of a line (POSIX.1-2017, 2.2 and 2.3; of `$'` the words as they stand there). Panics where it would
/// do anything but read words.
fn words_of_shell(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (quoted, character) {
            (false, '$') => assert_eq!(characters.peek(), Some(&'\''), "{line:?}"),
            (_, '\'') => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            (true, other) => word.get_or_insert_default().push(other),
            (false, '\\') => word.get_or_insert_default().push(characters.next().unwrap()),
            (false, ' ') => words.extend(word.take()),
            (false, other) => {
                assert!(
                    other.is_ascii_alphanumeric() || "/._-+=,@%:".contains(other),
                    "{other:?} in {line:?}"
                );
                word.get_or_insert_default().push(other);
            }
        }
    }
    assert!(!quoted, "an open quote: {line:?}");
    words.extend(word);
    words
}
