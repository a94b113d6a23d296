//! The policy that the launcher reads: POL-01 to POL-10 of the threat catalogue; POL-09 is in race.rs.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cellwall::policy::{decode, encode};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::harness::{Launcher, World, each_jail, mode, run, traced, world};

const DIRECTORY: &str = "/var/lib/cellwall/policy";

fn record(world: &World) -> PathBuf {
    PathBuf::from(format!("{DIRECTORY}/{}", world.alice.id))
}

fn refused_at_once(world: &World) {
    let outcome = world.call(&world.alice, "a.cgi").run();
    outcome.refused("P01", 83);
    outcome.at_once();
}

#[test]
fn pol_01_02_a_record_that_others_can_change_is_none() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        let record = record(world);
        for owner in [world.alice.id, world.bob.id, 33] {
            chown(&record, Some(owner), None).unwrap();
            refused_at_once(world);
        }
        chown(&record, Some(0), None).unwrap();
        for rights in [0o664, 0o646, 0o666, 0o620, 0o602] {
            mode(&record, rights);
            refused_at_once(world);
        }
        mode(&record, 0o600);
        world.call(&world.alice, "a.cgi").run().ran();
        let said =
            run(Command::new("setfacl").arg("-m").arg(format!("u:{}:rw", world.alice.id)).arg(&record));
        assert!(said.status.success(), "{said:?}");
        refused_at_once(world);
    });
}

#[test]
fn pol_03_a_record_below_a_directory_that_others_can_change_is_none() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        // Of all that is above as well: who can write to /var can put an older /var/lib of root's there.
        for place in Path::new(DIRECTORY).ancestors().filter(|place| *place != Path::new("/")) {
            let rights = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(place).unwrap().permissions());
            for open in [0o777, 0o1777, 0o775] {
                mode(place, open);
                refused_in_the_dark(world);
            }
            mode(place, rights & 0o7777);
            chown(place, Some(world.alice.id), None).unwrap();
            refused_in_the_dark(world);
            the_command_says_so(world, place);
            chown(place, Some(0), None).unwrap();
            world.call(&world.alice, "a.cgi").run().ran();
        }
    });
}

/// The rehearsal refuses as the launch does, with the remedy; `check` finds what `apply` would not mend by itself.
fn the_command_says_so(world: &World, place: &Path) {
    let remedy = format!("chown root {0} && chmod go-w {0}", place.display());
    let said = world.cellwall(&["explain", "alice", "alice", "/var/www/alice/htdocs", "a.cgi"]);
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.contains("P04") && said.contains(&remedy), "{said}");
    let said = world.cellwall(&["check"]);
    assert_eq!(said.status.success(), place.starts_with("/var/lib/cellwall"), "{said:?}");
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.is_empty() || said.contains(&remedy), "{said}");
}

/// As somebody would make one who has got hold of root's pen for a moment, or of a copy in the wrong place.
#[test]
fn pol_01_a_record_of_another_uid_or_of_a_uid_below_its_own_minimum_is_none() {
    each_jail(|world| {
        world.probe(&world.alice, "a.cgi");
        world.probe(&world.bob, "a.cgi");
        let bytes = fs::read(record(world)).unwrap();
        let bobs = PathBuf::from(format!("{DIRECTORY}/{}", world.bob.id));
        let kept = fs::read(&bobs).unwrap();
        fs::write(&bobs, &bytes).unwrap();
        world.call(&world.bob, "a.cgi").cwd(world.alice.docroot()).run().refused("P01", 83);
        world.call(&world.bob, "a.cgi").run().refused("P01", 83);
        fs::write(&bobs, kept).unwrap();
        world.call(&world.bob, "a.cgi").run().ran();
        let mut policy = decode::record(&bytes).unwrap();
        policy.host.uid_min = world.alice.id + 1;
        fs::write(record(world), encode::record(&policy)).unwrap();
        world.call(&world.alice, "a.cgi").run().refused("P107", 107);
        policy.host.uid_min = world.alice.id;
        fs::write(record(world), encode::record(&policy)).unwrap();
        world.call(&world.alice, "a.cgi").run().ran();
    });
}

#[test]
fn pol_04_what_is_no_plain_file_is_no_record() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let record = record(world);
        let aside = PathBuf::from(DIRECTORY).join("aside");
        fs::rename(&record, &aside).unwrap();
        symlink(&aside, &record).unwrap();
        refused_at_once(world);
        fs::remove_file(&record).unwrap();
        mkfifo(&record, Mode::S_IRWXU).unwrap();
        refused_at_once(world);
        fs::remove_file(&record).unwrap();
        mknod(&record, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap();
        refused_at_once(world);
        fs::remove_file(&record).unwrap();
        fs::create_dir(&record).unwrap();
        refused_at_once(world);
        fs::remove_dir(&record).unwrap();
        // The directory itself by a link: also when it is root's.
        fs::rename(&aside, &record).unwrap();
        fs::rename(DIRECTORY, "/var/lib/cellwall/elsewhere").unwrap();
        symlink("/var/lib/cellwall/elsewhere", DIRECTORY).unwrap();
        refused_in_the_dark(world);
    });
}

/// Without a policy there is no log's name either.
fn refused_in_the_dark(world: &World) {
    world.call(&world.alice, "a.cgi").run().refused_in_the_dark(83);
}

#[test]
fn pol_06_07_a_record_of_nothing_or_of_too_much_is_none() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let record = record(world);
        let good = fs::read(&record).unwrap();
        for bytes in [
            &b""[..],
            b"\n",
            b"# only a remark\n",
            &[0; 24],
            &[0; 4096],
            &good[..24],
            &[&good[..], b"x"].concat(),
        ] {
            fs::write(&record, bytes).unwrap();
            refused_at_once(world);
        }
        for length in [(1 << 20) + 1, 100 << 20, 1 << 40] {
            OpenOptions::new().write(true).open(&record).unwrap().set_len(length).unwrap();
            refused_at_once(world);
        }
    });
}

#[test]
fn pol_08_no_part_of_a_record_is_a_policy_and_no_flipped_bit_widens_one() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let record = record(world);
        let good = fs::read(&record).unwrap();
        assert!(decode::record(&good).is_ok());
        for end in 0..good.len() {
            assert!(decode::record(&good[..end]).is_err(), "the first {end} bytes are a policy");
            let mut flipped = good.clone();
            flipped[end] ^= 1 << (end % 8);
            assert!(decode::record(&flipped).is_err(), "byte {end} may be another one");
        }
        for end in (0..good.len()).step_by(good.len() / 40) {
            fs::write(&record, &good[..end]).unwrap();
            refused_at_once(world);
        }
    });
}

#[test]
fn pol_10_a_launch_makes_the_same_calls_however_many_sites_there_are() {
    world(Launcher::Cellwall, |world| {
        world.probe(&world.alice, "a.cgi");
        let calls = || -> Vec<String> {
            world.call(&world.alice, "a.cgi").strace(&[]).run().ran();
            traced()
                .iter()
                .map(|line| line.split('(').next().unwrap().split(' ').next_back().unwrap().to_owned())
                .collect()
        };
        // The first one finds an empty log, whose last line nobody has to look at.
        calls();
        let few = calls();
        let bytes = fs::read(record(world)).unwrap();
        for number in 0..20_000 {
            fs::write(format!("{DIRECTORY}/{}", 200_000 + number), &bytes).unwrap();
        }
        assert_eq!(calls(), few);
        assert!(!few.iter().any(|name| name.starts_with("getdents")), "{few:?}");
    });
}
