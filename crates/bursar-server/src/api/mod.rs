//! The HTTP handlers, one folder per resource. The folders do not import each other.

pub(crate) mod enforcement;
pub mod integrations;
pub mod keys;
pub(crate) mod operator;
pub mod route;
pub mod telemetry;
pub mod tenants;
