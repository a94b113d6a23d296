//! Which libraries a program needs, by its own header, and where the dynamic loader would find them (ld.so(8)).
//!
//! Nothing is run: `ldd` of a program may run the program. Files are read below a root, whose links lead nowhere else.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, FileHeader32, FileHeader64, PT_LOAD,
};
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _};
use object::{Endianness, FileKind, ReadCache, ReadRef};

use crate::config::ground::{Ground, Kind};
use crate::sys::files;

/// What a file asks for before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// A program or library in machine code.
    Machine(Machine),
    /// A script, with the words of its first line.
    Script(Vec<String>),
    /// Nothing.
    None,
}

/// The header of a program or library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Word size and processor: what is loaded together has the same.
    pub kind: (bool, u16),
    /// The dynamic loader.
    pub interpreter: Option<PathBuf>,
    /// Libraries, by name.
    pub libraries: Vec<String>,
    /// Directories of its own to look for them, with `$ORIGIN`.
    pub places: Vec<String>,
}

/// Reads the beginning of a regular file, which is reached without a link: anything else is not waited for.
///
/// # Errors
/// It cannot be opened.
pub fn needs(path: &Path) -> std::io::Result<Needs> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let bytes = path.as_os_str().as_encoded_bytes();
    let mut file = File::from(files::open_plain(AT_FDCWD, bytes, flags, ResolveFlag::empty())?);
    if !file.metadata()?.is_file() {
        return Ok(Needs::None);
    }
    let mut first = Vec::new();
    (&mut file).take(256).read_to_end(&mut first)?;
    if first.starts_with(b"#!") {
        return Ok(Needs::Script(words(&first)));
    }
    if !first.starts_with(b"\x7fELF") {
        return Ok(Needs::None);
    }
    let cache = ReadCache::new(file);
    let machine = match FileKind::parse(&cache) {
        Ok(FileKind::Elf32) => machine::<FileHeader32<Endianness>, _>(&cache),
        Ok(FileKind::Elf64) => machine::<FileHeader64<Endianness>, _>(&cache),
        _ => None,
    };
    Ok(machine.map_or(Needs::None, Needs::Machine))
}

/// Of a `#!` line.
fn words(first: &[u8]) -> Vec<String> {
    let line = first.get(2..).unwrap_or_default().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    text.split([' ', '\t']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn machine<'data, Elf: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: R) -> Option<Machine> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let interpreter = segments.iter().find_map(|segment| segment.interpreter(endian, data).ok().flatten());
    let mut found = Machine {
        kind: (header.is_class_64(), header.e_machine(endian).0),
        interpreter: interpreter.and_then(text).map(PathBuf::from),
        ..Machine::default()
    };
    let Some(dynamic) = segments.iter().find_map(|segment| segment.dynamic(endian, data).ok().flatten())
    else {
        return Some(found);
    };
    let value = |tag| dynamic.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.val(endian));
    let (start, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
    let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let strings = loaded.filter_map(|segment| segment.data_range(endian, data, start, size).ok()?).next()?;
    let string = |place: u64| {
        let rest = strings.get(usize::try_from(place).ok()?..)?;
        text(rest.split(|byte| *byte == 0).next()?)
    };
    let strings_of = |tag| {
        let entries = dynamic.iter().filter(move |entry| entry.tag(endian) == tag);
        entries.filter_map(|entry| string(entry.val(endian))).collect::<Vec<String>>()
    };
    found.libraries = strings_of(DT_NEEDED);
    // RPATH counts only without RUNPATH.
    let places = [strings_of(DT_RUNPATH), strings_of(DT_RPATH)].into_iter().find(|list| !list.is_empty());
    found.places = places.into_iter().flatten().flat_map(|list| split(&list)).collect();
    Some(found)
}

fn split(list: &str) -> Vec<String> {
    list.split(':').filter(|place| !place.is_empty()).map(str::to_owned).collect()
}

/// The dynamic loader's way to look, below one root.
#[derive(Debug)]
pub struct Loader {
    root: PathBuf,
    /// Name and path, as `ldconfig` found them.
    cache: Vec<(String, PathBuf)>,
}

impl Loader {
    /// Of the host (`/`), or of a chroot.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let cache = fs::read(root.join("etc/ld.so.cache")).map(|bytes| cached(&bytes)).unwrap_or_default();
        Self { root: root.to_owned(), cache }
    }

    /// Where a library is that `by` needs, which lies in `origin`. Several: variants for newer processors.
    pub fn find(&self, library: &str, by: &Machine, origin: &Path, ground: &mut Ground) -> Vec<PathBuf> {
        if library.contains('/') {
            let fits = self.fits(Path::new(library), by, ground);
            return if fits { vec![PathBuf::from(library)] } else { Vec::new() };
        }
        let origin = origin.to_str().unwrap_or("/");
        let own = by.places.iter().map(|place| place.replace("${ORIGIN}", origin).replace("$ORIGIN", origin));
        let own = own.map(|place| crate::config::ground::plain(&Path::new(&place).join(library)));
        if let Some(found) = own.into_iter().find(|path| self.fits(path, by, ground)) {
            return vec![found];
        }
        let cached = self.cache.iter().filter(|(name, _)| name == library).map(|(_, path)| path.clone());
        let cached: Vec<PathBuf> = cached.filter(|path| self.fits(path, by, ground)).collect();
        if !cached.is_empty() {
            return cached;
        }
        let builtin = builtin(by.kind.1).into_iter().map(|place| Path::new(&place).join(library));
        builtin.into_iter().find(|path| self.fits(path, by, ground)).into_iter().collect()
    }

    /// A file for the same processor.
    fn fits(&self, path: &Path, by: &Machine, ground: &mut Ground) -> bool {
        let found = ground.find(&self.root, path);
        if found.kind != Kind::File || found.foreign.is_some() {
            return false;
        }
        let file = self.root.join(found.real.strip_prefix("/").unwrap_or(&found.real));
        matches!(needs(&file), Ok(Needs::Machine(other)) if other.kind == by.kind)
    }
}

/// Where loaders look without being told, by distribution.
fn builtin(machine: u16) -> Vec<String> {
    let triplet = TRIPLETS.iter().filter(|(number, _)| *number == machine).map(|(_, name)| *name);
    let own = triplet.flat_map(|name| [format!("/lib/{name}"), format!("/usr/lib/{name}")]);
    own.chain(["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"].map(str::to_owned)).collect()
}

/// Debian's names of the machines (elf(5)).
const TRIPLETS: [(u16, &str); 8] = [
    (3, "i386-linux-gnu"),
    (21, "powerpc64le-linux-gnu"),
    (22, "s390x-linux-gnu"),
    (40, "arm-linux-gnueabihf"),
    (62, "x86_64-linux-gnu"),
    (183, "aarch64-linux-gnu"),
    (243, "riscv64-linux-gnu"),
    (258, "loongarch64-linux-gnu"),
];

/// Pure: the entries of /etc/ld.so.cache, in the form that glibc has written since 2.2 (dl-cache.h). What is not
/// understood is left out: the loader's own directories come after it.
#[must_use]
pub fn cached(bytes: &[u8]) -> Vec<(String, PathBuf)> {
    let Some(start) = bytes.windows(MAGIC.len()).position(|some| some == MAGIC) else { return Vec::new() };
    let cache = bytes.get(start..).unwrap_or_default();
    let number = |place: usize| {
        let four = cache.get(place..place.checked_add(4)?)?;
        let four = <[u8; 4]>::try_from(four).ok()?;
        usize::try_from(u32::from_ne_bytes(four)).ok()
    };
    let string = |place: usize| {
        let rest = cache.get(place..)?.split(|byte| *byte == 0).next()?;
        String::from_utf8(rest.to_vec()).ok()
    };
    let count = number(MAGIC.len()).unwrap_or(0).min(cache.len() / ENTRY);
    let entry = |index: usize| {
        let place = HEADER + index * ENTRY;
        Some((string(number(place + 4)?)?, PathBuf::from(string(number(place + 8)?)?)))
    };
    (0..count).filter_map(entry).filter(|(_, path)| path.is_absolute()).collect()
}

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_read_and_a_broken_one_is_empty() {
        let mut bytes = MAGIC.to_vec();
        let strings = 48 + 24;
        bytes.extend(1_u32.to_ne_bytes());
        bytes.resize(48, 0);
        bytes.extend(0x303_u32.to_ne_bytes());
        bytes.extend(u32::try_from(strings).unwrap().to_ne_bytes());
        bytes.extend(u32::try_from(strings + 8).unwrap().to_ne_bytes());
        bytes.resize(strings, 0);
        bytes.extend(b"libc.so\0/lib/libc.so\0");
        assert_eq!(cached(&bytes), [("libc.so".to_owned(), PathBuf::from("/lib/libc.so"))]);
        for length in 0..bytes.len() {
            assert!(cached(&bytes[..length]).len() < 2);
        }
        assert_eq!(cached(b"nothing"), []);
        let many = [MAGIC, &u32::MAX.to_ne_bytes(), &[0; 28]].concat();
        assert_eq!(cached(&many), []);
    }

    #[test]
    fn this_program_needs_the_c_library_and_it_is_found() {
        let own = std::env::current_exe().unwrap();
        let Ok(Needs::Machine(machine)) = needs(&own) else { panic!("no ELF file") };
        let library = machine.libraries.iter().find(|name| name.starts_with("libc.so")).unwrap();
        let found =
            Loader::of(Path::new("/")).find(library, &machine, Path::new("/"), &mut Ground::default());
        assert!(found.iter().all(|path| path.ends_with(library)) && !found.is_empty(), "{found:?}");
        assert!(machine.interpreter.is_some_and(|path| path.is_absolute()));
    }

    #[test]
    fn nothing_is_followed_or_waited_for() {
        let place = std::env::temp_dir().join(format!("cellwall-needs-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        nix::unistd::mkfifo(&place.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/bin/sh", place.join("link")).unwrap();
        assert_eq!(needs(&place.join("pipe")).unwrap(), Needs::None);
        assert!(needs(&place.join("link")).is_err());
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_script_names_its_interpreter() {
        assert_eq!(words(b"#! /usr/bin/env  perl -T\nprint"), ["/usr/bin/env", "perl", "-T"]);
        assert_eq!(words(b"#!/bin/sh"), ["/bin/sh"]);
    }
}
