//! Ways out of a cell: JAIL-01 to JAIL-15 of the threat catalogue.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::{
    Call, Launcher, Outside, Report, User, World, each_jail, make_directory, mode, orders, put, run, small,
    traced, world,
};
use crate::inh::FACTS;
use crate::promise::is_possible;

/// A file of the host's that is in no cell.
const CANARY: &str = "/srv/canary";

/// The same attempts of the same user outside of all cells, with a directory of the host's open as descriptor 5: what a test of
/// the cell denies must be possible here, or it shows nothing.
pub(crate) fn outside(user: &User, directory: &Path, wishes: &[String]) -> Report {
    let id = user.id.to_string();
    let words = ["cwd", directory.to_str().unwrap(), "fd", "5", "directory", "/", "become", &id, &id, &id];
    let last =
        ["env", &format!("QUERY_STRING={}", wishes.join("&")), "arg", "escape", "exec", "/mnt/bin/escape"];
    let file = orders(&words.into_iter().chain(last).collect::<Vec<_>>());
    Report::parse(&run(std::process::Command::new("/mnt/bin/call").arg(file)).stdout)
}

fn all_are_done(report: &Report, wishes: &[String]) {
    for wish in wishes {
        let name = wish.split(':').next().unwrap();
        assert_eq!(report.attempt(name), "done", "{wish} is no way out:\n{}", report.text());
    }
}

/// Runs the program that tries to get out; each wish is NAME:VALUE.
pub(crate) fn tries(call: Call<'_>, wishes: &[String]) -> Report {
    call.env(format!("QUERY_STRING={}", wishes.join("&"))).run().ran()
}

fn all_fail(report: &Report, wishes: &[String]) {
    for wish in wishes {
        let name = wish.split(':').next().unwrap();
        assert_ne!(report.attempt(name), "done", "{wish} got out:\n{}", report.text());
    }
}

fn wishes(all: &[&str]) -> Vec<String> {
    all.iter().map(|wish| (*wish).to_owned()).collect()
}

fn furnish(world: &World) {
    put(CANARY, b"secret", 0, 0o644);
    world.escape(&world.alice, "a.cgi");
}

/// A process of the same uid outside of the cell that gives its descriptors away.
pub(crate) fn helper(world: &World, user: &User) -> Outside {
    make_directory("/srv/open", 0, 0o777);
    let mut helper = world.outside(user, &["/mnt/bin/escape", "serve", "helper", "/srv/open/socket"]);
    assert_eq!(helper.first_line(), "ready\n");
    helper
}

/// 64 times up from the working directory, through every descriptor, by name.
const UP: [&str; 3] = ["climb:srv/canary", "descriptors:srv/canary", "open:/srv/canary"];

#[test]
fn jail_01_there_is_no_way_up_and_no_descriptor_that_leads_out() {
    each_jail(|world| {
        furnish(world);
        let ways = wishes(&UP);
        all_are_done(&outside(&world.alice, &world.alice.docroot(), &ways), &ways);
        // A directory of the host's is open, and the working directory is a way up.
        let call = world.call(&world.alice, "a.cgi").root(&["fd", "5", "directory", "/"]);
        all_fail(&tries(call, &ways), &ways);
    });
}

#[test]
fn jail_01_a_chroot_is_not_left_either() {
    world(Launcher::Cellwall, |world| {
        furnish(world);
        let ways = wishes(&UP);
        all_are_done(&outside(&world.alice, Path::new("/"), &ways), &ways);
        let more = [ways, wishes(&["chroot:", "mount:"])].concat();
        all_fail(&tries(chrooted(world).root(&["fd", "5", "directory", "/"]), &more), &more);
    });
}

/// Alice's site as a chroot without Landlock: the bare old jail.
fn chrooted(world: &World) -> Call<'_> {
    let jail = "/var/www/jail";
    if !fs::exists(jail).unwrap() {
        make_directory(jail, 0, 0o755);
        make_directory(format!("{jail}/htdocs"), world.alice.id, 0o755);
        let rules = format!(
            "user = \"alice\"\ndocroot = \"{jail}/htdocs\"\nprofile = \"static\"\n[jail]\nkind = \"chroot\"\n\
             directory = \"{jail}\"\nlandlock = \"off\"\n"
        );
        fs::write("/etc/cellwall/sites.d/alice.toml", rules).unwrap();
        world.apply();
        fs::copy("/mnt/bin/escape", format!("{jail}/htdocs/a.cgi")).unwrap();
        chown(format!("{jail}/htdocs/a.cgi"), Some(world.alice.id), Some(world.alice.id)).unwrap();
    }
    world.call(&world.alice, "a.cgi").cwd(format!("{jail}/htdocs"))
}

#[test]
fn jail_02_03_04_a_process_of_the_same_user_outside_is_no_door() {
    each_jail(|world| {
        furnish(world);
        let helper = helper(world, &world.alice);
        let pid = helper.pid();
        let mut ways = wishes(&["abstract-door:helper", "socket:/srv/open/socket"]);
        for way in [
            "proc-root",
            "proc-cwd",
            "proc-fd",
            "proc-environ",
            "proc-mem",
            "ptrace",
            "readv",
            "getfd",
            "signal",
        ] {
            ways.push(format!("{way}:{pid}"));
        }
        let report = tries(world.call(&world.alice, "a.cgi"), &ways);
        // A kernel's older Landlock lets signals out, and nothing else of these.
        let signal = ways.pop().unwrap();
        all_fail(&report, &ways);
        assert_eq!(report.attempt("signal") == "done", is_possible(world, "signal"), "{}", report.text());
        ways.push(signal);
        // Outside, all of these are open to the same user: the helper is there, and the ways are ways.
        let open = run(std::process::Command::new("setpriv")
            .args(["--reuid", &world.alice.id.to_string(), "--regid", &world.alice.id.to_string()])
            .args(["--clear-groups", "/mnt/bin/escape"])
            .env("QUERY_STRING", ways.join("&")));
        let report = Report::parse(&open.stdout);
        for way in [
            "abstract-door",
            "socket",
            "proc-root",
            "proc-fd",
            "proc-environ",
            "proc-mem",
            "ptrace",
            "readv",
            "getfd",
            "signal",
        ] {
            assert_eq!(report.attempt(way), "done", "{}", report.text());
        }
    });
}

#[test]
fn jail_06_a_set_uid_program_in_the_cell_gives_nothing() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            fs::copy("/mnt/bin/escape", "/usr/local/lib/left-open").unwrap();
            mode("/usr/local/lib/left-open", 0o4755);
            world.sites(&format!("{}execute = [\"/usr/local/lib/left-open\"]\n", small(jail)));
            furnish(world);
            let report =
                tries(world.call(&world.alice, "a.cgi"), &wishes(&["execute:/usr/local/lib/left-open"]));
            let id = world.alice.id;
            assert_eq!(report.all("uid"), [format!("{id} {id}"), format!("{id} {id}")], "{}", report.text());
        });
    }
}

#[test]
fn jail_07_a_device_in_the_docroot_is_no_device_in_a_view() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        furnish(world);
        for (name, kind, number) in
            [("disk", SFlag::S_IFBLK, makedev(7, 0)), ("memory", SFlag::S_IFCHR, makedev(1, 5))]
        {
            let path = world.alice.docroot().join(name);
            mknod(&path, kind, Mode::S_IRWXU, number).unwrap();
            chown(&path, Some(world.alice.id), Some(world.alice.id)).unwrap();
            let way = wishes(&[&format!("open:{}", path.display())]);
            let report = tries(world.call(&world.alice, "a.cgi"), &way);
            assert_eq!(report.attempt("open"), "EACCES", "{name}:\n{}", report.text());
            // Outside it is a device; not every machine has that disk.
            if name == "memory" {
                all_are_done(&outside(&world.alice, Path::new("/"), &way), &way);
            }
        }
    });
}

/// Calls that change the world, and what the cell answers: the filter's EPERM, whatever the arguments are worth.
const CALLS: [&str; 16] = [
    "mount:",
    "umount:",
    "pivot_root:",
    "chroot:",
    "setns:",
    "userns:",
    "mountns:",
    "clone-userns:",
    "bpf:",
    "keyctl:",
    "perf:",
    "handle:",
    "userfaultfd:",
    "io_uring:",
    "mknod:",
    "push:x",
];

#[test]
fn jail_08_calls_that_change_the_world_are_denied() {
    for jail in ["host", "view"] {
        world(Launcher::Cellwall, |world| {
            let answers = |seccomp: &str| {
                let rules = small(jail).replace("[files]", &format!("seccomp = \"{seccomp}\"\n[files]"));
                world.sites(&rules);
                tries(world.call(&world.alice, "a.cgi"), &wishes(&CALLS))
            };
            furnish(world);
            let report = answers("baseline");
            for wish in CALLS {
                let name = wish.trim_end_matches([':', 'x']);
                assert_eq!(report.attempt(name), "EPERM", "{name}:\n{}", report.text());
            }
            // What any user may: only the filter says no to it.
            let open = answers("off");
            for name in ["userns", "clone-userns", "keyctl"] {
                assert_ne!(open.attempt(name), "EPERM", "{name}:\n{}", open.text());
            }
            assert_eq!(
                tries(world.call(&world.alice, "a.cgi"), &wishes(&["setuid:"])).attempt("setuid"),
                "EPERM"
            );
        });
    }
    // What only root may: it would do it.
    world(Launcher::Cellwall, |_| {
        let asked = wishes(&["chroot:", "setns:", "mountns:", "keyctl:", "mount:", "umount:", "mknod:"]);
        let said = run(std::process::Command::new("unshare")
            .args(["--mount", "/mnt/bin/escape"])
            .current_dir("/tmp")
            .env("QUERY_STRING", asked.join("&")));
        all_are_done(&Report::parse(&said.stdout), &asked);
    });
}

#[test]
fn jail_09_nothing_is_opened_between_the_jail_and_the_drop() {
    world(Launcher::Cellwall, |world| {
        furnish(world);
        chrooted(world);
        // What a C library or a name service would look for, the site's own to write.
        for place in ["etc", "lib", "dev"] {
            make_directory(format!("/var/www/jail/{place}"), world.alice.id, 0o755);
        }
        for file in
            ["etc/nsswitch.conf", "etc/passwd", "etc/ld.so.preload", "etc/localtime", "lib/libnss_x.so.2"]
        {
            put(format!("/var/www/jail/{file}"), b"x", world.alice.id, 0o644);
        }
        chrooted(world).strace(&[]).run().ran();
        let calls = traced();
        let position = |word: &str| {
            let found = calls.iter().position(|call| call.contains(word));
            found.unwrap_or_else(|| panic!("no {word} in\n{}", calls.join("\n")))
        };
        let (jail, drop) = (position(" chroot(\".\""), position(&format!(" setresuid({}", world.alice.id)));
        assert!(jail < drop, "{}", calls.join("\n"));
        let opened: Vec<_> = calls[jail..drop].iter().filter(|call| call.contains("open")).collect();
        assert!(opened.is_empty(), "{opened:#?}");
    });
}

#[test]
fn jail_13_a_file_that_the_host_replaces_is_replaced_in_the_view() {
    world(Launcher::Cellwall, |world| {
        world.sites(&small("view"));
        world.probe(&world.alice, "a.cgi");
        for content in ["first", "second"] {
            put("/etc/hosts.new", content.as_bytes(), 0, 0o644);
            fs::rename("/etc/hosts.new", "/etc/hosts").unwrap();
            let report = world.call(&world.alice, "a.cgi").deed("read:/etc/hosts").run().ran();
            assert_eq!(report.fact("content"), content);
        }
    });
}

/// A docroot and sockets whose directories are still to be made as well. What comes there later is shown without another `apply`: what
/// is somebody's from there on, and of a directory of root's nothing beside it.
#[test]
fn jail_15_a_directory_that_comes_later_is_not_shown_for_what_lies_in_it() {
    world(Launcher::Cellwall, |world| {
        let rules = "user = \"alice\"\ndocroot = [\"/var/www/new/htdocs\", \"/var/www/own/htdocs\"]\nprofile = \"sh\"\n[files]\n\
                     sockets = [\"/run/later/deep/one?\", \"/run/later/deep/two?\", \"/run/theirs/deep/one?\"]\n";
        fs::write("/etc/cellwall/sites.d/alice.toml", rules).unwrap();
        world.apply();
        for (directory, owner) in [
            ("/var/www/new", 0),
            ("/var/www/new/htdocs", world.alice.id),
            ("/var/www/own", world.alice.id),
            ("/var/www/own/htdocs", world.alice.id),
            ("/run/later", 0),
            ("/run/later/deep", 0),
            ("/run/theirs", world.carol.id),
            ("/run/theirs/deep", world.carol.id),
        ] {
            make_directory(directory, owner, 0o755);
        }
        let shown = ["/run/later/deep/one", "/run/later/deep/two", "/run/theirs/deep/one"];
        let sockets = shown.map(|path| std::os::unix::net::UnixListener::bind(path).unwrap());
        let others = ["/var/www/new/others", "/run/later/others", "/run/later/deep/others"];
        others.iter().for_each(|path| put(path, b"", 0, 0o644));
        let script = format!(
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nfor f in {} {}; do test -e $f && echo $f; done\n",
            shown.join(" "),
            others.join(" ")
        );
        for docroot in ["/var/www/new/htdocs", "/var/www/own/htdocs"] {
            put(format!("{docroot}/a.cgi"), script.as_bytes(), world.alice.id, 0o755);
            let call = world.call(&world.alice, "a.cgi").cwd(docroot);
            let said = call.env(format!("SCRIPT_FILENAME={docroot}/a.cgi")).run().out_text();
            let said: Vec<&str> = said.lines().filter(|line| line.starts_with('/')).collect();
            assert_eq!(said, shown, "{docroot}");
        }
        drop(sockets);
    });
}

#[test]
fn jail_14_the_administrators_door_leads_into_the_same_cell() {
    each_jail(|world| {
        let path = world.probe(&world.alice, "a.cgi");
        let web = world.call(&world.alice, "a.cgi").run().ran();
        let said = world.cellwall(&["run", "alice", "--", path.to_str().unwrap()]);
        let door = Report::parse(&said.stdout);
        for fact in FACTS.into_iter().chain(["cwd", "root", "session_key"]) {
            assert!(!web.all(fact).is_empty(), "{fact} is not told:\n{}", web.text());
            assert_eq!(door.all(fact), web.all(fact), "{fact}:\n{}", door.text());
        }
        for name in ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG"] {
            assert_eq!(door.env(name), web.env(name), "{name}");
        }
    });
}
