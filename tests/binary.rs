//! The launcher as `cargo xtask build` made it: how it is linked, what it asks of the loader, what it tells of its makers.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on must say so loudly"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A 64-bit little-endian program (elf(5)).
struct Program {
    bytes: Vec<u8>,
}

/// A program header: type, flags, offset, size in the file, size in memory.
struct Segment {
    kind: u64,
    flags: u64,
    offset: usize,
    size: usize,
}

const DYNAMIC: u64 = 2;
const INTERPRETER: u64 = 3;
const STACK: u64 = 0x6474_e551;
const RELRO: u64 = 0x6474_e552;
const EXECUTE: u64 = 1;
const WRITE: u64 = 2;

impl Program {
    /// From target/dist, two directories above this test.
    fn launcher() -> Self {
        let test = std::env::current_exe().unwrap();
        let path = test.ancestors().nth(3).unwrap().join("dist/cellwall-suexec");
        let bytes = fs::read(&path)
            .unwrap_or_else(|why| panic!("{}: {why}; make it with: cargo xtask build", path.display()));
        assert!(bytes.starts_with(b"\x7fELF\x02\x01"), "{} is no such program", path.display());
        Self { bytes }
    }

    fn number(&self, at: usize, size: usize) -> u64 {
        self.bytes[at..at + size].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn place(&self, at: usize, size: usize) -> usize {
        usize::try_from(self.number(at, size)).unwrap()
    }

    fn segments(&self) -> Vec<Segment> {
        let (table, size, count) = (self.place(32, 8), self.place(54, 2), self.place(56, 2));
        (0..count)
            .map(|index| table + index * size)
            .map(|at| Segment {
                kind: self.number(at, 4),
                flags: self.number(at + 4, 4),
                offset: self.place(at + 8, 8),
                size: self.place(at + 32, 8),
            })
            .collect()
    }

    fn segment(&self, kind: u64) -> Option<Segment> {
        self.segments().into_iter().find(|segment| segment.kind == kind)
    }

    /// Tags of the dynamic section and their values.
    fn dynamic(&self) -> BTreeMap<u64, u64> {
        let section = self.segment(DYNAMIC).expect("a dynamic section");
        let places = (section.offset..section.offset + section.size).step_by(16);
        places.map(|at| (self.number(at, 8), self.number(at + 8, 8))).collect()
    }

    /// Names of sections.
    fn sections(&self) -> Vec<String> {
        let (table, size, count) = (self.place(40, 8), self.place(58, 2), self.place(60, 2));
        let header = |index: usize| table + index * size;
        let names = self.place(header(self.place(62, 2)) + 24, 8);
        (0..count)
            .map(|index| names + self.place(header(index), 4))
            .map(|start| self.bytes[start..].split(|byte| *byte == 0).next().unwrap())
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .collect()
    }
}

#[test]
fn it_is_static_and_loads_anywhere() {
    let program = Program::launcher();
    assert_eq!(program.number(16, 2), 3, "ET_DYN: the kernel chooses its address");
    assert!(program.segment(INTERPRETER).is_none(), "it asks for a loader");
    let dynamic = program.dynamic();
    for (tag, name) in [(1, "NEEDED"), (15, "RPATH"), (29, "RUNPATH"), (22, "TEXTREL")] {
        assert!(!dynamic.contains_key(&tag), "DT_{name}");
    }
    // DF_1_PIE.
    assert!(dynamic[&0x6fff_fffb] & 0x0800_0000 != 0, "not marked as position-independent");
}

#[test]
fn nothing_of_it_is_writable_and_executable() {
    let program = Program::launcher();
    for segment in program.segments() {
        assert!(segment.flags & (WRITE | EXECUTE) != WRITE | EXECUTE, "segment of type {:#x}", segment.kind);
    }
    let stack = program.segment(STACK).expect("a header for the stack: without it, it is executable");
    assert_eq!(stack.flags & EXECUTE, 0, "an executable stack");
    assert!(
        program.segment(RELRO).is_some_and(|segment| segment.size > 0),
        "tables of addresses stay writable"
    );
    // DF_BIND_NOW, DF_1_NOW.
    let dynamic = program.dynamic();
    assert!(dynamic[&30] & 8 != 0 && dynamic[&0x6fff_fffb] & 1 != 0, "addresses are not bound at once");
}

/// Addresses in tables are set at each start, and each page that they lie in is copied for that: decision 14.
#[test]
fn what_each_start_fills_in_is_three_pages() {
    let filled = Program::launcher().segment(RELRO).expect("tables of addresses").size;
    assert!(filled <= 3 * 4096, "{filled} bytes: a list of texts is better one text, or code");
}

#[test]
fn it_is_stripped_and_small() {
    let program = Program::launcher();
    let sections = program.sections();
    assert!(sections.contains(&".text".to_owned()), "{sections:?}");
    let more = sections.iter().filter(|name| name.contains("symtab") || name.starts_with(".debug"));
    assert_eq!(more.count(), 0, "{sections:?}");
    assert!(program.bytes.len() < 700_000, "{} bytes", program.bytes.len());
}

#[test]
fn it_names_no_directory_of_its_makers() {
    let program = Program::launcher();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for place in [here.as_os_str().as_encoded_bytes(), b"/.cargo", b"/.rustup", b"/registry/"] {
        let found = program.bytes.windows(place.len()).any(|part| part == place);
        assert!(!found, "the program names {}", String::from_utf8_lossy(place));
    }
}
