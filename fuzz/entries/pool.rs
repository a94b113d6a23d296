//! What strangers say to the pool: FastCGI from web servers and workers, frames between broker and supervisor.

use cellwall::pool::fastcgi::{back, front};
use cellwall::pool::wire::{Down, Up};

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
