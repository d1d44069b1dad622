//! Tenants, their onboarding, sessions and audit log.

pub mod audit;
pub mod audit_view;
pub mod onboarding;
pub mod session;
pub mod tenant;

use crate::api::route::Routes;

pub fn routes() -> Routes {
    session::routes().with(onboarding::routes()).with(tenant::routes()).with(audit::routes())
}
