//! The words and numbers that may stand behind a key, each with a message that teaches.
//!
//! Pure.

use serde::Deserialize;

use super::reader::{HELP, nearest};

/// One of some words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(word: String) -> Result<Self, String> {
                match word.as_str() {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(none_of(&word, &[$($word),+])),
                }
            }
        }
    };
}

fn none_of(word: &str, words: &[&'static str]) -> String {
    let all = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match nearest(word, words.iter().copied()) {
        Some(near) => format!("`{word}` is none of {all}{HELP}did you mean `{near}`?"),
        None => format!("`{word}` is none of {all}{HELP}use one of them"),
    }
}

choice! {
    /// `jail.kind`.
    JailKind {
        /// A private mount namespace.
        View = "view",
        /// The host's own root.
        Host = "host",
        /// A directory that the administrator keeps.
        Chroot = "chroot",
    }
}
choice! {
    /// `jail.landlock`.
    Enforce {
        /// Refuse to run without it.
        Required = "required",
        /// As much as the kernel has.
        BestEffort = "best-effort",
        /// Not at all.
        Off = "off",
    }
}
choice! {
    /// `jail.seccomp`.
    Seccomp {
        /// The shipped list.
        Baseline = "baseline",
        /// No filter.
        Off = "off",
    }
}
choice! {
    /// `symlinks`.
    Symlinks {
        /// None is followed.
        Deny = "deny",
        /// Followed when link and target have one owner.
        OwnerMatch = "owner-match",
    }
}
choice! {
    /// `limits.cgroup`.
    Groups {
        /// Used when there is one.
        Auto = "auto",
        /// Refuse to run without one.
        Required = "required",
        /// Not used.
        Off = "off",
    }
}
choice! {
    /// `log.to`.
    LogTo {
        /// The system log.
        Syslog = "syslog",
        /// A file.
        File = "file",
    }
}
choice! {
    /// `log.format`.
    LogFormat {
        /// `key=value`.
        Cellwall = "cellwall",
        /// The lines of Apache's suEXEC.
        Suexec = "suexec",
    }
}
choice! {
    /// `pool.kind`.
    PoolKind {
        /// One FastCGI program.
        Fastcgi = "fastcgi",
        /// One that forks children of its own.
        Parent = "parent",
        /// Plain CGI programs, one for each request.
        Cgi = "cgi",
    }
}
choice! {
    /// `pool.accept`.
    Accept {
        /// Through the broker.
        Relay = "relay",
        /// By the worker itself.
        Direct = "direct",
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, not a negative one, or text with a unit like \"256M\" or \"30s\""
)]
enum Amount {
    Number(u64),
    Text(String),
}

/// How the message of a value ends that is no amount, no program, or no table of workers.
pub const AMOUNT: &str = "text with a unit like \"256M\" or \"30s\"";
/// As above.
pub const PROGRAM: &str = "or a list of it and its words";
/// As above.
pub const WORKERS: &str = "a table like { max = 8 }";

/// Bytes: a number, or text with `K`, `M`, `G`, `T` (powers of 1,024), or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Amount")]
pub struct Size(pub u64);

impl TryFrom<Amount> for Size {
    type Error = String;

    fn try_from(amount: Amount) -> Result<Self, String> {
        const UNITS: &[(&str, u64)] =
            &[("", 1), ("B", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];
        match amount {
            Amount::Number(bytes) => Ok(Self(bytes)),
            Amount::Text(text) => with_unit(text.trim_end_matches("iB"), UNITS)
                .map(Self)
                .ok_or_else(|| format!("`{text}` is no size{HELP}write bytes or a unit: 512K, 256M, 2G")),
        }
    }
}

/// Seconds: a number, or text with `s`, `m`, `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Amount")]
pub struct Seconds(pub u64);

impl TryFrom<Amount> for Seconds {
    type Error = String;

    fn try_from(amount: Amount) -> Result<Self, String> {
        const UNITS: &[(&str, u64)] = &[("", 1), ("s", 1), ("m", 60), ("min", 60), ("h", 3600), ("d", 86400)];
        match amount {
            Amount::Number(seconds) => Ok(Self(seconds)),
            Amount::Text(text) => with_unit(&text, UNITS)
                .map(Self)
                .ok_or_else(|| format!("`{text}` is no time{HELP}write seconds or a unit: 30s, 5m, 1h")),
        }
    }
}

/// As it is written on a command line.
impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |message: String| message.replace(HELP, ": ");
        Self::try_from(Amount::Text(text.to_owned())).map_err(wrong)
    }
}

/// A count, or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Amount")]
pub struct Count(pub u64);

impl TryFrom<Amount> for Count {
    type Error = String;

    fn try_from(amount: Amount) -> Result<Self, String> {
        match amount {
            Amount::Number(count) => Ok(Self(count)),
            Amount::Text(text) => with_unit(&text, &[("", 1)])
                .map(Self)
                .ok_or_else(|| format!("`{text}` is no count{HELP}write a number, or \"unlimited\"")),
        }
    }
}

/// `limits.cpu_max`: per cent of one processor, or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Amount")]
pub struct Percent(pub u64);

impl TryFrom<Amount> for Percent {
    type Error = String;

    fn try_from(amount: Amount) -> Result<Self, String> {
        let (percent, text) = match amount {
            Amount::Number(number) => (None, number.to_string()),
            Amount::Text(text) => (with_unit(&text, &[("%", 1)]), text),
        };
        percent.filter(|percent| (1..=100_000).contains(percent) || *percent == u64::MAX).map(Self).ok_or_else(|| {
            format!("`{text}` is no share of a processor{HELP}write per cent of one: \"50%\", \"200%\" for two")
        })
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    if text == "unlimited" {
        return Some(u64::MAX);
    }
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A umask: text in octal. A bare number would be read as decimal by TOML, so it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Amount")]
pub struct Umask(pub u16);

impl TryFrom<Amount> for Umask {
    type Error = String;

    fn try_from(amount: Amount) -> Result<Self, String> {
        match amount {
            Amount::Number(number) => {
                // Who writes 22 means 022; who writes 18 has counted.
                let digits = u16::from_str_radix(&number.to_string(), 8).ok().filter(|mask| *mask <= 0o777);
                let meant = digits.map_or(number, u64::from);
                Err(format!("`{number}` is a decimal number{HELP}write it as text: umask = \"{meant:03o}\""))
            }
            Amount::Text(text) => {
                u16::from_str_radix(&text, 8).ok().filter(|mask| *mask <= 0o777).map(Self).ok_or_else(|| {
                    format!("`{text}` is no umask{HELP}write octal digits: \"022\", \"027\", \"077\"")
                })
            }
        }
    }
}

/// A number between two others.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident($inner:ty), $least:literal to $most:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "i64")]
        pub struct $name(pub $inner);

        impl TryFrom<i64> for $name {
            type Error = String;

            fn try_from(number: i64) -> Result<Self, String> {
                <$inner>::try_from(number)
                    .ok()
                    .filter(|_| ($least..=$most).contains(&number))
                    .map(Self)
                    .ok_or_else(|| format!("{number} is out of range{HELP}it goes from {} to {}", $least, $most))
            }
        }
    };
}

ranged! {
    /// `limits.nice`.
    Nice(i8), -20 to 19
}
ranged! {
    /// `limits.oom_score`.
    OomScore(i16), -1000 to 1000
}
ranged! {
    /// `limits.cpu_weight`, as version 2 of control groups counts: 100 is what everybody has.
    Weight(u16), 1 to 10000
}
ranged! {
    /// A TCP port.
    Port(u16), 1 to 65535
}
ranged! {
    /// `jail.landlock_abi`.
    Abi(u8), 1 to 255
}
ranged! {
    /// `minimum_uid`, `minimum_gid`: root is never below it.
    MinimumId(u32), 1 to 4_294_967_294_i64
}
ranged! {
    /// `environment.entries_max`.
    Entries(u16), 1 to 65535
}
ranged! {
    /// `environment.bytes_max`.
    Bytes(u32), 1024 to 1048576
}

/// A program and its words: text (one word, no splitting) or a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WordOrWords")]
pub struct Words(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a program like \"/usr/bin/php-cgi\", or a list of it and its words")]
enum WordOrWords {
    One(String),
    Many(Vec<String>),
}

impl From<WordOrWords> for Words {
    fn from(words: WordOrWords) -> Self {
        match words {
            WordOrWords::One(word) => Self(vec![word]),
            WordOrWords::Many(words) => Self(words),
        }
    }
}

/// `pool.workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table like { max = 8 }")]
pub struct Workers {
    /// Most at a time.
    pub max: Option<Count>,
    /// Kept always.
    pub min: Option<Count>,
    /// Kept without work.
    pub spare: Option<Count>,
    /// One without work ends after it.
    pub idle: Option<Seconds>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        let size = |text: &str| Size::try_from(Amount::Text(text.to_owned())).map(|Size(bytes)| bytes).ok();
        let time =
            |text: &str| Seconds::try_from(Amount::Text(text.to_owned())).map(|Seconds(time)| time).ok();
        for (text, bytes) in [
            ("256M", Some(256 << 20)),
            ("1GiB", Some(1 << 30)),
            ("12", Some(12)),
            ("2 K", Some(2048)),
            ("unlimited", Some(u64::MAX)),
            ("-1", None),
            ("M", None),
            ("1m", None),
            ("99999999999999999999", None),
            ("99999999T", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
        for (text, seconds) in
            [("30s", Some(30)), ("2m", Some(120)), ("1h", Some(3600)), ("5M", None), ("", None)]
        {
            assert_eq!(time(text), seconds, "{text}");
        }
    }

    #[test]
    fn a_umask_is_octal_text() {
        assert_eq!(Umask::try_from(Amount::Text("027".to_owned())), Ok(Umask(0o027)));
        assert!(Umask::try_from(Amount::Text("1000".to_owned())).is_err());
        assert!(Umask::try_from(Amount::Number(27)).is_err());
    }

    #[test]
    fn a_share_is_of_one_processor_at_least_and_of_a_thousand_at_most() {
        let share =
            |text: &str| Percent::try_from(Amount::Text(text.to_owned())).map(|Percent(share)| share).ok();
        for (text, percent) in [
            ("1%", Some(1)),
            ("100000%", Some(100_000)),
            ("unlimited", Some(u64::MAX)),
            ("0%", None),
            ("100001%", None),
            ("50", None),
        ] {
            assert_eq!(share(text), percent, "{text}");
        }
    }

    /// Who writes 22 means 022; 512 has no digits of an octal umask, and 18 is no octal number.
    #[test]
    fn a_decimal_umask_is_answered_with_the_text_that_was_meant() {
        for (number, meant) in [(22, "022"), (27, "027"), (18, "022"), (1000, "1750")] {
            let said = Umask::try_from(Amount::Number(number)).unwrap_err();
            assert!(said.ends_with(&format!("umask = \"{meant}\"")), "{said}");
        }
    }
}
