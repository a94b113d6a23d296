//! The status service: whoever may connect to its socket gets all sites' numbers, over as little HTTP as there is.
//!
//! `GET /metrics` is text for Prometheus, `GET /status` JSON, `GET /table` what `cellwall status` shows. The socket is the supervisor's, and root's by its mode.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::read;

use crate::sys::descriptors;

use super::arena::Key;
use super::gather::Pending;
use super::{BOTH, Broker, Said, Source};

/// Somebody who looks.
#[derive(Debug)]
pub(super) struct Watcher {
    fd: OwnedFd,
    asked: Vec<u8>,
    answer: Pending,
    answered: bool,
}

/// Most of them at a time.
const WATCHERS_MAX: usize = 32;
/// Most bytes of a question.
const QUESTION_MAX: usize = 4096;

impl Broker {
    pub(super) fn watcher_arrives(&mut self) {
        let Some(status) = &self.status else { return };
        let Ok(fd) = descriptors::accept(status) else { return };
        if self.watchers.len() >= WATCHERS_MAX {
            return;
        }
        let watcher = Watcher { fd, asked: Vec::new(), answer: Pending::default(), answered: false };
        let key = self.watchers.insert(watcher);
        let watched =
            self.watchers.get(key).is_some_and(|one| self.watch(&one.fd, Source::Watcher, key, BOTH));
        if !watched {
            self.watchers.remove(key);
        }
    }

    pub(super) fn watcher_event(&mut self, key: Key, said: Said) {
        let over = match self.watchers.get(key) {
            Some(watcher) if !watcher.answered => self.question(key, said),
            _ => false,
        };
        let Some(watcher) = self.watchers.get_mut(key) else { return };
        let written = watcher.answered && !matches!(watcher.answer.write(&watcher.fd), Ok(false));
        if over || written || said.gone {
            self.watchers.remove(key);
        }
    }

    /// Reads a question and answers it when it is whole. `true`: there will be none.
    fn question(&mut self, key: Key, said: Said) -> bool {
        let mut part = [0; 1024];
        while let Some(watcher) = self.watchers.get_mut(key).filter(|_| said.readable) {
            match read(&watcher.fd, &mut part) {
                Ok(0) => return true,
                Ok(length) => watcher.asked.extend_from_slice(part.get(..length).unwrap_or_default()),
                Err(Errno::EAGAIN) => break,
                Err(_) => return true,
            }
            if watcher.asked.len() > QUESTION_MAX {
                return true;
            }
        }
        let Some(watcher) = self.watchers.get(key) else { return true };
        let end = |end: &[u8]| watcher.asked.windows(end.len()).any(|window| window == end);
        if !end(b"\r\n\r\n") && !end(b"\n\n") {
            return false;
        }
        let line = watcher.asked.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| byte.is_ascii_whitespace());
        let (method, path) = (words.next(), words.next().unwrap_or_default());
        let answer = match path {
            b"/metrics" if method == Some(b"GET") => {
                http("200 OK", "text/plain; version=0.0.4; charset=utf-8", &self.prometheus())
            }
            b"/status" if method == Some(b"GET") => http("200 OK", "application/json", &self.json()),
            b"/table" if method == Some(b"GET") => {
                http("200 OK", "text/tab-separated-values; charset=us-ascii", &self.table())
            }
            _ => http("404 Not Found", "text/plain; charset=us-ascii", "GET /metrics, /status or /table\n"),
        };
        let Some(watcher) = self.watchers.get_mut(key) else { return true };
        watcher.answer.put(answer.as_bytes());
        watcher.answered = true;
        false
    }
}

fn http(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
