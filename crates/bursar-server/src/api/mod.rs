//! The handlers, one file a resource. They do not know each other.

pub mod enforcement;
pub mod integrations;
pub mod keys;
pub mod operator;
pub mod telemetry;
pub mod tenants;
