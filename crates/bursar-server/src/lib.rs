//! The server of Bursar: the wire, who may call, and the command line.
//!
//! A request takes two hops: a handler reads it into types that cannot be wrong, and storage or
//! the ledger answers. Deliberately absent: rules about money (they are in `bursar-core`) and SQL
//! (it is in `bursar-store`).

pub mod api;
pub mod app;
pub mod auth;
pub mod body;
pub mod config_object;
pub mod credential_ref;
pub mod decision_view;
pub mod envelope;
pub mod error;
pub mod estimate;
pub mod figures;
pub mod instant;
pub mod params;
pub mod raw_key;
pub mod router;
pub mod secret;
pub mod text;
