//! The examples of the manual pages are typed as they stand there; those that need another host are named here.

use std::fs;
use std::process::Command;

use crate::harness::{Launcher, User, World, make_directory, put, run, world};
use crate::host::{Daemon, until};

/// Need a service manager, Debian's alternatives, a terminal, or a web server with sites to import.
const ANOTHER_HOSTS: [&str; 6] = [
    "systemctl enable --now cellwalld",
    "update-alternatives --set suexec /usr/lib/cellwall/cellwall-suexec",
    "update-alternatives --auto suexec",
    "cellwall jail shell shop",
    "cellwall import --to /etc/cellwall/sites.d",
    "cellwall import --php-fpm --to /etc/cellwall/sites.d",
];

const PAGES: [&str; 3] = [
    include_str!("../../docs/man/cellwall.8"),
    include_str!("../../docs/man/cellwall-suexec.8"),
    include_str!("../../docs/man/cellwalld.8"),
];

const FILES: &str = include_str!("../../docs/man/cellwall.toml.5");

/// What stands between .EX and .EE of a page's examples, as man(1) shows it.
fn examples(page: &str) -> Vec<String> {
    let section = page.split("\n.SH EXAMPLES\n").nth(1).unwrap_or_else(|| panic!("a page has no examples"));
    let section = section.split("\n.SH ").next().unwrap();
    let shown = |text: &str| text.split("\n.EE").next().unwrap().replace("\\-", "-").replace("\\e", "\\");
    section.split("\n.EX\n").skip(1).map(shown).collect()
}

/// Lines, where none goes on in the next one.
fn commands(example: &str) -> Vec<String> {
    example.replace("\\\n", "").lines().map(str::to_owned).collect()
}

/// The account, docroot and pages that the examples name.
fn shop(world: &World) -> User {
    let shop = world.another("shop", 0);
    make_directory("/srv/www", 0, 0o755);
    make_directory("/srv/www/shop", 0, 0o755);
    make_directory("/srv/www/shop/htdocs", shop.id, 0o755);
    make_directory("/srv/www/shop/htdocs/uploads", shop.id, 0o755);
    for (name, text) in [("index.php", "<?php echo 'a page';"), ("cron.php", "<?php echo 'a job';")] {
        put(format!("/srv/www/shop/htdocs/{name}"), text.as_bytes(), shop.id, 0o644);
    }
    for name in ["alice", "bob", "carol"] {
        fs::remove_file(format!("/etc/cellwall/sites.d/{name}.toml")).unwrap();
    }
    let host = "caller = \"www-data\"\n[log]\nto = \"file\"\n[defaults.limits]\ncgroup = \"off\"\n";
    fs::write("/etc/cellwall/cellwall.toml", host).unwrap();
    shop
}

const SITE: &str = "/etc/cellwall/sites.d/shop.toml";

fn typed(line: &str) -> (String, bool) {
    let said = run(Command::new("sh").args(["-c", line]));
    (String::from_utf8([said.stdout, said.stderr].concat()).unwrap(), said.status.success())
}

#[test]
fn each_file_of_the_manual_is_right_and_runs_the_pages_that_it_says() {
    world(Launcher::Cellwall, |world| {
        shop(world);
        let all = examples(FILES);
        let (files, last) = all.split_at(all.len() - 1);
        assert!(files.len() > 2 && last == ["cellwall check /etc/cellwall/sites.d/shop.toml"], "{all:?}");
        for file in files {
            fs::write(SITE, file).unwrap();
            let (told, good) = typed(&last[0]);
            assert!(good && !told.contains("warning"), "{file}\n{told}");
            world.apply();
            let handled = file.contains("php-cgi");
            let rehearsed = world.cellwall(&["explain", "shop", "shop", "/srv/www/shop/htdocs", "index.php"]);
            // Only where a file says what runs it.
            assert_eq!(rehearsed.status.success(), handled, "{file}\n{rehearsed:?}");
        }
    });
}

#[test]
fn each_command_of_the_manuals_examples_works_as_it_stands_there() {
    world(Launcher::Cellwall, |world| {
        let shop = shop(world);
        let handlers = "[handlers]\n\".php\" = \"/usr/bin/php-cgi\"\n";
        let files = examples(FILES);
        fs::write(SITE, format!("{}\n{handlers}", files[1])).unwrap();
        world.apply();
        // What the last refusal was, and a mode that is to be mended.
        put("/srv/www/shop/htdocs/open.php", b"<?php", shop.id, 0o666);
        let _daemon = Daemon::start(world);
        until("the daemon", || typed("cellwall status").1);
        let (all, mut ran) = (PAGES.iter().flat_map(|page| examples(page)), 0);
        let lines: Vec<String> = all.flat_map(|example| commands(&example)).collect();
        for line in &ANOTHER_HOSTS {
            assert!(lines.iter().any(|other| other == line), "{line} is in no page any more");
        }
        typed(&lines.iter().find(|line| line.contains("setpriv")).unwrap().replace("index.php", "none.php"));
        for line in lines.iter().filter(|line| !ANOTHER_HOSTS.contains(&line.as_str())) {
            let (told, good) = typed(line);
            assert!(good, "{line}\n{told}");
            for (command, part) in [
                ("cellwall why", "none.php"),
                ("cellwall run", "a job"),
                ("setpriv", "a page"),
                ("cellwall fix", "open.php"),
                ("cellwall-suexec -V", "AP_"),
            ] {
                assert!(!line.contains(command) || told.contains(part), "{line}: {told}");
            }
            ran += 1;
        }
        assert!(ran > 12, "{ran}");
    });
}
