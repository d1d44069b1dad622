//! A PostgreSQL of the tests' own: clusters, databases, a pooler and a proxy that loses replies.
//!
//! Other test binaries include this folder with `#[path = ".../support/postgres/mod.rs"]`. It needs
//! nothing of this crate. Whatever is started here ends with the process of the test, however that
//! ends, and leaves nothing behind. Deliberately absent: anything about Bursar's schema.

#![expect(clippy::expect_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::panic, reason = "a test that cannot be arranged has failed")]

pub(crate) mod bouncer;
pub(crate) mod cluster;
pub(crate) mod database;
mod place;
mod programs;
pub(crate) mod proxy;
pub(crate) mod session;
mod supervisor;
pub(crate) mod url;
