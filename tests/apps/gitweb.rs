//! gitweb: a list of repositories, a commit, a file.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{User, World};
use crate::{Visitor, both_ways, run};

const SITE: &str = include_str!("../../packaging/sites/gitweb.toml");

fn furnish(_: &World, user: &User) {
    let docroot = user.docroot();
    fs::copy("/usr/share/gitweb/gitweb.cgi", docroot.join("gitweb.cgi")).unwrap();
    fs::write(docroot.join("gitweb_config.perl"), "$projectroot = '/var/www/alice/git';\n1;\n").unwrap();
    let work = Path::new("/mnt/work");
    fs::create_dir_all(work).unwrap();
    fs::write(work.join("README"), "built of cells\n").unwrap();
    let git = |words: &[&str]| {
        let person = ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Robert Hooke"));
        let mail = ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "hooke@example.net"));
        run(Command::new("git").args(words).current_dir(work).envs(person).envs(mail));
    };
    git(&["init", "--quiet", "."]);
    git(&["add", "README"]);
    git(&["commit", "--quiet", "-m", "Micrographia"]);
    fs::create_dir_all("/var/www/alice/git").unwrap();
    git(&["clone", "--quiet", "--bare", ".", "/var/www/alice/git/demo.git"]);
    fs::write("/var/www/alice/git/demo.git/description", "cork under a lens\n").unwrap();
}

fn used(visitor: &mut Visitor<'_>) {
    let list = visitor.page("/gitweb.cgi");
    assert!(list.contains("demo.git") && list.contains("cork under a lens"), "{list}");
    let summary = visitor.page("/gitweb.cgi?p=demo.git;a=summary");
    assert!(summary.contains("Micrographia") && summary.contains("Robert Hooke"), "{summary}");
    assert_eq!(visitor.page("/gitweb.cgi?p=demo.git;a=blob_plain;f=README"), "built of cells\n");
}

#[test]
fn gitweb_is_used_as_cgi_and_behind_nginx() {
    both_ways(SITE, furnish, used);
}
