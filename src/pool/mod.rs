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
//! * [`child`]: from fork to exec: the launch pipeline's entry for workers.
//! * [`control`]: what administrators and site owners may ask for. Pure.
//! * [`descent`]: from root's process to the broker's.
//! * [`journal`]: the supervisor's lines in the log.
//! * [`life`]: a worker's life as a table. Pure.
//! * [`listen`]: sockets, with their final mode from the start.
//! * [`notify`]: the service manager.
//! * [`outlook`]: what of the host a cell was entered under.
//! * [`pulse`]: makes the kernel look more often at who is to run.
//! * [`script`]: what a CGI request is about.
//! * [`seal`]: what nobody gives up for good.
//! * [`supervisor`]: root's side.
//! * [`tree`]: a worker and all that it starts.
//! * [`whereabouts`]: where a worker is, for the slow log.
//! * [`zygote`]: waits in a site's cell and starts its CGI programs there.
//! * [`settings`]: what one pool is and may; the record that `cellwall apply` writes. Pure.

pub mod broker;
pub mod channel;
pub mod child;
pub mod control;
pub mod descent;
pub mod journal;
pub mod life;
pub mod listen;
pub mod notify;
pub mod outlook;
pub mod pulse;
pub mod script;
pub mod seal;
pub mod settings;
pub mod supervisor;
pub mod tree;
pub mod whereabouts;
pub mod wire;
pub mod zygote;

pub mod fastcgi;
pub mod gate;
