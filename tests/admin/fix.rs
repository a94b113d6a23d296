//! `cellwall fix`: what it lists is what the launcher refuses; what it prints, pasted, mends it; what it must not touch.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::harness::{Launcher, User, World, make_directory, mode, put, run, small, world};

/// A tree as deploy tools leave it.
fn spoil(world: &World) -> Vec<String> {
    let top = world.alice.docroot();
    let at = |name: &str| top.join(name).display().to_string();
    let script = "#!/bin/sh\necho Content-Type: text/plain; echo; echo ran\n";
    world.script(&world.alice, "good.cgi", script);
    for (name, owner, rights) in
        [("group.cgi", world.alice.id, 0o775), ("root's.cgi", 0, 0o755), ("set.cgi", world.alice.id, 0o4755)]
    {
        put(top.join(name), script.as_bytes(), owner, rights);
    }
    make_directory(top.join("open"), world.alice.id, 0o777);
    put(top.join("open/a.cgi"), script.as_bytes(), world.bob.id, 0o755);
    ["group.cgi", "root's.cgi", "set.cgi", "open", "open/a.cgi"].map(at).to_vec()
}

fn runs(world: &World, user: &User, directory: &Path, name: &str) -> bool {
    world.call(user, name).cwd(directory).run().out_text().contains("ran")
}

#[test]
fn what_is_listed_is_what_is_refused_and_what_is_printed_mends_it() {
    for by_paste in [true, false] {
        world(Launcher::Cellwall, |world| {
            world.site("alice", "profile = \"sh\"\n");
            world.apply();
            let said = world.cellwall(&["fix", "alice"]);
            assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stdout));
            let spoiled = spoil(world);
            let top = world.alice.docroot();
            let broken =
                [("group.cgi", &top), ("root's.cgi", &top), ("set.cgi", &top), ("a.cgi", &top.join("open"))];
            assert!(broken.iter().all(|(name, place)| !runs(world, &world.alice, place, name)));
            let said = world.cellwall(&["fix", "alice"]);
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            assert_eq!(said.status.code(), Some(1), "{text}");
            for path in &spoiled {
                assert!(text.lines().any(|line| line.starts_with(&format!("{path} "))), "{path} in {text}");
            }
            assert!(!text.contains("good.cgi"), "{text}");
            if by_paste {
                for command in text.lines().filter_map(|line| line.strip_prefix("  ")) {
                    let pasted = run(Command::new("sh").args(["-c", command]));
                    assert!(
                        pasted.status.success(),
                        "{command}: {}",
                        String::from_utf8_lossy(&pasted.stderr)
                    );
                }
            } else {
                let said = world.cellwall(&["fix", "--apply", "alice"]);
                assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stdout));
            }
            assert!(broken.iter().all(|(name, place)| runs(world, &world.alice, place, name)), "{text}");
            assert_eq!(world.cellwall(&["fix", "alice"]).status.code(), Some(0));
        });
    }
}

#[test]
fn nothing_is_followed_and_no_second_name_of_a_strangers_file_is_given_away() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let top = world.alice.docroot();
        fs::write("/var/www/secret", "x").unwrap();
        mode("/var/www/secret", 0o666);
        make_directory("/var/www/elsewhere", 0, 0o777);
        symlink("/var/www/secret", top.join("link")).unwrap();
        symlink("/var/www/elsewhere", top.join("dir")).unwrap();
        fs::hard_link("/var/www/secret", top.join("second")).unwrap();
        nix::unistd::mkfifo(&top.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let said = world.cellwall(&["fix", "--apply", "alice"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(said.status.code(), Some(1), "{text}");
        let secret = fs::metadata("/var/www/secret").unwrap();
        assert_eq!((secret.uid(), secret.mode() & 0o7777), (0, 0o666), "{text}");
        let elsewhere = fs::metadata("/var/www/elsewhere").unwrap();
        assert_eq!((elsewhere.uid(), elsewhere.mode() & 0o7777), (0, 0o777), "{text}");
        // The links themselves are the site's now.
        for link in ["link", "dir"] {
            assert_eq!(fs::symlink_metadata(top.join(link)).unwrap().uid(), world.alice.id, "{text}");
        }
        assert!(text.contains("has 2 names") && text.contains("pipe is no file"), "{text}");
        let json = world.cellwall(&["fix", "--json", "alice"]);
        assert!(String::from_utf8_lossy(&json.stdout).contains("\"mended\":false"));
        // A directory that is swapped for a link while root walks is one of both, and never followed.
        let (spin, swap) = (top.join("spin"), top.join("swap"));
        make_directory(&spin, 0, 0o755);
        symlink("/var/www/elsewhere", &swap).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let flag = &stop;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !flag.load(std::sync::atomic::Ordering::Relaxed) {
                    let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &spin, nix::fcntl::AT_FDCWD, &swap, flags)
                        .unwrap();
                }
            });
            for _ in 0..40 {
                world.cellwall(&["fix", "--apply", "alice"]);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let elsewhere = fs::metadata("/var/www/elsewhere").unwrap();
        assert_eq!((elsewhere.uid(), elsewhere.permissions().mode() & 0o7777), (0, 0o777));
    });
}

/// Where the site may link, its owner says where a docroot leads: to what is root's, or through a neighbour's home.
#[test]
fn nothing_is_given_to_a_site_because_its_own_link_leads_there() {
    world(Launcher::Cellwall, |world| {
        let (base, id) = ("/var/www/alice", world.alice.id);
        make_directory(format!("{base}/releases"), id, 0o755);
        make_directory("/srv/roots", 0, 0o755);
        put("/srv/roots/key", b"secret", 0, 0o600);
        make_directory(world.bob.home().join("alices"), id, 0o755);
        make_directory("/srv/open", 0, 0o1777);
        make_directory("/srv/open/alices", id, 0o755);
        let text = format!(
            "user = \"alice\"\ndocroot = \"{base}/current\"\nsymlinks = \"owner-match\"\nprofile = \"sh\"\n"
        );
        fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
        let link = format!("{base}/current");
        let leads = |to: &str, owner: u32| {
            drop(fs::remove_file(&link));
            symlink(to, &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(owner), None).unwrap();
        };
        leads("releases", id);
        world.apply();
        let facts =
            |path: &str| fs::metadata(path).map(|facts| (facts.uid(), facts.mode() & 0o7777)).unwrap();
        let all = ["/srv/roots", "/srv/roots/key", "/home/bob", "/srv/open"];
        let before = all.map(facts);
        for (to, left) in
            [("/srv/roots", 1), ("/home/bob/alices", 1), ("/srv/open/alices", 1), ("releases", 0)]
        {
            leads(to, id);
            let said = world.cellwall(&["fix", "--apply", "alice"]);
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            assert_eq!(said.status.code(), Some(left), "{to}: {text}");
            assert_eq!(left == 1, text.contains("a link of the site's leads"), "{to}: {text}");
            assert_eq!(all.map(facts), before, "{to}: {text}");
        }
        // A link of root's says where the site is, and there all is mended.
        leads("releases", 0);
        put(format!("{base}/releases/a.cgi"), b"#!/bin/sh\n", 0, 0o775);
        assert_eq!(world.cellwall(&["fix", "--apply", "alice"]).status.code(), Some(0));
        assert_eq!(facts(&format!("{base}/releases/a.cgi")), (id, 0o755));
    });
}

/// The docroot of all sites, written by mistake: each owner's files would become one owner's.
#[test]
fn a_docroot_above_other_sites_is_left_alone() {
    world(Launcher::Cellwall, |world| {
        let file = "/etc/cellwall/sites.d/alice.toml";
        fs::write(file, "user = \"alice\"\ndocroot = \"/var/www\"\nprofile = \"static\"\n").unwrap();
        world.apply();
        let before = fs::metadata(world.bob.docroot()).unwrap().uid();
        for words in [
            &["fix", "alice"][..],
            &["fix", "--apply", "alice"],
            &["fix", "--apply", "alice", "/var/www/bob"],
        ] {
            let said = world.cellwall(words);
            let text = String::from_utf8_lossy(&said.stderr).into_owned();
            let told = "/var/www holds /var/www/bob/htdocs, a docroot of site `bob`";
            assert!(said.status.code() == Some(1) && text.contains(told) && said.stdout.is_empty(), "{text}");
        }
        assert_eq!(fs::metadata(world.bob.docroot()).unwrap().uid(), before);
        assert_eq!(fs::metadata("/var/www/bob").unwrap().uid(), 0);
        // A site's own second docroot may lie beneath its first one.
        world.site("alice", "profile = \"static\"\n");
        fs::write(
            "/etc/cellwall/sites.d/more.toml",
            "user = \"alice\"\ndocroot = \"/var/www/alice/htdocs/more\"\n",
        )
        .unwrap();
        make_directory("/var/www/alice/htdocs/more", world.alice.id, 0o755);
        world.apply();
        assert_eq!(world.cellwall(&["fix", "alice"]).status.code(), Some(0));
    });
}

#[test]
fn what_is_there_for_everybody_is_never_taken_from_them() {
    world(Launcher::Cellwall, |world| {
        // Applied before somebody has opened it for all.
        make_directory("/srv/all", 0, 0o755);
        make_directory("/srv/all/htdocs", world.alice.id, 0o755);
        let text = format!("user = \"alice\"\ndocroot = \"/srv/all/htdocs\"\n{}", small("host"));
        fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
        fs::write("/etc/cellwall/cellwall.toml", "caller = \"www-data\"\n").unwrap();
        world.apply();
        world.probe_at(&world.alice, "/srv/all/htdocs/a.cgi");
        mode("/srv/all", 0o1777);
        world.call(&world.alice, "a.cgi").cwd("/srv/all/htdocs").run().refused("V116", 116);
        let why = world.cellwall(&["why", "--last"]);
        let told = String::from_utf8_lossy(&why.stdout).into_owned();
        assert!(told.contains("repair    # /srv/all is there for everybody"), "{told}");
        for words in [&["fix", "--apply", "alice"][..], &["fix", "--apply", "alice", "/srv/all"]] {
            let said = world.cellwall(words);
            assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stdout));
            assert_eq!(fs::metadata("/srv/all").unwrap().mode() & 0o7777, 0o1777);
        }
        assert!(!world.cellwall(&["check"]).status.success());
    });
}

/// What the owner of a tree may link into it is another's file by another name: one that has gone when root counts the names is none
/// the less there. strace holds root up between the two looks.
#[test]
fn pth_25_a_second_name_that_comes_and_goes_gives_nobody_elses_file_away() {
    const SLOWLY: &str = "exec strace -qq -o /dev/null -e trace=fstat,newfstatat,fchown,fchownat \
                          -e inject=fstat,newfstatat,fchownat:delay_enter=1500 cellwall fix --apply alice";
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n");
        world.apply();
        let (victim, name) = ("/var/www/secret", world.alice.docroot().join("x"));
        put(victim, b"x", 0, 0o600);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(fs::hard_link(victim, &name));
                    drop(fs::remove_file(&name));
                }
            });
            for round in 0..12 {
                let said = run(Command::new("sh").args(["-c", SLOWLY]));
                let owner = fs::metadata(victim).unwrap().uid();
                if owner != 0 || round == 11 {
                    stop.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                let told = format!(
                    "{}{}",
                    String::from_utf8_lossy(&said.stdout),
                    String::from_utf8_lossy(&said.stderr)
                );
                assert_eq!(owner, 0, "round {round}: {told}");
                assert!(told.contains("alice: "), "{told}");
            }
        });
    });
}
