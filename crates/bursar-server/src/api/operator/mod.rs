//! Routes for the operator and its monitoring.

pub(crate) mod caches;
pub(crate) mod clock;
pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod protection;
