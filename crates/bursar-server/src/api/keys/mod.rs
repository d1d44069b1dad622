//! API keys and the keys of integrations.

pub mod api_keys;
pub mod create_key;
pub mod integration_keys;
pub mod rotate_key;

use crate::api::route::Routes;

/// The routes of this folder.
pub fn routes() -> Routes {
    api_keys::routes().with(integration_keys::routes())
}
