//! Real web servers before the relay, each with its own habits; the worker tells what it was asked.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cellwall::pool::settings::{Gate, Request, Settings};

use crate::stage::{Stage, answer, example};
use crate::web::{self, Host, Server, Start};

/// A web server before a broker whose worker echoes.
struct Behind {
    server: Server,
    stage: Stage,
    port: u16,
}

fn behind(name: &str, start: Start) -> Behind {
    behind_with(name, start, u64::MAX)
}

/// With a limit for bodies.
fn behind_with(name: &str, start: Start, body_max: u64) -> Behind {
    let place = std::env::temp_dir().join(format!("cellwall-server-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&place));
    fs::create_dir_all(place.join("htdocs")).unwrap();
    fs::write(place.join("htdocs/a.php"), "never read by the relay").unwrap();
    let root = place.join("htdocs").to_str().unwrap().to_owned();
    let settings = Settings {
        clients: vec![33],
        gate: Gate { docroots: vec![root.as_bytes()], suffixes: vec![b".php"], ..example().gate },
        request: Request { body_max, ..example().request },
        ..example()
    };
    let mut stage = Stage::new(&settings);
    stage.actor(1, |heard, stream| {
        if let Some(place) = heard.get("QUERY_STRING").strip_prefix("to=") {
            return answer(stream, format!("Location: {place}\r\n\r\n").as_bytes());
        }
        let told =
            ["SCRIPT_FILENAME", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_PROXY", "HTTP_X_TEST"];
        let told = told.map(|name| heard.get(name)).join("|");
        answer(stream, format!("Content-Type: text/plain\r\n\r\n{told}|{}\n", heard.body.len()).as_bytes());
    });
    let socket = stage.public(1);
    for (path, mode) in [(&stage.place, 0o755), (&socket, 0o666), (&place, 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = Host {
        site: "stage".to_owned(),
        name: "127.0.0.1".to_owned(),
        port,
        docroot: place.join("htdocs"),
        socket,
        ending: ".php",
    };
    Behind { server: Server::start(start, &place, &[host]), stage, port }
}

impl Behind {
    /// Status and body.
    fn curl(&self, path: &str, more: &[&str]) -> (String, String) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut command = Command::new("curl");
        command.args(["-s", "--path-as-is", "-w", "\n%{http_code}", "-H", "X-Test: 1", "-H", "Proxy: evil"]);
        let output = command.args(more).arg(url).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.to_owned(), body.trim_end().to_owned())
    }

    /// What every server must be understood as.
    fn is_understood(&self) {
        let stage = &self.stage;
        let file = self.server.place.join("htdocs/a.php");
        let file = file.to_str().unwrap();
        let expected = |info: &str, query: &str, body: usize| {
            ("200".to_owned(), format!("{file}|/a.php|{info}|{query}||1|{body}"))
        };
        assert_eq!(self.curl("/a.php", &[]), expected("", "", 0), "{}", stage.log());
        assert_eq!(self.curl("/a.php?x=/b.php", &[]), expected("", "x=/b.php", 0));
        assert_eq!(self.curl("/a.php/x/y?q", &[]), expected("/x/y", "q", 0), "{}", stage.log());
        let body = self.server.place.join("body");
        fs::write(&body, vec![b'x'; 3_000_000]).unwrap();
        let upload = format!("@{}", body.to_str().unwrap());
        let got = self.curl("/a.php", &["--data-binary", &upload, "-H", "Expect:"]);
        assert_eq!(got, expected("", "", 3_000_000));
        let (status, text) = self.curl("/ping.php/../ping.php", &[]);
        // As each server has it: made plain by itself, or by the gate, or refused there.
        assert!(matches!(status.as_str(), "200" | "403" | "404"), "{status} {text}");
    }

    /// What a hacked site can put into its own directories: links to a neighbour's file and directory, which the web server may
    /// read, and in the end one in the place of its docroot. Answers whether a link to its own file is followed, and which questions got the
    /// neighbour's secret.
    fn links(&self) -> (bool, Vec<&'static str>) {
        let (site, neighbour) = (1001, 1002);
        let (place, own) = (&self.server.place, self.server.place.join("htdocs"));
        let foreign = place.join("neighbour");
        fs::create_dir(&foreign).unwrap();
        for (path, text, owner) in
            [(own.join("own.txt"), "my own", site), (foreign.join("config.txt"), "the password", neighbour)]
        {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
            chown(path.parent().unwrap(), Some(owner), Some(owner)).unwrap();
        }
        let link = |to: &Path, from: &Path| {
            symlink(to, from).unwrap();
            lchown(from, Some(site), Some(site)).unwrap();
        };
        link(&foreign.join("config.txt"), &own.join("file.txt"));
        link(&foreign, &own.join("directory"));
        link(Path::new("own.txt"), &own.join("link.txt"));
        let got = |path: &&str| self.curl(path, &[]).1.contains("the password");
        assert_eq!(self.curl("/own.txt", &[]), ("200".to_owned(), "my own".to_owned()));
        let mut stolen: Vec<&str> = ["/file.txt", "/directory/config.txt"].into_iter().filter(got).collect();
        let follows_own = self.curl("/link.txt", &[]).1 == "my own";
        fs::rename(&own, place.join("away")).unwrap();
        link(&foreign, &own);
        stolen.extend(Some("/config.txt").filter(got));
        (follows_own, stolen)
    }

    /// What the shipped files say about connections: they are kept, for 40 requests one after another need few.
    fn keeps_connections(&self) {
        for _ in 0..40 {
            assert_eq!(self.curl("/a.php", &[]).0, "200", "{}", self.stage.log());
        }
        let metrics = self.stage.status("/metrics");
        let name = "cellwall_connections_total{site=\"stage\"} ";
        let made = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert!(made.parse::<u32>().unwrap() < 20, "{made} connections");
    }
}

#[test]
fn nginx_is_understood() {
    let behind = behind("nginx", web::nginx);
    behind.is_understood();
    behind.keeps_connections();
}

#[test]
fn nginx_that_keeps_no_connections_is_understood() {
    let behind = behind("nginx-new", web::nginx_anew);
    behind.is_understood();
    assert!(behind.stage.status("/table").contains("stage\tup\t"));
}

#[test]
fn apache_with_a_handler_is_understood() {
    let behind = behind("handler", web::apache_by_handler);
    behind.is_understood();
    behind.keeps_connections();
}

#[test]
fn apache_with_a_proxied_url_is_understood() {
    let behind = behind("match", web::apache_by_url);
    behind.is_understood();
    behind.keeps_connections();
}

#[test]
fn lighttpd_is_understood() {
    behind("lighttpd", web::lighttpd).is_understood();
}

#[test]
fn haproxy_is_understood() {
    let behind = behind("haproxy", web::haproxy);
    behind.is_understood();
    behind.keeps_connections();
}

#[test]
fn caddy_is_understood() {
    behind("caddy", web::caddy).is_understood();
}

#[test]
fn a_link_to_a_neighbours_file_is_not_served() {
    let all = web::ALL.into_iter().filter(|(name, _)| !matches!(*name, "HAProxy" | "Caddy"));
    let without_pool: (&str, Start) = ("Apache, suEXEC", web::apache_without_pool);
    for (name, start) in all.chain([without_pool]) {
        let behind = behind("links", start);
        assert_eq!(behind.links(), (name != "lighttpd", Vec::new()), "{name}: {}", behind.server.words());
    }
}

#[test]
fn what_a_site_writes_into_its_htaccess_reaches_no_pool() {
    let starts: [Start; 3] = [web::apache_by_handler, web::apache_by_url, web::apache_with_a_list];
    for (start, reads_some) in starts.into_iter().zip([false, false, true]) {
        let behind = behind("htaccess", start);
        let htdocs = behind.server.place.join("htdocs");
        fs::write(htdocs.join("own.txt"), "my own").unwrap();
        let socket = behind.stage.public(1);
        let write = |text: &str| fs::write(htdocs.join(".htaccess"), text).unwrap();
        write(&format!("SetHandler \"proxy:unix:{}|fcgi://bob\"\n", socket.display()));
        let (status, text) = behind.curl("/own.txt", &[]);
        let right = if reads_some { status == "500" } else { text == "my own" };
        assert!(right, "{status} {text}");
        write("FallbackResource /own.txt\n");
        let (status, text) = behind.curl("/not/there", &[]);
        assert!(if reads_some { text == "my own" } else { status == "404" }, "{status} {text}");
    }
}

/// What Apache permits it permits for a file; that one runs, and none that is called as a part of its name, or as its name once more
/// decoded.
#[test]
fn a_file_that_apache_closes_is_run_by_no_other_name() {
    let behind = behind("rules", web::apache_with_rules);
    let told = |url: &str| {
        let (status, text) = behind.curl(url, &[]);
        let file = text.split('|').next().unwrap_or_default().rsplit("/htdocs/").next().map(str::to_owned);
        (status == "200").then_some(file).flatten()
    };
    for (url, file) in [
        ("/a.php", "a.php"),
        ("/lib/a.php", "a.php"),
        ("/u/a", "a.php"),
        ("/v/a", "a.php"),
        ("/%2561.php", "%61.php"),
        ("/lib/%2561dmin.php", "%61dmin.php"),
        ("/v/%2561dmin", "%61dmin.php"),
    ] {
        assert_eq!(told(url).as_deref(), Some(file), "{url}: {}", behind.server.words());
    }
    let names =
        ["admin.php", "%61dmin.php", "admin.php%3fx.php", "admin.php/x.php", "./admin.php", "admin%252ephp"];
    let urls =
        ["", "/", "/lib", "/lib/", "/x/../lib"].map(|place| names.map(|name| format!("{place}/{name}")));
    let rewritten =
        ["/u/admin", "/u/admin.php%3f", "/u/%2561dmin", "/v/admin", "/v/admin.php%3fx", "/v/%61dmin"];
    for url in urls.as_flattened().iter().map(String::as_str).chain(rewritten) {
        assert_eq!(told(url), None, "{url}");
    }
}

/// Apache knows no file there, and so no rule of `<Files>` and `<Directory>`: the shipped file says so.
#[test]
fn before_a_proxied_url_only_rules_about_places_hold() {
    let behind = behind("places", web::apache_by_url_with_rules);
    let shipped = include_str!("../../packaging/apache/pool-proxypass.conf");
    assert!(shipped.contains("<Files> and <Directory> do not hold"));
    assert_eq!(behind.curl("/admin.php", &[]).0, "200", "{}", behind.server.words());
    for url in ["/closed.php", "/closed.php/x", "/%63losed.php", "//closed.php", "/./closed.php"] {
        assert_eq!(behind.curl(url, &[]).0, "403", "{url}");
    }
    for (url, file) in [("/closed.php%3fx.php", "closed.php?x.php"), ("/%2563losed.php", "%63losed.php")] {
        let (status, text) = behind.curl(url, &[]);
        assert!(status == "200" && text.contains(&format!("/htdocs/{file}|")), "{url}: {status} {text}");
    }
}

/// HAProxy stores no bodies; Apache those alone whose length is not told, and those not at all.
#[test]
fn a_body_without_end_does_not_fill_the_web_servers_disk() {
    for (name, start) in web::ALL.into_iter().filter(|(name, _)| *name != "HAProxy") {
        let behind = behind("endless", start);
        let body = behind.server.place.join("body");
        fs::File::create(&body).unwrap().set_len(65 << 20).unwrap();
        let upload = format!("@{}", body.to_str().unwrap());
        let got = |length: &str| {
            behind.curl("/a.php", &["--data-binary", &upload, "-H", "Expect:", "-H", length]).0
        };
        let expected = if name.starts_with("Apache") { ["403", "200"] } else { ["413", "413"] };
        let got = ["Transfer-Encoding: chunked", "X-Length: told"].map(got);
        assert_eq!(got, expected, "{name}: {}", behind.server.words());
    }
}

/// RFC 3875, 6.2.3. Its 6.2.2 has a server go to a path of its own by itself, which a visitor does as well.
#[test]
fn a_redirection_without_a_status_is_one_behind_every_server() {
    let mut wrong = Vec::new();
    for (name, start) in web::ALL {
        let behind = behind("redirections", start);
        for place in ["http://elsewhere.test/b", "/b.php"] {
            let status = behind.curl(&format!("/a.php?to={place}"), &[]).0;
            if status != "302" {
                wrong.push(format!("{name}: {place}: {status}"));
            }
        }
        assert_eq!(behind.curl("/a.php", &[]).0, "200", "{name}");
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Apache leaves the rest of a body unsent when its answer is there, and sends the next visitor's request on the same connection.
#[test]
fn an_answer_before_the_body_was_read_costs_the_next_visitor_nothing() {
    for (name, start) in web::ALL {
        let behind = behind_with("early", start, 1000);
        let body = behind.server.place.join("body");
        fs::write(&body, vec![b'x'; 300_000]).unwrap();
        let upload = format!("@{}", body.to_str().unwrap());
        for _ in 0..8 {
            // A server that is still sending when the answer comes may call that its own failure.
            let refused = behind.curl("/a.php", &["--data-binary", &upload, "-H", "Expect:"]).0;
            assert!(matches!(refused.as_str(), "413" | "502"), "{name}: {refused}");
            for _ in 0..3 {
                assert_eq!(behind.curl("/a.php", &[]).0, "200", "{name}: {}", behind.server.words());
            }
        }
    }
}

/// What docs/web-servers.md and Caddy's own file warn of. HAProxy serves no files.
#[test]
fn caddy_follows_links_as_its_file_warns() {
    assert_eq!(
        behind("links-caddy", web::caddy).links().1,
        ["/file.txt", "/directory/config.txt", "/config.txt"]
    );
    assert!(include_str!("../../packaging/caddy/pool.caddy").contains("Caddy follows every link"));
}

#[test]
fn the_tool_cgi_fcgi_is_understood() {
    let mut stage = Stage::new(&Settings { clients: Vec::new(), ..example() });
    stage
        .actor(1, |heard, stream| answer(stream, format!("\r\n{}", heard.get("SCRIPT_FILENAME")).as_bytes()));
    let output = Command::new("/usr/bin/cgi-fcgi")
        .args(["-bind", "-connect", stage.public(1).to_str().unwrap()])
        .env_clear()
        .env("SCRIPT_FILENAME", "/srv/stage/a.php")
        .env("REQUEST_METHOD", "GET")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\r\n/srv/stage/a.php", "{}", stage.log());
}

#[test]
fn pool_08_who_is_no_client_is_turned_away() {
    let stage = Stage::new(&Settings { clients: vec![33], ..example() });
    let socket = stage.public(1);
    fs::set_permissions(&stage.place, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let tool = |uid: u32| {
        let mut command = Command::new("/usr/bin/cgi-fcgi");
        command.args(["-bind", "-connect", socket.to_str().unwrap()]).env_clear().uid(uid).gid(uid);
        command.env("SCRIPT_NAME", "/ping").env("REQUEST_METHOD", "GET").stdin(Stdio::null());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(tool(33).ends_with("pong"));
    assert!(!tool(1234).contains("pong"));
    stage.wait_for_log("code=B10 status=403 site=stage");
}

#[test]
fn apache_serves_the_next_visitors_after_one_with_headers_that_are_too_large() {
    let behind = behind("large-headers", web::apache_by_handler);
    let headers: Vec<String> = (0..10).map(|number| format!("X-A{number}: {}", "x".repeat(8000))).collect();
    let words: Vec<&str> = headers.iter().flat_map(|header| ["-H", header.as_str()]).collect();
    for round in 0..5 {
        assert_eq!(behind.curl("/a.php", &[]).0, "200", "{round}");
        assert_eq!(behind.curl("/a.php", &words).0, "431", "{round}");
        for _ in 0..5 {
            assert_eq!(behind.curl("/a.php", &[]).0, "200", "{round}: {}", behind.stage.log());
        }
    }
}
