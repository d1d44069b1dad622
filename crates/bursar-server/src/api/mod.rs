//! The handlers, a folder for each resource. The folders do not import each other.

pub mod enforcement;
pub mod integrations;
pub mod keys;
pub mod operator;
pub mod route;
pub mod telemetry;
pub mod tenants;
