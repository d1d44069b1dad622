//! Tests of the real binary as a process: kills, failing disks, shutdown under load, commands,
//! several nodes. What was acknowledged must be stored exactly once.
//!
//! An ordinary run is short; with `BURSAR_PROVE=1` the same tests use larger numbers. Rules and
//! routes are tested without a process, in tests/http and in the core.

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
mod observability;
mod oidc;
mod panics;
mod races;
mod readiness;
mod refusals;
