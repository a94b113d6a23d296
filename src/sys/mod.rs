//! The kernel. The only unsafe code of the crate: one wrapper a call, one operation a block.
//!
//! Functions that need root take a [`Root`]; what ends root consumes it. A call after the drop does not compile.
#![allow(unsafe_code, reason = "this is the one place for it")]

pub mod clock;
#[cfg(feature = "pool")]
pub mod descriptors;
pub mod files;
#[cfg(feature = "pool")]
pub mod filter;
#[cfg(feature = "pool")]
pub mod fork;
pub mod identity;
pub mod memory;
pub mod mount;
pub mod process;
#[cfg(feature = "pool")]
pub mod schedule;
pub mod seal;
pub mod start;

pub use identity::Root;
