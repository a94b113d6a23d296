//! A real Apache with a configuration of its own, on port 8080 of the world's private network.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::http::{Answer, Ask};
use super::world::{LOG, World, make_directory, spawn};

const PORT: u16 = 8080;
const PLACE: &str = "/tmp/apache";
const SERVER: &str = "/usr/sbin/apache2";

/// How CGI programs are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// mod_cgid under the event server.
    Event,
    /// mod_cgi under the prefork server.
    Prefork,
}

/// A running server.
pub(crate) struct Apache {
    child: Child,
}

impl Apache {
    /// Starts it with a virtual host NAME.test for each user, and `more` at the configuration's end.
    pub(crate) fn start(world: &World, kind: Kind, more: &str) -> Self {
        assert!(
            Path::new(SERVER).exists(),
            "{SERVER} is missing; run: sudo apt-get install apache2 libapache2-mod-fcgid"
        );
        make_directory(PLACE, 0, 0o755);
        let mut text = base(kind);
        for user in [&world.alice, &world.bob, &world.carol] {
            text.push_str(&virtual_host(&user.name, &user.name, &user.docroot().to_string_lossy(), ""));
        }
        text.push_str(more);
        let file = format!("{PLACE}/apache.conf");
        fs::write(&file, text).unwrap();
        let mut apache = Self { child: serve(&file) };
        apache.wait_for_port(&file);
        apache
    }

    fn wait_for_port(&mut self, file: &str) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                // mod_fcgid names its memory by two bytes of a file's number: now and then another has that name.
                if self.log().contains("Can't create shared memory") {
                    fs::rename(format!("{PLACE}/fcgid.shm"), format!("{PLACE}/fcgid.taken")).ok();
                    self.child = serve(file);
                    continue;
                }
                panic!("apache2 ended with {status}:\n{}", self.log());
            }
            assert!(started.elapsed() < Duration::from_secs(20), "apache2 does not answer:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a request.
    pub(crate) fn ask(&self, ask: &Ask) -> Answer {
        ask.send(PORT)
    }

    /// GET, which must succeed.
    pub(crate) fn get(&self, host: &str, path: &str) -> Answer {
        let answer = self.ask(&Ask::get(host, path));
        assert_eq!(
            answer.status,
            200,
            "http://{host}{path}\n{}\n{}\n{}",
            answer.head,
            answer.text(),
            self.log()
        );
        answer
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        PORT
    }

    /// What the launcher and the server wrote to their logs.
    pub(crate) fn log(&self) -> String {
        let mut all = String::from_utf8_lossy(&fs::read(LOG).unwrap_or_default()).into_owned();
        for name in ["out", "err", "error.log"] {
            all.push_str(&String::from_utf8_lossy(&fs::read(format!("{PLACE}/{name}")).unwrap_or_default()));
        }
        all
    }

    /// Whether this comes to stand in a log; mod_cgi reads a program's stderr when its answer is sent.
    pub(crate) fn says(&self, text: &str) -> bool {
        let asked = Instant::now();
        while !self.log().contains(text) {
            if asked.elapsed() > Duration::from_secs(5) {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Empties the error log.
    pub(crate) fn forget(&self) {
        fs::write(format!("{PLACE}/error.log"), "").unwrap();
    }
}

impl Apache {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0))
    }

    /// `apachectl stop`, waited for; nothing is done about what it leaves.
    pub(crate) fn stop(&mut self) {
        kill(self.pid(), Signal::SIGTERM).ok();
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The server itself.
fn serve(file: &str) -> Child {
    spawn(
        Command::new(SERVER)
            .args(["-f", file, "-DFOREGROUND"])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(fs::File::create(format!("{PLACE}/out")).unwrap())
            .stderr(fs::File::create(format!("{PLACE}/err")).unwrap()),
    )
}

impl Drop for Apache {
    fn drop(&mut self) {
        self.stop();
        // What did not end politely: the server's group holds its children and their programs.
        killpg(self.pid(), Signal::SIGKILL).ok();
        drop(self.child.wait());
    }
}

/// A virtual host whose programs run as `user`.
pub(crate) fn virtual_host(name: &str, user: &str, docroot: &str, more: &str) -> String {
    format!(
        "<VirtualHost 127.0.0.1:{PORT}>\nServerName {name}.test\nDocumentRoot {docroot}\n\
         SuexecUserGroup {user} {user}\n{more}\n</VirtualHost>\n"
    )
}

fn base(kind: Kind) -> String {
    let (server, cgi) = match kind {
        Kind::Event => ("mpm_event", "cgid"),
        Kind::Prefork => ("mpm_prefork", "cgi"),
    };
    let modules = [
        server,
        cgi,
        "authz_core",
        "mime",
        "dir",
        "alias",
        "env",
        "actions",
        "include",
        "filter",
        "userdir",
        "suexec",
        "fcgid",
        "rewrite",
    ];
    let mut text = String::new();
    for module in modules {
        text.push_str(&format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n"));
    }
    let limits = match kind {
        Kind::Event => "ScriptSock /tmp/apache/cgid.sock\nThreadsPerChild 25\nMaxRequestWorkers 100\n",
        Kind::Prefork => "StartServers 4\nMaxRequestWorkers 80\nServerLimit 80\n",
    };
    text.push_str(limits);
    // mod_fcgid's own limit: a worker that starts and ends costs three points of ten, and one comes back a second.
    text.push_str(&format!(
        "ServerRoot {PLACE}\nServerName localhost\nListen 127.0.0.1:{PORT}\nPidFile {PLACE}/pid\n\
         DefaultRuntimeDir {PLACE}\nMutex file:{PLACE} default\nUser www-data\nGroup www-data\n\
         ErrorLog {PLACE}/error.log\nLogLevel warn\nTypesConfig /etc/mime.types\nSuexec On\n\
         FcgidSpawnScoreUpLimit 1000\nFcgidZombieScanInterval 1\nFcgidIPCDir {PLACE}/fcgid\nFcgidProcessTableFile {PLACE}/fcgid.shm\n\
         UserDir public_html\nKeepAlive On\nMaxKeepAliveRequests 0\n\
         <Directory />\nAllowOverride None\nRequire all denied\n</Directory>\n"
    ));
    for tree in ["/var/www", "/home"] {
        text.push_str(&format!(
            "<Directory {tree}>\nRequire all granted\nOptions +ExecCGI +Includes +FollowSymLinks\n\
             AddHandler cgi-script .cgi .pl .py .sh .php-script\nAddType text/html .shtml\n\
             AddOutputFilter INCLUDES .shtml\n</Directory>\n"
        ));
    }
    text
}
