//! Many sites. `CELLWALL_TEST_SITES=100000` for the whole measure; fewer otherwise.

use std::fs;
use std::io::Write;
use std::time::Instant;

use crate::cage::{Cage, POLICY, append};

#[test]
fn many_sites_are_applied_and_one_of_them_is_applied_alone() {
    let count: u32 = std::env::var_os("CELLWALL_TEST_SITES")
        .map_or(2000, |count| count.to_str().unwrap().parse().unwrap());
    let cage = Cage::new();
    let (mut passwd, mut group) = (Vec::new(), Vec::new());
    for number in 0..count {
        let id = 100_000 + number;
        writeln!(passwd, "s{number}:x:{id}:{id}::/nonexistent:/bin/sh").unwrap();
        writeln!(group, "s{number}:x:{id}:").unwrap();
        let docroot = format!("/srv/www/s{number}");
        fs::create_dir(&docroot).unwrap();
        std::os::unix::fs::chown(&docroot, Some(id), Some(id)).unwrap();
        cage.small(&format!("s{number}"), &format!("s{number}"), "");
    }
    append("/etc/passwd", &String::from_utf8(passwd).unwrap());
    append("/etc/group", &String::from_utf8(group).unwrap());
    let timed = |words: &[&str]| {
        let start = Instant::now();
        let said = cage.good(words);
        (start.elapsed(), said)
    };
    let (first, said) = timed(&["apply"]);
    assert!(said.contains(&format!("applied {count} sites: {} records", count + 1)), "{said}");
    let (again, said) = timed(&["apply"]);
    assert!(said.contains(&format!("0 records, {count} unchanged")), "{said}");
    cage.small("s7", "s7", "[limits]\ncpu = 9\n");
    let (one, said) = timed(&["apply", "s7"]);
    assert!(said.contains("applied 1 site: 1 record, 0 unchanged"), "{said}");
    println!("{count} sites: first {first:?}, again {again:?}, one {one:?}");
    // And the host's own, and the time of the accounts.
    assert_eq!(fs::read_dir(POLICY).unwrap().count(), usize::try_from(count).unwrap() + 2);
}
