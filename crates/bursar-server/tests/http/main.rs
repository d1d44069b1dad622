//! Tests that need no server process: every feature over HTTP, through the product's own router
//! over a real store; fuzz targets; token issuers; and the files that ship beside the binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a field that is not there fails the test")]
#![expect(clippy::too_many_lines, reason = "a snapshot is as long as its answer")]

mod support;

mod audit;
mod bad_fields;
mod batches;
mod bodies;
mod caches;
mod caps;
mod checks;
mod clock;
mod configuration;
mod costs;
mod credentials;
mod databases;
mod decisions;
mod deploy;
mod documents;
mod envelope;
mod exports;
mod fuzz;
mod history;
mod instants;
mod integration_keys;
mod integration_updates;
mod integrations;
mod issuers;
mod keys;
mod large_reads;
mod large_sums;
mod limits;
mod lists;
mod metrics;
mod nul;
mod odd_requests;
mod oidc;
mod packaging;
mod panics;
mod protection;
mod raw_keys;
mod records;
mod reservations;
mod response_headers;
mod series;
mod shares;
mod spellings;
mod structure;
mod summaries;
mod tenancy;
mod tenants;
mod traces;
