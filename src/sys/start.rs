//! The first instructions of the setuid program, instead of std's own start: that one puts handlers in place for two
//! signals and makes a stack for them, which a setuid program does not want, and which costs as much as a stage.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;

/// Makes `$main`, which takes the words of the command line, the function that the C library calls.
#[macro_export]
macro_rules! start {
    ($main:path) => {
        // SAFETY: no other function of this program is called so.
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: ::std::ffi::c_int,
            words: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: these are the two that the C library has from the kernel.
            let words = unsafe { $crate::sys::start::begin(count, words) };
            // Not by returning: what is still in a buffer is written now.
            ::std::process::exit($main(&words).into())
        }
    };
}

/// The words after the program's own name. Descriptors 0 to 2 are there afterwards: a file that is opened later never
/// becomes one of them (CVE-2002-0572).
///
/// # Safety
/// The arguments are those of a C program's main function.
#[must_use]
pub unsafe fn begin(count: c_int, words: *const *const c_char) -> Vec<&'static OsStr> {
    for standard in 0..=2 {
        // SAFETY: plain numbers.
        let is_open = unsafe { libc::fcntl(standard, libc::F_GETFD) } >= 0;
        // The lowest free number is this one. Without it nothing may run, and there is nobody to tell.
        // SAFETY: the path ends with a NUL.
        if !is_open && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != standard {
            std::process::exit(ARRIVAL_STATUS);
        }
    }
    let word = |place| {
        // SAFETY: the array has `count` words and a null.
        let word = unsafe { words.add(place) };
        // SAFETY: as above.
        let word = unsafe { *word };
        // SAFETY: each word ends with a NUL and lives as long as the process.
        OsStr::from_bytes(unsafe { CStr::from_ptr(word) }.to_bytes())
    };
    (1..usize::try_from(count).unwrap_or(0)).map(word).collect()
}

/// The status of the stage that this belongs to.
const ARRIVAL_STATUS: c_int = 81;
