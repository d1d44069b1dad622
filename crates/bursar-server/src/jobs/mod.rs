//! Background jobs, and the caches and logs that they write.

pub(crate) mod background;
pub(crate) mod coalesced_log;
pub(crate) mod database_probe;
pub(crate) mod decision_log;
pub(crate) mod key_uses;
pub mod monotonic_clock;
pub(crate) mod tenant_cache;
pub(crate) mod write_probe;
