//! What sites use, once a second: for the status service, for recycling by memory and for the CPU time of requests.

use std::collections::BTreeMap;

use super::super::life::{Event, State};
use super::super::settings::Accept;
use super::super::tree::{Census, Tree, Usage};
use super::super::wire::{Down, Site, Worker};
use super::Supervisor;
use super::workers::is_over;

impl Supervisor {
    /// Tells the broker what all use, and replaces workers that have grown too large.
    pub(super) fn usage(&mut self) {
        let zygotes = self.zygotes.values().map(|zygote| &zygote.tree);
        let marked = self.workers.values().map(|one| &one.tree).chain(zygotes).any(Tree::is_marked);
        let census = if marked { Census::now() } else { Census::default() };
        let mut sums: BTreeMap<Site, Usage> = BTreeMap::new();
        let mut spent = Vec::new();
        for zygote in self.zygotes.values() {
            let (site, used) = (zygote.site, zygote.tree.usage(&census));
            sums.entry(site).or_default().add(used);
            let metered = self.pools.get(&site).is_some_and(|pool| pool.metered);
            if let Some((token, run)) =
                zygote.token().filter(|_| metered).and_then(|token| self.runs.get_key_value(&token))
            {
                let cpu_us = used.cpu_us.saturating_sub(run.cpu_us);
                spent.push(Down::RunSpent { token: *token, site, cpu_us });
            }
        }
        let mut fat = Vec::new();
        for (worker, living) in &mut self.workers {
            living.begun = living.begun || is_over(&living.report);
            let (worker, site, used) = (*worker, living.site, living.tree.usage(&census));
            sums.entry(site).or_default().add(used);
            let Some(pool) = self.pools.get(&site) else { continue };
            if pool.metered {
                spent.push(Down::Spent { site, worker, cpu_us: used.cpu_us });
            }
            let relayed = living.accept == Accept::Relay;
            if (1..used.memory).contains(&pool.life.memory) && relayed && living.state == State::Up {
                fat.push((worker, site, used.memory));
            }
        }
        // Of those whose last worker is gone, that is told.
        for site in self.behind.known() {
            sums.entry(site).or_default();
        }
        self.weigh(&sums);
        for (worker, site, memory) in fat {
            self.recycle(site, worker, memory);
        }
        let used: Vec<Down> = sums.into_iter().filter_map(|(site, used)| self.used(site, used)).collect();
        for message in spent.into_iter().chain(used) {
            self.tell_broker(&message, Vec::new());
        }
    }

    /// What the broker is told of a site. Its CPU time goes on where workers end, and their own is gone with them.
    fn used(&mut self, site: Site, Usage { processes, memory, .. }: Usage) -> Option<Down> {
        let behind = self.behind.is_behind(site);
        let lately = self.behind.used_lately(site);
        let pool = self.pools.get_mut(&site)?;
        pool.cpu_us = pool.cpu_us.saturating_add(lately);
        Some(Down::Usage { site, processes, memory, cpu_us: pool.cpu_us, behind })
    }

    fn recycle(&mut self, site: Site, worker: Worker, memory: u64) {
        let name = self.name(site);
        self.journal.say("recycle", &name, &format!("worker={} memory={memory}", worker.0));
        self.happen(worker, Event::Drain);
        self.fill(site);
    }
}
