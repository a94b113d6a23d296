//! Through a real Apache: the event server with mod_cgid, eight connections, both launchers in turn.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::host::{EXEC_ONLY, Host, OURS, STOCK};
use super::numbers::{median, verdict};
use super::payloads::{PERL, TINY};
use super::tables::Options;

const PLACE: &str = "/run/bench-apache";
const SERVER: &str = "/usr/sbin/apache2";
const REPEATS: usize = 5;

/// Requests a second of stock and ours, and of a launcher that only starts the program: no launcher can be better.
pub(crate) fn compare(host: &Host, options: &Options) {
    println!("THROUGH APACHE (event, mod_cgid, 8 connections, median of {REPEATS} runs in turn)");
    for tool in [SERVER, "/usr/bin/ab"] {
        if !Path::new(tool).exists() {
            return println!(
                "  not measured: {tool} is missing: sudo apt-get install apache2 apache2-utils\n"
            );
        }
    }
    let apache = match Apache::start(host) {
        Ok(apache) => apache,
        Err(why) => return println!("  not measured: {why}\n"),
    };
    for (payload, target) in [(TINY, 1.8), (PERL, 1.35)] {
        let (mut rates, mut ratios) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new());
        for _ in 0..REPEATS {
            let mut round = [0.0; 3];
            for (place, launcher) in [STOCK, OURS, EXEC_ONLY].into_iter().enumerate() {
                host.apache_starts(launcher);
                match apache.rate(payload.file, options.seconds) {
                    Ok(rate) => round[place] = rate,
                    Err(why) => return println!("  {} was not measured: {why}\n", payload.what),
                }
                rates[place].push(round[place]);
            }
            ratios.push(round[1] / round[0]);
        }
        let [stock, ours, nothing] = rates.map(median);
        let ratio = median(ratios);
        println!(
            "  {:18} stock {stock:6.0}/s   ours {ours:6.0}/s   {ratio:5.2} times   target {target}: {}\n  \
             {:18} a launcher that does nothing {nothing:.0}/s   {:.2} times",
            payload.what,
            verdict(ratio, target, false),
            "",
            nothing / stock
        );
    }
    println!();
}

struct Apache {
    child: Child,
    port: u16,
}

impl Apache {
    fn start(host: &Host) -> Result<Self, String> {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
        let port = free.map_err(|why| why.to_string())?.port();
        fs::create_dir_all(PLACE).map_err(|why| format!("{PLACE}: {why}"))?;
        let file = format!("{PLACE}/apache.conf");
        fs::write(&file, configuration(host, port)).map_err(|why| format!("{file}: {why}"))?;
        let child = Command::new(SERVER)
            .args(["-f", &file, "-DFOREGROUND"])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|why| format!("{SERVER}: {why}"))?;
        let mut apache = Self { child, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if !matches!(apache.child.try_wait(), Ok(None)) || started.elapsed() > Duration::from_secs(20) {
                return Err(format!("{SERVER} does not answer: {}", apache.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(apache)
    }

    fn rate(&self, file: &str, seconds: u32) -> Result<f64, String> {
        let said = Command::new("/usr/bin/ab")
            .args(["-q", "-c", "8", "-n", "10000000", "-t", &seconds.to_string()])
            .arg(format!("http://127.0.0.1:{}/{file}", self.port))
            .output()
            .map_err(|why| format!("ab: {why}"))?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let bad = number("Non-2xx responses:").unwrap_or(0.0) + number("Failed requests:").unwrap_or(0.0);
        match number("Requests per second:") {
            Some(rate) if bad == 0.0 => Ok(rate),
            Some(_) => Err(format!("{bad} requests failed: {}", self.log())),
            None => Err(format!("ab said: {}", String::from_utf8_lossy(&said.stderr))),
        }
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(format!("{PLACE}/error.log")).unwrap_or_default();
        text.lines().last().unwrap_or("its log is empty").to_owned()
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM).ok();
        }
        drop(self.child.wait());
    }
}

fn configuration(host: &Host, port: u16) -> String {
    let mut text = String::new();
    for module in ["mpm_event", "cgid", "authz_core", "mime", "env", "suexec"] {
        writeln!(text, "LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so").unwrap();
    }
    let (user, docroot) = (host.whole.user(), host.whole.docroot());
    write!(
        text,
        "ServerRoot {PLACE}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {PLACE}/pid\n\
         DefaultRuntimeDir {PLACE}\nMutex file:{PLACE} default\nUser www-data\nGroup www-data\n\
         ErrorLog {PLACE}/error.log\nLogLevel warn\nTypesConfig /etc/mime.types\nScriptSock {PLACE}/cgid.sock\n\
         ThreadsPerChild 25\nMaxRequestWorkers 100\nSuexec On\nSuexecUserGroup {user} {user}\n\
         DocumentRoot {0}\n<Directory {0}>\nRequire all granted\nOptions +ExecCGI\nSetHandler cgi-script\n</Directory>\n",
        docroot.display()
    )
    .unwrap();
    text
}
