//! What the tests of several crates share: a PostgreSQL, the real binary as a process, issuers of
//! tokens, fuzz targets, raw connections, waiting, and what a machine may forbid.
//!
//! Deliberately absent: anything of the crates of the product. Unit tests use this crate too, and
//! with it they would meet a second copy of their own types. What only one test binary needs is a
//! module of that binary.

#![expect(clippy::expect_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::panic, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "bytes that are not there fail the test")]
#![expect(clippy::new_without_default, reason = "a new one starts a program or makes a folder")]

pub mod cage;
pub mod chance;
pub mod frames;
pub mod fuzzing;
pub mod machine;
pub mod oidc;
pub mod postgres;
pub mod process;
pub mod waiting;
pub mod wire;
