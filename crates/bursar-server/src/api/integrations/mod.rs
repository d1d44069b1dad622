//! Integrations: what is registered, changed and shown.

pub mod integration;
pub mod integration_view;
