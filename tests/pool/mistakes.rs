//! Mistakes of pools, one after another: a visitor meets each, takes the reference from the page, and what `cellwall why`
//! says of it names the cause and, pasted into a shell, mends the site.
#![allow(
    clippy::print_stdout,
    reason = "how many mistakes are named and mended is a figure that people read"
)]

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::harness::{Answer, Ask, Launcher, World, make_directory, mode, put, run, world};

use super::host::{Daemon, Nginx, logged, processes, until};

/// One mistake.
struct Mistake {
    name: &'static str,
    /// The code of the refusal, of the one before it, or the cause's name.
    cause: &'static str,
    make: fn(&World),
    ask: fn(&Nginx) -> Answer,
}

const fn mistake(name: &'static str, cause: &'static str, make: fn(&World)) -> Mistake {
    Mistake { name, cause, make, ask: |nginx| nginx.get("alice", "/a.php") }
}

const DONE: &str = "header('Content-Type: text/plain'); echo \"mended\\n\";";

/// alice's site: php-cgi workers, and more of `[pool]`; the rest of the file may follow.
fn php(world: &World, script: &str, more: &str) {
    let text = format!("<?php {script} {DONE}");
    put(world.alice.docroot().join("a.php"), text.as_bytes(), world.alice.id, 0o644);
    world.site(
        "alice",
        &format!(
            "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\nworkers = {{ max = 1 }}\n{more}\n"
        ),
    );
    world.apply();
}

const SERVED: &str = "use FCGI; my $r = FCGI::Request(); while ($r->Accept() >= 0) { WORK; \
                      print \"Content-Type: text/plain\\r\\n\\r\\nmended\\n\"; }\n";

/// alice's site: a worker in Perl that does `work` for each request.
fn perl(world: &World, first: &str, work: &str, more: &str) {
    let path = world.alice.docroot().join("app.fcgi");
    // A start that is under way would meet a half of it.
    let new = world.script(&world.alice, "new", format!("{first}\n{}", SERVED.replace("WORK", work)));
    fs::rename(new, &path).unwrap();
    let rules = format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n{more}\n", path.display());
    world.site("alice", &rules);
    world.apply();
}

fn app(nginx: &Nginx) -> Answer {
    nginx.get("alice", "/app.fcgi")
}

const PERL: &str = "#!/usr/bin/perl";

/// Of one worker, while a slow request has it and another one waits.
fn third(nginx: &Nginx) -> Answer {
    thread::scope(|scope| {
        let slow: Vec<_> = (0..2)
            .map(|turn| {
                let ask = scope.spawn(move || nginx.get("alice", "/a.php?slow"));
                until("a request that is counted", || under_way() > turn);
                ask
            })
            .collect();
        let answer = nginx.get("alice", "/a.php");
        slow.into_iter().for_each(|ask| drop(ask.join().unwrap()));
        answer
    })
}

/// What `cellwall status` says of alice's requests: how many run and wait.
fn under_way() -> usize {
    let said = run(Command::new("/usr/bin/cellwall").arg("status"));
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let row = text.lines().find(|line| line.starts_with("alice ")).unwrap_or_default();
    row.split_whitespace().skip(3).take(2).filter_map(|word| word.parse::<usize>().ok()).sum()
}

const SLOW: &str = "if ($_SERVER['QUERY_STRING'] === 'slow') sleep(2);";

const MISTAKES: [Mistake; 17] = [
    Mistake {
        ask: app,
        ..mistake("the worker's interpreter has another name", "V11", |world| {
            perl(world, "#!/usr/local/bin/perl", "1", "");
        })
    },
    Mistake {
        ask: app,
        ..mistake("a worker that is not executable", "V121", |world| {
            perl(world, PERL, "1", "");
            mode(world.alice.docroot().join("app.fcgi"), 0o644);
        })
    },
    Mistake {
        ask: app,
        ..mistake("a worker that a deploy tool left group-writable", "V118", |world| {
            perl(world, PERL, "1", "");
            mode(world.alice.docroot().join("app.fcgi"), 0o775);
        })
    },
    Mistake {
        ask: app,
        ..mistake("a worker with the wrong owner after a copy", "V120", |world| {
            perl(world, PERL, "1", "");
            chown(world.alice.docroot().join("app.fcgi"), Some(0), Some(0)).unwrap();
        })
    },
    Mistake {
        ask: app,
        ..mistake("a worker whose first line has a CR", "V10", |world| {
            perl(world, "#!/usr/bin/perl\r", "1", "");
        })
    },
    Mistake {
        ask: app,
        ..mistake("a worker's module in a place of its own", "hidden", |world| {
            drop(fs::create_dir("/srv/modules"));
            put("/srv/modules/Shop.pm", b"package Shop; 1;\n", 0, 0o644);
            perl(world, PERL, "require '/srv/modules/Shop.pm'", "");
        })
    },
    Mistake {
        ask: app,
        ..mistake("the database's socket, for a worker", "hidden", |world| {
            drop(fs::create_dir_all("/run/mysqld"));
            drop(fs::remove_file("/run/mysqld/mysqld.sock"));
            std::mem::forget(UnixListener::bind("/run/mysqld/mysqld.sock").unwrap());
            mode("/run/mysqld/mysqld.sock", 0o777);
            let work = "use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); \
                        connect($s, pack_sockaddr_un('/run/mysqld/mysqld.sock')) or exit 1";
            perl(world, PERL, work, "");
        })
    },
    Mistake {
        ask: app,
        ..mistake("memory of a worker", "memory", |world| {
            perl(world, PERL, "my $all = 'x' x (150 << 20)", "[limits]\nmemory = \"128M\"");
        })
    },
    Mistake {
        ask: app,
        ..mistake("a system call that the list denies, for a worker", "seccomp", |world| {
            let number = if cfg!(target_arch = "x86_64") { 250 } else { 219 };
            perl(world, PERL, &format!("syscall({number}, 0, -3, 1) == -1 and exit 1"), "");
        })
    },
    mistake("a request takes longer than it may", "B08", |world| {
        php(world, "sleep(1); usleep(300000);", "timeout = \"1s\"")
    }),
    mistake("an answer that stands still", "B09", |world| {
        php(world, "sleep(1); usleep(300000);", "output_timeout = \"1s\"");
    }),
    mistake("a request takes more of the processor than it may", "B11", |world| {
        let spin = "function spent() { $u = getrusage(); return $u['ru_utime.tv_sec'] + $u['ru_utime.tv_usec'] / 1e6; } \
                    $end = spent() + 2.8; while (spent() < $end);";
        php(world, spin, "cpu_timeout = \"1s\"");
    }),
    Mistake {
        ask: |nginx| nginx.ask(&Ask::post("alice.test", "/a.php", "x".repeat(100_000))),
        ..mistake("an upload that is too large", "G07", |world| php(world, "", "body_max = \"64K\""))
    },
    Mistake {
        ask: third,
        ..mistake("more requests wait than may", "B02", |world| php(world, SLOW, "queue = 1"))
    },
    Mistake {
        ask: third,
        ..mistake("a request waits longer than it may", "B03", |world| {
            php(world, SLOW, "queue_timeout = \"3s\"");
        })
    },
    mistake("a site that somebody stopped", "B04", |world| {
        php(world, "", "");
        let said = world.cellwall(&["pool", "stop", "alice"]);
        assert!(said.status.success());
    }),
    Mistake {
        ask: |nginx| nginx.get("alice", "/new/a.php"),
        ..mistake("a docroot that the site's file does not name", "G05", |world| {
            php(world, "", "");
            let new = world.alice.docroot().join("new");
            if !new.exists() {
                make_directory(&new, world.alice.id, 0o755);
            }
            fs::copy(world.alice.docroot().join("a.php"), new.join("a.php")).unwrap();
            chown(new.join("a.php"), Some(world.alice.id), Some(world.alice.id)).unwrap();
            let text = fs::read_to_string("/etc/cellwall/sites.d/alice.toml").unwrap();
            let old = "/var/www/alice/old";
            if !fs::exists(old).unwrap() {
                make_directory(old, world.alice.id, 0o755);
            }
            fs::write("/etc/cellwall/sites.d/alice.toml", text.replace("/var/www/alice/htdocs", old))
                .unwrap();
            world.apply();
        })
    },
];

/// The reference on the page.
fn reference(answer: &Answer) -> Option<String> {
    answer.text().split("Reference: ").nth(1)?.get(..9).map(str::to_owned)
}

/// Asks until it is served; each time `why` is asked for the reference, and its remedy is pasted.
fn meet(world: &World, nginx: &Nginx, mistake: &Mistake) -> Result<(), String> {
    // Workers of the mistake before it would go on to serve.
    world.site("alice", "profile = \"php\"\n");
    world.apply();
    until("the end of its workers", || processes(world.alice.id).is_empty());
    (mistake.make)(world);
    until("the pool's socket", || fs::exists("/run/cellwall/pool/alice.sock").unwrap());
    let (mut story, mut named) = (String::new(), false);
    for round in 0..8 {
        let answer = (mistake.ask)(nginx);
        if answer.status == 200 && answer.text() == "mended\n" {
            return match (round, named) {
                (0, _) => Err("it was no mistake".to_owned()),
                (_, false) => Err(format!("the cause is not named:\n{story}")),
                _ => Ok(()),
            };
        }
        let reference = reference(&answer).ok_or_else(|| format!("no reference: {}", answer.text()))?;
        let mut told = said(world, &["why", &reference]);
        let mut repair = remedy(&told);
        if repair.starts_with("cellwall why ") {
            // That it runs once more is a command as well.
            told = String::from_utf8_lossy(&pasted(&repair)?).into_owned();
            repair = remedy(&told);
        }
        story.push_str(&told);
        named |= told.lines().any(|line| {
            line.trim().strip_prefix("cause").is_some_and(|name| name.trim() == mistake.cause)
                || line.contains(&format!("({})", mistake.cause))
                || line.contains(&format!("{}, HTTP status", mistake.cause))
        });
        if repair.is_empty() || repair.starts_with('#') {
            return Err(format!("there is no remedy:\n{story}"));
        }
        pasted(&repair).map_err(|why| format!("{why}\n{story}"))?;
        // Starts that failed are tried again after a pause.
        thread::sleep(Duration::from_millis(100));
    }
    Err(format!("it is not mended:\n{story}"))
}

fn said(world: &World, words: &[&str]) -> String {
    let said = world.cellwall(words);
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

fn remedy(told: &str) -> String {
    let found = told.lines().rev().find_map(|line| line.trim().strip_prefix("repair"));
    found.unwrap_or("").trim().to_owned()
}

fn pasted(command: &str) -> Result<Vec<u8>, String> {
    let said = run(Command::new("/bin/sh").args(["-c", command]));
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    if said.status.success() { Ok(said.stdout) } else { Err(format!("{command} does not work: {told}")) }
}

#[test]
fn mistakes_of_pools_are_named_and_mended_by_the_pages_reference() {
    world(Launcher::Cellwall, |world| {
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        let mut wrong = Vec::new();
        for mistake in &MISTAKES {
            match meet(world, &nginx, mistake) {
                Ok(()) => println!("named, mended {}", mistake.name),
                Err(why) => wrong.push(format!("== {}: {why}", mistake.name)),
            }
        }
        let good = MISTAKES.len() - wrong.len();
        println!("{good} of {} mistakes of pools are named and mended by what is pasted", MISTAKES.len());
        assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), logged(&[""]).join("\n"));
    });
}
