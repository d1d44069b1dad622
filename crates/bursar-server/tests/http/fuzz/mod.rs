//! Fuzz targets: every input is either read correctly or refused with a documented error, and the
//! server keeps running.
//!
//! The targets of private parsers are beside them (`src/cli/import/fuzz.rs`). An ordinary run takes
//! the same few inputs each time; with `BURSAR_PROVE=1` each target runs longer and takes new ones.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::panic, reason = "a proof stops at the first thing that does not hold")]

mod cells;
mod compressed;
mod configurations;
mod credentials;
mod documents;
mod headers;
mod instants;
mod keys;
mod raw_keys;
mod records;
mod requests;
mod responses;
mod routes;
mod server;
mod sockets;
mod spellings;
mod tls;
mod tokens;
