//! A mail server that keeps what it is given, on port 25 of a world's own network.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Messages as they came: the envelope's lines, then the text.
pub(crate) struct Sink(Receiver<String>);

impl Sink {
    /// Listens; the calling thread's network is the world's.
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:25").unwrap();
        let (to, from) = channel();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Some(message) = session(client) {
                    drop(to.send(message));
                }
            }
        });
        Self(from)
    }

    /// The next message.
    pub(crate) fn message(&self) -> String {
        self.0.recv_timeout(Duration::from_secs(30)).unwrap()
    }
}

/// As much of RFC 5321 as a client that sends one message needs.
fn session(client: TcpStream) -> Option<String> {
    let mut to = client.try_clone().unwrap();
    let mut say = |line: &str| to.write_all(format!("{line}\r\n").as_bytes()).ok();
    say("220 sink")?;
    let (mut message, mut in_data) = (String::new(), false);
    for line in BufReader::new(client).lines() {
        let line = line.ok()?;
        if in_data {
            if line == "." {
                in_data = false;
                say("250 kept")?;
            }
            message.push_str(&format!("{line}\n"));
            continue;
        }
        match line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "DATA" => {
                in_data = true;
                say("354 go on")?;
            }
            "QUIT" => {
                say("221 bye")?;
                break;
            }
            "MAIL" | "RCPT" => {
                message.push_str(&format!("{line}\n"));
                say("250 good")?;
            }
            _ => say("250 sink")?,
        }
    }
    Some(message).filter(|message| !message.is_empty())
}
