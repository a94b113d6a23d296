//! A private copy of the host for one test: /etc, /var/lib, /srv and /home may be changed and are gone afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

pub(crate) const POLICY: &str = "/var/lib/cellwall/policy";

/// The command under test, in each cage.
const PROGRAM: &str = "/mnt/cellwall";

/// What a command said.
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The host of one test. Only the thread that made it, and what that thread starts, sees it.
pub(crate) struct Cage;

impl Cage {
    /// A host with the users alice (20001), bob (20002) and carol (20003), and a cellwall.toml.
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root; run: sudo cargo xtask test");
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        // This thread's own by now: the directories of a host are there to pass through, whatever umask root has.
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        // Held while what it lies beneath is covered: a checkout may stand in /srv or /home.
        let program = fs::File::open(env!("CARGO_BIN_EXE_cellwall")).unwrap();
        let scratch = "/mnt";
        mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        fs::write(PROGRAM, "").unwrap();
        let held = format!("/proc/self/fd/{}", program.as_raw_fd());
        mount(Some(held.as_str()), PROGRAM, none, MsFlags::MS_BIND, none).unwrap();
        for directory in ["/etc", "/var/lib"] {
            let own = format!("{scratch}/{}", directory.replace('/', "-"));
            for part in ["upper", "work"] {
                fs::create_dir_all(format!("{own}/{part}")).unwrap();
                fs::set_permissions(format!("{own}/{part}"), fs::Permissions::from_mode(0o755)).unwrap();
            }
            let options = format!("lowerdir={directory},upperdir={own}/upper,workdir={own}/work");
            mount(Some("overlay"), directory, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .unwrap();
        }
        for directory in ["/srv", "/home", "/var/log"] {
            mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        }
        for stale in ["/etc/cellwall", "/var/lib/cellwall"] {
            drop(fs::remove_dir_all(stale));
        }
        fs::create_dir_all("/etc/cellwall/sites.d").unwrap();
        fs::create_dir_all("/srv/www").unwrap();
        let cage = Self;
        cage.host("caller = \"www-data\"\n");
        for (name, id) in [("alice", 20001), ("bob", 20002), ("carol", 20003)] {
            cage.user(name, id);
        }
        cage
    }

    /// A user with a group of its own, a home and a docroot /srv/www/NAME.
    pub(crate) fn user(&self, name: &str, id: u32) {
        append("/etc/passwd", &format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n"));
        append("/etc/group", &format!("{name}:x:{id}:\n"));
        for place in [format!("/home/{name}"), format!("/srv/www/{name}")] {
            fs::create_dir(&place).unwrap();
            std::os::unix::fs::chown(&place, Some(id), Some(id)).unwrap();
        }
    }

    pub(crate) fn host(&self, text: &str) {
        fs::write("/etc/cellwall/cellwall.toml", text).unwrap();
    }

    pub(crate) fn site(&self, name: &str, text: &str) {
        fs::write(format!("/etc/cellwall/sites.d/{name}.toml"), text).unwrap();
    }

    /// A small site of `user` that needs nothing of the host.
    pub(crate) fn small(&self, name: &str, user: &str, more: &str) {
        self.site(
            name,
            &format!("user = \"{user}\"\ndocroot = \"/srv/www/{user}\"\nprofile = \"static\"\n{more}"),
        );
    }

    pub(crate) fn cellwall(&self, words: &[&str]) -> Said {
        said(&command(words).output().unwrap())
    }

    /// Runs it, and it must be content.
    pub(crate) fn good(&self, words: &[&str]) -> String {
        let said = self.cellwall(words);
        assert_eq!(said.status, Some(0), "cellwall {words:?} said {}\n{}", said.out, said.err);
        said.out
    }
}

pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words);
    command
}

pub(crate) fn said(output: &Output) -> Said {
    Said {
        status: output.status.code(),
        out: String::from_utf8(output.stdout.clone()).unwrap(),
        err: String::from_utf8(output.stderr.clone()).unwrap(),
    }
}

pub(crate) fn append(path: &str, text: &str) {
    let mut all = fs::read_to_string(path).unwrap();
    all.push_str(text);
    fs::write(path, all).unwrap();
}

/// Inode, time of change and content of every record.
pub(crate) fn records() -> BTreeMap<String, (u64, i64, i64, Vec<u8>)> {
    let entries = fs::read_dir(POLICY).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let stamp = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
            let name = entry.file_name().into_string().unwrap();
            (name, (stamp.0, stamp.1, stamp.2, fs::read(entry.path()).unwrap()))
        })
        .collect()
}

pub(crate) fn mode(path: impl AsRef<Path>) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}
