//! Fuzz targets: whatever comes in from outside is read as what it says, or refused in words that
//! are documented, and the server goes on.
//!
//! Parsers that are private have their targets beside them (`src/import/fuzz.rs`). An ordinary run
//! takes the same few inputs each time; with `BURSAR_PROVE=1` each target takes new ones for a
//! while.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]

mod answers;
mod cells;
mod configurations;
mod credentials;
mod documents;
mod headers;
mod instants;
mod keys;
mod packed;
mod raw_keys;
mod records;
mod requests;
mod routes;
mod server;
mod sockets;
mod spellings;
mod tls;
mod tokens;
