//! Applications as Debian ships them, each in a view of its own and used as people use it: through Apache as CGI and through
//! nginx and a pool, by the same site file with `[pool]` and without.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests do"
)]

#[allow(dead_code, unused_imports, reason = "each test binary uses its part of the harness")]
#[path = "../harness/mod.rs"]
mod harness;
#[allow(dead_code, reason = "each test binary uses its part of the pool's host")]
#[path = "../pool/host.rs"]
mod host;

mod awstats;
mod django;
mod dokuwiki;
mod git;
mod gitweb;
mod mapserver;
mod mojolicious;
#[path = "../jail/sink.rs"]
mod sink;
mod wordpress;
mod wsgi;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{Answer, Apache, Ask, Kind, Launcher, User, World, world};
use host::{Daemon, Nginx, logged};

/// What stands before the application.
enum Front {
    Apache(Apache),
    Pool(Nginx, #[allow(dead_code, reason = "it ends with the front")] Daemon),
}

/// A visitor of alice's site with a cookie jar.
struct Visitor<'f> {
    front: &'f Front,
    cookies: BTreeMap<String, String>,
}

impl Front {
    fn visitor(&self) -> Visitor<'_> {
        Visitor { front: self, cookies: BTreeMap::new() }
    }
}

impl Visitor<'_> {
    fn send(&mut self, ask: Ask) -> Answer {
        let jar: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ask = if jar.is_empty() { ask } else { ask.header(&format!("Cookie: {}", jar.join("; "))) };
        let answer = match self.front {
            Front::Apache(apache) => apache.ask(&ask),
            Front::Pool(nginx, _) => nginx.ask(&ask),
        };
        for line in answer.head.lines().filter_map(|line| line.split_once(": ")) {
            if line.0.eq_ignore_ascii_case("set-cookie") {
                let (name, value) = line.1.split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// A page, which must be there.
    fn page(&mut self, path: &str) -> String {
        let answer = self.send(Ask::get("alice.test", path));
        assert_eq!(
            answer.status,
            200,
            "{path}: {}\n{}\n{}",
            answer.head,
            answer.text(),
            logged(&[""]).join("\n")
        );
        answer.text()
    }

    /// A form; the answer may lead elsewhere.
    fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let ask = Ask::post("alice.test", path, body.join("&"));
        self.send(ask.header("Content-Type: application/x-www-form-urlencoded"))
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The value of a hidden field.
fn field(page: &str, name: &str) -> String {
    let tag =
        page.split('<').find(|tag| tag.starts_with("input") && tag.contains(&format!("name=\"{name}\"")));
    let tag = tag.unwrap_or_else(|| panic!("no field {name} in {page}"));
    tag.split("value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
}

/// What stands in the configuration of each server beyond the usual.
struct Servers {
    apache: &'static str,
    nginx: &'static str,
}

/// Scripts beneath the docroot.
const SCRIPTS: Servers =
    Servers { apache: "<Directory /var/www>\nAddHandler cgi-script .php\n</Directory>\n", nginx: "" };

/// Uses the application twice: by Apache and suEXEC, and by nginx and a pool. `site`: a file of packaging/sites, as it is,
/// and with the `[pool]` that stands in it as a comment.
fn both_ways(site: &str, furnish: fn(&World, &User), used: fn(&mut Visitor<'_>)) {
    both_ways_by(&SCRIPTS, site, furnish, used);
}

/// The same by servers that are told more.
fn both_ways_by(servers: &Servers, site: &str, furnish: fn(&World, &User), used: fn(&mut Visitor<'_>)) {
    both_ways_beside(servers, site, furnish, || (), |visitor, ()| used(visitor));
}

/// The site file with its `[pool]`: lines that are a comment without a blank behind its sign.
fn with_pool(site: &str) -> String {
    let lines =
        site.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(text.contains("\n[pool]\n"), "{text}");
    text
}

/// The same, with something that runs beside the site.
fn both_ways_beside<B>(
    servers: &Servers,
    site: &str,
    furnish: fn(&World, &User),
    beside: impl Fn() -> B + Sync,
    used: impl Fn(&mut Visitor<'_>, &B) + Sync,
) {
    for (site, pool) in [(site.to_owned(), false), (with_pool(site), true)] {
        world(Launcher::Cellwall, |world| {
            furnish(world, &world.alice);
            own(&world.alice, Path::new("/var/www/alice"));
            let beside = beside();
            fs::write("/etc/cellwall/sites.d/alice.toml", &site).unwrap();
            world.apply();
            let front = if !pool {
                Front::Apache(Apache::start(world, Kind::Event, servers.apache))
            } else {
                let daemon = Daemon::start(world);
                Front::Pool(Nginx::start(&["alice"], servers.nginx), daemon)
            };
            used(&mut front.visitor(), &beside);
            assert!(!logged(&["launch ", "site=alice", "jail=view", "seccomp=on"]).is_empty());
            assert!(logged(&["refuse "]).is_empty(), "{:?}", logged(&["refuse "]));
        });
    }
}

/// Everything below is the site's, and nobody else may write it. The directory itself stays root's.
fn own(user: &User, directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        run(Command::new("chown").args(["-R", &format!("{0}:{0}", user.id)]).arg(&path));
        run(Command::new("chmod").args(["-R", "u+rwX,go+rX,go-w"]).arg(&path));
    }
}

fn run(command: &mut Command) {
    let said = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
}
