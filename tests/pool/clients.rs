//! Each web server before each kind of worker: one daemon with a site for each worker, one web server after another.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Ask, Launcher, User, World, flup, make_directory, put, run, spawn, world};

use super::host::{Daemon, logged};
use super::web::{self, Host, Server};

/// A program that answers `UID|QUERY|PATH_INFO|METHOD`, a line's end, and the body as it came.
struct Worker {
    /// The user and the site; and what the documentation calls it.
    site: &'static str,
    name: &'static str,
    /// What the site's file says beyond the user.
    rules: &'static str,
    file: &'static str,
    text: &'static str,
}

/// Each reads all of a body before it answers: nginx sends no more of one once the answer has begun.
const PHP: &str = "<?php $body = file_get_contents('php://input'); header('Content-Type: application/octet-stream'); echo posix_getuid(), '|', $_SERVER['QUERY_STRING'] ?? '', \
                   '|', $_SERVER['PATH_INFO'] ?? '', '|', $_SERVER['REQUEST_METHOD'], \"\\n\", $body;";

const WORKERS: [Worker; 7] = [
    Worker {
        site: "php",
        name: "php-cgi, `fastcgi`",
        rules: "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\n",
        file: "a.php",
        text: PHP,
    },
    Worker {
        site: "parent",
        name: "php-cgi, `parent`",
        rules: "profile = \"php\"\n[pool]\nkind = \"parent\"\ncommand = \"/usr/bin/php-cgi\"\nchildren = 2\n",
        file: "a.php",
        text: PHP,
    },
    Worker {
        site: "perl",
        name: "Perl, FCGI",
        rules: "profile = \"perl\"\n[pool]\ncommand = \"{docroot}/a.fcgi\"\n",
        file: "a.fcgi",
        text: "#!/usr/bin/perl\nuse strict; use warnings; use FCGI;\nmy $request = FCGI::Request();\n\
               while ($request->Accept() >= 0) {\n  my ($body, $left) = ('', $ENV{CONTENT_LENGTH} || 0);\n\
               \x20 while ($left > 0) { my $got = read(STDIN, $body, $left, length $body); last unless $got; $left -= $got; }\n\
               \x20 print \"Content-Type: application/octet-stream\\r\\n\\r\\n\", join('|', $<, $ENV{QUERY_STRING} // '', \
               $ENV{PATH_INFO} // '', $ENV{REQUEST_METHOD}), \"\\n\", $body;\n}\n",
    },
    Worker {
        site: "python",
        name: "Python, flup",
        rules: "profile = \"python\"\n[pool]\ncommand = \"{docroot}/a.fcgi\"\nconcurrency = 4\n",
        file: "a.fcgi",
        text: "#!/usr/bin/python3\nimport os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))\n\
               from flup.server.fcgi import WSGIServer\n\
               def app(environ, start):\n    body = environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0))\n\
               \x20   start('200 OK', [('Content-Type', 'application/octet-stream')])\n\
               \x20   told = [environ.get(name, '') for name in ('QUERY_STRING', 'PATH_INFO', 'REQUEST_METHOD')]\n\
               \x20   return [('|'.join([str(os.getuid())] + told) + '\\n').encode(), body]\n\
               WSGIServer(app).run()\n",
    },
    Worker {
        site: "ruby",
        name: "Ruby, fcgi",
        rules: "profile = \"ruby\"\n[pool]\ncommand = \"{docroot}/a.fcgi\"\n",
        file: "a.fcgi",
        text: "#!/usr/bin/ruby\nrequire 'fcgi'\nFCGI.each do |request|\n  told = %w[QUERY_STRING PATH_INFO REQUEST_METHOD].map { \
               |name| request.env[name] }\n  request.out.print \"Content-Type: application/octet-stream\\r\\n\\r\\n\", [Process.uid, \
               *told].join('|'), \"\\n\", request.in.read\n  request.finish\nend\n",
    },
    Worker {
        site: "c",
        name: "C, libfcgi",
        rules: "profile = \"static\"\npieces = [\"base\"]\n[pool]\ncommand = \"{docroot}/a.fcgi\"\n",
        file: "a.fcgi",
        text: "#include <fcgi_stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
               static const char *of(const char *name) { const char *value = getenv(name); return value ? value : \"\"; }\n\
               static char body[1 << 20];\n\
               int main(void) { while (FCGI_Accept() >= 0) { size_t length = 0, got;\n\
               while ((got = fread(body + length, 1, sizeof body - length, stdin)) > 0) length += got;\n\
               printf(\"Content-Type: application/octet-stream\\r\\n\\r\\n%d|%s|%s|%s\\n\", (int)getuid(), of(\"QUERY_STRING\"), \
               of(\"PATH_INFO\"), of(\"REQUEST_METHOD\")); fwrite(body, 1, length, stdout); } return 0; }\n",
    },
    Worker {
        site: "plain",
        name: "plain CGI, `cgi`",
        rules: "profile = \"sh\"\n[pool]\nkind = \"cgi\"\n",
        file: "a.cgi",
        text: "#!/bin/sh\ncat > /tmp/body.$$\nprintf 'Content-Type: application/octet-stream\\r\\n\\r\\n'\n\
               echo \"$(id -u)|$QUERY_STRING|$PATH_INFO|$REQUEST_METHOD\"\ncat /tmp/body.$$\nrm /tmp/body.$$\n",
    },
];

/// A user for each worker, with its program and its site.
fn settle(world: &World, flup: &fs::File) -> Vec<(User, &'static Worker)> {
    let number = 0..u32::try_from(WORKERS.len()).unwrap();
    let users =
        WORKERS.iter().zip(number).map(|(worker, number)| (world.another(worker.site, number), worker));
    let users: Vec<_> = users.collect();
    for (user, worker) in &users {
        let docroot = user.docroot();
        let rights = if worker.file.ends_with(".php") { 0o644 } else { 0o755 };
        put(docroot.join(worker.file), &program(worker), user.id, rights);
        if worker.site == "python" {
            let library = format!("/proc/{}/fd/{}/.", std::process::id(), flup.as_raw_fd());
            make_directory(docroot.join("lib"), 0, 0o755);
            let copied = run(Command::new("cp").args(["-r", &library]).arg(docroot.join("lib/flup")));
            assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        }
        world.site(&user.name, &worker.rules.replace("{docroot}", docroot.to_str().unwrap()));
    }
    world.apply();
    users
}

fn program(worker: &Worker) -> Vec<u8> {
    if worker.site != "c" {
        return worker.text.as_bytes().to_vec();
    }
    fs::write("/mnt/echo.c", worker.text).unwrap();
    let said = run(Command::new("cc").args(["-O1", "-o", "/mnt/echo", "/mnt/echo.c", "-lfcgi"]));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    fs::read("/mnt/echo").unwrap()
}

fn ending(file: &'static str) -> &'static str {
    &file[file.find('.').unwrap()..]
}

/// What a visitor asks, however.
struct Question {
    method: &'static str,
    query: &'static str,
    info: &'static str,
    body: Vec<u8>,
}

/// With a query; with a body in which each byte stands, more than any buffer holds; with a path behind the script.
fn questions() -> [Question; 3] {
    let body = (0..300_007_u32).map(|number| number.wrapping_mul(number).to_le_bytes()[1]).collect();
    [
        Question { method: "GET", query: "a=b&c=%20d", info: "", body: Vec::new() },
        Question { method: "POST", query: "", info: "", body },
        Question { method: "GET", query: "q", info: "/more/path", body: Vec::new() },
    ]
}

impl Question {
    /// What is wrong with the answer; none: nothing.
    fn fault(&self, user: &User, status: u16, body: &[u8]) -> Option<String> {
        let mut right = format!("{}|{}|{}|{}\n", user.id, self.query, self.info, self.method).into_bytes();
        right.extend_from_slice(&self.body);
        if status == 200 && body == right {
            return None;
        }
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let method = self.method;
        Some(format!("{method} ?{} {}: {status}, {} bytes: {shown}", self.query, self.info, body.len()))
    }
}

/// The table of the documentation: a line for each web server, a column for each worker.
#[derive(Default)]
struct Table {
    lines: String,
    faults: Vec<String>,
}

impl Table {
    fn line(&mut self, name: &str, cells: Vec<Option<String>>) {
        write!(self.lines, "| {name} |").unwrap();
        for (fault, worker) in cells.into_iter().zip(&WORKERS) {
            self.lines.push_str(if fault.is_none() { " yes |" } else { " NO |" });
            self.faults.extend(fault.map(|fault| format!("{name} × {}: {fault}", worker.name)));
        }
        self.lines.push('\n');
    }

    fn whole(&self) -> String {
        let names: String = WORKERS.iter().map(|worker| format!(" {} |", worker.name)).collect();
        format!("| |{names}\n|---{}|\n{}", "|---".repeat(WORKERS.len()), self.lines)
    }
}

#[test]
fn each_web_server_is_served_by_each_kind_of_worker() {
    // Held from before the world is made, which may hide the directory of this checkout.
    let flup = fs::File::open(flup()).unwrap();
    world(Launcher::Cellwall, |world| {
        let users = settle(world, &flup);
        let _daemon = Daemon::start(world);
        let mut table = Table::default();
        let hosts: Vec<Host> =
            users.iter().zip(9001..).map(|((user, worker), port)| host(user, worker, port)).collect();
        for (name, start) in web::ALL {
            let place = Path::new("/tmp/server");
            make_directory(place, 0, 0o777);
            let server = Server::start(start, place, &hosts);
            let asked = users.iter().zip(&hosts).map(|((user, worker), host)| asked(user, worker, host));
            let before = table.faults.len();
            table.line(name, asked.collect());
            if table.faults.len() > before {
                table.faults.push(server.words());
            }
        }
        table.line("cgi-fcgi", users.iter().map(|(user, worker)| tool(user, worker)).collect());
        println!("{}", table.whole());
        assert!(table.faults.is_empty(), "{}\n{}", table.faults.join("\n"), logged(&[""]).join("\n"));
        let documented = include_str!("../../docs/web-servers.md");
        assert!(documented.contains(&table.whole()), "docs/web-servers.md has another table");
        for (user, _) in &users {
            let launches = logged(&["launch ", &format!("site={} ", user.name), "jail=view", "seccomp=on"]);
            assert!(!launches.is_empty(), "{} ran in its cell", user.name);
        }
    });
}

fn host(user: &User, worker: &Worker, port: u16) -> Host {
    Host {
        site: user.name.clone(),
        name: format!("{}.test", user.name),
        port,
        docroot: user.docroot(),
        socket: format!("/run/cellwall/pool/{}.sock", user.name).into(),
        ending: ending(worker.file),
    }
}

/// What is wrong when a visitor asks a web server.
fn asked(user: &User, worker: &Worker, host: &Host) -> Option<String> {
    questions().iter().find_map(|question| {
        let path = format!("/{}{}?{}", worker.file, question.info, question.query);
        let ask = match question.method {
            "POST" => Ask::post(&host.name, &path, question.body.clone()),
            _ => Ask::get(&host.name, &path),
        };
        let answer = ask.send(host.port);
        question.fault(user, answer.status, &answer.body)
    })
}

/// What is wrong when somebody asks from a shell, as the web server's user.
fn tool(user: &User, worker: &Worker) -> Option<String> {
    questions().iter().find_map(|question| {
        let script = user.docroot().join(worker.file);
        let mut command = Command::new("/usr/bin/cgi-fcgi");
        command.args(["-bind", "-connect", &format!("/run/cellwall/pool/{}.sock", user.name)]);
        command.env_clear().env("SCRIPT_FILENAME", script).env("SCRIPT_NAME", format!("/{}", worker.file));
        command.env("REQUEST_METHOD", question.method).env("QUERY_STRING", question.query);
        command.env("CONTENT_LENGTH", question.body.len().to_string()).env("PATH_INFO", question.info);
        let mut child = spawn(
            command.uid(33).gid(33).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()),
        );
        let mut input = child.stdin.take().unwrap();
        let body = question.body.clone();
        let writing = std::thread::spawn(move || drop(input.write_all(&body)));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n");
        let body = end.map_or(&[][..], |end| &output.stdout[end + 4..]);
        question.fault(user, 200, body).map(|fault| fault + &String::from_utf8_lossy(&output.stderr))
    })
}
