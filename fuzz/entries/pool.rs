//! What strangers say to the pool: FastCGI from web servers and workers, frames between broker and supervisor.

use std::collections::BTreeSet;
use std::rc::Rc;

use cellwall::policy::names::{is_plain_path, may_pass};
use cellwall::pool::fastcgi::{Role, back, front};
use cellwall::pool::gate::{Form, Gate, Memory, Names, Passed};
use cellwall::pool::wire::{Down, Message as _, Up};

/// A frame is a message or nonsense; a message has one spelling. The first byte: how many descriptors came along.
pub(crate) fn wire(data: &[u8]) {
    let Some((count, frame)) = data.split_first() else { return };
    let count = usize::from(count % 4);
    if let Ok(message) = Down::decode(frame, count) {
        assert_eq!((message.encode().as_slice(), message.descriptors()), (frame, count));
    }
    if let Ok(message) = Up::decode(frame, count) {
        assert_eq!((message.encode().as_slice(), message.descriptors()), (frame, count));
    }
}

/// However a stream is cut into pieces, it says the same. The first byte is the length of the pieces.
pub(crate) fn fastcgi(data: &[u8]) {
    let Some((length, stream)) = data.split_first() else { return };
    let length = usize::from(*length).max(1);
    assert_eq!(asked(stream, stream.len().max(1)), asked(stream, length));
    assert_eq!(answered(stream, stream.len().max(1)), answered(stream, length));
}

/// What passes the gate is listed and no danger, stands once, and names a file beneath a docroot; and a worker is told
/// the same as a program that is started for the request.
pub(crate) fn gate(data: &[u8]) {
    const PASS: [&[u8]; 8] = [
        b"CONTENT_LENGTH",
        b"DOCUMENT_ROOT",
        b"PATH_INFO",
        b"PATH_TRANSLATED",
        b"PHP_VALUE",
        b"QUERY_STRING",
        b"SCRIPT_FILENAME",
        b"SCRIPT_NAME",
    ];
    let gate = Gate {
        names: Rc::new(Names {
            pass: PASS.iter().map(|name| (*name).into()).collect(),
            prefixes: vec![b"HTTP_"[..].into(), b"LD_"[..].into()],
            authorization: false,
            entries_max: 40,
            bytes_max: 4096,
        }),
        docroots: vec![b"/srv/a/htdocs".to_vec(), b"/home/a/public_html".to_vec()],
        jail: b"/srv/a".to_vec(),
        endings: vec![b".php".to_vec()],
        php: false,
        programs: Vec::new(),
        body_max: 1 << 20,
        memory: Memory::default(),
    };
    let told = gate.judge(data, Form::Environment);
    let asked = gate.judge(data, Form::Records(Role::Responder, true));
    let (Ok(told), Ok(asked)) = (&told, &asked) else {
        // Only the length of one parameter may make a difference: a record has less room than an environment.
        assert!(told.is_err() || asked.err().is_some_and(|no| no.http == 431));
        return;
    };
    assert_eq!((&told.script, told.dropped), (&asked.script, asked.dropped));
    assert!(is_plain_path(&told.script) && told.script.ends_with(b".php"));
    assert!(gate.docroots.iter().any(|root| told.script.starts_with(&[&root[..], b"/"].concat())));
    let entries = entries_of(told);
    let names: BTreeSet<&[u8]> = entries.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), entries.len(), "a name stands twice");
    for (name, value) in &entries {
        assert!(may_pass(name) && (PASS.contains(name) || name.starts_with(b"HTTP_")), "{name:?}");
        assert!(!matches!(*name, b"PATH_TRANSLATED" | b"PHP_VALUE" | b"HTTP_PROXY"));
        let path = matches!(*name, b"SCRIPT_FILENAME" | b"DOCUMENT_ROOT");
        assert!(!path || is_plain_path(value) && !value.starts_with(b"/srv/a/"), "{name:?} {value:?}");
    }
    let mut front = front::Front::new(1 << 20);
    let mut stream = &asked.bytes[..];
    assert!(matches!(front.next(&mut stream), Ok(Some(front::Event::Request))), "{:?}", asked.bytes);
    let pairs = cellwall::pool::fastcgi::pairs::Pairs(front.params()).map(|pair| pair.unwrap());
    assert!(pairs.eq(entries.iter().copied()));
    assert!(stream.is_empty());
}

fn entries_of(passed: &Passed) -> Vec<(&[u8], &[u8])> {
    let entries = passed.bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let equals = entry.iter().position(|byte| *byte == b'=').unwrap();
            (&entry[..equals], &entry[equals + 1..])
        })
        .collect()
}

/// What was heard: a word for each event, bodies joined.
type Heard = Vec<(String, Vec<u8>)>;

fn hear(heard: &mut Heard, word: &str, bytes: &[u8]) {
    match heard.last_mut() {
        Some((last, all)) if last == word && !bytes.is_empty() => all.extend(bytes),
        _ => heard.push((word.to_owned(), bytes.to_vec())),
    }
}

/// The side of the web server; each request is answered when it is whole.
fn asked(stream: &[u8], length: usize) -> Heard {
    const MOST: usize = 4096;
    let (mut front, mut heard) = (front::Front::new(MOST), Heard::new());
    for mut piece in stream.chunks(length) {
        loop {
            match front.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(front::Event::Body(bytes))) => hear(&mut heard, "body", bytes),
                Ok(Some(front::Event::Request)) => {
                    let word = format!("{:?}", front.request());
                    hear(&mut heard, &word, front.params());
                    assert!(front.params().len() <= MOST);
                }
                Ok(Some(other)) => hear(&mut heard, &format!("{other:?}"), b""),
                Err(broken) => {
                    hear(&mut heard, &format!("{broken:?}"), b"");
                    return heard;
                }
            }
            if front.whole() {
                front.finish();
            }
        }
    }
    heard
}

/// The side of the worker, which is asked again after each end.
fn answered(stream: &[u8], length: usize) -> Heard {
    let (mut back, mut heard) = (back::Back::default(), Heard::new());
    back.ask();
    for mut piece in stream.chunks(length) {
        loop {
            match back.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(back::Event::Stdout(bytes))) => hear(&mut heard, "out", bytes),
                Ok(Some(back::Event::Stderr(bytes))) => hear(&mut heard, "err", bytes),
                Ok(Some(end)) => {
                    hear(&mut heard, &format!("{end:?}"), b"");
                    back.ask();
                }
                Err(broken) => {
                    hear(&mut heard, &format!("{broken:?}"), b"");
                    return heard;
                }
            }
        }
    }
    heard
}
