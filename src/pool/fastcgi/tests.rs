//! The codec against itself in every fragmentation, and against streams that break each rule.

use super::record::{CONTENT_MAX, HEADER, Header, kind, put, put_begin, put_end};
use super::{Broken, Ending, Role, back, front, pairs};

/// What a web server's stream was understood as, body fragments joined.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Heard {
    requests: Vec<(front::Begin, Vec<u8>)>,
    body: Vec<u8>,
    ends: usize,
    aborts: usize,
    large: usize,
    replies: Vec<front::Reply>,
    broken: Option<Broken>,
}

/// Feeds `stream` in pieces that end at `cuts`; a request that is whole is answered at once.
fn hear(stream: &[u8], cuts: &mut dyn Iterator<Item = usize>) -> Heard {
    let mut front = front::Front::new(65_536);
    let mut heard = Heard::default();
    let mut rest = stream;
    while !rest.is_empty() {
        let length = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let (mut piece, later) = rest.split_at(length);
        rest = later;
        loop {
            match front.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(event)) => note(&mut heard, &mut front, &event),
                Err(broken) => {
                    heard.broken = Some(broken);
                    return heard;
                }
            }
        }
        assert!(piece.is_empty(), "what is not enough is kept inside");
    }
    heard
}

fn note(heard: &mut Heard, front: &mut front::Front, event: &front::Event<'_>) {
    match event {
        front::Event::Request => heard.requests.push((front.request(), front.params().to_vec())),
        front::Event::TooLarge => heard.large += 1,
        front::Event::Body(bytes) => heard.body.extend_from_slice(bytes),
        front::Event::BodyEnd => {
            heard.ends += 1;
            front.finish();
        }
        front::Event::Abort => {
            heard.aborts += 1;
            front.finish();
        }
        front::Event::Reply(reply) => heard.replies.push(*reply),
    }
}

/// A small generator: reproducible, and good enough to choose cuts.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(below.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.throw(256)).unwrap()).collect()
    }
}

/// The same in one piece, byte by byte, cut in two at each place, and in random pieces.
fn hear_all_ways(stream: &[u8]) -> Heard {
    let whole = hear(stream, &mut std::iter::empty());
    assert_eq!(hear(stream, &mut std::iter::repeat(1)), whole, "byte by byte");
    for cut in 1..stream.len().min(300) {
        assert_eq!(hear(stream, &mut std::iter::once(cut)), whole, "cut at {cut}");
    }
    for seed in 1..20 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        assert_eq!(hear(stream, &mut std::iter::from_fn(|| Some(1 + dice.throw(700)))), whole, "seed {seed}");
    }
    whole
}

fn padded(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let mut record = Header { kind, id, content: length, padding }.encode().to_vec();
    record.extend_from_slice(content);
    record.extend(std::iter::repeat_n(0xaa, padding.into()));
    record
}

fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    padded(kind, id, content, 0)
}

fn begin(id: u16, role: u8, flags: u8) -> Vec<u8> {
    record(kind::BEGIN, id, &[0, role, flags, 0, 0, 0, 0, 0])
}

fn request(id: u16, keep: bool, parameters: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    put_begin(&mut stream, id, Role::Responder, keep);
    let mut writer = pairs::Writer::new(&mut stream, id);
    for (name, value) in parameters {
        assert!(writer.push(name, value));
    }
    writer.finish();
    if !body.is_empty() {
        put(&mut stream, kind::STDIN, id, body);
    }
    put(&mut stream, kind::STDIN, id, &[]);
    stream
}

#[test]
fn a_request_is_the_same_in_any_fragments() {
    let body = Dice(5).bytes(150_000);
    let stream =
        request(9, true, &[(b"REQUEST_METHOD", b"POST"), (b"EMPTY", b""), (b"LONG", &[b'x'; 300])], &body);
    let heard = hear_all_ways(&stream);
    assert_eq!(heard.body, body);
    assert_eq!((heard.ends, heard.broken), (1, None));
    let (begin, params) = heard.requests.first().unwrap();
    assert_eq!((begin.id, begin.keep, begin.role), (9, true, Role::Responder));
    let read: Vec<_> = pairs::Pairs(params).map(Result::unwrap).collect();
    assert_eq!(read, [(&b"REQUEST_METHOD"[..], &b"POST"[..]), (b"EMPTY", b""), (b"LONG", &[b'x'; 300])]);
}

#[test]
fn pairs_may_lie_in_several_records_and_padding_may_be_anything() {
    let mut params = Vec::new();
    pairs::put(&mut params, b"SCRIPT_FILENAME", b"/srv/www/a.php");
    pairs::put(&mut params, b"QUERY_STRING", &[b'q'; 200]);
    let mut stream = begin(1, 1, 0);
    for (place, part) in params.chunks(7).enumerate() {
        stream.extend(padded(kind::PARAMS, 1, part, u8::try_from(place * 37 % 256).unwrap()));
    }
    stream.extend(padded(kind::PARAMS, 1, &[], 255));
    stream.extend(padded(kind::STDIN, 1, b"abc", 255));
    stream.extend(padded(kind::STDIN, 1, &[], 1));
    let heard = hear_all_ways(&stream);
    assert_eq!(heard.requests, [(front::Begin { id: 1, role: Role::Responder, keep: false }, params)]);
    assert_eq!(heard.body, b"abc");
}

#[test]
fn kept_connections_carry_one_request_after_another() {
    let mut stream = request(1, true, &[(b"A", b"1")], b"one");
    stream.extend(request(7, true, &[(b"A", b"2")], b""));
    stream.extend(request(7, false, &[(b"A", b"3")], b"three"));
    let heard = hear_all_ways(&stream);
    assert_eq!(
        heard.requests.iter().map(|(begin, _)| (begin.id, begin.keep)).collect::<Vec<_>>(),
        [(1, true), (7, true), (7, false)]
    );
    assert_eq!((heard.body.as_slice(), heard.ends), (&b"onethree"[..], 3));
}

/// Apache sends nothing more of a body that was answered; others send its rest first.
#[test]
fn a_request_that_was_answered_early_may_be_followed_by_the_next_one_at_once() {
    /// Which events are requests; one whose body begins with this word is answered at once.
    fn next(front: &mut front::Front, stream: &[u8]) -> Vec<bool> {
        let (mut input, mut heard) = (stream, Vec::new());
        while let Some(event) = front.next(&mut input).unwrap() {
            heard.push(event == front::Event::Request);
            if event == front::Event::Body(b"first") {
                front.skip();
            }
        }
        heard
    }
    for rest in [&b""[..], b"unread", b"unread, and its end"] {
        let mut front = front::Front::new(65_536);
        let params = record(kind::PARAMS, 1, b"");
        let first = [begin(1, 1, 1), params.clone(), record(kind::STDIN, 1, b"first")].concat();
        assert_eq!(next(&mut front, &first), [true, false]);
        if !rest.is_empty() {
            assert_eq!(next(&mut front, &record(kind::STDIN, 1, rest)), []);
        }
        if rest.ends_with(b"end") {
            assert_eq!(next(&mut front, &record(kind::STDIN, 1, b"")), [false]);
            front.finish();
        }
        let second = [begin(1, 1, 0), params, record(kind::STDIN, 1, b"second")].concat();
        assert_eq!(next(&mut front, &second), [true, false]);
        assert!(!front.request().keep);
    }
}

#[test]
fn questions_about_the_connection_are_answered_by_the_book() {
    let mut names = Vec::new();
    for name in ["FCGI_MPXS_CONNS", "FCGI_MAX_CONNS", "OTHER"] {
        pairs::put(&mut names, name.as_bytes(), b"");
    }
    let mut stream = record(kind::GET_VALUES, 0, &names);
    stream.extend(record(99, 0, b"what is this"));
    let heard = hear_all_ways(&stream);
    let values = front::Reply::Values([true, false, true]);
    assert_eq!(heard.replies, [values, front::Reply::UnknownType(99)]);
    let mut out = Vec::new();
    values.put(&mut out, 250);
    let content: Vec<_> = pairs::Pairs(out.get(HEADER..).unwrap()).map(Result::unwrap).collect();
    assert_eq!(content, [(&b"FCGI_MAX_CONNS"[..], &b"250"[..]), (b"FCGI_MPXS_CONNS", b"0")]);
    assert_eq!(out[1], kind::GET_VALUES_RESULT);
}

#[test]
fn a_second_request_on_a_busy_connection_is_told_so_and_the_first_goes_on() {
    let mut stream = begin(1, 1, 1);
    stream.extend(begin(2, 1, 1));
    stream.extend(record(kind::PARAMS, 2, b"\x01\x01ab"));
    stream.extend(record(kind::PARAMS, 1, b"\x01\x01xy"));
    stream.extend(record(kind::STDIN, 2, b"not for us"));
    stream.extend(record(kind::PARAMS, 1, b""));
    stream.extend(record(kind::ABORT, 2, b""));
    stream.extend(record(kind::STDIN, 1, b""));
    let heard = hear_all_ways(&stream);
    assert_eq!(heard.replies, [front::Reply::End(2, Ending::CannotMultiplex)]);
    assert_eq!((heard.requests.len(), heard.ends, heard.aborts), (1, 1, 0));
    assert_eq!(heard.requests[0].1, b"\x01\x01xy");
}

#[test]
fn roles_that_are_not_offered_are_refused_and_authorizers_have_no_body() {
    let mut stream = begin(3, 9, 0);
    stream.extend(begin(4, 3, 0));
    let heard = hear_all_ways(&stream);
    let refused = |id| front::Reply::End(id, Ending::UnknownRole);
    assert_eq!(heard.replies, [refused(3), refused(4)]);
    let mut stream = begin(1, 2, 0);
    stream.extend(record(kind::PARAMS, 1, b""));
    let heard = hear_all_ways(&stream);
    assert_eq!(heard.requests[0].0.role, Role::Authorizer);
}

#[test]
fn an_abort_counts_for_the_request_that_runs() {
    let mut stream = begin(1, 1, 0);
    stream.extend(record(kind::ABORT, 1, b""));
    stream.extend(record(kind::ABORT, 1, b""));
    assert_eq!(hear_all_ways(&stream).aborts, 1);
}

#[test]
fn pool_10_parameters_have_a_limit_and_no_claimed_size_is_believed() {
    let large = vec![b'x'; 60_000];
    let mut stream = begin(1, 1, 0);
    for _ in 0..2 {
        stream.extend(record(kind::PARAMS, 1, &large));
    }
    stream.extend(record(kind::PARAMS, 1, b""));
    stream.extend(record(kind::STDIN, 1, b"skipped"));
    stream.extend(record(kind::STDIN, 1, b""));
    let heard = hear(&stream, &mut std::iter::empty());
    assert_eq!((heard.large, heard.requests.len(), heard.ends, heard.broken), (1, 0, 1, None));

    // A name of 2^31 - 1 bytes in a buffer of 20.
    let claims = [&[0xff, 0xff, 0xff, 0xff, 1][..], &[b'n'; 15]].concat();
    assert_eq!(pairs::Pairs(&claims).collect::<Vec<_>>(), [Err(Broken::Pair)]);
    // Headers that claim 65,535 bytes and bring none keep nothing.
    let mut front = front::Front::new(65_536);
    let mut head = &begin(1, 1, 0)[..];
    assert_eq!(front.next(&mut head), Ok(None));
    let claim = Header::new(kind::PARAMS, 1, u16::MAX).encode();
    assert_eq!(front.next(&mut &claim[..]), Ok(None));
    assert!(front.params().is_empty());
}

#[test]
fn pairs_are_written_whole_and_read_back() {
    let mut dice = Dice(77);
    for _ in 0..200 {
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..dice.throw(40))
            .map(|_| {
                let (name, value) = (dice.throw(200), dice.throw(5000));
                (dice.bytes(name), dice.bytes(value))
            })
            .collect();
        let mut out = Vec::new();
        let mut writer = pairs::Writer::new(&mut out, 1);
        for (name, value) in &pairs {
            assert!(writer.push(name, value));
        }
        writer.finish();
        let mut rest = out.as_slice();
        let mut read = Vec::new();
        loop {
            let (head, after) = rest.split_first_chunk::<HEADER>().unwrap();
            let header = Header::decode(*head).unwrap();
            let (content, after) = after.split_at(header.content.into());
            assert_eq!((header.kind, header.padding), (kind::PARAMS, 0));
            // Each record is readable alone.
            read.extend(pairs::Pairs(content).map(|pair| {
                let (name, value) = pair.unwrap();
                (name.to_vec(), value.to_vec())
            }));
            rest = after;
            if content.is_empty() {
                break;
            }
        }
        assert!(rest.is_empty());
        assert_eq!(read, pairs);
    }
    let mut out = Vec::new();
    assert!(!pairs::Writer::new(&mut out, 1).push(b"N", &[b'v'; CONTENT_MAX]));
}

/// A length of four bytes where one would do is legal, and no reader of a worker's should have to know that.
#[test]
fn a_pair_is_passed_on_as_it_came_or_in_its_shortest_form() {
    let mut short = Vec::new();
    pairs::put(&mut short, b"NAME", b"value");
    pairs::put(&mut short, b"LONG", &[b'x'; 200]);
    let long = [&b"\x80\0\0\x04\x05NAMEvalue"[..], b"\x04\x80\0\0\xc8LONG", &[b'x'; 200]].concat();
    for params in [&short, &long] {
        let (mut pairs, mut out) = (pairs::Pairs(params), Vec::new());
        let mut writer = pairs::Writer::new(&mut out, 1);
        while let Some(pair) = pairs.next_encoded().unwrap() {
            assert!(writer.copy(pair));
        }
        writer.finish();
        let mut expected = record(kind::PARAMS, 1, &short);
        expected.extend(record(kind::PARAMS, 1, b""));
        assert_eq!(out, expected);
    }
    let (mut out, huge) = (Vec::new(), [b'v'; CONTENT_MAX]);
    assert!(!pairs::Writer::new(&mut out, 1).copy((b"N", &huge, &huge)));
    assert_eq!(pairs::Pairs(b"\x01\x05N").next_encoded(), Err(Broken::Pair));
}

#[test]
fn pool_09_forty_streams_of_web_servers_that_break_a_rule() {
    use Broken::{Id, Kind, Length, Order, Version};
    let params = record(kind::PARAMS, 1, b"\x01\x01ab");
    let no_more = record(kind::PARAMS, 1, b"");
    let stdin = record(kind::STDIN, 1, b"body");
    let body_end = record(kind::STDIN, 1, b"");
    let go = [begin(1, 1, 1), params.clone(), no_more.clone()].concat();
    let head = |kind, id, content| Header::new(kind, id, content).encode().to_vec();
    let cases: Vec<(&str, Vec<u8>, Broken)> = vec![
        ("version 0", vec![0, 1, 0, 1, 0, 8, 0, 0], Version),
        ("version 2", vec![2, 1, 0, 1, 0, 8, 0, 0], Version),
        ("version 255", vec![255; 8], Version),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Version),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], Version),
        ("zeroes", vec![0; 64], Version),
        ("version after a good record", [begin(1, 1, 0), vec![9; 8]].concat(), Version),
        ("version in the middle of a body", [go.clone(), stdin.clone(), vec![7; 8]].concat(), Version),
        ("BEGIN without content", record(kind::BEGIN, 1, b""), Length),
        ("BEGIN of 7", record(kind::BEGIN, 1, &[0; 7]), Length),
        ("BEGIN of 9", record(kind::BEGIN, 1, &[0; 9]), Length),
        ("BEGIN of 65,535", head(kind::BEGIN, 1, 65_535), Length),
        ("GET_VALUES of 65,535", head(kind::GET_VALUES, 0, 65_535), Length),
        (
            "GET_VALUES with a name of 2^31 - 1",
            record(kind::GET_VALUES, 0, &[255, 255, 255, 255, 0]),
            Broken::Pair,
        ),
        ("GET_VALUES cut in a name", record(kind::GET_VALUES, 0, b"\x09\x00FCGI"), Broken::Pair),
        ("BEGIN of request 0", begin(0, 1, 0), Id),
        ("PARAMS of request 0", record(kind::PARAMS, 0, b"\x01\x01ab"), Id),
        ("STDIN of request 0", record(kind::STDIN, 0, b"x"), Id),
        ("ABORT of request 0", record(kind::ABORT, 0, b"x"), Id),
        ("STDOUT of request 0", record(kind::STDOUT, 0, b"x"), Id),
        ("BEGIN twice", [begin(1, 1, 0), begin(1, 1, 0)].concat(), Order),
        ("BEGIN in the parameters", [begin(1, 1, 0), params.clone(), begin(1, 1, 0)].concat(), Order),
        ("BEGIN in the body", [go.clone(), stdin.clone(), begin(1, 1, 0)].concat(), Order),
        ("STDIN before parameters", [begin(1, 1, 0), stdin.clone()].concat(), Order),
        ("STDIN's end before parameters", [begin(1, 1, 0), body_end.clone()].concat(), Order),
        ("STDIN in the parameters", [begin(1, 1, 0), params.clone(), stdin.clone()].concat(), Order),
        ("PARAMS after their end", [go.clone(), params.clone()].concat(), Order),
        ("the parameters' end twice", [go.clone(), no_more.clone()].concat(), Order),
        ("PARAMS in the body", [go.clone(), stdin.clone(), params].concat(), Order),
        ("STDOUT from a web server", [go.clone(), record(kind::STDOUT, 1, b"x")].concat(), Kind),
        ("STDERR from a web server", [go.clone(), record(kind::STDERR, 1, b"x")].concat(), Kind),
        ("END from a web server", [go.clone(), record(kind::END, 1, &[0; 8])].concat(), Kind),
        ("END of nothing", record(kind::END, 1, &[0; 8]), Kind),
        ("GET_VALUES of a request", record(kind::GET_VALUES, 1, b""), Kind),
        ("GET_VALUES_RESULT of a request", record(kind::GET_VALUES_RESULT, 5, b""), Kind),
        ("type 0", record(0, 1, b""), Kind),
        ("type 12", record(12, 1, b""), Kind),
        ("type 255 with 65,535 bytes", head(255, 1, 65_535), Kind),
        ("an authorizer's body", [begin(1, 2, 0), no_more.clone(), stdin].concat(), Order),
        ("an authorizer's parameters twice", [begin(1, 2, 0), no_more.clone(), no_more].concat(), Order),
    ];
    assert_eq!(cases.len(), 40);
    for (what, stream, why) in cases {
        assert_eq!(hear_all_ways(&stream).broken, Some(why), "{what}");
    }
}

#[test]
fn records_of_requests_that_are_not_served_are_skipped() {
    let mut stream = record(kind::PARAMS, 5, b"anything");
    stream.extend(record(kind::STDIN, 5, b"anything"));
    stream.extend(record(kind::ABORT, 5, b""));
    stream.extend(request(1, true, &[(b"A", b"1")], b"x"));
    stream.extend(record(kind::STDIN, 1, b"late"));
    stream.extend(request(1, true, &[(b"A", b"1")], b"y"));
    let heard = hear_all_ways(&stream);
    assert_eq!((heard.body.as_slice(), heard.ends, heard.broken), (&b"xy"[..], 2, None));
}

/// Output, words for the log, ends, and the rule that was broken.
type Answer = (Vec<u8>, Vec<u8>, Vec<(u32, Ending)>, Option<Broken>);

/// What a worker's stream was understood as.
fn answer(stream: &[u8], piece: usize) -> Answer {
    let mut back = back::Back::default();
    back.ask();
    let (mut out, mut err, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for mut part in stream.chunks(piece) {
        loop {
            match back.next(&mut part) {
                Ok(None) => break,
                Ok(Some(back::Event::Stdout(bytes))) => out.extend_from_slice(bytes),
                Ok(Some(back::Event::Stderr(bytes))) => err.extend_from_slice(bytes),
                Ok(Some(back::Event::End(status, ending))) => ends.push((status, ending)),
                Err(broken) => return (out, err, ends, Some(broken)),
            }
        }
    }
    (out, err, ends, None)
}

#[test]
fn an_answer_is_the_same_in_any_fragments() {
    let body = Dice(3).bytes(200_000);
    let mut stream = Vec::new();
    put(&mut stream, kind::STDERR, 1, b"oops\n");
    put(&mut stream, kind::STDOUT, 1, &body);
    stream.extend(padded(kind::STDOUT, 1, &[], 7));
    stream.extend(padded(kind::GET_VALUES_RESULT, 0, b"whatever", 200));
    put_end(&mut stream, 1, 3, Ending::Complete);
    for piece in [1, 2, 7, 8, 9, 4096, 65_536, stream.len()] {
        let (out, err, ends, broken) = answer(&stream, piece);
        assert!(out == body && err == b"oops\n", "pieces of {piece}");
        assert_eq!((ends, broken), (vec![(3, Ending::Complete)], None));
    }
}

#[test]
fn pool_09_streams_of_workers_that_break_a_rule() {
    let end = record(kind::END, 1, &[0; 8]);
    for (what, stream, why) in [
        ("text", b"Content-Type: text/html\r\n\r\nhello".to_vec(), Broken::Version),
        ("another request", record(kind::STDOUT, 2, b"x"), Broken::Id),
        ("the end of another request", record(kind::END, 2, &[0; 8]), Broken::Id),
        ("a long end", record(kind::END, 1, &[0; 9]), Broken::Length),
        ("a short end", record(kind::END, 1, b""), Broken::Length),
        ("a question", record(kind::GET_VALUES, 0, b""), Broken::Kind),
        ("a request", begin(1, 1, 0), Broken::Kind),
        ("parameters", record(kind::PARAMS, 1, b""), Broken::Kind),
        ("output of request 0", record(kind::STDOUT, 0, b"x"), Broken::Id),
        ("more after the end", [end.clone(), record(kind::STDOUT, 1, b"x")].concat(), Broken::Unasked),
        ("two ends", [end.clone(), end].concat(), Broken::Unasked),
    ] {
        for piece in [1, 3, 1000] {
            assert_eq!(answer(&stream, piece).3, Some(why), "{what}");
        }
    }
    let mut silent = back::Back::default();
    assert_eq!(silent.next(&mut &record(kind::STDOUT, 1, b"x")[..]), Err(Broken::Unasked));
}

/// A connection is closed, kept or waited at by what these say.
#[test]
fn a_connection_rests_between_requests_and_between_records_only() {
    let told = |front: &front::Front| (front.active(), front.silent(), front.begun(), front.whole());
    let mut front = front::Front::new(1000);
    assert_eq!(told(&front), (false, true, false, false), "nothing was said");
    let stream = request(1, true, &[(b"A", b"b")], b"body");
    let (begin, rest) = stream.split_at(16);
    assert_eq!(front.next(&mut &begin[..3]), Ok(None));
    assert_eq!(told(&front), (false, false, false, false), "the beginning of a record is no rest");
    assert_eq!(front.next(&mut &begin[3..]), Ok(None));
    assert_eq!(told(&front), (true, false, true, false), "parameters are to come");
    let mut rest = rest;
    let mut last = None;
    while let Some(event) = front.next(&mut rest).unwrap() {
        last = Some(format!("{event:?}"));
        let whole = event == front::Event::BodyEnd;
        assert_eq!(told(&front), (true, false, false, whole), "{event:?}");
    }
    assert_eq!(last.as_deref(), Some("BodyEnd"));
    front.finish();
    assert_eq!(told(&front), (false, true, false, false), "answered");
    front.skip();
    assert_eq!(told(&front), (true, false, false, false), "the rest of a request that is answered");
}

#[test]
fn a_connection_to_a_worker_is_clean_when_it_owes_nothing() {
    let mut back = back::Back::default();
    assert!(back.clean() && !back.asked(), "nothing was asked");
    back.ask();
    assert!(!back.clean() && back.asked(), "an answer is to come");
    let end = record(kind::END, 1, &[0; 8]);
    assert_eq!(back.next(&mut &end[..5]), Ok(None));
    assert!(!back.clean());
    assert!(matches!(back.next(&mut &end[5..]), Ok(Some(back::Event::End(0, Ending::Complete)))));
    assert!(back.clean() && !back.asked());
    // Half a record behind the answer: what comes next on this connection would be its rest.
    back.ask();
    let behind = [&end[..], &end[..3]].concat();
    let mut behind = &behind[..];
    assert!(matches!(back.next(&mut behind), Ok(Some(back::Event::End(..)))));
    assert_eq!(back.next(&mut behind), Ok(None));
    assert!(!back.clean() && !back.asked());
}

#[test]
fn noise_never_does_more_than_break_the_stream() {
    for seed in 1..400 {
        let mut dice = Dice(seed * 7_919);
        let mut noise = Vec::new();
        while noise.len() < 3000 {
            let (kind, id) = (u8::try_from(dice.throw(13)).unwrap(), u16::try_from(dice.throw(3)).unwrap());
            let length = [0, 8, dice.throw(50), dice.throw(3000)][dice.throw(4)];
            let content = dice.bytes(length);
            noise.extend(padded(kind, id, &content, u8::try_from(dice.throw(256)).unwrap()));
        }
        let whole = hear(&noise, &mut std::iter::empty());
        assert_eq!(hear(&noise, &mut std::iter::repeat(1)), whole);
        answer(&noise, 1 + dice.throw(500));
    }
}

#[test]
fn a_record_and_its_parameters_may_be_as_long_as_can_be_and_no_longer() {
    // 65,535 bytes are one record, one more two.
    for (length, heads) in [(CONTENT_MAX, 1), (CONTENT_MAX + 1, 2)] {
        let mut out = Vec::new();
        put(&mut out, kind::STDOUT, 1, &vec![b'x'; length]);
        assert_eq!(out.len(), length + heads * HEADER);
    }
    // A pair of `N` and so many bytes: one byte of length for the name, four for the value.
    let most = CONTENT_MAX - 1 - 4 - 1;
    for (length, fits) in [(most, true), (most + 1, false)] {
        let mut out = Vec::new();
        assert_eq!(pairs::Writer::new(&mut out, 1).push(b"N", &vec![b'v'; length]), fits);
    }
    // Two pairs that fill a record to its last byte, and two that are one byte too many for it.
    for (length, first) in [(most - 8, CONTENT_MAX), (most - 7, CONTENT_MAX - 8)] {
        let mut out = Vec::new();
        let mut writer = pairs::Writer::new(&mut out, 1);
        assert!(writer.push(b"N", &vec![b'v'; length]) && writer.push(b"Small", b"v"));
        writer.finish();
        let head = Header::decode(*out.first_chunk().unwrap()).unwrap();
        assert_eq!(usize::from(head.content), first + if first == CONTENT_MAX { 0 } else { 1 });
    }
}

#[test]
fn as_many_parameters_are_kept_as_were_agreed_on() {
    for (length, large) in [(100, false), (101, true)] {
        let mut front = front::Front::new(100);
        let mut stream = begin(1, 1, 0);
        stream.extend(record(kind::PARAMS, 1, &[b'x'; 60]));
        stream.extend(record(kind::PARAMS, 1, &vec![b'x'; length - 60]));
        let event = front.next(&mut stream.as_slice()).unwrap();
        assert_eq!(event == Some(front::Event::TooLarge), large, "{length}");
        assert_eq!(front.params().len(), if large { 0 } else { length }, "what is refused is not kept");
    }
}

/// Whoever reads them has to forget them; whoever forgets that must not mix two visitors.
#[test]
fn parameters_of_one_request_are_never_those_of_the_next() {
    let mut front = front::Front::new(1000);
    for value in [b"first", b"other"] {
        let stream = request(1, true, &[(b"A", value)], b"");
        let mut rest = &stream[..];
        assert_eq!(front.next(&mut rest), Ok(Some(front::Event::Request)));
        assert_eq!(pairs::Pairs(front.params()).collect::<Vec<_>>(), [Ok((&b"A"[..], &value[..]))]);
        assert_eq!(front.next(&mut rest), Ok(Some(front::Event::BodyEnd)));
        front.finish();
    }
}

#[test]
fn what_a_flag_or_a_record_means_does_not_depend_on_what_is_beside_it() {
    let mut front = front::Front::new(1000);
    assert_eq!(front.next(&mut &begin(1, 1, 0xff)[..]), Ok(None));
    assert!(front.request().keep, "other flags are set as well");
    // Questions of 1,024 bytes are read, and no longer ones.
    let question = |length: usize| {
        let padding = vec![b'x'; length - 6];
        let [high, low] = u16::try_from(padding.len()).unwrap().to_be_bytes();
        let value = [&[1, 0x80, 0, high, low][..], b"N", &padding].concat();
        hear(&record(kind::GET_VALUES, 0, &value), &mut std::iter::empty())
    };
    assert_eq!(question(1024).replies, [front::Reply::Values([false; 3])]);
    assert_eq!(question(1025).broken, Some(Broken::Length));
}

/// Some servers close the body of an authorizer, which has none: that is not a second end. A responder's ends once.
#[test]
fn a_body_ends_once() {
    for (role, broken, ends) in [(2, None, 0), (1, Some(Broken::Order), 1)] {
        let mut front = front::Front::new(1000);
        let mut stream = begin(1, role, 0);
        stream.extend(record(kind::PARAMS, 1, b""));
        stream.extend(record(kind::STDIN, 1, b""));
        if role == 1 {
            stream.extend(record(kind::STDIN, 1, b""));
        }
        let (mut rest, mut seen, mut why) = (&stream[..], 0, None);
        loop {
            match front.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(event)) => seen += i32::from(event == front::Event::BodyEnd),
                Err(broken) => {
                    why = Some(broken);
                    break;
                }
            }
        }
        assert_eq!((why, seen), (broken, ends), "role {role}");
    }
}

#[test]
fn the_end_of_one_answer_is_not_that_of_the_one_before() {
    let mut back = back::Back::default();
    for (status, ending) in [(3, Ending::Complete), (7, Ending::Overloaded), (0, Ending::UnknownRole)] {
        back.ask();
        let mut stream = Vec::new();
        put_end(&mut stream, 1, status, ending);
        assert_eq!(back.next(&mut &stream[..]), Ok(Some(back::Event::End(status, ending))));
    }
}

/// In the middle of a record, or of its padding, nothing else may begin.
#[test]
fn a_connection_does_not_rest_within_a_record() {
    let mut front = front::Front::new(1000);
    let begins = begin(1, 1, 0);
    assert_eq!(front.next(&mut &begins[..HEADER]), Ok(None));
    assert!(!front.active() && !front.silent(), "the head of a request");
    let mut back = back::Back::default();
    back.ask();
    let end = padded(kind::END, 1, &[0; 8], 2);
    let mut rest = &end[..end.len() - 1];
    assert!(matches!(back.next(&mut rest), Ok(Some(back::Event::End(..)))));
    assert_eq!(back.next(&mut rest), Ok(None));
    assert!(!back.clean(), "a byte of padding is to come");
    assert_eq!(back.next(&mut &end[end.len() - 1..]), Ok(None));
    assert!(back.clean());
}
