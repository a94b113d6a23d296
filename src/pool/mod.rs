//! The FastCGI pool mode: a supervisor that is root and reads nothing of the network, and a broker that is nobody.
//!
//! ```text
//!       web server ── FastCGI ──▶ /run/cellwall/pool/SITE.sock
//!                                    │ listening sockets, bound by the supervisor, passed down
//!  ┌─────────────────────────────────▼──────┐   wire: fixed frames   ┌────────────────────────────────────┐
//!  │ broker     own uid, no files, sealed   │ ── wants, runs ──────▶ │ supervisor   root                  │
//!  │ fastcgi, gate, queues, deadlines, logs │ ◀── sites, workers ─── │ settings, fork + pipeline, pidfds, │
//!  └──────────────▲─────────────────────────┘                        │ control groups, back-off           │
//!                 │ a private socket for each worker                 └────────────────┬───────────────────┘
//!           ┌─────┴──────────┐                                                        │
//!           │ worker (site)  │ ◀─────────────────────────────── the same pipeline as cellwall-suexec's
//!           └────────────────┘
//! ```
//! * [`broker`]: between web servers and workers, as nobody.
//! * [`fastcgi`]: the protocol as a codec. [`gate`]: what of a request may pass. Both pure.
//! * [`wire`]: the contract between the two, and nothing else. Pure.
//! * [`channel`]: frames and descriptors over the pair.
//! * [`life`]: a worker's life as a table. Pure.
//! * [`settings`]: what one pool is and may; the record that `cellwall apply` writes. Pure.

pub mod broker;
pub mod channel;
pub mod life;
pub mod settings;
pub mod wire;

pub mod fastcgi;
pub mod gate;

/// What `cellwalld` answers to whoever starts it.
pub const ABSENT: &str = "cellwalld: the FastCGI pool is not part of this version, so nothing was started. \
    Sites are served as CGI by cellwall-suexec(8), which needs no daemon. \
    For FastCGI today, use Apache's mod_fcgid with FcgidWrapper, which starts its programs through cellwall-suexec.";
