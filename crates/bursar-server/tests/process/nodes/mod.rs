//! Several servers over one PostgreSQL, as processes: what one of them writes the others show, what
//! must not be served is refused, and a database that goes away comes back.
//!
//! Deliberately absent: rules and routes as such, and what one store does, which are proved
//! without a process.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]

mod audited;
mod canary;
mod clocks;
mod commands;
mod crash;
mod deadlocks;
mod exact;
mod fresh;
mod hangs;
mod isolation;
mod jumps;
mod kills;
mod once;
mod pooled;
mod protection;
mod read_only;
mod refusals;
mod replies;
mod serving;
mod support;
mod terminated;
mod unavailable;
