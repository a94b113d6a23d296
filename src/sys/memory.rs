//! Memory: the C library's, and an end where there is none.
//!
//! std would write what only its makers understand to the web server's error log, and abort. Nothing was run, and
//! without memory there is no record: one line says so.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_int;

/// The allocator of the setuid program.
#[derive(Debug)]
pub struct Memory;

// SAFETY: it is the system's allocator; what that could not give never reaches a caller.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        given(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.realloc(pointer, layout, size) })
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
