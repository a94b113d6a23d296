//! Memory of the setuid program: a small place of its own, then the C library's; and an end where there is none.
//!
//! A launch needs some ten pages, once, and then becomes another program: a list of free pieces, system calls for each
//! size and their page faults cost more than all the checks of the policy. Only the piece at the end is ever given
//! back. What is too large for the place (a record of a megabyte, thousands of variables) comes from the C library.
//!
//! Without memory std would write what only its makers understand to the web server's error log, and abort. Nothing was
//! run, and without memory there is no record: one line says so.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The allocator of the setuid program, which has one thread. In this order: what is before the place is in a page that the
/// program has touched already.
#[derive(Debug)]
#[repr(C)]
pub struct Memory {
    /// Bytes of the place that are given away.
    used: AtomicUsize,
    place: UnsafeCell<[u8; SIZE]>,
}

/// Bytes. In .bss: pages that nobody touches do not exist.
const SIZE: usize = 128 << 10;

// SAFETY: the place is only handed out in pieces that do not overlap, to the one thread that there is.
unsafe impl Sync for Memory {}

impl Memory {
    /// Nothing is given away yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a static needs a const function")]
    pub const fn new() -> Self {
        Self { place: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    /// A piece of the place; None: it does not fit any more.
    fn piece(&self, layout: Layout) -> Option<*mut u8> {
        let base = self.place.get().cast::<u8>();
        let mask = layout.align().checked_sub(1)?;
        let address = base.addr().checked_add(self.used.load(Relaxed))?.checked_add(mask)? & !mask;
        let start = address.checked_sub(base.addr())?;
        let end = start.checked_add(layout.size()).filter(|end| *end <= SIZE)?;
        self.used.store(end, Relaxed);
        Some(base.wrapping_add(start))
    }

    /// Where in the place a piece begins; None: it is the C library's.
    fn start(&self, piece: *mut u8) -> Option<usize> {
        let start = piece.addr().checked_sub(self.place.get().addr())?;
        (start < SIZE).then_some(start)
    }

    /// Is it the last one that was given away?
    fn is_last(&self, start: usize, size: usize) -> bool {
        start.checked_add(size) == Some(self.used.load(Relaxed))
    }
}

// SAFETY: pieces of the place are aligned, as long as asked for, and given away once; the others are the system's. What
// could not be given never reaches a caller.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.piece(layout) {
            Some(piece) => piece,
            // SAFETY: the caller's promise is passed on.
            None => given(unsafe { System.alloc(layout) }),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.start(pointer) {
            Some(start) if self.is_last(start, layout.size()) => self.used.store(start, Relaxed),
            Some(_) => {}
            // SAFETY: what is not of the place is the system's.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.start(pointer) else {
            // SAFETY: as above.
            return given(unsafe { System.realloc(pointer, layout, size) });
        };
        if let Some(end) = start.checked_add(size).filter(|end| *end <= SIZE)
            && self.is_last(start, layout.size())
        {
            self.used.store(end, Relaxed);
            return pointer;
        }
        // SAFETY: the size is not zero, and with this alignment not too large: the caller's promise.
        let wider = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above.
        let new = unsafe { self.alloc(wider) };
        // SAFETY: both are as long as the smaller size, and the new one is no part of the old one.
        unsafe { new.copy_from_nonoverlapping(pointer, layout.size().min(size)) };
        new
    }
}

fn given(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() {
        // SAFETY: the length is that of the text; a failed write changes nothing, the status says it all.
        unsafe { libc::write(2, LINE.as_ptr().cast(), LINE.len()) };
        // SAFETY: nothing is run at this exit, and nothing is left to be written.
        unsafe { libc::_exit(STATUS) };
    }
    pointer
}

const LINE: &str = "cellwall: refused, no memory\n";

/// The status of what the launcher cannot begin without.
const STATUS: c_int = 81;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    fn get(memory: &Memory, size: usize) -> *mut u8 {
        // SAFETY: no size is zero.
        unsafe { memory.alloc(layout(size)) }
    }

    fn zeroed(memory: &Memory, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { memory.alloc_zeroed(layout(size)) }
    }

    fn give(memory: &Memory, piece: *mut u8, size: usize) {
        // SAFETY: each piece is given back as it was got, once.
        unsafe { memory.dealloc(piece, layout(size)) }
    }

    fn change(memory: &Memory, piece: *mut u8, from: usize, to: usize) -> *mut u8 {
        // SAFETY: the piece is as long as it was got, and is not used again.
        unsafe { memory.realloc(piece, layout(from), to) }
    }

    fn fill(piece: *mut u8, byte: u8, size: usize) {
        // SAFETY: the piece is that long.
        unsafe { piece.write_bytes(byte, size) }
    }

    fn bytes<'a>(piece: *const u8, size: usize) -> &'a [u8] {
        // SAFETY: the piece is that long, was written, and is not changed while the test looks.
        unsafe { std::slice::from_raw_parts(piece, size) }
    }

    #[test]
    fn pieces_are_aligned_and_do_not_overlap() {
        let memory = Memory::new();
        let mut end = 0;
        for (size, align) in [(1, 1), (3, 8), (100, 64), (5, 1), (8, 4096), (1, 2)] {
            // SAFETY: no size is zero.
            let piece = unsafe { memory.alloc(Layout::from_size_align(size, align).unwrap()) }.addr();
            assert!(piece >= end && piece.is_multiple_of(align));
            end = piece + size;
        }
    }

    #[test]
    fn the_last_piece_grows_and_goes_where_it_is_and_others_move() {
        let memory = Memory::new();
        let first = get(&memory, 8);
        fill(first, 7, 8);
        let second = get(&memory, 8);
        assert_eq!(change(&memory, second, 8, 64), second);
        let moved = change(&memory, first, 8, 16);
        assert_ne!(moved, first);
        assert_eq!(bytes(moved, 8), [7; 8]);
        give(&memory, moved, 16);
        assert_eq!(get(&memory, 16), moved);
    }

    #[test]
    fn what_is_too_large_is_the_systems_and_zeroed_is_zero() {
        let memory = Memory::new();
        let used = get(&memory, 64);
        fill(used, 1, 64);
        give(&memory, used, 64);
        assert_eq!(bytes(zeroed(&memory, 64), 64), [0; 64]);
        let large = zeroed(&memory, SIZE + 1);
        assert_eq!(memory.start(large), None);
        let larger = change(&memory, large, SIZE + 1, 2 * SIZE);
        assert_eq!(bytes(larger, SIZE + 1), vec![0; SIZE + 1]);
        give(&memory, larger, 2 * SIZE);
        let near = get(&memory, SIZE - 64);
        fill(near, 9, SIZE - 64);
        assert!(memory.start(near).is_some());
        let gone = change(&memory, near, SIZE - 64, SIZE);
        assert_eq!(memory.start(gone), None);
        assert_eq!(bytes(gone, SIZE - 64), vec![9; SIZE - 64]);
        give(&memory, gone, SIZE);
    }
}
