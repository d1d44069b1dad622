//! Tenants, their onboarding, sessions and audit log.

pub(crate) mod audit;
pub mod audit_view;
pub(crate) mod onboarding;
pub(crate) mod session;
pub mod tenant;

use crate::api::route::Routes;

pub(crate) fn routes() -> Routes {
    session::routes().with(onboarding::routes()).with(tenant::routes()).with(audit::routes())
}
