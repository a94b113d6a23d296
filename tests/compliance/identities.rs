//! Who calls, and whom the request names.

use std::os::unix::fs::chown;

use crate::arguments::alice;
use crate::harness::{World, append};
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "identities", prepare, cases };

/// Alice is in two more groups: `club` is an ordinary one, `power` has a number like docker's or sudo's. And there is a
/// user whose name is a number.
fn prepare(world: &World) {
    // Beyond every number that a test program of this machine takes for its users.
    append("/etc/group", "club:x:2000001:alice\npower:x:901:alice\n");
    append("/etc/passwd", "2000002:x:2000003:2000003::/home/none:/bin/sh\n");
    world.apply();
}

fn cases() -> Vec<Case> {
    let mut all = vec![
        case("leading zeros, uid", "ran 0", |w| alice(w).word(1, format!("00{}", w.alice.id)))
            .ours("numbers", "refused 105"),
        case("leading zeros, gid", "ran 0", |w| alice(w).word(2, format!("00{}", w.alice.id)))
            .ours("numbers", "refused 106"),
        case("user by name", "ran 0", |w| alice(w).word(1, "alice")).ours("numbers", "refused 105"),
        case("group by name", "ran 0", |w| alice(w).word(2, "alice")).ours("numbers", "refused 106"),
        case("both by name", "ran 0", |w| alice(w).word(1, "alice").word(2, "alice"))
            .ours("numbers", "refused 105"),
        case("root by name", "refused 107", |w| alice(w).word(1, "root")).ours("numbers", "refused 105"),
        case("root's group by name", "refused 108", |w| alice(w).word(2, "root"))
            .ours("numbers", "refused 106"),
        case("a user whose name is a number", "refused 121", |w| alice(w).word(1, "2000002")),
        case("nothing for a user", "refused 107", |w| alice(w).word(1, "")).ours("numbers", "refused 105"),
        case("a tilde for a user", "refused 107", |w| alice(w).word(1, "~")).ours("numbers", "refused 105"),
        case("nothing for a group", "refused 108", |w| alice(w).word(2, "")).ours("numbers", "refused 106"),
        case("another site's user", "refused 120", |w| alice(w).word(1, w.bob.id.to_string()))
            .ours("group-of-the-site", "refused 83"),
        case("another site's user and group", "refused 120", |w| {
            alice(w).word(1, w.bob.id.to_string()).word(2, w.bob.id.to_string())
        })
        .ours("site", "refused 114"),
        case("another site's group", "refused 120", |w| alice(w).word(2, w.bob.id.to_string()))
            .ours("group-of-the-site", "refused 83"),
        case("another site's group, which the files have", "ran 0", |w| {
            for path in [w.alice.docroot(), w.alice.docroot().join("a.cgi")] {
                chown(path, None, Some(w.bob.id)).unwrap();
            }
            alice(w).word(2, w.bob.id.to_string())
        })
        .ours("group-of-the-site", "refused 83"),
        case("a supplementary group for the group", "refused 120", |w| alice(w).word(2, "2000001"))
            .ours("group-of-the-site", "refused 83"),
    ];
    all.extend(numbers());
    all.extend(callers());
    all
}

/// Numbers and what looks like one.
fn numbers() -> Vec<Case> {
    let mut all = Vec::new();
    for text in [
        "nobody-here",
        "-1",
        "+5",
        " 30001",
        "30001 ",
        "30001x",
        "#30001",
        "0x7531",
        "3.0",
        "\u{e4}",
        "30001\n",
    ] {
        all.push(case(format!("the user {text:?}"), "refused 105", move |w| alice(w).word(1, text)));
        all.push(case(format!("the group {text:?}"), "refused 106", move |w| alice(w).word(2, text)));
    }
    for number in ["60000", "61234"] {
        all.push(case(format!("uid {number}, nobody's"), "refused 121", move |w| alice(w).word(1, number)));
        all.push(
            case(format!("gid {number}, nobody's"), "refused 106", move |w| alice(w).word(2, number))
                .ours("group-of-the-site", "refused 83"),
        );
    }
    for number in ["0", "1", "33"] {
        all.push(case(format!("uid {number}"), "refused 107", move |w| alice(w).word(1, number)));
        all.push(case(format!("gid {number}"), "refused 108", move |w| alice(w).word(2, number)));
        all.push(case(format!("uid ~{number}"), "refused 107", move |w| {
            alice(w).word(1, format!("~{number}"))
        }));
    }
    all.push(case("nobody", "refused 120", |w| alice(w).word(1, "65534")).ours("site", "refused 121"));
    for (name, shift) in [("2^32", 1_u64 << 32), ("2^33", 1 << 33)] {
        let wrapped = move |id: u32| (shift + u64::from(id)).to_string();
        all.push(
            case(format!("uid {name} + alice's"), "ran 0", move |w| alice(w).word(1, wrapped(w.alice.id)))
                .ours("wrapped-ids", "refused 105"),
        );
        all.push(
            case(format!("gid {name} + alice's"), "ran 0", move |w| alice(w).word(2, wrapped(w.alice.id)))
                .ours("wrapped-ids", "refused 106"),
        );
    }
    for (text, end) in [("4294967296", "refused 107"), ("4294967295", "refused 121")] {
        all.push(
            case(format!("uid {text}"), end, move |w| alice(w).word(1, text))
                .ours("wrapped-ids", "refused 105"),
        );
    }
    all.push(
        case("gid 4294967296", "refused 108", |w| alice(w).word(2, "4294967296"))
            .ours("wrapped-ids", "refused 106"),
    );
    all.push(case("gid 4294967295", "refused 106", |w| alice(w).word(2, "4294967295")));
    all
}

fn callers() -> Vec<Case> {
    vec![
        case("called by root", "refused 103", |w| alice(w).caller(0, 0, "")),
        case("called by root with the web server's group", "refused 103", |w| alice(w).caller(0, 33, "33")),
        case("called by another user of the web server's group", "refused 103", |w| {
            alice(w).caller(w.bob.id, w.bob.id, "33")
        }),
        case("called by the site's own user in the web server's group", "refused 103", |w| {
            alice(w).caller(w.alice.id, w.alice.id, "33")
        }),
        case("called by nobody", "refused 103", |w| alice(w).caller(65534, 33, "")),
        case("called by another user", "not called", |w| alice(w).caller(w.bob.id, w.bob.id, "")),
        case("called by the site's own user", "not called", |w| alice(w).caller(w.alice.id, w.alice.id, "")),
        case("called by a user without an account", "refused 102", |w| alice(w).caller(59_999, 33, "33"))
            .ours("caller-by-number", "refused 103"),
        without_power(case("called by the web server in other groups", "ran 0", |w| {
            alice(w).caller(33, 33, "33,4,20,24,27,901")
        })),
        without_power(case("called by the web server without groups", "ran 0", |w| {
            alice(w).caller(33, 33, "")
        })),
        without_power(case("called by the web server with another primary group", "ran 0", |w| {
            alice(w).caller(33, w.bob.id, "33")
        })),
    ]
}

/// The user's own groups, but not the one with a small number.
fn without_power(case: Case) -> Case {
    case.but("system-groups", "groups", "901 {alice} 2000001", "{alice} 2000001")
}
