//! The handlers, one file a resource. They do not know each other.

pub mod abuse;
pub mod audit;
pub mod caches;
pub mod clock;
pub mod decisions;
pub mod docs;
pub mod enforcement;
pub mod health;
pub mod history;
pub mod ingest;
pub mod integration_keys;
pub mod integrations;
pub mod keys;
pub mod metrics;
pub mod onboarding;
pub mod reservations;
pub mod series;
pub mod session;
pub mod tenants;
pub mod usage;
