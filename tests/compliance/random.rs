//! Random environments, to both launchers: of what suEXEC passes, ours leaves out or refuses what docs/differences.md says, and
//! nothing else; and lets pass nothing that suEXEC does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::arguments::alice;
use crate::environment::{NAMES, NEVER};
use crate::harness::{Launcher, World, world};
use crate::seen::{ORDER, Seen, look};

/// `NAME=value`, or something like it.
type Entry = String;

/// Of the CGI standard, and what programs decide by as well: one value each, on one line (`one-value`, `line-break`).
const CORE: [&str; 24] = [
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "CONTEXT_DOCUMENT_ROOT",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "HTTPS",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "REDIRECT_STATUS",
    "REDIRECT_URL",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
];
/// What ours sets by itself (`account-variables`), and both.
const SET: [&str; 7] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER"];

fn name() -> impl Strategy<Value = String> {
    const HEADERS: [&str; 7] = [
        "HTTP_PROXY",
        "HTTP_AUTHORIZATION",
        "HTTP_REDIRECT_STATUS",
        "HTTP_HOST",
        "HTTP_COOKIE",
        "HTTP_X",
        "HTTP_",
    ];
    const TLS: [&str; 5] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CIPHER", "SSL_CLIENT_S_DN", "SSL_"];
    let known = proptest::prop_oneof![
        4 => select(&NAMES[..]),
        2 => select(&HEADERS[..]),
        1 => select(&TLS[..]),
        1 => select(&NEVER[..]),
    ];
    let tail = proptest::prop_oneof![6 => Just(String::new()), 1 => "[A-Z_]{1,8}", 1 => "[ -<>-~]{1,4}"];
    let whole = (known, tail, any::<u8>()).prop_map(|(name, tail, lower)| match lower {
        0..6 => format!("{name}{tail}").to_lowercase(),
        6..12 => format!("{tail}{name}"),
        _ => format!("{name}{tail}"),
    });
    proptest::prop_oneof![8 => whole, 1 => "[A-Z]{1,3}_[A-Za-z_]{1,12}", 1 => "[ -<>-~]{1,10}"]
}

fn entry() -> impl Strategy<Value = Entry> {
    let value = proptest::prop_oneof![
        8 => "[ -~]{0,30}",
        1 => "[ -~]{0,3}\n[ -~]{0,3}",
        1 => select(&["() { :; }; id", "Europe/Athens", ":/etc/shadow", "../x", "404", "40 4", "=", "\t"][..])
            .prop_map(str::to_owned),
    ];
    let sign = proptest::prop_oneof![30 => Just("="), 1 => Just("")];
    // Numbers of users are called by their names, see `seen`.
    (name(), sign, value).prop_map(|(name, sign, value)| format!("{name}{sign}{}", value.replace("30", "31")))
}

fn requests(count: usize) -> Vec<Vec<Entry>> {
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let request = vec(entry(), 1..25);
    (0..count).map(|_| request.new_tree(&mut runner).unwrap().current()).collect()
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// Names that mod_ssl publishes, and beginnings of such.
fn of_ssl() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policy/env.allow")).unwrap();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| name.starts_with("SSL_"))
        .map(str::to_owned)
        .collect()
}

/// Which difference says that this one is left out, where suEXEC passes it; none: it passes.
fn left_out(entry: &str, of_ssl: &[String]) -> Option<&'static str> {
    let Some((name, value)) = entry.split_once('=') else { return Some("variable-names") };
    // Of the certificates' parts some have small letters: msUPN, dNSName.
    let header = name.starts_with("HTTP_");
    let plain =
        |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric() && !(header && byte.is_ascii_lowercase());
    let is_odd = !name.bytes().all(plain) || name == "HTTP_";
    let published = |known: &String| match known.strip_suffix('*') {
        Some(beginning) => name.len() > beginning.len() && name.starts_with(beginning),
        None => name == known,
    };
    match name {
        "HTTP_PROXY" | "HTTP_REDIRECT_STATUS" => Some("steering-headers"),
        "HTTP_AUTHORIZATION" | "HTTP_PROXY_AUTHORIZATION" => Some("authorization"),
        _ if name.starts_with("SSL_") && !of_ssl.iter().any(published) => Some("variables-of-ssl"),
        _ if is_odd => Some("variable-names"),
        "TZ" => (!is_zone(value)).then_some("variable-values"),
        "REDIRECT_STATUS" => {
            let three = value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_digit());
            (!three).then_some("variable-values")
        }
        _ => value.starts_with("()").then_some("variable-values"),
    }
}

/// As tzset(3) has them, and no way out of the zone database.
fn is_zone(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-,.:<>".contains(&byte);
    !value.starts_with([':', '/']) && !value.contains("..") && value.bytes().all(plain)
}

/// What ours should pass of what suEXEC passes; none: it should refuse.
fn expected<'e>(passed: &[&'e Entry], of_ssl: &[String]) -> Option<Vec<&'e Entry>> {
    let (mut names, mut kept) = (BTreeSet::new(), Vec::new());
    for entry in passed.iter().filter(|entry| left_out(entry, of_ssl).is_none()) {
        let core = CORE.contains(&name_of(entry));
        let first = names.insert(name_of(entry));
        if core && (!first || entry.contains(['\n', '\r'])) {
            return None;
        }
        if first {
            kept.push(*entry);
        }
    }
    Some(kept)
}

/// What is wrong with this pair, if anything.
fn judge(request: &[Entry], stock: &Seen, ours: &Seen, of_ssl: &[String]) -> Option<String> {
    let names = |seen: &Seen| seen.facts.get(ORDER).cloned().unwrap_or_default();
    let (by_stock, by_ours) = (names(stock), names(ours));
    let passes =
        |entry: &&Entry| by_stock.iter().any(|name| name == name_of(entry)) && !SET.contains(&name_of(entry));
    let passed: Vec<&Entry> = request.iter().filter(passes).collect();
    let wanted = expected(&passed, of_ssl);
    let end = if wanted.is_some() { "ran 0" } else { "refused 87" };
    if stock.end != "ran 0" || ours.end != end {
        return Some(format!("{request:?}: suEXEC {}, ours {}, not {end}", stock.end, ours.end));
    }
    let wanted = wanted?;
    // Two stand in every request of these tests.
    let own =
        |name: &&String| request.iter().any(|entry| name_of(entry) == *name) && !SET.contains(&name.as_str());
    let found: Vec<&str> = by_ours.iter().filter(own).map(String::as_str).collect();
    let names: Vec<&str> = wanted.iter().map(|entry| name_of(entry)).collect();
    if found != names {
        return Some(format!("{request:?}: ours passes {found:?}, not {names:?}"));
    }
    let values = |seen: &Seen, name: &str| seen.facts.get(&format!("${name}")).cloned().unwrap_or_default();
    // suEXEC has all values of a name, in order; ours the one that counts.
    let other = wanted.into_iter().find(|entry| {
        let name = name_of(entry);
        let place =
            passed.iter().filter(|one| name_of(one) == name).position(|one| std::ptr::eq(*one, *entry));
        values(ours, name) != [values(stock, name)[place.unwrap()].clone()]
    })?;
    let name = name_of(other);
    Some(format!("{request:?}: {name}: suEXEC {:?}, ours {:?}", values(stock, name), values(ours, name)))
}

#[test]
fn random_environments_are_filtered_as_the_differences_say() {
    let wanted =
        std::env::var_os("CELLWALL_COMPLIANCE_RANDOM").and_then(|count| count.to_str()?.parse().ok());
    let count: usize = wanted.unwrap_or(150);
    let (requests, of_ssl) = (requests(count), of_ssl());
    assert!(of_ssl.len() > 15);
    let (stock, ours) = thread::scope(|scope| {
        let stock = scope.spawn(|| all(Launcher::Stock, &requests));
        let ours = scope.spawn(|| all(Launcher::Cellwall, &requests));
        (stock.join().unwrap(), ours.join().unwrap())
    });
    let pairs = requests.iter().zip(stock.iter().zip(&ours));
    let wrong: Vec<String> =
        pairs.filter_map(|(request, (stock, ours))| judge(request, stock, ours, &of_ssl)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
    let ran = ours.iter().filter(|seen| seen.end == "ran 0").count();
    assert!(ran > count / 2 && ran < count, "{ran} of {count} ran");
}

fn all(launcher: Launcher, requests: &[Vec<Entry>]) -> Vec<Seen> {
    let seen = Mutex::new(Vec::new());
    world(launcher, |world: &World| {
        world.probe(&world.alice, "a.cgi");
        for request in requests {
            let call = request.iter().fold(alice(world), |call, entry| call.env(entry.clone()));
            seen.lock().unwrap().push(look(world, call, None));
        }
    });
    seen.into_inner().unwrap()
}
