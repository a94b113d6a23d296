//! The walk, by tables: whose links are followed and where to, whose directories are passed, which mounts are crossed.
//! `fuzz/entries/walk.rs` asks the same of random trees, of which it cannot say why a link is refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test that cannot go on must say so loudly"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::Path;

use cellwall::launch::walk::{Follow, Rules, walk};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const SITE: u32 = 1001;
const STRANGER: u32 = 1002;

/// Calls `test` in a thread with an empty file system of its own at /mnt.
fn alone(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("the tree is mounted: this needs root");
            let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, all, None::<&str>).unwrap();
            memory("/mnt");
            test();
        });
        done.join().unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
}

fn memory(place: &str) {
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
}

fn directory(path: &str, owner: u32, mode: u32) {
    fs::create_dir_all(path).unwrap();
    lchown(path, Some(owner), None).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn link(path: &str, owner: u32, target: &str) {
    symlink(target, path).unwrap();
    lchown(path, Some(owner), None).unwrap();
}

/// Where a walk ends, or the code of the refusal.
fn end(path: &str, owner: u32, follow: Follow, fence: &str) -> Result<String, &'static str> {
    let reached = walk(path.as_bytes(), Rules { owner, follow, fence: fence.as_bytes() });
    reached.map(|end| String::from_utf8(end.path).unwrap()).map_err(|refusal| refusal.card.code)
}

#[test]
fn a_link_is_followed_by_whose_it_is_and_by_whose_its_end_is() {
    alone(|| {
        directory("/mnt/site", SITE, 0o755);
        directory("/mnt/site/real", SITE, 0o755);
        directory("/mnt/root/real", 0, 0o755);
        link("/mnt/site/own", SITE, "real");
        link("/mnt/site/long", SITE, "/mnt/site/real");
        link("/mnt/site/roots", 0, "real");
        link("/mnt/site/strange", STRANGER, "real");
        link("/mnt/site/up", SITE, "../site/real");
        link("/mnt/site/out", SITE, "/mnt/root/real");
        link("/mnt/site/moved", 0, "/mnt/root/real");
        link("/mnt/root/link", 0, "real");
        let (own, all) = (Follow::Owners(SITE), Follow::Match(SITE));
        for (name, follow, told) in [
            ("site/own", Follow::None, Err("V02")),
            ("site/own", Follow::Roots, Err("V02")),
            ("site/own", own, Ok("site/real")),
            ("site/own", all, Ok("site/real")),
            ("site/long", own, Ok("site/real")),
            ("site/roots", Follow::Roots, Ok("site/real")),
            ("site/strange", own, Err("V02")),
            ("site/strange", all, Err("V02")),
            ("site/up", own, Err("V02")),
            ("site/out", own, Ok("root/real")),
            ("site/out", all, Err("V02")),
            // Root's link, in a directory into which the site may rename any link of root's.
            ("site/moved", all, Err("V02")),
            ("root/link", all, Ok("root/real")),
        ] {
            let told = told.map(|end| format!("/mnt/{end}"));
            assert_eq!(end(&format!("/mnt/{name}"), SITE, follow, ""), told, "{name} {follow:?}");
        }
    });
}

#[test]
fn links_are_followed_for_a_while_and_not_for_ever() {
    alone(|| {
        directory("/mnt/0", SITE, 0o755);
        for number in 1..=9 {
            link(&format!("/mnt/{number}"), SITE, &(number - 1).to_string());
        }
        link("/mnt/loop", SITE, "loop");
        let told = |name: &str| end(&format!("/mnt/{name}"), SITE, Follow::Owners(SITE), "");
        assert_eq!(told("8"), Ok("/mnt/0".to_owned()));
        assert_eq!((told("9"), told("loop")), (Err("V02"), Err("V02")));
    });
}

#[test]
fn a_directory_on_the_way_is_an_owners_and_nobody_elses_to_write() {
    alone(|| {
        for (owner, mode, told) in [
            (0, 0o755, None),
            (SITE, 0o755, None),
            (SITE, 0o700, None),
            (STRANGER, 0o755, Some("V01")),
            (SITE, 0o775, Some("V116")),
            (SITE, 0o757, Some("V116")),
            (0, 0o1777, Some("V116")),
        ] {
            directory("/mnt/way", owner, mode);
            fs::create_dir_all("/mnt/way/end").unwrap();
            assert_eq!(end("/mnt/way/end", SITE, Follow::None, "").err(), told, "{owner} {mode:o}");
            assert_eq!(end("/mnt/way", SITE, Follow::None, "").err(), told, "the end counts as the way");
        }
        directory("/mnt/way", SITE, 0o755);
        assert_eq!(end("/mnt/way", 0, Follow::None, ""), Err("V01"), "where root alone may own it");
        // What is no directory is judged by whoever asked for it.
        fs::write("/mnt/way/file", "").unwrap();
        fs::set_permissions("/mnt/way/file", fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(end("/mnt/way/file", SITE, Follow::None, ""), Ok("/mnt/way/file".to_owned()));
        assert_eq!(end("/mnt/way/none", SITE, Follow::None, ""), Err("V115"));
    });
}

#[test]
fn below_the_fence_no_mount_is_crossed() {
    alone(|| {
        directory("/mnt/site/disk/a", SITE, 0o755);
        memory("/mnt/site/disk");
        directory("/mnt/site/disk/a", SITE, 0o755);
        assert!(Path::new("/mnt/site/disk/a").is_dir());
        let told = |fence: &str| end("/mnt/site/disk/a", SITE, Follow::None, fence).err();
        for (fence, code) in
            [("", None), ("/mnt/site", Some("V03")), ("/mnt", Some("V03")), ("/mnt/site/disk", None)]
        {
            assert_eq!(told(fence), code, "{fence:?}");
        }
    });
}
