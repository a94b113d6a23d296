//! A site after compiling, holding its own text: what [`crate::policy::Site`] borrows from.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy::{
    ControlGroup, Enforcement, Environment, Format, Handler, Host, Identity, Jail, Landlock, Limits, Links,
    LogRules, PathRule, Resource, Sink, Site, Source, Step, StepKind, View,
};

use super::problem::Place;

/// The host's part, with its own text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCell {
    /// Uids that may call.
    pub callers: Vec<u32>,
    /// The first one's name.
    pub caller_name: String,
    /// Smallest uid.
    pub uid_min: u32,
    /// Smallest gid.
    pub gid_min: u32,
    /// Above all docroots.
    pub docroot: PathBuf,
    /// Below homes; empty: none.
    pub userdir: String,
    /// PATH.
    pub safe_path: String,
    /// Mode bits.
    pub umask: u16,
    /// Where records go first.
    pub sink: Sink,
    /// The log file.
    pub log_file: PathBuf,
    /// No record, no run.
    pub strict: bool,
    /// How a record looks.
    pub format: Format,
}

impl HostCell {
    /// The policy's form.
    #[must_use]
    pub fn host(&self) -> Host<'_> {
        Host {
            callers: self.callers.clone(),
            caller_name: self.caller_name.as_bytes(),
            uid_min: self.uid_min,
            gid_min: self.gid_min,
            docroot: bytes(&self.docroot),
            userdir: self.userdir.as_bytes(),
            safe_path: self.safe_path.as_bytes(),
            umask: self.umask,
            log: LogRules {
                sink: self.sink,
                file: bytes(&self.log_file),
                strict: self.strict,
                format: self.format,
            },
        }
    }
}

/// One compiled site.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// Its file and that file's modification time.
    pub source: (PathBuf, u64),
    /// Primary group and its name.
    pub group: (u32, String),
    /// All groups.
    pub groups: Vec<u32>,
    /// Whose files its programs are; none: its own.
    pub code_owner: Option<u32>,
    /// Home directory, its inode and when it was made (nanoseconds since 1970).
    pub home: (PathBuf, (u64, u64)),
    /// Docroots.
    pub docroots: Vec<PathBuf>,
    /// Answers `~user`.
    pub userdir: bool,
    /// Programs outside docroots.
    pub programs: Vec<PathBuf>,
    /// Suffix and command.
    pub handlers: Handlers,
    /// Symbolic links.
    pub links: Links,
    /// Hard links.
    pub hard_links: bool,
    /// Allowed `#!`.
    pub interpreters: Vec<PathBuf>,
    /// The jail.
    pub jail: JailCell,
    /// Landlock's mode, smallest ABI, connect and bind.
    pub landlock: (Enforcement, u8),
    /// Landlock's rules.
    pub rules: Vec<(PathBuf, u8)>,
    /// Ports to connect to, ports to bind.
    pub ports: (Option<Vec<u16>>, Option<Vec<u16>>),
    /// The filter.
    pub seccomp: Arc<[u8]>,
    /// Denials are logged.
    pub log_denials: bool,
    /// Set-id mail programs work.
    pub set_id_mail: bool,
    /// Limits.
    pub limits: LimitsCell,
    /// Exact names, then beginnings.
    pub pass: (Vec<String>, Vec<String>),
    /// HTTP_AUTHORIZATION passes.
    pub authorization: bool,
    /// What is set.
    pub set: Vec<(String, String)>,
    /// Most entries, most bytes.
    pub environment_max: (u16, u32),
    /// Directories that must exist before the record may: name below the site's private directory.
    pub private: Vec<String>,
    /// The text of /etc/passwd and /etc/group inside a view.
    pub accounts: Option<(String, String)>,
    /// Its pool.
    pub pool: Option<PoolCell>,
}

/// The pool of a site.
#[derive(Debug, Clone)]
pub struct PoolCell {
    /// Its record.
    pub record: Vec<u8>,
    /// The line that says where it listens; where none does, the one that gives the site a pool.
    pub place: Place,
}

/// Suffixes and their commands.
pub type Handlers = Vec<(String, Vec<String>)>;

/// The jail of a [`Cell`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JailCell {
    /// The host's root.
    Host,
    /// A view and its id.
    View(u64, Vec<StepCell>),
    /// A kept directory.
    Chroot(PathBuf),
}

/// One step of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCell {
    /// What it is.
    pub kind: StepKind,
    /// Outside, or a link's text.
    pub source: PathBuf,
    /// Inside.
    pub target: PathBuf,
    /// Flags of [`Step`].
    pub flags: u8,
}

/// A control group of a [`Cell`]: version, directory, settings.
pub type GroupCell = (u8, PathBuf, Vec<(String, String)>);

/// Limits of a [`Cell`].
#[derive(Debug, Clone, Default)]
pub struct LimitsCell {
    /// Resource limits.
    pub resources: Vec<Resource>,
    /// Mode bits.
    pub umask: u16,
    /// Priority.
    pub nice: i8,
    /// Out-of-memory score.
    pub oom_score: i16,
    /// Wall-clock time.
    pub wall_seconds: u32,
    /// Control groups.
    pub groups: Vec<GroupCell>,
    /// No run without them.
    pub groups_required: bool,
}

impl Cell {
    /// The policy's form.
    #[must_use]
    pub fn site(&self) -> Site<'_> {
        Site {
            name: self.name.as_bytes(),
            source: Source { path: bytes(&self.source.0), modified: self.source.1 },
            identity: Identity {
                gid: self.group.0,
                group: self.group.1.as_bytes(),
                groups: self.groups.clone(),
                home: bytes(&self.home.0),
                code_owner: self.code_owner,
                home_inode: self.home.1.0,
                home_born: self.home.1.1,
            },
            docroots: paths(&self.docroots),
            userdir: self.userdir,
            programs: paths(&self.programs),
            handlers: self
                .handlers
                .iter()
                .map(|(suffix, command)| Handler { suffix: suffix.as_bytes(), command: texts(command) })
                .collect(),
            links: self.links,
            hard_links: self.hard_links,
            interpreters: paths(&self.interpreters),
            jail: self.jail.jail(),
            landlock: Landlock {
                mode: self.landlock.0,
                abi_min: self.landlock.1,
                rules: self
                    .rules
                    .iter()
                    .map(|(path, rights)| PathRule { path: bytes(path), rights: *rights })
                    .collect(),
                connect: self.ports.0.clone(),
                bind: self.ports.1.clone(),
                scoped: self.landlock.0 != Enforcement::Off,
            },
            seccomp: &self.seccomp,
            log_denials: self.log_denials,
            set_id_mail: self.set_id_mail,
            limits: self.limits.limits(),
            environment: Environment {
                pass: texts(&self.pass.0),
                pass_prefixes: texts(&self.pass.1),
                authorization: self.authorization,
                set: pairs(&self.set),
                entries_max: self.environment_max.0,
                bytes_max: self.environment_max.1,
            },
        }
    }

    /// The length of its longest docroot: the order in which sites are tried.
    #[must_use]
    pub fn longest_docroot(&self) -> usize {
        self.docroots.iter().map(|path| path.as_os_str().len()).max().unwrap_or(0)
    }
}

impl JailCell {
    /// The part of a path of the host's that is not there inside.
    #[must_use]
    pub fn hidden(&self) -> &[u8] {
        match self {
            Self::Chroot(directory) => bytes(directory),
            Self::Host | Self::View(..) => b"",
        }
    }

    fn jail(&self) -> Jail<'_> {
        match self {
            Self::Host => Jail::Host,
            Self::Chroot(directory) => Jail::Chroot(bytes(directory)),
            Self::View(id, steps) => {
                Jail::View(View { id: *id, steps: steps.iter().map(StepCell::step).collect() })
            }
        }
    }
}

impl StepCell {
    fn step(&self) -> Step<'_> {
        Step { kind: self.kind, source: bytes(&self.source), target: bytes(&self.target), flags: self.flags }
    }
}

impl LimitsCell {
    fn limits(&self) -> Limits<'_> {
        Limits {
            resources: self.resources.clone(),
            umask: self.umask,
            nice: self.nice,
            oom_score: self.oom_score,
            wall_seconds: self.wall_seconds,
            groups: self
                .groups
                .iter()
                .map(|(version, directory, settings)| ControlGroup {
                    version: *version,
                    directory: bytes(directory),
                    settings: pairs(settings),
                })
                .collect(),
            groups_required: self.groups_required,
        }
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn paths(paths: &[PathBuf]) -> Vec<&[u8]> {
    paths.iter().map(|path| bytes(path)).collect()
}

fn texts(texts: &[String]) -> Vec<&[u8]> {
    texts.iter().map(String::as_bytes).collect()
}

fn pairs(pairs: &[(String, String)]) -> Vec<(&[u8], &[u8])> {
    pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
}
