//! `cellwall run`: the administrator's command in the site's cell.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use crate::harness::{Launcher, everything, make_directory, put, small, world};

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
        // One that is there and may not start is told by its own path.
        world.site("alice", &small("host"));
        world.apply();
        let said = world.cellwall(&["run", "alice", "--", "/bin/ls"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(text.starts_with("error: /bin/ls: cannot start") && !text.contains("//"), "{text}");
        let said = world.cellwall(&["run", "nobody-here", "--", "id"]);
        assert_eq!(said.status.code(), Some(1));
    });
}

/// Of an account that has gone a look at the account shows nothing: what is pasted leads to the line that names it.
#[test]
fn an_account_that_is_gone_is_told_with_a_command_that_leads_on() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("host"));
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        let pasted = |words: &[&str], label: &str| {
            let said = world.cellwall(words);
            let told = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
            assert!(told.contains("(P03)"), "{told}");
            let remedy = told.lines().find_map(|line| line.trim().strip_prefix(label)).unwrap().to_owned();
            let done = crate::harness::run(Command::new("sh").args(["-c", &remedy]));
            (remedy, String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
        };
        std::fs::write("/etc/passwd", accounts.replace("\nalice:", "\nalyce:")).unwrap();
        for (words, label) in
            [(&["run", "alice", "--", "true"][..], "help: "), (&["jail", "check", "alice"], "-> to mend it")]
        {
            let (remedy, told) = pasted(words, label);
            assert!(told.contains("is `alyce` now") && told.contains("/alice.toml:1:"), "{remedy}: {told}");
        }
        // It is there, and another one: it is shown, and whoever looks decides.
        std::fs::write("/etc/passwd", accounts).unwrap();
        std::fs::rename(world.alice.home(), "/home/before").unwrap();
        make_directory(world.alice.home(), world.alice.id, 0o755);
        let (_, told) = pasted(&["run", "alice", "--", "true"], "help: ");
        assert!(told.starts_with("alice:x:") && told.lines().count() == 1, "{told}");
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

/// Leaves a process behind that is no part of any group of ours, and that goes for every terminal that it can reach.
const THIEF: &str = r#"#!/usr/bin/perl
use POSIX; use Fcntl;
$SIG{$_} = 'IGNORE' for qw(TTOU TTIN HUP);
exit 0 if fork();
POSIX::setpgid(0, 0);
open(my $out, '>>', '/srv/out/thief'); select($out); $| = 1;
sleep 1;
my @all = grep { defined } map { my $fd; open($fd, "+<&=$_") ? $fd : undef } 0 .. 2;
fcntl($_, F_SETFL, fcntl($_, F_GETFL, 0) | O_NONBLOCK) for @all;
print $out "began\n";
if (sysopen(my $tty, '/dev/tty', O_RDWR)) { push @all, $tty; print $out "opened\n" }
for my $fd (@all) { POSIX::tcsetpgrp(fileno($fd), getpgrp()); ioctl($fd, 0x5412, my $letter = 'X') }
my $end = time + 3;
while (time < $end) {
    my $bits = ''; vec($bits, fileno($_), 1) = 1 for grep { -t $_ } @all;
    select($bits, undef, undef, 0.2) or next;
    for my $fd (grep { vec($bits, fileno($_), 1) } @all) { sysread($fd, my $text, 99) and print $out "read $text\n" }
    select(undef, undef, undef, 0.05);
}
"#;

/// An administrator's shell, at a terminal that controls its session: types a word when the command runs or has ended, and
/// tells who got it and who is in front.
const SHELL: &str = r#"
import os, pty, select, signal, subprocess, sys, time
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    subprocess.run(sys.argv[1], shell=True)
    ready = select.select([0], [], [], 6)[0]
    try: got = os.read(0, 99) if ready else b''
    except OSError as error: got = repr(error).encode()
    front = os.tcgetpgrp(0) == os.getpgrp()
    open('/srv/out/shell', 'w').write('got %r front %s' % (got, front))
    os._exit(0)
until = time.time() + 2
typed = False
while True:
    if not typed and time.time() > until:
        os.write(terminal, b'secret\n'); typed = True
    if select.select([terminal], [], [], 0.1)[0]:
        try:
            if not os.read(terminal, 999): break
        except OSError: break
os.waitpid(pid, 0)
"#;

#[test]
fn no_program_in_a_cell_reaches_the_administrators_terminal() {
    for command in [
        "cellwall run alice -- /srv/out/thief.pl",
        "cellwall run alice -- /srv/out/thief.pl >/srv/log",
        "cellwall run alice -- /srv/out/thief.pl </dev/null",
        "cellwall run alice -- /srv/out/thief.pl 2>/srv/log",
        "cellwall run alice -- /srv/out/thief.pl </dev/null >/srv/log 2>&1",
        "cellwall run alice -- /srv/out/thief.pl | cat",
        "cellwall learn alice -- /srv/out/thief.pl",
    ] {
        world(Launcher::Cellwall, |world| {
            make_directory("/srv/out", world.alice.id, 0o755);
            put("/srv/out/thief.pl", THIEF.as_bytes(), world.alice.id, 0o755);
            // No wall but that there is nothing to reach.
            world.site(
                "alice",
                "profile = \"perl\"\n[jail]\nkind = \"host\"\nseccomp = \"off\"\nlandlock = \"off\"\n",
            );
            world.apply();
            let said = crate::harness::run(Command::new("/usr/bin/python3").args(["-c", SHELL, command]));
            let read = |name: &str| std::fs::read_to_string(format!("/srv/out/{name}")).unwrap_or_default();
            let thief = read("thief");
            assert!(thief.contains("began"), "{command}: {thief} {said:?}");
            assert!(!thief.contains("opened") && !thief.contains("read"), "{command}: {thief}");
            assert_eq!(read("shell"), "got b'secret\\n' front True", "{command}: {thief}");
        });
    }
}

#[test]
fn what_is_no_terminal_stays_what_it_is() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let text = "import pty,sys; pty.spawn(['/bin/sh', '-c', sys.argv[1]])";
        let script = "test -t 1 || echo file; test -t 0 && test -t 2 && echo own >&2; exit 5";
        let line = format!("cellwall run alice -- sh -c '{script}' >/srv/log; echo status $?");
        let said = crate::harness::run(
            Command::new("/usr/bin/python3").args(["-c", text, &line]).stdin(Stdio::null()),
        );
        let shown = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(shown.contains("own") && shown.contains("status 5"), "{shown}");
        assert_eq!(std::fs::read_to_string("/srv/log").unwrap(), "file\n");
    });
}
