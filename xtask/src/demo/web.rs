//! A private Apache on loopback, and as much of a browser as the demonstration needs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

use super::host::USERS;

const PORT: u16 = 8080;
/// Its error log.
pub(crate) const LOG: &str = "/var/log/apache2/demo.log";
const HEAD: &str = "\
ServerRoot /run
ServerName demo.example
Listen 127.0.0.1:8080
PidFile /run/apache.pid
ErrorLog /var/log/apache2/demo.log
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so
LoadModule suexec_module /usr/lib/apache2/modules/mod_suexec.so
TypesConfig /etc/mime.types
ScriptSock /run/cgid.sock
";

/// The server.
pub(crate) struct Apache(Child);

impl Apache {
    /// Starts it, and waits until it answers.
    pub(crate) fn start() -> Outcome<Self> {
        let mut text = HEAD.to_owned();
        for (name, _) in USERS {
            text.push_str(&format!(
                "<VirtualHost *:{PORT}>\nServerName {name}.example\nDocumentRoot /var/www/{name}/htdocs\n\
                 SuexecUserGroup {name} {name}\n<Directory /var/www/{name}/htdocs>\nOptions ExecCGI\n\
                 Require all granted\nAddHandler cgi-script .cgi .php\n</Directory>\n</VirtualHost>\n"
            ));
        }
        fs::write("/run/apache.conf", text).map_err(|why| format!("apache.conf: {why}"))?;
        let log = File::create(LOG).map_err(|why| format!("{LOG}: {why}"))?;
        let mut apache = Command::new("/usr/sbin/apache2");
        apache.args(["-f", "/run/apache.conf", "-DFOREGROUND"]).stdin(Stdio::null());
        apache.stderr(log).stdout(Stdio::null());
        let mut child = apache.spawn().map_err(|why| format!("cannot start Apache: {why}"))?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            let ended = child.try_wait().is_ok_and(|status| status.is_some());
            if ended || Instant::now() > deadline {
                let said = fs::read_to_string(LOG).unwrap_or_default();
                return Err(format!("Apache does not answer. Its error log:\n{said}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self(child))
    }

    /// Stops it.
    pub(crate) fn stop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What the server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// `GET http://SITE.example PATH`
pub(crate) fn get(site: &str, path: &str) -> Outcome<Answer> {
    let answer = request(site, path).map_err(|why| format!("http://{site}.example{path}: {why}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| format!("http://{site}.example{path}: no answer of HTTP: {head:?}"))?;
    Ok(Answer { status, body: body.to_owned() })
}

fn request(site: &str, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", PORT))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {site}.example\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
