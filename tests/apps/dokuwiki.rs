//! DokuWiki: log in, write a page, read it back, search for it.

use std::fs;
use std::process::Command;

use crate::harness::{User, World};
use crate::{Visitor, both_ways, field, run};

const SITE: &str = include_str!("../../packaging/sites/dokuwiki.toml");

/// The program's files in the docroot, as a customer of a host unpacks them.
fn furnish(_: &World, user: &User) {
    let docroot = user.docroot();
    let place = docroot.to_str().unwrap();
    run(Command::new("cp").args(["-rL", "/usr/share/dokuwiki/.", place]));
    fs::create_dir_all(docroot.join("conf")).unwrap();
    for entry in fs::read_dir("/etc/dokuwiki").unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), docroot.join("conf").join(entry.file_name())).unwrap();
    }
    for name in [
        "attic",
        "cache",
        "index",
        "locks",
        "media",
        "media_attic",
        "media_meta",
        "meta",
        "pages",
        "tmp",
        "log",
    ] {
        fs::create_dir_all(docroot.join("data").join(name)).unwrap();
    }
    // Debian's package looks into /etc and /var/lib; a site has its own.
    let preload = format!("<?php define('DOKU_CONF', '{place}/conf/');\n");
    fs::write(docroot.join("inc/preload.php"), preload).unwrap();
    let local = format!(
        "<?php $conf['savedir'] = '{place}/data'; $conf['useacl'] = 1; $conf['superuser'] = '@admin'; $conf['title'] = 'Wall';\n"
    );
    fs::write(docroot.join("conf/local.php"), local).unwrap();
    fs::write(docroot.join("conf/acl.auth.php"), "* @ALL 1\n* @user 8\n").unwrap();
    let hash =
        Command::new("openssl").args(["passwd", "-1", "-salt", "wallwall", "secret"]).output().unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    let users = format!("admin:{}:The Admin:admin@example.net:admin,user\n", hash.trim());
    fs::write(docroot.join("conf/users.auth.php"), users).unwrap();
}

fn used(visitor: &mut Visitor<'_>) {
    let page = visitor.page("/doku.php?id=start");
    assert!(page.contains("Wall") && page.contains("DokuWiki"), "{page}");
    let style = visitor.page("/lib/exe/css.php?t=dokuwiki");
    assert!(style.contains('{') && style.len() > 10_000, "{} bytes of style", style.len());
    let form = visitor.page("/doku.php?id=start&do=login");
    let token = field(&form, "sectok");
    let login =
        [("sectok", token.as_str()), ("id", "start"), ("do", "login"), ("u", "admin"), ("p", "secret")];
    visitor.form("/doku.php?id=start", &login);
    let page = visitor.page("/doku.php?id=start");
    assert!(page.contains("The Admin"), "logged in: {page}");
    let form = visitor.page("/doku.php?id=cells:first&do=edit");
    let mut fields: Vec<(&str, String)> =
        ["sectok", "id", "rev", "date", "prefix", "suffix", "changecheck", "target"]
            .map(|name| (name, field(&form, name)))
            .into();
    fields.push(("wikitext", "====== Mitochondria ======\n\nThe powerhouse is //here//.\n".to_owned()));
    fields.push(("summary", "a test".to_owned()));
    fields.push(("do[save]", "1".to_owned()));
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let saved = visitor.form("/doku.php?id=cells:first", &fields);
    assert!(matches!(saved.status, 200 | 302), "{}", saved.head);
    let page = visitor.page("/doku.php?id=cells:first");
    assert!(page.contains("Mitochondria</h1>") && page.contains("<em>here</em>"), "{page}");
    // The indexer runs by a picture in each page.
    visitor.page("/lib/exe/taskrunner.php?id=cells:first");
    let found = visitor.page("/doku.php?do=search&q=powerhouse&id=start");
    assert!(found.contains("cells:first"), "{found}");
}

#[test]
fn dokuwiki_is_used_as_cgi_and_in_a_pool() {
    both_ways(SITE, furnish, used);
}
