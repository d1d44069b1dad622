//! The Bursar server: HTTP, authentication, background jobs and the command line.
//!
//! A request takes two hops: a handler parses it into types that cannot be wrong, and the store or
//! the ledger answers. Deliberately absent: rules about money (they are in `bursar-core`) and SQL
//! (it is in `bursar-store`).
//!
//! The binary needs only [`cli::main`]. Tests, `benches/` and `bench/` at the root use the other
//! public items; everything else is `pub(crate)`, so that the compiler finds dead code.

// Only `cli::terminal` prints, because it escapes text from other sources.
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod http;
pub mod jobs;
mod middleware;
pub mod observe;
pub mod openapi;
pub mod protection;
pub mod router;
pub mod server;
pub mod wire;
