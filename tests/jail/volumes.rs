//! Volumes that come, go and are exchanged beneath what a view shows: nobody reads or writes one that is not there any more.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{Launcher, User, World, make_directory, put, world};

/// An empty volume of the user's with this name in it.
fn volume(place: impl AsRef<Path>, name: &str, user: &User) {
    let place = place.as_ref();
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
    chown(place, Some(user.id), Some(user.id)).unwrap();
    fs::write(place.join("name"), name).unwrap();
}

fn site(world: &World, more: &str) {
    world.site("alice", &format!("profile = \"sh\"\n{more}"));
    world.apply();
}

/// What alice's script says, and which kind of view it was in.
fn says(world: &World) -> (String, String) {
    let outcome = world.call(&world.alice, "a.cgi").run();
    assert_eq!(outcome.records.len(), 1, "{}", outcome.story());
    (outcome.out_text().trim().to_owned(), outcome.records[0].field("jail").to_owned())
}

#[test]
fn a_volume_that_was_exchanged_is_seen_at_once_and_kept_by_the_next_apply() {
    world(Launcher::Cellwall, |world| {
        let docroot = world.alice.docroot();
        let data = "/srv/data";
        make_directory(data, 0, 0o755);
        for (place, more) in [(data, "[files]\nwrite = [\"/srv/data\"]\n"), (docroot.to_str().unwrap(), "")] {
            let script = format!("#!/bin/sh\ncat {place}/name\necho written >{place}/mark\n");
            world.script(&world.alice, "a.cgi", &script);
            let copy = fs::read(docroot.join("a.cgi")).unwrap();
            let mounted = |name: &str| {
                volume(place, name, &world.alice);
                if !docroot.join("a.cgi").exists() {
                    world.script(&world.alice, "a.cgi", &copy);
                }
            };
            mounted("first");
            site(world, more);
            assert_eq!(says(world), ("first".to_owned(), "view".to_owned()), "{place}");
            umount2(place, MntFlags::MNT_DETACH).unwrap();
            mounted("second");
            assert_eq!(says(world), ("second".to_owned(), "view-built".to_owned()), "{place}");
            let writes = !more.is_empty();
            assert_eq!(Path::new(place).join("mark").exists(), writes, "it is written to what is there");
            world.apply();
            assert_eq!(says(world), ("second".to_owned(), "view".to_owned()), "{place}");
            umount2(place, MntFlags::MNT_DETACH).unwrap();
        }
    });
}

/// Root's own directory is looked at by `apply` alone: the launcher has no time for it.
#[test]
fn a_directory_of_roots_that_was_replaced_is_another_one_from_the_next_apply_on() {
    world(Launcher::Cellwall, |world| {
        let shared = |name: &str| {
            make_directory("/srv/shared", 0, 0o755);
            fs::write("/srv/shared/name", name).unwrap();
        };
        shared("first");
        world.script(&world.alice, "a.cgi", "#!/bin/sh\ncat /srv/shared/name\n");
        site(world, "[files]\nread = [\"/srv/shared\"]\n");
        assert_eq!(says(world), ("first".to_owned(), "view".to_owned()));
        fs::rename("/srv/shared", "/srv/old").unwrap();
        shared("second");
        world.apply();
        assert_eq!(says(world), ("second".to_owned(), "view".to_owned()));
    });
}

/// As Debian's Apache, whose unit has `PrivateTmp=yes`: the file of a kept view is in no other namespace of mounts than the one
/// that it was made in, which the first process is in.
const PRIVATE_TMP: &str = "/usr/bin/cellwall apply >/dev/null && /usr/bin/unshare -m --propagation private \
    /bin/sh -c '/bin/mount -t tmpfs none /tmp && exec \"$@\"' sh \"$@\"; exit $?";

#[test]
fn a_web_server_with_mounts_of_its_own_enters_kept_views_too() {
    world(Launcher::Cellwall, |world| {
        world.script(&world.alice, "a.cgi", "#!/bin/sh\necho here\n");
        site(world, "");
        let first = ["/usr/bin/unshare", "-p", "-f", "--mount-proc", "/bin/sh", "-c", PRIVATE_TMP, "sh"];
        let outcome = world.call(&world.alice, "a.cgi").behind(&first).run();
        assert_eq!(outcome.out_text(), "here\n", "{}", outcome.story());
        assert_eq!(outcome.records[0].field("jail"), "view", "{}", outcome.story());
    });
}

#[test]
fn a_volume_beneath_the_docroot_is_seen_from_the_next_apply_on() {
    world(Launcher::Cellwall, |world| {
        let uploads = world.alice.docroot().join("uploads");
        make_directory(&uploads, world.alice.id, 0o755);
        fs::write(uploads.join("name"), "below").unwrap();
        world.script(&world.alice, "a.cgi", "#!/bin/sh\ncat uploads/name\n");
        site(world, "");
        assert_eq!(says(world).0, "below");
        volume(&uploads, "mounted", &world.alice);
        world.apply();
        assert_eq!(says(world), ("mounted".to_owned(), "view".to_owned()));
        umount2(&uploads, MntFlags::MNT_DETACH).unwrap();
        world.apply();
        assert_eq!(says(world), ("below".to_owned(), "view".to_owned()));
    });
}

/// What an administrator forbids by mount(8), a file system that is there already included, holds for a kept view from the
/// next apply on; and so does what is allowed again.
#[test]
fn what_a_mount_forbids_is_forbidden_from_the_next_apply_on_and_what_it_allows_is_allowed() {
    world(Launcher::Cellwall, |world| {
        let docroot = world.alice.docroot();
        let again = |place: &Path, flags: MsFlags| {
            let none = None::<&str>;
            mount(none, place, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none).unwrap();
            world.apply();
        };
        // The file system that the docroot lies on, and one beneath it.
        let above = docroot.parent().unwrap();
        mount(Some(above), above, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let uploads = docroot.join("uploads");
        make_directory(&uploads, world.alice.id, 0o755);
        volume(&uploads, "tool", &world.alice);
        put(uploads.join("tool"), b"#!/bin/sh\necho started\n", world.alice.id, 0o755);
        let script = "#!/bin/sh\nuploads/tool 2>/dev/null || echo kept\ntouch uploads/mark 2>/dev/null || echo whole\n";
        world.script(&world.alice, "a.cgi", script);
        site(world, "[files]\nwrite = [\"/var/www/alice/htdocs/uploads\"]\n");
        let said = |text: &str| assert_eq!(says(world), (text.to_owned(), "view".to_owned()));
        said("started");
        again(&uploads, MsFlags::MS_NOEXEC);
        said("kept");
        again(&uploads, MsFlags::MS_RDONLY);
        said("started\nwhole");
        again(&uploads, MsFlags::empty());
        said("started");
        again(above, MsFlags::MS_NOEXEC);
        world.call(&world.alice, "a.cgi").run().refused("V16", 255);
        again(above, MsFlags::empty());
        said("started");
        umount2(&uploads, MntFlags::MNT_DETACH).unwrap();
    });
}
