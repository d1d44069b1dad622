//! Every feature over HTTP, in process: the product's own router over a real store.

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
mod costs;
mod credentials;
mod databases;
mod decisions;
mod documents;
mod envelope;
mod exports;
mod history;
mod instants;
mod integration_keys;
mod integration_updates;
mod integrations;
#[expect(dead_code, reason = "tests/oidc uses all of it")]
#[path = "../oidc/issuer.rs"]
mod issuer;
mod keys;
mod large_reads;
mod large_sums;
mod limits;
mod lists;
mod metrics;
mod nul;
mod odd_requests;
mod oidc;
mod panics;
#[expect(dead_code, reason = "the tests of the store use more of it")]
#[path = "../../../bursar-store/tests/support/postgres/mod.rs"]
mod postgres;
mod protection;
mod raw_keys;
mod records;
mod reservations;
mod response_headers;
#[path = "../oidc/rsa_key.rs"]
mod rsa_key;
mod series;
mod shares;
#[expect(dead_code, reason = "tests/oidc uses all of it")]
#[path = "../oidc/signer.rs"]
mod signer;
mod summaries;
mod tenancy;
mod tenants;
mod traces;
