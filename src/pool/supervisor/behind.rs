//! Sites that compute for long while others want the processors for a moment: put behind those, as long as they have their share
//! anyway.
//!
//! A control group that is idle (`cpu.idle`, Linux 5.15; Documentation/admin-guide/cgroup-v2.rst) computes when nobody else wants
//! to, gives way to whoever wakes up at once, and its processors count as free where the kernel looks for one. But where somebody
//! always wants to it gets next to nothing, whatever its weight. So each site that was put behind has an account here: its share by
//! its weight is written to its credit each second, what it has used is taken off, and who is owed something is behind nobody until
//! it has it. See docs/decisions/0053.
//!
//! The broker says who computes for long. What that site has used, and whether it is more than its share, is counted here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::super::settings::{self, Settings};
use super::super::tree::Usage;
use super::super::wire::Site;
use super::Supervisor;

/// What all sites have used lately, and who is held behind others.
pub(super) struct Behind {
    counted_at: Instant,
    /// How long the last period was, in microseconds.
    period_us: u64,
    used: BTreeMap<Site, Used>,
    held: BTreeMap<Site, Held>,
}

/// A site's CPU time in microseconds: so far, and of that in the last period; and how many processes it has.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    so_far: u64,
    lately: u64,
    processes: u32,
}

/// A site that computes for long at a time.
struct Held {
    group: Group,
    account: Account,
    until: Instant,
    is_behind: bool,
}

/// The control group that divides the processors, and what the site weighs there, as version 2 counts.
#[derive(Debug, Clone)]
struct Group {
    directory: PathBuf,
    weight: u64,
}

/// What a site has used beyond its share, in microseconds of CPU time; less than nothing: it is owed that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Account(i64);

impl Account {
    /// After a period in which `share` was the site's and `used` it took. Only the last few periods are remembered: a night of one
    /// site alone on the host is no debt, and a quiet one no right to the next hour.
    fn book(&mut self, share: u64, used: u64) {
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let (share, used) = (signed(share), signed(used));
        let most = share.saturating_mul(PERIODS);
        let sum = self.0.saturating_add(used.saturating_sub(share));
        self.0 = sum.clamp(most.saturating_neg(), most);
    }

    fn has_more(self) -> bool {
        self.0 > 0
    }
}

/// CPU time of a period that is a site's, in microseconds: by its weight beside those of as many others that compute, one at least.
fn share(period_us: u64, processors: u64, weight: u64, others: u64) -> u64 {
    let all = weight.saturating_add(others.max(1).saturating_mul(ORDINARY)).max(1);
    period_us.saturating_mul(processors).saturating_mul(weight).checked_div(all).unwrap_or(0)
}

impl Behind {
    pub(super) fn new() -> Self {
        Self { counted_at: Instant::now(), period_us: 0, used: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// What a site's share of the last period was, and what it has used of it.
    fn lately(&self, site: Site, weight: u64) -> (u64, u64) {
        let much = self.period_us.checked_div(PART_OF_MUCH).unwrap_or(0);
        let others = self.used.iter().filter(|(other, used)| **other != site && used.lately >= much).count();
        let processors = available_parallelism().map_or(1, |number| u64::try_from(number.get()).unwrap_or(1));
        let others = u64::try_from(others).unwrap_or(u64::MAX);
        (share(self.period_us, processors, weight, others), self.used_lately(site))
    }

    /// Who had processes when they were counted last, or is held: of them something else may be to tell now.
    pub(super) fn known(&self) -> impl Iterator<Item = Site> {
        let counted = self.used.iter().filter(|(_, used)| used.processes > 0).map(|(site, _)| *site);
        counted.chain(self.held.keys().copied())
    }

    /// CPU time of the last period, in microseconds.
    pub(super) fn used_lately(&self, site: Site) -> u64 {
        self.used.get(&site).map_or(0, |used| used.lately)
    }

    pub(super) fn is_behind(&self, site: Site) -> bool {
        self.held.get(&site).is_some_and(|held| held.is_behind)
    }

    /// `sums`: what all have used so far.
    fn count(&mut self, sums: &BTreeMap<Site, Usage>, now: Instant) {
        self.period_us = u64::try_from((now - self.counted_at).as_micros()).unwrap_or(u64::MAX);
        self.counted_at = now;
        let before = std::mem::take(&mut self.used);
        let used = sums.iter().map(|(site, usage)| {
            let so_far = usage.cpu_us;
            // Of a worker that has ended its time is gone with it. Who had none has used all of it since then.
            let before = before.get(site).copied().unwrap_or_default();
            let lately = so_far.saturating_sub(before.so_far);
            (*site, Used { so_far, lately, processes: usage.processes })
        });
        self.used = used.collect();
    }

    /// Nobody is behind anybody any more.
    pub(super) fn free_all(&self) {
        self.held.values().filter(|held| held.is_behind).for_each(|held| drop(held.group.set(false)));
    }
}

impl Held {
    /// Behind others, or not, as its account says.
    fn settle(&mut self) -> io::Result<()> {
        let wanted = self.account.has_more();
        // What is so is said again: `cellwall apply` frees a group to give it another weight.
        if wanted || self.is_behind {
            self.group.set(wanted)?;
        }
        self.is_behind = wanted;
        Ok(())
    }
}

impl Supervisor {
    /// A site computes for long at a time, and others are asked in between.
    pub(super) fn disturbs(&mut self, site: Site) {
        self.pulse();
        let until = Instant::now() + LASTS;
        if let Some(held) = self.behind.held.get_mut(&site) {
            held.until = until;
            return;
        }
        let Some((name, group)) = self.divided_group(site) else { return };
        let (share, used) = self.behind.lately(site, group.weight);
        let mut account = Account::default();
        account.book(share, used);
        // It has computed for long at a time, and taken nothing from anybody.
        if !account.has_more() {
            return;
        }
        let mut held = Held { group, account, until, is_behind: false };
        let more = match held.settle() {
            Ok(()) => format!("used_ms={} share_ms={}", used / 1000, share / 1000),
            // Another kernel, or nothing that divides the processors.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(why) => format!("state=absent why=\"{why}\""),
        };
        self.behind.held.insert(site, held);
        self.journal.say("behind", &name, &more);
    }

    /// The site's name, and the control group that divides the processors.
    fn divided_group(&self, site: Site) -> Option<(Vec<u8>, Group)> {
        let pool = self.pools.get(&site)?;
        let settings = settings::settings(&pool.record).ok()?;
        Some((pool.name.clone(), Group::of(&settings)?))
    }

    /// Once a second: who is behind others, and who has had less than its share by that.
    pub(super) fn weigh(&mut self, sums: &BTreeMap<Site, Usage>) {
        let now = Instant::now();
        self.behind.count(sums, now);
        for (site, mut held) in std::mem::take(&mut self.behind.held) {
            // Its weight may be another one by now.
            let group = self.divided_group(site).map(|(_, group)| group);
            match group.filter(|group| group.directory == held.group.directory && now < held.until) {
                None => drop(held.group.set(false)),
                Some(group) => {
                    held.group = group;
                    let (share, used) = self.behind.lately(site, held.group.weight);
                    held.account.book(share, used);
                    // One that cannot be set stays as it is: that was said when it was tried first.
                    drop(held.settle());
                    self.behind.held.insert(site, held);
                }
            }
        }
    }
}

impl Group {
    fn of(settings: &Settings<'_>) -> Option<Self> {
        let (directory, weight) = (Path::new(OsStr::from_bytes(settings.cpu_directory)), settings.cpu_weight);
        let there = !settings.cpu_directory.is_empty();
        there.then(|| Self { directory: directory.to_owned(), weight: weight.into() })
    }

    /// Behind others or beside them. The kernel takes the weight of an idle group away, and gives it the ordinary one afterwards
    /// (`sched_group_set_idle` in kernel/sched/fair.c).
    fn set(&self, behind: bool) -> io::Result<()> {
        self.write("cpu.idle", if behind { "1" } else { "0" })?;
        if behind {
            return Ok(());
        }
        match self.write("cpu.weight", &self.weight.to_string()) {
            // As `config::limits` writes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.write("cpu.shares", &(self.weight.saturating_mul(1024) / 100).max(2).to_string())
            }
            done => done,
        }
    }

    /// Only into a file that is there: a directory that is none of the kernel's gets none.
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(self.directory.join(file))?.write_all(value.as_bytes())
    }
}

/// Frees a site that a killed daemon left behind others: the new one's account of it begins with nothing.
pub(super) fn free(settings: &Settings<'_>) {
    let Some(group) = Group::of(settings) else { return };
    if fs::read(group.directory.join("cpu.idle")).is_ok_and(|idle| idle.starts_with(b"1")) {
        drop(group.set(false));
    }
}

/// What everybody weighs.
const ORDINARY: u64 = 100;
/// So many periods' share is the most that a site can be owed, or have had too much.
const PERIODS: i64 = 5;
/// Another site computes that has used this part of one processor's time: a twentieth.
const PART_OF_MUCH: u64 = 20;
/// After the broker's word. The next one comes a second later, as long as there is a reason.
const LASTS: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_share_is_by_weight_beside_one_other_at_least() {
        assert_eq!(
            share(SECOND, 2, 100, 0),
            SECOND,
            "half of two processors, though nobody else computes now"
        );
        assert_eq!(share(SECOND, 2, 100, 1), SECOND);
        assert_eq!(share(SECOND, 4, 100, 3), SECOND);
        assert_eq!(share(SECOND, 2, 10, 1), 2 * SECOND / 11);
        assert_eq!(share(SECOND, 1, 10_000, 0), SECOND * 100 / 101);
        assert_eq!(share(0, 2, 100, 1), 0, "no time has passed");
        assert_eq!(share(u64::MAX, u64::MAX, u64::MAX, u64::MAX), 1, "no overflow");
    }

    #[test]
    fn who_has_had_more_than_his_share_has_it_until_he_has_had_less() {
        let mut account = Account::default();
        assert!(!account.has_more(), "nothing is known yet");
        account.book(100, 100);
        assert!(!account.has_more(), "just his share");
        account.book(100, 250);
        assert!(account.has_more());
        account.book(100, 0);
        assert!(account.has_more(), "150 too much, and 100 of it paid");
        account.book(100, 50);
        assert!(!account.has_more());
    }

    #[test]
    fn a_long_time_of_too_much_or_of_nothing_is_five_periods() {
        let mut account = Account::default();
        (0..1000).for_each(|_| account.book(100, 2000));
        (0..4).for_each(|_| account.book(100, 0));
        assert!(account.has_more());
        account.book(100, 0);
        assert!(!account.has_more());
        (0..1000).for_each(|_| account.book(100, 0));
        (0..5).for_each(|_| account.book(100, 200));
        assert!(!account.has_more());
        account.book(100, 101);
        assert!(account.has_more());
        account.book(u64::MAX, u64::MAX);
        account.book(0, u64::MAX);
        assert!(!account.has_more(), "of no share nothing is remembered, and nothing overflows");
    }

    #[test]
    fn what_a_site_used_lately_is_what_it_has_more_than_before() {
        let mut behind = Behind::new();
        let (site, other) = (Site(1), Site(2));
        let begun = behind.counted_at;
        let mut count = |seconds: u64, used: [u64; 2]| {
            let usage = |cpu_us| Usage { cpu_us, ..Usage::default() };
            let sums = BTreeMap::from([(site, usage(used[0])), (other, usage(used[1]))]);
            behind.count(&sums, begun + Duration::from_secs(seconds));
            let processors = u64::try_from(available_parallelism().unwrap().get()).unwrap();
            let (share, lately) = behind.lately(site, 100);
            (share * 2 / processors, lately)
        };
        assert_eq!(count(1, [500, 900]), (SECOND, 500), "it had no worker before");
        assert_eq!(count(2, [800, 900]), (SECOND, 300));
        assert_eq!(count(4, [900, 900]), (2 * SECOND, 100), "a late second is a long one");
        assert_eq!(
            count(5, [100, SECOND]),
            (SECOND, 0),
            "a worker took its time with it; one other computes"
        );
        assert_eq!(behind.lately(other, 100).1, SECOND - 900);
    }

    #[test]
    fn others_that_compute_have_shares_too() {
        let mut behind = Behind::new();
        let begun = behind.counted_at;
        let usage = |cpu_us| Usage { cpu_us, ..Usage::default() };
        let sums = |of: [u64; 4]| (1..).map(Site).zip(of.map(usage)).collect::<BTreeMap<_, _>>();
        behind.count(&sums([0; 4]), begun);
        let much = SECOND / PART_OF_MUCH;
        behind.count(&sums([SECOND, much, much, much - 1]), begun + Duration::from_secs(1));
        let processors = u64::try_from(available_parallelism().unwrap().get()).unwrap();
        assert_eq!(behind.lately(Site(1), 100), (share(SECOND, processors, 100, 2), SECOND));
    }
}
