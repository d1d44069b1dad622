//! The server under test and its clients.

#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/clock.rs"]
pub(crate) mod clock;
#[path = "../process/support/descriptors.rs"]
pub(crate) mod descriptors;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/folder.rs"]
pub(crate) mod folder;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/http.rs"]
pub(crate) mod http;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/server.rs"]
pub(crate) mod server;
#[path = "../process/support/tenant.rs"]
pub(crate) mod tenant;
#[path = "../process/support/waiting.rs"]
pub(crate) mod waiting;

use std::time::Duration;

pub(crate) use descriptors::raise_descriptors;
pub(crate) use waiting::{scale, within};

/// The value below which so many percent of some are.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}
