//! Tenants, their onboarding, sessions and audit log.

pub mod audit;
pub mod audit_view;
pub mod onboarding;
pub mod session;
pub mod tenant;
