//! Debian's own way to another suEXEC, from `cargo xtask install` to `uninstall`, with Apache in between.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, id};
use std::thread;
use std::time::Duration;

use crate::harness::{Apache, CELLWALL, Kind, Launcher, World, put, run, world};

const SUEXEC: &str = "/usr/lib/apache2/suexec";

/// The repository, reached by a descriptor: a world may hide the place that it is in.
struct Repository(File);

impl Repository {
    fn open() -> Self {
        Self(File::open(env!("CARGO_MANIFEST_DIR")).unwrap())
    }

    /// `cargo xtask WORDS` without cargo: its program as it was built last.
    fn xtask(&self, words: &[&str]) -> String {
        let said = run(&mut self.program(&[], words));
        let out = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{words:?}: {out}{}", String::from_utf8_lossy(&said.stderr));
        out
    }

    /// The same, started by `before`.
    fn program(&self, before: &[&str], words: &[&str]) -> Command {
        let root = format!("/proc/{}/fd/{}", id(), self.0.as_raw_fd());
        let target = std::env::current_exe().unwrap();
        let target = target.ancestors().nth(3).unwrap();
        let target = match target.strip_prefix(env!("CARGO_MANIFEST_DIR")) {
            Ok(inside) => Path::new(&root).join(inside),
            Err(_) => target.to_owned(),
        };
        let program = target.join("debug/xtask");
        assert!(program.exists(), "{} is missing; make it with: cargo xtask build", program.display());
        let program = program.to_string_lossy();
        let words = [before, &[&*program], words].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.env("CARGO_MANIFEST_DIR", format!("{root}/xtask")).env("CARGO_TARGET_DIR", &target);
        command
    }
}

/// A host on which Cellwall was never installed. Its control groups are the machine's, and not for a test to remove.
fn bare(world: &World) {
    for place in [
        "/etc/cellwall",
        "/usr/lib/cellwall",
        "/usr/share/cellwall",
        "/var/lib/cellwall",
        "/var/log/cellwall",
    ] {
        drop(fs::remove_dir_all(place));
    }
    for file in ["/usr/bin/cellwall", "/usr/sbin/cellwalld"] {
        drop(fs::remove_file(file));
    }
    run(Command::new("umount").args(["-R", "-l", "/sys/fs/cgroup"]));
    world.script(
        &world.alice,
        "who.cgi",
        "#!/bin/sh\necho Content-Type: text/plain\necho\nid -u; ls -d /home 2>&1\n",
    );
    put(world.alice.docroot().join("page.php"), b"<?php echo posix_getuid();", world.alice.id, 0o644);
}

/// Every file with what it is, whose it is and what is in it; what package tools and servers log, cache and know of themselves
/// is left out, of the accounts' files all but what is in them, and the age of links (update-alternatives makes its own again).
fn tree() -> String {
    let said = run(Command::new("/bin/sh").args([
        "-c",
        "find /etc /usr /var /run /srv /home -xdev \\( -path /var/cache -o -path /var/log/alternatives.log \
         -o -path /var/log/dpkg.log -o -path /var/lib/dpkg -o -path /var/log/apache2 -o -path '/etc/passwd*' -o -path '/etc/group*' \
         -o -path '/etc/shadow*' -o -path '/etc/gshadow*' -o -path /etc/.pwd.lock \\) -prune -o \
         \\( -type d -printf '%p %M %U %G\\n' -o -type l -printf '%p %l\\n' -o -printf '%p %M %U %G %s %T@\\n' \\) | LC_ALL=C sort; \
         update-alternatives --query suexec; cat /etc/passwd /etc/group /etc/shadow /etc/gshadow",
    ]));
    String::from_utf8(said.stdout).unwrap()
}

fn sh(command: &str) {
    let said = run(Command::new("/bin/sh").args(["-c", command]));
    assert!(said.status.success(), "{command}: {}", String::from_utf8_lossy(&said.stderr));
}

fn behind() -> String {
    fs::canonicalize(SUEXEC).unwrap().to_string_lossy().into_owned()
}

/// A site as an administrator writes it, with nothing but what was installed.
fn first_site(world: &World) {
    let text = "user = \"alice\"\ndocroot = \"/var/www/alice/htdocs\"\nprofile = [\"sh\", \"php\"]\n";
    fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
    world.apply();
}

fn ask(world: &World) -> (String, u16) {
    drop(fs::remove_dir_all("/tmp/apache"));
    let handler = "<Directory /var/www>\nAddHandler cgi-script .php\n</Directory>\n";
    let apache = Apache::start(world, Kind::Event, handler);
    let who = apache.get("alice.test", "/who.cgi").text();
    let page = apache.ask(&crate::harness::Ask::get("alice.test", "/page.php"));
    (who, page.status)
}

#[test]
fn installed_chosen_used_and_taken_away_again() {
    let repository = Repository::open();
    world(Launcher::Stock, |world| {
        bare(world);
        let stock = behind();
        assert!(stock.starts_with("/usr/lib/apache2/suexec-"), "{stock}");
        let (id, shown) = (world.alice.id, "/home\n");
        assert_eq!(
            ask(world),
            (format!("{id}\n{shown}"), 500),
            "stock suEXEC runs no page without a first line"
        );
        let before = tree();

        let said = repository.xtask(&["install", "--built"]);
        assert_eq!(behind(), stock, "nobody chose it");
        let choose = said.lines().find_map(|line| line.split_once("update-alternatives"));
        let choose = choose.unwrap_or_else(|| panic!("how to choose it is not told:\n{said}"));
        assert_eq!(ask(world).0, format!("{id}\n{shown}"));

        first_site(world);
        sh(&format!("update-alternatives{}", choose.1));
        assert_eq!(behind(), CELLWALL);
        let (who, page) = ask(world);
        assert!(who.starts_with(&format!("{id}\n")) && !who.ends_with(shown), "{who}");
        assert_eq!(page, 200);
        assert_eq!(world.records().len(), 2);

        repository.xtask(&["uninstall"]);
        assert_eq!(behind(), stock);
        differences(&before, &tree());
        assert_eq!(ask(world), (format!("{id}\n{shown}"), 500), "stock suEXEC is back");
    });
}

/// Somebody who chose Debian's other suEXEC by hand has it again afterwards.
#[test]
fn a_choice_made_by_hand_is_put_back() {
    let repository = Repository::open();
    world(Launcher::Stock, |world| {
        bare(world);
        let own = "/usr/lib/apache2/suexec-own";
        fs::copy(fs::canonicalize(SUEXEC).unwrap(), own).unwrap();
        sh(&format!("chmod 4755 {own} && update-alternatives --install {SUEXEC} suexec {own} 1"));
        sh(&format!("update-alternatives --set suexec {own}"));
        let before = tree();
        repository.xtask(&["install", "--built", "--activate"]);
        assert_eq!(behind(), CELLWALL);
        first_site(world);
        assert_eq!(ask(world).1, 200);
        repository.xtask(&["uninstall"]);
        assert_eq!(behind(), own);
        differences(&before, &tree());
    });
}

/// What dpkg does with the package, on a machine that never had it: all that `install` does, and its end.
#[test]
fn the_package_comes_serves_is_renewed_goes_and_leaves_nothing() {
    let repository = Repository::open();
    let said = repository.xtask(&["package", "--built"]);
    let file = said.lines().rev().find_map(|line| line.trim().strip_prefix("sudo apt install "));
    let package = fs::read(file.unwrap()).unwrap();
    world(Launcher::Stock, |world| {
        bare(world);
        put("/mnt/cellwall.deb", &package, 0, 0o644);
        let stock = behind();
        let before = without_the_account(&tree());

        // Apache came later: its place for a suEXEC was not there yet.
        sh("mv /usr/lib/apache2 /usr/lib/apache2.later && dpkg -i /mnt/cellwall.deb");
        sh("rm -r /usr/lib/apache2 2> /dev/null; mv /usr/lib/apache2.later /usr/lib/apache2");
        assert!(!offered(), "there was no Apache");
        sh("dpkg-trigger --by-package=apache2-bin /usr/lib/apache2 && dpkg --triggers-only --pending");
        assert!(offered() && behind() == stock, "it is there to be chosen, and nobody chose it");
        let launcher = fs::metadata(CELLWALL).unwrap();
        assert_eq!((launcher.mode() & 0o7777, launcher.uid(), launcher.gid()), (0o4750, 0, 33));
        sh("getent passwd cellwall");

        first_site(world);
        sh(&format!("update-alternatives --set suexec {CELLWALL}"));
        let works = |world: &World| {
            let (who, page) = ask(world);
            assert!(who.starts_with(&format!("{}\n", world.alice.id)) && !who.contains("/home\n"), "{who}");
            assert_eq!(page, 200);
        };
        works(world);

        // What people wrote and chose is still there after an upgrade.
        sh("echo '# mine' >> /etc/cellwall/cellwall.toml && dpkg -i /mnt/cellwall.deb");
        assert!(fs::read_to_string("/etc/cellwall/cellwall.toml").unwrap().ends_with("# mine\n"));
        assert_eq!(behind(), CELLWALL);
        works(world);

        a_daemon_that_runs_keeps_it();
        sh("dpkg -r cellwall");
        assert!(!offered() && behind() == stock);
        assert_eq!(ask(world).1, 500, "stock suEXEC runs no page without a first line");
        assert!(Path::new("/etc/cellwall/sites.d/alice.toml").exists(), "removed is not purged");
        sh("dpkg --purge cellwall");
        drop(fs::remove_dir_all("/tmp/apache"));
        differences(&before, &without_the_account(&tree()));
    });
}

/// A daemon that systemd did not start would go on as root with its program gone: the package stays until it has ended.
fn a_daemon_that_runs_keeps_it() {
    let mut daemon = Command::new("/usr/sbin/cellwalld").spawn().unwrap();
    let socket = Path::new("/run/cellwall/status.sock");
    for _ in 0..200 {
        if UnixStream::connect(socket).is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let said = run(Command::new("dpkg").args(["-r", "cellwall"]));
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && why.contains("End it first: kill -TERM"), "{why}");
    assert!(Path::new(CELLWALL).exists() && behind() == CELLWALL);
    sh(&format!("kill -TERM {}", daemon.id()));
    daemon.wait().unwrap();
}

fn offered() -> bool {
    let said = run(Command::new("update-alternatives").args(["--list", "suexec"]));
    String::from_utf8_lossy(&said.stdout).lines().any(|line| line == CELLWALL)
}

/// Debian's packages leave their accounts behind: the number could become somebody else's.
fn without_the_account(tree: &str) -> String {
    tree.lines().filter(|line| !line.starts_with("cellwall:")).map(|line| format!("{line}\n")).collect()
}

/// Killed when a file is there and has not its name yet: the launcher, another program, one of the profiles, the last but one.
#[test]
fn what_a_killed_installation_left_goes_with_the_rest() {
    let repository = Repository::open();
    world(Launcher::Stock, |world| {
        bare(world);
        let before = tree();
        for file in [1, 3, 20, 60] {
            let kill = format!("inject=rename:signal=KILL:when={file}");
            let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &kill];
            let said = run(&mut repository.program(&strace, &["install", "--built"]));
            assert!(!said.status.success(), "{file}: it was not killed");
            assert_ne!(before, tree(), "{file}: nothing was installed");
            repository.xtask(&["uninstall"]);
            differences(&before, &tree());
        }
    });
}

/// Not one file more, not one less, none changed.
fn differences(before: &str, after: &str) {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), after.lines().collect());
    let (gone, new): (Vec<_>, Vec<_>) =
        (before.difference(&after).collect(), after.difference(&before).collect());
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}");
    assert!(before.len() > 1000, "the tree was not read");
}
