//! Workers that have had their requests, or nothing to do: who takes their place, and when they go.

use std::sync::Arc;

use cellwall::pool::settings::{Life, Settings, Workers};
use cellwall::pool::wire::{Ended, Site, Up, Why, Worker};

use crate::stage::{Client, Stage, answer, example, play, request};

use super::HELLO;

#[test]
fn a_worker_is_retired_after_its_number_of_requests_and_none_is_lost() {
    let worker_rules = Life { requests: 10, ..example().worker };
    let mut stage = Stage::new(&Settings { worker: worker_rules, ..example() });
    let first = stage.actor(1, |_, stream| answer(stream, HELLO));
    let mut client = stage.client();
    for _ in 0..10 {
        assert_eq!(client.get("/a.php").out, HELLO);
    }
    let retire = stage.wait(|up| matches!(up, Up::Retire { .. }));
    assert!(matches!(retire, Up::Retire { worker, why: Why::Requests, .. } if worker == first), "{retire:?}");
    client.ask(&request("/b.php", &[], b"", true));
    stage.wait_for_status("\"waiting\":1");
    stage.gone(first, Ended::Stopped);
    stage.actor(1, |_, stream| answer(stream, b"second"));
    assert_eq!(client.answer().out, b"second");
}

/// One worker that ends after 32 requests has had 30: its heir is asked for.
fn with_an_heir(workers: Workers) -> (Stage, Worker, Client) {
    let rules = Life { requests: 32, ..example().worker };
    let mut stage = Stage::new(&Settings { worker: rules, workers, ..example() });
    let first = stage.actor(1, |_, stream| answer(stream, b"first"));
    let mut client = stage.client();
    for _ in 0..29 {
        assert_eq!(client.get("/a.php").out, b"first");
    }
    assert!(!stage.heard().iter().any(|up| matches!(up, Up::Heir { .. })), "too early");
    assert_eq!(client.get("/a.php").out, b"first");
    let heir = stage.wait(|up| matches!(up, Up::Heir { .. }));
    assert!(matches!(heir, Up::Heir { worker, .. } if worker == first), "{heir:?}");
    (stage, first, client)
}

const ONE: Workers = Workers { max: 1, min: 1, spare: 0, idle_ms: 600_000, connections: 1 };

#[test]
fn a_workers_heir_takes_over_as_soon_as_it_is_up() {
    let (mut stage, first, mut client) = with_an_heir(ONE);
    let (_, listener, errors) = stage.worker(1);
    assert_eq!(client.get("/a.php").out, b"first", "the other one is not up");
    play(listener, errors, |_, stream| answer(stream, b"second"));
    // Nobody but the broker knows when it has heard of that.
    let other = (0..5).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        Some(client.get("/a.php").out).filter(|out| *out != b"first")
    });
    assert_eq!(other.unwrap(), b"second", "before the first one had all of its 32 and four more");
    let retire = stage.wait(|up| matches!(up, Up::Retire { .. }));
    assert_eq!(retire, Up::Retire { site: Site(1), worker: first, why: Why::Requests });
    assert_eq!(client.get("/a.php").out, b"second");
    assert!(!stage.heard().iter().any(|up| matches!(up, Up::Heir { .. })), "one at a time");
}

#[test]
fn an_heir_that_is_not_up_gets_a_visitor_when_there_is_nobody_else() {
    for more in [3, 0] {
        let (mut stage, first, mut client) = with_an_heir(Workers { idle_ms: 200, ..ONE });
        let (_, listener, errors) = stage.worker(1);
        let mut both = [stage.client(), client];
        for _ in 0..more {
            both.iter_mut().for_each(|client| client.ask(&request("/a.php", &[], b"", true)));
            both.iter_mut().for_each(|client| assert_eq!(client.answer().out, b"first"));
        }
        // It has had all that it may and an eighth more, or has rested for long enough.
        let retire = stage.wait(|up| matches!(up, Up::Retire { .. }));
        let why = Why::Requests;
        assert_eq!(retire, Up::Retire { site: Site(1), worker: first, why });
        stage.gone(first, Ended::Stopped);
        [_, client] = both;
        client.ask(&request("/a.php", &[], b"", true));
        stage.wait_for_status("\"running\":1");
        play(listener, errors, |_, stream| answer(stream, b"second"));
        assert_eq!(client.answer().out, b"second");
        // The site has one, as it wants: it stays.
        stage.forget();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let moves = |up: &Up| matches!(up, Up::Retire { .. } | Up::Kill { .. } | Up::Heir { .. });
        assert!(!stage.heard().iter().any(moves), "{:?}", stage.heard());
    }
}

#[test]
fn a_worker_with_nothing_to_do_is_dismissed() {
    let workers = Workers { idle_ms: 200, ..example().workers };
    let mut stage = Stage::new(&Settings { workers, ..example() });
    stage.actor(1, |_, stream| answer(stream, HELLO));
    assert_eq!(stage.client().get("/a.php").out, HELLO);
    stage.wait(|up| matches!(up, Up::Want { count: 1, .. }));
    stage.wait(|up| matches!(up, Up::Want { count: 0, .. }));
    stage.wait(|up| matches!(up, Up::Retire { why: Why::Idle, .. }));
    // Whoever is told that none is wanted, and then that one is, starts it.
    stage.wait_for_status("\"waiting\":0");
    assert!(!stage.heard().iter().any(|up| matches!(up, Up::Want { count: 1.., .. })), "{:?}", stage.heard());
}

#[test]
fn each_idle_worker_is_dismissed_and_no_more_are_wanted_than_are_left() {
    let workers = Workers { idle_ms: 200, max: 3, ..example().workers };
    let mut stage = Stage::new(&Settings { workers, ..example() });
    let together = Arc::new(std::sync::Barrier::new(3));
    for _ in 0..3 {
        let together = Arc::clone(&together);
        stage.actor(1, move |_, stream| {
            together.wait();
            answer(stream, HELLO);
        });
    }
    let mut clients: Vec<Client> = (0..3).map(|_| stage.client()).collect();
    clients.iter_mut().for_each(|client| client.ask(&request("/a.php", &[], b"", true)));
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().out, HELLO));
    for wanted in [1, 2, 3] {
        stage.wait(|up| matches!(up, Up::Want { count, .. } if *count == wanted));
    }
    for left in [2, 1, 0] {
        let Up::Retire { worker, why: Why::Idle, .. } = stage.wait(|up| matches!(up, Up::Retire { .. }))
        else {
            panic!("not for want of work")
        };
        stage.wait_for_status("\"waiting\":0");
        let more = |up: &Up| matches!(up, Up::Want { count, .. } if *count > left);
        assert!(!stage.heard().iter().any(more), "{left} are left, and {:?}", stage.heard());
        stage.forget();
        stage.gone(worker, Ended::Stopped);
    }
}
