//! Integrations: what is registered, changed and shown.

pub mod integration;
pub(crate) mod integration_view;

use crate::api::route::Routes;

pub(crate) fn routes() -> Routes {
    integration::routes()
}
