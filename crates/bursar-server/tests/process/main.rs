//! Proofs that need the real binary: it is killed, its disk fails, it is stopped under load, and
//! what it acknowledged must be there, once.
//!
//! An ordinary run is short. With `BURSAR_PROVE=1` the same tests use larger numbers.
//! Deliberately absent: rules and routes as such, which are proved without a process.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]

mod backups;
mod canary;
mod commands;
mod drain;
mod expiry;
mod faults;
mod front;
mod import;
mod jumps;
mod kills;
mod nodes;
mod oidc;
mod panics;
mod races;
mod readiness;
mod refusals;
mod watch;
