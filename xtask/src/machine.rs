//! The kinds of machine that the programs are made for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, run, say};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// As rustc, the kernel and the names of compilers call it.
    name: &'static str,
    /// As Debian calls it.
    pub(crate) debian: &'static str,
    /// What emulates a whole one.
    pub(crate) emulator: &'static [&'static str],
    /// Where its kernel speaks.
    pub(crate) console: &'static str,
}

const ALL: [Machine; 2] = [
    Machine {
        name: "x86_64",
        debian: "amd64",
        emulator: &["qemu-system-x86_64", "-machine", "q35,accel=tcg"],
        console: "ttyS0",
    },
    Machine {
        name: "aarch64",
        debian: "arm64",
        emulator: &["qemu-system-aarch64", "-machine", "virt,accel=tcg"],
        console: "ttyAMA0",
    },
];

impl Machine {
    /// The one that we are.
    pub(crate) fn own() -> Outcome<&'static Self> {
        let own = ALL.iter().find(|one| one.is_own());
        own.ok_or_else(|| format!("nothing is known here of {}", std::env::consts::ARCH))
    }

    /// By Debian's name.
    pub(crate) fn named(name: &str) -> Outcome<&'static Self> {
        let named = ALL.iter().find(|one| one.debian == name);
        let known = || ALL.map(|one| one.debian).join(" and ");
        named.ok_or_else(|| format!("Of machines {} are known here, and not {name:?}.", known()))
    }

    pub(crate) fn is_own(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    /// The launcher's target.
    pub(crate) fn musl(&self) -> String {
        format!("{}-unknown-linux-musl", self.name)
    }

    /// The target of the command, the daemon and the tests.
    pub(crate) fn gnu(&self) -> String {
        format!("{}-unknown-linux-gnu", self.name)
    }

    /// One of binutils or gcc, that makes programs for it.
    pub(crate) fn tool(&self, name: &str) -> String {
        if self.is_own() { name.to_owned() } else { format!("{}-linux-gnu-{name}", self.name) }
    }

    /// A call of cargo that makes programs for it.
    pub(crate) fn cargo(&self, words: &[&str]) -> Command {
        let mut command = run::cargo(words);
        if !self.is_own() {
            command.args(["--target", &self.gnu()]);
            let linker = format!("CARGO_TARGET_{}_LINKER", self.gnu().to_uppercase().replace('-', "_"));
            command.env(linker, self.tool("gcc"));
        }
        command
    }

    /// The Debian packages by which programs for it are made and run.
    pub(crate) fn packages(&self) -> Vec<&'static str> {
        let (emulator, cross): (_, &[&str]) = match self.debian {
            "arm64" => (
                "qemu-system-arm",
                &["gcc-aarch64-linux-gnu", "ipxe-qemu", "libc6-dev-arm64-cross", "qemu-user-static"],
            ),
            _ => ("qemu-system-x86", &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross", "qemu-user-static"]),
        };
        let cross = if self.is_own() { &[] } else { cross };
        [&[emulator], cross].concat()
    }
}

/// While it lives the kernel has programs of another kind of machine run by an emulator
/// (Documentation/admin-guide/binfmt-misc.rst). What was there before stays as it was.
pub(crate) struct Emulation {
    /// Our word to the kernel, where nobody else has told it.
    word: Option<PathBuf>,
    mounted: bool,
}

const FORMATS: &str = "/proc/sys/fs/binfmt_misc";

impl Emulation {
    /// None: the machine is this kind itself.
    pub(crate) fn of(machine: &Machine) -> Outcome<Option<Self>> {
        if machine.is_own() {
            return Ok(None);
        }
        let formats = Path::new(FORMATS);
        let mut emulation = Self { word: None, mounted: false };
        if !formats.join("register").exists() {
            run::quietly("mount", Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", FORMATS]))?;
            emulation.mounted = true;
        }
        let name = format!("qemu-{}", machine.name);
        let word = formats.join(&name);
        if word.exists() {
            return Ok(Some(emulation));
        }
        say::note(&format!("$ programs of {} are emulated: {}", machine.debian, word.display()));
        let number = if machine.debian == "arm64" { 0xb7 } else { 0x3e };
        // The beginning of an ELF program of 64 bits: class, order, version; any ABI; executable or shared; the machine (elf(5)).
        let magic = format!(
            "\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x{number:02x}\\x00"
        );
        let mask = "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff";
        // F: the emulator is opened now, and so is there in another root directory.
        let line = format!(":{name}:M::{magic}:{mask}:/usr/bin/{name}-static:F");
        fs::write(formats.join("register"), line).map_err(|why| format!("{FORMATS}/register: {why}"))?;
        emulation.word = Some(word);
        Ok(Some(emulation))
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        if let Some(word) = &self.word {
            drop(fs::write(word, "-1"));
        }
        if self.mounted {
            drop(Command::new("umount").arg(FORMATS).status());
        }
    }
}
