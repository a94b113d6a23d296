//! The seccomp list: from `policy/seccomp.baseline` to what is to become of each system call, which `filter` makes a program.
//!
//! Pure. May not: load anything, or know a site.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::syscalls::{self, Known};

mod filter;
#[cfg(test)]
mod tests;

/// What about a site changes its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choices {
    /// The site's TCP ports are restricted: the ways around Landlock's rules are closed too.
    pub tcp_rules: bool,
}

/// Why a list is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// A line outside of any section, with a missing word, or without a reason.
    Line(usize),
    /// A system call that no supported architecture has.
    Call(usize, String),
    /// An argument rule that does not exist.
    Rule(usize, String),
    /// A section that does not exist.
    Section(usize, String),
    /// A call in two sections that exclude each other.
    Twice(usize, String),
    /// More instructions than the kernel takes.
    Long(usize),
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, "line {line}: expected a name and a reason"),
            Self::Call(line, name) => write!(out, "line {line}: `{name}` is no system call"),
            Self::Rule(line, name) => write!(out, "line {line}: `{name}` is no argument rule"),
            Self::Section(line, name) => write!(out, "line {line}: `{name}` is no section"),
            Self::Twice(line, name) => write!(out, "line {line}: `{name}` was denied before"),
            Self::Long(length) => {
                let most = filter::MOST_INSTRUCTIONS;
                write!(out, "{length} instructions are more than the kernel takes ({most})")
            }
        }
    }
}

impl std::error::Error for Mistake {}

/// The shipped list's program: `struct sock_filter`s in the machine's byte order.
///
/// # Errors
/// When the list that is compiled in is wrong, which the tests exclude.
pub fn baseline(choices: Choices) -> Result<Vec<u8>, Mistake> {
    filter::compile(&parse(BASELINE, choices)?)
}

/// [`baseline`], compiled once for all sites of a run.
///
/// # Errors
/// As [`baseline`].
pub fn shared(choices: Choices) -> Result<Arc<[u8]>, Mistake> {
    static PLAIN: OnceLock<Result<Arc<[u8]>, Mistake>> = OnceLock::new();
    static WITH_TCP_RULES: OnceLock<Result<Arc<[u8]>, Mistake>> = OnceLock::new();
    let program = if choices.tcp_rules { &WITH_TCP_RULES } else { &PLAIN };
    program.get_or_init(|| baseline(choices).map(Arc::from)).clone()
}

/// The list, as text.
pub const BASELINE: &str = include_str!("../../../policy/seccomp.baseline");

/// What becomes of one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Allow,
    Answer(i32),
    /// Allowed unless one of the clauses is true.
    Unless(Vec<Clause>),
}

/// True when all its conditions are; then the call is answered with EPERM.
type Clause = &'static [Condition];

/// `(argument & mask)` is one of the values, or is none of them. The kernel looks at 32 bits of all arguments that
/// appear here; a filter that compares 64 is walked around with the upper half (CVE-2019-10063).
#[derive(Debug, PartialEq, Eq)]
struct Condition {
    argument: u32,
    mask: u32,
    values: &'static [u32],
    is_one: bool,
}

fn parse(text: &str, choices: Choices) -> Result<BTreeMap<u32, Verdict>, Mistake> {
    let mut list = BTreeMap::new();
    let mut section = Section::None;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            section = Section::named(line).ok_or_else(|| Mistake::Section(number, line.to_owned()))?;
            continue;
        }
        let (name, rest) = line.split_once(' ').ok_or(Mistake::Line(number))?;
        let call = syscalls::find(name).ok_or_else(|| Mistake::Call(number, name.to_owned()))?;
        let verdict = section.verdict(rest.trim(), number)?;
        let Known::Number(call) = call else { continue };
        if section == Section::ArgumentsWithTcpRules && !choices.tcp_rules {
            continue;
        }
        match (list.get_mut(&call), verdict) {
            (None, verdict) => drop(list.insert(call, verdict)),
            (Some(Verdict::Unless(clauses)), Verdict::Unless(more)) => clauses.extend(more),
            (Some(_), _) => return Err(Mistake::Twice(number, name.to_owned())),
        }
    }
    Ok(list)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    None,
    Answer(i32),
    Arguments,
    ArgumentsWithTcpRules,
    Allowed,
}

impl Section {
    fn named(line: &str) -> Option<Self> {
        match line {
            "[EPERM]" => Some(Self::Answer(libc::EPERM)),
            "[ENOSYS]" => Some(Self::Answer(libc::ENOSYS)),
            "[arguments]" => Some(Self::Arguments),
            "[arguments with tcp rules]" => Some(Self::ArgumentsWithTcpRules),
            "[allowed]" => Some(Self::Allowed),
            _ => None,
        }
    }

    /// Reads what stands behind the name: a reason, or a rule and a reason.
    fn verdict(self, rest: &str, line: usize) -> Result<Verdict, Mistake> {
        match self {
            Self::None => Err(Mistake::Line(line)),
            Self::Answer(_) | Self::Allowed if rest.is_empty() => Err(Mistake::Line(line)),
            Self::Answer(errno) => Ok(Verdict::Answer(errno)),
            Self::Allowed => Ok(Verdict::Allow),
            Self::Arguments | Self::ArgumentsWithTcpRules => {
                let (rule, reason) = rest.split_once(' ').ok_or(Mistake::Line(line))?;
                let found = RULES.iter().find(|(name, _)| *name == rule);
                match found {
                    Some((_, clauses)) if !reason.trim().is_empty() => Ok(Verdict::Unless(clauses.to_vec())),
                    Some(_) => Err(Mistake::Line(line)),
                    None => Err(Mistake::Rule(line, rule.to_owned())),
                }
            }
        }
    }
}

/// The argument rules by name: the call is denied when one of the clauses is true.
const RULES: &[(&str, &[Clause])] = &[
    ("new-namespaces", &[&[not_one_of(0, NEW_NAMESPACES, &[0])]]),
    // TIOCSTI and TIOCLINUX.
    ("terminal-input", &[&[one_of(1, ALL, &[0x5412, 0x541c])]]),
    ("device-by-second", &[&[one_of(1, FILE_TYPE, DEVICES)]]),
    ("device-by-third", &[&[one_of(2, FILE_TYPE, DEVICES)]]),
    // 0xffffffff asks; 0 is what every program has.
    ("no-change", &[&[not_one_of(0, ALL, &[0, 0xffff_ffff])]]),
    (
        "plain-families",
        &[
            // AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.
            &[not_one_of(0, ALL, &[1, 2, 10, 16])],
            // getaddrinfo and getifaddrs ask for addresses: NETLINK_ROUTE.
            &[one_of(0, ALL, &[16]), not_one_of(2, ALL, &[0])],
        ],
    ),
    (
        "known-transports",
        &[
            // The default, TCP, UDP, ICMP, ICMPv6 and UDP-Lite; so neither 33 (DCCP), 132 (SCTP), 256 (SMC) nor 262 (MPTCP).
            &[INTERNET, not_one_of(2, ALL, &[0, 6, 17, 1, 58, 136])],
            // With protocol 0, SOCK_SEQPACKET is SCTP and SOCK_DCCP is DCCP. Stream, datagram and raw remain.
            &[INTERNET, not_one_of(1, SOCKET_TYPE, &[1, 2, 3])],
        ],
    ),
    ("fast-open-third", &[&[not_one_of(2, FAST_OPEN, &[0])]]),
    ("fast-open-fourth", &[&[not_one_of(3, FAST_OPEN, &[0])]]),
];

const ALL: u32 = u32::MAX;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. CLONE_NEWTIME is no flag of clone(2).
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// S_IFMT. The kernel cuts the mode to 16 bits.
const FILE_TYPE: u32 = 0xf000;
/// S_IFCHR and S_IFBLK.
const DEVICES: &[u32] = &[0x2000, 0x6000];
/// SOCK_TYPE_MASK.
const SOCKET_TYPE: u32 = 0xf;
/// MSG_FASTOPEN.
const FAST_OPEN: u32 = 0x2000_0000;
const INTERNET: Condition = one_of(0, ALL, &[2, 10]);

const fn one_of(argument: u32, mask: u32, values: &'static [u32]) -> Condition {
    Condition { argument, mask, values, is_one: true }
}

const fn not_one_of(argument: u32, mask: u32, values: &'static [u32]) -> Condition {
    Condition { argument, mask, values, is_one: false }
}
