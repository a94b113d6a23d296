//! apply: what it writes, what it leaves alone, and what two of them or a killed one do.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cellwall::policy::{Jail, decode};

use crate::cage::{Cage, POLICY, append, command, mode, records, said};

/// The memory limit in the record of each uid, in the record's own words.
fn memory(uid: u32) -> Option<u64> {
    let bytes = fs::read(format!("{POLICY}/{uid}")).ok()?;
    let record = decode::record(&bytes).expect("every record is whole");
    let site = record.sites.first()?;
    let settings = site.limits.groups.iter().flat_map(|group| &group.settings);
    let group = settings
        .filter(|(file, _)| file.starts_with(b"memory"))
        .find_map(|(_, value)| String::from_utf8_lossy(value).parse().ok());
    group.or_else(|| site.limits.resources.iter().find(|limit| limit.number == 9).map(|limit| limit.value))
}

#[test]
fn a_first_apply_makes_records_and_directories_with_the_right_owners() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    assert_eq!(mode("/var/lib/cellwall"), (0o755, 0, 0));
    assert_eq!(mode(POLICY), (0o700, 0, 0));
    assert_eq!(mode(format!("{POLICY}/20001")), (0o600, 0, 0));
    assert_eq!(mode(format!("{POLICY}/host")), (0o600, 0, 0));
    let own = "/var/lib/cellwall/private/20001/shop";
    assert_eq!(mode("/var/lib/cellwall/private"), (0o711, 0, 0));
    assert_eq!(mode(own), (0o711, 0, 0));
    assert_eq!(mode(format!("{own}/tmp")), (0o700, 20001, 20001));
    assert_eq!(mode(format!("{own}/var-tmp")), (0o700, 20001, 20001));
    assert_eq!(mode(format!("{own}/.etc/passwd")), (0o644, 0, 0));
    let passwd = fs::read_to_string(format!("{own}/.etc/passwd")).unwrap();
    let names: Vec<&str> = passwd.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["root", "nobody", "alice"]);
    assert_eq!(mode("/var/log/cellwall"), (0o750, 0, 0));
    let bytes = fs::read(format!("{POLICY}/20001")).unwrap();
    let record = decode::record(&bytes).unwrap();
    assert_eq!((record.uid, record.user, record.sites[0].name), (20001, &b"alice"[..], &b"shop"[..]));
    assert!(matches!(&record.sites[0].jail, Jail::View(view) if view.id != 0));
    assert_eq!(fs::read_dir("/var/lib/cellwall/staged").unwrap().count(), 0);
}

/// Fedora's web servers run as apache, and what is to be pasted there says so.
#[test]
fn a_caller_that_the_host_has_not_is_told_with_the_web_servers_user_of_this_host() {
    let cage = Cage::new();
    let accounts = fs::read_to_string("/etc/passwd").unwrap().replace("www-data:", "apache:");
    fs::write("/etc/passwd", accounts).unwrap();
    cage.host("caller = \"www-data\"\n");
    let said = cage.cellwall(&["check"]);
    assert!(said.err.contains("in cellwall.toml: caller = \"apache\""), "{}{}", said.out, said.err);
}

#[test]
fn an_apply_without_changes_writes_nothing() {
    let cage = Cage::new();
    cage.small("one", "alice", "");
    cage.small("two", "bob", "");
    cage.good(&["apply"]);
    let before = records();
    let said = cage.good(&["apply"]);
    assert!(said.contains("0 records, 2 unchanged, 0 removed"), "{said}");
    cage.good(&["apply", "one"]);
    assert_eq!(before, records());
}

#[test]
fn an_apply_of_one_site_touches_one_record() {
    let cage = Cage::new();
    for (site, user) in [("one", "alice"), ("two", "bob"), ("three", "carol")] {
        cage.small(site, user, "");
    }
    cage.good(&["apply"]);
    let before = records();
    for (site, user) in [("one", "alice"), ("two", "bob")] {
        cage.small(site, user, "[limits]\ncpu = 7\n");
    }
    cage.good(&["apply", "two"]);
    let after = records();
    let changed: Vec<&String> = after.keys().filter(|name| after.get(*name) != before.get(*name)).collect();
    assert_eq!(changed, ["20002"]);
}

#[test]
fn sites_of_one_user_share_a_record_and_the_longest_docroot_is_tried_first() {
    let cage = Cage::new();
    fs::create_dir("/srv/www/alice/deep").unwrap();
    cage.small("short", "alice", "");
    cage.site("long", "user = \"alice\"\ndocroot = \"/srv/www/alice/deep\"\n");
    cage.good(&["apply", "short"]);
    cage.good(&["apply", "long"]);
    let bytes = fs::read(format!("{POLICY}/20001")).unwrap();
    let names: Vec<&[u8]> = decode::record(&bytes).unwrap().sites.iter().map(|site| site.name).collect();
    assert_eq!(names, [b"long", &b"short"[..]]);
}

#[test]
fn two_sites_of_one_user_with_one_docroot_are_an_error() {
    let cage = Cage::new();
    cage.small("one", "alice", "");
    cage.small("two", "alice", "");
    let said = cage.cellwall(&["apply"]);
    assert_eq!(said.status, Some(1));
    assert!(said.err.contains("docroot /srv/www/alice is site `one`'s already"), "{}", said.err);
    assert!(said.err.contains("two.toml:2:1"), "{}", said.err);
}

#[test]
fn one_mistake_anywhere_changes_nothing() {
    let cage = Cage::new();
    cage.small("one", "alice", "");
    cage.small("two", "bob", "");
    cage.good(&["apply"]);
    let before = records();
    cage.small("one", "alice", "[limits]\ncpu = 7\n");
    cage.small("three", "carol", "");
    cage.small("two", "bob", "[limits]\ncpu = \"soon\"\n");
    let said = cage.cellwall(&["apply"]);
    assert_eq!(said.status, Some(1));
    assert!(said.err.ends_with("nothing was changed\n"), "{}", said.err);
    assert_eq!(before, records());
    assert!(!Path::new("/var/lib/cellwall/private/20003").exists());
    assert_eq!(fs::read_dir("/var/lib/cellwall/staged").unwrap().count(), 0);
}

#[test]
fn a_removed_site_loses_its_record() {
    let cage = Cage::new();
    cage.small("one", "alice", "");
    cage.small("two", "bob", "");
    cage.small("three", "carol", "");
    cage.good(&["apply"]);
    fs::remove_file("/etc/cellwall/sites.d/one.toml").unwrap();
    fs::remove_file("/etc/cellwall/sites.d/two.toml").unwrap();
    cage.good(&["apply", "one"]);
    assert!(!Path::new(POLICY).join("20001").exists());
    assert!(Path::new(POLICY).join("20002").exists());
    cage.good(&["apply"]);
    assert!(!Path::new(POLICY).join("20002").exists());
    assert!(Path::new(POLICY).join("20003").exists());
    let said = cage.cellwall(&["apply", "one"]);
    assert_eq!(said.status, Some(1), "{}", said.err);
    assert!(said.err.contains("there is no site `one`"), "{}", said.err);
}

#[test]
fn a_site_that_moves_to_another_user_leaves_the_old_record() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    cage.small("shop", "bob", "");
    cage.good(&["apply", "shop"]);
    assert!(!Path::new(POLICY).join("20001").exists());
    assert!(Path::new(POLICY).join("20002").exists());
}

#[test]
fn a_dry_run_and_the_policy_tell_of_a_pool() {
    let cage = Cage::new();
    let pool = |more: &str| {
        let text = "profile = \"static\"\n[pool]\ncommand = [\"/usr/bin/sleep\", \"9\"]\n";
        cage.site("shop", &format!("user = \"alice\"\ndocroot = \"/srv/www/alice\"\n{text}{more}"));
    };
    let dry = || cage.good(&["apply", "--dry-run"]);
    let told = |said: &str, parts: &[&str]| {
        for part in parts {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
        assert!(!said.contains("only dates"), "{said}");
    };
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    assert!(!cage.good(&["policy", "shop"]).contains("pool."));
    pool("");
    told(
        &dry(),
        &[
            "site shop: has a pool now\n",
            "site shop: pool.command is now /usr/bin/sleep 9\n",
            "site shop: pool.queue_timeout is now 30s\n",
        ],
    );
    cage.good(&["apply"]);
    pool("accept = \"direct\"\nlisten = \"127.0.0.1:9001\"\nworkers.max = 4\n");
    told(
        &dry(),
        &[
            "site shop: pool.accept relay -> direct\n",
            "site shop: pool.listen shop.sock -> 127.0.0.1:9001\n",
            "site shop: pool.queue is no longer set\n",
        ],
    );
    cage.good(&["apply"]);
    let policy = cage.good(&["policy", "shop"]);
    told(&policy, &["  pool.listen: 127.0.0.1:9001   # /etc/cellwall/sites.d/shop.toml:7\n"]);
    let json = cage.good(&["policy", "--json", "shop"]);
    told(&json, &["{\"key\":\"pool.workers\",\"value\":\"max = 4\",\"from\":\"/etc"]);
    // What is nowhere else than in the pool's record.
    fs::write(
        "/etc/cellwall/cellwall.toml",
        fs::read_to_string("/etc/cellwall/cellwall.toml").unwrap()
            + "\n[defaults.pool]\nerror_log = \"/var/log/cellwall/e\"\n",
    )
    .unwrap();
    told(&dry(), &["site shop: pool.error_log none -> /var/log/cellwall/e\n"]);
    cage.small("shop", "alice", "");
    told(&dry(), &["site shop: has no pool any more\n"]);
}

#[test]
fn a_dry_run_tells_the_difference_in_words_and_changes_nothing() {
    let cage = Cage::new();
    fs::create_dir("/srv/data").unwrap();
    cage.small("shop", "alice", "[limits]\nmemory = \"128M\"\n");
    cage.small("old", "carol", "");
    cage.good(&["apply"]);
    let before = records();
    cage.small("shop", "alice", "[limits]\nmemory = \"256M\"\n[files]\nread = [\"/srv/data\"]\n");
    cage.small("new", "bob", "");
    fs::remove_file("/etc/cellwall/sites.d/old.toml").unwrap();
    let said = cage.good(&["apply", "--dry-run"]);
    for sentence in [
        "site shop: memory 128M -> 256M",
        "site shop: may now read /srv/data",
        "new site new (uid 20002)",
        "site old is removed (uid 20003)",
    ] {
        assert!(said.lines().any(|line| line == sentence), "{sentence}\n{said}");
    }
    assert_eq!(before, records());
}

#[test]
fn an_apply_of_one_site_says_when_the_host_file_has_changed() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    cage.host("caller = \"www-data\"\nminimum_uid = 2000\n");
    let said = cage.cellwall(&["apply", "shop"]);
    assert_eq!(said.status, Some(0));
    assert!(said.err.contains("has changed since all sites were applied"), "{}", said.err);
}

#[test]
fn two_panels_that_add_sites_at_once_lose_none() {
    const EACH: u32 = 100;
    let cage = Cage::new();
    for number in 0..2 * EACH {
        cage.user(&format!("p{number}"), 30000 + number);
    }
    cage.good(&["apply"]);
    // Threads of this one see its namespace.
    let panel = |first: u32| {
        for number in first..first + EACH {
            cage.small(&format!("p{number}"), &format!("p{number}"), "");
            let words = [vec!["apply".to_owned()], vec![format!("p{number}")]].concat();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let said = said(&command(&words).output().unwrap());
            assert_eq!(said.status, Some(0), "{}", said.err);
        }
    };
    std::thread::scope(|scope| {
        let panels = [0, EACH].map(|first| scope.spawn(move || panel(first)));
        for panel in panels {
            panel.join().unwrap();
        }
    });
    for number in 0..2 * EACH {
        let bytes = fs::read(format!("{POLICY}/{}", 30000 + number)).unwrap();
        assert!(decode::record(&bytes).is_ok(), "{number}");
    }
}

#[test]
fn two_sites_of_one_user_applied_at_once_are_both_there() {
    let cage = Cage::new();
    for round in 0..10 {
        let names = [format!("a{round}"), format!("b{round}")];
        for name in &names {
            fs::create_dir(format!("/srv/www/alice/{name}")).unwrap();
            cage.site(name, &format!("user = \"alice\"\ndocroot = \"/srv/www/alice/{name}\"\n"));
        }
        let quiet = std::process::Stdio::null;
        let start =
            |name: &String| command(&["apply", name]).stdout(quiet()).stderr(quiet()).spawn().unwrap();
        let children: Vec<_> = names.iter().map(start).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
    }
    let bytes = fs::read(format!("{POLICY}/20001")).unwrap();
    assert_eq!(decode::record(&bytes).unwrap().sites.len(), 20);
}

#[test]
fn a_killed_apply_leaves_each_record_old_or_new_and_the_next_one_mends() {
    const SITES: u32 = 300;
    let cage = Cage::new();
    for number in 0..SITES {
        cage.user(&format!("k{number}"), 40000 + number);
        cage.small(&format!("k{number}"), &format!("k{number}"), "[limits]\nmemory = \"64M\"\n");
    }
    let start = Instant::now();
    cage.good(&["apply"]);
    let whole = start.elapsed();
    let (mut old_value, mut new_value) = (64_u64 << 20, 65_u64 << 20);
    let mut mixed = 0;
    for round in 0..20_u32 {
        for number in 0..SITES {
            let limit = format!("[limits]\nmemory = {new_value}\n");
            cage.small(&format!("k{number}"), &format!("k{number}"), &limit);
        }
        let mut child = command(&["apply"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * (round + 1) / 20 + Duration::from_micros(u64::from(round) * 137));
        child.kill().unwrap();
        child.wait().unwrap();
        let values: Vec<u64> =
            (0..SITES).map(|number| memory(40000 + number).expect("no record is lost")).collect();
        assert!(values.iter().all(|value| *value == old_value || *value == new_value), "{values:?}");
        mixed += u32::from(values.contains(&old_value));
        cage.good(&["apply"]);
        assert!((0..SITES).all(|number| memory(40000 + number) == Some(new_value)));
        assert_eq!(fs::read_dir("/var/lib/cellwall/staged").unwrap().count(), 0);
        old_value = new_value;
        new_value += 1 << 20;
    }
    assert!(mixed > 0, "no kill came before the end: the test shows nothing");
}

#[test]
fn without_root_apply_says_so_and_check_still_works() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    let nobody = |words: &[&str]| said(&command(words).uid(65534).gid(65534).output().unwrap());
    let apply = nobody(&["apply"]);
    assert_eq!(apply.status, Some(3));
    assert!(apply.err.contains("sudo cellwall apply"), "{}", apply.err);
    let check = nobody(&["check"]);
    assert_eq!(check.status, Some(0), "{}", check.err);
    assert_eq!(nobody(&["policy", "shop"]).status, Some(3));
    assert_eq!(cage.cellwall(&["aply"]).status, Some(2));
}

#[test]
fn groups_that_open_the_host_are_left_out_and_named() {
    let cage = Cage::new();
    let group = fs::read_to_string("/etc/group").unwrap();
    let joined: Vec<String> = group
        .lines()
        .map(|line| {
            let member = ["shadow:", "www-data:", "games:"].iter().any(|name| line.starts_with(name));
            if member {
                format!("{line}{}alice", if line.ends_with(':') { "" } else { "," })
            } else {
                line.to_owned()
            }
        })
        .collect();
    fs::write("/etc/group", format!("{}\n", joined.join("\n"))).unwrap();
    append("/etc/group", "team:x:20100:alice,bob\n");
    cage.small("shop", "alice", "");
    for words in [&["apply"][..], &["apply", "shop"]] {
        let said = cage.cellwall(words);
        assert_eq!(said.status, Some(0), "{}", said.err);
        for name in ["shadow", "www-data", "games"] {
            assert!(said.err.contains(&format!("leaves out group `{name}`")), "{name}: {}", said.err);
        }
        let bytes = fs::read(format!("{POLICY}/20001")).unwrap();
        assert_eq!(decode::record(&bytes).unwrap().sites[0].identity.groups, [20001, 20100]);
    }
    let games = "groups = [\"games\"]\n";
    cage.site("shop", &format!("user = \"alice\"\ndocroot = \"/srv/www/alice\"\n{games}"));
    cage.good(&["apply"]);
    let bytes = fs::read(format!("{POLICY}/20001")).unwrap();
    assert_eq!(decode::record(&bytes).unwrap().sites[0].identity.groups, [60, 20001, 20100]);
    cage.site("shop", "user = \"alice\"\ndocroot = \"/srv/www/alice\"\ngroups = [\"shadow\"]\n");
    assert_eq!(cage.cellwall(&["apply"]).status, Some(1));
}

#[test]
fn users_get_their_sites_from_one_rule_and_an_odd_home_stops_nobody_else() {
    let cage = Cage::new();
    for user in ["alice", "bob"] {
        fs::create_dir(format!("/home/{user}/public_html")).unwrap();
    }
    std::os::unix::fs::chown("/home/bob", Some(20003), None).unwrap();
    cage.host("caller = \"www-data\"\n[userdir]\nenabled = true\nprofile = \"static\"\nusers = [\"alice\", \"b*\"]\n");
    cage.small("shop", "alice", "");
    let said = cage.cellwall(&["apply"]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    assert!(said.err.contains("no ~user site for this one"), "{}", said.err);
    let bytes = fs::read(format!("{POLICY}/20001")).unwrap();
    let record = decode::record(&bytes).unwrap();
    let sites: Vec<(&[u8], bool)> = record.sites.iter().map(|site| (site.name, site.userdir)).collect();
    assert_eq!(sites, [(&b"~alice"[..], true), (&b"shop"[..], false)]);
    assert_eq!(record.sites[0].docroots, [b"/home/alice/public_html"]);
    assert!(!Path::new(POLICY).join("20002").exists());
    assert!(!Path::new(POLICY).join("20003").exists());
    let before = records();
    cage.good(&["apply", "shop"]);
    cage.good(&["apply", "~alice"]);
    assert_eq!(before, records());
}

#[test]
fn two_pools_on_one_socket_are_an_error_that_names_both_lines() {
    let cage = Cage::new();
    let pool = |listen: &str| format!("[pool]\nkind = \"cgi\"\n{listen}");
    cage.small("blog", "alice", &pool("listen = \"one.sock\"\n"));
    cage.small("shop", "bob", &pool("listen = \"/run/cellwall/pool/one.sock\"\n"));
    let wrong = |words: &[&str], told: &[&str]| {
        let said = cage.cellwall(words);
        assert_eq!(said.status, Some(1), "{}", said.err);
        assert!(told.iter().all(|told| said.err.contains(told)), "{told:?}: {}", said.err);
    };
    let both = ["`shop` listens on one.sock, and so does `blog`", "shop.toml:6:10", "/sites.d/blog.toml:6;"];
    wrong(&["check"], &both);
    wrong(&["apply"], &both);
    // One after the other it is the same, and what is installed stays as it is.
    cage.good(&["apply", "blog"]);
    let before = records();
    wrong(&["apply", "shop"], &both);
    wrong(&["check", "/etc/cellwall/sites.d/shop.toml"], &both);
    assert_eq!(before, records());
    // The name that a site has without any line may be another one's.
    cage.small("shop", "bob", &pool("listen = \"blog.sock\"\n"));
    cage.small("blog", "alice", &pool(""));
    wrong(&["check"], &["`shop` listens on blog.sock", "/sites.d/blog.toml:5;"]);
    // Who leaves makes room, who moves takes it along, and addresses are no sockets.
    cage.small("blog", "carol", &pool("listen = \"one.sock\"\n"));
    cage.good(&["apply", "blog"]);
    fs::remove_file("/etc/cellwall/sites.d/blog.toml").unwrap();
    cage.small("shop", "bob", &pool("listen = \"one.sock\"\n"));
    cage.good(&["apply", "blog", "shop"]);
    cage.host("caller = \"www-data\"\n[defaults.pool]\nlisten = \"127.0.0.1:9001\"\n");
    for (site, user) in [("a", "alice"), ("b", "bob"), ("shop", "carol")] {
        cage.small(site, user, &pool(""));
    }
    wrong(
        &["apply"],
        &["`shop` listens on 127.0.0.1:9001, and so does `a`, and 1 more", "cellwall.toml:3:10"],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_its_site_is_not_removed() {
    let cage = Cage::new();
    fs::create_dir("/srv/www/alice/deep").unwrap();
    let file = "/etc/cellwall/sites.d/shop.toml";
    let text = "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n";
    let spoils: [fn(&str); 3] = [
        |file| {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("/srv/nothing", file).unwrap();
        },
        |file| std::os::unix::fs::chown(file, Some(20001), None).unwrap(),
        |file| fs::write(file, "usr = \"alice\"\n").unwrap(),
    ];
    for spoil in spoils {
        drop(fs::remove_file(file));
        cage.site("shop", text);
        cage.site("other", "user = \"alice\"\ndocroot = \"/srv/www/alice/deep\"\n");
        cage.good(&["apply"]);
        let before = records();
        spoil(file);
        for words in [&["apply"][..], &["apply", "shop"], &["apply", "other"]] {
            let said = cage.cellwall(words);
            assert!(said.status == Some(1) && said.err.contains(file), "{words:?}: {}{}", said.out, said.err);
            assert_eq!(before, records());
        }
    }
}

#[test]
fn a_host_file_that_leads_nowhere_is_no_host_without_one() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    fs::remove_file("/etc/cellwall/cellwall.toml").unwrap();
    assert!(cage.cellwall(&["apply"]).err.contains("there is no /etc/cellwall/cellwall.toml"));
    std::os::unix::fs::symlink("/srv/nothing.toml", "/etc/cellwall/cellwall.toml").unwrap();
    for words in [&["apply"][..], &["check"], &["apply", "shop"]] {
        let said = cage.cellwall(words);
        let told = said.err.contains("cannot read /etc/cellwall/cellwall.toml");
        assert!(said.status == Some(1) && told, "{words:?}: {}", said.err);
    }
}

#[test]
fn a_user_whom_the_name_service_does_not_list_keeps_his_site_until_his_account_is_gone() {
    let cage = Cage::new();
    for user in ["alice", "bob", "carol"] {
        fs::create_dir(format!("/home/{user}/public_html")).unwrap();
    }
    fs::write("/etc/nsswitch.conf", "passwd: files\ngroup: files\n").unwrap();
    cage.host("caller = \"www-data\"\n[userdir]\nenabled = true\nusers = [\"alice\", \"bob\", \"carol\"]\n");
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    let before = records();
    assert!(["20001", "20002", "20003"].iter().all(|uid| before.contains_key(*uid)));
    // A directory service that lists a part of its accounts: bob's, of these three.
    let getent = "#!/bin/sh\ngrep -v -e ^alice: -e ^carol: \"/mnt/$1\"\n";
    fs::write("/mnt/getent", getent).unwrap();
    fs::set_permissions("/mnt/getent", std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let none = None::<&str>;
    nix::mount::mount(Some("/mnt/getent"), "/usr/bin/getent", none, nix::mount::MsFlags::MS_BIND, none)
        .unwrap();
    for name in ["passwd", "group"] {
        fs::copy(format!("/etc/{name}"), format!("/mnt/{name}")).unwrap();
    }
    assert!(cage.good(&["apply"]).contains("0 records, 3 unchanged, 0 removed"));
    assert_eq!(before, records());
    // The service fails: without /etc/passwd the source `files` is not available, which is no answer.
    fs::rename("/etc/passwd", "/etc/passwd.away").unwrap();
    for words in [&["apply"][..], &["apply", "~carol"]] {
        let said = cage.cellwall(words);
        let told = said.err.contains("the name service does not say whether uid 2000");
        assert!(said.status == Some(1) && told, "{words:?}: {}{}", said.out, said.err);
        assert_eq!(before, records());
    }
    // An answer that there is none is one.
    let accounts = fs::read_to_string("/etc/passwd.away").unwrap();
    let left: Vec<&str> = accounts.lines().filter(|line| !line.starts_with("carol:")).collect();
    fs::write("/etc/passwd", format!("{}\n", left.join("\n"))).unwrap();
    assert!(cage.good(&["apply"]).contains("1 removed"));
    assert!(!records().contains_key("20003"));
}

/// Whoever holds the lock may be another `cellwall set`.
#[test]
fn a_set_changes_the_file_as_it_is_when_its_turn_comes() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    let file = fs::File::open("/var/lib/cellwall/apply.lock").unwrap();
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut second = command(&["set", "shop", "limits.cpu", "7"]);
    let second = second.stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    cage.small("shop", "alice", "[limits]\nmemory = \"1G\"\n");
    drop(lock);
    let said = said(&second.wait_with_output().unwrap());
    assert_eq!(said.status, Some(0), "{}", said.err);
    let text = fs::read_to_string("/etc/cellwall/sites.d/shop.toml").unwrap();
    assert!(text.contains("memory = \"1G\"") && text.contains("cpu = 7"), "{text}");
}

#[test]
fn a_set_through_a_link_changes_the_file_that_it_leads_to() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    fs::create_dir("/etc/kept").unwrap();
    let (link, kept) = ("/etc/cellwall/sites.d/shop.toml", "/etc/kept/shop.toml");
    fs::rename(link, kept).unwrap();
    std::os::unix::fs::symlink(kept, link).unwrap();
    cage.good(&["apply"]);
    cage.good(&["set", "shop", "limits.nice", "-5"]);
    assert_eq!(fs::read_link(link).unwrap(), Path::new(kept));
    let text = fs::read_to_string(kept).unwrap();
    assert!(text.ends_with("[limits]\nnice = -5\n"), "{text}");
    // Where others may exchange the file, root writes nothing.
    std::os::unix::fs::chown("/etc/kept", Some(20001), None).unwrap();
    let said = cage.cellwall(&["set", "shop", "limits.nice", "5"]);
    assert!(said.status == Some(1) && said.err.contains("is behind /etc/kept"), "{}", said.err);
    assert_eq!(fs::read_to_string(kept).unwrap(), text);
}

#[test]
fn a_set_leaves_the_files_group_and_one_that_fails_its_time() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    let file = "/etc/cellwall/sites.d/shop.toml";
    std::os::unix::fs::chown(file, None, Some(4)).unwrap();
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    cage.good(&["apply"]);
    cage.good(&["set", "shop", "limits.cpu", "7s"]);
    assert_eq!(mode(file), (0o640, 0, 4));
    // Each launch would tell that the file is younger than the policy.
    assert_eq!(cage.cellwall(&["set", "shop", "limits.memory", "7"]).status, Some(1));
    let said = cage.cellwall(&["policy", "shop"]);
    assert!(said.status == Some(0) && said.err.is_empty(), "{}", said.err);
    assert_eq!(mode(file), (0o640, 0, 4));
}

#[test]
fn a_set_of_one_number_keeps_the_others_of_a_lower_layer() {
    let cage = Cage::new();
    cage.host("caller = \"www-data\"\n[defaults.pool]\nworkers = { max = 6, min = 2, idle = \"9s\" }\n");
    cage.small("shop", "alice", "[pool]\ncommand = \"/usr/bin/sleep\"\n");
    cage.good(&["apply"]);
    cage.good(&["set", "shop", "pool.workers.max", "4"]);
    let text = fs::read_to_string("/etc/cellwall/sites.d/shop.toml").unwrap();
    assert!(text.ends_with("workers = { max = 4, min = 2, idle = 9 }\n"), "{text}");
    let policy = cage.good(&["policy", "shop"]);
    assert!(policy.contains("pool.workers: max = 4, min = 2, spare = 0, idle = 9s"), "{policy}");
}

#[test]
fn a_pool_without_a_daemon_is_told_with_the_command_that_starts_it() {
    let cage = Cage::new();
    cage.small("shop", "bob", "");
    let said = cage.cellwall(&["apply"]).err;
    assert!(!said.contains("cellwalld"), "{said}");
    cage.small("shop", "bob", "[pool]\nkind = \"cgi\"\n");
    for _ in 0..2 {
        let said = cage.cellwall(&["apply"]).err;
        assert!(said.contains("note: sites of 1 user have a pool, and cellwalld"), "{said}");
        let systemd = fs::exists("/run/systemd/system").unwrap();
        let help = if systemd { "systemctl enable --now cellwalld" } else { "cellwalld # as root" };
        assert!(said.contains(&format!("help: {help}")), "{said}");
    }
}

#[test]
fn an_answer_that_could_not_be_written_is_no_success() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    for words in [&["policy", "shop"][..], &["apply", "--json"], &["check"]] {
        let full = fs::File::create("/dev/full").unwrap();
        let said = said(&command(words).stdout(full).output().unwrap());
        assert!(said.status == Some(3) && said.err.contains("No space left"), "{words:?}: {}", said.err);
        // Who reads only the beginning has what he wants.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(command(words).stdout(writer).status().unwrap().code(), Some(0), "{words:?}");
    }
}

#[test]
fn a_site_that_there_is_not_has_one_status_whatever_is_asked() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    for words in [
        &["policy", "none"][..],
        &["apply", "none"],
        &["set", "none", "limits.cpu", "7"],
        &["fix", "none"],
        &["run", "none", "--", "true"],
        &["learn", "none", "--", "true"],
        &["jail", "show", "none"],
        &["jail", "check", "none"],
        &["denials", "none"],
    ] {
        let said = cage.cellwall(words);
        assert!(said.err.contains("there is no site `none`"), "{words:?}: {}", said.err);
        assert_eq!(said.status, Some(1), "{words:?}: {}", said.err);
    }
}

#[test]
fn a_site_of_a_user_that_there_is_not_is_told_what_decides() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    for (name, help) in
        [("~alice", "[userdir] of /etc/cellwall/cellwall.toml"), ("~nobodyhere", "no user `nobodyhere`")]
    {
        let said = cage.cellwall(&["apply", name]);
        assert_eq!(said.status, Some(1), "{}", said.err);
        assert!(
            said.err.contains(&format!("there is no site `{name}`")) && said.err.contains(help),
            "{}",
            said.err
        );
    }
    // One that was served, and whose account has gone.
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let without: Vec<&str> = passwd.lines().filter(|line| !line.starts_with("alice:")).collect();
    fs::write("/etc/passwd", without.join("\n") + "\n").unwrap();
    let said = cage.cellwall(&["apply"]);
    assert!(
        said.err.contains("rm /etc/cellwall/sites.d/shop.toml") && said.err.contains("--uid 20001"),
        "{}",
        said.err
    );
}

#[test]
fn who_waits_for_the_lock_is_told_for_whom() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    let mut other = std::process::Command::new("flock")
        .args(["/var/lib/cellwall/apply.lock", "sleep", "10"])
        .spawn()
        .unwrap();
    let is_free = || {
        let free = ["--nonblock", "/var/lib/cellwall/apply.lock", "true"];
        std::process::Command::new("flock").args(free).status().unwrap().success()
    };
    while is_free() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let said = cage.cellwall(&["apply"]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    let wanted = format!(
        "waiting for `flock /var/lib/cellwall/apply.lock sleep 10` (process {}), which has",
        other.id()
    );
    assert!(said.err.contains(&wanted), "{}", said.err);
    other.wait().unwrap();
}

#[test]
fn users_of_userdir_who_do_not_exist_are_told() {
    let cage = Cage::new();
    fs::create_dir("/home/alice/public_html").unwrap();
    cage.host("caller = \"www-data\"\n[userdir]\nenabled = true\nprofile = \"static\"\nusers = [\"alise\", \"stud*\", \"alice\"]\n");
    let said = cage.cellwall(&["check"]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    for part in [
        "there is no user `alise`",
        "did you mean `alice`?",
        "no user's name is like `stud*`",
        "cellwall.toml:5:10",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert!(!said.err.contains("`alice` "), "{}", said.err);
    // Whoever writes rules for users and does not switch them on, has forgotten it.
    cage.host("caller = \"www-data\"\n[userdir]\nusers = [\"alice\"]\n");
    let said = cage.cellwall(&["check"]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    assert!(said.err.contains("`enabled` is not true, so nobody has a ~user site"), "{}", said.err);
    cage.host("caller = \"www-data\"\n[userdir]\nenabled = false\nusers = [\"alice\"]\n");
    assert_eq!(cage.cellwall(&["check"]).err, "");
}
