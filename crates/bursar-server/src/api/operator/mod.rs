//! Routes for the operator and its monitoring.

pub mod caches;
pub mod clock;
pub mod docs;
pub mod health;
pub mod metrics;
pub mod protection;
