//! API keys and integration keys. Both are rows of one table. Each operation is one function with a
//! handler for each kind.

pub mod create_key;
pub(crate) mod grants;
pub(crate) mod key_view;
pub(crate) mod list_keys;
pub(crate) mod new_key;
pub(crate) mod revoke_key;
pub(crate) mod rotate_key;

use crate::api::route::Routes;

/// The routes of this folder.
pub(crate) fn routes() -> Routes {
    create_key::routes()
        .with(list_keys::routes())
        .with(revoke_key::routes())
        .with(rotate_key::routes())
}
