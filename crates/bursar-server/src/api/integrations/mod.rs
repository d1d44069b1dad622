//! Integrations: what is registered, changed and shown.

pub mod integration;
pub mod integration_view;

use crate::api::route::Routes;

pub fn routes() -> Routes {
    integration::routes()
}
