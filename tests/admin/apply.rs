//! `cellwall apply` on a host that does not answer.

use std::time::{Duration, Instant};

use crate::harness::{Launcher, put, small, world};

#[test]
fn a_name_service_that_does_not_answer_holds_up_no_site_of_a_local_account() {
    world(Launcher::Cellwall, |world| {
        // As with a directory service that is gone, and no time limit of its own.
        put("/usr/bin/getent", b"#!/bin/sh\nexec sleep 1000\n", 0, 0o755);
        world.site("alice", &small("host"));
        let asked = Instant::now();
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && asked.elapsed() < Duration::from_secs(90), "{text}");
        assert!(text.contains("the name service does not list its accounts"), "{text}");
        world.probe(&world.alice, "a.cgi");
        world.call(&world.alice, "a.cgi").run().ran();
        // Who has a ~user site is not known then: none is removed.
        world.host("[userdir]\nenabled = true\n");
        let said = world.cellwall(&["apply"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code() == Some(1) && text.contains("the name service lists no users"), "{text}");
    });
}
