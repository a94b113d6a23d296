//! The mistakes that people make, one after another: each is made on a running server, a visitor meets it, and what
//! `cellwall why` says of the reference names the cause and, pasted into a shell, mends the site.

#![allow(
    clippy::print_stdout,
    reason = "how many mistakes are named and mended is a figure that people read"
)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::harness::{Answer, Apache, Ask, Kind, Launcher, World, everything, mode, put, run, world};
use crate::host::{Daemon, Nginx, logged, until};
use crate::sink::Sink;

/// One mistake.
struct Mistake {
    /// What people would call it.
    name: &'static str,
    /// The code of the refusal, or the cause's name.
    cause: &'static str,
    url: &'static str,
    make: fn(&World),
    /// A command can mend it; what must be written, compiled or decided by somebody, it cannot.
    mended: bool,
}

const fn before(name: &'static str, cause: &'static str, url: &'static str, make: fn(&World)) -> Mistake {
    Mistake { name, cause, url, make, mended: true }
}

/// The program runs, and fails.
const fn after(name: &'static str, cause: &'static str, make: fn(&World)) -> Mistake {
    Mistake { name, cause, url: "/a.cgi", make, mended: true }
}

const HEAD: &str = "print \"Content-Type: text/plain\\n\\nmended\\n\";\n";

fn sh(world: &World, name: &str) -> std::path::PathBuf {
    world.script(&world.alice, name, "#!/bin/sh\necho Content-Type: text/plain\necho\necho mended\n")
}

fn shell(world: &World, line: &str) {
    let text = format!("#!/bin/sh\n{line} || exit 1\necho Content-Type: text/plain\necho\necho mended\n");
    world.script(&world.alice, "a.cgi", text);
}

fn perl(world: &World, lines: &str) {
    world.script(&world.alice, "a.cgi", format!("#!/usr/bin/perl\n{lines}\n{HEAD}"));
}

fn python(world: &World, lines: &str) {
    let text = format!("#!/usr/bin/python3 -ISB\n{lines}\nprint('Content-Type: text/plain\\n\\nmended')\n");
    world.script(&world.alice, "a.cgi", text);
}

/// A site whose administrator has listed its paths by hand, and knew of nothing else.
fn by_hand(world: &World, more: &str) {
    let files = "[files]\nexecute = [\"/usr/bin\", \"/usr/lib\", \"/usr/lib64?\"]\nread = [\"/etc/ld.so.cache?\", \
                 \"/etc/alternatives?\"]\n";
    world.site("alice", &format!("{files}{more}"));
    world.apply();
}

/// A directory that may be there already.
fn folder(path: impl AsRef<std::path::Path>, owner: u32, rights: u32) {
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(owner), Some(owner)).unwrap();
    mode(&path, rights);
}

fn own(world: &World, path: &str) {
    folder(path, world.alice.id, 0o755);
}

/// What is refused before anything runs.
const BEFORE: [Mistake; 19] = [
    before("CRLF after the first line", "V10", "/a.cgi", |world| {
        let text = "#!/bin/sh\r\necho Content-Type: text/plain\r\necho\r\necho mended\r\n";
        world.script(&world.alice, "a.cgi", text);
    }),
    before("the interpreter is in another place", "V11", "/a.cgi", |world| {
        world.script(&world.alice, "a.cgi", format!("#!/usr/local/bin/perl\n{HEAD}"));
    }),
    before("the interpreter has another name", "V11", "/a.cgi", |world| {
        world.script(
            &world.alice,
            "a.cgi",
            "#!/usr/bin/python\nprint('Content-Type: text/plain\\n\\nmended')\n",
        );
    }),
    before("no first line", "V12", "/a.pl", |world| drop(world.script(&world.alice, "a.pl", HEAD))),
    Mistake {
        mended: false,
        ..before("compiled for another machine", "V13", "/a.cgi", |world| {
            let mut other = fs::read("/usr/bin/true").unwrap();
            other[18] = 243; // EM_RISCV
            world.script(&world.alice, "a.cgi", other);
        })
    },
    before("no x on a directory above", "V115", "/a.cgi", |world| {
        sh(world, "a.cgi");
        mode("/var/www/alice", 0o700);
        chown("/var/www/alice", Some(0), Some(33)).unwrap();
        mode("/var/www/alice", 0o750);
    }),
    before("a directory that a deploy tool left group-writable", "V116", "/team/a.cgi", |world| {
        folder(world.alice.docroot().join("team"), world.alice.id, 0o775);
        sh(world, "team/a.cgi");
    }),
    before("a program that a deploy tool left group-writable", "V118", "/a.cgi", |world| {
        mode(sh(world, "a.cgi"), 0o775);
    }),
    before("the wrong owner after a copy", "V120", "/a.cgi", |world| {
        chown(sh(world, "a.cgi"), Some(0), Some(0)).unwrap();
    }),
    before("a release behind a link", "P114", "/a.cgi", |world| {
        // The docroot that Apache knows is a link to it.
        own(world, "/var/www/alice/releases");
        own(world, "/var/www/alice/releases/42");
        fs::rename(sh(world, "a.cgi"), "/var/www/alice/releases/42/a.cgi").unwrap();
        fs::remove_dir_all(world.alice.docroot()).unwrap();
        std::os::unix::fs::symlink("/var/www/alice/releases/42", world.alice.docroot()).unwrap();
    }),
    before("a program in a directory that no docroot names", "P114", "/new/a.cgi", |world| {
        own(world, "/var/www/alice/new");
        fs::rename(sh(world, "a.cgi"), "/var/www/alice/new/a.cgi").unwrap();
    }),
    Mistake {
        mended: false,
        ..before("the web server runs as another user than the host's file says", "P103", "/a.cgi", |world| {
            sh(world, "a.cgi");
            let file = "/etc/cellwall/cellwall.toml";
            let text = fs::read_to_string(file).unwrap();
            fs::write(file, text.replace("www-data", "daemon")).unwrap();
            world.apply();
        })
    },
    before("not executable", "V121", "/a.cgi", |world| mode(sh(world, "a.cgi"), 0o644)),
    before("a set-id bit", "V119", "/a.cgi", |world| mode(sh(world, "a.cgi"), 0o4755)),
    before("a second hard link", "V06", "/a.cgi", |world| {
        fs::hard_link(sh(world, "a.cgi"), "/var/www/alice/second").unwrap();
    }),
    before("an interpreter that is not on the site's list", "V15", "/a.cgi", |world| {
        sh(world, "a.cgi");
        world.site("alice", &format!("interpreters = [\"/usr/bin/perl\"]\n{}", everything("view")));
        world.apply();
    }),
    before("more variables than the site takes", "E02", "/a.cgi?x=1", |world| {
        sh(world, "a.cgi");
        world.site("alice", &format!("{}[environment]\nentries_max = 5\n", everything("view")));
        world.apply();
    }),
    before("a site that was never applied", "P121", "/a.cgi", |world| {
        sh(world, "a.cgi");
        let file = "/etc/cellwall/sites.d/alice.toml";
        let text = fs::read_to_string(file).unwrap();
        fs::remove_file(file).unwrap();
        world.apply();
        fs::write(file, text).unwrap();
    }),
    before("a noexec mount", "V16", "/a.cgi", |world| {
        sh(world, "a.cgi");
        let place = world.alice.docroot();
        let none = None::<&str>;
        mount(Some(&place), &place, none, MsFlags::MS_BIND, none).unwrap();
        mount(none, &place, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOEXEC, none).unwrap();
        world.site("alice", &everything("host"));
        world.apply();
    }),
];

/// What only shows while the program runs.
const AFTER: [Mistake; 25] = [
    after("no time zones: PHP's first date ends it", "hidden", |world| {
        world.script(
            &world.alice,
            "a.cgi",
            "#!/usr/bin/php-cgi\n<?php header('Content-Type: text/plain'); date('Y'); echo \"mended\\n\";",
        );
        by_hand(world, "[handlers]\n\".cgi\" = \"/usr/bin/php-cgi\"\n");
        world.alice_reads("/etc/php");
    }),
    after("php.ini is root's alone", "mode", |world| {
        put("/srv/php.ini", b"precision = 7\n", 0, 0o600);
        let page = "<?php if (ini_get('precision') != 7) exit(1); header('Content-Type: text/plain'); echo \"mended\\n\";";
        world.script(&world.alice, "a.cgi", page);
        world.site(
            "alice",
            "profile = \"php\"\n[files]\nread = [\"/srv/php.ini\"]\n[handlers]\n\".cgi\" = \"/usr/bin/php-cgi\"\n\
             [environment]\nset = { PHPRC = \"/srv/php.ini\" }\n",
        );
        world.apply();
    }),
    after("an extension's library is elsewhere", "hidden", |world| {
        python(world, "import sqlite3");
        by_hand(world, "");
        folder("/srv/databases", 0, 0o755);
        folder("/srv/databases/lib", 0, 0o755);
        let name = "libsqlite3.so.0";
        let here = format!("/usr/lib/{}-linux-gnu/{name}", std::env::consts::ARCH);
        fs::copy(&here, format!("/srv/databases/lib/{name}")).unwrap();
        // Else ldconfig makes its name again.
        fs::remove_file(fs::canonicalize(&here).unwrap()).unwrap();
        drop(fs::remove_file(here));
        fs::write("/etc/ld.so.conf.d/databases.conf", "/srv/databases/lib\n").unwrap();
        assert!(run(&mut Command::new("/sbin/ldconfig")).status.success());
        world.apply();
    }),
    after("a directory for sessions that is not the site's to write", "hidden", |world| {
        own(world, "/var/www/alice/sessions");
        perl(world, "open(my $file, '>', '/var/www/alice/sessions/s1') or exit 1;");
        by_hand(world, "");
    }),
    after("names of hosts are not found", "hidden", |world| {
        fs::write("/etc/hosts", "127.0.0.1 localhost database.test\n").unwrap();
        python(world, "import socket\nsocket.getaddrinfo('database.test', 80)");
        by_hand(world, "");
    }),
    after("no certificates", "hidden", |world| {
        folder("/etc/ssl/certs", 0, 0o755);
        put("/etc/ssl/certs/ca-certificates.crt", b"a certificate\n", 0, 0o644);
        python(world, "open('/etc/ssl/certs/ca-certificates.crt')");
        by_hand(world, "");
    }),
    after("the database's socket", "hidden", |world| {
        folder("/run/mysqld", 0, 0o755);
        drop(fs::remove_file("/run/mysqld/mysqld.sock"));
        std::mem::forget(UnixListener::bind("/run/mysqld/mysqld.sock").unwrap());
        mode("/run/mysqld/mysqld.sock", 0o777);
        python(world, "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/mysqld/mysqld.sock')");
        by_hand(world, "");
    }),
    after("a port that is not listed", "port", |world| {
        std::mem::forget(TcpListener::bind("127.0.0.1:3307").unwrap());
        python(world, "import socket\nsocket.socket().connect(('127.0.0.1', 3307))");
        by_hand(world, "[network]\nconnect = [25]\n");
    }),
    after("memory", "memory", |world| {
        python(world, "bytearray(150 << 20)");
        by_hand(world, "[limits]\nmemory = \"128M\"\n");
    }),
    after("memory of a control group", "memory", |world| {
        perl(world, "my $all = 'x' x (90 << 20);");
        by_hand(world, "[limits]\nmemory = \"64M\"\ncgroup = \"required\"\n");
    }),
    after("processes", "processes", |world| {
        shell(world, "for one in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait");
        // What starts a pool's programs counts as well for the launch that `why --again` makes; there may be some.
        by_hand(world, "[limits]\nprocesses = 6\n");
    }),
    after("the wall clock", "wall", |world| {
        shell(world, "sleep 1.2");
        by_hand(world, "[limits]\nwall = \"1s\"\n");
    }),
    after("processor time", "cpu", |world| {
        perl(world, "1 while (times)[0] < 1.3;");
        by_hand(world, "[limits]\ncpu = \"1s\"\n");
    }),
    after("the size of a file", "file-size", |world| {
        perl(
            world,
            "open(my $file, '>', '/tmp/large') or exit 1; print $file 'x' x 100_000; close $file or exit 1;",
        );
        by_hand(world, "[limits]\nfile_size = \"64K\"\n");
    }),
    after("open files", "open-files", |world| {
        perl(world, "my @all = map { open(my $file, '<', '/dev/null') or exit 1; $file } 1..80;");
        by_hand(world, "[limits]\nopen_files = 64\n");
    }),
    after("a system call that the list denies", "seccomp", |world| {
        // keyctl(2): the session's keyring.
        let number = if cfg!(target_arch = "x86_64") { 250 } else { 219 };
        perl(world, &format!("syscall({number}, 0, -3, 1) == -1 and exit 1;"));
        by_hand(world, "");
    }),
    after("a tool in a place of its own", "hidden", |world| {
        folder("/srv/tools", 0, 0o755);
        put("/srv/tools/convert", &fs::read("/bin/true").unwrap(), 0, 0o755);
        shell(world, "/srv/tools/convert");
        by_hand(world, "");
    }),
    after("a module in a place of its own", "hidden", |world| {
        folder("/srv/modules", 0, 0o755);
        put("/srv/modules/Shop.pm", b"package Shop; 1;\n", 0, 0o644);
        perl(world, "use lib '/srv/modules'; use Shop;");
        by_hand(world, "");
    }),
    after("no shell, which a language starts programs by", "hidden", |world| {
        perl(world, "system('true; true') == 0 or exit 1;");
        world.site(
            "alice",
            "[files]\nexecute = [\"/usr/bin/perl\", \"/usr/lib\", \"/usr/lib64?\"]\nread = [\"/etc/ld.so.cache?\"]\n",
        );
        world.apply();
    }),
    after("modules that come with the language", "hidden", |world| {
        perl(world, "use Benchmark;");
        by_hand(world, "");
    }),
    after("sendmail hands over to a set-gid program", "set-id", |world| {
        // As Postfix does: a queue that the group may write to, and a program that has the group.
        folder("/var/spool/maildrop", 0, 0o730);
        chown("/var/spool/maildrop", Some(0), Some(8)).unwrap();
        put("/usr/sbin/postdrop", &fs::read("/usr/bin/tee").unwrap(), 0, 0o755);
        chown("/usr/sbin/postdrop", Some(0), Some(8)).unwrap();
        mode("/usr/sbin/postdrop", 0o2755);
        put("/usr/sbin/sendmail", b"#!/bin/sh\nexec /usr/sbin/postdrop /var/spool/maildrop/$$\n", 0, 0o755);
        // Of the package's, which no world has by itself.
        fs::create_dir_all("/usr/share/cellwall/mail").unwrap();
        fs::write("/usr/share/cellwall/mail/msmtprc", include_str!("../../policy/mail/msmtprc")).unwrap();
        std::mem::forget(Sink::open());
        shell(world, "printf 'To: bob@shop.test\\n\\nGood day.\\n' | /usr/sbin/sendmail -t -i >/dev/null");
        world.site(
            "alice",
            "[files]\nexecute = [\"/usr/bin\", \"/usr/sbin\", \"/usr/lib\", \"/usr/lib64?\"]\n\
             read = [\"/etc/ld.so.cache?\", \"/etc/alternatives?\"]\n",
        );
        world.apply();
    }),
    after("a file of settings that a copy left to root", "mode", |world| {
        put(world.alice.docroot().join("config"), b"settings\n", 0, 0o600);
        perl(world, "open(my $file, '<', 'config') or exit 1;");
        by_hand(world, "");
    }),
    after("data outside of the docroot", "hidden", |world| {
        folder("/srv/catalogue", 0, 0o755);
        put("/srv/catalogue/prices", b"1\n", 0, 0o644);
        perl(world, "open(my $file, '<', '/srv/catalogue/prices') or exit 1;");
        by_hand(world, "");
    }),
    after("a log that the site may not write", "hidden", |world| {
        own(world, "/srv/shoplog");
        perl(world, "open(my $file, '>>', '/srv/shoplog/log') or exit 1;");
        by_hand(world, "");
    }),
    after("an answer without a header", "answer", |world| {
        world.script(&world.alice, "a.cgi", "#!/bin/sh\necho mended\n");
        by_hand(world, "");
    }),
];

impl World {
    /// One more path for alice, by the command that remedies use.
    fn alice_reads(&self, path: &str) {
        let said = self.cellwall(&["set", "alice", "files.read", path]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    /// alice's site as it is before each mistake.
    fn as_new(&self) {
        let place = self.alice.docroot();
        if place.is_symlink() {
            fs::remove_file(&place).unwrap();
        }
        folder(&place, self.alice.id, 0o755);
        mode("/var/www/alice", 0o755);
        chown("/var/www/alice", Some(0), Some(0)).unwrap();
        for entry in fs::read_dir(&place).unwrap().flatten().map(|entry| entry.path()) {
            if entry.is_dir() { fs::remove_dir_all(entry) } else { fs::remove_file(entry) }.unwrap();
        }
        self.host("");
        self.site("alice", &everything("view"));
        self.apply();
    }
}

/// Who takes the visitor's request to the launcher.
enum Server {
    /// Apache, by suEXEC's way.
    Apache(Apache),
    /// nginx, and a pool that runs the site's CGI programs.
    Pool(Nginx, #[allow(dead_code, reason = "it serves until it goes")] Daemon),
}

impl Server {
    fn ask(&self, url: &str) -> Answer {
        match self {
            Self::Apache(apache) => apache.ask(&Ask::get("alice.test", url)),
            Self::Pool(nginx, _) => nginx.ask(&Ask::get("alice.test", url)),
        }
    }

    /// Puts the mistake before it: alice's site, whatever it has become, is served by a pool.
    fn take(&self, world: &World) {
        if matches!(self, Self::Pool(..)) {
            let said = world.cellwall(&["set", "alice", "pool.kind", "cgi"]);
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            until("the pool's socket", || Path::new("/run/cellwall/pool/alice.sock").exists());
        }
    }
}

/// The youngest record: is it a refusal, its reference, its code.
fn youngest() -> (bool, String, String) {
    let line = logged(&[" ref="]).pop().unwrap_or_default();
    let field = |name: &str| {
        let value = line.split(name).nth(1).and_then(|rest| rest.split(' ').next());
        value.unwrap_or_default().to_owned()
    };
    (line.contains(" refuse ref="), field(" ref="), field(" code="))
}

/// Asks until it runs; each time `why` is asked for the reference, and its remedy is pasted. What went wrong, if it did.
fn meet(world: &World, server: &Server, mistake: &Mistake) -> Result<(), String> {
    world.as_new();
    (mistake.make)(world);
    server.take(world);
    let cause = mistake.cause;
    let mut story = String::new();
    for round in 0..6 {
        let answer = server.ask(mistake.url);
        if answer.status == 200 && answer.text() == "mended\n" {
            return if round > 0 { Ok(()) } else { Err("it was no mistake".to_owned()) };
        }
        let (refused, reference, code) = youngest();
        if refused && !answer.text().contains(&reference) {
            return Err(format!("{}: the page does not name {reference}", answer.text()));
        }
        let ended = !refused || ["B05", "B06"].contains(&code.as_str());
        let words: &[&str] = if ended { &["why", &reference, "--again"] } else { &["why", &reference] };
        let said = world.cellwall(words);
        let told =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        story.push_str(&told);
        let named = |line: &str| line.trim().strip_prefix("cause").is_some_and(|name| name.trim() == cause);
        if round == 0
            && !told.lines().any(|line| named(line) || line.contains(&format!("{cause}, exit status")))
        {
            return Err(format!("the cause is not named:\n{story}"));
        }
        if !mistake.mended {
            return Ok(());
        }
        let repair = told.lines().find_map(|line| line.trim().strip_prefix("repair")).unwrap_or("").trim();
        let pasted = run(Command::new("/bin/sh").args(["-c", repair]));
        let said = String::from_utf8_lossy(&pasted.stderr).into_owned();
        if !pasted.status.success() || repair.is_empty() || repair.starts_with('#') {
            return Err(format!("the remedy does not work: {said}\n{story}"));
        }
    }
    Err(format!("it is not mended:\n{story}"))
}

/// Meets them one after another; says how many are named and mended.
fn meet_all(world: &World, server: &Server, mistakes: &[&Mistake]) {
    let (mut named, mut mended, mut wrong) = (0, 0, Vec::new());
    for mistake in mistakes {
        match meet(world, server, mistake) {
            Ok(()) => {
                named += 1;
                mended += u32::from(mistake.mended);
                println!("named{} {}", if mistake.mended { ", mended" } else { "" }, mistake.name);
            }
            Err(why) => wrong.push(format!("== {}: {why}", mistake.name)),
        }
    }
    println!("{named} of {} mistakes are named, {mended} are mended by what is pasted", mistakes.len());
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), logged(&[""]).join("\n"));
}

fn behind_apache(mistakes: &[Mistake]) {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let new = "ScriptAlias /new/ /var/www/alice/new/\n";
        let server = Server::Apache(Apache::start(world, Kind::Event, new));
        meet_all(world, &server, &mistakes.iter().collect::<Vec<_>>());
    });
}

#[test]
fn mistakes_that_are_refused_are_named_and_mended() {
    behind_apache(&BEFORE);
}

#[test]
fn mistakes_that_show_while_the_program_runs_are_named_and_mended() {
    behind_apache(&AFTER);
}

/// What a pool says otherwise (tests/pool/mistakes.rs), and what is none there: `apply` has followed the link.
const NOT_OF_POOLS: [&str; 6] = [
    "a program in a directory that no docroot names",
    "the web server runs as another user than the host's file says",
    "more variables than the site takes",
    "a site that was never applied",
    "the wall clock",
    "a release behind a link",
];

#[test]
fn behind_a_pool_the_same_mistakes_are_named_and_mended() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let daemon = Daemon::start(world);
        let server = Server::Pool(Nginx::start(&["alice"], ""), daemon);
        let all = BEFORE.iter().chain(&AFTER);
        meet_all(
            world,
            &server,
            &all.filter(|mistake| !NOT_OF_POOLS.contains(&mistake.name)).collect::<Vec<_>>(),
        );
    });
}

/// The launcher cannot be root: its record is in the system's log, and what is to be mended is not the site's.
#[test]
fn a_launcher_that_cannot_become_root_is_named_and_mended() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        sh(world, "a.cgi");
        let daemon = world.syslog();
        let apache = Apache::start(world, Kind::Event, "");
        let ask = || apache.ask(&Ask::get("alice.test", "/a.cgi"));
        assert_eq!(ask().status, 200);
        let told = |page: &str| {
            // As a log daemon of Debian's keeps it.
            let lines: String =
                daemon.heard().iter().map(|line| format!("{}\n", line.replace("<86>", ""))).collect();
            fs::write("/var/log/auth.log", lines).unwrap();
            let reference =
                page.split("Reference: ").nth(1).and_then(|rest| rest.get(..9)).expect("a reference");
            let said = world.cellwall(&["why", reference]);
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
        };
        let repair = |story: &str| {
            story.lines().find_map(|line| line.trim().strip_prefix("repair")).unwrap_or("").trim().to_owned()
        };
        daemon.heard();
        for words in [
            &["--bind", "/usr/lib/cellwall", "/usr/lib/cellwall"][..],
            &["-o", "remount,bind,nosuid", "/usr/lib/cellwall"],
        ] {
            assert!(run(Command::new("mount").args(words)).status.success());
        }
        let answer = ask();
        assert_eq!(answer.status, 500);
        let story = told(&answer.text());
        assert!(story.contains("A01") && story.contains("nosuid"), "{story}");
        let pasted = run(Command::new("/bin/sh").args(["-c", &repair(&story)]));
        assert!(pasted.status.success(), "{story}\n{}", String::from_utf8_lossy(&pasted.stderr));
        assert_eq!(ask().status, 200, "mended by: {}", repair(&story));

        // A unit with NoNewPrivileges=yes: without systemd only its cause and its cure can be told.
        daemon.heard();
        let refused = world.call(&world.alice, "a.cgi").order(&["no_new_privs"]).unrecorded();
        let story = told(&refused.out_text());
        assert!(story.contains("A01") && story.contains("NoNewPrivileges"), "{story}");
        assert!(repair(&story).contains("NoNewPrivileges=no"), "{story}");
    });
}
