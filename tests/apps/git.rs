//! Git over HTTP: a clone, a push, and a clone that has it; by git's own program, outside of the docroot.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{User, World, append};
use crate::{Servers, Visitor, both_ways_by, run};

const SITE: &str = include_str!("../../packaging/sites/git.toml");

/// As docs/web-servers.md has it.
const SERVERS: Servers = Servers {
    apache: "ScriptAlias /git/ /usr/lib/git-core/git-http-backend/\n\
             <Directory /usr/lib/git-core>\nOptions ExecCGI\nRequire all granted\n</Directory>\n",
    nginx: "location ~ ^/git(/.*) { include /etc/nginx/fastcgi_params; fastcgi_param PATH_INFO $1;\n\
            fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;\n\
            fastcgi_pass unix:/run/cellwall/pool/alice.sock; }",
};

fn git(directory: &Path, words: &[&str]) {
    let person = ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Robert Hooke"));
    let mail = ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "hooke@example.net"));
    run(Command::new("git").args(words).current_dir(directory).envs(person).envs(mail).env("HOME", "/mnt"));
}

fn furnish(_: &World, _: &User) {
    append("/etc/hosts", "127.0.0.1 alice.test\n");
    fs::create_dir_all("/var/www/alice/git").unwrap();
    git(Path::new("/"), &["init", "--quiet", "--bare", "-b", "main", "/var/www/alice/git/demo.git"]);
    // Who pushes is nobody that git knows by a name; the web server would ask for a password.
    git(Path::new("/var/www/alice/git/demo.git"), &["config", "http.receivepack", "true"]);
    // Here git takes pushes of those alone whom the web server knows.
    git(Path::new("/"), &["init", "--quiet", "--bare", "-b", "main", "/var/www/alice/git/closed.git"]);
}

fn used(visitor: &mut Visitor<'_>) {
    const URL: &str = "http://alice.test:8080/git/demo.git";
    for directory in ["/mnt/one", "/mnt/two"] {
        drop(fs::remove_dir_all(directory));
    }
    let refs = visitor.page("/git/demo.git/info/refs?service=git-upload-pack");
    assert!(refs.starts_with("001e# service=git-upload-pack\n"), "{refs}");
    git(Path::new("/mnt"), &["clone", "--quiet", URL, "one"]);
    let one = Path::new("/mnt/one");
    fs::write(one.join("README"), "built of cells\n".repeat(200_000)).unwrap();
    git(one, &["add", "README"]);
    git(one, &["commit", "--quiet", "-m", "Micrographia"]);
    git(one, &["push", "--quiet", "origin", "HEAD:main"]);
    git(Path::new("/mnt"), &["clone", "--quiet", URL, "two"]);
    assert_eq!(fs::read("/mnt/two/README").unwrap(), fs::read(one.join("README")).unwrap());
    // A name that a visitor makes up, sent before anybody asks for it.
    let made_up = "http.extraHeader=Authorization: Basic aG9va2U6aG9va2U=";
    let push = ["-c", made_up, "push", "http://alice.test:8080/git/closed.git", "HEAD:main"];
    let said = Command::new("git").args(push).current_dir(one).env("HOME", "/mnt").output().unwrap();
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("403"), "{said:?}");
}

#[test]
fn git_is_cloned_from_and_pushed_to_as_cgi_and_behind_nginx() {
    both_ways_by(&SERVERS, SITE, furnish, used);
}
