//! WordPress with MariaDB: its own installer, the mail that it sends, a login, a post, and an uploaded picture.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Ask, User, World, make_directory, spawn};
use crate::host::until;
use crate::sink::Sink;
use crate::{SCRIPTS, Visitor, both_ways_beside, run};

const SITE: &str = include_str!("../../packaging/sites/wordpress.toml");
const SOCKET: &str = "/run/mysqld/mysqld.sock";

/// What the site needs beside it: a database, and somebody who takes its mail.
struct Beside {
    database: Child,
    mail: Sink,
}

impl Beside {
    fn start() -> Self {
        // What `cargo xtask install` puts there.
        fs::create_dir_all("/usr/share/cellwall/mail").unwrap();
        fs::write("/usr/share/cellwall/mail/msmtprc", include_str!("../../policy/mail/msmtprc")).unwrap();
        let place = "/tmp/database";
        for directory in [place, "/run/mysqld"] {
            make_directory(directory, 0, 0o755);
            run(Command::new("chown").args(["mysql:mysql", directory]));
        }
        run(Command::new("mariadb-install-db").args([
            "--no-defaults",
            "--user=mysql",
            &format!("--datadir={place}"),
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
        ]));
        let database = spawn(
            Command::new("/usr/sbin/mariadbd")
                .args([
                    "--no-defaults",
                    "--user=mysql",
                    "--skip-networking",
                    "--innodb-flush-log-at-trx-commit=0",
                ])
                .args([format!("--datadir={place}"), format!("--socket={SOCKET}")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create("/tmp/database.err").unwrap()),
        );
        let client = |text: &str| {
            Command::new("mariadb")
                .args(["--no-defaults", &format!("--socket={SOCKET}"), "-e", text])
                .output()
                .unwrap()
        };
        until("MariaDB", || client("select 1").status.success());
        let said = client(
            "create database wall; grant all on wall.* to 'alice'@'localhost' identified by 'secret';",
        );
        assert!(said.status.success(), "{said:?}");
        Self { database, mail: Sink::open() }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.database.kill());
        drop(self.database.wait());
    }
}

/// As a customer of a host unpacks it, with a configuration of his own.
fn furnish(_: &World, user: &User) {
    let docroot = user.docroot();
    run(Command::new("cp").args(["-rL", "/usr/share/wordpress/.", docroot.to_str().unwrap()]));
    fs::create_dir_all(docroot.join("wp-content/uploads")).unwrap();
    let text = "<?php\ndefine('DB_NAME', 'wall'); define('DB_USER', 'alice'); define('DB_PASSWORD', 'secret');\n\
                define('DB_HOST', 'localhost:/run/mysqld/mysqld.sock'); define('DB_CHARSET', 'utf8mb4'); define('DB_COLLATE', '');\n\
                foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $name) {\n\
                define($name . '_KEY', 'key of ' . $name); define($name . '_SALT', 'salt of ' . $name); }\n\
                $table_prefix = 'wp_'; define('DISABLE_WP_CRON', true); define('WP_HTTP_BLOCK_EXTERNAL', true);\n\
                if (!defined('ABSPATH')) { define('ABSPATH', __DIR__ . '/'); }\nrequire_once ABSPATH . 'wp-settings.php';\n";
    fs::write(docroot.join("wp-config.php"), text).unwrap();
}

/// The smallest picture that is one.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\
                    \x1f\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82";

fn used(visitor: &mut Visitor<'_>, beside: &Beside) {
    let form = visitor.page("/wp-admin/install.php?step=1");
    assert!(form.contains("weblog_title"), "{form}");
    let fields = [
        ("weblog_title", "Omnis cellula"),
        ("user_name", "virchow"),
        ("admin_password", "e cellula 1855"),
        ("admin_password2", "e cellula 1855"),
        ("pw_weak", "1"),
        ("admin_email", "virchow@example.net"),
        ("language", ""),
    ];
    let done = visitor.form("/wp-admin/install.php?step=2", &fields);
    assert!(done.status == 200 && done.text().contains("Success!"), "{}\n{}", done.head, done.text());
    let mail = beside.mail.message();
    assert!(mail.contains("virchow@example.net") && mail.contains("New WordPress Site"), "{mail}");

    visitor.page("/wp-login.php");
    let login = [("log", "virchow"), ("pwd", "e cellula 1855"), ("wp-submit", "Log In"), ("testcookie", "1")];
    let answer = visitor.form("/wp-login.php", &login);
    assert_eq!(answer.status, 302, "{}\n{}", answer.head, answer.text());
    let desk = visitor.page("/wp-admin/index.php");
    assert!(desk.contains("Howdy, ") && desk.contains("virchow"), "{desk}");

    let editor = visitor.page("/wp-admin/post-new.php");
    let nonce = editor
        .split("createNonceMiddleware( \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a nonce");
    let post = Ask::post(
        "alice.test",
        "/index.php?rest_route=/wp/v2/posts",
        r#"{"title":"On cells","content":"Every cell comes of a cell.","status":"publish"}"#,
    );
    let post = post.header("Content-Type: application/json").header(&format!("X-WP-Nonce: {nonce}"));
    let written = visitor.send(post);
    assert_eq!(written.status, 201, "{}\n{}", written.head, written.text());
    let read = visitor.page("/index.php?rest_route=/wp/v2/posts");
    assert!(read.contains("On cells") && read.contains("Every cell comes of a cell."), "{read}");

    let upload = Ask::post("alice.test", "/index.php?rest_route=/wp/v2/media", PNG)
        .header("Content-Type: image/png")
        .header("Content-Disposition: attachment; filename=cell.png")
        .header(&format!("X-WP-Nonce: {nonce}"));
    let kept = visitor.send(upload);
    assert_eq!(kept.status, 201, "{}\n{}", kept.head, kept.text());
    let uploads = Path::new("/var/www/alice/htdocs/wp-content/uploads");
    let found = Command::new("find").arg(uploads).args(["-name", "cell.png"]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    assert_eq!(fs::read(path.trim()).unwrap(), PNG);
}

#[test]
fn wordpress_is_used_as_cgi_and_in_a_pool() {
    both_ways_beside(&SCRIPTS, SITE, furnish, Beside::start, used);
}
