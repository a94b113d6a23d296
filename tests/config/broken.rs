//! Broken files: each is told with its line, its column and what was probably meant.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::cage::Cage;

/// A site's text, and line, column, message and help that it must give.
type Case = (&'static str, usize, usize, &'static str, &'static str);

/// Before each text stand `user` and `docroot`, unless it begins with `!`.
const CASES: &[Case] = &[
    ("docrot = \"/srv/www/alice\"", 3, 1, "unknown key `docrot`", "did you mean `docroot`?"),
    ("hardlinks = true", 3, 1, "unknown key `hardlinks`", "did you mean `hard_links`?"),
    ("symlink = \"deny\"", 3, 1, "unknown key `symlink`", "did you mean `symlinks`?"),
    ("user = \"bob\"", 3, 1, "duplicate key", "keep one"),
    ("[limits]\nmemory = \"1M\"\nmemory = \"2M\"", 5, 1, "duplicate key", "keep one"),
    ("memory = \"256M\"", 3, 1, "unknown key `memory`", "`memory` belongs in [limits]"),
    ("[limits]\nmemroy = \"256M\"", 4, 1, "unknown key `memroy` in [limits]", "did you mean `memory`?"),
    ("[limits]\nmemory = \"256 parsecs\"", 4, 10, "`256 parsecs` is no size", "512K, 256M, 2G"),
    ("[limits]\n  memory = true", 4, 12, "a unit like", "\"unlimited\""),
    ("[limits]\nmemory = -1", 4, 10, "not a negative one", "\"unlimited\""),
    ("[limits]\nmemory = 0", 4, 10, "with memory = 0 nothing can run", "unlimited"),
    ("[limits]\nmemory = 512", 4, 10, "with 512 bytes of memory nothing can run", "\"512M\""),
    ("[limits]\nfile_size = 0", 4, 13, "with file_size = 0 nothing can be written", "unlimited"),
    ("[limits]\nwall = 0", 4, 8, "with wall = 0 nothing can run", "unlimited"),
    ("[limits]\ncpu = \"30 M\"", 4, 7, "`30 M` is no time", "30s, 5m, 1h"),
    ("[limits]\numask = 22", 4, 9, "`22` is a decimal number", "umask = \"022\""),
    ("[limits]\numask = 18", 4, 9, "`18` is a decimal number", "umask = \"022\""),
    ("[limits]\numask = \"999\"", 4, 9, "`999` is no umask", "octal"),
    ("[limits]\nnice = 40", 4, 8, "40 is out of range", "it goes from -20 to 19"),
    ("[limit]\nmemory = 1", 3, 2, "unknown key `limit`", "did you mean [limits]?"),
    ("limits = 5", 3, 1, "`limits` is a section", "write [limits]"),
    ("[jail]\nkind = \"veiw\"", 4, 8, "`veiw` is none of `view`, `host`, `chroot`", "did you mean `view`?"),
    ("[jail]\nkind = \"chroot\"", 4, 8, "needs a directory", "directory ="),
    ("[jail]\nlandlock = \"best\"", 4, 12, "`best` is none of", "use one of them"),
    ("[jail]\ndevices = [\"null\", \"sda9z\"]", 4, 20, "/dev/sda9z is no device", "null, zero"),
    ("[network]\nconnect = [25, 70000]", 4, 16, "70000 is out of range", "1 to 65535"),
    ("[network]\nconnect = \"smtp\"", 4, 11, "invalid type", "a whole number"),
    ("[files]\nread = [\"/\"]", 4, 9, "a rule for / would be no wall", "name the directories"),
    (
        "[jail]\nprocesses = true\n[files]\nread = [\"/proc/cpuinfo\"]",
        6,
        9,
        "/proc/cpuinfo is not in a view's /proc",
        "each works without the other",
    ),
    ("[files]\nread = [\"etc\"]", 4, 9, "`etc` is no plain absolute path", "begin with /"),
    ("[files]\nread = [\"/usr/lib\",\n  \"/usr/libb\"]", 5, 3, "/usr/libb does not exist", "`?` at its end"),
    (
        "[files]\nread = [\"/usr/lib/nothing*\"]",
        4,
        9,
        "nothing on this host is /usr/lib/nothing*",
        "`?` at its end",
    ),
    (
        "[files]\nread = [\"/etc/a-a|/etc/b-b\"]",
        4,
        9,
        "nothing on this host is /etc/a-a|/etc/b-b",
        "`?` at its end",
    ),
    ("[files]\nat = { \"/etc/x\" = \"/srv/www/alice\" }", 4, 19, "/srv/www/alice is not root's", "root's"),
    ("[files]\nat = { \"/etc/x\" = \"/etc/nothing\" }", 4, 19, "/etc/nothing does not exist", "correct it"),
    ("code_owner = \"alice\"", 3, 14, "is the user of the site itself", "the account that deploys"),
    ("code_owner = \"www-data\"", 3, 14, "is the web server", "the account that deploys"),
    ("code_owner = \"nobodyhere\"", 3, 14, "there is no user `nobodyhere`", "useradd"),
    ("pieces = [\"mysqll\"]", 3, 11, "there is no piece `mysqll`", "did you mean `mysql`?"),
    ("[files]\nread = [\"/usr/../etc\"]", 4, 9, "no plain absolute path", "no `..`"),
    ("[files]\nwrite = [\"{hme}/x\"]", 4, 10, "`{hme}` stands for nothing", "{home}"),
    ("[environment]\npass = [\"LD_PRELOAD\"]", 4, 9, "`LD_PRELOAD` steers programs", "give it a fixed value"),
    ("[environment]\npass = [\"PYTHON*\"]", 4, 9, "could match a name that never passes", "one by one"),
    ("[environment]\nset = { \"A B\" = \"1\" }", 4, 9, "`A B` is no name of a variable", "letters"),
    (
        "[handlers]\n\".php\" = \"/usr/bin/php-cgii\"",
        4,
        10,
        "/usr/bin/php-cgii does not exist",
        "did you mean /usr/bin/php-cgi?",
    ),
    (
        "[handlers]\n\".x\" = \"/etc/group\"",
        4,
        8,
        "/etc/group is not executable (0644)",
        "chmod a+x /etc/group",
    ),
    (
        "[pool]\ncommand = \"/etc/group\"",
        4,
        11,
        "/etc/group is not executable (0644)",
        "chmod a+x /etc/group",
    ),
    ("[handlers]\nphp = \"/bin/sh\"", 4, 1, "`php` is no ending", "\".php\""),
    ("[privileges]\ndangerous_set_id_mail = true", 4, 25, "is not permitted on this host", "allow_dangerous"),
    ("[pool]\ncommand = \"/usr/bin/nothing\"", 4, 11, "/usr/bin/nothing does not exist", "install it"),
    ("[pool]\nworkers = { max = 1, spare = 2 }", 4, 11, "so many workers", "at most max"),
    ("[pool]\nkind = \"fastcgi\"", 4, 8, "this pool has no program", "kind = \"cgi\""),
    ("[pool]\nkind = \"cgi\"\ncommand = \"/bin/sh\"", 4, 8, "has no command", "remove command"),
    ("[pool]\nkind = \"cgi\"\naccept = \"direct\"", 5, 10, "cannot be direct", "remove accept"),
    ("[pool]\nkind = \"cgi\"\nchildren = 2", 5, 12, "has children", "kind = \"parent\""),
    (
        "[pool]\nkind = \"cgi\"\nworkers = { max = 2, min = 1 }",
        5,
        11,
        "only `max` and `idle` count",
        "remove the others",
    ),
    ("[pool]\nkind = \"cgi\"\nrequests = 500", 5, 12, "pool.requests does nothing here", "remove the line"),
    (
        "[pool]\ncommand = \"/bin/sh\"\naccept = \"direct\"\nqueue = 5",
        6,
        9,
        "pool.queue does nothing here: workers that accept for themselves",
        "remove the line, or accept",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\naccept = \"direct\"\nworkers = { max = 2, idle = 5 }",
        6,
        11,
        "workers that accept for themselves all run",
        "write max alone",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\nlisten = \"127.0.0.1:9000\"\nclients = [\"www-data\"]",
        6,
        12,
        "an address has no group",
        "listen on a socket",
    ),
    ("[pool]\nkind = \"cgi\"\nping_answer = \"x\"", 5, 15, "there is no ping page", "ping = "),
    ("[pool]\nkind = \"cgi\"\nslow_log = \"/var/log/x\"", 5, 12, "no request is slow", "slow = "),
    (
        "[pool]\ncommand = \"/bin/sh\"\nlisten = \"192.0.2.1:9000\"",
        5,
        10,
        "reachable from outside",
        "127.0.0.1",
    ),
    ("[pool]\ncommand = \"/bin/sh\"\nlisten = \"../shop.sock\"", 5, 10, "no socket below", "file name"),
    ("[pool]\ncommand = \"/bin/sh\"\nclients = [\"nobodyx\"]", 5, 12, "there is no user", "web server"),
    (
        "[pool]\ncommand = \"/bin/sh\"\nrequests = 0",
        5,
        12,
        "pool.requests = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\nmemory = 0",
        5,
        10,
        "pool.memory = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\nqueue_timeout = 0",
        5,
        17,
        "pool.queue_timeout = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\ntimeout = 0",
        5,
        11,
        "pool.timeout = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\noutput_timeout = 0",
        5,
        18,
        "pool.output_timeout = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\ncpu_timeout = 0",
        5,
        15,
        "pool.cpu_timeout = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\nstart_timeout = 0",
        5,
        17,
        "pool.start_timeout = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    (
        "[pool]\ncommand = \"/bin/sh\"\nslow = 0",
        5,
        8,
        "pool.slow = 0 would mean no limit",
        "write \"unlimited\"",
    ),
    ("[pool]\ncommand = \"/bin/sh\"\nqueue = \"unlimited\"", 5, 9, "cannot be unlimited", "queue = 1000"),
    (
        "[pool]\ncommand = \"/bin/sh\"\nstop_timeout = \"unlimited\"",
        5,
        16,
        "cannot be unlimited",
        "stop_timeout = \"10m\"",
    ),
    ("[pool]\ncommand = \"/bin/sh\"\nconcurrency = \"unlimited\"", 5, 15, "so many at a time", "write 1 to"),
    (
        "[pool]\ncommand = \"/bin/sh\"\nworkers = { max = \"unlimited\" }",
        5,
        11,
        "so many workers",
        "max is 1 to",
    ),
    ("[pool]\nkind = \"cgj\"", 4, 8, "none of `fastcgi`", "did you mean"),
    ("[pool]\nworkers = 9", 4, 11, "invalid type: integer `9`, expected a table", "workers = { max = 8 }"),
    ("[pool]\nworkers = { maxx = 1 }", 4, 13, "unknown field `maxx`", "workers = { max = 8 }"),
    ("[pool]\ncommand = 7", 4, 11, "expected a program like", "write its path in quotes"),
    ("[pool]\ncommand = \"/bin/true\"\nmemory = 128", 5, 10, "with 128 bytes of memory", "\"512M\""),
    ("profile = [[\"sh\"]]", 3, 12, "invalid type: sequence", "one name or path, in quotes"),
    ("user = 20001", 3, 1, "duplicate key", "keep one"),
    ("group = \"../x\"", 3, 9, "there is no group `../x`", "no group can have that name"),
    ("group = \"x; reboot\"", 3, 9, "there is no group `x; reboot`", "no group can have that name"),
    ("code_owner = \"a b\"", 3, 14, "there is no user `a b`", "no user can have that name"),
    ("[files]\nat = 7", 4, 1, "`at` is a table, not an integer", "\"/usr/bin/msmtp\""),
    ("handlers = 7", 3, 1, "`handlers` is a section, not an integer", "write [handlers]"),
    (
        "[files]\nat = { \"/x\" = \"/\" }",
        4,
        15,
        "a rule for / would be no wall",
        "name the file or directory",
    ),
    (
        "[files]\nat = { \"/\" = \"/usr/bin\" }",
        4,
        8,
        "nothing can stand in the place of /",
        "a path below it",
    ),
    ("[files]\nsockets = \"/\"", 4, 11, "/ is no socket", "the socket itself"),
    ("[files]\nsockets = \"/etc/group\"", 4, 11, "/etc/group is no socket", "the socket itself"),
    ("[files]\nsockets = \"/run\"", 4, 11, "/run is no socket", "the socket itself"),
    ("[files]\nread = \"~/x\"", 4, 8, "`~/x` is no plain absolute path", "{home}/x"),
    ("[files]\nread = \"$HOME/x\"", 4, 8, "`$HOME/x` is no plain absolute path", "{home}/x"),
    ("[files]\nread = \"/etc/*/nothing\"", 4, 8, "nothing on this host is /etc/*/nothing", "`?` at its end"),
    ("[files]\nwrite = \"/var/tmp/a\"", 4, 9, "/var/tmp/a is below /var/tmp", "only root can replace"),
    ("[jail]\nprivate = \"/\"", 4, 11, "/ cannot be private", "/var/tmp"),
    ("[jail]\nprivate = \"/etc\"", 4, 11, "a private /etc would hide", "what lies beneath"),
    ("[jail]\nprivate = \"/dev\"", 4, 11, "a private /dev would hide /dev/", "what lies beneath"),
    (
        "[jail]\nprivate = \"/srv/www/alice\"",
        4,
        11,
        "a private /srv/www/alice would hide",
        "what lies beneath",
    ),
    ("[jail]\nprivate = \"/srv/www\"", 4, 11, "a private /srv/www would hide /srv/www/alice", "beneath"),
    (
        "!user = \"alice\"\ndocroot = \"/tmp/a\"",
        2,
        11,
        "docroot /tmp/a is below /tmp, where everybody may put things",
        "/srv/www/NAME",
    ),
    ("programs = \"/usr/bin/nothing*\"", 3, 12, "nothing on this host is /usr/bin/nothing*", "correct it"),
    ("profile = \"sttaic\"", 3, 11, "there is no profile `sttaic`", "did you mean `static`?"),
    ("group = \"nogrouphere\"", 3, 9, "there is no group", "groupadd nogrouphere"),
    ("group = \"www-data\"", 3, 9, "gid 33 is below minimum_gid 1000", "own group"),
    ("programs = [\"/home/alice\"]", 3, 13, "belongs to uid 20001", "chown -h root"),
    ("interpreters = [\"/etc\"]", 3, 17, "is no program", ""),
    ("hard_links = \"yes\"", 3, 14, "invalid type", "true or false"),
    ("symlinks = 3", 3, 12, "invalid type", "in quotes"),
    ("x = \"a", 3, 7, "invalid basic string", "not TOML"),
    ("!docroot = \"/srv/www/alice\"", 1, 1, "the site names no user", "user = "),
    ("!user = \"alise\"\ndocroot = \"/srv/www/alice\"", 1, 8, "there is no user `alise`", "useradd"),
    ("!user = \"root\"\ndocroot = \"/srv/www/alice\"", 1, 8, "no site runs as root", "user of its own"),
    (
        "!user = \"www-data\"\ndocroot = \"/srv/www/alice\"",
        1,
        8,
        "uid 33 of `www-data` is below",
        "minimum_uid",
    ),
    ("!user = \"alice\"", 1, 1, "the site names no docroot", "docroot ="),
    ("!user = \"alice\"\ndocroot = \"/\"", 2, 11, "is not beneath", "base of all sites"),
    (
        "!user = \"alice\"\ndocroot = [\"/srv/www/alice/\"]",
        2,
        12,
        "no plain absolute path",
        "no / at the end",
    ),
    (
        "!user = \"alice\"\ndocroot = [\"/srv/www/bob\"]",
        2,
        12,
        "belongs to uid 20002",
        "chown -h root /srv/www/bob",
    ),
    ("!user = 20001\ndocroot = \"/srv/www/alice\"", 1, 8, "expected a string", "in quotes"),
    (
        "!user = \"alice\"\ndocroot = \"/etc\"",
        2,
        11,
        "docroot /etc is the host's own",
        "a directory of its own",
    ),
    (
        "!user = \"alice\"\ndocroot = \"/proc/self\"",
        2,
        11,
        "docroot /proc/self is the host's own",
        "of its own",
    ),
    ("!user = \"alice\"\ndocroot = \"/srv/www/*\"", 2, 11, "/srv/www/* does not exist", "no pattern"),
    (
        "[handlers]\n\".x\" = \"/usr/bin/perl -w\"",
        4,
        8,
        "/usr/bin/perl -w does not exist",
        "write [\"/usr/bin/perl\", \"-w\"]",
    ),
    (
        "[pool]\ncommand = \"/usr/bin/perl -w\"",
        4,
        11,
        "/usr/bin/perl -w does not exist",
        "write [\"/usr/bin/perl\", \"-w\"]",
    ),
    ("groups = \"shadow\"", 3, 10, "group `shadow` opens more than a site may have", "remove it"),
    ("[environment]\npass = \"HTTP_AUTHORIZATION\"", 4, 8, "has its own key", "authorization = true"),
    ("[environment]\nset = { A = \"x\\u0000\" }", 4, 13, "the value of A holds a zero byte", "remove it"),
];

/// The whole of a host's file, and line, column, message and help that it must give, once.
const HOST_CASES: &[Case] = &[
    ("caller = \"root\"", 1, 10, "root is no caller", "www-data"),
    ("caller = []", 1, 1, "nobody may call the launcher", "www-data"),
    ("caller = \"nobodyx\"", 1, 10, "there is no user `nobodyx`", "the web server's user"),
    ("docroot = \"srv\"", 1, 11, "docroot: `srv` is no plain absolute path", "begin with /"),
    ("path = \"bin:/bin\"", 1, 8, "something else than absolute directories", "with `:` between"),
    ("[log]\nfile = \"log\"", 2, 8, "log.file: `log` is no plain absolute path", "begin with /"),
    (
        "[userdir]\nenabled = true\nsuffix = \"../x\"",
        3,
        10,
        "userdir.suffix: `../x` is no plain relative path",
        "public_html",
    ),
];

fn text(text: &str) -> String {
    let head = "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n";
    text.strip_prefix('!').map_or_else(|| format!("{head}{text}\n"), |whole| format!("{whole}\n"))
}

#[test]
fn each_broken_file_is_told_with_line_column_and_remedy() {
    let cage = Cage::new();
    let mut wrong = Vec::new();
    for (written, line, column, message, help) in CASES {
        fs::write("/srv/candidate.toml", text(written)).unwrap();
        let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
        let place = format!("--> /srv/candidate.toml:{line}:{column}\n");
        let block = said.err.split("\n\n").find(|block| block.contains(message) && block.contains(&place));
        let whole = block.is_some_and(|block| block.starts_with("error: ") && block.contains(help));
        if said.status != Some(1) || !whole {
            wrong.push(format!("{written:?} wanted {place}{message} / {help}, and got\n{}", said.err));
        }
    }
    assert!(CASES.len() >= 30);
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

#[test]
fn each_broken_host_file_is_told_with_line_column_and_remedy_and_once() {
    let cage = Cage::new();
    for (written, line, column, message, help) in HOST_CASES {
        cage.host(&format!("{written}\n"));
        let said = cage.cellwall(&["check"]);
        let place = format!("--> /etc/cellwall/cellwall.toml:{line}:{column}\n");
        let whole = said.err.starts_with("error: ") && said.err.ends_with("\n1 error, 0 warnings\n");
        let told = [*message, &place, *help].iter().all(|part| said.err.contains(part));
        assert!(said.status == Some(1) && whole && told, "{written:?} got\n{}", said.err);
    }
}

#[test]
fn the_host_has_the_last_word_on_docroots_and_groups() {
    let cage = Cage::new();
    let told = |text: &str, message: &str| {
        fs::write("/srv/candidate.toml", text).unwrap();
        let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
        assert!(said.status == Some(1) && said.err.contains(message), "{text}\n{}", said.err);
    };
    cage.host("caller = \"www-data\"\nminimum_gid = 1\nallow_dangerous = true\ndocroot = \"/srv/www\"\n");
    told("user = \"alice\"\ndocroot = \"/home/alice\"\n", "docroot /home/alice is not beneath /srv/www");
    let head = "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n";
    told(&format!("{head}group = \"shadow\"\n"), "group 42 opens more than a site may have");
    told(&format!("{head}groups = \"root\"\n"), "group `root` opens more than a site may have");
    fs::write("/srv/candidate.toml", format!("{head}groups = \"shadow\"\n")).unwrap();
    cage.good(&["check", "/srv/candidate.toml"]);
}

/// A launch follows no link that `apply` has not followed.
#[test]
fn links_that_lead_round_in_circles_are_told() {
    let cage = Cage::new();
    std::os::unix::fs::symlink("b", "/srv/a").unwrap();
    std::os::unix::fs::symlink("a", "/srv/b").unwrap();
    let docroot = "docroot = \"/srv/www/alice\"\n";
    for (text, message) in [
        (format!("{docroot}[files]\nread = \"/srv/a\"\n"), "lead round in circles"),
        (format!("{docroot}[files]\nat = {{ \"/x/y\" = \"/srv/a/c\" }}\n"), "is not root's all the way"),
        ("docroot = \"/srv/a\"\n".to_owned(), "lead round in circles"),
    ] {
        fs::write("/srv/candidate.toml", format!("user = \"alice\"\n{text}")).unwrap();
        let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
        assert!(said.status == Some(1) && said.err.contains(message), "{text}\n{}", said.err);
    }
}

/// A launch builds no view on it.
#[test]
fn what_a_group_may_replace_stands_at_no_other_place() {
    let cage = Cage::new();
    fs::create_dir("/srv/open").unwrap();
    fs::write("/srv/open/file", "").unwrap();
    fs::set_permissions("/srv/open", std::os::unix::fs::PermissionsExt::from_mode(0o775)).unwrap();
    let text =
        "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n[files]\nat = { \"/x/y\" = \"/srv/open/file\" }\n";
    fs::write("/srv/candidate.toml", text).unwrap();
    let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
    assert!(said.status == Some(1) && said.err.contains("is not root's all the way"), "{}", said.err);
}

#[test]
fn a_file_that_is_a_page_of_nothing_is_not_read() {
    let cage = Cage::new();
    fs::write("/srv/candidate.toml", "#".repeat((1 << 20) + 1)).unwrap();
    let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
    assert!(said.status == Some(1) && said.err.contains("larger than 1 MiB"), "{}", said.err);
}

#[test]
fn every_problem_of_every_file_is_told_in_one_run() {
    let cage = Cage::new();
    cage.host("caler = \"www-data\"\n[log]\nto = \"paper\"\n[userdir]\nsufix = \"x\"\n");
    for (place, (written, ..)) in CASES.iter().enumerate() {
        cage.site(&format!("case{place}"), &text(written));
    }
    let said = cage.cellwall(&["check", "--json"]);
    assert_eq!(said.status, Some(1));
    for (place, (_, _, _, message, _)) in CASES.iter().enumerate() {
        let file = format!("case{place}.toml");
        let escaped = message.replace('"', "\\\"");
        let told = said.out.split("{\"weight\"").any(|one| one.contains(&file) && one.contains(&escaped));
        assert!(told, "{file}: {message}");
    }
    for message in ["did you mean `caller`?", "`paper` is none of", "did you mean `suffix`?"] {
        assert!(said.out.contains(message), "{message}");
    }
}

/// What follows from a slip in a name is no second mistake.
#[test]
fn a_key_that_is_misspelt_or_misplaced_is_told_and_not_what_would_follow() {
    let cage = Cage::new();
    let docroot = "docroot = \"/srv/www/alice\"\n";
    for (text, cause) in [
        ("user = \"alice\"\ndocrot = \"/srv/www/alice\"\n".to_owned(), "did you mean `docroot`?"),
        (format!("usr = \"alice\"\n{docroot}"), "did you mean `user`?"),
        (
            format!("user = \"alice\"\n[files]\nread = []\n{docroot}"),
            "`docroot` belongs at the top of the file",
        ),
        (
            format!("[site]\nuser = \"alice\"\n{docroot}"),
            "there is no such section: write what is below [site] at the top of the file",
        ),
    ] {
        fs::write("/srv/candidate.toml", text).unwrap();
        let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
        assert!(said.status == Some(1) && said.err.starts_with("error: unknown key `"), "{}", said.err);
        assert!(said.err.contains(cause) && said.err.ends_with("\n1 error, 0 warnings\n"), "{}", said.err);
    }
}

/// PHP passes over settings that it may not read without a word, and has no session where it may not write.
#[test]
fn what_the_modes_keep_from_a_site_although_its_file_gives_it_is_told() {
    let cage = Cage::new();
    for (place, mode) in [("/srv/closed", 0o700), ("/srv/sessions", 0o755), ("/srv/open", 0o755)] {
        fs::create_dir(place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write("/srv/open/values.ini", "").unwrap();
    fs::set_permissions("/srv/open/values.ini", fs::Permissions::from_mode(0o600)).unwrap();
    let rules = "[files]\nread = [\"/srv/closed\", \"/srv/open\"]\nwrite = [\"/srv/sessions\"]\n[environment]\n\
                 set = { PHP_INI_SCAN_DIR = \":/srv/open\" }\n";
    cage.small("shop", "alice", rules);
    for (message, command) in [
        ("/srv/closed is root's alone (0700): alice may not read it", "chmod o+rx /srv/closed"),
        ("/srv/sessions is root's (0755): alice may not write to it", "chown alice /srv/sessions"),
        (
            "/srv/open/values.ini is root's alone (0600): alice's PHP goes on without it",
            "chmod o+r /srv/open/values.ini",
        ),
    ] {
        let said = cage.cellwall(&["check"]).err;
        assert!(said.contains(message) && said.contains(&format!("run: {command}\n")), "{said}");
        let pasted = std::process::Command::new("sh").args(["-c", command]).status().unwrap();
        assert!(pasted.success());
        let said = cage.cellwall(&["check"]).err;
        assert!(!said.contains(message), "{said}");
    }
}

#[test]
fn a_default_holds_for_the_pools_where_it_means_something() {
    let cage = Cage::new();
    cage.host(
        "caller = \"www-data\"\n[defaults.pool]\nqueue = 9\nrequests = 500\nchildren = 3\nping_answer = \"x\"\n\
         cpu_timeout = \"9s\"\n",
    );
    let rules = "[pool]\ncommand = \"/bin/sh\"\naccept = \"direct\"\n";
    cage.small("shop", "alice", "[pool]\nkind = \"cgi\"\n");
    cage.small("blog", "bob", &format!("{rules}cpu_timeout = \"unlimited\"\n"));
    let said = cage.cellwall(&["check"]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    // A limit is nothing that may be passed over.
    cage.small("blog", "bob", rules);
    let said = cage.cellwall(&["check"]);
    assert!(said.status == Some(1) && said.err.contains("when a request begins"), "{}", said.err);
}

#[test]
fn the_line_is_shown_with_a_caret_under_the_mistake() {
    let cage = Cage::new();
    fs::write("/srv/shop.toml", "user = \"alice\"\ndocrot = \"/srv/www/alice\"\n").unwrap();
    let said = cage.cellwall(&["check", "/srv/shop.toml"]);
    let shown = "error: unknown key `docrot`\n --> /srv/shop.toml:2:1\n  |\n2 | docrot = \"/srv/www/alice\"\n  | ^^^^^^ did you mean `docroot`?\n";
    assert!(said.err.contains(shown), "{}", said.err);
}

#[test]
fn the_droppings_of_an_editor_are_ignored_and_named() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    for name in [".shop.toml.swp", "shop.toml~", "#shop.toml#", "Shop.toml", "shop.toml.bak"] {
        fs::write(format!("/etc/cellwall/sites.d/{name}"), "this is not TOML").unwrap();
    }
    let said = cage.cellwall(&["apply"]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    assert_eq!(said.err.matches(" is ignored\n").count(), 5, "{}", said.err);
}

#[test]
fn a_file_that_others_may_change_is_refused() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    std::os::unix::fs::chown("/etc/cellwall/sites.d/shop.toml", Some(20001), None).unwrap();
    let said = cage.cellwall(&["apply"]);
    assert_eq!(said.status, Some(1));
    assert!(said.err.contains("chown root /etc/cellwall/sites.d/shop.toml"), "{}", said.err);
}

#[test]
fn a_preset_that_is_not_roots_alone_or_cannot_be_read_is_refused_and_no_shipped_one_takes_its_place() {
    type Spoil = fn(&str);
    let cage = Cage::new();
    cage.small("shop", "alice", "pieces = [\"mine\"]\n");
    let mode = |path: &str, mode| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let spoils: [(Spoil, &str); 6] = [
        (|file| std::os::unix::fs::chown(file, Some(20001), None).unwrap(), "run: chown root"),
        (
            |file| fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap(),
            "chmod go-w",
        ),
        (|file| fs::write(file, b"description = \"\xff\"\n").unwrap(), "line 1 is not UTF-8"),
        (
            |file| {
                fs::remove_file(file).unwrap();
                std::os::unix::fs::symlink("/etc/cellwall/nothing.toml", file).unwrap();
            },
            "No such file",
        ),
        (
            |file| {
                fs::remove_file(file).unwrap();
                fs::create_dir(file).unwrap();
            },
            "it is no regular file",
        ),
        (
            |file| {
                let above = std::path::Path::new(file).parent().unwrap();
                fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            },
            "chmod go-w",
        ),
    ];
    // Of these names, `static` is a shipped profile as well, and `mine` a piece of the administrator's alone.
    for (kind, name) in [("profiles", "static"), ("pieces", "mine")] {
        for (spoil, told) in &spoils {
            for kind in ["profiles", "pieces"] {
                drop(fs::remove_dir_all(format!("/etc/cellwall/{kind}")));
                fs::create_dir(format!("/etc/cellwall/{kind}")).unwrap();
                mode(&format!("/etc/cellwall/{kind}"), 0o755);
            }
            for file in ["profiles/static", "pieces/mine"] {
                fs::write(format!("/etc/cellwall/{file}.toml"), "description = \"mine\"\n").unwrap();
            }
            cage.good(&["check"]);
            let file = format!("/etc/cellwall/{kind}/{name}.toml");
            spoil(&file);
            for words in [&["check"][..], &["apply", "shop"]] {
                let said = cage.cellwall(words);
                let named = said.err.contains(&format!("/etc/cellwall/{kind}")) && said.err.contains(told);
                assert!(said.status == Some(1) && named, "{file} {told}: {}", said.err);
                assert!(!said.err.contains("there is no p"), "{}", said.err);
            }
        }
    }
}

#[test]
fn a_site_whose_name_is_too_long_for_its_pools_socket_is_told_to_name_the_socket() {
    let cage = Cage::new();
    let (long, fits) = ("a".repeat(90), "a".repeat(82));
    cage.small(&long, "alice", "[pool]\nkind = \"cgi\"\n");
    let said = cage.cellwall(&["check"]);
    let place = format!("{long}.toml:5:8\n");
    let told = said.err.contains("a name of 95 letters") && said.err.contains("listen = \"NAME.sock\"");
    assert!(said.status == Some(1) && told && said.err.contains(&place), "{}", said.err);
    cage.small(&long, "alice", "[pool]\nkind = \"cgi\"\nlisten = \"a.sock\"\n");
    cage.small(&fits, "bob", "[pool]\nkind = \"cgi\"\n");
    cage.good(&["check"]);
}

#[test]
fn a_path_with_a_blank_is_one_word_of_what_is_pasted() {
    let cage = Cage::new();
    let mode = |mode| {
        fs::set_permissions("/srv/my sites", std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    fs::create_dir_all("/srv/my sites/shop").unwrap();
    for (user, command) in [
        (20002, "chown -h root '/srv/my sites/shop' # or: chown -h alice '/srv/my sites/shop'"),
        (20001, "chmod go-w '/srv/my sites'"),
    ] {
        std::os::unix::fs::chown("/srv/my sites/shop", Some(user), Some(user)).unwrap();
        mode(if user == 20001 { 0o777 } else { 0o755 });
        cage.site("shop", "user = \"alice\"\ndocroot = \"/srv/my sites/shop\"\n");
        let said = cage.cellwall(&["check"]);
        assert!(said.err.contains(&format!("run: {command}\n")), "{}", said.err);
        assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success());
        let said = cage.cellwall(&["check"]);
        assert!(said.status == Some(0) || user == 20002, "{}", said.err);
    }
    mode(0o777);
    cage.small("shop", "alice", "[files]\nread = [\"/srv/my sites/shop?\"]\nwrite = [\"/srv/my sites?\"]\n");
    assert!(cage.cellwall(&["check"]).err.contains("run: chmod go-w '/srv/my sites'\n"));
}

#[test]
fn a_log_lies_where_nobody_but_root_can_lead_it_elsewhere() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let cage = Cage::new();
    let mode = |path: &str, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for directory in
        ["/srv/www/alice/logs", "/srv/open/logs", "/srv/team/logs", "/srv/host/logs", "/srv/deep"]
    {
        fs::create_dir_all(directory).unwrap();
    }
    mode("/srv/open", 0o777);
    for (directory, group) in [("/srv/team", 20001), ("/srv/host", 4)] {
        chown(directory, None, Some(group)).unwrap();
        mode(directory, 0o775);
    }
    symlink("/srv/deep", "/srv/www/alice/link").unwrap();
    symlink("/srv/www/alice/logs", "/srv/link").unwrap();
    symlink("/srv/deep/x", "/srv/deep/link").unwrap();
    fs::write("/srv/deep/file", "").unwrap();
    fs::write("/srv/deep/hers", "").unwrap();
    chown("/srv/deep/hers", Some(20001), None).unwrap();
    for (file, told) in [
        ("/srv/www/alice/logs/log", "/srv/www/alice belongs to uid 20001, who could lead it elsewhere"),
        ("/srv/www/alice/link/log", "/srv/www/alice belongs to uid 20001"),
        ("/srv/link/log", "/srv/www/alice belongs to uid 20001"),
        ("/srv/open/logs/log", "others than root may write to /srv/open (mode 0777)"),
        ("/srv/open/new/log", "chmod go-w /srv/open #"),
        ("/srv/team/logs/log", "others than root may write to /srv/team (mode 0775)"),
        ("/srv/deep/file/log", "/srv/deep/file is no directory"),
        ("/srv/deep", "/srv/deep is a directory"),
        ("/srv/deep/link", "/srv/deep/link is no plain file of root's"),
        ("/srv/deep/hers", "mv /srv/deep/hers /srv/deep/hers.old"),
        ("/srv/host/logs/log", ""),
        ("/srv/deep/log", ""),
        ("/srv/deep/new/log", ""),
    ] {
        cage.host(&format!("caller = \"www-data\"\n[log]\nfile = \"{file}\"\n"));
        cage.small("shop", "alice", "");
        let said = cage.cellwall(&["apply"]);
        let placed = said.err.contains("/etc/cellwall/cellwall.toml:3:8") && said.err.contains("log.file: ");
        let good = if told.is_empty() { said.status == Some(0) } else { said.status == Some(1) && placed };
        assert!(good && said.err.contains(told), "{file}: {}", said.err);
        // What the daemon opens for a pool goes the same way.
        cage.host("caller = \"www-data\"\n");
        cage.small("shop", "alice", &format!("[pool]\nkind = \"cgi\"\naccess_log = \"{file}\"\n"));
        fs::remove_dir_all("/srv/deep/new").ok();
        let said = cage.cellwall(&["check"]);
        let missing = file.contains("deep/new");
        let told = if missing { "make it: install -d -o root -g adm -m 0750 /srv/deep/new\n" } else { told };
        let good = if told.is_empty() || missing { said.status == Some(0) } else { said.status == Some(1) };
        assert!(good && said.err.contains(told), "{file}: {}", said.err);
    }
}

#[test]
fn what_would_fail_at_the_first_request_is_told_and_stops_nobody() {
    use std::os::unix::fs::{chown, symlink};
    let cage = Cage::new();
    fs::create_dir("/srv/www/roots").unwrap();
    fs::write("/srv/www/file", "").unwrap();
    fs::create_dir("/srv/www/alice/real").unwrap();
    symlink("real", "/srv/www/alice/link").unwrap();
    fs::create_dir("/srv/www/alice/real/deep").unwrap();
    for path in ["real", "link", "real/deep"] {
        std::os::unix::fs::lchown(format!("/srv/www/alice/{path}"), Some(20001), Some(20001)).unwrap();
    }
    fs::write("/srv/www/alice/file", "").unwrap();
    chown("/srv/www/alice/file", Some(20001), Some(20001)).unwrap();
    let deny = "/srv/www/alice/link is a link of the site's, and none is followed";
    let missing = "/srv/www/alice/app does not exist; /srv/www/alice does";
    for (docroot, more, told) in [
        ("/srv/www/roots", "", "is root's: a program that lies in it itself is refused"),
        ("/srv/www/roots", "[pool]\ncommand = \"/bin/sh\"\n", ""),
        ("/srv/www/file", "", "docroot /srv/www/file is no directory"),
        ("/srv/www/alice/file", "", "docroot /srv/www/alice/file is no directory"),
        ("/srv/www/alice/link", "", deny),
        ("/srv/www/alice/link/deep", "", deny),
        ("/srv/www/alice/link/deep", "symlinks = \"owner-match\"\n", ""),
        ("/srv/www/alice/real", "", ""),
        ("/srv/www/alice", "[pool]\ncommand = \"/srv/www/alice/app\"\n", missing),
        ("/srv/www/alice", "[pool]\ncommand = \"/srv/www/alice/file\"\n", ""),
        ("/srv/www/alice", "[limits]\nstack = 8\n", "few programs run with a stack of 8 bytes"),
        ("/srv/www/alice", "[limits]\nstack = \"1M\"\n", ""),
    ] {
        cage.site("shop", &format!("user = \"alice\"\ndocroot = \"{docroot}\"\n{more}"));
        let said = cage.cellwall(&["apply"]);
        assert_eq!(said.status, Some(0), "{}", said.err);
        assert!(said.err.contains(told), "{docroot} {more}: {}", said.err);
        assert_eq!(said.err.contains("shop.toml"), !told.is_empty(), "{docroot} {more}: {}", said.err);
    }
    // In the site's own directory root makes nothing: a link may stand there by then.
    cage.site("shop", "user = \"alice\"\ndocroot = \"/srv/www/alice/made\"\n");
    let said = cage.cellwall(&["apply"]).err;
    let made = "setpriv --reuid=alice --regid=20001 --clear-groups mkdir -p -m 755 /srv/www/alice/made";
    assert!(said.contains(&format!("make it: {made}\n")), "{said}");
    assert!(std::process::Command::new("sh").args(["-c", made]).status().unwrap().success());
    assert!(!cage.cellwall(&["apply"]).err.contains("shop.toml"));
    // What is said can be pasted.
    assert!(
        std::process::Command::new("chown")
            .args(["alice:20001", "/srv/www/roots"])
            .status()
            .unwrap()
            .success()
    );
    cage.site("shop", "user = \"alice\"\ndocroot = \"/srv/www/roots\"\n");
    assert!(!cage.cellwall(&["apply"]).err.contains("shop.toml"));
}

#[test]
fn phps_program_for_cgi_is_named_so_that_the_launcher_knows_it() {
    use std::os::unix::fs::symlink;
    let cage = Cage::new();
    let real = fs::canonicalize("/usr/bin/php-cgi").expect("these tests need php-cgi");
    fs::copy(&real, "/srv/handler").unwrap();
    symlink("/srv/handler", "/srv/run-it").unwrap();
    symlink("/srv/handler", "/srv/php-cgi").unwrap();
    let say = |program: &str| {
        let handler = format!("[handlers]\n\".php\" = \"{program}\"\n");
        let pool = format!("[pool]\ncommand = [\"{program}\", \"-d\", \"x=1\"]\n");
        [handler, pool].map(|more| {
            cage.small("shop", "alice", &more);
            cage.cellwall(&["check"])
        })
    };
    for program in ["/srv/handler", "/srv/run-it"] {
        for said in say(program) {
            let told = said.err.contains(&format!("{program} is PHP's program for CGI under a name"));
            assert!(said.status == Some(1) && told && said.err.contains("/usr/bin/php-cgi"), "{}", said.err);
        }
    }
    for program in ["/srv/php-cgi", "/usr/bin/php-cgi", "/usr/bin/perl"] {
        for said in say(program) {
            assert_eq!(said.status, Some(0), "{program}: {}", said.err);
        }
    }
}

#[test]
fn a_link_of_roots_is_followed_and_none_that_another_could_turn() {
    use std::os::unix::fs::{lchown, symlink};
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    for directory in ["/srv/sites", "/srv/profiles"] {
        fs::create_dir(directory).unwrap();
    }
    let file = "/etc/cellwall/sites.d/shop.toml";
    fs::write("/srv/sites/shop.toml", "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n").unwrap();
    symlink("/srv/sites/shop.toml", "/srv/www/alice/turned.toml").unwrap();
    symlink("/srv/profiles", "/srv/www/alice/profiles").unwrap();
    for link in ["/srv/www/alice/turned.toml", "/srv/www/alice/profiles"] {
        lchown(link, Some(20001), Some(20001)).unwrap();
    }
    for (link, to, told) in [
        (file, "/srv/sites/shop.toml", ""),
        (file, "/srv/www/alice/turned.toml", "shop.toml leads through /srv/www/alice, which is uid 20001's"),
        (file, "/srv/sites/shop.toml", ""),
        ("/etc/cellwall/profiles", "/srv/profiles", ""),
        ("/etc/cellwall/profiles", "/srv/www/alice/profiles", "profiles leads through /srv/www/alice"),
    ] {
        fs::remove_file(link).ok();
        symlink(to, link).unwrap();
        let said = cage.cellwall(&["check"]);
        let status = if told.is_empty() { 0 } else { 1 };
        assert!(said.status == Some(status) && said.err.contains(told), "{link} {to}: {}", said.err);
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::remove_file("/etc/cellwall/profiles").unwrap();
    fs::set_permissions("/srv/sites", open).unwrap();
    let said = cage.cellwall(&["check"]);
    assert!(said.status == Some(1) && said.err.contains("run: chmod go-w /srv/sites\n"), "{}", said.err);
}

#[test]
fn no_remedy_gives_away_what_is_the_hosts_or_another_sites() {
    let cage = Cage::new();
    cage.small("blog", "bob", "");
    cage.good(&["apply"]);
    // All sites lie beneath this one: it is nobody's to have.
    cage.site("shop", "user = \"alice\"\ndocroot = \"/srv/www\"\n");
    let said = cage.cellwall(&["check"]).err;
    assert!(said.contains("docroot /srv/www is root's") && !said.contains("chown"), "{said}");
    assert!(said.contains("what lies in it is not alice's"), "{said}");
    cage.site("shop", "user = \"alice\"\ndocroot = \"/srv/www/bob\"\n");
    let said = cage.cellwall(&["check"]).err;
    assert!(said.contains("/srv/www/bob belongs to uid 20002") && !said.contains("chown"), "{said}");
    assert!(said.contains("whose sites these are"), "{said}");
}

#[test]
fn a_user_that_has_another_name_now_is_told_by_it() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    fs::write("/etc/passwd", accounts.replace("\nalice:", "\nmrs-miller:")).unwrap();
    let said = cage.cellwall(&["check"]).err;
    assert!(said.contains("uid 20001, which has this site, is `mrs-miller` now"), "{said}");
    let file = "/etc/cellwall/sites.d/shop.toml";
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text.replace("\"alice\"", "\"mrs-miller\"")).unwrap();
    assert_eq!(cage.cellwall(&["apply"]).status, Some(0));
}

#[test]
fn phps_program_for_the_command_line_is_no_handler() {
    let cage = Cage::new();
    cage.small("shop", "alice", "[handlers]\n\".php\" = \"/usr/bin/php\"\n");
    let said = cage.cellwall(&["check"]);
    let told = "/usr/bin/php is PHP's program for the command line";
    assert!(said.status == Some(0) && said.err.contains(told), "{}", said.err);
    assert!(said.err.contains("write /usr/bin/php-cgi"), "{}", said.err);
    // A FastCGI program may be written in PHP.
    cage.small("shop", "alice", "[pool]\ncommand = [\"/usr/bin/php\", \"/srv/www/alice/server.php\"]\n");
    assert!(!cage.cellwall(&["check"]).err.contains("command line"));
}

#[test]
fn a_name_of_any_bytes_is_one_word_of_what_is_pasted() {
    let cage = Cage::new();
    let docroot = "/srv/www/m\u{fc}ller's/htdocs";
    cage.site("shop", &format!("user = \"alice\"\ndocroot = \"{docroot}\"\n"));
    let said = cage.cellwall(&["check"]).err;
    let command = remedy(&said).unwrap_or_else(|| panic!("{said}"));
    assert!(
        std::process::Command::new("bash").args(["-c", command]).status().unwrap().success(),
        "{command}"
    );
    assert_eq!(crate::cage::mode(docroot), (0o755, 20001, 20001), "{command}");
    cage.good(&["apply"]);
    let said = cage.cellwall(&["check"]).err;
    assert!(said.is_empty(), "{said}");
}

#[test]
fn a_site_and_its_file_are_not_taken_for_each_other_without_a_word() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    let file = "/etc/cellwall/sites.d/shop.toml";
    let said = cage.cellwall(&["check", "shop"]);
    assert!(
        said.status == Some(1) && said.err.contains(&format!("run: cellwall check {file}")),
        "{}",
        said.err
    );
    for name in ["shop.toml", file] {
        let said = cage.cellwall(&["apply", name]);
        assert!(said.status == Some(1) && said.err.contains("did you mean `shop`?"), "{}", said.err);
    }
}

/// The command behind `make it: ` in what was said.
fn remedy(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.split_once("make it: ")).map(|(_, command)| command)
}

#[test]
fn a_first_site_is_made_by_pasting_what_is_said() {
    let cage = Cage::new();
    cage.site(
        "shop",
        "user = \"shop\"\ndocroot = \"/srv/www/shop/htdocs\"\nprofile = \"static\"\n\
         [files]\nwrite = [\"/srv/www/shop/htdocs/uploads\"]\n",
    );
    let mut pasted = Vec::new();
    while let Some(command) = remedy(&cage.cellwall(&["check"]).err) {
        assert!(pasted.len() < 3, "{pasted:?}, and still {command}");
        let status = std::process::Command::new("sh").args(["-c", command]).status().unwrap();
        assert!(status.success(), "{command}");
        pasted.push(command.to_owned());
    }
    assert_eq!(pasted.len(), 3, "{pasted:?}");
    let said = cage.cellwall(&["apply"]);
    assert!(said.status == Some(0) && !said.err.contains("shop"), "{}", said.err);
    // The launcher wants the group as well.
    let (_, uid, gid) = crate::cage::mode("/srv/www/shop/htdocs");
    assert_eq!((0, uid, gid), (0, uid, uid));
    assert_eq!(crate::cage::mode("/srv/www/shop/htdocs/uploads"), (0o755, uid, gid));
}

#[test]
fn a_group_of_the_users_that_a_site_does_not_get_is_told_until_the_file_says_so() {
    let cage = Cage::new();
    crate::cage::append("/etc/group", "everybody:x:777:alice\n");
    cage.small("shop", "alice", "");
    assert!(cage.cellwall(&["check"]).err.contains("leaves out group `everybody`"));
    for (groups, kept) in [("groups = []\n", false), ("groups = [\"everybody\"]\n", true)] {
        cage.small("shop", "alice", groups);
        let said = cage.cellwall(&["apply"]);
        assert!(!said.err.contains("everybody"), "{}", said.err);
        // A whole word: an inode has many digits.
        let policy = cage.good(&["policy", "shop"]);
        let has = policy.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "777");
        assert_eq!(has, kept, "{groups}: {policy}");
    }
}

/// Long, and a mistake in every word: what is said of one does not grow with the file.
#[test]
fn of_a_long_file_each_mistake_is_told_in_a_few_words() {
    let cage = Cage::new();
    let head = "user = \"alice\"\ndocroot = \"/srv/www/alice\"\n";
    let ports = "70000, ".repeat(50_000);
    let key = "k".repeat(1_000_000);
    let keys: String = (0..30_000).map(|number| format!("k{number:06} = 1\n")).collect();
    for (text, count, column) in [
        (format!("{head}[network]\nconnect = [{ports}]\n"), 50_000, 12 + 7 * 49_999),
        (format!("{head}{key} = 1\n"), 1, 1),
        (format!("{head}{keys}"), 30_000, 1),
    ] {
        fs::write("/srv/candidate.toml", &text).unwrap();
        let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
        assert_eq!(said.status, Some(1));
        // The long key is named, and shown.
        let shown = said.err.replace(&key, "KEY");
        assert!(shown.len() < 60_000, "{} bytes", shown.len());
        assert!(shown.contains(&format!("{count} error")), "{shown}");
        let json = cage.cellwall(&["check", "--json", "/srv/candidate.toml"]).out;
        assert_eq!(json.matches("\"weight\":\"error\"").count(), count);
        assert!(json.contains(&format!("\"column\":{column},")), "column {column}");
    }
}

#[test]
fn each_mistake_is_told_once() {
    let cage = Cage::new();
    for (written, count) in [
        ("!user = 20001\ndocroot = \"/srv/www/alice\"", 1),
        ("!user = \"alice\"\ndocroot = 7", 1),
        ("[files]\nread = \"{hme}/x\"", 1),
        ("[files]\nread = \"/etc/*/nothing\"", 1),
        ("[pool]\ncommand = \"bin/true\"", 1),
        ("[pool]\ncommand = []", 1),
    ] {
        fs::write("/srv/candidate.toml", text(written)).unwrap();
        let said = cage.cellwall(&["check", "/srv/candidate.toml"]);
        assert!(said.err.ends_with(&format!("{count} error, 0 warnings\n")), "{written}\n{}", said.err);
    }
    // Sites of several users, which are compiled beside each other.
    for (name, user) in [("a", "alice"), ("b", "bob"), ("c", "carol")] {
        cage.small(name, user, "");
    }
    cage.host("caller = \"www-data\"\n[limits_max]\nwall = 0\n");
    for _ in 0..20 {
        let said = cage.cellwall(&["check"]);
        assert!(said.err.ends_with("1 error, 0 warnings\n"), "{}", said.err);
    }
}

#[test]
fn nobody_is_told_to_close_a_directory_that_is_for_all_or_to_take_a_sites() {
    let cage = Cage::new();
    cage.small("shop", "alice", "");
    cage.good(&["apply"]);
    for (file, never) in [("/tmp/a.log", "chmod"), ("/srv/www/alice/a.log", "chown")] {
        cage.host(&format!("caller = \"www-data\"\n[log]\nfile = \"{file}\"\n"));
        let said = cage.cellwall(&["check"]);
        assert_eq!(said.status, Some(1));
        assert!(said.err.contains("log.file: ") && !said.err.contains(never), "{}", said.err);
        assert!(said.err.contains("/var/log/cellwall/cellwall.log"), "{}", said.err);
    }
    let said = cage.cellwall(&["jail", "build", "--piece", "base", "/tmp/jail"]);
    assert!(said.err.contains("/tmp") && !said.err.contains("chmod"), "{}", said.err);
}

#[test]
fn a_pattern_names_programs_and_only_what_is_there() {
    let cage = Cage::new();
    fs::create_dir_all("/srv/tools/one").unwrap();
    fs::create_dir_all("/srv/tools/two").unwrap();
    for name in ["/srv/tools/one/tool-a", "/srv/tools/one/tool-b"] {
        fs::write(name, "#!/bin/sh\n").unwrap();
        fs::set_permissions(name, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    fs::write("/srv/tools/one/tool-c.conf", "x").unwrap();
    cage.small("shop", "alice", "programs = \"/srv/tools/*/tool-?\"\n");
    let said = cage.cellwall(&["check"]);
    assert_eq!(said.status, Some(1), "`?` is no pattern: {}", said.err);
    cage.small("shop", "alice", "programs = \"/srv/tools/*/tool-*\"\ninterpreters = \"/usr/bin/perl*\"\n");
    cage.good(&["apply"]);
    let policy = cage.good(&["policy", "shop"]);
    for program in ["/srv/tools/one/tool-a", "/srv/tools/one/tool-b", "/usr/bin/perl"] {
        assert!(policy.contains(program), "{policy}");
    }
    assert!(!policy.contains("tool-c.conf"), "{policy}");
}
