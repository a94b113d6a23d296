//! libFuzzer's way to the entry `gate`.
#![no_main]

#[allow(dead_code, reason = "each target is one of the entries")]
#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::run("gate", data));
