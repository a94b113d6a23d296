//! Many visitors at once, for a while.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Apache, Ask, Kind, Launcher, everything, world};

#[test]
fn eight_visitors_for_a_while_and_every_answer_has_its_record() {
    for (kind, jail) in [(Kind::Event, "view"), (Kind::Prefork, "view"), (Kind::Event, "host")] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything(jail));
            let users = [&world.alice, &world.bob, &world.carol];
            for user in users {
                let text =
                    "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\n$< $$ $ENV{QUERY_STRING}\\n\";\n";
                world.script(user, "a.pl", text);
            }
            let apache = Apache::start(world, kind, "");
            let until = Instant::now() + Duration::from_secs(3);
            let client = |visitor: usize| {
                let mut pids = Vec::new();
                while Instant::now() < until {
                    let user = users[(visitor + pids.len()) % 3];
                    let query = format!("v={visitor}&t={}", pids.len());
                    let answer =
                        apache.ask(&Ask::get(&format!("{}.test", user.name), &format!("/a.pl?{query}")));
                    let told = answer.text();
                    let words: Vec<_> = told.split_whitespace().collect();
                    assert_eq!(
                        (answer.status, words[0], words[2]),
                        (200, user.id.to_string().as_str(), query.as_str())
                    );
                    pids.push(words[1].to_owned());
                }
                pids
            };
            let answered: Vec<String> = thread::scope(|scope| {
                let clients: Vec<_> = (0..8)
                    .map(|visitor| {
                        let client = &client;
                        scope.spawn(move || client(visitor))
                    })
                    .collect();
                clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
            });
            // The strict reader of records fails on a torn line.
            let records = world.records();
            assert!(answered.len() > 100, "{} answers in 3 seconds", answered.len());
            assert_eq!(records.len(), answered.len());
            assert!(records.iter().all(|record| record.verb == "launch"));
            let launched: BTreeSet<_> = records.iter().map(|record| record.field("pid").to_owned()).collect();
            assert_eq!(launched, answered.into_iter().collect());
        });
    }
}

#[test]
fn a_visitor_who_leaves_early_harms_nobody() {
    world(Launcher::Cellwall, |world| {
        world.sites(&everything("view"));
        let slow = "#!/usr/bin/perl\n$| = 1; print \"Content-Type: text/plain\\n\\n\"; print 'x' x 65536 for 1..200;\n";
        world.script(&world.alice, "slow.pl", slow);
        world.script(
            &world.alice,
            "quick.pl",
            "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\nok\\n\";\n",
        );
        let apache = Apache::start(world, Kind::Event, "");
        for _ in 0..20 {
            let mut stream = TcpStream::connect(("127.0.0.1", apache.port())).unwrap();
            stream.write_all(b"GET /slow.pl HTTP/1.0\r\nHost: alice.test\r\n\r\n").unwrap();
            drop(stream);
        }
        assert_eq!(apache.get("alice.test", "/quick.pl").text(), "ok\n");
    });
}
