//! What the kernel would say at exec: the first bytes of a program, and the interpreter that they name.
//!
//! Runs as the site's own uid. Said before the record is written, so that "no such file" gets a reason.
//! Refuses with V07, V08, V10–V17; with suEXEC's 255 where its exec would fail. The parser is pure and fuzzed.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::refusal::{Card, Refusal};
use crate::sys::files;

use super::verify::open_for_reading;
use super::walk::{Follow, MEND, Rules, walk};

/// What a program begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// A `#!` line: the interpreter that it names, and whether any word of it is php-cgi, which `env` looks for and starts.
    Script(Vec<u8>, bool),
    /// A compiled program for this machine.
    Compiled,
    /// The site may execute, and not read it: the kernel will know.
    Unreadable,
}

/// Why the first bytes are no program's.
#[derive(Debug, PartialEq, Eq)]
pub enum NoProgram {
    /// Nothing in it.
    Empty,
    /// The `#!` line ends with a carriage return, which becomes part of the interpreter's name.
    CarriageReturn,
    /// The `#!` line names nothing, or no absolute path.
    NoInterpreter,
    /// Compiled for another machine.
    OtherMachine,
    /// Neither.
    Unknown,
}

/// Reads the beginning of the file `name`, which was found to be a regular one.
pub(super) fn look(directory: &OwnedFd, name: &[u8], full: &[u8]) -> Result<First, Refusal> {
    let file = match open_for_reading(directory, name) {
        Ok(file) => file,
        Err(Errno::EACCES) => return Ok(First::Unreadable),
        Err(errno) => return Err(Refusal::about(&GONE, full, errno.desc())),
    };
    if fstatvfs(&file).is_ok_and(|facts| facts.flags().contains(FsFlags::ST_NOEXEC)) {
        return Err(Refusal::about(&NOEXEC, full, "lies on a file system that is mounted noexec"));
    }
    if files::has_attribute(&file, c"security.capability") {
        return Err(Refusal::about(&CAPABILITY, full, "has file capabilities"));
    }
    let mut bytes = [0; FIRST_BYTES];
    let count =
        nix::unistd::read(&file, &mut bytes).map_err(|errno| Refusal::about(&GONE, full, errno.desc()))?;
    parse(bytes.get(..count).unwrap_or_default()).map_err(|why| match why {
        NoProgram::Empty => Refusal::about(&EMPTY, full, "is empty"),
        NoProgram::CarriageReturn => Refusal::about(&LINE_END, full, "ends its #! line the way of Windows"),
        NoProgram::NoInterpreter => Refusal::about(&UNKNOWN, full, "names no interpreter in its #! line"),
        NoProgram::OtherMachine => Refusal::about(&MACHINE, full, "is compiled for another kind of machine"),
        NoProgram::Unknown => {
            Refusal::about(&UNKNOWN, full, "begins neither with #! nor as a compiled program")
        }
    })
}

/// Pure: what the kernel's fs/binfmt_script.c and fs/binfmt_elf.c would make of the beginning of a file.
///
/// # Errors
/// [`NoProgram`].
pub fn parse(bytes: &[u8]) -> Result<First, NoProgram> {
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let mut words = line.split(blank).filter(|word| !word.is_empty());
        let php = words.clone().any(is_php_cgi);
        let name = words.next().unwrap_or_default();
        if name.contains(&b'\r') || line.ends_with(b"\r") {
            return Err(NoProgram::CarriageReturn);
        }
        let whole = name.starts_with(b"/") && !name.contains(&0);
        return if whole { Ok(First::Script(name.to_vec(), php)) } else { Err(NoProgram::NoInterpreter) };
    }
    match bytes {
        [] => Err(NoProgram::Empty),
        [0x7f, b'E', b'L', b'F', class, order, ..] => {
            let machine = bytes.get(18..20).and_then(|two| two.try_into().ok()).map(u16::from_le_bytes);
            // ELFCLASS64, ELFDATA2LSB, and this build's e_machine (elf(5)).
            if (*class, *order, machine) == (2, 1, MACHINE_NUMBER) {
                Ok(First::Compiled)
            } else {
                Err(NoProgram::OtherMachine)
            }
        }
        _ => Err(NoProgram::Unknown),
    }
}

/// Root's alone, all the way, links of root's included; or, where the site's list names it, the site's own. True: it is
/// php-cgi, by this name or by that of the file that it leads to.
pub(super) fn trusted(program: &[u8], listed: &[&[u8]], uid: u32) -> Result<bool, Refusal> {
    let named = listed.contains(&program);
    if !listed.is_empty() && !named {
        return Err(Refusal::about(&NOT_LISTED, program, "is not among the site's `interpreters`"));
    }
    let (owner, follow) = if named { (uid, Follow::Owners(uid)) } else { (0, Follow::Roots) };
    let reached = walk(program, Rules { owner, follow, fence: b"" }).map_err(|refusal| {
        let missing = refusal.card.code == "V115";
        let card = if missing { &MISSING } else { &UNTRUSTED };
        Refusal::about(card, program, &format!("cannot be the interpreter: {}", refusal.why))
    })?;
    let mode = reached.facts.st_mode;
    if mode & libc::S_IFMT != libc::S_IFREG || mode & 0o111 == 0 {
        return Err(Refusal::about(&MISSING, program, "cannot be the interpreter: it is no program"));
    }
    if mode & 0o022 != 0 {
        let why = format!("cannot be the interpreter: it is writable by others ({:04o})", mode & 0o7777);
        return Err(Refusal::about(&UNTRUSTED, program, &why));
    }
    Ok(is_php_cgi(program) || is_php_cgi(&reached.path))
}

/// `php-cgi`, `php-cgi8.2`, `php8.2-cgi`, `php84-cgi`, and Debian's `cgi-bin/php8.2`: a CGI or FastCGI program that takes its
/// script from the environment. Not `php`, which takes it from its words.
#[must_use]
pub fn is_php_cgi(program: &[u8]) -> bool {
    let mut parts = program.rsplit(|byte| *byte == b'/');
    let (name, directory) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let version = |text: &[u8]| text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    name.strip_prefix(b"php").is_some_and(|rest| match rest.windows(3).position(|part| part == b"cgi") {
        Some(place) => {
            version(rest.get(..place).unwrap_or_default())
                && version(rest.get(place.saturating_add(3)..).unwrap_or_default())
        }
        None => directory == b"cgi-bin" && version(rest),
    })
}

/// As much as the kernel reads (BINPRM_BUF_SIZE).
const FIRST_BYTES: usize = 256;
/// EM_X86_64, EM_AARCH64.
const MACHINE_NUMBER: Option<u16> = if cfg!(target_arch = "aarch64") { Some(183) } else { Some(62) };

/// Whoever owns the file may write to it, and to nothing of root's that a link in its place leads to.
pub(super) const OWNERS: &str = "setpriv --reuid=UID --regid=GID --clear-groups ";

static GONE: Card = Card { code: "V08", status: 86, remedy: "ls -l {}" };
static CAPABILITY: Card = Card { code: "V07", status: 86, remedy: MEND };
static LINE_END: Card = Card {
    code: "V10",
    status: 255,
    remedy: "setpriv --reuid=UID --regid=GID --clear-groups sed -i 's/\\r$//' {}",
};
static MISSING: Card = Card {
    code: "V11",
    status: 255,
    remedy: "# install {}, or make it visible: name it in `execute` of the site's [files], then: cellwall apply",
};
static UNKNOWN: Card = Card {
    code: "V12",
    status: 255,
    remedy: "# begin {} with a line like #!/bin/sh; or give its ending an interpreter in the site's [handlers], then: cellwall apply",
};
static MACHINE: Card =
    Card { code: "V13", status: 255, remedy: "file {}; uname -m # compile it for this machine" };
static UNTRUSTED: Card = Card {
    code: "V14",
    status: 86,
    remedy: "# begin the script with an interpreter that root alone can change; or, for one of the site's own, add {} to `interpreters` of the site's file, then: cellwall apply",
};
static NOT_LISTED: Card = Card {
    code: "V15",
    status: 86,
    remedy: "# add {} to `interpreters` of the site's file, then: cellwall apply",
};
static NOEXEC: Card = Card {
    code: "V16",
    status: 255,
    remedy: "mount -o remount,bind,exec $(findmnt -n -o TARGET -T {}) && cellwall apply",
};
static EMPTY: Card = Card { code: "V17", status: 255, remedy: "# put the program into {} again" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        let script = |program: &[u8], php| Ok(First::Script(program.to_vec(), php));
        assert_eq!(parse(b"#!/bin/sh\necho"), script(b"/bin/sh", false));
        assert_eq!(parse(b"#! \t/usr/bin/env perl -w\n"), script(b"/usr/bin/env", false));
        assert_eq!(parse(b"#!/bin/sh"), script(b"/bin/sh", false));
        assert_eq!(parse(b"#!/usr/bin/env -S php-cgi8.4 -q\n"), script(b"/usr/bin/env", true));
        assert_eq!(parse(b"#!/usr/bin/php-cgi\nphp-cgi"), script(b"/usr/bin/php-cgi", true));
        assert_eq!(parse(b"#!/usr/bin/env php\nphp-cgi"), script(b"/usr/bin/env", false));
        assert_eq!(parse(b"#!/bin/sh\r\necho"), Err(NoProgram::CarriageReturn));
        assert_eq!(parse(b"#!/usr/bin/perl -w\r\n"), Err(NoProgram::CarriageReturn));
        assert_eq!(parse(b"#!\n"), Err(NoProgram::NoInterpreter));
        assert_eq!(parse(b"#!perl\n"), Err(NoProgram::NoInterpreter));
        assert_eq!(parse(b""), Err(NoProgram::Empty));
        assert_eq!(parse(b"<?php"), Err(NoProgram::Unknown));
        assert_eq!(parse(b"\x7fELF\x01\x01"), Err(NoProgram::OtherMachine));
    }

    #[test]
    fn php_is_told_from_php_cgi() {
        for name in [
            "/usr/bin/php-cgi",
            "php-cgi8.2",
            "/usr/bin/php8.2-cgi",
            "php84-cgi",
            "/usr/lib/cgi-bin/php8.2",
            "/usr/lib/cgi-bin/php",
        ] {
            assert!(is_php_cgi(name.as_bytes()), "{name}");
        }
        for name in [
            "/usr/bin/php",
            "php8.2",
            "php-cli",
            "cgi",
            "/usr/bin/phpmagiccgi",
            "/opt/php-cgi/bin/perl",
            "/srv/cgi-bin/phpinfo",
        ] {
            assert!(!is_php_cgi(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_program_is_one_for_this_machine_alone() {
        let number = MACHINE_NUMBER.unwrap().to_le_bytes();
        let elf = |class: u8, order: u8, machine: [u8; 2]| {
            let mut bytes = [&b"\x7fELF"[..], &[class, order, 1, 0], &[0; 8], &[2, 0], &machine].concat();
            bytes.resize(64, 0);
            bytes
        };
        assert_eq!(parse(&elf(2, 1, number)), Ok(First::Compiled));
        for other in
            [elf(1, 1, number), elf(2, 2, number), elf(2, 1, [2, 0]), elf(2, 1, number)[..19].to_vec()]
        {
            assert_eq!(parse(&other), Err(NoProgram::OtherMachine));
        }
        assert_eq!(parse(b"#!/bin/a\rb -x\n"), Err(NoProgram::CarriageReturn), "in the middle of its name");
        assert_eq!(parse(b"#!/bin/a\0b\n"), Err(NoProgram::NoInterpreter));
    }

    #[test]
    fn an_interpreter_is_a_program_of_roots_or_is_listed() {
        let code = |program: &[u8], listed: &[&[u8]]| {
            trusted(program, listed, 65_533).map_err(|refusal| refusal.card.code)
        };
        assert_eq!(code(b"/usr/bin/env", &[]), Ok(false));
        assert_eq!(code(b"/usr/bin/env", &[b"/usr/bin/env"]), Ok(false), "listed, and root's");
        assert_eq!(code(b"/usr/bin/env", &[b"/usr/bin/perl"]), Err("V15"));
        assert_eq!(code(b"/usr/bin", &[]), Err("V11"), "a directory can be searched, and not run");
        assert_eq!(code(b"/etc/passwd", &[]), Err("V11"), "a file that nobody may run");
        assert_eq!(code(b"/usr/bin/there-is-none", &[]), Err("V11"));
    }
}
