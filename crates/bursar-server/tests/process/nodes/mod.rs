//! Several server processes over one PostgreSQL: shared data, refused databases, and outages of the
//! database.
//!
//! Rules, routes and a single store are tested without a process.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]

mod audited;
mod canary;
mod clocks;
mod commands;
mod crash;
mod deadlocks;
mod exact;
mod hangs;
mod isolation;
mod jumps;
mod kills;
mod once;
mod pooled;
mod propagation;
mod protection;
mod read_only;
mod refusals;
mod replies;
mod serving;
mod support;
mod terminated;
mod unavailable;
