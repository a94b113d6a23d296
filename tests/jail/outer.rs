//! Where the whole of it runs in a chroot: a view shows nothing of the host outside.

use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::harness::{Launcher, World, make_directory, run, world};

/// What a command says in a chroot at `place`: output and errors.
fn inside(place: &str, words: &[&str]) -> String {
    let said =
        run(Command::new("chroot").arg(place).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"));
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

/// All of this host once more, at a place of its own.
fn host_at(place: &str) {
    make_directory(place, 0, 0o755);
    let none = None::<&str>;
    mount(Some("/"), place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
}

fn site(world: &World) {
    world.site("alice", "profile = \"perl\"\n");
    drop(std::fs::remove_file("/etc/cellwall/sites.d/bob.toml"));
    drop(std::fs::remove_file("/etc/cellwall/sites.d/carol.toml"));
}

/// A namespace has a root of its own, which a chroot is not: whoever enters a kept view of a chroot comes out of both.
#[test]
fn a_view_in_a_chroot_is_no_way_out_of_it() {
    world(Launcher::Cellwall, |world| {
        site(world);
        host_at("/mnt/inner");
        let applied = inside("/mnt/inner", &["cellwall", "apply"]);
        assert!(applied.contains("no view can be kept in one"), "{applied}");
        let looks = "print -d '/mnt' || -d '/srv' ? 'outside' : 'inside'; open my $f, '>', '/tmp/mark';";
        let said = inside("/mnt/inner", &["cellwall", "run", "alice", "--", "/usr/bin/perl", "-e", looks]);
        assert_eq!(said, "inside");
        assert!(!Path::new("/tmp/mark").exists());
        // Outside of it views are kept as ever.
        world.apply();
        let said = world.cellwall(&["run", "alice", "--", "/usr/bin/perl", "-e", looks]);
        assert_eq!(said.stdout, b"inside");
    });
}

/// The kernel changes the root of a process only where that is a mount point (pivot_root(2)).
#[test]
fn a_chroot_that_is_no_mount_point_is_told_with_what_makes_it_one() {
    world(Launcher::Cellwall, |world| {
        site(world);
        make_directory("/mnt/plain", 0, 0o755);
        for place in ["usr", "etc", "var", "srv", "home", "run", "proc", "sys", "dev", "tmp"] {
            let (from, to) = (format!("/{place}"), format!("/mnt/plain/{place}"));
            make_directory(&to, 0, 0o755);
            mount(
                Some(from.as_str()),
                to.as_str(),
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )
            .unwrap();
        }
        for place in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{place}"), format!("/mnt/plain/{place}")).unwrap();
        }
        let applied = inside("/mnt/plain", &["cellwall", "apply"]);
        assert!(applied.contains("this root is no mount point"), "{applied}");
        assert!(applied.contains("mount --rbind"), "{applied}");
        let said =
            inside("/mnt/plain", &["cellwall", "run", "alice", "--", "/usr/bin/perl", "-e", "print 'ran'"]);
        assert!(said.contains("C06") && said.contains("mount --rbind"), "{said}");
        let words = ["cellwall", "explain", "alice", "alice", "/var/www/alice/htdocs", "a.cgi"];
        let said = inside("/mnt/plain", &words);
        assert!(said.contains("C06") && said.contains("mount --rbind"), "{said}");
        let mount = Command::new("mount").args(["--rbind", "/mnt/plain", "/mnt/plain"]).status().unwrap();
        assert!(mount.success());
        let applied = inside("/mnt/plain", &["cellwall", "apply"]);
        assert!(applied.contains("applied 1 site"), "{applied}");
        let said =
            inside("/mnt/plain", &["cellwall", "run", "alice", "--", "/usr/bin/perl", "-e", "print 'ran'"]);
        assert_eq!(said, "ran");
    });
}
