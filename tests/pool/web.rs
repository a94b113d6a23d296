//! Web servers by the files of packaging/, filled in as an administrator would.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::harness::spawn;
use crate::stage::PATIENCE;

/// What an administrator writes into a file of packaging/.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The site's name, and what its upstreams and the like are called.
    pub(crate) site: String,
    /// What visitors ask for.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) docroot: PathBuf,
    pub(crate) socket: PathBuf,
    /// Of its scripts.
    pub(crate) ending: &'static str,
}

impl Host {
    /// A file of packaging/ for this host.
    fn filled_in(&self, text: &str, name: &str, port: &str) -> String {
        let changes = [
            ("shop.example", name),
            ("shop\\.example", name),
            ("/srv/www/shop/htdocs", self.docroot.to_str().unwrap()),
            ("/run/cellwall/pool/shop.sock", self.socket.to_str().unwrap()),
            ("listen 80", port),
            ("*:80", port),
            ("bind :80", port),
            ("shop", &self.site),
            ("frontend web", &format!("frontend web-{}", self.site)),
            (".php", self.ending),
        ];
        changes.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }
}

/// Writes a server's configuration into its directory, and says how it is started.
pub(crate) type Start = fn(&Path, &[Host]) -> Command;

/// All of packaging/, by the names that the documentation has for them.
pub(crate) const ALL: [(&str, Start); 7] = [
    ("nginx", nginx),
    ("nginx, new connections", nginx_anew),
    ("Apache, SetHandler", apache_by_handler),
    ("Apache, ProxyPassMatch", apache_by_url),
    ("lighttpd", lighttpd),
    ("HAProxy", haproxy),
    ("Caddy", caddy),
];

pub(crate) fn nginx(place: &Path, hosts: &[Host]) -> Command {
    nginx_with(place, hosts, |shipped| shipped)
}

/// As nginx does it by itself: a new connection for each request.
pub(crate) fn nginx_anew(place: &Path, hosts: &[Host]) -> Command {
    let anew = |text: String| text.replace("keepalive 8;", "").replace("keep_conn on", "keep_conn off");
    nginx_with(place, hosts, anew)
}

/// With its file changed as `change` has it.
pub(crate) fn nginx_with(place: &Path, hosts: &[Host], change: impl Fn(String) -> String) -> Command {
    let site = |host: &Host| {
        let port = format!("listen 127.0.0.1:{}", host.port);
        change(host.filled_in(include_str!("../../packaging/nginx/pool.conf"), &host.name, &port))
    };
    let (sites, place_text) = (hosts.iter().map(site).collect::<String>(), place.display());
    let text = format!(
        "user www-data; worker_processes 1; daemon off; pid {place_text}/pid; error_log {place_text}/error;\n\
         events {{ worker_connections 64; }}\nhttp {{ access_log off; client_body_temp_path {place_text}/b;\n\
         fastcgi_temp_path {place_text}/f; proxy_temp_path {place_text}/p; uwsgi_temp_path {place_text}/u;\n\
         scgi_temp_path {place_text}/s;\n{sites}}}\n"
    );
    program("/usr/sbin/nginx", &["-c", &written(place, &text)])
}

pub(crate) fn apache_by_handler(place: &Path, hosts: &[Host]) -> Command {
    apache(include_str!("../../packaging/apache/pool.conf"), place, hosts)
}

/// With the directives that its comment allows to a site's `.htaccess`.
pub(crate) fn apache_with_a_list(place: &Path, hosts: &[Host]) -> Command {
    let shipped = include_str!("../../packaging/apache/pool.conf");
    assert!(shipped.contains("#AllowOverrideList "));
    let shipped = shipped.replace("#AllowOverrideList ", "AllowOverrideList ");
    apache(&shipped, place, hosts)
}

/// With what an administrator may write beside it: rules about a file, the docroot by another name, and two ways of rewriting.
pub(crate) fn apache_with_rules(place: &Path, hosts: &[Host]) -> Command {
    let rules = "<Files \"admin.php\">\nRequire all denied\n</Files>\nAlias /lib /srv/www/shop/htdocs\nRewriteEngine on\n\
                 RewriteRule ^/u/(.*)$ /srv/www/shop/htdocs/$1.php\nRewriteRule ^/v/(.*)$ /$1.php [PT]\n</VirtualHost>";
    let shipped = include_str!("../../packaging/apache/pool.conf").replace("</VirtualHost>", rules);
    let rewrite = "LoadModule rewrite_module /usr/lib/apache2/modules/mod_rewrite.so\n";
    apache(&[rewrite, &shipped].concat(), place, hosts)
}

/// The other file with a rule about a file, and one about a place.
pub(crate) fn apache_by_url_with_rules(place: &Path, hosts: &[Host]) -> Command {
    let rules = "<Files \"admin.php\">\nRequire all denied\n</Files>\n\
                 <Location \"/closed.php\">\nRequire all denied\n</Location>\n</VirtualHost>";
    apache(
        &include_str!("../../packaging/apache/pool-proxypass.conf").replace("</VirtualHost>", rules),
        place,
        hosts,
    )
}

pub(crate) fn apache_by_url(place: &Path, hosts: &[Host]) -> Command {
    apache(include_str!("../../packaging/apache/pool-proxypass.conf"), place, hosts)
}

/// The file for CGI programs by suEXEC. Its files need no user, its programs are not started here.
pub(crate) fn apache_without_pool(place: &Path, hosts: &[Host]) -> Command {
    let shipped = include_str!("../../packaging/apache/cellwall.conf");
    apache(&shipped.replace("SuexecUserGroup shop shop", "SuexecUserGroup #1001 #1001"), place, hosts)
}

fn apache(shipped: &str, place: &Path, hosts: &[Host]) -> Command {
    let modules = ["mpm_event", "alias", "authz_core", "dir", "mime", "proxy", "proxy_fcgi", "suexec"];
    let modules: String = modules
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat()
        + "TypesConfig /dev/null\n";
    let site = |host: &Host| {
        let port = format!("127.0.0.1:{}", host.port);
        format!("Listen {port}\n{}", host.filled_in(shipped, &host.name, &port))
    };
    let (sites, place_text) = (hosts.iter().map(site).collect::<String>(), place.display());
    // What Debian's own configuration says of / is what a host's file has to undo.
    let text = format!(
        "{modules}ServerRoot {place_text}\nServerName localhost\nPidFile {place_text}/pid\nErrorLog {place_text}/error\n\
         User www-data\nGroup www-data\n<Directory />\nOptions FollowSymLinks\nRequire all denied\n</Directory>\n{sites}"
    );
    program("/usr/sbin/apache2", &["-f", &written(place, &text), "-DFOREGROUND"])
}

pub(crate) fn lighttpd(place: &Path, hosts: &[Host]) -> Command {
    let site = |host: &Host| {
        let socket = format!("$SERVER[\"socket\"] == \"127.0.0.1:{}\" {{ }}\n", host.port);
        socket + &host.filled_in(include_str!("../../packaging/lighttpd/pool.conf"), &host.name, "")
    };
    let (sites, place_text) = (hosts.iter().map(site).collect::<String>(), place.display());
    // It reads its own module list once for each site.
    let (first, rest) = sites.split_once("server.modules += ( \"mod_fastcgi\" )").unwrap();
    let sites = format!("{first}{}", rest.replace("server.modules += ( \"mod_fastcgi\" )", ""));
    let text = format!(
        "server.modules = ( \"mod_fastcgi\" )\nserver.document-root = \"{place_text}\"\n\
         server.bind = \"{place_text}/unused.sock\"\nserver.username = \"www-data\"\nserver.errorlog = \"{place_text}/error\"\n\
         server.upload-dirs = (\"{place_text}\")\n{sites}"
    );
    program("/usr/sbin/lighttpd", &["-D", "-f", &written(place, &text)])
}

pub(crate) fn haproxy(place: &Path, hosts: &[Host]) -> Command {
    let site = |host: &Host| {
        host.filled_in(
            include_str!("../../packaging/haproxy/pool.cfg"),
            &host.name,
            &format!("bind 127.0.0.1:{}", host.port),
        )
    };
    let sites: String = hosts.iter().map(site).collect();
    let text = format!(
        "global\n    log stderr local0\ndefaults\n    timeout client 60s\n    timeout connect 10s\n    timeout server 60s\n{sites}"
    );
    as_www_data(program("/usr/sbin/haproxy", &["-db", "-f", &written(place, &text)]))
}

/// As Debian runs it, without its chroot: root at first, then a user and a group of its own.
pub(crate) fn haproxy_as_itself(place: &Path, hosts: &[Host]) -> Command {
    drop(haproxy(place, hosts));
    let file = place.join("server.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("global\n", "global\n    user haproxy\n    group haproxy\n", 1)).unwrap();
    program("/usr/sbin/haproxy", &["-db", "-f", file.to_str().unwrap()])
}

pub(crate) fn caddy(place: &Path, hosts: &[Host]) -> Command {
    let site = |host: &Host| {
        let text = host.filled_in(
            include_str!("../../packaging/caddy/pool.caddy"),
            &format!("http://{}:{}", host.name, host.port),
            "",
        );
        let named = format!("php_fastcgi unix/{}", host.socket.display());
        // What is no PHP is told where the path of a script ends, as the documentation says.
        let split = format!("{named} {{\n\t\tsplit {}\n\t}}", host.ending);
        if host.ending == ".php" { text } else { text.replace(&named, &split) }
    };
    let sites: String = hosts.iter().map(site).collect();
    let file = written(place, &format!("{{\n\tadmin off\n\tauto_https off\n}}\n{sites}"));
    let mut command =
        as_www_data(program("/usr/bin/caddy", &["run", "--adapter", "caddyfile", "--config", &file]));
    command.env("HOME", place).env("XDG_DATA_HOME", place).env("XDG_CONFIG_HOME", place);
    command
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

fn as_www_data(mut command: Command) -> Command {
    command.uid(33).gid(33);
    command
}

/// A web server in a process group of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) place: PathBuf,
    ports: Vec<u16>,
}

impl Server {
    /// Starts it, and waits until it answers on all its ports. `place` is a directory of its own.
    pub(crate) fn start(start: Start, place: &Path, hosts: &[Host]) -> Self {
        let mut command = start(place, hosts);
        let output = fs::File::create(place.join("output")).unwrap();
        command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let ports = hosts.iter().map(|host| host.port).collect();
        let server = Self { child: spawn(&mut command), place: place.to_owned(), ports };
        for host in hosts {
            let end = Instant::now() + PATIENCE;
            while TcpStream::connect(("127.0.0.1", host.port)).is_err() {
                assert!(Instant::now() < end, "{command:?} does not listen: {}", server.words());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        server
    }

    /// What it said.
    pub(crate) fn words(&self) -> String {
        let said =
            ["output", "error"].map(|name| fs::read_to_string(self.place.join(name)).unwrap_or_default());
        format!("{}: {}", self.place.display(), said.concat())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGKILL);
        drop(self.child.wait());
        // Its children end a moment later: the next server on these ports must neither find them taken nor be taken for it.
        let end = Instant::now() + PATIENCE;
        let taken = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        while self.ports.iter().any(taken) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(fs::remove_dir_all(&self.place));
    }
}
