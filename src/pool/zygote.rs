//! A process that waits in a site's cell, sealed, and starts the site's CGI programs there, one after another.
//!
//! A program of its own from the start (`cellwalld --zygote`), so that nothing of the supervisor's memory is in it. It enters
//! the cell by the launch pipeline as a worker does; what the pipeline does for each program it does for each order anew
//! ([`crate::launch::settled`]). The name is Chromium's.
//!
//! ```text
//!  supervisor ── order: environment, descriptors 0 to 2 ──▶ zygote ── fork, exec ──▶ program
//!             ◀───────── report: how it ended ────────────         ◀── its end ─────
//! ```
//! It is of the site's uid and its programs may end it, which the supervisor sees; they cannot look into it, nor take what it
//! holds: it is not dumpable (prctl(2)). Whatever it is told that it does not understand ends it.
//!
//! May not: take an order that it would carry out with rules of yesterday: such a one is left for the next zygote.

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, getpid, setsid};

use crate::launch::arrival::DEADLINE_SECONDS;
use crate::launch::authorize::bad_policy;
use crate::launch::request::Request;
use crate::launch::settled::{self, Settled};
use crate::launch::{FAILED, refuse};
use crate::policy::{ControlGroup, Record, Resource, Site, decode};
use crate::record::Log;
use crate::refusal::{Card, Refusal};
use crate::sys::{Root, descriptors, fork, process};

use super::child::{arrive, group, numbers, site_of, with_eyes_of};
use super::script::{entries, script};
use super::settings::{self, Settings};

/// What a zygote is started with.
#[derive(Debug)]
pub struct Birth {
    /// Whose programs it starts.
    pub uid: u32,
    /// The supervisor, with which it ends.
    pub daemon: Pid,
    /// The control group that holds its whole tree, which it is not in yet; empty: none.
    pub tree: Vec<u8>,
    /// That group is there, and the site's own one above it with the site's limits.
    pub prepared: bool,
}

/// How a program ended: all that a zygote ever says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// In which way.
    pub how: How,
    /// Its status, the signal's number, or the refusal's status.
    pub code: u8,
    /// It has left something running.
    pub rest: bool,
}

/// See [`Report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By itself.
    Exited,
    /// By a signal.
    Signalled,
    /// It was not started.
    Refused,
}

impl Report {
    /// As it is sent.
    #[must_use]
    pub fn encode(self) -> [u8; 3] {
        let how = match self.how {
            How::Exited => 0,
            How::Signalled => 1,
            How::Refused => 2,
        };
        [how, self.code, self.rest.into()]
    }

    /// As it was sent. None: it is nonsense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [how, code, rest] = *bytes else { return None };
        let how = match how {
            0 => How::Exited,
            1 => How::Signalled,
            2 => How::Refused,
            _ => return None,
        };
        (rest <= 1).then_some(Self { how, code, rest: rest == 1 })
    }
}

/// Between fork and exec in the supervisor's child: becomes a zygote. `channel` and the settings' record are its descriptors 0
/// and 1. Returns only to fail.
pub fn hatch(birth: &Birth, site: &[u8], channel: &OwnedFd, record: &OwnedFd) -> Errno {
    let become_one = || {
        setsid()?;
        dup2_stdin(channel)?;
        dup2_stdout(record)?;
        descriptors::keep_only(&[])?;
        let Birth { uid, daemon, tree, prepared } = birth;
        let name = [b"cellwalld: cgi ", site].concat();
        let prepared = u8::from(*prepared).to_string();
        let (uid, daemon) = (uid.to_string(), daemon.to_string());
        let words = [&name, &b"--zygote"[..], uid.as_bytes(), daemon.as_bytes(), prepared.as_bytes(), tree];
        let words = words.map(|word| CString::new(word).unwrap_or_default());
        let nothing: [CString; 0] = [];
        execve(c"/proc/self/exe", &words, &nothing)
    };
    let Err(errno) = become_one();
    errno
}

/// What a zygote has of its supervisor.
struct Post {
    channel: OwnedFd,
    null: OwnedFd,
}

/// An order: the environment's file, and the three descriptors of the program.
type Order = [OwnedFd; 4];

/// Serves until the supervisor is gone or something is not as it should be.
#[must_use]
pub fn serve(birth: &Birth) -> ExitCode {
    let _ = prctl::set_name(c"cellwall-zygote");
    let served = take().is_ok_and(|(post, record)| hear(birth, &post, &record).is_ok());
    if served { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn take() -> std::io::Result<(Post, Vec<u8>)> {
    let (standard, record) = (descriptors::inherited(0)?, descriptors::inherited(1)?);
    let channel = standard.try_clone()?;
    let null = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/null")?);
    let mut bytes = Vec::new();
    let mut file = File::from(record.try_clone()?);
    std::io::Seek::rewind(&mut file)?;
    file.read_to_end(&mut bytes)?;
    let post = Post { channel, null };
    post.silence()?;
    // The call before has put /dev/null in their places, which stay open.
    std::mem::forget((standard, record));
    Ok((post, bytes))
}

/// Why a zygote ends: the supervisor is told by that alone.
struct Over;

impl From<Errno> for Over {
    fn from(_: Errno) -> Self {
        Self
    }
}

fn hear(birth: &Birth, post: &Post, record: &[u8]) -> Result<(), Over> {
    let settings = settings::settings(record).map_err(|_| Over)?;
    let plain = |refusal| post.decline(&refusal, &mut Log::open(None));
    let (root, bytes) = match arrive(birth.uid) {
        Ok(arrived) => arrived,
        Err(refusal) => return plain(refusal),
    };
    let policy = match decode::record(&bytes) {
        Ok(policy) => policy,
        Err(why) => return plain(bad_policy(&why)),
    };
    let mut log = Log::open(Some(&policy.host.log));
    let site = match site_of(&policy, settings.name) {
        Ok(site) => site,
        Err(refusal) => return post.decline(&refusal, &mut log),
    };
    log.about(site);
    let (cell, own) = cell(&settings, birth, &policy, site);
    let Some(site) = cell.sites.first() else { return Err(Over) };
    match settle(&cell, site, birth, root) {
        Ok(settled) => Nest { post, settled, cell: &cell, site, own }.serve(&mut log),
        Err(refusal) => post.decline(&refusal, &mut log),
    }
}

fn settle<'a>(
    cell: &'a Record<'a>,
    site: &'a Site<'a>,
    birth: &Birth,
    root: Root,
) -> Result<Settled<'a>, Refusal> {
    let ways = with_eyes_of(site, cell.uid, || Ok(settled::ways(cell.uid, site)))?;
    settled::settle(cell, site, ways, birth.daemon, root)
}

/// The policy as far as this zygote is concerned: this site alone; and the limits that are a program's own and not its.
fn cell<'a>(
    settings: &Settings<'a>,
    birth: &'a Birth,
    policy: &Record<'a>,
    site: &Site<'a>,
) -> (Record<'a>, Vec<Resource>) {
    let mut site = site.clone();
    if !birth.tree.is_empty() {
        if birth.prepared {
            let entered: Vec<_> = site.limits.groups.extract_if(.., |group| group.version == 2).collect();
            if entered.iter().any(ControlGroup::holds_memory) {
                site.limits.resources.retain(|limit| limit.number != Resource::ADDRESS_SPACE);
            }
        }
        site.limits.groups.push(group(&birth.tree));
    }
    let is_own = |limit: &Resource| [Resource::CPU, Resource::PROCESSES].contains(&limit.number);
    let mut own: Vec<Resource> = site.limits.resources.extract_if(.., |limit| is_own(limit)).collect();
    if settings.request.cpu_ms > 0 {
        // The whole tree is measured by the supervisor, once a second. The kernel does it for each process, in whole seconds,
        // and a little later, so that the visitor is told why.
        let seconds = u64::from(settings.request.cpu_ms.div_ceil(1000)).saturating_add(KERNELS_SECONDS);
        match own.iter_mut().find(|limit| limit.number == Resource::CPU) {
            Some(limit) => limit.value = limit.value.min(seconds),
            None => own.push(Resource { number: Resource::CPU, value: seconds }),
        }
    }
    (Record { sites: vec![site], ..policy.clone() }, own)
}

impl Post {
    /// Waits for an order, without taking it. False: the supervisor is gone.
    fn is_asked(&self) -> Result<bool, Over> {
        use std::os::fd::AsRawFd as _;
        let mut byte = [0; 1];
        loop {
            match recv(self.channel.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK) {
                Err(Errno::EINTR) => {}
                other => return Ok(other? > 0),
            }
        }
    }

    /// And how many zygotes the site has.
    fn order(&self) -> Result<(u8, Order), Over> {
        let mut zygotes = [0; 1];
        let (_, order) = descriptors::receive(&self.channel, &mut zygotes)?;
        let [zygotes] = zygotes;
        Ok((zygotes, order.try_into().map_err(|_| Over)?))
    }

    fn report(&self, how: How, code: u8, rest: bool) -> Result<(), Over> {
        Ok(descriptors::send(&self.channel, &Report { how, code, rest }.encode(), &[])?)
    }

    /// What an order was given is not held any longer.
    fn silence(&self) -> Result<(), Errno> {
        dup2_stdin(&self.null)?;
        dup2_stdout(&self.null)?;
        dup2_stderr(&self.null)
    }

    /// Tells the first visitor, and ends: the next zygote may fare better.
    fn decline(&self, refusal: &Refusal, log: &mut Log<'_>) -> Result<(), Over> {
        if !self.is_asked()? {
            return Ok(());
        }
        let (_, [_, input, output, errors]) = self.order()?;
        adopt([input, output, errors])?;
        let status = refuse(refusal, log, Some(FAILED));
        self.silence()?;
        self.report(How::Refused, status, false)
    }
}

/// Makes them the standard ones.
fn adopt([input, output, errors]: [OwnedFd; 3]) -> Result<(), Errno> {
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(errors)
}

/// A zygote in its cell.
struct Nest<'a> {
    post: &'a Post,
    settled: Settled<'a>,
    cell: &'a Record<'a>,
    site: &'a Site<'a>,
    /// Limits of each program.
    own: Vec<Resource>,
}

impl Nest<'_> {
    fn serve(&self, log: &mut Log<'_>) -> Result<(), Over> {
        let mut stack = vec![0; STACK];
        for number in 0..PROGRAMS {
            process::set_alarm(0)?;
            if !self.post.is_asked()? {
                return Ok(());
            }
            // As for a launch of its own, for each order.
            process::set_alarm(DEADLINE_SECONDS)?;
            // The first comes as soon after the rules were read as in any launch.
            if number > 0 && !self.settled.is_fresh() {
                return Ok(());
            }
            let (zygotes, [environment, input, output, errors]) = self.post.order()?;
            adopt([input, output, errors])?;
            log.renew();
            let mut page = FAILED;
            let started = self.start(&environment, zygotes, &mut stack, log, &mut page);
            drop(environment);
            let (how, code) = match started {
                Ok(program) => {
                    self.post.silence()?;
                    process::set_alarm(0)?;
                    wait_for(program)?
                }
                Err(refusal) => {
                    let status = refuse(&refusal, log, Some(page));
                    self.post.silence()?;
                    (How::Refused, status)
                }
            };
            // One that waits keeps no file system from being unmounted.
            chdir(c"/")?;
            self.post.report(how, code, is_something_left()?)?;
        }
        Ok(())
    }

    /// One program, which runs when this returns. `page`: what is shown where it does not.
    fn start(
        &self,
        environment: &OwnedFd,
        zygotes: u8,
        stack: &mut [u128],
        log: &mut Log<'_>,
        page: &mut &str,
    ) -> Result<Pid, Refusal> {
        let mut environment = entries(environment)?;
        let command = script(&mut environment, &self.settled, page)?;
        // Between zero bytes there is none, and a path that was put in is plain.
        let environment: Vec<CString> = environment.into_iter().flat_map(CString::new).collect();
        let (uid, gid) = numbers(self.cell.uid, self.site);
        let mut words = vec![OsStr::new(&uid), OsStr::new(&gid)];
        words.extend(command.iter().map(|word| OsStr::from_bytes(word)));
        let caller = self.cell.host.callers.first().copied().unwrap_or(u32::MAX);
        log.asked(caller, &words);
        let entries = environment.iter().map(CString::as_c_str).collect();
        let arrival = self.settled.arrival(caller, entries);
        let request = Request::parse(&words)?;
        let sealed = self.settled.prepare(&arrival, &request)?;
        // The kernel counts all processes of the uid, and zygotes are none of the site's.
        let more = |limit: &Resource| if limit.number == Resource::PROCESSES { zygotes.into() } else { 0 };
        let own: Vec<Resource> = self
            .own
            .iter()
            .map(|limit| Resource { value: limit.value.saturating_add(more(limit)), ..*limit })
            .collect();
        let (mut refused, me) = (None, getpid());
        let program = fork::fork_sharing(stack, &mut || {
            let Err(refusal) = settled::begin(&sealed, &own, me, log);
            refused = Some(refusal);
            NOT_STARTED
        })
        .map_err(|errno| Refusal::call(&NO_PROCESS, "clone", errno))?;
        match refused {
            None => Ok(program),
            Some(refusal) => {
                // It has ended, or is about to.
                let _ = fork::reap(program);
                Err(refusal)
            }
        }
    }
}

/// Waits for a program, and buries what becomes this process's child meanwhile: whatever it starts, however it leaves it.
fn wait_for(program: Pid) -> Result<(How, u8), Errno> {
    loop {
        let end = match fork::wait_for_end() {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if end.child == program {
            // Until it is reaped its number means its process group.
            let _ = killpg(program, Signal::SIGKILL);
        }
        fork::reap(end.child)?;
        if end.child == program {
            return Ok((if end.by_signal { How::Signalled } else { How::Exited }, end.code));
        }
    }
}

/// A descendant that lives is a child of this process, or has an ancestor that is.
fn is_something_left() -> Result<bool, Errno> {
    loop {
        match fork::reap_any() {
            Ok(None) => return Ok(true),
            Ok(Some(_)) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
}

/// Words of 16 bytes: what a child needs that writes a record and becomes a program.
const STACK: usize = (256 << 10) / size_of::<u128>();
/// So many programs one zygote starts: what a child held when it became a program is lost here, some hundred bytes each; and a
/// program may have changed its zygote's limits and priorities.
const PROGRAMS: u32 = 1000;
/// The kernel's limit is so much larger than the measured one.
const KERNELS_SECONDS: u64 = 3;
/// The status of a child that has told why in memory.
const NOT_STARTED: u8 = 81;

static NO_PROCESS: Card = Card {
    code: "S12",
    status: 88,
    remedy: "# raise processes in the site's [limits], then: cellwall apply",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_as_it_was_sent_and_nothing_else_is_one() {
        for how in [How::Exited, How::Signalled, How::Refused] {
            for (code, rest) in [(0, false), (255, true)] {
                let report = Report { how, code, rest };
                assert_eq!(Report::decode(&report.encode()), Some(report));
            }
        }
        for bytes in [&b""[..], b"\0\0", b"\0\0\0\0", b"\x03\0\0", b"\0\0\x02"] {
            assert_eq!(Report::decode(bytes), None, "{bytes:?}");
        }
    }
}
