//! CGI programs: one launch for each request.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::sys::fork::{End, Side};

use super::super::child::{self, Order};
use super::super::settings::{self, Kind};
use super::super::tree::Tree;
use super::super::wire::{Busy, Down, Ended, Site, Token};
use super::{Process, Supervisor, Timer};

/// A program that runs.
pub(super) struct Run {
    pub(super) site: Site,
    pub(super) tree: Tree,
    pub(super) since: Instant,
    told: bool,
    report: OwnedFd,
}

impl Supervisor {
    /// The broker wants a request's program run; `environment` is not looked at here.
    pub(super) fn run_program(&mut self, site: Site, token: Token, environment: OwnedFd) {
        if self.runs.contains_key(&token) {
            return;
        }
        let answer = match self.start_run(site, token, environment) {
            Ok(ends) => (Down::Started { token, site }, ends),
            Err(why) => (Down::NotStarted { token, site, why }, Vec::new()),
        };
        self.tell_broker(&answer.0, answer.1);
    }

    fn start_run(
        &mut self,
        site: Site,
        token: Token,
        environment: OwnedFd,
    ) -> Result<Vec<Rc<OwnedFd>>, Busy> {
        let pool = self.pools.get(&site).filter(|pool| pool.kind == Kind::Cgi && !pool.paused);
        let pool = pool.filter(|_| self.quit_at.is_none()).ok_or(Busy::Stopped)?;
        let running = self.runs.values().filter(|run| run.site == site).count();
        if u32::try_from(running).map_or(true, |running| running >= pool.numbers.max) {
            return Err(Busy::Full);
        }
        let settings = settings::settings(&pool.record).map_err(|_| Busy::Stopped)?;
        let exhausted = |_: Errno| Busy::Exhausted;
        let (input, input_in) = pipe2(OFlag::O_CLOEXEC).map_err(exhausted)?;
        let (output, output_in) = pipe2(OFlag::O_CLOEXEC).map_err(exhausted)?;
        let (errors, errors_in) = pipe2(OFlag::O_CLOEXEC).map_err(exhausted)?;
        let (report, report_in) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(exhausted)?;
        let ground = self.grove.run(Path::new(OsStr::from_bytes(settings.group_directory)));
        let enter = ground.to_enter();
        let prepared = enter.is_some_and(|(_, prepared)| prepared);
        let enter = enter.map(|(group, _)| group.as_os_str().as_bytes().to_vec());
        let (Side::Parent(pid), Some(tree)) = self.grove.plant(ground).map_err(exhausted)? else {
            child::become_program(Order {
                uid: pool.uid,
                settings: &settings,
                standard: [input, output_in, errors_in],
                environment: Some(environment),
                tree: enter,
                prepared,
                report: report_in,
            })
        };
        self.runs.insert(token, Run { site, tree, since: Instant::now(), told: false, report });
        self.know(pid, Process::Run(token));
        Ok([input_in, output, errors].map(Rc::new).to_vec())
    }

    /// The broker wants a run ended.
    pub(super) fn end_run(&mut self, site: Site, token: Token) {
        if let Some(run) = self.runs.get_mut(&token).filter(|run| run.site == site) {
            run.told = true;
            run.tree.destroy();
            self.after(AGAIN, Timer::Run(token));
        }
    }

    pub(super) fn run_timer(&mut self, token: Token) {
        if let Some(run) = self.runs.get(&token).filter(|run| run.told) {
            run.tree.destroy();
            self.after(AGAIN, Timer::Run(token));
        }
    }

    pub(super) fn run_exited(&mut self, token: Token, end: End) {
        let Some(run) = self.runs.remove(&token) else { return };
        let mut report = [0; 1];
        let refused = nix::unistd::read(&run.report, &mut report) == Ok(1);
        let how = match (refused, run.told, end.by_signal) {
            (true, ..) => Ended::Refused,
            (_, true, _) => Ended::Stopped,
            (_, _, true) => Ended::Signalled,
            (_, _, false) => Ended::Exited,
        };
        self.tell_broker(&Down::RunEnded { token, site: run.site, how, code: end.code.into() }, Vec::new());
        self.bury(run.tree);
    }

    /// A broker has ended, and with it whoever waits for these programs.
    pub(super) fn end_all_runs(&mut self) {
        self.runs.values().for_each(|run| run.tree.destroy());
        // The next broker may give the same tokens.
        let orphans: Vec<Run> = std::mem::take(&mut self.runs).into_values().collect();
        for run in orphans {
            self.processes.remove(&run.tree.pid());
            self.bury(run.tree);
        }
    }
}

/// From one SIGKILL to the next.
const AGAIN: Duration = Duration::from_secs(1);
