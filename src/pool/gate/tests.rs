//! The gate, by what five web servers send and what an attacker would.

use std::rc::Rc;

use super::*;
use crate::pool::fastcgi::record::{HEADER, Header};

fn gate() -> Gate {
    let mut pass: Vec<Box<[u8]>> = [
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "DOCUMENT_ROOT",
        "PATH_INFO",
        "PATH_TRANSLATED",
        "QUERY_STRING",
        "REDIRECT_URL",
        "REQUEST_METHOD",
        "REQUEST_URI",
        "SCRIPT_FILENAME",
        "SCRIPT_NAME",
    ]
    .map(|name| name.as_bytes().into())
    .to_vec();
    pass.sort();
    Gate {
        names: Rc::new(Names {
            pass,
            prefixes: vec![b"HTTP_"[..].into()],
            authorization: false,
            entries_max: 1000,
            bytes_max: 65_536,
        }),
        docroots: vec![b"/srv/shop/htdocs".to_vec(), b"/srv/shop/cgi-bin".to_vec()],
        jail: Vec::new(),
        endings: vec![b".php".to_vec()],
        php: false,
        programs: Vec::new(),
        body_max: 1000,
        memory: Memory::default(),
    }
}

fn raw(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (name, value) in pairs {
        crate::pool::fastcgi::pairs::put(&mut raw, name.as_bytes(), value.as_bytes());
    }
    raw
}

/// What the program would get, in order, or the status and code of the refusal.
fn judged(gate: &Gate, pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, (u16, &'static str)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let passed = gate.judge(&raw(pairs), Form::Environment).map_err(|no| (no.http, no.refusal.card.code))?;
    let entries = passed.bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let pairs =
        entries.map(|entry| text(entry).split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap());
    Ok(pairs.collect())
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = pairs.iter().filter(|(known, _)| known == name);
    let first = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} stands twice");
    first
}

/// File, URL and the path behind it, as the program sees them.
fn script(gate: &Gate, pairs: &[(&str, &str)]) -> Result<(String, String, String), (u16, &'static str)> {
    let pairs = judged(gate, pairs)?;
    let get = |name| value(&pairs, name).unwrap_or_default().to_owned();
    Ok((get("SCRIPT_FILENAME"), get("SCRIPT_NAME"), get("PATH_INFO")))
}

/// A web server's way, SCRIPT_FILENAME, SCRIPT_NAME, PATH_INFO, and what stands behind `/a.php` afterwards.
const WAYS: [[&str; 5]; 10] = [
    ["nginx", "/srv/shop/htdocs/a.php", "/a.php", "", ""],
    ["nginx, root with a slash", "/srv/shop/htdocs//a.php", "/a.php", "", ""],
    ["nginx, Caddy, HAProxy, split", "/srv/shop/htdocs/a.php", "/a.php", "/x/y", "/x/y"],
    ["nginx, not split", "/srv/shop/htdocs/a.php/x/y", "/a.php/x/y", "", "/x/y"],
    ["SetHandler", "proxy:fcgi://localhost//srv/shop/htdocs/a.php", "/a.php", "/x/y", "/x/y"],
    ["ProxyPassMatch", "proxy:fcgi://localhost:9000/srv/shop/htdocs/a.php/x/y", "/a.php/x/y", "", "/x/y"],
    ["ProxyPassMatch, query", "proxy:fcgi://localhost/srv/shop/htdocs/a.php?x=/y.php", "/a.php", "", ""],
    ["Apache, balancer", "proxy:balancer://shop/srv/shop/htdocs/a.php", "/a.php", "", ""],
    ["Apache, socket", "proxy:unix:/run/x.sock|fcgi://localhost/srv/shop/htdocs/a.php", "/a.php", "", ""],
    ["fcgiwrap's rule", "", "/a.php", "", ""],
];

#[test]
fn each_web_server_names_its_script_in_its_own_way() {
    for [way, file, name, info, behind] in WAYS {
        let said = [
            ("SCRIPT_FILENAME", file),
            ("SCRIPT_NAME", name),
            ("PATH_INFO", info),
            ("DOCUMENT_ROOT", "/srv/shop/htdocs"),
            ("CONTENT_LENGTH", if way.contains("Caddy") { "-1" } else { "" }),
        ];
        let expected = ["/srv/shop/htdocs/a.php", "/a.php", behind].map(str::to_owned);
        let [file, name, info] = expected;
        assert_eq!(script(&gate(), &said), Ok((file, name, info)), "{way}");
    }
}

#[test]
fn php_is_told_the_whole_url_and_of_its_parts_by_other_names() {
    let gate = Gate { php: true, ..gate() };
    let said = |info| {
        let file =
            [("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php"), ("SCRIPT_NAME", "/a.php"), ("PATH_INFO", info)];
        let names = ["SCRIPT.NAME", "PATH.INFO", "SCRIPT_NAME", "PATH_INFO"];
        let told = judged(&gate, &file).unwrap();
        // In this order: PHP takes the first one of those that are one name to it.
        told.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect::<Vec<_>>()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(said(""), [pair("SCRIPT_NAME", "/a.php")]);
    assert_eq!(
        said("//other.test/x"),
        [
            pair("SCRIPT.NAME", "/a.php"),
            pair("PATH.INFO", "//other.test/x"),
            pair("SCRIPT_NAME", "/a.php//other.test/x")
        ]
    );
}

#[test]
fn what_stands_behind_the_sites_one_program_is_for_it() {
    let gate = Gate { endings: Vec::new(), programs: vec![b"/srv/shop/htdocs/app.fcgi".to_vec()], ..gate() };
    let [file, name] = ["/srv/shop/htdocs/app.fcgi", "/app.fcgi"].map(str::to_owned);
    for (way, said_file, said_name, said_info, info) in [
        ("nginx", "/srv/shop/htdocs/app.fcgi", "/app.fcgi", "", ""),
        ("nginx, not split", "/srv/shop/htdocs/app.fcgi/x/y", "/app.fcgi/x/y", "", "/x/y"),
        ("Caddy", "/srv/shop/htdocs/app.fcgi", "/app.fcgi", "/x/y", "/x/y"),
        ("ProxyPassMatch", "proxy:fcgi://a/srv/shop/htdocs/app.fcgi/x/y", "/app.fcgi/x/y", "", "/x/y"),
    ] {
        let said = [("SCRIPT_FILENAME", said_file), ("SCRIPT_NAME", said_name), ("PATH_INFO", said_info)];
        assert_eq!(script(&gate, &said), Ok((file.clone(), name.clone(), info.to_owned())), "{way}");
    }
    // A program that answers all URLs of its site has none in front of them.
    for other in ["/srv/shop/htdocs/wiki/page", "/srv/shop/htdocs/app.fcgi2/x"] {
        let name = other.strip_prefix("/srv/shop/htdocs").unwrap();
        let said = [("SCRIPT_FILENAME", other), ("SCRIPT_NAME", name)];
        assert_eq!(script(&gate, &said), Ok((other.to_owned(), name.to_owned(), String::new())));
    }
}

/// As nginx passes `location /` on with `fastcgi_params` alone, with a file's name as well, and as Plack's and Django's own manuals
/// have it.
#[test]
fn the_sites_one_program_is_asked_for_every_url() {
    let app = "/srv/shop/htdocs/app.fcgi";
    let gate = Gate { endings: Vec::new(), programs: vec![app.as_bytes().to_vec()], ..gate() };
    let told = |pairs: &[(&str, &str)]| {
        let passed =
            gate.judge(&raw(pairs), Form::Records(Role::Responder, true)).map_err(|no| no.refusal.card.code);
        passed.map(|passed| String::from_utf8(passed.script).unwrap())
    };
    let root = ("DOCUMENT_ROOT", "/srv/shop/htdocs");
    for url in ["/", "/news/"] {
        assert_eq!(told(&[root, ("SCRIPT_NAME", url)]).as_deref(), Ok(app), "{url}");
        let file = format!("/srv/shop/htdocs{url}");
        assert_eq!(
            told(&[root, ("SCRIPT_NAME", url), ("SCRIPT_FILENAME", &file)]).as_deref(),
            Ok(app),
            "{url}"
        );
        assert_eq!(told(&[root, ("SCRIPT_NAME", ""), ("PATH_INFO", url)]).as_deref(), Ok(app), "{url}");
        assert_eq!(told(&[("PATH_INFO", url)]).as_deref(), Ok(app), "{url}");
    }
    assert_eq!(told(&[("PATH_INFO", "/../x")]), Err("G04"));
    assert_eq!(told(&[("SCRIPT_FILENAME", "/srv/other/htdocs/x")]), Err("G05"));
    // Of programs that a site names beside its own each is asked by its path alone.
    assert_eq!(script(&gate, &[root, ("SCRIPT_NAME", "/")]), Err((404, "G03")));
}

#[test]
fn a_slash_alone_may_stand_behind_a_cgi_program() {
    let any = Gate { endings: Vec::new(), ..gate() };
    let asked = |url: &str| {
        let file = format!("/srv/shop/htdocs{url}");
        script(&any, &[("SCRIPT_FILENAME", file.as_str()), ("SCRIPT_NAME", url)])
    };
    let told = |name: &str| Ok((format!("/srv/shop/htdocs{name}"), name.to_owned(), "/".to_owned()));
    assert_eq!(asked("/a.cgi/"), told("/a.cgi"));
    // Whether `x` is a directory or text for a.cgi is seen in the cell.
    assert_eq!(asked("/a.cgi/x/"), told("/a.cgi/x"));
    assert_eq!(asked("/"), Err((404, "G03")));
}

/// A signed link, a token: longer than a file's name can be, and no file's name.
#[test]
fn what_stands_behind_a_script_may_be_long() {
    let long = format!("/token/{}", "a".repeat(5000));
    let unsplit = format!("/srv/shop/htdocs/a.php{long}");
    let said = [("SCRIPT_FILENAME", unsplit.as_str()), ("SCRIPT_NAME", "/a.php")];
    assert_eq!(script(&gate(), &said), Ok(("/srv/shop/htdocs/a.php".to_owned(), "/a.php".to_owned(), long)));
}

#[test]
fn a_name_counts_where_the_web_server_says_how_it_was_proved() {
    let names: Vec<Box<[u8]>> = [&b"AUTH_TYPE"[..], b"REMOTE_USER", b"SCRIPT_FILENAME"].map(Box::from).into();
    let gate = Gate { names: Rc::new(Names { pass: names, ..(*gate().names).clone() }), ..gate() };
    let user = |more: &[(&str, &str)]| {
        let mut pairs = vec![("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php"), ("REMOTE_USER", "hooke")];
        pairs.extend(more);
        value(&judged(&gate, &pairs).unwrap(), "REMOTE_USER").map(str::to_owned)
    };
    // nginx, for a visitor who typed a name: nobody has looked at his password.
    assert_eq!(user(&[]), None);
    assert_eq!(user(&[("AUTH_TYPE", "")]), None);
    assert_eq!(user(&[("AUTH_TYPE", "Basic")]).as_deref(), Some("hooke"));
}

#[test]
fn a_program_that_is_named_is_asked_wherever_it_lies_and_nothing_beside_it() {
    let gate = Gate {
        endings: Vec::new(),
        programs: vec![b"/usr/lib/git-core/git-http-backend".to_vec()],
        ..gate()
    };
    let file = "/usr/lib/git-core/git-http-backend";
    let asked = |said_file: &str, said_info: &str| {
        script(&gate, &[("SCRIPT_FILENAME", said_file), ("SCRIPT_NAME", "/git"), ("PATH_INFO", said_info)])
    };
    let told = |info: &str| Ok((file.to_owned(), "/git".to_owned(), info.to_owned()));
    assert_eq!(asked(file, ""), told(""));
    assert_eq!(asked(file, "/a.git/info/refs"), told("/a.git/info/refs"));
    assert_eq!(asked(&format!("{file}/a.git/HEAD"), ""), told("/a.git/HEAD"));
    for other in [
        "/usr/lib/git-core/git-shell",
        "/usr/lib/git-core/git-http-backend2",
        "/usr/lib/git-core",
        "/usr/bin/id",
    ] {
        assert_eq!(asked(other, ""), Err((403, "G05")), "{other}");
    }
}

#[test]
fn a_url_is_decoded_and_a_file_name_is_not() {
    let decoded = [
        ("SCRIPT_FILENAME", "proxy:fcgi://localhost/srv/shop/htdocs/a%20b.php"),
        ("SCRIPT_NAME", "/a b.php"),
    ];
    assert_eq!(script(&gate(), &decoded).unwrap().0, "/srv/shop/htdocs/a b.php");
    let raw = [
        ("SCRIPT_FILENAME", "proxy:fcgi://localhost/srv/shop/htdocs/a%20b.php"),
        ("SCRIPT_NAME", "/a%20b.php"),
    ];
    assert_eq!(script(&gate(), &raw).unwrap().0, "/srv/shop/htdocs/a%20b.php");
    let both = [
        ("SCRIPT_FILENAME", "proxy:fcgi://localhost/srv/shop/htdocs/a%20b/c%20d.php"),
        ("SCRIPT_NAME", "/a b/c%20d.php"),
    ];
    assert_eq!(script(&gate(), &both), Err((403, "G04")), "the one part is encoded, and the other is not");
    for hidden in ["%2e%2e/%2e%2e/etc/a.php", "..%2f..%2fx.php", "%00.php", "a%0a.php", "%zz.php"] {
        let name = format!("proxy:fcgi://localhost/srv/shop/htdocs/{hidden}");
        let pairs = [("SCRIPT_FILENAME", name.as_str()), ("SCRIPT_NAME", "/x.php")];
        assert_eq!(script(&gate(), &pairs), Err((403, "G04")), "{hidden}");
    }
}

#[test]
fn a_docroot_may_have_a_percent_sign() {
    let gate = Gate { docroots: vec![b"/srv/50%20off".to_vec()], ..gate() };
    for (file, name, expected) in [
        ("/srv/50%20off/a.php", "/a.php", "/srv/50%20off/a.php"),
        ("/srv/50%20off/a%20b.php", "/a%20b.php", "/srv/50%20off/a%20b.php"),
    ] {
        let file = format!("proxy:fcgi://localhost{file}");
        let told = script(&gate, &[("SCRIPT_FILENAME", &file), ("SCRIPT_NAME", name)]);
        assert_eq!(told.unwrap().0, expected, "{file}");
    }
}

/// Of Apache's own rules (`<Files>`) none is about the file that would run: `<Files "admin.php">` is not asked about `admin.php?x.php`
/// and `%61dmin.php`.
#[test]
fn the_file_that_runs_is_the_one_that_apache_has_looked_at() {
    let asked = |file: &str, name: &str| {
        let file = format!("proxy:fcgi://shop/srv/shop/htdocs{file}");
        script(&gate(), &[("SCRIPT_FILENAME", &file), ("SCRIPT_NAME", name)]).map(|told| told.0)
    };
    // As Apache before 2.4.60 asks for /admin.php%3fx.php.
    assert_eq!(asked("/admin.php?x.php", "/admin.php?x.php"), Err((403, "G04")));
    assert_eq!(asked("/admin.php?x.php", "/alias/admin.php?x.php"), Err((403, "G04")));
    // Behind an Alias, as every Apache asks for /lib/%2561dmin.php and /~shop/%2561dmin.php.
    for alias in ["/lib", "/~shop", "", "/a/b/c"] {
        let url = format!("{alias}/%61dmin.php");
        assert_eq!(asked("/%61dmin.php", &url), Ok("/srv/shop/htdocs/%61dmin.php".to_owned()), "{url}");
        let url = format!("{alias}/my page.php");
        assert_eq!(asked("/my%20page.php", &url), Ok("/srv/shop/htdocs/my page.php".to_owned()), "{url}");
    }
    // A rule that changes the name: nothing tells what its `%` means.
    assert_eq!(asked("/%61dmin.php", "/lib/%61dmin"), Err((403, "G04")));
    assert_eq!(asked("/%61dmin/index.php", "/"), Err((403, "G04")));
    assert_eq!(asked("/100%/a.php", "/x/a.php"), Ok("/srv/shop/htdocs/100%/a.php".to_owned()));
}

#[test]
fn any_of_the_sites_endings_will_do_and_a_body_may_be_as_long_as_is_said() {
    let gate = Gate { endings: vec![b".php".to_vec(), b".phtml".to_vec()], ..gate() };
    for name in ["a.php", "a.phtml"] {
        let file = format!("/srv/shop/htdocs/{name}");
        for length in [("", false), ("0", false), ("1", true), ("1000", true)] {
            let pairs = [("CONTENT_LENGTH", length.0), ("SCRIPT_FILENAME", file.as_str())];
            let passed = gate.judge(&raw(&pairs), Form::Environment).unwrap();
            assert_eq!(
                (passed.script, passed.announces_body),
                (file.clone().into_bytes(), length.1),
                "{length:?}"
            );
        }
    }
    assert!(gate.measure(1000).is_ok());
    assert_eq!(gate.measure(1001).unwrap_err().http, 413);
}

#[test]
fn the_url_of_a_request_is_that_of_its_script() {
    let pairs = [("REQUEST_URI", "/x?y"), ("SCRIPT_NAME", "/ping"), ("PATH_INFO", "/z")];
    assert_eq!(url(&raw(&pairs)), Some(b"/ping".to_vec()));
    assert_eq!(url(&raw(&pairs[..1])), None);
}

#[test]
fn pool_06_a_neighbours_script_is_refused_as_text() {
    for (name, code) in [
        ("/srv/other/htdocs/a.php", "G05"),
        ("/srv/shop/htdocs-evil/a.php", "G05"),
        ("/srv/shop/a.php", "G05"),
        ("/etc/passwd/a.php", "G05"),
        ("a.php", "G04"),
        ("/srv/shop/htdocs/../../other/a.php", "G04"),
        ("/srv/shop/htdocs/..", "G04"),
        ("/srv/shop/htdocs/a\n.php", "G04"),
        ("/srv/shop/htdocs", "G06"),
        ("/srv/shop/htdocs/a.jpg", "G06"),
        ("/srv/shop/htdocs/.php", "G06"),
        ("http://evil/a.php", "G04"),
        ("proxy:http://evil/a.php", "G04"),
        ("phar:///srv/shop/htdocs/a.php", "G04"),
    ] {
        assert_eq!(script(&gate(), &[("SCRIPT_FILENAME", name)]), Err((403, code)), "{name}");
    }
    assert_eq!(script(&gate(), &[("REQUEST_URI", "/")]), Err((404, "G03")));
    let any = Gate { endings: Vec::new(), ..gate() };
    assert_eq!(script(&any, &[("SCRIPT_FILENAME", "/srv/shop/htdocs/")]), Err((404, "G03")));
}

#[test]
fn the_path_behind_a_script_never_names_another_file() {
    let refused = |pairs: &[(&str, &str)]| script(&gate(), pairs).unwrap_err();
    // The picture with a script's name behind it: the file would be the picture.
    let uploaded = [("SCRIPT_FILENAME", "/srv/shop/htdocs/up/evil.jpg"), ("PATH_INFO", "/x.php")];
    assert_eq!(refused(&uploaded), (403, "G06"));
    // Not split: the first file with the ending counts, and what the picture is stays a directory of that path.
    let unsplit = [("SCRIPT_FILENAME", "/srv/shop/htdocs/up/evil.jpg/x.php/y.php"), ("SCRIPT_NAME", "/z")];
    let (file, _, info) = script(&gate(), &unsplit).unwrap();
    assert_eq!((file.as_str(), info.as_str()), ("/srv/shop/htdocs/up/evil.jpg/x.php", "/y.php"));
    for info in ["/../x", "x", "/a\r\nb"] {
        let pairs = [("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php"), ("PATH_INFO", info)];
        assert_eq!(refused(&pairs), (403, "G04"), "{info:?}");
    }
    // PATH_TRANSLATED with REDIRECT_URL is another file to php-cgi.
    let pairs = judged(
        &gate(),
        &[
            ("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php"),
            ("SCRIPT_NAME", "/a.php"),
            ("PATH_INFO", "/b"),
            ("PATH_TRANSLATED", "/srv/shop/htdocs/b"),
            ("REDIRECT_URL", "/a.php/b"),
        ],
    )
    .unwrap();
    assert_eq!((value(&pairs, "PATH_TRANSLATED"), value(&pairs, "REDIRECT_URL")), (None, None));
}

#[test]
fn pool_07_parameters_that_configure_or_load_never_pass() {
    let wide = Names {
        pass: ["HTTP_PROXY", "LD_PRELOAD", "PATH", "PHP_ADMIN_VALUE", "PHP_VALUE", "SCRIPT_FILENAME"]
            .map(|name| name.as_bytes().into())
            .to_vec(),
        prefixes: vec![b"PHP"[..].into(), b"HTTP_"[..].into(), b"LD_"[..].into()],
        ..(*gate().names).clone()
    };
    let gate = Gate { names: Rc::new(wide), ..gate() };
    let pairs = judged(
        &gate,
        &[
            ("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php"),
            ("PHP_VALUE", "auto_prepend_file=/tmp/x"),
            ("PHP_ADMIN_VALUE", "allow_url_include=1"),
            ("LD_PRELOAD", "/tmp/x.so"),
            ("PATH", "/tmp"),
            ("HTTP_PROXY", "evil:1"),
            ("HTTP_X", "() { :;}; x"),
            ("HTTP_REDIRECT_STATUS", "1"),
            ("HTTP_lower", "1"),
            ("HTTP_AUTHORIZATION", "Basic x"),
            ("HTTP_A-B", "1"),
            ("HTTP_GOOD", "1"),
        ],
    )
    .unwrap();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["SCRIPT_FILENAME", "HTTP_GOOD"]);
}

#[test]
fn doubles_floods_and_nonsense_are_refused_not_mended() {
    let file = ("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php");
    for (pairs, expected) in [
        (vec![file, file], (400, "G01")),
        (vec![file, ("QUERY_STRING", "a"), ("QUERY_STRING", "b")], (400, "E01")),
        (vec![file, ("PATH_INFO", "/a"), ("PATH_INFO", "/b")], (400, "G01")),
        (vec![file, ("CONTENT_LENGTH", "1"), ("CONTENT_LENGTH", "1")], (400, "G01")),
        (vec![file, ("CONTENT_LENGTH", "+1")], (400, "G01")),
        (vec![file, ("CONTENT_LENGTH", "99999999999999999999")], (400, "G01")),
        (vec![file, ("CONTENT_LENGTH", "1001")], (413, "G07")),
        (vec![file, ("QUERY_STRING", "a\0b")], (400, "G01")),
        (vec![file, ("QUERY_STRING", "a\nb")], (400, "E03")),
        (vec![file, ("SCRIPT_NAME", "/a\nb")], (400, "E03")),
        (vec![("HTTP_A", "b"); 1001], (431, "G02")),
    ] {
        assert_eq!(judged(&gate(), &pairs), Err(expected), "{pairs:.3?}");
    }
    let torn = raw(&[file]);
    let torn = torn.split_last().unwrap().1;
    assert_eq!(gate().judge(torn, Form::Environment).unwrap_err().refusal.card.code, "G01");
    let twice = judged(&gate(), &[file, ("HTTP_A", "1"), ("HTTP_A", "2"), ("CONTENT_LENGTH", "")]).unwrap();
    assert_eq!(value(&twice, "HTTP_A"), Some("1"));
    assert_eq!(value(&twice, "CONTENT_LENGTH"), None);
}

#[test]
fn as_many_parameters_and_bytes_pass_as_may_and_not_one_more() {
    let file = ("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php");
    let names = |entries_max, bytes_max| Gate {
        names: Rc::new(Names { entries_max, bytes_max, ..(*gate().names).clone() }),
        ..gate()
    };
    let pairs = [file, ("HTTP_A", "1"), ("QUERY_STRING", "22")];
    let bytes = raw(&pairs).len() - 2 * pairs.len();
    assert!(judged(&names(3, bytes), &pairs).is_ok());
    assert_eq!(judged(&names(2, bytes), &pairs), Err((431, "G02")));
    assert_eq!(judged(&names(3, bytes - 1), &pairs), Err((431, "G02")));
    // Those that do not pass count as well.
    let more = [&pairs[..], &[("LD_PRELOAD", "x")]].concat();
    assert_eq!(judged(&names(3, 1000), &more), Err((431, "G02")));
    assert_eq!(judged(&names(4, bytes + 10), &more), Err((431, "G02")));
    assert!(judged(&names(4, bytes + 11), &more).is_ok());
}

#[test]
fn paths_are_called_as_inside_the_jail_and_lie_beneath_the_docroots() {
    let gate = Gate { jail: b"/srv/shop".to_vec(), ..gate() };
    let file = ("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php");
    let root = |root| {
        let pairs = judged(&gate, &[file, ("DOCUMENT_ROOT", root)]).unwrap();
        assert_eq!(value(&pairs, "SCRIPT_FILENAME"), Some("/htdocs/a.php"));
        value(&pairs, "DOCUMENT_ROOT").unwrap().to_owned()
    };
    assert_eq!(root("/srv/shop/htdocs"), "/htdocs");
    assert_eq!(root("/srv/shop/htdocs/"), "/htdocs");
    assert_eq!(root("/srv/shop/htdocs/sub"), "/htdocs/sub");
    assert_eq!(root("/srv/other"), "/htdocs", "outside: the docroot that holds the script");
    assert_eq!(root("/srv/shop/htdocs/../../other"), "/htdocs");
}

#[test]
fn workers_get_whole_records_with_the_request_in_front() {
    let pairs = [("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php"), ("HTTP_COOKIE", "a=b"), ("X", "not listed")];
    let passed = gate().judge(&raw(&pairs), Form::Records(Role::Responder, true)).unwrap();
    assert_eq!((passed.script.as_slice(), passed.dropped), (&b"/srv/shop/htdocs/a.php"[..], 2));
    let mut rest = passed.bytes.as_slice();
    let mut kinds = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<HEADER>() {
        let header = Header::decode(*head).unwrap();
        kinds.push((header.kind, header.id, header.content > 0));
        rest = after.get(header.content.into()..).unwrap();
    }
    assert_eq!(kinds, [(1, 1, true), (4, 1, true), (4, 1, false)]);
}

#[test]
fn a_parameter_beyond_a_record_is_refused() {
    let wide = Names { bytes_max: 1 << 20, ..(*gate().names).clone() };
    let gate = Gate { names: Rc::new(wide), ..gate() };
    let long = "x".repeat(65_535);
    let pairs = raw(&[("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php"), ("HTTP_COOKIE", &long)]);
    let no = gate.judge(&pairs, Form::Records(Role::Responder, true)).unwrap_err();
    assert_eq!((no.http, no.refusal.card.code), (431, "G08"));
}

/// File and what is behind it.
fn found(gate: &Gate, file: &str, info: &str) -> Result<(String, String), (u16, &'static str)> {
    script(gate, &[("SCRIPT_FILENAME", file), ("PATH_INFO", info)]).map(|(file, _, info)| (file, info))
}

#[test]
fn a_directory_is_no_script_and_neither_is_nothing() {
    let any = Gate { endings: Vec::new(), ..gate() };
    assert_eq!(found(&any, "/srv/shop/htdocs", ""), Err((403, "G05")), "a docroot");
    assert_eq!(found(&any, "/", ""), Err((404, "G03")));
    // A docroot that has everything beneath it, and a path that is all info.
    let all = Gate { docroots: vec![b"/".to_vec()], ..any };
    assert_eq!(found(&all, "/x", "/x"), Ok(("/x".to_owned(), "/x".to_owned())));
    // Who names no file asks the site's one program only where it has no other files.
    let both = Gate { programs: vec![b"/srv/shop/htdocs/app.fcgi".to_vec()], ..gate() };
    let no = both.judge(&raw(&[("PATH_INFO", "/x")]), Form::Records(Role::Responder, true)).unwrap_err();
    assert_eq!((no.http, no.refusal.card.code), (404, "G03"));
}

#[test]
fn the_web_servers_own_split_is_believed_where_it_leaves_a_script() {
    let told = |file: &str, info: &str| Ok((format!("/srv/shop/htdocs/{file}"), info.to_owned()));
    assert_eq!(found(&gate(), "/srv/shop/htdocs/x/a.php", "/a.php"), told("x/a.php", "/a.php"));
    assert_eq!(found(&gate(), "proxy:fcgi://localhost/srv/shop/htdocs/a|b.php", ""), told("a|b.php", ""));
}

#[test]
fn of_two_docroots_above_a_script_the_nearer_one_is_its_own() {
    let gate = Gate {
        docroots: ["/srv/shop", "/srv/shop/htdocs"].map(|root| root.as_bytes().to_vec()).into(),
        ..gate()
    };
    for (file, root) in [("/srv/shop/htdocs/a.php", "/srv/shop/htdocs"), ("/srv/shop/a.php", "/srv/shop")] {
        let pairs = judged(&gate, &[("SCRIPT_FILENAME", file)]).unwrap();
        assert_eq!(value(&pairs, "DOCUMENT_ROOT"), Some(root), "{file}");
    }
}

/// Variables of the web server's that hold a path change with the script's, or are left out.
#[test]
fn other_paths_are_called_as_inside_the_jail_or_do_not_pass() {
    let mut names = (*gate().names).clone();
    names.pass.insert(0, b"CONTEXT_DOCUMENT_ROOT"[..].into());
    names.pass.sort();
    let gate = Gate { names: Rc::new(names), jail: b"/srv/shop".to_vec(), ..gate() };
    for (path, inside) in [
        ("/srv/shop/htdocs/x", Some("/htdocs/x")),
        ("/srv/shop/htdocs/", Some("/htdocs")),
        ("/srv/shop/htdocs//x", None),
        ("/srv/shop/htdocs/./x", None),
        ("/srv/shop/htdocs/../../x", None),
        ("/srv/other", None),
    ] {
        let file = ("SCRIPT_FILENAME", "/srv/shop/htdocs/a.php");
        let pairs = judged(&gate, &[file, ("CONTEXT_DOCUMENT_ROOT", path)]).unwrap();
        assert_eq!(value(&pairs, "CONTEXT_DOCUMENT_ROOT"), inside, "{path}");
    }
}
