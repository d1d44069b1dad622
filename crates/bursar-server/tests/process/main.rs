//! Proofs that need the real binary: it is killed, its disk fails, it is stopped under load, and
//! what it acknowledged must be there, once.
//!
//! An ordinary run is short. With `BURSAR_PROVE=1` the same tests use larger numbers.
//! Deliberately absent: rules and routes as such, which are proved without a process.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]

mod backups;
mod canary;
mod drain;
mod expiry;
mod faults;
#[expect(clippy::unwrap_used, dead_code, reason = "tests/oidc uses all of it in its own way")]
#[path = "../oidc/issuer.rs"]
mod issuer;
mod jumps;
mod kills;
mod oidc;
mod panics;
mod races;
mod readiness;
mod refusals;
#[path = "../oidc/rsa_key.rs"]
mod rsa_key;
#[expect(clippy::unwrap_used, dead_code, reason = "tests/oidc uses all of it in its own way")]
#[path = "../oidc/signer.rs"]
mod signer;
mod support;
mod watch;
