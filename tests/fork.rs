//! A child that was forked while a thread of its parent's was about to end: it has that thread's locks, and not the thread.
//!
//! Of std's locks the one that each thread takes at its end is free for some hundred nanoseconds less than always, so that it was
//! met once in a million applies. Here it is held as long as is wanted: std gives a thread's name back under it, and the memory
//! of this program belongs to the test.
#![cfg(feature = "pool")]
#![allow(unsafe_code, reason = "a program has memory of its own only by an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use cellwall::sys::fork::{self, Side};

struct Memory;

#[global_allocator]
static MEMORY: Memory = Memory;

/// Bytes that only the name has.
const LENGTH: usize = 997;
const OFF: u8 = 0;
const ARMED: u8 = 1;
const HELD: u8 = 2;
static STATE: AtomicU8 = AtomicU8::new(OFF);

// SAFETY: all of it is the system's; one thread waits for a moment before it gives something back.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if layout.size() == LENGTH && STATE.compare_exchange(ARMED, HELD, SeqCst, SeqCst).is_ok() {
            while STATE.load(SeqCst) == HELD {
                thread::yield_now();
            }
        }
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn a_child_ends_whatever_a_thread_of_its_parents_was_at() {
    let named = thread::Builder::new().name("x".repeat(LENGTH));
    let ends = named.spawn(|| STATE.store(ARMED, SeqCst)).expect("a thread");
    // Another name of this length, or a std that does without it, would make a test of nothing.
    for _ in 0..1000 {
        if STATE.load(SeqCst) == HELD {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(STATE.load(SeqCst), HELD, "std gives a thread's name back at its end");
    let child = match fork::fork().expect("a child") {
        Side::Child => fork::leave(7),
        Side::Parent(child) => child,
    };
    let held = fork::hold(child).expect("a child");
    let in_time = fork::ends_within(&held, Duration::from_secs(20)).expect("a child");
    if !in_time {
        fork::end(&held).expect("a child");
    }
    STATE.store(OFF, SeqCst);
    ends.join().expect("its end");
    assert!(in_time, "it waits for a lock of a thread that it has not");
    assert_eq!(fork::reap(child).expect("a child").code, 7);
}
