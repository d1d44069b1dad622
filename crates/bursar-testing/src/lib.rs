//! Code that the tests of several crates share: a PostgreSQL server, the real binary as a process,
//! OIDC issuers, fuzz targets, raw connections, waiting, and capabilities of the machine.
//!
//! Deliberately absent: dependencies on the crates of the product. Unit tests use this crate too,
//! and would get a second copy of their own types. Code for a single test binary is a module there.

#![expect(clippy::expect_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::panic, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "bytes that are not there fail the test")]
#![expect(clippy::new_without_default, reason = "a new one starts a program or makes a folder")]

pub mod chance;
pub mod frames;
pub mod fuzzing;
pub mod machine;
pub mod memory_cgroup;
pub mod oidc;
pub mod postgres;
pub mod process;
pub mod raw_connection;
pub mod waiting;
