//! Background jobs, and the caches and logs that they write.

pub mod background;
pub mod coalesced_log;
pub mod database_probe;
pub mod decision_log;
pub mod key_uses;
pub mod monotonic_clock;
pub mod tenant_cache;
pub mod write_probe;
