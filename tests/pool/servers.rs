//! Real web servers before the relay, each with its own habits; the worker tells what it was asked.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cellwall::pool::settings::{Gate, Settings};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::stage::{Stage, answer, example, until};

/// A web server in a process group of its own.
struct Server {
    child: Child,
    port: u16,
    place: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGKILL);
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.place));
    }
}

/// A docroot, a broker with a worker that echoes, and a server by `start`.
fn behind(name: &str, start: impl Fn(&Path, &Path, u16) -> Command) -> (Stage, Server) {
    let place = std::env::temp_dir().join(format!("cellwall-server-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&place));
    fs::create_dir_all(place.join("htdocs")).unwrap();
    fs::write(place.join("htdocs/a.php"), "never read by the relay").unwrap();
    let root = place.join("htdocs").to_str().unwrap().to_owned();
    let settings = Settings {
        clients: vec![33],
        gate: Gate { docroots: vec![root.as_bytes()], suffixes: vec![b".php"], ..example().gate },
        ..example()
    };
    let mut stage = Stage::new(&settings);
    stage.actor(1, |heard, stream| {
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
    let mut command = start(&place, &socket, port);
    let output = fs::File::create(place.join("output")).unwrap();
    command.process_group(0).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let child = command.spawn().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    until(
        || TcpStream::connect(("127.0.0.1", port)).ok(),
        &format!("{name}: {}", fs::read_to_string(place.join("output")).unwrap_or_default()),
    );
    (stage, Server { child, port, place })
}

impl Server {
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
    fn is_understood(&self, stage: &Stage) {
        let file = self.place.join("htdocs/a.php");
        let file = file.to_str().unwrap();
        let expected = |info: &str, query: &str, body: usize| {
            ("200".to_owned(), format!("{file}|/a.php|{info}|{query}||1|{body}"))
        };
        assert_eq!(self.curl("/a.php", &[]), expected("", "", 0), "{}", stage.log());
        assert_eq!(self.curl("/a.php?x=/b.php", &[]), expected("", "x=/b.php", 0));
        assert_eq!(self.curl("/a.php/x/y?q", &[]), expected("/x/y", "q", 0), "{}", stage.log());
        let body = self.place.join("body");
        fs::write(&body, vec![b'x'; 3_000_000]).unwrap();
        let upload = format!("@{}", body.to_str().unwrap());
        let got = self.curl("/a.php", &["--data-binary", &upload, "-H", "Expect:"]);
        assert_eq!(got, expected("", "", 3_000_000));
        let (status, text) = self.curl("/ping.php/../ping.php", &[]);
        // As each server has it: made plain by itself, or by the gate, or refused there.
        assert!(matches!(status.as_str(), "200" | "403" | "404"), "{status} {text}");
    }
}

/// What the shipped files say about connections: they are kept, for 40 requests one after another need few.
fn keeps_connections(stage: &Stage, server: &Server) {
    for _ in 0..40 {
        assert_eq!(server.curl("/a.php", &[]).0, "200", "{}", stage.log());
    }
    let made = stage.status("/metrics");
    let made = made.lines().find_map(|line| line.strip_prefix("cellwall_connections_total{site=\"stage\"} "));
    let made: u32 = made.unwrap().parse().unwrap();
    assert!(made < 20, "{made} connections");
}

/// A file of packaging/, as an administrator would fill it in: the name, the docroot, the socket, and the port.
fn shipped(file: &str, name: &str, port: &str, place: &Path, socket: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let docroot = place.join("htdocs");
    let changes = [
        ("shop.example", name),
        ("shop\\.example", name),
        ("/srv/www/shop/htdocs", docroot.to_str().unwrap()),
        ("/run/cellwall/pool/shop.sock", socket.to_str().unwrap()),
        ("listen 80", port),
        ("*:80", port),
        ("bind :80", port),
    ];
    changes.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
}

/// Writes a server's configuration to its place; the file's name.
fn written(place: &Path, text: &str) -> String {
    let file = place.join("server.conf").to_str().unwrap().to_owned();
    fs::write(&file, text).unwrap();
    file
}

fn program(path: &str, words: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(words);
    command
}

/// nginx with its file of packaging/, changed as `change` has it.
fn nginx(place: &Path, socket: &Path, port: u16, change: impl Fn(String) -> String) -> Command {
    let site = shipped("nginx/pool.conf", "localhost", &format!("listen 127.0.0.1:{port}"), place, socket);
    let (site, place_text) = (change(site), place.display());
    let text = format!(
        "user www-data; worker_processes 1; daemon off; pid {place_text}/pid; error_log {place_text}/error;\n\
         events {{ worker_connections 64; }}\nhttp {{ access_log off; client_body_temp_path {place_text}/b;\n\
         fastcgi_temp_path {place_text}/f; proxy_temp_path {place_text}/p; uwsgi_temp_path {place_text}/u;\n\
         scgi_temp_path {place_text}/s;\n{site}}}\n"
    );
    program("/usr/sbin/nginx", &["-c", &written(place, &text)])
}

#[test]
fn nginx_is_understood() {
    let (stage, server) =
        behind("nginx", |place, socket, port| nginx(place, socket, port, |shipped| shipped));
    server.is_understood(&stage);
    keeps_connections(&stage, &server);
}

/// As nginx does it by itself: a new connection for each request.
#[test]
fn nginx_that_keeps_no_connections_is_understood() {
    let new = |text: String| {
        text.replace("keepalive 8;", "").replace("fastcgi_keep_conn on", "fastcgi_keep_conn off")
    };
    let (stage, server) = behind("nginx-new", |place, socket, port| nginx(place, socket, port, new));
    server.is_understood(&stage);
    assert!(stage.status("/table").contains("stage\tup\t"));
}

fn apache(file: &str, place: &Path, socket: &Path, port: u16) -> Command {
    let modules = ["mpm_event", "authz_core", "dir", "proxy", "proxy_fcgi"];
    let modules: String = modules
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    let site = shipped(file, "localhost", &format!("127.0.0.1:{port}"), place, socket);
    let place_text = place.display();
    let text = format!(
        "{modules}ServerRoot {place_text}\nServerName localhost\nPidFile {place_text}/pid\nErrorLog {place_text}/error\n\
         Listen 127.0.0.1:{port}\nUser www-data\nGroup www-data\n{site}"
    );
    program("/usr/sbin/apache2", &["-f", &written(place, &text), "-DFOREGROUND"])
}

#[test]
fn apache_with_a_handler_is_understood() {
    let (stage, server) =
        behind("handler", |place, socket, port| apache("apache/pool.conf", place, socket, port));
    server.is_understood(&stage);
    keeps_connections(&stage, &server);
}

#[test]
fn apache_with_a_proxied_url_is_understood() {
    let (stage, server) =
        behind("match", |place, socket, port| apache("apache/pool-proxypass.conf", place, socket, port));
    server.is_understood(&stage);
    keeps_connections(&stage, &server);
}

#[test]
fn lighttpd_is_understood() {
    let (stage, server) = behind("lighttpd", |place, socket, port| {
        let site = shipped("lighttpd/pool.conf", "127.0.0.1", "", place, socket);
        let place_text = place.display();
        let text = format!(
            "server.modules = ()\nserver.document-root = \"{place_text}\"\nserver.port = {port}\n\
             server.bind = \"127.0.0.1\"\nserver.username = \"www-data\"\nserver.errorlog = \"{place_text}/error\"\n\
             server.upload-dirs = (\"{place_text}\")\n{site}"
        );
        program("/usr/sbin/lighttpd", &["-D", "-f", &written(place, &text)])
    });
    server.is_understood(&stage);
}

#[test]
fn haproxy_is_understood() {
    let (stage, server) = behind("haproxy", |place, socket, port| {
        let bind = format!("bind 127.0.0.1:{port}");
        let site = shipped("haproxy/pool.cfg", "127.0.0.1", &bind, place, socket);
        let text = format!(
            "global\n    log stderr local0\ndefaults\n    timeout client 60s\n    timeout connect 10s\n    timeout server 60s\n{site}"
        );
        let mut command = program("/usr/sbin/haproxy", &["-db", "-f", &written(place, &text)]);
        command.uid(33).gid(33);
        command
    });
    server.is_understood(&stage);
    keeps_connections(&stage, &server);
}

#[test]
fn caddy_is_understood() {
    let (stage, server) = behind("caddy", |place, socket, port| {
        let site = shipped("caddy/pool.caddy", &format!("http://127.0.0.1:{port}"), "", place, socket);
        let text = format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}");
        let file = written(place, &text);
        let mut command = program("/usr/bin/caddy", &["run", "--adapter", "caddyfile", "--config", &file]);
        command.uid(33).gid(33).env("HOME", place).env("XDG_DATA_HOME", place).env("XDG_CONFIG_HOME", place);
        command
    });
    server.is_understood(&stage);
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
