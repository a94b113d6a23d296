//! `demo`: Cellwall at work behind a real Apache, next to stock suEXEC.
//!
//! All of it happens in private namespaces (files, processes, network): two users that only this demonstration has,
//! an installation in memory, an Apache on a loopback that nobody else can reach. When its first process ends, for
//! whatever reason, the kernel takes all of that away; so there is nothing to clean up and nothing to forget.

mod host;
mod price;
mod scenes;
mod sites;
mod web;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Outcome;
use crate::{build, debian, say, tree};

/// The hidden command that runs inside.
pub(crate) const INSIDE: &str = "demo-inside";

/// Outside: what is needed, then the namespaces.
pub(crate) fn outside() -> Outcome {
    tree::need_root("demo")?;
    debian::need(&[debian::BUILD, debian::DEMO])?;
    build::programs_quietly()?;
    say::step("The demonstration, in private namespaces: nothing of this machine changes");
    let me = std::env::current_exe().map_err(|why| format!("cannot find myself: {why}"))?;
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "--net",
        "--ipc",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    unshare.arg(me).arg(INSIDE).stdin(Stdio::piped());
    let mut child = unshare.spawn().map_err(|why| format!("cannot start unshare: {why}"))?;
    // The life line: it ends when we do, Ctrl-C included, and then the inside ends.
    let line = child.stdin.take();
    let status = child.wait().map_err(|why| format!("cannot wait for the demonstration: {why}"))?;
    drop(line);
    if status.success() {
        Ok(())
    } else {
        Err("the demonstration did not go as it should; see above.".to_owned())
    }
}

/// Inside: the first process of the private world.
pub(crate) fn inside() -> Outcome {
    std::thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(1);
    });
    let began = Instant::now();
    host::prepare()?;
    let sites = sites::plant()?;
    let mut web = web::Apache::start()?;
    say::note(&format!(
        "two sites, two owners, an Apache on a loopback of their own: ready after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    let mut show = scenes::Show::default();
    let ended = all(&mut show, &sites);
    web.stop();
    show.end(ended)
}

fn all(show: &mut scenes::Show, sites: &sites::Sites) -> Outcome {
    show.who_answers(sites)?;
    show.what_a_hacked_site_reaches(sites)?;
    show.a_mistake(sites)?;
    show.the_price()
}
