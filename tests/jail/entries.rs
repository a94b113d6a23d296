//! One cell, whatever the way in: the web, a line of cron's, an ssh command, an administrator's shell.

use std::collections::BTreeMap;
use std::process::Command;

use crate::harness::{Launcher, Report, run, world};

/// Facts of the probe that are of one start alone.
const OF_EACH: &[&str] = &[
    "arg",
    "argument_bytes",
    "arguments",
    "entries",
    "entry_bytes",
    "group",
    "marker",
    "parent",
    "pid",
    "session",
];

/// What only a request has, or only a terminal.
const OF_THE_WEB: &[&str] = &["REQUEST_METHOD", "GATEWAY_INTERFACE", "TERM", "PWD", "OLDPWD", "SHLVL", "_"];

fn told(out: &[u8]) -> BTreeMap<String, Vec<String>> {
    let text = String::from_utf8_lossy(out).into_owned();
    let mut facts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        facts.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    for values in facts.values_mut() {
        values.retain(|value| !OF_THE_WEB.iter().any(|name| value.starts_with(&format!("{name}="))));
        values.sort();
    }
    facts
}

#[test]
fn the_web_cron_and_ssh_enter_one_and_the_same_cell() {
    world(Launcher::Cellwall, |world| {
        world.site(
            "alice",
            "profile = \"sh\"\n[files]\nwrite = [\"/var/marks/{user}\"]\n[limits]\ncpu = 77\n",
        );
        world.apply();
        let probe = world.probe(&world.alice, "probe.cgi").display().to_string();
        let web = world.call(&world.alice, "probe.cgi").run();
        Report::parse(&web.out);
        // A line of /etc/cron.d, as cron starts it: by /bin/sh, as root, with four variables.
        let example = include_str!("../../packaging/cron/cellwall");
        let line = example.lines().find(|line| line.contains("cellwall jail shell")).unwrap();
        let (_, line) = line.split_once(" root ").unwrap();
        let line = line.replace("SITE", "alice").replace("COMMAND", &probe);
        let cron = run(Command::new("/bin/sh").args(["-c", &line]).env_clear().envs([
            ("HOME", "/root"),
            ("LOGNAME", "root"),
            ("PATH", "/usr/bin:/bin"),
            ("SHELL", "/bin/sh"),
        ]));
        // The ForceCommand, after sudo: root, with the account's number and a hostile environment.
        let example = include_str!("../../packaging/ssh/cellwall.conf");
        let line = example.lines().find_map(|line| line.trim().strip_prefix("ForceCommand ")).unwrap();
        let line = line.replace("/usr/bin/sudo -n ", "");
        let ssh = run(Command::new("/bin/sh")
            .args(["-c", &line])
            .env("SSH_ORIGINAL_COMMAND", &probe)
            .env("SUDO_UID", world.alice.id.to_string()));
        let web = told(&web.out);
        for (way, said) in [("cron", cron), ("ssh", ssh)] {
            assert!(said.status.success(), "{way}: {}", String::from_utf8_lossy(&said.stderr));
            let other = told(&said.stdout);
            for name in web.keys().filter(|name| !OF_EACH.contains(&name.as_str())) {
                assert_eq!(web.get(name), other.get(name), "{way}: {name}\n{web:#?}\n{other:#?}");
            }
        }
        // The probe did tell what matters.
        for name in ["uid", "gid", "groups", "umask"] {
            assert!(web.contains_key(name), "{name} in {web:#?}");
        }
        // A stranger's account has no site, and the command line cannot name another one's.
        let said =
            run(Command::new("/usr/bin/cellwall").args(["jail", "shell", "--mine"]).env("SUDO_UID", "65533"));
        assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("has no site"));
        let said = world.cellwall(&["jail", "shell", "--mine", "bob"]);
        assert_eq!(said.status.code(), Some(2));
    });
}

/// A file of older days has a name in Latin-1, and whoever copies it by ssh names it.
#[test]
fn a_command_line_is_any_bytes() {
    use std::os::unix::ffi::OsStringExt as _;
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let line = std::ffi::OsString::from_vec(b"printf %s \xfc".to_vec());
        let said = run(Command::new("cellwall").args(["jail", "shell", "alice", "-c"]).arg(line));
        assert_eq!(said.stdout, b"\xfc", "{}", String::from_utf8_lossy(&said.stderr));
    });
}
