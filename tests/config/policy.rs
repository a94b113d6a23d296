//! policy: what it prints of a record; and what a view and a rule set hold.

use std::fs;

use cellwall::policy::{Jail, PathRule, Site, Step, StepKind, decode};
use cellwall::pool::settings::{self, Settings};

use crate::cage::{Cage, POLICY};

fn with_site(test: impl FnOnce(&Site<'_>)) {
    let bytes = fs::read(format!("{POLICY}/20001")).unwrap();
    test(decode::record(&bytes).unwrap().sites.first().unwrap());
}

fn with_pool(test: impl FnOnce(&Settings<'_>)) {
    let bytes = fs::read(format!("{POLICY}/20001.pool")).unwrap();
    let file = settings::file(&bytes).unwrap();
    test(&settings::settings(file.pools[0]).unwrap());
}

fn step<'a>(site: &'a Site<'_>, target: &str) -> Option<&'a Step<'a>> {
    let Jail::View(view) = &site.jail else { panic!("no view") };
    view.steps.iter().find(|step| step.target == target.as_bytes())
}

fn rights(site: &Site<'_>, path: &str) -> Option<u8> {
    site.landlock.rules.iter().find(|rule| rule.path == path.as_bytes()).map(|rule| rule.rights)
}

#[test]
fn each_rule_is_printed_with_the_line_behind_it() {
    let cage = Cage::new();
    fs::create_dir("/srv/data").unwrap();
    fs::create_dir("/srv/www/alice/up").unwrap();
    cage.host("caller = \"www-data\"\n[defaults.limits]\nwall = \"60s\"\n");
    cage.small(
        "shop",
        "alice",
        "[limits]\nmemory = \"256M\"\n[files]\nread = [\n  \"/srv/data\",\n]\nwrite = [\"{docroot}/up\"]\n[environment]\nset = { TZ = \"UTC\" }\n",
    );
    cage.good(&["apply"]);
    let said = cage.good(&["policy", "shop"]);
    let file = "/etc/cellwall/sites.d/shop.toml";
    for line in [
        format!("    /srv/www/alice   # {file}:2"),
        format!("  limits.memory: 256M   # {file}:5"),
        "  limits.wall: 60s   # /etc/cellwall/cellwall.toml:3".to_owned(),
        format!("    read /srv/data   # {file}:8"),
        format!("    read, write /srv/www/alice/up   # {file}:10"),
        format!("    TZ=UTC   # {file}:12"),
    ] {
        assert!(said.lines().any(|printed| printed == line), "{line}\n{said}");
    }
    assert_eq!(said, cage.good(&["policy", "20001"]));
    assert!(cage.good(&["policy", "shop", "--json"]).starts_with("{\"uid\":20001,\"user\":\"alice\","));
    assert!(cage.good(&["policy", "host"]).contains("caller: www-data (uid 33)"));
    let said = cage.cellwall(&["policy", "nothing"]);
    assert_eq!((said.status, said.err.contains("there is no site `nothing`")), (Some(1), true));
}

#[test]
fn a_younger_file_is_told() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    cage.small("shop", "alice", "# changed\n");
    assert!(cage.cellwall(&["policy", "shop"]).err.contains("has changed since"));
}

#[test]
fn what_one_list_insists_on_is_optional_in_no_other() {
    let cage = Cage::new();
    fs::create_dir("/srv/www/alice/up").unwrap();
    cage.small("shop", "alice", "[files]\nread = [\"{docroot}/up?\"]\nwrite = [\"{docroot}/up\"]\n");
    cage.good(&["apply"]);
    with_site(|site| {
        assert_eq!(rights(site, "/srv/www/alice/up"), Some(PathRule::READ | PathRule::WRITE));
    });
}

/// The ways around the rules of ports are closed by system calls, whichever of the two lists there is.
#[test]
fn either_list_of_ports_closes_the_ways_around_it() {
    let cage = Cage::new();
    let filter = |more: &str| {
        cage.small("shop", "alice", more);
        cage.good(&["apply"]);
        let mut filter = Vec::new();
        with_site(|site| filter = site.seccomp.to_vec());
        filter
    };
    let (none, connect) = (filter(""), filter("[network]\nconnect = [25]\n"));
    assert_ne!(none, connect);
    assert_eq!(connect, filter("[network]\nbind = [8000]\n"));
}

/// The mount says what Landlock does, which gives the rights of a directory to all below it.
#[test]
fn programs_start_from_what_is_written_where_another_list_says_so() {
    let cage = Cage::new();
    fs::create_dir("/srv/lib").unwrap();
    for directory in ["/srv/both", "/srv/data", "/srv/lib/up"] {
        fs::create_dir(directory).unwrap();
        std::os::unix::fs::chown(directory, Some(20001), Some(20001)).unwrap();
    }
    let write = "write = [\"/srv/both\", \"/srv/data\", \"/srv/lib/up\"]\n";
    cage.small("shop", "alice", &format!("[files]\nexecute = [\"/srv/both\", \"/srv/lib\"]\n{write}"));
    cage.good(&["apply"]);
    with_site(|site| {
        let starts_none = |path: &str| step(site, path).unwrap().flags & Step::NO_EXEC != 0;
        assert_eq!(["/srv/both", "/srv/data", "/srv/lib/up"].map(starts_none), [false, true, false]);
    });
}

/// /var/lib/mysql holds all data beside its socket.
#[test]
fn of_a_service_outside_of_run_a_view_shows_the_socket_alone() {
    let cage = Cage::new();
    fs::create_dir_all("/srv/data/mysql").unwrap();
    let _service = std::os::unix::net::UnixListener::bind("/srv/data/mysql/sock").unwrap();
    cage.small("shop", "alice", "[files]\nsockets = [\"/srv/data/mysql/sock\"]\n");
    cage.good(&["apply"]);
    with_site(|site| {
        assert_eq!(step(site, "/srv/data/mysql/sock").map(|step| step.kind), Some(StepKind::BindFile));
        assert!(step(site, "/srv/data/mysql").is_none() && rights(site, "/srv/data/mysql").is_none());
    });
}

#[test]
fn a_view_binds_what_the_rules_permit_and_nothing_else() {
    let cage = Cage::new();
    fs::create_dir_all("/srv/lib/inner").unwrap();
    std::os::unix::fs::symlink("lib", "/srv/link").unwrap();
    fs::create_dir("/srv/www/alice/up").unwrap();
    cage.small(
        "shop",
        "alice",
        "[files]\nread = [\"/srv/link/inner\", \"/srv/nothing?\"]\nwrite = [\"/srv/www/alice/up\"]\n[jail]\nprocesses = true\n",
    );
    cage.good(&["apply"]);
    with_site(|site| {
        let inner = step(site, "/srv/lib/inner").unwrap();
        assert_eq!(inner.kind, StepKind::BindDirectory);
        assert_eq!(inner.flags, Step::READ_ONLY | Step::NO_DEVICES | Step::NO_SET_ID);
        let link = step(site, "/srv/link").unwrap();
        assert_eq!((link.kind, link.source), (StepKind::Link, &b"lib"[..]));
        assert_eq!(rights(site, "/srv/lib/inner"), Some(PathRule::READ));
        assert_eq!(rights(site, "/srv/link/inner"), None);
        assert!(step(site, "/srv/nothing").is_none());
        let own = step(site, "/srv/www/alice").unwrap();
        assert_eq!(own.flags, Step::NO_DEVICES | Step::NO_SET_ID | Step::SITE);
        assert_eq!(rights(site, "/srv/www/alice"), Some(PathRule::READ | PathRule::EXECUTE));
        assert_eq!(rights(site, "/srv/www/alice/up"), Some(PathRule::READ | PathRule::WRITE));
        let null = step(site, "/dev/null").unwrap();
        assert_eq!((null.kind, null.flags & Step::NO_DEVICES), (StepKind::BindFile, 0));
        assert_eq!(step(site, "/proc").unwrap().kind, StepKind::Processes);
        assert_eq!(step(site, "/dev/shm").unwrap().kind, StepKind::Memory);
        let tmp = step(site, "/tmp").unwrap();
        assert_eq!(tmp.source, b"/var/lib/cellwall/private/20001/shop/tmp");
        for hidden in ["/", "/etc", "/home", "/srv", "/srv/www", "/srv/www/bob", "/var", "/usr"] {
            assert!(step(site, hidden).is_none(), "{hidden}");
        }
        let Jail::View(view) = &site.jail else { panic!("no view") };
        for (place, inner) in view.steps.iter().enumerate() {
            let above = |outer: &&Step<'_>| {
                inner.target.starts_with(outer.target) && inner.target.get(outer.target.len()) == Some(&b'/')
            };
            assert!(view.steps[place..].iter().all(|outer| !above(&outer)), "a parent comes after its child");
        }
    });
}

#[test]
fn a_docroot_in_a_home_is_bound_at_the_home_which_its_owner_cannot_replace() {
    let cage = Cage::new();
    fs::create_dir_all("/home/alice/www/htdocs").unwrap();
    cage.site("shop", "user = \"alice\"\ndocroot = \"/home/alice/www/htdocs\"\n");
    cage.good(&["apply"]);
    with_site(|site| {
        let home = step(site, "/home/alice").unwrap();
        assert_eq!(home.flags & (Step::SITE | Step::READ_ONLY), Step::SITE | Step::READ_ONLY);
        assert!(step(site, "/home/alice/www/htdocs").is_none());
        assert_eq!(rights(site, "/home/alice/www/htdocs"), Some(PathRule::READ | PathRule::EXECUTE));
        assert_eq!(rights(site, "/home/alice"), None);
        assert_ne!(site.identity.home_inode, 0);
    });
}

#[test]
fn what_a_site_owner_does_in_his_tree_never_stops_an_apply() {
    let cage = Cage::new();
    fs::create_dir("/srv/www/alice/htdocs").unwrap();
    cage.site(
        "shop",
        "user = \"alice\"\ndocroot = \"/srv/www/alice/htdocs\"\n[files]\nwrite = [\"/srv/www/alice/up\"]\n",
    );
    let owners: [fn(); 4] = [
        || drop(fs::remove_dir("/srv/www/alice/htdocs")),
        || std::os::unix::fs::symlink("/etc", "/srv/www/alice/htdocs").unwrap(),
        || std::os::unix::fs::symlink("/etc/shadow", "/srv/www/alice/up").unwrap(),
        || {
            fs::set_permissions("/srv/www/alice", std::os::unix::fs::PermissionsExt::from_mode(0o777))
                .unwrap()
        },
    ];
    for owner in owners {
        owner();
        cage.good(&["apply"]);
        with_site(|site| {
            // The view's /etc holds these two and nothing of the host's; the rules may name it as a whole.
            let Jail::View(view) = &site.jail else { panic!("no view") };
            let of_the_host = view.steps.iter().filter(|step| step.target.starts_with(b"/etc"));
            let targets: Vec<&[u8]> = of_the_host.map(|step| step.target).collect();
            assert_eq!(targets, [&b"/etc/group"[..], b"/etc/passwd"]);
            assert!(view.steps.iter().all(|step| !step.source.starts_with(b"/etc")));
            let mut paths = site.landlock.rules.iter().map(|rule| rule.path);
            assert!(paths.all(|path| path == b"/etc" || !path.starts_with(b"/etc")));
            assert_eq!(site.docroots, [b"/srv/www/alice/htdocs"]);
        });
    }
}

#[test]
fn what_a_service_offers_may_be_read_but_another_users_tree_may_not() {
    let cage = Cage::new();
    fs::create_dir("/srv/resolve").unwrap();
    fs::write("/srv/resolve/stub.conf", "nameserver 127.0.0.53\n").unwrap();
    std::os::unix::fs::chown("/srv/resolve", Some(101), None).unwrap();
    std::os::unix::fs::symlink("/srv/resolve/stub.conf", "/srv/resolv.conf").unwrap();
    cage.small("shop", "alice", "[files]\nread = [\"/srv/resolv.conf\"]\n");
    cage.good(&["apply"]);
    with_site(|site| {
        assert_eq!(step(site, "/srv/resolve").unwrap().kind, StepKind::BindDirectory);
        assert_eq!(step(site, "/srv/resolv.conf").unwrap().kind, StepKind::Link);
        assert_eq!(rights(site, "/srv/resolve/stub.conf"), Some(PathRule::READ));
    });
    for list in ["execute = [\"/srv/resolve\"]", "write = [\"/srv/resolve\"]", "read = [\"/srv/www/bob\"]"] {
        cage.small("shop", "alice", &format!("[files]\n{list}\n"));
        let said = cage.cellwall(&["check"]);
        assert!(said.status == Some(1) && said.err.contains("who could replace it"), "{list}: {}", said.err);
    }
}

#[test]
fn a_host_jail_has_rules_and_its_own_temporary_directory() {
    let cage = Cage::new();
    cage.small("shop", "alice", "[jail]\nkind = \"host\"\n");
    cage.good(&["apply"]);
    with_site(|site| {
        assert_eq!(site.jail, Jail::Host);
        let own = "/var/lib/cellwall/private/20001/shop/tmp";
        assert_eq!(rights(site, own), Some(PathRule::READ | PathRule::WRITE));
        assert!(site.environment.set.contains(&(b"TMPDIR", own.as_bytes())));
        assert_eq!(rights(site, "/tmp"), None);
    });
}

#[test]
fn a_chroot_has_its_paths_as_they_are_inside() {
    let cage = Cage::new();
    fs::create_dir_all("/srv/jail/htdocs").unwrap();
    fs::create_dir_all("/srv/jail/usr/lib").unwrap();
    cage.site(
        "shop",
        "user = \"alice\"\ndocroot = \"/srv/jail/htdocs\"\n[jail]\nkind = \"chroot\"\ndirectory = \"/srv/jail\"\n[files]\nread = [\"/usr/lib\"]\n",
    );
    cage.good(&["apply"]);
    with_site(|site| {
        assert_eq!(site.jail, Jail::Chroot(b"/srv/jail"));
        assert_eq!(rights(site, "/htdocs"), Some(PathRule::READ | PathRule::EXECUTE));
        assert_eq!(rights(site, "/usr/lib"), Some(PathRule::READ));
    });
}

#[test]
fn limits_max_bounds_every_site() {
    let cage = Cage::new();
    cage.host("caller = \"www-data\"\n[limits_max]\nmemory = \"128M\"\n");
    cage.small("shop", "alice", "[limits]\nmemory = \"256M\"\n");
    let said = cage.cellwall(&["check"]);
    assert_eq!(said.status, Some(1));
    assert!(
        said.err.contains("limits.memory is above limits_max.memory of /etc/cellwall/cellwall.toml:3"),
        "{}",
        said.err
    );
}

#[test]
fn a_site_that_writes_no_limit_has_the_largest_that_the_host_allows() {
    let cage = Cage::new();
    let most =
        ["memory = \"128M\"", "processes = 9", "cpu = 7", "wall = 50", "open_files = 77", "file_size = 4096"];
    cage.host(&format!("caller = \"www-data\"\n[limits_max]\n{}\n", most.join("\n")));
    let text = "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n";
    cage.site("shop", text);
    cage.good(&["apply"]);
    with_site(|site| {
        assert_eq!(site.limits.wall_seconds, 50);
        let limit =
            |number| site.limits.resources.iter().find(|one| one.number == number).map(|one| one.value);
        // getrlimit(2): RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_NPROC, RLIMIT_NOFILE.
        assert_eq!([0, 1, 6, 7].map(limit), [Some(7), Some(4096), Some(9), Some(77)]);
        let grouped = site.limits.groups.iter().flat_map(|group| &group.settings);
        let memory = grouped.filter(|(file, _)| file.starts_with(b"memory")).map(|(_, value)| *value).next();
        assert!(memory == Some(b"134217728") || limit(9) == Some(128 << 20), "{:?}", site.limits);
    });
    let said = cage.good(&["policy", "shop"]);
    assert!(said.contains("limits.wall: 50s   # /etc/cellwall/cellwall.toml:6"), "{said}");
    // What a site writes is its own business below the largest, and an error above.
    cage.site("shop", &format!("{text}[limits]\nwall = 20\n"));
    cage.good(&["apply"]);
    with_site(|site| assert_eq!(site.limits.wall_seconds, 20));
    for line in ["memory", "processes", "cpu", "wall", "open_files", "file_size"] {
        cage.site("shop", &format!("{text}[limits]\n{line} = \"unlimited\"\n"));
        let said = cage.cellwall(&["check"]);
        let above = format!("limits.{line} is above limits_max.{line}");
        assert!(said.status == Some(1) && said.err.contains(&above), "{line}: {}", said.err);
    }
    cage.site("shop", &format!("{text}[limits]\nwall = 0\n"));
    let said = cage.cellwall(&["check"]);
    assert!(said.status == Some(1) && said.err.contains("with wall = 0 nothing can run"), "{}", said.err);
    // A host without a largest one bounds nobody.
    cage.host("caller = \"www-data\"\n[limits_max]\nwall = \"unlimited\"\n");
    cage.site("shop", text);
    cage.good(&["apply"]);
    with_site(|site| assert_eq!(site.limits.wall_seconds, 0));
}

#[test]
fn a_pools_request_may_take_no_longer_than_the_host_allows_and_no_longer_than_before() {
    let cage = Cage::new();
    let text = "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n[pool]\nkind = \"cgi\"\n";
    for (most, own, seconds) in [("20", "", 20), ("300", "", 60), ("300", "[limits]\nwall = 200\n", 200)] {
        cage.host(&format!("caller = \"www-data\"\n[limits_max]\nwall = {most}\n"));
        cage.site("shop", &format!("{text}{own}"));
        cage.good(&["apply"]);
        with_pool(|settings| assert_eq!(settings.request.deadline_ms, seconds * 1000));
    }
}

#[test]
fn no_limit_of_a_pool_is_none_at_all() {
    let cage = Cage::new();
    let all = "requests memory timeout output_timeout start_timeout queue_timeout slow cpu_timeout body_max";
    let lines: String = all.split(' ').map(|name| format!("{name} = \"unlimited\"\n")).collect();
    let text = "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n[pool]\ncommand = \"/bin/sh\"\n";
    cage.site("shop", &format!("{text}workers = {{ max = 2, idle = \"unlimited\" }}\n{lines}"));
    cage.good(&["apply"]);
    with_pool(|settings| {
        let (request, worker) = (settings.request, settings.worker);
        assert_eq!([request.deadline_ms, request.silence_ms, request.cpu_ms, worker.start_ms], [0; 4]);
        assert_eq!((worker.requests, worker.memory, request.body_max), (0, 0, u64::MAX));
        assert_eq!((settings.queue.deadline_ms, settings.seen.slow_ms), (0, 0));
        // There 0 is at once.
        assert_eq!(settings.workers.idle_ms, u32::MAX);
    });
}
