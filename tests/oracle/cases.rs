//! Policies, trees and requests, right and wrong.

use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use proptest::prelude::*;

use crate::harness::{World, everything, make_directory, mode, put};

/// One of each.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    policy: Policy,
    tree: Tree,
    pub(crate) request: Request,
}

#[derive(Debug, Clone)]
struct Policy {
    jail: &'static str,
    links: bool,
    hard_links: bool,
    /// The docroot is behind a link of the site's.
    linked: bool,
    more: &'static str,
}

/// Root's, alice's or bob's.
type Owner = u8;

#[derive(Debug, Clone)]
struct Directory {
    owner: Owner,
    mode: u32,
}

#[derive(Debug, Clone)]
struct Tree {
    above: Directory,
    docroot: Directory,
    below: Directory,
    program: Program,
    twist: Twist,
}

/// What else is strange.
#[derive(Debug, Clone, Copy)]
enum Twist {
    None,
    /// The directory below the docroot is a link of this owner's.
    Link(Owner),
    /// The docroot was made anew after the policy.
    Anew,
    /// The program has another name as well.
    HardLink,
    /// The program has an access list for a stranger.
    AccessList,
}

#[derive(Debug, Clone)]
struct Program {
    kind: Kind,
    owner: Owner,
    group: Owner,
    mode: u32,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Missing,
    Directory,
    Pipe,
    Link,
    Probe,
    Text(&'static str),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    user: &'static str,
    group: &'static str,
    place: &'static str,
    pub(crate) command: String,
}

const BASE: &str = "/var/www/alice";

impl Request {
    /// User and group, as numbers.
    pub(crate) fn identity(&self, world: &World) -> [String; 2] {
        let number = |word: &str| match word {
            "alice" => world.alice.id.to_string(),
            "~alice" => format!("~{}", world.alice.id),
            "bob" => world.bob.id.to_string(),
            other => other.to_owned(),
        };
        [number(self.user), number(self.group)]
    }

    pub(crate) fn place(&self) -> &str {
        self.place
    }
}

/// Mostly right, each part wrong now and then.
pub(crate) fn cases() -> impl Strategy<Value = Case> {
    (policies(), trees(), requests()).prop_map(|(policy, tree, request)| Case { policy, tree, request })
}

fn policies() -> impl Strategy<Value = Policy> {
    let more = prop_oneof![
        6 => Just(""),
        1 => Just("interpreters = [\"/bin/sh\"]\n"),
        1 => Just("interpreters = [\"/var/www/sh\"]\n"),
        2 => Just("[handlers]\n\".cgi\" = [\"/usr/bin/perl\", \"-w\"]\n"),
        1 => Just("[handlers]\n\".cgi\" = [\"/usr/bin/php-cgi\"]\n"),
        1 => Just("programs = [\"/usr/bin/env\"]\n"),
        1 => Just("[environment]\nentries_max = 3\n"),
    ];
    let jail = prop_oneof![Just("host"), Just("view")];
    (jail, any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), more)
        .prop_map(|(jail, links, hard_links, linked, more)| Policy { jail, links, hard_links, linked, more })
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![1 => Just(0), 40 => Just(1), 1 => Just(2)]
}

fn directory(usual: Owner) -> impl Strategy<Value = Directory> {
    let owner = prop_oneof![60 => Just(usual), 1 => Just(0), 1 => Just(1), 1 => Just(2)];
    let modes = prop_oneof![
        80 => Just(0o755), 2 => Just(0o711), 1 => Just(0o700), 1 => Just(0o750), 1 => Just(0o775), 1 => Just(0o777),
        1 => Just(0o1777), 1 => Just(0o2755), 1 => Just(0o000),
    ];
    (owner, modes).prop_map(|(owner, mode)| Directory { owner, mode })
}

fn trees() -> impl Strategy<Value = Tree> {
    let twist = prop_oneof![
        30 => Just(Twist::None), 1 => (0..3_u8).prop_map(Twist::Link), 1 => Just(Twist::Anew), 1 => Just(Twist::HardLink),
        1 => Just(Twist::AccessList),
    ];
    (directory(0), directory(1), directory(1), programs(), twist)
        .prop_map(|(above, docroot, below, program, twist)| Tree { above, docroot, below, program, twist })
}

fn programs() -> impl Strategy<Value = Program> {
    let text = prop::sample::select(vec![
        "#!/bin/sh\nexit 0\n",
        "#!/bin/sh",
        "#! /usr/bin/env perl\n",
        "#!/bin/sh -e\r\n",
        "#!/bin/sh\r\n",
        "#!/usr/bin/php-cgi\n",
        "#!/missing/sh\n",
        "#!/tmp/sh\n",
        "#!/usr/bin\n",
        "#!/etc/passwd\n",
        "#!/var/www/sh\n",
        "#!sh\n",
        "#!\n",
        "#!",
        "",
        "text\n",
        "\x7fELF\x01\x01\x01",
        "\x7fELF\x02\x01\x01",
        "print 1;\n",
    ]);
    let kind = prop_oneof![
        1 => Just(Kind::Missing), 1 => Just(Kind::Directory), 1 => Just(Kind::Pipe), 1 => Just(Kind::Link),
        20 => Just(Kind::Probe), 20 => text.prop_map(Kind::Text),
    ];
    let modes = prop_oneof![
        80 => Just(0o755), 2 => Just(0o700), 1 => Just(0o100), 1 => Just(0o500), 1 => Just(0o644), 1 => Just(0o775),
        1 => Just(0o757), 1 => Just(0o4755), 1 => Just(0o2755), 1 => Just(0o1755), 1 => Just(0o000), 1 => Just(0o055),
    ];
    (kind, owner(), owner(), modes).prop_map(|(kind, owner, group, mode)| Program {
        kind,
        owner,
        group,
        mode,
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let user = prop_oneof![
        90 => Just("alice"), 1 => Just("~alice"), 1 => Just("bob"), 1 => Just("0"), 1 => Just("5"), 1 => Just("4000000"),
    ];
    let group = prop_oneof![90 => Just("alice"), 1 => Just("bob"), 1 => Just("0"), 1 => Just("4000000")];
    let place = prop_oneof![
        25 => Just("/var/www/alice/htdocs"), 20 => Just("/var/www/alice/htdocs/sub"), 1 => Just("/var/www/alice"),
        1 => Just("/usr/bin"), 1 => Just("/var/www/bob/htdocs"), 1 => Just("/"), 1 => Just("/var/www/alice/current/htdocs"),
    ];
    let command = prop_oneof![
        90 => Just("a.cgi".to_owned()), 1 => Just("env".to_owned()), 1 => Just(".".to_owned()), 1 => Just("sub/a.cgi".to_owned()),
        1 => Just("..".to_owned()), 1 => "[ -.0-9a-z$'\u{7f}-\u{ff}]{1,9}", 1 => Just("A".repeat(300)),
    ];
    (user, group, place, command).prop_map(|(user, group, place, command)| Request {
        user,
        group,
        place,
        command,
    })
}

impl Case {
    /// The policy over a tree that is right; then what is wrong with the tree.
    pub(crate) fn make(&self, world: &World) {
        let Self { policy, tree, .. } = self;
        drop(fs::remove_dir_all(BASE));
        let id = world.alice.id;
        put("/var/www/sh", &fs::read("/bin/sh").unwrap(), 0, 0o755);
        make_directory(BASE, if policy.linked { id } else { 0 }, 0o755);
        for place in ["htdocs", "htdocs/sub", "real"] {
            make_directory(format!("{BASE}/{place}"), id, 0o755);
        }
        symlink(".", format!("{BASE}/current")).unwrap();
        lchown(format!("{BASE}/current"), Some(id), Some(id)).unwrap();
        policy.apply(world);
        chown("/var/www/sh", Some(id), None).unwrap();
        tree.make(world);
    }
}

impl Policy {
    fn apply(&self, world: &World) {
        let docroot = if self.linked && self.links { "current/htdocs" } else { "htdocs" };
        let links = if self.links { "owner-match" } else { "deny" };
        // Keys before tables.
        let (keys, tables) = if self.more.starts_with('[') { ("", self.more) } else { (self.more, "") };
        let mut rules = everything(self.jail);
        // The list's own interpreter is the site's: it may be executed.
        rules = rules.replace("[files]\n", "[files]\nexecute = [\"/var/www/sh?\"]\n");
        let text = format!(
            "user = \"alice\"\ndocroot = \"{BASE}/{docroot}\"\nsymlinks = \"{links}\"\nhard_links = {}\n{keys}{rules}{tables}",
            self.hard_links
        );
        fs::write("/etc/cellwall/sites.d/alice.toml", text).unwrap();
        world.apply();
    }
}

impl Tree {
    fn make(&self, world: &World) {
        let root = Path::new(BASE).join("htdocs");
        if matches!(self.twist, Twist::Anew) {
            fs::remove_dir_all(&root).unwrap();
            make_directory(&root, world.alice.id, 0o755);
            make_directory(root.join("sub"), world.alice.id, 0o755);
        }

        for place in [root.clone(), root.join("sub")] {
            self.program.make(world, &place.join("a.cgi"), self.twist);
        }
        if let Twist::Link(owner) = self.twist {
            fs::rename(root.join("sub"), Path::new(BASE).join("elsewhere")).unwrap();
            symlink("../elsewhere", root.join("sub")).unwrap();
            lchown(root.join("sub"), Some(id(world, owner)), None).unwrap();
        }
        // From below: the last change may close a door.
        for (place, wish) in
            [(root.join("sub"), &self.below), (root, &self.docroot), (PathBuf::from(BASE), &self.above)]
        {
            let owner = id(world, wish.owner);
            chown(&place, Some(owner), Some(owner)).unwrap();
            mode(&place, wish.mode);
        }
    }
}

impl Program {
    fn make(&self, world: &World, path: &Path, twist: Twist) {
        match self.kind {
            Kind::Missing => return,
            Kind::Directory => fs::create_dir(path).unwrap(),
            Kind::Pipe => nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap(),
            Kind::Link => return symlink("/bin/sh", path).unwrap(),
            Kind::Probe => world.probe_at(&world.alice, path),
            Kind::Text(text) => put(path, text.as_bytes(), 0, 0o755),
        }
        chown(path, Some(id(world, self.owner)), Some(id(world, self.group))).unwrap();
        mode(path, self.mode);
        match twist {
            Twist::HardLink => fs::hard_link(path, path.with_extension("twin")).unwrap_or_default(),
            Twist::AccessList => {
                let list = format!("u:{}:rwx", world.bob.id);
                let said =
                    std::process::Command::new("setfacl").args(["-m", &list]).arg(path).status().unwrap();
                assert!(said.success(), "setfacl");
            }
            _ => {}
        }
    }
}

fn id(world: &World, owner: Owner) -> u32 {
    [0, world.alice.id, world.bob.id][usize::from(owner)]
}
