//! The pieces: mail, sockets of services, languages; and what an apply says about one that is not on the host.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Launcher, World, make_directory, spawn, world};
use crate::sink::Sink;

/// What an installation puts in /usr/share.
pub(crate) fn share() {
    make_directory("/usr/share/cellwall", 0, 0o755);
    make_directory("/usr/share/cellwall/mail", 0, 0o755);
    let text = include_str!("../../policy/mail/msmtprc");
    fs::write("/usr/share/cellwall/mail/msmtprc", text).unwrap();
}

fn site(world: &World, rules: &str) {
    world.site("alice", rules);
    world.apply();
}

#[test]
fn mail_goes_to_the_hosts_server_without_any_set_id_program() {
    world(Launcher::Cellwall, |world| {
        share();
        let sink = Sink::open();
        site(world, "profile = \"php\"\npieces = [\"mail\"]\n[network]\nconnect = []\n");
        let text =
            "<?php echo mail('bob@shop.test', 'Order 7', \"ready\\n\", 'X-Shop: 1') ? 'sent' : 'not sent';";
        world.script(&world.alice, "a.php", text);
        let outcome = world.call(&world.alice, "a.php").run();
        assert!(
            outcome.out_text().ends_with("sent") && !outcome.out_text().contains("not"),
            "{}",
            outcome.story()
        );
        let message = sink.message();
        for part in ["MAIL FROM:<alice@", "RCPT TO:<bob@shop.test>", "Subject: Order 7", "X-Shop: 1", "ready"]
        {
            assert!(message.contains(part), "{part} in {message}");
        }
        // The same by hand, as Perl and shell scripts do it.
        let script = "#!/bin/sh\necho Content-Type: text/plain; echo\n\
                      printf 'To: carol@shop.test\\nSubject: two\\n\\nx\\n' | /usr/lib/sendmail -t -i && echo sent\n";
        world.script(&world.alice, "a.cgi", script);
        // Debian's link in /usr/lib comes with a mail server; without one scripts call /usr/sbin/sendmail.
        if !Path::new("/usr/lib/sendmail").exists() {
            world.script(&world.alice, "a.cgi", script.replace("/usr/lib/sendmail", "/usr/sbin/sendmail"));
        }
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("sent"), "{}", outcome.story());
        assert!(sink.message().contains("RCPT TO:<carol@shop.test>"));
    });
}

/// Redis with a socket that all may use, in a directory of its own, made anew at each start as systemd does.
pub(crate) fn redis() -> Child {
    drop(fs::remove_dir_all("/run/redis"));
    let id = redis_id();
    make_directory("/run/redis", id, 0o755);
    let mut server = Command::new("/usr/bin/redis-server");
    server.args(["--port", "0", "--unixsocket", "/run/redis/redis-server.sock", "--unixsocketperm", "777"]);
    server.args(["--save", "", "--dir", "/run/redis"]).stdin(Stdio::null()).stdout(Stdio::null());
    let child = spawn(std::os::unix::process::CommandExt::uid(&mut server, id));
    until("redis listens", || {
        std::os::unix::net::UnixStream::connect("/run/redis/redis-server.sock").is_ok()
    });
    child
}

fn redis_id() -> u32 {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("redis:")).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const PING: &str = r#"#!/usr/bin/python3
import socket
print('Content-Type: text/plain\n')
try:
    s = socket.socket(socket.AF_UNIX); s.connect('/run/redis/redis-server.sock'); s.send(b'PING\r\n'); print(s.recv(99).decode().strip())
except OSError as why: print(why)
"#;

#[test]
fn a_services_socket_is_there_where_the_piece_is_named_and_survives_a_restart_of_the_service() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "a.py", PING);
        let ask = || {
            let outcome = world.call(&world.alice, "a.py").run();
            (outcome.out_text(), outcome.records[0].field("jail").to_owned())
        };
        let mut server = redis();
        site(world, "profile = \"python\"\n");
        assert!(ask().0.contains("No such file"), "{:?}", ask());
        site(world, "profile = \"python\"\npieces = [\"redis\"]\n");
        let (said, jail) = ask();
        assert!(said.contains("+PONG") && jail == "view", "{said} {jail}");
        server.kill().unwrap();
        server.wait().unwrap();
        fs::remove_dir_all("/run/redis").unwrap();
        // A service that is down stops nothing but its own use.
        assert!(ask().0.contains("No such file"), "{:?}", ask());
        let mut server = redis();
        assert!(ask().0.contains("+PONG"), "{:?}", ask());
        server.kill().unwrap();
        server.wait().unwrap();
        fs::remove_dir_all("/run/redis").unwrap();
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && text.contains("no service listens at /run/redis/"), "{text}");
        assert!(
            text.contains("start the service; if it is not there, run: apt-get install redis-server"),
            "{text}"
        );
        assert!(text.contains("apt-get install redis-server"), "{text}");
    });
}

#[test]
fn a_docroot_that_a_deploy_replaced_is_the_new_one_at_the_next_request() {
    world(Launcher::Cellwall, |world| {
        site(world, "profile = \"sh\"\n");
        let script = |text: &str| format!("#!/bin/sh\necho Content-Type: text/plain; echo; echo {text}\n");
        world.script(&world.alice, "a.cgi", script("old"));
        assert!(world.call(&world.alice, "a.cgi").run().out_text().contains("old"));
        fs::rename(world.alice.docroot(), "/var/www/alice/before").unwrap();
        make_directory(world.alice.docroot(), world.alice.id, 0o755);
        world.script(&world.alice, "a.cgi", script("new"));
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(outcome.out_text().contains("new"), "{}", outcome.story());
        assert_eq!(outcome.records[0].field("jail"), "view-built", "{}", outcome.story());
        world.apply();
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert_eq!(outcome.records[0].field("jail"), "view", "{}", outcome.story());
    });
}

#[test]
fn ruby_and_node_run_in_their_profiles() {
    let ruby = "#!/usr/bin/ruby\nrequire 'json'; require 'time'; require 'tempfile'; require 'openssl'; require 'socket'\n\
                ENV['TZ'] = 'Europe/Athens'\n\
                puts \"Content-Type: text/plain\\n\\n\"\n\
                puts [JSON.generate([1]), Time.at(0).zone, File.dirname(Tempfile.new('x').path), `id -un`.strip, \
                      Addrinfo.tcp('localhost', 80).ip_address.length > 2].join(' ')\n";
    let node = "#!/usr/bin/node\nconst os = require('os'), fs = require('fs'), child = require('child_process');\n\
                console.log('Content-Type: text/plain\\n');\n\
                console.log(JSON.stringify([1]), new Date(0).toLocaleString('en-GB', {timeZone: 'Europe/Athens'}).slice(0, 10), \
                os.tmpdir(), child.execSync('id -un').toString().trim(), fs.existsSync('/var/www/bob'));\n";
    world(Launcher::Cellwall, |world| {
        for (profile, text, expected) in
            [("ruby", ruby, "[1] EET /tmp alice true"), ("node", node, "[1] 01/01/1970 /tmp alice false")]
        {
            site(world, &format!("profile = \"{profile}\"\n"));
            world.script(&world.alice, "a.cgi", text);
            let outcome = world.call(&world.alice, "a.cgi").run();
            assert!(outcome.out_text().contains(expected), "{profile}: {}", outcome.story());
        }
    });
}

#[test]
fn a_piece_whose_program_is_not_on_the_host_is_an_error_that_names_the_package() {
    world(Launcher::Cellwall, |world| {
        fs::remove_file("/usr/bin/msmtp").unwrap();
        share();
        world.site("alice", "profile = \"sh\"\npieces = [\"mail\"]\n");
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{text}");
        for part in ["/usr/bin/msmtp does not exist", "pieces/mail.toml:", "run: apt-get install msmtp"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        // The administrator's own piece wins, and may leave the line out.
        fs::create_dir("/etc/cellwall/pieces").unwrap();
        fs::write("/etc/cellwall/pieces/mail.toml", "description = \"none\"\npieces = [\"base\"]\n").unwrap();
        world.apply();
    });
}

#[test]
fn a_cell_of_several_languages_has_the_largest_of_their_limits() {
    world(Launcher::Cellwall, |world| {
        for pieces in ["[\"sh\", \"php\"]", "[\"php\", \"sh\"]"] {
            site(world, &format!("pieces = {pieces}\n"));
            let said = world.cellwall(&["policy", "alice"]);
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            assert!(text.contains("limits.memory: 1G   # (built in) policy/pieces/php.toml:"), "{text}");
            assert!(text.contains("limits.processes: 64   # (built in) policy/pieces/base.toml:"), "{text}");
        }
    });
}
