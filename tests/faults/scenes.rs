//! The launches that are disturbed: each kind of cell, of program, of log and of refusal. The caller left behind all
//! that a caller can, so that a step of the cleaning that is left out shows in the program's report.

use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::harness::{Call, World, append, everything, make_directory, mode, put, small};

/// A launch, and what it needs.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// Makes site and program.
    pub(crate) prepare: fn(&World),
    /// The launch itself.
    pub(crate) call: fn(&World) -> Call<'_>,
    /// The code of the refusal that is the right outcome; none: it runs.
    pub(crate) refused: Option<&'static str>,
    /// Somebody listens on /dev/log.
    pub(crate) syslog: bool,
}

pub(crate) const SCENES: [Scene; 20] = [
    Scene { name: "host", prepare: |world| probe(world, "host"), ..RUNS },
    Scene { name: "view", prepare: |world| probe(world, "view"), ..RUNS },
    Scene { name: "view built on the spot", prepare: view_to_build, ..RUNS },
    Scene { name: "chroot", prepare: chroot, call: in_chroot, ..RUNS },
    Scene { name: "script", prepare: script, ..RUNS },
    Scene { name: "php-cgi", prepare: php, call: |world| from(world, "a.php"), ..RUNS },
    Scene { name: "handler", prepare: handler, call: |world| from(world, "a.data"), ..RUNS },
    Scene { name: "program of root's", prepare: program, call: roots_program, ..RUNS },
    Scene { name: "linked docroot", prepare: linked, call: in_release, ..RUNS },
    Scene { name: "userdir", prepare: userdir, call: tilde, ..RUNS },
    Scene { name: "mail exception", prepare: mail, ..RUNS },
    Scene { name: "control group", prepare: control_group, ..RUNS },
    Scene { name: "fastcgi", call: listening, ..RUNS },
    Scene { name: "log file alone", syslog: false, ..RUNS },
    Scene { name: "log to syslog", prepare: |world| log(world, "to = \"syslog\""), ..RUNS },
    Scene { name: "accounts have changed", prepare: other_accounts, ..RUNS },
    Scene { name: "refused: no policy", call: nobody, refused: Some("P121"), ..RUNS },
    Scene { name: "refused: writable", prepare: writable, refused: Some("V118"), ..RUNS },
    Scene { name: "refused: another's uid", prepare: another, refused: Some("P03"), ..RUNS },
    Scene { name: "refused: in suEXEC's words", prepare: old_format, refused: Some("V118"), ..RUNS },
];

const RUNS: Scene = Scene {
    name: "",
    prepare: |world| probe(world, "host"),
    call: |world| from(world, "a.cgi"),
    refused: None,
    syslog: true,
};

/// What no site may read, and anybody else may.
pub(crate) const FORBIDDEN: &str = "/var/forbidden";

/// A call by a caller that leaves everything behind that can be left.
fn from<'w>(world: &'w World, command: &str) -> Call<'w> {
    let mut call = world
        .call(&world.alice, command)
        .deed(&format!("read:{FORBIDDEN}"))
        .env("LD_PRELOAD=/tmp/x.so")
        .env("HTTP_PROXY=x")
        .env(format!("SCRIPT_FILENAME={}", world.alice.docroot().join(command).display()))
        .env("broken")
        .root(&["nice", "3"]);
    for order in [
        &["timer", "real", "600000"][..],
        &["timer", "virtual", "600000"],
        &["timer", "prof", "600000"],
        &["ignore", "all"],
        &["block", "all"],
        &["umask", "0"],
        &["batch", "3"],
        &["cpus", "1"],
        &["io", "24576"],
        &["slack", "99999"],
        &["fd", "9", "directory", "/"],
        &["fd", "20", "socket", ""],
        &["limit", "4", "1000000", "1000000"],
        &["limit", "1", "10", "-1"],
        &["limit", "7", "64", "2048"],
        &["limit", "12", "1000", "819200"],
        &["keyring"],
    ] {
        call = call.order(order);
    }
    call
}

fn rules(jail: &str) -> String {
    format!("{}{WALL}", small(jail))
}

fn probe(world: &World, jail: &str) {
    world.sites(&rules(jail));
    world.probe(&world.alice, "a.cgi");
}

fn view_to_build(world: &World) {
    probe(world, "view");
    let kept = fs::read_dir("/run/cellwall/views").unwrap().map(|entry| entry.unwrap().path());
    assert!(Command::new("umount").arg("-l").args(kept).status().unwrap().success());
}

const JAIL: &str = "/var/www/jail";

fn chroot(world: &World) {
    let name = &world.alice.name;
    for directory in ["", "/htdocs", "/var", "/var/marks", &format!("/var/marks/{name}")] {
        make_directory(format!("{JAIL}{directory}"), 0, 0o755);
    }
    put(format!("{JAIL}{FORBIDDEN}"), b"secret", 0, 0o644);
    let none = None::<&str>;
    let marks = format!("/var/marks/{name}");
    mount(Some(marks.as_str()), format!("{JAIL}{marks}").as_str(), none, MsFlags::MS_BIND, none).unwrap();
    chown(format!("{JAIL}/htdocs"), Some(world.alice.id), Some(world.alice.id)).unwrap();
    let rules =
        rules("chroot").replace("kind = \"chroot\"", &format!("kind = \"chroot\"\ndirectory = \"{JAIL}\""));
    let text = format!("user = \"{name}\"\ndocroot = \"{JAIL}/htdocs\"\n{rules}");
    fs::write(format!("/etc/cellwall/sites.d/{name}.toml"), text).unwrap();
    world.apply();
    world.probe_at(&world.alice, format!("{JAIL}/htdocs/a.cgi"));
}

fn in_chroot(world: &World) -> Call<'_> {
    from(world, "a.cgi").cwd(format!("{JAIL}/htdocs"))
}

fn script(world: &World) {
    world.sites(&format!("{}{WALL}", everything("host")));
    world.probe(&world.alice, "probe");
    world.script(&world.alice, "a.cgi", "#!/bin/sh\nexec ./probe \"$0\"\n");
}

fn php(world: &World) {
    world.sites(&format!("{}{WALL}", everything("view")));
    let probe = world.probe(&world.alice, "probe");
    let text = format!("<?php echo __FILE__, \"\\n\"; flush(); passthru('exec {}');", probe.display());
    put(world.alice.docroot().join("a.php"), text.as_bytes(), world.alice.id, 0o644);
}

/// The interpreter is the probe itself, under the name of php-cgi: its report shows what php-cgi is given.
fn handler(world: &World) {
    let interpreter = "/usr/local/lib/php-cgi";
    world.probe_at(&world.alice, interpreter);
    chown(interpreter, Some(0), Some(0)).unwrap();
    let more =
        format!("execute = [\"{interpreter}\"]\n{WALL}[handlers]\n\".data\" = [\"{interpreter}\", \"-w\"]\n");
    world.sites(&format!("{}{more}", small("view")));
    put(world.alice.docroot().join("a.data"), b"data", world.alice.id, 0o644);
}

fn program(world: &World) {
    let path = "/usr/local/lib/tool";
    world.probe_at(&world.alice, path);
    chown(path, Some(0), Some(0)).unwrap();
    world.sites(&format!("programs = [\"{path}\"]\n{}", rules("host")));
}

fn roots_program(world: &World) -> Call<'_> {
    from(world, "tool").cwd("/usr/local/lib")
}

const BASE: &str = "/var/www/alice";

fn linked(world: &World) {
    let id = world.alice.id;
    chown(BASE, Some(id), Some(id)).unwrap();
    for directory in ["releases", "releases/1", "releases/1/cgi"] {
        make_directory(format!("{BASE}/{directory}"), id, 0o755);
    }
    symlink("releases/1", format!("{BASE}/current")).unwrap();
    lchown(format!("{BASE}/current"), Some(id), Some(id)).unwrap();
    let text = format!(
        "user = \"alice\"\ndocroot = \"{BASE}/current/cgi\"\nsymlinks = \"owner-match\"\n{}",
        rules("host")
    );
    fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
    world.apply();
    world.probe_at(&world.alice, format!("{BASE}/releases/1/cgi/a.cgi"));
}

fn in_release(world: &World) -> Call<'_> {
    from(world, "a.cgi").cwd(format!("{BASE}/releases/1/cgi"))
}

fn userdir(world: &World) {
    world.host(
        "[userdir]\nenabled = true\nprofile = \"static\"\njail.kind = \"view\"\nlimits.wall = \"10m\"\n\
         files.write = [\"/var/marks/{user}?\"]\n",
    );
    world.apply();
    world.probe_at(&world.alice, world.alice.home().join("public_html/a.cgi"));
}

fn tilde(world: &World) -> Call<'_> {
    from(world, "a.cgi").word(1, format!("~{}", world.alice.id)).cwd(world.alice.home().join("public_html"))
}

fn other_accounts(world: &World) {
    probe(world, "host");
    append("/etc/passwd", "dave:x:30055:30055::/home/dave:/bin/sh\n");
}

fn another(world: &World) {
    probe(world, "host");
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    fs::write("/etc/passwd", accounts.replace("\nalice:", "\ncarol:")).unwrap();
}

fn mail(world: &World) {
    fs::write(
        "/etc/cellwall/cellwall.toml",
        "caller = \"www-data\"\nallow_dangerous = true\n[log]\nto = \"file\"\n",
    )
    .unwrap();
    let more = "[privileges]\ndangerous_set_id_mail = true\n";
    world.site("alice", &format!("{}cgroup = \"off\"\n{more}", rules("host")));
    world.apply();
    world.probe(&world.alice, "a.cgi");
}

fn control_group(world: &World) {
    world.host("");
    let more = "memory = \"64M\"\nprocesses = 20\ncgroup = \"required\"\n";
    world.site("alice", &format!("{}{more}", rules("host")));
    world.apply();
    world.probe(&world.alice, "a.cgi");
}

fn listening(world: &World) -> Call<'_> {
    drop(fs::remove_file("/tmp/socket"));
    from(world, "a.cgi").order(&["fd", "0", "listen", "/tmp/socket"])
}

fn log(world: &World, sink: &str) {
    let text = format!(
        "caller = \"www-data\"\ndocroot = \"/var/www\"\n[log]\n{sink}\n[defaults.limits]\ncgroup = \"off\"\n"
    );
    fs::write("/etc/cellwall/cellwall.toml", text).unwrap();
    probe(world, "host");
}

fn nobody(world: &World) -> Call<'_> {
    let stranger = (world.alice.id + 5).to_string();
    from(world, "a.cgi").word(1, &stranger).word(2, &stranger)
}

fn writable(world: &World) {
    probe(world, "view");
    mode(world.alice.docroot().join("a.cgi"), 0o777);
}

fn old_format(world: &World) {
    log(world, "to = \"file\"\nformat = \"suexec\"");
    mode(world.alice.docroot().join("a.cgi"), 0o777);
}

/// The last limit of all: it ends the launcher's own deadline.
const WALL: &str = "[limits]\nwall = \"10m\"\n";
