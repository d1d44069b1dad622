//! Who the caller is. Consoles use this instead of inferring it.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::auth::access::Access;
use crate::auth::authorize::AnyCaller;
use crate::wire::enums;
use crate::wire::envelope::Answer;
use crate::wire::scalars::Id;

/// The caller and what it may do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionContext {
    #[schema(value_type = enums::ActorType)]
    actor_type: &'static str,
    /// The tenant. For the operator it is the one named by the request, if any.
    #[schema(value_type = Option<Id>, required)]
    tenant_id: Option<String>,
    /// The scopes of an API key. Empty for other callers.
    #[schema(value_type = Vec<enums::Scope>)]
    capabilities: Vec<&'static str>,
    #[schema(value_type = Option<enums::TenantLifecycle>, required)]
    lifecycle_state: Option<&'static str>,
    #[schema(value_type = Option<enums::OnboardingState>, required)]
    onboarding_state: Option<&'static str>,
}

/// Returns the caller and its tenant
#[utoipa::path(
    get,
    path = "/api/v1/session/context",
    tag = "session",
    responses((status = 200, body = SessionContext, description = "The caller.")),
)]
pub(crate) async fn get_session_context(caller: AnyCaller) -> Answer<SessionContext> {
    let AnyCaller { actor_type, tenant, restricted_to: _, capabilities } = caller;
    Answer::ok(SessionContext {
        actor_type,
        tenant_id: tenant.map(|tenant| tenant.tenant_id.to_string()),
        capabilities,
        lifecycle_state: tenant.map(|tenant| tenant.lifecycle.as_str()),
        onboarding_state: tenant.map(|tenant| tenant.onboarding.as_str()),
    })
}

pub(crate) fn routes() -> Routes {
    Routes::new().add(Rule::of(Access::AnyCaller), routes!(get_session_context))
}
