//! `cellwall run`: the administrator's command in the site's cell.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use crate::harness::{Launcher, everything, world};

#[test]
fn a_command_has_the_sites_identity_walls_and_environment_and_its_status_comes_back() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            std::fs::write("/etc/secret", "x").unwrap();
            let script = "id -u; id -G; pwd; echo $HOME $USER $LD_PRELOAD; cat /etc/secret; exit 7";
            let said = Command::new("/usr/bin/cellwall")
                .args(["run", "alice", "--", "sh", "-c", script])
                .env("LD_PRELOAD", "libc.so.6")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let id = world.alice.id;
            let text = String::from_utf8_lossy(&said.stdout);
            assert_eq!(text, format!("{id}\n{id}\n/var/www/alice/htdocs\n/home/alice alice\n"), "{said:?}");
            assert_eq!(said.status.code(), Some(7));
            assert!(String::from_utf8_lossy(&said.stderr).contains("/etc/secret"));
        });
    }
}

#[test]
fn what_is_not_there_is_said() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let said = world.cellwall(&["run", "alice", "--", "no-such-command"]);
        assert_eq!(said.status.code(), Some(117));
        assert!(String::from_utf8_lossy(&said.stderr).contains("no-such-command"));
        let said = world.cellwall(&["run", "nobody-here", "--", "id"]);
        assert_eq!(said.status.code(), Some(3));
    });
}

#[test]
fn at_a_terminal_the_command_gets_one_of_its_own() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let outer = nix::pty::openpty(None, None).unwrap();
        let side = || Stdio::from(outer.slave.try_clone().unwrap());
        let script = "test -t 0 && test -t 1 && echo terminal; stty size 2>/dev/null; read line; echo got $line; exit 5";
        let mut child = Command::new("/usr/bin/cellwall")
            .args(["run", "alice", "--", "sh", "-c", script])
            .env("TERM", "dumb")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        drop(outer.slave);
        let mut terminal = std::fs::File::from(outer.master);
        let mut text = String::new();
        read_until(&mut terminal, &mut text, "terminal");
        terminal.write_all(b"hello\n").unwrap();
        read_until(&mut terminal, &mut text, "got hello");
        assert_eq!(child.wait().unwrap().code(), Some(5), "{text}");
    });
}

fn read_until(terminal: &mut std::fs::File, text: &mut String, wanted: &str) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    while !text.contains(wanted) {
        let ready =
            poll(&mut [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000_u16))
                .unwrap();
        assert!(ready > 0, "{wanted} did not come: {text}");
        let mut buffer = [0; 1024];
        let count = terminal.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}
