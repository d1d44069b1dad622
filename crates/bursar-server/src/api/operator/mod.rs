//! What only the operator or its monitoring asks.

pub mod caches;
pub mod clock;
pub mod docs;
pub mod health;
pub mod metrics;
pub mod protection;
