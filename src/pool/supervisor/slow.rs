//! Lines of the slow log that only root can write: where the worker of a slow request is at that moment.
//!
//! Root. The broker's own line, before these, says which request it is. Of the worker only the kernel's words are read.

use std::io::Write as _;
use std::time::Instant;

use nix::unistd::Pid;

use crate::policy::Format;
use crate::record::stamp;
use crate::refusal::Untrusted;

use super::super::settings;
use super::super::whereabouts;
use super::super::wire::{Site, Token, Worker};
use super::{Supervisor, logs};

impl Supervisor {
    pub(super) fn tell_where_worker(&mut self, site: Site, worker: Worker) {
        if self.has_told_enough() {
            return;
        }
        let Some(living) = self.workers.get(&worker).filter(|living| living.site == site) else { return };
        let lines = lines(&living.tree.processes(), &format!("worker={}", worker.0), living.since);
        self.write_where(site, &lines);
    }

    pub(super) fn tell_where_run(&mut self, site: Site, token: Token) {
        if self.has_told_enough() {
            return;
        }
        let Some(run) = self.runs.get(&token).filter(|run| run.site == site) else { return };
        let Some(zygote) = self.zygotes.get(&run.zygote) else { return };
        let mut processes = zygote.tree.processes();
        processes.retain(|process| *process != zygote.tree.pid());
        let program = processes.first().map_or(0, |process| process.as_raw());
        let lines = lines(&processes, &format!("run={program}"), run.since);
        self.write_where(site, &lines);
    }

    /// In this second. The broker asks once for each slow request; one that was taken over could have root fill the disk.
    fn has_told_enough(&mut self) -> bool {
        self.places_told = self.places_told.saturating_add(1);
        self.places_told > TOLD_MOST
    }

    /// To the site's slow log, or to the host's log where it has none.
    fn write_where(&mut self, site: Site, lines: &[String]) {
        let Some(pool) = self.pools.get(&site) else { return };
        let Ok(settings) = settings::settings(&pool.record) else { return };
        let (name, path) = (pool.name.clone(), settings.seen.slow_log.to_vec());
        if path.is_empty() {
            return lines.iter().for_each(|line| self.journal.say("where", &name, line));
        }
        // One that cannot be opened was told of when the broker was given it.
        let Ok(file) = logs::open_log(&path) else { return };
        let mut file = std::fs::File::from(file);
        for line in lines {
            let line = format!("{} pool where site={} {line}\n", stamp(Format::Keys), Untrusted(&name));
            // The broker counts what it cannot write there (lines_lost).
            drop(file.write_all(line.as_bytes()));
        }
    }
}

fn lines(processes: &[Pid], what: &str, since: Instant) -> Vec<String> {
    let age = since.elapsed().as_secs();
    let places = whereabouts::of(processes);
    places.iter().map(|place| format!("{what} age={age} {place}")).collect()
}

/// Requests a second, of all sites together, of which is told where they are.
const TOLD_MOST: u32 = 50;
