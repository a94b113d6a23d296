//! A broker on a stage: the test plays the supervisor, and web server or workers where it wants to.
//!
//! The broker is the real one, in a thread with a working directory of its own; sockets are real, and so are the workers
//! that a test starts on them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cellwall::pool::broker;
use cellwall::pool::channel::Channel;
use cellwall::pool::fastcgi::back::{self, Back};
use cellwall::pool::fastcgi::front::{self, Front};
use cellwall::pool::fastcgi::pairs::{Pairs, Writer};
use cellwall::pool::fastcgi::record::{kind, put, put_begin, put_end};
use cellwall::pool::fastcgi::{Ending, Role};
use cellwall::pool::settings::{
    Accept, Gate, Kind, Life, Listen, Queue, Request, Seen, Settings, Workers, encode,
};
use cellwall::pool::wire::{Down, Ended, Site, Up, VERSION, Worker, socket_name};
use nix::sched::{CloneFlags, unshare};

/// Where scripts of the example site are.
pub(crate) const DOCROOT: &str = "/srv/stage";

/// A broker and its supervisor.
pub(crate) struct Stage {
    channel: Channel,
    pub(crate) place: PathBuf,
    broker: Option<JoinHandle<()>>,
    /// The broker's thread.
    thread: nix::unistd::Pid,
    heard: Vec<Up>,
    serial: u32,
}

/// An example that a test changes where it must.
pub(crate) fn example() -> Settings<'static> {
    Settings {
        name: b"stage",
        kind: Kind::Fastcgi,
        accept: Accept::Relay,
        listen: Listen::Socket(b"stage.sock"),
        group: 0,
        clients: vec![0],
        command: vec![b"/bin/true"],
        workers: Workers { max: 2, min: 0, spare: 0, idle_ms: 600_000, connections: 1 },
        queue: Queue { length: 100, deadline_ms: 60_000 },
        request: Request {
            deadline_ms: 0,
            silence_ms: 0,
            cpu_ms: 0,
            body_max: u64::MAX,
            head_ms: 60_000,
            abandon: true,
        },
        worker: Life { requests: 0, memory: 0, start_ms: 10_000, grace_ms: 10_000 },
        group_directory: b"",
        memory_directory: b"",
        cpu_directory: b"",
        cpu_weight: 100,
        gate: Gate {
            docroots: vec![DOCROOT.as_bytes()],
            jail: b"",
            programs: Vec::new(),
            suffixes: Vec::new(),
            pass: NAMES.to_vec(),
            pass_prefixes: vec![b"HTTP_"],
            authorization: false,
            entries_max: 1000,
            bytes_max: 65_536,
        },
        seen: Seen {
            status_path: b"/status",
            ping_path: b"/ping",
            ping_answer: b"pong",
            access_log: b"",
            access_format: b"",
            slow_log: b"",
            slow_ms: 0,
            error_log: b"",
            errors_to_server: false,
        },
    }
}

/// Sorted.
const NAMES: [&[u8]; 12] = [
    b"CONTENT_LENGTH",
    b"CONTENT_TYPE",
    b"DOCUMENT_ROOT",
    b"GATEWAY_INTERFACE",
    b"PATH_INFO",
    b"QUERY_STRING",
    b"REDIRECT_STATUS",
    b"REQUEST_METHOD",
    b"REQUEST_URI",
    b"SCRIPT_FILENAME",
    b"SCRIPT_NAME",
    b"SERVER_PROTOCOL",
];

impl Stage {
    /// A broker with one site.
    pub(crate) fn new(settings: &Settings<'_>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("cellwall-stage-{}-{number}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let directory = place.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let broker = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid()).unwrap();
            unshare(CloneFlags::CLONE_FS).unwrap();
            std::env::set_current_dir(directory).unwrap();
            // How it ends is the test's business: it is told to, or its supervisor is gone.
            drop(broker::serve(theirs).map_err(|lost| lost.to_string()));
        });
        let mut stage = Self {
            channel: Channel::new(ours),
            place,
            broker: Some(broker),
            thread: told.recv().unwrap(),
            heard: Vec::new(),
            serial: 0,
        };
        let log = File::options().append(true).create(true).open(stage.place.join("log")).unwrap();
        let status = UnixListener::bind(stage.place.join("status")).unwrap();
        status.set_nonblocking(true).unwrap();
        stage.send(Down::Welcome { version: VERSION }, vec![log.into(), status.into()]);
        stage.site(1, settings);
        stage
    }

    /// One more site, or new settings of one.
    pub(crate) fn site(&mut self, number: u32, settings: &Settings<'_>) {
        let name = self.public(number);
        drop(std::fs::remove_file(&name));
        let listener = UnixListener::bind(&name).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.site_at(number, settings, listener.into());
    }

    /// The same with this socket.
    pub(crate) fn site_at(&mut self, number: u32, settings: &Settings<'_>, listener: OwnedFd) {
        let path = self.place.join("settings");
        std::fs::write(&path, encode(settings)).unwrap();
        let file = File::open(path).unwrap();
        self.send(Down::Site { site: Site(number), generation: 1 }, vec![listener, file.into()]);
        self.wait(|up| matches!(up, Up::Taken { site, .. } if site.0 == number));
    }

    pub(crate) fn send(&mut self, message: Down, with: Vec<OwnedFd>) {
        // As the supervisor does: the broker may change nothing of a descriptor.
        with.iter().for_each(|fd| cellwall::pool::listen::set_blocking(fd, false).unwrap());
        self.channel.send(&message, with.into_iter().map(Rc::new).collect()).unwrap();
    }

    /// The public socket of a site.
    pub(crate) fn public(&self, number: u32) -> PathBuf {
        self.place.join(format!("public-{number}"))
    }

    /// Tells of a new worker of site 1; the test, or a program, listens on its socket.
    pub(crate) fn worker(&mut self, connections: u32) -> (Worker, UnixListener, std::io::PipeWriter) {
        self.worker_of(1, connections)
    }

    pub(crate) fn worker_of(
        &mut self,
        site: u32,
        connections: u32,
    ) -> (Worker, UnixListener, std::io::PipeWriter) {
        self.serial += 1;
        let (site, worker) = (Site(site), Worker(self.serial));
        let listener = UnixListener::bind(self.place.join(socket_name(site, worker))).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        self.send(Down::Worker { site, worker, generation: 1, connections }, vec![reader.into()]);
        (worker, listener, writer)
    }

    /// Starts a FastCGI program as a worker.
    pub(crate) fn program(&mut self, connections: u32, command: &mut Command) -> (Worker, Child) {
        let (worker, listener, errors) = self.worker(connections);
        let child =
            command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        (worker, child)
    }

    /// Has a thread play a worker.
    pub(crate) fn actor(
        &mut self,
        connections: u32,
        act: impl Fn(&Heard, &mut UnixStream) + Send + Sync + 'static,
    ) -> Worker {
        let (worker, listener, errors) = self.worker(connections);
        play(listener, errors, act);
        worker
    }

    /// Waits for a message that fits, and returns it; others are kept.
    pub(crate) fn wait(&mut self, fits: impl Fn(&Up) -> bool) -> Up {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.heard.iter().position(&fits) {
                return self.heard.remove(place);
            }
            assert!(Instant::now() < until, "the broker did not say it; it said {:?}", self.heard);
            self.listen();
        }
    }

    /// All that the broker said and nobody waited for.
    pub(crate) fn heard(&mut self) -> &[Up] {
        while self.listen() {}
        &self.heard
    }

    /// What was said so far does not count any more.
    pub(crate) fn forget(&mut self) {
        self.heard.clear();
    }

    fn listen(&mut self) -> bool {
        let mut polled = [nix::poll::PollFd::new(self.channel.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut polled, 50_u16).unwrap();
        let got = self.channel.receive::<Up>().unwrap();
        got.map(|(message, _)| self.heard.push(message)).is_some()
    }

    /// The descriptor that came with a [`Up::Run`], and its token.
    pub(crate) fn run(&mut self) -> (cellwall::pool::wire::Token, OwnedFd) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some((message, mut with)) = self.channel.receive::<Up>().unwrap() {
                match message {
                    Up::Run { token, .. } => return (token, with.remove(0)),
                    other => self.heard.push(other),
                }
            }
            assert!(Instant::now() < until, "no run was asked for");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A worker's end.
    pub(crate) fn gone(&mut self, worker: Worker, how: Ended) {
        drop(std::fs::remove_file(self.place.join(socket_name(Site(1), worker))));
        self.send(Down::WorkerGone { site: Site(1), worker, how, code: 0 }, Vec::new());
    }

    /// A connection to the public socket.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.public(1))
    }

    /// The broker's processor time: other tests of this process have theirs.
    pub(crate) fn spent(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.thread)).unwrap();
        let words: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
        Duration::from_millis((words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()) * 10)
    }

    /// The host's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.place.join("log")).unwrap()
    }

    /// Waits until the log says it.
    pub(crate) fn wait_for_log(&self, words: &str) -> String {
        until(|| self.log().contains(words).then(|| self.log()), words)
    }

    /// What the status service says.
    pub(crate) fn status(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(self.place.join("status")).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until a number of site 1 in `/status` is this.
    pub(crate) fn wait_for_status(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status("/status");
            if status.contains(words) {
                return;
            }
            assert!(Instant::now() < end, "never {words}: {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.channel.send(&Down::Quit { within_ms: 0 }, Vec::new());
        let ended = self.broker.take().map(JoinHandle::join);
        drop(std::fs::remove_dir_all(&self.place));
        if !std::thread::panicking() {
            assert!(ended.is_some_and(|ended| ended.is_ok()), "the broker panicked");
        }
    }
}

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition.
pub(crate) fn until<T>(mut condition: impl FnMut() -> Option<T>, what: &str) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a worker was asked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Heard {
    pub(crate) params: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn get(&self, name: &str) -> &str {
        self.params.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Plays a worker on a listening socket: one thread for each connection, requests one after another.
pub(crate) fn play(
    listener: UnixListener,
    errors: std::io::PipeWriter,
    act: impl Fn(&Heard, &mut UnixStream) + Send + Sync + 'static,
) {
    let act = std::sync::Arc::new(act);
    std::thread::spawn(move || {
        let _errors = errors;
        for stream in listener.incoming() {
            let (Ok(mut stream), act) = (stream, std::sync::Arc::clone(&act)) else { return };
            std::thread::spawn(move || {
                let mut codec = Front::new(1 << 20);
                while let Some(heard) = next_request(&mut stream, &mut codec) {
                    act(&heard, &mut stream);
                    codec.finish();
                }
            });
        }
    });
}

/// Reads the next request, as a worker sees it.
fn next_request(stream: &mut UnixStream, codec: &mut Front) -> Option<Heard> {
    let mut heard = Heard::default();
    let mut buffer = vec![0; 65_536];
    loop {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        let mut input = &buffer[..length];
        while let Some(event) = codec.next(&mut input).unwrap() {
            match event {
                front::Event::Request => {
                    assert_eq!(codec.request().id, back::ID, "workers hear one id only");
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let pairs = Pairs(codec.params()).map(Result::unwrap);
                    heard.params = pairs.map(|(name, value)| (text(name), text(value))).collect();
                    if codec.request().role == Role::Authorizer {
                        return Some(heard);
                    }
                }
                front::Event::Body(bytes) => heard.body.extend_from_slice(bytes),
                front::Event::BodyEnd => return Some(heard),
                // As php-cgi does when it is asked for its values.
                front::Event::Reply(_) => return None,
                other => panic!("a worker heard {other:?}"),
            }
        }
    }
}

/// Answers as a good worker does.
pub(crate) fn answer(stream: &mut UnixStream, text: &[u8]) {
    let mut out = Vec::new();
    put(&mut out, kind::STDOUT, back::ID, text);
    put_end(&mut out, back::ID, 0, Ending::Complete);
    // The broker may have closed it.
    let _ = stream.write_all(&out);
}

/// A web server's connection.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    codec: Back,
}

/// What a web server got.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) out: Vec<u8>,
    pub(crate) errors: Vec<u8>,
    /// None: the connection ended before the answer did.
    pub(crate) end: Option<(u32, Ending)>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

impl Client {
    pub(crate) fn new(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    pub(crate) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, codec: Back::default() }
    }

    /// A request for `script` beneath the docroot, without a body.
    pub(crate) fn get(&mut self, script: &str) -> Answer {
        self.ask(&request(script, &[], b"", true));
        self.answer()
    }

    pub(crate) fn ask(&mut self, bytes: &[u8]) {
        self.codec.ask();
        // The broker may refuse before it has read all.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads up to the end of the answer, or of the connection.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = Answer::default();
        let mut buffer = vec![0; 65_536];
        while answer.end.is_none() {
            let length = match self.stream.read(&mut buffer) {
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("neither an end nor a cut in {PATIENCE:?}: {answer:?}")
                }
                Ok(0) | Err(_) => return answer,
                Ok(length) => length,
            };
            let mut input = &buffer[..length];
            while let Some(event) = self.codec.next(&mut input).unwrap() {
                match event {
                    back::Event::Stdout(bytes) => answer.out.extend_from_slice(bytes),
                    back::Event::Stderr(bytes) => answer.errors.extend_from_slice(bytes),
                    back::Event::End(status, ending) => answer.end = Some((status, ending)),
                }
            }
        }
        answer
    }

    /// The broker closes the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(why) => why.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A whole request of id 1.
pub(crate) fn request(script: &str, more: &[(&str, &str)], body: &[u8], keep: bool) -> Vec<u8> {
    request_in(DOCROOT, script, more, body, keep)
}

/// The same for another docroot.
pub(crate) fn request_in(
    root: &str,
    script: &str,
    more: &[(&str, &str)],
    body: &[u8],
    keep: bool,
) -> Vec<u8> {
    let file = format!("{root}{script}");
    let length = body.len().to_string();
    let mut params = vec![
        ("SCRIPT_FILENAME", file.as_str()),
        ("SCRIPT_NAME", script),
        ("REQUEST_METHOD", if body.is_empty() { "GET" } else { "POST" }),
        ("REQUEST_URI", script),
        ("CONTENT_LENGTH", if body.is_empty() { "" } else { &length }),
    ];
    params.extend_from_slice(more);
    let mut out = Vec::new();
    put_begin(&mut out, 1, Role::Responder, keep);
    let mut writer = Writer::new(&mut out, 1);
    for (name, value) in params {
        assert!(writer.push(name.as_bytes(), value.as_bytes()));
    }
    writer.finish();
    if !body.is_empty() {
        put(&mut out, kind::STDIN, 1, body);
    }
    put(&mut out, kind::STDIN, 1, &[]);
    out
}
