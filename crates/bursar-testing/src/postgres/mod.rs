//! A PostgreSQL server for tests: clusters, databases, a pooler and a proxy that loses replies.
//!
//! All processes stop with the test process, even if it is killed, and leave no files. Deliberately
//! absent: Bursar's schema.

pub mod bouncer;
pub mod cluster;
pub mod database;
mod programs;
pub mod proxy;
pub mod session;
mod supervisor;
mod temporary;
pub mod url;
