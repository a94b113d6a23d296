//! MapServer: a compiled program with some hundred libraries draws a map.

use std::fs;

use crate::harness::{Ask, User, World};
use crate::{Visitor, both_ways};

const SITE: &str = include_str!("../../packaging/sites/mapserver.toml");

fn furnish(_: &World, user: &User) {
    fs::copy("/usr/lib/cgi-bin/mapserv", user.docroot().join("map.cgi")).unwrap();
    fs::create_dir_all("/var/www/alice/maps").unwrap();
    let allowed = "CONFIG\n  ENV\n    MS_MAP_PATTERN \"^/var/www/alice/maps/.*\\.map$\"\n  END\nEND\n";
    fs::write("/var/www/alice/maps/mapserver.conf", allowed).unwrap();
    let map = "MAP\n  NAME cells\n  SIZE 200 100\n  EXTENT 0 0 20 10\n  IMAGETYPE png\n  IMAGECOLOR 255 255 255\n  LAYER\n    NAME one\n\
               TYPE POLYGON\n    STATUS DEFAULT\n    FEATURE POINTS 1 1 1 9 9 9 9 1 1 1 END END\n    CLASS STYLE COLOR 255 0 0 END END\n  END\nEND\n";
    fs::write("/var/www/alice/maps/cells.map", map).unwrap();
}

fn used(visitor: &mut Visitor<'_>) {
    let answer = visitor.send(Ask::get("alice.test", "/map.cgi?map=/var/www/alice/maps/cells.map&mode=map"));
    assert_eq!(answer.status, 200, "{}\n{}", answer.head, answer.text());
    assert!(
        answer.head.contains("image/png") && answer.body.starts_with(b"\x89PNG"),
        "{}\n{}",
        answer.head,
        answer.text()
    );
    let refused = visitor.page("/map.cgi?map=/etc/passwd&mode=map");
    assert!(refused.contains("fails to validate"), "{refused}");
}

#[test]
fn mapserver_is_used_as_cgi_and_behind_nginx() {
    both_ways(SITE, furnish, used);
}
