//! Cellwall: every site of a shared web server in its own cell.
//!
//! The map of the crate:
//!
//! * [`launch`]: the pipeline that turns one request into one program of a site. All programs enter here.
//! * [`policy`]: the only thing that root code reads: plain data, its on-disk record, the reader that distrusts it.
//! * [`refusal`] and [`record`]: why a stage said no, and the one line that says what was done.
//! * [`sys`]: the kernel. The only unsafe code of the crate.
//! * `config`: the administrator's TOML and its way to a policy (feature `admin`).
//! * `admin`: one file for each command of `cellwall` (feature `admin`).
//! * `pool`: the FastCGI pool mode (feature `pool`).
//!
//! May not: `sys`, `launch`, `policy`, `refusal` and `record` never use `config`, `admin` or `pool`; the setuid
//! program is built from them alone.

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "admin")]
pub mod config;
pub mod launch;
pub mod policy;
#[cfg(feature = "pool")]
pub mod pool;
pub mod record;
pub mod refusal;
pub mod sys;
