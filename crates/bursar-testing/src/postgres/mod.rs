//! A PostgreSQL of the tests' own: clusters, databases, a pooler and a proxy that loses replies.
//!
//! Whatever is started here ends with the process of the test, however that
//! ends, and leaves nothing behind. Deliberately absent: anything about Bursar's schema.

pub mod bouncer;
pub mod cluster;
pub mod database;
mod place;
mod programs;
pub mod proxy;
pub mod session;
mod supervisor;
pub mod url;
