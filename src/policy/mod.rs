//! The policy: what a launch may do, as plain data with every name resolved to a number.
//!
//! `cellwall apply` writes one [`Record`] for each uid and one [`Host`] for the requests that no record answers.
//! The launcher reads exactly one of them. All byte fields borrow from the buffer that the file was read into;
//! nothing here is parsed text. Units are in the field's name or its comment.
//!
//! May not: know TOML, the name service, or where a value came from.

pub mod decode;
#[cfg(feature = "admin")]
pub mod encode;
pub mod names;
pub mod read;

use std::ffi::CStr;

/// Where `cellwall apply` leaves the records and the launcher finds them.
pub const DIRECTORY: &str = "/var/lib/cellwall/policy";
/// The file name, inside [`DIRECTORY`], of the record for requests that name no known uid.
pub const HOST_FILE: &str = "host";
/// The local accounts, passwd(5).
pub const PASSWD: &str = "/etc/passwd";
/// An empty file whose modification time is that of the last change (ctime) of [`PASSWD`] that a whole `apply` has seen.
pub const ACCOUNTS_STAMP: &str = "/var/lib/cellwall/policy/accounts";
/// Where prebuilt views are pinned: `<DIRECTORY>/<id>-<stamp>`, 16 hexadecimal digits each.
pub const VIEW_DIRECTORY: &str = "/run/cellwall/views";
/// How the name of a kept view's second file ends: its objects of System V, where the first one is its mounts.
pub const OBJECTS: &str = ".ipc";
/// An empty directory that `apply` keeps; the root of a view is mounted on it inside the view's own namespace.
pub const VIEW_ROOT: &str = "/var/lib/cellwall/root";
/// How a [`StepKind::Memory`] is mounted. An empty file takes none of the size, and a kilobyte of the kernel's own memory.
pub const MEMORY: &CStr = c"mode=1777,size=64m,nr_inodes=16k";
/// Directories that belong to a site alone (its /tmp, its sessions): `<PRIVATE>/<uid>/<site>/<name>`.
pub const PRIVATE_DIRECTORY: &str = "/var/lib/cellwall/private";

/// What `cellwall.toml` says for every site; a copy stands in each record, so that a launch reads one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    /// Real uids that may call the launcher.
    pub callers: Vec<u32>,
    /// The name of the first of them, for `-V`.
    pub caller_name: &'a [u8],
    /// Smallest uid that may be a target.
    pub uid_min: u32,
    /// Smallest gid that may be a target's primary group.
    pub gid_min: u32,
    /// Every docroot of every site lies beneath this directory (`AP_DOC_ROOT` of `-V`).
    pub docroot: &'a [u8],
    /// The directory below a home that `~user` requests use; empty: no such requests.
    pub userdir: &'a [u8],
    /// PATH of `-V`.
    pub safe_path: &'a [u8],
    /// Mode bits of `-V`; each site has its own.
    pub umask: u16,
    /// Where records go.
    pub log: LogRules<'a>,
}

/// Where records go, and what happens when they cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRules<'a> {
    /// The first choice; the other one is the fallback.
    pub sink: Sink,
    /// The file of [`Sink::File`], absolute.
    pub file: &'a [u8],
    /// No record, no run.
    pub strict: bool,
    /// How a line looks.
    pub format: Format,
}

/// A place for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// The datagram socket /dev/log, facility authpriv.
    Syslog,
    /// An append-only file.
    File,
}

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value`, the project's own.
    Keys,
    /// The lines of Apache's suEXEC, for tools that read them.
    Suexec,
}

/// All that may run as one uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// The host's part.
    pub host: Host<'a>,
    /// Whom the sites run as.
    pub uid: u32,
    /// That uid's name when the policy was applied.
    pub user: &'a [u8],
    /// That name stood in [`PASSWD`] then, and must at each launch.
    pub listed: bool,
    /// Sites in the order in which they are tried: the longest docroot first.
    pub sites: Vec<Site<'a>>,
}

/// One owner's program tree with one identity, one jail, one set of rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Site<'a> {
    /// The site's name: its file without `.toml`, or `~user`.
    pub name: &'a [u8],
    /// The file that it came from, and that file's modification time in nanoseconds since 1970: a launch with a
    /// younger source is recorded as stale.
    pub source: Source<'a>,
    /// Whom it becomes.
    pub identity: Identity<'a>,
    /// Directories whose programs may run, absolute, beneath the host's docroot.
    pub docroots: Vec<&'a [u8]>,
    /// This site answers requests whose user was given as `~uid`, and no others.
    pub userdir: bool,
    /// Programs outside the docroots that root owns and that may run as they stand, absolute.
    pub programs: Vec<&'a [u8]>,
    /// Interpreters by file name ending.
    pub handlers: Vec<Handler<'a>>,
    /// What symbolic links below the docroot may do.
    pub links: Links,
    /// A program may have more than one hard link.
    pub hard_links: bool,
    /// Interpreters that a `#!` line may name, absolute; empty: any that root owns.
    pub interpreters: Vec<&'a [u8]>,
    /// The private part of the file system.
    pub jail: Jail<'a>,
    /// The rule set of the kernel's Landlock.
    pub landlock: Landlock<'a>,
    /// The seccomp program: `struct sock_filter`s in the machine's byte order; empty: none.
    pub seccomp: &'a [u8],
    /// Denied system calls, and what Landlock denies, are written to the kernel log.
    pub log_denials: bool,
    /// Set-id mail programs must work: no_new_privs stays off, Landlock and seccomp are sealed by root.
    pub set_id_mail: bool,
    /// Limits of every kind.
    pub limits: Limits<'a>,
    /// What of the environment passes, and what is set.
    pub environment: Environment<'a>,
}

impl Site<'_> {
    /// Whose files its programs are, when it runs as `uid`.
    #[must_use]
    pub fn owner(&self, uid: u32) -> u32 {
        self.identity.code_owner.unwrap_or(uid)
    }
}

/// The file behind a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source<'a> {
    /// Absolute path; empty: none to look at.
    pub path: &'a [u8],
    /// Modification time, nanoseconds since 1970.
    pub modified: u64,
}

/// Whom a site becomes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity<'a> {
    /// Primary group.
    pub gid: u32,
    /// Its name.
    pub group: &'a [u8],
    /// Supplementary groups, complete.
    pub groups: Vec<u32>,
    /// Home directory, absolute.
    pub home: &'a [u8],
    /// Whose files the site's programs are, instead of the site's own user; none: its own. Another account deploys them,
    /// and the running program cannot change them.
    pub code_owner: Option<u32>,
    /// Inode of the home directory when the policy was applied; 0: not bound. A uid that was given to somebody
    /// else has another home.
    pub home_inode: u64,
    /// When that directory was made, nanoseconds since 1970: an inode's number is given again. 0: its file system does
    /// not tell.
    pub home_born: u64,
}

/// An interpreter for files with one ending.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handler<'a> {
    /// The ending with its dot: `.php`.
    pub suffix: &'a [u8],
    /// The interpreter, absolute, and its fixed words.
    pub command: Vec<&'a [u8]>,
}

/// What symbolic links below the docroot may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Links {
    /// None is followed.
    Deny,
    /// A link that root or the site owns is followed when its target's owner is the link's owner or root.
    OwnerMatch,
}

/// The private part of the file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Jail<'a> {
    /// The host's own root.
    Host,
    /// A private mount namespace.
    View(View<'a>),
    /// A directory that the administrator keeps, absolute.
    Chroot(&'a [u8]),
}

/// How a private mount namespace is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View<'a> {
    /// A hash of all the steps and of the uid: the first half of the pinned view's name.
    pub id: u64,
    /// What is mounted, in order.
    pub steps: Vec<Step<'a>>,
}

/// One thing inside a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step<'a> {
    /// What it is.
    pub kind: StepKind,
    /// [`StepKind::Link`]: the text of the link. Binds: the absolute path outside. Others: empty.
    pub source: &'a [u8],
    /// The absolute path inside. Parents are made as needed, root's, mode 0755.
    pub target: &'a [u8],
    /// See the constants of [`Step`]. Ignored for links and directories.
    pub flags: u8,
}

impl Step<'_> {
    /// Not writable through this mount.
    pub const READ_ONLY: u8 = 1;
    /// No device files.
    pub const NO_DEVICES: u8 = 2;
    /// No program can be started from it.
    pub const NO_EXEC: u8 = 4;
    /// Set-id bits mean nothing.
    pub const NO_SET_ID: u8 = 8;
    /// A missing source is left out instead of refused.
    pub const OPTIONAL: u8 = 16;
    /// The source's last component may be another's than root's: the site's, or a service's. Otherwise it is root's all
    /// the way.
    pub const SITE: u8 = 32;
    /// Not the source, but the first directory on the way from it to the target that is not root's, or the target itself. Nothing of
    /// all that was there when the policy was made.
    pub const DEEPER: u8 = 64;
    /// Every known flag.
    pub const ALL: u8 = 127;
}

/// The kinds of [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// An empty directory of root's, mode 0755.
    Directory,
    /// A symbolic link.
    Link,
    /// A directory of the host.
    BindDirectory,
    /// A file or device of the host.
    BindFile,
    /// An empty file system in memory, mode 1777, at most 64 MiB and 16,384 files.
    Memory,
    /// A process file system that shows the caller's own processes only.
    Processes,
}

/// The rule set of Landlock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Landlock<'a> {
    /// What happens on kernels without it.
    pub mode: Enforcement,
    /// Smallest ABI that will do when `mode` is [`Enforcement::Required`].
    pub abi_min: u8,
    /// Paths and rights; all else is denied.
    pub rules: Vec<PathRule<'a>>,
    /// TCP ports that may be connected to; none: not restricted.
    pub connect: Option<Vec<u16>>,
    /// TCP ports that may be bound; none: not restricted.
    pub bind: Option<Vec<u16>>,
    /// Signals and abstract sockets stay inside the cell (ABI 6).
    pub scoped: bool,
}

/// What happens where the kernel lacks a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// Not asked for.
    Off,
    /// As much as there is; the record says how much.
    BestEffort,
    /// Refuse.
    Required,
}

/// A path with rights, seen from inside the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathRule<'a> {
    /// Absolute, inside the jail. Symbolic links in it are not followed.
    pub path: &'a [u8],
    /// See the constants of [`PathRule`].
    pub rights: u8,
}

impl PathRule<'_> {
    /// Read files and list directories.
    pub const READ: u8 = 1;
    /// Start programs.
    pub const EXECUTE: u8 = 2;
    /// Write, create, remove, rename, truncate.
    pub const WRITE: u8 = 4;
    /// A missing path is left out instead of refused.
    pub const OPTIONAL: u8 = 8;
    /// Control calls on device files (ABI 5).
    pub const CONTROL: u8 = 16;
    /// Every known bit.
    pub const ALL: u8 = 31;
}

/// Limits of every kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits<'a> {
    /// Resource limits; what is not named gets the launcher's own fixed table. The one of addresses is for launches that have
    /// no control group that holds memory.
    pub resources: Vec<Resource>,
    /// File mode bits taken away.
    pub umask: u16,
    /// -20 to 19.
    pub nice: i8,
    /// -1000 to 1000.
    pub oom_score: i16,
    /// Seconds of wall-clock time until SIGALRM; 0: none. It ends the program itself, not its children.
    pub wall_seconds: u32,
    /// Control groups to enter, one for each hierarchy.
    pub groups: Vec<ControlGroup<'a>>,
    /// Refuse when a control group cannot be entered.
    pub groups_required: bool,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource {
    /// The kernel's number (`RLIMIT_CPU` is 0).
    pub number: u8,
    /// In the unit of the resource; `u64::MAX`: unlimited. Soft and hard alike.
    pub value: u64,
}

/// The kernel's numbers (asm-generic/resource.h), the same on every architecture that the launcher is built for.
impl Resource {
    /// Seconds of processor time of a process.
    pub const CPU: u8 = 0;
    /// Bytes of a file that is written.
    pub const FILE_SIZE: u8 = 1;
    /// Bytes of a heap.
    pub const DATA: u8 = 2;
    /// Bytes of a stack.
    pub const STACK: u8 = 3;
    /// Bytes of a core dump.
    pub const CORE: u8 = 4;
    /// Processes of a user.
    pub const PROCESSES: u8 = 6;
    /// One more than the highest descriptor.
    pub const OPEN_FILES: u8 = 7;
    /// Bytes of an address space.
    pub const ADDRESS_SPACE: u8 = 9;
}

/// A control group of version 1 or 2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ControlGroup<'a> {
    /// 1 or 2.
    pub version: u8,
    /// Its directory, absolute; made when missing.
    pub directory: &'a [u8],
    /// File names in it and what is written there when it is made.
    pub settings: Vec<(&'a [u8], &'a [u8])>,
}

impl ControlGroup<'_> {
    /// The sticky bit of the file by which a group is entered (`tasks`, `cgroup.procs`): all its settings are in force. A new
    /// group's has none, and for a file it means nothing else (chmod(2)).
    pub const IS_SET: u32 = 0o1000;

    /// It limits the memory of all that is in it together.
    #[must_use]
    pub fn holds_memory(&self) -> bool {
        self.settings.iter().any(|(file, _)| file.starts_with(b"memory."))
    }
}

/// What of the caller's environment passes, and what is set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Environment<'a> {
    /// Exact names, in any order: a launch looks through all.
    pub pass: Vec<&'a [u8]>,
    /// Beginnings of names (`HTTP_`).
    pub pass_prefixes: Vec<&'a [u8]>,
    /// `HTTP_AUTHORIZATION` and `HTTP_PROXY_AUTHORIZATION` pass.
    pub authorization: bool,
    /// Names and values that the policy sets; they come first and win.
    pub set: Vec<(&'a [u8], &'a [u8])>,
    /// Most entries that the caller may hand over.
    pub entries_max: u16,
    /// Most bytes that they may have together.
    pub bytes_max: u32,
}

#[cfg(test)]
pub(crate) mod tests;
