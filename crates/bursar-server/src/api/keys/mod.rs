//! API keys and the keys of integrations.

pub mod api_keys;
pub mod create_key;
pub mod integration_keys;
pub mod rotate_key;
