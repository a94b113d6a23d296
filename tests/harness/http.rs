//! A small HTTP client: one request a connection, or many on one that is kept; nothing hidden.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::world::LOG;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: &'static str,
    host: String,
    path: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    pub(crate) fn get(host: &str, path: &str) -> Self {
        Self::with("GET", host, path)
    }

    pub(crate) fn with(method: &'static str, host: &str, path: &str) -> Self {
        Self { method, host: host.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn post(host: &str, path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST", body: body.into(), ..Self::get(host, path) }
    }

    pub(crate) fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// Sends it and reads the answer to its end. One that breaks off is told with all that is known of it.
    pub(crate) fn send(&self, port: u16) -> Answer {
        self.tried(port).unwrap_or_else(|broken| {
            panic!("{} {}{}: {broken}\n{}", self.method, self.host, self.path, logs())
        })
    }

    /// The same, with the story of an answer that did not come whole.
    fn tried(&self, port: u16) -> Result<Answer, String> {
        let asked = Instant::now();
        let (mut all, mut story) = (Vec::new(), Vec::new());
        let mut tell = |what: &str, done: io::Result<()>| {
            done.map_err(|why| story.push(format!("{what}: {why} after {} ms", asked.elapsed().as_millis())))
                .is_ok()
        };
        if let Ok(mut stream) =
            TcpStream::connect(("127.0.0.1", port)).map_err(|why| tell("connect", Err(why)))
        {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            // Whoever answers before the body has come may close: what he said is read all the same, as browsers do.
            let _ = tell("head", stream.write_all(self.head().as_bytes()))
                && tell("body", stream.write_all(&self.body));
            tell("read", stream.read_to_end(&mut all).map(drop));
        }
        match Answer::parse(&all) {
            Ok(answer)
                if answer.is_whole(self.method) && !story.iter().any(|line| line.starts_with("read")) =>
            {
                Ok(answer)
            }
            Ok(_) => Err(format!("the answer breaks off ({story:?}): {}", told(&all))),
            Err(why) => Err(format!("{why} ({story:?}): {}", told(&all))),
        }
    }

    fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.0\r\nHost: {}\r\n", self.method, self.path, self.host);
        for line in &self.headers {
            head.push_str(&format!("{line}\r\n"));
        }
        if self.method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head + "\r\n"
    }
}

/// What arrived: how much, and how it begins.
fn told(all: &[u8]) -> String {
    let shown = all.get(..1000).unwrap_or(all);
    format!("{} bytes arrived: {:?}", all.len(), String::from_utf8_lossy(shown))
}

/// The last lines of what each web server of this world, and the launcher, wrote to their logs.
fn logs() -> String {
    let mut all = String::new();
    for path in
        ["/tmp/apache/error.log", "/tmp/apache/err", "/var/log/apache2/error.log", "/tmp/nginx/error", LOG]
    {
        let text = fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(10)..] {
            all.push_str(&format!("{path}: {line}\n"));
        }
    }
    all
}

/// A connection that is kept. Answers must name their length.
pub(crate) struct Kept(BufReader<TcpStream>);

impl Kept {
    pub(crate) fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// GET; what went wrong is told and not panicked about, so that failures can be counted.
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Result<Answer, String> {
        let ask = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.0.get_mut().write_all(ask.as_bytes()).map_err(|why| why.to_string())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).map_err(|why| why.to_string())? == 0 {
                return Err(format!("closed after {head:?}"));
            }
        }
        let mut answer = Answer::parse(head.as_bytes())?;
        let length = answer.header("Content-Length").and_then(|length| length.parse().ok());
        answer.body = vec![0; length.ok_or_else(|| format!("no length: {head}"))?];
        self.0.read_exact(&mut answer.body).map_err(|why| why.to_string())?;
        Ok(answer)
    }
}

impl Answer {
    fn parse(all: &[u8]) -> Result<Self, String> {
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no HTTP answer")?;
        let head = String::from_utf8_lossy(&all[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or("no status")?;
        Ok(Self { status, head, body: all[end + 4..].to_vec() })
    }

    /// As long as it says it is.
    fn is_whole(&self, method: &str) -> bool {
        let promised = self.header("Content-Length").and_then(|length| length.parse().ok());
        let empty = method == "HEAD" || self.status == 204 || self.status == 304;
        empty || promised.is_none_or(|promised: usize| self.body.len() >= promised)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}
