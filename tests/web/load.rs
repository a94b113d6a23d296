//! Many visitors at once.

use std::thread;

use crate::harness::{Apache, Ask, Kind, Launcher, everything, world};

#[test]
fn sixty_four_visitors_at_once_all_get_their_sites_answer() {
    for kind in [Kind::Event, Kind::Prefork] {
        world(Launcher::Cellwall, |world| {
            world.sites(&everything("view"));
            let users = [&world.alice, &world.bob, &world.carol];
            for user in users {
                world.script(
                    user,
                    "a.pl",
                    "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\n$< $ENV{QUERY_STRING}\\n\";\n",
                );
            }
            let apache = Apache::start(world, kind, "");
            thread::scope(|scope| {
                for visitor in 0..64 {
                    let apache = &apache;
                    scope.spawn(move || {
                        for turn in 0..5 {
                            let user = users[(visitor + turn) % 3];
                            let path = format!("/a.pl?v={visitor}&t={turn}");
                            let answer = apache.ask(&Ask::get(&format!("{}.test", user.name), &path));
                            let expected = format!("{} v={visitor}&t={turn}\n", user.id);
                            assert_eq!((answer.status, answer.text()), (200, expected), "{}", apache.log());
                        }
                    });
                }
            });
            let records = world.records();
            assert_eq!(records.len(), 320);
            assert!(records.iter().all(|record| record.verb == "launch"));
        });
    }
}

#[test]
fn a_visitor_who_leaves_early_harms_nobody() {
    world(Launcher::Cellwall, |world| {
        use std::io::Write;
        world.sites(&everything("view"));
        world.script(
            &world.alice,
            "slow.pl",
            "#!/usr/bin/perl\n$| = 1; print \"Content-Type: text/plain\\n\\n\"; print 'x' x 65536 for 1..200;\n",
        );
        world.script(
            &world.alice,
            "quick.pl",
            "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\nok\\n\";\n",
        );
        let apache = Apache::start(world, Kind::Event, "");
        for _ in 0..20 {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", apache.port())).unwrap();
            stream.write_all(b"GET /slow.pl HTTP/1.0\r\nHost: alice.test\r\n\r\n").unwrap();
            drop(stream);
        }
        assert_eq!(apache.get("alice.test", "/quick.pl").text(), "ok\n");
    });
}
