//! The server of Bursar: the wire, who may call, and the command line.
//!
//! A request takes two hops: a handler reads it into types that cannot be wrong, and storage or
//! the ledger answers. Deliberately absent: rules about money (they are in `bursar-core`) and SQL
//! (it is in `bursar-store`).

// Text of others is printed by `terminal` only.
#![cfg_attr(not(test), warn(clippy::print_stderr, clippy::print_stdout))]

pub mod access;
pub mod answer_memory;
pub mod api;
pub mod app;
pub mod audit_view;
pub mod auth;
pub mod background;
pub mod body;
pub mod budget;
pub mod cli;
pub mod client;
pub mod client_address;
pub mod config;
pub mod config_object;
pub mod credential_ref;
pub mod csv_cell;
pub mod cursor;
pub mod data_dir;
pub mod database;
pub mod decision_log;
pub mod decision_view;

pub mod dev;
pub mod doorway;
pub mod envelope;
pub mod error;
pub mod estimate;
pub mod export;
pub mod failed_logins;
pub mod figures;
#[cfg(test)]
#[expect(dead_code, reason = "targets elsewhere use more of it")]
#[path = "../../bursar-core/tests/support/fuzzing.rs"]
mod fuzzing;
pub mod guard;
pub mod holder;
pub mod import;
mod inflate;
pub mod instant;
pub mod integration_view;
mod json_depth;
pub mod json_line;
pub mod json_object;
pub mod key_uses;
pub mod log;
mod log_queue;
pub mod metrics;
pub mod minting;
pub mod monotonic_clock;
pub mod onboarding;
pub mod openapi;
pub mod outbound;
pub mod params;
pub mod passage;
pub mod people;
pub mod period;
pub mod protection;
pub mod pulse;
pub mod raw_key;
pub mod rotation;
pub mod router;
pub mod scopes;
pub mod secret;
pub mod serve;
pub mod start;
pub mod tenant_cache;
pub mod terminal;
pub mod text;
pub mod trace;
pub mod usage_file;
pub mod usage_view;
pub mod watch;
pub mod work_pool;
pub mod write_probe;
