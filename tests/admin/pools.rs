//! `cellwall import --php-fpm`: what php-fpm served, behind nginx and Apache, is served by the files that are made of its pools.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::harness::{Answer, Ask, Launcher, User, World, append, make_directory, put, run, spawn, world};
use crate::host::{Daemon, account, until};

/// A program of the host's, and all that it starts.
struct Server(Child);

impl Server {
    fn start(words: &[&str], answers: impl FnMut() -> bool) -> Self {
        let log = || fs::OpenOptions::new().create(true).append(true).open("/tmp/servers.log").unwrap();
        let child = spawn(
            Command::new(words[0])
                .args(&words[1..])
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(log())
                .stderr(log()),
        );
        let server = Self(child);
        until(words[0], answers);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        killpg(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGKILL).ok();
        drop(self.0.wait());
    }
}

/// What decides how an application runs: values, places, the environment; a session, and a file that is sent.
const APPLICATION: &str = "<?php ini_set('session.name', 'changed'); ini_set('memory_limit', '900M'); session_start();\n\
    $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;\n\
    foreach (['upload_max_filesize', 'post_max_size', 'open_basedir', 'disable_functions', 'session.save_path', 'sendmail_path',\n\
    'memory_limit', 'session.name', 'display_errors', 'error_reporting', 'date.timezone', 'error_log', 'html_errors'] as $name)\n\
    echo $name, ' = ', ini_get($name), \"\\n\";\n\
    foreach (['exec', 'shell_exec', 'mail'] as $name) echo $name, ' ', (int) function_exists($name), \"\\n\";\n\
    foreach (['APP_ENV', 'APP_MODE', 'TMP', 'SCRIPT_NAME', 'PHP_SELF', 'PATH_INFO', 'SCRIPT_FILENAME', 'DOCUMENT_ROOT'] as $name)\n\
    echo $name, ' = ', ($_SERVER[$name] ?? '') ?: '-', ' ', \"\\n\";\n\
    echo 'user ', posix_getuid(), ' ', posix_getgid(), ' in ', getcwd(), \"\\n\";\n\
    echo 'session ', $_SESSION['n'], ' ', count(glob(explode(';', session_save_path())[0] . '/sess_*')) > 0 ? 'kept' : '', \"\\n\";\n\
    echo 'outside ', var_export(@file_get_contents('/etc/hostname') === false, true), \"\\n\";\n\
    foreach ($_FILES as $file) echo 'file ', $file['error'], ' ', $file['size'], \"\\n\";\n";

/// This Debian's PHP, as its directory in /etc/php is called.
fn version() -> String {
    let mut all = fs::read_dir("/etc/php").unwrap().map(|entry| entry.unwrap());
    all.find(|entry| entry.path().join("fpm").is_dir()).unwrap().file_name().into_string().unwrap()
}

/// With that version where `@` stands.
fn of_version(text: &str) -> String {
    text.replace('@', &version())
}

/// Functions that panels forbid: longer than a line of php-fpm's log.
fn forbidden() -> String {
    (0..160).map(|number| format!("no_such_function_{number},")).collect::<String>() + "exec,shell_exec"
}

fn prepare(world: &World) {
    for name in ["alice", "bob", "carol"] {
        fs::remove_file(format!("/etc/cellwall/sites.d/{name}.toml")).unwrap();
    }
    let fpm = format!("/etc/php/{}/fpm", version());
    let pools = format!("{fpm}/pool.d");
    fs::remove_dir_all(&pools).unwrap();
    make_directory(&pools, 0, 0o755);
    make_directory("/run/php", 0, 0o755);
    // Otherwise than php-cgi's.
    append(&format!("{fpm}/php.ini"), "\nhtml_errors = Off\ndate.timezone = Asia/Tokyo\n");
    fs::write(
        format!("{fpm}/php-fpm.conf"),
        format!("[global]\nerror_log = /tmp/fpm.log\ndaemonize = no\ninclude={pools}/*.conf\n"),
    )
    .unwrap();
    let web = "listen.owner = www-data\nlisten.group = www-data\nlisten.mode = 0660\n";
    let forbidden = forbidden();
    let pool = |name: &str, listen: &str, more: &str| {
        let text = format!(
            "; of a panel\n[{name}]\nuser = $pool\ngroup = {name}\nlisten = {listen}\n{web}{more}\n\
             php_admin_value[open_basedir] = /var/www/$pool/htdocs:/var/www/$pool/sessions:/tmp:/usr/share ; a comment\n\
             php_admin_value[session.save_path] = \"/var/www/$pool/sessions\"\n\
             php_admin_value[disable_functions] = {forbidden}\n\
             php_admin_value[sendmail_path] = '/usr/sbin/sendmail -t -i -f {name}@example.net'\n\
             php_admin_value[error_reporting] = E_ALL & ~E_NOTICE\nphp_admin_value[upload_max_filesize] = 20K\n\
             php_value[memory_limit] = 200M\nphp_flag[display_errors] = off\nenv[TMP] = /tmp\n"
        );
        fs::write(format!("{pools}/{name}.conf"), text).unwrap();
    };
    pool(
        "alice",
        "/run/php/alice.sock",
        "pm = ondemand\npm.max_children = 3\npm.process_idle_timeout = 20s\npm.max_requests = 500\nrequest_terminate_timeout = 2m\n\
         env[HOSTNAME] = $HOSTNAME\nchroot =\nchdir = /\ncatch_workers_output = yes\nrlimit_files = 1000\n\
         security.limit_extensions = .php .php8\npm.status_path = /status\nslowlog = /var/log/cellwall/$pool.slow\n\
         request_slowlog_timeout = 5s\nlisten.backlog = 511\n",
    );
    pool(
        "bob",
        "/run/php/bob.sock",
        "pm = static\npm.max_children = 2\nclear_env = no\nprocess.priority = 5\n",
    );
    pool(
        "carol",
        "127.0.0.1:9001",
        "pm = dynamic\npm.max_children = 4\npm.start_servers = 1\npm.min_spare_servers = 1\npm.max_spare_servers = 2\n",
    );
    let www = fs::read_to_string(format!("{pools}/carol.conf")).unwrap();
    let www =
        www.replace("[carol]", "[www]").replace("user = $pool", "user = www-data").replace("9001", "9002");
    fs::write(format!("{pools}/www.conf"), www).unwrap();
    for user in [&world.alice, &world.bob, &world.carol] {
        put(user.docroot().join("app.php"), APPLICATION.as_bytes(), user.id, 0o644);
        put(user.docroot().join("a.php8"), b"<?php echo 'eight';", user.id, 0o644);
        put(
            user.docroot().join(".user.ini"),
            b"upload_max_filesize = 9M\npost_max_size = 7M\n",
            user.id,
            0o644,
        );
        make_directory(format!("/var/www/{}/sessions", user.name), user.id, 0o700);
    }
    wiki(&world.bob);
    web_servers();
}

/// DokuWiki in a directory of the docroot. Debian 13's list of its users is a link that leads nowhere until there are some.
fn wiki(user: &User) {
    let place = user.docroot().join("wiki");
    let script = format!(
        "cp -rL /usr/share/dokuwiki {0} && mkdir -p {0}/conf {0}/data && find /etc/dokuwiki -xtype f -exec cp -t {0}/conf {{}} + && \
         cd {0}/data && mkdir -p attic cache index locks media media_attic media_meta meta pages tmp log && cd {0} && \
         echo \"<?php define('DOKU_CONF', '{0}/conf/');\" > inc/preload.php && rm -f conf/local.php && \
         echo \"<?php \\$conf['savedir'] = '{0}/data'; \\$conf['title'] = 'Wall';\" > conf/local.php && \
         echo 'Every cell comes of a cell.' > data/pages/start.txt && chown -R {1}:{1} {0}",
        place.display(),
        user.id
    );
    let said = run(Command::new("sh").args(["-c", &script]));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// What a visitor reads of it.
fn read_wiki() -> String {
    let page = Ask::get("bob.test", "/wiki/doku.php?id=start").send(8081);
    let style = Ask::get("bob.test", "/wiki/lib/exe/css.php?t=dokuwiki").send(8081);
    let text = page.text();
    let words =
        ["<title>start [Wall]</title>", "Every cell comes of a cell."].map(|part| text.contains(part));
    format!("{} {words:?} {} {}", page.status, style.status, style.text().len())
}

fn web_servers() {
    let location = "location ~ \\.php8?(/|$) { include snippets/php.conf; fastcgi_pass ";
    fs::write(
        "/etc/nginx/nginx.conf",
        "user www-data; daemon off; pid /tmp/nginx.pid; error_log /tmp/nginx.error;\nevents {}\nhttp { access_log off;\n\
         upstream carols { server 127.0.0.1:9001; }\n include sites-enabled/*;\n}\n",
    )
    .unwrap();
    fs::remove_dir_all("/etc/nginx/sites-enabled").unwrap();
    make_directory("/etc/nginx/sites-enabled", 0, 0o755);
    fs::create_dir_all("/etc/nginx/snippets").unwrap();
    fs::write(
        "/etc/nginx/snippets/php.conf",
        "include fastcgi_params;\nfastcgi_split_path_info ^(.+?\\.php)(/.*)$;\nfastcgi_param PATH_INFO $fastcgi_path_info;\n\
         fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\nfastcgi_param APP_ENV production;\n\
         fastcgi_param PHP_VALUE \"post_max_size=6M\";\n",
    )
    .unwrap();
    fs::write(
        "/etc/nginx/sites-enabled/alice",
        format!(
            "server {{ listen 127.0.0.1:8080; server_name alice.test;\n root /var/www/alice/htdocs;\n\
             {location}unix:/var/run/php/alice.sock; }} }}\n"
        ),
    )
    .unwrap();
    fs::write(
        "/etc/nginx/sites-enabled/carol",
        format!(
            "server {{ listen 127.0.0.1:8080; server_name carol.test;\n root /var/www/carol/htdocs;\n{location}carols; }} }}\n"
        ),
    )
    .unwrap();
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_fcgi", "env", "mime", "dir"];
    let modules: String = modules
        .iter()
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .collect();
    fs::write(
        "/etc/bob.conf",
        "<VirtualHost *:8081>\nServerName bob.test\nDocumentRoot /var/www/bob/htdocs\nSetEnv APP_MODE live\n\
         <FilesMatch \"\\.php$\">\nSetHandler \"proxy:unix:/run/php/bob.sock|fcgi://localhost\"\n</FilesMatch>\n\
         ProxyFCGISetEnvIf \"false\" PHP_VALUE \"memory_limit=%{reqenv:X}\"\n</VirtualHost>\n\
         <VirtualHost *:8081>\nServerName other.test\nDocumentRoot /var/www/carol/htdocs\n\
         ProxyPassMatch \"^/(.*\\.php(/.*)?)$\" \"fcgi://127.0.0.1:9001/var/www/carol/htdocs/$1\"\n</VirtualHost>\n",
    )
    .unwrap();
    fs::write(
        "/etc/web.conf",
        format!(
            "{modules}ServerName localhost\nUser www-data\nGroup www-data\nListen 127.0.0.1:8081\nPidFile /tmp/web.pid\n\
             DefaultRuntimeDir /tmp\nErrorLog /tmp/web.error\nTypesConfig /etc/mime.types\n\
             <Directory />\nAllowOverride None\nRequire all granted\n</Directory>\nInclude /etc/bob.conf\n"
        ),
    )
    .unwrap();
    put("/usr/sbin/apache2ctl", b"#!/bin/sh\nexec /usr/sbin/apache2 -f /etc/web.conf \"$@\"\n", 0, 0o755);
}

/// Both web servers, as they are configured now.
fn web() -> [Server; 2] {
    let open = |port: u16| move || TcpStream::connect(("127.0.0.1", port)).is_ok();
    [
        Server::start(&["/usr/sbin/nginx"], open(8080)),
        Server::start(&["/usr/sbin/apache2", "-f", "/etc/web.conf", "-DFOREGROUND"], open(8081)),
    ]
}

/// What three sites answer to the same requests.
fn pages() -> Vec<(String, Answer)> {
    let mut all = Vec::new();
    for (site, port) in [("alice", 8080), ("bob", 8081), ("carol", 8080), ("other", 8081)] {
        let host = format!("{site}.test");
        let part = |size: usize| {
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n{}\r\n--x--\r\n",
                "a".repeat(size)
            )
        };
        let form = |size| {
            Ask::post(&host, "/app.php", part(size)).header("Content-Type: multipart/form-data; boundary=x")
        };
        for (what, ask) in [
            ("page", Ask::get(&host, "/app.php?-a")),
            ("path", Ask::get(&host, "/app.php/a/b?x=1")),
            ("small", form(10_000)),
            ("large", form(30_000)),
            ("eight", Ask::get(&host, "/a.php8")),
        ] {
            all.push((format!("{site} {what}"), ask.send(port)));
        }
    }
    all
}

fn told(server: &str, name: &str) -> String {
    let lines = fs::read_to_string(server).unwrap_or_default();
    format!("{name}: {lines}")
}

/// The pages as php-fpm serves them.
fn by_php_fpm() -> (Vec<(String, Answer)>, String) {
    let [program, rules] = ["/usr/sbin/php-fpm@", "/etc/php/@/fpm/php-fpm.conf"].map(of_version);
    let _fpm = Server::start(&[&program, "-F", "-y", &rules], || {
        Path::new("/run/php/bob.sock").exists() && TcpStream::connect(("127.0.0.1", 9001)).is_ok()
    });
    let _web = web();
    let all = pages();
    for (name, answer) in &all {
        let served = answer.status == 200 || name.ends_with("eight");
        assert!(served, "{name}: {}\n{}", answer.head, told("/tmp/fpm.log", "fpm"));
    }
    (all, read_wiki())
}

const CARRIED: [&str; 16] = [
    "children = 3\n",
    "requests = 1500\n",
    "timeout = \"2m\"\n",
    "timeout = \"unlimited\"\n",
    "idle = \"20s\"",
    "open_files = 1000\n",
    "nice = 5\n",
    "\".php8\" = \"/usr/bin/php-cgi@\"",
    "pass = [\"APP_ENV\"]",
    "pass = [\"APP_MODE\"]",
    "slow = \"5s\"\n",
    "TMP = \"/tmp\"",
    "PHPRC = \"/etc/php/@/fpm\"",
    "[PATH=/var]\n",
    "status = \"/status\"",
    "post_max_size = 6M\n",
];
const LEFT: [&str; 8] = [
    "alice.conf:23: listen.backlog = 511",
    "alice.conf:14: env[HOSTNAME] = $HOSTNAME",
    "chdir = /",
    "apparmor_hat = alice",
    "bob.conf:11: clear_env = no",
    "pm.start_servers = 1",
    "pool www: it runs as www-data",
    "bob.conf:8: PHP_VALUE = memory_limit=%{reqenv:X}",
];

#[test]
fn what_php_fpm_served_is_served_by_what_is_imported() {
    world(Launcher::Cellwall, |world| {
        account();
        prepare(world);
        let (before, wiki) = by_php_fpm();
        assert!(wiki.starts_with("200 [true, true] 200 "), "{wiki}\n{}", told("/tmp/web.error", "apache"));
        // No php-fpm starts with it where there is no AppArmor.
        append(&of_version("/etc/php/@/fpm/pool.d/alice.conf"), "apparmor_hat = alice\n");
        let printed = world.cellwall(&["import", "--php-fpm"]);
        let (out, err) = (String::from_utf8_lossy(&printed.stdout), String::from_utf8_lossy(&printed.stderr));
        assert!(printed.status.success(), "{err}");
        for part in CARRIED.map(of_version) {
            assert!(out.contains(&part), "{part} is not in\n{out}");
        }
        LEFT.iter().for_each(|part| assert!(err.contains(part), "{part} is not in\n{err}"));
        // What is said is pasted; `systemctl` has nothing to talk to here.
        let after =
            |word: &str| err.lines().filter_map(|line| Some(line.split_once(word)?.1)).collect::<Vec<_>>();
        let pasted = |line: &str| {
            let said = run(Command::new("sh").args(["-c", line]));
            assert!(said.status.success(), "{line}\n{}", String::from_utf8_lossy(&said.stderr));
        };
        after("; next: ").into_iter().for_each(pasted);
        world.apply();
        let _daemon = Daemon::start(world);
        let then = after("then: ");
        assert!(then.len() >= 5 && then[0].starts_with("cellwall apply && "), "{then:?}");
        then.into_iter().filter(|line| line.starts_with("sed ")).for_each(pasted);
        let _web = web();
        for ((name, before), (_, after)) in before.iter().zip(pages()) {
            let text = if before.status == 200 { before.text() } else { after.text() };
            let logs = || {
                [crate::harness::LOG, "/tmp/nginx.error", "/tmp/web.error"].map(|log| told(log, log)).concat()
            };
            assert_eq!((before.status, text), (after.status, after.text()), "{name}\n{}", logs());
        }
        // What it writes below its docroot is in no pool's file, and is said to be for `files.write`.
        let place = world.bob.docroot().join("wiki/data").display().to_string();
        assert!(world.cellwall(&["set", "bob", "files.write", &place]).status.success());
        // The workers from before answer until the new ones do.
        until("the wiki", || wiki == read_wiki());
        let page = before[0].1.text();
        for held in ["upload_max_filesize = 20K\n", "exec 0\n", "mail 1\n", "date.timezone = Asia/Tokyo\n"] {
            assert!(page.contains(held), "{held} is not in\n{page}");
        }
        assert!(page.contains(&format!("user {} ", world.alice.id)), "{page}");
    });
}

#[test]
fn a_pool_that_nobody_asks_is_made_a_site_when_its_docroot_is_named() {
    world(Launcher::Cellwall, |world| {
        prepare(world);
        let files = "/srv/pools.conf";
        fs::write(
            files,
            "[shop]\nuser = alice\nlisten = /run/php/x.sock\npm = static\npm.max_children = 2\n\
             [twin]\nuser = alice\nlisten = /run/php/y.sock\npm = static\npm.max_children = 2\n",
        )
        .unwrap();
        fs::write("/srv/nginx", "# configuration file /etc/nginx/nginx.conf:\nserver { root /srv/$host; fastcgi_pass unix:/run/php/x.sock; }\n")
            .unwrap();
        let words = ["import", "--php-fpm", "--pools", files, "--nginx", "/srv/nginx"];
        let said = world.cellwall(&words);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{text}");
        assert!(text.contains("--docroot shop=DIRECTORY"), "{text}");
        let named = format!("shop={}", world.alice.docroot().display());
        let twin = named.replace("shop", "twin");
        let more = ["--docroot", &named, "--docroot", &twin, "--to", "/etc/cellwall/sites.d"];
        let said = world.cellwall(&[&words[..], &more].concat());
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            said.status.success() && text.contains("pool twin: /var/www/alice/htdocs is pool shop's already"),
            "{text}"
        );
        world.apply();
        assert!(!Path::new("/etc/cellwall/php/shop").exists());
    });
}
