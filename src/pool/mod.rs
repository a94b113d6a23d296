//! The FastCGI pool mode. Not part of this version: `cellwalld` says so and starts nothing.
//!
//! Site files may have a `[pool]` section already; it is checked with the rest and used by nothing.

pub mod fastcgi;

/// What `cellwalld` answers to whoever starts it.
pub const ABSENT: &str = "cellwalld: the FastCGI pool is not part of this version, so nothing was started. \
    Sites are served as CGI by cellwall-suexec(8), which needs no daemon. \
    For FastCGI today, use Apache's mod_fcgid with FcgidWrapper, which starts its programs through cellwall-suexec.";
