//! `cellwall jail build` and `refresh`: a folder becomes a chroot in which real programs work, stays up to date, and
//! nothing is written outside of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::harness::{Launcher, Outcome, World, make_directory, put, run, world};
use crate::pieces::share;

const JAIL: &str = "/var/www/jails/alice";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command of `cellwall jail`: what it says, and its status.
fn jail(world: &World, words: &[&str]) -> (String, i32) {
    let said = world.cellwall(&[&["jail"], words].concat());
    (text(&said.stdout) + &text(&said.stderr), said.status.code().unwrap())
}

fn good(world: &World, words: &[&str]) -> String {
    let (said, status) = jail(world, words);
    assert_eq!(status, 0, "{words:?}: {said}");
    said
}

/// The same command says this as JSON, and nothing else.
fn as_json(world: &World, words: &[&str], parts: &[&str]) {
    let told = good(world, &[words, &["--json"]].concat());
    let all = parts.iter().all(|part| told.contains(part));
    assert!(told.starts_with('{') && told.trim_end().ends_with('}') && all, "{parts:?}: {told}");
}

/// What would be built is told, and nothing is made.
fn rehearsed(world: &World) {
    good(world, &["build", JAIL, "--dry-run", "--site", "alice"]);
    as_json(
        world,
        &["build", JAIL, "--dry-run", "--site", "alice"],
        &["\"dry_run\":true,\"ok\":true,", "\"/usr/bin/perl\"", "\"same\":0,"],
    );
    assert!(!Path::new(JAIL).exists(), "a rehearsal made something");
}

/// Alice's site in a chroot that is still to be built.
fn site(profile: &str, more: &str) {
    make_directory("/var/www/jails", 0, 0o755);
    let rules = format!(
        "user = \"alice\"\ndocroot = \"{JAIL}/htdocs\"\nprofile = {profile}\n{more}\n[jail]\nkind = \"chroot\"\n\
         directory = \"{JAIL}\"\n"
    );
    fs::write("/etc/cellwall/sites.d/alice.toml", rules).unwrap();
}

fn script(world: &World, name: &str, code: &str) -> Outcome {
    put(format!("{JAIL}/htdocs/{name}"), code.as_bytes(), world.alice.id, 0o755);
    let path = format!("{JAIL}/htdocs/{name}");
    let call = world.call(&world.alice, name).cwd(format!("{JAIL}/htdocs"));
    call.env(format!("SCRIPT_FILENAME={path}")).env(format!("DOCUMENT_ROOT={JAIL}/htdocs")).run()
}

#[test]
fn in_a_built_chroot_php_perl_python_and_sh_work_and_every_probe_passes() {
    world(Launcher::Cellwall, |world| {
        share();
        site("[\"php\", \"perl\", \"python\", \"sh\"]", "");
        let said = world.cellwall(&["apply"]);
        let help = text(&said.stderr);
        assert!(help.contains(&format!("run: cellwall jail build {JAIL} --site alice")), "{help}");
        rehearsed(world);
        good(world, &["build", JAIL, "--site", "alice"]);
        world.apply();
        let head = "Content-Type: text/plain\\n\\n";
        for (name, code, answer) in [
            (
                "a.php",
                "<?php $z = new DateTime('2026-01-15', new DateTimeZone('Europe/Athens')); session_start();\n\
                 echo $z->format('T'), ' ', posix_getpwuid(posix_getuid())['name'], ' ', gethostbyname('localhost'), \
                 ' ', trim(shell_exec('echo sh')), ' ', iconv('UTF-8', 'ISO-8859-7', 'x'), \"\\n\";"
                    .to_owned(),
                "EET alice 127.0.0.1 sh x",
            ),
            (
                "a.pl",
                format!(
                    "#!/usr/bin/perl\nuse POSIX; use Digest::SHA; print \"{head}\", floor(2.5), ' ', \
                     (getpwuid($<))[0], ' ', Digest::SHA::sha1_hex('x'), qq(\\n);\n"
                ),
                "2 alice 11f6ad8ec52a2984abaafd7c3b516503785c2072",
            ),
            (
                "a.py",
                format!(
                    "#!/usr/bin/env python3\nimport ssl, sqlite3, tempfile, zoneinfo\n\
                     print('{head}' + str(zoneinfo.ZoneInfo('Europe/Athens')), sqlite3.connect(':memory:').execute('select 6*7').fetchone()[0], \
                     ssl.create_default_context().cert_store_stats()['x509_ca'] > 0, tempfile.NamedTemporaryFile().name[:5])\n"
                ),
                "Europe/Athens 42 True /tmp/",
            ),
            (
                "a.sh",
                format!("#!/bin/sh\nprintf '{head}'; echo one two | awk '{{print $2}}'; id -un\n"),
                "two\nalice\n",
            ),
        ] {
            let outcome = script(world, name, &code);
            assert!(outcome.out_text().contains(answer), "{name}: {}", outcome.story());
            assert_eq!(outcome.records[0].field("jail"), "chroot");
        }
        let look = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n\
                    for path in /usr/bin /htdocs /home /etc/shadow /var/www /proc/self; do [ -e $path ] && echo $path; done\n";
        let outcome = script(world, "b.sh", look);
        assert!(outcome.out_text().ends_with("\n\n/usr/bin\n/htdocs\n"), "{}", outcome.story());
        as_json(world, &["refresh", JAIL], &["\"made\":[],\"renewed\":[],\"removed\":[],"]);
        let said = good(world, &["check", "alice"]);
        for name in ["copies", "libraries", "php extensions", "python", "perl", "sh", "walls"] {
            assert!(said.contains(&format!("pass  {name} ")), "{name}: {said}");
        }
    });
}

/// All of root's, and nothing with set-id bits; each copy beside what it was copied from.
#[test]
fn what_is_copied_is_roots_and_nobody_else_can_change_it() {
    world(Launcher::Cellwall, |world| {
        site("[\"sh\"]", "");
        fs::set_permissions("/usr/bin/date", fs::Permissions::from_mode(0o4755)).unwrap();
        good(world, &["build", JAIL, "--site", "alice"]);
        let said = run(Command::new("find")
            .args([JAIL, "-not", "-uid", "0", "-o", "-perm", "/7022", "-not", "-type", "l"]));
        let found = text(&said.stdout);
        let mut found: Vec<&str> = found.lines().filter_map(|line| line.strip_prefix(JAIL)).collect();
        found.sort_unstable();
        let devices = ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];
        assert_eq!(found, [&devices[..], &["/htdocs", "/tmp", "/var/tmp"]].concat());
        assert_eq!(fs::metadata(format!("{JAIL}/tmp")).unwrap().mode() & 0o7777, 0o1777);
        let htdocs = fs::metadata(format!("{JAIL}/htdocs")).unwrap();
        assert_eq!((htdocs.uid(), htdocs.gid()), (world.alice.id, world.alice.id));
        let passwd = fs::read_to_string(format!("{JAIL}/etc/passwd")).unwrap();
        let names: Vec<&str> = passwd.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names, ["root", "nobody", "alice"]);
        assert!(!Path::new(&format!("{JAIL}/etc/shadow")).exists());
        assert_eq!(fs::metadata(format!("{JAIL}/.cellwall-jail")).unwrap().mode() & 0o7777, 0o600);
        assert!(
            !Path::new(&format!("{JAIL}/usr/bin/perl")).exists(),
            "a whole tree of the host's was copied"
        );
    });
}

#[test]
fn copies_that_are_older_than_the_system_are_told_and_refreshed() {
    world(Launcher::Cellwall, |world| {
        share();
        site("[\"sh\"]", "");
        good(world, &["build", JAIL, "--site", "alice"]);
        world.apply();
        // An update: another file in the place of the C library and of a tool, a tool less, a name server more.
        let library = fs::canonicalize("/lib64/ld-linux-x86-64.so.2")
            .or_else(|_| fs::canonicalize("/lib/ld-linux-aarch64.so.1"));
        let library = library.unwrap().with_file_name("libc.so.6");
        for path in [library.as_path(), Path::new("/usr/bin/tail")] {
            let new = path.with_extension("new");
            fs::copy(path, &new).unwrap();
            fs::rename(&new, path).unwrap();
        }
        fs::remove_file("/usr/bin/which").unwrap();
        fs::write("/etc/hosts", "127.0.0.1 localhost shop.test\n").unwrap();
        let remedy = format!("cellwall jail refresh {JAIL}");
        for words in [&["apply"][..], &["check"]] {
            let said = text(&world.cellwall(words).stderr);
            assert!(
                said.contains("is older than the system's, and ") && said.contains(&remedy),
                "{words:?}: {said}"
            );
        }
        let (said, status) = jail(world, &["check", "alice"]);
        assert!(status == 1 && said.contains("FAIL  copies") && said.contains(&remedy), "{said}");
        let dry = good(world, &["refresh", JAIL, "--dry-run"]);
        let said = good(world, &["refresh", JAIL]);
        for line in
            [format!("~ {}", library.display()), "~ /etc/hosts".to_owned(), "- /usr/bin/which".to_owned()]
        {
            assert!(said.lines().any(|said| said == line) && dry.contains(&line), "{line}: {said}\n{dry}");
        }
        assert!(fs::read_to_string(format!("{JAIL}/etc/hosts")).unwrap().contains("shop.test"));
        assert!(!Path::new(&format!("{JAIL}/usr/bin/which")).exists());
        let said = good(world, &["check", "alice"]);
        assert!(said.contains("pass  copies"), "{said}");
        let said = good(world, &["refresh", JAIL]);
        assert!(said.contains(": 0 made, 0 renewed, 0 removed, "), "{said}");
        // What somebody put in the place of a copy, whatever time it has.
        let inside = format!("{JAIL}/usr/bin/head");
        let before = fs::metadata(&inside).unwrap();
        let mut bytes = fs::read(&inside).unwrap();
        bytes[4000] ^= 1;
        fs::write(&inside, bytes).unwrap();
        let said = run(Command::new("touch").args(["-r", "/usr/bin/head", &inside]));
        assert!(said.status.success() && fs::metadata(&inside).unwrap().mtime() == before.mtime());
        let said = good(world, &["refresh", JAIL]);
        assert!(said.contains("~ /usr/bin/head\n"), "{said}");
        assert_eq!(fs::read(&inside).unwrap(), fs::read("/usr/bin/head").unwrap());
    });
}

#[test]
fn a_library_that_is_not_in_the_jail_is_named_with_who_needs_it() {
    world(Launcher::Cellwall, |world| {
        share();
        site("[\"sh\"]", "");
        good(world, &["build", JAIL, "--site", "alice"]);
        world.apply();
        let selinux = run(Command::new("find").args([JAIL, "-name", "libselinux.so.1"]));
        fs::remove_file(text(&selinux.stdout).trim()).unwrap();
        let (said, status) = jail(world, &["check", "alice"]);
        assert_eq!(status, 1, "{said}");
        assert!(
            said.contains("FAIL  libraries") && said.contains("libselinux.so.1, which /usr/bin/"),
            "{said}"
        );
        let line = said.lines().find_map(|line| line.split_once("-> to mend it")).unwrap().1.trim();
        assert!(run(Command::new("sh").args(["-c", line])).status.success(), "{line}");
        good(world, &["check", "alice"]);
    });
}

#[test]
fn nothing_is_written_through_a_link_or_over_what_the_administrator_put_there() {
    world(Launcher::Cellwall, |world| {
        site("[\"sh\"]", "");
        make_directory(JAIL, 0, 0o755);
        make_directory(format!("{JAIL}/etc"), 0, 0o755);
        put(format!("{JAIL}/etc/passwd"), b"mine\n", 0, 0o644);
        make_directory("/srv/outside", 0, 0o755);
        put("/srv/outside/victim", b"untouched\n", 0, 0o644);
        symlink("/srv/outside", format!("{JAIL}/var")).unwrap();
        symlink("/srv/outside/victim", format!("{JAIL}/etc/hosts")).unwrap();
        symlink("../../../../../srv/outside", format!("{JAIL}/dev")).unwrap();
        let (said, status) = jail(world, &["build", JAIL, "--site", "alice"]);
        assert_eq!(status, 1, "{said}");
        for path in ["/etc/passwd", "/etc/hosts", "/var", "/dev"] {
            assert!(
                said.contains(&format!("error: {path} is there and came from no build")),
                "{path}: {said}"
            );
        }
        assert!(said.contains("error: /dev/null: a link stands in the way"), "{said}");
        assert_eq!(fs::read_to_string(format!("{JAIL}/etc/passwd")).unwrap(), "mine\n");
        assert_eq!(fs::read_to_string("/srv/outside/victim").unwrap(), "untouched\n");
        assert_eq!(fs::read_dir("/srv/outside").unwrap().count(), 1);
        // The obstacles gone, the same command ends the work.
        for path in ["etc/passwd", "etc/hosts", "var", "dev"] {
            fs::remove_file(format!("{JAIL}/{path}")).unwrap();
        }
        good(world, &["build", JAIL, "--site", "alice"]);
        // A list that leads out removes nothing outside, for it is not believed.
        let list = format!("{JAIL}/.cellwall-jail");
        let before = fs::read_to_string(&list).unwrap();
        fs::write(&list, before + "copy\t/../../../../srv/outside/victim\t10\t0\t644\t/etc/hosts\n").unwrap();
        let (said, status) = jail(world, &["refresh", JAIL]);
        assert!(status == 3 && said.contains("is no such line"), "{said}");
        assert!(Path::new("/srv/outside/victim").exists());
    });
}

#[test]
fn a_place_that_others_can_write_to_is_no_place_for_a_jail() {
    world(Launcher::Cellwall, |world| {
        site("[\"sh\"]", "");
        for (directory, why) in
            [("/usr/jail", "no place"), ("/", "no place"), ("/tmp/jail", "writable by others")]
        {
            let (said, status) = jail(world, &["build", directory, "--site", "alice"]);
            assert!(status == 3 && said.contains(why), "{directory}: {said}");
        }
        make_directory(JAIL, world.alice.id, 0o755);
        let (said, status) = jail(world, &["build", JAIL, "--site", "alice"]);
        assert!(status == 3 && said.contains("chown -h root "), "{said}");
        chown(JAIL, Some(0), Some(0)).unwrap();
        let (said, status) = jail(world, &["refresh", JAIL]);
        assert!(status == 3 && said.contains("no build made"), "{said}");
        for (words, why) in [
            (&["--site", "nobody-here"][..], "nobody-here"),
            (&["--piece", "phq"], "did you mean `php`?"),
            (&["--program", "usr/bin/id"], "from / on"),
            (&["--program", "/usr/bin/no-such"], "is not on this host"),
            (&[], "required"),
        ] {
            let (said, status) = jail(world, &[&["build", JAIL], words].concat());
            assert!(status != 0 && said.contains(why), "{words:?}: {said}");
        }
    });
}

#[test]
fn a_program_alone_comes_with_its_libraries_and_its_interpreter() {
    world(Launcher::Cellwall, |world| {
        make_directory("/srv/jails", 0, 0o755);
        put("/usr/local/bin/greet", b"#!/usr/bin/env -S perl -T\nprint \"greetings\\n\";\n", 0, 0o755);
        good(
            world,
            &["build", "/srv/jails/x", "--program", "/usr/local/bin/greet", "--program", "/usr/bin/id"],
        );
        for (words, answer) in
            [(&["/usr/local/bin/greet"][..], "greetings\n"), (&["/usr/bin/id", "-u"], "0\n")]
        {
            let said = run(Command::new("chroot").arg("/srv/jails/x").args(words));
            assert_eq!(text(&said.stdout), answer, "{}", text(&said.stderr));
        }
    });
}

#[test]
fn what_a_chroot_was_also_built_for_and_is_gone_keeps_no_copy_old() {
    world(Launcher::Cellwall, |world| {
        site("[\"static\"]", "");
        let other = "/etc/cellwall/sites.d/bob.toml";
        let rules = fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
        let rules = rules.replace("\"alice\"", "\"bob\"").replace("htdocs", "bobs").replace("static", "sh");
        fs::write(other, rules).unwrap();
        fs::create_dir("/etc/cellwall/pieces").unwrap();
        let piece = "/etc/cellwall/pieces/mine.toml";
        fs::write(piece, "description = \"mine\"\n[files]\nread = [\"/etc/hosts\"]\n").unwrap();
        let program = "/usr/local/bin/greet";
        put(program, b"#!/bin/sh\necho hello\n", 0, 0o755);
        let more = ["--site", "bob", "--piece", "mine", "--program", program];
        good(world, &[&["build", JAIL, "--site", "alice"], &more[..]].concat());
        world.apply();
        fs::remove_file(other).unwrap();
        fs::remove_file(piece).unwrap();
        fs::remove_file(program).unwrap();
        // Who is served still needs what is there.
        let (said, status) = jail(world, &["refresh", JAIL]);
        assert!(status == 3 && said.contains("help: run: cellwall apply bob"), "{said}");
        assert!(run(Command::new("sh").args(["-c", "cellwall apply bob"])).status.success());
        let said = good(world, &["refresh", JAIL]);
        for gone in ["site bob", "piece mine", program] {
            assert!(said.contains(&format!("note: {gone} is not there any more")), "{gone}: {said}");
        }
        assert!(!Path::new(&format!("{JAIL}{program}")).exists() && !said.contains("error:"), "{said}");
        assert!(!Path::new(&format!("{JAIL}/usr/bin/sed")).exists(), "{said}");
        assert!(!good(world, &["refresh", JAIL]).contains("any more"));
        // What is asked for by name must be there.
        let (said, status) = jail(world, &["build", JAIL, "--site", "bob"]);
        assert!(status == 3 && said.contains("there is no site `bob`"), "{said}");
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        world.apply();
        let (said, status) = jail(world, &["refresh", JAIL]);
        assert!(status == 3 && said.contains("nothing that") && said.contains("site alice"), "{said}");
        assert!(Path::new(&format!("{JAIL}/etc/passwd")).exists());
    });
}

/// Whoever may read a directory may lock it (flock(2)), and a chroot is there to be read.
#[test]
fn nobody_but_root_keeps_a_chroot_from_its_updates() {
    world(Launcher::Cellwall, |world| {
        site("\"sh\"", "");
        good(world, &["build", JAIL, "--site", "alice"]);
        let mut holder = Command::new("setpriv")
            .args([&format!("--reuid={}", world.bob.id), "--clear-groups", "flock", "-F", "-x", JAIL])
            .args(["sh", "-c", "echo held; exec sleep 600"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut held).unwrap();
        let (said, status) = jail(world, &["refresh", JAIL]);
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(status == 0 && held == *b"held\n", "{said}");
    });
}

/// What one of the sites may write must not become a program of root's in another one's chroot.
#[test]
fn of_a_tree_nothing_is_copied_that_others_may_change() {
    world(Launcher::Cellwall, |world| {
        site("\"static\"", "[files]\nexecute = [\"/srv/tools\"]\n");
        for (name, owner, rights) in
            [("", 0, 0o755), ("sub", 0, 0o755), ("bobs", world.bob.id, 0o755), ("open", 0, 0o777)]
        {
            make_directory(Path::new("/srv/tools").join(name), owner, rights);
        }
        for (name, owner, rights) in [
            ("good", 0, 0o755),
            ("sub/good", 0, 0o755),
            ("sub/bobs-tool", world.bob.id, 0o755),
            ("sub/everybodys", 0, 0o757),
            ("bobs/tool", 0, 0o755),
            ("open/tool", 0, 0o755),
        ] {
            put(Path::new("/srv/tools").join(name), b"#!/bin/sh\n", owner, rights);
        }
        nix::unistd::mkfifo("/srv/tools/pipe", nix::sys::stat::Mode::S_IRWXU).unwrap();
        let said = good(world, &["build", JAIL, "--site", "alice"]);
        for name in ["sub/bobs-tool", "sub/everybodys", "bobs", "open"] {
            let told = format!("/srv/tools/{name} is left out: others than root may change it");
            assert!(said.contains(&told), "{name}: {said}");
            assert!(!Path::new(&format!("{JAIL}/srv/tools/{name}")).exists(), "{name}: {said}");
        }
        for name in ["good", "sub/good"] {
            assert!(Path::new(&format!("{JAIL}/srv/tools/{name}")).exists(), "{name}: {said}");
        }
        // Named itself it is no other.
        put("/srv/alone", b"#!/bin/sh\n", 0, 0o777);
        let (said, _) = jail(world, &["build", JAIL, "--site", "alice", "--program", "/srv/alone"]);
        assert!(said.contains("/srv/alone is left out: others than root may change it"), "{said}");
    });
}

/// A part of a file is of no use to anybody, and takes the room that the list of what was built needs.
#[test]
fn a_full_disk_leaves_no_part_of_a_file_behind_and_the_next_build_is_whole() {
    world(Launcher::Cellwall, |world| {
        site("\"sh\"", "");
        let disk = |flags, size: &str| {
            let options = format!("size={size},mode=755");
            mount(Some("tmpfs"), "/var/www/jails", Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        };
        let halves = || {
            let said = run(Command::new("find").args([JAIL, "-name", ".cellwall-half"]));
            text(&said.stdout)
        };
        // Room for some of it, and for the list of that; not even for the list.
        for (size, ended) in [("3m", 1), ("4k", 3)] {
            disk(MsFlags::empty(), size);
            put("/var/www/jails/other", &[1; 4096], 0, 0o644);
            let (said, status) = jail(world, &["build", JAIL, "--site", "alice"]);
            assert_eq!(halves(), "", "{size}: {said}");
            assert_eq!(status, ended, "{size}: {said}");
            assert!(said.contains("No space left on device"), "{size}: {said}");
            assert!(said.lines().count() < 10, "{size}: {said}");
            assert!(said.contains("and run it again"), "{size}: {said}");
            let list = Path::new(JAIL).join(".cellwall-jail").exists();
            let empty = fs::read_dir(JAIL).unwrap().next().is_none();
            assert_eq!((list, empty), (ended == 1, ended == 3), "{size}: {said}");
            disk(MsFlags::MS_REMOUNT, "300m");
            good(world, &["build", JAIL, "--site", "alice"]);
            world.apply();
            let outcome =
                script(world, "a.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nwhole\\n'\n");
            assert!(outcome.out_text().ends_with("whole\n"), "{}", outcome.story());
            as_json(world, &["refresh", JAIL], &["\"made\":[],\"renewed\":[],\"removed\":[],"]);
        }
    });
}
