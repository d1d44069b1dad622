//! Keys of a tenant, and keys of its integrations. Both are rows of one table, and each change or
//! question is one function with a handler for each.

pub mod create_key;
pub mod grants;
pub mod key_view;
pub mod list_keys;
pub mod new_key;
pub mod revoke_key;
pub mod rotate_key;

use crate::api::route::Routes;

/// The routes of this folder.
pub fn routes() -> Routes {
    create_key::routes()
        .with(list_keys::routes())
        .with(revoke_key::routes())
        .with(rotate_key::routes())
}
